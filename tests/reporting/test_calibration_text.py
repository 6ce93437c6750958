# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""A calibration in words: each finding's row, and the figures on unseen images."""

import numpy as np
import pytest

from clarity_hf.evaluation.calibration import Calibration, CrossFitted, OverSplits
from clarity_hf.reporting.calibration_text import calibration_text, cross_fitted_text

FOUND = Calibration(
    score_slopes=np.array([1.23456, 1.0, 0.5]),
    score_intercepts=np.array([-0.5, 0.0, 2.0]),
    score_thresholds=np.array([0.1234, 0.5, 0.75]),
    map_thresholds=np.array([0.5, 0.35, 0.9]),
    positives=np.array([12, 2, 7]),
    boxes=np.array([10, 1, 0]),
    kept_scores=(1,),
    pooled_maps=(1,),
    kept_maps=(2,),
)


def test_a_row_marks_values_that_are_not_the_findings_own():
    assert calibration_text(FOUND, ["Mass", "Hernia", "Edema"]).splitlines() == [
        "| finding | positives | slope | intercept | score threshold | boxes | map threshold |",
        "|---|---|---|---|---|---|---|",
        "| Mass | 12 | 1.235 | -0.500 | 0.123 | 10 | 0.50 |",
        "| Hernia | 2 | 1.000 | +0.000 | 0.500 (kept) | 1 | 0.35 (of all) |",
        "| Edema | 7 | 0.500 | +2.000 | 0.750 | 0 | 0.90 (kept) |",
    ]


def test_names_of_another_number_of_findings_are_refused():
    with pytest.raises(ValueError, match="`findings` must be 3 names, got 2"):
        calibration_text(FOUND, ["Mass", "Hernia"])


def test_figures_have_their_deviation_and_undefined_ones_are_left_out():
    names = ("uncalibrated_error", "calibrated_error", "sensitivity", "specificity")
    names += ("findings_flagged", "boxes_shown", "images_with_boxes")
    figures = {name: OverSplits(place / 8, 0.0625) for place, name in enumerate(names)}
    figures["boxes_shown"] = OverSplits(float("nan"), float("nan"))
    text = cross_fitted_text(CrossFitted(images=40, normal_images=9, findings=(0, 2), repeats=5, figures=figures))
    assert text.splitlines() == [
        "On the half of the patients not used for the fit, 5 splits: 40 images, 9 normal, 2 findings in the means",
        "",
        "| figure | mean | deviation over splits |",
        "|---|---|---|",
        "| expected calibration error, uncalibrated | 0.000 | 0.062 |",
        "| expected calibration error, calibrated | 0.125 | 0.062 |",
        "| sensitivity | 0.250 | 0.062 |",
        "| specificity | 0.375 | 0.062 |",
        "| findings flagged on a normal image | 0.500 | 0.062 |",
        "| share of normal images with a box | 0.750 | 0.062 |",
    ]
