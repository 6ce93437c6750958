# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Images decoded and reduced once, kept as whole grey values in a folder.

Decoding an image and reducing it to the size of training costs a core some tens of milliseconds in every epoch, more
where it is DICOM; reading it from here costs a tenth of one. An image of 256² takes 64 KiB, those of the NIH release
7 GB.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from clarity_hf.deprecated import old_names
from clarity_hf.files import replaced_file

FORMAT_VERSION = 1
"""Part of every name: raise it when the files or the way from an image to its content change."""

logger = logging.getLogger(__name__)


class ImageCache:
    """A folder of images as they lie in a letterbox, one file each.

    An image is known by its path, size and time of change, or by its bytes where it has no file; so a changed image is
    another image. Several workers, processes and runs may share a folder: files appear whole, by a rename. Deleting
    files, or the folder, costs time alone.

    Args:
        folder: Made when the first image is kept.
    """

    def __init__(self, folder: str | os.PathLike):
        self.folder = Path(folder).expanduser()
        self.full = False

    def content(
        self, source: Any, frame: str, make: Callable[[], tuple[np.ndarray, tuple[int, int]]]
    ) -> tuple[np.ndarray, tuple[int, int]]:
        """An image's content from the folder, or made and kept.

        Args:
            source: A path, bytes, or the `{"path", "bytes"}` of an undecoded `datasets.Image`. Images of other kinds
                are made each time.
            frame: What else the content depends on, such as the size of the letterbox.
            make: Gives the content `(h, w)` float32 in [0, 255] and the image's own `(H, W)`.

        Returns:
            The content `(h, w)` uint8, rounded also when it is new, so that every epoch sees the same; and the image's
            own `(H, W)` in pixels.
        """
        known = _identity(source)
        if known is None:
            return _rounded(*make())
        name = hashlib.blake2b(f"{FORMAT_VERSION} {frame} ".encode() + known, digest_size=16).hexdigest()
        path = self.folder / name[:2] / f"{name}.safetensors"
        kept = _read(path)
        if kept is None:
            kept = _rounded(*make())
            self._keep(path, *kept)
        return kept

    def _keep(self, path: Path, content: np.ndarray, size: tuple[int, int]) -> None:
        """Write a file whole or not at all; a folder that takes no more is told once, and training goes on."""
        if self.full:
            return
        try:
            with replaced_file(path) as made:
                save_file({"content": content}, made, metadata={"height": str(size[0]), "width": str(size[1])})
        except (OSError, SafetensorError) as error:  # safetensors wraps what the disk says
            self.full = True
            logger.warning("%s takes no more images (%s). The others are decoded each time.", self.folder, error)


def _identity(source: Any) -> bytes | None:
    """What tells an image from others, or None for an image that has neither a file nor bytes."""
    if isinstance(source, Mapping):
        source = source["path"] if source.get("bytes") is None else source["bytes"]
    if isinstance(source, bytes):
        return hashlib.blake2b(source).digest()
    if not isinstance(source, str | os.PathLike):
        return None
    try:
        found = os.stat(source)
    except (OSError, ValueError):  # whoever reads it says what is wrong with it
        return None
    return f"{os.path.abspath(source)} {found.st_size} {found.st_mtime_ns}".encode()


def _read(path: Path) -> tuple[np.ndarray, tuple[int, int]] | None:
    """A kept image, or None where there is none or it is damaged."""
    try:
        with safe_open(path, framework="numpy") as file:
            size = file.metadata()
            return file.get_tensor("content"), (int(size["height"]), int(size["width"]))
    except FileNotFoundError:
        return None
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        logger.warning("%s is damaged (%s) and is made anew.", path, error)
        return None


def _rounded(content: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, tuple[int, int]]:
    return np.clip(np.rint(content), 0, 255).astype(np.uint8), size

__getattr__ = old_names(__name__)
