# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""What both training recipes share: data options, opening data sets, fitting and saving."""

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

from clarity_hf.data.label_columns import LabelOptions
from clarity_hf.data.sources import PhantomOptions, ReadingOptions, Source, open_sources
from clarity_hf.data.transforms import ImageTransform, PriorSource, TransformedDataset
from clarity_hf.evaluation.trainer_metrics import MultilabelAuroc
from clarity_hf.files import move_files
from clarity_hf.image_processing_clarity import ClarityImageProcessor

from .arguments import option, parse_arguments
from .checkpoint_manifest import best_checkpoint, drop_pickle, last_checkpoint, named_save_failures, require_intact


@dataclass
class DataRecipe:
    """Which images are trained on, and how they are read, augmented and measured.

    The fields of a recipe are the arguments of its command line, each with its help.
    """

    data_dir: list[str] = field(
        default_factory=lambda: ["phantom"],
        metadata={
            "help": "'phantom' for synthetic images without files, folders in the NIH release's layout, tables of own "
            "images, folders of images, Hub data sets."
        },
    )
    findings: list[str] | None = field(default=None, metadata={"help": "Columns of your own labels; default: all."})
    validation_split: str | None = option(
        None, "Committed list of a release's validation patients, such as nih-validation; default: drawn."
    )
    uncertain: Literal["nan", "negative", "positive"] = option("nan", "How -1 in your own labels is read.")
    empty: Literal["nan", "negative"] = option("nan", "How an empty cell in your own labels is read.")
    phantom_count: int = option(20_000, "Phantoms per epoch.")
    finding_rate: float | None = option(None, "Probability of each finding in a training phantom; default: as in NIH.")
    finding_contrast: float = option(1.0, "Largest contrast of findings in training phantoms; 1 to 4.")
    image_repeats: int = option(1, "How often an epoch sees images other than phantoms, to weigh them more.")
    augment: Literal["full", "flip", "none"] = option(
        "full", "Crops, rotations, exposure and flips; flips alone; or nothing."
    )
    crop_scale: float = option(0.7, "Smallest area of a random crop.")
    blur: float = option(
        0.0,
        "Largest standard deviation of a random blur, in pixels of the input, with --augment full, so that sharpness "
        "does not give away the source of an image.",
    )
    image_cache: str | None = option(
        None, "Folder that keeps images decoded, at the size of training: 64 KiB per image."
    )
    verify: bool = option(False, "Decode every image before training and drop corrupt ones, by name.")
    min_positives: int = option(20, "Findings with fewer positives are not in the mean AUROC.")


def run_command(
    train: Callable[[Any, Any], Any],
    data_classes: Sequence[Any],
    defaults: Mapping[str, Any],
    words: Sequence[str] | None,
) -> None:
    """Train with the arguments of a command line, see [`parse_arguments`], and log to stdout."""
    recipe, args = parse_arguments(data_classes, defaults, words)
    logging.basicConfig(level=logging.INFO if args.should_log else logging.WARNING, stream=sys.stdout)
    train(recipe, args)


def require_reporters(args: TrainingArguments) -> None:
    """Raise ImportError if a package of `report_to` is missing; the Trainer would do so after loading everything."""
    for reporter in get_reporting_integration_callbacks(args.report_to):
        try:
            reporter()
        except (ImportError, RuntimeError) as error:
            raise ImportError(
                f"`report_to` must name what is installed, got {', '.join(args.report_to)}: {error} For tensorboard: "
                "pip install 'clarity_hf[curves]'."
            ) from error


def open_recipe_sources(recipe: DataRecipe, phantom_size: int, seed: int, **reading: Any) -> dict[str, Source]:
    """The data sets of a recipe by name, phantoms `phantom_size` pixels wide; errors are those of [`open_sources`].

    `reading` are further [`ReadingOptions`].
    """
    return open_sources(
        recipe.data_dir,
        recipe.image_repeats,
        PhantomOptions(recipe.phantom_count, seed, phantom_size, recipe.finding_rate, recipe.finding_contrast),
        LabelOptions(recipe.findings, recipe.uncertain, recipe.empty),
        ReadingOptions(validation_split=recipe.validation_split, verify=recipe.verify, **reading),
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
        sources: Data sets by name; the epoch is chosen on the last.
        images: Training rows before the transform, map-style or a stream.
        augmented, plain: Transforms of training and of validation images.
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
        """Arguments of a Trainer on these data; with several data sets, `args` choose the epoch by the last.

        Raises ValueError if a data set has no validation images.
        """
        for name, source in self.sources.items():
            if hasattr(source.validation, "__len__") and not len(source.validation):
                raise ValueError(
                    f"`data_dir` must leave images for validation, got none of {len(source.train)} in {name}. Add "
                    "patients, or a column `split` with `validation` in it."
                )
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
    """The Trainer's evaluation data; with several data sets, its metric for the best epoch becomes that of the last.

    Each data set is measured separately: in a mixture, a model could score by distinguishing the sources.
    """
    target, validation = list(validations.items())[-1]
    if len(validations) == 1:
        return validation
    args.metric_for_best_model = f"{target}_{args.metric_for_best_model}"
    return validations


def fit(trainer: Trainer, recipe: DataRecipe) -> PredictionOutput:
    """Train, resuming from the last checkpoint of the same run, and predict the last data set.

    Returns:
        Logits and labels `(n, F)` of its validation images and their metrics, such as `validation_auroc`.

    Raises:
        OSError: A checkpoint could not be written.
        ValueError: The output folder belongs to another run, or the checkpoint to resume from or the best one is
            damaged.
    """
    described = asdict(recipe)
    described.pop("image_cache")  # it changes an image by half a grey value at most
    resume_from = trainer.args.resume_from_checkpoint or last_checkpoint(trainer.args, described)
    if resume_from:
        require_intact(resume_from)
        if trainer.args.load_best_model_at_end and (Path(resume_from) / "trainer_state.json").is_file():
            best = best_checkpoint(resume_from)
            if best is not None:
                require_intact(best)
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
    """Save model, image processor, history and card in the output folder, and push it if the arguments say so.

    Files are replaced atomically, so a killed run leaves the previous ones. Every process calls this. `write_card`
    writes the card beside the model, in the first process only, and returns what to print at the end.
    """
    folder = Path(trainer.args.output_dir)
    staging = folder / ".unfinished"
    if trainer.args.should_save:
        if staging.exists():  # of a killed run
            shutil.rmtree(staging)
        staging.mkdir(parents=True)
    trainer.accelerator.wait_for_everyone()
    trainer.save_model(str(staging), _internal_call=True)  # nothing is pushed before the card is written
    trainer.accelerator.wait_for_everyone()  # a sharded model is written by all
    if trainer.args.should_save:
        drop_pickle(staging)
        drop_pickle(folder)  # from an earlier version, or from the library's own save
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
