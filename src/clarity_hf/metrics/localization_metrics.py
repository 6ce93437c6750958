# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Localization as local `evaluate.Metric` modules, which work offline and over processes.

A row is one finding of one image with annotated boxes: `predictions`, `references` and `findings`, the finding's
index. Boxes are xyxy, right and bottom exclusive, both in one frame; masks are rows of 0 and 1 of one shape. Results
are a mean over findings under the metric's name, the pooled figure with `_pooled`, and per finding the figure and the
number
it rests on: `t_iou_0.5`, `t_iou_0.5_pooled`, `t_iou_0.5_Mass`, `count_Mass`. Undefined is NaN.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import datasets
import evaluate
import numpy as np

from clarity_hf.boxes import box_iou

from .localization import (
    IOBB_LEVELS,
    LEVELS,
    best_overlaps,
    box_iobb,
    is_hit,
    mask_iou,
    max_box_accuracy,
    shares_per_finding,
)
from .protocol import WANG_IOBB_LEVELS

_BOXES = datasets.List(datasets.List(datasets.Value("float64"), length=4))
_MASK = datasets.List(datasets.List(datasets.Value("bool")))


class LocalizationMetric(evaluate.Metric):
    """What the metrics of this module share: findings, columns, and the names of results.

    A metric says its columns in `columns` and its figures in `figures`.

    Args:
        findings: Names by their index.
        kwargs: As for [`evaluate.Metric`], such as `num_process` and `process_id`.
    """

    columns: dict[str, Any] = {"predictions": _BOXES, "references": _BOXES}
    inputs = "predictions: (n, 4) drawn boxes; references: (m, 4) annotated boxes; findings: index of the finding."

    def __init__(self, findings: Sequence[str], **kwargs: Any):
        self.findings = list(findings)
        super().__init__(config_name="localization", **kwargs)

    def figures(self, findings: np.ndarray, columns: dict[str, list]) -> dict[str, float]:
        """Results by name.

        Args:
            findings: `(n,)` int.
            columns: The rows of every other column.
        """
        raise NotImplementedError

    def _info(self) -> evaluate.MetricInfo:
        features = datasets.Features({**self.columns, "findings": datasets.Value("int64")})
        return evaluate.MetricInfo(
            description=str(type(self).__doc__), citation="", inputs_description=self.inputs, features=features
        )

    def _compute(self, findings: Any, **columns: Any) -> dict[str, float]:
        indices = np.asarray(findings, dtype=np.int64)
        if len(indices) and not 0 <= indices.min() <= indices.max() < len(self.findings):
            raise ValueError(
                f"`findings` must be indices of the {len(self.findings)} findings, got {indices.min()} to "
                f"{indices.max()}. Give the metric all names."
            )
        return self.figures(indices, columns)

    def per_finding(
        self, findings: np.ndarray, values: Sequence[Any] | np.ndarray, names: Sequence[str]
    ) -> dict[str, float]:
        """Means of values by name: over findings, over all rows, and of each finding with its count.

        Args:
            findings: `(n,)` int.
            values: `(n, len(names))`.
            names: Of the figures.
        """
        rows = np.asarray(values, dtype=np.float64).reshape(-1, len(names))
        counts, shares, macro, pooled = shares_per_finding(findings, rows, len(self.findings))
        result: dict[str, float] = {}
        for column, name in enumerate(names):
            result |= {name: float(macro[column]), f"{name}_pooled": float(pooled[column])}
            result |= {f"{name}_{f}": float(share) for f, share in zip(self.findings, shares[:, column], strict=True)}
        return result | {f"count_{f}": int(count) for f, count in zip(self.findings, counts, strict=True)}

    def _found(
        self,
        findings: np.ndarray,
        columns: dict[str, list],
        overlap: Callable[..., np.ndarray],
        names: dict[str, float],
    ) -> dict[str, float]:
        """Shares of annotated boxes above the levels of `names`; every annotated box is a row."""
        pairs = [(_boxes(a), _boxes(d)) for a, d in zip(columns["references"], columns["predictions"], strict=True)]
        best = np.concatenate([np.zeros(0), *(best_overlaps(*pair, overlap) for pair in pairs)])
        of_each_box = np.repeat(findings, [len(annotated) for annotated, _ in pairs])
        return self.per_finding(of_each_box, best[:, None] > np.array(list(names.values())), list(names))


class TIou(LocalizationMetric):
    """T(IoU): the share of annotated boxes that a drawn box of the finding overlaps by IoU > t.

    Args:
        findings: Names by their index.
        levels: The t.
        kwargs: As for [`evaluate.Metric`].

    Example:
        >>> metric = TIou(["Mass"], levels=(0.5,))
        >>> metric.compute(predictions=[[[0, 0, 10, 9]]], references=[[[0, 0, 10, 10]]], findings=[0])["t_iou_0.5"]
        1.0
    """

    def __init__(self, findings: Sequence[str], levels: Sequence[float] = LEVELS, **kwargs: Any):
        self.levels = tuple(levels)
        super().__init__(findings, **kwargs)

    def figures(self, findings: np.ndarray, columns: dict[str, list]) -> dict[str, float]:
        """`t_iou_LEVEL` and its parts."""
        return self._found(findings, columns, box_iou, {f"t_iou_{level:g}": level for level in self.levels})


class TIobb(LocalizationMetric):
    """T(IoBB): as T(IoU), with intersection over the area of the drawn box; see [`box_iobb`].

    Args:
        findings: Names by their index.
        levels: The t.
        kwargs: As for [`evaluate.Metric`].
    """

    def __init__(self, findings: Sequence[str], levels: Sequence[float] = IOBB_LEVELS, **kwargs: Any):
        self.levels = tuple(levels)
        super().__init__(findings, **kwargs)

    def figures(self, findings: np.ndarray, columns: dict[str, list]) -> dict[str, float]:
        """`t_iobb_LEVEL` and its parts."""
        return self._found(findings, columns, box_iobb, {f"t_iobb_{level:g}": level for level in self.levels})


class WangLocalization(LocalizationMetric):
    """Wang et al. (CVPR 2017): right if a box of any of their two thresholds passes, and the false boxes per map.

    Predictions are the boxes of both thresholds together; see [`wang_protocol`].

    Args:
        findings: Names by their index.
        levels: The t of IoU.
        iobb_levels: The t of intersection over the drawn box.
        kwargs: As for [`evaluate.Metric`].
    """

    def __init__(
        self,
        findings: Sequence[str],
        levels: Sequence[float] = LEVELS,
        iobb_levels: Sequence[float] = WANG_IOBB_LEVELS,
        **kwargs: Any,
    ):
        self.levels, self.iobb_levels = tuple(levels), tuple(iobb_levels)
        super().__init__(findings, **kwargs)

    def figures(self, findings: np.ndarray, columns: dict[str, list]) -> dict[str, float]:
        """`wang_iou_LEVEL`, `wang_iobb_LEVEL`, and `wang_iou_false_boxes_LEVEL` and its like, and their parts."""
        result: dict[str, float] = {}
        for kind, overlap, levels in (("iou", box_iou, self.levels), ("iobb", box_iobb, self.iobb_levels)):
            pairs = zip(columns["references"], columns["predictions"], strict=True)
            best = [overlap(_boxes(annotated), _boxes(drawn)).max(axis=0, initial=0.0) for annotated, drawn in pairs]
            false = [(one[:, None] <= np.array(levels)).sum(axis=0) for one in best]
            result |= self.per_finding(findings, false, [f"wang_{kind}_false_boxes_{level:g}" for level in levels])
            result |= self._found(findings, columns, overlap, {f"wang_{kind}_{level:g}": level for level in levels})
        return result  # the counts are of annotated boxes, the last written


class HamMaskIou(LocalizationMetric):
    """Mask IoU of a thresholded map with the filled annotated boxes: its mean and the shares above levels.

    Not T(IoU), which is of boxes: see [`ham_mask_iou`]. [`filled_boxes`] makes a mask of boxes.

    Args:
        findings: Names by their index.
        levels: What the mask IoU shall exceed.
        kwargs: As for [`evaluate.Metric`].
    """

    columns = {"predictions": _MASK, "references": _MASK}
    inputs = "predictions: (h, w) of 0 and 1; references: filled boxes, the same shape; findings: its index."

    def __init__(self, findings: Sequence[str], levels: Sequence[float] = LEVELS, **kwargs: Any):
        self.levels = tuple(levels)
        super().__init__(findings, **kwargs)

    def figures(self, findings: np.ndarray, columns: dict[str, list]) -> dict[str, float]:
        """`mask_iou` and `mask_iou_above_LEVEL`, and their parts."""
        ious = np.array([mask_iou(*pair) for pair in zip(columns["predictions"], columns["references"], strict=True)])
        above = ious[:, None] > np.array(self.levels)
        names = ["mask_iou", *(f"mask_iou_above_{level:g}" for level in self.levels)]
        return self.per_finding(findings, np.column_stack([ious, above]), names)


class ChexlocalizeMiou(LocalizationMetric):
    """CheXlocalize's mIoU: mean IoU of masks over true positives, a mask being empty below a probability cut-off.

    Counts are of true positives: both masks hold something, and the score reaches its cut-off.

    Args:
        findings: Names by their index.
        cutoffs: `(F,)` probabilities, chosen on other images; None empties no mask.
        kwargs: As for [`evaluate.Metric`].

    Raises:
        ValueError: There is not one cut-off per finding.
    """

    columns = {"predictions": _MASK, "references": _MASK, "scores": datasets.Value("float64")}
    inputs = HamMaskIou.inputs + " scores: the finding's probability."

    def __init__(self, findings: Sequence[str], cutoffs: Sequence[float] | None = None, **kwargs: Any):
        self.cutoffs = np.zeros(len(findings)) if cutoffs is None else np.asarray(cutoffs, dtype=np.float64)
        if self.cutoffs.shape != (len(findings),):
            raise ValueError(f"`cutoffs` must be ({len(findings)},), got {self.cutoffs.shape}. Give one per finding.")
        super().__init__(findings, **kwargs)

    def figures(self, findings: np.ndarray, columns: dict[str, list]) -> dict[str, float]:
        """`miou` and its parts."""
        pairs = list(zip(columns["predictions"], columns["references"], strict=True))
        shown = np.asarray(columns["scores"], dtype=np.float64) >= self.cutoffs[findings]
        whole = np.array([np.any(mask) and np.any(truth) for mask, truth in pairs], dtype=bool)
        rows = np.flatnonzero(shown & whole)
        return self.per_finding(findings[rows], [mask_iou(*pairs[row]) for row in rows], ["miou"])


class PointingGame(LocalizationMetric):
    """Hit rate: whether the point of a map's largest value lies in an annotated box; see [`is_hit`].

    Args:
        findings: Names by their index.
        kwargs: As for [`evaluate.Metric`].
    """

    columns = {"predictions": datasets.List(datasets.Value("float64"), length=2), "references": _BOXES}
    inputs = "predictions: x and y; references: (m, 4) annotated boxes; findings: index of the finding."

    def figures(self, findings: np.ndarray, columns: dict[str, list]) -> dict[str, float]:
        """`hit_rate` and its parts."""
        pairs = zip(columns["predictions"], columns["references"], strict=True)
        return self.per_finding(findings, [is_hit(point, _boxes(boxes)) for point, boxes in pairs], ["hit_rate"])


class MaxBoxAcc(LocalizationMetric):
    """MaxBoxAcc: IoU ≥ .5 with the box of the largest region, at the threshold that suits the data best.

    The pooled figure has one threshold for all findings and is the published one; the others have one a finding. See
    [`max_box_accuracy`].

    Args:
        findings: Names by their index.
        kwargs: As for [`evaluate.Metric`].
    """

    columns = {"predictions": datasets.List(_BOXES), "references": _BOXES}
    inputs = "predictions: per threshold (n, 4) boxes; references: (m, 4) annotated boxes; findings: its index."
    levels: tuple[float, ...] = (0.5,)
    result_name = "max_box_acc"

    def figures(self, findings: np.ndarray, columns: dict[str, list]) -> dict[str, float]:
        """`max_box_acc` or `max_box_acc_v2`, and its parts.

        Raises:
            ValueError: Rows have boxes at different numbers of thresholds.
        """
        pairs = zip(columns["references"], columns["predictions"], strict=True)
        best = [[best_overlaps(_boxes(a), _boxes(drawn)).max(initial=0.0) for drawn in each] for a, each in pairs]
        if len({len(row) for row in best}) > 1:
            raise ValueError(
                f"`predictions` must have boxes at the same thresholds in every row, got "
                f"{sorted({len(row) for row in best})} thresholds. Give an empty list where nothing is drawn."
            )
        rows, name = np.array(best, dtype=np.float64), self.result_name
        shares = [max_box_accuracy(rows[findings == finding], self.levels) for finding in range(len(self.findings))]
        counts = np.bincount(findings, minlength=len(self.findings))
        result = {name: float(np.nanmean(shares)) if len(findings) else float("nan")}
        result |= {f"{name}_pooled": max_box_accuracy(rows, self.levels)}
        result |= {f"{name}_{finding}": share for finding, share in zip(self.findings, shares, strict=True)}
        return result | {f"count_{finding}": int(n) for finding, n in zip(self.findings, counts, strict=True)}


class MaxBoxAccV2(MaxBoxAcc):
    """MaxBoxAccV2: predictions hold the boxes of **all** regions, and IoU ≥ .3, .5 and .7 are averaged.

    Args:
        findings: Names by their index.
        kwargs: As for [`evaluate.Metric`].
    """

    levels = (0.3, 0.5, 0.7)
    result_name = "max_box_acc_v2"


def _boxes(rows: Any) -> np.ndarray:
    return np.asarray(rows, dtype=np.float64).reshape(-1, 4)
