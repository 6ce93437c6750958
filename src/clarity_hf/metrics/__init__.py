# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Metrics of classification and localization with intervals and comparison baselines, on arrays and records."""

from .bootstrap import (
    Interval,
    bootstrap_by_patient,
    classification_intervals,
    localization_difference,
    localization_intervals,
)
from .classification import (
    auroc_per_finding,
    average_precision_per_finding,
    calibration_error_per_finding,
    f1_thresholds,
    macro,
    mean_auroc,
    operating_points,
    reliability,
    sensitivity_thresholds,
    support,
    youden_thresholds,
)
from .localization import boxes_found, fixed_boxes, measure_map, tune_map_thresholds
from .map_checks import absent_on_normal, mass_outside
from .matching import annotated_boxes
from .protocols import clarity_protocol, patient_protocol, t_iobb, t_iou
from .published_protocols import (
    chexlocalize_miou,
    ham_mask_iou,
    max_box_acc,
    max_box_acc_v2,
    pointing_game,
    wang_protocol,
)
from .records import AnnotationRecord, ImageRecord, data_digest
from .splits import halves

__all__ = [
    "AnnotationRecord",
    "ImageRecord",
    "Interval",
    "absent_on_normal",
    "annotated_boxes",
    "auroc_per_finding",
    "average_precision_per_finding",
    "bootstrap_by_patient",
    "boxes_found",
    "calibration_error_per_finding",
    "chexlocalize_miou",
    "clarity_protocol",
    "classification_intervals",
    "data_digest",
    "f1_thresholds",
    "fixed_boxes",
    "halves",
    "ham_mask_iou",
    "localization_difference",
    "localization_intervals",
    "macro",
    "mass_outside",
    "max_box_acc",
    "max_box_acc_v2",
    "mean_auroc",
    "measure_map",
    "operating_points",
    "patient_protocol",
    "pointing_game",
    "reliability",
    "sensitivity_thresholds",
    "support",
    "t_iobb",
    "t_iou",
    "tune_map_thresholds",
    "wang_protocol",
    "youden_thresholds",
]
