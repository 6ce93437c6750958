# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Results in a real PACS: Orthanc on the loopback, over C-STORE, C-FIND and C-GET, and over DICOMweb."""

import email.policy
import importlib.util
import io
import json
from email.parser import BytesParser
from pathlib import Path

import numpy as np
import pytest

pydicom = pytest.importorskip("pydicom")
highdicom = pytest.importorskip("highdicom")
pynetdicom = pytest.importorskip("pynetdicom")

from pynetdicom.sop_class import (  # noqa: E402
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelGet,
)

from clarity_hf.inference.dicom_output import KINDS, ModelIdentity, ResultOptions, write_dicom_results  # noqa: E402

_spec = importlib.util.spec_from_file_location("orthanc", Path(__file__).with_name("orthanc.py"))
orthanc = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(orthanc)
PLUGIN = orthanc.PLUGIN

pytestmark = pytest.mark.skipif(orthanc.ORTHANC is None, reason="no Orthanc here (Debian: orthanc, orthanc-dicomweb)")


@pytest.fixture(scope="module")
def pacs(tmp_path_factory):
    with orthanc.running(tmp_path_factory.mktemp("orthanc")) as place:
        yield place


@pytest.fixture(scope="module")
def sent():
    """An image and every kind of result, by name."""
    pixels = np.tile(np.arange(96, dtype=np.uint8) * 2, (120, 1))
    image = pydicom.Dataset()
    image.file_meta = pydicom.dataset.FileMetaDataset()
    image.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    values = {
        "SOPClassUID": pydicom.uid.ComputedRadiographyImageStorage,
        "SOPInstanceUID": "2.25.2001",
        "StudyInstanceUID": "2.25.2002",
        "SeriesInstanceUID": "2.25.2003",
        "SpecificCharacterSet": "ISO_IR 192",
        "StudyDate": "20250102",
        "StudyTime": "101112",
        "AccessionNumber": "A1",
        "Modality": "CR",
        "PatientName": "Müller^Éa",
        "PatientID": "P2",
        "PatientBirthDate": "",
        "PatientSex": "O",
        "StudyID": "S2",
        "SeriesNumber": 1,
        "InstanceNumber": 1,
        "PatientOrientation": ["L", "F"],
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "Rows": 120,
        "Columns": 96,
        "BitsAllocated": 8,
        "BitsStored": 8,
        "HighBit": 7,
        "PixelRepresentation": 0,
        "PixelData": pixels.tobytes(),
    }
    for name, value in values.items():
        setattr(image, name, value)
    image.file_meta.MediaStorageSOPClassUID, image.file_meta.MediaStorageSOPInstanceUID = (
        image.SOPClassUID,
        "2.25.2001",
    )
    heat = np.outer(np.hanning(120), np.hanning(96)).astype(np.float32)
    corners = {"xmin": 12.3, "ymin": 20.7, "xmax": 60.1, "ymax": 90.9}
    shared = {"threshold": 0.5, "map": heat}
    findings = [
        {"label": "Effusion", "score": 0.7 + 1 / 3000, "present": True, "boxes": [corners]} | shared,
        {"label": "Hernia", "score": 0.1, "present": False, "boxes": []} | shared,
    ]
    model = ModelIdentity("clarity-s16-224", "0123456789abcdef")
    options = ResultOptions(map_thresholds=0.5)
    results = write_dicom_results(image, pixels, findings, model, kinds=KINDS, options=options)
    return {"image": image} | results.datasets


def store(pacs, datasets):
    with pacs.associate(*dict.fromkeys(dataset.SOPClassUID for dataset in datasets)) as (link, _):
        assert [link.send_c_store(dataset).Status for dataset in datasets] == [0] * len(datasets)


@pytest.fixture(scope="module")
def stored(pacs, sent):
    """The image and its results are in the PACS, sent twice over C-STORE."""
    store(pacs, sent.values())
    store(pacs, sent.values())
    return sent


def assert_same(received, expected):
    """Element by element, but for the group lengths and paddings that a network may add."""
    expected = pydicom.dcmread(io.BytesIO(as_file(expected)))
    assert received.keys() == expected.keys()
    for element in expected:
        assert received[element.tag] == element, element.keyword


def as_file(dataset):
    file = io.BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()


def test_a_second_sending_makes_no_duplicates_and_one_study(pacs, stored):
    counts = json.loads(pacs.get("/statistics")[1])
    assert [counts[f"Count{level}"] for level in ("Patients", "Studies", "Series", "Instances")] == [1, 1, 7, 7]


def test_results_are_found_in_the_images_study(pacs, stored):
    query = pydicom.Dataset()
    query.QueryRetrieveLevel = "SERIES"
    query.StudyInstanceUID = "2.25.2002"
    query.SeriesInstanceUID = query.Modality = query.SeriesDescription = ""
    with pacs.associate(StudyRootQueryRetrieveInformationModelFind) as (link, _):
        answers = [answer for status, answer in link.send_c_find(query, StudyRootQueryRetrieveInformationModelFind)]
    found = {(answer.Modality, answer.SeriesInstanceUID) for answer in answers if answer is not None}
    assert found == {(dataset.Modality, dataset.SeriesInstanceUID) for dataset in stored.values()}
    assert sorted(modality for modality, _ in found) == ["CR", "OT", "PR", "SEG", "SEG", "SEG", "SR"]


def test_c_get_gives_back_what_was_sent(pacs, stored):
    query = pydicom.Dataset()
    query.QueryRetrieveLevel = "STUDY"
    query.StudyInstanceUID = "2.25.2002"
    classes = list(dict.fromkeys(dataset.SOPClassUID for dataset in stored.values()))
    model = StudyRootQueryRetrieveInformationModelGet
    with pacs.associate(model, *classes, roles=classes) as (link, received):
        final = [status.Status for status, _ in link.send_c_get(query, model)][-1]
    assert final == 0
    by_uid = {dataset.SOPInstanceUID: dataset for dataset in received}
    assert len(by_uid) == len(stored)
    for expected in stored.values():
        assert_same(by_uid[expected.SOPInstanceUID], expected)


def test_scores_boxes_and_pixels_survive_the_pacs(pacs, stored):
    identifiers = json.loads(pacs.get("/instances")[1])
    files = [io.BytesIO(pacs.get(f"/instances/{one}/file", "application/dicom")[1]) for one in identifiers]
    by_uid = {dataset.SOPInstanceUID: dataset for dataset in map(pydicom.dcmread, files)}
    report = highdicom.sr.ComprehensiveSR.from_dataset(by_uid[stored["report"].SOPInstanceUID])
    (group,) = report.content.get_planar_roi_measurement_groups()
    assert group.get_measurements()[0].value == 0.7003  # of 0.7 + 1 / 3000
    np.testing.assert_array_equal(group.roi.value[[0, 2]], [[12.25, 20.75], [60.125, 90.875]])  # eighths of a pixel
    for kind in ("boxes", "regions", "probabilities", "overlay"):
        received = by_uid[stored[kind].SOPInstanceUID]
        np.testing.assert_array_equal(received.pixel_array, stored[kind].pixel_array)
        assert received.pixel_array.max() > 0


@pytest.mark.skipif(not PLUGIN.exists(), reason="no DICOMweb plugin here (Debian: orthanc-dicomweb)")
def test_dicomweb_stores_finds_and_gives_back(pacs, sent):
    others = {name: with_other_study(dataset) for name, dataset in sent.items()}
    boundary, kind = "clarity", 'multipart/related; type="application/dicom"'
    parts = [
        f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode() + as_file(dataset) + b"\r\n"
        for dataset in others.values()
    ]
    body = b"".join(parts) + f"--{boundary}--\r\n".encode()
    _, answer = pacs.post("/dicom-web/studies", body, f"{kind}; boundary={boundary}")
    assert len(json.loads(answer)["00081199"]["Value"]) == len(others)
    _, answer = pacs.get("/dicom-web/studies/2.25.2999/series", "application/dicom+json")
    modalities = sorted(one["00080060"]["Value"][0] for one in json.loads(answer))
    assert modalities == ["CR", "OT", "PR", "SEG", "SEG", "SEG", "SR"]
    headers, answer = pacs.get("/dicom-web/studies/2.25.2999", f"{kind}; transfer-syntax=*")  # as they are stored
    message = BytesParser(policy=email.policy.HTTP).parsebytes(
        f"Content-Type: {headers['Content-Type']}\r\n\r\n".encode() + answer
    )
    received = [pydicom.dcmread(io.BytesIO(part.get_payload(decode=True))) for part in message.iter_parts()]
    by_uid = {dataset.SOPInstanceUID: dataset for dataset in received}
    assert len(by_uid) == len(others)
    for expected in others.values():
        assert_same(by_uid[expected.SOPInstanceUID], expected)


def with_other_study(dataset):
    """The same instance under UIDs of another study."""
    other = pydicom.dcmread(io.BytesIO(as_file(dataset)))
    other.StudyInstanceUID = "2.25.2999"
    for name in ("SeriesInstanceUID", "SOPInstanceUID"):
        setattr(other, name, f"{other[name].value}.1")
    other.file_meta.MediaStorageSOPInstanceUID = other.SOPInstanceUID
    return other
