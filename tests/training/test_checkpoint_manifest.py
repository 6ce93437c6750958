# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Complete checkpoints get a manifest; damage is named, and no run resumes from a damaged checkpoint."""

import importlib.util
import json
import logging
import os
import random
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import save_file
from transformers import TrainerCallback

from clarity_hf.training import ClarityTrainingArguments
from clarity_hf.training.checkpoint_manifest import (
    MANIFEST,
    best_checkpoint,
    damage_of,
    last_checkpoint,
    last_intact_checkpoint,
    named_save_failures,
    require_intact,
)

HERE = Path(__file__).parent


def load(name):
    """A script of this folder, which imports another, as a module."""
    sys.path.insert(0, str(HERE))
    try:
        spec = importlib.util.spec_from_file_location(f"{name}_for_checkpoints", HERE / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(HERE))
    return module


tiny_run = load("tiny_run")


def trainer(folder, rows=24, **settings):
    """A training of six steps of four images with a checkpoint every second."""
    settings = {"max_steps": 6, "save_strategy": "steps", "save_steps": 2, "logging_steps": 1} | settings
    return tiny_run.ClarityDistillationTrainer(
        model=tiny_run.tiny_model(),
        args=tiny_run.ClarityTrainingArguments(
            output_dir=str(folder),
            use_cpu=True,
            report_to="none",
            disable_tqdm=True,
            per_device_train_batch_size=4,
            **settings,
        ),
        train_dataset=tiny_run.random_rows(rows),
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Folder of a run with the checkpoints 2, 4 and 6 and their manifests. Read only."""
    folder = tmp_path_factory.mktemp("run") / "out"
    trainer(folder).train()
    return folder


@pytest.fixture
def folder(run, tmp_path):
    """A copy of it to damage."""
    return shutil.copytree(run, tmp_path / "out")


def flip(path, bit):
    content = bytearray(path.read_bytes())
    content[bit // 8 % len(content)] ^= 1 << bit % 8
    path.write_bytes(content)


def test_every_checkpoint_has_a_manifest_with_the_size_and_hash_of_each_file(run):
    for step in (2, 4, 6):
        checkpoint = run / f"checkpoint-{step}"
        listed = json.loads((checkpoint / MANIFEST).read_text())["files"]
        assert listed.keys() == {path.name for path in checkpoint.iterdir()} - {MANIFEST}
        assert listed["model.safetensors"]["bytes"] == (checkpoint / "model.safetensors").stat().st_size
        assert len(listed["model.safetensors"]["blake2b"]) == 32
        assert damage_of(checkpoint, 1) == ""
    assert last_intact_checkpoint(run).name == "checkpoint-6"


FILES = ("model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json", MANIFEST)


@pytest.mark.parametrize("name", FILES[:-1])
def test_a_flipped_bit_is_found_and_the_checkpoint_before_taken(folder, name, caplog):
    chance = random.Random(0)
    checkpoint = folder / "checkpoint-6"
    whole = (checkpoint / name).read_bytes()
    for _ in range(20):
        flip(checkpoint / name, chance.randrange(8 * len(whole)))
        assert damage_of(checkpoint, 1)
        (checkpoint / name).write_bytes(whole)
    assert not damage_of(checkpoint, 1)
    flip(checkpoint / name, chance.randrange(8 * len(whole)))
    with caplog.at_level(logging.WARNING):
        assert last_intact_checkpoint(folder).name == "checkpoint-4"
    assert "checkpoint-6 is damaged and is skipped: " in caplog.text
    assert name in caplog.text


def test_an_unreadable_manifest_or_one_of_a_missing_file_is_damage(folder):
    manifest = folder / "checkpoint-6" / MANIFEST
    written = manifest.read_text()
    changes = (("{", "["), ('"files"', '"image"'), ("optimizer.pt", "optimizes.pt"), ('"blake2b": "', '"blake2b": "0'))
    for old, new in changes:
        manifest.write_text(written.replace(old, new, 1))
        assert damage_of(folder / "checkpoint-6", 1), old


@pytest.mark.parametrize("name", FILES)
def test_a_file_cut_short_is_found(folder, name):
    path = folder / "checkpoint-6" / name
    os.truncate(path, path.stat().st_size // 2)
    assert name in damage_of(folder / "checkpoint-6", 1)


@pytest.mark.parametrize("name", FILES[:-1])
def test_a_missing_file_is_found(folder, name):
    (folder / "checkpoint-6" / name).unlink()
    assert f"{name}" in damage_of(folder / "checkpoint-6", 1)
    assert "missing" in damage_of(folder / "checkpoint-6", 1)


def test_without_a_seal_it_is_of_an_earlier_version_and_torn_files_are_found(folder):
    checkpoint = folder / "checkpoint-6"
    (checkpoint / MANIFEST).unlink()
    assert damage_of(checkpoint, 1) == ""
    for name in FILES[:-1]:
        whole = (checkpoint / name).read_bytes()
        (checkpoint / name).write_bytes(whole[: len(whole) // 2])
        assert name in damage_of(checkpoint, 1), name
        (checkpoint / name).write_bytes(whole)
    tensors = (checkpoint / "optimizer.pt").read_bytes()
    flip(checkpoint / "optimizer.pt", 8 * (len(tensors) // 2))  # inside a tensor
    assert "optimizer.pt" in damage_of(checkpoint, 1)


def test_a_run_without_an_intact_checkpoint_starts_over_with_a_warning(folder, caplog):
    for path in folder.glob("checkpoint-*/optimizer.pt"):
        os.truncate(path, 100)
    with caplog.at_level(logging.WARNING):
        assert last_intact_checkpoint(folder) is None
    assert caplog.text.count("is skipped") == 3
    assert "holds no intact checkpoint: the run starts from its beginning" in caplog.text


def test_a_damaged_checkpoint_that_is_named_is_refused(folder):
    require_intact(folder / "checkpoint-6")
    flip(folder / "checkpoint-6" / "model.safetensors", 9999)
    with pytest.raises(ValueError, match=r"checkpoint-6: model.safetensors has changed since .*\. Delete it"):
        require_intact(folder / "checkpoint-6")


class Damaging(TrainerCallback):
    """Flips a bit of the first checkpoint, the best, after the last save."""

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == 6:
            state.best_model_checkpoint = f"{args.output_dir}/checkpoint-2"
            weights = Path(state.best_model_checkpoint) / "model.safetensors"
            flip(weights, 8 * (weights.stat().st_size - 1))  # a weight, not the header, which would not load


def test_a_damaged_best_checkpoint_does_not_become_the_final_model(tmp_path):
    damaged = trainer(tmp_path)
    damaged.args.load_best_model_at_end = True
    damaged.add_callback(Damaging())
    with pytest.raises(ValueError, match=r"checkpoint-2: model.safetensors has changed since it was written"):
        damaged.train()
    assert best_checkpoint(tmp_path / "checkpoint-6") == f"{tmp_path}/checkpoint-2"


@pytest.mark.parametrize("share", [0.05, 0.5, 0.9])
def test_a_save_without_room_is_named_and_leaves_the_earlier_checkpoint(run, tmp_path, share):
    """By a limit on the size of files, in place of a full disk: within weights or optimizer."""
    out = tmp_path / "out"
    out.mkdir()
    shutil.copytree(run / "checkpoint-2", out / "checkpoint-2")
    largest = (run / "checkpoint-2" / "optimizer.pt").stat().st_size
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    disturbed = trainer(out)
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(share * largest), limits[1]))
    try:
        with (
            pytest.raises(OSError, match=r"must have room for a checkpoint, got a failure while .*checkpoint-4 was"),
            named_save_failures(disturbed),
        ):
            disturbed.train(resume_from_checkpoint=str(out / "checkpoint-2"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert damage_of(out / "checkpoint-4", 1)
    assert last_intact_checkpoint(out).name == "checkpoint-2"
    trainer(out).train(resume_from_checkpoint=str(last_intact_checkpoint(out)))
    weights = (each / "checkpoint-6" / "model.safetensors" for each in (run, out))
    assert next(weights).read_bytes() == next(weights).read_bytes()


def test_other_errors_of_a_training_stay_as_they_are(tmp_path):
    failing = trainer(tmp_path)
    with pytest.raises(RuntimeError, match=r"^ours$"), named_save_failures(failing):
        raise RuntimeError("ours")


class WorkerKiller(TrainerCallback):
    """Kills the process that reads images."""

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == 3:
            (reader,) = psutil.Process().children()
            reader.kill()


def train_and_lose_a_worker(folder):
    """To be run in a process of its own: torch may raise the loss of a worker anywhere."""
    lost = trainer(folder, rows=400, dataloader_num_workers=1, dataloader_prefetch_factor=1)
    lost.add_callback(WorkerKiller())
    lost.train()


def test_a_run_that_lost_a_worker_ends_with_an_error_and_can_be_resumed(tmp_path):
    code = f"import runpy; runpy.run_path({__file__!r})['train_and_lose_a_worker']({str(tmp_path)!r})"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert result.returncode == 1, result.stderr
    assert last_intact_checkpoint(tmp_path).name == "checkpoint-2"


# Which checkpoint a run resumes from, and which folders are refused


class Arguments(ClarityTrainingArguments):
    """Of one of several processes that are not there."""

    processes = 1
    world_size = property(lambda self: self.processes)
    should_save = True


def arguments(folder, processes=1, **changes):
    args = Arguments(output_dir=str(folder), use_cpu=True, report_to="none", **changes)
    args.processes = processes
    return args


def write_checkpoint(folder, step, random_states, state="{}", optimizer=True):
    """A checkpoint with the files that are looked at."""
    checkpoint = Path(folder) / f"checkpoint-{step}"
    checkpoint.mkdir(parents=True)
    save_file({"weight": torch.zeros(2)}, checkpoint / "model.safetensors")
    if optimizer:
        torch.save({}, checkpoint / "optimizer.pt")
    for name in random_states:
        torch.save({}, checkpoint / f"rng_state{name}.pth")
    (checkpoint / "trainer_state.json").write_text(state)
    return checkpoint


ONE, TWO, FOUR = [""], ["_0", "_1"], ["_0", "_1", "_2", "_3"]


@pytest.mark.parametrize(("before", "states", "now"), [(1, ONE, 2), (2, TWO, 1), (2, TWO, 4), (4, FOUR, 2)])
def test_a_run_of_another_number_of_processes_is_refused(tmp_path, before, states, now):
    assert last_checkpoint(arguments(tmp_path, before), {}) is None
    checkpoint = write_checkpoint(tmp_path, 4, states)
    assert last_checkpoint(arguments(tmp_path, before), {}) == str(checkpoint)
    text = f"with {now} processes, got .*checkpoint-4 of {before}. Start as many processes as before, or give another"
    with pytest.raises(ValueError, match=text):
        last_checkpoint(arguments(tmp_path, now), {})
    (tmp_path / "run.json").unlink()
    with pytest.raises(ValueError, match=text):
        last_intact_checkpoint(tmp_path, now)


def test_a_checkpoint_without_a_killed_processs_random_state_is_skipped(tmp_path):
    args = arguments(tmp_path, 4)
    assert last_checkpoint(args, {}) is None
    whole = write_checkpoint(tmp_path, 4, FOUR)
    write_checkpoint(tmp_path, 6, TWO)
    assert last_checkpoint(args, {}) == str(whole)
    with pytest.raises(ValueError, match="checkpoint-6 of 4"):  # two are left, but it is not a run of two
        last_checkpoint(arguments(tmp_path, 2), {})


def test_where_no_checkpoint_was_finished_the_run_starts_from_scratch(tmp_path):
    args = arguments(tmp_path, 2)
    assert last_checkpoint(args, {}) is None
    write_checkpoint(tmp_path, 4, TWO, state='{"epoch": 1.0,')
    checkpoint = write_checkpoint(tmp_path, 6, ["_0"])
    assert damage_of(checkpoint, 2)
    assert last_checkpoint(args, {}) is None


def test_weights_alone_are_not_resumed(tmp_path):
    args = arguments(tmp_path)
    assert last_checkpoint(args, {}) is None
    write_checkpoint(tmp_path, 4, [], optimizer=False)
    with pytest.raises(ValueError, match=r"with weights alone: it cannot be resumed\. Leave --save_only_model out"):
        last_checkpoint(args, {})


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"data_seed": 1},
        {"per_device_train_batch_size": 4},
        {"gradient_accumulation_steps": 2},
        {"learning_rate": 1e-3},
        {"weight_decay": 0.0},
        {"layer_decay": 0.65},
        {"optim": "sgd"},
        {"adam_beta1": 0.8},
        {"adam_beta2": 0.95},
        {"adam_epsilon": 1e-6},
        {"distillation_alpha": 0.1},
        {"distillation_temperature": 2.0},
        {"muon_iterations": 3},
    ],
)
def test_a_run_with_other_settings_of_the_trainer_is_refused(tmp_path, change):
    assert last_checkpoint(arguments(tmp_path), {"image_size": 64}) is None
    checkpoint = write_checkpoint(tmp_path, 4, ONE)
    assert last_checkpoint(arguments(tmp_path), {"image_size": 64}) == str(checkpoint)
    with pytest.raises(ValueError, match=rf"a run that differs in \['{next(iter(change))}'\]"):
        last_checkpoint(arguments(tmp_path, **change), {"image_size": 64})


def test_patch_dropout_cannot_be_added_to_a_run_without_it(tmp_path):
    assert last_checkpoint(arguments(tmp_path), {}) is None
    write_checkpoint(tmp_path, 4, ONE)
    with pytest.raises(ValueError, match=r"a run that differs in \['patch_dropout', 'patch_dropout_epochs'\]"):
        last_checkpoint(arguments(tmp_path, patch_dropout=0.5, patch_dropout_epochs=1.0), {})


def test_a_run_with_muon_in_place_of_adamw_is_refused(tmp_path):
    assert last_checkpoint(arguments(tmp_path), {}) is None
    write_checkpoint(tmp_path, 4, ONE)
    with pytest.raises(ValueError, match=r"a run that differs in \['adam_beta2', 'matrix_optimizer'\]"):
        last_checkpoint(arguments(tmp_path, matrix_optimizer="muon"), {})
    with pytest.raises(ValueError, match=r"a run that differs in \['matrix_optimizer'\]"):
        last_checkpoint(arguments(tmp_path, matrix_optimizer="muon", adam_beta2=0.999), {})


def test_a_run_may_be_prolonged(tmp_path):
    assert last_checkpoint(arguments(tmp_path, max_steps=4), {}) is None
    checkpoint = write_checkpoint(tmp_path, 4, ONE)
    assert last_checkpoint(arguments(tmp_path, max_steps=8, num_train_epochs=9), {}) == str(checkpoint)


def test_a_run_of_an_earlier_version_without_recorded_settings_resumes(tmp_path):
    (tmp_path / "run.json").write_text(json.dumps({"image_size": 64}))
    checkpoint = write_checkpoint(tmp_path, 4, ONE)
    assert last_checkpoint(arguments(tmp_path, seed=3), {"image_size": 64}) == str(checkpoint)


def test_checkpoints_of_an_unknown_run_are_refused(tmp_path):
    write_checkpoint(tmp_path, 4, ONE)
    with pytest.raises(ValueError, match=r"must hold run.json beside its checkpoints, got .*checkpoint-4 of an"):
        last_checkpoint(arguments(tmp_path), {})
    assert not (tmp_path / "run.json").exists()


@pytest.mark.parametrize("text", ['{"seed": 1', "[1, 2]", "null"])
def test_a_damaged_record_of_the_run_is_refused(tmp_path, text):
    write_checkpoint(tmp_path, 4, ONE)
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(ValueError, match=r"must hold a readable run.json, got .*Give another --output_dir"):
        last_checkpoint(arguments(tmp_path), {})
