# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Which weights decay, which layer learns how fast, and Muon for the matrices of the blocks."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
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


class MuonWithAdamW(torch.optim.Optimizer):
    r"""Muon for the matrices of the blocks, AdamW for everything else, as one optimizer.

    Muon replaces a matrix's momentum by its nearest orthogonal matrix, scaled so that one learning rate serves both
    (the update's root mean square is AdamW's). A ViT from random weights learns from about half as many images with
    it.

    A group is Muon's where it has Muon's settings, else AdamW's, as one that is added later. Groups and state are all
    there is: what copies, stores or replaces them needs to know nothing of the two optimizers.

    Args:
        groups: Dicts with `params`, `lr` and `weight_decay`, as of [`parameter_groups`].
        matrices: The parameters that Muon takes, each `(rows, columns)`; those of [`block_matrices`].
        betas: Of AdamW.
        eps: Of AdamW.
        momentum: Of Muon.

    Raises:
        ValueError: None of the parameters of `groups` is in `matrices`.

    Source: Jordan et al., "Muon: an optimizer for hidden layers in neural networks" (2024),
    https://kellerjordan.github.io/posts/muon; the scale is that of Liu et al., arXiv 2502.16982; the step is
    [`torch.optim.Muon`].
    """

    def __init__(
        self,
        groups: Sequence[Mapping[str, Any]],
        matrices: Sequence[nn.Parameter],
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-8,
        momentum: float = 0.95,
    ):
        chosen = {id(matrix) for matrix in matrices}
        others, hidden = (
            [
                {**group, "params": params}
                for group in groups
                if (params := [weight for weight in group["params"] if (id(weight) in chosen) == wanted])
            ]
            for wanted in (False, True)
        )
        if not hidden:
            raise ValueError("`matrices` must be among the parameters of `groups`, got none. Use AdamW alone.")
        muon = torch.optim.Muon(hidden, momentum=momentum, adjust_lr_fn="match_rms_adamw")
        adamw = torch.optim.AdamW(others, betas=betas, eps=eps) if others else None
        super().__init__([*(adamw.param_groups if adamw else []), *muon.param_groups], {})
        self.defaults = {"betas": betas, "eps": eps}  # of groups that are added: Muon's keep their own

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step of both; `closure` evaluates the loss anew, as for every optimizer."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for kind, has_muons_settings in ((torch.optim.AdamW, False), (torch.optim.Muon, True)):
            groups = [group for group in self.param_groups if ("ns_steps" in group) == has_muons_settings]
            if groups:
                part = kind(groups)  # takes the dicts as they are, settings included
                part.state = self.state
                part.step()
        return loss


def block_matrices(model: nn.Module) -> list[nn.Parameter]:
    """The matrices `(rows, columns)` of a model's blocks, which Muon takes."""
    return [weight for name, weight in model.named_parameters() if weight.ndim == 2 and ".layers." in name]
