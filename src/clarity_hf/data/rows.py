# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""What all data sets share: a row's columns, the draw of patients, and labels brought into one order of findings.

A row has `image`, the image undecoded as `{"path", "bytes"}`; `labels` `(F,)` float32 of 1 present, 0 absent, NaN not
annotated; `patient_id`; and `thorax_mask`, undecoded or None, where the data set has masks.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import datasets
import numpy as np

SPLITS = ("train", "validation", "test")
"""Names of the splits, everywhere."""


STREAM_SHARDS = 64
"""Shards of a data set that is on this machine and is read as a stream."""


@dataclass(frozen=True)
class Source:
    """A data set, opened.

    Attributes:
        name: What the user called it.
        findings: Names of the F labels of a row, in their order.
        train: Rows to train on, map-style or, if it was opened for streaming, a `datasets.IterableDataset`.
        validation: Rows to choose an epoch and thresholds on; no patient of `train`, as far as patients are known.
        test: Rows that choose nothing. Each of the three may be empty.
        has_prior: Whether rows bring thorax masks, from which a model learns its foreground.
        messages: What was dropped or doubted, one sentence each; also logged.
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


class AlignedRows:
    """A map-style data set with its labels in another order of findings; those that it does not annotate are NaN.

    Args:
        rows: The data set; its `labels` are `(len(own),)`.
        own: Its findings.
        findings: The findings of the labels that come out, all of `own` among them.

    Raises:
        ValueError: A finding occurs twice, or one of `own` is not in `findings`: its labels would be lost.
    """

    def __init__(self, rows: Any, own: Sequence[str], findings: Sequence[str]):
        self.rows, self.align = rows, _Alignment(own, findings)

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Row `index`, its `labels` `(len(findings),)` float32."""
        if not 0 <= index < len(self):  # without it a loop over the rows of some data sets would never end
            raise IndexError(f"`index` must be between 0 and {len(self) - 1}, got {index}.")
        return self.align(self.rows[index])

    def set_epoch(self, epoch: int) -> None:
        """Pass the epoch on to a data set that can be told of it."""
        if hasattr(self.rows, "set_epoch"):
            self.rows.set_epoch(epoch)


class _Alignment:
    """Moves the labels of a row; a class and no closure, so that workers can be sent it."""

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
        """Labels `(..., len(own))` to `(..., len(findings))` float32, NaN where the data set has none."""
        labels = np.full((*own.shape[:-1], self.count), np.nan, dtype=np.float32)
        labels[..., self.places] = own
        return labels


def align_labels(rows: Any, own: Sequence[str], findings: Sequence[str]) -> Any:
    """Bring the labels of a data set into another order of findings, one row at a time, as rows are read.

    Args:
        rows: Map-style, or a `datasets.IterableDataset`.
        own: Findings of its labels.
        findings: Findings wanted, all of `own` among them. One that is not in `own` is NaN throughout.

    Returns:
        `rows` itself where nothing changes, else [`AlignedRows`] or, for a stream, a stream.

    Raises:
        ValueError: As for [`AlignedRows`].
    """
    align = _Alignment(own, findings)
    if tuple(own) == tuple(findings):
        return rows
    if isinstance(rows, datasets.IterableDataset):
        features = rows.features and datasets.Features({**rows.features, "labels": label_feature(len(findings))})
        return rows.map(align, features=features)
    return AlignedRows(rows, own, findings)


def align_source(source: Source, findings: Sequence[str]) -> Source:
    """Bring all splits of a data set into another order of findings, as [`align_labels`]."""
    splits = {name: align_labels(rows, source.findings, findings) for name, rows in source.splits().items()}
    return replace(source, findings=tuple(findings), **splits)


def union_of_findings(sources: Iterable[Source]) -> tuple[str, ...]:
    """All findings of several data sets, each once, in the order in which they first occur."""
    return tuple(dict.fromkeys(finding for source in sources for finding in source.findings))


def as_stream(rows: datasets.Dataset) -> datasets.IterableDataset:
    """Give rows with an index as a stream, in shards enough for workers and for shuffling."""
    if len(rows) == 0:  # which `to_iterable_dataset` refuses
        return datasets.IterableDataset.from_generator(_nothing, features=rows.features)
    return rows.to_iterable_dataset(num_shards=min(len(rows), STREAM_SHARDS))


def _nothing() -> Iterator[dict[str, Any]]:
    yield from ()


def streamed(source: Source) -> Source:
    """Give all splits of a data set that was opened whole as streams, see [`as_stream`]."""
    return replace(source, **{name: as_stream(rows) for name, rows in source.splits().items()})


def label_feature(count: int) -> datasets.List:
    """Type of a column of labels `(count,)`."""
    return datasets.List(datasets.Value("float32"), length=count)


def row_features(finding_count: int, with_masks: bool = False) -> datasets.Features:
    """Types of a row's columns, see the head of this module."""
    features = datasets.Features(
        image=datasets.Image(decode=False),
        labels=label_feature(finding_count),
        patient_id=datasets.Value("string"),
    )
    if with_masks:
        features["thorax_mask"] = datasets.Image(decode=False)
    return features


def undecoded(rows: Any) -> Any:
    """Leave the image columns of a `datasets` data set undecoded: our reader opens them, and its errors name files."""
    for column in ("image", "thorax_mask"):
        if column in rows.column_names:
            rows = rows.cast_column(column, datasets.Image(decode=False))
    return rows


def check_validation_fraction(fraction: float) -> None:
    """Raise ValueError unless `fraction` is a share in [0, 1)."""
    if not 0 <= fraction < 1:
        raise ValueError(
            f"`validation_fraction` must be in [0, 1), got {fraction}. Pass a share of the patients."
        )


def draw_patients(patients: Iterable[str], fraction: float, seed: int) -> set[str]:
    """Draw a share of the patients: those whose hash with `seed` is lowest.

    The draw is the same on every platform and for every order of the rows.

    Args:
        patients: Their ids; repetitions count once.
        fraction: Share in [0, 1), rounded to whole patients.
        seed: Of the draw.
    """
    known = set(patients)
    return set(in_drawing_order(known, seed)[: round(fraction * len(known))])


def in_drawing_order(patients: Iterable[str], seed: int) -> list[str]:
    """Patients in the order in which a draw with `seed` takes them: by their hash with it."""
    return sorted(patients, key=lambda patient: _hash(patient, seed))


def draws_patient(patient: str, fraction: float, seed: int) -> bool:
    """Whether a patient is drawn when the others are not known, as in a stream: with probability `fraction`."""
    return int.from_bytes(_hash(patient, seed)[:8]) < fraction * 2**64


def _hash(patient: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}:{patient}".encode()).digest()


def first_names(names: Iterable[str], count: int = 5) -> str:
    """The first few of many names, for a message."""
    names = list(names)
    return ", ".join(names[:count]) + (", …" if len(names) > count else "")
