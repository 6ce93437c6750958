# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""From a row of a data set to the tensors of a training step: image, thorax and boxes through one geometry.

Frames: an image lies in the input as [`Letterbox`] says, its *content*, the rest black. A mask and the atlas cover the
image's field of view whatever their size in pixels, so they are laid over the content, not over the padded input.
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

from .drawn_findings import draw_findings, masks_by_finding
from .image_cache import ImageCache
from .priors import PRIOR_SIDE, load_atlas, no_prior, read_mask, soft_prior
from .thorax_segmenter import FINGERPRINT, ThoraxMasks, segment_thorax

Augmentation = Literal["full", "flip", "none"]
PriorSource = Literal["auto", "masks", "atlas", "none"]

KEPT_BOX_SHARE = 0.25
"""Share of a box's own area that must stay in the view; of what is left of a smaller part no reader could say what it
is a part of."""


class ImageTransform:
    """Turns `{"image", "labels", "thorax_mask"}` into the arguments of [`ClarityForMultiLabelLocalization`].

    The recipes of the field (Medical_MAE, EVA-X) add a light RandAugment to random crops and flips. Torchvision's
    moves images alone: an image sheared or rotated by it would leave its mask and boxes behind. Here one affine
    transform, crop and flip is drawn for image, thorax and boxes together, and exposure, RandAugment's other half,
    changes the image alone.

    Args:
        image_processor: Gives size, proportions and normalisation, so that training sees what inference sees. Its
            channels may be normalised each by its own mean and standard deviation, as a teacher's are.
        augment: `"full"`, small rotations and shifts, random crops, flips and exposure; `"flip"`, the image as it is
            or mirrored, two fixed views for which a teacher's logits can be kept; `"none"`. Drawn from torch's global
            random state; [`TransformedDataset`] sets it for each row.
        crop_scale: Smallest share of the area that a random crop keeps, in (0, 1].
        prior: Where the thorax comes from: `"auto"`, the row's own mask, else what [`segment_thorax`] finds, else,
            where it finds nothing, the atlas; `"masks"`, the row's own mask, else unknown; `"atlas"`, the atlas
            always; `"none"`, nowhere. An empty mask counts as no mask.
        image_cache: Folder in which images that have a file or bytes are kept decoded and reduced, see [`ImageCache`];
            their grey values are whole then, so up to half a grey value from those without it. What the segmenter
            found is kept there too. None keeps nothing.
        blur: Largest standard deviation, in pixels of the input, of a Gaussian that blurs each image; its own is drawn
            evenly from [0, `blur`]. Images of one finding often come from one source, and how sharp an image is tells
            its source; what varies at random teaches nothing. 0 blurs nothing.
        draw_rate: Share of the rows without a finding into whose images findings are drawn, see [`draw_findings`].

    Raises:
        ValueError: `augment` or `prior` is unknown, `crop_scale` is outside (0, 1], `blur` is below 0 or comes with
            `augment` none or flip, `draw_rate` is outside [0, 1], or the processor leaves out a step of
            preprocessing, which training would not repeat.
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
        for name, value, choices in (
            ("augment", augment, get_args(Augmentation)),
            ("prior", prior, get_args(PriorSource)),
        ):
            if value not in choices:
                raise ValueError(f"`{name}` must be one of {list(choices)}, got {value!r}. Choose one of them.")
        if not 0 < crop_scale <= 1:
            raise ValueError(f"`crop_scale` must be inside (0, 1], got {crop_scale}. Give a share of the area.")
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
        # Cropped images lie on a larger canvas, so that a crop of 3/4 of its area has the resolution of the input.
        self.canvas = tuple(side * 8 // 7 for side in self.size) if augment == "full" else self.size
        self.keep_ratio = image_processor.keep_ratio
        self.mean = torch.tensor(image_processor.image_mean, dtype=torch.float32)[:, None, None]
        self.std = torch.tensor(image_processor.image_std, dtype=torch.float32)[:, None, None]
        self.crops = v2.Compose(
            [
                # The default, nearest, leaves stairs in a rotated image; masks are moved by nearest in any case.
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
                as the image and of any size, or None; optionally `teacher_logits` `(V, F)` of the fixed views, V = 2
                for the image as it is and mirrored, V = 1 for the first alone.

        Returns:
            `pixel_values` `(C, H, W)`, `labels` `(F,)` float32; unless `prior` is `"none"`, `anatomical_prior`
            `(1, 56, 56)` in [0, 1], NaN throughout where it is unknown; for a row with teacher logits
            `teacher_logits` `(F,)` float32 of the view that was drawn; and with a `draw_rate` above 0 `finding_masks`
            `(F, 56, 56)` in [0, 1], how much of each place a drawn finding covers. The labels of an image with one
            are NaN: what is drawn is schematic, and scores that learn from it get worse on real findings.

        Raises:
            ValueError: The row has teacher logits that `augment` has no use for, or of another shape, or findings are
                to be drawn and its labels are not of `FINDINGS`.
        """
        labels = torch.as_tensor(np.asarray(row["labels"], dtype=np.float32))
        if self.draw_rate > 0 and labels.shape != (len(FINDINGS),):
            raise ValueError(
                f"`draw_rate` must be 0 where the labels are not the {len(FINDINGS)} of FINDINGS, got "
                f"{self.draw_rate} and labels {tuple(labels.shape)}. Painters know no others."
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

    def view(
        self, row: Mapping[str, Any], box_frame: int | tuple[int, int] | None = None, draw: bool = False
    ) -> dict[str, Any]:
        """Draw a view of one row: its geometry before anything is normalised, dilated or averaged.

        Args:
            row: `image` and optionally `thorax_mask` as in a call, and `boxes` `(n, 4)` xyxy, right and bottom
                exclusive.
            box_frame: Frame of `boxes`, over the same field of view as the image: a side, or `(height, width)`, in
                pixels. By default the image's own pixels; for rows of [`load_nih`] `BOX_FRAME`, whatever the size of
                the file.
            draw: Whether findings are drawn into the image, where the segmenter finds lungs and heart in it.

        Returns:
            - `image`: `tv_tensors.Image` `(1, H, W)` float32 in [0, 1];
            - `thorax`: `tv_tensors.Mask` `(1, H, W)` float32 in [0, 1], 0 and 1 for a mask, or None;
            - `boxes`: `tv_tensors.BoundingBoxes` `(n, 4)` float32 xyxy in pixels of the view, or None for a row
              without `boxes`. A rotated box becomes the upright box around it. Boxes are cut to the view, and those
              of which less than a quarter of their own area is in it are left out;
            - `findings`: `tv_tensors.Mask` `(14, H, W)` of 0 and 1, where findings were drawn, or None;
            - `kept`: `(n,)` int64, which of the row's boxes these are, or None;
            - `mirrored`: whether the image's left is on the view's right.

        Raises:
            ValueError: The boxes are not `(n, 4)` with a positive size inside their frame.
        """
        content, box = self._content(row["image"])
        mask = read_mask(row.get("thorax_mask")) if self.prior in ("auto", "masks") else None
        segmented = self.prior == "auto" and mask is None
        structures = self._structures(row["image"], content) if segmented or draw else None
        if segmented and structures is not None:
            mask = structures.hull.astype(np.uint8)
        findings = None
        if draw and structures is not None:
            seed = int(torch.randint(0, 2**31, ()))
            content, findings = _with_findings(content, structures, seed)
        parts: dict[str, Any] = {
            "image": tv_tensors.Image(_pad(content, box)),
            "thorax": self._thorax(mask, box),
            "findings": None if findings is None else tv_tensors.Mask(_pad(findings, box)),
            "boxes": _lay_boxes(row["boxes"], box_frame, box) if row.get("boxes") is not None else None,
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
        boxes, kept = _cut_to_view(parts["boxes"], self.size)
        image = tv_tensors.Image(torch.as_tensor(parts["image"]).clamp(0, 1))
        return parts | {"image": image, "boxes": boxes, "kept": kept, "mirrored": mirrored}

    def _content(self, source: Any) -> tuple[torch.Tensor, Letterbox]:
        """The image `(1, h, w)` float32 in [0, 1] at the size that it has on the canvas, and how it lies there."""
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
        """What the segmenter finds in the content `(1, h, w)`, from the cache where there is one."""

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
        """The prior's source laid over the image's content on the canvas."""
        if mask is not None:
            laid = F.interpolate(torch.from_numpy(mask)[None, None], size=box.content, mode="nearest-exact")[0].float()
        elif self.prior in ("auto", "atlas"):
            laid = F.interpolate(load_atlas()[None], size=box.content, mode="bilinear", antialias=True)[0]
        else:
            return None
        return tv_tensors.Mask(_pad(laid, box))

    def _logits_of_view(self, logits: Any, mirrored: bool) -> torch.Tensor:
        views = torch.as_tensor(np.asarray(logits, dtype=np.float32))
        if self.augment == "full":
            raise ValueError(
                "`augment` must be 'flip' or 'none' for rows with `teacher_logits`, got 'full': cached logits serve "
                "fixed views. Change it, or run the teacher on each view."
            )
        needed = 2 if self.augment == "flip" else 1
        if views.ndim != 2 or not needed <= len(views) <= 2:
            raise ValueError(
                f"`teacher_logits` must be (V, F) with V = {'2' if needed == 2 else '1 or 2'} for augment "
                f"'{self.augment}', got {tuple(views.shape)}. Give the logits of the image as it is"
                f"{' and mirrored' if needed == 2 else ', and mirrored if you like'}."
            )
        return views[int(mirrored)]


class TransformedDataset(torch.utils.data.Dataset):
    """A map-style data set seen through a transform.

    The randomness of a row depends on seed, epoch and index alone, not on the worker that reads it or on what was read
    before: a run that is resumed sees the crops that it would have seen.

    Args:
        rows: The data set.
        transform: Applied to each row.
        seed: Of the augmentation.
    """

    def __init__(self, rows: Any, transform: ImageTransform, seed: int = 0):
        self.rows, self.transform, self.seed, self.epoch = rows, transform, seed, 0

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        """Row `index`, transformed."""
        row = self.rows[index]
        if self.transform.augment == "none":
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
    """Read an image from what a data set's cell holds: `(H, W)` in [0, 255].

    Args:
        source: As in [`read_image`], or the `{"path", "bytes"}` of a `datasets.Image(decode=False)`; errors name the
            path where there is one.
    """
    if isinstance(source, Mapping):
        name = source.get("path") or "image"
        return read_image(source["path"] if source.get("bytes") is None else source["bytes"], name)
    return read_image(source)


def _with_findings(
    content: torch.Tensor, structures: ThoraxMasks, seed: int
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """An image `(1, h, w)` with findings drawn into it, and where, `(14, h, w)`; as it is where it has no heart."""
    if not (structures.heart.any() and structures.left_lung.any() and structures.right_lung.any()):
        return content, None
    drawn = draw_findings(content[0].numpy(), structures, seed)
    return torch.from_numpy(drawn.image)[None], masks_by_finding(drawn, FINDINGS).to(torch.uint8)


def _pad(content: torch.Tensor, box: Letterbox) -> torch.Tensor:
    """From the content's size to the input's, black around it."""
    right, bottom = box.input[1] - box.left - box.content[1], box.input[0] - box.top - box.content[0]
    return F.pad(content, (box.left, right, box.top, bottom))


def _lay_boxes(
    boxes: Any, frame: int | tuple[int, int] | None, letterbox: Letterbox
) -> tv_tensors.BoundingBoxes:
    """Boxes `(n, 4)` of a frame over the image, as they lie on the canvas."""
    laid = np.asarray(boxes, dtype=np.float64)
    laid = laid.reshape(-1, 4) if laid.size == 0 else laid
    height, width = letterbox.image if frame is None else (frame, frame) if isinstance(frame, int) else frame
    shaped = laid.ndim == 2 and laid.shape[1] == 4
    # A pixel beyond the edge is rounding; more means another frame, and every box would lie elsewhere.
    if not shaped or not (
        (laid[:, :2] >= -1).all()
        and (laid[:, 2:] > laid[:, :2]).all()
        and (laid[:, 2:] <= np.array([width, height]) + 1).all()
    ):
        raise ValueError(
            f"`boxes` must be (n, 4) xyxy of positive size inside {width}×{height} pixels, got {laid.tolist()}. Give "
            "their frame as `box_frame` (BOX_FRAME for rows of load_nih)."
        )
    laid = letterbox.to_input(laid * (np.array(letterbox.image[::-1] * 2) / np.array([width, height] * 2)))
    # Not cut on the way: what an affine transform moves out of the canvas is part of the box that is measured last.
    return tv_tensors.BoundingBoxes(
        torch.from_numpy(laid).float(), format="XYXY", canvas_size=letterbox.input, clamping_mode=None
    )


def _cut_to_view(
    boxes: tv_tensors.BoundingBoxes | None, size: tuple[int, int]
) -> tuple[tv_tensors.BoundingBoxes | None, torch.Tensor | None]:
    """Boxes cut to the view without those of which too little is left, and their indices."""
    if boxes is None:
        return None, None
    whole = boxes.as_subclass(torch.Tensor)
    cut = torch.minimum(whole.clamp_min(0), torch.tensor([size[1], size[0]] * 2, dtype=whole.dtype))
    areas, left = ((b[:, 2:] - b[:, :2]).prod(-1) for b in (whole, cut))
    kept = torch.nonzero(left >= KEPT_BOX_SHARE * areas)[:, 0]
    return tv_tensors.BoundingBoxes(cut[kept], format="XYXY", canvas_size=size), kept

__getattr__ = old_names(__name__)
