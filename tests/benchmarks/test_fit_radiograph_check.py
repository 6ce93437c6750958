# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""benchmarks/fit_radiograph_check.py: what it draws, what it keeps apart, and how it counts."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from clarity_hf.phantoms import draw_phantom
from clarity_hf.radiograph_check import KINDS, SHA256, SIDE, WEIGHTS, classify

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "fit_radiograph_check.py"


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


def test_an_image_becomes_what_its_kind_says(script):
    image = Image.fromarray(draw_phantom(0, size=96).image)
    rng = np.random.default_rng(0)
    for _ in range(20):
        part = script.part_of(image, rng)
        assert 0.06 < part.width * part.height / 96**2 < 0.27
        mild = script.mild(image, rng)
        assert min(mild.size) > 0.8 * 96
    dark = script.bare_image("inverted", image, [], [], np.random.default_rng(1))
    bright = script.bare_image("frontal", image, [], [], np.random.default_rng(1))
    np.testing.assert_array_equal(np.asarray(dark), 255 - np.asarray(bright))


def test_a_canvas_contains_the_image_and_is_not_smaller(script):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 50)).astype(np.uint8))
    shapes = set()
    for seed in range(40):
        board = script.on_canvas(image, np.random.default_rng(seed))
        assert board.mode == "L"
        assert board.width >= 50
        assert board.height >= 60
        shapes.add(board.width > board.height)
    assert shapes == {True, False}


@pytest.mark.parametrize("shape", [(90, 80), (90, 300), (90, 20)])
def test_held_back_canvases_have_their_proportions_and_the_image_in_them(script, shape):
    image = np.random.default_rng(0).integers(1, 255, shape).astype(np.uint8)
    board = script.padded(image, 16 / 9, 255)
    height, width = board.shape
    assert width / height == pytest.approx(16 / 9, rel=0.01)
    inside = np.argwhere(board != 255)
    (top, left), (bottom, right) = inside.min(0), inside.max(0) + 1
    np.testing.assert_array_equal(board[top:bottom, left:right], image)
    assert abs(top - (height - bottom)) <= 1
    assert abs(left - (width - right)) <= 1
    for name, on in script.CANVASES.items():
        assert on(image).dtype == np.uint8, name
        assert min(on(image).shape) >= min(image.shape), name


def test_a_crop_takes_the_same_share_of_every_side(script):
    image = np.arange(200 * 100).reshape(200, 100)
    np.testing.assert_array_equal(script.cropped(image, 0.1), image[20:180, 10:90])


def test_the_line_with_the_hash_says_whether_the_package_has_it(script, tmp_path):
    assert script.hash_line(WEIGHTS) == f'SHA256 = "{SHA256}"  as it stands in radiograph_check.py'
    other = tmp_path / "other.safetensors"
    other.write_bytes(b"")
    assert script.hash_line(other).startswith('SHA256 = "e3b0c44298fc1c14')
    assert script.hash_line(other).endswith("to be put into radiograph_check.py")


def test_the_package_computes_what_is_fitted(script):
    weights = script.fresh_weights()
    images = torch.randn(2, 1, SIDE, SIDE)
    expected = script.forward(images, weights).softmax(-1).numpy()
    arrays = {name: tensor.numpy() for name, tensor in weights.items()}
    found = np.stack([classify(image.numpy(), arrays) for image in images])
    assert found.shape == (2, len(KINDS))
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_wilson_s_interval_is_that_of_the_textbook(script):
    assert script.wilson(0, 10) == pytest.approx((0, 0.2775), abs=1e-4)
    assert script.wilson(5, 10) == pytest.approx((0.2366, 0.7634), abs=1e-4)


def test_a_missing_folder_or_wheel_is_an_error_that_names_it(script, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["fit_radiograph_check.py", str(tmp_path), str(tmp_path)])
    assert script.main() == 1
    assert "`NIH_FOLDER` must hold images/NNNNNNNN_NNN.png" in capsys.readouterr().err
    with pytest.raises(FileNotFoundError, match="`wheels` must hold mahotas"):
        script.archived(tmp_path, ["mahotas"])
