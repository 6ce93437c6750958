# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Which columns of a table are labels, and how a cell is read: one column per finding, or one column of names.

Labels are 1 present, 0 absent, NaN not annotated; a table may also contain −1 for uncertain.
"""

from __future__ import annotations

import difflib
import json
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from clarity_hf.labels import ALIASES, CHEXPERT_TO_NIH, FINDINGS, harmonised_finding, loose_name

from .rows import first_names

# Usual names of columns, see `loose_name`; the first that a table has is used.
IMAGE_COLUMNS = ("path", "image path", "file name", "filename", "image", "image index", "file")
PATIENT_COLUMNS = ("patient id", "patientid", "subject id", "patient", "subject")
SPLIT_COLUMNS = ("split", "partition")
MASK_COLUMNS = ("thorax mask",)
VIEW_COLUMNS = (
    *("frontal/lateral", "view position", "viewposition", "view", "projection"),
    "viewcodesequence codemeaning",
)
NAME_COLUMNS = ("finding labels", "labels", "findings", "label")
OTHER_COLUMNS = ("sex", "gender", "patient sex", "patient gender", "age", "patient age", "ap/pa", "follow up #")
"""Columns that are not findings, even if they hold 0 and 1."""

NORMAL_NAMES = ("no finding", "no findings", "normal")
"""Names of a column, a label or a folder for radiographs without any finding."""

INDEPENDENT_FINDINGS = ("support devices",)
"""Observations that `No Finding` does not exclude: CheXpert's labeller ignores devices."""

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
        findings: Columns, or names that occur in the one column of names; a mapping also renames them. By default all
            that the data set has.
        uncertain: How −1 is read: `nan`, `negative` or `positive`.
        empty: How an empty cell is read: `nan` or `negative`.
    """

    findings: Sequence[str] | Mapping[str, str] | None = None
    uncertain: Uncertain = "nan"
    empty: Empty = "nan"


def find_column(header: Sequence[str], given: str | None, argument: str, usual: Sequence[str]) -> str | None:
    """The column that the user named, else the first with a usual name, else None.

    Raises ValueError, which suggests the closest name, if the column that the user named does not exist.
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
    """Columns by role: those of `image`, `patient`, `split`, `thorax mask` and `view` that a header has.

    `given` are columns that the user named, by role; errors are those of [`find_column`].
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
        uncertain: Findings that are uncertain (−1); `labels` has what they are read as.
        contradicts: Whether the row has both `No Finding` and a finding.
        empty_list: Whether its labels are an empty list: no finding is present.
    """

    labels: np.ndarray
    uncertain: tuple[str, ...] = ()
    contradicts: bool = False
    empty_list: bool = False


class ColumnLabels:
    """Reads one column per finding.

    Args:
        columns: The findings' names by column.
        normal_column: Column of `No Finding`, or None; if it is 1, empty cells are 0.
        uncertain, empty: As for [`LabelOptions`].
    """

    def __init__(self, columns: Mapping[str, str], normal_column: str | None, uncertain: Uncertain, empty: Empty):
        self.columns, self.normal_column = dict(columns), normal_column
        self.names, self.described = tuple(columns.values()), ", ".join(columns)
        self.uncertain_value, self.empty_value = _VALUES[uncertain], _VALUES[empty]
        self.independent = {name for name in self.names if loose_name(name) in INDEPENDENT_FINDINGS}

    def read(self, cells: Mapping[str, str], where: str) -> LabelRow:
        """Read one row of cells by column; raises ValueError, with the line `where`, unless all are labels."""
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
    """Reads one column of names joined by `|`, as in the NIH release, or of lists printed as text.

    `vocabulary` has the finding by each name that may occur, in any spelling of that name.
    """

    def __init__(self, column: str, vocabulary: Mapping[str, str]):
        self.column, self.described, self.vocabulary = column, column, dict(vocabulary)
        self.names = tuple(dict.fromkeys(vocabulary.values()))
        self.places = {harmonised_finding(name): self.names.index(finding) for name, finding in vocabulary.items()}

    def read(self, cells: Mapping[str, str], where: str) -> LabelRow:
        """Read one row, as [`ColumnLabels`]: an empty cell is not annotated, an empty list has no findings.

        Raises ValueError, which suggests the closest name, if a name is not in the vocabulary.
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

    None for an empty cell or one such as `nan` or `None`; an empty list for an empty list.

    >>> read_names("Effusion|Mass"), read_names("['Effusion' 'Mass']"), read_names("[]"), read_names("")
    (['Effusion', 'Mass'], ['Effusion', 'Mass'], [], None)
    """
    if is_empty(written):
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
    return [name.strip() for name in names if not is_empty(name)] or None


def is_empty(written: str) -> bool:
    """Whether a cell is empty, or holds what programs write for an empty one, such as `nan`."""
    return written.strip().casefold() in _NULL


_NULL = {"", "nan", "na", "n/a", "<na>", "none", "null"}
_ARRAY = re.compile(r"array\((.*?)(?:,\s*dtype=[^()]*)?\)", re.DOTALL)
_LIST = re.compile(r"[\[({](.*)[\])}]", re.DOTALL)
_QUOTED = re.compile(r"'((?:[^'\\]|\\.)*)'|\"((?:[^\"\\]|\\.)*)\"")


def cell_text(value: Any) -> str:
    """A typed value as text: empty for None and NaN, integers without a decimal point."""
    if isinstance(value, list):
        return json.dumps([cell_text(item) for item in value], ensure_ascii=False) if value != [None] else ""
    if value is None or value != value:
        return ""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value).strip()


def read_label(written: str, where: str, column: str) -> int | None:
    """Read one label: 1, 0, −1 for uncertain, None for an empty cell; raises ValueError for anything else."""
    label = _label(written)
    if label is _NO_LABEL:
        raise ValueError(f"{where}: '{column}' must be 1, 0, −1 or empty, got '{written}'. Correct the cell.")
    return label


_NO_LABEL: Any = object()

# Decimals of spreadsheets in many countries; "1,000" may be a thousand.
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
    """A reader of a table's labels, given its cells as text by column and what the user chose.

    Raises:
        TypeError: `findings` is a string.
        ValueError: There are no labels, `findings` names columns that do not exist, or an option is unknown.
    """
    for option, choices in (("uncertain", get_args(Uncertain)), ("empty", get_args(Empty))):
        if (value := getattr(options, option)) not in choices:
            raise ValueError(f"`{option}` must be one of {list(choices)}, got '{value}'. Choose one of them.")
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
        names = _label_columns(columns)
        if name_column is not None:
            written = ordered_names(columns[name_column])
            if prefers_columns(name_column, written, names):
                name_column = None
            else:
                names = written
        chosen = named_findings(names)
    reader: LabelReader = (
        NameLabels(name_column, chosen)
        if name_column is not None
        else ColumnLabels(chosen, normal_column, options.uncertain, options.empty)
    )
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


def prefers_columns(column: str, names: Iterable[str], others: Iterable[str]) -> bool:
    """Whether labels are in columns named like the 14 findings rather than in a column whose names are none of them.

    Args:
        column: The column of names, such as `label` with `normal` and `abnormal`.
        names: What it holds.
        others: The columns that hold labels.

    Raises:
        ValueError: Both name some of the 14 findings.
    """
    known = [name for name in others if harmonised_finding(name) in FINDINGS]
    if known and any(harmonised_finding(name) in FINDINGS for name in names):
        raise ValueError(
            f"`findings` must be given if a table has labels in two forms, got names in the column '{column}' and the "
            f"columns {first_names(known)}. Name the columns to use them, or remove one of the forms."
        )
    return bool(known)


def named_findings(findings: Iterable[str] | Mapping[str, str]) -> dict[str, str]:
    """The finding by the name that is written: its NIH spelling if it has one; a mapping is used as it is.

    Raises TypeError for a string.
    """
    if isinstance(findings, str):
        raise TypeError(f"`findings` must be a list or a mapping, got the string '{findings}'. Pass ['{findings}'].")
    if isinstance(findings, Mapping):
        return dict(findings)
    return {name: harmonised_finding(name) for name in findings}


def ordered_names(cells: Iterable[str]) -> list[str]:
    """One spelling of each finding that occurs: those of NIH in the order of the release, then the others.

    Raises ValueError if a name is a number, or consists of others, as if labels were joined by something other than
    `|`.
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
    ends = {0}  # numbers of words that known names can cover
    for stop in range(1, len(words) + 1):
        if any(" ".join(words[start:stop]) in known for start in ends):
            ends.add(stop)
    return len(words) > 1 and len(words) in ends


def _check_vocabulary(written: Collection[str]) -> None:
    """Refuse names that contain others: an unknown separator would turn lists of labels into findings."""
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
    """Refuse a column of names joined in an unknown way, but not a column of reports, which has few known names."""
    written = {cell for cell in cells if cell}
    joined = [cell for cell in written if _JOINTS.search(cell) and set(_parts(cell)) <= _KNOWN]
    if joined and 2 * len(joined) >= len(written):
        _check_vocabulary(joined)


def _label_columns(columns: Mapping[str, Sequence[str]]) -> list[str]:
    return [name for name, cells in columns.items() if loose_name(name) not in _NO_FINDINGS and _is_labels(cells)]


def broken_label_columns(columns: Mapping[str, Sequence[str]]) -> dict[str, tuple[int, str]]:
    """Columns that are not findings because of a few cells, such as `maybe`: by name, the first such cell's index and
    text.

    Nine of ten of their cells that are not empty are labels, or their name is that of one of the 14 findings.
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
