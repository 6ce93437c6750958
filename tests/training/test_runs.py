# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Which checkpoint a run goes on from, and which folders are refused."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest
import torch
from safetensors.torch import save_file

from clarity_hf.training import ClarityTrainingArguments
from clarity_hf.training.checkpoint_manifest import is_whole, last_whole_checkpoint
from clarity_hf.training.runs import last_checkpoint, parse_arguments, to_flags


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
        last_whole_checkpoint(tmp_path, now)


def test_a_checkpoint_that_lacks_a_killed_processs_random_state_is_passed_over(tmp_path):
    args = arguments(tmp_path, 4)
    assert last_checkpoint(args, {}) is None
    whole = write_checkpoint(tmp_path, 4, FOUR)
    write_checkpoint(tmp_path, 6, TWO)
    assert last_checkpoint(args, {}) == str(whole)
    with pytest.raises(ValueError, match="checkpoint-6 of 4"):  # two are there: it is no run of two for that
        last_checkpoint(arguments(tmp_path, 2), {})


def test_where_no_checkpoint_was_finished_the_run_starts_from_scratch(tmp_path):
    args = arguments(tmp_path, 2)
    assert last_checkpoint(args, {}) is None
    write_checkpoint(tmp_path, 4, TWO, state='{"epoch": 1.0,')
    checkpoint = write_checkpoint(tmp_path, 6, ["_0"])
    assert not is_whole(checkpoint, 2)
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
    ],
)
def test_other_settings_of_the_trainer_are_another_run(tmp_path, change):
    assert last_checkpoint(arguments(tmp_path), {"image_size": 64}) is None
    checkpoint = write_checkpoint(tmp_path, 4, ONE)
    assert last_checkpoint(arguments(tmp_path), {"image_size": 64}) == str(checkpoint)
    with pytest.raises(ValueError, match=rf"a run that differs in \['{next(iter(change))}'\]"):
        last_checkpoint(arguments(tmp_path, **change), {"image_size": 64})


def test_muon_in_place_of_adamw_is_another_run(tmp_path):
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


def test_a_record_without_the_trainers_settings_is_of_an_earlier_version_and_goes_on(tmp_path):
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


# Arguments from a file


@dataclass
class Settings:
    """Some arguments of a script."""

    names: list[str] = field(default_factory=list)
    kind: Literal["one", "two"] = "one"
    rate: float = 1.0
    config: str | None = None
    quick: bool = False


def stage(tmp_path, text):
    path = tmp_path / "stage.yaml"
    path.write_text(text)
    return str(path)


def test_a_file_of_arguments_stands_between_the_defaults_and_the_command_line(tmp_path):
    path = stage(tmp_path, "names: [a, b]\nrate: 2.0e-3\nconfig: {pooling: mean}\nquick: true\n")
    (found,) = parse_arguments((Settings,), {"kind": "two", "rate": 5.0}, [path, "--rate", "3"])
    assert found == Settings(["a", "b"], "two", 3.0, '{"pooling": "mean"}', True)
    (plain,) = parse_arguments((Settings,), {"rate": 5.0}, ["--kind", "two"])
    assert plain == Settings(kind="two", rate=5.0)


def test_a_file_may_be_json_spell_with_hyphens_and_have_nulls(tmp_path):
    @dataclass
    class Longer(Settings):
        batch_size: int = 8

    text = '{"names": ["a"], "config": null, "rate": null, "batch-size": 4, "quick": true}'
    (tmp_path / "stage.json").write_text(text)
    (found,) = parse_arguments((Longer,), {"rate": 5.0}, [str(tmp_path / "stage.json")])
    assert found == Longer(names=["a"], rate=5.0, quick=True, batch_size=4)
    (found,) = parse_arguments((Longer,), {}, [stage(tmp_path, "batch_size: 4\nconfig: null\nkind: ~\n")])
    assert found == Longer(batch_size=4)


@pytest.mark.parametrize("text", ["rates: 2\n", "- rate\n", "kind: three\n", ""])
def test_a_file_of_other_things_is_refused(tmp_path, text, capsys):
    with pytest.raises((ValueError, SystemExit)):
        parse_arguments((Settings,), {}, [stage(tmp_path, text)])


def test_flags_are_words_of_a_command_line():
    flags = to_flags({"config": {"a": False}, "image_mean": [0.5, 0.6], "bf16": True, "seed": 3})
    assert flags == ["--config", '{"a": false}', "--image_mean", "0.5", "0.6", "--bf16", "True", "--seed", "3"]
