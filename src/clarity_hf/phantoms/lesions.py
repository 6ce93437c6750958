# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""What all findings share: lesions, how they are made visible and boxed, and their sizes and places."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from .geometry import Window, step
from .scene import Scene

_VISIBLE_CHANGE = 14.0  # of 255 grey levels, which a visible finding reaches somewhere
_FADE, _BOX_LEVEL = (0.08, 0.22), 0.14  # shares of the largest change between which it fades out, and in its box


@dataclass(frozen=True)
class Lesion:
    """Part of a finding, with a box of its own.

    Attributes:
        window: The pixels that it may change.
        delta: What it adds to the attenuation there, `(h, w)` float32.
        extent: Where it is if that is more than what it changes (the heart), `(h, w)` bool.
        silhouette: What it adds to the thorax, `(h, w)` bool.
    """

    window: Window
    delta: np.ndarray
    extent: np.ndarray | None = None
    silhouette: np.ndarray | None = None


def settle(
    scene: Scene, lesion: Lesion, contrast: float = 1.0
) -> tuple[Window, np.ndarray, tuple[float, float, float, float]]:
    """Make a lesion visible, fade out what is too faint to see, and box the rest.

    Args:
        scene: The normal image: a finding's box does not depend on other findings.
        lesion: As painted.
        contrast: Factor on the change, except for lesions with an extent.

    Returns:
        The window; the change of the attenuation there, `(h, w)` float32, 0 outside the box; and the box, xyxy in
        pixels of the image, right and bottom exclusive.
    """
    delta, normal = lesion.delta, scene.base[lesion.window]
    if lesion.extent is None:
        delta = delta * contrast
    grey = scene.grey(normal)
    change = np.abs(scene.grey(normal + delta) - grey)
    peak = float(change.max())
    if peak < _VISIBLE_CHANGE:
        delta = delta * min(_VISIBLE_CHANGE / max(peak, 1e-3), 4.0)
        change = np.abs(scene.grey(normal + delta) - grey)
        peak = float(change.max())
    strength = np.abs(delta) / max(float(np.abs(delta).max()), 1e-6)
    if lesion.extent is None:
        delta = delta * step((strength - _FADE[0]) / (_FADE[1] - _FADE[0]))
        seen = (change > _BOX_LEVEL * peak) & (strength > _BOX_LEVEL)
    else:
        seen = lesion.extent
    if not seen.any():  # outside the image: every finding has a box, of its strongest pixel if need be
        seen = strength >= strength.max()
    rows, columns = np.flatnonzero(seen.any(axis=1)), np.flatnonzero(seen.any(axis=0))
    y0, y1, x0, x1 = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    inside = np.zeros_like(delta, dtype=np.float32)
    inside[y0:y1, x0:x1] = delta[y0:y1, x0:x1]
    top, left = lesion.window[0].start, lesion.window[1].start
    return lesion.window, inside, (float(left + x0), float(top + y0), float(left + x1), float(top + y1))


def random_side(rng: np.random.Generator) -> int:
    """-1 for the right lung, slightly more often, or 1 for the left."""
    return -1 if rng.random() < 0.53 else 1


def lognormal(rng: np.random.Generator, median: float, spread: float, low: float, high: float) -> float:
    """A size from a log-normal distribution, clipped to [low, high].

    Args:
        rng: Of the finding.
        median: In any unit, > 0.
        spread: Standard deviation of the logarithm.
        low, high: Smallest and largest size.
    """
    return float(np.clip(median * math.exp(spread * rng.standard_normal()), low, high))


def around(scene: Scene, side: int, p0: float, q0: float, a: float, b: float) -> tuple[Window, np.ndarray, np.ndarray]:
    """Window, `p` (positive laterally) and `q` around the point `(p0, q0)` of a lung.

    Args:
        scene: The normal image.
        side: -1 for the right lung, 1 for the left.
        p0, q0: The point, `p0` from the midline outwards.
        a, b: Half of the window's width and height.

    Returns:
        As [`Geometry.mirrored`].
    """
    return scene.mirrored(side, p0 - a, q0 - b, p0 + a, q0 + b)


def air(scene: Scene, window: Window) -> np.ndarray:
    """Share of a pixel's depth that is lung, 0 at its border: the factor on opacities of the lung."""
    return np.minimum(scene.lung[window] * 1.7, 1.0)
