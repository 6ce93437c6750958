# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""examples/average_checkpoints.py: the mean of the weights of checkpoints of one training."""

import importlib.util
import sys
from pathlib import Path

import pytest
import torch

from clarity_hf import ClarityConfig, ClarityForMultiLabelLocalization, ClarityImageProcessor

SCRIPT = Path(__file__).parents[2] / "examples" / "average_checkpoints.py"
TINY = {
    "class_attention_layers": 1,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "image_size": 32,
}


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("average_checkpoints_example", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def checkpoint(folder, **settings):
    model = ClarityForMultiLabelLocalization(ClarityConfig(**TINY | settings))
    model.save_pretrained(folder)
    ClarityImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    return model


def test_every_tensor_is_the_mean_and_the_calibration_is_dropped(script, tmp_path, monkeypatch, capsys):
    one, other = checkpoint(tmp_path / "one"), checkpoint(tmp_path / "other", score_thresholds=[0.3] * 14)
    command = [SCRIPT.name, *map(str, (tmp_path / "one", tmp_path / "other")), "--output_dir", str(tmp_path / "mean")]
    monkeypatch.setattr(sys, "argv", command)
    script.main()
    assert f"wrote the mean of 2 checkpoints to {tmp_path / 'mean'}" in capsys.readouterr().out
    mean = ClarityForMultiLabelLocalization.from_pretrained(tmp_path / "mean")
    ClarityImageProcessor.from_pretrained(tmp_path / "mean")
    assert not mean.config.has_calibration
    states = one.state_dict(), other.state_dict()
    for name, tensor in mean.state_dict().items():
        torch.testing.assert_close(tensor, (states[0][name] + states[1][name]) / 2)


@pytest.mark.parametrize("settings", [{"hidden_size": 64}, {"num_labels": 3}])
def test_other_models_are_refused(script, tmp_path, settings):
    checkpoint(tmp_path / "one"), checkpoint(tmp_path / "other", **settings)
    with pytest.raises(ValueError, match=r"same architecture and findings, got .*one and .*other"):
        script.average([str(tmp_path / "one"), str(tmp_path / "other")])


def test_one_checkpoint_is_refused(script, tmp_path):
    with pytest.raises(ValueError, match="at least two, got 1"):
        script.average([str(tmp_path)])
