# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Lungs and heart of a frontal chest radiograph, by a small U-Net that is part of the package.

A quarter of a million weights (U-Net, Ronneberger et al., arXiv 1505.04597) on the image resized to 128 × 128, fitted
by `examples/fit_thorax_segmenter.py` to 259 radiographs with manual masks (Dong et al., 2018 and 2019; MIT); see
`docs/priors.md` for its accuracy. It is the anatomical prior of training; a trained model does not need it.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import safe_open
from scipy import ndimage
from torch import nn

WEIGHTS = Path(__file__).with_name("thorax_segmenter.safetensors")
"""Fitted weights in half precision."""

SIDE = 128
"""Side of the network's input in pixels."""

WIDTHS = (8, 24, 48, 96)
"""Channels at 128, 64, 32 and 16 pixels."""

STRUCTURES = ("left_lung", "right_lung", "heart", "hull")
"""Channels of the network, see [`ThoraxMasks`]."""

FINGERPRINT = "thorax-1"
"""Part of the name under which masks are kept: raise it when the weights or the processing of masks change."""

SMALLEST_SHARE = 0.01
"""Smallest share of the image of each lung and the heart; below it the thorax is incomplete, or the network failed."""


class ThoraxMasks(NamedTuple):
    """Where the structures of a thorax are, each `(H, W)` bool over the image.

    Args:
        left_lung, right_lung: The patient's; the left is on the right of an image in its usual orientation.
        heart: Its silhouette.
        hull: Convex hull of lungs and heart, with the mediastinum: the thorax.
    """

    left_lung: np.ndarray
    right_lung: np.ndarray
    heart: np.ndarray
    hull: np.ndarray


class ThoraxSegmenter(nn.Module):
    """A U-Net of four levels, two convolutions each, from grey images to a logit per structure and pixel."""

    def __init__(self) -> None:
        super().__init__()
        channels = (1, *WIDTHS)
        self.down = nn.ModuleList(_convolutions(channels[i], channels[i + 1]) for i in range(len(WIDTHS)))
        self.up = nn.ModuleList(
            _convolutions(WIDTHS[i] + WIDTHS[i + 1], WIDTHS[i]) for i in reversed(range(len(WIDTHS) - 1))
        )
        self.head = nn.Conv2d(WIDTHS[0], len(STRUCTURES), kernel_size=1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Prepared images `(B, 1, h, w)`, sides multiples of 8, → logits `(B, 4, h, w)`."""
        values = images
        kept: list[torch.Tensor] = []
        for level in self.down:
            values = level(F.max_pool2d(values, 2) if kept else values)
            kept.append(values)
        for level, beside in zip(self.up, kept[-2::-1], strict=True):
            values = F.interpolate(values, scale_factor=2.0, mode="bilinear", align_corners=False)
            values = level(torch.cat((values, beside), dim=1))
        return self.head(values)


def _convolutions(inputs: int, outputs: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for channels in (inputs, outputs):
        layers += [
            nn.Conv2d(channels, outputs, kernel_size=3, padding=1, bias=False),
            nn.GroupNorm(8, outputs),
            nn.ReLU(),
        ]
    return nn.Sequential(*layers)


def prepare(pixels: torch.Tensor) -> torch.Tensor:
    """An image as input of the network.

    Args:
        pixels: `(H, W)`, any range.

    Returns:
        `(1, 128, 128)` float32 with mean 0 and standard deviation 1; proportions are not kept.
    """
    reduced = F.interpolate(pixels[None, None].float(), size=(SIDE, SIDE), mode="bilinear", antialias=True)[0]
    return (reduced - reduced.mean()) / reduced.std(correction=0).clamp_min(1e-3)


@functools.cache
def load_segmenter() -> ThoraxSegmenter:
    """The packaged network, in evaluation mode; read once.

    Raises:
        FileNotFoundError: Its weights are not beside this file.
    """
    if not WEIGHTS.is_file():
        raise FileNotFoundError(f"`{WEIGHTS.name}` must be beside {Path(__file__).name}. Reinstall clarity_hf.")
    with torch.random.fork_rng(devices=[]):  # the first call may come while an augmentation is drawn
        model = ThoraxSegmenter()
    with safe_open(WEIGHTS, framework="pt") as file:
        model.load_state_dict({name: file.get_tensor(name).float() for name in file.keys()})  # noqa: SIM118
    return model.eval().requires_grad_(False)


def segment_thorax(pixels: np.ndarray | torch.Tensor) -> ThoraxMasks | None:
    """Find lungs, heart and their hull in a frontal radiograph; [`check_radiograph`] checks whether an image is one.

    Args:
        pixels: `(H, W)`, any range, bones bright.

    Returns:
        [`ThoraxMasks`] in the image's size, each structure in one piece, or None for a constant image and if a lung or
        the heart is smaller than `SMALLEST_SHARE` of it.

    Raises:
        ValueError: `pixels` has another number of axes.
    """
    pixels = torch.as_tensor(np.asarray(pixels))
    if pixels.ndim != 2:
        raise ValueError(f"`pixels` must be (H, W), got {tuple(pixels.shape)}. Read the image with read_image.")
    with torch.inference_mode():
        prepared = prepare(pixels)
        logits = _largest_regions(load_segmenter()(prepared[None]))
        if not prepared.any() or ((logits[0, :3] > 0).float().mean((1, 2)) < SMALLEST_SHARE).any():
            return None
        logits = F.interpolate(logits, size=tuple(pixels.shape), mode="bilinear", align_corners=False)[0]
    return ThoraxMasks(*(logits > 0).numpy())


def _largest_regions(logits: torch.Tensor) -> torch.Tensor:
    """Logits `(1, 4, h, w)` without the smaller regions of each structure, such as patches of air beside the body."""
    regions = [ndimage.label(structure)[0] for structure in (logits[0] > 0).numpy()]
    sizes = [np.bincount(region.ravel())[1:] for region in regions]
    stray = [region > 0 for region in regions]
    for outside, region, size in zip(stray, regions, sizes, strict=True):
        if len(size):
            outside &= region != size.argmax() + 1
    return logits.masked_fill(torch.from_numpy(np.stack(stray))[None], -10.0)
