# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""AUROC as a local `evaluate.Metric` module, for training: it works offline and over several processes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import datasets
import evaluate
import numpy as np
from transformers import EvalPrediction

from clarity_hf.metrics.classification import auroc_per_finding, macro


class MultilabelAuroc(evaluate.Metric):
    """AUROC per finding and their mean; undefined is NaN.

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
        row = datasets.Sequence(datasets.Value("float64"))  # in float32, scores near 1 would be tied
        return evaluate.MetricInfo(
            description="Area under the ROC curve per finding, and its mean; undefined is NaN.",
            citation="",
            inputs_description="predictions: (n, F) scores; references: (n, F) of 1, 0 or NaN.",
            features=datasets.Features({"predictions": row, "references": row}),
        )

    def of_prediction(self, prediction: EvalPrediction) -> dict[str, float]:
        """The metric as `compute_metrics` of a [`transformers.Trainer`], whose predictions are logits."""
        return self.compute(predictions=prediction.predictions, references=prediction.label_ids)

    def _compute(self, predictions: Any, references: Any) -> dict[str, float]:
        scores, labels = np.asarray(predictions), np.asarray(references)
        values = auroc_per_finding(scores, labels)
        if len(values) != len(self.findings):
            raise ValueError(
                f"`predictions` must have {len(self.findings)} columns, one per finding, got {len(values)}. "
                "Name the findings of these columns."
            )
        named = {f"auroc_{name}": float(value) for name, value in zip(self.findings, values, strict=True)}
        return {"auroc": macro(values, labels, self.min_positives)} | named
