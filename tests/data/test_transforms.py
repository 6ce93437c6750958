# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""From row to tensors: one geometry for film and mask, the processor's pixels, priors and labels."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from clarity_hf import ClarityImageProcessor
from clarity_hf.data.transforms import (
    PRIOR_SIDE,
    FilmTransform,
    TransformedDataset,
    no_prior,
    read_source,
    soft_prior,
)

LABELS = np.array([1.0, 0.0, np.nan], dtype=np.float32)


@pytest.fixture
def processor():
    return ClarityImageProcessor(size={"height": 64, "width": 64})


def noise(height, width):
    return np.random.default_rng(0).integers(0, 256, (height, width), dtype=np.uint8)


def block(height, width):
    """Film `(height, width)` with a bright block off its centre, and the block as a mask."""
    film = np.full((height, width), 30, dtype=np.uint8)
    rows, columns = slice(height // 4, height // 2), slice(width // 3, width * 3 // 4)
    film[rows, columns] = 220
    return film, film == 220


def png(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png")
    return buffer.getvalue()


@pytest.mark.parametrize("shape", [(64, 64), (160, 96), (80, 200)])
@pytest.mark.parametrize("seed", range(4))
def test_film_and_mask_go_through_the_same_geometry(shape, seed):
    processor = ClarityImageProcessor(size={"height": 224, "width": 224})
    film, mask = block(*shape)
    seen = []
    transform = FilmTransform(processor, augment=True)
    # The mask as it leaves the augmentation, before the prior dilates it.
    augmentation = transform.augmentation
    transform.augmentation = lambda *pair: seen.append(augmentation(*pair)) or seen[-1]
    torch.manual_seed(seed)
    prior = transform({"image": film, "labels": LABELS, "thorax_mask": mask})["anatomical_prior"]
    film, mask = seen[0][0][0], seen[0][1][0] > 0
    bright = film > (film.max() + film[film > 0].min()) / 2
    # The mask is resampled to the nearest pixel, the film with a filter; a pixel of the source is up to 2 of these.
    assert (bright & mask).sum() / (bright | mask).sum() > 0.9
    centres = [torch.argwhere(inside).float().mean(0) for inside in (bright, mask)]
    torch.testing.assert_close(*centres, rtol=0, atol=1.5)
    assert prior.max() == 1


def test_augmentation_moves_the_film(processor):
    film, mask = block(96, 96)
    row = {"image": film, "labels": LABELS, "thorax_mask": mask}
    torch.manual_seed(0)
    transform = FilmTransform(processor, augment=True)
    first, second = transform(row), transform(row)
    assert not torch.equal(first["pixel_values"], second["pixel_values"])
    assert not torch.equal(first["anatomical_prior"], second["anatomical_prior"])


def test_augmentation_follows_the_seed(processor):
    transform = FilmTransform(processor, augment=True)
    films = []
    for _ in range(2):
        torch.manual_seed(3)
        films.append(transform({"image": noise(80, 64), "labels": LABELS})["pixel_values"])
    assert torch.equal(*films)


def test_without_augmentation_nothing_is_random(processor):
    row = {"image": noise(80, 64), "labels": LABELS, "thorax_mask": block(80, 64)[1]}
    transform = FilmTransform(processor)
    torch.manual_seed(0)
    first = transform(row)
    torch.manual_seed(1)
    second = transform(row)
    assert torch.equal(first["pixel_values"], second["pixel_values"])
    assert torch.equal(first["anatomical_prior"], second["anatomical_prior"])


@pytest.mark.parametrize("keep_ratio", [True, False])
@pytest.mark.parametrize("shape", [(64, 64), (128, 128), (160, 96), (90, 150)])
def test_validation_pixels_are_those_of_the_image_processor(shape, keep_ratio):
    processor = ClarityImageProcessor(size={"height": 64, "width": 64}, keep_ratio=keep_ratio)
    film = noise(*shape)
    ours = FilmTransform(processor)({"image": film, "labels": LABELS})["pixel_values"]
    theirs = processor(film, return_tensors="pt").pixel_values[0]
    assert ours.shape == theirs.shape
    # The processor resizes in uint8: a rounding for each axis, half a grey level each, on the normalised scale.
    grey_level = 1 / 255 / processor.image_std[0]
    tolerance = 1e-5 if shape == (64, 64) else 1.02 * grey_level
    assert (ours - theirs).abs().max() <= tolerance
    assert (ours - theirs).abs().mean() <= 0.5 * grey_level


def test_sixteen_bit_pixels_are_those_of_the_image_processor(processor):
    film = np.random.default_rng(0).integers(0, 65536, (160, 96)).astype(np.uint16)
    ours = FilmTransform(processor)({"image": film, "labels": LABELS})["pixel_values"]
    theirs = processor(film, return_tensors="pt").pixel_values[0]
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)


@pytest.mark.parametrize("augment", [False, True])
@pytest.mark.parametrize("row", [{}, {"thorax_mask": None}, {"thorax_mask": np.zeros((80, 64), dtype=bool)}])
def test_without_a_mask_or_with_an_empty_one_the_prior_is_unknown(processor, row, augment):
    prior = FilmTransform(processor, augment=augment)({"image": noise(80, 64), "labels": LABELS} | row)[
        "anatomical_prior"
    ]
    assert prior.shape == (1, PRIOR_SIDE, PRIOR_SIDE)
    assert prior.isnan().all()


def test_a_mask_file_may_be_empty_or_full(processor, tmp_path):
    transform = FilmTransform(processor)
    priors = []
    for name, grey in (("empty", 0), ("full", 255)):
        path = tmp_path / f"{name}.png"
        path.write_bytes(png(np.full((64, 64), grey, dtype=np.uint8)))
        row = {"image": noise(64, 64), "labels": LABELS, "thorax_mask": {"path": str(path), "bytes": None}}
        priors.append(transform(row)["anatomical_prior"])
    assert priors[0].isnan().all()
    assert (priors[1] == 1).all()


def test_outside_the_film_there_is_no_thorax(processor):
    """A portrait film of 2:1 fills the middle half of the input."""
    row = {"image": noise(128, 64), "labels": LABELS, "thorax_mask": np.ones((128, 64), dtype=bool)}
    prior = FilmTransform(processor)(row)["anatomical_prior"][0]
    # Columns 14 to 41 of 56 are the film, dilated by round(64 / 24) = 3 of 64 pixels: 2.6 of 56.
    assert (prior[:, 14:42] == 1).all()
    assert (prior[:, :11] == 0).all()
    assert (prior[:, 45:] == 0).all()


def test_the_prior_is_dilated_by_a_24th_of_the_side():
    mask = torch.zeros(1, 168, 168, dtype=torch.uint8)
    mask[0, 84, 84] = 1
    prior = soft_prior(mask)
    # Radius 168 / 24 = 7: rows 77 to 91, of which a cell of 3 has all from 26 (78–80) to 29 (87–89); 77 is a third of
    # cell 25 and 90, 91 two thirds of cell 30.
    profile = torch.tensor([0, 1 / 3, 1, 1, 1, 1, 2 / 3, 0])
    torch.testing.assert_close(prior[0, 24:32, 27], profile)
    torch.testing.assert_close(prior[0, 27, 24:32], profile)
    assert prior.sum().item() == pytest.approx(15 * 15 / 9, rel=1e-6)


def test_the_prior_lies_between_0_and_1_whatever_the_masks_values():
    mask = torch.from_numpy(noise(100, 60))[None]
    prior = soft_prior(mask)
    assert prior.dtype == torch.float32
    assert prior.shape == (1, PRIOR_SIDE, PRIOR_SIDE)
    assert prior.min() >= 0
    assert prior.max() <= 1


def test_no_prior_has_the_shape_of_a_prior():
    assert no_prior().shape == soft_prior(torch.ones(1, 64, 64)).shape
    assert no_prior().isnan().all()


@pytest.mark.parametrize("labels", [LABELS, LABELS.astype(np.float64), LABELS.tolist()])
def test_labels_are_float32_and_stay_unannotated(processor, labels):
    out = FilmTransform(processor)({"image": noise(64, 64), "labels": labels})["labels"]
    assert out.dtype == torch.float32
    assert out[:2].tolist() == [1.0, 0.0]
    assert out[2].isnan()


def test_pixel_values_are_three_equal_channels_of_the_processors_size():
    processor = ClarityImageProcessor(size={"height": 64, "width": 96})
    for augment in (False, True):
        pixels = FilmTransform(processor, augment)({"image": noise(80, 64), "labels": LABELS})["pixel_values"]
        assert pixels.shape == (3, 64, 96)
        assert pixels.is_contiguous()
        assert torch.equal(pixels[0], pixels[2])


@pytest.mark.parametrize("crop_scale", [0, -0.1, 1.1])
def test_crop_scale_out_of_range_is_refused(processor, crop_scale):
    with pytest.raises(ValueError, match="crop_scale"):
        FilmTransform(processor, augment=True, crop_scale=crop_scale)


def test_a_missing_file_is_named(processor, tmp_path):
    row = {"image": {"path": str(tmp_path / "gone.png"), "bytes": None}, "labels": LABELS}
    with pytest.raises(FileNotFoundError, match=r"gone\.png"):
        FilmTransform(processor)(row)


def test_a_corrupt_film_is_named_also_when_its_bytes_are_in_the_row(processor, tmp_path):
    path = tmp_path / "broken.png"
    path.write_bytes(png(noise(64, 64))[:1000])
    transform = FilmTransform(processor)
    for cell in (str(path), {"path": str(path), "bytes": None}, {"path": str(path), "bytes": path.read_bytes()}):
        with pytest.raises(ValueError, match=r"broken\.png"):
            transform({"image": cell, "labels": LABELS})


def test_a_corrupt_mask_is_named(processor, tmp_path):
    path = tmp_path / "broken-mask.png"
    path.write_bytes(png(noise(64, 64))[:1000])
    row = {"image": noise(64, 64), "labels": LABELS, "thorax_mask": {"path": str(path), "bytes": None}}
    with pytest.raises(OSError, match="broken-mask"):
        FilmTransform(processor)(row)


def test_undecoded_cells_read_as_the_film(tmp_path):
    film = noise(64, 48)
    path = tmp_path / "film.png"
    path.write_bytes(png(film))
    for cell in ({"path": str(path), "bytes": None}, {"path": None, "bytes": png(film)}, {"bytes": png(film)}):
        np.testing.assert_array_equal(read_source(cell), film)


def test_a_mask_in_bytes_reads_as_the_array(processor):
    film, mask = block(64, 64)
    transform = FilmTransform(processor)
    cells = [mask, {"path": None, "bytes": png(mask.astype(np.uint8) * 255)}, Image.fromarray(mask)]
    priors = [transform({"image": film, "labels": LABELS, "thorax_mask": cell})["anatomical_prior"] for cell in cells]
    assert torch.equal(priors[0], priors[1])
    assert torch.equal(priors[0], priors[2])


def test_a_transformed_dataset_has_the_rows_of_the_one_below(processor):
    rows = [{"image": noise(64, 64), "labels": LABELS}, {"image": 255 - noise(64, 64), "labels": 1 - LABELS}]
    dataset = TransformedDataset(rows, FilmTransform(processor))
    assert len(dataset) == 2
    assert dataset[1]["labels"][0] == 0
    expected = FilmTransform(processor)(rows[1])["pixel_values"]
    assert torch.equal(dataset[1]["pixel_values"], expected)
