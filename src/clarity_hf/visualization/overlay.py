# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Boxes, maps and contour lines over an image, with Pillow and numpy alone.

The same image and findings always give the same bytes.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from PIL import Image, ImageColor, ImageDraw

from clarity_hf.image_reading import read_image

from .colours import BOX_COLOURS, heat_colours
from .labels import line_width, text_height, write_labels
from .strips import with_bar, with_key, with_names

logger = logging.getLogger(__name__)

MAX_FINDINGS = 4
"""Number of findings whose boxes are drawn by default. On an abnormal radiograph most of the fourteen findings may
reach their thresholds, and the boxes of all of them would be unreadable."""

LEVELS = (0.25, 0.5, 0.75)
"""Levels of contour lines by default, as shares of the top of the scale."""

MIN_PICTURE_SIDE = 512
"""Smaller images are enlarged to this many pixels on the shorter side, to keep labels readable."""

Style = Literal["wash", "contours"]
Bar = Literal["none", "below"]


def draw_findings(
    image: Any,
    findings: Sequence[Mapping[str, Any]],
    heat_of: str | Sequence[str] | None = None,
    opacity: float = 0.45,
    *,
    style: Style = "wash",
    vmax: float | None = None,
    levels: Sequence[float] = LEVELS,
    bar: Bar = "none",
    max_findings: int | None = MAX_FINDINGS,
) -> Image.Image:
    """Draw the boxes of present findings over an image, and the map of one finding or the contours of several.

    If too many findings have boxes, those with the highest scores are drawn; a strip below the image counts and names
    the others. Labels do not overlap each other or box borders; a label far from its box is connected to it by a line.
    If there are too many, text shrinks to `MIN_TEXT`; labels may then cover borders, and one without room is omitted
    and named in a logged warning. Lines and text scale with the picture.

    Args:
        image: The image, any source of [`read_image`].
        findings: Result of the pipeline for this image.
        heat_of: Label of the finding whose `"map"` is drawn (needs `return_maps=True`); for contours one or several.
        opacity: Opacity of the wash at the top of the scale, in [0, 1]; it decreases with the square root of the share
            to 0.
        style: `"wash"` colours the image by [`heat_colours`]; `"contours"` draws lines of equal value in the finding's
            own colour and leaves the image between them unchanged.
        vmax: Map value at the top of the scale. None uses each map's own peak, which shows where a finding is but not
            how strong, so an absent finding glows too. The same number for several images makes them comparable;
            higher values take the top colour.
        levels: Levels of contours, as shares in (0, 1) of the top of the scale.
        bar: `"below"` adds a strip under the image with the scale and its limits, or the key of the contours, if there
            is a map.
        max_findings: Number of findings whose boxes are drawn, at least 1, always including those of `heat_of`. None
            draws all boxes.

    Returns:
        RGB picture of the image's size, enlarged to at least `MIN_PICTURE_SIDE` pixels on the shorter side, plus the
        height of the strips. `picture.width / image_width` scales image coordinates to the picture.

    Raises:
        TypeError: `findings` is not a sequence of dicts of one image.
        ValueError: `heat_of` is not a label of the result, or names several for a wash; the result has no maps; a map
            has another size than the image, or negative or non-finite values; a box is empty or not finite; another
            argument is out of range.
    """
    check_drawing(opacity, style, vmax, levels, bar, max_findings)
    check_findings(findings)
    pixels = grey(image)
    mapped = [with_map(findings, label, pixels.shape) for label in _labels_of(heat_of, style)]
    boxed, left_out = _chosen(findings, mapped, max_findings)
    colours = _colours(boxed, mapped)
    image = Image.fromarray(pixels).convert("RGB")
    if style == "wash" and mapped:
        image = _washed(image, shares_of(findings[mapped[0]], vmax), opacity)
    enlarged = max(1.0, MIN_PICTURE_SIDE / min(image.size))
    picture = image.resize((round(image.width * enlarged), round(image.height * enlarged)), Image.Resampling.BICUBIC)
    if style == "contours":
        for index in mapped:
            shares = Image.fromarray(shares_of(findings[index], vmax)).resize(picture.size, Image.Resampling.BILINEAR)
            picture = _with_contours(picture, np.asarray(shares), levels, colours[index])
    _draw_boxes(picture, findings, colours, picture.width / image.width)
    size = text_height(picture)
    if bar == "below" and mapped and style == "contours":
        picture = with_key(picture, [(findings[index], colours[index]) for index in mapped], vmax, levels)
    elif bar == "below" and mapped:
        picture = with_bar(picture, findings[mapped[0]], vmax)
    return with_names(picture, [findings[index] for index in left_out], size) if left_out else picture


def finding_to_map(findings: Sequence[Mapping[str, Any]]) -> int | None:
    """Index of the finding whose map a picture shows by default: the first with a box, else the first present one.

    An absent finding's map is low on its own scale; drawn relative to its peak, as maps are, it would glow.

    Args:
        findings: A result of the pipeline, highest score first. Each finding has its own threshold, so the first
            present one need not have the highest score.

    Returns:
        None if no finding is present.
    """
    boxed = (index for index, finding in enumerate(findings) if finding["boxes"])
    present = (index for index, finding in enumerate(findings) if finding["present"])
    return next(boxed, next(present, None))


def draw_side_by_side(image: Any, findings: Sequence[Mapping[str, Any]], **drawing: Any) -> Image.Image:
    """Draw a radiograph twice, unchanged on the left and by [`draw_findings`] on the right, with the same arguments.

    The left half is black beside the strips.
    """
    radiograph, overlay = draw_findings(image, []), draw_findings(image, findings, **drawing)
    gap = text_height(radiograph) // 2
    both = Image.new("RGB", (radiograph.width + gap + overlay.width, overlay.height))
    both.paste(radiograph, (0, 0))
    both.paste(overlay, (radiograph.width + gap, 0))
    return both


def grey(image: Any) -> np.ndarray:
    """Image `(H, W)` uint8."""
    return np.asarray(read_image(image)).round().astype(np.uint8)


def check_drawing(
    opacity: float,
    style: str,
    vmax: float | None,
    levels: Sequence[float],
    bar: str = "none",
    max_findings: int | None = None,
) -> None:
    """Refuse arguments of [`draw_findings`] that are out of range with a ValueError."""
    if not 0 <= opacity <= 1:
        raise ValueError(f"`opacity` must be in [0, 1], got {opacity}. Use 0.45, or 0 for no wash.")
    for name, value, known in (("style", style, ("wash", "contours")), ("bar", bar, ("none", "below"))):
        if value not in known:
            raise ValueError(f"`{name}` must be one of {known}, got {value!r}. Correct the name.")
    if vmax is not None and not (np.isfinite(vmax) and vmax > 0):
        raise ValueError(f"`vmax` must be a number above 0, got {vmax}. Leave it out for each map's own peak.")
    if len(levels) == 0 or not all(0 < level < 1 for level in levels):
        raise ValueError(f"`levels` must be shares in (0, 1), got {levels}. Use (0.25, 0.5, 0.75).")
    if max_findings is not None and max_findings < 1:
        raise ValueError(f"`max_findings` must be at least 1, got {max_findings}. Use None to draw all.")


def check_findings(findings: Sequence[Mapping[str, Any]]) -> None:
    """Refuse what is not the pipeline's result for one image with a TypeError or ValueError."""
    for finding in findings:
        if not isinstance(finding, Mapping):
            raise TypeError(
                f"`findings` must be the dicts of one image, got a {type(finding).__name__}. "
                "For a result of several images, pass one item."
            )
        missing = [key for key in ("label", "score", "boxes") if key not in finding]
        if missing:
            raise ValueError(f"`findings` must have {missing}, got {list(finding)}. Pass the pipeline's result.")


def _labels_of(heat_of: str | Sequence[str] | None, style: str) -> list[str]:
    labels = [heat_of] if isinstance(heat_of, str) else list(heat_of or ())
    if style == "wash" and len(labels) > 1:
        raise ValueError(f"`heat_of` must be one label for a wash, got {labels}. Use style='contours'.")
    return list(dict.fromkeys(labels))


def with_map(findings: Sequence[Mapping[str, Any]], label: str, shape: tuple[int, ...]) -> int:
    """Index of the finding with a label; a ValueError if there is none, or its map does not fit the image `(H, W)`."""
    index = next((index for index, finding in enumerate(findings) if finding["label"] == label), None)
    if index is None:
        raise ValueError(f"`heat_of` must be a label of the result, got '{label}'. Raise `top_k` or correct the name.")
    if "map" not in findings[index]:
        raise ValueError("`findings` must contain maps, got a result without them. Call with return_maps=True.")
    heat = np.asarray(findings[index]["map"])
    if heat.shape != shape:
        raise ValueError(
            f"`findings` must hold maps of the image's (H, W) {tuple(shape)}, got {heat.shape} for {label}. "
            "Pass the image they belong to."
        )
    if not np.isfinite(heat).all() or heat.min() < 0:
        raise ValueError(
            f"`findings` must hold finite maps of values ≥ 0, got others for {label}. "
            "Pass the maps as returned by the model."
        )
    return index


def top_of(finding: Mapping[str, Any], vmax: float | None) -> float:
    """Map value at the top of the scale; 1 for a map of zeros."""
    return float(np.max(finding["map"])) or 1.0 if vmax is None else float(vmax)


def shares_of(finding: Mapping[str, Any], vmax: float | None) -> np.ndarray:
    """Map `(H, W)` as shares of the top of the scale, above 1 where it goes beyond."""
    return np.asarray(finding["map"], dtype=np.float32) / np.float32(top_of(finding, vmax))


def _chosen(
    findings: Sequence[Mapping[str, Any]], mapped: Sequence[int], max_findings: int | None
) -> tuple[list[int], list[int]]:
    """Findings with boxes that are drawn, in the order of the result, and the others by descending score."""
    boxed = [index for index, finding in enumerate(findings) if finding["boxes"]]
    ranked = sorted(boxed, key=lambda index: (index not in mapped, -findings[index]["score"]))
    count = len(boxed) if max_findings is None else max(max_findings, sum(index in mapped for index in boxed))
    return sorted(ranked[:count]), ranked[count:]


def _colours(boxed: Sequence[int], mapped: Sequence[int]) -> dict[int, str]:
    """Colour of each finding drawn, by its place in the result."""
    shown = [*boxed, *(index for index in mapped if index not in boxed)]
    return {index: BOX_COLOURS[rank % len(BOX_COLOURS)] for rank, index in enumerate(shown)}


def _washed(image: Image.Image, shares: np.ndarray, opacity: float) -> Image.Image:
    weight = (np.float32(opacity) * np.sqrt(shares.clip(0, 1)))[..., None]
    washed = np.array(image, dtype=np.float32)
    washed += weight * (heat_colours(shares) - washed)
    return Image.fromarray(washed.round().astype(np.uint8))


def _with_contours(picture: Image.Image, shares: np.ndarray, levels: Sequence[float], colour: str) -> Image.Image:
    """Draw smooth contours of even width with a dark outline; a pixel's distance is |m − level| / |∇m|."""
    drawn, width = np.array(picture, dtype=np.float32), line_width(text_height(picture))
    down, right = np.gradient(shares)
    slope = np.hypot(down, right)
    # Rounding errors on a plateau are not a slope.
    slope[slope < 1e-6] = 0
    for ink, reach in (((0, 0, 0), width), (ImageColor.getrgb(colour)[:3], width / 2)):
        for level in levels:
            near = np.abs(shares - level) < (reach + 0.5) * slope
            cover = (reach + 0.5 - np.abs(shares[near] - level) / slope[near]).clip(0, 1)[:, None]
            drawn[near] += cover * (np.asarray(ink, dtype=np.float32) - drawn[near])
    return Image.fromarray(drawn.round().astype(np.uint8))


def _draw_boxes(
    picture: Image.Image, findings: Sequence[Mapping[str, Any]], colours: Mapping[int, str], scale: float
) -> None:
    drawn = [
        (_box_in_picture(box, finding["label"], scale, picture.size), finding, colours[index])
        for index, finding in enumerate(findings)
        if index in colours
        for box in finding["boxes"]
    ]
    if not drawn:
        return
    draw = ImageDraw.Draw(picture)
    for box, _, colour in drawn:
        _outline(draw, box, colour, line_width(text_height(picture)))
    boxes, owners, own_colours = zip(*drawn, strict=True)
    write_labels(picture, owners, np.array(boxes), own_colours)


def _box_in_picture(
    box: Mapping[str, float], label: str, scale: float, size: tuple[int, int]
) -> tuple[int, int, int, int]:
    """Integer pixels of the picture covered by a box, right and bottom exclusive, at least one."""
    corners = np.array([box[side] for side in ("xmin", "ymin", "xmax", "ymax")], dtype=np.float64) * scale
    x0, y0, x1, y1 = corners
    if not (np.isfinite(corners).all() and x0 < x1 and y0 < y1):
        raise ValueError(
            f"`findings` must have boxes with xmin < xmax and ymin < ymax, got {dict(box)} for {label}. "
            "Pass the pipeline's result."
        )
    if x0 >= size[0] or y0 >= size[1] or min(x1, y1) <= 0:
        logger.warning("A box of %s lies outside the image and is drawn at its edge: %s", label, dict(box))
    left, top = (int(min(max(round(side), 0), end - 1)) for side, end in zip((x0, y0), size, strict=True))
    right, bottom = (int(min(round(side), end)) for side, end in zip((x1, y1), size, strict=True))
    return left, top, max(left + 1, right), max(top + 1, bottom)


def _outline(draw: ImageDraw.ImageDraw, box: Sequence[int], colour: str, width: int) -> None:
    """Draw a border inside a box, with a dark inner line; Pillow's rectangles include right and bottom."""
    x0, y0, x1, y1 = box
    width = min(width, max(1, min(x1 - x0, y1 - y0) // 4))
    dark = max(1, width // 3)
    if min(x1 - x0, y1 - y0) > 4 * (width + dark):
        draw.rectangle((x0, y0, x1 - 1, y1 - 1), outline="black", width=width + dark)
    draw.rectangle((x0, y0, x1 - 1, y1 - 1), outline=colour, width=width)
