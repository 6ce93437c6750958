# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""T(IoU) and T(IoBB), and the protocols that tune thresholds on one half of the images and score the other.

T(IoU) counts the boxes of an annotated finding **whatever its score**, and any region may match. The score-filtered
figure, which is what a user sees, counts a box only if the finding's score reaches its threshold. Read both together
with the number of predicted boxes, because more boxes hit more.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from .classification import youden_thresholds
from .localization import IOBB_LEVELS, LEVELS, PerFinding
from .matching import AnnotatedBoxes, Components, Overlaps, annotated_boxes, count_findings
from .records import ImageRecord
from .splits import NAMED_SEED, boxed, halves_by_image, halves_by_patient, split_by_patients


def t_iou(
    records: Sequence[ImageRecord],
    thresholds: Sequence[float] | np.ndarray | None = None,
    *,
    score_thresholds: Sequence[float] | np.ndarray | None = None,
    components: Components = "all",
    levels: Sequence[float] = LEVELS,
) -> PerFinding:
    """T(IoU): the share of annotated boxes that a predicted box of the same finding overlaps by IoU **>** t.

    Args:
        records: Images to score.
        thresholds: `(F,)` of `MAP_THRESHOLDS`, chosen on other images; None for the method's own boxes.
        score_thresholds: `(F,)`, below which a finding has no box; None takes boxes whatever the score.
        components: Which regions may match if `thresholds` are given.
        levels: The t.
    """
    return annotated_boxes(records, components).predicted(thresholds, score_thresholds).found(levels)


def t_iobb(
    records: Sequence[ImageRecord],
    thresholds: Sequence[float] | np.ndarray | None = None,
    *,
    score_thresholds: Sequence[float] | np.ndarray | None = None,
    components: Components = "all",
    levels: Sequence[float] = IOBB_LEVELS,
) -> PerFinding:
    """T(IoBB): like [`t_iou`], with intersection over the area of the predicted box, see [`box_iobb`]."""
    return annotated_boxes(records, components).predicted(thresholds, score_thresholds, "iobb").found(levels)


@dataclass(frozen=True, eq=False)
class HalfScores:
    """What is tuned on one half of the images and scored on the other.

    Attributes:
        thresholds: `(F,)` map thresholds, chosen on the tuning half.
        iou: Overlaps by IoU on the scoring half, whatever the scores: [`Overlaps.found`] is T(IoU).
        score_filtered: By IoU, without boxes of findings below their score threshold.
        fixed_box: By IoU, of the fixed box of each finding, chosen on the tuning half.
    """

    thresholds: np.ndarray
    iou: Overlaps
    score_filtered: Overlaps
    fixed_box: Overlaps


def tune_and_score(
    tuning: AnnotatedBoxes, scoring: AnnotatedBoxes, score_thresholds: Sequence[float] | np.ndarray
) -> HalfScores:
    """Choose map thresholds and fixed boxes on some annotated boxes, and score those of other images with them.

    `score_thresholds` `(F,)` are those of the score-filtered figure.
    """
    thresholds = tuning.tuned_thresholds()
    return HalfScores(
        thresholds=thresholds,
        iou=scoring.predicted(thresholds),
        score_filtered=scoring.predicted(thresholds, score_thresholds),
        fixed_box=scoring.with_fixed_boxes(tuning.fixed_boxes()),
    )


def youden_of(records: Sequence[ImageRecord]) -> np.ndarray:
    """Youden's score thresholds on these images, `(F,)`; .5 for a finding with only one class."""
    return youden_thresholds(
        np.array([record.scores for record in records]), np.array([record.labels for record in records])
    )


def clarity_protocol(
    records: Sequence[ImageRecord],
    seed: int = NAMED_SEED,
    score_thresholds: Sequence[float] | np.ndarray | None = None,
    components: Components = "all",
) -> HalfScores:
    """CLARiTy's protocol: thresholds are tuned on half of the boxed **images**, and the other half is scored.

    A patient's images may be on both sides, unlike in [`patient_protocol`]; the paper's own split is not published.

    Args:
        records: Images, with boxes or without.
        seed: Seed of the split.
        score_thresholds: `(F,)` of the score-filtered figure; None for Youden's on the tuning images.
        components: Which regions may match.

    Source: Statheros, Wang and Klein, arXiv 2512.16700.
    """
    sides, count = halves_by_image(records, seed), count_findings(records)
    limits = youden_of(sides[0]) if score_thresholds is None else score_thresholds
    tuning, scoring = (annotated_boxes(side, components, count) for side in sides)
    return tune_and_score(tuning, scoring, limits)


@dataclass(frozen=True, eq=False)
class CrossTuned:
    """Every annotated box scored once, with thresholds chosen on the other half of the patients.

    Attributes:
        thresholds: `(2, F)` map thresholds, chosen on the first and on the second half; each scores the other.
        iou: Overlaps by IoU of all boxes, whatever the scores.
        iobb: The same by intersection over the predicted box.
        fixed_box: By IoU, of the fixed box of each finding.
    """

    thresholds: np.ndarray
    iou: Overlaps
    iobb: Overlaps
    fixed_box: Overlaps


def cross_tuned(boxes: AnnotatedBoxes, first: np.ndarray) -> CrossTuned:
    """Tune on one half and score the other, both ways, so that every box is scored.

    A finding without boxes in one half is scored at `DEFAULT_MAP_THRESHOLD` in the other, and has no fixed box there.
    `first` `(n,)` bool are the boxes of one half of the patients.

    Raises:
        ValueError: A patient has boxes in both halves, or `first` has another length.
    """
    first = np.asarray(first, dtype=bool)
    if first.shape != boxes.findings.shape:
        raise ValueError(f"`first` must be {boxes.findings.shape}, got {first.shape}. Pass one per box.")
    both = set(boxes.patients[first]) & set(boxes.patients[~first])
    if both:
        raise ValueError(f"`first` must split by patient, got {len(both)} patients in both halves. See halves.")
    sides = [boxes.of_images(boxes.images[rows]) for rows in (first, ~first)]
    thresholds = np.stack([side.tuned_thresholds() for side in sides])
    guesses = [side.fixed_boxes() for side in sides]

    def crossed(by_first: Overlaps, by_second: Overlaps) -> Overlaps:
        best = np.where(first, by_second.best, by_first.best)
        return boxes.overlaps(best, np.where(first, by_second.count, by_first.count))

    return CrossTuned(
        thresholds=thresholds,
        iou=crossed(*(boxes.predicted(chosen) for chosen in thresholds)),
        iobb=crossed(*(boxes.predicted(chosen, measure="iobb") for chosen in thresholds)),
        fixed_box=crossed(*(boxes.with_fixed_boxes(guess) for guess in guesses)),
    )


@dataclass(frozen=True, eq=False)
class PatientProtocol:
    """The protocol of halves by patient.

    Attributes:
        boxes: All annotated boxes.
        named: On the committed split, or on that of the first seed without a list.
        repeats: On the other splits.
        crossed: Both ways on the split of `named`, so that every annotated box is scored once.
    """

    boxes: AnnotatedBoxes
    named: HalfScores
    repeats: tuple[HalfScores, ...]
    crossed: CrossTuned


def patient_protocol(
    records: Sequence[ImageRecord],
    repeats: int = 5,
    seed: int = NAMED_SEED,
    tuning_patients: Collection[str] | None = None,
    score_thresholds: Sequence[float] | np.ndarray | None = None,
    components: Components = "all",
) -> PatientProtocol:
    """Our protocol: thresholds are tuned on half of the **patients** with boxes, the other half is scored, repeatedly.

    Each split is scored in one direction, as is usual. The first is also scored both ways, see [`cross_tuned`].

    Args:
        records: Images, with boxes or without.
        repeats: Number of further splits, with the seeds after `seed`.
        seed: Seed of the first split.
        tuning_patients: Tuning half of the first split, from a committed list; None splits at random with `seed`.
        score_thresholds: `(F,)` of the score-filtered figure; None for Youden's on the tuning images.
        components: Which regions may match.
    """
    first = (
        halves_by_patient(records, seed) if tuning_patients is None else split_by_patients(records, tuning_patients)
    )
    others = (halves_by_patient(records, seed + 1 + repeat) for repeat in range(repeats))
    table = annotated_boxes(records, components)
    scores = []
    for sides in (first, *others):
        tuning, scoring = (table.of_images([record.name for record in boxed(side)]) for side in sides)
        limits = youden_of(sides[0]) if score_thresholds is None else score_thresholds
        scores.append(tune_and_score(tuning, scoring, limits))
    scored_first = np.isin(table.images, [record.name for record in boxed(first[1])])
    return PatientProtocol(table, scores[0], tuple(scores[1:]), cross_tuned(table, ~scored_first))
