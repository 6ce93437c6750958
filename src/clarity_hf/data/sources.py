# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Data sets by name: phantoms, the NIH release, your own tables and folders, the Hub."""

from __future__ import annotations

import difflib
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch

from clarity_hf.labels import FINDINGS
from clarity_hf.phantoms import Phantom, draw_phantom

from .hub import METADATA_FILES, load_hub, load_imagefolder
from .label_columns import Uncertain
from .nih import TABLES, load_nih
from .rows import AlignedRows, Source, align_source, streamed, undecoded, union_of_findings
from .table_files import TABLE_SUFFIXES
from .tables import load_table

PHANTOM = "phantom"
"""Name of the data set that is drawn as it is read and needs no files."""

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
"""Files by which a folder of images is known."""

OPTION_KINDS = {"findings": ("hub", "images", "table"), "masks_dir": ("release",), "validation_split": ("release",)}
"""Options that only some kinds of data sets take."""

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")

SPLIT_SEEDS = {"train": 1, "validation": 2, "test": 3}
"""Streams of phantoms, so that no image of a split occurs in another whatever their sizes."""


class PhantomRows:
    """Synthetic phantoms as a map-style data set: row i is the same image on every reading in an epoch.

    `set_epoch` moves to images that no earlier epoch had, so that training never runs out of them.

    Args:
        count: Number of images.
        split: `train`, `validation` or `test`: disjoint streams.
        seed: Seed of the set.
        size: Side of the images in pixels.
        finding_rate: Probability with which an image has each finding, independently of the others; None draws
            findings as they occur together in the release. A dense, uncorrelated mix teaches more per image.
        finding_contrast: Largest contrast of an image's findings; each image has its own between 1 and this, evenly on
            a logarithmic scale. 1 leaves all images as they are measured on.

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
            raise ValueError(f"`finding_rate` must be inside [0, 1], got {finding_rate}. Give a probability.")
        if not 1 <= finding_contrast < math.inf:
            raise ValueError(f"`finding_contrast` must be at least 1, got {finding_contrast}. 1 changes nothing.")
        self.count, self.size, self.epoch = count, size, 0
        self.finding_rate, self.finding_contrast = finding_rate, finding_contrast
        self.first_seed = (seed * len(SPLIT_SEEDS) + SPLIT_SEEDS[split]) << 32

    def __len__(self) -> int:
        """Number of images."""
        return self.count

    def phantom(self, index: int) -> Phantom:
        """Draw image `index`.

        Raises:
            IndexError: There is no such image.
        """
        if not 0 <= index < self.count:
            raise IndexError(f"`index` must be between 0 and {self.count - 1}, got {index}.")
        seed = self.first_seed + self.epoch * self.count + index
        rng = np.random.default_rng(seed)
        findings = None
        if self.finding_rate is not None:
            chosen = rng.random(len(FINDINGS)) < self.finding_rate
            findings = [name for name, drawn in zip(FINDINGS, chosen, strict=True) if drawn]
        return draw_phantom(seed, self.size, findings, self.finding_contrast ** rng.random())

    def set_epoch(self, epoch: int) -> None:
        """Go on to the images of an epoch; 0 is the first."""
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
            if hasattr(rows, "set_epoch"):
                rows.set_epoch(epoch)


class RepeatedRows:
    """A map-style data set seen `times` over in one epoch, so that a small one weighs more beside a large one.

    Raises:
        ValueError: `times` is under 1.
    """

    def __init__(self, rows: Any, times: int):
        if times < 1:
            raise ValueError(f"`times` must be at least 1, got {times}. 1 leaves the rows as they are.")
        self.rows, self.times = rows, times

    def __len__(self) -> int:
        """Number of rows, repetitions counted."""
        return len(self.rows) * self.times

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Row `index`, counted through the repetitions."""
        if not 0 <= index < len(self):  # without it a loop over the rows would never end
            raise IndexError(f"`index` must be between 0 and {len(self) - 1}, got {index}.")
        return self.rows[index % len(self.rows)]


def open_source(
    name: str,
    phantom_count: int = 20_000,
    seed: int = 0,
    validation_fraction: float = 0.2,
    finding_rate: float | None = None,
    finding_contrast: float = 1.0,
    phantom_size: int = 256,
    verify: bool = False,
    findings: Sequence[str] | Mapping[str, str] | None = None,
    uncertain: Uncertain = "nan",
    masks_dir: str | os.PathLike[str] | None = None,
    streaming: bool = False,
    validation_split: str | None = None,
) -> Source:
    """Open one data set, by what its name is.

    Args:
        name: One of

            - `phantom`: synthetic images;
            - a folder in the layout of the NIH release, see [`load_nih`];
            - a table `.csv`, `.tsv` or `.parquet` of own images, see [`load_table`], which has more options;
            - a folder of parquet in the form of a Hub data set, see [`load_hub`];
            - a folder of images, see [`load_imagefolder`];
            - a Hub id `owner/name`, see [`load_hub`]. A file or folder of that name goes first.
        phantom_count: Training images of `phantom`; a tenth of it, between 200 and 1,000 and never more than it, for
            validation and as many for test.
        seed: Seed of the phantoms. It does not change the validation patients of a data set, so that no run trains on
            a radiograph that another validates on.
        validation_fraction: Share of the training patients that goes to validation if the data set has no such split.
        finding_rate: For training phantoms, see [`PhantomRows`].
        finding_contrast: For training phantoms, see [`PhantomRows`].
        phantom_size: Side of the phantoms in pixels.
        verify: Decode every image of a release or a table once and leave out those that do not, by name.
        findings: For your own labels, see [`load_table`]; phantoms and the release have the 14 of `FINDINGS`.
        uncertain: For your own labels: how −1 is read, `nan`, `negative` or `positive`.
        masks_dir: For a release: its folder of thorax masks, see [`load_nih`]. A table has a column of masks.
        streaming: Give streams for [`TransformedStream`] instead of rows with an index.
        validation_split: For a release: the committed list of its validation patients, such as `nih-validation`, in
            place of a draw, see [`load_nih`]. A table has a column of splits.

    Returns:
        A [`Source`]; its rows are what [`ImageTransform`] takes.

    Raises:
        FileNotFoundError: The name is none of these; the message lists what is accepted.
        ValueError: An option does not fit this kind of data set, or as for its loader.
    """
    path = _path(name)
    kind = _kind(name, path)
    _check_options(name, kind, findings, masks_dir, streaming, validation_split)
    if kind == "phantom":
        return _phantoms(phantom_count, seed, finding_rate, finding_contrast, phantom_size)
    if kind == "hub":
        return _open_hub(name, path, findings, uncertain, validation_fraction, streaming)
    own: dict[str, Any] = {"findings": findings, "uncertain": uncertain, "validation_fraction": validation_fraction}
    if kind == "images":
        return load_imagefolder(path, **own, streaming=streaming)
    if kind == "table":
        source = load_table(path, **own, verify=verify)
    else:
        source = _release(path, validation_fraction, verify, masks_dir, validation_split)
    return streamed(source) if streaming else source


def open_sources(names: Sequence[str], image_repeats: int = 1, **options: Any) -> dict[str, Source]:
    """Open several data sets to be trained on together.

    Args:
        names: Name of each data set, see [`open_source`].
        image_repeats: How often an epoch sees the training rows of all but `phantom`, to weigh them against phantoms.
        options: As for [`open_source`], for all of them; `findings`, `masks_dir` and `validation_split` go to those
            that take them.

    Returns:
        The data sets by the name that they have in metrics (letters, digits and `_`), in the order given, their labels
        in one order of findings: NaN for what a data set does not annotate.

    Raises:
        FileNotFoundError, ValueError: As [`open_source`], or two data sets have the same name, or none of them takes
            an option.
    """
    kinds = [_kind(name, _path(name)) for name in names]
    opened = [open_source(name, **_own_options(kind, kinds, options)) for name, kind in zip(names, kinds, strict=True)]
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


def sample_labels(rows: Any, count: int = 500) -> np.ndarray:
    """Labels for the prevalence: all that can be read without the images, so that rare findings are among them.

    Args:
        rows: Map-style, as the wrappers of this module, or a stream.
        count: Rows that are read where labels come with images alone: of a stream the first, of phantoms evenly spaced
            ones, each standing for as many rows as the data set has of them.

    Returns:
        `(n, F)` float64 of 1, 0, NaN: a row an image, repetitions counted; of a stream at most `count`.
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
    # As many as there are rows: phantoms keep their weight beside data sets whose labels are all read.
    return drawn[np.arange(len(rows)) * len(drawn) // len(rows)]


def prevalence_of(labels: np.ndarray) -> np.ndarray:
    """Share `(F,)` of positives among the annotated labels `(n, F)` of each finding; 0.5 where none is annotated."""
    annotated = ~np.isnan(labels)
    shares = (labels == 1).sum(0) / np.maximum(annotated.sum(0), 1)
    return np.where(annotated.any(0), shares, 0.5)


def _own_options(kind: str, kinds: Sequence[str], options: Mapping[str, Any]) -> dict[str, Any]:
    """Options without those of other kinds; an option that no kind takes is kept and refused later."""
    others = {name for name, takers in OPTION_KINDS.items() if kind not in takers and set(takers) & set(kinds)}
    return {name: value for name, value in options.items() if name not in others}


def _check_options(
    name: str, kind: str, findings: Any, masks_dir: Any, streaming: bool, validation_split: str | None
) -> None:
    if findings is not None and kind not in OPTION_KINDS["findings"]:
        raise ValueError(f"`findings` must be left out for {name}, got {list(findings)}. It has the 14 of FINDINGS.")
    if masks_dir is not None and kind not in OPTION_KINDS["masks_dir"]:
        raise ValueError(f"`masks_dir` must be left out for {name}, got {masks_dir}. Only a release has one.")
    if validation_split is not None and kind not in OPTION_KINDS["validation_split"]:
        raise ValueError(
            f"`validation_split` must be left out for {name}, got '{validation_split}'. Its lists are of patients of "
            "the NIH release."
        )
    if streaming and kind == "phantom":
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
                f"`name` must be the table itself where a folder of images has one of its own, got {path}. "
                f"Name {path / tables[0]}."
            )
        return "images"
    raise FileNotFoundError(
        f"`name` must be a folder with {' or '.join(TABLES)}, with parquet or with images, got {path} without any of "
        "them. Name the folder that holds them, or a table."
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


def _open_hub(
    name: str,
    path: Path,
    findings: Sequence[str] | Mapping[str, str] | None,
    uncertain: Uncertain,
    validation_fraction: float,
    streaming: bool,
) -> Source:
    try:
        return load_hub(
            path if path.is_dir() else name,
            findings,
            uncertain=uncertain,
            validation_fraction=validation_fraction,
            streaming=streaming,
        )
    except (datasets.exceptions.DatasetNotFoundError, ConnectionError) as error:
        raise FileNotFoundError(f"{_not_found(name, path)} The Hub says: {error}") from error


def _phantoms(count: int, seed: int, finding_rate: float | None, finding_contrast: float, size: int) -> Source:
    held_out = min(max(200, count // 10), 1000, count)
    return Source(
        PHANTOM,
        FINDINGS,
        train=PhantomRows(count, "train", seed, size, finding_rate, finding_contrast),
        validation=PhantomRows(held_out, "validation", seed, size),
        test=PhantomRows(held_out, "test", seed, size),
        has_prior=True,
    )


def _release(
    path: Path,
    validation_fraction: float,
    verify: bool,
    masks_dir: str | os.PathLike[str] | None,
    validation_split: str | None,
) -> Source:
    release = load_nih(
        path,
        validation_fraction=validation_fraction,
        verify=verify,
        masks_dir=masks_dir,
        validation_split=validation_split,
    )
    return Source(
        path.resolve().name,
        FINDINGS,
        **{split: undecoded(rows) for split, rows in release.items()},
        has_prior="thorax_mask" in release["train"].column_names,
        messages=tuple(release["train"].info.description.splitlines()[1:]),  # after the data set's own name
    )
