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
    absent_on_normal,
    deletion_insertion,
    mass_outside,
    mass_outside_where_present,
    perturbed_images,
    randomised_weights,
    rank_correlation,
    structural_similarity,
)
from clarity_hf.metrics.records import ImageRecord

WHOLE = Letterbox.fit((32, 32), (32, 32))
PORTRAIT = Letterbox.fit((64, 32), (32, 32))
"""An image twice as high as wide: the middle 16 columns of 32."""


def record(labels, peaks, shown=0, outside=None):
    return ImageRecord(
        name="image",
        patient="1",
        size=(64, 64),
        labels=np.array(labels, dtype=np.float64),
        scores=np.zeros(len(labels)),
        peaks=np.array(peaks, dtype=np.float64),
        shown=tuple((0, np.array([0.0, 0, 1, 1])) for _ in range(shown)),
        mass_outside=None if outside is None else np.array(outside, dtype=np.float64),
    )


def test_a_map_over_its_image_leaves_the_padding_out():
    grid = np.tile([0.0, 1.0, 3.0, 9.0], (4, 1))  # columns 1 and 2 lie over the image
    np.testing.assert_allclose(map_over_image(grid, PORTRAIT, (2, 2)), [[1, 3], [1, 3]])
    np.testing.assert_allclose(map_over_image(grid, PORTRAIT, (1, 4)), [[0.75, 1.5, 2.5, 4.5]])
    np.testing.assert_allclose(map_over_image(np.stack([grid, 2 * grid]), WHOLE, (4, 4))[1], 2 * grid)


def test_a_map_is_sampled_as_the_library_upsamples():
    grid = np.random.default_rng(0).random((3, 4, 4)).astype(np.float32)
    expected = torch.nn.functional.interpolate(torch.from_numpy(grid)[None], (32, 32), mode="bilinear")[0]
    np.testing.assert_allclose(map_over_image(grid, WHOLE, (32, 32)), expected, atol=1e-6)


def test_mass_outside_by_hand():
    maps = np.zeros((4, 4, 4))
    maps[0] = 1  # even
    maps[1, :, :2] = 1  # mostly left; across the middle it falls from 1 to 0 over one cell
    maps[3, 0, 0] = 5
    thorax = np.zeros((32, 32), dtype=bool)
    thorax[:, 16:] = True
    shares = mass_outside(maps, WHOLE, thorax)
    # Of eight columns a cell, four of each side of the middle are on the slope: 16 - 1 of 16 and 1 of 16.
    np.testing.assert_allclose(shares[:2], [0.5, 15 / 16])
    assert np.isnan(shares[2])
    assert shares[3] == 1


def test_mass_over_the_padding_does_not_count():
    maps = np.zeros((2, 4, 4))
    maps[0, :, 3] = 1  # its slope reaches into the image
    maps[1, :, 1:3] = 1
    thorax = np.zeros((640, 320))
    thorax[:, 160:] = 1.0
    shares = mass_outside(maps, PORTRAIT, thorax)
    np.testing.assert_allclose(shares, [0, 0.5], atol=1e-12)
    assert np.isnan(mass_outside(maps[:1] * 0, PORTRAIT, thorax)).all()


def test_mass_outside_is_the_mean_over_the_images_pixels():
    generator = np.random.default_rng(1)
    maps, thorax = generator.random((3, 5, 7)), generator.random((33, 21))
    box = Letterbox.fit((100, 60), (80, 112))
    over = map_over_image(maps, box, thorax.shape)
    expected = (over * (1 - thorax)).sum((1, 2)) / over.sum((1, 2))
    np.testing.assert_allclose(mass_outside(maps, box, thorax), expected)


def test_masks_of_any_kind_are_read():
    maps = np.ones((1, 4, 4))
    mask = np.zeros((8, 8), dtype=np.uint8)
    mask[:2] = 255
    assert mass_outside(maps, WHOLE, mask) == pytest.approx([0.75])
    assert mass_outside(maps, WHOLE, np.full((8, 8), 0.4)) == pytest.approx([0.6])


@pytest.mark.parametrize(
    ("maps", "thorax", "message"),
    [
        (-np.ones((1, 4, 4)), np.ones((8, 8)), r"`maps` must be \(F, h, w\) finite values ≥ 0"),
        (np.full((1, 4, 4), np.nan), np.ones((8, 8)), "`maps` must be"),
        (np.ones((4, 4)), np.ones((8, 8)), r"`maps` must be .* got shape \(4, 4\)"),
        (np.ones((1, 4, 4)), np.full((8, 8), 255.0), r"`thorax` must be \(H, W\) in \[0, 1\]"),
        (np.ones((1, 4, 4)), np.full((8, 8), np.nan), "`thorax` must be"),
        (np.ones((1, 4, 4)), np.ones((1, 8, 8)), r"`thorax` must be .* got shape \(1, 8, 8\)"),
    ],
)
def test_wrong_maps_and_masks_are_named(maps, thorax, message):
    with pytest.raises(ValueError, match=message):
        mass_outside(maps, WHOLE, thorax)


@pytest.mark.filterwarnings("error")
def test_mass_outside_is_averaged_where_a_finding_is_present():
    images = [
        record([1, 0, 0], [1, 1, 1], outside=[0.2, 0.9, 0.9]),
        record([1, 1, 0], [1, 1, 1], outside=[0.4, np.nan, 0.9]),
        record([1, 1, np.nan], [1, 1, 1], outside=[0.9, 0.3, 0.9]),
        record([1, 0, 0], [1, 1, 1]),
    ]
    summary = mass_outside_where_present(images)
    np.testing.assert_allclose(summary.mean, [0.5, 0.3, np.nan])
    np.testing.assert_allclose(summary.median, [0.4, 0.3, np.nan])
    assert summary.images.tolist() == [3, 1, 0]
    assert summary.left_out.tolist() == [1, 1, 0]


@pytest.mark.filterwarnings("error")
def test_peaks_on_normal_images_against_images_with_the_finding():
    images = [
        record([0, 0, 0], [1, 1, 0], shown=2),
        record([0, 0, 0], [3, 2, 0]),
        record([0, 0, 0], [2, np.nan, 0], shown=1),
        record([1, 0, 0], [4, 9, 9], shown=5),
        record([1, 1, 0], [2.5, 1, 9]),
        record([0, np.nan, 0], [99, 99, 99], shown=7),  # not known to be normal
    ]
    result = absent_on_normal(images)
    # 4 exceeds 1, 3, 2; 2.5 exceeds 1, 2: five of six pairs. 1 against 1, 2: half of two pairs.
    np.testing.assert_allclose(result.auroc, [5 / 6, 0.25, np.nan])
    np.testing.assert_allclose(result.median_present, [3.25, 1, np.nan])
    np.testing.assert_allclose(result.median_normal, [2, 1.5, 0])
    np.testing.assert_allclose(result.median_ratio, [2 / 3.25, 1.5, np.nan])
    assert result.present.tolist() == [2, 1, 0]
    assert result.normal.tolist() == [3, 2, 3]
    assert result.unmeasured.tolist() == [0, 1, 0]
    assert (result.normal_images, result.boxes_shown) == (3, 1.0)
    assert result.images_with_boxes == pytest.approx(2 / 3)


@pytest.mark.filterwarnings("error")
def test_without_normal_images_nothing_is_defined():
    result = absent_on_normal([record([1, 0], [2, 1])])
    assert np.isnan([result.boxes_shown, result.images_with_boxes, *result.auroc, *result.median_ratio]).all()
    assert result.normal_images == 0


@pytest.mark.parametrize("function", [absent_on_normal, mass_outside_where_present])
def test_no_records_are_refused(function):
    with pytest.raises(ValueError, match="`records` must hold at least one image, got none"):
        function([])


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
    # The quarter is gone after two of eight steps, and the image's mean is a quarter.
    np.testing.assert_allclose(result[0].deletion, [1, 0.625] + [0.25] * 7, atol=1e-6)
    np.testing.assert_allclose(result[0].deletion_areas, [(0.8125 + 0.4375 + 6 * 0.25) / 8], atol=1e-6)
    start = result[0].insertion[0]
    assert 0.8 < start < 1  # blurred
    # Half of the quarter is inserted, in random order: the mean is half way within the noise of the draw.
    np.testing.assert_allclose(result[0].insertion, [start, (1 + start) / 2] + [1] * 7, atol=0.01)
    assert not result[1].deletion.any()
    assert (result[0].images, result[0].blank) == (1, 0)


def test_a_wrong_map_is_told_from_a_right_one(quarter):
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
    assert np.isnan(rank_correlation(np.ones((2, 2)), other[:2, :2]))


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
