# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Read one frontal chest radiograph from a DICOM file, its bytes or a pydicom dataset.

Grey levels are computed as in DICOM PS3.4 N.2 (modality LUT, VOI, polarity), once for each of the at most 65536 stored
values. A file that is not a frontal radiograph, or claims to be too large, is refused on its header, before any pixel
is decoded. Errors name the source and the reason, never a patient or a UID. pydicom and the decoders are the extra
`dicom`, imported when the first DICOM image is read.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import importlib
import io
import os
import re
import struct
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from .grey_levels import held_range

MAX_PIXELS = 64_000_000
"""Larger images are refused before they are decoded (a 43 × 43 cm plate at 50 µm has 74 M pixels, most under 25 M)."""

MAX_BYTES = 8 * MAX_PIXELS
"""Larger DICOM files are refused unread: an image of `MAX_PIXELS` needs less than a quarter of this."""

MODALITIES = ("CR", "DX", "RG")
"""Modalities of radiographs: computed, digital, and scanned film."""

SQUARE_TOLERANCE = 0.02
"""Relative difference allowed between the sides of a pixel."""

_INSTALL = "Run pip install 'clarity_hf[dicom]'."

# SOP classes of radiographs, and wrappers used by archives and anonymisers.
_FOR_PROCESSING = "1.2.840.10008.5.1.4.1.1.1.1.1"
_SOP_CLASSES = (
    "1.2.840.10008.5.1.4.1.1.1",  # Computed Radiography
    "1.2.840.10008.5.1.4.1.1.1.1",  # Digital X-Ray, for presentation
    _FOR_PROCESSING,  # refused separately
    "1.2.840.10008.5.1.4.1.1.7",  # Secondary Capture
    "1.2.840.10008.5.1.4.1.1.7.2",  # Multi-frame Grayscale Byte Secondary Capture, of one frame
    "1.2.840.10008.5.1.4.1.1.7.3",  # Multi-frame Grayscale Word Secondary Capture, of one frame
)

# Words of ViewPosition and of a view's CodeMeaning. Decubitus images (LATERAL DECUB) are frontal.
_SIDE_VIEWS = {"LL", "RL", "LAT", "LATERAL", "LLAT", "RLAT", "SAGITTAL"}
_OBLIQUE_VIEWS = {"LAO", "RAO", "LPO", "RPO", "LLO", "RLO", "OBL", "OBLIQUE"}
# Codes of CID 4010 "DX View" for the same views, SNOMED CT then SNOMED RT, for a meaning in another language.
_SIDE_CODES = {"399067008", "399198007", "399173006", "30730003", "R-102CD", "R-10232", "R-10236", "G-A145"}
_OBLIQUE_CODES = {"399182000", "399135007", "399356000", "399006002", "399038007", "399184004", "399236003"}
_OBLIQUE_CODES |= {"R-102C1", "R-10220", "R-40985", "R-10212", "R-10210", "R-10238", "R-10234"}

# Names of the chest, alone or with other parts, and of parts that are not the subject of a chest radiograph: PS3.16
# annex L, CID 4009, and words of technicians (KNEE LEFT, FEET). A name in neither list, such as one in another
# language, passes. The long words match anywhere, as in LTKNEE.
_CHEST = re.compile(r"CHEST|THORAX|\bTHORACIC\b(?! *(?:SPINE|VERT))|\b(?:RIBS?|LUNGS?|HEART|CXR|MEDIASTINUM)\b")
_OTHER_PARTS = re.compile(
    r"ABDOM|ACJOINT|ANKLE|BILIARY|BLADDER|BRAIN|BREAST|BUTTOCK|CALCANE|CAROTID|CEREBELL|CERVI|CLAVIC|COCCY|COLON|"
    r"CRANI|DENTAL|ELBOW|ESOPHAG|EXTREMIT|FACIAL|FEMUR|FIBULA|FINGER|FOREARM|FOREFOOT|GLUTE|HUMER|KIDNEY|KNEE|"
    r"LARYNX|LIVER|LUMB|MAMMO|MANDIB|MASTOID|MAXILLA|METACARP|METATARS|MUSCLE|NASALBONE|ORBIT|PANCREAS|PATELLA|"
    r"PELVI|PHALAN|PROSTATE|RADIUS|SACR|SCAPULA|SCROTUM|SHOULDER|SINUS|SKULL|SPINE|SPINAL|SPLEEN|STERN|STOMACH|"
    r"TARSAL|TESTIS|THIGH|THUMB|TIBIA|URET|URINARY|UTERUS|VERTEBR|WRIST|ZYGOMA|"
    r"\b(?:ABD|AC JOINT|ARM|CALF|CALVES|CHEEK|EAR|EYE|FACE|FEET|FOOT|HAND|HEAD|HEADNECK|HEEL|HIP|ILIUM|INTESTINE|JAW|"
    r"JOINT|KUB|LEG|LIMB|NASAL BONE|NECK|NOSE|PAROTID|RECTUM|SELLA|SI JOINT|TEETH|TMJ|TOE|TOOTH|ULNA)S?\b"
)

# In order of preference. GDCM crashes the process on some broken streams: it is used only for JPEG lossless, which no
# other plugin reads, and for streams that pass `_is_orderly`.
_PLUGINS = ("pylibjpeg", "pyjpegls", "pillow", "pydicom", "gdcm")
_JPEG_LOSSLESS = ("1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70")
_RLE = "1.2.840.10008.1.2.5"

# A marker may have any number of fill bytes before it (T.81 B.1.1.2); 0xFF 0x00 and restarts belong to the scan.
_FILL = re.compile(rb"\xff*(?=\xff)")
_MARKER = re.compile(rb"(?<!\xff)\xff++([^\x00\xd0-\xd7])", re.DOTALL)

_PARSING = threading.RLock()


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
    _pydicom("pixels", name)
    if is_dicom_dataset(source):
        header = _copied_header(source, name)
        _check_header(header, name)
        return _image(header, source, name)
    if not isinstance(source, str | os.PathLike | bytes):
        raise TypeError(
            f"`{name}` must be a path, bytes or a pydicom.Dataset, got {type(source).__name__}. "
            "Read it with pydicom.dcmread first."
        )
    with _opened(source, name) as (file, shown):
        header = _read_header(file, shown)
        _check_header(header, shown)
        return _image(header, _read_pixel_data(file, header, shown), shown)


def is_dicom_dataset(source: Any) -> bool:
    """Whether a source is a `pydicom.Dataset`, without importing pydicom."""
    module = sys.modules.get("pydicom.dataset")
    return module is not None and isinstance(source, module.Dataset)


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


# Opening


def _pydicom(module: str, name: str) -> Any:
    """A module of pydicom, imported by name: remote code would require every package in an import statement."""
    try:
        return importlib.import_module(f"pydicom.{module}")
    except ImportError as error:
        raise ImportError(
            f"`{name}` must be readable by pydicom ≥ 3, got DICOM and no such package. {_INSTALL}"
        ) from error


@contextlib.contextmanager
def _quietly(name: str) -> Iterator[None]:
    """Silence pydicom's warnings, which quote values; the setting is global, so one thread at a time."""
    with _PARSING, _pydicom("config", name).disable_value_validation():
        yield


@contextlib.contextmanager
def _refusing(what: str, name: str) -> Iterator[None]:
    """Refuse a file as broken for any error of pydicom, without its message, which may quote the patient."""
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:
        raise _unreadable(f"{what} ({type(error).__name__})", name) from None


def _copied_header(source: Any, name: str) -> Any:
    """A copy of the caller's data set without its pixels."""
    with _refusing("a data set that cannot be copied", name), _quietly(name):
        header = copy.deepcopy(source[:0x7FE00000])
        if hasattr(source, "file_meta"):
            header.file_meta = copy.deepcopy(source.file_meta)
        return header


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


def _read_header(file: BinaryIO, name: str) -> Any:
    """All elements before the pixel data, at which the file is left."""
    reader = _pydicom("filereader", name)
    start = file.read(132)
    if not looks_like_dicom(start):
        raise _unreadable("something else", name)
    syntax = ""
    with _refusing("a header that does not parse", name), _quietly(name):
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
    return header


def _read_pixel_data(file: BinaryIO, header: Any, name: str) -> Any:
    """The elements from the pixel data on."""
    reader = _pydicom("filereader", name)
    at_pixels = file.tell()
    with _refusing("pixel data that end early", name):
        rest = reader.read_dataset(file, *header.original_encoding)
    if "PixelData" not in rest and file.seek(0, os.SEEK_END) > at_pixels + 8:
        raise _unreadable("pixel data that end early", name)
    return rest


def _unreadable(what: str, name: str) -> ValueError:
    return ValueError(f"`{name}` must be a complete DICOM file, got {what}. Check that the file is complete.")


# Header


def _value(dataset: Any, keyword: str, name: str) -> Any:
    """An element's value, the first of several; `None` if it is absent or empty."""
    with _refusing(f"a {keyword} that does not parse", name):
        with _quietly(name):
            value = dataset.get(keyword)
        if value is not None and not isinstance(value, str | bytes) and hasattr(value, "__len__"):
            value = value[0] if len(value) else None
        if is_dicom_dataset(value):
            raise TypeError("a sequence")
        return None if value is None or value == "" else value


def _items(dataset: Any, keyword: str, name: str) -> list[Any]:
    """Items of a sequence, an empty list if it is absent or empty."""
    with _refusing(f"a {keyword} that does not parse", name), _quietly(name):
        element = dataset[keyword] if keyword in dataset else None  # noqa: SIM401 (`get` gives the value)
        if element is None or element.is_empty:
            return []
        kind, items = str(element.VR), element.value
    if kind != "SQ":
        raise ValueError(
            f"`{name}` must have a sequence (SQ) for {keyword}, got an element of type {_shown(kind)}. Correct it."
        )
    return list(items)


def _text(dataset: Any, keyword: str, name: str) -> str:
    value = _value(dataset, keyword, name)
    return "" if value is None else str(value).strip().strip("\0").upper()


def _number(dataset: Any, keyword: str, name: str) -> float | None:
    value = _value(dataset, keyword, name)
    try:
        number = None if value is None else float(value)
    except (TypeError, ValueError):
        number = float("nan")
    if number is not None and not np.isfinite(number):
        raise _unreadable(f"a {keyword} that is not a number", name)
    return number


def _integer(dataset: Any, keyword: str, default: int, name: str) -> int:
    number = _number(dataset, keyword, name)
    return default if number is None else int(number)


def _shown(text: str) -> str:
    """A header value, shortened and sanitised for errors."""
    return re.sub(r"[^\w \-/^]", "?", text)[:16]


def _check_header(header: Any, name: str) -> None:
    """Refuse all but a single grey image of acceptable size, then all but a frontal chest radiograph."""
    modality = _text(header, "Modality", name)
    rows, columns = (_integer(header, keyword, 0, name) for keyword in ("Rows", "Columns"))
    if rows < 1 or columns < 1:
        raise ValueError(
            f"`{name}` must be one image, got DICOM without pixel data (modality {_shown(modality) or 'not given'}). "
            "Pass the image, not a report or a directory."
        )
    frames = _integer(header, "NumberOfFrames", 1, name)
    if frames > 1:
        raise ValueError(f"`{name}` must be one image, got {frames} frames. Pass them one by one.")
    colour = _text(header, "PhotometricInterpretation", name)
    if _integer(header, "SamplesPerPixel", 1, name) != 1 or colour not in ("MONOCHROME1", "MONOCHROME2"):
        raise ValueError(
            f"`{name}` must be MONOCHROME1 or MONOCHROME2, got {_shown(colour) or 'no PhotometricInterpretation'}: "
            "a radiograph has no colour. Pass the radiograph itself."
        )
    if rows * columns > MAX_PIXELS:
        raise ValueError(f"`{name}` must have at most {MAX_PIXELS} pixels, got {columns}×{rows}. Reduce the image.")
    _check_radiograph(header, modality, name)
    _check_body_part(header, name)
    _check_view(header, name)
    _check_orientation(header, name)
    _check_pixels(header, name)


def _check_radiograph(header: Any, modality: str, name: str) -> None:
    sop_class = _text(header, "SOPClassUID", name)
    known = not sop_class or sop_class in _SOP_CLASSES
    if (modality and modality not in MODALITIES) or not known:
        got = f"modality {_shown(modality) or 'not given'}" + ("" if known else " and another SOP class")
        raise ValueError(
            f"`{name}` must be a radiograph ({', '.join(MODALITIES)}), got {got}. "
            "If it is one, such as a scanned film, set its Modality."
        )
    if sop_class == _FOR_PROCESSING or _text(header, "PresentationIntentType", name) == "FOR PROCESSING":
        raise ValueError(
            f"`{name}` must be an image for presentation, got one for processing, which has raw detector values. "
            "Pass the processed image of the same exposure."
        )


def _check_body_part(header: Any, name: str) -> None:
    parts = [("BodyPartExamined", _text(header, "BodyPartExamined", name))]
    for item in _items(header, "AnatomicRegionSequence", name):
        code = _text(item, "CodeValue", name), _text(item, "CodingSchemeDesignator", name)
        parts.append(("AnatomicRegionSequence", _text(item, "CodeMeaning", name) or _shown(code[0])))
        parts.append(("AnatomicRegionSequence", _meaning(*code)))
    for keyword, part in parts:
        words = re.sub(r"[^A-Z]+", " ", part)
        if _OTHER_PARTS.search(words) and not _CHEST.search(words):
            raise ValueError(
                f"`{name}` must show the chest, got {keyword} {_shown(part)}. If the image does show the chest, "
                "correct or clear this element."
            )


@functools.lru_cache(maxsize=256)
def _meaning(value: str, scheme: str) -> str:
    """Meaning in upper case of a SNOMED code of either scheme, if pydicom knows it."""
    code, codes = (getattr(_pydicom("sr.codedict", "image"), name) for name in ("Code", "codes"))
    wanted = code(value, scheme, "")
    known = (getattr(codes.SCT, keyword) for keyword in codes.SCT.dir()) if scheme in ("SCT", "SRT", "SNM3") else ()
    return next((concept.meaning.upper() for concept in known if concept == wanted), "")


def _check_view(header: Any, name: str) -> None:
    views = [(_text(header, "ViewPosition", name), "")]
    items = _items(header, "ViewCodeSequence", name)
    views += [(_text(item, "CodeMeaning", name), _text(item, "CodeValue", name)) for item in items]
    for meaning, code in views:
        words = set(re.findall(r"[A-Z]+", meaning))
        decubitus = any(word.startswith("DECUB") for word in words)
        lateral = (words & _SIDE_VIEWS and not decubitus) or code in _SIDE_CODES
        if lateral or words & _OBLIQUE_VIEWS or code in _OBLIQUE_CODES:
            kind = "a lateral" if lateral else "an oblique"
            raise ValueError(
                f"`{name}` must be a frontal image, got {kind} view ({_shown(meaning) or _shown(code)}). "
                "Pass the PA or AP image of the study."
            )


def _check_orientation(header: Any, name: str) -> None:
    """Refuse all orientations but that of reading: the patient's left at the right edge, the feet at the bottom."""
    # PatientOrientation (PS3.3 C.7.6.1.1.1) is that of the stored pixels. A flip or rotation of the field of view
    # (C.8.11.4) happened before; it matters only without an orientation.
    with _refusing("a PatientOrientation that does not parse", name), _quietly(name):
        value = header.get("PatientOrientation")
        value = [value] if isinstance(value, str) else list(value or ())
        directions = [str(part).strip().upper() for part in value if str(part).strip()]
    flipped = _text(header, "FieldOfViewHorizontalFlip", name) == "YES"
    turned = _number(header, "FieldOfViewRotation", name) or 0
    if not directions:
        if flipped or turned % 360:
            done = "FieldOfViewHorizontalFlip YES" if flipped else f"FieldOfViewRotation {turned:g}"
            raise ValueError(f"`{name}` must declare its PatientOrientation, got {done} without it. Set it.")
        return
    shown = _shown("\\".join(directions).replace("\\", "/"))
    if len(directions) != 2 or not all(re.fullmatch("[LRAPHF]{1,3}", part) for part in directions):
        raise ValueError(
            f"`{name}` must have a PatientOrientation of two directions of L, R, A, P, H and F, got {shown}. "
            "Correct or clear this element."
        )
    row, column = directions
    if {row[0], column[0]} & set("AP") or set(row) & set("AP"):
        kind = "a lateral" if {row[0], column[0]} & set("AP") else "an oblique"
        raise ValueError(
            f"`{name}` must be a frontal image, got {kind} view (PatientOrientation {shown}). "
            "Pass the PA or AP image of the study."
        )
    if (row[0], column[0]) != ("L", "F"):
        raise ValueError(
            f"`{name}` must be stored with the patient's left at the right edge and the feet at the lower one "
            f"(PatientOrientation L/F), got {shown}. Rotate or flip its pixels and set PatientOrientation."
        )


def _check_pixels(header: Any, name: str) -> None:
    allocated, stored = (_integer(header, keyword, 0, name) for keyword in ("BitsAllocated", "BitsStored"))
    if allocated not in (8, 16) or not 8 <= stored <= allocated:
        raise ValueError(
            f"`{name}` must store 8 to 16 bits in 8 or 16, got {stored} in {allocated}. Export it as 16 bits."
        )
    height, width = _pair(header, "PixelAspectRatio", name) or _spacing(header, name) or (1.0, 1.0)
    if abs(height / width - 1) > SQUARE_TOLERANCE:
        raise ValueError(
            f"`{name}` must have square pixels, got sides of {height:g} by {width:g}. Resample the image to square "
            "pixels: boxes are in pixels of the image that is passed."
        )


def _pair(header: Any, keyword: str, name: str) -> tuple[float, float] | None:
    """Two positive numbers, vertical first; `None` if they are absent or zero."""
    with _refusing(f"a {keyword} that does not parse", name):
        with _quietly(name):
            value = header.get(keyword)
        numbers = [float(number) for number in value] if hasattr(value, "__len__") and len(value) == 2 else []
    return (numbers[0], numbers[1]) if len(numbers) == 2 and all(0 < n < np.inf for n in numbers) else None


def _spacing(header: Any, name: str) -> tuple[float, float] | None:
    return _pair(header, "PixelSpacing", name) or _pair(header, "ImagerPixelSpacing", name)


# Pixels


def _image(header: Any, pixel_data: Any, name: str) -> DicomImage:
    """An image from its checked header and the elements that hold its pixels."""
    stored = _decode(header, pixel_data, name)
    pixels, inverted = _to_grey(stored, header, name)
    return DicomImage(
        pixels=pixels,
        dataset=header,
        spacing=_spacing(header, name),
        modality=_text(header, "Modality", name),
        view=_text(header, "ViewPosition", name),
        body_part=_text(header, "BodyPartExamined", name),
        sop_class_uid=_text(header, "SOPClassUID", name),
        transfer_syntax_uid=str(_transfer_syntax(header, name)),
        inverted=inverted,
    )


def _transfer_syntax(header: Any, name: str) -> Any:
    """The declared transfer syntax, else the uncompressed one of the data set's encoding."""
    uid = _pydicom("uid", name)
    declared = _text(getattr(header, "file_meta", None) or {}, "TransferSyntaxUID", name)
    if declared:
        return uid.UID(declared)
    implicit, little = header.original_encoding
    if little is False:
        return uid.ExplicitVRBigEndian
    return uid.ImplicitVRLittleEndian if implicit else uid.ExplicitVRLittleEndian


def _decode(header: Any, pixel_data: Any, name: str) -> np.ndarray:
    """Stored values `(H, W)`, uint8, uint16, int8 or int16."""
    if "PixelData" not in pixel_data:
        raise ValueError(f"`{name}` must contain its pixels, got DICOM without pixel data. Pass the complete file.")
    syntax = _transfer_syntax(header, name)
    try:
        decoder = _pydicom("pixels", name).get_decoder(syntax)
    except NotImplementedError:
        raise ValueError(
            f"`{name}` must be in a transfer syntax of still images, got {_syntax_name(syntax)}. "
            "Store it as Explicit VR Little Endian or JPEG 2000."
        ) from None
    stored = _integer(header, "BitsStored", 0, name)
    high = _integer(header, "HighBit", stored - 1, name) + 1
    options: dict[str, Any] = {}
    held = _integer(header, "BitsAllocated", 0, name)
    with _refusing("a group of the image that does not parse", name), _quietly(name):
        image = header[0x00280000:0x00290000]
        image["PixelData"] = pixel_data.get_item("PixelData")
    if decoder.is_encapsulated:
        options["decoding_plugin"] = _plugin(decoder, syntax, stored, name)
        stream = _stream(image, name)
        _check_stream(stream, header, syntax, name)
        held = held if syntax == _RLE else _claimed(stream)[3]
    # pydicom assumes that the stored bits are the lowest ones; HighBit says where they are.
    shift = max(high - stored, 0) if high <= held else 0
    options["bits_stored"] = stored + shift
    with _refusing("pixel data that do not decode", name):
        values, _ = decoder.as_array(image, index=0, raw=True, transfer_syntax_uid=syntax, **options)
    return values >> shift if shift else values


def _plugin(decoder: Any, syntax: Any, stored: int, name: str) -> str:
    """The installed decoder to use."""
    available = [plugin for plugin in _PLUGINS if plugin in decoder.available_plugins]
    available = [plugin for plugin in available if plugin != "gdcm" or syntax in _JPEG_LOSSLESS]
    wanted, command = " or ".join(decoder.missing_dependencies), _INSTALL
    if syntax == "1.2.840.10008.1.2.4.51" and stored > 8:  # pydicom lists decoders limited to 8 bits
        available = [plugin for plugin in available if plugin == "pylibjpeg"]
        wanted, command = "pylibjpeg-libjpeg", "Run pip install pylibjpeg-libjpeg (GPL), or store it as JPEG 2000."
    if not available:
        raise ImportError(
            f"`{name}` must have a decoder ({wanted}), got {_syntax_name(syntax)} and none installed. {command}"
        )
    return available[0]


def _syntax_name(syntax: Any) -> str:
    return "an unknown transfer syntax" if syntax.is_private or syntax.name == str(syntax) else syntax.name


def _stream(image: Any, name: str) -> bytes:
    """The one compressed frame, its fragments joined."""
    encaps = _pydicom("encaps", name)
    with _refusing("pixel data without fragments", name):
        return encaps.get_frame(image.PixelData, 0, number_of_frames=1)


def _check_stream(stream: bytes, header: Any, syntax: Any, name: str) -> None:
    """Refuse a compressed frame larger than the header says, and one that ends early, which some decoders pad."""
    rows, columns = (_integer(header, keyword, 0, name) for keyword in ("Rows", "Columns"))
    if syntax == _RLE:  # no marker; at worst two bytes for each
        if len(stream) > 4 * rows * columns + 1024:
            raise _unreadable("more RLE data than its rows and columns hold", name)
        return
    if not stream.rstrip(b"\x00\xff").endswith(b"\xff\xd9"):
        raise _unreadable("compressed pixel data without an end", name)
    claimed = _claimed(stream)[:3]
    if claimed != (rows, columns, 1):
        shown = claimed if any(claimed) else "of no known kind"
        raise _unreadable(f"compressed pixel data {shown} for {(rows, columns, 1)}", name)
    if syntax in _JPEG_LOSSLESS and not _is_orderly(stream, _integer(header, "BitsAllocated", 0, name)):
        raise _unreadable("a JPEG lossless stream out of order", name)


def _segments(stream: bytes) -> Iterator[tuple[int, int, int]]:
    """Marker, start and length of each segment of a JPEG stream, up to its first scan."""
    place = 2
    while place + 5 <= len(stream) and stream[place] == 0xFF:
        place = _FILL.match(stream, place).end()  # type: ignore[union-attr]
        if place + 5 > len(stream):
            return
        length = int.from_bytes(stream[place + 2 : place + 4], "big")
        yield stream[place + 1], place, length
        place += 2 + length


def _is_orderly(stream: bytes, most_bits: int) -> bool:
    """Whether a JPEG lossless stream is as in PS3.5 10.2: tables, one frame, one scan, the end."""
    seen = set()
    for marker, place, length in _segments(stream):
        tables = marker in (0xC4, 0xDD, 0xFE) or 0xE0 <= marker <= 0xEF
        if length < 2 or not (tables or marker == 0xDA or (marker == 0xC3 and 2 <= stream[place + 4] <= most_bits)):
            return False
        if marker == 0xC3 and marker in seen:
            return False
        seen.add(marker)
        if marker == 0xDA:
            after = _MARKER.search(stream, place + 2 + length)
            return {0xC3, 0xC4} <= seen and after is not None and after.group(1) == b"\xd9"
    return False


def _claimed(stream: bytes) -> tuple[int, int, int, int]:
    """Rows, columns, channels and bits by the header of a JPEG, JPEG-LS or JPEG 2000 stream, else zeros."""
    start = stream[:256].find(b"\xff\x4f\xff\x51")  # SOC and SIZ, perhaps inside a JP2 file
    if start >= 0 and len(stream) >= start + 43:
        right, bottom, left, top = struct.unpack(">4I", stream[start + 8 : start + 24])
        channels = int.from_bytes(stream[start + 40 : start + 42], "big")
        return bottom - top, right - left, channels, (stream[start + 42] & 0x7F) + 1
    for marker, place, _ in _segments(stream) if stream[:2] == b"\xff\xd8" else ():
        is_frame = marker == 0xF7 or (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC))
        if is_frame and place + 10 <= len(stream):
            rows, columns = struct.unpack(">2H", stream[place + 5 : place + 9])
            return rows, columns, stream[place + 9], stream[place + 4]
    return 0, 0, 0, 0


# Grey levels


def _to_grey(stored: np.ndarray, header: Any, name: str) -> tuple[np.ndarray, bool]:
    """Stored values `(H, W)` → image `(H, W)` in [0, 255], and whether low values were bright."""
    bits = _integer(header, "BitsStored", 0, name)
    lowest = -(2 ** (bits - 1)) if stored.dtype.kind == "i" else 0
    levels = np.arange(lowest, lowest + 2**bits)
    index = stored.astype(np.intp)  # once, because numpy converts every index to this type
    index -= lowest
    np.clip(index, 0, len(levels) - 1, out=index)  # outside the declared bits only in invalid files
    padding = _padding(levels, header, name)
    modality = _apply_modality(levels, header, name)
    shares = _apply_voi(modality, header, name)
    if shares is None:
        counts = np.bincount(index.ravel(), minlength=len(levels))
        shares = _full_range(modality, np.where(padding, 0, counts))
    # Many images have both, which invert once. MONOCHROME1 with IDENTITY is inverted too: some archives have a wrong
    # shape, and MONOCHROME1 applies after the VOI.
    inverted = (
        _text(header, "PhotometricInterpretation", name) == "MONOCHROME1"
        or _text(header, "PresentationLUTShape", name) == "INVERSE"
    )
    table = 255 * (1 - shares if inverted else shares)
    table[padding] = 0
    table = table.round().astype(np.uint8) if bits == 8 else table.astype(np.float32)
    return np.take(table, index, mode="clip"), inverted


def _padding(levels: np.ndarray, header: Any, name: str) -> np.ndarray:
    """Which stored values are declared as padding."""
    first = _number(header, "PixelPaddingValue", name)
    if first is None:
        return np.zeros(len(levels), dtype=bool)
    last = _number(header, "PixelPaddingRangeLimit", name)
    ends = (first, first if last is None else last)
    # In implicit VR its sign may differ from that of the pixels.
    wrap = {True: (2**15, np.inf, -(2**16)), False: (-np.inf, 0, 2**16)}[bool(levels[0] < 0)]
    ends = tuple(value + wrap[2] if wrap[0] <= value < wrap[1] else value for value in ends)  # type: ignore[assignment]
    return (levels >= min(ends)) & (levels <= max(ends))


def _apply_modality(levels: np.ndarray, header: Any, name: str) -> np.ndarray:
    item = _first_table(header, "ModalityLUTSequence", name)
    if item is not None:
        return _apply_table(levels, item, header, name)[0].astype(np.float64)
    slope, intercept = (_number(header, keyword, name) for keyword in ("RescaleSlope", "RescaleIntercept"))
    return levels.astype(np.float64) if slope is None or intercept is None else levels * slope + intercept


def _apply_voi(values: np.ndarray, header: Any, name: str) -> np.ndarray | None:
    """Modality values → [0, 1] by the first VOI table, else the first window; `None` without either."""
    item = _first_table(header, "VOILUTSequence", name)
    if item is not None:
        grey, bits = _apply_table(values, item, header, name)
        return grey / (2**bits - 1)
    center, width = (_number(header, keyword, name) for keyword in ("WindowCenter", "WindowWidth"))
    function = _text(header, "VOILUTFunction", name) or "LINEAR"
    # PS3.3 C.11.2.1.2 and C.11.2.1.3. A width of 0 means no window.
    if center is None or width is None or width <= 0 or (function == "LINEAR" and width < 1):
        return None
    if function not in ("LINEAR", "LINEAR_EXACT", "SIGMOID"):
        raise ValueError(
            f"`{name}` must have the VOI LUT function LINEAR, LINEAR_EXACT or SIGMOID, got {_shown(function)}. "
            "Export it with a window of one of these."
        )
    # A separate header: pydicom would scale to the range of the rescaled values, which a negative slope reverses.
    window = _pydicom("dataset", name).Dataset()
    window.PhotometricInterpretation, window.PixelRepresentation, window.BitsStored = "MONOCHROME2", 0, 16
    window.VOILUTFunction = function
    # As doubles, as a broken file may declare them as text.
    window.add_new("WindowCenter", "FD", center)
    window.add_new("WindowWidth", "FD", width)
    with np.errstate(over="ignore"):  # the sigmoid overflows far below the window
        return _pydicom("pixels", name).apply_windowing(values, window) / (2**16 - 1)


def _full_range(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Values → [0, 1] by the range of those that occur, without outliers."""
    held, place = np.unique(values[counts > 0], return_inverse=True)
    low, high = held_range(held, np.bincount(place, counts[counts > 0])) if len(held) else (0.0, 0.0)
    return np.clip((values - low) / (high - low), 0, 1) if high > low else np.zeros(len(values))


def _first_table(header: Any, keyword: str, name: str) -> Any:
    items = _items(header, keyword, name)
    return items[0] if items and "LUTDescriptor" in items[0] and "LUTData" in items[0] else None


def _apply_table(values: np.ndarray, item: Any, header: Any, name: str) -> tuple[np.ndarray, int]:
    """Values through the lookup table of a sequence item, clamped to its ends, and the bits of its entries."""
    # The bits are the declared ones, unless the table needs more or uses less than a sixteenth of their range.
    # pydicom's functions index tables of 8-bit entries by 8 bits, even with 4096 entries, and know no 10 to 14 bits.
    with _refusing("a lookup table that does not parse", name):
        with _quietly(name):
            descriptor, data = item.LUTDescriptor, item.LUTData
        entries, first, bits = (int(number) for number in descriptor)
        entries = entries % 2**16 or 2**16  # unsigned whatever the pixels are (PS3.3 C.11.1.1)
        little = header.original_encoding[1] is not False
        if not isinstance(data, bytes):  # 16-bit words
            data = np.atleast_1d(np.asarray(data)).astype("<u2" if little else ">u2").tobytes()
        packed = bits <= 8 and len(data) < 2 * entries  # two entries a word, as in the standard; not all files
        table = np.frombuffer(data, "u1" if packed else "<u2" if little else ">u2")[:entries]
    if len(table) < entries:
        raise _unreadable(f"a lookup table of {len(table)} entries for {entries}", name)
    # Signed or unsigned, whichever covers more of the values: implicit VR does not say.
    starts = (first, first % 2**16 - 2**16, first % 2**16) if not 0 <= first < 2**15 else (first,)
    low, high = values.min(), values.max()
    first = max(starts, key=lambda start: min(start + entries - 1, high) - max(start, low))
    grey = table[np.clip(np.rint(values - first), 0, entries - 1).astype(np.int64)]
    used = max(8, int(table.max()).bit_length())
    return grey, used if used > bits or used <= bits - 4 else bits
