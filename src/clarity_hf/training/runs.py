# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""What all trainings share: default arguments, the command line, callbacks, and resuming the right run."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from transformers import HfArgumentParser, TrainerCallback, TrainingArguments

from clarity_hf.deprecated import current_options
from clarity_hf.files import replaced_file

from .arguments import has_native_bf16
from .checkpoint_manifest import last_whole_checkpoint

COMPARED = (
    "seed",
    "data_seed",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "learning_rate",
    "weight_decay",
    "layer_decay",
    "matrix_optimizer",
    "optim",
    "adam_beta1",
    "adam_beta2",
    "adam_epsilon",
    "distillation_alpha",
    "distillation_temperature",
    "map_distillation_weight",
    "patch_dropout",
    "patch_dropout_epochs",
    "muon_iterations",
)
"""Arguments of the Trainer that distinguish runs. The number of epochs does not: a run may be extended."""


def default_arguments() -> dict[str, Any]:
    """Defaults of a training: evaluation and a checkpoint every epoch, the best epoch by AUROC at the end."""
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


def parse_arguments(
    data_classes: Sequence[Any], defaults: Mapping[str, Any], words: Sequence[str] | None = None
) -> tuple[Any, ...]:
    """Parse the arguments of a training, optionally preceded by a YAML or JSON file.

    `clarity-hf train stage.yaml --learning_rate 1e-4` takes from the file what the command line leaves out. Both take
    names with underscores or hyphens; `null` in a file means the default.

    Args:
        data_classes: Dataclasses whose fields are the arguments.
        defaults: Defaults of the command by name, in place of those of the dataclasses.
        words: Command line; by default that of the process.

    Returns:
        An instance of each class.

    Raises:
        ValueError: The file does not map names to values, or an argument is unknown.
    """
    parser = HfArgumentParser(data_classes)
    parser.set_defaults(**defaults)
    words = list(sys.argv[1:] if words is None else words)
    if words and words[0].endswith((".yaml", ".yml", ".json")):
        settings = yaml.safe_load(Path(words[0]).read_text(encoding="utf-8"))  # JSON is YAML
        if not isinstance(settings, dict):
            raise ValueError(f"`{words[0]}` must map arguments to values, got {settings!r}. Write `name: value`.")
        words = to_flags(settings) + words[1:]
    return parser.parse_args_into_dataclasses(args=current_options(words))


def to_flags(arguments: Mapping[str, Any]) -> list[str]:
    """Arguments as words of a command line: a dict as JSON, a list as several words, None left out."""
    flags: list[str] = []
    for name, value in arguments.items():
        if value is None:
            continue
        values = value if isinstance(value, list) else [value]
        flags += [f"--{name}", *(json.dumps(item) if isinstance(item, dict) else str(item) for item in values)]
    return flags


class SetEpochCallback(TrainerCallback):
    """Sets the epoch of the training data, so that crops and phantoms are drawn again in each epoch.

    Accelerate does so for some samplers only.
    """

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Call `set_epoch` of the training data, if it has one."""
        dataset = kwargs["train_dataloader"].dataset
        if hasattr(dataset, "set_epoch"):
            dataset.set_epoch(int((state.epoch or 0) + 1e-6))


class LogLastStepCallback(TrainerCallback):
    """Also logs the loss of the last steps, as a run shorter than `logging_steps` would otherwise log none."""

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Request a log at the end of the run, unless logging is off."""
        if state.global_step >= state.max_steps and args.logging_strategy != "no":
            control.should_log = True


def last_checkpoint(args: TrainingArguments, described: Mapping[str, Any]) -> str | None:
    """The last intact checkpoint in the output folder, if it belongs to this same run.

    Checkpoints that a kill or a full or failing disk damaged are skipped with a warning.

    Args:
        args: Arguments of the Trainer. Those in `COMPARED` must equal the earlier run's. The process that saves
            writes `run.json` into the output folder.
        described: Description of the run apart from the Trainer's arguments, JSON values by name.

    Returns:
        The checkpoint's path, or None if there is no intact checkpoint.

    Raises:
        ValueError: The folder has checkpoints of another run, of another number of processes or without optimizer, or
            no readable record of the run that made them.
    """
    folder = Path(args.output_dir)
    record = folder / "run.json"
    earlier = _read_record(record) if record.is_file() else {}
    checkpoint = last_whole_checkpoint(folder, args.world_size, earlier.get("processes"))
    settings = {name: getattr(args, name) for name in COMPARED if hasattr(args, name)}
    if checkpoint:
        if not record.is_file():
            raise ValueError(
                f"`output_dir` must hold {record.name} beside its checkpoints, got {checkpoint} of an unknown run. "
                "Give another --output_dir, or name the checkpoint by --resume_from_checkpoint."
            )
        changed = [name for name in described if earlier.get(name) != described[name]]
        # Folders of earlier versions have no record of these.
        changed += [name for name in settings if name in earlier and earlier[name] != settings[name]]
        if changed:
            raise ValueError(
                f"`output_dir` must be of the same run, got {folder} of a run that differs in {sorted(changed)}. "
                "Give another --output_dir or delete the folder."
            )
        return str(checkpoint)
    if args.should_save:
        described = {**described, **settings, "processes": args.world_size}
        with replaced_file(record) as made:  # other processes may be reading it
            made.write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")
    return None


def _read_record(record: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(record.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"`output_dir` must hold a readable {record.name}, got {record}: {error}. Give another --output_dir, or "
            "name a checkpoint by --resume_from_checkpoint."
        ) from error


def drop_pickle(folder: str | Path) -> None:
    """Remove the Trainer's `training_args.bin`, a pickle that nothing loads, from a folder that may be shared."""
    (Path(folder) / "training_args.bin").unlink(missing_ok=True)


