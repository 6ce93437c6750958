# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Tables: what a cell says, which findings a mean counts, what stands beside what, what a constant box has seen."""

import csv
import importlib.util
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from clarity_hf.evaluation.classification import auroc_per_finding
from clarity_hf.evaluation.localization import LEVELS, boxes_found
from clarity_hf.evaluation.tables import (
    PUBLISHED,
    Estimate,
    Evaluated,
    Row,
    Table,
    build_tables,
    classification_table,
    localize,
    normal_table,
    sanity_tables,
    show,
    show_interval,
    subgroup_table,
)

_spec = importlib.util.spec_from_file_location("synthetic_records", Path(__file__).with_name("synthetic_records.py"))
synthetic = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(synthetic)
NAN = float("nan")


def evaluated(records, repeats=20, min_positives=20):
    return Evaluated(records, synthetic.FINDINGS, np.array(synthetic.THRESHOLDS), min_positives, repeats)


@pytest.fixture(scope="module")
def films():
    return evaluated(synthetic.films())


@pytest.fixture(scope="module")
def tables(films):
    others = {"Random map": synthetic.films(spread=80.0, skill=0.0)}
    return build_tables(films, localize(films, others), others, model="ours")


def rows_of(table, *start):
    return [row.cells for row in table.rows if row.cells[: len(start)] == start]


@pytest.mark.parametrize(
    ("cell", "text", "interval"),
    [
        (0.12345, "0.123", ""),
        (NAN, "–", ""),
        (None, "–", ""),
        (12345, "12,345", ""),
        ("Mass", "Mass", ""),
        (Estimate(0.5, 0.25, 0.75), "0.500", "(0.250–0.750)"),
        (Estimate(0.1, -0.1, 0.3), "0.100", "(-0.100 to 0.300)"),
        (Estimate(0.5, NAN, NAN), "0.500", ""),
    ],
)
def test_a_cell_says_what_is_defined(cell, text, interval):
    assert show(cell) == text
    assert show_interval(cell) == interval


def test_a_table_is_the_same_as_markdown_csv_and_json():
    table = Table("t", "T", ("A", "B"), (Row(("x|y", Estimate(0.5, 0.25, NAN))), Row(("z", None), "rare")), "Note.")
    assert table.markdown().splitlines()[2:5] == ["| A | B |", "|---|---:|", "| x\\|y | 0.500 (0.250–nan) |"]
    assert list(csv.reader(io.StringIO(table.csv()))) == [
        ["A", "B", "B low", "B high"],
        ["x|y", "0.5", "0.25", ""],
        ["z", "", "", ""],
    ]
    assert table.json()["rows"] == [
        {"kind": "", "A": "x|y", "B": {"value": 0.5, "low": 0.25, "high": None}},
        {"kind": "rare", "A": "z", "B": None},
    ]


def test_a_rare_finding_is_listed_and_marked_but_not_in_the_mean(films):
    table = classification_table(films)
    areas = auroc_per_finding(films.scores, films.labels)
    *rows, mean = table.rows
    assert [row.kind for row in rows] == ["", "", "", "rare"]
    assert [row.cells[3].value for row in rows] == pytest.approx(areas.tolist())
    assert mean.cells[0] == "Mean of 3 findings"
    assert mean.cells[3].value == pytest.approx(areas[:3].mean())
    assert mean.cells[3].low < mean.cells[3].value < mean.cells[3].high


def test_every_film_is_in_one_group_of_each_attribute(films):
    table = subgroup_table(films)
    for attribute, groups in (("Sex", 3), ("Age", 5), ("View", 2)):
        rows = rows_of(table, attribute)
        assert len(rows) == groups
        assert sum(row[2] for row in rows) == len(films.records)


@pytest.mark.parametrize(
    ("age", "group"), [(0, "0–17"), (17.9, "0–17"), (18, "18–39"), (40, "40–59"), (60, "60+"), (95, "60+")]
)
def test_an_age_belongs_to_its_band(age, group):
    records = [replace(record, age=age) for record in synthetic.films(6)]
    assert [row[1] for row in rows_of(subgroup_table(evaluated(records)), "Age")] == [group]


def test_false_boxes_are_counted_on_films_without_any_finding_alone():
    record = synthetic.films(1)[0]
    box = np.array([0.0, 0, 10, 10])
    normal = replace(record, labels=np.zeros(4), annotations=(), shown=((0, box), (0, box), (2, box)))
    quiet = replace(normal, name="b", patient="B", shown=())
    ill = replace(normal, name="c", patient="C", labels=np.array([1.0, 0, 0, 0]))
    unknown = replace(normal, name="d", patient="D", labels=np.array([NAN, 0, 0, 0]))
    table = normal_table(evaluated([normal, quiet, ill, unknown]))
    assert [show(row.cells[1]) for row in table.rows] == ["2", "0.500", "1.500"]
    assert "1 films without a present finding" in table.note


def test_t_iou_is_that_of_the_methods_own_boxes_and_the_gate_takes_boxes_away(films, tables):
    pairs = [(part.finding, part.boxes, part.own) for record in films.records for part in record.annotations]
    shares = [share for _, share in boxes_found(pairs).values()]
    own, gated = (
        rows_of(tables["localization"], "ours", "mean")[0],
        rows_of(tables["localization"], "ours, gated by score")[0],
    )
    assert [cell.value for cell in own[3:]] == pytest.approx(np.mean(shares, axis=0).tolist())
    assert all(cell.value <= other.value for cell, other in zip(gated[3:], own[3:], strict=True))
    assert gated[2] < own[2]  # boxes drawn


def test_a_constant_box_never_comes_from_a_patient_on_whom_it_is_scored():
    # Two patients a half with one box each, all different: whoever were tuned on himself would reach IoU 1.
    records = [record for record in synthetic.films(40) if record.labels[0] == 1]
    seen, alone = set(), []
    for record in records:
        if record.patient not in seen:
            seen.add(record.patient)
            alone.append(replace(record, annotations=tuple(part for part in record.annotations if part.finding == 0)))
    constant = localize(evaluated(alone)).constant
    assert len(constant.best) == len(alone)
    assert (constant.best < 1).all()
    assert (constant.best > 0).any()


def test_the_method_stands_beside_constant_box_and_baselines_in_every_protocol(tables):
    assert {row.cells[0] for row in tables["localization"].rows} == {
        "ours",
        "ours, gated by score",
        "ours − constant box",
        "Constant box",
        "Random map",
    }
    assert {row.cells[0] for row in tables["halves"].rows} >= {"ours", "Constant box", "Random map"}
    gain = rows_of(tables["baselines"], "Random map")[0]
    assert all(cell.low > 0 for cell in gain[2:])


def test_published_figures_say_that_they_are_of_other_films(tables):
    table = tables["published"]
    assert "PUBLISHED ON NIH's 984 BOXES, NOT ON THIS DATA" in table.title
    assert {row.kind for row in table.rows} == {"published"}
    paper = rows_of(table, "CLARiTy-S-16-512")[0]
    assert paper[1:] == (0.81, 0.69, 0.59, 0.47, 0.32, None, None)
    assert all(set(figures) <= set(LEVELS) for figures in PUBLISHED.values())


def test_without_annotated_boxes_there_are_no_tables_of_localization():
    films = evaluated(synthetic.films(40, boxes=False))
    tables = build_tables(films, localize(films))
    assert set(tables) == {"classification", "subgroups", "normal_films", "maps"}


def test_a_sanity_table_has_all_heads_of_its_rows():
    (table,) = sanity_tables({"Random weights": [{"part": "head"}, {"part": "all", "ssim": np.float32(0.5)}]}).values()
    assert table.name == "sanity_random_weights"
    assert table.columns == ("part", "ssim")
    assert [row.cells for row in table.rows] == [("head", None), ("all", 0.5)]
