# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""examples/write_splits.py: lists from tables written here, and the committed ones from the release's own."""

import gzip
import importlib.util
import shutil
import sys
from pathlib import Path

import pytest

from clarity_hf.data.named_splits import (
    CHECKPOINT_TRAIN,
    CLARITY_VALIDATION,
    NIH_VALIDATION,
    SPLIT_FOLDER,
    SPLITS,
    TUNING_HALVES,
)
from clarity_hf.phantoms import write_phantoms

SCRIPT = Path(__file__).parents[2] / "examples" / "write_splits.py"
BOX_HEADER = "Image Index,Finding Label,Bbox [x,y,w,h],,,"


@pytest.fixture
def run(monkeypatch):
    spec = importlib.util.spec_from_file_location("write_splits", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["write_splits.py", *map(str, arguments)])
        return script.main()

    return call


@pytest.fixture
def tables(tmp_path):
    """Twenty patients in the train list, two images each, and boxes on four others."""
    folder = tmp_path / "tables"
    folder.mkdir()
    images = [f"{patient:08d}_{visit:03d}.png" for patient in range(1, 21) for visit in range(2)]
    (folder / "train_val_list.txt").write_text("\n".join(images))
    boxes = [f"{patient:08d}_000.png,{name},1,2,3,4,,," for patient in range(21, 25) for name in ("Mass", "Nodule")]
    (folder / "BBox_List_2017.csv").write_text("\n".join([BOX_HEADER, *boxes]) + "\n")
    return folder


def test_a_fifth_of_the_train_list_and_half_of_the_boxed_patients_are_written(run, tables, tmp_path, capsys):
    assert run(tables, "--output_dir", tmp_path / "lists") == 0
    assert sorted(path.stem for path in (tmp_path / "lists").iterdir()) == sorted([NIH_VALIDATION, *TUNING_HALVES])
    # SHA-256 of "0:00000001" and so on, the four lowest.
    assert (tmp_path / "lists" / "nih-validation.txt").read_text() == (
        "# nih-validation\n"
        "# Validation patients of NIH ChestX-ray14: 20% of the 20 patients of\n"
        "# train_val_list.txt, those whose SHA-256 of '0:PATIENT' is lowest.\n"
        "# 4 patients, one a line. Made by: python examples/write_splits.py RELEASE_FOLDER\n"
        "00000010\n00000012\n00000014\n00000016\n"
    )
    rows = (tmp_path / "lists" / "nih-boxes-tuning-3.txt").read_text().splitlines()
    assert "half of the 4 patients of BBox_List_2017.csv" in rows[1]
    assert len([row for row in rows if not row.startswith("#")]) == 2
    assert "nih-validation.txt: 4 patients\nnih-boxes-tuning-0.txt: 2 patients\n" in capsys.readouterr().out


def test_its_images_give_the_lists_of_the_packaged_checkpoint(run, tables, tmp_path):
    write_phantoms(tmp_path / "subset", 10, seed=0, size=32)
    folders = ("--subset", tmp_path / "subset", "--images", tables)
    assert run(tables, *folders, "--output_dir", tmp_path / "lists") == 0
    lists = {path.stem: set(path.read_text().splitlines()[3:]) for path in (tmp_path / "lists").iterdir()}
    assert sorted(lists) == sorted(SPLITS)
    assert not lists[CHECKPOINT_TRAIN] & lists[CLARITY_VALIDATION]
    # The later stages saw every patient of the train list who is not held out.
    assert {f"{patient:08d}" for patient in range(1, 21)} <= lists[CHECKPOINT_TRAIN] | lists[CLARITY_VALIDATION]
    assert "00000001" in lists[CHECKPOINT_TRAIN]


def test_both_folders_of_the_checkpoint_are_given_or_neither(run, tables, capsys):
    with pytest.raises(SystemExit):
        run(tables, "--subset", tables)
    assert "--subset and --images: give both or neither" in capsys.readouterr().err


@pytest.mark.parametrize("missing", ["train_val_list.txt", "BBox_List_2017.csv"])
def test_a_missing_table_is_an_error_and_nothing_is_written(run, tables, tmp_path, capsys, missing):
    (tables / missing).unlink()
    assert run(tables, "--output_dir", tmp_path / "lists") == 1
    assert f"error: `release` must hold {missing}, got" in capsys.readouterr().err
    assert not (tmp_path / "lists").exists()


def test_the_committed_lists_come_from_the_tables_byte_for_byte(run, nih_folder, tmp_path):
    images = nih_folder.with_name("nih-train-240")
    if not images.is_dir():
        pytest.skip("no real NIH images here: nih-train-240 beside CLARITY_HF_NIH_DIR")
    for packed in (nih_folder / "full-release-metadata").glob("*.gz"):
        with gzip.open(packed) as source, (tmp_path / packed.stem).open("wb") as target:
            shutil.copyfileobj(source, target)
    assert run(tmp_path, "--subset", nih_folder, "--images", images, "--output_dir", tmp_path / "lists") == 0
    for name in SPLITS:
        assert (tmp_path / "lists" / f"{name}.txt").read_bytes() == (SPLIT_FOLDER / f"{name}.txt").read_bytes()
