# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""What a table of a report is: data first, in full precision as CSV and JSON, rounded as Markdown and HTML."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from clarity_hf.metrics.bootstrap import Interval


@dataclass(frozen=True)
class Estimate:
    """A figure with its interval; NaN where undefined."""

    value: float
    low: float
    high: float


Cell = str | int | float | Estimate | None


@dataclass(frozen=True)
class Row:
    """A row of a table: cells in the order of its columns, and what kind of row it is, for its look."""

    cells: tuple[Cell, ...]
    kind: str = ""


@dataclass(frozen=True)
class Table:
    """A table of a report.

    Attributes:
        name: Of its files and its key in `report.json`.
        title: For the reader.
        columns: Heads, unique; the first names the row.
        rows: Each with as many cells as there are columns.
        note: What the reader must know: definitions, and what was left out.
    """

    name: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    note: str = ""

    def markdown(self) -> str:
        """The table with its title and note, intervals in brackets, undefined figures as an en dash."""
        lines = [
            f"### {self.title}",
            "",
            _pipes(self.columns),
            "|".join(["", "---", *["---:"] * (len(self.columns) - 1), ""]),
        ]
        lines += [
            _pipes([" ".join(filter(None, (show(cell), show_interval(cell)))) for cell in row.cells])
            for row in self.rows
        ]
        return "\n".join([*lines, *(["", self.note] if self.note else []), ""])

    def csv(self) -> str:
        """The table with full precision, an interval as two columns of its own, undefined figures empty."""
        wide = [any(isinstance(row.cells[i], Estimate) for row in self.rows) for i in range(len(self.columns))]
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator="\n")
        heads = zip(self.columns, wide, strict=True)
        writer.writerow(
            [name for head, has in heads for name in ([head, f"{head} low", f"{head} high"] if has else [head])]
        )
        for row in self.rows:
            cells: list[Any] = []
            for cell, has in zip(row.cells, wide, strict=True):
                parts = (cell.value, cell.low, cell.high) if isinstance(cell, Estimate) else (cell, None, None)
                cells += [plain(part) for part in (parts if has else parts[:1])]
            writer.writerow(["" if cell is None else cell for cell in cells])
        return stream.getvalue()

    def json(self) -> dict[str, Any]:
        """Title, note and rows by column; NaN as None, an estimate as `value`, `low` and `high`."""
        rows = [
            {"kind": row.kind} | {head: plain(cell) for head, cell in zip(self.columns, row.cells, strict=True)}
            for row in self.rows
        ]
        return {"title": self.title, "note": self.note, "rows": rows}


def show(cell: Cell) -> str:
    """A cell as text: three decimals, thousands apart, an en dash where undefined; of an estimate its value."""
    value = cell.value if isinstance(cell, Estimate) else cell
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if isinstance(value, float):
        return f"{value:.3f}"
    return f"{value:,}" if isinstance(value, int) else value


def show_interval(cell: Cell) -> str:
    """The interval of an estimate as `(low–high)`; empty for any other cell, and where it is undefined."""
    if not isinstance(cell, Estimate) or math.isnan(cell.low):
        return ""
    dash = "–" if cell.low >= 0 else " to "
    return f"({cell.low:.3f}{dash}{cell.high:.3f})"


def _pipes(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def plain(value: Any) -> Any:
    """A value as JSON can hold it: NaN as None, numpy as Python, estimates and mappings by their parts."""
    if isinstance(value, Estimate):
        return {"value": plain(value.value), "low": plain(value.low), "high": plain(value.high)}
    if isinstance(value, Mapping):
        return {str(key): plain(part) for key, part in value.items()}
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, (list, tuple)):
        return [plain(part) for part in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, (str, int, float, bool)) else str(value)


def as_cell(value: Any) -> Cell:
    """A value as a cell: numpy numbers as Python's, what a cell cannot hold as text."""
    value = value.item() if isinstance(value, np.generic) else value
    return value if value is None or isinstance(value, (str, int, float, Estimate)) else str(value)


def estimate(value: float, interval: Interval, place: int | None = None) -> Estimate:
    """A figure with its interval, or with row `place` of an interval of arrays."""
    low, high = (interval.low, interval.high) if place is None else (interval.low[place], interval.high[place])
    return Estimate(float(value), float(low), float(high))


def estimates(values: np.ndarray, interval: Interval) -> list[Estimate]:
    """Figures `(n,)` with their intervals of `(n,)`."""
    return [estimate(value, interval, place) for place, value in enumerate(values)]
