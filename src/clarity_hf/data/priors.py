# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Anatomical priors: where the thorax is, from an image's own mask or from the packaged atlas.

A prior is placed over the image, moved with it, dilated, and averaged to the grid of a training step. A tight prior
would exclude findings at the rim of the thorax (pneumothorax, effusion), so it is dilated; a hard edge would claim
more than is known, so it is soft. `docs/priors.md` has the sources and what they cover.
"""

from __future__ import annotations

import functools
import io
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from .nih import decoded_image, open_image

PRIOR_SIDE = 56
"""Side of the prior in a training step; the model averages it to its patch grid."""

PRIOR_DILATION = 1 / 24
"""Share of the view's longer side by which a prior is dilated."""

ATLAS_FILE = Path(__file__).with_name("thorax_atlas.png")
"""The packaged atlas; its source and licence are in `thorax_atlas.md`."""


def load_atlas() -> torch.Tensor:
    """Load the packaged atlas of the thorax: how often a place of a frontal image is inside it.

    The mean of the 435 manual lung masks, with the mediastinum between the lungs filled, of the V7 Labs COVID-19 X-ray
    data set (CC BY 4.0); see `examples/build_atlas.py`.

    Returns:
        `(1, 128, 128)` float32 in [0, 1] over an entire image in its usual orientation: the patient's left is on the
        right.
    """
    return _atlas().clone()


@functools.cache
def _atlas() -> torch.Tensor:
    with Image.open(ATLAS_FILE) as image:
        return torch.from_numpy(np.array(image, dtype=np.float32))[None] / 255


def soft_prior(thorax: torch.Tensor) -> torch.Tensor:
    """Dilate a thorax mask or atlas and average it to the prior's grid.

    The dilation takes the largest value within a square of `PRIOR_DILATION` of the longer side.

    Args:
        thorax: `(1, H, W)`; bool or integer, 0 outside and above 0 inside, or float in [0, 1].

    Returns:
        `(1, 56, 56)` float32 in [0, 1].
    """
    mask = torch.as_tensor(thorax)
    mask = mask.float() if mask.is_floating_point() else (mask > 0).float()
    radius = round(max(mask.shape[-2:]) * PRIOR_DILATION)
    for axis in (-2, -1):
        mask = _dilate(mask, radius, axis)
    return F.adaptive_avg_pool2d(mask, PRIOR_SIDE)


def _dilate(values: torch.Tensor, radius: int, axis: int) -> torch.Tensor:
    """Largest value ≥ 0 within `radius` along an axis.

    A window of 2w is the maximum of two windows of w: log2 passes take a fortieth of the time of a max-pool at 224
    pixels.
    """
    values = F.pad(values, (radius, radius) if axis == -1 else (0, 0, radius, radius))
    width = 1
    while width < 2 * radius + 1:
        shift = min(width, 2 * radius + 1 - width)
        length = values.shape[axis] - shift
        values = torch.maximum(values.narrow(axis, 0, length), values.narrow(axis, shift, length))
        width += shift
    return values


def no_prior() -> torch.Tensor:
    """The prior of an image without one: `(1, 56, 56)` of NaN, which the losses ignore."""
    return torch.full((1, PRIOR_SIDE, PRIOR_SIDE), float("nan"))


def read_mask(mask: Any) -> np.ndarray | None:
    """Read a thorax mask from a cell of a data set.

    Args:
        mask: None, an array `(h, w)`, a PIL image, a path, or the `{"path", "bytes"}` of a
            `datasets.Image(decode=False)`; above 0 inside, in a JPEG (with its artefacts) above 127.

    Returns:
        `(h, w)` uint8 of 0 and 1, in the mask's own size; None for no mask and for an empty one, which a segmenter
        writes for an image that it could not segment.

    Raises:
        FileNotFoundError: No such file.
        OSError: The image does not decode, see [`open_image`]; the message names its file.
        ValueError: The mask is not two-dimensional, or contains values that are not finite numbers.
    """
    if mask is None:
        return None
    if isinstance(mask, Mapping):
        mask = mask["path"] if mask.get("bytes") is None else io.BytesIO(mask["bytes"])
    if isinstance(mask, str | os.PathLike):
        mask = open_image(mask)
    elif isinstance(mask, io.BytesIO):
        mask = _decoded(functools.partial(decoded_image, mask))
    # Not by `read_image`, which refuses images of a single grey level, as masks may be.
    threshold = 0
    if isinstance(mask, Image.Image):
        threshold = 127 if mask.format == "JPEG" else 0
        # Grey ones keep their mode, because values below 1 would become 0 in 8 bits.
        if mask.mode not in ("1", "L", "I", "I;16", "F"):
            *colours, alpha = np.moveaxis(np.asarray(_decoded(functools.partial(mask.convert, "RGBA"))), -1, 0)
            brightest = np.max(colours, axis=0)
            # A mask may be in the transparency alone.
            shown = np.where(alpha > 0, brightest, 0)
            mask = alpha if np.ptp(brightest) == 0 < np.ptp(alpha) else shown if shown.any() else brightest
    values = np.asarray(mask)
    if values.ndim != 2:
        raise ValueError(f"`thorax_mask` must be (h, w), got {values.shape}. Pass one channel.")
    if values.dtype.kind not in "biuf" or not np.isfinite(values).all():
        raise ValueError(f"`thorax_mask` must hold finite numbers, got {values.dtype}. Write 0 outside and 1 inside.")
    inside = values > threshold
    return inside.astype(np.uint8) if inside.any() else None


def _decoded(decode: Callable[[], Image.Image]) -> Image.Image:
    try:
        return decode()
    except MemoryError:
        raise
    except Exception as error:  # Pillow raises many kinds for broken files
        raise OSError(
            f"`thorax_mask` must be an image that decodes, got one that does not ({error}). Write it again."
        ) from error
