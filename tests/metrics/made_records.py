# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Records made by hand."""

import numpy as np

from clarity_hf.boxes import box_iou
from clarity_hf.metrics.records import MAP_THRESHOLDS, MAX_BOX_THRESHOLDS, AnnotationRecord, ImageRecord

NONE = np.zeros((0, 4))
TARGET = np.array([[0.0, 0, 10, 10]])
FAR = np.array([[60.0, 60, 70, 70]])
T = len(MAP_THRESHOLDS)
HALF = MAP_THRESHOLDS.index(0.5)


def shifted(x):
    """A 10 × 10 box x pixels to the right: IoU (10 − x) / (10 + x) with `TARGET`."""
    return np.array([[x, 0.0, 10 + x, 10]])


def annotation(finding=0, regions=NONE, boxes=TARGET, own=NONE, ious=0.0, hit=False, wang=(NONE, NONE)):
    """`regions` at every threshold, or one array per threshold."""
    regions = (regions,) * T if isinstance(regions, np.ndarray) else tuple(regions)
    ious = np.full(T, ious) if np.ndim(ious) == 0 else np.array(ious)
    nearest = [regions[int(np.abs(np.array(MAP_THRESHOLDS) - one).argmin())] for one in MAX_BOX_THRESHOLDS]
    overlaps = [box_iou(predicted, boxes).max(axis=1, initial=0.0) for predicted in nearest]
    best = np.array([[one[:1].max(initial=0.0), one.max(initial=0.0)] for one in overlaps]).T
    return AnnotationRecord(finding, boxes, own, regions, ious, hit, wang, best)


def image(name, *annotations, patient=None, scores=(0.5, 0.5), labels=(1, 0), size=(100, 100)):
    values = [np.array(numbers, dtype=np.float64) for numbers in (labels, scores, scores)]
    return ImageRecord(name, patient or name, size, *values, (), annotations)


def at(threshold, boxes, otherwise=NONE):
    """Regions that are `boxes` at one threshold."""
    return [boxes if one == threshold else otherwise for one in MAP_THRESHOLDS]


def random_images(count, seed, quality):
    """Images of two findings, two per patient; a share `quality` of their boxes is right."""
    generator = np.random.default_rng(seed)
    return [
        image(
            f"{number:04d}",
            annotation(number % 2, TARGET if generator.uniform() < quality else FAR),
            patient=f"{number // 2:04d}",
            scores=generator.uniform(size=2),
            labels=generator.uniform(size=2) < 0.5,
        )
        for number in range(count)
    ]
