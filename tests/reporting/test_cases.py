# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Cases: chosen by a rule, with boxes at their places, and named without the patient."""

import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from clarity_hf.reporting.cases import Case, draw_case, drawn_cases, pick_cases
from clarity_hf.reporting.evaluated import Evaluated

_spec = importlib.util.spec_from_file_location("synthetic_records", Path(__file__).with_name("synthetic_records.py"))
synthetic = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(synthetic)


def evaluated(records):
    return Evaluated(records, synthetic.FINDINGS, np.array(synthetic.THRESHOLDS), repeats=10)


DARK = np.linspace(0, 20, 64)[:, None].repeat(64, axis=1)


def look(names):
    return {name: (DARK, np.zeros((4, 4, 4))) for name in names}


@pytest.fixture(scope="module")
def images():
    return evaluated(synthetic.images(80))


@pytest.fixture(scope="module")
def picked(images):
    return pick_cases(images, 3)


def test_the_best_case_overlaps_most_and_the_worst_least(images, picked):
    every = pick_cases(images, 10_000)["best"]
    overlaps = [case.overlap for case in every]
    assert picked["best"][0].overlap == max(overlaps)
    assert picked["worst"][0].overlap == min(overlaps)


def test_a_finding_comes_twice_only_after_all_others(picked):
    for cases in picked.values():
        assert len({case.finding for case in cases}) == 3


def test_missed_findings_are_present_and_below_and_false_boxes_are_on_normal_images(images, picked):
    for case in picked["missed"]:
        assert images.labels[case.place, case.finding] == 1
        assert images.scores[case.place, case.finding] < 0.5
    for case in picked["false"]:
        assert (images.labels[case.place] == 0).all()
        assert images.scores[case.place, case.finding] >= 0.5
        assert len(case.boxes) > 0


def test_of_equally_bad_cases_the_surer_one_comes_first():
    record = next(record for record in synthetic.images(40) if record.labels[0] == 1)
    part = replace(record.annotations[0], own=np.zeros((0, 4)))
    images = evaluated(
        [
            replace(record, name=name, scores=np.array([score, 0, 0, 0]), annotations=(part,))
            for name, score in (("a", 0.6), ("b", 0.9), ("c", 0.7))
        ]
    )
    assert pick_cases(images, 1)["worst"][0].place == 1


def test_boxes_are_drawn_where_they_are():
    case = Case(0, 1, np.array([[128.0, 128, 192, 192]]), np.array([[32.0, 32, 96, 96]]), 0.0)
    picture = np.asarray(
        draw_case(case, "Mass", 0.9, np.linspace(0, 20, 256)[:, None].repeat(256, axis=1), np.zeros((14, 14)))
    ).astype(int)
    assert picture.shape == (512, 512, 3)
    white = (picture == 255).all(-1)
    rows, columns = np.flatnonzero(white.any(1)), np.flatnonzero(white.any(0))
    assert (rows.min(), columns.min()) == pytest.approx((64, 64), abs=1)
    assert (rows.max(), columns.max()) == pytest.approx((191, 191), abs=1)
    orange = picture[256:384, 256, 0] > 200
    assert orange.all()


def test_the_map_is_laid_over_the_whole_image_whatever_its_size():
    heat = np.zeros((2, 2))
    heat[1, 0] = 1  # lower left
    case = Case(0, 0, np.zeros((0, 4)), np.zeros((0, 4)), None)
    picture = np.asarray(draw_case(case, "Mass", 0.9, np.linspace(0, 20, 100)[:, None].repeat(200, axis=1), heat)).sum(
        -1
    )
    height, width = picture.shape
    assert (width, height) == (560, 280)
    assert picture[height - 20, 20] > 200
    assert picture[20, width - 20] < 60


@pytest.mark.parametrize(
    ("name", "patient", "image"),
    [
        ("image-7.png", "Smith", "image-7.png"),
        ("00000013_005.png", "13", None),
        ("00000013_005.png", "00000013", None),
        ("00000130_005.png", "13", "00000130_005.png"),
        ("xSmithx.png", "smith", None),
        ("a", "a", None),
    ],
)
def test_an_image_is_named_unless_its_name_holds_the_patients_id(name, patient, image):
    record = next(record for record in synthetic.images(40) if record.labels[0] == 1)
    cases = drawn_cases(evaluated([replace(record, name=name, patient=patient)]), look, 1)
    assert [(case.image, case.record) for case in cases if case.kind == "best"] == [(image, 1)]


def test_images_are_read_one_at_a_time(images):
    asked = []

    def one(names):
        asked.append(list(names))
        return look(names)

    cases = drawn_cases(images, one, 2)
    assert len(asked) == len(cases)
    assert all(len(names) == 1 for names in asked)


@pytest.mark.parametrize(
    ("answer", "match"),
    [
        (lambda names: {}, "must return the images it is asked for, got none for 'image-"),
        (lambda names: {name: (np.zeros((4, 4)), np.zeros((3, 2, 2))) for name in names}, r"maps \(4, h, w\) over"),
        (lambda names: {name: (np.zeros((4, 4, 3)), np.zeros((4, 2, 2))) for name in names}, r"pixels \(H, W\)"),
    ],
)
def test_pixels_or_maps_of_another_shape_are_refused(images, answer, match):
    with pytest.raises(ValueError, match=match):
        drawn_cases(images, answer, 1)
