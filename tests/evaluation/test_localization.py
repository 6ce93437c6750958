# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""The share of annotated boxes that are found."""

import numpy as np
import pytest
import torch

from clarity_hf.boxes import Letterbox
from clarity_hf.evaluation import boxes_found, constant_box, predicted_boxes, tune_map_thresholds

NONE = np.zeros((0, 4))
TARGET = np.array([[0, 0, 10, 10]])


def shifted(x):
    """A 10 × 10 box x pixels to the right: IoU (10 − x) / (10 + x) with `TARGET`."""
    return np.array([[x, 0, 10 + x, 10]])


def test_shares_computed_by_hand():
    # IoU 1, 2/3 and 1/3 for three annotated boxes of finding 4.
    films = [(4, TARGET, shifted(x)) for x in (0, 2, 5)]
    (found,) = boxes_found(films, thresholds=(0.1, 0.5, 0.7)).items()
    finding, (count, shares) = found
    assert (finding, count) == (4, 3)
    np.testing.assert_allclose(shares, [1, 2 / 3, 1 / 3])


def test_the_overlap_must_exceed_the_threshold():
    half = np.array([[0, 0, 10, 5]])  # IoU .5 exactly
    assert boxes_found([(0, TARGET, half)], thresholds=(0.49, 0.5))[0][1].tolist() == [1, 0]


def test_any_predicted_box_may_match():
    predicted = np.vstack([shifted(9), shifted(1), shifted(30)])
    assert boxes_found([(0, TARGET, predicted)], thresholds=(0.7,))[0][1].tolist() == [1]


def test_every_annotated_box_counts():
    annotated = np.vstack([TARGET, shifted(40)])
    count, shares = boxes_found([(0, annotated, TARGET)], thresholds=(0.5,))[0]
    assert count == 2
    assert shares.tolist() == [0.5]


def test_a_film_without_prediction_is_a_miss():
    count, shares = boxes_found([(0, TARGET, NONE), (0, TARGET, TARGET)], thresholds=(0.1, 0.7))[0]
    assert count == 2
    assert shares.tolist() == [0.5, 0.5]


def test_findings_are_kept_apart_and_in_order():
    found = boxes_found([(7, TARGET, TARGET), (1, TARGET, NONE)], thresholds=(0.5,))
    assert list(found) == [1, 7]
    assert [shares.tolist() for _, shares in found.values()] == [[0], [1]]


def test_more_overlap_is_never_found_more_often():
    films = [(0, TARGET, shifted(x)) for x in np.linspace(0, 12, 30)]
    shares = boxes_found(films)[0][1]
    assert len(shares) == 7
    assert (np.diff(shares) <= 0).all()
    assert shares[0] > shares[-1]


@pytest.mark.filterwarnings("error")
def test_a_finding_without_annotated_boxes_is_undefined():
    count, shares = boxes_found([(0, NONE, TARGET)], thresholds=(0.1, 0.5))[0]
    assert count == 0
    assert np.isnan(shares).all()
    assert boxes_found([]) == {}


def test_boxes_of_one_finding_are_picked_from_a_result():
    result = {"labels": torch.tensor([3, 5, 3]), "boxes": torch.arange(12.0).reshape(3, 4)}
    picked = predicted_boxes(result, 3)
    assert picked.dtype == np.float64
    np.testing.assert_array_equal(picked, [[0, 1, 2, 3], [8, 9, 10, 11]])
    assert predicted_boxes(result, 0).shape == (0, 4)


def test_the_constant_box_is_the_one_nearest_to_the_others():
    # To the others: x = 0 overlaps by (1/3 + 0) / 2, x = 5 by (1/3 + 1/3) / 2, x = 10 like the first.
    boxes = np.vstack([shifted(0), shifted(5), shifted(10)])
    np.testing.assert_array_equal(constant_box(boxes), shifted(5)[0])


def test_there_is_no_constant_box_of_none():
    with pytest.raises(ValueError, match="`boxes` must hold at least one box, got none"):
        constant_box(NONE)


def hill(width):
    """A map of 8 × 8 patches that falls linearly from its middle column to 0 over `width` patches."""
    distance = np.abs(np.arange(8) - 3.5)
    return np.tile(np.clip(1 - distance / width, 0, None), (8, 1))


def test_the_map_threshold_of_the_best_boxes_is_chosen_per_finding():
    letterbox = Letterbox.fit((64, 64), (64, 64))
    narrow, wide = np.array([[28.0, 0, 36, 64]]), np.array([[6.0, 0, 58, 64]])
    films = [(0, narrow, hill(4), letterbox), (2, wide, hill(4), letterbox)]
    chosen = tune_map_thresholds(films, num_findings=3, candidates=(0.2, 0.5, 0.9), default=0.4)
    assert chosen.tolist() == [0.9, 0.4, 0.2]


def test_a_map_of_nothing_gets_a_threshold_all_the_same():
    letterbox = Letterbox.fit((64, 64), (64, 64))
    films = [(0, np.array([[0.0, 0, 8, 8]]), np.zeros((8, 8)), letterbox)]
    assert tune_map_thresholds(films, 1, candidates=(0.3, 0.6)).tolist() == [0.3]
