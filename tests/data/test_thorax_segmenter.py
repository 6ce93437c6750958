# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""The packaged segmenter: what it finds in phantoms and in real radiographs with masks, its size, its refusals."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from clarity_hf.data import thorax_segmenter
from clarity_hf.data.thorax_segmenter import (
    SIDE,
    STRUCTURES,
    WEIGHTS,
    ThoraxMasks,
    ThoraxSegmenter,
    load_segmenter,
    prepare,
    segment_thorax,
)
from clarity_hf.phantoms import draw_phantom

MASKED = Path(
    os.environ.get("CLARITY_HF_MASKS_DIR", Path(__file__).resolve().parents[3] / "shared" / "thorax-masks" / "jsrt")
)


def dice(one, other):
    return 2 * (one & other).sum() / (one.sum() + other.sum())


def test_the_weights_are_small_and_complete():
    assert WEIGHTS.stat().st_size < 2_000_000
    assert ThoraxMasks._fields == STRUCTURES
    assert load_segmenter() is load_segmenter()
    assert not any(weight.requires_grad for weight in load_segmenter().parameters())


def test_loading_the_weights_does_not_change_the_global_random_state():
    """The first call may come in the middle of an augmentation, which must not depend on it."""
    load_segmenter.cache_clear()
    torch.manual_seed(0)
    before = torch.get_rng_state()
    load_segmenter()
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("seed", range(4))
def test_it_finds_lungs_and_thorax_of_phantoms_of_any_shape(seed):
    """Phantoms are drawings that it has not seen; lungs are where they are all the same."""
    phantom = draw_phantom(seed, (256, 224), [])
    found = segment_thorax(phantom.image)
    assert all(mask.shape == phantom.image.shape and mask.dtype == bool for mask in found)
    assert dice(found.hull, phantom.thorax) > 0.8
    columns = np.arange(224)
    middle = [(mask * columns).sum() / mask.sum() for mask in (found.right_lung, found.heart, found.left_lung)]
    assert middle == sorted(middle)  # the patient's right is on the left of the image
    lungs = found.left_lung | found.right_lung
    assert (lungs & found.hull).sum() > 0.95 * lungs.sum()


def test_every_structure_is_one_piece(monkeypatch):
    """A net that sees two regions of each: the larger ones are left."""
    logits = torch.full((1, 4, SIDE, SIDE), -5.0)
    logits[:, :, 20:80, 20:60] = 5
    logits[:, :, 100:110, 100:110] = 5
    monkeypatch.setattr(thorax_segmenter, "load_segmenter", lambda: lambda images: logits.clone())
    for mask in segment_thorax(np.eye(SIDE)):
        assert mask[30:70, 30:50].all()
        assert not mask[95:, 95:].any()


@pytest.mark.slow
def test_it_finds_lungs_and_heart_of_another_hospitals_radiographs():
    if not MASKED.is_dir():
        pytest.skip("no real images here: set CLARITY_HF_MASKS_DIR")
    lungs, heart = [], []
    for path in sorted(MASKED.glob("*.mask.png"))[::8]:
        labels = np.array(Image.open(path))
        image = next(path.parent.glob(path.name.removesuffix(".mask.png") + ".[jp][pn]g"))
        found = segment_thorax(np.array(Image.open(image).convert("L")))
        lungs.append(dice(found.left_lung | found.right_lung, (labels == 1) | (labels == 2)))
        heart.append(dice(found.heart, labels == 3))
    assert np.mean(lungs) > 0.94
    assert np.mean(heart) > 0.88


def test_range_and_size_of_the_image_do_not_count():
    image = draw_phantom(1, 256, []).image
    found, scaled = segment_thorax(image), segment_thorax(image.astype(np.float64) / 255 * 3 - 1)
    for one, other in zip(found, scaled, strict=True):
        np.testing.assert_array_equal(one, other)
    small = segment_thorax(image[::2, ::2])
    assert small.hull.shape == (128, 128)
    assert dice(small.hull, found.hull[::2, ::2]) > 0.95


def test_nothing_is_found_in_a_constant_image():
    assert segment_thorax(np.full((64, 64), 7)) is None


@pytest.mark.parametrize("structure", STRUCTURES[:3])
def test_nothing_is_found_without_a_lung_or_the_heart(monkeypatch, structure):
    logits = torch.full((1, 4, SIDE, SIDE), 5.0)
    logits[0, STRUCTURES.index(structure), 3:] = -5  # three rows of 128 are left, more than a hundredth
    monkeypatch.setattr(thorax_segmenter, "load_segmenter", lambda: lambda images: logits.clone())
    image = np.eye(SIDE)
    assert segment_thorax(image) is not None
    logits[0, STRUCTURES.index(structure), 1:] = -5
    assert segment_thorax(image) is None


def test_a_prepared_image_has_mean_0_and_standard_deviation_1():
    prepared = prepare(torch.rand(90, 40) * 7 + 3)
    assert prepared.shape == (1, SIDE, SIDE)
    assert prepared.mean().item() == pytest.approx(0, abs=1e-5)
    assert prepared.std(correction=0).item() == pytest.approx(1, abs=1e-5)
    assert torch.equal(prepare(torch.ones(8, 8)), torch.zeros(1, SIDE, SIDE))


def test_the_net_gives_a_logit_for_every_structure_and_pixel():
    assert ThoraxSegmenter()(torch.zeros(2, 1, 48, 64)).shape == (2, len(STRUCTURES), 48, 64)


def test_an_image_with_channels_is_refused():
    with pytest.raises(ValueError, match=r"`pixels` must be \(H, W\), got \(64, 64, 3\)"):
        segment_thorax(np.zeros((64, 64, 3)))


def test_missing_weights_are_named(monkeypatch, tmp_path):
    monkeypatch.setattr(thorax_segmenter, "WEIGHTS", tmp_path / "thorax_segmenter.safetensors")
    with pytest.raises(FileNotFoundError, match=r"`thorax_segmenter\.safetensors` must be beside thorax_segmenter"):
        load_segmenter.__wrapped__()
