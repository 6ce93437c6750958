# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""`clarity-hf train`: every word is the training recipe's, alone and through a launcher."""

import json
import os
import subprocess
import sys

import pytest

from clarity_hf.cli import main
from clarity_hf.training import train as training

TINY = [
    *("--size", "ti16", "--image_size", "32", "--phantom_count", "16", "--min_positives", "1", "--use_cpu"),
    *("--per_device_train_batch_size", "8", "--per_device_eval_batch_size", "50", "--bf16", "False"),
    *("--max_steps", "1", "--dataloader_num_workers", "0"),
    *("--eval_strategy", "no", "--save_strategy", "no", "--load_best_model_at_end", "False"),
]


@pytest.fixture(autouse=True)
def own_words(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["pytest"])  # the command hands its words over there


def test_all_arguments_are_passed_to_the_recipe_in_order(monkeypatch):
    handed = []
    monkeypatch.setattr(training, "main", lambda: handed.extend(sys.argv))
    words = ["stage.yaml", "--data_dir", "phantom", "images", "--seed=3", "--learning_rate", "1e-4", "-h", "--n", "-1"]
    assert main(["train", *words]) == 0
    assert handed == ["clarity-hf train", *words]


def test_help_is_the_parsers(capsys):
    assert main(["train", "--help"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("usage: clarity-hf train [-h] [--data_dir DATA_DIR")
    assert all(flag in out for flag in ("--image_repeats", "--distillation_alpha", "--per_device_train_batch_size"))


def test_an_unknown_argument_is_an_error(capsys):
    assert main(["train", "--use_cpu", "--epochs", "3"]) == 1
    assert "--epochs" in capsys.readouterr().err


def test_a_stage_trains_and_what_the_command_line_says_goes_first(tmp_path, capsys):
    (tmp_path / "stage.yaml").write_text(f"output_dir: {tmp_path / 'file'}\nseed: 3\n", encoding="utf-8")
    assert main(["train", str(tmp_path / "stage.yaml"), "--output_dir", str(tmp_path / "out"), *TINY]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith(f"saved {tmp_path / 'out'}: validation AUROC 0.")
    assert json.loads((tmp_path / "out" / "run.json").read_text(encoding="utf-8"))["seed"] == 3
    assert not (tmp_path / "file").exists()


@pytest.mark.slow
def test_a_launcher_starts_it(tmp_path):
    launcher = (sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "1")
    command = [*launcher, "-m", "clarity_hf", "train", "--output_dir", str(tmp_path / "out"), *TINY]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert f"saved {tmp_path / 'out'}: validation AUROC 0." in run.stdout
