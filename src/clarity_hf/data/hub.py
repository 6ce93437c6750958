# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Own labels in the forms that `datasets` opens: repositories of the Hub, folders of parquet, folders of images.

What a column means is told by its name and type, never by the repository's name. Known without being told are the
mirrors of NIH ChestX-ray14:

| repository | labels | patients | splits |
|---|---|---|---|
| alkzar90/NIH-Chest-X-ray-dataset | `labels`, numbers: 0 No Finding, 1 to 14 | in the file names | official |
| BahaaEldin0/NIH-Chest-Xray-14 | `label`, names | `Patient ID` | not the official ones |
| chehablab/NIHChestXR | `labels` | `patient_id` | as published |
"""

from __future__ import annotations

import hashlib
import itertools
import logging
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow.compute
from huggingface_hub import constants

from clarity_hf.labels import FINDINGS, NO_FINDING, loose_name

from .label_columns import (
    LATERAL_VIEWS,
    MASK_COLUMNS,
    NAME_COLUMNS,
    NORMAL_NAMES,
    PATIENT_COLUMNS,
    VIEW_COLUMNS,
    Empty,
    LabelReader,
    NameLabels,
    Uncertain,
    cell_text,
    choose_labels,
    find_column,
    named_findings,
    ordered_names,
)
from .rows import (
    SPLITS,
    Source,
    as_stream,
    check_validation_fraction,
    draws_patient,
    first_names,
    label_feature,
    row_features,
    streamed,
)
from .tables import SPLIT_NAMES, is_inside, load_table

logger = logging.getLogger(__name__)

NUMBERED_LABELS = (NO_FINDING, *FINDINGS)
"""What the numbers of the first mirror stand for."""

METADATA_FILES = ("metadata.csv", "metadata.parquet")
"""Tables that may lie in a folder of images."""

_PEEKED = 16
"""Rows of a stream by which the form of its labels is known."""

_NIH_FILE = re.compile(r"(\d{8})_\d{3}\.\w+$")


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

    Labels are names (strings, class labels, or lists of them) in one of `NAME_COLUMNS`, or a column a finding of 1, 0,
    −1 and nothing, as in [`load_table`]. What is dropped or doubted is logged and in `Source.messages`.

    Args:
        name: Hub id such as `owner/name`, or a folder.
        findings: As for [`load_table`]; for multi-hot lists, of 0 and 1 in `int64` and the like, a name for each
            place. By default the class labels' own names; for names that are written out, and for lists of plain
            numbers, the 14 findings of NIH; otherwise all columns of labels, which a stream cannot
            know before it is read.
        image_column: By default the only column of images.
        patient_column: By default the first of `PATIENT_COLUMNS` that there is.
        uncertain: As for [`load_table`].
        empty: As for [`load_table`].
        validation_fraction: Probability, in [0, 1), with which a training patient goes to validation where the data
            set has no validation split. It is decided patient by patient, so that a stream is split as the whole is.
        seed: Of that draw.
        streaming: Read images as they are needed instead of fetching all first. Shuffle the rows of such a split with
            `rows.shuffle(seed, buffer_size)` and train on them through [`TransformedStream`].
        revision: Commit or tag of the repository; by default its newest.

    Returns:
        A [`Source`]; its splits are `datasets.Dataset` or, for a stream, `datasets.IterableDataset`. A split that the
        data set does not have is empty.

    Raises:
        ValueError: Columns or labels are not known, a file of it is broken, an image of a fetched data set is named by
            a path of this machine, an argument is out of range; in a stream, labels and paths are read, and refused,
            as rows come.
        datasets.exceptions.DatasetNotFoundError: There is no such data set.
    """
    check_validation_fraction(validation_fraction)
    if os.path.isdir(name):
        _check_files(Path(name))
    data = _load_dataset(os.fspath(name), name, streaming=streaming, revision=revision)
    wanted = _Wanted(findings, image_column, patient_column, uncertain, empty, validation_fraction, seed)
    wanted.root = str(name) if os.path.isdir(name) else None
    return _open(Path(name).resolve().name if os.path.isdir(name) else str(name), data, wanted)


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

    Either a subfolder a finding: its images have that finding and none of the others, and those in `No Finding` or
    `normal` have none; `train/`, `validation/` and `test/` may stand above. Or images with a `metadata.csv` whose
    column `file_name` names them: in the folder itself it is read by [`load_table`], in the folders of splits as
    columns of [`load_hub`]. Images of subfolders have no patients.

    Args:
        folder: The folder.
        findings: As for [`load_hub`]; a mapping renames subfolders.
        patient_column: As for [`load_hub`].
        uncertain: As for [`load_table`].
        empty: As for [`load_table`].
        validation_fraction: As for [`load_hub`].
        seed: As for [`load_hub`].
        streaming: Give the splits as streams. Labels and paths are read at once in any case.

    Returns:
        A [`Source`], as [`load_hub`].

    Raises:
        FileNotFoundError: The folder is not there.
        ValueError: It holds no labels, or as for [`load_hub`].
    """
    check_validation_fraction(validation_fraction)
    path = Path(folder).expanduser()
    if not path.is_dir():
        raise FileNotFoundError(f"`folder` must be a folder of images, got nothing at {path}. Check the path.")
    table = next((path / name for name in METADATA_FILES if (path / name).is_file()), None)
    if table is not None:
        source = load_table(
            table,
            findings=findings,
            patient_column=patient_column,
            uncertain=uncertain,
            empty=empty,
            validation_fraction=validation_fraction,
            seed=seed,
        )
    else:
        _check_files(path)
        data = _load_dataset("imagefolder", path, data_dir=str(path))
        wanted = _Wanted(findings, None, patient_column, uncertain, empty, validation_fraction, seed, str(path))
        source = _open(path.name, data, wanted)
    source = replace(source, name=path.name)
    return streamed(source) if streaming else source


@dataclass
class _Wanted:
    """What the user said."""

    findings: Sequence[str] | Mapping[str, str] | None
    image_column: str | None
    patient_column: str | None
    uncertain: Uncertain
    empty: Empty
    validation_fraction: float
    seed: int
    root: str | None = None  # the folder of the images; None for what was fetched from the Hub


def _load_dataset(name: str, shown: str | os.PathLike[str], **options: Any) -> Any:
    try:
        return datasets.load_dataset(name, **options)
    except (datasets.exceptions.DatasetGenerationError, pyarrow.ArrowException) as error:
        reason = error.__cause__ or error
        if isinstance(reason, MemoryError):  # no fault of the files
            raise reason from error
        raise ValueError(
            f"`name` must be a data set of whole files, got {shown} ({reason}). Fetch or write it again."
        ) from error


def _check_files(folder: Path) -> None:
    """Refuse pipes and devices, which `datasets` would wait for."""
    for file in folder.rglob("*"):
        if os.path.exists(file) and not (file.is_file() or file.is_dir()):
            raise ValueError(f"`name` must be a folder of files, got the pipe or device {file}. Remove it.")


def _outside(paths: Iterable[str | None], roots: Iterable[str | os.PathLike[str]]) -> list[str]:
    """The paths of images that lead out of all of `roots`, compared as written."""
    folders = [os.path.abspath(root) for root in roots]
    # A stream's own addresses (`hf://`) are no files; the images' reader opens none.
    found = [path for path in paths if path is not None and not re.match(r"[a-z][a-z0-9+.-]*://", path)]
    return [path for path in found if not any(is_inside(os.path.abspath(path), folder) for folder in folders)]


def _check_fetched(paths: Iterable[str | None], column: str) -> None:
    """Refuse a fetched row that names an image by a path of this machine: a stranger would choose what is read.

    Args:
        paths: Of the images whose bytes are not in the rows; the others are not opened.
        column: For the error.
    """
    own = datasets.config  # each of its folders may be moved alone, by a variable of the environment
    unpacked = (own.DOWNLOADED_DATASETS_PATH, own.EXTRACTED_DATASETS_PATH)
    outside = _outside(paths, (own.HF_CACHE_HOME, own.HF_DATASETS_CACHE, *unpacked, constants.HF_HUB_CACHE))
    if outside:
        raise ValueError(
            f"'{column}' must hold images, or paths of what was fetched with it, got {first_names(outside)}. Use "
            "another data set: this one reads images of your machine."
        )


@dataclass
class _Schema:
    """Where a row's parts stand, and the way from a row to labels; callable, so that workers can be sent it."""

    image: str
    patient: str | None
    mask: str | None
    view: str | None
    labels: LabelReader
    label_columns: list[str]
    features: datasets.Features
    nih_files: bool
    multi_hot: tuple[str, ...] = ()
    root: str | None = None
    doubts: list[str] = field(default_factory=list)

    def cells(self, row: Mapping[str, Any]) -> dict[str, str]:
        """The label columns as text, as [`LabelReader`] takes them."""
        return {
            column: label_text(row[column], self.features[column], self.multi_hot) for column in self.label_columns
        }

    def patient_of(self, image: Mapping[str, Any] | None, written: Any, fallback: str) -> str:
        """The patient's id: as written, from an NIH file's name, or one of the image's own."""
        path = (image or {}).get("path") or ""
        match = _NIH_FILE.search(path) if self.nih_files else None
        return cell_text(written) or (match[1] if match else path or fallback)

    def __call__(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """A row of a stream as [`row_features`] has it."""
        image = row[self.image]
        for column in filter(None, (self.image, self.mask)):
            cell = row[column]
            if self.root is None and cell and cell.get("bytes") is None:
                _check_fetched([cell.get("path")], column)
        digest = hashlib.sha256(image.get("bytes") or b"").hexdigest()
        result = {
            "image": image,
            "labels": self.labels.read(self.cells(row), f"image {image.get('path') or digest[:12]}").labels,
            "patient_id": self.patient_of(image, row[self.patient] if self.patient else None, digest),
        }
        return result | ({"thorax_mask": row[self.mask]} if self.mask else {})


def label_text(value: Any, feature: Any, multi_hot: Sequence[str] = ()) -> str:
    """A label of any type as a table would write it: names joined by `|` or in a list, or a number.

    Args:
        value: The label.
        feature: Its type.
        multi_hot: The names of a list of plain numbers that has a 0 or 1 for each of them; without it they are numbers
            of `NUMBERED_LABELS`.

    Raises:
        ValueError: A number stands for none of `NUMBERED_LABELS`, or the list is multi-hot where it should not be, or
            the other way round.
    """
    if value is None:
        return ""
    if isinstance(feature, datasets.ClassLabel):
        return feature.int2str(value)
    if not isinstance(feature, datasets.List | datasets.LargeList):
        return cell_text(value)
    if not multi_hot and (len(value) == 0 or None in value):
        return cell_text(list(value))
    if isinstance(feature.feature, datasets.ClassLabel):
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
            "it is multi-hot, give `findings`, a name for each of its places; or give the data set a column a "
            "finding, or names."
        )
    unknown = [number for number in value if number not in range(len(NUMBERED_LABELS))]
    if unknown:
        raise ValueError(
            f"a numbered label must be between 0 ({NO_FINDING}) and {len(FINDINGS)} ({FINDINGS[-1]}), got {unknown}. "
            "Give the data set names, or a column a finding."
        )
    return "|".join(NUMBERED_LABELS[int(number)] for number in value)


def _is_multi_hot(value: Sequence[Any], count: int) -> bool:
    """Whether a list is `count` times 0 or 1; from two on no list of numbered labels is, as it would repeat or mix."""
    return len(value) == count > 1 and set(value) <= {0, 1}


# Schema


def _open(name: str, data: Mapping[str, Any], wanted: _Wanted) -> Source:
    data = _named_splits(data)
    schema = _find_schema(data, wanted)
    streaming = isinstance(next(iter(data.values())), datasets.IterableDataset)
    splits, doubts = (_stream if streaming else _load)(data, schema, wanted)
    messages = (*schema.doubts, *doubts)
    logger.info("%s: labels from %s; findings %s.", name, schema.labels.described, ", ".join(schema.labels.names))
    for message in messages:
        logger.warning("%s: %s", name, message)
    return Source(name, schema.labels.names, **splits, has_prior=schema.mask is not None, messages=messages)


def _named_splits(data: Mapping[str, Any]) -> dict[str, Any]:
    names = [SPLIT_NAMES.get(str(split).casefold()) for split in data]
    if names == [None]:  # `full` and the like
        return {"train": next(iter(data.values()))}
    if None in names or len(set(names)) < len(names):
        raise ValueError(
            f"the splits of a data set must be {', '.join(SPLITS)}, got {[str(split) for split in data]}. Rename them."
        )
    return {str(name): rows for name, rows in zip(names, data.values(), strict=True)}


def _find_schema(data: Mapping[str, Any], wanted: _Wanted) -> _Schema:
    features = next(iter(data.values())).features
    if features is None:
        raise ValueError("a stream's columns must be known, got a data set without features. Convert it to parquet.")
    header = list(features)
    image = _image_column(features, wanted.image_column)
    labels, label_columns, multi_hot = _find_labels(data, features, wanted)
    patient = find_column(header, wanted.patient_column, "patient_column", PATIENT_COLUMNS)
    schema = _Schema(
        image=image,
        patient=patient,
        mask=find_column(header, None, "mask", MASK_COLUMNS),
        view=find_column(header, None, "view", VIEW_COLUMNS),
        labels=labels,
        label_columns=label_columns,
        features=features,
        nih_files=patient is None and not multi_hot and _is_numbered(features[label_columns[0]]),
        multi_hot=multi_hot,
        root=wanted.root,
    )
    if isinstance(labels, NameLabels) and patient == "Patient ID" and _is_list_of_text(features[labels.column]):
        schema.doubts.append(
            "These are the columns of a mirror of NIH ChestX-ray14 (names and 'Patient ID') that does not have the "
            "official split: figures on its test split compare with no published ones."
        )
    if schema.nih_files:
        schema.doubts.append("No column names patients: they are read from file names such as 00000001_000.png.")
    elif patient is None:
        schema.doubts.append(
            "No column names patients: images of one patient may be on both sides of a split, and figures may be too "
            "high. Give `patient_column`."
        )
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
    data: Mapping[str, Any], features: datasets.Features, wanted: _Wanted
) -> tuple[LabelReader, list[str], tuple[str, ...]]:
    """The reader of labels, the columns that it reads, and the names of a multi-hot list."""
    column = find_column(list(features), None, "labels", NAME_COLUMNS)
    by_column = wanted.findings is not None and set(wanted.findings) <= set(features)
    if column is not None and not by_column and _holds_names(features[column]):
        known = ordered_names(_class_names(features[column]) or FINDINGS)
        chosen = named_findings(known if wanted.findings is None else wanted.findings)
        multi_hot = _multi_hot_names(data, column, wanted)
        if multi_hot:
            chosen = {name: finding for name, finding in chosen.items() if loose_name(name) not in NORMAL_NAMES}
        return NameLabels(column, chosen), [column], multi_hot
    scalars = [name for name, feature in features.items() if isinstance(feature, datasets.Value)]
    cells: dict[str, list[str]] = {name: [] for name in scalars}
    for rows in data.values():
        if isinstance(rows, datasets.Dataset):
            for name in scalars:
                cells[name].extend(cell_text(value) for value in rows.select_columns(name)[:][name])
    reader = choose_labels(cells, wanted.findings, wanted.uncertain, wanted.empty)
    if isinstance(reader, NameLabels):
        return reader, [reader.column], ()
    return reader, [*reader.columns, *([reader.normal_column] if reader.normal_column else [])], ()


def _multi_hot_names(data: Mapping[str, Any], column: str, wanted: _Wanted) -> tuple[str, ...]:
    """The findings given, if there is one for each place of lists of plain 0 and 1, else nothing.

    A stream is known by its first labels; later ones in another form are refused as they come.
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


def _holds_names(feature: Any) -> bool:
    if isinstance(feature, datasets.ClassLabel) or _is_text(feature):
        return True
    return _class_names(feature) is not None or _is_list_of_text(feature) or _is_list_of_numbers(feature)


def _is_text(feature: Any) -> bool:
    """Whether values are text, in any of the forms that pyarrow, pandas and polars write."""
    return isinstance(feature, datasets.Value) and feature.dtype in ("string", "large_string", "string_view")


def _class_names(feature: Any) -> list[str] | None:
    inner = feature.feature if isinstance(feature, datasets.List | datasets.LargeList) else feature
    return list(inner.names) if isinstance(inner, datasets.ClassLabel) else None


def _is_list_of_text(feature: Any) -> bool:
    return isinstance(feature, datasets.List | datasets.LargeList) and _is_text(feature.feature)


def _is_list_of_numbers(feature: Any) -> bool:
    is_list = isinstance(feature, datasets.List | datasets.LargeList)
    return is_list and getattr(feature.feature, "dtype", "").startswith(("int", "uint", "bool", "float"))


def _is_numbered(feature: Any) -> bool:
    """Whether labels are the numbers of the first mirror, with or without the names of their classes."""
    names = _class_names(feature)
    return _is_list_of_numbers(feature) and (names is None or tuple(names) == NUMBERED_LABELS)


# Rows


def _load(
    data: Mapping[str, datasets.Dataset], schema: _Schema, wanted: _Wanted
) -> tuple[dict[str, datasets.Dataset], list[str]]:
    uncertain: Counter[str] = Counter()
    laterals: list[str] = []
    contradictory: list[str] = []
    counted: Counter[str] = Counter()
    splits: dict[str, datasets.Dataset] = {}
    numbers: dict[str, list[int]] = {}
    for split, rows in data.items():
        splits[split], numbers[split], read = _load_split(split, rows, schema, laterals, contradictory)
        uncertain.update(finding for row in read for finding in row.uncertain)
        counted["empty"] += sum(row.empty_list for row in read)
        counted["none"] += sum(bool(np.isnan(row.labels).all()) for row in read)
    doubts = _leaks(splits, numbers) if schema.patient or schema.nih_files else []
    if uncertain:
        counts = ", ".join(f"{finding} {count}" for finding, count in uncertain.items())
        doubts.append(f"{uncertain.total()} labels are uncertain (−1): {counts}.")
    if contradictory:
        named = first_names(contradictory)
        doubts.append(f"{len(contradictory)} images have both No Finding and a finding, which stands: {named}.")
    if counted["empty"]:
        doubts.append(f"{counted['empty']} images have an empty list of labels and count as without findings.")
    if counted["none"]:
        doubts.append(f"{counted['none']} images have no labels and are not annotated.")
    if laterals:
        doubts.append(f"{len(laterals)} lateral images are dropped: {first_names(laterals)}.")
    if "validation" not in splits and "train" in splits:
        rows = splits["train"]
        drawn = [draws_patient(p, wanted.validation_fraction, wanted.seed) for p in rows["patient_id"]]
        for split, held_out in (("train", False), ("validation", True)):
            splits[split] = rows.select(np.flatnonzero(np.array(drawn, dtype=bool) == held_out))
    empty = _empty(_features_of(schema))
    return {split: splits.get(split, empty) for split in SPLITS}, doubts


def _load_split(
    split: str, rows: datasets.Dataset, schema: _Schema, laterals: list[str], contradictory: list[str]
) -> tuple[datasets.Dataset, list[int], list[Any]]:
    """One split in our columns, its images left where they are; its rows' numbers; what was read of their labels."""
    views = [loose_name(cell_text(view)) for view in rows[schema.view]] if schema.view else []
    lateral = {i for i, view in enumerate(views) if view in LATERAL_VIEWS}
    laterals.extend(f"{split} row {i}" for i in sorted(lateral))
    frontal = [i for i in range(len(rows)) if i not in lateral]
    labels = rows.select_columns(schema.label_columns)
    read = [schema.labels.read(schema.cells(row), f"{split}, row {i}") for i, row in enumerate(labels)]
    contradictory.extend(f"{split} row {i}" for i in frontal if read[i].contradicts)
    patients = rows[schema.patient] if schema.patient else [None] * len(rows)
    # The paths alone: the images' bytes beside them would be gigabytes.
    paths = pyarrow.compute.struct_field(rows.data.column(schema.image), "path").to_pylist()
    for column in filter(None, (schema.image, schema.mask)):
        cells = rows.data.column(column)
        without = pyarrow.compute.struct_field(cells, "bytes").is_null()
        named = pyarrow.compute.struct_field(cells, "path").filter(without).to_pylist()
        if schema.root is None:
            _check_fetched(named, column)
        elif outside := _outside(named, [schema.root]):
            schema.doubts.append(f"{split} names {len(outside)} images out of the folder: {first_names(outside)}.")
    ids = [
        schema.patient_of({"path": path}, written, f"{split}-{i}")
        for i, (path, written) in enumerate(zip(paths, patients, strict=True))
    ]
    kept = {"image": schema.image} | ({"thorax_mask": schema.mask} if schema.mask else {})
    renamed = {own: name for name, own in kept.items() if own != name}
    rows = rows.select_columns(list(kept.values())).rename_columns(renamed)
    for name in kept:
        rows = rows.cast_column(name, datasets.Image(decode=False))
    values = [row.labels for row in read]
    rows = rows.add_column("labels", values, feature=label_feature(len(schema.labels.names)))
    rows = rows.add_column("patient_id", ids, feature=datasets.Value("string"))
    return rows.select(frontal) if lateral else rows, frontal, [read[i] for i in frontal]


def _leaks(splits: Mapping[str, datasets.Dataset], numbers: Mapping[str, Sequence[int]]) -> list[str]:
    """A message for two splits that share patients: how many, and in which rows; their ids may be names."""
    patients = {split: list(rows["patient_id"]) for split, rows in splits.items()}
    messages = []
    for one, other in itertools.combinations(patients, 2):
        shared = {*patients[one]} & {*patients[other]}
        if shared:
            rows = "; ".join(
                f"{split} rows "
                + first_names(str(i) for i, id in zip(numbers[split], patients[split], strict=True) if id in shared)
                for split in (one, other)
            )
            messages.append(f"{one} and {other} share {len(shared)} patients ({rows}). Figures on them are too high.")
    return messages


def _stream(
    data: Mapping[str, datasets.IterableDataset], schema: _Schema, wanted: _Wanted
) -> tuple[dict[str, datasets.IterableDataset], list[str]]:
    features = _features_of(schema)
    doubts = ["Lateral images are left out of the stream."] if schema.view else []
    if len(data) > 1 and (schema.patient or schema.nih_files):
        doubts.append("Patients in two splits are not looked for in a stream.")
    splits = {}
    for split, rows in data.items():
        for column in filter(None, (schema.image, schema.mask)):
            rows = rows.cast_column(column, datasets.Image(decode=False))
        if schema.view:
            rows = rows.filter(_IsFrontal(schema.view))
        splits[split] = rows.map(schema, remove_columns=list(schema.features), features=features)
    if "validation" not in splits and "train" in splits:
        rows = splits["train"]
        for split, held_out in (("train", False), ("validation", True)):
            splits[split] = rows.filter(_IsDrawn(wanted.validation_fraction, wanted.seed, held_out))
    empty = as_stream(_empty(features))
    return {split: splits.get(split, empty) for split in SPLITS}, doubts


def _empty(features: datasets.Features) -> datasets.Dataset:
    return datasets.Dataset.from_dict({name: [] for name in features}, features=features)


def _features_of(schema: _Schema) -> datasets.Features:
    return row_features(len(schema.labels.names), schema.mask is not None)


@dataclass
class _IsFrontal:
    """Whether a row is no lateral image."""

    column: str

    def __call__(self, row: Mapping[str, Any]) -> bool:
        return loose_name(cell_text(row[self.column])) not in LATERAL_VIEWS


@dataclass
class _IsDrawn:
    """Whether a row's patient is on one side of the draw."""

    fraction: float
    seed: int
    held_out: bool

    def __call__(self, row: Mapping[str, Any]) -> bool:
        return draws_patient(row["patient_id"], self.fraction, self.seed) == self.held_out
