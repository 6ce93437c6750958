# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Checks of maps from records: mass outside the thorax, and maps on normal images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

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


def mass_outside_where_present(records: Sequence[ImageRecord]) -> tuple[np.ndarray, np.ndarray]:
    """Mean mass outside the thorax of the maps of present findings.

    Returns:
        `(F,)` means in [0, 1], NaN where the second is 0; and `(F,)` int, the number of images with the finding, a
        non-zero map and a known mask.

    Raises:
        ValueError: There are no records.
    """
    labels = _labels(records)
    blank = np.full(labels.shape[1], np.nan)
    shares = np.stack([blank if record.mass_outside is None else record.mass_outside for record in records])
    measured = (labels == 1) & ~np.isnan(shares)
    return _of_columns(np.mean, shares, measured), measured.sum(axis=0)


@dataclass(frozen=True)
class AbsentOnNormal:
    """Peaks of maps on normal images compared with those on images with the finding, for F findings.

    Attributes:
        auroc: `(F,)` probability that the map's peak on an image with the finding exceeds that on a normal image; NaN
            if either kind is missing.
        median_present: `(F,)` median peak on images with the finding, on the method's own scale.
        median_normal: `(F,)` median peak on normal images.
        present: `(F,)` number of images with the finding whose peak is known.
        normal_images: Number of images on which every finding is annotated as absent.
    """

    auroc: np.ndarray
    median_present: np.ndarray
    median_normal: np.ndarray
    present: np.ndarray
    normal_images: int


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
    is_normal, known = (labels == 0).all(axis=1), ~np.isnan(peaks)
    present, normal = (labels == 1) & known, is_normal[:, None] & known
    truth = np.where(present, 1.0, np.where(normal, 0.0, np.nan))
    return AbsentOnNormal(
        auroc=auroc_per_finding(np.nan_to_num(peaks), truth),
        median_present=_of_columns(np.median, peaks, present),
        median_normal=_of_columns(np.median, peaks, normal),
        present=present.sum(axis=0),
        normal_images=int(is_normal.sum()),
    )


def _of_columns(statistic: Callable[[np.ndarray], Any], values: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """A statistic of the chosen values in each column; NaN without any."""
    columns = [column[rows] for column, rows in zip(values.T, chosen.T, strict=True)]
    return np.array([statistic(column) if len(column) else np.nan for column in columns])


def _labels(records: Sequence[ImageRecord]) -> np.ndarray:
    if len(records) == 0:
        raise ValueError("`records` must hold at least one image, got none. Evaluate some images first.")
    return np.stack([record.labels for record in records])
