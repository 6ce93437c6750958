# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Published protocols on records made by hand."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from clarity_hf.metrics.protocols import youden_of
from clarity_hf.metrics.published_protocols import (
    chexlocalize_miou,
    ham_mask_iou,
    max_box_acc,
    max_box_acc_v2,
    pointing_game,
    wang_protocol,
)
from clarity_hf.metrics.records import MAP_THRESHOLDS

_spec = importlib.util.spec_from_file_location("made_records", Path(__file__).with_name("made_records.py"))
made = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(made)
FAR, NONE, T, TARGET, annotation, at, image, shifted = (
    made.FAR,
    made.NONE,
    made.T,
    made.TARGET,
    made.annotation,
    made.at,
    made.image,
    made.shifted,
)


def test_the_pointing_game_counts_maps():
    images = [
        image("a", annotation(0, hit=True), annotation(1, hit=False)),
        image("b", annotation(0, hit=True, boxes=np.vstack([TARGET, FAR]))),
        image("c", annotation(0)),
    ]
    rates = pointing_game(images)
    assert rates.counts.tolist() == [3, 1]
    np.testing.assert_allclose(rates.shares, [2 / 3, 0])
    assert (rates.macro, rates.pooled) == (pytest.approx(1 / 3), 0.5)
    assert np.isnan(pointing_game([image("a")]).macro)


def test_max_box_accuracy_takes_the_threshold_that_suits_the_data():
    images = [
        image("a", annotation(0, at(0.3, TARGET))),
        image("b", annotation(0, at(0.3, shifted(2)))),  # IoU 2/3
        image("c", annotation(1, at(0.6, np.vstack([FAR, TARGET])))),
    ]
    rates = max_box_acc(images)
    assert rates.counts.tolist() == [2, 1]
    np.testing.assert_allclose(rates.shares, [1, 0])  # the largest region of c is away
    assert rates.pooled == pytest.approx(2 / 3)
    second = max_box_acc_v2(images)
    np.testing.assert_allclose(second.shares, [(2 + 2 + 1) / 6, 1])  # its second region is right
    assert second.pooled == pytest.approx((2 + 2 + 1) / 9)  # one threshold for all: .3
    assert second.macro == pytest.approx((5 / 6 + 1) / 2)


def test_max_box_accuracy_reaches_its_level():
    images = [image("a", annotation(0, np.array([[0.0, 0, 10, 5]])))]
    assert max_box_acc(images).pooled == 1  # IoU .5 exactly


def test_max_box_accuracy_counts_a_map_with_two_boxes_once():
    images = [image("a", annotation(0, FAR, boxes=np.vstack([TARGET, FAR]))), image("b", annotation(0, FAR))]
    assert max_box_acc(images).counts.tolist() == [2, 0]
    assert max_box_acc(images).shares[0] == 0.5


def test_masks_are_compared_at_one_fixed_threshold():
    ious = np.linspace(0.05, 0.95, T)
    images = [image("a", annotation(0, ious=ious)), image("b", annotation(0, ious=0.2), annotation(1, ious=0.9))]
    result, found = ham_mask_iou(images, 0.6), ham_mask_iou(images, 0.6, levels=(0.5,))
    np.testing.assert_allclose(result.shares, [0.4, 0.9])
    assert result.macro == pytest.approx(0.65)
    assert found.shares[:, 0].tolist() == [0.5, 1]
    assert result.counts.tolist() == found.counts.tolist() == [2, 1]


def test_wangs_boxes_are_right_if_one_of_either_threshold_passes():
    small = np.array([[0.0, 0, 4, 5]])
    images = [
        image("a", annotation(0, wang=(np.vstack([shifted(2), FAR]), small))),
        image("b", annotation(0, wang=(FAR, shifted(5)))),
        image("c", annotation(1, wang=(NONE, NONE))),
    ]
    result = wang_protocol(images, levels=(0.1, 0.5), iobb_levels=(0.9,))
    np.testing.assert_allclose(result.iou.best, [2 / 3, 1 / 3, 0])
    np.testing.assert_allclose(result.iobb.best, [1, 0.5, 0])
    assert result.iou.found((0.1, 0.5)).shares[0].tolist() == [1, 0.5]
    # At .1 the far boxes are false; at .5 also the small one (IoU .2) and the one of IoU 1/3.
    # By intersection over the predicted box all but the small one are false at .9.
    assert result.false_boxes.tolist() == [[1, 2, 2], [0, 0, 0]]
    assert result.iou.boxes_predicted == pytest.approx(5 / 3)


def test_a_box_that_meets_one_of_two_annotated_boxes_is_not_false():
    images = [image("a", annotation(0, boxes=np.vstack([TARGET, FAR]), wang=(NONE, TARGET)))]
    result = wang_protocol(images, levels=(0.5,), iobb_levels=(0.5,))
    assert result.false_boxes[0].tolist() == [0, 0]
    assert result.iou.best.tolist() == [1, 0]


def test_segmentation_is_scored_on_true_positives_with_thresholds_of_other_images():
    peaked = np.where(np.array(MAP_THRESHOLDS) == 0.3, 0.9, 0.1)
    tuning = [image("t", annotation(0, TARGET, ious=peaked))]
    better = np.where(np.array(MAP_THRESHOLDS) == 0.6, 0.95, peaked)  # is not to be known
    scoring = [
        image("a", annotation(0, TARGET, ious=better), scores=(0.9, 0)),
        image("b", annotation(0, TARGET, ious=0.5), scores=(0.7, 0)),
        image("c", annotation(0, TARGET, ious=0.8), scores=(0.1, 0)),  # below the cut-off: empty
        image("d", annotation(0, NONE, ious=0.0), scores=(0.9, 0)),  # a map of nothing
    ]
    result = chexlocalize_miou(tuning, scoring, cutoffs=[0.7, 0.5], repeats=50)
    assert result.thresholds.tolist() == [0.3, 0.5]
    assert result.annotated.tolist() == [4, 0]
    assert result.counts.tolist() == [2, 0]
    np.testing.assert_allclose(result.miou, [0.7, np.nan])
    assert result.macro == pytest.approx(0.7)
    np.testing.assert_allclose(result.full_miou, [1.4 / 4, np.nan])
    assert 0.5 <= result.intervals.low[0] <= 0.7 <= result.intervals.high[0] <= 0.9
    assert np.isnan(result.intervals.low[1])
    assert result.macro_interval.low == result.intervals.low[0]


def test_score_cutoffs_come_from_the_tuning_images_unless_given():
    tuning = [image(str(n), scores=(n / 10, 0.5), labels=(n >= 6, 1)) for n in range(10)]
    assert youden_of(tuning).tolist() == [0.6, 0.5]
    scoring = [image("a", annotation(0, TARGET, ious=0.4), scores=(0.59, 0.5))]
    assert chexlocalize_miou(tuning, scoring, repeats=10).counts.tolist() == [0, 0]
    assert chexlocalize_miou(tuning, scoring, cutoffs=[0.5, 0.5], repeats=10).counts.tolist() == [1, 0]


def test_segmentation_of_nothing_is_undefined():
    result = chexlocalize_miou([image("t")], [image("a")], repeats=10)
    assert np.isnan([result.macro, *result.miou, *result.intervals.low]).all()
