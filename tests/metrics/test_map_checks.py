# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Mass outside the thorax and maps on normal images, on cases whose answer is known."""

import numpy as np
import pytest

from clarity_hf.boxes import Letterbox, map_over_image
from clarity_hf.metrics.map_checks import absent_on_normal, mass_outside, mass_outside_where_present
from clarity_hf.metrics.records import ImageRecord

WHOLE = Letterbox.fit((32, 32), (32, 32))
PORTRAIT = Letterbox.fit((64, 32), (32, 32))
"""An image twice as high as wide: the middle 16 columns of 32."""


def record(labels, peaks, outside=None):
    return ImageRecord(
        name="image",
        patient="1",
        size=(64, 64),
        labels=np.array(labels, dtype=np.float64),
        scores=np.zeros(len(labels)),
        peaks=np.array(peaks, dtype=np.float64),
        mass_outside=None if outside is None else np.array(outside, dtype=np.float64),
    )


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
    means, counts = mass_outside_where_present(images)
    np.testing.assert_allclose(means, [0.5, 0.3, np.nan])
    assert counts.tolist() == [3, 1, 0]


@pytest.mark.filterwarnings("error")
def test_peaks_on_normal_images_against_images_with_the_finding():
    images = [
        record([0, 0, 0], [1, 1, 0]),
        record([0, 0, 0], [3, 2, 0]),
        record([0, 0, 0], [2, np.nan, 0]),
        record([1, 0, 0], [4, 9, 9]),
        record([1, 1, 0], [2.5, 1, 9]),
        record([0, np.nan, 0], [99, 99, 99]),  # not known to be normal
    ]
    result = absent_on_normal(images)
    # 4 exceeds 1, 3, 2; 2.5 exceeds 1, 2: five of six pairs. 1 against 1, 2: half of two pairs.
    np.testing.assert_allclose(result.auroc, [5 / 6, 0.25, np.nan])
    np.testing.assert_allclose(result.median_present, [3.25, 1, np.nan])
    np.testing.assert_allclose(result.median_normal, [2, 1.5, 0])
    assert result.present.tolist() == [2, 1, 0]
    assert result.normal_images == 3


@pytest.mark.filterwarnings("error")
def test_without_normal_images_nothing_is_defined():
    result = absent_on_normal([record([1, 0], [2, 1])])
    assert np.isnan([*result.auroc, *result.median_normal]).all()
    assert result.normal_images == 0


@pytest.mark.parametrize("function", [absent_on_normal, mass_outside_where_present])
def test_no_records_are_refused(function):
    with pytest.raises(ValueError, match="`records` must hold at least one image, got none"):
        function([])
