# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""`clarity-hf evaluate`: a report on scores, boxes and maps against labels and annotated boxes."""

from enum import StrEnum
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
    published_command,
    published_word,
    warn_of_training,
    words_of,
)
from .spelling import NONE


class Baseline(StrEnum):
    """Methods to compare with: `BASELINES` of `clarity_hf.evaluation`, repeated here so that help does not load it."""

    RANDOM = "random"
    CAM = "cam"
    ATTENTION = "attention"
    ROLLOUT = "rollout"
    ATLAS = "atlas"
    GRADCAM = "gradcam"
    GRADCAMPP = "gradcam++"
    NONE = NONE


def evaluate(
    context: typer.Context,
    model: ModelArgument,
    data: DataArgument,
    output_dir: Annotated[Path, typer.Option(help="Folder for the report.")] = Path("runs/evaluation"),
    split: Annotated[
        Literal["train", "validation", "test"], typer.Option(help="Split of the images.")
    ] = "test",
    validation_split: ValidationSplitOption = None,
    uncertain: UncertainOption = "nan",
    empty: EmptyOption = "nan",
    images: Annotated[int | None, typer.Option(help="Use only the first images; 1,000 phantoms by default.")] = None,
    baselines: Annotated[
        list[Baseline] | None,
        typer.Option("--baselines", "--baseline", help="Methods to compare with, one or several; random by default."),
    ] = None,
    teacher: Annotated[str | None, typer.Option(help="Classifier for the Grad-CAM baselines.")] = None,
    sanity_images: Annotated[int, typer.Option(help="Images for deletion, insertion and random weights.")] = 0,
    tuning_split: Annotated[str | None, typer.Option(help="Committed list of patients to tune on.")] = None,
    min_positives: Annotated[int, typer.Option(help="Findings with fewer positives are left out of means.")] = 20,
    repeats: Annotated[int, typer.Option(help="Bootstrap resamples, by patient.")] = 1000,
    seed: Annotated[int, typer.Option(help="Seed of phantoms, bootstrap, splits and random maps.")] = 0,
    cases: Annotated[bool, typer.Option(help="Show example images in the report.")] = True,
    batch_size: BatchSizeOption = 16,
    workers: WorkersOption = 0,
    device: DeviceOption = "auto",
) -> None:
    """Evaluate a checkpoint and write a report for the browser. Needs the extra report."""
    from clarity_hf.data.sources import PHANTOM
    from clarity_hf.evaluation.images import open_images
    from clarity_hf.reporting.run import evaluate_checkpoint

    loaded, image_processor = load(model, device)
    opened = open_images(
        data,
        split,
        images,
        seed,
        wanted=loaded.config.findings,
        validation_split=validation_split,
        uncertain=uncertain,
        empty=empty,
    )
    warn_of_training(model, opened.patients)
    about = {
        "model": published_word(model),
        "data": published_word(data),
        "split": split,
        "synthetic": data == PHANTOM,
        "command": published_command(context.command_path, words_of(context)),
    }
    path = evaluate_checkpoint(
        loaded,
        image_processor,
        opened,
        output_dir,
        about,
        baselines=[baseline.value for baseline in baselines or [Baseline.RANDOM] if baseline is not Baseline.NONE],
        teacher=teacher,
        sanity_images=sanity_images,
        tuning_split=tuning_split,
        batch_size=batch_size,
        num_workers=workers,
        repeats=repeats,
        min_positives=min_positives,
        seed=seed,
        draw_cases=cases,
    )
    print(f"wrote {path}")
