# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Reports as text: cells, tables as Markdown and CSV, and the templates of the page and the cards."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import jinja2

from .schema import CaseEntry, Cell, Estimate, Table, defined, plain

TEMPLATES = Path(__file__).parent

_MARKS = {"rare": "*", "summary": "**"}
"""Marks in Markdown around the name of a row of a kind."""


def render(template: str, **values: Any) -> str:
    """Fill a template file of this folder with the values it names; those of an `.html` template are escaped."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=jinja2.select_autoescape(["html"], default=False),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "value": show,
        "interval": show_interval,
        "cell": show_cell,
        "markdown": markdown,
        "rows": markdown_rows,
        "picture_row": picture_row,
        "case_row": case_row,
    }
    return environment.get_template(template).render(values)


@lru_cache(maxsize=1)
def _notes() -> dict[str, str]:
    """Texts of `table_notes.md` by the key of the table."""
    parts = re.split(r"^## (\w+)\n", (TEMPLATES / "table_notes.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {key: text.strip().replace("\n", " ") for key, text in zip(parts[1::2], parts[2::2], strict=True)}


def table_note(table: str, **values: Any) -> str:
    """The note below a table, with its fields filled."""
    return _notes()[table].format(**values)


def show(cell: Cell) -> str:
    """A cell as text: three decimals, thousands separated, an en dash where undefined; of an estimate its value."""
    if not defined(cell):
        return "–"
    value = cell.value if isinstance(cell, Estimate) else cell
    return f"{value:.3f}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)


def show_interval(cell: Cell) -> str:
    """The interval of an estimate as `(low–high)`; empty for other cells, and where it is undefined."""
    if not isinstance(cell, Estimate) or not defined(cell.low):
        return ""
    dash = "–" if cell.low >= 0 else " to "
    return f"({cell.low:.3f}{dash}{cell.high:.3f})"


def show_cell(cell: Cell) -> str:
    """A cell with its interval, if it has one."""
    return " ".join(filter(None, (show(cell), show_interval(cell))))


def markdown_rows(table: Table) -> str:
    """The columns and rows of a table in Markdown."""
    head = _pipes(column.title for column in table.columns)
    rule = "|".join(["", "---", *["---:"] * (len(table.columns) - 1), ""])
    lines = []
    for row in table.rows:
        mark = next((mark for kind, mark in _MARKS.items() if kind in row.kind.split()), "")
        first, *others = map(show_cell, row.cells)
        lines.append(_pipes([f"{mark}{first}{mark}", *others]))
    return "\n".join([head, rule, *lines, ""])


def markdown(table: Table, note: str | None = None) -> str:
    """A table in Markdown with its title and note, or another note."""
    text = (table.note if note is None else note) + table.gaps
    return f"### {table.title}\n\n{markdown_rows(table)}" + (f"\n{text.strip()}\n" if text else "")


def csv_of(table: Table) -> str:
    """A table as CSV in full precision: an interval as two more columns, undefined figures empty."""
    wide = [any(isinstance(row.cells[i], Estimate) for row in table.rows) for i in range(len(table.columns))]
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    heads = (
        (column.key, f"{column.key}_low", f"{column.key}_high")[: 3 if has else 1]
        for column, has in zip(table.columns, wide, strict=True)
    )
    writer.writerow(["row", *(name for names in heads for name in names)])
    for row in table.rows:
        cells: list[Any] = [row.key]
        for cell, has in zip(row.cells, wide, strict=True):
            parts = (cell.value, cell.low, cell.high) if isinstance(cell, Estimate) else (cell, None, None)
            cells += parts[: 3 if has else 1]
        writer.writerow(["" if cell is None else cell for cell in plain(cells)])
    return stream.getvalue()


def case_caption(case: CaseEntry) -> str:
    """Caption of an example image: finding, score and threshold, and overlap if boxes are annotated."""
    overlap = "" if case.iou is None else f", IoU {show(case.iou)}"
    finding = case.finding.replace("_", " ")
    return f"{finding}: score {show(case.score)} at threshold {show(case.threshold)}{overlap}"


def picture_row(pictures: Mapping[str, str]) -> str:
    """Pictures side by side with their captions below, as a Markdown table; `pictures` from Markdown to caption."""
    return "\n".join([_line(pictures), "|" + "---|" * len(pictures), _line(pictures.values()), ""])


def case_row(cases: Sequence[CaseEntry], report: str) -> str:
    """Pictures of a committed report, a name of a folder, side by side with their captions."""
    return picture_row({f"![{case.finding}]({report}/cases/{case.picture})": case_caption(case) for case in cases})


def _pipes(cells: Iterable[str]) -> str:
    return _line(cell.replace("|", "\\|") for cell in cells)


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
