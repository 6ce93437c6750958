# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Weight decay, learning rates per layer, and Muon for the matrices of the blocks."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

UNDECAYED = ("class_tokens", "class_positions", "patch_positions")
"""Tokens and positions, which are inputs of the network rather than matrices."""


def decaying_parameters(model: nn.Module) -> list[str]:
    """Names of the weights under weight decay: matrices and convolutions, but not tokens and positions."""
    return [name for name, weight in model.named_parameters() if weight.ndim >= 2 and not name.endswith(UNDECAYED)]


def layer_of(name: str, num_layers: int) -> int:
    """The layer of a parameter for layer decay.

    0 for the patch projection, class tokens and both position embeddings, i + 1 for block i, and L + 1, with L
    `num_layers`, for the final LayerNorm and the heads.
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

    with l of [`layer_of`]: pretrained layers move slowly, new heads at the full rate.

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
    (the update has the root mean square of AdamW's). With it, a ViT from random weights needs about half as many
    images.

    A group with Muon's settings is Muon's; any other, such as one added later, is AdamW's. Everything is kept in
    groups and state, as code that copies, stores or replaces them expects.

    Under data parallelism every process would orthogonalise every matrix. With `replicated`, each steps its share and
    sends the weights to the others, which gives the same weights to the last bit.

    Args:
        groups: Dicts with `params`, `lr` and `weight_decay`, as of [`parameter_groups`].
        matrices: Parameters `(rows, columns)` for Muon, as of [`block_matrices`].
        betas, eps: Of AdamW.
        momentum: Of Muon.
        replicated: Whether every process of the default process group has the same weights and gradients, as under
            DistributedDataParallel. It changes nothing without a process group.
        iterations: Newton-Schulz iterations of Muon, nearly all of its cost.

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
        replicated: bool = False,
        iterations: int = 5,
    ):
        chosen = {id(matrix) for matrix in matrices}
        others, hidden = (
            [
                {**group, "params": params, "replicated": replicated}
                for group in groups
                if (params := [weight for weight in group["params"] if (id(weight) in chosen) == wanted])
            ]
            for wanted in (False, True)
        )
        if not hidden:
            raise ValueError("`matrices` must be among the parameters of `groups`, got none. Use AdamW alone.")
        muon = torch.optim.Muon(hidden, momentum=momentum, ns_steps=iterations, adjust_lr_fn="match_rms_adamw")
        adamw = torch.optim.AdamW(others, betas=betas, eps=eps) if others else None
        super().__init__([*(adamw.param_groups if adamw else []), *muon.param_groups], {})
        self.defaults = {"betas": betas, "eps": eps}  # of groups added later

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step of both; `closure` evaluates the loss again, as for every optimizer."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        muons = [group for group in self.param_groups if "ns_steps" in group]
        others = [group for group in self.param_groups if "ns_steps" not in group]
        if others:
            self._step(torch.optim.AdamW, others)
        shared = dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
        if shared and all(group.get("replicated", False) for group in muons):
            self._step_shares(muons)
        else:
            self._step(torch.optim.Muon, muons)
        return loss

    def _step(self, kind: Any, groups: list[dict[str, Any]]) -> None:
        """Step groups with one of torch's optimizers, which takes the dicts with their settings."""
        part = kind(groups)
        part.state = self.state
        part.step()

    def _step_shares(self, groups: list[dict[str, Any]]) -> None:
        """Step this process's share of Muon's matrices, and receive the others."""
        rank = dist.get_rank()
        weights = [weight for group in groups for weight in group["params"] if weight.grad is not None]
        shares = even_shares(weights, dist.get_world_size())
        own = {id(weight) for weight in shares[rank]}
        chosen = [{**group, "params": [w for w in group["params"] if id(w) in own]} for group in groups]
        self._step(torch.optim.Muon, chosen)
        for group in groups:  # all processes keep the momentum, so that any can write the checkpoint
            for weight in group["params"]:
                if weight.grad is not None and id(weight) not in own:
                    buffer = self.state[weight].setdefault("momentum_buffer", torch.zeros_like(weight.grad))
                    buffer.lerp_(weight.grad, 1 - group["momentum"])
        for owner, share in enumerate(shares):
            if share:
                packed = torch.cat([weight.flatten() for weight in share])
                dist.broadcast(packed, owner)
                for weight, values in zip(share, packed.split([weight.numel() for weight in share]), strict=True):
                    weight.copy_(values.view_as(weight))


def even_shares(matrices: Sequence[torch.Tensor], count: int) -> list[list[torch.Tensor]]:
    """Divide matrices `(rows, columns)` into `count` lists that take about as long to orthogonalise.

    A Newton-Schulz step costs the larger side times the square of the smaller. The division depends on shapes and
    order only, so all processes obtain the same one.
    """
    shares: list[list[torch.Tensor]] = [[] for _ in range(count)]
    loads = [0] * count
    for matrix in sorted(matrices, key=lambda matrix: -matrix.numel() * min(matrix.shape)):
        least = loads.index(min(loads))
        shares[least].append(matrix)
        loads[least] += matrix.numel() * min(matrix.shape)
    return shares


def block_matrices(model: nn.Module) -> list[nn.Parameter]:
    """The matrices `(rows, columns)` of a model's blocks, for Muon."""
    return [weight for name, weight in model.named_parameters() if weight.ndim == 2 and ".layers." in name]
