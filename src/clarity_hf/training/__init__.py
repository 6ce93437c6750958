# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Training: the distillation Trainer and its arguments, the teacher and its cached logits, initialisation."""

from clarity_hf.deprecated import old_names
from clarity_hf.teacher import Teacher

from .adaptation import adapt_findings
from .arguments import ClarityTrainingArguments
from .initialization import config_from_vit, initialize_from_vit
from .teacher_cache import cache_teacher_logits
from .trainer import ClarityDistillationTrainer

__getattr__ = old_names(__name__)

__all__ = [
    "ClarityDistillationTrainer",
    "ClarityTrainingArguments",
    "Teacher",
    "adapt_findings",
    "cache_teacher_logits",
    "config_from_vit",
    "initialize_from_vit",
]
