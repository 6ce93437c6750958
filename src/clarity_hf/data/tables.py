# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Own images with own labels: a table with a row an image (CSV, TSV or parquet).

    path,patient_id,Effusion,Rib_Fracture                       a column a finding: 1, 0, −1 (uncertain) or empty
    images/0001.png,A17,1,0                                      (not annotated)

    path,patient_id,labels                                      or one column of names, as NIH writes it
    images/0001.png,A17,Effusion|Rib_Fracture

`load_table` gives the data set; `read_table` gives the rows and a report of all that was dropped or doubted. The
tables of CheXpert (Irvin et al., AAAI 2019) are read as they are published: their names become those of NIH where they
mean the same, lateral images are dropped, patients are taken from the paths.
"""

from __future__ import annotations

import csv
import difflib
import itertools
import logging
import os
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow
import pyarrow.parquet

from clarity_hf.deprecated import old_names
from clarity_hf.image_reading import read_image
from clarity_hf.labels import FINDINGS, harmonised_finding, loose_name

from .label_columns import (
    IMAGE_COLUMNS,
    LATERAL_VIEWS,
    MASK_COLUMNS,
    MAX_NAME_LENGTH,
    PATIENT_COLUMNS,
    SPLIT_COLUMNS,
    VIEW_COLUMNS,
    ColumnLabels,
    Empty,
    LabelReader,
    Uncertain,
    broken_label_columns,
    cell_text,
    choose_labels,
    find_column,
)
from .rows import SPLITS, Source, check_validation_fraction, draw_patients, first_names, row_features

logger = logging.getLogger(__name__)

TABLE_SUFFIXES = (".csv", ".tsv", ".parquet")
"""Files that are read as a table."""

SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "validate", "dev"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}
"""Spellings of the splits."""

MAX_TABLE_BYTES, MAX_TABLE_ROWS = 512_000_000, 20_000_000
"""Tables beyond are refused: files unread, parquet that unpacks to more, in the columns that are read, on the way.
CheXpert's has 225,000 rows in 21 MB."""

_BATCH_ROWS = 200  # of parquet: what is read before its size is known

_SEPARATOR_LINE = re.compile(r'"?sep=([,;|\t])"?\r?\n?', re.IGNORECASE)
_AFTER_QUOTE = re.compile(r'((?<!")"(?:"")*) +(?=[,;|\t\r\n]|$)')

_CHEXPERT_COLUMNS = {"Path", "Frontal/Lateral"}
_CHEXPERT_PATIENT = re.compile(r"(?:^|/)(patient\d+)/")


@dataclass(slots=True)
class TableImage:
    """One row of a table.

    Attributes:
        path: Absolute path of the image, None where the file is missing or cannot be read.
        patient_id: As written; the image's own path where no patient is known.
        labels: `(F,)` float32 of 1, 0, NaN.
        split: `train`, `validation` or `test`; None where the table has no such column.
        mask_path: Absolute path of the thorax mask, None where there is none.
        line: Where its row ends in the table, from 1; of parquet the number of the row, from 1.
    """

    path: str | None
    patient_id: str
    labels: np.ndarray
    split: str | None = None
    mask_path: str | None = None
    line: int = 0


@dataclass
class TableReport:
    """What was read, dropped and doubted; lists name images by their path in the table.

    Attributes:
        table: The file.
        rows: Rows of the table.
        usable: Images that reach a split.
        columns: Which column was taken for what: `image`, `patient`, `split`, `thorax mask`, `view`, `labels`.
        missing_files: Images without a file. Dropped.
        unreadable_files: Images that cannot be read, with the reason; filled with `verify=True`. Dropped.
        laterals: Lateral images. Dropped.
        duplicate_rows: Images with a further row of the same labels. The first row stands.
        conflicting_rows: Images with a further row of other labels. The first row stands.
        missing_masks: Images whose row names no mask that is there. Kept, without a mask.
        unknown_patients: Images whose row names no patient; each counts as a patient of its own.
        uncertain: Number of uncertain labels (−1) by finding.
        contradictions: Images with `No Finding` and a finding. The finding stands.
        empty_lists: Images whose labels are an empty list: none of the findings is present.
        unannotated: Images without a label of any finding.
        similar_names: Names that resemble one of the 14 findings without being a spelling of it, and that finding.
        broken_columns: Columns that are no finding because of a few cells that are no labels, with the first.
        one_sided: Findings with nothing but positives, nothing but negatives, or no labels at all.
        drawn: Whether validation was drawn although the table has a column of splits: it names no validation images.
    """

    table: str
    rows: int = 0
    usable: int = 0
    columns: dict[str, str] = field(default_factory=dict)
    missing_files: list[str] = field(default_factory=list)
    unreadable_files: dict[str, str] = field(default_factory=dict)
    laterals: list[str] = field(default_factory=list)
    duplicate_rows: list[str] = field(default_factory=list)
    conflicting_rows: list[str] = field(default_factory=list)
    missing_masks: list[str] = field(default_factory=list)
    unknown_patients: list[str] = field(default_factory=list)
    uncertain: Counter[str] = field(default_factory=Counter)
    contradictions: list[str] = field(default_factory=list)
    empty_lists: list[str] = field(default_factory=list)
    unannotated: list[str] = field(default_factory=list)
    similar_names: dict[str, str] = field(default_factory=dict)
    broken_columns: dict[str, str] = field(default_factory=dict)
    one_sided: list[str] = field(default_factory=list)
    drawn: bool = False

    def messages(self) -> list[str]:
        """One sentence for each thing that was dropped or doubted, with its count and the first few names."""
        unreadable = [f"{name} ({reason})" for name, reason in self.unreadable_files.items()]
        similar = [f"'{name}' ('{finding}'?)" for name, finding in self.similar_names.items()]
        broken = [f"'{name}' ({cell})" for name, cell in self.broken_columns.items()]
        said = [
            ("images of the table have no file and are dropped", self.missing_files),
            ("images cannot be read and are dropped", unreadable),
            ("lateral images are dropped", self.laterals),
            ("rows repeat an image; its first row stands", self.duplicate_rows),
            ("rows repeat an image with other labels; its first row stands", self.conflicting_rows),
            ("images have no thorax mask", self.missing_masks),
            ("images name no patient and count as one patient each", self.unknown_patients),
            ("images have both No Finding and a finding, which stands", self.contradictions),
            ("images have an empty list of labels and count as without findings", self.empty_lists),
            ("images have no labels and are not annotated", self.unannotated),
            ("findings resemble one of the 14 but are kept as their own; rename them with `findings`", similar),
            ("columns are no findings for cells that are no labels; mend them, or insist with `findings`", broken),
            ("findings lack positive or negative labels and cannot be learned", self.one_sided),
        ]
        messages = [f"{len(names)} {what}: {first_names(names)}." for what, names in said if names]
        if self.uncertain:
            counts = ", ".join(f"{finding} {count}" for finding, count in self.uncertain.items())
            messages.append(f"{self.uncertain.total()} labels are uncertain (−1): {counts}.")
        if "patient" not in self.columns:
            messages.append(
                "No column names patients: images of one patient may be on both sides of a split, and figures may be "
                "too high. Give `patient_column`."
            )
        if self.drawn:
            messages.append(
                "The column of splits names no validation images: they are drawn from the training images."
            )
        return messages


def load_table(
    table: str | os.PathLike[str],
    image_dir: str | os.PathLike[str] | None = None,
    image_column: str | None = None,
    findings: Sequence[str] | Mapping[str, str] | None = None,
    patient_column: str | None = None,
    split_column: str | None = None,
    mask_column: str | None = None,
    uncertain: Uncertain = "nan",
    empty: Empty = "nan",
    validation_fraction: float = 0.2,
    seed: int = 0,
    verify: bool = False,
) -> Source:
    """Load own images with own labels from a table.

    Images are opened when they are used. Whatever is dropped or doubted is counted and named in warnings, in
    `Source.messages` and in the description of each split.

    Args:
        table: CSV (comma, semicolon or tab, UTF-8), TSV or parquet; the first row of a text file names the columns,
            but for a line such as `sep=;` above it, which Excel reads the separator from.
        image_dir: Folder that the paths of images and masks begin at; by default the table's own folder.
        image_column: Column of the images' paths; by default the first of `IMAGE_COLUMNS` that there is.
        findings: What the labels are. A list names the columns of findings, each with 1 present, 0 absent, −1
            uncertain or nothing; a mapping `{column: name}` also renames them. Where the table has one column of names
            joined by `|` instead (one of `NAME_COLUMNS`), they are the names that may occur in it. By default all
            findings that the table has. Other spellings of the 14 findings are mended (`harmonised_finding`), but for
            a mapping, which stands as it is.
        patient_column: Column of patients; by default the first of `PATIENT_COLUMNS` that there is.
        split_column: Column of `train`, `validation` and `test`; by default the first of `SPLIT_COLUMNS`. It is used
            as it is given; validation images are drawn only where it names none.
        mask_column: Column of paths of thorax masks; by default `thorax_mask` where there is one.
        uncertain: What an uncertain label is read as: `nan` (not annotated), `negative` or `positive`.
        empty: What an empty cell is read as: `nan` or `negative`. In an image with `No Finding` 1 it is negative in
            any case. An image with an empty cell in the one column of names is not annotated at all.
        validation_fraction: Share of the patients (of the images, where patients are not known) that goes to
            validation, in [0, 1), unless the table says.
        seed: Draws the validation patients.
        verify: Read every image now, and drop those that cannot be read, by name. Without it only the files' existence
            is checked.

    Returns:
        A [`Source`] with the table's name, its findings and its splits as `datasets.Dataset`, see
        `clarity_hf.data.rows`.

    Raises:
        FileNotFoundError: The table, or all of its images, are not there.
        ValueError: A column is not there, a cell cannot be read or leads out of `image_dir` (the message names its
            line), no finding is found, a patient is in two splits, or an argument is out of range.
    """
    check_validation_fraction(validation_fraction)
    images, names, report = read_table(
        table, image_dir, image_column, findings, patient_column, split_column, mask_column, uncertain, empty, verify
    )
    splits = _split(images, validation_fraction, seed, report)
    taken = ", ".join(f"{role} from '{column}'" for role, column in report.columns.items())
    logger.info("%s: %s; findings %s.", report.table, taken, ", ".join(names))
    for message in report.messages():
        logger.warning("%s: %s", report.table, message)
    has_masks = "thorax mask" in report.columns
    data = {split: _to_dataset(part, names, has_masks, report) for split, part in splits.items()}
    return Source(Path(table).stem, names, **data, has_prior=has_masks, messages=tuple(report.messages()))


def read_table(
    table: str | os.PathLike[str],
    image_dir: str | os.PathLike[str] | None = None,
    image_column: str | None = None,
    findings: Sequence[str] | Mapping[str, str] | None = None,
    patient_column: str | None = None,
    split_column: str | None = None,
    mask_column: str | None = None,
    uncertain: Uncertain = "nan",
    empty: Empty = "nan",
    verify: bool = False,
) -> tuple[list[TableImage], tuple[str, ...], TableReport]:
    """Read a table and find its images; arguments and errors are those of [`load_table`].

    Returns:
        The images in the table's order, also those without a file (`path` None), the names of the findings, and the
        report. Nothing is logged.
    """
    path = Path(os.path.expanduser(table))  # which leaves an unknown `~name` as it is
    cells = _read_cells(path)
    report = TableReport(str(table), rows=len(cells.lines))
    columns = _Columns.find(cells, image_column, patient_column, split_column, mask_column)
    labels = choose_labels(cells.columns, findings, uncertain, empty)
    if findings is None and isinstance(labels, ColumnLabels):
        report.broken_columns = {
            name: f"line {cells.lines[place]} holds '{written[:MAX_NAME_LENGTH]}'"
            for name, (place, written) in broken_label_columns(cells.columns).items()
        }
    report.columns = columns.named() | {"labels": labels.described}
    images = _read_images(cells, columns, labels, _image_root(path, image_dir, cells, columns), report)
    _find_files(images, columns, report)
    if verify:
        _drop_unreadable(images, report)
    report.usable = sum(image.path is not None for image in images.values())
    if not report.usable:
        raise FileNotFoundError(
            f"`image_dir` must be the folder that the paths of column '{columns.image}' begin at, got none of "
            f"{report.rows} images there ({first_names(images, 1) or 'the table is empty'}). Give `image_dir`."
        )
    _doubt(images.values(), labels.names, report)
    return list(images.values()), labels.names, report


# Cells


@dataclass
class _Cells:
    """A table as text: a list of cells for each column, and where each row stands in the file."""

    path: Path
    columns: dict[str, list[str]]
    lines: list[int]

    def where(self, index: int) -> str:
        return f"{self.path}, line {self.lines[index]}"


def _read_cells(path: Path) -> _Cells:
    if not os.path.exists(path):
        raise FileNotFoundError(f"`table` must be a file, got nothing at {path}. Check the path.")
    if not os.path.isfile(path):  # a pipe would be waited for
        raise ValueError(f"`table` must be a regular file, got a folder, a pipe or a device at {path}. Pass the file.")
    if path.suffix.lower() not in TABLE_SUFFIXES:
        raise ValueError(f"`table` must end in {', '.join(TABLE_SUFFIXES)}, got {path}. Export it as CSV.")
    if path.stat().st_size > MAX_TABLE_BYTES:
        size = path.stat().st_size
        raise ValueError(f"`table` must have at most {MAX_TABLE_BYTES} bytes, got {size} in {path}. Split it.")
    if path.suffix.lower() == ".parquet":
        return _read_parquet(path)
    rows = list(_read_text(path))
    if not rows:
        raise ValueError(f"`table` must have a row of column names, got the empty {path}. Write one.")
    (_, header), *body = rows
    repeated = [name for name, count in Counter(name for name in header if name).items() if count > 1]
    if repeated:
        raise ValueError(f"`table` must name each column once, got {repeated} twice in {path}. Rename one.")
    for line, cells in body:
        if any(cells[len(header) :]):
            raise ValueError(
                f"{path}, line {line}: a row must have {len(header)} cells, got {len(cells)}. Quote cells that hold "
                "the separator."
            )
    columns = {name: [row[i] if i < len(row) else "" for _, row in body] for i, name in enumerate(header) if name}
    return _Cells(path, columns, [line for line, _ in body])


def _read_text(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Line number and cells of each row that is not blank."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        lines = _text_lines(file, path)
        header = next(lines, "")
        told = _SEPARATOR_LINE.fullmatch(header)
        header = next(lines, "") if told else header
        separator = "\t" if path.suffix.lower() == ".tsv" else max(",;\t", key=header.count)
        # Blanks after a closing quote are an error to the reader; cells are stripped of them in any case.
        rows = (_AFTER_QUOTE.sub(r"\1", line) if '" ' in line else line for line in itertools.chain([header], lines))
        # Strict: else an open quote would take all rows below it for one cell.
        reader = csv.reader(rows, delimiter=told[1] if told else separator, strict=True)
        try:
            for row in reader:
                if any(cell.strip() for cell in row):
                    # Labels repeat: one object a spelling keeps the 225,000 rows of CheXpert small.
                    yield reader.line_num + bool(told), [sys.intern(cell.strip()) for cell in row]
        except csv.Error as error:
            line = reader.line_num + bool(told)
            raise ValueError(
                f"{path}, line {line}: a row must be CSV, got one that is not ({error}). "
                f"{_csv_mending(str(error), path, line)}"
            ) from error


def _csv_mending(error: str, path: Path, number: int) -> str:
    """What to do about an error of the csv module at a line."""
    if "field limit" in error:
        return "Shorten cells of more than 131072 characters."
    with path.open(newline="", encoding="utf-8-sig") as file:
        line = next(itertools.islice(file, number - 1, None), "")
    if '\\"' in line:
        return 'Write a quote inside a cell as "" instead of \\".'
    if "expected after" in error:
        return "Double the quotes inside a cell, and write nothing between its last one and the separator."
    return "Close its quotes."


def _text_lines(file: Iterable[str], path: Path) -> Iterator[str]:
    try:
        for number, line in enumerate(file, 1):
            if "\0" in line:
                raise ValueError(f"{path}, line {number}: a line must be text, got NUL bytes. Save it as CSV UTF-8.")
            yield line
    except UnicodeDecodeError as error:
        raise ValueError(f"`table` must be UTF-8, got {path} ({error}). Save it as CSV UTF-8.") from error


def _is_flat(kind: pyarrow.DataType) -> bool:
    """Whether a column of parquet is a cell a row: a value, or a list of them such as labels."""
    types = pyarrow.types
    lists = (types.is_list, types.is_large_list, types.is_fixed_size_list)
    is_list = any(is_kind(kind) for is_kind in lists)
    return not types.is_nested(kind.value_type if is_list else kind)


def _read_parquet(path: Path) -> _Cells:
    columns: dict[str, list[str]] = {}
    size = read = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            rows = file.metadata.num_rows
            names = [field.name for field in file.schema_arrow if _is_flat(field.type)]
            repeated = len(set(names)) < len(names)
            if rows <= MAX_TABLE_ROWS and not repeated:
                columns = {name: [] for name in names}
                # Counted as it is read: a header may claim less, and pyarrow, asked for a column's, ends the process
                # over a broken one.
                for batch in file.iter_batches(_BATCH_ROWS, columns=names):
                    size, read = size + batch.nbytes, read + batch.num_rows
                    if size > MAX_TABLE_BYTES:
                        break
                    for name, cells in columns.items():
                        cells.extend(cell_text(value) for value in batch[name].to_pylist())
    except MemoryError:
        raise
    except Exception as error:  # pyarrow's, and Python's (OverflowError of a date, UnicodeDecodeError of a name)
        raise ValueError(f"`table` must be whole parquet, got {path} ({error}). Write it again.") from error
    if rows > MAX_TABLE_ROWS:
        raise ValueError(f"`table` must have at most {MAX_TABLE_ROWS} rows, got {rows}. Split {path}.")
    if repeated:
        raise ValueError(f"`table` must name each column once, got {names} in {path}. Rename one.")
    if size > MAX_TABLE_BYTES:
        raise ValueError(f"`table` must have at most {MAX_TABLE_BYTES} bytes unpacked, got more. Split {path}.")
    if names and read != rows:
        raise ValueError(f"`table` must be whole parquet, got {path} ({read} rows of {rows}). Write it again.")
    return _Cells(path, columns, list(range(1, rows + 1)))


# Columns


@dataclass
class _Columns:
    """Names of the columns that are no labels; None where there is none."""

    image: str
    patient: str | None
    split: str | None
    mask: str | None
    view: str | None
    is_chexpert: bool

    @classmethod
    def find(
        cls, cells: _Cells, image: str | None, patient: str | None, split: str | None, mask: str | None
    ) -> _Columns:
        header = list(cells.columns)
        image = find_column(header, image, "image_column", IMAGE_COLUMNS)
        if image is None:
            raise ValueError(
                f"`image_column` must be given where no column is called one of {list(IMAGE_COLUMNS)}, got the "
                f"columns {header}. Name the column of the images' paths."
            )
        return cls(
            image=image,
            patient=find_column(header, patient, "patient_column", PATIENT_COLUMNS),
            split=find_column(header, split, "split_column", SPLIT_COLUMNS),
            mask=find_column(header, mask, "mask_column", MASK_COLUMNS),
            view=find_column(header, None, "view", VIEW_COLUMNS),
            is_chexpert=set(header) >= _CHEXPERT_COLUMNS,
        )

    def named(self) -> dict[str, str]:
        roles = {"image": self.image, "patient": self.patient, "split": self.split, "thorax mask": self.mask}
        if self.patient is None and self.is_chexpert:
            roles["patient"] = self.image  # CheXpert's paths name the patient
        return {role: column for role, column in (roles | {"view": self.view}).items() if column is not None}


# Images


def _image_root(path: Path, image_dir: str | os.PathLike[str] | None, cells: _Cells, columns: _Columns) -> str:
    if image_dir is not None:
        return os.path.abspath(os.path.expanduser(image_dir))
    folder = path.absolute().parent
    written = next(iter(cells.columns[columns.image]), "")
    # CheXpert's paths begin with the name of the folder that its tables lie in.
    if written.split("/")[0] == folder.name and not os.path.exists(folder / written):
        folder = folder.parent
    return os.path.normpath(folder)


def _read_images(
    cells: _Cells, columns: _Columns, labels: LabelReader, root: str, report: TableReport
) -> dict[str, TableImage]:
    """The rows by the image's path as written, laterals and repetitions left out; files are not looked for yet."""
    images: dict[str, TableImage] = {}
    names: dict[str, str] = {}  # the path as first written, by where it leads
    for index in range(len(cells.lines)):
        row = {name: column[index] for name, column in cells.columns.items()}
        name, where = row[columns.image], cells.where(index)
        path = _resolve(name, root, f"{where}: '{columns.image}'")
        if columns.view and loose_name(row[columns.view]) in LATERAL_VIEWS:
            report.laterals.append(name)
            continue
        read = labels.read(row, where)
        image = TableImage(path, _patient(row, columns) or name, read.labels, line=cells.lines[index])
        if path in names:
            same = np.array_equal(images[names[path]].labels, image.labels, equal_nan=True)
            (report.duplicate_rows if same else report.conflicting_rows).append(name)
            continue
        names[path] = name
        images[name] = image
        report.uncertain.update(read.uncertain)
        if read.contradicts:
            report.contradictions.append(name)
        if read.empty_list:
            report.empty_lists.append(name)
        if np.isnan(read.labels).all():
            report.unannotated.append(name)
        if columns.patient and not row[columns.patient]:
            report.unknown_patients.append(name)
        if columns.split:
            image.split = _read_split(row[columns.split], where, columns.split)
        if columns.mask and row[columns.mask]:
            image.mask_path = _resolve(row[columns.mask], root, f"{where}: '{columns.mask}'")
    return images


def _resolve(written: str, root: str, where: str) -> str:
    if not written:
        raise ValueError(f"{where} must be a path, got an empty cell. Mend or remove the row.")
    path = os.path.normpath(os.path.join(root, written.replace("\\", "/")))
    if not is_inside(path, root):
        raise ValueError(
            f"{where} must lead to a file in {root}, got '{written}'. Give the folder that holds all images as "
            "`image_dir`."
        )
    return path


def is_inside(path: str, folder: str) -> bool:
    """Whether a path lies in a folder, or is it; both absolute and without `..`.

    They are compared as written: a folder of images that is a link to another disk is no way out.
    """
    try:
        return os.path.commonpath([folder, path]) == folder
    except ValueError:  # of Windows: another drive
        return False


def _patient(row: Mapping[str, str], columns: _Columns) -> str | None:
    if columns.patient is not None:
        return row[columns.patient] or None
    match = _CHEXPERT_PATIENT.search(row[columns.image]) if columns.is_chexpert else None
    return match[1] if match else None


def _read_split(written: str, where: str, column: str) -> str:
    split = SPLIT_NAMES.get(written.casefold())
    if split is None:
        raise ValueError(f"{where}: '{column}' must be one of {list(SPLITS)}, got '{written}'. Mend the cell.")
    return split


def _find_files(images: Mapping[str, TableImage], columns: _Columns, report: TableReport) -> None:
    for name, image in images.items():
        if image.path is not None and not os.path.isfile(image.path):
            report.missing_files.append(name)
            image.path = None
        elif columns.mask and not (image.mask_path and os.path.isfile(image.mask_path)):
            report.missing_masks.append(name)
            image.mask_path = None


def _drop_unreadable(images: Mapping[str, TableImage], report: TableReport) -> None:
    present = {name: image for name, image in images.items() if image.path is not None}
    with ThreadPoolExecutor() as pool:  # Pillow decodes without the interpreter's lock
        reasons = list(pool.map(_reading_error, [image.path for image in present.values()]))
    for (name, image), reason in zip(present.items(), reasons, strict=True):
        if reason is not None:
            report.unreadable_files[name] = reason
            image.path = None


def _reading_error(path: str) -> str | None:
    try:
        read_image(path)
    except (OSError, ValueError) as error:
        return str(error)
    return None


def _doubt(images: Iterable[TableImage], names: Sequence[str], report: TableReport) -> None:
    values = np.array([image.labels for image in images if image.path is not None])
    two_sided = (values == 1).any(0) & (values == 0).any(0)
    report.one_sided = [name for name, learnable in zip(names, two_sided, strict=True) if not learnable]
    for name in names:
        close = difflib.get_close_matches(loose_name(name), [loose_name(known) for known in FINDINGS], 1, 0.85)
        if name not in FINDINGS and close:
            report.similar_names[name] = harmonised_finding(close[0])


# Splits


def _split(
    images: Sequence[TableImage], fraction: float, seed: int, report: TableReport
) -> dict[str, list[TableImage]]:
    """Images with a file by split. Those without one take part in the draw, so that a lost file moves no patient."""
    if "split" in report.columns:
        if "patient" in report.columns:
            check_disjoint(images)
        report.drawn = fraction > 0 and not any(image.split == "validation" for image in images)
    if "split" not in report.columns or report.drawn:
        held_out = draw_patients((image.patient_id for image in images if image.split != "test"), fraction, seed)
        for image in images:
            if image.split != "test":
                image.split = "validation" if image.patient_id in held_out else "train"
    return {split: [image for image in images if image.split == split and image.path is not None] for split in SPLITS}


def check_disjoint(images: Sequence[TableImage]) -> None:
    """Refuse splits that share patients.

    Raises:
        ValueError: A patient is in two splits. The message has the splits, the number of patients and the lines of
            their rows, but no patient: it may be a name.
    """
    patients = {split: {image.patient_id for image in images if image.split == split} for split in SPLITS}
    for one, other in itertools.combinations(SPLITS, 2):
        shared = patients[one] & patients[other]
        if shared:
            concerned = [image for image in images if image.patient_id in shared]
            lines = "; ".join(
                f"{split} in lines {first_names(str(image.line) for image in concerned if image.split == split)}"
                for split in (one, other)
            )
            raise ValueError(
                f"{one} and {other} must share no patient, got {len(shared)} in both ({lines}). Move each to one "
                "side, or leave the splits out and let validation be drawn."
            )


def _to_dataset(
    images: Sequence[TableImage], names: Sequence[str], has_masks: bool, report: TableReport
) -> datasets.Dataset:
    columns: dict[str, Any] = {
        "image": [image.path for image in images],
        "labels": [image.labels for image in images],
        "patient_id": [image.patient_id for image in images],
    }
    if has_masks:
        columns["thorax_mask"] = [image.mask_path for image in images]
    features = row_features(len(names), has_masks)
    description = "\n".join([f"Findings: {', '.join(names)}.", *report.messages()])
    info = datasets.DatasetInfo(description=description, features=features)
    return datasets.Dataset.from_dict(columns, features=features, info=info)

__getattr__ = old_names(__name__)
