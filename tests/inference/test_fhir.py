# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Findings as FHIR: held to the schema, with boxes where they are."""

import datetime
import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pydicom")
pytest.importorskip("highdicom")
pytest.importorskip("fhir.resources")

from fhir.resources import get_fhir_model_class
from fhir.resources.R4B import get_fhir_model_class as get_r4b_class

from clarity_hf.inference.dicom_source import NOTICE
from clarity_hf.inference.fhir import fhir_bundle

_spec = importlib.util.spec_from_file_location("dicom_cases", Path(__file__).with_name("dicom_cases.py"))
cases = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(cases)


@pytest.fixture
def image():
    return cases.digital_radiograph(np.zeros(cases.SIZE, dtype=np.uint8))


@pytest.fixture
def findings():
    return cases.findings_of(cases.SIZE)


def of_kind(bundle, kind):
    return [entry["resource"] for entry in bundle["entry"] if entry["resource"]["resourceType"] == kind]


@pytest.mark.parametrize(("release", "classes"), [("R4", get_r4b_class), ("R5", get_fhir_model_class)])
def test_resources_are_of_their_releases_schema_and_refer_to_each_other(image, findings, release, classes):
    bundle = json.loads(json.dumps(fhir_bundle(image, findings, cases.MODEL, release=release)))
    ids = {entry["fullUrl"] for entry in bundle["entry"]}
    for entry in bundle["entry"]:
        resource = entry["resource"]
        classes(resource["resourceType"]).model_validate(resource)
        for referred in [*resource.get("result", []), *resource.get("derivedFrom", [])]:
            assert referred.get("reference", next(iter(ids))) in ids
    (report,) = of_kind(bundle, "DiagnosticReport")
    assert [one["reference"] for one in report["result"]] == [
        f"urn:uuid:{one['id']}" for one in of_kind(bundle, "Observation")
    ]


def test_a_report_names_patient_order_and_study_and_what_it_is_not(image, findings):
    image.TimezoneOffsetFromUTC = "+0200"
    bundle = fhir_bundle(image, findings, cases.MODEL, patient_system="urn:hospital", doubt="Upside down?")
    (report,) = of_kind(bundle, "DiagnosticReport")
    assert report["status"] == "preliminary"
    assert report["subject"]["identifier"] == {"system": "urn:hospital", "value": "P1"}
    assert report["basedOn"][0]["identifier"]["value"] == "A1"
    assert report["imagingStudy"][0]["identifier"]["value"] == "urn:oid:2.25.1002"
    assert report["effectiveDateTime"] == "2025-01-02T10:11:12+02:00"
    assert report["conclusion"] == f"Effusion, Mass, Pleural Thickening. {NOTICE}. Upside down?."
    assert "Ada" not in json.dumps(bundle)  # the patient goes by number


@pytest.mark.parametrize(
    ("moment", "zone", "times"),
    [
        ("20250102101112+0200", None, ["2025-01-02T10:11:12+02:00"] * 2),
        ("20250102101112-0500", "+0200", ["2025-01-02T17:11:12+02:00"] * 2),
        ("20250102101112", "-0330", ["2025-01-02T10:11:12-03:30"] * 2),
        ("20250102101112", None, ["2025-01-02", None]),
        ("20250102101112", "+2", ["2025-01-02", None]),
        ("20250102101112", "02:00", ["2025-01-02", None]),
        ("20250102101112", "+9999", ["2025-01-02", None]),
    ],
)
def test_a_time_has_the_offset_that_the_image_states_or_is_a_date(image, findings, moment, zone, times):
    image.AcquisitionDateTime = moment
    if zone is not None:
        image.add_new("TimezoneOffsetFromUTC", "LO", zone)
    bundle = fhir_bundle(image, findings, cases.MODEL)
    (report,) = of_kind(bundle, "DiagnosticReport")
    assert [report.get(name) for name in ("effectiveDateTime", "issued")] == times
    assert of_kind(bundle, "Observation")[0]["effectiveDateTime"] == times[0]


def test_an_image_without_a_date_has_a_report_without_one(image, findings):
    for name in [element.keyword for element in image if element.VR in ("DA", "DT")]:
        delattr(image, name)
    (report,) = of_kind(fhir_bundle(image, findings, cases.MODEL), "DiagnosticReport")
    assert "effectiveDateTime" not in report


def test_identifiers_are_as_they_are_in_the_file(image, findings):
    image.PatientID, image.AccessionNumber = "HOSP\\123", "A\\1"
    (report,) = of_kind(fhir_bundle(image, findings, cases.MODEL), "DiagnosticReport")
    assert report["subject"]["identifier"]["value"] == "HOSP\\123"
    assert report["basedOn"][0]["identifier"]["value"] == "A\\1"


def test_scores_states_and_boxes_are_the_findings(image, findings):
    observations = of_kind(fhir_bundle(image, findings, cases.MODEL), "Observation")
    assert len(observations) == len(findings) == 14
    for observation, finding in zip(observations, findings, strict=True):
        assert observation["valueQuantity"]["value"] == round(finding["score"], 4)
        state = observation["interpretation"][0]["coding"][0]["code"]
        assert state == ("POS" if finding["present"] else "NEG")
    effusion = observations[2]
    assert effusion["code"]["coding"][0] == {
        "system": "http://snomed.info/sct",
        "code": "60046008",
        "display": "Pleural effusion",
    }
    sides = [component["valueQuantity"]["value"] for component in effusion["component"]]
    assert sides == [13.25, 80.75, 40.125, 120.875, 70.0, 80.0, 110.5, 121.25]


def test_boxes_are_selections_of_the_image_in_r5(image, findings):
    bundle = fhir_bundle(image, findings, cases.MODEL, release="R5")
    first, *_ = selections = of_kind(bundle, "ImagingSelection")
    assert len(selections) == 4
    (instance,) = first["instance"]
    assert (first["studyUid"], first["seriesUid"], instance["uid"]) == ("2.25.1002", "2.25.1003", "2.25.1001")
    (region,) = instance["imageRegion2D"]
    x0, y0, x1, y1 = 13.25, 80.75, 40.125, 120.875
    assert region == {"regionType": "polyline", "coordinate": [x0, y0, x1, y0, x1, y1, x0, y1, x0, y0]}
    effusion = of_kind(bundle, "Observation")[2]
    assert f"urn:uuid:{first['id']}" in [one.get("reference") for one in effusion["derivedFrom"]]


def test_a_second_run_gives_the_same_ids_and_another_finding_others(image, findings):
    first = fhir_bundle(image, findings, cases.MODEL)
    assert fhir_bundle(image, findings, cases.MODEL) == first
    findings[0]["threshold"] = 0.9
    second = fhir_bundle(image, findings, cases.MODEL)
    assert {entry["fullUrl"] for entry in first["entry"]}.isdisjoint(entry["fullUrl"] for entry in second["entry"])


def test_a_header_with_little_in_it_still_gives_a_report(image, findings):
    del image.PatientID, image.AccessionNumber, image.SeriesInstanceUID
    bundle = fhir_bundle(image, findings[:1], cases.MODEL, created=datetime.datetime(2026, 1, 2))
    (report,) = of_kind(bundle, "DiagnosticReport")
    assert "basedOn" not in report
    assert report["conclusion"].startswith("No finding reached its threshold")


def test_calls_that_make_no_sense_are_refused(image, findings, monkeypatch):
    with pytest.raises(ValueError, match="`release` must be R4 or R5, got 'R3'"):
        fhir_bundle(image, findings, cases.MODEL, release="R3")
    monkeypatch.setitem(sys.modules, "fhir.resources.R4B.bundle", None)
    with pytest.raises(ImportError, match=r"pip install 'clarity_hf\[fhir\]'"):
        fhir_bundle(image, findings, cases.MODEL)
    del image.SOPInstanceUID
    with pytest.raises(ValueError, match="`dataset` must have SOPInstanceUID"):
        fhir_bundle(image, findings, cases.MODEL)
