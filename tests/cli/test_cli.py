# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""The command line: exit statuses, and `predict` over good and bad films and over two processes."""

import json

import pytest
from PIL import Image

from clarity_hf.cli import main


@pytest.fixture
def call(tiny_checkpoint, film, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "films").mkdir()
    for index in range(3):
        Image.fromarray(film).save(f"films/{index}.png")

    def predict(*arguments):
        return main(["predict", "films", "--model", str(tiny_checkpoint), "--device", "cpu", *arguments])

    return predict


def predicted(folder):
    return [json.loads(line)["film"] for line in (folder / "findings.jsonl").read_text().splitlines()]


def test_all_done_is_0_some_failed_is_3_and_none_is_1(call, tmp_path, capsys):
    assert call("--output-dir", "out", "--csv") == 0
    assert predicted(tmp_path / "out") == ["0.png", "1.png", "2.png"]
    (tmp_path / "films" / "3.png").write_bytes(b"junk")
    assert call("--output-dir", "out", "--csv") == 3
    assert "0 films predicted, 3 done before, 1 failed" in capsys.readouterr().out
    for index in range(3):
        (tmp_path / "films" / f"{index}.png").write_bytes(b"junk")
    assert call("--output-dir", "other") == 1


def test_processes_are_told_by_the_environment(call, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in "01":
        monkeypatch.setenv("RANK", rank)
        assert call() == 0
    assert sorted(predicted(tmp_path / "predictions")) == ["0.png", "1.png", "2.png"]


@pytest.mark.parametrize("words", [["predict"], ["nothing"], ["predict", "nowhere.png"], ["predict", "--batch-size"]])
def test_wrong_arguments_are_1(words, capsys):
    assert main(words) == 1
    assert "rror" in capsys.readouterr().err


def test_another_threshold_in_the_same_folder_is_refused(call, capsys):
    assert call() == 0
    assert call("--threshold", "0.25") == 1
    assert "score_thresholds" in capsys.readouterr().err
