# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Your own radiographs with your own labels: a table with one row per radiograph (CSV, TSV or parquet).

    path,patient_id,Effusion,Rib_Fracture                       one column per finding: 1, 0, −1 (uncertain) or empty
    images/0001.png,A17,1,0                                      (not annotated)

    path,patient_id,labels                                      or one column of names, as NIH writes it
    images/0001.png,A17,Effusion|Rib_Fracture

The tables of CheXpert (Irvin et al., AAAI 2019) are read as published: equivalent findings get their NIH names,
lateral radiographs are dropped, patients are taken from the paths.
"""

from __future__ import annotations

import difflib
import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from clarity_hf.deprecated import old_names
from clarity_hf.labels import FINDINGS, harmonised_finding, loose_name
from clarity_hf.view_names import view_kind

from .label_columns import (
    IMAGE_COLUMNS,
    MAX_NAME_LENGTH,
    ColumnLabels,
    Empty,
    LabelOptions,
    LabelReader,
    LabelRow,
    Uncertain,
    broken_label_columns,
    choose_labels,
    find_roles,
    is_empty,
)
from .row_report import RowReport, collect_rows, count_files
from .rows import (
    PATIENTS_UNKNOWN,
    SPLITS,
    ImageRow,
    Source,
    build_dataset,
    check_disjoint,
    check_validation_fraction,
    draw_patients,
    first_names,
    row_features,
    split_rows,
)
from .table_files import Cells, read_cells

logger = logging.getLogger(__name__)

SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "validate", "dev"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}
"""Spellings of the splits."""

_CHEXPERT_COLUMNS = {"Path", "Frontal/Lateral"}
_CHEXPERT_PATIENT = re.compile(r"(?:^|/)(patient\d+)/")


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
    """Load your own radiographs with your own labels from a table.

    Images are opened when they are used. What is dropped or looks doubtful is counted and named in warnings, in
    `Source.messages` and in the description of each split.

    Args:
        table: CSV (comma, semicolon or tab, UTF-8), TSV or parquet. The first row of a text file names the columns; a
            line such as `sep=;`, from which Excel takes the separator, may precede it.
        image_dir: Folder that the paths of images and masks are relative to; by default the table's own folder.
        image_column: Column of the images' paths; by default the first of `IMAGE_COLUMNS` in the table.
        findings: A list names the columns of findings, with 1 present, 0 absent, −1 uncertain or nothing; a mapping
            `{column: name}` also renames them. If the table has one column of names joined by `|` instead (one of
            `NAME_COLUMNS`), they are the names that may occur in it. By default all findings in the table. Other
            spellings of the 14 findings are corrected (`harmonised_finding`), except those of a mapping.
        patient_column: Column of patients; by default the first of `PATIENT_COLUMNS` in the table.
        split_column: Column of `train`, `validation` and `test`; by default the first of `SPLIT_COLUMNS`. Validation
            radiographs are drawn only if it names none.
        mask_column: Column of paths of thorax masks; by default `thorax_mask`.
        uncertain: How an uncertain label is read: `nan` (not annotated), `negative` or `positive`.
        empty: How an empty cell is read: `nan` or `negative`. In a row with `No Finding` 1 it is always negative. An
            empty cell in a column of names always means not annotated.
        validation_fraction: Share of the patients (of the radiographs, if patients are unknown) that goes to
            validation, in [0, 1), unless the table has validation radiographs.
        seed: Seed of the draw of validation patients.
        verify: Read every image now, and drop those that cannot be read, by name. Otherwise only the files' existence
            is checked.

    Returns:
        A [`Source`] with the table's name, its findings and its splits as `datasets.Dataset`, see
        `clarity_hf.data.rows`.

    Raises:
        FileNotFoundError: The table, or all of its images, do not exist.
        ValueError: A column does not exist, a cell cannot be read or leads out of `image_dir` (the message names its
            line), there is no finding, a patient is in two splits, or an argument is out of range.
    """
    check_validation_fraction(validation_fraction)
    columns = {"image": image_column, "patient": patient_column, "split": split_column, "thorax mask": mask_column}
    labels = LabelOptions(findings, uncertain, empty)
    rows, names, report = read_table(table, image_dir, columns, labels, verify)
    splits = _split(rows, validation_fraction, seed, report)
    used = ", ".join(f"{role} from '{column}'" for role, column in report.columns.items())
    logger.info("%s: %s; findings %s.", table, used, ", ".join(names))
    messages = report.messages()
    for message in messages:
        logger.warning("%s: %s", table, message)
    features = row_features(len(names), report.has_masks)
    description = "\n".join([f"Findings: {', '.join(names)}.", *messages])
    data = {split: build_dataset(part, features, description=description) for split, part in splits.items()}
    return Source(Path(table).stem, names, **data, has_prior=report.has_masks, messages=tuple(messages))


def read_table(
    table: str | os.PathLike[str],
    image_dir: str | os.PathLike[str] | None = None,
    columns: Mapping[str, str | None] | None = None,
    labels: LabelOptions | None = None,
    verify: bool = False,
) -> tuple[list[ImageRow], tuple[str, ...], RowReport]:
    """Read a table and find its images, with arguments and errors as for [`load_table`].

    Args:
        table, image_dir: As for `load_table`.
        columns: Columns by role: `image`, `patient`, `split`, `thorax mask`; others are found by their names.
        labels: What the labels are and how they are read.
        verify: As for `load_table`.

    Returns:
        The rows in the table's order, including those without a file (`path` None), the names of the findings, and the
        report. Nothing is logged.
    """
    path = Path(os.path.expanduser(table))  # which leaves an unknown `~name` as it is
    cells = read_cells(path)
    header = list(cells.columns)
    roles = find_roles(header, columns or {})
    if "image" not in roles:
        raise ValueError(
            f"`image_column` must be given if no column is called one of {list(IMAGE_COLUMNS)}, got the columns "
            f"{header}. Name the column of the images' paths."
        )
    if set(header) >= _CHEXPERT_COLUMNS:
        roles.setdefault("patient", roles["image"])
    reader = choose_labels(cells.columns, labels or LabelOptions())
    report = RowReport(rows=len(cells.lines), columns=roles | {"labels": reader.described})
    report.short_rows = [f"line {line}" for line in cells.short_lines]
    if (labels is None or labels.findings is None) and isinstance(reader, ColumnLabels):
        report.broken_columns = {
            name: f"line {cells.lines[place]} holds '{written[:MAX_NAME_LENGTH]}'"
            for name, (place, written) in broken_label_columns(cells.columns).items()
        }
    root = _image_root(path, image_dir, cells.columns[roles["image"]])
    rows = list(collect_rows(_image_rows(cells, roles, reader, root, report), report).values())
    count_files(rows, report, verify)
    if not report.usable:
        names = [row.image_id for row in rows]
        raise FileNotFoundError(
            f"`image_dir` must be the folder that the paths in column '{roles['image']}' are relative to, found none "
            f"of {report.rows} images there ({first_names(names, 1) or 'the table is empty'}). Give `image_dir`."
        )
    if "patient" not in roles:
        report.notes.append(PATIENTS_UNKNOWN)
    else:
        report.unknown_patients = [row.image_id for row in rows if row.patient_id == row.image_id]
    _doubt_findings([row.labels for row in rows if row.path is not None], reader.names, report)
    return rows, reader.names, report


def _image_root(path: Path, image_dir: str | os.PathLike[str] | None, written: Sequence[str]) -> str:
    """The folder that the paths `written` in a table are relative to."""
    if image_dir is not None:
        return os.path.abspath(os.path.expanduser(image_dir))
    folder = path.absolute().parent
    first = next(iter(written), "")
    # CheXpert's paths begin with the name of the folder that its tables are in.
    if first.split("/")[0] == folder.name and not os.path.exists(folder / first):
        folder = folder.parent
    return os.path.normpath(folder)


def _image_rows(
    cells: Cells, roles: Mapping[str, str], labels: LabelReader, root: str, report: RowReport
) -> Iterator[tuple[str, ImageRow, LabelRow]]:
    """Path of the image, row and labels of each row; lateral and oblique images are counted and left out."""

    def file_of(role: str) -> str:
        return _resolve(cells_of[roles[role]], root, f"{where}: '{roles[role]}'")

    for line, where, cells_of in cells.rows():
        written = {role: cells_of[column] for role, column in roles.items()}
        name, path = written["image"], file_of("image")
        if view_kind(written.get("view", "")):
            report.laterals.append(name)
            continue
        patient = "" if is_empty(written.get("patient", "")) else written["patient"]
        if roles.get("patient") == roles["image"]:
            match = _CHEXPERT_PATIENT.search(patient)
            patient = match[1] if match else ""
        read = labels.read(cells_of, where)
        mask = file_of("thorax mask") if written.get("thorax mask") else None
        yield (
            path,
            ImageRow(
                image_id=name,
                patient_id=patient or name,
                labels=read.labels,
                path=path if os.path.isfile(path) else None,
                mask_path=mask if mask and os.path.isfile(mask) else None,
                split=_read_split(written["split"], where, roles["split"]) if "split" in roles else "train",
                line=line,
            ),
            read,
        )


def _resolve(written: str, root: str, where: str) -> str:
    if not written:
        raise ValueError(f"{where} must be a path, got an empty cell. Correct or remove the row.")
    path = os.path.normpath(os.path.join(root, written.replace("\\", "/")))
    if not is_inside(path, root):
        raise ValueError(
            f"{where} must lead to a file in {root}, got '{written}'. Give the folder that holds all images as "
            "`image_dir`."
        )
    return path


def is_inside(path: str, folder: str) -> bool:
    """Whether a path is in a folder, or is the folder; both absolute and without `..`.

    Paths are compared as written, so that a folder of images may be a link to another disk.
    """
    try:
        return os.path.commonpath([folder, path]) == folder
    except ValueError:  # on Windows: another drive
        return False


def _read_split(written: str, where: str, column: str) -> str:
    split = SPLIT_NAMES.get(written.casefold())
    if split is None:
        raise ValueError(f"{where}: '{column}' must be one of {list(SPLITS)}, got '{written}'. Correct the cell.")
    return split


def _doubt_findings(labels: Sequence[np.ndarray], names: Sequence[str], report: RowReport) -> None:
    """Report findings that cannot be learned, and names that look like a misspelling of one of the 14."""
    two_sided = (np.array(labels) == 1).any(0) & (np.array(labels) == 0).any(0)
    report.one_sided = [name for name, learnable in zip(names, two_sided, strict=True) if not learnable]
    for name in names:
        close = difflib.get_close_matches(loose_name(name), [loose_name(known) for known in FINDINGS], 1, 0.85)
        if name not in FINDINGS and close:
            report.similar_names[name] = f"{harmonised_finding(close[0])}?"


def _split(rows: Sequence[ImageRow], fraction: float, seed: int, report: RowReport) -> dict[str, list[ImageRow]]:
    """Rows by split. Rows without a file take part in the draw, so that a lost file moves no patient."""
    if "split" in report.columns:
        if "patient" in report.columns:
            check_disjoint(rows, "Move each patient to one side, or leave out the splits so that validation is drawn.")
        if fraction == 0 or any(row.split == "validation" for row in rows):
            return split_rows(rows)
        report.notes.append(
            "The column of splits contains no validation images: they are drawn from the training images."
        )
    return split_rows(rows, draw_patients((row.patient_id for row in rows if row.split == "train"), fraction, seed))


__getattr__ = old_names(__name__)
