# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""One reader for every source: what is an image is scaled and never clipped, what is none is refused with the
reason.
"""

import contextlib
import importlib.util
import io
import os
import re
import socket
import struct
import subprocess
import sys
import time
import tracemalloc
import zipfile
import zlib

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile

from clarity_hf.dicom_reading import MAX_BYTES
from clarity_hf.image_reading import MAX_PADDING, MAX_PIXELS, MAX_SCANS, MAX_SEGMENTS, MIN_SIDE, read_image
from clarity_hf.phantoms import draw_phantom

SHAPE = (24, 20)


def ramp(high=255, dtype=np.uint8):
    """(24, 20) from 0 to `high`, every row another."""
    values = np.linspace(0, high, SHAPE[0] * SHAPE[1]).reshape(SHAPE)
    return values.astype(dtype) if np.dtype(dtype).kind == "f" else values.round().astype(dtype)


def encoded(image, image_format, **options):
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def refusal(source, error=ValueError):
    """The message, after checking that it says what must be, what was got and what to do."""
    with pytest.raises(error) as caught:
        read_image(source)
    message = str(caught.value)
    assert re.fullmatch(r"`.+` must .+, got .+\. [A-Z][^.]+.*\.|No such file: .+", message, re.DOTALL), message
    return message


# PIL modes


def test_grey_8_bit_is_passed_on():
    read = read_image(Image.fromarray(ramp()))
    assert read.dtype == np.uint8
    np.testing.assert_array_equal(read, ramp())


def test_grey_stored_as_colour_is_exact():
    np.testing.assert_array_equal(read_image(Image.fromarray(ramp()).convert("RGB")), ramp())


def test_colour_becomes_luma():
    image = Image.new("RGB", (20, 24), (200, 100, 50))
    image.putpixel((0, 0), (0, 0, 0))
    read = read_image(image)
    assert read[0, 0] == 0
    assert read[5, 5] == 124  # 0.299 · 200 + 0.587 · 100 + 0.114 · 50 = 124.2


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_transparent_pixels_are_black(mode):
    image = Image.fromarray(ramp()).convert(mode)
    alpha = np.full(SHAPE, 255, np.uint8)
    alpha[:, :10] = 0
    image.putalpha(Image.fromarray(alpha))
    expected = ramp()
    expected[:, :10] = 0
    np.testing.assert_array_equal(read_image(image), expected)


def test_an_opaque_image_is_the_image_without_its_transparency():
    colour = np.random.default_rng(0).integers(0, 256, (*SHAPE, 3), np.uint8)
    image = Image.fromarray(colour)
    opaque = image.copy()
    opaque.putalpha(255)
    np.testing.assert_array_equal(read_image(opaque), read_image(image))
    over_black = Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), opaque)
    np.testing.assert_array_equal(read_image(opaque), np.array(over_black.convert("L")))


def test_half_transparent_pixels_are_half_as_bright():
    image = Image.new("LA", (20, 24), (200, 128))
    image.putpixel((0, 0), (0, 255))
    assert read_image(image)[5, 5] == pytest.approx(200 * 128 / 255, abs=1)


def palette():
    """Indices 0, 1, 2 in thirds of 8 rows; colours 30, 250, 90."""
    image = Image.fromarray(np.repeat(np.arange(3, dtype=np.uint8), 8)[:, None].repeat(20, axis=1), mode="P")
    image.putpalette([30, 30, 30, 250, 250, 250, 90, 90, 90])
    return image


def test_palettes_give_their_colours_not_their_indices():
    read = read_image(palette())
    assert [read[row, 0] for row in (0, 8, 16)] == [30, 250, 90]


def test_the_transparent_colour_of_a_palette_is_black():
    read = read_image(encoded(palette(), "PNG", transparency=1))
    assert [read[row, 0] for row in (0, 8, 16)] == [30, 0, 90]


def test_one_bit_is_black_and_white():
    read = read_image(Image.fromarray(ramp() > 127))
    np.testing.assert_array_equal(read, (ramp() > 127) * 255)


@pytest.mark.parametrize("image_format", ["PNG", "TIFF"])
def test_16_bit_files_are_scaled_not_clipped(image_format):
    deep = ramp().astype(np.uint16) * 257
    image = Image.fromarray(deep)
    assert image.mode == "I;16"
    read = read_image(encoded(image, image_format))
    assert read.dtype == np.float32
    np.testing.assert_array_equal(read, ramp())


def test_16_bit_keeps_a_colour_declared_transparent():
    deep = ramp().astype(np.uint16) * 257
    np.testing.assert_array_equal(read_image(encoded(Image.fromarray(deep), "PNG", transparency=0)), ramp())


@pytest.mark.parametrize("bits", [10, 12, 14, 16])
def test_depth_is_the_smallest_that_holds_the_maximum(bits):
    high = 2**bits - 1
    read = read_image(encoded(Image.fromarray(ramp(high, np.uint16)), "PNG"))
    assert read.max() == pytest.approx(255)
    np.testing.assert_allclose(read, ramp(255, np.float64), atol=255 / high)


def test_a_dim_12_bit_image_stays_dim():
    assert read_image(ramp(2047, np.uint16)).max() == pytest.approx(255 * 2047 / 4095)


def test_32_bit_integers_are_scaled():
    np.testing.assert_array_equal(read_image(Image.fromarray(ramp().astype(np.int32) * 257)), ramp())


@pytest.mark.parametrize(("high", "factor"), [(1.0, 255), (255.0, 1)])
def test_float_tiff_spans_one_or_255(high, factor):
    values = ramp(high, np.float32)
    read = read_image(encoded(Image.fromarray(values), "TIFF"))
    np.testing.assert_allclose(read, values * factor, rtol=1e-6)


# Stray pixels: nothing hinges on one of them


def speckled(image, value, pixels=1):
    """The image with the first pixels of its ninth row, `(24, 20)` with 480 in all, set to a value."""
    image = image.copy()
    image[8].flat[:pixels] = value
    return image


def assert_same_but_for_the_ninth_row(read, expected, tolerance=1.0):
    np.testing.assert_allclose(np.delete(read, 8, axis=0), np.delete(expected, 8, axis=0), rtol=0, atol=tolerance)


@pytest.mark.parametrize(
    ("image", "value"),
    [
        (ramp(1.0, np.float32), 1.0001),
        (ramp(1.0, np.float32), 40.0),
        (ramp(1.0, np.float64), -3.0),
        (ramp(1.0, np.float32), 1e30),
        (ramp(255, np.float32), 256.0),
        (ramp(255, np.float32), 65535.0),
        (ramp(255, np.float32), -1000.0),
        (ramp(255, np.uint16), 65535),
        (ramp(1023, np.uint16), 16383),
        (ramp(4095, np.uint16), 65535),
        (ramp(4095, np.uint16), 5000),
        (ramp(4095, np.int16), -32768),
        (ramp(4095, np.int32), 2**31 - 1),
        (ramp(4095, np.uint32), 2**32 - 1),
        (ramp(4095, np.int64), -(2**62)),
        (ramp(65535, np.uint32), 2**31),
        (torch.from_numpy(ramp(1.0, np.float32)).to(torch.bfloat16).float().numpy(), 1.5),
    ],
)
@pytest.mark.parametrize("pixels", [1, 4])
def test_a_few_extreme_pixels_change_no_other(image, value, pixels):
    speckles = speckled(image, value, pixels)
    assert_same_but_for_the_ninth_row(read_image(speckles), ramp())
    assert_same_but_for_the_ninth_row(read_image(torch.from_numpy(speckles)), ramp())


@pytest.mark.parametrize("share", [0.002, 0.009])
def test_a_burned_in_letter_or_line_of_65535_does_not_turn_a_12_bit_image_black(share):
    image = np.linspace(0, 4095, 40_000).reshape(200, 200).round().astype(np.uint16)
    soft = np.linspace(4095, 65535, int(share * image.size)).astype(np.uint16)  # with soft edges, as letters have
    for letter in (65535, soft):
        marked = image.copy()
        marked.flat[: int(share * image.size)] = letter
        read = read_image(encoded(Image.fromarray(marked), "PNG"))
        np.testing.assert_allclose(read.flat[500:], image.flat[500:] * (255 / 4095), atol=0.01)


def test_a_smooth_bright_end_belongs_to_the_range():
    image = np.linspace(0, 1, 40_000).reshape(200, 200) ** 8 * 4095  # 1.7 % of it are above 3584
    image = image.round().astype(np.uint16)
    np.testing.assert_allclose(read_image(image), image * (255 / 4095), atol=0.01)


def test_what_overshoots_in_a_cubic_resize_is_clipped():
    edge = Image.fromarray(np.kron(ramp(1.0, np.float32) > 0.5, np.ones((4, 4))).astype(np.float32))
    resized = np.asarray(edge.resize((40, 48), Image.Resampling.BICUBIC))
    assert resized.max() > 1
    assert resized.min() < 0
    np.testing.assert_allclose(read_image(resized), resized.clip(0, 1) * 255, atol=1e-4)


@pytest.mark.parametrize("source", ["unit", "declared"])
def test_a_black_image_is_refused_and_not_stretched(source):
    pytest.importorskip("imagecodecs")
    dark = ramp(17, np.uint16)  # of 4095
    message = refusal(dark / np.float32(4095) if source == "unit" else tiff_of(dark, bitspersample=12))
    assert "must show something" in message
    assert "Check its window" in message


# 16 bits that Pillow does not keep


def png_16(channels, more=b""):
    """A PNG of 16 bits `(H, W, C)`, its colours by their number: 2 grey and opacity, 3 RGB, 4 RGB and opacity."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    height, width, count = channels.shape
    header = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[count], 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in channels)
    pixels = zlib.compress(rows)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + more + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


@pytest.mark.parametrize("high", [255, 4095, 65535])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_16_bit_pngs_of_any_colour_keep_their_low_byte(channels, high):
    image = ramp(high, np.uint16)
    stack = np.stack([image] * channels, axis=-1)
    if channels in (2, 4):
        stack[..., -1] = 65535
    expected = ramp(255, np.float64)
    np.testing.assert_allclose(read_image(png_16(stack)), expected, atol=0.6 if high == 255 else 255 / high)


def test_16_bit_colour_becomes_luma_and_transparent_pixels_black(tmp_path):
    image = np.stack([ramp(65535, np.uint16), ramp(30_000, np.uint16), ramp(9_000, np.uint16)], axis=-1)
    luma = image @ [0.299, 0.587, 0.114] * 255 / 65535
    np.testing.assert_allclose(read_image(png_16(image)), luma, atol=0.01)
    opacity = np.full((*SHAPE, 1), 65535, np.uint16)
    opacity[:, :10] = 0
    (tmp_path / "image.png").write_bytes(png_16(np.concatenate([image, opacity], axis=-1)))
    read = read_image(tmp_path / "image.png")
    assert not read[:, :10].any()
    np.testing.assert_allclose(read[:, 10:], luma[:, 10:], atol=0.01)


def test_16_bit_colour_that_pillow_holds_is_refused(tmp_path):
    content = png_16(np.stack([ramp(65535, np.uint16)] * 3, axis=-1))
    assert "keeps only 8" in refusal(Image.open(io.BytesIO(content)))
    colour = tiff_of(np.stack([ramp(65535, np.uint16)] * 3, axis=-1), photometric="rgb")
    assert "keeps only 8" in refusal(Image.open(io.BytesIO(colour)))
    assert "complete image" in refusal(content[:200])


@pytest.mark.parametrize("change", ["checksum", "filter", "short", "long", "adam7", "deflate"])
def test_a_broken_16_bit_png_is_refused_before_its_decoder_sees_it(change, monkeypatch):
    """That decoder ends the process on some of them."""
    monkeypatch.setattr("torchvision.io.decode_png", lambda *words: pytest.fail("decoded"))
    image = np.stack([ramp(65535, np.uint16)] * 3, axis=-1)
    content = bytearray(png_16(image))
    start = content.index(b"IDAT") + 4
    body = zlib.decompress(bytes(content[start:-16]))
    body = {"filter": b"\5" + body[1:], "short": body[:-1], "long": body + b"\0"}.get(change, body)
    packed = zlib.compress(body)
    packed = packed[:-6] + bytes(6) if change == "deflate" else packed
    tail = struct.pack(">I", zlib.crc32(b"IDAT" + packed)) + bytes(content[-12:])
    content[start - 8 :] = struct.pack(">I", len(packed)) + b"IDAT" + packed + tail
    if change == "adam7":
        content[28] = 1
        content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    if change == "checksum":
        content[-13] ^= 1
    assert "complete image" in refusal(bytes(content))


def test_16_bit_colour_is_turned_by_its_exif():
    image = np.stack([ramp(65535, np.uint16)] * 3, axis=-1)
    exif = Image.Exif()
    for orientation in range(1, 9):
        exif[274] = orientation
        body = exif.tobytes()[6:]
        chunk = struct.pack(">I", len(body)) + b"eXIf" + body + struct.pack(">I", zlib.crc32(b"eXIf" + body))
        by_pillow = read_image(encoded(Image.fromarray(ramp()), "PNG", exif=exif))
        np.testing.assert_allclose(read_image(png_16(image, more=chunk)), by_pillow, atol=0.6)
        deep = tiff_of(image, photometric="rgb", extratags=[(274, "H", 1, orientation, True)])
        np.testing.assert_allclose(read_image(deep), by_pillow, atol=0.6)


# TIFF


def tiff_of(pixels, **options):
    tifffile = pytest.importorskip("tifffile")
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, pixels, metadata=None, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("white", [False, True])
@pytest.mark.parametrize("shape", [{}, {"tile": (16, 16)}, {"rowsperstrip": 5}])
@pytest.mark.parametrize("compression", [None, "lzw", "zlib", "packbits"])
@pytest.mark.parametrize("bits", [8, 12, 16, 32])
def test_a_tiff_is_read_by_its_depth_order_polarity_and_layout(order, white, shape, compression, bits):
    if compression or bits == 12:
        pytest.importorskip("imagecodecs")
    high = {8: 255, 12: 4095, 16: 65535, 32: 65535}[bits]
    image = ramp(high, {8: np.uint8, 12: np.uint16, 16: np.uint16, 32: np.uint32}[bits])
    stored = high - image if white else image
    packed = {"bitspersample": 12} if bits == 12 and not compression and "tile" not in shape else {}
    if packed and order == ">":
        stored = stored.byteswap()  # tifffile packs the swapped bytes as if they were not
    photometric = "miniswhite" if white else "minisblack"
    content = tiff_of(stored, byteorder=order, photometric=photometric, compression=compression, **shape, **packed)
    np.testing.assert_allclose(read_image(content), ramp(255, np.float64), atol=0.6 if bits == 8 else 255 / high)


def test_a_tiff_of_signed_bytes_is_as_its_array():
    """Pillow takes −1 as 255."""
    np.testing.assert_array_equal(read_image(tiff_of(ramp(127, np.int8))), ramp(127, np.uint8))
    signed = (ramp().astype(int) - 128).astype(np.int8)
    for source in (signed, tiff_of(signed)):
        with pytest.raises(ValueError, match=r"must be in \[0, 65535\], got \[-128, 127\]. Apply the rescale slope"):
            read_image(source)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("compression", [None, "lzw"])
@pytest.mark.parametrize("high", [4095, 65535])
def test_16_bit_colour_tiffs_keep_their_low_byte(order, planar, compression, high):
    image = np.stack([ramp(high, np.uint16)] * 3, axis=0 if planar == "separate" else -1)
    content = tiff_of(image, photometric="rgb", planarconfig=planar, byteorder=order, compression=compression)
    np.testing.assert_allclose(read_image(content), ramp(255, np.float64), atol=255 / high)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("white", [False, True])
def test_float_tiffs_of_any_width_are_read(dtype, order, white):
    image = ramp(1.0, np.float64)
    stored = (1 - image if white else image).astype(dtype)
    content = tiff_of(stored, byteorder=order, photometric="miniswhite" if white else "minisblack")
    np.testing.assert_allclose(read_image(content), 255 * image, atol=0.2)


def test_a_depth_that_a_tiff_declares_is_not_guessed():
    pytest.importorskip("imagecodecs")
    dim = ramp(900, np.uint16)
    for order, white in (("<", False), (">", False), ("<", True)):
        stored = 4095 - dim if white else dim
        kind = "miniswhite" if white else "minisblack"
        stored = stored.byteswap() if order == ">" else stored  # tifffile packs the swapped bytes as if they were not
        content = tiff_of(stored, bitspersample=12, byteorder=order, photometric=kind)
        np.testing.assert_allclose(read_image(content), dim * (255 / 4095), atol=0.01)


def test_opacity_of_a_deep_tiff_is_over_black():
    image = np.stack([ramp(65535, np.uint16)] * 4, axis=-1)
    image[..., 3] = 65535
    image[:, :10, 3] = 0
    read = read_image(tiff_of(image, photometric="rgb", extrasamples=["unassalpha"]))
    assert not read[:, :10].any()
    np.testing.assert_allclose(read[:, 10:], ramp(255, np.float64)[:, 10:], atol=0.6)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"photometric": "rgb", "compression": "jpegxl"}, "LZW, deflate or PackBits"),
        ({"photometric": "cielab"}, "grey or RGB"),
    ],
)
def test_rare_tiffs_beyond_what_is_read_are_refused_by_what_they_are(options, reason):
    pytest.importorskip("imagecodecs")
    assert reason in refusal(tiff_of(np.stack([ramp(65535, np.uint16)] * 3, axis=-1), **options))


def test_rare_tiffs_of_several_pages_cut_short_or_too_large_are_refused():
    image = np.stack([ramp(65535, np.uint16)] * 3, axis=-1)
    content = tiff_of(image, photometric="rgb")
    assert "several frames" in refusal(tiff_of(np.stack([image, image]), photometric="rgb"))
    assert "complete image" in refusal(content[:-200])
    large = bytearray(tiff_of(ramp(4095, np.uint16), bitspersample=12, photometric="miniswhite"))  # not for Pillow
    for tag in (256, 257):  # width and height
        place = large.index(struct.pack("<H", tag))
        large[place + 2 : place + 12] = struct.pack("<HII", 4, 1, 60_000)
    assert f"1 to {MAX_PIXELS} pixels" in refusal(bytes(large))


def test_a_tiff_that_unpacks_to_much_is_cut_or_refused():
    pytest.importorskip("imagecodecs")
    body = zlib.compress(bytes(200_000_000), 9)
    image = np.stack([ramp(65535, np.uint16)] * 3, axis=-1)
    content = bytearray(tiff_of(image, photometric="rgb", compression="zlib"))
    for tag, value in ((273, len(content)), (279, len(body))):  # StripOffsets, StripByteCounts
        place = content.index(struct.pack("<HH", tag, 4))
        content[place + 8 : place + 12] = struct.pack("<I", value)
    tracemalloc.start()
    try:
        refusal(bytes(content) + body)
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()


def test_a_missing_decoder_of_tiffs_is_named(monkeypatch):
    content = tiff_of(np.stack([ramp(65535, np.uint16)] * 3, axis=-1), photometric="rgb", compression="zlib")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "pip install 'clarity_hf[tiff]'" in refusal(content, ImportError)


# Stacks


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("axis", [0, -1])
@pytest.mark.parametrize("as_type", [np.asarray, torch.from_numpy])
def test_a_stack_of_images_is_not_one_colour_image(channels, axis, as_type):
    images = [draw_phantom(seed, size=64).image for seed in range(channels)]
    message = refusal(as_type(np.stack(images, axis=axis)))
    assert "Pass several images as a list, such as list(stack)" in message
    assert len([read_image(image) for image in list(np.stack(images))]) == channels


def test_a_tinted_image_is_one_image():
    image = draw_phantom(0, size=64).image / 255
    sepia = np.stack([255 * image**0.7, 230 * image, 200 * image**1.4], axis=-1).round().astype(np.uint8)
    by_pillow = read_image(encoded(Image.fromarray(sepia), "PNG")).astype(int)
    assert np.abs(read_image(sepia).astype(int) - by_pillow).max() <= 1
    assert np.abs(read_image(np.moveaxis(sepia, -1, 0)).astype(int) - by_pillow).max() <= 1


def test_opacity_of_an_array_is_that_of_an_image():
    image = np.stack([ramp()] * 4, axis=-1)
    image[..., 3] = 255
    image[:, :10, 3] = 0
    np.testing.assert_array_equal(read_image(image), read_image(Image.fromarray(image)))
    np.testing.assert_allclose(read_image(image.astype(np.float32) / 255), read_image(image), atol=1e-4)
    np.testing.assert_allclose(read_image(image.astype(np.uint16) * 257), read_image(image), atol=1e-4)


def test_cmyk_jpeg_is_read():
    image = Image.fromarray(ramp()).convert("CMYK")
    read = read_image(encoded(image, "JPEG", quality=100))
    np.testing.assert_allclose(read.astype(int), ramp().astype(int), atol=6)


@pytest.mark.parametrize(
    ("orientation", "upright"),
    [
        (1, lambda image: image),
        (3, lambda image: image[::-1, ::-1]),
        (6, lambda image: np.rot90(image, -1)),
        (8, lambda image: np.rot90(image, 1)),
    ],
)
def test_exif_rotation_is_applied(orientation, upright):
    exif = Image.Exif()
    exif[274] = orientation
    read = read_image(encoded(Image.fromarray(ramp()), "PNG", exif=exif))
    np.testing.assert_array_equal(read, upright(ramp()))


def test_a_mode_without_grey_is_refused():
    assert "LAB" in refusal(Image.new("LAB", (20, 24)))


# Arrays and tensors


def test_boolean_arrays_are_black_and_white():
    np.testing.assert_array_equal(read_image(ramp() > 127), (ramp() > 127) * 255)


def test_full_range_uint16_equals_its_uint8():
    np.testing.assert_array_equal(read_image(ramp().astype(np.uint16) * 257), read_image(ramp()))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int64, ">u2"])
def test_8_bit_values_stay_whatever_integer_holds_them(dtype):
    read = read_image(ramp().astype(dtype))
    assert read.dtype == np.uint8
    np.testing.assert_array_equal(read, ramp())


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_unit_floats_are_scaled_to_255(dtype):
    read = read_image(ramp(1.0, dtype))
    assert read.dtype == np.float32
    np.testing.assert_allclose(read, ramp(255, np.float64), atol=0.1)


def test_floats_to_255_are_passed_on():
    np.testing.assert_array_equal(read_image(ramp(255, np.float32)), ramp(255, np.float32))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.float32, torch.float64])
def test_tensors_equal_arrays(dtype):
    np.testing.assert_array_equal(read_image(torch.from_numpy(ramp()).to(dtype)), ramp())


def test_bfloat16_tensors_are_read():
    tensor = torch.from_numpy(ramp(1.0, np.float32)).to(torch.bfloat16)
    np.testing.assert_allclose(read_image(tensor), ramp(255, np.float64), atol=255 / 256)


def test_tensors_with_a_gradient_are_read():
    tensor = torch.from_numpy(ramp(1.0, np.float32)).requires_grad_()
    assert read_image(tensor).shape == SHAPE


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_channels_may_be_first_or_last(channels):
    stack = np.repeat(ramp()[None], channels, axis=0)
    np.testing.assert_array_equal(read_image(stack), ramp())
    np.testing.assert_array_equal(read_image(np.moveaxis(stack, 0, -1)), ramp())


def test_coloured_arrays_and_images_agree():
    colour = (ramp()[..., None] * np.array([1, 0.8, 0.5])).astype(np.uint8)
    difference = read_image(colour).astype(int) - read_image(Image.fromarray(colour)).astype(int)
    assert np.abs(difference).max() <= 1


def test_coloured_16_bit_arrays_are_scaled():
    colour = np.stack([ramp(65535, np.uint16), np.zeros(SHAPE, np.uint16), np.zeros(SHAPE, np.uint16)])
    assert read_image(colour).max() == pytest.approx(0.299 * 255, abs=0.01)


def test_the_source_is_not_changed():
    source = ramp(1.0, np.float32)
    read_image(source)[:] = 7
    np.testing.assert_array_equal(source, ramp(1.0, np.float32))


@pytest.mark.parametrize("high", [255, 4095, 65535])
def test_reading_what_was_read_changes_nothing(high):
    once = read_image(ramp(high, np.uint16))
    np.testing.assert_array_equal(read_image(once), once)


# Files


@pytest.mark.parametrize("image_format", ["PNG", "TIFF", "BMP"])
def test_bytes_and_paths_give_the_same_image(tmp_path, image_format):
    content = encoded(Image.fromarray(ramp()), image_format)
    path = tmp_path / "image.any"  # the format is recognised by content
    path.write_bytes(content)
    for source in (content, path, str(path)):
        np.testing.assert_array_equal(read_image(source), ramp())


def test_a_real_image_is_read(nih_folder):
    path = next(iter(sorted((nih_folder / "images").rglob("*.png"))))
    read = read_image(path)
    assert read.dtype == np.uint8
    assert read.shape == Image.open(path).size[::-1]


# Refusals


@pytest.mark.parametrize("url", ["http://a.org/image.png", "https://a.org/image.png", "data:image/png;base64,AAAA"])
def test_urls_are_never_fetched(url):
    assert "got a URL" in refusal(url)


def test_a_missing_file_is_named(tmp_path):
    assert "none.png" in refusal(tmp_path / "none.png", FileNotFoundError)


def test_a_folder_is_not_an_image(tmp_path):
    assert "folder" in refusal(tmp_path)


def test_a_pipe_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert "regular file" in refusal(tmp_path / "pipe")


@pytest.mark.parametrize("device", ["/dev/zero", "/dev/null"])
def test_a_device_is_not_read(device):
    assert "regular file" in refusal(device)


def test_a_socket_is_not_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the path of a socket must be short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("image.png")
        assert "regular file" in refusal(tmp_path / "image.png")


def test_an_impossible_path_is_a_missing_file():
    for path in ("a\0b.png", "a" * 5000, "a\udcff.png"):
        assert "No such file" in refusal(path, FileNotFoundError)


def test_a_link_is_followed_to_an_image_and_no_further(tmp_path):
    (tmp_path / "image.png").write_bytes(encoded(Image.fromarray(ramp()), "PNG"))
    (tmp_path / "link.png").symlink_to(tmp_path / "image.png")
    np.testing.assert_array_equal(read_image(tmp_path / "link.png"), ramp())
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    assert "regular file" in refusal(tmp_path / "zero.png")
    (tmp_path / "broken.png").symlink_to(tmp_path / "absent.png")
    refusal(tmp_path / "broken.png", FileNotFoundError)
    (tmp_path / "circle.png").symlink_to(tmp_path / "circle.png")
    refusal(tmp_path / "circle.png", FileNotFoundError)


@pytest.mark.parametrize("content", [b"", b"no image", b"%PDF-1.7 and so on"], ids=["empty", "text", "pdf"])
def test_anything_but_an_image_is_refused(tmp_path, content):
    assert "got something else" in refusal(content)
    path = tmp_path / "image.png"
    path.write_bytes(content)
    assert "image.png" in refusal(path)


def test_dicom_is_recognised():
    assert "got DICOM" in refusal(bytes(128) + b"DICM" + bytes(50))


def test_dicom_is_read_from_a_path_bytes_and_a_dataset(tmp_path):
    pydicom = pytest.importorskip("pydicom", minversion="3.0")
    dataset = pydicom.Dataset()
    dataset.Modality, dataset.Rows, dataset.Columns, dataset.SamplesPerPixel = "CR", *SHAPE, 1
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit, dataset.PixelRepresentation, dataset.PhotometricInterpretation = 7, 0, "MONOCHROME1"
    dataset.add_new("PixelData", "OB", (255 - ramp()).tobytes())
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    dataset.preamble = bytes(128)
    path = tmp_path / "image.dcm"
    pydicom.dcmwrite(path, dataset)
    for source in (dataset, path, str(path), path.read_bytes()):
        read = read_image(source)
        assert read.dtype == np.uint8
        np.testing.assert_array_equal(read, ramp())


@pytest.mark.parametrize("side", [MIN_SIDE - 1, 24])
def test_dicom_must_show_something_and_be_large_enough(side):
    pydicom = pytest.importorskip("pydicom", minversion="3.0")
    dataset = pydicom.Dataset()
    dataset.Rows = dataset.Columns = side
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.PixelRepresentation, dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 0, 1, "MONOCHROME2"
    dataset.add_new("PixelData", "OB", bytes(side * side))
    assert "every pixel" in refusal(dataset) if side == 24 else f"at least {MIN_SIDE}" in refusal(dataset)


@pytest.mark.parametrize("image_format", ["PNG", "JPEG", "TIFF", "BMP"])
def test_a_truncated_file_is_refused(tmp_path, image_format):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64)).astype(np.uint8)
    content = encoded(Image.fromarray(noise), image_format)
    path = tmp_path / "half"
    path.write_bytes(content[: len(content) // 2])
    message = refusal(path)
    assert str(path) in message
    assert "complete" in message


def test_a_truncated_image_that_was_opened_elsewhere_is_refused():
    noise = np.random.default_rng(0).integers(0, 256, (64, 64)).astype(np.uint8)
    content = encoded(Image.fromarray(noise), "PNG")
    assert "cannot be decoded" in refusal(Image.open(io.BytesIO(content[:2000])))


@pytest.mark.filterwarnings("ignore")  # Pillow's own, about the damage
@pytest.mark.parametrize("image_format", ["PNG", "JPEG", "TIFF", "BMP"])
def test_damaged_files_are_read_or_refused_but_never_crash(image_format):
    generator = np.random.default_rng(0)
    whole = encoded(Image.fromarray(ramp()), image_format)
    refusals = []
    for _ in range(150):
        damaged = bytearray(whole)
        for place in generator.integers(0, min(len(whole), 200), 3):
            damaged[place] = generator.integers(0, 256)
        try:
            read_image(bytes(damaged))
        except ValueError as error:
            refusals.append(str(error))
    assert len(refusals) > 10
    assert [message for message in refusals if not message.startswith("`image` must ")] == []


def test_animations_are_refused():
    frames = [Image.fromarray(ramp()), Image.fromarray(255 - ramp())]
    gif = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert "got something else" in refusal(gif)


@pytest.mark.parametrize("image_format", ["TIFF", "PNG"])
def test_several_frames_are_refused(image_format):
    frames = [Image.fromarray(ramp()), Image.fromarray(255 - ramp())]
    assert "several frames" in refusal(encoded(frames[0], image_format, save_all=True, append_images=frames[1:]))


def png_header(width, height):
    """A grey PNG that claims a size and holds a few bytes of pixels."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    pixels = zlib.compress(bytes(100))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("side", [60_000, 10_000, 8_001])  # Pillow's error, Pillow's warning, our own limit
def test_a_claimed_size_is_refused_before_decoding(side):
    message = refusal(png_header(side, side))  # decoding it would say "truncated"
    assert f"at most {MAX_PIXELS} pixels" in message


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_tiff_that_claims_60000_squared_is_refused_before_decoding():
    content = tiff((256, 4, 60_000), (257, 4, 60_000), (258, 3, 8), (259, 3, 1), (262, 3, 1), (273, 4, 8), (279, 4, 8))
    assert f"at most {MAX_PIXELS} pixels" in refusal(content)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_bmp_that_claims_60000_squared_is_refused_before_decoding():
    content = bytearray(encoded(Image.fromarray(ramp()), "BMP"))
    content[18:26] = struct.pack("<ii", 60_000, 60_000)
    assert f"at most {MAX_PIXELS} pixels" in refusal(bytes(content))


def tiff(*tags, more=b""):
    """A little-endian TIFF of one directory of `(tag, type, value)`, and what follows it."""
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + more


def test_a_tile_beyond_any_image_is_not_decoded():
    image = [(256, 4, 32), (257, 4, 40), (258, 3, 8), (259, 3, 5), (262, 3, 1), (277, 3, 1)]
    content = tiff(*image, (322, 4, 40_000), (323, 4, 40_000), (324, 4, 8), (325, 4, 100), more=bytes(99))
    assert "tiles of at most 64000000 pixels, got 1600000000" in refusal(content)


def test_a_chain_of_directories_takes_no_time():
    content = bytearray(encoded(Image.fromarray(ramp()), "TIFF"))
    (start,) = struct.unpack("<I", content[4:8])
    (tags,) = struct.unpack("<H", content[start : start + 2])
    first, after = content[start : start + 2 + 12 * tags], start + 2 + 12 * tags
    for _ in range(30_000):  # each of them to be looked up among all before it: minutes
        content[after : after + 4] = struct.pack("<I", len(content))
        after = len(content) + len(first)
        content += first + bytes(4)
    begun = time.perf_counter()
    assert "several frames" in refusal(bytes(content))
    assert time.perf_counter() - begun < 2


def test_a_jpeg_of_many_scans_is_not_decoded():
    content = encoded(Image.fromarray(ramp()), "JPEG", progressive=True)
    assert read_image(content).shape == SHAPE
    last = content[content.rindex(b"\xff\xda") : -2]
    assert f"at most {MAX_SCANS} scans" in refusal(content[:-2] + MAX_SCANS * last + content[-2:])


def test_scans_behind_other_segments_of_a_jpeg_are_counted():
    content = encoded(Image.fromarray(ramp()), "JPEG", progressive=True)
    last = content[content.rindex(b"\xff\xda") : -2]
    hidden = b"\xff\xfe\0\x04\xff\xd9" + b"\xff\xff\xff\xe0\0\x02" + b"\xff\x01\xff\xd0" + last
    assert f"at most {MAX_SCANS} scans" in refusal(content[:-2] + MAX_SCANS * hidden + content[-2:])


def test_what_a_jpeg_holds_in_its_segments_counts_no_scans():
    content = encoded(Image.fromarray(ramp()), "JPEG")
    inside = b"\xff\xd8" + 30_000 * b"\xff\xda"  # such as a small picture of the image
    segment = b"\xff\xe5" + struct.pack(">H", len(inside) + 2) + inside
    np.testing.assert_array_equal(read_image(content[:2] + segment + content[2:]), read_image(content))


def test_what_follows_the_end_of_a_jpeg_counts_no_scans(tmp_path):
    content = encoded(Image.fromarray(ramp()), "JPEG", progressive=True)
    video = np.random.default_rng(0).bytes(10_000_000)  # as phones append one
    assert video.count(b"\xff\xda") > MAX_SCANS
    (tmp_path / "phone.jpg").write_bytes(content + video)
    np.testing.assert_array_equal(read_image(tmp_path / "phone.jpg"), read_image(content))
    scans = 10_000 * content[content.rindex(b"\xff\xda") : -2]
    np.testing.assert_array_equal(read_image(content + scans), read_image(content))


def test_restart_markers_of_a_jpeg_are_not_segments():
    large = Image.fromarray(np.random.default_rng(0).integers(0, 256, (400, 400), dtype=np.uint8))
    content = encoded(large, "JPEG", restart_marker_blocks=1, quality=95)
    assert content.count(b"\xff\xd0") > 100
    assert read_image(content).shape == (400, 400)


@pytest.mark.parametrize("filling", [b"\xff\0", b"\xff", b"\xff\xd0", b"\xff\xda\0\x02", b"\xff\xe0\0\x02", b"\xff\2"])
def test_a_jpeg_is_walked_in_time_linear_in_its_size(filling):
    head = encoded(Image.fromarray(ramp()), "JPEG")[:-2]
    for start in (head[: head.index(b"\xff\xda")], head):
        begun = time.perf_counter()
        with contextlib.suppress(ValueError):  # what follows a whole scan may be passed over
            read_image(start + filling * (5_000_000 // len(filling)))
        assert time.perf_counter() - begun < 5


def test_padding_between_the_segments_of_a_jpeg_is_skipped_up_to_a_limit():
    content = encoded(Image.fromarray(ramp()), "JPEG")
    padded = content[:2] + MAX_PADDING * b"\xff" + content[2:]
    np.testing.assert_array_equal(read_image(padded), read_image(content))
    assert f"at most {MAX_PADDING} bytes of padding" in refusal(content[:2] + b"\xff" + padded[2:])


def test_a_jpeg_of_many_segments_is_refused():
    content = encoded(Image.fromarray(ramp()), "JPEG")
    empty = b"\xff\xe5\0\x02"
    assert read_image(content[:2] + 1000 * empty + content[2:]).shape == SHAPE
    message = refusal(content[:2] + (MAX_SEGMENTS + 1) * empty + content[2:])
    assert f"at most {MAX_SEGMENTS} segments" in message


def test_a_jpeg_of_two_pictures_is_refused():
    grey = Image.fromarray(ramp())
    assert "several frames" in refusal(encoded(grey, "MPO", save_all=True, append_images=[grey.rotate(180)]))


def test_too_little_memory_is_not_blamed_on_the_image(monkeypatch):
    def fail(*words, **options):
        raise MemoryError

    content = encoded(Image.fromarray(ramp()), "PNG")
    monkeypatch.setattr(ImageFile.ImageFile, "load", fail)
    with pytest.raises(MemoryError):
        read_image(content)
    monkeypatch.setattr(Image, "open", fail)
    with pytest.raises(MemoryError):
        read_image(content)


@pytest.mark.parametrize("kind", [b"zTXt", b"iTXt", b"iCCP"])
def test_text_that_unpacks_to_much_is_refused(kind):
    head = {b"zTXt": b"a\0\0", b"iTXt": b"a\0\1\0\0\0", b"iCCP": b"a\0\0"}[kind]
    body = head + zlib.compress(bytes(50_000_000))
    chunk = struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    content = encoded(Image.fromarray(ramp()), "PNG")
    assert "Decompressed data too large" in refusal(content[:33] + chunk + content[33:])


def test_pixels_beyond_the_claimed_size_are_not_unpacked():
    content = png_header(20, 24)
    body = zlib.compress(np.random.default_rng(0).integers(0, 1, 50_000_000, dtype=np.uint8).tobytes())
    chunk = struct.pack(">I", len(body)) + b"IDAT" + body + struct.pack(">I", zlib.crc32(b"IDAT" + body))
    begun = time.perf_counter()
    assert "every pixel" in refusal(content[:33] + chunk + content[-12:])
    assert time.perf_counter() - begun < 1


def test_a_file_beyond_any_image_is_not_read(tmp_path):
    with open(tmp_path / "huge.png", "wb") as file:
        file.write(encoded(Image.fromarray(ramp()), "PNG"))
        file.truncate(10**12)  # a hole: nothing is written
    assert f"at most {MAX_BYTES} bytes" in refusal(tmp_path / "huge.png")


@pytest.mark.filterwarnings("ignore")  # Pillow's own, about the damage
@pytest.mark.parametrize("exif", [b"II*\0\x08\0\0\0\x01", b"MM", b"Exif\0\0" + bytes(40), b"II*\0\xff\xff\xff\xff"])
def test_broken_exif_is_ignored_or_refused(exif):
    content = encoded(Image.fromarray(ramp()), "PNG", exif=exif)
    try:
        read = read_image(content)
    except ValueError:
        assert "must be a complete image" in refusal(content)
    else:
        np.testing.assert_array_equal(read, ramp())


def test_an_inverted_image_is_read_as_it_is():
    np.testing.assert_array_equal(read_image(encoded(Image.fromarray(255 - ramp()), "PNG")), 255 - ramp())


@pytest.mark.parametrize("shape", [(MIN_SIDE - 1, 200), (200, MIN_SIDE - 1), (0, 20)])
def test_too_small_is_refused(shape):
    assert f"at least {MIN_SIDE} pixels" in refusal(np.arange(np.prod(shape), dtype=np.uint8).reshape(shape))


@pytest.mark.parametrize("value", [0, 128, 255])
def test_a_constant_image_is_refused(value):
    assert f"got {value} in every pixel" in refusal(np.full(SHAPE, value, np.uint8))
    refusal(encoded(Image.new("L", (20, 24), value), "PNG"))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("channels", [(), (3,)])
def test_values_that_are_not_finite_are_refused(value, channels):
    image = ramp(1.0, np.float32)
    image = np.stack([image] * 3, axis=-1) if channels else image
    image[3, 3] = value
    assert "finite" in refusal(image)


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (ramp(1.0, np.float32) - 0.5, "Undo the normalisation"),
        (ramp(4095, np.float32), "Undo the normalisation"),
        (ramp(255, np.int32) - 5, "Apply the rescale slope"),
        (ramp(70000, np.int32), "Apply the rescale slope"),
    ],
    ids=["negative float", "deep float", "negative integer", "over 16 bits"],
)
def test_values_out_of_range_are_refused(image, reason):
    assert reason in refusal(image)


@pytest.mark.parametrize("shape", [(480,), (2, 24, 20), (24, 20, 2), (5, 24, 20), (24, 20, 5), (1, 3, 24, 20)])
def test_shapes_that_are_not_an_image_are_refused(shape):
    assert "1, 3 or 4 channels" in refusal(np.zeros(shape, np.uint8))


@pytest.mark.parametrize("dtype", [np.complex64, object, "U1", "datetime64[s]"])
def test_what_holds_no_numbers_is_refused(dtype):
    assert "must contain numbers" in refusal(np.zeros(SHAPE, int).astype(dtype))


def test_pixels_out_of_range_do_not_leave_the_reader(monkeypatch):
    monkeypatch.setattr("clarity_hf.image_reading._to_255", lambda array, name: array)
    for wrong in (ramp(300, np.float32), ramp(255, np.float32) - 1, np.where(ramp() > 9, np.nan, ramp())):
        assert "must come out in [0, 255]" in refusal(wrong)


@pytest.mark.parametrize("source", [None, 5, [[1, 2], [3, 4]], {"path": "image.png"}])
def test_other_kinds_are_refused(source):
    assert f"got {type(source).__name__}" in refusal(source, TypeError)


def test_the_caller_names_the_source():
    with pytest.raises(ValueError, match=r"^`mask` must"):
        read_image(np.zeros(SHAPE, np.uint8), name="mask")


def test_reading_needs_no_torch():
    folder = os.path.dirname(read_image.__code__.co_filename)
    code = (  # the files alone, without the package's own __init__; DICOM's library is imported with the first DICOM
        "import sys, types; sys.modules['torch'] = sys.modules['pydicom'] = None;"
        f"p = types.ModuleType('p'); p.__path__ = [{folder!r}]; sys.modules['p'] = p; import p.image_reading"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    "wrapped",
    [
        io.BytesIO,
        bytearray,
        memoryview,
        lambda content: {"bytes": content, "path": None},
        lambda content: {"bytes": content},
    ],
    ids=["open file", "bytearray", "memoryview", "row", "row of bytes alone"],
)
def test_buffers_open_files_and_rows_hold_an_image(image, wrapped):
    content = io.BytesIO()
    Image.fromarray(image).save(content, "PNG")
    source = wrapped(content.getvalue())
    for _ in range(2):  # an open file is read from its start, wherever it is
        np.testing.assert_array_equal(read_image(source), image)


def test_a_row_with_a_path_and_a_stream_that_cannot_seek_hold_an_image(image, tmp_path):
    Image.fromarray(image).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image({"path": str(tmp_path / "a.png"), "bytes": None}), image)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(tmp_path / "a.png", "a.png")
    with zipfile.ZipFile(tmp_path / "a.zip") as archive, archive.open("a.png") as file:
        np.testing.assert_array_equal(read_image(file), image)


def test_a_file_opened_for_text_is_refused_with_the_way_out(image, tmp_path):
    (tmp_path / "a.txt").write_text("lines\nof text\n")
    with (tmp_path / "a.txt").open() as file, pytest.raises(TypeError, match=r"opened for text\. Open it with 'rb'"):
        read_image(file)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_an_image_of_0_and_1_alone_is_refused_in_whole_numbers_as_in_floats(tmp_path, kind):
    """A mask that was saved as an image."""
    pixels = np.zeros((64, 64), dtype=kind)
    pixels[16:48, 16:48] = 1
    Image.fromarray(pixels).save(tmp_path / "mask.png")
    with pytest.raises(ValueError, match=r"`.*mask\.png` must show something, got black in all but 1%"):
        read_image(tmp_path / "mask.png")
    assert read_image(pixels.astype(np.float32)).max() == 255  # an array of floats in [0, 1]
