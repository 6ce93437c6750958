# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Data sets by name: phantoms, the NIH release, your own tables and folders, the Hub."""

from __future__ import annotations

import difflib
import itertools
import logging
import math
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch

from clarity_hf.labels import FINDINGS
from clarity_hf.phantoms import Phantom, draw_phantom

from .hub import METADATA_FILES, load_hub, load_imagefolder
from .label_columns import LabelOptions
from .nih import TABLES, load_nih
from .rows import (
    AlignedRows,
    Source,
    WrappedRows,
    align_source,
    check_index,
    set_epoch_of,
    streamed,
    undecoded,
    union_of_findings,
)
from .table_files import TABLE_SUFFIXES
from .tables import load_table

PHANTOM = "phantom"
"""Name of the data set of synthetic images, which needs no files."""

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
"""Files by which a folder of images is recognized."""

logger = logging.getLogger(__name__)

FILE_KINDS = ("release", "table", "images")
"""Data sets whose images are files."""

OPTION_KINDS = {
    "findings": (("hub", "images", "table"), "It has the 14 of FINDINGS."),
    "masks_dir": (("release",), "Only a release has one."),
    "validation_split": (("release",), "Its lists are of patients of the NIH release."),
}
"""Options that only some kinds of data sets take: these kinds, and a remark for the others."""

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")

SPLIT_SEEDS = {"train": 1, "validation": 2, "test": 3}
"""Streams of phantoms: splits of any size share no image."""


class PhantomRows:
    """Synthetic phantoms as a map-style data set: row i is the same image whenever it is read in an epoch.

    `set_epoch` moves to images that no earlier epoch had.

    Args:
        count: Number of images.
        split: `train`, `validation` or `test`: disjoint streams.
        seed: Seed of the set.
        size: Side of the images in pixels.
        finding_rate: Probability of each finding, independent of the others; by default findings occur together as in
            the NIH release. A dense, uncorrelated mix teaches more per image.
        finding_contrast: Largest contrast of findings; that of each image is log-uniform between 1 and this.

    Raises:
        ValueError: `split` is unknown, `finding_rate` is outside [0, 1], or `finding_contrast` is below 1.
    """

    def __init__(
        self,
        count: int,
        split: str = "train",
        seed: int = 0,
        size: int = 256,
        finding_rate: float | None = None,
        finding_contrast: float = 1.0,
    ):
        if split not in SPLIT_SEEDS:
            raise ValueError(f"`split` must be one of {list(SPLIT_SEEDS)}, got '{split}'. Choose one of them.")
        if finding_rate is not None and not 0 <= finding_rate <= 1:
            raise ValueError(f"`finding_rate` must be in [0, 1], got {finding_rate}. Give a probability.")
        if not 1 <= finding_contrast < math.inf:
            raise ValueError(f"`finding_contrast` must be at least 1, got {finding_contrast}. 1 changes nothing.")
        self.count, self.size, self.epoch = count, size, 0
        self.finding_rate, self.finding_contrast = finding_rate, finding_contrast
        self.first_seed = (seed * len(SPLIT_SEEDS) + SPLIT_SEEDS[split]) << 32

    def __len__(self) -> int:
        """Number of images."""
        return self.count

    def phantom(self, index: int) -> Phantom:
        """Draw image `index`."""
        check_index(index, self.count)
        seed = self.first_seed + self.epoch * self.count + index
        rng = np.random.default_rng(seed)
        findings = None
        if self.finding_rate is not None:
            chosen = rng.random(len(FINDINGS)) < self.finding_rate
            findings = [name for name, drawn in zip(FINDINGS, chosen, strict=True) if drawn]
        return draw_phantom(seed, self.size, findings, self.finding_contrast ** rng.random())

    def set_epoch(self, epoch: int) -> None:
        """Move to the images of an epoch; 0 is the first."""
        self.epoch = epoch

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Image `index` as a row: `image` `(H, W)` uint8, `labels` `(14,)`, `thorax_mask` `(H, W)` bool."""
        phantom = self.phantom(index)
        return {"image": phantom.image, "labels": phantom.labels, "thorax_mask": phantom.thorax}


class JoinedRows(torch.utils.data.ConcatDataset):
    """Map-style data sets one after the other; the epoch is passed on to those that take it."""

    def set_epoch(self, epoch: int) -> None:
        """Pass the epoch on."""
        for rows in self.datasets:
            set_epoch_of(rows, epoch)


class RepeatedRows(WrappedRows):
    """A map-style data set repeated `times` in one epoch, to weigh it against others.

    Raises:
        ValueError: `times` is below 1.
    """

    def __init__(self, rows: Any, times: int):
        if times < 1:
            raise ValueError(f"`times` must be at least 1, got {times}. 1 changes nothing.")
        super().__init__(rows)
        self.times = times

    def __len__(self) -> int:
        """Number of rows, including repetitions."""
        return len(self.rows) * self.times

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Row `index`, counted through the repetitions."""
        check_index(index, len(self))
        return self.rows[index % len(self.rows)]


@dataclass(frozen=True)
class PhantomOptions:
    """How the phantoms of [`open_source`] are drawn.

    Args:
        count: Training images; a tenth of it, between 200 and 1,000 but at most `count`, for validation and for test.
        seed: Of the phantoms only: it changes no split of other data sets.
        size: Side in pixels.
        finding_rate, finding_contrast: Of training images, see [`PhantomRows`].
    """

    count: int = 20_000
    seed: int = 0
    size: int = 256
    finding_rate: float | None = None
    finding_contrast: float = 1.0


@dataclass(frozen=True)
class ReadingOptions:
    """How the data sets of [`open_source`] other than phantoms are split and read.

    Attributes:
        validation_fraction: Share of the training patients that goes to validation if the data set has no such split.
        validation_split: For a release: a committed list of validation patients to use instead of a draw, such as
            `nih-validation`, see [`load_nih`].
        masks_dir: For a release: its folder of thorax masks, see [`load_nih`].
        verify: Decode every image of a release or a table once, and drop those that cannot be read, by name.
        streaming: Give streams for [`TransformedStream`] instead of rows with an index.
    """

    validation_fraction: float = 0.2
    validation_split: str | None = None
    masks_dir: str | os.PathLike[str] | None = None
    verify: bool = False
    streaming: bool = False


def open_source(
    name: str,
    phantoms: PhantomOptions | None = None,
    labels: LabelOptions | None = None,
    reading: ReadingOptions | None = None,
) -> Source:
    """Open one data set by its name.

    Args:
        name: One of

            - `phantom`: synthetic images;
            - a folder in the layout of the NIH release, see [`load_nih`];
            - a table `.csv`, `.tsv` or `.parquet` of your own images, see [`load_table`], which has more options;
            - a folder of parquet in the form of a Hub data set, see [`load_hub`];
            - a folder of images, see [`load_imagefolder`];
            - a Hub id `owner/name`, see [`load_hub`]. A file or folder of that name has priority.
        phantoms: How phantoms are drawn.
        labels: How your own labels are read; phantoms and the release have the 14 of `FINDINGS`.
        reading: How other data sets are split and read.

    Returns:
        A [`Source`] whose rows are those that [`ImageTransform`] takes.

    Raises:
        FileNotFoundError: The name is none of these; the message lists what is accepted.
        ValueError: An option does not fit this kind of data set, or as for its loader.
    """
    phantoms, labels, reading = phantoms or PhantomOptions(), labels or LabelOptions(), reading or ReadingOptions()
    path = _path(name)
    kind = _kind(name, path)
    _check_options(name, kind, labels, reading)
    if kind == "phantom":
        return _phantoms(phantoms)
    own: dict[str, Any] = vars(labels) | {"validation_fraction": reading.validation_fraction}
    if kind == "hub":
        try:
            return load_hub(path if path.is_dir() else name, **own, streaming=reading.streaming)
        except (datasets.exceptions.DatasetNotFoundError, ConnectionError) as error:
            raise FileNotFoundError(f"{_not_found(name, path)} The Hub says: {error}") from error
    if kind == "images":
        return load_imagefolder(path, **own, streaming=reading.streaming)
    source = load_table(path, **own, verify=reading.verify) if kind == "table" else _release(path, reading)
    return streamed(source) if reading.streaming else source


def open_sources(
    names: Sequence[str],
    image_repeats: int = 1,
    phantoms: PhantomOptions | None = None,
    labels: LabelOptions | None = None,
    reading: ReadingOptions | None = None,
) -> dict[str, Source]:
    """Open several data sets to be trained on together.

    Args:
        names: Name of each data set, see [`open_source`].
        image_repeats: How often an epoch sees the training rows of all but `phantom`, to weigh them against phantoms.
        phantoms, labels, reading: As for [`open_source`]; `findings`, `masks_dir` and `validation_split` apply to the
            data sets that take them.

    Returns:
        The data sets by their names in metrics (letters, digits and `_`), in the order given, with labels in one order
        of findings: NaN for those that a data set does not annotate.

    Raises:
        FileNotFoundError, ValueError: As for [`open_source`], or two data sets have the same name, none of them takes
            an option, or one trains on files that another holds out.
    """
    kinds = [_kind(name, _path(name)) for name in names]
    labels, reading = labels or LabelOptions(), reading or ReadingOptions()
    opened = []
    for name, kind in zip(names, kinds, strict=True):
        # Options for other kinds are left out; an option that none of the kinds takes is kept, and refused.
        others = {
            option for option, (takers, _) in OPTION_KINDS.items() if kind not in takers and {*takers} & {*kinds}
        }
        own: dict[str, Any] = dict.fromkeys(others - {"findings"})
        own_labels = replace(labels, findings=None) if "findings" in others else labels
        opened.append(open_source(name, phantoms, own_labels, replace(reading, **own)))
    _check_apart(opened, kinds)
    findings = union_of_findings(opened)
    sources = {re.sub(r"\W", "_", source.name): align_source(source, findings) for source in opened}
    if len(sources) < len(opened):
        raise ValueError(f"`names` must be of data sets with different names, got {list(names)}. Rename one.")
    if image_repeats == 1:
        return sources
    return {
        name: source if source.name == PHANTOM else replace(source, train=RepeatedRows(source.train, image_repeats))
        for name, source in sources.items()
    }


_REMEDIES = {
    "validation": "Pass one validation_split for both, such as clarity-validation",
    "test": "Leave one of them out",
}


def _check_apart(sources: Sequence[Source], kinds: Sequence[str]) -> None:
    """Refuse data sets of which one trains on files that another holds out, and warn of patients of two releases."""
    of_files = [source for source, kind in zip(sources, kinds, strict=True) if kind in FILE_KINDS]
    for name, split, other, shared in _held_out_elsewhere(of_files, "image"):
        raise ValueError(
            f"`names` must be data sets of which none trains on what another holds out, got {shared} files in the "
            f"{split} split of {other} and in the training of {name}. Add a column `split` that agrees, or leave one "
            "of them out."
        )
    releases = [source for source, kind in zip(sources, kinds, strict=True) if kind == "release"]
    for name, split, other, shared in _held_out_elsewhere(releases, "patient_id"):
        logger.warning(
            "%d patients in the %s split of %s are in the training of %s by their ids: figures on them are too high. "
            "%s.",
            *(shared, split, other, name, _REMEDIES[split]),
        )


def _held_out_elsewhere(sources: Sequence[Source], column: str) -> Iterator[tuple[str, str, str, int]]:
    """Each data set with a split of another that shares values of a column with its training rows, and how many."""
    if len(sources) < 2:
        return
    known = [{split: _values_of(rows, column) for split, rows in source.splits().items()} for source in sources]
    for (one, own), (other, others) in itertools.permutations(zip(sources, known, strict=True), 2):
        for split in _REMEDIES:
            if shared := len(own["train"] & others[split]):
                yield one.name, split, other.name, shared


def _values_of(rows: Any, column: str) -> set[str]:
    """Ids of the patients, or paths of the images, of rows of files."""
    if hasattr(rows, "__len__") and not len(rows):
        return set()
    values = (row[column] for row in rows.with_format(None).select_columns(column))
    if column == "patient_id":
        return set(values)
    return {os.path.realpath(value["path"]) for value in values if value["path"]}


def sample_labels(rows: Any, count: int = 500) -> np.ndarray:
    """Labels for the prevalence: all that can be read without images, so that they include rare findings.

    Args:
        rows: Map-style, such as the wrappers of this module, or a stream.
        count: Rows that are read if labels come with images: the first of a stream, or evenly spaced phantoms, which
            are repeated up to the size of the data set.

    Returns:
        `(n, F)` float64 of 1, 0, NaN: one row per image, including repetitions; at most `count` of a stream.
    """
    if isinstance(rows, datasets.IterableDataset):
        return np.array([row["labels"] for row in rows.take(count)], dtype=np.float64)
    if isinstance(rows, JoinedRows):  # an empty part does not know its number of findings
        parts: list[Any] = rows.datasets
        return np.concatenate([sample_labels(part, count) for part in parts if len(part)])
    if isinstance(rows, RepeatedRows):
        return np.tile(sample_labels(rows.rows, count), (rows.times, 1))
    if isinstance(rows, AlignedRows):
        return rows.align.move(sample_labels(rows.rows, count)).astype(np.float64)
    if isinstance(rows, datasets.Dataset):
        return np.array(rows.select_columns("labels").with_format("numpy")[:]["labels"], dtype=np.float64)
    indices = np.unique(np.linspace(0, len(rows) - 1, count).astype(int))
    drawn = np.array([rows[int(index)]["labels"] for index in indices], dtype=np.float64)
    # One per row, so that phantoms keep their weight beside data sets whose labels are all read.
    return drawn[np.arange(len(rows)) * len(drawn) // len(rows)]


def prevalence_of(labels: np.ndarray) -> np.ndarray:
    """Share `(F,)` of positives among the annotated labels `(n, F)` of each finding; 0.5 if none is annotated."""
    annotated = ~np.isnan(labels)
    shares = (labels == 1).sum(0) / np.maximum(annotated.sum(0), 1)
    return np.where(annotated.any(0), shares, 0.5)


def _check_options(name: str, kind: str, labels: LabelOptions, reading: ReadingOptions) -> None:
    for option, (takers, remark) in OPTION_KINDS.items():
        value = getattr(labels if option == "findings" else reading, option)
        if value is not None and kind not in takers:
            raise ValueError(f"`{option}` must be left out for {name}, got {value!r}. {remark}")
    if reading.streaming and kind == "phantom":
        raise ValueError("`streaming` must be False for phantoms, got True. They are drawn as they are read.")


def _path(name: str) -> Path:
    return Path(os.path.expanduser(name))  # `Path.expanduser` raises if `~name` is not a user


def _kind(name: str, path: Path) -> str:
    if name == PHANTOM:
        return "phantom"
    if path.is_file() or path.suffix.lower() in TABLE_SUFFIXES:
        return "table"
    if path.is_dir():
        return _folder_kind(path)
    if _HUB_ID.fullmatch(name):
        return "hub"
    raise FileNotFoundError(_not_found(name, path))


def _folder_kind(path: Path) -> str:
    if any((path / table).is_file() for table in TABLES):
        return "release"
    if any(path.rglob("*.parquet")) and not (path / METADATA_FILES[-1]).is_file():
        return "hub"
    if any(file.suffix.lower() in IMAGE_SUFFIXES for file in path.rglob("*")):
        tables = sorted(file.name for file in path.iterdir() if file.suffix.lower() in TABLE_SUFFIXES)
        if tables and not set(tables) & set(METADATA_FILES):
            raise FileNotFoundError(
                f"`name` must be the table itself if a folder of images contains one, got {path}. "
                f"Name {path / tables[0]}."
            )
        return "images"
    raise FileNotFoundError(
        f"`name` must be a folder with {' or '.join(TABLES)}, with parquet or with images, got {path} without any of "
        "them. Name the folder that contains them, or a table."
    )


def _not_found(name: str, path: Path) -> str:
    beside = [str(file.relative_to(path.parent)) for file in path.parent.iterdir()] if path.parent.is_dir() else []
    close = difflib.get_close_matches(path.name, [*beside, PHANTOM], n=1)
    hint = f" Did you mean '{PHANTOM if close[0] == PHANTOM else path.parent / close[0]}'?" if close else ""
    return (
        f"`name` must be '{PHANTOM}', a folder in the layout of the NIH release, a table "
        f"({', '.join(TABLE_SUFFIXES)}), a folder of images or of parquet, or a Hub id 'owner/name', got '{name}', "
        f"which is none of them.{hint} Correct the name."
    )


def _phantoms(options: PhantomOptions) -> Source:
    count, seed, size = options.count, options.seed, options.size
    held_out = min(max(200, count // 10), 1000, count)
    return Source(
        PHANTOM,
        FINDINGS,
        train=PhantomRows(count, "train", seed, size, options.finding_rate, options.finding_contrast),
        validation=PhantomRows(held_out, "validation", seed, size),
        test=PhantomRows(held_out, "test", seed, size),
        has_prior=True,
    )


def _release(path: Path, reading: ReadingOptions) -> Source:
    options = {name: value for name, value in vars(reading).items() if name != "streaming"}
    release = load_nih(path, **options)
    return Source(
        path.resolve().name,
        FINDINGS,
        **{split: undecoded(rows) for split, rows in release.items()},
        has_prior="thorax_mask" in release["train"].column_names,
        messages=tuple(release["train"].info.description.splitlines()[1:]),  # after the data set's own name
    )
