# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Patients of the NIH release by the name of a list that is part of the package.

A random split by seed depends on code and tables; a list does not. Each is a text file in `splits/`: lines that begin
with `#` describe it, every other line is a patient of eight digits. `examples/write_splits.py` writes them from the
release's own tables.

- `nih-validation`: the validation patients of the complete release, a fifth of those of `train_val_list.txt`.
- `clarity-validation`: the patients of `nih-validation` without those of `clarity-s16-224-train`, and those of
  `clarity-s16-224-validation`. Neither the packaged weights nor weights trained from them with this list have seen
  any of them.
- `nih-boxes-tuning-0` to `nih-boxes-tuning-5`: half of the patients of `BBox_List_2017.csv`, all of the test list. Map
  thresholds are tuned on them, and T(IoU) is counted on the other half. Reports use 0.
- `clarity-s16-224-train` and `clarity-s16-224-validation`: the patients of the train list on whom the packaged
  checkpoint was trained, in any stage, and those of the images of its report, on whom it was never trained.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

SPLIT_FOLDER = Path(__file__).parent / "splits"
"""Folder of the lists, `NAME.txt` each."""

NIH_VALIDATION = "nih-validation"
CLARITY_VALIDATION = "clarity-validation"
TUNING_HALVES = tuple(f"nih-boxes-tuning-{seed}" for seed in range(6))
CHECKPOINT_TRAIN = "clarity-s16-224-train"
CHECKPOINT_VALIDATION = "clarity-s16-224-validation"

SPLITS = (NIH_VALIDATION, CLARITY_VALIDATION, *TUNING_HALVES, CHECKPOINT_TRAIN, CHECKPOINT_VALIDATION)
"""Names of all lists."""


def trained_on(model: str, patients: Iterable[str]) -> frozenset[str]:
    """Those of some patients on whom a packaged checkpoint was trained, by their ids; none for other models."""
    name = f"{model}-train"
    return named_split(name) & frozenset(patients) if name in SPLITS else frozenset()


def named_split(name: str) -> frozenset[str]:
    """Patients of a list of `SPLITS`: eight digits each, as in the column `patient_id` of [`load_nih`].

    Raises:
        ValueError: No list has that name; the message names all lists.

    Example:
        >>> len(named_split("nih-validation"))
        5602
        >>> sorted(named_split("clarity-s16-224-train") & named_split("clarity-s16-224-validation"))
        []
    """
    if name not in SPLITS:
        raise ValueError(f"`name` must be one of {', '.join(SPLITS)}, got '{name}'. Choose one of them.")
    lines = (SPLIT_FOLDER / f"{name}.txt").read_text(encoding="utf-8").splitlines()
    return frozenset(line for line in lines if line and not line.startswith("#"))
