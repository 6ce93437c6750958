# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""The report as data: found by key, the same after a round trip through JSON, other schemas refused."""

import json
import math

import numpy as np
import pytest

from clarity_hf.reporting.schema import Bootstrap, CaseEntry, Column, Estimate, Report, Row, Table, plain

TABLE = Table(
    "t",
    "T",
    (Column("finding", "Finding"), Column("auroc", "AUROC"), Column("images", "Images", "images")),
    (Row("Mass", ("Mass", Estimate(0.5, 0.25, math.nan), 3)), Row("mean", ("Mean", None, 3), "summary")),
    "Note.",
    " Gaps.",
)
CASE = CaseEntry("missed", 2, 7, None, "Mass", 0.25, 0.5, None)
REPORT = Report(
    about={"model": "m", "data": "owner/images v2", "synthetic": True},
    caveats={"research": "Research use only."},
    findings=("Mass",),
    images=3,
    patients=2,
    score_thresholds={"Mass": 0.5},
    min_positives=1,
    tuning_split=None,
    bootstrap=Bootstrap(10, 0),
    records_sha256="",
    versions={"clarity_hf": "0.1.0"},
    tables={"t": TABLE},
    cases=(CASE,),
)


def test_a_cell_is_found_by_the_keys_of_its_row_and_column():
    assert TABLE["mean"] == {"finding": "Mean", "auroc": None, "images": 3}
    with pytest.raises(ValueError, match=r"The table `t` must have the row 'Mean', got \['Mass', 'mean'\]"):
        TABLE["Mean"]


def test_some_columns_of_a_table_keep_its_rows():
    selected = TABLE.select("images", "finding")
    assert [column.key for column in selected.columns] == ["images", "finding"]
    assert [row.cells for row in selected.rows] == [(3, "Mass"), (3, "Mean")]
    assert [row.kind for row in selected.rows] == ["", "summary"]


def test_a_report_is_the_same_after_it_was_written_and_read(tmp_path):
    (tmp_path / "report.json").write_text(REPORT.to_json(), encoding="utf-8")
    read = Report.read(tmp_path)
    assert read.folder == tmp_path
    assert read.to_json() == REPORT.to_json()
    assert (read.cases, read.bootstrap, read.findings) == (REPORT.cases, REPORT.bootstrap, REPORT.findings)
    assert read.tables["t"]["mean"] == TABLE["mean"]
    cell = read.tables["t"]["Mass"]["auroc"]
    assert (cell.value, cell.low) == (0.5, 0.25)
    assert math.isnan(cell.high)


def test_rows_of_report_json_have_their_cells_by_column():
    (mass, _) = json.loads(REPORT.to_json())["tables"]["t"]["rows"]
    auroc = {"value": 0.5, "low": 0.25, "high": None}
    assert mass == {"key": "Mass", "kind": "", "cells": {"finding": "Mass", "auroc": auroc, "images": 3}}


@pytest.mark.parametrize("schema", [None, 2, 4])
def test_another_schema_is_refused(schema, tmp_path):
    content = json.loads(REPORT.to_json()) | {"schema": schema}
    (tmp_path / "report.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"report\.json' is not of schema 3, which this version reads"):
        Report.read(tmp_path)


def test_a_folder_without_a_report_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"No report\.json in"):
        Report.read(tmp_path)


def test_a_report_is_named_by_its_data_and_split():
    assert REPORT.name == "owner-images-v2-all"


def test_cases_are_given_by_kind_with_their_pictures():
    ((kind, title, cases),) = REPORT.cases_by_kind()
    assert (kind, title) == ("missed", "Missed: present, and furthest below the threshold")
    assert [case.picture for case in cases] == ["missed-2.jpg"]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.float32(0.5), 0.5),
        (np.array([1, 2]), [1, 2]),
        ({1: (np.nan, True)}, {"1": [None, True]}),
        (math.inf, None),
        (Estimate(1.0, 0.0, math.nan), {"value": 1.0, "low": 0.0, "high": None}),
    ],
)
def test_values_become_plain_json(value, expected):
    assert plain(value) == expected
