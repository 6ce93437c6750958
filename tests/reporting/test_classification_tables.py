# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Tables of scores: which findings a mean counts, who is in a subgroup, false boxes on normal images."""

import importlib.util
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from clarity_hf.metrics.classification import auroc_per_finding
from clarity_hf.reporting.classification_tables import (
    classification_rivals_table,
    classification_table,
    normal_table,
    operating_table,
    subgroup_table,
)
from clarity_hf.reporting.evaluated import Evaluated
from clarity_hf.reporting.rendering import show
from clarity_hf.reporting.schema import Estimate

_spec = importlib.util.spec_from_file_location("synthetic_records", Path(__file__).with_name("synthetic_records.py"))
synthetic = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(synthetic)
NAN = float("nan")


def evaluated(records, repeats=20, min_positives=20, **options):
    return Evaluated(records, synthetic.FINDINGS, np.array(synthetic.THRESHOLDS), min_positives, repeats, **options)


@pytest.fixture(scope="module")
def images():
    return evaluated(synthetic.images())


def test_a_rare_finding_is_listed_and_marked_but_not_in_the_mean(images):
    table = classification_table(images)
    areas = auroc_per_finding(images.scores, images.labels)
    assert [row.kind for row in table.rows[:-1]] == ["", "", "", "rare"]
    aurocs = [table[finding]["auroc"].value for finding in synthetic.FINDINGS]
    assert aurocs == pytest.approx(areas.tolist())
    mean = table["mean"]["auroc"]
    assert table["mean"]["finding"] == "Mean of 3 findings"
    assert mean.value == pytest.approx(areas[:3].mean())
    assert mean.low < mean.value < mean.high


def test_all_columns_of_the_mean_are_over_the_same_findings(images):
    # A finding on every image has positives enough, and no negatives: no AUROC, and so no share in any other mean.
    records = [replace(record, labels=np.array([1.0, *record.labels[1:]])) for record in images.records]
    table = classification_table(evaluated(records))
    mean, counted = table["mean"], [table[finding] for finding in synthetic.FINDINGS[1:3]]
    assert [row.kind for row in table.rows[:-1]] == ["rare", "", "", "rare"]
    assert mean["finding"] == "Mean of 2 findings"
    for key in ("average_precision", "calibration_error", "sensitivity"):
        assert show_value(mean[key]) == pytest.approx(np.mean([show_value(cells[key]) for cells in counted]))
    precision = mean["average_precision"]
    assert precision.low < precision.value < precision.high


def show_value(cell):
    return cell.value if isinstance(cell, Estimate) else cell


def test_a_mean_without_an_interval_says_why():
    # Three findings that a patient each has alone: a draw that has all three is rare.
    records = synthetic.images(40)
    labels = np.zeros((40, 4))
    labels[[0, 2, 4], [0, 1, 2]] = 1
    few = evaluated([replace(one, labels=row) for one, row in zip(records, labels, strict=True)], 100, 1)
    table = classification_table(few)
    assert np.isnan(table["mean"]["auroc"].low)
    assert re.search(r"No interval where a mean .*: both means \(\d\d %\)\.$", table.gaps.replace("%)", " %)"))
    assert classification_table(evaluated(records, min_positives=3)).gaps == ""


def test_no_note_claims_to_know_where_thresholds_come_from(images):
    note = classification_table(images).note
    assert "chosen on these images" not in note
    assert "Sensitivity and specificity at the given threshold." in note


def test_every_image_is_in_one_group_of_each_attribute(images):
    table = subgroup_table(images)
    for attribute, groups in (("sex", 3), ("age", 5), ("view", 2)):
        counts = [table[row.key]["images"] for row in table.rows if row.key.startswith(f"{attribute}/")]
        assert len(counts) == groups
        assert sum(counts) == len(images.records)


@pytest.mark.parametrize(
    ("age", "group"), [(0, "0–17"), (17.9, "0–17"), (18, "18–39"), (40, "40–59"), (60, "60+"), (95, "60+")]
)
def test_an_age_belongs_to_its_band(age, group):
    records = [replace(record, age=age) for record in synthetic.images(6)]
    table = subgroup_table(evaluated(records))
    assert [row.key for row in table.rows if row.key.startswith("age/")] == [f"age/{group}"]


def test_false_boxes_are_counted_on_images_without_any_finding_alone():
    record = synthetic.images(1)[0]
    box = np.array([0.0, 0, 10, 10])
    normal = replace(record, labels=np.zeros(4), annotations=(), shown=((0, box), (0, box), (2, box)))
    quiet = replace(normal, name="b", patient="B", shown=())
    ill = replace(normal, name="c", patient="C", labels=np.array([1.0, 0, 0, 0]))
    unknown = replace(normal, name="d", patient="D", labels=np.array([NAN, 0, 0, 0]))
    table = normal_table(evaluated([normal, quiet, ill, unknown]))
    assert [show(table["all"][key]) for key in ("images", "with_box", "false_boxes")] == ["2", "0.500", "1.500"]
    assert "1 images without a present finding" in table.note


def test_false_boxes_are_counted_by_view_where_both_views_are_known(images):
    table = normal_table(images)
    assert table["PA"]["images"] + table["AP"]["images"] == table["all"]["images"]
    alone = [record for record in images.records if record.view == "PA"]
    assert [row.key for row in normal_table(evaluated(alone)).rows] == ["all"]


def test_without_normal_images_their_table_has_no_figures():
    ill = [record for record in synthetic.images() if (record.labels == 1).any()]
    assert normal_table(evaluated(ill))["all"] == {"normal": "All", "images": 0, "with_box": None, "false_boxes": None}


def test_means_are_named_by_how_many_positives_their_findings_have(images):
    table = classification_rivals_table(images)
    assert [table[f"mean_{least}"]["finding"] for least in (10, 20)] == [
        "Mean of 3 findings with ≥ 10 positives",
        "Mean of 3 findings with ≥ 20 positives",
    ]


def test_sensitivity_specificity_and_ppv_have_intervals_around_them(images):
    found, records = operating_table(images)["Mass"], images.records
    flagged = np.array([record.scores[0] >= synthetic.THRESHOLDS[0] for record in records])
    present = np.array([record.labels[0] == 1 for record in records])
    expected = {
        "sensitivity": flagged[present].mean(),
        "specificity": (~flagged[~present]).mean(),
        "positive_predictive_value": present[flagged].mean(),
    }
    for name, value in expected.items():
        assert found[name].value == pytest.approx(value)
        assert found[name].low < value < found[name].high
    assert found["prevalence"] == 0.0516
    assert found["ppv_at_prevalence"] < found["positive_predictive_value"].value
