# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Configuration of CLARiTy models (an independent reconstruction of arXiv 2512.16700)."""

from __future__ import annotations

import inspect
import logging
import math
import os
from collections import Counter
from collections.abc import Sequence
from typing import Any

from huggingface_hub.dataclasses import strict
from transformers.activations import ACT2FN
from transformers.configuration_utils import PreTrainedConfig

from .calibration_fingerprint import FINGERPRINT, findings_digest
from .labels import FINDINGS

logger = logging.getLogger(__name__)

RIM_FINDINGS: tuple[str, ...] = ("Effusion", "Pneumothorax", "Pleural_Thickening", "Hernia")
"""Findings at the rim of the thorax, which masks of its extent under-cover: they are suppressed less."""

SINGLE_REGION_FINDINGS: tuple[str, ...] = ("Cardiomegaly", "Edema", "Hernia")
"""Findings that readers draw one box around: the heart, both lungs together. Their regions are not divided."""

POSITIVE_FIELDS: tuple[str, ...] = (
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "patch_size",
    "num_channels",
    "num_labels",
    "cam_size",
    "cam_groups",
    "box_upsampling",
)
"""Fields that count something of which there must be one."""

LARGEST = {
    "hidden_size": 16_384,
    "num_hidden_layers": 1_000,
    "num_attention_heads": 1_000,
    "intermediate_size": 65_536,
    "patch_size": 1_024,
    "num_channels": 1_000,
    "num_labels": 1_000,
    "cam_size": 16_384,
    "cam_groups": 16_384,
    "box_upsampling": 64,
}
"""Largest value of the fields that count something: a config may come from anywhere, and must not fill the memory."""

LARGEST_SIDE = 16_384
"""Largest side of `image_size`, in pixels."""

MOST_WEIGHTS = 4_000_000_000
"""Most weights of a model; the largest ViTs in use, of two billion, are half of it."""

SHARE_FIELDS = (
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "drop_path_rate",
    "tiled_attention_rate",
    "map_attention_share",
)
"""Fields that are a probability or a share."""

FINITE_FIELDS = (
    "initializer_range",
    "layer_norm_eps",
    "layer_scale_init",
    "orthogonal_loss_weight",
    "foreground_loss_weight",
    "background_loss_weight",
    "evidence_loss_weight",
)
"""Other fields that are a number."""

DTYPES = ("float16", "bfloat16", "float32", "float64")
"""Precisions that a config may name."""

LONGEST_NAME = 200
"""Most characters of a finding's name."""

PER_FINDING_FIELDS = (
    "suppression_floor",
    "score_slopes",
    "score_intercepts",
    "score_thresholds",
    "box_score_thresholds",
    "map_thresholds",
    "box_valleys",
    "prevalence",
    "positive_weights",
)
"""Fields that are one number for all findings or a list with one for each."""

TRAINING_FIELDS = (
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "drop_path_rate",
    "tiled_attention_rate",
    "positive_weights",
    "orthogonal_loss_weight",
    "foreground_loss_weight",
    "background_loss_weight",
    "evidence_loss_weight",
)
"""Fields that training alone reads. Finished runs, packaged and published checkpoints have the defaults there, and
`examples/train.py` starts from the defaults whatever a checkpoint says: no run inherits another's settings unsaid."""

_SCALING = ("score_slopes", "score_intercepts")

CALIBRATION = {
    "score_slopes": 1.0,
    "score_intercepts": 0.0,
    "score_thresholds": 0.5,
    "box_score_thresholds": None,
    "map_thresholds": 0.5,
}
"""Fields that a calibration fits to a model's weights and findings, with what they are without one."""


def require_whole_patches(name: str, size: int, patch: int, remedy: str) -> None:
    """Raise ValueError, with the remedy, unless a side of `size` pixels has one or more whole patches."""
    if size < patch or size % patch:
        raise ValueError(f"`{name}` must be a multiple of `patch_size` ({patch}), got {size}. {remedy}")


@strict
class ClarityConfig(PreTrainedConfig):
    r"""
    Configuration of [`ClarityModel`] and [`ClarityForMultiLabelLocalization`]. The defaults are S-16-224: a ViT-S/16
    with one class token for each of the 14 findings of NIH ChestX-ray14.

    Symbols: B batch, F findings, D hidden size, N = h·w patches.

    Args:
        hidden_size (`int`, defaults to 384): Width D of the tokens; a multiple of `num_attention_heads`.
        num_hidden_layers (`int`, defaults to 12): Number of blocks.
        num_attention_heads (`int`, defaults to 6): Attention heads in a block and in the attention pooling.
        intermediate_size (`int`, defaults to 1536): Width of the blocks' MLP.
        hidden_act (`str`, defaults to `"gelu"`): Activation of the MLP.
        hidden_dropout_prob (`float`, defaults to 0): Dropout on embeddings and residual branches.
        attention_probs_dropout_prob (`float`, defaults to 0): Dropout on attention weights in the blocks.
        drop_path_rate (`float`, defaults to 0): Stochastic depth of the last block, rising linearly from 0.
        initializer_range (`float`, defaults to 0.02): Standard deviation of the truncated normal initialisation.
        layer_norm_eps (`float`, defaults to 1e-6): Epsilon of the LayerNorms (timm's and DINO's value).
        image_size (`int` or `(height, width)`, defaults to 224): Size for which position embeddings are stored; other
            sizes are interpolated.
        patch_size (`int`, defaults to 16): Side of a patch.
        num_channels (`int`, defaults to 3): Channels of `pixel_values`; grey images are repeated.
        qkv_bias (`bool`, defaults to `True`): Whether query, key and value have a bias.
        pooling (`str`, defaults to `"attention"`): How a class token becomes a logit: `"attention"` (the class tokens
            attend once more over the patches, then a dot product with the finding's vector), `"linear"` (the dot
            product alone) or `"mean"` (the mean over D of the token before the final LayerNorm, as in MCTformer).
        layer_scale_init (`float`, defaults to 0.1): Initial LayerScale of the attention pooling.
        class_attention_layers (`int`, defaults to 3): The last K blocks whose class-to-patch attention is kept; the
            map uses its mean over the K blocks and the heads.
        segment_cam (`bool`, defaults to `True`): Whether there is a SegmentCAM head. Without it a logit is the class
            token's alone and the map its attention: `map_fusion` must be `"attention"`, `background_suppression` off.
        cam_size (`int`, defaults to 128): Channels of the SegmentCAM trunk.
        cam_groups (`int`, defaults to 8): Groups of the trunk's GroupNorms.
        tiled_attention_rate (`float`, defaults to 0): Share of the training images, in [0, 1], whose patches attend
            only within tiles of the image and to no class token, so that evidence stays where its finding is. Under
            eager or SDPA attention. See [`tiled_attention_mask`].
        ranking_share (`float`, defaults to 0.3): Share of the patches, in (0, 1], over which the ranking pooling of
            the patch logit averages in effect: its decay is d = max(0, 1 − 1/(share · N)).
        map_fusion (`str`, defaults to `"geometric"`): `"geometric"` as `map_attention_share` has it, `"attention"`
            N·a, `"cam"` softplus(P); a is the class attention, P the class activation map.
        map_attention_share (`float`, defaults to 0.5): β in [0, 1] of the geometric fusion,
            (N·a)^β ⊙ softplus(P)^(1 − β). Attention is the more peaked of the two.
        map_power (`float`, defaults to 1): Power in (0, 1] to which the fused map is raised. Below 1 it flattens
            peaks, so that a share of the peak reaches the rim of a finding; the order of the pixels stays.
        affinity_layers (`int`, defaults to 0): The last blocks whose patch-to-patch attention refines the map, 0 for
            none.
        background_suppression (`bool`, defaults to `True`): Whether maps are multiplied by ε + (1 − ε) S, S the
            learnt foreground. To be switched off for a model trained without an anatomical prior.
        suppression_floor (`float` or list of F, *optional*): ε in [0, 1], the share of the map that survives where S
            is 0; one value or one per finding. By default 0.5 for the findings in `RIM_FINDINGS` and 0.1 for others.
        score_slopes (`float` or list of F, defaults to 1): Slope a > 0 of Platt's calibration: `logits` are a · z + b,
            z the mean of both logits, and scores their sigmoid. See [`fit_platt`].
        score_intercepts (`float` or list of F, defaults to 0): Intercept b of Platt's calibration.
        score_thresholds (`float` or list of F, defaults to 0.5): Score from which a finding counts as present.
        box_score_thresholds (`float` or list of F, *optional*): Score from which a finding gets boxes, where that
            takes more than being present; `None` is `score_thresholds`. A calibration chooses it by how many normal
            images may have a false box. A call that gives its own score thresholds draws boxes by these.
        map_thresholds (`float` or list of F, defaults to 0.5): Share of a map's peak, in (0, 1), from which a pixel
            belongs to the finding's box.
        calibration_fingerprint (`str`, *optional*): Of the weights and findings that the five fields above were fitted
            to. The model writes it, and drops what belongs to others.
        box_components (`str`, defaults to `"all"`): Whether the `"largest"` region of a map or `"all"` get a box.
        box_valleys (`float` or list of F, *optional*): Share in [0, 1]: a region with several peaks is divided between
            two of them where the map falls under this share of the lower one, so that two lungs are two boxes; 0
            leaves connected regions whole. By default 0 for the findings in `SINGLE_REGION_FINDINGS` and 0.8 for
            others. See [`divided_map`].
        box_upsampling (`int`, defaults to 8): Factor from the patch grid to the grid on which maps are thresholded
            (112 × 112 at 224).
        boxless_findings (`list[str]`, *optional*): Names of findings that are listed with their score but get no box
            unless a call gives its own score thresholds: those that the model does not tell from their absence on real
            images. Names of other findings count nothing. `None` is none.
        prevalence (`float` or list of F, *optional*): Share of positive images, whose logit, clamped to ±4.6, is the
            initial bias of both logits; `None` starts at 0.
        positive_weights (`float` or list of F, *optional*): How much more a positive label counts than a negative one
            in the cross-entropies, above 0; `None` is 1. See [`balanced_positive_weights`].
        orthogonal_loss_weight (`float`, defaults to 0.1): Weight of L_orth on the class tokens.
        foreground_loss_weight (`float`, defaults to 0.3): Weight of L_seg of the foreground against the prior.
        background_loss_weight (`float`, defaults to 0): Weight of L_bg, the share of present findings' class
            attention and softplus(P) outside the prior. The ablations, with attention alone in it, found maps better
            without; 0.1 to 0.3 are values to try.
        evidence_loss_weight (`float`, defaults to 0): Weight of L_ev, which teaches evidence and attention of findings
            whose place is known, see [`evidence_loss`].

    Raises:
        ValueError: A value is out of its range; the message names it and what to do.

    Example:
        >>> from clarity_hf import ClarityConfig
        >>> config = ClarityConfig(image_size=512)
        >>> config.num_labels, config.id2label[1], config.patch_grid
        (14, 'Cardiomegaly', (32, 32))
    """

    model_type = "clarity"
    keys_to_ignore_at_inference = [
        "loss_parts",
        "scores",
        "box_settings",
        "class_token_logits",
        "patch_logits",
        "localization_maps",
        "foreground",
        "activation_maps",
        "class_attention",
        "hidden_states",
        "attentions",
    ]

    hidden_size: int = 384
    num_hidden_layers: int = 12
    num_attention_heads: int = 6
    intermediate_size: int = 1536
    hidden_act: str = "gelu"
    hidden_dropout_prob: float | int = 0.0
    attention_probs_dropout_prob: float | int = 0.0
    drop_path_rate: float | int = 0.0
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-6
    image_size: int | list[int] | tuple[int, int] = 224
    patch_size: int = 16
    num_channels: int = 3
    qkv_bias: bool = True
    pooling: str = "attention"
    layer_scale_init: float | int = 0.1
    class_attention_layers: int = 3
    segment_cam: bool = True
    cam_size: int = 128
    cam_groups: int = 8
    tiled_attention_rate: float | int = 0.0
    ranking_share: float | int = 0.3
    map_fusion: str = "geometric"
    map_attention_share: float | int = 0.5
    map_power: float | int = 1.0
    affinity_layers: int = 0
    background_suppression: bool = True
    suppression_floor: float | int | list[float] | tuple[float, ...] | None = None
    score_slopes: float | int | list[float] | tuple[float, ...] = 1.0
    score_intercepts: float | int | list[float] | tuple[float, ...] = 0.0
    score_thresholds: float | int | list[float] | tuple[float, ...] = 0.5
    box_score_thresholds: float | int | list[float] | tuple[float, ...] | None = None
    map_thresholds: float | int | list[float] | tuple[float, ...] = 0.5
    calibration_fingerprint: str | None = None
    box_components: str = "all"
    box_valleys: float | int | list[float] | None = None
    box_upsampling: int = 8
    boxless_findings: list[str] | tuple[str, ...] | None = None
    prevalence: float | int | list[float] | tuple[float, ...] | None = None
    positive_weights: float | int | list[float] | tuple[float, ...] | None = None
    orthogonal_loss_weight: float | int = 0.1
    foreground_loss_weight: float | int = 0.3
    background_loss_weight: float | int = 0.0
    evidence_loss_weight: float | int = 0.0

    def __post_init__(self, **kwargs):
        if (count := kwargs.get("num_labels")) is not None:  # before the library names as many labels
            _require_count("num_labels", count)
        _require_labels("id2label", self.id2label, names_first=False)
        _require_labels("label2id", self.label2id, names_first=True)
        for name, dtype in (("dtype", self.dtype), ("torch_dtype", kwargs.get("torch_dtype"))):
            if isinstance(dtype, str):  # which the library looks up among the attributes of torch
                _require_choice(name, dtype, DTYPES)
        if self.id2label is None and self.label2id is None and kwargs.get("num_labels") is None:
            self.id2label = dict(enumerate(FINDINGS))
        elif self.id2label is None and self.label2id is not None:
            self.id2label = {i: finding for finding, i in self.label2id.items()}
        if self.label2id is None and self.id2label is not None:
            self.label2id = {finding: int(i) for i, finding in self.id2label.items()}
        if self.problem_type is None:
            self.problem_type = "multi_label_classification"
        super().__post_init__(**kwargs)
        self.validate_architecture()  # here a ValueError; the library's own call wraps it in an error of its own

    @classmethod
    def get_config_dict(
        cls, pretrained_model_name_or_path: str | os.PathLike, **kwargs: Any
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """The `config.json` of a checkpoint, as every `from_pretrained` reads it.

        Args:
            pretrained_model_name_or_path: Name of a packaged checkpoint, folder, file or Hub id.
            kwargs: As for the library.

        Returns:
            The fields, and those of `kwargs` that are none of the library's.

        Raises:
            OSError: There is no such checkpoint, or the file is not JSON.
            ValueError: The checkpoint has no such file, or it is not of a CLARiTy model.
        """
        place = f"`{pretrained_model_name_or_path}` must hold the config.json of a CLARiTy model"
        try:
            config_dict, rest = super().get_config_dict(pretrained_model_name_or_path, **kwargs)
        except (AttributeError, TypeError, RecursionError) as error:
            raise ValueError(f"{place}, got JSON of another kind ({type(error).__name__}). {_SAVE_AGAIN}") from error
        if not config_dict:
            raise ValueError(f"{place}, got none or an empty one. {_SAVE_AGAIN}")
        kind = config_dict.get("model_type") if isinstance(config_dict, dict) else None
        if kind != cls.model_type:
            raise ValueError(f"{place}, got `model_type` {str(kind)[:100]!r} in it. {_SAVE_AGAIN}")
        return config_dict, rest

    @classmethod
    def from_dict(cls, config_dict: dict, **kwargs):
        """Build from a dict, as every `from_pretrained` does.

        A calibration and lists with a value per finding (prevalence, ε) belong to the findings that the dict names:
        where `kwargs` name others, they fall back to their defaults, which is logged, unless `kwargs` bring them too.

        Raises:
            ValueError: A value is out of its range, a key is the name of a method, or the dict names an attention
                that would be fetched from the Hub and run.
        """
        _require_fields(cls, config_dict)
        named = {name: kwargs[name] for name in ("id2label", "label2id", "num_labels") if kwargs.get(name)}
        if named:
            changed = {name: kwargs.pop(name) for name in PER_FINDING_FIELDS if name in kwargs}
            labels = {name: kwargs.pop(name) for name in ("id2label", "label2id") if name in kwargs}
            if _names_others(named, config_dict):
                config_dict = _without_values_of_other_findings(config_dict)
            config_dict = config_dict | changed
            if "id2label" in named or "label2id" in named:
                config_dict |= {"id2label": None, "label2id": None} | labels
        return super().from_dict(config_dict, **kwargs)

    @property
    def patch_grid(self) -> tuple[int, int]:
        """Patches `(h, w)` of an image of `image_size`."""
        height, width = _pair(self.image_size)
        return height // self.patch_size, width // self.patch_size

    @property
    def findings(self) -> list[str]:
        """Names of the F findings in the order of the logits."""
        return [self.id2label[i] for i in range(self.num_labels)]

    @property
    def is_calibrated(self) -> bool:
        """Whether slopes or intercepts were fitted, and to these findings: a score of 0.3 then means three in ten."""
        names = findings_digest(self.findings)
        return self._is_scaled and (self.calibration_fingerprint or names).endswith(names)

    @property
    def _is_scaled(self) -> bool:
        return set(self.per_finding("score_slopes")) != {1.0} or any(self.per_finding("score_intercepts"))

    @property
    def has_calibration(self) -> bool:
        """Whether something in the config was fitted to a model: slopes, intercepts, or thresholds one by one."""
        thresholds = (getattr(self, name) for name in ("score_thresholds", "box_score_thresholds", "map_thresholds"))
        return self._is_scaled or any(_is_fitted(values) for values in thresholds)

    def drop_calibration(self, reason: str) -> None:
        """Set slopes, intercepts and fitted thresholds back to their defaults, and log it where there are some.

        A threshold that is one number for all findings was not fitted, and stays, but for one of calibrated scores.

        Args:
            reason: Why, as the end of a sentence: "`X` …, because {reason}."
        """
        if self.has_calibration:
            stale = {name for name in CALIBRATION if self._is_scaled and name != "map_thresholds"}
            stale |= {name for name in CALIBRATION if _is_fitted(getattr(self, name))}
            for name in stale:
                setattr(self, name, CALIBRATION[name])
            _log_dropped(stale, reason)
        self.calibration_fingerprint = None

    def per_finding(self, name: str) -> list[float]:
        """Spread a field that is one number or a list over the findings.

        Args:
            name: One of `PER_FINDING_FIELDS`.

        Returns:
            F floats, one per finding.

        Raises:
            ValueError: The list has another length than there are findings, or holds something else than numbers in
                the field's range.
        """
        value = getattr(self, name)
        if value is None and name == "suppression_floor":
            return [0.5 if finding in RIM_FINDINGS else 0.1 for finding in self.findings]
        if value is None and name == "box_score_thresholds":
            return self.per_finding("score_thresholds")
        if value is None and name == "box_valleys":
            return [0.0 if finding in SINGLE_REGION_FINDINGS else 0.8 for finding in self.findings]
        if value is None:
            # Without a calibration; a prevalence of one half is a bias of zero.
            value = {"positive_weights": 1.0, "prevalence": 0.5, **CALIBRATION}[name]
        for item in value if isinstance(value, list | tuple) else [value]:
            _require_number(name, item)
        spread = value if isinstance(value, list | tuple) else [value] * self.num_labels
        if len(spread) != self.num_labels:
            raise ValueError(
                f"`{name}` must have one value per finding ({self.num_labels}), got {len(spread)}. "
                "Give one number for all or a list in the order of `id2label`."
            )
        _require_in_range(name, spread)
        return [float(item) for item in spread]

    def box_settings(self) -> list[list[float]]:
        """What boxes are drawn by, a row per finding of 5 numbers.

        Returns:
            F rows of the score in [0, 1] from which there are boxes, or infinity for one of `boxless_findings`, map
            threshold in (0, 1), valley in [0, 1], 1 for all components or 0 for the largest, and upsampling factor.
        """
        names = ("box_score_thresholds", "map_thresholds", "box_valleys")
        per_finding = (self.per_finding(name) for name in names)
        shared = (float(self.box_components == "all"), float(self.box_upsampling))
        rows = [[*row, *shared] for row in zip(*per_finding, strict=True)]
        for finding, row in zip(self.findings, rows, strict=True):
            if finding in (self.boxless_findings or ()):
                row[0] = math.inf
        return rows

    def prevalence_bias(self) -> list[float]:
        """Initial bias per finding: the logit of `prevalence`, clamped to ±4.6 (one image in a hundred)."""
        clamped = (min(max(share, 0.01), 0.99) for share in self.per_finding("prevalence"))
        return [math.log(share / (1 - share)) for share in clamped]

    def validate_architecture(self):
        """Check sizes, choices, shares, weights and thresholds; called on construction.

        Raises:
            ValueError: One of them is out of range.
        """
        _require_choice("pooling", self.pooling, ("attention", "linear", "mean"))
        _require_choice("map_fusion", self.map_fusion, ("geometric", "attention", "cam"))
        _require_choice("box_components", self.box_components, ("largest", "all"))
        _require_choice("problem_type", self.problem_type, ("multi_label_classification",))
        _require_choice("hidden_act", self.hidden_act, tuple(ACT2FN))
        for name in POSITIVE_FIELDS:
            _require_count(name, getattr(self, name))
        for name in ("qkv_bias", "segment_cam", "background_suppression"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"`{name}` must be True or False, got {getattr(self, name)!r}. Choose one of them.")
        for name in ("class_attention_layers", "affinity_layers"):
            if isinstance(getattr(self, name), bool) or not isinstance(getattr(self, name), int):
                raise ValueError(f"`{name}` must be a whole number, got {getattr(self, name)!r}. Give one.")
        self._validate_findings()
        for name, divisor in (("hidden_size", self.num_attention_heads), ("cam_size", self.cam_groups)):
            if getattr(self, name) % divisor:
                raise ValueError(
                    f"`{name}` must be a multiple of {divisor}, got {getattr(self, name)}. Change one of them."
                )
        for name, size in zip(("image_size height", "image_size width"), _pair(self.image_size), strict=True):
            require_whole_patches(name, size, self.patch_size, "Choose a multiple.")
            if size > LARGEST_SIDE:
                raise ValueError(f"`{name}` must be at most {LARGEST_SIDE}, got {size}. Lower it.")
        for name, low in (("class_attention_layers", 1), ("affinity_layers", 0)):
            if not low <= getattr(self, name) <= self.num_hidden_layers:
                raise ValueError(
                    f"`{name}` must be between {low} and `num_hidden_layers` ({self.num_hidden_layers}), "
                    f"got {getattr(self, name)}. Lower it."
                )
        self._validate_numbers()
        for name in PER_FINDING_FIELDS:
            self.per_finding(name)
        if not self.segment_cam and (self.map_fusion != "attention" or self.background_suppression):
            raise ValueError(
                "`map_fusion` must be 'attention' and `background_suppression` False without SegmentCAM, got "
                f"'{self.map_fusion}' and {self.background_suppression}. Set them so, or set segment_cam=True."
            )
        for name, default in (("ranking_share", 0.3), ("map_power", 1)):
            value = getattr(self, name)
            if not 0 < value <= 1:
                raise ValueError(f"`{name}` must be inside (0, 1], got {value}. {default} is the default.")
        fingerprint = self.calibration_fingerprint
        if fingerprint is not None and not FINGERPRINT.fullmatch(fingerprint):
            raise ValueError(
                f"`calibration_fingerprint` must be None or as the model writes it, got {fingerprint[:100]!r}. "
                "Take it out."
            )

    def _validate_findings(self) -> None:
        """Names of findings are printable words, each its own: they go into tables, pages and file names."""
        if sorted(self.id2label) != list(range(self.num_labels)):
            raise ValueError(
                f"`id2label` must have the keys 0 to {self.num_labels - 1}, got {sorted(self.id2label)[:20]}. "
                "Number the findings in the order of the logits."
            )
        for name in self.findings:
            printable = isinstance(name, str) and name.replace("\xa0", " ").isprintable()
            if not printable or not name.strip() or len(name) > LONGEST_NAME:
                raise ValueError(
                    f"`id2label` must name findings by 1 to {LONGEST_NAME} printable characters, got "
                    f"{str(name)[:LONGEST_NAME]!r}. Rename the finding."
                )
        twice = sorted(name for name, count in Counter(self.findings).items() if count > 1)
        if twice:
            raise ValueError(f"`id2label` must name every finding once, got {twice} more often. Rename one of them.")
        numbered = {name: index for index, name in enumerate(self.findings)}
        other = sorted(str(name)[:LONGEST_NAME] for name, _ in numbered.items() ^ self.label2id.items())
        if other:
            raise ValueError(
                f"`label2id` must number the findings as `id2label` does, got others for {other[:5]}. Correct one of "
                "the two, or leave `label2id` out."
            )

    def _validate_numbers(self) -> None:
        """Shares are in [0, 1], other numbers finite and not negative, and the weights fit a machine."""
        for name in (*SHARE_FIELDS, *FINITE_FIELDS, "ranking_share", "map_power"):
            _require_number(name, getattr(self, name))
        for name in SHARE_FIELDS:
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"`{name}` must be inside [0, 1], got {getattr(self, name)}. 0 switches it off.")
        for name in FINITE_FIELDS:
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"`{name}` must be finite and at least 0, got {getattr(self, name)}. Correct it.")
        if self.num_weights > MOST_WEIGHTS:
            raise ValueError(
                f"`hidden_size`, `num_hidden_layers` and the sizes beside them must give a model of at most "
                f"{MOST_WEIGHTS} weights, got about {self.num_weights}. Lower them."
            )
        file = getattr(self, "transformers_weights", None)  # the library's name of another file of weights
        if file is not None and not str(file).endswith((".safetensors", ".safetensors.index.json")):
            raise ValueError(f"`transformers_weights` must name safetensors, got {file!r}. Pickles are not read.")

    @property
    def num_weights(self) -> int:
        """Weights of the model, by its large matrices: within a few percent, for a limit."""
        width, rows, columns = self.hidden_size, *self.patch_grid
        blocks = self.num_hidden_layers * width * (4 * width + 2 * self.intermediate_size)
        tokens = width * (self.num_channels * self.patch_size**2 + rows * columns + 3 * self.num_labels)
        pooling = 4 * width**2 if self.pooling == "attention" else 0
        cam = self.cam_size * (width + 9 * self.cam_size + self.num_labels) if self.segment_cam else 0
        return blocks + tokens + pooling + cam


def _names_others(named: dict, config_dict: dict) -> bool:
    """Whether a call names other findings than a config, or as many as it has not."""
    stored = _named_findings(**config_dict)
    given = _named_findings(**named)
    return len(given) != len(stored) if set(named) == {"num_labels"} else given != stored


def _named_findings(id2label: Any = None, label2id: Any = None, num_labels: int | None = None, **others: Any) -> list:
    """Findings that fields of a config name, sorted by their numbers, each with its number."""
    _require_labels("id2label", id2label, names_first=False)
    _require_labels("label2id", label2id, names_first=True)
    if id2label is None and label2id is not None:
        id2label = {index: name for name, index in label2id.items()}
    if id2label is None:
        id2label = dict(enumerate(FINDINGS if num_labels is None else range(num_labels)))
    return sorted((int(index), name) for index, name in id2label.items())


def _without_values_of_other_findings(config_dict: dict) -> dict:
    """A dict of fields without what was fitted to the findings that it names."""
    scaled = any(config_dict.get(name, CALIBRATION[name]) != CALIBRATION[name] for name in _SCALING)
    stale = {name for name in PER_FINDING_FIELDS if isinstance(config_dict.get(name), list | tuple)}
    stale |= {*_SCALING, "score_thresholds"} & set(config_dict) if scaled else set()
    if stale:
        _log_dropped(stale, "other findings are named than those that they belong to")
    return {name: value for name, value in config_dict.items() if name not in {*stale, "calibration_fingerprint"}}


def _is_fitted(values: Any) -> bool:
    """Whether thresholds were chosen finding by finding."""
    return isinstance(values, list | tuple) and set(values) != {0.5}


def _log_dropped(names: set[str], reason: str) -> None:
    fields = ", ".join(f"`{name}`" for name in sorted(names))
    logger.warning("%s went back to the defaults, because %s. `clarity-hf calibrate` fits them again.", fields, reason)


_SAVE_AGAIN = "Copy the file from where the weights come from, or save the model again with `save_pretrained`."


def _require_fields(cls: type, config_dict: dict) -> None:
    """Refuse keys that are not fields, in a dict that may come from a file: overwritten methods, code to fetch."""
    for name, value in config_dict.items():
        attribute = inspect.getattr_static(cls, name, None)
        method = isinstance(attribute, staticmethod | classmethod) or inspect.isfunction(attribute)
        if method or (isinstance(attribute, property) and attribute.fset is None) or name.startswith("__"):
            raise ValueError(f"`config_dict` must hold fields of {cls.__name__}, got {name!r}. Take it out.")
        if name in ("attn_implementation", "_attn_implementation") and "/" in str(value):
            raise ValueError(
                f"`{name}` of a file must be an attention of the library, got {str(value)[:100]!r}, which is code on "
                "the Hub. Take it out, and pass it to `from_pretrained` where you trust it."
            )


def _require_labels(name: str, labels: object, names_first: bool) -> None:
    """Refuse a table of findings that is none, before anything is looked up in it."""
    if labels is None:
        return
    pairs = labels.items() if isinstance(labels, dict) else [("", "")]
    for finding, index in pairs if names_first else ((value, key) for key, value in pairs):
        if not isinstance(finding, str) or not str(index).isdecimal():
            raise ValueError(
                f"`{name}` must map findings and numbers from 0, got {str(labels)[:100]}. See ClarityConfig().{name}."
            )


def _require_number(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"`{name}` must be a number, got {str(value)[:100]!r}. Give one.")


def _require_count(name: str, value: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"`{name}` must be a whole number, got {value!r}. Give one.")
    if value < 1:
        raise ValueError(f"`{name}` must be at least 1, got {value}. Raise it.")
    if value > LARGEST[name]:
        raise ValueError(f"`{name}` must be at most {LARGEST[name]}, got {value}. Lower it.")


def _pair(size: int | list[int] | tuple[int, int]) -> tuple[int, int]:
    if isinstance(size, int):
        return size, size
    sides = isinstance(size, list | tuple) and len(size) == 2 and all(isinstance(side, int) for side in size)
    if not sides:
        raise ValueError(f"`image_size` must be one side or (height, width), got {size}. Give one or two numbers.")
    return size[0], size[1]


def _require_choice(name: str, value: str | None, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"`{name}` must be one of {list(choices)}, got {value!r}. Choose one of them.")


def _require_in_range(name: str, values: Sequence[float]) -> None:
    """Refuse values of a field of `PER_FINDING_FIELDS`; they may have been changed since the config was made."""
    if name == "score_intercepts":
        if not all(map(math.isfinite, values)):
            raise ValueError(f"`{name}` must be finite, got {list(values)}. 0 with slope 1 changes no score.")
    elif name in _REMEDIES:
        if not all(0 < value < math.inf for value in values):
            raise ValueError(f"`{name}` must be above 0, got {list(values)}. {_REMEDIES[name]}")
    elif not all(0 < value < 1 if name == "map_thresholds" else 0 <= value <= 1 for value in values):
        raise ValueError(f"`{name}` must lie between 0 and 1, got {list(values)}. Give shares, not percent.")


_REMEDIES = {
    "score_slopes": "1 with intercept 0 changes no score.",
    "positive_weights": "1 weighs positives as negatives.",
}


TRAINING_DEFAULTS = {name: getattr(ClarityConfig, name) for name in TRAINING_FIELDS}
"""What `TRAINING_FIELDS` are where no training set them."""


__all__ = ["TRAINING_DEFAULTS", "TRAINING_FIELDS", "ClarityConfig"]
