# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""From a file, bytes, a PIL image, a pydicom dataset or an array to one channel of pixels.

The library's own loaders clip 16-bit films to white and treat a stack as colour; here every source becomes
`(H, W)` with its intensities scaled, never clipped, and what is no film is refused with the reason. Nothing is fetched
over a network.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from .dicom_reading import MAX_BYTES, MAX_PIXELS, is_dicom_dataset, local_file, looks_like_dicom, read_dicom

FORMATS = ("PNG", "JPEG", "TIFF", "BMP")
"""File formats that Pillow reads here, recognised by content; DICOM has a reader of its own."""

MIN_SIDE = 16
"""Films with a side under this many pixels are refused."""

BIT_DEPTHS = (8, 10, 12, 14, 16)
"""Depths that detectors deliver. An integer film of more than 8 bits is scaled by the smallest depth that holds its
maximum, as 12-bit films are often stored in 16-bit files."""

MAX_SCANS = 100
"""JPEGs of more scans are refused: each goes over the whole film, and an empty one takes 14 bytes. libtiff has the
same limit; encoders write about 10."""

MAX_SEGMENTS = 10_000
"""JPEGs of more segments before their end are refused: Pillow looks at each, and the smallest takes 4 bytes. A profile
or metadata take one for each 64 kB."""

MAX_PADDING = 1_000_000
"""JPEGs of more bytes between the segments before their first scan are refused: Pillow looks at each."""

ImageSource = str | os.PathLike | bytes | Image.Image | np.ndarray | Any
"""Path, encoded bytes, PIL image, pydicom dataset, numpy array or torch tensor."""

# In a JPEG's stream 0xFF 0x00 is a byte of 255; restart markers and the start (0xD0 to 0xD8) have no segment.
_SEGMENT = re.compile(rb"\xff[\xc0-\xcf\xd9-\xfe]")

_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # ITU-R 601-2, as PIL converts to "L"


def read_image(source: ImageSource, name: str = "image") -> np.ndarray:
    """Read one film.

    Args:
        source: A path or the bytes of a PNG, JPEG, TIFF, BMP or DICOM file, a `pydicom.Dataset` (see [`read_dicom`]),
            a PIL image of any mode, or an array or tensor `(H, W)`, `(H, W, C)` or `(C, H, W)` with C of 1, 3 or 4:
            boolean, unsigned integer of 8 or 16 bit values, or float in [0, 1] or [0, 255].
        name: What errors call the source.

    Returns:
        `(H, W)` in [0, 255]: uint8 for 8-bit sources, float32 for deeper ones; bones bright where the source has them
        bright.

    Raises:
        FileNotFoundError: There is no such file.
        ImportError: The source is DICOM, and pydicom or the decoder it needs is not installed.
        TypeError: The source is of none of these kinds.
        ValueError: The source is a URL, no readable image, has several frames, a wrong number of channels, values out
            of range or not finite, the same value everywhere, or a size out of bounds, or is DICOM of something else
            than a frontal chest radiograph.
    """
    if isinstance(source, str | os.PathLike | bytes):
        pixels, name = _read_encoded(source, name)
    elif is_dicom_dataset(source):  # before arrays: a dataset answers to `__array__` too
        pixels = read_dicom(source, name).pixels
    elif isinstance(source, Image.Image):
        pixels = _read_pil(source, name)
    elif isinstance(source, np.ndarray) or hasattr(source, "__array__"):
        pixels = _read_array(_to_numpy(source), name)
    else:
        raise TypeError(
            f"`{name}` must be a path, bytes, a PIL image, a pydicom dataset, an array or a tensor, got "
            f"{type(source).__name__}. Open it with PIL.Image.open first."
        )
    if min(pixels.shape) < MIN_SIDE:
        raise ValueError(
            f"`{name}` must be at least {MIN_SIDE} pixels on each side, got {pixels.shape}. Pass the whole film."
        )
    if pixels.min() == pixels.max():
        raise ValueError(f"`{name}` must show something, got {pixels.min()} in every pixel. Check the export.")
    return pixels


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
        raise ValueError(f"`{name}` must have at most {MAX_BYTES} bytes, got {size}. Reduce the film.")
    if start[:2] == b"\xff\xd8":
        _check_scans(source if isinstance(source, bytes) else Path(opened).read_bytes(), name)
    with _decoding(name):
        image = Image.open(opened, formats=FORMATS)
    with image:
        return _read_pil(image, name), name


def _check_scans(jpeg: bytes, name: str) -> None:
    """Refuse a JPEG of too many scans or segments, walked by their lengths to its end, as decoders walk it.

    What is inside a segment, such as a small picture of the film, or after the end, such as a phone's video, is not
    decoded.
    """
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
    """Refuse a file as broken by what Pillow meets in it.

    Broken headers and streams meet most of Python's errors there (IndexError, OverflowError, struct.error, ...); a
    bare one would name neither film nor reason. Too little memory is no fault of the film.
    """
    try:
        yield
    except MemoryError:
        raise
    except UnidentifiedImageError as error:
        raise ValueError(
            f"`{name}` must be a {', '.join(FORMATS)} or DICOM image, got something else. "
            "Check that the file is whole."
        ) from error
    except Image.DecompressionBombError as error:
        raise ValueError(
            f"`{name}` must have at most {MAX_PIXELS} pixels, got more ({error}). Reduce the film."
        ) from error
    except Exception as error:
        raise ValueError(
            f"`{name}` must be a whole image, got one that does not decode ({error}). Check that the file is whole."
        ) from error


def _read_pil(image: Image.Image, name: str) -> np.ndarray:
    if image.width * image.height > MAX_PIXELS:
        raise ValueError(
            f"`{name}` must have at most {MAX_PIXELS} pixels, got {image.width}×{image.height}. Reduce the film."
        )
    with _decoding(name):
        tile = _tile_pixels(image)
    if tile > MAX_PIXELS:
        raise ValueError(f"`{name}` must have tiles of at most {MAX_PIXELS} pixels, got {tile}. Write it in strips.")
    # Not `n_frames`, for which Pillow looks each directory of a TIFF up among all before it: hours for some files.
    if getattr(image, "is_animated", False):
        raise ValueError(f"`{name}` must be one image, got several frames. Pass them one by one.")
    with _decoding(name):
        image.load()
        # Asked for first, as Pillow copies a film that needs no turning.
        turned = image.getexif().get(ExifTags.Base.Orientation, 1) != 1
        image = ImageOps.exif_transpose(image) if turned else image
    if image.mode == "F" or image.mode.startswith("I"):
        return _read_array(np.asarray(image), name)
    if image.mode in ("LAB", "La"):
        raise ValueError(f"`{name}` must be grey or colour, got PIL mode {image.mode}. Convert it to RGB.")
    with _decoding(name):
        return _grey(image)


def _tile_pixels(image: Image.Image) -> int:
    """Pixels of a tile, which is decoded whole however small the film is; 0 for what is not tiled."""
    tags = getattr(image, "tag_v2", {})
    return int(tags.get(322, 0)) * int(tags.get(323, 0))  # TileWidth, TileLength


def _grey(image: Image.Image) -> np.ndarray:
    """Colour, palettes and transparency to `(H, W)` uint8, what is transparent black."""
    if image.mode in ("RGBA", "LA", "PA", "RGBa") or "transparency" in image.info:
        image = image if image.mode == "RGBA" else image.convert("RGBA")
        if np.asarray(image.getchannel("A")).min() < 255:  # most such films are opaque, and black shows nowhere
            black = Image.new("RGBA", image.size, (0, 0, 0, 255))
            image = Image.alpha_composite(black, image)
    return np.array(image if image.mode == "L" else image.convert("L"))


def _to_numpy(array: Any) -> np.ndarray:
    if hasattr(array, "detach"):
        array = array.detach().cpu()
        if array.is_floating_point():
            array = array.float()  # numpy has no bfloat16
    return np.asarray(array)


def _read_array(array: np.ndarray, name: str) -> np.ndarray:
    return _to_255(_one_channel(array, name), name)


def _one_channel(array: np.ndarray, name: str) -> np.ndarray:
    channels = (1, 3, 4)
    if array.ndim == 2:
        return array
    if array.ndim != 3 or (array.shape[0] not in channels and array.shape[-1] not in channels):
        raise ValueError(
            f"`{name}` must be (H, W), (H, W, C) or (C, H, W) with 1, 3 or 4 channels, got {array.shape}. "
            "Pass films one by one or as a list."
        )
    # Where both ends could be the channels, the shorter one is meant: (3, 500, 4) does not occur among films.
    first = array.shape[0] in channels and (array.shape[-1] not in channels or array.shape[0] <= array.shape[-1])
    array = np.moveaxis(array, 0, -1) if first else array
    if array.shape[-1] == 1:
        return array[..., 0]
    colour = array[..., :3]
    if (colour[..., 0] == colour[..., 1]).all() and (colour[..., 1] == colour[..., 2]).all():
        return np.ascontiguousarray(colour[..., 0])  # grey stored as colour: exact, and it keeps its integer type
    luma = colour.astype(np.float32) @ _LUMA
    return luma if array.dtype.kind == "f" else luma.round().astype(array.dtype)


def _to_255(array: np.ndarray, name: str) -> np.ndarray:
    if array.dtype == np.bool_:
        return array.astype(np.uint8) * np.uint8(255)
    if array.dtype == np.uint8:
        return np.ascontiguousarray(array)
    if array.dtype.kind not in "iuf":
        raise ValueError(f"`{name}` must hold numbers, got dtype {array.dtype}. Convert it to uint8 or float32.")
    with np.errstate(invalid="ignore"):  # of NaN, which is told next: it is the minimum of whatever holds it
        low, high = array.min(initial=0), array.max(initial=0)
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ValueError(f"`{name}` must be finite, got NaN or infinity. Fill or drop those pixels.")
    if array.dtype.kind == "f":
        if low < 0 or high > 255:
            raise ValueError(
                f"`{name}` must lie in [0, 1] or [0, 255] if float, got [{low}, {high}]. Undo the normalisation."
            )
        return _scaled(array, 255 if high <= 1 else 1)
    if low < 0 or high >= 2 ** BIT_DEPTHS[-1]:
        raise ValueError(f"`{name}` must lie in [0, 65535] if integer, got [{low}, {high}]. Apply the rescale slope.")
    depth = next(bits for bits in BIT_DEPTHS if high < 2**bits)
    if depth == 8:
        return array.astype(np.uint8)
    return _scaled(array, 255 / (2**depth - 1))


def _scaled(array: np.ndarray, factor: float) -> np.ndarray:
    """A float32 array of its own, made in one pass."""
    return np.multiply(array, np.float32(factor), dtype=np.float32, casting="same_kind")
