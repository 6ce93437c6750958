# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Atomic writes: a file is either complete or absent, even if its writer is killed."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

UNFINISHED = ".unfinished-"
"""Prefix of files being written, which nothing reads and a killed writer leaves behind."""


@contextlib.contextmanager
def replaced_file(path: str | os.PathLike, durable: bool = False) -> Iterator[Path]:
    """A temporary path that replaces `path` at the end of the block, so that no reader sees a partial file.

    If the block raises, `path` is unchanged.

    Args:
        path: Its folder is created if needed.
        durable: Whether to flush the file to disk before it is moved, and its name before the block ends.

    Raises:
        OSError: The disk is full, or the folder is not writable.
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
    """A hidden folder whose files are moved into `folder`, as by [`move_files`], at the end of the block.

    `folder` is created if needed; files with other names are kept. If the block raises, it is unchanged.

    Raises:
        OSError: The disk is full, or `folder` is not writable.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=UNFINISHED) as staging:
        yield Path(staging)
        move_files(staging, folder, durable)


def move_files(staging: str | os.PathLike, folder: str | os.PathLike, durable: bool = True) -> None:
    """Move the files of one folder into another on the same file system, each atomically and the weights last.

    `folder` must exist; its files of the same names are replaced. Subfolders are not moved. If `durable`, all files
    are flushed to disk before the first is moved.

    Raises:
        OSError: A file cannot be flushed or moved.
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
    if os.name == "nt":  # which cannot open folders
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_unfinished(folder: str | os.PathLike) -> None:
    """Remove what killed writers left in a folder and below it; no other writer may be active there."""
    for path in Path(folder).rglob(f"{UNFINISHED}*"):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def published_name(name: str) -> str:
    """Display name of a model or a data set: a Hub id unchanged, or the last part of a path.

    A name is a path if it exists, begins with `.`, `~` or `/`, or has more than one `/`.
    """
    path = Path(name).expanduser()
    if path.exists() or name.startswith((".", "~", "/")) or name.count("/") > 1:
        return path.resolve().name
    return name
