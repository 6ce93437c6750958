# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""One of the processes that read a stream through the Trainer's loader; says which images it saw.

    python -m torch.distributed.run --nproc_per_node 2 tests/data/streamed_run.py DATA_FOLDER OUTPUT_FOLDER

Each process leaves `rank.json`: for each of two epochs the images, by the number in their first label, and a sum of
their pixels.
"""

import json
import sys
from pathlib import Path

import datasets
from torch import nn

from clarity_hf import ClarityImageProcessor
from clarity_hf.data.streaming import TransformedStream
from clarity_hf.data.transforms import ImageTransform
from clarity_hf.training import ClarityDistillationTrainer, ClarityTrainingArguments


def seen(loader):
    """Image numbers and pixel sums of an epoch."""
    batches = list(loader)
    numbers = [int(label) for batch in batches for label in batch["labels"][:, 0]]
    sums = [round(image.sum().item(), 3) for batch in batches for image in batch["pixel_values"]]
    return list(zip(numbers, sums, strict=True))


def main(data, output):
    """Read two epochs."""
    rows = datasets.Dataset.load_from_disk(data).to_iterable_dataset(num_shards=4).shuffle(seed=0, buffer_size=5)
    transform = ImageTransform(ClarityImageProcessor(size={"height": 32, "width": 32}), augment="full", prior="none")
    args = ClarityTrainingArguments(
        output_dir=output,
        use_cpu=True,
        ddp_backend="gloo",
        report_to="none",
        max_steps=1,
        per_device_train_batch_size=3,
        dataloader_num_workers=2,
        dataloader_persistent_workers=True,
    )
    trainer = ClarityDistillationTrainer(
        model=nn.Linear(1, 1), args=args, train_dataset=TransformedStream(rows, transform)
    )
    loader = trainer.get_train_dataloader()
    epochs = []
    for epoch in range(2):
        loader.set_epoch(epoch)
        epochs.append(seen(loader))
    (Path(output) / f"{args.process_index}.json").write_text(json.dumps(epochs))
    trainer.accelerator.end_training()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
