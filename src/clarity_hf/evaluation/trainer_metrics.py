# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Classification as local `evaluate.Metric` modules, for training: they work offline and over several processes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import datasets
import evaluate
import numpy as np
from scipy.special import expit
from transformers import EvalPrediction

from clarity_hf.metrics.classification import (
    auroc_per_finding,
    average_precision_per_finding,
    calibration_error_per_finding,
    macro,
)


class _MultilabelMetric(evaluate.Metric):
    """A figure per finding and its mean; a subclass names the figure and computes it."""

    figure: str
    description: str

    def __init__(self, findings: Sequence[str], min_positives: int = 1, **kwargs: Any):
        self.findings, self.min_positives = list(findings), min_positives
        super().__init__(config_name="multilabel", **kwargs)

    def _info(self) -> evaluate.MetricInfo:
        row = datasets.Sequence(datasets.Value("float64"))  # float32 would tie scores near 1
        return evaluate.MetricInfo(
            description=f"{self.description} per finding, and its mean; undefined is NaN.",
            citation="",
            inputs_description="predictions: (n, F) scores; references: (n, F) of 1, 0 or NaN.",
            features=datasets.Features({"predictions": row, "references": row}),
        )

    def of_prediction(self, prediction: EvalPrediction) -> dict[str, float]:
        """The metric as `compute_metrics` of a [`transformers.Trainer`], whose predictions are logits."""
        return self.compute(predictions=prediction.predictions, references=prediction.label_ids)

    def _values(self, scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
        raise NotImplementedError

    def _compute(self, predictions: Any, references: Any) -> dict[str, float]:
        scores, labels = np.asarray(predictions), np.asarray(references)
        values = self._values(scores, labels)
        if len(values) != len(self.findings):
            raise ValueError(
                f"`predictions` must have {len(self.findings)} columns, one per finding, got {len(values)}. "
                "Name the findings of these columns."
            )
        mean = macro(values, labels, self.min_positives)
        named = {f"{self.figure}_{name}": float(value) for name, value in zip(self.findings, values, strict=True)}
        return {self.figure: mean} | named


class MultilabelAuroc(_MultilabelMetric):
    """AUROC per finding and their mean.

    Args:
        findings: Names in the order of the columns.
        min_positives: Findings with fewer positives are listed but not in the mean.
        kwargs: As for [`evaluate.Metric`], such as `num_process` and `process_id`.

    Example:
        >>> metric = MultilabelAuroc(["Mass", "Nodule"])
        >>> metric.compute(predictions=[[0.1, 0.2], [0.9, 0.1]], references=[[0, 0], [1, 0]])
        {'auroc': 1.0, 'auroc_Mass': 1.0, 'auroc_Nodule': nan}
    """

    figure, description = "auroc", "Area under the ROC curve"

    def _values(self, scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
        return auroc_per_finding(scores, labels)


class MultilabelAveragePrecision(_MultilabelMetric):
    """Average precision per finding and their mean; arguments as for [`MultilabelAuroc`].

    Example:
        >>> metric = MultilabelAveragePrecision(["Mass", "Nodule"])
        >>> metric.compute(predictions=[[0.3, 0.2], [0.2, 0.1]], references=[[0, 0], [1, 0]])
        {'average_precision': 0.5, 'average_precision_Mass': 0.5, 'average_precision_Nodule': nan}
    """

    figure, description = "average_precision", "Average precision"

    def _values(self, scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
        return average_precision_per_finding(scores, labels)


class MultilabelCalibrationError(_MultilabelMetric):
    """Expected calibration error per finding and their mean.

    Predictions are probabilities, except in `of_prediction`, which takes the logits of a Trainer.

    Args:
        findings: Names in the order of the columns.
        min_positives: Findings with fewer positives are listed but not in the mean.
        bins: Number of bins of equal width over [0, 1].
        kwargs: As for [`evaluate.Metric`].

    Example:
        >>> metric = MultilabelCalibrationError(["Mass"])
        >>> metric.compute(predictions=[[0.25], [0.75]], references=[[0], [1]])
        {'calibration_error': 0.25, 'calibration_error_Mass': 0.25}
    """

    figure, description = "calibration_error", "Expected calibration error"

    def __init__(self, findings: Sequence[str], min_positives: int = 1, bins: int = 15, **kwargs: Any):
        self.bins = bins
        super().__init__(findings, min_positives, **kwargs)

    def of_prediction(self, prediction: EvalPrediction) -> dict[str, float]:
        """The metric as `compute_metrics` of a [`transformers.Trainer`], whose predictions are logits."""
        return self.compute(predictions=expit(prediction.predictions), references=prediction.label_ids)

    def _values(self, scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
        return calibration_error_per_finding(scores, labels, self.bins)
