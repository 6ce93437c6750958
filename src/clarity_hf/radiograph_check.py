# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Check that an image is a whole, upright frontal chest radiograph with bright bones, as the model expects.

A small convolutional network (36,000 weights, input 64 × 64) fitted by `benchmarks/fit_radiograph_check.py`. It guards
against wrong files and does not judge quality; `docs/radiograph-check.md` has its error rates. The network does not
see exposure, so nearly black, nearly white and flat images are detected by their grey levels.

The weights are the package data `radiograph_check.safetensors`, verified against [`SHA256`] and read on first use. If
they are missing from the installed package, that is an error. A copy of this file next to a published model has no
weights: [`is_available`] then returns False, and the pipeline does not check.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from scipy.special import softmax

WEIGHTS = Path(__file__).with_name("radiograph_check.safetensors")
"""The fitted weights; the file's metadata contain the threshold."""

SHA256 = "3fdb4f26d6cfdfc8d8f8701809af544be44d7be71e2b6482f8d62f29e3c279b4"
"""Hash of that file, printed by `benchmarks/fit_radiograph_check.py`. Weights with a different hash are refused."""

SIDE = 64
"""Side of the network's square input, in pixels."""

CONVOLUTIONS = (("conv1", 2, 2), ("conv2", 2, 1), ("conv3", 2, 1), ("conv4", 1, 1))
"""Name, stride and padding of each convolution."""

MARGIN_SHARE, MARGIN_TOLERANCE = 0.95, 0.05
"""A row or column is margin if this share of it is uniform to within this share of the image's range."""

MODES = ("warn", "refuse", "off")
"""What to do with an image that does not pass."""

KINDS: Mapping[str, str] = {
    "frontal": "a whole, upright frontal chest radiograph with bright bones",
    "picture": "something other than a radiograph",
    "turned": "a radiograph that is rotated, upside down or strongly tilted",
    "inverted": "a radiograph with dark bones",
    "part": "a cropped radiograph without the whole thorax",
    "view": "a lateral radiograph or another part of the body",
}
"""The network's classes, in order, and their descriptions in errors and warnings."""

EXPOSURE = "an image that is nearly black, nearly white or without contrast"
"""Description of the kind `exposure`, which is not a class of the network."""

BLACK, WHITE = 8, 247
"""Grey levels, of 255, up to which a pixel counts as black and from which it counts as white."""

MOST_WHITE, LEAST_GREY = 0.4, 0.25
"""Largest share of white pixels, and smallest share of pixels between black and white. None of 1,381 NIH images has
more than 0.20 or less than 0.66; a black canvas may fill more than half of an image."""

LEAST_CONTRAST, DARKEST, BRIGHTEST = 16, 40, 215
"""For pixels between black and white: smallest distance between the 5 % and 95 % quantiles, smallest 95 % quantile and
largest 5 % quantile, in grey levels of 255."""

_INSTALLED = __package__ == "clarity_hf"  # not a copy next to a published model
_REMEDY = "Reinstall clarity_hf." if _INSTALLED else "Run pip install clarity_hf and use its own pipeline."
_MARGINS = 2  # nested, such as a black slide on a white page; more would cut into images with dark edges
_SAMPLED = 4 * SIDE  # the shorter side keeps at least this many pixels when subsampled for speed


@dataclass(frozen=True)
class RadiographVerdict:
    """Result of the check for one image.

    Attributes:
        probability: Probability in [0, 1] that this is a whole, upright frontal chest radiograph with bright bones;
            fitted on equal shares of such images and of others, so it does not include their prevalence.
        threshold: Probability in [0, 1] from which an image passes.
        kind: Key of `KINDS`: `frontal` if the image passes, otherwise the most probable other class; or `exposure`,
            with probability 0.
    """

    probability: float
    threshold: float
    kind: str

    @property
    def passed(self) -> bool:
        """Whether the image passes as a frontal chest radiograph."""
        return self.kind == "frontal"

    @property
    def reason(self) -> str:
        """Description of what the image looks like."""
        return EXPOSURE if self.kind == "exposure" else KINDS[self.kind]

    def message(self, name: str = "image") -> str:
        """Text of an error or a warning about an image of some name that does not pass."""
        return (
            f"`{name}` does not look like a frontal chest radiograph (p = {self.probability:.3f}, threshold "
            f"{self.threshold:g}): it looks like {self.reason}. Check the image, or pass radiograph_check='off'."
        )


class NotARadiographWarning(UserWarning):
    """An image that does not look like a frontal chest radiograph was localized anyway."""


def check_mode(mode: str) -> None:
    """Raise an error if a mode is not one of `MODES` or cannot be used here.

    Raises:
        OSError: The mode requires the check, and the installed package's weights are missing or modified.
        ValueError: The mode is unknown, or requires the check next to a published model, which has no weights.
    """
    if mode not in MODES:
        raise ValueError(f"`radiograph_check` must be one of {', '.join(MODES)}, got {mode!r}. Choose one of them.")
    if mode != "off" and not is_available():
        raise ValueError(
            f"`radiograph_check` must be 'off' without {WEIGHTS.name} next to the code, got {mode!r}. Run pip install "
            "clarity_hf and use its own pipeline."
        )
    if mode != "off":
        _fitted()


def is_available() -> bool:
    """Whether images can be checked: always in the installed package; in a copy, if the weights are next to it."""
    return _INSTALLED or WEIGHTS.is_file()


def check_radiograph(pixels: np.ndarray) -> RadiographVerdict:
    """Check one image; equal pixels always give equal verdicts.

    Args:
        pixels: `(H, W)` in [0, 255], as returned by [`read_image`].

    Raises:
        OSError: The weights are missing or modified.
        ValueError: `pixels` is not 2-D.
    """
    weights, threshold = _fitted()
    content = pixels[content_of(pixels)]
    verdict = verdict_of(classify(_reduced(content), weights).tolist(), threshold)
    if verdict.passed and is_badly_exposed(content):
        return RadiographVerdict(0.0, threshold, "exposure")
    return verdict


def is_badly_exposed(pixels: np.ndarray) -> bool:
    """Whether an image `(H, W)` in [0, 255] without its margins is nearly black, nearly white or without contrast."""
    content, _ = _thinned(pixels)
    grey = content[(content > BLACK) & (content < WHITE)]
    if (content >= WHITE).mean() > MOST_WHITE or grey.size < LEAST_GREY * content.size:
        return True
    low, high = np.quantile(grey, (0.05, 0.95))
    return bool(high - low < LEAST_CONTRAST or high < DARKEST or low > BRIGHTEST)


def verdict_of(probabilities: list[float], threshold: float) -> RadiographVerdict:
    """Verdict from class probabilities in the order of `KINDS` and the probability from which an image passes."""
    kinds = list(KINDS)
    others = max(range(1, len(kinds)), key=lambda index: probabilities[index])
    return RadiographVerdict(probabilities[0], threshold, kinds[0 if probabilities[0] >= threshold else others])


def prepare(pixels: np.ndarray) -> np.ndarray:
    """Prepare an image `(H, W)` of any range for the network.

    Returns:
        `(1, SIDE, SIDE)` float32: the image without its margins, resized by area averaging with its aspect ratio kept,
        centred, padded with 0, normalised to mean 0 and standard deviation 1.
    """
    return _reduced(pixels[content_of(pixels)])


def _reduced(content: np.ndarray) -> np.ndarray:
    longer = max(content.shape)
    height, width = (max(1, round(SIDE * side / longer)) for side in content.shape)
    thinned, _ = _thinned(content)
    reduced = _area_means(_area_means(thinned, height).T, width).T
    reduced = (reduced - reduced.mean()) / max(reduced.std(), 1e-3)
    top, left = (SIDE - height) // 2, (SIDE - width) // 2
    return np.pad(reduced, ((top, SIDE - height - top), (left, SIDE - width - left)))[None].astype(np.float32)


def _area_means(values: np.ndarray, count: int) -> np.ndarray:
    """Reduce the rows of `values (n, m)` to `(count, m)`: each is the mean of the rows that it overlaps."""
    cells = np.arange(count)
    starts, stops = cells * len(values) // count, -(-(cells + 1) * len(values) // count)
    sums = np.concatenate([np.zeros((1, values.shape[1])), np.cumsum(values, axis=0, dtype=np.float64)])
    return (sums[stops] - sums[starts]) / (stops - starts)[:, None]


def content_of(pixels: np.ndarray) -> tuple[slice, slice]:
    """Find the part of an image inside the uniform margins of a screen, a slide or a scanned page.

    A row or column at an edge is margin if `MARGIN_SHARE` of it lies within `MARGIN_TOLERANCE` of the image's range
    around the median of the outermost one: black, white or grey, possibly with noise and a few letters.

    Args:
        pixels: `(H, W)`, any range.

    Returns:
        Rows and columns; all of them if nothing would be left, as in an image with a single value.

    Raises:
        ValueError: `pixels` is not 2-D.
    """
    if pixels.ndim != 2:
        raise ValueError(f"`pixels` must be (H, W), got shape {pixels.shape}. Read the image with read_image.")
    thinned, step = _thinned(pixels)
    tolerance = MARGIN_TOLERANCE * float(np.ptp(thinned))
    rows, columns = slice(0, thinned.shape[0]), slice(0, thinned.shape[1])
    for _ in range(_MARGINS):
        before = rows, columns
        columns = _without_margins(thinned[rows, columns].T, columns.start, tolerance)
        rows = _without_margins(thinned[rows, columns], rows.start, tolerance)
        if (rows, columns) == before:
            break
    if rows.start >= rows.stop or columns.start >= columns.stop:
        return slice(0, pixels.shape[0]), slice(0, pixels.shape[1])
    # The last row of a subsampled image represents all rows after it.
    ends = (
        side if part.stop == thin else part.stop * step
        for part, thin, side in zip((rows, columns), thinned.shape, pixels.shape, strict=True)
    )
    return slice(rows.start * step, next(ends)), slice(columns.start * step, next(ends))


def _without_margins(lines: np.ndarray, offset: int, tolerance: float) -> slice:
    """Range of the lines `(N, M)` between the margins, counted from `offset`; empty if all are margin."""
    ends = []
    for ordered in (lines, lines[::-1]):
        level = np.median(ordered[0]) if ordered.size else 0.0
        shares = (np.abs(ordered - level) <= tolerance).mean(1) if ordered.size else np.ones(len(ordered))
        inside = np.flatnonzero(shares < MARGIN_SHARE)
        ends.append(int(inside[0]) if len(inside) else len(lines))
    return slice(offset + ends[0], offset + max(ends[0], len(lines) - ends[1]))


def _thinned(pixels: np.ndarray) -> tuple[np.ndarray, int]:
    """Subsample an image, as float32, so that the shorter side keeps at least `_SAMPLED` pixels; also the step."""
    step = max(1, min(pixels.shape) // _SAMPLED)
    return np.ascontiguousarray(pixels[::step, ::step], dtype=np.float32), step


def classify(image: np.ndarray, weights: Mapping[str, np.ndarray]) -> np.ndarray:
    """Run the network: four convolutions, average pooling to 4 × 4, and two linear layers.

    Args:
        image: `(1, SIDE, SIDE)`, from [`prepare`].
        weights: `conv1.weight`, `conv1.bias` to `conv4`, `hidden` and `head`.

    Returns:
        Probabilities `(len(KINDS),)` in the order of `KINDS`, summing to 1.
    """
    values = image
    for name, stride, padding in CONVOLUTIONS:
        kernel, bias = weights[f"{name}.weight"], weights[f"{name}.bias"]
        padded = np.pad(values, ((0, 0), (padding, padding), (padding, padding)))
        windows = sliding_window_view(padded, kernel.shape[2:], (1, 2))[:, ::stride, ::stride]
        _, height, width = windows.shape[:3]
        columns = windows.transpose(0, 3, 4, 1, 2).reshape(-1, height * width)
        summed = _product(kernel.reshape(len(kernel), -1), columns).reshape(-1, height, width)
        values = np.maximum(summed + bias[:, None, None], 0)
    channels, side, _ = values.shape
    pooled = values.reshape(channels, side // 2, 2, side // 2, 2).mean((2, 4)).ravel()
    hidden = np.maximum(_product(weights["hidden.weight"], pooled) + weights["hidden.bias"], 0)
    return softmax(_product(weights["head.weight"], hidden) + weights["head.bias"])


def _product(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """`left @ right` without BLAS, whose threads would wait busily after it, on the cores that the model needs."""
    return np.einsum("ij,j...->i...", left, right)


@functools.cache
def _fitted() -> tuple[dict[str, np.ndarray], float]:
    """Weights and threshold of the packaged file, after its hash has been verified."""
    must = f"`{WEIGHTS.name}` must be the file that clarity_hf was packaged with"
    if not WEIGHTS.is_file():
        raise FileNotFoundError(f"{must}, got none beside {Path(__file__).name}. {_REMEDY}")
    found = hashlib.sha256(WEIGHTS.read_bytes()).hexdigest()
    if found != SHA256:
        raise OSError(f"{must}, got SHA-256 {found[:8]}…, not {SHA256[:8]}…. {_REMEDY}")
    return read_weights(WEIGHTS)


def read_weights(path: Path) -> tuple[dict[str, np.ndarray], float]:
    """Weights for [`classify`] and the probability from which an image passes, from a file that is not verified.

    Raises:
        OSError: The file is missing or invalid.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            weights = {name: file.get_tensor(name).astype(np.float32) for name in file.keys()}  # noqa: SIM118
            return weights, float(file.metadata()["threshold"])
    except (SafetensorError, KeyError, TypeError) as error:
        raise OSError(
            f"`path` must be weights of this check, got {path.name}: {error}. Fit them with "
            "benchmarks/fit_radiograph_check.py."
        ) from error


__all__ = ["KINDS", "MODES", "NotARadiographWarning", "RadiographVerdict", "check_mode", "check_radiograph"]
