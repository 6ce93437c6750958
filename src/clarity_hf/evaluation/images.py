# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Images to evaluate on, read one at a time: from a data set, or phantoms with their exact boxes."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from clarity_hf.boxes import BOX_FRAME
from clarity_hf.data.label_columns import LabelOptions
from clarity_hf.data.priors import read_mask
from clarity_hf.data.rows import SPLITS
from clarity_hf.data.sources import PHANTOM, PhantomRows, ReadingOptions, open_source
from clarity_hf.data.transforms import read_source
from clarity_hf.deprecated import old_names
from clarity_hf.labels import FINDINGS
from clarity_hf.phantoms import generator_fingerprint

_DESCRIBED = ("image_id", "patient_id", "labels", "boxes", "box_findings", "sex", "age", "view")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class EvaluationImage:
    """An image with its labels, boxes and patient.

    Attributes:
        name: Unique in its data set.
        patient: Id of its patient.
        pixels: `(H, W)` in [0, 255].
        labels: `(F,)` float64, 1 present, 0 absent, NaN not annotated.
        boxes: Annotated boxes `(m, 4)` by index of the finding, xyxy in pixels of the image, right and bottom
            exclusive.
        sex: `M`, `F`, or None.
        age: In years, or None.
        view: `PA`, `AP`, or None.
        thorax: `(H', W')` bool mask over the image, of any size, or None.
    """

    name: str
    patient: str
    pixels: np.ndarray
    labels: np.ndarray
    boxes: Mapping[int, np.ndarray] = field(default_factory=dict)
    sex: str | None = None
    age: float | None = None
    view: str | None = None
    thorax: np.ndarray | None = None


class PhantomImages:
    """Synthetic phantoms with their exact boxes and thorax; reading one again gives the same image.

    Args:
        count: Number of images.
        split: `train`, `validation` or `test`: disjoint streams.
        seed: Seed of the set.
        size: Side of the images in pixels.
    """

    findings = FINDINGS

    def __init__(self, count: int, split: str = "test", seed: int = 0, size: int = 256):
        self.rows = PhantomRows(count, split, seed, size)
        self.fingerprint = f"phantoms {generator_fingerprint()} of {split}, seed {seed}, {size} pixels"
        self.names = [f"phantom-{split}-{seed}-{index}" for index in range(count)]
        self.patients = self.names

    def __len__(self) -> int:
        """Number of images."""
        return len(self.rows)

    def __getitem__(self, index: int) -> EvaluationImage:
        """Draw image `index`; each is a separate patient."""
        phantom = self.rows.phantom(index)
        return EvaluationImage(
            name=self.names[index],
            patient=self.names[index],
            pixels=phantom.image,
            labels=phantom.labels.astype(np.float64),
            boxes=_by_finding([FINDINGS.index(name) for name, _ in phantom.boxes], [box for _, box in phantom.boxes]),
            sex=phantom.sex,
            age=float(phantom.age),
            view=phantom.view,
            thorax=phantom.thorax,
        )


class RowImages:
    """Rows of a data set of [`open_source`] as images, with the labels, boxes and attributes of its columns.

    Args:
        rows: Map-style: `image` undecoded, `labels`, and optionally `patient_id`, `image_id`, `boxes` in a frame of
            side `BOX_FRAME` with `box_findings`, `sex`, `age`, `view`, `thorax_mask`. Without `patient_id` each image
            is one patient.
        findings: Names of the F labels.
    """

    def __init__(self, rows: Any, findings: Sequence[str]):
        self.rows, self.findings, self.fingerprint = rows, tuple(findings), _fingerprint(rows)
        named = "image_id" in getattr(rows, "column_names", ())
        self.names = list(rows["image_id"]) if named else [f"image-{index:06d}" for index in range(len(rows))]
        self.patients = list(rows["patient_id"]) if "patient_id" in getattr(rows, "column_names", ()) else self.names

    def __len__(self) -> int:
        """Number of images."""
        return len(self.rows)

    def __getitem__(self, index: int) -> EvaluationImage:
        """Read image `index`.

        Raises:
            OSError, ValueError: The image does not decode; the message names it.
        """
        row = self.rows[index]
        pixels = read_source(row["image"])
        height, width = pixels.shape
        scale = np.array([width, height] * 2) / BOX_FRAME
        boxes = _by_finding(row.get("box_findings") or [], row.get("boxes") or [])
        mask = read_mask(row.get("thorax_mask"))
        return EvaluationImage(
            name=self.names[index],
            patient=row.get("patient_id") or self.names[index],
            pixels=pixels,
            labels=np.asarray(row["labels"], dtype=np.float64),
            boxes={finding: found * scale for finding, found in boxes.items()},
            sex=row.get("sex"),
            age=row.get("age"),
            view=row.get("view"),
            thorax=None if mask is None else mask > 0,
        )


class AlignedImages:
    """Images with labels and boxes in a model's order of findings.

    A finding of the model that is not annotated is NaN; one that the model does not know is left out with a warning.

    Args:
        images: Images in their own order of findings.
        findings: Findings of the model.

    Raises:
        ValueError: The model knows none of the images' findings.
    """

    def __init__(self, images: PhantomImages | RowImages, findings: Sequence[str]):
        self.images, self.names, self.findings = images, images.names, tuple(findings)
        self.patients = images.patients
        self.fingerprint = f"{images.fingerprint} as {','.join(findings)}"
        self.places = {
            place: self.findings.index(name) for place, name in enumerate(images.findings) if name in self.findings
        }
        left_out = [name for name in images.findings if name not in self.findings]
        if not self.places:
            raise ValueError(
                f"`images` must have one of the model's findings, got {list(images.findings)}; the model has "
                f"{list(findings)}. Rename the findings, or choose another model."
            )
        if left_out:
            logger.warning("%s are not the model's findings and are left out.", ", ".join(left_out))

    def __len__(self) -> int:
        """Number of images."""
        return len(self.images)

    def __getitem__(self, index: int) -> EvaluationImage:
        """Read image `index`."""
        image = self.images[index]
        labels = np.full(len(self.findings), np.nan)
        labels[list(self.places.values())] = image.labels[list(self.places)]
        boxes = {self.places[place]: found for place, found in image.boxes.items() if place in self.places}
        return replace(image, labels=labels, boxes=boxes)


def open_images(
    data: str,
    split: str = "test",
    count: int | None = None,
    seed: int = 0,
    wanted: Sequence[str] | None = None,
    **options: Any,
) -> PhantomImages | RowImages | AlignedImages:
    """Open a data set to evaluate on.

    Args:
        data: `phantom`, or a folder, table or Hub id as for [`open_source`].
        split: `train`, `validation` or `test`.
        count: Number of images, the first ones; None for all, or 1,000 phantoms.
        seed: Seed of the phantoms.
        wanted: Findings of the model, whose order labels and boxes take, see [`AlignedImages`]; None keeps the data
            set's order.
        options: Fields of [`LabelOptions`] and [`ReadingOptions`], such as `findings` of a table or `validation_split`
            of a release.

    Raises:
        FileNotFoundError: There is no such data set.
        ValueError: `split` is unknown or has no images, or as for [`open_source`].
    """
    if split not in SPLITS:
        raise ValueError(f"`split` must be one of {list(SPLITS)}, got '{split}'. Choose one of them.")
    if count is not None and count < 1:
        raise ValueError(f"`count` must be at least 1, got {count}. Leave it out for all images.")
    images = PhantomImages(count or 1000, split, seed) if data == PHANTOM else _open_rows(data, split, count, options)
    return images if wanted is None or tuple(wanted) == images.findings else AlignedImages(images, wanted)


def _open_rows(data: str, split: str, count: int | None, options: Mapping[str, Any]) -> RowImages:
    labels = LabelOptions(**{name: options[name] for name in vars(LabelOptions()) if name in options})
    reading = ReadingOptions(**{name: value for name, value in options.items() if name not in vars(labels)})
    source = open_source(data, labels=labels, reading=reading)
    rows = source.splits()[split]
    if len(rows) == 0:
        filled = [name for name, part in source.splits().items() if len(part)]
        raise ValueError(
            f"`split` must be one with images, got '{split}' of {source.name}. It has {filled}: pass one of these "
            "(--split), or add a column `split`."
        )
    return RowImages(rows if count is None else rows.select(range(min(count, len(rows)))), source.findings)


def _fingerprint(rows: Any) -> str:
    """Hash of the columns of rows other than the images: 16 hexadecimal digits."""
    digest = hashlib.blake2b(str(BOX_FRAME).encode(), digest_size=8)
    columns = [name for name in _DESCRIBED if name in getattr(rows, "column_names", _DESCRIBED)]
    described = rows.select_columns(columns) if hasattr(rows, "select_columns") else rows
    for row in described:
        kept = {name: row[name] for name in columns if name in row}
        digest.update(json.dumps(kept, default=np.ndarray.tolist).encode())
    return digest.hexdigest()


def _by_finding(findings: Sequence[int], boxes: Sequence[Any]) -> dict[int, np.ndarray]:
    """Boxes `(m, 4)` by finding."""
    owners, corners = np.asarray(findings), np.asarray(boxes, dtype=np.float64)
    return {int(finding): corners[owners == finding] for finding in np.unique(owners)}


__getattr__ = old_names(__name__)
