# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Checks of maps from records: mass outside the thorax, and maps on normal images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from clarity_hf.boxes import Letterbox, image_weights

from .classification import auroc_per_finding
from .records import ImageRecord


def mass_outside(maps: np.ndarray, letterbox: Letterbox, thorax: np.ndarray) -> np.ndarray:
    """Share of each map's mass over the image that lies outside the thorax.

    Args:
        maps: `(F, h, w)` values ≥ 0 on a grid over the complete input.
        letterbox: Position of the image in that input; the padding does not count.
        thorax: `(H', W')` over the image, of any size: bool or integer, above 0 inside, or float in [0, 1].

    Returns:
        `(F,)` float64 in [0, 1]; NaN for a map that is zero over the image.

    Raises:
        ValueError: A map is negative or not finite, or `thorax` is not 2-D or outside [0, 1].
    """
    values = np.asarray(maps, dtype=np.float64)
    if values.ndim != 3 or not np.isfinite(values).all() or (values < 0).any():
        raise ValueError(
            f"`maps` must be (F, h, w) finite values ≥ 0, got shape {values.shape}. Pass an image's maps."
        )
    inside = np.asarray(thorax)
    inside = inside.astype(np.float64) if inside.dtype.kind == "f" else (inside > 0).astype(np.float64)
    if inside.ndim != 2 or not ((inside >= 0) & (inside <= 1)).all():
        raise ValueError(f"`thorax` must be (H, W) in [0, 1], got shape {inside.shape}. Pass one mask of the image.")
    # Sums of the map's samples are weighted sums of its cells, so pixels are visited once, not once per finding.
    rows = image_weights(values.shape[1], letterbox, inside.shape[0], 0)
    columns = image_weights(values.shape[2], letterbox, inside.shape[1], 1)
    outer = (values * (rows.T @ (1 - inside) @ columns)).sum(axis=(1, 2))
    whole = (values * np.outer(rows.sum(axis=0), columns.sum(axis=0))).sum(axis=(1, 2))
    shares = np.divide(outer, whole, out=np.full(len(values), np.nan), where=whole > 0)
    return np.clip(shares, 0, 1)  # rounding may give 1 + 1e-16


@dataclass(frozen=True)
class MassOutside:
    """Mass outside the thorax over images, for F findings.

    Attributes:
        mean: `(F,)` in [0, 1], the mean over images; NaN if `images` is 0.
        median: `(F,)` in [0, 1], the median; NaN if `images` is 0.
        images: `(F,)` number of images with the finding, a non-zero map and a known mask.
        left_out: `(F,)` number of images with the finding but without one of these.
    """

    mean: np.ndarray
    median: np.ndarray
    images: np.ndarray
    left_out: np.ndarray


def mass_outside_where_present(records: Sequence[ImageRecord]) -> MassOutside:
    """Mass outside the thorax of the maps of present findings.

    Args:
        records: At least one.

    Raises:
        ValueError: There are no records.
    """
    labels = _labels(records)
    blank = np.full(labels.shape[1], np.nan)
    shares = np.stack([blank if record.mass_outside is None else record.mass_outside for record in records])
    measured = (labels == 1) & ~np.isnan(shares)
    columns = [shares[measured[:, finding], finding] for finding in range(labels.shape[1])]
    return MassOutside(
        mean=np.array([column.mean() if len(column) else np.nan for column in columns]),
        median=np.array([np.median(column) if len(column) else np.nan for column in columns]),
        images=measured.sum(axis=0),
        left_out=((labels == 1) & np.isnan(shares)).sum(axis=0),
    )


@dataclass(frozen=True)
class AbsentOnNormal:
    """Peaks of maps on normal images compared with those on images with the finding, for F findings.

    Attributes:
        auroc: `(F,)` probability that the map's peak on an image with the finding exceeds that on a normal image; NaN
            if either kind is missing.
        median_present: `(F,)` median peak on images with the finding, on the method's own scale.
        median_normal: `(F,)` median peak on normal images.
        median_ratio: `(F,)` `median_normal / median_present`: near 0 if maps on normal images are dark, 1 if there is
            no difference.
        present: `(F,)` number of images with the finding whose peak is known.
        normal: `(F,)` number of normal images whose peak is known.
        unmeasured: `(F,)` number of images, normal or with the finding, left out because their peak is NaN.
        normal_images: Number of images on which every finding is annotated as absent.
        boxes_shown: Mean number of boxes shown to a user on a normal image; NaN without normal images.
        images_with_boxes: Share of the normal images with at least one.
    """

    auroc: np.ndarray
    median_present: np.ndarray
    median_normal: np.ndarray
    median_ratio: np.ndarray
    present: np.ndarray
    normal: np.ndarray
    unmeasured: np.ndarray
    normal_images: int
    boxes_shown: float
    images_with_boxes: float


def absent_on_normal(records: Sequence[ImageRecord]) -> AbsentOnNormal:
    """Compare the peaks of each finding's map on normal images with those on images with the finding.

    This requires maps with the same scale on all images. If a method computes only the requested maps, the records
    must come from an evaluation of all maps, or have NaN for the other peaks.

    Args:
        records: At least one. An image with an unannotated finding is not known to be normal.

    Raises:
        ValueError: There are no records.
    """
    labels = _labels(records)
    peaks = np.stack([record.peaks for record in records]).astype(np.float64)
    is_normal = (labels == 0).all(axis=1)
    known = ~np.isnan(peaks)
    present, normal = (labels == 1) & known, is_normal[:, None] & known
    truth = np.where(present, 1.0, np.where(normal, 0.0, np.nan))
    medians = [
        np.array([np.median(peaks[rows[:, i], i]) if rows[:, i].any() else np.nan for i in range(labels.shape[1])])
        for rows in (present, normal)
    ]
    shown = np.array([len(record.shown) for record, counted in zip(records, is_normal, strict=True) if counted])
    undefined = np.full(labels.shape[1], np.nan)
    return AbsentOnNormal(
        auroc=auroc_per_finding(np.nan_to_num(peaks), truth),
        median_present=medians[0],
        median_normal=medians[1],
        median_ratio=np.divide(medians[1], medians[0], out=undefined, where=medians[0] > 0),
        present=present.sum(axis=0),
        normal=normal.sum(axis=0),
        unmeasured=(((labels == 1) | is_normal[:, None]) & ~known).sum(axis=0),
        normal_images=int(is_normal.sum()),
        boxes_shown=float(shown.mean()) if len(shown) else float("nan"),
        images_with_boxes=float((shown > 0).mean()) if len(shown) else float("nan"),
    )


def _labels(records: Sequence[ImageRecord]) -> np.ndarray:
    if len(records) == 0:
        raise ValueError("`records` must hold at least one image, got none. Evaluate some images first.")
    return np.stack([record.labels for record in records])
