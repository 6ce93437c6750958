# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""The normal image of a seed: all layers, the noise and the tone curve."""

from __future__ import annotations

import enum
import math

import numpy as np

from .anatomy import draw_body, draw_heart, draw_lungs, draw_mediastinum, draw_texture
from .devices import draw_devices
from .geometry import Exam, Geometry, Person
from .rendering import draw_bones, draw_vessels

# In units of the trunk's soft tissue.
LUNG_ATTENUATION = 0.78
"""How much a full depth of lung reduces the attenuation."""

VESSEL_ATTENUATION = 0.22
"""What a full depth of vessel adds."""

_HEART_ATTENUATION = 0.65


class Stream(enum.IntEnum):
    """Random streams of an image; each finding has one, from `FIRST_FINDING` on, that no other finding can shift."""

    PERSON = 0
    EXAM = 1
    VESSELS = 2
    BONES = 3
    DEVICES = 4
    TEXTURE = 5
    NOISE = 6
    LABELS = 7
    FIRST_FINDING = 8

    def generator(self, seed: int, finding: int = 0) -> np.random.Generator:
        """Generator of this stream of the image `seed`; `finding` counts from `FIRST_FINDING`."""
        return np.random.default_rng([seed, int(self) + finding])


class Scene(Geometry):
    """The normal image of a seed: its geometry, its layers and its display.

    Attributes:
        lung: `(H, W)` float32, depth of air from 0 to 1.
        lung_mask: `(H, W)` bool, silhouette of the lungs.
        heart: `(H, W)` float32, depth of the heart from 0 to 1.
        heart_weight: `(H, W)` float32, attenuation of a full depth of heart.
        vessels: `(H, W)` float32, depth of the lungs' vessels.
        thorax: `(H, W)` bool, silhouette of lungs, heart and mediastinum.
        base: `(H, W)` attenuation of patient and devices.
        grain: `(H, W)` float32, standard normal noise, scaled and added when the image is shown.
    """

    def __init__(self, seed: int, person: Person, exam: Exam, height: int, width: int) -> None:
        super().__init__(person, exam, height, width)
        self.lung, self.lung_mask = draw_lungs(self)
        self.heart = draw_heart(self, person.heart_ratio + (0.012 if exam.view == "AP" else 0.0))
        self.vessels = draw_vessels(self, Stream.VESSELS.generator(seed))
        mediastinum, mediastinum_mask = draw_mediastinum(self)
        self.thorax = self.lung_mask | (self.heart > 0.05) | mediastinum_mask
        texture = draw_texture(self, Stream.TEXTURE.generator(seed), self.lung)
        bones = draw_bones(self, Stream.BONES.generator(seed))
        self.heart_weight, base = np.empty_like(self.lung), np.empty_like(self.lung)
        for band, bone in zip(self.bands(), bones, strict=True):
            lung, weight, vessels = self.lung[band], self.heart_weight[band], self.vessels[band]
            vessels *= np.sqrt(lung)
            # The heart displaces no lung behind the mediastinum and adds less there.
            weight[:] = _HEART_ATTENUATION * (0.30 + 0.70 * np.minimum(1.3 * lung, 1.0))
            body = draw_body(self, band)
            part = body - LUNG_ATTENUATION * lung + weight * self.heart[band]
            part += VESSEL_ATTENUATION * vessels
            part += mediastinum[band]
            # The plate is exposed directly beside the body, which is black whatever the exposure.
            part -= 0.5 * (1.0 - np.minimum(3.0 * body, 1.0))
            part += bone
            part += texture[band] * np.minimum(body * 1.2, 1.0)
            base[band] = part
        self._set_tone()
        self.base = draw_devices(self, Stream.DEVICES.generator(seed), base)
        self.grain = Stream.NOISE.generator(seed).standard_normal((height, width), dtype=np.float32)

    def _set_tone(self) -> None:
        """Tabulate the tone curve, from black to white in 2048 steps."""
        black, white, curvature = self.exam.tone
        ramp = (np.arange(2048, dtype=np.float32) + 0.5) / 2048
        self._tone = 255.0 * (1 - np.exp(-curvature * ramp)) / (1 - math.exp(-curvature))
        self._offset, self._gain = -black, 2048 / (white - black)

    def grey(self, attenuation: np.ndarray) -> np.ndarray:
        """Grey levels in [0, 255] of an attenuation, through the image's tone curve."""
        return self._tone.take(self._steps(attenuation))

    def _steps(self, attenuation: np.ndarray) -> np.ndarray:
        """Indices into the table of the tone curve."""
        steps = attenuation + self._offset
        steps *= self._gain
        return np.clip(steps, 0, 2047, out=steps).astype(np.intp)

    def show(self, attenuation: np.ndarray) -> np.ndarray:
        """The image of an attenuation with noise, uint8."""
        image = np.empty(attenuation.shape, dtype=np.uint8)
        levels = (self._tone + 0.5).astype(np.uint8)
        for band in self.bands():
            # Few photons pass dense tissue, which is noisier.
            noise = self.grain[band] * (self.exam.grain * (0.6 + 0.5 * np.clip(self.base[band], 0.0, 1.6)))
            noise += attenuation[band]
            image[band] = levels.take(self._steps(noise))
        return image
