# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Anything but a frontal chest radiograph is refused on its header, with the reason and without a name."""

import importlib.util
import re
import warnings
from pathlib import Path

import pytest

from clarity_hf.dicom_reading import MAX_PIXELS, read_dicom

pydicom = pytest.importorskip("pydicom", minversion="3.0")

from pydicom.dataset import Dataset  # noqa: E402
from pydicom.sequence import Sequence  # noqa: E402

_spec = importlib.util.spec_from_file_location("dicom_files", Path(__file__).with_name("dicom_files.py"))
files = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(files)
SECRETS, truth, plain, written = files.SECRETS, files.truth, files.plain, files.written
refusal, coded = files.refusal, files.coded


@pytest.mark.parametrize(
    "keyword", ["VOILUTSequence", "ModalityLUTSequence", "ViewCodeSequence", "AnatomicRegionSequence"]
)
@pytest.mark.parametrize("vr", ["OB", "LO", "US"])
def test_a_sequence_of_another_type_is_refused_by_its_name(truth, keyword, vr):
    image = plain(truth)
    image.add_new(keyword, vr, {"OB": b"\1\2\3\4", "LO": "Doe^Jane", "US": 7}[vr])
    message = refusal(written(image))
    assert keyword in message
    assert f"of type {vr}" in message


def test_a_sequence_in_the_place_of_a_text_or_number_is_refused(truth):
    inner = Dataset()
    inner.PatientName = SECRETS[0]
    for keyword in ("ViewPosition", "WindowCenter", "PatientOrientation", "BodyPartExamined"):
        image = plain(truth)
        image.add_new(keyword, "SQ", Sequence([inner]))
        assert keyword in refusal(written(image))


@pytest.mark.parametrize(("spacing", "read"), [([0, 0], None), (None, None), ([0.2, 0.201], (0.2, 0.201))])
def test_spacing_that_says_nothing_is_none(truth, spacing, read):
    assert read_dicom(plain(truth, ImagerPixelSpacing=spacing)).spacing == read


@pytest.mark.parametrize(
    "elements",
    [
        {"BodyPartExamined": None, "ViewPosition": None, "Modality": None, "SOPClassUID": None},
        {"BodyPartExamined": "", "ViewPosition": "", "NumberOfFrames": 1},
        {"BodyPartExamined": "TORAX", "ViewPosition": "AP", "Modality": "DX"},
        {"Modality": "RG", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"},
        {"ViewPosition": "LLD"},
        {"ViewPosition": "LEFT LATERAL DECUBITUS"},
        {"ViewPosition": "LATERAL DECUB"},
        {"ViewPosition": "R LAT DECUB."},
        *({"BodyPartExamined": part} for part in ("THORAX", "CHEST PA", "Ribs left", "CHESTABDOMEN", "NECKCHEST")),
        *({"BodyPartExamined": part} for part in ("BABYGRAM", "WHOLEBODY", "THORACIC CAGE", "CHEST/ABDOMEN", "HEART")),
        {"BodyPartExamined": "", "AnatomicRegionSequence": coded("43799004", "SCT", "Thoracic cavity")},
        {"AnatomicRegionSequence": coded("T-D3000", "SRT", "Thorax")},
        {"AnatomicRegionSequence": coded("51185008", "SCT", "tórax")},
        {"AnatomicRegionSequence": coded("7", "99X", "irgendwas")},
        {"PatientOrientation": ["L", "F"]},
        {"PatientOrientation": ["L", "FP"]},  # the tube tilted towards the head
        {"PatientOrientation": ["LF", "FR"]},  # the patient leaning
        {"PatientOrientation": ["L", "F"], "FieldOfViewRotation": 180, "FieldOfViewHorizontalFlip": "YES"},
        {"PatientOrientation": "", "FieldOfViewRotation": 0, "FieldOfViewHorizontalFlip": "NO"},
        {"ImageOrientationPatient": [1, 0, 0, 0, 0, -1]},
        {"ImageOrientationPatient": [0.99, 0.1, 0, 0, 0.1, -0.99]},
        {"ImageOrientationPatient": [1, 0, 0, 0, 1, 0]},  # of an axial slice: what converters write for any image
        {"ImageOrientationPatient": [-1, 0, 0, 0, 0, -1], "PatientOrientation": ["L", "F"]},
        {"PresentationIntentType": "FOR PRESENTATION"},
    ],
)
def test_a_frontal_image_is_read_however_little_is_said(truth, elements):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert read_dicom(plain(truth, **elements)).pixels.shape == truth.shape


@pytest.mark.parametrize(
    ("elements", "reason"),
    [
        ({"NumberOfFrames": 2}, "2 frames"),
        ({"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "PlanarConfiguration": 0}, "RGB"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "PALETTE COLOR"),
        ({"PhotometricInterpretation": None}, "no PhotometricInterpretation"),
        ({"Modality": "MR"}, "modality MR"),
        ({"Modality": "OT"}, "modality OT"),
        ({"Modality": "PX"}, "modality PX"),
        ({"Modality": "MG"}, "modality MG"),
        ({"Modality": None, "SOPClassUID": "1.2.840.10008.5.1.4.1.1.2"}, "another SOP class"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.1.1.1", "Modality": "DX"}, "for processing"),
        ({"PresentationIntentType": "FOR PROCESSING"}, "for processing"),
        ({"ViewPosition": "LL"}, "a lateral view (LL)"),
        ({"ViewPosition": "RL"}, "a lateral view (RL)"),
        ({"ViewPosition": "LATERAL"}, "a lateral view (LATERAL)"),
        ({"ViewPosition": "LAO"}, "an oblique view (LAO)"),
        ({"BodyPartExamined": "KNEE"}, "BodyPartExamined KNEE"),
        ({"BodyPartExamined": "ABDOMEN"}, "BodyPartExamined ABDOMEN"),
        ({"BodyPartExamined": "L-SPINE"}, "BodyPartExamined L-SPINE"),
        *(
            ({"BodyPartExamined": part}, f"BodyPartExamined {re.sub('[^A-Z ]', '?', part.upper())[:16]}")
            for part in ("KNEE LEFT", "Lumbar Spine", "FEET", "HANDS", "LTKNEE", "T SPINE", "CSPINE", "HIPS", "TOES")
        ),
        *(
            ({"BodyPartExamined": part}, "BodyPartExamined")
            for part in ("Hand R", "PELVIS AP", "ABD", "LOWER LIMB", "THORACIC SPINE", "SHOULDER^RT", "LEGS")
        ),
        ({"AnatomicRegionSequence": coded("72696002", "SCT", "Knee")}, "AnatomicRegionSequence KNEE"),
        ({"AnatomicRegionSequence": coded("72696002", "SCT", "Knie")}, "AnatomicRegionSequence KNEE"),
        ({"AnatomicRegionSequence": coded("T-D9200", "SRT", "genou")}, "AnatomicRegionSequence KNEE"),
        ({"AnatomicRegionSequence": coded("T-11503", "SRT", "")}, "AnatomicRegionSequence LUMBAR"),
        ({"AnatomicRegionSequence": coded("122495006", "SCT", "columna")}, "AnatomicRegionSequence THORACIC SPINE"),
        *(
            ({"PatientOrientation": directions, "ViewPosition": ""}, "a lateral view")
            for directions in (["A", "F"], ["P", "F"], ["AF", "FP"], ["F", "A"], ["A", "H"])
        ),
        ({"PatientOrientation": ["LA", "F"], "ViewPosition": ""}, "an oblique view"),
        *(
            ({"PatientOrientation": directions}, f"(PatientOrientation L/F), got {'/'.join(directions)}")
            for directions in (["R", "F"], ["L", "H"], ["R", "H"], ["F", "L"], ["H", "R"], ["F", "R"], ["RF", "F"])
        ),
        ({"PatientOrientation": ["LE", "V"]}, "two directions of L, R, A, P, H and F, got LE/V"),
        ({"PatientOrientation": "L"}, "two directions"),
        *(
            ({"ImageOrientationPatient": cosines}, f"(ImageOrientationPatient L/F), got {given}")
            for cosines, given in (([-1, 0, 0, 0, 0, -1], "R/F"), ([0.99, 0.1, 0, 0, 0, 1], "L/H"))
        ),
        ({"ImageOrientationPatient": [0, 1, 0, 0, 0, -1], "ViewPosition": ""}, "a lateral view (ImageOrientationP"),
        ({"FieldOfViewHorizontalFlip": "YES"}, "got FieldOfViewHorizontalFlip YES without it"),
        ({"FieldOfViewRotation": 90, "PatientOrientation": ""}, "got FieldOfViewRotation 90 without it"),
        ({"PixelSpacing": [0.2, 0.1]}, "sides of 0.2 by 0.1"),
        ({"ImagerPixelSpacing": [0.1, 0.2]}, "sides of 0.1 by 0.2"),
        ({"PixelAspectRatio": ["4", "3"]}, "sides of 4 by 3"),
        ({"NominalScannedPixelSpacing": ["0.2", "0.1"]}, "sides of 0.2 by 0.1 (NominalScannedPixelSpacing)"),
        ({"PixelAspectRatio": ["1", "1"], "PixelSpacing": ["0.2", "0.1"]}, "sides of 0.2 by 0.1 (PixelSpacing)"),
        ({"PixelSpacing": ["0.1", "0.1"], "ImagerPixelSpacing": ["0.2", "0.1"]}, "(ImagerPixelSpacing)"),
        ({"BitsAllocated": 32, "BitsStored": 32}, "32 in 32"),
        ({"BitsStored": 6}, "6 in 16"),
        ({"Rows": 60_000, "Columns": 60_000}, f"at most {MAX_PIXELS} pixels, got 60000×60000"),
        ({"Rows": None}, "without pixel data"),
        ({"PixelData": None}, "without pixel data"),
        ({"VOILUTFunction": "CUBIC", "WindowCenter": 5, "WindowWidth": 9}, "CUBIC"),
    ],
)
def test_anything_but_a_frontal_chest_image_is_refused(truth, elements, reason):
    image = plain(truth)
    for keyword, value in elements.items():
        if value is None:
            delattr(image, keyword)
        else:
            setattr(image, keyword, value)
    assert reason in refusal(image)
    if elements.get("BitsAllocated") != 32:
        assert reason in refusal(written(image))


@pytest.mark.parametrize(
    ("code", "scheme", "meaning"),
    [("399198007", "SCT", "vista lateral derecha"), ("R-10236", "SRT", "x"), ("99", "99X", "left lateral")],
)
def test_a_lateral_view_may_be_coded(truth, code, scheme, meaning):
    view = Dataset()
    view.CodeValue, view.CodingSchemeDesignator, view.CodeMeaning = code, scheme, meaning
    assert "a lateral view" in refusal(plain(truth, ViewPosition=None, ViewCodeSequence=Sequence([view])))


@pytest.mark.parametrize(("code", "meaning"), [("R-10202", "frontal"), ("399348003", "antero-posterior")])
def test_a_coded_frontal_view_is_read(truth, code, meaning):
    view = Dataset()
    view.CodeValue, view.CodingSchemeDesignator, view.CodeMeaning = code, "SRT", meaning
    read_dicom(plain(truth, ViewCodeSequence=Sequence([view])))
