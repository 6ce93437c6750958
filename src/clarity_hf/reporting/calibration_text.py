# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""A calibration as text: the values of each finding, and how well they hold on unseen images."""

from __future__ import annotations

import math
from collections.abc import Sequence

from clarity_hf.evaluation.calibration import Calibration, CrossFitted


def calibration_text(found: Calibration, findings: Sequence[str]) -> str:
    """A Markdown table with one row per finding; `(kept)` and `(of all)` mark values that are not its own fit.

    Raises:
        ValueError: There is not one name per finding.
    """
    if len(findings) != len(found.positives):
        raise ValueError(
            f"`findings` must be {len(found.positives)} names, got {len(findings)}. Pass those of the config."
        )
    lines = [
        "| finding | positives | slope | intercept | score threshold | boxes | map threshold |",
        "|---|---|---|---|---|---|---|",
    ]
    for place, finding in enumerate(findings):
        score = f"{found.score_thresholds[place]:.3f}" + (" (kept)" if place in found.kept_scores else "")
        share = f"{found.map_thresholds[place]:.2f}"
        share += " (of all)" if place in found.pooled_maps else " (kept)" if place in found.kept_maps else ""
        platt = f"{found.score_slopes[place]:.3f} | {found.score_intercepts[place]:+.3f}"
        lines.append(f"| {finding} | {found.positives[place]} | {platt} | {score} | {found.boxes[place]} | {share} |")
    return "\n".join(lines)


_NAMES = {
    "uncalibrated_error": "expected calibration error, uncalibrated",
    "calibrated_error": "expected calibration error, calibrated",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "findings_flagged": "findings flagged on a normal image",
    "boxes_shown": "boxes on a normal image",
    "images_with_boxes": "share of normal images with a box",
}


def cross_fitted_text(unseen: CrossFitted) -> str:
    """A sentence on images and splits, and a Markdown table of the defined figures of [`cross_fitted`]."""
    named = [(name, unseen.figures[key]) for key, name in _NAMES.items()]
    figures = [(name, one) for name, one in named if not math.isnan(one.mean)]
    lines = [
        f"On the half of the patients not used for the fit, {unseen.repeats} splits: {unseen.images} images, "
        f"{unseen.normal_images} normal, {len(unseen.findings)} findings in the means\n",
        "| figure | mean | deviation over splits |",
        "|---|---|---|",
    ]
    lines += [f"| {name} | {one.mean:.3f} | {one.deviation:.3f} |" for name, one in figures]
    return "\n".join(lines)
