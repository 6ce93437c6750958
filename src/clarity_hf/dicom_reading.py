# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Read one frontal chest radiograph from a DICOM file, its bytes or a pydicom dataset.

A file that is not a frontal radiograph, or claims to be too large, is refused on its header, before any pixel is
decoded. Errors name the source and the reason, never a patient or a UID. pydicom and the decoders are the extra
`dicom`, imported when the first DICOM image is read.
"""

from __future__ import annotations

import contextlib
import copy
import io
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from .dicom_header import (
    MAX_PIXELS,
    DicomHeader,
    check_header,
    is_dicom_dataset,
    pydicom_module,
    quietly,
    refusing,
    unreadable,
)
from .dicom_pixels import decode, to_grey, transfer_syntax

MAX_BYTES = 8 * MAX_PIXELS
"""Larger DICOM files are refused unread: an image of `MAX_PIXELS` needs less than a quarter of this."""


@dataclass(frozen=True, eq=False)
class DicomImage:
    """A radiograph with its header. Its `repr` shows nothing that identifies a patient; `dataset` does.

    Args:
        pixels: `(H, W)` in [0, 255], bones bright: uint8 for 8 stored bits, otherwise float32. Declared padding is 0.
        dataset: The source's `pydicom.Dataset` without pixel data, with `file_meta` if it has one.
        spacing: Height and width of a pixel in mm, in the patient's plane if the file is calibrated for it, otherwise
            at the detector; `None` if the file has neither.
        modality: `CR`, `DX`, `RG`, or empty.
        view: ViewPosition in upper case, such as `PA`, or empty.
        body_part: BodyPartExamined in upper case, or empty.
        sop_class_uid: SOP class, or empty.
        transfer_syntax_uid: How the pixels were stored.
        inverted: Whether low stored values were bright.
    """

    pixels: np.ndarray = field(repr=False)
    dataset: Any = field(repr=False)
    spacing: tuple[float, float] | None
    modality: str
    view: str
    body_part: str
    sop_class_uid: str
    transfer_syntax_uid: str
    inverted: bool


def read_dicom(source: Any, name: str = "image") -> DicomImage:
    """Read one radiograph.

    Args:
        source: A path, the bytes of a file with or without the 128-byte preamble, or a `pydicom.Dataset` with its
            pixel data, which is not modified.
        name: Name of the source in errors; a path is named by itself.

    Raises:
        FileNotFoundError: The file does not exist.
        ImportError: pydicom or the decoder of this compression is not installed.
        TypeError: The source has another type.
        ValueError: The source is not DICOM, or has no pixel data, several frames, colour, too many pixels, a modality,
            a body part, a view or an orientation other than those of an upright frontal chest radiograph, pixels that
            are not square, or data that cannot be decoded.
    """
    pydicom_module("pixels", name)
    if is_dicom_dataset(source):
        header = _copied_header(source, name)
        check_header(header)
        return _image(header, source)
    if not isinstance(source, str | os.PathLike | bytes):
        raise TypeError(
            f"`{name}` must be a path, bytes or a pydicom.Dataset, got {type(source).__name__}. "
            "Read it with pydicom.dcmread first."
        )
    with _opened(source, name) as (file, shown):
        header = _read_header(file, shown)
        check_header(header)
        return _image(header, _read_pixel_data(file, header))


def looks_like_dicom(start: bytes) -> bool:
    """Whether a file is DICOM, by its first 132 bytes.

    It has a preamble or, as some archives write, starts with an element of group 0002 or 0008.
    """
    if start[128:132] == b"DICM":
        return True
    explicit = re.fullmatch(rb"[A-Z]{2}", start[4:6]) is not None
    if start[:2] in (b"\x02\x00", b"\x08\x00") and len(start) >= 8:
        return explicit or int.from_bytes(start[4:8], "little") < 1024
    return start[:2] == b"\x00\x08" and explicit


def local_file(source: str | os.PathLike, name: str) -> tuple[Path, str]:
    """Path of an image file, and its name in errors.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: The path is a URL, a folder or a device.
    """
    path = os.fspath(source)
    if isinstance(path, str) and path.startswith(("http://", "https://", "ftp://", "data:")):
        raise ValueError(f"`{name}` must be local, got a URL. Download the image and pass its path.")
    name = str(path)
    if not os.path.exists(path):
        raise FileNotFoundError(f"No such file: {name}")
    if not os.path.isfile(path):
        raise ValueError(f"`{name}` must be a regular file, got a folder or a device. Pass the image's own path.")
    return Path(os.fsdecode(path)), name


def _copied_header(source: Any, name: str) -> DicomHeader:
    """A copy of the caller's data set without its pixels."""
    with refusing("a data set that cannot be copied", name), quietly():
        header = copy.deepcopy(source[:0x7FE00000])
        if hasattr(source, "file_meta"):
            header.file_meta = copy.deepcopy(source.file_meta)
        return DicomHeader(header, name)


class _BoundedFile(io.BufferedReader):
    """A file that never allocates more than its remaining bytes, whatever length a broken element claims."""

    def __init__(self, path: Path):
        super().__init__(io.FileIO(path))
        self._size = path.stat().st_size

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > io.DEFAULT_BUFFER_SIZE:
            size = min(size, max(self._size - self.tell(), 0))
        return super().read(size)


@contextlib.contextmanager
def _opened(source: str | os.PathLike | bytes, name: str) -> Iterator[tuple[BinaryIO, str]]:
    if isinstance(source, bytes):
        size, opened = len(source), io.BytesIO(source)
    else:
        path, name = local_file(source, name)
        size, opened = path.stat().st_size, _BoundedFile(path)  # type: ignore[assignment]
    with opened as file:
        if size > MAX_BYTES:
            raise ValueError(f"`{name}` must have at most {MAX_BYTES} bytes, got {size}. Pass the image alone.")
        yield file, name


def _read_header(file: BinaryIO, name: str) -> DicomHeader:
    """All elements before the pixel data, at which the file is left."""
    reader = pydicom_module("filereader")
    start = file.read(132)
    if not looks_like_dicom(start):
        raise unreadable("something else", name)
    syntax = ""
    with refusing("a header that does not parse", name), quietly():
        if start[128:] == b"DICM":
            meta = reader.read_dataset(file, False, True, stop_when=lambda tag, vr, length: tag >> 16 != 2)
            syntax = str(meta.get("TransferSyntaxUID", ""))
        file.seek(0)
        # Deflated data must be inflated completely, to any size, before their first element can be read.
        deflated = syntax == "1.2.840.10008.1.2.1.99"
        header = None if deflated else reader.dcmread(file, stop_before_pixels=True, force=True)
    if deflated:
        raise ValueError(
            f"`{name}` must not be deflated, got Deflated Explicit VR Little Endian. Store it as Explicit VR."
        )
    return DicomHeader(header, name)


def _read_pixel_data(file: BinaryIO, header: DicomHeader) -> Any:
    """The elements from the pixel data on."""
    at_pixels = file.tell()
    with refusing("pixel data that end early", header.name):
        rest = pydicom_module("filereader").read_dataset(file, *header.dataset.original_encoding)
    if "PixelData" not in rest and file.seek(0, os.SEEK_END) > at_pixels + 8:
        raise unreadable("pixel data that end early", header.name)
    return rest


def _image(header: DicomHeader, pixel_data: Any) -> DicomImage:
    """An image from its checked header and the elements that hold its pixels."""
    pixels, inverted = to_grey(decode(header, pixel_data), header)
    return DicomImage(
        pixels=pixels,
        dataset=header.dataset,
        spacing=header.spacing(),
        modality=header.text("Modality"),
        view=header.text("ViewPosition"),
        body_part=header.text("BodyPartExamined"),
        sop_class_uid=header.text("SOPClassUID"),
        transfer_syntax_uid=str(transfer_syntax(header)),
        inverted=inverted,
    )
