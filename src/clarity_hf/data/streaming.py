# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Images read as a stream, each once per epoch for any number of processes and workers.

Several libraries can divide a stream among processes, and exactly one of them must:

- `datasets` gives each worker of a torch `DataLoader` its own shards; a stream of n shards keeps n workers busy.
- accelerate, and so the Trainer, reads a stream in process 0 only, in batches of all processes, and sends each process
  its part (`dispatch_batches`, the default for streams). It completes the last batch with images of the first, so at
  most one image per process is seen twice. With `accelerator_config={"dispatch_batches": False}` each process reads
  the entire stream and keeps its own batches.
- `datasets.distributed.split_dataset_by_node` is for loops without accelerate:
  `TransformedStream(split_dataset_by_node(rows, rank, world_size), transform)`. In the Trainer it would divide a
  second time.

[`TransformedStream`] leaves this to accelerate.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import datasets
import torch

from .transforms import ImageTransform, seeded


class TransformedStream(torch.utils.data.IterableDataset):
    """A stream seen through a transform: [`TransformedDataset`] for a `datasets.IterableDataset`.

    The randomness of a row depends on seed, epoch and the image, not on its place in the stream, on the worker or on
    the process. A stream has no length: give the Trainer `max_steps`.

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
            yield seeded(self.transform, row, key)

    def set_epoch(self, epoch: int) -> None:
        """Draw new augmentations, and shuffle again if the stream is shuffled."""
        self.rows.set_epoch(epoch)


def _draw_key(image: Any) -> bytes:
    """What the random numbers of an undecoded image depend on: its bytes, or its path without them."""
    if not isinstance(image, Mapping):
        raise TypeError(
            f"`image` must be undecoded, got {type(image).__name__}. Cast the column to datasets.Image(decode=False)."
        )
    return image["path"].encode() if image.get("bytes") is None else image["bytes"]
