# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Intervals by patient, and the weighted ranking that makes them fast."""

import importlib.util
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from clarity_hf.metrics import bootstrap
from clarity_hf.metrics.bootstrap import (
    Interval,
    bootstrap_by_patient,
    classification_intervals,
    localization_difference,
    localization_intervals,
    patient_weights,
    weighted_auroc,
)
from clarity_hf.metrics.classification import auroc_per_finding, average_precision_per_finding, macro
from clarity_hf.metrics.matching import annotated_boxes

_spec = importlib.util.spec_from_file_location("made_records", Path(__file__).with_name("made_records.py"))
made = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(made)
TARGET, annotation, image, random_images = made.TARGET, made.annotation, made.image, made.random_images

NAN = np.nan
FIGURES = {"auroc": auroc_per_finding, "average_precision": average_precision_per_finding}


def weighted_average_precision(scores, labels, weights):
    return bootstrap._Ranking.of(scores, labels).measure(np.asarray(weights))[1]


def images(seed, count=150, findings=3, steps=None):
    """Scores, labels with NaN, and patients with one to about five images."""
    generator = np.random.default_rng(seed)
    scores = generator.normal(size=(count, findings))
    labels = (generator.normal(size=scores.shape) + scores > 0.7).astype(float)
    labels[generator.uniform(size=labels.shape) < 0.15] = NAN
    if steps:
        scores = np.round(scores * steps)
    return scores, labels, [f"patient {number}" for number in generator.integers(count // 2, size=count)]


# Samples


def test_all_rows_of_a_patient_are_sampled_together():
    patients = np.array(["b", "a", "b", "c", "a", "b"])
    for sampled in patient_weights(patients, repeats=50):
        for patient in "abc":
            assert len(set(sampled[patients == patient])) == 1
        # As many patients as there are: a row of each says how often it came.
        assert sampled[[1, 0, 3]].sum() == 3


def test_every_patient_is_sampled_once_on_average():
    sampled = np.stack(list(patient_weights(range(40), repeats=4000)))
    assert sampled.dtype == np.int64
    # A count of 40 samples at 1/40 has standard deviation .99, its mean over 4,000 repeats .016.
    np.testing.assert_allclose(sampled.mean(axis=0), 1, atol=0.08)
    np.testing.assert_allclose(sampled.var(axis=0), 39 / 40, atol=0.15)


def test_a_seed_samples_the_same_patients():
    def samples(seed):
        return np.stack(list(patient_weights(range(20), repeats=5, seed=seed)))

    np.testing.assert_array_equal(samples(3), samples(3))
    assert (samples(3) != samples(4)).any()


def test_the_statistic_sees_the_rows_that_were_weighted():
    patients, seen = ["b", "a", "b", "c"], []
    bootstrap_by_patient(lambda rows: seen.append(rows) or 0.0, patients, repeats=20, seed=7)
    for rows, sampled in zip(seen, patient_weights(patients, 20, seed=7), strict=True):
        np.testing.assert_array_equal(np.bincount(rows, minlength=4), sampled)


# Intervals


def test_an_interval_is_the_middle_of_the_samples():
    values = iter(range(101))
    interval = bootstrap_by_patient(lambda _: next(values), ["a"], repeats=101)
    assert (interval.low, interval.high, interval.defined) == pytest.approx((2.5, 97.5, 1))
    assert isinstance(interval.low, float)


def test_a_constant_has_no_width():
    assert bootstrap_by_patient(lambda rows: 0.25, ["a", "b"], repeats=10) == Interval(0.25, 0.25, 1.0)


def test_the_interval_of_a_mean_is_that_of_its_standard_error():
    values = np.random.default_rng(0).normal(size=400)
    interval = bootstrap_by_patient(lambda rows: values[rows].mean(), range(400), repeats=2000)
    half = 1.96 * values.std() / 20
    np.testing.assert_allclose([interval.low, interval.high], values.mean() + np.array([-half, half]), atol=0.012)


def test_images_that_repeat_a_patient_add_no_certainty():
    values = np.random.default_rng(1).normal(size=100)
    alone = bootstrap_by_patient(lambda rows: values[rows].mean(), range(100))
    fivefold = np.repeat(values, 5)
    together = bootstrap_by_patient(lambda rows: fivefold[rows].mean(), np.repeat(np.arange(100), 5))
    np.testing.assert_allclose([together.low, together.high], [alone.low, alone.high])
    apart = bootstrap_by_patient(lambda rows: fivefold[rows].mean(), range(500))
    assert apart.high - apart.low < 0.6 * (alone.high - alone.low)


def test_an_array_gets_an_interval_for_each_of_its_numbers():
    values = np.random.default_rng(2).normal(size=(60, 2, 3))
    patients = np.arange(60) % 25
    together = bootstrap_by_patient(lambda rows: values[rows].mean(axis=0), patients, repeats=50)
    assert together.low.shape == together.high.shape == together.defined.shape == (2, 3)
    alone = bootstrap_by_patient(lambda rows: values[rows, 1, 2].mean(), patients, repeats=50)
    assert (together.low[1, 2], together.high[1, 2]) == pytest.approx((alone.low, alone.high))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("missing", "ends"), [(0, (0.225, 8.775)), (5, (5.1, 8.9)), (6, (NAN, NAN)), (10, (NAN, NAN))]
)
def test_fewer_than_half_of_the_samples_make_no_interval(missing, ends):
    values = iter([NAN if draw < missing else draw for draw in range(10)])
    interval = bootstrap_by_patient(lambda _: next(values), ["a"], repeats=10)
    np.testing.assert_allclose([interval.low, interval.high], ends, atol=1e-6)
    assert interval.defined == pytest.approx(1 - missing / 10)


def test_what_cannot_be_sampled_is_refused():
    with pytest.raises(ValueError, match="`patients` must name at least one row's patient, got none"):
        bootstrap_by_patient(len, [])
    with pytest.raises(ValueError, match="`patients` must name every row's patient, got 2 of 3 without"):
        bootstrap_by_patient(len, ["a", None, NAN])
    with pytest.raises(ValueError, match="`repeats` must be at least 1, got 0"):
        bootstrap_by_patient(len, ["a"], repeats=0)


# The weighted ranking


@pytest.mark.parametrize("steps", [None, 3, 0.5])
@pytest.mark.parametrize("whole", [True, False])
def test_weighted_figures_are_those_of_sklearn(steps, whole):
    scores, labels, _ = images(4, findings=1, steps=steps)
    scores, labels = scores[:, 0], labels[:, 0]
    generator = np.random.default_rng(5)
    weights = generator.integers(0, 4, (12, 150)) if whole else generator.exponential(size=(12, 150))
    known = ~np.isnan(labels)
    areas = weighted_auroc(scores, labels, weights)
    precisions = weighted_average_precision(scores, labels, weights)
    assert areas.shape == precisions.shape == (12,)
    for area, precision, row in zip(areas, precisions, weights[:, known], strict=True):
        assert area == pytest.approx(roc_auc_score(labels[known], scores[known], sample_weight=row))
        assert precision == pytest.approx(average_precision_score(labels[known], scores[known], sample_weight=row))


def test_a_weight_is_a_number_of_copies():
    scores, labels, patients = images(6, steps=2)
    sampled = next(patient_weights(patients, 1))
    copies = np.repeat(np.arange(len(labels)), sampled)
    for finding in range(3):
        one = slice(finding, finding + 1)
        area = weighted_auroc(scores[:, finding], labels[:, finding], sampled)
        assert area == pytest.approx(auroc_per_finding(scores[copies, one], labels[copies, one])[0], abs=1e-12)
        precision = weighted_average_precision(scores[:, finding], labels[:, finding], sampled)
        expected = average_precision_per_finding(scores[copies, one], labels[copies, one])[0]
        assert precision == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("scores", "labels", "weights", "area", "precision"),
    [
        # The pair (0.35, 0.4) is out of order and weighs 2 of 2 · 1 + 2 · 1 + 1 + 1 = 6.
        ([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1], [1, 1, 2, 1], 4 / 6, 1 / 3 + 2 / 3 * 3 / 4),
        ([0.5, 0.5, 0.5], [0, 1, 0], [1, 2, 3], 0.5, 1 / 3),
        ([0.2, 0.7, 0.6], [0, 1, NAN], [1, 1, 9], 1, 1),
        ([0.1, 0.9, 0.5, 0.2], [0, 0, 1, 1], [1, 0, 1, 1], 1, 1),  # what weighs nothing is not there
        ([0.1, 0.9, 0.5, 0.2], [0, 0, 1, 1], [1, 1, 0, 0], NAN, NAN),
        ([0.1, 0.9, 0.5, 0.2], [0, 0, 1, 1], [0, 0, 1, 1], NAN, NAN),
        ([0.1, 0.9], [1, 1], [1, 1], NAN, NAN),
        ([0.1, 0.9], [0, 0], [1, 1], NAN, NAN),
        ([0.1, 0.9], [NAN, NAN], [1, 1], NAN, NAN),
    ],
)
@pytest.mark.filterwarnings("error")
def test_weighted_figures_computed_by_hand(scores, labels, weights, area, precision):
    np.testing.assert_allclose(weighted_auroc(np.array(scores), np.array(labels), weights), area)
    np.testing.assert_allclose(weighted_average_precision(np.array(scores), np.array(labels), weights), precision)


def test_weights_belong_to_images():
    scores, labels = np.array([0.1, 0.9]), np.array([0, 1])
    with pytest.raises(ValueError, match=r"`weights` must be \(..., 2\), got \(4, 3\)"):
        weighted_auroc(scores, labels, np.ones((4, 3)))
    for wrong in (-1, NAN, np.inf):
        with pytest.raises(ValueError, match="`weights` must be finite and at least 0"):
            weighted_auroc(scores, labels, [1, wrong])
    with pytest.raises(ValueError, match="`labels` must be 1, 0 or NaN"):
        weighted_auroc(scores, labels * 2, [1, 1])


# Intervals of classification


@pytest.mark.parametrize("steps", [None, 2])
@pytest.mark.parametrize("name", FIGURES)
def test_the_fast_intervals_are_the_slow_ones(name, steps):
    scores, labels, patients = images(7, steps=steps)
    fast = classification_intervals(scores, labels, patients, repeats=15, seed=1, min_positives=10)
    slow = bootstrap_by_patient(lambda rows: FIGURES[name](scores[rows], labels[rows]), patients, 15, seed=1)
    np.testing.assert_allclose(fast[name].low, slow.low)
    np.testing.assert_allclose(fast[name].high, slow.high)
    mean = bootstrap_by_patient(
        lambda rows: macro(FIGURES[name](scores[rows], labels[rows]), labels, 10), patients, 15, seed=1
    )
    assert fast[f"macro_{name}"].low == pytest.approx(mean.low)
    assert fast[f"macro_{name}"].high == pytest.approx(mean.high)


@pytest.mark.parametrize("name", FIGURES)
def test_the_fast_differences_are_the_slow_ones(name):
    scores, labels, patients = images(8)
    other = scores + np.random.default_rng(9).normal(size=scores.shape)
    fast = classification_intervals(scores, labels, patients, repeats=15, seed=2, min_positives=10, minus=other)
    figure = FIGURES[name]
    slow = bootstrap_by_patient(
        lambda rows: figure(scores[rows], labels[rows]) - figure(other[rows], labels[rows]),
        patients,
        repeats=15,
        seed=2,
    )
    np.testing.assert_allclose(fast[name].low, slow.low)
    np.testing.assert_allclose(fast[name].high, slow.high)
    assert fast[f"macro_{name}"].low > 0


def test_intervals_contain_the_figure_and_differences_of_a_method_from_itself_are_zero():
    scores, labels, patients = images(10)
    intervals = classification_intervals(scores, labels, patients, repeats=200)
    for name, figure in FIGURES.items():
        values = figure(scores, labels)
        assert (intervals[name].low < values).all()
        assert (values < intervals[name].high).all()
    monotone = np.exp(scores)
    for interval in classification_intervals(monotone, labels, patients, repeats=20, minus=scores).values():
        np.testing.assert_allclose([interval.low, interval.high], 0, atol=1e-12)


@pytest.mark.filterwarnings("error")
def test_rare_findings_are_listed_but_not_in_the_mean():
    scores, labels, patients = images(11)
    labels[:, 1] = 0
    labels[:4, 1], patients[:4] = 1, ["one"] * 4  # in 1 − 1/e of the samples
    labels[:, 2] = 0
    intervals = classification_intervals(scores, labels, patients, repeats=300, min_positives=5)
    assert intervals["auroc"].defined[1] == pytest.approx(1 - 1 / math.e, abs=0.1)
    assert np.isfinite(intervals["auroc"].low[1])
    assert intervals["auroc"].defined[2] == 0
    assert np.isnan(intervals["auroc"].low[2])
    for name in FIGURES:
        mean, first = intervals[f"macro_{name}"], intervals[name]
        assert (mean.low, mean.high) == pytest.approx((first.low[0], first.high[0]))
        assert mean.defined == 1
    # With the rare finding in it, the mean exists where that does.
    both = classification_intervals(scores, labels, patients, repeats=300, min_positives=4)
    assert both["macro_auroc"].defined == both["auroc"].defined[1]
    none = classification_intervals(scores, labels, patients, repeats=10, min_positives=1000)
    assert math.isnan(none["macro_auroc"].low)


def test_a_finding_without_negatives_is_not_in_the_mean():
    scores, labels, patients = images(12)
    labels[:, 1:] = 1
    intervals = classification_intervals(scores, labels, patients, repeats=20)
    assert intervals["macro_auroc"].low == pytest.approx(intervals["auroc"].low[0])


def test_every_row_needs_a_patient():
    scores, labels, patients = images(13)
    with pytest.raises(ValueError, match="`patients` must name 150 rows, got 149"):
        classification_intervals(scores, labels, patients[1:])
    with pytest.raises(ValueError, match=r"`scores` and `labels` must both be \(n, F\)"):
        classification_intervals(scores, labels, patients, minus=scores[:, 1:])


# Intervals of localization


def test_an_interval_holds_its_figure_and_narrows_with_patients():
    few, many = (annotated_boxes(random_images(count, 1, 0.6)).predicted([0.5, 0.5]) for count in (40, 400))
    narrow, wide = (localization_intervals(one, (0.5,), repeats=200) for one in (many, few))
    for one, interval in ((many, narrow), (few, wide)):
        found = one.found((0.5,))
        assert interval.macro.low[0] < found.macro[0] < interval.macro.high[0]
        assert interval.pooled.low[0] < found.pooled[0] < interval.pooled.high[0]
        assert (interval.shares.low < found.shares).all()
        assert interval.shares.low.shape == (2, 1)
    assert narrow.macro.high[0] - narrow.macro.low[0] < 0.6 * (wide.macro.high[0] - wide.macro.low[0])
    # 400 boxes of which .6 are found: ± 1.96 · √(.24 / 400), were patients alone.
    assert narrow.macro.high[0] - narrow.macro.low[0] == pytest.approx(2 * 1.96 * np.sqrt(0.24 / 400), rel=0.3)


def test_a_method_that_adds_to_another_is_clearly_above_it():
    images = random_images(120, 1, 0.4)
    # Every fifth image is corrected: less than the width of an interval, yet never worse.
    better = [
        replace(image_, annotations=(annotation(image_.annotations[0].finding, TARGET),))
        if number % 5 == 0
        else image_
        for number, image_ in enumerate(images)
    ]
    first, second = (annotated_boxes(records).predicted([0.5, 0.5]) for records in (better, images))
    alone = [localization_intervals(one, (0.5,), repeats=200).macro for one in (first, second)]
    assert alone[0].low[0] < alone[1].high[0]
    difference = localization_difference(first, second, (0.5,), repeats=200)
    assert difference.macro.low[0] > 0
    gained = first.found((0.5,)).macro[0] - second.found((0.5,)).macro[0]
    assert difference.macro.low[0] < gained < difference.macro.high[0]
    assert localization_difference(second, first, (0.5,), repeats=200).macro.high[0] < 0
    assert localization_difference(first, first, (0.5,), repeats=20).macro.low[0] == 0


def test_only_the_same_boxes_are_compared():
    first, second = (annotated_boxes(random_images(count, 1, 0.4)).predicted() for count in (20, 22))
    with pytest.raises(ValueError, match="`other` must be of the same annotated boxes as `overlaps`, got 22 boxes"):
        localization_difference(first, second)


def test_intervals_of_nothing_are_undefined():
    nothing = annotated_boxes([image("a")]).predicted()
    for interval in (localization_intervals(nothing, (0.5,)), localization_difference(nothing, nothing, (0.5,))):
        assert np.isnan([*interval.macro.low, *interval.pooled.high, *interval.shares.low[:, 0]]).all()
