# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""The range that an image holds: its ends, but for what lies far from everything else."""

import numpy as np
import pytest

from clarity_hf.grey_levels import held_range


def range_of(pixels):
    return held_range(*np.unique(np.asarray(pixels), return_counts=True))


SMOOTH = np.arange(1000, 2001).repeat(20)  # 20,020 pixels of a range of 1000


def test_an_image_without_strays_is_held_whole():
    assert range_of(SMOOTH) == (1000, 2000)
    assert range_of(np.arange(10).repeat(50)) == (0, 9)
    assert range_of([5] * 99 + [9]) == (5, 9)
    assert range_of([7] * 100) == (7, 7)


@pytest.mark.parametrize(
    ("strays", "expected"),
    [
        ([2124], (1000, 2124)),  # a gap of 124, under an eighth of 1000
        ([2125], (1000, 2000)),
        ([875], (1000, 2000)),
        ([876], (876, 2000)),
        ([60_000, -60_000], (1000, 2000)),
        ([2125] * 4, (1000, 2000)),  # four are a few in any image
        ([2125] * 5, (1000, 2125)),  # more need a gap of half of the range
        ([2499] * 100, (1000, 2499)),
        ([2500] * 100, (1000, 2000)),
        ([2500] * 300, (1000, 2500)),  # 1.5 % are not strays
    ],
)
def test_what_lies_beyond_a_gap_is_left_out(strays, expected):
    assert range_of(np.concatenate([SMOOTH, strays])) == expected


def test_soft_edges_that_reach_eight_times_as_far_are_left_out_without_a_gap():
    soft = np.linspace(2001, 12_000, 150).astype(int)  # a letter of 0.7 %, no gap above 70
    low, high = range_of(np.concatenate([SMOOTH, soft]))
    assert low == 1000
    assert 1980 <= high <= 2001
    near = np.linspace(2001, 8000, 150).astype(int)
    assert range_of(np.concatenate([SMOOTH, near])) == (1000, 8000)
