# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""From a row of a data set to the tensors of a training step, film and thorax mask through the same geometry."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torchvision import tv_tensors
from torchvision.transforms import v2

from clarity_hf.boxes import Letterbox
from clarity_hf.image_processing_clarity import ClarityImageProcessor
from clarity_hf.image_reading import read_image

from .nih import open_film

PRIOR_SIDE = 56
"""Side of the prior that a step carries; the model averages it to its patch grid."""

PRIOR_DILATION = 1 / 24
"""Share of the image's side by which a thorax mask is dilated: findings sit at its rim, and a tight mask destroys
them."""


class FilmTransform:
    """Turns `{"image", "labels", "thorax_mask"}` into the arguments of [`ClarityForMultiLabelLocalization`].

    Args:
        image_processor: Gives size, proportions and normalisation, so that training sees what inference sees.
        augment: Random crops, flips, small rotations and exposure (recipe of Medical_MAE and EVA-X), drawn from
            torch's global random state; [`TransformedDataset`] sets it for each row.
        crop_scale: Smallest share of the area that a random crop keeps, in (0, 1].

    Raises:
        ValueError: `crop_scale` is outside (0, 1], or the processor leaves out a step or treats channels differently,
            which training would not repeat.
    """

    def __init__(self, image_processor: ClarityImageProcessor, augment: bool = False, crop_scale: float = 0.7):
        if not 0 < crop_scale <= 1:
            raise ValueError(f"`crop_scale` must be inside (0, 1], got {crop_scale}. Give a share of the area.")
        steps = (image_processor.do_resize, image_processor.do_rescale, image_processor.do_normalize)
        if not all(steps) or len(set(image_processor.image_mean)) > 1 or len(set(image_processor.image_std)) > 1:
            raise ValueError(
                "`image_processor` must resize, rescale and normalize all channels alike, got one that does not. "
                "Use the defaults of ClarityImageProcessor."
            )
        self.size = (image_processor.size["height"], image_processor.size["width"])
        # Augmented films lie on a larger canvas, so that a crop of 3/4 of its area has the resolution of the input.
        self.canvas = tuple(side * 8 // 7 for side in self.size) if augment else self.size
        self.keep_ratio = image_processor.keep_ratio
        self.channels = len(image_processor.image_mean)
        self.mean, self.std = float(image_processor.image_mean[0]), float(image_processor.image_std[0])
        augmentation: list[Any] = []
        if augment:
            augmentation = [
                v2.RandomAffine(degrees=7, translate=(0.03, 0.03), fill=0),
                v2.RandomResizedCrop(self.size, scale=(crop_scale, 1.0), ratio=(0.85, 1.18), antialias=True),
                v2.RandomHorizontalFlip(),
                v2.ColorJitter(brightness=0.2, contrast=0.25),
            ]
        self.augmentation = v2.Compose(augmentation) if augmentation else None

    def __call__(self, row: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        """Transform one row.

        Args:
            row: `image`, any source of [`read_image`] or the `{"path", "bytes"}` of an undecoded `datasets.Image`;
                `labels` `(F,)` of 1, 0, NaN; optionally `thorax_mask` of the image's size, above 0 inside, or None.

        Returns:
            `pixel_values` `(C, H, W)`, `labels` `(F,)` float32 and `anatomical_prior` `(1, 56, 56)` in [0, 1], NaN
            throughout where the row has no mask or an empty one.
        """
        film = tv_tensors.Image(torch.from_numpy(read_source(row["image"])).float()[None] / 255)
        mask = _read_mask(row.get("thorax_mask"))
        thorax = tv_tensors.Mask(torch.from_numpy(mask)[None]) if mask is not None else None
        film, thorax = self._to_canvas(film), self._to_canvas(thorax)
        if self.augmentation is not None:
            film, thorax = self.augmentation(film, thorax) if thorax is not None else (self.augmentation(film), None)
        pixels = (torch.as_tensor(film).clamp(0, 1) - self.mean) / self.std
        return {
            "pixel_values": pixels.expand(self.channels, -1, -1).contiguous(),
            "labels": torch.as_tensor(np.asarray(row["labels"], dtype=np.float32)),
            "anatomical_prior": soft_prior(thorax) if thorax is not None else no_prior(),
        }

    def _to_canvas(self, image: Any) -> Any:
        if image is None:
            return None
        box = Letterbox.fit(tuple(image.shape[-2:]), self.canvas, self.keep_ratio)
        image = v2.functional.resize(image, list(box.content), antialias=True)
        right, bottom = self.canvas[1] - box.left - box.content[1], self.canvas[0] - box.top - box.content[0]
        return v2.functional.pad(image, [box.left, box.top, right, bottom], fill=0)


class TransformedDataset(torch.utils.data.Dataset):
    """A map-style data set seen through a transform.

    The randomness of a row depends on seed, epoch and index alone, not on the worker that reads it or on what was read
    before: a run that is resumed sees the crops that it would have seen.

    Args:
        rows: The data set.
        transform: Applied to each row.
        seed: Of the augmentation.
    """

    def __init__(self, rows: Any, transform: FilmTransform, seed: int = 0):
        self.rows, self.transform, self.seed, self.epoch = rows, transform, seed, 0

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        """Row `index`, transformed."""
        row = self.rows[index]
        if self.transform.augmentation is None:
            return self.transform(row)
        digest = hashlib.blake2b(f"{self.seed} {self.epoch} {index}".encode(), digest_size=8).digest()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int.from_bytes(digest) >> 1)
            return self.transform(row)

    def set_epoch(self, epoch: int) -> None:
        """Draw anew in every epoch, here and in a data set below that can."""
        self.epoch = epoch
        if hasattr(self.rows, "set_epoch"):
            self.rows.set_epoch(epoch)


def read_source(source: Any) -> np.ndarray:
    """Read a film from what a data set's cell holds: `(H, W)` in [0, 255].

    Args:
        source: As in [`read_image`], or the `{"path", "bytes"}` of a `datasets.Image(decode=False)`; errors name the
            path where there is one.
    """
    if isinstance(source, Mapping):
        name = source.get("path") or "image"
        return read_image(source["path"] if source.get("bytes") is None else source["bytes"], name)
    return read_image(source)


def soft_prior(thorax: torch.Tensor) -> torch.Tensor:
    """Dilate a thorax mask and soften its rim.

    Args:
        thorax: `(1, H, W)`, 0 outside, above 0 inside.

    Returns:
        `(1, 56, 56)` float32 in [0, 1].
    """
    mask = (torch.as_tensor(thorax) > 0).float()
    radius = round(max(mask.shape[-2:]) * PRIOR_DILATION)
    # Two passes of a flat kernel, first along one axis, then along the other: the same square at a tenth of the cost.
    mask = F.max_pool2d(mask, (2 * radius + 1, 1), stride=1, padding=(radius, 0))
    mask = F.max_pool2d(mask, (1, 2 * radius + 1), stride=1, padding=(0, radius))
    return F.adaptive_avg_pool2d(mask, PRIOR_SIDE)


def no_prior() -> torch.Tensor:
    """The prior of a film without a mask: `(1, 56, 56)` of NaN, which the losses leave out."""
    return torch.full((1, PRIOR_SIDE, PRIOR_SIDE), float("nan"))


def _read_mask(mask: Any) -> np.ndarray | None:
    """The mask as 0 and 1, or None for an empty one: an atlas holds those for films that it could not segment."""
    if mask is None:
        return None
    if isinstance(mask, Mapping):
        mask = mask["path"] if mask.get("bytes") is None else io.BytesIO(mask["bytes"])
    if isinstance(mask, str | os.PathLike):
        mask = open_film(mask)
    elif isinstance(mask, io.BytesIO):
        mask = Image.open(mask)
    # Not through the films' reader, which refuses an image of one grey: a mask may well be one.
    inside = np.asarray(mask.convert("L") if isinstance(mask, Image.Image) else mask) > 0
    return inside.astype(np.uint8) if inside.any() else None
