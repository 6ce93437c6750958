# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Which findings an image has: statistics of NIH ChestX-ray14 (Wang et al., CVPR 2017), in the order of `FINDINGS`."""

from __future__ import annotations

import functools

import numpy as np

from clarity_hf.labels import FINDINGS

NORMAL_SHARE = 0.45
"""Share of images without a finding when findings are drawn at random."""

PREVALENCE_TEMPERING = 0.3
"""Exponent of the release's counts when the first finding is drawn: 1 is NIH's prevalence, 0 makes all equal."""

COOCCURRENCE_GAIN = 1.35
"""Factor on the release's conditional frequencies of further findings."""

LEAST_SHARE = 0.07
"""Least share of a finding among first findings: otherwise there would be too few hernias to learn from."""

MAX_FINDINGS = 4
"""Most findings of an image when findings are drawn at random."""

AP_SHARE = 0.400
"""Share of AP images among all images of the release."""

# Images of the release (112,120) with both findings; the diagonal counts each finding.
_COOCCURRENCE = (
    (11559, 370, 3275, 3264, 739, 590, 262, 774, 1223, 221, 424, 220, 496, 40),
    (370, 2776, 1063, 587, 102, 108, 41, 49, 169, 127, 44, 52, 111, 7),
    (3275, 1063, 13317, 4000, 1254, 912, 269, 996, 1287, 593, 359, 188, 849, 21),
    (3264, 587, 4000, 19894, 1159, 1546, 605, 946, 1221, 981, 449, 345, 750, 33),
    (739, 102, 1254, 1159, 5782, 906, 71, 431, 610, 129, 215, 117, 452, 25),
    (590, 108, 912, 1546, 906, 6331, 70, 341, 428, 131, 115, 166, 411, 10),
    (262, 41, 269, 605, 71, 70, 1431, 41, 123, 340, 23, 11, 48, 3),
    (774, 49, 996, 946, 431, 341, 41, 5302, 223, 33, 747, 80, 289, 9),
    (1223, 169, 1287, 1221, 610, 428, 123, 223, 4667, 162, 103, 79, 251, 4),
    (221, 127, 593, 981, 129, 131, 340, 33, 162, 2303, 30, 9, 64, 3),
    (424, 44, 359, 449, 215, 115, 23, 747, 103, 30, 2516, 36, 151, 4),
    (220, 52, 188, 345, 117, 166, 11, 80, 79, 9, 36, 1686, 176, 8),
    (496, 111, 849, 750, 452, 411, 48, 289, 251, 64, 151, 176, 3385, 8),
    (40, 7, 21, 33, 25, 10, 3, 9, 4, 3, 4, 8, 8, 227),
)
# Share of AP images among the images with each finding.
_AP_SHARES = (0.504, 0.437, 0.505, 0.530, 0.383, 0.340, 0.560, 0.357, 0.674, 0.880, 0.404, 0.165, 0.286, 0.154)


@functools.lru_cache(maxsize=2)
def _label_model(view: str) -> tuple[np.ndarray, np.ndarray]:
    """Probability of each first finding, and of each further finding given the first; `(14,)` and `(14, 14)`."""
    counts = np.array(_COOCCURRENCE, dtype=np.float64)
    own = counts.diagonal()
    ap = np.array(_AP_SHARES)
    # The square root keeps the view a hint: it must not give the finding away.
    lift = np.sqrt(ap / AP_SHARE if view == "AP" else (1 - ap) / (1 - AP_SHARE))
    first = own**PREVALENCE_TEMPERING * lift
    first = np.maximum(first / first.sum(), LEAST_SHARE)
    further = COOCCURRENCE_GAIN * counts / own[:, None]
    # Rare findings are raised here too; otherwise they would only ever be drawn first.
    further *= np.minimum((own.mean() / own) ** (0.5 * (1 - PREVALENCE_TEMPERING)), 3.0)
    np.fill_diagonal(further, 0.0)
    return first / first.sum(), np.minimum(further, 0.6)


def draw_labels(rng: np.random.Generator, view: str) -> set[str]:
    """Draw up to `MAX_FINDINGS` findings of a `PA` or `AP` image, none with probability `NORMAL_SHARE`.

    `rng` always advances by the same number of draws.
    """
    first, further = _label_model(view)
    is_normal, chosen, dice = rng.random() < NORMAL_SHARE, int(rng.choice(len(FINDINGS), p=first)), rng.random(14)
    if is_normal:
        return set()
    others = np.flatnonzero(dice < further[chosen])[: MAX_FINDINGS - 1]
    return {FINDINGS[chosen], *(FINDINGS[i] for i in others)}
