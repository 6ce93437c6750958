# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Files that are there whole or not at all, whenever their writer is stopped."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def replaced_files(folder: str | os.PathLike) -> Iterator[Path]:
    """A hidden folder to write to, whose files take their places in `folder` when all of them are written.

    Where the block fails, `folder` stays as it was and nothing is left beside it; a writer that is killed leaves the
    hidden folder, `.unfinished-*`, which nothing reads.

    Args:
        folder: Made where it is not there; files of other names stay.

    Raises:
        OSError: The disk is full, or `folder` cannot be written.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".unfinished-") as staging:
        yield Path(staging)
        move_files(staging, folder)


def move_files(staging: str | os.PathLike, folder: str | os.PathLike) -> None:
    """Move the files of one folder over those of the same names in another, each at once.

    All are on the disk before the first one moves. Weights move last: a new folder is no model before it is whole.

    Args:
        staging: On the same file system; left empty. Its folders stay where they are.
        folder: That is there.

    Raises:
        OSError: A file cannot be written to the disk or moved.
    """
    files = [path for path in Path(staging).iterdir() if path.is_file()]
    for path in files:
        with path.open("rb+") as file:
            os.fsync(file.fileno())
    for path in sorted(files, key=lambda path: (path.suffix == ".safetensors", path.name)):
        os.replace(path, Path(folder) / path.name)


def empty_folder(folder: str | os.PathLike) -> Path:
    """The folder without what a killed writer left in it.

    Raises:
        OSError: Something in it cannot be removed.
    """
    folder = Path(folder)
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    return folder


def published_name(name: str) -> str:
    """The name of a model or of data for the reader: a Hub id as it is, the last part of a path.

    A path is what is here, file or folder, or begins with `.`, `~` or `/`, or has more than one `/`.
    """
    path = Path(name).expanduser()
    if path.exists() or name.startswith((".", "~", "/")) or name.count("/") > 1:
        return path.resolve().name
    return name
