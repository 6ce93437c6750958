# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""The whole evaluation of a checkpoint, on a few phantoms."""

import json

import pytest

from clarity_hf import ClarityImageProcessor
from clarity_hf.evaluation.evaluator import read_records
from clarity_hf.evaluation.images import PhantomImages
from clarity_hf.fingerprints import weights_digest
from clarity_hf.reporting.run import evaluate_checkpoint

ABOUT = {"model": "tiny", "data": "phantom", "split": "test", "synthetic": True}
SETTINGS = {"repeats": 20, "min_positives": 1, "progress": False}


@pytest.fixture(scope="module")
def images():
    return PhantomImages(8, size=64)


@pytest.fixture(scope="module")
def written(shared_tiny_model, images, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    processor = ClarityImageProcessor(size={"height": 64, "width": 64})
    baselines = ("random", "cam", "attention", "rollout", "atlas")
    evaluate_checkpoint(
        shared_tiny_model, processor, images, folder, ABOUT, baselines=baselines, sanity_images=2, **SETTINGS
    )
    return folder


def test_the_report_says_what_was_evaluated_on_what(written, shared_tiny_model):
    report = json.loads((written / "report.json").read_text())
    text = json.dumps(report)
    assert weights_digest(shared_tiny_model) in text
    for word in ("data_hash", "versions", "seeds", "score_thresholds", "map_thresholds"):
        assert word in text
    assert (written / "report.html").stat().st_size > 10_000
    assert len(list((written / "cases").iterdir())) > 0


def test_the_report_has_tables_of_the_sanity_checks(written):
    tables = json.loads((written / "report.json").read_text())["tables"]
    perturbed = tables["sanity_deletion_and_insertion"]["rows"]
    assert [row["key"] for row in perturbed] == ["CLARiTy", "random map"]
    randomised = tables["sanity_randomised_weights_from_the_heads_down"]["rows"]
    assert [randomised[0]["key"], randomised[-1]["key"]] == ["heads", "embeddings"]


def test_every_method_has_records_of_every_image(written, images):
    records = written.with_name(f"{written.name}-records")  # they name patients, so a report is passed on without them
    names = {path.stem for path in records.iterdir()}
    assert names == {"clarity", "random", "cam", "attention", "rollout", "atlas"}
    for name in names:
        evaluation = read_records(records / f"{name}.jsonl")[1]
        assert [record.name for record in evaluation.records] == images.names


def test_a_second_call_evaluates_nothing_and_writes_the_same_figures(written, shared_tiny_model, images, monkeypatch):
    before = json.loads((written / "report.json").read_text())
    records = written.with_name(f"{written.name}-records") / "clarity.jsonl"
    stored = records.read_bytes()
    processor = ClarityImageProcessor(size={"height": 64, "width": 64})
    monkeypatch.setattr(PhantomImages, "__getitem__", lambda *_: pytest.fail("an image was read again"))
    evaluate_checkpoint(shared_tiny_model, processor, images, written, ABOUT, draw_cases=False, **SETTINGS)
    after = json.loads((written / "report.json").read_text())
    assert records.read_bytes() == stored
    assert after["tables"]["classification"] == before["tables"]["classification"]


@pytest.mark.parametrize("change", ["map_fusion", "size"])
def test_records_of_another_map_or_preprocessing_are_refused(change, tiny_model, written, images):
    processor = ClarityImageProcessor(size={"height": 64, "width": 64})
    if change == "size":
        processor.size = {"height": 32, "width": 32}
    else:
        tiny_model.config.map_fusion = "cam"
    with pytest.raises(ValueError, match="differs in about"):
        evaluate_checkpoint(tiny_model, processor, images, written, ABOUT, draw_cases=False, **SETTINGS)


def test_other_thresholds_are_other_records(tiny_model, written, images):
    tiny_model.config.map_thresholds = 0.3
    processor = ClarityImageProcessor(size={"height": 64, "width": 64})
    with pytest.raises(ValueError, match="differs in settings"):
        evaluate_checkpoint(tiny_model, processor, images, written, ABOUT, draw_cases=False, **SETTINGS)
