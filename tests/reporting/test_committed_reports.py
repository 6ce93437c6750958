# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""The part of a report that may be committed: figures and tables; no image of a patient, and no name."""

import dataclasses
import importlib.util
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clarity_hf.metrics.records import to_json
from clarity_hf.reporting.committed_reports import commit_report, write_index
from clarity_hf.reporting.evaluated import Evaluated
from clarity_hf.reporting.rendering import markdown
from clarity_hf.reporting.report import write_report
from clarity_hf.reporting.schema import Report

_spec = importlib.util.spec_from_file_location(
    "synthetic_records", Path(__file__).with_name("synthetic_records.py")
)
synthetic = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(synthetic)

PATIENT = "00012345"


def look(names):
    return {name: (np.arange(1024.0).reshape(32, 32) / 8, np.ones((4, 2, 2))) for name in names}


def evaluate(folder, data, split, is_phantom, records):
    """A report with its records beside it, as an evaluation leaves them."""
    about = {"model": "ours", "data": data, "split": split, "synthetic": is_phantom, "command": f"evaluate {data}"}
    thresholds = np.array(synthetic.THRESHOLDS)
    evaluated = Evaluated(records, synthetic.FINDINGS, thresholds, repeats=3, baselines={"random map": records})
    write_report(evaluated, folder, about, look=look)
    kept = folder.with_name(f"{folder.name}-records")
    kept.mkdir()
    lines = [json.dumps({"method": "CLARiTy"}), *(json.dumps(to_json(record)) for record in records)]
    (kept / "clarity.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


@pytest.fixture(scope="module")
def evaluations(tmp_path_factory):
    """Folder with the evaluations `drawings` and `images`; the second has names as in the NIH release. Read only."""
    folder = tmp_path_factory.mktemp("evaluations")
    records = synthetic.images(24)
    evaluate(folder / "drawings", "phantom", "test", True, records)
    named = [
        dataclasses.replace(record, name=f"{PATIENT}_{place:03d}", patient=PATIENT if place < 12 else "00067890")
        for place, record in enumerate(records)
    ]
    evaluate(folder / "images", "nih-subset", "validation", False, named)
    return folder


def changed(evaluations, tmp_path, change):
    """The report on images, changed, with its records."""
    folder = tmp_path / "images"
    for path in (*(evaluations / "images").rglob("*"), *(evaluations / "images-records").rglob("*")):
        if path.is_file():
            copy = tmp_path / path.relative_to(evaluations)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())
    content = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    change(content)
    (folder / "report.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


def written(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_report_of_drawings_is_committed_with_its_cases(evaluations, tmp_path):
    committed = commit_report(evaluations / "drawings", tmp_path)
    assert committed.folder == tmp_path / "phantom-test"
    files = written(committed.folder)
    assert sum(map(len, files.values())) == committed.size
    cases = {name for name in files if name.startswith("cases/")}
    assert cases == {f"cases/{case.picture}" for case in Report.read(evaluations / "drawings").cases}
    assert {name.split("-")[0] for name in cases} == {f"cases/{kind}" for kind in ("best", "false", "missed", "worst")}
    assert {name.split("/")[0] for name in files} == {"report.json", "tables", "figures", "cases"}
    source = json.loads((evaluations / "drawings" / "report.json").read_text(encoding="utf-8"))
    assert json.loads(files["report.json"]) == source


def test_tables_are_those_of_the_evaluation(evaluations, tmp_path):
    files = written(commit_report(evaluations / "images", tmp_path).folder)
    tables = {f"tables/{path.name}": path.read_bytes() for path in (evaluations / "images" / "tables").glob("*.md")}
    assert len(tables) > 10
    assert {name: content for name, content in files.items() if name.startswith("tables/")} == tables


def test_boxes_found_have_intervals_per_finding_in_the_copy_and_on_the_page(evaluations, tmp_path):
    folder = commit_report(evaluations / "drawings", tmp_path).folder
    table = (folder / "tables" / "localization_per_finding.md").read_text(encoding="utf-8")
    row = next(line for line in table.splitlines() if line.startswith("| Mass | tuned, any region |"))
    assert len(re.findall(r"\d\.\d{3} \(\d\.\d{3}–\d\.\d{3}\)", row)) == 7
    assert row in write_index(tmp_path, "ours").read_text(encoding="utf-8").splitlines()


def test_figures_take_the_format_of_fewer_bytes(evaluations, tmp_path):
    folder = commit_report(evaluations / "drawings", tmp_path).folder
    for name in ("roc", "boxes"):
        (figure,) = (folder / "figures").glob(f"{name}.*")
        source = evaluations / "drawings" / "figures"
        assert figure.stat().st_size <= min((source / f"{name}.{end}").stat().st_size for end in ("svg", "png"))
    small = evaluations.parent / "small"
    (small / "figures").mkdir(parents=True, exist_ok=True)
    (small / "report.json").write_bytes((evaluations / "drawings" / "report.json").read_bytes())
    Image.effect_noise((64, 64), 90).save(small / "figures" / "roc.png")
    (small / "figures" / "roc.svg").write_text("<svg/>", encoding="utf-8")
    for path in (evaluations / "drawings" / "cases").glob("*.jpg"):
        (small / "cases").mkdir(exist_ok=True)
        (small / "cases" / path.name).write_bytes(path.read_bytes())
    files = written(commit_report(small, tmp_path).folder)
    assert [name for name in files if name.startswith("figures/")] == ["figures/roc.svg"]


def test_images_of_patients_never_get_in(evaluations, tmp_path):
    committed = commit_report(evaluations / "images", tmp_path)
    assert list((evaluations / "images" / "cases").glob("*.jpg"))
    files = written(committed.folder)
    assert not [name for name in files if name.endswith(".jpg")]
    assert json.loads(files["report.json"])["cases"] == []
    write_index(tmp_path, "ours")
    page = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "/cases/" not in page
    assert "Images of patients are not shown." in page


@pytest.mark.parametrize("value", [None, "false", 1, "true"])
def test_a_report_that_does_not_say_that_it_is_synthetic_is_taken_for_patients(evaluations, tmp_path, value):
    folder = changed(evaluations, tmp_path, lambda content: content["about"].update(synthetic=value))
    assert not [name for name in written(commit_report(folder, tmp_path / "docs").folder) if "cases" in name]


def test_pictures_of_an_earlier_copy_do_not_stay(evaluations, tmp_path):
    folder = tmp_path / "nih-subset-validation"
    for name in ("cases/best-1.jpg", "figures/old.png", "tables/old.md", "notes.txt"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")
    files = written(commit_report(evaluations / "images", tmp_path).folder)
    assert not {"cases/best-1.jpg", "figures/old.png", "tables/old.md"} & set(files)
    assert "notes.txt" in files  # not written by commit_report


def test_no_name_of_an_image_or_patient_is_in_what_is_written(evaluations, tmp_path):
    committed = commit_report(evaluations / "images", tmp_path)
    assert committed.names_searched == 24 + 2
    write_index(tmp_path, "ours")
    for name, content in written(tmp_path).items():
        if not name.endswith(".png"):
            assert not re.search(rb"00012345|00067890", content), name


@pytest.mark.parametrize(
    "name",
    [PATIENT, f"{PATIENT}_003", f"a/{PATIENT}_777.png", "00099999_001"],
    ids=["patient", "image", "path", "other"],
)
def test_a_report_with_a_name_is_refused_before_anything_is_written(evaluations, tmp_path, name):
    folder = changed(evaluations, tmp_path, lambda content: content["about"].update(note=f"Left out: {name}."))
    with pytest.raises(ValueError, match=r"no image or patient, got [12] such names in report\.json") as error:
        commit_report(folder, tmp_path / "docs")
    assert PATIENT not in str(error.value)
    assert not (tmp_path / "docs").exists()


def test_figures_that_hold_the_digits_of_a_name_are_not_names(evaluations, tmp_path):
    folder = changed(evaluations, tmp_path, lambda content: content["about"].update(share=f"0.{PATIENT}"))
    assert commit_report(folder, tmp_path / "docs").size


def test_names_that_look_like_figures_are_counted(evaluations, tmp_path):
    committed = commit_report(evaluations / "images", tmp_path, names=["1000", "12", "ab", "image-1", "00054321"])
    assert (committed.names_searched, committed.names_too_short) == (2, 3)


def test_without_its_records_a_report_on_patients_is_not_committed(evaluations, tmp_path):
    folder = changed(evaluations, tmp_path, lambda content: None)
    (tmp_path / "images-records" / "clarity.jsonl").unlink()
    with pytest.raises(FileNotFoundError, match=r"No records beside the report: images-records/\*\.jsonl"):
        commit_report(folder, tmp_path / "docs")


def test_a_committed_report_is_read_like_its_source(evaluations, tmp_path):
    committed = Report.read(commit_report(evaluations / "images", tmp_path).folder)
    source = Report.read(evaluations / "images")
    assert (committed.name, committed.synthetic) == ("nih-subset-validation", False)
    assert {key: markdown(table) for key, table in committed.tables.items()} == {
        key: markdown(table) for key, table in source.tables.items()
    }


def test_the_index_shows_figures_tables_and_drawings(evaluations, tmp_path):
    for name in ("images", "drawings"):
        commit_report(evaluations / name, tmp_path)
    page = write_index(tmp_path, "ours").read_text(encoding="utf-8")
    assert re.findall(r"^## (.*)$", page, flags=re.M) == ["phantom-test", "nih-subset-validation"]
    links = re.findall(r"\]\(([^)]+)\)", page)
    assert len(links) > 20
    assert [link for link in links if not (tmp_path / link).is_file()] == []
    assert markdown(Report.read(tmp_path / "phantom-test").tables["classification"]) in page
    assert "```\nevaluate nih-subset\n```\n" in page
    shown = len(Report.read(tmp_path / "phantom-test").cases)
    assert len(re.findall(r"!\[.*?\]\(phantom-test/cases/", page)) == shown > 4


def test_an_index_of_nothing_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="No report in"):
        write_index(tmp_path, "ours")
