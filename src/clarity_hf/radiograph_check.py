# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Whether an image looks like what the model was made for: a whole frontal chest radiograph, upright, bones bright.

A convolutional net of some 36,000 weights on the image reduced to 64 × 64, fitted by
`examples/fit_radiograph_check.py`. It is a guard against the wrong file, not a judgement of quality or of the patient:
what it lets pass and what it stops is counted in `docs/radiograph-check.md`. A film mirrored left to right passes.

The weights are the package data `radiograph_check.safetensors`, read once, when the first film is checked. A copy of
this file beside a published model has none: there [`is_available`] says so and the pipeline does not check.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

WEIGHTS = Path(__file__).with_name("radiograph_check.safetensors")
"""Where the fitted weights are; its metadata hold the threshold."""

SIDE = 64
"""Side of the square that an image is reduced into, in pixels."""

MODES = ("warn", "refuse", "off")
"""What may follow from an image that does not pass."""

KINDS: Mapping[str, str] = {
    "frontal": "a whole frontal chest radiograph, upright, bones bright",
    "picture": "no radiograph",
    "turned": "a film that lies on its side, stands on its head or is strongly tilted",
    "inverted": "a film with dark bones",
    "part": "a part of a film without the whole thorax",
    "view": "a lateral film or another part of the body",
}
"""The classes of the net, in its order, and what errors and warnings call them."""

_SAMPLED = 4 * SIDE  # the shorter side is thinned to this at least: reading every pixel of a large film takes longer


@dataclass(frozen=True)
class RadiographVerdict:
    """What the check says of one image.

    Attributes:
        probability: Of a whole frontal chest radiograph, upright, bones bright, in [0, 1]; fitted on equal shares of
            such films and of everything else, so it is no prevalence.
        threshold: Probability in [0, 1] from which an image passes.
        kind: Key of `KINDS`: `frontal` where the image passes, else the likeliest other class.
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
        return KINDS[self.kind]

    def told(self, name: str = "image") -> str:
        """The words of an error or a warning.

        Args:
            name: What they call the image.
        """
        return (
            f"`{name}` must be {KINDS['frontal']}, got what looks like {self.reason} (probability of the former "
            f"{self.probability:.3f}, from {self.threshold:g} on it passes). Check the film, or pass "
            "radiograph_check='off'."
        )


class NotARadiographWarning(UserWarning):
    """An image does not look like a frontal chest radiograph and was localized all the same."""


def check_mode(mode: str) -> None:
    """Refuse what is no mode.

    Args:
        mode: Of `MODES`.

    Raises:
        ValueError: It is another word, or asks for a check where the weights are not there.
    """
    if mode not in MODES:
        raise ValueError(f"`radiograph_check` must be one of {', '.join(MODES)}, got {mode!r}. Choose one of them.")
    if mode != "off" and not is_available():
        raise ValueError(
            f"`radiograph_check` must be 'off' where {WEIGHTS.name} is not beside the code, got {mode!r}. Run pip "
            "install clarity_hf and use its own pipeline."
        )


def is_available() -> bool:
    """Whether the weights are beside this file."""
    return WEIGHTS.is_file()


def check_radiograph(pixels: np.ndarray) -> RadiographVerdict:
    """Check one image. The same pixels always give the same verdict.

    Args:
        pixels: `(H, W)` in [0, 255], as [`read_image`] gives them.

    Raises:
        FileNotFoundError: The weights are not there.
        ValueError: `pixels` has another number of axes.
    """
    weights, threshold = _fitted()
    with torch.inference_mode():
        probabilities = classify(prepare(pixels)[None], weights).softmax(-1)[0].tolist()
    return verdict_of(probabilities, threshold)


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
        `(1, SIDE, SIDE)` float32: the image reduced by area into the square, its proportions kept, centred, with mean
        0 and standard deviation 1, so that exposure does not count, and 0 around it.

    Raises:
        ValueError: `pixels` has another number of axes.
    """
    if pixels.ndim != 2:
        raise ValueError(f"`pixels` must be (H, W), got shape {pixels.shape}. Read the film with read_image.")
    step = max(1, min(pixels.shape) // _SAMPLED)
    thinned = torch.from_numpy(np.ascontiguousarray(pixels[::step, ::step], dtype=np.float32))
    longer = max(pixels.shape)
    height, width = (max(1, round(SIDE * side / longer)) for side in pixels.shape)
    reduced = F.interpolate(thinned[None, None], size=(height, width), mode="area")[0]
    reduced = (reduced - reduced.mean()) / reduced.std(correction=0).clamp(min=1e-3)
    top, left = (SIDE - height) // 2, (SIDE - width) // 2
    return F.pad(reduced, (left, SIDE - width - left, top, SIDE - height - top))


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
    """Weights and threshold."""
    from safetensors import safe_open

    if not is_available():
        raise FileNotFoundError(
            f"`{WEIGHTS.name}` must lie beside {Path(__file__).name}, got none. Run pip install clarity_hf."
        )
    with safe_open(WEIGHTS, framework="pt") as file:
        weights = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
        return weights, float(file.metadata()["threshold"])


__all__ = ["KINDS", "MODES", "NotARadiographWarning", "RadiographVerdict", "check_mode", "check_radiograph"]
