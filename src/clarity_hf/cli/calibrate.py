# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""`clarity-hf calibrate`: scores as probabilities, and thresholds, from validation films."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from .common import load


class Rule(StrEnum):
    """How a score threshold is chosen."""

    YOUDEN = "youden"
    SENSITIVITY = "sensitivity"
    F1 = "f1"


class Split(StrEnum):
    """Splits to calibrate on; the test split chooses nothing."""

    TRAIN = "train"
    VALIDATION = "validation"


class Rare(StrEnum):
    """Map threshold of a finding with few boxes."""

    POOLED = "pooled"
    KEPT = "kept"


def calibrate(
    model: Annotated[str, typer.Argument(help="Packaged name, folder or Hub id.")],
    data: Annotated[str, typer.Argument(help="'phantom', a folder, a table or a Hub id.")],
    output_dir: Annotated[Path, typer.Option(help="Folder of the calibrated model.")] = Path("runs/calibrated"),
    split: Annotated[Split, typer.Option(help="Of the films.")] = Split.VALIDATION,
    validation_split: Annotated[str | None, typer.Option(help="Committed list, such as nih-validation.")] = None,
    films: Annotated[int | None, typer.Option(help="Only the first films.")] = None,
    rule: Annotated[Rule, typer.Option(help="For score thresholds.")] = Rule.YOUDEN,
    sensitivity: Annotated[float, typer.Option(help="To be reached with --rule sensitivity.")] = 0.9,
    min_positives: Annotated[int, typer.Option(help="With fewer a finding keeps its calibration.")] = 5,
    min_boxes: Annotated[int, typer.Option(help="With fewer a finding is rare.")] = 10,
    rare: Annotated[Rare, typer.Option(help="A rare finding's map threshold: of all, or its own.")] = Rare.POOLED,
    batch_size: Annotated[int, typer.Option(help="Films per forward pass.")] = 16,
    workers: Annotated[int, typer.Option(help="Processes that read films ahead.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")] = "auto",
) -> None:
    """Calibrate a checkpoint on validation films and save it; report on other films afterwards."""
    from clarity_hf.evaluation import calibration
    from clarity_hf.evaluation.checkpoint import calibration_records

    loaded, image_processor = load(model, device)
    records = calibration_records(
        loaded, image_processor, data, output_dir, split.value, validation_split, films, batch_size, workers
    )
    found = calibration.calibrate(
        loaded.config, records, rule.value, sensitivity, min_positives, min_boxes, rare.value
    )
    loaded.save_pretrained(output_dir)
    image_processor.save_pretrained(output_dir)
    for place, finding in enumerate(loaded.config.findings):
        kept = " (kept)" if place in found.kept_scores else ""
        print(
            f"{finding:<20} {found.positives[place]:5} positives, score threshold "
            f"{found.score_thresholds[place]:.3f}{kept}, map threshold {found.map_thresholds[place]:.2f}"
        )
    print(f"saved {output_dir}: calibration on {len(records)} {split.value} films")
