# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Tables of scores: classification, subgroups, view and thumbnail rivals, probabilities, operating points."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np

from clarity_hf.metrics.bootstrap import (
    Interval,
    bootstrap_by_patient,
    classification_intervals,
    interval_of_samples,
    part_of,
    patient_weights,
)
from clarity_hf.metrics.classification import (
    auroc_per_finding,
    average_precision_per_finding,
    calibration_error_per_finding,
    operating_points,
    support,
)
from clarity_hf.metrics.classification_rivals import (
    MIN_VIEW_POSITIVES,
    NIH_PREVALENCE,
    VIEWS,
    predictive_value,
    reliability_figures,
    thumbnail_scores,
    view_scores,
    within_view,
)
from clarity_hf.metrics.records import ImageRecord

from .columns import columns
from .evaluated import Evaluated, gaps, mean
from .rendering import table_note
from .schema import Cell, Row, Table, estimate, estimates

AGE_BANDS: tuple[tuple[float, float, str], ...] = (
    (0, 18, "0–17"),
    (18, 40, "18–39"),
    (40, 60, "40–59"),
    (60, math.inf, "60+"),
)
"""Ages in years, lower end included and upper end excluded, and their group."""

UNKNOWN = "not known"


def classification_tables(evaluated: Evaluated) -> list[Table]:
    """All of them."""
    return [
        classification_table(evaluated),
        subgroup_table(evaluated),
        normal_table(evaluated),
        classification_rivals_table(evaluated),
        calibration_table(evaluated),
        operating_table(evaluated),
    ]


def classification_table(evaluated: Evaluated) -> Table:
    """AUROC and average precision with intervals by patient, calibration and the operating point, per finding."""
    scores, labels, counts = evaluated.scores, evaluated.labels, evaluated.counts
    areas, precisions = auroc_per_finding(scores, labels), average_precision_per_finding(scores, labels)
    errors = calibration_error_per_finding(scores, labels)
    points = operating_points(scores, labels, evaluated.score_thresholds)
    intervals = classification_intervals(
        scores, labels, evaluated.patients, min_positives=evaluated.min_positives, **evaluated.sampling
    )
    rows = evaluated.finding_rows(
        counts["positives"],
        counts["negatives"],
        estimates(areas, intervals["auroc"]),
        estimates(precisions, intervals["average_precision"]),
        errors,
        evaluated.score_thresholds,
        points["sensitivity"],
        points["specificity"],
    )
    averaged = evaluated.averaged
    summary: tuple[Cell, ...] = (
        f"Mean of {int(averaged.sum())} findings",
        int(counts["positives"][averaged].sum()),
        int(counts["negatives"][averaged].sum()),
        estimate(evaluated.mean(areas), intervals["macro_auroc"]),
        estimate(evaluated.mean(precisions), intervals["macro_average_precision"]),
        evaluated.mean(errors),
        None,
        evaluated.mean(points["sensitivity"]),
        evaluated.mean(points["specificity"]),
    )
    keys = "finding positives negatives auroc average_precision calibration_error threshold sensitivity specificity"
    note = table_note("classification", evaluated=evaluated)
    missing = gaps({"both means": intervals["macro_auroc"]} if averaged.any() else {})
    rows.append(Row("mean", summary, "summary first"))
    return Table("classification", "Classification per finding", columns(keys), tuple(rows), note, missing)


def subgroup_table(evaluated: Evaluated) -> Table:
    """The same model on groups of images: by sex, age and view."""
    rows, intervals = [], {}
    for attribute, group, index, first in _subgroups(evaluated.records):
        scores, labels, counts = evaluated.scores[index], evaluated.labels[index], support(evaluated.labels[index])
        averaged = (counts["positives"] >= max(1, evaluated.min_positives)) & (counts["negatives"] > 0)
        key, kind = f"{attribute.lower()}/{group}", "first" if first else ""
        if not averaged.any():
            rows.append(Row(key, (attribute, group, len(index), 0, None, None, None), f"rare {kind}".strip()))
            continue
        interval = intervals[f"{attribute} {group}"] = classification_intervals(
            scores,
            labels,
            [evaluated.patients[i] for i in index],
            min_positives=evaluated.min_positives,
            **evaluated.sampling,
        )["macro_auroc"]
        points = operating_points(scores, labels, evaluated.score_thresholds)
        area = estimate(auroc_per_finding(scores, labels)[averaged].mean(), interval)
        shares = [float(points[name][averaged].mean()) for name in ("sensitivity", "specificity")]
        rows.append(Row(key, (attribute, group, len(index), int(averaged.sum()), area, *shares), kind))
    keys = "attribute group images findings auroc sensitivity specificity"
    note = table_note("subgroups", evaluated=evaluated)
    return Table("subgroups", "By sex, age and view", columns(keys), tuple(rows), note, gaps(intervals))


def _subgroups(records: Sequence[ImageRecord]) -> Iterable[tuple[str, str, np.ndarray, bool]]:
    """Attribute, group, indices of its images, and whether it is the attribute's first; unknown groups last."""

    def band(age: float | None) -> str:
        known = age is not None and not math.isnan(age)
        return next((name for low, high, name in AGE_BANDS if known and low <= age < high), UNKNOWN)  # type: ignore[operator]

    named = {
        "Sex": ([record.sex or UNKNOWN for record in records], ("F", "M")),
        "Age": ([band(record.age) for record in records], tuple(name for _, _, name in AGE_BANDS)),
        "View": ([record.view or UNKNOWN for record in records], VIEWS),
    }
    for attribute, (values, order) in named.items():
        others = sorted(set(values) - {*order, UNKNOWN})
        present = [group for group in (*order, *others, UNKNOWN) if group in values]
        for place, group in enumerate(present):
            yield attribute, group, np.flatnonzero([value == group for value in values]), place == 0


def normal_table(evaluated: Evaluated) -> Table:
    """Boxes on images without any finding: false ones, which a user sees."""
    normal = [record for record in evaluated.records if (record.labels == 0).all()]
    groups = {"all": normal} | {view: [one for one in normal if one.view == view] for view in VIEWS}
    titles = {"all": "All"} | {view: f"{view} alone" for view in VIEWS}
    if not (groups["PA"] and groups["AP"]):
        groups = {"all": normal}
    rows = [
        Row(key, (titles[key], len(records), *_false_boxes(evaluated, records)), "" if key == "all" else "rare")
        for key, records in groups.items()
    ]
    unknown = sum(
        bool(np.isnan(record.labels).any() and not (record.labels == 1).any()) for record in evaluated.records
    )
    note = table_note("normal_images", unknown=unknown)
    heads = columns("normal images with_box false_boxes")
    return Table("normal_images", "False boxes on normal images", heads, tuple(rows), note)


def _false_boxes(evaluated: Evaluated, normal: Sequence[ImageRecord]) -> tuple[Cell, Cell]:
    """The share of normal images with a box, and boxes per image."""
    if not normal:
        return None, None
    boxes = np.array([len(record.shown) for record in normal], dtype=np.float64)

    def figures(index: np.ndarray) -> np.ndarray:
        return np.array([(boxes[index] > 0).mean(), boxes[index].mean()])

    interval = bootstrap_by_patient(figures, [record.patient for record in normal], **evaluated.sampling)
    share, number = figures(np.arange(len(normal)))
    return estimate(share, interval, 0), estimate(number, interval, 1)


def classification_rivals_table(evaluated: Evaluated) -> Table:
    """AUROC beside that of the view position and a thumbnail, and within one view position."""
    scores, labels, positives = evaluated.scores, evaluated.labels, evaluated.counts["positives"]
    views, patients = [record.view for record in evaluated.records], evaluated.patients
    areas = auroc_per_finding(scores, labels)
    inside = within_view(scores, labels, views, patients, **evaluated.sampling)
    names = {"view_alone": "View alone", "thumbnail": "Thumbnail"}
    given = {"view_alone": view_scores(evaluated.records), "thumbnail": thumbnail_scores(evaluated.records)}
    rivals = {key: one for key, one in given.items() if one is not None}
    theirs = {key: auroc_per_finding(one, labels) for key, one in rivals.items()}
    within = estimates(inside.mean, interval_of_samples(inside.samples))
    rows = evaluated.finding_rows(positives, areas, within, *inside.views.T, *theirs.values())
    for least in (10, 20):
        kept = evaluated.counted(least)
        means: tuple[Cell, ...] = (
            f"Mean of {int(kept.sum())} findings with ≥ {least} positives",
            int(positives[kept].sum()),
            mean(areas[kept]),
            estimate(*inside.macro(kept)),
            *(mean(view[kept & ~np.isnan(view)]) for view in inside.views.T),
            *(mean(area[kept]) for area in theirs.values()),
        )
        rows.append(Row(f"mean_{least}", means, "summary first" if least == 10 else "summary"))
    gains = []
    for key, rival in rivals.items():
        gain = classification_intervals(
            scores, labels, patients, min_positives=evaluated.min_positives, minus=rival, **evaluated.sampling
        )["macro_auroc"]
        value = evaluated.mean(areas - theirs[key])
        gains.append(f"{value:+.3f} ({gain.low:+.3f} to {gain.high:+.3f}) over {names[key].lower()}")
    note = table_note(
        "classification_rivals",
        evaluated=evaluated,
        least=MIN_VIEW_POSITIVES,
        findings=int(evaluated.averaged.sum()),
        gains="; ".join(gains),
    )
    keys = columns("finding positives auroc within_view", *(f"in_{view}" for view in VIEWS), *rivals)
    return Table("classification_rivals", "Beside the view and a thumbnail", keys, tuple(rows), note)


def calibration_table(evaluated: Evaluated) -> Table:
    """Whether scores can be read as probabilities."""
    figures = reliability_figures(evaluated.scores, evaluated.labels)
    errors = calibration_error_per_finding(evaluated.scores, evaluated.labels)
    positives = evaluated.counts["positives"]
    values = (errors, figures.brier, figures.skill, figures.slope, figures.intercept)
    rows = evaluated.finding_rows(positives, *values)
    averaged = evaluated.averaged
    total, means = int(positives[averaged].sum()), [evaluated.mean(value) for value in values]
    rows.append(Row("mean", (f"Mean of {int(averaged.sum())} findings", total, *means), "summary first"))
    note = table_note("calibration", evaluated=evaluated)
    keys = "finding positives calibration_error brier skill slope intercept"
    return Table("calibration", "Scores as probabilities", columns(keys), tuple(rows), note)


_OPERATING = ("sensitivity", "specificity", "positive_predictive_value")


def operating_table(evaluated: Evaluated) -> Table:
    """Sensitivity, specificity and PPV at the score thresholds, and the PPV at the prevalence of NIH ChestX-ray14."""
    thresholds = evaluated.score_thresholds
    points = operating_points(evaluated.scores, evaluated.labels, thresholds)
    intervals = _operating_intervals(evaluated)
    stated = np.array([NIH_PREVALENCE.get(finding, np.nan) for finding in evaluated.findings])
    there = predictive_value(points["sensitivity"], points["specificity"], stated)
    figures = [estimates(points[name], part_of(intervals, row)) for row, name in enumerate(_OPERATING)]
    rows = evaluated.finding_rows(evaluated.counts["positives"], thresholds, *figures, stated, there)
    note = table_note("operating_points", evaluated=evaluated)
    keys = columns("finding positives threshold", *_OPERATING, "prevalence ppv_at_prevalence")
    return Table("operating_points", "At the score thresholds", keys, tuple(rows), note)


def _operating_intervals(evaluated: Evaluated) -> Interval:
    """Intervals by patient of `_OPERATING`, `(3, F)`."""
    flagged = evaluated.scores >= evaluated.score_thresholds
    present, absent = evaluated.labels == 1, evaluated.labels == 0
    true, known = flagged & present, flagged & (present | absent)
    counted = np.stack([true, ~flagged & absent, true, present, absent, known]).astype(np.float64)
    samples = []
    for weights in patient_weights(evaluated.patients, **evaluated.sampling):
        sums = np.einsum("n,knf->kf", weights, counted)
        samples.append(np.divide(sums[:3], sums[3:], out=np.full(sums[:3].shape, np.nan), where=sums[3:] > 0))
    return interval_of_samples(samples)
