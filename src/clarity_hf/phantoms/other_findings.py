# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Painters of the findings around the lungs: heart, pleura and diaphragm.

A painter takes the normal image and the finding's own random stream, and returns one lesion or one per side.
"""

from __future__ import annotations

import numpy as np

from .anatomy import draw_heart
from .geometry import step
from .lesions import Lesion, air, lognormal, random_side
from .scene import LUNG_ATTENUATION, VESSEL_ATTENUATION, Scene

_ENLARGED_HEART_RATIO = (0.53, 0.68)  # least and most, heart over thorax


def cardiomegaly(scene: Scene, rng: np.random.Generator) -> list[Lesion]:
    """A heart of more than half the width of the thorax replaces the normal one."""
    ratio, sag = rng.uniform(*_ENLARGED_HEART_RATIO), rng.uniform(0.0, 0.035)
    margin = 0.03
    breadth = ratio * (scene.half[-1] + scene.half[1])
    left = scene.person.heart_lean * breadth + scene.exam.turn
    right = (1 - scene.person.heart_lean) * breadth - scene.exam.turn
    window = scene.window(
        -right - margin, scene.heart_top - margin, left + margin, scene.heart_bottom + sag + 2 * margin
    )
    enlarged = draw_heart(scene, ratio, sag, window)
    delta = scene.heart_weight[window] * (enlarged - scene.heart[window])
    return [Lesion(window, delta, extent=enlarged > 0.15, silhouette=enlarged > 0.15)]


def effusion(scene: Scene, rng: np.random.Generator) -> list[Lesion]:
    """Fluid fills the base of the lung up to a meniscus, higher at the chest wall."""
    side = random_side(rng)
    return [_fluid(scene, rng, s) for s in ((side, -side) if rng.random() < 0.16 else (side,))]


def _fluid(scene: Scene, rng: np.random.Generator, side: int) -> Lesion:
    """The fluid of one side."""
    bottom = scene.dome[side] + scene.sulcus[side]
    height = lognormal(rng, 0.26, 0.50, 0.085, 0.55)
    climb = rng.uniform(0.35, 0.65) * height
    top = bottom - height
    outer = float(scene.outer(side, bottom - 0.03))
    window, p, q = scene.mirrored(side, 0.03, top - 0.02, outer + 0.02, bottom + 0.04)
    wall = np.clip((scene.outer(side, q) - p) / (outer - 0.03), 0.0, 1.0)
    level = top + climb * (1.0 - (1.0 - wall) ** 3.0) + rng.uniform(0.0, 0.25) * height * wall
    fluid = step((q - level) / 0.022)
    fluid = fluid * (0.72 + 0.28 * step((q - level) / (0.6 * height)))
    displaced = rng.uniform(0.55, 0.85) * LUNG_ATTENUATION * scene.lung[window]
    delta = fluid * (displaced - 0.5 * VESSEL_ATTENUATION * scene.vessels[window])
    return Lesion(window, delta.astype(np.float32))


def pneumothorax(scene: Scene, rng: np.random.Generator) -> list[Lesion]:
    """Air between lung and chest wall: darker, without vessels, with the thin line of the lung's surface."""
    side = random_side(rng)
    depth = lognormal(rng, 0.15, 0.6, 0.06, 0.55)  # how far down it reaches
    gap = lognormal(rng, 0.057, 0.35, 0.032, 0.13)
    top, end = scene.apex[side], scene.apex[side] + depth + 0.03
    window, p, q = scene.mirrored(side, 0.03, top - 0.02, scene.half[side] + 0.01, end + 0.01)
    # Surface of the collapsed lung: its outline moved inwards and down, less further below.
    taper = np.clip((end - q) / (end - top), 0.0, 1.0) ** 0.7
    lateral = scene.outer(side, q) - p
    below = q - scene.roof(side, p)
    inwards = np.minimum(lateral - gap * taper, (below - 0.8 * gap) * 0.9)
    free = step(-inwards / 0.004) * (q < end) * (scene.lung_mask[window])
    line = np.exp(-((inwards / 0.0035) ** 2)) * (q < end) * np.minimum(taper * 4, 1)
    dark = rng.uniform(0.10, 0.20)
    delta = -free * (dark * np.sqrt(scene.lung[window]) + 0.9 * VESSEL_ATTENUATION * scene.vessels[window])
    delta = delta + rng.uniform(0.18, 0.30) * line * air(scene, window)
    return [Lesion(window, delta.astype(np.float32))]


def pleural_thickening(scene: Scene, rng: np.random.Generator) -> list[Lesion]:
    """A dense rim on the inside of the chest wall, or a cap on the apex."""
    side = random_side(rng)
    thick, strength = rng.uniform(0.014, 0.032), rng.uniform(0.36, 0.60)
    cap = rng.random() < 0.3
    height = scene.dome[side] - scene.apex[side]
    if cap:
        q_low, q_high = scene.apex[side] - 0.01, scene.apex[side] + rng.uniform(0.06, 0.12)
    else:
        q_low = scene.apex[side] + rng.uniform(0.15, 0.55) * height
        q_high = min(q_low + lognormal(rng, 0.20, 0.35, 0.09, 0.40), scene.dome[side] - 0.01)
    window, p, q = scene.mirrored(side, 0.04, q_low, scene.half[side] + 0.01, q_high)
    inwards = scene.outer(side, q) - p
    if cap:
        inwards = np.minimum(inwards, 1.2 * (q - scene.roof(side, p)))
    wave = 1.0 + 0.35 * np.sin((q - q_low) * rng.uniform(20, 60) + rng.uniform(0, 6.3))
    ends = step((q - q_low) / 0.03 + (1.0 if cap else 0.0)) * step((q_high - q) / 0.03)
    rim = step((thick * wave * ends - inwards) / 0.008 + 0.5) * (inwards > 0) * (ends > 0.02)
    return [Lesion(window, (strength * rim * scene.lung_mask[window]).astype(np.float32))]


def hernia(scene: Scene, rng: np.random.Generator) -> list[Lesion]:
    """Stomach above the diaphragm: a round density behind the heart with gas over a fluid level."""
    radius = rng.uniform(0.050, 0.095)
    p0, q0 = rng.uniform(-0.03, 0.065), scene.dome[1] - rng.uniform(0.25, 0.9) * radius
    window = scene.window(p0 - 1.3 * radius, q0 - 1.2 * radius, p0 + 1.3 * radius, q0 + 1.2 * radius)
    p, q = scene.coordinates(window)
    x, y = (p - p0) / (1.12 * radius), (q - q0) / radius
    inside = 1.0 - np.sqrt(x * x + y * y)
    level = rng.uniform(-0.25, 0.25)
    gas = step(inside / 0.15 - 0.4) * step((level - y) / 0.06 + 0.5)
    fluid = step(inside / 0.12) * step((y - level) / 0.06 + 0.5)
    wall = np.exp(-(((inside - 0.05) / 0.05) ** 2))
    delta = rng.uniform(0.16, 0.26) * fluid - rng.uniform(0.22, 0.36) * gas + 0.20 * wall
    return [Lesion(window, delta.astype(np.float32))]
