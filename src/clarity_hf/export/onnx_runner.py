# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Findings, scores and boxes of an image from an exported ONNX model: numpy, onnxruntime and Pillow alone.

    python run.py image.png

prints what the pipeline `chest-xray-localization` returns, as JSON. [`export_model`] copies this file as `run.py`
beside `model.onnx` and `clarity.json`, where neither torch nor clarity_hf is. So it imports nothing of the package and
is the one file that repeats its logic: reading (`image_reading`), preprocessing (`image_processing_clarity`, with
torch's antialiased resize) and boxes (`boxes`). Its tests hold it to theirs.

For research; not a medical device.
"""

from __future__ import annotations

import argparse
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from PIL import Image, ImageOps, UnidentifiedImageError

FORMAT_VERSION = 1
"""Version of `clarity.json` that this file reads."""

SMALLEST_REGION = 0.05
"""Share of the largest region's mass of map below which a region is a speck and gets no box."""

FORMATS = ("PNG", "JPEG", "TIFF", "BMP")
MAX_PIXELS = 64_000_000
MAX_BYTES = 512_000_000
MAX_SCANS = 100
MAX_SEGMENTS = 10_000
MAX_PADDING = 1_000_000
MIN_SIDE = 16
BIT_DEPTHS = (8, 10, 12, 14, 16)
FLOAT_OVERSHOOT = 0.1
STRAY_SHARE = 0.01
FEW_SHARE, FEW = 1e-4, 4
FEW_GAP, SHARE_GAP, FAR = 1 / 8, 1 / 2, 8

MAX_UPSAMPLING = 64
SMALLEST, LARGEST = 1e-12, 1e12
"""Bounds of the numbers in `clarity.json` that must be above 0, or finite."""

SETTINGS = {
    "format_version",
    "format",
    "model",
    "findings",
    "score_thresholds",
    "map_thresholds",
    "box_components",
    "box_upsampling",
    "box_valleys",
    "size",
    "keep_ratio",
    "resample",
    "rescale_factor",
    "mean",
    "std",
}
"""What is read of `clarity.json`."""

_SEGMENT = re.compile(rb"\xff[\xc0-\xcf\xd9-\xfe]")  # of a JPEG


class OnnxRunner:
    """An exported model, ready to localize.

    Args:
        folder: What [`export_model`] wrote with `format="onnx"`.
        providers: Execution providers of onnxruntime, in the order of preference.

    Raises:
        FileNotFoundError: `folder` has no `clarity.json`.
        ImportError: onnxruntime is not installed.
        ValueError: The export is of another format or version, `clarity.json` is not that of the model, or one of its
            numbers is out of range.
    """

    def __init__(self, folder: str | os.PathLike, providers: Sequence[str] = ("CPUExecutionProvider",)):
        try:
            import onnxruntime
        except ImportError as error:
            raise ImportError("`onnxruntime` must be installed. Run pip install onnxruntime.") from error
        about = Path(folder) / "clarity.json"
        if not about.is_file():
            raise FileNotFoundError(f"`folder` must hold clarity.json, got {folder}. Pass the folder of an export.")
        self.settings: dict[str, Any] = json.loads(about.read_text(encoding="utf-8"))
        if not isinstance(self.settings, dict) or not self.settings.keys() >= SETTINGS:
            raise ValueError(f"`clarity.json` must have {sorted(SETTINGS)}, got others. Export the model again.")
        if self.settings["format_version"] != FORMAT_VERSION or self.settings["format"] != "onnx":
            got = f"{self.settings['format']}, version {self.settings['format_version']}"
            raise ValueError(f"`folder` must hold onnx, version {FORMAT_VERSION}, got {got}. Use its own run.py.")
        name = self.settings["model"]
        if not isinstance(name, str) or os.path.basename(name) != name or not name.endswith(".onnx"):
            raise ValueError(f"`model` of clarity.json must be an .onnx file beside it, got {name!r}. Correct it.")
        self.session = onnxruntime.InferenceSession(str(Path(folder) / name), providers=list(providers))
        self._check_sizes()
        self._check_numbers()

    def _check_sizes(self) -> None:
        """Refuse sizes that the model does not have, before images are resized to them."""
        size, times = self.settings["size"], self.settings["box_upsampling"]
        expected = list(self.session.get_inputs()[0].shape[2:])
        if [size["height"], size["width"]] != expected:
            raise ValueError(f"`size` of clarity.json must be the model's, {expected}, got {size}. Export it again.")
        if not isinstance(times, int) or not 1 <= times <= MAX_UPSAMPLING:
            raise ValueError(f"`box_upsampling` must be between 1 and {MAX_UPSAMPLING}, got {times}. Export it again.")

    def _check_numbers(self) -> None:
        """Refuse settings that make no sense, as the package does in its config and its image processor."""
        findings = self.settings["findings"]
        for name, low, high in (
            ("score_thresholds", 0.0, 1.0),
            ("map_thresholds", SMALLEST, 1 - SMALLEST),
            ("box_valleys", 0.0, 1.0),
            ("mean", -LARGEST, LARGEST),
            ("std", SMALLEST, LARGEST),
            ("rescale_factor", SMALLEST, LARGEST),
        ):
            given = self.settings[name]
            values = given if isinstance(given, list) else [given]
            numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
            if not numbers or not all(low <= value <= high for value in values):
                raise ValueError(f"`{name}` of clarity.json must be in [{low:g}, {high:g}], got {given}. Correct it.")
            if name.endswith(("thresholds", "valleys")) and len(values) != len(findings):
                raise ValueError(f"`{name}` of clarity.json must be one for each of {findings}, got {given}.")

    def __call__(self, image: str | os.PathLike) -> list[dict[str, Any]]:
        """Localize the findings of one image.

        Args:
            image: Path of a PNG, JPEG, TIFF or BMP file.

        Returns:
            One dict per finding, highest score first: `label`, `score` in [0, 1], `threshold`, `present`, and `boxes`,
            a list of `{"xmin", "ymin", "xmax", "ymax"}` in pixels of the image, right and bottom exclusive, empty for
            an absent finding.

        Raises:
            FileNotFoundError, ValueError: `image` is no image; the message says why.
        """
        pixels = read_radiograph(image)
        scores, maps = self.session.run(
            ["scores", "localization_maps"], {"pixel_values": prepare(pixels, self.settings)}
        )
        return findings_of(scores[0], maps[0], pixels.shape, self.settings)


def findings_of(scores: np.ndarray, maps: np.ndarray, image: Sequence[int], settings: dict[str, Any]) -> list[dict]:
    """Result of one image from the model's outputs.

    Args:
        scores: `(F,)` in [0, 1].
        maps: `(F, h, w)` values ≥ 0 on the patch grid.
        image: `(height, width)` of the image in pixels.
        settings: `clarity.json`.

    Returns:
        As [`OnnxRunner`] gives it.

    Raises:
        ValueError: A score is outside [0, 1], or a value of a map negative or not finite.
    """
    if not ((scores >= 0) & (scores <= 1)).all() or not (np.isfinite(maps) & (maps >= 0)).all():
        raise ValueError(f"`model` must give finite scores and maps, got others from {settings['model']}. Check it.")
    results = []
    for index in np.argsort(-scores, kind="stable"):
        score, threshold = float(scores[index]), float(settings["score_thresholds"][index])
        present = score >= threshold
        choice = settings["map_thresholds"][index], settings["box_valleys"][index]
        boxed = present and settings["findings"][index] not in settings.get("boxless_findings", ())
        boxes = boxes_of(maps[index], image, *choice, settings) if boxed else np.zeros(0)
        edges = boxes.astype(np.float32).tolist()
        results.append(
            {
                "label": settings["findings"][index],
                "score": score,
                "threshold": threshold,
                "present": present,
                "boxes": [dict(zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)) for box in edges],
            }
        )
    return results


# Reading: clarity_hf.image_reading


def read_radiograph(path: str | os.PathLike) -> np.ndarray:
    """Read one image.

    Args:
        path: A PNG, JPEG, TIFF or BMP file: grey of 8 or 16 bits, or colour of 8.

    Returns:
        `(H, W)` in [0, 255]: uint8 for 8-bit images, float32 for deeper ones, of which up to 1 % of the
        pixels, stray ones, may be clipped.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is no readable image of one frame, shows nothing, has a size out of bounds, or is one that
            Pillow does not read whole, such as colour of 16 bits. Nothing is decoded before its size is checked.
    """
    if not os.path.exists(path):
        raise FileNotFoundError(f"`image` must be a file, got nothing at {path}. Check the path.")
    if not os.path.isfile(path):
        raise ValueError(f"`image` must be a regular file, got {path}. Pass the image's own path.")
    if os.path.getsize(path) > MAX_BYTES:
        raise ValueError(f"`image` must have at most {MAX_BYTES} bytes, got {os.path.getsize(path)}. Reduce it.")
    with open(path, "rb") as file:
        if file.read(2) == b"\xff\xd8":
            file.seek(0)
            _check_scans(file.read())
    try:
        with Image.open(path, formats=FORMATS) as image:
            pixels = _read_pil(image)
    except UnidentifiedImageError as error:
        raise ValueError(f"`image` must be {', '.join(FORMATS)}, got {path}. Export it as a 16-bit PNG.") from error
    except (_Unfit, MemoryError):
        raise
    except Exception as error:  # broken files meet most of Python's inside Pillow
        raise ValueError(f"`image` must be a whole image, got {path} ({error}). Check the file.") from error
    if min(pixels.shape) < MIN_SIDE:
        raise ValueError(
            f"`image` must be at least {MIN_SIDE} pixels on each side, got {pixels.shape}. Pass it whole."
        )
    if pixels.min() == pixels.max():
        raise ValueError(f"`image` must show something, got {pixels.min()} in every pixel. Check the export.")
    if pixels.dtype.kind == "f" and _share(pixels > 1 + FLOAT_OVERSHOOT) <= STRAY_SHARE:
        raise ValueError("`image` must show something, got black in all but 1% of its pixels. Check its range.")
    return pixels


class _Unfit(ValueError):
    """An image that decodes and is refused, beside the ValueErrors of Pillow."""


def _check_scans(jpeg: bytes) -> None:
    """Refuse a JPEG of too many scans or segments, walked by their lengths to its end."""
    place, padding, segments, scans = 2, 0, 0, 0
    marker = None
    while marker != 0xD9 and place < len(jpeg):
        found = _SEGMENT.search(jpeg, place)
        start, marker = (found.start(), jpeg[found.end() - 1]) if found else (len(jpeg), None)
        padding += 0 if scans else start - place
        segments, scans = segments + 1, scans + (marker == 0xDA)
        if padding > MAX_PADDING:
            raise ValueError(f"`image` must have at most {MAX_PADDING} bytes of padding, got more. Save it again.")
        if scans > MAX_SCANS:
            raise ValueError(f"`image` must have at most {MAX_SCANS} scans, got more. Store the JPEG as baseline.")
        if segments > MAX_SEGMENTS:
            raise ValueError(f"`image` must have at most {MAX_SEGMENTS} segments, got more. Drop its metadata.")
        place = start + 2 + max(int.from_bytes(jpeg[start + 2 : start + 4]), 2)


def _read_pil(image: Image.Image) -> np.ndarray:
    if image.width * image.height > MAX_PIXELS:
        raise _Unfit(f"`image` must have at most {MAX_PIXELS} pixels, got {image.width}×{image.height}. Reduce it.")
    tags = getattr(image, "tag_v2", {})
    tile = int(tags.get(322, 0)) * int(tags.get(323, 0))  # decoded whole, however small the image
    if tile > MAX_PIXELS:
        raise _Unfit(f"`image` must have tiles of at most {MAX_PIXELS} pixels, got {tile}. Write it in strips.")
    if getattr(image, "is_animated", False):  # not `n_frames`: hours for some files
        raise _Unfit("`image` must be one image, got several frames. Pass them one by one.")
    if _is_rare(image):
        raise _Unfit("`image` must be of a kind that Pillow reads whole, got another. Convert it to 16-bit grey.")
    bits, white = (int(np.max(tags.get(258, 16))), tags.get(262, 1) == 0) if tags else (16, False)
    image.load()
    image = ImageOps.exif_transpose(image)
    if image.mode == "F" or image.mode.startswith("I"):
        pixels = _to_255(np.asarray(image), bits if 8 < bits < 16 else None)
        return pixels.dtype.type(255) - pixels if white else pixels
    if image.mode in ("LAB", "La"):
        raise _Unfit(f"`image` must be grey or colour, got PIL mode {image.mode}. Convert it to RGB.")
    if image.mode in ("RGBA", "LA", "PA", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image)
    return np.array(image.convert("L"))


def _is_rare(image: Image.Image) -> bool:
    """Whether Pillow would drop the low byte of an image, or misread its pixels."""
    if not hasattr(image, "tag_v2"):
        return any(";16" in str(tile.args) for tile in getattr(image, "tile", ())) and not image.mode.startswith("I")
    bits, kinds = (np.atleast_1d(image.tag_v2.get(tag, 1)) for tag in (258, 339))
    unsigned = bits.max() == 32 and kinds.max() == 1
    return bits.max() > 8 and (len(bits) > 1 or unsigned or not image.mode.startswith(("I", "F")))


def _to_255(array: np.ndarray, bits: int | None) -> np.ndarray:
    """Deep pixels to [0, 255]: by the declared bits, the smallest depth that holds all but strays, or as floats."""
    low, high = array.min(), array.max()
    if not np.isfinite(array).all():
        raise _Unfit("`image` must be finite, got NaN or infinity. Fill those pixels.")
    if array.dtype.kind == "f":
        limit = 1 if high <= 1 or _share(array > 1 + FLOAT_OVERSHOOT) <= STRAY_SHARE else 255
        margin = FLOAT_OVERSHOOT * limit
    else:
        limit, margin = 2 ** BIT_DEPTHS[-1] - 1, 0
    if _share((array < -margin) | (array > limit + margin)) > STRAY_SHARE:
        raise _Unfit(f"`image` must lie in [0, {limit}], got [{low}, {high}]. Apply the rescale slope.")
    if array.dtype.kind == "f":
        return (array.astype(np.float32) * np.float32(255 / limit)).clip(0, 255)
    array = array.clip(0, min(int(high), limit))  # bounds that its type holds: numpy 2.0 takes no others
    if bits is None:
        counts = np.bincount(array.ravel())
        values = np.flatnonzero(counts)
        brightest = high if high < 256 else _held_range(values.astype(float), counts[values])[1]
        bits = next(depth for depth in BIT_DEPTHS if brightest < 2**depth)
    array = array.clip(0, min(int(high), 2**bits - 1))
    return array.astype(np.uint8) if bits == 8 else array.astype(np.float32) * np.float32(255 / (2**bits - 1))


def _share(marked: np.ndarray) -> float:
    return np.count_nonzero(marked) / marked.size


def _held_range(values: np.ndarray, counts: np.ndarray) -> tuple[float, float]:
    """clarity_hf.grey_levels: darkest and brightest value, stray pixels aside."""
    kept = values <= _brightest(values, counts)
    low = -_brightest(-values[kept][::-1], counts[kept][::-1])
    kept = values >= low
    return low, _brightest(values[kept], counts[kept])


def _brightest(values: np.ndarray, counts: np.ndarray) -> float:
    above = counts.sum() - counts.cumsum()
    spread = values - values[0]
    gap = np.append(np.diff(values), np.inf)
    few, share = above <= max(FEW, FEW_SHARE * counts.sum()), above <= STRAY_SHARE * counts.sum()
    cut = (few & (gap >= FEW_GAP * spread)) | (share & (gap >= SHARE_GAP * spread))
    last = np.argmax(cut & (spread > 0)) if spread[-1] > 0 else 0
    far = share & (spread > 0) & (FAR * spread <= spread[last])
    return float(values[np.argmax(far) if far.any() else last])


# Preprocessing: clarity_hf.image_processing_clarity


def place(image: Sequence[int], settings: dict[str, Any]) -> tuple[int, int, int, int]:
    """Where an image of `(height, width)` lies in the model's input: top, left, height, width in pixels."""
    height, width = settings["size"]["height"], settings["size"]["width"]
    if not settings["keep_ratio"]:
        return 0, 0, height, width
    scale = min(height / image[0], width / image[1])
    inner = min(height, max(1, round(image[0] * scale))), min(width, max(1, round(image[1] * scale)))
    return (height - inner[0]) // 2, (width - inner[1]) // 2, *inner


def prepare(pixels: np.ndarray, settings: dict[str, Any]) -> np.ndarray:
    """Resize with antialiasing, centre on black, normalise, repeat to C channels.

    Args:
        pixels: `(H, W)` uint8 or float32 in [0, 255].
        settings: `clarity.json`.

    Returns:
        `(1, C, height, width)` float32.
    """
    top, left, height, width = place(pixels.shape, settings)
    cubic = settings["resample"] == "bicubic"
    pixels = _resize_rows(_resize_rows(pixels, width, cubic).T, height, cubic).T  # columns first, as torch does
    padded = np.zeros((settings["size"]["height"], settings["size"]["width"]), dtype=np.float32)
    padded[top : top + height, left : left + width] = pixels
    unit = np.float32(1 / settings["rescale_factor"])
    mean, std = (np.array(settings[name], dtype=np.float32)[:, None, None] * unit for name in ("mean", "std"))
    return ((padded - mean) / std)[None]


def _resize_rows(pixels: np.ndarray, size: int, cubic: bool) -> np.ndarray:
    """Resample every row `(n, length)` to `(n, size)` as torch's `interpolate(antialias=True)` does on a CPU.

    8-bit images go through torch's own fixed-point arithmetic (16-bit weights, rounded after either axis), so that
    they come out equal to the last bit; Pillow's resize differs by one grey level in some pixels.
    """
    length = pixels.shape[1]
    if length == size:
        return pixels
    first, weights = _filter(length, size, cubic)
    start: float = 0
    if pixels.dtype == np.uint8:
        bits = next((b for b in range(22) if int(0.5 + weights.max() * 2 ** (b + 1)) >= 2**15), 22)
        weights = np.trunc(weights * 2**bits + np.copysign(0.5, weights)).astype(np.int32)
        start = 1 << (bits - 1)
    total = np.full((len(pixels), size), start, dtype=weights.dtype)
    for tap in range(weights.shape[1]):
        total += pixels[:, np.minimum(first + tap, length - 1)] * weights[:, tap]  # beyond the row the weight is 0
    return np.clip(total >> bits, 0, 255).astype(np.uint8) if pixels.dtype == np.uint8 else total.astype(np.float32)


def _filter(length: int, size: int, cubic: bool) -> tuple[np.ndarray, np.ndarray]:
    """First pixel `(size,)` and weights `(size, taps)` of each output pixel: triangle or Keys' cubic, a = −0.5."""
    scale = length / size
    stretch = max(scale, 1.0)
    support = (2 if cubic else 1) * stretch
    centres = scale * (np.arange(size) + 0.5)
    first = np.maximum((centres - support + 0.5).astype(int), 0)
    taps = np.minimum((centres + support + 0.5).astype(int), length) - first
    place = np.arange(taps.max())
    x = np.abs((first[:, None] + place - centres[:, None] + 0.5) * (1 / stretch))
    if cubic:
        near, far = (1.5 * x - 2.5) * x * x + 1, -0.5 * (((x - 5) * x + 8) * x - 4)
        weights = np.where(x < 1, near, np.where(x < 2, far, 0.0))
    else:
        weights = np.maximum(1 - x, 0.0)
    weights[place >= taps[:, None]] = 0
    return first, weights / weights.sum(axis=1, keepdims=True)


# Boxes: clarity_hf.boxes


def boxes_of(
    localization_map: np.ndarray, image: Sequence[int], threshold: float, valley: float, settings: dict[str, Any]
) -> np.ndarray:
    """Boxes around the regions of a map above a share of its peak.

    Args:
        localization_map: `(h, w)` values ≥ 0 on the patch grid.
        image: `(height, width)` of the image in pixels.
        threshold: Share of the map's peak over the image, in (0, 1).
        valley: Share of the lower of two peaks, in [0, 1], under which the map falls where a region is divided.
        settings: `clarity.json`.

    Returns:
        `(n, 4)` xyxy in pixels of the image, right and bottom exclusive; by mass of map, the largest alone where
        `box_components` says so.
    """
    top, left, height, width = place(image, settings)
    grid, times = localization_map.astype(np.float32), settings["box_upsampling"]
    values = _upsampling(grid.shape[0], times) @ grid @ _upsampling(grid.shape[1], times).T
    size = np.array([settings["size"]["height"], settings["size"]["width"]])
    for cells in (values, grid):
        y, x = ((np.arange(count) + 0.5) * side / count for count, side in zip(cells.shape, size, strict=True))
        cells[(y < top) | (y > top + height)] = 0  # what lies over the padding
        cells[:, (x < left) | (x > left + width)] = 0
    cell = size / values.shape
    level = threshold * max(0.0, float(values.max()))
    parts = np.kron(_divided(grid, level, valley), np.ones((times, times), dtype=int))
    found = _regions(values, level, parts)
    if settings["box_components"] == "largest":
        found = found[:1]
    boxes = np.array(found, dtype=np.float64).reshape(-1, 4) * np.tile(cell[::-1], 2)
    scale = np.tile([width / image[1], height / image[0]], 2)
    boxes = np.clip((boxes - [left, top, left, top]) / scale, 0.0, [image[1], image[0], image[1], image[0]])
    return boxes[(boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])]


def _upsampling(length: int, factor: int) -> np.ndarray:
    """Weights `(length * factor, length)` float32 of bilinear upsampling, pixel centres aligned."""
    centres = np.clip((np.arange(length * factor) + 0.5) / factor - 0.5, 0, length - 1)
    low = np.floor(centres).astype(int)
    weights = np.zeros((length * factor, length), dtype=np.float32)
    rows = np.arange(length * factor)
    np.add.at(weights, (rows, low), 1 - (centres - low))
    np.add.at(weights, (rows, np.minimum(low + 1, length - 1)), centres - low)
    return weights


def _divided(grid: np.ndarray, level: float, valley: float) -> np.ndarray:
    """Parts `(h, w)` of a map around its peaks, divided where it falls under a share of the lower of two peaks."""
    wide = grid.shape[1] + 2  # one cell of rim all around, which no flood enters
    padded = np.pad(grid, 1)
    values = padded.ravel().tolist()
    around = [row * wide + column for row in (-1, 0, 1) for column in (-1, 0, 1) if row or column]
    rows, columns = np.nonzero(sliding_window_view(padded, (3, 3)).max((2, 3)) > level)  # no region gets elsewhere
    places = (rows + 1) * wide + columns + 1
    parts = [-1] * len(values)
    merged: list[int] = []  # of each part, the part that it has become a part of
    peaks: list[float] = []
    for cell in places[np.argsort(-grid[rows, columns], kind="stable")].tolist():
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


def _root(parents: Sequence[int], part: int) -> int:
    while parents[part] != part:
        part = parents[part]
    return part


def _regions(values: np.ndarray, level: float, parts: np.ndarray) -> list[tuple[int, int, int, int]]:
    """Extents (x0, y0, x1, y1), in cells, of the regions above a level, the largest mass first, without specks.

    Runs of cells in each row are joined with those that they touch in the row above, by corners too (union-find);
    then regions are divided between parts.
    """
    runs: list[tuple[int, int, int]] = []
    parents: list[int] = []
    above: list[int] = []
    for row, line in enumerate(values > level):
        edges = np.flatnonzero(np.diff(line.astype(np.int8), prepend=0, append=0)).tolist()
        here = []
        for start, stop in zip(edges[::2], edges[1::2], strict=True):
            here.append(len(runs))
            parents.append(len(runs))
            runs.append((row, start, stop))
            for other in above:
                if runs[other][1] <= stop and start <= runs[other][2]:
                    low, high = sorted((_root(parents, other), _root(parents, here[-1])))
                    parents[high] = low
        above = here
    regions = np.full(values.shape, -1)
    for index, (row, start, stop) in enumerate(runs):
        regions[row, start:stop] = _root(parents, index)
    marked = regions >= 0
    pairs = regions[marked] * (parts.max() + 1) + parts[marked]
    rows, columns = np.nonzero(marked)
    found = []
    for pair in np.unique(pairs).tolist():
        here_too = pairs == pair
        y, x, mass = rows[here_too], columns[here_too], values[marked][here_too].sum(dtype=np.float64)
        found.append((mass, (int(x.min()), int(y.min()), int(x.max()) + 1, int(y.max()) + 1)))
    found.sort(key=lambda item: -item[0])
    return [box for mass, box in found if mass >= SMALLEST_REGION * found[0][0]]


def main(arguments: Sequence[str] | None = None) -> None:
    """Localize one image and print JSON."""
    parser = argparse.ArgumentParser(description="Findings, scores and boxes of a chest radiograph, as JSON.")
    parser.add_argument("image", help="PNG, JPEG, TIFF or BMP file")
    parser.add_argument("--folder", default=Path(__file__).parent, help="of the export; by default this file's")
    parsed = parser.parse_args(arguments)
    try:
        print(json.dumps(OnnxRunner(parsed.folder)(parsed.image), indent=2, allow_nan=False))
    except (ImportError, OSError, ValueError) as error:
        parser.exit(1, f"error: {error}\n")


if __name__ == "__main__":
    main()
