# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Load models of other classes, such as teachers, from safetensors only: no pickle is opened and no code is run."""

from __future__ import annotations

import json
import re
from typing import Any

from transformers import AutoConfig
from transformers.utils.hub import cached_file

INDEX = "model.safetensors.index.json"


def load_foreign_model(loader: Any, name_or_path: str, **kwargs: Any) -> Any:
    """Call `loader.from_pretrained` after checking that the checkpoint's files would only open safetensors.

    Args:
        loader: An Auto class of transformers, or a model class.
        name_or_path: Folder or Hub id.
        kwargs: Passed on. With `output_loading_info=True` the second return value names the missing tensors; otherwise
            a checkpoint with missing tensors is refused, because transformers would fill them with random values.

    Raises:
        OSError: The checkpoint does not exist or has no safetensors.
        ValueError: The config of timm's wrapper names files or other sources of weights, an index names files other
            than safetensors, or tensors are missing.
    """
    config = AutoConfig.from_pretrained(name_or_path, trust_remote_code=False)
    if config.model_type == "timm_wrapper":
        require_plain_timm(config)
    for index in {INDEX, str(getattr(config, "transformers_weights", INDEX))}:
        if index.endswith(".index.json"):
            _require_safetensors_shards(name_or_path, index)
    given = {"use_safetensors": True, "trust_remote_code": False} | kwargs | {"output_loading_info": True}
    model, info = loader.from_pretrained(name_or_path, **given)
    if kwargs.get("output_loading_info"):
        return model, info
    missing = sorted(info["missing_keys"])
    if missing:
        raise ValueError(
            f"`{name_or_path}` must hold all tensors of its config.json, got {len(missing)} missing: "
            f"{', '.join(missing[:20])}. Download it again, or train the missing head first."
        )
    return model


def require_plain_timm(config: Any) -> None:
    """Refuse a config of timm's wrapper that would download or open anything other than its own weights.

    `timm.create_model` accepts names such as `hf-hub:owner/name` and arguments such as `checkpoint_path`, which before
    1.0.26 is opened with `torch.load(weights_only=False)`; both may come from an untrusted config.json.

    Raises:
        ValueError: The architecture is not a plain name, or `model_args` name a file or another source of weights.
    """
    if not re.fullmatch(r"[\w.]+", str(config.architecture)):
        raise ValueError(f"`architecture` must be the name of a timm model, got {config.architecture!r}.")
    fetching = {"pretrained", "checkpoint_path", "cache_dir", "pretrained_cfg", "pretrained_cfg_overlay", "scriptable"}
    named = sorted(fetching & {*(config.model_args or {})})
    if named:
        raise ValueError(f"`model_args` must only set sizes and shapes, got {named}. Remove them from config.json.")


def _require_safetensors_shards(name_or_path: str, index: str) -> None:
    """Refuse an index, in a folder or on the Hub, that names shards other than safetensors."""
    path = cached_file(
        name_or_path,
        index,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
    if path is None:
        return
    with open(path, encoding="utf-8") as file:
        read = json.load(file)
    shards = read.get("weight_map") if isinstance(read, dict) else None
    if not isinstance(shards, dict):
        raise ValueError(f"`{index}` must have a `weight_map`, got none in {name_or_path}. Save the model again.")
    others = sorted({str(shard) for shard in shards.values() if not str(shard).endswith(".safetensors")})
    if others:
        raise ValueError(
            f"`{index}` must name .safetensors files, got {others} in {name_or_path}. Pickles can run code and are "
            "not read: convert them where you trust them."
        )
