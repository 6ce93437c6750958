# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Reading a ViT or a CLARiTy from files, folders, the Hub or modules: its weights by our names, and its architecture.

Only safetensors are read, and no remote code is run. Known layouts are those of transformers, timm, DINO (Caron et
al., arXiv 2104.14294) and DINOv2 (Oquab et al., arXiv 2304.07193).
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
from clarity_hf.modeling_clarity import ClarityForMultiLabelLocalization
from clarity_hf.safe_loading import PICKLES, load_foreign_model, require_plain_timm

from .adaptation import listed

VIT_TYPES = ("vit", "deit", "dinov2", "dinov2_with_registers", "vit_mae", "vit_msn")
"""`model_type` of transformers models with the blocks of ClarityModel, apart from LayerScale."""

CONFIG_FIELDS = (
    *("hidden_size", "num_hidden_layers", "num_attention_heads", "hidden_act"),
    *("num_channels", "qkv_bias", "layer_norm_eps", "image_size"),
)
"""Fields with the same names in [`ClarityConfig`]."""

NOT_READ = (*PICKLES, ".tar", ".npz")

ACTIVATIONS = dict(GELU="gelu", GELUTanh="gelu_pytorch_tanh", QuickGELU="quick_gelu", ReLU="relu", SiLU="silu")
"""Activations of timm by class, with their names in transformers."""

PATCH_EMBEDDINGS = {
    "clarity": "embeddings.patch_projection.weight",
    "transformers": "embeddings.patch_embeddings.projection.weight",
    "timm": "patch_embed.proj.weight",
}
"""Key by which a layout is recognised, after the prefix of the encoder, such as `vit.`."""

OUTER_SPELLINGS = {
    "cls_token": ("embeddings.cls_token", "cls_token"),
    "positions": ("embeddings.position_embeddings", "pos_embed"),
    "embeddings.patch_projection": ("embeddings.patch_embeddings.projection", "patch_embed.proj"),
    "layernorm": ("layernorm", "norm"),
}
"""Parts outside the blocks by our names: in transformers, and in timm and DINO. `cls_token` and `positions` are later
divided among class tokens and patches."""

BLOCK_SPELLINGS = {
    "attention.q_proj": ("attention.attention.query", "attention.q_proj"),
    "attention.k_proj": ("attention.attention.key", "attention.k_proj"),
    "attention.v_proj": ("attention.attention.value", "attention.v_proj"),
    "attention.qkv": ("attn.qkv",),
    "attention.o_proj": ("attention.output.dense", "attention.o_proj", "attn.proj"),
    "mlp.fc1": ("intermediate.dense", "mlp.fc1"),
    "mlp.fc2": ("output.dense", "mlp.fc2"),
    "layernorm_before": ("layernorm_before", "norm1"),
    "layernorm_after": ("layernorm_after", "norm2"),
    # LayerScale of DINOv2 and DINOv3, under the name of the linear layer before it.
    "attention.o_proj.scale": ("layer_scale1.lambda1", "ls1.gamma", "gamma_1"),
    "mlp.fc2.scale": ("layer_scale2.lambda1", "ls2.gamma", "gamma_2"),
    # Separate biases of timm's EVA and DINOv3; keys have none.
    "attention.q_proj.bias": ("attn.q_bias",),
    "attention.v_proj.bias": ("attn.v_bias",),
}
"""Layers and weights of a block by our names: in files of transformers, in its models, and in timm and DINO."""

BLOCK_KEY = re.compile(r"(?:encoder\.layers?|layers?|blocks)\.(\d+)\.(.+)")
EXTRA_TOKEN = re.compile(r"(?:embeddings\.)?(?:(reg|register|dist|distillation)_tokens?|mask_token)")
CHANGES_TOKENS = re.compile(r"embeddings\.|patch_embed\.|norm_pre\.|pos_embed|rope|rel_pos")
"""Keys outside the blocks without which the encoder would compute something else."""
GATED_MLP = re.compile(r"mlp\.(gate_proj|up_proj|down_proj|weights_in|weights_out|w12|w[123]|fc1_[gx])\.")


OUTER_NAMES, BLOCK_NAMES = (
    {spelling: name for name, known in table.items() for spelling in known}
    for table in (OUTER_SPELLINGS, BLOCK_SPELLINGS)
)


def find_layout(state: Mapping[str, torch.Tensor]) -> tuple[str, str]:
    """Layout of a state dict, a key of `PATCH_EMBEDDINGS`, and the prefix of its encoder, such as `vit.`.

    Raises ValueError unless it contains one ViT of these layouts.
    """
    found = [
        (layout, key.removesuffix(ending))
        for layout, ending in PATCH_EMBEDDINGS.items()
        for key in state
        if key == ending or key.endswith("." + ending)
    ]
    if len(found) > 1:  # DINO's own files, of which the teacher is used
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


def translate(state: Mapping[str, torch.Tensor], prefix: str) -> tuple[dict[str, torch.Tensor], list[str]]:
    """A state dict in the layout of transformers or timm, under a prefix, by the names of ClarityModel.

    Returns:
        Tensors in at least float32, with `cls_token` and `positions` yet to be divided and LayerScales `(D,)` as
        `scale` of the layer before them; and the keys that the encoder does not need.

    Raises:
        ValueError: ClarityModel has no equivalent of a weight that changes the encoder's function, such as a SwiGLU
            MLP.
    """
    tensors: dict[str, torch.Tensor] = {}
    unused, unplaced = [], []
    for key, tensor in state.items():
        short = key.removeprefix(prefix)
        if not key.startswith(prefix):
            unused.append(key)
        elif name := _our_name(short):
            tensors |= _split(name, widened(tensor))
        elif BLOCK_KEY.fullmatch(short) or (CHANGES_TOKENS.match(short) and not EXTRA_TOKEN.fullmatch(short)):
            unplaced.append(key)
        else:
            unused.append(key)
    first, second = (tensors.get(f"layers.0.mlp.{name}.weight") for name in ("fc1", "fc2"))
    packed = first is not None and second is not None and first.shape[0] != second.shape[1]  # both halves in one
    if packed or any(GATED_MLP.search(key) for key in unplaced):
        raise gated_mlp_error()
    if unplaced:
        raise ValueError(
            f"`source` must be a plain ViT, got {len(unplaced)} weights that ClarityModel has no place for"
            f"{listed(unplaced)}. Without them it would compute something else: choose another checkpoint."
        )
    return tensors, unused


def _our_name(name: str) -> str | None:
    block = BLOCK_KEY.fullmatch(name)
    known, rest = (BLOCK_NAMES, block[2]) if block else (OUTER_NAMES, name)
    module, _, leaf = rest.rpartition(".")
    found = known.get(rest)
    if found is None and module in known and leaf in ("weight", "bias"):
        found = f"{known[module]}.{leaf}"
    return f"layers.{block[1]}.{found}" if block and found else found


def widened(tensor: torch.Tensor) -> torch.Tensor:
    """In at least float32: half precision would round what is folded and resampled."""
    return tensor.detach().to(torch.promote_types(tensor.dtype, torch.float32))


def _split(name: str, tensor: torch.Tensor) -> dict[str, torch.Tensor]:
    """A tensor by its name; timm's fused query, key and value as three."""
    stem, fused, leaf = name.partition(".qkv.")
    if not fused:
        return {name: tensor}
    return {f"{stem}.{part}_proj.{leaf}": third for part, third in zip("qkv", tensor.chunk(3), strict=True)}


def gated_mlp_error() -> ValueError:
    """The error for a source with SwiGLU."""
    return ValueError(
        "`source` must have MLPs of two layers, got SwiGLU. Its gate multiplies two projections, which the MLP of "
        "ClarityModel cannot compute: choose a checkpoint without it, such as a DINOv2 smaller than giant."
    )


def observed_architecture(tensors: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """The architecture that shapes determine, as arguments of [`ClarityConfig`]; `tensors` are by our names.

    Raises ValueError unless patches are square and embedded by a convolution.
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
        observed["qkv_bias"] = True  # a missing bias is equivalent to zero
    return observed


def patch_side(patch: int | Sequence[int]) -> int:
    """Side in pixels of a square patch, given as one number or as height and width; raises ValueError for others."""
    height, width = (patch, patch) if isinstance(patch, int) else patch
    if height != width:
        raise ValueError(f"`source` must have square patches, got {height} × {width}. Choose another checkpoint.")
    return height


def extra_tokens(state: Mapping[str, torch.Tensor], prefix: str) -> dict[str, int]:
    """Numbers of `"distillation"` and `"register"` tokens of a state dict."""
    counts = {"distillation": 0, "register": 0}
    for key, tensor in state.items():
        match = EXTRA_TOKEN.fullmatch(key.removeprefix(prefix))
        if match and match[1]:  # mask tokens replace patches
            kind = "register" if match[1].startswith("reg") else "distillation"
            counts[kind] += tensor.numel() // tensor.shape[-1]
    return counts


@dataclass
class Checkpoint:
    """A checkpoint as it was read.

    Args:
        state: Weights by the source's own names.
        architecture: The encoder according to its config, as arguments of [`ClarityConfig`]; empty without a config.
        findings: Of a CLARiTy with a config, in the order of its logits.
        unused: Names in its files that the library's model does not use.
        rotary: Whether a module rotates queries and keys by position (RoPE).
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
            library, or a config of transformers. Of a CLARiTy source the config of the heads is used too.
        changes: Arguments of [`ClarityConfig`] that override the source's, such as `image_size=512`.

    Raises:
        ValueError: The source is not a ViT with plain blocks.

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
    """Read a source of [`initialize_from_vit`]: its weights, and the architecture in its config.

    Raises:
        ValueError: The weights are pickled, there are several files without a config, or the config does not describe
            a ViT with plain blocks.
        TypeError: `source` has another type, or a state dict has values other than tensors.
        FileNotFoundError: No such file.
        OSError: No such repository, or one without safetensors.
    """
    if isinstance(source, nn.Module):
        rotary = any(getattr(part, "rope", None) is not None for part in source.modules())
        findings = _findings_of(getattr(source, "config", None))
        return Checkpoint(dict(source.state_dict()), _module_architecture(source), findings, rotary=rotary)
    if isinstance(source, Mapping):
        strange = [key for key, value in source.items() if not isinstance(value, torch.Tensor)]
        if strange:
            raise TypeError(
                f"`source` must map names to tensors, got something else under {strange[:3]}. "
                "Give the state dict itself."
            )
        return Checkpoint(dict(source))
    if not isinstance(source, str | os.PathLike):
        raise TypeError(
            f"`source` must be a Hub id, a folder, a .safetensors file, a module or a state dict, got "
            f"{type(source).__name__}. Give one of them."
        )
    return _read_files(_repository(source))


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
    if path.is_dir() and not any(path.glob("*.safetensors")):
        pickles = sorted(file.name for file in path.iterdir() if file.suffix in NOT_READ)
        if not pickles:
            raise FileNotFoundError(f"No .safetensors file in {name}. Correct the path of `source`.")
        raise _pickled(name, pickles)
    if path.is_file() and path.suffix != ".safetensors":
        raise _pickled(name, [path.name])
    if path.suffix != ".safetensors":
        return _read_pretrained(name)
    if not path.is_file():
        raise FileNotFoundError(f"No such file: {path}. Correct the path of `source`.")
    source = Checkpoint(load_file(path))
    if (path.parent / "config.json").is_file():  # which has the number of heads
        config = AutoConfig.from_pretrained(path.parent, trust_remote_code=False)
        source.architecture, source.findings = _config_architecture(config), _findings_of(config)
    return source


def _read_pretrained(name: str) -> Checkpoint:
    config = AutoConfig.from_pretrained(name, trust_remote_code=False)
    architecture = _config_architecture(config)  # errors come before anything large is loaded
    if config.model_type == "timm_wrapper":  # whose loader fails on files of timm's own `save_for_hf`
        return Checkpoint(load_file(cached_file(name, "model.safetensors")), architecture)
    loader: Any = AutoModel if not isinstance(config, ClarityConfig) else ClarityForMultiLabelLocalization
    with torch.random.fork_rng(devices=[]):  # the library initialises missing weights
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
    """The encoder of a config as arguments of [`ClarityConfig`]."""
    kind = getattr(config, "model_type", type(config).__name__)
    architecture: dict[str, Any] = {}
    if kind == "timm_wrapper":
        import timm

        require_plain_timm(config)
        # Only timm can resolve the name of an architecture.
        with torch.random.fork_rng(devices=[]), torch.device("meta"):
            module = timm.create_model(config.architecture, **({"num_classes": 0} | (config.model_args or {})))
        architecture, kind = _module_architecture(module), config.architecture
    elif kind in (*VIT_TYPES, "clarity"):
        if getattr(config, "use_swiglu_ffn", False):
            raise gated_mlp_error()
        architecture = {name: getattr(config, name) for name in CONFIG_FIELDS}
        ratio = getattr(config, "mlp_ratio", None)
        width = config.intermediate_size if ratio is None else int(config.hidden_size * ratio)
        architecture |= {"intermediate_size": width, "patch_size": patch_side(config.patch_size)}
    if not architecture:
        raise ValueError(
            f"`source` must be a ViT with plain blocks ({', '.join(VIT_TYPES)}, or timm's VisionTransformer), got "
            f"'{kind}'. Choose another checkpoint; of DINOv3 timm's, such as timm/vit_small_patch16_dinov3.lvd1689m."
        )
    return architecture


def _module_architecture(module: nn.Module) -> dict[str, Any]:
    """The same for a module, possibly inside a wrapper; empty if unknown."""
    for part in module.modules():
        if getattr(getattr(part, "config", None), "model_type", None) in (*VIT_TYPES, "clarity"):
            return _config_architecture(part.config)
        if hasattr(part, "blocks") and hasattr(part, "patch_embed"):
            return _timm_architecture(part)
    return {}


def _timm_architecture(module: Any) -> dict[str, Any]:
    """The same for timm's VisionTransformer or DINO's own; empty for other blocks."""
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
