# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Which weights and findings a calibration belongs to: slopes, intercepts and thresholds fit no others."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from functools import reduce

import torch

FINGERPRINT = re.compile(r"(float16|bfloat16|float32|float64)-[0-9a-f]{16}-[0-9a-f]{16}")
"""Precision of the weights, their hash, and the hash of the findings' names."""

RESAMPLED = "patch_positions"
"""End of the name of weights that do not count, because another image size resamples them."""


def findings_digest(findings: Sequence[str]) -> str:
    """Hash of names in their order: 16 hexadecimal digits."""
    return hashlib.blake2b(json.dumps(list(findings)).encode(), digest_size=8).hexdigest()


def calibration_fingerprint(findings: Sequence[str], state: Mapping[str, torch.Tensor]) -> str | None:
    """Fingerprint of a state dict by names, shapes and values, and of findings in the order of the logits.

    Weights of half precision have the same hash when they are widened.

    Returns:
        Such as `float32-0123456789abcdef-0123456789abcdef`; None if weights cannot be read: sharded over processes, on
        the meta device, or quantized.
    """
    digest = hashlib.blake2b(digest_size=8)
    counted = {name: tensor for name, tensor in sorted(state.items()) if not name.endswith(RESAMPLED)}
    for name, tensor in counted.items():
        if type(tensor) not in (torch.Tensor, torch.nn.Parameter) or tensor.is_meta or not tensor.is_floating_point():
            return None
        digest.update(f"{name} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().float().contiguous().numpy().data)
    precision = reduce(torch.promote_types, {tensor.dtype for tensor in counted.values()})
    return f"{_name(precision)}-{digest.hexdigest()}-{findings_digest(findings)}"


def may_be_of(stored: str, found: str) -> bool:
    """Whether a calibration with the fingerprint `stored` may belong to the model with the fingerprint `found`.

    Weights that were rounded to another precision in between cannot be compared, and are considered the same.
    """
    (kept, *weights), (present, *others) = stored.split("-"), found.split("-")
    if weights[1] != others[1]:
        return False
    rounded = torch.promote_types(getattr(torch, kept), getattr(torch, present)) != getattr(torch, present)
    return rounded or weights == others


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
