# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Geometry: frames, boxes from maps, overlaps."""

import numpy as np
import pytest
import torch
import torchvision
from scipy import ndimage

from clarity_hf.boxes import (
    Letterbox,
    UpsampledMap,
    bilinear_matrix,
    box_area,
    box_iou,
    boxes_from_map,
    divided_map,
)

SIZES = [(1024, 1024), (2500, 2048), (300, 997), (17, 1601), (224, 224), (101, 99), (3001, 16)]


def identity(size):
    return Letterbox.fit(size, size)


def gaussian(grid, centre, spread):
    """Map with a blob; centre (y, x) and spread in cells, cell i covering [i, i + 1)."""
    y, x = np.mgrid[0 : grid[0], 0 : grid[1]] + 0.5
    return np.exp(-(((y - centre[0]) / spread[0]) ** 2 + ((x - centre[1]) / spread[1]) ** 2) / 2)


# Letterbox


def test_a_portrait_image_is_centred_between_black_columns():
    box = Letterbox.fit((2500, 2048), (224, 224))
    assert box.content == (224, 184)  # 2048 · 224 / 2500 = 183.5
    assert (box.top, box.left) == (0, 20)


def test_a_landscape_image_is_centred_between_black_rows():
    box = Letterbox.fit((100, 200), (64, 64))
    assert box.content == (32, 64)
    assert (box.top, box.left) == (16, 0)


def test_squashing_fills_the_input():
    box = Letterbox.fit((100, 200), (64, 64), keep_ratio=False)
    assert (box.content, box.top, box.left) == ((64, 64), 0, 0)
    np.testing.assert_allclose(box.to_input([0, 0, 100, 50]), [0, 0, 32, 32])


def test_a_box_lands_where_computed_by_hand():
    box = Letterbox.fit((100, 200), (64, 64))
    np.testing.assert_allclose(box.to_input([50, 25, 100, 75]), [16, 24, 32, 40])
    np.testing.assert_allclose(box.to_image([16, 24, 32, 40]), [50, 25, 100, 75])


@pytest.mark.parametrize("keep_ratio", [True, False])
@pytest.mark.parametrize("input_size", [(224, 224), (512, 512), (64, 96)])
@pytest.mark.parametrize("image", SIZES)
def test_round_trips_are_exact(image, input_size, keep_ratio):
    box = Letterbox.fit(image, input_size, keep_ratio)
    height, width = image
    corners = np.random.default_rng(0).uniform(size=(50, 4)) * [width, height, width, height]
    boxes = np.vstack([corners, [0, 0, width, height]])
    there = box.to_input(boxes)
    np.testing.assert_allclose(box.to_image(there), boxes, atol=1e-6)
    assert there.min() >= 0
    assert (there[:, [0, 2]] <= input_size[1] + 1e-9).all()
    assert (there[:, [1, 3]] <= input_size[0] + 1e-9).all()


@pytest.mark.parametrize("image", SIZES)
def test_the_whole_image_covers_the_content(image):
    box = Letterbox.fit(image, (224, 224))
    whole = box.to_input([0, 0, image[1], image[0]])
    expected = [box.left, box.top, box.left + box.content[1], box.top + box.content[0]]
    np.testing.assert_allclose(whole, expected)


def test_boxes_over_the_padding_are_clipped_to_the_image():
    box = Letterbox.fit((100, 200), (64, 64))
    np.testing.assert_allclose(box.to_image([0, 0, 64, 64]), [0, 0, 200, 100])


def test_a_sliver_keeps_a_pixel():
    assert Letterbox.fit((1, 10_000), (64, 64)).content == (1, 64)


@pytest.mark.parametrize(("image", "size", "name"), [((0, 5), (8, 8), "image"), ((5, 5), (8, 0), "input")])
def test_an_empty_frame_is_refused(image, size, name):
    with pytest.raises(ValueError, match=f"`{name}` must be .* at least 1 pixel"):
        Letterbox.fit(image, size)


# bilinear_matrix


@pytest.mark.parametrize(("length", "factor"), [(14, 8), (1, 8), (2, 3), (7, 1), (32, 5)])
def test_the_matrix_is_torch_interpolation(length, factor):
    row = torch.randn(1, 1, length, generator=torch.Generator().manual_seed(0))
    expected = torch.nn.functional.interpolate(row, scale_factor=factor, mode="linear", align_corners=False)
    np.testing.assert_allclose(bilinear_matrix(length, factor) @ row[0, 0].numpy(), expected[0, 0], atol=1e-5)


def test_the_cached_matrix_cannot_be_written():
    with pytest.raises(ValueError, match="read-only"):
        bilinear_matrix(4, 2)[0, 0] = 1


# boxes_from_map


@pytest.mark.parametrize("image", [(224, 224), (1024, 1024), (2500, 2048), (300, 500)])
def test_a_blob_drawn_in_the_image_is_boxed_in_the_image(image):
    box = Letterbox.fit(image, (224, 224))
    cells = 224 / 16
    centre_x, centre_y = image[1] * 0.6, image[0] * 0.4
    sigma = 0.1 * min(image)
    seen = box.to_input([centre_x, centre_y, centre_x, centre_y]) / 16
    scale = box.content[0] / image[0] / 16
    drawn = gaussian((int(cells), int(cells)), (seen[1], seen[0]), (sigma * scale, sigma * scale))
    (found,) = boxes_from_map(drawn, box, threshold=0.5)
    reach = sigma * np.sqrt(2 * np.log(2))  # where a Gaussian falls to half its peak
    expected = [centre_x - reach, centre_y - reach, centre_x + reach, centre_y + reach]
    # Half a cell of the 8× working grid on the Gaussian's steep side, a little more for the flattened peak.
    np.testing.assert_allclose(found, expected, atol=4 / 16 / scale)
    assert box_iou(found[None], np.array([expected]))[0, 0] > 0.8


def test_one_cell_of_the_working_grid_is_one_exact_box():
    grid = np.zeros((4, 4))
    grid[1, 2] = 1
    (found,) = boxes_from_map(grid, identity((64, 64)), threshold=0.5, upsampling=1)
    np.testing.assert_array_equal(found, [32, 16, 48, 32])  # columns 2..3 and rows 1..2 of 16 pixels


def test_what_lies_over_the_padding_is_ignored():
    box = Letterbox.fit((100, 200), (64, 64))  # rows 0 to 16 and 48 to 64 are black
    grid = np.zeros((4, 4))
    grid[0] = 10.0
    assert boxes_from_map(grid, box, 0.5, upsampling=1).shape == (0, 4)
    grid[1, 1] = 1.0  # a tenth of the padding's peak, the whole of the content's
    np.testing.assert_allclose(boxes_from_map(grid, box, 0.5, upsampling=1), [[50, 0, 100, 50]])


def test_columns_over_the_padding_are_ignored_too():
    box = Letterbox.fit((200, 100), (64, 64))
    grid = np.zeros((4, 4))
    grid[:, 3] = 10.0
    grid[2, 2] = 1.0
    np.testing.assert_allclose(boxes_from_map(grid, box, 0.5, upsampling=1), [[50, 100, 100, 150]])


def test_a_zero_map_has_no_box():
    for components in ("largest", "all"):
        assert boxes_from_map(np.zeros((14, 14)), identity((224, 224)), 0.5, components).shape == (0, 4)


def two_regions():
    """A low wide region left (4 cells of 0.6: mass 2.4) and a high narrow one right (1 cell of 1.0)."""
    grid = np.zeros((6, 6))
    grid[0:2, 0:2] = 0.6
    grid[4, 5] = 1.0
    return grid


def test_the_largest_region_is_the_one_with_the_most_mass():
    found = boxes_from_map(two_regions(), identity((60, 60)), 0.5, "largest", upsampling=1)
    np.testing.assert_array_equal(found, [[0, 0, 20, 20]])


def test_all_regions_come_by_falling_mass():
    found = boxes_from_map(two_regions()[::-1, ::-1], identity((60, 60)), 0.5, "all", upsampling=1)
    np.testing.assert_array_equal(found, [[40, 40, 60, 60], [0, 10, 10, 20]])


def test_regions_touching_at_a_corner_are_one():
    found = boxes_from_map(np.eye(4)[:2], identity((20, 40)), 0.5, "all", upsampling=1)
    np.testing.assert_array_equal(found, [[0, 0, 20, 20]])


def test_a_speck_has_no_box():
    grid = np.zeros((6, 6))
    grid[0:3, 0:3] = 1.0  # a mass of 9: a twentieth is 0.45
    grid[5, 0], grid[5, 5] = 0.46, 0.44
    working = UpsampledMap.of(grid, identity((60, 60)), 1)
    np.testing.assert_array_equal(working.boxes(0.1, "all"), [[0, 0, 30, 30], [0, 50, 10, 60]])
    assert len(working.boxes(0.1, "all", smallest=0)) == 3


def two_lungs():
    """Two peaks, 1 and 0.9, joined over a cell of 0.6: two thirds of the lower one."""
    grid = np.zeros((4, 7))
    grid[1, 1:6] = [1.0, 0.8, 0.6, 0.8, 0.9]
    return grid


@pytest.mark.parametrize(("valley", "count"), [(0, 1), (0.66, 1), (0.67, 2), (1, 2)])
def test_a_region_is_divided_where_the_map_falls_under_a_share_of_the_lower_peak(valley, count):
    found = boxes_from_map(two_lungs(), identity((40, 70)), 0.3, "all", upsampling=1, valley=valley)
    expected = [[10, 10, 40, 20], [40, 10, 60, 20]] if count == 2 else [[10, 10, 60, 20]]
    np.testing.assert_array_equal(found, expected)


def test_the_largest_part_is_a_part():
    found = boxes_from_map(two_lungs(), identity((40, 70)), 0.3, "largest", upsampling=1, valley=0.8)
    np.testing.assert_array_equal(found, [[10, 10, 40, 20]])


def test_a_divided_region_upsampled_is_cut_between_patches():
    whole = boxes_from_map(two_lungs(), identity((64, 112)), 0.3, "all", upsampling=8)
    left, right = boxes_from_map(two_lungs(), identity((64, 112)), 0.3, "all", upsampling=8, valley=0.8)
    assert left[2] == right[0] == 64  # both neighbours of the valley are equal: it goes to the higher peak
    assert (left[0], right[2]) == (whole[0, 0], whole[0, 2])


def test_a_peak_below_the_level_divides_nothing():
    grid = np.array([[1.0, 0.5, 0.1, 0.3]])
    assert len(np.unique(divided_map(grid, 0.2, 0.8))) == 2
    assert len(np.unique(divided_map(grid, 0.3, 0.8))) == 1


def test_a_peak_over_the_padding_divides_nothing():
    grid = np.zeros((4, 4))
    grid[1] = [0.5, 0.1, 0.1, 0.6]
    grid[0] = [0, 0, 1, 0]  # over the padding
    found = UpsampledMap.of(grid, Letterbox.fit((20, 40), (40, 40)), 1).boxes(0.05, "all", 0.8)
    np.testing.assert_array_equal(found, [[20, 0, 40, 10], [0, 0, 20, 10]])


def peaks_that_stand_apart(grid, level, valley):
    """Count from the definition: the highest level at which a peak is joined to a higher one lies under its share."""
    count = 0
    for place in zip(*np.nonzero((ndimage.maximum_filter(grid, 3) == grid) & (grid > level)), strict=True):
        saddle = 0.0
        for value in np.unique(grid[grid <= grid[place]]):
            regions, _ = ndimage.label(grid >= value, np.ones((3, 3)))
            if grid[regions == regions[place]].max() > grid[place]:
                saddle = value
        count += saddle < valley * grid[place]
    return count


@pytest.mark.parametrize("valley", [0.3, 0.6, 0.8, 1.0])
def test_parts_are_the_peaks_that_stand_apart(valley):
    generator = np.random.default_rng(int(100 * valley))
    for _ in range(10):
        grid = generator.random((9, 12)) + 0.01
        assert len(np.unique(divided_map(grid, 0.4, valley))) == peaks_that_stand_apart(grid, 0.4, valley)


@pytest.mark.parametrize("valley", [-0.1, 1.1, float("nan")])
def test_a_valley_outside_its_range_is_refused(valley):
    with pytest.raises(ValueError, match=r"`valley` must be in \[0, 1\], got"):
        boxes_from_map(two_lungs(), identity((40, 70)), 0.3, valley=valley)


def test_the_threshold_is_a_share_of_the_peak():
    grid = gaussian((14, 14), (7, 7), (2, 2))
    wide, narrow = (boxes_from_map(grid, identity((224, 224)), share) for share in (0.2, 0.8))
    np.testing.assert_array_equal(boxes_from_map(grid * 1e-3, identity((224, 224)), 0.2), wide)
    assert box_area(wide)[0] > 2 * box_area(narrow)[0]


def test_an_even_map_boxes_the_whole_image():
    found = boxes_from_map(np.ones((14, 14)), Letterbox.fit((90, 70), (224, 224)), 0.5)
    np.testing.assert_allclose(found, [[0, 0, 70, 90]])


@pytest.mark.parametrize("threshold", [0, 1, -0.1, 50, float("nan")])
def test_a_threshold_outside_the_open_interval_is_refused(threshold):
    with pytest.raises(ValueError, match=r"`threshold` must be inside \(0, 1\), got"):
        boxes_from_map(np.ones((2, 2)), identity((32, 32)), threshold)


@pytest.mark.parametrize("bad", [np.ones(4), np.ones((1, 4, 4)), np.array([[1, np.nan]]), np.array([[1, np.inf]])])
def test_anything_but_a_map_is_refused(bad):
    with pytest.raises(ValueError, match="`localization_map` must be"):
        boxes_from_map(bad, identity((32, 32)), 0.5)


def test_unknown_components_are_refused():
    with pytest.raises(ValueError, match="`components` must be 'largest' or 'all', got 'best'"):
        boxes_from_map(np.ones((2, 2)), identity((32, 32)), 0.5, "best")


def largest_box_at_full_size(grid, side, threshold):
    """The slow way: upsample to the image's pixels, threshold, label."""
    tensor = torch.from_numpy(grid)[None, None]
    full = torch.nn.functional.interpolate(tensor, size=(side, side), mode="bilinear", align_corners=False)
    full = full[0, 0].numpy()
    regions, count = ndimage.label(full > threshold * full.max(), structure=np.ones((3, 3)))
    mass = ndimage.sum_labels(full, regions, np.arange(1, count + 1))
    rows, columns = ndimage.find_objects(regions)[int(np.argmax(mass))]
    return np.array([[columns.start, rows.start, columns.stop, rows.stop]], dtype=np.float64)


@pytest.mark.parametrize("cells", [14, 32])
def test_boxes_agree_with_thresholding_at_full_size(cells):
    generator = np.random.default_rng(cells)
    overlaps = []
    for _ in range(60):
        smooth = ndimage.gaussian_filter(generator.normal(size=(cells, cells)), generator.uniform(0.8, 2.0))
        grid = np.maximum(smooth, 0).astype(np.float32)
        threshold = generator.uniform(0.3, 0.7)
        found = boxes_from_map(grid, Letterbox.fit((512, 512), (cells * 16, cells * 16)), threshold)
        overlaps.append(box_iou(found, largest_box_at_full_size(grid, 512, threshold))[0, 0])
    assert np.median(overlaps) >= 0.97
    assert np.quantile(overlaps, 0.05) >= 0.92


# UpsampledMap


@pytest.mark.parametrize("image", [(64, 64), (100, 200), (200, 100), (90, 70)])
@pytest.mark.parametrize("components", ["largest", "all"])
def test_one_upsampled_map_gives_the_boxes_of_every_threshold(image, components):
    generator = np.random.default_rng(0)
    grid = np.maximum(ndimage.gaussian_filter(generator.normal(size=(8, 8)), 0.8), 0)
    letterbox = Letterbox.fit(image, (64, 64))
    working = UpsampledMap.of(grid, letterbox)
    for threshold in (0.1, 0.5, 0.9):
        expected = boxes_from_map(grid, letterbox, threshold, components)
        np.testing.assert_array_equal(working.boxes(threshold * working.peak, components), expected)
        assert len(expected) >= 1


def test_the_working_grid_knows_what_lies_over_the_padding():
    working = UpsampledMap.of(np.ones((4, 4)), Letterbox.fit((100, 200), (64, 64)), upsampling=2)
    rows = [False] * 2 + [True] * 4 + [False] * 2  # of 8 pixels each; the image is rows 16 to 48
    np.testing.assert_array_equal(working.inside, np.tile(np.array(rows)[:, None], 8))
    np.testing.assert_array_equal(working.values, working.inside)


def test_cells_end_where_the_image_ends():
    working = UpsampledMap.of(np.ones((4, 4)), Letterbox.fit((100, 200), (64, 64)), upsampling=1)
    x, y = working.edges()
    np.testing.assert_allclose(x, [0, 50, 100, 150, 200])
    np.testing.assert_allclose(y, [0, 0, 50, 100, 100])


# box_iou and box_area


def test_overlaps_computed_by_hand():
    boxes = np.array([[0, 0, 2, 2], [1, 1, 3, 3], [10, 10, 11, 11]])
    others = np.array([[0, 0, 2, 2], [0, 0, 4, 1], [2, 0, 4, 2]])
    expected = [[1, 2 / 6, 0], [1 / 7, 0, 1 / 7], [0, 0, 0]]
    np.testing.assert_allclose(box_iou(boxes, others), expected)


def test_overlaps_are_those_of_torchvision():
    generator = np.random.default_rng(0)
    low = generator.uniform(0, 50, (2, 20, 2))
    boxes, others = np.concatenate([low, low + generator.uniform(1, 40, (2, 20, 2))], axis=-1)
    expected = torchvision.ops.box_iou(torch.from_numpy(boxes), torch.from_numpy(others))
    np.testing.assert_allclose(box_iou(boxes, others), expected, atol=1e-12)


def test_empty_boxes_overlap_nothing():
    empty = np.array([[5, 5, 5, 5]])
    np.testing.assert_array_equal(box_iou(empty, empty), [[0]])
    assert box_iou(np.zeros((0, 4)), empty).shape == (0, 1)


def test_areas_and_swapped_sides():
    np.testing.assert_array_equal(box_area([[1, 2, 4, 6], [4, 2, 1, 6]]), [12, 0])
