# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Checks of checkpoints before and after they are loaded: safetensors only, no pickles, no remote code."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformers.utils.hub import cached_file

INDEX = "model.safetensors.index.json"

PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
"""Suffixes of weights that are pickles, which can run code."""

_CONVERT = (
    "Convert it where you trust it: read its tensors with torch.load(file, weights_only=True) and save them with "
    "safetensors.torch.save_file as model.safetensors."
)


def load_foreign_model(loader: Any, name_or_path: str, **kwargs: Any) -> Any:
    """Call `loader.from_pretrained` after checking that it would only open safetensors.

    Args:
        loader: An Auto class of transformers, or a model class.
        name_or_path: Folder or Hub id.
        kwargs: Passed on. With `output_loading_info=True` the second return value names the missing tensors; otherwise
            a checkpoint with missing tensors, which transformers would fill with random values, is refused.

    Raises:
        OSError: The checkpoint does not exist or has no safetensors.
        ValueError: The config of timm's wrapper names files or other sources of weights, an index names files other
            than safetensors, or tensors are missing.
    """
    from transformers import AutoConfig  # slow to import, and only models of other classes need it

    config = AutoConfig.from_pretrained(name_or_path, trust_remote_code=False)
    if config.model_type == "timm_wrapper":
        require_plain_timm(config)
    for index in {INDEX, str(getattr(config, "transformers_weights", INDEX))}:
        if index.endswith(".index.json"):
            path = cached_file(
                name_or_path,
                index,
                _raise_exceptions_for_missing_entries=False,
                _raise_exceptions_for_connection_errors=False,
            )
            if path is not None:
                _require_safetensors_shards(path)
    given = {"use_safetensors": True, "trust_remote_code": False} | kwargs | {"output_loading_info": True}
    model, info = loader.from_pretrained(name_or_path, **given)
    if kwargs.get("output_loading_info"):
        return model, info
    remedy = "Download it again, or train the missing head first."
    require_none(sorted(info["missing_keys"]), name_or_path, "missing", remedy)
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


def require_safetensors(place: str) -> None:
    """Refuse a local file or folder without safetensors before anything in it is opened; other names pass.

    Raises:
        FileNotFoundError: `place` is a folder with pickles only.
        OSError: `place` is a file other than safetensors.
        ValueError: An index of shards has no `weight_map` or names files other than safetensors beside it.
    """
    folder = Path(place)
    if folder.is_file() and folder.suffix != ".safetensors":
        raise OSError(f"`{folder.name}` must be a folder or a .safetensors file, got another file. {_CONVERT}")
    if not folder.is_dir():
        return
    for index in sorted(folder.glob("*.safetensors.index.json")):
        _require_safetensors_shards(index)
    if any(folder.glob("*.safetensors")):
        return
    pickles = sorted(path.name for path in folder.iterdir() if path.suffix in PICKLES)
    if pickles:
        raise FileNotFoundError(f"`{folder}` must hold model.safetensors, got {pickles[0]}, a pickle. {_CONVERT}")


def _require_safetensors_shards(index: str | os.PathLike) -> None:
    read = json.loads(Path(index).read_text(encoding="utf-8"))
    shards = read.get("weight_map") if isinstance(read, dict) else None
    name = Path(index).name
    if not isinstance(shards, dict):
        raise ValueError(f"`{name}` must have a `weight_map`, got none. Save the model again.")
    for shard in sorted({str(shard) for shard in shards.values()}):
        if not shard.endswith(".safetensors") or Path(shard).name != shard:
            raise ValueError(f"`{name}` must name .safetensors files beside it, got {shard!r}. {_CONVERT}")


def require_safetensors_files(files: Iterable[str]) -> None:
    """Raise ValueError if files of weights are not safetensors."""
    others = sorted({Path(file).name for file in files if Path(file).suffix != ".safetensors"})
    if others:
        raise ValueError(f"`{INDEX}` must name .safetensors files beside it, got {others}. {_CONVERT}")


def tensor_types(tensors: Mapping[str, torch.Tensor] | Iterable[str]) -> dict[str, str]:
    """Type of each tensor by name, of a state dict or of safetensors files, whose headers are read."""
    if isinstance(tensors, Mapping):
        return {name: str(tensor.dtype) for name, tensor in tensors.items()}
    types: dict[str, str] = {}
    for file in tensors:
        with safe_open(file, framework="pt") as stored:
            types |= {name: stored.get_slice(name).get_dtype() for name in stored.keys()}  # noqa: SIM118
    return types


def require_floating(types: Mapping[str, str], place: Any) -> None:
    """Raise ValueError for integer, boolean and complex tensors, which the library would cast to meaningless weights.

    `types` are those of [`tensor_types`]; `place` names the checkpoint.
    """
    floating = ("F", "BF", "torch.float", "torch.bfloat")
    wrong = {name: kind for name, kind in types.items() if not kind.startswith(floating)}
    if wrong:
        name, kind = min(wrong.items())
        raise ValueError(
            f"`{place}` must hold floating point tensors, got {len(wrong)} of another type, such as {name} of {kind}. "
            "Save the model again with `save_pretrained`."
        )


@torch.no_grad()
def require_finite(tensors: Mapping[str, torch.Tensor], place: Any) -> None:
    """Raise ValueError for weights with NaN or infinite values; tensors on the meta device are not checked."""
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not tensor.is_meta and not torch.isfinite(tensor).all():
            raise ValueError(f"`{place}` must hold finite weights, got NaN or infinity in {name}. Train it again.")


def require_none(names: Iterable[str], place: Any, what: str, remedy: str) -> None:
    """Raise ValueError for a checkpoint with tensors that are `what`, such as "missing", named in the message."""
    if names := list(names):
        shown = ", ".join(names[:20]) + (", …" if len(names) > 20 else "")
        raise ValueError(
            f"`{place}` must hold the tensors of its config.json, got {len(names)} {what}: {shown}. {remedy}"
        )
