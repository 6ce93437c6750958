# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Classification: AUROC per finding, as numpy functions and as an `evaluate.Metric`, and score thresholds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import datasets
import evaluate
import numpy as np
from sklearn.metrics import roc_auc_score, roc_curve
from transformers import EvalPrediction


def auroc_per_finding(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Area under the ROC curve of every finding.

    Args:
        scores: `(n, F)`, any monotone scale (logits or probabilities).
        labels: `(n, F)`, 1 present, 0 absent, NaN not annotated (left out).

    Returns:
        `(F,)` float64 in [0, 1]; NaN for a finding without positives or without negatives.

    Raises:
        ValueError: The shapes differ or a score is not finite.
    """
    scores, labels = _checked(scores, labels)
    areas = np.full(labels.shape[1], np.nan)
    for finding in range(labels.shape[1]):
        annotated = ~np.isnan(labels[:, finding])
        truth = labels[annotated, finding] == 1
        if truth.any() and not truth.all():
            areas[finding] = roc_auc_score(truth, scores[annotated, finding])
    return areas


def mean_auroc(scores: np.ndarray, labels: np.ndarray, min_positives: int = 1) -> float:
    """Mean AUROC over the findings with at least `min_positives` positives.

    Args:
        scores: `(n, F)`.
        labels: `(n, F)`, 1, 0 or NaN.
        min_positives: Findings with fewer are left out of the mean.

    Returns:
        Float in [0, 1]; NaN where no finding qualifies.
    """
    areas = auroc_per_finding(scores, labels)
    counted = ((np.asarray(labels) == 1).sum(0) >= min_positives) & ~np.isnan(areas)
    return float(areas[counted].mean()) if counted.any() else float("nan")


def youden_thresholds(scores: np.ndarray, labels: np.ndarray, default: float = 0.5) -> np.ndarray:
    """Score thresholds that maximise sensitivity + specificity − 1 on the given films.

    To be chosen on validation films, never on the films that are reported.

    Args:
        scores: `(n, F)` probabilities.
        labels: `(n, F)`, 1, 0 or NaN.
        default: Threshold of a finding whose AUROC is undefined.

    Returns:
        `(F,)` float64; a finding is present where its score is ≥ its threshold.

    Source: Youden, Cancer 3 (1950) 32–35.
    """
    scores, labels = _checked(scores, labels)
    thresholds = np.full(labels.shape[1], default)
    for finding in range(labels.shape[1]):
        annotated = ~np.isnan(labels[:, finding])
        truth = labels[annotated, finding] == 1
        if truth.any() and not truth.all():
            false_rate, true_rate, cuts = roc_curve(truth, scores[annotated, finding])
            # The first cut is infinite, "nothing is present": it is no threshold.
            best = 1 + int(np.argmax((true_rate - false_rate)[1:]))
            thresholds[finding] = cuts[best]
    return thresholds


def _checked(scores: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    scores, labels = np.asarray(scores, dtype=np.float64), np.asarray(labels, dtype=np.float64)
    if scores.shape != labels.shape or scores.ndim != 2:
        raise ValueError(
            f"`scores` and `labels` must both be (n, F), got {scores.shape} and {labels.shape}. Align their findings."
        )
    if not np.isfinite(scores).all():
        raise ValueError("`scores` must be finite, got NaN or infinity. Look for a diverged model.")
    return scores, labels


class MultilabelAuroc(evaluate.Metric):
    """AUROC per finding and their mean, as a local `evaluate.Metric`: works offline and over processes.

    Args:
        findings: Names in the order of the columns.
        min_positives: Findings with fewer positives are listed but not in the mean.
        kwargs: As for [`evaluate.Metric`], such as `num_process` and `process_id`.

    Example:
        >>> metric = MultilabelAuroc(["Mass", "Nodule"])
        >>> metric.compute(predictions=[[0.1, 0.2], [0.9, 0.1]], references=[[0, 0], [1, 0]])
        {'auroc': 1.0, 'auroc_Mass': 1.0, 'auroc_Nodule': nan}
    """

    def __init__(self, findings: Sequence[str], min_positives: int = 1, **kwargs: Any):
        self.findings, self.min_positives = list(findings), min_positives
        super().__init__(config_name="multilabel", **kwargs)

    def _info(self) -> evaluate.MetricInfo:
        row = datasets.Sequence(datasets.Value("float32"))
        return evaluate.MetricInfo(
            description="Area under the ROC curve per finding, and its mean; undefined is NaN.",
            citation="",
            inputs_description="predictions: (n, F) scores; references: (n, F) of 1, 0 or NaN.",
            features=datasets.Features({"predictions": row, "references": row}),
        )

    def of_prediction(self, prediction: EvalPrediction) -> dict[str, float]:
        """The metric as `compute_metrics` of a [`transformers.Trainer`]."""
        return self.compute(predictions=prediction.predictions, references=prediction.label_ids)

    def _compute(self, predictions: Any, references: Any) -> dict[str, float]:
        scores, labels = np.asarray(predictions), np.asarray(references)
        areas = auroc_per_finding(scores, labels)
        result = {"auroc": mean_auroc(scores, labels, self.min_positives)}
        return result | {f"auroc_{name}": float(area) for name, area in zip(self.findings, areas, strict=True)}
