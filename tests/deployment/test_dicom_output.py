# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Findings as DICOM objects: what went in comes out, validators find no error, a second run is the same instance."""

import copy
import datetime
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

from clarity_hf import FINDINGS
from clarity_hf.data.phantoms import draw_phantom

pydicom = pytest.importorskip("pydicom")
highdicom = pytest.importorskip("highdicom")

from pydicom.sr.codedict import codes  # noqa: E402

from clarity_hf.deployment.dicom_output import (  # noqa: E402
    CODING_SCHEME,
    FINDING_CODES,
    KINDS,
    NOTICE,
    ModelIdentity,
    finding_code,
    write_dicom_results,
    write_secondary_capture,
    write_segmentation,
    write_structured_report,
)

SHARED = Path(__file__).resolve().parents[3] / "shared" / "dicom"
MODEL = ModelIdentity("clarity-s16-224", "0123456789abcdef", "0.1.0")
WHEN = datetime.datetime(2026, 3, 4, 5, 6, 7)
SIZE = (150, 130)


def digital_radiograph(pixels):
    """Header and pixels of a DX image that has every attribute its IOD asks for."""

    def code(*parts):
        return pydicom.Sequence([highdicom.sr.CodedConcept(*parts)])

    film = pydicom.Dataset()
    film.file_meta = pydicom.dataset.FileMetaDataset()
    film.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    values = {
        "SOPClassUID": pydicom.uid.DigitalXRayImageStorageForPresentation,
        "SOPInstanceUID": "2.25.1001",
        "StudyInstanceUID": "2.25.1002",
        "SeriesInstanceUID": "2.25.1003",
        "SpecificCharacterSet": "ISO_IR 100",
        "ImageType": ["ORIGINAL", "PRIMARY", ""],
        "StudyDate": "20250102",
        "StudyTime": "101112",
        "ContentDate": "20250102",
        "ContentTime": "101112",
        "AcquisitionDate": "20250102",
        "AcquisitionTime": "101112",
        "AccessionNumber": "A1",
        "Modality": "DX",
        "PresentationIntentType": "FOR PRESENTATION",
        "Manufacturer": "Phantoms",
        "ReferringPhysicianName": "Referrer^R",
        "StudyDescription": "Chest PA",
        "PatientName": "Förster^Ada",
        "PatientID": "P1",
        "PatientBirthDate": "19700101",
        "PatientSex": "F",
        "PatientAge": "054Y",
        "BodyPartExamined": "CHEST",
        "ImagerPixelSpacing": [0.2, 0.2],
        "PixelSpacing": [0.2, 0.2],
        "ViewPosition": "PA",
        "PositionerType": "",
        "DetectorType": "DIRECT",
        "StudyID": "S1",
        "SeriesNumber": 1,
        "InstanceNumber": 1,
        "PatientOrientation": ["L", "F"],
        "ImageLaterality": "U",
        "BurnedInAnnotation": "NO",
        "AcquisitionContextSequence": [],
        "PixelIntensityRelationship": "LOG",
        "PixelIntensityRelationshipSign": -1,
        "RescaleIntercept": 0,
        "RescaleSlope": 1,
        "RescaleType": "US",
        "PresentationLUTShape": "IDENTITY",
        "LossyImageCompression": "00",
        "AnatomicRegionSequence": code("816094009", "SCT", "Chest"),
        "ViewCodeSequence": code("399348003", "SCT", "postero-anterior"),
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "Rows": pixels.shape[0],
        "Columns": pixels.shape[1],
        "BitsAllocated": 8,
        "BitsStored": 8,
        "HighBit": 7,
        "PixelRepresentation": 0,
        "WindowCenter": 128,
        "WindowWidth": 256,
        "PixelData": pixels.tobytes(),
    }
    for name, value in values.items():
        setattr(film, name, value)
    film.ViewCodeSequence[0].ViewModifierCodeSequence = []
    return film


def box(x0, y0, x1, y1):
    return {"xmin": x0, "ymin": y0, "xmax": x1, "ymax": y1}


def findings_of(size):
    """All 14 findings: two boxes, one box, one box to the film's edge, the rest absent; a map for each."""
    height, width = size
    y, x = np.mgrid[0:height, 0:width]
    boxes = {
        "Effusion": [box(13.3, 80.7, 40.1, 120.9), box(70.0, 80.0, 110.5, 121.25)],
        "Mass": [box(20.0, 30.0, 21.0, 31.0)],
        "Pleural_Thickening": [box(0.0, 0.0, float(width), float(height))],
    }
    findings = []
    for number, label in enumerate(FINDINGS):
        heat = np.exp(-((y / height - 0.3) ** 2 + (x / width - 0.05 * number) ** 2) / 0.02) * 7
        present = label in boxes
        score = 0.61 + number / 1000 + 1 / 3000 if present else number / 1000 + 1e-9
        findings.append(
            {"label": label, "score": score, "threshold": 0.3 + number / 7000, "present": present}
            | {"boxes": boxes.get(label, []), "map": heat.astype(np.float32)}
        )
    return findings


@pytest.fixture(scope="module")
def pixels():
    return draw_phantom(3, size=SIZE, findings=["Effusion", "Mass"]).image


@pytest.fixture
def film(pixels):
    return digital_radiograph(pixels)


@pytest.fixture(scope="module")
def written(pixels, tmp_path_factory):
    """Every kind of one film, as files, and what they were made from."""
    film = digital_radiograph(pixels)
    folder = tmp_path_factory.mktemp("dicom")
    film.save_as(folder / "source.dcm", enforce_file_format=True)
    findings = findings_of(SIZE)
    results = write_dicom_results(film, pixels, findings, MODEL, folder, KINDS, map_thresholds=0.5, created=WHEN)
    assert results.left_out == {}
    return results.files, findings


def read_back(report):
    """Findings of a report, in its order: label, score, threshold, present, and corners of the boxes."""
    found = {}
    for group in report.content.get_planar_roi_measurement_groups() + report.content.get_image_measurement_groups():
        label = group.tracking_identifier.rsplit(" ", 1)[0]
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


def test_the_report_gives_back_scores_thresholds_and_boxes(written):
    files, findings = written
    found = read_back(highdicom.sr.srread(files["report"]))
    assert sorted(found) == sorted(FINDINGS)
    for finding in findings:
        one, polylines = found[finding["label"]]
        assert (one["score"], one["threshold"]) == (finding["score"], finding["threshold"])  # float64, exact
        assert one["present"] is finding["present"]
        assert one["code"] == finding_code(finding["label"])
        assert len(polylines) == len(finding["boxes"])
        for polyline, corners in zip(polylines, finding["boxes"], strict=True):
            x0, y0, x1, y1 = np.float32(list(corners.values()))
            expected = [(x0, y0), (x1, y0), (x1, y1), (x0, y1), (x0, y0)]
            np.testing.assert_array_equal(np.asarray(polyline, dtype=np.float32), np.float32(expected))


def test_boxes_are_on_the_films_instance_and_the_film_is_evidence(written):
    report = highdicom.sr.srread(written[0]["report"])
    group = report.content.get_planar_roi_measurement_groups()[0]
    source = group.roi.ContentSequence[0].ReferencedSOPSequence[0]
    assert source.ReferencedSOPInstanceUID == "2.25.1001"
    assert report.get_evidence() == [
        ("2.25.1002", "2.25.1003", "2.25.1001", pydicom.uid.DigitalXRayImageStorageForPresentation)
    ]


def test_the_report_names_the_model_and_says_what_it_is_not(written):
    report = highdicom.sr.srread(written[0]["report"])
    text = report.to_json()
    for words in (MODEL.name, MODEL.weights_hash, f"clarity_hf {MODEL.version}", NOTICE):
        assert words in text
    assert (report.CompletionFlag, report.VerificationFlag, report.PreliminaryFlag) == (
        "PARTIAL",
        "UNVERIFIED",
        "PRELIMINARY",
    )


def test_a_mask_holds_every_pixel_that_a_box_touches(written):
    files, _ = written
    masks = highdicom.seg.segread(files["boxes"])
    assert [segment.SegmentLabel for segment in masks.SegmentSequence] == ["Effusion", "Mass", "Pleural_Thickening"]
    effusion, mass, pleura = masks.pixel_array
    expected = np.zeros(SIZE, dtype=np.uint8)
    expected[80:121, 13:41] = 1  # 13.3 … 40.1 and 80.7 … 120.9
    expected[80:122, 70:111] = 1
    np.testing.assert_array_equal(effusion, expected)
    assert np.argwhere(mass).tolist() == [[30, 20]]
    assert pleura.all()


def test_maps_come_back_to_half_a_level_of_8_bits(written):
    files, findings = written
    document = highdicom.seg.segread(files["probabilities"])
    assert (document.SegmentationType, document.SegmentationFractionalType) == ("FRACTIONAL", "PROBABILITY")
    present = [finding for finding in findings if finding["present"]]
    frames = document.pixel_array
    assert len(frames) == len(present)
    for frame, finding in zip(frames, present, strict=True):
        share = finding["map"] / finding["map"].max()
        assert frame.max() == 255
        np.testing.assert_allclose(frame / 255, share, atol=0.5 / 255 + 1e-6)


def test_regions_are_what_lies_above_the_share_of_the_peak(film):
    findings = findings_of(SIZE)
    levels = {"Effusion": 0.5, "Mass": 0.9, "Pleural_Thickening": 0.1}
    document = write_segmentation(film, findings, MODEL, "regions", map_thresholds=levels)
    for frame, finding in zip(document.pixel_array, (f for f in findings if f["present"]), strict=True):
        expected = finding["map"] > levels[finding["label"]] * finding["map"].max()
        np.testing.assert_array_equal(frame.astype(bool), expected)


def test_segments_are_automatic_and_name_the_algorithm(written):
    for kind in ("boxes", "regions", "probabilities"):
        for segment in pydicom.dcmread(written[0][kind]).SegmentSequence:
            assert segment.SegmentAlgorithmType == "AUTOMATIC"
            algorithm = segment.SegmentationAlgorithmIdentificationSequence[0]
            assert (algorithm.AlgorithmName, algorithm.AlgorithmVersion) == (MODEL.name, MODEL.version)
            assert MODEL.weights_hash in algorithm.AlgorithmParameters


def test_the_overlay_keeps_the_film_and_adds_a_strip_below_it(film, pixels):
    from clarity_hf.visualization import draw_findings

    findings = findings_of(SIZE)
    document = write_secondary_capture(film, pixels, findings, MODEL)
    drawn = np.asarray(draw_findings(pixels, findings))
    shown = document.pixel_array
    np.testing.assert_array_equal(shown[: drawn.shape[0]], drawn)
    strip = shown[drawn.shape[0] :]
    assert strip.shape[0] > 30
    assert strip.max() == 255
    assert 0.005 < (strip > 128).mean() < 0.3  # text on black
    assert document.SourceImageSequence[0].ReferencedSOPInstanceUID == "2.25.1001"


def test_a_large_overlay_is_reduced(pixels, monkeypatch):
    monkeypatch.setattr("clarity_hf.deployment.dicom_output.MAX_OVERLAY_SIDE", 200)
    document = write_secondary_capture(digital_radiograph(pixels), pixels, findings_of(SIZE), MODEL)
    assert document.Columns < 200 < document.Rows < 300


@pytest.mark.parametrize("answer", ["YES", "NO", None])
def test_whether_text_names_the_patient_is_the_films_own_answer(film, pixels, answer):
    film.BurnedInAnnotation = answer
    document = write_secondary_capture(film, pixels, findings_of(SIZE), MODEL)
    assert document.get("BurnedInAnnotation") == answer


def test_patient_and_study_are_the_films_and_the_series_is_not(written):
    series = set()
    for path in written[0].values():
        document = pydicom.dcmread(path)
        assert (document.PatientName, document.PatientID, document.PatientAge) == ("Förster^Ada", "P1", "054Y")
        assert (document.StudyInstanceUID, document.StudyID, document.StudyDescription) == (
            "2.25.1002",
            "S1",
            "Chest PA",
        )
        assert (document.StudyDate, document.AccessionNumber) == ("20250102", "A1")
        assert document.ReferringPhysicianName == "Referrer^R"
        assert (document.ContentDate, document.ContentTime) == ("20260304", "050607.000000")
        assert (document.Manufacturer, document.ManufacturerModelName) == ("clarity_hf", MODEL.name)
        assert document.ContentQualification == "RESEARCH"
        assert "not for diagnosis" in document.SeriesDescription
        series.add(document.SeriesInstanceUID)
    assert len(series) == len(KINDS)
    assert "2.25.1003" not in series


def test_a_second_run_writes_the_same_bytes(film, pixels, tmp_path):
    for run in ("first", "second"):
        same = {"map_thresholds": 0.5, "created": WHEN}
        write_dicom_results(film, pixels, findings_of(SIZE), MODEL, tmp_path / run, KINDS, **same)
    for kind in KINDS:
        name = f"findings.{kind}.dcm"
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()


def test_other_findings_are_another_instance_of_the_same_series_and_other_weights_another_series(film):
    findings = findings_of(SIZE)
    first = write_structured_report(film, findings, MODEL)
    without_maps = [{key: value for key, value in finding.items() if key != "map"} for finding in findings]
    assert write_structured_report(film, without_maps, MODEL).SOPInstanceUID == first.SOPInstanceUID
    findings[0]["threshold"] += 0.1
    second = write_structured_report(film, findings, MODEL)
    assert second.SeriesInstanceUID == first.SeriesInstanceUID
    assert second.SOPInstanceUID != first.SOPInstanceUID
    third = write_structured_report(film, findings, ModelIdentity(MODEL.name, "other", MODEL.version))
    assert third.SeriesInstanceUID != first.SeriesInstanceUID


def test_new_uids_are_new_each_time(film):
    first, second = (write_structured_report(film, findings_of(SIZE), MODEL, uids="new") for _ in range(2))
    assert first.SeriesInstanceUID != second.SeriesInstanceUID
    assert first.SOPInstanceUID != second.SOPInstanceUID
    assert pydicom.uid.UID(first.SOPInstanceUID).is_valid


def test_the_header_is_left_as_it_is(film, pixels):
    before = copy.deepcopy(film)
    write_dicom_results(film, pixels, findings_of(SIZE), MODEL, kinds=KINDS, map_thresholds=0.5)
    assert film == before


def test_a_header_that_validators_or_highdicom_would_refuse_is_mended_but_the_patient_is_copied(film, pixels):
    film.PixelSpacing = [0, 0]
    film.FrameOfReferenceUID = "2.25.7"
    del film.PatientOrientation, film.StudyID, film.ReferringPhysicianName, film.AccessionNumber
    film["PatientBirthDate"]._value = "19700230"  # no such day
    film["PatientSex"]._value = "U"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        results = write_dicom_results(film, pixels, findings_of(SIZE), MODEL, kinds=KINDS, map_thresholds=0.5)
    for kind, document in results.datasets.items():
        assert (document.PatientBirthDate, document.PatientSex, document.StudyID) == ("19700230", "U", None), kind
    assert "PixelMeasuresSequence" not in results.datasets["boxes"].SharedFunctionalGroupsSequence[0]


def test_a_film_in_a_wrapper_of_one_frame_is_taken_and_two_frames_are_not(film, pixels):
    film.SOPClassUID = pydicom.uid.MultiFrameGrayscaleByteSecondaryCaptureImageStorage
    film.NumberOfFrames = 1
    results = write_dicom_results(film, pixels, findings_of(SIZE), MODEL, kinds=KINDS, map_thresholds=0.5)
    assert list(results.datasets) == list(KINDS)
    for kind, document in results.datasets.items():
        assert str(film.SOPClassUID) in document.to_json(), kind
        assert str(pydicom.uid.DigitalXRayImageStorageForPresentation) not in document.to_json()
    film.NumberOfFrames = 2
    with pytest.raises(ValueError, match="`dataset` must be of one film, got 2 frames"):
        write_structured_report(film, findings_of(SIZE), MODEL)


def test_names_of_people_are_never_printed(film, pixels, caplog, capsys):
    film.PatientName = film.ReferringPhysicianName = "Solo"  # highdicom doubts names of one part
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        results = write_dicom_results(film, pixels, findings_of(SIZE), MODEL, kinds=KINDS, map_thresholds=0.5)
    assert "Solo" not in caplog.text + "".join(capsys.readouterr())
    assert {str(document.PatientName) for document in results.datasets.values()} == {"Solo"}


def test_what_cannot_be_made_is_left_out_with_the_reason(film, pixels, tmp_path):
    findings = [finding | {"present": False, "boxes": []} for finding in findings_of(SIZE)]
    results = write_dicom_results(film, pixels, findings, MODEL, tmp_path, stem="film 1")
    assert results.left_out == dict.fromkeys(("boxes", "probabilities"), "no finding is present")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["film 1.overlay.dcm", "film 1.report.dcm"]
    without_maps = [{key: value for key, value in finding.items() if key != "map"} for finding in findings_of(SIZE)]
    results = write_dicom_results(film, pixels, without_maps, MODEL)
    assert list(results.datasets) == ["report", "boxes", "overlay"]
    assert results.files == {}
    assert "return_maps=True" in results.left_out["probabilities"]


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


def changed(**values):
    findings = findings_of(SIZE)
    findings[2] |= values
    return findings


@pytest.mark.parametrize(
    ("findings", "message"),
    [
        ([], "`findings` must hold at least one"),
        (changed(score=1.2), r"`score` of Effusion must be in \[0, 1\]"),
        (changed(score=float("nan")), r"`score` of Effusion must be in \[0, 1\]"),
        (changed(threshold=float("inf")), "`threshold` of Effusion must be finite"),
        (changed(boxes=[box(0, 0, 131, 20)]), "`boxes` of Effusion must lie inside the film of 150 rows and 130"),
        (changed(label="Épanchement"), "`label` must be ASCII"),
    ],
)
def test_findings_that_are_not_this_films_are_refused(film, findings, message):
    with pytest.raises(ValueError, match=message):
        write_structured_report(film, findings, MODEL)


@pytest.mark.parametrize(
    ("findings", "values", "level", "message"),
    [
        (changed(map=np.ones((3, 3))), "probabilities", None, r"`map` of Effusion must have the film's \(150, 130\)"),
        (changed(map=np.full(SIZE, np.inf)), "probabilities", None, "`map` of Effusion must be finite"),
        (changed(), "regions", None, r"`map_thresholds` must be inside \(0, 1\) for"),
        (changed(), "regions", {"Effusion": 1.5}, r"`map_thresholds` must be inside \(0, 1\) for Effusion, got 1.5"),
        (changed(), "contours", None, "`values` must be of boxes, regions, probabilities, got 'contours'"),
        ([findings_of(SIZE)[0]], "boxes", None, "where no finding is present"),
    ],
)
def test_segmentations_say_what_they_lack(film, findings, values, level, message):
    with pytest.raises(ValueError, match=message):
        write_segmentation(film, findings, MODEL, values, map_thresholds=level)


def test_calls_that_make_no_sense_are_refused(film, pixels):
    findings = findings_of(SIZE)
    with pytest.raises(ValueError, match=r"`kinds` must be of report, .*, got sr"):
        write_dicom_results(film, pixels, findings, MODEL, kinds=["sr"])
    with pytest.raises(ValueError, match="`stem` must be a file name"):
        write_dicom_results(film, pixels, findings, MODEL, stem="../film")
    with pytest.raises(ValueError, match="`uids` must be 'same' or 'new', got 'old'"):
        write_structured_report(film, findings, MODEL, uids="old")
    with pytest.raises(ValueError, match=r"`pixels` must be \(rows, columns\) \(150, 130\)"):
        write_secondary_capture(film, pixels.T, findings, MODEL)
    with pytest.raises(ValueError, match="`weights_hash` must be 1 to 64 ASCII"):
        ModelIdentity("name", "")
    del film.SOPInstanceUID
    with pytest.raises(ValueError, match="`dataset` must have SOPInstanceUID, got none"):
        write_structured_report(film, findings, MODEL)


def test_a_missing_extra_is_named_with_its_command(film, monkeypatch):
    monkeypatch.setitem(sys.modules, "highdicom", None)
    with pytest.raises(ImportError, match=r"pip install 'clarity_hf\[dicom\]'"):
        write_structured_report(film, findings_of(SIZE), MODEL)


def test_a_model_is_named_by_its_weights(tiny_model):
    identity = ModelIdentity.of(tiny_model, "tiny")
    assert (identity.name, len(identity.weights_hash)) == ("tiny", 16)


def errors_of(path):
    """What dciodvfy calls an error in a file."""
    said = subprocess.run(["dciodvfy", "-new", str(path)], capture_output=True, text=True, timeout=60, check=False)
    lines = (said.stdout + said.stderr).splitlines()
    return [line for line in lines if line.startswith(("Error", "fatal"))] + ([] if lines else ["nothing was said"])


needs_dciodvfy = pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="no dciodvfy here (Debian: dicom3tools)")


@needs_dciodvfy
def test_dciodvfy_sees_errors(written, tmp_path):
    broken = pydicom.dcmread(written[0]["report"])
    del broken.CompletionFlag
    broken.save_as(tmp_path / "broken.dcm")
    assert len(errors_of(tmp_path / "broken.dcm")) == 1


@needs_dciodvfy
@pytest.mark.parametrize("kind", KINDS)
def test_dciodvfy_finds_no_error_for_a_clean_film(written, kind):
    assert errors_of(written[0][kind].with_name("source.dcm")) == []
    assert errors_of(written[0][kind]) == []


@needs_dciodvfy
def test_dciodvfy_finds_no_error_for_a_real_film(tmp_path):
    path = SHARED / "RG1_J2KI.dcm"
    if not path.is_file():
        pytest.skip("no real DICOM film here")
    film = pydicom.dcmread(path, stop_before_pixels=True)  # spacing 0, no BurnedInAnnotation, a name of one part
    pixels = np.tile(np.arange(film.Columns, dtype=np.float32) % 256, (film.Rows, 1))
    findings = [finding for finding in findings_of(SIZE) if finding["label"] in ("Effusion", "Hernia")]
    for finding in findings:
        finding["map"] = np.full(pixels.shape, 1.0, dtype=np.float32)
        finding["map"][:900] = 0.2
    results = write_dicom_results(film, pixels, findings, MODEL, tmp_path, KINDS, map_thresholds=0.5)
    assert results.left_out == {}
    assert {kind: errors_of(path) for kind, path in results.files.items()} == {kind: [] for kind in KINDS}


@pytest.mark.skipif(shutil.which("dsrdump") is None, reason="no dsrdump here (Debian: dcmtk)")
def test_dsrdump_reads_the_report(written):
    said = subprocess.run(["dsrdump", "+Pl", str(written[0]["report"])], capture_output=True, timeout=60, check=False)
    assert (said.returncode, said.stderr) == (0, b"")
    shown = said.stdout.decode("latin-1")  # of the film's character set
    assert "UNVERIFIED" in shown
    assert shown.count('"Measurement Group"') == 15  # 14 findings, one of them with two boxes
    assert NOTICE in shown


@pytest.mark.network
def test_dicom_validator_finds_no_error(written):
    validator = pytest.importorskip("dicom_validator.validator.dicom_file_validator")
    reader = pytest.importorskip("dicom_validator.spec_reader.edition_reader")
    editions = reader.EditionReader()  # downloads the standard into its own cache
    info = editions.load_dicom_info(editions.get_edition("current"))
    for kind, path in written[0].items():
        found = validator.DicomFileValidator(info).validate(str(path))
        assert {result.status.name for result in found.values()} == {"Passed"}, (kind, found)
