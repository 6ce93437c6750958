# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Predictions of the packaged checkpoint by onnxruntime, without torch."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
import transformers

from clarity_hf import TASK, ClarityForMultiLabelLocalization
from clarity_hf.export.onnx_runner import OnnxRunner
from clarity_hf.export.shared_graph import write_shared_graph
from clarity_hf.fingerprints import describe_results
from clarity_hf.inference.batch import predict_images
from clarity_hf.inference.onnx_pipeline import ENGINE, OnnxPipeline, _threads, onnx_pipeline
from clarity_hf.packaged_checkpoints import CHECKPOINT_FOLDER, DEFAULT_CHECKPOINT, checkpoint_path
from clarity_hf.phantoms import draw_phantom

pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def localizer():
    return transformers.pipeline(TASK)


@pytest.fixture(scope="module")
def quick():
    return OnnxPipeline(checkpoint_path(DEFAULT_CHECKPOINT))


@pytest.mark.parametrize("threshold", [None, 0.01])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_findings_are_those_of_the_pipeline(quick, localizer, seed, threshold):
    pixels = draw_phantom(seed, 512).image[:, : 512 - 100 * (seed == 2)]
    found = quick.postprocess(quick.forward(quick.preprocess(pixels)), threshold)
    expected = localizer(pixels, threshold=threshold, radiograph_check="off")
    assert [each["label"] for each in found] == [each["label"] for each in expected]
    for ours, theirs in zip(found, expected, strict=True):
        assert ours["score"] == pytest.approx(theirs["score"], abs=1e-5)
        assert (ours["threshold"], ours["present"]) == (theirs["threshold"], theirs["present"])
        boxes = [[list(box.values()) for box in each["boxes"]] for each in (ours, theirs)]
        assert len(boxes[0]) == len(boxes[1])
        if boxes[0]:
            np.testing.assert_allclose(*boxes, atol=1)


@pytest.mark.parametrize("threshold", [None, 0.2])
def test_settings_of_results_are_those_of_the_pipeline(quick, localizer, threshold):
    expected = json.loads(json.dumps(describe_results(localizer.model, localizer.image_processor, threshold)))
    described = quick.describe(threshold)
    for config in (expected["config"], described["config"]):  # transformers adds fields of its own over time
        for name in config.keys() - localizer.model.config.to_diff_dict().keys():
            del config[name]
    assert described == expected | {"engine": ENGINE}


def test_the_graph_holds_no_weights_of_its_own():
    folder = checkpoint_path(DEFAULT_CHECKPOINT)
    assert (folder / "model.onnx").stat().st_size < 1e6


def test_a_graph_beside_other_weights_is_refused(tmp_path):
    """`save_pretrained` into a copy of the folder writes weights at other offsets, which the graph would read."""
    folder = shutil.copytree(checkpoint_path(DEFAULT_CHECKPOINT), tmp_path / "copy")
    OnnxRunner(folder)
    model = ClarityForMultiLabelLocalization.from_pretrained(folder, dtype="float32")
    with torch.no_grad():
        model.segment_cam.cam.weight += 1
    model.save_pretrained(folder)
    with pytest.raises(ValueError, match=r"must hold the model\.safetensors that its graph was made for, got another"):
        OnnxRunner(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(ValueError, match="that its graph was made for"):
        OnnxRunner(folder)


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json"])
def test_a_graph_beside_another_config_is_refused(tmp_path, name):
    folder = shutil.copytree(checkpoint_path(DEFAULT_CHECKPOINT), tmp_path / "copy")
    config = json.loads((folder / name).read_text())
    changed = {"score_thresholds": [0.9] * 14, "size": {"height": 1, "width": 1}}
    (folder / name).write_text(json.dumps(config | changed))
    with pytest.raises(ValueError, match=f"must hold the {name} that its graph was made for, got another"):
        OnnxRunner(folder)


@pytest.mark.parametrize(("written", "threads"), [("", 0), ("3", 3), ("4,2", 4), ("x", 0), ("9" * 11, 0), ("-1", 0)])
def test_threads_are_the_first_number_of_the_variable(written, threads):
    assert _threads(written) == threads


@pytest.mark.slow
def test_the_packaged_graph_is_what_the_packaged_weights_give(tmp_path):
    folder = checkpoint_path(DEFAULT_CHECKPOINT)
    for name in ("config.json", "model.safetensors", "preprocessor_config.json"):
        shutil.copy(folder / name, tmp_path)
    for written in write_shared_graph(tmp_path):
        made, packaged = written.read_bytes(), (folder / written.name).read_bytes()
        assert made == packaged, f"{written.name} differs. Write it again with write_shared_graph and write_sums."


def test_neither_torch_nor_transformers_is_imported():
    code = (
        "import sys, numpy as np\n"
        "from clarity_hf.inference.onnx_pipeline import onnx_pipeline\n"
        "from clarity_hf.radiograph_check import check_radiograph\n"
        f"quick = onnx_pipeline({DEFAULT_CHECKPOINT!r}, 'cpu')\n"
        "pixels = np.random.default_rng(0).integers(0, 256, (300, 260)).astype(np.uint8)\n"
        "check_radiograph(pixels)\n"
        "assert len(quick.postprocess(quick.forward(quick.preprocess(pixels)))) == 14\n"
        "print(sorted({'torch', 'transformers', 'torchvision', 'datasets', 'pandas'} & sys.modules.keys()))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "arguments",
    [
        {"engine": "torch"},
        {"engine": "openvino"},
        {"precision": "int8"},
        {"device": "cuda"},
        {"outputs": ["overlays"]},
        {"outputs": ["identifiers", "dicom"]},
        {"model": "owner/name"},
    ],
)
def test_what_it_cannot_do_is_left_to_the_model(arguments):
    assert onnx_pipeline(**{"model": DEFAULT_CHECKPOINT, "device": "cpu"} | arguments) is None


@pytest.mark.parametrize("output", ["overlays", "maps", "dicom", "fhir"])
def test_outputs_that_need_the_model_are_refused_before_anything_is_written(quick, tmp_path, output):
    with pytest.raises(ValueError, match=rf"can only have 'identifiers', got \['{output}'\]"):
        predict_images(quick, [], tmp_path / "results", outputs=["identifiers", output])
    assert not (tmp_path / "results").exists()


def test_a_copy_of_the_folder_is_left_to_the_model(tmp_path):
    """Its config may have been changed, and the graph's settings not."""
    copy = shutil.copytree(checkpoint_path(DEFAULT_CHECKPOINT), tmp_path / DEFAULT_CHECKPOINT)
    assert onnx_pipeline(str(copy), "cpu") is None


def test_packaged_names_and_paths_are_taken(monkeypatch):
    monkeypatch.chdir("/")
    assert isinstance(onnx_pipeline(DEFAULT_CHECKPOINT, "cpu"), OnnxPipeline)
    assert isinstance(onnx_pipeline(str(CHECKPOINT_FOLDER / DEFAULT_CHECKPOINT), "cpu"), OnnxPipeline)


def test_where_the_runtime_fails_auto_is_left_to_the_model(monkeypatch, caplog):
    def fail(folder):
        raise RuntimeError("unsupported opset")

    monkeypatch.setattr("clarity_hf.inference.onnx_pipeline.OnnxPipeline", fail)
    assert onnx_pipeline(DEFAULT_CHECKPOINT, "cpu") is None
    assert caplog.messages == [
        f"The ONNX graph of {DEFAULT_CHECKPOINT} cannot be used, predicting in torch: unsupported opset"
    ]
    with pytest.raises(RuntimeError, match="unsupported opset"):
        onnx_pipeline(DEFAULT_CHECKPOINT, "cpu", "onnx")


def test_an_unknown_name_is_refused():
    with pytest.raises(OSError, match="No such model: 'clarity-none'"):
        onnx_pipeline("clarity-none", "cpu")
