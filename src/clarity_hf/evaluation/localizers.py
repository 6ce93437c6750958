# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""The interface of a method to evaluate, scores and maps for a batch of images, and the model behind it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from clarity_hf.boxes import Letterbox
from clarity_hf.image_processing_clarity import ClarityImageProcessor
from clarity_hf.modeling_clarity import ClarityForMultiLabelLocalization


@dataclass(frozen=True)
class LocalizerOutput:
    """Scores and maps of B images.

    Attributes:
        scores: `(B, F)` float64 in [0, 1].
        maps: `(B, F, h, w)` float32 values ≥ 0 on a grid over the method's complete input.
        letterboxes: Position of each image in that input.
    """

    scores: np.ndarray
    maps: np.ndarray
    letterboxes: list[Letterbox]


class Localizer(Protocol):
    """A method that scores and localizes findings.

    Attributes:
        name: Its name in tables.
        findings: Names of the F findings, in the order of scores and maps.
    """

    name: str
    findings: tuple[str, ...]

    def __call__(self, images: Sequence[np.ndarray], wanted: Sequence[Sequence[int]] | None = None) -> LocalizerOutput:
        """Score and localize.

        Args:
            images: Pixels `(H, W)` in [0, 255], as [`read_image`] returns them, of any sizes.
            wanted: Per image the indices of the findings whose maps are needed, None for all; a method whose maps cost
                a backward pass each may leave the others zero.
        """


class ModelLocalizer:
    """[`ClarityForMultiLabelLocalization`] as a method to evaluate.

    Args:
        model: In evaluation mode, on the device to use.
        image_processor: The one it was trained with.
        name: Its name in tables.
    """

    def __init__(
        self, model: ClarityForMultiLabelLocalization, image_processor: ClarityImageProcessor, name: str = "CLARiTy"
    ):
        self.model, self.image_processor, self.name = model, image_processor, name
        self.findings = tuple(model.config.findings)

    @torch.inference_mode()
    def __call__(self, images: Sequence[np.ndarray], wanted: Sequence[Sequence[int]] | None = None) -> LocalizerOutput:
        """Scores and all maps, whatever is `wanted`, from one forward pass."""
        inputs = self.image_processor(list(images), return_tensors="pt").to(self.model.device)
        outputs = self.model(**inputs)
        return LocalizerOutput(
            scores=outputs.logits.double().sigmoid().cpu().numpy(),
            maps=outputs.localization_maps.float().cpu().numpy(),
            letterboxes=[self.image_processor.letterbox((image.shape[0], image.shape[1])) for image in images],
        )
