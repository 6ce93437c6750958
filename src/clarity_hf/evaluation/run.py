# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Run a model, its baselines and the sanity checks of its maps over the same images, for a report."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from clarity_hf.boxes import map_over_image
from clarity_hf.files import published_name
from clarity_hf.fingerprints import describe_model, weights_digest
from clarity_hf.image_processing_clarity import ClarityImageProcessor
from clarity_hf.metrics.localization import BoxSettings
from clarity_hf.metrics.records import ImageRecord
from clarity_hf.modeling_clarity import ClarityForMultiLabelLocalization

from .baselines import (
    GRAD_CAM_NAMES,
    AtlasSuppressionLocalizer,
    AttentionRolloutLocalizer,
    GradCamLocalizer,
    RandomMapLocalizer,
    with_map_fusion,
)
from .evaluator import Evaluation, EvaluationImages, evaluate_images
from .images import open_images
from .localizers import Localizer, ModelLocalizer
from .sanity import PerturbationCurves, RandomisedStage, deletion_insertion, randomised_weights

BASELINES = ("random", "cam", "attention", "rollout", "atlas", "gradcam", "gradcam++")
"""Methods to compare the model with; the last two need a classifier, the teacher."""

BASELINE_MAP_THRESHOLD = 0.5
"""Map threshold of a baseline's own boxes; the tables compare boxes tuned for every method."""


@dataclass(frozen=True)
class RunSettings:
    """How images pass through a method.

    Attributes:
        batch_size: Images per forward pass.
        num_workers: Processes that read images ahead; 0 reads them in this process.
        progress: Whether to show progress bars.
        seed: Seed of random maps and random weights.
    """

    batch_size: int = 16
    num_workers: int = 0
    progress: bool = True
    seed: int = 0


@dataclass(frozen=True)
class SanityChecks:
    """Checks of a model's maps that need further forward passes.

    Attributes:
        perturbations: Deletion and insertion curves by finding, by the name of the method that gave the maps: the
            model, and random maps to compare with.
        randomised: Similarity of the maps to the original ones as weights are randomised from the heads down.
    """

    perturbations: dict[str, dict[int, PerturbationCurves]]
    randomised: list[RandomisedStage]


@dataclass(frozen=True)
class CheckpointEvaluation:
    """A model and its baselines, evaluated on the same images.

    Attributes:
        findings: Names of the F findings.
        settings: Thresholds of the model's config.
        source: Hashes of weights, config and preprocessing, with the names of data and split.
        model: Records of the model, and the images that could not be read.
        baselines: The same for each baseline, by its name in tables.
        sanity: None if not requested, or no image has a present finding.
    """

    findings: tuple[str, ...]
    settings: BoxSettings
    source: dict[str, Any]
    model: Evaluation
    baselines: dict[str, Evaluation]
    sanity: SanityChecks | None


def evaluate_methods(
    model: ModelLocalizer,
    baselines: Mapping[str, Localizer],
    images: EvaluationImages,
    folder: str | Path,
    about: Mapping[str, Any],
    *,
    sanity_images: int = 0,
    run: RunSettings | None = None,
) -> CheckpointEvaluation:
    """Evaluate a model and its baselines on the same images; an interrupted run resumes.

    Args:
        model: The model to evaluate.
        baselines: Methods to compare it with, see [`make_baselines`].
        images: As for [`evaluate_images`].
        folder: Where the records are written, one file per method. They name images and patients.
        about: At least `data` and `split`, names that a reader may see; both are stored with the records.
        sanity_images: How many images, the first with a present finding, are used for deletion, insertion and
            randomised weights, which cost 84 forward passes per present finding and 16 per image; 0 skips them.
        run: Batch size, workers, progress bars and seed; None for the defaults.

    Raises:
        ValueError: As for [`evaluate_images`].
    """
    run, folder = run or RunSettings(), Path(folder)
    settings = BoxSettings.of_config(model.model.config)
    source = describe_model(model.model, model.image_processor) | {"data": about["data"], "split": about["split"]}

    def records_of(name: str, localizer: Localizer, own: BoxSettings, of: dict[str, Any]) -> Evaluation:
        wanted = "annotated" if isinstance(localizer, GradCamLocalizer) else "all"
        reading = {"batch_size": run.batch_size, "num_workers": run.num_workers, "progress": run.progress}
        return evaluate_images(localizer, images, own, folder / f"{name}.jsonl", of, maps=wanted, **reading)  # type: ignore[arg-type]

    evaluation = records_of("clarity", model, settings, source)
    compared = {}
    for name, localizer in baselines.items():
        own = replace(settings, map_thresholds=[BASELINE_MAP_THRESHOLD] * len(localizer.findings))
        of = source | {"seed": run.seed}
        if isinstance(localizer, GradCamLocalizer):
            of["classifier"] = weights_digest(localizer.classifier)
        compared[localizer.name] = records_of(name, localizer, own, of)
    sanity = check_maps(model, evaluation.records, images, sanity_images, run)
    return CheckpointEvaluation(model.findings, settings, source, evaluation, compared, sanity)


def make_baselines(
    names: Sequence[str], model: ModelLocalizer, teacher: str | None = None, seed: int = 0
) -> dict[str, Localizer]:
    """Methods to compare a model with, by their names in `BASELINES`.

    Args:
        names: From `BASELINES`.
        model: The model, whose weights, scores and findings the methods use.
        teacher: Folder or Hub id of the classifier of Grad-CAM, with an image processor.
        seed: Seed of random maps.

    Raises:
        ValueError: A name is unknown, or Grad-CAM is requested without `teacher`.
        ImportError: A baseline's library is not installed; the message names the extra.
    """
    unknown = sorted(set(names) - set(BASELINES))
    if unknown:
        raise ValueError(f"`baselines` must be among {list(BASELINES)}, got {unknown}. Leave them out.")
    if teacher is None and set(GRAD_CAM_NAMES) & set(names):
        raise ValueError("`teacher` must be given for Grad-CAM, got None. Name a classifier with the same findings.")
    of_model = (model.model, model.image_processor)
    makers: dict[str, Callable[[], Localizer]] = {
        "random": lambda: RandomMapLocalizer(model.findings, seed),
        "cam": lambda: with_map_fusion(*of_model, "cam"),
        "attention": lambda: with_map_fusion(*of_model, "attention"),
        "rollout": lambda: AttentionRolloutLocalizer(*of_model),
        "atlas": lambda: AtlasSuppressionLocalizer(*of_model),
        **{name: partial(_grad_cam, name, model, str(teacher)) for name in GRAD_CAM_NAMES},
    }
    return {name: makers[name]() for name in names}


def _grad_cam(name: str, model: ModelLocalizer, teacher: str) -> Localizer:
    localizer = GradCamLocalizer.from_pretrained(teacher, model.findings, method=name)
    localizer.classifier.to(model.model.device)
    return localizer


def check_maps(
    model: ModelLocalizer,
    records: Sequence[ImageRecord],
    images: EvaluationImages,
    count: int,
    run: RunSettings | None = None,
) -> SanityChecks | None:
    """Deletion, insertion and randomised weights; the checks that only need records are in every report.

    Args:
        model: The model.
        records: Records of all images.
        images: The images of the records.
        count: Number of images to use, the first with a present finding; without any, the result is None.
        run: Batch size and seed; None for the defaults.
    """
    run = run or RunSettings()
    chosen = [record.name for record in records if (record.labels == 1).any()][:count]
    if not chosen:
        return None
    places = {name: index for index, name in enumerate(images.names)}
    read = [images[places[name]] for name in chosen]
    pixels = [image.pixels for image in read]
    present = [np.flatnonzero(image.labels == 1).tolist() for image in read]
    perturbations = {
        localizer.name: deletion_insertion(
            zip(pixels, present, strict=True),
            localizer,
            lambda pixel_values: model.model(pixel_values).scores,
            model.image_processor,
            batch_size=run.batch_size,
            seed=run.seed,
            device=model.model.device,
        )
        for localizer in (model, RandomMapLocalizer(model.findings, run.seed))
    }
    stages = randomised_weights(model.model, model.image_processor, pixels, present, run.batch_size, run.seed)
    return SanityChecks(perturbations, stages)


def pixels_and_maps(
    localizer: Localizer, images: EvaluationImages
) -> Callable[[Sequence[str]], dict[str, tuple[np.ndarray, np.ndarray]]]:
    """A function from names of images to their pixels `(H, W)` and maps `(F, H, W)`, for the examples of a report."""
    places = {name: index for index, name in enumerate(images.names)}

    def look(names: Sequence[str]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        seen = {}
        for name in names:
            pixels = images[places[name]].pixels
            output = localizer([pixels])
            size = (pixels.shape[0], pixels.shape[1])
            seen[name] = (pixels, map_over_image(output.maps[0], output.letterboxes[0], size))
        return seen

    return look


def calibration_records(
    model: ClarityForMultiLabelLocalization,
    image_processor: ClarityImageProcessor,
    data: str,
    output_dir: str | Path,
    split: str = "validation",
    *,
    count: int | None = None,
    run: RunSettings | None = None,
    **options: Any,
) -> list[ImageRecord]:
    """Evaluate the images on which a model is to be calibrated, see [`calibrate`]; an interrupted run resumes.

    Args:
        model: In evaluation mode, on the device to use.
        image_processor: The one it was trained with.
        data: As for [`open_images`].
        output_dir: Where the calibrated model will be. Records, which name images and patients, go to a file beside
            it, `OUTPUT_DIR-records.jsonl`.
        split: `train` or `validation`.
        count: Only the first images.
        run: Batch size, workers and progress bar; None for the defaults.
        options: As for [`open_images`], such as `validation_split`, a committed list of a release's patients.

    Returns:
        One record per image, with all maps measured.
    """
    run, output_dir = run or RunSettings(), Path(output_dir)
    return evaluate_images(
        ModelLocalizer(model, image_processor),
        open_images(data, split, count, wanted=model.config.findings, **options),
        BoxSettings.of_config(model.config),
        output_dir.with_name(f"{output_dir.name}-records.jsonl"),
        describe_model(model, image_processor) | {"data": published_name(data), "split": split},
        batch_size=run.batch_size,
        num_workers=run.num_workers,
        progress=run.progress,
    ).records
