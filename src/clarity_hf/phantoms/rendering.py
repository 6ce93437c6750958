# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Strokes in the patient frame, and what they draw: the vessels of the lungs and the bones."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import PIL.Image
import PIL.ImageDraw

from .geometry import Geometry

Coordinates = Sequence[float] | np.ndarray
"""`p` or `q` of the points of a stroke."""

Stroke = tuple[float, list[float], list[float]]
"""Width, `p` and `q` of a stroke."""

_RIB_ATTENUATION = 0.16  # in units of the trunk's soft tissue
_FINEST_VESSEL = 0.0011  # thinner ones are invisible, but would be most of the strokes


class Canvas:
    """Antialiased strokes in the patient frame, drawn enlarged and reduced; values 0 to 1."""

    def __init__(self, geometry: Geometry) -> None:
        # Strokes of small images are a few pixels wide and need a larger factor.
        self.factor = 2 if geometry.unit >= 160 else 4
        self.image = PIL.Image.new("L", (geometry.width * self.factor, geometry.height * self.factor))
        self.pen = PIL.ImageDraw.Draw(self.image)
        exam = geometry.exam
        self._k = exam.scale * geometry.unit * self.factor
        self._x0 = ((exam.center[0] - 0.5) * geometry.unit + geometry.width / 2) * self.factor
        self._y0 = ((exam.center[1] - 0.5) * geometry.unit + geometry.height / 2) * self.factor
        self._shear = exam.shear * geometry.unit * self.factor

    def points(self, p: Coordinates, q: Coordinates) -> np.ndarray:
        """Positions in pixels of the enlarged image, `(..., 2 n)`: x and y alternate."""
        p, q = np.asarray(p, dtype=np.float64), np.asarray(q, dtype=np.float64) - 0.5
        x, y = p * self._k + self._x0 + self._shear * q, q * self._k + self._y0
        return np.stack([x, y], axis=-1).reshape(*p.shape[:-1], -1)

    def line(self, p: Coordinates, q: Coordinates, width: float, value: float) -> None:
        """Polyline of a width in units of the patient frame; replaces what is below it."""
        self.lines([p], [q], [width], [value])

    def lines(self, p: Any, q: Any, widths: Coordinates, values: Coordinates) -> None:
        """Polylines with equal numbers of points, one after the other, as [`Canvas.line`]."""
        pixels = np.asarray(widths) * self._k
        # Lines thinner than a pixel are drawn a pixel wide and fainter.
        inks = (255 * (np.asarray(values) * np.minimum(pixels, 1.0))).astype(int)
        strokes = (self.points(p, q).tolist(), inks.tolist(), np.maximum(np.rint(pixels), 1).astype(int).tolist())
        for xy, ink, width in zip(*strokes, strict=True):
            self.pen.line(xy, ink, width)

    def bone(self, p: Coordinates, q: Coordinates, widths: tuple[float, float], values: tuple[float, float]) -> None:
        """Polyline with a dense rim and a lighter middle: widths and values of the entire bone and of the middle."""
        self.bones([(p, q, 1.0)], widths, values)

    def bones(self, middles: list[tuple[Any, Any, float]], widths: Sequence[float], values: Sequence[float]) -> None:
        """Bones with equal numbers of points, one after the other: `p`, `q`, and a factor on `widths`."""
        ps, qs = ([middle[part] for middle in middles for _ in widths] for part in (0, 1))
        self.lines(ps, qs, [width * factor for *_, factor in middles for width in widths], [*values] * len(middles))

    def disc(self, p: float, q: float, radius: float, value: float) -> None:
        """Filled circle of a radius in units of the patient frame."""
        x, y = self.points([p], [q]).tolist()
        r = max(radius * self._k, 1.0)
        self.pen.ellipse((x - r, y - r, x + r, y + r), fill=int(255 * value))

    def polygon(self, p: Coordinates, q: Coordinates, value: float) -> None:
        """Filled polygon."""
        self.pen.polygon(self.points(p, q).tolist(), fill=int(255 * value))

    def layer(self) -> np.ndarray:
        """What was drawn, `(H, W)` float32 from 0 to 1."""
        return np.asarray(self.image.reduce(self.factor), dtype=np.float32) * np.float32(1 / 255)


def draw_vessels(geometry: Geometry, rng: np.random.Generator) -> np.ndarray:
    """Depth of the vessels of both lungs, `(H, W)` float32: trees that leave the hila, fork and taper."""
    canvas = Canvas(geometry)
    strokes: list[Stroke] = []
    for side in (-1, 1):
        p0, q0 = geometry.hilum[side]
        starts = rng.normal(0, 0.014, (8, 2)).tolist()
        directions = np.linspace(-1.40, 1.45, 8) + rng.normal(0, 0.13, 8)
        for (dp, dq), direction in zip(starts, directions, strict=True):
            reach = 0.14 + 0.08 * abs(direction) + 0.08 * rng.random()
            root = (p0 + dp - 0.01, q0 + dq + 0.03 * math.sin(direction))
            strokes.extend(_grow_vessel(rng, side, *root, float(direction), reach, 0.0125, 0))
    strokes.sort(key=lambda stroke: stroke[0])
    widths, ps, qs = (np.array(part) for part in zip(*strokes, strict=True))
    canvas.lines(ps, qs, widths, np.minimum(0.16 + 68 * widths, 1.0))
    layer = canvas.layer()
    for side in (-1, 1):
        # The hilum: a knot of vessels seen end-on.
        p0, q0 = geometry.hilum[side]
        window, p, q = geometry.mirrored(side, p0 - 0.07, q0 - 0.09, p0 + 0.07, q0 + 0.09)
        knot = np.exp(-(((p - p0 + 0.012) / 0.03) ** 2) - ((q - q0) / 0.045) ** 2)
        layer[window] += 0.75 * knot
    return layer


def _grow_vessel(
    rng: np.random.Generator,
    side: int,
    p: float,
    q: float,
    direction: float,
    reach: float,
    width: float,
    depth: int,
) -> Iterator[Stroke]:
    """Strokes of a vessel and of its branches; `p` and `side` as for the lungs."""
    steps = 5 if depth == 0 else 3
    bends, forks = rng.normal(0, 0.16, steps).tolist(), rng.random((steps, 2)).tolist()
    length = reach / steps
    for i in range(steps):
        start = (p, q)
        direction += bends[i]
        p, q = p + length * math.cos(direction), q + length * math.sin(direction)
        ps, qs = [side * start[0], side * p], [start[1], q]
        yield width, ps, qs
        width *= 0.72
        if width < _FINEST_VESSEL:
            return
        if depth < 2 and forks[i][0] < (0.85 if depth == 0 else 0.5):
            turn = (0.35 + 0.5 * forks[i][1]) * (1 if (i + depth) % 2 else -1)
            yield from _grow_vessel(rng, side, p, q, direction + turn, 0.55 * reach, width * 0.8, depth + 1)


def draw_bones(geometry: Geometry, rng: np.random.Generator) -> list[np.ndarray]:
    """Attenuation of ribs, clavicles, scapulae and humeri, by [`Geometry.bands`]."""
    person = geometry.person
    back, front = Canvas(geometry), Canvas(geometry)
    spacing = (geometry.dome[-1] - person.apex) / 8.6
    u = rng.random(40)
    t = np.linspace(0, 1, 13)
    back_ribs: list[tuple[Any, Any, float]] = []
    front_ribs: list[tuple[Any, Any, float]] = []
    for side in (-1, 1):
        for i in range(10):
            q0 = person.apex - 0.025 + i * spacing + side * geometry.exam.tilt + 0.004 * (u[i] - 0.5)
            end = float(geometry.outer(side, q0 + person.rib_slope)) + 0.008
            p = 0.035 + (end - 0.035) * t
            drop = person.rib_slope + 0.014 * i
            q = q0 - 0.035 * np.sin(np.pi * np.minimum(t * 1.25, 1)) + drop * t**2.2 + 0.2 * np.maximum(t - 0.85, 0)
            width = 0.0175 + 0.004 * u[10 + i]
            back_ribs.append((side * p, q, width))
            if 1 <= i < 8:
                # The anterior part of the same rib; its cartilage is invisible.
                stop = 0.30 + 0.012 * i
                pf = end + (end * stop - end) * t
                qf = q[-1] + (0.10 + 0.008 * i) * t**0.8
                front_ribs.append((side * pf, qf, width))
    back.bones(back_ribs, (1.0, 0.62), (0.95, 0.62))
    front.bones(front_ribs, (1.15, 0.7), (0.9, 0.68))
    back_layer, front_layer = back.layer(), front.layer()
    girdle = Canvas(geometry)
    for side in (-1, 1):
        _draw_scapula(girdle, geometry, side, u[22:26])
        s = side * (1.0 + 0.05 * (u[20] - 0.5))
        shift = geometry.exam.turn
        lift = 0.03 * (u[21] - 0.5) + side * geometry.exam.tilt
        p = np.array([0.025, 0.07, 0.13, 0.20, 0.27, 0.33]) * s + shift
        q = person.apex + lift + np.array([0.075, 0.055, 0.04, 0.028, 0.008, -0.005]) + 0.012 * np.sin(np.arange(6))
        girdle.bone(p, q, (0.024, 0.014), (0.85, 0.62))
        arm = 0.475 + (0.06 if geometry.exam.view == "PA" else 0.0)
        girdle.disc(side * (arm - 0.02), person.apex + 0.06, 0.035, 0.75)
        humerus_p, humerus_q = [side * (arm - 0.01), side * (arm + 0.06)], [person.apex + 0.07, person.apex + 0.55]
        girdle.bone(humerus_p, humerus_q, (0.032, 0.016), (0.8, 0.55))
    rest = girdle.layer()
    return [
        _RIB_ATTENUATION * person.rib_density * (back_layer[band] + 0.32 * front_layer[band]) + 0.24 * rest[band]
        for band in geometry.bands()
    ]


def _draw_scapula(canvas: Canvas, geometry: Geometry, side: int, u: np.ndarray) -> None:
    """A faint triangle, mostly rotated out of the lung on PA images."""
    out = 0.05 if geometry.exam.view == "PA" else 0.0
    top = geometry.person.apex + 0.03 + 0.02 * u[0]
    p = np.array([0.27, 0.36, 0.37, 0.32, 0.295]) + out + 0.02 * (u[1] - 0.5)
    q = top + np.array([0.04, 0.0, 0.08, 0.27, 0.17]) + 0.01 * u[2]
    canvas.polygon(side * p, q, 0.18)
    canvas.line(side * p[[0, 4, 3]], q[[0, 4, 3]], 0.007, 0.38)
    canvas.line(side * p[[3, 2]], q[[3, 2]], 0.009, 0.45)
