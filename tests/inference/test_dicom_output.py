# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Findings as DICOM objects: what went in comes out, validators find no error, a second run is the same instance."""

import copy
import dataclasses
import importlib.util
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clarity_hf.phantoms import draw_phantom

pydicom = pytest.importorskip("pydicom")
highdicom = pytest.importorskip("highdicom")

from clarity_hf.inference.dicom_output import (  # noqa: E402
    KINDS,
    ModelIdentity,
    ResultOptions,
    stored_map_size,
    write_dicom_results,
    write_secondary_capture,
    write_segmentation,
    write_structured_report,
)

SHARED = Path(__file__).resolve().parents[3] / "shared" / "dicom"
_spec = importlib.util.spec_from_file_location("dicom_cases", Path(__file__).with_name("dicom_cases.py"))
cases = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(cases)
MODEL, SIZE, WHEN = cases.MODEL, cases.SIZE, cases.WHEN
HALF = ResultOptions(map_thresholds=0.5)
box, digital_radiograph, errors_of, findings_of = (
    cases.box,
    cases.digital_radiograph,
    cases.errors_of,
    cases.findings_of,
)


@pytest.fixture(scope="module")
def pixels():
    return draw_phantom(3, size=SIZE, findings=["Effusion", "Mass"]).image


@pytest.fixture
def image(pixels):
    return digital_radiograph(pixels)


@pytest.fixture(scope="module")
def written(pixels, tmp_path_factory):
    """Every kind of one image, as files, and what they were made from."""
    image = digital_radiograph(pixels)
    folder = tmp_path_factory.mktemp("dicom")
    image.save_as(folder / "source.dcm", enforce_file_format=True)
    findings = findings_of(SIZE)
    options = ResultOptions(created=WHEN, map_thresholds=0.5)
    results = write_dicom_results(image, pixels, findings, MODEL, folder, KINDS, options=options)
    assert results.left_out == {}
    return results.files, findings


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


def reduced(heat):
    """A map of the image's size at an eighth of it, by areas."""
    rows, columns = stored_map_size(SIZE)
    return np.asarray(Image.fromarray(heat).resize((columns, rows), Image.Resampling.BOX))


def test_maps_are_stored_at_an_eighth_and_come_back_to_half_a_level_of_8_bits(written):
    files, findings = written
    document = highdicom.seg.segread(files["probabilities"])
    assert (document.SegmentationType, document.SegmentationFractionalType) == ("FRACTIONAL", "PROBABILITY")
    assert (document.Rows, document.Columns) == stored_map_size(SIZE) == (19, 17)  # of 150 and 130
    present = [finding for finding in findings if finding["present"]]
    frames = document.pixel_array
    assert len(frames) == len(present)
    for frame, finding in zip(frames, present, strict=True):
        heat = reduced(finding["map"])
        assert frame.max() == 255
        np.testing.assert_allclose(frame / 255, heat / heat.max(), atol=0.5 / 255 + 1e-6)


def test_a_map_that_is_reduced_already_is_stored_as_it_is(image):
    findings = findings_of(SIZE)
    small = [finding | {"map": reduced(finding["map"])} for finding in findings]
    first, second = (write_segmentation(image, some, MODEL, "probabilities") for some in (findings, small))
    np.testing.assert_array_equal(first.pixel_array, second.pixel_array)


def test_a_reduced_map_says_how_large_its_pixels_are(image):
    image.PixelSpacing = [0.2, 0.1]
    document = write_segmentation(image, findings_of(SIZE), MODEL, "probabilities")
    (measures,) = document.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence
    np.testing.assert_allclose(measures.PixelSpacing, [0.2 * 150 / 19, 0.1 * 130 / 17])
    (boxes,) = write_segmentation(image, findings_of(SIZE), MODEL, "boxes").SharedFunctionalGroupsSequence
    assert boxes.PixelMeasuresSequence[0].PixelSpacing == [0.2, 0.1]


def test_regions_are_what_lies_above_the_share_of_the_peak(image):
    findings = findings_of(SIZE)
    levels = {"Effusion": 0.5, "Mass": 0.9, "Pleural_Thickening": 0.1}
    document = write_segmentation(image, findings, MODEL, "regions", ResultOptions(map_thresholds=levels))
    for frame, finding in zip(document.pixel_array, (f for f in findings if f["present"]), strict=True):
        heat = reduced(finding["map"])
        np.testing.assert_array_equal(frame.astype(bool), heat > levels[finding["label"]] * heat.max())


def test_segments_are_automatic_and_name_the_algorithm(written):
    for kind in ("boxes", "regions", "probabilities"):
        for segment in pydicom.dcmread(written[0][kind]).SegmentSequence:
            assert segment.SegmentAlgorithmType == "AUTOMATIC"
            algorithm = segment.SegmentationAlgorithmIdentificationSequence[0]
            assert (algorithm.AlgorithmName, algorithm.AlgorithmVersion) == (MODEL.name, MODEL.version)
            assert MODEL.weights_hash in algorithm.AlgorithmParameters


def test_the_overlay_keeps_the_image_and_adds_a_strip_below_it(image, pixels):
    from clarity_hf.visualization import draw_findings

    findings = findings_of(SIZE)
    document = write_secondary_capture(image, pixels, findings, MODEL)
    drawn = np.asarray(draw_findings(pixels, findings))
    shown = document.pixel_array
    np.testing.assert_array_equal(shown[: drawn.shape[0]], drawn)
    strip = shown[drawn.shape[0] :]
    assert strip.shape[0] > 30
    assert strip.max() == 255
    assert 0.005 < (strip > 128).mean() < 0.3  # text on black
    assert document.SourceImageSequence[0].ReferencedSOPInstanceUID == "2.25.1001"


def test_a_large_overlay_is_reduced(pixels, monkeypatch):
    monkeypatch.setattr("clarity_hf.inference.dicom_output.MAX_OVERLAY_SIDE", 600)
    large = np.kron(pixels, np.ones((8, 8), dtype=np.uint8))
    findings = findings_of(large.shape)
    findings[2]["boxes"] = [box(400, 200, 800, 600)]  # half the reduced image's width, and of 1200 rows a third
    document = write_secondary_capture(digital_radiograph(large), large, findings[2:3], MODEL)
    assert document.Columns == 520
    assert 600 < document.Rows < 700
    orange = (np.abs(document.pixel_array[:600].astype(int) - (0xE6, 0x9F, 0)).sum(axis=-1) < 30).any(axis=0)
    assert np.flatnonzero(orange)[[0, -1]] == pytest.approx([200, 400], abs=8)


@pytest.mark.parametrize("answer", ["YES", "NO", None])
def test_whether_text_names_the_patient_is_the_images_own_answer(image, pixels, answer):
    image.BurnedInAnnotation = answer
    document = write_secondary_capture(image, pixels, findings_of(SIZE), MODEL)
    assert document.get("BurnedInAnnotation") == answer


def test_patient_and_study_are_the_images_and_the_series_is_not(written):
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
        time = "PresentationCreation" if document.Modality == "PR" else "Content"
        assert (document[f"{time}Date"].value, document[f"{time}Time"].value) == ("20260304", "050607.000000")
        assert (document.Manufacturer, document.ManufacturerModelName) == ("clarity_hf", MODEL.name)
        assert document.ContentQualification == "RESEARCH"
        assert "not for diagnosis" in document.SeriesDescription
        series.add(document.SeriesInstanceUID)
    assert len(series) == len(KINDS)
    assert "2.25.1003" not in series


def test_a_second_run_writes_the_same_bytes_at_another_time(image, pixels, tmp_path):
    for run in ("first", "second"):
        write_dicom_results(image, pixels, findings_of(SIZE), MODEL, tmp_path / run, KINDS, options=HALF)
    for kind in KINDS:
        name = f"findings.{kind}.dcm"
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()


def test_what_batches_change_in_the_last_digits_is_not_written(image, pixels):
    findings = findings_of(SIZE)
    other = copy.deepcopy(findings)
    for finding in other:
        finding["score"] += 6e-8
        for one in finding["boxes"]:
            one |= {"xmin": one["xmin"] * (1 + 1e-6), "ymin": one["ymin"] * (1 + 1e-6)}
    first, second = (
        write_dicom_results(image, pixels, some, MODEL, kinds=KINDS, options=HALF).datasets
        for some in (findings, other)
    )
    assert first == second


def test_other_findings_are_another_instance_of_the_same_series_and_other_weights_another_series(image):
    findings = findings_of(SIZE)
    first = write_structured_report(image, findings, MODEL)
    without_maps = [{key: value for key, value in finding.items() if key != "map"} for finding in findings]
    assert write_structured_report(image, without_maps, MODEL).SOPInstanceUID == first.SOPInstanceUID
    findings[0]["threshold"] += 0.1
    second = write_structured_report(image, findings, MODEL)
    assert second.SeriesInstanceUID == first.SeriesInstanceUID
    assert second.SOPInstanceUID != first.SOPInstanceUID
    third = write_structured_report(image, findings, ModelIdentity(MODEL.name, "other", MODEL.version))
    assert third.SeriesInstanceUID != first.SeriesInstanceUID


@pytest.mark.parametrize("changed", [{"doubt": "A lateral view?"}, {"created": WHEN}, {"map_thresholds": 0.7}])
def test_whatever_changes_the_content_changes_the_instance(image, pixels, changed):
    first, second = (
        write_dicom_results(image, pixels, findings_of(SIZE), MODEL, kinds=KINDS, options=options).datasets
        for options in (HALF, dataclasses.replace(HALF, **changed))
    )
    for kind in KINDS:
        differ = first[kind].SOPInstanceUID != second[kind].SOPInstanceUID
        assert differ == (first[kind] != second[kind]), kind
    assert first["regions"].SOPInstanceUID != second["regions"].SOPInstanceUID


def test_new_uids_are_new_each_time(image):
    first, second = (write_structured_report(image, findings_of(SIZE), MODEL, ResultOptions("new")) for _ in range(2))
    assert first.SeriesInstanceUID != second.SeriesInstanceUID
    assert first.SOPInstanceUID != second.SOPInstanceUID
    assert pydicom.uid.UID(first.SOPInstanceUID).is_valid


def test_a_warning_about_the_image_is_in_every_object(image, pixels):
    doubt = "It may be a lateral view"
    options = dataclasses.replace(HALF, doubt=doubt)
    results = write_dicom_results(image, pixels, findings_of(SIZE), MODEL, kinds=KINDS, options=options)
    for kind, document in results.datasets.items():
        assert doubt in document.to_json(), kind
    plain = write_secondary_capture(image, pixels, findings_of(SIZE), MODEL)
    assert results.datasets["overlay"].Rows > plain.Rows  # a line more


def test_results_of_a_5_megapixel_image_take_3_megabytes_at_most(tmp_path):
    size = (2500, 2048)
    noise = np.random.default_rng(0).normal(0, 4, size)
    pixels = (draw_phantom(1, size=size, findings=["Effusion"]).image + noise).clip(0, 255).astype(np.uint8)
    findings = findings_of(size)
    for finding in findings:  # the worst: every finding is present
        finding |= {"present": True, "boxes": finding["boxes"] or [box(10, 10, 900, 900)]}
        finding["map"] = finding["map"][::8, ::8]
    results = write_dicom_results(digital_radiograph(pixels), pixels, findings, MODEL, tmp_path)
    assert sum(path.stat().st_size for path in results.files.values()) < 3e6


def test_the_header_is_left_as_it_is(image, pixels):
    before = copy.deepcopy(image)
    write_dicom_results(image, pixels, findings_of(SIZE), MODEL, kinds=KINDS, options=HALF)
    assert image == before


def test_a_header_that_validators_or_highdicom_would_refuse_is_corrected_but_the_patient_is_copied(image, pixels):
    image.PixelSpacing = [0, 0]
    image.FrameOfReferenceUID = "2.25.7"
    del image.PatientOrientation, image.StudyID, image.ReferringPhysicianName, image.AccessionNumber
    image["PatientBirthDate"]._value = "19700230"  # no such day
    image["PatientSex"]._value = "U"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        results = write_dicom_results(image, pixels, findings_of(SIZE), MODEL, kinds=KINDS, options=HALF)
    for kind, document in results.datasets.items():
        assert (document.PatientBirthDate, document.PatientSex, document.StudyID) == ("19700230", "U", None), kind
    (spacing,) = results.datasets["boxes"].SharedFunctionalGroupsSequence[0].PixelMeasuresSequence
    assert spacing.PixelSpacing == [0.2, 0.2]  # of the detector, as that of the patient's plane is 0


@pytest.mark.parametrize("ratio", ["10:1", "unknown"])
def test_a_compression_ratio_that_is_no_number_is_left_out_of_the_results(image, pixels, ratio):
    image.LossyImageCompression = "01"
    tag = pydicom.tag.Tag("LossyImageCompressionRatio")
    as_read = pydicom.dataelem.RawDataElement(tag, "DS", len(ratio), ratio.encode(), 0, False, True)
    image._dict[tag] = as_read
    results = write_dicom_results(image, pixels, findings_of(SIZE), MODEL, kinds=KINDS, options=HALF)
    assert list(results.datasets) == list(KINDS)
    assert not any("LossyImageCompressionRatio" in document for document in results.datasets.values())


def test_an_image_in_a_wrapper_of_one_frame_is_taken_and_two_frames_are_not(image, pixels):
    image.SOPClassUID = pydicom.uid.MultiFrameGrayscaleByteSecondaryCaptureImageStorage
    image.NumberOfFrames = 1
    results = write_dicom_results(image, pixels, findings_of(SIZE), MODEL, kinds=KINDS, options=HALF)
    assert list(results.datasets) == list(KINDS)
    for kind, document in results.datasets.items():
        assert str(image.SOPClassUID) in document.to_json(), kind
        assert str(pydicom.uid.DigitalXRayImageStorageForPresentation) not in document.to_json()
    image.NumberOfFrames = 2
    with pytest.raises(ValueError, match="`dataset` must be of one image, got 2 frames"):
        write_structured_report(image, findings_of(SIZE), MODEL)


def test_names_of_people_are_never_printed(image, pixels, caplog, capsys):
    image.PatientName = image.ReferringPhysicianName = "Solo"  # highdicom doubts names of one part
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        results = write_dicom_results(image, pixels, findings_of(SIZE), MODEL, kinds=KINDS, options=HALF)
    assert "Solo" not in caplog.text + "".join(capsys.readouterr())
    assert {str(document.PatientName) for document in results.datasets.values()} == {"Solo"}


def test_what_cannot_be_made_is_left_out_with_the_reason(image, pixels, tmp_path):
    findings = [finding | {"present": False, "boxes": []} for finding in findings_of(SIZE)]
    results = write_dicom_results(image, pixels, findings, MODEL, tmp_path, stem="image 1")
    assert results.left_out == {"probabilities": "no finding is present"}
    names = ["image 1.overlay.dcm", "image 1.presentation.dcm", "image 1.report.dcm"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    without_maps = [{key: value for key, value in finding.items() if key != "map"} for finding in findings_of(SIZE)]
    results = write_dicom_results(image, pixels, without_maps, MODEL)
    assert list(results.datasets) == ["report", "presentation", "overlay"]
    assert results.files == {}
    assert "return_maps=True" in results.left_out["probabilities"]


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
        (changed(boxes=[box(0, 0, 131, 20)]), "`boxes` of Effusion must lie inside the image of 150 rows and 130"),
        (changed(label="Épanchement"), "`label` must be ASCII"),
    ],
)
def test_findings_that_are_not_this_images_are_refused(image, findings, message):
    with pytest.raises(ValueError, match=message):
        write_structured_report(image, findings, MODEL)


@pytest.mark.parametrize(
    ("findings", "values", "level", "message"),
    [
        (
            changed(map=np.ones((3, 3))),
            "probabilities",
            None,
            r"must have the image's \(150, 130\) or \(19, 17\)",
        ),
        (changed(map=np.full(SIZE, np.inf)), "probabilities", None, "`map` of Effusion must be finite"),
        (changed(), "regions", None, r"`map_thresholds` must be inside \(0, 1\) for"),
        (changed(), "regions", {"Effusion": 1.5}, r"`map_thresholds` must be inside \(0, 1\) for Effusion, got 1.5"),
        (changed(), "contours", None, "`values` must be of boxes, regions, probabilities, got 'contours'"),
        ([findings_of(SIZE)[0]], "boxes", None, "where no finding is present"),
    ],
)
def test_segmentations_say_what_they_lack(image, findings, values, level, message):
    with pytest.raises(ValueError, match=message):
        write_segmentation(image, findings, MODEL, values, ResultOptions(map_thresholds=level))


def test_calls_that_make_no_sense_are_refused(image, pixels):
    findings = findings_of(SIZE)
    with pytest.raises(ValueError, match=r"`kinds` must be some of report, .*, got sr"):
        write_dicom_results(image, pixels, findings, MODEL, kinds=["sr"])
    with pytest.raises(ValueError, match="`stem` must be a file name"):
        write_dicom_results(image, pixels, findings, MODEL, stem="../image")
    with pytest.raises(ValueError, match="`uids` must be 'same' or 'new', got 'old'"):
        ResultOptions(uids="old")
    with pytest.raises(ValueError, match=r"`pixels` must be \(rows, columns\) \(150, 130\)"):
        write_secondary_capture(image, pixels.T, findings, MODEL)
    with pytest.raises(ValueError, match="`weights_hash` must be 1 to 64 ASCII"):
        ModelIdentity("name", "")
    del image.SOPInstanceUID
    with pytest.raises(ValueError, match="`dataset` must have SOPInstanceUID, got none"):
        write_structured_report(image, findings, MODEL)


def test_a_missing_extra_is_named_with_its_command(image, monkeypatch):
    monkeypatch.setitem(sys.modules, "highdicom", None)
    with pytest.raises(ImportError, match=r"pip install 'clarity_hf\[dicom\]'"):
        write_structured_report(image, findings_of(SIZE), MODEL)


needs_dciodvfy = pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="no dciodvfy here (Debian: dicom3tools)")


@needs_dciodvfy
def test_dciodvfy_sees_errors(written, tmp_path):
    broken = pydicom.dcmread(written[0]["report"])
    del broken.CompletionFlag
    broken.save_as(tmp_path / "broken.dcm")
    assert len(errors_of(tmp_path / "broken.dcm")) == 1


@needs_dciodvfy
@pytest.mark.parametrize("kind", KINDS)
def test_dciodvfy_finds_no_error_for_a_clean_image(written, kind):
    assert errors_of(written[0][kind].with_name("source.dcm")) == []
    assert errors_of(written[0][kind]) == []


@needs_dciodvfy
def test_dcentvfy_finds_no_disagreement_between_the_image_and_its_results(written):
    folder = written[0]["report"].parent
    command = ["dcentvfy", *map(str, sorted(folder.glob("*.dcm")))]
    said = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert [line for line in (said.stdout + said.stderr).splitlines() if line.startswith("Error")] == []
    assert said.returncode == 0


@needs_dciodvfy
def test_dciodvfy_finds_no_error_for_a_real_image(tmp_path):
    path = SHARED / "RG1_J2KI.dcm"
    if not path.is_file():
        pytest.skip("no real DICOM image here")
    image = pydicom.dcmread(path, stop_before_pixels=True)  # spacing 0, no BurnedInAnnotation, a name of one part
    pixels = np.tile(np.arange(image.Columns, dtype=np.float32) % 256, (image.Rows, 1))
    findings = [finding for finding in findings_of(SIZE) if finding["label"] in ("Effusion", "Hernia")]
    for finding in findings:
        finding["map"] = np.full(pixels.shape, 1.0, dtype=np.float32)
        finding["map"][:900] = 0.2
    results = write_dicom_results(image, pixels, findings, MODEL, tmp_path, KINDS, options=HALF)
    assert results.left_out == {}
    assert {kind: errors_of(path) for kind, path in results.files.items()} == {kind: [] for kind in KINDS}


@pytest.mark.network
def test_dicom_validator_finds_no_error(written):
    validator = pytest.importorskip("dicom_validator.validator.dicom_file_validator")
    reader = pytest.importorskip("dicom_validator.spec_reader.edition_reader")
    editions = reader.EditionReader()  # downloads the standard into its own cache
    info = editions.load_dicom_info(editions.get_edition("current"))
    for kind, path in written[0].items():
        found = validator.DicomFileValidator(info).validate(str(path))
        assert {result.status.name for result in found.values()} == {"Passed"}, (kind, found)
