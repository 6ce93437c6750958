# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Record of an evaluated image: everything that metrics need except its maps, a few kilobytes of JSON.

Each map is measured once, at every threshold of `MAP_THRESHOLDS`, so that protocols that tune thresholds on one half
of the patients and score the other only need records.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

MAP_THRESHOLDS: tuple[float, ...] = tuple(round(0.05 * step, 2) for step in range(1, 20))
"""Shares of a map's peak, .05 to .95, at which every map of an annotated finding is measured."""

MAX_BOX_THRESHOLDS: tuple[float, ...] = tuple(round(0.01 * step, 2) for step in range(100))
"""Thresholds, .00 to .99, of MaxBoxAcc and MaxBoxAccV2 on a map scaled to [0, 1]."""

MAP_CELLS = 32
"""Side, in cells over the image, of the map of an annotated finding in a record."""

THUMBNAIL_CELLS = 16
"""Side, in cells, of the thumbnail of an image in a record."""

WANG_THRESHOLDS = (60, 180)
"""Thresholds of Wang et al. (CVPR 2017) on a map scaled to [0, 255]."""


class PackedBoxes(Sequence):
    """Several lists of boxes in one array, to save memory.

    Args:
        lists: Boxes `(n, 4)` each, kept in single precision (a ten-thousandth of a pixel at 1,024).
    """

    def __init__(self, lists: Iterable[np.ndarray]):
        parts = [np.asarray(boxes, dtype=np.float32).reshape(-1, 4) for boxes in lists]
        self._boxes = np.concatenate(parts) if parts else np.zeros((0, 4), dtype=np.float32)
        self._ends = np.cumsum([len(part) for part in parts], dtype=np.int32)

    def __len__(self) -> int:
        """Number of lists."""
        return len(self._ends)

    def __getitem__(self, index: Any) -> Any:
        """List `index` as `(n, 4)` float64, or a tuple of lists for a slice."""
        if isinstance(index, slice):
            return tuple(self[place] for place in range(*index.indices(len(self))))
        place = range(len(self))[index]
        start = self._ends[place - 1] if place else 0
        return self._boxes[start : self._ends[place]].astype(np.float64)


@dataclass(frozen=True)
class AnnotationRecord:
    """The annotated boxes of one finding of an image, and measurements of its map.

    Boxes are xyxy in pixels of the image, right and bottom exclusive.

    Attributes:
        finding: Index of the finding.
        boxes: `(m, 4)` annotated boxes, m ≥ 1.
        own: `(n, 4)` boxes at the method's own map threshold and components, whatever the finding's score.
        regions: Per threshold of `MAP_THRESHOLDS` the boxes `(n, 4)` of all connected regions, by descending mass
            (sum of map values).
        mask_ious: `(len(MAP_THRESHOLDS),)` IoU of the thresholded map with the filled annotated boxes, as masks.
        hit: Whether the map's largest value lies inside an annotated box.
        wang_regions: Per threshold of `WANG_THRESHOLDS` the boxes `(n, 4)` of all regions of the map scaled to
            [0, 255] by its own minimum and maximum.
        max_box_ious: `(2, len(MAX_BOX_THRESHOLDS))` best IoU with an annotated box at each threshold of the map
            scaled to [0, 1]: for the box of its largest region, and for those of all regions, unsplit.
        cells: `(MAP_CELLS, MAP_CELLS)` float64 map over the image, on the method's own scale.
    """

    finding: int
    boxes: np.ndarray
    own: np.ndarray
    regions: Sequence[np.ndarray]
    mask_ious: np.ndarray
    hit: bool
    wang_regions: Sequence[np.ndarray]
    max_box_ious: np.ndarray = field(default_factory=lambda: np.zeros((2, len(MAX_BOX_THRESHOLDS))))
    cells: np.ndarray = field(default_factory=lambda: np.zeros((MAP_CELLS, MAP_CELLS)))

    def __post_init__(self) -> None:
        """Pack the lists of boxes."""
        for name in ("regions", "wang_regions"):
            object.__setattr__(self, name, PackedBoxes(getattr(self, name)))


@dataclass(frozen=True)
class ImageRecord:
    """An evaluated image.

    Attributes:
        name: Unique in its data set.
        patient: Images of one patient stay together in every bootstrap sample and split.
        size: `(height, width)` of the image in pixels.
        labels: `(F,)` float64, 1 present, 0 absent, NaN not annotated.
        scores: `(F,)` float64 in [0, 1].
        peaks: `(F,)` largest value of each map over the image, on the method's own scale.
        shown: `(finding, box)` of every box shown to a user: findings at or above their score threshold, at the
            method's map thresholds.
        annotations: One per finding with annotated boxes.
        box_counts: `(F,)` int, number of boxes of each map at the method's own map thresholds, whatever the score;
            None if not all maps were measured.
        map_correlation: Mean Pearson correlation of the image's maps with each other, over all pairs of findings, in
            [−1, 1]; None if not all maps were measured, NaN if fewer than two maps vary.
        thumbnail: `(THUMBNAIL_CELLS, THUMBNAIL_CELLS)` uint8, mean grey of each cell of the image.
        mass_outside: `(F,)` share of each map's mass outside the thorax, in [0, 1]; None without a mask.
        sex: `M`, `F`, or None if unknown.
        age: In years, or None.
        view: `PA`, `AP`, or None.
        digest: Hash of the image's pixels, hexadecimal.
    """

    name: str
    patient: str
    size: tuple[int, int]
    labels: np.ndarray
    scores: np.ndarray
    peaks: np.ndarray
    shown: tuple[tuple[int, np.ndarray], ...] = ()
    annotations: tuple[AnnotationRecord, ...] = ()
    box_counts: np.ndarray | None = None
    map_correlation: float | None = None
    thumbnail: np.ndarray | None = None
    mass_outside: np.ndarray | None = None
    sex: str | None = None
    age: float | None = None
    view: str | None = None
    digest: str = ""


def data_digest(records: Sequence[ImageRecord]) -> str:
    """Hash of the data: names, pixels, labels and annotated boxes, independent of the order of images.

    Returns:
        16 hexadecimal digits.
    """
    digest = hashlib.blake2b(digest_size=8)
    for record in sorted(records, key=lambda record: record.name):
        boxes = [[annotation.finding, *_boxes(annotation.boxes)] for annotation in record.annotations]
        digest.update(json.dumps([record.name, record.digest, _numbers(record.labels), boxes]).encode())
    return digest.hexdigest()


_LISTS_OF_BOXES = ("regions", "wang_regions")


def to_json(record: ImageRecord) -> dict[str, Any]:
    """A record as JSON: NaN as None, scores exact, boxes to a thousandth of a pixel, the rest to 1e-6."""
    optional = {
        "box_counts": lambda counts: np.asarray(counts).tolist(),
        "map_correlation": lambda value: _numbers([value])[0],
        "thumbnail": lambda cells: cells.tobytes().hex(),
        "mass_outside": _numbers,
    }
    stored = vars(record) | {
        "size": list(record.size),
        "labels": _numbers(record.labels),
        "scores": [float(score) for score in record.scores],  # exact: a threshold may be one of them
        "peaks": _numbers(record.peaks),
        "shown": [[finding, *_boxes(box[None])[0]] for finding, box in record.shown],
        "annotations": [
            vars(annotation)
            | {name: _boxes(getattr(annotation, name)) for name in ("boxes", "own")}
            | {name: [_boxes(boxes) for boxes in getattr(annotation, name)] for name in _LISTS_OF_BOXES}
            | {
                "mask_ious": _numbers(annotation.mask_ious),
                "max_box_ious": [_numbers(ious) for ious in annotation.max_box_ious],
                "cells": [_significant(row) for row in annotation.cells],
            }
            for annotation in record.annotations
        ],
    }
    for name, write in optional.items():
        stored[name] = None if stored[name] is None else write(stored[name])
    return stored


def from_json(stored: dict[str, Any]) -> ImageRecord:
    """Read a record written by [`to_json`]."""
    optional = {
        "box_counts": lambda counts: np.array(counts, dtype=np.int64),
        "thumbnail": lambda text: np.frombuffer(bytes.fromhex(text), dtype=np.uint8).reshape([THUMBNAIL_CELLS] * 2),
        "mass_outside": _array,
    }
    annotations = tuple(
        AnnotationRecord(
            **part
            | {name: _array(part[name], 4) for name in ("boxes", "own")}
            | {name: [_array(boxes, 4) for boxes in part[name]] for name in _LISTS_OF_BOXES}
            | {name: _array(part[name]) for name in ("mask_ious", "max_box_ious", "cells")}
        )
        for part in stored["annotations"]
    )
    return ImageRecord(
        **stored
        | {"size": tuple(stored["size"]), "annotations": annotations}
        | {name: _array(stored[name]) for name in ("labels", "scores", "peaks")}
        | {"shown": tuple((int(row[0]), _array(row[1:])) for row in stored["shown"])}
        | {name: None if stored[name] is None else read(stored[name]) for name, read in optional.items()}
    )


def _significant(values: np.ndarray) -> list[float]:
    """Round to four significant digits, because each map has its own scale."""
    return [float(f"{value:.4g}") for value in values]


def _numbers(values: Sequence[float] | np.ndarray) -> list[float | None]:
    return [None if np.isnan(value) else round(float(value), 6) for value in values]


def _boxes(boxes: np.ndarray) -> list[list[float]]:
    return np.round(np.asarray(boxes, dtype=np.float64), 3).tolist()


def _array(values: Sequence[Any], columns: int | None = None) -> np.ndarray:
    array = np.array(values, dtype=np.float64)  # None becomes NaN
    return array if columns is None else array.reshape(-1, columns)
