# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Deployment: model cards and half-precision checkpoints."""

from .checkpoint import save_checkpoint
from .model_card import write_model_card

__all__ = ["save_checkpoint", "write_model_card"]
