# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Hyphens and underscores, lists and repeated options: every command takes both."""

import pytest
import typer

from clarity_hf.cli import app, main
from clarity_hf.cli.evaluate import Baseline
from clarity_hf.cli.spelling import spread
from clarity_hf.evaluation.run import BASELINES
from clarity_hf.training.arguments import ClarityTrainingArguments, parse_arguments

COMMANDS = typer.main.get_command(app).commands
CHOICES = {name: ["cam", "random", "none"] for name in ("--baselines", "--baseline")}

VALUES = {"--split": "train", "--rule": "f1", "--rare": "kept", "--format": "onnx", "--precision": "fp32"}
VALUES |= {"--uncertain": "nan", "--empty": "nan"}
VALUES |= {"--baselines": "cam", "--baseline": "cam", "--findings": "Mass", "--finding": "Mass"}


def parsed(command, *words):
    return COMMANDS[command].make_context(command, list(words)).params


@pytest.mark.parametrize("command", sorted(set(COMMANDS) - {"train"}))
def test_every_long_option_is_taken_in_both_spellings(command):
    arguments = ["x" for parameter in COMMANDS[command].params if parameter.param_type_name == "argument"]
    for parameter in COMMANDS[command].params:
        for option in (*parameter.opts, *parameter.secondary_opts):
            if parameter.param_type_name != "option" or not option.startswith("--") or option == "--help":
                continue
            value = [] if parameter.is_flag else [VALUES.get(option, "1")]
            spelt = parsed(command, *arguments, option, *value)
            underscored = "--" + option[2:].replace("-", "_")
            assert parsed(command, *arguments, underscored, *value) == spelt, option


def test_train_takes_both_spellings_too(tmp_path):
    for name in ("--per_device_train_batch_size", "--per-device-train-batch-size"):
        (args,) = parse_arguments((ClarityTrainingArguments,), {}, ["--output_dir", str(tmp_path), name, "3"])
        assert args.per_device_train_batch_size == 3


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--baselines", "cam", "random"], ["cam", "random"]),
        (["--baseline", "cam", "--baseline", "random"], ["cam", "random"]),
        (["--baselines", "cam", "--baseline", "random"], ["cam", "random"]),
        (["--baseline=cam"], ["cam"]),
        (["--baselines", "none"], ["none"]),
        (["--baselines"], ["none"]),
        (["--baselines", "--no_cases"], ["none"]),
    ],
)
def test_lists_and_repeated_options_are_alike(words, expected):
    for placed in (["model", "data", *words], [*words, "--split", "test", "model", "data"]):
        params = parsed("evaluate", *placed)
        assert [str(getattr(one, "value", one)) for one in params["baselines"]] == expected
        assert (params["model"], params["data"]) == ("model", "data")


def test_findings_of_a_phantom_are_a_list_as_well():
    for words in (["--findings", "Mass", "Nodule"], ["--finding", "Mass", "--finding", "Nodule"]):
        assert [str(getattr(one, "value", one)) for one in parsed("phantom", "x", *words)["findings"]] == [
            "Mass",
            "Nodule",
        ]


def test_a_list_ends_at_a_word_that_is_not_a_choice():
    assert spread(["--baseline", "cam", "model"], CHOICES) == ["--baseline", "cam", "model"]
    assert spread(["--baselines", "cam", "random", "model"], CHOICES)[-1] == "model"
    assert spread(["--baselines", "unknown"], CHOICES) == ["--baselines", "unknown"]


def test_an_unknown_baseline_is_refused_before_a_model_is_loaded(capsys):
    assert main(["evaluate", "nowhere", "phantom", "--baselines", "magic"]) == 1
    assert "magic" in capsys.readouterr().err


def test_the_choices_are_the_baselines():
    assert [baseline.value for baseline in Baseline] == [*BASELINES, "none"]
