# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Cells of CSV, TSV and parquet files as text, robust against damaged and oversized files."""

from __future__ import annotations

import csv
import itertools
import os
import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow
import pyarrow.parquet

from .label_columns import cell_text

TABLE_SUFFIXES = (".csv", ".tsv", ".parquet")
"""Files that are read as a table."""

MAX_TABLE_BYTES, MAX_TABLE_ROWS = 512_000_000, 20_000_000
"""Larger tables are refused: files before they are read, parquet as soon as its columns unpack to more. CheXpert's
has 225,000 rows in 21 MB."""

_BATCH_ROWS = 200  # of parquet: what is read before its size is known

_SEPARATOR_LINE = re.compile(r'"?sep=([,;|\t])"?\r?\n?', re.IGNORECASE)  # Excel's
_AFTER_QUOTE = re.compile(r'((?<!")"(?:"")*) +(?=[,;|\t\r\n]|$)')


class TableError(ValueError):
    """A table that is refused; the message names the file and, if known, the line."""


@dataclass(frozen=True)
class Cells:
    """A table as text.

    Attributes:
        path: Its file.
        columns: Stripped cells by the column's name.
        lines: Line on which each row ends, from 1; in parquet the number of the row.
        short_lines: Lines of the rows that lack cells, which are empty here.
    """

    path: Path
    columns: dict[str, list[str]]
    lines: list[int]
    short_lines: tuple[int, ...] = ()

    def rows(self) -> Iterator[tuple[int, str, dict[str, str]]]:
        """Line, file and line for messages, and cells by column, of each row."""
        for index, line in enumerate(self.lines):
            yield line, f"{self.path}, line {line}", {name: cells[index] for name, cells in self.columns.items()}


def read_cells(path: Path) -> Cells:
    """Read a table.

    Args:
        path: CSV (comma, semicolon or tab, UTF-8), TSV or parquet. The first row of a text file names the columns; a
            line such as `sep=;` may precede it. Parquet columns of nested values are left out.

    Raises:
        FileNotFoundError: No such file.
        TableError: The file is of another kind, damaged or too large, or has rows with too many cells.
    """
    check_regular(path)
    if path.suffix.lower() not in TABLE_SUFFIXES:
        raise TableError(f"`table` must end in {', '.join(TABLE_SUFFIXES)}, got {path}. Export it as CSV.")
    if path.stat().st_size > MAX_TABLE_BYTES:
        size = path.stat().st_size
        raise TableError(f"`table` must have at most {MAX_TABLE_BYTES} bytes, got {size} in {path}. Split it.")
    if path.suffix.lower() == ".parquet":
        try:
            return _read_parquet(path)
        except (MemoryError, TableError):
            raise
        except Exception as error:  # pyarrow's, and Python's (OverflowError of a date, UnicodeDecodeError of a name)
            raise TableError(f"`table` must be intact parquet, got {path} ({error}). Write it again.") from error
    rows = list(csv_rows(path))
    if not rows:
        raise TableError(f"`table` must have a row of column names, got the empty {path}. Write one.")
    (_, header), *body = rows
    _check_header([name for name in header if name], path)
    for line, cells in body:
        if any(cells[len(header) :]):
            raise TableError(
                f"{path}, line {line}: a row must have {len(header)} cells, got {len(cells)}. Quote cells that hold "
                "the separator."
            )
    columns = {name: [row[i] if i < len(row) else "" for _, row in body] for i, name in enumerate(header) if name}
    named = max((place for place, name in enumerate(header, start=1) if name), default=0)
    short = tuple(line for line, row in body if len(row) < named)
    return Cells(path, columns, [line for line, _ in body], short)


def check_regular(path: Path) -> None:
    """Raise FileNotFoundError if there is no such file, and TableError if it is a folder or a pipe."""
    if not os.path.exists(path):
        raise FileNotFoundError(f"No such file: {path}. Check the path.")
    if not os.path.isfile(path):
        raise TableError(f"{path} must be a regular file, not a folder, pipe or device. Pass the file itself.")


def _check_header(header: Sequence[str], path: Path) -> None:
    repeated = [name for name, count in Counter(header).items() if count > 1]
    if repeated:
        raise TableError(f"`table` must name each column once, got {repeated} twice in {path}. Rename one.")


# Text


def csv_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Line number and cells of each row that is not blank, the header first.

    Raises:
        TableError: The file is not CSV in UTF-8; the message names the line and what is wrong with it.
    """
    lines = text_lines(path)
    header = next(lines, "")
    excel = _SEPARATOR_LINE.fullmatch(header)
    header = next(lines, "") if excel else header
    separator = "\t" if path.suffix.lower() == ".tsv" else max(",;\t", key=header.count)
    # The reader refuses blanks after a closing quote; cells are stripped of them in any case.
    repaired = (_AFTER_QUOTE.sub(r"\1", line) if '" ' in line else line for line in itertools.chain([header], lines))
    # Strict: otherwise an open quote would put all rows below it into one cell.
    reader = csv.reader(repaired, delimiter=excel[1] if excel else separator, strict=True)
    try:
        for row in reader:
            if any(cell.strip() for cell in row):
                # One object per spelling of a label keeps large tables small.
                yield reader.line_num + bool(excel), [sys.intern(cell.strip()) for cell in row]
    except csv.Error as error:
        line = reader.line_num + bool(excel)
        raise TableError(
            f"{path}, line {line}: a row must be CSV, got one that is not ({error}). {_remedy(str(error), path, line)}"
        ) from error


def _remedy(error: str, path: Path, number: int) -> str:
    """What to do about an error of the csv module on a line."""
    if "field limit" in error:
        return "Shorten cells of more than 131072 characters."
    if '\\"' in next(itertools.islice(text_lines(path), number - 1, None), ""):
        return 'Write a quote inside a cell as "" instead of \\".'
    if "expected after" in error:
        return "Double the quotes inside a cell, and write nothing between its last one and the separator."
    return "Close its quotes."


def text_lines(path: Path) -> Iterator[str]:
    """Lines of a UTF-8 file, with their ends.

    Raises:
        FileNotFoundError: No such file.
        TableError: It is not a regular file or not text.
    """
    check_regular(path)
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            for number, line in enumerate(file, 1):
                if "\0" in line:
                    raise TableError(f"{path}, line {number}: a line must be text, got NUL bytes. Save it as UTF-8.")
                yield line
    except UnicodeDecodeError as error:
        raise TableError(f"{path} must be UTF-8, got other bytes ({error}). Save it as UTF-8.") from error


# Parquet


def _read_parquet(path: Path) -> Cells:
    with pyarrow.parquet.ParquetFile(path) as file:
        rows, size, read = file.metadata.num_rows, 0, 0
        if rows > MAX_TABLE_ROWS:
            raise TableError(f"`table` must have at most {MAX_TABLE_ROWS} rows, got {rows}. Split {path}.")
        names = [field.name for field in file.schema_arrow if _is_flat(field.type)]
        _check_header(names, path)
        columns: dict[str, list[str]] = {name: [] for name in names}
        # Counted while reading, because a header may claim less, and pyarrow crashes on the size in a broken one.
        for batch in file.iter_batches(_BATCH_ROWS, columns=names):
            size, read = size + batch.nbytes, read + batch.num_rows
            if size > MAX_TABLE_BYTES:
                raise TableError(f"`table` must have at most {MAX_TABLE_BYTES} bytes unpacked. Split {path}.")
            for name, cells in columns.items():
                cells.extend(cell_text(value) for value in batch[name].to_pylist())
    if names and read != rows:
        raise TableError(f"`table` must be intact parquet, got {path} ({read} rows of {rows}). Write it again.")
    return Cells(path, columns, list(range(1, rows + 1)))


def _is_flat(kind: pyarrow.DataType) -> bool:
    """Whether a column has one cell per row: a value, or a list of values such as labels."""
    types = pyarrow.types
    is_list = any(is_kind(kind) for is_kind in (types.is_list, types.is_large_list, types.is_fixed_size_list))
    return not types.is_nested(kind.value_type if is_list else kind)


__all__ = ["MAX_TABLE_BYTES", "TABLE_SUFFIXES", "Cells", "TableError", "csv_rows", "read_cells", "text_lines"]
