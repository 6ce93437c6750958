# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""examples/calibrate.py: a calibration on validation images, in the config that the pipeline reads."""

import importlib.util
import sys
from pathlib import Path

import pytest

from clarity_hf import ClarityConfig, ClarityForMultiLabelLocalization
from clarity_hf.metrics.records import MAP_THRESHOLDS

SCRIPT = Path(__file__).parents[2] / "examples" / "calibrate.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("calibrate_example", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(script, monkeypatch, capsys, *arguments):
    """The lines that the script prints."""
    monkeypatch.setattr(sys, "argv", ["calibrate.py", *map(str, arguments)])
    assert script.main() == 0
    return capsys.readouterr().out.strip().splitlines()


def test_a_calibration_is_saved_with_the_model_and_records_beside_it(
    script, tiny_checkpoint, tmp_path, monkeypatch, capsys
):
    folder = tmp_path / "calibrated"
    out = run(script, monkeypatch, capsys, tiny_checkpoint, "phantom", "--images", 40, "--output_dir", folder)
    assert out[-1] == f"saved {folder}: calibration on 40 validation images"
    before, after = (ClarityConfig.from_pretrained(path) for path in (tiny_checkpoint, folder))
    assert after.per_finding("score_thresholds") != before.per_finding("score_thresholds")
    assert isinstance(before.map_thresholds, float)
    assert [threshold in MAP_THRESHOLDS for threshold in after.map_thresholds] == [True] * 14
    assert ClarityForMultiLabelLocalization.from_pretrained(folder).config.findings == before.findings
    assert not list(folder.glob("*.jsonl"))  # records name images: they are not published with the model
    assert (tmp_path / "calibrated-records.jsonl").is_file()
    rows = [line.strip("| ").split(" | ") for line in out[2:16]]
    assert [row[0] for row in rows] == before.findings
    assert [float(row[2]) for row in rows] == pytest.approx(after.score_slopes, abs=6e-4)
    assert [float(row[3]) for row in rows] == pytest.approx(after.score_intercepts, abs=6e-4)
    assert [float(row[4].split()[0]) for row in rows] == pytest.approx(after.score_thresholds, abs=6e-4)
    fitted = [not row[4].endswith("(kept)") for row in rows]
    assert [slope != 1 for slope in after.score_slopes] == fitted
    assert 0 < sum(fitted) < 14
    assert out[17].startswith("On the half of the patients not used for the fit, 5 splits: 40 images, ")
    assert out[17].endswith(" normal, 0 findings in the means")  # forty images have no twenty positives of any
    # The first figure that is defined.
    assert 0 <= float(out[21].removeprefix("| findings flagged on a normal image | ").split(" | ")[0]) <= 14


def test_a_second_pass_keeps_what_its_images_are_too_few_for(script, tiny_checkpoint, tmp_path, monkeypatch, capsys):
    first, second = tmp_path / "first", tmp_path / "second"
    run(script, monkeypatch, capsys, tiny_checkpoint, "phantom", "--images", 24, "--output_dir", first)
    few = ("--split", "train", "--images", 16, "--min_positives", 3, "--rare", "kept")
    out = run(script, monkeypatch, capsys, first, "phantom", *few, "--output_dir", second)
    before, after = (ClarityConfig.from_pretrained(path) for path in (first, second))
    kept = [line.split(" | ")[4].endswith("(kept)") for line in out[2:16]]
    assert 0 < sum(kept) < 14
    for name in ("score_slopes", "score_intercepts", "score_thresholds"):
        same = [one == other for one, other in zip(getattr(before, name), getattr(after, name), strict=True)]
        assert same == kept, name
    assert after.map_thresholds == before.map_thresholds  # no finding has ten boxes on sixteen images
    assert out[-1] == f"saved {second}: calibration on 16 train images"


def test_the_test_split_is_no_choice(script, tiny_checkpoint, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["calibrate.py", str(tiny_checkpoint), "phantom", "--split", "test"])
    assert script.main() == 1
    assert "'test' is not one of" in capsys.readouterr().err
