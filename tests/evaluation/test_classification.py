# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""AUROC per finding, its mean, and thresholds."""

import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from clarity_hf.evaluation import MultilabelAuroc, auroc_per_finding, mean_auroc, youden_thresholds

NAN = np.nan


def column(*values):
    return np.array(values, dtype=np.float64)[:, None]


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


def test_areas_are_those_of_sklearn_on_the_annotated_films():
    generator = np.random.default_rng(0)
    scores = generator.normal(size=(200, 5))
    labels = (generator.uniform(size=(200, 5)) < 0.3).astype(float)
    labels[generator.uniform(size=labels.shape) < 0.2] = NAN
    expected = []
    for finding in range(5):
        known = ~np.isnan(labels[:, finding])
        expected.append(roc_auc_score(labels[known, finding], scores[known, finding]))
    np.testing.assert_allclose(auroc_per_finding(scores, labels), expected)


def test_a_monotone_scale_changes_nothing():
    generator = np.random.default_rng(1)
    logits, labels = generator.normal(size=(50, 3)), generator.integers(0, 2, (50, 3))
    np.testing.assert_allclose(auroc_per_finding(logits, labels), auroc_per_finding(1 / (1 + np.exp(-logits)), labels))


@pytest.mark.parametrize("labels", [[1, 1, 1], [0, 0, 0], [NAN, NAN, NAN], [1, NAN, 1], [0, 0, NAN]])
def test_a_finding_with_one_class_is_undefined(labels):
    assert np.isnan(auroc_per_finding(column(0.1, 0.2, 0.3), column(*labels))).all()


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


def test_unannotated_films_are_no_positives():
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


def test_unannotated_films_do_not_move_the_threshold():
    scores = column(0.2, 0.3, 0.7, 0.9, 0.99, 0.01)
    labels = column(0, 0, 1, 1, NAN, NAN)
    np.testing.assert_allclose(youden_thresholds(scores, labels), [0.7])


@pytest.mark.parametrize("labels", [[1, 1], [0, 0], [NAN, 1]])
def test_undefined_findings_keep_the_default(labels):
    np.testing.assert_array_equal(youden_thresholds(column(0.1, 0.9), column(*labels), default=0.4), [0.4])


def test_a_useless_score_still_gives_a_finite_threshold():
    thresholds = youden_thresholds(column(0.9, 0.8, 0.2, 0.1), column(0, 0, 1, 1))
    assert np.isfinite(thresholds).all()


# Refusals


@pytest.mark.parametrize("function", [auroc_per_finding, mean_auroc, youden_thresholds])
def test_shapes_and_values_are_checked(function):
    with pytest.raises(ValueError, match=r"`scores` and `labels` must both be \(n, F\), got \(4, 2\) and \(4, 3\)"):
        function(np.zeros((4, 2)), np.zeros((4, 3)))
    with pytest.raises(ValueError, match=r"must both be \(n, F\)"):
        function(np.zeros(4), np.zeros(4))
    with pytest.raises(ValueError, match="`scores` must be finite"):
        function(column(0.1, NAN), column(0, 1))


# The metric

SCORES = [[0.1, 0.4], [0.4, 0.9], [0.35, 0.2], [0.8, 0.1]]
LABELS = [[0, 0], [0, 1], [1, 0], [1, NAN]]
EXPECTED = {"auroc": 0.875, "auroc_Mass": 0.75, "auroc_Nodule": 1.0}


def test_the_metric_names_its_findings(tmp_path):
    metric = MultilabelAuroc(["Mass", "Nodule"], cache_dir=str(tmp_path))
    assert metric.compute(predictions=SCORES, references=LABELS) == pytest.approx(EXPECTED)


def test_the_metric_gathers_batches(tmp_path):
    metric = MultilabelAuroc(["Mass", "Nodule"], cache_dir=str(tmp_path))
    for start in (0, 2):
        metric.add_batch(predictions=SCORES[start : start + 2], references=LABELS[start : start + 2])
    assert metric.compute() == pytest.approx(EXPECTED)


def test_the_metric_lists_rare_findings_but_leaves_them_out_of_the_mean(tmp_path):
    metric = MultilabelAuroc(["Mass", "Nodule"], min_positives=2, cache_dir=str(tmp_path))
    result = metric.compute(predictions=SCORES, references=LABELS)
    assert result == pytest.approx({**EXPECTED, "auroc": 0.75})


def test_the_metric_gathers_two_processes(tmp_path):
    def run(process):
        metric = MultilabelAuroc(
            ["Mass", "Nodule"],
            num_process=2,
            process_id=process,
            experiment_id="two",
            cache_dir=str(tmp_path),
            timeout=60,
        )
        rows = slice(2 * process, 2 * process + 2)
        metric.add_batch(predictions=SCORES[rows], references=LABELS[rows])
        return metric.compute()

    # The processes meet in locked files and nowhere else, so that two threads stand for them.
    with ThreadPoolExecutor(2) as threads:
        first, second = threads.map(run, range(2))
    assert first == pytest.approx(EXPECTED)
    assert second is None
