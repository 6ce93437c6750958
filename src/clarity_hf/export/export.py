# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Export: the model as ONNX, OpenVINO IR or a `torch.export` program, with the settings that turn outputs into boxes.

Needs the extra `export`. Every format has one input, `pixel_values` `(B, C, H, W)` float32 of any B, and three
outputs: `logits` `(B, F)`, calibrated, `scores` `(B, F)`, their sigmoid, and `localization_maps` `(B, F, h, w)`.
`clarity.json` describes preprocessing and boxes; the file `run.py` beside an ONNX model does both with numpy,
onnxruntime, Pillow and scipy alone.
"""

from __future__ import annotations

import ast
import contextlib
import copy
import importlib
import importlib.metadata
import json
import os
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from clarity_hf.fingerprints import weights_digest
from clarity_hf.image_processing_clarity import ClarityImageProcessor
from clarity_hf.modeling_clarity import ClarityForMultiLabelLocalization

from . import onnx_runner
from .publication_checks import PACKAGE, flat_modules

OPSET = 20
"""Version of the ONNX operators; the first one with Gelu."""

OUTPUTS = ("scores", "logits", "localization_maps")
"""Outputs of an exported model, in order."""

PRECISIONS = ("fp32", "int8")
"""Precisions of the weights in an export."""

FLOAT_MODULES = ("clarity.layers.0.mlp", "class_token_head")
"""Modules whose linear layers stay in fp32 in an int8 model; convolutions (patches, SegmentCAM) always do.

In `clarity-s16-224` the first MLP moved scores further than any other part (`benchmarks/export_speed.py --parts`).
"""

RESAMPLING = {2: "bilinear", 3: "bicubic"}
"""Filters of the runner: Pillow's numbers, and their names in `clarity.json`."""

READING = "clarity_reading"
"""Folder beside the runner with the files that read images and compute boxes."""

PADDING = "centred on black (0) before the normalisation"


def export_model(
    model: ClarityForMultiLabelLocalization,
    image_processor: ClarityImageProcessor,
    folder: str | os.PathLike,
    format: Literal["onnx", "openvino", "torch"] = "onnx",
    precision: Literal["fp32", "int8"] = "fp32",
) -> dict[str, Path]:
    """Write a model for another runtime, with its preprocessing, labels and thresholds.

    The image size is fixed to the processor's; the batch size is free. Weights are fp32, or int8 for the linear layers
    of the blocks (onnxruntime's dynamic quantization: weights per channel, activations per tensor at run time).

    Args:
        model: Not modified; on any device.
        image_processor: The processor that the model was trained with.
        folder: New or empty. Files appear in it only once all are written.
        format: `"onnx"`, `"openvino"` (to be run with `INFERENCE_PRECISION_HINT` f32) or `"torch"`.
        precision: `"int8"` for ONNX only.

    Returns:
        Paths of what was written: `"model"` and, for OpenVINO, `"weights"`; `"settings"` (`clarity.json`),
        `"image_processor"` (`preprocessor_config.json`), and for ONNX `"runner"` (`run.py`) and `"reading"`, a folder
        of code for it.

    Raises:
        FileExistsError: `folder` is not empty.
        ImportError: A library of the extra `export` is not installed.
        ValueError: `format` or `precision` is unknown, or the processor has settings that `clarity.json` does not
            describe.
    """
    if format not in _WRITERS:
        raise ValueError(f"`format` must be one of {list(_WRITERS)}, got '{format}'. Choose one of them.")
    if precision not in PRECISIONS or (precision == "int8" and format != "onnx"):
        raise ValueError(f"`precision` must be 'fp32', or 'int8' for onnx, got '{precision}'. Choose one of them.")
    settings = export_settings(model, image_processor) | {"format": format, "precision": precision}
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"`folder` must be new or empty, got {folder}. Choose another, or empty it.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".export-") as made:
        staging = Path(made)
        program = export_program(model, image_processor)
        written = _WRITERS[format](program, staging)
        if precision == "int8":
            written["model"] = quantize_onnx(written["model"], staging / "model-int8.onnx")
            (staging / "model.onnx").unlink()
        if format == "onnx":
            written |= _write_runner(staging)
        settings["model"] = written["model"].name
        written["settings"] = staging / "clarity.json"
        written["settings"].write_text(json.dumps(settings, indent=2, allow_nan=False) + "\n", encoding="utf-8")
        written["image_processor"] = Path(image_processor.save_pretrained(staging)[0])
        folder.mkdir(exist_ok=True)
        return {part: Path(shutil.move(path, folder / path.name)) for part, path in written.items()}


def export_settings(model: ClarityForMultiLabelLocalization, image_processor: ClarityImageProcessor) -> dict[str, Any]:
    """Content of `clarity.json` apart from the model's format: preprocessing, and from outputs to boxes.

    Raises:
        ValueError: The processor leaves out a step, resamples by another filter than bilinear or bicubic, or has other
            channels than the model.
    """
    config, processor = model.config, image_processor
    for name in ("do_resize", "do_rescale", "do_normalize"):
        if not getattr(processor, name):
            raise ValueError(f"`image_processor.{name}` must be True, got {getattr(processor, name)}. Switch it on.")
    if int(processor.resample) not in RESAMPLING:
        raise ValueError(f"`image_processor.resample` must be one of {RESAMPLING}, got {processor.resample}. Set one.")
    for name, values in (("image_mean", processor.image_mean), ("image_std", processor.image_std)):
        if len(values) != config.num_channels:
            raise ValueError(
                f"`image_processor.{name}` must have a value per channel ({config.num_channels}), got {len(values)}."
                " Pass the model's own processor."
            )
    return {
        "format_version": onnx_runner.FORMAT_VERSION,
        "clarity_hf": importlib.metadata.version("clarity_hf"),
        "weights_hash": weights_digest(model),
        "input": "pixel_values",
        "outputs": list(OUTPUTS),
        "findings": config.findings,
        "score_slopes": config.per_finding("score_slopes"),  # already in `scores`
        "score_intercepts": config.per_finding("score_intercepts"),
        "score_thresholds": config.per_finding("score_thresholds"),
        "box_score_thresholds": config.per_finding("box_score_thresholds"),
        "map_thresholds": config.per_finding("map_thresholds"),
        "box_components": config.box_components,
        "box_upsampling": config.box_upsampling,
        "box_valleys": config.per_finding("box_valleys"),
        "boxless_findings": [finding for finding in config.findings if finding in (config.boxless_findings or ())],
        "size": {"height": processor.size["height"], "width": processor.size["width"]},
        "keep_ratio": bool(processor.keep_ratio),
        "padding": PADDING,
        "resample": RESAMPLING[int(processor.resample)],
        "rescale_factor": float(processor.rescale_factor),
        "mean": [float(value) for value in processor.image_mean],
        "std": [float(value) for value in processor.image_std],
    }


class _Exported(nn.Module):
    """A model that returns the exported outputs as a tuple."""

    def __init__(self, model: ClarityForMultiLabelLocalization):
        super().__init__()
        self.model = model

    def forward(self, pixel_values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        outputs = self.model(pixel_values=pixel_values)
        return tuple(outputs[name] for name in OUTPUTS)


def export_program(
    model: ClarityForMultiLabelLocalization, image_processor: ClarityImageProcessor
) -> torch.export.ExportedProgram:
    """The model at the processor's size as a graph `pixel_values` → `OUTPUTS`, in fp32 on the CPU, of any batch.

    It contains no paths of source files and no example input.

    Raises ValueError if the model's calibration is of other weights.
    """
    exported = copy.deepcopy(model).eval().float().cpu().requires_grad_(False)
    if model.config.has_calibration and not exported.config.has_calibration:
        raise ValueError(
            "`model` must have the weights that its calibration was fitted to, got others. Call model.eval(), which "
            "drops the calibration, or calibrate again."
        )
    exported.set_attn_implementation("sdpa")  # flash and flex attention have no counterpart elsewhere
    height, width = image_processor.size["height"], image_processor.size["width"]
    if exported.config.patch_grid != (height // exported.config.patch_size, width // exported.config.patch_size):
        exported.clarity.resize_position_embeddings((height, width))  # now instead of in every forward
    example = torch.zeros(2, exported.config.num_channels, height, width)  # 2: torch treats a batch of 1 as fixed
    with torch.no_grad():
        program = torch.export.export(
            _Exported(exported), (example,), dynamic_shapes={"pixel_values": {0: torch.export.Dim("batch")}}
        )
    for part in program.graph_module.modules():
        for node in part.graph.nodes if isinstance(part, torch.fx.GraphModule) else ():
            node.meta.pop("stack_trace", None)
    program.example_inputs = None  # the archive would hold it as a pickle
    return program


def _write_torch(program: torch.export.ExportedProgram, folder: Path) -> dict[str, Path]:
    torch.export.save(program, folder / "model.pt2")
    return {"model": folder / "model.pt2"}


def _write_onnx(program: torch.export.ExportedProgram, folder: Path) -> dict[str, Path]:
    onnx = _required("onnx")
    _required("onnxscript")
    converted = torch.onnx.export(
        program,
        dynamo=True,
        input_names=["pixel_values"],
        output_names=list(OUTPUTS),
        opset_version=OPSET,
        verbose=False,
    )
    model = converted.model_proto  # type: ignore[union-attr]  # None only with a file name
    _tidy(model)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, folder / "model.onnx")
    return {"model": folder / "model.onnx"}


def _tidy(model: Any) -> None:
    """Name nodes by module and operator, and drop the exporter's notes on source files and Python code."""
    graph = model.graph
    seen: Counter[str] = Counter()
    for node in graph.node:
        notes = {entry.key: entry.value for entry in node.metadata_props}
        scopes = ast.literal_eval(notes.get("pkg.torch.onnx.name_scopes", "[]"))
        module = scopes[-2].removeprefix("model").removeprefix(".") if len(scopes) > 1 else ""
        name = f"{module}/{node.op_type}"
        seen[name] += 1
        node.name = name if seen[name] == 1 else f"{name}_{seen[name] - 1}"
    for item in (model, graph, *graph.node, *graph.initializer, *graph.input, *graph.output):
        item.ClearField("metadata_props")
        item.ClearField("doc_string")
    graph.ClearField("value_info")
    for value in (*graph.input, *graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"


def _write_openvino(program: torch.export.ExportedProgram, folder: Path) -> dict[str, Path]:
    with without_telemetry():
        openvino = _required("openvino")
        converted = openvino.convert_model(program)
    converted.inputs[0].get_tensor().set_names({"pixel_values"})
    for output, name in zip(converted.outputs, OUTPUTS, strict=True):
        output.get_tensor().set_names({name})
    _clip_softplus(converted)
    path = folder / "model.xml"
    openvino.save_model(converted, path, compress_to_fp16=False)  # its default halves the weights
    return {"model": path, "weights": path.with_suffix(".bin")}


def _clip_softplus(model: Any) -> None:
    """Clip SoftPlus at 0 in an OpenVINO model: on a CPU it may give −1e-9, of which a power is NaN."""
    with without_telemetry():
        opset = importlib.import_module("openvino.opset13")
    for node in model.get_ordered_ops():
        if node.get_type_name() == "SoftPlus":
            readers = node.output(0).get_target_inputs()
            clipped = opset.relu(node.output(0))
            for reader in readers:
                reader.replace_source_output(clipped.output(0))


def _write_runner(folder: Path) -> dict[str, Path]:
    """Write the runner and, as a small package beside it, copies of the files that read images and compute boxes."""
    reading = folder / READING
    reading.mkdir()
    (reading / "__init__.py").touch()
    for module in flat_modules(PACKAGE, ("boxes", "image_reading")):
        shutil.copyfile(PACKAGE / f"{module}.py", reading / f"{module}.py")
    code = Path(onnx_runner.__file__).read_text(encoding="utf-8")
    (folder / "run.py").write_text(code.replace("from clarity_hf.", f"from {READING}."), encoding="utf-8")
    return {"runner": folder / "run.py", "reading": reading}


_WRITERS: dict[str, Callable[[torch.export.ExportedProgram, Path], dict[str, Path]]] = {
    "onnx": _write_onnx,
    "openvino": _write_openvino,
    "torch": _write_torch,
}


def quantize_onnx(source: Path, target: Path, float_modules: Sequence[str] = FLOAT_MODULES) -> Path:
    """Quantize the linear layers of an exported fp32 model to int8, except those of `float_modules`; return `target`.

    Weights are quantized now, activations at run time.

    Raises:
        ImportError: onnx or onnxruntime is not installed.
        ValueError: No linear layer is left to quantize.
    """
    onnx = _required("onnx")
    quantization = _required("onnxruntime.quantization")
    kept: list[str] = []
    chosen: list[str] = []
    for node in linear_nodes(onnx.load(source)):
        module = node.rpartition("/")[0]
        in_float = any(module == name or module.startswith(f"{name}.") for name in float_modules)
        (kept if in_float else chosen).append(node)
    if not chosen:
        raise ValueError(f"`float_modules` must leave a linear layer, got {list(float_modules)}. Name fewer.")
    quantization.quantize_dynamic(
        source,
        target,
        op_types_to_quantize=["MatMul"],
        nodes_to_exclude=kept,
        per_channel=True,
        weight_type=quantization.QuantType.QInt8,
    )
    return target


def linear_nodes(model: Any) -> list[str]:
    """Names, `module/operator`, of the nodes of an `onnx.ModelProto` that multiply by a fixed matrix."""
    fixed = {weight.name for weight in model.graph.initializer}
    return [node.name for node in model.graph.node if node.op_type == "MatMul" and node.input[1] in fixed]


def _required(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = name.partition(".")[0]
        raise ImportError(f"`{package}` must be installed to export. Run pip install 'clarity_hf[export]'.") from error


@contextlib.contextmanager
def without_telemetry() -> Iterator[None]:
    """Keep OpenVINO from sending usage statistics on import and on conversion.

    It sends none if `openvino_telemetry` cannot be imported. If that has been imported already, nothing is changed.
    """
    silenced = "openvino_telemetry"
    if silenced in sys.modules:
        yield
        return
    sys.modules[silenced] = None  # type: ignore[assignment]  # an import of it now fails
    try:
        yield
    finally:
        del sys.modules[silenced]
