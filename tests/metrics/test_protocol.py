# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Protocols on records made by hand, and the constant box on the real list of boxes."""

import csv
import gzip
from dataclasses import replace

import numpy as np
import pytest

from clarity_hf.boxes import Letterbox, box_iou
from clarity_hf.data.named_splits import named_split
from clarity_hf.data.nih import BOX_FRAME
from clarity_hf.labels import BOXED_FINDINGS, FINDINGS, canonical_finding
from clarity_hf.metrics.localization import measure_map
from clarity_hf.metrics.protocol import (
    annotated_boxes,
    boxed,
    chexlocalize_miou,
    clarity_protocol,
    cross_tuned,
    halves,
    halves_by_image,
    halves_by_patient,
    ham_mask_iou,
    localization_difference,
    localization_intervals,
    max_box_acc,
    max_box_acc_v2,
    over_repeats,
    patient_protocol,
    pointing_game,
    score_thresholds_of,
    split_by_patients,
    t_iobb,
    t_iou,
    threshold_columns,
    tune_and_score,
    tune_thresholds,
    wang_protocol,
)
from clarity_hf.metrics.records import (
    MAP_THRESHOLDS,
    MAX_BOX_THRESHOLDS,
    AnnotationRecord,
    ImageRecord,
    from_json,
    to_json,
)

NONE = np.zeros((0, 4))
TARGET = np.array([[0.0, 0, 10, 10]])
FAR = np.array([[60.0, 60, 70, 70]])
T = len(MAP_THRESHOLDS)
HALF = MAP_THRESHOLDS.index(0.5)


def shifted(x):
    """A 10 × 10 box x pixels to the right: IoU (10 − x) / (10 + x) with `TARGET`."""
    return np.array([[x, 0.0, 10 + x, 10]])


def annotation(finding=0, regions=NONE, boxes=TARGET, own=NONE, ious=0.0, hit=False, wang=(NONE, NONE)):
    """`regions` at every threshold, or one array per threshold."""
    regions = (regions,) * T if isinstance(regions, np.ndarray) else tuple(regions)
    ious = np.full(T, ious) if np.ndim(ious) == 0 else np.array(ious)
    nearest = [regions[int(np.abs(np.array(MAP_THRESHOLDS) - one).argmin())] for one in MAX_BOX_THRESHOLDS]
    overlaps = [box_iou(drawn, boxes).max(axis=1, initial=0.0) for drawn in nearest]
    best = np.array([[one[:1].max(initial=0.0), one.max(initial=0.0)] for one in overlaps]).T
    return AnnotationRecord(finding, boxes, own, regions, ious, hit, wang, best)


def image(name, *annotations, patient=None, scores=(0.5, 0.5), labels=(1, 0), size=(100, 100)):
    values = [np.array(numbers, dtype=np.float64) for numbers in (labels, scores, scores)]
    return ImageRecord(name, patient or name, size, *values, (), annotations)


def at(threshold, boxes, otherwise=NONE):
    """Regions that are `boxes` at one threshold."""
    return [boxes if one == threshold else otherwise for one in MAP_THRESHOLDS]


# Halves


def test_halves_are_disjoint_whole_and_the_same_for_every_order():
    names = [f"{number:08d}" for number in range(101)]
    tuning, scoring = halves(names, 3)
    assert tuning | scoring == set(names)
    assert not tuning & scoring
    assert {len(tuning), len(scoring)} == {50, 51}
    assert halves(names[::-1] + names[:5], 3) == (tuning, scoring)
    assert halves(names, 4) != (tuning, scoring)


def some_images():
    images = [
        image(f"{patient}-{number}", annotation(), patient=str(patient)) for patient in range(20) for number in (0, 1)
    ]
    return images + [image(f"normal-{number}", patient=f"n{number}") for number in range(5)]


def test_no_patient_is_tuned_on_and_scored():
    tuning, scoring = halves_by_patient(some_images())
    assert not {record.patient for record in tuning} & {record.patient for record in scoring}
    assert len(boxed(tuning)) == len(boxed(scoring)) == len(scoring) == 20
    assert {record.patient for record in scoring} == halves(map(str, range(20)))[1]
    assert len(tuning) == 25  # patients without boxes tune score thresholds


def test_a_normal_image_of_a_scored_patient_is_not_tuned_on():
    normal = [image(f"{patient}-normal", patient=str(patient)) for patient in range(20)]
    tuning, scoring = halves_by_patient(some_images() + normal)
    assert not {record.patient for record in tuning} & {record.patient for record in boxed(scoring)}


def test_images_are_halved_with_patients_on_both_sides():
    tuning, scoring = halves_by_image(some_images())
    assert not {record.name for record in tuning} & {record.name for record in scoring}
    assert {record.patient for record in boxed(tuning)} & {record.patient for record in scoring}
    assert len(boxed(tuning)) == len(scoring) == 20


def test_a_filed_list_says_who_is_tuned_on():
    tuning, scoring = split_by_patients(some_images(), {"3", "4", "unknown"})
    assert {record.patient for record in boxed(tuning)} == {"3", "4"}
    assert len(scoring) == 36
    with pytest.raises(ValueError, match="`tuning_patients` must name patients of the 20 with boxes, got 1 others"):
        split_by_patients(some_images(), {"unknown"})
    with pytest.raises(ValueError, match="`tuning_patients` must leave patients with boxes to score, got all 20"):
        split_by_patients(some_images(), set(map(str, range(20))))


# T(IoU) and T(IoBB)


def test_the_highest_mean_iou_chooses_each_findings_threshold():
    # Finding 0: mean IoU at .3 (1 + 0) / 2, at .6 (2/3 + 2/3) / 2, though .3 finds as many above .5.
    images = [
        image("a", annotation(0, [*at(0.3, TARGET, shifted(2))]), annotation(1, at(0.95, TARGET))),
        image("b", annotation(0, at(0.6, shifted(2)))),
    ]
    assert tune_thresholds(images).tolist() == [0.6, 0.95]
    assert tune_thresholds(images[1:]).tolist() == [0.6, 0.5]  # nothing to tune the second on
    assert tune_thresholds([], num_findings=3).tolist() == [0.5] * 3


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


def test_any_region_may_match_unless_the_largest_is_asked_for():
    images = [image("a", annotation(0, np.vstack([FAR, TARGET])))]
    assert t_iou(images, [0.5, 0.5], levels=(0.5,)).macro.tolist() == [1]
    assert t_iou(images, [0.5, 0.5], components="largest", levels=(0.5,)).macro.tolist() == [0]
    assert annotated_boxes(images).drawn([0.5, 0.5]).boxes_drawn == 2
    assert annotated_boxes(images, "largest").drawn([0.5, 0.5]).boxes_drawn == 1


def test_the_methods_own_boxes_need_no_threshold():
    images = [image("a", annotation(0, FAR, own=shifted(2)))]
    assert t_iou(images, levels=(0.6, 0.7)).macro.tolist() == [1, 0]
    assert t_iobb(images, levels=(0.75, 0.85)).macro.tolist() == [1, 0]  # 8 of 10 columns


def test_the_gate_draws_nothing_below_the_score_threshold():
    images = [
        image("a", annotation(0, TARGET), scores=(0.4, 0.9)),
        image("b", annotation(0, TARGET), scores=(0.6, 0.1)),
        image("c", annotation(1, TARGET), scores=(0.1, 0.5)),
    ]
    gated = annotated_boxes(images).drawn([0.5, 0.5], gate=[0.6, 0.5])
    assert gated.best.tolist() == [0, 1, 1]  # a score at its threshold is shown
    assert gated.boxes_drawn == pytest.approx(2 / 3)
    assert t_iou(images, [0.5, 0.5], gate=[0.6, 0.5], levels=(0.5,)).shares[:, 0].tolist() == [0.5, 1]


def test_intersection_over_the_drawn_box_at_given_thresholds():
    images = [image("a", annotation(0, np.array([[0.0, 0, 2, 2]]))), image("b", annotation(0, shifted(6)))]
    found = t_iobb(images, [0.5, 0.5])
    assert found.levels == (0.1, 0.25, 0.5)
    assert found.macro.tolist() == [1, 1, 0.5]
    assert t_iou(images, [0.5, 0.5], levels=(0.1,)).macro.tolist() == [0.5]  # .04 and .25


def test_boxes_drawn_are_counted_once_a_map():
    images = [
        image("a", annotation(0, np.vstack([TARGET, FAR, FAR]), boxes=np.vstack([TARGET, FAR]))),
        image("b", annotation(0, NONE)),
    ]
    assert annotated_boxes(images).drawn([0.5, 0.5]).boxes_drawn == 1.5


def test_images_without_boxes_leave_all_undefined():
    found = t_iou([image("a")], [0.5, 0.5], levels=(0.5,))
    assert found.counts.tolist() == [0, 0]
    assert np.isnan([*found.shares[:, 0], *found.macro, *found.pooled]).all()
    assert np.isnan(annotated_boxes([image("a")]).drawn().boxes_drawn)


def test_a_record_read_back_scores_the_same():
    images = [image("a", annotation(0, at(0.3, shifted(2), FAR)), annotation(1, shifted(5), own=FAR))]
    back = [from_json(to_json(record)) for record in images]
    np.testing.assert_array_equal(t_iou(back, [0.3, 0.5]).shares, t_iou(images, [0.3, 0.5]).shares)


# Refusals


def test_thresholds_that_records_do_not_hold_are_refused():
    assert threshold_columns([0.05, 0.30000000001], 2).tolist() == [0, 5]
    with pytest.raises(ValueError, match=r"`thresholds` must be of the 19 of MAP_THRESHOLDS.* got 0.33. Records"):
        t_iou([image("a")], [0.5, 0.33])
    with pytest.raises(ValueError, match=r"`thresholds` must be \(2,\), got \(3,\). Give one per finding"):
        t_iou([image("a")], [0.5] * 3)
    with pytest.raises(ValueError, match=r"`gate` must be \(2,\), got \(1,\)"):
        t_iou([image("a")], gate=[0.5])


def test_records_must_agree_on_the_findings():
    with pytest.raises(ValueError, match="`records` must be of images with one number of findings, got no images"):
        t_iou([])
    with pytest.raises(ValueError, match=r"got \[2, 3\]. Evaluate them by one method"):
        t_iou([image("a"), image("b", scores=(0, 0, 0))])


def test_unknown_words_are_refused():
    with pytest.raises(ValueError, match="`components` must be 'largest' or 'all', got 'best'"):
        annotated_boxes([image("a")], "best")
    with pytest.raises(ValueError, match="`measure` must be 'iou' or 'iobb', got 'giou'"):
        annotated_boxes([image("a")]).drawn(measure="giou")


# The other protocols


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
    result = ham_mask_iou(images, 0.6, levels=(0.5,))
    np.testing.assert_allclose(result.means, [0.4, 0.9])
    assert result.macro == pytest.approx(0.65)
    assert result.found.shares[:, 0].tolist() == [0.5, 1]
    assert result.found.counts.tolist() == [2, 1]


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
    assert result.false_boxes.tolist() == [[1, 2], [0, 0]]
    assert result.false_boxes_iobb.tolist() == [[2], [0]]  # all but the small one
    assert result.iou.boxes_drawn == pytest.approx(5 / 3)


def test_a_box_that_meets_one_of_two_annotated_boxes_is_not_false():
    images = [image("a", annotation(0, boxes=np.vstack([TARGET, FAR]), wang=(NONE, TARGET)))]
    result = wang_protocol(images, levels=(0.5,), iobb_levels=(0.5,))
    assert result.false_boxes[0].tolist() == result.false_boxes_iobb[0].tolist() == [0]
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
    assert score_thresholds_of(tuning).tolist() == [0.6, 0.5]
    scoring = [image("a", annotation(0, TARGET, ious=0.4), scores=(0.59, 0.5))]
    assert chexlocalize_miou(tuning, scoring, repeats=10).counts.tolist() == [0, 0]
    assert chexlocalize_miou(tuning, scoring, cutoffs=[0.5, 0.5], repeats=10).counts.tolist() == [1, 0]


def test_segmentation_of_nothing_is_undefined():
    result = chexlocalize_miou([image("t")], [image("a")], repeats=10)
    assert np.isnan([result.macro, *result.miou, *result.intervals.low]).all()


# Halves, tuned and scored


def test_what_is_tuned_on_one_half_is_scored_on_the_other():
    tuning = [image("t", annotation(0, at(0.3, TARGET)), scores=(0.8, 0)), image("n", scores=(0.2, 0), labels=(0, 0))]
    scoring = [
        image("a", annotation(0, at(0.3, shifted(2), FAR)), scores=(0.8, 0)),
        image("b", annotation(0, at(0.6, TARGET)), annotation(1, TARGET), scores=(0.7, 0)),
    ]
    result = tune_and_score(tuning, scoring)
    assert result.thresholds.tolist() == [0.3, 0.5]
    assert result.score_thresholds.tolist() == [0.8, 0.5]
    np.testing.assert_allclose(result.iou.best, [2 / 3, 0, 1])
    np.testing.assert_allclose(result.iobb.best, [0.8, 0, 1])
    np.testing.assert_allclose(result.gated.best, [2 / 3, 0, 0])
    assert result.constant.best.tolist() == [1, 1, 0]  # the second finding has no box to learn from
    assert result.constant.boxes_drawn == pytest.approx(2 / 3)
    given = tune_and_score(tuning, scoring, score_thresholds=[0.5, 0.0])
    np.testing.assert_allclose(given.gated.best, given.iou.best)


def test_the_constant_box_fits_images_of_any_size():
    tuning = [image("t", annotation(0, NONE))]
    scoring = [image("a", annotation(0, NONE, boxes=TARGET * [3, 2, 3, 2]), size=(200, 300))]
    assert tune_and_score(tuning, scoring).constant.best.tolist() == [1]


def random_images(count, seed, quality):
    """Images of two findings, two a patient; a share `quality` of their boxes is drawn right."""
    generator = np.random.default_rng(seed)
    return [
        image(
            f"{number:04d}",
            annotation(number % 2, TARGET if generator.uniform() < quality else FAR),
            patient=f"{number // 2:04d}",
            scores=generator.uniform(size=2),
            labels=generator.uniform(size=2) < 0.5,
        )
        for number in range(count)
    ]


def test_the_protocol_by_patient_repeats_its_split():
    images = random_images(80, 0, 0.5)
    result = patient_protocol(images, repeats=3)
    assert len(result.repeats) == 3
    assert len({tuple(one.iou.images) for one in (result.named, *result.repeats)}) == 4
    figures = [one.iou.found((0.5,)).macro[0] for one in result.repeats]
    mean = over_repeats([one.iou for one in result.repeats], (0.5,))
    assert mean.macro[0] == pytest.approx(np.mean(figures))
    assert mean.macro_deviation[0] == pytest.approx(np.std(figures, ddof=1))
    assert mean.shares.shape == mean.shares_deviation.shape == (2, 1)
    with pytest.raises(ValueError, match="`repeats` must be at least two, got 1"):
        over_repeats([result.named.iou])


def test_a_filed_list_replaces_the_named_split_alone():
    images = random_images(40, 0, 0.5)
    tuning = {record.patient for record in images[:8]}
    filed, drawn = (patient_protocol(images, 1, tuning_patients=list_) for list_ in (tuning, None))
    assert set(filed.named.iou.patients) == {record.patient for record in images[8:]}
    np.testing.assert_array_equal(filed.repeats[0].iou.images, drawn.repeats[0].iou.images)


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
    assert crossed.iou.boxes_drawn == pytest.approx(7 / 5)
    assert crossed.iou.images.tolist() == ["b0", "b1", "a0", "a1", "a2"]


def test_both_ways_the_constant_box_of_a_half_is_scored_on_the_other():
    images = [image("a", annotation(boxes=TARGET)), image("b", annotation(boxes=shifted(5.0)), annotation(1))]
    boxes = annotated_boxes(images)
    constant = cross_tuned(boxes, boxes.images == "a").constant
    assert constant.best == pytest.approx([1 / 3, 1 / 3, 0])  # the other half has no box of the second finding
    assert constant.count.tolist() == [1, 1, 0]
    assert constant.boxes_drawn_per_finding.tolist() == [1, 0]


def test_the_protocol_scores_the_filed_split_both_ways_too():
    images = random_images(40, 0, 0.5)
    tuning = {record.patient for record in images[:8]}
    result = patient_protocol(images, 1, tuning_patients=tuning)
    scored = np.isin(result.boxes.patients, list(tuning), invert=True)
    np.testing.assert_array_equal(result.crossed.iou.best[scored], result.named.iou.best)
    np.testing.assert_array_equal(result.crossed.constant.best[scored], result.named.constant.best)
    assert len(result.crossed.iou.best) == len(result.boxes.images) > scored.sum()


def test_a_patient_in_both_halves_is_refused():
    boxes = annotated_boxes([image("a", annotation(), patient="p"), image("b", annotation(), patient="p")])
    with pytest.raises(ValueError, match="`first` must halve by patient, got 1 patients in both halves"):
        cross_tuned(boxes, np.array([True, False]))
    with pytest.raises(ValueError, match=r"`first` must be \(2,\), got \(1,\)"):
        cross_tuned(boxes, np.array([True]))


def test_claritys_protocol_halves_images():
    result = clarity_protocol(random_images(80, 0, 0.5))
    assert len(result.iou.images) == 40
    assert len(set(result.iou.patients)) > 20  # patients with one image on each side


# Intervals


def test_an_interval_holds_its_figure_and_narrows_with_patients():
    few, many = (annotated_boxes(random_images(count, 1, 0.6)).drawn([0.5, 0.5]) for count in (40, 400))
    narrow, wide = (localization_intervals(one, (0.5,), repeats=200) for one in (many, few))
    for one, interval in ((many, narrow), (few, wide)):
        found = one.found((0.5,))
        assert interval.macro.low[0] < found.macro[0] < interval.macro.high[0]
        assert interval.pooled.low[0] < found.pooled[0] < interval.pooled.high[0]
        assert (interval.shares.low < found.shares).all()
        assert interval.shares.low.shape == (2, 1)
    assert narrow.macro.high[0] - narrow.macro.low[0] < 0.6 * (wide.macro.high[0] - wide.macro.low[0])
    # 400 boxes of which .6 are found: ± 1.96 · √(.24 / 400), were patients alone.
    assert narrow.macro.high[0] - narrow.macro.low[0] == pytest.approx(2 * 1.96 * np.sqrt(0.24 / 400), rel=0.3)


def test_a_method_that_adds_to_another_is_clearly_above_it():
    images = random_images(120, 1, 0.4)
    # Every fifth image is mended: less than the width of an interval, yet never worse.
    better = [
        replace(image_, annotations=(annotation(image_.annotations[0].finding, TARGET),))
        if number % 5 == 0
        else image_
        for number, image_ in enumerate(images)
    ]
    first, second = (annotated_boxes(records).drawn([0.5, 0.5]) for records in (better, images))
    alone = [localization_intervals(one, (0.5,), repeats=200).macro for one in (first, second)]
    assert alone[0].low[0] < alone[1].high[0]
    difference = localization_difference(first, second, (0.5,), repeats=200)
    assert difference.clearly_above.tolist() == [True]
    gained = first.found((0.5,)).macro[0] - second.found((0.5,)).macro[0]
    assert difference.macro.low[0] < gained < difference.macro.high[0]
    assert localization_difference(second, first, (0.5,), repeats=200).clearly_above.tolist() == [False]
    assert localization_difference(first, first, (0.5,), repeats=20).macro.low[0] == 0


def test_only_the_same_boxes_are_compared():
    first, second = (annotated_boxes(random_images(count, 1, 0.4)).drawn() for count in (20, 22))
    with pytest.raises(ValueError, match="`other` must be of the same annotated boxes as `overlaps`, got 22 boxes"):
        localization_difference(first, second)


def test_intervals_of_nothing_are_undefined():
    nothing = annotated_boxes([image("a")]).drawn()
    for interval in (localization_intervals(nothing, (0.5,)), localization_difference(nothing, nothing, (0.5,))):
        assert np.isnan([*interval.macro.low, *interval.pooled.high, *interval.shares.low[:, 0]]).all()
        assert interval.clearly_above.tolist() == [False]


# From maps to figures


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
        assert half.iou.boxes_drawn == 1
        assert half.constant.found((0.9,)).macro[0] < 0.6
    assert pointing_game(images).macro == 1
    assert max_box_acc(images).pooled == max_box_acc_v2(images).pooled == 1
    assert ham_mask_iou(images).macro > 0.9
    assert wang_protocol(images).iou.found((0.5,)).macro.tolist() == [1]


# The list of boxes of the release


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


def test_the_seed_of_the_named_split_draws_the_list_that_is_filed(release_images):
    tuning, _ = halves(record.patient for record in release_images)
    assert tuning == named_split("nih-boxes-tuning-0")


def test_the_constant_box_reaches_its_published_figures(twenty_splits):
    constant = over_repeats([split.constant for split in twenty_splits], (0.1, 0.3, 0.5, 0.7))
    for column, published in ((0, 0.475), (1, 0.246), (2, 0.150)):
        assert abs(constant.macro[column] - published) < constant.macro_deviation[column]
    table = [
        [0.33, 1.0, 0.41, 0.66, 0.26, 0.05, 0.68, 0.36],
        [0.09, 1.0, 0.19, 0.29, 0.05, 0.00, 0.21, 0.19],
        [0.03, 0.85, 0.08, 0.09, 0.00, 0.00, 0.07, 0.07],
        [0.01, 0.32, 0.01, 0.02, 0.00, 0.00, 0.01, 0.00],
    ]
    # The table is of 20 other draws.
    np.testing.assert_allclose(constant.shares[:8].T, table, atol=0.07)
    assert np.isnan(constant.shares[8:]).all()
    assert twenty_splits[0].constant.boxes_drawn == 1


def test_the_mean_box_is_a_worse_guess(release_images, twenty_splits):
    table = annotated_boxes(release_images)
    figures = []
    for split in twenty_splits:
        chosen = table.of_images(set(table.images) - set(split.iou.images))
        means = np.full((14, 4), np.nan)
        for finding in range(8):
            means[finding] = chosen.boxes[chosen.findings == finding].mean(axis=0)
        figures.append(table.of_images(set(split.iou.images)).constant(means).found((0.1, 0.3, 0.5)).macro)
    np.testing.assert_allclose(np.mean(figures, axis=0), [0.30, 0.15, 0.11], atol=0.01)
