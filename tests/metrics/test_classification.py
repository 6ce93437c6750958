# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Ranking, calibration, thresholds and operating points per finding, and their means."""

import math

import numpy as np
import pytest
from sklearn.calibration import calibration_curve
from sklearn.metrics import confusion_matrix, f1_score, precision_recall_curve, recall_score, roc_auc_score

from clarity_hf.metrics.classification import (
    auroc_per_finding,
    average_precision_per_finding,
    calibration_error_per_finding,
    f1_thresholds,
    macro,
    mean_auroc,
    operating_points,
    reliability,
    sensitivity_thresholds,
    support,
    youden_thresholds,
)

NAN = np.nan


def column(*values):
    return np.array(values, dtype=np.float64)[:, None]


def images(seed, count=200, findings=5, steps=None):
    """Probabilities `(n, F)` and labels with NaN that depend on them; scores of few `steps` have many ties."""
    generator = np.random.default_rng(seed)
    scores = generator.uniform(size=(count, findings))
    if steps:
        scores = np.round(scores * steps) / steps
    labels = (generator.uniform(size=scores.shape) < scores**2).astype(float)
    labels[generator.uniform(size=labels.shape) < 0.2] = NAN
    return scores, labels


def annotated(scores, labels):
    """Truth and scores of the annotated images, finding by finding."""
    for finding in range(labels.shape[1]):
        known = ~np.isnan(labels[:, finding])
        yield labels[known, finding].astype(int), scores[known, finding]


@pytest.mark.parametrize(
    ("scores", "labels", "area"),
    [
        ([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1], 0.75),  # 3 of 4 pairs in order
        ([1, 2, 3, 4], [0, 0, 1, 1], 1.0),
        ([4, 3, 2, 1], [0, 0, 1, 1], 0.0),
        ([5, 5, 5], [0, 1, 0], 0.5),  # ties count half
        ([-3.0, 9.0, 2.0], [0, 1, NAN], 1.0),
    ],
)
def test_areas_computed_by_hand(scores, labels, area):
    np.testing.assert_allclose(auroc_per_finding(column(*scores), column(*labels)), [area])


@pytest.mark.parametrize("steps", [None, 8])
def test_areas_are_those_of_sklearn_on_the_annotated_images(steps):
    scores, labels = images(0, steps=steps)
    expected = [roc_auc_score(truth, known) for truth, known in annotated(scores, labels)]
    np.testing.assert_allclose(auroc_per_finding(scores, labels), expected)


@pytest.mark.parametrize("steps", [None, 8])
def test_areas_are_the_share_of_pairs_in_order(steps):
    scores, labels = images(2, steps=steps)
    expected = []
    for truth, known in annotated(scores, labels):
        gaps = known[truth == 1][:, None] - known[truth == 0]
        expected.append(((gaps > 0) + 0.5 * (gaps == 0)).mean())
    np.testing.assert_allclose(auroc_per_finding(scores, labels), expected)


def test_a_monotone_scale_changes_nothing():
    generator = np.random.default_rng(1)
    logits, labels = generator.normal(size=(50, 3)), generator.integers(0, 2, (50, 3))
    np.testing.assert_allclose(auroc_per_finding(logits, labels), auroc_per_finding(1 / (1 + np.exp(-logits)), labels))


@pytest.mark.parametrize("labels", [[1, 1, 1], [0, 0, 0], [NAN, NAN, NAN], [1, NAN, 1], [0, 0, NAN]])
@pytest.mark.parametrize("function", [auroc_per_finding, average_precision_per_finding])
def test_a_finding_with_one_class_is_undefined(function, labels):
    assert np.isnan(function(column(0.1, 0.2, 0.3), column(*labels))).all()


@pytest.mark.parametrize(
    ("scores", "labels", "precision"),
    [
        # Recall rises by 1/2 at 0.8 with precision 1 and by 1/2 at 0.35 with precision 2/3.
        ([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1], 5 / 6),
        ([1, 2, 3, 4], [0, 0, 1, 1], 1.0),
        ([4, 3, 2, 1], [0, 0, 1, 1], 0.5 * 1 / 3 + 0.5 * 2 / 4),
        ([5, 5, 5], [0, 1, 0], 1 / 3),  # ties pass together: the share of positives
        ([-3.0, 9.0, 2.0], [0, 1, NAN], 1.0),
    ],
)
def test_average_precisions_computed_by_hand(scores, labels, precision):
    np.testing.assert_allclose(average_precision_per_finding(column(*scores), column(*labels)), [precision])


@pytest.mark.parametrize("steps", [None, 8])
def test_average_precisions_are_steps_under_the_precision_recall_curve(steps):
    scores, labels = images(3, steps=steps)
    expected = []
    for truth, known in annotated(scores, labels):
        precision, recall, _ = precision_recall_curve(truth, known)
        expected.append(-(np.diff(recall) * precision[:-1]).sum())
    np.testing.assert_allclose(average_precision_per_finding(scores, labels), expected)


def test_the_mean_leaves_out_undefined_findings():
    scores = np.array([[0.1, 0.4, 0.5], [0.4, 0.9, 0.5], [0.35, 0.2, 0.5], [0.8, 0.1, 0.5]])
    labels = np.array([[0, 0, 1], [0, 1, 1], [1, 0, 1], [1, 0, 1]])
    assert mean_auroc(scores, labels) == pytest.approx((0.75 + 1.0) / 2)


def test_the_mean_leaves_out_findings_with_few_positives():
    scores = np.array([[0.1, 0.4], [0.4, 0.9], [0.35, 0.2], [0.8, 0.1]])
    labels = np.array([[0, 0], [0, 1], [1, 0], [1, 0]])  # 2 positives, 1 positive
    assert mean_auroc(scores, labels, min_positives=1) == pytest.approx(0.875)
    assert mean_auroc(scores, labels, min_positives=2) == pytest.approx(0.75)
    assert math.isnan(mean_auroc(scores, labels, min_positives=3))


def test_support_counts_what_is_annotated():
    counts = support(np.array([[1, 0, NAN], [1, NAN, NAN], [0, 0, NAN]]))
    assert counts["positives"].tolist() == [2, 0, 0]
    assert counts["negatives"].tolist() == [1, 2, 0]
    assert counts["positives"].dtype == np.int64


def test_macro_is_over_findings_with_enough_positives_and_a_value():
    labels = np.zeros((50, 4))
    for finding, positives in enumerate((19, 20, 30, 40)):
        labels[:positives, finding] = 1
    values = np.array([0.9, 0.5, 0.7, NAN])
    assert macro(values, labels) == pytest.approx(0.6)
    assert macro(values, labels, min_positives=0) == pytest.approx(0.7)
    assert math.isnan(macro(values, labels, min_positives=31))
    with pytest.raises(ValueError, match=r"`values` must be \(4,\), got \(3,\)"):
        macro(values[:3], labels)


def test_unannotated_images_are_not_positives():
    assert math.isnan(mean_auroc(column(0.1, 0.9, 0.8), column(0, 1, NAN), min_positives=2))


# Thresholds


def test_youden_on_a_case_made_by_hand():
    # ≥ 0.8: sensitivity 1/3; ≥ 0.6: 2/3, no false alarm: J = 2/3; ≥ 0.3: 3/3 with 2 of 4 false alarms: J = 1/2.
    scores = column(0.8, 0.6, 0.3, 0.5, 0.4, 0.2, 0.1)
    labels = column(1, 1, 1, 0, 0, 0, 0)
    np.testing.assert_allclose(youden_thresholds(scores, labels), [0.6])


def test_a_score_at_its_threshold_is_present():
    scores, labels = column(0.2, 0.3, 0.7, 0.9), column(0, 0, 1, 1)
    (threshold,) = youden_thresholds(scores, labels)
    np.testing.assert_array_equal(scores >= threshold, labels == 1)


def test_unannotated_images_do_not_move_the_threshold():
    scores = column(0.2, 0.3, 0.7, 0.9, 0.99, 0.01)
    labels = column(0, 0, 1, 1, NAN, NAN)
    np.testing.assert_allclose(youden_thresholds(scores, labels), [0.7])


@pytest.mark.parametrize("function", [youden_thresholds, sensitivity_thresholds, f1_thresholds])
@pytest.mark.parametrize("labels", [[1, 1], [0, 0], [NAN, 1], [NAN, NAN]])
def test_undefined_findings_get_a_threshold_of_a_half(function, labels):
    np.testing.assert_array_equal(function(column(0.1, 0.9), column(*labels)), [0.5])


def test_a_useless_score_still_gives_a_finite_threshold():
    thresholds = youden_thresholds(column(0.9, 0.8, 0.2, 0.1), column(0, 0, 1, 1))
    assert np.isfinite(thresholds).all()


@pytest.mark.parametrize(
    ("target", "threshold"), [(0.01, 0.9), (0.2, 0.9), (0.21, 0.8), (0.6, 0.5), (0.9, 0.1), (1, 0.1)]
)
def test_a_target_sensitivity_is_just_reached(target, threshold):
    scores = column(0.9, 0.8, 0.5, 0.3, 0.1, 0.95, 0.6, 0.2, 0.99)
    labels = column(1, 1, 1, 1, 1, 0, 0, 0, NAN)
    np.testing.assert_array_equal(sensitivity_thresholds(scores, labels, target), [threshold])


def test_every_share_of_positives_can_be_aimed_at():
    # Eleven of twenty: 0.55 × 20 is more than 11 in floating point.
    scores, labels = np.arange(25.0)[:, None] / 25, np.repeat([0.0, 1.0], [5, 20])[:, None]
    for found in range(1, 21):
        (threshold,) = sensitivity_thresholds(scores, labels, target=found / 20)
        assert (scores[labels == 1] >= threshold).sum() == found


@pytest.mark.parametrize("steps", [None, 8])
def test_target_sensitivities_are_those_of_sklearn(steps):
    scores, labels = images(4, steps=steps)
    thresholds = sensitivity_thresholds(scores, labels, target=0.85)
    for threshold, (truth, known) in zip(thresholds, annotated(scores, labels), strict=True):
        above = known[known > threshold].min()
        assert recall_score(truth, known >= threshold) >= 0.85 > recall_score(truth, known >= above)


def test_the_best_f1_on_a_case_made_by_hand():
    # ≥ 0.9: 2 · 1 / (1 + 3); ≥ 0.5 takes both images of 0.5: 2 · 2 / (3 + 3); ≥ 0.2: 2 · 3 / (5 + 3) is the best.
    scores, labels = column(0.9, 0.5, 0.5, 0.3, 0.2, 0.1), column(1, 1, 0, 0, 1, 0)
    np.testing.assert_array_equal(f1_thresholds(scores, labels), [0.2])


def test_of_equal_f1_the_highest_threshold_is_taken():
    scores, labels = column(0.9, 0.6, 0.5, 0.4), column(1, 0, 0, 1)  # 2 / (1 + 2) = 4 / (4 + 2)
    np.testing.assert_array_equal(f1_thresholds(scores, labels), [0.9])


def test_images_of_equal_score_are_flagged_together():
    # Taken one by one, the first of the tied images alone would reach F1 = 1.
    np.testing.assert_array_equal(f1_thresholds(column(0.5, 0.5, 0.5, 0.4), column(1, 0, 0, 0)), [0.5])
    # ≥ 0.8 with both: 2 / (2 + 2); had the positive been alone there it would win against ≥ 0.3: 4 / (3 + 2).
    np.testing.assert_array_equal(f1_thresholds(column(0.8, 0.8, 0.3), column(1, 0, 1)), [0.3])


@pytest.mark.parametrize("steps", [None, 8])
def test_no_score_gives_a_better_f1_by_sklearn(steps):
    scores, labels = images(5, count=40, findings=2, steps=steps)
    for threshold, (truth, known) in zip(f1_thresholds(scores, labels), annotated(scores, labels), strict=True):
        best = max(f1_score(truth, known >= cut) for cut in known)
        assert f1_score(truth, known >= threshold) == pytest.approx(best)


# What thresholds lead to


def test_operating_points_computed_by_hand():
    scores = np.array([[0.9, 0.1], [0.6, 0.2], [0.5, 0.3], [0.4, 0.4], [0.2, 0.9], [0.9, 0.9]])
    labels = np.array([[1, 0], [0, 0], [1, 1], [1, 0], [0, NAN], [NAN, NAN]])
    points = operating_points(scores, labels, [0.5, 0.3])
    np.testing.assert_allclose(points["sensitivity"], [2 / 3, 1])
    np.testing.assert_allclose(points["specificity"], [1 / 2, 2 / 3])
    np.testing.assert_allclose(points["positive_predictive_value"], [2 / 3, 1 / 2])
    np.testing.assert_allclose(points["negative_predictive_value"], [1 / 2, 1])
    np.testing.assert_allclose(points["flagged"], [3 / 5, 2 / 4])


def test_operating_points_are_those_of_sklearn():
    scores, labels = images(6)
    thresholds = np.linspace(0.3, 0.8, 5)
    points = operating_points(scores, labels, thresholds)
    for finding, (truth, known) in enumerate(annotated(scores, labels)):
        (tn, fp), (fn, tp) = confusion_matrix(truth, known >= thresholds[finding])
        expected = [tp / (tp + fn), tn / (tn + fp), tp / (tp + fp), tn / (tn + fn), (tp + fp) / len(truth)]
        np.testing.assert_allclose([values[finding] for values in points.values()], expected)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("labels", "threshold", "defined"),
    [
        ([1, 1], 0.5, ["sensitivity", "positive_predictive_value", "negative_predictive_value", "flagged"]),
        ([0, 0], 0.5, ["specificity", "positive_predictive_value", "negative_predictive_value", "flagged"]),
        ([0, 1], 2.0, ["sensitivity", "specificity", "negative_predictive_value", "flagged"]),
        ([0, 1], 0.0, ["sensitivity", "specificity", "positive_predictive_value", "flagged"]),
        ([NAN, NAN], 0.5, []),
    ],
)
def test_what_has_no_denominator_is_undefined(labels, threshold, defined):
    points = operating_points(column(0.1, 0.9), column(*labels), [threshold])
    assert [name for name, values in points.items() if not np.isnan(values[0])] == defined


def test_every_finding_needs_its_threshold():
    for thresholds in (0.5, [0.5], [0.5, NAN]):
        with pytest.raises(ValueError, match=r"`thresholds` must be \(2,\) numbers"):
            operating_points(np.zeros((3, 2)), np.zeros((3, 2)), thresholds)


# Calibration


def test_a_reliability_curve_computed_by_hand():
    scores = np.array([0.0, 0.1, 0.25, 0.6, 0.7, 0.75, 1.0, 0.9])
    labels = np.array([0, 1, 0, 1, 0, 1, 1, NAN])
    curve = reliability(scores, labels, bins=4)
    np.testing.assert_allclose(curve["mean_score"], [0.35 / 3, NAN, 2.05 / 3, 1.0])
    np.testing.assert_allclose(curve["share_present"], [1 / 3, NAN, 2 / 3, 1.0])
    assert curve["count"].tolist() == [3, 0, 3, 1]


@pytest.mark.parametrize("steps", [None, 20])
def test_reliability_is_the_calibration_curve_of_sklearn(steps):
    scores, labels = images(7, steps=steps)
    for finding, (truth, known) in enumerate(annotated(scores, labels)):
        curve = reliability(scores[:, finding], labels[:, finding], bins=10)
        share, mean = calibration_curve(truth, known, n_bins=10)
        filled = curve["count"] > 0
        np.testing.assert_allclose(curve["share_present"][filled], share)
        np.testing.assert_allclose(curve["mean_score"][filled], mean)
        assert curve["count"].sum() == len(truth)


def test_calibration_errors_are_those_of_sklearns_curve():
    scores, labels = images(8, steps=30)
    expected = []
    for truth, known in annotated(scores, labels):
        share, mean = calibration_curve(truth, known, n_bins=15)
        count = np.histogram(np.nextafter(known, -1), np.linspace(0, 1, 16))[0] + 0.0
        count[0] += (known == 0).sum()
        expected.append((np.abs(share - mean) * count[count > 0]).sum() / len(truth))
    np.testing.assert_allclose(calibration_error_per_finding(scores, labels), expected)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("scores", "labels", "error"),
    [
        ([0.0, 1.0], [0, 1], 0.0),
        ([0.0, 1.0], [1, 0], 1.0),
        ([0.25] * 4, [0, 0, 0, 1], 0.0),
        ([0.3, 0.3, 0.8, 0.8], [0, 0, 1, 0], 0.3),  # a gap of 0.3 on either side
        ([0.2, 0.4], [0, 0], 0.3),  # without positives scores should be 0
        ([0.2, 0.9], [0, NAN], 0.2),
        ([0.2, 0.9], [NAN, NAN], NAN),
    ],
)
def test_calibration_errors_computed_by_hand(scores, labels, error):
    np.testing.assert_allclose(calibration_error_per_finding(column(*scores), column(*labels)), [error], atol=1e-12)


def test_calibration_refuses_logits():
    with pytest.raises(ValueError, match=r"`scores` must be probabilities in \[0, 1\], got -2. Apply the sigmoid"):
        calibration_error_per_finding(column(0.5, -2), column(0, 1))
    with pytest.raises(ValueError, match="must be probabilities"):
        reliability(np.array([1.5]), np.array([1]))
    with pytest.raises(ValueError, match="`bins` must be at least 1, got 0"):
        reliability(np.array([0.5]), np.array([1]), bins=0)
    with pytest.raises(ValueError, match=r"must both be \(n,\), got \(2, 1\) and \(2, 1\). Pick one finding"):
        reliability(column(0.1, 0.2), column(0, 1))


# Refusals


@pytest.mark.parametrize(
    "function",
    [
        auroc_per_finding,
        mean_auroc,
        average_precision_per_finding,
        calibration_error_per_finding,
        youden_thresholds,
        sensitivity_thresholds,
        f1_thresholds,
        lambda scores, labels: operating_points(scores, labels, [0.5]),
    ],
)
def test_shapes_and_values_are_checked(function):
    with pytest.raises(ValueError, match=r"`scores` and `labels` must both be \(n, F\), got \(4, 2\) and \(4, 3\)"):
        function(np.zeros((4, 2)), np.zeros((4, 3)))
    with pytest.raises(ValueError, match=r"must both be \(n, F\)"):
        function(np.zeros(4), np.zeros(4))
    with pytest.raises(ValueError, match="`scores` must be finite"):
        function(column(0.1, NAN), column(0, 1))
    with pytest.raises(ValueError, match=r"`labels` must be 1, 0 or NaN, got -1\. Write uncertain labels as NaN"):
        function(column(0.1, 0.2), column(1, -1))


@pytest.mark.parametrize("target", [0, -0.1, 1.1, NAN])
def test_a_target_sensitivity_is_a_share(target):
    with pytest.raises(ValueError, match=r"`target` must be in \(0, 1\]"):
        sensitivity_thresholds(column(0.1, 0.9), column(0, 1), target)
