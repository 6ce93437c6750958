# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Scores beside the view position and a thumbnail: known answers and scikit-learn's."""

import numpy as np
import pytest
from sklearn.metrics import brier_score_loss, roc_auc_score

from clarity_hf.labels import FINDINGS
from clarity_hf.metrics.classification import auroc_per_finding
from clarity_hf.metrics.classification_rivals import (
    NIH_PREVALENCE,
    predictive_value,
    reliability_figures,
    thumbnail_scores,
    view_scores,
    within_view,
)
from clarity_hf.metrics.records import THUMBNAIL_CELLS, ImageRecord


def image(number, labels, view="PA", thumbnail=None, patient=None):
    labels = np.array(labels, dtype=np.float64)
    zeros = np.zeros(len(labels))
    name = f"image-{number}"
    return ImageRecord(name, patient or name, (9, 9), labels, zeros, zeros, view=view, thumbnail=thumbnail)


def test_the_view_alone_ranks_what_the_view_decides_and_nothing_else():
    rng = np.random.default_rng(0)
    records = [image(i, [i % 2, rng.random() < 0.4], "AP" if i % 2 else "PA") for i in range(400)]
    areas = auroc_per_finding(view_scores(records), np.stack([record.labels for record in records]))
    assert areas[0] == 1
    assert 0.4 < areas[1] < 0.6


def test_a_thumbnail_ranks_what_is_coarse_and_not_what_is_fine():
    rng = np.random.default_rng(0)
    records = []
    for number in range(200):
        labels = [number % 2, rng.random() < 0.5]
        cells = rng.integers(60, 180, (THUMBNAIL_CELLS, THUMBNAIL_CELLS))
        cells[:8] += 60 * labels[0]
        records.append(image(number, labels, thumbnail=cells.astype(np.uint8)))
    areas = auroc_per_finding(thumbnail_scores(records), np.stack([record.labels for record in records]))
    assert areas[0] > 0.95
    assert 0.4 < areas[1] < 0.6
    assert thumbnail_scores([*records, image("x", [0, 0])]) is None


def test_a_rival_without_information_is_not_ranked_against_its_labels():
    rng = np.random.default_rng(1)
    noise = rng.integers(0, 255, (300, THUMBNAIL_CELLS, THUMBNAIL_CELLS)).astype(np.uint8)
    records = [image(i, [rng.random() < 0.3], thumbnail=cells) for i, cells in enumerate(noise)]
    labels = np.stack([record.labels for record in records])
    assert auroc_per_finding(thumbnail_scores(records), labels)[0] > 0.4
    assert auroc_per_finding(view_scores(records), labels)[0] == pytest.approx(0.5)


def test_auroc_within_a_view_does_not_see_a_difference_between_views():
    rng = np.random.default_rng(0)
    views = np.repeat(["PA", "AP"], 200)
    labels = np.concatenate([rng.random(200) < 0.2, rng.random(200) < 0.7]).astype(float)[:, None]
    scores = (views == "AP")[:, None] + rng.random((400, 1)) * 0.1
    found = within_view(scores, labels, views, [str(i) for i in range(400)], repeats=50)
    assert auroc_per_finding(scores, labels)[0] > 0.7
    assert found.mean[0] == pytest.approx(0.5, abs=0.1)
    expected = [roc_auc_score(labels[views == view, 0], scores[views == view, 0]) for view in ("PA", "AP")]
    np.testing.assert_allclose(found.views[0], expected)
    macro, interval = found.macro(np.array([True]))
    assert found.mean[0] == macro == pytest.approx(np.mean(expected))
    assert interval.low < macro < interval.high


def test_a_view_with_few_positives_is_undefined_and_left_out_of_the_mean():
    views = ["PA"] * 40 + ["AP"] * 40
    labels = np.array([[i % 2] for i in range(40)] + [[i < 3] for i in range(40)], dtype=float)
    scores = labels.copy()
    found = within_view(scores, labels, views, [str(i) for i in range(80)], repeats=20)
    assert found.views[0, 0] == 1
    assert np.isnan(found.views[0, 1])
    assert found.mean[0] == 1
    nothing = within_view(scores, labels, [None] * 80, [str(i) for i in range(80)], repeats=20)
    assert np.isnan([nothing.mean[0], nothing.macro(np.array([True]))[0]]).all()


def test_brier_skill_and_slope_are_those_of_perfect_ignorant_and_bold_scores():
    rng = np.random.default_rng(0)
    truth = rng.random(4000)
    labels = (rng.random(4000) < truth).astype(float)
    logits = np.log(truth / (1 - truth))
    bold = 1 / (1 + np.exp(-2 * logits))
    scores = np.stack([truth, np.full(4000, labels.mean()), bold, np.full(4000, 0.5)], axis=1)
    columns = np.stack([labels, labels, labels, np.full(4000, np.nan)], axis=1)
    found = reliability_figures(scores, columns)
    assert found.brier[0] == pytest.approx(brier_score_loss(labels, truth))
    assert found.skill[1] == pytest.approx(0)
    assert found.slope[0] == pytest.approx(1, abs=0.1)
    assert found.intercept[0] == pytest.approx(0, abs=0.1)
    assert found.slope[2] == pytest.approx(0.5, abs=0.05)
    assert np.isnan([found.brier[3], found.skill[3], found.slope[3]]).all()


def test_the_predictive_value_follows_bayes():
    assert predictive_value(np.array(0.8), np.array(0.9), np.array(0.5)) == pytest.approx(0.4 / 0.45)
    assert predictive_value(np.array(0.8), np.array(0.9), np.array(0.01)) == pytest.approx(0.008 / 0.107)
    assert np.isnan(predictive_value(np.array(0.0), np.array(1.0), np.array(0.2)))


def test_the_stated_prevalence_is_that_of_the_release(nih_folder):
    import csv
    import gzip

    path = nih_folder / "full-release-metadata" / "Data_Entry_2017_v2020.csv.gz"
    if not path.is_file():
        pytest.skip("no real NIH images here: the whole release's labels")
    with gzip.open(path, "rt") as file:
        rows = [row["Finding Labels"].split("|") for row in csv.DictReader(file)]
    assert tuple(NIH_PREVALENCE) == FINDINGS
    for finding, share in NIH_PREVALENCE.items():
        assert share == pytest.approx(sum(finding in row for row in rows) / len(rows), abs=5e-5)
