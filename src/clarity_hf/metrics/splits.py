# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Splits of evaluated images: a half to tune thresholds on and a half to score, and folds of patients."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

import numpy as np

from .records import ImageRecord

NAMED_SEED = 0
"""Seed of the named split by patient; repeats use the following seeds."""

FOLDS = 10
"""Largest number of folds of patients; each fold is scored with what was chosen, or fitted, on the others."""


def halves(patients: Iterable[str], seed: int = NAMED_SEED) -> tuple[frozenset[str], frozenset[str]]:
    """Split patients at random into a half to tune on and a half to score.

    The split is not stratified. It is made by hash ([`draw_patients`]), so it does not depend on platform or order. On
    the patients of the NIH box list, seed 0 gives the committed list `nih-boxes-tuning-0`.

    Returns:
        The tuning half and the scoring half, the odd one rounded to even.
    """
    from clarity_hf.data.rows import draw_patients  # loads datasets

    known = frozenset(patients)
    tuning = frozenset(draw_patients(known, 0.5, seed))
    return tuning, known - tuning


def boxed(records: Iterable[ImageRecord]) -> list[ImageRecord]:
    """The images with annotated boxes."""
    return [record for record in records if record.annotations]


def halves_by_patient(
    records: Sequence[ImageRecord], seed: int = NAMED_SEED
) -> tuple[list[ImageRecord], list[ImageRecord]]:
    """Images to tune on and images to score, with no patient in both; see [`halves`].

    Patients without boxes are on the tuning side, where they help to choose score thresholds.
    """
    _, scoring = halves((record.patient for record in boxed(records)), seed)
    return _sides(records, [record.patient in scoring for record in records])


def halves_by_image(
    records: Sequence[ImageRecord], seed: int = NAMED_SEED
) -> tuple[list[ImageRecord], list[ImageRecord]]:
    """Images to tune on and images to score, split by **image**: a patient may be on both sides.

    Images without boxes are on the tuning side.
    """
    _, scoring = halves((record.name for record in boxed(records)), seed)
    return _sides(records, [record.name in scoring for record in records])


def split_by_patients(
    records: Sequence[ImageRecord], tuning_patients: Collection[str]
) -> tuple[list[ImageRecord], list[ImageRecord]]:
    """Images to tune on and images to score by a list of patients to tune on, such as a committed one.

    All other patients with boxes are scored; those without boxes are on the tuning side.

    Raises:
        ValueError: The list names none of the patients with boxes, or all of them.
    """
    boxed_patients = {record.patient for record in boxed(records)}
    scoring = boxed_patients - set(tuning_patients)
    if boxed_patients and scoring == boxed_patients:
        raise ValueError(
            f"`tuning_patients` must name patients of the {len(boxed_patients)} with boxes, got "
            f"{len(tuning_patients)} others. Choose the list of this data set."
        )
    if boxed_patients and not scoring:
        raise ValueError(
            f"`tuning_patients` must leave patients with boxes to score, got all {len(boxed_patients)} listed. "
            "Choose the list of this data set."
        )
    return _sides(records, [record.patient in scoring for record in records])


def patient_folds(patients: Sequence[str] | np.ndarray, folds: int, seed: int = 0) -> np.ndarray:
    """Split the patients `(n,)` of rows into at most `folds` folds, `(n,)` int; with few, each is its own fold."""
    names, patient = np.unique(np.asarray(patients), return_inverse=True)
    return (np.random.default_rng(seed).permutation(len(names)) % folds)[patient]


def _sides(records: Sequence[ImageRecord], is_scored: list[bool]) -> tuple[list[ImageRecord], list[ImageRecord]]:
    tuning = [record for record, scored in zip(records, is_scored, strict=True) if not scored]
    return tuning, [record for record, scored in zip(records, is_scored, strict=True) if scored]
