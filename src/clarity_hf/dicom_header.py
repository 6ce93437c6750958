# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Header of a DICOM image: access to its elements, and refusal of anything but a frontal chest radiograph.

Everything is refused on its header, before a pixel is decoded. Errors name the source, the element and the reason,
never a patient or a UID.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import re
import sys
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np

from .view_names import view_kind

MAX_PIXELS = 64_000_000
"""Larger images are refused before they are decoded (a 43 × 43 cm plate at 50 µm has 74 M pixels, most under 25 M)."""

MODALITIES = ("CR", "DX", "RG")
"""Modalities of radiographs: computed, digital, and scanned film."""

SQUARE_TOLERANCE = 0.02
"""Relative difference allowed between the sides of a pixel."""

INSTALL = "Run pip install 'clarity_hf[dicom]'."

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

# Codes of CID 4010 "DX View" for lateral and oblique views, SNOMED CT then SNOMED RT, for meanings in other languages.
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

_PARSING = threading.RLock()


def is_dicom_dataset(source: Any) -> bool:
    """Whether a source is a `pydicom.Dataset`, without importing pydicom."""
    module = sys.modules.get("pydicom.dataset")
    return module is not None and isinstance(source, module.Dataset)


def pydicom_module(module: str, name: str = "image") -> Any:
    """A module of pydicom, or an ImportError that says how to install it.

    It is imported by name, because remote code would require every package in an import statement.
    """
    try:
        return importlib.import_module(f"pydicom.{module}")
    except ImportError as error:
        raise ImportError(f"`{name}` must be read with pydicom ≥ 3, got no such package. {INSTALL}") from error


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Silence pydicom's warnings, which quote values; the setting is global, so one thread at a time."""
    with _PARSING, pydicom_module("config").disable_value_validation():
        yield


@contextlib.contextmanager
def refusing(what: str, name: str) -> Iterator[None]:
    """Refuse a file as broken for any error of pydicom, without its message, which may quote the patient.

    Raises:
        ValueError: The block raised an error.
    """
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:
        raise unreadable(f"{what} ({type(error).__name__})", name) from None


def unreadable(what: str, name: str) -> ValueError:
    """The error for a file that is not a complete DICOM file."""
    return ValueError(f"`{name}` must be a complete DICOM file, got {what}. Check that the file is complete.")


class DicomHeader:
    """A data set, or an item of a sequence, with the name of its source in errors."""

    def __init__(self, dataset: Any, name: str):
        self.dataset, self.name = dataset, name

    def error(self, what: str) -> ValueError:
        """The error for an image that is refused, which says what it must be and what it is."""
        return ValueError(f"`{self.name}` {what}")

    def value(self, keyword: str) -> Any:
        """An element's value, the first of several; None if it is absent or empty."""
        return next(iter(self._values(keyword)), None)

    def _values(self, keyword: str) -> list[Any]:
        """An element's values, None for an empty or absent one.

        Raises:
            ValueError: It does not parse.
        """
        with refusing(f"a {keyword} that does not parse", self.name):
            with quietly():
                value = self.dataset.get(keyword)
            several = value is not None and not isinstance(value, str | bytes) and hasattr(value, "__len__")
            values = list(value) if several else [value]
        if any(map(is_dicom_dataset, values)):
            raise unreadable(f"a {keyword} that is a sequence", self.name)
        return [None if isinstance(one, str) and not one else one for one in values]

    def text(self, keyword: str) -> str:
        """An element's value as text in upper case, empty if it is absent."""
        value = self.value(keyword)
        return "" if value is None else str(value).strip().strip("\0").upper()

    def number(self, keyword: str) -> float | None:
        """An element's value, the first of several, as a finite number; None if it is absent."""
        return next(iter(self.numbers(keyword)), None)

    def numbers(self, keyword: str) -> list[float | None]:
        """An element's values as finite numbers, None for an empty one.

        Raises:
            ValueError: One is not a number.
        """
        try:
            numbers = [None if value is None else float(value) for value in self._values(keyword)]
        except (TypeError, ValueError):
            numbers = [float("nan")]
        if any(number is not None and not np.isfinite(number) for number in numbers):
            raise unreadable(f"a {keyword} that is not a number", self.name)
        return numbers

    def integer(self, keyword: str, default: int = 0) -> int:
        """An element's value as an integer."""
        number = self.number(keyword)
        return default if number is None else int(number)

    def items(self, keyword: str) -> list[DicomHeader]:
        """Items of a sequence, an empty list if it is absent or empty.

        Raises:
            ValueError: It is not a sequence.
        """
        with refusing(f"a {keyword} that does not parse", self.name), quietly():
            element = self.dataset[keyword] if keyword in self.dataset else None  # noqa: SIM401 (`get` gives the value)
            if element is None or element.is_empty:
                return []
            kind, items = str(element.VR), element.value
        if kind != "SQ":
            raise self.error(f"must have a sequence (SQ) for {keyword}, got one of type {shown(kind)}. Correct it.")
        return [DicomHeader(item, self.name) for item in items]

    def pair(self, keyword: str) -> tuple[float, float] | None:
        """Two positive numbers, vertical first; None if they are absent or zero."""
        with refusing(f"a {keyword} that does not parse", self.name):
            with quietly():
                value = self.dataset.get(keyword)
            numbers = [float(number) for number in value] if hasattr(value, "__len__") and len(value) == 2 else []
        return (numbers[0], numbers[1]) if len(numbers) == 2 and all(0 < n < np.inf for n in numbers) else None

    def spacing(self) -> tuple[float, float] | None:
        """Height and width of a pixel in mm, preferably in the patient's plane; None if unknown."""
        return self.pair("PixelSpacing") or self.pair("ImagerPixelSpacing")


def shown(text: str) -> str:
    """A header value, shortened and sanitised for errors."""
    return re.sub(r"[^\w \-/^]", "?", text)[:16]


def check_header(header: DicomHeader) -> None:
    """Refuse all but a single grey image of acceptable size that is a frontal chest radiograph.

    Raises:
        ValueError: It is refused; the message says why.
    """
    modality = header.text("Modality")
    rows, columns = (header.integer(keyword) for keyword in ("Rows", "Columns"))
    if rows < 1 or columns < 1:
        raise header.error(
            f"must be one image, got DICOM without pixel data (modality {shown(modality) or 'not given'}). "
            "Pass the image, not a report or a directory."
        )
    frames = header.integer("NumberOfFrames", 1)
    if frames > 1:
        raise header.error(f"must be one image, got {frames} frames. Pass them one by one.")
    colour = header.text("PhotometricInterpretation")
    if header.integer("SamplesPerPixel", 1) != 1 or colour not in ("MONOCHROME1", "MONOCHROME2"):
        raise header.error(
            f"must be MONOCHROME1 or MONOCHROME2, got {shown(colour) or 'no PhotometricInterpretation'}: "
            "a radiograph has no colour. Pass the radiograph itself."
        )
    if rows * columns > MAX_PIXELS:
        raise header.error(f"must have at most {MAX_PIXELS} pixels, got {columns}×{rows}. Reduce the image.")
    _check_radiograph(header)
    _check_body_part(header)
    _check_view(header)
    _check_orientation(header)
    _check_pixels(header)


def _check_radiograph(header: DicomHeader) -> None:
    modality, sop_class = header.text("Modality"), header.text("SOPClassUID")
    known = not sop_class or sop_class in _SOP_CLASSES
    if (modality and modality not in MODALITIES) or not known:
        got = f"modality {shown(modality) or 'not given'}" + ("" if known else " and another SOP class")
        raise header.error(
            f"must be a radiograph ({', '.join(MODALITIES)}), got {got}. "
            "If it is one, such as a scanned film, set its Modality."
        )
    if sop_class == _FOR_PROCESSING or header.text("PresentationIntentType") == "FOR PROCESSING":
        raise header.error(
            "must be an image for presentation, got one for processing, which has raw detector values. "
            "Pass the processed image of the same exposure."
        )


def _check_body_part(header: DicomHeader) -> None:
    parts = [("BodyPartExamined", header.text("BodyPartExamined"))]
    for item in header.items("AnatomicRegionSequence"):
        code = item.text("CodeValue"), item.text("CodingSchemeDesignator")
        parts.append(("AnatomicRegionSequence", item.text("CodeMeaning") or shown(code[0])))
        parts.append(("AnatomicRegionSequence", _meaning(*code)))
    for keyword, part in parts:
        words = re.sub(r"[^A-Z]+", " ", part)
        if _OTHER_PARTS.search(words) and not _CHEST.search(words):
            raise header.error(
                f"must show the chest, got {keyword} {shown(part)}. If it does, correct or clear this element."
            )


@functools.lru_cache(maxsize=256)
def _meaning(value: str, scheme: str) -> str:
    """Meaning in upper case of a SNOMED code of either scheme, if pydicom knows it."""
    code, codes = (getattr(pydicom_module("sr.codedict"), name) for name in ("Code", "codes"))
    wanted = code(value, scheme, "")
    known = (getattr(codes.SCT, keyword) for keyword in codes.SCT.dir()) if scheme in ("SCT", "SRT", "SNM3") else ()
    return next((concept.meaning.upper() for concept in known if concept == wanted), "")


def _check_view(header: DicomHeader) -> None:
    views = [(header.text("ViewPosition"), "")]
    items = header.items("ViewCodeSequence")
    views += [(item.text("CodeMeaning"), item.text("CodeValue")) for item in items]
    for meaning, code in views:
        kind = view_kind(meaning)
        if kind == "lateral" or code in _SIDE_CODES:
            kind = "a lateral"
        elif kind or code in _OBLIQUE_CODES:
            kind = "an oblique"
        if kind:
            raise header.error(
                f"must be a frontal image, got {kind} view ({shown(meaning) or shown(code)}). Pass the study's PA or "
                "AP image."
            )


def _check_orientation(header: DicomHeader) -> None:
    """Refuse all orientations but that of reading: the patient's left at the right edge, the feet at the bottom."""
    # PatientOrientation (PS3.3 C.7.6.1.1.1) describes the stored pixels, after a flip or rotation of the field of view
    # (C.8.11.4), which therefore only matters without an orientation.
    with refusing("a PatientOrientation that does not parse", header.name), quietly():
        value = header.dataset.get("PatientOrientation")
        value = [value] if isinstance(value, str) else list(value or ())
        directions = [str(part).strip().upper() for part in value if str(part).strip()]
    source = "PatientOrientation"
    if not directions and (directions := _directions_of_cosines(header)):
        source = "ImageOrientationPatient"
    flipped = header.text("FieldOfViewHorizontalFlip") == "YES"
    turned = header.number("FieldOfViewRotation") or 0
    if not directions:
        if flipped or turned % 360:
            done = "FieldOfViewHorizontalFlip YES" if flipped else f"FieldOfViewRotation {turned:g}"
            raise header.error(f"must declare its PatientOrientation, got {done} without it. Set it.")
        return
    given = shown("/".join(directions).replace("\\", "/"))
    if len(directions) != 2 or not all(re.fullmatch("[LRAPHF]{1,3}", part) for part in directions):
        raise header.error(
            f"must have a PatientOrientation of two directions of L, R, A, P, H and F, got {given}. "
            "Correct or clear this element."
        )
    row, column = directions
    if {row[0], column[0]} & set("AP") or set(row) & set("AP"):
        kind = "a lateral" if {row[0], column[0]} & set("AP") else "an oblique"
        raise header.error(
            f"must be a frontal image, got {kind} view ({source} {given}). Pass the study's PA or AP image."
        )
    if (row[0], column[0]) != ("L", "F"):
        raise header.error(
            "must be stored with the patient's left at the right edge and the feet at the lower one "
            f"({source} L/F), got {given}. Rotate or flip its pixels and set PatientOrientation."
        )


def _directions_of_cosines(header: DicomHeader) -> list[str]:
    """Directions of rows and columns by ImageOrientationPatient (PS3.3 C.7.6.2.1.1); empty if it does not tell.

    Radiographs do not have this element, but converters write it; those that know no direction write that of an axial
    slice, which no radiograph is.
    """
    with refusing("an ImageOrientationPatient that does not parse", header.name):
        with quietly():
            value = header.dataset.get("ImageOrientationPatient")
        cosines = [float(number) for number in value] if hasattr(value, "__len__") and len(value) == 6 else []
    if not np.isfinite(cosines).all() or not cosines or cosines == [1, 0, 0, 0, 1, 0]:
        return []
    directions = []
    for part in (cosines[:3], cosines[3:]):
        axis = int(np.abs(part).argmax())
        directions.append(("RL", "AP", "FH")[axis][part[axis] > 0])
    return directions


def _check_pixels(header: DicomHeader) -> None:
    allocated, stored = (header.integer(keyword) for keyword in ("BitsAllocated", "BitsStored"))
    if allocated not in (8, 16) or not 8 <= stored <= allocated:
        raise header.error(f"must store 8 to 16 bits in 8 or 16, got {stored} in {allocated}. Export it as 16 bits.")
    for keyword in ("PixelAspectRatio", "PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing"):
        height, width = header.pair(keyword) or (1.0, 1.0)
        if abs(height / width - 1) > SQUARE_TOLERANCE:
            raise header.error(
                f"must have square pixels, got sides of {height:g} by {width:g} ({keyword}). Resample the image to "
                "square pixels: boxes are in pixels of the image that is passed."
            )
