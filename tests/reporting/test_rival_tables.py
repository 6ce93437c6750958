# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Tables of rivals on synthetic records."""

import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from clarity_hf.metrics.localization import BoxSettings
from clarity_hf.reporting.evaluated import Evaluated
from clarity_hf.reporting.rival_tables import ImageDriven, nearest_fixed_boxes, rival_tables

_spec = importlib.util.spec_from_file_location("synthetic_records", Path(__file__).with_name("synthetic_records.py"))
synthetic = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(synthetic)


def evaluated(records, **options):
    halves = [0.5] * 4
    settings = {"repeats": 50, "box_settings": BoxSettings(halves, halves, "all")} | options
    return Evaluated(records, synthetic.FINDINGS, np.array(synthetic.THRESHOLDS), **settings)


def tables_of(driven):
    return {table.key: table for table in rival_tables(driven)}


@pytest.fixture(scope="module")
def driven():
    return ImageDriven(evaluated(synthetic.images(160)))


@pytest.fixture(scope="module")
def tables(driven):
    return tables_of(driven)


@pytest.mark.parametrize(("predicted", "k"), [(0.2, 1), (1.49, 1), (1.5, 2), (2.2, 2), (9.0, 3)])
def test_the_nearest_rival_has_about_as_many_fixed_boxes(predicted, k):
    assert nearest_fixed_boxes(predicted) == k


def test_a_method_near_its_boxes_is_above_all_rivals(tables, driven):
    rivals = tables["rivals"]
    assert driven.k == 1
    ours, fixed = rivals["model"]["iou_0.3"].value, rivals["fixed_boxes_1"]["iou_0.3"].value
    assert ours > 0.8
    assert rivals["model-swapped_map"]["iou_0.3"].low > 0
    assert rivals["model-fixed_boxes_1"]["iou_0.3"].low > 0
    assert rivals["model-fixed_boxes_1"]["iou_0.3"].value == pytest.approx(ours - fixed)
    followed = tables["image_driven"]["mean"]
    assert followed["over_swapped"] == rivals["model-swapped_map"]["iou_0.3"]
    assert followed["over_fixed"] == rivals["model-fixed_boxes_1"]["iou_0.3"]


def test_a_method_whose_boxes_are_those_of_other_images_is_not_above_them():
    records = synthetic.images(160)
    boxes = [one for record in records for one in record.annotations]
    moved = iter([*boxes[7:], *boxes[:7]])
    records = [
        replace(record, annotations=tuple(replace(one, own=next(moved).own) for one in record.annotations))
        for record in records
    ]
    gain = tables_of(ImageDriven(evaluated(records)))["rivals"]["model-swapped_map"]["iou_0.3"]
    assert gain.low < 0 < gain.high


def test_the_mean_map_is_a_rival_only_where_the_rules_for_boxes_are_known(tables):
    assert tables["rivals"]["mean_map"]
    plain = evaluated(synthetic.images(40), box_settings=None)
    assert "mean_map" not in [row.key for row in tables_of(ImageDriven(plain))["rivals"].rows]


def test_every_finding_with_boxes_has_a_row_and_their_mean_the_last(tables):
    table = tables["image_driven"]
    *findings, mean = [row.key for row in table.rows]
    assert mean == "mean"
    assert set(findings) <= set(synthetic.FINDINGS)
    assert sum(table[finding]["maps"] for finding in findings) == table["mean"]["maps"]


def test_one_sided_images_are_pooled_in_the_last_row(tables):
    table = tables["image_driven"]
    rows = [table[row.key] for row in table.rows if row.key != "mean"]
    shares = [(cells["right_side"].value, cells["one_sided"]) for cells in rows if cells["one_sided"]]
    pooled = sum(share * number for share, number in shares) / sum(number for _, number in shares)
    assert table["mean"]["right_side"].value == pytest.approx(pooled)


def test_froc_needs_all_maps(tables):
    assert tables["froc"]["shipped"]
    partly = [replace(record, box_counts=None) for record in synthetic.images(60)]
    assert "froc" not in tables_of(ImageDriven(evaluated(partly)))


def test_without_boxes_there_are_no_rivals():
    assert tables_of(ImageDriven(evaluated(synthetic.images(60, boxes=False)))) == {}
