# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""The checkpoints that ship inside the package, by name.

A bare name such as `clarity-s16-224` is no folder and no repository of the Hub. Every loader of transformers
(`from_pretrained` of our classes and of the Auto classes, `pipeline(model=...)`) looks its files up through one
function, `transformers.utils.hub.cached_files`; it is wrapped to serve these names from the package. Before that they
ask the Hub which commit a name stands for; of these names nothing is asked. A folder of that name in the working
directory goes first, every other name goes the usual way.

What ships is held to its hashes: before a file of a packaged checkpoint is served, by name or by path, every file in
its `SHA256SUMS` is hashed, once a process.
"""

from __future__ import annotations

import functools
import hashlib
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import transformers.utils.hub as hub

CHECKPOINT_FOLDER = Path(__file__).parent / "checkpoints"

DEFAULT_CHECKPOINT = "clarity-s16-224"
"""The checkpoint of `pipeline("chest-xray-localization")`."""

SUMS = "SHA256SUMS"
"""Name of the file with the hashes of a checkpoint, a line a file, as `sha256sum` writes and checks it."""

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
            f"load the folder that it writes: clarity-hf train --data_dir IMAGES {UNTRAINED[name]} "
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
    api: Any = hub.hf_api()  # one object for the whole library, whose method each of its loaders calls
    if not hasattr(api.resolve_revision, "_serves_clarity_checkpoints"):
        api.resolve_revision = _asking_nothing(api.resolve_revision)


def file_sum(path: str | os.PathLike) -> str:
    """SHA-256 of a file, 64 hexadecimal digits; hashed once a process for each size and time of change.

    Raises:
        FileNotFoundError: There is no such file.
    """
    state = os.stat(path)
    return _file_sum(os.path.abspath(path), state.st_size, state.st_mtime_ns)


@functools.lru_cache(maxsize=256)
def _file_sum(path: str, size: int, changed: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_sums(folder: str | os.PathLike) -> dict[str, str]:
    """Hashes that the `SHA256SUMS` of a folder states, by name of file relative to the folder.

    Raises:
        FileNotFoundError: The folder has no `SHA256SUMS`.
        ValueError: A line is no hash with a name, or a name leads out of the folder.
    """
    path = Path(folder) / SUMS
    if not path.is_file():
        raise FileNotFoundError(f"`{SUMS}` must lie in the folder of a checkpoint, got no such file in {folder}.")
    sums = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        found = re.fullmatch(r"([0-9a-f]{64}) [ *](.+)", line)
        if not found or os.path.isabs(found[2]) or ".." in Path(found[2]).parts:
            raise ValueError(
                f"`{SUMS}` must have lines '<64 hexadecimal digits>  <file below the folder>', got {line[:100]!r}. "
                "Write it again with `clarity_hf.fingerprints.write_sums`."
            )
        sums[found[2]] = found[1]
    return sums


def loaded_files(folder: str | os.PathLike) -> list[str]:
    """Names of the files that loading a checkpoint reads or, where it is asked to, runs: configs, weights and code."""
    return sorted(path.name for pattern in ("*.json", "*.safetensors", "*.py") for path in Path(folder).glob(pattern))


def differing_files(folder: str | os.PathLike) -> list[str]:
    """Files of a folder that are not what its `SHA256SUMS` states, each with what is wrong; empty where all are.

    Raises:
        FileNotFoundError, ValueError: As for [`read_sums`].
    """
    sums = read_sums(folder)
    differing = [f"{name} (not stated)" for name in loaded_files(folder) if name not in sums]
    for name, stated in sums.items():
        path = Path(folder) / name
        if not path.is_file():
            differing.append(f"{name} (missing)")
        elif file_sum(path) != stated:
            differing.append(f"{name} (another SHA-256)")
    return differing


def _check_packaged(folder: Path) -> None:
    """Refuse a packaged checkpoint whose files are not those that were packed."""
    try:
        differing = differing_files(folder)
    except (FileNotFoundError, ValueError) as error:
        raise OSError(f"`{folder.name}` must be the checkpoint as it was packed, got: {error} {_REINSTALL}") from error
    if differing:
        raise OSError(
            f"`{folder.name}` must be the checkpoint as it was packed, got other files than its {SUMS} states: "
            f"{', '.join(differing)}. {_REINSTALL}"
        )


_REINSTALL = "Reinstall clarity_hf. To change a packaged checkpoint, copy its folder and load the copy by its path."


def _is_bare_name(name: str) -> bool:
    """Whether a name is for the package to serve, and neither a folder nor another's repository."""
    return name.startswith("clarity-") and "/" not in name and not os.path.isdir(name)


def _serving_packaged(cached_files: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(cached_files)
    def serve(path_or_repo_id: str | os.PathLike, filenames: list[str], **kwargs: Any) -> Any:
        if _is_bare_name(str(path_or_repo_id)):
            path_or_repo_id = checkpoint_path(str(path_or_repo_id))
        if os.path.isdir(path_or_repo_id):
            folder = Path(path_or_repo_id).resolve()
            if folder.parent == CHECKPOINT_FOLDER.resolve() and folder.name in checkpoint_names():
                _check_packaged(folder)
        return cached_files(path_or_repo_id, filenames, **kwargs)

    serve._serves_clarity_checkpoints = True  # type: ignore[attr-defined]
    return serve


def _asking_nothing(resolve_revision: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(resolve_revision)
    def serve(repo_id: str, **kwargs: Any) -> Any:
        if _is_bare_name(str(repo_id)):
            return kwargs.get("revision")
        return resolve_revision(repo_id, **kwargs)

    serve._serves_clarity_checkpoints = True  # type: ignore[attr-defined]
    return serve
