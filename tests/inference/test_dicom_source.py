# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""What DICOM results share: codes, names, rounding, times, identity."""

import datetime
import importlib.util
from pathlib import Path

import numpy as np
import pytest

from clarity_hf import FINDINGS

pydicom = pytest.importorskip("pydicom")
highdicom = pytest.importorskip("highdicom")

from pydicom.sr.codedict import codes  # noqa: E402

from clarity_hf.inference.dicom_source import (  # noqa: E402
    CODING_SCHEME,
    FINDING_CODES,
    UNDATED,
    ModelIdentity,
    ResultSource,
    finding_code,
    moment_of,
    quantised,
    uid_of,
)

_spec = importlib.util.spec_from_file_location("dicom_cases", Path(__file__).with_name("dicom_cases.py"))
cases = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(cases)


def test_codes_agree_with_the_tables_of_the_standard():
    for name, code in (
        ("Effusion", codes.SCT.PleuralEffusion),
        ("Infiltration", codes.DCM.Infiltrate),
        ("Mass", codes.SCT.Mass),
        ("Nodule", codes.SCT.Nodule),
        ("Pneumothorax", codes.SCT.Pneumothorax),
        ("Edema", codes.SCT.PulmonaryEdema),
        ("Fibrosis", codes.SCT.Fibrosis),
    ):
        assert FINDING_CODES[name] == (code.value, code.scheme_designator, code.meaning)
    assert set(FINDINGS) - set(FINDING_CODES) == {"Pleural_Thickening", "Hernia"}


@pytest.mark.parametrize(
    ("label", "value", "meaning"),
    [
        ("Hernia", "HERNIA", "Hernia"),
        ("Pleural_Thickening", "PLEURAL_THI_04FB", "Pleural Thickening"),
        ("Support Devices", "SUPPORT_DEVICES", "Support Devices"),
    ],
)
def test_findings_without_a_verified_code_get_a_private_one(label, value, meaning):
    code = finding_code(label)
    assert (code.value, code.scheme_designator, code.meaning) == (value, CODING_SCHEME, meaning)


def test_a_model_is_named_by_its_weights(tiny_model):
    identity = ModelIdentity.of(tiny_model, "tiny")
    assert (identity.name, len(identity.weights_hash)) == ("tiny", 16)


def test_settings_name_the_results_in_place_of_the_findings():
    image = cases.digital_radiograph(np.zeros(cases.SIZE, dtype=np.uint8))

    def instance(settings, content):
        identity = ModelIdentity("m", "w", "1", settings)
        return ResultSource(image, identity, "report", content).arguments()["sop_instance_uid"]

    assert instance("s", "one content") == instance("s", "another")
    assert instance("s", "one content") != instance("t", "one content")
    assert instance("", "one content") != instance("", "another")


def test_settings_are_hashed_whatever_their_order(tiny_model):
    first, second, third = (
        ModelIdentity.of(tiny_model, "tiny", settings)
        for settings in ({"a": 1, "b": [2]}, {"b": [2], "a": 1}, {"a": 1, "b": [3]})
    )
    assert first == second != third
    assert len(first.settings) == 16


def test_findings_are_rounded_to_steps_that_noise_does_not_cross():
    finding = {"label": "Mass", "score": 0.123449, "threshold": 1 / 3, "present": True, "map": None}
    finding["boxes"] = [cases.box(10.0, 20.06, 30.07, 40.9375), cases.box(5.01, 0.01, 5.02, 0.02)]
    (rounded,) = quantised([finding])
    assert rounded["score"] == 0.1234
    assert rounded["threshold"] == 1 / 3
    assert rounded["boxes"] == [cases.box(10.0, 20.0, 30.125, 41.0), cases.box(4.875, 0.0, 5.0, 0.125)]
    assert finding["score"] == 0.123449


def test_a_uid_follows_from_its_parts_and_is_valid():
    assert uid_of("a", 1) == uid_of("a", "1")
    assert uid_of("a", "b") != uid_of("ab")
    assert pydicom.uid.UID(uid_of("a")).is_valid


@pytest.mark.parametrize(
    ("values", "moment"),
    [
        ({"AcquisitionDateTime": "20240506070809.5+0200"}, datetime.datetime(2024, 5, 6, 7, 8, 9, 500000)),
        ({"AcquisitionDate": "20240506", "AcquisitionTime": "0708"}, datetime.datetime(2024, 5, 6, 7, 8)),
        ({"ContentDate": "20240507", "StudyDate": "20240506"}, datetime.datetime(2024, 5, 7)),
        ({"StudyDate": "20240506", "StudyTime": "no time"}, datetime.datetime(2024, 5, 6)),
        ({"StudyDate": "20240231", "StudyTime": "070809"}, UNDATED),
        ({}, UNDATED),
    ],
)
def test_the_time_is_the_images_own(values, moment):
    image = pydicom.Dataset()
    for name, value in values.items():
        setattr(image, name, "")
        image[name]._value = value
    assert moment_of(image) == moment
