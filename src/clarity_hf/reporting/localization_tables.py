# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Tables of boxes and maps: T(IoU) of the method, of other methods and of the fixed-box baseline, by all protocols."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from clarity_hf.metrics.bootstrap import (
    Interval,
    classification_differences,
    localization_difference,
    localization_intervals,
)
from clarity_hf.metrics.classification import auroc_per_finding
from clarity_hf.metrics.image_driven import COMPARED_LEVELS
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

from .columns import columns, level_columns
from .evaluated import Evaluated, gaps
from .published_figures import PUBLISHED_LEVELS, published_per_finding_table, published_table
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


@dataclass(frozen=True)
class Localized:
    """Annotated boxes found by the method and by what it is compared with.

    Attributes:
        method: The method, by the protocols that every method goes through.
        baselines: Other methods likewise, by name.
        own: Boxes of the method's own thresholds and regions, whatever the score.
        own_filtered: The same where the finding's score reaches its threshold.
    """

    method: MethodBoxes
    baselines: dict[str, MethodBoxes]
    own: Overlaps
    own_filtered: Overlaps

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


def localize(evaluated: Evaluated, baselines: Mapping[str, Sequence[ImageRecord]] | None = None) -> Localized:
    """Compare annotated boxes with those of the method, of other methods by name, and of the fixed-box baseline.

    Raises:
        ValueError: The list that `evaluated` names has none, or all, of the patients with boxes.
    """
    ours = _method_boxes(evaluated, evaluated.records)
    boxes, rules = ours.any_region.boxes, evaluated.map_rules
    from_scores = evaluated.score_thresholds if rules is None or rules.scores is None else rules.scores
    return Localized(
        method=ours,
        baselines={name: _method_boxes(evaluated, records) for name, records in (baselines or {}).items()},
        own=boxes.predicted(),
        own_filtered=boxes.predicted(score_thresholds=from_scores),
    )


def _method_boxes(evaluated: Evaluated, records: Sequence[ImageRecord]) -> MethodBoxes:
    options: dict[str, Any] = {
        "seed": evaluated.seed,
        "tuning_patients": evaluated.tuning_patients,
        "score_thresholds": evaluated.score_thresholds,
    }
    return MethodBoxes(
        any_region=patient_protocol(records, **options),
        largest=patient_protocol(records, components="largest", **options),
        wang=wang_protocol(records),
    )


def localization_tables(
    evaluated: Evaluated, localized: Localized, baselines: Mapping[str, Sequence[ImageRecord]], model: str
) -> list[Table]:
    """All tables that the records allow.

    Args:
        evaluated: Records and thresholds of the method.
        localized: [`localize`] of the same.
        baselines: Records of other methods on the same images in the same order, by name.
        model: Name of the method.
    """
    tables = []
    if localized.has_boxes:
        tables += [
            *mean_tables(evaluated, localized, model),
            published_table(),
            boxes_per_finding_table(evaluated, localized),
            published_per_finding_table(),
            halves_table(evaluated, localized, model),
            wang_table(evaluated, localized, model),
            masks_table(evaluated),
            other_measures_table(evaluated, localized),
        ]
    if baselines:
        tables.append(baselines_table(evaluated, baselines, localized))
    return [*tables, maps_table(evaluated)]


def mean_tables(evaluated: Evaluated, localized: Localized, model: str) -> list[Table]:
    """T(IoU) of every method, as a mean over findings and over pooled boxes."""
    differences = {
        rule: localization_difference(overlaps, localized.fixed_box, **evaluated.sampling)
        for rule, overlaps in localized.method.tuned().items()
    }
    lines = [
        (key, names, overlaps, localization_intervals(overlaps, **evaluated.sampling))
        for key, names, overlaps in _methods(localized, model)
    ]
    pooled = "The shares of all annotated boxes, whatever their finding; otherwise as in the mean over findings."
    tables = []
    for table, title, part, note in (
        ("localization", "mean over findings", "macro", _mean_note(evaluated)),
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
                name = f"{model} − {FIXED_BOX_NAME.lower()}"
                rows.append(Row(f"{DIFFERENCE}/{rule}", (name, boxes, None, *gains), "summary"))
        heads = (*columns("method boxes boxes_predicted"), *level_columns(LEVELS))
        missing = gaps({"all rows": getattr(lines[0][3], part)})
        tables.append(Table(table, f"Share of boxes found, T(IoU), {title}", heads, tuple(rows), note, missing))
    return tables


def _mean_note(evaluated: Evaluated) -> str:
    return (
        "T(IoU): share of annotated boxes that a predicted box of the same finding overlaps by IoU > t. Tuned: one "
        "map threshold per finding, chosen alike for every method on one half of the patients with boxes and "
        f"applied to the other, both ways, so that every annotated box is scored once ({evaluated.half}); any region "
        "of the map may match, or only the largest is predicted; whatever the score. Own boxes: by the thresholds and "
        "regions of the model itself, as a user sees them; score-filtered counts a box only where the score reaches "
        "its threshold. Predicted boxes: mean per annotated image and finding; read T(IoU) beside it, because many "
        "boxes overlap more by chance. The fixed-box baseline ignores the image: per finding the annotated box with "
        "the highest mean IoU to the others of one half, scored on the other. Intervals: 95 % by patient, "
        f"{evaluated.repeats} samples; differences are paired, and clear where their interval excludes zero."
    )


def _methods(localized: Localized, model: str) -> list[tuple[tuple[str, str], tuple[str, str, str], Overlaps]]:
    """Keys of method and rule; their words and the look of the row; and the overlaps, for every row of T(IoU)."""
    lines: list[tuple[tuple[str, str], tuple[str, str, str], Overlaps]] = []

    def add(method: str, rule: str, overlaps: Overlaps, kind: str = "") -> None:
        names = {MODEL: model, FIXED_BOX: FIXED_BOX_NAME}
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


def boxes_per_finding_table(evaluated: Evaluated, localized: Localized) -> Table:
    """T(IoU) per finding with intervals: tuned, of the fixed-box baseline, and of the method's own boxes."""
    tuned = localized.method.tuned()
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
            interval = Interval(intervals[rule].low[i], intervals[rule].high[i])
            shares = estimates(overlaps.found().shares[i], interval)
            predicted = float(overlaps.boxes_predicted_per_finding[i])
            rows.append(
                Row(f"{finding}/{rule}", (finding, BOX_RULES[rule], int(counts[i]), predicted, *shares), kind)
            )
    left_out = [evaluated.findings[i] for i in np.flatnonzero(counts == 0)]
    note = (
        f"Boxes as in the table of the mean over findings ({evaluated.half}, both ways). Intervals: 95 % by patient, "
        f"{evaluated.repeats} samples, each row by itself; map thresholds stay as they were chosen. An interval of no "
        "width means that all samples agree, as they do on a share of 0 or 1 and on the boxes of a single patient, "
        "not that the figure is certain."
    )
    note += f" Without annotated boxes: {', '.join(left_out)}." if left_out else ""
    heads = (*columns("finding boxes annotated boxes_predicted"), *level_columns(LEVELS))
    return Table("localization_per_finding", "T(IoU) per finding", heads, tuple(rows), note)


def other_measures_table(evaluated: Evaluated, localized: Localized) -> Table:
    """Other measures of the same maps, per finding and as their mean."""
    records = evaluated.records
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
            float(masks.means[i]),
        )
        rows.append(Row(finding, cells))
    total = (int(inside.counts.sum()), overlaps.boxes_predicted)
    macro = (*inside.macro.tolist(), *(rate.macro for rate in rates.values()), masks.macro)
    pooled = (*inside.pooled.tolist(), *(rate.pooled for rate in rates.values()), None)
    rows.append(Row("mean", (MEAN, *total, *macro), "summary first"))
    rows.append(Row("pooled", ("All boxes pooled", *total, *pooled), "summary"))
    note = (
        "T(IoBB): intersection over the area of the predicted box > t (Wang 2017), of the tuned boxes of any region "
        f"as in T(IoU): {evaluated.half}, both ways, thresholds by mean IoU; predicted boxes are theirs, a mean per "
        "annotated image and finding. Pointing game: the map's largest value lies in an annotated box. MaxBoxAcc and "
        "MaxBoxAccV2 are as published: whole regions, and the threshold that suits these images best; upper bounds, "
        "only for comparison among methods. Mask IoU: of the map above half of its peak with the filled boxes (HAM's "
        "measure), not of boxes."
    )
    levels = level_columns(inside.levels, "iobb")
    heads = (*columns("finding annotated boxes_predicted"), *levels, *columns(*rates, "mask_iou"))
    return Table("localization_other", "Other measures of localization", heads, tuple(rows), note)


def wang_table(evaluated: Evaluated, localized: Localized, model: str) -> Table:
    """Accuracy and false boxes by the fixed thresholds of Wang et al., per finding, and the means of all methods."""
    ours, rows = localized.method.wang, list[Row]()

    def add(method: str, finding: int | None, wang: WangProtocol, kind: str = "") -> None:
        accuracy, false = _wang_figures(wang, finding)
        predicted = wang.iou.boxes_predicted if finding is None else wang.iou.boxes_predicted_per_finding[finding]
        of = "mean" if finding is None else evaluated.findings[finding]
        names = (model if method == MODEL else method, MEAN if finding is None else of)
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
    note = (
        "Wang 2017: the map scaled to 0–255, a box around each isolated region above 60 and above 180; nothing is "
        "tuned, and the score does not matter. Accuracy: share of annotated boxes that one of them overlaps by more "
        "than t. False boxes: predicted boxes per image that overlap no annotated box of the finding by more than t, "
        "on the images where the finding is annotated. Predicted boxes: mean per annotated image and finding."
    )
    measures = (*level_columns(PUBLISHED_LEVELS), *level_columns(IOBB_LEVELS, "iobb"))
    heads = (*columns("method finding figure boxes_predicted"), *measures)
    return Table("wang", "Fixed thresholds, Wang 2017", heads, tuple(rows), note)


def _wang_figures(wang: WangProtocol, finding: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Accuracy and false boxes at `PUBLISHED_LEVELS` of IoU, then at `IOBB_LEVELS`, of a finding or their mean."""
    places = [wang.levels.index(level) for level in PUBLISHED_LEVELS]
    places_iobb = [wang.iobb_levels.index(level) for level in IOBB_LEVELS]
    found = (wang.iou.found(PUBLISHED_LEVELS), wang.iobb.found(IOBB_LEVELS))
    false = np.hstack([wang.false_boxes[:, places], wang.false_boxes_iobb[:, places_iobb]])
    if finding is not None:
        return np.concatenate([part.shares[finding] for part in found]), false[finding]
    return np.concatenate([part.macro for part in found]), false[found[0].counts > 0].mean(axis=0)


def maps_table(evaluated: Evaluated) -> Table:
    """Sanity of the maps, from the records alone: mass outside the thorax, and maps of absent findings."""
    outside, absent = mass_outside_where_present(evaluated.records), absent_on_normal(evaluated.records)
    rows = []
    for i, finding in enumerate(evaluated.findings):
        peaks = (absent.median_present[i], absent.median_normal[i], absent.auroc[i])
        images, present = int(outside.images[i]), int(absent.present[i])
        cells: tuple[Cell, ...] = (finding, images, float(outside.mean[i]), present, *map(float, peaks))
        rows.append(Row(finding, cells))
    note = (
        "Mass outside: mean share of a present finding's map that lies outside the thorax, over the images with a "
        "mask. Peaks: medians of a map's largest value on the method's own scale, on images with the finding and on "
        f"the {absent.normal_images} normal images; AUROC: how often the peak on an image with the finding is the "
        "higher one."
    )
    heads = columns("finding masks mass_outside present peak_present peak_normal peak_auroc")
    return Table("maps", "Maps on images with and without the finding", heads, tuple(rows), note)


def halves_table(evaluated: Evaluated, localized: Localized, model: str) -> Table:
    """T(IoU) by protocols that tune map thresholds on one half and score the other, and by Wang's."""
    ours, half, rows = localized.method.any_region, evaluated.half, list[Row]()

    def add(key: str, name: str, protocol: str, overlaps: Overlaps, kind: str) -> None:
        cells = (name, protocol, overlaps.boxes_predicted, *overlaps.found().macro.tolist())
        rows.append(Row(key, cells, kind))

    def add_repeats(method: str, regions: str, repeats: Sequence[Overlaps], kind: str) -> None:
        """Mean and deviation over the halves."""
        name = {MODEL: model, FIXED_BOX: FIXED_BOX_NAME}.get(method, method)
        figures, predicted = over_repeats(repeats), float(np.mean([overlaps.boxes_predicted for overlaps in repeats]))
        over = f"{len(repeats)} halves of the patients, {BOX_RULES[regions].removeprefix('tuned, ')}"
        mean, deviation = figures.macro.tolist(), figures.macro_deviation.tolist()
        rows.append(Row(f"{method}/halves/{regions}/mean", (name, f"{over}, mean", predicted, *mean), kind))
        rows.append(Row(f"{method}/halves/{regions}/sd", (name, f"{over}, sd", None, *deviation), "rare"))

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
    note = (
        "Means over findings. Map thresholds, and the fixed box, are chosen on the half that is named and scored on "
        f"the other, one way alone; the {len(ours.repeats)} further halves are random, seeds {seeds}. Any region of a "
        "map may match unless only the largest is predicted. Read T(IoU) beside the predicted boxes: many boxes "
        "overlap more by chance. CLARiTy's protocol splits images, so that a patient may be in both halves. Wang's "
        "predicts a box for every region above 60 and above 180 of a map scaled to 0–255."
    )
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
    note = (
        "CheXlocalize's measure with filled boxes in place of contours by hand: compare methods by it, not with "
        f"published figures. Map thresholds from one half of the patients ({evaluated.half}), scored on the other, "
        "one way alone; below the score threshold a mask is empty. mIoU: over true positives; last column: over all "
        "annotated maps, an empty mask counting 0."
    )
    heads = columns("finding annotated_maps true_positives miou miou_all")
    missing = gaps({"the mean": score.macro_interval} if score.counts.any() else {})
    return Table("masks", "Mask overlap, CheXlocalize", heads, tuple(rows), note, missing)


def baselines_table(
    evaluated: Evaluated, baselines: Mapping[str, Sequence[ImageRecord]], localized: Localized
) -> Table:
    """How much better than each other method, on the same samples of patients, boxes tuned alike for both."""
    own, rows, intervals = auroc_per_finding(evaluated.scores, evaluated.labels), list[Row](), dict[str, Interval]()
    for name, records in baselines.items():
        scores = np.stack([record.scores for record in records])
        areas = auroc_per_finding(scores, evaluated.labels)
        options: dict[str, Any] = {"min_positives": evaluated.min_positives, **evaluated.sampling}
        labels, patients = evaluated.labels, evaluated.patients
        difference = classification_differences(evaluated.scores, scores, labels, patients, **options)["macro_auroc"]
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
    note = (
        "Gain: the evaluated method minus the baseline, means over findings, with paired 95 % intervals by patient. "
        "It is clear where its interval excludes zero."
    )
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
