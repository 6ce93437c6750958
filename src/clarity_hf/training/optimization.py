# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Which weights decay, and which layer learns how fast."""

from __future__ import annotations

import re
from typing import Any

from torch import nn

UNDECAYED = ("class_tokens", "class_positions", "patch_positions")
"""Tokens and positions: they are inputs of the network, not matrices in it."""


def decaying_parameters(model: nn.Module) -> list[str]:
    """Names of the weights under weight decay: matrices and convolutions, but no tokens and no positions."""
    return [name for name, weight in model.named_parameters() if weight.ndim >= 2 and not name.endswith(UNDECAYED)]


def layer_of(name: str, num_layers: int) -> int:
    """The layer to which a parameter belongs for layer decay.

    Args:
        name: Of the parameter, in [`ClarityModel`] or [`ClarityForMultiLabelLocalization`].
        num_layers: Blocks L of the model.

    Returns:
        0 for the patch projection, the class tokens and both position embeddings, i + 1 for block i, and L + 1 for
        the final LayerNorm and the heads.
    """
    if re.search(r"(^|\.)embeddings\.", name):
        return 0
    block = re.search(r"(^|\.)layers\.(\d+)\.", name)
    return int(block[2]) + 1 if block else num_layers + 1


def parameter_groups(
    model: nn.Module, num_layers: int, learning_rate: float, weight_decay: float, layer_decay: float = 1.0
) -> list[dict[str, Any]]:
    r"""Groups for an optimizer, with layer-wise learning rates.

    .. math:: lr_l = lr \cdot d^{\,L + 1 - l}

    with l of [`layer_of`]: what was learnt before (a DINO encoder) moves slowly, the new heads at the full rate.

    Args:
        model: The model.
        num_layers: Blocks L of the model.
        learning_rate: lr of the heads.
        weight_decay: Of the weights of [`decaying_parameters`]; 0 for the others.
        layer_decay: d in (0, 1]; 1 gives every layer the same rate.

    Returns:
        Dicts with `params`, `lr` and `weight_decay`, the heads' first, so that logs show the full rate.

    Source: BEiT (Bao et al., arXiv 2106.08254) and MAE (He et al., arXiv 2111.06377), whose fine-tuning uses 0.65.
    """
    decaying = set(decaying_parameters(model))
    groups: dict[tuple[int, bool], dict[str, Any]] = {}
    for name, weight in model.named_parameters():
        if not weight.requires_grad:
            continue
        above = num_layers + 1 - layer_of(name, num_layers)
        group = groups.setdefault(
            (above, name not in decaying),
            {
                "params": [],
                "lr": learning_rate * layer_decay**above,
                "weight_decay": weight_decay if name in decaying else 0.0,
            },
        )
        group["params"].append(weight)
    return [groups[key] for key in sorted(groups)]
