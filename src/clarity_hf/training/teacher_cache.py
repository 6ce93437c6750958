# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""The teacher's logits, computed once per image for fixed views and kept in a folder.

Training steps then need no forward pass of the teacher. Fixed views are the image and its mirror image; random crops
take the logits of the whole image. Phantoms that change every epoch need the teacher itself.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from tqdm.auto import tqdm

from clarity_hf.data.rows import WrappedRows, check_index
from clarity_hf.data.transforms import ImageTransform
from clarity_hf.files import replaced_file
from clarity_hf.fingerprints import KEY_BYTES, add_tensors, encoded_image, image_key, path_of
from clarity_hf.image_processing_clarity import ClarityImageProcessor
from clarity_hf.teacher import Teacher

FORMAT_VERSION = 1
"""Part of every fingerprint; raise it when the files or the processing of an image change."""

VIEWS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "identity": lambda pixel_values: pixel_values,
    "mirror": lambda pixel_values: pixel_values.flip(-1),
}
"""Fixed views of `pixel_values` `(B, C, H, W)`, in the order of the V axis."""

logger = logging.getLogger(__name__)


class CachedTeacherRows(WrappedRows):
    """A map-style data set whose rows also have `teacher_logits` `(V, F)` float32, one line per view.

    `logits` `(n, V, F)` are in the order of `rows`, one array in memory: 112,000 images, two views and 14 findings
    take 13 MB. Raises ValueError if there is not one entry per row.
    """

    def __init__(self, rows: Any, logits: np.ndarray):
        if logits.ndim != 3 or len(logits) != len(rows):
            raise ValueError(f"`logits` must be ({len(rows)}, V, F), got {logits.shape}. Give one entry per row.")
        super().__init__(rows)
        self.logits = logits

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Row `index` and its `teacher_logits` `(V, F)`."""
        check_index(index, len(self))
        return {**self.rows[index], "teacher_logits": self.logits[index]}


class TeacherLogits:
    """A folder of logits, for one teacher, one preprocessing and one set of views.

    Files are named `FINGERPRINT-DIGEST.safetensors`. The fingerprint covers the teacher's weights, its preprocessing,
    the order of the findings, the student's preprocessing and the views. The digest covers the content and is checked
    on reading. Images are identified by their content, wherever they are.

    Args:
        folder: Created when the first file is written.
        teacher: Gives logits `(B, F)` in the student's order.
        image_processor: The student's.
        views: `("identity",)` or `("identity", "mirror")`.

    Raises:
        ValueError: `views` is something else.
    """

    def __init__(
        self,
        folder: str | os.PathLike,
        teacher: Teacher,
        image_processor: ClarityImageProcessor,
        views: Sequence[str] = tuple(VIEWS),
    ):
        names = tuple(VIEWS)
        if not views or tuple(views) != names[: len(views)]:
            raise ValueError(f"`views` must be {names[:1]} or {names}, got {tuple(views)}. Their order is fixed.")
        self.folder, self.teacher, self.views = Path(folder).expanduser(), teacher, tuple(views)
        self.transform = ImageTransform(image_processor, prior="none")
        self.fingerprint = fingerprint(teacher, image_processor, self.views)
        self.known: dict[bytes, np.ndarray] = {}

    def read(self) -> None:
        """Read the folder; a damaged file is deleted with a warning, and its images are computed again."""
        for path in sorted(self.folder.glob(f"{self.fingerprint}-*.safetensors")):
            try:
                keys, logits = _read_part(path)
            except (SafetensorError, ValueError) as error:
                logger.warning("%s is damaged and is deleted, its images are computed again: %s", path, error)
                path.unlink(missing_ok=True)  # another run may have deleted it
                continue
            self.known.update(zip(map(bytes, keys), logits, strict=True))

    def add(self, keys: Sequence[bytes], pixel_values: torch.Tensor) -> None:
        """Compute the logits of images `(B, C, H, W)`, as the student sees them, by their B keys of [`image_key`].

        Raises ValueError if the teacher gives NaN or infinity.
        """
        device = self.teacher.scale.device
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            pixel_values = pixel_values.to(device)
            logits = torch.stack([self.teacher(VIEWS[view](pixel_values)) for view in self.views], dim=1)
        if not logits.isfinite().all():
            raise ValueError(
                f"`teacher` must give finite logits, got NaN or infinity in a batch of {len(keys)} images. Check "
                "whether its training diverged."
            )
        self.known.update(zip(keys, logits.float().cpu().numpy(), strict=True))

    def write(self, keys: Sequence[bytes]) -> Path:
        """Write the logits of at least one image in memory as one file, atomically; returns its path."""
        tensors = {
            "keys": np.frombuffer(b"".join(keys), dtype=np.uint8).reshape(-1, KEY_BYTES),
            "logits": np.stack([self.known[key] for key in keys]),
        }
        digest = _digest_of(tensors)
        metadata = {"format": "np", "digest": digest, "fingerprint": self.fingerprint, "views": " ".join(self.views)}
        path = self.folder / f"{self.fingerprint}-{digest}.safetensors"
        with replaced_file(path) as made:
            save_file(tensors, made, metadata)
        return path


def cache_teacher_logits(
    rows: Any,
    teacher: Teacher,
    image_processor: ClarityImageProcessor,
    folder: str | os.PathLike,
    views: Sequence[str] = tuple(VIEWS),
    batch_size: int = 32,
    part_size: int = 4096,
    num_workers: int = 0,
    progress: bool = True,
) -> CachedTeacherRows:
    """Give every row the teacher's logits, computing those that the folder lacks.

    Every image's file is read once to identify it by its content; only unknown images are decoded and passed through
    the teacher, on the teacher's device. With several processes (known once the training arguments are created) the
    first does the work and the others wait, so a first pass over many images may need a longer `ddp_timeout` or a
    separate run in one process. Logits are always computed in float32.

    Args:
        rows: Map-style rows with `image`, before [`ImageTransform`].
        teacher: The teacher as the Trainer would use it.
        image_processor: The student's; another one uses another cache.
        folder: Folder of the files; teachers, data sets and runs may share it.
        views: `("identity",)` or `("identity", "mirror")`; the latter for training with flips or crops.
        batch_size: Images in a forward pass of the teacher.
        part_size: Number of new images after which a file is written; at most as many are lost if the run stops.
        num_workers: Processes that read and decode.
        progress: Whether to show a progress bar.

    Returns:
        The rows with `teacher_logits` `(V, F)`.

    Raises:
        ValueError: The rows are a stream, change from epoch to epoch or have no `image`; `views` is unknown; or the
            teacher's logits are not finite.
    """
    _require_fixed(rows)
    together = dist.is_available() and dist.is_initialized()
    result: list[Any] = [None]
    if not together or dist.get_rank() == 0:
        cache = TeacherLogits(folder, teacher, image_processor, views)
        cache.read()
        result = [_fill(cache, rows, batch_size, part_size, num_workers, progress)]
    if together:
        dist.broadcast_object_list(result)
    return CachedTeacherRows(rows, result[0])


def fingerprint(teacher: Teacher, image_processor: ClarityImageProcessor, views: Sequence[str]) -> str:
    """What logits depend on besides the image, as 16 hexadecimal digits.

    Of the teacher its weights, architecture, size, normalisation and the order of the student's findings in it; of the
    student's image processor size, proportions and normalisation; and the views.
    """
    digest = hashlib.blake2b(digest_size=8)
    # These fields do not change what a model computes.
    volatile = {"_name_or_path", "transformers_version", "dtype", "architectures"}
    config = teacher.model.config
    fields = config.to_dict() if hasattr(config, "to_dict") else vars(config)
    described = {
        "version": FORMAT_VERSION,
        "views": list(views),
        "model": type(teacher.model).__name__,
        "config": {name: value for name, value in fields.items() if name not in volatile},
        "size": teacher.size,
        "processor": image_processor.to_dict(),
    }
    digest.update(json.dumps(described, sort_keys=True, default=str).encode())
    preprocessing = {"order": teacher.order, "scale": teacher.scale, "shift": teacher.shift}
    add_tensors(digest, {**teacher.model.state_dict(), **preprocessing})
    return digest.hexdigest()


class _Images(torch.utils.data.Dataset):
    """Key of each row's image and, if it is unknown, its `pixel_values`."""

    def __init__(self, rows: Any, transform: ImageTransform, known: set[bytes]):
        self.rows, self.transform, self.known = rows, transform, known

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[bytes, torch.Tensor | None]:
        row = self.rows[index]
        if "image" not in row:
            raise ValueError(
                f"`rows` must have images under 'image', got {sorted(row)}. Give the rows before they are transformed."
            )
        image = row["image"]
        encoded = encoded_image(image)
        if encoded is not None:  # read once, so that the teacher sees what is hashed
            image = {"path": path_of(image), "bytes": encoded}
        key = image_key(image)
        if key in self.known:
            return key, None
        return key, self.transform({"image": image, "labels": row.get("labels", [])})["pixel_values"]


def _fill(
    cache: TeacherLogits, rows: Any, batch_size: int, part_size: int, num_workers: int, progress: bool
) -> np.ndarray:
    """Logits `(n, V, F)` of all rows; new ones go to the folder, `part_size` images to a file."""
    before = len(cache.known)
    images = _Images(rows, cache.transform, set(cache.known))
    batches = torch.utils.data.DataLoader(images, batch_size=batch_size, num_workers=num_workers, collate_fn=list)
    keys: list[bytes] = []
    waiting: dict[bytes, torch.Tensor] = {}
    unwritten: list[bytes] = []

    def compute() -> None:
        if waiting:
            cache.add(list(waiting), torch.stack(list(waiting.values())))
            unwritten.extend(waiting)
            waiting.clear()

    for batch in tqdm(batches, desc="teacher", unit="batch", disable=not progress):
        for key, pixel_values in batch:
            keys.append(key)
            if pixel_values is not None and key not in cache.known:
                waiting[key] = pixel_values
                if len(waiting) == batch_size:
                    compute()
        if len(unwritten) >= part_size:
            cache.write(unwritten)
            unwritten.clear()
    compute()
    if unwritten:
        cache.write(unwritten)
    logger.info("teacher's logits of %d images: %d computed, %d cached", len(rows), len(cache.known) - before, before)
    shape = (0, len(cache.views), len(cache.teacher.order))
    return np.stack([cache.known[key] for key in keys]) if keys else np.zeros(shape, np.float32)


def _require_fixed(rows: Any) -> None:
    """Refuse rows without an index, and rows that differ between epochs."""
    if not (hasattr(rows, "__getitem__") and hasattr(rows, "__len__")):
        raise ValueError(
            f"`rows` must be map-style, got {type(rows).__name__}, a stream. Open the data set without streaming, or "
            "give the Trainer the teacher itself."
        )
    for part in _epoch_dependent(rows):
        raise ValueError(
            f"`rows` must be the same images in every epoch, got {type(part).__name__}, which draws new ones. "
            "Give the Trainer the teacher itself, or write the images to a folder once (write_phantoms)."
        )


def _epoch_dependent(rows: Any) -> Iterator[Any]:
    """The innermost data sets with a `set_epoch`."""
    if not hasattr(rows, "set_epoch"):
        return
    inner = getattr(rows, "datasets", None) or ([rows.rows] if hasattr(rows, "rows") else None)
    if inner is None:
        yield rows
        return
    for part in inner:
        yield from _epoch_dependent(part)


def _read_part(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Keys `(n, 16)` uint8 and logits `(n, V, F)` float32 of a file with the right digest."""
    with safe_open(path, framework="np") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, not a dict
        expected = (file.metadata() or {}).get("digest")
    if tensors.keys() != {"keys", "logits"} or _digest_of(tensors) != expected:
        raise ValueError("its content does not match its digest")
    return tensors["keys"], tensors["logits"]


def _digest_of(tensors: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.blake2b(digest_size=8)
    for name in sorted(tensors):
        digest.update(f"{name} {tensors[name].shape} {tensors[name].dtype.str}".encode())
        digest.update(np.ascontiguousarray(tensors[name]).data)
    return digest.hexdigest()
