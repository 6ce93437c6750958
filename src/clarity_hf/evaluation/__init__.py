# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Evaluation: a method run over images gives records, one per image; baselines, sanity checks, calibration."""

from clarity_hf.deprecated import old_names
from clarity_hf.metrics.localization import BoxSettings

from .baselines import (
    AtlasSuppressionLocalizer,
    AttentionRolloutLocalizer,
    GradCamLocalizer,
    RandomMapLocalizer,
    with_map_fusion,
)
from .calibration import Calibration, CrossFitted, calibrate, cross_fitted, fit_platt
from .evaluator import Evaluation, evaluate_images, read_records
from .images import EvaluationImage, PhantomImages, RowImages, open_images
from .localizers import Localizer, LocalizerOutput, ModelLocalizer
from .run import (
    BASELINES,
    CheckpointEvaluation,
    RunSettings,
    calibration_records,
    evaluate_methods,
    make_baselines,
)
from .sanity import deletion_insertion, randomised_weights
from .trainer_metrics import MultilabelAuroc

__getattr__ = old_names(__name__)

__all__ = [
    "BASELINES",
    "AtlasSuppressionLocalizer",
    "AttentionRolloutLocalizer",
    "BoxSettings",
    "Calibration",
    "CheckpointEvaluation",
    "CrossFitted",
    "Evaluation",
    "EvaluationImage",
    "GradCamLocalizer",
    "Localizer",
    "LocalizerOutput",
    "ModelLocalizer",
    "MultilabelAuroc",
    "PhantomImages",
    "RandomMapLocalizer",
    "RowImages",
    "RunSettings",
    "calibrate",
    "calibration_records",
    "cross_fitted",
    "deletion_insertion",
    "evaluate_images",
    "evaluate_methods",
    "fit_platt",
    "make_baselines",
    "open_images",
    "randomised_weights",
    "read_records",
    "with_map_fusion",
]
