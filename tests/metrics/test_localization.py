# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Measures of boxes, masks and points, and of one map beside its annotated boxes."""

import json

import numpy as np
import pytest
import torch
import torchvision
from scipy import ndimage

from clarity_hf import ClarityForMultiLabelLocalization, ClarityImageProcessor
from clarity_hf.boxes import Letterbox, UpsampledMap, box_area, box_iou, boxes_from_map
from clarity_hf.evaluation.localizers import ModelLocalizer
from clarity_hf.image_reading import read_image
from clarity_hf.metrics.localization import (
    best_overlaps,
    box_iobb,
    boxes_found,
    fixed_boxes,
    max_box_accuracy,
    measure_map,
    shares_per_finding,
    tune_map_thresholds,
)
from clarity_hf.metrics.records import (
    MAP_CELLS,
    MAP_THRESHOLDS,
    MAX_BOX_THRESHOLDS,
    ImageRecord,
    from_json,
    to_json,
)

NONE = np.zeros((0, 4))
TARGET = np.array([[0, 0, 10, 10]])


def shifted(x):
    """A 10 × 10 box x pixels to the right: IoU (10 − x) / (10 + x) with `TARGET`."""
    return np.array([[x, 0, 10 + x, 10]])


def test_shares_computed_by_hand():
    # IoU 1, 2/3 and 1/3 for three annotated boxes of finding 4.
    images = [(4, TARGET, shifted(x)) for x in (0, 2, 5)]
    (found,) = boxes_found(images, thresholds=(0.1, 0.5, 0.7)).items()
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


def test_an_image_without_prediction_is_a_miss():
    count, shares = boxes_found([(0, TARGET, NONE), (0, TARGET, TARGET)], thresholds=(0.1, 0.7))[0]
    assert count == 2
    assert shares.tolist() == [0.5, 0.5]


def test_findings_are_kept_apart_and_in_order():
    found = boxes_found([(7, TARGET, TARGET), (1, TARGET, NONE)], thresholds=(0.5,))
    assert list(found) == [1, 7]
    assert [shares.tolist() for _, shares in found.values()] == [[0], [1]]


def test_more_overlap_is_never_found_more_often():
    images = [(0, TARGET, shifted(x)) for x in np.linspace(0, 12, 30)]
    shares = boxes_found(images)[0][1]
    assert len(shares) == 7
    assert (np.diff(shares) <= 0).all()
    assert shares[0] > shares[-1]


@pytest.mark.filterwarnings("error")
def test_a_finding_without_annotated_boxes_is_undefined():
    count, shares = boxes_found([(0, NONE, TARGET)], thresholds=(0.1, 0.5))[0]
    assert count == 0
    assert np.isnan(shares).all()
    assert boxes_found([]) == {}


def test_the_fixed_box_is_the_one_nearest_to_the_others():
    # To the others: x = 0 overlaps by (1/3 + 0) / 2, x = 5 by (1/3 + 1/3) / 2, x = 10 like the first.
    boxes = np.vstack([shifted(0), shifted(5), shifted(10)])
    np.testing.assert_array_equal(fixed_boxes(boxes), shifted(5))


def test_two_fixed_boxes_serve_two_places():
    left, right = np.array([[0.0, 0, 40, 100]]), np.array([[60.0, 0, 100, 100]])
    boxes = np.concatenate([left, left + np.array([0, 0, 4, 0]), right, right - np.array([4, 0, 0, 0]), right])
    assert fixed_boxes(boxes)[0].tolist() == right[0].tolist()
    assert fixed_boxes(boxes, 2)[1, 0] == 0
    assert len(fixed_boxes(boxes[:2], 3)) == 2


def test_the_next_fixed_box_raises_the_mean_best_overlap_as_much_as_any_can():
    rng = np.random.default_rng(1)
    corners = rng.random((12, 2)) * 60
    boxes = np.hstack([corners, corners + 10 + rng.random((12, 2)) * 30])
    chosen = fixed_boxes(boxes, 2)
    gains = [box_iou(boxes, np.stack([chosen[0], other])).max(axis=1).mean() for other in boxes]
    assert box_iou(boxes, chosen).max(axis=1).mean() == pytest.approx(max(gains))


def test_without_boxes_there_is_no_fixed_box():
    with pytest.raises(ValueError, match="`boxes` must hold at least one box, got none"):
        fixed_boxes(NONE)


def hill(width):
    """A map of 8 × 8 patches that falls linearly from its middle column to 0 over `width` patches."""
    distance = np.abs(np.arange(8) - 3.5)
    return np.tile(np.clip(1 - distance / width, 0, None), (8, 1))


def test_the_map_threshold_of_the_best_boxes_is_chosen_per_finding():
    letterbox = Letterbox.fit((64, 64), (64, 64))
    narrow, wide = np.array([[28.0, 0, 36, 64]]), np.array([[6.0, 0, 58, 64]])
    images = [(0, narrow, hill(4), letterbox), (2, wide, hill(4), letterbox)]
    chosen = tune_map_thresholds(images, num_findings=3, candidates=(0.2, 0.5, 0.9), default=0.4)
    assert chosen.tolist() == [0.9, 0.4, 0.2]


def test_a_map_of_nothing_gets_a_threshold_all_the_same():
    letterbox = Letterbox.fit((64, 64), (64, 64))
    images = [(0, np.array([[0.0, 0, 8, 8]]), np.zeros((8, 8)), letterbox)]
    assert tune_map_thresholds(images, 1, candidates=(0.3, 0.6)).tolist() == [0.3]


# Overlaps of other kinds


def test_intersection_over_the_predicted_box_by_hand():
    predicted = np.array([[0, 0, 5, 5], [5, 0, 15, 10], [20, 20, 30, 30], [3, 3, 3, 9]])
    np.testing.assert_allclose(box_iobb(TARGET, predicted), [[1, 0.5, 0, 0]])  # inside, half outside, away, no area


def test_intersection_over_the_predicted_box_is_torchvisions_intersection():
    generator = np.random.default_rng(0)
    low = generator.uniform(0, 50, (2, 20, 2))
    annotated, predicted = np.concatenate([low, low + generator.uniform(1, 40, (2, 20, 2))], axis=-1)
    iou = torchvision.ops.box_iou(torch.from_numpy(annotated), torch.from_numpy(predicted)).numpy()
    areas = box_area(annotated)[:, None] + box_area(predicted)[None]
    expected = iou * areas / (1 + iou) / box_area(predicted)  # IoU = i / (a + b − i)
    np.testing.assert_allclose(box_iobb(annotated, predicted), expected, atol=1e-12)


def test_the_best_overlap_is_of_the_best_box_and_0_without_any():
    np.testing.assert_allclose(best_overlaps(TARGET, np.vstack([shifted(9), shifted(5)])), [1 / 3])
    np.testing.assert_array_equal(best_overlaps(np.vstack([TARGET, TARGET]), NONE), [0, 0])


# MaxBoxAcc

OVERLAPS = np.array([[0.5, 0.2, 0.4], [0.6, 0.75, 0.1], [0.1, 0.35, 0.72]])  # maps × thresholds


def test_the_best_threshold_is_taken_for_each_level():
    # ≥ .5: columns 2, 1, 1 of 3. ≥ .3: 2, 2, 2. ≥ .7: 0, 1, 1.
    assert max_box_accuracy(OVERLAPS) == pytest.approx(2 / 3)
    assert max_box_accuracy(OVERLAPS, (0.3, 0.5, 0.7)) == pytest.approx((2 + 2 + 1) / 9)
    assert np.isnan(max_box_accuracy(np.zeros((0, 3))))


# Shares


@pytest.mark.filterwarnings("error")
def test_means_over_findings_and_over_boxes_differ():
    above = np.array([[0.2], [0.4], [0.6], [0.9]]) > (0.3, 0.5)
    found = shares_per_finding(np.array([0, 0, 0, 2]), above, 3)
    assert found.counts.tolist() == [3, 0, 1]
    np.testing.assert_allclose(found.shares, [[2 / 3, 1 / 3], [np.nan, np.nan], [1, 1]])
    np.testing.assert_allclose(found.macro, [5 / 6, 2 / 3])
    np.testing.assert_allclose(found.pooled, [3 / 4, 2 / 4])
    one = shares_per_finding(np.array([0, 0, 0, 2]), above[:, 0], 3)
    assert (one.shares[2], one.macro, one.pooled) == (found.shares[2, 0], found.macro[0], found.pooled[0])


@pytest.mark.filterwarnings("error")
def test_shares_of_nothing_are_undefined():
    found = shares_per_finding(np.zeros(0, dtype=int), np.zeros((0, 1)), 2)
    assert found.counts.tolist() == [0, 0]
    assert np.isnan([found.shares[0, 0], found.macro[0], found.pooled[0]]).all()


# A map beside its annotated boxes


def measure(grid, boxes, image=(64, 64), **options):
    letterbox = Letterbox.fit(image, (8 * len(grid), 8 * len(grid)))
    options = {"own_threshold": 0.5, "finding": 3, "upsampling": 8} | options
    return measure_map(grid, letterbox, np.array(boxes, dtype=np.float64), **options)


@pytest.mark.parametrize("image", [(64, 64), (300, 200), (90, 640)])
@pytest.mark.parametrize("components", ["largest", "all"])
def test_a_record_holds_the_boxes_of_the_map(image, components):
    grid = np.maximum(ndimage.gaussian_filter(np.random.default_rng(1).normal(size=(14, 14)), 1), 0)
    letterbox = Letterbox.fit(image, (112, 112))
    record = measure(grid, [[1, 1, 30, 30]], image, own_threshold=0.37, own_components=components)
    assert record.finding == 3
    np.testing.assert_array_equal(record.own, boxes_from_map(grid, letterbox, 0.37, components))
    assert len(record.regions) == len(MAP_THRESHOLDS)
    for threshold, boxes in zip(MAP_THRESHOLDS, record.regions, strict=True):
        expected = boxes_from_map(grid, letterbox, threshold, "all")
        np.testing.assert_allclose(boxes, expected, rtol=1e-6)  # kept in single precision


def step_map(value=0.62):
    """8 × 8 cells of 8 pixels: 1 in the top left cell, `value` in the rest of its column, 0 elsewhere."""
    grid = np.zeros((8, 8))
    grid[:, 0] = value
    grid[0, 0] = 1
    return grid


def test_mask_overlaps_have_exact_areas():
    # Without upsampling: below .62 the map marks x 0 to 8 (512 pixels), above it the top left cell (64).
    record = measure(step_map(), [[4.5, 0, 12.5, 10]], upsampling=1)
    wide, cell = 3.5 * 10 / (512 + 80 - 35), 3.5 * 8 / (64 + 80 - 28)
    expected = [wide if threshold < 0.62 else cell for threshold in MAP_THRESHOLDS]
    np.testing.assert_allclose(record.mask_ious, expected, rtol=1e-12)


def test_mask_overlaps_are_those_of_the_pixels_of_a_large_image():
    grid = np.maximum(ndimage.gaussian_filter(np.random.default_rng(2).normal(size=(8, 8)), 1), 0)
    boxes = np.array([[60.0, 100, 300, 420], [250, 350, 500, 500]])  # they overlap, which counts once
    record = measure(grid, boxes, (512, 384))
    working = UpsampledMap.of(grid, Letterbox.fit((512, 384), (64, 64)))
    seen = np.kron(working.values, np.ones((8, 8)))[:, 64:448]  # 8 image pixels a cell, 64 columns of padding
    filled = np.zeros((512, 384), dtype=bool)
    filled[100:420, 60:300] = filled[350:500, 250:384] = True
    for level, overlap in zip(MAP_THRESHOLDS, record.mask_ious, strict=True):
        marked = seen > level * working.peak
        expected = (marked & filled).sum() / (marked | filled).sum()
        assert overlap == pytest.approx(expected, abs=1e-9)


def test_the_padding_is_not_of_the_image():
    grid = np.ones((4, 4))
    whole = measure(grid, [[0, 0, 200, 100]], (100, 200), upsampling=1)
    np.testing.assert_allclose(whole.mask_ious, 1)
    grid[0, 0] = 50.0  # over the padding: neither peak nor point
    np.testing.assert_allclose(measure(grid, [[0, 0, 200, 100]], (100, 200), upsampling=1).mask_ious, 1)
    assert measure(grid, [[0, 0, 50, 50]], (100, 200), upsampling=1).hit


def test_the_largest_value_points():
    grid = np.zeros((8, 8))
    grid[5, 2] = 1.0  # x 16 to 24, y 40 to 48
    assert measure(grid, [[18, 42, 22, 46]]).hit
    assert not measure(grid, [[0, 0, 16, 64], [24, 0, 64, 64]]).hit
    assert measure(grid, [[19.5, 43.5, 64, 64]]).hit  # the left and the top edge are inside
    assert not measure(grid, [[0, 0, 19.5, 64], [0, 0, 64, 43.5]]).hit  # the right and the bottom edge are not


def test_wangs_regions_are_of_the_map_from_its_minimum_to_its_maximum():
    # From .5 to 1: above 60 of 255 is above .618, above 180 is above .853.
    grid = np.full((4, 4), 0.5)
    grid[0, 0], grid[0, 3], grid[3, 3] = 1.0, 0.7, 0.6
    low, high = measure(grid, [[0, 0, 1, 1]], (32, 32), upsampling=1).wang_regions
    np.testing.assert_array_equal(low, [[0, 0, 8, 8], [24, 0, 32, 8]])
    np.testing.assert_array_equal(high, [[0, 0, 8, 8]])
    even = measure(np.ones((4, 4)), [[0, 0, 1, 1]], (32, 32)).wang_regions
    assert [boxes.shape for boxes in even] == [(0, 4), (0, 4)]


def test_a_zero_map_has_nothing():
    record = measure(np.zeros((8, 8)), [[0, 0, 9, 9]])
    assert record.own.shape == (0, 4)
    assert {boxes.shape for boxes in (*record.regions, *record.wang_regions)} == {(0, 4)}
    assert record.mask_ious.tolist() == [0] * len(MAP_THRESHOLDS)
    assert not record.hit


def test_a_measured_map_survives_its_file():
    annotation = measure(step_map(), [[4.5, 0, 12.5, 10]])
    record = ImageRecord("a", "1", (64, 64), np.zeros(4), np.zeros(4), np.zeros(4), (), (annotation,))
    (back,) = from_json(json.loads(json.dumps(to_json(record)))).annotations
    assert (back.finding, back.hit) == (annotation.finding, annotation.hit)
    for name in ("boxes", "own", "mask_ious", "max_box_ious", "cells"):
        np.testing.assert_allclose(getattr(back, name), getattr(annotation, name), atol=1e-3)


@pytest.mark.parametrize("boxes", [NONE, np.zeros(4), np.array([[5, 5, 5, 9]])])
def test_a_map_is_measured_beside_boxes(boxes):
    with pytest.raises(ValueError, match=r"`boxes` must be \(m, 4\) with m ≥ 1 and positive areas, got shape"):
        measure(step_map(), boxes)


def test_thresholds_must_be_shares():
    with pytest.raises(ValueError, match=r"`own_threshold` must be inside \(0, 1\), got 1.0. Pass a share"):
        measure(step_map(), TARGET, own_threshold=1.0)
    with pytest.raises(ValueError, match=r"`candidates` must be inside \(0, 1\), got 0"):
        tune_map_thresholds([], 1, candidates=(0, 0.5))


# The packaged checkpoint on real images


def test_boxes_of_real_maps_are_those_of_the_image_processor(nih_folder):
    boxes = [row.split(",") for row in (nih_folder / "BBox_List_RSNA.csv").read_text().splitlines()[1:7]]
    images = {row[0]: read_image(nih_folder / "images" / row[0]) for row in boxes}
    model = ClarityForMultiLabelLocalization.from_pretrained("clarity-s16-224").eval()
    localizer = ModelLocalizer(model, ClarityImageProcessor.from_pretrained("clarity-s16-224"))
    output = localizer(list(images.values()))
    for maps, letterbox in zip(output.maps, output.letterboxes, strict=True):
        for finding in (1, 6):
            record = measure_map(maps[finding], letterbox, TARGET, 0.3, "largest", finding=finding)
            np.testing.assert_array_equal(record.own, boxes_from_map(maps[finding], letterbox, 0.3))
            every = boxes_from_map(maps[finding], letterbox, 0.3, "all")
            np.testing.assert_allclose(record.regions[MAP_THRESHOLDS.index(0.3)], every, rtol=1e-6)
            np.testing.assert_array_equal(every[:1], record.own)


def smooth_maps(count):
    """Maps of several bumps on a grid of 14 × 14."""
    rng = np.random.default_rng(0)
    return [ndimage.gaussian_filter(rng.random((14, 14)), 1.5) for _ in range(count)]


def contours_of(localization_map, boxes):
    """MaxBoxAcc by OpenCV: largest contour, and all contours, of the map brought to [0, 1] at each threshold."""
    cv2 = pytest.importorskip("cv2")
    large = cv2.resize(localization_map.astype(np.float32), (112, 112), interpolation=cv2.INTER_LINEAR)
    large = (large - large.min()) / (large.max() - large.min())
    best = np.zeros((2, len(MAX_BOX_THRESHOLDS)))
    for column, threshold in enumerate(MAX_BOX_THRESHOLDS):
        mask = (large > threshold).astype(np.uint8)
        contours = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)[0]
        rectangles = [cv2.boundingRect(contour) for contour in contours]
        found = np.array([(x, y, x + width, y + height) for x, y, width, height in rectangles], dtype=float)
        overlaps = box_iou(found.reshape(-1, 4), boxes * 112 / 64).max(axis=1, initial=0.0)
        largest = int(np.argmax([cv2.contourArea(contour) for contour in contours]))
        best[:, column] = overlaps[largest], overlaps.max()
    return best


def test_max_box_accuracy_agrees_with_the_contours_of_opencv():
    boxes = np.array([[8.0, 8, 40, 30]])
    ours = np.stack([measure(one, boxes, valley=0.8).max_box_ious for one in smooth_maps(30)])
    theirs = np.stack([contours_of(one, boxes) for one in smooth_maps(30)])
    # A contour has the area of the polygon through its pixels: regions of nearly one size may change places.
    assert (np.abs(ours - theirs) > 1e-6).mean() < 0.01
    for row, levels in ((0, (0.5,)), (1, (0.3, 0.5, 0.7))):
        expected = max_box_accuracy(theirs[:, row], levels)
        assert max_box_accuracy(ours[:, row], levels) == pytest.approx(expected, abs=1 / 30)
    assert max_box_accuracy(theirs[:, 1], (0.3, 0.5, 0.7)) > 0.05


def test_max_box_accuracy_leaves_regions_whole_where_boxes_are_divided():
    two = np.zeros((8, 8))
    two[2:6, 1:3], two[2:6, 5:7], two[2:6, 3:5] = 1.0, 1.0, 0.4
    record = measure(two, [[8, 16, 56, 48]], valley=0.8)
    assert record.max_box_ious[0].max() > 0.7
    assert max(box_iou(record.boxes, boxes).max() for boxes in record.regions) < 0.7


def test_a_record_keeps_the_map_over_the_image_alone():
    portrait = Letterbox.fit((64, 32), (64, 64))
    grid = np.tile([9.0, 1.0, 2.0, 9.0], (4, 1))
    record = measure_map(grid, portrait, np.array([[0.0, 0, 10, 10]]), 0.5, finding=0)
    assert record.cells.shape == (MAP_CELLS, MAP_CELLS)
    np.testing.assert_allclose(record.cells[:, MAP_CELLS // 2 - 1 : MAP_CELLS // 2 + 1].mean(axis=1), 1.5, atol=0.01)
