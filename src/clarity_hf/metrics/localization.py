# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Localization metrics of boxes, masks and points, and the measurement of one map for a record.

Boxes are xyxy, right and bottom exclusive, all in the same frame. Overlaps must **exceed** a level, as in Wang et al.
(CVPR 2017), except in [`max_box_accuracy`].
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from clarity_hf.boxes import Letterbox, UpsampledMap, box_area, box_iou, map_over_image

from .records import MAP_CELLS, MAP_THRESHOLDS, MAX_BOX_THRESHOLDS, WANG_THRESHOLDS, AnnotationRecord

LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
"""IoU thresholds t of T(IoU)."""

IOBB_LEVELS = (0.1, 0.25, 0.5)
"""IoBB thresholds t of T(IoBB)."""

CANDIDATE_THRESHOLDS = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7)
"""Shares of a map's peak tried by [`tune_map_thresholds`]; records contain more."""


@dataclass(frozen=True)
class BoxSettings:
    """How a method's scores and maps become the findings and boxes that a user sees.

    Attributes:
        score_thresholds: `(F,)` in [0, 1]; a finding is present from its threshold.
        map_thresholds: `(F,)` in (0, 1), shares of a map's peak.
        components: `"largest"` region of a map or `"all"`.
        upsampling: Factor from the map's grid to the grid on which it is thresholded.
        valleys: `(F,)` in [0, 1], shares of the lower of two peaks: where a map falls below it, a region is split
            between them; None leaves connected regions whole.
        box_score_thresholds: `(F,)`, the score from which a finding gets boxes, infinity for never; None is
            `score_thresholds`.
    """

    score_thresholds: Sequence[float]
    map_thresholds: Sequence[float]
    components: Literal["largest", "all"] = "largest"
    upsampling: int = 8
    valleys: Sequence[float] | None = None
    box_score_thresholds: Sequence[float] | None = None

    @classmethod
    def of_config(cls, config: Any) -> BoxSettings:
        """Those of a [`ClarityConfig`]."""
        return cls(
            config.per_finding("score_thresholds"),
            config.per_finding("map_thresholds"),
            config.box_components,
            config.box_upsampling,
            config.per_finding("box_valleys"),
            [row[0] for row in config.box_settings()],
        )

    @property
    def boxed_from(self) -> np.ndarray:
        """`(F,)`, the score from which a finding gets boxes."""
        return np.asarray(self.score_thresholds if self.box_score_thresholds is None else self.box_score_thresholds)

    def rule(self, finding: int) -> tuple[float, Literal["largest", "all"], int, float]:
        """Threshold, components, upsampling and valley of a finding, as [`boxes_from_map`] takes them."""
        valley = 0.0 if self.valleys is None else self.valleys[finding]
        return self.map_thresholds[finding], self.components, self.upsampling, valley


@dataclass(frozen=True)
class PerFinding:
    """A figure of n rows, such as the share of annotated boxes found: its means per finding, over findings and pooled.

    The figure may have several columns, such as one per level of T(IoU): L is then their number, otherwise absent.

    Attributes:
        counts: `(F,)` int, number of rows, such as annotated boxes or maps.
        shares: `(F, L)` float64, the mean of each finding; NaN without rows.
        macro: `(L,)` mean over the findings with rows; NaN without any.
        pooled: `(L,)` mean of all rows, whatever their finding; NaN without any.
    """

    counts: np.ndarray
    shares: np.ndarray
    macro: Any
    pooled: Any


def shares_per_finding(findings: np.ndarray, values: np.ndarray, num_findings: int) -> PerFinding:
    """Means of values `(n,)` or `(n, L)` of rows whose findings are `(n,)` int, indices of F findings."""
    values = np.asarray(values)
    columns = values.reshape(len(values), math.prod(values.shape[1:]))
    counts = np.bincount(findings, minlength=num_findings)
    sums = [np.bincount(findings, weights=column, minlength=num_findings) for column in columns.T]
    totals = np.reshape(sums, (-1, num_findings)).T
    shares = np.full(totals.shape, np.nan)
    np.divide(totals, counts[:, None], out=shares, where=counts[:, None] > 0)
    undefined = np.full(totals.shape[1], np.nan)
    macro = shares[counts > 0].mean(axis=0) if len(findings) else undefined
    pooled = totals.sum(axis=0) / len(findings) if len(findings) else undefined
    if values.ndim == 1:
        return PerFinding(counts, shares[:, 0], float(macro[0]), float(pooled[0]))
    return PerFinding(counts, shares, macro, pooled)


def figures_of_rows(findings: np.ndarray, values: np.ndarray, num_findings: int) -> Callable[[np.ndarray], np.ndarray]:
    """Statistic for the bootstrap: from rows to the means of `values` `(n, L)` over them, `(F + 2, L)`.

    The last two are macro and pooled. The macro mean is always over the findings that have rows in `findings`, and NaN
    for a sample without one of them.
    """
    averaged = np.bincount(findings, minlength=num_findings) > 0

    def of(rows: np.ndarray) -> np.ndarray:
        found = shares_per_finding(findings[rows], values[rows], num_findings)
        return np.vstack([found.shares, found.shares[averaged].mean(axis=0), found.pooled])

    return of


def best_overlaps(annotated: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Best IoU of each annotated box `(m, 4)` with a predicted one: `(m,)` in [0, 1], 0 without any."""
    return box_iou(annotated, predicted).max(axis=1, initial=0.0)


def box_iobb(annotated: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Intersection over the area of the **predicted** box, for every pair.

    A predicted box inside the annotated one has 1, however small it is, so read this figure together with T(IoU).
    `(m, 4)` and `(n, 4)` give `(m, n)` float64 in [0, 1]; 0 for a predicted box without area.

    Source: Wang et al., "ChestX-ray8", CVPR 2017, section 5.3.
    """
    annotated, predicted = np.asarray(annotated, dtype=np.float64), np.asarray(predicted, dtype=np.float64)
    low = np.maximum(annotated[:, None, :2], predicted[None, :, :2])
    high = np.minimum(annotated[:, None, 2:], predicted[None, :, 2:])
    intersection = np.prod(np.clip(high - low, 0, None), axis=-1)
    area = np.broadcast_to(box_area(predicted)[None], intersection.shape)
    return np.divide(intersection, area, out=np.zeros_like(intersection), where=area > 0)


def _inside(boxes: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Boolean `(len(y), len(x))`: whether the points of a grid lie in any of the boxes."""
    columns = (x >= boxes[:, 0, None]) & (x < boxes[:, 2, None])
    rows = (y >= boxes[:, 1, None]) & (y < boxes[:, 3, None])
    return np.any(rows[:, :, None] & columns[:, None, :], axis=0)


def max_box_accuracy(overlaps: np.ndarray, levels: Sequence[float] = (0.5,)) -> float:
    """MaxBoxAcc, or MaxBoxAccV2 for several levels: the accuracy at the best threshold.

    For each level, the threshold is used at which most maps reach an IoU **≥** the level; then levels are averaged.
    The threshold is chosen on the scored images, so this is an upper bound, only for comparing methods with each
    other.

    Args:
        overlaps: `(n, thresholds)`, best IoU of each map's boxes with the annotated ones, at each threshold.
        levels: `(0.5,)` for MaxBoxAcc, with the box of the largest region; `(0.3, 0.5, 0.7)` for MaxBoxAccV2, with a
            box for every region.

    Source: Choe et al., "Evaluating weakly supervised object localization methods right", CVPR 2020;
    https://github.com/clovaai/wsolevaluation, evaluation.py.
    """
    overlaps = np.asarray(overlaps, dtype=np.float64)
    if len(overlaps) == 0:
        return float("nan")
    return float(np.mean([(overlaps >= level).mean(axis=0).max() for level in levels]))


def measure_map(
    localization_map: np.ndarray,
    letterbox: Letterbox,
    boxes: np.ndarray,
    own_threshold: float,
    own_components: Literal["largest", "all"] = "largest",
    upsampling: int = 8,
    valley: float = 0.0,
    *,
    finding: int,
) -> AnnotationRecord:
    """Measure one map and its annotated boxes for a record; a map of zeros has no box, overlap or hit.

    Only the image counts, not the padding. Areas of masks are exact, because cells of the working grid are cut at the
    edges of boxes. The pointing game uses the centre of the cell with the largest value, the first by rows in a tie.

    Args:
        localization_map: `(h, w)` values ≥ 0 on a grid over the complete input.
        letterbox: Position of the image in that input.
        boxes: `(m, 4)` annotated boxes of the finding, m ≥ 1, in pixels of the image.
        own_threshold: The method's own share of the peak, in (0, 1).
        own_components: The method's own choice of regions, see [`boxes_from_map`].
        upsampling: Integer factor from the map's grid to the working grid.
        valley: Where to split regions between peaks, see [`boxes_from_map`]. Regions of Wang and MaxBoxAcc are not
            split and include specks, as published.
        finding: Index of the finding.

    Raises:
        ValueError: The map is not 2-D or not finite, `boxes` is not (m, 4) of boxes with an area, or the threshold or
            components are unknown.
    """
    boxes = np.asarray(boxes, dtype=np.float64)
    if boxes.ndim != 2 or boxes.shape[1] != 4 or len(boxes) == 0 or not (box_area(boxes) > 0).all():
        raise ValueError(
            f"`boxes` must be (m, 4) with m ≥ 1 and positive areas, got shape {boxes.shape}. Leave out findings "
            "without annotated boxes."
        )
    _check_threshold("own_threshold", own_threshold)
    working = UpsampledMap.of(localization_map, letterbox, upsampling)
    peak = working.peak
    return AnnotationRecord(
        finding=finding,
        boxes=boxes,
        own=working.boxes(own_threshold * peak, own_components, valley),
        regions=tuple(working.boxes(threshold * peak, "all", valley) for threshold in MAP_THRESHOLDS),
        mask_ious=_mask_ious(working, boxes, [threshold * peak for threshold in MAP_THRESHOLDS]),
        hit=_points_into(working, boxes),
        wang_regions=_wang_regions(working),
        max_box_ious=_max_box_ious(working, boxes),
        cells=map_over_image(localization_map, letterbox, (MAP_CELLS, MAP_CELLS)),
    )


def _check_threshold(name: str, threshold: float) -> None:
    if not 0 < threshold < 1:
        raise ValueError(f"`{name}` must be inside (0, 1), got {threshold}. Pass a share of the map's peak.")


def _mask_ious(working: UpsampledMap, boxes: np.ndarray, levels: Sequence[float]) -> np.ndarray:
    """IoU of the map above each level with the filled boxes, over the image: `(len(levels),)`."""
    height, width = working.letterbox.image
    x, y = working.edges()
    # Finer grid whose cells are not cut by edges of the working grid or of boxes.
    columns = np.unique(np.concatenate([x, np.clip(boxes[:, 0::2].ravel(), 0, width)]))
    rows = np.unique(np.concatenate([y, np.clip(boxes[:, 1::2].ravel(), 0, height)]))
    middle_x, middle_y = (columns[1:] + columns[:-1]) / 2, (rows[1:] + rows[:-1]) / 2
    # Rounding may put the outer edges just inside the image; points beyond them belong to the outer cells.
    at_x = np.clip(np.searchsorted(x, middle_x, side="right") - 1, 0, len(x) - 2)
    at_y = np.clip(np.searchsorted(y, middle_y, side="right") - 1, 0, len(y) - 2)
    values = working.values[np.ix_(at_y, at_x)]  # 0 over the padding
    areas = np.diff(rows)[:, None] * np.diff(columns)
    filled = _inside(boxes, middle_x, middle_y)
    ious = []
    for level in levels:
        marked = values > level
        union = areas[marked | filled].sum()
        ious.append(areas[marked & filled].sum() / union if union > 0 else np.nan)
    return np.array(ious)


def _points_into(working: UpsampledMap, boxes: np.ndarray) -> bool:
    if working.peak <= 0:
        return False
    row, column = np.unravel_index(int(working.values.argmax()), working.values.shape)
    x, y = working.edges()
    middle = x[column : column + 2].mean(keepdims=True), y[row : row + 2].mean(keepdims=True)
    return bool(_inside(boxes, *middle)[0, 0])


def _wang_regions(working: UpsampledMap) -> tuple[np.ndarray, ...]:
    """Boxes of all regions of the map scaled to [0, 255] over the image; none for a uniform map."""
    levels = _levels_between(working, np.array(WANG_THRESHOLDS) / 255)
    if levels is None:
        return tuple(np.zeros((0, 4)) for _ in WANG_THRESHOLDS)
    return tuple(working.boxes(level, "all", smallest=0) for level in levels)


def _max_box_ious(working: UpsampledMap, boxes: np.ndarray) -> np.ndarray:
    """Best IoU of the largest region's box, and of all regions' boxes: `(2, len(MAX_BOX_THRESHOLDS))`."""
    best = np.zeros((2, len(MAX_BOX_THRESHOLDS)))
    levels = _levels_between(working, np.array(MAX_BOX_THRESHOLDS))
    for column, level in enumerate(() if levels is None else levels):
        overlaps = box_iou(working.whole_regions(level), boxes).max(axis=1, initial=0.0)
        best[:, column] = overlaps[:1].max(initial=0.0), overlaps.max(initial=0.0)
    return best


def _levels_between(working: UpsampledMap, shares: np.ndarray) -> np.ndarray | None:
    """Levels at shares of the range from the map's minimum over the image to its peak; None for a uniform map."""
    low = float(working.values[working.inside].min(initial=np.inf))
    return None if working.peak <= 0 or working.peak <= low else low + shares * (working.peak - low)


def boxes_found(
    images: Iterable[tuple[int, np.ndarray, np.ndarray]], thresholds: Sequence[float] = LEVELS
) -> dict[int, tuple[int, np.ndarray]]:
    """T(IoU) without records: the share of annotated boxes hit by a predicted box of the finding with IoU > t.

    Args:
        images: Per (image, finding) a tuple of the finding's index, annotated boxes `(m, 4)` and predicted boxes
            `(n, 4)`, xyxy in the same frame.
        thresholds: IoU thresholds t.

    Returns:
        Per finding the number of annotated boxes and the shares `(len(thresholds),)` float64 in [0, 1], NaN for a
        finding without annotated boxes.
    """
    best: dict[int, list[float]] = {}
    for finding, annotated, predicted in images:
        best.setdefault(finding, []).extend(best_overlaps(annotated, predicted).tolist())
    limits, undefined = np.asarray(thresholds, dtype=np.float64), np.full(len(thresholds), np.nan)
    return {
        finding: (len(overlaps), (np.asarray(overlaps)[:, None] > limits).mean(axis=0) if overlaps else undefined)
        for finding, overlaps in sorted(best.items())
    }


def fixed_boxes(boxes: np.ndarray, k: int = 1) -> np.ndarray:
    """Fixed-box baseline: the k boxes that together guess best without seeing an image.

    Args:
        boxes: `(n, 4)` annotated boxes of one finding on the images to learn from, n ≥ 1, xyxy in the same frame.
        k: Number of boxes.

    Returns:
        `(min(k, n), 4)`, each one of `boxes`. The first has the highest mean IoU to all of them; each next one raises
        the mean over all boxes of the best IoU most.

    Raises:
        ValueError: There are no boxes.
    """
    if len(boxes) == 0:
        raise ValueError("`boxes` must hold at least one box, got none. Pass boxes of other images.")
    overlaps = box_iou(boxes, boxes)
    best, chosen = np.zeros(len(boxes)), []
    for _ in range(min(k, len(boxes))):
        chosen.append(int(np.maximum(overlaps, best).mean(axis=1).argmax()))
        best = np.maximum(best, overlaps[chosen[-1]])
    return np.asarray(boxes)[chosen]


def tune_map_thresholds(
    images: Iterable[tuple[int, np.ndarray, np.ndarray, Letterbox]],
    num_findings: int,
    candidates: Sequence[float] = CANDIDATE_THRESHOLDS,
    default: float = 0.5,
) -> np.ndarray:
    """Choose each finding's map threshold: the one with the highest mean IoU of annotated boxes with the map's box.

    Choose on validation images, never on the reported ones.

    Args:
        images: Per (image, finding) a tuple of the finding's index, annotated boxes `(m, 4)` xyxy in pixels of the
            image, localization map `(h, w)` and letterbox of the image.
        num_findings: F.
        candidates: Thresholds to try, each in (0, 1); the first wins a tie.
        default: Threshold of a finding without annotated boxes.

    Returns:
        `(F,)` float64.

    Raises:
        ValueError: A candidate is outside (0, 1), or a map is not 2-D or not finite.
    """
    for threshold in candidates:
        _check_threshold("candidates", threshold)
    overlaps: dict[int, list[np.ndarray]] = {}
    for finding, annotated, localization_map, letterbox in images:
        working = UpsampledMap.of(localization_map, letterbox)
        best = [best_overlaps(annotated, working.boxes(threshold * working.peak)) for threshold in candidates]
        overlaps.setdefault(finding, []).append(np.stack(best, axis=1))
    thresholds = np.full(num_findings, default)
    for finding, found in overlaps.items():
        thresholds[finding] = candidates[int(np.concatenate(found).mean(axis=0).argmax())]
    return thresholds
