# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Annotated boxes beside predicted ones, on records made by hand."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from clarity_hf.metrics.matching import annotated_boxes, threshold_columns
from clarity_hf.metrics.protocols import t_iou

_spec = importlib.util.spec_from_file_location("made_records", Path(__file__).with_name("made_records.py"))
made = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(made)
FAR, NONE, TARGET, annotation, at, image, shifted = (
    made.FAR,
    made.NONE,
    made.TARGET,
    made.annotation,
    made.at,
    made.image,
    made.shifted,
)


def test_the_highest_mean_iou_chooses_each_findings_threshold():
    # Finding 0: mean IoU at .3 (1 + 0) / 2, at .6 (2/3 + 2/3) / 2, though .3 finds as many above .5.
    images = [
        image("a", annotation(0, [*at(0.3, TARGET, shifted(2))]), annotation(1, at(0.95, TARGET))),
        image("b", annotation(0, at(0.6, shifted(2)))),
    ]
    assert annotated_boxes(images).tuned_thresholds().tolist() == [0.6, 0.95]
    assert annotated_boxes(images[1:]).tuned_thresholds().tolist() == [0.6, 0.5]  # nothing to tune the second on
    assert annotated_boxes([], num_findings=3).tuned_thresholds().tolist() == [0.5] * 3


def test_any_region_may_match_unless_the_largest_is_asked_for():
    images = [image("a", annotation(0, np.vstack([FAR, TARGET])))]
    assert t_iou(images, [0.5, 0.5], levels=(0.5,)).macro.tolist() == [1]
    assert t_iou(images, [0.5, 0.5], components="largest", levels=(0.5,)).macro.tolist() == [0]
    assert annotated_boxes(images).predicted([0.5, 0.5]).boxes_predicted == 2
    assert annotated_boxes(images, "largest").predicted([0.5, 0.5]).boxes_predicted == 1


def test_no_box_is_predicted_below_the_score_threshold():
    images = [
        image("a", annotation(0, TARGET), scores=(0.4, 0.9)),
        image("b", annotation(0, TARGET), scores=(0.6, 0.1)),
        image("c", annotation(1, TARGET), scores=(0.1, 0.5)),
    ]
    filtered = annotated_boxes(images).predicted([0.5, 0.5], score_thresholds=[0.6, 0.5])
    assert filtered.best.tolist() == [0, 1, 1]  # a score at its threshold is shown
    assert filtered.boxes_predicted == pytest.approx(2 / 3)
    assert t_iou(images, [0.5, 0.5], score_thresholds=[0.6, 0.5], levels=(0.5,)).shares[:, 0].tolist() == [0.5, 1]


def test_boxes_predicted_are_counted_once_a_map():
    images = [
        image("a", annotation(0, np.vstack([TARGET, FAR, FAR]), boxes=np.vstack([TARGET, FAR]))),
        image("b", annotation(0, NONE)),
    ]
    assert annotated_boxes(images).predicted([0.5, 0.5]).boxes_predicted == 1.5


def test_thresholds_that_records_do_not_hold_are_refused():
    assert threshold_columns([0.05, 0.30000000001], 2).tolist() == [0, 5]
    with pytest.raises(ValueError, match=r"`thresholds` must be among the 19 of MAP_THRESHOLDS.* got 0.33. Records"):
        t_iou([image("a")], [0.5, 0.33])
    with pytest.raises(ValueError, match=r"`thresholds` must be \(2,\), got \(3,\). Pass one per finding"):
        t_iou([image("a")], [0.5] * 3)
    with pytest.raises(ValueError, match=r"`score_thresholds` must be \(2,\), got \(1,\)"):
        t_iou([image("a")], score_thresholds=[0.5])


def test_records_must_agree_on_the_findings():
    with pytest.raises(ValueError, match="`records` must all have the same number of findings, got no images"):
        t_iou([])
    with pytest.raises(ValueError, match=r"got \[2, 3\]. Evaluate them with one method"):
        t_iou([image("a"), image("b", scores=(0, 0, 0))])


def test_unknown_words_are_refused():
    with pytest.raises(ValueError, match="`components` must be 'largest' or 'all', got 'best'"):
        annotated_boxes([image("a")], "best")
    with pytest.raises(ValueError, match="`measure` must be 'iou' or 'iobb', got 'giou'"):
        annotated_boxes([image("a")]).predicted(measure="giou")
