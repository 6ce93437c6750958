# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""`clarity-hf export`: a model for another runtime."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from .common import ModelArgument, load


def export(
    model: ModelArgument,
    folder: Annotated[Path, typer.Argument(help="New or empty folder.")],
    format: Annotated[Literal["onnx", "openvino", "torch"], typer.Option(help="Format of the model.")] = "onnx",
    precision: Annotated[
        Literal["fp32", "int8"], typer.Option(help="Precision of the weights; int8 only with onnx.")
    ] = "fp32",
) -> None:
    """Export a model for another runtime with preprocessing, labels and thresholds. Needs the extra export."""
    from clarity_hf.export.export import export_model

    loaded, image_processor = load(model, "cpu")
    written = export_model(loaded, image_processor, folder, format, precision)
    for part, path in written.items():
        size = sum(file.stat().st_size for file in (path.rglob("*") if path.is_dir() else [path]))
        print(f"{size / 1e3:9,.0f} kB  {part}: {path}")
