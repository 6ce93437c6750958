# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Evaluation: a method run over images gives records, one per image; baselines, sanity checks, calibration."""

from .baselines import (
    AtlasSuppressionLocalizer,
    AttentionRolloutLocalizer,
    GradCamLocalizer,
    RandomMapLocalizer,
    with_map_fusion,
)
from .calibration import Calibration, CrossFitted, calibrate, cross_fitted, fit_platt
from .evaluator import BoxSettings, Evaluation, evaluate_images, read_records
from .images import EvaluationImage, PhantomImages, RowImages, open_images
from .localizers import Localizer, LocalizerOutput, ModelLocalizer
from .sanity import absent_on_normal, deletion_insertion, mass_outside, randomised_weights

__all__ = [
    "AtlasSuppressionLocalizer",
    "AttentionRolloutLocalizer",
    "BoxSettings",
    "Calibration",
    "CrossFitted",
    "Evaluation",
    "EvaluationImage",
    "GradCamLocalizer",
    "Localizer",
    "LocalizerOutput",
    "ModelLocalizer",
    "PhantomImages",
    "RandomMapLocalizer",
    "RowImages",
    "absent_on_normal",
    "calibrate",
    "cross_fitted",
    "deletion_insertion",
    "evaluate_images",
    "fit_platt",
    "mass_outside",
    "open_images",
    "randomised_weights",
    "read_records",
    "with_map_fusion",
]
