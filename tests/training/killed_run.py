# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""A training of seconds that may be killed at any moment and started again by the same command.

    python tests/training/killed_run.py FOLDER [SAVE_STEPS [WORKERS]]
    python -m torch.distributed.run --nproc_per_node 2 tests/training/killed_run.py FOLDER

Three epochs of 24 phantoms, new ones in each epoch, augmented, with a teacher, dropout and AdamW under a falling rate.
Every pass of process R adds a line to FOLDER/record-R.jsonl: step, images, a digest of their pixels, loss, process id.
"""

import json
import os
import sys
from hashlib import blake2b
from pathlib import Path

import torch
from tiny_run import FINDINGS, tiny_model, tiny_teacher
from transformers import set_seed

from clarity_hf import FINDINGS as ALL_FINDINGS
from clarity_hf import ClarityImageProcessor
from clarity_hf.data.sources import PhantomRows
from clarity_hf.data.transforms import ImageTransform, TransformedDataset
from clarity_hf.training import ClarityDistillationTrainer, ClarityTrainingArguments
from clarity_hf.training.checkpoint_manifest import last_intact_checkpoint

IMAGES, BATCH, EPOCHS = 24, 4, 3
STEPS = EPOCHS * IMAGES // BATCH


class NumberedImages(TransformedDataset):
    """Rows with the labels of the tiny model, and their number in the epoch."""

    columns = [ALL_FINDINGS.index(name) for name in FINDINGS]

    def __getitem__(self, index):
        row = super().__getitem__(index)
        return row | {"labels": row["labels"][self.columns], "image": torch.tensor(index)}


class RecordingTrainer(ClarityDistillationTrainer):
    """Writes down what each pass saw and lost, before the next one begins."""

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        inputs = dict(inputs)
        images = inputs.pop("image").tolist()
        loss = super().compute_loss(model, inputs, False, num_items_in_batch)
        entry = {
            "step": self.state.global_step + 1,
            "images": images,
            "pixels": blake2b(inputs["pixel_values"].numpy().tobytes(), digest_size=8).hexdigest(),
            "loss": loss.item(),
            "pid": os.getpid(),
        }
        record = Path(self.args.output_dir) / f"record-{self.args.process_index}.jsonl"
        with record.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(entry) + "\n")
        return loss


def main(folder, save_steps=4, workers=0):
    """Go on from the last whole checkpoint; process 0 leaves weights and logs when all is done."""
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    set_seed(0)
    images = PhantomRows(IMAGES, size=36, finding_rate=0.5)
    transform = ImageTransform(ClarityImageProcessor(size={"height": 32, "width": 32}), augment="full")
    trainer = RecordingTrainer(
        model=tiny_model(hidden_dropout_prob=0.1, drop_path_rate=0.1),
        args=ClarityTrainingArguments(
            output_dir=str(folder),
            use_cpu=True,
            ddp_backend="gloo" if processes > 1 else None,
            report_to="none",
            disable_tqdm=True,
            learning_rate=1e-2,
            lr_scheduler_type="cosine",
            background_warmup_epochs=2.0,
            num_train_epochs=EPOCHS,
            per_device_train_batch_size=BATCH // processes,
            logging_steps=1,
            save_strategy="steps",
            save_steps=int(save_steps),
            save_total_limit=2,
            dataloader_num_workers=int(workers),
        ),
        train_dataset=NumberedImages(images, transform, seed=0),
        teacher=tiny_teacher(),
    )
    checkpoint = last_intact_checkpoint(folder, processes)
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    if trainer.is_world_process_zero():
        weights = {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}
        result = {"weights": weights, "logs": trainer.state.log_history, "from": checkpoint and checkpoint.name}
        torch.save(result, Path(folder) / "result.pt")
    trainer.accelerator.end_training()


if __name__ == "__main__":
    main(*sys.argv[1:])
