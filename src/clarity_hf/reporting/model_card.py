# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Model cards, filled from the figures of a training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from huggingface_hub import EvalResult, ModelCardData

from clarity_hf.modeling_clarity import ClarityForMultiLabelLocalization

from .rendering import render


def write_model_card(
    folder: Path,
    model: ClarityForMultiLabelLocalization,
    data: Sequence[str],
    target: str,
    train_images: int | None,
    validation_labels: np.ndarray,
    metrics: Mapping[str, float],
    history: Sequence[Mapping[str, Any]],
    teacher: str | None = None,
) -> Path:
    """Write `README.md` beside a trained model.

    Args:
        folder: The model's folder.
        model: The trained model; its config gives sizes, findings and thresholds.
        data: Names of the training data sets for the reader, not paths, which may reveal more than intended.
        target: The data set whose validation split was used to choose epoch and thresholds.
        train_images: Number of training images; None for a stream.
        validation_labels: `(n, F)` of 1, 0, NaN.
        metrics: `validation_auroc` and `validation_auroc_FINDING` of the validation split, as named by the Trainer's
            `predict` with the prefix `validation`.
        history: The Trainer's log history; its evaluations become the table of epochs.
        teacher: Name of the teacher, if there was one, not a path.

    Returns:
        The card's path.
    """
    config, auroc = model.config, float(metrics["validation_auroc"])
    positives = (np.asarray(validation_labels) == 1).sum(axis=0).tolist()
    areas = [_figure(metrics.get(f"validation_auroc_{finding}")) for finding in config.findings]
    prefix = f"eval_{target}" if len(data) > 1 else "eval"
    result = EvalResult(
        task_type="image-classification",
        dataset_type="chest-radiographs",
        dataset_name=f"{target} (validation patients)",
        metric_type="roc_auc",
        metric_value=round(auroc, 4),
    )
    text = render(
        "model_card_template.md",
        card_data=card_data("clarity", "apache-2.0", [] if np.isnan(auroc) else [result]),  # the Hub takes no NaN
        names=" and ".join(data),
        target=target,
        train_images="a stream of" if train_images is None else f"{train_images:,}",
        validation_images=f"{len(validation_labels):,}",
        parameters=f"{model.num_parameters() / 1e6:.1f}",
        image_size=" × ".join(str(side * config.patch_size) for side in config.patch_grid),
        auroc=_figure(auroc),
        findings=zip(config.findings, positives, areas, config.per_finding("score_thresholds"), strict=True),
        epochs=[
            (f"{entry['epoch']:.2f}", entry["step"], *(_figure(entry[f"{prefix}_{key}"]) for key in ("loss", "auroc")))
            for entry in history
            if f"{prefix}_auroc" in entry
        ],
        teacher=teacher,
    )
    path = folder / "README.md"
    path.write_text(text, encoding="utf-8")
    return path


def card_data(name: str, license: str, results: Sequence[EvalResult], *tags: str) -> str:
    """Metadata of a card in the Hub's YAML: name of the model, licence of its weights, figures and additional tags."""
    data = ModelCardData(
        license=license,
        library_name="transformers",
        pipeline_tag="image-classification",
        tags=["chest-x-ray", "radiology", "localization", *tags, "clarity"],
        model_name=name,
        eval_results=list(results) or None,
    )
    return data.to_yaml()


def _figure(value: float | None) -> str:
    return "undefined" if value is None or np.isnan(value) else f"{value:.3f}"
