# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""What the training scripts share: their defaults, the epoch told to the data, and resuming the right run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

from .arguments import has_native_bf16


def default_arguments() -> dict[str, Any]:
    """Defaults of a training script: evaluation and a checkpoint every epoch, the best epoch by AUROC at the end."""
    return {
        "num_train_epochs": 3,
        "per_device_train_batch_size": 32,
        "per_device_eval_batch_size": 64,
        "lr_scheduler_type": "cosine",
        "warmup_steps": 0.05,
        "logging_steps": 25,
        "eval_strategy": "epoch",
        "save_strategy": "epoch",
        "save_total_limit": 2,
        "load_best_model_at_end": True,
        "metric_for_best_model": "auroc",
        "greater_is_better": True,
        "dataloader_num_workers": 1,
        "report_to": "none",
        "bf16": has_native_bf16(),
        "use_cpu": not torch.accelerator.is_available(),
    }


class EpochTeller(TrainerCallback):
    """Tells the training data which epoch begins, so that crops and phantoms are drawn anew.

    Accelerate does so only for some samplers.
    """

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Pass the epoch on to data that can be told of it."""
        dataset = kwargs["train_dataloader"].dataset
        if hasattr(dataset, "set_epoch"):
            dataset.set_epoch(int((state.epoch or 0) + 1e-6))


def last_checkpoint(args: TrainingArguments, described: Mapping[str, Any]) -> str | None:
    """The last checkpoint in the output folder, if this very run was stopped there.

    Args:
        args: Name the folder; the process that saves writes `run.json` into it.
        described: What the run is, JSON values by name: all but the arguments of the Trainer.

    Returns:
        The checkpoint's path, or None where there is none to go on from.

    Raises:
        ValueError: The folder holds checkpoints of another run.
    """
    folder = Path(args.output_dir)
    record = folder / "run.json"
    if record.is_file() and (checkpoint := get_last_checkpoint(args.output_dir)):
        earlier = json.loads(record.read_text(encoding="utf-8"))
        changed = sorted(name for name in described if earlier.get(name) != described[name])
        if changed:
            raise ValueError(
                f"`output_dir` must be of the same run, got {folder} of a run that differs in {changed}. "
                "Give another --output_dir or delete the folder."
            )
        return checkpoint
    if args.should_save:
        folder.mkdir(parents=True, exist_ok=True)
        record.write_text(json.dumps(dict(described), indent=2) + "\n", encoding="utf-8")
    return None


def drop_pickle(folder: str | Path) -> None:
    """Remove the Trainer's `training_args.bin`, a pickle that nothing loads: the folder is to be handed on."""
    (Path(folder) / "training_args.bin").unlink(missing_ok=True)


def published_name(name: str) -> str:
    """A model's name for the reader: a Hub id as it is, the last part of a folder's path."""
    path = Path(name).expanduser()
    return path.resolve().name if path.is_dir() else name
