# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Many images in batches: what is written of each, and what becomes of bad ones."""

import csv
import errno
import json

import numpy as np
import pytest
import torch
from PIL import Image

from clarity_hf.inference import batch, find_images, predict_images
from clarity_hf.inference.dicom_output import KINDS
from clarity_hf.phantoms import draw_phantom

COUNT = 7


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def predicted(folder):
    return [record["image"] for record in lines(folder / "findings.jsonl")]


def png(index):
    return f"{index}.png"


# Predicting


def test_a_line_holds_what_the_pipeline_gives(pipeline, images, tmp_path):
    out = tmp_path / "out"
    counts = []
    summary = predict_images(
        pipeline,
        find_images([images]).images,
        out,
        batch_size=3,
        workers=2,
        progress=lambda *done: counts.append(done),
    )
    assert (summary.images, summary.skipped, summary.predicted, summary.failed) == (7, 0, 7, 0)
    assert counts == [(0, 7), (3, 7), (6, 7), (7, 7)]
    assert predicted(out) == [png(index) for index in range(COUNT)]
    record = lines(out / "findings.jsonl")[4]
    assert record["size"] == [120, 90]
    assert record["bytes"] == (images / "4.png").stat().st_size
    alone = pipeline(str(images / "4.png"))
    assert [finding["label"] for finding in record["findings"]] == [finding["label"] for finding in alone]
    for mine, theirs in zip(record["findings"], alone, strict=True):
        assert mine["score"] == pytest.approx(theirs["score"], abs=1e-5)
        assert (mine["threshold"], mine["present"]) == (theirs["threshold"], theirs["present"])
        for box, other in zip(mine["boxes"], theirs["boxes"], strict=True):
            assert box == pytest.approx(other, abs=1)


def test_a_threshold_decides_what_is_present(pipeline, images, tmp_path):
    found = find_images([images / "0.png"]).images
    for threshold, present in ((0.0, True), (1.0, False)):
        predict_images(pipeline, found, tmp_path / str(threshold), threshold=threshold)
        for finding in lines(tmp_path / str(threshold) / "findings.jsonl")[0]["findings"]:
            assert (finding["threshold"], finding["present"]) == (threshold, present)
            assert present or finding["boxes"] == []


@pytest.mark.parametrize("workers", [0, 2])
def test_bad_images_are_reported_without_their_folder_and_the_rest_are_predicted(pipeline, images, tmp_path, workers):
    (images / "0.png").write_bytes((images / "0.png").read_bytes()[:500])
    (images / "3.png").write_bytes(b"junk")
    found = find_images([images]).images
    (images / "6.png").unlink()
    summary = predict_images(pipeline, found, tmp_path / "out", batch_size=2, workers=workers)
    assert (summary.predicted, summary.failed) == (4, 3)
    assert predicted(tmp_path / "out") == [png(index) for index in (1, 2, 4, 5)]
    failed = lines(tmp_path / "out" / "failed.jsonl")
    assert [record["image"] for record in failed] == ["0.png", "3.png", "6.png"]
    for record in failed:
        assert record["image"] in record["reason"]
        assert str(tmp_path) not in record["reason"]


@pytest.mark.parametrize("outputs", [["overlays"], ["maps"], ["overlays", "maps"]])
def test_a_name_too_long_for_its_results_fails_alone(pipeline, images, tmp_path, outputs):
    long = "x" * 251 + ".png"
    (images / "3.png").rename(images / long)
    summary = predict_images(pipeline, find_images([images]).images, tmp_path / "out", outputs=outputs)
    assert (summary.predicted, summary.failed) == (COUNT - 1, 1)
    (failed,) = lines(tmp_path / "out" / "failed.jsonl")
    assert failed["image"] == long
    assert failed["reason"].endswith("File name too long. Rename the image.")
    assert list((tmp_path / "out").rglob(".unfinished-*")) == []


def test_a_folder_in_the_place_of_a_result_fails_its_image_alone(pipeline, images, tmp_path):
    (tmp_path / "out" / "overlays" / "3.png.png" / "x").mkdir(parents=True)
    summary = predict_images(pipeline, find_images([images]).images, tmp_path / "out", outputs=["overlays"])
    assert (summary.predicted, summary.failed) == (COUNT - 1, 1)


def test_a_full_disk_ends_the_run(pipeline, images, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np, "savez_compressed", full)
    with pytest.raises(OSError, match="No space left"):
        predict_images(pipeline, find_images([images]).images, tmp_path / "out", outputs=["maps"])


STRANGE_NAMES = ["a\rb.png", "a\nb.png", "a\r\nb.png", 'a"b.png', "a,b.png", "a\x1b[2Jb.png", "=1+1.png"]


def test_names_with_line_ends_quotes_and_commas_come_back_from_every_table(pipeline, images, tmp_path):
    for index, name in enumerate(STRANGE_NAMES):
        (images / png(index)).rename(images / name)
    predict_images(pipeline, find_images([images]).images, tmp_path / "out", threshold=0.0, table=True)
    for table in ("findings", "boxes"):
        with (tmp_path / "out" / f"{table}.csv").open(newline="") as file:
            rows = list(csv.reader(file))
        assert {len(row) for row in rows} == {len(rows[0])}
        assert {row[0] for row in rows[1:]} == set(STRANGE_NAMES)
    assert b"\r\n" not in (tmp_path / "out" / "boxes.csv").read_bytes().replace(b"a\r\nb.png", b"")
    assert set(predicted(tmp_path / "out")) == set(STRANGE_NAMES)


@pytest.mark.parametrize("error", [MemoryError(), OSError(errno.ENOMEM, "Cannot allocate memory")], ids=str)
def test_too_little_memory_does_not_read_as_a_broken_image(pipeline, images, tmp_path, monkeypatch, error):
    def broken(*_):
        try:
            raise error
        except (MemoryError, OSError) as cause:
            raise ValueError("`image` must be a whole image") from cause

    monkeypatch.setattr(batch, "read_image", broken)
    predict_images(pipeline, find_images([images]).images[:1], tmp_path / "out")
    reason = lines(tmp_path / "out" / "failed.jsonl")[0]["reason"]
    assert reason.startswith("Too little free memory for `0.png`.")


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"),
        torch.OutOfMemoryError("CUDA out of memory"),
    ],
    ids=repr,
)
def test_a_batch_too_large_for_the_memory_ends_the_run_with_the_way_out(
    pipeline, images, tmp_path, monkeypatch, error
):
    def large(*_):
        raise error

    monkeypatch.setattr(pipeline, "forward", large)
    with pytest.raises(MemoryError, match=r"A batch of 4 images does not fit into memory\. Lower"):
        predict_images(pipeline, find_images([images]).images, tmp_path / "out", batch_size=4)


def test_scores_with_nan_fail_their_image(pipeline, images, tmp_path):
    with torch.no_grad():
        pipeline.model.class_token_head.bias.fill_(float("nan"))
    summary = predict_images(pipeline, find_images([images]).images, tmp_path / "out", table=True)
    assert (summary.predicted, summary.failed) == (0, COUNT)
    assert "must give finite scores in [0, 1], got nan" in lines(tmp_path / "out" / "failed.jsonl")[0]["reason"]
    assert "NaN" not in (tmp_path / "out" / "findings.jsonl").read_text()


def test_the_words_of_an_unexpected_error_are_not_repeated(pipeline, images, tmp_path, monkeypatch):
    def broken(*_):
        raise RuntimeError("PatientName Doe^Jane")

    monkeypatch.setattr(batch, "read_image", broken)
    predict_images(pipeline, find_images([images]).images[:1], tmp_path / "out")
    assert lines(tmp_path / "out" / "failed.jsonl")[0]["reason"].startswith(
        "`0.png` must be readable, got an unexpected RuntimeError."
    )


def test_an_image_that_failed_is_tried_again(pipeline, images, image, tmp_path):
    (images / "2.png").write_bytes(b"junk")
    predict_images(pipeline, find_images([images]).images, tmp_path / "out")
    Image.fromarray(image).save(images / "2.png")
    summary = predict_images(pipeline, find_images([images]).images, tmp_path / "out")
    assert (summary.skipped, summary.predicted, summary.failed) == (6, 1, 0)
    assert (tmp_path / "out" / "failed.jsonl").read_text() == ""


def test_pictures_maps_and_tables_stand_beside_the_lines(pipeline, images, tmp_path):
    (images / "study").mkdir()
    (images / "1.png").rename(images / "study" / "1.png")
    out = tmp_path / "out"
    found = find_images([images], recursive=True).images
    predict_images(pipeline, found, out, threshold=0.0, outputs=["overlays", "maps"], table=True)
    with Image.open(out / "overlays" / "0.png.png") as overlay:
        assert overlay.width == 512
        assert overlay.height > 683  # a strip below the image names the map and its scale
    with np.load(out / "maps" / "study" / "1.png.npz") as maps:
        assert maps["maps"].shape == (14, 4, 4)
        assert maps["image_size"].tolist() == [120, 90]
        assert maps["input_size"].tolist() == [64, 64]
        assert maps["content"].tolist() == [0, 8, 64, 48]  # 120 × 90 fits 64 × 64 as 64 × 48, centred
        assert maps["labels"][0] == "Atelectasis"
    records = {record["image"]: record for record in lines(out / "findings.jsonl")}
    with (out / "findings.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["image"] for row in rows} == set(records)
    for row in rows:
        for finding in records[row["image"]]["findings"]:
            assert float(row[finding["label"]]) == finding["score"]
            assert row[f"{finding['label']} present"] == "1"
    with (out / "boxes.csv").open(newline="") as file:
        boxes = sum(1 for _ in csv.DictReader(file))
    assert boxes == sum(len(finding["boxes"]) for record in records.values() for finding in record["findings"]) > 0
    assert list(out.rglob(".unfinished-*")) == []


@pytest.mark.parametrize(("present", "boxless"), [((2, 5), ()), ((2, 5), (2,)), ((2,), (2,)), ((), ())])
def test_the_map_of_the_first_finding_with_a_box_or_else_of_the_first_present_one_is_drawn(
    pipeline, images, tmp_path, monkeypatch, present, boxless
):
    drawn = []
    draw = batch.draw_findings
    monkeypatch.setattr(
        batch, "draw_findings", lambda *given, **options: drawn.append(given[2]) or draw(*given, **options)
    )
    ranked = [finding["label"] for finding in pipeline(str(images / "0.png"))]
    thresholds = [0.0 if ranked.index(label) in present else 1.0 for label in pipeline.model.config.findings]
    pipeline.model.config.score_thresholds = thresholds
    pipeline.model.config.boxless_findings = [ranked[rank] for rank in boxless]
    predict_images(pipeline, find_images([images / "0.png"]).images, tmp_path / "out", outputs=["overlays"])
    shown = [rank for rank in present if rank not in boxless] or present
    assert drawn == [ranked[shown[0]] if shown else None]


def test_a_broken_link_with_the_ending_of_an_image_is_an_image_that_fails(pipeline, images, tmp_path):
    (images / "7.png").symlink_to(images / "nowhere.png")
    summary = predict_images(pipeline, find_images([images]).images, tmp_path / "out")
    assert (summary.predicted, summary.failed) == (COUNT, 1)
    assert lines(tmp_path / "out" / "failed.jsonl")[0]["image"] == "7.png"


# What does not look like a frontal chest radiograph


@pytest.fixture
def mixed(tmp_path):
    """Folder of two phantoms, one of them inverted, and noise."""
    folder = tmp_path / "mixed"
    folder.mkdir()
    phantom = draw_phantom(0, size=128).image
    noise = np.random.default_rng(0).integers(0, 256, (100, 128)).astype(np.uint8)
    for name, pixels in (("dark", 255 - phantom), ("good", phantom), ("noise", noise)):
        Image.fromarray(pixels).save(folder / f"{name}.png")
    return folder


@pytest.mark.parametrize("workers", [0, 2])
def test_what_looks_wrong_is_predicted_with_a_warning_in_its_line_and_its_row(pipeline, mixed, tmp_path, workers):
    out = tmp_path / "out"
    summary = predict_images(pipeline, find_images([mixed]).images, out, batch_size=2, workers=workers, table=True)
    assert (summary.predicted, summary.failed, summary.warned) == (3, 0, 2)
    records = {record["image"]: record for record in lines(out / "findings.jsonl")}
    assert "warning" not in records["good.png"]
    assert records["dark.png"]["warning"]["kind"] == "inverted"
    assert set(records["noise.png"]["warning"]) == {"kind", "reason", "probability"}
    assert len(records["noise.png"]["findings"]) == 14
    with (out / "findings.csv").open(newline="") as file:
        reasons = {row["image"]: row["warning"] for row in csv.DictReader(file)}
    assert reasons == {
        "dark.png": "a radiograph with dark bones",
        "good.png": "",
        "noise.png": "something other than a radiograph",
    }
    assert json.loads((out / "settings.json").read_text())["radiograph_check"] == "warn"


def test_what_looks_wrong_is_refused_where_asked_and_named_with_the_reason(pipeline, mixed, tmp_path):
    out, found = tmp_path / "out", find_images([mixed]).images
    summary = predict_images(pipeline, found, out, radiograph_check="refuse")
    assert (summary.predicted, summary.failed, summary.warned) == (1, 2, 0)
    assert predicted(out) == ["good.png"]
    failed = {record["image"]: record["reason"] for record in lines(out / "failed.jsonl")}
    assert "`noise.png` does not look like a frontal chest radiograph" in failed["noise.png"]
    assert "looks like a radiograph with dark bones" in failed["dark.png"]
    with pytest.raises(ValueError, match='radiograph_check "refuse" there, "off" now'):
        predict_images(pipeline, found, out, radiograph_check="off")


def test_unchecked_images_have_no_warning(pipeline, mixed, tmp_path):
    summary = predict_images(pipeline, find_images([mixed]).images, tmp_path / "out", radiograph_check="off")
    assert (summary.predicted, summary.warned) == (3, 0)
    assert "warning" not in (tmp_path / "out" / "findings.jsonl").read_text()


# Arguments


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"outputs": ["pictures"]}, "`outputs` must be of overlays, maps, dicom, .*, got pictures"),
        ({"threshold": 1.5}, r"`threshold` must be in \[0, 1\], got 1.5"),
        ({"radiograph_check": "on"}, "`radiograph_check` must be one of warn, refuse, off, got 'on'"),
        ({"batch_size": 0}, "`batch_size` must be at least 1, got 0"),
        ({"workers": -1}, "`workers` must be at least 0, got -1"),
        ({"rank": 2, "world_size": 2}, r"`rank` must be in \[0, 2\), got 2"),
    ],
)
def test_arguments_out_of_range_are_named_before_anything_is_written(pipeline, images, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        predict_images(pipeline, find_images([images]).images, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_images_of_one_name_are_refused(pipeline, images, tmp_path):
    found = find_images([images]).images
    with pytest.raises(ValueError, match=r"different names, got '0\.png' twice"):
        predict_images(pipeline, [*found, found[0]], tmp_path / "out")


# DICOM


def test_images_that_came_as_dicom_get_dicom_results(pipeline, images, image, tmp_path):
    pytest.importorskip("highdicom")
    write_dicom(images / "IM000001", image)
    out = tmp_path / "out"
    summary = predict_images(pipeline, find_images([images]).images, out, threshold=0.0, outputs=["dicom"])
    assert (summary.predicted, summary.failed) == (COUNT + 1, 0)
    kinds = sorted(path.name.removeprefix("IM000001.") for path in (out / "dicom").iterdir())  # and nothing unfinished
    assert kinds == ["overlay.dcm", "presentation.dcm", "probabilities.dcm", "report.dcm"]


def test_an_image_whose_header_lacks_what_a_report_needs_fails_alone(pipeline, images, image, tmp_path):
    pytest.importorskip("highdicom")
    write_dicom(images / "IM000001", image, StudyInstanceUID=None)
    out = tmp_path / "out"
    summary = predict_images(pipeline, find_images([images]).images, out, outputs=["dicom"])
    assert (summary.predicted, summary.failed) == (COUNT, 1)
    assert lines(out / "failed.jsonl")[0]["reason"].startswith("DICOM results: ")


def test_whatever_fails_in_dicom_results_fails_the_image_alone_but_a_full_disk_ends_the_run(
    pipeline, images, image, tmp_path, monkeypatch
):
    from clarity_hf.inference import dicom_inference

    pytest.importorskip("highdicom")
    write_dicom(images / "IM000001", image)
    found = find_images([images]).images

    def fails_with(error):
        def fail(*_, **__):
            raise error

        monkeypatch.setattr(dicom_inference, "write_dicom_results", fail)

    fails_with(AttributeError("PatientName Doe^Jane"))
    summary = predict_images(pipeline, found, tmp_path / "out", outputs=["dicom"])
    assert (summary.predicted, summary.failed) == (COUNT, 1)
    assert "Doe" not in (tmp_path / "out" / "failed.jsonl").read_text()
    fails_with(OSError("no space left"))
    with pytest.raises(OSError, match="no space left"):
        predict_images(pipeline, found, tmp_path / "out", outputs=["dicom"])


def test_dicom_results_are_the_same_bytes_whatever_the_batch(pipeline, image, tmp_path):
    pytest.importorskip("highdicom")
    (tmp_path / "images").mkdir()
    for index in range(5):
        write_dicom(tmp_path / "images" / str(index), np.roll(image, 11 * index, axis=1))
    found = find_images([tmp_path / "images"]).images
    written = []
    for batch_size in (1, 2, 5):
        out = tmp_path / f"out{batch_size}"
        predict_images(
            pipeline, found, out, threshold=0.0, outputs=["dicom"], dicom_kinds=KINDS, batch_size=batch_size
        )
        written.append({path.name: path.read_bytes() for path in (out / "dicom").iterdir()})
    assert len(written[0]) == 5 * len(KINDS)
    assert written[0] == written[1] == written[2]


def test_other_settings_are_other_instances(pipeline, image, tmp_path):
    pydicom = pytest.importorskip("pydicom")
    write_dicom(tmp_path / "image", image)
    found = find_images([tmp_path / "image"]).images
    uids = set()
    for number, threshold in enumerate((0.0, 0.01)):  # all findings are present with both
        out = tmp_path / f"out{number}"
        predict_images(pipeline, found, out, threshold=threshold, outputs=["dicom"], dicom_kinds=["overlay"])
        uids.add(pydicom.dcmread(out / "dicom" / "image.overlay.dcm").SOPInstanceUID)
    assert len(uids) == 2


def test_what_the_radiograph_check_says_stands_in_dicom_results(pipeline, tmp_path):
    pydicom = pytest.importorskip("pydicom")
    phantom = draw_phantom(0, size=128).image
    write_dicom(tmp_path / "dark", 255 - phantom)
    found = find_images([tmp_path / "dark"]).images
    predict_images(pipeline, found, tmp_path / "warned", threshold=0.0, outputs=["dicom"])
    written = {path.name: pydicom.dcmread(path).to_json() for path in (tmp_path / "warned" / "dicom").iterdir()}
    assert len(written) == 4
    for name, text in written.items():
        assert "Check: looks like a radiograph with dark bones" in text, name
    summary = predict_images(pipeline, found, tmp_path / "refused", outputs=["dicom"], radiograph_check="refuse")
    assert (summary.predicted, summary.failed) == (0, 1)
    (report,) = (tmp_path / "refused" / "dicom").iterdir()
    assert report.name == "dark.report.dcm"
    assert "The image was not analysed: `image` does not look like a frontal" in pydicom.dcmread(report).to_json()


def test_a_lateral_view_gets_a_report_that_it_was_not_analysed(pipeline, image, tmp_path):
    pydicom = pytest.importorskip("pydicom")
    write_dicom(tmp_path / "side", image, ViewPosition="LL")
    found = find_images([tmp_path / "side"]).images
    summary = predict_images(pipeline, found, tmp_path / "out", outputs=["dicom"])
    assert summary.failed == 1
    report = pydicom.dcmread(tmp_path / "out" / "dicom" / "side.report.dcm")
    assert "got a lateral view" in report.to_json()


def test_lines_and_tables_identify_patients_only_when_asked(pipeline, images, image, tmp_path):
    pydicom = pytest.importorskip("pydicom")
    write_dicom(images / "IM000001", image, AccessionNumber="A7")
    header = pydicom.dcmread(images / "IM000001", stop_before_pixels=True)
    found = find_images([images]).images
    for name, outputs in (("asked", ["identifiers"]), ("not", [])):
        predict_images(pipeline, found, tmp_path / name, outputs=outputs, table=True, threshold=0.0)
    wanted = [header.StudyInstanceUID, header.SeriesInstanceUID, header.SOPInstanceUID, "A7"]
    by_name = {line["image"]: line for line in lines(tmp_path / "asked" / "findings.jsonl")}
    assert [by_name["IM000001"][name] for name in ("study", "series", "sop", "accession")] == wanted
    assert "study" not in by_name["0.png"]
    for table in ("findings", "boxes"):
        rows = (tmp_path / "asked" / f"{table}.csv").read_text().splitlines()
        assert rows[0].endswith(",study,series,sop,accession")
        assert {row.startswith("IM000001") for row in rows if row.endswith(",".join(wanted))} == {True}
    for path in (tmp_path / "not").glob("*.[cj]s*"):
        assert header.StudyInstanceUID not in path.read_text(), path.name
    assert not (tmp_path / "asked" / "dicom").exists()


def test_images_that_came_as_dicom_get_fhir(pipeline, images, image, tmp_path):
    pytest.importorskip("fhir.resources")
    write_dicom(images / "IM000001", image)
    predict_images(
        pipeline, find_images([images]).images, tmp_path / "out", threshold=0.0, outputs=["fhir", "fhir_r5"]
    )
    kinds = set()
    for output in ("fhir", "fhir_r5"):
        (path,) = (tmp_path / "out" / output).iterdir()
        kinds |= {entry["resource"]["resourceType"] for entry in json.loads(path.read_text())["entry"]}
    assert kinds == {"DiagnosticReport", "Observation", "ImagingSelection"}


def write_dicom(path, pixels, **changes):
    """A CR image, PA, with every attribute that a report copies."""
    import pydicom
    from pydicom.uid import ComputedRadiographyImageStorage, ExplicitVRLittleEndian, generate_uid

    dataset = pydicom.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = ComputedRadiographyImageStorage
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = generate_uid(), generate_uid()
    dataset.PatientID, dataset.PatientName, dataset.PatientBirthDate, dataset.PatientSex = "1", "A", "", ""
    dataset.StudyID, dataset.AccessionNumber, dataset.ReferringPhysicianName = "1", "", ""
    dataset.StudyDate, dataset.StudyTime = "20200101", "120000"
    dataset.SeriesNumber, dataset.InstanceNumber = 1, 1
    dataset.Modality, dataset.BodyPartExamined, dataset.ViewPosition = "CR", "CHEST", "PA"
    dataset.PatientOrientation = ["L", "F"]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 8, 8, 7, 0
    dataset.PixelData = pixels.tobytes()
    for name, value in changes.items():
        delattr(dataset, name) if value is None else setattr(dataset, name, value)
    dataset.save_as(path, enforce_file_format=True)
