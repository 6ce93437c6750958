# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Whether maps can be trusted: every measure on cases whose answer is known."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from clarity_hf import ClarityImageProcessor
from clarity_hf.boxes import Letterbox, map_over_image
from clarity_hf.evaluation.localizers import LocalizerOutput, ModelLocalizer
from clarity_hf.evaluation.sanity import (
    deletion_insertion,
    perturbed_images,
    randomised_weights,
    rank_correlation,
    structural_similarity,
)

WHOLE = Letterbox.fit((32, 32), (32, 32))
PORTRAIT = Letterbox.fit((64, 32), (32, 32))
"""An image twice as high as wide: the middle 16 columns of 32."""


def test_a_map_over_its_image_leaves_the_padding_out():
    grid = np.tile([0.0, 1.0, 3.0, 9.0], (4, 1))  # columns 1 and 2 lie over the image
    np.testing.assert_allclose(map_over_image(grid, PORTRAIT, (2, 2)), [[1, 3], [1, 3]])
    np.testing.assert_allclose(map_over_image(grid, PORTRAIT, (1, 4)), [[0.75, 1.5, 2.5, 4.5]])
    np.testing.assert_allclose(map_over_image(np.stack([grid, 2 * grid]), WHOLE, (4, 4))[1], 2 * grid)


def test_a_map_is_sampled_as_the_library_upsamples():
    grid = np.random.default_rng(0).random((3, 4, 4)).astype(np.float32)
    expected = torch.nn.functional.interpolate(torch.from_numpy(grid)[None], (32, 32), mode="bilinear")[0]
    np.testing.assert_allclose(map_over_image(grid, WHOLE, (32, 32)), expected, atol=1e-6)


@pytest.fixture
def ramp():
    """Pixels `(1, 32, 32)` whose image is the middle columns, growing to the right; the padding is −1."""
    pixel_values = torch.full((1, 32, 32), -1.0)
    pixel_values[:, :, 8:24] = torch.arange(16.0)
    return pixel_values


def test_pixels_go_in_the_order_of_the_map(ramp):
    order = np.tile(np.arange(16.0), (32, 1))  # the right columns first
    states = perturbed_images(ramp, order, PORTRAIT, steps=4)
    assert states.shape == (10, 1, 32, 32)
    deletion, insertion = states[:5, 0, :, 8:24], states[5:, 0, :, 8:24]
    torch.testing.assert_close(states[0], ramp)
    torch.testing.assert_close(states[9], ramp)
    for step in range(5):
        kept = 16 - 4 * step
        torch.testing.assert_close(deletion[step, :, :kept], ramp[0, :, 8 : 8 + kept])
        assert (deletion[step, :, kept:] == 7.5).all()
        torch.testing.assert_close(insertion[step, :, kept:], ramp[0, :, 8 + kept : 24])
        torch.testing.assert_close(insertion[step, :, :kept], insertion[0, :, :kept])
    assert (states[:, :, :, :8] == -1).all()
    assert (states[:, :, :, 24:] == -1).all()
    # Blurred, without the black of the padding.
    assert 0 < insertion[0].min() < insertion[0].max() < 15


def test_equal_values_go_in_a_seeded_random_order(ramp):
    even = np.ones((32, 16))
    half = perturbed_images(ramp, even, PORTRAIT, steps=2)[1, 0, :, 8:24] == 7.5
    assert half.sum() == 256
    assert 0.3 < half[:16].float().mean() < 0.7
    torch.testing.assert_close(half, perturbed_images(ramp, even, PORTRAIT, steps=2)[1, 0, :, 8:24] == 7.5)
    other = perturbed_images(ramp, even, PORTRAIT, steps=2, seed=1)[1, 0, :, 8:24] == 7.5
    assert not torch.equal(half, other)


def test_wrong_orders_and_steps_are_named(ramp):
    with pytest.raises(ValueError, match=r"`order` must be \(32, 16\), got \(32, 32\)"):
        perturbed_images(ramp, np.ones((32, 32)), PORTRAIT)
    with pytest.raises(ValueError, match="`steps` must be at least 1, got 0"):
        perturbed_images(ramp, np.ones((32, 16)), PORTRAIT, steps=0)


class FixedMap:
    """A map that is always the same, over the whole of an input of 32 × 32."""

    name, findings = "fixed", ("Mass", "Nodule")

    def __init__(self, maps):
        self.maps = maps

    def __call__(self, images, wanted=None):
        box = Letterbox.fit(images[0].shape, (32, 32))
        return LocalizerOutput(np.zeros((1, 2)), self.maps[None].astype(np.float32), [box])


@pytest.fixture
def quarter():
    """Image `(32, 32)`, white in its top left quarter and black elsewhere, and its exact map for both findings."""
    image = np.zeros((32, 32), dtype=np.uint8)
    image[:16, :16] = 255
    maps = np.zeros((2, 32, 32))
    maps[:, :16, :16] = 1
    return image, maps


def grey_of_the_quarter(pixel_values):
    """Score of finding 0: the mean of the top left quarter; of finding 1: nothing."""
    mean = pixel_values[:, 0, :16, :16].mean((-2, -1))
    return torch.stack((mean, torch.zeros_like(mean)), dim=1)


PLAIN = ClarityImageProcessor(size={"height": 32, "width": 32}, do_normalize=False)


def test_deletion_of_a_model_that_averages_a_known_region(quarter):
    image, maps = quarter
    result = deletion_insertion([(image, [0, 1])], FixedMap(maps), grey_of_the_quarter, PLAIN, steps=8)
    # The quarter is removed after two of eight steps, and the image's mean is a quarter.
    np.testing.assert_allclose(result[0].deletion, [1, 0.625] + [0.25] * 7, atol=1e-6)
    np.testing.assert_allclose(result[0].deletion_areas, [(0.8125 + 0.4375 + 6 * 0.25) / 8], atol=1e-6)
    start = result[0].insertion[0]
    assert 0.8 < start < 1  # blurred
    # Half of the quarter is inserted, in random order: the mean is halfway within the noise of the order.
    np.testing.assert_allclose(result[0].insertion, [start, (1 + start) / 2] + [1] * 7, atol=0.01)
    assert not result[1].deletion.any()
    assert (result[0].images, result[0].blank) == (1, 0)


def test_a_wrong_map_scores_worse_than_a_right_one(quarter):
    image, maps = quarter
    right, wrong = (
        deletion_insertion([(image, [0])], FixedMap(drawn), grey_of_the_quarter, PLAIN)[0]
        for drawn in (maps, maps[:, ::-1, ::-1])
    )
    assert right.deletion_areas[0] < wrong.deletion_areas[0] - 0.2
    assert right.insertion_areas[0] > wrong.insertion_areas[0]


def test_curves_are_means_over_images_and_batches_change_nothing(quarter):
    image, maps = quarter
    images = [(image, [0]), (255 - image, [0, 1]), (image, [])]
    options = {"localizer": FixedMap(maps), "score": grey_of_the_quarter, "image_processor": PLAIN, "steps": 5}
    together = deletion_insertion(iter(images), **options)
    alone = [deletion_insertion([part], **options, batch_size=1)[0] for part in images[:2]]
    assert (together[0].images, together[1].images) == (2, 1)
    np.testing.assert_allclose(together[0].deletion, np.mean([part.deletion for part in alone], axis=0))
    np.testing.assert_allclose(together[0].insertion_areas, [part.insertion_areas[0] for part in alone])


def test_images_with_an_empty_map_are_counted(quarter):
    image, maps = quarter
    result = deletion_insertion([(image, [0])] * 2, FixedMap(0 * maps), grey_of_the_quarter, PLAIN)
    assert (result[0].images, result[0].blank) == (2, 2)


def test_no_pixel_of_an_image_without_findings_is_asked_for(quarter):
    assert deletion_insertion([(quarter[0], [])], FixedMap(quarter[1]), grey_of_the_quarter, PLAIN) == {}


def test_random_weights_change_the_maps_from_the_head_down(tiny_model, image):
    processor = ClarityImageProcessor(size={"height": 64, "width": 64})
    weights = {name: value.clone() for name, value in tiny_model.state_dict().items()}
    images = [image, image[::-1].copy()]
    state = torch.get_rng_state()
    stages = randomised_weights(tiny_model, processor, images, seed=3)
    assert torch.equal(torch.get_rng_state(), state)
    assert [stage.part for stage in stages] == ["heads", "final LayerNorm", "block 2", "block 1", "embeddings"]
    assert all(stage.maps + stage.undefined == 2 * 14 for stage in stages)
    assert all(abs(stage.rank_correlation) < 0.8 for stage in stages)
    assert all(torch.equal(weights[name], value) for name, value in tiny_model.state_dict().items())
    assert randomised_weights(tiny_model, processor, images, seed=3, batch_size=1)[-1].rank_correlation == (
        pytest.approx(stages[-1].rank_correlation, abs=1e-3)
    )
    assert randomised_weights(tiny_model, processor, images, seed=4)[-1] != stages[-1]


def test_all_weights_are_random_in_the_end(tiny_model, image, monkeypatch):
    processor = ClarityImageProcessor(size={"height": 64, "width": 64})
    seen = []
    call = ModelLocalizer.__call__

    def spy(self, images, wanted=None):
        seen.append({name: value.clone() for name, value in self.model.state_dict().items()})
        return call(self, images, wanted)

    monkeypatch.setattr(ModelLocalizer, "__call__", spy)
    randomised_weights(tiny_model, processor, [image], seed=3)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        fresh = type(tiny_model)(tiny_model.config).state_dict()
    assert len(seen) == 6
    assert all(torch.equal(value, fresh[name]) for name, value in seen[-1].items())
    changed = [[name for name in fresh if not torch.equal(one[name], two[name])] for one, two in pairwise(seen)]
    # Each part is touched once, in its turn; biases and norms start where the tiny model has them anyway.
    starts = [("class_token_head", "segment_cam", "ranking_pooling"), "clarity.layernorm", "clarity.layers.1"]
    starts += ["clarity.layers.0", "clarity.embeddings"]
    assert all(name.startswith(start) for names, start in zip(changed, starts, strict=True) for name in names)
    assert [bool(names) for names in changed] == [True, False, True, True, True]


def test_a_map_that_the_weights_do_not_move_is_found_out(tiny_model, image):
    # Attention alone owes nothing to the heads.
    tiny_model.config.map_fusion, tiny_model.config.background_suppression = "attention", False
    processor = ClarityImageProcessor(size={"height": 64, "width": 64})
    stages = randomised_weights(tiny_model, processor, [image], wanted=[[0, 5]], seed=3)
    assert stages[0].rank_correlation == pytest.approx(1)
    assert stages[0].similarity == pytest.approx(1)
    assert (stages[0].maps, stages[0].undefined) == (2, 0)
    assert stages[2].rank_correlation < 0.99


@pytest.mark.filterwarnings("error")
def test_maps_without_order_are_left_out_and_counted(tiny_model, image):
    with torch.no_grad():
        tiny_model.segment_cam.cam.weight.zero_()
    tiny_model.config.update({"map_fusion": "cam", "background_suppression": False})  # even maps of log 2
    processor = ClarityImageProcessor(size={"height": 64, "width": 64})
    stages = randomised_weights(tiny_model, processor, [image], wanted=[[0, 1, 2]])
    assert (stages[0].maps, stages[0].undefined) == (0, 3)
    assert np.isnan(stages[0].rank_correlation)


def test_rank_correlation_is_spearmans():
    generator = np.random.default_rng(0)
    one, other = generator.integers(0, 5, (6, 7)), generator.random((6, 7))
    expected = spearmanr(one.ravel(), other.ravel()).statistic
    assert rank_correlation(one, other) == pytest.approx(expected)
    assert rank_correlation(other, np.exp(other)) == pytest.approx(1)
    assert rank_correlation(other, -other) == pytest.approx(-1)


def test_structural_similarity_by_hand():
    # One window of 3 × 3: a spot in the middle against a spot in a corner, each 1/9 of the mass.
    one, other = np.zeros((3, 3)), np.zeros((3, 3))
    one[1, 1], other[0, 0] = 4, 7
    mean, variance, covariance = 1 / 9, (1 - 1 / 9) / 8, (0 - 1 / 9) / 8
    expected = (2 * mean**2 + 1e-4) * (2 * covariance + 9e-4) / ((2 * mean**2 + 1e-4) * (2 * variance + 9e-4))
    assert structural_similarity(one, other) == pytest.approx(expected)
    assert structural_similarity(one, 3 * one) == pytest.approx(1)


def test_structural_similarity_of_even_and_empty_maps():
    even, empty = np.ones((8, 8)), np.zeros((8, 8))
    assert structural_similarity(empty, empty) == pytest.approx(1)
    assert structural_similarity(even, empty) == pytest.approx(1e-4 / 1.0001)
