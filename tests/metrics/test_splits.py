# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Halves of images and patients."""

import importlib.util
from pathlib import Path

import pytest

from clarity_hf.metrics.splits import (
    boxed,
    halves,
    halves_by_image,
    halves_by_patient,
    patient_folds,
    split_by_patients,
)

_spec = importlib.util.spec_from_file_location("made_records", Path(__file__).with_name("made_records.py"))
made = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(made)
annotation, image = made.annotation, made.image


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


def test_a_committed_list_says_who_is_tuned_on():
    tuning, scoring = split_by_patients(some_images(), {"3", "4", "unknown"})
    assert {record.patient for record in boxed(tuning)} == {"3", "4"}
    assert len(scoring) == 36
    with pytest.raises(ValueError, match="`tuning_patients` must name patients of the 20 with boxes, got 1 others"):
        split_by_patients(some_images(), {"unknown"})
    with pytest.raises(ValueError, match="`tuning_patients` must leave patients with boxes to score, got all 20"):
        split_by_patients(some_images(), set(map(str, range(20))))


def test_no_patient_is_in_two_folds():
    patients = [f"{number // 3}" for number in range(60)]
    folds = patient_folds(patients, 5)
    assert sorted(set(folds.tolist())) == [0, 1, 2, 3, 4]
    assert len({(fold, patient) for fold, patient in zip(folds, patients, strict=True)}) == 20
