# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Findings drawn into images: in the lungs that the masks show, where their masks say, and nowhere else."""

import numpy as np
import pytest

from clarity_hf import FINDINGS
from clarity_hf.data.drawn_findings import DRAWABLE, RealScene, draw_findings
from clarity_hf.data.thorax_segmenter import ThoraxMasks
from clarity_hf.phantoms import draw_phantom

SIDE = 192


@pytest.fixture(scope="module")
def radiograph():
    """A phantom without a finding, and ellipses about where its lungs and heart are."""
    image = draw_phantom(3, SIDE, []).image.astype(np.float32) / 255
    rows, columns = np.mgrid[0:SIDE, 0:SIDE] / SIDE

    def ellipse(x, y, a, b):
        return ((columns - x) / a) ** 2 + ((rows - y) / b) ** 2 < 1

    heart = ellipse(0.54, 0.62, 0.16, 0.13)
    left, right = ellipse(0.72, 0.42, 0.13, 0.3) & ~heart, ellipse(0.3, 0.42, 0.14, 0.29) & ~heart
    return image, ThoraxMasks(left, right, heart, left | right | heart)


def test_the_scene_reproduces_the_image(radiograph):
    scene = RealScene(*radiograph, np.random.default_rng(0))
    np.testing.assert_allclose(scene.grey(scene.base), radiograph[0] * 255, atol=0.01)


def test_outlines_come_from_the_masks(radiograph):
    """By hand: the left lung's ellipse reaches from .12 to .72 and to .85, the midline lies between the lungs."""
    scene = RealScene(*radiograph, np.random.default_rng(0))
    middle = scene.exam.center[0]
    assert 0.44 < middle < 0.6
    assert scene.apex[1] == pytest.approx(0.12, abs=0.01)
    assert scene.apex[-1] == pytest.approx(0.13, abs=0.01)
    assert float(scene.outer(1, 0.42)) == pytest.approx(0.85 - middle, abs=0.01)
    assert float(scene.outer(-1, 0.42)) == pytest.approx(middle - 0.16, abs=0.01)
    assert float(scene.roof(1, 0.72 - middle)) == pytest.approx(0.12, abs=0.01)
    assert float(scene.floor(-1, middle - 0.3)) == pytest.approx(0.71, abs=0.02)


def names_of(masks):
    return {name for name, mask in zip(FINDINGS, masks, strict=True) if mask.any()}


@pytest.mark.parametrize("seed", range(12))
def test_drawn_findings_change_the_image_inside_their_masks(radiograph, seed):
    image, masks = radiograph
    drawn, where = draw_findings(image, masks, seed)
    assert names_of(where) <= set(DRAWABLE)
    assert where.shape == (14, SIDE, SIDE)
    change = np.abs(drawn - image)
    assert drawn.min() >= 0
    assert drawn.max() <= 1
    for finding, mask in zip(FINDINGS, where, strict=True):
        if mask.any():
            assert 4 < mask.sum() < 0.4 * mask.size, finding
            assert change[mask].max() > 6 / 255, finding
    inside = where.any(0)
    assert change[~inside].mean() < (change[inside].mean() / 5 if inside.any() else 1e-3)


def test_every_finding_that_can_be_drawn_is_drawn_for_some_seed(radiograph):
    seen = {finding for seed in range(60) for finding in names_of(draw_findings(*radiograph, seed)[1])}
    assert seen == set(DRAWABLE)


def test_one_seed_draws_one_image(radiograph):
    one, again, other = (draw_findings(*radiograph, seed)[0] for seed in (5, 5, 6))
    np.testing.assert_array_equal(one, again)
    assert not np.array_equal(one, other)


def test_findings_shift_with_the_lungs(radiograph):
    """The same seed on an image moved 20 columns to the right draws 20 columns further right."""
    image, masks = radiograph
    _, moved = draw_findings(np.roll(image, 20, 1), ThoraxMasks(*(np.roll(mask, 20, 1) for mask in masks)), 4)
    _, drawn = draw_findings(image, masks, 4)
    assert names_of(moved) == names_of(drawn) != set()
    for here, there in zip(drawn, moved, strict=True):
        if here.any():
            assert abs(np.argwhere(there)[:, 1].mean() - np.argwhere(here)[:, 1].mean() - 20) < 2


def test_an_image_without_a_heart_is_refused(radiograph):
    image, masks = radiograph
    with pytest.raises(ValueError, match="must show both lungs and the heart"):
        draw_findings(image, masks._replace(heart=np.zeros_like(masks.heart)), 0)
