# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""examples/calibrate.py: thresholds of validation films, in the config that the pipeline reads."""

import importlib.util
import sys
from pathlib import Path

import pytest

from clarity_hf import ClarityConfig, ClarityForMultiLabelLocalization
from clarity_hf.evaluation.records import MAP_THRESHOLDS

SCRIPT = Path(__file__).parents[2] / "examples" / "calibrate.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("calibrate_example", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_thresholds_are_saved_with_the_model_and_records_beside_it(
    script, tiny_checkpoint, tmp_path, monkeypatch, capsys
):
    folder = tmp_path / "calibrated"
    arguments = [str(tiny_checkpoint), "phantom", "--films", "40", "--output_dir", str(folder)]
    monkeypatch.setattr(sys, "argv", ["calibrate.py", *arguments])
    script.main()
    out = capsys.readouterr().out
    assert out.strip().splitlines()[-1] == f"saved {folder}: thresholds of 40 validation films"
    before, after = (ClarityConfig.from_pretrained(path) for path in (tiny_checkpoint, folder))
    assert after.per_finding("score_thresholds") != before.per_finding("score_thresholds")
    assert isinstance(before.map_thresholds, float)
    assert [threshold in MAP_THRESHOLDS for threshold in after.map_thresholds] == [True] * 14
    assert ClarityForMultiLabelLocalization.from_pretrained(folder).config.findings == before.findings
    assert not list(folder.glob("*.jsonl"))  # records name films: they are not published with the model
    assert (tmp_path / "calibrated-records.jsonl").is_file()


def test_the_test_split_is_no_choice(script, tiny_checkpoint, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["calibrate.py", str(tiny_checkpoint), "phantom", "--split", "test"])
    with pytest.raises(SystemExit):
        script.main()
    assert "--split: invalid choice: 'test'" in capsys.readouterr().err
