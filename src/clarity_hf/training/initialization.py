# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Where training starts: weights of a DINO or another ViT, or of a CLARiTy with other findings.

Sources: DINO (Caron et al., arXiv 2104.14294) and DINOv2 (Oquab et al., arXiv 2304.07193), whose checkpoints come in
the layouts of transformers and timm; class tokens copied from the one class token: MCTformer (Xu et al., arXiv
2203.02891).
"""

from __future__ import annotations

import copy
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn
from transformers import AutoConfig, AutoModel
from transformers.configuration_utils import PreTrainedConfig
from transformers.utils.hub import cached_file

from clarity_hf.configuration_clarity import PER_FINDING_FIELDS, ClarityConfig
from clarity_hf.modeling_clarity import ClarityForMultiLabelLocalization, ClarityPreTrainedModel

PreTrained = TypeVar("PreTrained", bound=ClarityPreTrainedModel)

VIT_TYPES = ("vit", "deit", "dinov2", "dinov2_with_registers", "vit_mae", "vit_msn")
"""`model_type` of the transformers models whose blocks are those of ClarityModel, LayerScale aside."""

PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".tar", ".npz")

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
}
"""LayerScale of DINOv2 and the linear layer before it."""

BLOCK_KEY = re.compile(r"(?:encoder\.layers?|layers?|blocks)\.(\d+)\.(.+)")
EXTRA_TOKEN = re.compile(r"(?:embeddings\.)?(?:(reg|register|dist|distillation)_tokens?|mask_token)")
CHANGES_TOKENS = re.compile(r"embeddings\.|patch_embed\.|norm_pre\.|pos_embed|rope|rel_pos")
"""Keys outside the blocks without which the encoder computes something else."""
GATED_MLP = re.compile(r"mlp\.(gate_proj|up_proj|down_proj|weights_in|weights_out|w12|w[123]|fc1_[gx])\.")
OPTIONAL_BIAS = re.compile(r".*(?:_proj|projection|fc1|fc2)\.bias")

PER_FINDING_WEIGHTS = {
    "embeddings.class_tokens": 1,
    "embeddings.class_positions": 1,
    "class_token_head.weight": 0,
    "class_token_head.bias": 0,
    "segment_cam.cam.weight": 0,
    "ranking_pooling.bias": 0,
}
"""Weights with a row for each finding, and their axis of findings."""

ACTIVATIONS = {
    "GELU": "gelu",
    "GELUTanh": "gelu_pytorch_tanh",
    "QuickGELU": "quick_gelu",
    "ReLU": "relu",
    "SiLU": "silu",
}
"""Activations of timm by class and by the name that the library has for them."""


@dataclass
class AdaptationReport:
    """What became of the findings when a checkpoint met another list of them.

    Args:
        kept: Findings whose weights were carried over, in the new order.
        new: Findings that the checkpoint did not know, in the new order.
        dropped: Findings of the checkpoint that are gone.
    """

    kept: list[str]
    new: list[str]
    dropped: list[str]

    def __str__(self) -> str:
        parts = (("kept", self.kept), ("new", self.new), ("dropped", self.dropped))
        return "Findings: " + "; ".join(f"{len(names)} {word}{_listed(names)}" for word, names in parts)


@dataclass
class InitializationReport:
    """Where each weight of a model comes from. Every name of its state dict is in exactly one list but `unused`.

    Args:
        layout: `"transformers"`, `"timm"` (DINO's and DINOv2's own files too) or `"clarity"`.
        matched: Copied one to one.
        resampled: Patch positions, resampled bicubically to the model's patch grid.
        copied_to_classes: Class tokens and positions, each a noisy copy of the source's one.
        folded: Recomputed without changing the function: LayerScale multiplied into the layer before it, the patch
            embedding summed or spread over channels.
        zeroed: Biases that the source does not have.
        initialised: Not in the source: they stay as they were.
        unused: What the source has and the model does not; its own names. Of position embeddings, which rows.
        eps: LayerNorm's ε of the source, None where it is unknown, and of the model.
        findings: For a CLARiTy source whose findings are known, what became of them.
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

    def __str__(self) -> str:
        lines = [f"Initialised from a ViT in the layout of {self.layout}: {len(self.matched)} weights one to one."]
        for name in ("resampled", "copied_to_classes", "folded", "zeroed", "initialised", "unused"):
            names = getattr(self, name)
            if names:
                lines.append(f"  {name}: {len(names)}{_listed(names)}")
        if self.findings is not None:
            lines.append(f"  {self.findings}")
        source, own = self.eps
        if source is None:
            lines.append(f"  LayerNorm eps: {own:g}, the source's is unknown")
        elif source != own:
            lines.append(f"  LayerNorm eps: {own:g}, the source's is {source:g}: set layer_norm_eps to take it over")
        return "\n".join(lines)


@dataclass
class _Source:
    """A checkpoint as it was read: its weights, and what its config tells, in the names of [`ClarityConfig`]."""

    state: dict[str, torch.Tensor]
    architecture: dict[str, Any] = field(default_factory=dict)
    findings: list[str] | None = None
    unused: list[str] = field(default_factory=list)


@dataclass
class _Plan:
    """Tensors for the model by name (without `clarity.`), and in which list of the report each name goes."""

    tensors: dict[str, torch.Tensor] = field(default_factory=dict)
    kinds: dict[str, str] = field(default_factory=dict)
    unused: list[str] = field(default_factory=list)
    findings: AdaptationReport | None = None

    def add(self, name: str, tensor: torch.Tensor, kind: str) -> None:
        self.tensors[name], self.kinds[name] = tensor, kind


@torch.no_grad()
def initialize_from_vit(
    model: ClarityPreTrainedModel,
    source: str | os.PathLike | nn.Module | Mapping[str, torch.Tensor],
    class_token_noise: float = 0.02,
    generator: torch.Generator | None = None,
) -> InitializationReport:
    """Start a model from a ViT, in place. If it raises, the model is as it was.

    Patch embedding, blocks, final LayerNorm and patch positions are those of the source. Its one class token and the
    position of it are copied to every finding, plus noise: identical tokens have identical gradients and would never
    part. Positions are resampled bicubically without antialiasing where the patch grids differ, as DINO, transformers
    and the model itself do for other image sizes (timm antialiases). DINOv2's LayerScale is multiplied into the layer
    before it, an RGB patch embedding summed for a model of one channel (or a grey one spread over the channels): the
    encoder computes what the source computes. Register and distillation tokens are left out, which changes that.

    From a CLARiTy checkpoint everything that fits is copied, heads and class tokens too; findings are matched by name
    as in [`adapt_findings`].

    Args:
        model: [`ClarityForMultiLabelLocalization`] or [`ClarityModel`]; keeps its dtype and device.
        source: A Hub id or folder in the layout of transformers (ViT, DeiT, DINOv2, with registers too) or timm
            (`timm/...`, `hf-hub:timm/...`), a packaged checkpoint such as `clarity-s16-224`, a `.safetensors` file,
            a module of transformers or timm, or a state dict. Safetensors only. A state dict does not tell its
            number of attention heads: it is taken to be the model's. Of a DINO file the teacher is taken.
        class_token_noise: Standard deviation of the noise on class tokens and class positions, at least 0.
        generator: Source of the noise, on the CPU; by default one with seed 0. Global random state stays as it is.

    Returns:
        [`InitializationReport`]; `print` it for the log.

    Raises:
        ValueError: The source has another architecture (the message says which config fits), a layout that is not
            known, pickled weights, or parts that ClarityModel does not have, such as a SwiGLU MLP.
        TypeError: `model` or `source` is of another type.
        FileNotFoundError: There is no such file.
        OSError: There is no such repository, or it has no safetensors.
    """
    if not isinstance(model, ClarityPreTrainedModel):
        raise TypeError(f"`model` must be a CLARiTy model, got {type(model).__name__}. Build one from ClarityConfig.")
    noise = _Noise(class_token_noise, generator)
    read = _read(source)
    layout, prefix = _find_layout(read.state)
    names = {name.removeprefix("clarity."): name for name in model.state_dict()}
    own = _state_by_short_name(model)
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
    return report


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
            "Give a ViT of transformers or timm, such as facebook/dino-vits16."
        )
    return ClarityConfig(**(architecture | changes))


@torch.no_grad()
def adapt_findings(
    model: PreTrained,
    findings: Sequence[str],
    class_token_noise: float = 0.02,
    generator: torch.Generator | None = None,
) -> tuple[PreTrained, AdaptationReport]:
    """A model for other findings that keeps what the given one knows.

    Encoder, SegmentCAM's trunk and the foreground are copied, and the rows and config values of findings that both
    know, by name. A new finding's class token starts as the mean of the given model's plus noise: the blocks have
    learnt to serve such tokens, and a random one would first have to become one of them. Its head starts from the
    usual initialisation and its bias at its prevalence, for a mean of heads is evidence for no finding. Its config
    values are the defaults.

    Args:
        model: Left as it is.
        findings: Names in the order of the new logits, at least one, each once.
        class_token_noise: Standard deviation of the noise on new class tokens and positions, at least 0.
        generator: Source of noise and of new heads, on the CPU; by default one with seed 0. Global random state
            stays as it is.

    Returns:
        The new model, of the same class, dtype, device and mode, and an [`AdaptationReport`]. The same findings in
        another order give the same outputs in that order.

    Raises:
        TypeError: `findings` is a string.
        ValueError: It is empty or names a finding twice, or the noise is below 0.
    """
    findings = _checked_findings(findings)
    noise = _Noise(class_token_noise, generator)
    config = copy.deepcopy(model.config)
    _set_findings(config, findings)
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(noise.seed())
        adapted = type(model)(config)
    adapted = adapted.to(device=model.device, dtype=model.dtype).train(model.training)
    own, known = _state_by_short_name(adapted), model.config.findings
    for name, tensor in _rows_by_finding(_state_by_short_name(model), known, findings, own, noise).items():
        own[name].copy_(tensor)
    return adapted, _adaptation(known, findings)


def _state_by_short_name(model: nn.Module) -> dict[str, torch.Tensor]:
    """Weights, shared with the model, by names that are the same with heads and without."""
    return {name.removeprefix("clarity."): tensor for name, tensor in model.state_dict().items()}


class _Noise:
    """Gaussian noise from a generator of its own."""

    def __init__(self, std: float, generator: torch.Generator | None):
        if not 0 <= std < math.inf:
            raise ValueError(f"`class_token_noise` must be at least 0, got {std}. 0.02 is the default.")
        self.std = std
        self.generator = generator if generator is not None else torch.Generator().manual_seed(0)

    def add_to(self, tensor: torch.Tensor) -> torch.Tensor:
        """The tensor plus noise."""
        noise = torch.randn(tensor.shape, generator=self.generator, device=self.generator.device)
        return tensor + self.std * noise.to(tensor)

    def seed(self) -> int:
        """A seed for a generator that cannot be passed."""
        device = self.generator.device
        return int(torch.randint(2**62, (), generator=self.generator, device=device).item())


# Reading


def _repository(source: str | os.PathLike) -> str:
    """A Hub id or folder without timm's `hf-hub:`."""
    return re.sub(r"^hf[-_]hub:", "", str(source))


def _read(source: Any) -> _Source:
    if isinstance(source, nn.Module):
        findings = _findings_of(getattr(source, "config", None))
        return _Source(dict(source.state_dict()), _module_architecture(source), findings)
    if isinstance(source, Mapping):
        strange = [key for key, value in source.items() if not isinstance(value, torch.Tensor)]
        if strange:
            raise TypeError(
                f"`source` must map names to tensors, got something else under {strange[:3]}. "
                "Give the state dict itself."
            )
        return _Source(dict(source))
    if isinstance(source, str | os.PathLike):
        return _read_files(_repository(source))
    raise TypeError(
        f"`source` must be a Hub id, a folder, a .safetensors file, a module or a state dict, got "
        f"{type(source).__name__}. Give one of them."
    )


def _read_files(name: str) -> _Source:
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
        pickles = sorted(file.name for file in path.iterdir() if file.suffix in PICKLES)
        if not pickles:
            raise FileNotFoundError(f"`source` must hold a .safetensors file, got none in {name}. Correct the path.")
        raise _pickled(name, pickles)
    return _read_pretrained(name)


def _read_file(path: Path) -> _Source:
    if path.suffix != ".safetensors":
        raise _pickled(str(path), [path.name])
    if not path.is_file():
        raise FileNotFoundError(f"`source` must be a file that exists, got {path}. Correct the path.")
    source = _Source(load_file(path))
    if (path.parent / "config.json").is_file():  # it knows the heads, which the weights do not tell
        config = AutoConfig.from_pretrained(path.parent, trust_remote_code=False)
        source.architecture, source.findings = _config_architecture(config), _findings_of(config)
    return source


def _read_pretrained(name: str) -> _Source:
    config = AutoConfig.from_pretrained(name, trust_remote_code=False)
    architecture = _config_architecture(config)  # refuses before anything large is loaded
    if config.model_type == "timm_wrapper":  # whose loader fails on what timm's own `save_for_hf` writes
        return _Source(load_file(cached_file(name, "model.safetensors")), architecture)
    loader: Any = AutoModel if not isinstance(config, ClarityConfig) else ClarityForMultiLabelLocalization
    with torch.random.fork_rng(devices=[]):  # the library draws weights for what the files lack
        module, info = loader.from_pretrained(name, config=config, use_safetensors=True, output_loading_info=True)
    state = {key: tensor for key, tensor in module.state_dict().items() if key not in info["missing_keys"]}
    return _Source(state, architecture, _findings_of(config), sorted(info["unexpected_keys"]))


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

        # Only timm knows what an architecture's name means; on the meta device that costs nothing.
        with torch.random.fork_rng(devices=[]), torch.device("meta"):
            module = timm.create_model(config.architecture, **({"num_classes": 0} | (config.model_args or {})))
        architecture = _module_architecture(module)
        kind = config.architecture
    elif kind in (*VIT_TYPES, "clarity"):
        if getattr(config, "use_swiglu_ffn", False):
            raise _gated_mlp()
        fields = ("hidden_size", "num_hidden_layers", "num_attention_heads", "hidden_act", "num_channels", "qkv_bias")
        architecture = {name: getattr(config, name) for name in (*fields, "layer_norm_eps", "image_size")}
        ratio = getattr(config, "mlp_ratio", None)
        architecture["intermediate_size"] = config.intermediate_size if ratio is None else int(
            config.hidden_size * ratio
        )
        architecture["patch_size"] = _side(config.patch_size)
    else:
        architecture = {}
    if not architecture:
        raise ValueError(
            f"`source` must be a ViT with plain blocks ({', '.join(VIT_TYPES)}, or timm's VisionTransformer), got "
            f"'{kind}'. Choose another checkpoint."
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
        "patch_size": _side(projection.kernel_size),
        "num_channels": projection.in_channels,
        "qkv_bias": attention.qkv.bias is not None,
        "layer_norm_eps": block.norm1.eps,
        "hidden_act": ACTIVATIONS.get(activation, activation),
        "image_size": size[0] if isinstance(size, Sequence) and size[0] == size[1] else size,
    }
    return {name: value for name, value in architecture.items() if value is not None}


def _side(patch: int | Sequence[int]) -> int:
    height, width = (patch, patch) if isinstance(patch, int) else patch
    if height != width:
        raise ValueError(f"`source` must have square patches, got {height} × {width}. Choose another checkpoint.")
    return height


# From a ViT


def _find_layout(state: Mapping[str, torch.Tensor]) -> tuple[str, str]:
    """Layout of a state dict and the prefix of its encoder, such as `vit.` or `teacher.backbone.`."""
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


def _plan_from_vit(
    read: _Source, prefix: str, own: dict[str, torch.Tensor], config: ClarityConfig, noise: _Noise
) -> _Plan:
    tensors, scales, unused = _translate(read.state, prefix)
    _check_architecture(_observed(tensors) | _stated(read), config)
    plan = _Plan(unused=unused)
    _plan_class_tokens_and_positions(plan, tensors, read, prefix, own, config, noise)
    for name, tensor in tensors.items():
        plan.add(name, tensor, "matched")
    _fold_layer_scales(plan, scales)
    _complete(plan, own, config)
    return plan


def _translate(
    state: Mapping[str, torch.Tensor], prefix: str
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor], list[str]]:
    """Tensors by our names, LayerScales by the layer before them, and the keys that have no place here.

    Raises:
        ValueError: Without one of those keys the encoder would compute something else.
    """
    tensors: dict[str, torch.Tensor] = {}
    scales: dict[str, torch.Tensor] = {}
    unused, strange = [], []
    for key, tensor in state.items():
        short = key.removeprefix(prefix)
        wide = _widened(tensor)
        block = BLOCK_KEY.fullmatch(short)
        module, _, leaf = block[2].rpartition(".") if block else ("", "", "")
        if not key.startswith(prefix):
            unused.append(key)
        elif block and block[2] in LAYER_SCALES:
            scales[f"layers.{block[1]}.{LAYER_SCALES[block[2]]}"] = wide
        elif block and module in BLOCK_NAMES and leaf in ("weight", "bias"):
            tensors |= _split(f"layers.{block[1]}.{BLOCK_NAMES[module]}", leaf, wide)
        elif short in OUTER_NAMES:
            tensors[OUTER_NAMES[short]] = wide
        elif block or (CHANGES_TOKENS.match(short) and not EXTRA_TOKEN.fullmatch(short)):
            strange.append(key)
        else:
            unused.append(key)
    first, second = (tensors.get(f"layers.0.mlp.{name}.weight") for name in ("fc1", "fc2"))
    packed = first is not None and second is not None and first.shape[0] != second.shape[1]  # both halves in one
    if packed or any(GATED_MLP.search(key) for key in strange):
        raise _gated_mlp()
    if strange:
        raise ValueError(
            f"`source` must be a plain ViT, got {len(strange)} weights that ClarityModel has no place for"
            f"{_listed(strange)}. Without them it would compute something else: choose another checkpoint."
        )
    return tensors, scales, unused


def _widened(tensor: torch.Tensor) -> torch.Tensor:
    """At least float32: half precision would round what is folded and resampled."""
    return tensor.detach().to(torch.promote_types(tensor.dtype, torch.float32))


def _split(name: str, leaf: str, tensor: torch.Tensor) -> dict[str, torch.Tensor]:
    """A layer by its name, timm's fused query, key and value as three."""
    if not name.endswith(".qkv"):
        return {f"{name}.{leaf}": tensor}
    stem = name.removesuffix("qkv")
    return {f"{stem}{part}_proj.{leaf}": third for part, third in zip("qkv", tensor.chunk(3), strict=True)}


def _gated_mlp() -> ValueError:
    return ValueError(
        "`source` must have MLPs of two layers, got SwiGLU. Its gate multiplies two projections, which the MLP of "
        "ClarityModel cannot compute: choose a checkpoint without it, such as a DINOv2 smaller than giant."
    )


def _observed(tensors: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """The architecture as far as shapes tell it."""
    patch = tensors["embeddings.patch_projection.weight"]
    if patch.ndim != 4:
        raise ValueError(
            f"`source` must embed patches by a convolution, got a weight of shape {tuple(patch.shape)}. "
            "Choose another checkpoint."
        )
    blocks = {int(name.split(".")[1]) for name in tensors if name.startswith("layers.")}
    observed = {"hidden_size": patch.shape[0], "num_hidden_layers": len(blocks), "patch_size": _side(patch.shape[2:])}
    if "layers.0.mlp.fc1.weight" in tensors:
        observed["intermediate_size"] = tensors["layers.0.mlp.fc1.weight"].shape[0]
    if "layers.0.attention.q_proj.bias" in tensors:
        observed["qkv_bias"] = True  # without one, zero does the same
    return observed


def _stated(read: _Source) -> dict[str, Any]:
    """What only the config tells."""
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
    """Fit the channels, set biases that the source lacks to zero, and check that the encoder is whole and fits."""
    _fit_channels(plan, config.num_channels)
    encoder = [name for name in own if name.startswith(("embeddings.patch_projection", "layers."))]
    for name in encoder:
        if name not in plan.tensors and OPTIONAL_BIAS.fullmatch(name):
            plan.add(name, torch.zeros_like(own[name]), "zeroed")
    # The final LayerNorm may be missing: timm moves it behind average pooling, where it norms no token.
    missing = [name for name in encoder if name not in plan.tensors]
    if missing:
        raise ValueError(
            f"`source` must have all weights of a ViT, got none for {len(missing)}{_listed(missing)}. "
            "Give the whole checkpoint."
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
    read: _Source,
    prefix: str,
    own: dict[str, torch.Tensor],
    config: ClarityConfig,
    noise: _Noise,
) -> None:
    """Divide `cls_token` and `positions`, which leave `tensors`, among class tokens and both kinds of positions."""
    token, positions = tensors.pop("cls_token", None), tensors.pop("positions", None)
    if positions is None:
        raise ValueError("`source` must have absolute position embeddings, got none. Choose another checkpoint.")
    positions = positions.reshape(1, -1, config.hidden_size)
    has_token = int(token is not None)
    extra = _extra_tokens(read.state, prefix)
    # Position embeddings begin with those of the class token and of extra tokens, of the former, or of none.
    leading = (has_token + sum(extra.values()), has_token + extra["distillation"], has_token, 0)
    count, grid = _position_grid(positions.shape[1], leading, _stored_grid(read), config)
    _plan_patch_positions(plan, positions[:, count:], grid, config)
    if count > has_token:
        plan.unused.append(f"position embeddings {has_token} to {count - 1}, of the extra tokens")
    if token is None:
        return  # class tokens stay as they were, and the report says so
    first = positions[:, :1] if count else torch.zeros_like(positions[:, :1])  # DINOv2 with registers, DeiT-3
    for name, tensor in (("class_tokens", token.reshape(1, 1, -1)), ("class_positions", first)):
        copies = tensor.expand(-1, own[f"embeddings.{name}"].shape[1], -1)
        plan.add(f"embeddings.{name}", noise.add_to(copies), "copied_to_classes")


def _extra_tokens(state: Mapping[str, torch.Tensor], prefix: str) -> dict[str, int]:
    """How many distillation and register tokens there are."""
    counts = {"distillation": 0, "register": 0}
    for key, tensor in state.items():
        match = EXTRA_TOKEN.fullmatch(key.removeprefix(prefix))
        if match and match[1]:  # a mask token stands in a patch's place
            kind = "register" if match[1].startswith("reg") else "distillation"
            counts[kind] += tensor.numel() // tensor.shape[-1]
    return counts


def _stored_grid(read: _Source) -> tuple[int, int] | None:
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

    Weights do not tell their grid: a known one goes first, then a square, then the model's own.
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
        "or the module, which know their image size."
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
    """Sum or spread a patch embedding over channels, so that a grey film repeated over them embeds alike."""
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
    read: _Source, prefix: str, own: dict[str, torch.Tensor], config: ClarityConfig, noise: _Noise
) -> _Plan:
    """Everything that fits, by name: a head of which a weight has another shape stays out as a whole."""
    root = prefix.removesuffix("clarity.")
    keys = {key.removeprefix(root).removeprefix("clarity."): key for key in read.state if key.startswith(root)}
    state = {name: _widened(read.state[key]) for name, key in keys.items()}
    _check_architecture(_observed(state) | _stated(read), config)
    plan = _Plan(unused=[key for key in read.state if not key.startswith(root)])
    count = state["embeddings.class_tokens"].shape[1]
    if read.findings is not None:
        plan.findings = _adaptation(read.findings, config.findings)
        state = _rows_by_finding(state, read.findings, config.findings, own, noise)
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


def _rows_by_finding(
    state: Mapping[str, torch.Tensor],
    known: Sequence[str],
    findings: Sequence[str],
    own: Mapping[str, torch.Tensor],
    noise: _Noise,
) -> dict[str, torch.Tensor]:
    """A state dict for other findings: known ones' rows by name, new tokens the noisy mean, new heads from `own`."""
    rows = [known.index(finding) if finding in known else None for finding in findings]
    adapted = dict(state)
    for name, axis in PER_FINDING_WEIGHTS.items():
        if name not in state or name not in own:
            continue
        stored = state[name].detach().movedim(axis, 0)
        if name.startswith("embeddings."):
            fresh = noise.add_to(stored.mean(0).expand(len(findings), *stored.shape[1:]))
        else:
            fresh = own[name].movedim(axis, 0).to(stored)
        if fresh.shape[1:] == stored.shape[1:]:  # else the head has another width and does not fit anyway
            chosen = [fresh[i] if row is None else stored[row] for i, row in enumerate(rows)]
            adapted[name] = torch.stack(chosen).movedim(0, axis)
    return adapted


def _adaptation(known: Sequence[str], findings: Sequence[str]) -> AdaptationReport:
    return AdaptationReport(
        kept=[finding for finding in findings if finding in known],
        new=[finding for finding in findings if finding not in known],
        dropped=[finding for finding in known if finding not in findings],
    )


def _checked_findings(findings: Sequence[str]) -> list[str]:
    if isinstance(findings, str):
        raise TypeError(f"`findings` must be a list of names, got the string {findings!r}. Put it in a list.")
    findings = list(findings)
    if not findings or len(set(findings)) < len(findings):
        raise ValueError(f"`findings` must be names, at least one and each once, got {findings}. Correct the list.")
    return findings


def _set_findings(config: ClarityConfig, findings: list[str]) -> None:
    """Name other findings in a config; its lists of a value per finding follow by name, new ones at their defaults."""
    lists = {name: config.per_finding(name) for name in PER_FINDING_FIELDS if _is_list(getattr(config, name))}
    known = config.findings
    defaults = ClarityConfig(id2label=dict(enumerate(findings)))
    config.id2label = dict(enumerate(findings))
    config.label2id = {finding: i for i, finding in enumerate(findings)}
    for name, values in lists.items():
        stored = dict(zip(known, values, strict=True))
        fresh = zip(findings, defaults.per_finding(name), strict=True)
        setattr(config, name, [stored.get(finding, default) for finding, default in fresh])
    config.validate_architecture()


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple)


def _listed(names: Sequence[str], limit: int = 6) -> str:
    """The first names in brackets, for a message."""
    if not names:
        return ""
    more = f", … {len(names) - limit} more" if len(names) > limit else ""
    return f" ({', '.join(names[:limit])}{more})"


__all__ = [
    "AdaptationReport",
    "InitializationReport",
    "adapt_findings",
    "config_from_vit",
    "initialize_from_vit",
]
