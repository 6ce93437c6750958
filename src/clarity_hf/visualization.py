# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Pictures of results: boxes, maps and contour lines over an image.

The `draw_*` functions need only Pillow and numpy and return PIL images. The `plot_*` functions draw on matplotlib's
axes and need the extra `report`. The same image and findings always give the same bytes.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from PIL import Image, ImageColor, ImageDraw, ImageFont

from .image_reading import read_image

if TYPE_CHECKING:
    from matplotlib.axes import Axes

logger = logging.getLogger(__name__)

BOX_COLOURS = ("#E69F00", "#56B4E9", "#009E73", "#CC79A7", "#F0E442", "#D55E00", "#0072B2")
"""Colours of boxes and lines, distinguishable with colour blindness: the palette of Okabe and Ito (Color Universal
Design, 2008) without black. Findings with boxes take them in the order of the result, then findings with only a map;
the eighth repeats the first."""

MAX_FINDINGS = 4
"""Number of findings whose boxes are drawn by default. On an abnormal radiograph most of the fourteen findings may
reach their thresholds, and the boxes of all of them would be unreadable."""

LEVELS = (0.25, 0.5, 0.75)
"""Levels of contour lines by default, as shares of the top of the scale."""

MIN_PICTURE_SIDE = 512
"""Smaller images are enlarged to this many pixels on the shorter side, to keep labels readable."""

MIN_TEXT = 9
"""Smallest text height, in pixels, to which labels shrink."""

_HEAT = (
    "000004 0a0722 1e0c45 380962 510e6c 69166e 801f6c 982766 b0315b "
    "c63d4d d94d3d e9612b f47918 fa9407 fcb014 f8cd37 f2ea69 fcffa4"
)
"""Every 15th of the 256 colours of "inferno" (Nathaniel Smith and Stéfan van der Walt, 2015, CC0,
https://bids.github.io/colormap), whose lightness increases uniformly."""

Style = Literal["wash", "contours"]
Bar = Literal["none", "below"]


@lru_cache(maxsize=1)
def _heat_table() -> np.ndarray:
    from scipy.interpolate import CubicSpline  # slow to import, so only when a map is drawn

    stops = np.array([ImageColor.getrgb(f"#{stop}") for stop in _HEAT.split()], dtype=np.float64)
    table = CubicSpline(np.arange(0, 256, 15), stops)(np.arange(256))
    table = table.clip(0, 255).round().astype(np.uint8)
    table.setflags(write=False)
    return table


def heat_colours(values: Any) -> np.ndarray:
    """Colours of the "inferno" scale, from black through violet, red and orange to pale yellow.

    A cubic spline through every 15th colour of the published scale, which differs from it by at most 2 of 255.

    Args:
        values: Array of any shape; 0 is the bottom of the scale and 1 its top; values are clipped to it.

    Returns:
        `(..., 3)` uint8 RGB.

    Raises:
        ValueError: A value is NaN.
    """
    values = np.asarray(values)
    if np.isnan(values).any():
        raise ValueError("`values` must be numbers, got NaN. Fill or drop those pixels.")
    return _heat_table()[(values.clip(0, 1) * np.float32(255)).round().astype(np.uint8)]


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
    _check_drawing(opacity, style, vmax, levels, bar, max_findings)
    _check_findings(findings)
    pixels = _grey(image)
    mapped = [_with_map(findings, label, pixels.shape) for label in _labels_of(heat_of, style)]
    boxed, left_out = _chosen(findings, mapped, max_findings)
    colours = _colours(boxed, mapped)
    image = Image.fromarray(pixels).convert("RGB")
    if style == "wash" and mapped:
        image = _washed(image, _shares(findings[mapped[0]], vmax), opacity)
    picture = _enlarged(image)
    size = _text_size(picture)
    if style == "contours":
        for index in mapped:
            shares = _enlarged_map(_shares(findings[index], vmax), picture.size)
            picture = _with_contours(picture, shares, levels, colours[index], _line(size))
    _draw_boxes(picture, findings, colours, size, picture.width / image.width)
    if bar == "below" and mapped and style == "contours":
        picture = _with_key(picture, findings, {index: colours[index] for index in mapped}, vmax, levels, size)
    elif bar == "below" and mapped:
        picture = _with_bar(picture, findings[mapped[0]], vmax, size)
    return _with_names(picture, [findings[index] for index in left_out], size) if left_out else picture


def draw_side_by_side(image: Any, findings: Sequence[Mapping[str, Any]], **drawing: Any) -> Image.Image:
    """Draw a radiograph twice: unchanged on the left, with its findings on the right.

    Args:
        image: The radiograph, any source of [`read_image`].
        findings: Result of the pipeline for this radiograph.
        **drawing: Further arguments of [`draw_findings`].

    Returns:
        RGB picture; below the left half, the height of the strips is black.

    Raises:
        TypeError, ValueError: As in [`draw_findings`].
    """
    radiograph, overlay = draw_findings(image, []), draw_findings(image, findings, **drawing)
    gap = _text_size(radiograph) // 2
    both = Image.new("RGB", (radiograph.width + gap + overlay.width, overlay.height))
    both.paste(radiograph, (0, 0))
    both.paste(overlay, (radiograph.width + gap, 0))
    return both


def plot_findings(
    image: Any, findings: Sequence[Mapping[str, Any]], *, ax: Axes | None = None, **drawing: Any
) -> Axes:
    """Show [`draw_findings`] on matplotlib axes with ticks in pixels of the image.

    Args:
        image: The image, any source of [`read_image`].
        findings: Result of the pipeline for this image.
        ax: Where to draw; by default the axes of a new pyplot figure.
        **drawing: Further arguments of [`draw_findings`].

    Returns:
        The axes.

    Raises:
        ImportError: The extra `report` is not installed.
        TypeError, ValueError: As in [`draw_findings`].
    """
    ax = _axes(ax)
    pixels = _grey(image)
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
        ax: Where to draw; by default the axes of a new pyplot figure.

    Returns:
        The axes, titled with label and score.

    Raises:
        ImportError: The extra `report` is not installed.
        TypeError, ValueError: As in [`draw_findings`].
    """
    _check_drawing(opacity, style, vmax, levels, "none", None)
    _check_findings([finding])
    pixels = _grey(image)
    _with_map([finding], finding["label"], pixels.shape)
    ax = _axes(ax)
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import ListedColormap, Normalize

    shares, top = _shares(finding, vmax), _top(finding, vmax)
    height, width = pixels.shape
    frame: Any = (0, width, height, 0)
    heat = ListedColormap(_heat_table() / 255, name="heat")
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
    """The axes given, or those of a new figure."""
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError(
            "Plotting needs matplotlib. Run pip install 'clarity_hf[report]', or use draw_findings, which only needs "
            "Pillow."
        ) from error
    return plt.subplots(layout="constrained")[1] if ax is None else ax


def _grey(image: Any) -> np.ndarray:
    """Image `(H, W)` uint8."""
    return np.asarray(read_image(image)).round().astype(np.uint8)


def _check_drawing(
    opacity: float, style: str, vmax: float | None, levels: Sequence[float], bar: str, max_findings: int | None
) -> None:
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


def _check_findings(findings: Sequence[Mapping[str, Any]]) -> None:
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


def _with_map(findings: Sequence[Mapping[str, Any]], label: str, shape: tuple[int, ...]) -> int:
    """Index of the finding with a label, after checking its map."""
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


def _top(finding: Mapping[str, Any], vmax: float | None) -> float:
    """Map value at the top of the scale; 1 for a map of zeros."""
    return float(np.max(finding["map"])) or 1.0 if vmax is None else float(vmax)


def _shares(finding: Mapping[str, Any], vmax: float | None) -> np.ndarray:
    """Map `(H, W)` as shares of the top of the scale, above 1 where it goes beyond."""
    return np.asarray(finding["map"], dtype=np.float32) / np.float32(_top(finding, vmax))


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


def _enlarged(image: Image.Image) -> Image.Image:
    scale = max(1.0, MIN_PICTURE_SIDE / min(image.size))
    return image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)


def _enlarged_map(shares: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return np.asarray(Image.fromarray(shares).resize(size, Image.Resampling.BILINEAR))


def _text_size(picture: Image.Image) -> int:
    return max(13, min(picture.size) // 42)


def _line(text_size: int) -> int:
    return max(2, text_size // 7)


def _font(size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size=size)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise ImportError("`Pillow` must be built with FreeType to write labels, got one without. Install its wheel.")
    return font


def _with_contours(
    picture: Image.Image, shares: np.ndarray, levels: Sequence[float], colour: str, width: int
) -> Image.Image:
    """Draw smooth contours of even width with a dark outline; a pixel's distance is |m − level| / |∇m|."""
    drawn = np.array(picture, dtype=np.float32)
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
    picture: Image.Image, findings: Sequence[Mapping[str, Any]], colours: Mapping[int, str], size: int, scale: float
) -> None:
    draw = ImageDraw.Draw(picture)
    drawn = [
        (_box_in_picture(box, finding["label"], scale, picture.size), finding, colours[index])
        for index, finding in enumerate(findings)
        if index in colours
        for box in finding["boxes"]
    ]
    if not drawn:
        return
    boxes = np.array([box for box, _, _ in drawn])
    for box, _, colour in drawn:
        _outline(draw, box, colour, _line(size))
    places, texts, font = _fit_labels([finding for _, finding, _ in drawn], boxes, picture.size, size)
    for box, place, (_, _, colour) in zip(boxes, places, drawn, strict=True):
        if place is not None and _gaps(place[None], box)[0] > (place[3] - place[1]) / 2:
            draw.line(_shortest(place, box), fill=colour, width=max(1, _line(size) // 2))
    for text, place, (_, _, colour) in zip(texts, places, drawn, strict=True):
        if place is not None:
            _write_label(draw, text, place, colour, font)
    without = [finding["label"] for place, (_, finding, _) in zip(places, drawn, strict=True) if place is None]
    if without:
        logger.warning("%d boxes have no label because there is no room: %s", len(without), ", ".join(without))


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


def _fit_labels(
    findings: Sequence[Mapping[str, Any]], boxes: np.ndarray, picture: tuple[int, int], size: int
) -> tuple[list[np.ndarray | None], list[str], ImageFont.FreeTypeFont]:
    """Places, texts and font of the boxes' labels, in the largest size at which all fit."""
    border = _line(size) + max(1, _line(size) // 3)
    sizes = sorted({max(MIN_TEXT, round(size * share)) for share in (1.0, 0.8, 0.65)} | {MIN_TEXT}, reverse=True)
    for text_size in sizes:
        font = _font(text_size)
        pad = _pad(font)
        texts = [_text_of(finding, font, picture[0] - 2 * pad) for finding in findings]
        height = sum(font.getmetrics()) + 2
        label_sizes = [(int(np.ceil(font.getlength(text))) + 2 * pad, height) for text in texts]
        places = place_labels(label_sizes, boxes, picture, border, spare_borders=text_size != sizes[-1])
        if all(place is not None for place in places):
            break
    return places, texts, font


def _pad(font: ImageFont.FreeTypeFont) -> int:
    return max(3, round(font.size / 5))


def _text_of(finding: Mapping[str, Any], font: ImageFont.FreeTypeFont, room: float) -> str:
    """Label and score; a name that is too long is truncated."""
    score = f" {finding['score']:.2f}"
    return _shortened(finding["label"], font, room - font.getlength(score)) + score


def _shortened(text: str, font: ImageFont.FreeTypeFont, room: float) -> str:
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
    (3), preferably above, then below, then beside it, aligned with its left edge.

    Args:
        sizes: Width and height of each label, in pixels of the picture.
        boxes: `(n, 4)` int, xyxy in pixels of the picture, right and bottom exclusive, one for each label.
        picture: Width and height.
        border: Thickness of the boxes' borders, inside the boxes.
        spare_borders: Whether to omit a label that cannot avoid all borders, and those after it; otherwise it is
            placed where it covers least of them.

    Returns:
        For each label `(4,)` int, xyxy, right and bottom exclusive, or None if there is no place.
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
    draw.text((x0 + _pad(font), y0 + 1), text, fill=_ink_on(colour), font=font)


def _ink_on(colour: str) -> str:
    """Black or white, whichever has the higher contrast on a colour (relative luminance of WCAG 2.2)."""
    channels = np.array(ImageColor.getrgb(colour)[:3]) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    luminance = float(linear @ np.array([0.2126, 0.7152, 0.0722]))
    return "black" if (luminance + 0.05) / 0.05 >= 1.05 / (luminance + 0.05) else "white"


def _with_bar(picture: Image.Image, finding: Mapping[str, Any], vmax: float | None, size: int) -> Image.Image:
    """The picture above a strip with a title, the colour scale and its values."""
    top = _top(finding, vmax)
    peak = float(np.max(finding["map"]))
    if vmax is None:
        title = f"{finding['label']}: share of its peak, {peak:.3g}"
        ticks = ["0 %", "50 %", "100 %"]
    else:
        title = f"{finding['label']}: map value, peak {peak:.3g}"
        ticks = ["0", f"{top / 2:.3g}", f"{top:.3g} and above" if peak > top else f"{top:.3g}"]
    font, row = _font(size), round(1.4 * size)
    strip = Image.new("RGB", (picture.width, 3 * row + size))
    draw = ImageDraw.Draw(strip)
    left, length = size, picture.width - 2 * size
    draw.text((left, size // 3), _shortened(title, font, length), fill="white", font=font)
    colours = heat_colours(np.linspace(0, 1, length))
    strip.paste(Image.fromarray(np.repeat(colours[None], row, axis=0)), (left, row + size // 2))
    for text, x, anchor in zip(ticks, (left, left + length / 2, left + length), ("la", "ma", "ra"), strict=True):
        draw.text((x, 2 * row + round(0.8 * size)), text, fill="white", font=font, anchor=anchor)
    return _stacked(picture, strip)


def _with_key(
    picture: Image.Image,
    findings: Sequence[Mapping[str, Any]],
    colours: Mapping[int, str],
    vmax: float | None,
    levels: Sequence[float],
    size: int,
) -> Image.Image:
    """The picture above a strip with the contour levels of each finding."""
    font, row = _font(size), round(1.6 * size)
    strip = Image.new("RGB", (picture.width, row * len(colours) + size))
    draw = ImageDraw.Draw(strip)
    for rank, (index, colour) in enumerate(colours.items()):
        y, finding = size // 2 + rank * row, findings[index]
        if vmax is None:
            peak = float(np.max(finding["map"]))
            lines = f"{', '.join(f'{100 * level:.3g}' for level in sorted(levels))} % of its peak, {peak:.3g}"
        else:
            lines = f"values {', '.join(f'{vmax * level:.3g}' for level in sorted(levels))}"
        text = _shortened(f"{finding['label']}: {lines}", font, picture.width - 5 * size)
        draw.line((size, y + row // 2, 3 * size, y + row // 2), fill=colour, width=_line(size))
        draw.text((round(3.5 * size), y + row // 2), text, fill="white", font=font, anchor="lm")
    return _stacked(picture, strip)


def _with_names(picture: Image.Image, left_out: Sequence[Mapping[str, Any]], size: int) -> Image.Image:
    """The picture above a strip of up to three lines that counts and names the findings not drawn."""
    font, row = _font(size), round(1.4 * size)
    room = picture.width - 2 * size
    count = "1 more finding is" if len(left_out) == 1 else f"{len(left_out)} more findings are"
    lines = [f"{count} present and not drawn:"]
    for place, finding in enumerate(left_out):
        name = _text_of(finding, font, room) + ("," if place < len(left_out) - 1 else "")
        if font.getlength(f"{lines[-1]} {name}") <= room:
            lines[-1] += f" {name}"
        elif len(lines) < 3:
            lines.append(name)
        else:
            lines[-1] = _shortened(f"{lines[-1]} {name}", font, room)
            break
    strip = Image.new("RGB", (picture.width, row * len(lines) + 2 * (size // 3)))
    draw = ImageDraw.Draw(strip)
    for rank, line in enumerate(lines):
        draw.text((size, size // 3 + rank * row), line, fill="white", font=font)
    return _stacked(picture, strip)


def _stacked(picture: Image.Image, strip: Image.Image) -> Image.Image:
    stacked = Image.new("RGB", (picture.width, picture.height + strip.height))
    stacked.paste(picture, (0, 0))
    stacked.paste(strip, (0, picture.height))
    return stacked
