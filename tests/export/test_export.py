# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Exported models give what the model gives; the runner beside them gives what the pipeline gives."""

import copy
import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import pipeline

from clarity_hf import CHECKPOINT_FOLDER, TASK, ClarityForMultiLabelLocalization, ClarityImageProcessor
from clarity_hf.export import export, onnx_runner
from clarity_hf.export.export import (
    OPSET,
    OUTPUTS,
    export_model,
    export_program,
    linear_nodes,
    quantize_onnx,
    without_telemetry,
)
from clarity_hf.inference.engines import openvino_core
from clarity_hf.phantoms import draw_phantom

REPOSITORY = Path(__file__).parents[2]
FINDINGS = 14


def make_decided(model):
    """Thresholds that some findings reach, each with a map threshold of its own, and a calibration."""
    model.config.score_slopes = [1.0 + 0.2 * finding for finding in range(FINDINGS)]
    model.config.score_intercepts = [0.6 * (-1) ** finding for finding in range(FINDINGS)]
    model.config.map_thresholds = [0.3 + 0.04 * finding for finding in range(FINDINGS)]
    return model


@pytest.fixture(scope="module")
def source(request):
    """Model and processor that are exported."""
    model = make_decided(copy.deepcopy(request.getfixturevalue("shared_tiny_model")))
    return model, ClarityImageProcessor(size={"height": 64, "width": 64})


@pytest.fixture(scope="module")
def onnx_export(source, tmp_path_factory):
    """The fp32 ONNX export and what `export_model` returned."""
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    folder = tmp_path_factory.mktemp("exports") / "onnx"
    return folder, export_model(*source, folder)


def batch(count):
    return torch.randn(count, 3, 64, 64, generator=torch.Generator().manual_seed(count))


def assert_equal_outputs(model, pixel_values, outputs, tolerance=1e-4):
    """Scores and logits within the tolerance, maps within the tolerance of each map's peak."""
    with torch.no_grad():
        expected = model(pixel_values)
    for name, values in zip(OUTPUTS, outputs, strict=True):
        wanted = expected[name].numpy()
        assert values.shape == wanted.shape
        assert values.dtype == np.float32
        scale = wanted.max(axis=(2, 3), keepdims=True) if name == "localization_maps" else 1.0
        assert (np.abs(np.asarray(values) - wanted) / scale).max() < tolerance


@pytest.mark.parametrize("count", [1, 2, 5])
def test_onnx_gives_what_the_model_gives(source, onnx_export, count):
    import onnxruntime

    session = onnxruntime.InferenceSession(onnx_export[0] / "model.onnx", providers=["CPUExecutionProvider"])
    assert [(value.name, value.shape) for value in session.get_inputs()] == [("pixel_values", ["batch", 3, 64, 64])]
    assert [(value.name, value.shape) for value in session.get_outputs()] == [
        ("scores", ["batch", FINDINGS]),
        ("logits", ["batch", FINDINGS]),
        ("localization_maps", ["batch", FINDINGS, 4, 4]),
    ]
    outputs = session.run(list(OUTPUTS), {"pixel_values": batch(count).numpy()})
    assert_equal_outputs(source[0], batch(count), outputs)


def test_scores_in_the_export_are_calibrated(source, onnx_export):
    import onnxruntime

    session = onnxruntime.InferenceSession(onnx_export[0] / "model.onnx", providers=["CPUExecutionProvider"])
    scores, logits = session.run(["scores", "logits"], {"pixel_values": batch(2).numpy()})
    with torch.no_grad():
        outputs = source[0](batch(2))
    mean = ((outputs.class_token_logits + outputs.patch_logits) / 2).numpy()
    slopes, intercepts = (np.array(source[0].config.per_finding(f"score_{name}")) for name in ("slopes", "intercepts"))
    np.testing.assert_allclose(logits, slopes * mean + intercepts, atol=1e-5)
    np.testing.assert_allclose(scores, 1 / (1 + np.exp(-logits)), atol=1e-6)


def test_all_that_is_written_is_named(onnx_export):
    folder, written = onnx_export
    assert set(written.values()) == set(folder.iterdir())
    assert {part: path.name for part, path in written.items()} == {
        "model": "model.onnx",
        "runner": "run.py",
        "reading": "clarity_reading",
        "settings": "clarity.json",
        "image_processor": "preprocessor_config.json",
    }
    assert ClarityImageProcessor.from_pretrained(folder).size["height"] == 64
    package = Path(onnx_runner.__file__).parents[1]
    code = {path.name: path.read_bytes() for path in (folder / "clarity_reading").glob("*.py")}
    assert code.pop("__init__.py") == b""
    dicom = {"dicom_header.py", "dicom_pixels.py", "dicom_reading.py", "view_names.py"}
    assert {"boxes.py", "image_reading.py", "grey_levels.py"} | dicom == code.keys()
    assert code == {name: (package / name).read_bytes() for name in code}


def test_settings_say_what_lies_between_image_and_boxes(source, onnx_export):
    settings = json.loads((onnx_export[0] / "clarity.json").read_text())
    config = source[0].config
    assert len(settings.pop("weights_hash")) == 16
    assert settings.pop("clarity_hf").count(".") == 2
    assert settings == {
        "format": "onnx",
        "format_version": 1,
        "precision": "fp32",
        "model": "model.onnx",
        "input": "pixel_values",
        "outputs": ["scores", "logits", "localization_maps"],
        "findings": config.findings,
        "score_slopes": config.score_slopes,
        "score_intercepts": config.score_intercepts,
        "score_thresholds": [0.5] * FINDINGS,
        "box_score_thresholds": [0.5] * FINDINGS,
        "map_thresholds": config.map_thresholds,
        "box_components": "all",
        "box_upsampling": 8,
        "box_valleys": config.per_finding("box_valleys"),
        "boxless_findings": [],
        "size": {"height": 64, "width": 64},
        "keep_ratio": True,
        "padding": "centred on black (0) before the normalisation",
        "resample": "bilinear",
        "rescale_factor": 1 / 255,
        "mean": [0.5056] * 3,
        "std": [0.252] * 3,
    }


def test_the_model_says_its_operators_and_nothing_of_this_machine(onnx_export):
    import onnx

    model = onnx.load(onnx_export[0] / "model.onnx")
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", OPSET)]
    assert not any(node.metadata_props or node.doc_string for node in model.graph.node)
    names = [node.name for node in model.graph.node]
    assert len(set(names)) == len(names)
    assert "clarity.layers.0.attention.q_proj/MatMul" in names
    assert_tells_no_paths(onnx_export[0])


def assert_tells_no_paths(folder):
    """No file of an export, nor any member of its archives, names a folder of this machine."""
    read = {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    for path in folder.glob("*.pt2"):
        with zipfile.ZipFile(path) as archive:
            read |= {name: archive.read(name) for name in archive.namelist()}
    for name, content in read.items():
        for place in (str(REPOSITORY), str(Path.home()) + "/", sys.prefix, str(folder.parent), "site-packages"):
            assert place.encode() not in content, f"{name} names {place}"


# The runner

BLOCKED = ("torch", "torchvision", "transformers", "pydicom", "clarity_hf", "onnx", "sklearn", "cv2")


def run_alone(folder, image):
    """What `run.py` prints, in a process that of the libraries has only numpy, onnxruntime, Pillow and scipy."""
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({BLOCKED})); sys.argv[1:] = [{str(image)!r}];"
        f"sys.path.insert(0, {str(folder)!r});"
        f"import runpy; runpy.run_path({str(folder / 'run.py')!r}, run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def assert_equal_findings(ours, theirs):
    """Scores to 1e-4, boxes to a pixel; in another order only where scores are equal."""
    ours, theirs = ({one["label"]: one for one in found} for found in (ours, theirs))
    assert ours.keys() == theirs.keys()
    for label, one in ours.items():
        other = theirs[label]
        assert one["score"] == pytest.approx(other["score"], abs=1e-4)
        assert (one["threshold"], one["present"]) == (other["threshold"], other["present"])
        assert len(one["boxes"]) == len(other["boxes"])
        for box, same in zip(one["boxes"], other["boxes"], strict=True):
            assert box == pytest.approx(same, abs=1)


def save_images(folder, radiograph):
    """The drawn radiograph as files of several depths and sizes, and a phantom."""
    high = radiograph.astype(np.float64) / 255
    deep = Image.fromarray((high * 65535).astype(np.uint16))
    colour = Image.fromarray(radiograph).convert("RGB")
    alpha = colour.copy()
    columns = np.where(np.arange(radiograph.shape[1]) < 80, 255, 128).astype(np.uint8)
    alpha.putalpha(Image.fromarray(np.tile(columns, (radiograph.shape[0], 1))))
    images = {
        "grey.png": Image.fromarray(radiograph),
        "odd.bmp": Image.fromarray(radiograph).resize((131, 77)),
        "small.png": Image.fromarray(radiograph).resize((31, 49)),
        "deep.png": deep,
        "twelve.tif": Image.fromarray((high * 4095).astype(np.uint16)),
        "alpha.png": alpha,
        "colour.jpg": colour,
        "phantom.png": Image.fromarray(draw_phantom(0).image),
    }
    for name, image in images.items():
        image.save(folder / name)
    return [folder / name for name in images]


def test_the_runner_gives_what_the_pipeline_gives(source, onnx_export, image, tmp_path):
    images = save_images(tmp_path, image)
    localizer = pipeline(TASK, model=source[0], image_processor=source[1])
    runner = onnx_runner.OnnxRunner(onnx_export[0])
    results = {path.name: runner(path) for path in images}
    for path, expected in zip(images, localizer([str(path) for path in images]), strict=True):
        assert_equal_findings(results[path.name], expected)
    assert 0 < sum(one["present"] for one in results["grey.png"]) < FINDINGS
    assert_equal_findings(run_alone(onnx_export[0], images[1]), results["odd.bmp"])


def test_the_runner_names_what_a_file_needs_beside(onnx_export, image, tmp_path):
    tifffile = pytest.importorskip("tifffile")
    colour = np.stack([image.astype(np.uint16) * 257] * 3, axis=-1)
    tifffile.imwrite(tmp_path / "colour.tif", colour, photometric="rgb", metadata=None)
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({(*BLOCKED, 'tifffile')}));"
        f"sys.path.insert(0, {str(onnx_export[0])!r}); import run; run.main([{str(tmp_path / 'colour.tif')!r}])"
    )
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.endswith("Run pip install tifffile.\n")


def test_the_runner_says_why_it_refuses(onnx_export, tmp_path):
    Image.new("L", (20, 24), 7).save(tmp_path / "flat.png")
    command = [sys.executable, str(onnx_export[0] / "run.py"), str(tmp_path / "flat.png")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"error: `{tmp_path / 'flat.png'}` must show something, got 7 in every pixel. Check the export.\n"
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", [path.name for path in sorted(CHECKPOINT_FOLDER.iterdir()) if path.is_dir()])
def test_a_packaged_checkpoint_runs_alone_as_in_the_pipeline(name, tmp_path):
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    model = ClarityForMultiLabelLocalization.from_pretrained(name).eval()
    processor = ClarityImageProcessor.from_pretrained(name)
    export_model(model, processor, tmp_path / "export")
    localizer = pipeline(TASK, model=model, image_processor=processor)
    for index in range(3):
        path = tmp_path / f"{index}.png"
        Image.fromarray(draw_phantom(index).image).save(path)
        assert_equal_findings(run_alone(tmp_path / "export", path), localizer(str(path)))


# int8


def test_int8_is_smaller_and_near(source, onnx_export, tmp_path):
    import onnxruntime

    target = quantize_onnx(onnx_export[0] / "model.onnx", tmp_path / "model-int8.onnx", ["class_token_head"])
    assert target.stat().st_size < 0.8 * (onnx_export[0] / "model.onnx").stat().st_size
    session = onnxruntime.InferenceSession(target, providers=["CPUExecutionProvider"])
    outputs = session.run(list(OUTPUTS), {"pixel_values": batch(3).numpy()})
    assert_equal_outputs(source[0], batch(3), outputs, tolerance=0.1)
    with pytest.raises(AssertionError):  # it is another model
        assert_equal_outputs(source[0], batch(3), outputs, tolerance=1e-6)


def test_named_modules_stay_in_float(onnx_export, tmp_path):
    import onnx

    before = onnx.load(onnx_export[0] / "model.onnx")
    assert len(linear_nodes(before)) == 2 * 6 + 4  # q, k, v, o and two of the MLP a block; four of the pooling
    in_float = ["class_token_head", "clarity.layers.1"]
    target = quantize_onnx(onnx_export[0] / "model.onnx", tmp_path / "a.onnx", in_float)
    left = linear_nodes(onnx.load(target))
    assert len(left) == 6 + 4
    assert all(node.startswith(("clarity.layers.1.", "class_token_head.")) for node in left)
    target = quantize_onnx(onnx_export[0] / "model.onnx", tmp_path / "c.onnx")
    assert {node.rpartition("/")[0] for node in linear_nodes(onnx.load(target))} == {
        *(f"clarity.layers.0.mlp.fc{number}" for number in (1, 2)),
        *(f"class_token_head.attention.{letter}_proj" for letter in "qkvo"),
    }
    with pytest.raises(ValueError, match=r"`float_modules` must leave a linear layer, got \['clarity', "):
        quantize_onnx(onnx_export[0] / "model.onnx", tmp_path / "b.onnx", ["clarity", "class_token_head"])


def test_an_int8_export_runs(source, onnx_export, image, tmp_path, monkeypatch):
    def copy_of_fp32(program, folder):
        return {"model": Path(shutil.copy(onnx_export[0] / "model.onnx", folder))}

    monkeypatch.setitem(export._WRITERS, "onnx", copy_of_fp32)  # the same graph, already converted
    monkeypatch.setattr(export, "export_program", lambda *_: None)
    written = export_model(*source, tmp_path / "int8", precision="int8")
    assert set(written.values()) == set((tmp_path / "int8").iterdir())
    assert written["model"].name == "model-int8.onnx"
    settings = json.loads(written["settings"].read_text())
    assert (settings["model"], settings["precision"]) == ("model-int8.onnx", "int8")
    Image.fromarray(image).save(tmp_path / "image.png")
    found = onnx_runner.OnnxRunner(tmp_path / "int8")(tmp_path / "image.png")
    assert sorted(one["label"] for one in found) == sorted(source[0].config.findings)


# The other formats


def test_a_torch_program_gives_what_the_model_gives(source, tmp_path):
    written = export_model(*source, tmp_path / "torch", format="torch")
    assert {path.name for path in (tmp_path / "torch").iterdir()} == {
        "model.pt2",
        "clarity.json",
        "preprocessor_config.json",
    }
    program = torch.export.load(written["model"]).module()
    for count in (1, 2, 5):
        outputs = [values.detach().numpy() for values in program(batch(count))]
        assert_equal_outputs(source[0], batch(count), outputs)
    with zipfile.ZipFile(written["model"]) as archive:
        members = {name: archive.read(name)[:2] for name in archive.namelist()}
    assert [name for name, start in members.items() if start in (b"PK", b"\x80\x02", b"\x80\x04")] == []  # no pickles
    assert_tells_no_paths(tmp_path / "torch")


def test_openvino_gives_what_the_model_gives(source, tmp_path):
    with without_telemetry():
        pytest.importorskip("openvino")
    written = export_model(*source, tmp_path / "openvino", format="openvino")
    assert {part: path.name for part, path in written.items()} == {
        "model": "model.xml",
        "weights": "model.bin",
        "settings": "clarity.json",
        "image_processor": "preprocessor_config.json",
    }
    hint = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino_core().compile_model(written["model"], "CPU", hint)
    for count in (1, 2, 5):
        found = compiled({"pixel_values": batch(count).numpy()})
        assert_equal_outputs(source[0], batch(count), [found[name] for name in OUTPUTS])
    assert "openvino_telemetry" not in sys.modules
    assert_tells_no_paths(tmp_path / "openvino")


def test_the_program_is_of_the_processors_size_and_the_model_stays(source, shared_tiny_model):
    program = export_program(source[0], ClarityImageProcessor(size={"height": 32, "width": 96}))
    pixels = torch.randn(1, 3, 32, 96, generator=torch.Generator().manual_seed(0))
    outputs = [values.detach().numpy() for values in program.module()(pixels)]
    assert outputs[2].shape == (1, FINDINGS, 2, 6)
    assert_equal_outputs(source[0], pixels, outputs)
    assert source[0].config.image_size == 64
    assert all(parameter.requires_grad for parameter in source[0].parameters())
    for name, tensor in shared_tiny_model.state_dict().items():
        assert torch.equal(source[0].state_dict()[name], tensor)


# Refusals


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"format": "tflite"}, r"`format` must be one of \['onnx', 'openvino', 'torch'\], got 'tflite'"),
        ({"precision": "int4"}, "`precision` must be 'fp32', or 'int8' for onnx, got 'int4'"),
        ({"precision": "int8", "format": "torch"}, "`precision` must be 'fp32', or 'int8' for onnx, got 'int8'"),
    ],
)
def test_unknown_choices_are_refused(source, tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        export_model(*source, tmp_path / "new", **arguments)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"do_resize": False}, r"`image_processor\.do_resize` must be True, got False"),
        ({"resample": 1}, r"`image_processor\.resample` must be one of .*bicubic.*, got "),
        ({"image_mean": [0.5]}, r"`image_processor\.image_mean` must have a value per channel \(3\), got 1"),
    ],
)
def test_a_processor_that_the_settings_do_not_describe_is_refused(source, tmp_path, changed, message):
    with pytest.raises(ValueError, match=message):
        export_model(source[0], ClarityImageProcessor(size={"height": 64, "width": 64}, **changed), tmp_path / "new")


def test_a_folder_with_something_in_it_is_refused(source, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match=r"`folder` must be new or empty, got .+\. Choose another, or empty it"):
        export_model(*source, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_nothing_is_left_of_an_export_that_fails(source, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    monkeypatch.setattr("clarity_hf.export.export.export_program", lambda *_: None)
    with pytest.raises(ImportError, match=r"`onnx` must be installed to export\. Run pip install '.+\[export\]'"):
        export_model(*source, tmp_path / "new")
    assert list(tmp_path.iterdir()) == []
