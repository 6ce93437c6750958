# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""examples/fit_thorax_segmenter.py: structures from label images, one geometry for both, a fit of two steps."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from clarity_hf.data.thorax_segmenter import SIDE, ThoraxSegmenter

SCRIPT = Path(__file__).parents[2] / "examples" / "fit_thorax_segmenter.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("fit_thorax_segmenter", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def thorax():
    """Label image of two lungs and a heart, and a radiograph in which they are dark and bright."""
    labels = np.zeros((96, 96), dtype=np.uint8)
    labels[20:70, 55:80], labels[20:70, 15:40], labels[45:65, 38:62] = 1, 2, 3
    return np.array([120, 30, 30, 200], dtype=np.uint8)[labels], labels


@pytest.fixture
def folder(tmp_path):
    image, labels = thorax()
    for name in ("a", "b"):
        Image.fromarray(image).save(tmp_path / f"{name}.png")
        Image.fromarray(labels).save(tmp_path / f"{name}.mask.png")
    return tmp_path


def test_the_hull_is_convex_and_holds_lungs_heart_and_what_lies_between(script):
    structures = script.structures_of(thorax()[1])
    assert structures.shape == (4, 96, 96)
    np.testing.assert_array_equal(structures[:3], [thorax()[1] == value for value in (1, 2, 3)])
    hull = np.zeros((96, 96), dtype=bool)
    hull[20:70, 15:80] = True  # the corners of both lungs
    np.testing.assert_array_equal(structures[3], hull)


def test_radiograph_and_structures_go_through_one_geometry(script):
    image, labels = thorax()
    image = torch.from_numpy(image)[None].float() / 255
    masks = torch.from_numpy(script.structures_of(labels)).float()
    for seed in range(10):
        torch.manual_seed(seed)
        moved, structures = script.augmented(image, masks)
        assert moved.shape == (1, SIDE, SIDE)
        assert structures.shape == (4, SIDE, SIDE)
        inside = structures > 0.5
        if inside[2].sum() < 200 or inside[0].sum() < 200:
            continue
        assert moved[0][inside[2]].mean() > moved[0][inside[0]].mean()  # the heart is brighter than the lung
        columns = torch.arange(SIDE).expand(SIDE, SIDE)
        if inside[1].sum() >= 200:
            assert columns[inside[0]].float().mean() > columns[inside[1]].float().mean()  # flips swap the lungs


def test_a_fit_writes_weights_in_half_precision_and_measures_them(script, folder, tmp_path, monkeypatch, capsys):
    arguments = [str(folder), str(folder), "--epochs", "1", "--output", str(tmp_path / "w.safetensors")]
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *arguments])
    assert script.main() == 0
    weights = load_file(tmp_path / "w.safetensors")
    assert {value.dtype for value in weights.values()} == {torch.float16}
    assert weights.keys() == ThoraxSegmenter().state_dict().keys()
    assert "2 radiographs: Dice of the lungs" in capsys.readouterr().out


def test_dice_by_hand(script):
    one, other = np.array([True, True, False]), np.array([True, False, False])
    assert script.dice(one, other) == pytest.approx(2 / 3)
    assert script.dice(~one & one, ~one & one) == 1


def test_a_folder_without_radiographs_is_an_error(script, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), str(tmp_path), str(tmp_path)])
    assert script.main() == 1
    assert "must hold NAME.jpg and NAME.mask.png" in capsys.readouterr().err
