# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Images kept decoded: the same pixels to half a grey value, decoded once, and never another image's."""

import io
import logging
import os

import numpy as np
import pytest
import torch
from PIL import Image

from clarity_hf import ClarityImageProcessor
from clarity_hf.data import transforms
from clarity_hf.data.image_cache import ImageCache
from clarity_hf.data.transforms import ImageTransform, TransformedDataset

LABELS = np.array([1.0, 0.0], dtype=np.float32)


def noise(seed, shape=(90, 70)):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def png(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png")
    return buffer.getvalue()


def transform(folder, augment="none", size=32):
    """With the atlas as the prior: what the segmenter finds is kept in the same folder, see test_transforms.py."""
    processor = ClarityImageProcessor(size={"height": size, "width": size})
    return ImageTransform(processor, augment, prior="atlas", image_cache=folder)


def row(image):
    return {"image": image, "labels": LABELS}


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "image.png"
    path.write_bytes(png(noise(0)))
    return path


@pytest.fixture
def reads(monkeypatch):
    """The sources that were decoded."""
    seen = []
    read = transforms.read_source
    monkeypatch.setattr(transforms, "read_source", lambda source: seen.append(source) or read(source))
    return seen


@pytest.mark.parametrize("kind", ["path", "bytes", "undecoded path", "undecoded bytes"])
def test_an_image_is_decoded_once_and_has_its_pixels_to_half_a_grey_value(tmp_path, image, reads, kind):
    source = {
        "path": str(image),
        "bytes": image.read_bytes(),
        "undecoded path": {"path": str(image), "bytes": None},
        "undecoded bytes": {"path": None, "bytes": image.read_bytes()},
    }[kind]
    cached = transform(tmp_path / "cache")
    first, second = cached(row(source)), cached(row(source))
    assert len(reads) == 1
    plain = transform(None)(row(source))
    assert torch.equal(first["pixel_values"], second["pixel_values"])
    std = torch.tensor(ClarityImageProcessor().image_std)[:, None, None]
    grey_values = (first["pixel_values"] - plain["pixel_values"]).abs() * std * 255
    assert 0 < grey_values.max() < 0.501
    assert torch.equal(first["anatomical_prior"], plain["anatomical_prior"])


def test_crops_of_kept_images_are_those_of_the_images(tmp_path, image, reads):
    folders = (None, tmp_path / "cache")
    data = [TransformedDataset([row(str(image))], transform(folder, "full"), seed=3) for folder in folders]
    for epoch in range(3):
        for dataset in data:
            dataset.set_epoch(epoch)
        plain, cached = (dataset[0]["pixel_values"] for dataset in data)
        assert (plain - cached).abs().max() < 0.02
    assert len(reads) == 4  # three times without the cache


def test_the_atlas_keeps_its_place_over_a_cached_image(tmp_path, image):
    drawn = {"image": str(image)}
    plain, cached = transform(None).view(drawn), transform(tmp_path / "cache")
    for _ in range(2):
        assert torch.equal(cached.view(drawn)["thorax"], plain["thorax"])


def test_a_changed_image_and_another_size_are_decoded_again(tmp_path, image, reads):
    cached = transform(tmp_path / "cache")
    before = cached(row(str(image)))["pixel_values"]
    image.write_bytes(png(noise(1)))
    os.utime(image, ns=(0, 1))
    assert not torch.equal(cached(row(str(image)))["pixel_values"], before)
    assert transform(tmp_path / "cache", size=48)(row(str(image)))["pixel_values"].shape[-1] == 48
    assert len(reads) == 3


def test_a_damaged_file_is_replaced_with_a_warning(tmp_path, image, reads, caplog):
    cached = transform(tmp_path / "cache")
    before = cached(row(str(image)))["pixel_values"]
    (kept,) = (tmp_path / "cache").rglob("*.safetensors")
    kept.write_bytes(kept.read_bytes()[:40])
    with caplog.at_level(logging.WARNING):
        assert torch.equal(cached(row(str(image)))["pixel_values"], before)
    assert "is damaged" in caplog.text
    cached(row(str(image)))
    assert len(reads) == 2


def test_a_full_folder_is_logged_once_and_images_are_decoded(tmp_path, image, reads, caplog):
    folder = tmp_path / "cache"
    folder.write_text("a file where the folder should be")
    cached = transform(folder)
    with caplog.at_level(logging.WARNING):
        first, second = (cached(row(str(image)))["pixel_values"] for _ in range(2))
    assert torch.equal(first, second)
    assert caplog.text.count("takes no more images") == 1
    assert len(reads) == 2


def test_arrays_are_not_kept_but_rounded_all_the_same(tmp_path):
    cached = transform(tmp_path / "cache")(row(noise(0)))["pixel_values"]
    from_file = transform(tmp_path / "cache")(row(png(noise(0))))["pixel_values"]
    assert torch.equal(cached, from_file)
    assert len(list((tmp_path / "cache").rglob("*.safetensors"))) == 1


def test_a_missing_image_is_refused_as_without_the_cache(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"gone\.png"):
        transform(tmp_path / "cache")(row(str(tmp_path / "gone.png")))


def test_grey_values_are_rounded_and_clipped(tmp_path):
    content, size = ImageCache(tmp_path).content(None, "", lambda: (np.array([[-0.2, 0.5, 1.5, 255.4]]), (9, 7)))
    assert content.tolist() == [[0, 0, 2, 255]]
    assert content.dtype == np.uint8
    assert size == (9, 7)
