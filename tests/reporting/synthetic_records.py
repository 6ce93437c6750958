# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Synthetic records: scores with some skill, boxes near the annotated ones, all from a seed."""

import numpy as np

from clarity_hf.boxes import box_iou
from clarity_hf.metrics.image_driven import covered_cells
from clarity_hf.metrics.records import (
    MAP_CELLS,
    MAP_THRESHOLDS,
    MAX_BOX_THRESHOLDS,
    THUMBNAIL_CELLS,
    WANG_THRESHOLDS,
    AnnotationRecord,
    ImageRecord,
)

FINDINGS = ("Mass", "Nodule", "Pleural_Thickening", "Hernia")
PREVALENCE = (0.4, 0.3, 0.25, 0.01)
THRESHOLDS = (0.5, 0.5, 0.5, 0.5)
SIDE = 256


def near(rng, box, spread):
    """The box with its sides moved by `spread` pixels, inside the image, with an area."""
    x0, y0, x1, y1 = np.clip(box + rng.normal(0, spread, 4), 0, SIDE)
    return np.array([min(x0, x1), min(y0, y1), min(x0, x1) + abs(x1 - x0) + 1, min(y0, y1) + abs(y1 - y0) + 1])


def annotation(rng, finding, spread):
    """One annotated box with predicted ones, `spread` pixels off."""
    corner = rng.uniform(10, 150, 2)
    box = np.concatenate([corner, corner + rng.uniform(30, 90, 2)])
    predicted = near(rng, box, spread)[None]
    return AnnotationRecord(
        finding=finding,
        boxes=box[None],
        own=predicted,
        regions=tuple(near(rng, box, spread + 10 * share)[None] for share in MAP_THRESHOLDS),
        mask_ious=rng.uniform(0, 1, len(MAP_THRESHOLDS)),
        hit=bool(rng.random() < 0.7),
        wang_regions=tuple(predicted for _ in WANG_THRESHOLDS),
        max_box_ious=np.full((2, len(MAX_BOX_THRESHOLDS)), box_iou(predicted, box[None]).max()),
        cells=covered_cells(predicted / SIDE) + rng.uniform(0, 0.2, (MAP_CELLS, MAP_CELLS)),
    )


def image(rng, number, spread=12.0, skill=1.5, boxes=True):
    """Image `number` of patient `number // 2`."""
    labels = (rng.random(len(FINDINGS)) < PREVALENCE).astype(np.float64)
    scores = 1 / (1 + np.exp(-(skill * (2 * labels - 1) + rng.normal(0, 1.2, len(FINDINGS)))))
    parts = tuple(annotation(rng, int(i), spread) for i in np.flatnonzero(labels) if boxes)
    shown = tuple(
        (int(i), near(rng, np.array([60, 60, 120, 120.0]), 20)) for i in np.flatnonzero(scores >= THRESHOLDS)
    )
    return ImageRecord(
        name=f"image-{number:04d}.png",
        patient=f"SECRET{number // 2}",
        size=(SIDE, SIDE),
        labels=labels,
        scores=scores,
        peaks=scores * 2,
        shown=shown,
        annotations=parts,
        box_counts=np.ones(len(FINDINGS), dtype=np.int64),
        map_correlation=float(rng.uniform(0, 0.5)),
        thumbnail=rng.integers(0, 256, (THUMBNAIL_CELLS, THUMBNAIL_CELLS)).astype(np.uint8),
        mass_outside=rng.uniform(0, 0.5, len(FINDINGS)),
        sex=("M", "F", None)[number // 2 % 3],
        age=(None, 12.0, 30.0, 50.0, 71.0)[number // 2 % 5],
        view=("PA", "AP")[number % 2],
    )


def images(count=160, seed=0, **options):
    """Records of `count` images, two a patient; the labels of one seed do not depend on the options."""
    return [image(np.random.default_rng((seed, number)), number, **options) for number in range(count)]
