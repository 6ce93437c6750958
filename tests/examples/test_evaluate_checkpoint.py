# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""examples/evaluate_checkpoint.py: arguments to a report that tells no folder of the machine."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "examples" / "evaluate_checkpoint.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("evaluate_checkpoint_example", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_checkpoint_gets_a_report(script, tiny_checkpoint, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "report"
    options = ["--images", "4", "--repeats", "10", "--min_positives", "1", "--output_dir", str(folder), "--no_cases"]
    monkeypatch.setattr(sys, "argv", ["evaluate_checkpoint.py", str(tiny_checkpoint), "phantom", *options])
    assert script.main() == 0
    assert capsys.readouterr().out.strip().splitlines()[-1] == f"wrote {folder / 'report.html'}"
    text = (folder / "report.json").read_text()
    assert json.loads(text)
    for written in (text, (folder / "report.html").read_text()):
        assert "clarity-hf evaluate tiny phantom --output-dir report --images 4" in written
        assert str(tmp_path) not in written
        assert str(tiny_checkpoint.parent) not in written
