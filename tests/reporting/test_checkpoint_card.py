# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""The card of a released checkpoint: whole, from its inputs alone, with metadata that the Hub's library reads."""

import copy
import json
import math
import re
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard
from PIL import Image

from clarity_hf import ClarityConfig, ClarityForMultiLabelLocalization, ClarityImageProcessor
from clarity_hf.fingerprints import weights_digest
from clarity_hf.metrics.image_driven import COMPARED_LEVELS
from clarity_hf.metrics.localization import LEVELS
from clarity_hf.packaged_checkpoints import checkpoint_path
from clarity_hf.reporting.checkpoint_card import read_facts, render_checkpoint_card, write_checkpoint_card
from clarity_hf.reporting.columns import columns, level_columns
from clarity_hf.reporting.schema import CASE_TITLES, Bootstrap, CaseEntry, Estimate, Report, Row, Table

ROOT = Path(__file__).parents[2]
COMMITTED = ROOT / "docs" / "reports" / "clarity-s16-224"
GOLDEN = Path(__file__).with_name("golden_checkpoint_card.md")
FINDINGS = ("Mass", "Nodule", "Hernia")
SIZES = {
    "hidden_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 96,
    "image_size": 64,
    "class_attention_layers": 2,
    "cam_size": 16,
    "cam_groups": 4,
}

FACTS = {
    "name": "clarity-tiny",
    "license": "apache-2.0",
    "trained_on": "40 drawings",
    "data": [
        {
            "source": "Drawings",
            "license": "Apache-2.0",
            "citation": "made here.",
            "training": {"images": 40000},
            "validation": {"images": 10, "patients": 9},
            "note": "They say nothing.",
        },
        {"source": "Images", "license": "none", "citation": "A hospital, 2020."},
    ],
    "split": "By patient.",
    "teacher": {"name": "convnextv2-nano", "license": "CC-BY-NC-4.0", "note": "Trained on drawings."},
    "stages": [
        {"name": "First", "compute": "one minute", "command": "accelerate launch a.py \\\n    --b c\n"},
        {"name": "Second", "compute": "two minutes", "command": "accelerate launch d.py", "note": "Stopped early."},
    ],
    "compute": "three minutes of one core.",
    "calibration": "Fitted on 10 drawings.",
    "evaluations": {
        "phantom-test": {
            "title": "drawings",
            "type": "drawings",
            "goals": {"auroc": 1, "iou_0.1": 0.9, "iou_0.3": 0.8, "iou_0.5": 0.6},
        },
        "images-validation": {"title": "images", "type": "images"},
    },
    "failures": ["Hernia is not found."],
    "limits": ["Drawings are not images."],
}


def estimate(value):
    return Estimate(value, value - 0.1, value + 0.1)


UNDEFINED = Estimate(math.nan, math.nan, math.nan)


def table(key, title, heads, rows, note="", gaps=""):
    return Table(key, title, heads, tuple(rows), note, gaps)


def tables(boxes, baselines, normal, defined=True):
    """Tables of a report, small and by hand; without those that the arguments leave out."""
    heads = columns("finding positives negatives auroc average_precision calibration_error threshold")
    heads += columns("sensitivity specificity")
    rows = [
        Row("Mass", ("Mass", 30, 70, estimate(0.7), estimate(0.4), 0.05, 0.25, 0.6, 0.8)),
        Row("Nodule", ("Nodule", 3, 97, estimate(0.6), estimate(0.15), 0.02, 0.5, 0.0, 1.0), "rare"),
        Row("Hernia", ("Hernia", 0, 100, UNDEFINED, UNDEFINED, 0.001, 0.75, math.nan, 1.0), "rare"),
        Row(
            "mean",
            ("Mean of 1 findings", 30, 70, estimate(0.7), estimate(0.4), 0.05, None, 0.6, 0.8)
            if defined
            else ("Mean of 0 findings", 0, 0, UNDEFINED, UNDEFINED, math.nan, None, math.nan, math.nan),
            "summary first",
        ),
    ]
    gaps = " No interval where a mean is defined in fewer than half of the samples: both means (40%)."
    made = [table("classification", "Classification", heads, rows, "Intervals.", gaps)]
    if boxes:
        made += box_tables()
    if baselines:
        heads = columns("baseline auroc auroc_gain boxes boxes_predicted baseline_boxes_predicted")
        heads += level_columns([0.1], "gain")
        cells = ("random map", 0.5, estimate(0.2), "tuned, any region", 1.5, 4.5, estimate(-0.05))
        made.append(table("baselines", "Beside other methods", heads, [Row("random map/any_region", cells)], "Gain."))
    cells = ("All", 50, estimate(0.25), estimate(0.5)) if normal else ("All", 0, None, None)
    heads = columns("normal images with_box false_boxes")
    made.append(table("normal_images", "Normal", heads, [Row("all", cells)]))
    groups = [
        Row("sex/F", ("Sex", "F", 90, 1, estimate(0.7), 0.6, 0.8)),
        Row("age/0–17", ("Age", "0–17", 5, 0, None, None, None)),
    ]
    heads = columns("attribute group images findings auroc sensitivity specificity")
    made.append(table("subgroups", "By sex, age and view", heads, groups))
    return {one.key: one for one in made}


def box_tables(boxed=("Mass",)):
    shares = tuple(estimate(0.8 - step / 10) for step in range(7))
    ours = "clarity-tiny"
    methods = [
        Row("model/any_region", (ours, "tuned, any region", 1.5, *shares)),
        Row("model-fixed_box/any_region", (f"{ours} − fixed box", "tuned, any region", None, *[estimate(-0.02)] * 7)),
        Row("fixed_box/fixed_box", ("Fixed-box baseline", "fixed box", 1.0, *shares[::-1])),
        Row("model/own_filtered", (ours, "own boxes, score-filtered", 0.5, *[estimate(0.3)] * 7)),
    ]
    plain = tuple(0.9 - step / 10 for step in range(7))
    found = [
        Row(f"{finding}/{rule}", (finding, rule, 31, 1.0, *(estimate(share / (place + 1)) for share in plain)))
        for finding in boxed
        for place, rule in enumerate(("any_region", "fixed_box", "own_filtered"))
    ]
    compared = [
        Row("model", (ours, 1.5, *shares[:3]), "method"),
        Row("fixed_boxes_1", ("1 fixed box", 1.0, *shares[1:4]), "first"),
        Row("model-fixed_boxes_1", (f"{ours} − 1 fixed box", None, *[estimate(0.1)] * 3), "summary"),
        Row("fixed_boxes_2", ("2 fixed boxes", 2.0, *shares[2:5]), "fixed first"),
        Row("model-fixed_boxes_2", (f"{ours} − 2 fixed boxes", None, *[estimate(-0.15)] * 3), "summary"),
        Row("swapped_map", ("Map of another image with the finding", 1.5, *shares[3:6]), "first"),
        Row("model-swapped_map", (f"{ours} − map of another image", None, *[estimate(0.04)] * 3), "summary"),
    ]
    levels = level_columns(LEVELS)
    heads = {
        "rivals": (*columns("boxes boxes_predicted"), *level_columns(COMPARED_LEVELS)),
        "localization": (*columns("method boxes boxes_predicted"), *levels),
        "localization_per_finding": (*columns("finding boxes annotated boxes_predicted"), *levels),
    }
    return [
        table("rivals", "Beside rivals", heads["rivals"], compared),
        table("localization", "T(IoU), mean", heads["localization"], methods, "T(IoU)."),
        table("localization_per_finding", "T(IoU) per finding", heads["localization_per_finding"], found),
    ]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """Folder of a tiny model of three findings with calibrated scores. Read only: tests take copies of its parts."""
    folder = tmp_path_factory.mktemp("card") / "clarity-tiny"
    config = ClarityConfig(
        **SIZES,
        id2label=dict(enumerate(FINDINGS)),
        score_slopes=[0.5, 1.25, 2.0],
        score_intercepts=[-1.0, 0.0, 0.125],
        score_thresholds=[0.25, 0.5, 0.75],
        map_thresholds=[0.1, 0.2, 0.3],
    )
    ClarityForMultiLabelLocalization(config).save_pretrained(folder)
    ClarityImageProcessor(size={"height": 64, "width": 64}).save_pretrained(folder)
    return folder


@pytest.fixture
def inputs(checkpoint, tmp_path):
    """Facts and two reports as files, the arguments of the card; tests change them."""
    model = ClarityForMultiLabelLocalization.from_pretrained(checkpoint)
    reports = [
        write_report(tmp_path, model, "phantom", "test", True, tables(True, True, True)),
        write_report(tmp_path, model, "images", "validation", False, tables(False, False, False, defined=False)),
    ]
    return {"folder": checkpoint, "facts": write_facts(tmp_path, FACTS), "reports": reports}


def write_facts(folder, facts):
    path = folder / "training.yaml"
    path.write_text(yaml.safe_dump(facts, sort_keys=False), encoding="utf-8")
    return path


def write_report(folder, model, data, split, synthetic, made):
    """A committed report by hand, with pictures that only a synthetic one may show."""
    folder = folder / f"{data}-{split}"
    (folder / "cases").mkdir(parents=True)
    cases = [CaseEntry(kind, 1, 1, None, "Mass", 0.5, 0.25, None if kind == "false" else 0.75) for kind in CASE_TITLES]
    for place, case in enumerate(cases):
        Image.new("RGB", (8, 8), (place * 60, 0, 0)).save(folder / "cases" / case.picture)
    config = model.config
    report = Report(
        about={
            "model": "clarity-tiny",
            "data": data,
            "split": split,
            "synthetic": synthetic,
            "command": f"python examples/evaluate_checkpoint.py clarity-tiny {data}",
            "weights_hash": weights_digest(model),
            "map_thresholds": dict(zip(FINDINGS, config.per_finding("map_thresholds"), strict=True)),
        },
        caveats={"research": "Research use only.", "reconstruction": "A copy.", "caveat_1": f"Caveat of {data}."},
        findings=FINDINGS,
        images=1200,
        patients=1100,
        score_thresholds=dict(zip(FINDINGS, config.per_finding("score_thresholds"), strict=True)),
        min_positives=20,
        tuning_split=None,
        bootstrap=Bootstrap(1000, 0),
        records_sha256="",
        versions={"clarity_hf": "0.1.0"},
        tables=made,
        cases=tuple(cases),
    )
    (folder / "report.json").write_text(report.to_json(), encoding="utf-8")
    return folder


def change_report(folder, change):
    path = folder / "report.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")


def only(inputs, name, tmp_path):
    """The same with one evaluation."""
    facts = FACTS | {"evaluations": {name: FACTS["evaluations"][name]}}
    reports = [report for report in inputs["reports"] if report.name == name]
    return inputs | {"facts": write_facts(tmp_path, facts), "reports": reports}


@pytest.mark.skipif(
    not list(COMMITTED.glob("*/report.json")), reason="docs/reports/clarity-s16-224/ has no report.json yet"
)
def test_the_packaged_card_is_what_its_committed_inputs_give():
    folder, facts = checkpoint_path("clarity-s16-224"), COMMITTED / "training.yaml"
    card = render_checkpoint_card(folder, facts, [COMMITTED / name for name in read_facts(facts)["evaluations"]])
    assert (folder / "README.md").read_text(encoding="utf-8") == card.text
    assert {path.name: path.read_bytes() for path in folder.glob("*.jpg")} == card.pictures


def test_the_whole_card(inputs):
    assert render_checkpoint_card(**inputs).text == GOLDEN.read_text(encoding="utf-8")


def test_the_order_of_the_facts_is_the_order_of_the_card(inputs):
    swapped = inputs | {"reports": inputs["reports"][::-1]}
    assert render_checkpoint_card(**swapped).text == render_checkpoint_card(**inputs).text


def test_the_first_lines_say_that_it_is_research_and_not_the_papers_weights(inputs):
    text = render_checkpoint_card(**inputs).text.split("# clarity-tiny")[1][:500]
    for phrase in ("research", "Not a medical device", "independent reconstruction", "not the paper's weights"):
        assert phrase in text
    assert "Trained on 40 drawings" in text


def test_one_report_is_enough(inputs, tmp_path):
    text = render_checkpoint_card(**only(inputs, "phantom-test", tmp_path)).text
    assert text.count("## Figures: ") == 1
    assert "images-validation" not in text


def test_missing_figures_are_named_with_the_reason(inputs, tmp_path):
    card = render_checkpoint_card(**only(inputs, "images-validation", tmp_path))
    figures = card.text.split("## Figures: images")[1].split("\n## ")[0]
    assert "- AUROC of Hernia: no positives, or no negatives." in figures
    assert "- Mean AUROC: no finding has 20 positives." in figures
    assert "- T(IoU): these images have no annotated boxes." in figures
    assert "- Other methods: none was evaluated on these images." in figures
    assert "- Figures of Age 0–17: no finding has 20 positives." in figures
    assert "normal images**: not measured" in figures
    assert "0.000" not in figures
    assert not re.search(r"\bnan\b", card.text.casefold())
    assert ModelCard(card.text).data.eval_results is None


def box_rows(card):
    """The rows of the card's table of T(IoU) per finding, by finding."""
    table = card.text.split("### T(IoU) per finding\n\n")[1].split("\n\n")[0]
    return {line.split("|")[1].strip(): [cell.strip() for cell in line.split("|")[2:-1]] for line in table.split("\n")}


def with_boxes_of(inputs, *findings):
    """The inputs with annotated boxes of some findings in the report on drawings."""
    made = {table.key: table.to_json() for table in box_tables(findings)}
    change_report(inputs["reports"][0], lambda content: content["tables"].update(made))
    return inputs


def test_boxes_found_have_an_interval_per_finding_and_of_their_mean(inputs):
    rows = box_rows(render_checkpoint_card(**with_boxes_of(inputs, "Mass", "Nodule")))
    tuned = ["0.900 (0.800–1.000)", "0.700 (0.600–0.800)", "0.500 (0.400–0.600)"]
    assert rows["Nodule"] == ["31", *tuned, "0.300 / 0.233 / 0.167", "0.450 / 0.350 / 0.250"]
    assert rows["**Mean of 2 findings**"][:3] == ["62", "0.800 (0.700–0.900)", "0.600 (0.500–0.700)"]
    assert "Hernia" not in rows


def test_the_mean_of_one_finding_is_not_repeated(inputs):
    assert list(box_rows(render_checkpoint_card(**inputs)))[2:] == ["Mass"]


def test_pictures_are_of_synthetic_images_alone(inputs, tmp_path):
    card = render_checkpoint_card(**inputs)
    assert sorted(card.pictures) == ["case-false.jpg", "case-missed.jpg", "case-worst.jpg"]
    source = inputs["reports"][0] / "cases"
    assert card.pictures["case-worst.jpg"] == (source / "worst-1.jpg").read_bytes()
    real = render_checkpoint_card(**only(inputs, "images-validation", tmp_path))
    assert (real.pictures, "![" in real.text) == ({}, False)
    assert "No pictures: the reports have no cases of synthetic images" in real.text


def test_a_report_that_does_not_say_that_it_is_synthetic_shows_no_picture(inputs):
    change_report(inputs["reports"][0], lambda content: content["about"].pop("synthetic"))
    assert render_checkpoint_card(**inputs).pictures == {}


def test_the_card_and_its_pictures_are_written_beside_the_weights(inputs, checkpoint, tmp_path):
    folder = tmp_path / "released"
    folder.mkdir()
    for path in checkpoint.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / "case-old.jpg").write_bytes(b"of an earlier card")
    path = write_checkpoint_card(folder, inputs["facts"], inputs["reports"])
    assert path == folder / "README.md"
    card = render_checkpoint_card(**inputs)
    assert path.read_text(encoding="utf-8") == card.text
    assert {path.name: path.read_bytes() for path in folder.glob("*.jpg")} == card.pictures


def test_metadata_are_read_back_by_huggingface_hub(inputs, tmp_path):
    path = tmp_path / "README.md"
    path.write_text(render_checkpoint_card(**inputs).text, encoding="utf-8")
    data = ModelCard.load(path).data
    assert (data.license, data.library_name, data.pipeline_tag, data.model_name) == (
        "apache-2.0",
        "transformers",
        "image-classification",
        "clarity-tiny",
    )
    assert [(result.metric_type, result.metric_value) for result in data.eval_results] == [
        ("roc_auc", 0.7),
        *[("t_iou", -0.15)] * 3,  # minus two fixed boxes
        *[("t_iou", 0.04)] * 3,  # minus the map of another image
        ("t_iou", 0.8),
        ("t_iou", 0.6),
        ("t_iou", 0.4),
    ]
    first, second, *_ = data.eval_results
    assert (first.dataset_name, first.dataset_type, first.dataset_split) == ("drawings", "drawings", "test")
    assert first.metric_name == "AUROC, mean of 1 findings"
    assert second.metric_name == "T(IoU) > 0.1, Mass alone, own boxes minus 2 fixed boxes"
    assert second.metric_args == {"iou": 0.1}
    assert {result.verified for result in data.eval_results} == {None}


@pytest.mark.network
def test_the_hub_takes_the_metadata(inputs):
    ModelCard(render_checkpoint_card(**inputs).text).validate()


def test_scores_that_are_not_calibrated_are_called_so(inputs, checkpoint, tmp_path):
    assert "not calibrated" not in render_checkpoint_card(**inputs).text
    model = ClarityForMultiLabelLocalization.from_pretrained(checkpoint)
    model.config.score_slopes, model.config.score_intercepts = 1.0, 0.0
    model.save_pretrained(tmp_path / "raw")
    ClarityImageProcessor.from_pretrained(checkpoint).save_pretrained(tmp_path / "raw")
    text = render_checkpoint_card(**inputs | {"folder": tmp_path / "raw"}).text
    assert text.count("not calibrated") == 2


def test_a_checkpoint_without_a_teacher_says_so(inputs, tmp_path):
    facts = {key: value for key, value in FACTS.items() if key not in ("teacher", "split")}
    text = render_checkpoint_card(**inputs | {"facts": write_facts(tmp_path, facts)}).text
    assert "No teacher: trained on labels alone." in text
    assert "CC-BY-NC" not in text


@pytest.mark.parametrize(
    ("place", "message"),
    [
        (("about", "weights_hash"), "`reports` must be of the folder's weights"),
        (("score_thresholds", "Mass"), "`reports` must be of the folder's score_thresholds"),
        (("about", "map_thresholds", "Mass"), None),
    ],
)
def test_a_report_of_another_checkpoint_is_refused(inputs, place, message):
    def change(content):
        for key in place[:-1]:
            content = content[key]
        content[place[-1]] = 0.99

    change_report(inputs["reports"][0], change)
    with pytest.raises(ValueError, match=message or "`reports` must be of the folder's map_thresholds"):
        render_checkpoint_card(**inputs)


def test_a_report_without_an_expected_row_is_refused(inputs):
    def rename(content):
        for row in content["tables"]["localization"]["rows"]:
            row["key"] = row["key"].replace("any_region", "any")

    change_report(inputs["reports"][0], rename)
    with pytest.raises(ValueError, match="The table `localization` must have the row 'model/any_region', got"):
        render_checkpoint_card(**inputs)


def test_reports_and_evaluations_must_be_the_same(inputs):
    with pytest.raises(ValueError, match=r"must be those of the facts' evaluations .*, got \['phantom-test'\]"):
        render_checkpoint_card(**inputs | {"reports": inputs["reports"][:1]})
    with pytest.raises(ValueError, match="must be those of the facts' evaluations"):
        render_checkpoint_card(**inputs | {"reports": [inputs["reports"][0], *inputs["reports"]]})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda facts: facts.pop("compute"), r"`facts` must have .*, got \['compute'\] missing and \[\] unknown"),
        (lambda facts: facts.update(licence="x"), r"`facts` .* got \[\] missing and \['licence'\] unknown"),
        (lambda facts: facts.update(failures=[]), r"`facts` .* got \['failures'\] missing"),
        (lambda facts: facts["data"][0].pop("license"), r"`data` .* got \['license'\] missing"),
        (lambda facts: facts["stages"][0].pop("command"), r"`stages` .* got \['command'\] missing"),
        (lambda facts: facts["teacher"].pop("license"), r"`teacher` .* got \['license'\] missing"),
        (lambda facts: facts["evaluations"].update(x="y"), "`evaluations` must have fields, got str"),
        (
            lambda facts: facts["evaluations"]["phantom-test"]["goals"].update({"iou_0.2": 1}),
            r"`goals` must be among \['auroc', 'iou_0.1', 'iou_0.3', 'iou_0.5'\], got \['iou_0.2'\]",
        ),
    ],
)
def test_incomplete_facts_are_refused_by_name(tmp_path, change, message):
    facts = copy.deepcopy(FACTS)
    change(facts)
    with pytest.raises(ValueError, match=message):
        read_facts(write_facts(tmp_path, facts))


def test_a_missing_file_of_facts_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="No such file: "):
        read_facts(tmp_path / "training.yaml")
