# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Drawing one image or a series: the person, the findings, the image with its boxes and its thorax mask."""

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
"""Raised whenever the images change, which `generator_fingerprint` detects."""

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
"""By finding: from the normal image and the finding's own random stream to its lesions."""


@dataclass(frozen=True)
class Phantom:
    """A synthetic image and its annotations.

    Attributes:
        image: `(H, W)` uint8, bones bright and lungs dark.
        labels: `(14,)` float32 of 0 and 1, in the order of `FINDINGS`.
        boxes: `(finding, (x0, y0, x1, y1))`, one or two for each finding present, in pixels of `image`, right and
            bottom exclusive; whole numbers.
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
        seed: Any integer from 0. It determines everything; images of different sizes show the same patient.
        size: Side of a square image, or `(height, width)`, in pixels, at least 32. The patient fills the shorter side.
        findings: Names of the findings to draw, `[]` for a normal image. By default they are drawn at random: none
            with probability `NORMAL_SHARE`, otherwise findings that occur together as in NIH ChestX-ray14, rare ones
            more often (`PREVALENCE_TEMPERING`).
        contrast: Factor on the findings' contrast, above 0. Figures are measured at 1; larger values make findings
            easier to see in the first stage of a training.

    Raises:
        ValueError: `seed`, `size`, `contrast` or a finding's name is invalid.

    Example:
        >>> image = draw_phantom(7, size=128, findings=["Mass"])
        >>> image.image.shape, [finding for finding, box in image.boxes]
        ((128, 128), ['Mass'])
    """
    return draw_image(seed, seed, size, findings, contrast=contrast)


def iterate_phantoms(
    count: int, seed: int = 0, size: int | tuple[int, int] = 256, findings: Iterable[str] | None = None
) -> Iterator[Phantom]:
    """Draw `count` ≥ 0 images one after the other; image `i` depends on `seed` and `i` alone.

    `size` and `findings` are those of [`draw_phantom`], the same for every image.

    Raises:
        ValueError: As for `draw_phantom`, or `count` is negative.
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

    They hash a few small images with labels and boxes; grey levels are averaged over blocks and coarsely rounded, so
    that rounding errors of a platform do not matter.
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
    """Draw an image of a person who may have others.

    Args:
        seed: Of the image.
        person_seed: Of the person.
        size, findings: As for `draw_phantom`.
        years: Time since the person's first image.
        contrast: As for `draw_phantom`.

    Raises:
        ValueError: As for `draw_phantom`.
    """
    height, width = _checked_size(size)
    checked_seed(seed)
    if not 0 < contrast < math.inf:
        raise ValueError(f"`contrast` must be above 0, got {contrast}. 1 leaves findings unchanged.")
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
    """Return a seed as int.

    Raises:
        ValueError: It is not an integer from 0.
    """
    if not isinstance(seed, (int, np.integer)) or seed < 0:
        raise ValueError(f"`seed` must be an integer from 0, got {seed!r}. Pass for example 0.")
    return int(seed)
