# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Rows of the paper's tables as `configs/` has them: what is trained, from which teacher, and the paper's figures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

CONFIGS = Path(__file__).with_name("configs")

ORDER = (
    "convnextv2-b-512",
    "s-16-512",
    "convnextv2-b-224",
    "s-16-224",
    "no-segment-cam",
    "no-dino",
    "no-orthogonal-loss",
    "no-attention-pooling",
)
"""Rows as the table has them; a teacher comes before its students."""

KEYS = {"text", "script", "teacher", "paper", "arguments", "base", "change"}


@dataclass(frozen=True)
class Row:
    """A row of the table.

    Attributes:
        name: As on the command line, and of its folder.
        text: As the table says it.
        script: Of `examples/` that trains it: `train.py` or `train_teacher.py`.
        arguments: Of that script by name, without `data_dir`, `teacher` and `output_dir`.
        teacher: Row whose model teaches it, or None.
        paper: The paper's figures that are known here: `auroc`, and `t_iou` by threshold.
        base: For an ablation the row from which it differs, or None.
        change: For an ablation the arguments that differ; fields inside `config` one by one, None for left out.
    """

    name: str
    text: str
    script: str
    arguments: dict[str, Any]
    teacher: str | None = None
    paper: dict[str, Any] = field(default_factory=dict)
    base: str | None = None
    change: dict[str, Any] = field(default_factory=dict)


def load_rows(folder: Path = CONFIGS) -> dict[str, Row]:
    """All rows by name, in the order of the table, ablations filled up from their base.

    Raises:
        FileNotFoundError: A row of `ORDER` has no file.
        ValueError: A file has a key that is not known.
    """
    return {name: load_row(name, folder) for name in ORDER}


def load_row(name: str, folder: Path = CONFIGS) -> Row:
    """The row of `NAME.yaml`, see [`load_rows`]."""
    path = folder / f"{name}.yaml"
    stored = yaml.safe_load(path.read_text(encoding="utf-8"))
    unknown = sorted(set(stored) - KEYS)
    if unknown:
        raise ValueError(f"{path} must have keys of {sorted(KEYS)}, got {unknown}. Remove or rename them.")
    if "base" not in stored:
        return Row(name=name, **stored)
    base = load_row(stored["base"], folder)
    return Row(
        name=name,
        text=stored["text"],
        script=base.script,
        arguments=changed(base.arguments, stored["change"]),
        teacher=base.teacher,
        paper=stored.get("paper", {}),
        base=base.name,
        change=stored["change"],
    )


def changed(arguments: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments with some of them replaced, None for left out; the dict `config` is merged field by field."""
    merged = {**arguments, **change}
    if "config" in arguments and "config" in change:
        merged["config"] = arguments["config"] | change["config"]
    return {name: value for name, value in merged.items() if value is not None}
