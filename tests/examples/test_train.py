# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""examples/train.py: from nothing to a folder that the pipeline loads, and on from where it was stopped."""

import dataclasses
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file
from transformers import pipeline

import clarity_hf
from clarity_hf.phantoms import draw_phantom
from clarity_hf.training import ClarityTrainingArguments
from clarity_hf.training.arguments import parse_arguments
from clarity_hf.training.checkpoint_manifest import last_checkpoint
from clarity_hf.training.train import DEFAULTS, TrainingRecipe, main

SCRIPT = Path(__file__).parents[2] / "examples" / "train.py"
SETTINGS = [
    *("--size", "ti16", "--image_size", "64", "--phantom_count", "48", "--min_positives", "1", "--use_cpu"),
    *("--per_device_train_batch_size", "8", "--per_device_eval_batch_size", "50", "--logging_steps", "1"),
    *("--bf16", "False"),
]


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
    assert last.endswith("(48 images)")  # as many as it trains on, of 200 at most
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
    assert "48 images of phantom" in card.text
    assert card.data.eval_results[0].metric_value == pytest.approx(evaluations[0]["eval_auroc"], abs=1e-3)
    assert str(folder) not in card.content


def test_a_second_call_resumes_where_the_first_stopped(first_run, capsys):
    folder, _ = first_run
    before = load_file(folder / "model.safetensors")
    command = ["--output_dir", str(folder), *SETTINGS, "--max_steps", "5"]
    # In this process: a second launch would cost another ten seconds of imports.
    in_process = ["--dataloader_num_workers", "0"]
    main(command + in_process)
    out = capsys.readouterr().out
    assert f"resuming from {folder / 'checkpoint-3'}" in out
    state = json.loads((folder / "checkpoint-5" / "trainer_state.json").read_text())
    assert state["global_step"] == 5
    assert [entry["step"] for entry in state["log_history"] if "loss" in entry] == [1, 2, 3, 4, 5]
    after = load_file(folder / "checkpoint-5" / "model.safetensors")
    assert any(not torch.equal(after[name], before[name]) for name in before)


def test_another_runs_folder_is_not_resumed(first_run):
    folder, _ = first_run
    args = ClarityTrainingArguments(output_dir=str(folder), report_to="none", use_cpu=True)
    with pytest.raises(ValueError, match=r"differs in \['image_size'"):
        last_checkpoint(args, dataclasses.asdict(TrainingRecipe(image_size=512)))


STAGES = sorted(
    (path for path in (SCRIPT.parent / "starter").rglob("*.yaml") if not path.stem.startswith("teacher")),
    key=lambda path: (path.parent, int(path.stem.split("-")[0])),
)


@pytest.mark.parametrize("path", STAGES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_stages_are_accepted_by_the_script_and_continue_from_the_previous_one(path):
    classes = (TrainingRecipe, ClarityTrainingArguments)
    stage, args = parse_arguments(classes, DEFAULTS, [str(path), "--use_cpu", "True", "--bf16", "False"])
    assert args.matrix_optimizer == "muon"
    place = path.relative_to(SCRIPT.parent).with_suffix("")
    assert Path(args.output_dir) == "runs" / place
    before = [other for other in STAGES[: STAGES.index(path)] if other.parent == path.parent]
    if not before:
        assert stage.model is None
    else:
        stopped = re.search(r"Stopped\s+(?:# )?at\s+(?:# )?step (\d+)", before[-1].read_text(encoding="utf-8"))
        # A stage that was stopped leaves checkpoints alone, no model in its folder.
        checkpoint = (f"checkpoint-{stopped[1]}",) if stopped else ()
        assert Path(stage.model) == Path("runs", *place.parts[:-1], before[-1].stem, *checkpoint)
