# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Other published protocols: pointing game, MaxBoxAcc, HAM's masks, Wang's boxes, CheXlocalize's mIoU."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from clarity_hf.boxes import box_iou

from .bootstrap import Interval, bootstrap_by_patient, part_of
from .localization import LEVELS, Found, box_iobb, found_shares, max_box_accuracy, shares_per_finding
from .matching import (
    DEFAULT_MAP_THRESHOLD,
    Overlaps,
    annotated_boxes,
    annotated_maps,
    count_findings,
    per_finding,
    threshold_columns,
)
from .protocols import youden_of
from .records import MAP_THRESHOLDS, ImageRecord

WANG_IOBB_LEVELS = (0.1, 0.25, 0.5, 0.75, 0.9)
"""IoBB thresholds t in the table of Wang et al."""


@dataclass(frozen=True)
class Rates:
    """A share of annotated (image, finding) pairs, such as of hits.

    Attributes:
        counts: `(F,)` int, annotated pairs.
        shares: `(F,)` float64 in [0, 1]; NaN without pairs.
        macro: Mean over the findings with pairs.
        pooled: Share of all pairs, whatever their finding.
    """

    counts: np.ndarray
    shares: np.ndarray
    macro: float
    pooled: float


def pointing_game(records: Sequence[ImageRecord]) -> Rates:
    """Hit rate: the share of maps whose largest value lies in an annotated box.

    Source: Zhang et al., "Top-down neural attention by excitation backprop", ECCV 2016; here without their tolerance
    of 15 pixels, as in CheXlocalize's hit rate.
    """
    findings, hits = _per_map([(one.finding, one.hit) for _, one in annotated_maps(records)])
    counts, shares, macro, pooled = shares_per_finding(findings, hits[:, None], count_findings(records))
    return Rates(counts, shares[:, 0], float(macro[0]), float(pooled[0]))


def max_box_acc(records: Sequence[ImageRecord]) -> Rates:
    """MaxBoxAcc: the box of the largest region at IoU ≥ .5, at the best threshold; [`max_box_accuracy`].

    As published: the map is scaled to [0, 1], connected regions are never split, the largest is the one with the most
    pixels, a map is correct if it hits any of its annotated boxes, and thresholds are those of
    `MAX_BOX_THRESHOLDS`. `pooled` has one threshold for all findings, which is the published definition; `shares` have
    one each.
    """
    return _max_box(records, 0, (0.5,))


def max_box_acc_v2(records: Sequence[ImageRecord]) -> Rates:
    """MaxBoxAccV2: every region has a box, and IoU ≥ .3, .5 and .7 are averaged; otherwise as [`max_box_acc`]."""
    return _max_box(records, 1, (0.3, 0.5, 0.7))


def _max_box(records: Sequence[ImageRecord], row: int, levels: tuple[float, ...]) -> Rates:
    pairs = list(annotated_maps(records))
    best = np.array([one.max_box_ious[row] for _, one in pairs]).reshape(len(pairs), -1)
    findings = np.array([one.finding for _, one in pairs], dtype=np.int64)
    num_findings = count_findings(records)
    counts = np.bincount(findings, minlength=num_findings)
    shares = np.array([max_box_accuracy(best[findings == finding], levels) for finding in range(num_findings)])
    macro = float(shares[counts > 0].mean()) if len(pairs) else float("nan")
    return Rates(counts, shares, macro, max_box_accuracy(best, levels))


@dataclass(frozen=True)
class MaskOverlap:
    """IoU of masks, not of boxes.

    Attributes:
        threshold: Share of the peak, the same for all findings.
        found: Shares of maps whose mask IoU exceeds each level; its counts are of maps.
        means: `(F,)` mean mask IoU; NaN without maps.
        macro: Mean of `means`.
    """

    threshold: float
    found: Found
    means: np.ndarray
    macro: float


def ham_mask_iou(
    records: Sequence[ImageRecord], threshold: float = 0.5, levels: Sequence[float] = LEVELS
) -> MaskOverlap:
    """Mask IoU of the map above one fixed threshold with the filled annotated boxes, for every annotated map.

    Source: the protocol of Ouyang et al., "Learning hierarchical attention for weakly-supervised chest X-ray
    abnormality localization and diagnosis", IEEE TMI 40 (2021) 2698–2710.
    """
    num_findings = count_findings(records)
    column = int(threshold_columns(np.full(num_findings, threshold), num_findings)[0])
    findings, ious = _per_map([(one.finding, one.mask_ious[column]) for _, one in annotated_maps(records)])
    _, means, macro, _ = shares_per_finding(findings, ious[:, None], num_findings)
    return MaskOverlap(threshold, found_shares(findings, ious, num_findings, levels), means[:, 0], float(macro[0]))


def _per_map(pairs: Sequence[tuple[int, float]]) -> tuple[np.ndarray, np.ndarray]:
    """Findings `(n,)` int and values `(n,)` float64 of maps."""
    columns = np.array(pairs, dtype=np.float64).reshape(-1, 2)
    return columns[:, 0].astype(np.int64), columns[:, 1]


@dataclass(frozen=True)
class WangProtocol:
    """Figures of Wang et al.: boxes at two fixed thresholds, and false boxes.

    Attributes:
        iou: Overlaps by IoU, of the boxes of both thresholds together.
        iobb: Overlaps by intersection over the predicted box.
        levels: The t of IoU at which false boxes are counted.
        iobb_levels: The t of intersection over the predicted box at which false boxes are counted.
        false_boxes: `(F, len(levels))` predicted boxes per annotated map that do not exceed t with any annotated box;
            NaN without maps.
        false_boxes_iobb: `(F, len(iobb_levels))` the same by intersection over the predicted box.
    """

    iou: Overlaps
    iobb: Overlaps
    levels: tuple[float, ...]
    iobb_levels: tuple[float, ...]
    false_boxes: np.ndarray
    false_boxes_iobb: np.ndarray


def wang_protocol(
    records: Sequence[ImageRecord],
    levels: Sequence[float] = LEVELS,
    iobb_levels: Sequence[float] = WANG_IOBB_LEVELS,
) -> WangProtocol:
    """Scale the map to [0, 255] and box each region above 60 and above 180; a hit if any box passes.

    Nothing is tuned or filtered by score. False boxes are counted on the maps of annotated findings, as published.

    Source: Wang et al., "ChestX-ray8", CVPR 2017, section 5.3.
    """
    table = annotated_boxes(records)
    maps = [(one.boxes, np.concatenate(one.wang_regions)) for _, one in annotated_maps(records)]
    predicted = np.array([len(found) for annotated, found in maps for _ in annotated], dtype=np.int64)
    findings = table.findings[table.first]

    def measured(
        measure: Callable[[np.ndarray, np.ndarray], np.ndarray], limits: Sequence[float]
    ) -> tuple[Overlaps, np.ndarray]:
        overlaps = [measure(annotated, found) for annotated, found in maps]
        best = np.concatenate([np.zeros(0), *(one.max(axis=1, initial=0.0) for one in overlaps)])
        false = [(one.max(axis=0)[:, None] <= np.asarray(limits)).sum(axis=0) for one in overlaps]
        per_map = np.array(false, dtype=np.float64).reshape(-1, len(limits))
        return table.overlaps(best, predicted), shares_per_finding(findings, per_map, table.num_findings)[1]

    iou, false_boxes = measured(box_iou, levels)
    iobb, false_boxes_iobb = measured(box_iobb, iobb_levels)
    return WangProtocol(iou, iobb, tuple(levels), tuple(iobb_levels), false_boxes, false_boxes_iobb)


@dataclass(frozen=True)
class SegmentationScore:
    """CheXlocalize's mIoU.

    Attributes:
        thresholds: `(F,)` map thresholds, chosen on the tuning images.
        cutoffs: `(F,)` score cut-offs below which a mask is empty.
        annotated: `(F,)` int, annotated maps.
        counts: `(F,)` int, true positives: annotated maps whose mask is not empty.
        miou: `(F,)` mean mask IoU over true positives; NaN without any.
        macro: Mean over the findings with true positives.
        full_miou: `(F,)` mean over all annotated maps, an empty mask counting 0; NaN without any.
        intervals: Intervals of `miou`, by patient.
        macro_interval: Interval of `macro`, over the same findings in every bootstrap sample.
    """

    thresholds: np.ndarray
    cutoffs: np.ndarray
    annotated: np.ndarray
    counts: np.ndarray
    miou: np.ndarray
    macro: float
    full_miou: np.ndarray
    intervals: Interval
    macro_interval: Interval


def chexlocalize_miou(
    tuning: Sequence[ImageRecord],
    scoring: Sequence[ImageRecord],
    cutoffs: Sequence[float] | np.ndarray | None = None,
    repeats: int = 1000,
    seed: int = 0,
) -> SegmentationScore:
    """Mean IoU of masks over true positives, thresholds from the tuning images, with an interval by patient.

    Thresholds are the `MAP_THRESHOLDS` of the highest mean mask IoU. Masks are compared with **filled boxes**,
    where CheXlocalize has drawn contours: use it to compare methods, not with its published figures.

    Args:
        tuning: Images on which thresholds, and cut-offs where none are given, are chosen.
        scoring: Images that are scored.
        cutoffs: `(F,)` probabilities below which the mask is empty; None for Youden's on the tuning images.
        repeats: Number of bootstrap samples.
        seed: Seed of the bootstrap.

    Source: Saporta et al., "Benchmarking saliency methods for chest X-ray interpretation", Nature Machine Intelligence
    4 (2022) 867–878; https://github.com/rajpurkarlab/cheXlocalize, eval.py and tune_heatmap_threshold.py.
    """
    num_findings = count_findings([*tuning, *scoring])
    cutoffs = per_finding("cutoffs", youden_of(tuning) if cutoffs is None else cutoffs, num_findings)
    thresholds = _tuned_for_masks(_Masks.of(tuning), num_findings)
    masks = _Masks.of(scoring)
    findings, rows = masks.findings, np.arange(len(masks.findings))
    positive = masks.marked & (masks.scores >= cutoffs[findings])
    iou = np.where(positive, masks.ious[rows, threshold_columns(thresholds, num_findings)[findings]], 0.0)
    counts = np.bincount(findings[positive], minlength=num_findings)
    averaged = counts > 0

    def means(sample: np.ndarray) -> np.ndarray:
        kept = sample[positive[sample]]
        of_each = shares_per_finding(findings[kept], iou[kept, None], num_findings)[1][:, 0]
        return np.append(of_each, of_each[averaged].mean() if averaged.any() else np.nan)

    interval = bootstrap_by_patient(means, masks.patients, repeats, seed, shape=(num_findings + 1,))
    annotated, full = shares_per_finding(findings, iou[:, None], num_findings)[:2]
    return SegmentationScore(
        thresholds=thresholds,
        cutoffs=cutoffs,
        annotated=annotated,
        counts=counts,
        miou=means(rows)[:-1],
        macro=float(means(rows)[-1]),
        full_miou=full[:, 0],
        intervals=part_of(interval, slice(None, -1)),
        macro_interval=part_of(interval, -1),
    )


@dataclass(frozen=True, eq=False)
class _Masks:
    """Mask IoU `ious` `(n, T)` of n annotated maps; a map that is not `marked` has no mask at any threshold."""

    findings: np.ndarray
    ious: np.ndarray
    marked: np.ndarray
    scores: np.ndarray
    patients: np.ndarray

    @classmethod
    def of(cls, records: Sequence[ImageRecord]) -> _Masks:
        pairs = list(annotated_maps(records))
        return cls(
            np.array([one.finding for _, one in pairs], dtype=np.int64),
            np.array([one.mask_ious for _, one in pairs]).reshape(-1, len(MAP_THRESHOLDS)),
            np.array([len(one.regions[0]) > 0 for _, one in pairs], dtype=bool),
            np.array([record.scores[one.finding] for record, one in pairs], dtype=np.float64),
            np.array([record.patient for record, _ in pairs], dtype=str),
        )


def _tuned_for_masks(masks: _Masks, num_findings: int) -> np.ndarray:
    thresholds = np.full(num_findings, DEFAULT_MAP_THRESHOLD)
    for finding in np.unique(masks.findings[masks.marked]):
        rows = masks.marked & (masks.findings == finding)
        thresholds[finding] = MAP_THRESHOLDS[int(masks.ious[rows].mean(axis=0).argmax())]
    return thresholds
