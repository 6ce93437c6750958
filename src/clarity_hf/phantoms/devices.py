# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""What is on radiographs besides findings: lines, tubes, electrodes, lead letters, the edges of the plate."""

from __future__ import annotations

import numpy as np
import PIL.Image
import PIL.ImageDraw

from .geometry import Geometry
from .rendering import Canvas

# Strokes of the lead letters, x and y in the letter's height.
_LETTERS: dict[str, list[tuple[tuple[float, float], ...]]] = {
    "L": [((0, 0), (0, 1), (0.6, 1))],
    "R": [((0, 1), (0, 0), (0.45, 0), (0.6, 0.2), (0.45, 0.45), (0, 0.45)), ((0.25, 0.45), (0.6, 1))],
}


def draw_devices(geometry: Geometry, rng: np.random.Generator, base: np.ndarray) -> np.ndarray:
    """Attenuation `(H, W)` of patient and devices.

    `base` is the attenuation of the patient, which is not changed; `rng` is the stream of the devices.
    """
    ap = geometry.exam.view == "AP"
    canvas = Canvas(geometry)
    u = rng.random(40)
    top = geometry.person.apex
    if u[0] < (0.40 if ap else 0.05):
        _draw_electrodes(canvas, geometry, rng)
    if u[1] < (0.28 if ap else 0.05):
        _draw_central_line(canvas, geometry, u[2:8])
    if u[8] < (0.20 if ap else 0.01):
        # Endotracheal tube, its wall marked on one side.
        end = geometry.heart_top - 0.06 - 0.05 * u[9]
        canvas.line([0.012 * (u[10] - 0.5), 0.004, -0.003], [-0.2, top, end], 0.0075, 0.30)
        canvas.line([0.012 * (u[10] - 0.5) + 0.005, 0.008, 0.001], [-0.2, top, end], 0.002, 0.55)
    if u[11] < (0.18 if ap else 0.02):
        # Nasogastric tube.
        q = np.array([-0.2, top, geometry.heart_top, geometry.dome[1] + 0.03, geometry.dome[1] + 0.09])
        canvas.line(np.array([0.0, 0.01, 0.014, 0.03, 0.10 + 0.05 * u[12]]), q, 0.004, 0.5)
    if u[13] < (0.06 if ap else 0.035):
        _draw_pacemaker(canvas, geometry, u[14:20])
    if u[20] < 0.10:
        side, across, along = (-1 if u[21] < 0.5 else 1), 0.15 + 0.6 * u[22], 0.25 + 0.6 * u[23]
        scar_p, scar_q = geometry.spot(side, across, along)
        canvas.disc(side * scar_p, scar_q, 0.0045 + 0.002 * u[24], 0.6)  # calcified scar
    if u[25] < 0.05:
        for k in range(5):
            canvas.line([-0.006, 0.006], [0.26 + 0.07 * k, 0.265 + 0.07 * k], 0.004, 0.8)  # sternal wires
    attenuation = base.copy() if canvas.image.getbbox() is None else base + 0.75 * canvas.layer()
    return _draw_plate(geometry, rng, attenuation)


def _draw_electrodes(canvas: Canvas, geometry: Geometry, rng: np.random.Generator) -> None:
    """Two to five electrodes with their cables, alternately left and right."""
    u = rng.random((5, 4))
    for k in range(2 + int(rng.integers(0, 4))):
        side = 1 if k % 2 else -1
        p, q = side * (0.12 + 0.24 * u[k, 0]), geometry.person.apex + 0.05 + 0.62 * u[k, 1]
        canvas.disc(p, q, 0.012, 0.30)
        canvas.disc(p, q, 0.005, 0.85)
        bend = side * 0.15 * (u[k, 2] - 0.3)
        t = np.linspace(0, 1, 9)
        down = 1.0 if u[k, 3] < 0.6 else -1.0
        canvas.line(p + bend * np.sin(2.2 * t) + 0.06 * side * t * t, q + down * (1.1 - 0.3 * q) * t, 0.0028, 0.42)


def _draw_central_line(canvas: Canvas, geometry: Geometry, u: np.ndarray) -> None:
    """A catheter from the neck or below the clavicle to the upper end of the heart."""
    side = -1 if u[0] < 0.7 else 1
    tip = geometry.heart_top - 0.03 + 0.08 * u[1]
    start = (0.07, -0.1) if u[2] < 0.5 else (0.30, geometry.person.apex + 0.05)
    t = np.linspace(0, 1, 9)
    knee_p, knee_q = 0.045 * side, geometry.person.apex + 0.08
    p = (1 - t) ** 2 * start[0] * side + 2 * t * (1 - t) * knee_p + t**2 * -0.038
    q = (1 - t) ** 2 * start[1] + 2 * t * (1 - t) * knee_q + t**2 * tip
    canvas.line(p, q, 0.0038, 0.48)


def _draw_pacemaker(canvas: Canvas, geometry: Geometry, u: np.ndarray) -> None:
    """A case below the clavicle and its lead into the heart."""
    side = 1 if u[0] < 0.8 else -1
    p, q = side * (0.235 + 0.03 * u[1]), geometry.person.apex + 0.13 + 0.04 * u[2]
    t = np.linspace(0, 2 * np.pi, 17)
    canvas.polygon(p + 0.040 * np.cos(t) * (1 + 0.1 * np.cos(2 * t)), q + 0.034 * np.sin(t), 0.8)
    canvas.polygon(p + 0.022 * np.cos(t), q + 0.006 + 0.017 * np.sin(t), 1.0)
    s = np.linspace(0, 1, 11)
    end_p, end_q = 0.06 + 0.05 * u[3], geometry.heart_bottom - 0.05
    path_p = (1 - s) ** 3 * p + 3 * s * (1 - s) ** 2 * 0.10 * side - 3 * s**2 * (1 - s) * 0.09 + s**3 * end_p
    path_q = (1 - s) ** 3 * q + 3 * s * (1 - s) ** 2 * (q - 0.08) + 3 * s**2 * (1 - s) * (end_q - 0.05) + s**3 * end_q
    canvas.line(path_p, path_q, 0.004, 0.75)


def _draw_plate(geometry: Geometry, rng: np.random.Generator, attenuation: np.ndarray) -> np.ndarray:
    """Add lead letters and collimated edges, which are fixed to the plate and not to the patient."""
    u = rng.random(14)
    height, width, unit = geometry.height, geometry.width, geometry.unit
    if u[0] < 0.85:
        factor = 2
        side = max(int(0.07 * unit), 6)
        image = PIL.Image.new("L", (side * factor, side * factor))
        pen = PIL.ImageDraw.Draw(image)
        letter = "L" if u[1] < 0.75 else "R"
        k = side * factor * (0.5 + 0.3 * u[2])
        for stroke in _LETTERS[letter]:
            points = [(0.15 * side * factor + x * k, 0.1 * side * factor + y * k) for x, y in stroke]
            pen.line(points, fill=255, width=max(int(k * 0.16), 2))
        mark = np.asarray(image.rotate(float(30 * (u[3] - 0.5))).reduce(factor), dtype=np.float32) / 255
        x = (0.80 + 0.11 * u[4]) * width if letter == "L" else (0.02 + 0.1 * u[4]) * width
        y = (0.02 + 0.13 * u[5]) * height
        window = (slice(int(y), int(y) + side), slice(int(x), int(x) + side))
        attenuation[window] += 1.7 * mark[: attenuation[window].shape[0], : attenuation[window].shape[1]]
    if u[6] < 0.22:
        value = -0.5 if u[7] < 0.7 else 2.2
        depth_x, depth_y = (int(0.05 * v**1.5 * unit) for v in u[8:10])
        attenuation[:, :depth_x] = value
        attenuation[:, width - depth_x // 2 :] = value
        attenuation[:depth_y] = value
    return attenuation
