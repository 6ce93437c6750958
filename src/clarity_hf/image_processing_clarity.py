# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Image processor of CLARiTy: pixels in, boxes out."""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torchvision.transforms.v2 import functional as tvF
from transformers.feature_extraction_utils import BatchFeature
from transformers.image_processing_backends import TorchvisionBackend
from transformers.image_utils import PILImageResampling, SizeDict
from transformers.processing_utils import ImagesKwargs

from .boxes import Letterbox, boxes_from_map
from .image_reading import read_image
from .labels import checked_shares
from .plain_card import replace_draft

IMAGE_MEAN = 0.5056
IMAGE_STD = 0.252
"""Mean and standard deviation of NIH images in [0, 1], as used by Medical_MAE (Xiao et al., WACV 2023)."""

MAX_INPUT_PIXELS = 4096**2
"""Of an image as the model sees it; more would be a mistake in a file of settings, and fill the memory."""


class ClarityImageProcessorKwargs(ImagesKwargs, total=False):
    """keep_ratio (`bool`, *optional*, defaults to `True`):
    Whether an image keeps its proportions and is padded with black to `size`, or is squashed to it.
    """

    keep_ratio: bool


class ClarityImageProcessor(TorchvisionBackend):
    r"""Prepares images for [`ClarityForMultiLabelLocalization`] and turns its outputs into boxes.

    An image is read to one channel in [0, 255] (deep images are scaled, not clipped, see [`read_image`]), resized with
    antialiasing to fit `size`, centred on black, scaled to [0, 1], normalised, and repeated to three channels (to as
    many as `image_mean` has) last.

    Args:
        size (`dict`, *optional*): Size of `pixel_values`, by default `{"height": 224, "width": 224}`.
        keep_ratio (`bool`, defaults to `True`): Pad (the cardiothoracic ratio survives) or squash.
        resample (`PILImageResampling`, defaults to `BILINEAR`): Filter of the resize.
        do_resize (`bool`, defaults to `True`): Whether images are fitted to `size`.
        do_rescale (`bool`, defaults to `True`): Whether values are multiplied by `rescale_factor`.
        do_normalize (`bool`, defaults to `True`): Whether values are normalised.
        rescale_factor (`float`, defaults to 1/255): Factor of the scaling.
        image_mean (list of C, defaults to `[0.5056, 0.5056, 0.5056]`): Mean of the normalisation, on the [0, 1]
            scale; its length is the number of channels C of `pixel_values`.
        image_std (list of C, defaults to `[0.252, 0.252, 0.252]`): Standard deviation of the normalisation, on the
            [0, 1] scale.

    Raises:
        ValueError: A mean is not finite, or a standard deviation or the factor not above 0 and finite.

    Example:
        >>> import numpy as np
        >>> from clarity_hf import ClarityImageProcessor
        >>> image = np.random.default_rng(0).integers(0, 4096, (2500, 2048), dtype=np.uint16)
        >>> ClarityImageProcessor()(image, return_tensors="pt").pixel_values.shape
        torch.Size([1, 3, 224, 224])
    """

    valid_kwargs = ClarityImageProcessorKwargs
    resample = PILImageResampling.BILINEAR
    image_mean = [IMAGE_MEAN] * 3
    image_std = [IMAGE_STD] * 3
    size = {"height": 224, "width": 224}
    do_resize = True
    do_rescale = True
    do_normalize = True
    keep_ratio = True
    model_input_names = ["pixel_values"]

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        _check_normalisation(self.image_mean, self.image_std, self.rescale_factor)

    def _upload_modified_files(self, working_dir: str, repo_id: str, *args: Any, **kwargs: Any) -> Any:
        """Of `push_to_hub`: the repository's own card stays, a draft of the library gives way to a plain one."""
        replace_draft(working_dir, repo_id)
        return super()._upload_modified_files(working_dir, repo_id, *args, **kwargs)

    def letterbox(self, image_size: tuple[int, int], **kwargs: Any) -> Letterbox:
        """How this processor places an image of `(height, width)` pixels in the model's input."""
        if not kwargs.get("do_resize", self.do_resize):
            return Letterbox.fit(tuple(image_size), tuple(image_size))
        size = kwargs.get("size", self.size)
        keep_ratio = kwargs.get("keep_ratio", self.keep_ratio)
        return Letterbox.fit(image_size, _checked_size(size["height"], size["width"]), keep_ratio)

    def _prepare_images_structure(self, images: Any, expected_ndims: int = 3) -> list[Any]:
        """One image, a list of images or an array (B, ...) of them → a flat list."""
        if isinstance(images, list | tuple):
            nested = all(isinstance(image, list | tuple) for image in images)
            images = [image for image in images for image in image] if nested else list(images)
            if not images:
                raise ValueError("`images` must hold at least one image, got an empty list. Pass an image.")
            return images
        if getattr(images, "ndim", 0) == 4:
            return list(images)
        return [images]

    def process_image(self, image: Any, **kwargs: Any) -> torch.Tensor:
        """Read one radiograph: any source of [`read_image`] → `(1, H, W)` uint8 or float32 in [0, 255]."""
        pixels = read_image(image)  # may be the caller's own array, and a read-only one makes torch warn
        radiograph = torch.from_numpy(pixels if pixels.flags.writeable else pixels.copy())[None]
        device = kwargs.get("device")
        return radiograph if device is None else radiograph.to(device)

    def _preprocess(
        self,
        images: list[torch.Tensor],
        do_resize: bool,
        size: SizeDict,
        resample: Any,
        do_rescale: bool,
        rescale_factor: float,
        do_normalize: bool,
        image_mean: float | Sequence[float] | None,
        image_std: float | Sequence[float] | None,
        keep_ratio: bool,
        return_tensors: str | None = None,
        **kwargs: Any,
    ) -> BatchFeature:
        """Images `(1, H, W)` in [0, 255] → `pixel_values` `(B, C, H, W)`, C the length of `image_mean`."""
        _check_normalisation(image_mean, image_std, rescale_factor)
        channels = len(image_mean) if isinstance(image_mean, Sequence) else 3
        wanted = _checked_size(size.height, size.width) if do_resize else None
        radiographs = []
        for radiograph in images:
            if wanted is not None:
                radiograph = self._fit(radiograph, Letterbox.fit(radiograph.shape[-2:], wanted, keep_ratio), resample)
            radiograph = radiograph.expand(channels, -1, -1)
            radiographs.append(
                self.rescale_and_normalize(radiograph, do_rescale, rescale_factor, do_normalize, image_mean, image_std)
            )
        stackable = return_tensors is not None or len({radiograph.shape for radiograph in radiographs}) == 1
        return BatchFeature(
            {"pixel_values": torch.stack(radiographs) if stackable else radiographs}, tensor_type=return_tensors
        )

    def _fit(self, image: torch.Tensor, box: Letterbox, resample: Any) -> torch.Tensor:
        height, width = box.content
        resize = self._resize_by_fours if _has_kernel_of_fours(image, resample) else self._resize_plainly
        image = resize(image, height, width, resample)
        right, bottom = box.input[1] - box.left - width, box.input[0] - box.top - height
        return tvF.pad(image, [box.left, box.top, right, bottom], fill=0) if (height, width) != box.input else image

    def _resize_plainly(self, image: torch.Tensor, height: int, width: int, resample: Any) -> torch.Tensor:
        return self.resize(image, SizeDict(height=height, width=width), resample=resample, antialias=True)

    def _resize_by_fours(self, image: torch.Tensor, height: int, width: int, resample: Any) -> torch.Tensor:
        """The very values of `_resize_plainly` in a third of its time.

        The kernel works on four channels, and fills three where there is one. It resizes each row, rounds, and then
        each column, none of which sees its neighbours: so four rows, and then four columns, stand for channels here.
        """
        rows, columns = image.shape[-2:]
        by_row = _filled(image[0], below=-rows % 4).reshape(4, -1, columns)
        narrow = self._resize_plainly(by_row, by_row.shape[1], width, resample).reshape(-1, width)[:rows]
        by_column = _filled(narrow, right=-width % 4).reshape(rows, -1, 4).permute(2, 0, 1)
        short = self._resize_plainly(by_column, height, by_column.shape[2], resample)
        return short.permute(1, 2, 0).reshape(1, height, -1)[..., :width]

    def post_process_localization(
        self,
        outputs: Any,
        score_thresholds: float | Sequence[float] | None = None,
        map_thresholds: float | Sequence[float] | None = None,
        target_sizes: torch.Tensor | Sequence[tuple[int, int]] | None = None,
        components: Literal["largest", "all"] | None = None,
        upsampling: int | None = None,
        valleys: float | Sequence[float] | None = None,
    ) -> list[dict[str, torch.Tensor]]:
        """Turn the model's outputs into boxes, those of the pipeline.

        Thresholds and rules come with the outputs, from the config of the model that gave them; what a call states
        goes before. The images are taken to have been prepared with this processor's own `size`, `keep_ratio` and
        `do_resize`; a call that overrode one of them needs a processor that has it for itself.

        Args:
            outputs: [`ClarityLocalizationOutput`] with `scores` `(B, F)` in [0, 1], `localization_maps`
                `(B, F, h, w)` and `box_settings` `(B, F, 5)`.
            score_thresholds: Score in [0, 1] from which a finding is present and gets boxes, one value or one per
                finding; 0 gives every finding boxes.
            map_thresholds: Share of a map's own peak, in (0, 1), from which a pixel is inside a box; one value or one
                per finding.
            target_sizes: `(height, width)` of the B original images; `None` leaves boxes in pixels of the model's
                input.
            components: `"largest"` region of a map or `"all"`.
            upsampling: Factor from the patch grid to the grid on which maps are thresholded.
            valleys: Share of the lower of two peaks, in [0, 1], under which a map must fall between them for a region
                to be divided there; one value or one per finding, 0 leaves connected regions whole.

        Returns:
            One dict an image, its tensors on the CPU:
            - `finding_scores` `(F,)` in [0, 1], every finding's score;
            - `scores` `(n,)`, `labels` `(n,)` int64 and `boxes` `(n, 4)` float32: one row per box, xyxy in pixels of
              the original image, right and bottom exclusive. A present finding whose map is zero has no box, and
              without `score_thresholds` neither has one of the config's `boxless_findings`.

        Raises:
            ValueError: `target_sizes` has another length than the batch, thresholds have another than the findings or
                are out of range, neither the outputs nor the call say by what to draw, or scores or maps are not
                finite.
        """
        scores = outputs.scores.detach().float().cpu()
        maps = outputs.localization_maps.detach().float().cpu().numpy()
        check_outputs(scores.numpy(), maps)
        if components not in ("largest", "all", None):
            raise ValueError(f"`components` must be 'largest' or 'all', got {components!r}. Choose one of them.")
        if upsampling is not None and (isinstance(upsampling, bool) or upsampling not in range(1, 65)):
            raise ValueError(f"`upsampling` must be a whole number from 1 to 64, got {upsampling!r}. 8 is usual.")
        settings = _box_settings(
            outputs,
            score_thresholds=score_thresholds,
            map_thresholds=map_thresholds,
            valleys=valleys,
            components=None if components is None else float(components == "all"),
            upsampling=upsampling,
        )
        results = []
        for row, box in enumerate(self._letterboxes(len(scores), target_sizes)):
            labels: list[int] = []
            boxes: list[np.ndarray] = []
            for finding in np.flatnonzero(scores[row].numpy() >= settings[row, :, 0]):
                _, share, valley, every, factor = settings[row, finding].tolist()
                found = boxes_from_map(
                    maps[row, finding], box, share, "all" if every else "largest", round(factor), valley
                )
                labels += [int(finding)] * len(found)
                boxes.extend(found)
            index = torch.tensor(labels, dtype=torch.long)
            results.append(
                {
                    "finding_scores": scores[row],
                    "scores": scores[row][index],
                    "labels": index,
                    "boxes": torch.from_numpy(np.array(boxes, dtype=np.float32).reshape(-1, 4)),
                }
            )
        return results

    def post_process_maps(
        self,
        outputs: Any,
        target_sizes: torch.Tensor | Sequence[tuple[int, int]] | None = None,
        findings: Sequence[int] | None = None,
    ) -> list[torch.Tensor]:
        """Lay localization maps over the images they belong to: padding cut away, upsampled bilinearly.

        As for `post_process_localization`, the images are taken to be prepared with this processor's own settings.

        Args:
            outputs: As in `post_process_localization`.
            target_sizes: `(height, width)` of the B original images; `None` for the model's input.
            findings: Indices of the findings whose maps are wanted, in that order; all by default. A map of an image
                of 25 megapixels takes 100 MB.

        Returns:
            Per image a tensor `(F, H, W)` float32 of the maps' own scale, values ≥ 0, F the number of maps wanted.

        Raises:
            ValueError: `target_sizes` has another length than the batch, or maps are not finite.
        """
        maps = outputs.localization_maps.detach().float().cpu()
        check_outputs(None, maps.numpy())
        if findings is not None:
            maps = maps[:, list(findings)]
        laid = []
        for row, box in zip(maps, self._letterboxes(len(maps), target_sizes), strict=True):
            over_input = F.interpolate(row[None], size=box.input, mode="bilinear", align_corners=False)
            height, width = box.content
            content = over_input[..., box.top : box.top + height, box.left : box.left + width]
            if (height, width) != box.image:
                content = F.interpolate(content, size=box.image, mode="bilinear", align_corners=False)
            laid.append(content[0])
        return laid

    def _letterboxes(self, count: int, target_sizes: Any) -> list[Letterbox]:
        if target_sizes is None:
            target_sizes = [(self.size["height"], self.size["width"])] * count
        if len(target_sizes) != count:
            raise ValueError(
                f"`target_sizes` must have one (height, width) per image ({count}), got {len(target_sizes)}. "
                "Pass the sizes of this batch's images."
            )
        return [self.letterbox((int(height), int(width))) for height, width in target_sizes]


def _checked_size(height: int | None, width: int | None) -> tuple[int, int]:
    """`(height, width)` of the model's input, of a size that a memory holds."""
    if height is None or width is None:  # such as a shortest edge
        raise ValueError(f"`size` must have a height and a width, got {height} and {width}. Give both in pixels.")
    if min(height, width) < 1 or height * width > MAX_INPUT_PIXELS:
        raise ValueError(
            f"`size` must have 1 to {MAX_INPUT_PIXELS} pixels, got {height}×{width}. Give the size of the model's "
            "input."
        )
    return height, width


def _has_kernel_of_fours(image: torch.Tensor, resample: Any) -> bool:
    """Whether torchvision resizes such an image in whole grey values, by the kernel of these processors."""
    return (
        image.dtype == torch.uint8
        and image.device.type == "cpu"
        and resample == PILImageResampling.BILINEAR
        and torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")
    )


def _filled(image: torch.Tensor, right: int = 0, below: int = 0) -> torch.Tensor:
    """An image `(H, W)` with zeros beside it; where none are wanted it is not copied."""
    return F.pad(image, (0, right, 0, below)) if right or below else image


def _box_settings(outputs: Any, **given: float | Sequence[float] | None) -> np.ndarray:
    """What boxes are drawn by, `(B, F, 5)` float64: what the call gives, by the outputs' columns, else their own."""
    batch, count = outputs.scores.shape
    carried = getattr(outputs, "box_settings", None)
    missing = [name for name, values in given.items() if values is None]
    if carried is None and missing:
        raise ValueError(
            f"`outputs` must carry `box_settings`, as those of ClarityForMultiLabelLocalization do, or {missing} must "
            "be given, got neither. Pass the model's outputs on whole."
        )
    settings = np.zeros((batch, count, len(given))) if carried is None else carried.detach().cpu().double().numpy()
    settings = settings.copy()  # the outputs' own tensor may be shared between images
    for column, (name, values) in enumerate(given.items()):
        if values is not None:
            whole = name == "upsampling"
            settings[:, :, column] = values if whole else checked_shares(name, values, count, name == "map_thresholds")
    return settings


def check_outputs(scores: np.ndarray | None, maps: np.ndarray, model: str = "outputs") -> None:
    """Refuse what a broken model gives, before anything is made of it.

    Args:
        scores: Of any shape, or None.
        maps: Of any shape.
        model: What the message calls the model, no path.

    Raises:
        ValueError: A score is outside [0, 1], or a value of a map is negative or not finite.
    """
    for name, values, high in (("scores", scores, 1.0), ("localization maps", maps, float(np.finfo(np.float32).max))):
        if values is not None and not ((values >= 0) & (values <= high)).all():
            strange = values[~((values >= 0) & (values <= high))][0]
            raise ValueError(
                f"`{model}` must give finite {name} {'in [0, 1]' if high == 1 else 'from 0 on'}, got {strange}. "
                "Check the model's weights, its precision and the normalisation of its image processor."
            )


def _check_normalisation(mean: Any, std: Any, factor: Any) -> None:
    """Refuse settings under which no pixel is a number; None is left to whoever does not use it."""
    for name, given, above, words in (
        ("image_mean", mean, -math.inf, "finite"),
        ("image_std", std, 0, "above 0 and finite"),
        ("rescale_factor", factor, 0, "above 0 and finite"),
    ):
        values = given.tolist() if hasattr(given, "tolist") else given
        for value in values if isinstance(values, list | tuple) else [values]:
            if value is None and values is None:
                continue
            number = isinstance(value, numbers.Real) and not isinstance(value, bool)
            if not number or not above < value < math.inf:
                raise ValueError(f"`{name}` must be {words}, got {value!r}. Correct it in the image processor.")


__all__ = ["ClarityImageProcessor"]
