# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Synthetic frontal chest films ("phantoms") with all 14 findings, exact boxes and a thorax mask: endless and seeded.

A phantom is drawn in an attenuation domain (body, lungs, heart, bones and devices add up as they do on a film) and
then shown through one tone curve. Findings add to the attenuation inside their boxes and nowhere else: **two films of
one seed, with and without a finding, are equal outside that finding's boxes**, because anatomy, exposure, noise and
devices come from random streams that do not know the findings, and each finding has a stream of its own.

`draw_phantom` draws one film, `iterate_phantoms` many, `write_phantoms` a folder in the layout of NIH ChestX-ray14.

Phantoms are for demonstrations, tests, training and comparison of methods. They are no patients, and figures measured
on them say nothing about patients.

Frames: boxes are xyxy in pixels of the image, right and bottom exclusive. Inside this file a point of the patient is
`(p, q)`: `p` from the midline, positive towards the patient's left, which is the right of the image; `q` downwards,
about 0 at the chin and 1 below the diaphragm; one unit is the shorter side of the film at scale 1.

The statistics come from the tables of Wang et al., "ChestX-ray8: Hospital-scale Chest X-ray Database and Benchmarks on
Weakly-Supervised Classification and Localization of Common Thorax Diseases", CVPR 2017: how often findings occur
together, their share of AP films, and the sizes and places of the boxes of the eight boxed findings.
"""

from __future__ import annotations

import csv
import functools
import hashlib
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import PIL.ImageDraw

from ..labels import FINDINGS, NO_FINDING, canonical_finding, encode_findings

GENERATOR_VERSION = "1"
"""Changes whenever the films change; `generator_fingerprint` notices it."""

NORMAL_SHARE = 0.45
"""Share of films without a finding, when findings are drawn at random."""

PREVALENCE_TEMPERING = 0.3
"""Exponent of the release's counts when a film's first finding is drawn: 1 is NIH's prevalence, 0 makes all equal."""

COOCCURRENCE_GAIN = 1.35
"""Factor of the release's conditional frequencies when further findings are added to the first."""

LEAST_SHARE = 0.07
"""Least share of a finding among the first findings: without it there would be hardly any hernia to learn from."""

MAX_FINDINGS = 4
"""Most findings of a film, when findings are drawn at random."""

BOX_FRAME = 1024
"""Side, in pixels, of the frame of the boxes that `write_phantoms` writes: that of the release."""

# Films of the release (112,120) that have both findings; the diagonal has the finding's own count.
_COOCCURRENCE = (
    (11559, 370, 3275, 3264, 739, 590, 262, 774, 1223, 221, 424, 220, 496, 40),
    (370, 2776, 1063, 587, 102, 108, 41, 49, 169, 127, 44, 52, 111, 7),
    (3275, 1063, 13317, 4000, 1254, 912, 269, 996, 1287, 593, 359, 188, 849, 21),
    (3264, 587, 4000, 19894, 1159, 1546, 605, 946, 1221, 981, 449, 345, 750, 33),
    (739, 102, 1254, 1159, 5782, 906, 71, 431, 610, 129, 215, 117, 452, 25),
    (590, 108, 912, 1546, 906, 6331, 70, 341, 428, 131, 115, 166, 411, 10),
    (262, 41, 269, 605, 71, 70, 1431, 41, 123, 340, 23, 11, 48, 3),
    (774, 49, 996, 946, 431, 341, 41, 5302, 223, 33, 747, 80, 289, 9),
    (1223, 169, 1287, 1221, 610, 428, 123, 223, 4667, 162, 103, 79, 251, 4),
    (221, 127, 593, 981, 129, 131, 340, 33, 162, 2303, 30, 9, 64, 3),
    (424, 44, 359, 449, 215, 115, 23, 747, 103, 30, 2516, 36, 151, 4),
    (220, 52, 188, 345, 117, 166, 11, 80, 79, 9, 36, 1686, 176, 8),
    (496, 111, 849, 750, 452, 411, 48, 289, 251, 64, 151, 176, 3385, 8),
    (40, 7, 21, 33, 25, 10, 3, 9, 4, 3, 4, 8, 8, 227),
)
# Share of AP films among the films with each finding, and among all films.
_AP_SHARES = (0.504, 0.437, 0.505, 0.530, 0.383, 0.340, 0.560, 0.357, 0.674, 0.880, 0.404, 0.165, 0.286, 0.154)
_AP_SHARE = 0.400

# Random streams of a film. Findings follow, one each: what one of them draws cannot shift what another draws.
_PERSON, _EXAM, _VESSELS, _BONES, _DEVICES, _TEXTURE, _NOISE, _LABELS, _FIRST_FINDING = range(9)

# Attenuation of each layer, in units of the trunk's soft tissue.
_LUNG, _HEART, _MEDIASTINUM, _ABDOMEN, _VESSEL, _RIB = 0.78, 0.65, 0.11, 0.24, 0.22, 0.16
_NORMAL_RATIO, _ENLARGED_RATIO = (0.38, 0.49), (0.53, 0.68)  # heart over thorax; over one half is enlarged

# A finding is visible when it changes the film by this many of 255 grey levels somewhere.
_VISIBLE_CHANGE = 14.0
# Share of a finding's largest change below which it fades out, and that at which its box ends.
_FADE, _BOX_LEVEL = (0.08, 0.22), 0.14


@dataclass(frozen=True)
class Phantom:
    """A synthetic film and all that is known about it.

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


def draw_phantom(seed: int, size: int | tuple[int, int] = 256, findings: Iterable[str] | None = None) -> Phantom:
    """Draw one film.

    Args:
        seed: Any whole number from 0. It fixes everything; films of different sizes show the same patient.
        size: Side of a square film, or `(height, width)`, in pixels, at least 32. The patient fills the shorter side.
        findings: Names of the findings to draw, `[]` for a normal film. `None` draws them too: a normal film with
            probability `NORMAL_SHARE`, otherwise findings that occur together as in NIH ChestX-ray14, the rare ones
            more often than there (`PREVALENCE_TEMPERING`).

    Raises:
        ValueError: `seed`, `size` or a finding's name is not one of those.

    Example:
        >>> film = draw_phantom(7, size=128, findings=["Mass"])
        >>> film.image.shape, [finding for finding, box in film.boxes]
        ((128, 128), ['Mass'])
    """
    return _draw(seed, seed, size, findings)


def iterate_phantoms(
    count: int, seed: int = 0, size: int | tuple[int, int] = 256, findings: Iterable[str] | None = None
) -> Iterator[Phantom]:
    """Draw `count` films, one after the other; film `i` depends on `seed` and `i` alone.

    Args:
        count: Number of films, at least 0.
        seed: Any whole number from 0.
        size: As for `draw_phantom`.
        findings: As for `draw_phantom`, the same for every film.

    Raises:
        ValueError: As `draw_phantom`, or `count` is negative.
    """
    if count < 0:
        raise ValueError(f"`count` must be at least 0, got {count}. Pass the number of films.")
    findings = None if findings is None else list(findings)
    for index in range(count):
        yield draw_phantom(film_seed(seed, index), size, findings)


def film_seed(seed: int, index: int) -> int:
    """Seed of film `index` of a series: `draw_phantom(film_seed(seed, i))` is film `i` of `iterate_phantoms`."""
    return int(np.random.SeedSequence([_checked_seed(seed), index]).generate_state(1, np.uint64)[0])


def generator_fingerprint() -> str:
    """Sixteen hexadecimal digits that change when the generator draws anything differently.

    Hashes a few small films: grey levels averaged over blocks and rounded coarsely, so that the last digit of a
    platform's mathematics does not matter, with labels and boxes.
    """
    digest = hashlib.sha256(GENERATOR_VERSION.encode())
    films: list[Sequence[str] | None] = [None, [], FINDINGS[:5], FINDINGS[5:10], FINDINGS[10:]]
    for index, findings in enumerate(films):
        film = draw_phantom(1000 + index, 96, findings)
        blocks = film.image.reshape(12, 8, 12, 8).mean(axis=(1, 3))
        coarse = np.floor(blocks / 4.0).astype(np.uint8)
        boxes = [(finding, *(round(edge) for edge in box)) for finding, box in film.boxes]
        digest.update(coarse.tobytes())
        digest.update(repr((film.labels.tolist(), boxes, film.sex, film.age, film.view)).encode())
    return digest.hexdigest()[:16]


# ---------------------------------------------------------------------------------------------------------------------
# A folder in the layout of the release
# ---------------------------------------------------------------------------------------------------------------------
_COLUMNS = (
    "Image Index",
    "Finding Labels",
    "Follow-up #",
    "Patient ID",
    "Patient Age",
    "Patient Gender",
    "View Position",
    "OriginalImage[Width",
    "Height]",
    "OriginalImagePixelSpacing[x",
    "y]",
)
_BOX_COLUMNS = ("Image Index", "Finding Label", "Bbox [x", "y", "w", "h]", "", "", "")
_FILMS_PER_PATIENT = (0.6, 0.2, 0.12, 0.08)  # probability of 1, 2, 3 and 4 films


def write_phantoms(
    folder: str | os.PathLike[str],
    count: int,
    seed: int = 0,
    size: int | tuple[int, int] = 512,
    test_fraction: float = 0.2,
    findings: Iterable[str] | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> None:
    """Write films as NIH ChestX-ray14 is published, so that whatever reads the release reads phantoms.

    Writes `images/NNNNNNNN_NNN.png`, `masks/NNNNNNNN_NNN.png` (the thorax, 0 or 255), `Data_Entry_2017_v2020.csv`,
    `train_val_list.txt`, `test_list.txt` (split by patient) and `BBox_List_2017.csv` (x, y, width, height in pixels of
    a 1024x1024 frame, whatever the size on disk). Some patients have several films. The validation split is drawn by
    the reader from `train_val_list.txt`, as for the release.

    Args:
        folder: Made when missing. Files of the same names are replaced.
        count: Number of films, at least 1.
        seed: Fixes every byte but the encoder's.
        size: As for `draw_phantom`.
        test_fraction: Share of the patients in `test_list.txt`, in [0, 1].
        findings: As for `draw_phantom`, the same for every film.
        progress: Called with the number of films written and `count` after each film.

    Raises:
        ValueError: As `draw_phantom`, or `count` or `test_fraction` is outside its range.
    """
    if count < 1:
        raise ValueError(f"`count` must be at least 1, got {count}. Pass the number of films.")
    if not 0.0 <= test_fraction <= 1.0:
        raise ValueError(f"`test_fraction` must be in [0, 1], got {test_fraction}. Pass a share of the patients.")
    findings = None if findings is None else list(findings)
    folder = Path(folder)
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    rows: list[list[object]] = []
    boxes: list[list[object]] = []
    lists: dict[bool, list[str]] = {False: [], True: []}
    for index, (patient, follow_up, is_test) in enumerate(_patients(count, seed, test_fraction)):
        name = f"{patient:08d}_{follow_up:03d}.png"
        film = _draw(film_seed(seed, index), film_seed(seed, count + patient), size, findings, follow_up)
        PIL.Image.fromarray(film.image).save(folder / "images" / name)
        PIL.Image.fromarray(film.thorax.astype(np.uint8) * 255).save(folder / "masks" / name)
        rows.append(_table_row(name, film, patient, follow_up))
        boxes.extend(_box_rows(name, film))
        lists[is_test].append(name)
        if progress is not None:
            progress(index + 1, count)
    _write_csv(folder / "Data_Entry_2017_v2020.csv", list(_COLUMNS), rows)
    _write_csv(folder / "BBox_List_2017.csv", list(_BOX_COLUMNS), boxes)
    for is_test, name in ((False, "train_val_list.txt"), (True, "test_list.txt")):
        (folder / name).write_text("".join(f"{line}\n" for line in lists[is_test]))


def _patients(count: int, seed: int, test_fraction: float) -> list[tuple[int, int, bool]]:
    """Patient's number, visit and split of each film; the split takes whole patients."""
    rng = np.random.default_rng([_checked_seed(seed), count])
    visits: list[int] = []
    while sum(visits) < count:
        visits.append(min(1 + int(rng.choice(4, p=_FILMS_PER_PATIENT)), count - sum(visits)))
    # At least one patient on either side where the fraction and the number of patients allow it.
    tests = round(test_fraction * len(visits))
    if 0.0 < test_fraction < 1.0 and len(visits) > 1:
        tests = min(max(tests, 1), len(visits) - 1)
    chosen = set(rng.permutation(len(visits))[:tests].tolist())
    return [(i + 1, visit, i in chosen) for i, films in enumerate(visits) for visit in range(films)]


def _table_row(name: str, film: Phantom, patient: int, follow_up: int) -> list[object]:
    present = [finding for finding, label in zip(FINDINGS, film.labels, strict=True) if label > 0]
    height, width = film.image.shape
    spacing = round(360.0 / min(height, width), 4)  # millimetres: a film of 36 cm
    text = "|".join(present) or NO_FINDING
    return [name, text, follow_up, patient, film.age, film.sex, film.view, width, height, spacing, spacing]


def _box_rows(name: str, film: Phantom) -> list[list[object]]:
    height, width = film.image.shape
    sx, sy = BOX_FRAME / width, BOX_FRAME / height
    return [
        [name, finding, x0 * sx, y0 * sy, (x1 - x0) * sx, (y1 - y0) * sy, "", "", ""]
        for finding, (x0, y0, x1, y1) in film.boxes
    ]


def _write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


# ---------------------------------------------------------------------------------------------------------------------
# One film
# ---------------------------------------------------------------------------------------------------------------------
def _draw(
    seed: int, person_seed: int, size: int | tuple[int, int], findings: Iterable[str] | None, years: int = 0
) -> Phantom:
    """Draw the film `seed` of the person `person_seed`, `years` after the first."""
    height, width = _checked_size(size)
    _checked_seed(seed)
    person = _Person.draw(np.random.default_rng([person_seed, _PERSON]))
    exam = _Exam.draw(np.random.default_rng([seed, _EXAM]), person)
    if findings is None:
        present = _draw_labels(np.random.default_rng([seed, _LABELS]), exam.view)
    else:
        present = {canonical_finding(name) for name in findings if name.strip() != NO_FINDING}
    scene = _Scene(seed, person, exam, height, width)
    attenuation = scene.base.copy()
    thorax = scene.thorax
    boxes: list[tuple[str, tuple[float, float, float, float]]] = []
    for index, finding in enumerate(FINDINGS):
        if finding not in present:
            continue
        rng = np.random.default_rng([seed, _FIRST_FINDING + index])
        for lesion in _PAINTERS[finding](scene, rng):
            window, delta, box = _settle(scene, lesion)
            attenuation[window] += delta
            boxes.append((finding, box))
            if lesion.silhouette is not None:
                thorax[window] |= lesion.silhouette & (delta != 0)
    image = scene.show(attenuation + scene.noise)
    return Phantom(image, encode_findings(present), tuple(boxes), thorax, person.sex, person.age + years, exam.view)


def _checked_size(size: int | tuple[int, int]) -> tuple[int, int]:
    height, width = (size, size) if isinstance(size, (int, np.integer)) else tuple(size)
    if min(height, width) < 32:
        raise ValueError(f"`size` must be at least 32 pixels, got {size}. Draw a larger film and resize it.")
    return int(height), int(width)


def _checked_seed(seed: int) -> int:
    if not isinstance(seed, (int, np.integer)) or seed < 0:
        raise ValueError(f"`seed` must be a whole number from 0, got {seed!r}. Pass for example 0.")
    return int(seed)


@functools.lru_cache(maxsize=2)
def _label_model(view: str) -> tuple[np.ndarray, np.ndarray]:
    """Probability of each first finding, and of each further finding given the first; `(14,)` and `(14, 14)`."""
    counts = np.array(_COOCCURRENCE, dtype=np.float64)
    own = counts.diagonal()
    ap = np.array(_AP_SHARES)
    # The square root keeps the view a hint: it must not give the finding away.
    lift = np.sqrt(ap / _AP_SHARE if view == "AP" else (1 - ap) / (1 - _AP_SHARE))
    first = own**PREVALENCE_TEMPERING * lift
    first = np.maximum(first / first.sum(), LEAST_SHARE)
    further = COOCCURRENCE_GAIN * counts / own[:, None]
    # Findings rarer than the average finding are raised here too, else they only ever come first.
    further *= np.minimum((own.mean() / own) ** (0.5 * (1 - PREVALENCE_TEMPERING)), 3.0)
    np.fill_diagonal(further, 0.0)
    return first / first.sum(), np.minimum(further, 0.6)


def _draw_labels(rng: np.random.Generator, view: str) -> set[str]:
    first, further = _label_model(view)
    is_normal, chosen, dice = rng.random() < NORMAL_SHARE, int(rng.choice(len(FINDINGS), p=first)), rng.random(14)
    if is_normal:
        return set()
    others = np.flatnonzero(dice < further[chosen])[: MAX_FINDINGS - 1]
    return {FINDINGS[chosen], *(FINDINGS[i] for i in others)}


@dataclass(frozen=True)
class _Person:
    """What stays the same over a patient's films; lengths in units of the patient frame."""

    sex: str
    age: int
    half_width: float  # of the lungs, at their base
    apex: float  # q of the top of the lungs
    height: float  # of the lungs, from the apex to the right dome
    left_drop: float  # of the left dome below the right
    fat: float  # soft tissue outside the ribs
    ratio: float  # heart over thorax, of the normal heart
    heart_lean: float  # share of the heart left of the midline
    knob: float  # radius of the aortic knob
    breast: float
    rib_slope: float
    rib_density: float
    apex_pointed: float

    @classmethod
    def draw(cls, rng: np.random.Generator) -> _Person:
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
            ratio=_NORMAL_RATIO[0] + (_NORMAL_RATIO[1] - _NORMAL_RATIO[0]) * u[9],
            heart_lean=0.62 + 0.10 * u[10],
            knob=0.024 + 0.014 * min(age / 80, 1) + 0.006 * u[11],
            breast=(0.35 + 0.65 * u[12]) if female and age > 14 else 0.0,
            rib_slope=0.05 + 0.05 * u[13],
            rib_density=(0.75 + 0.5 * u[14]) * (1.0 - 0.25 * max(age - 60, 0) / 40),
            apex_pointed=4.5 + 4.0 * u[15],
        )


@dataclass(frozen=True)
class _Exam:
    """What changes from film to film: view, position of the patient, exposure."""

    view: str
    scale: float
    center: tuple[float, float]
    shear: float
    tilt: float
    breath: float  # added to q of the domes; negative is a shallow breath
    tone: tuple[float, float, float]  # attenuation of black, of white, and curvature
    grain: float
    turn: float  # rotation about the body's axis: shifts mediastinum and heart against the lungs

    @classmethod
    def draw(cls, rng: np.random.Generator, person: _Person) -> _Exam:
        u = rng.random(16)
        z = rng.standard_normal(4)
        view = "AP" if u[0] < _AP_SHARE else "PA"
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


def _step(x: np.ndarray) -> np.ndarray:
    """Smooth step from 0 at 0 to 1 at 1."""
    x = np.clip(x, 0.0, 1.0)
    return x * x * (3.0 - 2.0 * x)


def _chord(x: np.ndarray) -> np.ndarray:
    """Depth of a round body at a distance from its rim: 0 at 0, steep, 1 from 1 on."""
    x = np.clip(x, 0.0, 1.0)
    return np.sqrt(x * (2.0 - x))


Window = tuple[slice, slice]
Points = Sequence[float] | np.ndarray
_FIELD = 48  # nodes along a side of a lesion's noise


class _Scene:
    """The normal film of a seed: its geometry, its layers, and the means to add findings to it."""

    def __init__(self, seed: int, person: _Person, exam: _Exam, height: int, width: int) -> None:
        self.person, self.exam, self.height, self.width = person, exam, height, width
        self.unit = min(height, width)
        y = (np.arange(height, dtype=np.float32) + 0.5 - height / 2) / self.unit + 0.5
        x = (np.arange(width, dtype=np.float32) + 0.5 - width / 2) / self.unit + 0.5
        self.q = ((y - exam.center[1]) / exam.scale + 0.5).astype(np.float32)[:, None]
        shift = (x[None, :] - exam.center[0]) - exam.shear * (self.q - 0.5)
        self.p = (shift / exam.scale).astype(np.float32)
        self._set_geometry()
        lungs, silhouette = self._lungs()
        self.lung, self.lung_mask = lungs, silhouette
        ratio = person.ratio + (0.012 if exam.view == "AP" else 0.0)
        self.heart = self.heart_layer(ratio)
        self.vessels = _draw_vessels(self, np.random.default_rng([seed, _VESSELS])) * np.sqrt(lungs)
        middle, self.mediastinum = self._mediastinum()
        self.thorax = silhouette | (self.heart > 0.05) | self.mediastinum
        # Behind the mediastinum there is no lung for the heart to displace: it adds less there.
        self.heart_weight = (_HEART * (0.30 + 0.70 * np.minimum(1.3 * lungs, 1.0))).astype(np.float32)
        body = self._body()
        base = body - _LUNG * lungs + self.heart_weight * self.heart + _VESSEL * self.vessels + middle
        # Beside the body the plate is exposed directly: black, whatever the exposure.
        base -= 0.5 * (1.0 - np.minimum(3.0 * body, 1.0))
        base += _draw_bones(self, np.random.default_rng([seed, _BONES]))
        base += self._texture(np.random.default_rng([seed, _TEXTURE])) * np.minimum(body * 1.2, 1.0)
        self._set_tone()
        self.base = _draw_devices(self, np.random.default_rng([seed, _DEVICES]), base)
        grain = np.random.default_rng([seed, _NOISE]).standard_normal((height, width), dtype=np.float32)
        # Few photons pass dense tissue: its noise is larger.
        self.noise = grain * (exam.grain * (0.6 + 0.5 * np.clip(self.base, 0.0, 1.6)))

    # Geometry -------------------------------------------------------------------------------------------------------
    def _set_geometry(self) -> None:
        person, exam = self.person, self.exam
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
        """Distance of the lung's lateral border from the midline at `q`, on `side` (-1 right lung, 1 left lung)."""
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
        """A point of a lung: `across` from its inner (0) to its outer border (1), `along` from top to floor."""
        q = self.apex[side] + along * (self.dome[side] + 0.3 * self.sulcus[side] - self.apex[side])
        outer = float(self.outer(side, q))
        p = self.inner + across * (outer - self.inner)
        return p, float(np.clip(q, self.roof(side, p), self.floor(side, p)))

    def window(self, p0: float, q0: float, p1: float, q1: float) -> Window:
        """Pixels that hold the rectangle of the patient frame, cut to the film; at least one row and column."""
        corners = [self.pixel(p, q) for p in (p0, p1) for q in (q0, q1)]
        xs, ys = [c[0] for c in corners], [c[1] for c in corners]
        x0, y0 = max(int(min(xs)) - 1, 0), max(int(min(ys)) - 1, 0)
        x1, y1 = min(int(max(xs)) + 2, self.width), min(int(max(ys)) + 2, self.height)
        x0, y0 = min(x0, self.width - 2), min(y0, self.height - 2)
        return slice(y0, max(y1, y0 + 2)), slice(x0, max(x1, x0 + 2))

    def pixel(self, p: float, q: float) -> tuple[float, float]:
        """Position `(x, y)` in pixels of a point of the patient frame."""
        x = p * self.exam.scale + self.exam.center[0] + self.exam.shear * (q - 0.5)
        y = (q - 0.5) * self.exam.scale + self.exam.center[1]
        return (x - 0.5) * self.unit + self.width / 2, (y - 0.5) * self.unit + self.height / 2

    def coordinates(self, window: Window) -> tuple[np.ndarray, np.ndarray]:
        """`p` and `q` of the pixels of a window, `(h, w)` and `(h, 1)`."""
        return self.p[window], self.q[window[0]]

    def field(self, rng: np.random.Generator, window: Window, grain: float) -> np.ndarray:
        """Smooth noise of about unit variance over a window; `grain` is the size of its clouds in patient units."""
        h, w = window[0].stop - window[0].start, window[1].stop - window[1].start
        step = grain * self.exam.scale * self.unit
        # A fixed number of draws, and only as much of them as the window needs: the same at every size of film.
        coarse = rng.standard_normal((_FIELD, _FIELD), dtype=np.float32) * np.float32(1.35)
        part = (0.0, 0.0, min(w / step + 0.5, _FIELD), min(h / step + 0.5, _FIELD))
        return _enlarge(coarse, h, w, part)

    # Layers ---------------------------------------------------------------------------------------------------------
    def _half_window(self, side: int) -> Window:
        a, b = sorted((-0.02 * side, side * (self.half[side] + 0.01)))
        return self.window(a, min(self.apex.values()) - 0.02, b, max(self.dome.values()) + 0.15)

    def _lungs(self) -> tuple[np.ndarray, np.ndarray]:
        """Depth of air, 0 to 1, and the silhouette of the lungs."""
        depth = np.zeros((self.height, self.width), dtype=np.float32)
        mask = np.zeros((self.height, self.width), dtype=bool)
        for side in (-1, 1):
            window = self._half_window(side)
            p, q = self.coordinates(window)
            p = p * side
            lateral = self.outer(side, q).astype(np.float32) - p
            above = self.floor(side, p) - q
            below = q - self.roof(side, p)
            t = np.clip((q - self.apex[side]) / self.person.height, 0, 1)
            medial = p - self.inner
            part = _chord(lateral / 0.075) * (0.62 * _step(medial / 0.02 + 0.3) + 0.38 * _step(medial / 0.11))
            part *= _step(below / 0.028) * _step(above / 0.009)
            part *= (0.78 + 0.22 * _step(above / 0.12)) * (0.74 + 0.26 * t)
            depth[window] += part.astype(np.float32)
            mask[window] |= (lateral > 0) & (above > 0) & (below > 0) & (p > self.inner)
        return depth, mask

    def heart_layer(self, ratio: float, sag: float = 0.0, window: Window | None = None) -> np.ndarray:
        """Depth of a heart whose width is `ratio` of the thorax, 0 to 1; `sag` lengthens it downwards."""
        window = window or (slice(0, self.height), slice(0, self.width))
        p, q = self.coordinates(window)
        p = p - self.exam.turn
        breadth = ratio * (self.half[-1] + self.half[1])
        left, right = self.person.heart_lean * breadth, (1 - self.person.heart_lean) * breadth
        t = (q - self.heart_top) / (self.heart_bottom + sag - self.heart_top)
        c = np.clip(t, 0.0, 1.0)
        rise = np.sin(0.5 * np.pi * np.minimum(c / 0.78, 1.0)) ** 1.25 - 0.32 * np.clip((c - 0.78) / 0.22, 0, 1) ** 2
        left_border = 0.042 + (left - 0.042) * rise
        right_border = 0.04 + (right - 0.04) * np.sin(np.pi * np.clip(0.04 + 0.86 * c, 0, 1)) ** 0.75
        layer = _chord((left_border - p) / 0.10) * _chord((p + right_border) / 0.09)
        return (layer * (_step(t / 0.22) * _step((1.09 - t) / 0.14))).astype(np.float32)

    def _mediastinum(self) -> tuple[np.ndarray, np.ndarray]:
        """Attenuation of the great vessels, the trachea and the spine, and the silhouette of the mediastinum."""
        person, q = self.person, self.q
        top, knob_q = person.apex, self.heart_top - 0.075
        window = self.window(-0.16, -0.3, 0.16, 1.4)
        p, q = self.coordinates(window)
        shifted = p - 0.6 * self.exam.turn
        knob = person.knob * np.exp(-(((q - knob_q) / (1.1 * person.knob)) ** 2))
        trunk = 0.014 * np.exp(-(((q - self.heart_top + 0.005) / 0.03) ** 2))
        left = 0.047 + 0.012 * _step((top + 0.12 - q) / 0.15) + knob + trunk
        right = 0.048 + 0.008 * _step((top + 0.16 - q) / 0.2)
        inside = _chord((left - shifted) / 0.03) * _chord((shifted + right) / 0.03)
        fade = _step((q - 0.02) / 0.1)
        part = _MEDIASTINUM * inside * fade * 1.6
        # The band of the great vessels hides the lungs' inner rim.
        carina = self.heart_top - 0.045
        windpipe = _step((0.021 - np.abs(shifted + 0.004)) / 0.009) * _step((carina - q) / 0.03)
        near = _step((carina + 0.06 - q) / 0.03)
        branch = np.abs(np.abs(shifted) - np.clip((q - carina + 0.02) * 0.75, 0, 0.09))
        windpipe = np.maximum(
            windpipe, 0.7 * _step((0.014 - branch) / 0.008) * _step((q - carina + 0.02) / 0.02) * near
        )
        part = part - 0.20 * windpipe
        spine = _step((0.036 - np.abs(p)) / 0.012)
        discs = 0.75 + 0.25 * np.cos(2 * np.pi * (q + person.rib_slope) / 0.056)
        part += 0.07 * spine * discs
        part += 0.03 * np.exp(-(((np.abs(p) - 0.034) / 0.006) ** 2)) * discs
        layer = np.zeros((self.height, self.width), dtype=np.float32)
        layer[window] = part
        mask = np.zeros((self.height, self.width), dtype=bool)
        floor = min(self.dome.values()) + 0.02
        mask[window] = (shifted < left) & (shifted > -right) & (q > top) & (q < floor)
        return layer, mask

    def _body(self) -> np.ndarray:
        """Attenuation of the trunk without lungs, the neck, the arms and what lies under the diaphragm."""
        person, q = self.person, self.q
        side = np.abs(self.p)
        trunk = 0.5 * (self.outer(-1, q) + self.outer(1, q)) + person.fat + 0.035
        slope = _step((q - person.apex + 0.16) / 0.24)
        # The shoulders run into the arms and, through the folds of the axillae, into the trunk.
        axilla = np.clip((q - person.apex - 0.08) / 0.6, 0.0, 1.0)
        shoulder = 0.075 + (0.46 - 0.24 * axilla) * slope
        half = np.maximum(np.maximum(trunk * _step((q - person.apex + 0.02) / 0.16), shoulder), 0.082)
        half = half.astype(np.float32)
        body = _chord((half - side) / 0.13)
        body *= (0.55 + 0.45 * _step((q + 0.06) / 0.26)).astype(np.float32)
        # Towards the shoulders' ends the body is thinner than the trunk.
        body *= 1.0 - 0.40 * _step((side - 0.80 * trunk - 0.06) / 0.22).astype(np.float32)
        arm_middle = 0.475 + 0.12 * np.clip(q - 0.25, 0, 1) + (0.06 if self.exam.view == "PA" else 0.0)
        arm = 0.58 * _chord((0.068 - np.abs(side - arm_middle)) / 0.05) * _step((q - person.apex - 0.02) / 0.08)
        body = np.maximum(body, arm)
        if person.breast > 0:
            body += self._breasts(side)
        body += _ABDOMEN * _step((q - min(self.dome.values()) + 0.02) / 0.2) * _chord((half - side) / 0.2)
        return body.astype(np.float32)

    def _breasts(self, side: np.ndarray) -> np.ndarray:
        person = self.person
        size = 0.11 + 0.05 * person.breast
        p, q = (side - 0.55 * person.half_width) / (1.15 * size), (self.q - (0.58 + 0.05 * person.breast)) / size
        return (0.07 + 0.16 * person.breast) * _step((1.0 - p * p - np.where(q > 0, q * q, 0.45 * q * q)) / 0.35)

    def _texture(self, rng: np.random.Generator) -> np.ndarray:
        """Soft tissue is never even: clouds of two sizes, and the gas of the stomach in some."""
        clouds = _enlarge(rng.standard_normal((7, 7), dtype=np.float32), self.height, self.width) * 0.035
        fine = _enlarge(rng.standard_normal((44, 44), dtype=np.float32), self.height, self.width)
        clouds += fine * (0.012 + 0.022 * np.sqrt(self.lung))
        slope = 0.16 * (rng.random(2) - 0.5)
        clouds += (slope[0] * self.p + slope[1] * (self.q - 0.5)).astype(np.float32)
        u = rng.random(5)
        if u[0] < 0.55:
            p0, q0 = 0.12 + 0.06 * u[1], self.dome[1] + 0.045 + 0.03 * u[2]
            a, b = 0.035 + 0.035 * u[3], 0.020 + 0.025 * u[4]
            window = self.window(p0 - a, q0 - b, p0 + a, q0 + b)
            p, q = self.coordinates(window)
            clouds[window] -= 0.30 * _step((1.0 - ((p - p0) / a) ** 2 - ((q - q0) / b) ** 2) / 0.5)
        return clouds

    # Display --------------------------------------------------------------------------------------------------------
    def _set_tone(self) -> None:
        black, white, curvature = self.exam.tone
        ramp = (np.arange(2048, dtype=np.float32) + 0.5) / 2048
        self._tone = 255.0 * (1 - np.exp(-curvature * ramp)) / (1 - math.exp(-curvature))
        self._offset, self._gain = -black, 2048 / (white - black)

    def grey(self, attenuation: np.ndarray) -> np.ndarray:
        """Grey levels in [0, 255], float32, of an attenuation, through the film's tone curve."""
        return self._tone[np.clip((attenuation + self._offset) * self._gain, 0, 2047).astype(np.int16)]

    def show(self, attenuation: np.ndarray) -> np.ndarray:
        """The film, uint8."""
        return (self.grey(attenuation) + 0.5).astype(np.uint8)


def _enlarge(
    coarse: np.ndarray, height: int, width: int, part: tuple[float, float, float, float] | None = None
) -> np.ndarray:
    """Bicubic enlargement of a small field, or of the rectangle `part` of it (xyxy in its pixels)."""
    image = PIL.Image.fromarray(np.ascontiguousarray(coarse, dtype=np.float32))
    return np.asarray(image.resize((width, height), PIL.Image.Resampling.BICUBIC, box=part))


class _Canvas:
    """Strokes in the patient frame, drawn larger and reduced so that their edges are smooth; values 0 to 1."""

    def __init__(self, scene: _Scene) -> None:
        self.scene = scene
        self.factor = 2 if scene.unit >= 160 else 4
        self.image = PIL.Image.new("L", (scene.width * self.factor, scene.height * self.factor))
        self.pen = PIL.ImageDraw.Draw(self.image)
        exam = scene.exam
        self._k = exam.scale * scene.unit * self.factor
        self._x0 = ((exam.center[0] - 0.5) * scene.unit + scene.width / 2) * self.factor
        self._y0 = ((exam.center[1] - 0.5) * scene.unit + scene.height / 2) * self.factor
        self._shear = exam.shear * scene.unit * self.factor

    def points(self, p: Points, q: Points) -> list[tuple[float, float]]:
        k, x0, y0, shear = self._k, self._x0, self._y0, self._shear
        return [(a * k + x0 + shear * (b - 0.5), (b - 0.5) * k + y0) for a, b in zip(p, q, strict=True)]

    def line(self, p: Points, q: Points, width: float, value: float) -> None:
        pixels = width * self._k
        # Thinner than a pixel is drawn a pixel wide and fainter.
        value *= min(pixels, 1.0)
        self.pen.line(self.points(p, q), fill=int(255 * value), width=max(round(pixels), 1))

    def disc(self, p: float, q: float, radius: float, value: float) -> None:
        ((x, y),) = self.points([p], [q])
        r = max(radius * self._k, 1.0)
        self.pen.ellipse((x - r, y - r, x + r, y + r), fill=int(255 * value))

    def polygon(self, p: Points, q: Points, value: float) -> None:
        self.pen.polygon(self.points(p, q), fill=int(255 * value))

    def layer(self) -> np.ndarray:
        """`(H, W)` float32."""
        return np.asarray(self.image.reduce(self.factor), dtype=np.float32) * np.float32(1 / 255)


def _draw_vessels(scene: _Scene, rng: np.random.Generator) -> np.ndarray:
    """Depth of the vessels of both lungs: trees that leave the hila, fork and taper."""
    canvas = _Canvas(scene)
    strokes: list[tuple[float, list[float], list[float]]] = []
    for side in (-1, 1):
        p0, q0 = scene.hilum[side]
        starts = rng.normal(0, 0.014, (8, 2)).tolist()
        directions = np.linspace(-1.40, 1.45, 8) + rng.normal(0, 0.13, 8)
        for (dp, dq), direction in zip(starts, directions, strict=True):
            reach = 0.14 + 0.08 * abs(direction) + 0.08 * rng.random()
            root = (p0 + dp - 0.01, q0 + dq + 0.03 * math.sin(direction))
            _grow(strokes, rng, side, *root, float(direction), reach, 0.0125, 0)
    strokes.sort(key=lambda stroke: stroke[0])
    for width, ps, qs in strokes:
        canvas.line(ps, qs, width, min(0.16 + 68 * width, 1.0))
    layer = canvas.layer()
    for side in (-1, 1):
        # The hilum itself: a knot of vessels seen end on.
        p0, q0 = scene.hilum[side]
        window = scene.window(side * p0 - 0.07, q0 - 0.09, side * p0 + 0.07, q0 + 0.09)
        p, q = scene.coordinates(window)
        knot = np.exp(-(((p - side * p0 + side * 0.012) / 0.03) ** 2) - ((q - q0) / 0.045) ** 2)
        layer[window] += 0.75 * knot
    return layer


_FINEST_VESSEL = 0.0011  # thinner ones are not seen, and most of the strokes


def _grow(
    strokes: list[tuple[float, list[float], list[float]]],
    rng: np.random.Generator,
    side: int,
    p: float,
    q: float,
    direction: float,
    reach: float,
    width: float,
    depth: int,
) -> None:
    """Append the strokes `(width, ps, qs)` of a vessel and of its branches; `p` and `side` as for the lungs."""
    steps = 5 if depth == 0 else 3
    bends, forks = rng.normal(0, 0.16, steps).tolist(), rng.random((steps, 2)).tolist()
    length = reach / steps
    for i in range(steps):
        ps, qs = [side * p], [q]
        direction += bends[i]
        p, q = p + length * math.cos(direction), q + length * math.sin(direction)
        ps.append(side * p)
        qs.append(q)
        strokes.append((width, ps, qs))
        width *= 0.72
        if width < _FINEST_VESSEL:
            return
        if depth < 2 and forks[i][0] < (0.85 if depth == 0 else 0.5):
            turn = (0.35 + 0.5 * forks[i][1]) * (1 if (i + depth) % 2 else -1)
            _grow(strokes, rng, side, p, q, direction + turn, 0.55 * reach, width * 0.8, depth + 1)


def _draw_bones(scene: _Scene, rng: np.random.Generator) -> np.ndarray:
    """Attenuation of ribs, clavicles, scapulae and humeri."""
    person = scene.person
    back, front = _Canvas(scene), _Canvas(scene)
    spacing = (scene.dome[-1] - person.apex) / 8.6
    u = rng.random(40)
    t = np.linspace(0, 1, 13)
    for side in (-1, 1):
        for i in range(10):
            q0 = person.apex - 0.025 + i * spacing + side * scene.exam.tilt + 0.004 * (u[i] - 0.5)
            end = float(scene.outer(side, q0 + person.rib_slope)) + 0.008
            p = 0.035 + (end - 0.035) * t
            drop = person.rib_slope + 0.014 * i
            q = q0 - 0.035 * np.sin(np.pi * np.minimum(t * 1.25, 1)) + drop * t**2.2 + 0.2 * np.maximum(t - 0.85, 0)
            width = 0.0175 + 0.004 * u[10 + i]
            back.line(side * p, q, width, 0.95)
            back.line(side * p, q, width * 0.62, 0.62)
            if 1 <= i < 8:
                # The same rib on its way to the sternum, in front; its cartilage is not seen.
                stop = 0.30 + 0.012 * i
                pf = end + (end * stop - end) * t
                qf = q[-1] + (0.10 + 0.008 * i) * t**0.8
                front.line(side * pf, qf, width * 1.15, 0.9)
                front.line(side * pf, qf, width * 0.7, 0.68)
    layer = _RIB * person.rib_density * (back.layer() + 0.32 * front.layer())
    girdle = _Canvas(scene)
    for side in (-1, 1):
        s = side * (1.0 + 0.05 * (u[20] - 0.5))
        shift = scene.exam.turn
        lift = 0.03 * (u[21] - 0.5) + side * scene.exam.tilt
        p = np.array([0.025, 0.07, 0.13, 0.20, 0.27, 0.33]) * s + shift
        q = person.apex + lift + np.array([0.075, 0.055, 0.04, 0.028, 0.008, -0.005]) + 0.012 * np.sin(np.arange(6))
        _scapula(girdle, scene, side, u[22:26])
        girdle.line(p, q, 0.024, 0.85)
        girdle.line(p, q, 0.014, 0.62)
        arm = 0.475 + (0.06 if scene.exam.view == "PA" else 0.0)
        girdle.disc(side * (arm - 0.02), person.apex + 0.06, 0.035, 0.75)
        girdle.line([side * (arm - 0.01), side * (arm + 0.06)], [person.apex + 0.07, person.apex + 0.55], 0.032, 0.8)
        girdle.line([side * (arm - 0.01), side * (arm + 0.06)], [person.apex + 0.07, person.apex + 0.55], 0.016, 0.55)
    return layer + 0.24 * girdle.layer()


def _scapula(canvas: _Canvas, scene: _Scene, side: int, u: np.ndarray) -> None:
    """A faint triangle; on PA films it is turned out of the lung for the most part."""
    out = 0.05 if scene.exam.view == "PA" else 0.0
    top = scene.person.apex + 0.03 + 0.02 * u[0]
    p = np.array([0.27, 0.36, 0.37, 0.32, 0.295]) + out + 0.02 * (u[1] - 0.5)
    q = top + np.array([0.04, 0.0, 0.08, 0.27, 0.17]) + 0.01 * u[2]
    canvas.polygon(side * p, q, 0.18)
    canvas.line(side * p[[0, 4, 3]], q[[0, 4, 3]], 0.007, 0.38)
    canvas.line(side * p[[3, 2]], q[[3, 2]], 0.009, 0.45)


# ---------------------------------------------------------------------------------------------------------------------
# What lies on films without being a finding
# ---------------------------------------------------------------------------------------------------------------------
_LETTERS: dict[str, list[tuple[tuple[float, float], ...]]] = {
    "L": [((0, 0), (0, 1), (0.6, 1))],
    "R": [((0, 1), (0, 0), (0.45, 0), (0.6, 0.2), (0.45, 0.45), (0, 0.45)), ((0.25, 0.45), (0.6, 1))],
    "A": [((0, 1), (0.3, 0), (0.6, 1)), ((0.12, 0.62), (0.48, 0.62))],
    "P": [((0, 1), (0, 0), (0.45, 0), (0.6, 0.25), (0.45, 0.5), (0, 0.5))],
}


def _draw_devices(scene: _Scene, rng: np.random.Generator, base: np.ndarray) -> np.ndarray:
    """Add lines, tubes, electrodes, a pacemaker, lead letters and the edges of the plate to the attenuation."""
    ap = scene.exam.view == "AP"
    canvas = _Canvas(scene)
    u = rng.random(40)
    top = scene.person.apex
    if u[0] < (0.40 if ap else 0.05):
        _electrodes(canvas, scene, rng)
    if u[1] < (0.28 if ap else 0.05):
        _central_line(canvas, scene, u[2:8])
    if u[8] < (0.20 if ap else 0.01):
        end = scene.heart_top - 0.06 - 0.05 * u[9]
        canvas.line([0.012 * (u[10] - 0.5), 0.004, -0.003], [-0.2, top, end], 0.0075, 0.30)
        canvas.line([0.012 * (u[10] - 0.5) + 0.005, 0.008, 0.001], [-0.2, top, end], 0.002, 0.55)
    if u[11] < (0.18 if ap else 0.02):
        q = np.array([-0.2, top, scene.heart_top, scene.dome[1] + 0.03, scene.dome[1] + 0.09])
        canvas.line(np.array([0.0, 0.01, 0.014, 0.03, 0.10 + 0.05 * u[12]]), q, 0.004, 0.5)
    if u[13] < (0.06 if ap else 0.035):
        _pacemaker(canvas, scene, u[14:20])
    if u[20] < 0.10:
        side, across, along = (-1 if u[21] < 0.5 else 1), 0.15 + 0.6 * u[22], 0.25 + 0.6 * u[23]
        scar_p, scar_q = scene.spot(side, across, along)
        canvas.disc(side * scar_p, scar_q, 0.0045 + 0.002 * u[24], 0.6)  # an old calcified scar: tiny and very dense
    if u[25] < 0.05:
        for k in range(5):
            canvas.line([-0.006, 0.006], [0.26 + 0.07 * k, 0.265 + 0.07 * k], 0.004, 0.8)  # sternal wires
    attenuation = base + 0.75 * canvas.layer()
    return _plate(scene, rng, attenuation)


def _electrodes(canvas: _Canvas, scene: _Scene, rng: np.random.Generator) -> None:
    u = rng.random((5, 4))
    for k in range(2 + int(rng.integers(0, 4))):
        side = 1 if k % 2 else -1
        p, q = side * (0.12 + 0.24 * u[k % 5, 0]), scene.person.apex + 0.05 + 0.62 * u[k % 5, 1]
        canvas.disc(p, q, 0.012, 0.30)
        canvas.disc(p, q, 0.005, 0.85)
        bend = side * 0.15 * (u[k % 5, 2] - 0.3)
        t = np.linspace(0, 1, 9)
        down = 1.0 if u[k % 5, 3] < 0.6 else -1.0
        canvas.line(p + bend * np.sin(2.2 * t) + 0.06 * side * t * t, q + down * (1.1 - 0.3 * q) * t, 0.0028, 0.42)


def _central_line(canvas: _Canvas, scene: _Scene, u: np.ndarray) -> None:
    side = -1 if u[0] < 0.7 else 1
    tip = scene.heart_top - 0.03 + 0.08 * u[1]
    start = (0.07, -0.1) if u[2] < 0.5 else (0.30, scene.person.apex + 0.05)
    t = np.linspace(0, 1, 9)
    knee_p, knee_q = 0.045 * side, scene.person.apex + 0.08
    p = (1 - t) ** 2 * start[0] * side + 2 * t * (1 - t) * knee_p + t**2 * -0.038
    q = (1 - t) ** 2 * start[1] + 2 * t * (1 - t) * knee_q + t**2 * tip
    canvas.line(p, q, 0.0038, 0.48)


def _pacemaker(canvas: _Canvas, scene: _Scene, u: np.ndarray) -> None:
    side = 1 if u[0] < 0.8 else -1
    p, q = side * (0.235 + 0.03 * u[1]), scene.person.apex + 0.13 + 0.04 * u[2]
    t = np.linspace(0, 2 * np.pi, 17)
    canvas.polygon(p + 0.040 * np.cos(t) * (1 + 0.1 * np.cos(2 * t)), q + 0.034 * np.sin(t), 0.8)
    canvas.polygon(p + 0.022 * np.cos(t), q + 0.006 + 0.017 * np.sin(t), 1.0)
    s = np.linspace(0, 1, 11)
    end_p, end_q = 0.06 + 0.05 * u[3], scene.heart_bottom - 0.05
    path_p = (1 - s) ** 3 * p + 3 * s * (1 - s) ** 2 * 0.10 * side - 3 * s**2 * (1 - s) * 0.09 + s**3 * end_p
    path_q = (1 - s) ** 3 * q + 3 * s * (1 - s) ** 2 * (q - 0.08) + 3 * s**2 * (1 - s) * (end_q - 0.05) + s**3 * end_q
    canvas.line(path_p, path_q, 0.004, 0.75)


def _plate(scene: _Scene, rng: np.random.Generator, attenuation: np.ndarray) -> np.ndarray:
    """Lead letters and collimated edges: fixed to the plate, not to the patient."""
    u = rng.random(14)
    height, width, unit = scene.height, scene.width, scene.unit
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


# ---------------------------------------------------------------------------------------------------------------------
# Findings
# ---------------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class _Lesion:
    """A finding's part that gets a box of its own.

    Attributes:
        window: The pixels that it may change.
        delta: What it adds to the attenuation there, `(h, w)` float32.
        extent: Where it lies when that is more than what it changes (the heart), `(h, w)` bool.
        silhouette: What it adds to the thorax, `(h, w)` bool.
    """

    window: Window
    delta: np.ndarray
    extent: np.ndarray | None = None
    silhouette: np.ndarray | None = None


def _settle(scene: _Scene, lesion: _Lesion) -> tuple[Window, np.ndarray, tuple[float, float, float, float]]:
    """Make a lesion visible, fade out what is too faint to be seen, and box what remains.

    Returns:
        The window, the change of the attenuation (0 outside the box), and the box.
    """
    delta, normal = lesion.delta, scene.base[lesion.window]
    grey = scene.grey(normal)
    change = np.abs(scene.grey(normal + delta) - grey)
    peak = float(change.max())
    if peak < _VISIBLE_CHANGE:
        delta = delta * min(_VISIBLE_CHANGE / max(peak, 1e-3), 4.0)
        change = np.abs(scene.grey(normal + delta) - grey)
        peak = float(change.max())
    strength = np.abs(delta) / max(float(np.abs(delta).max()), 1e-6)
    if lesion.extent is None:
        delta = delta * _step((strength - _FADE[0]) / (_FADE[1] - _FADE[0]))
        seen = (change > _BOX_LEVEL * peak) & (strength > _BOX_LEVEL)
    else:
        seen = lesion.extent
    if not seen.any():  # off the film: keep its strongest pixel, so that a finding never lacks a box
        seen = strength >= strength.max()
    rows, columns = np.flatnonzero(seen.any(axis=1)), np.flatnonzero(seen.any(axis=0))
    y0, y1, x0, x1 = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    inside = np.zeros_like(delta, dtype=np.float32)
    inside[y0:y1, x0:x1] = delta[y0:y1, x0:x1]
    top, left = lesion.window[0].start, lesion.window[1].start
    return lesion.window, inside, (float(left + x0), float(top + y0), float(left + x1), float(top + y1))


def _side(rng: np.random.Generator) -> int:
    return -1 if rng.random() < 0.53 else 1


def _lognormal(rng: np.random.Generator, median: float, spread: float, low: float, high: float) -> float:
    return float(np.clip(median * math.exp(spread * rng.standard_normal()), low, high))


def _around(
    scene: _Scene, side: int, p0: float, q0: float, a: float, b: float
) -> tuple[Window, np.ndarray, np.ndarray]:
    """Window of half-sizes `a`, `b` about a point of a lung, with its mirrored `p` (positive laterally) and `q`."""
    window = scene.window(side * p0 - a, q0 - b, side * p0 + a, q0 + b)
    p, q = scene.coordinates(window)
    return window, p * side, q


def _air(scene: _Scene, window: Window) -> np.ndarray:
    """Share of a pixel's depth that is lung, 0 at its border; opacities of the lung are multiplied by it."""
    return np.minimum(scene.lung[window] * 1.7, 1.0)


def _atelectasis(scene: _Scene, rng: np.random.Generator) -> list[_Lesion]:
    """Bands of collapsed lung, or a wedge with sharp edges at the base."""
    side = _side(rng)
    strength = rng.uniform(0.24, 0.48)
    if rng.random() < 0.72:
        p0, q0 = scene.spot(side, rng.uniform(0.25, 0.75), rng.uniform(0.48, 0.98))
        length = _lognormal(rng, 0.102, 0.35, 0.055, 0.20)
        tilt, bow = rng.uniform(-0.45, 0.45), rng.uniform(-1.2, 1.2)
        gap, count = rng.uniform(0.028, 0.052), int(rng.choice([1, 2, 3, 4], p=[0.15, 0.35, 0.32, 0.18]))
        window, p, q = _around(scene, side, p0, q0, length + 0.03, 0.5 * length + gap * count + 0.03)
        along = (p - p0) * math.cos(tilt) + (q - q0) * math.sin(tilt)
        across = (q - q0) * math.cos(tilt) - (p - p0) * math.sin(tilt) - bow * along**2
        delta = np.zeros_like(along)
        for k in range(count):
            middle, half = gap * (k - 0.5 * (count - 1)), length * rng.uniform(0.7, 1.0)
            shift, thick = rng.uniform(-0.02, 0.02), rng.uniform(0.0060, 0.0115)
            band = _step((half - np.abs(along - shift)) / (0.35 * half)) * np.exp(-(((across - middle) / thick) ** 2))
            delta = np.maximum(delta, band)
        return [_Lesion(window, strength * delta * _air(scene, window))]
    # A collapsed lower lobe: a triangle against the spine, or a wedge on the diaphragm, its long edge sharp.
    height, breadth = _lognormal(rng, 0.15, 0.3, 0.08, 0.26), _lognormal(rng, 0.12, 0.3, 0.07, 0.22)
    q0 = scene.dome[side] + 0.02
    window, p, q = _around(scene, side, 0.04 + breadth / 2, q0 - height / 2, breadth / 2 + 0.05, height / 2 + 0.08)
    edge = 0.045 + breadth * np.clip((q - q0 + height) / height, 0, 1.2) ** 1.4 - p
    delta = _step(edge / 0.012) * _step((q - q0 + height) / 0.04) * (0.85 + 0.15 * scene.field(rng, window, 0.03))
    return [_Lesion(window, (1.1 * strength * delta * _air(scene, window)).astype(np.float32))]


def _cardiomegaly(scene: _Scene, rng: np.random.Generator) -> list[_Lesion]:
    """A heart of more than half the thorax in the place of the normal one."""
    ratio, sag = rng.uniform(*_ENLARGED_RATIO), rng.uniform(0.0, 0.035)
    margin = 0.03
    breadth = ratio * (scene.half[-1] + scene.half[1])
    left = scene.person.heart_lean * breadth + scene.exam.turn
    right = (1 - scene.person.heart_lean) * breadth - scene.exam.turn
    window = scene.window(
        -right - margin, scene.heart_top - margin, left + margin, scene.heart_bottom + sag + 2 * margin
    )
    enlarged = scene.heart_layer(ratio, sag, window)
    delta = scene.heart_weight[window] * (enlarged - scene.heart[window])
    return [_Lesion(window, delta, extent=enlarged > 0.15, silhouette=enlarged > 0.15)]


def _effusion(scene: _Scene, rng: np.random.Generator) -> list[_Lesion]:
    """Fluid that fills the lung's base up to a meniscus, higher at the wall."""
    side = _side(rng)
    sides = (side, -side) if rng.random() < 0.16 else (side,)
    return [_fluid(scene, rng, s) for s in sides]


def _fluid(scene: _Scene, rng: np.random.Generator, side: int) -> _Lesion:
    bottom = scene.dome[side] + scene.sulcus[side]
    height = _lognormal(rng, 0.26, 0.50, 0.085, 0.55)
    climb = rng.uniform(0.35, 0.65) * height
    top = bottom - height
    outer = float(scene.outer(side, bottom - 0.03))
    p_low, p_high = sorted((side * 0.03, side * (outer + 0.02)))
    window = scene.window(p_low, top - 0.02, p_high, bottom + 0.04)
    p, q = scene.coordinates(window)
    p = p * side
    wall = np.clip((scene.outer(side, q) - p) / (outer - 0.03), 0.0, 1.0)
    level = top + climb * (1.0 - (1.0 - wall) ** 3.0) + rng.uniform(0.0, 0.25) * height * wall
    fluid = _step((q - level) / 0.022)
    fluid = fluid * (0.72 + 0.28 * _step((q - level) / (0.6 * height)))
    delta = fluid * (rng.uniform(0.55, 0.85) * _LUNG * scene.lung[window] - 0.5 * _VESSEL * scene.vessels[window])
    return _Lesion(window, delta.astype(np.float32))


def _zone(
    scene: _Scene, rng: np.random.Generator, along: tuple[float, float], width: float, height: float, spread: float
) -> tuple[int, float, float, float, float]:
    """Side, centre and half-sizes of a region of a lung, of a median width and height."""
    side = _side(rng)
    a = 0.5 * _lognormal(rng, width, 0.25, 0.09, 0.30)
    b = 0.5 * _lognormal(rng, height, spread, 0.09, 0.50)
    p0, q0 = scene.spot(side, rng.uniform(0.25, 0.75), rng.uniform(*along))
    return side, p0, q0, a, b


def _infiltration(scene: _Scene, rng: np.random.Generator) -> list[_Lesion]:
    """Scattered, ill-defined patches with lung in between."""
    side, p0, q0, a, b = _zone(scene, rng, (0.3, 0.85), 0.235, 0.30, 0.35)
    window, p, q = _around(scene, side, p0, q0, a + 0.04, b + 0.04)
    count = int(np.clip(5 + 260 * a * b, 6, 16))
    spots = rng.uniform(-1, 1, (count, 2))
    radii, weights = rng.uniform(0.014, 0.032, count), rng.uniform(0.55, 1.0, count)
    delta = np.zeros(p.shape, dtype=np.float32)
    for (x, y), radius, weight in zip(spots, radii, weights, strict=True):
        x, y = p0 + x * a * 0.85, q0 + y * b * 0.85
        delta += weight * np.exp(-(((p - x) / radius) ** 2) - ((q - y) / radius) ** 2)
    delta = np.minimum(delta, 1.2) * np.clip(1 + 0.3 * scene.field(rng, window, 0.015), 0.2, 1.8)
    return [_Lesion(window, rng.uniform(0.20, 0.38) * delta * _air(scene, window))]


def _round(scene: _Scene, rng: np.random.Generator, radius: float, strength: float, lobed: float) -> _Lesion:
    side = _side(rng)
    p0, q0 = scene.spot(side, rng.uniform(0.2, 0.88), rng.uniform(0.12, 0.93))
    squeeze = rng.uniform(0.85, 1.18)
    window, p, q = _around(scene, side, p0, q0, 1.5 * radius, 1.5 * radius)
    x, y = (p - p0) / (radius * squeeze), (q - q0) / (radius / squeeze)
    angle = np.arctan2(y, x)
    bumps = rng.normal(0, lobed, 3)
    phases = rng.uniform(0, 2 * np.pi, 3)
    rim = 1 + sum(bumps[k] * np.cos((k + 2) * angle + phases[k]) for k in range(3))
    inside = 1.0 - np.sqrt(x * x + y * y) / rim
    soft = rng.uniform(0.12, 0.3)
    profile = _step(inside / soft) * (0.6 + 0.4 * _chord(inside))
    # A sphere in the lung displaces air; over heart or diaphragm it shows less.
    return _Lesion(window, (strength * profile * (0.35 + 0.65 * _air(scene, window))).astype(np.float32))


def _mass(scene: _Scene, rng: np.random.Generator) -> list[_Lesion]:
    """A rounded opacity of more than 3 cm."""
    radius = 0.5 * _lognormal(rng, 0.122, 0.36, 0.094, 0.30)
    return [_round(scene, rng, radius, rng.uniform(0.26, 0.50), 0.06)]


def _nodule(scene: _Scene, rng: np.random.Generator) -> list[_Lesion]:
    """One rounded opacity of 3 cm at most, or two."""
    count = 2 if rng.random() < 0.12 else 1
    return [
        _round(scene, rng, 0.5 * _lognormal(rng, 0.066, 0.2, 0.044, 0.080), rng.uniform(0.24, 0.46), 0.03)
        for _ in range(count)
    ]


def _pneumonia(scene: _Scene, rng: np.random.Generator) -> list[_Lesion]:
    """One focal cloud of airspace opacity, densest in its middle, mottled."""
    side, p0, q0, a, b = _zone(scene, rng, (0.4, 0.9), 0.235, 0.27, 0.32)
    window, p, q = _around(scene, side, p0, q0, 1.15 * a, 1.15 * b)
    lean = rng.uniform(-0.5, 0.5)
    x, y = (p - p0 - lean * (q - q0)) / a, (q - q0) / b
    ragged = 0.16 * scene.field(rng, window, 0.035)
    cloud = _step((1.0 - np.sqrt(x * x + y * y) + ragged) / 0.75)
    mottle = np.clip(1.0 + 0.17 * scene.field(rng, window, 0.014), 0.5, 1.5)
    return [_Lesion(window, (rng.uniform(0.32, 0.52) * cloud * mottle * _air(scene, window)).astype(np.float32))]


def _pneumothorax(scene: _Scene, rng: np.random.Generator) -> list[_Lesion]:
    """Air between lung and wall: no vessels, darker, with the thin line of the lung's surface."""
    side = _side(rng)
    depth = _lognormal(rng, 0.15, 0.6, 0.06, 0.55)  # how far down it reaches
    gap = _lognormal(rng, 0.057, 0.35, 0.032, 0.13)
    top, end = scene.apex[side], scene.apex[side] + depth + 0.03
    p_low, p_high = sorted((side * 0.03, side * (scene.half[side] + 0.01)))
    window = scene.window(p_low, top - 0.02, p_high, end + 0.01)
    p, q = scene.coordinates(window)
    p = p * side
    # The surface of the collapsed lung: the lung's own outline, moved inwards and down, less and less further below.
    taper = np.clip((end - q) / (end - top), 0.0, 1.0) ** 0.7
    lateral = scene.outer(side, q) - p
    below = q - scene.roof(side, p)
    inwards = np.minimum(lateral - gap * taper, (below - 0.8 * gap) * 0.9)
    free = _step(-inwards / 0.004) * (q < end) * (scene.lung_mask[window])
    line = np.exp(-((inwards / 0.0035) ** 2)) * (q < end) * np.minimum(taper * 4, 1)
    dark = rng.uniform(0.10, 0.20)
    delta = -free * (dark * np.sqrt(scene.lung[window]) + 0.9 * _VESSEL * scene.vessels[window])
    delta = delta + rng.uniform(0.18, 0.30) * line * _air(scene, window)
    return [_Lesion(window, delta.astype(np.float32))]


def _consolidation(scene: _Scene, rng: np.random.Generator) -> list[_Lesion]:
    """A dense, even lobe or segment that ends sharply at a fissure, with the bronchi dark inside it."""
    side, p0, q0, a, b = _zone(scene, rng, (0.25, 0.85), 0.23, 0.22, 0.3)
    window, p, q = _around(scene, side, p0, q0, 1.1 * a, 1.15 * b + 0.2 * a)
    tilt = rng.uniform(-0.25, 0.25)
    upward = 1.0 if q0 < scene.hilum[side][1] else -1.0  # upper lobes end at a fissure below, others above
    x, y = (p - p0) / a, (q - q0 + tilt * (p - p0)) / b
    fissure = _step((1.0 - upward * y) * b / 0.012)
    ragged = 0.09 * scene.field(rng, window, 0.04)
    rest = _step((1.12 + ragged - np.abs(x) ** 2.4 - np.clip(-upward * y, 0, None) ** 2.4) / 0.6)
    body = fissure * rest
    bronchi = _bronchi(scene, rng, window, side, p0, q0, a, b)
    dense = rng.uniform(0.50, 0.72)
    delta = body * (dense * _air(scene, window) - 0.7 * _VESSEL * scene.vessels[window])
    delta -= body * 0.30 * bronchi
    return [_Lesion(window, delta.astype(np.float32))]


def _bronchi(
    scene: _Scene, rng: np.random.Generator, window: Window, side: int, p0: float, q0: float, a: float, b: float
) -> np.ndarray:
    """Forked lines that point away from the hilum, 0 to 1, on a window."""
    p, q = scene.coordinates(window)
    p = p * side
    hp, hq = scene.hilum[side]
    heading = math.atan2(q0 - hq, p0 - hp + 0.05)
    layer = np.zeros(p.shape, dtype=np.float32)
    for spread in rng.uniform(-0.5, 0.5, 3) + np.array([-0.5, 0.0, 0.5]):
        dx, dy = math.cos(heading + spread), math.sin(heading + spread)
        x, y = p - p0 + 0.5 * a * math.cos(heading), q - q0 + 0.5 * b * math.sin(heading)
        along, across = x * dx + y * dy, y * dx - x * dy
        inside = _step(along / 0.01 + 0.5) * _step((1.1 * min(a, b) - along) / 0.03)
        layer = np.maximum(layer, inside * np.exp(-(((across - 0.8 * along * along) / 0.0042) ** 2)))
    return layer


def _edema(scene: _Scene, rng: np.random.Generator) -> list[_Lesion]:
    """Haze about both hila in the shape of wings, one often denser than the other."""
    reach, tall = rng.uniform(0.07, 0.165), rng.uniform(0.09, 0.22)
    strength, uneven = rng.uniform(0.22, 0.42), rng.uniform(0.6, 1.4)
    middle = 0.5 * (scene.hilum[-1][1] + scene.hilum[1][1]) + rng.uniform(-0.03, 0.07)
    window = scene.window(-0.30, middle - 1.5 * tall, 0.30, middle + 1.5 * tall)
    p, q = scene.coordinates(window)
    side = np.abs(p)
    x, y = (side - 0.085) / reach, (q - middle - 0.15 * side) / tall
    haze = _step((1.35 - np.sqrt(x * x + y * y)) / 1.0)
    haze = haze * np.where(p < 0, uneven, 2 - uneven)
    mottle = np.clip(1.0 + 0.22 * scene.field(rng, window, 0.016), 0.3, 1.7)
    return [_Lesion(window, (strength * haze * mottle * _air(scene, window)).astype(np.float32))]


def _emphysema(scene: _Scene, rng: np.random.Generator) -> list[_Lesion]:
    """Too much air: a dark zone with few vessels, and thin-walled bullae."""
    side = _side(rng)
    upper, both = rng.random() < 0.7, rng.random() < 0.5
    return [_bullous_zone(scene, rng, s, upper) for s in ((side, -side) if both else (side,))]


def _bullous_zone(scene: _Scene, rng: np.random.Generator, side: int, upper: bool) -> _Lesion:
    b = 0.5 * rng.uniform(0.18, 0.40)
    q0 = scene.apex[side] + b if upper else scene.dome[side] - 0.9 * b
    outer = float(scene.outer(side, q0))
    a = 0.5 * (outer - 0.05)
    p0 = 0.055 + a
    window, p, q = _around(scene, side, p0, q0, a + 0.04, b + 0.02)
    x, y = (p - p0) / a, (q - q0) / b
    zone = _step((1.05 - np.abs(y) ** 3) / 0.3) * _step((1.25 - np.abs(x) ** 3) / 0.3)
    delta = -zone * (rng.uniform(0.10, 0.17) * scene.lung[window] + 0.6 * _VESSEL * scene.vessels[window])
    for _ in range(int(rng.integers(4, 9))):
        radius = rng.uniform(0.018, 0.045)
        cx, cy = p0 + rng.uniform(-0.75, 0.75) * a, q0 + rng.uniform(-0.8, 0.8) * b
        distance = np.sqrt((p - cx) ** 2 + ((q - cy) * 1.1) ** 2) - radius
        bulla = 0.10 * np.exp(-((distance / 0.004) ** 2)) - 0.10 * _step(-distance / (0.4 * radius))
        delta += bulla * _air(scene, window)
    return _Lesion(window, delta.astype(np.float32))


def _fibrosis(scene: _Scene, rng: np.random.Generator) -> list[_Lesion]:
    """A net of fine lines at the bases or the apices, coarser towards the wall."""
    side, basal = _side(rng), rng.random() < 0.65
    both = rng.random() < 0.35
    return [_net(scene, rng, s, basal) for s in ((side, -side) if both else (side,))]


def _net(scene: _Scene, rng: np.random.Generator, side: int, basal: bool) -> _Lesion:
    b = 0.5 * rng.uniform(0.14, 0.30)
    a = 0.5 * rng.uniform(0.13, 0.22)
    q0 = scene.dome[side] + 0.03 - b if basal else scene.apex[side] + 0.02 + b
    outer = float(scene.outer(side, q0))
    p0 = outer - a * rng.uniform(0.85, 1.25)
    window, p, q = _around(scene, side, p0, q0, 1.1 * a, 1.1 * b)
    x, y = (p - p0) / a, (q - q0) / b
    zone = _step((1.1 - np.sqrt(x * x + y * y)) / 0.4)
    lines = np.exp(-((scene.field(rng, window, 0.020) / 0.20) ** 2))
    lines = np.maximum(lines, 0.8 * np.exp(-((scene.field(rng, window, 0.012) / 0.22) ** 2)))
    delta = zone * (rng.uniform(0.20, 0.36) * lines + 0.03)
    return _Lesion(window, (delta * _air(scene, window)).astype(np.float32))


def _pleural_thickening(scene: _Scene, rng: np.random.Generator) -> list[_Lesion]:
    """A dense rim on the inside of the chest wall, or a cap on the apex."""
    side = _side(rng)
    thick, strength = rng.uniform(0.014, 0.032), rng.uniform(0.36, 0.60)
    cap = rng.random() < 0.3
    height = scene.dome[side] - scene.apex[side]
    if cap:
        q_low, q_high = scene.apex[side] - 0.01, scene.apex[side] + rng.uniform(0.06, 0.12)
    else:
        q_low = scene.apex[side] + rng.uniform(0.15, 0.55) * height
        q_high = min(q_low + _lognormal(rng, 0.20, 0.35, 0.09, 0.40), scene.dome[side] - 0.01)
    p_low, p_high = sorted((side * 0.04, side * (scene.half[side] + 0.01)))
    window = scene.window(p_low, q_low, p_high, q_high)
    p, q = scene.coordinates(window)
    p = p * side
    inwards = scene.outer(side, q) - p
    if cap:
        inwards = np.minimum(inwards, 1.2 * (q - scene.roof(side, p)))
    wave = 1.0 + 0.35 * np.sin((q - q_low) * rng.uniform(20, 60) + rng.uniform(0, 6.3))
    ends = _step((q - q_low) / 0.03 + (1.0 if cap else 0.0)) * _step((q_high - q) / 0.03)
    rim = _step((thick * wave * ends - inwards) / 0.008 + 0.5) * (inwards > 0) * (ends > 0.02)
    return [_Lesion(window, (strength * rim * scene.lung_mask[window]).astype(np.float32))]


def _hernia(scene: _Scene, rng: np.random.Generator) -> list[_Lesion]:
    """Stomach above the diaphragm: a round density behind the heart with gas over a level of fluid."""
    radius = rng.uniform(0.050, 0.095)
    p0, q0 = rng.uniform(-0.03, 0.065), scene.dome[1] - rng.uniform(0.25, 0.9) * radius
    window = scene.window(p0 - 1.3 * radius, q0 - 1.2 * radius, p0 + 1.3 * radius, q0 + 1.2 * radius)
    p, q = scene.coordinates(window)
    x, y = (p - p0) / (1.12 * radius), (q - q0) / radius
    inside = 1.0 - np.sqrt(x * x + y * y)
    level = rng.uniform(-0.25, 0.25)
    gas = _step(inside / 0.15 - 0.4) * _step((level - y) / 0.06 + 0.5)
    fluid = _step(inside / 0.12) * _step((y - level) / 0.06 + 0.5)
    wall = np.exp(-(((inside - 0.05) / 0.05) ** 2))
    delta = rng.uniform(0.16, 0.26) * fluid - rng.uniform(0.22, 0.36) * gas + 0.20 * wall
    return [_Lesion(window, delta.astype(np.float32))]


_PAINTERS: dict[str, Callable[[_Scene, np.random.Generator], list[_Lesion]]] = {
    "Atelectasis": _atelectasis,
    "Cardiomegaly": _cardiomegaly,
    "Effusion": _effusion,
    "Infiltration": _infiltration,
    "Mass": _mass,
    "Nodule": _nodule,
    "Pneumonia": _pneumonia,
    "Pneumothorax": _pneumothorax,
    "Consolidation": _consolidation,
    "Edema": _edema,
    "Emphysema": _emphysema,
    "Fibrosis": _fibrosis,
    "Pleural_Thickening": _pleural_thickening,
    "Hernia": _hernia,
}
