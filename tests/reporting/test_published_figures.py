# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Published figures: of other images, and consistent with their published means."""

import numpy as np
import pytest

from clarity_hf.metrics.localization import LEVELS
from clarity_hf.reporting.published_figures import (
    PUBLISHED,
    PUBLISHED_PER_FINDING,
    published_per_finding_table,
    published_table,
)


def test_published_figures_per_finding_have_the_mean_that_is_published():
    table = published_per_finding_table()
    assert "NOT ON THIS DATA" in table.title
    assert len(table.rows) == 2 * 9
    for figures in PUBLISHED_PER_FINDING.values():
        *findings, mean = figures.values()
        assert np.mean(findings, axis=0) == pytest.approx(mean, abs=0.011)  # of rounded figures
        assert list(figures)[:8] == sorted(list(figures)[:8])


def test_published_figures_say_that_they_are_of_other_images():
    table = published_table()
    assert "PUBLISHED ON NIH's 984 BOXES, NOT ON THIS DATA" in table.title
    assert {row.kind for row in table.rows} == {"published"}
    paper = table["CLARiTy-S-16-512"]
    assert [paper[f"iou_{level:g}"] for level in LEVELS] == [0.81, 0.69, 0.59, 0.47, 0.32, None, None]
    assert all(set(figures) <= set(LEVELS) for figures in PUBLISHED.values())
    fixed = table["Fixed-box baseline of these boxes"]
    assert [fixed[f"iou_{level}"] for level in (0.1, 0.3, 0.5, 0.7)] == [0.475, 0.246, 0.15, 0.05]
