# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Read one grey image from a file, bytes, a PIL image, a pydicom dataset or an array.

Transformers' loaders clip 16-bit images to white and treat a stack as colour. Here every source becomes `(H, W)` with
scaled intensities, anything that is not an image is refused with the reason, and nothing is fetched over a network.

The range is given by the declared bit depth or, if there is none, by the smallest usual depth that holds all pixels
but outliers, which are clipped (`docs/input.md` has the table). Pillow drops the low byte of 16-bit colour and does
not support 16-bit TIFF with white at zero: torchvision reads such PNGs, tifffile such TIFFs.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import logging
import math
import operator
import os
import re
import struct
import threading
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from .dicom_header import MAX_PIXELS, is_dicom_dataset
from .dicom_reading import MAX_BYTES, local_file, looks_like_dicom, read_dicom
from .grey_levels import STRAY_SHARE, held_range

FORMATS = ("PNG", "JPEG", "TIFF", "BMP")
"""File formats read by Pillow, recognised by content; DICOM has its own reader."""

MIN_SIDE = 16
"""Images with a shorter side are refused, in pixels."""

BIT_DEPTHS = (8, 10, 12, 14, 16)
"""Usual bit depths. An integer image of more than 8 bits is scaled by the smallest depth that holds its brightest
pixels without outliers ([`held_range`]), because 12-bit images are often stored in 16-bit files."""

FLOAT_OVERSHOOT = 0.1
"""How far floats may exceed [0, 1] or [0, 255], as a share of the range, before they count as outliers; resizing with
a cubic filter overshoots by less."""

TINT_CORRELATION = 0.95
"""Smallest rank correlation between the channels of a colour array. Tinted images have 0.98 and more; none of 1,500
pairs of NIH images of different patients has more than 0.90."""

MAX_SCANS = 100
"""JPEGs with more scans are refused, because each covers the complete image and an empty one takes 14 bytes. libtiff
has the same limit; encoders write about 10."""

MAX_SEGMENTS = 10_000
"""JPEGs with more segments are refused, because Pillow parses each and the smallest takes 4 bytes. Profiles and
metadata take one per 64 kB."""

MAX_PADDING = 1_000_000
"""JPEGs with more bytes between the segments before the first scan are refused, because Pillow examines each."""

ImageSource = str | os.PathLike | bytes | Image.Image | np.ndarray | Any
"""Path, encoded bytes, PIL image, pydicom dataset, numpy array or torch tensor."""

_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # the latter two are BigTIFF
_TIFF_COMPRESSIONS = (1, 5, 8, 32773, 32946)  # none, LZW, deflate, PackBits, deflate by its older number

# In a JPEG's stream 0xFF 0x00 is a byte of 255; restart markers and the start (0xD0 to 0xD8) have no segment.
_SEGMENT = re.compile(rb"\xff[\xc0-\xcf\xd9-\xfe]")

_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # ITU-R 601-2, as PIL converts to "L"


def read_image(source: ImageSource, name: str = "image") -> np.ndarray:
    """Read one image.

    Args:
        source: A path, the bytes or the open file of a PNG, JPEG, TIFF, BMP or DICOM file, a row of `datasets` with
            one of them (`{"path", "bytes"}`), a `pydicom.Dataset` (see [`read_dicom`]), a PIL image of any mode, or an
            array or tensor `(H, W)`, `(H, W, C)` or `(C, H, W)` with C of 1, 3 or 4: boolean, unsigned integer of up
            to 16 bits, or float in [0, 1] or [0, 255]. A fourth channel is opacity.
        name: Name of the source in errors.

    Returns:
        `(H, W)` in [0, 255]: uint8 for 8-bit sources, float32 for deeper ones; bones are bright if they are bright in
        the source. Up to 1 % of the pixels, outliers, may be clipped.

    Raises:
        FileNotFoundError: The file does not exist.
        ImportError: pydicom, the decoder of a DICOM image, or a package for a rare PNG or TIFF is not installed.
        TypeError: The source has another type.
        ValueError: The source is a URL or not a readable image; has several frames, a wrong number of channels, or
            channels that look like several images; values that are out of range, not finite, all equal or almost all
            black; a size out of bounds; or is a DICOM image other than a frontal chest radiograph.
    """
    source = _opened(source, name)
    if isinstance(source, str | os.PathLike | bytes):
        pixels, name = _read_encoded(source, name)
    elif is_dicom_dataset(source):  # before arrays, because a dataset has `__array__` too
        pixels = read_dicom(source, name).pixels
    elif isinstance(source, Image.Image):
        pixels = _read_pil(source, name)
    elif isinstance(source, np.ndarray) or hasattr(source, "__array__"):
        pixels = _to_255(_one_channel(_to_numpy(source), name), name)
    else:
        raise TypeError(
            f"`{name}` must be a path, bytes, a PIL image, a pydicom dataset, an array or a tensor, got "
            f"{type(source).__name__}. Open it with PIL.Image.open first."
        )
    if min(pixels.shape) < MIN_SIDE:
        raise ValueError(f"`{name}` must be at least {MIN_SIDE} pixels a side, got {pixels.shape}. Pass a larger one.")
    _check_shown(pixels, name)
    return pixels


def _opened(source: Any, name: str) -> Any:
    """Bytes or path of an open file, which is read from its start, a buffer or a row; other sources unchanged."""
    if isinstance(source, Mapping) and "bytes" in source:
        return source.get("path") if source["bytes"] is None else source["bytes"]
    if isinstance(source, bytearray | memoryview):
        return bytes(source)
    if isinstance(source, os.PathLike | Image.Image) or not callable(getattr(source, "read", None)):
        return source
    if getattr(source, "seekable", bool)():
        source.seek(0)
    content = source.read(MAX_BYTES + 1)
    if not isinstance(content, bytes):
        raise TypeError(f"`{name}` must be a file opened in binary mode, got one opened for text. Open it with 'rb'.")
    return content


def _check_shown(pixels: np.ndarray, name: str) -> None:
    low, high = pixels.min(), pixels.max()
    if low == high:
        raise ValueError(f"`{name}` must show something, got {low} in every pixel. Check the export.")
    if not 0 <= low < high <= 255:
        raise ValueError(f"`{name}` must come out in [0, 255], got [{low}, {high}]. Report this file.")
    # In floats such an image would be taken for [0, 1] if it were read again.
    if _share(pixels > 1 + FLOAT_OVERSHOOT) <= STRAY_SHARE:
        raise ValueError(
            f"`{name}` must show something, got black in all but {STRAY_SHARE:.0%} of its pixels (grey levels to "
            f"{1 + FLOAT_OVERSHOOT} of 255). Check its window, or the range of its values."
        )


def _read_encoded(source: str | os.PathLike | bytes, name: str) -> tuple[np.ndarray, str]:
    if isinstance(source, bytes):
        opened: Any = io.BytesIO(source)
        start = source[:132]
        size = len(source)
    else:
        opened, name = local_file(source, name)
        size = os.path.getsize(opened)
        with open(opened, "rb") as file:
            start = file.read(132)
    if looks_like_dicom(start):
        return read_dicom(source, name).pixels, name
    if size > MAX_BYTES:
        raise ValueError(f"`{name}` must have at most {MAX_BYTES} bytes, got {size}. Reduce the image.")
    if start[:2] == b"\xff\xd8":
        _check_scans(source if isinstance(source, bytes) else Path(opened).read_bytes(), name)
    if start[:4] in _TIFF:
        return _read_tiff(opened, name), name
    with _decoding(name):
        image = Image.open(opened, formats=FORMATS)
    with image:
        if _is_deep_colour(image):
            return _read_deep_png(image, opened, name), name
        return _read_pil(image, name), name


def _check_scans(jpeg: bytes, name: str) -> None:
    """Refuse a JPEG with too many scans or segments, not counting thumbnails or what follows its end."""
    place, padding, segments, scans = 2, 0, 0, 0
    marker = None
    while marker != 0xD9 and place < len(jpeg):
        found = _SEGMENT.search(jpeg, place)
        start, marker = (found.start(), jpeg[found.end() - 1]) if found else (len(jpeg), None)
        padding += 0 if scans else start - place
        segments, scans = segments + 1, scans + (marker == 0xDA)
        if padding > MAX_PADDING:
            raise ValueError(f"`{name}` must have at most {MAX_PADDING} bytes of padding, got more. Save it again.")
        if scans > MAX_SCANS:
            raise ValueError(f"`{name}` must have at most {MAX_SCANS} scans, got more. Store the JPEG as baseline.")
        if segments > MAX_SEGMENTS:
            raise ValueError(f"`{name}` must have at most {MAX_SEGMENTS} segments, got more. Drop its metadata.")
        place = start + 2 + max(int.from_bytes(jpeg[start + 2 : start + 4]), 2)


@contextlib.contextmanager
def _decoding(name: str) -> Iterator[None]:
    """Turn any error of a decoder, such as IndexError or struct.error, into a ValueError that names the image."""
    try:
        yield
    except MemoryError:
        raise
    except UnidentifiedImageError as error:
        kinds = ", ".join(FORMATS)
        raise ValueError(f"`{name}` must be a {kinds} or DICOM image, got something else. Check the file.") from error
    except Image.DecompressionBombError as error:
        raise ValueError(f"`{name}` must have at most {MAX_PIXELS} pixels, got more ({error}). Reduce it.") from error
    except Exception as error:
        raise ValueError(
            f"`{name}` must be a complete image, got one that cannot be decoded ({error}). Check the file."
        ) from error


def _read_pil(image: Image.Image, name: str) -> np.ndarray:
    _check_size(image, name)
    if _is_deep_colour(image):
        raise ValueError(
            f"`{name}` must be passed as a path or bytes if it is a {image.format} of 16 bits in mode {image.mode}, "
            "got a PIL image, which keeps only 8. Pass the file itself."
        )
    with _decoding(name):
        image.load()
        deep = image.mode == "F" or image.mode.startswith("I")
        bits, inverted = _declared(image) if deep else (None, False)
        # Checked first, because Pillow copies even an image that needs no rotation.
        turned = image.getexif().get(ExifTags.Base.Orientation, 1) != 1
        image = ImageOps.exif_transpose(image) if turned else image
    if deep:
        return _to_255(np.asarray(image), name, bits, inverted)
    if image.mode in ("LAB", "La"):
        raise ValueError(f"`{name}` must be grey or colour, got PIL mode {image.mode}. Convert it to RGB.")
    with _decoding(name):
        return _grey(image)


def _check_size(image: Image.Image, name: str) -> None:
    if image.width * image.height > MAX_PIXELS:
        size = f"{image.width}×{image.height}"
        raise ValueError(f"`{name}` must have at most {MAX_PIXELS} pixels, got {size}. Reduce the image.")
    with _decoding(name):
        tile = _tile_pixels(image)
    if tile > MAX_PIXELS:
        raise ValueError(f"`{name}` must have tiles of at most {MAX_PIXELS} pixels, got {tile}. Write it in strips.")
    # Not `n_frames`, which takes quadratic time in the directories of a TIFF: hours for some files.
    if getattr(image, "is_animated", False):
        raise ValueError(f"`{name}` must be one image, got several frames. Pass them one by one.")


def _tile_pixels(image: Image.Image) -> int:
    """Pixels of a tile, which is always decoded completely; 0 without tiles."""
    tags = getattr(image, "tag_v2", {})
    return int(tags.get(322, 0)) * int(tags.get(323, 0))  # TileWidth, TileLength


def _is_deep_colour(image: Image.Image) -> bool:
    """Whether Pillow would drop the low byte of a PNG or TIFF that is not decoded yet, or misread its pixels."""
    if hasattr(image, "tag_v2"):
        bits, kinds = (np.atleast_1d(image.tag_v2.get(tag, 1)) for tag in (258, 339))  # BitsPerSample, SampleFormat
        if bits.max() == 8 and kinds.max() == 2:  # signed, which Pillow takes as unsigned
            return True
        unsigned = bits.max() == 32 and kinds.max() == 1  # which Pillow takes as signed
        return bits.max() > 8 and (len(bits) > 1 or unsigned or not image.mode.startswith(("I", "F")))
    return any(";16" in str(tile.args) for tile in getattr(image, "tile", ())) and not image.mode.startswith("I")


def _declared(image: Image.Image) -> tuple[int | None, bool]:
    """Declared bits of a deep TIFF, if fewer than its container has, and whether zero is white."""
    tags = getattr(image, "tag_v2", {})
    bits = int(np.max(tags.get(258, 16)))
    return (bits if 8 < bits < 16 else None), tags.get(262, 1) == 0  # PhotometricInterpretation


def _read_deep_png(image: Image.Image, opened: Path | BinaryIO, name: str) -> np.ndarray:
    """Read a PNG with 16-bit colour or opacity, whose header Pillow has read."""
    _check_size(image, name)
    try:  # By name: remote code that contains this file would require packages in an import statement.
        torch, torchvision = (importlib.import_module(module) for module in ("torch", "torchvision.io"))
    except ImportError as error:
        raise ImportError(
            f"`{name}` is a PNG of 16-bit colour, which needs torchvision. Run pip install torchvision."
        ) from error
    with _decoding(name):
        turned = image.getexif().get(ExifTags.Base.Orientation, 1)
        content = opened.read_bytes() if isinstance(opened, Path) else opened.getvalue()  # type: ignore[attr-defined]
        whole = _whole_png(content, image.size)
        decoded = torchvision.decode_png(torch.frombuffer(bytearray(whole), dtype=torch.uint8))
    return _to_255(_upright(_luma(np.moveaxis(decoded.numpy(), 0, -1)), turned), name)


def _whole_png(content: bytes, size: tuple[int, int]) -> bytes:
    """Header and pixels of a deep PNG of `size` (width, height), verified because its decoder crashes on bad ones."""
    place, header, parts, kind = 8, b"", [], b""
    while kind != b"IEND":
        length, kind = struct.unpack(">I4s", content[place : place + 8])
        body, end = content[place + 8 : place + 8 + length], place + 12 + length
        if zlib.crc32(kind + body) != int.from_bytes(content[end - 4 : end]) or end > len(content):
            raise ValueError(f"chunk {kind!r} has a wrong checksum")
        header = header or (body if kind == b"IHDR" else b"")
        parts += [body] if kind == b"IDAT" else []
        place = end
    width, height, depth, colour, *others = struct.unpack(">IIBBBBB", header)
    if (width, height) != size or depth != 16 or others != [0, 0, 0]:
        raise ValueError("interlaced, or with an unknown header: save it again")
    row = 1 + width * 2 * {2: 3, 4: 2, 6: 4}[colour]
    packed, inflating = b"".join(parts), zlib.decompressobj()
    rows = inflating.decompress(packed, row * height + 1)
    if len(rows) != row * height or not inflating.eof or max(rows[::row]) > 4:
        raise ValueError("pixels that do not match its header")
    packed = packed[: len(packed) - len(inflating.unused_data)]
    chunks = (b"IHDR" + header, b"IDAT" + packed, b"IEND")
    return content[:8] + b"".join(
        struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) for chunk in chunks
    )


def _read_tiff(opened: Path | BinaryIO, name: str) -> np.ndarray:
    """Read a TIFF with Pillow, or with tifffile if Pillow does not support it fully."""
    with _decoding(name):
        try:
            image = Image.open(opened, formats=("TIFF",))
        except UnidentifiedImageError:
            image = None
    with image or contextlib.nullcontext():
        with _decoding(name):
            rare = image is not None and _is_deep_colour(image)
        return _read_rare_tiff(opened, name) if image is None or rare else _read_pil(image, name)


def _read_rare_tiff(opened: Path | BinaryIO, name: str) -> np.ndarray:
    """Read a TIFF with 16-bit colour, packed depths, white at zero in more than 8 bits, or unsigned 32 bits."""
    try:
        tifffile = importlib.import_module("tifffile")  # by name, like torchvision above
    except ImportError as error:
        raise ImportError(f"`{name}` must be read with tifffile, got none. Run pip install tifffile.") from error
    if not isinstance(opened, Path):
        opened.seek(0)
    with contextlib.ExitStack() as opening:
        opening.enter_context(_without_complaints(name))
        with _decoding(name):
            file = opening.enter_context(tifffile.TiffFile(opened))
            page, several = file.pages[0], file.pages.is_multipage
        if several:
            raise ValueError(f"`{name}` must be one image, got several frames. Pass them one by one.")
        colours = _colours_of(page, name)
        with _decoding(name):
            pixels = page.asarray(maxworkers=1)
            pixels = np.moveaxis(pixels, 0, -1) if page.axes == "SYX" else pixels
            pixels = pixels.reshape(page.imagelength, page.imagewidth, page.samplesperpixel)
            turned = operator.index(page.tags.valueof(274, 1))  # Orientation
            opacity = page.extrasamples[:1] == (2,)  # not premultiplied
    bits = None if page.bitspersample in (8, 16, 32, 64) else page.bitspersample
    grey = _luma(pixels[..., : colours + opacity])
    return _to_255(_upright(grey, turned), name, bits, inverted=page.photometric == 0)


def _colours_of(page: Any, name: str) -> int:
    """Colour channels, 1 or 3, of a page, after checking its size and kind before it is decoded."""
    with _decoding(name):
        values = (page.imagelength, page.imagewidth, page.imagedepth, page.bitspersample, page.samplesperpixel)
        height, width, depth, bits, samples = map(operator.index, values)  # broken tags hold bytes and tuples
        kinds = (page.photometric, page.compression, page.tilelength * page.tilewidth)
        photometric, compression, tile = map(operator.index, kinds)
    if not 0 < height * width <= MAX_PIXELS or tile > MAX_PIXELS:
        raise ValueError(
            f"`{name}` must have 1 to {MAX_PIXELS} pixels, got {width}×{height} (tiles of {tile}). Reduce it."
        )
    colours = {0: 1, 1: 1, 2: 3}.get(photometric, 0)
    if not colours or samples - colours not in (0, 1) or depth != 1 or page.dtype is None:
        raise ValueError(
            f"`{name}` must be grey or RGB if it is a TIFF of more than 8 bits, got {samples} samples of {bits} "
            f"bits and photometric interpretation {photometric}. Convert it to 16-bit grey."
        )
    if compression not in _TIFF_COMPRESSIONS:
        raise ValueError(
            f"`{name}` must be compressed by LZW, deflate or PackBits if it is a TIFF of more than 8 bits, got "
            f"compression {compression}. Save it again with one of them."
        )
    # tifffile's own decompressors have no size limit.
    if (compression != 1 or bits not in (8, 16, 32, 64)) and importlib.util.find_spec("imagecodecs") is None:
        raise ImportError(
            f"`{name}` must have a decoder (imagecodecs), got a compressed or packed TIFF of {bits} bits and none "
            "installed. Run pip install 'clarity_hf[tiff]', or save it uncompressed with 16 bits."
        )
    return colours


@contextlib.contextmanager
def _without_complaints(name: str) -> Iterator[None]:
    """Refuse a TIFF for which tifffile logs an error: it ignores broken tags and reads something anyway."""
    complaints: list[str] = []
    thread = threading.get_ident()

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.thread == thread:
                complaints.append(record.getMessage())

    logger, listener = logging.getLogger("tifffile"), Listener(logging.ERROR)
    logger.addHandler(listener)
    try:
        yield
    finally:
        logger.removeHandler(listener)
    if complaints:
        raise ValueError(
            f"`{name}` must be a complete image, got a TIFF of which tifffile says: {complaints[0]}. Check the file."
        )


def _upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Pixels `(H, W)` rotated and flipped according to the Orientation of EXIF and TIFF."""
    ways = {2: pixels[:, ::-1], 3: pixels[::-1, ::-1], 4: pixels[::-1], 5: pixels.T}
    ways |= {6: pixels[::-1].T, 7: pixels[::-1, ::-1].T, 8: pixels.T[::-1]}
    return np.ascontiguousarray(ways.get(orientation, pixels))


def _grey(image: Image.Image) -> np.ndarray:
    """Convert colour, palettes and transparency to `(H, W)` uint8, with transparent pixels black."""
    if image.mode in ("RGBA", "LA", "PA", "RGBa") or "transparency" in image.info:
        image = image if image.mode == "RGBA" else image.convert("RGBA")
        if np.asarray(image.getchannel("A")).min() < 255:  # most such images are opaque
            black = Image.new("RGBA", image.size, (0, 0, 0, 255))
            image = Image.alpha_composite(black, image)
    return np.array(image if image.mode == "L" else image.convert("L"))


def _to_numpy(array: Any) -> np.ndarray:
    if hasattr(array, "detach"):
        array = array.detach().cpu()
        if array.is_floating_point():
            array = array.float()  # numpy has no bfloat16
    return np.asarray(array)


def _one_channel(array: np.ndarray, name: str) -> np.ndarray:
    channels = (1, 3, 4)
    if array.ndim == 2:
        return array
    if array.ndim != 3 or (array.shape[0] not in channels and array.shape[-1] not in channels):
        raise ValueError(
            f"`{name}` must be (H, W), (H, W, C) or (C, H, W) with 1, 3 or 4 channels, got {array.shape}. Pass a list "
            "of images."
        )
    # If both ends could be the channels, the shorter one is taken.
    first = array.shape[0] in channels and (array.shape[-1] not in channels or array.shape[0] <= array.shape[-1])
    array = np.moveaxis(array, 0, -1) if first else array
    if (array == array[..., :1]).all():
        return np.ascontiguousarray(array[..., 0])  # grey stored as colour: exact, and keeps its integer type
    least = _least_correlation(array[..., :3])
    if least < TINT_CORRELATION:
        raise ValueError(
            f"`{name}` must be one image, got {array.shape[-1]} channels that differ more than those of a tinted one "
            f"(rank correlation {least:.2f}, one image has {TINT_CORRELATION} or more). Pass several images as a "
            "list, such as list(stack)."
        )
    if array.dtype == np.uint8 and array.shape[-1] == 4:
        return _grey(Image.fromarray(np.ascontiguousarray(array)))
    return _luma(array)


def _least_correlation(colour: np.ndarray) -> float:
    """Smallest rank correlation between non-constant channels of `(H, W, 3)`, over a sample of pixels."""
    step = max(1, math.isqrt(colour[..., 0].size // 2**14))
    sample = colour[::step, ::step].reshape(-1, 3)
    sample = sample[:, (sample != sample[:1]).any(axis=0)]
    ranks = sample.argsort(axis=0, kind="stable").argsort(axis=0)
    return float(np.corrcoef(ranks.T).min()) if ranks.shape[-1] > 1 else 1.0


def _luma(array: np.ndarray) -> np.ndarray:
    """Grey or colour with or without opacity, `(H, W, C)` with C of 1 to 4, to `(H, W)` of the same type on black."""
    colour = array[..., : 3 if array.shape[-1] > 2 else 1]
    if colour.shape[-1] == 1 or (colour == colour[..., :1]).all():
        luma = np.ascontiguousarray(colour[..., 0])
    else:
        luma = colour.astype(np.float32) @ _LUMA
        luma = luma if array.dtype.kind == "f" else luma.round().astype(array.dtype)
    opacity = array[..., -1]
    if array.shape[-1] in (1, 3) or opacity.min() == opacity.max():
        return luma
    full = np.iinfo(array.dtype).max if array.dtype.kind in "iu" else 1 if opacity.max() <= 1 else 255
    return (luma * (opacity / full)).astype(array.dtype)


def _to_255(array: np.ndarray, name: str, bits: int | None = None, inverted: bool = False) -> np.ndarray:
    """Scale pixels `(H, W)` of any type to [0, 255], by the declared `bits` if any."""
    if array.dtype == np.bool_:
        array = array.astype(np.uint8) * np.uint8(255)
    elif array.dtype.kind == "f":
        array = _float_to_255(array, name)
    elif array.dtype.kind in "iu":
        array = _integer_to_255(array, name, bits)
    else:
        raise ValueError(f"`{name}` must contain numbers, got dtype {array.dtype}. Convert it to uint8 or float32.")
    return array.dtype.type(255) - array if inverted else array


def _float_to_255(array: np.ndarray, name: str) -> np.ndarray:
    """Scale by the range of all pixels but outliers, [0, 1] or [0, 255], allowing for overshoot."""
    low, high = array.min(initial=0), array.max(initial=0)
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ValueError(f"`{name}` must be finite, got NaN or infinity. Fill or drop those pixels.")
    unit = high <= 1 or _share(array > 1 + FLOAT_OVERSHOOT) <= STRAY_SHARE
    limit = 1 if unit else 255
    margin = FLOAT_OVERSHOOT * limit
    beyond = 0.0 if low >= 0 and high <= limit else _share((array < -margin) | (array > limit + margin))
    if beyond > STRAY_SHARE:
        raise ValueError(f"`{name}` must be in [0, 1] or [0, 255], got [{low}, {high}]. Undo the normalisation.")
    scaled = _scaled(array, 255 / limit)
    return scaled if low >= 0 and high <= limit else scaled.clip(0, 255, out=scaled)


def _integer_to_255(array: np.ndarray, name: str, bits: int | None) -> np.ndarray:
    """Scale by the declared bits, else by the smallest depth that holds all pixels but outliers."""
    if array.dtype == np.uint8 and bits is None:
        return np.ascontiguousarray(array)
    low, high = int(array.min(initial=0)), int(array.max(initial=0))
    most = 2 ** BIT_DEPTHS[-1] - 1
    if low < 0 or high > most:
        if _share((array < 0) | (array > most)) > STRAY_SHARE:
            raise ValueError(f"`{name}` must be in [0, {most}], got [{low}, {high}]. Apply the rescale slope.")
        array = array.clip(0, min(high, most))  # numpy 2.0 only accepts a bound that fits the type
    if bits is None:
        brightest = high if high < 2 ** BIT_DEPTHS[0] else _brightest(array)
        bits = next(depth for depth in BIT_DEPTHS if brightest < 2**depth)
    if high >= 2**bits:
        array = array.clip(0, 2**bits - 1)
    return array.astype(np.uint8) if bits == 8 else _scaled(array, 255 / (2**bits - 1))


def _brightest(array: np.ndarray) -> float:
    """Highest of integers in [0, 65535] that is not an outlier."""
    counts = np.bincount(array.ravel())
    values = np.flatnonzero(counts)
    return held_range(values, counts[values])[1]


def _share(marked: np.ndarray) -> float:
    return np.count_nonzero(marked) / max(marked.size, 1)


def _scaled(array: np.ndarray, factor: float) -> np.ndarray:
    """A new float32 array, computed in one pass."""
    return np.multiply(array, np.float32(factor), dtype=np.float32, casting="same_kind")
