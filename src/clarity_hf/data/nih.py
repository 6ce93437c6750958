# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""NIH ChestX-ray14 from its own folders, or from a resized copy of them.

Wang et al., "ChestX-ray8: Hospital-scale Chest X-ray Database and Benchmarks on Weakly-Supervised Classification and
Localization of Common Thorax Diseases", CVPR 2017. The release is read as it was published:

    DATA_DIR/
      Data_Entry_2017_v2020.csv                     one row per radiograph (or the older Data_Entry_2017.csv)
      train_val_list.txt, test_list.txt             the official split, by patient
      BBox_List_2017.csv, BBox_List_RSNA.csv, ...   boxes, optional
      images/ or images_001/images/ ...             the images; any other folder is found too
      original-1024/                                not part of the release: full-size copies in a subset, whose
                                                    patients go to validation
      masks/                                        optional thorax masks, NAME.png or .jpg, of any size

Frames: boxes are xyxy pixels of the release's 1024x1024 images (`BOX_FRAME`), right and bottom exclusive, whatever the
size of the file. Multiply by `size / BOX_FRAME` for a copy resized to `size`, or ask the image processor for boxes
with `target_sizes=[(BOX_FRAME, BOX_FRAME)]`.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import datasets
import PIL.Image

from clarity_hf.boxes import BOX_FRAME
from clarity_hf.deprecated import old_names
from clarity_hf.image_reading import FORMATS, MAX_PIXELS
from clarity_hf.labels import FINDINGS, canonical_finding

from .label_columns import LabelRow, NameLabels, named_findings
from .named_splits import named_split
from .row_report import RowReport, collect_rows, count_files
from .rows import (
    ImageRow,
    build_dataset,
    check_disjoint,
    check_validation_fraction,
    draw_patients,
    first_names,
    label_feature,
    split_rows,
)
from .table_files import Cells, csv_rows, read_cells, text_lines

logger = logging.getLogger(__name__)

OLDEST_AGE = 120
"""Greater ages in years, which the older table has by mistake, are read as unknown."""

TABLES = ("Data_Entry_2017_v2020.csv", "Data_Entry_2017.csv")
"""Names of the table of radiographs, preferred first."""

TRAIN_VALIDATION_LIST = "train_val_list.txt"
TEST_LIST = "test_list.txt"
BOX_LISTS = "BBox_List*.csv"
ORIGINALS_FOLDER = "original-1024"
MASKS_FOLDER = "masks"
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")

VALIDATION_FRACTION = 0.2
"""Default share of the patients of the train list that goes to validation."""

_RELEASE_URL = "https://nihcc.app.box.com/v/ChestXray-NIHCC"
_CITATION = (
    "Wang X, Peng Y, Lu L, Lu Z, Bagheri M, Summers RM. ChestX-ray8: Hospital-scale Chest X-ray Database and "
    "Benchmarks on Weakly-Supervised Classification and Localization of Common Thorax Diseases. CVPR 2017."
)


@dataclass(slots=True, kw_only=True, eq=False)
class NihImage(ImageRow):
    """One row of the release's table, with its boxes and its file; `split` is that of the official lists.

    Args:
        boxes, box_findings: `(x0, y0, x1, y1)` each, pixels of the `BOX_FRAME` frame, right and bottom exclusive, and
            the index of its finding in `FINDINGS`.
        sex: `M`, `F`, or whatever the table says.
        age: In years, None if unknown.
        view: `PA` or `AP`.
        follow_up: Number of the visit, None if the table has no such column.
        has_original: Whether `original-1024/` contains a copy of the image.
    """

    boxes: tuple[tuple[float, float, float, float], ...] = ()
    box_findings: tuple[int, ...] = ()
    sex: str | None = None
    age: float | None = None
    view: str | None = None
    follow_up: int | None = None
    has_original: bool = False


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

    Images are opened when they are used. What is dropped is counted and named in warnings and in the description of
    each split (`dataset["train"].info.description`); `read_nih_tables` returns the same as a report.

    Args:
        data_dir: Folder of the release, see the top of this module.
        validation_fraction, seed, validation_patients: As for `split_images`.
        verify, masks_dir: As for `read_nih_tables`.
        validation_split: As for `split_images`, such as `nih-validation`.

    Returns:
        Splits `train`, `validation` and `test`, with the columns

        - `image`: PIL image in the file's own mode and size (8-bit grey, RGBA for a few images, `I;16` for 16 bits).
        - `image_id`, `patient_id`: strings.
        - `labels`: `(14,)` float32, 1 present, 0 absent, in the order of `FINDINGS`.
        - `boxes`: list of `[x0, y0, x1, y1]` float32, pixels of the 1024x1024 frame, right and bottom exclusive.
        - `box_findings`: index into `FINDINGS` of each box.
        - `sex`, `age` (years or None), `view`, `follow_up`.
        - `thorax_mask`: PIL image over the image's field of view, of its own size, or None; only if there is a folder
          of masks.

        A damaged image raises Pillow's error when it is accessed, which does not always name the file. In training,
        use `split.cast_column("image", datasets.Image(decode=False))` and `open_image`, which does.

    Raises:
        FileNotFoundError: As for `read_nih_tables`.
        ValueError: As for `read_nih_tables` and `split_images`.
    """
    if validation_split is not None:
        named_split(validation_split)  # an unknown name fails before thousands of files are searched for
    images, report = read_nih_tables(data_dir, verify=verify, masks_dir=masks_dir)
    splits = split_images(images, validation_fraction, seed, validation_patients, validation_split)
    for message in report.messages():
        logger.warning("%s", message)
    features = datasets.Features(
        image=datasets.Image(),
        image_id=datasets.Value("string"),
        patient_id=datasets.Value("string"),
        labels=label_feature(len(FINDINGS)),
        boxes=datasets.List(datasets.List(datasets.Value("float32"), length=4)),
        box_findings=datasets.List(datasets.ClassLabel(names=list(FINDINGS))),
        sex=datasets.Value("string"),
        age=datasets.Value("float32"),
        view=datasets.Value("string"),
        follow_up=datasets.Value("int32"),
    )
    if report.has_masks:
        features["thorax_mask"] = datasets.Image()
    info = {
        "description": "\n".join(["NIH ChestX-ray14.", *report.messages()]),
        "citation": _CITATION,
        "homepage": _RELEASE_URL,
        "license": "No restriction on use; the NIH Clinical Center asks for attribution and a citation.",
    }
    return datasets.DatasetDict({name: build_dataset(part, features, **info) for name, part in splits.items()})


def read_nih_tables(
    data_dir: str | os.PathLike[str], verify: bool = False, masks_dir: str | os.PathLike[str] | None = None
) -> tuple[list[NihImage], RowReport]:
    """Read the tables of a release and find its images.

    Args:
        data_dir: Folder of the release, see the top of this module.
        verify: Read every image, and drop those that cannot be read, by name. Otherwise only the files' existence is
            checked.
        masks_dir: Folder of thorax masks, NAME.png, NAME.jpg or NAME.jpeg for an image NAME, a PNG first; any size,
            over the image's field of view, above 0 inside. By default `masks/` in `data_dir`, if it exists.

    Returns:
        The radiographs in the table's order, including those that no split can use (without a path, or in no official
        list), and the report. Nothing is logged.

    Raises:
        FileNotFoundError: `data_dir`, its table, its train list, all of its images or `masks_dir` do not exist.
        ValueError: A table cannot be read, or a finding is unknown; the message names file and line.
    """
    root = Path(data_dir)
    cells = read_cells(_find_table(root))
    report = RowReport(rows=len(cells.lines))
    images = collect_rows(_read_entries(cells), report)
    report.unknown_ages = [image.image_id for image in images.values() if image.age is None]
    _join_lists(images, root, report)
    _join_boxes(images, root, report)
    masks = (root / MASKS_FOLDER if masks_dir is None else Path(masks_dir)).absolute()
    if masks_dir is not None and not masks.is_dir():
        raise FileNotFoundError(f"`masks_dir` must be a folder of masks, got {masks_dir}. Write masks there first.")
    _join_files(images, root, masks, report)
    if masks.is_dir():
        report.columns["thorax mask"] = str(masks)
        _join_masks(images, masks)
    count_files(images.values(), report, verify)
    return list(images.values()), report


def split_images(
    images: Iterable[NihImage],
    validation_fraction: float = VALIDATION_FRACTION,
    seed: int = 0,
    validation_patients: Iterable[str | int] = (),
    validation_split: str | None = None,
) -> dict[str, list[NihImage]]:
    """Split radiographs by patient: the official test list, and a validation part of the official train list.

    Of the patients of the train list, all `validation_patients` go to validation; then, up to `validation_fraction` of
    the patients, first those with a box or an image in `original-1024/`, then the others, always those whose hash with
    `seed` is lowest. The split is the same on every platform and for every order of the rows. Radiographs without a
    file count as well, so that a missing file moves no patient.

    With `validation_split` the patients of a committed list are validation instead. On the complete release with its
    own box list, the default draw is `nih-validation`; a further box list or `original-1024/` changes the draw, but
    not the list.

    Args:
        images: From `read_nih_tables`.
        validation_fraction: Share of the patients of `train_val_list.txt` that goes to validation, in [0, 1).
        seed: Seed of the draw.
        validation_patients: Patients that always go to validation, with or without leading zeros; those outside of the
            train list are named in a warning and stay where they are.
        validation_split: One of `clarity_hf.data.named_splits.SPLITS`; the other options must keep their defaults. A
            warning gives the number of its patients that are not in the train list.

    Returns:
        `train`, `validation` and `test`: the radiographs that have a path, in the order given. No patient is in two.

    Raises:
        ValueError: `validation_fraction` is out of range, a patient is in both official lists, or `validation_split`
            is unknown, is combined with another option or has no patient in the train list.
        TypeError: `validation_patients` is a string.
    """
    check_validation_fraction(validation_fraction)
    if isinstance(validation_patients, str):
        raise TypeError(
            f"`validation_patients` must be an iterable of patient ids, got the string '{validation_patients}'. "
            f"Pass ['{validation_patients}']."
        )
    images = list(images)
    check_disjoint(images, f"Copy {TRAIN_VALIDATION_LIST} and {TEST_LIST} again.")
    candidates = [image for image in images if image.split == "train"]
    patients = {image.patient_id for image in candidates}
    named = {_patient_id(str(patient)) for patient in validation_patients}
    if validation_split is not None:
        if named or (validation_fraction, seed) != (VALIDATION_FRACTION, 0):
            raise ValueError(
                "`validation_split` must come without `validation_fraction`, `seed` and `validation_patients`, got "
                f"'{validation_split}' with {validation_fraction}, {seed} and {len(named)} patients. Leave them out: "
                "the list alone decides who is validation."
            )
        return split_rows(images, _listed_patients(patients, validation_split))
    _warn_of_named(named, patients, validation_fraction)
    # Not all patients with boxes: in a folder of phantoms, training would be left with normal images only.
    first = {image.patient_id for image in candidates if image.boxes or image.has_original}
    return split_rows(images, draw_patients(patients, validation_fraction, seed, named, first))


def _warn_of_named(named: set[str], patients: set[str], fraction: float) -> None:
    absent, count = sorted(named - patients), len(patients & named)
    if absent:
        message = "%d of `validation_patients` are not in %s and stay where they are: %s."
        logger.warning(message, len(absent), TRAIN_VALIDATION_LIST, first_names(absent))
    if count > round(fraction * len(patients)):
        message = "Validation takes all %d `validation_patients`, more than the requested share of %g of %d patients."
        logger.warning(message, count, fraction, len(patients))


def _listed_patients(patients: set[str], split: str) -> set[str]:
    """The patients of a committed list that are among `patients`."""
    listed = named_split(split)
    chosen, absent = patients & listed, sorted(listed - patients)
    if not chosen:
        raise ValueError(
            f"`validation_split` must have patients of {TRAIN_VALIDATION_LIST}, got '{split}', none of whose "
            f"{len(listed)} patients is in it. Choose another list, or leave it out for a draw."
        )
    if absent:
        message = "Validation takes %d of the %d patients of %s: the others are not in %s: %s."
        logger.warning(message, len(chosen), len(listed), split, TRAIN_VALIDATION_LIST, first_names(absent))
    return chosen


def open_image(source: str | os.PathLike[str]) -> PIL.Image.Image:
    """Open and fully decode an image, in its own mode and size.

    Args:
        source: Path of the image, as in `example["image"]["path"]` of a split cast to `datasets.Image(decode=False)`.

    Raises:
        FileNotFoundError: No such file.
        OSError: The file does not decode, is not a PNG, JPEG, TIFF or BMP, or has several frames or more than
            `MAX_PIXELS` pixels; the message names it.
    """
    name = os.fspath(source)
    if os.path.exists(source) and not os.path.isfile(source):  # a pipe would block
        raise OSError(f"`source` must be a file, got the folder, pipe or device {name}. Give the path of an image.")
    try:
        return decoded_image(source)
    except (FileNotFoundError, MemoryError):
        raise
    except Exception as error:  # Pillow raises many kinds for damaged files: SyntaxError, struct.error, ...
        raise OSError(
            f"`source` must be an image that decodes, got {name} ({error}). Copy the file again, or drop "
            "such images with `load_nih(..., verify=True)`."
        ) from error


def decoded_image(source: str | os.PathLike[str] | BinaryIO) -> PIL.Image.Image:
    """Fully decode a path or an open file of PNG, JPEG, TIFF or BMP, after checking its number of frames and its size.

    Raises:
        Exception: Pillow's own, if it does not decode; callers replace its message.
        ValueError: The image has several frames, or more than `MAX_PIXELS` pixels.
    """
    with PIL.Image.open(source, formats=FORMATS) as image:
        if image.width * image.height > MAX_PIXELS:
            raise ValueError(f"{image.width}×{image.height} exceeds {MAX_PIXELS} pixels")
        if getattr(image, "is_animated", False):
            raise ValueError("several frames")
        image.load()
        return image


# Table


def _find_table(root: Path) -> Path:
    for name in TABLES:
        if (root / name).is_file():
            return root / name
    raise FileNotFoundError(
        f"`data_dir` must be a folder with {' or '.join(TABLES)}, got {root}. Download the release from "
        f"{_RELEASE_URL} or pass the folder that holds its tables."
    )


def _read_entries(cells: Cells) -> Iterator[tuple[str, NihImage, LabelRow]]:
    for name in ("Image Index", "Finding Labels"):
        if name not in cells.columns:
            raise ValueError(
                f"{cells.path} must have the column '{name}', got {list(cells.columns)}. Use the release's own table."
            )
    reader = NameLabels("Finding Labels", named_findings(FINDINGS))
    known: dict[str, LabelRow] = {}  # a few hundred combinations in 112,120 rows
    for line, place, row in cells.rows():
        name, written = row["Image Index"], row["Finding Labels"]
        if not name or not written:
            raise ValueError(
                f"{place}: a row must name its image and its findings, got '{name}' and '{written}'. Correct or "
                "remove the row."
            )
        where = f"{place} ({name})"
        if written not in known:
            known[written] = reader.read(row, where)
        image_id = _image_id(name)
        image = NihImage(
            image_id=image_id,
            patient_id=_patient_id(row.get("Patient ID") or image_id.split("_")[0]),
            labels=known[written].labels,
            line=line,
            sex=row.get("Patient Gender") or row.get("Patient Sex") or None,
            age=_read_age(row.get("Patient Age", ""), where),
            view=row.get("View Position") or None,
            follow_up=_read_follow_up(row.get("Follow-up #", ""), where),
        )
        yield image_id, image, known[written]


def _read_age(written: str, where: str) -> float | None:
    """Years; the oldest tables write `058Y`, `011M` or `020D`."""
    if not written:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([YMWD]?)", written)
    if match is None:
        raise ValueError(
            f"{where}: an age must be a number of years, or one with Y, M, W or D, got '{written}'. Correct the row."
        )
    years = float(match[1]) / {"": 1.0, "Y": 1.0, "M": 12.0, "W": 365.25 / 7, "D": 365.25}[match[2]]
    return years if years <= OLDEST_AGE else None


def _read_follow_up(written: str, where: str) -> int | None:
    if not written:
        return None
    if re.fullmatch(r"\d{1,9}", written, re.ASCII) is None:  # what an int32 holds
        raise ValueError(f"{where}: 'Follow-up #' must be a whole number, got '{written[:99]}'. Correct the row.")
    return int(written)


def _image_id(name: str) -> str:
    # Tables name `.png` files; those of a resized copy may be `.jpg`.
    return os.path.splitext(os.path.basename(name))[0]


def _patient_id(written: str) -> str:
    """The table has `61` and file names have `00000061`: the latter is used for both."""
    return written.zfill(8) if written.isdigit() else written


# Lists and boxes


def _join_lists(images: dict[str, NihImage], root: Path, report: RowReport) -> None:
    if not (root / TRAIN_VALIDATION_LIST).is_file():
        raise FileNotFoundError(
            f"`data_dir` must hold {TRAIN_VALIDATION_LIST}, got {root}. Copy it from {_RELEASE_URL}: without it test "
            "images and training images cannot be distinguished."
        )
    lists = {"train": root / TRAIN_VALIDATION_LIST, "test": root / TEST_LIST}
    if not lists["test"].exists():
        report.notes.append(f"There is no {TEST_LIST}: the test split is empty.")
        del lists["test"]
    found: dict[str, str] = {}
    for split, path in lists.items():
        for image_id in map(_image_id, "".join(text_lines(path)).split()):
            if found.setdefault(image_id, split) != split:
                raise ValueError(
                    f"{TRAIN_VALIDATION_LIST} and {TEST_LIST} must share no image, got {image_id} in both. Copy the "
                    "official lists again."
                )
    for image_id, split in found.items():
        if image_id in images:
            images[image_id].split = split
        else:
            report.listed_without_row.append(image_id)
    report.unlisted = [image.image_id for image in images.values() if image.split is None]


def _join_boxes(images: dict[str, NihImage], root: Path, report: RowReport) -> None:
    for path in sorted(root.glob(BOX_LISTS)):
        rows = csv_rows(path)
        _check_box_header(next(rows, (1, []))[1], path)
        for line, row in rows:
            where = f"{path}, line {line}"
            if len(row) < 6:
                raise ValueError(f"{where}: a row must be image, finding, x, y, w, h, got {row}. Correct it.")
            try:
                index = FINDINGS.index(canonical_finding(row[1]))
            except ValueError as error:
                raise ValueError(f"{where} ({row[0]}): {error}") from error
            image_id, box = _image_id(row[0]), _read_box(row[2:6], where)
            image = images.get(image_id)
            if image is None:
                report.boxes_without_row.append(image_id)
                continue
            if (index, box) in zip(image.box_findings, image.boxes, strict=True):
                report.duplicate_boxes.append(image_id)
                continue
            if image.labels[index] != 1:
                report.boxes_without_label.append(image_id)
            image.boxes += (box,)
            image.box_findings += (index,)


def _check_box_header(header: Sequence[str], path: Path) -> None:
    """Refuse a list of boxes without column names, or whose names are of other numbers than x, y, w, h."""
    # The release's has commas of its own: "Bbox [x,y,w,h],,,".
    names = [re.sub(r"[^a-z0-9.]", "", cell.lower()).removeprefix("bbox") for cell in header[2:6]]
    wanted = [("x", "xmin", "x1", "left"), ("y", "ymin", "y1", "top"), ("w", "width"), ("h", "height")]
    known = {name for one in wanted for name in one} | {"x2", "y2", "xmax", "ymax", "right", "bottom"}
    others = [name for name, one in zip(names, wanted, strict=False) if name in known and name not in one]
    if others or any(re.fullmatch(r"[0-9.]+", name) for name in names):
        raise ValueError(
            f"{path}, line 1: the columns must be named image, finding, x, y, w, h, got {list(header)}. Write the "
            "boxes as the release does."
        )


def _read_box(written: Sequence[str], where: str) -> tuple[float, float, float, float]:
    """From x, y, width and height to xyxy, both in pixels of the `BOX_FRAME` frame."""
    try:
        x, y, width, height = (float(cell) for cell in written)
    except ValueError as error:
        raise ValueError(f"{where}: x, y, w, h must be numbers, got {written}. Correct or remove the row.") from error
    # One pixel beyond the edge is rounding and is cut off; more means another frame.
    inside = all(-1 <= edge <= BOX_FRAME + 1 for edge in (x, y, x + width, y + height))
    in_pixels = max(x + width, y + height) > 1  # others are shares of the image
    if not (inside and in_pixels and width > 0 and height > 0):
        raise ValueError(
            f"{where}: a box must have a positive size and lie in the {BOX_FRAME}x{BOX_FRAME} frame of the release, "
            f"in pixels, got x, y, w, h {written}. Scale the list to that frame, or remove the row."
        )
    return max(x, 0.0), max(y, 0.0), min(x + width, float(BOX_FRAME)), min(y + height, float(BOX_FRAME))


# Files


def _join_files(images: dict[str, NihImage], root: Path, masks: Path, report: RowReport) -> None:
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
    for image_id, path in paths.items():
        images[image_id].path, images[image_id].has_original = path, image_id in originals


def _image_files(root: Path, masks: Path) -> list[tuple[int, str]]:
    """Folder rank and absolute path of all images below `root` except masks, the preferred ones first."""
    top = str(root.absolute())
    found: list[tuple[int, str]] = []
    visited = {os.path.realpath(masks)}
    for folder, folders, names in os.walk(top, followlinks=True):  # image folders are often links to another disk
        real = os.path.realpath(folder)
        if real in visited:  # a circular link
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
            and os.path.isfile(os.path.join(folder, name))  # neither a pipe, which would block, nor a broken link
        )
    return sorted(found)


_ORIGINALS_RANK = 3


def _folder_rank(folder: str) -> int:
    """Preference among folders with the same image: the release's own, flat, any other, last the originals."""
    if ORIGINALS_FOLDER in Path(folder).parts:
        return _ORIGINALS_RANK
    if re.fullmatch(r"images(_\d+)?([/\\]images)?", folder):
        return 0
    return 1 if folder == "." else 2


def _join_masks(images: dict[str, NihImage], folder: Path) -> None:
    for suffix in reversed(IMAGE_SUFFIXES):  # the last one found, a PNG, is kept
        for path in sorted(folder.iterdir(), reverse=True):
            if path.suffix.lower() == suffix and path.is_file() and path.stem in images:
                images[path.stem].mask_path = str(path)


__getattr__ = old_names(__name__)

__all__ = ["BOX_FRAME", "NihImage", "load_nih", "open_image", "read_nih_tables", "split_images"]
