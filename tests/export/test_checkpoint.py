# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Checkpoints in half precision: half the size, and nothing else changes."""

import json

import torch
from safetensors.torch import load_file

from clarity_hf import ClarityForMultiLabelLocalization, ClarityImageProcessor
from clarity_hf.configuration_clarity import TRAINING_DEFAULTS
from clarity_hf.export.checkpoint import save_checkpoint


def test_weights_are_stored_in_half_and_loaded_in_single_precision(tiny_model, tmp_path):
    save_checkpoint(tiny_model, ClarityImageProcessor(), tmp_path)
    stored = load_file(tmp_path / "model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.float16}
    assert json.loads((tmp_path / "config.json").read_text())["dtype"] == "float32"
    loaded = ClarityForMultiLabelLocalization.from_pretrained(tmp_path)
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float32}
    assert loaded.config.findings == tiny_model.config.findings


def test_outputs_stay_near(tiny_model, tmp_path):
    save_checkpoint(tiny_model, ClarityImageProcessor(), tmp_path)
    loaded = ClarityForMultiLabelLocalization.from_pretrained(tmp_path).eval()
    pixels = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        before, after = tiny_model(pixels), loaded(pixels)
    # A weight in half precision is off by up to 2⁻¹¹ of itself.
    torch.testing.assert_close(after.logits, before.logits, rtol=0, atol=5e-3)
    torch.testing.assert_close(after.localization_maps, before.localization_maps, rtol=0, atol=1e-2)
    assert not torch.equal(after.logits, before.logits)


def test_the_model_is_left_as_it_is(tiny_model, tmp_path):
    before = {name: tensor.clone() for name, tensor in tiny_model.state_dict().items()}
    config = tiny_model.config.to_dict()
    save_checkpoint(tiny_model, ClarityImageProcessor(), tmp_path / "new" / "folder")
    assert tiny_model.config.to_dict() == config
    for name, tensor in tiny_model.state_dict().items():
        assert tensor.dtype == before[name].dtype
        assert torch.equal(tensor, before[name])


def test_settings_that_training_alone_reads_stay_behind(tiny_model, tmp_path):
    tiny_model.config.update({"tiled_attention_rate": 0.85, "background_loss_weight": 0.2, "drop_path_rate": 0.1})
    save_checkpoint(tiny_model, ClarityImageProcessor(), tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    assert {name: saved[name] for name in TRAINING_DEFAULTS} == TRAINING_DEFAULTS


def test_the_processor_and_the_thresholds_travel_along(tiny_model, tmp_path):
    tiny_model.config.score_thresholds = [round(0.05 * i + 0.1, 2) for i in range(14)]
    save_checkpoint(tiny_model, ClarityImageProcessor(size={"height": 64, "width": 64}, keep_ratio=False), tmp_path)
    processor = ClarityImageProcessor.from_pretrained(tmp_path)
    assert (processor.size["height"], processor.keep_ratio) == (64, False)
    loaded = ClarityForMultiLabelLocalization.from_pretrained(tmp_path)
    assert list(loaded.config.score_thresholds) == tiny_model.config.score_thresholds
