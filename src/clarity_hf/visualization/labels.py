# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Labels of boxes, which overlap neither each other nor borders."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .colours import ink_on

logger = logging.getLogger(__name__)

MIN_TEXT = 9
"""Smallest text height, in pixels, to which labels shrink."""


def text_height(picture: Image.Image) -> int:
    """Height of text in a picture, in pixels."""
    return max(13, min(picture.size) // 42)


def line_width(size: int) -> int:
    """Width of lines beside text of a height, in pixels."""
    return max(2, size // 7)


def load_font(size: int) -> ImageFont.FreeTypeFont:
    """Pillow's own font; raises an ImportError where Pillow was built without FreeType."""
    font = ImageFont.load_default(size=size)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise ImportError("`Pillow` must be built with FreeType to write labels, got one without. Install its wheel.")
    return font


def write_labels(
    picture: Image.Image, findings: Sequence[Mapping[str, Any]], boxes: np.ndarray, colours: Sequence[str]
) -> None:
    """Write label and score of the finding of each box, connected by a line where it is far from the box.

    `boxes` is `(n, 4)` int, xyxy in pixels of the picture, right and bottom exclusive. Text shrinks to `MIN_TEXT` if
    there are too many labels; one without room is omitted, and its finding is named in a warning.
    """
    draw, size = ImageDraw.Draw(picture), text_height(picture)
    places, texts, font = _fit_labels(findings, boxes, picture.size, size)
    placed = [
        (place, box, text, colour)
        for place, box, text, colour in zip(places, boxes, texts, colours, strict=True)
        if place is not None
    ]
    for place, box, _, colour in placed:
        if _gaps(place[None], box)[0] > (place[3] - place[1]) / 2:
            draw.line(_shortest(place, box), fill=colour, width=max(1, line_width(size) // 2))
    for place, _, text, colour in placed:
        _write_label(draw, text, place, colour, font)
    without = [finding["label"] for place, finding in zip(places, findings, strict=True) if place is None]
    if without:
        logger.warning("%d boxes have no label because there is no room: %s", len(without), ", ".join(without))


def _fit_labels(
    findings: Sequence[Mapping[str, Any]], boxes: np.ndarray, picture: tuple[int, int], size: int
) -> tuple[list[np.ndarray | None], list[str], ImageFont.FreeTypeFont]:
    """Places, texts and font of the boxes' labels, in the largest size at which all fit."""
    border = line_width(size) + max(1, line_width(size) // 3)
    sizes = sorted({max(MIN_TEXT, round(size * share)) for share in (1.0, 0.8, 0.65)} | {MIN_TEXT}, reverse=True)
    for text_size in sizes:
        font = load_font(text_size)
        pad = _pad(font)
        texts = [text_of(finding, font, picture[0] - 2 * pad) for finding in findings]
        height = sum(font.getmetrics()) + 2
        label_sizes = [(int(np.ceil(font.getlength(text))) + 2 * pad, height) for text in texts]
        places = place_labels(label_sizes, boxes, picture, border, spare_borders=text_size != sizes[-1])
        if all(place is not None for place in places):
            break
    return places, texts, font


def _pad(font: ImageFont.FreeTypeFont) -> int:
    return max(3, round(font.size / 5))


def text_of(finding: Mapping[str, Any], font: ImageFont.FreeTypeFont, room: float) -> str:
    """Label and score; a name that is too long is truncated."""
    score = f" {finding['score']:.2f}"
    return shortened(finding["label"], font, room - font.getlength(score)) + score


def shortened(text: str, font: ImageFont.FreeTypeFont, room: float) -> str:
    """A text, truncated to a width in pixels."""
    if font.getlength(text) <= room:
        return text
    while text and font.getlength(text + "...") > room:
        text = text[:-1]
    return text + "..."


def place_labels(
    sizes: Sequence[tuple[int, int]],
    boxes: np.ndarray,
    picture: tuple[int, int],
    border: int,
    spare_borders: bool = True,
) -> list[np.ndarray | None]:
    """Choose the places of the boxes' labels, one after the other.

    A place lies inside the picture and overlaps neither box borders nor earlier labels. The cheapest such place is
    taken: near its box (1 per label height of distance), outside it (6 if completely inside) and outside other boxes
    (3), preferably above, then below, then beside it, aligned with its left edge. Boxes and places are xyxy in pixels
    of the picture, right and bottom exclusive.

    Args:
        sizes: Width and height of each label, in pixels of the picture.
        boxes: `(n, 4)` int, one for each label.
        picture: Width and height.
        border: Thickness of the boxes' borders, inside the boxes.
        spare_borders: Whether to omit a label that cannot avoid all borders, and those after it; otherwise it is
            placed where it covers least of them.

    Returns:
        For each label `(4,)` int, or None if there is no place.
    """
    places: list[np.ndarray | None] = []
    taken = np.empty((0, 4), dtype=np.int64)
    for size, box, rank in zip(sizes, boxes, range(len(boxes)), strict=True):
        free = _candidates(size, box, picture, border)
        free = free[~(_shared_areas(free, taken) > 0).any(axis=1)]
        inner = boxes + np.array([border, border, -border, -border])
        on_borders = (_shared_areas(free, boxes) - _shared_areas(free, inner)).sum(axis=1)
        free = free[on_borders == (0 if spare_borders else on_borders.min(initial=np.iinfo(np.int64).max))]
        if not len(free):
            places += [None] * (len(boxes) - rank if spare_borders else 1)
            if spare_borders:
                break
            continue
        place = free[_costs(free, size, boxes, rank).argmin()]
        taken = np.concatenate([taken, place[None]])
        places.append(place)
    return places


def _candidates(size: tuple[int, int], box: np.ndarray, picture: tuple[int, int], border: int) -> np.ndarray:
    """Places `(k, 4)` inside the picture: aligned with the box's sides, and on a grid."""
    starts = []
    for length, low, high, end, step in zip(size, box[:2], box[2:], picture, (size[0] // 2, size[1]), strict=True):
        flush = [low - length, low, low + border, high - length - border, high - length, high]
        grid = np.arange(0, max(1, end - length + 1), max(1, step))
        inside = np.concatenate([flush, grid, [end - length]])
        starts.append(np.unique(inside[(inside >= 0) & (inside + length <= end)]))
    y, x = (axis.ravel() for axis in np.meshgrid(starts[1], starts[0], indexing="ij"))
    return np.stack([x, y, x + size[0], y + size[1]], axis=1).astype(np.int64)


def _costs(places: np.ndarray, size: tuple[int, int], boxes: np.ndarray, rank: int) -> np.ndarray:
    box = boxes[rank]
    covered = _shared_areas(places, boxes) / (size[0] * size[1])
    others = np.delete(covered, rank, axis=1).max(axis=1, initial=0.0)
    above, below = places[:, 3] <= box[1], places[:, 1] >= box[3]
    side = np.where(above, 0.0, np.where(below, 0.1, 0.2))
    # The last two break ties: from the box's left edge, and from its top.
    off = 0.1 * np.abs(places[:, 0] - box[0]) / size[0] + 0.01 * np.abs(places[:, 3] - box[1]) / size[1]
    return _gaps(places, box) / size[1] + 6 * covered[:, rank] + 3 * others + side + off


def _shared_areas(places: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Area `(k, n)` that each place shares with each box; inverted boxes have none."""
    low = np.maximum(places[:, None, :2], boxes[None, :, :2])
    high = np.minimum(places[:, None, 2:], boxes[None, :, 2:])
    return (high - low).clip(0).prod(axis=-1)


def _gaps(places: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Distance `(k,)` between each place and a box, 0 where they touch."""
    apart = np.maximum(box[:2] - places[:, 2:], places[:, :2] - box[2:]).clip(0)
    return np.hypot(apart[:, 0], apart[:, 1])


def _shortest(place: np.ndarray, box: np.ndarray) -> list[tuple[float, float]]:
    """Ends of the shortest line from a label to its box, from the middle of facing sides."""
    ends = []
    for axis in (0, 1):
        low, high = max(place[axis], box[axis]), min(place[axis + 2], box[axis + 2])
        middle = (low + high) / 2
        if low <= high:
            ends.append((middle, middle))
        else:
            ends.append((high, low) if place[axis + 2] < box[axis] else (low, high))
    return [(float(ends[0][end]), float(ends[1][end])) for end in (0, 1)]


def _write_label(
    draw: ImageDraw.ImageDraw, text: str, place: np.ndarray, colour: str, font: ImageFont.FreeTypeFont
) -> None:
    x0, y0, x1, y1 = (int(side) for side in place)
    draw.rectangle((x0, y0, x1 - 1, y1 - 1), fill=colour)
    draw.text((x0 + _pad(font), y0 + 1), text, fill=ink_on(colour), font=font)
