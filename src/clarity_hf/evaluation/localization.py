# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Localization: the share of annotated boxes that are found, T(IoU)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from clarity_hf.boxes import Letterbox, box_iou, boxes_from_map

MAP_THRESHOLDS = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7)
"""Shares of a map's peak that are tried as its threshold."""


def predicted_boxes(result: dict, finding: int) -> np.ndarray:
    """Boxes `(n, 4)` of one finding in a result of `post_process_localization`."""
    return result["boxes"][result["labels"] == finding].numpy().astype(np.float64)


def boxes_found(
    films: Iterable[tuple[int, np.ndarray, np.ndarray]],
    thresholds: Sequence[float] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7),
) -> dict[int, tuple[int, np.ndarray]]:
    """T(IoU): the share of annotated boxes that a predicted box of the same finding overlaps by IoU > t.

    Any predicted box may match; whether the finding's score passes a threshold is up to who predicts.

    Args:
        films: Per (film, finding) a tuple of the finding's index, annotated boxes `(m, 4)` and predicted boxes
            `(n, 4)`, xyxy in one frame.
        thresholds: The t.

    Returns:
        Per finding the number of annotated boxes and the shares `(len(thresholds),)` float64 in [0, 1], NaN for a
        finding without annotated boxes.
    """
    best: dict[int, list[float]] = {}
    for finding, annotated, predicted in films:
        overlaps = box_iou(annotated, predicted).max(axis=1) if len(predicted) else np.zeros(len(annotated))
        best.setdefault(finding, []).extend(overlaps.tolist())
    levels = np.asarray(thresholds, dtype=np.float64)
    undefined = np.full(len(levels), np.nan)
    return {
        finding: (len(overlaps), (np.asarray(overlaps)[:, None] > levels).mean(axis=0) if overlaps else undefined)
        for finding, overlaps in sorted(best.items())
    }


def constant_box(boxes: np.ndarray) -> np.ndarray:
    """The box that guesses best without seeing a film: the one with the highest mean IoU to all given boxes.

    Args:
        boxes: `(n, 4)` annotated boxes of one finding on the films that may be learnt from, n ≥ 1, xyxy in one frame.

    Returns:
        `(4,)`, one of the boxes.

    Raises:
        ValueError: There are no boxes.
    """
    if len(boxes) == 0:
        raise ValueError("`boxes` must hold at least one box, got none. Give boxes of other films.")
    return np.asarray(boxes)[box_iou(boxes, boxes).mean(axis=1).argmax()]


def tune_map_thresholds(
    films: Iterable[tuple[int, np.ndarray, np.ndarray, Letterbox]],
    num_findings: int,
    candidates: Sequence[float] = MAP_THRESHOLDS,
    default: float = 0.5,
) -> np.ndarray:
    """Choose each finding's map threshold: that of the highest mean IoU between annotated boxes and the map's box.

    To be chosen on validation films, never on the films that are reported.

    Args:
        films: Per (film, finding) a tuple of the finding's index, annotated boxes `(m, 4)` xyxy in pixels of the film,
            localization map `(h, w)` and how the film lies in the model's input.
        num_findings: F.
        candidates: Thresholds that are tried, each in (0, 1); of equal ones the first is taken.
        default: Threshold of a finding without annotated boxes.

    Returns:
        `(F,)` float64.
    """
    overlaps: dict[int, list[np.ndarray]] = {}
    for finding, annotated, localization_map, letterbox in films:
        boxes = [boxes_from_map(localization_map, letterbox, threshold) for threshold in candidates]
        best = [box_iou(annotated, found).max(axis=1, initial=0.0) for found in boxes]
        overlaps.setdefault(finding, []).append(np.stack(best, axis=1))
    thresholds = np.full(num_findings, default)
    for finding, found in overlaps.items():
        thresholds[finding] = candidates[int(np.concatenate(found).mean(axis=0).argmax())]
    return thresholds
