# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Tables that put scores and boxes beside rivals that do not look at the image, or hardly; see `image_driven`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from clarity_hf.metrics.bootstrap import Interval, classification_differences, interval_of_samples, patient_weights
from clarity_hf.metrics.classification import (
    auroc_per_finding,
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
from clarity_hf.metrics.image_driven import (
    COMPARED_LEVELS,
    MOST_FIXED_BOXES,
    AnnotatedMaps,
    Figures,
    Froc,
    Hits,
    figures_by_patient,
    froc,
)

from .table import Cell, Estimate, Row, Table, estimate, estimates
from .tables import Evaluated

MEAN = "Mean over findings"


@dataclass(frozen=True, eq=False)
class ImageDriven:
    """The evaluated method and its rivals on the annotated boxes.

    Attributes:
        evaluated: Records of the method.
    """

    evaluated: Evaluated

    @cached_property
    def maps(self) -> AnnotatedMaps:
        """Annotated maps."""
        return AnnotatedMaps.of(self.evaluated.records)

    @property
    def has_boxes(self) -> bool:
        """Whether there are annotated boxes at all."""
        return any(record.annotations for record in self.evaluated.records)

    @cached_property
    def own(self) -> Hits:
        """Of the method's own boxes, whatever the score."""
        return self.maps.own_hits()

    @cached_property
    def k(self) -> int:
        """The number of constant boxes that comes nearest the method's own number of boxes a map."""
        return int(np.clip(np.floor(self.own.boxes_predicted + 0.5), 1, MOST_FIXED_BOXES))

    @cached_property
    def constant(self) -> dict[int, Hits]:
        """Of k constant boxes, by k."""
        return {k: self.maps.fixed_box_hits(k) for k in range(1, MOST_FIXED_BOXES + 1)}

    @cached_property
    def swapped(self) -> Hits:
        """Of another image's map of the same finding."""
        return self.maps.swapped_hits()

    @cached_property
    def over_swapped(self) -> Figures:
        """How much more the method finds than another image's map."""
        return self.difference(self.swapped)

    @cached_property
    def over_constant(self) -> Figures:
        """How much more the method finds than its nearest constant boxes."""
        return self.difference(self.constant[self.k])

    def difference(self, rival: Hits) -> Figures:
        """How much more the method finds than a rival, at `COMPARED_LEVELS`."""
        return self.of_boxes(self.own.shares - rival.shares)

    def of_boxes(self, values: np.ndarray) -> Figures:
        """Figures of a value an annotated box."""
        maps = self.maps
        return self._figures(values, maps.box_findings, maps.box_patients)

    def of_maps(self, values: np.ndarray) -> Figures:
        """Figures of a value an annotated map."""
        return self._figures(values, self.maps.findings, self.maps.patients)

    def _figures(self, values: np.ndarray, findings: np.ndarray, patients: np.ndarray) -> Figures:
        settings: dict[str, Any] = {"repeats": self.evaluated.repeats, "seed": self.evaluated.seed}
        return figures_by_patient(values, findings, patients, len(self.evaluated.findings), **settings)

    @cached_property
    def aurocs(self) -> dict[str, np.ndarray]:
        """Pixel AUROC of each annotated map and of its rivals."""
        return self.maps.pixel_aurocs()

    @cached_property
    def froc(self) -> Froc | None:
        """The FROC curve; None where not all maps were measured, or nothing is annotated."""
        records = self.evaluated.records
        if not self.has_boxes or any(record.box_counts is None for record in records):
            return None
        return froc(records, self.evaluated.score_thresholds)


def rivals_table(driven: ImageDriven, model: str) -> Table:
    """T(IoU) of the method's own boxes beside rivals that do not see the image."""
    rivals = {f"{k} constant box{'es' * (k > 1)}": hits for k, hits in driven.constant.items()}
    rivals["Map of another image with the finding"] = driven.swapped
    if driven.evaluated.map_rules is not None:
        rivals["Mean map of other images"] = driven.maps.mean_map_hits(driven.evaluated.map_rules)
    rows = [Row((model, driven.own.boxes_predicted, *_macro(driven.of_boxes(driven.own.shares))), "method")]
    for name, hits in rivals.items():
        kind = "constant" if name.startswith(f"{driven.k} ") else ""
        rows.append(Row((name, hits.boxes_predicted, *_macro(driven.of_boxes(hits.shares))), f"{kind} first".strip()))
        rows.append(Row((f"{model} − {_lower(name)}", None, *_macro(driven.difference(hits))), "summary"))
    note = (
        "Mean over findings of the share of annotated boxes that a box of the same finding overlaps by IoU > t, "
        "whatever the score, by the method's own map thresholds and regions. No rival sees the image: k constant "
        "boxes are annotated boxes of other patients, chosen greedily by mean best IoU (patients in ten folds); the "
        "map of another image stands for all other patients' maps of the finding; the mean map is their mean, each "
        f"divided by its peak. The method draws {driven.own.boxes_predicted:.1f} boxes a map, so {driven.k} constant "
        f"box{'es are' if driven.k > 1 else ' is'} its nearest rival. Intervals: 95 % by patient, paired in "
        "differences; a method follows the image where they lie above zero."
    )
    heads = ("Boxes", "Boxes drawn", *(f"> {level:g}" for level in COMPARED_LEVELS))
    return Table("rivals", "Beside rivals that do not see the image", heads, tuple(rows), note)


def image_driven_table(driven: ImageDriven) -> Table:
    """Per finding, how far maps and boxes follow the image."""
    maps, aurocs = driven.maps, driven.aurocs
    parts = {
        "swapped": driven.over_swapped,
        "constant": driven.over_constant,
    }
    pixels = driven.of_maps(np.stack([aurocs["own"], aurocs["own"] - aurocs["mean_map"]], axis=1))
    rivals = driven.of_maps(np.stack([aurocs[name] for name in ("mean_map", "swapped", "mean_mask")], axis=1))
    sides = maps.sides()
    side = driven.of_maps(np.stack([sides["raw"], sides["relative"]], axis=1))
    at = COMPARED_LEVELS.index(0.3)
    rows = []
    names = [*driven.evaluated.findings, MEAN]
    for place, name in enumerate(names):
        last = place == len(driven.evaluated.findings)
        if not last and pixels.counts[place] == 0:
            continue

        def of(figures: Figures, column: int, place: int = place) -> Estimate:
            value = np.vstack([figures.shares, figures.macro, figures.pooled])[place, column]
            return Estimate(float(value), *(float(end[place, column]) for end in _ends(figures.intervals)))

        counts = [int(one.counts.sum() if last else one.counts[place]) for one in (pixels, side)]
        # One-sided images are few: their last row is of all of them, not a mean of a few findings.
        on_side = place + 1 if last else place
        cells: tuple[Cell, ...] = (
            name,
            counts[0],
            of(parts["swapped"], at),
            of(parts["constant"], at),
            of(pixels, 0),
            float(np.vstack([rivals.shares, rivals.macro])[place, 0]),
            of(pixels, 1),
            float(np.vstack([rivals.shares, rivals.macro])[place, 1]),
            float(np.vstack([rivals.shares, rivals.macro])[place, 2]),
            counts[1],
            of(side, 0, on_side),
            of(side, 1, on_side),
        )
        rows.append(Row(cells, "summary first" if last else ""))
    constant = f"{driven.k} constant box{'es' * (driven.k > 1)}"
    records = driven.evaluated.records
    correlations = [record.map_correlation for record in records if record.map_correlation is not None]
    note = (
        f"Differences of T(IoU) > 0.3: own boxes less those of another image's map, and less {constant}. "
        "Pixel AUROC: how well a map ranks the cells of one image inside annotated boxes above those outside; "
        "beside it the mean map of other patients' images, its excess over that, the maps of other images, and the "
        "mean mask of other patients' annotated boxes. One-sided: images whose boxes have at least three times more "
        "area in one half of the image; right side: share of them whose map is heavier there (chance .5), and the "
        "same relative to the median of the finding's other maps; the last row is of all of them. Intervals: 95 % by "
        "patient."
    )
    if correlations:
        note += f" Mean correlation of an image's maps with each other: {np.nanmean(correlations):.2f}."
    heads = (
        "Finding",
        "Maps",
        "Own − swapped",
        f"Own − {driven.k} constant",
        "Pixel AUROC",
        "of the mean map",
        "Excess over the mean map",
        "of swapped maps",
        "of the mean box mask",
        "One-sided",
        "Right side",
        "Right side, relative",
    )
    return Table("image_driven", "Do maps and boxes follow the image?", heads, tuple(rows), note)


def froc_table(driven: ImageDriven) -> Table | None:
    """Sensitivity of shown boxes and false ones an image, at the thresholds that users have and at others."""
    curve = driven.froc
    if curve is None:
        return None
    at = COMPARED_LEVELS.index(0.3)
    rows = []
    for limit in (0.5, 1.0, 2.0, 4.0):
        within = np.flatnonzero(curve.false_boxes[:, at] <= limit)
        if len(within):
            cells: tuple[Cell, ...] = (f"At most {limit:g} false boxes an image", *_froc_cells(curve, int(within[0])))
            rows.append(Row(cells))
    shipped: tuple[Cell, ...] = ("At the thresholds that users have", *_froc_cells(curve, curve.at_threshold))
    note = (
        "Of the findings with annotated boxes. A box is false at t where its finding is annotated as absent, or where "
        "it overlaps no annotated box of its finding by IoU > t; findings present without annotated boxes count "
        "neither way. The other rows move all thresholds together on the scale of the logit until at most so many "
        "boxes an image are false at t = 0.3."
    )
    heads = (
        "Score thresholds",
        "False boxes an image, t = 0.3",
        *(f"Sensitivity, IoU > {level:g}" for level in COMPARED_LEVELS),
    )
    return Table("froc", "Boxes found against false boxes", heads, (Row(shipped, "method"), *rows), note)


def _froc_cells(curve: Froc, place: int) -> tuple[float, ...]:
    at = COMPARED_LEVELS.index(0.3)
    return float(curve.false_boxes[place, at]), *curve.sensitivity[place].tolist()


def classification_rivals_table(evaluated: Evaluated, model: str) -> Table:
    """AUROC beside what the view position and a thumbnail tell, and within one view position."""
    scores, labels, counts = evaluated.scores, evaluated.labels, support(evaluated.labels)
    views = [record.view for record in evaluated.records]
    settings: dict[str, Any] = {"repeats": evaluated.repeats, "seed": evaluated.seed}
    ours = auroc_per_finding(scores, labels)
    inside = within_view(scores, labels, views, evaluated.patients, evaluated.averaged, **settings)
    rivals = {"View alone": view_scores(evaluated.records), "Thumbnail": thumbnail_scores(evaluated.records)}
    areas = {name: auroc_per_finding(one, labels) for name, one in rivals.items() if one is not None}
    rows = []
    for i, finding in enumerate(evaluated.findings):
        cells: tuple[Cell, ...] = (
            finding,
            int(counts["positives"][i]),
            float(ours[i]),
            estimate(inside.mean[i], inside.interval, i),
            *inside.views[i].tolist(),
            *(float(area[i]) for area in areas.values()),
        )
        rows.append(Row(cells, "" if evaluated.averaged[i] else "rare"))
    for least in (10, 20):
        kept = (counts["positives"] >= least) & (counts["negatives"] > 0)
        named = within_view(scores, labels, views, evaluated.patients, kept, **settings)
        means: tuple[Cell, ...] = (
            f"Mean of {int(kept.sum())} findings with ≥ {least} positives",
            int(counts["positives"][kept].sum()),
            _mean(ours[kept]),
            estimate(named.macro, named.macro_interval),
            *(_mean(inside.views[kept & ~np.isnan(inside.views[:, place]), place]) for place in range(len(VIEWS))),
            *(_mean(area[kept]) for area in areas.values()),
        )
        rows.append(Row(means, "summary first" if least == 10 else "summary"))
    gains = [f"{_gain(evaluated, ours, areas[name], rivals[name])} over {_lower(name)}" for name in areas]
    note = (
        f"Within a view: only images of one view position are ranked against each other, with at least "
        f"{MIN_VIEW_POSITIVES} positives and negatives of it; the mean is over the views that have them. View alone: "
        "how often the finding is present on a PA or an AP image of other patients. Thumbnail: a logistic regression "
        "on 16 × 16 cells, fitted on other patients. Where they reach the model, it may have learnt no more than they "
        f"know. {model}, mean of {int(evaluated.averaged.sum())} findings with at least {evaluated.min_positives} "
        f"positives: {'; '.join(gains)}. Intervals: 95 % by patient."
    )
    heads = ("Finding", "Positives", "AUROC", "within a view", *(f"in {view}" for view in VIEWS), *areas)
    return Table("classification_rivals", "Beside the view and a thumbnail", heads, tuple(rows), note)


def _gain(evaluated: Evaluated, ours: np.ndarray, theirs: np.ndarray, scores: np.ndarray | None) -> str:
    """The gain in mean AUROC over a rival, with its paired interval, as text."""
    gain = classification_differences(
        evaluated.scores,
        np.asarray(scores),
        evaluated.labels,
        evaluated.patients,
        repeats=evaluated.repeats,
        seed=evaluated.seed,
        min_positives=evaluated.min_positives,
    )["macro_auroc"]
    return f"{evaluated.mean(ours - theirs):+.3f} ({gain.low:+.3f} to {gain.high:+.3f})"


def calibration_table(evaluated: Evaluated) -> Table:
    """Whether scores can be taken for probabilities."""
    figures = reliability_figures(evaluated.scores, evaluated.labels)
    errors, counts = calibration_error_per_finding(evaluated.scores, evaluated.labels), support(evaluated.labels)
    columns = (errors, figures.brier, figures.skill, figures.slope, figures.intercept)
    rows = [
        Row(
            (finding, int(counts["positives"][i]), *(float(column[i]) for column in columns)),
            "" if evaluated.averaged[i] else "rare",
        )
        for i, finding in enumerate(evaluated.findings)
    ]
    averaged = evaluated.averaged
    total = int(counts["positives"][averaged].sum())
    means = [evaluated.mean(column) for column in columns]
    summary: tuple[Cell, ...] = (f"Mean of {int(averaged.sum())} findings", total, *means)
    note = (
        "ECE: expected calibration error, 15 bins. Brier skill: 1 is perfect, 0 knows no more than the share of these "
        "images with the finding. Slope and intercept: of a logistic regression of the label on the score's logit; 1 "
        "and 0 where scores are probabilities, a slope under 1 where they are too bold. In italics: under "
        f"{evaluated.min_positives} positives, not in the mean."
    )
    heads = ("Finding", "Positives", "ECE", "Brier score", "Brier skill", "Slope", "Intercept")
    return Table("calibration", "Scores as probabilities", heads, (*rows, Row(summary, "summary first")), note)


def operating_table(evaluated: Evaluated) -> Table:
    """What users get at the shipped thresholds, here and where the finding is as frequent as in a known population."""
    scores, labels, thresholds = evaluated.scores, evaluated.labels, evaluated.score_thresholds
    points, counts = operating_points(scores, labels, thresholds), support(labels)
    intervals = _operating_intervals(evaluated)
    stated = np.array([NIH_PREVALENCE.get(finding, np.nan) for finding in evaluated.findings])
    there = predictive_value(points["sensitivity"], points["specificity"], stated)
    rows = []
    for i, finding in enumerate(evaluated.findings):
        cells: tuple[Cell, ...] = (
            finding,
            int(counts["positives"][i]),
            float(thresholds[i]),
            *(estimate(points[name][i], intervals[name], i) for name in _OPERATING),
            float(stated[i]),
            float(there[i]),
        )
        rows.append(Row(cells, "" if evaluated.averaged[i] else "rare"))
    note = (
        "PPV: share of flagged images that have the finding, which holds for the share of positives of these images "
        "alone; the last columns say what it would be with the same sensitivity and specificity where findings are as "
        "frequent as their labels are in the whole of NIH ChestX-ray14. Intervals: 95 % by patient. In italics: under "
        f"{evaluated.min_positives} positives."
    )
    figures = ("Threshold", "Sensitivity", "Specificity", "PPV", "Stated prevalence", "PPV there")
    heads = ("Finding", "Positives", *figures)
    return Table("operating_points", "At the thresholds that users have", heads, tuple(rows), note)


_OPERATING = ("sensitivity", "specificity", "positive_predictive_value")


def _operating_intervals(evaluated: Evaluated) -> dict[str, Interval]:
    """Intervals by patient of `_OPERATING`, each of `(F,)`."""
    flagged = evaluated.scores >= evaluated.score_thresholds
    present, absent = evaluated.labels == 1, evaluated.labels == 0
    true, known = flagged & present, flagged & (present | absent)
    counted = np.stack([true, ~flagged & absent, true, present, absent, known]).astype(np.float64)
    draws = []
    for weights in patient_weights(evaluated.patients, evaluated.repeats, evaluated.seed):
        sums = np.einsum("n,knf->kf", weights, counted)
        draws.append(np.divide(sums[:3], sums[3:], out=np.full(sums[:3].shape, np.nan), where=sums[3:] > 0))
    found = interval_of_samples(draws)
    return {
        name: Interval(*(end[row] for end in (found.low, found.high, found.defined)))
        for row, name in enumerate(_OPERATING)
    }


def rival_tables(evaluated: Evaluated, driven: ImageDriven, model: str) -> dict[str, Table]:
    """All of these tables that the records allow, by name."""
    tables: list[Table | None] = [
        classification_rivals_table(evaluated, model),
        calibration_table(evaluated),
        operating_table(evaluated),
    ]
    if driven.has_boxes:
        tables += [rivals_table(driven, model), image_driven_table(driven), froc_table(driven)]
    return {table.name: table for table in tables if table is not None}


def headline(driven: ImageDriven) -> Mapping[str, Estimate]:
    """The figures that say whether boxes follow the image, as means over findings.

    Returns:
        `swapped` and `constant`, differences of T(IoU) > 0.3; `pixel`, the excess of pixel AUROC over the mean map;
        `side`, the share of one-sided images whose map is heavier on the right side.
    """
    at = COMPARED_LEVELS.index(0.3)
    aurocs = driven.aurocs
    excess = driven.of_maps((aurocs["own"] - aurocs["mean_map"])[:, None])
    side = driven.of_maps(driven.maps.sides()["raw"][:, None])
    return {
        "swapped": _macro(driven.over_swapped)[at],
        "constant": _macro(driven.over_constant)[at],
        "pixel": _macro(excess)[0],
        "side": Estimate(float(side.pooled[0]), *(float(end[-1, 0]) for end in _ends(side.intervals))),
    }


def _macro(figures: Figures) -> list[Estimate]:
    low, high = _ends(figures.intervals)
    return estimates(figures.macro, Interval(low[-2], high[-2]))


def _ends(interval: Interval) -> tuple[np.ndarray, np.ndarray]:
    return np.asarray(interval.low), np.asarray(interval.high)


def _lower(name: str) -> str:
    return name[0].lower() + name[1:]


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float("nan")
