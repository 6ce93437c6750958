# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Arguments of a CLARiTy training run."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import torch
from transformers import TrainingArguments


def has_native_bf16() -> bool:
    """Whether this machine computes in bfloat16 natively: a GPU that does, or a CPU with AVX512-BF16 or AMX."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.backends.cpu.get_cpu_capability().startswith("AVX512") and bool(
        getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)()
    )


@dataclass
class ClarityTrainingArguments(TrainingArguments):
    """[`transformers.TrainingArguments`] with what CLARiTy adds, and the field's defaults for AdamW.

    The weights of the other losses are part of the model: `ClarityConfig.orthogonal_loss_weight`,
    `foreground_loss_weight`, `background_loss_weight` and `evidence_loss_weight`.

    Raises:
        ValueError: An argument is out of range, or `optim` is given beside Muon.
    """

    distillation_alpha: float = field(
        default=0.5, metadata={"help": "Share α in [0, 1] of the teacher in each logit's loss, if there is a teacher."}
    )
    distillation_temperature: float = field(default=1.0, metadata={"help": "Temperature τ > 0 of the distillation."})
    map_distillation_weight: float = field(
        default=0.0,
        metadata={
            "help": "Weight of L_map, by which the student's class activation maps follow where the teacher's are "
            "high; the teacher must end in a mean over places and a linear layer, as timm's EfficientNets do."
        },
    )
    background_warmup_epochs: float = field(
        default=1.0, metadata={"help": "Epochs over which L_bg rises linearly from 0 to its weight."}
    )
    patch_dropout: float = field(
        default=0.0,
        metadata={
            "help": "Share in [0, 1) of the patches, drawn for each image, that the blocks are not given in the first "
            "--patch_dropout_epochs; 0.5 nearly halves the cost of such a step. Maps and their losses are then those "
            "of the other patches. Class tokens always stay."
        },
    )
    patch_dropout_epochs: float = field(
        default=0.0, metadata={"help": "Epochs with --patch_dropout; leave the last ones to complete images."}
    )
    layer_decay: float = field(
        default=1.0,
        metadata={"help": "Factor in (0, 1] on the learning rate from a layer to the one below; 0.65 after DINO."},
    )
    matrix_optimizer: Literal["adamw", "muon"] = field(
        default="adamw",
        metadata={
            "help": "Optimizer of the blocks' matrices, beside AdamW for the rest; 'muon' learns from fewer images "
            "when a ViT starts from random weights. --adam_beta1, --adam_beta2 and --adam_epsilon are AdamW's beside "
            "it; --optim must be left out."
        },
    )
    muon_iterations: int = field(
        default=5,
        metadata={"help": "Newton-Schulz iterations of Muon, 1 to 5; fewer cost less and orthogonalise less exactly."},
    )
    adam_beta2: float | None = field(
        default=None,
        metadata={"help": "AdamW's β2; default: 0.999, and 0.95 beside Muon, with which it was measured."},
    )
    weight_decay: float = field(default=0.05, metadata={"help": "AdamW's weight decay."})
    remove_unused_columns: bool = field(default=False, metadata={"help": "Rows are transformed when they are read."})

    def __post_init__(self):
        if not 0 <= self.distillation_alpha <= 1:
            raise ValueError(
                f"`distillation_alpha` must be inside [0, 1], got {self.distillation_alpha}. Give the teacher's share."
            )
        if not self.distillation_temperature > 0:
            raise ValueError(
                f"`distillation_temperature` must be above 0, got {self.distillation_temperature}. 1 changes nothing."
            )
        if not 0 <= self.map_distillation_weight < math.inf:
            raise ValueError(
                f"`map_distillation_weight` must be finite and at least 0, got {self.map_distillation_weight}. 0 "
                "leaves the maps alone."
            )
        if not self.background_warmup_epochs >= 0:
            raise ValueError(
                f"`background_warmup_epochs` must be at least 0, got {self.background_warmup_epochs}. 0 is no warm-up."
            )
        if not 0 <= self.patch_dropout < 1:
            raise ValueError(f"`patch_dropout` must be inside [0, 1), got {self.patch_dropout}. 0 keeps all patches.")
        if not self.patch_dropout_epochs >= 0:
            raise ValueError(
                f"`patch_dropout_epochs` must be at least 0, got {self.patch_dropout_epochs}. 0 is no patch dropout."
            )
        if (self.patch_dropout > 0) != (self.patch_dropout_epochs > 0):
            raise ValueError(
                f"`patch_dropout` and `patch_dropout_epochs` must be given together, got {self.patch_dropout} and "
                f"{self.patch_dropout_epochs}. Give both or neither."
            )
        if not 1 <= self.muon_iterations <= 5:
            raise ValueError(f"`muon_iterations` must be between 1 and 5, got {self.muon_iterations}. 5 is usual.")
        if not 0 < self.layer_decay <= 1:
            raise ValueError(f"`layer_decay` must be inside (0, 1], got {self.layer_decay}. 1 decays nothing.")
        if self.matrix_optimizer not in ("adamw", "muon"):
            raise ValueError(
                f"`matrix_optimizer` must be adamw or muon, got {self.matrix_optimizer}. Choose one of them."
            )
        if self.matrix_optimizer == "muon" and self.optim != type(self).optim:
            raise ValueError(
                f"`optim` must be {type(self).optim} with --matrix_optimizer muon, got {self.optim}. Leave --optim "
                "out: what Muon does not take is AdamW's."
            )
        if self.adam_beta2 is None:
            self.adam_beta2 = 0.95 if self.matrix_optimizer == "muon" else 0.999
        super().__post_init__()
