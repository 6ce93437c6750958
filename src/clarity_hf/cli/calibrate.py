# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""`clarity-hf calibrate`: fit probabilities and thresholds on validation images."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from .common import (
    BatchSizeOption,
    DataArgument,
    DeviceOption,
    EmptyOption,
    ModelArgument,
    UncertainOption,
    ValidationSplitOption,
    WorkersOption,
    load,
    warn_of_training,
)


def calibrate(
    model: ModelArgument,
    data: DataArgument,
    output_dir: Annotated[Path, typer.Option(help="Folder for the calibrated model.")] = Path("runs/calibrated"),
    split: Annotated[Literal["train", "validation"], typer.Option(help="Split of the images.")] = "validation",
    validation_split: ValidationSplitOption = None,
    uncertain: UncertainOption = "nan",
    empty: EmptyOption = "nan",
    images: Annotated[int | None, typer.Option(help="Use only the first images.")] = None,
    rule: Annotated[
        Literal["youden", "sensitivity", "f1"], typer.Option(help="Rule for score thresholds.")
    ] = "youden",
    sensitivity: Annotated[float, typer.Option(help="Target sensitivity of --rule sensitivity.")] = 0.9,
    min_positives: Annotated[int, typer.Option(help="Findings with fewer positives keep their calibration.")] = 5,
    min_boxes: Annotated[int, typer.Option(help="Findings with fewer boxes are rare.")] = 10,
    rare: Annotated[
        Literal["pooled", "kept"] | None,
        typer.Option(
            help="Map threshold of rare findings: that of all boxes, or its own; by default its own where the model's "
            "map thresholds were fitted."
        ),
    ] = None,
    false_boxes: Annotated[
        float | None,
        typer.Option(help="Largest share of normal images with a box; by default the model's thresholds stay."),
    ] = None,
    batch_size: BatchSizeOption = 16,
    workers: WorkersOption = 0,
    device: DeviceOption = "auto",
) -> None:
    """Calibrate a checkpoint on validation images and save it; report on other images afterwards.

    Prints the values chosen for each finding, and how well such a calibration works on unseen images: fitted on one
    half of the patients, measured on the other, and vice versa.
    """
    from clarity_hf.evaluation import calibration
    from clarity_hf.evaluation.run import RunSettings, calibration_records
    from clarity_hf.export.calibrated_checkpoint import save_calibrated
    from clarity_hf.files import published_name

    loaded, image_processor = load(model, device)
    run = RunSettings(batch_size, workers)
    reading = {"validation_split": validation_split, "uncertain": uncertain, "empty": empty}
    records = calibration_records(loaded, image_processor, data, output_dir, split, count=images, run=run, **reading)
    warn_of_training(model, [record.patient for record in records])
    # Before the config changes: both undo the calibration that it has now, with which the records were scored.
    unseen = calibration.cross_fitted(
        loaded.config, records, rule, sensitivity, min_positives, false_box_share=false_boxes
    )
    rare = rare or ("kept" if isinstance(loaded.config.map_thresholds, list | tuple) else "pooled")
    found = calibration.calibrate(
        loaded.config, records, rule, sensitivity, min_positives, min_boxes, rare, false_boxes
    )
    on = f"{len(records)} {split} images"
    about = f"{on} of {published_name(data)}"
    print(save_calibrated(model, loaded, image_processor, output_dir, found, unseen, about))
    if len(found.kept_scores) == loaded.config.num_labels:
        print(
            f"warning: no finding has {min_positives} images with it and {min_positives} without: all keep their "
            "scores. Calibrate on more images; a table's column `split` says which."
        )
    print(f"saved {output_dir}: calibration on {on}")
