# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Tables: what a cell says, which findings a mean counts, what stands beside what, what a constant box has seen."""

import csv
import importlib.util
import io
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from clarity_hf.metrics.bootstrap import localization_intervals
from clarity_hf.metrics.classification import auroc_per_finding
from clarity_hf.metrics.localization import IOBB_LEVELS, LEVELS, boxes_found
from clarity_hf.metrics.records import MAP_THRESHOLDS
from clarity_hf.reporting.table import Estimate, Row, Table, show, show_interval
from clarity_hf.reporting.tables import (
    PUBLISHED,
    PUBLISHED_PER_FINDING,
    Evaluated,
    build_tables,
    classification_table,
    localize,
    masks_table,
    normal_table,
    sanity_tables,
    subgroup_table,
)

_spec = importlib.util.spec_from_file_location("synthetic_records", Path(__file__).with_name("synthetic_records.py"))
synthetic = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(synthetic)
NAN = float("nan")


def evaluated(records, repeats=20, min_positives=20, **options):
    return Evaluated(records, synthetic.FINDINGS, np.array(synthetic.THRESHOLDS), min_positives, repeats, **options)


@pytest.fixture(scope="module")
def images():
    return evaluated(synthetic.images())


@pytest.fixture(scope="module")
def tables(images):
    others = {"Random map": synthetic.images(spread=80.0, skill=0.0)}
    return build_tables(images, localize(images, others), others, model="ours")


@pytest.fixture(scope="module")
def unequal():
    """Maps that a low threshold suits, with own boxes at another: whoever is not tuned finds less."""
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


def test_a_rare_finding_is_listed_and_marked_but_not_in_the_mean(images):
    table = classification_table(images)
    areas = auroc_per_finding(images.scores, images.labels)
    *rows, mean = table.rows
    assert [row.kind for row in rows] == ["", "", "", "rare"]
    assert [row.cells[3].value for row in rows] == pytest.approx(areas.tolist())
    assert mean.cells[0] == "Mean of 3 findings"
    assert mean.cells[3].value == pytest.approx(areas[:3].mean())
    assert mean.cells[3].low < mean.cells[3].value < mean.cells[3].high


def test_all_columns_of_the_mean_are_over_the_same_findings(images):
    # A finding on every image has positives enough, and no negatives: no AUROC, and so no share in any other mean.
    records = [replace(record, labels=np.array([1.0, *record.labels[1:]])) for record in images.records]
    *rows, mean = classification_table(evaluated(records)).rows
    assert [row.kind for row in rows] == ["rare", "", "", "rare"]
    assert mean.cells[0] == "Mean of 2 findings"
    for place in (4, 5, 7):
        values = [show_value(row.cells[place]) for row in rows[1:3]]
        assert show_value(mean.cells[place]) == pytest.approx(np.mean(values))
    assert mean.cells[4].low < mean.cells[4].value < mean.cells[4].high


def show_value(cell):
    return cell.value if isinstance(cell, Estimate) else cell


def test_a_mean_without_an_interval_says_why():
    # Three findings that a patient each has alone: a draw that has all three is rare.
    records = synthetic.images(40)
    labels = np.zeros((40, 4))
    labels[[0, 2, 4], [0, 1, 2]] = 1
    few = evaluated([replace(one, labels=row) for one, row in zip(records, labels, strict=True)], 100, 1)
    table = classification_table(few)
    assert np.isnan(table.rows[-1].cells[3].low)
    assert re.search(r"No interval where a mean .*: both means \(\d\d %\)\.$", table.note.replace("%)", " %)"))
    assert "No interval" not in classification_table(evaluated(records, min_positives=3)).note


def test_no_note_claims_to_know_where_thresholds_come_from(tables):
    assert "chosen on these images" not in tables["classification"].note
    assert "Sensitivity and specificity at the given threshold." in tables["classification"].note


def test_every_image_is_in_one_group_of_each_attribute(images):
    table = subgroup_table(images)
    for attribute, groups in (("Sex", 3), ("Age", 5), ("View", 2)):
        rows = rows_of(table, attribute)
        assert len(rows) == groups
        assert sum(row[2] for row in rows) == len(images.records)


@pytest.mark.parametrize(
    ("age", "group"), [(0, "0–17"), (17.9, "0–17"), (18, "18–39"), (40, "40–59"), (60, "60+"), (95, "60+")]
)
def test_an_age_belongs_to_its_band(age, group):
    records = [replace(record, age=age) for record in synthetic.images(6)]
    assert [row[1] for row in rows_of(subgroup_table(evaluated(records)), "Age")] == [group]


def test_false_boxes_are_counted_on_images_without_any_finding_alone():
    record = synthetic.images(1)[0]
    box = np.array([0.0, 0, 10, 10])
    normal = replace(record, labels=np.zeros(4), annotations=(), shown=((0, box), (0, box), (2, box)))
    quiet = replace(normal, name="b", patient="B", shown=())
    ill = replace(normal, name="c", patient="C", labels=np.array([1.0, 0, 0, 0]))
    unknown = replace(normal, name="d", patient="D", labels=np.array([NAN, 0, 0, 0]))
    table = normal_table(evaluated([normal, quiet, ill, unknown]))
    assert [show(row.cells[1]) for row in table.rows] == ["2", "0.500", "1.500"]
    assert "1 images without a present finding" in table.note


def test_t_iou_is_that_of_the_methods_own_boxes_and_the_gate_takes_boxes_away(images, tables):
    pairs = [(part.finding, part.boxes, part.own) for record in images.records for part in record.annotations]
    shares = [share for _, share in boxes_found(pairs).values()]
    own, gated = (
        rows_of(tables["localization"], "ours", "its own boxes")[0],
        rows_of(tables["localization"], "ours", "its own boxes, gated by score")[0],
    )
    assert [cell.value for cell in own[3:]] == pytest.approx(np.mean(shares, axis=0).tolist())
    assert all(cell.value <= other.value for cell, other in zip(gated[3:], own[3:], strict=True))
    assert gated[2] < own[2]  # boxes drawn


def test_every_box_is_scored_once_at_thresholds_of_the_other_patients(unequal):
    # The best threshold is the same everywhere, so that tuning on any half finds every box; its own finds none.
    localized = localize(unequal, {"untuned": unequal.records})
    assert len(localized.tuned.best) == sum(len(record.annotations) for record in unequal.records)
    assert localized.tuned.best == pytest.approx(1.0, abs=1e-5)
    assert localized.own.best == pytest.approx(0.09, abs=1e-5)
    for overlaps in (localized.method.largest.crossed.iou, localized.baselines["untuned"].any_region.crossed.iou):
        assert overlaps.best == pytest.approx(1.0, abs=1e-5)


def test_a_method_gains_nothing_over_itself_whatever_its_own_thresholds(unequal):
    # A baseline whose own boxes are at another threshold is the same method here.
    other = [with_regions(record, best_at=0.2, own_at=0.2) for record in unequal.records]
    tables = build_tables(unequal, localize(unequal, {"same maps": other}), {"same maps": other}, "ours")
    for row in tables["baselines"].rows:
        assert [cell.value for cell in row.cells[6:]] == [0.0] * 3
        assert row.cells[4:6] == (1.0, 1.0)
    rows = [rows_of(tables["localization"], name, "tuned, any region") for name in ("ours", "same maps")]
    (headline,), (theirs,) = rows
    assert headline[3:] == theirs[3:]


def test_the_largest_region_alone_has_rows_for_every_method_with_the_boxes_it_draws():
    # A region that meets nothing has the most mass: it is drawn alone, where both are drawn any may match.
    off = np.array([[250.0, 250, 256, 256]])
    images = evaluated([with_regions(record, 0.2, extra=[off]) for record in synthetic.images(40)])
    others = {"CAM": images.records}
    table = build_tables(images, localize(images, others), others, "ours")["localization"]
    for name in ("ours", "CAM"):
        (any_region,), (largest,) = (
            rows_of(table, name, f"tuned, {regions}") for regions in ("any region", "largest region")
        )
        assert (any_region[2], any_region[3].value) == (2.0, 1.0)
        assert (largest[2], largest[3].value) == (1.0, 0.0)
    (difference,) = rows_of(table, "ours − constant box", "tuned, largest region")
    (constant,) = rows_of(table, "Constant box")
    assert difference[3].value == -constant[3].value


def test_a_pooled_share_is_of_all_boxes_and_a_mean_of_findings(images, tables):
    tuned = localize(images).tuned
    (mean,), (pooled,) = (
        rows_of(tables[name], "ours", "tuned, any region") for name in ("localization", "localization_pooled")
    )
    assert pooled[3].value == pytest.approx((tuned.best > 0.1).mean())
    shares = [(tuned.best[tuned.findings == i] > 0.1).mean() for i in np.unique(tuned.findings)]
    assert mean[3].value == pytest.approx(np.mean(shares))


def test_t_iou_per_finding_has_the_interval_of_samples_of_patients():
    # Six patients with one box each, whose box is met (IoU 1) or not (.09): a draw is a sum of 6 coins of 4 / 6.
    records = [record for record in synthetic.images(200) if record.labels[0] == 1]
    one_each = list({record.patient: record for record in records}.values())[:6]
    met = [
        replace(with_regions(record, 0.2, 0.2 if place < 4 else 0.5), labels=np.array([1.0, 0, 0, 0]))
        for place, record in enumerate(one_each)
    ]
    images = evaluated([replace(one, annotations=one.annotations[:1]) for one in met], repeats=4000)
    table = build_tables(images, localize(images), model="ours")["localization_per_finding"]
    (own,) = rows_of(table, "Mass", "its own boxes")
    assert own[2] == 6
    half = own[4 + LEVELS.index(0.5)]
    # Quantiles of Binomial(6, 2/3) / 6 at .025 and .975: P(X ≤ 1) = .018, P(X ≤ 2) = .100, P(X ≤ 5) = .912.
    assert (half.value, half.low, half.high) == pytest.approx((4 / 6, 2 / 6, 1.0))
    (tuned,) = rows_of(table, "Mass", "tuned, any region")
    assert all((cell.value, cell.low, cell.high) == pytest.approx((1, 1, 1)) for cell in tuned[4:])


def test_every_row_per_finding_has_the_intervals_of_its_own_finding_and_boxes(images, tables):
    localized = localize(images)
    by_way = {
        "tuned, any region": localized.tuned,
        "tuned, largest region": localized.method.largest.crossed.iou,
        "constant box": localized.constant,
        "its own boxes": localized.own,
        "its own boxes, gated by score": localized.gated,
    }
    for way, overlaps in by_way.items():
        intervals = localization_intervals(overlaps, repeats=20, seed=0).shares
        for i, finding in enumerate(synthetic.FINDINGS):
            (row,) = rows_of(tables["localization_per_finding"], finding, way)
            assert [cell.value for cell in row[4:]] == overlaps.found().shares[i].tolist()
            np.testing.assert_array_equal([cell.low for cell in row[4:]], intervals.low[i])
            np.testing.assert_array_equal([cell.high for cell in row[4:]], intervals.high[i])


def test_a_filed_list_says_which_half_is_tuned_everywhere_and_a_seed_which_else(images, tables, monkeypatch):
    listed = frozenset(record.patient for record in images.records[:60])
    monkeypatch.setattr("clarity_hf.reporting.tables.named_split", {"a-list": listed}.__getitem__)
    filed = evaluated(images.records, tuning_split="a-list")
    assert {record.patient for record in filed.sides[0] if record.annotations} <= listed
    assert not {record.patient for record in filed.sides[1]} & listed
    localized = localize(filed)
    assert set(localized.method.any_region.named.iou.patients) == {
        record.patient for record in images.records if record.annotations
    } - listed
    assert not np.array_equal(localized.constant.best, localize(images).constant.best)
    masks = [row.cells[1] for row in masks_table(filed).rows]
    assert masks != [row.cells[1] for row in tables["masks"].rows]
    named = build_tables(filed, localized, model="ours")
    assert rows_of(named["halves"], "ours", "filed half a-list")
    assert rows_of(tables["halves"], "ours", "half drawn by seed 0")
    for name in ("localization", "localization_per_finding", "localization_other", "masks"):
        assert "filed half a-list" in named[name].note
        assert "half drawn by seed 0" in tables[name].note


def test_wangs_table_has_accuracy_and_false_boxes_per_finding_and_of_every_method():
    box = np.array([0.0, 0, 100, 100])
    inside, off = np.array([[0.0, 0, 50, 80]]), np.array([[200.0, 200, 220, 220]])
    record = next(one for one in synthetic.images(9) if one.labels[0] == 1)
    part = replace(record.annotations[0], boxes=box[None], wang_regions=(np.concatenate([inside, off]), inside))
    images = evaluated([replace(record, annotations=(part,))])
    table = build_tables(images, localize(images, {"CAM": images.records}), {"CAM": images.records}, "ours")["wang"]
    assert table.columns[4:] == (*(f"IoU > {t}" for t in (0.1, 0.3, 0.5, 0.7)), *(f"IoBB > {t}" for t in IOBB_LEVELS))
    accuracy = (3.0, 1.0, 1.0, 0.0, 0.0, 1.0, 1.0, 1.0)  # IoU .4, and wholly inside
    false = (None, 1.0, 1.0, 3.0, 3.0, 1.0, 1.0, 1.0)
    assert [row.cells for row in table.rows] == [
        (method, finding, *figures)
        for method, finding in (("ours", "Mass"), ("ours", "Mean over findings"), ("CAM", "Mean over findings"))
        for figures in (("accuracy", *accuracy), ("false boxes an image", *false))
    ]


def test_a_constant_box_never_comes_from_a_patient_on_whom_it_is_scored():
    # Two patients a half with one box each, all different: whoever were tuned on himself would reach IoU 1.
    records = [record for record in synthetic.images(40) if record.labels[0] == 1]
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
        "ours − constant box",
        "Constant box",
        "Random map",
    }
    assert {row.cells[0] for row in tables["halves"].rows} >= {"ours", "Constant box", "Random map"}
    gain, largest = rows_of(tables["baselines"], "Random map")
    assert all(cell.low > 0 for cell in (gain[2], *gain[6:], *largest[6:]))
    assert (gain[3], largest[3]) == ("tuned, any region", "tuned, largest region")


def test_published_figures_say_that_they_are_of_other_images(tables):
    table = tables["published"]
    assert "PUBLISHED ON NIH's 984 BOXES, NOT ON THIS DATA" in table.title
    assert {row.kind for row in table.rows} == {"published"}
    paper = rows_of(table, "CLARiTy-S-16-512")[0]
    assert paper[1:] == (0.81, 0.69, 0.59, 0.47, 0.32, None, None)
    assert all(set(figures) <= set(LEVELS) for figures in PUBLISHED.values())
    assert rows_of(table, "Constant box of these boxes")[0][1:] == (0.475, None, 0.246, None, 0.15, None, 0.05)


def test_published_figures_per_finding_have_the_mean_that_is_published(tables):
    assert "NOT ON THIS DATA" in tables["published_per_finding"].title
    assert len(tables["published_per_finding"].rows) == 2 * 9
    for figures in PUBLISHED_PER_FINDING.values():
        *findings, mean = figures.values()
        assert np.mean(findings, axis=0) == pytest.approx(mean, abs=0.011)  # of rounded figures
        assert list(figures)[:8] == sorted(list(figures)[:8])


def test_without_annotated_boxes_there_are_no_tables_of_localization():
    images = evaluated(synthetic.images(40, boxes=False))
    tables = build_tables(images, localize(images))
    assert set(tables) == {"classification", "subgroups", "normal_images", "maps"}


def test_a_sanity_table_has_all_heads_of_its_rows():
    (table,) = sanity_tables({"Random weights": [{"part": "head"}, {"part": "all", "ssim": np.float32(0.5)}]}).values()
    assert table.name == "sanity_random_weights"
    assert table.columns == ("part", "ssim")
    assert [row.cells for row in table.rows] == [("head", None), ("all", 0.5)]
