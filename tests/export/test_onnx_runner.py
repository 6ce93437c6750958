# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""The runner repeats the package's preprocessing, which is held to the original, and checks its settings."""

import json
import re
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from clarity_hf import ClarityImageProcessor
from clarity_hf.export import onnx_runner

SIZES = [(64, 64), (120, 90), (97, 301), (33, 20), (64, 31), (513, 640), (40, 64)]
"""Larger, smaller, equal to the input's 64 × 64 along one axis, of odd and even sides."""


def settings(**changed):
    """A `clarity.json` for two findings at 64 × 64."""
    return {
        "format": "onnx",
        "format_version": onnx_runner.FORMAT_VERSION,
        "model": "model.onnx",
        "findings": ["Mass", "Nodule"],
        "score_thresholds": [0.5, 0.2],
        "map_thresholds": [0.5, 0.5],
        "box_components": "all",
        "box_upsampling": 8,
        "box_valleys": [0.8, 0.0],
        "size": {"height": 64, "width": 64},
        "keep_ratio": True,
        "resample": "bilinear",
        "rescale_factor": 1 / 255,
        "mean": [0.5056] * 3,
        "std": [0.252] * 3,
    } | changed


def noise(size, dtype=np.uint8, high=255):
    drawn = np.random.default_rng(sum(size)).uniform(0, high, size)
    return drawn.astype(np.float32) if np.dtype(dtype).kind == "f" else drawn.round().astype(dtype)


# Preprocessing


@pytest.mark.parametrize("resample", [2, 3])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("keep_ratio", [True, False])
def test_pixel_values_of_8_bit_images_are_the_processors(size, resample, keep_ratio):
    capability = torch.backends.cpu.get_cpu_capability()
    processor = ClarityImageProcessor(
        size={"height": 64, "width": 64}, keep_ratio=keep_ratio, resample=resample, image_std=[0.2, 0.25, 0.3]
    )
    named = settings(keep_ratio=keep_ratio, resample={2: "bilinear", 3: "bicubic"}[resample], std=[0.2, 0.25, 0.3])
    pixels = noise(size)
    expected = processor(pixels, return_tensors="pt").pixel_values.numpy()
    prepared = onnx_runner.prepare(pixels, named)
    assert prepared.dtype == np.float32
    # Without AVX torch resizes in float and rounds once: a grey level, 1 / 255 / 0.2, may then part them.
    tolerance = 1e-5 if capability.startswith("AVX") else 0.02
    np.testing.assert_allclose(prepared, expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("resample", [2, 3])
@pytest.mark.parametrize("size", SIZES)
def test_pixel_values_of_deep_images_are_the_processors(size, resample):
    processor = ClarityImageProcessor(size={"height": 64, "width": 64}, resample=resample)
    named = settings(resample={2: "bilinear", 3: "bicubic"}[resample])
    pixels = noise(size, np.float32)
    expected = processor(pixels, return_tensors="pt").pixel_values.numpy()
    np.testing.assert_allclose(onnx_runner.prepare(pixels, named), expected, rtol=0, atol=2e-5)


def test_inputs_that_are_not_square_are_the_processors():
    processor = ClarityImageProcessor(size={"height": 32, "width": 96})
    pixels = noise((120, 90), np.float32)
    prepared = onnx_runner.prepare(pixels, settings(size={"height": 32, "width": 96}))
    expected = processor(pixels, return_tensors="pt").pixel_values.numpy()
    np.testing.assert_allclose(prepared, expected, rtol=0, atol=2e-5)


def test_black_is_around_a_portrait_image():
    prepared = onnx_runner.prepare(np.full((128, 64), 255, np.uint8), settings(mean=[0.0], std=[1.0]))
    np.testing.assert_allclose(prepared[0, 0, :, 16:48], 1, atol=1e-6)
    assert prepared[0, 0, :, :16].max() == prepared[0, 0, :, 48:].max() == 0


# Results


def test_findings_without_boxes_are_present_and_have_none():
    maps = np.random.default_rng(0).random((2, 4, 4)).astype(np.float32)
    found = onnx_runner.findings_of(np.float32([0.9, 0.8]), maps, (64, 64), settings(boxless_findings=["Mass"]))
    assert [(one["label"], one["present"], bool(one["boxes"])) for one in found] == [
        ("Mass", True, False),
        ("Nodule", True, True),
    ]


def test_a_present_finding_has_boxes_from_its_own_score_on():
    maps = np.ones((2, 4, 4), np.float32)
    options = settings(score_thresholds=[0.3, 0.3]) | {"box_score_thresholds": [0.5, 0.3]}
    found = onnx_runner.findings_of(np.float32([0.4, 0.6]), maps, (128, 128), options)
    assert [(one["present"], bool(one["boxes"])) for one in found] == [(True, True), (True, False)]


def test_findings_come_by_score_with_boxes_from_their_threshold_on():
    maps = np.zeros((2, 4, 4), np.float32)
    maps[:, 1, 2] = 1
    found = onnx_runner.findings_of(np.float32([0.4, 0.6]), maps, (128, 128), settings(score_thresholds=[0.5, 0.6]))
    assert [(one["label"], one["present"]) for one in found] == [("Nodule", True), ("Mass", False)]
    assert found[1] == {"label": "Mass", "score": pytest.approx(0.4), "threshold": 0.5, "present": False, "boxes": []}
    (box,) = found[0]["boxes"]
    # Half of the peak lies half a patch, 16 pixels of the image, around the patch's centre (80, 48), to a cell of 4.
    assert box == {"xmin": 64.0, "ymin": 32.0, "xmax": 96.0, "ymax": 64.0}
    json.dumps(found)


@pytest.mark.parametrize(("changed", "got"), [({"format_version": 99}, "version 99"), ({"format": "torch"}, "torch")])
def test_another_export_is_refused(tmp_path, changed, got):
    pytest.importorskip("onnxruntime")
    (tmp_path / "clarity.json").write_text(json.dumps(settings(**changed)))
    with pytest.raises(ValueError, match=rf"`folder` must hold onnx, version 1, got .*{got}"):
        onnx_runner.OnnxRunner(tmp_path)


def test_a_folder_without_an_export_is_refused(tmp_path, capsys):
    pytest.importorskip("onnxruntime")
    with pytest.raises(SystemExit) as caught:
        onnx_runner.main(["image.png", "--folder", str(tmp_path)])
    assert caught.value.code == 1
    expected = r"error: `folder` must hold clarity\.json, got .+\. Pass the folder of an export\.\n"
    assert re.fullmatch(expected, capsys.readouterr().err)


def test_onnxruntime_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ImportError, match="pip install onnxruntime"):
        onnx_runner.OnnxRunner(tmp_path)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"model": "../model.onnx"}, r"`model` of clarity.json must be an .onnx file beside it, got '../model.onnx'"),
        ({"model": "/etc/passwd"}, "`model` of clarity.json must be an .onnx file beside it"),
        ({"model": "model.pkl"}, "`model` of clarity.json must be an .onnx file beside it"),
        ({"model": ["model.onnx"]}, "`model` of clarity.json must be an .onnx file beside it"),
        ({"size": {"height": 10**6, "width": 64}}, r"`size` of clarity.json must be the model's, \[64, 64\]"),
        ({"box_upsampling": 10**9}, "`box_upsampling` must be between 1 and 64, got 1000000000"),
        ({"box_upsampling": "8"}, "`box_upsampling` must be between 1 and 64, got 8"),
        ({"std": [0.0] * 3}, "`std` of clarity.json must be in .*, got"),
        ({"mean": [float("nan")] * 3}, "`mean` of clarity.json must be in"),
        ({"rescale_factor": 0}, "`rescale_factor` of clarity.json must be in"),
        ({"score_thresholds": [50.0] * 2}, r"`score_thresholds` of clarity.json must be in \[0, 1\], got"),
        ({"score_thresholds": "0.5"}, "`score_thresholds` of clarity.json must be in"),
        ({"map_thresholds": [0.5]}, "`map_thresholds` of clarity.json must be one for each of"),
    ],
)
def test_settings_that_are_not_the_models_are_refused(tmp_path, monkeypatch, changed, message):
    model = SimpleNamespace(get_inputs=lambda: [SimpleNamespace(shape=["batch", 3, 64, 64])])
    runtime = SimpleNamespace(InferenceSession=lambda *_: model)
    monkeypatch.setitem(sys.modules, "onnxruntime", runtime)
    (tmp_path / "clarity.json").write_text(json.dumps(settings()))
    onnx_runner.OnnxRunner(tmp_path)
    (tmp_path / "clarity.json").write_text(json.dumps(settings(**changed)))
    with pytest.raises(ValueError, match=message):
        onnx_runner.OnnxRunner(tmp_path)


@pytest.mark.parametrize("content", ["[]", "{}", '{"format": "onnx", "format_version": 1}'])
def test_settings_without_what_is_read_of_them_are_refused(tmp_path, content):
    (tmp_path / "clarity.json").write_text(content)
    with pytest.raises(ValueError, match=r"`clarity.json` must have \['box_components'"):
        onnx_runner.OnnxRunner(tmp_path)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0])
@pytest.mark.parametrize("what", ["scores", "maps"])
def test_results_out_of_range_are_an_error(what, value):
    scores, maps = np.full(2, 0.5, np.float32), np.ones((2, 4, 4), np.float32)
    onnx_runner.findings_of(scores, maps, (64, 64), settings(model="model.onnx"))
    (scores if what == "scores" else maps).reshape(-1)[1] = value
    with pytest.raises(ValueError, match=r"must give finite scores and maps, got others from model\.onnx"):
        onnx_runner.findings_of(scores, maps, (64, 64), settings(model="model.onnx"))
