# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Comparison of scores with baselines that hardly see the image, and within one view position.

Severely ill patients are imaged AP in bed, so a model may recognise the view instead of the finding: the view alone
reaches AUROC .77 for Edema on NIH ChestX-ray14. AUROC is therefore also measured within PA and within AP, and compared
with two baselines: the view position alone, and a logistic regression on a 16 × 16 thumbnail. Both are fitted on other
patients than they score. Their scores are log-odds minus their mean over the fitted patients, because otherwise folds
fitted on fewer positives would rank lower.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.linear_model import LogisticRegression

from .bootstrap import Interval, interval_of_samples, patient_weights, weighted_auroc
from .classification import checked_scores
from .records import ImageRecord
from .splits import FOLDS, patient_folds

VIEWS = ("PA", "AP")
"""View positions within which AUROC is measured."""

MIN_VIEW_POSITIVES = 10
"""AUROC within a view is undefined with fewer positives or negatives in it."""

THUMBNAIL_PENALTY = 0.01
"""`C` of the logistic regression on thumbnails: 256 cells and a few hundred images need strong regularisation."""

NIH_PREVALENCE = {
    "Atelectasis": 0.1031,
    "Cardiomegaly": 0.0248,
    "Effusion": 0.1188,
    "Infiltration": 0.1774,
    "Mass": 0.0516,
    "Nodule": 0.0565,
    "Pneumonia": 0.0128,
    "Pneumothorax": 0.0473,
    "Consolidation": 0.0416,
    "Edema": 0.0205,
    "Emphysema": 0.0224,
    "Fibrosis": 0.0150,
    "Pleural_Thickening": 0.0302,
    "Hernia": 0.0020,
}
"""Share of the 112,120 images of NIH ChestX-ray14 with each label (Data_Entry_2017_v2020.csv)."""


def view_scores(records: Sequence[ImageRecord]) -> np.ndarray:
    """Scores from the view position alone: how often the finding is present in it among other patients.

    Gives `(n, F)` float64, log-odds in the image's view minus those in all views, with 1 added to every count. An
    unknown view counts as a separate view.
    """
    labels = np.stack([record.labels for record in records])
    views = np.array([record.view or "" for record in records])
    folds = patient_folds([record.patient for record in records], FOLDS)

    def log_odds(rows: np.ndarray) -> np.ndarray:
        return np.log((labels[rows] == 1).sum(axis=0) + 1) - np.log((labels[rows] == 0).sum(axis=0) + 1)

    scores = np.zeros(labels.shape)
    for fold in np.unique(folds):
        for view in np.unique(views):
            usual = log_odds((folds != fold) & (views == view)) - log_odds(folds != fold)
            scores[(folds == fold) & (views == view)] = usual
    return scores


def thumbnail_scores(records: Sequence[ImageRecord]) -> np.ndarray | None:
    """Scores of a logistic regression on thumbnails, fitted on other patients.

    Gives `(n, F)` float64, log-odds minus their mean over the other patients; 0 if those have only one class. None if
    a record has no thumbnail.
    """
    if any(record.thumbnail is None for record in records):
        return None
    labels = np.stack([record.labels for record in records])
    cells = np.stack([np.ravel(record.thumbnail) for record in records]).astype(np.float64)  # type: ignore[arg-type]
    cells = (cells - cells.mean(axis=1, keepdims=True)) / np.maximum(cells.std(axis=1, keepdims=True), 1.0)
    folds = patient_folds([record.patient for record in records], FOLDS)
    scores = np.zeros(labels.shape)
    for fold in np.unique(folds):
        scored = folds == fold
        spread = np.maximum(cells[~scored].std(axis=0), 1e-6)
        standard = (cells - cells[~scored].mean(axis=0)) / spread
        for finding in range(labels.shape[1]):
            known = ~scored & ~np.isnan(labels[:, finding])
            if len(np.unique(labels[known, finding])) == 2:
                fitted = LogisticRegression(C=THUMBNAIL_PENALTY, max_iter=300)
                fitted.fit(standard[known], labels[known, finding])
                margins = fitted.decision_function(standard)
                scores[scored, finding] = margins[scored] - margins[known].mean()
    return scores


@dataclass(frozen=True)
class WithinView:
    """AUROC within each view position, and their mean, which differences between views cannot raise.

    Attributes:
        views: `(F, len(VIEWS))` AUROC within each view; NaN with fewer than `MIN_VIEW_POSITIVES` of a class there.
        mean: `(F,)` mean over the views in which it is defined.
        samples: `(repeats, F)`, the same of bootstrap samples of patients.
    """

    views: np.ndarray
    mean: np.ndarray
    samples: np.ndarray

    def macro(self, averaged: np.ndarray) -> tuple[float, Interval]:
        """Mean of `mean` over the findings of `averaged` `(F,)` bool that have one, and its interval by patient."""
        means = np.vstack([self.mean, self.samples])[:, averaged & ~np.isnan(self.mean)]
        macro = means.mean(axis=1) if means.shape[1] else np.full(len(means), np.nan)
        return float(macro[0]), interval_of_samples(macro[1:])


def within_view(
    scores: np.ndarray,
    labels: np.ndarray,
    views: Sequence[str | None],
    patients: Sequence[str],
    repeats: int = 1000,
    seed: int = 0,
) -> WithinView:
    """AUROC within each view position.

    Args:
        scores: `(n, F)`, any monotone scale.
        labels: `(n, F)`, 1, 0 or NaN.
        views: `(n,)`, `PA`, `AP` or None.
        patients: `(n,)`.
        repeats: Number of bootstrap samples.
        seed: Seed of the bootstrap.
    """
    scores, labels = checked_scores(scores, labels)
    weights = np.stack([np.ones(len(labels), dtype=np.int64), *patient_weights(patients, repeats, seed)])
    figures = np.full((repeats + 1, labels.shape[1], len(VIEWS)), np.nan)
    for place, view in enumerate(VIEWS):
        rows = np.flatnonzero([one == view for one in views])
        for finding in range(labels.shape[1]):
            counts = [(labels[rows, finding] == value).sum() for value in (0, 1)]
            if min(counts) >= MIN_VIEW_POSITIVES:
                found = weighted_auroc(scores[rows, finding], labels[rows, finding], weights[:, rows])
                figures[:, finding, place] = found
    defined = ~np.isnan(figures[0])
    means = np.full(figures.shape[:2], np.nan)
    has = defined.any(axis=1)
    # A sample in which a view is undefined has no mean, which would be a mean of different things.
    means[:, has] = np.where(defined, figures, 0.0).sum(axis=2)[:, has] / defined.sum(axis=1)[has]
    return WithinView(figures[0], means[0], means[1:])


@dataclass(frozen=True)
class Reliability:
    """How well scores agree with probabilities, per finding, each `(F,)`; NaN where undefined.

    Attributes:
        brier: Mean squared difference of score and label.
        skill: 1 − Brier score / Brier score of always predicting the finding's prevalence here: 1 is perfect, 0 no
            better than the prevalence.
        slope: Slope of a logistic regression of the label on the score's logit: below 1 scores are overconfident,
            above 1 underconfident.
        intercept: Intercept of the same regression.
    """

    brier: np.ndarray
    skill: np.ndarray
    slope: np.ndarray
    intercept: np.ndarray


def reliability_figures(scores: np.ndarray, labels: np.ndarray) -> Reliability:
    """Brier score, its skill, and calibration slope and intercept of probabilities `(n, F)`.

    Source: Brier, Monthly Weather Review 78 (1950) 1–3; Cox, Biometrika 45 (1958) 562–565.
    """
    scores, labels = checked_scores(scores, labels)
    brier, skill, slope, intercept = (np.full(labels.shape[1], np.nan) for _ in range(4))
    for finding in range(labels.shape[1]):
        known = ~np.isnan(labels[:, finding])
        truth, given = labels[known, finding], scores[known, finding]
        if len(truth):
            brier[finding] = ((given - truth) ** 2).mean()
            variance = truth.mean() * (1 - truth.mean())
            skill[finding] = 1 - brier[finding] / variance if variance else np.nan
        if 0 < truth.sum() < len(truth):
            inside = np.clip(given, 1e-7, 1 - 1e-7)
            fitted = LogisticRegression(C=1e6).fit(np.log(inside / (1 - inside))[:, None], truth)
            slope[finding], intercept[finding] = fitted.coef_[0, 0], fitted.intercept_[0]
    return Reliability(brier, skill, slope, intercept)


def predictive_value(sensitivity: np.ndarray, specificity: np.ndarray, prevalence: np.ndarray) -> np.ndarray:
    """Positive predictive value at a given prevalence by Bayes' theorem, all in [0, 1]; NaN if nothing is flagged."""
    true, false = sensitivity * prevalence, (1 - specificity) * (1 - prevalence)
    return np.divide(true, true + false, out=np.full(np.shape(true), np.nan), where=(true + false) > 0)
