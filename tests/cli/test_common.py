# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Commands as reports show them: whole, and without folders of the machine."""

import json

import numpy as np
import pytest
import typer
from PIL import Image

from clarity_hf.cli import app, main
from clarity_hf.cli.common import load_service, published_command, published_word, words_of
from clarity_hf.inference import engines


@pytest.mark.parametrize(
    ("word", "shown"),
    [
        ("--images", "--images"),
        ("4", "4"),
        ("owner/model", "owner/model"),
        ("phantom", "phantom"),
        ("/home/someone/images.csv", "images.csv"),
        ("someone/private/images.csv", "images.csv"),
        ("--output_dir=/home/someone/report", "--output_dir=report"),
        ("--output_dir=someone/report", "--output_dir=report"),
        ("--teacher=owner/model", "--teacher=owner/model"),
        ("~/images", "images"),
    ],
)
def test_words_lose_their_folders(word, shown):
    assert published_word(word) == shown


def test_what_is_here_loses_its_folder_and_a_dot_gets_a_name(tmp_path, monkeypatch):
    (tmp_path / "someone").mkdir()
    (tmp_path / "someone" / "images.csv").touch()
    monkeypatch.chdir(tmp_path / "someone")
    assert published_word(".") == "someone"
    assert published_word("images.csv") == "images.csv"
    monkeypatch.chdir(tmp_path)
    assert published_word("someone/images.csv") == "images.csv"


def test_a_command_is_quoted_and_its_output_folder_need_not_be_there():
    words = ["owner/model", "/data/all images", "--output_dir", "someone/report", "--seed", "1"]
    shown = "python examples/x.py owner/model 'all images' --output_dir report --seed 1"
    assert published_command("python examples/x.py", words) == shown


def context_of(*words):
    return typer.main.get_command(app).commands["evaluate"].make_context("evaluate", list(words))


def test_the_words_of_a_command_are_its_arguments_and_what_differs_from_the_defaults():
    assert words_of(context_of("a", "b", "--split", "test", "--seed", "0", "--cases")) == ["a", "b"]
    given = ["--no-cases", "--baseline", "rollout", "--images=4", "--split", "train", "a", "--baseline", "cam", "b"]
    words = ["a", "b", "--split", "train", "--images", "4", "--baseline", "rollout", "--baseline", "cam", "--no-cases"]
    assert words_of(context_of(*given)) == words
    assert context_of(*words).params == context_of(*given).params


def test_predict_warns_of_images_that_are_not_radiographs_or_refuses_them(tiny_checkpoint, tmp_path, capsys):
    noise = np.random.default_rng(0).integers(0, 256, (100, 128)).astype(np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    words = ["predict", str(tmp_path / "noise.png"), "--model", str(tiny_checkpoint), "--device", "cpu"]
    assert main([*words, "--output-dir", str(tmp_path / "warned")]) == 0
    warning = "warning: 1 of these images do not look like a frontal chest radiograph"
    assert warning in capsys.readouterr().err
    assert main([*words, "--output-dir", str(tmp_path / "refused"), "--radiograph-check", "refuse"]) == 1
    assert "noise.png: `noise.png` does not look like a frontal" in capsys.readouterr().err
    reason = json.loads((tmp_path / "refused" / "failed.jsonl").read_text())["reason"]
    assert reason.startswith("`noise.png` does not look like a frontal chest radiograph")
    assert main([*words, "--output-dir", str(tmp_path / "other"), "--radiograph-check", "maybe"]) == 1
    assert "`radiograph_check` must be one of warn, refuse, off, got 'maybe'" in capsys.readouterr().err


def test_an_unknown_model_name_is_refused_with_the_known_ones(image, tmp_path, capsys):
    Image.fromarray(image).save(tmp_path / "image.png")
    words = ["predict", str(tmp_path / "image.png"), "--model", "nosuch", "--output-dir", str(tmp_path / "out")]
    assert main(words) == 1
    assert "No such model: 'nosuch'. Pass a packaged checkpoint (clarity-s16-224), a folder" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["runs/mien", "./mien", "/mien/a", "a/b/c"])
def test_a_mistyped_folder_is_not_looked_for_on_the_hub(tmp_path, monkeypatch, capsys, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    assert main(["evaluate", name, "phantom"]) == 1
    assert f"No such folder: '{name}'. Pass the folder of a model, or a Hub id" in capsys.readouterr().err


@pytest.mark.parametrize(("command", "words"), [("demo", []), ("serve-dicom", ["queue"])])
def test_a_service_computes_in_torch_unless_another_engine_is_chosen(command, words):
    click_command = typer.main.get_command(app).commands[command]
    assert click_command.make_context(command, words).params["engine"] == "torch"
    chosen = click_command.make_context(command, [*words, "--engine", "onnx", "--precision", "int8"]).params
    assert (chosen["engine"], chosen["precision"]) == ("onnx", "int8")


def test_a_service_with_engine_auto_tries_exports_as_for_many_images(tiny_checkpoint, monkeypatch, capsys):
    tried = []
    monkeypatch.setattr(engines, "LIBRARIES", {"onnx": "torch"})
    monkeypatch.setattr(engines, "_try", lambda pipeline, *pair: tried.append(pair))
    assert load_service(str(tiny_checkpoint), "cpu", "auto", None).engine is None
    assert tried == [("onnx", "fp32")]
    assert load_service(str(tiny_checkpoint), "cpu", "torch", "bf16").engine.name == "torch bf16"
    assert capsys.readouterr().err == "engine: torch bf16\n"
