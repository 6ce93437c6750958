# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Commands as reports show them: whole, and without folders of the machine."""

import pytest
import typer

from clarity_hf.cli import app
from clarity_hf.cli.common import published_command, published_word, words_of


@pytest.mark.parametrize(
    ("word", "shown"),
    [
        ("--films", "--films"),
        ("4", "4"),
        ("owner/model", "owner/model"),
        ("phantom", "phantom"),
        ("/home/someone/films.csv", "films.csv"),
        ("someone/private/films.csv", "films.csv"),
        ("--output_dir=/home/someone/report", "--output_dir=report"),
        ("--output_dir=someone/report", "--output_dir=report"),
        ("--teacher=owner/model", "--teacher=owner/model"),
        ("~/films", "films"),
    ],
)
def test_words_lose_their_folders(word, shown):
    assert published_word(word) == shown


def test_what_is_here_loses_its_folder_and_a_dot_gets_a_name(tmp_path, monkeypatch):
    (tmp_path / "someone").mkdir()
    (tmp_path / "someone" / "films.csv").touch()
    monkeypatch.chdir(tmp_path / "someone")
    assert published_word(".") == "someone"
    assert published_word("films.csv") == "films.csv"
    monkeypatch.chdir(tmp_path)
    assert published_word("someone/films.csv") == "films.csv"


def test_a_command_is_quoted_and_its_output_folder_need_not_be_there():
    words = ["owner/model", "/data/all films", "--output_dir", "someone/report", "--seed", "1"]
    shown = "python examples/x.py owner/model 'all films' --output_dir report --seed 1"
    assert published_command("python examples/x.py", words) == shown


def context_of(*words):
    return typer.main.get_command(app).commands["evaluate"].make_context("evaluate", list(words))


def test_the_words_of_a_command_are_its_arguments_and_what_differs_from_the_defaults():
    assert words_of(context_of("a", "b", "--split", "test", "--seed", "0", "--cases")) == ["a", "b"]
    given = ["--no-cases", "--baseline", "rollout", "--films=4", "--split", "train", "a", "--baseline", "cam", "b"]
    words = ["a", "b", "--split", "train", "--films", "4", "--baseline", "rollout", "--baseline", "cam", "--no-cases"]
    assert words_of(context_of(*given)) == words
    assert context_of(*words).params == context_of(*given).params
