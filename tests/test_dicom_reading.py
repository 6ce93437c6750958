# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Files and data sets are read or refused with the reason, without a name, and never crash."""

import importlib.util
import io
import os
import struct
import sys
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest

from clarity_hf.dicom_reading import looks_like_dicom, read_dicom
from clarity_hf.image_reading import read_image

pydicom = pytest.importorskip("pydicom", minversion="3.0")

from pydicom import uid  # noqa: E402

_spec = importlib.util.spec_from_file_location("dicom_files", Path(__file__).with_name("dicom_files.py"))
files = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(files)
SECRETS, CR, truth, header = files.SECRETS, files.CR, files.truth, files.header
plain, table, written, refusal = files.plain, files.table, files.written, files.refusal


@pytest.mark.parametrize("syntax", ["ImplicitVRLittleEndian", "ExplicitVRLittleEndian", "ExplicitVRBigEndian"])
@pytest.mark.parametrize("preamble", [True, False])
def test_uncompressed_files_are_read(truth, tmp_path, syntax, preamble):
    image = plain(truth)
    image.file_meta.TransferSyntaxUID = getattr(uid, syntax)
    if syntax == "ExplicitVRBigEndian":
        image.PixelData = np.frombuffer(image.PixelData, "<u2").astype(">u2").tobytes()
    if not preamble:
        encoding = {"implicit_vr": syntax[0] == "I", "little_endian": "Little" in syntax}
        del image.file_meta
        buffer = io.BytesIO()
        pydicom.dcmwrite(buffer, image, **encoding)
        content = buffer.getvalue()
    else:
        content = written(image)
    assert looks_like_dicom(content[:132])
    path = tmp_path / "image.any"
    path.write_bytes(content)
    for source in (content, path, str(path)):
        np.testing.assert_allclose(read_image(source), 255 * truth, atol=0.1)


def test_an_image_carries_what_results_need(truth):
    source = plain(truth, ImagerPixelSpacing=[0.2, 0.2], PixelSpacing=[0.15, 0.15])
    before = source.to_json()
    for image in (read_dicom(source), read_dicom(written(source))):
        assert image.spacing == (0.15, 0.15)
        assert (image.modality, image.view, image.body_part, image.sop_class_uid) == ("CR", "PA", "CHEST", CR)
        assert image.transfer_syntax_uid == uid.ExplicitVRLittleEndian
        assert image.dataset.PatientName == SECRETS[0]
        assert image.dataset.file_meta.TransferSyntaxUID == uid.ExplicitVRLittleEndian
        assert "PixelData" not in image.dataset
        assert not [secret for secret in SECRETS if secret in repr(image)]
        image.dataset.PatientName = "X"
        image.dataset.file_meta.TransferSyntaxUID = uid.ImplicitVRLittleEndian
    assert source.to_json() == before
    assert source.file_meta.TransferSyntaxUID == uid.ExplicitVRLittleEndian


def test_a_dataset_need_not_say_its_transfer_syntax(truth):
    image = plain(truth)
    del image.file_meta
    np.testing.assert_allclose(read_image(image), 255 * truth, atol=0.1)


@pytest.mark.parametrize("share", [0.2, 0.6, 0.99])
def test_truncated_files_are_refused(truth, tmp_path, share):
    content = written(plain(truth))
    path = tmp_path / "image.dcm"
    path.write_bytes(content[: int(len(content) * share)])
    message = refusal(path)
    assert str(path) in message
    assert "complete" in message


def test_a_claimed_size_costs_neither_memory_nor_time(truth, monkeypatch):
    image = plain(truth)
    image.Rows = image.Columns = 60_000
    content = written(image)
    decoder = type(pydicom.pixels.get_decoder(uid.JPEG2000))
    monkeypatch.setattr(decoder, "as_array", lambda *a, **k: pytest.fail("decoded"))
    assert "60000×60000" in refusal(content, read=read_image)


def test_a_deflated_data_set_is_not_inflated(truth):
    image = plain(truth)
    image.file_meta.TransferSyntaxUID = uid.DeflatedExplicitVRLittleEndian
    assert "deflated" in refusal(written(image))
    bomb = written(header())[:132]
    meta = io.BytesIO()
    image.file_meta.FileMetaInformationVersion = b"\x00\x01"
    pydicom.filewriter.write_file_meta_info(meta, image.file_meta)
    assert "deflated" in refusal(bomb + meta.getvalue() + zlib.compress(bytes(10**7))[2:-4])


def test_a_file_beyond_any_image_is_not_read(tmp_path):
    path = tmp_path / "huge.dcm"
    with open(path, "wb") as file:
        file.write(bytes(128) + b"DICM")
        file.truncate(10**12)  # a hole: nothing is written
    assert "bytes" in refusal(path)


@pytest.mark.parametrize("undefined", [True, False])
def test_sequences_without_end_do_not_crash(truth, undefined):
    deep = b""
    if undefined:
        for _ in range(20_000):
            deep += struct.pack("<HH2sHI", 0x0008, 0x1140, b"SQ", 0, 0xFFFFFFFF)
            deep += struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
    else:
        for _ in range(2_000):
            item = struct.pack("<HHI", 0xFFFE, 0xE000, len(deep)) + deep
            deep = struct.pack("<HH2sHI", 0x0008, 0x1140, b"SQ", 0, len(item)) + item
    content = written(plain(truth))
    place = content.index(struct.pack("<HH", 0x0010, 0x0010))
    content = content[:place] + deep + content[place:]
    if undefined:
        assert "must be a complete DICOM file" in refusal(content)
    else:
        assert read_dicom(content).pixels.shape == truth.shape  # never looked into


@pytest.mark.parametrize(
    "content", [b"", b"DICM", bytes(128) + b"DICM", bytes(128) + b"DICM" + bytes(50), b"\x08\x00", b"\x08\x00UI" * 9]
)
def test_almost_nothing_is_refused(content, tmp_path):
    refusal(content)
    path = tmp_path / "image.dcm"
    path.write_bytes(content)
    assert "image.dcm" in refusal(path)
    refusal(path, read=read_image)


def test_a_file_that_begins_with_its_prefix_is_refused(truth, tmp_path):
    (tmp_path / "image.dcm").write_bytes(written(plain(truth))[128:])  # DICM, without the 128 bytes before it
    for read in (read_dicom, read_image):
        refusal((tmp_path / "image.dcm").read_bytes(), read=read)
        refusal(tmp_path / "image.dcm", read=read)


def test_an_element_that_claims_gigabytes_makes_no_room_for_them(truth, tmp_path):
    content = written(plain(truth))
    at = content.index(b"\x08\0\x16\0UI")
    claim = struct.pack("<HH2sHI", 0x0008, 0x0001, b"OB", 0, 0xFFFFFFF0)
    (tmp_path / "image.dcm").write_bytes(content[:at] + claim + content[at:])
    tracemalloc.start()
    try:
        assert "without pixel data" in refusal(tmp_path / "image.dcm")
        assert tracemalloc.get_traced_memory()[1] < 50_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("place", "name"),
    [
        (pydicom.filereader, "dcmread"),
        (pydicom.filereader, "read_dataset"),
        (type(pydicom.pixels.get_decoder(uid.ExplicitVRLittleEndian)), "as_array"),
    ],
)
def test_too_little_memory_is_not_blamed_on_the_image(truth, place, name, monkeypatch):
    content = written(plain(truth))

    def fail(*words, **options):
        raise MemoryError

    monkeypatch.setattr(place, name, fail)
    with pytest.raises(MemoryError):
        read_dicom(content)


def test_paths_that_are_not_files_are_refused(tmp_path):
    assert "folder" in refusal(tmp_path)
    assert "none.dcm" in refusal(tmp_path / "none.dcm", FileNotFoundError)
    assert "URL" in refusal("https://a.org/image.dcm")
    assert "got int" in refusal(5, TypeError)


@pytest.mark.filterwarnings("ignore")
def test_damaged_files_are_read_or_refused_but_never_crash(truth, caplog):
    generator = np.random.default_rng(0)
    image = plain(truth, WindowCenter=2000, WindowWidth=4000, VOILUTSequence=table(range(64), 0), RescaleSlope=1)
    contents = [written(image)]
    for syntax in (uid.RLELossless, uid.JPEGLSLossless, uid.JPEG2000Lossless):
        if pydicom.pixels.get_encoder(syntax).is_available:
            image = plain(truth, WindowCenter=2000, WindowWidth=4000)
            image.compress(syntax, generate_instance_uid=False)
            contents.append(written(image))
    refusals = []
    for content in contents:
        for _ in range(150):
            damaged = bytearray(content)
            for place in generator.integers(132, 1500, 4):
                damaged[place] = generator.integers(0, 256)
            try:
                read_dicom(bytes(damaged))
            except (ValueError, ImportError) as error:
                refusals.append(str(error))
    assert len(refusals) > 50
    assert [message for message in refusals if not message.startswith("`image` must ")] == []
    assert [secret for secret in SECRETS if secret in " ".join(refusals) + caplog.text] == []


def test_missing_pydicom_is_named(truth, monkeypatch):
    content = written(plain(truth))
    monkeypatch.setitem(sys.modules, "pydicom.pixels", None)
    for read in (read_dicom, read_image):
        assert "pip install 'clarity_hf[dicom]'" in refusal(content, ImportError, read)


def test_reading_says_nothing_of_the_patient(truth, caplog, recwarn):
    image = plain(truth)
    image.PatientBirthDate = "19700101"
    content = written(image).replace(b"19700101", b"Doe^Jane").replace(b"CHEST ", b"CH!ST\xff")
    read_dicom(content)
    said = caplog.text + " ".join(str(warning.message) for warning in recwarn)
    assert not [secret for secret in SECRETS if secret in said]


@pytest.fixture
def dicom_folder():
    repository = Path(__file__).resolve().parents[1]
    folder = Path(os.environ.get("CLARITY_HF_DICOM_DIR", repository.parent / "shared" / "dicom"))
    if not folder.is_dir():
        pytest.skip("no DICOM files here: set CLARITY_HF_DICOM_DIR")
    return folder


def test_a_real_image_has_dark_lungs_and_bright_bones(dicom_folder):
    image = read_dicom(dicom_folder / "RG1_J2KI.dcm")
    assert image.pixels.shape == (1955, 1841)
    assert image.inverted
    assert image.spacing is None  # the file says 0 by 0
    lungs = image.pixels[500:800, [450, 1350]].mean()
    spine = image.pixels[500:800, 850:950].mean()
    belly = image.pixels[1650:1800, 600:800].mean()
    assert lungs < spine - 40
    assert lungs < belly - 40
    np.testing.assert_array_equal(read_image(dicom_folder / "RG1_J2KI.dcm"), image.pixels)


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        ("MR2_J2KI.dcm", "modality MR"),
        ("OBXXXX1A_2frame.dcm", "2 frames"),
        ("OT-PAL-8-face.dcm", "PALETTE COLOR"),
        ("SC_rgb.dcm", "RGB"),
    ],
)
def test_real_files_of_something_else_are_refused(dicom_folder, file, reason):
    assert reason in refusal(dicom_folder / file, read=read_image)
