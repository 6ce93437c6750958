# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Tables of an evaluation, made from records: classification, subgroups, localization, baselines, sanity of the maps.

A table is data first: full precision as CSV and JSON, rounded as Markdown and on the page of the report.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from clarity_hf.data.named_splits import named_split
from clarity_hf.metrics.bootstrap import (
    Interval,
    bootstrap_by_patient,
    classification_differences,
    classification_intervals,
    localization_difference,
    localization_intervals,
)
from clarity_hf.metrics.classification import (
    auroc_per_finding,
    average_precision_per_finding,
    calibration_error_per_finding,
    operating_points,
    support,
)
from clarity_hf.metrics.image_driven import MapRules
from clarity_hf.metrics.localization import IOBB_LEVELS, LEVELS
from clarity_hf.metrics.map_checks import absent_on_normal, mass_outside_where_present
from clarity_hf.metrics.matching import Overlaps
from clarity_hf.metrics.protocols import PatientProtocol, clarity_protocol, over_repeats, patient_protocol
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
from clarity_hf.metrics.splits import halves_by_patient, split_by_patients

from .table import Cell, Row, Table, as_cell, estimate, estimates

AGE_BANDS: tuple[tuple[float, float, str], ...] = (
    (0, 18, "0–17"),
    (18, 40, "18–39"),
    (40, 60, "40–59"),
    (60, math.inf, "60+"),
)
"""Ages in years, lower end included and upper end excluded, and what a table calls them."""

PUBLISHED: dict[str, dict[float, float]] = {
    "Wang 2017, ResNet-50": {0.1: 0.57, 0.3: 0.22, 0.5: 0.06, 0.7: 0.01},
    "Constant box of these boxes": {0.1: 0.475, 0.3: 0.246, 0.5: 0.150, 0.7: 0.05},
    "Li 2022": {0.1: 0.64, 0.2: 0.53, 0.3: 0.40, 0.4: 0.31, 0.5: 0.24},
    "PCAN": {0.1: 0.78, 0.2: 0.57, 0.3: 0.36, 0.4: 0.21, 0.5: 0.10},
    "ThoraX-PriorNet": {0.1: 0.80, 0.2: 0.63, 0.3: 0.49, 0.4: 0.33, 0.5: 0.28},
    "CLARiTy-S-16-512": {0.1: 0.81, 0.2: 0.69, 0.3: 0.59, 0.4: 0.47, 0.5: 0.32},
    "DenseNet-121 at 512, Grad-CAM++": {0.1: 0.62, 0.2: 0.42, 0.3: 0.28, 0.4: 0.18, 0.5: 0.10},
    "Random map": {0.1: 0.29, 0.2: 0.17, 0.3: 0.10, 0.4: 0.05, 0.5: 0.03},
}
"""T(IoU) on the 984 boxes of the NIH release, mean over its eight boxed findings, at the levels that are known."""

PUBLISHED_PER_FINDING: dict[str, dict[str, tuple[float, ...]]] = {
    "Wang 2017, ResNet-50": {
        "Atelectasis": (0.69, 0.24, 0.05, 0.01),
        "Cardiomegaly": (0.94, 0.46, 0.18, 0.03),
        "Effusion": (0.66, 0.30, 0.11, 0.02),
        "Infiltration": (0.71, 0.28, 0.07, 0.00),
        "Mass": (0.40, 0.15, 0.01, 0.00),
        "Nodule": (0.14, 0.04, 0.01, 0.00),
        "Pneumonia": (0.63, 0.17, 0.03, 0.01),
        "Pneumothorax": (0.38, 0.13, 0.03, 0.02),
        "Mean of 8 findings": (0.57, 0.22, 0.06, 0.01),
    },
    "Constant box": {
        "Atelectasis": (0.33, 0.09, 0.03, 0.01),
        "Cardiomegaly": (1.0, 1.0, 0.85, 0.32),
        "Effusion": (0.41, 0.19, 0.08, 0.01),
        "Infiltration": (0.66, 0.29, 0.09, 0.02),
        "Mass": (0.26, 0.05, 0.00, 0.00),
        "Nodule": (0.05, 0.00, 0.00, 0.00),
        "Pneumonia": (0.68, 0.21, 0.07, 0.01),
        "Pneumothorax": (0.36, 0.19, 0.07, 0.00),
        "Mean of 8 findings": (0.47, 0.25, 0.15, 0.05),
    },
}
"""T(IoU) per finding on the 984 boxes of the NIH release, at `PUBLISHED_LEVELS`."""

PUBLISHED_LEVELS = (0.1, 0.3, 0.5, 0.7)
"""The t that Wang et al. publish for T(IoU) and that have figures per finding."""

_COMPARED = (0.1, 0.3, 0.5)
"""Levels at which baselines are compared."""

CONSTANT_BOX = "Constant box"
"""What tables call the constant box; no other method may be called so."""

ANY_REGION, LARGEST_REGION = "tuned, any region", "tuned, largest region"
OWN_BOXES, OWN_BOXES_GATED = "its own boxes", "its own boxes, gated by score"
"""What tables call the ways to draw boxes from maps: tuned for every method alike, or as the method itself draws."""


@dataclass(frozen=True)
class Evaluated:
    """Records of one method with all that a table needs to know beside them.

    Attributes:
        records: One per image.
        findings: The F names.
        score_thresholds: `(F,)` in [0, 1], chosen on other images: a finding is present from there on.
        min_positives: Findings with fewer positives are listed but not in a mean.
        repeats: Draws of every bootstrap.
        seed: Of every bootstrap and split.
        tuning_split: Name of the committed list of patients on whom map thresholds and constant boxes are chosen, see
            [`named_split`]; None draws half of the patients with boxes with `seed`.
        map_rules: How the method draws boxes from a map, for the rival that draws them from the mean map; None leaves
            that rival out.
    """

    records: Sequence[ImageRecord]
    findings: tuple[str, ...]
    score_thresholds: np.ndarray
    min_positives: int = 20
    repeats: int = 1000
    seed: int = 0
    tuning_split: str | None = None
    map_rules: MapRules | None = None

    @cached_property
    def scores(self) -> np.ndarray:
        """`(n, F)` float64."""
        return np.stack([record.scores for record in self.records])

    @cached_property
    def labels(self) -> np.ndarray:
        """`(n, F)` float64, 1, 0 or NaN."""
        return np.stack([record.labels for record in self.records])

    @cached_property
    def patients(self) -> list[str]:
        """`(n,)`, for draws and splits by patient."""
        return [record.patient for record in self.records]

    @cached_property
    def averaged(self) -> np.ndarray:
        """`(F,)` bool, the findings that are in a mean over the findings of classification."""
        counts = support(self.labels)
        return (counts["positives"] >= max(1, self.min_positives)) & (counts["negatives"] > 0)

    def mean(self, values: np.ndarray) -> float:
        """Mean of a figure `(F,)` over the findings of `averaged`; NaN where there are none."""
        return float(values[self.averaged].mean()) if self.averaged.any() else float("nan")

    @cached_property
    def tuning_patients(self) -> frozenset[str] | None:
        """Patients of the committed list; None where none was given."""
        return None if self.tuning_split is None else named_split(self.tuning_split)

    @cached_property
    def sides(self) -> tuple[list[ImageRecord], list[ImageRecord]]:
        """Images to tune on and images to score."""
        if self.tuning_patients is None:
            return halves_by_patient(self.records, self.seed)
        return split_by_patients(self.records, self.tuning_patients)

    @property
    def half(self) -> str:
        """What tables call the half that is tuned on."""
        return f"half drawn by seed {self.seed}" if self.tuning_split is None else f"filed half {self.tuning_split}"

    def intervals(self, rows: np.ndarray | None = None) -> dict[str, Any]:
        """[`classification_intervals`] of all images, or of some."""
        index = np.arange(len(self.records)) if rows is None else rows
        return classification_intervals(
            self.scores[index],
            self.labels[index],
            [self.patients[i] for i in index],
            repeats=self.repeats,
            seed=self.seed,
            min_positives=self.min_positives,
        )


def classification_table(evaluated: Evaluated) -> Table:
    """AUROC and average precision with intervals by patient, calibration and the operating point, per finding."""
    scores, labels = evaluated.scores, evaluated.labels
    areas, precisions = auroc_per_finding(scores, labels), average_precision_per_finding(scores, labels)
    errors = calibration_error_per_finding(scores, labels)
    points = operating_points(scores, labels, evaluated.score_thresholds)
    counts, intervals = support(labels), evaluated.intervals()
    rows = []
    for i, finding in enumerate(evaluated.findings):
        cells: tuple[Cell, ...] = (
            finding,
            int(counts["positives"][i]),
            int(counts["negatives"][i]),
            estimate(areas[i], intervals["auroc"], i),
            estimate(precisions[i], intervals["average_precision"], i),
            float(errors[i]),
            float(evaluated.score_thresholds[i]),
            float(points["sensitivity"][i]),
            float(points["specificity"][i]),
        )
        rows.append(Row(cells, "" if evaluated.averaged[i] else "rare"))

    mean = evaluated.mean
    averaged = int(evaluated.averaged.sum())
    summary: tuple[Cell, ...] = (
        f"Mean of {averaged} findings",
        int(counts["positives"][evaluated.averaged].sum()),
        int(counts["negatives"][evaluated.averaged].sum()),
        estimate(mean(areas), intervals["macro_auroc"]),
        estimate(mean(precisions), intervals["macro_average_precision"]),
        mean(errors),
        None,
        mean(points["sensitivity"]),
        mean(points["specificity"]),
    )
    note = (
        f"Intervals: 95 %, {evaluated.repeats} bootstrap draws of patients. ECE: expected calibration error, 15 bins. "
        "Sensitivity and specificity at the given threshold. "
        f"In italics: under {evaluated.min_positives} positives or without negatives, listed but not in the mean."
        + _undefined_means({"both means": intervals["macro_auroc"]} if averaged else {})
    )
    heads = ("Finding", "Positives", "Negatives", "AUROC", "AP", "ECE", "Threshold", "Sensitivity", "Specificity")
    return Table("classification", "Classification per finding", heads, (*rows, Row(summary, "summary first")), note)


def subgroup_table(evaluated: Evaluated) -> Table:
    """The same model on parts of the images: by sex, age and view."""
    rows, intervals = [], {}
    for attribute, groups in _subgroups(evaluated.records).items():
        for place, (group, index) in enumerate(groups.items()):
            kind = "first" if place == 0 else ""
            scores, labels = evaluated.scores[index], evaluated.labels[index]
            counts = support(labels)
            averaged = (counts["positives"] >= max(1, evaluated.min_positives)) & (counts["negatives"] > 0)
            if not averaged.any():
                rows.append(Row((attribute, group, len(index), 0, None, None, None), f"rare {kind}".strip()))
                continue
            interval = intervals[f"{attribute} {group}"] = evaluated.intervals(index)["macro_auroc"]
            points = operating_points(scores, labels, evaluated.score_thresholds)
            area = float(auroc_per_finding(scores, labels)[averaged].mean())
            shares = [float(points[name][averaged].mean()) for name in ("sensitivity", "specificity")]
            figures: tuple[Cell, ...] = (estimate(area, interval), *shares)
            rows.append(Row((attribute, group, len(index), int(averaged.sum()), *figures), kind))
    note = (
        f"Means over the findings with at least {evaluated.min_positives} positives in the group: rows that count "
        "other findings are means of other things. Thresholds are those of all images. Images whose sex, age or view "
        "is not known have rows of their own." + _undefined_means(intervals)
    )
    heads = ("Attribute", "Group", "Images", "Findings in the mean", "AUROC", "Sensitivity", "Specificity")
    return Table("subgroups", "By sex, age and view", heads, tuple(rows), note)


def normal_table(evaluated: Evaluated) -> Table:
    """What a user sees on images without any finding: boxes that should not be there."""
    normal = [record for record in evaluated.records if (record.labels == 0).all()]
    rows = _alarm_rows(evaluated, normal, "Images without any finding")
    views = [view for view in ("PA", "AP") if any(record.view == view for record in normal)]
    if len(views) > 1:
        for view in views:
            of_view = [record for record in normal if record.view == view]
            rows += _alarm_rows(evaluated, of_view, f"Of these {view}", "rare")
    note = (
        "Images on which every finding is annotated as absent; boxes at the score thresholds. Left out as not known "
        f"to be normal: {_partly(evaluated.records)} images without a present finding and with labels not annotated."
    )
    return Table("normal_images", "What a user sees on them", ("Measure", "Value"), tuple(rows), note)


def _alarm_rows(evaluated: Evaluated, normal: Sequence[ImageRecord], name: str, kind: str = "") -> list[Row]:
    """How many images, the share of them with a box, and boxes an image."""
    rows = [Row((name, len(normal)), kind)]
    if not normal:
        return rows
    alarms = np.array([len(record.shown) for record in normal], dtype=np.float64)

    def figures(index: np.ndarray) -> np.ndarray:
        return np.array([(alarms[index] > 0).mean(), alarms[index].mean()])

    patients = [record.patient for record in normal]
    interval = bootstrap_by_patient(figures, patients, repeats=evaluated.repeats, seed=evaluated.seed)
    share, mean = figures(np.arange(len(normal)))
    rows.append(Row(("Share of them with a false box", estimate(share, interval, 0)), kind))
    rows.append(Row(("False boxes per image", estimate(mean, interval, 1)), kind))
    return rows


def _partly(records: Iterable[ImageRecord]) -> int:
    """Number of images without a present finding that may have one: some of their labels are not annotated."""
    return sum(bool(np.isnan(record.labels).any() and not (record.labels == 1).any()) for record in records)


def _subgroups(records: Sequence[ImageRecord]) -> dict[str, dict[str, np.ndarray]]:
    """Indices of images per attribute and group, images of unknown group last; a group without images is left out."""

    def band(age: float | None) -> str:
        known = age is not None and not math.isnan(age)
        return next((name for low, high, name in AGE_BANDS if known and low <= age < high), "not known")  # type: ignore[operator]

    named = {
        "Sex": ([record.sex or "not known" for record in records], ("F", "M")),
        "Age": ([band(record.age) for record in records], tuple(name for _, _, name in AGE_BANDS)),
        "View": ([record.view or "not known" for record in records], ("PA", "AP")),
    }
    grouped = {}
    for attribute, (values, order) in named.items():
        others = sorted(set(values) - {*order, "not known"})
        members = {
            group: np.flatnonzero([value == group for value in values]) for group in (*order, *others, "not known")
        }
        grouped[attribute] = {group: index for group, index in members.items() if len(index)}
    return grouped


@dataclass(frozen=True)
class Drawn:
    """What is found of the annotated boxes from one method's maps, by protocols that treat every method alike.

    Attributes:
        any_region: Map thresholds tuned on other patients; any region of a map may match.
        largest: The same with the largest region alone, thresholds tuned for it.
        fixed: The two fixed thresholds of Wang et al.
    """

    any_region: PatientProtocol
    largest: PatientProtocol
    fixed: WangProtocol


@dataclass(frozen=True)
class Localized:
    """What is found of the annotated boxes, by the method and by what it is compared with.

    Attributes:
        method: Of the method, by the protocols that every method goes through.
        baselines: Of other methods likewise, by name.
        own: Boxes of the method's own thresholds and regions, whatever the score.
        gated: The same where the finding's score reaches its threshold.
    """

    method: Drawn
    baselines: dict[str, Drawn]
    own: Overlaps
    gated: Overlaps

    @property
    def has_boxes(self) -> bool:
        """Whether there are annotated boxes at all."""
        return len(self.own.best) > 0

    @property
    def tuned(self) -> Overlaps:
        """Of the method, tuned, any region: the headline."""
        return self.method.any_region.crossed.iou

    @property
    def constant(self) -> Overlaps:
        """The constant box: each half of the patients is scored with the boxes of the other."""
        return self.method.any_region.crossed.fixed_box


def localize(evaluated: Evaluated, baselines: Mapping[str, Sequence[ImageRecord]] | None = None) -> Localized:
    """Compare annotated boxes with those of the method, of baselines, and with constant boxes.

    Raises:
        ValueError: The list that `evaluated` names has none, or all, of the patients with boxes.
    """
    ours = _drawn(evaluated, evaluated.records)
    boxes = ours.any_region.boxes
    rules = evaluated.map_rules
    gate = evaluated.score_thresholds if rules is None or rules.scores is None else rules.scores
    return Localized(
        method=ours,
        baselines={name: _drawn(evaluated, records) for name, records in (baselines or {}).items()},
        own=boxes.predicted(),
        gated=boxes.predicted(score_thresholds=gate),
    )


def _drawn(evaluated: Evaluated, records: Sequence[ImageRecord]) -> Drawn:
    options: dict[str, Any] = {
        "seed": evaluated.seed,
        "tuning_patients": evaluated.tuning_patients,
        "score_thresholds": evaluated.score_thresholds,
    }
    return Drawn(
        any_region=patient_protocol(records, **options),
        largest=patient_protocol(records, components="largest", **options),
        fixed=wang_protocol(records),
    )


def localization_tables(evaluated: Evaluated, localized: Localized, model: str) -> list[Table]:
    """T(IoU) of the method beside what it must be compared with: as a mean over findings, and over pooled boxes."""
    settings: dict[str, Any] = {"repeats": evaluated.repeats, "seed": evaluated.seed}
    differences = {
        ANY_REGION: localization_difference(localized.tuned, localized.constant, **settings),
        LARGEST_REGION: localization_difference(localized.method.largest.crossed.iou, localized.constant, **settings),
    }
    lines = [
        (row, overlaps, localization_intervals(overlaps, **settings)) for row, overlaps in _methods(localized, model)
    ]
    heads = ("Method", "Boxes", "Boxes drawn", *(f"> {level:g}" for level in LEVELS))
    pooled = "The shares of all annotated boxes, whatever their finding; else as in the mean over findings."
    tables = []
    for name, title, part, text in (
        ("localization", "mean over findings", "macro", _localization_note(evaluated)),
        ("localization_pooled", "all boxes pooled", "pooled", pooled),
    ):
        rows = []
        for (method, boxes, kind), overlaps, interval in lines:
            cells = estimates(getattr(overlaps.found(), part), getattr(interval, part))
            rows.append(Row((method, boxes, overlaps.boxes_predicted, *cells), kind))
            if method == model and boxes in differences:
                values = getattr(overlaps.found(), part) - getattr(localized.constant.found(), part)
                cells = estimates(values, getattr(differences[boxes], part))
                rows.append(Row((f"{model} − constant box", boxes, None, *cells), "summary"))
        missing = _undefined_means({"all rows": getattr(lines[0][2], part)})
        tables.append(Table(name, f"Share of boxes found, T(IoU), {title}", heads, tuple(rows), text + missing))
    return tables


def _localization_note(evaluated: Evaluated) -> str:
    return (
        "T(IoU): share of annotated boxes that a drawn box of the same finding overlaps by IoU > t. Tuned: a map "
        "threshold a finding, chosen in the same way for every method on one half of the patients with boxes and "
        f"applied to the other, both ways, so that every annotated box is scored once ({evaluated.half}); any region "
        "of the map may match, or the largest alone is drawn; whatever the score. Its own boxes: of the thresholds "
        "and regions that the model itself has, which a user sees; “gated by score” counts a box only where the score "
        "reaches its threshold. Boxes drawn: mean per annotated image and finding; read T(IoU) beside it, for many "
        "boxes meet more by chance. The constant box sees no image: per finding the annotated box with the highest "
        "mean IoU to the others of one half, scored on the other. Intervals: 95 % by patient, "
        f"{evaluated.repeats} draws; differences are paired, and clear where their interval lies off zero."
    )


def _methods(localized: Localized, model: str) -> list[tuple[tuple[str, str, str], Overlaps]]:
    """Name, way to draw and kind of every row of localization, with its overlaps."""
    others = localized.baselines
    return [
        ((model, ANY_REGION, "method"), localized.tuned),
        ((CONSTANT_BOX, "no map", "constant"), localized.constant),
        *(((name, ANY_REGION, ""), drawn.any_region.crossed.iou) for name, drawn in others.items()),
        ((model, LARGEST_REGION, "method first"), localized.method.largest.crossed.iou),
        *(((name, LARGEST_REGION, ""), drawn.largest.crossed.iou) for name, drawn in others.items()),
        ((model, OWN_BOXES, "method first"), localized.own),
        ((model, OWN_BOXES_GATED, "method"), localized.gated),
    ]


def published_table() -> Table:
    """T(IoU) of publications, on other images."""
    rows = tuple(
        Row((name, *(figures.get(level) for level in LEVELS)), "published") for name, figures in PUBLISHED.items()
    )
    note = (
        "On the 984 boxes of the NIH release: other images, and partly other protocols, than all other tables here. "
        "For orientation; no other row can be ranked among these unless it was made on those boxes."
    )
    heads = ("Method", *(f"> {level:g}" for level in LEVELS))
    return Table(
        "published", "PUBLISHED ON NIH's 984 BOXES, NOT ON THIS DATA: mean T(IoU) over 8 findings", heads, rows, note
    )


def published_per_finding_table() -> Table:
    """T(IoU) of publications per finding, on other images."""
    sources = tuple(PUBLISHED_PER_FINDING)
    rows = tuple(
        Row((finding, source, *PUBLISHED_PER_FINDING[source][finding]), f"published{' first' * (place == 0)}")
        for finding in PUBLISHED_PER_FINDING[sources[0]]
        for place, source in enumerate(sources)
    )
    note = (
        "On the 984 boxes of the NIH release: other images than all other tables here. Cardiomegaly alone gives a "
        "constant box 0.85 at IoU > 0.5: a mean says little without its findings."
    )
    heads = ("Finding", "Method", *(f"> {level:g}" for level in PUBLISHED_LEVELS))
    title = "PUBLISHED ON NIH's 984 BOXES, NOT ON THIS DATA: T(IoU) per finding"
    return Table("published_per_finding", title, heads, rows, note)


def boxes_per_finding_table(evaluated: Evaluated, localized: Localized) -> Table:
    """T(IoU) per finding with intervals: tuned, of the constant box, and of the method's own boxes."""
    parts = {
        ANY_REGION: (localized.tuned, "method first"),
        LARGEST_REGION: (localized.method.largest.crossed.iou, "method"),
        "constant box": (localized.constant, "constant"),
        OWN_BOXES: (localized.own, ""),
        OWN_BOXES_GATED: (localized.gated, ""),
    }
    intervals = {
        name: localization_intervals(overlaps, repeats=evaluated.repeats, seed=evaluated.seed).shares
        for name, (overlaps, _) in parts.items()
    }
    rows = []
    counts = localized.own.found().counts
    for i in np.flatnonzero(counts):
        for name, (overlaps, kind) in parts.items():
            low, high = intervals[name].low[i], intervals[name].high[i]
            shares = estimates(overlaps.found().shares[i], Interval(low, high))
            drawn = float(overlaps.boxes_predicted_per_finding[i])
            rows.append(Row((evaluated.findings[i], name, int(counts[i]), drawn, *shares), kind))
    left_out = [evaluated.findings[i] for i in np.flatnonzero(counts == 0)]
    note = (
        f"Boxes as in the table of the mean over findings ({evaluated.half}, both ways). Intervals: 95 % by patient, "
        f"{evaluated.repeats} draws, each row by itself; map thresholds stay as they were chosen. An interval of no "
        "width says that all draws agree, as they do on a share of 0 or 1 and on the boxes of a single patient, and "
        "not that the figure is certain."
    )
    note += f" Without annotated boxes: {', '.join(left_out)}." if left_out else ""
    heads = ("Finding", "Boxes", "Annotated", "Boxes drawn", *(f"> {level:g}" for level in LEVELS))
    return Table("localization_per_finding", "T(IoU) per finding", heads, tuple(rows), note)


def other_localization_table(evaluated: Evaluated, localized: Localized) -> Table:
    """Other measures of the same maps, per finding and as their mean."""
    records = evaluated.records
    rates = {
        "Pointing game": pointing_game(records),
        "MaxBoxAcc": max_box_acc(records),
        "MaxBoxAccV2": max_box_acc_v2(records),
    }
    drawn = localized.method.any_region.crossed.iobb
    masks, inside = ham_mask_iou(records), drawn.found(IOBB_LEVELS)
    rows = []
    for i in np.flatnonzero(inside.counts):
        cells = (
            evaluated.findings[i],
            int(inside.counts[i]),
            float(drawn.boxes_predicted_per_finding[i]),
            *inside.shares[i].tolist(),
            *(float(rate.shares[i]) for rate in rates.values()),
            float(masks.means[i]),
        )
        rows.append(Row(cells))
    total = (int(inside.counts.sum()), drawn.boxes_predicted)
    mean = ("Mean over findings", *total, *inside.macro.tolist(), *(rate.macro for rate in rates.values()))
    pooled = ("All boxes pooled", *total, *inside.pooled.tolist(), *(rate.pooled for rate in rates.values()))
    note = (
        "T(IoBB): intersection over the area of the drawn box > t (Wang 2017), of the tuned boxes of any region as in "
        f"T(IoU): {evaluated.half}, both ways, thresholds by mean IoU; boxes drawn are theirs, a mean per annotated "
        "image and finding. Pointing game: the map's largest value lies in an annotated box. MaxBoxAcc and "
        "MaxBoxAccV2 are as published: whole regions, and the threshold that suits these images best; upper "
        "bounds, for comparison among methods alone. Mask IoU: "
        "of the map above half of its peak with the filled boxes (HAM's measure), not of boxes."
    )
    levels = (f"IoBB > {level:g}" for level in inside.levels)
    heads = ("Finding", "Boxes", "Boxes drawn", *levels, *rates, "Mask IoU")
    summary = (Row((*mean, masks.macro), "summary first"), Row((*pooled, None), "summary"))
    return Table("localization_other", "Other measures of localization", heads, (*rows, *summary), note)


def wang_table(evaluated: Evaluated, localized: Localized, model: str) -> Table:
    """Accuracy and false boxes by the fixed thresholds of Wang et al., per finding, and the means of all methods."""
    ours = localized.method.fixed
    rows: list[Row] = []
    for i in np.flatnonzero(ours.iou.found().counts):
        drawn = float(ours.iou.boxes_predicted_per_finding[i])
        rows += _wang_rows(model, evaluated.findings[i], drawn, *_wang_figures(ours, int(i)), kind="")
    means = [(model, ours, "summary"), *((name, other.fixed, "") for name, other in localized.baselines.items())]
    for name, fixed, kind in means:
        rows += _wang_rows(name, "Mean over findings", fixed.iou.boxes_predicted, *_wang_figures(fixed), kind=kind)
    note = (
        "Wang 2017: the map brought to 0–255, a box around each isolated region above 60 and above 180; nothing is "
        "tuned, and no score gates. Accuracy: share of annotated boxes that one of them overlaps by more than t. "
        "False boxes: drawn boxes per image that overlap no annotated box of the finding by more than t, on the "
        "images where the finding is annotated, as there. Boxes drawn: mean per annotated image and finding."
    )
    measures = (*(f"IoU > {level:g}" for level in PUBLISHED_LEVELS), *(f"IoBB > {level:g}" for level in IOBB_LEVELS))
    heads = ("Method", "Finding", "Figure", "Boxes drawn", *measures)
    return Table("wang", "Fixed thresholds, Wang 2017", heads, tuple(rows), note)


def _wang_rows(
    method: str, finding: str, drawn: float, accuracy: np.ndarray, false: np.ndarray, kind: str
) -> tuple[Row, Row]:
    return (
        Row((method, finding, "accuracy", drawn, *accuracy.tolist()), f"{kind} first".strip()),
        Row((method, finding, "false boxes an image", None, *false.tolist()), kind),
    )


def _wang_figures(fixed: WangProtocol, finding: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Accuracy and false boxes at `PUBLISHED_LEVELS` of IoU, then at `IOBB_LEVELS`, of a finding or their mean."""
    places = [fixed.levels.index(level) for level in PUBLISHED_LEVELS]
    places_iobb = [fixed.iobb_levels.index(level) for level in IOBB_LEVELS]
    found = (fixed.iou.found(PUBLISHED_LEVELS), fixed.iobb.found(IOBB_LEVELS))
    false = np.hstack([fixed.false_boxes[:, places], fixed.false_boxes_iobb[:, places_iobb]])
    if finding is not None:
        return np.concatenate([part.shares[finding] for part in found]), false[finding]
    return np.concatenate([part.macro for part in found]), false[found[0].counts > 0].mean(axis=0)


def maps_table(evaluated: Evaluated) -> Table:
    """Sanity of the maps, from the records alone: mass outside the thorax, and maps of absent findings."""
    outside, absent = mass_outside_where_present(evaluated.records), absent_on_normal(evaluated.records)
    rows = tuple(
        Row(
            (
                finding,
                int(outside.images[i]),
                float(outside.mean[i]),
                int(absent.present[i]),
                float(absent.median_present[i]),
                float(absent.median_normal[i]),
                float(absent.auroc[i]),
            )
        )
        for i, finding in enumerate(evaluated.findings)
    )
    note = (
        "Mass outside: mean share of a present finding's map that lies outside the thorax, over the images with a "
        "mask. Peaks: medians of a map's largest value on the method's own scale, on images with the finding and on "
        f"the {absent.normal_images} normal images; AUROC: how often the peak on an image with the finding is the "
        "higher one."
    )
    heads = (
        "Finding",
        "Images with a mask",
        "Mass outside",
        "Images with the finding",
        "Peak, present",
        "Peak, normal images",
        "AUROC of peaks",
    )
    return Table("maps", "Maps on images with and without the finding", heads, rows, note)


def halves_table(evaluated: Evaluated, localized: Localized, model: str) -> Table:
    """T(IoU) by protocols that tune map thresholds on one half and score the other, and by Wang's."""
    ours, half = localized.method.any_region, evaluated.half
    rows = [
        _protocol_row(model, half, ours.named.iou, "method"),
        _protocol_row(f"{model}, gated by score", half, ours.named.score_filtered, "method"),
        _protocol_row(CONSTANT_BOX, half, ours.named.fixed_box, "constant"),
    ]
    rows += _repeated_rows(CONSTANT_BOX, "no map", [repeat.fixed_box for repeat in ours.repeats], "constant first")
    for name, drawn in {model: localized.method, **localized.baselines}.items():
        kind = "method" if name == model else ""
        for regions, protocol in (("any region", drawn.any_region), ("largest region", drawn.largest)):
            rows += _repeated_rows(name, regions, [repeat.iou for repeat in protocol.repeats], kind)
    images = clarity_protocol(evaluated.records, seed=evaluated.seed, score_thresholds=evaluated.score_thresholds)
    rows.append(_protocol_row(model, "half of the images, CLARiTy's", images.iou, "method first"))
    rows.append(_protocol_row(model, "fixed thresholds, Wang 2017", localized.method.fixed.iou, "method"))
    seeds = f"{evaluated.seed + 1} to {evaluated.seed + len(ours.repeats)}"
    note = (
        "Means over findings. Map thresholds, and the constant box, are chosen on the half that is named and scored "
        f"on the other, one way alone; the {len(ours.repeats)} further halves are drawn by seeds {seeds}. Any region "
        "of a map may match where it is not said that the largest alone is drawn. Read T(IoU) beside the boxes that "
        "are drawn for it: many boxes meet more by chance. CLARiTy's protocol splits images, so that a patient may be "
        "in both halves. Wang's draws every region above 60 and above 180 of a map brought to 0–255."
    )
    heads = ("Method", "Protocol", "Boxes drawn", *(f"> {level:g}" for level in LEVELS))
    return Table("halves", "T(IoU) by protocol", heads, tuple(rows), note)


def _protocol_row(name: str, protocol: str, overlaps: Overlaps, kind: str) -> Row:
    return Row((name, protocol, overlaps.boxes_predicted, *overlaps.found().macro.tolist()), kind)


def _repeated_rows(name: str, regions: str, repeats: Sequence[Overlaps], kind: str) -> list[Row]:
    """Mean and deviation over the halves."""
    figures, drawn = over_repeats(repeats), [overlaps.boxes_predicted for overlaps in repeats]
    over = f"{len(repeats)} halves of the patients, {regions}"
    return [
        Row((name, f"{over}, mean", float(np.mean(drawn)), *figures.macro.tolist()), kind),
        Row((name, f"{over}, sd", None, *figures.macro_deviation.tolist()), "rare"),
    ]


def masks_table(evaluated: Evaluated) -> Table:
    """CheXlocalize's mean mask IoU over true positives, thresholds from one half of the patients."""
    tuning, scoring = evaluated.sides
    score = chexlocalize_miou(
        tuning, scoring, evaluated.score_thresholds, repeats=evaluated.repeats, seed=evaluated.seed
    )
    rows = []
    for i in np.flatnonzero(score.annotated):
        figure = estimate(score.miou[i], score.intervals, int(i))
        counts = (int(score.annotated[i]), int(score.counts[i]))
        rows.append(Row((evaluated.findings[i], *counts, figure, float(score.full_miou[i]))))
    totals = (int(score.annotated.sum()), int(score.counts.sum()))
    summary = ("Mean over findings", *totals, estimate(score.macro, score.macro_interval), None)
    note = (
        "CheXlocalize's measure with filled boxes in place of drawn contours: compare methods by it, not with "
        "published figures. "
        f"Map thresholds from one half of the patients ({evaluated.half}), scored on the other, one way alone; below "
        "the score threshold a mask is empty. mIoU: over true positives; last column: over all annotated maps, an "
        "empty mask counting 0." + _undefined_means({"the mean": score.macro_interval} if score.counts.any() else {})
    )
    heads = ("Finding", "Annotated maps", "True positives", "mIoU", "mIoU, all maps")
    return Table("masks", "Mask overlap, CheXlocalize", heads, (*rows, Row(summary, "summary first")), note)


def baselines_table(
    evaluated: Evaluated, baselines: Mapping[str, Sequence[ImageRecord]], localized: Localized
) -> Table:
    """How much better than each baseline, on the same draws of patients, boxes tuned alike for both."""
    settings: dict[str, Any] = {"repeats": evaluated.repeats, "seed": evaluated.seed}
    own = auroc_per_finding(evaluated.scores, evaluated.labels)
    rows: list[Row] = []
    intervals: dict[str, Interval] = {}
    for name, records in baselines.items():
        scores = np.stack([record.scores for record in records])
        difference = classification_differences(
            evaluated.scores,
            scores,
            evaluated.labels,
            evaluated.patients,
            min_positives=evaluated.min_positives,
            **settings,
        )["macro_auroc"]
        areas = auroc_per_finding(scores, evaluated.labels)
        cells: tuple[Cell, ...] = (evaluated.mean(areas), estimate(evaluated.mean(own - areas), difference))
        if evaluated.averaged.any():
            intervals["AUROC"] = difference
        if not localized.has_boxes:
            rows.append(Row((name, *cells)))
            continue
        for boxes, ours, theirs in _tuned_alike(localized, name):
            gains = ours.found(_COMPARED).macro - theirs.found(_COMPARED).macro
            intervals["T(IoU)"] = localization_difference(ours, theirs, _COMPARED, **settings).macro
            figures: tuple[Cell, ...] = (boxes, ours.boxes_predicted, theirs.boxes_predicted)
            figures += tuple(estimates(gains, intervals["T(IoU)"]))
            first = boxes == ANY_REGION  # the other rows are of the same scores
            classified = cells if first else (None, None)
            rows.append(Row((name, *classified, *figures), "first" if first else ""))
    note = (
        "Gain: the evaluated method minus the baseline, means over findings, with paired 95 % intervals by patient. "
        "It is clear where its interval lies off zero."
    )
    if localized.has_boxes:
        note += (
            f" Boxes of both are tuned in the same way: {evaluated.half}, both ways; see the table of T(IoU), which "
            "has every method's own figures."
        )
    levels = ("Boxes", "Boxes drawn", "by baseline", *(f"Gain, T(IoU) > {level:g}" for level in _COMPARED))
    heads = ("Baseline", "AUROC", "Gain, AUROC", *(levels if localized.has_boxes else ()))
    title = "Beside other methods on the same images"
    return Table("baselines", title, heads, tuple(rows), note + _undefined_means(intervals))


def _tuned_alike(localized: Localized, baseline: str) -> Iterator[tuple[str, Overlaps, Overlaps]]:
    """How boxes are drawn, with the overlaps of the method's and of a baseline's."""
    ours, theirs = localized.method, localized.baselines[baseline]
    yield ANY_REGION, ours.any_region.crossed.iou, theirs.any_region.crossed.iou
    yield LARGEST_REGION, ours.largest.crossed.iou, theirs.largest.crossed.iou


def build_tables(
    evaluated: Evaluated,
    localized: Localized,
    baselines: Mapping[str, Sequence[ImageRecord]] | None = None,
    model: str = "CLARiTy",
) -> dict[str, Table]:
    """All tables that the records allow, by name.

    Args:
        evaluated: Records and thresholds of the method.
        localized: [`localize`] of the same.
        baselines: Records of other methods on the same images in the same order, by name.
        model: Name of the method.
    """
    baselines = baselines or {}
    tables = [classification_table(evaluated), subgroup_table(evaluated)]
    if localized.has_boxes:
        tables += [
            *localization_tables(evaluated, localized, model),
            published_table(),
            boxes_per_finding_table(evaluated, localized),
            published_per_finding_table(),
            halves_table(evaluated, localized, model),
            wang_table(evaluated, localized, model),
            masks_table(evaluated),
            other_localization_table(evaluated, localized),
        ]
    tables.append(normal_table(evaluated))
    if baselines:
        tables.append(baselines_table(evaluated, baselines, localized))
    tables.append(maps_table(evaluated))
    return {table.name: table for table in tables}


def sanity_tables(sanity: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Table]:
    """Given small tables, by name: per title the rows, each from head to value."""
    tables = {}
    for title, entries in sanity.items():
        name = "sanity_" + "_".join(re.findall(r"[a-z0-9]+", title.casefold()))
        heads = tuple(dict.fromkeys(head for entry in entries for head in entry))
        rows = tuple(Row(tuple(as_cell(entry.get(head)) for head in heads)) for entry in entries)
        tables[name] = Table(name, title, heads, rows)
    return tables


def _undefined_means(intervals: Mapping[str, Interval]) -> str:
    """Which means have no interval, and why, as a sentence after a note; empty where all have one."""
    shares = {name: float(np.min(interval.defined)) for name, interval in intervals.items()}
    missing = [f"{name} ({share:.0%})" for name, share in shares.items() if share < 0.5]
    if not missing:
        return ""
    return (
        " No interval where a mean is defined in under half of the draws, because one of its findings is missing from "
        f"the others: {', '.join(missing)}."
    )
