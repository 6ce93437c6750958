# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Published T(IoU) on the 984 boxes of NIH ChestX-ray14, for orientation beside a report's own figures."""

from __future__ import annotations

from clarity_hf.metrics.localization import LEVELS

from .columns import columns, level_columns
from .rendering import table_note
from .schema import Row, Table

PUBLISHED: dict[str, dict[float, float]] = {
    "Wang 2017, ResNet-50": {0.1: 0.57, 0.3: 0.22, 0.5: 0.06, 0.7: 0.01},
    "Fixed-box baseline of these boxes": {0.1: 0.475, 0.3: 0.246, 0.5: 0.150, 0.7: 0.05},
    "Li 2022": {0.1: 0.64, 0.2: 0.53, 0.3: 0.40, 0.4: 0.31, 0.5: 0.24},
    "PCAN": {0.1: 0.78, 0.2: 0.57, 0.3: 0.36, 0.4: 0.21, 0.5: 0.10},
    "ThoraX-PriorNet": {0.1: 0.80, 0.2: 0.63, 0.3: 0.49, 0.4: 0.33, 0.5: 0.28},
    "CLARiTy-S-16-512": {0.1: 0.81, 0.2: 0.69, 0.3: 0.59, 0.4: 0.47, 0.5: 0.32},
    "DenseNet-121 at 512, Grad-CAM++": {0.1: 0.62, 0.2: 0.42, 0.3: 0.28, 0.4: 0.18, 0.5: 0.10},
    "Random map": {0.1: 0.29, 0.2: 0.17, 0.3: 0.10, 0.4: 0.05, 0.5: 0.03},
}
"""Mean T(IoU) over the eight boxed findings, at the levels that are known."""

PUBLISHED_LEVELS = (0.1, 0.3, 0.5, 0.7)
"""Levels at which Wang et al. publish T(IoU), and at which figures per finding are known."""

MEAN_OF_8 = "Mean of 8 findings"

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
        MEAN_OF_8: (0.57, 0.22, 0.06, 0.01),
    },
    "Fixed-box baseline": {
        "Atelectasis": (0.33, 0.09, 0.03, 0.01),
        "Cardiomegaly": (1.0, 1.0, 0.85, 0.32),
        "Effusion": (0.41, 0.19, 0.08, 0.01),
        "Infiltration": (0.66, 0.29, 0.09, 0.02),
        "Mass": (0.26, 0.05, 0.00, 0.00),
        "Nodule": (0.05, 0.00, 0.00, 0.00),
        "Pneumonia": (0.68, 0.21, 0.07, 0.01),
        "Pneumothorax": (0.36, 0.19, 0.07, 0.00),
        MEAN_OF_8: (0.47, 0.25, 0.15, 0.05),
    },
}
"""T(IoU) per finding at `PUBLISHED_LEVELS`."""

_TITLE = "PUBLISHED ON NIH's 984 BOXES, NOT ON THIS DATA"


def published_table() -> Table:
    """Mean T(IoU) of publications, on other images."""
    rows = (
        Row(name, (name, *(shares.get(level) for level in LEVELS)), "published") for name, shares in PUBLISHED.items()
    )
    note = table_note("published")
    heads = (*columns("method"), *level_columns(LEVELS))
    return Table("published", f"{_TITLE}: mean T(IoU) over 8 findings", heads, tuple(rows), note)


def published_per_finding_table() -> Table:
    """T(IoU) of publications per finding, on other images."""
    first, *_ = PUBLISHED_PER_FINDING
    rows = (
        Row(f"{finding}/{source}", (finding, source, *shares[finding]), f"published{' first' * (source == first)}")
        for finding in PUBLISHED_PER_FINDING[first]
        for source, shares in PUBLISHED_PER_FINDING.items()
    )
    note = table_note("published_per_finding")
    heads = (*columns("finding method"), *level_columns(PUBLISHED_LEVELS))
    return Table("published_per_finding", f"{_TITLE}: T(IoU) per finding", heads, tuple(rows), note)
