# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""examples/plot_losses.py: a panel for every part of the loss."""

import importlib.util
import json
import sys
from pathlib import Path

import PIL.Image
import pytest

SCRIPT = Path(__file__).parents[2] / "examples" / "plot_losses.py"
HISTORY = [
    {"epoch": 0.5, "loss": 2.0, "loss_patch": 0.6, "loss_class_token": 0.7, "learning_rate": 1e-3},
    {"epoch": 1.0, "loss": 1.5, "loss_patch": 0.5, "loss_class_token": 0.6, "learning_rate": 1e-3},
    {"epoch": 1.0, "eval_loss": 1.4, "eval_auroc": 0.6, "eval_auroc_Mass": 0.7},
    {"epoch": 1.0, "train_runtime": 3.0, "train_loss": 1.7},
]


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("plot_losses_example", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_loss_its_parts_and_the_auroc_are_curves(script):
    assert script.read_curves(HISTORY) == {
        "loss": [(0.5, 2.0), (1.0, 1.5)],
        "loss_patch": [(0.5, 0.6), (1.0, 0.5)],
        "loss_class_token": [(0.5, 0.7), (1.0, 0.6)],
        "eval_auroc": [(1.0, 0.6)],
    }


def test_a_picture_is_drawn_from_a_runs_folder(script, tmp_path, monkeypatch, capsys):
    pytest.importorskip("matplotlib")
    (tmp_path / "trainer_state.json").write_text(json.dumps({"log_history": HISTORY}))
    picture = tmp_path / "losses.png"
    monkeypatch.setattr(sys, "argv", ["plot_losses.py", str(tmp_path), str(picture)])
    script.main()
    assert "2 parts over 1.0 epochs" in capsys.readouterr().out
    with PIL.Image.open(picture) as image:
        assert len(set(image.convert("L").tobytes())) > 10  # something is drawn


def test_a_run_that_has_not_ended_is_refused(script, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["plot_losses.py", str(tmp_path), str(tmp_path / "losses.png")])
    with pytest.raises(FileNotFoundError, match=r"`run` must hold trainer_state\.json"):
        script.main()


def test_a_history_without_training_is_refused(script):
    with pytest.raises(ValueError, match="without a loss"):
        script.read_curves(HISTORY[2:])
