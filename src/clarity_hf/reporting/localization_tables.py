# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Tables of boxes and maps: T(IoU) of the method, of other methods and of the fixed-box baseline, by all protocols."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from clarity_hf.metrics.bootstrap import (
    Interval,
    classification_intervals,
    localization_difference,
    localization_intervals,
    part_of,
)
from clarity_hf.metrics.classification import auroc_per_finding
from clarity_hf.metrics.image_driven import COMPARED_LEVELS
from clarity_hf.metrics.localization import IOBB_LEVELS, LEVELS
from clarity_hf.metrics.map_checks import absent_on_normal, mass_outside_where_present
from clarity_hf.metrics.matching import Overlaps
from clarity_hf.metrics.protocols import PatientProtocol, clarity_protocol, patient_protocol
from clarity_hf.metrics.published_protocols import (
    WangProtocol,
    chexlocalize_miou,
    ham_mask_iou,
    max_box_acc,
    max_box_acc_v2,
    pointing_game,
    wang_protocol,
)
from clarity_hf.metrics.records import ImageRecord

from .columns import columns, level_columns
from .evaluated import Evaluated, gaps
from .published_figures import PUBLISHED_LEVELS, published_per_finding_table, published_table
from .rendering import table_note
from .schema import Cell, Column, Row, Table, estimate, estimates, plain

MODEL, FIXED_BOX = "model", "fixed_box"
"""Keys of the evaluated method and of the fixed-box baseline in the tables' rows."""

DIFFERENCE = "model-fixed_box"
"""Key of what the evaluated method finds more than the fixed-box baseline."""

FIXED_BOX_NAME = "Fixed-box baseline"
"""The name of that baseline; no other method may have it."""

ANY_REGION, LARGEST_REGION, OWN, OWN_FILTERED = "any_region", "largest_region", "own", "own_filtered"

BOX_RULES = {
    ANY_REGION: "tuned, any region",
    LARGEST_REGION: "tuned, largest region",
    OWN: "own boxes",
    OWN_FILTERED: "own boxes, score-filtered",
    FIXED_BOX: "fixed box",
}
"""How boxes are predicted: by thresholds tuned alike for every method, or by the method's own; key and words."""

MEAN = "Mean over findings"


@dataclass(frozen=True)
class MethodBoxes:
    """Annotated boxes found by the maps of one method, by protocols that treat every method alike.

    Attributes:
        any_region: Map thresholds tuned on other patients; any region of a map may match.
        largest: The same with the largest region alone, thresholds tuned for it.
        wang: The two fixed thresholds of Wang et al.
    """

    any_region: PatientProtocol
    largest: PatientProtocol
    wang: WangProtocol

    def tuned(self) -> dict[str, Overlaps]:
        """Each annotated box scored once, by the key of the rule."""
        return {ANY_REGION: self.any_region.crossed.iou, LARGEST_REGION: self.largest.crossed.iou}


@dataclass(frozen=True, eq=False)
class Localized:
    """Annotated boxes found by the method and by what it is compared with.

    Attributes:
        evaluated: Records of the method and of its baselines.
    """

    evaluated: Evaluated

    @cached_property
    def method(self) -> MethodBoxes:
        """The method, by the protocols that every method goes through."""
        return self._boxes_of(self.evaluated.records)

    @cached_property
    def baselines(self) -> dict[str, MethodBoxes]:
        """Other methods likewise, by name."""
        return {name: self._boxes_of(records) for name, records in self.evaluated.baselines.items()}

    @cached_property
    def own(self) -> Overlaps:
        """Boxes of the method's own thresholds and regions, whatever the score."""
        return self.method.any_region.boxes.predicted()

    @cached_property
    def own_filtered(self) -> Overlaps:
        """The same where the finding's score reaches its threshold."""
        settings = self.evaluated.box_settings
        limits = self.evaluated.score_thresholds if settings is None else settings.boxed_from
        return self.method.any_region.boxes.predicted(score_thresholds=limits)

    @property
    def has_boxes(self) -> bool:
        """Whether there are annotated boxes at all."""
        return len(self.own.best) > 0

    @property
    def tuned(self) -> Overlaps:
        """The method, tuned, any region: the headline."""
        return self.method.any_region.crossed.iou

    @property
    def fixed_box(self) -> Overlaps:
        """The fixed-box baseline: each half of the patients is scored with the boxes of the other."""
        return self.method.any_region.crossed.fixed_box

    def _boxes_of(self, records: Sequence[ImageRecord]) -> MethodBoxes:
        options: dict[str, Any] = {
            "seed": self.evaluated.seed,
            "tuning_patients": self.evaluated.tuning_patients,
            "score_thresholds": self.evaluated.score_thresholds,
        }
        return MethodBoxes(
            any_region=patient_protocol(records, **options),
            largest=patient_protocol(records, components="largest", **options),
            wang=wang_protocol(records, PUBLISHED_LEVELS, IOBB_LEVELS),
        )


def localization_tables(localized: Localized) -> list[Table]:
    """All tables that the records allow."""
    tables, evaluated = [], localized.evaluated
    if localized.has_boxes:
        tables += [
            *mean_tables(localized),
            published_table(),
            boxes_per_finding_table(localized),
            published_per_finding_table(),
            halves_table(localized),
            wang_table(localized),
            masks_table(evaluated),
            other_measures_table(localized),
        ]
    if evaluated.baselines:
        tables.append(baselines_table(localized))
    return [*tables, maps_table(evaluated)]


def mean_tables(localized: Localized) -> list[Table]:
    """T(IoU) of every method, as a mean over findings and over pooled boxes."""
    evaluated = localized.evaluated
    differences = {
        rule: localization_difference(overlaps, localized.fixed_box, **evaluated.sampling)
        for rule, overlaps in localized.method.tuned().items()
    }
    lines = [
        (key, names, overlaps, localization_intervals(overlaps, **evaluated.sampling))
        for key, names, overlaps in _methods(localized)
    ]
    pooled = "The shares of all annotated boxes, whatever their finding; otherwise as in the mean over findings."
    tables = []
    for table, title, part, note in (
        ("localization", "mean over findings", "macro", table_note("localization", evaluated=evaluated)),
        ("localization_pooled", "all boxes pooled", "pooled", pooled),
    ):
        rows, fixed = [], getattr(localized.fixed_box.found(), part)
        for (method, rule), (name, boxes, kind), overlaps, interval in lines:
            values = getattr(overlaps.found(), part)
            shares = estimates(values, getattr(interval, part))
            key = f"{method}/{rule}"
            rows.append(Row(key, (name, boxes, overlaps.boxes_predicted, *shares), kind))
            if method == MODEL and rule in differences:
                gains = estimates(values - fixed, getattr(differences[rule], part))
                name = f"{evaluated.name} − {FIXED_BOX_NAME.lower()}"
                rows.append(Row(f"{DIFFERENCE}/{rule}", (name, boxes, None, *gains), "summary"))
        heads = (*columns("method boxes boxes_predicted"), *level_columns(LEVELS))
        missing = gaps({"all rows": getattr(lines[0][3], part)})
        tables.append(Table(table, f"Share of boxes found, T(IoU), {title}", heads, tuple(rows), note, missing))
    return tables


def _methods(localized: Localized) -> list[tuple[tuple[str, str], tuple[str, str, str], Overlaps]]:
    """Keys of method and rule; their words and the look of the row; and the overlaps, for every row of T(IoU)."""
    lines: list[tuple[tuple[str, str], tuple[str, str, str], Overlaps]] = []
    names = {MODEL: localized.evaluated.name, FIXED_BOX: FIXED_BOX_NAME}

    def add(method: str, rule: str, overlaps: Overlaps, kind: str = "") -> None:
        lines.append(((method, rule), (names.get(method, method), BOX_RULES[rule], kind), overlaps))

    for rule, kind in ((ANY_REGION, "method"), (LARGEST_REGION, "method first")):
        add(MODEL, rule, localized.method.tuned()[rule], kind)
        if rule == ANY_REGION:
            add(FIXED_BOX, FIXED_BOX, localized.fixed_box, "fixed")
        for name, other in localized.baselines.items():
            add(name, rule, other.tuned()[rule])
    add(MODEL, OWN, localized.own, "method first")
    add(MODEL, OWN_FILTERED, localized.own_filtered, "method")
    return lines


def boxes_per_finding_table(localized: Localized) -> Table:
    """T(IoU) per finding with intervals: tuned, of the fixed-box baseline, and of the method's own boxes."""
    evaluated, tuned = localized.evaluated, localized.method.tuned()
    parts = {
        ANY_REGION: (tuned[ANY_REGION], "method first"),
        LARGEST_REGION: (tuned[LARGEST_REGION], "method"),
        FIXED_BOX: (localized.fixed_box, "fixed"),
        OWN: (localized.own, ""),
        OWN_FILTERED: (localized.own_filtered, ""),
    }
    intervals = {
        rule: localization_intervals(overlaps, **evaluated.sampling).shares for rule, (overlaps, _) in parts.items()
    }
    rows, counts = [], localized.own.found().counts
    for i in np.flatnonzero(counts):
        finding = evaluated.findings[i]
        for rule, (overlaps, kind) in parts.items():
            shares = estimates(overlaps.found().shares[i], part_of(intervals[rule], i))
            predicted = float(overlaps.boxes_predicted_per_finding[i])
            rows.append(
                Row(f"{finding}/{rule}", (finding, BOX_RULES[rule], int(counts[i]), predicted, *shares), kind)
            )
    left_out = [evaluated.findings[i] for i in np.flatnonzero(counts == 0)]
    note = table_note("localization_per_finding", evaluated=evaluated)
    note += f" Without annotated boxes: {', '.join(left_out)}." if left_out else ""
    heads = (*columns("finding boxes annotated boxes_predicted"), *level_columns(LEVELS))
    return Table("localization_per_finding", "T(IoU) per finding", heads, tuple(rows), note)


def other_measures_table(localized: Localized) -> Table:
    """Other measures of the same maps, per finding and as their mean."""
    evaluated, records = localized.evaluated, localized.evaluated.records
    rates = {
        "pointing_game": pointing_game(records),
        "max_box_acc": max_box_acc(records),
        "max_box_acc_v2": max_box_acc_v2(records),
    }
    overlaps, masks = localized.method.any_region.crossed.iobb, ham_mask_iou(records)
    inside = overlaps.found(IOBB_LEVELS)
    rows = []
    for i in np.flatnonzero(inside.counts):
        finding = evaluated.findings[i]
        cells = (
            finding,
            int(inside.counts[i]),
            float(overlaps.boxes_predicted_per_finding[i]),
            *inside.shares[i].tolist(),
            *(float(rate.shares[i]) for rate in rates.values()),
            float(masks.shares[i]),
        )
        rows.append(Row(finding, cells))
    total = (int(inside.counts.sum()), overlaps.boxes_predicted)
    macro = (*inside.macro.tolist(), *(rate.macro for rate in rates.values()), masks.macro)
    pooled = (*inside.pooled.tolist(), *(rate.pooled for rate in rates.values()), None)
    rows.append(Row("mean", (MEAN, *total, *macro), "summary first"))
    rows.append(Row("pooled", ("All boxes pooled", *total, *pooled), "summary"))
    note = table_note("localization_other", evaluated=evaluated)
    levels = level_columns(IOBB_LEVELS, "iobb")
    heads = (*columns("finding annotated boxes_predicted"), *levels, *columns(*rates, "mask_iou"))
    return Table("localization_other", "Other measures of localization", heads, tuple(rows), note)


def wang_table(localized: Localized) -> Table:
    """Accuracy and false boxes by the fixed thresholds of Wang et al., per finding, and the means of all methods."""
    evaluated, ours, rows = localized.evaluated, localized.method.wang, list[Row]()

    def add(method: str, finding: int | None, wang: WangProtocol, kind: str = "") -> None:
        accuracy, false = _wang_figures(wang, finding)
        predicted = wang.iou.boxes_predicted if finding is None else wang.iou.boxes_predicted_per_finding[finding]
        of = "mean" if finding is None else evaluated.findings[finding]
        names = (evaluated.name if method == MODEL else method, MEAN if finding is None else of)
        figures: dict[str, tuple[Cell, ...]] = {
            "accuracy": ("accuracy", float(predicted), *accuracy.tolist()),
            "false_boxes": ("false boxes per image", None, *false.tolist()),
        }
        for key, cells in figures.items():
            look = f"{kind} first".strip() if key == "accuracy" else kind
            rows.append(Row(f"{method}/{of}/{key}", (*names, *cells), look))

    for i in np.flatnonzero(ours.iou.found().counts):
        add(MODEL, int(i), ours)
    add(MODEL, None, ours, "summary")
    for name, other in localized.baselines.items():
        add(name, None, other.wang)
    note = table_note("wang")
    measures = (*level_columns(PUBLISHED_LEVELS), *level_columns(IOBB_LEVELS, "iobb"))
    heads = (*columns("method finding figure boxes_predicted"), *measures)
    return Table("wang", "Fixed thresholds, Wang 2017", heads, tuple(rows), note)


def _wang_figures(wang: WangProtocol, finding: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Accuracy and false boxes at `PUBLISHED_LEVELS` of IoU, then at `IOBB_LEVELS`, of a finding or their mean."""
    found = (wang.iou.found(PUBLISHED_LEVELS), wang.iobb.found(IOBB_LEVELS))
    if finding is not None:
        return np.concatenate([part.shares[finding] for part in found]), wang.false_boxes[finding]
    return np.concatenate([part.macro for part in found]), wang.false_boxes[found[0].counts > 0].mean(axis=0)


def maps_table(evaluated: Evaluated) -> Table:
    """Sanity of the maps, from the records alone: mass outside the thorax, and maps of absent findings."""
    (outside, masks), absent = mass_outside_where_present(evaluated.records), absent_on_normal(evaluated.records)
    rows = []
    for i, finding in enumerate(evaluated.findings):
        peaks = (absent.median_present[i], absent.median_normal[i], absent.auroc[i])
        counts = (int(masks[i]), float(outside[i]), int(absent.present[i]))
        cells: tuple[Cell, ...] = (finding, *counts, *map(float, peaks))
        rows.append(Row(finding, cells))
    note = table_note("maps", absent=absent)
    heads = columns("finding masks mass_outside present peak_present peak_normal peak_auroc")
    return Table("maps", "Maps on images with and without the finding", heads, tuple(rows), note)


def halves_table(localized: Localized) -> Table:
    """T(IoU) by protocols that tune map thresholds on one half and score the other, and by Wang's."""
    evaluated, ours, rows = localized.evaluated, localized.method.any_region, list[Row]()
    model, half = evaluated.name, evaluated.half

    def add(key: str, name: str, protocol: str, overlaps: Overlaps, kind: str) -> None:
        cells = (name, protocol, overlaps.boxes_predicted, *overlaps.found().macro.tolist())
        rows.append(Row(key, cells, kind))

    def add_repeats(method: str, regions: str, repeats: Sequence[Overlaps], kind: str) -> None:
        """Mean and deviation over the halves."""
        name = {MODEL: model, FIXED_BOX: FIXED_BOX_NAME}.get(method, method)
        figures = np.stack([overlaps.found().macro for overlaps in repeats])
        predicted = float(np.mean([overlaps.boxes_predicted for overlaps in repeats]))
        over = f"{len(repeats)} halves of the patients, {BOX_RULES[regions].removeprefix('tuned, ')}"
        means = (name, f"{over}, mean", predicted, *figures.mean(axis=0).tolist())
        rows.append(Row(f"{method}/halves/{regions}/mean", means, kind))
        deviations = (name, f"{over}, sd", None, *figures.std(axis=0, ddof=1).tolist())
        rows.append(Row(f"{method}/halves/{regions}/sd", deviations, "rare"))

    add("model/half", model, half, ours.named.iou, "method")
    add("model/half/score_filtered", f"{model}, score-filtered", half, ours.named.score_filtered, "method")
    add("fixed_box/half", FIXED_BOX_NAME, half, ours.named.fixed_box, "fixed")
    add_repeats(FIXED_BOX, FIXED_BOX, [repeat.fixed_box for repeat in ours.repeats], "fixed first")
    for method, boxes in {MODEL: localized.method, **localized.baselines}.items():
        for regions, protocol in ((ANY_REGION, boxes.any_region), (LARGEST_REGION, boxes.largest)):
            add_repeats(method, regions, [repeat.iou for repeat in protocol.repeats], "method" * (method == MODEL))
    images = clarity_protocol(evaluated.records, seed=evaluated.seed, score_thresholds=evaluated.score_thresholds)
    add("model/clarity", model, "half of the images, CLARiTy's", images.iou, "method first")
    add("model/wang", model, "fixed thresholds, Wang 2017", localized.method.wang.iou, "method")
    seeds = f"{evaluated.seed + 1} to {evaluated.seed + len(ours.repeats)}"
    note = table_note("halves", repeats=len(ours.repeats), seeds=seeds)
    heads = (*columns("method protocol boxes_predicted"), *level_columns(LEVELS))
    return Table("halves", "T(IoU) by protocol", heads, tuple(rows), note)


def masks_table(evaluated: Evaluated) -> Table:
    """CheXlocalize's mean mask IoU over true positives, thresholds from one half of the patients."""
    score = chexlocalize_miou(*evaluated.sides, evaluated.score_thresholds, **evaluated.sampling)
    rows = []
    for i in np.flatnonzero(score.annotated):
        counts = (int(score.annotated[i]), int(score.counts[i]))
        figure = estimate(score.miou[i], score.intervals, int(i))
        finding = evaluated.findings[i]
        rows.append(Row(finding, (finding, *counts, figure, float(score.full_miou[i]))))
    totals = (int(score.annotated.sum()), int(score.counts.sum()))
    rows.append(Row("mean", (MEAN, *totals, estimate(score.macro, score.macro_interval), None), "summary first"))
    note = table_note("masks", evaluated=evaluated)
    heads = columns("finding annotated_maps true_positives miou miou_all")
    missing = gaps({"the mean": score.macro_interval} if score.counts.any() else {})
    return Table("masks", "Mask overlap, CheXlocalize", heads, tuple(rows), note, missing)


def baselines_table(localized: Localized) -> Table:
    """How much better than each other method, on the same samples of patients, boxes tuned alike for both."""
    evaluated, labels = localized.evaluated, localized.evaluated.labels
    own, rows, intervals = auroc_per_finding(evaluated.scores, labels), list[Row](), dict[str, Interval]()
    options: dict[str, Any] = {"min_positives": evaluated.min_positives, **evaluated.sampling}
    for name, records in evaluated.baselines.items():
        scores = np.stack([record.scores for record in records])
        areas = auroc_per_finding(scores, labels)
        gain = classification_intervals(evaluated.scores, labels, evaluated.patients, **options, minus=scores)
        difference = gain["macro_auroc"]
        cells: tuple[Cell, ...] = (evaluated.mean(areas), estimate(evaluated.mean(own - areas), difference))
        if evaluated.averaged.any():
            intervals["AUROC"] = difference
        if not localized.has_boxes:
            rows.append(Row(name, (name, *cells)))
            continue
        for rule, ours in localized.method.tuned().items():
            theirs = localized.baselines[name].tuned()[rule]
            gains = ours.found(COMPARED_LEVELS).macro - theirs.found(COMPARED_LEVELS).macro
            paired = localization_difference(ours, theirs, COMPARED_LEVELS, **evaluated.sampling).macro
            intervals["T(IoU)"] = paired
            first = rule == ANY_REGION  # the other row is of the same scores
            shown = cells if first else (None, None)
            figures = (name, *shown, BOX_RULES[rule], ours.boxes_predicted, theirs.boxes_predicted)
            rows.append(Row(f"{name}/{rule}", (*figures, *estimates(gains, paired)), "first" if first else ""))
    note = table_note("baselines")
    heads = columns("baseline auroc auroc_gain")
    if localized.has_boxes:
        note += (
            f" Boxes of both are tuned in the same way: {evaluated.half}, both ways; the table of T(IoU) has every "
            "method's own figures."
        )
        heads += columns("boxes boxes_predicted baseline_boxes_predicted")
        heads += level_columns(COMPARED_LEVELS, "gain")
    title = "Beside other methods on the same images"
    return Table("baselines", title, heads, tuple(rows), note, gaps(intervals))


def sanity_tables(sanity: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[Table]:
    """Tables of sanity checks: per title the rows, each from heading to value."""
    tables = []
    for title, entries in sanity.items():
        heads = tuple(dict.fromkeys(head for entry in entries for head in entry))
        rows = tuple(
            Row(str(next(iter(entry.values()))), tuple(plain(entry.get(head)) for head in heads)) for entry in entries
        )
        tables.append(Table(f"sanity_{_slug(title)}", title, tuple(Column(_slug(head), head) for head in heads), rows))
    return tables


def _slug(title: str) -> str:
    return "_".join(re.findall(r"[a-z0-9]+", title.casefold()))
