# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""`clarity-hf publish`: output, files and errors."""

import shutil

import pytest
import torch
from safetensors.torch import load_file

from clarity_hf.cli import main

CARD = "---\nlicense: apache-2.0\nlibrary_name: transformers\npipeline_tag: image-classification\n---\n\n# Tiny\n"


@pytest.fixture
def run(tiny_checkpoint, tmp_path, monkeypatch, capsys):
    """Run the command beside a folder `run` with card: exit status, standard output, standard error."""
    shutil.copytree(tiny_checkpoint, tmp_path / "run")
    (tmp_path / "run" / "README.md").write_text(CARD)
    (tmp_path / "run" / "training_args.bin").write_bytes(b"\x80\x04.")
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        status = main(["publish", *arguments])
        captured = capsys.readouterr()
        return status, captured.out.splitlines(), captured.err

    return call


def test_a_folder_gets_the_files_that_are_listed_with_their_sizes(run, tmp_path):
    status, lines, _ = run("run", "./published", "--half")
    assert status == 0
    assert lines[-2:] == ["left out: training_args.bin", "published published"]
    listed = {name: size for size, unit, name in (line.split() for line in lines[:-2])}
    written = {path.name: path for path in (tmp_path / "published").iterdir()}
    assert set(listed) == set(written)
    assert lines[0].endswith(" kB  model.safetensors")
    assert listed["model.safetensors"] == f"{written['model.safetensors'].stat().st_size / 1e3:,.0f}"
    assert {tensor.dtype for tensor in load_file(written["model.safetensors"]).values()} == {torch.float16}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("run", "owner/name"), "error: `destination` must be a folder in offline mode"),
        (("nowhere", "./published"), "error: No such checkpoint: 'nowhere'"),
        (("run", "./published", "--private"), "error: `private` and `commit_message` must be left out for a folder"),
        (("run", "run"), "error: `folder` must be new or empty"),
    ],
)
def test_a_publication_that_is_refused_writes_nothing(run, tmp_path, arguments, message):
    status, lines, err = run(*arguments)
    assert (status, lines) == (1, [])
    assert message in err
    assert not (tmp_path / "published").exists()
