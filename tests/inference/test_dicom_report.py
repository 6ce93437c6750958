# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""The structured report: what went in comes out by other readers, refusals are said, requests survive."""

import importlib.util
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from clarity_hf import FINDINGS

pydicom = pytest.importorskip("pydicom")
highdicom = pytest.importorskip("highdicom")

from pydicom.sr.codedict import codes  # noqa: E402

from clarity_hf.inference.dicom_report import (  # noqa: E402
    TRACKED_RECTANGLE,
    write_refusal_report,
    write_structured_report,
)
from clarity_hf.inference.dicom_source import NOTICE, finding_code, save  # noqa: E402

_spec = importlib.util.spec_from_file_location("dicom_cases", Path(__file__).with_name("dicom_cases.py"))
cases = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(cases)


def read_back(report):
    """Findings of a report, in its order: label, score, threshold, present, and corners of the boxes."""
    found = {}
    for group in report.content.get_planar_roi_measurement_groups() + report.content.get_image_measurement_groups():
        label = next(name for name in FINDINGS if finding_code(name) == group.finding_type)
        values = {item.name.meaning: item.value for item in group.get_measurements()}
        (presence,) = group.get_qualitative_evaluations()
        one = {
            "code": group.finding_type,
            "score": values["Probability"],
            "threshold": values["Threshold Value"],
            "present": presence.value == codes.DCM.Present,
        }
        boxes = found.setdefault(label, (one, []))[1]
        assert found[label][0] == one
        if getattr(group, "roi", None) is not None:
            boxes.append(group.roi.value)
    return found


@pytest.fixture
def image():
    return cases.digital_radiograph(np.zeros(cases.SIZE, dtype=np.uint8))


@pytest.fixture
def written(image, tmp_path):
    """A report as a file, and what it was made from."""
    findings = cases.findings_of(cases.SIZE)
    save(write_structured_report(image, findings, cases.MODEL), tmp_path / "report.dcm")
    return tmp_path / "report.dcm", findings


def test_the_report_gives_back_scores_thresholds_and_boxes(written):
    path, findings = written
    found = read_back(highdicom.sr.srread(path))
    assert sorted(found) == sorted(FINDINGS)
    for finding in findings:
        one, polylines = found[finding["label"]]
        assert (one["score"], one["threshold"]) == (round(finding["score"], 4), finding["threshold"])  # float64, exact
        assert one["present"] is finding["present"]
        assert one["code"] == finding_code(finding["label"])
        assert len(polylines) == len(finding["boxes"])
        for polyline, corners in zip(polylines, finding["boxes"], strict=True):
            x0, y0, x1, y1 = (round(8 * side) / 8 for side in corners.values())
            assert polyline.tolist() == [[x0, y0], [x1, y0], [x1, y1], [x0, y1], [x0, y0]]


def test_boxes_are_on_the_images_instance_and_the_image_is_evidence(written):
    report = highdicom.sr.srread(written[0])
    group = report.content.get_planar_roi_measurement_groups()[0]
    source = group.roi.ContentSequence[0].ReferencedSOPSequence[0]
    assert source.ReferencedSOPInstanceUID == "2.25.1001"
    assert report.get_evidence() == [
        ("2.25.1002", "2.25.1003", "2.25.1001", pydicom.uid.DigitalXRayImageStorageForPresentation)
    ]


def test_the_report_names_the_model_and_says_what_it_is_not(written):
    report = highdicom.sr.srread(written[0])
    text = report.to_json()
    for words in (cases.MODEL.name, cases.MODEL.weights_hash, f"clarity_hf {cases.MODEL.version}", NOTICE):
        assert words in text
    assert (report.CompletionFlag, report.VerificationFlag, report.PreliminaryFlag) == (
        "PARTIAL",
        "UNVERIFIED",
        "PRELIMINARY",
    )


def test_a_box_stands_below_its_probability_too_and_is_tracked_as_a_rectangle(image):
    report = write_structured_report(image, cases.findings_of(cases.SIZE), cases.MODEL)
    measurements = report.ContentSequence[-2]
    assert measurements.ConceptNameCodeSequence[0].CodeMeaning == "Imaging Measurements"
    boxed = 0
    for group in measurements.ContentSequence:
        regions = [item.GraphicData for item in group.ContentSequence if item.ValueType == "SCOORD"]
        first = next(item for item in group.ContentSequence if item.ValueType == "NUM")
        below = [item.GraphicData for item in first.get("ContentSequence", [])]
        assert below == regions
        assert (group.ContentSequence[0].TextValue == TRACKED_RECTANGLE) == bool(regions)
        boxed += len(regions)
    assert boxed == 4


def test_a_refusal_is_a_report_without_findings_that_gives_the_reason(image, tmp_path):
    path = tmp_path / "refused.dcm"
    save(write_refusal_report(image, "it looks like a lateral view", cases.MODEL), path)
    assert cases.errors_of(path) == []
    report = highdicom.sr.srread(path)
    (group,) = report.content.get_image_measurement_groups()
    assert group.finding_type is None
    (summary,) = group.get_qualitative_evaluations()
    assert summary.value.value == "111245"  # no algorithms succeeded; without findings
    assert f"{NOTICE}. The image was not analysed: it looks like a lateral view" in report.to_json()
    again = write_refusal_report(image, "it looks like a lateral view", cases.MODEL)
    assert again.SOPInstanceUID == report.SOPInstanceUID
    assert (
        again.SOPInstanceUID
        != write_structured_report(image, cases.findings_of(cases.SIZE), cases.MODEL).SOPInstanceUID
    )


@pytest.mark.parametrize("reason", ["", "Röntgen"])
def test_a_refusal_without_a_reason_in_ascii_is_refused(image, reason):
    with pytest.raises(ValueError, match="`reason` must be words in ASCII"):
        write_refusal_report(image, reason, cases.MODEL)


def test_the_request_and_the_procedure_of_the_image_are_the_reports(image, tmp_path):
    request = pydicom.Dataset()
    request.RequestedProcedureID, request.ScheduledProcedureStepID = "RP7", "SPS7"
    request.RequestedProcedureDescription = "Thorax p.a."
    image.RequestAttributesSequence = [request]
    image.ProcedureCodeSequence = [highdicom.sr.CodedConcept("399208008", "SCT", "Plain chest X-ray")]
    image.TimezoneOffsetFromUTC = "+0200"
    path = tmp_path / "report.dcm"
    save(write_structured_report(image, cases.findings_of(cases.SIZE), cases.MODEL), path)
    assert cases.errors_of(path) == []
    report = pydicom.dcmread(path)
    (asked,) = report.ReferencedRequestSequence
    assert (asked.StudyInstanceUID, asked.AccessionNumber, asked.RequestedProcedureID) == ("2.25.1002", "A1", "RP7")
    assert asked.RequestedProcedureDescription == "Thorax p.a."
    assert report.RequestAttributesSequence[0].ScheduledProcedureStepID == "SPS7"
    assert report.TimezoneOffsetFromUTC == "+0200"
    (reported,) = (item for item in report.ContentSequence if item.ConceptNameCodeSequence[0].CodeValue == "121058")
    assert reported.ConceptCodeSequence[0].CodeValue == report.ProcedureCodeSequence[0].CodeValue == "399208008"


@pytest.mark.skipif(shutil.which("dsrdump") is None, reason="no dsrdump here (Debian: dcmtk)")
def test_dsrdump_reads_the_report(written):
    said = subprocess.run(["dsrdump", "+Pl", str(written[0])], capture_output=True, timeout=60, check=False)
    assert (said.returncode, said.stderr) == (0, b"")
    shown = said.stdout.decode("latin-1")  # of the image's character set
    assert "UNVERIFIED" in shown
    assert shown.count('"Measurement Group"') == 15  # 14 findings, one of them with two boxes
    assert NOTICE in shown
