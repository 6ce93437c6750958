# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Protocols of halves on records made by hand, and the fixed-box baseline on the real list of boxes."""

import csv
import gzip
import importlib.util
from pathlib import Path

import numpy as np
import pytest

from clarity_hf.boxes import BOX_FRAME, Letterbox
from clarity_hf.data.named_splits import named_split
from clarity_hf.labels import BOXED_FINDINGS, FINDINGS, canonical_finding
from clarity_hf.metrics.localization import measure_map
from clarity_hf.metrics.matching import annotated_boxes
from clarity_hf.metrics.protocols import (
    clarity_protocol,
    cross_tuned,
    patient_protocol,
    t_iobb,
    t_iou,
    tune_and_score,
    youden_of,
)
from clarity_hf.metrics.published_protocols import (
    ham_mask_iou,
    max_box_acc,
    max_box_acc_v2,
    pointing_game,
    wang_protocol,
)
from clarity_hf.metrics.records import from_json, to_json
from clarity_hf.metrics.splits import halves

_spec = importlib.util.spec_from_file_location("made_records", Path(__file__).with_name("made_records.py"))
made = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(made)
FAR, NONE, T, TARGET, annotation, at, image, random_images, shifted = (
    made.FAR,
    made.NONE,
    made.T,
    made.TARGET,
    made.annotation,
    made.at,
    made.image,
    made.random_images,
    made.shifted,
)


def test_shares_found_at_given_thresholds():
    images = [
        image("a", annotation(0, at(0.3, TARGET, FAR)), annotation(1, at(0.3, FAR, shifted(5)))),
        image("b", annotation(0, shifted(2), boxes=np.vstack([TARGET, FAR]))),
    ]
    found = t_iou(images, [0.3, 0.5], levels=(0.3, 0.5, 0.7))
    assert found.counts.tolist() == [3, 1]  # IoU 1, 2/3, 0 and 1/3
    np.testing.assert_allclose(found.shares, [[2 / 3, 2 / 3, 1 / 3], [1, 0, 0]])
    np.testing.assert_allclose(found.macro, [5 / 6, 1 / 3, 1 / 6])
    np.testing.assert_allclose(found.pooled, [3 / 4, 2 / 4, 1 / 4])


def test_an_overlap_at_the_level_is_not_found():
    images = [image("a", annotation(0, np.array([[0.0, 0, 10, 5]])))]
    assert t_iou(images, [0.5, 0.5], levels=(0.49, 0.5)).macro.tolist() == [1, 0]


def test_the_methods_own_boxes_need_no_threshold():
    images = [image("a", annotation(0, FAR, own=shifted(2)))]
    assert t_iou(images, levels=(0.6, 0.7)).macro.tolist() == [1, 0]
    assert t_iobb(images, levels=(0.75, 0.85)).macro.tolist() == [1, 0]  # 8 of 10 columns


def test_intersection_over_the_predicted_box_at_given_thresholds():
    images = [image("a", annotation(0, np.array([[0.0, 0, 2, 2]]))), image("b", annotation(0, shifted(6)))]
    found = t_iobb(images, [0.5, 0.5])
    assert found.macro.tolist() == [1, 1, 0.5]
    assert t_iou(images, [0.5, 0.5], levels=(0.1,)).macro.tolist() == [0.5]  # .04 and .25


def test_images_without_boxes_leave_all_undefined():
    found = t_iou([image("a")], [0.5, 0.5], levels=(0.5,))
    assert found.counts.tolist() == [0, 0]
    assert np.isnan([*found.shares[:, 0], *found.macro, *found.pooled]).all()
    assert np.isnan(annotated_boxes([image("a")]).predicted().boxes_predicted)


def test_a_record_read_back_scores_the_same():
    images = [image("a", annotation(0, at(0.3, shifted(2), FAR)), annotation(1, shifted(5), own=FAR))]
    back = [from_json(to_json(record)) for record in images]
    np.testing.assert_array_equal(t_iou(back, [0.3, 0.5]).shares, t_iou(images, [0.3, 0.5]).shares)


def tuned_and_scored(tuning, scoring, score_thresholds=None):
    limits = youden_of(tuning) if score_thresholds is None else score_thresholds
    return tune_and_score(annotated_boxes(tuning), annotated_boxes(scoring), limits)


def test_what_is_tuned_on_one_half_is_scored_on_the_other():
    tuning = [image("t", annotation(0, at(0.3, TARGET)), scores=(0.8, 0)), image("n", scores=(0.2, 0), labels=(0, 0))]
    scoring = [
        image("a", annotation(0, at(0.3, shifted(2), FAR)), scores=(0.8, 0)),
        image("b", annotation(0, at(0.6, TARGET)), annotation(1, TARGET), scores=(0.7, 0)),
    ]
    result = tuned_and_scored(tuning, scoring)
    assert result.thresholds.tolist() == [0.3, 0.5]
    np.testing.assert_allclose(result.iou.best, [2 / 3, 0, 1])
    np.testing.assert_allclose(result.score_filtered.best, [2 / 3, 0, 0])
    assert result.fixed_box.best.tolist() == [1, 1, 0]  # the second finding has no box to learn from
    assert result.fixed_box.boxes_predicted == pytest.approx(2 / 3)
    given = tuned_and_scored(tuning, scoring, score_thresholds=[0.5, 0.0])
    np.testing.assert_allclose(given.score_filtered.best, given.iou.best)


def test_the_fixed_box_fits_images_of_any_size():
    tuning = [image("t", annotation(0, NONE))]
    scoring = [image("a", annotation(0, NONE, boxes=TARGET * [3, 2, 3, 2]), size=(200, 300))]
    assert tuned_and_scored(tuning, scoring).fixed_box.best.tolist() == [1]


def test_the_protocol_by_patient_repeats_its_split():
    images = random_images(80, 0, 0.5)
    result = patient_protocol(images, repeats=3)
    assert len(result.repeats) == 3
    assert len({tuple(one.iou.images) for one in (result.named, *result.repeats)}) == 4


def test_a_committed_list_replaces_the_named_split_alone():
    images = random_images(40, 0, 0.5)
    tuning = {record.patient for record in images[:8]}
    listed, random = (patient_protocol(images, 1, tuning_patients=list_) for list_ in (tuning, None))
    assert set(listed.named.iou.patients) == {record.patient for record in images[8:]}
    np.testing.assert_array_equal(listed.repeats[0].iou.images, random.repeats[0].iou.images)


def test_both_ways_each_half_is_scored_with_what_the_other_chose():
    # The first half's maps fit at .2 and the second's at .8: tuned on each other, neither does.
    first = [image(f"a{i}", annotation(regions=at(0.2, TARGET, shifted(5.0)))) for i in range(3)]
    second = [image(f"b{i}", annotation(regions=at(0.8, TARGET, [*FAR, *shifted(2.5)]))) for i in range(2)]
    boxes = annotated_boxes([*second, *first])
    crossed = cross_tuned(boxes, np.isin(boxes.images, ["a0", "a1", "a2"]))
    assert crossed.thresholds[:, 0].tolist() == [0.2, 0.8]
    assert crossed.iou.best == pytest.approx([0.6] * 2 + [1 / 3] * 3)
    assert crossed.iobb.best == pytest.approx([0.75] * 2 + [0.5] * 3)
    assert crossed.iou.count.tolist() == [2, 2, 1, 1, 1]
    assert crossed.iou.boxes_predicted == pytest.approx(7 / 5)
    assert crossed.iou.images.tolist() == ["b0", "b1", "a0", "a1", "a2"]


def test_both_ways_the_fixed_box_of_a_half_is_scored_on_the_other():
    images = [image("a", annotation(boxes=TARGET)), image("b", annotation(boxes=shifted(5.0)), annotation(1))]
    boxes = annotated_boxes(images)
    fixed = cross_tuned(boxes, boxes.images == "a").fixed_box
    assert fixed.best == pytest.approx([1 / 3, 1 / 3, 0])  # the other half has no box of the second finding
    assert fixed.count.tolist() == [1, 1, 0]
    assert fixed.boxes_predicted_per_finding.tolist() == [1, 0]


def test_the_protocol_scores_the_committed_split_both_ways_too():
    images = random_images(40, 0, 0.5)
    tuning = {record.patient for record in images[:8]}
    result = patient_protocol(images, 1, tuning_patients=tuning)
    scored = np.isin(result.boxes.patients, list(tuning), invert=True)
    np.testing.assert_array_equal(result.crossed.iou.best[scored], result.named.iou.best)
    np.testing.assert_array_equal(result.crossed.fixed_box.best[scored], result.named.fixed_box.best)
    assert len(result.crossed.iou.best) == len(result.boxes.images) > scored.sum()


def test_a_patient_in_both_halves_is_refused():
    boxes = annotated_boxes([image("a", annotation(), patient="p"), image("b", annotation(), patient="p")])
    with pytest.raises(ValueError, match="`first` must split by patient, got 1 patients in both halves"):
        cross_tuned(boxes, np.array([True, False]))
    with pytest.raises(ValueError, match=r"`first` must be \(2,\), got \(1,\)"):
        cross_tuned(boxes, np.array([True]))


def test_claritys_protocol_halves_images():
    result = clarity_protocol(random_images(80, 0, 0.5))
    assert len(result.iou.images) == 40
    assert len(set(result.iou.patients)) > 20  # patients with one image on each side


def test_a_map_that_marks_its_boxes_is_found_by_every_protocol():
    letterbox = Letterbox.fit((160, 160), (160, 160))
    images = []
    for number in range(12):
        grid = np.zeros((10, 10))
        row, column = number % 5 + 1, number // 2 + 1
        grid[row : row + 3, column : column + 3] = 1
        box = np.array([[column, row, column + 3, row + 3]]) * 16.0
        images.append(image(str(number), measure_map(grid, letterbox, box, 0.5, finding=number % 2), size=(160, 160)))
    result = patient_protocol(images, repeats=2)
    for half in (result.named, *result.repeats):
        assert half.iou.found((0.9,)).macro.tolist() == [1]
        assert half.iou.boxes_predicted == 1
        assert half.fixed_box.found((0.9,)).macro[0] < 0.6
    assert pointing_game(images).macro == 1
    assert max_box_acc(images).pooled == max_box_acc_v2(images).pooled == 1
    assert ham_mask_iou(images).macro > 0.9
    assert wang_protocol(images).iou.found((0.5,)).macro.tolist() == [1]


@pytest.fixture(scope="module")
def release_images(nih_folder):
    """Images of the NIH box list without maps."""
    path = nih_folder / "full-release-metadata" / "BBox_List_2017.csv.gz"
    if not path.is_file():
        pytest.skip("the whole release's box list is not here")
    found = {}
    with gzip.open(path, "rt") as file:
        for row in list(csv.reader(file))[1:]:
            x, y, width, height = map(float, row[2:6])
            box = np.array([[x, y, x + width, y + height]])
            found.setdefault(row[0], []).append(annotation(FINDINGS.index(canonical_finding(row[1])), boxes=box))
    zeros = np.zeros(len(FINDINGS))
    return [
        image(name, *parts, patient=name[:8], scores=zeros, labels=zeros, size=(BOX_FRAME, BOX_FRAME))
        for name, parts in found.items()
    ]


@pytest.fixture(scope="module")
def twenty_splits(release_images):
    """[`patient_protocol`] of 20 splits, score thresholds given because there are no scores."""
    protocol = patient_protocol(release_images, repeats=19, score_thresholds=np.zeros(14))
    return [protocol.named, *protocol.repeats]


def test_the_release_has_984_boxes_of_726_patients(release_images):
    table = annotated_boxes(release_images)
    assert (len(table.images), len(release_images), len(set(table.patients))) == (984, 880, 726)
    assert np.bincount(table.findings)[:8].tolist() == [180, 146, 153, 123, 85, 79, 120, 98]
    assert FINDINGS[:8] == BOXED_FINDINGS


def test_the_seed_of_the_named_split_draws_the_committed_list(release_images):
    tuning, _ = halves(record.patient for record in release_images)
    assert tuning == named_split("nih-boxes-tuning-0")


def test_the_fixed_box_reaches_its_published_figures(twenty_splits):
    found = [split.fixed_box.found((0.1, 0.3, 0.5, 0.7)) for split in twenty_splits]
    macro, shares = (np.stack([getattr(one, name) for one in found]) for name in ("macro", "shares"))
    published = [0.475, 0.246, 0.150]
    assert (np.abs(macro.mean(axis=0)[:3] - published) < macro.std(axis=0, ddof=1)[:3]).all()
    table = [
        [0.33, 1.0, 0.41, 0.66, 0.26, 0.05, 0.68, 0.36],
        [0.09, 1.0, 0.19, 0.29, 0.05, 0.00, 0.21, 0.19],
        [0.03, 0.85, 0.08, 0.09, 0.00, 0.00, 0.07, 0.07],
        [0.01, 0.32, 0.01, 0.02, 0.00, 0.00, 0.01, 0.00],
    ]
    # The table is of 20 other random splits.
    np.testing.assert_allclose(shares.mean(axis=0)[:8].T, table, atol=0.07)
    assert np.isnan(shares[:, 8:]).all()
    assert twenty_splits[0].fixed_box.boxes_predicted == 1


def test_the_mean_box_is_a_worse_guess(release_images, twenty_splits):
    table = annotated_boxes(release_images)
    figures = []
    for split in twenty_splits:
        chosen = table.of_images(set(table.images) - set(split.iou.images))
        means = np.full((14, 4), np.nan)
        for finding in range(8):
            means[finding] = chosen.boxes[chosen.findings == finding].mean(axis=0)
        figures.append(table.of_images(set(split.iou.images)).with_fixed_boxes(means).found((0.1, 0.3, 0.5)).macro)
    np.testing.assert_allclose(np.mean(figures, axis=0), [0.30, 0.15, 0.11], atol=0.01)
