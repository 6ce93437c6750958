# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Estimate the range of grey levels of an image whose file does not declare one.

The estimate ignores outliers: hot or dead pixels, burned-in letters and broken detector lines.
"""

from __future__ import annotations

import numpy as np

STRAY_SHARE = 0.01
"""Largest share of an image's pixels, at either end, that may be outliers."""

FEW_SHARE, FEW = 1e-4, 4
"""Share, and minimum number, of pixels that count as a few and need a smaller gap to be outliers."""

FEW_GAP, SHARE_GAP, FAR = 1 / 8, 1 / 2, 8
"""Gap that separates a few, or up to `STRAY_SHARE`, of the pixels from the range of all others, as a share of that
range; and the ratio of the full range to it above which no gap is needed, as for burned-in letters with soft edges.
Of 1,381 NIH images 98 % have no gap above 0.1 in the brightest 1 %, and no ratio reaches 2."""


def held_range(values: np.ndarray, counts: np.ndarray) -> tuple[float, float]:
    """Darkest and brightest value of an image without outliers.

    Args:
        values: `(n,)` distinct values of the image, ascending.
        counts: `(n,)` number of pixels with each value, above 0.

    Returns:
        Both values; those of the full image if it has no outliers.
    """
    values = values.astype(np.float64)
    kept = values <= _brightest(values, counts)
    low = -_brightest(-values[kept][::-1], counts[kept][::-1])
    kept = values >= low
    return low, _brightest(values[kept], counts[kept])


def _brightest(values: np.ndarray, counts: np.ndarray) -> float:
    """The first value above which all pixels are outliers, else the last value."""
    above = counts.sum() - counts.cumsum()
    spread = values - values[0]
    gap = np.append(np.diff(values), np.inf)
    few, share = above <= max(FEW, FEW_SHARE * counts.sum()), above <= STRAY_SHARE * counts.sum()
    cut = (few & (gap >= FEW_GAP * spread)) | (share & (gap >= SHARE_GAP * spread))
    last = np.argmax(cut & (spread > 0)) if spread[-1] > 0 else 0
    far = share & (spread > 0) & (FAR * spread <= spread[last])
    return float(values[np.argmax(far) if far.any() else last])


__all__ = ["held_range"]
