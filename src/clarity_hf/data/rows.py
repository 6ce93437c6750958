# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""What all data sets share: rows, the split by patient, and labels aligned to one order of findings.

A row of a data set has `image`, undecoded as `{"path", "bytes"}`; `labels` `(F,)` float32 of 1 present, 0 absent, NaN
not annotated; `patient_id`; and, if the data set has masks, `thorax_mask`, undecoded or None.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import datasets
import numpy as np

SPLITS = ("train", "validation", "test")
STREAM_SHARDS = 64
"""Shards of a local data set that is read as a stream."""

PATIENTS_UNKNOWN = (
    "No column names patients: images of one patient may be on both sides of a split, and figures may be too high. "
    "Give `patient_column`."
)


@dataclass(frozen=True)
class Source:
    """An opened data set.

    Attributes:
        name: Of the data set, without folders and suffix.
        findings: Names of the F labels of a row, in their order.
        train: Rows to train on: map-style or, when streaming, a `datasets.IterableDataset`.
        validation: Rows for choosing an epoch and thresholds; shares no known patient with `train`.
        test: Rows that nothing is chosen on. Any of the three splits may be empty.
        has_prior: Whether rows have thorax masks.
        messages: What was dropped or looks doubtful, one sentence each; also logged.
    """

    name: str
    findings: tuple[str, ...]
    train: Any
    validation: Any
    test: Any
    has_prior: bool = False
    messages: tuple[str, ...] = ()

    def splits(self) -> dict[str, Any]:
        """`train`, `validation` and `test` by name."""
        return {name: getattr(self, name) for name in SPLITS}


# Rows of files


@dataclass(slots=True, kw_only=True, eq=False)
class ImageRow:
    """One radiograph of a data set whose images are files.

    Attributes:
        image_id: Its name in the source: the path as written in a table, the file name without extension in the NIH
            release.
        patient_id: As written; `image_id` if the patient is unknown.
        labels: `(F,)` float32 of 1, 0, NaN.
        path: Absolute path of the image, None if it is missing or cannot be read.
        mask_path: Absolute path of the thorax mask, or None.
        split: `train`, `validation` or `test`; None if it is in no split.
        line: Line on which its row ends in the table, from 1; in parquet the number of the row.
    """

    image_id: str
    patient_id: str
    labels: np.ndarray
    path: str | None = None
    mask_path: str | None = None
    split: str | None = None
    line: int = 0


def build_dataset(rows: Sequence[ImageRow], features: datasets.Features, **info: Any) -> datasets.Dataset:
    """Turn the rows of one split, which all have a path, into a data set.

    Of the columns `features`, `image` and `thorax_mask` are the paths, the others the attributes of their name; `info`
    are further fields of the `datasets.DatasetInfo`.
    """
    attributes = {"image": "path", "thorax_mask": "mask_path"}
    columns = {name: [getattr(row, attributes.get(name, name)) for row in rows] for name in features}
    return datasets.Dataset.from_dict(columns, features=features, info=datasets.DatasetInfo(features=features, **info))


def label_feature(count: int) -> datasets.List:
    """Type of a column of labels `(count,)`."""
    return datasets.List(datasets.Value("float32"), length=count)


def row_features(finding_count: int, with_masks: bool = False) -> datasets.Features:
    """Types of a row's columns, see the top of this module."""
    features = datasets.Features(
        image=datasets.Image(decode=False),
        labels=label_feature(finding_count),
        patient_id=datasets.Value("string"),
    )
    if with_masks:
        features["thorax_mask"] = datasets.Image(decode=False)
    return features


def undecoded(rows: Any) -> Any:
    """Leave image columns undecoded, so that `read_image` reads them and its errors name files."""
    for column in ("image", "thorax_mask"):
        if column in rows.column_names:
            rows = rows.cast_column(column, datasets.Image(decode=False))
    return rows


# Splits by patient


def split_rows(rows: Iterable[Any], held_out: Collection[str] = ()) -> dict[str, list[Any]]:
    """Rows that have a file, by split; training rows of patients in `held_out` are validation."""
    splits: dict[str, list[Any]] = {name: [] for name in SPLITS}
    for row in rows:
        if row.path is not None and row.split is not None:
            splits["validation" if row.split == "train" and row.patient_id in held_out else row.split].append(row)
    return splits


def check_disjoint(rows: Iterable[ImageRow], remedy: str) -> None:
    """Raise ValueError if a patient is in two splits.

    The message has the lines and `remedy`, but no patient's id, which may be a name.
    """
    places: dict[str, list[tuple[str, int]]] = {name: [] for name in SPLITS}
    for row in rows:
        if row.split is not None:
            places[row.split].append((row.patient_id, row.line))
    for shared in shared_patients(places, "lines"):
        raise ValueError(f"the splits must have no patient in common, but {shared}. {remedy}")


def shared_patients(places: Mapping[str, Sequence[tuple[str, int]]], unit: str) -> list[str]:
    """Describe which splits share patients, without their ids, which may be names.

    `places` has by split the patient's id of each row and the number of its line or other `unit`. Each clause is such
    as "train and test share 1 patients (train lines 2; test lines 7)".
    """
    clauses = []
    for pair in itertools.combinations(places, 2):
        one, other = ({patient for patient, _ in places[split]} for split in pair)
        if one & other:
            where = "; ".join(
                f"{split} {unit} {first_names(str(n) for patient, n in places[split] if patient in one & other)}"
                for split in pair
            )
            clauses.append(f"{' and '.join(pair)} share {len(one & other)} patients ({where})")
    return clauses


def check_validation_fraction(fraction: float) -> None:
    """Raise ValueError unless `fraction` is a share in [0, 1)."""
    if not 0 <= fraction < 1:
        raise ValueError(f"`validation_fraction` must be in [0, 1), got {fraction}. Pass a share of the patients.")


def draw_patients(
    patients: Iterable[str], fraction: float, seed: int, always: Collection[str] = (), first: Collection[str] = ()
) -> set[str]:
    """Draw a share of the patients: those whose hash with `seed` is lowest, whatever the platform and the order of
    rows.

    Args:
        patients: Their ids; repetitions count once.
        fraction: Share in [0, 1), rounded to an integer number of patients.
        seed: Seed of the draw.
        always: Taken in any case, even beyond `fraction`; those not in `patients` are ignored.
        first: Taken before all others, as far as `fraction` allows.
    """
    known = set(patients)
    taken = known & set(always)
    order = sorted(known - taken, key=lambda patient: (patient not in first, _hash(patient, seed)))
    return taken | set(order[: max(0, round(fraction * len(known)) - len(taken))])


def draws_patient(patient: str, fraction: float, seed: int) -> bool:
    """Whether a patient is drawn, with probability `fraction`, if the others are not known, as in a stream."""
    return int.from_bytes(_hash(patient, seed)[:8]) < fraction * 2**64


def _hash(patient: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}:{patient}".encode()).digest()


def first_names(names: Iterable[str], count: int = 5) -> str:
    """The first few of many names, for messages."""
    names = list(names)
    return ", ".join(names[:count]) + (", …" if len(names) > count else "")


# One order of findings


def check_index(index: int, count: int) -> None:
    """Raise IndexError unless 0 ≤ `index` < `count`, by which loops over rows end."""
    if not 0 <= index < count:
        raise IndexError(f"`index` must be between 0 and {count - 1}, got {index}.")


def set_epoch_of(rows: Any, epoch: int) -> None:
    """Pass the epoch on to a data set that takes it."""
    if hasattr(rows, "set_epoch"):
        rows.set_epoch(epoch)


class WrappedRows:
    """Base of map-style data sets that change the rows of another, `rows`."""

    def __init__(self, rows: Any):
        self.rows = rows

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.rows)

    def set_epoch(self, epoch: int) -> None:
        """Pass the epoch on."""
        set_epoch_of(self.rows, epoch)


class AlignedRows(WrappedRows):
    """A map-style data set with its labels in another order of findings, see [`align_labels`].

    Args:
        rows: The data set; its `labels` are `(len(own),)`.
        own: Its findings.
        findings: Findings of the resulting labels, including all of `own`.
    """

    def __init__(self, rows: Any, own: Sequence[str], findings: Sequence[str]):
        super().__init__(rows)
        self.align = _Alignment(own, findings)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Row `index`, its `labels` `(len(findings),)` float32."""
        check_index(index, len(self))
        return self.align(self.rows[index])


class _Alignment:
    """Moves the labels of a row; a class, because closures cannot be sent to workers."""

    def __init__(self, own: Sequence[str], findings: Sequence[str]):
        for name, names in (("own", own), ("findings", findings)):
            if len(set(names)) < len(names):
                raise ValueError(f"`{name}` must not repeat a finding, got {list(names)}. Name each once.")
        lost = [finding for finding in own if finding not in findings]
        if lost:
            raise ValueError(
                f"`findings` must include all findings of the data set, got {list(findings)} without {lost}. "
                "Add them, or open the data set with the findings wanted."
            )
        self.count, self.places = len(findings), [list(findings).index(finding) for finding in own]

    def __call__(self, row: Mapping[str, Any]) -> dict[str, Any]:
        own = np.asarray(row["labels"], dtype=np.float32)
        if own.shape != (len(self.places),):
            raise ValueError(
                f"`labels` must have one value per finding ({len(self.places)}), got {own.shape}. Name the data "
                "set's findings in the order of its labels."
            )
        return {**row, "labels": self.move(own)}

    def move(self, own: np.ndarray) -> np.ndarray:
        """Labels `(..., len(own))` to `(..., len(findings))` float32, NaN for findings that are not in `own`."""
        labels = np.full((*own.shape[:-1], self.count), np.nan, dtype=np.float32)
        labels[..., self.places] = own
        return labels


def align_labels(rows: Any, own: Sequence[str], findings: Sequence[str]) -> Any:
    """Put the labels of a data set into another order of findings, row by row, as rows are read.

    Args:
        rows: Map-style, or a `datasets.IterableDataset`.
        own: Findings of its labels.
        findings: Findings wanted, including all of `own`; the labels of others are NaN.

    Returns:
        `rows` itself if nothing changes, otherwise [`AlignedRows`] or a stream.

    Raises:
        ValueError: A finding occurs twice, or one of `own` is not in `findings`.
    """
    align = _Alignment(own, findings)
    if tuple(own) == tuple(findings):
        return rows
    if isinstance(rows, datasets.IterableDataset):
        features = rows.features and datasets.Features({**rows.features, "labels": label_feature(len(findings))})
        return rows.map(align, features=features)
    return AlignedRows(rows, own, findings)


def align_source(source: Source, findings: Sequence[str]) -> Source:
    """Put the labels of all splits into another order of findings, as [`align_labels`]."""
    splits = {name: align_labels(rows, source.findings, findings) for name, rows in source.splits().items()}
    return replace(source, findings=tuple(findings), **splits)


def union_of_findings(sources: Iterable[Source]) -> tuple[str, ...]:
    """All findings of several data sets, each once, in order of first occurrence."""
    return tuple(dict.fromkeys(finding for source in sources for finding in source.findings))


def as_stream(rows: datasets.Dataset) -> datasets.IterableDataset:
    """A stream of map-style rows with enough shards for workers and for shuffling."""
    if len(rows) == 0:  # which `to_iterable_dataset` refuses
        return datasets.IterableDataset.from_generator(_nothing, features=rows.features)
    return rows.to_iterable_dataset(num_shards=min(len(rows), STREAM_SHARDS))


def _nothing() -> Iterator[dict[str, Any]]:
    yield from ()


def streamed(source: Source) -> Source:
    """A source whose splits are streams, see [`as_stream`]."""
    return replace(source, **{name: as_stream(rows) for name, rows in source.splits().items()})
