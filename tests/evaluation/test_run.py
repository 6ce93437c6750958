# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""A model, its baselines and its sanity checks on the same few phantoms."""

import numpy as np
import pytest

from clarity_hf import ClarityImageProcessor
from clarity_hf.evaluation.evaluator import BoxSettings, evaluate_images
from clarity_hf.evaluation.images import PhantomImages
from clarity_hf.evaluation.localizers import ModelLocalizer
from clarity_hf.evaluation.run import (
    RunSettings,
    calibration_records,
    check_maps,
    evaluate_methods,
    make_baselines,
    pixels_and_maps,
)
from clarity_hf.fingerprints import weights_digest


@pytest.fixture(scope="module")
def images():
    return PhantomImages(8, size=64)


@pytest.fixture
def ours(tiny_model):
    return ModelLocalizer(tiny_model, ClarityImageProcessor(size={"height": 64, "width": 64}))


def test_all_methods_are_evaluated_on_the_same_images(ours, images, tmp_path):
    about = {"data": "phantom", "split": "test"}
    baselines = make_baselines(["random", "cam"], ours)
    found = evaluate_methods(ours, baselines, images, tmp_path, about, run=RunSettings(progress=False))
    assert found.findings == ours.findings
    assert list(found.baselines) == ["random map", "CAM alone"]
    for evaluation in (found.model, *found.baselines.values()):
        assert [record.name for record in evaluation.records] == images.names
    assert {path.name for path in tmp_path.iterdir()} == {"clarity.jsonl", "random.jsonl", "cam.jsonl"}
    assert found.source["weights"] == weights_digest(ours.model)
    assert found.source["split"] == "test"
    assert found.sanity is None


def test_sanity_checks_compare_with_random_maps_and_end_at_the_embeddings(ours, images, tmp_path):
    settings = BoxSettings.of_config(ours.model.config)
    records = evaluate_images(ours, images, settings, tmp_path / "r.jsonl", progress=False).records
    checks = check_maps(ours, records, images, count=2)
    assert list(checks.perturbations) == ["CLARiTy", "random map"]
    assert all(curve.images > 0 for curves in checks.perturbations.values() for curve in curves.values())
    assert [checks.randomised[0].part, checks.randomised[-1].part] == ["heads", "embeddings"]
    assert check_maps(ours, records, images, count=0) is None


def test_pixels_come_with_maps_of_the_same_size(ours, images):
    pixels, maps = pixels_and_maps(ours, images)([images.names[3]])[images.names[3]]
    np.testing.assert_array_equal(pixels, images[3].pixels)
    assert maps.shape == (14, 64, 64)


def test_calibration_records_lie_beside_the_calibrated_model(ours, tmp_path):
    folder = tmp_path / "calibrated"
    records = calibration_records(ours.model, ours.image_processor, "phantom", folder, count=2)
    assert [record.name for record in records] == ["phantom-validation-0-0", "phantom-validation-0-1"]
    assert [path.name for path in tmp_path.iterdir()] == ["calibrated-records.jsonl"]


@pytest.mark.parametrize("name", ["random", "cam", "attention", "rollout", "atlas"])
def test_each_baseline_scores_and_maps_images(name, ours, images):
    output = make_baselines([name], ours)[name]([images[0].pixels])
    assert output.scores.shape == (1, 14)
    assert output.maps.shape[:2] == (1, 14)
    assert (output.maps >= 0).all()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("lime", r"`baselines` must be among .* got \['lime'\]"),
        ("gradcam", "`teacher` must be given for Grad-CAM, got None"),
    ],
)
def test_unknown_baselines_and_a_missing_teacher_are_refused(ours, name, message):
    with pytest.raises(ValueError, match=message):
        make_baselines([name], ours)
