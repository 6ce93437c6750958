# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""The report of an evaluation as data: the content of `report.json`.

Tables, rows and columns are found by key. A cell is a number in full precision, an estimate with its interval, or a
name; text such as "0.706 (0.661–0.753)" is made only where a report is rendered.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from clarity_hf.metrics.bootstrap import Interval

SCHEMA = 3
"""Version of `report.json`; other versions are refused."""


@dataclass(frozen=True)
class Estimate:
    """A figure with its interval; NaN where undefined."""

    value: float
    low: float
    high: float


Cell = str | int | float | Estimate | None


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        key: Its key in `report.json`, unique in its table.
        title: Its heading.
        unit: What its numbers count, such as `"images"`, or `"share"` of 1; empty without a unit.
    """

    key: str
    title: str
    unit: str = ""


@dataclass(frozen=True)
class Row:
    """A row of a table.

    Attributes:
        key: Unique in its table.
        cells: In the order of the columns.
        kind: How the row looks: any of `method`, `fixed`, `rare`, `summary`, `published`, `first` (a line above it).
    """

    key: str
    cells: tuple[Cell, ...]
    kind: str = ""


@dataclass(frozen=True)
class Table:
    """A table of a report.

    Attributes:
        key: Its key in `report.json` and the name of its files.
        title: Its heading.
        columns: The first names the row.
        rows: Each with one cell per column.
        note: Definitions, and what was left out.
        gaps: Why some means have no interval; empty where all have one.
    """

    key: str
    title: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    note: str = ""
    gaps: str = ""

    def __getitem__(self, row: str) -> dict[str, Cell]:
        """The cells of a row by the keys of the columns.

        Raises:
            ValueError: There is no such row.
        """
        for found in self.rows:
            if found.key == row:
                return self.cells(found)
        raise ValueError(
            f"The table `{self.key}` must have the row '{row}', got {[found.key for found in self.rows]}. Evaluate "
            "again with this version."
        )

    def cells(self, row: Row) -> dict[str, Cell]:
        """The cells of a row by the keys of the columns."""
        return dict(zip((column.key for column in self.columns), row.cells, strict=True))

    def select(self, *columns: str) -> Table:
        """The same table with some of its columns, in the given order."""
        places = [[column.key for column in self.columns].index(key) for key in columns]
        rows = (replace(row, cells=tuple(row.cells[place] for place in places)) for row in self.rows)
        return replace(self, columns=tuple(self.columns[place] for place in places), rows=tuple(rows))

    def to_json(self) -> dict[str, Any]:
        """The table as JSON values; the cells of a row by the keys of the columns."""
        rows = [{"key": row.key, "kind": row.kind, "cells": self.cells(row)} for row in self.rows]
        columns = [asdict(column) for column in self.columns]
        return plain({"title": self.title, "columns": columns, "rows": rows, "note": self.note, "gaps": self.gaps})

    @classmethod
    def from_json(cls, key: str, content: Mapping[str, Any]) -> Table:
        """The table that [`to_json`] gave; undefined numbers are None, and NaN inside an estimate."""
        columns = tuple(Column(**column) for column in content["columns"])
        rows = tuple(
            Row(row["key"], tuple(_cell(row["cells"][column.key]) for column in columns), row["kind"])
            for row in content["rows"]
        )
        return cls(key, content["title"], columns, rows, content["note"], content["gaps"])


@dataclass(frozen=True)
class CaseEntry:
    """An image that the report shows, for one finding.

    Attributes:
        kind: A key of `CASE_TITLES`.
        number: Its place among those of its kind, from 1.
        record: Its line in the file of records, from 1.
        image: Its name; None if the name contains the patient's id.
        finding: Name of the finding.
        score: In [0, 1].
        threshold: Score from which the finding is present.
        iou: Mean overlap of its annotated boxes with the best predicted ones; None without annotated boxes.
    """

    kind: str
    number: int
    record: int
    image: str | None
    finding: str
    score: float
    threshold: float
    iou: float | None

    @property
    def picture(self) -> str:
        """Name of its file in `cases/`."""
        return f"{self.kind}-{self.number}.jpg"


CASE_TITLES = {
    "best": "Best localized",
    "worst": "Worst localized",
    "missed": "Missed: present, and furthest below the threshold",
    "false": "False boxes: images without findings, and furthest above the threshold",
}
"""Kinds of shown images and their headings."""


@dataclass(frozen=True)
class Bootstrap:
    """How intervals were computed: from `repeats` samples of patients."""

    repeats: int
    seed: int
    level: float = 0.95
    by: str = "patient"


@dataclass(frozen=True)
class Report:
    """The evaluation of one method on one set of images.

    Attributes:
        about: What was evaluated: `model`, `data`, and usually `split`, `command`, `weights_hash`, `map_thresholds`.
        caveats: Text by key: `research`, `reconstruction`, and `synthetic`, `split` or `caveat_1` if they apply.
        findings: The F names.
        images: Number of images.
        patients: Number of patients.
        score_thresholds: In [0, 1], by finding.
        min_positives: Findings with fewer positives are not in means.
        tuning_split: Name of the list of patients on whom map thresholds were tuned; None for random halves.
        bootstrap: How all intervals were computed.
        records_sha256: Hash of the records; empty if it was not computed.
        versions: Versions of packages by name.
        tables: Tables by key.
        cases: Example images.
        folder: Where it was read from; not in `report.json`.
    """

    about: dict[str, Any]
    caveats: dict[str, str]
    findings: tuple[str, ...]
    images: int
    patients: int
    score_thresholds: dict[str, float]
    min_positives: int
    tuning_split: str | None
    bootstrap: Bootstrap
    records_sha256: str
    versions: dict[str, str]
    tables: dict[str, Table]
    cases: tuple[CaseEntry, ...] = ()
    folder: Path = Path()

    @property
    def name(self) -> str:
        """Data and split, as the name of a folder: `phantom-test`."""
        parts = (str(self.about["data"]), str(self.about.get("split") or "all"))
        return "-".join(re.sub(r"[^0-9A-Za-z._]+", "-", part).strip(".-") for part in parts)

    @property
    def synthetic(self) -> bool:
        """Whether the images are phantoms; a report that does not say so is treated as one on patients."""
        return self.about.get("synthetic") is True

    def cases_by_kind(self) -> Iterator[tuple[str, str, list[CaseEntry]]]:
        """Kind, heading and images of each kind that has any."""
        for kind, title in CASE_TITLES.items():
            shown = [case for case in self.cases if case.kind == kind]
            if shown:
                yield kind, title, shown

    def to_json(self) -> str:
        """The content of `report.json`: strict JSON, undefined numbers as null."""
        content = {part.name: getattr(self, part.name) for part in fields(self) if part.name != "folder"} | {
            "bootstrap": asdict(self.bootstrap),
            "tables": {key: table.to_json() for key, table in self.tables.items()},
            "cases": [asdict(case) for case in self.cases],
        }
        return json.dumps(plain({"schema": SCHEMA} | content), indent=1, ensure_ascii=False, allow_nan=False) + "\n"

    @classmethod
    def read(cls, folder: str | Path) -> Report:
        """Read `report.json` of a folder.

        Raises:
            FileNotFoundError: The folder has none.
            ValueError: It is of another version.
        """
        path = Path(folder) / "report.json"
        if not path.is_file():
            raise FileNotFoundError(f"No report.json in '{folder}'. Write one with `clarity-hf evaluate`.")
        content = json.loads(path.read_text(encoding="utf-8"))
        if content.pop("schema", None) != SCHEMA:
            raise ValueError(
                f"'{path.parent.name}/report.json' is not of schema {SCHEMA}, which this version reads. Run the same "
                "`clarity-hf evaluate` again: it uses the records beside the folder and reads no image twice."
            )
        return cls(
            **content
            | {
                "findings": tuple(content["findings"]),
                "bootstrap": Bootstrap(**content["bootstrap"]),
                "tables": {key: Table.from_json(key, table) for key, table in content["tables"].items()},
                "cases": tuple(CaseEntry(**case) for case in content["cases"]),
                "folder": Path(folder),
            }
        )


def plain(value: Any) -> Any:
    """A value as JSON allows it: NaN as None, numpy as Python, estimates and mappings by their parts."""
    if isinstance(value, Estimate):
        value = asdict(value)
    elif isinstance(value, (np.ndarray, np.generic)):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(key): plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(part) for part in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, (str, int, float)) else str(value)


def defined(cell: Cell) -> bool:
    """Whether a cell holds a name or a number other than NaN."""
    value = cell.value if isinstance(cell, Estimate) else cell
    return value is not None and not (isinstance(value, float) and math.isnan(value))


def estimate(value: float, interval: Interval, place: int | None = None) -> Estimate:
    """A figure with its interval, or with row `place` of an interval of arrays."""
    low, high = (interval.low, interval.high) if place is None else (interval.low[place], interval.high[place])
    return Estimate(float(value), float(low), float(high))


def estimates(values: np.ndarray, interval: Interval) -> list[Estimate]:
    """Figures `(n,)` with their intervals of `(n,)`."""
    return [estimate(value, interval, place) for place, value in enumerate(values)]


def _cell(value: Any) -> Cell:
    if not isinstance(value, Mapping):
        return value
    return Estimate(*(math.nan if value[key] is None else float(value[key]) for key in ("value", "low", "high")))
