# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Where a table's labels are, and how a cell is read: one column per finding, or one column of names.

Labels are 1 present, 0 absent, NaN not annotated; a table may also say −1 for uncertain.
"""

from __future__ import annotations

import difflib
import json
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

from clarity_hf.labels import ALIASES, CHEXPERT_TO_NIH, FINDINGS, harmonised_finding, loose_name

from .rows import first_names

# Usual names of columns, see `loose_name`; the first that a table has is used.
IMAGE_COLUMNS = ("path", "image path", "file name", "filename", "image", "image index", "file")
PATIENT_COLUMNS = ("patient id", "patientid", "subject id", "patient", "subject")
SPLIT_COLUMNS = ("split", "partition")
MASK_COLUMNS = ("thorax mask",)
VIEW_COLUMNS = ("frontal/lateral", "view position", "viewposition", "view")
NAME_COLUMNS = ("finding labels", "labels", "findings", "label")
OTHER_COLUMNS = ("sex", "gender", "patient sex", "patient gender", "age", "patient age", "ap/pa", "follow up #")
"""Columns that are not findings, even if they hold 0 and 1."""

LATERAL_VIEWS = ("lateral", "ll", "rl", "lat")
NORMAL_NAMES = ("no finding", "no findings", "normal")
"""Names of a column, a label or a folder that stand for radiographs without any finding."""

INDEPENDENT_FINDINGS = ("support devices",)
"""Observations that `No Finding` does not exclude: CheXpert's labeller ignores devices when it sets it."""

MAX_NAMES, MAX_NAME_LENGTH = 200, 60
"""A column of more or longer names is not a column of findings."""

Uncertain = Literal["nan", "negative", "positive"]
Empty = Literal["nan", "negative"]

_VALUES = {"nan": np.nan, "negative": 0.0, "positive": 1.0}
_LABEL_VALUES = {"": None, "nan": None, "na": None, "none": None, "null": None, "true": 1, "false": 0}


@dataclass(frozen=True)
class LabelOptions:
    """What the labels of a data set are, and how its cells are read.

    Attributes:
        findings: Columns, or names that occur in the one column of names; a mapping also renames them. None for all
            that the data set has.
        uncertain: How −1 is read: `nan`, `negative` or `positive`.
        empty: How an empty cell is read: `nan` or `negative`.
    """

    findings: Sequence[str] | Mapping[str, str] | None = None
    uncertain: Uncertain = "nan"
    empty: Empty = "nan"


def find_column(header: Sequence[str], given: str | None, argument: str, usual: Sequence[str]) -> str | None:
    """The column that the user named, else the first with one of the usual names, else None.

    Raises:
        ValueError: The column that the user named does not exist; the message suggests the closest.
    """
    if given is None:
        by_name = {loose_name(name): name for name in reversed(header)}
        return next((by_name[name] for name in usual if name in by_name), None)
    if given not in header:
        raise ValueError(
            f"`{argument}` must be one of the columns {list(header)}, got '{given}'.{_hint(given, header)} Correct "
            "the name."
        )
    return given


_ROLES = {
    "image": ("image_column", IMAGE_COLUMNS),
    "patient": ("patient_column", PATIENT_COLUMNS),
    "split": ("split_column", SPLIT_COLUMNS),
    "thorax mask": ("mask_column", MASK_COLUMNS),
    "view": ("view", VIEW_COLUMNS),
}


def find_roles(header: Sequence[str], given: Mapping[str, str | None]) -> dict[str, str]:
    """Columns that are not labels: those that there are of `image`, `patient`, `split`, `thorax mask` and `view`.

    Args:
        header: Names of all columns.
        given: Columns that the user named, by role.

    Raises:
        ValueError: As for [`find_column`].
    """
    found = {role: find_column(header, given.get(role), *names) for role, names in _ROLES.items()}
    return {role: column for role, column in found.items() if column is not None}


def _hint(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f" Did you mean '{close[0]}'?" if close else ""


class LabelRow(NamedTuple):
    """Labels of one radiograph.

    Attributes:
        labels: `(F,)` float32 of 1, 0, NaN.
        uncertain: Findings that are uncertain (−1); `labels` has what the reader turns them into.
        contradicts: Whether the row has both `No Finding` and a finding.
        empty_list: Whether its labels are an empty list: none of the findings is present.
    """

    labels: np.ndarray
    uncertain: tuple[str, ...] = ()
    contradicts: bool = False
    empty_list: bool = False


class ColumnLabels:
    """Reads one column per finding.

    Args:
        columns: The findings' names by column.
        normal_column: Column of `No Finding`, if there is one: if it is 1, empty cells are 0.
        uncertain: As for [`LabelOptions`].
        empty: As for [`LabelOptions`].
    """

    def __init__(self, columns: Mapping[str, str], normal_column: str | None, uncertain: Uncertain, empty: Empty):
        self.columns, self.normal_column = dict(columns), normal_column
        self.names, self.described = tuple(columns.values()), ", ".join(columns)
        self.uncertain_value, self.empty_value = _VALUES[uncertain], _VALUES[empty]
        self.independent = {name for name in self.names if loose_name(name) in INDEPENDENT_FINDINGS}

    def read(self, cells: Mapping[str, str], where: str) -> LabelRow:
        """Read one row.

        Args:
            cells: Text by column.
            where: File and line, for errors.

        Raises:
            ValueError: A cell is not a label.
        """
        normal = self.normal_column is not None and read_label(cells[self.normal_column], where, "No Finding") == 1
        labels = np.empty(len(self.names), dtype=np.float32)
        uncertain, contradicts = [], False
        for index, (column, name) in enumerate(self.columns.items()):
            value = read_label(cells[column], where, column)
            excluded = normal and name not in self.independent
            if value is None:
                labels[index] = 0.0 if excluded else self.empty_value
            elif value == -1:
                labels[index] = self.uncertain_value
                uncertain.append(name)
            else:
                labels[index] = value
            contradicts |= excluded and value == 1
        return LabelRow(labels, tuple(uncertain), contradicts)


class NameLabels:
    """Reads one column of names joined by `|`, as in the table of the NIH release, or of lists printed as text.

    Args:
        column: The column.
        vocabulary: The finding by each name that may be written, in any spelling of that name.
    """

    def __init__(self, column: str, vocabulary: Mapping[str, str]):
        self.column, self.described, self.vocabulary = column, column, dict(vocabulary)
        self.names = tuple(dict.fromkeys(vocabulary.values()))
        self.places = {harmonised_finding(name): self.names.index(finding) for name, finding in vocabulary.items()}

    def read(self, cells: Mapping[str, str], where: str) -> LabelRow:
        """Read one row, as [`ColumnLabels`]; an empty cell means not annotated, an empty list without findings.

        Raises:
            ValueError: A name is not in the vocabulary; the message names the line and suggests the closest.
        """
        read = read_names(cells[self.column])
        written = read or []
        present = [name for name in written if loose_name(name) not in NORMAL_NAMES]
        labels = np.full(len(self.names), np.nan if read is None else 0.0, dtype=np.float32)
        for name in present:
            place = self.places.get(harmonised_finding(name))
            if place is None:
                known = list(self.vocabulary)
                raise ValueError(
                    f"{where}: '{self.column}' must hold names of {known}, got '{name}'.{_hint(name, known)} Correct "
                    "the name or add the finding."
                )
            labels[place] = 1.0
        return LabelRow(labels, contradicts=0 < len(present) < len(written), empty_list=read == [])


LabelReader = ColumnLabels | NameLabels


def read_names(written: str) -> list[str] | None:
    """The names in a cell: `Effusion|Mass`, or a list as Python, pandas, numpy or JSON print it.

    Args:
        written: Text of the cell, without blanks around it.

    Returns:
        The names; an empty list for an empty list, None for an empty cell or one that says so (`nan`, `None`).

    >>> read_names("Effusion|Mass"), read_names("['Effusion' 'Mass']"), read_names("[]"), read_names("")
    (['Effusion', 'Mass'], ['Effusion', 'Mass'], [], None)
    """
    if written.casefold() in _NULL:
        return None
    bare = _ARRAY.sub(r"\1", written)
    inside = _LIST.fullmatch(bare)
    if inside is None:
        return [name.strip() for name in written.split("|") if name.strip()]
    items = inside[1]
    quoted = _QUOTED.findall(items)
    if not items.strip():
        return []
    if (quoted and _QUOTED.sub("", items).strip(", \t\r\n")) or (not quoted and bare[0] != "["):
        return [written]  # not a known form of list
    names = [one or other for one, other in quoted] if quoted else items.split(",")
    return [name.strip() for name in names if name.strip().casefold() not in _NULL] or None


_NULL = {"", "nan", "na", "n/a", "<na>", "none", "null"}
_ARRAY = re.compile(r"array\((.*?)(?:,\s*dtype=[^()]*)?\)", re.DOTALL)
_LIST = re.compile(r"[\[({](.*)[\])}]", re.DOTALL)
_QUOTED = re.compile(r"'((?:[^'\\]|\\.)*)'|\"((?:[^\"\\]|\\.)*)\"")


def cell_text(value: Any) -> str:
    """A typed value as text: nothing for None and NaN, integers without a decimal point."""
    if isinstance(value, list):
        return json.dumps([cell_text(item) for item in value], ensure_ascii=False) if value != [None] else ""
    if value is None or value != value:
        return ""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value).strip()


def read_label(written: str, where: str, column: str) -> int | None:
    """Read one label: 1, 0, −1 for uncertain, None for an empty cell.

    Raises:
        ValueError: The cell holds anything else.
    """
    label = _label(written)
    if label is not _NO_LABEL:
        return label
    raise ValueError(f"{where}: '{column}' must be 1, 0, −1 or empty, got '{written}'. Correct the cell.")


_NO_LABEL: Any = object()

# As spreadsheets of many countries write decimals; "1,000" may be a thousand.
_DECIMAL_COMMA = re.compile(r"^(-?[0-9]),([0-9]{1,2})$")


def _label(written: str) -> Any:
    if written.lower() in _LABEL_VALUES:
        return _LABEL_VALUES[written.lower()]
    try:
        value = float(_DECIMAL_COMMA.sub(r"\1.\2", written))
    except ValueError:
        return _NO_LABEL
    return int(value) if value in (1.0, 0.0, -1.0) else _NO_LABEL


def choose_labels(columns: Mapping[str, Sequence[str]], options: LabelOptions) -> LabelReader:
    """Decide which columns of a table are its labels.

    Args:
        columns: Cells as text, by column.
        options: What the user chose.

    Returns:
        A reader of rows; its `names` are the findings.

    Raises:
        TypeError: `findings` is a string.
        ValueError: There are no labels, `findings` names columns that do not exist, or an option is unknown.
    """
    _check_choice("uncertain", options.uncertain, ("nan", "negative", "positive"))
    _check_choice("empty", options.empty, ("nan", "negative"))
    normal_column = find_column(list(columns), None, "labels", NORMAL_NAMES)
    name_column = find_column(list(columns), None, "labels", NAME_COLUMNS)
    if name_column is not None and not _is_names(columns[name_column]):
        if options.findings is None:
            _refuse_joined(columns[name_column])
        name_column = None  # a report, or a column of 0 and 1 that is called `label`
    if options.findings is not None:
        chosen = named_findings(options.findings)
        absent = [name for name in chosen if name not in columns]
        if absent and name_column is None:
            raise ValueError(
                f"`findings` must name columns of the table, {list(columns)}, got '{absent[0]}'."
                f"{_hint(absent[0], columns)} Correct the name."
            )
        name_column = name_column if absent else None
    else:
        names = _label_columns(columns) if name_column is None else ordered_names(columns[name_column])
        chosen = named_findings(names)
    reader: LabelReader
    if name_column is None:
        reader = ColumnLabels(chosen, normal_column, options.uncertain, options.empty)
    else:
        reader = NameLabels(name_column, chosen)
    if not reader.names:
        raise ValueError(
            f"`findings` must be given if no column holds labels (1, 0, −1 or empty), got the columns "
            f"{list(columns)}. Name those of the findings."
        )
    repeated = [name for name, count in Counter(reader.names).items() if count > 1]
    if repeated:
        raise ValueError(
            f"`findings` must give each column a finding of its own, got {repeated} twice. Leave one out, or rename "
            "it with a mapping {column: name}."
        )
    return reader


def _check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise ValueError(f"`{name}` must be one of {list(choices)}, got '{value}'. Choose one of them.")


def named_findings(findings: Iterable[str] | Mapping[str, str]) -> dict[str, str]:
    """The finding by the name that is written: its NIH spelling if it has one; a mapping is used as it is.

    Raises:
        TypeError: `findings` is a string.
    """
    if isinstance(findings, str):
        raise TypeError(f"`findings` must be a list or a mapping, got the string '{findings}'. Pass ['{findings}'].")
    if isinstance(findings, Mapping):
        return dict(findings)
    return {name: harmonised_finding(name) for name in findings}


def ordered_names(cells: Iterable[str]) -> list[str]:
    """One spelling of each finding that occurs: those of NIH in the order of the release, then the others.

    Raises:
        ValueError: A name is a number, or is made of others, as when labels are joined by anything but `|`.
    """
    places = {name: place for place, name in enumerate(FINDINGS)}
    written = {name for cell in set(cells) for name in read_names(cell) or ()}
    _check_vocabulary(written)
    spellings = {harmonised_finding(name): name for name in sorted(written) if loose_name(name) not in NORMAL_NAMES}
    return [spellings[name] for name in sorted(spellings, key=lambda name: (places.get(name, len(places)), name))]


_JOINTS = re.compile(r"[;,/+&:\t\r\n\\•·]|\s-\s|\b(?:and|und|et|y)\b", re.IGNORECASE)
_KNOWN = {loose_name(name) for name in (*FINDINGS, *ALIASES, *CHEXPERT_TO_NIH, *NORMAL_NAMES)}


def _parts(name: str) -> list[str]:
    """The parts of a name that may be joined from others, as [`loose_name`] writes them."""
    return [loose_name(part) for part in _JOINTS.split(name) if part.strip()]


def _is_chain(name: str, known: Collection[str]) -> bool:
    """Whether a name is several known names with blanks, hyphens or underscores between them."""
    words = loose_name(name).split()
    ends = {0}  # numbers of words that a chain of known names can cover
    for stop in range(1, len(words) + 1):
        if any(" ".join(words[start:stop]) in known for start in ends):
            ends.add(stop)
    return len(words) > 1 and len(words) in ends


def _check_vocabulary(written: Collection[str]) -> None:
    """Refuse names that contain others: an unknown separator would turn true labels into findings of their own."""
    numbers = sorted(name for name in written if _label(name) is not _NO_LABEL or name.replace(".", "").isdecimal())
    if numbers:
        raise ValueError(
            f"`findings` must have names, got the numbers {first_names(numbers)} in a column of names. Write names, "
            "or one column per finding."
        )
    shared = Counter(part for name in written for part in set(_parts(name)))
    joined = []
    for name in sorted(written):
        others = (_KNOWN | {loose_name(other) for other in written}) - {loose_name(name)}
        in_parts = _JOINTS.search(name) and any(part in others or shared[part] > 1 for part in _parts(name))
        if in_parts or _is_chain(name, others) or name[0] in "[{":
            joined.append(name)
    if joined:
        raise ValueError(
            f"`findings` must have names that contain no others, got {first_names(joined, 2)[: 3 * MAX_NAME_LENGTH]} "
            f"({len(joined)} in all). Join the names of a cell by '|', or write it as a list; if each is one "
            "finding, pass all names as `findings`."
        )


def _refuse_joined(cells: Sequence[str]) -> None:
    """Refuse a column of names joined in an unknown way; a column of reports is known by its few known names."""
    written = {cell for cell in cells if cell}
    joined = [cell for cell in written if _JOINTS.search(cell) and set(_parts(cell)) <= _KNOWN]
    if joined and 2 * len(joined) >= len(written):
        _check_vocabulary(joined)


def _label_columns(columns: Mapping[str, Sequence[str]]) -> list[str]:
    return [name for name, cells in columns.items() if loose_name(name) not in _NO_FINDINGS and _is_labels(cells)]


def broken_label_columns(columns: Mapping[str, Sequence[str]]) -> dict[str, tuple[int, str]]:
    """Columns that are not findings only because of a few cells: `maybe`, or a 2 among the 0 and 1.

    In them nine of ten cells that are not empty are labels, or their name is that of one of the 14 findings.

    Args:
        columns: Cells as text, by column.

    Returns:
        By column the index of the first such cell, from 0, and its text.
    """
    broken = {}
    for name, cells in columns.items():
        known = harmonised_finding(name) in FINDINGS
        if loose_name(name) in _NO_FINDINGS or _is_labels(cells):
            continue
        others = [place for place, cell in enumerate(cells) if _label(cell) is _NO_LABEL]
        written = sum(1 for cell in cells if _label(cell) is not None)
        if others and (known or len(others) <= 0.1 * written):
            broken[name] = (others[0], cells[others[0]])
    return broken


_NO_FINDINGS = {*IMAGE_COLUMNS, *PATIENT_COLUMNS, *SPLIT_COLUMNS, *MASK_COLUMNS, *VIEW_COLUMNS, *NORMAL_NAMES} | set(
    OTHER_COLUMNS
)


def _is_labels(cells: Sequence[str]) -> bool:
    """Whether a column holds only 1, 0, −1 and empty cells, and not only empty ones."""
    values = [_label(cell) for cell in set(cells)]
    return _NO_LABEL not in values and any(value is not None for value in values)


def _is_names(cells: Sequence[str]) -> bool:
    """Whether a column holds names of findings rather than numbers or the text of reports."""
    names = {name for cell in set(cells) for name in read_names(cell) or ()}
    return not _is_labels(cells) and len(names) <= MAX_NAMES and all(len(name) <= MAX_NAME_LENGTH for name in names)
