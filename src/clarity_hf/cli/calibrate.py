# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""`clarity-hf calibrate`: scores as probabilities, and thresholds, from validation images."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from .common import (
    BatchSizeOption,
    DataArgument,
    DeviceOption,
    ModelArgument,
    ValidationSplitOption,
    WorkersOption,
    load,
)


class Rule(StrEnum):
    """How a score threshold is chosen."""

    YOUDEN = "youden"
    SENSITIVITY = "sensitivity"
    F1 = "f1"


class CalibrationSplit(StrEnum):
    """Splits to calibrate on; the test split chooses nothing."""

    TRAIN = "train"
    VALIDATION = "validation"


class Rare(StrEnum):
    """Map threshold of a finding with few boxes."""

    POOLED = "pooled"
    KEPT = "kept"


def calibrate(
    model: ModelArgument,
    data: DataArgument,
    output_dir: Annotated[Path, typer.Option(help="Folder of the calibrated model.")] = Path("runs/calibrated"),
    split: Annotated[CalibrationSplit, typer.Option(help="Of the images.")] = CalibrationSplit.VALIDATION,
    validation_split: ValidationSplitOption = None,
    images: Annotated[int | None, typer.Option(help="Only the first images.")] = None,
    rule: Annotated[Rule, typer.Option(help="For score thresholds.")] = Rule.YOUDEN,
    sensitivity: Annotated[float, typer.Option(help="To be reached with --rule sensitivity.")] = 0.9,
    min_positives: Annotated[int, typer.Option(help="With fewer a finding keeps its calibration.")] = 5,
    min_boxes: Annotated[int, typer.Option(help="With fewer a finding is rare.")] = 10,
    rare: Annotated[Rare, typer.Option(help="A rare finding's map threshold: of all, or its own.")] = Rare.POOLED,
    false_boxes: Annotated[float | None, typer.Option(help="Share of normal images that may have a box.")] = None,
    batch_size: BatchSizeOption = 16,
    workers: WorkersOption = 0,
    device: DeviceOption = "auto",
) -> None:
    """Calibrate a checkpoint on validation images and save it; report on other images afterwards.

    Printed are what each finding was given, and what such a calibration reaches on images that it has not seen: fitted
    on one half of the patients, measured on the other, and the other way round.
    """
    from clarity_hf.evaluation import calibration
    from clarity_hf.evaluation.run import RunSettings, calibration_records
    from clarity_hf.export.calibrated_checkpoint import save_calibrated
    from clarity_hf.files import published_name

    loaded, image_processor = load(model, device)
    run = RunSettings(batch_size, workers)
    records = calibration_records(
        loaded, image_processor, data, output_dir, split.value, validation_split, images, run
    )
    # Before the config changes: the records' scores are of the calibration that it has now, which both undo.
    unseen = calibration.cross_fitted(loaded.config, records, rule.value, sensitivity, min_positives)
    found = calibration.calibrate(
        loaded.config, records, rule.value, sensitivity, min_positives, min_boxes, rare.value, false_boxes
    )
    on = f"{len(records)} {split.value} images"
    about = f"{on} of {published_name(data)}"
    print(save_calibrated(model, loaded, image_processor, output_dir, found, unseen, about))
    print(f"saved {output_dir}: calibration on {on}")
