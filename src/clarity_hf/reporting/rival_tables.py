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
from .rendering import table_note
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
        return self.maps.hits_of(self.maps.own)

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
        if self.evaluated.box_settings is not None:
            rivals["mean_map"] = ("mean map of other images", self.maps.mean_map_hits(self.evaluated.box_settings))
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
    def froc(self) -> Froc | None:
        """The FROC curve; None where not all maps were measured, or nothing is annotated."""
        records = self.evaluated.records
        if not self.has_boxes or any(record.box_counts is None for record in records):
            return None
        return froc(records, self.evaluated.score_thresholds)


def rival_tables(driven: ImageDriven) -> list[Table]:
    """All of these tables that the records allow."""
    if not driven.has_boxes:
        return []
    tables = [rivals_table(driven), image_driven_table(driven)]
    return tables if driven.froc is None else [*tables, froc_table(driven.froc)]


def rivals_table(driven: ImageDriven) -> Table:
    """T(IoU) of the method's own boxes beside rivals that do not see the image."""
    model = driven.evaluated.name

    def cells(name: str, predicted: float | None, figures: Figures) -> tuple[Cell, ...]:
        return name, predicted, *(_estimate(figures, -2, column) for column in range(len(COMPARED_LEVELS)))

    own = driven.own
    rows = [Row(MODEL, cells(model, own.boxes_predicted, driven.of_boxes(own.shares)), "method")]
    for key, (name, hits) in driven.rivals.items():
        kind = "fixed first" if key == fixed_boxes_key(driven.k) else "first"
        title = name[0].upper() + name[1:]
        rows.append(Row(key, cells(title, hits.boxes_predicted, driven.of_boxes(hits.shares)), kind))
        rows.append(Row(f"{MODEL}-{key}", cells(f"{model} − {name}", None, driven.gains[key]), "summary"))
    note = table_note("rivals", own=own, nearest=fixed_boxes_name(driven.k))
    heads = (*columns("boxes boxes_predicted"), *level_columns(COMPARED_LEVELS))
    return Table("rivals", "Beside rivals that do not see the image", heads, tuple(rows), note)


def image_driven_table(driven: ImageDriven) -> Table:
    """Per finding, how far maps and boxes follow the image."""
    aurocs, sides, evaluated = driven.maps.pixel_aurocs(), driven.maps.sides(), driven.evaluated
    over_swapped, over_fixed = driven.gains[SWAPPED_MAP], driven.gains[fixed_boxes_key(driven.k)]
    pixels = driven.of_maps(aurocs["own"], aurocs["own"] - aurocs["mean_map"])
    rivals = driven.of_maps(aurocs["mean_map"], aurocs["swapped"], aurocs["mean_mask"])
    side = driven.of_maps(sides["raw"], sides["relative"])
    rows = []
    for place, finding in enumerate((*evaluated.findings, None)):
        if finding and pixels.counts[place] == 0:
            continue
        # One-sided images are few: their last row is of all of them, not a mean over a few findings.
        on_side, rival = place if finding else place + 1, rivals.values[place]
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
    note = table_note("image_driven", nearest=fixed_boxes_name(driven.k))
    if correlations:
        note += f" Mean correlation of an image's maps with each other: {np.nanmean(correlations):.2f}."
    heads = columns(
        "finding maps over_swapped over_fixed pixel_auroc pixel_auroc_mean_map excess pixel_auroc_swapped",
        "pixel_auroc_mean_mask one_sided right_side right_side_relative",
    )
    return Table("image_driven", "Do maps and boxes follow the image?", heads, tuple(rows), note)


def _estimate(figures: Figures, place: int, column: int) -> Estimate:
    """A figure of a finding, of the mean over findings (−2), or of all rows (−1)."""
    parts = (figures.values, figures.intervals.low, figures.intervals.high)
    return Estimate(*(float(part[place, column]) for part in parts))


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
    note = table_note("froc")
    heads = (*columns("score_thresholds false_boxes_0.3"), *level_columns(COMPARED_LEVELS, "sensitivity"))
    return Table("froc", "Boxes found against false boxes", heads, rows, note)
