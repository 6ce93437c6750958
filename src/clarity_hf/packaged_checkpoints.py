# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""The checkpoints that ship inside the package, by name, each verified by the hashes in its `SHA256SUMS`.

`registration.py` lets the loaders of transformers find them by name.
"""

from __future__ import annotations

import functools
import hashlib
import os
import re
from pathlib import Path

CHECKPOINT_FOLDER = Path(__file__).parent / "checkpoints"

DEFAULT_CHECKPOINT = "clarity-s16-224"
"""The checkpoint of `pipeline("chest-xray-localization")`."""

SUMS = "SHA256SUMS"
"""Name of the file with the hashes of a checkpoint, in the format of `sha256sum`."""

UNTRAINED = {
    "clarity-s16-512": "--model clarity-s16-224 --image_size 512",
    "clarity-ti16-224": "--size ti16",
}
"""Configurations whose weights do not ship, and the arguments of `clarity-hf train` that train them."""


def checkpoint_path(name: str) -> Path:
    """Folder of a packaged checkpoint.

    Args:
        name: Such as `clarity-s16-224`.

    Raises:
        OSError: There is no packaged checkpoint of that name; the message lists the names.
    """
    folder = CHECKPOINT_FOLDER / name
    if name in checkpoint_names():
        return folder
    known = ", ".join(checkpoint_names()) or "none"
    if name in UNTRAINED:
        raise OSError(
            f"`{name}` is a configuration whose weights do not ship with clarity_hf (packaged: {known}). Train it "
            f"with clarity-hf train --data_dir IMAGES {UNTRAINED[name]} --output_dir runs/{name} and load that folder."
        )
    raise OSError(f"No such model: '{name}'. Pass a packaged checkpoint ({known}), a folder or a Hub id 'owner/name'.")


def require_model(name: str) -> None:
    """Refuse a mistyped name or folder at once, before it is looked for on the Hub.

    Args:
        name: Packaged name, folder or Hub id `owner/name`.

    Raises:
        FileNotFoundError: It is no folder, and begins like a path or with a folder that is there.
        OSError: It has no owner, as a Hub id would, and is no packaged name.
    """
    parts = name.replace(os.sep, "/").split("/")
    if os.path.exists(os.path.expanduser(name)):
        return
    if len(parts) == 1:
        checkpoint_path(name)
    elif len(parts) > 2 or parts[0] in ("", ".", "..", "~") or os.path.isdir(parts[0]):
        raise FileNotFoundError(f"No such folder: '{name}'. Pass the folder of a model, or a Hub id 'owner/name'.")


def checkpoint_names() -> list[str]:
    """Names of the packaged checkpoints, sorted."""
    return sorted(folder.parent.name for folder in CHECKPOINT_FOLDER.glob("*/config.json"))


def is_packaged_name(name: str) -> bool:
    """Whether a name such as `clarity-s16-224` is neither a folder nor a repository `owner/name` of the Hub."""
    return name.startswith("clarity-") and "/" not in name and not os.path.isdir(name)


def served_path(path_or_name: str | os.PathLike) -> str | os.PathLike:
    """Path from which transformers loads a packaged name; anything else as it is.

    Before a packaged checkpoint is loaded, by name or by path, its files are hashed, once per process.

    Args:
        path_or_name: Packaged name, folder or Hub id. A folder of that name in the working directory has priority.

    Raises:
        OSError: There is no packaged checkpoint of that name, or its files have changed since it was packed.
    """
    path = checkpoint_path(str(path_or_name)) if is_packaged_name(str(path_or_name)) else path_or_name
    if os.path.isdir(path):
        folder = Path(path).resolve()
        if folder.parent == CHECKPOINT_FOLDER.resolve() and folder.name in checkpoint_names():
            _check_unchanged(folder)
    return path


def file_sum(path: str | os.PathLike) -> str:
    """SHA-256 of a file, 64 hexadecimal digits; cached by path, size and modification time.

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
    """Hashes in the `SHA256SUMS` of a folder, by file name relative to the folder.

    Raises:
        FileNotFoundError: The folder has no `SHA256SUMS`.
        ValueError: A line is not a hash with a name, or a name points outside the folder.
    """
    path = Path(folder) / SUMS
    if not path.is_file():
        raise FileNotFoundError(f"No such file: {path}. A packaged checkpoint must have one.")
    sums = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        found = re.fullmatch(r"([0-9a-f]{64}) [ *](.+)", line)
        if not found or os.path.isabs(found[2]) or ".." in Path(found[2]).parts:
            raise ValueError(
                f"Each line of `{SUMS}` must be '<64 hexadecimal digits>  <file below the folder>', got "
                f"{line[:100]!r}. Write it again with `clarity_hf.fingerprints.write_sums`."
            )
        sums[found[2]] = found[1]
    return sums


def loaded_files(folder: str | os.PathLike) -> list[str]:
    """Names of the files that loading a checkpoint reads or may run: configs, weights, graphs and code."""
    patterns = ("*.json", "*.safetensors", "*.onnx", "*.py")
    return sorted(path.name for pattern in patterns for path in Path(folder).glob(pattern))


def differing_files(folder: str | os.PathLike) -> list[str]:
    """Files of a folder that do not match its `SHA256SUMS`, each with the reason; empty if all match.

    Raises:
        FileNotFoundError, ValueError: As for [`read_sums`].
    """
    sums = read_sums(folder)
    differing = [f"{name} (not listed)" for name in loaded_files(folder) if name not in sums]
    for name, stated in sums.items():
        path = Path(folder) / name
        if not path.is_file():
            differing.append(f"{name} (missing)")
        elif file_sum(path) != stated:
            differing.append(f"{name} (different SHA-256)")
    return differing


def _check_unchanged(folder: Path) -> None:
    remedy = "Reinstall clarity_hf. To change a packaged checkpoint, copy its folder and load the copy by its path."
    try:
        differing = differing_files(folder)
    except (FileNotFoundError, ValueError) as error:
        raise OSError(f"The packaged checkpoint `{folder.name}` cannot be verified: {error} {remedy}") from error
    if differing:
        raise OSError(
            f"The packaged checkpoint `{folder.name}` has changed since it was packed. Files that do not match its "
            f"{SUMS}: {', '.join(differing)}. {remedy}"
        )


__all__ = [
    "CHECKPOINT_FOLDER",
    "DEFAULT_CHECKPOINT",
    "SUMS",
    "UNTRAINED",
    "checkpoint_names",
    "checkpoint_path",
    "differing_files",
    "file_sum",
    "is_packaged_name",
    "loaded_files",
    "read_sums",
    "served_path",
]
