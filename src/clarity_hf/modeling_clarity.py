# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""CLARiTy: a ViT with one class token per finding and a SegmentCAM head.

An independent reconstruction of CLARiTy (Statheros, Wang, Klein, arXiv 2512.16700), which has no public code. What the
paper's abstract does not fix is taken from, or inspired by:
- class tokens and their attention maps: MCTformer (Xu et al., CVPR 2022, arXiv 2203.02891);
- attention pooling: class attention with LayerScale, CaiT (Touvron et al., ICCV 2021, arXiv 2103.17239);
- ranking pooling: SEC (Kolesnikov and Lampert, ECCV 2016, arXiv 1603.06098);
- class activation maps by a 1×1 convolution: Zhou et al., CVPR 2016, arXiv 1512.04150;
- blocks: ViT as in transformers and timm, so that DINO weights fit.

Symbols: B batch, F findings, D hidden size, h×w patch grid, N = h·w patches, K `class_attention_layers`.
"""

import difflib
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from torch import nn
from torchvision.ops import StochasticDepth
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import ModelOutput
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS, PreTrainedModel
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs
from transformers.utils.generic import can_return_tuple, merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from .calibration_fingerprint import calibration_fingerprint, may_be_of
from .configuration_clarity import ClarityConfig, require_whole_patches
from .losses_clarity import (
    background_loss,
    check_labels,
    check_prior,
    evidence_loss,
    foreground_loss,
    multilabel_classification_loss,
    orthogonality_loss,
)
from .plain_card import replace_draft
from .safe_loading import (
    require_finite,
    require_floating,
    require_none,
    require_safetensors,
    require_safetensors_files,
    tensor_types,
)


@dataclass
class ClarityModelOutput(ModelOutput):
    """Output of [`ClarityModel`].

    Args:
        last_hidden_state (`(B, F + N, D)`): Tokens after the final LayerNorm, class tokens first.
        class_tokens (`(B, F, D)`): Class tokens of the last block, before the final LayerNorm.
        class_attention (`(B, F, h, w)`): Class-to-patch attention, mean over heads and the last K blocks. Rows are the
            softmax over all F + N keys, so they sum to less than 1.
        affinity_states (tuple of `(query, key)`, each `(B, heads, F + N, d)`): Of the last `affinity_layers` blocks.
        kept_patches (`(B, M)` int64): Under patch dropout, the patches that the blocks saw, as ascending indices into
            the h·w of the grid. N is then M and the grid of the maps (M, 1). None without it.
        hidden_states (tuple of `(B, F + N, D)`): With `output_hidden_states=True`, embeddings and every block.
        attentions (tuple of `(B, heads, F + N, F + N)`): With `output_attentions=True` under eager attention.
    """

    last_hidden_state: torch.Tensor = None  # type: ignore[assignment]
    class_tokens: torch.Tensor = None  # type: ignore[assignment]
    class_attention: torch.Tensor = None  # type: ignore[assignment]
    affinity_states: tuple | None = None
    kept_patches: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None


@dataclass
class ClarityLocalizationOutput(ModelOutput):
    """Output of [`ClarityForMultiLabelLocalization`].

    Args:
        loss (scalar): With `labels`, the weighted sum of `loss_parts`.
        logits (`(B, F)` float32): Calibrated: slope · z + intercept, z the mean of the two logits below (without
            SegmentCAM the first alone), slope and intercept the config's `score_slopes` and `score_intercepts`.
        localization_maps (`(B, F, h, w)`): Values ≥ 0 on the patch grid of the model's input, on a scale of their own
            that is comparable between images: the map of an absent finding stays low. Without gradient.
        scores (`(B, F)` float32): Probability of each finding, in [0, 1]: the sigmoid of `logits`. Without gradient.
        box_settings (`(B, F, 5)`): What [`ClarityImageProcessor.post_process_localization`] draws boxes by, from the
            config, see [`ClarityConfig.box_settings`]. float64, on MPS float32.
        foreground (`(B, 1, h, w)`): The learnt thorax S in [0, 1]; None without SegmentCAM.
        class_token_logits (`(B, F)`): From the class tokens.
        patch_logits (`(B, F)`): From the class activation maps; None without SegmentCAM.
        activation_maps (`(B, F, h, w)`): Class activation maps P, of either sign; None without SegmentCAM.
        class_attention (`(B, F, h, w)`): Class-to-patch attention a in [0, 1].
        loss_parts (`dict` of scalars): With `labels`, the unweighted losses `class_token` and `patch`, `orthogonal`,
            with a prior `foreground` and `background`, and with masks of findings `evidence`.
        kept_patches (`(B, M)` int64): As in [`ClarityModelOutput`]: under patch dropout all maps above are
            `(B, F, M, 1)`, of these patches.
        hidden_states (tuple of `(B, F + N, D)`): With `output_hidden_states=True`, embeddings and every block.
        attentions (tuple of `(B, heads, F + N, F + N)`): With `output_attentions=True` under eager attention.
    """

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    localization_maps: torch.Tensor | None = None
    scores: torch.Tensor | None = None
    box_settings: torch.Tensor | None = None
    foreground: torch.Tensor | None = None
    class_token_logits: torch.Tensor | None = None
    patch_logits: torch.Tensor | None = None
    activation_maps: torch.Tensor | None = None
    class_attention: torch.Tensor | None = None
    loss_parts: dict[str, torch.Tensor] | None = None
    kept_patches: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None


class ClarityEmbeddings(nn.Module):
    """Patches and class tokens with their positions: `(B, C, H, W)` → `(B, F + N, D)`."""

    def __init__(self, config: ClarityConfig):
        super().__init__()
        self.patch_size = config.patch_size
        self.patch_grid = config.patch_grid
        patches = self.patch_grid[0] * self.patch_grid[1]
        self.patch_projection = nn.Conv2d(
            config.num_channels, config.hidden_size, kernel_size=config.patch_size, stride=config.patch_size
        )
        self.class_tokens = nn.Parameter(torch.zeros(1, config.num_labels, config.hidden_size))
        self.class_positions = nn.Parameter(torch.zeros(1, config.num_labels, config.hidden_size))
        self.patch_positions = nn.Parameter(torch.zeros(1, patches, config.hidden_size))
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        self._check(pixel_values)
        patches = self.patch_projection(pixel_values)
        positions = self.positions_for(patches.shape[-2], patches.shape[-1])
        patches = patches.flatten(2).transpose(1, 2) + positions
        tokens = (self.class_tokens + self.class_positions).expand(patches.shape[0], -1, -1)
        return self.dropout(torch.cat((tokens, patches), dim=1))

    def positions_for(self, height: int, width: int) -> torch.Tensor:
        """Position embeddings `(1, h·w, D)` of a grid, resampled bicubically where it is not the stored one."""
        if (height, width) == self.patch_grid:
            return self.patch_positions
        dtype = self.patch_positions.dtype
        grid = self.patch_positions.float().unflatten(1, self.patch_grid).permute(0, 3, 1, 2)
        grid = F.interpolate(grid, size=(height, width), mode="bicubic", align_corners=False)
        return grid.flatten(2).transpose(1, 2).to(dtype)

    def _check(self, pixel_values: torch.Tensor) -> None:
        channels = self.patch_projection.in_channels
        if pixel_values.ndim != 4 or pixel_values.shape[1] != channels:
            raise ValueError(
                f"`pixel_values` must be (B, {channels}, H, W), got {tuple(pixel_values.shape)}. "
                "Prepare images with ClarityImageProcessor."
            )
        for name, size in zip(("pixel_values height", "pixel_values width"), pixel_values.shape[2:], strict=True):
            require_whole_patches(name, size, self.patch_size, "Resize or pad the image.")


def sine_positions(height: int, width: int, size: int) -> torch.Tensor:
    """Two-dimensional sine and cosine position embeddings, from which training starts.

    Noise of std 0.02 disappears beside patch contents of std 0.5, and a network that is trained from scratch first has
    to find out where its patches are.

    Args:
        height: h of the patch grid.
        width: w of the patch grid.
        size: D; what exceeds a multiple of 4 stays 0.

    Returns:
        `(1, h·w, D)` in [−0.5, 0.5].

    Source: Chen et al., arXiv 2104.02057; Beyer et al., "Better plain ViT baselines", arXiv 2205.01580.
    """
    quarter = size // 4
    frequencies = 1.0 / 10_000 ** (torch.arange(quarter) / max(1, quarter - 1))
    rows = torch.arange(height)[:, None, None] * frequencies
    columns = torch.arange(width)[None, :, None] * frequencies
    waves = [wave.expand(height, width, -1) for axis in (columns, rows) for wave in (axis.sin(), axis.cos())]
    positions = F.pad(torch.cat(waves, dim=-1), (0, size - 4 * quarter))
    return 0.5 * positions.reshape(1, height * width, size)


def eager_attention_forward(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **kwargs,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention with materialised weights: `(B, heads, L, d)` → `(B, L, heads, d)` and `(B, heads, L, L)`."""
    scores = torch.matmul(query, key.transpose(2, 3)) * (scaling if scaling is not None else query.shape[-1] ** -0.5)
    if attention_mask is not None:
        scores = scores.masked_fill(~attention_mask, float("-inf"))
    weights = F.softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype)
    weights = F.dropout(weights, p=dropout, training=module.training)
    return torch.matmul(weights, value).transpose(1, 2).contiguous(), weights


def tiled_attention_mask(images: int, grid: tuple[int, int], num_tokens: int, rate: float) -> torch.Tensor:
    """Who may attend to whom when some images are cut into tiles.

    Each side is cut into tiles of a half, a third or a quarter of it, from a random place on. A patch of such an image
    sees the patches of its own tile alone, and no class token, through which it would see the others; class tokens see
    everything. What a patch then says of a finding it can only know from nearby.

    Args:
        images: B.
        grid: Patches `(h, w)`.
        num_tokens: F class tokens, which come first.
        rate: Share of the images that are cut, in [0, 1].

    Returns:
        `(B, 1, F + N, F + N)` bool, True where the row may attend to the column; drawn from the global generator.

    Source: the tiles of Puzzle-CAM (Jo and Yu, arXiv 2101.11253), as a mask in place of a second forward.
    """
    rows, columns = (  # (B, h) and (B, w): at most five tiles along a side
        (torch.randint(2, 5, (images, 1)) * torch.arange(length) / length + torch.rand(images, 1)).long()
        for length in grid
    )
    tiles = (rows[:, :, None] * 5 + columns[:, None, :]).flatten(1)
    whole = torch.rand(images) >= rate
    patches = (tiles[:, :, None] == tiles[:, None, :]) | whole[:, None, None]
    tokens = whole[:, None, None].expand(-1, tiles.shape[1], num_tokens)
    return F.pad(torch.cat((tokens, patches), dim=2), (0, 0, num_tokens, 0), value=True)[:, None]


def random_patches(images: int, count: int, rate: float) -> torch.Tensor:
    """The patches that patch dropout keeps: `(images, M)` ascending indices below `count`, other ones for each image.

    Args:
        images: B.
        count: Patches of an image.
        rate: Share that is dropped, in [0, 1); at least one patch is kept.

    Source: PatchDropout (Liu et al., arXiv 2208.07220) and FLIP (Li et al., arXiv 2212.00794).
    """
    kept = max(1, round(count * (1 - rate)))
    return torch.rand(images, count).argsort(1)[:, :kept].sort(1).values


def at_patches(maps: torch.Tensor, kept: torch.Tensor | None) -> torch.Tensor:
    """Maps `(B, C, h, w)` at the kept patches `(B, M)`, as `(B, C, M, 1)`; unchanged where `kept` is None."""
    if kept is None:
        return maps
    return maps.flatten(2).gather(2, kept[:, None].expand(-1, maps.shape[1], -1))[..., None]


def class_attention_rows(query: torch.Tensor, key: torch.Tensor, num_tokens: int, scaling: float) -> torch.Tensor:
    """The class-to-patch rows of an attention matrix, without the matrix.

    Args:
        query: `(B, heads, F + N, d)`, class tokens first.
        key: `(B, heads, F + N, d)`.
        num_tokens: F.
        scaling: Factor on the scores.

    Returns:
        `(B, F, N)` float32: the softmax over all F + N keys, its patch columns, mean over heads.
    """
    scores = torch.matmul(query[:, :, :num_tokens], key.transpose(2, 3)) * scaling
    return F.softmax(scores, dim=-1, dtype=torch.float32)[..., num_tokens:].mean(1)


class ClarityAttention(nn.Module):
    """Multi-head self-attention over class and patch tokens."""

    def __init__(self, config: ClarityConfig):
        super().__init__()
        self.config = config
        self.num_heads = config.num_attention_heads
        self.head_dim = config.hidden_size // config.num_attention_heads
        self.attention_dropout = config.attention_probs_dropout_prob
        self.scaling = self.head_dim**-0.5
        self.is_causal = False
        self.q_proj = nn.Linear(config.hidden_size, config.hidden_size, bias=config.qkv_bias)
        self.k_proj = nn.Linear(config.hidden_size, config.hidden_size, bias=config.qkv_bias)
        self.v_proj = nn.Linear(config.hidden_size, config.hidden_size, bias=config.qkv_bias)
        self.o_proj = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(
        self, hidden_states: torch.Tensor, attention_mask: torch.Tensor | None = None, **kwargs
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor, torch.Tensor]:
        """Attend: `(B, L, D)` → output `(B, L, D)`, weights under eager, query and key `(B, heads, L, d)`."""
        shape = (*hidden_states.shape[:-1], self.num_heads, self.head_dim)
        query = self.q_proj(hidden_states).view(shape).transpose(1, 2)
        key = self.k_proj(hidden_states).view(shape).transpose(1, 2)
        value = self.v_proj(hidden_states).view(shape).transpose(1, 2)
        attention_interface: Callable = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation, eager_attention_forward
        )
        output, weights = attention_interface(
            self,
            query,
            key,
            value,
            attention_mask,
            dropout=self.attention_dropout if self.training else 0.0,
            scaling=self.scaling,
            **kwargs,
        )
        return self.o_proj(output.reshape(hidden_states.shape)), weights, query, key


class ClarityMLP(nn.Module):
    """The block's two-layer perceptron."""

    def __init__(self, config: ClarityConfig):
        super().__init__()
        self.activation = ACT2FN[config.hidden_act]
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.fc2(self.activation(self.fc1(hidden_states)))


class ClarityLayer(GradientCheckpointingLayer):
    """A pre-norm ViT block that can give away its class-to-patch attention and its queries and keys."""

    def __init__(self, config: ClarityConfig, index: int):
        super().__init__()
        self.attention = ClarityAttention(config)
        self.layernorm_before = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.layernorm_after = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = ClarityMLP(config)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        depth = max(1, config.num_hidden_layers - 1)
        self.drop_path = StochasticDepth(config.drop_path_rate * index / depth, mode="row")

    def forward(
        self,
        hidden_states: torch.Tensor,
        num_tokens: int,
        keep_class_attention: bool = False,
        keep_affinity: bool = False,
        **kwargs,
    ) -> tuple[torch.Tensor, torch.Tensor | None, tuple[torch.Tensor, torch.Tensor] | None]:
        """`(B, F + N, D)` → the same; where asked the class rows `(B, F, N)` and `(query, key)`, else None."""
        attended, _, query, key = self.attention(self.layernorm_before(hidden_states), **kwargs)
        hidden_states = hidden_states + self.drop_path(self.dropout(attended))
        mixed = self.mlp(self.layernorm_after(hidden_states))
        hidden_states = hidden_states + self.drop_path(self.dropout(mixed))
        rows = class_attention_rows(query, key, num_tokens, self.attention.scaling) if keep_class_attention else None
        return hidden_states, rows, (query, key) if keep_affinity else None


class ClarityPreTrainedModel(PreTrainedModel):
    """Weights initialisation and what the library has to know of CLARiTy models."""

    config: ClarityConfig
    config_class = ClarityConfig
    base_model_prefix = "clarity"
    main_input_name = "pixel_values"
    input_modalities = ("image",)
    supports_gradient_checkpointing = True
    accepts_loss_kwargs = False  # the loss is a mean over images: the Trainer divides it by the accumulation steps
    _no_split_modules = ["ClarityEmbeddings", "ClarityLayer"]
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True
    _can_record_outputs = {"hidden_states": ClarityLayer, "attentions": ClarityAttention}
    _input_embed_layer = "patch_projection"

    def __init__(self, config: ClarityConfig, *inputs: Any, **kwargs: Any):
        super().__init__(config, *inputs, **kwargs)
        config.validate_architecture()  # fields may have been changed since the config was made

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *model_args: Any, **kwargs: Any) -> Any:
        """Load as `PreTrainedModel.from_pretrained` does, but all of it, and from safetensors alone.

        No pickle is ever opened, and a checkpoint whose tensors are not those of its config is refused: the library
        would fill what is missing with random values. To start from a part of a checkpoint, use
        [`initialize_from_vit`] or [`adapt_findings`].

        Args:
            pretrained_model_name_or_path: Name of a packaged checkpoint, folder or Hub id.
            model_args: As for the library.
            kwargs: As for the library, but for `use_safetensors`, which can only be True. With
                `output_loading_info=True` an incomplete checkpoint is loaded, and the second value names the tensors
                that were missing and unexpected; with `ignore_mismatched_sizes=True` tensors of another shape are
                initialised.

        Raises:
            OSError: There is no such checkpoint; the folder has no safetensors, for instance only a
                `pytorch_model.bin`; or the file is damaged.
            ValueError: `use_safetensors` is False; an index names something else than safetensors beside it; the
                config is missing, of another model or has a value out of its range; or a tensor is missing, has
                another shape or no floating type, is not finite, or has no place in the model of the config.
        """
        if kwargs.get("use_safetensors") is False:
            raise ValueError(
                "`use_safetensors` must be True, got False. Pickles can run code and are not read: leave it out."
            )
        kwargs["use_safetensors"] = True
        place = pretrained_model_name_or_path
        if place is not None:
            require_safetensors(os.path.join(place, kwargs.get("subfolder") or ""))
        try:
            loaded = super().from_pretrained(place, *model_args, **kwargs)
        except SafetensorError as error:
            raise OSError(
                f"`{place}` must hold whole safetensors, got a damaged file ({error}). Fetch it again."
            ) from error
        model = loaded[0] if isinstance(loaded, tuple) else loaded  # with `output_loading_info`
        missing, misplaced = model.__dict__.pop("_incomplete", ((), ()))
        if not isinstance(loaded, tuple):
            require_none(missing, place, "missing", "Fetch the file again, or save the model again.")
            require_none(misplaced, place, "too many", "Correct the sizes in config.json.")
        require_finite(model.state_dict(), place)
        return loaded

    def _upload_modified_files(self, working_dir: str, repo_id: str, *args: Any, **kwargs: Any) -> Any:
        """Of `push_to_hub`: the repository's own card stays, a draft of the library gives way to a plain one."""
        replace_draft(working_dir, repo_id, self.config.findings)
        return super()._upload_modified_files(working_dir, repo_id, *args, **kwargs)

    @staticmethod
    def _load_pretrained_model(
        model: Any, state_dict: Any, checkpoint_files: Any, load_config: Any, *args: Any, **kwargs: Any
    ) -> Any:
        """Read the files that were found, here or on the Hub, where all of them are safetensors."""
        files = [str(file) for file in checkpoint_files or ()]
        require_safetensors_files(files)
        if not load_config.is_quantized:  # a quantizer has types of its own
            types = tensor_types(files if state_dict is None else state_dict)
            ours = {name: kind for name, kind in types.items() if _is_ours(name, model)}
            require_floating(ours, load_config.pretrained_model_name_or_path)
        return PreTrainedModel._load_pretrained_model(
            model, state_dict, checkpoint_files, load_config, *args, **kwargs
        )

    @staticmethod
    def _finalize_model_loading(model: Any, load_config: Any, loading_info: Any) -> Any:
        """Refuse tensors of another shape, and note which are missing or have no place for `from_pretrained`."""
        if loading_info.mismatched_keys and not load_config.ignore_mismatched_sizes:
            name, stored, expected = min(loading_info.mismatched_keys)
            raise ValueError(
                f"`{load_config.pretrained_model_name_or_path}` must hold the tensors of its config.json, got "
                f"{len(loading_info.mismatched_keys)} of another shape, such as {name} {tuple(stored)} where "
                f"{tuple(expected)} is expected. Correct config.json, or change the findings with `adapt_findings`."
            )
        loading_info = PreTrainedModel._finalize_model_loading(model, load_config, loading_info)
        if load_config.pretrained_model_name_or_path is not None:  # else weights were given, or asked to be random
            missing, unexpected = sorted(loading_info.missing_keys), sorted(loading_info.unexpected_keys)
            model._incomplete = missing, [name for name in unexpected if _is_ours(name, model)]
        return loading_info

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        std = self.config.initializer_range
        if isinstance(module, ClarityEmbeddings):
            for parameter in (module.class_tokens, module.class_positions):
                init.trunc_normal_(parameter, mean=0.0, std=std)
            init.copy_(module.patch_positions, sine_positions(*module.patch_grid, self.config.hidden_size))
        elif isinstance(module, ClarityAttentionPooling):
            init.constant_(module.layer_scale, self.config.layer_scale_init)
        elif isinstance(module, ClarityClassTokenHead):
            if module.weight is not None:
                init.trunc_normal_(module.weight, mean=0.0, std=std)
            init.copy_(module.bias, torch.tensor(self.config.prevalence_bias()))
        elif isinstance(module, ClarityRankingPooling):
            init.copy_(module.bias, torch.tensor(self.config.prevalence_bias()))
        elif hasattr(module, "initial_std"):
            init.normal_(module.weight, mean=0.0, std=module.initial_std)


def _is_ours(name: str, model: PreTrainedModel) -> bool:
    """Whether a tensor that the model has no place for belongs to one of its modules; others may lie beside them."""
    parts = name.removeprefix(f"{model.base_model_prefix}.").split(".")
    return parts[0] in model._modules or parts[0] in model.base_model._modules


def _check_arguments(kwargs: Mapping[str, Any], *own: str) -> None:
    """Refuse arguments of `forward` that nothing would read, such as a misspelt prior; `own` are its other ones."""
    for name in kwargs.keys() - _ARGUMENTS:
        close = difflib.get_close_matches(name, sorted(_ARGUMENTS.union(own)), n=1)
        hint = f" Did you mean `{close[0]}`?" if close else ""
        raise TypeError(f"`forward` must be given arguments that it has, got `{name}`.{hint} Correct it.")


_ARGUMENTS = {*TransformersKwargs.__annotations__, "return_dict", "use_cache"}
"""What the library's decorators and attention functions read."""


class ClarityModel(ClarityPreTrainedModel):
    """The encoder: images to class tokens, patch tokens and class attention, without a head.

    Attributes:
        patch_dropout (`float`): Share of the patches, in [0, 1), that the blocks are not given while training; the
            class tokens always are. 0 unless `ClarityDistillationTrainer` sets it for its first epochs.
    """

    def __init__(self, config: ClarityConfig):
        super().__init__(config)
        self.embeddings = ClarityEmbeddings(config)
        self.layers = nn.ModuleList([ClarityLayer(config, index) for index in range(config.num_hidden_layers)])
        self.layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.patch_dropout = 0.0
        self.post_init()

    @torch.no_grad()
    def resize_position_embeddings(self, image_size: int | tuple[int, int]) -> None:
        """Store the position embeddings for another image size, resampled bicubically, in place.

        Args:
            image_size: Side or `(height, width)` in pixels; multiples of the patch size.

        Raises:
            ValueError: The patch does not divide the size.
        """
        previous, self.config.image_size = self.config.image_size, image_size
        try:
            self.config.validate_architecture()
        except ValueError:
            self.config.image_size = previous
            raise
        embeddings = self.embeddings
        embeddings.patch_positions = nn.Parameter(embeddings.positions_for(*self.config.patch_grid).clone())
        embeddings.patch_grid = self.config.patch_grid

    @merge_with_config_defaults
    @capture_outputs(tie_last_hidden_states=False)
    def forward(
        self, pixel_values: torch.Tensor | None = None, **kwargs: Unpack[TransformersKwargs]
    ) -> ClarityModelOutput:
        """Encode images.

        Args:
            pixel_values: `(B, C, H, W)` normalised; H and W multiples of the patch size, of any proportion.
            kwargs: `output_hidden_states`, `output_attentions` (eager attention only), `return_dict`, and what the
                attention functions of the library take.

        Returns:
            [`ClarityModelOutput`].

        Raises:
            TypeError: An argument is unknown.
            ValueError: `pixel_values` is missing, has another shape or a size that the patch does not divide.
        """
        _check_arguments(kwargs, "pixel_values")
        if pixel_values is None:
            raise ValueError("`pixel_values` must be given, got None. Prepare images with ClarityImageProcessor.")
        config = self.config
        pixel_values = pixel_values.to(self.embeddings.patch_projection.weight.dtype)
        hidden_states = self.embeddings(pixel_values)
        num_tokens = self.embeddings.class_tokens.shape[1]
        grid = _patch_grid(pixel_values, config.patch_size)
        mask = None
        if self.training and config.tiled_attention_rate > 0:
            mask = tiled_attention_mask(len(hidden_states), grid, num_tokens, config.tiled_attention_rate)
            mask = mask.to(hidden_states.device)
        kept = None
        if self.training and self.patch_dropout > 0:
            kept = random_patches(len(hidden_states), math.prod(grid), self.patch_dropout).to(hidden_states.device)
            tokens = F.pad(kept + num_tokens, (num_tokens, 0))
            tokens[:, :num_tokens] = torch.arange(num_tokens, device=kept.device)
            hidden_states = hidden_states.take_along_dim(tokens[..., None], 1)
            if mask is not None:
                mask = mask.take_along_dim(tokens[:, None, :, None], 2).take_along_dim(tokens[:, None, None], 3)
            grid = (kept.shape[1], 1)
        rows, affinity_states = [], []
        for index, layer in enumerate(self.layers):
            following = config.num_hidden_layers - index
            hidden_states, class_rows, states = layer(
                hidden_states,
                num_tokens=num_tokens,
                keep_class_attention=following <= config.class_attention_layers,
                keep_affinity=following <= config.affinity_layers,
                attention_mask=mask,
                **kwargs,
            )
            if class_rows is not None:
                rows.append(class_rows.to(hidden_states.device))
            if states is not None:
                affinity_states.append(states)
        return ClarityModelOutput(
            last_hidden_state=self.layernorm(hidden_states),
            class_tokens=hidden_states[:, :num_tokens],
            class_attention=torch.stack(rows).mean(0).unflatten(-1, grid),
            affinity_states=tuple(affinity_states) or None,
            kept_patches=kept,
        )


class ClarityAttentionPooling(nn.Module):
    """Class tokens attend once more over the patches, with LayerScale (CaiT): `(B, F, D)` → `(B, F, D)`."""

    def __init__(self, config: ClarityConfig):
        super().__init__()
        self.num_heads = config.num_attention_heads
        self.q_proj = nn.Linear(config.hidden_size, config.hidden_size, bias=config.qkv_bias)
        self.k_proj = nn.Linear(config.hidden_size, config.hidden_size, bias=config.qkv_bias)
        self.v_proj = nn.Linear(config.hidden_size, config.hidden_size, bias=config.qkv_bias)
        self.o_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.layer_scale = nn.Parameter(torch.zeros(config.hidden_size))

    def forward(self, class_tokens: torch.Tensor, patch_tokens: torch.Tensor) -> torch.Tensor:
        query, key, value = (
            projection(tokens).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for projection, tokens in (
                (self.q_proj, class_tokens),
                (self.k_proj, patch_tokens),
                (self.v_proj, patch_tokens),
            )
        )
        attended = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        return class_tokens + self.layer_scale * self.o_proj(attended)


def sum_of_last_axis(values: torch.Tensor) -> torch.Tensor:
    """`values.sum(-1)` of `(B, F, n)`, in a form that exports to OpenVINO.

    OpenVINO 2026.4.1 adds a vector `(F,)` to the sum over the last of three axes as if it were of length B: on a CPU
    all scores of a batch but a diagonal are wrong. Over two axes at once the sum is right, and the same number.
    """
    return values.unsqueeze(-1).sum((-2, -1))


class ClarityClassTokenHead(nn.Module):
    """From class tokens to one logit per finding, by the pooling of the config."""

    def __init__(self, config: ClarityConfig):
        super().__init__()
        self.attention = ClarityAttentionPooling(config) if config.pooling == "attention" else None
        shape = (config.num_labels, config.hidden_size)
        self.weight = nn.Parameter(torch.zeros(shape)) if config.pooling != "mean" else None
        self.bias = nn.Parameter(torch.zeros(config.num_labels))

    def forward(self, encoded: ClarityModelOutput) -> torch.Tensor:
        """Encoder output → logits `(B, F)`."""
        tokens, num_tokens = encoded.last_hidden_state, encoded.class_tokens.shape[1]
        if self.weight is None:
            # Before the final LayerNorm: after it the mean over D is the mean of its bias.
            return sum_of_last_axis(encoded.class_tokens) / encoded.class_tokens.shape[-1] + self.bias
        class_tokens = tokens[:, :num_tokens]
        if self.attention is not None:
            class_tokens = self.attention(class_tokens, tokens[:, num_tokens:])
        return sum_of_last_axis(class_tokens * self.weight) + self.bias


class ClaritySegmentCam(nn.Module):
    """SegmentCAM: class activation maps and the thorax, from patch tokens by convolutions."""

    def __init__(self, config: ClarityConfig):
        super().__init__()
        size = config.cam_size
        self.project = nn.Conv2d(config.hidden_size, size, kernel_size=1)
        self.norm_project = nn.GroupNorm(config.cam_groups, size)
        self.mix = nn.Conv2d(size, size, kernel_size=3, padding=1)
        self.norm_mix = nn.GroupNorm(config.cam_groups, size)
        # Without bias: the prevalence inside P would push it below zero everywhere and fade the fused map.
        self.cam = nn.Conv2d(size, config.num_labels, kernel_size=1, bias=False)
        self.foreground = nn.Conv2d(size, 1, kernel_size=1)
        # At std 0.02 the maps are of 1e-3 and take thousands of steps to move. The convolutions carry their own std:
        # outside the library `_init_weights` is not called for a module without parameters of its own, like this one.
        for convolution in (self.project, self.mix):  # He et al., fan out
            convolution.initial_std = (2 / (size * math.prod(convolution.kernel_size))) ** 0.5
        for convolution in (self.cam, self.foreground):
            convolution.initial_std = size**-0.5

    def forward(
        self, patches: torch.Tensor, kept: torch.Tensor | None = None, grid: tuple[int, int] = (0, 0)
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Patch tokens `(B, D, h, w)` → activation maps P `(B, F, h, w)` and foreground logits `(B, 1, h, w)`.

        Of kept patches `(B, D, M, 1)` the maps are `(B, F, M, 1)` and `(B, 1, M, 1)`; the 3×3 convolution has them at
        their places `kept` `(B, M)` of the `grid`, and zeros, as beyond the rim, at the others.
        """
        features = F.gelu(self.norm_project(self.project(patches)))
        if kept is not None:
            places = kept[:, None].expand(-1, features.shape[1], -1)
            spread = features.new_zeros(*features.shape[:2], math.prod(grid))
            features = spread.scatter(2, places, features.flatten(2)).unflatten(2, grid)
        features = F.gelu(self.norm_mix(at_patches(self.mix(features), kept)))
        return self.cam(features), self.foreground(features)


class ClarityRankingPooling(nn.Module):
    """Global weighted ranking: patch scores sorted, weighted by d^j and averaged, d = max(0, 1 − 1/(share · N))."""

    def __init__(self, config: ClarityConfig):
        super().__init__()
        self.share = config.ranking_share
        self.bias = nn.Parameter(torch.zeros(config.num_labels))

    def forward(self, activation_maps: torch.Tensor) -> torch.Tensor:
        """Activation maps `(B, F, h, w)` → logits `(B, F)`."""
        scores = activation_maps.flatten(2).sort(dim=-1, descending=True).values
        count = scores.shape[-1]
        decay = max(0.0, 1 - 1 / (self.share * count))
        # In float32: bfloat16 holds no ranks beyond 256 and is off by a tenth at 32 × 32 patches.
        weights = decay ** torch.arange(count, device=scores.device, dtype=torch.float32)
        pooled = sum_of_last_axis(scores * (weights / weights.sum()))  # a product sum: `@` breaks int8 export
        return pooled.to(self.bias.dtype) + self.bias


class ClarityForMultiLabelLocalization(ClarityPreTrainedModel):
    """CLARiTy with its heads: a score and a localization map for every finding of an image.

    Example:
        >>> import torch
        >>> from clarity_hf import ClarityConfig, ClarityForMultiLabelLocalization
        >>> config = ClarityConfig(hidden_size=48, num_hidden_layers=3, num_attention_heads=3, intermediate_size=96)
        >>> model = ClarityForMultiLabelLocalization(config).eval()
        >>> outputs = model(torch.zeros(1, 3, 224, 224))
        >>> outputs.logits.shape, outputs.localization_maps.shape
        (torch.Size([1, 14]), torch.Size([1, 14, 14, 14]))
    """

    def __init__(self, config: ClarityConfig):
        super().__init__(config)
        self.clarity = ClarityModel(config)
        self.class_token_head = ClarityClassTokenHead(config)
        self.segment_cam = ClaritySegmentCam(config) if config.segment_cam else None
        self.ranking_pooling = ClarityRankingPooling(config) if config.segment_cam else None
        self.post_init()

    def train(self, mode: bool = True) -> Any:
        """As of any module. What was fitted to other weights is dropped before it is used, see `hold_calibration`."""
        super().train(mode)
        if not mode:
            self.hold_calibration()
        return self

    def save_pretrained(self, save_directory: str | os.PathLike, *args: Any, **kwargs: Any) -> None:
        """As the library's, after `hold_calibration`.

        Args:
            save_directory: Folder.
            args: As for the library.
            kwargs: As for the library.
        """
        self.hold_calibration(kwargs.get("state_dict"))
        super().save_pretrained(save_directory, *args, **kwargs)

    def hold_calibration(self, state: dict[str, torch.Tensor] | None = None) -> None:
        """Drop slopes, intercepts and thresholds of the config that were fitted to other weights or findings.

        They belong to the weights with which they are first met, by loading, evaluating or saving; the config's
        `calibration_fingerprint` says to which. Called by `eval()`, with which `from_pretrained` ends, and by
        `save_pretrained`.

        Args:
            state: The weights, where they are sharded and were gathered; by default the model's own.
        """
        config = self.config
        if not config.has_calibration:
            config.calibration_fingerprint = None
            return
        found = calibration_fingerprint(config.findings, self.state_dict() if state is None else state)
        if found is None:
            return
        stored = config.calibration_fingerprint
        if stored is None or may_be_of(stored, found):
            config.calibration_fingerprint = found
        else:
            config.drop_calibration("they were fitted to other weights or findings")

    @can_return_tuple
    def forward(
        self,
        pixel_values: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        anatomical_prior: torch.Tensor | None = None,
        finding_masks: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> ClarityLocalizationOutput:
        """Score and localize.

        Args:
            pixel_values: `(B, C, H, W)` normalised; H and W multiples of the patch size, of any proportion.
            labels: `(B, F)` in [0, 1], 1 present, 0 absent, between them soft, NaN not annotated or uncertain; gives a
                loss.
            anatomical_prior: `(B, 1, H', W')` of any size in [0, 1], the thorax A in the frame of `pixel_values`; NaN
                throughout an image that has none. With `labels` it teaches the foreground and charges attention
                outside it.
            finding_masks: `(B, F, H', W')` of any size in [0, 1], where findings are whose place is known to the
                pixel, in the frame of `pixel_values`; 0 throughout the others. With `labels` it teaches evidence and
                attention directly.
            kwargs: `output_hidden_states`, `output_attentions` (eager attention only), `return_dict`.

        Returns:
            [`ClarityLocalizationOutput`].

        Raises:
            TypeError: An argument is unknown.
            ValueError: A tensor has another shape than stated, or labels or prior are outside [0, 1].
        """
        _check_arguments(kwargs, "pixel_values", "labels", "anatomical_prior")
        if labels is not None:
            check_labels(labels)
        encoded = self.clarity(pixel_values, **kwargs)
        class_attention, kept = encoded.class_attention, encoded.kept_patches
        num_tokens = class_attention.shape[1]
        patches = encoded.last_hidden_state[:, num_tokens:].transpose(1, 2).unflatten(-1, class_attention.shape[-2:])
        grid = _patch_grid(pixel_values, self.config.patch_size)  # type: ignore[arg-type]  # the encoder refuses None

        logits = {"class_token": self.class_token_head(encoded)}
        activation_maps = foreground_logits = foreground = None
        if self.segment_cam is not None and self.ranking_pooling is not None:
            activation_maps, foreground_logits = self.segment_cam(patches, kept, grid)
            logits["patch"] = self.ranking_pooling(activation_maps)
            foreground = foreground_logits.sigmoid()
        with torch.no_grad():
            maps = self.localize(class_attention, activation_maps, foreground, encoded.affinity_states)
        calibrated = self.calibrated_logits(sum(logits.values()) / len(logits))
        loss, parts = None, None
        if labels is not None:
            parts = self.losses(encoded, logits, activation_maps, foreground_logits, labels, anatomical_prior, grid)
            if finding_masks is not None and activation_maps is not None:
                parts["evidence"] = self.evidence_loss(activation_maps, class_attention, finding_masks, grid, kept)
            loss = torch.stack([self.loss_weights()[name] * part for name, part in parts.items()]).sum()
        return ClarityLocalizationOutput(
            loss=loss,
            logits=calibrated,
            scores=calibrated.detach().sigmoid(),
            box_settings=self.box_settings(calibrated),
            localization_maps=maps,
            foreground=foreground,
            class_token_logits=logits["class_token"],
            patch_logits=logits.get("patch"),
            activation_maps=activation_maps,
            class_attention=class_attention,
            loss_parts=parts,
            kept_patches=kept,
            hidden_states=encoded.hidden_states,
            attentions=encoded.attentions,
        )

    def calibrated_logits(self, logits: torch.Tensor) -> torch.Tensor:
        """Mean logits `(B, F)` → slope · z + intercept of the config's calibration, `(B, F)` float32."""
        # In float32: in bfloat16 a slope is off by up to 0.4 %, and findings of near scores change places.
        logits = logits.float()
        slopes = logits.new_tensor(self.config.per_finding("score_slopes"))
        intercepts = logits.new_tensor(self.config.per_finding("score_intercepts"))
        return slopes * logits + intercepts

    def box_settings(self, logits: torch.Tensor) -> torch.Tensor:
        """The config's `box_settings` for every image of `logits` `(B, F)`, on their device: `(B, F, 5)`."""
        # A row per image, so that batches are divided and gathered like any other output.
        dtype = torch.float32 if logits.device.type == "mps" else torch.float64  # MPS has no float64
        settings = torch.tensor(self.config.box_settings(), dtype=dtype, device=logits.device)
        return settings.expand(logits.shape[0], -1, -1)

    def localize(
        self,
        class_attention: torch.Tensor,
        activation_maps: torch.Tensor | None = None,
        foreground: torch.Tensor | None = None,
        affinity_states: tuple | None = None,
    ) -> torch.Tensor:
        """Fuse attention and activation, refine by patch affinity, suppress the background.

        Args:
            class_attention: a `(B, F, h, w)`.
            activation_maps: P `(B, F, h, w)`; not needed for `map_fusion="attention"`.
            foreground: S `(B, 1, h, w)` in [0, 1]; not needed without `background_suppression`.
            affinity_states: `(query, key)` per block, or None for no refinement.

        Returns:
            `(B, F, h, w)` values ≥ 0.

        Raises:
            ValueError: The config needs activation maps or a foreground, and there is none.
        """
        patches = class_attention.shape[-2] * class_attention.shape[-1]
        attention = class_attention * patches  # 1 where attention is even, at any image size
        if self.config.map_fusion == "attention":
            maps = attention
        else:
            evidence = F.softplus(_required("activation_maps", activation_maps))
            share = 0.0 if self.config.map_fusion == "cam" else self.config.map_attention_share
            maps = (attention * evidence).sqrt() if share == 0.5 else attention.pow(share) * evidence.pow(1 - share)
        if self.config.map_power != 1:
            maps = maps.pow(self.config.map_power)
        if affinity_states:
            maps = refine_by_affinity(maps, affinity_states)
        if self.config.background_suppression:
            floor = maps.new_tensor(self.config.per_finding("suppression_floor"))[:, None, None]
            maps = maps * (floor + (1 - floor) * _required("foreground", foreground))
        return maps

    def loss_weights(self) -> dict[str, float]:
        """Weight of every part of the loss, by name."""
        return {
            "class_token": 1.0,
            "patch": 1.0,
            "orthogonal": self.config.orthogonal_loss_weight,
            "foreground": self.config.foreground_loss_weight,
            "background": self.config.background_loss_weight,
            "evidence": self.config.evidence_loss_weight,
        }

    def losses(
        self,
        encoded: ClarityModelOutput,
        logits: dict[str, torch.Tensor],
        activation_maps: torch.Tensor | None,
        foreground_logits: torch.Tensor | None,
        labels: torch.Tensor,
        anatomical_prior: torch.Tensor | None,
        grid: tuple[int, int],
    ) -> dict[str, torch.Tensor]:
        """The unweighted parts of the loss, by name; `logits` by the name of their part, shapes as in `forward`.

        Under patch dropout what maps are compared with is taken at the kept patches of the `grid` `(h, w)`.

        Raises:
            ValueError: `labels` are not `(B, F)`.
        """
        expected = logits["class_token"].shape
        if labels.shape != expected:
            raise ValueError(
                f"`labels` must be (B, F) = {tuple(expected)}, got {tuple(labels.shape)}. "
                "Give 1, 0 or NaN for every finding of the config."
            )
        weights = None
        if self.config.positive_weights is not None:
            weights = torch.tensor(self.config.per_finding("positive_weights"), device=labels.device)
        parts = {name: multilabel_classification_loss(values, labels, weights) for name, values in logits.items()}
        parts["orthogonal"] = orthogonality_loss(encoded.class_tokens)
        if foreground_logits is not None:
            # Every head takes part in the graph, also without a prior: DDP waits for the gradients of all.
            parts["patch"] = parts["patch"] + 0.0 * foreground_logits.sum()
        if anatomical_prior is not None:
            if anatomical_prior.ndim != 4 or anatomical_prior.shape[:2] != (labels.shape[0], 1):
                raise ValueError(
                    f"`anatomical_prior` must be (B, 1, H, W) with B = {labels.shape[0]}, "
                    f"got {tuple(anatomical_prior.shape)}. Add the channel axis."
                )
            check_prior(anatomical_prior, "anatomical_prior")
            prior = at_patches(F.adaptive_avg_pool2d(anatomical_prior.float(), grid), encoded.kept_patches)
            if foreground_logits is not None:
                parts["foreground"] = foreground_loss(foreground_logits, prior)
            shown = [encoded.class_attention] + ([] if activation_maps is None else [F.softplus(activation_maps)])
            charges = [background_loss(maps, prior, labels) for maps in shown]
            parts["background"] = torch.stack(charges).mean()
        return parts


    def evidence_loss(
        self,
        activation_maps: torch.Tensor,
        class_attention: torch.Tensor,
        finding_masks: torch.Tensor,
        grid: tuple[int, int],
        kept: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """L_ev of maps `(B, F, h, w)` of a `grid` `(h, w)` under masks of findings as in `forward`.

        Under patch dropout the maps are `(B, F, M, 1)` at the patches `kept` `(B, M)` of the grid.

        Raises:
            ValueError: `finding_masks` are not `(B, F, H', W')`.
        """
        if finding_masks.ndim != 4 or finding_masks.shape[:2] != activation_maps.shape[:2]:
            raise ValueError(
                f"`finding_masks` must be (B, F, H, W) with (B, F) = {tuple(activation_maps.shape[:2])}, got "
                f"{tuple(finding_masks.shape)}. Give one for every finding of the config."
            )
        covered = at_patches(F.adaptive_avg_pool2d(finding_masks.float(), grid), kept)
        return evidence_loss(activation_maps, class_attention, covered)


def _patch_grid(pixel_values: torch.Tensor, patch_size: int) -> tuple[int, int]:
    return pixel_values.shape[-2] // patch_size, pixel_values.shape[-1] // patch_size


def _required(name: str, tensor: torch.Tensor | None) -> torch.Tensor:
    if tensor is None:
        raise ValueError(f"`{name}` must be given, got None. Pass it, or change `map_fusion` and suppression.")
    return tensor


def refine_by_affinity(
    maps: torch.Tensor, affinity_states: tuple[tuple[torch.Tensor, torch.Tensor], ...]
) -> torch.Tensor:
    """Spread maps along patch-to-patch attention, Ā_pp M, without the N×N matrix.

    The attention is the mean over heads and blocks, its rows renormalised over the patches. Class keys get zero
    values, and a column of ones beside the maps gives each row's sum.

    Args:
        maps: M `(B, F, h, w)`.
        affinity_states: Per block `(query, key)`, each `(B, heads, T + N, d)` with T class tokens first.

    Returns:
        `(B, F, h, w)`.
    """
    batch, findings, height, width = maps.shape
    values = torch.cat((maps.flatten(2), maps.new_ones(batch, 1, height * width)), dim=1).transpose(1, 2)
    columns = -(findings + 1) % 64  # a width that the fast kernels take
    spread = maps.new_zeros(batch, height * width, findings + 1 + columns)
    for query, key in affinity_states:
        num_tokens = query.shape[2] - height * width
        padded = F.pad(values, (0, columns, num_tokens, 0)).to(query.dtype)
        padded = padded[:, None].expand(-1, query.shape[1], -1, -1)
        spread = spread + F.scaled_dot_product_attention(query[:, :, num_tokens:], key, padded).mean(1)
    refined = spread[..., :findings] / spread[..., findings : findings + 1]
    return refined.transpose(1, 2).reshape(maps.shape)


__all__ = [
    "ClarityForMultiLabelLocalization",
    "ClarityLocalizationOutput",
    "ClarityModel",
    "ClarityModelOutput",
    "ClarityPreTrainedModel",
]
