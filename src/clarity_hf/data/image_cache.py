# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Images decoded and resized once, kept as 8-bit grey levels in a folder.

Decoding and resizing an image takes tens of milliseconds of a core in every epoch, longer for DICOM; reading it from
here takes a tenth of that. An image of 256² takes 64 KiB, those of the NIH release 7 GB. Files are memory-mapped, so
that workers and processes share one copy in the page cache.
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

FORMAT_VERSION = 2
"""Part of every name: raise it when the files change, or the values that an image is read as."""

logger = logging.getLogger(__name__)


class ImageCache:
    """A folder of the contents of images in a letterbox, one file each.

    An image is identified by its path, size and modification time, or by its bytes if it has no file, so a changed
    image is decoded again. Several workers, processes and runs may share a folder: files are written atomically. It
    can be deleted at any time.

    Args:
        folder: Created when the first image is kept.
    """

    def __init__(self, folder: str | os.PathLike):
        self.folder = Path(folder).expanduser()
        self.full = False

    def content(
        self, source: Any, frame: str, make: Callable[[], tuple[np.ndarray, tuple[int, int]]]
    ) -> tuple[np.ndarray, tuple[int, int]]:
        """An image's content from the folder, made and kept if it is missing.

        Args:
            source: A path, bytes, or the `{"path", "bytes"}` of an undecoded `datasets.Image`; other images are not
                kept.
            frame: What else the content depends on, such as the size of the letterbox.
            make: Returns the content `(h, w)` float32 in [0, 255] and the image's own `(H, W)`.

        Returns:
            The content `(h, w)` uint8, rounded even if it is new, so that all epochs see the same; and the image's own
            `(H, W)` in pixels.
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
        """Write a file atomically; a full folder is logged once, and training continues."""
        if self.full:
            return
        try:
            with replaced_file(path) as made:
                save_file({"content": content}, made, metadata={"height": str(size[0]), "width": str(size[1])})
        except (OSError, SafetensorError) as error:  # safetensors wraps errors of the disk
            self.full = True
            logger.warning("%s takes no more images (%s). The others are decoded each time.", self.folder, error)


def _identity(source: Any) -> bytes | None:
    """Path, size and modification time of a file, or a hash of bytes; None for other images."""
    if isinstance(source, Mapping):
        source = source["path"] if source.get("bytes") is None else source["bytes"]
    if isinstance(source, bytes):
        return hashlib.blake2b(source).digest()
    if not isinstance(source, str | os.PathLike):
        return None
    try:
        found = os.stat(source)
    except (OSError, ValueError):  # reported when it is read
        return None
    return f"{os.path.abspath(source)} {found.st_size} {found.st_mtime_ns}".encode()


def _read(path: Path) -> tuple[np.ndarray, tuple[int, int]] | None:
    """A kept image, or None if it is missing or damaged."""
    try:
        with safe_open(path, framework="numpy") as file:
            size = file.metadata()
            return file.get_tensor("content"), (int(size["height"]), int(size["width"]))
    except FileNotFoundError:
        return None
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        logger.warning("%s is damaged (%s) and is decoded again.", path, error)
        return None


def _rounded(content: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, tuple[int, int]]:
    return np.clip(np.rint(content), 0, 255).astype(np.uint8), size


__getattr__ = old_names(__name__)
