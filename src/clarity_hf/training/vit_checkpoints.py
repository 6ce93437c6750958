# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Reading a ViT or a CLARiTy: files, folders, the Hub, modules; its weights and what its config tells.

Only safetensors are read, and no code of a checkpoint is run.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn
from transformers import AutoConfig, AutoModel
from transformers.configuration_utils import PreTrainedConfig
from transformers.utils.hub import cached_file

from clarity_hf.configuration_clarity import ClarityConfig
from clarity_hf.modeling_clarity import PICKLES, ClarityForMultiLabelLocalization
from clarity_hf.safe_loading import load_foreign_model, require_plain_timm

from .vit_layouts import gated_mlp_error, patch_side

VIT_TYPES = ("vit", "deit", "dinov2", "dinov2_with_registers", "vit_mae", "vit_msn")
"""`model_type` of the transformers models whose blocks are those of ClarityModel, LayerScale aside."""

NOT_READ = (*PICKLES, ".tar", ".npz")

ACTIVATIONS = {
    "GELU": "gelu",
    "GELUTanh": "gelu_pytorch_tanh",
    "QuickGELU": "quick_gelu",
    "ReLU": "relu",
    "SiLU": "silu",
}
"""Activations of timm by class and by the name that the library has for them."""


@dataclass
class Checkpoint:
    """A checkpoint as it was read.

    Args:
        state: Weights by the source's own names.
        architecture: What its config tells of the encoder, as arguments of [`ClarityConfig`]; empty without one.
        findings: Of a CLARiTy with a config, in the order of its logits.
        unused: Names in its files for which the library's model has no place.
        rotary: Whether its blocks turn queries and keys by their place (RoPE), where a module tells.
    """

    state: dict[str, torch.Tensor]
    architecture: dict[str, Any] = field(default_factory=dict)
    findings: list[str] | None = None
    unused: list[str] = field(default_factory=list)
    rotary: bool = False


def config_from_vit(source: str | os.PathLike | nn.Module | PreTrainedConfig, **changes: Any) -> ClarityConfig:
    """The config whose encoder is that of a ViT, for [`initialize_from_vit`].

    Args:
        source: A Hub id or folder in the layout of transformers or timm, a packaged checkpoint, a module of either
            library, or a config of transformers. Of a CLARiTy source the whole config is taken, not only the encoder.
        changes: Arguments of [`ClarityConfig`] that go first, such as `image_size=512` (by default the source's).

    Raises:
        ValueError: It is no ViT with plain blocks.

    Example:
        >>> from transformers import ViTConfig
        >>> from clarity_hf.training.initialization import config_from_vit
        >>> config = config_from_vit(ViTConfig(hidden_size=192, num_attention_heads=3), image_size=512)
        >>> config.hidden_size, config.intermediate_size, config.patch_grid, config.layer_norm_eps
        (192, 3072, (32, 32), 1e-12)
    """
    if isinstance(source, str | os.PathLike):
        source = AutoConfig.from_pretrained(_repository(source), trust_remote_code=False)
    config = source if isinstance(source, PreTrainedConfig) else getattr(source, "config", None)
    if isinstance(config, ClarityConfig):
        return ClarityConfig.from_dict(config.to_dict(), **changes)
    architecture = _module_architecture(source) if isinstance(source, nn.Module) else _config_architecture(source)
    if not architecture:
        raise ValueError(
            f"`source` must be a ViT with plain blocks, got {type(source).__name__}. "
            "Give a ViT of transformers or timm, such as timm/vit_small_patch16_224.dino."
        )
    return ClarityConfig(**(architecture | changes))


def read_checkpoint(source: str | os.PathLike | nn.Module | Mapping[str, torch.Tensor]) -> Checkpoint:
    """Weights of a source and what its config tells.

    Args:
        source: A Hub id, a folder, a `.safetensors` file, a module or a state dict, as for [`initialize_from_vit`].

    Raises:
        ValueError: Pickled weights, several files without a config, or a config that is of no ViT with plain blocks.
        TypeError: `source` is none of these, or a state dict holds something else than tensors.
        FileNotFoundError: There is no such file.
        OSError: There is no such repository, or it has no safetensors.
    """
    if isinstance(source, nn.Module):
        findings = _findings_of(getattr(source, "config", None))
        rotary = any(getattr(part, "rope", None) is not None for part in source.modules())
        return Checkpoint(dict(source.state_dict()), _module_architecture(source), findings, rotary=rotary)
    if isinstance(source, Mapping):
        strange = [key for key, value in source.items() if not isinstance(value, torch.Tensor)]
        if strange:
            raise TypeError(
                f"`source` must map names to tensors, got something else under {strange[:3]}. "
                "Give the state dict itself."
            )
        return Checkpoint(dict(source))
    if isinstance(source, str | os.PathLike):
        return _read_files(_repository(source))
    raise TypeError(
        f"`source` must be a Hub id, a folder, a .safetensors file, a module or a state dict, got "
        f"{type(source).__name__}. Give one of them."
    )


def _repository(source: str | os.PathLike) -> str:
    """A Hub id or folder without timm's `hf-hub:`."""
    return re.sub(r"^hf[-_]hub:", "", str(source))


def _read_files(name: str) -> Checkpoint:
    path = Path(name)
    if path.is_dir() and not (path / "config.json").is_file():
        files = sorted(path.glob("*.safetensors"))
        if len(files) > 1:
            raise ValueError(
                f"`source` must hold a config.json or one .safetensors file, got {[file.name for file in files]} in "
                f"{name}. Give one of the files."
            )
        path = files[0] if files else path
    if path.is_file() or path.suffix == ".safetensors":
        return _read_file(path)
    if path.is_dir() and not any(path.glob("*.safetensors")):
        pickles = sorted(file.name for file in path.iterdir() if file.suffix in NOT_READ)
        if not pickles:
            raise FileNotFoundError(f"`source` must hold a .safetensors file, got none in {name}. Correct the path.")
        raise _pickled(name, pickles)
    return _read_pretrained(name)


def _read_file(path: Path) -> Checkpoint:
    if path.suffix != ".safetensors":
        raise _pickled(str(path), [path.name])
    if not path.is_file():
        raise FileNotFoundError(f"`source` must be a file that exists, got {path}. Correct the path.")
    source = Checkpoint(load_file(path))
    if (path.parent / "config.json").is_file():  # it knows the heads, which the weights do not tell
        config = AutoConfig.from_pretrained(path.parent, trust_remote_code=False)
        source.architecture, source.findings = _config_architecture(config), _findings_of(config)
    return source


def _read_pretrained(name: str) -> Checkpoint:
    config = AutoConfig.from_pretrained(name, trust_remote_code=False)
    architecture = _config_architecture(config)  # refuses before anything large is loaded
    if config.model_type == "timm_wrapper":  # whose loader fails on what timm's own `save_for_hf` writes
        return Checkpoint(load_file(cached_file(name, "model.safetensors")), architecture)
    loader: Any = AutoModel if not isinstance(config, ClarityConfig) else ClarityForMultiLabelLocalization
    with torch.random.fork_rng(devices=[]):  # the library draws weights for what the files lack
        module, info = load_foreign_model(loader, name, output_loading_info=True)
    state = {key: tensor for key, tensor in module.state_dict().items() if key not in info["missing_keys"]}
    return Checkpoint(state, architecture, _findings_of(config), sorted(info["unexpected_keys"]))


def _pickled(place: str, found: list[str]) -> ValueError:
    return ValueError(
        f"`source` must be safetensors, got {found} in {place}. Pickles can run code and are not "
        "read: load the file where you trust it, save it with safetensors.torch.save_file, and give that."
    )


def _findings_of(config: Any) -> list[str] | None:
    return config.findings if isinstance(config, ClarityConfig) else None


def _config_architecture(config: Any) -> dict[str, Any]:
    """What a config tells of the encoder, as arguments of [`ClarityConfig`]."""
    kind = getattr(config, "model_type", type(config).__name__)
    if kind == "timm_wrapper":
        import timm

        require_plain_timm(config)
        # Only timm knows what an architecture's name means; on the meta device that costs nothing.
        with torch.random.fork_rng(devices=[]), torch.device("meta"):
            module = timm.create_model(config.architecture, **({"num_classes": 0} | (config.model_args or {})))
        architecture = _module_architecture(module)
        kind = config.architecture
    elif kind in (*VIT_TYPES, "clarity"):
        if getattr(config, "use_swiglu_ffn", False):
            raise gated_mlp_error()
        fields = ("hidden_size", "num_hidden_layers", "num_attention_heads", "hidden_act", "num_channels", "qkv_bias")
        architecture = {name: getattr(config, name) for name in (*fields, "layer_norm_eps", "image_size")}
        ratio = getattr(config, "mlp_ratio", None)
        architecture["intermediate_size"] = config.intermediate_size if ratio is None else int(
            config.hidden_size * ratio
        )
        architecture["patch_size"] = patch_side(config.patch_size)
    else:
        architecture = {}
    if not architecture:
        raise ValueError(
            f"`source` must be a ViT with plain blocks ({', '.join(VIT_TYPES)}, or timm's VisionTransformer), got "
            f"'{kind}'. Choose another checkpoint; of DINOv3 timm's, such as timm/vit_small_patch16_dinov3.lvd1689m."
        )
    return architecture


def _module_architecture(module: nn.Module) -> dict[str, Any]:
    """The same of a module, also inside a wrapper; empty where it is unknown."""
    for part in module.modules():
        if getattr(getattr(part, "config", None), "model_type", None) in (*VIT_TYPES, "clarity"):
            return _config_architecture(part.config)
        if hasattr(part, "blocks") and hasattr(part, "patch_embed"):
            return _timm_architecture(part)
    return {}


def _timm_architecture(module: Any) -> dict[str, Any]:
    """The same of timm's VisionTransformer or DINO's own; empty where its blocks are others."""
    block, projection = module.blocks[0], getattr(module.patch_embed, "proj", None)
    attention: Any = getattr(block, "attn", None)
    mlp: Any = getattr(block, "mlp", None)
    if "glu" in type(mlp).__name__.lower():
        raise gated_mlp_error()
    plain = hasattr(attention, "qkv") and hasattr(attention, "num_heads") and hasattr(mlp, "fc1")
    if not plain or not isinstance(projection, nn.Conv2d):
        return {}
    activation = type(getattr(mlp, "act", None)).__name__
    size = getattr(module.patch_embed, "img_size", None)
    architecture = {
        "hidden_size": projection.out_channels,
        "num_hidden_layers": len(module.blocks),
        "num_attention_heads": attention.num_heads,
        "intermediate_size": mlp.fc1.out_features,
        "patch_size": patch_side(projection.kernel_size),
        "num_channels": projection.in_channels,
        "qkv_bias": attention.qkv.bias is not None or getattr(attention, "q_bias", None) is not None,
        "layer_norm_eps": block.norm1.eps,
        "hidden_act": ACTIVATIONS.get(activation, activation),
        "image_size": size[0] if isinstance(size, Sequence) and size[0] == size[1] else size,
    }
    return {name: value for name, value in architecture.items() if value is not None}
