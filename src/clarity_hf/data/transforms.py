# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""From a row of a data set to the tensors of a training step: image, thorax and drawn findings with one geometry.

Frames: an image occupies the *content* of its [`Letterbox`], and the rest of the input is black. Masks and the atlas
cover the image's field of view whatever their size, so they are placed over the content, not over the padded input.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Mapping
from typing import Any, Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from torchvision import tv_tensors
from torchvision.transforms import v2

from clarity_hf.boxes import Letterbox
from clarity_hf.deprecated import old_names
from clarity_hf.image_processing_clarity import ClarityImageProcessor
from clarity_hf.image_reading import read_image
from clarity_hf.labels import FINDINGS

from .drawn_findings import draw_findings
from .image_cache import ImageCache
from .priors import PRIOR_SIDE, load_atlas, no_prior, read_mask, soft_prior
from .rows import WrappedRows
from .thorax_segmenter import FINGERPRINT, ThoraxMasks, segment_thorax

Augmentation = Literal["full", "flip", "none"]
PriorSource = Literal["auto", "masks", "atlas", "none"]


class ImageTransform:
    """Turns `{"image", "labels", "thorax_mask"}` into the arguments of [`ClarityForMultiLabelLocalization`].

    The recipes of the field (Medical_MAE, EVA-X) add a light RandAugment to random crops and flips. Torchvision's
    version moves images only, not their masks. Here one affine transform, crop and flip is drawn for image and masks
    together, and exposure, RandAugment's other half, changes the image only.

    Args:
        image_processor: Determines size, proportions and normalisation, so that training sees what inference sees.
            Each channel may have its own mean and standard deviation, as for a teacher.
        augment: `"full"`, small rotations and shifts, random crops, flips and exposure; `"flip"`, the image or its
            mirror image; `"none"`. Drawn from torch's global random state, which [`TransformedDataset`] sets for each
            row.
        crop_scale: Smallest share of the area that a random crop keeps, in (0, 1].
        prior: Source of the thorax: `"auto"`, the row's own mask, else what [`segment_thorax`] finds, else the atlas;
            `"masks"`, the row's own mask, else unknown; `"atlas"`, always the atlas; `"none"`. An empty mask counts as
            no mask.
        image_cache: Folder in which images that have a file or bytes are kept decoded and resized, and the masks of
            the segmenter, see [`ImageCache`]; grey values are rounded to integers. None keeps nothing.
        blur: Largest standard deviation, in pixels of the input, of a Gaussian blur; that of each image is uniform in
            [0, `blur`]. Sharpness can reveal an image's source, and so its likely findings; random blur prevents that.
        draw_rate: Share of the rows without a finding into whose images findings are drawn, see [`draw_findings`].

    Raises:
        ValueError: `augment` or `prior` is unknown, `crop_scale` is outside (0, 1], `blur` is below 0 or comes with
            `augment` none or flip, `draw_rate` is outside [0, 1], or the processor leaves out a step of preprocessing.
    """

    def __init__(
        self,
        image_processor: ClarityImageProcessor,
        augment: Augmentation = "none",
        crop_scale: float = 0.7,
        prior: PriorSource = "auto",
        image_cache: str | os.PathLike | None = None,
        blur: float = 0.0,
        draw_rate: float = 0.0,
    ):
        for name, value, kind in (("augment", augment, Augmentation), ("prior", prior, PriorSource)):
            if value not in get_args(kind):
                raise ValueError(f"`{name}` must be one of {list(get_args(kind))}, got {value!r}. Choose one of them.")
        if not 0 < crop_scale <= 1:
            raise ValueError(f"`crop_scale` must be in (0, 1], got {crop_scale}. Give a share of the area.")
        if not (image_processor.do_resize and image_processor.do_rescale and image_processor.do_normalize):
            raise ValueError(
                "`image_processor` must resize, rescale and normalize, got one that leaves out a step. "
                "Use the defaults of ClarityImageProcessor."
            )
        if not 0 <= blur < math.inf or (blur and augment != "full"):
            raise ValueError(
                f"`blur` must be 0, or above 0 with augment 'full', got {blur} with '{augment}'. Give a standard "
                "deviation in pixels."
            )
        if not 0 <= draw_rate <= 1:
            raise ValueError(f"`draw_rate` must be in [0, 1], got {draw_rate}. Give a share of the normal images.")
        self.augment, self.prior, self.blur, self.draw_rate = augment, prior, blur, draw_rate
        self.images = None if image_cache is None else ImageCache(image_cache)
        self.size = (image_processor.size["height"], image_processor.size["width"])
        # Images to be cropped are larger, so that a crop of 3/4 of the area has the resolution of the input.
        self.canvas = tuple(side * 8 // 7 for side in self.size) if augment == "full" else self.size
        self.keep_ratio = image_processor.keep_ratio
        self.mean = torch.tensor(image_processor.image_mean, dtype=torch.float32)[:, None, None]
        self.std = torch.tensor(image_processor.image_std, dtype=torch.float32)[:, None, None]
        self.crops = v2.Compose(
            [
                # The default, nearest, is coarse for images; masks are always moved by nearest.
                v2.RandomAffine(
                    degrees=7, translate=(0.03, 0.03), interpolation=v2.InterpolationMode.BILINEAR, fill=0
                ),
                v2.RandomResizedCrop(self.size, scale=(crop_scale, 1.0), ratio=(0.85, 1.18), antialias=True),
                v2.ColorJitter(brightness=0.2, contrast=0.25),
            ]
        )

    def __call__(self, row: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        """Transform one row.

        Args:
            row: `image`, any source of [`read_image`] or the `{"path", "bytes"}` of an undecoded `datasets.Image`;
                `labels` `(F,)` of 1, 0, NaN; optionally `thorax_mask`, see [`read_mask`], over the same field of view
                as the image, or None; optionally `teacher_logits` `(V, F)`, V = 2 for the image and its mirror image,
                V = 1 for the image only.

        Returns:
            `pixel_values` `(C, H, W)`, `labels` `(F,)` float32; unless `prior` is `"none"`, `anatomical_prior`
            `(1, 56, 56)` in [0, 1], NaN if unknown; for a row with teacher logits, `teacher_logits` `(F,)` float32 of
            the whole image or, where the view is mirrored, of its mirror image; and with a `draw_rate` above 0
            `finding_masks` `(F, 56, 56)` in [0, 1], how much of each place a drawn finding covers. The labels of an
            image with drawn findings are NaN: these are schematic, and scores trained on them are worse on real
            findings.

        Raises:
            ValueError: The row's teacher logits are of another shape, or findings are to be drawn and its labels are
                not of `FINDINGS`.
        """
        labels = torch.as_tensor(np.asarray(row["labels"], dtype=np.float32))
        if self.draw_rate > 0 and labels.shape != (len(FINDINGS),):
            raise ValueError(
                f"`draw_rate` must be 0 where the labels are not the {len(FINDINGS)} of FINDINGS, got "
                f"{self.draw_rate} and labels {tuple(labels.shape)}. Other findings cannot be drawn."
            )
        drawn = self.draw_rate > 0 and bool((labels == 0).all()) and bool(torch.rand(()) < self.draw_rate)
        view = self.view({"image": row["image"], "thorax_mask": row.get("thorax_mask")}, draw=drawn)
        result = {"pixel_values": (torch.as_tensor(view["image"]) - self.mean) / self.std, "labels": labels}
        if self.draw_rate > 0:
            masks = view["findings"]
            masks = torch.zeros(len(FINDINGS), PRIOR_SIDE, PRIOR_SIDE) if masks is None else masks
            result["finding_masks"] = F.adaptive_avg_pool2d(masks.float(), PRIOR_SIDE)
            if result["finding_masks"].any():
                result["labels"] = torch.full_like(labels, float("nan"))
        if self.prior != "none":
            thorax = view["thorax"]
            result["anatomical_prior"] = no_prior() if thorax is None else soft_prior(thorax)
        if row.get("teacher_logits") is not None:
            result["teacher_logits"] = self._logits_of_view(row["teacher_logits"], view["mirrored"])
        return result

    def view(self, row: Mapping[str, Any], draw: bool = False) -> dict[str, Any]:
        """Draw a view of one row: its geometry before anything is normalised, dilated or averaged.

        Args:
            row: `image` and optionally `thorax_mask` as in a call.
            draw: Whether findings are drawn into the image, if the segmenter finds lungs and heart in it.

        Returns:
            - `image`: `tv_tensors.Image` `(1, H, W)` float32 in [0, 1];
            - `thorax`: `tv_tensors.Mask` `(1, H, W)` float32 in [0, 1], 0 and 1 for a mask, or None;
            - `findings`: `tv_tensors.Mask` `(14, H, W)` of 0 and 1, where findings were drawn, or None;
            - `mirrored`: whether the image's left is on the view's right.
        """
        content, box = self._content(row["image"])
        mask = read_mask(row.get("thorax_mask")) if self.prior in ("auto", "masks") else None
        segmented = self.prior == "auto" and mask is None
        structures = self._structures(row["image"], content) if segmented or draw else None
        if segmented and structures is not None:
            mask = structures.hull.astype(np.uint8)
        findings = None
        if draw and structures is not None:
            changed, drawn = draw_findings(content[0].numpy(), structures, seed=int(torch.randint(0, 2**31, ())))
            content, findings = torch.from_numpy(changed)[None], torch.from_numpy(drawn.astype(np.uint8))
        parts: dict[str, Any] = {
            "image": tv_tensors.Image(_pad(content, box)),
            "thorax": self._thorax(mask, box),
            "findings": None if findings is None else tv_tensors.Mask(_pad(findings, box)),
        }
        if self.augment == "full":
            parts = self.crops(parts)
        mirrored = self.augment != "none" and bool(torch.rand(()) < 0.5)
        if mirrored:
            parts = {name: part if part is None else v2.functional.hflip(part) for name, part in parts.items()}
        if self.blur:
            sigma = self.blur * float(torch.rand(())) + 1e-3
            kernel = 2 * math.ceil(3 * sigma) + 1
            parts["image"] = v2.functional.gaussian_blur(parts["image"], [kernel, kernel], [sigma, sigma])
        image = tv_tensors.Image(torch.as_tensor(parts["image"]).clamp(0, 1))
        return parts | {"image": image, "mirrored": mirrored}

    def _content(self, source: Any) -> tuple[torch.Tensor, Letterbox]:
        """The image `(1, h, w)` float32 in [0, 1] in its size on the canvas, and its letterbox."""
        if self.images is None:
            return self._reduced(source)
        kept, size = self.images.content(
            source, f"{self.canvas} {self.keep_ratio}", lambda: self._reduced_in_grey_values(source)
        )
        content = torch.from_numpy(np.divide(kept, 255, dtype=np.float32))[None]
        return content, Letterbox.fit(size, self.canvas, self.keep_ratio)

    def _reduced(self, source: Any) -> tuple[torch.Tensor, Letterbox]:
        image = torch.from_numpy(np.divide(read_source(source), 255, dtype=np.float32))[None]
        box = Letterbox.fit(tuple(image.shape[-2:]), self.canvas, self.keep_ratio)
        return v2.functional.resize(image, list(box.content), antialias=True), box

    def _reduced_in_grey_values(self, source: Any) -> tuple[np.ndarray, tuple[int, int]]:
        content, box = self._reduced(source)
        return content[0].numpy() * 255, box.image

    def _structures(self, source: Any, content: torch.Tensor) -> ThoraxMasks | None:
        """What the segmenter finds in the content `(1, h, w)`, from the cache if there is one."""

        def coded() -> tuple[np.ndarray, tuple[int, int]]:
            found = segment_thorax(content[0])
            masks = np.zeros((len(ThoraxMasks._fields), *content.shape[-2:]), bool) if found is None else found
            return np.packbits(masks, axis=0, bitorder="little")[0], (content.shape[-2], content.shape[-1])

        if self.images is None:
            code = coded()[0]
        else:
            code = self.images.content(source, f"{FINGERPRINT} {self.canvas} {self.keep_ratio}", coded)[0]
        masks = np.unpackbits(code[None], axis=0, bitorder="little")[: len(ThoraxMasks._fields)].astype(bool)
        return ThoraxMasks(*masks) if masks.any() else None

    def _thorax(self, mask: np.ndarray | None, box: Letterbox) -> tv_tensors.Mask | None:
        """The prior's source placed over the image's content on the canvas."""
        if mask is not None:
            laid = F.interpolate(torch.from_numpy(mask)[None, None], size=box.content, mode="nearest-exact")[0].float()
        elif self.prior in ("auto", "atlas"):
            laid = F.interpolate(load_atlas()[None], size=box.content, mode="bilinear", antialias=True)[0]
        else:
            return None
        return tv_tensors.Mask(_pad(laid, box))

    def _logits_of_view(self, logits: Any, mirrored: bool) -> torch.Tensor:
        views = torch.as_tensor(np.asarray(logits, dtype=np.float32))
        needed = 1 if self.augment == "none" else 2
        if views.ndim != 2 or not needed <= len(views) <= 2:
            raise ValueError(
                f"`teacher_logits` must be (V, F) with V = {'2' if needed == 2 else '1 or 2'} for augment "
                f"'{self.augment}', got {tuple(views.shape)}. Give the logits of the image"
                f"{' and of its mirror image' if needed == 2 else ', and of its mirror image if you like'}."
            )
        return views[int(mirrored)]


class TransformedDataset(WrappedRows, torch.utils.data.Dataset):
    """A map-style data set seen through a transform.

    The randomness of a row depends on seed, epoch and index only, so a resumed run sees the same crops.

    Args:
        rows: The data set.
        transform: Applied to each row.
        seed: Of the augmentation.
    """

    def __init__(self, rows: Any, transform: ImageTransform, seed: int = 0):
        super().__init__(rows)
        self.transform, self.seed, self.epoch = transform, seed, 0

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        """Row `index`, transformed."""
        row = self.rows[index]
        if self.transform.augment == "none":
            return self.transform(row)
        return seeded(self.transform, row, f"{self.seed} {self.epoch} {index}".encode())

    def set_epoch(self, epoch: int) -> None:
        """Draw other augmentations in every epoch, and other images if the data set does."""
        self.epoch = epoch
        super().set_epoch(epoch)


def seeded(transform: ImageTransform, row: Mapping[str, Any], key: bytes) -> dict[str, torch.Tensor]:
    """Transform a row with random numbers that depend on `key` only; the global random state is not changed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int.from_bytes(hashlib.blake2b(key, digest_size=8).digest()) >> 1)
        return transform(row)


def read_source(source: Any) -> np.ndarray:
    """Read an image from a cell of a data set: `(H, W)` in [0, 255].

    `source` is as in [`read_image`], or the `{"path", "bytes"}` of a `datasets.Image(decode=False)`, whose path errors
    name.
    """
    if isinstance(source, Mapping):
        name = source.get("path") or "image"
        return read_image(source["path"] if source.get("bytes") is None else source["bytes"], name)
    return read_image(source)


def _pad(content: torch.Tensor, box: Letterbox) -> torch.Tensor:
    """From the size of the content to that of the input, black around it."""
    right, bottom = box.input[1] - box.left - box.content[1], box.input[0] - box.top - box.content[0]
    return F.pad(content, (box.left, right, box.top, bottom))


__getattr__ = old_names(__name__)
