# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Tables of boxes: every box scored once, all methods tuned alike, fixed boxes only from other patients."""

import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from clarity_hf.metrics.bootstrap import localization_intervals
from clarity_hf.metrics.localization import IOBB_LEVELS, LEVELS, boxes_found
from clarity_hf.metrics.records import MAP_THRESHOLDS
from clarity_hf.reporting.evaluated import Evaluated
from clarity_hf.reporting.localization_tables import Localized, localization_tables, masks_table, sanity_tables

_spec = importlib.util.spec_from_file_location("synthetic_records", Path(__file__).with_name("synthetic_records.py"))
synthetic = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(synthetic)
KEYS = [f"iou_{level:g}" for level in LEVELS]


def evaluated(records, repeats=20, min_positives=20, **options):
    return Evaluated(records, synthetic.FINDINGS, np.array(synthetic.THRESHOLDS), min_positives, repeats, **options)


def tables_of(images, baselines=None):
    """Tables by key."""
    localized = Localized(replace(images, name="ours", baselines=baselines or {}))
    return {table.key: table for table in localization_tables(localized)}


def shares_of(cells):
    return [cells[key].value for key in KEYS]


@pytest.fixture(scope="module")
def images():
    return evaluated(synthetic.images())


@pytest.fixture(scope="module")
def tables(images):
    return tables_of(images, {"Random map": synthetic.images(spread=80.0, skill=0.0)})


@pytest.fixture(scope="module")
def unequal():
    """Maps that a low threshold suits, with own boxes at another: a method that is not tuned finds less."""
    return evaluated([with_regions(record, best_at=0.2) for record in synthetic.images(60)])


def with_regions(record, best_at, own_at=0.5, extra=()):
    """The record with regions that are the annotated box at one threshold and a corner of it at all others.

    The last finding is left out: with boxes of one patient there is nothing to tune it on.
    """

    def region(box, threshold):
        size = 1.0 if threshold == best_at else 0.3
        return np.concatenate([box[:2], box[:2] + size * (box[2:] - box[:2])])[None]

    parts = tuple(
        replace(
            part,
            own=region(part.boxes[0], own_at),
            regions=tuple(np.concatenate([*extra, region(part.boxes[0], share)]) for share in MAP_THRESHOLDS),
        )
        for part in record.annotations
        if part.finding < 3
    )
    return replace(record, annotations=parts)


def test_t_iou_is_that_of_the_methods_own_boxes_and_filtering_by_score_removes_boxes(images, tables):
    pairs = [(part.finding, part.boxes, part.own) for record in images.records for part in record.annotations]
    shares = [share for _, share in boxes_found(pairs).values()]
    own, filtered = (tables["localization"][f"model/{rule}"] for rule in ("own", "own_filtered"))
    assert shares_of(own) == pytest.approx(np.mean(shares, axis=0).tolist())
    assert all(share <= other for share, other in zip(shares_of(filtered), shares_of(own), strict=True))
    assert filtered["boxes_predicted"] < own["boxes_predicted"]


def test_every_box_is_scored_once_at_thresholds_of_the_other_patients(unequal):
    # The best threshold is the same everywhere, so that tuning on any half finds every box; its own finds none.
    localized = Localized(replace(unequal, baselines={"untuned": unequal.records}))
    assert len(localized.tuned.best) == sum(len(record.annotations) for record in unequal.records)
    assert localized.tuned.best == pytest.approx(1.0, abs=1e-5)
    assert localized.own.best == pytest.approx(0.09, abs=1e-5)
    for overlaps in (localized.method.largest.crossed.iou, localized.baselines["untuned"].any_region.crossed.iou):
        assert overlaps.best == pytest.approx(1.0, abs=1e-5)


def test_a_method_gains_nothing_over_itself_whatever_its_own_thresholds(unequal):
    # A baseline whose own boxes are at another threshold is the same method here.
    other = [with_regions(record, best_at=0.2, own_at=0.2) for record in unequal.records]
    tables = tables_of(unequal, {"same maps": other})
    for rule in ("any_region", "largest_region"):
        cells = tables["baselines"][f"same maps/{rule}"]
        assert [cells[f"gain_{level}"].value for level in (0.1, 0.3, 0.5)] == [0.0] * 3
        assert (cells["boxes_predicted"], cells["baseline_boxes_predicted"]) == (1.0, 1.0)
    ours, theirs = (tables["localization"][f"{name}/any_region"] for name in ("model", "same maps"))
    assert [ours[key] for key in KEYS] == [theirs[key] for key in KEYS]


def test_the_largest_region_alone_has_rows_for_every_method_with_the_boxes_it_predicts():
    # The region with the most mass overlaps nothing: alone it finds no box; with both regions any may match.
    off = np.array([[250.0, 250, 256, 256]])
    images = evaluated([with_regions(record, 0.2, extra=[off]) for record in synthetic.images(40)])
    others = {"CAM": images.records}
    table = tables_of(images, others)["localization"]
    for name in ("model", "CAM"):
        any_region, largest = (table[f"{name}/{rule}"] for rule in ("any_region", "largest_region"))
        assert (any_region["boxes_predicted"], any_region["iou_0.1"].value) == (2.0, 1.0)
        assert (largest["boxes_predicted"], largest["iou_0.1"].value) == (1.0, 0.0)
    difference, fixed = table["model-fixed_box/largest_region"], table["fixed_box/fixed_box"]
    assert difference["iou_0.1"].value == -fixed["iou_0.1"].value


def test_a_pooled_share_is_of_all_boxes_and_a_mean_of_findings(images, tables):
    tuned = Localized(images).tuned
    mean, pooled = (tables[name]["model/any_region"]["iou_0.1"] for name in ("localization", "localization_pooled"))
    assert pooled.value == pytest.approx((tuned.best > 0.1).mean())
    shares = [(tuned.best[tuned.findings == i] > 0.1).mean() for i in np.unique(tuned.findings)]
    assert mean.value == pytest.approx(np.mean(shares))


def test_t_iou_per_finding_has_the_interval_of_samples_of_patients():
    # Six patients with one box each, whose box is met (IoU 1) or not (.09): a sample is a sum of 6 coins of 4 / 6.
    records = [record for record in synthetic.images(200) if record.labels[0] == 1]
    one_each = list({record.patient: record for record in records}.values())[:6]
    met = [
        replace(with_regions(record, 0.2, 0.2 if place < 4 else 0.5), labels=np.array([1.0, 0, 0, 0]))
        for place, record in enumerate(one_each)
    ]
    images = evaluated([replace(one, annotations=one.annotations[:1]) for one in met], repeats=4000)
    table = tables_of(images)["localization_per_finding"]
    assert table["Mass/own"]["annotated"] == 6
    half = table["Mass/own"]["iou_0.5"]
    # Quantiles of Binomial(6, 2/3) / 6 at .025 and .975: P(X ≤ 1) = .018, P(X ≤ 2) = .100, P(X ≤ 5) = .912.
    assert (half.value, half.low, half.high) == pytest.approx((4 / 6, 2 / 6, 1.0))
    tuned = [table["Mass/any_region"][key] for key in KEYS]
    assert all((cell.value, cell.low, cell.high) == pytest.approx((1, 1, 1)) for cell in tuned)


def test_every_row_per_finding_has_the_intervals_of_its_own_finding_and_boxes(images, tables):
    localized = Localized(images)
    by_rule = {
        "any_region": localized.tuned,
        "largest_region": localized.method.largest.crossed.iou,
        "fixed_box": localized.fixed_box,
        "own": localized.own,
        "own_filtered": localized.own_filtered,
    }
    for rule, overlaps in by_rule.items():
        intervals = localization_intervals(overlaps, repeats=20, seed=0).shares
        for i, finding in enumerate(synthetic.FINDINGS):
            row = tables["localization_per_finding"][f"{finding}/{rule}"]
            assert shares_of(row) == overlaps.found().shares[i].tolist()
            np.testing.assert_array_equal([row[key].low for key in KEYS], intervals.low[i])
            np.testing.assert_array_equal([row[key].high for key in KEYS], intervals.high[i])


def test_every_table_says_which_half_was_tuned_on(images, tables, monkeypatch):
    listed = frozenset(record.patient for record in images.records[:60])
    monkeypatch.setattr("clarity_hf.reporting.evaluated.named_split", {"a-list": listed}.__getitem__)
    listed_half = evaluated(images.records, tuning_split="a-list")
    assert {record.patient for record in listed_half.sides[0] if record.annotations} <= listed
    assert not {record.patient for record in listed_half.sides[1]} & listed
    localized = Localized(listed_half)
    assert set(localized.method.any_region.named.iou.patients) == {
        record.patient for record in images.records if record.annotations
    } - listed
    assert not np.array_equal(localized.fixed_box.best, Localized(images).fixed_box.best)
    masks = [row.cells[1] for row in masks_table(listed_half).rows]
    assert masks != [row.cells[1] for row in tables["masks"].rows]
    named = tables_of(listed_half)
    assert named["halves"]["model/half"]["protocol"] == "listed half a-list"
    assert tables["halves"]["model/half"]["protocol"] == "random half, seed 0"
    for name in ("localization", "localization_per_finding", "localization_other", "masks"):
        assert "listed half a-list" in named[name].note
        assert "random half, seed 0" in tables[name].note


def test_wangs_table_has_accuracy_and_false_boxes_per_finding_and_of_every_method():
    box = np.array([0.0, 0, 100, 100])
    inside, off = np.array([[0.0, 0, 50, 80]]), np.array([[200.0, 200, 220, 220]])
    record = next(one for one in synthetic.images(9) if one.labels[0] == 1)
    part = replace(record.annotations[0], boxes=box[None], wang_regions=(np.concatenate([inside, off]), inside))
    images = evaluated([replace(record, annotations=(part,))])
    table = tables_of(images, {"CAM": images.records})["wang"]
    levels = (*(f"iou_{t}" for t in (0.1, 0.3, 0.5, 0.7)), *(f"iobb_{t}" for t in IOBB_LEVELS))
    assert tuple(column.key for column in table.columns[4:]) == levels
    accuracy = (3.0, 1.0, 1.0, 0.0, 0.0, 1.0, 1.0, 1.0)  # IoU .4, and wholly inside
    false = (None, 1.0, 1.0, 3.0, 3.0, 1.0, 1.0, 1.0)
    assert [row.cells for row in table.rows] == [
        (method, finding, *figures)
        for method, finding in (("ours", "Mass"), ("ours", "Mean over findings"), ("CAM", "Mean over findings"))
        for figures in (("accuracy", *accuracy), ("false boxes per image", *false))
    ]


def test_a_fixed_box_never_comes_from_a_patient_on_whom_it_is_scored():
    # Two patients a half with one box each, all different: a patient scored with his own box would reach IoU 1.
    records = [record for record in synthetic.images(40) if record.labels[0] == 1]
    seen, alone = set(), []
    for record in records:
        if record.patient not in seen:
            seen.add(record.patient)
            alone.append(replace(record, annotations=tuple(part for part in record.annotations if part.finding == 0)))
    fixed = Localized(evaluated(alone)).fixed_box
    assert len(fixed.best) == len(alone)
    assert (fixed.best < 1).all()
    assert (fixed.best > 0).any()


def test_the_method_stands_beside_the_fixed_box_and_other_methods_in_every_protocol(tables):
    methods = {row.key.split("/")[0] for row in tables["localization"].rows}
    assert methods == {"model", "model-fixed_box", "fixed_box", "Random map"}
    assert {row.key.split("/")[0] for row in tables["halves"].rows} == methods - {"model-fixed_box"}
    any_region, largest = (tables["baselines"][f"Random map/{rule}"] for rule in ("any_region", "largest_region"))
    gains = [cells[f"gain_{level}"] for cells in (any_region, largest) for level in (0.1, 0.3, 0.5)]
    assert all(cell.low > 0 for cell in (any_region["auroc_gain"], *gains))
    assert largest["auroc_gain"] is None


def test_without_annotated_boxes_there_are_no_tables_of_localization():
    images = evaluated(synthetic.images(40, boxes=False))
    assert set(tables_of(images)) == {"maps"}
    rows = tables_of(images, {"CAM": images.records})["baselines"].rows
    assert [(row.key, len(row.cells)) for row in rows] == [("CAM", 3)]


def test_a_sanity_table_has_all_heads_of_its_rows():
    (table,) = sanity_tables({"Random weights": [{"Part": "head"}, {"Part": "all", "SSIM": np.float32(0.5)}]})
    assert table.key == "sanity_random_weights"
    assert [(column.key, column.title) for column in table.columns] == [("part", "Part"), ("ssim", "SSIM")]
    assert table["head"] == {"part": "head", "ssim": None}
    assert table["all"] == {"part": "all", "ssim": 0.5}
