# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Anatomical priors: the packaged atlas, masks of any kind, and the one way that both take to a training step."""

import io
import os

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from clarity_hf.data.priors import ATLAS_FILE, PRIOR_SIDE, load_atlas, no_prior, read_mask, soft_prior


def encoded(pixels, form="png"):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, form)
    return buffer.getvalue()


# Atlas


def test_the_atlas_covers_an_image_with_shares():
    atlas = load_atlas()
    assert atlas.shape == (1, 128, 128)
    assert atlas.dtype == torch.float32
    assert atlas.min() == 0
    assert 0.99 < atlas.max() <= 1
    # Thorax nowhere at the image's corners, nearly everywhere at its centre.
    assert atlas[0, [0, 0, -1, -1], [0, -1, 0, -1]].max() < 0.02
    assert atlas[0, 40:72, 40:88].min() > 0.9


def test_the_atlas_has_the_patients_left_on_the_right():
    """The liver lifts the right dome of the diaphragm: the lung on the image's left ends higher."""
    atlas = load_atlas()[0]
    lower = atlas[80:]
    assert lower[:, 72:112].sum() > 1.05 * lower[:, 16:56].sum()


def test_the_atlas_is_the_callers_own():
    load_atlas().zero_()
    assert load_atlas().max() > 0.99


def test_the_atlas_names_its_source_and_licence():
    beside = ATLAS_FILE.with_suffix(".md").read_text(encoding="utf-8")
    with Image.open(ATLAS_FILE) as image:
        assert image.mode == "L"
        inside = " ".join(image.text.values())
    for text in (beside, inside):
        for word in ("v7labs/covid-19-xray-dataset", "CC BY 4.0", "torchxrayvision wheel 1.5.7", "435"):
            assert word in text


# Prior


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


@pytest.mark.parametrize("shape", [(224, 224), (64, 96), (57, 56), (300, 129)])
def test_a_soft_atlas_is_dilated_to_its_largest_value_nearby(shape):
    atlas = torch.rand(1, *shape, generator=torch.Generator().manual_seed(0))
    radius = round(max(shape) / 24)
    expected = F.adaptive_avg_pool2d(F.max_pool2d(atlas, 2 * radius + 1, stride=1, padding=radius), PRIOR_SIDE)
    torch.testing.assert_close(soft_prior(atlas), expected, rtol=0, atol=1e-6)


def test_a_mask_of_one_takes_the_way_of_an_atlas_of_one():
    mask = torch.zeros(1, 96, 96)
    mask[0, 30:60, 20:70] = 1
    for same in (mask.bool(), mask.to(torch.uint8), 255 * mask.to(torch.uint8)):
        assert torch.equal(soft_prior(same), soft_prior(mask))
    assert torch.equal(soft_prior(0.5 * mask), 0.5 * soft_prior(mask))


def test_a_side_too_small_to_dilate_is_averaged_alone():
    mask = torch.zeros(1, 8, 8)
    mask[0, 2, 3] = 1
    assert torch.equal(soft_prior(mask), mask.repeat_interleave(7, 1).repeat_interleave(7, 2))


def test_the_prior_is_between_0_and_1_whatever_the_masks_values():
    mask = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (1, 100, 60), dtype=np.uint8))
    prior = soft_prior(mask)
    assert prior.dtype == torch.float32
    assert prior.shape == (1, PRIOR_SIDE, PRIOR_SIDE)
    assert prior.min() >= 0
    assert prior.max() <= 1


def test_the_mask_itself_is_left_alone():
    mask = torch.eye(48)[None]
    soft_prior(mask)
    assert torch.equal(mask, torch.eye(48)[None])


def test_no_prior_has_the_shape_of_a_prior():
    assert no_prior().shape == soft_prior(torch.ones(1, 64, 64)).shape
    assert no_prior().isnan().all()


# Masks


def test_a_mask_reads_the_same_from_every_cell(tmp_path):
    mask = np.zeros((20, 30), dtype=np.uint8)
    mask[5:10, 6:25] = 1
    path = tmp_path / "mask.png"
    path.write_bytes(encoded(mask * 255))
    cells = [
        mask,
        mask.astype(bool),
        mask * 3,
        Image.fromarray(mask),
        Image.fromarray(mask.astype(bool)),
        Image.fromarray(mask.astype(np.uint16)),
        Image.fromarray(mask.astype(np.float32) * 0.4),
        Image.fromarray(np.stack([mask * 255] * 3, -1)),
        path,
        str(path),
        {"path": str(path), "bytes": None},
        {"path": None, "bytes": encoded(mask)},
        {"path": None, "bytes": encoded(mask.astype(np.uint16))},
    ]
    for cell in cells:
        read = read_mask(cell)
        assert read.dtype == np.uint8
        np.testing.assert_array_equal(read, mask)


def test_the_ringing_of_a_jpeg_is_not_thorax(tmp_path):
    mask = np.zeros((64, 64), dtype=np.uint8)
    mask[21:45, 13:50] = 255
    path = tmp_path / "mask.jpg"
    path.write_bytes(encoded(mask, "jpeg"))
    assert (np.asarray(Image.open(path)) > 0).sum() > (mask > 0).sum()
    for cell in (path, {"path": None, "bytes": path.read_bytes()}):
        np.testing.assert_array_equal(read_mask(cell), mask // 255)


@pytest.mark.parametrize(
    "cell", [None, np.zeros((8, 8)), {"path": None, "bytes": encoded(np.zeros((8, 8), dtype=np.uint8))}]
)
def test_an_empty_mask_counts_as_missing(cell):
    assert read_mask(cell) is None


def test_a_mask_of_several_channels_is_refused():
    with pytest.raises(ValueError, match=r"`thorax_mask` must be \(h, w\), got \(3, 8, 8\)"):
        read_mask(np.ones((3, 8, 8)))


def test_a_missing_mask_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="gone"):
        read_mask(tmp_path / "gone.png")


@pytest.mark.parametrize("content", [b"", b"no mask", encoded(np.eye(30, dtype=np.uint8))[:50]])
def test_a_mask_that_does_not_decode_is_refused(tmp_path, content):
    (tmp_path / "broken.png").write_bytes(content)
    with pytest.raises(OSError, match=r"must be an image that decodes, got .*broken\.png"):
        read_mask(tmp_path / "broken.png")
    with pytest.raises(OSError, match="`thorax_mask` must be an image that decodes, got one that does not"):
        read_mask({"path": None, "bytes": content})


@pytest.mark.parametrize("place", ["PIL.ImageFile.ImageFile.load", "PIL.Image.Image.convert"])
def test_a_memory_error_is_not_reported_as_a_damaged_mask(tmp_path, place, monkeypatch):
    content = encoded(np.zeros((30, 30, 3), dtype=np.uint8))
    (tmp_path / "mask.png").write_bytes(content)

    def fail(*words, **options):
        raise MemoryError

    monkeypatch.setattr(place, fail)
    for mask in (tmp_path / "mask.png", {"path": None, "bytes": content}):
        with pytest.raises(MemoryError):
            read_mask(mask)


@pytest.mark.parametrize("mask", [np.full((8, 8), np.nan), np.full((8, 8), "a"), np.full((8, 8), None)])
def test_a_mask_holds_finite_numbers(mask):
    with pytest.raises(ValueError, match="`thorax_mask` must hold finite numbers"):
        read_mask(mask)


def test_pipes_and_devices_are_not_masks(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    for path in (tmp_path / "pipe.png", "/dev/zero", tmp_path):
        with pytest.raises(OSError, match="`source` must be a file, got the folder, pipe or device"):
            read_mask(path)


@pytest.mark.parametrize("form", ["alpha", "colour and alpha", "colour, transparent", "blue", "palette"])
def test_a_mask_in_colour_or_transparency_is_read(form):
    inside = np.zeros((8, 8), dtype=np.uint8)
    inside[2:5, 3:6] = 1
    if form == "alpha":
        pixels = np.dstack([np.full((8, 8), 255, np.uint8), 255 * inside])
        mask = Image.fromarray(pixels, "LA")
    elif form.startswith("colour"):
        alpha = np.full((8, 8), 0 if "transparent" in form else 255, np.uint8)
        mask = Image.fromarray(np.dstack([255 * inside] * 3 + [alpha]))
    elif form == "blue":
        mask = Image.fromarray(np.dstack([0 * inside, 0 * inside, inside]))
    else:
        mask = Image.fromarray(inside, "P")
        mask.putpalette([0, 0, 0, 1, 0, 2])
    np.testing.assert_array_equal(read_mask(mask), inside)
