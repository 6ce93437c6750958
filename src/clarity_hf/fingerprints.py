# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""What a result was made by: hashes of weights, and the model with its preprocessing as JSON."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import torch

from clarity_hf.image_processing_clarity import ClarityImageProcessor
from clarity_hf.modeling_clarity import ClarityForMultiLabelLocalization

BOX_FIELDS = ("score_thresholds", "map_thresholds", "box_components", "box_upsampling", "box_valleys")
"""Fields of a config that change no score and no map, but what becomes of them."""


def weights_digest(model: torch.nn.Module) -> str:
    """Hash of all weights and buffers of a model, by name, shape, type and value: 16 hexadecimal digits."""
    digest = hashlib.blake2b(digest_size=8)
    add_tensors(digest, model.state_dict())
    return digest.hexdigest()


def add_tensors(digest: Any, tensors: Mapping[str, torch.Tensor]) -> None:
    """Take tensors into a hash of `hashlib`, by name, shape, type and value, in the order of their names."""
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)


def describe_model(model: ClarityForMultiLabelLocalization, image_processor: ClarityImageProcessor) -> dict[str, Any]:
    """What makes scores and maps beside the films: weights, config without `BOX_FIELDS`, preprocessing.

    Returns:
        JSON, for the head of a file of records or the settings of a folder: those of anything else are refused.
    """
    volatile = {"_name_or_path", "transformers_version", "dtype", "architectures", "auto_map", *BOX_FIELDS}
    config, preprocessing = (
        {name: value for name, value in described.to_dict().items() if name not in volatile}
        for described in (model.config, image_processor)
    )
    return {
        "weights": weights_digest(model),
        "config": json.loads(json.dumps(config, default=str)),
        "preprocessing": json.loads(json.dumps(preprocessing, default=str)),
    }


__all__ = ["BOX_FIELDS", "add_tensors", "describe_model", "weights_digest"]
