# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Data sets by what a user names: the word `phantom`, or folders in the layout of the NIH release."""

from __future__ import annotations

import os
from typing import Any

import datasets
import numpy as np
import torch

from clarity_hf.labels import FINDINGS

from .nih import load_nih
from .phantoms import Phantom, draw_phantom

PHANTOM = "phantom"
"""Name of the data set that is drawn as it is read and needs no files."""

SPLIT_SEEDS = {"train": 1, "validation": 2, "test": 3}
"""Streams of phantoms, so that no film of a split occurs in another whatever their sizes."""


class PhantomRows:
    """Synthetic phantoms as a map-style data set: row i is the same film on every reading in an epoch.

    `set_epoch` goes on to films that no earlier epoch had, so that training is endless.

    Args:
        count: Number of films.
        split: `train`, `validation` or `test`: disjoint streams.
        seed: Of the whole set.
        size: Side of the films in pixels.
        finding_rate: Probability with which a film has each finding, independently of the others; None draws findings
            as they occur together in the release. A dense, uncorrelated mix teaches more per film.

    Raises:
        ValueError: `split` is unknown, or `finding_rate` is outside [0, 1].
    """

    def __init__(
        self, count: int, split: str = "train", seed: int = 0, size: int = 256, finding_rate: float | None = None
    ):
        if split not in SPLIT_SEEDS:
            raise ValueError(f"`split` must be one of {list(SPLIT_SEEDS)}, got '{split}'. Choose one of them.")
        if finding_rate is not None and not 0 <= finding_rate <= 1:
            raise ValueError(f"`finding_rate` must be inside [0, 1], got {finding_rate}. Give a probability.")
        self.count, self.size, self.finding_rate, self.epoch = count, size, finding_rate, 0
        self.first_seed = (seed * len(SPLIT_SEEDS) + SPLIT_SEEDS[split]) << 32

    def __len__(self) -> int:
        """Number of films."""
        return self.count

    def phantom(self, index: int) -> Phantom:
        """Draw film `index`.

        Raises:
            IndexError: There is no such film.
        """
        if not 0 <= index < self.count:
            raise IndexError(f"`index` must be between 0 and {self.count - 1}, got {index}.")
        seed = self.first_seed + self.epoch * self.count + index
        if self.finding_rate is None:
            return draw_phantom(seed, self.size)
        chosen = np.random.default_rng(seed).random(len(FINDINGS)) < self.finding_rate
        return draw_phantom(seed, self.size, [name for name, drawn in zip(FINDINGS, chosen, strict=True) if drawn])

    def set_epoch(self, epoch: int) -> None:
        """Go on to the films of an epoch; 0 is the first."""
        self.epoch = epoch

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Film `index` as a row: `image` `(H, W)` uint8, `labels` `(14,)`, `thorax_mask` `(H, W)` bool."""
        phantom = self.phantom(index)
        return {"image": phantom.image, "labels": phantom.labels, "thorax_mask": phantom.thorax}


class JoinedRows(torch.utils.data.ConcatDataset):
    """Map-style data sets one after the other, each told of the epoch that it can be told of."""

    def set_epoch(self, epoch: int) -> None:
        """Pass the epoch on."""
        for rows in self.datasets:
            if hasattr(rows, "set_epoch"):
                rows.set_epoch(epoch)


class RepeatedRows:
    """A map-style data set seen `times` over in one epoch, so that a small one weighs more beside a large one."""

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
    phantom_size: int = 256,
    verify: bool = False,
) -> dict[str, Any]:
    """Open one data set.

    Args:
        name: `phantom`, or a folder in the layout of the NIH release (see [`load_nih`]).
        phantom_count: Training films of `phantom`; a tenth of it, between 200 and 1,000, for validation and as many
            for test.
        seed: Of the phantoms. The validation patients of a folder are the same under every seed: a film that one run
            trains on is never another's validation.
        validation_fraction: Share of the train_val patients that go to validation.
        finding_rate: Of the phantoms for training, see [`PhantomRows`].
        phantom_size: Side of the phantoms in pixels.
        verify: Decode every film of a folder once and leave out those that do not, by name.

    Returns:
        `train`, `validation` and `test`: map-style data sets of rows for [`FilmTransform`], possibly empty.

    Raises:
        FileNotFoundError: The folder is not there or holds no release.
    """
    if name == PHANTOM:
        held_out = min(max(200, phantom_count // 10), 1000)
        return {
            "train": PhantomRows(phantom_count, "train", seed, phantom_size, finding_rate),
            "validation": PhantomRows(held_out, "validation", seed, phantom_size),
            "test": PhantomRows(held_out, "test", seed, phantom_size),
        }
    release = load_nih(os.path.expanduser(name), validation_fraction=validation_fraction, verify=verify)
    return {split: undecoded(rows) for split, rows in release.items()}


def carries_prior(rows: Any) -> bool:
    """Whether rows have a thorax mask, from which a model can learn its foreground."""
    return isinstance(rows, PhantomRows) or "thorax_mask" in rows.column_names


def undecoded(rows: datasets.Dataset) -> datasets.Dataset:
    """Leave the image columns undecoded, so that our reader opens them and its errors name the file."""
    for column in ("image", "thorax_mask"):
        if column in rows.column_names:
            rows = rows.cast_column(column, datasets.Image(decode=False))
    return rows
