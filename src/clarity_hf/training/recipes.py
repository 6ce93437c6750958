# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""What both training recipes share: options of the data, opening it, fitting and saving."""

from __future__ import annotations

import logging
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from transformers import Trainer, TrainingArguments
from transformers.integrations import get_reporting_integration_callbacks
from transformers.trainer_utils import PredictionOutput

from clarity_hf.data.sources import Source, open_sources
from clarity_hf.files import empty_folder, move_files

from .checkpoint_manifest import best_checkpoint, named_save_failures, require_whole
from .runs import drop_pickle, last_checkpoint, parse_arguments


@dataclass
class DataRecipe:
    """Which images are trained on, and how they are seen and measured.

    Each field of a recipe is an argument of its command line, whose help says what it is.
    """

    data_dir: list[str] = field(
        default_factory=lambda: ["phantom"],
        metadata={
            "help": "'phantom' for synthetic images without files, folders in the NIH release's layout, tables of own "
            "images, folders of images, Hub data sets."
        },
    )
    findings: list[str] | None = field(default=None, metadata={"help": "Columns of own labels; default: all."})
    validation_split: str | None = field(
        default=None,
        metadata={"help": "Committed list of a release's validation patients, such as nih-validation; else drawn."},
    )
    uncertain: Literal["nan", "negative", "positive"] = field(
        default="nan", metadata={"help": "What a label of -1 in own labels is read as."}
    )
    phantom_count: int = field(default=20_000, metadata={"help": "Phantoms per epoch."})
    finding_rate: float | None = field(
        default=None, metadata={"help": "Probability of each finding in a training phantom; default: as in NIH."}
    )
    finding_contrast: float = field(
        default=1.0,
        metadata={"help": "Training phantoms show their findings up to so many times as strongly; 1 to 4."},
    )
    image_repeats: int = field(
        default=1, metadata={"help": "How often an epoch sees images that are no phantoms, to weigh them more."}
    )
    augment: Literal["full", "flip", "none"] = field(
        default="full", metadata={"help": "Crops, rotations, exposure and flips; flips alone; or nothing."}
    )
    crop_scale: float = field(default=0.7, metadata={"help": "Smallest area of a random crop."})
    blur: float = field(
        default=0.0,
        metadata={
            "help": "Largest standard deviation of a random blur, in pixels of the input, with --augment full: "
            "against learning where an image was stored."
        },
    )
    image_cache: str | None = field(
        default=None, metadata={"help": "Folder that keeps images decoded, at the size of training: 64 KiB an image."}
    )
    verify: bool = field(
        default=False, metadata={"help": "Decode every image once before training and leave out the corrupt, by name."}
    )
    min_positives: int = field(default=20, metadata={"help": "Findings with fewer are not in the mean AUROC."})


def run_command(
    train: Callable[[Any, Any], Any],
    data_classes: Sequence[Any],
    defaults: Mapping[str, Any],
    words: Sequence[str] | None,
) -> None:
    """Train by the arguments of a command line, see [`parse_arguments`], and log to stdout.

    Raises:
        OSError: A file that an argument names is not there.
        ValueError: An argument is unknown or wrong.
    """
    recipe, args = parse_arguments(data_classes, defaults, words)
    logging.basicConfig(level=logging.INFO if args.should_log else logging.WARNING, stream=sys.stdout)
    train(recipe, args)


def require_reporters(args: TrainingArguments) -> None:
    """Refuse `report_to` at once if its package is missing; the Trainer would do so only after loading everything.

    Raises:
        ImportError: A package is missing.
    """
    for reporter in get_reporting_integration_callbacks(args.report_to):
        try:
            reporter()
        except (ImportError, RuntimeError) as error:
            raise ImportError(
                f"`report_to` must name what is installed, got {', '.join(args.report_to)}: {error} For tensorboard: "
                "pip install 'clarity_hf[curves]'."
            ) from error


def open_recipe_sources(recipe: DataRecipe, phantom_size: int, seed: int, **options: Any) -> dict[str, Source]:
    """The data sets of a recipe by name.

    Args:
        recipe: Options of the data.
        phantom_size: Side in pixels at which phantoms are drawn.
        seed: Seed of phantoms and of random splits.
        options: Further options of [`open_sources`], whose errors are raised.
    """
    return open_sources(
        recipe.data_dir,
        recipe.image_repeats,
        phantom_count=recipe.phantom_count,
        seed=seed,
        finding_rate=recipe.finding_rate,
        finding_contrast=recipe.finding_contrast,
        phantom_size=phantom_size,
        verify=recipe.verify,
        findings=recipe.findings,
        uncertain=recipe.uncertain,
        validation_split=recipe.validation_split,
        **options,
    )


def images_that_decide(validations: Mapping[str, Any], args: TrainingArguments) -> tuple[Any, Any]:
    """The Trainer's evaluation data, and the part of it from the last data set, by which the epoch is chosen.

    Each data set is measured separately: in a mixture, a model could score by telling the sources apart.

    Args:
        validations: Validation images by the name of their data set.
        args: Arguments of the Trainer. With several data sets, its metric for the best epoch becomes the last one's.

    Returns:
        The evaluation data, by name if there are several data sets, and the images of the last.
    """
    target, validation = list(validations.items())[-1]
    if len(validations) == 1:
        return validation, validation
    args.metric_for_best_model = f"{target}_{args.metric_for_best_model}"
    return validations, validation


def fit(trainer: Trainer, recipe: DataRecipe, validation: Any) -> PredictionOutput:
    """Train, resuming from the last checkpoint if this same run was stopped, and predict the validation images.

    Returns:
        Logits and labels `(n, F)` and the metrics on them, such as `validation_auroc`.

    Raises:
        OSError: A checkpoint could not be written.
        ValueError: The output folder belongs to another run, or the checkpoint to resume from or the best one so far
            is damaged.
    """
    described = asdict(recipe)
    described.pop("image_cache")  # it moves an image by half a grey value at most
    resume_from = trainer.args.resume_from_checkpoint or last_checkpoint(trainer.args, described)
    if resume_from:
        require_whole(resume_from)
        if trainer.args.load_best_model_at_end and (Path(resume_from) / "trainer_state.json").is_file():
            best = best_checkpoint(resume_from)
            if best is not None:
                require_whole(best)
        print(f"resuming from {resume_from}")
    with named_save_failures(trainer):
        trainer.train(resume_from_checkpoint=resume_from)
    return trainer.predict(validation, metric_key_prefix="validation")


def save_run(trainer: Trainer) -> None:
    """Leave the model, its image processor and the run's history in the output folder; every process calls this.

    Files are replaced atomically, so a run killed here leaves the previous ones. Nothing is pushed to the Hub yet,
    because the card is still missing.
    """
    folder = Path(trainer.args.output_dir)
    staging = folder / ".unfinished"
    if trainer.args.should_save:
        empty_folder(staging)
    trainer.accelerator.wait_for_everyone()
    trainer.save_model(str(staging), _internal_call=True)
    trainer.accelerator.wait_for_everyone()  # a sharded model is written by all
    if trainer.args.should_save:
        drop_pickle(staging)
        drop_pickle(folder)  # of an earlier version, or of the library's own save
        trainer.state.save_to_json(str(staging / "trainer_state.json"))
        move_files(staging, folder)
        shutil.rmtree(staging)


def push_run(trainer: Trainer) -> None:
    """Send the output folder, with its card, to the Hub where `push_to_hub` asks for it; every process calls this."""
    if trainer.args.push_to_hub:
        trainer.push_to_hub()
