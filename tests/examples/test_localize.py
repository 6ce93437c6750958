# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""examples/localize.py: what it prints, what it writes and how it fails."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest
from PIL import Image

from clarity_hf import FINDINGS
from clarity_hf.phantoms import draw_phantom

SCRIPT = Path(__file__).parents[2] / "examples" / "localize.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("localize", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def run(script, tiny_checkpoint, tmp_path, monkeypatch, capsys):
    """Run the command in an empty folder: exit status, standard output, standard error."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments, model=str(tiny_checkpoint)):
        monkeypatch.setattr(sys, "argv", ["localize.py", *arguments, "--model", model])
        status = script.main()
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return call


def assert_covers(picture, height):
    """512 pixels wide, and as high as the image; a strip below it may name findings whose boxes are not drawn."""
    size = Image.open(picture).size
    assert size[0] == 512
    assert height <= size[1] < height + 120


def boxes_of(record):
    return [box for finding in record["findings"] for box in finding["boxes"]]


def test_without_an_image_it_localizes_a_phantom(run, tmp_path):
    status, out, err = run()
    assert status == 0
    assert "5/5" in err
    lines = out.splitlines()
    assert lines[0].split() == ["finding", "score", "threshold", "box", "(xmin,", "ymin,", "xmax,", "ymax)"]
    assert {line.split()[0] for line in lines[1:15]} == set(FINDINGS)
    scores = [float(line[20:].split()[0]) for line in lines[1:15]]
    assert scores == sorted(scores, reverse=True)
    assert lines[-1] == "wrote demo-output/phantom.overlay.png and demo-output/phantom.json"
    assert_covers(tmp_path / "demo-output" / "phantom.overlay.png", 512)
    record = json.loads((tmp_path / "demo-output" / "phantom.json").read_text())
    assert record["image"] == "phantom"
    assert [finding["label"] for finding in record["findings"]] == [line.split()[0] for line in lines[1:15]]


def test_a_portrait_image_has_its_own_picture_and_record(run, image, tmp_path):
    Image.fromarray(image).save(tmp_path / "portrait.png")
    status, out, _ = run("portrait.png", "--output_dir", "results/today")
    assert status == 0
    assert "results/today/portrait.overlay.png" in out
    # 120 × 90 pixels, enlarged until the shorter side has 512.
    assert_covers(tmp_path / "results" / "today" / "portrait.overlay.png", 683)
    record = json.loads((tmp_path / "results" / "today" / "portrait.json").read_text())
    assert len(record["findings"]) == 14
    for box in boxes_of(record):
        assert 0 <= box["xmin"] < box["xmax"] <= 90
        assert 0 <= box["ymin"] < box["ymax"] <= 120
    for finding in record["findings"]:
        assert set(finding) == {"label", "score", "threshold", "present", "boxes"}
        assert finding["present"] == (finding["score"] >= finding["threshold"])


def test_a_dicom_image_is_named_by_its_whole_uid(run, image, tmp_path):
    pydicom = pytest.importorskip("pydicom", minversion="3.0")
    dataset = pydicom.Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.1", "1.2.3.4"
    dataset.Modality, dataset.ViewPosition, dataset.BodyPartExamined = "CR", "PA", "CHEST"
    dataset.PhotometricInterpretation, dataset.PixelRepresentation, dataset.SamplesPerPixel = "MONOCHROME1", 0, 1
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.Rows, dataset.Columns = image.shape
    dataset.PixelData = (4095 - image.astype("<u2") * 16).tobytes()
    dataset["PixelData"].VR = "OW"
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    dataset.save_as(tmp_path / "1.2.3.4", enforce_file_format=True)
    Image.fromarray(image).save(tmp_path / "image.2.png")
    records = []
    for name, written in (("1.2.3.4", "1.2.3.4"), ("image.2.png", "image.2")):
        status, out, err = run(name)
        assert status == 0, err
        assert out.splitlines()[-1] == f"wrote demo-output/{written}.overlay.png and demo-output/{written}.json"
        records.append(json.loads((tmp_path / "demo-output" / f"{written}.json").read_text())["findings"])
    scores = [{finding["label"]: finding["score"] for finding in found} for found in records]
    # 16 · 255 of 4,095 is not quite white: the DICOM image is read with its levels stretched by a hundredth at most.
    assert scores[0] == pytest.approx(scores[1], abs=0.02)


def test_an_image_that_looks_wrong_gets_a_warning_above_the_table_or_is_refused(run, tmp_path):
    Image.fromarray(255 - draw_phantom(0, size=128).image).save(tmp_path / "dark.png")
    status, out, err = run("dark.png")
    assert status == 0
    assert out.startswith("warning: ")
    assert "looks like a radiograph with dark bones" in out.splitlines()[0]
    assert out.count("warning") == 1
    assert "warning" not in run("dark.png", "--radiograph_check", "off")[1]
    (tmp_path / "demo-output" / "dark.json").unlink()
    status, out, err = run("dark.png", "--radiograph_check", "refuse")
    assert (status, out) == (1, "")
    assert "looks like a radiograph with dark bones" in err
    assert not (tmp_path / "demo-output" / "dark.json").exists()


def test_a_library_that_is_missing_is_an_error_with_the_command(run, tmp_path, monkeypatch):
    (tmp_path / "image.dcm").write_bytes(b"\0" * 128 + b"DICM")
    monkeypatch.setitem(sys.modules, "pydicom.pixels", None)
    status, out, err = run("image.dcm")
    assert (status, out) == (1, "")
    assert "clarity_hf[dicom]" in err


def test_the_table_marks_what_is_present(script):
    box = {"xmin": 96.4, "ymin": 151.0, "xmax": 170.0, "ymax": 215.2}
    lines = script.table(
        [
            {"label": "Effusion", "score": 0.914, "threshold": 0.31, "present": True, "boxes": [box]},
            {"label": "Mass", "score": 0.05, "threshold": 0.5, "present": False, "boxes": []},
        ]
    )
    assert lines[1:] == [
        "Effusion           *  0.91       0.31  (96, 151, 170, 215)",
        "Mass                  0.05       0.50  ",
    ]


@pytest.mark.parametrize(
    ("content", "error"), [(None, "No such file: bad.png"), (b"this is no image", "`bad.png` must be")]
)
def test_a_bad_image_is_an_error_that_names_it(run, tmp_path, content, error):
    if content is not None:
        (tmp_path / "bad.png").write_bytes(content)
    status, out, err = run("bad.png")
    assert status == 1
    assert out == ""
    assert f"error: {error}" in err
    assert not (tmp_path / "demo-output").exists()


def test_a_model_that_is_not_there_is_an_error(run, tmp_path):
    status, out, err = run(model=str(tmp_path / "nowhere"))
    assert (status, out) == (1, "")
    assert "error: " in err
    assert "nowhere" in err
