# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""A folder of phantoms in the layout of NIH ChestX-ray14."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import PIL.Image

from clarity_hf.boxes import BOX_FRAME
from clarity_hf.labels import FINDINGS, NO_FINDING

from .phantom import Phantom, checked_seed, draw_image, image_seed

_COLUMNS = (
    *("Image Index", "Finding Labels", "Follow-up #", "Patient ID", "Patient Age", "Patient Gender", "View Position"),
    *("OriginalImage[Width", "Height]", "OriginalImagePixelSpacing[x", "y]"),
)
_BOX_COLUMNS = ("Image Index", "Finding Label", "Bbox [x", "y", "w", "h]", "", "", "")
_IMAGES_PER_PATIENT = (0.6, 0.2, 0.12, 0.08)  # probability of 1, 2, 3 and 4 images


def write_phantoms(
    folder: str | os.PathLike[str],
    count: int,
    seed: int = 0,
    size: int | tuple[int, int] = 512,
    test_fraction: float = 0.2,
    findings: Iterable[str] | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> None:
    """Write images in the layout of NIH ChestX-ray14, so that code for the release also reads phantoms.

    Writes `images/NNNNNNNN_NNN.png`, `masks/NNNNNNNN_NNN.png` (the thorax, 0 or 255), `Data_Entry_2017_v2020.csv`,
    `train_val_list.txt` and `test_list.txt` (split by patient; some patients have several images) and
    `BBox_List_2017.csv` (x, y, width, height in pixels of a 1024x1024 frame, whatever the size of the files).

    Args:
        folder: Created if needed. Files of the same names are replaced.
        count: Number of images, at least 1.
        seed: Determines every pixel and every label.
        size: As for [`draw_phantom`].
        test_fraction: Share of the patients in `test_list.txt`, in [0, 1].
        findings: As for [`draw_phantom`], the same for every image.
        progress: Called with the number of images written and `count` after each image.

    Raises:
        ValueError: As for `draw_phantom`, or `count` or `test_fraction` is out of range.
    """
    if count < 1:
        raise ValueError(f"`count` must be at least 1, got {count}. Pass the number of images.")
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
        image = draw_image(image_seed(seed, index), image_seed(seed, count + patient), size, findings, follow_up)
        PIL.Image.fromarray(image.image).save(folder / "images" / name)
        PIL.Image.fromarray(image.thorax.astype(np.uint8) * 255).save(folder / "masks" / name)
        rows.append(_table_row(name, image, patient, follow_up))
        boxes.extend(_box_rows(name, image))
        lists[is_test].append(name)
        if progress is not None:
            progress(index + 1, count)
    _write_csv(folder / "Data_Entry_2017_v2020.csv", [_COLUMNS, *rows])
    _write_csv(folder / "BBox_List_2017.csv", [_BOX_COLUMNS, *boxes])
    for is_test, name in ((False, "train_val_list.txt"), (True, "test_list.txt")):
        (folder / name).write_text("".join(f"{line}\n" for line in lists[is_test]))


def _patients(count: int, seed: int, test_fraction: float) -> list[tuple[int, int, bool]]:
    """Patient's number, visit, and whether it is a test patient, of each image."""
    rng = np.random.default_rng([checked_seed(seed), count])
    visits: list[int] = []
    while sum(visits) < count:
        visits.append(min(1 + int(rng.choice(4, p=_IMAGES_PER_PATIENT)), count - sum(visits)))
    # At least one patient in each split if possible.
    tests = round(test_fraction * len(visits))
    if 0.0 < test_fraction < 1.0 and len(visits) > 1:
        tests = min(max(tests, 1), len(visits) - 1)
    chosen = set(rng.permutation(len(visits))[:tests].tolist())
    return [(i + 1, visit, i in chosen) for i, images in enumerate(visits) for visit in range(images)]


def _table_row(name: str, image: Phantom, patient: int, follow_up: int) -> list[object]:
    """Row of an image, in the order of `_COLUMNS`."""
    present = [finding for finding, label in zip(FINDINGS, image.labels, strict=True) if label > 0]
    height, width = image.image.shape
    spacing = round(360.0 / min(height, width), 4)  # in mm: the image shows 36 cm
    text = "|".join(present) or NO_FINDING
    return [name, text, follow_up, patient, image.age, image.sex, image.view, width, height, spacing, spacing]


def _box_rows(name: str, image: Phantom) -> list[list[object]]:
    """Rows of an image's boxes, in the order of `_BOX_COLUMNS` and in pixels of the release's frame."""
    height, width = image.image.shape
    sx, sy = BOX_FRAME / width, BOX_FRAME / height
    return [
        [name, finding, x0 * sx, y0 * sy, (x1 - x0) * sx, (y1 - y0) * sy, "", "", ""]
        for finding, (x0, y0, x1, y1) in image.boxes
    ]


def _write_csv(path: Path, rows: Iterable[Sequence[object]]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)
