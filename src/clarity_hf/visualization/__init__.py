# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Pictures of results: boxes, maps and contour lines over an image.

The `draw_*` functions need only Pillow and numpy and return PIL images. The `plot_*` functions draw on matplotlib's
axes and need the extra `report`. The same image and findings always give the same bytes.
"""

from .colours import BOX_COLOURS, heat_colours
from .overlay import LEVELS, MAX_FINDINGS, MIN_PICTURE_SIDE, draw_findings, draw_side_by_side, finding_to_map
from .plots import plot_findings, plot_map

__all__ = [
    "BOX_COLOURS",
    "LEVELS",
    "MAX_FINDINGS",
    "MIN_PICTURE_SIDE",
    "draw_findings",
    "draw_side_by_side",
    "finding_to_map",
    "heat_colours",
    "plot_findings",
    "plot_map",
]
