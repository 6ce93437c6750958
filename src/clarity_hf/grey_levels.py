# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Which range of grey levels an image uses where its file does not declare one.

A guess must not hinge on one pixel: a hot or dead pixel, a burned-in letter or a line of a broken detector lies far
from everything else, and is not part of the range.
"""

from __future__ import annotations

import numpy as np

STRAY_SHARE = 0.01
"""Largest share of an image's pixels, at either end, that may be left out of its range."""

FEW_SHARE, FEW = 1e-4, 4
"""Share, and at least how many pixels, that count as a few: these need less of a gap to be left out."""

FEW_GAP, SHARE_GAP, FAR = 1 / 8, 1 / 2, 8
"""Gap before a few, and before up to `STRAY_SHARE`, of the pixels, as a share of the range of all others; and how many
times as wide as that range the whole one must be for no gap to be needed, as around burned-in letters with soft edges.
Of 1,381 NIH images 98 % have no gap above 0.1 in the brightest 1 %, and none is 2 times as wide."""


def held_range(values: np.ndarray, counts: np.ndarray) -> tuple[float, float]:
    """Darkest and brightest value of an image, stray pixels aside.

    Args:
        values: `(n,)` the image's values, ascending, each of them once.
        counts: `(n,)` how many pixels have each value, above 0.

    Returns:
        Both values; those of the whole image where nothing lies far from the rest.
    """
    values = values.astype(np.float64)
    kept = values <= _brightest(values, counts)
    low = -_brightest(-values[kept][::-1], counts[kept][::-1])
    kept = values >= low
    return low, _brightest(values[kept], counts[kept])


def _brightest(values: np.ndarray, counts: np.ndarray) -> float:
    """The first value above which all is stray, else the last."""
    above = counts.sum() - counts.cumsum()
    spread = values - values[0]
    gap = np.append(np.diff(values), np.inf)
    few, share = above <= max(FEW, FEW_SHARE * counts.sum()), above <= STRAY_SHARE * counts.sum()
    cut = (few & (gap >= FEW_GAP * spread)) | (share & (gap >= SHARE_GAP * spread))
    last = np.argmax(cut & (spread > 0)) if spread[-1] > 0 else 0
    far = share & (spread > 0) & (FAR * spread <= spread[last])
    return float(values[np.argmax(far) if far.any() else last])


__all__ = ["held_range"]
