# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Whether an image looks like what the model was made for: a whole frontal chest radiograph, upright, bones bright.

A convolutional net of some 36,000 weights on the image reduced to 64 × 64, fitted by
`examples/fit_radiograph_check.py`. It is a guard against the wrong file, not a judgement of quality or of the patient:
what it lets pass and what it stops is counted in `docs/radiograph-check.md`. An image mirrored left to right passes.

The net does not see exposure. So what is nearly black, nearly white or without contrast, as a wrong window or depth
makes it, does not pass by its grey levels ([`is_badly_exposed`]).

The weights are the package data `radiograph_check.safetensors`, held to the hash [`SHA256`] and read once, when a
check is first asked for. Where the installed package lacks them, that is an error. A copy of this file beside a
published model has none: there [`is_available`] says so and the pipeline does not check.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

WEIGHTS = Path(__file__).with_name("radiograph_check.safetensors")
"""Where the fitted weights are; its metadata hold the threshold."""

SHA256 = "3fdb4f26d6cfdfc8d8f8701809af544be44d7be71e2b6482f8d62f29e3c279b4"
"""Hash of that file; `examples/fit_radiograph_check.py` prints it. Weights of another are not used."""

SIDE = 64
"""Side of the square that an image is reduced into, in pixels."""

MARGIN_SHARE, MARGIN_TOLERANCE = 0.95, 0.05
"""Share of a row or column that is even where it is margin, and how even, as a share of the range of the image."""

MODES = ("warn", "refuse", "off")
"""What may follow from an image that does not pass."""

KINDS: Mapping[str, str] = {
    "frontal": "a whole frontal chest radiograph, upright, bones bright",
    "picture": "no radiograph",
    "turned": "an image that lies on its side, stands on its head or is strongly tilted",
    "inverted": "an image with dark bones",
    "part": "a part of an image without the whole thorax",
    "view": "a lateral image or another part of the body",
}
"""The classes of the net, in its order, and what errors and warnings call them."""

EXPOSURE = "an image that is nearly black, nearly white or without contrast"
"""What errors and warnings call the kind `exposure`, which is none of the net's."""

BLACK, WHITE = 8, 247
"""Grey levels of 255 up to which a pixel counts as black, and from which as white."""

MOST_WHITE, LEAST_GREY = 0.4, 0.25
"""Largest share of white pixels, and least share of those between black and white. Of 1,381 NIH images none has more
than 0.20, or less than 0.66; black canvases may fill more than half of an image."""

LEAST_CONTRAST, DARKEST, BRIGHTEST = 16, 40, 215
"""Least distance between the 5 % and the 95 % quantile of the pixels between black and white, least 95 % quantile and
largest 5 % quantile, in grey levels of 255."""

_INSTALLED = __package__ == "clarity_hf"  # and no copy beside a published model
_MEND = "Reinstall clarity_hf." if _INSTALLED else "Run pip install clarity_hf and use its own pipeline."
_MARGINS = 2  # one in another, as a black slide on a white page; more would eat into images that are dim at the edges
_SAMPLED = 4 * SIDE  # the shorter side is thinned to this at least: reading every pixel of a large image takes longer


@dataclass(frozen=True)
class RadiographVerdict:
    """What the check says of one image.

    Attributes:
        probability: Of a whole frontal chest radiograph, upright, bones bright, in [0, 1]; fitted on equal shares of
            such images and of everything else, so it is no prevalence.
        threshold: Probability in [0, 1] from which an image passes.
        kind: Key of `KINDS`: `frontal` where the image passes, else the likeliest other class; or `exposure`, and then
            the probability is 0.
    """

    probability: float
    threshold: float
    kind: str

    @property
    def passed(self) -> bool:
        """Whether the image passes for a frontal chest radiograph."""
        return self.kind == "frontal"

    @property
    def reason(self) -> str:
        """What the image looks like, in words."""
        return EXPOSURE if self.kind == "exposure" else KINDS[self.kind]

    def told(self, name: str = "image") -> str:
        """The words of an error or a warning.

        Args:
            name: What they call the image.
        """
        return (
            f"`{name}` must be {KINDS['frontal']}, got what looks like {self.reason} (probability of the former "
            f"{self.probability:.3f}, from {self.threshold:g} on it passes). Check the image, or pass "
            "radiograph_check='off'."
        )


class NotARadiographWarning(UserWarning):
    """An image does not look like a frontal chest radiograph and was localized all the same."""


def check_mode(mode: str) -> None:
    """Refuse what is no mode.

    Args:
        mode: Of `MODES`.

    Raises:
        OSError: It asks for a check, and the installed package's weights are not there or not those that were packed.
        ValueError: It is another word, or asks for a check beside a published model, where there are no weights.
    """
    if mode not in MODES:
        raise ValueError(f"`radiograph_check` must be one of {', '.join(MODES)}, got {mode!r}. Choose one of them.")
    if mode != "off" and not is_available():
        raise ValueError(
            f"`radiograph_check` must be 'off' where {WEIGHTS.name} is not beside the code, got {mode!r}. Run pip "
            "install clarity_hf and use its own pipeline."
        )
    if mode != "off":
        _fitted()


def is_available() -> bool:
    """Whether images can be checked: in the installed package always, in a copy where the weights are beside it."""
    return _INSTALLED or WEIGHTS.is_file()


def check_radiograph(pixels: np.ndarray) -> RadiographVerdict:
    """Check one image. The same pixels always give the same verdict.

    Args:
        pixels: `(H, W)` in [0, 255], as [`read_image`] gives them.

    Raises:
        OSError: The weights are not there, or not those that were packed.
        ValueError: `pixels` has another number of axes.
    """
    weights, threshold = _fitted()
    with torch.inference_mode():
        probabilities = classify(prepare(pixels)[None], weights).softmax(-1)[0].tolist()
    verdict = verdict_of(probabilities, threshold)
    if verdict.passed and is_badly_exposed(pixels):
        return RadiographVerdict(0.0, threshold, "exposure")
    return verdict


def is_badly_exposed(pixels: np.ndarray) -> bool:
    """Whether an image is nearly black, nearly white or without contrast inside its margins.

    Args:
        pixels: `(H, W)` in [0, 255].

    Raises:
        ValueError: `pixels` has another number of axes.
    """
    _check_axes(pixels)
    content, _ = _thinned(pixels[content_of(pixels)])
    grey = content[(content > BLACK) & (content < WHITE)]
    if (content >= WHITE).mean() > MOST_WHITE or grey.size < LEAST_GREY * content.size:
        return True
    low, high = np.quantile(grey, (0.05, 0.95))
    return bool(high - low < LEAST_CONTRAST or high < DARKEST or low > BRIGHTEST)


def verdict_of(probabilities: list[float], threshold: float) -> RadiographVerdict:
    """The verdict that class probabilities give.

    Args:
        probabilities: In the order of `KINDS`, their sum 1.
        threshold: Probability of `frontal` from which an image passes.
    """
    kinds = list(KINDS)
    others = max(range(1, len(kinds)), key=lambda index: probabilities[index])
    return RadiographVerdict(probabilities[0], threshold, kinds[0 if probabilities[0] >= threshold else others])


def prepare(pixels: np.ndarray) -> torch.Tensor:
    """An image as the net sees it.

    Args:
        pixels: `(H, W)`, any range.

    Returns:
        `(1, SIDE, SIDE)` float32: the image without its margins, reduced by area into the square, its proportions
        kept, centred, with mean 0 and standard deviation 1, so that exposure does not count, and 0 around it.

    Raises:
        ValueError: `pixels` has another number of axes.
    """
    _check_axes(pixels)
    content = pixels[content_of(pixels)]
    longer = max(content.shape)
    height, width = (max(1, round(SIDE * side / longer)) for side in content.shape)
    thinned, _ = _thinned(content)
    reduced = F.interpolate(torch.from_numpy(thinned)[None, None], size=(height, width), mode="area")[0]
    reduced = (reduced - reduced.mean()) / reduced.std(correction=0).clamp(min=1e-3)
    top, left = (SIDE - height) // 2, (SIDE - width) // 2
    return F.pad(reduced, (left, SIDE - width - left, top, SIDE - height - top))


def _check_axes(pixels: np.ndarray) -> None:
    if pixels.ndim != 2:
        raise ValueError(f"`pixels` must be (H, W), got shape {pixels.shape}. Read the image with read_image.")


def content_of(pixels: np.ndarray) -> tuple[slice, slice]:
    """What an image shows without the even margins of a screen, a slide or a scanned page around it.

    A row or column at an edge is margin where `MARGIN_SHARE` of it lies within `MARGIN_TOLERANCE` of the range of the
    image around the median of the outermost: black, white or grey, with noise, and with a few letters in it.

    Args:
        pixels: `(H, W)`, any range.

    Returns:
        Rows and columns; all of them where nothing would be left, as of an image of one value.
    """
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
    # The last of a thinned image stands for all behind it.
    ends = (
        side if part.stop == thin else part.stop * step
        for part, thin, side in zip((rows, columns), thinned.shape, pixels.shape, strict=True)
    )
    return slice(rows.start * step, next(ends)), slice(columns.start * step, next(ends))


def _without_margins(lines: np.ndarray, offset: int, tolerance: float) -> slice:
    """The lines `(N, M)` between the margins at both ends, counted from `offset`; empty where all are margin."""
    ends = []
    for ordered in (lines, lines[::-1]):
        level = np.median(ordered[0]) if ordered.size else 0.0
        shares = (np.abs(ordered - level) <= tolerance).mean(1) if ordered.size else np.ones(len(ordered))
        inside = np.flatnonzero(shares < MARGIN_SHARE)
        ends.append(int(inside[0]) if len(inside) else len(lines))
    return slice(offset + ends[0], offset + max(ends[0], len(lines) - ends[1]))


def _thinned(pixels: np.ndarray) -> tuple[np.ndarray, int]:
    """Every so many pixels of an image, float32, and how many; the shorter side keeps `_SAMPLED` at least."""
    step = max(1, min(pixels.shape) // _SAMPLED)
    return np.ascontiguousarray(pixels[::step, ::step], dtype=np.float32), step


def classify(images: torch.Tensor, weights: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """The net: four convolutions, a mean over a grid of 4 × 4, and two linear layers.

    Args:
        images: `(B, 1, SIDE, SIDE)`, from [`prepare`].
        weights: `conv1.weight`, `conv1.bias` to `conv4`, `hidden` and `head`.

    Returns:
        Logits `(B, len(KINDS))`.
    """
    values = F.relu(F.conv2d(images, weights["conv1.weight"], weights["conv1.bias"], stride=2, padding=2))
    values = F.relu(F.conv2d(values, weights["conv2.weight"], weights["conv2.bias"], stride=2, padding=1))
    values = F.relu(F.conv2d(values, weights["conv3.weight"], weights["conv3.bias"], stride=2, padding=1))
    values = F.relu(F.conv2d(values, weights["conv4.weight"], weights["conv4.bias"], padding=1))
    values = F.avg_pool2d(values, 2).flatten(1)
    values = F.relu(F.linear(values, weights["hidden.weight"], weights["hidden.bias"]))
    return F.linear(values, weights["head.weight"], weights["head.bias"])


@functools.cache
def _fitted() -> tuple[dict[str, torch.Tensor], float]:
    """Weights and threshold, of the file as it was packed."""
    must = f"`{WEIGHTS.name}` must be the file as it was packed with clarity_hf"
    if not WEIGHTS.is_file():
        raise FileNotFoundError(f"{must}, got none beside {Path(__file__).name}. {_MEND}")
    found = hashlib.sha256(WEIGHTS.read_bytes()).hexdigest()
    if found != SHA256:
        raise OSError(f"{must}, got one of another SHA-256 ({found[:8]}… for {SHA256[:8]}…). {_MEND}")
    return read_weights(WEIGHTS)


def read_weights(path: Path) -> tuple[dict[str, torch.Tensor], float]:
    """Weights of the net and the threshold of a file that was fitted, whatever its hash.

    Args:
        path: As `examples/fit_radiograph_check.py` writes it.

    Returns:
        What [`classify`] takes, and the probability in [0, 1] from which an image passes.

    Raises:
        OSError: It is not there, or no such file.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            weights = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
            return weights, float(file.metadata()["threshold"])
    except (SafetensorError, KeyError, TypeError) as error:
        raise OSError(
            f"`path` must be weights of this check, got {path.name}: {error}. Fit them with "
            "examples/fit_radiograph_check.py."
        ) from error


__all__ = ["KINDS", "MODES", "NotARadiographWarning", "RadiographVerdict", "check_mode", "check_radiograph"]
