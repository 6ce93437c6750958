# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Geometry in numpy: frames, boxes from maps, overlaps.

Every box is `(x0, y0, x1, y1)`, float, in pixels of the **original image**, origin at its top left corner, right and
bottom exclusive: the box of a complete image of width W and height H is `(0, 0, W, H)`, and pixel (row 0, column 0)
covers `(0, 0, 1, 1)`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from scipy import ndimage

BOX_FRAME = 1024
"""Side, in pixels, of the frame of the NIH release's box files, whatever the image size on disk."""

SMALLEST_REGION = 0.05
"""A region with less than this share of the largest region's mass (sum of map values) is a speck and gets no box."""


@dataclass(frozen=True)
class Letterbox:
    """Position of an image in the model's input: resized to `content`, placed at (`top`, `left`), padded with black.

    All numbers are pixels; sizes are `(height, width)`. The content has integer sides, so the two scales may differ by
    a fraction of a percent; both directions use the exact scales, so a round trip is exact.

    Attributes:
        image: Size of the original image.
        input: Size of the model's input.
        content: Size of the image inside the input.
        top: Black rows above the content.
        left: Black columns left of the content.
    """

    image: tuple[int, int]
    input: tuple[int, int]
    content: tuple[int, int]
    top: int
    left: int

    @classmethod
    def fit(cls, image: Sequence[int], input: Sequence[int], keep_ratio: bool = True) -> Letterbox:
        """Place an image in the model's input.

        Args:
            image: Size `(height, width)` of the original image.
            input: Size `(height, width)` of the model's input.
            keep_ratio: Whether to keep the aspect ratio and pad, which preserves the cardiothoracic ratio; otherwise
                the image is stretched to the input.

        Raises:
            ValueError: A side is under one pixel.
        """
        image, input = (image[0], image[1]), (input[0], input[1])
        for name, size in (("image", image), ("input", input)):
            if min(size) < 1:
                raise ValueError(
                    f"`{name}` must be (height, width) of at least 1 pixel, got {size}."
                )
        if not keep_ratio:
            return cls(image, input, input, 0, 0)
        scale = min(input[0] / image[0], input[1] / image[1])
        height = min(input[0], max(1, round(image[0] * scale)))
        width = min(input[1], max(1, round(image[1] * scale)))
        return cls(image, input, (height, width), (input[0] - height) // 2, (input[1] - width) // 2)

    def to_input(self, boxes: np.ndarray) -> np.ndarray:
        """Convert boxes from the original image to the model's input.

        Args:
            boxes: `(..., 4)` xyxy in pixels of the original image.

        Returns:
            `(..., 4)` float64 xyxy in pixels of the model's input.
        """
        return np.asarray(boxes, dtype=np.float64) * self._scale + self._offset

    def to_image(self, boxes: np.ndarray) -> np.ndarray:
        """Convert boxes from the model's input to the original image; the inverse of `to_input`.

        Args:
            boxes: `(..., 4)` xyxy in pixels of the model's input.

        Returns:
            `(..., 4)` float64 xyxy in pixels of the original image, clipped to it.
        """
        boxes = (np.asarray(boxes, dtype=np.float64) - self._offset) / self._scale
        height, width = self.image
        return np.clip(boxes, 0.0, np.array([width, height, width, height], dtype=np.float64))

    @property
    def _scale(self) -> np.ndarray:
        x, y = self.content[1] / self.image[1], self.content[0] / self.image[0]
        return np.array([x, y, x, y])

    @property
    def _offset(self) -> np.ndarray:
        return np.array([self.left, self.top, self.left, self.top], dtype=np.float64)


@lru_cache(maxsize=32)
def bilinear_matrix(length: int, factor: int) -> np.ndarray:
    """Weights that upsample a row of `length` values by an integer `factor`, with aligned pixel centres.

    Equal to `torch.nn.functional.interpolate(mode="bilinear", align_corners=False)` along one axis.

    Returns:
        `(length * factor, length)` float32, read only.
    """
    centres = np.clip((np.arange(length * factor) + 0.5) / factor - 0.5, 0, length - 1)
    low = np.floor(centres).astype(int)
    high = np.minimum(low + 1, length - 1)
    weights = np.zeros((length * factor, length), dtype=np.float32)
    rows = np.arange(length * factor)
    np.add.at(weights, (rows, low), 1 - (centres - low))
    np.add.at(weights, (rows, high), centres - low)
    weights.setflags(write=False)
    return weights


def map_over_image(maps: np.ndarray, letterbox: Letterbox, size: tuple[int, int]) -> np.ndarray:
    """Sample maps bilinearly on a grid over the image, without the padding.

    Args:
        maps: `(..., h, w)` on a grid over the complete input.
        letterbox: Position of the image in that input.
        size: `(H', W')` of the grid over the image, such as the image's own size.

    Returns:
        `(..., H', W')` float64 in the maps' own unit.
    """
    rows = image_weights(maps.shape[-2], letterbox, size[0], 0)
    columns = image_weights(maps.shape[-1], letterbox, size[1], 1)
    return rows @ np.asarray(maps, dtype=np.float64) @ columns.T


def image_weights(cells: int, letterbox: Letterbox, length: int, axis: int) -> np.ndarray:
    """Weights that sample a map bilinearly along one axis at the centres of pixels over the image.

    Args:
        cells: Cells of the map along the axis, over the complete input.
        letterbox: Position of the image in that input.
        length: Pixels over the image along the axis.
        axis: 0 for rows, 1 for columns.

    Returns:
        `(length, cells)` float64; rows sum to 1.
    """
    start = (letterbox.top, letterbox.left)[axis]
    places = start + (np.arange(length) + 0.5) / length * letterbox.content[axis]  # pixels of the input
    centres = np.clip(places / letterbox.input[axis] * cells - 0.5, 0, cells - 1)
    low = np.floor(centres).astype(int)
    weights = np.zeros((length, cells))
    rows = np.arange(length)
    np.add.at(weights, (rows, low), 1 - (centres - low))
    np.add.at(weights, (rows, np.minimum(low + 1, cells - 1)), centres - low)
    return weights


def divided_map(grid: np.ndarray, level: float, valley: float) -> np.ndarray:
    """Split a map between its peaks by a watershed that merges peaks of low relative prominence.

    The map is flooded from its highest cell down; each cell joins the basin of its highest neighbour. Where two basins
    meet, at a saddle point, they merge if the saddle reaches `valley` times the lower peak, so a basin stays separate
    if its peak has a prominence (peak − saddle) of more than (1 − `valley`) of its height.

    Args:
        grid: `(h, w)` values ≥ 0.
        level: In the map's own unit; cells up to it have no peaks and are flooded only next to higher ones.
        valley: Share of the lower peak, in [0, 1], below which the saddle must lie; 0 splits nothing.

    Returns:
        `(h, w)` int, one number per basin, not consecutive; 0, the highest basin's number, also outside all regions.

    Source: watersheds (Beucher and Lantuéjoul 1979) with dynamics (Grimaud 1992), also called prominence, relative to
    the peak.
    """
    wide = grid.shape[1] + 2  # a border of one cell on each side, which is never flooded
    values = np.pad(grid, 1).ravel().tolist()
    near_level = ndimage.maximum_filter(grid, 3) > level  # regions cannot reach other cells
    places = (np.flatnonzero(near_level) // grid.shape[1] + 1) * wide + np.flatnonzero(near_level) % grid.shape[1] + 1
    around = [row * wide + column for row in (-1, 0, 1) for column in (-1, 0, 1) if row or column]
    parts = [-1] * len(values)
    merged: list[int] = []  # for each basin, the basin it has been merged into
    peaks: list[float] = []  # descending: of two basins, the one with the smaller number has the higher peak
    for cell in places[np.argsort(-grid[near_level], kind="stable")].tolist():
        near = [place for step in around if parts[place := cell + step] >= 0]
        if not near:
            parts[cell] = len(merged)
            merged.append(len(merged))
            peaks.append(values[cell])
            continue
        parts[cell] = merged[parts[max(near, key=values.__getitem__)]]
        meeting = {merged[parts[place]] for place in near}
        if len(meeting) == 1:
            continue
        highest, *others = sorted(meeting)
        joined = {lower for lower in others if values[cell] >= valley * peaks[lower]}
        if joined:
            merged = [highest if part in joined else part for part in merged]
    numbers = np.zeros(len(values), dtype=int)
    numbers[places] = [merged[parts[cell]] for cell in places.tolist()]
    return numbers.reshape(-1, wide)[1:-1, 1:-1]


def _over_image(shape: tuple[int, ...], letterbox: Letterbox) -> np.ndarray:
    """Boolean `(h, w)`: cells of a grid over the model's input whose centre lies over the image."""
    inside = np.ones(shape, dtype=bool)
    for axis, (before, content) in enumerate(
        [(letterbox.top, letterbox.content[0]), (letterbox.left, letterbox.content[1])]
    ):
        centres = (np.arange(shape[axis]) + 0.5) * (letterbox.input[axis] / shape[axis])
        np.moveaxis(inside, axis, 0)[(centres < before) | (centres > before + content)] = False
    return inside


@dataclass(frozen=True, eq=False)
class UpsampledMap:
    """A localization map on its working grid, from which boxes at many levels can be computed.

    Attributes:
        values: `(h · upsampling, w · upsampling)` float32 over the model's input, 0 over the padding.
        inside: Boolean, same shape: cells whose centre lies over the image.
        letterbox: Position of the image in the model's input.
        grid: `(h, w)` float32, the map itself, 0 where a patch's centre lies over the padding.
    """

    values: np.ndarray
    inside: np.ndarray
    letterbox: Letterbox
    grid: np.ndarray

    @classmethod
    def of(cls, localization_map: np.ndarray, letterbox: Letterbox, upsampling: int = 8) -> UpsampledMap:
        """Upsample a map bilinearly and set the padding to 0.

        Args:
            localization_map: `(h, w)` values ≥ 0 on the patch grid over the model's input.
            letterbox: Position of the image in the model's input.
            upsampling: Integer factor from the patch grid to the working grid.

        Raises:
            ValueError: The map is not 2-D or not finite.
        """
        grid = np.asarray(localization_map, dtype=np.float32)
        if grid.ndim != 2 or not np.isfinite(grid).all():
            raise ValueError(f"`localization_map` must be (h, w) finite values, got shape {grid.shape}. Pass one map.")
        values = bilinear_matrix(grid.shape[0], upsampling) @ grid @ bilinear_matrix(grid.shape[1], upsampling).T
        inside = _over_image(values.shape, letterbox)
        values[~inside] = 0
        return cls(values, inside, letterbox, np.where(_over_image(grid.shape, letterbox), grid, 0))

    @property
    def peak(self) -> float:
        """The largest value over the image, at least 0."""
        return max(0.0, float(self.values.max()))

    def boxes(
        self,
        level: float,
        components: Literal["largest", "all"] = "largest",
        valley: float = 0.0,
        smallest: float = SMALLEST_REGION,
    ) -> np.ndarray:
        """Boxes around the regions above a level.

        Args:
            level: In the map's own unit, ≥ 0; a cell belongs to a region if its value is larger.
            components: `"largest"` keeps the region with the largest mass (sum of map values), `"all"` every region
                that is not a speck, by descending mass.
            valley: Share in [0, 1]: a connected region is split between two peaks if the map falls below this share of
                the lower one between them ([`divided_map`]); 0 splits nothing.
            smallest: Share of the largest region's mass below which a region is a speck.

        Returns:
            `(n, 4)` float64 xyxy in pixels of the original image, right and bottom exclusive.

        Raises:
            ValueError: `components` is unknown, or `valley` is outside [0, 1].
        """
        if components not in ("largest", "all"):
            raise ValueError(f"`components` must be 'largest' or 'all', got '{components}'. Choose one of them.")
        if not 0 <= valley <= 1:
            raise ValueError(f"`valley` must be in [0, 1], got {valley}. Pass 0 to split nothing.")
        regions, count = ndimage.label(self.values > level, structure=np.ones((3, 3)))
        if count == 0:
            return np.zeros((0, 4))
        if valley and self._peaks_above(level) > 1:
            regions, count = self._divided(regions, level, valley)
        mass = ndimage.sum_labels(self.values, regions, np.arange(1, count + 1))
        order = np.argsort(-mass, kind="stable")
        order = order[:1] if components == "largest" else order[mass[order] >= smallest * mass.max()]
        return self._boxes_of(regions, order)

    def whole_regions(self, level: float) -> np.ndarray:
        """Boxes of all connected regions above a level, unsplit, including specks.

        Args:
            level: In the map's own unit, of either sign; a cell belongs to a region if its value is larger.

        Returns:
            `(n, 4)` float64 xyxy in pixels of the original image, the region with the most cells first.
        """
        regions, _ = ndimage.label((self.values > level) & self.inside, structure=np.ones((3, 3)))
        return self._boxes_of(regions, np.argsort(-np.bincount(regions.ravel())[1:], kind="stable"))

    def _boxes_of(self, regions: np.ndarray, order: np.ndarray) -> np.ndarray:
        """Boxes `(n, 4)` of numbered regions, in the order of `order` (numbers minus 1), in pixels of the image."""
        slices = ndimage.find_objects(regions)
        height, width = (size / cells for size, cells in zip(self.letterbox.input, self.values.shape, strict=True))
        found = np.array(
            [
                (columns.start * width, rows.start * height, columns.stop * width, rows.stop * height)
                for rows, columns in (slices[i] for i in order)
            ]
        )
        boxes = self.letterbox.to_image(found.reshape(-1, 4))
        return boxes[(boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])]

    def _peaks_above(self, level: float) -> int:
        """Number of cells above the level that no neighbour exceeds, an upper bound of the number of peaks."""
        return int(((ndimage.maximum_filter(self.grid, 3) == self.grid) & (self.grid > level)).sum())

    def _divided(self, regions: np.ndarray, level: float, valley: float) -> tuple[np.ndarray, int]:
        """Regions `(rows, columns)` after splitting, renumbered from 1, and their number."""
        times = self.values.shape[0] // self.grid.shape[0]
        parts = divided_map(self.grid, level, valley).repeat(times, 0).repeat(times, 1)
        pairs = np.where(regions > 0, regions * (parts.max() + 1) + parts, 0)
        present = np.bincount(pairs.ravel()) > 0
        present[0] = False  # outside all regions
        numbers = np.cumsum(present) * present
        return numbers[pairs], int(present.sum())

    def edges(self) -> tuple[np.ndarray, np.ndarray]:
        """Edges of the cells, x `(columns + 1,)` and y `(rows + 1,)`, in pixels of the image and clipped to it."""
        rows, columns = self.values.shape
        x = np.linspace(0, self.letterbox.input[1], columns + 1)
        y = np.linspace(0, self.letterbox.input[0], rows + 1)
        nowhere = np.zeros(1)
        return (
            self.letterbox.to_image(np.stack(np.broadcast_arrays(x, nowhere, x, nowhere), axis=-1))[:, 0],
            self.letterbox.to_image(np.stack(np.broadcast_arrays(nowhere, y, nowhere, y), axis=-1))[:, 1],
        )


def boxes_from_map(
    localization_map: np.ndarray,
    letterbox: Letterbox,
    threshold: float,
    components: Literal["largest", "all"] = "largest",
    upsampling: int = 8,
    valley: float = 0.0,
) -> np.ndarray:
    """Boxes around the regions of a localization map above a share of its peak.

    The map is upsampled bilinearly before thresholding, because on the 14×14 grid itself the best box of complete
    patches overlaps a nodule by IoU > .5 in only one case of four. The padding is ignored.

    Args:
        localization_map: `(h, w)` values ≥ 0 on the patch grid over the model's input.
        letterbox: Position of the image in the model's input.
        threshold: Share of the map's own peak, in (0, 1), above which a pixel belongs to the finding.
        components: `"largest"` keeps the region with the largest mass (sum of map values), `"all"` every region with
            at least `SMALLEST_REGION` of its mass, by descending mass.
        upsampling: Integer factor from the patch grid to the working grid.
        valley: Where to split regions with several peaks, see [`UpsampledMap.boxes`]; 0 splits nothing.

    Returns:
        `(n, 4)` float64 xyxy in pixels of the original image, right and bottom exclusive; `(0, 4)` for a map of zeros.

    Raises:
        ValueError: The map is not 2-D or has NaN, `threshold` is outside (0, 1), `valley` outside [0, 1], or
            `components` is unknown.
    """
    if not 0 < threshold < 1:
        raise ValueError(f"`threshold` must be inside (0, 1), got {threshold}. Pass a share of the map's peak.")
    working = UpsampledMap.of(localization_map, letterbox, upsampling)
    return working.boxes(threshold * working.peak, components, valley)


def box_iou(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Intersection over union of every pair.

    Args:
        boxes: `(n, 4)` xyxy.
        others: `(m, 4)` xyxy in the same frame.

    Returns:
        `(n, m)` float64 in [0, 1]; 0 for a pair without area.
    """
    boxes, others = np.asarray(boxes, dtype=np.float64), np.asarray(others, dtype=np.float64)
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    intersection = np.prod(np.clip(high - low, 0, None), axis=-1)
    union = box_area(boxes)[:, None] + box_area(others)[None] - intersection
    return np.divide(intersection, union, out=np.zeros_like(intersection), where=union > 0)


def box_area(boxes: np.ndarray) -> np.ndarray:
    """Areas of boxes.

    Args:
        boxes: `(..., 4)` xyxy.

    Returns:
        `(...)` float64 in square pixels of the boxes' frame; 0 for an inverted box.
    """
    sides = np.asarray(boxes, dtype=np.float64)
    return np.clip(sides[..., 2] - sides[..., 0], 0, None) * np.clip(sides[..., 3] - sides[..., 1], 0, None)
