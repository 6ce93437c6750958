# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""One image and series of images: who is on it, which findings, and the picture with its boxes and its mask."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from clarity_hf.labels import FINDINGS, NO_FINDING, canonical_finding, encode_findings

from . import lung_findings, other_findings
from .geometry import Exam, Person
from .lesions import Lesion, settle
from .scene import Scene, Stream
from .statistics import draw_labels

GENERATOR_VERSION = "1"
"""Changes whenever the images change; `generator_fingerprint` notices it."""

PAINTERS: dict[str, Callable[[Scene, np.random.Generator], list[Lesion]]] = {
    "Atelectasis": lung_findings.atelectasis,
    "Cardiomegaly": other_findings.cardiomegaly,
    "Effusion": other_findings.effusion,
    "Infiltration": lung_findings.infiltration,
    "Mass": lung_findings.mass,
    "Nodule": lung_findings.nodule,
    "Pneumonia": lung_findings.pneumonia,
    "Pneumothorax": other_findings.pneumothorax,
    "Consolidation": lung_findings.consolidation,
    "Edema": lung_findings.edema,
    "Emphysema": lung_findings.emphysema,
    "Fibrosis": lung_findings.fibrosis,
    "Pleural_Thickening": other_findings.pleural_thickening,
    "Hernia": other_findings.hernia,
}
"""Who paints a finding: from the normal image and the finding's own random stream to its lesions."""


@dataclass(frozen=True)
class Phantom:
    """A synthetic image and all that is known about it.

    Attributes:
        image: `(H, W)` uint8, bones bright and lungs dark.
        labels: `(14,)` float32 of 0 and 1, in the order of `FINDINGS`.
        boxes: A `(finding, (x0, y0, x1, y1))` for each visible part of a finding, in pixels of `image`, right and
            bottom exclusive; whole numbers. A finding that is present has one or two.
        thorax: `(H, W)` bool, lungs, heart and mediastinum.
        sex: `M` or `F`.
        age: In years.
        view: `PA` or `AP`.
    """

    image: np.ndarray
    labels: np.ndarray
    boxes: tuple[tuple[str, tuple[float, float, float, float]], ...]
    thorax: np.ndarray
    sex: str
    age: int
    view: str


def draw_phantom(
    seed: int, size: int | tuple[int, int] = 256, findings: Iterable[str] | None = None, contrast: float = 1.0
) -> Phantom:
    """Draw one image.

    Args:
        seed: Any whole number from 0. It fixes everything; images of different sizes show the same patient.
        size: Side of a square image, or `(height, width)`, in pixels, at least 32. The patient fills the shorter side.
        findings: Names of the findings to draw, `[]` for a normal image. `None` draws them too: a normal image with
            probability `NORMAL_SHARE`, otherwise findings that occur together as in NIH ChestX-ray14, the rare ones
            more often than there (`PREVALENCE_TEMPERING`).
        contrast: Times how strongly the findings show, above 0. 1 is what everything is measured on; above it they are
            easier to see, for the first lessons of a model that has seen none.

    Raises:
        ValueError: `seed`, `size`, a finding's name or `contrast` is not one of those.

    Example:
        >>> image = draw_phantom(7, size=128, findings=["Mass"])
        >>> image.image.shape, [finding for finding, box in image.boxes]
        ((128, 128), ['Mass'])
    """
    return draw_image(seed, seed, size, findings, contrast=contrast)


def iterate_phantoms(
    count: int, seed: int = 0, size: int | tuple[int, int] = 256, findings: Iterable[str] | None = None
) -> Iterator[Phantom]:
    """Draw `count` images, one after the other; image `i` depends on `seed` and `i` alone.

    Args:
        count: Number of images, at least 0.
        seed: Any whole number from 0.
        size: As for `draw_phantom`.
        findings: As for `draw_phantom`, the same for every image.

    Raises:
        ValueError: As `draw_phantom`, or `count` is negative.
    """
    if count < 0:
        raise ValueError(f"`count` must be at least 0, got {count}. Pass the number of images.")
    findings = None if findings is None else list(findings)
    for index in range(count):
        yield draw_phantom(image_seed(seed, index), size, findings)


def image_seed(seed: int, index: int) -> int:
    """Seed of image `index` of a series: `draw_phantom(image_seed(seed, i))` is image `i` of `iterate_phantoms`."""
    return int(np.random.SeedSequence([checked_seed(seed), index]).generate_state(1, np.uint64)[0])


def generator_fingerprint() -> str:
    """Sixteen hexadecimal digits that change when the generator draws anything differently.

    Hashes a few small images: grey levels averaged over blocks and rounded coarsely, so that the last digit of a
    platform's mathematics does not matter, with labels and boxes.
    """
    digest = hashlib.sha256(GENERATOR_VERSION.encode())
    images: list[Sequence[str] | None] = [None, [], FINDINGS[:5], FINDINGS[5:10], FINDINGS[10:]]
    for index, findings in enumerate(images):
        image = draw_phantom(1000 + index, 96, findings)
        blocks = image.image.reshape(12, 8, 12, 8).mean(axis=(1, 3))
        coarse = np.floor(blocks / 4.0).astype(np.uint8)
        boxes = [(finding, *(round(edge) for edge in box)) for finding, box in image.boxes]
        digest.update(coarse.tobytes())
        digest.update(repr((image.labels.tolist(), boxes, image.sex, image.age, image.view)).encode())
    return digest.hexdigest()[:16]


def draw_image(
    seed: int,
    person_seed: int,
    size: int | tuple[int, int],
    findings: Iterable[str] | None,
    years: int = 0,
    contrast: float = 1.0,
) -> Phantom:
    """Draw an image of a person, who may have others.

    Args:
        seed: Of the image.
        person_seed: Of the person.
        size: As for `draw_phantom`.
        findings: As for `draw_phantom`.
        years: Time since the person's first image.
        contrast: As for `draw_phantom`.

    Raises:
        ValueError: As `draw_phantom`.
    """
    height, width = _checked_size(size)
    checked_seed(seed)
    if not 0 < contrast < math.inf:
        raise ValueError(f"`contrast` must be above 0, got {contrast}. 1 draws findings as they are measured.")
    person = Person.draw(Stream.PERSON.generator(person_seed))
    exam = Exam.draw(Stream.EXAM.generator(seed))
    if findings is None:
        present = draw_labels(Stream.LABELS.generator(seed), exam.view)
    else:
        present = {canonical_finding(name) for name in findings if name.strip() != NO_FINDING}
    scene = Scene(seed, person, exam, height, width)
    attenuation = scene.base.copy()
    thorax = scene.thorax
    boxes: list[tuple[str, tuple[float, float, float, float]]] = []
    for index, finding in enumerate(FINDINGS):
        if finding not in present:
            continue
        for lesion in PAINTERS[finding](scene, Stream.FIRST_FINDING.generator(seed, index)):
            window, delta, box = settle(scene, lesion, contrast)
            attenuation[window] += delta
            boxes.append((finding, box))
            if lesion.silhouette is not None:
                thorax[window] |= lesion.silhouette & (delta != 0)
    image = scene.show(attenuation)
    return Phantom(image, encode_findings(present), tuple(boxes), thorax, person.sex, person.age + years, exam.view)


def _checked_size(size: int | tuple[int, int]) -> tuple[int, int]:
    """Height and width."""
    height, width = (size, size) if isinstance(size, (int, np.integer)) else tuple(size)
    if min(height, width) < 32:
        raise ValueError(f"`size` must be at least 32 pixels, got {size}. Draw a larger image and resize it.")
    return int(height), int(width)


def checked_seed(seed: int) -> int:
    """Check a seed.

    Raises:
        ValueError: It is not a whole number from 0.
    """
    if not isinstance(seed, (int, np.integer)) or seed < 0:
        raise ValueError(f"`seed` must be a whole number from 0, got {seed!r}. Pass for example 0.")
    return int(seed)
