# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Arguments of a training: CLARiTy's own, the defaults of a run, the command line and YAML files."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
import yaml
from transformers import HfArgumentParser, TrainingArguments

from clarity_hf.deprecated import current_options


def has_native_bf16() -> bool:
    """Whether this machine computes in bfloat16 natively: a GPU, or a CPU with AVX512-BF16 or AMX."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.backends.cpu.get_cpu_capability().startswith("AVX512") and bool(
        getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)()
    )


def option(default: Any, description: str) -> Any:
    """A field of a dataclass of arguments: its default and its help on the command line."""
    return field(default=default, metadata={"help": description})


@dataclass
class ClarityTrainingArguments(TrainingArguments):
    """[`transformers.TrainingArguments`] with CLARiTy's own arguments and the usual defaults for AdamW.

    The weights of the other losses are part of the model: `ClarityConfig.orthogonal_loss_weight`,
    `foreground_loss_weight`, `background_loss_weight` and `evidence_loss_weight`.

    Raises:
        ValueError: An argument is out of range, or `optim` is given with Muon.
    """

    distillation_alpha: float = option(
        0.5, "Share α in [0, 1] of the teacher in each logit's loss, if a teacher is given."
    )
    distillation_temperature: float = option(1.0, "Temperature τ > 0 of the distillation.")
    map_distillation_weight: float = option(
        0.0,
        "Weight of L_map, by which the student's class activation maps follow the teacher's; the teacher must end in "
        "a mean over places and a linear layer, as timm's EfficientNets do.",
    )
    background_warmup_epochs: float = option(1.0, "Epochs over which L_bg rises linearly from 0 to its weight.")
    patch_dropout: float = option(
        0.0,
        "Share in [0, 1) of each image's patches that are randomly dropped before the blocks in the first "
        "--patch_dropout_epochs; 0.5 nearly halves the cost of a step. Maps and their losses are then those of the "
        "other patches. Class tokens are never dropped.",
    )
    patch_dropout_epochs: float = option(0.0, "Epochs with --patch_dropout; leave the last ones without.")
    layer_decay: float = option(
        1.0, "Factor in (0, 1] on the learning rate from a layer to the one below; 0.65 after DINO."
    )
    matrix_optimizer: Literal["adamw", "muon"] = option(
        "adamw",
        "Optimizer of the blocks' matrices; AdamW, with --adam_beta1, --adam_beta2 and --adam_epsilon, for the rest. "
        "'muon' needs fewer images when a ViT starts from random weights; leave --optim out.",
    )
    muon_iterations: int = option(5, "Newton-Schulz iterations of Muon, 1 to 5; fewer are faster and less exact.")
    adam_beta2: float | None = option(None, "AdamW's β2; default: 0.999, and 0.95 with Muon.")
    weight_decay: float = option(0.05, "AdamW's weight decay.")
    remove_unused_columns: bool = option(False, "Rows are transformed when they are read.")

    def __post_init__(self):
        for name, accepted, wanted, remedy in RANGES:
            if not accepted(value := getattr(self, name)):
                raise ValueError(f"`{name}` must be {wanted}, got {value}. {remedy}")
        if (self.patch_dropout > 0) != (self.patch_dropout_epochs > 0):
            raise ValueError(
                f"`patch_dropout` and `patch_dropout_epochs` must be given together, got {self.patch_dropout} and "
                f"{self.patch_dropout_epochs}. Give both or neither."
            )
        if self.matrix_optimizer == "muon" and self.optim != type(self).optim:
            raise ValueError(
                f"`optim` must be {type(self).optim} with --matrix_optimizer muon, got {self.optim}. Leave --optim "
                "out: AdamW optimizes the other weights."
            )
        if self.adam_beta2 is None:
            self.adam_beta2 = 0.95 if self.matrix_optimizer == "muon" else 0.999
        super().__post_init__()


RANGES: tuple[tuple[str, Callable[[Any], bool], str, str], ...] = (
    ("distillation_alpha", lambda value: 0 <= value <= 1, "inside [0, 1]", "Give the teacher's share."),
    ("distillation_temperature", lambda value: value > 0, "above 0", "1 changes nothing."),
    ("map_distillation_weight", lambda value: 0 <= value < math.inf, "finite and at least 0", "0 ignores the maps."),
    ("background_warmup_epochs", lambda value: value >= 0, "at least 0", "0 turns the warm-up off."),
    ("patch_dropout", lambda value: 0 <= value < 1, "inside [0, 1)", "0 keeps all patches."),
    ("patch_dropout_epochs", lambda value: 0 <= value < math.inf, "at least 0 and finite", "0 turns it off."),
    ("layer_decay", lambda value: 0 < value <= 1, "inside (0, 1]", "1 decays nothing."),
    ("matrix_optimizer", lambda value: value in ("adamw", "muon"), "adamw or muon", "Choose one of them."),
    ("muon_iterations", lambda value: 1 <= value <= 5, "between 1 and 5", "5 is usual."),
)
"""Arguments with their valid values, in code and in words, and a remedy."""


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

    `clarity-hf train stage.yaml --learning_rate 1e-4` takes from the file what the command line leaves out. Both
    accept names with underscores or hyphens; `null` in a file means the default.

    Args:
        data_classes: Dataclasses whose fields are the arguments.
        defaults: Defaults of the command by name, instead of those of the dataclasses.
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
    """Arguments as words of a command line: a dict as JSON, a list as several words, without None."""
    flags: list[str] = []
    for name, value in arguments.items():
        if value is None:
            continue
        values = value if isinstance(value, list) else [value]
        flags += [f"--{name}", *(json.dumps(item) if isinstance(item, dict) else str(item) for item in values)]
    return flags
