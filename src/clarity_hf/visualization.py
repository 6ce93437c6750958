# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Pictures of results, with Pillow alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .image_reading import read_image

BOX_COLOURS = ("#ff7f0e", "#2ca02c", "#17becf", "#e377c2", "#bcbd22", "#9467bd", "#d62728", "#1f77b4")
"""Colours of the findings' boxes, in the order of the result."""

_HEAT = np.array(
    [
        (0, 0, 4),
        (40, 11, 84),
        (101, 21, 110),
        (159, 42, 99),
        (212, 72, 66),
        (245, 125, 21),
        (250, 193, 39),
        (252, 255, 164),
    ],
    dtype=np.float64,
)
"""Stops of the perceptually uniform colour map "inferno" (van der Walt and Smith, CC0), evenly spaced."""


def draw_findings(
    image: Any, findings: Sequence[Mapping[str, Any]], heat_of: str | None = None, opacity: float = 0.45
) -> Image.Image:
    """Draw the boxes of present findings over their film, and the map of one finding.

    Args:
        image: The film, any source of [`read_image`].
        findings: Result of the pipeline for this film.
        heat_of: Label of the finding whose `"map"` is laid over the film (needs `return_maps=True`); the map is drawn
            relative to its own peak.
        opacity: Of the map at its peak, in [0, 1].

    Returns:
        RGB picture of the film's size, at least 512 pixels on the shorter side so that the labels can be read.

    Raises:
        ValueError: `heat_of` is no label of the result, or the result has no maps.
    """
    film = Image.fromarray(np.asarray(read_image(image)).round().astype(np.uint8)).convert("RGB")
    if heat_of is not None:
        film = _with_heat(film, _map_of(findings, heat_of), opacity)
    scale = max(1.0, 512 / min(film.size))
    picture = film.resize((round(film.width * scale), round(film.height * scale)), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(picture)
    size = max(13, min(picture.size) // 42)
    font = ImageFont.load_default(size=size)
    taken: list[tuple[float, float, float, float]] = []
    for finding, colour in zip((f for f in findings if f["boxes"]), _cycle(BOX_COLOURS), strict=False):
        for box in finding["boxes"]:
            corners = [side * scale for side in (box["xmin"], box["ymin"], box["xmax"], box["ymax"])]
            draw.rectangle(_inside(corners, picture.size), outline=colour, width=max(2, size // 7))
            text = f"{finding['label']} {finding['score']:.2f}"
            _write_label(draw, text, corners, colour, font, taken, picture.size)
    return picture


def _map_of(findings: Sequence[Mapping[str, Any]], label: str) -> np.ndarray:
    for finding in findings:
        if finding["label"] == label:
            if "map" not in finding:
                raise ValueError("`findings` must hold maps, got a result without. Call with return_maps=True.")
            return np.asarray(finding["map"])
    raise ValueError(f"`heat_of` must be a label of the result, got '{label}'. Raise `top_k` or correct the name.")


def _with_heat(film: Image.Image, heat: np.ndarray, opacity: float) -> Image.Image:
    share = heat / heat.max() if heat.max() > 0 else heat
    stops = np.linspace(0, 1, len(_HEAT))
    colours = np.stack([np.interp(share, stops, _HEAT[:, channel]) for channel in range(3)], axis=-1)
    weight = (opacity * np.sqrt(share))[..., None]
    return Image.fromarray((np.asarray(film) * (1 - weight) + colours * weight).round().astype(np.uint8))


def _write_label(
    draw: ImageDraw.ImageDraw,
    text: str,
    corners: Sequence[float],
    colour: str,
    font: Any,
    taken: list[tuple[float, float, float, float]],
    size: tuple[int, int],
) -> None:
    """Write a label above its box, below it where there is no room, and clear of other labels."""
    left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
    width, height = right - left + 6, bottom - top + 6
    x = min(max(0.0, corners[0]), size[0] - width)
    places = [corners[1] - height, corners[3], corners[1]]
    steps = range(1, 1 + int(size[1] // height))
    places += [corners[1] + step * height for step in steps] + [corners[1] - step * height for step in steps[1:]]
    for y in places:
        place = (x, y, x + width, y + height)
        if y >= 0 and place[3] <= size[1] and not any(_overlap(place, other) for other in taken):
            break
    taken.append(place)
    draw.rectangle(place, fill=colour)
    draw.text((x + 3 - left, place[1] + 3 - top), text, fill="black", font=font)


def _overlap(one: Sequence[float], other: Sequence[float]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _inside(corners: Sequence[float], size: tuple[int, int]) -> tuple[float, float, float, float]:
    """Boxes exclude their right and bottom; Pillow's rectangles include them."""
    x0, y0, x1, y1 = corners
    return x0, y0, max(x0, min(x1, size[0]) - 1), max(y0, min(y1, size[1]) - 1)


def _cycle(colours: Sequence[str]) -> Any:
    while True:
        yield from colours
