# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Tables of rivals on records made by hand."""

import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from clarity_hf.metrics.image_driven import MapRules
from clarity_hf.reporting.rival_tables import ImageDriven, headline, rival_tables
from clarity_hf.reporting.tables import Evaluated

_spec = importlib.util.spec_from_file_location("synthetic_records", Path(__file__).with_name("synthetic_records.py"))
synthetic = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(synthetic)


def evaluated(records, **options):
    settings = {"min_positives": 20, "repeats": 50, "map_rules": MapRules([0.5] * 4)} | options
    return Evaluated(records, synthetic.FINDINGS, np.array(synthetic.THRESHOLDS), **settings)


@pytest.fixture(scope="module")
def driven():
    return ImageDriven(evaluated(synthetic.images(160)))


@pytest.fixture(scope="module")
def tables(driven):
    return rival_tables(driven.evaluated, driven, "Ours")


def row(table, name):
    return dict(zip(table.columns, next(one.cells for one in table.rows if one.cells[0] == name), strict=True))


def test_a_method_near_its_boxes_is_above_all_rivals(tables, driven):
    rivals = tables["rivals"]
    assert driven.k == 1
    ours, swapped = row(rivals, "Ours"), row(rivals, "Ours − map of another image with the finding")
    assert ours["> 0.3"].value > 0.8
    assert swapped["> 0.3"].low > 0
    assert row(rivals, "Ours − 1 constant box")["> 0.3"].low > 0
    gain = row(rivals, "Ours")["> 0.3"].value - row(rivals, "1 constant box")["> 0.3"].value
    assert row(rivals, "Ours − 1 constant box")["> 0.3"].value == pytest.approx(gain)
    assert headline(driven)["swapped"] == swapped["> 0.3"]


def test_a_method_whose_boxes_are_those_of_other_images_is_not_above_them():
    records = synthetic.images(160)
    boxes = [one for record in records for one in record.annotations]
    moved = iter([*boxes[7:], *boxes[:7]])
    records = [
        replace(record, annotations=tuple(replace(one, own=next(moved).own) for one in record.annotations))
        for record in records
    ]
    figures = headline(ImageDriven(evaluated(records)))
    assert figures["swapped"].low < 0 < figures["swapped"].high


def test_the_mean_map_is_a_rival_only_where_the_rules_for_boxes_are_known(tables):
    assert any(one.cells[0] == "Mean map of other images" for one in tables["rivals"].rows)
    plain = evaluated(synthetic.images(40), map_rules=None)
    rows = rival_tables(plain, ImageDriven(plain), "Ours")["rivals"].rows
    assert not any("mean map" in one.cells[0].lower() for one in rows)


def test_every_finding_with_boxes_has_a_row_and_their_mean_the_last(tables):
    table = tables["image_driven"]
    names = [one.cells[0] for one in table.rows]
    assert names[-1] == "Mean over findings"
    assert set(names[:-1]) <= set(synthetic.FINDINGS)
    counted = sum(one.cells[table.columns.index("Maps")] for one in table.rows[:-1])
    assert counted == table.rows[-1].cells[table.columns.index("Maps")]


def test_one_sided_images_are_pooled_in_the_last_row(tables):
    table = tables["image_driven"]
    place, count = table.columns.index("Right side"), table.columns.index("One-sided")
    shares = [(one.cells[place].value, one.cells[count]) for one in table.rows[:-1] if one.cells[count]]
    pooled = sum(share * number for share, number in shares) / sum(number for _, number in shares)
    assert table.rows[-1].cells[place].value == pytest.approx(pooled)


def test_froc_needs_all_maps():
    records = synthetic.images(60)
    assert rival_tables(evaluated(records), ImageDriven(evaluated(records)), "Ours")["froc"].rows
    partly = evaluated([replace(record, box_counts=None) for record in records])
    assert "froc" not in rival_tables(partly, ImageDriven(partly), "Ours")


def test_without_boxes_only_scores_have_rivals():
    plain = evaluated(synthetic.images(60, boxes=False))
    assert set(rival_tables(plain, ImageDriven(plain), "Ours")) == {
        "classification_rivals",
        "calibration",
        "operating_points",
    }


def test_means_are_named_by_how_many_positives_their_findings_have(tables):
    names = [one.cells[0] for one in tables["classification_rivals"].rows[-2:]]
    assert names == ["Mean of 3 findings with ≥ 10 positives", "Mean of 3 findings with ≥ 20 positives"]


def test_sensitivity_specificity_and_ppv_have_intervals_around_them(tables, driven):
    table, records = tables["operating_points"], driven.evaluated.records
    found = row(table, "Mass")
    flagged = np.array([record.scores[0] >= synthetic.THRESHOLDS[0] for record in records])
    present = np.array([record.labels[0] == 1 for record in records])
    expected = {
        "Sensitivity": flagged[present].mean(),
        "Specificity": (~flagged[~present]).mean(),
        "PPV": present[flagged].mean(),
    }
    for name, value in expected.items():
        assert found[name].value == pytest.approx(value)
        assert found[name].low < value < found[name].high
    assert found["Stated prevalence"] == 0.0516
    assert found["PPV there"] < found["PPV"].value
