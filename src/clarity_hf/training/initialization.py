# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Initialising a model from DINO or another ViT, or from a CLARiTy with other findings.

Class tokens are copied from one class token as in MCTformer (Xu et al., arXiv 2203.02891).
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

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

STATED = ("num_attention_heads", "hidden_act")
"""Parts of the architecture that only a config determines."""


@dataclass
class InitializationReport:
    """Where each weight of a model comes from. Every name of its state dict is in exactly one list besides `unused`.

    Args:
        layout: `"transformers"`, `"timm"` (also DINO's and DINOv2's own files) or `"clarity"`.
        eps: LayerNorm's ε of the source (None if unknown) and of the model.
        matched: Copied one to one.
        resampled: Patch positions, resampled bicubically to the model's patch grid.
        copied_to_classes: Class tokens and positions, each a noisy copy of the source's one.
        folded: Recomputed without changing the function: LayerScale multiplied into the layer before it, the patch
            embedding summed or spread over channels.
        zeroed: Biases that the source does not have.
        initialised: Not in the source, and unchanged.
        unused: The source's names that the model does not use; of position embeddings, which rows.
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


@torch.no_grad()
def initialize_from_vit(
    model: ClarityPreTrainedModel,
    source: str | os.PathLike | nn.Module | Mapping[str, torch.Tensor],
    class_token_noise: float = 0.02,
    generator: torch.Generator | None = None,
) -> InitializationReport:
    """Initialise a model from a ViT, in place. The model is unchanged if this raises.

    Patch embedding, blocks, final LayerNorm and patch positions are those of the source. Its single class token and
    that token's position are copied to every finding with noise, as identical tokens would have identical gradients.
    Positions are resampled bicubically without antialiasing if the patch grids differ, as in DINO, transformers and
    the model itself (timm antialiases). DINOv2's LayerScale is multiplied into the layer before it, and an RGB patch
    embedding is summed for a model of one channel (or a grey one spread over the channels). The encoder then computes
    what the source computes, unless the source has register or distillation tokens, which are left out, or RoPE
    instead of positions, as in DINOv3; the report says so.

    From a CLARiTy checkpoint everything that fits is copied, including heads and class tokens; findings are matched by
    name as in [`adapt_findings`].

    Args:
        model: [`ClarityForMultiLabelLocalization`] or [`ClarityModel`]; keeps its dtype and device.
        source: A Hub id or folder in the layout of transformers (ViT, DeiT, DINOv2, also with registers) or timm (also
            DINOv3; `timm/...`, `hf-hub:timm/...`), a packaged checkpoint such as `clarity-s16-224`, a `.safetensors`
            file, a module of transformers or timm, or a state dict, with the model's number of attention heads.
            Safetensors only. Of a DINO file the teacher is used.
        class_token_noise: Standard deviation of the noise on class tokens and class positions, at least 0.
        generator: Source of the noise, on the CPU; by default one with seed 0. Global random state is not changed.

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
    plan = _Plan(read, prefix, model)
    (plan.take_clarity if layout == "clarity" else plan.take_vit)(noise)
    for name, tensor in plan.tensors.items():
        plan.own[name].copy_(tensor)
    report = InitializationReport(layout, (read.architecture.get("layer_norm_eps"), model.config.layer_norm_eps))
    for name in model.state_dict():
        getattr(report, plan.kinds.get(name.removeprefix("clarity."), "initialised")).append(name)
    report.unused, report.findings, report.rotary = plan.unused + read.unused, plan.findings, plan.rotary
    return report


class _Plan:
    """Tensors for a model by name (without `clarity.`), and the list of the report for each name."""

    def __init__(self, read: Checkpoint, prefix: str, model: ClarityPreTrainedModel):
        self.read, self.prefix, self.config, self.own = read, prefix, model.config, state_by_short_name(model)
        self.tensors: dict[str, torch.Tensor] = {}
        self.kinds: dict[str, str] = {}
        self.unused: list[str] = []
        self.findings: AdaptationReport | None = None
        self.rotary = False

    def add(self, name: str, tensor: torch.Tensor, kind: str) -> None:
        self.tensors[name], self.kinds[name] = tensor, kind

    def take_vit(self, noise: TokenNoise) -> None:
        """Plan for a ViT of transformers, timm or DINO."""
        tensors, self.unused = translate(self.read.state, self.prefix)
        self._check_architecture(tensors)
        # A state dict does not state this, but only DINOv3 has such blocks and no positions.
        self.rotary = self.read.rotary or (
            "positions" not in tensors and any(key.endswith(".gamma_1") for key in self.read.state)
        )
        self._take_class_token_and_positions(tensors, noise)
        scales = {name: tensors.pop(name) for name in list(tensors) if name.endswith(".scale")}
        for name, tensor in tensors.items():
            self.add(name, tensor, "matched")
        for layer, scale in scales.items():  # γ ⊙ (W x + b) = (γ ⊙ W) x + γ ⊙ b
            for leaf, factor in (("weight", scale[:, None]), ("bias", scale)):
                name = layer.removesuffix("scale") + leaf
                if name in tensors:
                    self.add(name, tensors[name] * factor, "folded")
        self._complete()

    def take_clarity(self, noise: TokenNoise) -> None:
        """Plan for a CLARiTy: all that fits, by name, without heads that have any weight of another shape."""
        read, config = self.read, self.config
        root = self.prefix.removesuffix("clarity.")
        keys = {key.removeprefix(root).removeprefix("clarity."): key for key in read.state if key.startswith(root)}
        state = {name: widened(read.state[key]) for name, key in keys.items()}
        self._check_architecture(state)
        self.unused = [key for key in read.state if not key.startswith(root)]
        count = state["embeddings.class_tokens"].shape[1]
        if read.findings is not None:
            self.findings = match_findings(read.findings, config.findings)
            state = rows_by_finding(state, read.findings, config.findings, self.own, noise)
        elif count != config.num_labels:
            raise ValueError(
                f"`source` must have a class token for each of the {config.num_labels} findings of the model, got "
                f"{count} without names. Give the folder or the module, whose config names them."
            )
        positions = state.pop("embeddings.patch_positions")
        _, grid = _position_grid(positions.shape[1], (0,), _stored_grid(read) or config.patch_grid, config)
        self._add_patch_positions(positions, grid)
        fits = {name: tensor.shape == self.own[name].shape for name, tensor in state.items() if name in self.own}
        unfit = {name.split(".")[0] for name, fit in fits.items() if not fit}
        unfit -= {"embeddings", "layers", "layernorm"}  # not heads: there another shape is an error
        for name, tensor in state.items():
            if name in fits and name.split(".")[0] not in unfit:
                self.add(name, tensor, "matched")
            else:
                self.unused.append(keys[name])
        self._complete()

    def _check_architecture(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Refuse another architecture than the model's; only a config determines `STATED` parts."""
        source = observed_architecture(tensors)
        source |= {name: self.read.architecture[name] for name in STATED if name in self.read.architecture}
        differing = {name: value for name, value in source.items() if getattr(self.config, name) != value}
        if differing:
            got = ", ".join(
                f"{name} {getattr(self.config, name)!r} (source {value!r})" for name, value in differing.items()
            )
            arguments = ", ".join(f"{name}={value!r}" for name, value in differing.items())
            raise ValueError(
                f"`model` must have the architecture of `source`, got {got}. Build it from ClarityConfig({arguments}) "
                "or config_from_vit(source)."
            )

    def _take_class_token_and_positions(self, tensors: dict[str, torch.Tensor], noise: TokenNoise) -> None:
        """Divide `cls_token` and `positions`, which leave `tensors`, among class tokens and both positions."""
        token, positions = tensors.pop("cls_token", None), tensors.pop("positions", None)
        if positions is None and not (self.rotary and token is not None):
            raise ValueError("`source` must have absolute position embeddings, got none. Choose another checkpoint.")
        first = None
        if positions is not None:  # with RoPE patch positions stay the model's own
            positions = positions.reshape(1, -1, self.config.hidden_size)
            extra, has_token = extra_tokens(self.read.state, self.prefix), int(token is not None)
            # The first positions are of the class token and of extra tokens, of the former, or of none.
            leading = (has_token + sum(extra.values()), has_token + extra["distillation"], has_token, 0)
            count, grid = _position_grid(positions.shape[1], leading, _stored_grid(self.read), self.config)
            self._add_patch_positions(positions[:, count:], grid)
            if count > has_token:
                self.unused.append(f"position embeddings {has_token} to {count - 1}, of the extra tokens")
            first = positions[:, :1] if count else None  # none in DINOv2 with registers and DeiT-3
        if token is None:
            return  # class tokens are unchanged, as reported
        token = token.reshape(1, 1, -1)
        first = torch.zeros_like(token) if first is None else first
        for name, one in (("class_tokens", token), ("class_positions", first)):
            copies = one.expand(-1, self.own[f"embeddings.{name}"].shape[1], -1)
            self.add(f"embeddings.{name}", noise.add_to(copies), "copied_to_classes")

    def _add_patch_positions(self, positions: torch.Tensor, grid: tuple[int, int]) -> None:
        """Positions `(1, N', D)` of a grid for the model's grid, resampled as in `ClarityEmbeddings.positions_for`."""
        name = "embeddings.patch_positions"
        if grid == self.config.patch_grid:
            self.add(name, positions, "matched")
            return
        stored = positions.unflatten(1, grid).permute(0, 3, 1, 2)
        resampled = F.interpolate(stored, size=self.config.patch_grid, mode="bicubic", align_corners=False)
        self.add(name, resampled.flatten(2).transpose(1, 2), "resampled")

    def _complete(self) -> None:
        """Fit the channels, set missing biases to zero, and check that the encoder is complete and fits."""
        self._fit_channels(self.config.num_channels)
        encoder = [name for name in self.own if name.startswith(("embeddings.patch_projection", "layers."))]
        for name in encoder:
            if name not in self.tensors and OPTIONAL_BIAS.fullmatch(name):
                self.add(name, torch.zeros_like(self.own[name]), "zeroed")
        # The final LayerNorm may be missing, as timm moves it behind average pooling.
        missing = [name for name in encoder if name not in self.tensors]
        if missing:
            raise ValueError(
                f"`source` must have all weights of a ViT, got none for {len(missing)}{listed(missing)}. "
                "Give the complete checkpoint."
            )
        for name, tensor in self.tensors.items():
            if tensor.shape != self.own[name].shape:
                raise ValueError(
                    f"`source` must have {name} of shape {tuple(self.own[name].shape)}, got {tuple(tensor.shape)}. "
                    "Choose another checkpoint."
                )

    def _fit_channels(self, channels: int) -> None:
        """Sum or spread a patch embedding over channels, so that a grey image has the same embedding."""
        name = "embeddings.patch_projection.weight"
        weight = self.tensors[name]
        if weight.shape[1] == channels:
            return
        if channels == 1:
            self.add(name, weight.sum(1, keepdim=True), "folded")
        elif weight.shape[1] == 1:
            self.add(name, weight.expand(-1, channels, -1, -1) / channels, "folded")
        else:
            raise ValueError(
                f"`model` must have the channels of `source` or one, got num_channels {channels} "
                f"(source {weight.shape[1]}). Build it from ClarityConfig(num_channels={weight.shape[1]})."
            )


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

    A known grid is tried first, then a square, then the model's own.
    """
    squares = [(tokens, math.isqrt(max(0, count - tokens))) for tokens in leading]
    tried = [(tokens, known) for tokens in leading if known is not None]
    tried += [(tokens, (side, side)) for tokens, side in squares if side]
    tried += [(tokens, config.patch_grid) for tokens in leading]
    for tokens, grid in tried:
        if count - tokens == math.prod(grid):
            return tokens, grid
    raise ValueError(
        f"`source` must have positions for a square grid of patches or for a known one, got {count}. Give the folder "
        "or the module, which state their image size."
    )


__all__ = ["InitializationReport", "config_from_vit", "initialize_from_vit"]
