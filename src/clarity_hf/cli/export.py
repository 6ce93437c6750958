# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""`clarity-hf export`: a model for another runtime."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from .common import ModelArgument, load


class Format(StrEnum):
    """Formats of an export."""

    ONNX = "onnx"
    OPENVINO = "openvino"
    TORCH = "torch"


class Precision(StrEnum):
    """Precisions of an export's weights."""

    FP32 = "fp32"
    INT8 = "int8"


def export(
    model: ModelArgument,
    folder: Annotated[Path, typer.Argument(help="New or empty folder.")],
    format: Annotated[Format, typer.Option(help="Format of the model.")] = Format.ONNX,
    precision: Annotated[Precision, typer.Option(help="Of the weights; int8 only with onnx.")] = Precision.FP32,
) -> None:
    """Export a model for another runtime with preprocessing, labels and thresholds. Needs the extra export."""
    from clarity_hf.export.export import export_model

    loaded, image_processor = load(model, "cpu")
    written = export_model(loaded, image_processor, folder, format.value, precision.value)
    for part, path in written.items():
        size = sum(file.stat().st_size for file in (path.rglob("*") if path.is_dir() else [path]))
        print(f"{size / 1e3:9,.0f} kB  {part}: {path}")
