# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Bootstrap intervals of 95 % by patient.

Images of one patient are not independent, so patients are sampled with replacement, each with all its rows. A sample
can also be given as weights (how often each row occurs), so that a ranking is sorted only once for all samples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .classification import checked_scores, support
from .localization import LEVELS, figures_of_rows
from .matching import Overlaps

LEVEL = 0.95
"""Share of the samples inside an interval."""


@dataclass(frozen=True)
class Interval:
    """Percentile interval of bootstrap samples, for a figure or an array of figures.

    Attributes:
        low: Lower end; NaN if fewer than half of the samples are defined.
        high: Upper end, likewise.
        defined: Share of the samples in which the figure is defined, in [0, 1]; the ends are quantiles of these.
    """

    low: Any
    high: Any
    defined: Any = 1.0


def patient_weights(patients: Sequence[Any] | np.ndarray, repeats: int = 1000, seed: int = 0) -> Iterator[np.ndarray]:
    """Sample as many patients as there are, with replacement, `repeats` times.

    Yields:
        Per sample `(n,)` int64, how often each row's patient was sampled.

    Raises:
        ValueError: There are no patients, one is unknown, or `repeats` is under 1.

    Source: Field and Welsh, Bootstrapping clustered data, J. R. Stat. Soc. B 69 (2007) 369–390.
    """
    patients = list(patients)
    if not patients:
        raise ValueError("`patients` must name at least one row's patient, got none. Pass the patient of every row.")
    unknown = sum(patient is None or patient != patient for patient in patients)  # NaN differs from itself
    if unknown:
        raise ValueError(
            f"`patients` must name every row's patient, got {unknown} of {len(patients)} without. "
            "Leave these rows out, or make each a separate patient."
        )
    if repeats < 1:
        raise ValueError(f"`repeats` must be at least 1, got {repeats}. Usual is 1000.")
    names, patient = np.unique(np.asarray(patients), return_inverse=True)
    generator, count = np.random.default_rng(seed), len(names)
    return (np.bincount(generator.integers(count, size=count), minlength=count)[patient] for _ in range(repeats))


def interval_of_samples(samples: Iterable[Any]) -> Interval:
    """Percentile interval of the figures of samples, each a number or an array of one shape, NaN where undefined."""
    values = np.stack([np.asarray(sample, dtype=np.float64) for sample in samples])
    defined = (~np.isnan(values)).mean(axis=0)
    ends = np.full((2, *values.shape[1:]), np.nan)
    enough = defined >= 0.5
    ends[:, enough] = np.nanquantile(values[:, enough], [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    if values.ndim == 1:
        return Interval(float(ends[0]), float(ends[1]), float(defined))
    return Interval(ends[0], ends[1], defined)


def bootstrap_by_patient(
    statistic: Callable[[np.ndarray], Any],
    patients: Sequence[Any] | np.ndarray,
    repeats: int = 1000,
    seed: int = 0,
    shape: tuple[int, ...] | None = None,
) -> Interval:
    """Percentile interval of any statistic of rows; for a paired difference, let `statistic` subtract two figures.

    Args:
        statistic: Takes the rows of a sample, ascending int64 indices with repetition, and returns a number or an
            array, NaN where undefined. It must not depend on the order of rows.
        patients: `(n,)`, the patient of each row.
        repeats: Number of samples.
        seed: Seed of the samples.
        shape: Shape of the result; with it, the result for no rows is NaN instead of an error.

    Returns:
        The interval, of floats for a number and otherwise of arrays in the statistic's shape.

    Raises:
        ValueError: As for [`patient_weights`].

    Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 13.
    """
    if shape is not None and len(patients) == 0:
        return Interval(np.full(shape, np.nan), np.full(shape, np.nan), np.zeros(shape))
    rows = np.arange(len(patients))
    weights = patient_weights(patients, repeats, seed)
    return interval_of_samples(statistic(np.repeat(rows, times)) for times in weights)


def part_of(interval: Interval, index: Any) -> Interval:
    """An interval of arrays at an index."""
    return Interval(*(np.asarray(end)[index] for end in (interval.low, interval.high, interval.defined)))


def weighted_auroc(scores: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Area under the ROC curve of one finding with weighted images, for many weightings at the cost of one sort.

    Args:
        scores: `(n,)`, any monotone scale.
        labels: `(n,)`, 1, 0 or NaN.
        weights: `(..., n)` numbers ≥ 0, such as how often each image was sampled.

    Returns:
        `(...)` float64 in [0, 1]; NaN if the positives or the negatives have no weight.

    Raises:
        ValueError: The shapes differ, a score is not finite, a label is neither 1, 0 nor NaN, or a weight is negative
            or not finite.
    """
    weights = np.asarray(weights)
    if weights.ndim < 1 or weights.shape[-1] != len(scores):
        raise ValueError(f"`weights` must be (..., {len(scores)}), got {weights.shape}. Pass one per score.")
    if not np.isfinite(weights).all() or (weights < 0).any():
        raise ValueError("`weights` must be finite and at least 0, got others. Pass how often each image is sampled.")
    return _Ranking.of(scores, labels).measure(weights)[0]


def classification_intervals(
    scores: np.ndarray,
    labels: np.ndarray,
    patients: Sequence[Any] | np.ndarray,
    repeats: int = 1000,
    seed: int = 0,
    min_positives: int = 20,
    minus: np.ndarray | None = None,
) -> dict[str, Interval]:
    """Intervals by patient of AUROC and average precision, per finding and their means.

    Equal to [`bootstrap_by_patient`] of [`auroc_per_finding`], [`average_precision_per_finding`] and [`macro`] on the
    same samples, but many times faster.

    Args:
        scores: `(n, F)`, any monotone scale.
        labels: `(n, F)`, 1, 0 or NaN.
        patients: `(n,)`, the patient of each row.
        repeats: Number of samples.
        seed: Seed of the samples.
        min_positives: Findings with fewer positives on all rows are left out of the means. The means of all samples
            are over the same findings; a sample in which one of them is undefined has no mean.
        minus: `(n, F)` scores of another method, on its own scale: the intervals are then of the differences, paired
            by sample.

    Returns:
        `auroc` and `average_precision`, intervals of `(F,)`; `macro_auroc` and `macro_average_precision`, intervals of
        floats. NaN if fewer than half of the samples are defined.

    Raises:
        ValueError: As for [`auroc_per_finding`] and [`patient_weights`], or their lengths differ.
    """
    if len(patients) != len(labels):
        raise ValueError(
            f"`patients` must name {len(labels)} rows, got {len(patients)}. Pass the patient of every row."
        )
    figures = [_ranking_figures(one, labels, min_positives) for one in (scores, minus) if one is not None]
    weights = patient_weights(patients, repeats, seed)
    interval = interval_of_samples(figures[0](one) - sum(other(one) for other in figures[1:]) for one in weights)
    named = {}
    for row, name in enumerate(("auroc", "average_precision")):
        named[name] = part_of(interval, np.s_[row, :-1])
        mean = part_of(interval, (row, -1))
        named[f"macro_{name}"] = Interval(float(mean.low), float(mean.high), float(mean.defined))
    return named


@dataclass(frozen=True)
class _Ranking:
    """The annotated images of one finding from the highest score to the lowest, with k positives among m.

    Images of equal score form a group and pass a threshold together. Places are counted from 0.

    Attributes:
        order: `(m,)` rows.
        positives: `(k,)` places of the positives.
        starts, ends: `(k,)` places of the first image of each positive's group, and of the first after it.
        starts_among, ends_among: `(k,)` the same, counted among the positives alone.
    """

    order: np.ndarray
    positives: np.ndarray
    starts: np.ndarray
    ends: np.ndarray
    starts_among: np.ndarray
    ends_among: np.ndarray

    @classmethod
    def of(cls, scores: np.ndarray, labels: np.ndarray) -> _Ranking:
        columns = checked_scores(np.asarray(scores)[:, None], np.asarray(labels)[:, None])
        scores, labels = columns[0][:, 0], columns[1][:, 0]
        rows = np.flatnonzero(~np.isnan(labels))
        order = rows[np.argsort(-scores[rows], kind="stable")]
        falling = -scores[order]
        positives = np.flatnonzero(labels[order] == 1)
        starts = np.searchsorted(falling, falling[positives], side="left")
        ends = np.searchsorted(falling, falling[positives], side="right")
        among = np.searchsorted(positives, starts), np.searchsorted(positives, ends)
        return cls(order, positives, starts, ends, *among)

    def measure(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """AUROC and average precision, each `(...)`, for weights `(..., n)`; NaN if a class has no weight."""
        ranked = weights[..., self.order]
        present = ranked[..., self.positives]
        upto, upto_present = _cumulated(ranked), _cumulated(present)
        positive, negative = upto_present[..., -1], upto[..., -1] - upto_present[..., -1]
        flagged, found = upto[..., self.ends], upto_present[..., self.ends_among]
        alarms_above = upto[..., self.starts] - upto_present[..., self.starts_among]
        # A negative of the same score counts half.
        beaten = negative[..., None] - (alarms_above + flagged - found) / 2
        precision = np.divide(found, flagged, out=np.zeros(found.shape), where=flagged > 0)
        defined = (positive > 0) & (negative > 0)
        with np.errstate(invalid="ignore", divide="ignore"):
            auroc = (present * beaten).sum(axis=-1) / (positive * negative)
            average_precision = (present * precision).sum(axis=-1) / positive
        return np.where(defined, auroc, np.nan), np.where(defined, average_precision, np.nan)


def _cumulated(weights: np.ndarray) -> np.ndarray:
    """Sums of the first 0, 1, …, m weights: `(..., m + 1)`."""
    sums = np.zeros((*weights.shape[:-1], weights.shape[-1] + 1))
    np.cumsum(weights, axis=-1, out=sums[..., 1:])
    return sums


def _ranking_figures(
    scores: np.ndarray, labels: np.ndarray, min_positives: int
) -> Callable[[np.ndarray], np.ndarray]:
    """From weights `(n,)` to `(2, F + 1)`: AUROC and average precision of all findings and their mean."""
    scores, labels = checked_scores(scores, labels)
    rankings = [_Ranking.of(scores[:, finding], labels[:, finding]) for finding in range(labels.shape[1])]
    # Always the findings of the full sample; otherwise samples would be means of different things.
    counts = support(labels)
    averaged = (counts["positives"] >= max(min_positives, 1)) & (counts["negatives"] > 0)

    def of(weights: np.ndarray) -> np.ndarray:
        measured = np.array([ranking.measure(weights) for ranking in rankings]).reshape(-1, 2).T
        means = measured[:, averaged].mean(axis=1) if averaged.any() else np.full(2, np.nan)
        return np.column_stack([measured, means])

    return of


@dataclass(frozen=True)
class FoundIntervals:
    """Intervals by patient of the figures of [`PerFinding`], or of a difference: `(F, L)`, `(L,)` and `(L,)`."""

    shares: Interval
    macro: Interval
    pooled: Interval


def localization_intervals(
    overlaps: Overlaps, levels: Sequence[float] = LEVELS, repeats: int = 1000, seed: int = 0
) -> FoundIntervals:
    """Bootstrap intervals by patient of T(IoU), or a similar figure, at fixed thresholds.

    The mean over findings is over the same ones in every sample; a sample that lacks one of them is undefined.
    Arguments as for [`localization_difference`].
    """
    return _found_intervals(_found_figures(overlaps, levels), overlaps, len(levels), repeats, seed)


def localization_difference(
    overlaps: Overlaps, other: Overlaps, levels: Sequence[float] = LEVELS, repeats: int = 1000, seed: int = 0
) -> FoundIntervals:
    """Paired bootstrap intervals of the difference in T(IoU) between two methods, on the same samples of patients.

    "Clearly above" means an interval above zero. This is more sensitive than comparing two intervals, because what
    makes a sample hard for both methods cancels out.

    Args:
        overlaps: Overlaps of the method.
        other: Overlaps of the method to subtract, such as the fixed box, on the same annotated boxes.
        levels: IoU thresholds t.
        repeats: Number of samples.
        seed: Seed of the samples.

    Raises:
        ValueError: The annotated boxes or their order differ.
    """
    same = all(
        np.array_equal(getattr(overlaps, name), getattr(other, name)) for name in ("images", "patients", "findings")
    )
    if not same or overlaps.num_findings != other.num_findings:
        raise ValueError(
            f"`other` must be of the same annotated boxes as `overlaps`, got {len(other.images)} boxes for "
            f"{len(overlaps.images)}, or different ones. Score both methods on the same records in the same order."
        )
    ours, theirs = _found_figures(overlaps, levels), _found_figures(other, levels)
    return _found_intervals(lambda rows: ours(rows) - theirs(rows), overlaps, len(levels), repeats, seed)


def _found_figures(overlaps: Overlaps, levels: Sequence[float]) -> Callable[[np.ndarray], np.ndarray]:
    above = overlaps.best[:, None] > np.asarray(levels, dtype=np.float64)
    return figures_of_rows(overlaps.findings, above, overlaps.num_findings)


def _found_intervals(
    figures: Callable[[np.ndarray], np.ndarray], overlaps: Overlaps, levels: int, repeats: int, seed: int
) -> FoundIntervals:
    shape = (overlaps.num_findings + 2, levels)
    interval = bootstrap_by_patient(figures, overlaps.patients, repeats, seed, shape)
    return FoundIntervals(*(part_of(interval, index) for index in (slice(None, -2), -2, -1)))
