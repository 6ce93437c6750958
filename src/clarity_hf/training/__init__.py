# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Training: the distillation Trainer, its arguments and the teacher."""

from .arguments import ClarityTrainingArguments
from .teacher import Teacher
from .trainer import ClarityDistillationTrainer

__all__ = ["ClarityDistillationTrainer", "ClarityTrainingArguments", "Teacher"]
