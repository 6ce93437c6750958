# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Calibration of scores, and thresholds of scores and maps, on images that are not reported on.

A logit z has the score σ(a·z + b). [`fit_platt`] fits slope and intercept of every finding; [`calibrate`] does so on
validation images, chooses thresholds on the calibrated scores and writes everything into the model's config;
[`cross_fitted`] estimates how well such a calibration holds on unseen images.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit, logit

from clarity_hf.configuration_clarity import ClarityConfig
from clarity_hf.metrics.classification import (
    calibration_error_per_finding,
    checked_scores,
    f1_thresholds,
    macro,
    operating_points,
    sensitivity_thresholds,
    support,
    youden_thresholds,
)
from clarity_hf.metrics.matching import annotated_boxes, best_threshold, per_finding
from clarity_hf.metrics.records import ImageRecord
from clarity_hf.metrics.splits import halves

ScoreRule = Literal["youden", "sensitivity", "f1"]

RareBoxes = Literal["pooled", "kept"]
"""Map threshold of a finding with too few boxes: the best over the boxes of all findings, or the config's own."""

SLOPE_BOUNDS = (0.01, 100.0)
"""Bounds of a slope, for logits in units of their standard deviation."""

SCORE_MARGIN = 2.0**-53
"""Scores are clipped this far inside (0, 1) before their logit is taken: ±36.7 instead of infinity."""


def fit_platt(
    logits: np.ndarray,
    labels: np.ndarray,
    min_positives: int = 5,
    slopes: Sequence[float] | np.ndarray | None = None,
    intercepts: Sequence[float] | np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Fit slope a and intercept b of every finding, so that σ(a·z + b) is the probability of an image with logit z.

    The cross-entropy is minimised against Platt's targets, (N₊ + 1)/(N₊ + 2) for the N₊ positive images and 1/(N₋ + 2)
    for the N₋ negative ones, which keep a and b finite where a threshold separates the images without error. The slope
    stays above zero, so the order of the images and AUROC do not change: a finding ranked no better than by chance
    gets 0.01 over the standard deviation of its logits, and scores close to its share of positives.

    Args:
        logits: `(n, F)`, finite.
        labels: `(n, F)`, 1 present, 0 absent, NaN not annotated (left out).
        min_positives: With fewer positive or negative images a finding keeps its `slopes` and `intercepts`.
        slopes: `(F,)` above 0 for findings with too few images; None is 1.
        intercepts: `(F,)` likewise; None is 0.

    Returns:
        Slopes `(F,)` float64 above 0, and intercepts `(F,)` float64.

    Raises:
        ValueError: The shapes differ, a logit is not finite, a label is neither 1, 0 nor NaN, or there is not one
            slope and intercept per finding.
        RuntimeError: The minimiser did not converge.

    Source: Platt, "Probabilistic outputs for support vector machines", Advances in Large Margin Classifiers (1999)
    61–74, with a, b of the opposite sign.
    """
    logits, labels = checked_scores(logits, labels)
    count = logits.shape[1]
    fitted_slopes = per_finding("slopes", np.ones(count) if slopes is None else slopes, count).copy()
    fitted_intercepts = per_finding("intercepts", np.zeros(count) if intercepts is None else intercepts, count).copy()
    for finding in np.flatnonzero(~_too_few(labels, min_positives)).tolist():
        known = ~np.isnan(labels[:, finding])
        fitted_slopes[finding], fitted_intercepts[finding] = _platt_of_one(
            logits[known, finding], labels[known, finding] == 1
        )
    return fitted_slopes, fitted_intercepts


def _platt_of_one(logits: np.ndarray, present: np.ndarray) -> tuple[float, float]:
    """Slope and intercept from the logits `(n,)` of one finding and whether it is `present` `(n,)`."""
    centre, spread = float(logits.mean()), float(logits.std()) or 1.0
    # Standardised logits make the problem, convex in a and b, well conditioned and the fit independent of their scale.
    standardised = (logits - centre) / spread
    positives = int(present.sum())
    negatives = len(present) - positives
    targets = np.where(present, (positives + 1) / (positives + 2), 1 / (negatives + 2))

    def cross_entropy(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        z = parameters[0] * standardised + parameters[1]
        error = expit(z) - targets
        gradient = np.array([(error * standardised).mean(), error.mean()])
        return float((np.logaddexp(0, z) - targets * z).mean()), gradient

    found = minimize(
        cross_entropy,
        x0=(1.0, float(logit(targets.mean()))),
        jac=True,
        method="L-BFGS-B",
        bounds=(SLOPE_BOUNDS, (None, None)),
        options={"ftol": 1e-13, "gtol": 1e-8, "maxiter": 1000},
    )
    if not found.success:
        raise RuntimeError(
            f"`logits` must allow a fit of slope and intercept, got {found.message} from {len(logits)} of them. Check "
            "for outliers."
        )
    slope = float(found.x[0]) / spread
    return slope, float(found.x[1]) - slope * centre


@dataclass(frozen=True)
class Calibration:
    """Slopes, intercepts and thresholds, and what they were chosen from.

    Attributes:
        score_slopes: `(F,)` above 0; a logit z has the score σ(slope · z + intercept).
        score_intercepts: `(F,)`.
        score_thresholds: `(F,)` in [0, 1], of the calibrated scores; a finding is present from its threshold.
        map_thresholds: `(F,)` in (0, 1), shares of a map's peak.
        positives: `(F,)` int, positive images of each finding.
        boxes: `(F,)` int, annotated boxes of each finding.
        kept_scores: Indices of the findings with too few positives or negatives, whose slope, intercept and score
            threshold were all kept: a threshold is one of the scores that its slope and intercept give.
        pooled_maps: Indices of the findings with too few boxes that have the threshold best over all boxes.
        kept_maps: Indices of the findings with too few boxes whose map threshold was kept.
    """

    score_slopes: np.ndarray
    score_intercepts: np.ndarray
    score_thresholds: np.ndarray
    map_thresholds: np.ndarray
    positives: np.ndarray
    boxes: np.ndarray
    kept_scores: tuple[int, ...]
    pooled_maps: tuple[int, ...]
    kept_maps: tuple[int, ...]


def calibrate(
    config: ClarityConfig,
    records: Sequence[ImageRecord],
    rule: ScoreRule = "youden",
    sensitivity: float = 0.9,
    min_positives: int = 5,
    min_boxes: int = 10,
    rare: RareBoxes = "pooled",
    false_box_share: float | None = None,
) -> Calibration:
    """Fit slopes, intercepts and thresholds on validation images and write them into a config.

    Slopes and intercepts are those of [`fit_platt`]. The score threshold of a finding follows `rule` on the calibrated
    scores, halfway down to the next lower score, so that rounding elsewhere does not lose the image that defines it;
    its map threshold is the one of `MAP_THRESHOLDS` with the highest mean IoU between annotated and predicted boxes.
    Do not report figures of the same images; see [`cross_fitted`].

    The records' scores must come from `config` as it is passed. Its slopes and intercepts are undone first, so a
    calibrated model can be calibrated again. To try a second rule on the same records, pass a copy of the config from
    before the first.

    Args:
        config: Config of the model that made the records. `score_slopes`, `score_intercepts`, `score_thresholds`,
            `map_thresholds` and `box_score_thresholds` are changed in place.
        records: Validation images, evaluated with all maps.
        rule: `"youden"` maximises sensitivity + specificity − 1, `"sensitivity"` takes the highest threshold that
            reaches `sensitivity`, `"f1"` maximises F1.
        sensitivity: Sensitivity of the rule of that name, in (0, 1].
        min_positives: With fewer positive or negative images a finding keeps slope, intercept and score threshold.
        min_boxes: A finding with fewer boxes is rare.
        rare: Map threshold of a rare finding: `"pooled"` takes the best over the boxes of all findings, if they are at
            least `min_boxes`; `"kept"` leaves it as it is.
        false_box_share: Share of the normal images, in (0, 1], that may have a box, see [`box_score_thresholds`],
            which chooses the config's field of that name. With None, `box_score_thresholds` of the config stay at the
            same logits, but no lower than the score from which a finding is present.

    Returns:
        [`Calibration`].

    Raises:
        ValueError: There are no records, `rule` or `rare` is unknown, `false_box_share` is out of its range or has no
            normal images to choose by, or the records have another number of findings.
        RuntimeError: As for [`fit_platt`].
    """
    if rare not in ("pooled", "kept"):
        raise ValueError(f"`rare` must be 'pooled' or 'kept', got '{rare}'. Choose one of them.")
    logits, labels = _logits_and_labels(config, records)
    fit = _fit_scores(config, logits, labels, rule, sensitivity, min_positives, false_box_share)
    count = config.num_labels
    components: Literal["largest", "all"] = "largest" if config.box_components == "largest" else "all"
    boxes = annotated_boxes(records, components, count)
    box_counts = np.bincount(boxes.findings, minlength=count)
    is_rare = box_counts < max(1, min_boxes)
    pooled = is_rare & (rare == "pooled") & (len(boxes.findings) >= max(1, min_boxes))
    map_thresholds = np.where(is_rare, config.per_finding("map_thresholds"), boxes.tuned_thresholds())
    if pooled.any():
        map_thresholds[pooled] = best_threshold(boxes.iou[:, :-1])
    chosen = {
        "score_slopes": fit.slopes,
        "score_intercepts": fit.intercepts,
        "score_thresholds": fit.thresholds,
        "map_thresholds": map_thresholds,
    }
    for name, values in chosen.items():
        setattr(config, name, [float(value) for value in values])
    if false_box_share is not None or config.box_score_thresholds is not None:
        config.box_score_thresholds = fit.box_thresholds.tolist()
    return Calibration(
        **chosen,
        positives=support(labels)["positives"],
        boxes=box_counts,
        kept_scores=_places(fit.kept),
        pooled_maps=_places(pooled),
        kept_maps=_places(is_rare & ~pooled),
    )


def box_score_thresholds(
    scores: np.ndarray, score_thresholds: np.ndarray, share: float, boxless: np.ndarray | None = None
) -> np.ndarray:
    """The lowest score thresholds for boxes at which at most a share of the normal images has a box.

    Every finding has the same share of false alarms, the largest that keeps the images with at least one box within
    `share`, but no lower threshold than the one from which it is present.

    Args:
        scores: `(n, F)` in [0, 1] of images on which every finding is absent.
        score_thresholds: `(F,)`, from which a finding is present.
        share: Share of the images that may have a box, in (0, 1].
        boxless: `(F,)` bool, findings that get no box whatever their score; None for no such findings.

    Returns:
        `(F,)` at or above `score_thresholds`.

    Raises:
        ValueError: `share` is out of its range, or there are no images.
    """
    if not 0 < share <= 1:
        raise ValueError(f"`false_box_share` must be inside (0, 1], got {share}. 0.25 lets one normal image in four.")
    if not len(scores):
        raise ValueError("`records` must hold images on which every finding is absent, got none. Add normal images.")
    ordered = np.sort(scores, axis=0)[::-1]
    above = np.nextafter(ordered, np.inf)
    counted = np.ones(scores.shape[1], dtype=bool) if boxless is None else ~np.asarray(boxless)

    def thresholds(alarms: int) -> np.ndarray:
        """Just above the score of rank `alarms`, so that this many images reach it."""
        return np.maximum(score_thresholds, above[min(alarms, len(above) - 1)])

    low, high = 0, len(ordered)
    while high - low > 1:
        middle = (low + high) // 2
        boxed = ((scores >= thresholds(middle)) & counted).any(axis=1).mean()
        low, high = (middle, high) if boxed <= share else (low, middle)
    return thresholds(low)


@dataclass(frozen=True)
class OverSplits:
    """A figure over random splits: its mean and standard deviation (n − 1); NaN where a split leaves it undefined."""

    mean: float
    deviation: float


@dataclass(frozen=True)
class CrossFitted:
    """How well a calibration holds on unseen images, over random splits of the patients into halves.

    In every split each image is measured once, with the fit of the half without its patient. The deviations
    are over splits of the same images; they are not confidence intervals.

    Attributes:
        images: Number of images.
        normal_images: Number of images on which every finding is annotated as absent.
        findings: Indices of the findings in the means of errors, sensitivity and specificity.
        repeats: Number of splits.
        figures: By name: `uncalibrated_error`, the mean expected calibration error in [0, 1] of the sigmoid of the
            logits, and `calibrated_error`, that of the calibrated scores; mean `sensitivity` and `specificity` at the
            score thresholds; on a normal image, `findings_flagged`, those at or above their threshold, and
            `boxes_shown`, the boxes that a user sees, one for each finding at or above its threshold for boxes whose
            map is not zero (NaN where `box_components` is `"all"`, because records do not hold the regions of maps on
            normal images); `images_with_boxes`, the share of the normal images with at least one box.
    """

    images: int
    normal_images: int
    findings: tuple[int, ...]
    repeats: int
    figures: dict[str, OverSplits]


def cross_fitted(
    config: ClarityConfig,
    records: Sequence[ImageRecord],
    rule: ScoreRule = "youden",
    sensitivity: float = 0.9,
    min_positives: int = 5,
    min_positives_in_mean: int = 20,
    repeats: int = 5,
    seed: int = 0,
    false_box_share: float | None = None,
) -> CrossFitted:
    """Calibrate on one half of the patients and measure on the other, both ways and on several splits.

    [`calibrate`] fits all of the same images; this estimates how well the result will hold. Map thresholds change no
    figure here, because the largest region of a map that is not zero gets a box at any of them; see
    [`patient_protocol`] for those.

    Args:
        config: As for [`calibrate`], which changes it; here it is not changed.
        records: As for [`calibrate`].
        rule: As for [`calibrate`].
        sensitivity: As for [`calibrate`].
        min_positives: As for [`calibrate`], in each half.
        min_positives_in_mean: Findings with fewer positive images in total are not in the means.
        repeats: Number of splits, at least two.
        seed: Seed of the first split, see [`halves`]; the others take the seeds after it.
        false_box_share: As for [`calibrate`], by the normal images of each half.

    Returns:
        [`CrossFitted`].

    Raises:
        ValueError: There are fewer than two repeats or two patients, the peak of a normal image's map is not known, or
            as for [`calibrate`].
        RuntimeError: As for [`fit_platt`].
    """
    if repeats < 2:
        raise ValueError(f"`repeats` must be at least two, got {repeats}. One split has no deviation.")
    logits, labels = _logits_and_labels(config, records)
    patients = np.array([record.patient for record in records])
    if len(set(patients)) < 2:
        raise ValueError(f"`records` must be of at least two patients, got {patients[0]} alone. Evaluate more images.")
    normal = (labels == 0).all(axis=1)
    has_map = _has_map([record for record, counted in zip(records, normal, strict=True) if counted], logits.shape[1])
    splits = []
    for repeat in range(repeats):
        first = np.isin(patients, list(halves(patients.tolist(), seed + repeat)[0]))
        scores, flagged, boxed = np.empty_like(logits), *np.empty((2, *logits.shape), dtype=bool)
        for on, other in ((first, ~first), (~first, first)):
            fit = _fit_scores(config, logits[on], labels[on], rule, sensitivity, min_positives, false_box_share)
            scores[other] = fit.scores(logits[other])
            flagged[other] = scores[other] >= fit.thresholds
            boxed[other] = (scores[other] >= fit.box_thresholds) & ~_boxless(config)
        of_normal = _on_normal(flagged[normal], boxed[normal] & has_map)
        splits.append(_figures(scores, flagged, labels, min_positives_in_mean) | of_normal)
    plain = macro(calibration_error_per_finding(expit(logits), labels), labels, min_positives_in_mean)
    figures = {"uncalibrated_error": OverSplits(plain, 0.0 * plain)}  # NaN beside NaN
    for name in splits[0]:
        values = [split[name] for split in splits]
        figures[name] = OverSplits(float(np.mean(values)), float(np.std(values, ddof=1)))
    if config.box_components != "largest":
        figures["boxes_shown"] = OverSplits(float("nan"), float("nan"))
    return CrossFitted(
        images=len(records),
        normal_images=int(normal.sum()),
        findings=_places(support(labels)["positives"] >= min_positives_in_mean),
        repeats=repeats,
        figures=figures,
    )


def _logits_and_labels(config: ClarityConfig, records: Sequence[ImageRecord]) -> tuple[np.ndarray, np.ndarray]:
    """Logits, the config's slopes and intercepts undone, and labels of images, each `(n, F)` float64."""
    count = config.num_labels
    if not records or any(len(record.scores) != count for record in records):
        found = sorted({len(record.scores) for record in records}) or "no images"
        raise ValueError(
            f"`records` must be of images with the config's {count} findings, got {found}. Evaluate the model first."
        )
    scores = np.clip(np.stack([record.scores for record in records]), SCORE_MARGIN, 1 - SCORE_MARGIN)
    slopes, intercepts = (np.array(config.per_finding(name)) for name in ("score_slopes", "score_intercepts"))
    return (logit(scores) - intercepts) / slopes, np.stack([record.labels for record in records])


@dataclass(frozen=True)
class _ScoreFit:
    """What [`calibrate`] chooses for scores, each `(F,)`; `kept` where the config's own values stay."""

    slopes: np.ndarray
    intercepts: np.ndarray
    thresholds: np.ndarray
    box_thresholds: np.ndarray
    kept: np.ndarray

    def scores(self, logits: np.ndarray) -> np.ndarray:
        """Logits `(n, F)` → calibrated scores `(n, F)`."""
        return expit(self.slopes * logits + self.intercepts)


def _fit_scores(
    config: ClarityConfig,
    logits: np.ndarray,
    labels: np.ndarray,
    rule: str,
    sensitivity: float,
    min_positives: int,
    false_box_share: float | None,
) -> _ScoreFit:
    """Slopes and intercepts first, thresholds on the scores that they give."""
    kept = _too_few(labels, min_positives)
    own = config.per_finding("score_slopes"), config.per_finding("score_intercepts")
    slopes, intercepts = fit_platt(logits, labels, min_positives, *own)
    scores = expit(slopes * logits + intercepts)
    chosen = _between_scores(scores, _score_thresholds(scores, labels, rule, sensitivity))
    thresholds = np.where(kept, config.per_finding("score_thresholds"), chosen)
    boxed = thresholds
    if false_box_share is not None:
        normal = scores[(labels == 0).all(axis=1)]
        boxed = box_score_thresholds(normal, thresholds, false_box_share, _boxless(config))
    elif config.box_score_thresholds is not None:
        with np.errstate(divide="ignore"):  # of a threshold of 0 or 1
            at = (logit(config.per_finding("box_score_thresholds")) - own[1]) / np.array(own[0])
        boxed = np.maximum(thresholds, expit(slopes * at + intercepts))
    return _ScoreFit(slopes, intercepts, thresholds, boxed, kept)


def _boxless(config: ClarityConfig) -> np.ndarray:
    """`(F,)` bool: findings that get no box whatever their score."""
    return np.isin(config.findings, config.boxless_findings or ())


def _figures(
    scores: np.ndarray, flagged: np.ndarray, labels: np.ndarray, min_positives_in_mean: int
) -> dict[str, float]:
    """Means over findings of one split; `flagged` `(n, F)` bool at thresholds that differ between the halves."""
    points = operating_points(flagged, labels, np.full(labels.shape[1], 0.5))
    values = {
        "calibrated_error": calibration_error_per_finding(scores, labels),
        "sensitivity": points["sensitivity"],
        "specificity": points["specificity"],
    }
    return {name: macro(value, labels, min_positives_in_mean) for name, value in values.items()}


def _has_map(normal: Sequence[ImageRecord], count: int) -> np.ndarray:
    """`(n, F)` bool: the maps of normal images that are not zero, so that something is boxed at every threshold."""
    peaks = np.array([record.peaks for record in normal]).reshape(-1, count)
    if np.isnan(peaks).any():
        unknown = int(np.isnan(peaks).any(axis=1).sum())
        raise ValueError(
            f"`records` must hold the peak of every map, got NaN on {unknown} normal images. Evaluate with all maps."
        )
    return peaks > 0


def _on_normal(flagged: np.ndarray, boxed: np.ndarray) -> dict[str, float]:
    """Flagged findings and boxes on the normal images in one split; both arguments `(n, F)` bool."""
    if len(flagged) == 0:
        return dict.fromkeys(("findings_flagged", "boxes_shown", "images_with_boxes"), float("nan"))
    return {
        "findings_flagged": float(flagged.sum(axis=1).mean()),
        "boxes_shown": float(boxed.sum(axis=1).mean()),
        "images_with_boxes": float(boxed.any(axis=1).mean()),
    }


def _score_thresholds(scores: np.ndarray, labels: np.ndarray, rule: str, sensitivity: float) -> np.ndarray:
    rules: dict[str, Callable[..., np.ndarray]] = {
        "youden": youden_thresholds,
        "sensitivity": sensitivity_thresholds,
        "f1": f1_thresholds,
    }
    if rule not in rules:
        raise ValueError(f"`rule` must be 'youden', 'sensitivity' or 'f1', got '{rule}'. Choose one of them.")
    options = {"target": sensitivity} if rule == "sensitivity" else {}
    return rules[rule](scores, labels, **options)


def _between_scores(scores: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Each threshold `(F,)` halfway to the next lower of the scores `(n, F)`; the lowest score stays."""
    lower = np.where(scores < thresholds, scores, -np.inf).max(axis=0)
    return np.where(np.isfinite(lower), (thresholds + lower) / 2, thresholds)


def _too_few(labels: np.ndarray, min_positives: int) -> np.ndarray:
    """`(F,)` bool: findings with too few positive or negative images to fit anything."""
    known = support(labels)
    return np.minimum(known["positives"], known["negatives"]) < max(1, min_positives)


def _places(chosen: np.ndarray) -> tuple[int, ...]:
    return tuple(np.flatnonzero(chosen).tolist())
