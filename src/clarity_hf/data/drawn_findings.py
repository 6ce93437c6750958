# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Findings drawn into real radiographs without a finding, with exact masks, which image-level labels do not give.

A painter of [`clarity_hf.phantoms`] needs the lungs and the heart, which [`segment_thorax`] finds in a real image, and
adds to the attenuation, which the image's grey values represent. Drawn findings are as schematic as in a phantom; the
rest of the image is real.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
from scipy.ndimage import uniform_filter

from clarity_hf.labels import FINDINGS
from clarity_hf.phantoms.geometry import Exam, Geometry, Person, chord
from clarity_hf.phantoms.lesions import settle
from clarity_hf.phantoms.phantom import PAINTERS
from clarity_hf.phantoms.scene import LUNG_ATTENUATION, VESSEL_ATTENUATION, Scene

from .thorax_segmenter import ThoraxMasks

DRAWABLE = tuple(finding for finding in FINDINGS if finding not in ("Cardiomegaly", "Hernia"))
"""Findings that are drawn: not those whose location follows from the label."""

MOST_FINDINGS = 2
"""Largest number of findings drawn into one image."""

CONTRAST = (0.3, 1.1)
"""Range of the contrast of a finding, relative to a phantom's."""

SOFTEST = 0.03
"""Largest softening of edges, as a share of the image's shorter side: edges of phantoms are too sharp."""

SHARP = ("Fibrosis", "Pneumothorax")
"""Findings with fine lines, which are not softened."""

MASK_LEVEL = 0.2
"""Share of the largest change above which a pixel belongs to a drawn finding."""

MASK_REACH = 0.05
"""Side of the squares, as a share of the image's shorter side, that join spots and lines of a finding to one mask."""


class RealScene(Scene):
    """A real radiograph as the normal image that painters take: outlines from masks, layers from grey values.

    Args:
        image: `(H, W)` in [0, 1], bones bright.
        masks: Lungs and heart of it, of the same size; ValueError if one is empty.
        rng: Draws what neither determines, which hardly matters to painters.
    """

    def __init__(self, image: np.ndarray, masks: ThoraxMasks, rng: np.random.Generator) -> None:
        if not all(mask.any() for mask in (masks.left_lung, masks.right_lung, masks.heart)):
            raise ValueError("`masks` must show both lungs and the heart, got an empty one. Leave the image out.")
        lungs = {-1: masks.right_lung, 1: masks.left_lung}
        height, width = image.shape
        unit = min(height, width)
        middle = _midline(masks) / unit + 0.5 - width / (2 * unit)
        exam = dataclasses.replace(Exam.draw(rng), scale=1.0, center=(middle, 0.5), shear=0.0, tilt=0.0, turn=0.0)
        Geometry.__init__(self, Person.draw(rng), exam, height, width)
        self._outlines = {side: _Outline(self, side, lung) for side, lung in lungs.items()}
        for side, outline in self._outlines.items():
            self.apex[side], self.dome[side] = outline.apex, outline.dome
            self.half[side], self.sulcus[side] = outline.half, max(outline.bottom - outline.dome, 0.01)
            self.hilum[side] = (0.28 * outline.half, outline.apex + 0.52 * (outline.dome - outline.apex))
        self.lung_mask = masks.left_lung | masks.right_lung
        # Depth grows from 0 at the border of the mask to 1 a tenth of the image inside.
        self.lung = chord(2.2 * (uniform_filter(self.lung_mask.astype(np.float32), int(0.09 * unit)) - 0.45))
        self.lung *= self.lung_mask
        # Unit of attenuation in logarithms of the light, from the contrast of lung and heart.
        dark, bright = (_darkness(np.median(image[where])) for where in (self.lung_mask, masks.heart))
        self._unit = max((bright - dark) / LUNG_ATTENUATION, 0.35)
        self.base = (_darkness(image) / self._unit).astype(np.float32)
        fine = self.base - uniform_filter(self.base, int(0.05 * unit))
        self.vessels = (np.clip(fine / VESSEL_ATTENUATION, 0, 1) * self.lung).astype(np.float32)

    def grey(self, attenuation: np.ndarray) -> np.ndarray:
        """Grey levels in [0, 255], float32, of an attenuation: the inverse of reading it from the image."""
        return (255 * np.clip(1.02 - np.exp(-self._unit * attenuation), 0, 1)).astype(np.float32)

    def outer(self, side: int, q: Any) -> Any:
        """Distance of the lung's lateral border from the midline at `q`."""
        outline = self._outlines[side]
        return np.interp(q, outline.rows, outline.lateral)

    def floor(self, side: int, p: Any) -> Any:
        """`q` of the lung's lower border at the distance `p` from the midline."""
        outline = self._outlines[side]
        return np.interp(p, outline.columns, outline.lower)

    def roof(self, side: int, p: Any) -> Any:
        """`q` of the lung's upper border at the distance `p` from the midline."""
        outline = self._outlines[side]
        return np.interp(p, outline.columns, outline.upper)


def _darkness(grey: Any) -> Any:
    return -np.log(np.clip(1.02 - grey, 0.02, None))


class _Outline:
    """Borders of a lung in the patient frame, by row and by column, and lengths that painters use."""

    def __init__(self, geometry: Geometry, side: int, lung: np.ndarray) -> None:
        rows, columns = np.flatnonzero(lung.any(axis=1)), np.flatnonzero(lung.any(axis=0))
        p = side * geometry.p[0]  # no shear: the same in every row
        q = geometry.q[:, 0]
        far = np.where(lung, p[None], -np.inf).max(axis=1)
        self.rows, self.lateral = q[rows], far[rows]
        order = columns[np.argsort(p[columns])]
        upper, lower = lung.argmax(axis=0), lung.shape[0] - 1 - lung[::-1].argmax(axis=0)
        self.columns, self.upper, self.lower = p[order], q[upper[order]], q[lower[order]]
        self.apex, self.bottom = float(q[rows[0]]), float(q[rows[-1]])
        self.half = float(np.quantile(self.lateral, 0.9))
        inner = (self.columns > 0.3 * self.half) & (self.columns < 0.65 * self.half)
        self.dome = float(np.median(self.lower[inner])) if inner.any() else self.bottom


def _midline(masks: ThoraxMasks) -> float:
    """Column in pixels half-way between the lungs, the median over the rows that have both."""
    columns = np.arange(masks.heart.shape[1], dtype=np.float64) + 0.5
    both = masks.right_lung.any(axis=1) & masks.left_lung.any(axis=1)
    if not both.any():
        return masks.heart.shape[1] / 2
    right_end = np.where(masks.right_lung[both], columns, -np.inf).max(axis=1)
    left_start = np.where(masks.left_lung[both], columns, np.inf).min(axis=1)
    return float(np.median((right_end + left_start) / 2))


def draw_findings(image: np.ndarray, masks: ThoraxMasks, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw up to two findings into a radiograph; fewer if one is outside the lungs and invisible.

    Args:
        image: `(H, W)` in [0, 1], bones bright, without a finding, in its usual orientation.
        masks: Its lungs and heart, from [`segment_thorax`].
        seed: Determines which findings, where and how strong.

    Returns:
        The image with the findings, `(H, W)` float32 in [0, 1], and where each of `FINDINGS` was drawn, `(14, H, W)`
        bool.

    Raises:
        ValueError: `masks` lack a lung or the heart.
    """
    rng = np.random.default_rng(seed)
    scene = RealScene(image, masks, rng)
    count = int(rng.integers(1, MOST_FINDINGS + 1))
    attenuation, drawn = scene.base.copy(), np.zeros((len(FINDINGS), *image.shape), dtype=bool)
    for finding in rng.choice(DRAWABLE, count, replace=False).tolist():
        delta = _painted(scene, finding, rng)
        attenuation += delta
        strong = np.abs(delta) > max(MASK_LEVEL * float(np.abs(delta).max()), 1e-6)
        drawn[FINDINGS.index(finding)] = uniform_filter(strong.astype(np.float32), int(MASK_REACH * scene.unit)) > 0.2
    changed = np.clip(image + (scene.grey(attenuation) - scene.grey(scene.base)) / 255, 0, 1)
    return changed.astype(np.float32), drawn


def _painted(scene: RealScene, finding: str, rng: np.random.Generator) -> np.ndarray:
    """What a finding adds to the attenuation, `(H, W)` float32."""
    contrast = math.exp(rng.uniform(*np.log(CONTRAST)))
    softness = rng.uniform(0, SOFTEST) * scene.unit
    delta = np.zeros_like(scene.base)
    for lesion in PAINTERS[finding](scene, rng):
        window, change, _ = settle(scene, lesion, contrast)
        delta[window] += change
    if finding not in SHARP and softness >= 2:
        delta = uniform_filter(uniform_filter(delta, int(softness)), int(softness))
    return delta
