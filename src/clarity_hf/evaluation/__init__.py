# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Evaluation: metrics, protocols, baselines, sanity of maps, calibration, and the report.

A method and films become records ([`evaluate_films`]), a line of JSON a film; every table is made from records.
[`evaluate_checkpoint`] does all of it. Each file uses those before it: `localizers`, `records`, `classification`,
`bootstrap`, `localization`, `protocol`, `localization_metrics`, `calibration`, `baselines`, `sanity`, `films`,
`evaluator`, `curves`, `tables`, `cases`, `report`, `checkpoint`.
"""

from .baselines import (
    AtlasSuppressionLocalizer,
    AttentionRolloutLocalizer,
    GradCamLocalizer,
    RandomMapLocalizer,
    with_map_fusion,
)
from .bootstrap import Interval, bootstrap_by_patient, classification_intervals, paired_difference
from .calibration import Calibration, calibrate
from .checkpoint import BASELINES, evaluate_checkpoint
from .classification import (
    MultilabelAuroc,
    MultilabelAveragePrecision,
    MultilabelCalibrationError,
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
from .evaluator import BoxSettings, Evaluation, evaluate_films, read_records
from .films import Film, PhantomFilms, RowFilms, open_films
from .localization import boxes_found, constant_box, measure_map, tune_map_thresholds
from .localization_metrics import (
    ChexlocalizeMiou,
    HamMaskIou,
    MaxBoxAcc,
    MaxBoxAccV2,
    PointingGame,
    TIobb,
    TIou,
    WangLocalization,
)
from .localizers import Localizer, LocalizerOutput, ModelLocalizer
from .protocol import (
    chexlocalize_miou,
    clarity_protocol,
    halves,
    ham_mask_iou,
    localization_difference,
    localization_intervals,
    max_box_acc,
    max_box_acc_v2,
    patient_protocol,
    pointing_game,
    t_iobb,
    t_iou,
    tune_thresholds,
    wang_protocol,
)
from .records import AnnotationRecord, FilmRecord, data_digest
from .report import check_report, write_report
from .sanity import absent_on_normal, deletion_insertion, mass_outside, randomised_weights

__all__ = [
    "BASELINES",
    "AnnotationRecord",
    "AtlasSuppressionLocalizer",
    "AttentionRolloutLocalizer",
    "BoxSettings",
    "Calibration",
    "ChexlocalizeMiou",
    "Evaluation",
    "Film",
    "FilmRecord",
    "GradCamLocalizer",
    "HamMaskIou",
    "Interval",
    "Localizer",
    "LocalizerOutput",
    "MaxBoxAcc",
    "MaxBoxAccV2",
    "ModelLocalizer",
    "MultilabelAuroc",
    "MultilabelAveragePrecision",
    "MultilabelCalibrationError",
    "PhantomFilms",
    "PointingGame",
    "RandomMapLocalizer",
    "RowFilms",
    "TIobb",
    "TIou",
    "WangLocalization",
    "absent_on_normal",
    "auroc_per_finding",
    "average_precision_per_finding",
    "bootstrap_by_patient",
    "boxes_found",
    "calibrate",
    "calibration_error_per_finding",
    "check_report",
    "chexlocalize_miou",
    "clarity_protocol",
    "classification_intervals",
    "constant_box",
    "data_digest",
    "deletion_insertion",
    "evaluate_checkpoint",
    "evaluate_films",
    "f1_thresholds",
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
    "open_films",
    "operating_points",
    "paired_difference",
    "patient_protocol",
    "pointing_game",
    "randomised_weights",
    "read_records",
    "reliability",
    "sensitivity_thresholds",
    "support",
    "t_iobb",
    "t_iou",
    "tune_map_thresholds",
    "tune_thresholds",
    "wang_protocol",
    "with_map_fusion",
    "write_report",
    "youden_thresholds",
]
