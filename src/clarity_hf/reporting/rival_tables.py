# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Tables that put boxes and maps beside rivals that do not see the image; see `metrics.image_driven`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

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

from .columns import columns, level_columns
from .evaluated import Evaluated
from .localization_tables import MEAN, MODEL
from .schema import Cell, Estimate, Row, Table

SWAPPED_MAP = "swapped_map"
"""Key of the rival that has the map of another image with the finding."""

_AT = COMPARED_LEVELS.index(0.3)


def fixed_boxes_key(k: int) -> str:
    """Key of the rival with k fixed boxes."""
    return f"fixed_boxes_{k}"


def fixed_boxes_name(k: int) -> str:
    """Its name."""
    return f"{k} fixed box{'es' * (k > 1)}"


def nearest_fixed_boxes(predicted: float) -> int:
    """The k of the k fixed boxes that comes nearest to a method's own number of predicted boxes per map."""
    return int(np.clip(np.floor(predicted + 0.5), 1, MOST_FIXED_BOXES))


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
        """Boxes found by the method's own boxes, whatever the score."""
        return self.maps.own_hits()

    @cached_property
    def k(self) -> int:
        """The number of fixed boxes nearest to the method's own number of boxes per map."""
        return nearest_fixed_boxes(self.own.boxes_predicted)

    @cached_property
    def rivals(self) -> dict[str, tuple[str, Hits]]:
        """Name of each rival, and boxes found by it, by key."""
        rivals = {
            fixed_boxes_key(k): (fixed_boxes_name(k), self.maps.fixed_box_hits(k))
            for k in range(1, MOST_FIXED_BOXES + 1)
        }
        rivals[SWAPPED_MAP] = ("map of another image with the finding", self.maps.swapped_hits())
        rules = self.evaluated.map_rules
        if rules is not None:
            rivals["mean_map"] = ("mean map of other images", self.maps.mean_map_hits(rules))
        return rivals

    @cached_property
    def gains(self) -> dict[str, Figures]:
        """How much more the method finds than each rival, at `COMPARED_LEVELS`, by the rival's key."""
        return {key: self.of_boxes(self.own.shares - hits.shares) for key, (_, hits) in self.rivals.items()}

    def of_boxes(self, values: np.ndarray) -> Figures:
        """Figures of one value per annotated box."""
        return self._figures(values, self.maps.box_findings, self.maps.box_patients)

    def of_maps(self, *values: np.ndarray) -> Figures:
        """Figures of values per annotated map, a column each."""
        return self._figures(np.stack(values, axis=1), self.maps.findings, self.maps.patients)

    def _figures(self, values: np.ndarray, findings: np.ndarray, patients: np.ndarray) -> Figures:
        evaluated = self.evaluated
        return figures_by_patient(values, findings, patients, len(evaluated.findings), **evaluated.sampling)

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


def rival_tables(driven: ImageDriven, model: str) -> list[Table]:
    """All of these tables that the records allow; `model` is the method's name."""
    if not driven.has_boxes:
        return []
    tables = [rivals_table(driven, model), image_driven_table(driven)]
    return tables if driven.froc is None else [*tables, froc_table(driven.froc)]


def rivals_table(driven: ImageDriven, model: str) -> Table:
    """T(IoU) of the method's own boxes beside rivals that do not see the image."""
    def cells(name: str, predicted: float | None, figures: Figures) -> tuple[Cell, ...]:
        return name, predicted, *(_estimate(figures, -2, column) for column in range(len(COMPARED_LEVELS)))

    own = driven.own
    rows = [Row(MODEL, cells(model, own.boxes_predicted, driven.of_boxes(own.shares)), "method")]
    for key, (name, hits) in driven.rivals.items():
        kind = "fixed first" if key == fixed_boxes_key(driven.k) else "first"
        title = name[0].upper() + name[1:]
        rows.append(Row(key, cells(title, hits.boxes_predicted, driven.of_boxes(hits.shares)), kind))
        rows.append(Row(f"{MODEL}-{key}", cells(f"{model} − {name}", None, driven.gains[key]), "summary"))
    note = (
        "Mean over findings of the share of annotated boxes that a box of the same finding overlaps by IoU > t, "
        "whatever the score, by the method's own map thresholds and regions. No rival sees the image: k fixed boxes "
        "are annotated boxes of other patients, chosen greedily by mean best IoU (patients in ten folds); the map of "
        "another image stands for all other patients' maps of the finding; the mean map is their mean, each divided "
        f"by its peak. The method predicts {own.boxes_predicted:.1f} boxes per map, so its nearest rival is "
        f"{fixed_boxes_name(driven.k)}. Intervals: 95 % by patient, paired in differences; a method follows the image "
        "where they are above zero."
    )
    heads = (*columns("boxes boxes_predicted"), *level_columns(COMPARED_LEVELS))
    return Table("rivals", "Beside rivals that do not see the image", heads, tuple(rows), note)


def image_driven_table(driven: ImageDriven) -> Table:
    """Per finding, how far maps and boxes follow the image."""
    aurocs, sides, evaluated = driven.aurocs, driven.maps.sides(), driven.evaluated
    over_swapped, over_fixed = driven.gains[SWAPPED_MAP], driven.gains[fixed_boxes_key(driven.k)]
    pixels = driven.of_maps(aurocs["own"], aurocs["own"] - aurocs["mean_map"])
    rivals = driven.of_maps(aurocs["mean_map"], aurocs["swapped"], aurocs["mean_mask"])
    side = driven.of_maps(sides["raw"], sides["relative"])
    rows = []
    for place, finding in enumerate((*evaluated.findings, None)):
        if finding and pixels.counts[place] == 0:
            continue
        # One-sided images are few: their last row is of all of them, not a mean over a few findings.
        on_side = place if finding else place + 1
        rival = rivals.shares[place] if finding else rivals.macro
        cells: tuple[Cell, ...] = (
            finding or MEAN,
            int(pixels.counts[place] if finding else pixels.counts.sum()),
            _estimate(over_swapped, place, _AT),
            _estimate(over_fixed, place, _AT),
            _estimate(pixels, place, 0),
            float(rival[0]),
            _estimate(pixels, place, 1),
            float(rival[1]),
            float(rival[2]),
            int(side.counts[place] if finding else side.counts.sum()),
            _estimate(side, on_side, 0),
            _estimate(side, on_side, 1),
        )
        rows.append(Row(finding or "mean", cells, "" if finding else "summary first"))
    correlations = [record.map_correlation for record in evaluated.records if record.map_correlation is not None]
    note = (
        "Differences of T(IoU) > 0.3: own boxes minus those of another image's map, and minus "
        f"{fixed_boxes_name(driven.k)}. Pixel AUROC: how well a map ranks the cells of one image inside annotated "
        "boxes above those outside; beside it the mean map of other patients' images, its excess over that, the maps "
        "of other images, and the mean mask of other patients' annotated boxes. One-sided: images whose boxes have at "
        "least three times more area in one half of the image; right side: share of them whose map is heavier there "
        "(chance .5), and the same relative to the median of the finding's other maps; the last row is of all of "
        "them. Intervals: 95 % by patient."
    )
    if correlations:
        note += f" Mean correlation of an image's maps with each other: {np.nanmean(correlations):.2f}."
    heads = columns(
        "finding maps over_swapped over_fixed pixel_auroc pixel_auroc_mean_map excess pixel_auroc_swapped",
        "pixel_auroc_mean_mask one_sided right_side right_side_relative",
    )
    return Table("image_driven", "Do maps and boxes follow the image?", heads, tuple(rows), note)


def _estimate(figures: Figures, place: int, column: int) -> Estimate:
    """A figure of a finding, of the mean over findings (−2), or of all rows (−1)."""
    values = np.vstack([figures.shares, figures.macro, figures.pooled])
    low, high = np.asarray(figures.intervals.low), np.asarray(figures.intervals.high)
    return Estimate(*(float(part[place, column]) for part in (values, low, high)))


def froc_table(curve: Froc) -> Table:
    """Sensitivity and false boxes per image, at the score thresholds of the model and at others."""
    places = {"shipped": ("The model's own", curve.at_threshold)}
    for limit in (0.5, 1.0, 2.0, 4.0):
        within = np.flatnonzero(curve.false_boxes[:, _AT] <= limit)
        if len(within):
            places[f"at_most_{limit:g}"] = (f"At most {limit:g} false boxes per image", int(within[0]))
    rows = tuple(
        Row(
            key,
            (name, float(curve.false_boxes[place, _AT]), *curve.sensitivity[place].tolist()),
            "method" if key == "shipped" else "",
        )
        for key, (name, place) in places.items()
    )
    note = (
        "Of the findings with annotated boxes. A box is false at t where its finding is annotated as absent, or where "
        "it overlaps no annotated box of its finding by IoU > t; findings present without annotated boxes count "
        "neither way. The other rows move all thresholds together on the scale of the logit until at most so many "
        "boxes per image are false at t = 0.3."
    )
    heads = (*columns("score_thresholds false_boxes_0.3"), *level_columns(COMPARED_LEVELS, "sensitivity"))
    return Table("froc", "Boxes found against false boxes", heads, rows, note)
