# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""examples/train.py: from nothing to a folder that the pipeline loads, and on from where it was stopped."""

import importlib.util
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file
from transformers import pipeline

import clarity_hf
from clarity_hf.data.phantoms import draw_phantom

SCRIPT = Path(__file__).parents[2] / "examples" / "train.py"
SETTINGS = [
    *("--size", "ti16", "--image_size", "64", "--phantom_count", "48", "--min_positives", "1", "--use_cpu"),
    *("--per_device_train_batch_size", "8", "--per_device_eval_batch_size", "50", "--logging_steps", "1"),
    *("--bf16", "False"),
]


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("train_example", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.fixture(scope="module")
def first_run(tmp_path_factory):
    """Folder and output of three steps through the launcher, as the docstring of the example has it."""
    folder = tmp_path_factory.mktemp("runs") / "first"
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "TRANSFORMERS_VERBOSITY": "error"}
    run = subprocess.run(
        [
            *(sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "1"),
            *(str(SCRIPT), "--output_dir", str(folder), *SETTINGS, "--max_steps", "3"),
        ],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return folder, run.stdout


def test_it_ends_with_the_folder_and_its_auroc(first_run):
    folder, out = first_run
    last = out.strip().splitlines()[-1]
    assert last.startswith(f"saved {folder}: validation AUROC 0.")
    assert last.endswith("(200 films)")
    assert "resuming from" not in out


def test_the_folder_loads_in_the_pipeline(first_run):
    folder, _ = first_run
    localizer = pipeline(clarity_hf.TASK, model=str(folder), device="cpu")
    findings = localizer(draw_phantom(0, 64).image)
    assert {finding["label"] for finding in findings} == set(clarity_hf.FINDINGS)
    thresholds = localizer.model.config.score_thresholds
    assert len(thresholds) == 14
    assert len(set(thresholds)) > 1  # chosen, no longer the default
    assert all(0 < threshold < 1 for threshold in thresholds)
    assert localizer.image_processor.size["height"] == 64


def test_the_run_leaves_its_history_and_a_card(first_run):
    folder, _ = first_run
    state = json.loads((folder / "trainer_state.json").read_text())
    assert state["global_step"] == 3
    assert [entry["step"] for entry in state["log_history"] if "loss_background" in entry] == [1, 2, 3]
    evaluations = [entry for entry in state["log_history"] if "eval_auroc" in entry]
    assert [entry["step"] for entry in evaluations] == [3]
    card = ModelCard.load(folder / "README.md")
    assert "48 films of phantom" in card.text
    assert card.data.eval_results[0].metric_value == pytest.approx(evaluations[0]["eval_auroc"], abs=1e-3)
    assert str(folder) not in card.content


def test_a_second_call_goes_on_where_the_first_stopped(first_run, script, monkeypatch, capsys):
    folder, _ = first_run
    before = load_file(folder / "model.safetensors")
    command = ["train.py", "--output_dir", str(folder), *SETTINGS, "--max_steps", "5"]
    # In this process: a second launch would cost another ten seconds of imports.
    in_process = ["--dataloader_num_workers", "0"]
    monkeypatch.setattr(sys, "argv", command + in_process)
    script.main()
    out = capsys.readouterr().out
    assert f"resuming from {folder / 'checkpoint-3'}" in out
    state = json.loads((folder / "checkpoint-5" / "trainer_state.json").read_text())
    assert state["global_step"] == 5
    assert [entry["step"] for entry in state["log_history"] if "loss" in entry] == [1, 2, 3, 4, 5]
    after = load_file(folder / "checkpoint-5" / "model.safetensors")
    assert any(not torch.equal(after[name], before[name]) for name in before)


def test_a_new_model_starts_at_the_prevalence_of_its_films(script):
    labels = np.zeros((4, 14))
    labels[0] = 1  # a quarter of the films has every finding
    labels[1, 5] = np.nan  # and a third of the annotated ones Nodule
    model = script.build_model(script.ScriptArguments(size="ti16", image_size=32), labels, has_prior=True)
    bias = model.ranking_pooling.bias.tolist()
    assert bias[0] == pytest.approx(math.log(1 / 3), abs=1e-3)
    assert bias[5] == pytest.approx(math.log(1 / 2), abs=1e-3)


def test_without_a_prior_a_new_model_suppresses_no_background(script):
    arguments = script.ScriptArguments(size="ti16", image_size=32)
    for has_prior in (True, False):
        model = script.build_model(arguments, np.zeros((1, 14)), has_prior)
        assert model.config.background_suppression is has_prior


def test_fields_of_the_config_are_changed_by_json_and_checked(script, tiny_checkpoint):
    labels = np.zeros((1, 14))
    for model in (None, str(tiny_checkpoint)):
        arguments = script.ScriptArguments(model=model, size="ti16", image_size=64, config='{"ranking_share": 0.1}')
        assert script.build_model(arguments, labels, True).config.ranking_share == 0.1
        arguments.config = '{"ranking_share": 2}'
        with pytest.raises(ValueError, match="ranking_share"):
            script.build_model(arguments, labels, True)


def test_another_runs_folder_is_not_resumed(script, first_run):
    folder, _ = first_run
    args = script.ClarityTrainingArguments(output_dir=str(folder), report_to="none", use_cpu=True)
    with pytest.raises(ValueError, match=r"differs in \['image_size'"):
        script.last_checkpoint(args, script.ScriptArguments(image_size=512))


def test_a_checkpoint_is_continued_at_another_size(script, tiny_checkpoint):
    arguments = script.ScriptArguments(model=str(tiny_checkpoint), image_size=96, drop_path_rate=0.1)
    model = script.build_model(arguments, np.zeros((1, 14)), has_prior=True)
    assert model.config.image_size == 96
    assert model.clarity.embeddings.patch_positions.shape == (1, 36, 48)
    assert model.config.drop_path_rate == 0.1


def test_labels_are_sampled_evenly_and_each_once(script):
    rows = [{"labels": np.full(14, index)} for index in range(10)]
    assert script.train_labels(rows, 4)[:, 0].tolist() == [0, 3, 6, 9]
    assert script.train_labels(rows)[:, 0].tolist() == list(range(10))


def test_sources_are_called_by_their_last_part(script, tmp_path):
    assert script.source_name("phantom") == "phantom"
    assert script.source_name(f"{tmp_path}/nih-subset/") == "nih_subset"
