# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""The layouts of ViT weights: how transformers, timm and DINO name them, and what their names and shapes tell.

Sources: DINO (Caron et al., arXiv 2104.14294) and DINOv2 (Oquab et al., arXiv 2304.07193), whose checkpoints come in
the layouts of transformers and timm.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

PATCH_EMBEDDINGS = {
    "clarity": "embeddings.patch_projection.weight",
    "transformers": "embeddings.patch_embeddings.projection.weight",
    "timm": "patch_embed.proj.weight",
}
"""The key that tells a layout; what stands before it, such as `vit.` or `module.backbone.`, is the prefix of all."""

OUTER_NAMES = {
    "embeddings.cls_token": "cls_token",
    "cls_token": "cls_token",
    "embeddings.position_embeddings": "positions",
    "pos_embed": "positions",
    "embeddings.patch_embeddings.projection.weight": "embeddings.patch_projection.weight",
    "embeddings.patch_embeddings.projection.bias": "embeddings.patch_projection.bias",
    "patch_embed.proj.weight": "embeddings.patch_projection.weight",
    "patch_embed.proj.bias": "embeddings.patch_projection.bias",
    "layernorm.weight": "layernorm.weight",
    "layernorm.bias": "layernorm.bias",
    "norm.weight": "layernorm.weight",
    "norm.bias": "layernorm.bias",
}
"""Names outside the blocks, in checkpoints and here; `cls_token` and `positions` are still to be divided."""

BLOCK_NAMES = {
    "attention.attention.query": "attention.q_proj",
    "attention.attention.key": "attention.k_proj",
    "attention.attention.value": "attention.v_proj",
    "attention.q_proj": "attention.q_proj",
    "attention.k_proj": "attention.k_proj",
    "attention.v_proj": "attention.v_proj",
    "attn.qkv": "attention.qkv",
    "attention.output.dense": "attention.o_proj",
    "attention.o_proj": "attention.o_proj",
    "attn.proj": "attention.o_proj",
    "intermediate.dense": "mlp.fc1",
    "mlp.fc1": "mlp.fc1",
    "output.dense": "mlp.fc2",
    "mlp.fc2": "mlp.fc2",
    "layernorm_before": "layernorm_before",
    "norm1": "layernorm_before",
    "layernorm_after": "layernorm_after",
    "norm2": "layernorm_after",
}
"""Modules of a block: in files of transformers, in its models, in timm and DINO, and here."""

LAYER_SCALES = {
    "layer_scale1.lambda1": "attention.o_proj",
    "layer_scale2.lambda1": "mlp.fc2",
    "ls1.gamma": "attention.o_proj",
    "ls2.gamma": "mlp.fc2",
    "gamma_1": "attention.o_proj",
    "gamma_2": "mlp.fc2",
}
"""LayerScale of DINOv2 and DINOv3, and the linear layer before it."""

BIASES = {"attn.q_bias": "attention.q_proj.bias", "attn.v_bias": "attention.v_proj.bias"}
"""Biases that timm's EVA and DINOv3 keep beside their fused projection; keys have none."""

BLOCK_KEY = re.compile(r"(?:encoder\.layers?|layers?|blocks)\.(\d+)\.(.+)")
EXTRA_TOKEN = re.compile(r"(?:embeddings\.)?(?:(reg|register|dist|distillation)_tokens?|mask_token)")
CHANGES_TOKENS = re.compile(r"embeddings\.|patch_embed\.|norm_pre\.|pos_embed|rope|rel_pos")
"""Keys outside the blocks without which the encoder computes something else."""
GATED_MLP = re.compile(r"mlp\.(gate_proj|up_proj|down_proj|weights_in|weights_out|w12|w[123]|fc1_[gx])\.")


@dataclass
class Translation:
    """A state dict by the names of ClarityModel.

    Args:
        tensors: By our names, in at least float32; `cls_token` and `positions` are still to be divided.
        layer_scales: LayerScales `(D,)`, by the layer before them.
        unused: Keys that the encoder does not need.
        unplaced: Keys that ClarityModel has no place for, without which the encoder would compute something else.
    """

    tensors: dict[str, torch.Tensor] = field(default_factory=dict)
    layer_scales: dict[str, torch.Tensor] = field(default_factory=dict)
    unused: list[str] = field(default_factory=list)
    unplaced: list[str] = field(default_factory=list)


def find_layout(state: Mapping[str, torch.Tensor]) -> tuple[str, str]:
    """Layout of a state dict, a key of `PATCH_EMBEDDINGS`, and the prefix of its encoder, such as `vit.`.

    Raises:
        ValueError: It holds no ViT of these layouts, or several.
    """
    found = [
        (layout, key.removesuffix(ending))
        for layout, ending in PATCH_EMBEDDINGS.items()
        for key in state
        if key == ending or key.endswith("." + ending)
    ]
    if len(found) > 1:  # DINO's own files; it evaluates the teacher
        found = [(layout, prefix) for layout, prefix in found if "teacher" in prefix] or found
    if not found:
        raise ValueError(
            f"`source` must be a ViT in the layout of transformers, timm or clarity_hf, got keys such as "
            f"{list(state)[:3]}. A patch embedding ends with one of {list(PATCH_EMBEDDINGS.values())}."
        )
    if len(found) > 1:
        raise ValueError(
            f"`source` must hold one ViT, got {len(found)}, under {[prefix for _, prefix in found]}. "
            "Give the weights of one of them."
        )
    return found[0]


def translate(state: Mapping[str, torch.Tensor], prefix: str) -> Translation:
    """A state dict in the layout of transformers or timm, by the names of ClarityModel.

    Args:
        state: Weights by the source's names.
        prefix: What stands before the names of the encoder, from [`find_layout`].

    Raises:
        ValueError: The MLPs are SwiGLU.
    """
    found = Translation()
    for key, tensor in state.items():
        short = key.removeprefix(prefix)
        wide = widened(tensor)
        block = BLOCK_KEY.fullmatch(short)
        module, _, leaf = block[2].rpartition(".") if block else ("", "", "")
        if not key.startswith(prefix):
            found.unused.append(key)
        elif block and block[2] in LAYER_SCALES:
            found.layer_scales[f"layers.{block[1]}.{LAYER_SCALES[block[2]]}"] = wide
        elif block and block[2] in BIASES:
            found.tensors[f"layers.{block[1]}.{BIASES[block[2]]}"] = wide
        elif block and module in BLOCK_NAMES and leaf in ("weight", "bias"):
            found.tensors |= _split(f"layers.{block[1]}.{BLOCK_NAMES[module]}", leaf, wide)
        elif short in OUTER_NAMES:
            found.tensors[OUTER_NAMES[short]] = wide
        elif block or (CHANGES_TOKENS.match(short) and not EXTRA_TOKEN.fullmatch(short)):
            found.unplaced.append(key)
        else:
            found.unused.append(key)
    first, second = (found.tensors.get(f"layers.0.mlp.{name}.weight") for name in ("fc1", "fc2"))
    packed = first is not None and second is not None and first.shape[0] != second.shape[1]  # both halves in one
    if packed or any(GATED_MLP.search(key) for key in found.unplaced):
        raise gated_mlp_error()
    return found


def widened(tensor: torch.Tensor) -> torch.Tensor:
    """At least float32: half precision would round what is folded and resampled."""
    return tensor.detach().to(torch.promote_types(tensor.dtype, torch.float32))


def _split(name: str, leaf: str, tensor: torch.Tensor) -> dict[str, torch.Tensor]:
    """A layer by its name, timm's fused query, key and value as three."""
    if not name.endswith(".qkv"):
        return {f"{name}.{leaf}": tensor}
    stem = name.removesuffix("qkv")
    return {f"{stem}{part}_proj.{leaf}": third for part, third in zip("qkv", tensor.chunk(3), strict=True)}


def gated_mlp_error() -> ValueError:
    """The error for a source with SwiGLU, to be raised."""
    return ValueError(
        "`source` must have MLPs of two layers, got SwiGLU. Its gate multiplies two projections, which the MLP of "
        "ClarityModel cannot compute: choose a checkpoint without it, such as a DINOv2 smaller than giant."
    )


def observed_architecture(tensors: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """The architecture as far as shapes tell it, as arguments of [`ClarityConfig`].

    Args:
        tensors: By the names of ClarityModel; the patch embedding `(D, C, P, P)` must be there.

    Raises:
        ValueError: Patches are not square or not embedded by a convolution.
    """
    patch = tensors["embeddings.patch_projection.weight"]
    if patch.ndim != 4:
        raise ValueError(
            f"`source` must embed patches by a convolution, got a weight of shape {tuple(patch.shape)}. "
            "Choose another checkpoint."
        )
    blocks = {int(name.split(".")[1]) for name in tensors if name.startswith("layers.")}
    side = patch_side(patch.shape[2:])
    observed = {"hidden_size": patch.shape[0], "num_hidden_layers": len(blocks), "patch_size": side}
    if "layers.0.mlp.fc1.weight" in tensors:
        observed["intermediate_size"] = tensors["layers.0.mlp.fc1.weight"].shape[0]
    if "layers.0.attention.q_proj.bias" in tensors:
        observed["qkv_bias"] = True  # without one, zero does the same
    return observed


def patch_side(patch: int | Sequence[int]) -> int:
    """Side of a square patch in pixels, given as one number or as height and width.

    Raises:
        ValueError: The patch is not square.
    """
    height, width = (patch, patch) if isinstance(patch, int) else patch
    if height != width:
        raise ValueError(f"`source` must have square patches, got {height} × {width}. Choose another checkpoint.")
    return height


def extra_tokens(state: Mapping[str, torch.Tensor], prefix: str) -> dict[str, int]:
    """How many tokens a state dict has beside the class token: those of `"distillation"` and of `"register"`."""
    counts = {"distillation": 0, "register": 0}
    for key, tensor in state.items():
        match = EXTRA_TOKEN.fullmatch(key.removeprefix(prefix))
        if match and match[1]:  # a mask token stands in a patch's place
            kind = "register" if match[1].startswith("reg") else "distillation"
            counts[kind] += tensor.numel() // tensor.shape[-1]
    return counts
