# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Tests whether boxes and maps follow the image or only mark a finding's usual place.

A map that always marks the usual place hits many annotated boxes without using the image. Every measure here is
therefore compared with baselines ("rivals") that do not see the image, each fitted on **other patients**:

- *k fixed boxes*: annotated boxes of other patients, see [`fixed_boxes`];
- *swapped*: the map of another image with the same finding, over all such images;
- *mean map*: the mean of the maps of other patients' images with the finding, each divided by its peak;
- *mean box mask*: the share of other patients' annotated boxes that cover a cell.

Images are compared as shares of their width and height.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from clarity_hf.boxes import Letterbox, box_iou, boxes_from_map, map_over_image

from .bootstrap import Interval, bootstrap_by_patient, weighted_auroc
from .localization import BoxSettings, best_overlaps, figures_of_rows, fixed_boxes, shares_per_finding
from .matching import annotated_boxes, annotated_maps
from .records import MAP_CELLS, ImageRecord
from .splits import FOLDS, patient_folds

COMPARED_LEVELS = (0.1, 0.3, 0.5)
"""IoU thresholds t at which baselines are compared."""

MOST_FIXED_BOXES = 3
"""Largest number k of fixed boxes."""

ONE_SIDED = 3.0
"""Ratio of the annotated areas in the two halves of the image from which an image counts as one-sided."""


def correlation_of_maps(maps: np.ndarray, letterbox: Letterbox) -> float:
    """Mean Pearson correlation of the maps of one image with each other, in [−1, 1].

    It is the mean over all pairs of findings whose maps vary, NaN without such a pair. Near 1, all maps mark the same
    place, whatever the finding. `maps` is `(F, h, w)` on a grid over the complete input; the padding does not count.
    """
    cells = map_over_image(maps, letterbox, (maps.shape[-2], maps.shape[-1])).reshape(len(maps), -1)
    varied = cells[cells.std(axis=1) > 0]
    if len(varied) < 2:
        return float("nan")
    return float(np.corrcoef(varied)[np.triu_indices(len(varied), 1)].mean())


def covered_cells(boxes: np.ndarray, cells: int = MAP_CELLS) -> np.ndarray:
    """Share of each cell of a grid over the image that boxes cover: `(cells, cells)` in [0, 1].

    `boxes` is `(m, 4)` xyxy as shares of the image's width and height. The result is exact where boxes do not overlap.
    """
    starts = np.arange(cells)

    def along(low: np.ndarray, high: np.ndarray) -> np.ndarray:
        reach = np.minimum(high[:, None] * cells, starts + 1) - np.maximum(low[:, None] * cells, starts)
        return reach.clip(0, 1)

    boxes = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    rows, columns = along(boxes[:, 1], boxes[:, 3]), along(boxes[:, 0], boxes[:, 2])
    return np.einsum("mr,mc->rc", rows, columns).clip(0, 1)


def pixel_auroc(maps: np.ndarray, covered: np.ndarray) -> np.ndarray:
    """Area under the ROC curve of a map's cells inside against outside annotated boxes, within one image.

    `maps` is `(h, w)` over the image, `covered` `(..., h, w)` the share of each cell inside boxes; the rest counts as
    outside. Gives `(...)` in [0, 1], .5 for a uniform map; NaN if the boxes cover everything or nothing.
    """
    values, inside = maps.reshape(-1), covered.reshape(*covered.shape[:-2], -1)
    labels = np.repeat([1.0, 0.0], len(values))
    return weighted_auroc(np.tile(values, 2), labels, np.concatenate([inside, 1 - inside], axis=-1))


def boxes_of_cells(cells: np.ndarray, finding: int, settings: BoxSettings) -> np.ndarray:
    """Boxes `(n, 4)` of a map `(h, w)` over the image by a method's rules, as shares of its width and height."""
    threshold, components, _, valley = settings.rule(finding)
    found = boxes_from_map(cells, Letterbox.fit(cells.shape, cells.shape), threshold, components, 4, valley)
    return found / np.array([cells.shape[1], cells.shape[0]] * 2)


@dataclass(frozen=True, eq=False)
class Hits:
    """Hits of one method or baseline on n annotated boxes.

    Attributes:
        shares: `(n, len(COMPARED_LEVELS))` float64 in [0, 1]: whether the box is hit with IoU > t, or how often, if
            the baseline consists of many maps.
        boxes_predicted: Mean number of boxes per annotated (image, finding).
    """

    shares: np.ndarray
    boxes_predicted: float


@dataclass(frozen=True, eq=False)
class AnnotatedMaps:
    """Maps of annotated findings and their boxes: n maps, m boxes, positions as shares of width and height.

    Attributes:
        findings: `(n,)` int.
        patients: `(n,)` str.
        boxes: n arrays `(·, 4)` of annotated boxes.
        own: n arrays `(·, 4)` of the method's own boxes.
        cells: `(n, MAP_CELLS, MAP_CELLS)` maps over the image.
        covered: `(n, MAP_CELLS, MAP_CELLS)`, see [`covered_cells`].
        num_findings: F.
    """

    findings: np.ndarray
    patients: np.ndarray
    boxes: tuple[np.ndarray, ...]
    own: tuple[np.ndarray, ...]
    cells: np.ndarray
    covered: np.ndarray
    num_findings: int

    @classmethod
    def of(cls, records: Sequence[ImageRecord]) -> AnnotatedMaps:
        """Maps of the given records, in the order of [`annotated_boxes`]."""
        pairs = list(annotated_maps(records))
        frames = [np.array([record.size[1], record.size[0]] * 2) for record, _ in pairs]
        boxes = tuple(one.boxes / frame for (_, one), frame in zip(pairs, frames, strict=True))
        return cls(
            findings=np.array([one.finding for _, one in pairs], dtype=np.int64),
            patients=np.array([record.patient for record, _ in pairs], dtype=str),
            boxes=boxes,
            own=tuple(one.own / frame for (_, one), frame in zip(pairs, frames, strict=True)),
            cells=np.array([one.cells for _, one in pairs]).reshape(-1, MAP_CELLS, MAP_CELLS),
            covered=np.array([covered_cells(one) for one in boxes]).reshape(-1, MAP_CELLS, MAP_CELLS),
            num_findings=len(records[0].scores) if records else 0,
        )

    @cached_property
    def box_findings(self) -> np.ndarray:
        """`(m,)` int, the finding of each annotated box."""
        return np.repeat(self.findings, [len(boxes) for boxes in self.boxes])

    @cached_property
    def box_patients(self) -> np.ndarray:
        """`(m,)` str, the patient of each annotated box."""
        return np.repeat(self.patients, [len(boxes) for boxes in self.boxes])

    @cached_property
    def folds(self) -> np.ndarray:
        """`(n,)` int, the fold of each map's patient, see `FOLDS`; with few patients each is its own fold."""
        return patient_folds(self.patients, FOLDS)

    def rows(self) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """Per finding and fold: the finding, its maps in the fold and its maps of all other patients, `(·,)` int."""
        for finding in np.unique(self.findings):
            of_finding = np.flatnonzero(self.findings == finding)
            for fold in np.unique(self.folds[of_finding]):
                mine = self.folds[of_finding] == fold
                yield int(finding), of_finding[mine], of_finding[~mine]

    def hits_of(self, predicted: Sequence[np.ndarray]) -> Hits:
        """Hits of n lists of predicted boxes, one per map."""
        best = [best_overlaps(*pair) for pair in zip(self.boxes, predicted, strict=True)]
        above = np.concatenate([np.zeros(0), *best])[:, None] > COMPARED_LEVELS
        return Hits(above.astype(np.float64), _mean([len(some) for some in predicted]))

    def fixed_box_hits(self, k: int) -> Hits:
        """Hits of k fixed boxes chosen on the other folds; none if no other patient has boxes."""
        predicted = [np.zeros((0, 4))] * len(self.boxes)
        for _, mine, others in self.rows():
            if len(others):
                guess = fixed_boxes(np.concatenate([self.boxes[i] for i in others]), k)
                for i in mine:
                    predicted[i] = guess
        return self.hits_of(predicted)

    def swapped_hits(self) -> Hits:
        """How often the boxes of another patient's map of the same finding hit each annotated box."""
        shares = np.zeros((len(self.box_findings), len(COMPARED_LEVELS)))
        for finding in np.unique(self.findings):
            maps = np.flatnonzero(self.findings == finding)
            rows = self.box_findings == finding
            boxes = np.concatenate([self.boxes[i] for i in maps])
            best = np.stack([box_iou(boxes, self.own[i]).max(axis=1, initial=0.0) for i in maps], axis=1)
            other = self.box_patients[rows][:, None] != self.patients[maps]
            above = (best[:, :, None] > COMPARED_LEVELS) & other[:, :, None]
            shares[rows] = above.sum(axis=1) / np.maximum(other.sum(axis=1), 1)[:, None]
        return Hits(shares, _mean([len(some) for some in self.own]))

    @cached_property
    def mean_maps(self) -> np.ndarray:
        """`(n, MAP_CELLS, MAP_CELLS)` mean of other patients' maps of the finding, each divided by its peak."""
        peaks = self.cells.max(axis=(1, 2), initial=0.0)[:, None, None]
        peaked = np.divide(self.cells, peaks, out=np.zeros_like(self.cells), where=peaks > 0)
        return self._of_others(peaked, np.mean)

    @cached_property
    def mean_masks(self) -> np.ndarray:
        """`(n, MAP_CELLS, MAP_CELLS)` share of other patients' maps of the finding whose boxes cover a cell."""
        return self._of_others(self.covered, np.mean)

    def _of_others(self, values: np.ndarray, statistic: Callable[..., Any]) -> np.ndarray:
        """Per map a statistic of `values (n, …)` over other patients' maps of its finding; 0 without any."""
        found = np.zeros_like(values)
        for finding in np.unique(self.findings):
            maps = np.flatnonzero(self.findings == finding)
            for patient in np.unique(self.patients[maps]):
                own = self.patients[maps] == patient
                found[maps[own]] = statistic(values[maps[~own]], axis=0) if (~own).any() else 0.0
        return found

    def mean_map_hits(self, settings: BoxSettings) -> Hits:
        """Hits of the mean map's boxes, by the method's own rules."""
        pairs = zip(self.mean_maps, self.findings, strict=True)
        return self.hits_of([boxes_of_cells(cells, int(finding), settings) for cells, finding in pairs])

    def pixel_aurocs(self) -> dict[str, np.ndarray]:
        """[`pixel_auroc`] of each map and of its baselines, each `(n,)`: `own`, `swapped`, `mean_map`, `mean_mask`."""
        aurocs = {
            name: np.array([pixel_auroc(one, inside) for one, inside in zip(maps, self.covered, strict=True)])
            for name, maps in (("own", self.cells), ("mean_map", self.mean_maps), ("mean_mask", self.mean_masks))
        }
        return aurocs | {"swapped": self._swapped_aurocs()}

    def _swapped_aurocs(self) -> np.ndarray:
        """Mean [`pixel_auroc`] of other patients' maps of the finding on each image: `(n,)`."""
        means = np.full(len(self.findings), np.nan)
        for finding in np.unique(self.findings):
            maps = np.flatnonzero(self.findings == finding)
            crossed = np.stack([pixel_auroc(self.cells[i], self.covered[maps]) for i in maps], axis=1)
            other = self.patients[maps][:, None] != self.patients[maps]
            counts = other.sum(axis=1)
            sums = np.where(other, crossed, 0.0).sum(axis=1)
            means[maps] = np.divide(sums, counts, out=np.full(len(maps), np.nan), where=counts > 0)
        return means

    def sides(self) -> dict[str, np.ndarray]:
        """Whether maps of one-sided images have more mass on the side of the boxes, each `(n,)` float64.

        `raw` is 1 if the half of the image with the boxes has more of the map, 0 if the other half has, .5 in a tie,
        NaN if the boxes are not one-sided, see `ONE_SIDED`; `relative` is the same after subtracting the median of
        log(left / right) over other patients' maps of the finding.
        """
        left, right = _halves(self.covered)
        one_sided = np.maximum(left, right) >= ONE_SIDED * np.minimum(left, right)
        mass_left, mass_right = _halves(self.cells)
        lean = np.log(np.maximum(mass_left, 1e-12)) - np.log(np.maximum(mass_right, 1e-12))
        usual = self._of_others(lean, np.median)
        wanted = np.sign(left - right)
        named = {"raw": lean, "relative": lean - usual}
        return {name: np.where(one_sided, (np.sign(value) * wanted + 1) / 2, np.nan) for name, value in named.items()}


def _halves(cells: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sums `(n,)` over the left and the right half of grids `(n, h, w)`."""
    middle = cells.shape[2] // 2
    return cells[:, :, :middle].sum(axis=(1, 2)), cells[:, :, middle:].sum(axis=(1, 2))


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if len(values) else float("nan")


@dataclass(frozen=True)
class Figures:
    """Figures per finding, as their mean and over all rows, with intervals by patient.

    Attributes:
        counts: `(F,)` int, rows of each finding.
        values: `(F + 2, C)`: the mean of each finding, their mean, and the mean of all rows; NaN without rows.
        intervals: Of `values`.
    """

    counts: np.ndarray
    values: np.ndarray
    intervals: Interval


def figures_by_patient(
    values: np.ndarray,
    findings: np.ndarray,
    patients: np.ndarray,
    num_findings: int,
    repeats: int = 1000,
    seed: int = 0,
) -> Figures:
    """Means of values per finding, over the findings and over all rows, with bootstrap intervals by patient.

    For a paired comparison of two methods, pass row-wise differences as `values`.

    Args:
        values: `(n, C)`; a row with NaN is left out.
        findings: `(n,)` int.
        patients: `(n,)`.
        num_findings: F.
        repeats: Number of bootstrap samples.
        seed: Seed of the bootstrap.
    """
    kept = ~np.isnan(values).any(axis=1)
    values, findings, patients = values[kept], findings[kept], patients[kept]
    found = shares_per_finding(findings, values, num_findings)
    statistic = figures_of_rows(findings, values, num_findings)
    shape = (num_findings + 2, values.shape[1])
    interval = bootstrap_by_patient(statistic, patients, repeats, seed, shape)
    return Figures(found.counts, np.vstack([found.shares, found.macro, found.pooled]), interval)


@dataclass(frozen=True, eq=False)
class Froc:
    """Sensitivity against false boxes per image, as all score thresholds move together.

    Every finding's threshold is shifted by the same offset, one per point, on the logit scale.

    Attributes:
        sensitivity: `(p, len(COMPARED_LEVELS))` share of annotated boxes hit by a shown box with IoU > t.
        false_boxes: `(p, len(COMPARED_LEVELS))` shown boxes per image that are false at t: boxes of absent findings,
            and boxes of findings with annotated boxes that hit none with IoU > t. Findings that are present without
            annotated boxes, or not annotated, are ignored.
        at_threshold: Index of the offset 0: the thresholds of users.
    """

    sensitivity: np.ndarray
    false_boxes: np.ndarray
    at_threshold: int


def froc(records: Sequence[ImageRecord], score_thresholds: Sequence[float] | np.ndarray, points: int = 60) -> Froc:
    """FROC curve of the findings with annotated boxes, with at most `points` offsets from thresholds `(F,)` of users.

    Raises:
        ValueError: Not all maps of a record were measured.

    Source: Bunch et al., "A free response approach to the measurement and characterization of radiographic observer
    performance", Proc. SPIE 127 (1977) 124–135.
    """
    if any(record.box_counts is None for record in records):
        raise ValueError("`records` must have `box_counts`, got some without. Evaluate with maps='all'.")
    margins = _logit(np.stack([record.scores for record in records])) - _logit(np.asarray(score_thresholds))
    table = annotated_boxes(records)
    rows = {record.name: row for row, record in enumerate(records)}
    box_margin = np.array([margins[rows[name], f] for name, f in zip(table.images, table.findings, strict=True)])
    met = table.iou[:, -1, None] > COMPARED_LEVELS
    boxed = np.unique(table.findings)
    false = np.zeros((len(records), table.num_findings, len(COMPARED_LEVELS)))
    for row, record in enumerate(records):
        absent = record.labels == 0
        false[row, absent] = np.asarray(record.box_counts)[absent, None]
        for one in record.annotations:
            best = box_iou(one.own, one.boxes).max(axis=1, initial=0.0)
            false[row, one.finding] = (best[:, None] <= COMPARED_LEVELS).sum(axis=0)
    offsets = np.unique(np.append(np.quantile(margins[:, boxed], np.linspace(0, 1, points - 1)), 0.0))
    sensitivity = [(met & (box_margin >= offset)[:, None]).mean(axis=0) for offset in offsets]
    shown = [(margins >= offset)[:, boxed, None] for offset in offsets]
    false_boxes = [(false[:, boxed] * one).sum(axis=(0, 1)) / len(records) for one in shown]
    return Froc(np.array(sensitivity), np.array(false_boxes), int(np.flatnonzero(offsets == 0)[0]))


def _logit(scores: np.ndarray) -> np.ndarray:
    inside = np.clip(scores, 1e-12, 1 - 1e-12)
    return np.log(inside) - np.log1p(-inside)
