# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Rivals that do not see the image: hand-computed cases, and independent implementations."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from clarity_hf.boxes import Letterbox, box_iou
from clarity_hf.metrics import image_driven
from clarity_hf.metrics.image_driven import (
    COMPARED_LEVELS,
    AnnotatedMaps,
    boxes_of_cells,
    correlation_of_maps,
    covered_cells,
    figures_by_patient,
    froc,
    pixel_auroc,
)
from clarity_hf.metrics.localization import BoxSettings, fixed_boxes
from clarity_hf.metrics.records import MAP_CELLS, MAP_THRESHOLDS, AnnotationRecord, ImageRecord

NONE = np.zeros((0, 4))
LEFT, RIGHT = np.array([[0.0, 0, 40, 100]]), np.array([[60.0, 0, 100, 100]])


def cells(left=0.0, right=0.0):
    """A map that is even in each half of the image."""
    values = np.full((MAP_CELLS, MAP_CELLS), float(left))
    values[:, MAP_CELLS // 2 :] = right
    return values


def annotation(boxes, own=NONE, values=None, finding=0):
    regions = (NONE,) * len(MAP_THRESHOLDS)
    ious = np.zeros(len(MAP_THRESHOLDS))
    values = cells() if values is None else values
    return AnnotationRecord(finding, boxes, own, regions, ious, False, (NONE, NONE), cells=values)


def image(name, *annotations, patient=None, scores=(0.5, 0.5), labels=(1, 0), counts=(0, 0)):
    numbers = [np.array(values, dtype=np.float64) for values in (labels, scores, scores)]
    return ImageRecord(
        name, patient or name, (100, 100), *numbers, annotations=annotations, box_counts=np.array(counts)
    )


def test_maps_of_one_shape_correlate_fully_and_opposite_ones_negatively():
    grid = np.arange(16.0).reshape(4, 4)
    whole = Letterbox.fit((64, 64), (64, 64))
    assert correlation_of_maps(np.stack([grid, 3 * grid + 1]), whole) == pytest.approx(1)
    assert correlation_of_maps(np.stack([grid, 2 * grid, 15 - grid]), whole) == pytest.approx((1 - 1 - 1) / 3)
    assert np.isnan(correlation_of_maps(np.stack([grid, np.ones((4, 4))]), whole))


def test_the_padding_does_not_count_for_the_correlation():
    portrait = Letterbox.fit((64, 32), (64, 64))  # the middle half of the columns
    grid = np.zeros((2, 4, 4))
    grid[0, :, 1:3], grid[1, :, 1:3] = np.arange(8).reshape(4, 2), np.arange(8).reshape(4, 2)
    grid[0, :, 0], grid[1, :, 3] = 99, 99
    grid[0, :, 0], grid[1, :, 0] = grid[0, :, 1], grid[1, :, 1]  # what is sampled beside the edge of the image
    grid[0, :, 3], grid[1, :, 3] = grid[0, :, 2], grid[1, :, 2]
    assert correlation_of_maps(grid, portrait) == pytest.approx(1)


def test_cells_are_covered_by_their_share():
    covered = covered_cells([[0.25, 0.0, 0.625, 0.5]], 4)
    np.testing.assert_allclose(covered[:2], [[0, 1, 0.5, 0]] * 2)
    assert covered[2:].sum() == 0
    two = covered_cells([[0, 0, 0.5, 0.5], [0.5, 0.5, 1, 1]], 2)
    np.testing.assert_allclose(two, np.eye(2))


def test_pixel_auroc_agrees_with_sklearn_and_is_a_half_for_an_even_map():
    rng = np.random.default_rng(0)
    values, covered = rng.random((6, 6)).round(1), rng.random((2, 6, 6))
    expected = [
        roc_auc_score(np.repeat([1, 0], 36), np.tile(values.ravel(), 2), sample_weight=np.append(one, 1 - one))
        for one in covered
    ]
    np.testing.assert_allclose(pixel_auroc(values, covered), expected)
    assert pixel_auroc(np.ones((6, 6)), covered[0]) == pytest.approx(0.5)
    assert np.isnan(pixel_auroc(values, np.ones((6, 6))))


def four_patients():
    """Boxes left, left, right, right; each map has a box on its own side only, and is brighter there."""
    return [
        image("a", annotation(LEFT, LEFT, cells(2, 1))),
        image("b", annotation(LEFT, LEFT, cells(2, 1))),
        image("c", annotation(RIGHT, RIGHT, cells(1, 2))),
        image("d", annotation(RIGHT, np.concatenate([RIGHT, LEFT]), cells(1, 4))),
    ]


def test_swapped_boxes_are_those_of_all_other_patients():
    maps = AnnotatedMaps.of(four_patients())
    own = maps.hits_of(maps.own)
    np.testing.assert_allclose(own.shares[:, 0], 1)
    assert own.boxes_predicted == 1.25
    np.testing.assert_allclose(maps.swapped_hits().shares, np.repeat([[2 / 3], [2 / 3], [1 / 3], [1 / 3]], 3, axis=1))


def test_another_image_of_the_same_patient_is_not_a_rival():
    records = four_patients()
    records[1] = replace(records[1], patient="a")
    shares = AnnotatedMaps.of(records).swapped_hits().shares[:, 0]
    np.testing.assert_allclose(shares, [0.5, 0.5, 1 / 3, 1 / 3])


def test_fixed_boxes_come_from_other_patients_alone():
    three = [image("a", annotation(LEFT)), image("b", annotation(RIGHT)), image("c", annotation(RIGHT))]
    maps = AnnotatedMaps.of(three)
    np.testing.assert_allclose(maps.fixed_box_hits(1).shares[:, 2], maps_one(three))
    lonely = AnnotatedMaps.of([image("a", annotation(LEFT)), image("b", annotation(LEFT), patient="a")])
    assert lonely.fixed_box_hits(2).shares.sum() == 0  # there is no other patient to learn from
    assert lonely.fixed_box_hits(2).boxes_predicted == 0


def maps_one(records):
    """Hits at IoU > .5 of the fixed box of the other records, one patient each, by brute force."""
    boxes = [record.annotations[0].boxes for record in records]
    guesses = [fixed_boxes(np.concatenate(boxes[:i] + boxes[i + 1 :])) for i in range(len(boxes))]
    return [box_iou(own, guess).max() > 0.5 for own, guess in zip(boxes, guesses, strict=True)]


def test_patients_are_cut_into_folds_and_never_learn_from_their_own(monkeypatch):
    monkeypatch.setattr(image_driven, "FOLDS", 3)
    maps = AnnotatedMaps.of([image(f"{i}", annotation(LEFT), patient=f"{i // 2}") for i in range(14)])
    assert sorted(np.unique(maps.folds)) == [0, 1, 2]
    seen = []
    for _, mine, others in maps.rows():
        assert not set(maps.patients[mine]) & set(maps.patients[others])
        seen += mine.tolist()
    assert sorted(seen) == list(range(14))


def test_mean_maps_are_of_other_patients_each_by_its_peak():
    maps = AnnotatedMaps.of(four_patients())
    expected = np.mean([1, 0.5, 0.25]), np.mean([0.5, 1, 1])
    np.testing.assert_allclose(maps.mean_maps[0, 0, [0, -1]], expected)
    np.testing.assert_allclose(maps.mean_masks[0, 0, [0, -1]], [1 / 3, 2 / 3])
    settings = BoxSettings([0.5, 0.5], [0.9, 0.5], "all")
    found = boxes_of_cells(maps.mean_maps[0], 0, settings)
    np.testing.assert_allclose(found, [[0.5, 0, 1, 1]], atol=0.02)
    assert maps.mean_map_hits(settings).shares[0].sum() == 0


def test_pixel_aurocs_of_the_rivals_are_those_of_their_maps():
    maps = AnnotatedMaps.of(four_patients())
    found = maps.pixel_aurocs()
    # The boxes cover .8 of one half: of the rest of the image a sixth lies in the brighter half.
    inside, outside = 1.0, 1 / 6
    own = inside * (1 - outside) + inside * outside / 2
    np.testing.assert_allclose(found["own"], own, atol=1e-3)
    np.testing.assert_allclose(found["swapped"], [(own + 2 * (1 - own)) / 3] * 4, atol=1e-3)
    np.testing.assert_allclose(found["mean_map"], 1 - own, atol=1e-3)


def test_the_side_of_a_map_is_that_of_its_boxes():
    maps = AnnotatedMaps.of(four_patients())
    assert maps.sides()["raw"].tolist() == [1, 1, 1, 1]
    wrong = AnnotatedMaps.of([image("a", annotation(LEFT, values=cells(1, 3))), *four_patients()[1:]])
    assert wrong.sides()["raw"].tolist() == [0, 1, 1, 1]
    both = AnnotatedMaps.of([image("a", annotation(np.concatenate([LEFT, RIGHT])))])
    assert np.isnan(both.sides()["raw"]).all()
    even = AnnotatedMaps.of([image("a", annotation(LEFT, values=cells(1, 1)))])
    assert even.sides()["raw"].tolist() == [0.5]


def test_a_lean_that_all_maps_share_is_taken_off():
    leaning = [(LEFT, cells(8, 1)), (LEFT, cells(4, 1)), (RIGHT, cells(2, 1)), (RIGHT, cells(3, 1))]
    maps = AnnotatedMaps.of([image(str(i), annotation(box, values=one)) for i, (box, one) in enumerate(leaning)])
    assert maps.sides()["raw"].tolist() == [1, 1, 0, 0]
    assert maps.sides()["relative"].tolist() == [1, 1, 1, 1]


def test_figures_are_means_over_findings_with_paired_intervals():
    values = np.array([[1.0], [0.0], [1.0], [np.nan]])
    figures = figures_by_patient(values, np.array([0, 0, 2, 2]), np.array(list("aabc")), 3, repeats=50)
    assert figures.counts.tolist() == [2, 0, 1]
    np.testing.assert_allclose(figures.values[:, 0], [0.5, np.nan, 1, 0.75, 2 / 3])  # findings, macro, pooled
    same = figures_by_patient(values[:3] - values[:3], np.array([0, 0, 2]), np.array(list("abc")), 3, repeats=50)
    assert np.nanmax(np.abs(same.intervals.low)) == np.nanmax(np.abs(same.intervals.high)) == 0
    nothing = figures_by_patient(np.zeros((0, 2)), np.zeros(0, int), np.zeros(0, str), 3)
    assert np.isnan(nothing.values).all()


def test_froc_counts_boxes_found_and_false_ones():
    records = [
        image("sick", annotation(LEFT, np.concatenate([LEFT, RIGHT])), scores=(0.8, 0.1), counts=(2, 1)),
        image("well", labels=(0, 0), scores=(0.6, 0.9), counts=(3, 4)),
        image("unboxed", labels=(1, 0), scores=(0.9, 0.1), counts=(5, 0)),
    ]
    curve = froc(records, [0.7, 0.5])
    assert curve.sensitivity[curve.at_threshold].tolist() == [1, 1, 1]
    assert curve.false_boxes[curve.at_threshold].tolist() == [1 / 3] * 3  # the one on the right of the sick image
    assert curve.false_boxes[0].tolist() == [4 / 3] * 3  # at the lowest threshold also three on the normal one
    assert curve.sensitivity[-1].tolist() == [0, 0, 0]
    assert all(np.diff(curve.false_boxes[:, level]).max() <= 0 for level in range(len(COMPARED_LEVELS)))
    with pytest.raises(ValueError, match="`records` must have `box_counts`, got some without"):
        froc([replace(records[0], box_counts=None)], [0.7, 0.5])


def test_froc_agrees_with_counting_box_by_box():
    rng = np.random.default_rng(3)
    records = []
    for number in range(30):
        labels = (rng.random(2) < 0.5).astype(float)
        own = [np.sort(rng.random((3, 2, 2)) * 100, axis=1).reshape(3, 4) for _ in range(2)]
        parts = [annotation(LEFT if rng.random() < 0.5 else RIGHT, own[i], finding=i) for i in np.flatnonzero(labels)]
        records.append(image(f"{number}", *parts, labels=labels, scores=rng.random(2), counts=(3, 3)))
    curve = froc(records, [0.4, 0.6])
    found, boxes, false = 0, 0, 0
    for record, finding in itertools.product(records, range(2)):
        shown = record.scores[finding] >= (0.4, 0.6)[finding]
        matches = [one for one in record.annotations if one.finding == finding]
        if not matches:
            false += 3 * shown
            continue
        overlaps = box_iou(matches[0].own, matches[0].boxes)
        boxes += 1
        found += shown and overlaps.max() > 0.1
        false += shown * (overlaps.max(axis=1) <= 0.1).sum()
    assert curve.sensitivity[curve.at_threshold, 0] == pytest.approx(found / boxes)
    assert curve.false_boxes[curve.at_threshold, 0] == pytest.approx(false / 30)
