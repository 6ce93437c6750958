# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Initialising a model from DINO or another ViT, or from a CLARiTy with other findings.

Sources: DINO (Caron et al., arXiv 2104.14294) and DINOv2 (Oquab et al., arXiv 2304.07193), whose checkpoints come in
the layouts of transformers and timm; class tokens copied from the one class token: MCTformer (Xu et al., arXiv
2203.02891).
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from clarity_hf.configuration_clarity import ClarityConfig
from clarity_hf.modeling_clarity import ClarityPreTrainedModel

from .adaptation import AdaptationReport, TokenNoise, listed, match_findings, rows_by_finding, state_by_short_name
from .vit_sources import (
    Checkpoint,
    config_from_vit,
    extra_tokens,
    find_layout,
    observed_architecture,
    read_checkpoint,
    translate,
    widened,
)

OPTIONAL_BIAS = re.compile(r".*(?:_proj|projection|fc1|fc2)\.bias")
"""Biases that a source may lack; zero is equivalent."""


@dataclass
class InitializationReport:
    """Where each weight of a model comes from. Every name of its state dict is in exactly one list besides `unused`.

    Args:
        layout: `"transformers"`, `"timm"` (DINO's and DINOv2's own files too) or `"clarity"`.
        eps: LayerNorm's ε of the source (None if unknown) and of the model.
        matched: Copied one to one.
        resampled: Patch positions, resampled bicubically to the model's patch grid.
        copied_to_classes: Class tokens and positions, each a noisy copy of the source's one.
        folded: Recomputed without changing the function: LayerScale multiplied into the layer before it, the patch
            embedding summed or spread over channels.
        zeroed: Biases that the source does not have.
        initialised: Not in the source, and left unchanged.
        unused: The source's names that the model has no use for; of position embeddings, which rows.
        findings: How findings were matched, if a CLARiTy source names its own.
        rotary: Whether the source rotates queries and keys by position (RoPE). The model does not, so its encoder does
            not compute what the source computes until it is trained.
    """

    layout: str
    eps: tuple[float | None, float]
    matched: list[str] = field(default_factory=list)
    resampled: list[str] = field(default_factory=list)
    copied_to_classes: list[str] = field(default_factory=list)
    folded: list[str] = field(default_factory=list)
    zeroed: list[str] = field(default_factory=list)
    initialised: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)
    findings: AdaptationReport | None = None
    rotary: bool = False

    def __str__(self) -> str:
        lines = [f"Initialised from a ViT in the layout of {self.layout}: {len(self.matched)} weights one to one."]
        for name in ("resampled", "copied_to_classes", "folded", "zeroed", "initialised", "unused"):
            names = getattr(self, name)
            if names:
                lines.append(f"  {name}: {len(names)}{listed(names)}")
        if self.findings is not None:
            lines.append(f"  {self.findings}")
        if self.rotary:
            lines.append(
                "  rotary positions (RoPE) of the source are not supported: the model uses its own patch positions, "
                "to which the blocks have to adapt in training"
            )
        source, own = self.eps
        if source is None:
            lines.append(f"  LayerNorm eps: {own:g}, the source's is unknown")
        elif source != own:
            lines.append(f"  LayerNorm eps: {own:g}, the source's is {source:g}: set layer_norm_eps to use the same")
        return "\n".join(lines)


@dataclass
class _Plan:
    """Tensors for the model by name (without `clarity.`), and in which list of the report each name goes."""

    tensors: dict[str, torch.Tensor] = field(default_factory=dict)
    kinds: dict[str, str] = field(default_factory=dict)
    unused: list[str] = field(default_factory=list)
    findings: AdaptationReport | None = None
    rotary: bool = False

    def add(self, name: str, tensor: torch.Tensor, kind: str) -> None:
        self.tensors[name], self.kinds[name] = tensor, kind


@torch.no_grad()
def initialize_from_vit(
    model: ClarityPreTrainedModel,
    source: str | os.PathLike | nn.Module | Mapping[str, torch.Tensor],
    class_token_noise: float = 0.02,
    generator: torch.Generator | None = None,
) -> InitializationReport:
    """Initialise a model from a ViT, in place. The model is unchanged if this raises.

    Patch embedding, blocks, final LayerNorm and patch positions are those of the source. Its single class token and
    that token's position are copied to every finding with noise, as identical tokens would have identical gradients
    and never diverge. Positions are resampled bicubically without antialiasing if the patch grids differ, as DINO,
    transformers and the model itself do for other image sizes (timm antialiases). DINOv2's LayerScale is multiplied
    into the layer before it, and an RGB patch embedding is summed for a model of one channel (or a grey one spread
    over the channels). The encoder then computes what the source computes, unless the source has register or
    distillation tokens, which are left out, or RoPE in place of positions, as DINOv3 has; the report says so.

    From a CLARiTy checkpoint everything that fits is copied, heads and class tokens too; findings are matched by name
    as in [`adapt_findings`].

    Args:
        model: [`ClarityForMultiLabelLocalization`] or [`ClarityModel`]; keeps its dtype and device.
        source: A Hub id or folder in the layout of transformers (ViT, DeiT, DINOv2, with registers too) or timm
            (DINOv3 too; `timm/...`, `hf-hub:timm/...`), a packaged checkpoint such as `clarity-s16-224`, a
            `.safetensors` file, a module of transformers or timm, or a state dict. Safetensors only. A state dict does
            not state its number of attention heads: the model's is assumed. Of a DINO file the teacher is used.
        class_token_noise: Standard deviation of the noise on class tokens and class positions, at least 0.
        generator: Source of the noise, on the CPU; by default one with seed 0. Global random state stays as it is.

    Returns:
        [`InitializationReport`]; `print` it for the log.

    Raises:
        ValueError: The source has another architecture (the message says which config fits), an unknown layout,
            pickled weights, or parts that ClarityModel does not have, such as a SwiGLU MLP.
        TypeError: `model` or `source` has an unsupported type.
        FileNotFoundError: No such file.
        OSError: No such repository, or one without safetensors.
    """
    if not isinstance(model, ClarityPreTrainedModel):
        raise TypeError(f"`model` must be a CLARiTy model, got {type(model).__name__}. Build one from ClarityConfig.")
    noise = TokenNoise(class_token_noise, generator)
    read = read_checkpoint(source)
    layout, prefix = find_layout(read.state)
    names = {name.removeprefix("clarity."): name for name in model.state_dict()}
    own = state_by_short_name(model)
    config = model.config
    planned = _plan_from_clarity if layout == "clarity" else _plan_from_vit
    plan = planned(read, prefix, own, config, noise)
    for name, tensor in plan.tensors.items():
        own[name].copy_(tensor)
    report = InitializationReport(layout, (read.architecture.get("layer_norm_eps"), config.layer_norm_eps))
    for short, name in names.items():
        getattr(report, plan.kinds.get(short, "initialised")).append(name)
    report.unused = plan.unused + read.unused
    report.findings = plan.findings
    report.rotary = plan.rotary
    return report


# From a ViT


def _plan_from_vit(
    read: Checkpoint, prefix: str, own: dict[str, torch.Tensor], config: ClarityConfig, noise: TokenNoise
) -> _Plan:
    found = translate(read.state, prefix)
    if found.unplaced:
        raise ValueError(
            f"`source` must be a plain ViT, got {len(found.unplaced)} weights that ClarityModel has no place for"
            f"{listed(found.unplaced)}. Without them it would compute something else: choose another checkpoint."
        )
    _check_architecture(observed_architecture(found.tensors) | _stated(read), config)
    # A state dict does not say so, but only DINOv3 has blocks of this kind and no positions.
    rotary = read.rotary or ("positions" not in found.tensors and any(key.endswith(".gamma_1") for key in read.state))
    plan = _Plan(unused=found.unused, rotary=rotary)
    _plan_class_tokens_and_positions(plan, found.tensors, read, prefix, own, config, noise)
    for name, tensor in found.tensors.items():
        plan.add(name, tensor, "matched")
    _fold_layer_scales(plan, found.layer_scales)
    _complete(plan, own, config)
    return plan


def _stated(read: Checkpoint) -> dict[str, Any]:
    """The part of the architecture that only a config states."""
    return {name: value for name, value in read.architecture.items() if name in ("num_attention_heads", "hidden_act")}


def _check_architecture(source: dict[str, Any], config: ClarityConfig) -> None:
    differing = {name: value for name, value in source.items() if getattr(config, name) != value}
    if differing:
        got = ", ".join(f"{name} {getattr(config, name)!r} (source {value!r})" for name, value in differing.items())
        arguments = ", ".join(f"{name}={value!r}" for name, value in differing.items())
        raise ValueError(
            f"`model` must have the architecture of `source`, got {got}. Build it from ClarityConfig({arguments}) or "
            "config_from_vit(source)."
        )


def _complete(plan: _Plan, own: dict[str, torch.Tensor], config: ClarityConfig) -> None:
    """Fit the channels, set missing biases to zero, and check that the encoder is complete and fits."""
    _fit_channels(plan, config.num_channels)
    encoder = [name for name in own if name.startswith(("embeddings.patch_projection", "layers."))]
    for name in encoder:
        if name not in plan.tensors and OPTIONAL_BIAS.fullmatch(name):
            plan.add(name, torch.zeros_like(own[name]), "zeroed")
    # The final LayerNorm may be missing: timm moves it behind average pooling, where it norms no token.
    missing = [name for name in encoder if name not in plan.tensors]
    if missing:
        raise ValueError(
            f"`source` must have all weights of a ViT, got none for {len(missing)}{listed(missing)}. "
            "Give the complete checkpoint."
        )
    for name, tensor in plan.tensors.items():
        if tensor.shape != own[name].shape:
            raise ValueError(
                f"`source` must have {name} of shape {tuple(own[name].shape)}, got {tuple(tensor.shape)}. "
                "Choose another checkpoint."
            )


def _plan_class_tokens_and_positions(
    plan: _Plan,
    tensors: dict[str, torch.Tensor],
    read: Checkpoint,
    prefix: str,
    own: dict[str, torch.Tensor],
    config: ClarityConfig,
    noise: TokenNoise,
) -> None:
    """Divide `cls_token` and `positions`, which leave `tensors`, among class tokens and both kinds of positions."""
    token, positions = tensors.pop("cls_token", None), tensors.pop("positions", None)
    has_token = int(token is not None)
    if positions is None and plan.rotary and token is not None:
        _plan_class_copies(plan, token, None, own, noise)
        return  # patch positions stay the model's own
    if positions is None:
        raise ValueError("`source` must have absolute position embeddings, got none. Choose another checkpoint.")
    positions = positions.reshape(1, -1, config.hidden_size)
    extra = extra_tokens(read.state, prefix)
    # Position embeddings begin with those of the class token and of extra tokens, of the former, or of none.
    leading = (has_token + sum(extra.values()), has_token + extra["distillation"], has_token, 0)
    count, grid = _position_grid(positions.shape[1], leading, _stored_grid(read), config)
    _plan_patch_positions(plan, positions[:, count:], grid, config)
    if count > has_token:
        plan.unused.append(f"position embeddings {has_token} to {count - 1}, of the extra tokens")
    if token is not None:  # else class tokens stay as they were, and the report says so
        _plan_class_copies(plan, token, positions[:, :1] if count else None, own, noise)


def _plan_class_copies(
    plan: _Plan, token: torch.Tensor, position: torch.Tensor | None, own: dict[str, torch.Tensor], noise: TokenNoise
) -> None:
    """Class tokens and positions, each a noisy copy of the one; DINOv2 with registers and DeiT-3 have no position."""
    token = token.reshape(1, 1, -1)
    first = torch.zeros_like(token) if position is None else position
    for name, tensor in (("class_tokens", token), ("class_positions", first)):
        copies = tensor.expand(-1, own[f"embeddings.{name}"].shape[1], -1)
        plan.add(f"embeddings.{name}", noise.add_to(copies), "copied_to_classes")


def _stored_grid(read: Checkpoint) -> tuple[int, int] | None:
    """Patch grid of the source's image size, where it is known."""
    size, patch = read.architecture.get("image_size"), read.architecture.get("patch_size")
    if size is None or patch is None:
        return None
    height, width = (size, size) if isinstance(size, int) else size
    return height // patch, width // patch


def _position_grid(
    count: int, leading: Sequence[int], known: tuple[int, int] | None, config: ClarityConfig
) -> tuple[int, tuple[int, int]]:
    """How many of `count` positions precede the patches', and the patches' grid.

    Weights do not state their grid: a known one is tried first, then a square, then the model's own.
    """
    for tokens in leading:
        if known is not None and count - tokens == math.prod(known):
            return tokens, known
    for tokens in leading:
        side = math.isqrt(max(0, count - tokens))
        if side and side * side == count - tokens:
            return tokens, (side, side)
    for tokens in leading:
        if count - tokens == math.prod(config.patch_grid):
            return tokens, config.patch_grid
    raise ValueError(
        f"`source` must have positions for a square grid of patches or for a known one, got {count}. Give the folder "
        "or the module, which state their image size."
    )


def _plan_patch_positions(plan: _Plan, positions: torch.Tensor, grid: tuple[int, int], config: ClarityConfig) -> None:
    """Positions `(1, N', D)` of a grid for the model's grid, as `ClarityEmbeddings.positions_for` resamples them."""
    name = "embeddings.patch_positions"
    if grid == config.patch_grid:
        plan.add(name, positions, "matched")
        return
    stored = positions.unflatten(1, grid).permute(0, 3, 1, 2)
    resampled = F.interpolate(stored, size=config.patch_grid, mode="bicubic", align_corners=False)
    plan.add(name, resampled.flatten(2).transpose(1, 2), "resampled")


def _fold_layer_scales(plan: _Plan, scales: dict[str, torch.Tensor]) -> None:
    """Multiply γ into the layer before it: γ ⊙ (W x + b) = (γ ⊙ W) x + γ ⊙ b."""
    for layer, scale in scales.items():
        for leaf, factor in (("weight", scale[:, None]), ("bias", scale)):
            name = f"{layer}.{leaf}"
            if name in plan.tensors:
                plan.add(name, plan.tensors[name] * factor, "folded")


def _fit_channels(plan: _Plan, channels: int) -> None:
    """Sum or spread a patch embedding over channels, so that a grey image repeated over them embeds alike."""
    name = "embeddings.patch_projection.weight"
    weight = plan.tensors[name]
    if weight.shape[1] == channels:
        return
    if channels == 1:
        plan.add(name, weight.sum(1, keepdim=True), "folded")
    elif weight.shape[1] == 1:
        plan.add(name, weight.expand(-1, channels, -1, -1) / channels, "folded")
    else:
        raise ValueError(
            f"`model` must have the channels of `source` or one, got num_channels {channels} "
            f"(source {weight.shape[1]}). Build it from ClarityConfig(num_channels={weight.shape[1]})."
        )


# From a CLARiTy


def _plan_from_clarity(
    read: Checkpoint, prefix: str, own: dict[str, torch.Tensor], config: ClarityConfig, noise: TokenNoise
) -> _Plan:
    """Everything that fits, by name; a head with any weight of another shape is left out entirely."""
    root = prefix.removesuffix("clarity.")
    keys = {key.removeprefix(root).removeprefix("clarity."): key for key in read.state if key.startswith(root)}
    state = {name: widened(read.state[key]) for name, key in keys.items()}
    _check_architecture(observed_architecture(state) | _stated(read), config)
    plan = _Plan(unused=[key for key in read.state if not key.startswith(root)])
    count = state["embeddings.class_tokens"].shape[1]
    if read.findings is not None:
        plan.findings = match_findings(read.findings, config.findings)
        state = rows_by_finding(state, read.findings, config.findings, own, noise)
    elif count != config.num_labels:
        raise ValueError(
            f"`source` must have a class token for each of the {config.num_labels} findings of the model, got {count} "
            "without names. Give the folder or the module, whose config names them."
        )
    positions = state.pop("embeddings.patch_positions")
    _, grid = _position_grid(positions.shape[1], (0,), _stored_grid(read) or config.patch_grid, config)
    _plan_patch_positions(plan, positions, grid, config)
    unfit = {name.split(".")[0] for name, tensor in state.items() if name in own and tensor.shape != own[name].shape}
    unfit -= {"embeddings", "layers", "layernorm"}  # no heads: what does not fit there is an error
    for name, tensor in state.items():
        if name in own and name.split(".")[0] not in unfit:
            plan.add(name, tensor, "matched")
        else:
            plan.unused.append(keys[name])
    _complete(plan, own, config)
    return plan


__all__ = ["InitializationReport", "config_from_vit", "initialize_from_vit"]
