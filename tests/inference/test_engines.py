# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Engines give the results of the model in torch, and are chosen, exported and kept as documented."""

import json
import subprocess
import sys

import pytest
import torch

from clarity_hf import DEFAULT_CHECKPOINT, ChestXrayLocalizationPipeline, ClarityImageProcessor
from clarity_hf import ClarityForMultiLabelLocalization as Model
from clarity_hf.export.export import without_telemetry
from clarity_hf.inference import engines, find_images, predict_images, use_engine
from clarity_hf.inference.engine_names import PRECISIONS, engine_of
from clarity_hf.inference.engines import Parity, measure_parity, open_engine

PAIRS = [(engine, precision) for engine, precisions in PRECISIONS.items() for precision in precisions]
CLOSE = {"fp32": 1e-4, "bf16": 0.02, "int8": 0.05}
"""Largest change of a score of the tiny model, whose weights are random."""


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path_factory):
    """Exports of the module in one folder: a tiny model's takes seconds."""
    folder = tmp_path_factory.getbasetemp() / "engines"
    monkeypatch.setenv("CLARITY_HF_CACHE", str(folder))
    return folder


def require(engine):
    with without_telemetry():
        for package in {"onnx": ("onnxruntime", "onnx", "onnxscript"), "openvino": ("openvino",)}.get(engine, ()):
            pytest.importorskip(package)


@pytest.mark.parametrize(("engine", "precision"), PAIRS)
@pytest.mark.parametrize("count", [1, 3])
def test_an_engine_gives_scores_maps_and_box_settings_of_the_model(pipeline, engine, precision, count):
    require(engine)
    pixel_values = torch.randn(count, 3, 64, 64, generator=torch.Generator().manual_seed(count))
    with torch.inference_mode():
        expected = pipeline.model(pixel_values=pixel_values)
        found = open_engine(pipeline, engine, precision)(pixel_values=pixel_values)
    assert found.scores.dtype == found.localization_maps.dtype == torch.float32
    torch.testing.assert_close(found.scores, expected.scores, atol=CLOSE[precision], rtol=0)
    peaks = expected.localization_maps.amax((2, 3), keepdim=True)
    moved = (found.localization_maps - expected.localization_maps).abs() / peaks
    assert moved.max() < 5 * CLOSE[precision]
    torch.testing.assert_close(found.box_settings, expected.box_settings)


@pytest.mark.parametrize("pooling", ["attention", "mean"])
def test_an_engine_adds_the_bias_of_each_finding_to_all_images_of_a_batch(pipeline, monkeypatch, tmp_path, pooling):
    """As after training: a bias that is the same for all findings hides to which axis it was added."""
    require("openvino")
    monkeypatch.setenv("CLARITY_HF_CACHE", str(tmp_path))
    config = pipeline.model.config
    config.pooling = pooling
    model = pipeline.model = Model(config).eval()
    with torch.no_grad():
        for bias in (model.class_token_head.bias, model.ranking_pooling.bias):
            bias.copy_(torch.linspace(-2, 2, len(bias)))
    pixel_values = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        found = open_engine(pipeline, "openvino", "fp32")(pixel_values=pixel_values)
        torch.testing.assert_close(found.scores, model(pixel_values=pixel_values).scores, atol=1e-4, rtol=0)


SIGNALS = """
import faulthandler, os, signal, sys
from transformers import pipeline
from clarity_hf import TASK
from clarity_hf.inference.engines import open_engine
faulthandler.enable()  # as pytest does: signals are handled on a stack of its own
received = []
signal.signal(signal.SIGUSR1, lambda number, frame: received.append(number))
localizer = pipeline(TASK, model=sys.argv[1], device="cpu")
opened = [open_engine(localizer, "openvino", precision) for precision in ("fp32", "bf16", "fp32")]
while opened:
    opened.pop(0)
    os.kill(os.getpid(), signal.SIGUSR1)
print(len(received))
"""


def test_a_signal_is_handled_after_engines_were_freed_in_the_order_of_their_making(pipeline, tmp_path):
    require("openvino")
    pipeline.save_pretrained(tmp_path)
    done = subprocess.run([sys.executable, "-c", SIGNALS, str(tmp_path)], capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, "3"), done.stderr


def test_results_of_a_folder_by_an_engine_name_it_and_are_resumed_by_it_alone(pipeline, images, tmp_path):
    require("openvino")
    found = find_images([images]).images
    predict_images(pipeline, found, tmp_path / "torch", batch_size=3)
    assert use_engine(pipeline, "openvino", "fp32") == "openvino fp32"
    predict_images(pipeline, found, tmp_path / "openvino", batch_size=3)
    one, other = (
        [json.loads(line) for line in (tmp_path / name / "findings.jsonl").read_text().splitlines()]
        for name in ("torch", "openvino")
    )
    for mine, theirs in zip(one, other, strict=True):
        scores = [{row["label"]: row["score"] for row in record["findings"]} for record in (mine, theirs)]
        assert scores[0] == pytest.approx(scores[1], abs=1e-4)
    assert engine_of(tmp_path / "torch" / "settings.json") == ("torch", "fp32")
    assert engine_of(tmp_path / "openvino" / "settings.json") == ("openvino", "fp32")
    assert engine_of(tmp_path / "settings.json") is None
    with pytest.raises(ValueError, match=r"engine null there, \"openvino fp32\" now"):
        predict_images(pipeline, found, tmp_path / "torch")


def test_an_engine_follows_thresholds_that_change_after_it_was_opened(pipeline, image):
    require("openvino")
    use_engine(pipeline, "openvino", "fp32")
    pipeline.model.config.score_thresholds = [0.0] * 14
    assert all(finding["boxes"] for finding in pipeline(image, radiograph_check="off"))


def test_few_images_are_predicted_by_torch(pipeline, monkeypatch):
    monkeypatch.setattr(engines, "_try", lambda *_: True)
    assert use_engine(pipeline, images=engines.FEWEST_IMAGES - 1) == "torch fp32"
    assert use_engine(pipeline, images=engines.FEWEST_IMAGES) == "{} {}".format(*engines.FASTEST[0])
    assert use_engine(pipeline, precision="bf16", images=engines.FEWEST_IMAGES) == "torch bf16"


def test_torch_takes_over_where_packages_are_absent(pipeline, monkeypatch, caplog):
    monkeypatch.setattr(engines, "LIBRARIES", {"onnx": "no_such_package", "openvino": "no_such_package"})
    assert use_engine(pipeline, images=1000) == "torch fp32"
    assert pipeline.engine is None
    assert caplog.messages == ["onnxruntime is not installed: predicting in torch, which is slower."]
    with pytest.raises(ImportError, match=r"pip install 'clarity_hf\[openvino\]'"):
        use_engine(pipeline, "openvino")


def test_weights_are_hashed_once_to_find_an_export_and_its_comparison(pipeline, monkeypatch, cache):
    require("openvino")
    monkeypatch.setattr(engines, "FASTEST", (("openvino", "fp32"),))
    monkeypatch.setattr(engines, "measure_parity", lambda *_: Parity(0.0, 1.0))
    hashed = []
    describe_model = engines.describe_model
    monkeypatch.setattr(engines, "describe_model", lambda *args: hashed.append(1) or describe_model(*args))
    assert use_engine(pipeline, images=1000) == "openvino fp32"
    assert hashed == [1]
    monkeypatch.setattr(engines, "measure_parity", None)  # the file is read instead
    assert use_engine(pipeline, images=1000) == "openvino fp32"


def test_an_engine_that_differs_from_torch_is_not_used(pipeline, monkeypatch, caplog, cache):
    require("openvino")
    monkeypatch.setattr(engines, "FASTEST", (("openvino", "fp32"),))
    monkeypatch.setenv("CLARITY_HF_CACHE", str(cache / "differs"))
    monkeypatch.setattr(engines, "measure_parity", lambda *_: Parity(0.1, 1.0))
    assert use_engine(pipeline, images=1000) == "torch fp32"
    assert "differs from torch" in caplog.text


def test_an_export_is_made_once_and_again_for_other_weights(pipeline, cache, monkeypatch):
    require("openvino")
    monkeypatch.setenv("CLARITY_HF_CACHE", str(cache / "once"))
    folder = engines.exported(pipeline, "openvino")
    written = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert engines.exported(pipeline, "openvino") == folder
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == written
    with torch.no_grad():
        pipeline.model.class_token_head.bias += 1
    about = engines.describe_model(pipeline.model, pipeline.image_processor)
    assert engines._export_folder(about, "openvino") != folder
    assert not list((cache / "once").rglob(".unfinished-*"))


def test_an_export_that_other_code_made_is_not_used(pipeline, monkeypatch):
    about = engines.describe_model(pipeline.model, pipeline.image_processor)
    folder = engines._export_folder(about, "onnx")
    monkeypatch.setattr(engines, "_code_digest", lambda: "other")
    assert engines._export_folder(about, "onnx") != folder


@pytest.mark.parametrize(
    ("engine", "damage"),
    [*(("onnx", damage) for damage in ("changed", "cut", "removed", "settings", "no sums")), ("openvino", "cut")],
)
def test_a_damaged_export_is_made_anew(pipeline, cache, monkeypatch, caplog, engine, damage):
    require(engine)
    monkeypatch.setenv("CLARITY_HF_CACHE", str(cache / f"damaged-{engine}-{damage.replace(' ', '-')}"))
    pixel_values = torch.zeros(1, 3, 64, 64)
    expected = open_engine(pipeline, engine, "fp32")(pixel_values=pixel_values).scores
    folder = engines.exported(pipeline, engine)
    (folder / "parity-fp32.json").write_text("{}")  # written later, and no part of the export
    assert engines.exported(pipeline, engine) == folder
    assert "is damaged" not in caplog.text
    largest = max(folder.iterdir(), key=lambda path: path.stat().st_size)
    content = largest.read_bytes()
    middle = len(content) // 2
    if damage == "changed":
        largest.write_bytes(content[:middle] + bytes(64) + content[middle + 64 :])
    elif damage == "cut":
        largest.write_bytes(content[:middle])
    elif damage == "removed":
        largest.unlink()
    else:
        (folder / ("clarity.json" if damage == "settings" else "SHA256SUMS")).write_text("{")
    found = open_engine(pipeline, engine, "fp32")(pixel_values=pixel_values).scores
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    assert f"The export in {folder} is damaged and is made anew" in caplog.text


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"score_change": null, "same_boxes": 1}', "nonsense"])
def test_a_damaged_comparison_is_made_again(pipeline, monkeypatch, content):
    require("openvino")
    engine = open_engine(pipeline, "openvino", "fp32")
    file = engine.folder / "parity-fp32.json"
    file.write_text(content)
    monkeypatch.setattr(engines, "measure_parity", lambda *_: Parity(0.0005, 1.0))
    assert engines._parity_of(pipeline, engine, "fp32") == Parity(0.0005, 1.0)
    assert json.loads(file.read_text()) == {"score_change": 0.0005, "same_boxes": 1.0}


def test_a_cache_folder_that_cannot_be_made_is_named_with_the_remedy(pipeline, monkeypatch, tmp_path):
    require("openvino")
    (tmp_path / "file").touch()
    monkeypatch.setenv("CLARITY_HF_CACHE", str(tmp_path / "file"))
    with pytest.raises(OSError, match=r"must be one that can be written, got .*file.*Set CLARITY_HF_CACHE"):
        open_engine(pipeline, "openvino", "fp32")


def test_a_cache_folder_that_is_read_only_is_named_with_the_remedy(pipeline, monkeypatch, tmp_path):
    require("openvino")
    monkeypatch.setenv("CLARITY_HF_CACHE", str(tmp_path))

    class Locked:
        def __init__(self, path):
            raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(engines, "FileLock", Locked)
    with pytest.raises(OSError, match=r"must be one that can be written, got .*Permission denied.*CLARITY_HF_CACHE"):
        open_engine(pipeline, "openvino", "fp32")


@pytest.mark.parametrize("change", ["weights", "calibration"])
def test_results_of_an_engine_whose_model_has_changed_are_refused(pipeline, images, tmp_path, change):
    require("openvino")
    use_engine(pipeline, "openvino", "fp32")
    if change == "weights":
        with torch.no_grad():
            pipeline.model.class_token_head.bias += 1
    else:
        pipeline.model.config.score_slopes = [0.5] * 14
    name = "weights" if change == "weights" else "config"
    with pytest.raises(ValueError, match=f"the model that its engine was made for, got other {name}. Call use_engine"):
        predict_images(pipeline, find_images([images]).images, tmp_path / "results")


def test_a_model_whose_calibration_is_of_other_weights_is_not_exported(pipeline):
    require("openvino")
    pipeline.model.config.score_slopes = [0.5] * 14
    pipeline.model.eval()  # the calibration is taken to be of these weights
    with torch.no_grad():
        pipeline.model.class_token_head.weight *= 2
    with pytest.raises(ValueError, match="must have the weights that its calibration was fitted to"):
        open_engine(pipeline, "openvino", "fp32")


def test_parity_counts_findings_whose_boxes_moved(pipeline, monkeypatch):
    pipeline.model.config.score_thresholds = [0.0] * 14
    same = engines.Engine(pipeline, "same", lambda values: _outputs(pipeline, values))
    assert measure_parity(pipeline, same, images=1, size=64) == Parity(0.0, 1.0)
    turned = engines.Engine(pipeline, "turned", lambda values: _turned(*_outputs(pipeline, values)))
    found = measure_parity(pipeline, turned, images=1, size=64)
    assert found.score_change > 0
    assert found.same_boxes < 1
    assert not found.passed


def _outputs(pipeline, values):
    outputs = pipeline.model(pixel_values=values)
    return outputs.scores, outputs.localization_maps


def _turned(scores, maps):
    return 1 - scores, maps.flip(3)


@pytest.mark.parametrize(
    ("engine", "precision", "message"),
    [
        ("tensorrt", None, "`engine` must be one of auto, torch, onnx, openvino, got 'tensorrt'"),
        ("onnx", "bf16", "`precision` must be one of fp32, int8 with onnx, got 'bf16'"),
        ("auto", "fp8", "`precision` must be one of"),
    ],
)
def test_an_engine_or_precision_that_does_not_exist_is_refused(pipeline, engine, precision, message):
    with pytest.raises(ValueError, match=message):
        use_engine(pipeline, engine, precision)


@pytest.mark.slow
@pytest.mark.parametrize(("engine", "precision"), [("onnx", "fp32"), ("onnx", "int8"), ("torch", "bf16")])
def test_on_300_phantoms_the_packaged_model_keeps_its_scores_and_boxes(engine, precision):
    require(engine)
    model = Model.from_pretrained(DEFAULT_CHECKPOINT, use_safetensors=True).eval()
    processor = ClarityImageProcessor.from_pretrained(DEFAULT_CHECKPOINT)
    pipeline = ChestXrayLocalizationPipeline(model=model, image_processor=processor, device="cpu")
    found = measure_parity(pipeline, open_engine(pipeline, engine, precision), images=300)
    assert found.score_change <= {"fp32": 1e-5, "bf16": 0.001, "int8": 0.001}[precision]
    assert found.same_boxes >= {"fp32": 0.99, "bf16": 0.6, "int8": 0.6}[precision]
