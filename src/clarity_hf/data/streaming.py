# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Images that are read as a stream, each once in an epoch whatever the number of processes and workers.

Three libraries can divide a stream, and each image is seen once only if exactly one of them divides it among
processes:

- `datasets` gives each worker of a torch `DataLoader` its own shards; a stream of n shards keeps n workers busy.
- accelerate, in every prepared loader and so in the Trainer's, lets process 0 alone read a stream, in batches of all
  processes, and sends each process its part (`dispatch_batches`, the default for streams). It fills up the last
  batch with images of the first, so at most one image per process is seen twice. With
  `accelerator_config={"dispatch_batches": False}` each process reads the whole stream and keeps its own batches: the
  same images, read as often as there are processes.
- `datasets.distributed.split_dataset_by_node` is for loops without accelerate. In the Trainer it would divide a second
  time: process 0 would send out its own part, and nobody would see the others'.

So [`TransformedStream`] leaves the processes to accelerate, and to it alone. In a loop without accelerate, split the
rows first: `TransformedStream(split_dataset_by_node(rows, rank, world_size), transform)`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import datasets
import torch

from .transforms import ImageTransform


class TransformedStream(torch.utils.data.IterableDataset):
    """A stream seen through a transform: [`TransformedDataset`] for a `datasets.IterableDataset`.

    The randomness of a row depends on seed, epoch and the image itself, not on its place in the stream, on the worker
    or on the process that reads it. A stream has no length: give the Trainer `max_steps`.

    Args:
        rows: The stream, such as `load_hub(..., streaming=True).train`. Its images come in its own order:
            `rows.shuffle(seed, buffer_size)` first.
        transform: Applied to each row.
        seed: Seed of the augmentation.

    Raises:
        TypeError: `rows` is not a stream.
    """

    def __init__(self, rows: datasets.IterableDataset, transform: ImageTransform, seed: int = 0):
        if not isinstance(rows, datasets.IterableDataset):
            raise TypeError(
                f"`rows` must be a datasets.IterableDataset, got {type(rows).__name__}. Use TransformedDataset for "
                "rows with an index."
            )
        self.rows, self.transform, self.seed = rows, transform, seed

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        """All rows of this worker, transformed."""
        for row in self.rows:
            key = f"{self.seed} {self.rows.epoch} ".encode() + _draw_key(row["image"])
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(int.from_bytes(hashlib.blake2b(key, digest_size=8).digest()) >> 1)
                example = self.transform(row)
            yield example

    def set_epoch(self, epoch: int) -> None:
        """Draw new augmentations, and shuffle again if the stream is shuffled; persistent workers follow."""
        self.rows.set_epoch(epoch)


def _draw_key(image: Any) -> bytes:
    """What an image's draws depend on: the bytes of an undecoded image, its path where it has none.

    Args:
        image: `{"path", "bytes"}`.

    Raises:
        TypeError: The image is decoded.
    """
    if not isinstance(image, Mapping):
        raise TypeError(
            f"`image` must be undecoded, got {type(image).__name__}. Cast the column to datasets.Image(decode=False)."
        )
    return image["path"].encode() if image.get("bytes") is None else image["bytes"]
