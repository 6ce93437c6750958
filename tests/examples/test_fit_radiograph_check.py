# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""examples/fit_radiograph_check.py: what it draws, what it keeps apart, and how it counts."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from clarity_hf.data.phantoms import draw_phantom
from clarity_hf.radiograph_check import KINDS, SIDE, classify

SCRIPT = Path(__file__).parents[2] / "examples" / "fit_radiograph_check.py"


@pytest.fixture(scope="module")
def script():
    pytest.importorskip("matplotlib")
    spec = importlib.util.spec_from_file_location("fit_radiograph_check", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_drawing_is_grey_and_the_same_for_the_same_seed(script):
    drawings = {name: draw for name, (_, draw) in script.FIT_DRAWN.items()} | script.HELD_BACK_DRAWN
    for name, draw in drawings.items():
        pixels = draw(np.random.default_rng(3))
        assert pixels.dtype == np.uint8, name
        assert pixels.ndim == 2, name
        assert np.ptp(pixels) > 20, name
        np.testing.assert_array_equal(pixels, draw(np.random.default_rng(3)), err_msg=name)
    assert {kind for kind, _ in script.FIT_DRAWN.values()} == {"picture", "view"}


def test_what_fits_is_not_held_back(script):
    assert not set(script.FIT_ARCHIVES) & set(script.HELD_BACK_ARCHIVES)
    assert not set(script.FIT_FONTS) & set(script.HELD_BACK_FONTS)
    assert not set(script.FIT_DRAWN) & set(script.HELD_BACK_DRAWN)
    assert not set(script.FIT_PHANTOM_SEEDS) & set(script.HELD_BACK_PHANTOM_SEEDS)


def test_a_film_becomes_what_its_kind_says(script):
    film = Image.fromarray(draw_phantom(0, size=96).image)
    rng = np.random.default_rng(0)
    for _ in range(20):
        part = script.part_of(film, rng)
        assert 0.06 < part.width * part.height / 96**2 < 0.27
        mild = script.mild(film, rng)
        assert min(mild.size) > 0.8 * 96
    dark = script.one_image("inverted", film, [], [], np.random.default_rng(1))
    bright = script.one_image("frontal", film, [], [], np.random.default_rng(1))
    np.testing.assert_array_equal(np.asarray(dark), 255 - np.asarray(bright))


def test_fresh_weights_fit_the_net(script):
    logits = classify(torch.zeros(2, 1, SIDE, SIDE), script.fresh_weights())
    assert logits.shape == (2, len(KINDS))


def test_wilson_s_interval_is_that_of_the_textbook(script):
    assert script.wilson(0, 10) == pytest.approx((0, 0.2775), abs=1e-4)
    assert script.wilson(5, 10) == pytest.approx((0.2366, 0.7634), abs=1e-4)


def test_a_missing_folder_or_wheel_is_an_error_that_names_it(script, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["fit_radiograph_check.py", str(tmp_path), str(tmp_path)])
    assert script.main() == 1
    assert "`NIH_FOLDER` must hold images/NNNNNNNN_NNN.png" in capsys.readouterr().err
    with pytest.raises(FileNotFoundError, match="`wheels` must hold mahotas"):
        script.archived(tmp_path, ["mahotas"])
