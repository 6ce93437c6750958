# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Painters of the findings inside the lungs: atelectasis, opacities, edema, emphysema and fibrosis.

A painter takes the normal image and the finding's own random stream, and returns one lesion or one per side.
"""

from __future__ import annotations

import math

import numpy as np

from .geometry import chord, step
from .lesions import Lesion, air, around, lognormal, random_side
from .scene import VESSEL_ATTENUATION, Scene


def atelectasis(scene: Scene, rng: np.random.Generator) -> list[Lesion]:
    """Bands of collapsed lung, or a wedge with sharp edges at the base."""
    side = random_side(rng)
    strength = rng.uniform(0.24, 0.48)
    if rng.random() < 0.72:
        p0, q0 = scene.spot(side, rng.uniform(0.25, 0.75), rng.uniform(0.48, 0.98))
        length = lognormal(rng, 0.102, 0.35, 0.055, 0.20)
        tilt, bow = rng.uniform(-0.45, 0.45), rng.uniform(-1.2, 1.2)
        gap, count = rng.uniform(0.028, 0.052), int(rng.choice([1, 2, 3, 4], p=[0.15, 0.35, 0.32, 0.18]))
        window, p, q = around(scene, side, p0, q0, length + 0.03, 0.5 * length + gap * count + 0.03)
        along = (p - p0) * math.cos(tilt) + (q - q0) * math.sin(tilt)
        across = (q - q0) * math.cos(tilt) - (p - p0) * math.sin(tilt) - bow * along**2
        delta = np.zeros_like(along)
        for k in range(count):
            middle, half = gap * (k - 0.5 * (count - 1)), length * rng.uniform(0.7, 1.0)
            shift, thick = rng.uniform(-0.02, 0.02), rng.uniform(0.0060, 0.0115)
            band = step((half - np.abs(along - shift)) / (0.35 * half)) * np.exp(-(((across - middle) / thick) ** 2))
            delta = np.maximum(delta, band)
        return [Lesion(window, strength * delta * air(scene, window))]
    # A collapsed lower lobe: a triangle at the spine or a wedge on the diaphragm, its long edge sharp.
    height, breadth = lognormal(rng, 0.15, 0.3, 0.08, 0.26), lognormal(rng, 0.12, 0.3, 0.07, 0.22)
    q0 = scene.dome[side] + 0.02
    window, p, q = around(scene, side, 0.04 + breadth / 2, q0 - height / 2, breadth / 2 + 0.05, height / 2 + 0.08)
    edge = 0.045 + breadth * np.clip((q - q0 + height) / height, 0, 1.2) ** 1.4 - p
    delta = step(edge / 0.012) * step((q - q0 + height) / 0.04) * (0.85 + 0.15 * scene.field(rng, window, 0.03))
    return [Lesion(window, (1.1 * strength * delta * air(scene, window)).astype(np.float32))]


def _zone(
    scene: Scene, rng: np.random.Generator, along: tuple[float, float], width: float, height: float, spread: float
) -> tuple[int, float, float, float, float]:
    """Side, centre and half-sizes of a region of a lung with a median width and height."""
    side = random_side(rng)
    a = 0.5 * lognormal(rng, width, 0.25, 0.09, 0.30)
    b = 0.5 * lognormal(rng, height, spread, 0.09, 0.50)
    p0, q0 = scene.spot(side, rng.uniform(0.25, 0.75), rng.uniform(*along))
    return side, p0, q0, a, b


def infiltration(scene: Scene, rng: np.random.Generator) -> list[Lesion]:
    """Scattered, ill-defined patches with lung between them."""
    side, p0, q0, a, b = _zone(scene, rng, (0.3, 0.85), 0.235, 0.30, 0.35)
    window, p, q = around(scene, side, p0, q0, a + 0.04, b + 0.04)
    count = int(np.clip(5 + 260 * a * b, 6, 16))
    spots = rng.uniform(-1, 1, (count, 2))
    radii, weights = rng.uniform(0.014, 0.032, count), rng.uniform(0.55, 1.0, count)
    delta = np.zeros(p.shape, dtype=np.float32)
    for (x, y), radius, weight in zip(spots, radii, weights, strict=True):
        x, y = p0 + x * a * 0.85, q0 + y * b * 0.85
        delta += weight * np.exp(-(((p - x) / radius) ** 2) - ((q - y) / radius) ** 2)
    delta = np.minimum(delta, 1.2) * np.clip(1 + 0.3 * scene.field(rng, window, 0.015), 0.2, 1.8)
    return [Lesion(window, rng.uniform(0.20, 0.38) * delta * air(scene, window))]


def _rounded_opacity(scene: Scene, rng: np.random.Generator, radius: float, strength: float, lobed: float) -> Lesion:
    """A rounded opacity anywhere in a lung; `lobed` is how far its rim deviates from an ellipse, as a share."""
    side = random_side(rng)
    p0, q0 = scene.spot(side, rng.uniform(0.2, 0.88), rng.uniform(0.12, 0.93))
    squeeze = rng.uniform(0.85, 1.18)
    window, p, q = around(scene, side, p0, q0, 1.5 * radius, 1.5 * radius)
    x, y = (p - p0) / (radius * squeeze), (q - q0) / (radius / squeeze)
    angle = np.arctan2(y, x)
    bumps = rng.normal(0, lobed, 3)
    phases = rng.uniform(0, 2 * np.pi, 3)
    rim = 1 + sum(bumps[k] * np.cos((k + 2) * angle + phases[k]) for k in range(3))
    inside = 1.0 - np.sqrt(x * x + y * y) / rim
    soft = rng.uniform(0.12, 0.3)
    profile = step(inside / soft) * (0.6 + 0.4 * chord(inside))
    # A sphere in the lung displaces air; it is fainter over heart or diaphragm.
    return Lesion(window, (strength * profile * (0.35 + 0.65 * air(scene, window))).astype(np.float32))


def mass(scene: Scene, rng: np.random.Generator) -> list[Lesion]:
    """A rounded opacity of more than 3 cm."""
    radius = 0.5 * lognormal(rng, 0.122, 0.36, 0.094, 0.30)
    return [_rounded_opacity(scene, rng, radius, rng.uniform(0.26, 0.50), 0.06)]


def nodule(scene: Scene, rng: np.random.Generator) -> list[Lesion]:
    """One rounded opacity of at most 3 cm, or two."""
    count = 2 if rng.random() < 0.12 else 1
    return [
        _rounded_opacity(scene, rng, 0.5 * lognormal(rng, 0.066, 0.2, 0.044, 0.080), rng.uniform(0.24, 0.46), 0.03)
        for _ in range(count)
    ]


def pneumonia(scene: Scene, rng: np.random.Generator) -> list[Lesion]:
    """One focal, mottled cloud of airspace opacity, densest in the middle."""
    side, p0, q0, a, b = _zone(scene, rng, (0.4, 0.9), 0.235, 0.27, 0.32)
    window, p, q = around(scene, side, p0, q0, 1.15 * a, 1.15 * b)
    lean = rng.uniform(-0.5, 0.5)
    x, y = (p - p0 - lean * (q - q0)) / a, (q - q0) / b
    ragged = 0.16 * scene.field(rng, window, 0.035)
    cloud = step((1.0 - np.sqrt(x * x + y * y) + ragged) / 0.75)
    mottle = np.clip(1.0 + 0.17 * scene.field(rng, window, 0.014), 0.5, 1.5)
    return [Lesion(window, (rng.uniform(0.32, 0.52) * cloud * mottle * air(scene, window)).astype(np.float32))]


def consolidation(scene: Scene, rng: np.random.Generator) -> list[Lesion]:
    """A dense, even lobe or segment that ends sharply at a fissure, with air bronchograms."""
    side, p0, q0, a, b = _zone(scene, rng, (0.25, 0.85), 0.23, 0.22, 0.3)
    window, p, q = around(scene, side, p0, q0, 1.1 * a, 1.15 * b + 0.2 * a)
    tilt = rng.uniform(-0.25, 0.25)
    upward = 1.0 if q0 < scene.hilum[side][1] else -1.0  # upper lobes end at a fissure below them, others above
    x, y = (p - p0) / a, (q - q0 + tilt * (p - p0)) / b
    fissure = step((1.0 - upward * y) * b / 0.012)
    ragged = 0.09 * scene.field(rng, window, 0.04)
    rest = step((1.12 + ragged - np.abs(x) ** 2.4 - np.clip(-upward * y, 0, None) ** 2.4) / 0.6)
    body = fissure * rest
    bronchi = _bronchi(rng, p, q, scene.hilum[side], (p0, q0), a, b)
    dense = rng.uniform(0.50, 0.72)
    delta = body * (dense * air(scene, window) - 0.7 * VESSEL_ATTENUATION * scene.vessels[window])
    delta -= body * 0.30 * bronchi
    return [Lesion(window, delta.astype(np.float32))]


def _bronchi(
    rng: np.random.Generator,
    p: np.ndarray,
    q: np.ndarray,
    hilum: tuple[float, float],
    middle: tuple[float, float],
    a: float,
    b: float,
) -> np.ndarray:
    """Forked lines through a region of half-sizes `a`, `b` that point away from the hilum: 0 to 1 at `p`, `q`."""
    p0, q0 = middle
    heading = math.atan2(q0 - hilum[1], p0 - hilum[0] + 0.05)
    layer = np.zeros(p.shape, dtype=np.float32)
    for spread in rng.uniform(-0.5, 0.5, 3) + np.array([-0.5, 0.0, 0.5]):
        dx, dy = math.cos(heading + spread), math.sin(heading + spread)
        x, y = p - p0 + 0.5 * a * math.cos(heading), q - q0 + 0.5 * b * math.sin(heading)
        along, across = x * dx + y * dy, y * dx - x * dy
        inside = step(along / 0.01 + 0.5) * step((1.1 * min(a, b) - along) / 0.03)
        layer = np.maximum(layer, inside * np.exp(-(((across - 0.8 * along * along) / 0.0042) ** 2)))
    return layer


def edema(scene: Scene, rng: np.random.Generator) -> list[Lesion]:
    """Perihilar haze in the shape of wings, one often denser than the other."""
    reach, tall = rng.uniform(0.07, 0.165), rng.uniform(0.09, 0.22)
    strength, uneven = rng.uniform(0.22, 0.42), rng.uniform(0.6, 1.4)
    middle = 0.5 * (scene.hilum[-1][1] + scene.hilum[1][1]) + rng.uniform(-0.03, 0.07)
    window = scene.window(-0.30, middle - 1.5 * tall, 0.30, middle + 1.5 * tall)
    p, q = scene.coordinates(window)
    side = np.abs(p)
    x, y = (side - 0.085) / reach, (q - middle - 0.15 * side) / tall
    haze = step((1.35 - np.sqrt(x * x + y * y)) / 1.0)
    haze = haze * np.where(p < 0, uneven, 2 - uneven)
    mottle = np.clip(1.0 + 0.22 * scene.field(rng, window, 0.016), 0.3, 1.7)
    return [Lesion(window, (strength * haze * mottle * air(scene, window)).astype(np.float32))]


def emphysema(scene: Scene, rng: np.random.Generator) -> list[Lesion]:
    """Hyperinflation: a dark zone with few vessels, and thin-walled bullae."""
    side = random_side(rng)
    upper, both = rng.random() < 0.7, rng.random() < 0.5
    return [_bullous_zone(scene, rng, s, upper) for s in ((side, -side) if both else (side,))]


def _bullous_zone(scene: Scene, rng: np.random.Generator, side: int, upper: bool) -> Lesion:
    """The dark zone of one lung with its bullae, in its upper or lower part."""
    b = 0.5 * rng.uniform(0.18, 0.40)
    q0 = scene.apex[side] + b if upper else scene.dome[side] - 0.9 * b
    outer = float(scene.outer(side, q0))
    a = 0.5 * (outer - 0.05)
    p0 = 0.055 + a
    window, p, q = around(scene, side, p0, q0, a + 0.04, b + 0.02)
    x, y = (p - p0) / a, (q - q0) / b
    zone = step((1.05 - np.abs(y) ** 3) / 0.3) * step((1.25 - np.abs(x) ** 3) / 0.3)
    delta = -zone * (rng.uniform(0.10, 0.17) * scene.lung[window] + 0.6 * VESSEL_ATTENUATION * scene.vessels[window])
    for _ in range(int(rng.integers(4, 9))):
        radius = rng.uniform(0.018, 0.045)
        cx, cy = p0 + rng.uniform(-0.75, 0.75) * a, q0 + rng.uniform(-0.8, 0.8) * b
        distance = np.sqrt((p - cx) ** 2 + ((q - cy) * 1.1) ** 2) - radius
        bulla = 0.10 * np.exp(-((distance / 0.004) ** 2)) - 0.10 * step(-distance / (0.4 * radius))
        delta += bulla * air(scene, window)
    return Lesion(window, delta.astype(np.float32))


def fibrosis(scene: Scene, rng: np.random.Generator) -> list[Lesion]:
    """A net of fine lines at the bases or the apices, coarser towards the chest wall."""
    side, basal = random_side(rng), rng.random() < 0.65
    both = rng.random() < 0.35
    return [_net(scene, rng, s, basal) for s in ((side, -side) if both else (side,))]


def _net(scene: Scene, rng: np.random.Generator, side: int, basal: bool) -> Lesion:
    """The net of one lung, at its base or its apex."""
    b = 0.5 * rng.uniform(0.14, 0.30)
    a = 0.5 * rng.uniform(0.13, 0.22)
    q0 = scene.dome[side] + 0.03 - b if basal else scene.apex[side] + 0.02 + b
    outer = float(scene.outer(side, q0))
    p0 = outer - a * rng.uniform(0.85, 1.25)
    window, p, q = around(scene, side, p0, q0, 1.1 * a, 1.1 * b)
    x, y = (p - p0) / a, (q - q0) / b
    zone = step((1.1 - np.sqrt(x * x + y * y)) / 0.4)
    lines = np.exp(-((scene.field(rng, window, 0.020) / 0.20) ** 2))
    lines = np.maximum(lines, 0.8 * np.exp(-((scene.field(rng, window, 0.012) / 0.22) ** 2)))
    delta = zone * (rng.uniform(0.20, 0.36) * lines + 0.03)
    return Lesion(window, (delta * air(scene, window)).astype(np.float32))
