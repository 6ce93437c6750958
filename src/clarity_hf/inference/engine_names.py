# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Names of engines and their precisions, without what the engines import."""

from __future__ import annotations

import json
import os
from pathlib import Path

PRECISIONS = {"torch": ("fp32", "bf16"), "onnx": ("fp32", "int8"), "openvino": ("fp32", "bf16")}
"""Engines, and the precisions of each; the first one is its default."""


def check_engine(engine: str, precision: str | None = None) -> None:
    """Raise a ValueError unless the engine is `auto` or in `PRECISIONS`, and the precision one of its own or None."""
    if engine not in ("auto", *PRECISIONS):
        raise ValueError(f"`engine` must be one of auto, {', '.join(PRECISIONS)}, got '{engine}'.")
    known = PRECISIONS.get(engine, ("fp32", "bf16", "int8"))
    if precision not in (None, *known):
        raise ValueError(f"`precision` must be one of {', '.join(known)} with {engine}, got '{precision}'.")


def engine_of(settings: str | os.PathLike) -> tuple[str, str] | None:
    """Engine and precision, such as `("torch", "fp32")`, by a folder's `settings.json`; None if it has no results."""
    try:
        name = json.loads(Path(settings).read_text(encoding="utf-8")).get("engine", "torch fp32")
        engine, precision = name.split()
    except (OSError, ValueError, AttributeError):  # a broken file is refused when the folder is opened
        return None
    return engine, precision
