# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""What a loader read, dropped and doubted: one report for the NIH release, tables and data sets of the Hub."""

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
    """A field that collects names, or names with a detail, and what a message says about their number."""
    return field(default_factory=kind, metadata={"message": message})


@dataclass
class RowReport:
    """What was read, dropped and doubted. Lists and dictionaries name radiographs by [`ImageRow.image_id`].

    Attributes:
        rows: Rows of the source, including repeated ones.
        usable: Radiographs that reach a split.
        columns: Which column was used for what: `image`, `patient`, `split`, `thorax mask`, `view`, `labels`.
        uncertain: Number of uncertain labels (−1) by finding.
        notes: Further messages, a sentence each.
        missing_files: Dropped.
        unreadable_files: The reason by name. Only with `verify`; dropped.
        unlisted: NIH release; dropped.
        laterals: Dropped.
        duplicate_rows: Further rows of a radiograph with the same labels.
        conflicting_rows: Further rows of a radiograph with other labels; the first row is used.
        missing_masks: Kept, without a mask.
        unknown_patients: Rows with an empty patient.
        contradictions: Rows with `No Finding` and a finding.
        empty_lists: Rows whose labels are an empty list: none of the findings is present.
        unannotated: Rows without a label of any finding.
        similar_names: Findings that resemble one of the 14 without being a spelling of it, and that finding.
        broken_columns: Columns that are not findings because of a few cells that are not labels, and the first cell.
        one_sided: Findings with only positive, only negative or no labels.
        outside_files: Radiographs outside of the folder that was opened. Kept.
        files_without_row: NIH release; not read.
        duplicate_files: Further images of a radiograph, such as those of `original-1024/`. Not read.
        listed_without_row: NIH release; names in the official lists.
        boxes_without_row: NIH release, once per box; boxes dropped.
        duplicate_boxes: NIH release, once per repetition; repetitions dropped.
        boxes_without_label: NIH release, once per box; kept. The readers of the boxes were not those of the labels.
        unknown_ages: NIH release; kept, without an age.
    """

    rows: int = 0
    usable: int = 0
    columns: dict[str, str] = field(default_factory=dict)
    uncertain: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)
    missing_files: list[str] = _counted("images have no file and are dropped")
    unreadable_files: dict[str, str] = _counted("images cannot be read and are dropped", dict)
    unlisted: list[str] = _counted("images are in neither official list and are dropped")
    laterals: list[str] = _counted("lateral images are dropped")
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
    one_sided: list[str] = _counted("findings lack positive or negative labels and cannot be learned")
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
        """One sentence for each thing that was dropped or looks doubtful, with its count and the first few names."""
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
        """Count what is uncertain, contradictory, empty or missing in the labels of a radiograph."""
        self.uncertain.update(read.uncertain)
        for found, names in (
            (read.contradicts, self.contradictions),
            (read.empty_list, self.empty_lists),
            (np.isnan(read.labels).all(), self.unannotated),
        ):
            if found:
                names.append(name)


def collect_rows(rows: Iterable[tuple[Hashable, Any, LabelRow]], report: RowReport) -> dict[Any, Any]:
    """The first row of each radiograph, in the order of the source; labels and repetitions are counted.

    Args:
        rows: What identifies the radiograph, its [`ImageRow`], and what was read of its labels.
        report: Completed.
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
    """Count the radiographs that are usable, and those without a file or a mask.

    Args:
        rows: `path` and `mask_path` are None if there is no such file.
        report: Completed; its `has_masks` says whether masks are expected.
        verify: Read every image and drop those that cannot be read: their `path` becomes None.
    """
    present = []
    for row in rows:
        if row.path is None:
            report.missing_files.append(row.image_id)
            continue
        present.append(row)
        if report.has_masks and row.mask_path is None:
            report.missing_masks.append(row.image_id)
    if verify:
        with ThreadPoolExecutor() as pool:  # Pillow releases the interpreter's lock while it decodes
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


__all__ = ["RowReport", "collect_rows", "count_files"]
