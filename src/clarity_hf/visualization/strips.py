# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Strips below a picture: the scale of a map, the key of contours, and the findings that are not drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from .colours import heat_colours
from .labels import line_width, load_font, shortened, text_height, text_of


def _with_strip(picture: Image.Image, height: int) -> Image.Image:
    """The picture above a black strip."""
    stacked = Image.new("RGB", (picture.width, picture.height + height))
    stacked.paste(picture, (0, 0))
    return stacked


def with_bar(picture: Image.Image, finding: Mapping[str, Any], vmax: float | None) -> Image.Image:
    """The picture above a strip with a title, the colour scale and its values."""
    size, peak = text_height(picture), float(np.max(finding["map"]))
    if vmax is None:
        title, ticks = f"{finding['label']}: share of its peak, {peak:.3g}", ["0 %", "50 %", "100 %"]
    else:
        title = f"{finding['label']}: map value, peak {peak:.3g}"
        ticks = ["0", f"{vmax / 2:.3g}", f"{vmax:.3g} and above" if peak > vmax else f"{vmax:.3g}"]
    font, row, y = load_font(size), round(1.4 * size), picture.height
    stacked = _with_strip(picture, 3 * row + size)
    draw = ImageDraw.Draw(stacked)
    left, length = size, picture.width - 2 * size
    draw.text((left, y + size // 3), shortened(title, font, length), fill="white", font=font)
    colours = heat_colours(np.linspace(0, 1, length))
    stacked.paste(Image.fromarray(np.repeat(colours[None], row, axis=0)), (left, y + row + size // 2))
    for text, x, anchor in zip(ticks, (left, left + length / 2, left + length), ("la", "ma", "ra"), strict=True):
        draw.text((x, y + 2 * row + round(0.8 * size)), text, fill="white", font=font, anchor=anchor)
    return stacked


def with_key(
    picture: Image.Image, keyed: Sequence[tuple[Mapping[str, Any], str]], vmax: float | None, levels: Sequence[float]
) -> Image.Image:
    """The picture above a strip with the contour levels of findings, given with their colours."""
    size = text_height(picture)
    font, row = load_font(size), round(1.6 * size)
    stacked = _with_strip(picture, row * len(keyed) + size)
    draw = ImageDraw.Draw(stacked)
    for rank, (finding, colour) in enumerate(keyed):
        y = picture.height + size // 2 + rank * row + row // 2
        if vmax is None:
            peak = float(np.max(finding["map"]))
            lines = f"{', '.join(f'{100 * level:.3g}' for level in sorted(levels))} % of its peak, {peak:.3g}"
        else:
            lines = f"values {', '.join(f'{vmax * level:.3g}' for level in sorted(levels))}"
        text = shortened(f"{finding['label']}: {lines}", font, picture.width - 5 * size)
        draw.line((size, y, 3 * size, y), fill=colour, width=line_width(size))
        draw.text((round(3.5 * size), y), text, fill="white", font=font, anchor="lm")
    return stacked


def with_names(picture: Image.Image, left_out: Sequence[Mapping[str, Any]], size: int) -> Image.Image:
    """The picture above a strip of up to three lines that counts and names the findings that are not drawn."""
    font, row = load_font(size), round(1.4 * size)
    room = picture.width - 2 * size
    count = "1 more finding is" if len(left_out) == 1 else f"{len(left_out)} more findings are"
    lines = [f"{count} present and not drawn:"]
    for place, finding in enumerate(left_out):
        name = text_of(finding, font, room) + ("," if place < len(left_out) - 1 else "")
        if font.getlength(f"{lines[-1]} {name}") <= room:
            lines[-1] += f" {name}"
        elif len(lines) < 3:
            lines.append(name)
        else:
            lines[-1] = shortened(f"{lines[-1]} {name}", font, room)
            break
    stacked = _with_strip(picture, row * len(lines) + 2 * (size // 3))
    draw = ImageDraw.Draw(stacked)
    for rank, line in enumerate(lines):
        draw.text((size, picture.height + size // 3 + rank * row), line, fill="white", font=font)
    return stacked
