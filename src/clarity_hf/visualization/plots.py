# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Pictures on matplotlib's axes; they need the extra `report`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .colours import heat_table
from .overlay import LEVELS, Style, check_drawing, check_findings, draw_findings, grey, shares_of, top_of, with_map

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plot_findings(
    image: Any, findings: Sequence[Mapping[str, Any]], *, ax: Axes | None = None, **drawing: Any
) -> Axes:
    """Show [`draw_findings`], with its arguments, on matplotlib axes with ticks in pixels of the image.

    `ax` are by default the axes of a new pyplot figure. Raises an ImportError without the extra `report`.
    """
    ax = _axes(ax)
    pixels = grey(image)
    picture = draw_findings(pixels, findings, **drawing)
    width = pixels.shape[1]
    ax.imshow(np.asarray(picture), extent=(0, width, picture.height * width / picture.width, 0))
    return ax


def plot_map(
    image: Any,
    finding: Mapping[str, Any],
    *,
    opacity: float = 0.45,
    style: Style = "wash",
    vmax: float | None = None,
    levels: Sequence[float] = LEVELS,
    ax: Axes | None = None,
) -> Axes:
    """Show an image with the map of one finding and a colour bar of the map's values.

    Args:
        image: The image, any source of [`read_image`].
        finding: One dict of the pipeline's result, called with `return_maps=True`.
        opacity, style, vmax, levels: As in [`draw_findings`].
        ax: Axes to draw on; by default those of a new pyplot figure.

    Returns:
        The axes, titled with label and score.

    Raises:
        ImportError: The extra `report` is not installed.
        TypeError, ValueError: As in [`draw_findings`].
    """
    check_drawing(opacity, style, vmax, levels)
    check_findings([finding])
    pixels = grey(image)
    with_map([finding], finding["label"], pixels.shape)
    ax = _axes(ax)
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import ListedColormap, Normalize

    shares, top = shares_of(finding, vmax), top_of(finding, vmax)
    height, width = pixels.shape
    frame: Any = (0, width, height, 0)
    heat = ListedColormap(heat_table() / 255, name="heat")
    ax.imshow(pixels, cmap="gray", vmin=0, vmax=255, extent=frame)
    if style == "wash":
        ax.imshow(shares, cmap=heat, vmin=0, vmax=1, alpha=opacity * np.sqrt(shares.clip(0, 1)), extent=frame)
    elif any(shares.min() < level < shares.max() for level in levels):  # matplotlib warns if there is no line
        middles = np.arange(width) + 0.5, np.arange(height) + 0.5
        ax.contour(*middles, shares, levels=sorted(levels), cmap=heat, vmin=0, vmax=1)
    above = "max" if vmax is not None and shares.max() > 1 else "neither"
    scale = ScalarMappable(Normalize(0, top), heat)
    ax.figure.colorbar(scale, ax=ax, extend=above, label="map value", fraction=0.046, pad=0.04)
    ax.set_title(f"{finding['label']} {finding['score']:.2f}")
    return ax


def _axes(ax: Any) -> Any:
    """The given axes, or those of a new figure."""
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError(
            "Plotting needs matplotlib. Run pip install 'clarity_hf[report]', or use draw_findings, which only needs "
            "Pillow."
        ) from error
    return plt.subplots(layout="constrained")[1] if ax is None else ax
