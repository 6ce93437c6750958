# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Your own labels in the forms that `datasets` opens: repositories of the Hub, folders of parquet, folders of images.

Columns are recognized by their names and types, never by the repository's name. The mirrors of NIH ChestX-ray14 need
no options:

| repository | labels | patients | splits |
|---|---|---|---|
| alkzar90/NIH-Chest-X-ray-dataset | `labels`, numbers: 0 No Finding, 1 to 14 | in the file names | official |
| BahaaEldin0/NIH-Chest-Xray-14 | `label`, names | `Patient ID` | not the official ones |
| chehablab/NIHChestXR | `labels` | `patient_id` | as published |
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow.compute
from huggingface_hub import constants

from clarity_hf.labels import FINDINGS, NO_FINDING, harmonised_finding, loose_name
from clarity_hf.view_names import view_kind

from .label_columns import (
    MASK_COLUMNS,
    MAX_NAME_LENGTH,
    NAME_COLUMNS,
    NORMAL_NAMES,
    ColumnLabels,
    Empty,
    LabelOptions,
    LabelReader,
    NameLabels,
    Uncertain,
    broken_label_columns,
    cell_text,
    choose_labels,
    find_column,
    find_roles,
    is_empty,
    named_findings,
    ordered_names,
    prefers_columns,
)
from .row_report import RowReport
from .rows import (
    PATIENTS_UNKNOWN,
    SPLITS,
    Source,
    as_stream,
    check_validation_fraction,
    draws_patient,
    first_names,
    label_feature,
    row_features,
    shared_patients,
    streamed,
    undecoded,
)
from .tables import SPLIT_NAMES, is_inside, load_table

logger = logging.getLogger(__name__)

NUMBERED_LABELS = (NO_FINDING, *FINDINGS)
"""Meaning of the numbers of the first mirror."""

METADATA_FILES = ("metadata.csv", "metadata.parquet")
"""Tables that a folder of images may contain."""

_TRUTH = {"no": "0", "absent": "0", "negative": "0", "yes": "1", "present": "1", "positive": "1"}
"""Names of the two classes of a finding's own column, beside those that every label may have, such as `True`."""

_PEEKED = 16
"""Rows of a stream from which the form of its labels is recognized."""

_NIH_FILE = re.compile(r"(\d{8})_\d{3}\.\w+$")
_LISTS = datasets.List | datasets.LargeList


def load_hub(
    name: str | os.PathLike[str],
    findings: Sequence[str] | Mapping[str, str] | None = None,
    image_column: str | None = None,
    patient_column: str | None = None,
    uncertain: Uncertain = "nan",
    empty: Empty = "nan",
    validation_fraction: float = 0.2,
    seed: int = 0,
    streaming: bool = False,
    revision: str | None = None,
) -> Source:
    """Load a data set of the Hub, or a local folder of parquet in the same form.

    Labels are names (strings, class labels, or lists of them) in one of `NAME_COLUMNS`, or one column per finding of
    1, 0, −1 and nothing, as in [`load_table`]. What is dropped or looks doubtful is logged and in `Source.messages`.

    Args:
        name: Hub id such as `owner/name`, or a folder.
        findings: As for [`load_table`]; for multi-hot lists of 0 and 1, a name for each place. By default the class
            labels' own names; for names as text, and for lists of plain numbers, the 14 findings of NIH; otherwise all
            columns of labels, which are unknown in a stream before it is read.
        image_column: By default the only column of images.
        patient_column: By default the first of `PATIENT_COLUMNS` in the data set.
        uncertain, empty: As for [`load_table`].
        validation_fraction: Probability, in [0, 1), with which a training patient goes to validation if the data set
            has no validation split, decided patient by patient so that streams are split in the same way.
        seed: Seed of that draw.
        streaming: Read images as they are needed instead of downloading all first. Shuffle the rows of such a split
            with `rows.shuffle(seed, buffer_size)` and train on them through [`TransformedStream`].
        revision: Commit or tag of the repository; by default its newest.

    Returns:
        A [`Source`]; its splits are `datasets.Dataset` or, for a stream, `datasets.IterableDataset`. A split that the
        data set does not have is empty.

    Raises:
        ValueError: Columns or labels are not recognized, a file is damaged, an image of a downloaded data set is given
            by a path on this machine, or an argument is out of range; in a stream, labels and paths are checked as
            rows are read.
        datasets.exceptions.DatasetNotFoundError: There is no such data set.
    """
    check_validation_fraction(validation_fraction)
    root = str(name) if os.path.isdir(name) else None
    if root is not None:
        _check_files(Path(root))
    data = _load_dataset(os.fspath(name), name, streaming=streaming, revision=revision)
    wanted = _Wanted(
        LabelOptions(findings, uncertain, empty), image_column, patient_column, validation_fraction, seed, root
    )
    return _open(str(name) if root is None else Path(root).resolve().name, data, wanted)


def load_imagefolder(
    folder: str | os.PathLike[str],
    findings: Sequence[str] | Mapping[str, str] | None = None,
    patient_column: str | None = None,
    uncertain: Uncertain = "nan",
    empty: Empty = "nan",
    validation_fraction: float = 0.2,
    seed: int = 0,
    streaming: bool = False,
) -> Source:
    """Load a folder of images as the `imagefolder` of `datasets` does.

    Either one subfolder per finding: its radiographs have that finding and no other, those in `No Finding` or `normal`
    have none; the subfolders may be grouped under `train/`, `validation/` and `test/`. Or images with a `metadata.csv`
    whose column `file_name` names them: in the folder itself it is read by [`load_table`], in the folders of splits as
    columns of [`load_hub`]. Images in subfolders have no patients.

    Args:
        folder: The folder.
        findings: As for [`load_hub`]; a mapping renames subfolders.
        patient_column, uncertain, empty, validation_fraction, seed: As for [`load_hub`].
        streaming: Return the splits as streams. Labels and paths are read immediately in any case.

    Returns:
        A [`Source`], as [`load_hub`].

    Raises:
        FileNotFoundError: The folder does not exist.
        ValueError: It has no labels, or as for [`load_hub`].
    """
    check_validation_fraction(validation_fraction)
    path, labels = Path(folder).expanduser(), LabelOptions(findings, uncertain, empty)
    if not path.is_dir():
        raise FileNotFoundError(f"`folder` must be a folder of images, found nothing at {path}. Check the path.")
    table = next((path / name for name in METADATA_FILES if (path / name).is_file()), None)
    if table is not None:
        split: dict[str, Any] = {"validation_fraction": validation_fraction, "seed": seed}
        source = load_table(table, patient_column=patient_column, **vars(labels), **split)
    else:
        _check_files(path)
        data = _load_dataset("imagefolder", path, data_dir=str(path))
        source = _open(path.name, data, _Wanted(labels, None, patient_column, validation_fraction, seed, str(path)))
    source = replace(source, name=path.name)
    return streamed(source) if streaming else source


@dataclass(frozen=True)
class _Wanted:
    """What the user asked for; `root` is the folder of the images, None for a download from the Hub."""

    labels: LabelOptions
    image_column: str | None
    patient_column: str | None
    validation_fraction: float
    seed: int
    root: str | None


def _load_dataset(name: str, shown: str | os.PathLike[str], **options: Any) -> Any:
    try:
        return datasets.load_dataset(name, **options)
    except (datasets.exceptions.DatasetGenerationError, pyarrow.ArrowException) as error:
        reason = error.__cause__ or error
        if isinstance(reason, MemoryError):  # not the fault of the files
            raise reason from error
        raise ValueError(
            f"`name` must be a data set of intact files, got {shown} ({reason}). Download or write it again."
        ) from error


# Which images may be read


def _check_files(folder: Path) -> None:
    """Refuse pipes and devices, which would block `datasets`."""
    for file in folder.rglob("*"):
        if os.path.exists(file) and not (file.is_file() or file.is_dir()):
            raise ValueError(f"`name` must be a folder of files, got the pipe or device {file}. Remove it.")


def _outside(paths: Iterable[str | None], roots: Iterable[str | os.PathLike[str]]) -> list[str]:
    """The paths of images that are outside all of `roots`, compared as written."""
    folders = [os.path.abspath(root) for root in roots]
    # Addresses of a stream (`hf://`) are not files, and `read_image` opens none.
    found = [path for path in paths if path is not None and not re.match(r"[a-z][a-z0-9+.-]*://", path)]
    return [path for path in found if not any(is_inside(os.path.abspath(path), folder) for folder in folders)]


def _check_fetched(paths: Iterable[str | None], column: str) -> None:
    """Refuse a downloaded row that names an image by a path on this machine, which a stranger would have chosen."""
    own = datasets.config  # an environment variable may move each of its folders
    unpacked = (own.DOWNLOADED_DATASETS_PATH, own.EXTRACTED_DATASETS_PATH)
    outside = _outside(paths, (own.HF_CACHE_HOME, own.HF_DATASETS_CACHE, *unpacked, constants.HF_HUB_CACHE))
    if outside:
        raise ValueError(
            f"'{column}' must contain images, or paths of downloaded images, got {first_names(outside)}. Use another "
            "data set: this one reads images of your machine."
        )


# Columns and labels


@dataclass
class _Schema:
    """Which columns contain what, and how to read them; a callable class, which can be sent to workers."""

    images: dict[str, str]  # its column by ours: `image` and, if there are masks, `thorax_mask`
    patient: str | None
    view: str | None
    labels: LabelReader
    label_columns: list[str]
    multi_hot: tuple[str, ...]
    source: datasets.Features
    root: str | None

    @property
    def features(self) -> datasets.Features:
        return row_features(len(self.labels.names), "thorax_mask" in self.images)

    @property
    def nih_files(self) -> bool:
        """Whether patients are in the file names, as in the first mirror."""
        return self.patient is None and not self.multi_hot and _is_numbered(self.source[self.label_columns[0]])

    def cells(self, row: Mapping[str, Any]) -> dict[str, str]:
        """The label columns as text, as [`LabelReader`] takes them."""
        if isinstance(self.labels, ColumnLabels):
            return {column: _column_text(row[column], self.source[column]) for column in self.label_columns}
        return {column: label_text(row[column], self.source[column], self.multi_hot) for column in self.label_columns}

    def patient_of(self, path: str | None, written: Any, fallback: str) -> str:
        """The patient's id: as written, from an NIH file's name, or one of the image's own."""
        match = _NIH_FILE.search(path or "") if self.nih_files else None
        patient = cell_text(written)
        return (match[1] if match else path or fallback) if is_empty(patient) else patient

    def is_frontal(self, row: Mapping[str, Any]) -> bool:
        return self.view is None or not view_kind(label_text(row[self.view], self.source[self.view]))

    def __call__(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """A row of a stream as [`row_features`] has it."""
        images = {name: row[column] for name, column in self.images.items()}
        for name, cell in images.items():
            if self.root is None and cell and cell.get("bytes") is None:
                _check_fetched([cell.get("path")], self.images[name])
        image = images["image"] or {}
        path, digest = image.get("path"), hashlib.sha256(image.get("bytes") or b"").hexdigest()
        labels = self.labels.read(self.cells(row), f"image {path or digest[:12]}").labels
        patient = self.patient_of(path, row[self.patient] if self.patient else None, digest)
        return {**images, "labels": labels, "patient_id": patient}


def _open(name: str, data: Mapping[str, Any], wanted: _Wanted) -> Source:
    data, report = _named_splits(data), RowReport()
    schema = _find_schema(data, wanted, report)
    streaming = isinstance(next(iter(data.values())), datasets.IterableDataset)
    splits = _stream(data, schema, report) if streaming else _load(data, schema, report)
    if "validation" not in splits and "train" in splits:
        rows = splits["train"]
        draw: dict[str, Any] = {"fraction": wanted.validation_fraction, "seed": wanted.seed}
        for split, held_out in (("train", False), ("validation", True)):
            side = draw | {"held_out": held_out}
            if streaming:
                splits[split] = rows.filter(_is_on_side, fn_kwargs=side)
            else:
                drawn = [_is_on_side({"patient_id": patient}, **side) for patient in rows["patient_id"]]
                splits[split] = rows.select(np.flatnonzero(drawn))
    empty = datasets.Dataset.from_dict({column: [] for column in schema.features}, features=schema.features)
    splits = {split: splits.get(split, as_stream(empty) if streaming else empty) for split in SPLITS}
    messages = tuple(report.messages())
    logger.info("%s: labels from %s; findings %s.", name, schema.labels.described, ", ".join(schema.labels.names))
    for message in messages:
        logger.warning("%s: %s", name, message)
    return Source(name, schema.labels.names, **splits, has_prior="thorax_mask" in schema.images, messages=messages)


def _named_splits(data: Mapping[str, Any]) -> dict[str, Any]:
    names = [SPLIT_NAMES.get(str(split).casefold()) for split in data]
    if names == [None]:  # `full` and the like
        return {"train": next(iter(data.values()))}
    if None in names or len(set(names)) < len(names):
        raise ValueError(
            f"the splits of a data set must be {', '.join(SPLITS)}, got {[str(split) for split in data]}. Rename them."
        )
    return {str(name): rows for name, rows in zip(names, data.values(), strict=True)}


def _find_schema(data: Mapping[str, Any], wanted: _Wanted, report: RowReport) -> _Schema:
    features = next(iter(data.values())).features
    if features is None:
        raise ValueError("a stream's columns must be known, got a data set without features. Convert it to parquet.")
    image = _image_column(features, wanted.image_column)
    labels, label_columns, multi_hot = _find_labels(data, features, wanted.labels, report)
    roles = find_roles(list(features), {"patient": wanted.patient_column})
    schema = _Schema(
        images={"image": image} | ({"thorax_mask": roles["thorax mask"]} if "thorax mask" in roles else {}),
        patient=roles.get("patient"),
        view=roles.get("view"),
        labels=labels,
        label_columns=label_columns,
        multi_hot=multi_hot,
        source=features,
        root=wanted.root,
    )
    if isinstance(labels, NameLabels) and schema.patient == "Patient ID":
        feature = features[labels.column]
        if isinstance(feature, _LISTS) and _is_text(feature.feature):
            report.notes.append(
                "These are the columns of a mirror of NIH ChestX-ray14 (names and 'Patient ID') that does not have "
                "the official split: figures on its test split are not comparable with published ones."
            )
    if schema.nih_files:
        report.notes.append("No column names patients: they are read from file names such as 00000001_000.png.")
    elif schema.patient is None:
        report.notes.append(PATIENTS_UNKNOWN)
    return schema


def _image_column(features: datasets.Features, given: str | None) -> str:
    images = [name for name, feature in features.items() if isinstance(feature, datasets.Image)]
    images = [name for name in images if loose_name(name) not in MASK_COLUMNS]
    if given is not None and given not in images:
        raise ValueError(f"`image_column` must be one of the columns of images {images}, got '{given}'. Correct it.")
    if given is None and len(images) != 1:
        raise ValueError(
            f"`image_column` must be given unless there is one column of images, got {images} among {list(features)}. "
            "Name the images' column."
        )
    return given or images[0]


def _find_labels(
    data: Mapping[str, Any], features: datasets.Features, wanted: LabelOptions, report: RowReport
) -> tuple[LabelReader, list[str], tuple[str, ...]]:
    """The reader of labels, the columns that it reads, and the names of a multi-hot list.

    Columns that are not findings because of a few cells are added to the report.
    """
    column = find_column(list(features), None, "labels", NAME_COLUMNS)
    by_column = wanted.findings is not None and set(wanted.findings) <= set(features)
    if column is not None and not by_column and _holds_names(features[column]):
        known = ordered_names(_class_names(features[column]) or FINDINGS)
        numbers = [name for name, feature in features.items() if _is_number(feature)]
        if wanted.findings is not None or not prefers_columns(column, known, numbers):
            chosen = named_findings(known if wanted.findings is None else wanted.findings)
            multi_hot = _multi_hot_names(data, column, wanted)
            if multi_hot:
                chosen = {name: finding for name, finding in chosen.items() if loose_name(name) not in NORMAL_NAMES}
            return NameLabels(column, chosen), [column], multi_hot
    scalars = [
        name
        for name, feature in features.items()
        if isinstance(feature, datasets.Value)
        or (isinstance(feature, datasets.ClassLabel) and name != column and (by_column or _is_findings_name(name)))
    ]
    cells: dict[str, list[str]] = {name: [] for name in scalars}
    for rows in data.values():
        if isinstance(rows, datasets.Dataset):
            for name in scalars:
                cells[name].extend(_column_text(value, features[name]) for value in rows.select_columns(name)[:][name])
    reader = choose_labels(cells, wanted)
    if isinstance(reader, NameLabels):
        return reader, [reader.column], ()
    if wanted.findings is None:
        broken = broken_label_columns(cells)
        report.broken_columns = {name: f"'{written[:MAX_NAME_LENGTH]}'" for name, (_, written) in broken.items()}
    return reader, [*reader.columns, *([reader.normal_column] if reader.normal_column else [])], ()


def _multi_hot_names(data: Mapping[str, Any], column: str, wanted: LabelOptions) -> tuple[str, ...]:
    """The findings given, if there is one for each place of lists of plain 0 and 1; otherwise nothing.

    A stream is recognized by its first labels; later labels in another form are refused as they are read.
    """
    feature = next(iter(data.values())).features[column]
    if wanted.findings is None or _class_names(feature) is not None or not _is_list_of_numbers(feature):
        return ()
    names = tuple(wanted.findings)
    lists: list[Sequence[Any]] = []
    for rows in data.values():
        labels = rows.select_columns(column)
        read = labels[:][column] if isinstance(rows, datasets.Dataset) else [r[column] for r in labels.take(_PEEKED)]
        lists.extend(value for value in read if value is not None)
    return names if lists and all(_is_multi_hot(value, len(names)) for value in lists) else ()


def _is_findings_name(column: str) -> bool:
    """Whether a column of classes is named like a finding; others may be of yes and no too, such as `portable`."""
    return harmonised_finding(column) in FINDINGS or loose_name(column) in NORMAL_NAMES


def _column_text(value: Any, feature: Any) -> str:
    """A cell of a finding's own column as text; classes such as `absent` and `present` are 0 and 1."""
    text = label_text(value, feature)
    return _TRUTH.get(text.casefold(), text) if isinstance(feature, datasets.ClassLabel) else text


def label_text(value: Any, feature: Any, multi_hot: Sequence[str] = ()) -> str:
    """A label of any type as text in a table: names joined by `|` or in a list, or a number.

    `multi_hot` are the names of a list that has a 0 or 1 for each name; if empty, numbers are those of
    `NUMBERED_LABELS`.

    Raises:
        ValueError: A number is not one of `NUMBERED_LABELS`, or a list is multi-hot and should not be, or the other
            way round.
    """
    if value is None:
        return ""
    if isinstance(feature, datasets.ClassLabel):
        return "" if value == -1 else feature.int2str(value)  # −1: not annotated
    if not isinstance(feature, _LISTS):
        return cell_text(value)
    if not multi_hot and (len(value) == 0 or None in value):
        return cell_text(list(value))
    if isinstance(feature.feature, datasets.ClassLabel):
        if _is_multi_hot(value, len(feature.feature.names)) and len(set(value)) < len(value):
            raise ValueError(
                f"a list of classes must have the numbers of those that are present, got {list(value)}. If it is "
                "multi-hot, store plain numbers and give `findings`, or write one column per finding."
            )
        return "|".join(feature.feature.int2str(value))
    if _is_text(feature.feature):
        return cell_text(list(value))
    if multi_hot:
        if not _is_multi_hot(value, len(multi_hot)):
            raise ValueError(
                f"a multi-hot label must have a 0 or 1 for each of the {len(multi_hot)} `findings`, got "
                f"{list(value)}. Give the data set one form of labels."
            )
        present = [name for name, number in zip(multi_hot, value, strict=True) if number]
        return "|".join(present) or NO_FINDING
    if len(set(value)) < len(value) or (len(value) > 1 and 0 in value):
        raise ValueError(
            f"a list of numbered labels must have each number once and 0 ({NO_FINDING}) alone, got {list(value)}. If "
            "it is multi-hot, give `findings`, a name for each of its places; or write one column per finding, or "
            "names."
        )
    unknown = [number for number in value if number not in range(len(NUMBERED_LABELS))]
    if unknown:
        raise ValueError(
            f"a numbered label must be between 0 ({NO_FINDING}) and {len(FINDINGS)} ({FINDINGS[-1]}), got {unknown}. "
            "Write names, or one column per finding."
        )
    return "|".join(NUMBERED_LABELS[int(number)] for number in value)


def _is_multi_hot(value: Sequence[Any], count: int) -> bool:
    """Whether a list has `count` values of 0 or 1; a list of two or more numbered labels never does."""
    return len(value) == count > 1 and set(value) <= {0, 1}


def _inner(feature: Any) -> Any:
    """The type of a list's values, or of the value itself."""
    return feature.feature if isinstance(feature, _LISTS) else feature


def _holds_names(feature: Any) -> bool:
    return _class_names(feature) is not None or _is_text(_inner(feature)) or _is_list_of_numbers(feature)


def _is_text(feature: Any) -> bool:
    """Whether values are text, in any of the forms that pyarrow, pandas and polars write."""
    return isinstance(feature, datasets.Value) and feature.dtype in ("string", "large_string", "string_view")


def _class_names(feature: Any) -> list[str] | None:
    inner = _inner(feature)
    return list(inner.names) if isinstance(inner, datasets.ClassLabel) else None


def _is_number(feature: Any) -> bool:
    """Whether values are numbers, also those of a `ClassLabel`."""
    return getattr(feature, "dtype", "").startswith(("int", "uint", "bool", "float"))


def _is_list_of_numbers(feature: Any) -> bool:
    return isinstance(feature, _LISTS) and _is_number(feature.feature)


def _is_numbered(feature: Any) -> bool:
    """Whether labels are the numbers of the first mirror, with or without class names."""
    names = _class_names(feature)
    return _is_list_of_numbers(feature) and (names is None or tuple(names) == NUMBERED_LABELS)


# Rows


def _load(data: Mapping[str, datasets.Dataset], schema: _Schema, report: RowReport) -> dict[str, datasets.Dataset]:
    splits: dict[str, datasets.Dataset] = {}
    places: dict[str, list[tuple[str, int]]] = {}
    for split, rows in data.items():
        splits[split], frontal = _load_split(split, rows, schema, report)
        places[split] = list(zip(splits[split]["patient_id"], frontal, strict=True))
    if schema.patient or schema.nih_files:
        report.notes += [f"{shared}. Figures on them are too high." for shared in shared_patients(places, "rows")]
    return splits


def _load_split(
    split: str, rows: datasets.Dataset, schema: _Schema, report: RowReport
) -> tuple[datasets.Dataset, list[int]]:
    """One split in our columns, its images undecoded, and the numbers of its rows in the data set."""
    views = rows.select_columns(schema.view) if schema.view else [{}] * len(rows)
    frontal = [i for i, row in enumerate(views) if schema.is_frontal(row)]
    report.laterals += [f"{split} row {i}" for i in sorted({*range(len(rows))} - {*frontal})]
    labels = rows.select_columns(schema.label_columns)
    read = [schema.labels.read(schema.cells(row), f"{split}, row {i}") for i, row in enumerate(labels)]
    for i in frontal:
        report.count_labels(f"{split} row {i}", read[i])
    paths: dict[str, list[str | None]] = {}  # without the images' bytes beside them, which would be gigabytes
    for column in schema.images.values():
        cells = rows.data.column(column)
        paths[column] = pyarrow.compute.struct_field(cells, "path").to_pylist()
        has_bytes = pyarrow.compute.struct_field(cells, "bytes").is_valid().to_pylist()
        named = [path for path, inside in zip(paths[column], has_bytes, strict=True) if not inside]
        if schema.root is None:
            _check_fetched(named, column)
        else:
            report.outside_files += _outside(named, [schema.root])
    patients = rows[schema.patient] if schema.patient else [None] * len(rows)
    ids = [
        schema.patient_of(path, written, f"{split}-{i}")
        for i, (path, written) in enumerate(zip(paths[schema.images["image"]], patients, strict=True))
    ]
    renamed = {column: name for name, column in schema.images.items() if column != name}
    rows = undecoded(rows.select_columns(list(schema.images.values())).rename_columns(renamed))
    values = [row.labels for row in read]
    rows = rows.add_column("labels", values, feature=label_feature(len(schema.labels.names)))
    rows = rows.add_column("patient_id", ids, feature=datasets.Value("string"))
    return rows if len(frontal) == len(rows) else rows.select(frontal), frontal


def _stream(
    data: Mapping[str, datasets.IterableDataset], schema: _Schema, report: RowReport
) -> dict[str, datasets.IterableDataset]:
    if schema.view:
        report.notes.append("Lateral images are left out of the stream.")
    if len(data) > 1 and (schema.patient or schema.nih_files):
        report.notes.append("A stream is not searched for patients in two splits.")
    splits = {}
    for split, rows in data.items():
        for column in schema.images.values():
            rows = rows.cast_column(column, datasets.Image(decode=False))
        if schema.view:
            rows = rows.filter(schema.is_frontal)
        splits[split] = rows.map(schema, remove_columns=list(schema.source), features=schema.features)
    return splits


def _is_on_side(row: Mapping[str, Any], fraction: float, seed: int, held_out: bool) -> bool:
    return draws_patient(row["patient_id"], fraction, seed) == held_out


__all__ = ["METADATA_FILES", "NUMBERED_LABELS", "label_text", "load_hub", "load_imagefolder"]
