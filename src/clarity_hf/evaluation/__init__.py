# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Evaluation: classification metrics, thresholds, and the share of boxes found."""

from .classification import MultilabelAuroc, auroc_per_finding, mean_auroc, youden_thresholds
from .localization import boxes_found, constant_box, predicted_boxes, tune_map_thresholds
from .prediction import predict

__all__ = [
    "MultilabelAuroc",
    "auroc_per_finding",
    "boxes_found",
    "constant_box",
    "mean_auroc",
    "predict",
    "predicted_boxes",
    "tune_map_thresholds",
    "youden_thresholds",
]
