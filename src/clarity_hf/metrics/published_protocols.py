# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Other published protocols: pointing game, MaxBoxAcc, HAM's masks, Wang's boxes, CheXlocalize's mIoU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from clarity_hf.boxes import box_iou

from .bootstrap import Interval, bootstrap_by_patient, part_of
from .localization import LEVELS, PerFinding, box_iobb, max_box_accuracy, shares_per_finding
from .matching import (
    DEFAULT_MAP_THRESHOLD,
    Overlaps,
    annotated_boxes,
    annotated_maps,
    best_threshold,
    count_findings,
    per_finding,
    threshold_columns,
)
from .protocols import youden_of
from .records import MAP_THRESHOLDS, AnnotationRecord, ImageRecord

WANG_IOBB_LEVELS = (0.1, 0.25, 0.5, 0.75, 0.9)
"""IoBB thresholds t in the table of Wang et al."""


def pointing_game(records: Sequence[ImageRecord]) -> PerFinding:
    """Hit rate: the share of annotated maps whose largest value lies in an annotated box.

    Source: Zhang et al., "Top-down neural attention by excitation backprop", ECCV 2016; here without their tolerance
    of 15 pixels, as in CheXlocalize's hit rate.
    """
    pairs = list(annotated_maps(records))
    return shares_per_finding(_findings(pairs), np.array([one.hit for _, one in pairs]), count_findings(records))


def max_box_acc(records: Sequence[ImageRecord]) -> PerFinding:
    """MaxBoxAcc: the box of the largest region at IoU ≥ .5, at the best threshold; [`max_box_accuracy`].

    As published: the map is scaled to [0, 1], connected regions are never split, the largest is the one with the most
    pixels, a map is correct if it hits any of its annotated boxes, and thresholds are those of
    `MAX_BOX_THRESHOLDS`. `pooled` has one threshold for all findings, which is the published definition; `shares` have
    one each.
    """
    return _max_box(records, 0, (0.5,))


def max_box_acc_v2(records: Sequence[ImageRecord]) -> PerFinding:
    """MaxBoxAccV2: every region has a box, and IoU ≥ .3, .5 and .7 are averaged; otherwise as [`max_box_acc`]."""
    return _max_box(records, 1, (0.3, 0.5, 0.7))


def _max_box(records: Sequence[ImageRecord], row: int, levels: tuple[float, ...]) -> PerFinding:
    pairs = list(annotated_maps(records))
    best = np.array([one.max_box_ious[row] for _, one in pairs]).reshape(len(pairs), -1)
    findings, num_findings = _findings(pairs), count_findings(records)
    counts = np.bincount(findings, minlength=num_findings)
    shares = np.array([max_box_accuracy(best[findings == finding], levels) for finding in range(num_findings)])
    macro = float(shares[counts > 0].mean()) if len(pairs) else float("nan")
    return PerFinding(counts, shares, macro, max_box_accuracy(best, levels))


def ham_mask_iou(
    records: Sequence[ImageRecord], threshold: float = 0.5, levels: Sequence[float] | None = None
) -> PerFinding:
    """Mean mask IoU of each annotated map above one fixed threshold, the same for all findings, with the filled boxes.

    With `levels`, the shares of maps whose mask IoU exceeds each of them instead.

    Source: the protocol of Ouyang et al., "Learning hierarchical attention for weakly-supervised chest X-ray
    abnormality localization and diagnosis", IEEE TMI 40 (2021) 2698–2710.
    """
    num_findings, pairs = count_findings(records), list(annotated_maps(records))
    column = int(threshold_columns(np.full(num_findings, threshold), num_findings)[0])
    ious = np.array([one.mask_ious[column] for _, one in pairs], dtype=np.float64)
    return shares_per_finding(_findings(pairs), ious if levels is None else ious[:, None] > levels, num_findings)


def _findings(pairs: Sequence[tuple[ImageRecord, AnnotationRecord]]) -> np.ndarray:
    """Indices `(n,)` of the findings of maps."""
    return np.array([one.finding for _, one in pairs], dtype=np.int64)


@dataclass(frozen=True)
class WangProtocol:
    """Figures of Wang et al.: boxes at two fixed thresholds, and false boxes.

    Attributes:
        iou: Overlaps by IoU, of the boxes of both thresholds together.
        iobb: Overlaps by intersection over the predicted box.
        false_boxes: `(F, L)` predicted boxes per annotated map that exceed no level with any annotated box, first for
            the levels of IoU and then for those of intersection over the predicted box; NaN without maps.
    """

    iou: Overlaps
    iobb: Overlaps
    false_boxes: np.ndarray


def wang_protocol(
    records: Sequence[ImageRecord], levels: Sequence[float] = LEVELS, iobb_levels: Sequence[float] = WANG_IOBB_LEVELS
) -> WangProtocol:
    """Scale the map to [0, 255] and box each region above 60 and above 180; a hit if any box passes.

    Nothing is tuned or filtered by score. False boxes are counted at the given levels on the maps of annotated
    findings, as published.

    Source: Wang et al., "ChestX-ray8", CVPR 2017, section 5.3.
    """
    table = annotated_boxes(records)
    maps = [(one.boxes, np.concatenate(one.wang_regions)) for _, one in annotated_maps(records)]
    predicted = np.array([len(found) for annotated, found in maps for _ in annotated], dtype=np.int64)
    best, false = [], []
    for measure, limits in ((box_iou, levels), (box_iobb, iobb_levels)):
        overlaps = [measure(annotated, found) for annotated, found in maps]
        best.append(np.concatenate([np.zeros(0), *(one.max(axis=1, initial=0.0) for one in overlaps)]))
        counts = [(one.max(axis=0)[:, None] <= np.asarray(limits)).sum(axis=0) for one in overlaps]
        false.append(np.array(counts).reshape(-1, len(limits)))
    per_map = shares_per_finding(table.findings[table.first], np.hstack(false), table.num_findings)
    iou, iobb = (table.overlaps(one, predicted) for one in best)
    return WangProtocol(iou, iobb, per_map.shares)


@dataclass(frozen=True)
class SegmentationScore:
    """CheXlocalize's mIoU.

    Attributes:
        thresholds: `(F,)` map thresholds, chosen on the tuning images.
        annotated: `(F,)` int, annotated maps.
        counts: `(F,)` int, true positives: annotated maps whose mask is not empty.
        miou: `(F,)` mean mask IoU over true positives; NaN without any.
        macro: Mean over the findings with true positives.
        full_miou: `(F,)` mean over all annotated maps, an empty mask counting 0; NaN without any.
        intervals: Intervals of `miou`, by patient.
        macro_interval: Interval of `macro`, over the same findings in every bootstrap sample.
    """

    thresholds: np.ndarray
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
    findings, ious, marked = _mask_ious(list(annotated_maps(tuning)))
    thresholds = np.full(num_findings, DEFAULT_MAP_THRESHOLD)
    for finding in np.unique(findings[marked]):
        thresholds[finding] = best_threshold(ious[marked & (findings == finding)])
    pairs = list(annotated_maps(scoring))
    findings, ious, marked = _mask_ious(pairs)
    rows = np.arange(len(pairs))
    positive = marked & np.array([record.scores[one.finding] >= cutoffs[one.finding] for record, one in pairs], bool)
    iou = np.where(positive, ious[rows, threshold_columns(thresholds, num_findings)[findings]], 0.0)
    counts = np.bincount(findings[positive], minlength=num_findings)
    averaged = counts > 0

    def means(sample: np.ndarray) -> np.ndarray:
        kept = sample[positive[sample]]
        of_each = shares_per_finding(findings[kept], iou[kept], num_findings).shares
        return np.append(of_each, of_each[averaged].mean() if averaged.any() else np.nan)

    patients = [record.patient for record, _ in pairs]
    interval = bootstrap_by_patient(means, patients, repeats, seed, (num_findings + 1,))
    full = shares_per_finding(findings, iou, num_findings)
    return SegmentationScore(
        thresholds=thresholds,
        annotated=full.counts,
        counts=counts,
        miou=means(rows)[:-1],
        macro=float(means(rows)[-1]),
        full_miou=full.shares,
        intervals=part_of(interval, slice(None, -1)),
        macro_interval=part_of(interval, -1),
    )


def _mask_ious(pairs: Sequence[tuple[ImageRecord, AnnotationRecord]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Findings `(n,)` and mask IoU `(n, T)` of maps, and whether each has a mask at any threshold `(n,)`."""
    ious = np.array([one.mask_ious for _, one in pairs]).reshape(-1, len(MAP_THRESHOLDS))
    return _findings(pairs), ious, np.array([len(one.regions[0]) > 0 for _, one in pairs], dtype=bool)
