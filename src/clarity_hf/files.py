# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Files that are complete or absent, whenever their writer is stopped."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

UNFINISHED = ".unfinished-"
"""Start of the names of what is being written; nothing reads such files, and a killed writer leaves them."""


@contextlib.contextmanager
def replaced_file(path: str | os.PathLike, durable: bool = False) -> Iterator[Path]:
    """A path to write to that becomes `path` at the end of the block, so that no reader ever sees half a file.

    Where the block fails, `path` stays as it was.

    Args:
        path: Its folder is created if needed.
        durable: Whether the file is on the disk before it takes its place, and its name when the block has ended.

    Raises:
        OSError: The disk is full, or the folder cannot be written.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    made = path.with_name(f"{UNFINISHED}{uuid.uuid4().hex}")
    try:
        yield made
        if durable:
            _sync(made)
        os.replace(made, path)
        if durable:
            _sync_folder(path.parent)
    finally:
        made.unlink(missing_ok=True)


@contextlib.contextmanager
def replaced_files(folder: str | os.PathLike, durable: bool = True) -> Iterator[Path]:
    """A hidden folder to write to, whose files take their places in `folder` when all of them are written.

    Where the block fails, `folder` stays as it was and nothing is left beside it.

    Args:
        folder: Created if needed; files of other names stay.
        durable: As in [`move_files`].

    Raises:
        OSError: The disk is full, or `folder` cannot be written.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=UNFINISHED) as staging:
        yield Path(staging)
        move_files(staging, folder, durable)


def move_files(staging: str | os.PathLike, folder: str | os.PathLike, durable: bool = True) -> None:
    """Move the files of one folder over those of the same names in another, each at once.

    Weights move last: a new folder is not a model before it is complete.

    Args:
        staging: On the same file system; left empty. Its folders stay where they are.
        folder: Must exist.
        durable: Whether to wait until all files are on the disk before the first one moves.

    Raises:
        OSError: A file cannot be written to the disk or moved.
    """
    files = [path for path in Path(staging).iterdir() if path.is_file()]
    for path in files if durable else ():
        _sync(path)
    for path in sorted(files, key=lambda path: (path.suffix == ".safetensors", path.name)):
        os.replace(path, Path(folder) / path.name)


def _sync(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":  # where folders cannot be opened
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_unfinished(folder: str | os.PathLike) -> None:
    """Remove what killed writers left in a folder and below it. No other writer may be at work there."""
    for path in Path(folder).rglob(f"{UNFINISHED}*"):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def empty_folder(folder: str | os.PathLike) -> Path:
    """Create a folder, or empty one, such as one in which a killed writer left files.

    Raises:
        OSError: Something in it cannot be removed.
    """
    folder = Path(folder)
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    return folder


def published_name(name: str) -> str:
    """The name of a model or of data to show: a Hub id as it is, the last part of a path.

    A path exists as a file or folder, begins with `.`, `~` or `/`, or has more than one `/`.
    """
    path = Path(name).expanduser()
    if path.exists() or name.startswith((".", "~", "/")) or name.count("/") > 1:
        return path.resolve().name
    return name
