# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Names of findings and images from anywhere are text in every output: no path, no markup, no template, no new row."""

import csv
import json

import numpy as np
import pytest
import torch
from PIL import Image

from clarity_hf import ClarityConfig, ClarityForMultiLabelLocalization, ClarityImageProcessor
from clarity_hf.cli import main
from clarity_hf.inference import web_page_html
from clarity_hf.phantoms import draw_phantom
from clarity_hf.reporting.model_card import write_model_card

SCRIPT = "<script>alert('label')</script>"
LABELS = ["../../outside", "/outside", SCRIPT, "{{ 7 * 7 }}", "{% include 'x' %}", "=1+1", 'a,"b"', "| x |"]
IMAGES = ["=1+1.png", 'a,"b".png', "<script>alert(1)<script>.png", "a\nb.png", "{{ 7 * 7 }}.png"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A small checkpoint whose findings have hostile names."""
    folder = tmp_path_factory.mktemp("checkpoints") / "hostile"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        small = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 96}
        small |= {"image_size": 64, "class_attention_layers": 2, "cam_size": 16, "cam_groups": 4}
        config = ClarityConfig(id2label=dict(enumerate(LABELS)), **small)
        ClarityForMultiLabelLocalization(config).save_pretrained(folder)
    ClarityImageProcessor(size={"height": 64, "width": 64}).save_pretrained(folder)
    return folder


def rows_of(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def test_predictions_stay_in_their_folder_and_in_their_rows(checkpoint, tmp_path):
    images, out = tmp_path / "images", tmp_path / "results" / "out"
    images.mkdir()
    for name in IMAGES:
        Image.fromarray(draw_phantom(0, size=64).image).save(images / name, format="PNG")
    before = {path for path in tmp_path.rglob("*")}
    options = ("--csv", "--overlays", "--maps", "--threshold", "0", "--device", "cpu", "--output-dir", str(out))
    assert main(["predict", str(images), "--model", str(checkpoint), *options]) == 0
    assert all(out.parent in (path, *path.parents) for path in {*tmp_path.rglob("*")} - before)
    assert len(list((out / "overlays").iterdir())) == len(list((out / "maps").iterdir())) == len(IMAGES)
    records = [json.loads(line) for line in (out / "findings.jsonl").read_text().splitlines()]
    assert sorted(record["image"] for record in records) == sorted(IMAGES)
    assert {finding["label"] for record in records for finding in record["findings"]} == {*LABELS}
    header, *rows = rows_of(out / "findings.csv")
    assert sorted(row[0] for row in rows) == sorted(IMAGES)  # as they are: see docs/security.md on spreadsheets
    assert {len(row) for row in rows} == {len(header)}
    with np.load(out / "maps" / "=1+1.png.npz") as stored:  # allow_pickle is off
        assert stored["labels"].tolist() == LABELS


def test_the_web_page_shows_names_as_text():
    finding = {"label": SCRIPT, "score": 0.5, "threshold": 0.5, "present": False, "boxes": []}
    picture = Image.new("L", (8, 8))
    pages = [
        web_page_html.findings_table([finding], SCRIPT, "Probability", {"findings": [finding]}),
        web_page_html.image(picture, finding, "Probability"),
        web_page_html.header(SCRIPT),
        web_page_html.refusal(SCRIPT),
        web_page_html.samples([(SCRIPT, picture)]),
    ]
    for page in pages:
        assert "<script" not in page.lower()


def test_a_card_renders_names_as_text(checkpoint, tmp_path):
    model = ClarityForMultiLabelLocalization.from_pretrained(checkpoint)
    labels = np.ones((2, len(LABELS)))
    metrics = {"validation_auroc": 0.5} | {f"validation_auroc_{label}": 0.5 for label in LABELS}
    text = write_model_card(tmp_path, model, ["own"], "own", 2, labels, metrics, []).read_text(encoding="utf-8")
    assert "{{ 7 * 7 }}" in text
    assert "{% include 'x' %}" in text
    head = text.split("---")[1]
    assert not any(label in head for label in LABELS)


@pytest.mark.slow
def test_a_report_shows_names_as_text(checkpoint, tmp_path):
    pytest.importorskip("matplotlib")
    lines = ["path," + ",".join('"' + label.replace('"', '""') + '"' for label in LABELS)]
    for index in range(4):
        Image.fromarray(draw_phantom(index, size=64).image).save(tmp_path / f"{index}.png")
        lines.append(f"{index}.png," + ",".join(str((index + n) % 2) for n in range(len(LABELS))))
    (tmp_path / "images.csv").write_text("\n".join(lines) + "\n")
    options = ("--split", "train", "--min-positives", "1", "--repeats", "4", "--device", "cpu")
    words = ["evaluate", str(checkpoint), str(tmp_path / "images.csv"), "--output-dir", str(tmp_path / "report")]
    assert main([*words, *options]) == 0
    page = (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
    assert "alert(" in page
    assert "<script>alert" not in page
    assert all((tmp_path / "report") in path.parents for path in tmp_path.rglob("*.csv") if path.name != "images.csv")
