# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""A calibration belongs to weights and findings: it stays with them, and is dropped with a word from others."""

import pytest
import torch
from transformers import AutoModelForImageClassification, Trainer, TrainingArguments

from clarity_hf import ClarityForMultiLabelLocalization, ClarityImageProcessor
from clarity_hf.calibration_fingerprint import FINGERPRINT, calibration_fingerprint, may_be_of
from clarity_hf.export.checkpoint import save_checkpoint

FITTED = {
    "score_slopes": [1.0 + 0.1 * finding for finding in range(14)],
    "score_intercepts": [0.1] * 14,
    "score_thresholds": [0.2] * 14,
    "map_thresholds": [0.3] * 14,
}
NAMES = ["Mass", "Nodule"]


@pytest.fixture
def calibrated(tiny_model):
    for name, values in FITTED.items():
        setattr(tiny_model.config, name, list(values))
    return tiny_model.eval()


@pytest.fixture
def folder(calibrated, tmp_path):
    calibrated.save_pretrained(tmp_path / "calibrated")
    return tmp_path / "calibrated"


def is_whole(config):
    return {name: getattr(config, name) for name in FITTED} == FITTED


def is_dropped(config):
    return not config.has_calibration and not config.is_calibrated and config.calibration_fingerprint is None


@torch.no_grad()
def move(model):
    next(model.parameters()).add_(1e-3)


# The fingerprint -----------------------------------------------------------------------------------------------------


def test_it_says_precision_weights_and_findings():
    found = calibration_fingerprint(NAMES, {"a": torch.ones(2, 3), "b": torch.zeros(1)})
    assert FINGERPRINT.fullmatch(found)
    assert found.startswith("float32-")
    precision, weights, _ = found.split("-")
    others = {
        "value": calibration_fingerprint(NAMES, {"a": torch.ones(2, 3), "b": torch.full((1,), 1e-9)}),
        "shape": calibration_fingerprint(NAMES, {"a": torch.ones(3, 2), "b": torch.zeros(1)}),
        "name": calibration_fingerprint(NAMES, {"a": torch.ones(2, 3), "c": torch.zeros(1)}),
        "weight": calibration_fingerprint(NAMES, {"a": torch.ones(2, 3)}),
    }
    for what, other in others.items():
        assert other.split("-")[1] != weights, what
        assert not may_be_of(found, other), what
    renamed = calibration_fingerprint(NAMES[::-1], {"a": torch.ones(2, 3), "b": torch.zeros(1)})
    assert renamed.split("-")[:2] == [precision, weights]
    assert not may_be_of(found, renamed)


def test_half_precision_is_the_same_when_it_is_widened_and_unknown_when_it_is_rounded():
    weights = torch.randn(64, generator=torch.Generator().manual_seed(0))
    full, half, widened, other = (
        calibration_fingerprint(NAMES, {"a": values})
        for values in (weights, weights.half(), weights.half().float(), weights.half().float() + 1e-3)
    )
    assert may_be_of(half, widened)
    assert not may_be_of(half, other)
    assert may_be_of(full, half)  # rounded: it cannot be told
    assert not may_be_of(full, widened)


@pytest.mark.parametrize("weights", [torch.ones(2, device="meta"), torch.ones(2, dtype=torch.int8)])
def test_weights_that_cannot_be_read_have_none(weights):
    assert calibration_fingerprint(NAMES, {"a": torch.ones(1), "b": weights}) is None


# What stays ----------------------------------------------------------------------------------------------------------


def test_it_stays_through_saving_loading_and_evaluating(folder, calibrated, caplog):
    loaded = ClarityForMultiLabelLocalization.from_pretrained(folder)
    assert is_whole(loaded.config)
    assert loaded.config.calibration_fingerprint == calibrated.config.calibration_fingerprint
    loaded.train().eval().save_pretrained(folder)
    names = calibrated.config.id2label
    assert is_whole(AutoModelForImageClassification.from_pretrained(folder, id2label=names).config)
    assert caplog.text == ""


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_it_stays_in_another_precision(folder, dtype, tmp_path, caplog):
    model = ClarityForMultiLabelLocalization.from_pretrained(folder, dtype=dtype).eval()
    assert is_whole(model.config)
    model.save_pretrained(tmp_path / "other")
    for how in ({}, {"dtype": torch.float32}):
        assert is_whole(ClarityForMultiLabelLocalization.from_pretrained(tmp_path / "other", **how).config)
    assert caplog.text == ""


def test_it_stays_with_a_checkpoint_in_half_precision(calibrated, tmp_path, caplog):
    save_checkpoint(calibrated, ClarityImageProcessor(), tmp_path / "half")
    loaded = ClarityForMultiLabelLocalization.from_pretrained(tmp_path / "half")
    assert loaded.dtype == torch.float32
    assert is_whole(loaded.config)
    assert caplog.text == ""


def test_it_stays_when_positions_are_resampled_for_another_size(calibrated):
    calibrated.clarity.resize_position_embeddings(96)
    assert is_whole(calibrated.eval().config)


def test_thresholds_that_are_set_by_hand_after_a_training_belong_to_the_new_weights(folder, tmp_path):
    model = ClarityForMultiLabelLocalization.from_pretrained(folder)
    move(model)
    model.eval().config.score_thresholds = [0.4] * 14
    model.save_pretrained(tmp_path / "trained")
    loaded = ClarityForMultiLabelLocalization.from_pretrained(tmp_path / "trained")
    assert loaded.config.score_thresholds == [0.4] * 14
    assert not loaded.config.is_calibrated


# What goes -----------------------------------------------------------------------------------------------------------


def test_it_goes_when_the_weights_change(calibrated, caplog):
    move(calibrated)
    assert is_whole(calibrated.config)  # training changes nothing yet
    assert is_dropped(calibrated.eval().config)
    assert "went back to the defaults, because they were fitted to other weights or findings" in caplog.text


def test_it_goes_where_a_folder_s_weights_are_others(folder, tiny_model, tmp_path, caplog):
    move(tiny_model)
    tiny_model.config.calibration_fingerprint = None
    tiny_model.save_pretrained(tmp_path / "others")
    (folder / "model.safetensors").write_bytes((tmp_path / "others" / "model.safetensors").read_bytes())
    assert is_dropped(ClarityForMultiLabelLocalization.from_pretrained(folder).config)
    assert "other weights" in caplog.text


def test_it_saves_a_model_trained_without_evaluation(calibrated, tmp_path):
    move(calibrated.train())
    calibrated.save_pretrained(tmp_path)
    assert is_dropped(calibrated.config)
    assert is_dropped(ClarityForMultiLabelLocalization.from_pretrained(tmp_path).config)


def test_it_goes_for_findings_of_other_names(folder, calibrated, caplog):
    names = {index: f"finding {index}" for index in range(14)}
    assert is_dropped(ClarityForMultiLabelLocalization.from_pretrained(folder, id2label=names).config)
    assert "other findings" in caplog.text
    calibrated.config.id2label = names
    assert is_dropped(calibrated.eval().config)


def test_it_goes_when_the_library_s_own_trainer_trains(calibrated, tmp_path):
    rows = [{"pixel_values": torch.randn(3, 64, 64), "labels": torch.ones(14)} for _ in range(2)]
    evaluating = {"eval_strategy": "steps", "eval_steps": 1}
    args = TrainingArguments(tmp_path / "run", max_steps=1, use_cpu=True, report_to=[], **evaluating)
    Trainer(model=calibrated, args=args, train_dataset=rows, eval_dataset=rows).train()
    assert is_dropped(calibrated.config)
