# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""The teacher of a distillation: any image classifier with the student's findings."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers import AutoImageProcessor, AutoModelForImageClassification, PreTrainedModel

from clarity_hf.safe_loading import load_foreign_model

logger = logging.getLogger(__name__)


class Teacher(nn.Module):
    """A frozen classifier that sees the student's images in its own resolution and normalisation.

    Args:
        model: Any model with `logits` `(B, F')` in its output, such as ConvNeXtV2 from transformers or timm through
            `AutoModelForImageClassification`. Its weights are frozen, and it stays in evaluation mode.
        findings: The student's findings; the teacher must know each by name.
        student_mean, student_std: Normalisation of the student's `pixel_values`, on the [0, 1] scale.
        mean, std: The teacher's own.
        size: `(height, width)` of the teacher's input, or None for the student's.

    Raises:
        ValueError: The teacher lacks a finding.
    """

    def __init__(
        self,
        model: Any,
        findings: Sequence[str],
        student_mean: Sequence[float],
        student_std: Sequence[float],
        mean: Sequence[float],
        std: Sequence[float],
        size: tuple[int, int] | None = None,
    ):
        super().__init__()
        known = {name: int(index) for index, name in model.config.id2label.items()}
        missing = [finding for finding in findings if finding not in known]
        if missing:
            raise ValueError(
                f"`model` must know every finding of the student, got a teacher without {missing} (it knows "
                f"{sorted(known)}). Fine-tune it on the same labels or rename its `id2label`."
            )
        self.model = model.requires_grad_(False).eval()
        self.size = size
        self.order: torch.Tensor
        self.scale: torch.Tensor
        self.shift: torch.Tensor
        self.register_buffer("order", torch.tensor([known[finding] for finding in findings]), persistent=False)
        # (x · s_student + m_student − m) / s = x · scale + shift
        student_mean_, student_std_, mean_, std_ = (
            torch.tensor(list(values), dtype=torch.float32).view(1, -1, 1, 1)
            for values in (student_mean, student_std, mean, std)
        )
        self.register_buffer("scale", student_std_ / std_, persistent=False)
        self.register_buffer("shift", (student_mean_ - mean_) / std_, persistent=False)

    @classmethod
    def from_pretrained(cls, name_or_path: str, findings: Sequence[str], student_processor: Any) -> Teacher:
        """Load a teacher and its image processor from a folder or the Hub, safetensors only.

        Args:
            name_or_path: Folder or Hub id of model and image processor.
            findings: The student's findings.
            student_processor: The student's image processor, whose normalisation is undone.

        Raises:
            ValueError: The teacher lacks a finding, or an image processor does not scale images to [0, 1].
        """
        # Images are float32, also if the file is in half precision.
        model = load_foreign_model(AutoModelForImageClassification, name_or_path, dtype=torch.float32)
        mean, std, size = _preprocessing(AutoImageProcessor.from_pretrained(name_or_path))
        return cls(model, findings, *_normalisation(student_processor), mean, std, size)

    @classmethod
    def of(cls, teacher: Teacher | PreTrainedModel | str, findings: Sequence[str], student_processor: Any) -> Teacher:
        """A teacher from various sources.

        Args:
            teacher: A teacher, returned as it is; a name for `from_pretrained`; or a loaded image classifier, whose
                image processor is read from where it was loaded. Without one it sees the student's `pixel_values`
                unchanged, which is logged.
            findings: The student's findings.
            student_processor: The student's image processor.

        Raises:
            OSError: There is no such teacher.
            TypeError: `teacher` is something else, or the student has no image processor.
            ValueError: As for `from_pretrained`.
        """
        if isinstance(teacher, Teacher):
            return teacher
        if not isinstance(teacher, str | PreTrainedModel):
            raise TypeError(
                f"`teacher` must be a Teacher, an image classifier of transformers or the name of one, got "
                f"{type(teacher).__name__}. Wrap it: Teacher(model, findings, ...)."
            )
        own = None if isinstance(teacher, str) else _processor_beside(teacher)
        if isinstance(teacher, PreTrainedModel) and own is None:
            logger.warning("The teacher has no image processor: it sees the student's pixels unchanged.")
            return cls(teacher, findings, [0.0], [1.0], [0.0], [1.0])
        if not hasattr(student_processor, "image_mean"):
            raise TypeError(
                f"`processing_class` must be the student's image processor, got {type(student_processor).__name__}. "
                "Its normalisation is undone before the teacher's is applied: pass ClarityImageProcessor."
            )
        if isinstance(teacher, str):
            return cls.from_pretrained(teacher, findings, student_processor)
        mean, std, size = _preprocessing(own)
        return cls(teacher, findings, *_normalisation(student_processor), mean, std, size)

    def train(self, mode: bool = True) -> Teacher:
        """Stay in evaluation mode."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """The student's `pixel_values` `(B, 3, H, W)` → logits `(B, F)` in the order of the student's findings."""
        return self.model(self._own_view(pixel_values)).logits[:, self.order]

    @torch.no_grad()
    def activation_maps(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Class activation maps: the last, linear layer applied to each place; their mean is the logit.

        Args:
            pixel_values: `(B, 3, H, W)` as the student sees them.

        Returns:
            `(B, F, h, w)` in the order of the student's findings, on the grid of the teacher's last features.

        Raises:
            ValueError: The teacher does not end in a mean over places and a linear layer.

        Source: Zhou et al., arXiv 1512.04150.
        """
        network = getattr(self.model, "timm_model", None)
        pooling = getattr(getattr(network, "global_pool", None), "pool_type", None)
        head = network.get_classifier() if network is not None and pooling == "avg" else None
        if network is None or not isinstance(head, nn.Linear):
            raise ValueError(
                "`teacher` must end in a mean over places and a linear layer to have class activation maps, got "
                f"{type(self.model).__name__}. Take an EfficientNet of timm, or set `map_distillation_weight` to 0."
            )
        features = network.forward_features(self._own_view(pixel_values))
        return F.conv2d(features, head.weight[self.order][:, :, None, None], head.bias[self.order])

    def _own_view(self, pixel_values: torch.Tensor) -> torch.Tensor:
        pixels = pixel_values * self.scale + self.shift
        if self.size is not None and tuple(pixels.shape[-2:]) != self.size:
            pixels = F.interpolate(pixels, size=self.size, mode="bilinear", align_corners=False, antialias=True)
        return pixels


def _processor_beside(model: PreTrainedModel) -> Any:
    """The image processor of the folder or repository of a model, or None."""
    place = model.config._name_or_path
    try:
        return AutoImageProcessor.from_pretrained(place) if place else None
    except (OSError, ValueError):
        return None


def _preprocessing(processor: Any) -> tuple[Sequence[float], Sequence[float], tuple[int, int] | None]:
    """Mean, standard deviation and input size `(height, width)`, or None for any size, of an image processor."""
    if hasattr(processor, "data_config"):  # timm's wrapper has timm's names
        data = processor.data_config
        return data["mean"], data["std"], tuple(data["input_size"][-2:])
    size = dict(getattr(processor, "crop_size", None) or getattr(processor, "size", None) or {})
    edge = size.get("shortest_edge")
    height, width = size.get("height") or edge, size.get("width") or edge
    return *_normalisation(processor), (int(height), int(width)) if height and width else None


def _normalisation(processor: Any) -> tuple[Sequence[float], Sequence[float]]:
    """Mean and standard deviation of an image processor on the [0, 1] scale: 0 and 1 if it does not normalise."""
    rescale, factor = getattr(processor, "do_rescale", True), getattr(processor, "rescale_factor", 1 / 255)
    if not rescale or not math.isclose(factor, 1 / 255, rel_tol=1e-3):
        raise ValueError(
            f"`do_rescale` of the image processor must be True with a `rescale_factor` of 1/255, got {rescale} and "
            f"{factor}. Images must be scaled to [0, 1]: correct the preprocessor_config.json."
        )
    if not getattr(processor, "do_normalize", True):
        return [0.0], [1.0]
    return processor.image_mean, processor.image_std
