# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Runs a method over images and writes records: streamed and resumable, without keeping maps."""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from clarity_hf.boxes import boxes_from_map
from clarity_hf.deprecated import old_names
from clarity_hf.fingerprints import image_key
from clarity_hf.metrics.image_driven import correlation_of_maps
from clarity_hf.metrics.localization import BoxSettings, measure_map
from clarity_hf.metrics.map_checks import mass_outside
from clarity_hf.metrics.records import THUMBNAIL_CELLS, ImageRecord, from_json, to_json

from .images import EvaluationImage
from .localizers import Localizer, LocalizerOutput

logger = logging.getLogger(__name__)


class EvaluationImages(Protocol):
    """Images by index; everything except their pixels is known without reading them.

    Attributes:
        names: Unique.
        findings: Names of the F labels, in their order.
        fingerprint: Changes with labels, boxes, patients and the order of the images, not with their pixels.
    """

    names: list[str]
    findings: tuple[str, ...]
    fingerprint: str

    def __len__(self) -> int:
        """Number of images."""

    def __getitem__(self, index: int) -> EvaluationImage:
        """Read image `index`."""


@dataclass(frozen=True)
class Evaluation:
    """The result of an evaluation.

    Attributes:
        records: One per image that could be read, in the order of the images.
        unreadable: The reason for each image that could not be read, by its name.
    """

    records: list[ImageRecord]
    unreadable: dict[str, str] = field(default_factory=dict)


def evaluate_images(
    localizer: Localizer,
    images: EvaluationImages,
    settings: BoxSettings,
    path: str | os.PathLike[str],
    about: Mapping[str, Any] | None = None,
    maps: Literal["all", "annotated"] = "all",
    batch_size: int = 16,
    num_workers: int = 0,
    progress: bool = True,
) -> Evaluation:
    """Evaluate a method on images, one batch at a time, and write a line of JSON per image.

    An interrupted run resumes: images whose record is in the file are not read again.

    Args:
        localizer: The method.
        images: Images to evaluate it on.
        settings: Thresholds of the boxes that a user would see.
        path: The file of records, `.jsonl`; its first line describes the method, the images and the settings.
        about: JSON of what else the records depend on, such as hashes of weights and data.
        maps: `"annotated"` measures only the maps of annotated findings, for methods whose maps cost a backward pass
            each: `shown` is then empty and other findings' `peaks` are NaN.
        batch_size: Images per forward pass.
        num_workers: Processes that read images ahead; 0 reads them in this process.
        progress: Whether to show a progress bar.

    Raises:
        ValueError: The file is of another method, other images or settings, an image's name occurs twice, the method
            and the images differ in their findings, `maps` is unknown, or a score is not finite.
    """
    if maps not in ("all", "annotated"):
        raise ValueError(f"`maps` must be 'all' or 'annotated', got '{maps}'. Choose one of them.")
    if len(set(images.names)) < len(images.names):
        raise ValueError("`images` must have unique names, got one twice. Images with one name would share a record.")
    if tuple(images.findings) != tuple(localizer.findings):
        raise ValueError(
            f"`images` must have the method's findings in its order, got {list(images.findings)}; the method has "
            f"{list(localizer.findings)}. Open them with open_images(..., wanted=FINDINGS OF THE METHOD)."
        )
    head = {
        "method": localizer.name,
        "findings": list(localizer.findings),
        "settings": {name: np.asarray(value).tolist() for name, value in vars(settings).items()},
        "maps": maps,
        "images": images.fingerprint,
        "about": dict(about or {}),
    }
    path = Path(path)
    done = _finished(path, head)
    missing = [index for index, name in enumerate(images.names) if name not in done]
    unreadable: dict[str, str] = {}  # in this run: images that could not be read before are tried again
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        if file.tell() == 0:
            file.write(json.dumps(head, allow_nan=False) + "\n")
        bar = tqdm(total=len(images), initial=len(images) - len(missing), desc=localizer.name, disable=not progress)
        for batch in _batches(images, missing, batch_size, num_workers):
            read = [image for image in batch if isinstance(image, EvaluationImage)]
            for image in batch:
                if not isinstance(image, EvaluationImage):
                    unreadable[image.name] = image.reason
                    logger.warning("%s cannot be read and is left out: %s", image.name, image.reason)
                    file.write(json.dumps({"unreadable": image.name, "reason": image.reason}) + "\n")
            for record in _records_of(localizer, read, settings, maps):
                file.write(json.dumps(to_json(record), allow_nan=False) + "\n")
            file.flush()  # a killed run leaves complete batches and at most one torn line
            bar.update(len(batch))
        bar.close()
    # Read back at the end, because records kept while images are allocated and freed fragment the memory, and because
    # a resumed run then gives exactly the same figures.
    records = {record.name: record for record in read_records(path)[1].records}
    return Evaluation([records[name] for name in images.names if name in records], unreadable)


def read_records(path: str | os.PathLike[str]) -> tuple[dict[str, Any], Evaluation]:
    """Read a file of records that [`evaluate_images`] wrote.

    Returns:
        Its head (`method`, `findings`, `settings`, `maps`, `about`) and the evaluation, in the file's order.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is not a file of records.
    """
    records: dict[str, ImageRecord] = {}
    unreadable: dict[str, str] = {}
    with Path(path).open(encoding="utf-8") as file:
        head = _head(file.readline())
        if not head:
            raise ValueError(f"`path` must be a file of records, got {path}. Write one with evaluate_images.")
        for line in file:
            stored = json.loads(line)
            if "unreadable" in stored:
                unreadable[stored["unreadable"]] = stored["reason"]
            else:
                records[stored["name"]] = from_json(stored)
                unreadable.pop(stored["name"], None)
    return head, Evaluation(list(records.values()), unreadable)


@dataclass(frozen=True)
class _Unreadable:
    name: str
    reason: str


class _Reading(torch.utils.data.Dataset):
    """Some of the images; one that cannot be read is returned as its name and the reason."""

    def __init__(self, images: EvaluationImages, indices: Sequence[int]):
        self.images, self.indices = images, indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, position: int) -> EvaluationImage | _Unreadable:
        index = self.indices[position]
        try:
            return self.images[index]
        except (OSError, ValueError) as error:
            # Records are passed on, so the message must not contain folders of this machine.
            return _Unreadable(self.images.names[index], re.sub(r"(/[^/\s`']+)+/", "", str(error)))


def _batches(
    images: EvaluationImages, indices: Sequence[int], batch_size: int, num_workers: int
) -> Iterator[list[EvaluationImage | _Unreadable]]:
    """Images in batches, read ahead by processes if there are any."""
    loader = torch.utils.data.DataLoader(
        _Reading(images, indices),
        batch_size=batch_size,
        num_workers=num_workers,
        collate_fn=list,
        multiprocessing_context="spawn" if num_workers else None,  # a fork would inherit the threads of torch
    )
    return iter(loader)


def _records_of(
    localizer: Localizer, images: Sequence[EvaluationImage], settings: BoxSettings, maps: str
) -> Iterator[ImageRecord]:
    """The records of a batch."""
    if not images:
        return
    wanted = [sorted(image.boxes) for image in images] if maps == "annotated" else None
    output = localizer([image.pixels for image in images], wanted)
    if not np.isfinite(output.scores).all():
        raise ValueError(f"`{localizer.name}` must give finite scores, got others. Check whether the model diverged.")
    for row, image in enumerate(images):
        yield _record(image, output, row, settings, maps)


def _record(
    image: EvaluationImage, output: LocalizerOutput, row: int, settings: BoxSettings, maps: str
) -> ImageRecord:
    scores, image_maps, letterbox = output.scores[row], output.maps[row], output.letterboxes[row]
    found: list[np.ndarray] | None = None
    if maps == "all":
        found = [boxes_from_map(one, letterbox, *settings.rule(finding)) for finding, one in enumerate(image_maps)]
    measured = np.array([maps == "all" or finding in image.boxes for finding in range(len(scores))])
    boxed = np.flatnonzero(scores >= settings.boxed_from).tolist()
    annotations = tuple(
        measure_map(image_maps[finding], letterbox, boxes, *settings.rule(finding), finding=finding)
        for finding, boxes in sorted(image.boxes.items())
    )
    outside = None if image.thorax is None else mass_outside(image_maps, letterbox, image.thorax)
    return ImageRecord(
        name=image.name,
        patient=image.patient,
        size=(image.pixels.shape[0], image.pixels.shape[1]),
        labels=image.labels,
        scores=scores,
        peaks=np.where(measured, image_maps.max(axis=(1, 2)), np.nan),
        shown=tuple((finding, box) for finding in (boxed if found else ()) for box in found[finding]),  # type: ignore[index]
        annotations=annotations,
        box_counts=None if found is None else np.array([len(boxes) for boxes in found]),
        map_correlation=None if found is None else correlation_of_maps(image_maps, letterbox),
        thumbnail=_thumbnail(image.pixels),
        mass_outside=None if outside is None else np.where(measured, outside, np.nan),
        sex=image.sex,
        age=image.age,
        view=image.view,
        digest=image_key(image.pixels).hex(),
    )


def _thumbnail(pixels: np.ndarray) -> np.ndarray:
    image = Image.fromarray(np.asarray(pixels, dtype=np.float32))
    small = image.resize((THUMBNAIL_CELLS, THUMBNAIL_CELLS), Image.Resampling.BOX)
    return np.asarray(small).round().clip(0, 255).astype(np.uint8)


def _finished(path: Path, head: Mapping[str, Any]) -> set[str]:
    """Names of the images with a record in the file, after truncating an incomplete last line."""
    if not path.is_file():
        return set()
    with path.open("r+b") as file:
        complete = sum(len(line) for line in file if line.endswith(b"\n"))
        file.truncate(complete)
    if not complete:
        return set()
    with path.open(encoding="utf-8") as file:
        kept, asked = _head(file.readline()), json.loads(json.dumps(head))
        if kept != asked:
            changed = [name for name in asked if kept.get(name) != asked[name]]
            raise ValueError(
                f"`path` must be a new file or one of the same evaluation, got {path.name}, which differs in "
                f"{', '.join(changed)}. Choose another folder, or delete the file."
            )
        stored = (json.loads(line) for line in file)
        return {record["name"] for record in stored if "name" in record}


def _head(line: str) -> dict[str, Any]:
    """The first line of a file of records; an empty mapping for any other file."""
    try:
        head = json.loads(line)
    except json.JSONDecodeError:
        return {}
    return head if isinstance(head, dict) and "method" in head else {}


__getattr__ = old_names(__name__)
