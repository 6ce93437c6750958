# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""examples/ablate_images.py: a run trains, measures and is kept; maps are measured beside their rivals; the table."""

import argparse
import importlib
import json
import sys
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch

from clarity_hf import FINDINGS, ClarityConfig
from clarity_hf.boxes import Letterbox
from clarity_hf.evaluation import EvaluationImage, LocalizerOutput
from clarity_hf.phantoms import write_phantoms
from clarity_hf.training import ClarityTrainingArguments
from clarity_hf.training.train import TrainingRecipe

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def script():
    sys.path.insert(0, str(EXAMPLES))
    threads = torch.get_num_threads()
    yield importlib.import_module("ablate_images")
    torch.set_num_threads(threads)  # a run sets it, in a process of its own outside tests
    sys.path.remove(str(EXAMPLES))
    for name in ("ablate_images", "ablate"):
        sys.modules.pop(name)


def test_a_run_trains_and_keeps_its_figures(script, tiny_checkpoint, tmp_path, monkeypatch):
    write_phantoms(tmp_path / "images", 40, size=64, test_fraction=0)
    monkeypatch.setattr(script, "RECIPE", script.RECIPE | {"image_size": 64, "validation_split": None})
    arguments = argparse.Namespace(
        images=str(tmp_path / "images"),
        boxes=str(tmp_path / "images"),
        model=str(tiny_checkpoint),
        teacher="not used",
        steps=1,
        image_cache=None,
        output_dir=tmp_path / "runs",
    )
    name, seed, figures = script.run("no_teacher", 3, arguments)
    assert (name, seed) == ("no_teacher", 3)
    assert all(np.isfinite(figures[each]) for each in ("pixel AUROC, excess", "own − fixed boxes", "own − swapped"))
    kept = script.result_file(arguments.output_dir, name, seed)
    assert json.loads(kept.read_text())["figures"].keys() == figures.keys()
    assert script.is_kept(kept, script.settings_of(name, arguments))
    arguments.steps = 2
    assert not script.is_kept(kept, script.settings_of(name, arguments))


class Oracle:
    """Maps that are 1 in the annotated boxes of the image, as the pixels show them, or in those of the first image."""

    findings = FINDINGS

    def __init__(self, follows: bool):
        self.follows, self.model, self.first = follows, argparse.Namespace(config=ClarityConfig()), None

    def __call__(self, images):
        pixels = images[0] if self.follows or self.first is None else self.first
        self.first = pixels if self.first is None else self.first
        maps = np.repeat(pixels[None, None] / 255, len(FINDINGS), axis=1)
        return LocalizerOutput(np.full((1, len(FINDINGS)), 0.5), maps, [Letterbox.fit(pixels.shape, pixels.shape)])


@pytest.mark.parametrize("follows", [True, False])
def test_a_map_that_follows_the_image_beats_rivals_that_do_not_see_it(script, follows):
    images = []
    for patient in range(8):
        side, row = patient % 2, patient // 2
        pixels = np.zeros((32, 32))
        pixels[4 + 6 * row : 8 + 6 * row, 4 + 16 * side : 12 + 16 * side] = 255
        box = np.array([[4 + 16 * side, 4 + 6 * row, 12 + 16 * side, 8 + 6 * row]], dtype=float)
        labels = np.zeros(len(FINDINGS))
        images.append(EvaluationImage(f"{patient}", f"{patient}", pixels, labels, {0: box}))
    figures = script.measure_maps(Oracle(follows), images)
    if follows:
        assert figures["diseased side"] == 1.0
        assert figures["own − swapped"] == 1.0
        assert figures["own − fixed boxes"] == 1.0  # a box of another patient is on another place
        assert figures["pixel AUROC, excess"] > 0.3
    else:
        assert figures["diseased side"] == 0.5  # the first image's side, which half of them have
        assert figures["own − swapped"] == pytest.approx(0.0)
        assert figures["pixel AUROC, excess"] == pytest.approx(0.0)


def test_scores_are_averaged_without_pneumonia(script):
    labels = np.zeros((60, len(FINDINGS)), dtype=np.float32)
    labels[:30] = 1.0
    logits = np.where(labels == 1, 1.0, -1.0)
    logits[:, FINDINGS.index("Pneumonia")] *= -1  # AUROC 0
    rows = {"view": ["PA", "AP"] * 30, "patient_id": [str(row) for row in range(60)]}
    figures = script.measure_scores(logits, labels, rows, FINDINGS)
    assert figures == {"AUROC": 1.0, "AUROC within a view": 1.0}


def test_variants_change_fields_that_exist(script):
    config, recipe, arguments = ClarityConfig().to_dict(), *(
        {field.name for field in fields(kind)} for kind in (TrainingRecipe, ClarityTrainingArguments)
    )
    changed = set()
    for variant in script.VARIANTS.values():
        assert variant.config.keys() <= config.keys()
        assert variant.recipe.keys() <= recipe
        assert variant.arguments.keys() <= arguments
        changed.add(json.dumps([variant.config, variant.recipe, variant.arguments], sort_keys=True))
    assert len(changed) == len(script.VARIANTS)


def test_the_table_is_put_between_its_marks(script, tmp_path, capsys):
    report, folder = tmp_path / "report.md", tmp_path / "runs"
    marks = (f"<!-- {text} examples/ablate_images.py -->" for text in ("table: written by", "end of the table of"))
    report.write_text("Before.\n{}\nearlier\n{}\nAfter.\n".format(*marks))
    for name, auroc in (("full", 0.7), ("no_teacher", 0.6)):
        for seed in range(2):
            path = script.result_file(folder, name, seed)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps({"figures": {"AUROC": auroc}}))
    values = {"seeds": 2, "steps": 5, "output_dir": folder, "report": report}
    script.write_report(argparse.Namespace(variants=["full", "no_teacher"], **values))
    text = report.read_text()
    assert text.startswith("Before.\n")
    assert text.endswith("\nAfter.\n")
    assert "earlier" not in text
    assert "| no teacher | 0.600 ± 0.000<br>-0.100 ± 0.000 |" in text
    assert capsys.readouterr().out == f"wrote {report} (2 variants, 2 seeds)\n"
