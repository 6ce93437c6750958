# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""The person, the exam, and the geometry of the chest in the patient frame `(p, q)` of the package's docstring."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import PIL.Image

from .statistics import AP_SHARE

Window = tuple[slice, slice]
"""Rows and columns of a rectangle of pixels."""

_NORMAL_HEART_RATIO = (0.38, 0.49)  # range of heart over thorax; above one half is enlarged
_CLOUD_NODES = 48  # along a side of the grid of `Geometry.field`
_BAND_PIXELS = 1 << 16


@dataclass(frozen=True)
class Person:
    """What stays the same over a patient's images; lengths in units of the patient frame.

    Attributes:
        sex: `"M"` or `"F"`.
        age: In years.
        half_width: Of the lungs, at their base.
        apex: `q` of the top of the lungs.
        height: Of the lungs, from the apex to the right dome.
        left_drop: Of the left dome below the right.
        fat: Soft tissue outside the ribs.
        heart_ratio: Heart over thorax, of the normal heart.
        heart_lean: Share of the heart left of the midline.
        knob: Radius of the aortic knob.
        breast: Size and density of the breasts, in [0, 1].
        rib_slope: `q` by which ribs fall outwards.
        rib_density: Factor on the attenuation of ribs.
        apex_pointed: Curvature of the top of the lungs: `q` per `p` squared.
    """

    sex: str
    age: int
    half_width: float
    apex: float
    height: float
    left_drop: float
    fat: float
    heart_ratio: float
    heart_lean: float
    knob: float
    breast: float
    rib_slope: float
    rib_density: float
    apex_pointed: float

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Person:
        """Draw a person between 5 and 92 years old."""
        u = rng.random(16)
        sex = "M" if u[0] < 0.56 else "F"
        female = sex == "F"
        age = int(np.clip(round(49 + 17 * (u[1] + u[2] + u[3] - 1.5) * 2), 5, 92))
        return cls(
            sex=sex,
            age=age,
            half_width=0.315 + 0.05 * u[4] - 0.012 * female,
            apex=0.105 + 0.05 * u[5],
            height=0.54 + 0.10 * u[6],
            left_drop=-0.005 + 0.035 * u[7],
            fat=0.035 + 0.05 * u[8] ** 1.5,
            heart_ratio=_NORMAL_HEART_RATIO[0] + (_NORMAL_HEART_RATIO[1] - _NORMAL_HEART_RATIO[0]) * u[9],
            heart_lean=0.62 + 0.10 * u[10],
            knob=0.024 + 0.014 * min(age / 80, 1) + 0.006 * u[11],
            breast=(0.35 + 0.65 * u[12]) if female and age > 14 else 0.0,
            rib_slope=0.05 + 0.05 * u[13],
            rib_density=(0.75 + 0.5 * u[14]) * (1.0 - 0.25 * max(age - 60, 0) / 40),
            apex_pointed=4.5 + 4.0 * u[15],
        )


@dataclass(frozen=True)
class Exam:
    """What differs between a patient's images: view, position, exposure.

    Attributes:
        view: `"PA"` or `"AP"`.
        scale: Of the patient frame, in shorter sides of the image.
        center: Position of (0, 0.5) of the patient frame: x, y in shorter sides of the image.
        shear: How the patient leans: x per q.
        tilt: `q` by which the left shoulder and apex are lower than the middle.
        breath: Added to `q` of the domes; negative is a shallow breath.
        tone: Attenuation of black, of white, and curvature.
        grain: Standard deviation of the noise, in attenuation.
        turn: Rotation about the body's axis, which shifts mediastinum and heart against the lungs.
    """

    view: str
    scale: float
    center: tuple[float, float]
    shear: float
    tilt: float
    breath: float
    tone: tuple[float, float, float]
    grain: float
    turn: float

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Exam:
        """Draw an exam; on AP images, mostly taken in bed, the breath is shallower."""
        u = rng.random(16)
        z = rng.standard_normal(4)
        view = "AP" if u[0] < AP_SHARE else "PA"
        ap = view == "AP"
        black = -0.06 - 0.40 * u[5] ** (1.0 if ap else 2.2)
        white = 1.42 + 0.55 * u[6] if not ap else 1.36 + 0.45 * u[6]
        return cls(
            view=view,
            scale=float(np.clip(1.02 + 0.09 * z[0], 0.83, 1.22)),
            center=(0.5 + 0.035 * float(np.clip(z[1], -2, 2)), 0.5 + 0.035 * float(np.clip(z[2], -2, 2))),
            shear=0.03 * float(np.clip(z[3], -2.2, 2.2)),
            tilt=0.02 * (u[1] - 0.5),
            breath=-0.085 * u[2] if ap else 0.03 * (u[2] - 0.5),
            tone=(black, white, 0.3 + 1.7 * u[7]),
            grain=0.008 + 0.014 * u[8],
            turn=0.03 * (u[9] - 0.5) * (1.6 if ap else 1.0),
        )


def step(x: np.ndarray) -> np.ndarray:
    """Smooth step from 0 at 0 to 1 at 1."""
    x = np.clip(x, 0.0, 1.0)
    rise = x * -2.0
    rise += 3.0
    x *= x
    x *= rise
    return x


def chord(x: np.ndarray) -> np.ndarray:
    """Depth of a round body at a distance from its rim: steep from 0 at 0, 1 from 1 on."""
    x = np.clip(x, 0.0, 1.0)
    depth = 2.0 - x
    depth *= x
    return np.sqrt(depth, out=depth)


def enlarge(
    coarse: np.ndarray, height: int, width: int, part: tuple[float, float, float, float] | None = None
) -> np.ndarray:
    """Bicubic enlargement of a field `(h, w)`, or of its rectangle `part` (xyxy), to `(height, width)` float32."""
    image = PIL.Image.fromarray(np.ascontiguousarray(coarse, dtype=np.float32))
    return np.asarray(image.resize((width, height), PIL.Image.Resampling.BICUBIC, box=part))


class Geometry:
    """Where organs are in the patient frame, and where the patient is in the image.

    `side` is -1 for the right lung (left in the image) and 1 for the left lung; `outer`, `floor`, `roof` and `spot`
    count `p` from the midline outwards.

    Attributes:
        person: The patient.
        exam: The circumstances of this image.
        height: Of the image, in pixels.
        width: Of the image, in pixels.
        unit: Shorter side of the image, in pixels.
        p: `(H, W)` float32, `p` of each pixel's centre.
        q: `(H, 1)` float32, `q` of each row's centre.
        apex: `q` of the top of each lung.
        dome: `q` of the top of the diaphragm on each side.
        half: Distance of each lung's lateral border from the midline, at its base.
        sulcus: How far the diaphragm falls from its dome to the chest wall.
        inner: Distance of the lungs' inner border from the midline.
        heart_top: `q` of the heart's upper end.
        heart_bottom: `q` of its lower end.
        hilum: `(p, q)` of each hilum, `p` from the midline outwards.
    """

    def __init__(self, person: Person, exam: Exam, height: int, width: int) -> None:
        self.person, self.exam, self.height, self.width = person, exam, height, width
        self.unit = min(height, width)
        y = (np.arange(height, dtype=np.float32) + 0.5 - height / 2) / self.unit + 0.5
        x = (np.arange(width, dtype=np.float32) + 0.5 - width / 2) / self.unit + 0.5
        self.q = ((y - exam.center[1]) / exam.scale + 0.5).astype(np.float32)[:, None]
        shift = (x[None, :] - exam.center[0]) - exam.shear * (self.q - 0.5)
        self.p = (shift / exam.scale).astype(np.float32)
        self.apex = {s: person.apex + s * exam.tilt for s in (-1, 1)}
        dome = person.apex + person.height + exam.breath
        self.dome = {-1: dome, 1: dome + person.left_drop}
        self.half = {s: person.half_width * (1.0 - 0.6 * s * exam.turn) for s in (-1, 1)}
        self.sulcus = {s: 0.075 + 0.02 * math.sin(9 * person.fat * 40 + s) for s in (-1, 1)}
        self.inner = 0.045
        self.heart_top = person.apex + 0.44 * (dome - person.apex) - 0.01
        self.heart_bottom = dome + 0.03
        self.hilum = {
            -1: (0.085, person.apex + 0.54 * (dome - person.apex)),
            1: (0.080, person.apex + 0.50 * (dome - person.apex)),
        }

    def outer(self, side: int, q: Any) -> Any:
        """Distance of the lung's lateral border from the midline at `q`."""
        bottom = self.dome[side] + 0.02
        t = np.clip((q - self.apex[side]) / (bottom - self.apex[side]), 0.0, 1.3)
        return self.half[side] * (1.0 - 0.50 * np.clip(1.0 - t, 0.0, 1.0) ** 2.4 - 0.02 * t)

    def floor(self, side: int, p: Any) -> Any:
        """`q` of the diaphragm at the distance `p` from the midline."""
        middle = 0.46 * self.half[side]
        lateral = np.clip((p - middle) / (self.half[side] - middle), 0.0, 1.2)
        medial = np.clip((middle - p) / middle, 0.0, 1.0)
        return self.dome[side] + self.sulcus[side] * lateral**2.4 * (2.0 - lateral) + 0.032 * medial**2

    def roof(self, side: int, p: Any) -> Any:
        """`q` of the lung's top at the distance `p` from the midline."""
        return self.apex[side] + self.person.apex_pointed * (p - 0.36 * self.half[side]) ** 2

    def spot(self, side: int, across: float, along: float) -> tuple[float, float]:
        """A point of a lung: `across` from the inner (0) to the outer border (1), `along` from top to floor."""
        q = self.apex[side] + along * (self.dome[side] + 0.3 * self.sulcus[side] - self.apex[side])
        outer = float(self.outer(side, q))
        p = self.inner + across * (outer - self.inner)
        return p, float(np.clip(q, self.roof(side, p), self.floor(side, p)))

    def window(self, p0: float, q0: float, p1: float, q1: float) -> Window:
        """Pixels of a rectangle of the patient frame, clipped to the image; at least two rows and columns."""
        corners = [self.pixel(p, q) for p in (p0, p1) for q in (q0, q1)]
        xs, ys = [c[0] for c in corners], [c[1] for c in corners]
        x0, y0 = max(int(min(xs)) - 1, 0), max(int(min(ys)) - 1, 0)
        x1, y1 = min(int(max(xs)) + 2, self.width), min(int(max(ys)) + 2, self.height)
        x0, y0 = min(x0, self.width - 2), min(y0, self.height - 2)
        return slice(y0, max(y1, y0 + 2)), slice(x0, max(x1, x0 + 2))

    def mirrored(self, side: int, p0: float, q0: float, p1: float, q1: float) -> tuple[Window, np.ndarray, np.ndarray]:
        """Window of a rectangle on one side of the patient, whose `p` counts laterally.

        Args:
            side: -1 for the right lung, 1 for the left lung.
            p0, q0, p1, q1: The rectangle; `p` is positive towards the chest wall of that side.

        Returns:
            The window, and `p` `(h, w)`, positive laterally, and `q` `(h, 1)` of its pixels.
        """
        window = self.window(side * p0, q0, side * p1, q1)
        p, q = self.coordinates(window)
        return window, p * side, q

    def pixel(self, p: float, q: float) -> tuple[float, float]:
        """Position `(x, y)` in pixels of a point of the patient frame."""
        x = p * self.exam.scale + self.exam.center[0] + self.exam.shear * (q - 0.5)
        y = (q - 0.5) * self.exam.scale + self.exam.center[1]
        return (x - 0.5) * self.unit + self.width / 2, (y - 0.5) * self.unit + self.height / 2

    def bands(self, window: Window | None = None) -> Iterator[Window]:
        """A window, by default the entire image, in parts of a few rows that fit into the processor's cache."""
        rows, columns = window or (slice(0, self.height), slice(0, self.width))
        step = max(_BAND_PIXELS // (columns.stop - columns.start), 1)
        for start in range(rows.start, rows.stop, step):
            yield slice(start, min(start + step, rows.stop)), columns

    def above(self, window: Window, q: float) -> tuple[Window, Window]:
        """Split a window into the rows whose centres are above `q` and the others; either may be empty."""
        (rows, columns), split = window, int(np.searchsorted(self.q[window[0], 0], q))
        return (slice(rows.start, rows.start + split), columns), (slice(rows.start + split, rows.stop), columns)

    def coordinates(self, window: Window) -> tuple[np.ndarray, np.ndarray]:
        """`p` and `q` of the pixels of a window, `(h, w)` and `(h, 1)`."""
        return self.p[window], self.q[window[0]]

    def field(self, rng: np.random.Generator, window: Window, grain: float) -> np.ndarray:
        """Smooth noise of about unit variance over a window; `grain` is the size of its clouds in patient units."""
        h, w = window[0].stop - window[0].start, window[1].stop - window[1].start
        pitch = grain * self.exam.scale * self.unit
        # The number of draws is fixed, so that the field is the same at every size of image.
        coarse = rng.standard_normal((_CLOUD_NODES, _CLOUD_NODES), dtype=np.float32) * np.float32(1.35)
        part = (0.0, 0.0, min(w / pitch + 0.5, _CLOUD_NODES), min(h / pitch + 0.5, _CLOUD_NODES))
        return enlarge(coarse, h, w, part)
