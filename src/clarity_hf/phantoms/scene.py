# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""The normal image of a seed: all layers put together, the noise and the tone curve."""

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
"""What a full depth of lung takes from the attenuation."""

VESSEL_ATTENUATION = 0.22
"""What a full depth of vessel adds."""

_HEART_ATTENUATION = 0.65


class Stream(enum.IntEnum):
    """Random streams of an image.

    Findings follow from `FIRST_FINDING` on, one each: what one of them draws cannot shift what another draws.
    """

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
        """Generator of this stream of the image `seed`; `finding` counts on from `FIRST_FINDING`."""
        return np.random.default_rng([seed, int(self) + finding])


class Scene(Geometry):
    """The normal image of a seed: its geometry, its layers, and the means to show it.

    Attributes:
        lung: `(H, W)` float32, depth of air from 0 to 1.
        lung_mask: `(H, W)` bool, silhouette of the lungs.
        heart: `(H, W)` float32, depth of the heart from 0 to 1.
        heart_weight: `(H, W)` float32, attenuation of a full depth of heart.
        vessels: `(H, W)` float32, depth of the vessels of the lungs.
        thorax: `(H, W)` bool, silhouette of lungs, heart and mediastinum.
        base: `(H, W)` attenuation of patient and devices.
        noise: `(H, W)` attenuation that is added before the image is shown.
    """

    def __init__(self, seed: int, person: Person, exam: Exam, height: int, width: int) -> None:
        super().__init__(person, exam, height, width)
        self.lung, self.lung_mask = draw_lungs(self)
        self.heart = draw_heart(self, person.heart_ratio + (0.012 if exam.view == "AP" else 0.0))
        self.vessels = draw_vessels(self, Stream.VESSELS.generator(seed)) * np.sqrt(self.lung)
        mediastinum, mediastinum_mask = draw_mediastinum(self)
        self.thorax = self.lung_mask | (self.heart > 0.05) | mediastinum_mask
        # Behind the mediastinum there is no lung for the heart to displace: it adds less there.
        self.heart_weight = (_HEART_ATTENUATION * (0.30 + 0.70 * np.minimum(1.3 * self.lung, 1.0))).astype(np.float32)
        body = draw_body(self)
        base = body - LUNG_ATTENUATION * self.lung + self.heart_weight * self.heart
        base = base + VESSEL_ATTENUATION * self.vessels + mediastinum
        # Beside the body the plate is exposed directly: black, whatever the exposure.
        base -= 0.5 * (1.0 - np.minimum(3.0 * body, 1.0))
        base += draw_bones(self, Stream.BONES.generator(seed))
        base += draw_texture(self, Stream.TEXTURE.generator(seed), self.lung) * np.minimum(body * 1.2, 1.0)
        self._set_tone()
        self.base = draw_devices(self, Stream.DEVICES.generator(seed), base)
        grain = Stream.NOISE.generator(seed).standard_normal((height, width), dtype=np.float32)
        # Few photons pass dense tissue: its noise is larger.
        self.noise = grain * (exam.grain * (0.6 + 0.5 * np.clip(self.base, 0.0, 1.6)))

    def _set_tone(self) -> None:
        """Tabulate the tone curve, from black to white in 2048 steps."""
        black, white, curvature = self.exam.tone
        ramp = (np.arange(2048, dtype=np.float32) + 0.5) / 2048
        self._tone = 255.0 * (1 - np.exp(-curvature * ramp)) / (1 - math.exp(-curvature))
        self._offset, self._gain = -black, 2048 / (white - black)

    def grey(self, attenuation: np.ndarray) -> np.ndarray:
        """Grey levels in [0, 255], float32, of an attenuation, through the image's tone curve."""
        return self._tone[np.clip((attenuation + self._offset) * self._gain, 0, 2047).astype(np.int16)]

    def show(self, attenuation: np.ndarray) -> np.ndarray:
        """The image that an attenuation gives, uint8."""
        return (self.grey(attenuation) + 0.5).astype(np.uint8)
