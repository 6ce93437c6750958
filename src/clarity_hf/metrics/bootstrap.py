# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Bootstrap intervals by patient: how far a figure would move with other patients of the same kind.

Images of one patient resemble each other, so patients are drawn with repetition and bring all their rows. In place of
rows a draw may be given as weights, how often each row came along; a ranking then is sorted once for all draws.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .classification import checked_scores, support


@dataclass(frozen=True)
class Interval:
    """Where the middle of the bootstrap's draws lies, for a figure or an array of figures.

    Attributes:
        low: Lower end; NaN where fewer than half of the draws are defined.
        high: Upper end, likewise.
        defined: Share of the draws in which the figure is defined, in [0, 1]; the ends are quantiles of these draws.
    """

    low: Any
    high: Any
    defined: Any = 1.0


def patient_weights(patients: Sequence[Any] | np.ndarray, repeats: int = 1000, seed: int = 0) -> Iterator[np.ndarray]:
    """Draw as many patients as there are, with repetition, again and again.

    Args:
        patients: `(n,)`, whose row is whose.
        repeats: Number of draws.
        seed: Of the draws; the same one draws the same patients.

    Yields:
        Per draw `(n,)` int64, how often each row's patient was drawn.

    Raises:
        ValueError: There are no patients, one is unknown, or no draws are wanted.

    Source: Field and Welsh, Bootstrapping clustered data, J. R. Stat. Soc. B 69 (2007) 369–390.
    """
    patients = list(patients)
    if not patients:
        raise ValueError("`patients` must name at least one row's patient, got none. Give the patient of every row.")
    unknown = sum(patient is None or patient != patient for patient in patients)  # NaN differs from itself
    if unknown:
        raise ValueError(
            f"`patients` must name every row's patient, got {unknown} of {len(patients)} without. "
            "Leave these rows out, or let each be a patient of its own."
        )
    if repeats < 1:
        raise ValueError(f"`repeats` must be at least 1, got {repeats}. A thousand are usual.")
    names, patient = np.unique(np.asarray(patients), return_inverse=True)
    return _draws(len(names), patient, repeats, np.random.default_rng(seed))


def _draws(count: int, patient: np.ndarray, repeats: int, generator: np.random.Generator) -> Iterator[np.ndarray]:
    for _ in range(repeats):
        yield np.bincount(generator.integers(count, size=count), minlength=count)[patient]


def patient_folds(patients: Sequence[str] | np.ndarray, folds: int, seed: int = 0) -> np.ndarray:
    """Cut patients into folds.

    Args:
        patients: `(n,)`, whose row is whose.
        folds: How many at most; of fewer patients each is a fold of its own.
        seed: Of the draw.

    Returns:
        `(n,)` int in [0, folds).
    """
    names, patient = np.unique(np.asarray(patients), return_inverse=True)
    return (np.random.default_rng(seed).permutation(len(names)) % folds)[patient]


def bootstrap_by_patient(
    statistic: Callable[[np.ndarray], Any],
    patients: Sequence[Any] | np.ndarray,
    repeats: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Percentile interval of any figure of rows.

    Args:
        statistic: Takes the rows of a draw, int64 indices in ascending order, with repetition; gives a number or an
            array, NaN where undefined. It must not mind the order of rows.
        patients: `(n,)`, whose row is whose.
        repeats: Number of draws.
        seed: Of the draws.
        level: Share of the draws inside the interval, in (0, 1).

    Returns:
        The interval, of floats for a number and else of arrays in the statistic's shape.

    Raises:
        ValueError: As for [`patient_weights`], or the level is no such share.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 13.
    """
    rows = np.arange(len(patients))
    weights = patient_weights(patients, repeats, seed)
    return interval_of_draws((statistic(np.repeat(rows, drawn)) for drawn in weights), level)


def paired_difference(
    statistic: Callable[[np.ndarray], Any],
    other: Callable[[np.ndarray], Any],
    patients: Sequence[Any] | np.ndarray,
    repeats: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Percentile interval of `statistic − other`, both on the same draws.

    An interval that lies off zero says more than two intervals that do not overlap: what makes a draw hard for both
    cancels.

    Args:
        statistic: As for [`bootstrap_by_patient`].
        other: The same of another method.
        patients: `(n,)`, whose row is whose, for both methods.
        repeats: Number of draws.
        seed: Of the draws.
        level: Share of the draws inside the interval, in (0, 1).

    Returns:
        The interval of the difference.
    """
    return bootstrap_by_patient(lambda rows: np.subtract(statistic(rows), other(rows)), patients, repeats, seed, level)


def weighted_auroc(scores: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Area under the ROC curve of one finding with weighted images, for many weightings at the price of one sort.

    Args:
        scores: `(n,)`, any monotone scale.
        labels: `(n,)`, 1, 0 or NaN.
        weights: `(..., n)` numbers ≥ 0, such as how often each image was drawn.

    Returns:
        `(...)` float64 in [0, 1]; NaN where the positives or the negatives weigh nothing.

    Raises:
        ValueError: The shapes differ, a score is not finite, a label is neither 1, 0 nor NaN, or a weight is negative
            or not finite.
    """
    return _Ranking.of(scores, labels).measure(_checked_weights(weights, len(scores)))[0]


def weighted_average_precision(scores: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Average precision of one finding with weighted images, for many weightings at the price of one sort.

    Args:
        scores: `(n,)`, any monotone scale.
        labels: `(n,)`, 1, 0 or NaN.
        weights: `(..., n)` numbers ≥ 0, such as how often each image was drawn.

    Returns:
        `(...)` float64 in [0, 1]; NaN where the positives or the negatives weigh nothing.

    Raises:
        ValueError: As for [`weighted_auroc`].
    """
    return _Ranking.of(scores, labels).measure(_checked_weights(weights, len(scores)))[1]


def classification_intervals(
    scores: np.ndarray,
    labels: np.ndarray,
    patients: Sequence[Any] | np.ndarray,
    repeats: int = 1000,
    seed: int = 0,
    level: float = 0.95,
    min_positives: int = 20,
) -> dict[str, Interval]:
    """Intervals by patient of AUROC and average precision, per finding and their means.

    What [`bootstrap_by_patient`] gives for [`auroc_per_finding`], [`average_precision_per_finding`] and [`macro`], on
    the same draws and many times faster.

    Args:
        scores: `(n, F)`, any monotone scale.
        labels: `(n, F)`, 1, 0 or NaN.
        patients: `(n,)`, whose row is whose.
        repeats: Number of draws.
        seed: Of the draws.
        level: Share of the draws inside an interval, in (0, 1).
        min_positives: Findings with fewer positives on all rows are left out of the means. The means of all draws are
            over the same findings; a draw in which one of them is undefined has no mean.

    Returns:
        `auroc` and `average_precision`, intervals of `(F,)`; `macro_auroc` and `macro_average_precision`, intervals of
        floats. NaN where fewer than half of the draws are defined.

    Raises:
        ValueError: As for [`auroc_per_finding`] and [`patient_weights`], or their lengths differ.
    """
    figures = _figures(_rankings(scores, labels, patients), support(labels), min_positives)
    return _named_intervals(figures, patients, repeats, seed, level)


def classification_differences(
    scores: np.ndarray,
    other_scores: np.ndarray,
    labels: np.ndarray,
    patients: Sequence[Any] | np.ndarray,
    repeats: int = 1000,
    seed: int = 0,
    level: float = 0.95,
    min_positives: int = 20,
) -> dict[str, Interval]:
    """Intervals by patient of how much better one method classifies than another, both on the same draws.

    Args:
        scores: `(n, F)` of the method, any monotone scale.
        other_scores: `(n, F)` of the method that is subtracted, on its own scale.
        labels: `(n, F)`, 1, 0 or NaN, for both.
        patients: `(n,)`, whose row is whose.
        repeats: Number of draws.
        seed: Of the draws.
        level: Share of the draws inside an interval, in (0, 1).
        min_positives: Findings with fewer positives on all rows are left out of the means.

    Returns:
        The names of [`classification_intervals`], each the interval of the difference.

    Raises:
        ValueError: As for [`classification_intervals`].
    """
    ours = _figures(_rankings(scores, labels, patients), support(labels), min_positives)
    theirs = _figures(_rankings(other_scores, labels, patients), support(labels), min_positives)
    return _named_intervals(lambda drawn: ours(drawn) - theirs(drawn), patients, repeats, seed, level)


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
        """Rank the images of one finding: scores `(n,)`, labels `(n,)`."""
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
        """AUROC and average precision, each `(...)`, for weights `(..., n)`; NaN where a class weighs nothing.

        Both are sums over positives alone, of what has been cumulated where their group starts and ends.
        """
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


def _checked_weights(weights: np.ndarray, rows: int) -> np.ndarray:
    weights = np.asarray(weights)
    if weights.ndim < 1 or weights.shape[-1] != rows:
        raise ValueError(f"`weights` must be (..., {rows}), got {weights.shape}. Give one for every score.")
    if not np.isfinite(weights).all() or (weights < 0).any():
        raise ValueError("`weights` must be finite and at least 0, got others. Count how often an image is drawn.")
    return weights


def _rankings(scores: np.ndarray, labels: np.ndarray, patients: Sequence[Any] | np.ndarray) -> list[_Ranking]:
    scores, labels = checked_scores(scores, labels)
    if len(patients) != len(labels):
        raise ValueError(
            f"`patients` must name {len(labels)} rows, got {len(patients)}. Give the patient of every row."
        )
    return [_Ranking.of(scores[:, finding], labels[:, finding]) for finding in range(labels.shape[1])]


def _figures(
    rankings: list[_Ranking], counts: dict[str, np.ndarray], min_positives: int
) -> Callable[[np.ndarray], np.ndarray]:
    """What a draw's weights `(n,)` give: `(2, F + 1)`, AUROC and average precision of all findings and their mean."""
    # The findings of the mean are those of the full sample, or draws would be means of different things.
    averaged = (counts["positives"] >= max(min_positives, 1)) & (counts["negatives"] > 0)

    def of(drawn: np.ndarray) -> np.ndarray:
        measured = np.array([ranking.measure(drawn) for ranking in rankings]).reshape(-1, 2).T
        means = measured[:, averaged].mean(axis=1) if averaged.any() else np.full(2, np.nan)
        return np.column_stack([measured, means])

    return of


def _named_intervals(
    figures: Callable[[np.ndarray], np.ndarray],
    patients: Sequence[Any] | np.ndarray,
    repeats: int,
    seed: int,
    level: float,
) -> dict[str, Interval]:
    interval = interval_of_draws((figures(drawn) for drawn in patient_weights(patients, repeats, seed)), level)
    named = {}
    for row, name in enumerate(("auroc", "average_precision")):
        ends = [part[row] for part in (interval.low, interval.high, interval.defined)]
        named[name] = Interval(*(part[:-1] for part in ends))
        named[f"macro_{name}"] = Interval(*(float(part[-1]) for part in ends))
    return named


def interval_of_draws(draws: Iterable[Any], level: float = 0.95) -> Interval:
    """Percentile interval of figures that were drawn already.

    Args:
        draws: Each a number or an array of one shape, NaN where undefined.
        level: Share of the draws inside the interval, in (0, 1).

    Raises:
        ValueError: The level is no such share.
    """
    if not 0 < level < 1:
        raise ValueError(f"`level` must be in (0, 1), got {level}. 0.95 is usual.")
    values = np.stack([np.asarray(draw, dtype=np.float64) for draw in draws])
    defined = (~np.isnan(values)).mean(axis=0)
    ends = np.full((2, *values.shape[1:]), np.nan)
    enough = defined >= 0.5
    ends[:, enough] = np.nanquantile(values[:, enough], [(1 - level) / 2, (1 + level) / 2], axis=0)
    if values.ndim == 1:
        return Interval(float(ends[0]), float(ends[1]), float(defined))
    return Interval(ends[0], ends[1], defined)
