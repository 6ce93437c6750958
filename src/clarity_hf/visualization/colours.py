# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Colours of boxes, and the scale of maps."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from PIL import ImageColor

BOX_COLOURS = ("#E69F00", "#56B4E9", "#009E73", "#CC79A7", "#F0E442", "#D55E00", "#0072B2")
"""Colours of boxes and lines, distinguishable with colour blindness: the palette of Okabe and Ito (Color Universal
Design, 2008) without black. Findings with boxes take them in the order of the result, then findings with only a map;
the eighth repeats the first."""

_HEAT = (
    "000004 0a0722 1e0c45 380962 510e6c 69166e 801f6c 982766 b0315b "
    "c63d4d d94d3d e9612b f47918 fa9407 fcb014 f8cd37 f2ea69 fcffa4"
)
"""Every 15th of the 256 colours of "inferno" (Nathaniel Smith and Stéfan van der Walt, 2015, CC0,
https://bids.github.io/colormap), whose lightness increases uniformly."""


@lru_cache(maxsize=1)
def heat_table() -> np.ndarray:
    """The 256 colours of the scale, `(256, 3)` uint8."""
    from scipy.interpolate import CubicSpline  # slow to import, so only when a map is drawn

    stops = np.array([ImageColor.getrgb(f"#{stop}") for stop in _HEAT.split()], dtype=np.float64)
    table = CubicSpline(np.arange(0, 256, 15), stops)(np.arange(256))
    table = table.clip(0, 255).round().astype(np.uint8)
    table.setflags(write=False)
    return table


def heat_colours(values: Any) -> np.ndarray:
    """Colours of the "inferno" scale, from black through violet, red and orange to pale yellow.

    A cubic spline through every 15th colour of the published scale, which differs from it by at most 2 of 255. Values
    of any shape from 0, the bottom of the scale, to 1, its top, and clipped to it, give `(..., 3)` uint8 RGB.

    Raises:
        ValueError: A value is NaN.
    """
    values = np.asarray(values)
    if np.isnan(values).any():
        raise ValueError("`values` must be numbers, got NaN. Fill or drop those pixels.")
    return heat_table()[(values.clip(0, 1) * np.float32(255)).round().astype(np.uint8)]


def ink_on(colour: str) -> str:
    """Black or white, whichever has the higher contrast on a colour (relative luminance of WCAG 2.2)."""
    channels = np.array(ImageColor.getrgb(colour)[:3]) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    luminance = float(linear @ np.array([0.2126, 0.7152, 0.0722]))
    return "black" if (luminance + 0.05) / 0.05 >= 1.05 / (luminance + 0.05) else "white"
