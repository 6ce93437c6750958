# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""NIH ChestX-ray14 from its own folders, or from a resized copy of them.

Wang et al., "ChestX-ray8: Hospital-scale Chest X-ray Database and Benchmarks on Weakly-Supervised Classification and
Localization of Common Thorax Diseases", CVPR 2017. The release is read as it was published:

    DATA_DIR/
      Data_Entry_2017_v2020.csv                     a row an image (or the older Data_Entry_2017.csv)
      train_val_list.txt, test_list.txt             the official split, by patient
      BBox_List_2017.csv, BBox_List_RSNA.csv, ...   boxes, optional
      images/ or images_001/images/ ...             the images; any other folder is found too
      original-1024/                                not of the release: a subset's copies at full size, whose
                                                    patients go to validation
      masks/                                        optional thorax masks, NAME.png or .jpg, of any size

`load_nih` gives the data set; `read_nih_tables` gives the rows and a report of all that was dropped; `split_images` is
the split alone.

Frames: boxes are xyxy pixels of the release's 1024x1024 images (`BOX_FRAME`), right and bottom exclusive, whatever the
size of the image on disk. Multiply by `size / BOX_FRAME` for a copy resized to `size`, or ask the image processor for
boxes with `target_sizes=[(BOX_FRAME, BOX_FRAME)]`.
"""

from __future__ import annotations

import csv
import io
import logging
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import datasets
import numpy as np
import PIL.Image

from clarity_hf.boxes import BOX_FRAME
from clarity_hf.deprecated import old_names
from clarity_hf.image_reading import FORMATS, MAX_PIXELS
from clarity_hf.labels import FINDINGS, NO_FINDING, canonical_finding, encode_findings

from .named_splits import named_split
from .rows import check_validation_fraction, first_names, in_drawing_order

logger = logging.getLogger(__name__)

OLDEST_AGE = 120
"""Ages above this, in years, are errors of the older table (they reach 414) and are read as unknown."""

TABLES = ("Data_Entry_2017_v2020.csv", "Data_Entry_2017.csv")
"""Names of the table of images, the preferred one first."""

TRAIN_VALIDATION_LIST = "train_val_list.txt"
TEST_LIST = "test_list.txt"
BOX_LISTS = "BBox_List*.csv"
ORIGINALS_FOLDER = "original-1024"
MASKS_FOLDER = "masks"
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")

VALIDATION_FRACTION = 0.2
"""Share of the patients of the train list that goes to validation, unless another is asked for."""

_RELEASE_URL = "https://nihcc.app.box.com/v/ChestXray-NIHCC"
_CITATION = (
    "Wang X, Peng Y, Lu L, Lu Z, Bagheri M, Summers RM. ChestX-ray8: Hospital-scale Chest X-ray Database and "
    "Benchmarks on Weakly-Supervised Classification and Localization of Common Thorax Diseases. CVPR 2017."
)


@dataclass(slots=True)
class NihImage:
    """One row of the release's table, with its boxes and its file.

    Attributes:
        image_id: File name without its extension, such as `00000061_012`.
        patient_id: Eight digits, as at the beginning of the file name.
        findings: Names of the findings that are present, none for an image without.
        boxes: `(x0, y0, x1, y1)` each, pixels of the `BOX_FRAME` frame, right and bottom exclusive.
        box_findings: Index into `FINDINGS` of each of `boxes`.
        sex: `M`, `F`, or what the table says.
        age: In years, `None` where it is not known.
        view: `PA` or `AP`.
        follow_up: Number of the visit, `None` where the table has no such column.
        official_split: `train_val`, `test`, or `None` for an image in neither list.
        path: Absolute path of the image, `None` where it is missing or does not decode.
        mask_path: Absolute path of the thorax mask, `None` where there is none.
        has_original: Whether `original-1024/` holds a copy of the image.
    """

    image_id: str
    patient_id: str
    findings: tuple[str, ...]
    boxes: tuple[tuple[float, float, float, float], ...] = ()
    box_findings: tuple[int, ...] = ()
    sex: str | None = None
    age: float | None = None
    view: str | None = None
    follow_up: int | None = None
    official_split: str | None = None
    path: str | None = None
    mask_path: str | None = None
    has_original: bool = False


@dataclass
class NihReport:
    """What was read, dropped and doubted; every list names its images by `image_id`, in the order of its source.

    Attributes:
        rows: Rows of the table, repeated ones included.
        usable: Images that reach a split: a row, a file and an official list.
        missing_files: Images of the table without an image. Dropped.
        corrupt_files: Images whose image does not decode, with the reason; filled with `verify=True`. Dropped.
        unlisted: Images of the table in neither official list. Dropped.
        duplicate_rows: Images with a further row in the table; the first row stands.
        files_without_row: Images without a row in the table. Not read.
        duplicate_files: Further images of an image already found, as those of `original-1024/`. Not read.
        listed_without_row: Images of the official lists that the table does not have.
        boxes_without_row: Images of the box lists that the table does not have, once a box. Boxes dropped.
        duplicate_boxes: Images for which a box list repeats a box, once a repetition. Repetitions dropped.
        boxes_without_label: Images with a box for a finding that their labels do not have, once a box (the readers of
            the RSNA boxes were not those of the labels). Kept.
        unknown_ages: Images whose age is empty or above `OLDEST_AGE`. Kept, without an age.
        missing_masks: Images without a thorax mask although there is a folder of masks. Kept, without a mask.
        has_masks: Whether there is a folder of masks.
        has_test_list: Whether `test_list.txt` is there; without it the test split is empty.
    """

    rows: int = 0
    usable: int = 0
    missing_files: list[str] = field(default_factory=list)
    corrupt_files: dict[str, str] = field(default_factory=dict)
    unlisted: list[str] = field(default_factory=list)
    duplicate_rows: list[str] = field(default_factory=list)
    files_without_row: list[str] = field(default_factory=list)
    duplicate_files: list[str] = field(default_factory=list)
    listed_without_row: list[str] = field(default_factory=list)
    boxes_without_row: list[str] = field(default_factory=list)
    duplicate_boxes: list[str] = field(default_factory=list)
    boxes_without_label: list[str] = field(default_factory=list)
    unknown_ages: list[str] = field(default_factory=list)
    missing_masks: list[str] = field(default_factory=list)
    has_masks: bool = False
    has_test_list: bool = True

    def messages(self) -> list[str]:
        """One sentence for each thing that was dropped or doubted, with its count and the first few names."""
        corrupt = [f"{name} ({reason})" for name, reason in self.corrupt_files.items()]
        said = [
            ("images of the table have no image file and are dropped", self.missing_files),
            ("images do not decode and are dropped", corrupt),
            ("images are in neither official list and are dropped", self.unlisted),
            ("rows repeat an image; its first row stands", self.duplicate_rows),
            ("images have no row in the table and are not read", self.files_without_row),
            ("images are further copies of an image and are not read", self.duplicate_files),
            ("images of the official lists have no row in the table", self.listed_without_row),
            ("boxes are for images without a row in the table and are dropped", self.boxes_without_row),
            ("boxes are repeated and are kept once", self.duplicate_boxes),
            ("boxes are for a finding that the image's labels do not have and are kept", self.boxes_without_label),
            (f"images have no age, or one above {OLDEST_AGE}, and are kept without an age", self.unknown_ages),
            ("images have no thorax mask", self.missing_masks),
        ]
        messages = [f"{len(names)} {what}: {first_names(names)}." for what, names in said if names]
        if not self.has_test_list:
            messages.append(f"There is no {TEST_LIST}: the test split is empty.")
        return messages


def load_nih(
    data_dir: str | os.PathLike[str],
    validation_fraction: float = VALIDATION_FRACTION,
    seed: int = 0,
    validation_patients: Iterable[str | int] = (),
    verify: bool = False,
    masks_dir: str | os.PathLike[str] | None = None,
    validation_split: str | None = None,
) -> datasets.DatasetDict:
    """Load NIH ChestX-ray14 with its official split and a validation split by patient.

    Images are opened when they are looked at. Whatever is dropped is counted and named in a warning and in the
    description of each split (`dataset["train"].info.description`); `read_nih_tables` returns the same as a report.

    Args:
        data_dir: Folder of the release, see the head of this module.
        validation_fraction: Share of the patients of `train_val_list.txt` that goes to validation, in [0, 1).
        seed: Draws the validation patients, see `split_images`.
        validation_patients: Patients that go to validation in any case.
        verify: Decode every image now, and drop those that do not decode by name. Without it only the files'
            existence is checked.
        masks_dir: Folder of thorax masks, see `read_nih_tables`.
        validation_split: A committed list that is the validation split instead of a draw, such as `nih-validation`,
            see `split_images`.

    Returns:
        Splits `train`, `validation` and `test`, with the columns

        - `image`: PIL image in the file's own mode and size (8-bit grey, RGBA for a few images, `I;16` for 16 bits).
        - `image_id`, `patient_id`: strings.
        - `labels`: `(14,)` float32, 1 present, 0 absent, in the order of `FINDINGS`.
        - `boxes`: list of `[x0, y0, x1, y1]` float32, pixels of the 1024x1024 frame, right and bottom exclusive,
          whatever the size of `image`.
        - `box_findings`: index into `FINDINGS` of each box.
        - `sex`, `age` (years or None), `view`, `follow_up`.
        - `thorax_mask`: PIL image over the image's field of view, of its own size, or None; only if there is a folder
          of masks.

        An image that is damaged raises Pillow's error when looked at, which does not always name the file. In
        training, use `split.cast_column("image", datasets.Image(decode=False))` and `open_image`, which does.

    Raises:
        FileNotFoundError: `data_dir`, its table, its train list, all of its images or `masks_dir` are not there.
        ValueError: A table cannot be read, a finding is not known, `validation_fraction` is out of range, the
            official lists share patients, or `validation_split` is no list, comes with another option or has no
            patient in the train list.
    """
    if validation_split is not None:
        named_split(validation_split)  # a name that is none is said before thousands of files are looked at
    images, report = read_nih_tables(data_dir, verify=verify, masks_dir=masks_dir)
    splits = split_images(images, validation_fraction, seed, validation_patients, validation_split)
    for message in report.messages():
        logger.warning("%s", message)
    return datasets.DatasetDict({name: _to_dataset(part, report) for name, part in splits.items()})


def read_nih_tables(
    data_dir: str | os.PathLike[str], verify: bool = False, masks_dir: str | os.PathLike[str] | None = None
) -> tuple[list[NihImage], NihReport]:
    """Read the tables of a release and find its images.

    Args:
        data_dir: Folder of the release, see the head of this module.
        verify: Decode every image, and treat one that does not decode as missing.
        masks_dir: Folder of thorax masks, NAME.png, NAME.jpg or NAME.jpeg for an image NAME, a PNG first; any size,
            over the image's field of view, above 0 inside. By default `masks/` of `data_dir`, if it is there.

    Returns:
        The images in the table's order, also those that no split can use (without a path, or without an official
        split), and the report. Nothing is logged.

    Raises:
        FileNotFoundError: `data_dir`, its table, its train list, all of its images or `masks_dir` are not there.
        ValueError: A table cannot be read, or a finding is not known; the message names file and line.
    """
    root = Path(data_dir)
    table = _find_table(root)
    report = NihReport()
    images = _read_entries(table, report)
    _join_lists(images, root, report)
    _join_boxes(images, root, report)
    masks = (root / MASKS_FOLDER if masks_dir is None else Path(masks_dir)).absolute()
    if masks_dir is not None and not masks.is_dir():
        raise FileNotFoundError(f"`masks_dir` must be a folder of masks, got {masks_dir}. Write masks there first.")
    _join_files(images, root, masks, report)
    _join_masks(images, masks, report)
    if verify:
        _drop_corrupt(images, report)
    report.usable = sum(image.path is not None and image.official_split is not None for image in images.values())
    return list(images.values()), report


def split_images(
    images: Iterable[NihImage],
    validation_fraction: float = VALIDATION_FRACTION,
    seed: int = 0,
    validation_patients: Iterable[str | int] = (),
    validation_split: str | None = None,
) -> dict[str, list[NihImage]]:
    """Split images by patient: the official test list, and a validation part of the official train list.

    To validation go, of the patients of the train list, all named in `validation_patients`; then, until
    `validation_fraction` of the patients is reached, first those with a box or with an image in `original-1024/`, then
    the others, among equals those whose hash with `seed` is lowest. The hash makes the split the same on every
    platform and for every order of the rows, and images without a file count as well, so that a missing or corrupt
    file moves no patient.

    With `validation_split` nothing is drawn and nobody goes to validation in any case: of the patients of the train
    list, those of the named list are validation and all others are train. On the whole release with its own box list
    the draw without any option is `nih-validation`; a further box list or `original-1024/` changes the draw, and not
    the list.

    Args:
        images: Of `read_nih_tables`.
        validation_fraction: Share of the patients of the train list that goes to validation, in [0, 1).
        seed: Draws the validation patients.
        validation_patients: Patients that go to validation in any case, with or without leading zeros; those outside
            the train list are named in a warning and stay where they are.
        validation_split: Name of a committed list, one of `clarity_hf.data.named_splits.SPLITS`, that is the
            validation split. How many of it are not in the train list, as in a part of the release, is said in a
            warning. The other options must be left as they are.

    Returns:
        `train`, `validation` and `test`: the images that have a path, in the order given. No patient is in two.

    Raises:
        ValueError: `validation_fraction` is out of range, a patient is in both official lists, or `validation_split`
            is no list, comes with another option or has no patient in the train list.
        TypeError: `validation_patients` is a string.
    """
    check_validation_fraction(validation_fraction)
    if isinstance(validation_patients, str):
        raise TypeError(
            f"`validation_patients` must be an iterable of patient ids, got the string '{validation_patients}'. "
            f"Pass ['{validation_patients}']."
        )
    listed = [image for image in images if image.official_split is not None]
    _check_disjoint(listed)
    candidates = [image for image in listed if image.official_split == "train_val"]
    named = {_patient_id(str(patient)) for patient in validation_patients}
    if validation_split is None:
        held_out = _draw_validation(candidates, validation_fraction, seed, named)
    else:
        _check_undrawn(validation_split, validation_fraction, seed, named)
        held_out = _listed_validation(candidates, validation_split)
    splits: dict[str, list[NihImage]] = {"train": [], "validation": [], "test": []}
    for image in listed:
        if image.path is None:
            continue
        if image.official_split == "test":
            splits["test"].append(image)
        else:
            splits["validation" if image.patient_id in held_out else "train"].append(image)
    return splits


def open_image(source: str | os.PathLike[str]) -> PIL.Image.Image:
    """Open and decode an image whole, in its own mode and size.

    Args:
        source: Path of the image, as in `example["image"]["path"]` of a split cast to `datasets.Image(decode=False)`.

    Raises:
        FileNotFoundError: There is no such file.
        OSError: The file does not decode, is no PNG, JPEG, TIFF or BMP, holds several frames or more than
            `MAX_PIXELS` pixels; the message names it.
    """
    name = os.fspath(source)
    if os.path.exists(source) and not os.path.isfile(source):  # a pipe would be waited for
        raise OSError(f"`source` must be a file, got the folder, pipe or device {name}. Copy the image itself.")
    try:
        return decoded_image(source)
    except (FileNotFoundError, MemoryError):
        raise
    except Exception as error:  # damaged files meet most of Python's inside Pillow: SyntaxError, struct.error, ...
        raise OSError(
            f"`source` must be an image that decodes, got {name} ({error}). Copy the file again, or drop "
            "such images with `load_nih(..., verify=True)`."
        ) from error


def decoded_image(source: str | os.PathLike[str] | BinaryIO) -> PIL.Image.Image:
    """Decode an image whole, its frames and its claimed size checked before its pixels.

    Args:
        source: A path or an open file of PNG, JPEG, TIFF or BMP.

    Raises:
        Exception: As Pillow's own for what does not decode; callers give it their words.
        ValueError: The image has several frames, or more than `MAX_PIXELS` pixels.
    """
    with PIL.Image.open(source, formats=FORMATS) as image:
        if image.width * image.height > MAX_PIXELS:
            raise ValueError(f"{image.width}×{image.height} are more than {MAX_PIXELS} pixels")
        if getattr(image, "is_animated", False):
            raise ValueError("several frames")
        image.load()
        return image


# Tables


def _find_table(root: Path) -> Path:
    if root.is_dir():
        for name in TABLES:
            if (root / name).is_file():
                return root / name
    raise FileNotFoundError(
        f"`data_dir` must be a folder with {' or '.join(TABLES)}, got {root}. Download the release from "
        f"{_RELEASE_URL} or pass the folder that holds its tables."
    )


def _read_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Line number and cells of each row that is not blank, the header first."""
    reader = csv.reader(_read_lines(path), strict=True)  # else an open quote would take the rows below it for a cell
    try:
        for row in reader:
            if any(cell.strip() for cell in row):
                yield reader.line_num, [cell.strip() for cell in row]
    except csv.Error as error:
        raise ValueError(
            f"{path}, line {reader.line_num}: a row must be CSV, got one that is not ({error}). Close its quotes, and "
            "double those inside a cell."
        ) from error


def _read_lines(path: Path) -> list[str]:
    """Lines of a table or list, their ends kept."""
    if path.exists() and not path.is_file():  # a pipe would be waited for
        raise ValueError(f"`data_dir` must hold files, got the folder, pipe or device {path}. Copy the file itself.")
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} must be UTF-8, got something else ({error}). Use the release's own file.") from error
    if "\0" in text:
        raise ValueError(f"{path} must be text, got NUL bytes. Use the release's own file.")
    return io.StringIO(text, newline="").readlines()


def _read_entries(path: Path, report: NihReport) -> dict[str, NihImage]:
    rows = _read_rows(path)
    _, header = next(rows, (0, []))
    columns = {name: index for index, name in enumerate(header) if name}
    for name in ("Image Index", "Finding Labels"):
        if name not in columns:
            raise ValueError(f"{path} must have the column '{name}', got {header}. Use the release's own table.")
    images: dict[str, NihImage] = {}
    known: dict[str, tuple[str, ...]] = {}  # a few hundred combinations over 112,120 rows
    for line, row in rows:
        report.rows += 1
        image = _read_entry(row, columns, known, f"{path}, line {line}")
        if image.image_id in images:
            report.duplicate_rows.append(image.image_id)
            continue
        images[image.image_id] = image
        if image.age is None:
            report.unknown_ages.append(image.image_id)
    return images


def _read_entry(row: list[str], columns: dict[str, int], known: dict[str, tuple[str, ...]], where: str) -> NihImage:
    def cell(name: str) -> str:
        index = columns.get(name, len(row))
        return row[index] if index < len(row) else ""

    name, written = cell("Image Index"), cell("Finding Labels")
    if not name or not written:
        raise ValueError(f"{where}: a row must name its image and its findings, got {row}. Mend or remove the row.")
    if written not in known:
        known[written] = _read_findings(written, f"{where} ({name})")
    image_id = _image_id(name)
    return NihImage(
        image_id=image_id,
        patient_id=_patient_id(cell("Patient ID") or image_id.split("_")[0]),
        findings=known[written],
        sex=cell("Patient Gender") or cell("Patient Sex") or None,
        age=_read_age(cell("Patient Age"), f"{where} ({name})"),
        view=cell("View Position") or None,
        follow_up=_read_follow_up(cell("Follow-up #"), f"{where} ({name})"),
    )


def _read_findings(written: str, where: str) -> tuple[str, ...]:
    names = [name for name in written.split("|") if name.strip() not in ("", NO_FINDING)]
    return tuple(_finding(name, where) for name in names)


def _finding(name: str, where: str) -> str:
    try:
        return canonical_finding(name)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def _read_age(written: str, where: str) -> float | None:
    """Years; the oldest tables write `058Y`, `011M` or `020D`."""
    if not written:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([YMWD]?)", written)
    if match is None:
        raise ValueError(
            f"{where}: an age must be a number of years, or one with Y, M, W or D, got '{written}'. Mend it."
        )
    years = float(match[1]) / {"": 1.0, "Y": 1.0, "M": 12.0, "W": 365.25 / 7, "D": 365.25}[match[2]]
    return years if years <= OLDEST_AGE else None


def _read_follow_up(written: str, where: str) -> int | None:
    if not written:
        return None
    if re.fullmatch(r"\d{1,9}", written, re.ASCII) is None:  # what an int32 holds
        raise ValueError(f"{where}: 'Follow-up #' must be a whole number, got '{written[:99]}'. Mend the row.")
    return int(written)


def _image_id(name: str) -> str:
    # The lists and tables say `.png`; a resized copy may hold `.jpg`. The stem is what they share.
    return os.path.splitext(os.path.basename(name))[0]


def _patient_id(written: str) -> str:
    """The table writes `61` and the file names `00000061`: the latter is used for both."""
    return written.zfill(8) if written.isdigit() else written


# What joins the table


def _join_lists(images: dict[str, NihImage], root: Path, report: NihReport) -> None:
    train = root / TRAIN_VALIDATION_LIST
    if not train.is_file():
        raise FileNotFoundError(
            f"`data_dir` must hold {TRAIN_VALIDATION_LIST}, got {root}. Copy it from {_RELEASE_URL}: without it test "
            "images could not be told from training images."
        )
    report.has_test_list = (root / TEST_LIST).exists()
    found: dict[str, str] = {}
    for split, path in (("train_val", train), ("test", root / TEST_LIST)):
        if not path.exists():
            continue
        for line in "".join(_read_lines(path)).split():
            image_id = _image_id(line)
            if found.setdefault(image_id, split) != split:
                raise ValueError(
                    f"{TRAIN_VALIDATION_LIST} and {TEST_LIST} must share no image, got {image_id} in both. Copy the "
                    "official lists again."
                )
    for image_id, split in found.items():
        if image_id in images:
            images[image_id].official_split = split
        else:
            report.listed_without_row.append(image_id)
    report.unlisted = [image.image_id for image in images.values() if image.official_split is None]


def _join_boxes(images: dict[str, NihImage], root: Path, report: NihReport) -> None:
    for path in sorted(root.glob(BOX_LISTS)):
        rows = _read_rows(path)
        next(rows, None)  # the header, whose own commas ("Bbox [x,y,w,h],,,") cut it into cells that mean nothing
        for line, row in rows:
            where = f"{path}, line {line}"
            if len(row) < 6:
                raise ValueError(f"{where}: a row must be image, finding, x, y, w, h, got {row}. Mend or remove it.")
            image_id, finding, box = _image_id(row[0]), _finding(row[1], f"{where} ({row[0]})"), _read_box(row, where)
            image = images.get(image_id)
            if image is None:
                report.boxes_without_row.append(image_id)
                continue
            index = FINDINGS.index(finding)
            if (index, box) in zip(image.box_findings, image.boxes, strict=True):
                report.duplicate_boxes.append(image_id)
                continue
            if finding not in image.findings:
                report.boxes_without_label.append(image_id)
            image.boxes += (box,)
            image.box_findings += (index,)


def _read_box(row: list[str], where: str) -> tuple[float, float, float, float]:
    """From x, y, width and height to xyxy, both in pixels of the `BOX_FRAME` frame."""
    try:
        x, y, width, height = (float(cell) for cell in row[2:6])
    except ValueError as error:
        raise ValueError(f"{where}: x, y, w, h must be numbers, got {row[2:6]}. Mend or remove the row.") from error
    # A pixel beyond the edge is rounding, and cut; more means another frame, and every box would be wrong.
    inside = all(-1 <= edge <= BOX_FRAME + 1 for edge in (x, y, x + width, y + height))
    if not (inside and width > 0 and height > 0):
        raise ValueError(
            f"{where}: a box must have a positive size and lie in the {BOX_FRAME}x{BOX_FRAME} frame of the release, "
            f"got x, y, w, h {row[2:6]}. Scale the list to that frame, or remove the row."
        )
    return max(x, 0.0), max(y, 0.0), min(x + width, float(BOX_FRAME)), min(y + height, float(BOX_FRAME))


def _join_files(images: dict[str, NihImage], root: Path, masks: Path, report: NihReport) -> None:
    paths: dict[str, str] = {}
    originals: set[str] = set()
    for rank, path in _image_files(root, masks):
        image_id = _image_id(path)
        if image_id not in images:
            report.files_without_row.append(image_id)
            continue
        if rank == _ORIGINALS_RANK:
            originals.add(image_id)
        if image_id in paths:
            report.duplicate_files.append(image_id)
        else:
            paths[image_id] = path
    if not paths:
        raise FileNotFoundError(
            f"`data_dir` must hold the images of its table in images/, images_001/images/ or another folder, got "
            f"{root} without one. Download the images from {_RELEASE_URL} beside the tables."
        )
    for image_id, image in images.items():
        if image_id in paths:
            image.path, image.has_original = paths[image_id], image_id in originals
        else:
            report.missing_files.append(image_id)


def _image_files(root: Path, masks: Path) -> list[tuple[int, str]]:
    """Folder rank and absolute path of all images below `root` but the masks, those to be preferred first."""
    top = str(root.absolute())
    found: list[tuple[int, str]] = []
    visited = {os.path.realpath(masks)}
    for folder, folders, names in os.walk(top, followlinks=True):  # image folders are often links to another disk
        real = os.path.realpath(folder)
        if real in visited:  # a link that leads back up
            folders.clear()
            continue
        visited.add(real)
        folders[:] = sorted(
            name for name in folders if not name.startswith(".") and not (folder == top and name == MASKS_FOLDER)
        )
        rank = _folder_rank(os.path.relpath(folder, top))
        found.extend(
            (rank, os.path.join(folder, name))
            for name in names
            if name.lower().endswith(IMAGE_SUFFIXES)
            and not name.startswith(".")
            and os.path.isfile(os.path.join(folder, name))  # no pipe, which would be waited for, and no broken link
        )
    return sorted(found)


_ORIGINALS_RANK = 3


def _folder_rank(folder: str) -> int:
    """Which folder wins where several hold an image: the release's own, flat, any other, and last the originals."""
    if ORIGINALS_FOLDER in Path(folder).parts:
        return _ORIGINALS_RANK
    if re.fullmatch(r"images(_\d+)?([/\\]images)?", folder):
        return 0
    return 1 if folder == "." else 2


def _join_masks(images: dict[str, NihImage], folder: Path, report: NihReport) -> None:
    report.has_masks = folder.is_dir()
    if not report.has_masks:
        return
    masks: dict[str, str] = {}
    for suffix in IMAGE_SUFFIXES:
        for path in sorted(folder.iterdir()):
            if path.suffix.lower() == suffix and path.is_file():
                masks.setdefault(path.stem, str(path))
    for image_id, image in images.items():
        if image_id in masks:
            image.mask_path = masks[image_id]
        elif image.path is not None:
            report.missing_masks.append(image_id)


def _drop_corrupt(images: dict[str, NihImage], report: NihReport) -> None:
    present = [image for image in images.values() if image.path is not None]
    with ThreadPoolExecutor() as pool:  # Pillow decodes without the interpreter's lock
        reasons = list(pool.map(_decoding_error, [image.path for image in present]))
    for image, reason in zip(present, reasons, strict=True):
        if reason is not None:
            report.corrupt_files[image.image_id] = reason
            image.path = None


def _decoding_error(path: str) -> str | None:
    try:
        open_image(path)
    except OSError as error:
        return str(error.__cause__ or error)
    return None


# Split


def _check_disjoint(images: Sequence[NihImage]) -> None:
    patients = {name: {f.patient_id for f in images if f.official_split == name} for name in ("train_val", "test")}
    shared = sorted(patients["train_val"] & patients["test"])
    if shared:
        raise ValueError(
            f"{TRAIN_VALIDATION_LIST} and {TEST_LIST} must share no patient, got {len(shared)} in both: "
            f"{first_names(shared)}. Copy the official lists again."
        )


def _draw_validation(images: Sequence[NihImage], fraction: float, seed: int, named: set[str]) -> set[str]:
    """The patients of `images` that go to validation."""
    patients = {image.patient_id for image in images}
    absent = sorted(named - patients)
    if absent:
        logger.warning(
            "%d of `validation_patients` are not in %s and stay where they are: %s.",
            len(absent),
            TRAIN_VALIDATION_LIST,
            first_names(absent),
        )
    chosen = named & patients
    first = {image.patient_id for image in images if image.boxes or image.has_original} - chosen
    target = round(fraction * len(patients))
    if len(chosen) > target:
        logger.warning(
            "Validation takes the %d patients named in `validation_patients`, more than the share of %g of the %d "
            "patients asked for.",
            len(chosen),
            fraction,
            len(patients),
        )
    # Not all with boxes where there are more of them: in a folder of phantoms, training would get the normal images.
    drawn = [*in_drawing_order(first, seed), *in_drawing_order(patients - chosen - first, seed)]
    return chosen | set(drawn[: max(0, target - len(chosen))])


def _check_undrawn(split: str, fraction: float, seed: int, named: set[str]) -> None:
    if named or (fraction, seed) != (VALIDATION_FRACTION, 0):
        raise ValueError(
            "`validation_split` must come without `validation_fraction`, `seed` and `validation_patients`, got "
            f"'{split}' with {fraction}, {seed} and {len(named)} patients. Leave them out: the list alone says who is "
            "validation."
        )


def _listed_validation(images: Sequence[NihImage], split: str) -> set[str]:
    """The patients of `images` that a committed list has."""
    listed, patients = named_split(split), {image.patient_id for image in images}
    chosen, absent = patients & listed, sorted(listed - patients)
    if not chosen:
        raise ValueError(
            f"`validation_split` must have patients of {TRAIN_VALIDATION_LIST}, got '{split}', none of whose "
            f"{len(listed)} patients is in it. Choose another list, or leave it out for a draw."
        )
    if absent:
        logger.warning(
            "Validation takes %d of the %d patients of %s: the others are not in %s: %s.",
            len(chosen),
            len(listed),
            split,
            TRAIN_VALIDATION_LIST,
            first_names(absent),
        )
    return chosen


# Data set


def _to_dataset(images: Sequence[NihImage], report: NihReport) -> datasets.Dataset:
    columns: dict[str, Any] = {
        "image": [image.path for image in images],
        "image_id": [image.image_id for image in images],
        "patient_id": [image.patient_id for image in images],
        "labels": _encode(images),
        "boxes": [list(map(list, image.boxes)) for image in images],
        "box_findings": [list(image.box_findings) for image in images],
        "sex": [image.sex for image in images],
        "age": [image.age for image in images],
        "view": [image.view for image in images],
        "follow_up": [image.follow_up for image in images],
    }
    features = datasets.Features(
        image=datasets.Image(),
        image_id=datasets.Value("string"),
        patient_id=datasets.Value("string"),
        labels=datasets.List(datasets.Value("float32"), length=len(FINDINGS)),
        boxes=datasets.List(datasets.List(datasets.Value("float32"), length=4)),
        box_findings=datasets.List(datasets.ClassLabel(names=list(FINDINGS))),
        sex=datasets.Value("string"),
        age=datasets.Value("float32"),
        view=datasets.Value("string"),
        follow_up=datasets.Value("int32"),
    )
    if report.has_masks:
        columns["thorax_mask"] = [image.mask_path for image in images]
        features["thorax_mask"] = datasets.Image()
    info = datasets.DatasetInfo(
        description="\n".join(["NIH ChestX-ray14.", *report.messages()]),
        citation=_CITATION,
        homepage=_RELEASE_URL,
        license="No restriction on use; the NIH Clinical Center asks for attribution and a citation.",
        features=features,
    )
    return datasets.Dataset.from_dict(columns, features=features, info=info)


def _encode(images: Sequence[NihImage]) -> list[np.ndarray]:
    encoded = {findings: encode_findings(findings) for findings in {image.findings for image in images}}
    return [encoded[image.findings] for image in images]


__getattr__ = old_names(__name__)

__all__ = ["BOX_FRAME", "NihImage", "NihReport", "load_nih", "open_image", "read_nih_tables", "split_images"]
