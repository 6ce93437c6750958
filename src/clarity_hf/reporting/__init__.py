# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Reporting: tables, figures and cases of an evaluation as a report, and model cards."""

from .model_card import write_model_card
from .report import check_report, write_report
from .run import evaluate_checkpoint

__all__ = ["check_report", "evaluate_checkpoint", "write_model_card", "write_report"]
