# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""The whole evaluation of a checkpoint: records, baselines on the same images, sanity of the maps, and the report."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from clarity_hf.boxes import map_over_image
from clarity_hf.evaluation.baselines import (
    AtlasSuppressionLocalizer,
    AttentionRolloutLocalizer,
    GradCamLocalizer,
    RandomMapLocalizer,
    with_map_fusion,
)
from clarity_hf.evaluation.evaluator import BoxSettings, Evaluation, EvaluationImages, evaluate_images
from clarity_hf.evaluation.images import EvaluationImage, open_images
from clarity_hf.evaluation.localizers import Localizer, ModelLocalizer
from clarity_hf.evaluation.sanity import deletion_insertion, randomised_weights
from clarity_hf.files import published_name
from clarity_hf.fingerprints import describe_model, weights_digest
from clarity_hf.image_processing_clarity import ClarityImageProcessor
from clarity_hf.metrics.image_driven import MapRules
from clarity_hf.metrics.records import ImageRecord, data_digest
from clarity_hf.modeling_clarity import ClarityForMultiLabelLocalization

from .report import Look, check_report, write_report

BASELINES = ("random", "cam", "attention", "rollout", "atlas", "gradcam", "gradcam++")
"""Methods that can stand beside the model; the last two need a classifier, the teacher."""

BASELINE_MAP_THRESHOLD = 0.5
"""Map threshold of the boxes that a baseline would show; the tables compare boxes that are tuned for every method."""

VERSIONED = ("clarity_hf", "torch", "transformers", "numpy", "scikit-learn")
"""Packages whose versions a report names."""


def evaluate_checkpoint(
    model: ClarityForMultiLabelLocalization,
    image_processor: ClarityImageProcessor,
    images: EvaluationImages,
    folder: str | Path,
    about: Mapping[str, Any],
    *,
    baselines: Sequence[str] = (),
    teacher: str | None = None,
    sanity_images: int = 0,
    tuning_split: str | None = None,
    batch_size: int = 16,
    num_workers: int = 0,
    repeats: int = 1000,
    min_positives: int = 20,
    seed: int = 0,
    draw_cases: bool = True,
    progress: bool = True,
) -> Path:
    """Evaluate a checkpoint and write its report; stopped and started again, it goes on where it was.

    Args:
        model: In evaluation mode, on the device on which it shall run.
        image_processor: The one it was trained with.
        images: As for [`evaluate_images`].
        folder: Gets `report.html`, `report.json`, tables, figures and cases. Records, which name images and patients,
            go to a folder beside it, `FOLDER-records`, a file a method.
        about: At least `model`, `data` and `split`, names that a reader may see; see [`write_report`].
        baselines: Names from `BASELINES`.
        teacher: Folder or Hub id of the classifier of Grad-CAM, with an image processor.
        sanity_images: How many images, the first with a present finding, are taken for deletion, insertion and
            randomised weights, which cost 84 forward passes a present finding and 16 an image; 0 leaves them out.
        tuning_split: Committed list of the patients on whom map thresholds are tuned in the tables of halves, such as
            `nih-boxes-tuning-0`; None draws them with `seed`.
        batch_size: Images per forward pass.
        num_workers: Processes that read images ahead.
        repeats: Draws of every bootstrap.
        min_positives: Findings with fewer positives are not in means.
        seed: Of the bootstraps, splits, random maps and random weights.
        draw_cases: Whether the best and the worst images are drawn into the report.
        progress: Whether to show bars.

    Returns:
        The folder's `report.html`.

    Raises:
        ValueError: A baseline is unknown, Grad-CAM is asked for without `teacher`, or as for [`evaluate_images`] and
            [`write_report`].
        ImportError: A baseline's or the report's library is not installed; the message names the extra.
    """
    unknown = sorted(set(baselines) - set(BASELINES))
    if unknown:
        raise ValueError(f"`baselines` must be among {list(BASELINES)}, got {unknown}. Leave them out.")
    if teacher is None and {"gradcam", "gradcam++"} & set(baselines):
        raise ValueError("`teacher` must be given for Grad-CAM, got None. Name a classifier with the same findings.")
    folder = Path(folder)
    ours = ModelLocalizer(model, image_processor)
    settings = BoxSettings.of_config(model.config)
    others = {name: make_baseline(name, ours, teacher, seed) for name in baselines}
    check_report(  # now, and not after hours
        about,
        findings=ours.findings,
        score_thresholds=settings.score_thresholds,
        baselines=[other.name for other in others.values()],
        tuning_split=tuning_split,
        repeats=repeats,
    )
    reading: dict[str, Any] = {"batch_size": batch_size, "num_workers": num_workers, "progress": progress}
    kept = folder.with_name(f"{folder.name}-records")
    source = describe_model(model, image_processor) | {"data": about["data"], "split": about["split"]}
    evaluation = evaluate_images(ours, images, settings, kept / "clarity.jsonl", source, **reading)
    compared = {
        other.name: _evaluate_baseline(name, other, images, settings, kept, source | {"seed": seed}, reading)
        for name, other in others.items()
    }
    described = {
        **about,
        "images": len(evaluation.records),
        "unreadable images": len(evaluation.unreadable),
        "weights_hash": source["weights"],
        "data_hash": data_digest(evaluation.records),
        "images_are": images.fingerprint,
        "seeds": {"bootstrap, splits, random maps": seed},
        "versions": {name: importlib.metadata.version(name) for name in VERSIONED},
        "score_thresholds": dict(zip(ours.findings, settings.score_thresholds, strict=True)),
        "map_thresholds": dict(zip(ours.findings, settings.map_thresholds, strict=True)),
    }
    return write_report(
        evaluation.records,
        folder,
        described,
        findings=ours.findings,
        score_thresholds=settings.score_thresholds,
        baselines={name: other.records for name, other in compared.items()},
        sanity=sanity_of(ours, evaluation.records, images, sanity_images, seed, batch_size),
        look=looking_at(ours, images) if draw_cases else None,
        tuning_split=tuning_split,
        map_rules=MapRules(
            settings.map_thresholds, settings.components, settings.valleys, settings.boxed_from.tolist()
        ),
        min_positives=min_positives,
        repeats=repeats,
        seed=seed,
    )


def calibration_records(
    model: ClarityForMultiLabelLocalization,
    image_processor: ClarityImageProcessor,
    data: str,
    output_dir: str | Path,
    split: str = "validation",
    validation_split: str | None = None,
    count: int | None = None,
    batch_size: int = 16,
    num_workers: int = 0,
) -> list[ImageRecord]:
    """Evaluate the images on which a model shall be calibrated, see [`calibrate`]; it goes on where it was stopped.

    Args:
        model: In evaluation mode, on the device on which it shall run.
        image_processor: The one it was trained with.
        data: As for [`open_images`].
        output_dir: Where the calibrated model will be. Records, which name images and patients, go to a file beside
            it, `OUTPUT_DIR-records.jsonl`.
        split: `train` or `validation`.
        validation_split: Committed list of validation patients of a release; None for the data set's own.
        count: Only the first images.
        batch_size: Images per forward pass.
        num_workers: Processes that read images ahead.

    Returns:
        A record an image, all maps measured.
    """
    output_dir = Path(output_dir)
    return evaluate_images(
        ModelLocalizer(model, image_processor),
        open_images(data, split, count, wanted=model.config.findings, validation_split=validation_split),
        BoxSettings.of_config(model.config),
        output_dir.with_name(f"{output_dir.name}-records.jsonl"),
        describe_model(model, image_processor) | {"data": published_name(data), "split": split},
        batch_size=batch_size,
        num_workers=num_workers,
    ).records


def make_baseline(name: str, ours: ModelLocalizer, teacher: str | None = None, seed: int = 0) -> Localizer:
    """A method of `BASELINES` beside a model.

    Args:
        name: From `BASELINES`.
        ours: The model, whose weights, scores and findings the method uses.
        teacher: Folder or Hub id of the classifier of Grad-CAM.
        seed: Of random maps.
    """
    model, processor = ours.model, ours.image_processor
    if name in ("gradcam", "gradcam++"):
        localizer = GradCamLocalizer.from_pretrained(str(teacher), ours.findings, method=name)
        localizer.classifier.to(model.device)
        return localizer
    makers: dict[str, Callable[[], Localizer]] = {
        "random": lambda: RandomMapLocalizer(ours.findings, seed),
        "cam": lambda: with_map_fusion(model, processor, "cam"),
        "attention": lambda: with_map_fusion(model, processor, "attention"),
        "rollout": lambda: AttentionRolloutLocalizer(model, processor),
        "atlas": lambda: AtlasSuppressionLocalizer(model, processor),
    }
    return makers[name]()


def looking_at(localizer: Localizer, images: EvaluationImages) -> Look:
    """A function that gives pixels and maps over the image for names of images, for the cases of a report."""
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


def sanity_of(
    ours: ModelLocalizer,
    records: Sequence[ImageRecord],
    images: EvaluationImages,
    count: int,
    seed: int = 0,
    batch_size: int = 16,
) -> dict[str, list[dict[str, Any]]]:
    """Deletion, insertion and randomised weights as small tables; what records tell of the maps is in every report.

    Args:
        ours: The model.
        records: Of all images.
        images: The images of the records.
        count: How many images, the first with a present finding; 0 for none and no table.
        seed: Of random maps and weights.
        batch_size: Images per forward pass.

    Returns:
        Tables by title, each a list of rows.
    """
    chosen = [record.name for record in records if (record.labels == 1).any()][:count]
    if not chosen:
        return {}
    places = {name: index for index, name in enumerate(images.names)}
    looked = [images[places[name]] for name in chosen]
    wanted = [np.flatnonzero(image.labels == 1).tolist() for image in looked]
    pixels = [image.pixels for image in looked]
    stages = randomised_weights(ours.model, ours.image_processor, pixels, wanted, batch_size, seed)
    return {
        "Deletion and insertion": _perturbation_rows(ours, looked, wanted, seed, batch_size),
        "Randomised weights, from the heads down": [
            {
                "made random": stage.part,
                "rank correlation": stage.rank_correlation,
                "SSIM": stage.similarity,
                "maps": stage.maps,
                "left out": stage.undefined,
            }
            for stage in stages
        ],
    }


def _perturbation_rows(
    ours: ModelLocalizer,
    images: Sequence[EvaluationImage],
    wanted: Sequence[Sequence[int]],
    seed: int,
    batch_size: int,
) -> list[dict[str, Any]]:
    """Mean areas of deletion and insertion by the model's maps and by random ones, over all images and findings."""
    rows = []
    pairs = [(image.pixels, findings) for image, findings in zip(images, wanted, strict=True)]
    for localizer in (ours, RandomMapLocalizer(ours.findings, seed)):
        found = deletion_insertion(
            pairs,
            localizer,
            lambda pixels: ours.model(pixels).scores,
            ours.image_processor,
            batch_size=batch_size,
            seed=seed,
            device=ours.model.device,
        )
        curves = found.values()
        rows.append(
            {
                "maps": localizer.name,
                "deletion area (low is good)": float(np.concatenate([c.deletion_areas for c in curves]).mean()),
                "insertion area (high is good)": float(np.concatenate([c.insertion_areas for c in curves]).mean()),
                "maps measured": sum(curve.images for curve in curves),
                "blank maps": sum(curve.blank for curve in curves),
            }
        )
    return rows


def _evaluate_baseline(
    name: str,
    localizer: Localizer,
    images: EvaluationImages,
    settings: BoxSettings,
    kept: Path,
    about: dict[str, Any],
    reading: Mapping[str, Any],
) -> Evaluation:
    """A baseline on the same images, by its name in `BASELINES`."""
    count = len(localizer.findings)
    own = replace(settings, map_thresholds=[BASELINE_MAP_THRESHOLD] * count)
    if isinstance(localizer, GradCamLocalizer):
        about = about | {"classifier": weights_digest(localizer.classifier)}
    maps: Literal["all", "annotated"] = "annotated" if isinstance(localizer, GradCamLocalizer) else "all"
    return evaluate_images(localizer, images, own, kept / f"{name}.jsonl", about, maps, **reading)
