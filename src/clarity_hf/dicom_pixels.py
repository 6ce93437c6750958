# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Pixels of a DICOM image whose header has been checked: decoding, and stored values to grey levels.

Grey levels are computed as in DICOM PS3.4 N.2 (modality LUT, VOI, polarity), once for each of the at most 65536 stored
values.
"""

from __future__ import annotations

import logging
import re
import struct
from collections.abc import Iterator
from typing import Any

import numpy as np

from .dicom_header import INSTALL, DicomHeader, pydicom_module, quietly, refusing, shown, unreadable
from .grey_levels import held_range

# In order of preference. GDCM crashes the process on some broken streams: it is used only for JPEG lossless, which no
# other plugin reads, and for streams that pass `_is_orderly`.
_PLUGINS = ("pylibjpeg", "pyjpegls", "pillow", "pydicom", "gdcm")
_JPEG_LOSSLESS = ("1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70")
_RLE, _BIG_ENDIAN = "1.2.840.10008.1.2.5", "1.2.840.10008.1.2.2"

MOST_HIGH_BITS = 0.01
"""Share of pixels with bits above HighBit from which it is doubted."""

logger = logging.getLogger(__name__)

# A marker may have any number of fill bytes before it (T.81 B.1.1.2); 0xFF 0x00 and restarts belong to the scan.
_FILL = re.compile(rb"\xff*(?=\xff)")
_MARKER = re.compile(rb"(?<!\xff)\xff++([^\x00\xd0-\xd7])", re.DOTALL)


def transfer_syntax(header: DicomHeader) -> Any:
    """The declared transfer syntax, else the uncompressed one of the data set's encoding."""
    uid = pydicom_module("uid")
    declared = DicomHeader(getattr(header.dataset, "file_meta", None) or {}, header.name).text("TransferSyntaxUID")
    if declared:
        return uid.UID(declared)
    implicit, little = header.dataset.original_encoding
    if little is False:
        return uid.ExplicitVRBigEndian
    return uid.ImplicitVRLittleEndian if implicit else uid.ExplicitVRLittleEndian


def decode(header: DicomHeader, pixel_data: Any) -> np.ndarray:
    """Stored values `(H, W)`, uint8, uint16, int8 or int16, from the elements that hold the pixels.

    Raises:
        ImportError: No decoder of this compression is installed.
        ValueError: The pixels cannot be decoded, or are not those that the header describes.
    """
    name = header.name
    if "PixelData" not in pixel_data:
        raise ValueError(f"`{name}` must contain its pixels, got DICOM without pixel data. Pass the complete file.")
    syntax = transfer_syntax(header)
    try:
        decoder = pydicom_module("pixels").get_decoder(syntax)
    except NotImplementedError:
        raise ValueError(
            f"`{name}` must be in a transfer syntax of still images, got {_syntax_name(syntax)}. "
            "Store it as Explicit VR Little Endian or JPEG 2000."
        ) from None
    stored = header.integer("BitsStored")
    high = header.integer("HighBit", stored - 1) + 1
    options: dict[str, Any] = {}
    held = header.integer("BitsAllocated")
    with refusing("a group of the image that does not parse", name), quietly():
        image = header.dataset[0x00280000:0x00290000]
        image["PixelData"] = pixel_data.get_item("PixelData")
    if decoder.is_encapsulated:
        options["decoding_plugin"] = _plugin(decoder, syntax, stored, name)
        with refusing("pixel data without fragments", name):
            stream = pydicom_module("encaps").get_frame(image.PixelData, 0, number_of_frames=1)
        _check_stream(stream, header, syntax)
        held = held if syntax == _RLE else _claimed(stream)[3]
    # pydicom assumes that the stored bits are the lowest ones; HighBit says where they are.
    shift = max(high - stored, 0) if high <= held else 0
    options["bits_stored"] = stored + shift
    unsigned = not header.integer("PixelRepresentation")
    if unsigned and (syntax == _RLE or options.get("decoding_plugin") == "gdcm"):
        options["bits_stored"] = max(stored + shift, held)  # these would drop higher bits without a word
    with refusing("pixel data that do not decode", name):
        values, _ = decoder.as_array(image, index=0, raw=True, transfer_syntax_uid=syntax, **options)
    if high < held:
        content = image.PixelData  # of which the decoder has dropped the high bits
        order = ">u2" if syntax == _BIG_ENDIAN else "<u2"
        raw = values.ravel() if decoder.is_encapsulated else np.frombuffer(content, order, count=len(content) // 2)
        _doubt_high_bits(raw, header, high)
    if unsigned and decoder.is_encapsulated:
        values = values & (2 ** (stored + shift) - 1)
    return values >> shift if shift else values


def _doubt_high_bits(values: np.ndarray, header: DicomHeader, high: int) -> None:
    """Log that unsigned pixels have bits above the stored ones, which belong to a retired overlay or are an error."""
    overlays = any(tag >> 24 == 0x60 and tag & 0xFFFF == 0x0102 for tag in header.dataset.keys())  # noqa: SIM118
    if header.integer("BitsAllocated") != 16 or header.integer("PixelRepresentation") or overlays:
        return
    some = values[::8]
    share = (some >> high > 0).mean() if some.size else 0.0
    if share > MOST_HIGH_BITS:
        logger.warning(
            "`%s`: %.0f %% of the pixels have bits above HighBit, which are not read. If BitsStored and HighBit are "
            "too low, correct them.",
            header.name,
            100 * share,
        )


def _plugin(decoder: Any, syntax: Any, stored: int, name: str) -> str:
    """The installed decoder to use."""
    available = [plugin for plugin in _PLUGINS if plugin in decoder.available_plugins]
    available = [plugin for plugin in available if plugin != "gdcm" or syntax in _JPEG_LOSSLESS]
    wanted, command = " or ".join(decoder.missing_dependencies), INSTALL
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


def _check_stream(stream: bytes, header: DicomHeader, syntax: Any) -> None:
    """Refuse a compressed frame larger than the header says, and one that ends early, which some decoders pad."""
    name = header.name
    rows, columns = (header.integer(keyword) for keyword in ("Rows", "Columns"))
    if syntax == _RLE:  # no marker; at worst two bytes for each
        if len(stream) > 4 * rows * columns + 1024:
            raise unreadable("more RLE data than its rows and columns hold", name)
        return
    if not stream.rstrip(b"\x00\xff").endswith(b"\xff\xd9"):
        raise unreadable("compressed pixel data without an end", name)
    claimed = _claimed(stream)[:3]
    if claimed != (rows, columns, 1):
        shown = claimed if any(claimed) else "of no known kind"
        raise unreadable(f"compressed pixel data {shown} for {(rows, columns, 1)}", name)
    if syntax in _JPEG_LOSSLESS and not _is_orderly(stream, header.integer("BitsAllocated")):
        raise unreadable("a JPEG lossless stream out of order", name)


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


def to_grey(stored: np.ndarray, header: DicomHeader) -> tuple[np.ndarray, bool]:
    """Stored values `(H, W)` → image `(H, W)` in [0, 255], and whether low values were bright."""
    bits = header.integer("BitsStored")
    lowest = -(2 ** (bits - 1)) if stored.dtype.kind == "i" else 0
    levels = np.arange(lowest, lowest + 2**bits)
    index = stored.astype(np.intp)  # once, because numpy converts every index to this type
    index -= lowest
    np.clip(index, 0, len(levels) - 1, out=index)  # outside the declared bits only in invalid files
    padding = _padding(levels, header)
    modality = _apply_modality(levels, header)
    shares = _apply_voi(modality, header)
    if shares is None:
        counts = np.bincount(index.ravel(), minlength=len(levels))
        shares = _full_range(modality, np.where(padding, 0, counts))
    # Many images have both, which invert once. MONOCHROME1 with IDENTITY is inverted too: some archives have a wrong
    # shape, and MONOCHROME1 applies after the VOI.
    inverted = (
        header.text("PhotometricInterpretation") == "MONOCHROME1"
        or header.text("PresentationLUTShape") == "INVERSE"
    )
    table = 255 * (1 - shares if inverted else shares)
    table[padding] = 0
    table = table.round().astype(np.uint8) if bits == 8 else table.astype(np.float32)
    return np.take(table, index, mode="clip"), inverted


def _padding(levels: np.ndarray, header: DicomHeader) -> np.ndarray:
    """Which stored values are declared as padding."""
    first = header.number("PixelPaddingValue")
    if first is None:
        return np.zeros(len(levels), dtype=bool)
    last = header.number("PixelPaddingRangeLimit")
    ends = (first, first if last is None else last)
    # In implicit VR its sign may differ from that of the pixels.
    wrap = {True: (2**15, np.inf, -(2**16)), False: (-np.inf, 0, 2**16)}[bool(levels[0] < 0)]
    ends = tuple(value + wrap[2] if wrap[0] <= value < wrap[1] else value for value in ends)  # type: ignore[assignment]
    return (levels >= min(ends)) & (levels <= max(ends))


def _apply_modality(levels: np.ndarray, header: DicomHeader) -> np.ndarray:
    item = _first_table(header, "ModalityLUTSequence")
    if item is not None:
        return _apply_table(levels, item, header)[0].astype(np.float64)
    slope, intercept = (header.number(keyword) for keyword in ("RescaleSlope", "RescaleIntercept"))
    if (slope is None) != (intercept is None) and (slope not in (None, 1) or intercept not in (None, 0)):
        logger.warning("`%s`: RescaleSlope and RescaleIntercept are not both there; neither is used.", header.name)
    return levels.astype(np.float64) if slope is None or intercept is None else levels * slope + intercept


def _apply_voi(values: np.ndarray, header: DicomHeader) -> np.ndarray | None:
    """Modality values → [0, 1] by the first VOI table, else the first valid window; `None` without either."""
    item = _first_table(header, "VOILUTSequence")
    if item is not None:
        grey, bits = _apply_table(values, item, header)
        return grey / (2**bits - 1)
    function = header.text("VOILUTFunction") or "LINEAR"
    # PS3.3 C.11.2.1.2 and C.11.2.1.3. A width of 0 means no window.
    windows = zip(header.numbers("WindowCenter"), header.numbers("WindowWidth"), strict=False)
    least = 1.0 if function == "LINEAR" else float(np.finfo(float).tiny)
    valid = [(c, w) for c, w in windows if c is not None and w is not None and w >= least]
    if not valid:
        return None
    center, width = valid[0]
    if function not in ("LINEAR", "LINEAR_EXACT", "SIGMOID"):
        raise ValueError(
            f"`{header.name}` must have the VOI LUT function LINEAR, LINEAR_EXACT or SIGMOID, got {shown(function)}. "
            "Export it with a window of one of these."
        )
    # A separate header: pydicom would scale to the range of the rescaled values, which a negative slope reverses.
    window = pydicom_module("dataset").Dataset()
    window.PhotometricInterpretation, window.PixelRepresentation, window.BitsStored = "MONOCHROME2", 0, 16
    window.VOILUTFunction = function
    # As doubles, as a broken file may declare them as text.
    window.add_new("WindowCenter", "FD", center)
    window.add_new("WindowWidth", "FD", width)
    with np.errstate(over="ignore"):  # the sigmoid overflows far below the window
        return pydicom_module("pixels").apply_windowing(values, window) / (2**16 - 1)


def _full_range(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Values → [0, 1] by the range of those that occur, without outliers."""
    held, place = np.unique(values[counts > 0], return_inverse=True)
    low, high = held_range(held, np.bincount(place, counts[counts > 0])) if len(held) else (0.0, 0.0)
    return np.clip((values - low) / (high - low), 0, 1) if high > low else np.zeros(len(values))


def _first_table(header: DicomHeader, keyword: str) -> Any:
    items = [item.dataset for item in header.items(keyword)]
    return items[0] if items and "LUTDescriptor" in items[0] and "LUTData" in items[0] else None


def _apply_table(values: np.ndarray, item: Any, header: DicomHeader) -> tuple[np.ndarray, int]:
    """Values through the lookup table of a sequence item, clamped to its ends, and the bits of its entries."""
    # The bits are the declared ones, unless the table needs more or uses less than a sixteenth of their range.
    # pydicom's functions index tables of 8-bit entries by 8 bits, even with 4096 entries, and know no 10 to 14 bits.
    with refusing("a lookup table that does not parse", header.name):
        with quietly():
            descriptor, data = item.LUTDescriptor, item.LUTData
        entries, first, bits = (int(number) for number in descriptor)
        entries = entries % 2**16 or 2**16  # unsigned whatever the pixels are (PS3.3 C.11.1.1)
        little = header.dataset.original_encoding[1] is not False
        if not isinstance(data, bytes):  # 16-bit words
            data = np.atleast_1d(np.asarray(data)).astype("<u2" if little else ">u2").tobytes()
        packed = bits <= 8 and len(data) < 2 * entries  # two entries a word, as in the standard; not all files
        table = np.frombuffer(data, "u1" if packed else "<u2" if little else ">u2")[:entries]
    if len(table) < entries:
        raise unreadable(f"a lookup table of {len(table)} entries for {entries}", header.name)
    # Signed or unsigned, whichever covers more of the values: implicit VR does not say.
    starts = (first, first % 2**16 - 2**16, first % 2**16) if not 0 <= first < 2**15 else (first,)
    low, high = values.min(), values.max()
    first = max(starts, key=lambda start: min(start + entries - 1, high) - max(start, low))
    grey = table[np.clip(np.rint(values - first), 0, entries - 1).astype(np.int64)]
    used = max(8, int(table.max()).bit_length())
    return grey, used if used > bits or used <= bits - 4 else bits
