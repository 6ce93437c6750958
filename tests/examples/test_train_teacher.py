# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""examples/train_teacher.py: from nothing to a folder that is a teacher, and on from where it was stopped."""

import json
import math
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file
from transformers import AutoImageProcessor, AutoModelForImageClassification, TrainingArguments
from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from transformers.trainer_utils import get_last_checkpoint

from clarity_hf import FINDINGS, ClarityImageProcessor
from clarity_hf.data.sources import open_source
from clarity_hf.data.transforms import ImageTransform
from clarity_hf.phantoms import draw_phantom, write_phantoms
from clarity_hf.training import Teacher
from clarity_hf.training.arguments import parse_arguments
from clarity_hf.training.train_teacher import DEFAULTS, TeacherRecipe, build_processor, main

SCRIPT = Path(__file__).parents[2] / "examples" / "train_teacher.py"
SETTINGS = [
    *("--size", "atto", "--image_size", "32", "--phantom_count", "24", "--min_positives", "1", "--use_cpu"),
    *("--per_device_train_batch_size", "40", "--per_device_eval_batch_size", "100", "--logging_steps", "1"),
    *("--bf16", "False", "--dataloader_num_workers", "0", "--disable_tqdm", "True"),
    *("--lr_scheduler_type", "constant", "--warmup_steps", "0"),  # so that the few steps move
]


def call(folder, *more):
    main(["--output_dir", str(folder), *SETTINGS, *more])


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    """A folder of forty small images in the layout of the release."""
    folder = tmp_path_factory.mktemp("data") / "few-images"
    write_phantoms(folder, 40, size=64)
    return folder


@pytest.fixture(scope="module")
def first_run(release, tmp_path_factory):
    """Folder of two steps by the script itself."""
    folder = tmp_path_factory.mktemp("runs") / "teacher"
    words = ["--output_dir", str(folder), *SETTINGS, "--data_dir", str(release), "--max_steps", "2"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["train_teacher.py", *words])
        runpy.run_path(str(SCRIPT), run_name="__main__")
    return folder


def test_the_folder_is_a_teacher_that_sees_what_it_was_trained_on(first_run):
    processor = AutoImageProcessor.from_pretrained(first_run)
    assert isinstance(processor, ClarityImageProcessor)
    assert list(processor.image_mean) == IMAGENET_DEFAULT_MEAN
    assert list(processor.image_std) == IMAGENET_DEFAULT_STD
    student = ClarityImageProcessor(size={"height": 32, "width": 32})
    teacher = Teacher.from_pretrained(str(first_run), FINDINGS, student)
    assert teacher.size == (32, 32)
    row = {"image": draw_phantom(0, 32).image, "labels": np.zeros(14)}
    trained_on = ImageTransform(build_processor(TeacherRecipe(image_size=32)), prior="none")(row)["pixel_values"]
    model = AutoModelForImageClassification.from_pretrained(first_run).eval()
    with torch.no_grad():
        expected = model(trained_on[None]).logits
    seen = ImageTransform(student, prior="none")(row)["pixel_values"]
    torch.testing.assert_close(teacher(seen[None]), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(processor(row["image"], return_tensors="pt").pixel_values[0], trained_on)


def test_the_run_leaves_history_card_and_no_pickle(first_run, release):
    splits = open_source(str(release)).splits()
    state = json.loads((first_run / "trainer_state.json").read_text())
    evaluations = [entry for entry in state["log_history"] if "eval_auroc" in entry]
    assert [entry["step"] for entry in evaluations] == [1, 2]  # an epoch is one step
    assert all(math.isfinite(entry["eval_loss"]) for entry in evaluations)
    card = ModelCard.load(first_run / "README.md")
    assert card.data.license == "apache-2.0"
    assert f"Trained on {len(splits['train'])} images of few-images;" in card.text
    assert f"{len(splits['validation'])} validation images" in card.text
    best = max(entry["eval_auroc"] for entry in evaluations)
    assert f"Mean AUROC {best:.3f}" in card.text
    assert all(f"| {finding} | " in card.text for finding in FINDINGS)
    assert str(first_run.parent) not in card.content
    assert str(release.parent) not in card.content
    names = {path.name for path in first_run.iterdir() if path.is_file()}
    assert not [name for name in names if name.endswith((".bin", ".pt", ".pth", ".pkl"))]
    assert "model.safetensors" in names


def test_a_second_call_resumes_where_the_first_stopped(first_run, release, capsys):
    before = load_file(first_run / "model.safetensors")
    call(first_run, "--data_dir", str(release), "--max_steps", "3")
    out = capsys.readouterr().out
    assert f"resuming from {first_run / 'checkpoint-2'}" in out
    assert out.strip().splitlines()[-1].startswith(f"saved {first_run}: validation AUROC 0.")
    state = json.loads((first_run / "checkpoint-3" / "trainer_state.json").read_text())
    assert [entry["step"] for entry in state["log_history"] if "loss" in entry] == [1, 2, 3]
    after = load_file(first_run / "checkpoint-3" / "model.safetensors")
    assert any(not torch.equal(after[name], before[name]) for name in before)
    best = load_file(Path(state["best_model_checkpoint"]) / "model.safetensors")
    saved = load_file(first_run / "model.safetensors")
    assert all(torch.equal(best[name], saved[name]) for name in best)


@pytest.fixture
def timm_checkpoint(tmp_path):
    """As a timm repository: weights without the wrapper's prefix, the original's preprocessing in the config."""
    timm = pytest.importorskip("timm")
    from safetensors.torch import save_file

    torch.manual_seed(0)
    folder = tmp_path / "convnextv2_atto.fcmae"
    folder.mkdir()
    model = timm.create_model("test_convnext2", num_classes=0)
    save_file(model.state_dict(), folder / "model.safetensors", {"format": "pt"})
    config = {
        "architecture": "test_convnext2",
        "num_classes": 0,
        "pretrained_cfg": {
            "input_size": [3, 160, 160],
            "mean": [0.1, 0.2, 0.3],
            "std": [0.4, 0.5, 0.6],
            "license": "cc-by-nc-4.0",
            "num_classes": 0,
        },
    }
    (folder / "config.json").write_text(json.dumps(config))
    return folder, model


def test_a_checkpoint_of_timm_is_trained_saved_and_loaded_as_a_teacher(timm_checkpoint, release, tmp_path):
    folder, original = timm_checkpoint
    out = tmp_path / "out"
    command = ["--model", str(folder), "--data_dir", "phantom", str(release), "--drop_path_rate", "0.1"]
    command += ["--num_train_epochs", "1"]
    call(out, *command)
    student = ClarityImageProcessor(size={"height": 32, "width": 32})
    teacher = Teacher.from_pretrained(str(out), FINDINGS, student)
    assert teacher.size == (32, 32)  # its own, not the original's 160
    expected = (student.image_std[0] / np.array(IMAGENET_DEFAULT_STD)).tolist()
    assert teacher.scale.flatten().tolist() == pytest.approx(expected)
    weights = teacher.model.timm_model.state_dict()
    before = original.state_dict()
    assert all((weights[name] - before[name]).abs().max() < 1e-2 for name in before)  # steps from where it started
    card = ModelCard.load(out / "README.md")
    assert card.data.license == "cc-by-nc-4.0"
    assert "images of phantom and few-images;" in card.text
    assert "validation images\nof few-images" in card.text

    # Called again it has nothing to train: what it saves is what the Trainer's own loading made of the checkpoint. The
    # wrapper's keys must survive that, as a lost prefix would only warn.
    saved = load_file(Path(get_last_checkpoint(out)) / "model.safetensors")
    assert any(not torch.equal(saved[name], before[name]) for name in before)
    (out / "model.safetensors").unlink()
    call(out, *command)
    again = load_file(out / "model.safetensors")
    assert again.keys() == saved.keys()
    assert all(torch.equal(again[name], saved[name]) for name in saved)


def test_the_teacher_of_the_packaged_checkpoint_is_what_the_script_accepts():
    path = SCRIPT.parent / "starter" / "teacher.yaml"
    words = [str(path), "--use_cpu", "True", "--bf16", "False"]
    stage, args = parse_arguments((TeacherRecipe, TrainingArguments), DEFAULTS, words)
    assert (stage.size, stage.matrix_optimizer) == ("nano", "muon")
    assert args.output_dir == "runs/teacher-nano"
