# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""`clarity-hf calibrate`: a calibration on validation images, in the config that the pipeline reads."""

import shutil

import pytest
from PIL import Image

from clarity_hf import ClarityConfig, ClarityForMultiLabelLocalization
from clarity_hf.cli import main
from clarity_hf.data.named_splits import CHECKPOINT_TRAIN, CHECKPOINT_VALIDATION, named_split
from clarity_hf.metrics.records import MAP_THRESHOLDS
from clarity_hf.packaged_checkpoints import DEFAULT_CHECKPOINT
from clarity_hf.phantoms import draw_phantom

SIZE = 64


def run(capsys, *arguments):
    """Lines that the command prints."""
    assert main(["calibrate", *map(str, arguments)]) == 0
    return capsys.readouterr().out.strip().splitlines()


def test_a_calibration_is_saved_with_the_model_and_records_beside_it(tiny_checkpoint, tmp_path, capsys):
    folder = tmp_path / "calibrated"
    out = run(capsys, tiny_checkpoint, "phantom", "--images", 40, "--output_dir", folder)
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


def test_a_second_pass_keeps_the_calibration_of_findings_with_too_few_images(tiny_checkpoint, tmp_path, capsys):
    first, second = tmp_path / "first", tmp_path / "second"
    run(capsys, tiny_checkpoint, "phantom", "--images", 24, "--output_dir", first)
    few = ("--split", "train", "--images", 16, "--min_positives", 3, "--rare", "kept")
    out = run(capsys, first, "phantom", *few, "--output_dir", second)
    before, after = (ClarityConfig.from_pretrained(path) for path in (first, second))
    kept = [line.split(" | ")[4].endswith("(kept)") for line in out[2:16]]
    assert 0 < sum(kept) < 14
    for name in ("score_slopes", "score_intercepts", "score_thresholds"):
        same = [one == other for one, other in zip(getattr(before, name), getattr(after, name), strict=True)]
        assert same == kept, name
    assert after.map_thresholds == before.map_thresholds  # no finding has ten boxes on sixteen images
    assert out[-1] == f"saved {second}: calibration on 16 train images"


@pytest.mark.parametrize(
    ("cell", "options", "fitted"),
    [
        ("", [], False),
        ("", ["--empty", "negative"], True),
        ("-1", [], False),
        ("-1", ["--uncertain", "negative"], True),
        ("-1", ["--uncertain", "positive"], False),
    ],
)
def test_empty_and_uncertain_cells_are_read_as_asked(tiny_checkpoint, tmp_path, capsys, cell, options, fitted):
    rows = ["path,patient_id,split,Effusion,Mass"]
    for number in range(12):
        Image.fromarray(draw_phantom(number, size=SIZE).image).save(tmp_path / f"{number}.png")
        rows.append(f"{number}.png,{number},validation,{1 if number % 2 else cell},{number % 2}")
    (tmp_path / "table.csv").write_text("\n".join(rows))
    folder = tmp_path / "calibrated"
    run(capsys, tiny_checkpoint, tmp_path / "table.csv", "--output_dir", folder, *options)
    config = ClarityConfig.from_pretrained(folder)
    slopes = dict(zip(config.findings, config.score_slopes, strict=True))
    assert slopes["Mass"] != 1
    assert (slopes["Effusion"] != 1) is fitted


@pytest.mark.parametrize("name", [DEFAULT_CHECKPOINT, "other"])
@pytest.mark.parametrize("command", ["calibrate", "evaluate"])
def test_patients_that_a_checkpoint_was_trained_on_are_counted(tiny_checkpoint, tmp_path, capsys, command, name):
    seen, unseen = (sorted(named_split(each))[:2] for each in (CHECKPOINT_TRAIN, CHECKPOINT_VALIDATION))
    rows = ["path,patient_id,split,Effusion"]
    for number, patient in enumerate((*seen, seen[0], *unseen)):
        Image.fromarray(draw_phantom(number, size=SIZE).image).save(tmp_path / f"{number}.png")
        rows.append(f"{number}.png,{patient},validation,{number % 2}")
    (tmp_path / "table.csv").write_text("\n".join(rows))
    model = shutil.copytree(tiny_checkpoint, tmp_path / name)
    words = [model, tmp_path / "table.csv", "--split", "validation", "--output_dir", tmp_path / "results"]
    words += ["--repeats", "2", "--no-cases"] if command == "evaluate" else []
    assert main([command, *map(str, words)]) == 0
    warning = "clarity-s16-224 was trained on 2 of the 4 patients, by their ids: figures on them are too high"
    assert (warning in capsys.readouterr().err) == (name == DEFAULT_CHECKPOINT)


def test_the_test_split_is_refused(tiny_checkpoint, capsys):
    assert main(["calibrate", str(tiny_checkpoint), "phantom", "--split", "test"]) == 1
    assert "'test' is not one of" in capsys.readouterr().err
