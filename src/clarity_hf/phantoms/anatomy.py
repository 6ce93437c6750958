# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Soft layers of the normal chest: lungs, heart, mediastinum, trunk and texture.

Attenuations are in units of the trunk's soft tissue.
"""

from __future__ import annotations

import numpy as np

from .geometry import Geometry, Window, chord, enlarge, step

_MEDIASTINUM_ATTENUATION, _ABDOMEN_ATTENUATION = 0.11, 0.24


def draw_lungs(geometry: Geometry) -> tuple[np.ndarray, np.ndarray]:
    """Depth of air, `(H, W)` float32 from 0 to 1, and the silhouette of the lungs, `(H, W)` bool."""
    depth = np.zeros((geometry.height, geometry.width), dtype=np.float32)
    mask = np.zeros((geometry.height, geometry.width), dtype=bool)
    for side in (-1, 1):
        top, bottom = min(geometry.apex.values()) - 0.02, max(geometry.dome.values()) + 0.15
        window = geometry.window(side * -0.02, top, side * (geometry.half[side] + 0.01), bottom)
        upper, lower = geometry.above(window, geometry.dome[side] - 0.13)
        for band in (*geometry.bands(upper), *geometry.bands(lower)):
            p, q = geometry.coordinates(band)
            p = p * side
            lateral = geometry.outer(side, q).astype(np.float32) - p
            # The diaphragm does not matter high above its dome.
            above = geometry.floor(side, p) - q if band[0].start >= lower[0].start else np.ones((1, 1))
            below = q - geometry.roof(side, p)
            t = np.clip((q - geometry.apex[side]) / geometry.person.height, 0, 1)
            medial = p - geometry.inner
            part = chord(lateral / 0.075) * (0.62 * step(medial / 0.02 + 0.3) + 0.38 * step(medial / 0.11))
            part *= step(below / 0.028) * step(above / 0.009)
            part *= (0.78 + 0.22 * step(above / 0.12)) * (0.74 + 0.26 * t)
            depth[band] += part.astype(np.float32)
            mask[band] |= (lateral > 0) & (above > 0) & (below > 0) & (p > geometry.inner)
    return depth, mask


def draw_heart(geometry: Geometry, ratio: float, sag: float = 0.0, window: Window | None = None) -> np.ndarray:
    """Depth of a heart in a window, by default the entire image: `(h, w)` float32 from 0 to 1.

    `ratio` is its width as a share of the thorax's; `sag` lengthens it downwards, in units of the patient frame.
    """
    breadth = ratio * (geometry.half[-1] + geometry.half[1])
    left, right = geometry.person.heart_lean * breadth, (1 - geometry.person.heart_lean) * breadth
    if window is None:
        layer = np.zeros((geometry.height, geometry.width), dtype=np.float32)
        tall = 1.1 * (geometry.heart_bottom + sag - geometry.heart_top)
        turn, top = geometry.exam.turn, geometry.heart_top
        window = geometry.window(turn - max(right, 0.04), top, turn + max(left, 0.042), top + tall)
        for band in geometry.bands(window):
            layer[band] = draw_heart(geometry, ratio, sag, band)
        return layer
    p, q = geometry.coordinates(window)
    p = p - geometry.exam.turn
    t = (q - geometry.heart_top) / (geometry.heart_bottom + sag - geometry.heart_top)
    c = np.clip(t, 0.0, 1.0)
    rise = np.sin(0.5 * np.pi * np.minimum(c / 0.78, 1.0)) ** 1.25 - 0.32 * np.clip((c - 0.78) / 0.22, 0, 1) ** 2
    left_border = 0.042 + (left - 0.042) * rise
    right_border = 0.04 + (right - 0.04) * np.sin(np.pi * np.clip(0.04 + 0.86 * c, 0, 1)) ** 0.75
    layer = chord((left_border - p) / 0.10) * chord((p + right_border) / 0.09)
    return (layer * (step(t / 0.22) * step((1.09 - t) / 0.14))).astype(np.float32)


def draw_mediastinum(geometry: Geometry) -> tuple[np.ndarray, np.ndarray]:
    """Attenuation of the great vessels, the trachea and the spine, `(H, W)` float32, and their silhouette, bool."""
    person = geometry.person
    top, knob_q = person.apex, geometry.heart_top - 0.075
    layer = np.zeros((geometry.height, geometry.width), dtype=np.float32)
    mask = np.zeros((geometry.height, geometry.width), dtype=bool)
    floor = min(geometry.dome.values()) + 0.02
    carina = geometry.heart_top - 0.045
    upper, lower = geometry.above(geometry.window(-0.16, -0.3, 0.16, 1.4), carina + 0.07)
    for band in (*geometry.bands(upper), *geometry.bands(lower)):
        p, q = geometry.coordinates(band)
        shifted = p - 0.6 * geometry.exam.turn
        knob = person.knob * np.exp(-(((q - knob_q) / (1.1 * person.knob)) ** 2))
        trunk = 0.014 * np.exp(-(((q - geometry.heart_top + 0.005) / 0.03) ** 2))
        left = 0.047 + 0.012 * step((top + 0.12 - q) / 0.15) + knob + trunk
        right = 0.048 + 0.008 * step((top + 0.16 - q) / 0.2)
        inside = chord((left - shifted) / 0.03) * chord((shifted + right) / 0.03)
        fade = step((q - 0.02) / 0.1)
        # The great vessels hide the inner rim of the lungs.
        part = _MEDIASTINUM_ATTENUATION * inside * fade * 1.6
        if band[0].start < upper[0].stop:
            part -= 0.20 * _windpipe(shifted, q, carina)
        spine = step((0.036 - np.abs(p)) / 0.012)
        discs = 0.75 + 0.25 * np.cos(2 * np.pi * (q + person.rib_slope) / 0.056)
        part += 0.07 * spine * discs
        part += 0.03 * np.exp(-(((np.abs(p) - 0.034) / 0.006) ** 2)) * discs
        layer[band] = part
        mask[band] = (shifted < left) & (shifted > -right) & (q > top) & (q < floor)
    return layer, mask


def _windpipe(shifted: np.ndarray, q: np.ndarray, carina: float) -> np.ndarray:
    """Air in the trachea and the main bronchi, 0 to 1; they end 0.06 below the carina."""
    windpipe = step((0.021 - np.abs(shifted + 0.004)) / 0.009) * step((carina - q) / 0.03)
    near = step((carina + 0.06 - q) / 0.03)
    branch = np.abs(np.abs(shifted) - np.clip((q - carina + 0.02) * 0.75, 0, 0.09))
    return np.maximum(windpipe, 0.7 * step((0.014 - branch) / 0.008) * step((q - carina + 0.02) / 0.02) * near)


def draw_body(geometry: Geometry, window: Window) -> np.ndarray:
    """Attenuation of the trunk without lungs, neck, arms and what is below the diaphragm, `(h, w)` float32."""
    person = geometry.person
    p, q = geometry.coordinates(window)
    side = np.abs(p)
    trunk = 0.5 * (geometry.outer(-1, q) + geometry.outer(1, q)) + person.fat + 0.035
    slope = step((q - person.apex + 0.16) / 0.24)
    # Shoulders join the arms and, at the folds of the axillae, the trunk.
    axilla = np.clip((q - person.apex - 0.08) / 0.6, 0.0, 1.0)
    shoulder = 0.075 + (0.46 - 0.24 * axilla) * slope
    half = np.maximum(np.maximum(trunk * step((q - person.apex + 0.02) / 0.16), shoulder), 0.082)
    half = half.astype(np.float32)
    body = chord((half - side) / 0.13)
    body *= (0.55 + 0.45 * step((q + 0.06) / 0.26)).astype(np.float32)
    # Shoulders are thinner than the trunk.
    body *= 1.0 - 0.40 * step((side - 0.80 * trunk - 0.06) / 0.22).astype(np.float32)
    arm_middle = 0.475 + 0.12 * np.clip(q - 0.25, 0, 1) + (0.06 if geometry.exam.view == "PA" else 0.0)
    arm = 0.58 * chord((0.068 - np.abs(side - arm_middle)) / 0.05) * step((q - person.apex - 0.02) / 0.08)
    body = np.maximum(body, arm)
    if person.breast > 0:
        body += _draw_breasts(geometry, side, q)
    body += _ABDOMEN_ATTENUATION * step((q - min(geometry.dome.values()) + 0.02) / 0.2) * chord((half - side) / 0.2)
    return body.astype(np.float32)


def _draw_breasts(geometry: Geometry, side: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Attenuation of the breasts at the distances `side` from the midline, in the rows `q`."""
    person = geometry.person
    size = 0.11 + 0.05 * person.breast
    p, q = (side - 0.55 * person.half_width) / (1.15 * size), (q - (0.58 + 0.05 * person.breast)) / size
    return (0.07 + 0.16 * person.breast) * step((1.0 - p * p - np.where(q > 0, q * q, 0.45 * q * q)) / 0.35)


def draw_texture(geometry: Geometry, rng: np.random.Generator, lung: np.ndarray) -> np.ndarray:
    """Attenuation that makes soft tissue uneven: clouds of two sizes, a slope and, in some, gas in the stomach.

    `lung` is the `(H, W)` depth of air, as lungs are more uneven than other tissue. Returns `(H, W)` float32.
    """
    coarse = enlarge(rng.standard_normal((7, 7), dtype=np.float32), geometry.height, geometry.width)
    fine = enlarge(rng.standard_normal((44, 44), dtype=np.float32), geometry.height, geometry.width)
    slope = 0.16 * (rng.random(2) - 0.5)
    clouds = np.empty_like(lung)
    for band in geometry.bands():
        p, q = geometry.coordinates(band)
        part = coarse[band] * 0.035
        part += fine[band] * (0.012 + 0.022 * np.sqrt(lung[band]))
        part += (slope[0] * p + slope[1] * (q - 0.5)).astype(np.float32)
        clouds[band] = part
    u = rng.random(5)
    if u[0] < 0.55:
        p0, q0 = 0.12 + 0.06 * u[1], geometry.dome[1] + 0.045 + 0.03 * u[2]
        a, b = 0.035 + 0.035 * u[3], 0.020 + 0.025 * u[4]
        window = geometry.window(p0 - a, q0 - b, p0 + a, q0 + b)
        p, q = geometry.coordinates(window)
        clouds[window] -= 0.30 * step((1.0 - ((p - p0) / a) ** 2 - ((q - q0) / b) ** 2) / 0.5)
    return clouds
