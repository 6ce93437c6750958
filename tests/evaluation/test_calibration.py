# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Thresholds chosen on validation films and kept in the config."""

import numpy as np
import pytest

from clarity_hf import ClarityConfig
from clarity_hf.evaluation.calibration import calibrate
from clarity_hf.evaluation.records import MAP_THRESHOLDS, AnnotationRecord, FilmRecord

TRUTH = np.array([[10.0, 10.0, 50.0, 50.0]])
POOR = np.array([[10.0, 10.0, 20.0, 20.0]])


def record(index, labels, scores, best_at=None):
    """A film whose map of finding 0, where it is annotated, meets its box only at one threshold."""
    annotations = ()
    if best_at is not None:
        regions = tuple(TRUTH if threshold == best_at else POOR for threshold in MAP_THRESHOLDS)
        annotations = (AnnotationRecord(0, TRUTH, POOR, regions, np.zeros(len(MAP_THRESHOLDS)), True, (POOR, POOR)),)
    labels, scores = np.array(labels, dtype=float), np.array(scores, dtype=float)
    return FilmRecord(f"f{index}", f"p{index}", (100, 100), labels, scores, np.ones(3), annotations=annotations)


@pytest.fixture
def config():
    return ClarityConfig(
        id2label=dict(enumerate(["A", "B", "C"])), score_thresholds=[0.5, 0.6, 0.7], map_thresholds=[0.1, 0.2, 0.3]
    )


def films(boxed_at=0.35):
    """Finding 0 is present in the last six of twelve films, whose scores are the highest; B in one; C is unknown."""
    rows = []
    for i in range(12):
        present = i >= 6
        scores = [0.05 * i, 0.5, 0.5]
        rows.append(record(i, [present, i == 3, np.nan], scores, boxed_at if present else None))
    return rows


def test_thresholds_go_into_the_config_and_rare_findings_keep_theirs(config):
    found = calibrate(config, films(), min_boxes=6)
    # Between the lowest score of a film with A, .30, and the highest of one without, .25.
    assert config.score_thresholds == pytest.approx([0.275, 0.6, 0.7])
    assert found.kept_scores == (1, 2)
    assert found.positives.tolist() == [6, 1, 0]
    assert config.map_thresholds == pytest.approx([0.35, 0.35, 0.35])  # B and C have what is best over all boxes
    assert found.pooled_maps == (1, 2)
    assert found.boxes.tolist() == [6, 0, 0]


def test_thresholds_survive_saving(config, tmp_path):
    calibrate(config, films())
    config.save_pretrained(tmp_path)
    again = ClarityConfig.from_pretrained(tmp_path)
    assert again.per_finding("score_thresholds") == config.score_thresholds
    assert again.per_finding("map_thresholds") == config.map_thresholds


def test_without_boxes_every_map_threshold_is_kept(config):
    found = calibrate(config, films(boxed_at=None))
    assert config.map_thresholds == [0.1, 0.2, 0.3]
    assert found.pooled_maps == (0, 1, 2)


def test_a_target_sensitivity_lowers_the_threshold_until_it_is_reached(config):
    rows = films()
    rows[6] = record(6, [1, 0, np.nan], [0.01, 0.5, 0.5], 0.35)  # a film with A that scores low
    calibrate(config, rows)
    youden = config.score_thresholds[0]
    calibrate(config, rows, "sensitivity", sensitivity=1.0)
    assert config.score_thresholds[0] == pytest.approx((0.01 + 0) / 2)
    assert youden > 0.3
    calibrate(config, rows, "f1")
    assert config.score_thresholds[0] == pytest.approx(youden)


def test_only_the_components_of_the_config_count(config):
    config.box_components = "largest"
    rows = []
    for i in range(12):
        # At .2 the box is met by the second region alone; at .6 the largest meets it in part.
        regions = tuple(
            np.concatenate([POOR, TRUTH]) if t == 0.2 else TRUTH * 0.9 if t == 0.6 else POOR for t in MAP_THRESHOLDS
        )
        annotation = AnnotationRecord(0, TRUTH, POOR, regions, np.zeros(len(MAP_THRESHOLDS)), True, (POOR, POOR))
        rows.append(
            FilmRecord(
                f"f{i}", f"p{i}", (100, 100), np.array([i % 2, 0, 0.0]), np.full(3, 0.5), np.ones(3), (), (annotation,)
            )
        )
    calibrate(config, rows)
    assert config.map_thresholds[0] == 0.6
    config.box_components = "all"
    calibrate(config, rows)
    assert config.map_thresholds[0] == 0.2


@pytest.mark.parametrize(
    ("rows", "rule", "message"),
    [
        ([], "youden", "`records` must be of films with the config's 3 findings, got no films"),
        (films(), "best", "`rule` must be 'youden', 'sensitivity' or 'f1', got 'best'"),
    ],
)
def test_what_gives_no_thresholds_is_refused(config, rows, rule, message):
    with pytest.raises(ValueError, match=message):
        calibrate(config, rows, rule)


def test_records_of_another_model_are_refused(config):
    config.id2label = dict(enumerate(["A", "B"]))
    with pytest.raises(ValueError, match=r"the config's 2 findings, got \[3\]"):
        calibrate(config, films())
