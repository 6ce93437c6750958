# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""examples/finetune.py: from a table of images to a folder that the pipeline loads."""

import csv
import importlib.util
import sys
from pathlib import Path

import pytest
import torch
from transformers import pipeline

import clarity_hf
from clarity_hf.export.publishing import prepare_publication
from clarity_hf.phantoms import draw_phantom

SCRIPT = Path(__file__).parents[2] / "examples" / "finetune.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("finetune", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.PHANTOMS, module.PHANTOM_SIZE = 16, 64
    return module


@pytest.fixture
def run(script, tiny_checkpoint, tmp_path, monkeypatch, capsys):
    """Run the command on the tiny model: the folder it leaves, its standard output."""

    def call(*arguments):
        options = ["--model", str(tiny_checkpoint), "--output_dir", str(tmp_path / "run"), "--epochs", "1"]
        monkeypatch.setattr(sys, "argv", ["finetune.py", *arguments, *options])
        script.main()
        return tmp_path / "run", capsys.readouterr().out

    return call


def test_without_a_table_it_makes_one_up_and_trains_on_it(run, tiny_checkpoint):
    folder, out = run()
    rows = list(csv.DictReader((folder / "images.csv").open()))
    assert len(rows) == 16
    assert list(rows[0]) == ["path", "patient_id", "Cardiomegaly", "Effusion", "Opacity"]
    assert all({row[name] for row in rows} == {"0", "1"} for name in ("Cardiomegaly", "Effusion", "Opacity"))
    assert "2 kept (Cardiomegaly, Effusion); 1 new (Opacity); 12 dropped" in out
    assert out.strip().splitlines()[-1].startswith(f"saved {folder}: validation AUROC ")
    assert out.strip().endswith("(4 images)")

    assert not list(folder.rglob("*.bin"))
    assert "Trained on 12 images of images;" in (folder / "README.md").read_text(encoding="utf-8")
    prepare_publication(folder, folder.parent / "published")
    localizer = pipeline(clarity_hf.TASK, model=str(folder), device="cpu")
    findings = localizer(draw_phantom(0, 64).image)
    assert {finding["label"] for finding in findings} == {"Cardiomegaly", "Effusion", "Opacity"}
    assert len(localizer.model.config.score_thresholds) == 3
    before = clarity_hf.ClarityForMultiLabelLocalization.from_pretrained(tiny_checkpoint).state_dict()
    after = localizer.model.state_dict()
    moved = [name for name in after if after[name].shape == before[name].shape]
    assert any(not torch.equal(after[name], before[name]) for name in moved)


def test_a_table_of_ones_own_gives_its_findings(run, script, tmp_path):
    table = script.write_made_up_table(tmp_path / "own")
    text = table.read_text().replace("Opacity", "Own_Finding").replace("Effusion", "Pleural Effusion")
    table.write_text(text)
    folder, out = run(str(table))
    assert "1 new (Own_Finding)" in out
    model = clarity_hf.ClarityForMultiLabelLocalization.from_pretrained(folder)
    assert model.config.findings == ["Cardiomegaly", "Effusion", "Own_Finding"]
    assert not (folder / "images.csv").exists()


def test_a_table_without_images_for_validation_is_refused(run, script, tmp_path):
    table = script.write_made_up_table(tmp_path / "own")
    rows = list(csv.DictReader(table.open()))
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(row | {"patient_id": "one"} for row in rows)
    with pytest.raises(ValueError, match="`table` must leave images for validation, got none of 16 in"):
        run(str(table))
