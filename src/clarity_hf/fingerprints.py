# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""What a result depends on: hashes of weights and of files, and the model with its preprocessing as JSON."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from clarity_hf.configuration_clarity import TRAINING_FIELDS
from clarity_hf.image_processing_clarity import ClarityImageProcessor
from clarity_hf.modeling_clarity import ClarityForMultiLabelLocalization
from clarity_hf.packaged_checkpoints import SUMS, differing_files, file_sum, loaded_files

KEY_BYTES = 16
"""Length of [`image_key`]."""

BOX_FIELDS = (
    "score_thresholds",
    "box_score_thresholds",
    "map_thresholds",
    "box_components",
    "box_upsampling",
    "box_valleys",
    "boxless_findings",
)
"""Fields of a config that change no score and no map, but findings and boxes."""


def weights_digest(model: torch.nn.Module) -> str:
    """Hash of all weights and buffers of a model, by name, shape, type and value: 16 hexadecimal digits."""
    digest = hashlib.blake2b(digest_size=8)
    add_tensors(digest, model.state_dict())
    return digest.hexdigest()


def add_tensors(digest: Any, tensors: Mapping[str, torch.Tensor]) -> None:
    """Add tensors to a hash of `hashlib`, by name, shape, type and value, in the order of their names."""
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)


def describe_model(model: ClarityForMultiLabelLocalization, image_processor: ClarityImageProcessor) -> dict[str, Any]:
    """What scores and maps depend on besides images, as JSON: weights, config and preprocessing.

    `BOX_FIELDS` and `TRAINING_FIELDS` of the config change neither and are left out.
    """
    volatile = {"_name_or_path", "transformers_version", "dtype", "architectures", "auto_map"}
    volatile |= {*BOX_FIELDS, *TRAINING_FIELDS}
    volatile.add("calibration_fingerprint")  # depends on the weights
    config, preprocessing = (
        {name: value for name, value in described.to_dict().items() if name not in volatile}
        for described in (model.config, image_processor)
    )
    return {
        "weights": weights_digest(model),
        "config": json.loads(json.dumps(config, default=str)),
        "preprocessing": json.loads(json.dumps(preprocessing, default=str)),
    }


def describe_results(
    model: ClarityForMultiLabelLocalization, image_processor: ClarityImageProcessor, threshold: Any = None
) -> dict[str, Any]:
    """What findings and boxes depend on besides images, as JSON: [`describe_model`], thresholds and settings of boxes.

    `threshold` is a score in [0, 1] from which a finding is present, instead of the config's thresholds.
    """
    config = model.config
    apart = threshold is None and config.box_score_thresholds is not None  # otherwise the score thresholds are used
    return {
        **describe_model(model, image_processor),
        "dtype": str(model.dtype).removeprefix("torch."),
        "score_thresholds": list(config.per_finding("score_thresholds")) if threshold is None else threshold,
        **({"box_score_thresholds": list(config.per_finding("box_score_thresholds"))} if apart else {}),
        **{name: list(config.per_finding(name)) for name in ("map_thresholds", "box_valleys")},
        **{name: getattr(config, name) for name in ("box_components", "box_upsampling")},
        "boxless_findings": sorted(config.boxless_findings or ()) if threshold is None else [],
    }


def write_sums(folder: str | os.PathLike, names: Iterable[str] | None = None) -> Path:
    """Write the `SHA256SUMS` of a checkpoint's folder, which `sha256sum --check SHA256SUMS` can check.

    Args:
        folder: Of a checkpoint.
        names: Files relative to the folder; by default its `.json`, `.safetensors` and `.py`, which loading reads.

    Returns:
        Path of the file.

    Raises:
        FileNotFoundError: A file does not exist, or there is nothing to hash.

    Example:
        For a packaged checkpoint: `write_sums("src/clarity_hf/checkpoints/clarity-s16-224")`.
    """
    folder = Path(folder)
    hashed = sorted(loaded_files(folder) if names is None else names)
    lines = [f"{file_sum(folder / name)}  {name}\n" for name in hashed]
    if not lines:
        raise FileNotFoundError(f"`folder` must hold the files of a checkpoint, got none in {folder}. Check the path.")
    path = folder / SUMS
    path.write_text("".join(lines), encoding="utf-8")
    return path


def check_sums(folder: str | os.PathLike) -> None:
    """Check a folder against its own `SHA256SUMS`, to find files that were damaged or changed on the way.

    It does not prove who wrote them: whoever can change the weights can also write the file. Compare it with a copy
    from another source.

    Raises:
        FileNotFoundError: The folder has no `SHA256SUMS`.
        ValueError: A file is missing, differs or, being one that loading reads, is not listed; or a line is malformed.
    """
    differing = differing_files(folder)
    if differing:
        raise ValueError(f"`folder` must match its {SUMS}, got {', '.join(differing)} in {folder}. Download it again.")


def image_key(image: Any) -> bytes:
    """Key of an image by its content: 16 bytes.

    Args:
        image: A row's `image`: the `{"path", "bytes"}` of an undecoded `datasets.Image`, a path, the bytes of a file
            (for all three the file's bytes are hashed), a PIL image, an array or a tensor (pixels, shape and type are
            hashed).
    """
    encoded = encoded_image(image)
    if encoded is not None:
        return hashlib.blake2b(encoded, digest_size=KEY_BYTES).digest()
    pixels = np.asarray(image)
    digest = hashlib.blake2b(f"{pixels.shape} {pixels.dtype.str}".encode(), digest_size=KEY_BYTES)
    if isinstance(image, Image.Image):
        digest.update(image.mode.encode())
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.digest()


def encoded_image(image: Any) -> bytes | None:
    """The bytes of an image's file, or None for pixels."""
    if isinstance(image, Mapping) and image.get("bytes") is not None:
        return image["bytes"]
    if isinstance(image, bytes):
        return image
    path = path_of(image)
    return Path(path).read_bytes() if path is not None else None


def path_of(image: Any) -> str | os.PathLike | None:
    """Path of an image, or None for pixels and bytes."""
    if isinstance(image, Mapping):
        return image.get("path")
    return image if isinstance(image, str | os.PathLike) else None
