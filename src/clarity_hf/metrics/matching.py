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

from .localization import (
    LEVELS,
    Found,
    best_overlaps,
    box_iobb,
    fixed_boxes,
    found_shares,
    shares_per_finding,
)
from .records import MAP_THRESHOLDS, AnnotationRecord, ImageRecord

Components = Literal["largest", "all"]

DEFAULT_MAP_THRESHOLD = 0.5
"""Threshold of a finding without annotated boxes to tune on."""


@dataclass(frozen=True, eq=False)
class Overlaps:
    """Best overlap of each of n annotated boxes with the boxes that one method predicts.

    Attributes:
        images: `(n,)` str, names.
        patients: `(n,)` str.
        findings: `(n,)` int.
        first: `(n,)` bool, the first box of its (image, finding): to count maps instead of boxes.
        best: `(n,)` float64, best overlap with a predicted box, in [0, 1]; 0 without predicted boxes.
        count: `(n,)` int, number of boxes predicted for the (image, finding).
        num_findings: F.
    """

    images: np.ndarray
    patients: np.ndarray
    findings: np.ndarray
    first: np.ndarray
    best: np.ndarray
    count: np.ndarray
    num_findings: int

    @property
    def boxes_predicted(self) -> float:
        """Mean number of predicted boxes per annotated (image, finding); NaN without any."""
        return float(self.count[self.first].mean()) if self.first.any() else float("nan")

    @property
    def boxes_predicted_per_finding(self) -> np.ndarray:
        """[`boxes_predicted`] per finding, `(F,)`; NaN without annotated boxes."""
        counts = self.count[self.first, None].astype(np.float64)
        return shares_per_finding(self.findings[self.first], counts, self.num_findings)[1][:, 0]

    def found(self, levels: Sequence[float] = LEVELS) -> Found:
        """Shares of annotated boxes whose overlap exceeds each level."""
        return found_shares(self.findings, self.best, self.num_findings, levels)


@dataclass(frozen=True, eq=False)
class AnnotatedBoxes:
    """Every annotated box of some images with its best overlaps at every map threshold: n boxes, T thresholds.

    Attributes:
        images: `(n,)` str, names.
        patients: `(n,)` str.
        findings: `(n,)` int.
        first: `(n,)` bool, the first box of its (image, finding): to count maps instead of boxes.
        scores: `(n,)` float64, the score of the box's finding.
        boxes: `(n, 4)` float64 as shares of the image's width and height.
        iou: `(n, T)` best IoU with a predicted box, at each of `MAP_THRESHOLDS`.
        iobb: `(n, T)` best intersection over the predicted box.
        count: `(n, T)` int, boxes predicted for the (image, finding).
        own_iou: `(n,)` like `iou`, at the method's own threshold and components.
        own_iobb: `(n,)` like `iobb`, at these.
        own_count: `(n,)` like `count`, at these.
        num_findings: F.
    """

    images: np.ndarray
    patients: np.ndarray
    findings: np.ndarray
    first: np.ndarray
    scores: np.ndarray
    boxes: np.ndarray
    iou: np.ndarray
    iobb: np.ndarray
    count: np.ndarray
    own_iou: np.ndarray
    own_iobb: np.ndarray
    own_count: np.ndarray
    num_findings: int

    def of_images(self, names: Collection[str]) -> AnnotatedBoxes:
        """The boxes of some images, by name."""
        kept = np.isin(self.images, list(names))
        columns = {name: values[kept] for name, values in vars(self).items() if name != "num_findings"}
        return AnnotatedBoxes(**columns, num_findings=self.num_findings)

    def tuned_thresholds(self, default: float = DEFAULT_MAP_THRESHOLD) -> np.ndarray:
        """Per finding the threshold of `MAP_THRESHOLDS` with the highest mean IoU over its boxes, `(F,)`.

        The lowest in a tie; `default` for a finding without boxes. The mean IoU is used, not the share above one
        level, because that share has many ties, and one threshold serves T(IoU) at all levels.
        """
        thresholds = np.full(self.num_findings, default)
        for finding in np.unique(self.findings):
            thresholds[finding] = MAP_THRESHOLDS[int(self.iou[self.findings == finding].mean(axis=0).argmax())]
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
        if thresholds is None:
            best, count = getattr(self, f"own_{measure}"), self.own_count
        else:
            column = threshold_columns(thresholds, self.num_findings)[self.findings]
            rows = np.arange(len(column))
            best, count = getattr(self, measure)[rows, column], self.count[rows, column]
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
        guesses = np.asarray(boxes)[self.findings]
        known = ~np.isnan(guesses).any(axis=1)
        best = np.zeros(len(guesses))
        for finding in np.unique(self.findings[known]):
            rows = self.findings == finding
            best[rows] = box_iou(self.boxes[rows], np.asarray(boxes)[finding, None])[:, 0]
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
        return Overlaps(self.images, self.patients, self.findings, self.first, best, count, self.num_findings)


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
    regions = [[found[: 1 if components == "largest" else None] for found in one.regions] for _, one in pairs]
    counts = [len(one.boxes) for _, one in pairs]
    overlaps = {
        name: _rows(
            [_best_at_each(one.boxes, found, measure) for (_, one), found in zip(pairs, regions, strict=True)],
            len(MAP_THRESHOLDS),
        )
        for name, measure in (("iou", box_iou), ("iobb", box_iobb))
    }
    region_counts = np.array([[len(boxes) for boxes in found] for found in regions], dtype=np.int64)
    frames = [np.array([record.size[1], record.size[0]] * 2) for record, _ in pairs]
    return AnnotatedBoxes(
        images=np.repeat(np.array([record.name for record, _ in pairs], dtype=str), counts),
        patients=np.repeat(np.array([record.patient for record, _ in pairs], dtype=str), counts),
        findings=np.repeat(np.array([one.finding for _, one in pairs], dtype=np.int64), counts),
        first=_rows([np.arange(count) == 0 for count in counts]).astype(bool),
        scores=np.repeat(np.array([record.scores[one.finding] for record, one in pairs], dtype=np.float64), counts),
        boxes=_rows([one.boxes / frame for (_, one), frame in zip(pairs, frames, strict=True)], 4),
        **overlaps,
        count=np.repeat(region_counts.reshape(-1, len(MAP_THRESHOLDS)), counts, axis=0),
        own_iou=_rows([best_overlaps(one.boxes, one.own) for _, one in pairs]),
        own_iobb=_rows([best_overlaps(one.boxes, one.own, box_iobb) for _, one in pairs]),
        own_count=np.repeat(np.array([len(one.own) for _, one in pairs], dtype=np.int64), counts),
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
