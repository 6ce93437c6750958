# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Scores and boxes of many films, a batch at a time and without keeping a map."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import torch

from clarity_hf.image_processing_clarity import ClarityImageProcessor
from clarity_hf.image_reading import read_image
from clarity_hf.modeling_clarity import ClarityForMultiLabelLocalization


@torch.inference_mode()
def predict(
    model: ClarityForMultiLabelLocalization,
    image_processor: ClarityImageProcessor,
    films: Iterable[Any],
    batch_size: int = 16,
) -> Iterator[dict[str, torch.Tensor]]:
    """Score and box films, **every** finding boxed whatever its score.

    T(IoU) boxes the annotated finding whatever its score; who wants the gated figure filters by `scores`.

    Args:
        model: In evaluation mode; its config's map thresholds and components apply.
        image_processor: The one it was trained with.
        films: Sources of [`read_image`].
        batch_size: Films per forward pass.

    Yields:
        Per film a result of [`ClarityImageProcessor.post_process_localization`], boxes in pixels of the film.
    """
    config = model.config
    films = iter(films)
    while batch := list(islice(films, batch_size)):
        pixels = [read_image(film) for film in batch]
        inputs = image_processor(pixels, return_tensors="pt").to(model.device)
        yield from image_processor.post_process_localization(
            model(**inputs),
            score_thresholds=0.0,
            map_thresholds=config.per_finding("map_thresholds"),
            target_sizes=[film.shape for film in pixels],
            components=config.box_components,
            upsampling=config.box_upsampling,
        )
