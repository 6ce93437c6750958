# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""An image has the same grey levels however its pixels are stored, and broken pixel data are refused."""

import contextlib
import importlib.util
import io
import itertools
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clarity_hf.dicom_reading import read_dicom
from clarity_hf.image_reading import read_image

pydicom = pytest.importorskip("pydicom", minversion="3.0")

from pydicom import uid  # noqa: E402
from pydicom.dataset import Dataset  # noqa: E402
from pydicom.sequence import Sequence  # noqa: E402

_spec = importlib.util.spec_from_file_location("dicom_files", Path(__file__).with_name("dicom_files.py"))
files = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(files)
truth, with_pixels, plain, table = files.truth, files.with_pixels, files.plain, files.table
written, compressed, refusal, stored_high = files.written, files.compressed, files.refusal, files.stored_high
jpeg_lossless, by_dcmtk = files.jpeg_lossless, files.by_dcmtk

POLARITIES = [("MONOCHROME1", None), ("MONOCHROME1", "IDENTITY"), ("MONOCHROME1", "INVERSE")]
POLARITIES += [("MONOCHROME2", None), ("MONOCHROME2", "IDENTITY"), ("MONOCHROME2", "INVERSE")]


@pytest.mark.parametrize(("photometric", "shape"), POLARITIES)
@pytest.mark.parametrize("voi", ["none", "window", "exact window", "table", "both"])
def test_every_way_of_storing_gives_the_same_image(truth, photometric, shape, voi):
    """Within 1.5 grey levels of 255 for 8 bits, .1 for 12 and .01 for 16: half a step of what is stored."""
    inverted = photometric == "MONOCHROME1" or shape == "INVERSE"
    wanted = 1 - truth if inverted else truth
    for bits, signed, (slope, intercept) in itertools.product(
        (8, 12, 16), (0, 1), ((None, None), (1, -1000), (-1, 500), (0.25, 7.5))
    ):
        size = 2**bits
        lowest = -size // 2 if signed else 0
        elements = {"PhotometricInterpretation": photometric, "PresentationLUTShape": shape}
        elements |= {"PixelRepresentation": signed, "RescaleSlope": slope, "RescaleIntercept": intercept}
        elements |= {"BitsAllocated": 8 if bits == 8 else 16, "BitsStored": bits, "HighBit": bits - 1}
        a, b = (1, 0) if slope is None else (slope, intercept)
        shares = wanted if a > 0 else 1 - wanted  # a negative slope turns the stored values round
        if voi == "none":
            stored = lowest + shares * (size - 1)
        elif "window" in voi:  # an image that uses .7 of the range, the rest shows nothing
            start, stop = lowest + 0.1 * size, lowest + 0.8 * size
            stored = start + shares * (stop - start)
            centre, width = a * (start + stop) / 2 + b, abs(a) * (stop - start)
            exact = voi == "exact window"
            elements |= {"VOILUTFunction": "LINEAR_EXACT" if exact else None}
            elements |= {"WindowCenter": [str(centre + (0 if exact else 0.5))[:16], "7"]}
            elements |= {"WindowWidth": [str(width + (0 if exact else 1))[:16], "9"]}
        else:  # a table that squares, over all values, so the values are roots; a is then 1 or −1
            if a == 0.25:
                continue
            stored = lowest + np.rint((np.sqrt(wanted) if a > 0 else 1 - np.sqrt(wanted)) * (size - 1))
            first = int(min(a * lowest + b, a * (lowest + size - 1) + b))
            if first < -(2**15):
                continue  # no descriptor holds it
            elements |= {"VOILUTSequence": table(np.rint(np.linspace(0, 1, size) ** 2 * 65535), first)}
            elements |= {"WindowCenter": 1, "WindowWidth": 2} if voi == "both" else {}  # the table goes first
        image = read_dicom(with_pixels(np.rint(stored).astype(np.int64), **elements))
        assert image.inverted == inverted
        assert image.pixels.dtype == (np.uint8 if bits == 8 else np.float32)
        tolerance = {8: 1.5, 12: 0.1, 16: 0.01}[bits] * (1 if "table" not in voi and voi != "both" else 1.5)
        np.testing.assert_allclose(image.pixels, 255 * truth, atol=tolerance, err_msg=str((bits, signed, slope)))


def test_a_window_is_the_standards_own():
    """PS3.3 C.11.2.1.2.1: c = 2048, w = 4096 maps 0 to 0 and 4095 to full; c = 100, w = 100 is a step from 49.5 on."""
    levels = np.arange(4096).reshape(64, 64)
    whole = read_dicom(with_pixels(levels, WindowCenter=2048, WindowWidth=4096)).pixels.ravel()
    np.testing.assert_allclose(whole, np.arange(4096) / 4095 * 255, atol=1e-3)
    narrow = read_dicom(with_pixels(levels, WindowCenter=100, WindowWidth=100)).pixels.ravel()
    np.testing.assert_allclose(narrow[[0, 50, 100, 149, 4095]], [0, 0, 255 * (0.5 / 99 + 0.5), 255, 255], atol=1e-3)


def test_a_sigmoid_is_the_standards_own():
    levels = np.arange(4096).reshape(64, 64)
    read = read_dicom(with_pixels(levels, WindowCenter=2000, WindowWidth=500, VOILUTFunction="SIGMOID")).pixels
    expected = 255 / (1 + np.exp(-4 * (levels - 2000.0) / 500))
    np.testing.assert_allclose(read, expected, atol=0.01)


@pytest.mark.parametrize("width", [0, -5, ""])
def test_a_window_without_width_is_none(truth, width):
    read = read_dicom(plain(truth, WindowCenter=5, WindowWidth=width)).pixels
    np.testing.assert_allclose(read, 255 * truth, atol=0.1)


def test_an_image_without_window_spans_what_it_holds(truth):
    dim = with_pixels(np.rint(300 + truth * 700).astype(int), BitsStored=16, HighBit=15)
    np.testing.assert_allclose(read_dicom(dim).pixels, 255 * truth, atol=0.3)


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("signed", [0, 1])
@pytest.mark.parametrize("strays", [[65535], [0], [65535, 0], [65535] * 60])
def test_stray_pixels_do_not_count_for_the_range(truth, photometric, signed, strays):
    shares = truth if photometric == "MONOCHROME2" else 1 - truth
    stored = np.rint(8000 + shares * 4000).astype(int)
    stored.flat[: len(strays)] = strays
    stored -= 32768 if signed else 0
    depth = {"BitsStored": 16, "HighBit": 15, "PixelRepresentation": signed, "PhotometricInterpretation": photometric}
    read = read_dicom(with_pixels(stored, **depth)).pixels.ravel()[len(strays) :]
    kept = truth.ravel()[len(strays) :]
    np.testing.assert_allclose(read, 255 * (kept - kept.min()) / np.ptp(kept), atol=0.1)


@pytest.mark.parametrize("function", ["LINEAR_EXACT", "SIGMOID"])
def test_a_window_narrower_than_1_is_one_but_where_it_is_linear(truth, function):
    """PS3.3 C.11.2.1.3: above 0 is allowed there. The image's values are 0 to 0.4095."""
    image = plain(truth, RescaleSlope=0.0001, RescaleIntercept=0, WindowCenter=0.2, WindowWidth=0.25)
    image.VOILUTFunction = function
    values = np.rint(truth * 4095) / 10_000
    linear = ((values - 0.2) / 0.25 + 0.5).clip(0, 1)
    expected = linear if function == "LINEAR_EXACT" else 1 / (1 + np.exp(-4 * (values - 0.2) / 0.25))
    np.testing.assert_allclose(read_dicom(image).pixels, 255 * expected, atol=0.01)
    image.VOILUTFunction = "LINEAR"  # where the standard asks for 1 or more: none
    np.testing.assert_allclose(read_dicom(image).pixels, 255 * truth, atol=0.1)


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("limit", [None, 30])
def test_padding_is_black_and_does_not_count(truth, photometric, limit):
    shares = truth if photometric == "MONOCHROME2" else 1 - truth
    stored = np.rint(1000 + shares * 3000).astype(int)
    stored[:, :10] = 20
    image = with_pixels(stored, PhotometricInterpretation=photometric, PixelRepresentation=0)
    image.add_new("PixelPaddingValue", "US", 20 if limit is None else 10)
    if limit is not None:
        image.add_new("PixelPaddingRangeLimit", "US", limit)
    read = read_dicom(image).pixels
    assert not read[:, :10].any()
    kept = shares[:, 10:]
    expected = (kept - kept.min()) / (kept.max() - kept.min())
    np.testing.assert_allclose(
        read[:, 10:], 255 * (expected if photometric == "MONOCHROME2" else 1 - expected), atol=0.2
    )


def test_negative_padding_may_be_declared_unsigned(truth):
    stored = np.rint(truth * 3000).astype(int)
    stored[0] = -2000
    image = with_pixels(stored, PixelRepresentation=1, BitsStored=16, HighBit=15)
    image.add_new("PixelPaddingValue", "US", 65536 - 2000)
    read = read_dicom(image).pixels
    assert not read[0].any()
    np.testing.assert_allclose(read[1:], 255 * truth[1:], atol=0.2)


def test_a_table_of_8_bit_entries_may_be_long(truth):
    """4096 entries of 8 bits, which an index of 8 bits cannot reach."""
    image = plain(truth, VOILUTSequence=table(np.arange(4096) // 16, 0, bits=8))
    np.testing.assert_allclose(read_dicom(image).pixels, 255 * truth, atol=1.1)


def test_packed_tables_are_unpacked(truth):
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [4096, 0, 8])
    item.add_new("LUTData", "OW", (np.arange(4096) // 16).astype("u1").tobytes())
    image = plain(truth, VOILUTSequence=Sequence([item]))
    np.testing.assert_allclose(read_dicom(image).pixels, 255 * truth, atol=1.1)


@pytest.mark.parametrize(
    ("declared", "high", "brightest"),
    [
        (12, 4095, 1),
        (12, 2000, 2000 / 4095),
        (12, 300, 300 / 4095),
        (16, 40_000, 40_000 / 65_535),
        (16, 16_383, 16_383 / 65_535),
        (16, 4095, 1),  # under a sixteenth: the container's bits were declared
        (12, 16_383, 1),  # more than declared
    ],
)
def test_a_table_counts_by_the_bits_it_declares(truth, declared, high, brightest):
    entries = np.rint(np.linspace(0, 1, 4096) * high).astype(int)
    read = read_dicom(plain(truth, VOILUTSequence=table(entries, 0, bits=declared))).pixels
    np.testing.assert_allclose(read, 255 * brightest * truth, atol=0.5)


@pytest.mark.parametrize("syntax", ["ImplicitVRLittleEndian", "ExplicitVRLittleEndian"])
@pytest.mark.parametrize("keyword", ["ModalityLUTSequence", "VOILUTSequence"])
@pytest.mark.parametrize(
    ("first", "entries", "signed"),
    [
        (first, entries, signed)
        for first in (-32_768, -1000, 0, 1000, 25_000)
        for entries in (1000, 32_767, 32_768, 40_000, 65_536)
        for signed in (0, 1)
        if first >= 0 or signed  # unsigned pixels have no value below 0, nor such a descriptor
    ],
)
def test_a_table_of_any_length_and_start_is_read_whatever_the_pixels_sign(
    truth, syntax, keyword, signed, entries, first
):
    """The image's values run over the table; the count has no sign (PS3.3 C.11.1.1), in implicit VR neither of
    both.
    """
    lowest, highest = (-32_768, 32_767) if signed else (0, 65_535)
    start, stop = max(first, lowest), min(first + entries - 1, highest)
    stored = np.rint(start + truth * (stop - start)).astype(int)
    item = Dataset()
    item.add_new("LUTDescriptor", "SS" if first < 0 else "US", [entries % 2**16, first, 16])
    item.add_new("LUTData", "OW", np.linspace(0, 65_535, entries).round().astype("<u2").tobytes())
    depth = {"BitsStored": 16, "HighBit": 15, "PixelRepresentation": signed}
    image = with_pixels(stored, **depth, **{keyword: Sequence([item])})
    image.file_meta.TransferSyntaxUID = getattr(uid, syntax)
    scale = 255 / (entries - 1)
    expected = (stored - first) * scale
    if keyword == "ModalityLUTSequence":  # no window: what is held spans all
        expected = 255 * (expected - expected.min()) / (expected.max() - expected.min())
    np.testing.assert_allclose(read_dicom(written(image)).pixels, expected, atol=0.6)


@pytest.mark.parametrize("order", ["ExplicitVRLittleEndian", "ImplicitVRLittleEndian", "ExplicitVRBigEndian"])
@pytest.mark.parametrize("vr", ["OW", "OB", "US", "SS"])
def test_table_data_of_any_type_are_read(truth, order, vr):
    entries = np.rint(np.linspace(0, 1, 4096) ** 2 * 65_535).astype(int)
    big = order == "ExplicitVRBigEndian"
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [4096, 0, 16])
    if vr in ("OW", "OB"):
        item.add_new("LUTData", vr, entries.astype(">u2" if big else "<u2").tobytes())
    else:
        item.add_new("LUTData", vr, (entries if vr == "US" else entries.astype("u2").astype("i2")).tolist())
    image = plain(np.sqrt(truth), VOILUTSequence=Sequence([item]))
    image.file_meta.TransferSyntaxUID = getattr(uid, order)
    if big:
        image.PixelData = np.frombuffer(image.PixelData, "<u2").astype(">u2").tobytes()
    np.testing.assert_allclose(read_dicom(written(image)).pixels, 255 * truth, atol=0.3)


def test_a_modality_table_comes_before_the_window(truth):
    image = plain(np.sqrt(truth), ModalityLUTSequence=table(np.rint(np.linspace(0, 1, 4096) ** 2 * 1000), 0, bits=10))
    image.WindowCenter, image.WindowWidth = 500.5, 1001
    np.testing.assert_allclose(read_dicom(image).pixels, 255 * truth, atol=0.3)


def test_high_bits_and_overlays_in_the_low_ones_are_distinguished(truth):
    stored = (np.rint(truth * 4095).astype(int) << 4) | 9
    np.testing.assert_allclose(read_dicom(with_pixels(stored, HighBit=15)).pixels, 255 * truth, atol=0.1)


@pytest.mark.parametrize(
    ("syntax", "signed"),
    [
        (syntax, signed)
        for syntax in ("ExplicitVRLittleEndian", "RLELossless", "JPEG2000Lossless", "JPEGLSLossless")
        for signed in (0, 1)
        if not (syntax == "JPEGLSLossless" and signed)  # its encoder takes no signed values
    ],
)
def test_the_high_bit_counts_in_every_syntax(truth, signed, syntax):
    stored, elements = stored_high(truth, signed)
    image = with_pixels(stored, **elements)
    if syntax != "ExplicitVRLittleEndian":
        # The encoders take all 16 bits for the image's.
        image.BitsStored, image.HighBit = 16, 15
        encoder = pydicom.pixels.get_encoder(getattr(uid, syntax))
        if not encoder.is_available:
            pytest.skip("no encoder here")
        image.compress(getattr(uid, syntax), generate_instance_uid=False)
        image.BitsStored, image.HighBit = 12, 15
    np.testing.assert_allclose(read_dicom(written(image)).pixels, 255 * truth, atol=0.1)


def test_the_first_valid_window_counts(truth):
    two = plain(truth, WindowCenter=["0", "2000"], WindowWidth=["0", "1000"])
    one = plain(truth, WindowCenter="2000", WindowWidth="1000")
    np.testing.assert_array_equal(read_dicom(two).pixels, read_dicom(one).pixels)
    assert (read_dicom(one).pixels == 255).mean() > (read_dicom(plain(truth)).pixels == 255).mean()


@pytest.mark.parametrize("element", [{"RescaleSlope": 2}, {"RescaleIntercept": -1024}])
def test_half_a_rescale_is_left_out_and_said(truth, caplog, element):
    window = {"WindowCenter": 2000, "WindowWidth": 1000}
    halved, whole = (read_dicom(plain(truth, **window, **extra)).pixels for extra in (element, {}))
    np.testing.assert_array_equal(halved, whole)
    assert caplog.text.count("RescaleSlope and RescaleIntercept are not both there; neither is used") == 1
    caplog.clear()
    read_dicom(plain(truth, RescaleSlope=1))
    read_dicom(plain(truth, RescaleIntercept=0))
    assert not caplog.text


def test_the_high_bit_counts_in_jpeg_lossless(truth, tmp_path):
    path = jpeg_lossless((np.rint(truth * 4095) * 16 + 9) / 65_535, 16, tmp_path)
    image = pydicom.dcmread(path)
    image.BitsStored, image.HighBit = 12, 15
    np.testing.assert_allclose(read_dicom(written(image)).pixels, 255 * truth, atol=0.1)


def test_bits_above_the_high_one_are_none_of_the_image(truth):
    stored = np.rint(truth * 4095).astype(int) | (np.arange(truth.size).reshape(truth.shape) % 7 << 12)
    image = with_pixels(stored)
    np.testing.assert_allclose(read_dicom(image).pixels, 255 * truth, atol=0.1)
    image.BitsStored, image.HighBit = 16, 15
    image.compress(uid.RLELossless, generate_instance_uid=False)
    image.BitsStored, image.HighBit = 12, 11
    np.testing.assert_allclose(read_dicom(image).pixels, 255 * truth, atol=0.1)


@pytest.mark.parametrize(("shift", "declared", "doubted"), [(0, False, False), (1, False, True), (1, True, False)])
def test_bits_above_the_high_one_are_doubted_without_an_overlay(truth, caplog, shift, declared, doubted):
    image = with_pixels(np.rint(truth * 4095).astype(int) << shift)
    if declared:
        image.add_new(0x60000102, "US", 12)  # OverlayBitPosition
    read_dicom(image)
    assert ("of the pixels have bits above HighBit" in caplog.text) == doubted


@pytest.mark.parametrize("stored", [12, 14])
@pytest.mark.parametrize("syntax", ["RLELossless", "JPEGLSLossless", "JPEG2000Lossless", "JPEGLosslessSV1"])
def test_more_bits_in_a_stream_than_are_stored_are_doubted(truth, tmp_path, caplog, syntax, stored):
    if syntax == "JPEGLosslessSV1":
        image = pydicom.dcmread(jpeg_lossless(truth, 14, tmp_path))
    else:
        image = plain(truth, bits=14)
        if not pydicom.pixels.get_encoder(getattr(uid, syntax)).is_available:
            pytest.skip("no encoder here")
        image.compress(getattr(uid, syntax), generate_instance_uid=False)
    image.BitsStored, image.HighBit = stored, stored - 1
    pixels = read_dicom(written(image)).pixels
    assert ("of the pixels have bits above HighBit" in caplog.text) == (stored == 12)
    expected = np.rint(truth * 16383) % 2**stored / (2**stored - 1)  # as of uncompressed values, they are not read
    np.testing.assert_allclose(pixels, 255 * expected, atol=0.1)


@pytest.mark.parametrize("syntax", ["RLELossless", "JPEGLSLossless", "JPEG2000Lossless", "JPEGLosslessSV1"])
def test_an_overlay_in_the_high_bits_of_a_stream_is_not_read(truth, tmp_path, caplog, syntax):
    marks = np.arange(truth.size).reshape(truth.shape) % 2 << 15
    stored = np.rint(truth * 4095).astype(int) | marks
    if syntax == "JPEGLosslessSV1":
        image = pydicom.dcmread(jpeg_lossless(stored / 65_535, 16, tmp_path))
    else:
        image = with_pixels(stored, BitsStored=16, HighBit=15)
        if not pydicom.pixels.get_encoder(getattr(uid, syntax)).is_available:
            pytest.skip("no encoder here")
        image.compress(getattr(uid, syntax), generate_instance_uid=False)
    image.BitsStored, image.HighBit = 12, 11
    image.add_new(0x60000102, "US", 16)  # OverlayBitPosition
    np.testing.assert_allclose(read_dicom(written(image)).pixels, 255 * truth, atol=0.1)
    assert "bits above HighBit" not in caplog.text


@pytest.mark.parametrize(("bits", "high"), [(12, 7), (12, 0), (16, 16), (8, 15), (8, 11)])
def test_a_high_bit_that_cannot_be_changes_nothing(truth, bits, high):
    image = plain(truth, bits=bits)
    image.compress(uid.RLELossless, generate_instance_uid=False)
    image.HighBit = high
    np.testing.assert_allclose(read_dicom(written(image)).pixels, 255 * truth, atol=0.6 if bits == 8 else 0.1)


@pytest.mark.parametrize("bits", [8, 12, 16])
@pytest.mark.parametrize(
    ("syntax", "signed"),  # the encoder of JPEG-LS takes no signed values
    [("RLELossless", 0), ("RLELossless", 1), ("JPEGLSLossless", 0), ("JPEG2000Lossless", 0), ("JPEG2000Lossless", 1)],
)
def test_lossless_compression_changes_nothing(truth, bits, signed, syntax):
    image = plain(truth, bits=bits, PhotometricInterpretation="MONOCHROME1")
    if signed:
        stored = np.rint(truth * (2**bits - 1)).astype(int) - 2 ** (bits - 1)
        image.PixelRepresentation = 1
        image.PixelData = stored.astype("<i1" if bits == 8 else "<i2").tobytes()
    reference = read_dicom(image).pixels
    encoder = pydicom.pixels.get_encoder(getattr(uid, syntax))
    if not encoder.is_available:
        pytest.skip("no encoder here")
    image.compress(getattr(uid, syntax), generate_instance_uid=False)
    np.testing.assert_array_equal(read_dicom(image).pixels, reference)
    np.testing.assert_array_equal(read_image(written(image)), reference)


def test_jpeg_baseline_is_read(truth):
    buffer = io.BytesIO()
    Image.fromarray(np.rint(truth * 255).astype(np.uint8)).save(buffer, "JPEG", quality=95)
    image = compressed(plain(truth, bits=8), uid.JPEGBaseline8Bit, buffer.getvalue())
    difference = np.abs(read_image(written(image)).astype(float) - 255 * truth)
    assert difference.mean() < 3


@pytest.mark.parametrize("syntax", ["JPEGLosslessProcess14", "JPEGLosslessProcess14_1"])
@pytest.mark.parametrize("bits", [8, 12, 16])
def test_jpeg_lossless_changes_nothing(truth, tmp_path, syntax, bits):
    image = read_dicom(jpeg_lossless(truth, bits, tmp_path, syntax))
    assert uid.UID(image.transfer_syntax_uid) in (uid.JPEGLossless, uid.JPEGLosslessSV1)
    np.testing.assert_array_equal(image.pixels, read_dicom(plain(truth, bits=bits)).pixels)


@pytest.mark.parametrize("rows", range(48, 60))
@pytest.mark.parametrize("option", ["+e1", "+el"])
def test_every_lossless_jpeg_of_dcmtk_is_read(truth, tmp_path, rows, option):
    """dcmtk fills streams of odd length by an 0xFF before the last marker."""
    image = plain(truth[:rows])
    reference = read_dicom(image).pixels
    np.testing.assert_array_equal(read_dicom(by_dcmtk(image, tmp_path, "dcmcjpeg", option)).pixels, reference)


@pytest.mark.parametrize(
    ("program", "options", "high"),
    [("dcmcrle", [], 11), ("dcmcjpls", ["+el"], 11), ("dcmcjpeg", ["+e1"], 11), ("dcmcrle", [], 15)],
)
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_what_dcmtk_compresses_is_what_it_was(truth, tmp_path, program, options, high, photometric):
    stored = np.rint(truth * 4095).astype(int) << (high - 11)
    image = with_pixels(stored, HighBit=high, PhotometricInterpretation=photometric)
    reference = read_dicom(image).pixels
    np.testing.assert_array_equal(read_dicom(by_dcmtk(image, tmp_path, program, *options)).pixels, reference)


@pytest.mark.parametrize("fill", [1, 2, 7, 1000])
def test_fill_bytes_before_any_marker_are_skipped(truth, tmp_path, fill):
    """T.81 B.1.1.2: any marker may have any number of bytes 0xFF before it."""
    image = pydicom.dcmread(jpeg_lossless(truth, 12, tmp_path))
    reference = read_dicom(written(image)).pixels
    stream = pydicom.encaps.get_frame(image.PixelData, 0, number_of_frames=1).rstrip(b"\0")
    for marker in (b"\xff\xc3\x00\x0b", b"\xff\xc4", b"\xff\xda\x00\x08", b"\xff\xd9"):
        place = stream.rindex(marker)
        filled = stream[:place] + b"\xff" * fill + stream[place:]
        compressed(image, uid.JPEGLosslessSV1, filled + b"\0" * (len(filled) % 2))
        np.testing.assert_array_equal(read_dicom(written(image)).pixels, reference)


def test_a_run_of_fill_bytes_takes_no_time(truth, tmp_path):
    image = pydicom.dcmread(jpeg_lossless(truth, 12, tmp_path))
    stream = pydicom.encaps.get_frame(image.PixelData, 0, number_of_frames=1)
    for place in (stream.index(b"\xff\xc4"), len(stream) - 20):
        compressed(image, uid.JPEGLosslessSV1, stream[:place] + b"\xff" * 10_000_000 + b"\0\0" + b"\xff\xd9")
        begun = time.perf_counter()
        with contextlib.suppress(ValueError):  # its decoder fills up what is missing at the end of a scan
            read_dicom(image)
        assert time.perf_counter() - begun < 2


@pytest.mark.parametrize("syntax", ["RLELossless", "JPEGLSLossless", "JPEG2000Lossless"])
@pytest.mark.parametrize("share", [0.3, 0.7, 0.97])
def test_truncated_compressed_pixels_are_refused(truth, syntax, share):
    image = plain(truth)
    if not pydicom.pixels.get_encoder(getattr(uid, syntax)).is_available:
        pytest.skip("no encoder here")
    image.compress(getattr(uid, syntax), generate_instance_uid=False)
    content = written(image)
    refusal(content[: len(content) - int((1 - share) * len(image.PixelData))])
    frame = pydicom.encaps.get_frame(image.PixelData, 0, number_of_frames=1)
    half = frame[: int(len(frame) * share) // 2 * 2]
    assert "complete" in refusal(compressed(image, getattr(uid, syntax), half))  # a whole file of half a stream


@pytest.mark.parametrize("syntax", ["JPEGBaseline8Bit", "JPEGLSLossless", "JPEG2000Lossless"])
def test_a_stream_without_its_end_is_not_decoded(truth, syntax, monkeypatch):
    if not pydicom.pixels.get_decoder(getattr(uid, syntax)).is_available:
        pytest.skip("no decoder here")
    decoder = type(pydicom.pixels.get_decoder(uid.JPEG2000))
    monkeypatch.setattr(decoder, "as_array", lambda *a, **k: pytest.fail("decoded"))
    image = compressed(plain(truth), getattr(uid, syntax), b"\xff\xd8" + bytes(range(1, 99)))
    assert "without an end" in refusal(image)


@pytest.mark.parametrize(
    "syntax",
    ["RLELossless", "JPEGBaseline8Bit", "JPEGLosslessSV1", "JPEGLSLossless", "JPEG2000Lossless", "JPEGExtended12Bit"],
)
@pytest.mark.parametrize(
    "frame", [b"\x00\x00", b"\xff\xd9", bytes(range(256)) * 40, b"\xff\xd8" + bytes(98) + b"\xff\xd9"]
)
def test_encapsulated_garbage_is_refused(truth, syntax, frame):
    image = compressed(plain(truth, bits=8), getattr(uid, syntax), frame)
    if not pydicom.pixels.get_decoder(getattr(uid, syntax)).is_available:
        pytest.skip("no decoder here")
    refusal(image)


@pytest.mark.parametrize(
    ("place", "value"),  # from the start-of-frame marker, what ends the process inside GDCM
    [(4, 31), (4, 0), (1, 0xC0), (3, 1), (-1, 0), (14, 0xC9), (200, None)],
)
def test_broken_jpeg_lossless_is_refused_before_its_decoder_sees_it(truth, tmp_path, place, value, monkeypatch):
    content = bytearray(jpeg_lossless(truth, 12, tmp_path).read_bytes())
    start = content.rindex(b"\xff\xc3\x00\x0b")
    new = b"\xff\xc4" if value is None else bytes([value])
    content[start + place : start + place + len(new)] = new
    decoder = type(pydicom.pixels.get_decoder(uid.JPEG2000))
    monkeypatch.setattr(decoder, "as_array", lambda *a, **k: pytest.fail("decoded"))
    assert "complete" in refusal(bytes(content))


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize("vr", [b"LO", b"SH", b"DS"])
def test_a_window_of_any_type_is_a_number(truth, function, vr):
    image = plain(truth, WindowCenter=2000, WindowWidth=4000, VOILUTFunction=function)
    content = written(image).replace(b"\x50\x10DS", b"\x50\x10" + vr).replace(b"\x51\x10DS", b"\x51\x10" + vr)
    np.testing.assert_array_equal(read_dicom(content).pixels, read_dicom(image).pixels)


def test_an_unknown_type_beside_the_pixels_is_refused(truth):
    content = written(plain(truth, RescaleSlope=1, RescaleIntercept=0))
    assert "complete" in refusal(content.replace(b"\x53\x10DS", b"\x53\x10D\0"))


@pytest.mark.parametrize("content", [b"", b"\x00" * 7, b"no fragments here, only words"])
def test_pixel_data_without_fragments_are_refused(truth, content):
    image = plain(truth)
    image.PixelData = content
    image.file_meta.TransferSyntaxUID = uid.JPEG2000Lossless
    refusal(image)


@pytest.mark.parametrize("syntax", ["JPEG2000Lossless", "JPEGLSLossless"])
def test_a_stream_larger_than_its_header_is_not_decoded(truth, syntax, monkeypatch):
    image = plain(truth)
    if not pydicom.pixels.get_encoder(getattr(uid, syntax)).is_available:
        pytest.skip("no encoder here")
    image.compress(getattr(uid, syntax), generate_instance_uid=False)
    image.Rows = 48
    decoder = type(pydicom.pixels.get_decoder(uid.JPEG2000))
    monkeypatch.setattr(decoder, "as_array", lambda *a, **k: pytest.fail("decoded"))
    assert "(96, 80, 1) for (48, 80, 1)" in refusal(image)


def test_a_missing_decoder_is_named(truth, monkeypatch):
    image = compressed(plain(truth), uid.JPEGLosslessSV1, b"\xff\xd8")
    decoder = pydicom.pixels.get_decoder(uid.JPEGLosslessSV1)
    monkeypatch.setattr(decoder, "_available", {})
    monkeypatch.setattr(decoder, "_unavailable", {"gdcm": ("gdcm>=3.0.10",)})
    message = refusal(image, ImportError)
    assert "gdcm>=3.0.10" in message
    assert "JPEG Lossless" in message
    assert "pip install 'clarity_hf[dicom]'" in message


def test_12_bit_lossy_jpeg_names_its_only_decoder(truth, monkeypatch):
    decoder = pydicom.pixels.get_decoder(uid.JPEGExtended12Bit)
    monkeypatch.setattr(decoder, "_available", {"pillow": None})
    image = compressed(plain(truth), uid.JPEGExtended12Bit, b"\xff\xd8")
    assert "pip install pylibjpeg-libjpeg" in refusal(image, ImportError)


def test_a_syntax_of_moving_pictures_is_refused(truth):
    assert "MPEG2" in refusal(compressed(plain(truth), uid.MPEG2MPML, b"\xff\xd8"))
    private = refusal(compressed(plain(truth), "1.2.3.4.5.6789.1", b"\xff\xd8"))
    assert "unknown transfer syntax" in private
