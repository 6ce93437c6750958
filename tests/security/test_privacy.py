# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""A marked patient in a marked folder goes through everything; what comes out is searched, byte for byte."""

import io
import json
import logging
import sys
import traceback
import zipfile

import pytest
from PIL import Image
from safetensors import safe_open

from clarity_hf import ChestXrayLocalizationPipeline, ClarityImageProcessor, read_image
from clarity_hf.cli import main
from clarity_hf.phantoms import draw_phantom

pydicom = pytest.importorskip("pydicom")
pytest.importorskip("highdicom")

FOLDER = "qxmarkfolder"
STUDY = ("qxmarkname", "qxmarkid", "qxmarkacc", "qxmarkinst", "qxmarkdoctor", "19010703", "2.25.77777")
"""Of the patient and the study: name, number, accession, institution, physician, date of birth, root of the UIDs."""


def write_image(path, **changed):
    """A DX image of 96 × 96 pixels with every mark."""
    pixels = draw_phantom(1, size=96).image
    image = pydicom.Dataset()
    image.file_meta = pydicom.dataset.FileMetaDataset()
    image.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    image.file_meta.MediaStorageSOPClassUID = pydicom.uid.DigitalXRayImageStorageForPresentation
    image.file_meta.MediaStorageSOPInstanceUID = "2.25.777771"
    values = {
        "SOPClassUID": pydicom.uid.DigitalXRayImageStorageForPresentation,
        "SOPInstanceUID": "2.25.777771",
        "StudyInstanceUID": "2.25.777772",
        "SeriesInstanceUID": "2.25.777773",
        "PatientName": "QxMarkName^Ada",
        "PatientID": "QXMARKID",
        "PatientBirthDate": "19010703",
        "AccessionNumber": "QXMARKACC",
        "InstitutionName": "QxMarkInst",
        "ReferringPhysicianName": "QxMarkDoctor",
        "StudyDate": "20250102",
        "StudyTime": "101112",
        "Modality": "DX",
        "BodyPartExamined": "CHEST",
        "ViewPosition": "PA",
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "Rows": 96,
        "Columns": 96,
        "BitsAllocated": 8,
        "BitsStored": 8,
        "HighBit": 7,
        "PixelRepresentation": 0,
        "PixelData": pixels.tobytes(),
    }
    for name, value in (values | changed).items():
        if value is None:
            continue
        setattr(image, name, value)
    image.save_as(path, enforce_file_format=True)
    return path


def marks_in(content, marks):
    """The marks that some bytes hold, in the encodings of texts, whatever the case."""
    lowered = content.lower()
    return sorted(m for m in marks if any(m.encode(code) in lowered for code in ("utf-8", "utf-16-le", "utf-16-be")))


def contents(path):
    """A file's bytes, and what formats keep compressed: text and EXIF of pictures, parts of archives, metadata."""
    content = path.read_bytes()
    yield content
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            yield from (name.encode() + archive.read(name) for name in archive.namelist())
    if path.suffix in (".png", ".jpg", ".webp"):
        with Image.open(io.BytesIO(content)) as picture:
            picture.load()
            yield repr((picture.info, dict(picture.getexif()))).encode()
    if path.suffix == ".safetensors":
        with safe_open(path, framework="np") as file:
            yield repr(file.metadata()).encode()


def marked_files(folder, marks):
    """Marks by file below a folder, also in the file's own name."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        held = {m for content in (contents(path) if path.is_file() else ()) for m in marks_in(content, marks)}
        held |= {*marks_in(name.encode(), marks)}
        if held:
            found[name] = sorted(held)
    return found


@pytest.fixture
def marked(tmp_path):
    """Folder with a mark in its name; two whole images and three that are refused."""
    folder = tmp_path / FOLDER / "images"
    folder.mkdir(parents=True)
    write_image(folder / "a.dcm")
    write_image(folder / "b.dcm", SOPInstanceUID="2.25.777774")
    for name, changed in BROKEN.items():
        write_image(folder / f"{name}.dcm", **changed)
    content = (folder / "a.dcm").read_bytes()
    (folder / "truncated.dcm").write_bytes(content[:-500])
    return folder


BROKEN = {
    "lateral": {"ViewPosition": "LL"},
    "modality": {"Modality": "CT"},
    "part": {"BodyPartExamined": "KNEE"},
    "frames": {"NumberOfFrames": 3},
    "constant": {"PixelData": bytes(96 * 96)},
    "short": {"Rows": 200},
    "colour": {"PhotometricInterpretation": "RGB", "SamplesPerPixel": 3, "PlanarConfiguration": 0},
    "empty": {"PixelData": None, "Rows": None},
    "processing": {"PresentationIntentType": "FOR PROCESSING"},
}


@pytest.fixture
def localizer(tiny_model):
    processor = ClarityImageProcessor(size={"height": 64, "width": 64})
    return ChestXrayLocalizationPipeline(model=tiny_model, image_processor=processor)


def test_the_search_finds_what_is_hidden(tmp_path):
    plain = {"plain.txt": b"x QxMarkId y", "wide.txt": "QXMARKID".encode("utf-16-le"), "none.txt": b"x"}
    for name, content in plain.items():
        (tmp_path / name).write_bytes(content)
    with zipfile.ZipFile(tmp_path / "packed.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a", b"QXMARKID" * 9)
    (tmp_path / "qxmarkid").mkdir()
    assert {*marked_files(tmp_path, STUDY)} == {"plain.txt", "wide.txt", "packed.npz", "qxmarkid"}


def test_results_texts_and_warnings_name_nobody(marked, localizer, caplog, capfd, recwarn):
    caplog.set_level(logging.DEBUG, logger="clarity_hf")
    for source in (marked / "a.dcm", (marked / "a.dcm").read_bytes(), pydicom.dcmread(marked / "a.dcm")):
        result = localizer(source)
        said = json.dumps(result) + caplog.text + "".join(map(str, capfd.readouterr()))
        said += "".join(str(warning.message) for warning in recwarn)
        assert marks_in(said.encode(), STUDY) == []


@pytest.mark.parametrize("name", [*BROKEN, "truncated"])
def test_errors_name_the_file_and_nobody(marked, name, caplog):
    caplog.set_level(logging.DEBUG, logger="clarity_hf")
    path = marked / f"{name}.dcm"
    for source in (path, path.read_bytes()):
        with pytest.raises(ValueError, match=" must ") as caught:
            read_image(source)
        told = "".join(traceback.format_exception(caught.value)) + repr(caught.value) + caplog.text
        assert marks_in(told.encode(), STUDY) == []
        assert (FOLDER in told) == isinstance(source, type(path))  # a path that was given is named


def test_predictions_name_images_and_nobody_but_where_dicom_is_asked_for(
    marked, tiny_checkpoint, tmp_path, caplog, capfd
):
    caplog.set_level(logging.DEBUG, logger="clarity_hf")
    out = tmp_path / "out"
    options = ("--csv", "--overlays", "--maps", "--dicom", "--device", "cpu", "--threshold", "0")
    words = ["predict", str(marked), "--model", str(tiny_checkpoint), "--output-dir", str(out), *options]
    assert main(words) == 3  # some images failed
    said = "".join(capfd.readouterr()) + caplog.text
    assert marks_in(said.encode(), (*STUDY, FOLDER)) == []
    found = marked_files(out, (*STUDY, FOLDER))
    assert {name.split("/")[0] for name in found} == {"dicom"}
    reports = {name: held for name, held in found.items() if name.endswith(".report.dcm")}
    assert len(reports) == 10  # of two images and of eight that are refused; they belong to the study, by design
    assert all({"qxmarkname", "qxmarkid", "19010703", "2.25.77777"} <= {*held} for held in reports.values())
    assert all(FOLDER not in held for held in found.values())
    written = {path.suffix for path in out.rglob("*") if path.is_file()}
    assert {".jsonl", ".csv", ".json", ".png", ".npz", ".dcm"} <= written
    assert (out / "findings.jsonl").read_text().count('"image": "') == 2
    assert (out / "failed.jsonl").read_text().count('"image": "') == len(BROKEN) + 1


def test_the_web_page_keeps_and_shows_nobody(marked, localizer):
    page = pytest.importorskip("clarity_hf.inference.web_page")
    from clarity_hf.inference import web_page_html

    image = page.localize_image(localizer, (marked / "a.dcm").read_bytes())  # as uploads come
    record = page.image_record(localizer, image, "tiny")
    held = json.dumps(record) + repr(image) + repr(vars(image))
    with pytest.raises(ValueError, match="must") as caught:
        page.localize_image(localizer, (marked / "lateral.dcm").read_bytes())
    refusal = web_page_html.refusal(page.plain_refusal(caught.value))
    assert marks_in((held + refusal).encode(), (*STUDY, FOLDER)) == []


def write_table(folder):
    """An own table with marked patients: 36 images of 64 × 64 pixels."""
    folder.mkdir(parents=True)
    lines = ["path,patient_id,split,Cardiomegaly,Effusion"]
    for index in range(36):
        Image.fromarray(draw_phantom(index, size=64).image).save(folder / f"image{index}.png")
        part = ("train", "train", "validation", "test")[index // 2 % 4]
        lines.append(f"image{index}.png,QXMARKID{index // 2},{part},{index % 2},{index // 4 % 2}")
    (folder / "images.csv").write_text("\n".join(lines) + "\n")
    return folder / "images.csv"


TINY = {
    **{"size": "ti16", "image_size": 32, "min_positives": 1, "max_steps": 2, "num_train_epochs": 1},
    **{"per_device_train_batch_size": 8, "bf16": False, "dataloader_num_workers": 0, "logging_steps": 1},
    **{"eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps", "save_steps": 1},
}


@pytest.mark.slow
def test_training_evaluation_and_calibration_keep_patients_only_where_they_are_needed(tmp_path, monkeypatch):
    table = write_table(tmp_path / FOLDER)
    out = tmp_path / "out"
    model, device = out / "run", ("--device", "cpu")
    words = [str(word) for name, value in TINY.items() for word in (f"--{name}", value)]
    monkeypatch.setattr(sys, "argv", ["clarity-hf"])
    assert main(["train", "--data_dir", str(table), "--output_dir", str(model), "--use_cpu", *words]) == 0
    some = ("--min-positives", "1")
    report = ("--split", "test", "--repeats", "4", "--output-dir", str(out / "report"))
    assert main(["evaluate", str(model), str(table), *report, *some, *device]) == 0
    assert main(["calibrate", str(model), str(table), "--output-dir", str(out / "calibrated"), *some]) == 0
    found = marked_files(out, ("qxmarkid", FOLDER))
    assert found == {
        "calibrated-records.jsonl": ["qxmarkid"],  # the bootstrap draws patients
        "report-records/clarity.jsonl": ["qxmarkid"],
        "report-records/random.jsonl": ["qxmarkid"],
        "run/run.json": [FOLDER],  # a run goes on with the same data
    }
