# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Files that take their places whole or not at all."""

import os

import pytest

from clarity_hf.files import move_files, remove_unfinished, replaced_file, replaced_files


def test_files_take_their_places_at_the_end_and_others_stay(tmp_path):
    (tmp_path / "config.json").write_text("old")
    (tmp_path / "README.md").write_text("mine")
    with replaced_files(tmp_path) as made:
        (made / "config.json").write_text("new")
        assert (tmp_path / "config.json").read_text() == "old"
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"config.json": "new", "README.md": "mine"}


def test_a_writer_that_fails_leaves_the_folder_as_it_was(tmp_path):
    (tmp_path / "config.json").write_text("old")

    def fail():
        with replaced_files(tmp_path) as made:
            (made / "config.json").write_text("half")
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        fail()
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"config.json": "old"}


@pytest.mark.parametrize("durable", [False, True])
def test_a_file_takes_its_place_at_the_end(tmp_path, durable):
    path = tmp_path / "new" / "lines.jsonl"
    for text in ("old", "new"):
        with replaced_file(path, durable) as made:
            made.write_text(text)
            assert not path.exists() or path.read_text() == "old"
        assert path.read_text() == text
    assert list(path.parent.iterdir()) == [path]


def test_a_file_whose_writer_fails_stays_as_it_was(tmp_path):
    (tmp_path / "lines.jsonl").write_text("old")

    def fail():
        with replaced_file(tmp_path / "lines.jsonl") as made:
            made.write_text("half")
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        fail()
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"lines.jsonl": "old"}


def test_what_killed_writers_left_is_removed_and_hidden_files_of_others_stay(tmp_path):
    (tmp_path / "inside" / ".unfinished-0").mkdir(parents=True)
    (tmp_path / "inside" / ".unfinished-0" / "half.dcm").write_text("")
    (tmp_path / ".unfinished-1").write_text("")
    (tmp_path / ".mine").write_text("")
    remove_unfinished(tmp_path)
    assert sorted(path.name for path in tmp_path.rglob("*")) == [".mine", "inside"]


def test_weights_move_last(tmp_path, monkeypatch):
    moved, replace = [], os.replace
    monkeypatch.setattr(os, "replace", lambda *paths: (moved.append(paths[1].name), replace(*paths)))
    staging = tmp_path / "staging"
    staging.mkdir()
    for name in ("a.safetensors", "config.json", "z.json"):
        (staging / name).write_text(name)
    move_files(staging, tmp_path)
    assert moved == ["config.json", "z.json", "a.safetensors"]
    assert list(staging.iterdir()) == []
