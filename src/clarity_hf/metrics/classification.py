# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Classification metrics per finding: ranking, calibration, thresholds and operating points.

A finding is present if its score is ≥ its threshold. Images whose label is NaN are left out for that finding.
Undefined figures are NaN, never 0 or 1; [`support`] counts the images behind each figure. Functions raise a ValueError
if shapes differ, a score is not finite, or a label is not 1, 0 or NaN.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

UNDEFINED_THRESHOLD = 0.5
"""Score threshold of a finding whose AUROC is undefined."""


def support(labels: np.ndarray) -> dict[str, np.ndarray]:
    """Number of images behind each finding's figures: `positives` and `negatives`, each `(F,)` int64."""
    labels = np.asarray(labels)
    return {"positives": (labels == 1).sum(axis=0), "negatives": (labels == 0).sum(axis=0)}


def macro(values: np.ndarray, labels: np.ndarray, min_positives: int = 20) -> float:
    """Mean of a figure over the findings with enough positives.

    Args:
        values: `(F,)`, a figure per finding; undefined ones (NaN) are left out.
        labels: `(n, F)`, 1, 0 or NaN, from which the figures were computed.
        min_positives: Findings with fewer are left out of the mean.

    Returns:
        The mean; NaN if no finding qualifies.

    Raises:
        ValueError: The number of values differs from F.
    """
    values, labels = np.asarray(values, dtype=np.float64), np.asarray(labels)
    if values.shape != labels.shape[1:]:
        raise ValueError(f"`values` must be {labels.shape[1:]}, got {values.shape}. Pass one per finding.")
    counted = (support(labels)["positives"] >= min_positives) & ~np.isnan(values)
    return float(values[counted].mean()) if counted.any() else float("nan")


def auroc_per_finding(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Area under the ROC curve of every finding.

    Args:
        scores: `(n, F)`, any monotone scale (logits or probabilities).
        labels: `(n, F)`, 1 present, 0 absent, NaN not annotated (left out).

    Returns:
        `(F,)` float64 in [0, 1]; NaN for a finding without positives or without negatives.
    """
    return _per_finding(roc_auc_score, scores, labels, np.nan)


def mean_auroc(scores: np.ndarray, labels: np.ndarray, min_positives: int = 1) -> float:
    """Mean of [`auroc_per_finding`] over the findings with at least `min_positives` positives; NaN without any."""
    return macro(auroc_per_finding(scores, labels), labels, min_positives)


def average_precision_per_finding(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Average precision of every finding: Σ (recall gained at a threshold) × (precision at it), over all thresholds.

    Images with equal scores pass a threshold together. Uninformative scores give the share of positives. Arguments and
    result as for [`auroc_per_finding`].
    """
    return _per_finding(average_precision_score, scores, labels, np.nan)


def reliability(scores: np.ndarray, labels: np.ndarray, bins: int = 10) -> dict[str, np.ndarray]:
    """Reliability curve of one finding: how often it is present among images with similar scores.

    Args:
        scores: `(n,)` probabilities.
        labels: `(n,)`, 1, 0 or NaN.
        bins: Number of bins of equal width over [0, 1]; a bin includes its upper edge, the first also 0.

    Returns:
        `mean_score` and `share_present`, each `(bins,)` float64 in [0, 1], NaN in a bin without images, and `count`
        `(bins,)` int64.

    Raises:
        ValueError: The arrays are not `(n,)`, a score is outside [0, 1], or `bins` is under 1.

    Source: DeGroot and Fienberg, The Statistician 32 (1983) 12–22.
    """
    scores, labels = np.asarray(scores), np.asarray(labels)
    if scores.ndim != 1 or labels.shape != scores.shape:
        raise ValueError(
            f"`scores` and `labels` must both be (n,), got {scores.shape} and {labels.shape}. Pick one finding."
        )
    scores, labels = _checked_probabilities(scores[:, None], labels[:, None])
    if bins < 1:
        raise ValueError(f"`bins` must be at least 1, got {bins}. Usual is 10.")
    annotated = ~np.isnan(labels[:, 0])
    known, present = scores[annotated, 0], labels[annotated, 0]
    place = np.searchsorted(np.linspace(0, 1, bins + 1)[1:-1], known)
    count = np.bincount(place, minlength=bins)
    with np.errstate(invalid="ignore"):  # 0 / 0 in an empty bin gives the intended NaN
        mean_score = np.bincount(place, known, minlength=bins) / count
        share_present = np.bincount(place, present, minlength=bins) / count
    return {"mean_score": mean_score, "share_present": share_present, "count": count}


def calibration_error_per_finding(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Expected calibration error of every finding: the mean over images of |mean score − share present| of their bin.

    Args:
        scores: `(n, F)` probabilities, in 15 bins of equal width over [0, 1].
        labels: `(n, F)`, 1, 0 or NaN.

    Returns:
        `(F,)` float64 in [0, 1]; NaN for a finding without annotated images. It is also defined for a finding without
        positives, whose scores should be low.

    Raises:
        ValueError: As for [`reliability`].

    Source: Guo et al., On Calibration of Modern Neural Networks, ICML 2017, equation 3.
    """
    scores, labels = _checked_probabilities(scores, labels)
    errors = np.full(labels.shape[1], np.nan)
    for finding in range(labels.shape[1]):
        curve = reliability(scores[:, finding], labels[:, finding], 15)
        if curve["count"].any():
            gaps = np.abs(curve["mean_score"] - curve["share_present"])
            errors[finding] = np.nansum(gaps * curve["count"]) / curve["count"].sum()
    return errors


def youden_thresholds(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Score thresholds that maximise sensitivity + specificity − 1 on the given images.

    Choose them on validation images, never on the reported ones.

    Args:
        scores: `(n, F)` probabilities.
        labels: `(n, F)`, 1, 0 or NaN.

    Returns:
        `(F,)` float64, `UNDEFINED_THRESHOLD` for a finding whose AUROC is undefined.

    Source: Youden, Cancer 3 (1950) 32–35.
    """

    def best(truth: np.ndarray, known: np.ndarray) -> float:
        false_rate, true_rate, cuts = roc_curve(truth, known)
        # The first cut is infinite (nothing is present) and cannot be a threshold.
        return cuts[1 + int(np.argmax((true_rate - false_rate)[1:]))]

    return _per_finding(best, scores, labels, UNDEFINED_THRESHOLD)


def sensitivity_thresholds(scores: np.ndarray, labels: np.ndarray, target: float = 0.9) -> np.ndarray:
    """The highest score thresholds that reach a sensitivity in (0, 1] on the given images; see [`youden_thresholds`].

    Each is the score of a positive image.

    Raises:
        ValueError: `target` is outside (0, 1].
    """
    if not 0 < target <= 1:
        raise ValueError(f"`target` must be in (0, 1], got {target}. Pass a sensitivity such as 0.9.")

    def highest(truth: np.ndarray, known: np.ndarray) -> float:
        positives = np.sort(known[truth])[::-1]
        found = np.arange(1, len(positives) + 1) / len(positives)
        return positives[int(np.argmax(found >= target))]

    return _per_finding(highest, scores, labels, UNDEFINED_THRESHOLD)


def f1_thresholds(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Score thresholds that maximise F1 = 2 TP / (2 TP + FP + FN) on the given images; the highest one in a tie.

    Arguments and result as for [`youden_thresholds`]; each threshold is one of the scores.
    """

    def best(truth: np.ndarray, known: np.ndarray) -> float:
        order = np.argsort(-known, kind="stable")
        cuts = known[order]
        f1 = 2 * np.cumsum(truth[order]) / (np.arange(1, len(cuts) + 1) + truth.sum())
        # Images with equal scores are flagged together: only the last one counts.
        f1[:-1][cuts[:-1] == cuts[1:]] = -1
        return cuts[int(np.argmax(f1))]

    return _per_finding(best, scores, labels, UNDEFINED_THRESHOLD)


def operating_points(scores: np.ndarray, labels: np.ndarray, thresholds: np.ndarray) -> dict[str, np.ndarray]:
    """Sensitivity, specificity and predictive values at given thresholds.

    Args:
        scores: `(n, F)`, on the scale of the thresholds.
        labels: `(n, F)`, 1, 0 or NaN.
        thresholds: `(F,)`, chosen on other images.

    Returns:
        Each `(F,)` float64 in [0, 1], NaN if its denominator is zero: `sensitivity`, `specificity`,
        `positive_predictive_value`, `negative_predictive_value` (both hold for the prevalence of these images) and
        `flagged`, the share of annotated images at or above the threshold.

    Raises:
        ValueError: The number of thresholds differs from F.
    """
    scores, labels = checked_scores(scores, labels)
    thresholds = np.asarray(thresholds, dtype=np.float64)
    if thresholds.shape != labels.shape[1:] or np.isnan(thresholds).any():
        raise ValueError(
            f"`thresholds` must be {labels.shape[1:]} numbers, got {thresholds.tolist()}. Pass one per finding."
        )
    flagged = scores >= thresholds
    true_positive, false_positive = (flagged & (labels == 1)).sum(axis=0), (flagged & (labels == 0)).sum(axis=0)
    counts = support(labels)
    true_negative = counts["negatives"] - false_positive
    annotated = counts["positives"] + counts["negatives"]
    all_flagged = true_positive + false_positive
    with np.errstate(invalid="ignore"):  # 0 / 0 gives the intended NaN
        return {
            "sensitivity": true_positive / counts["positives"],
            "specificity": true_negative / counts["negatives"],
            "positive_predictive_value": true_positive / all_flagged,
            "negative_predictive_value": true_negative / (annotated - all_flagged),
            "flagged": all_flagged / annotated,
        }


def checked_scores(scores: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scores and labels as float64 `(n, F)`.

    Raises:
        ValueError: The shapes differ, a score is not finite or a label is neither 1, 0 nor NaN.
    """
    scores, labels = np.asarray(scores, dtype=np.float64), np.asarray(labels, dtype=np.float64)
    if scores.shape != labels.shape or scores.ndim != 2:
        raise ValueError(
            f"`scores` and `labels` must both be (n, F), got {scores.shape} and {labels.shape}. Align their findings."
        )
    if not np.isfinite(scores).all():
        raise ValueError("`scores` must be finite, got NaN or infinity. Check whether the model diverged.")
    strange = labels[(labels != 0) & (labels != 1) & ~np.isnan(labels)]
    if len(strange):
        raise ValueError(f"`labels` must be 1, 0 or NaN, got {strange[0]:g}. Write uncertain labels as NaN.")
    return scores, labels


def _checked_probabilities(scores: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    scores, labels = checked_scores(scores, labels)
    outside = scores[(scores < 0) | (scores > 1)]
    if len(outside):
        raise ValueError(f"`scores` must be probabilities in [0, 1], got {outside[0]:g}. Apply the sigmoid to logits.")
    return scores, labels


def _per_finding(
    function: Callable[[np.ndarray, np.ndarray], float], scores: np.ndarray, labels: np.ndarray, undefined: float
) -> np.ndarray:
    """`function(truth, scores)` for every finding with positives and negatives, over annotated images: `(F,)`."""
    scores, labels = checked_scores(scores, labels)
    values = np.full(labels.shape[1], undefined, dtype=np.float64)
    for finding in range(labels.shape[1]):
        annotated = ~np.isnan(labels[:, finding])
        truth = labels[annotated, finding] == 1
        if truth.any() and not truth.all():
            values[finding] = function(truth, scores[annotated, finding])
    return values
