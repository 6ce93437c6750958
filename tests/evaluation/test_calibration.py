# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Slopes, intercepts and thresholds from validation images, kept in the config, and what they are worth elsewhere."""

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.special import expit, logit

from clarity_hf import ClarityConfig
from clarity_hf.evaluation.calibration import (
    SLOPE_BOUNDS,
    box_score_thresholds,
    calibrate,
    cross_fitted,
    fit_platt,
)
from clarity_hf.metrics.classification import (
    auroc_per_finding,
    calibration_error_per_finding,
    operating_points,
)
from clarity_hf.metrics.records import MAP_THRESHOLDS, AnnotationRecord, ImageRecord
from clarity_hf.metrics.splits import halves

BADLY_SCALED = ((0.2, -2.0), (5.0, 3.0), (1.0, -3.0))
TRUTH = np.array([[10.0, 10.0, 50.0, 50.0]])
POOR = np.array([[10.0, 10.0, 20.0, 20.0]])


def record(index, labels, scores, best_at=None):
    """An image whose map of finding 0, where it is annotated, meets its box only at one threshold."""
    annotations = ()
    if best_at is not None:
        regions = tuple(TRUTH if threshold == best_at else POOR for threshold in MAP_THRESHOLDS)
        annotations = (AnnotationRecord(0, TRUTH, POOR, regions, np.zeros(len(MAP_THRESHOLDS)), True, (POOR, POOR)),)
    labels, scores = np.array(labels, dtype=float), np.array(scores, dtype=float)
    return ImageRecord(f"f{index}", f"p{index}", (100, 100), labels, scores, np.ones(3), annotations=annotations)


def column(*values):
    return np.array(values, dtype=float)[:, None]


def drawn(slope, intercept, count, seed=0):
    """Logits `(count, 1)` and labels of which each is present with probability σ(slope · logit + intercept)."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0.3, 1.5, (count, 1))
    return logits, (rng.random((count, 1)) < expit(slope * logits + intercept)).astype(float)


# Platt's scaling


@pytest.mark.parametrize(("slope", "intercept"), [(0.4, -1.5), (1.0, 0.0), (3.0, 2.0)])
def test_slope_and_intercept_of_simulated_labels_are_recovered(slope, intercept):
    slopes, intercepts = fit_platt(*drawn(slope, intercept, 40_000))
    assert slopes == pytest.approx([slope], abs=0.06)
    assert intercepts == pytest.approx([intercept], abs=0.06)


def test_two_clusters_get_the_targets_of_platt():
    # 3 images with the finding at logit 2, target 4/5, and 8 without at −1, target 1/10: both are met exactly, by
    # 2a + b = log 4 and −a + b = −log 9. Without the targets a would be infinite.
    slopes, intercepts = fit_platt(column(*[2] * 3, *[-1] * 8), column(*[1] * 3, *[0] * 8), min_positives=3)
    assert slopes == pytest.approx([math.log(36) / 3], rel=1e-5)
    assert intercepts == pytest.approx([math.log(4) - 2 * math.log(36) / 3], abs=1e-5)


def test_the_scale_of_the_logits_does_not_matter():
    logits, labels = drawn(1.3, -0.4, 300)
    slopes, intercepts = fit_platt(logits, labels)
    for scale, shift in ((1e-4, 0), (1e4, 0), (2, 500)):
        others = fit_platt(scale * logits + shift, labels)
        np.testing.assert_allclose(others[0] * scale, slopes, rtol=1e-5)
        np.testing.assert_allclose(others[0] * shift + others[1], intercepts, atol=1e-4)


def test_the_order_of_the_images_stays_and_the_calibration_error_falls():
    logits, labels = (np.hstack(parts) for parts in zip(*(drawn(a, b, 2000) for a, b in BADLY_SCALED), strict=True))
    slopes, intercepts = fit_platt(logits, labels)
    scores = expit(slopes * logits + intercepts)
    np.testing.assert_array_equal(auroc_per_finding(scores, labels), auroc_per_finding(logits, labels))
    before, after = (calibration_error_per_finding(values, labels) for values in (expit(logits), scores))
    assert (before > 0.1).all()
    assert (after < 0.04).all()


def test_a_finding_ranked_below_chance_gets_a_small_positive_slope():
    logits, labels = drawn(-1.0, 0.5, 500)
    slopes, intercepts = fit_platt(logits, labels)
    assert slopes[0] * logits.std() == pytest.approx(SLOPE_BOUNDS[0])
    scores = expit(slopes * logits + intercepts)
    np.testing.assert_allclose(scores, labels.mean(), atol=0.02)  # ± .01 · three deviations, at p(1 − p) ≤ 1/4
    np.testing.assert_array_equal(auroc_per_finding(scores, labels), auroc_per_finding(logits, labels))


def test_equal_logits_give_the_share_of_positives():
    slopes, intercepts = fit_platt(column(*[7.0] * 20), column(*[1] * 10, *[0] * 10))
    assert slopes[0] > 0
    assert expit(slopes * 7 + intercepts) == pytest.approx([0.5])


@pytest.mark.parametrize("seed", range(5))
def test_few_images_of_any_kind_have_a_fit(seed):
    rng = np.random.default_rng(seed)
    labels = (np.arange(60)[:, None] < rng.integers(5, 55, 30)).astype(float)
    logits = rng.normal(0, 10.0 ** rng.integers(-3, 3, 30), (60, 30)) + rng.choice([-5, 0, 0.1, 20], 30) * labels
    slopes, intercepts = fit_platt(logits, labels)
    assert (slopes > 0).all()
    assert np.isfinite(slopes).all()
    assert np.isfinite(intercepts).all()


def test_images_without_an_annotation_are_left_out():
    logits, labels = drawn(0.8, -0.3, 200)
    known = np.arange(200) % 3 > 0
    some = np.where(known[:, None], labels, np.nan)
    np.testing.assert_array_equal(fit_platt(logits, some), fit_platt(logits[known], labels[known]))


def test_findings_with_too_few_images_keep_what_they_have():
    logits = np.tile(np.linspace(-2, 2, 12)[:, None], 3)
    labels = np.stack([np.arange(12) >= 6, np.arange(12) >= 8, np.arange(12) >= 4], axis=1).astype(float)
    np.testing.assert_array_equal(np.array(fit_platt(logits, labels, 5))[:, 1:], [[1, 1], [0, 0]])
    slopes, intercepts = fit_platt(logits, labels, 5, slopes=[9, 2, 3], intercepts=[9, -1, 0.5])
    assert slopes[1:].tolist() == [2, 3]
    assert intercepts[1:].tolist() == [-1, 0.5]
    assert slopes[0] != 9


@pytest.mark.parametrize(
    ("logits", "options", "message"),
    [
        (column(*[np.inf] * 12), {}, "must be finite"),
        (column(*[0] * 11), {}, "must both be \\(n, F\\)"),
        (column(*range(12)), {"slopes": [1, 1]}, r"`slopes` must be \(1,\), got \(2,\)"),
        (column(*range(12)), {"intercepts": 0.0}, r"`intercepts` must be \(1,\), got \(\)"),
    ],
)
def test_what_cannot_be_fitted_is_refused(logits, options, message):
    with pytest.raises(ValueError, match=message):
        fit_platt(logits, column(*[1] * 6, *[0] * 6), **options)


# Into the config


@pytest.fixture
def config():
    return ClarityConfig(
        id2label=dict(enumerate(["A", "B", "C"])),
        score_thresholds=[0.5, 0.6, 0.7],
        map_thresholds=[0.1, 0.2, 0.3],
        box_components="largest",
    )


def images(boxed_at=0.35):
    """Finding 0 is present in the last six of twelve images, whose scores are the highest; B in one; C is unknown."""
    rows = []
    for i in range(12):
        present = i >= 6
        scores = [0.05 + 0.05 * i, 0.5, 0.5]
        rows.append(record(i, [present, i == 3, np.nan], scores, boxed_at if present else None))
    return rows


def test_thresholds_go_into_the_config_and_rare_findings_keep_theirs(config):
    found = calibrate(config, images(), min_boxes=6)
    # Between the lowest score of an image with A, .35, and the highest of one without, .30, calibrated.
    slope, intercept = config.score_slopes[0], config.score_intercepts[0]
    assert config.score_thresholds == pytest.approx(
        [expit(slope * logit([0.35, 0.30]) + intercept).mean(), 0.6, 0.7], abs=1e-12
    )
    assert found.kept_scores == (1, 2)
    assert found.positives.tolist() == [6, 1, 0]
    assert config.map_thresholds == pytest.approx([0.35, 0.35, 0.35])  # B and C have what is best over all boxes
    assert found.pooled_maps == (1, 2)
    assert found.kept_maps == ()
    assert found.boxes.tolist() == [6, 0, 0]


def test_slopes_and_intercepts_go_into_the_config_where_there_are_images_to_fit_them(config):
    config.score_slopes, config.score_intercepts = [1.0, 0.5, 2.0], [0.0, -1.0, 1.0]
    rows = images()
    found = calibrate(config, rows)
    logits = logit(np.array([[row.scores[0]] for row in rows]))
    slopes, intercepts = fit_platt(logits, np.array([[row.labels[0]] for row in rows]))
    assert config.score_slopes == pytest.approx([slopes[0], 0.5, 2.0])
    assert config.score_intercepts == pytest.approx([intercepts[0], -1.0, 1.0])
    assert found.score_slopes.tolist() == config.score_slopes
    assert found.score_intercepts.tolist() == config.score_intercepts


def test_a_calibration_that_the_records_have_is_undone(config):
    plain, calibrated = copy.deepcopy(config), copy.deepcopy(config)
    calibrated.score_slopes, calibrated.score_intercepts = [0.3, 4.0, 1.0], [-2.0, 1.0, 0.5]
    rows = images()
    slopes, intercepts = np.array(calibrated.score_slopes), np.array(calibrated.score_intercepts)
    seen = [replace(row, scores=expit(slopes * logit(row.scores) + intercepts)) for row in rows]
    calibrate(plain, rows)
    calibrate(calibrated, seen)
    for name in ("score_slopes", "score_intercepts", "score_thresholds"):
        assert getattr(calibrated, name)[0] == pytest.approx(getattr(plain, name)[0], abs=1e-5)


def test_a_threshold_that_is_kept_flags_the_images_that_it_flagged(config):
    config.score_slopes, config.score_intercepts = [1.0, 3.0, 2.0], [0.0, -1.0, 1.0]
    rows = [replace(row, scores=np.array([row.scores[0], *[0.07 * i + 0.1] * 2])) for i, row in enumerate(images())]
    scores = np.stack([row.scores for row in rows])
    logits = (logit(scores) - config.score_intercepts) / config.score_slopes
    before = scores >= config.score_thresholds
    calibrate(config, rows)
    after = expit(logits * config.score_slopes + config.score_intercepts) >= config.score_thresholds
    np.testing.assert_array_equal(after[:, 1:], before[:, 1:])
    assert 0 < before[:, 1].sum() < len(rows)


def test_rare_findings_keep_their_map_thresholds_if_asked(config):
    found = calibrate(config, images(), min_boxes=6, rare="kept")
    assert config.map_thresholds == pytest.approx([0.35, 0.2, 0.3])
    assert found.kept_maps == (1, 2)
    assert found.pooled_maps == ()


def test_too_few_boxes_in_all_leave_every_map_threshold(config):
    found = calibrate(config, images(), min_boxes=7)
    assert config.map_thresholds == [0.1, 0.2, 0.3]
    assert (found.pooled_maps, found.kept_maps) == ((), (0, 1, 2))


def test_thresholds_for_boxes_stay_at_the_same_logits(config):
    config.score_slopes, config.score_intercepts = [1.0, 3.0, 2.0], [0.0, -1.0, 1.0]
    config.box_score_thresholds = [0.5, 0.8, 0.9]
    rows = [replace(row, scores=np.array([row.scores[0], *[0.07 * i + 0.1] * 2])) for i, row in enumerate(images())]
    scores = np.stack([row.scores for row in rows])
    logits = (logit(scores) - config.score_intercepts) / config.score_slopes
    before = scores >= config.box_score_thresholds
    calibrate(config, rows)
    after = expit(logits * config.score_slopes + config.score_intercepts) >= config.box_score_thresholds
    np.testing.assert_array_equal(after, before)
    assert (np.array(config.box_score_thresholds) >= config.score_thresholds).all()
    assert 0 < before[:, 0].sum() < 6
    config.box_score_thresholds = None
    calibrate(config, rows)
    assert config.box_score_thresholds is None  # every present finding has its boxes


def test_thresholds_survive_saving(config, tmp_path):
    calibrate(config, images())
    config.save_pretrained(tmp_path)
    again = ClarityConfig.from_pretrained(tmp_path)
    assert again.per_finding("score_thresholds") == config.score_thresholds
    assert again.per_finding("map_thresholds") == config.map_thresholds
    assert again.per_finding("score_slopes") == config.score_slopes
    assert again.per_finding("score_intercepts") == config.score_intercepts


def test_without_boxes_every_map_threshold_is_kept(config):
    found = calibrate(config, images(boxed_at=None))
    assert config.map_thresholds == [0.1, 0.2, 0.3]
    assert found.kept_maps == (0, 1, 2)
    assert found.pooled_maps == ()


def test_a_target_sensitivity_lowers_the_threshold_until_it_is_reached(config):
    rows = images()
    rows[6] = record(6, [1, 0, np.nan], [0.07, 0.5, 0.5], 0.35)  # an image with A that scores low
    cuts = {}
    for rule in ("youden", "sensitivity", "f1"):
        chosen = copy.deepcopy(config)
        calibrate(chosen, rows, rule, sensitivity=1.0)
        cuts[rule] = expit((logit(chosen.score_thresholds[0]) - chosen.score_intercepts[0]) / chosen.score_slopes[0])
    assert 0.05 < cuts["sensitivity"] < 0.07
    assert 0.3 < cuts["youden"] < 0.4
    assert cuts["f1"] == pytest.approx(cuts["youden"])


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
            ImageRecord(
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
        ([], "youden", "`records` must be of images with the config's 3 findings, got no images"),
        (images(), "best", "`rule` must be 'youden', 'sensitivity' or 'f1', got 'best'"),
    ],
)
def test_what_gives_no_thresholds_is_refused(config, rows, rule, message):
    with pytest.raises(ValueError, match=message):
        calibrate(config, rows, rule)


def test_an_unknown_way_with_rare_findings_is_refused(config):
    with pytest.raises(ValueError, match="`rare` must be 'pooled' or 'kept', got 'none'"):
        calibrate(config, images(), rare="none")


def test_records_of_another_model_are_refused(config):
    config.id2label = dict(enumerate(["A", "B"]))
    with pytest.raises(ValueError, match=r"the config's 2 findings, got \[3\]"):
        calibrate(config, images())


# On images that it has not seen


def many_images(count=240, seed=0, skill=1.5):
    """Two images a patient; A and B with some skill and poor calibration, C in three images; a tenth has no map of
    A.
    """
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(count):
        labels = np.array([rng.random() < 0.4, rng.random() < 0.3, i < 3], dtype=float)
        scores = expit(3 * (skill * labels + rng.normal(0, 1, 3)) - [1, -2, 0])
        peaks = np.array([float(i % 10 > 0), 1, 1])
        rows.append(ImageRecord(f"f{i}", f"p{i // 2}", (100, 100), labels, scores, peaks))
    return rows


@pytest.mark.parametrize("share", [0.1, 0.4])
def test_boxes_on_unseen_normal_images_keep_to_the_share(config, share):
    rows = many_images(1200)
    free = cross_fitted(config, rows, repeats=2).figures
    bound = cross_fitted(config, rows, repeats=2, false_box_share=share).figures
    assert free["images_with_boxes"].mean > share + 0.1
    assert bound["images_with_boxes"].mean == pytest.approx(share, abs=0.05)
    assert bound["findings_flagged"] == free["findings_flagged"]


def test_cross_fitted_figures_are_those_of_calibrating_each_half(config):
    rows = many_images()
    labels, logits = np.stack([row.labels for row in rows]), logit(np.stack([row.scores for row in rows]))
    normal = (labels == 0).all(axis=1)
    has_map = np.stack([row.peaks for row in rows]) > 0
    figures = []
    for seed in (4, 5, 6):
        first, _ = halves((row.patient for row in rows), seed)
        in_first = np.array([row.patient in first for row in rows])
        scores, flagged = np.empty_like(logits), np.empty_like(logits)
        for half in (in_first, ~in_first):
            chosen = copy.deepcopy(config)
            calibrate(chosen, [row for row, used in zip(rows, half, strict=True) if used])
            scores[~half] = expit(logits[~half] * chosen.score_slopes + chosen.score_intercepts)
            flagged[~half] = scores[~half] >= chosen.score_thresholds
        points = operating_points(flagged, labels, np.full(3, 0.5))
        boxes = (flagged * has_map)[normal]
        figures.append(
            [
                calibration_error_per_finding(scores, labels)[:2].mean(),  # C has three positives: not in the means
                points["sensitivity"][:2].mean(),
                points["specificity"][:2].mean(),
                flagged[normal].sum(axis=1).mean(),
                boxes.sum(axis=1).mean(),
                boxes.any(axis=1).mean(),
            ]
        )
    found = cross_fitted(config, rows, repeats=3, seed=4)
    names = ("calibrated_error", "sensitivity", "specificity", "findings_flagged", "boxes_shown", "images_with_boxes")
    for name, values in zip(names, np.transpose(figures), strict=True):
        assert found.figures[name].mean == pytest.approx(values.mean()), name
        assert found.figures[name].deviation == pytest.approx(values.std(ddof=1)), name
    plain = calibration_error_per_finding(expit(logits), labels)[:2].mean()
    uncalibrated = found.figures["uncalibrated_error"]
    assert (uncalibrated.mean, uncalibrated.deviation) == (pytest.approx(plain), 0)
    assert (found.images, found.normal_images, found.repeats) == (240, int(normal.sum()), 3)
    assert found.findings == (0, 1)


def test_calibration_lowers_the_error_of_images_that_it_has_not_seen_and_leaves_the_config(config):
    before = config.to_dict()
    found = cross_fitted(config, many_images(), repeats=2)
    assert found.figures["calibrated_error"].mean < found.figures["uncalibrated_error"].mean - 0.05
    assert config.to_dict() == before


def test_the_calibration_of_the_records_moves_no_cross_fitted_figure_of_fitted_findings(config):
    rows = [replace(row, labels=np.append(row.labels[:2], np.nan)) for row in many_images()]
    calibrated = copy.deepcopy(config)
    calibrated.score_slopes, calibrated.score_intercepts = [0.3, 2.0, 1.0], [-2.0, 1.0, 0.0]
    seen = [
        replace(row, scores=expit(logit(row.scores) * calibrated.score_slopes + calibrated.score_intercepts))
        for row in rows
    ]
    ours, theirs = (cross_fitted(one, images_, repeats=2) for one, images_ in ((config, rows), (calibrated, seen)))
    for name in ("uncalibrated_error", "calibrated_error", "sensitivity", "specificity"):
        assert ours.figures[name].mean == pytest.approx(theirs.figures[name].mean, abs=1e-4), name


def test_a_rule_reaches_images_that_it_has_not_seen(config):
    youden = cross_fitted(config, many_images(), repeats=2)
    sensitive = cross_fitted(config, many_images(), "sensitivity", 0.98, repeats=2)
    assert sensitive.figures["sensitivity"].mean > max(0.93, youden.figures["sensitivity"].mean)
    assert sensitive.figures["findings_flagged"].mean > youden.figures["findings_flagged"].mean


def test_boxes_of_all_regions_are_not_counted_but_images_with_boxes_are(config):
    rows = many_images()
    largest = cross_fitted(config, rows, repeats=2)
    config.box_components = "all"
    every = cross_fitted(config, rows, repeats=2)
    assert math.isnan(every.figures["boxes_shown"].mean)
    assert every.figures["images_with_boxes"] == largest.figures["images_with_boxes"]
    assert largest.figures["boxes_shown"].mean < largest.figures["findings_flagged"].mean  # some maps of A are zero


def test_without_normal_images_their_figures_are_undefined(config):
    rows = [replace(row, labels=np.array([*row.labels[:2], np.nan])) for row in many_images()]
    found = cross_fitted(config, rows, repeats=2)
    assert found.normal_images == 0
    assert math.isnan(found.figures["findings_flagged"].mean)
    assert math.isnan(found.figures["images_with_boxes"].mean)
    assert found.figures["sensitivity"].mean > 0.5


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({}, {"repeats": 1}, "`repeats` must be at least two, got 1"),
        ({"patient": "p0"}, {}, "`records` must be of at least two patients, got p0 alone"),
        ({"peaks": np.full(3, np.nan), "labels": np.zeros(3)}, {}, "peak of every map, got NaN on 240 normal images"),
    ],
)
def test_what_has_no_halves_or_no_peaks_is_refused(config, change, options, message):
    with pytest.raises(ValueError, match=message):
        cross_fitted(config, [replace(row, **change) for row in many_images()], **options)


def test_boxes_start_at_scores_that_few_normal_images_reach():
    generator = np.random.default_rng(0)
    scores, present = generator.random((1000, 4)), np.array([0.5, 0.5, 0.5, 0.999])
    found = box_score_thresholds(scores, present, 0.2)
    alarms = (scores >= found).mean(axis=0)
    assert 0.18 < (scores >= found).any(axis=1).mean() <= 0.2
    assert np.ptp(alarms[:3]) == 0  # the same share for each, but for the one that is present more rarely
    assert found[3] == 0.999
    looser = box_score_thresholds(scores, present, 0.2, np.array([True, False, False, False]))
    assert (looser <= found).all()
    assert looser[1] < found[1]
    np.testing.assert_array_equal(box_score_thresholds(scores, present, 1.0)[:3] >= 0.5, True)


def test_one_normal_image_in_two_gets_a_box_where_half_may():
    scores = np.array([[0.1], [0.2], [0.3], [0.4]])
    threshold = box_score_thresholds(scores, np.array([0.0]), 0.5)
    assert 0.2 < threshold[0] <= 0.3


@pytest.mark.parametrize(("scores", "share"), [(3, 0), (3, 1.1), (0, 0.2)])
def test_a_share_without_images_is_refused(scores, share):
    with pytest.raises(ValueError, match="must"):
        box_score_thresholds(np.zeros((scores, 2)), np.full(2, 0.5), share)
