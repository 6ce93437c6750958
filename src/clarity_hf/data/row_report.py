# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""What a loader read, dropped and found doubtful: one report for the NIH release, tables and data sets of the Hub."""

# ruff: noqa: RUF009  `_counted` returns a `dataclasses.field`

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from clarity_hf.image_reading import read_image

from .label_columns import LabelRow
from .rows import ImageRow, first_names


def _counted(message: str, kind: Callable[[], Any] = list) -> Any:
    """A field that collects names, or names with a detail, and the message about their number."""
    return field(default_factory=kind, metadata={"message": message})


@dataclass
class RowReport:
    """What was read, dropped and found doubtful. Lists and dictionaries name radiographs by [`ImageRow.image_id`].

    The message of a field says what it counts and what became of it.

    Args:
        rows, usable: Rows of the source, including repeated ones, and radiographs that are in a split.
        columns: Which column was used for what: `image`, `patient`, `split`, `thorax mask`, `view`, `labels`.
        uncertain: Number of uncertain labels (−1) by finding.
        notes: Further messages, a sentence each.
        missing_files, unreadable_files, unlisted, laterals: Dropped radiographs; unreadable ones, which only `verify`
            finds, with the reason.
        short_rows: Rows of a text file with too few cells, as some spreadsheets write them.
        duplicate_rows, conflicting_rows: Further rows of a radiograph with the same or with other labels, not used.
        missing_masks, unknown_patients, contradictions, empty_lists, unannotated: Radiographs that are kept.
        similar_names: Findings that resemble one of the 14 without being a spelling of it, with that finding.
        broken_columns: Columns that are not findings because of a few cells, with the first of these cells.
        one_sided: Findings with only positive, only negative or no labels.
        outside_files, files_without_row, duplicate_files, listed_without_row: Files, and names in lists of the
            release.
        boxes_without_row, duplicate_boxes, boxes_without_label: Of the NIH release, once per box. The readers of boxes
            were not those of the labels.
        unknown_ages: Radiographs of the NIH release without a plausible age.
    """

    rows: int = 0
    usable: int = 0
    columns: dict[str, str] = field(default_factory=dict)
    uncertain: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)
    missing_files: list[str] = _counted("images have no file and are dropped")
    unreadable_files: dict[str, str] = _counted("images cannot be read and are dropped", dict)
    unlisted: list[str] = _counted("images are in neither official list and are dropped")
    laterals: list[str] = _counted("lateral or oblique images are dropped")
    short_rows: list[str] = _counted("rows have fewer cells than there are columns; the last ones count as empty")
    duplicate_rows: list[str] = _counted("rows repeat an image; its first row is used")
    conflicting_rows: list[str] = _counted("rows repeat an image with other labels; its first row is used")
    missing_masks: list[str] = _counted("images have no thorax mask")
    unknown_patients: list[str] = _counted("images name no patient and count as one patient each")
    contradictions: list[str] = _counted("images have both No Finding and a finding; the finding is used")
    empty_lists: list[str] = _counted("images have an empty list of labels and count as without findings")
    unannotated: list[str] = _counted("images have no labels and are not annotated")
    similar_names: dict[str, str] = _counted(
        "findings resemble one of the 14 but keep their own names; rename them with `findings`", dict
    )
    broken_columns: dict[str, str] = _counted(
        "columns are not findings because of cells that are not labels; correct them, or name them in `findings`", dict
    )
    one_sided: list[str] = _counted(
        "findings lack positive or negative labels and cannot be learned (`empty` 'negative' reads empty cells as 0)"
    )
    outside_files: list[str] = _counted("images are outside of the folder")
    files_without_row: list[str] = _counted("images have no row in the table and are not read")
    duplicate_files: list[str] = _counted("images are further copies of an image and are not read")
    listed_without_row: list[str] = _counted("images of the official lists have no row in the table")
    boxes_without_row: list[str] = _counted("boxes are for images without a row in the table and are dropped")
    duplicate_boxes: list[str] = _counted("boxes are repeated and are kept once")
    boxes_without_label: list[str] = _counted("boxes are for a finding that the image's labels lack and are kept")
    unknown_ages: list[str] = _counted("images have no plausible age and are kept without one")

    @property
    def has_masks(self) -> bool:
        """Whether the source has thorax masks."""
        return "thorax mask" in self.columns

    def messages(self) -> list[str]:
        """One sentence for each thing that was dropped or is doubtful, with its count and the first few names."""
        messages = []
        for kind in fields(self):
            found = getattr(self, kind.name)
            if found and "message" in kind.metadata:
                names = [f"{name} ({detail})" for name, detail in found.items()] if isinstance(found, dict) else found
                messages.append(f"{len(found)} {kind.metadata['message']}: {first_names(names)}.")
        if self.uncertain:
            counts = ", ".join(f"{finding} {count}" for finding, count in self.uncertain.items())
            messages.append(f"{self.uncertain.total()} labels are uncertain (−1): {counts}.")
        return [*messages, *self.notes]

    def count_labels(self, name: str, read: LabelRow) -> None:
        """Count uncertain, contradictory, empty and missing labels of a radiograph."""
        self.uncertain.update(read.uncertain)
        for found, names in (
            (read.contradicts, self.contradictions),
            (read.empty_list, self.empty_lists),
            (np.isnan(read.labels).all(), self.unannotated),
        ):
            if found:
                names.append(name)


def collect_rows(rows: Iterable[tuple[Hashable, Any, LabelRow]], report: RowReport) -> dict[Any, Any]:
    """The first row of each radiograph, in the order of the source; labels and repetitions are counted in `report`.

    `rows` are what identifies the radiograph, its [`ImageRow`], and what was read of its labels.
    """
    first: dict[Any, Any] = {}
    for key, row, read in rows:
        if key not in first:
            first[key] = row
            report.count_labels(row.image_id, read)
        elif np.array_equal(first[key].labels, row.labels, equal_nan=True):
            report.duplicate_rows.append(row.image_id)
        else:
            report.conflicting_rows.append(row.image_id)
    return first


def count_files(rows: Iterable[ImageRow], report: RowReport, verify: bool) -> None:
    """Count usable radiographs, and those without a file or a mask, in `report`.

    With `verify` every image is read, and the `path` of those that cannot be read becomes None.
    """
    rows = list(rows)
    present = [row for row in rows if row.path is not None]
    report.missing_files += [row.image_id for row in rows if row.path is None]
    report.missing_masks += [row.image_id for row in present if report.has_masks and row.mask_path is None]
    if verify:
        with ThreadPoolExecutor() as pool:  # Pillow decodes without the interpreter's lock
            reasons = list(pool.map(_reading_error, [row.path for row in present]))
        for row, reason in zip(present, reasons, strict=True):
            if reason is not None:
                report.unreadable_files[row.image_id], row.path = reason, None
    report.usable = sum(row.path is not None and row.split is not None for row in present)


def _reading_error(path: str | None) -> str | None:
    try:
        read_image(path)
    except (OSError, ValueError) as error:
        return str(error)
    return None
