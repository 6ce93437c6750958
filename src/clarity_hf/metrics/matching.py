# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Matching of annotated with predicted boxes: best overlaps at every map threshold, from records.

No maps are needed, because a record contains the regions of its maps at every threshold of `MAP_THRESHOLDS`.

    records → `annotated_boxes` → `predicted` (at given thresholds, score-filtered or not) → `Overlaps` → `found`
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from clarity_hf.boxes import box_iou

from .localization import LEVELS, PerFinding, box_iobb, fixed_boxes, shares_per_finding
from .records import MAP_THRESHOLDS, AnnotationRecord, ImageRecord

Components = Literal["largest", "all"]

DEFAULT_MAP_THRESHOLD = 0.5
"""Threshold of a finding without annotated boxes to tune on."""


@dataclass(frozen=True, eq=False)
class _Boxes:
    """Where n annotated boxes come from: image and patient by name, `first` for the first of its (image, finding)."""

    images: np.ndarray
    patients: np.ndarray
    findings: np.ndarray
    first: np.ndarray
    num_findings: int


@dataclass(frozen=True, eq=False)
class Overlaps(_Boxes):
    """Best overlap of each of n annotated boxes with the boxes that one method predicts.

    Beside these fields it has `images`, `patients`, `findings`, `first` and `num_findings` of [`AnnotatedBoxes`].

    Attributes:
        best: `(n,)` float64, best overlap with a predicted box, in [0, 1]; 0 without predicted boxes.
        count: `(n,)` int, number of boxes predicted for the (image, finding).
    """

    best: np.ndarray
    count: np.ndarray

    @property
    def boxes_predicted(self) -> float:
        """Mean number of predicted boxes per annotated (image, finding); NaN without any."""
        return float(self.count[self.first].mean()) if self.first.any() else float("nan")

    @property
    def boxes_predicted_per_finding(self) -> np.ndarray:
        """[`boxes_predicted`] per finding, `(F,)`; NaN without annotated boxes."""
        return shares_per_finding(self.findings[self.first], self.count[self.first], self.num_findings).shares

    def found(self, levels: Sequence[float] = LEVELS) -> PerFinding:
        """Shares of annotated boxes whose overlap exceeds each level."""
        return shares_per_finding(self.findings, self.best[:, None] > np.asarray(levels), self.num_findings)


@dataclass(frozen=True, eq=False)
class AnnotatedBoxes(_Boxes):
    """Every annotated box of some images with its best overlaps at every map threshold: n boxes, T thresholds.

    It also has, each `(n,)`, the names of `images` and `patients`, the indices of `findings`, and `first`, whether a
    box is the first of its (image, finding), to count maps instead of boxes; `num_findings` is F.

    Attributes:
        scores: `(n,)` float64, the score of the box's finding.
        boxes: `(n, 4)` float64 as shares of the image's width and height.
        iou: `(n, T + 1)` best IoU with a predicted box, at each of `MAP_THRESHOLDS`, and last with the method's own
            boxes, of its own threshold and components.
        iobb: `(n, T + 1)` best intersection over the predicted box, likewise.
        count: `(n, T + 1)` int, boxes predicted for the (image, finding), likewise.
    """

    scores: np.ndarray
    boxes: np.ndarray
    iou: np.ndarray
    iobb: np.ndarray
    count: np.ndarray

    def of_images(self, names: Collection[str]) -> AnnotatedBoxes:
        """The boxes of some images, by name."""
        kept = np.isin(self.images, list(names))
        columns = {name: values[kept] for name, values in vars(self).items() if name != "num_findings"}
        return AnnotatedBoxes(**columns, num_findings=self.num_findings)

    def tuned_thresholds(self) -> np.ndarray:
        """Per finding the threshold of `MAP_THRESHOLDS` with the highest mean IoU over its boxes, `(F,)`.

        The lowest in a tie; `DEFAULT_MAP_THRESHOLD` for a finding without boxes. The mean IoU is used, not the share
        above one level, because that share has many ties, and one threshold serves T(IoU) at all levels.
        """
        thresholds = np.full(self.num_findings, DEFAULT_MAP_THRESHOLD)
        for finding in np.unique(self.findings):
            thresholds[finding] = best_threshold(self.iou[self.findings == finding, :-1])
        return thresholds

    def predicted(
        self,
        thresholds: Sequence[float] | np.ndarray | None = None,
        score_thresholds: Sequence[float] | np.ndarray | None = None,
        measure: Literal["iou", "iobb"] = "iou",
    ) -> Overlaps:
        """Overlaps with the boxes that given thresholds predict.

        Args:
            thresholds: `(F,)`, each one of `MAP_THRESHOLDS`; None for the method's own boxes.
            score_thresholds: `(F,)`: a finding with a lower score has no box. None predicts boxes whatever the score.
            measure: `"iou"`, or `"iobb"` for intersection over the predicted box.

        Raises:
            ValueError: A threshold is not one of `MAP_THRESHOLDS`, a length is not F, or `measure` is unknown.
        """
        if measure not in ("iou", "iobb"):
            raise ValueError(f"`measure` must be 'iou' or 'iobb', got '{measure}'. Choose one of them.")
        columns = np.full(self.num_findings, -1)
        if thresholds is not None:
            columns = threshold_columns(thresholds, self.num_findings)
        at = np.arange(len(self.findings)), columns[self.findings]
        best, count = getattr(self, measure)[at], self.count[at]
        if score_thresholds is not None:
            limits = per_finding("score_thresholds", score_thresholds, self.num_findings)
            shown = self.scores >= limits[self.findings]
            best, count = np.where(shown, best, 0.0), np.where(shown, count, 0)
        return self.overlaps(best, count)

    def with_fixed_boxes(self, boxes: np.ndarray) -> Overlaps:
        """Overlaps with one fixed box per finding, which does not depend on the image.

        Args:
            boxes: `(F, 4)` as shares of an image's width and height; NaN for a finding without a box.
        """
        known = ~np.isnan(boxes).any(axis=1)[self.findings]
        best = np.zeros(len(known))
        for finding in np.unique(self.findings[known]):
            rows = self.findings == finding
            best[rows] = box_iou(self.boxes[rows], boxes[finding, None])[:, 0]
        return self.overlaps(best, known)

    def fixed_boxes(self) -> np.ndarray:
        """Per finding the annotated box with the highest mean IoU to the others, `(F, 4)`; NaN without boxes.

        Boxes of different images are compared as shares of the image's width and height.
        """
        boxes = np.full((self.num_findings, 4), np.nan)
        for finding in np.unique(self.findings):
            boxes[finding] = fixed_boxes(self.boxes[self.findings == finding])[0]
        return boxes

    def overlaps(self, best: np.ndarray, count: np.ndarray) -> Overlaps:
        """Overlaps of these annotated boxes with what another method predicts: `best` `(n,)` and `count` `(n,)`."""
        return Overlaps(self.images, self.patients, self.findings, self.first, self.num_findings, best, count)


def annotated_boxes(
    records: Sequence[ImageRecord], components: Components = "all", num_findings: int | None = None
) -> AnnotatedBoxes:
    """Compare every annotated box with the predicted boxes at every threshold.

    Args:
        records: Images, with or without boxes.
        components: `"all"` lets any region match, `"largest"` only the region with the most mass. The method's own
            boxes always use its own components.
        num_findings: F; None takes it from the records.

    Raises:
        ValueError: There are no records to take F from, the records differ in it, or `components` is unknown.
    """
    if components not in ("largest", "all"):
        raise ValueError(f"`components` must be 'largest' or 'all', got '{components}'. Choose one of them.")
    pairs = list(annotated_maps(records))
    most, sets = 1 if components == "largest" else None, len(MAP_THRESHOLDS) + 1
    predicted = [[*(found[:most] for found in one.regions), one.own] for _, one in pairs]
    counts = [len(one.boxes) for _, one in pairs]
    overlaps = {
        name: _rows(
            [_best_at_each(one.boxes, found, measure) for (_, one), found in zip(pairs, predicted, strict=True)], sets
        )
        for name, measure in (("iou", box_iou), ("iobb", box_iobb))
    }
    predicted_counts = np.array([[len(boxes) for boxes in found] for found in predicted], dtype=np.int64)
    frames = [np.array([record.size[1], record.size[0]] * 2) for record, _ in pairs]
    return AnnotatedBoxes(
        images=np.repeat(np.array([record.name for record, _ in pairs], dtype=str), counts),
        patients=np.repeat(np.array([record.patient for record, _ in pairs], dtype=str), counts),
        findings=np.repeat(np.array([one.finding for _, one in pairs], dtype=np.int64), counts),
        first=_rows([np.arange(count) == 0 for count in counts]).astype(bool),
        scores=np.repeat(np.array([record.scores[one.finding] for record, one in pairs], dtype=np.float64), counts),
        boxes=_rows([one.boxes / frame for (_, one), frame in zip(pairs, frames, strict=True)], 4),
        **overlaps,
        count=np.repeat(predicted_counts.reshape(-1, sets), counts, axis=0),
        num_findings=count_findings(records) if num_findings is None else num_findings,
    )


def annotated_maps(records: Iterable[ImageRecord]) -> Iterator[tuple[ImageRecord, AnnotationRecord]]:
    """Every (image, finding) with annotated boxes."""
    return ((record, annotation) for record in records for annotation in record.annotations)


def _rows(parts: Sequence[np.ndarray], *shape: int) -> np.ndarray:
    """Rows of all parts, `(n, *shape)`, even without parts."""
    return np.concatenate([np.zeros((0, *shape)), *parts])


def _best_at_each(
    annotated: np.ndarray, predicted: Sequence[np.ndarray], measure: Callable[[np.ndarray, np.ndarray], np.ndarray]
) -> np.ndarray:
    """Best overlap of each annotated box with each set of predicted ones, `(m, sets)`, by one comparison."""
    overlaps = measure(annotated, np.concatenate(predicted))
    best = np.zeros((len(predicted), len(annotated)))
    np.maximum.at(best, np.repeat(np.arange(len(predicted)), [len(boxes) for boxes in predicted]), overlaps.T)
    return best.T


def best_threshold(overlaps: np.ndarray) -> float:
    """The one of `MAP_THRESHOLDS` with the highest mean overlap `(n, T)`, the lowest in a tie."""
    return MAP_THRESHOLDS[int(overlaps.mean(axis=0).argmax())]


def threshold_columns(thresholds: Sequence[float] | np.ndarray, num_findings: int) -> np.ndarray:
    """Indices of thresholds `(F,)` in `MAP_THRESHOLDS`, `(F,)` int.

    Raises:
        ValueError: There are not F thresholds, or one is not in `MAP_THRESHOLDS`.
    """
    values = per_finding("thresholds", thresholds, num_findings)
    known = np.array(MAP_THRESHOLDS)
    nearest = np.abs(values[:, None] - known).argmin(axis=1)
    strange = values[~np.isclose(values, known[nearest], rtol=0, atol=1e-9)]
    if len(strange):
        raise ValueError(
            f"`thresholds` must be among the {len(known)} of MAP_THRESHOLDS, from {known[0]:g} to {known[-1]:g}, got "
            f"{strange[0]:g}. Records only contain regions at these: use the nearest."
        )
    return nearest


def per_finding(name: str, values: Sequence[float] | np.ndarray, num_findings: int) -> np.ndarray:
    """Values as float64 `(F,)`; raises a ValueError that names the argument `name` if the length differs."""
    values = np.asarray(values, dtype=np.float64)
    if values.shape != (num_findings,):
        raise ValueError(f"`{name}` must be ({num_findings},), got {values.shape}. Pass one per finding.")
    return values


def count_findings(records: Sequence[ImageRecord]) -> int:
    """Number of findings of all records.

    Raises:
        ValueError: There are no records, or they differ in it.
    """
    counts = {len(record.scores) for record in records}
    if len(counts) != 1:
        raise ValueError(
            f"`records` must all have the same number of findings, got {sorted(counts) or 'no images'}. Evaluate them "
            "with one method."
        )
    return counts.pop()
