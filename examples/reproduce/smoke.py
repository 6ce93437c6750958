# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""What `--smoke` puts in place of the release, of published weights and of long runs, so that nothing is fetched."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from rows import Row, changed
from transformers import ConvNextV2Config, ConvNextV2ForImageClassification, ViTConfig, ViTModel

from clarity_hf.data.nih import (
    BOX_LISTS,
    MASKS_FOLDER,
    TABLES,
    TEST_LIST,
    TRAIN_VALIDATION_LIST,
    NihImage,
    read_nih_tables,
    split_images,
)
from clarity_hf.phantoms import write_phantoms

PHANTOMS = 120
IMAGES = {"train": 48, "validation": 24, "test": 24}
"""Images of each split that a smoke test takes of a release."""

SIDES = {224: 64, 512: 96}
"""Side of the input in a smoke test, by that of the row."""

ENCODER = {"hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 3, "intermediate_size": 96}
SHORT = {
    "per_device_train_batch_size": 4,
    "gradient_accumulation_steps": 2,
    "per_device_eval_batch_size": 16,
    "max_steps": 4,
    "eval_strategy": "steps",
    "eval_steps": 2,
    "save_strategy": "steps",
    "save_steps": 2,
    "logging_steps": 1,
    "dataloader_num_workers": 0,
    "min_positives": 1,
}
"""Four steps, evaluated twice, so that there is an epoch to pick."""


def short_row(row: Row, start: Path) -> dict[str, Any]:
    """The arguments of a row for a smoke test: the same ones, but few steps, small images and small random weights.

    Args:
        row: Of the table.
        start: Folder of [`write_start`].
    """
    small: dict[str, Any] = SHORT | {"image_size": SIDES[row.arguments["image_size"]]}
    small["validation_split"] = None  # a list of the release's patients: phantoms are none, few images have few
    if row.script == "train_teacher.py":
        small["model"] = str(start / "convnextv2")
    elif "init" in row.arguments:
        small["init"] = str(start / "dino")
    else:
        small["config"] = ENCODER
    return changed(row.arguments, small)


def write_start(folder: Path) -> None:
    """Random weights in the layout of DINO's (`dino/`) and of ConvNeXtV2's (`convnextv2/`), where they are missing."""
    if not (folder / "dino" / "model.safetensors").is_file():
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            ViTModel(ViTConfig(**ENCODER, image_size=32), add_pooling_layer=False).save_pretrained(folder / "dino")
    if not (folder / "convnextv2" / "model.safetensors").is_file():
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            config = ConvNextV2Config(hidden_sizes=[8, 16, 32, 64], depths=[1] * 4, image_size=32, num_labels=10)
            ConvNextV2ForImageClassification(config).save_pretrained(folder / "convnextv2")


def write_images(folder: Path, data_dir: Path | None) -> None:
    """A few images in the layout of the release, where they are missing: of a release, or else phantoms.

    Args:
        folder: Where to.
        data_dir: A release, whose images and masks are linked to; None for phantoms.
    """
    if (folder / TRAIN_VALIDATION_LIST).is_file():  # written last
        return
    if data_dir is None:
        write_phantoms(folder, PHANTOMS, size=128)
        return
    images, _ = read_nih_tables(data_dir)
    taken = {image.image_id: image for image in few_images(images)}
    (folder / "images").mkdir(parents=True, exist_ok=True)
    for image in taken.values():
        _link(image.path, folder / "images")
        _link(image.mask_path, folder / MASKS_FOLDER)
    tables = [path for path in (data_dir / name for name in TABLES) if path.is_file()][:1]
    for path in [*tables, *sorted(data_dir.glob(BOX_LISTS))]:
        _copy_rows(path, folder / path.name, taken)
    for name in (TEST_LIST, TRAIN_VALIDATION_LIST):
        if (data_dir / name).is_file():
            listed = (data_dir / name).read_text(encoding="utf-8-sig").split()
            kept = [line for line in listed if Path(line).stem in taken]
            (folder / name).write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")


def few_images(images: Iterable[NihImage]) -> list[NihImage]:
    """As many images as `IMAGES` says of each split, those with boxes first."""
    splits = split_images(images)
    return [image for name, count in IMAGES.items() for image in sorted(splits[name], key=_without_boxes)[:count]]


def _without_boxes(image: NihImage) -> bool:
    return not image.boxes


def _link(path: str | None, folder: Path) -> None:
    if path is None:
        return
    folder.mkdir(exist_ok=True)
    link = folder / Path(path).name
    link.unlink(missing_ok=True)
    link.symlink_to(path)


def _copy_rows(source: Path, target: Path, taken: Iterable[str]) -> None:
    """Copy a table's header and the rows whose first cell names one of the images."""
    with source.open(newline="", encoding="utf-8-sig") as file:
        header, *rows = [row for row in csv.reader(file) if row]
    with target.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *(row for row in rows if Path(row[0]).stem in taken)])
