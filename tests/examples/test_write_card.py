# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""examples/write_card.py: reports to commit, the page over them, the card."""

import importlib.util
import shutil
import sys
from pathlib import Path

import pytest
import yaml

from clarity_hf import ClarityConfig, ClarityForMultiLabelLocalization, ClarityImageProcessor
from clarity_hf.data.sources import PHANTOM
from clarity_hf.evaluation.images import open_images
from clarity_hf.reporting.rival_tables import nearest_fixed_boxes
from clarity_hf.reporting.run import evaluate_checkpoint
from clarity_hf.reporting.schema import Report

SCRIPT = Path(__file__).parents[2] / "examples" / "write_card.py"

SIZES = (
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "image_size",
    "class_attention_layers",
    "cam_size",
    "cam_groups",
)

FACTS = {
    "name": "clarity-tiny",
    "license": "apache-2.0",
    "trained_on": "nothing",
    "data": [{"source": "Drawings", "license": "Apache-2.0", "citation": "made here."}],
    "stages": [{"name": "None", "compute": "none", "command": "none"}],
    "compute": "none.",
    "calibration": "None.",
    "evaluations": {"phantom-test": {"title": "drawings", "type": "drawings"}},
    "failures": ["All."],
    "limits": ["All."],
}


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("write_card_example", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def trained(shared_tiny_model, tmp_path_factory):
    """Folder of a tiny model of three findings, which takes less time to report on than fourteen. Read only."""
    folder = tmp_path_factory.mktemp("trained") / "checkpoint"
    sizes = {name: getattr(shared_tiny_model.config, name) for name in SIZES}
    config = ClarityConfig(**sizes, id2label=dict(enumerate(("Cardiomegaly", "Effusion", "Edema"))))
    ClarityForMultiLabelLocalization(config).save_pretrained(folder)
    ClarityImageProcessor(size={"height": 64, "width": 64}).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def evaluation(trained, tmp_path_factory):
    """Report of the tiny model on 16 phantoms. Read only."""
    folder = tmp_path_factory.mktemp("evaluation") / "report"
    model = ClarityForMultiLabelLocalization.from_pretrained(trained).eval()
    images = open_images(PHANTOM, "test", 16, 0, wanted=model.config.findings)
    about = {"model": "clarity-tiny", "data": PHANTOM, "split": "test", "synthetic": True, "command": "evaluate"}
    options = {"baselines": ["random"], "repeats": 2, "min_positives": 1, "progress": False}
    evaluate_checkpoint(model, ClarityImageProcessor.from_pretrained(trained), images, folder, about, **options)
    return folder


@pytest.fixture
def folders(trained, tmp_path):
    """A checkpoint's folder and facts, to write into."""
    checkpoint, docs = tmp_path / "checkpoint", tmp_path / "docs"
    shutil.copytree(trained, checkpoint)
    docs.mkdir()
    facts = docs / "training.yaml"
    facts.write_text(yaml.safe_dump(FACTS), encoding="utf-8")
    return checkpoint, facts


def run(script, monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["write_card.py", *map(str, arguments)])
    return script.main()


def test_reports_are_committed_and_the_card_is_written_from_them(script, folders, evaluation, monkeypatch, capsys):
    checkpoint, facts = folders
    assert run(script, monkeypatch, checkpoint, "--facts", facts, "--reports", evaluation) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("phantom-test: ")
    assert lines[-1] == f"wrote {checkpoint / 'README.md'}"
    assert (facts.parent / "phantom-test" / "report.json").is_file()
    assert "## phantom-test" in (facts.parent / "README.md").read_text(encoding="utf-8")
    text = (checkpoint / "README.md").read_text(encoding="utf-8")
    assert "# clarity-tiny" in text
    rivals = Report.read(facts.parent / "phantom-test").tables["rivals"]
    fixed = rivals[f"fixed_boxes_{nearest_fixed_boxes(rivals['model']['boxes_predicted'])}"]
    assert f"|  | {fixed['boxes']} | – | – | {fixed['iou_0.1'].value:.3f} (" in text

    (checkpoint / "README.md").unlink()
    assert run(script, monkeypatch, checkpoint, "--facts", facts) == 0  # from the committed copies alone
    assert (checkpoint / "README.md").read_text(encoding="utf-8") == text


def test_what_is_wrong_is_said_in_a_line(script, folders, monkeypatch, capsys):
    checkpoint, facts = folders
    assert run(script, monkeypatch, checkpoint, "--facts", facts, "--reports", facts.parent) == 1
    assert capsys.readouterr().err.startswith("error: No report.json in")
    assert not (checkpoint / "README.md").exists()
