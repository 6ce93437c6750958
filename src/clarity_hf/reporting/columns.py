# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""The columns of all tables: key, heading, and what their numbers count."""

from __future__ import annotations

from collections.abc import Sequence

from clarity_hf.metrics.classification_rivals import VIEWS

from .schema import Column

_COLUMNS = {
    "annotated": ("Annotated boxes", "boxes"),
    "annotated_maps": ("Annotated maps", "maps"),
    "attribute": ("Attribute", ""),
    "auroc": ("AUROC", ""),
    "auroc_gain": ("Gain, AUROC", ""),
    "average_precision": ("AP", ""),
    "baseline": ("Baseline", ""),
    "baseline_boxes_predicted": ("by the baseline", "boxes"),
    "boxes": ("Boxes", ""),
    "boxes_predicted": ("Predicted boxes", "boxes"),
    "brier": ("Brier score", ""),
    "calibration_error": ("ECE", ""),
    "excess": ("Excess over the mean map", ""),
    "false_boxes": ("False boxes per image", "boxes"),
    "false_boxes_0.3": ("False boxes per image, t = 0.3", "boxes"),
    "figure": ("Figure", ""),
    "finding": ("Finding", ""),
    "findings": ("Findings in the mean", "findings"),
    "group": ("Group", ""),
    "images": ("Images", "images"),
    "intercept": ("Intercept", ""),
    "maps": ("Maps", "maps"),
    "mask_iou": ("Mask IoU", ""),
    "masks": ("Images with a mask", "images"),
    "mass_outside": ("Mass outside", "share"),
    "max_box_acc": ("MaxBoxAcc", "share"),
    "max_box_acc_v2": ("MaxBoxAccV2", "share"),
    "method": ("Method", ""),
    "miou": ("mIoU", ""),
    "miou_all": ("mIoU, all maps", ""),
    "negatives": ("Negatives", "images"),
    "normal": ("Normal images", ""),
    "one_sided": ("One-sided", "images"),
    "over_fixed": ("Own − k fixed", "share"),
    "over_swapped": ("Own − swapped", "share"),
    "peak_auroc": ("AUROC of peaks", ""),
    "peak_normal": ("Peak, normal images", ""),
    "peak_present": ("Peak, present", ""),
    "pixel_auroc": ("Pixel AUROC", ""),
    "pixel_auroc_mean_map": ("of the mean map", ""),
    "pixel_auroc_mean_mask": ("of the mean box mask", ""),
    "pixel_auroc_swapped": ("of swapped maps", ""),
    "pointing_game": ("Pointing game", "share"),
    "positive_predictive_value": ("PPV", "share"),
    "positives": ("Positives", "images"),
    "ppv_at_prevalence": ("PPV there", "share"),
    "present": ("Images with the finding", "images"),
    "prevalence": ("Stated prevalence", "share"),
    "protocol": ("Protocol", ""),
    "right_side": ("Right side", "share"),
    "right_side_relative": ("Right side, relative", "share"),
    "score_thresholds": ("Score thresholds", ""),
    "sensitivity": ("Sensitivity", "share"),
    "skill": ("Brier skill", ""),
    "slope": ("Slope", ""),
    "specificity": ("Specificity", "share"),
    "threshold": ("Threshold", ""),
    "thumbnail": ("Thumbnail", ""),
    "true_positives": ("True positives", "maps"),
    "view_alone": ("View alone", ""),
    "with_box": ("With a false box", "share"),
    "within_view": ("within a view", ""),
    **{f"in_{view}": (f"in {view}", "") for view in VIEWS},
}
"""Heading and unit by key."""

_LEVELS = {"iou": ">", "iobb": "IoBB >", "gain": "Gain, T(IoU) >", "sensitivity": "Sensitivity, IoU >"}
"""Headings, before the level, of columns with one share per level of overlap."""


def columns(*keys: str) -> tuple[Column, ...]:
    """Columns by their keys; several may be given in one string, separated by spaces."""
    return tuple(Column(key, *_COLUMNS[key]) for names in keys for key in names.split())


def level_columns(levels: Sequence[float], key: str = "iou") -> tuple[Column, ...]:
    """Columns of the share of annotated boxes at each level of overlap: `iou_0.1` headed `> 0.1`."""
    return tuple(Column(f"{key}_{level:g}", f"{_LEVELS[key]} {level:g}", "share") for level in levels)
