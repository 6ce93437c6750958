# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""The report: one self-contained page with what was evaluated and its caveats, which names no patient."""

import importlib.util
import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from clarity_hf.metrics.classification import mean_auroc
from clarity_hf.reporting.evaluated import Evaluated
from clarity_hf.reporting.report import check_report, write_report

_spec = importlib.util.spec_from_file_location("synthetic_records", Path(__file__).with_name("synthetic_records.py"))
synthetic = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(synthetic)

ABOUT = {
    "model": "ours <b>",
    "data": "drawings",
    "synthetic": True,
    "caveats": ["Thresholds of another scanner."],
    "seeds": {"images": 77},
    "map_thresholds": [0.25, float("nan")],
    "command": "python examples/evaluate.py",
}
VOID = {"meta", "img", "br", "hr", "link", "input"}


def evaluated(records, **options):
    settings = {"findings": synthetic.FINDINGS, "score_thresholds": np.array(synthetic.THRESHOLDS), "repeats": 10}
    return Evaluated(records, **settings | options)


class Page(HTMLParser):
    """What a page refers to, and whether its tags close in order."""

    def __init__(self, text):
        super().__init__()
        self.stack, self.tags, self.links, self.ids = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        attrs = dict(attrs)
        self.links += [attrs[name] for name in ("src", "href", "srcset", "data", "action") if name in attrs]
        self.ids += [attrs["id"]] if "id" in attrs else []
        if tag not in VOID:
            self.stack.append(tag)

    def handle_endtag(self, tag):
        assert self.stack.pop() == tag


def look(names):
    return {name: (np.arange(1024.0).reshape(32, 32) / 8, np.ones((4, 2, 2))) for name in names}


@pytest.fixture(scope="module")
def records():
    return synthetic.images(120)


@pytest.fixture(scope="module")
def folder(records, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    page = write_report(
        evaluated(records, baselines={"Random map": synthetic.images(120, spread=80.0, skill=0.0)[::-1]}),
        folder,
        ABOUT,
        sanity={"Random weights": [{"Part": "head", "Rank correlation": float("nan")}]},
        look=look,
    )
    assert page == folder / "report.html"
    return folder


@pytest.fixture(scope="module")
def page(folder):
    return (folder / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def summary(folder):
    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    return json.loads((folder / "report.json").read_text(encoding="utf-8"), parse_constant=refuse)


def cells(summary, table, row):
    """Cells of a row of `report.json` by column."""
    (found,) = (one["cells"] for one in summary["tables"][table]["rows"] if one["key"] == row)
    return found


def test_the_page_needs_nothing_but_itself(page):
    parsed = Page(page)
    assert parsed.stack == []
    outside = [link for link in parsed.links if not link.startswith(("data:image/", "#"))]
    assert outside == []
    assert {link[1:] for link in parsed.links if link.startswith("#")} <= set(parsed.ids)
    assert len(set(parsed.ids)) == len(parsed.ids)
    assert not {"script", "link", "iframe"} & set(parsed.tags)
    assert "@import" not in page
    assert "url(" not in page
    assert sum(link.startswith("data:") for link in parsed.links) == 7 + 4 * 4


def test_the_page_begins_with_what_was_evaluated_and_its_caveats(page):
    body = page[page.index("<body>") :]
    places = [
        body.index(text)
        for text in (
            "Evaluation of ours &lt;b&gt;",
            "On drawings: 120 images of 60 patients.",
            "Research use only. Not a medical device",
            "Synthetic phantoms",
            "An independent reconstruction",
            "Thresholds of another scanner.",
            "What was evaluated</h2>",
            "Classification</h2>",
        )
    ]
    assert places == sorted(places)


def test_real_images_are_not_called_phantoms(records, tmp_path):
    page = write_report(evaluated(records[:40]), tmp_path, {"model": "m", "data": "d"}).read_text(encoding="utf-8")
    assert "Synthetic" not in page
    assert '<h2 id="cases">' not in page
    assert not (tmp_path / "cases").exists()


def test_no_patient_is_named_and_images_only_below_their_pictures(folder, page):
    texts = [
        path.read_text(encoding="utf-8")
        for path in folder.rglob("*")
        if path.suffix in (".html", ".json", ".md", ".csv")
    ]
    assert len(texts) > 20
    assert not any("SECRET" in text for text in texts)
    captions = re.findall(r"<figure>.*?</figure>", page, flags=re.S)
    assert any("image-" in caption for caption in captions)
    assert "image-" not in re.sub(r"<figure>.*?</figure>", "", page, flags=re.S)


def test_the_json_holds_every_table_and_what_it_was_made_of(folder, summary, records):
    assert summary["about"]["map_thresholds"] == [0.25, None]
    assert summary["versions"]["clarity_hf"]
    assert len(summary["records_sha256"]) == 64
    assert summary["bootstrap"] == {"by": "patient", "repeats": 10, "seed": 0, "level": 0.95}
    assert summary["score_thresholds"] == dict(zip(synthetic.FINDINGS, synthetic.THRESHOLDS, strict=True))
    assert (summary["images"], summary["patients"]) == (120, 60)
    assert {path.stem for path in (folder / "tables").glob("*.csv")} == set(summary["tables"])
    assert {path.stem for path in (folder / "tables").glob("*.md")} == set(summary["tables"])
    scores, labels = (np.stack([getattr(record, name) for record in records]) for name in ("scores", "labels"))
    mean = cells(summary, "classification", "mean")["auroc"]["value"]
    assert mean == pytest.approx(mean_auroc(scores, labels, min_positives=20))


def test_figures_are_files_too(folder):
    names = {"roc", "precision_recall", "reliability", "boxes", "boxes_largest", "boxes_per_finding", "froc"}
    files = {path.name for path in (folder / "figures").iterdir()}
    assert files == {f"{name}.{kind}" for name in names for kind in ("svg", "png")}
    assert {path.name for path in (folder / "cases").iterdir()} == {
        f"{kind}-{number}.jpg" for kind in ("best", "worst", "missed", "false") for number in range(1, 5)
    }


def test_a_baseline_in_another_order_is_aligned_by_name(summary):
    row, again = (cells(summary, "baselines", f"Random map/{rule}") for rule in ("any_region", "largest_region"))
    assert again["auroc"] is None
    assert row["auroc_gain"]["value"] > 0.2
    assert row["auroc"] == pytest.approx(0.5, abs=0.12)


def test_the_same_records_give_the_same_page(tmp_path):
    few = evaluated(synthetic.images(12))
    pages = [write_report(few, tmp_path / name, {"model": "m", "data": "d"}).read_bytes() for name in "ab"]
    assert pages[0] == pages[1]


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (
            {"findings": ("Mass",), "score_thresholds": (0.5,)},
            "`findings` must name 4 findings, as the records have, got 1",
        ),
        ({"score_thresholds": (0.5,)}, "`score_thresholds` must be 4 numbers, one per finding, got"),
        ({"baselines": {"m": []}}, r"`baselines` must have names of their own, got \['m'\]"),
        (
            {"baselines": {"Fixed-box baseline": []}},
            r"`baselines` must have names of their own, got \['Fixed-box baseline'\]",
        ),
        ({"repeats": 0}, "`repeats` must be at least 1, got 0"),
        ({"tuning_split": "half"}, "`tuning_split` must be one of nih-validation, .*, or None, got 'half'"),
        (
            {"tuning_split": "nih-boxes-tuning-0"},
            r"`tuning_patients` must name patients of the 2 with boxes, got 363 others",
        ),
        ({"baselines": {"CAM": []}}, r"`baselines\['CAM'\]` must be records of the same 4 images, got 0, 4 missing"),
        ({"about": {"model": "m"}}, "`about` must have data, got"),
        ({"records": []}, "`records` must hold at least one image"),
        ({"records": synthetic.images(2) * 2}, "`records` must be of different images, got 2 twice"),
    ],
)
def test_inconsistent_input_is_refused_before_anything_is_written(change, match, tmp_path):
    given = {"records": synthetic.images(4), "about": {"model": "m", "data": "d"}} | change
    about = given.pop("about")
    with pytest.raises(ValueError, match=match):
        write_report(evaluated(**given), tmp_path / "report", about)
    assert not (tmp_path / "report").exists()


def test_without_matplotlib_nothing_is_written(records, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"pip install 'clarity_hf\[report\]'"):
        write_report(evaluated(records), tmp_path / "report", ABOUT)
    assert not (tmp_path / "report").exists()


@pytest.mark.parametrize("missing", ["model", "data"])
def test_bad_input_can_be_refused_before_an_evaluation(missing, monkeypatch):
    planned = evaluated((), baselines={"Random map": ()}, tuning_split="nih-boxes-tuning-0", repeats=1)
    check_report(planned, ABOUT)
    with pytest.raises(ValueError, match=f"`about` must have {missing}"):
        check_report(planned, {key: value for key, value in ABOUT.items() if key != missing})
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match="matplotlib"):
        check_report(planned, ABOUT)


@pytest.mark.parametrize(
    ("split", "caveat"),
    [
        ("test", None),
        ("validation", "Images of the validation split may have been used to choose epoch and thresholds"),
        (None, "Images of a split without a name may have been used to choose epoch and thresholds"),
    ],
)
def test_images_that_may_have_been_used_to_choose_thresholds_are_a_caveat(split, caveat, tmp_path):
    about = {"model": "m", "data": "d"} | ({"split": split} if split else {})
    page = write_report(evaluated(synthetic.images(8)), tmp_path, about).read_text(encoding="utf-8")
    assert "figures on them are optimistic" in page if caveat else "optimistic" not in page
    assert caveat is None or caveat in page


def test_versions_and_seeds_that_are_given_are_not_repeated(tmp_path):
    about = {"model": "m", "data": "d", "split": "test", "versions": {"clarity_hf": "0.0.test"}, "seeds": {"all": 3}}
    page = write_report(evaluated(synthetic.images(8)), tmp_path, about).read_text(encoding="utf-8")
    names = re.findall("<dt>(.*?)</dt>", page)
    assert len(set(names)) == len(names)
    assert "matplotlib" not in page
    assert "seed" not in names
    summary = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert (summary["images"], summary["versions"]) == (8, {"clarity_hf": "0.0.test"})
    assert not set(summary["about"]) & set(summary)
    assert set(summary["about"]) == {"model", "data", "split", "seeds"}


def test_the_cards_say_how_far_boxes_follow_the_image(page, summary):
    for title, rival in (
        ("Boxes found at IoU &gt; 0.3, minus 1 fixed box", "model-fixed_boxes_1"),
        ("The same, minus another image&#39;s map", "model-swapped_map"),
    ):
        card = re.search(rf"<span>{title}</span><b>(.*?)</b><small>(.*?)</small>", page)
        assert card[1] == f"{cells(summary, 'rivals', rival)['iou_0.3']['value']:.3f}"
    assert f"{cells(summary, 'rivals', 'model')['boxes_predicted']:.1f} boxes per map" in page
