# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""What both training recipes share: options of the data, opening it, fitting and saving."""

from __future__ import annotations

import logging
import math
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from transformers import PreTrainedModel, Trainer, TrainingArguments
from transformers.integrations import get_reporting_integration_callbacks
from transformers.trainer_utils import PredictionOutput

from clarity_hf.data.sources import Source, open_sources
from clarity_hf.data.transforms import ImageTransform, PriorSource, TransformedDataset
from clarity_hf.evaluation.trainer_metrics import MultilabelAuroc
from clarity_hf.files import empty_folder, move_files
from clarity_hf.image_processing_clarity import ClarityImageProcessor

from .arguments import option, parse_arguments
from .checkpoint_manifest import best_checkpoint, drop_pickle, last_checkpoint, named_save_failures, require_whole


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
    validation_split: str | None = option(
        None, "Committed list of a release's validation patients, such as nih-validation; else drawn."
    )
    uncertain: Literal["nan", "negative", "positive"] = option("nan", "What a label of -1 in own labels is read as.")
    phantom_count: int = option(20_000, "Phantoms per epoch.")
    finding_rate: float | None = option(None, "Probability of each finding in a training phantom; default: as in NIH.")
    finding_contrast: float = option(
        1.0, "Training phantoms show their findings up to so many times as strongly; 1 to 4."
    )
    image_repeats: int = option(1, "How often an epoch sees images that are no phantoms, to weigh them more.")
    augment: Literal["full", "flip", "none"] = option(
        "full", "Crops, rotations, exposure and flips; flips alone; or nothing."
    )
    crop_scale: float = option(0.7, "Smallest area of a random crop.")
    blur: float = option(
        0.0,
        "Largest standard deviation of a random blur, in pixels of the input, with --augment full: against learning "
        "where an image was stored.",
    )
    image_cache: str | None = option(
        None, "Folder that keeps images decoded, at the size of training: 64 KiB an image."
    )
    verify: bool = option(False, "Decode every image once before training and leave out the corrupt, by name.")
    min_positives: int = option(20, "Findings with fewer are not in the mean AUROC.")


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
    """The data sets of a recipe by name, phantoms `phantom_size` pixels wide; errors are those of [`open_sources`]."""
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


def augmented_transform(
    recipe: DataRecipe, processor: ClarityImageProcessor, prior: PriorSource, draw_rate: float = 0.0
) -> ImageTransform:
    """The transform of a recipe's training images."""
    return ImageTransform(
        processor, recipe.augment, recipe.crop_scale, prior, recipe.image_cache, recipe.blur, draw_rate
    )


@dataclass(frozen=True)
class RecipeData:
    """The data of a recipe, opened.

    Args:
        sources: Data sets by name; the epoch is chosen by the last.
        images: Training rows before the transform, map-style or a stream.
        augmented: The transform of training images.
        plain: The transform of validation images.
        transformed: Class of the transformed rows.
    """

    sources: dict[str, Source]
    images: Any
    augmented: ImageTransform
    plain: ImageTransform
    transformed: Any = TransformedDataset

    @property
    def findings(self) -> tuple[str, ...]:
        """Names of the findings, in the order of the labels."""
        return next(iter(self.sources.values())).findings

    def trainer_arguments(
        self, model: PreTrainedModel, args: TrainingArguments, processor: ClarityImageProcessor, min_positives: int
    ) -> dict[str, Any]:
        """Arguments of a Trainer on these data; with several data sets, `args` choose the epoch by the last."""
        validations = {name: self.transformed(source.validation, self.plain) for name, source in self.sources.items()}
        return {
            "model": model,
            "args": args,
            "train_dataset": self.transformed(self.images, self.augmented, args.seed),
            "eval_dataset": images_that_decide(validations, args),
            "processing_class": processor,
            "compute_metrics": MultilabelAuroc(self.findings, min_positives).of_prediction,
        }


def images_that_decide(validations: Mapping[str, Any], args: TrainingArguments) -> Any:
    """The Trainer's evaluation data; with several data sets, its metric for the best epoch becomes the last one's.

    Each data set is measured separately: in a mixture, a model could score by telling the sources apart.
    """
    target, validation = list(validations.items())[-1]
    if len(validations) == 1:
        return validation
    args.metric_for_best_model = f"{target}_{args.metric_for_best_model}"
    return validations


def fit(trainer: Trainer, recipe: DataRecipe) -> PredictionOutput:
    """Train, resuming from the last checkpoint if this same run was stopped, and predict the last data set.

    Returns:
        Logits and labels `(n, F)` of its validation images and the metrics on them, such as `validation_auroc`.

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
    validation: Any = trainer.eval_dataset
    if isinstance(validation, dict):
        validation = list(validation.values())[-1]
    return trainer.predict(validation, metric_key_prefix="validation")


def save_run(
    trainer: Trainer, recipe: DataRecipe, prediction: PredictionOutput, write_card: Callable[[], str]
) -> None:
    """Leave model, image processor, history and card in the output folder, and push it where the arguments say so.

    Files are replaced atomically, so a run killed here leaves the previous ones. Every process calls this.
    `write_card` writes the card beside the model, in the first process alone, and returns what to print at the end.
    """
    folder = Path(trainer.args.output_dir)
    staging = folder / ".unfinished"
    if trainer.args.should_save:
        empty_folder(staging)
    trainer.accelerator.wait_for_everyone()
    trainer.save_model(str(staging), _internal_call=True)  # nothing is pushed before the card is there
    trainer.accelerator.wait_for_everyone()  # a sharded model is written by all
    if trainer.args.should_save:
        drop_pickle(staging)
        drop_pickle(folder)  # of an earlier version, or of the library's own save
        trainer.state.save_to_json(str(staging / "trainer_state.json"))
        move_files(staging, folder)
        shutil.rmtree(staging)
    note = write_card() if trainer.is_world_process_zero() else ""
    if trainer.args.push_to_hub:
        trainer.push_to_hub()
    if trainer.is_world_process_zero():
        auroc, images = prediction.metrics["validation_auroc"], len(prediction.label_ids)
        if math.isnan(auroc):
            print(
                f"warning: no finding has {recipe.min_positives} positives and a negative among the {images} "
                "validation images (--min_positives): no epoch could be chosen by AUROC, and the weights are those of "
                "the last step."
            )
        print(f"saved {trainer.args.output_dir}: validation AUROC {auroc:.3f} ({images} images){note}")
    trainer.accelerator.end_training()
