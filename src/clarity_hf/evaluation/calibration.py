# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Thresholds of scores and maps, chosen on films that nothing is reported on, and kept in the model's config."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from clarity_hf.configuration_clarity import ClarityConfig

from .classification import f1_thresholds, sensitivity_thresholds, support, youden_thresholds
from .protocol import annotated_boxes, tune_thresholds
from .records import MAP_THRESHOLDS, FilmRecord

ScoreRule = Literal["youden", "sensitivity", "f1"]


@dataclass(frozen=True)
class Calibration:
    """Thresholds and what they were chosen from.

    Attributes:
        score_thresholds: `(F,)` in [0, 1]; a finding is present from its threshold.
        map_thresholds: `(F,)` in (0, 1), shares of a map's peak.
        positives: `(F,)` int, positive films of each finding.
        boxes: `(F,)` int, annotated boxes of each finding.
        kept_scores: Indices of the findings with too few positives or negatives, whose score threshold was kept.
        pooled_maps: Indices of the findings with too few boxes, which have the threshold that is best over all boxes;
            where there are no boxes at all every map threshold was kept.
    """

    score_thresholds: np.ndarray
    map_thresholds: np.ndarray
    positives: np.ndarray
    boxes: np.ndarray
    kept_scores: tuple[int, ...]
    pooled_maps: tuple[int, ...]


def calibrate(
    config: ClarityConfig,
    records: Sequence[FilmRecord],
    rule: ScoreRule = "youden",
    sensitivity: float = 0.9,
    min_positives: int = 5,
    min_boxes: int = 10,
) -> Calibration:
    """Choose score and map thresholds on validation films and write them into a config.

    The score threshold of a finding follows `rule`, half way down to the next lower score, so that the film that
    defines it is not lost to rounding elsewhere; its map threshold is that of `MAP_THRESHOLDS` with the highest
    mean IoU between annotated boxes and what the model draws. Figures of the same films are not to be reported.

    Args:
        config: Of the model that made the records; `score_thresholds` and `map_thresholds` are changed in place.
        records: Validation films, evaluated with all maps.
        rule: `"youden"` maximises sensitivity + specificity − 1, `"sensitivity"` takes the highest threshold that
            reaches `sensitivity`, `"f1"` maximises F1.
        sensitivity: Of the rule of that name, in (0, 1].
        min_positives: With fewer positive or negative films a finding keeps its score threshold.
        min_boxes: With fewer boxes a finding has the map threshold that is best over the boxes of all.

    Returns:
        [`Calibration`].

    Raises:
        ValueError: There are no records, `rule` is unknown, or the records have another number of findings.
    """
    count = config.num_labels
    if not records or any(len(record.scores) != count for record in records):
        found = sorted({len(record.scores) for record in records}) or "no films"
        raise ValueError(
            f"`records` must be of films with the config's {count} findings, got {found}. Evaluate the model first."
        )
    scores = np.stack([record.scores for record in records])
    labels = np.stack([record.labels for record in records])
    known = support(labels)
    few = np.minimum(known["positives"], known["negatives"]) < max(1, min_positives)
    chosen = _score_thresholds(scores, labels, rule, sensitivity)
    score_thresholds = np.where(few, config.per_finding("score_thresholds"), _between_scores(scores, chosen))
    components: Literal["largest", "all"] = "largest" if config.box_components == "largest" else "all"
    boxes = annotated_boxes(records, components, count)
    per_finding = np.bincount(boxes.findings, minlength=count)
    map_thresholds = np.array(config.per_finding("map_thresholds"))
    rare = per_finding < max(1, min_boxes)
    if len(boxes.findings):
        best_of_all = MAP_THRESHOLDS[int(boxes.iou.mean(axis=0).argmax())]
        map_thresholds = np.where(rare, best_of_all, tune_thresholds(records, count, components))
    config.score_thresholds = [float(value) for value in score_thresholds]
    config.map_thresholds = [float(value) for value in map_thresholds]
    return Calibration(
        score_thresholds,
        map_thresholds,
        known["positives"],
        per_finding,
        tuple(np.flatnonzero(few).tolist()),
        tuple(np.flatnonzero(rare).tolist()),
    )


def _score_thresholds(scores: np.ndarray, labels: np.ndarray, rule: str, sensitivity: float) -> np.ndarray:
    if rule == "youden":
        return youden_thresholds(scores, labels)
    if rule == "f1":
        return f1_thresholds(scores, labels)
    if rule == "sensitivity":
        return sensitivity_thresholds(scores, labels, sensitivity)
    raise ValueError(f"`rule` must be 'youden', 'sensitivity' or 'f1', got '{rule}'. Choose one of them.")


def _between_scores(scores: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Each threshold `(F,)` half way to the next lower of the scores `(n, F)`; where there is none it stays."""
    lower = np.where(scores < thresholds, scores, -np.inf).max(axis=0)
    return np.where(np.isfinite(lower), (thresholds + lower) / 2, thresholds)
