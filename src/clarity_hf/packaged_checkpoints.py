# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""The checkpoints that ship inside the package, by name.

A bare name such as `clarity-s16-224` is no folder and no repository of the Hub. Every loader of transformers
(`from_pretrained` of our classes and of the Auto classes, `pipeline(model=...)`) looks its files up through one
function, `transformers.utils.hub.cached_files`; it is wrapped to serve these names from the package. A folder of that
name in the working directory goes first, every other name goes the usual way.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import transformers.utils.hub as hub

CHECKPOINT_FOLDER = Path(__file__).parent / "checkpoints"

DEFAULT_CHECKPOINT = "clarity-s16-224"
"""The checkpoint of `pipeline("chest-xray-localization")`."""

UNTRAINED = {
    "clarity-s16-512": "--model clarity-s16-224 --image_size 512",
    "clarity-ti16-224": "--size ti16",
}
"""Configurations of the family whose weights do not ship, and the arguments of `clarity-hf train` that train them."""


def checkpoint_path(name: str) -> Path:
    """Folder of a packaged checkpoint.

    Args:
        name: Such as `clarity-s16-224`.

    Raises:
        OSError: There is no packaged checkpoint of that name; the message lists those that there are.
    """
    folder = CHECKPOINT_FOLDER / name
    if name in checkpoint_names():
        return folder
    known = ", ".join(checkpoint_names()) or "none"
    if name in UNTRAINED:
        raise OSError(
            f"`{name}` is a configuration whose weights do not ship with clarity_hf (packaged: {known}). Train it and "
            f"load the folder that it writes: clarity-hf train --data_dir FILMS {UNTRAINED[name]} "
            f"--output_dir runs/{name}"
        )
    raise OSError(
        f"`pretrained_model_name_or_path` must be a packaged checkpoint ({known}), a folder or a Hub id "
        f"'owner/name', got '{name}'. Correct the name."
    )


def checkpoint_names() -> list[str]:
    """Names of the packaged checkpoints, sorted."""
    return sorted(folder.parent.name for folder in CHECKPOINT_FOLDER.glob("*/config.json"))


def register_checkpoint_names() -> None:
    """Let every loader of transformers resolve the packaged names. Calling it again changes nothing."""
    if not hasattr(hub.cached_files, "_serves_clarity_checkpoints"):
        hub.cached_files = _serving_packaged(hub.cached_files)


def _serving_packaged(cached_files: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(cached_files)
    def serve(path_or_repo_id: str | os.PathLike, filenames: list[str], **kwargs: Any) -> Any:
        name = str(path_or_repo_id)
        if name.startswith("clarity-") and "/" not in name and not os.path.isdir(name):
            path_or_repo_id = checkpoint_path(name)
        return cached_files(path_or_repo_id, filenames, **kwargs)

    serve._serves_clarity_checkpoints = True  # type: ignore[attr-defined]
    return serve
