# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Evaluation of a checkpoint on images, with its report."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from clarity_hf.evaluation.evaluator import EvaluationImages
from clarity_hf.evaluation.localizers import ModelLocalizer
from clarity_hf.evaluation.run import (
    RunSettings,
    SanityChecks,
    evaluate_methods,
    make_baselines,
    pixels_and_maps,
)
from clarity_hf.image_processing_clarity import ClarityImageProcessor
from clarity_hf.metrics.localization import BoxSettings
from clarity_hf.metrics.records import data_digest
from clarity_hf.modeling_clarity import ClarityForMultiLabelLocalization

from .evaluated import Evaluated
from .report import check_report, write_report

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
    """Evaluate a checkpoint and write its report; an interrupted run resumes.

    Args:
        model: In evaluation mode, on the device to use.
        image_processor: The one it was trained with.
        images: As for [`evaluate_images`].
        folder: Where `report.html`, `report.json`, tables, figures and cases are written. Records, which name images
            and patients, are written to a folder beside it, `FOLDER-records`, one file per method.
        about: At least `model`, `data` and `split`, names that a reader may see; see [`write_report`].
        baselines: Names from `BASELINES`.
        teacher: Folder or Hub id of the classifier of Grad-CAM, with an image processor.
        sanity_images: How many images, the first with a present finding, are used for deletion, insertion and
            randomised weights, which cost 84 forward passes per present finding and 16 per image; 0 skips them.
        tuning_split: Committed list of the patients on whom map thresholds are tuned, such as `nih-boxes-tuning-0`;
            None takes random halves by `seed`.
        batch_size: Images per forward pass.
        num_workers: Processes that read images ahead.
        repeats: Number of samples of every bootstrap.
        min_positives: Findings with fewer positives are not in means.
        seed: Seed of bootstraps, splits, random maps and random weights.
        draw_cases: Whether the report shows the best and the worst images.
        progress: Whether to show progress bars.

    Returns:
        The folder's `report.html`.

    Raises:
        ValueError: A baseline is unknown, Grad-CAM is requested without `teacher`, or as for [`evaluate_images`] and
            [`write_report`].
        ImportError: A baseline's or the report's library is not installed; the message names the extra.
    """
    folder = Path(folder)
    ours = ModelLocalizer(model, image_processor)
    others = make_baselines(baselines, ours, teacher, seed)
    settings = BoxSettings.of_config(model.config)
    thresholds = np.asarray(settings.score_thresholds, dtype=np.float64)
    planned = Evaluated((), ours.findings, thresholds, min_positives, repeats, seed, tuning_split, settings)
    check_report(replace(planned, baselines={other.name: () for other in others.values()}), about)
    run = RunSettings(batch_size, num_workers, progress, seed)
    kept = folder.with_name(f"{folder.name}-records")
    found = evaluate_methods(ours, others, images, kept, about, sanity_images=sanity_images, run=run)
    records = found.model.records
    described = {
        **about,
        "unreadable images": len(found.model.unreadable),
        "weights_hash": found.source["weights"],
        "data_hash": data_digest(records),
        "images_are": images.fingerprint,
        "seeds": {"bootstrap, splits, random maps": seed},
        "versions": {name: importlib.metadata.version(name) for name in VERSIONED},
        "map_thresholds": dict(zip(ours.findings, settings.map_thresholds, strict=True)),
    }
    return write_report(
        replace(planned, records=records, baselines={name: one.records for name, one in found.baselines.items()}),
        folder,
        described,
        sanity=sanity_rows(found.sanity) if found.sanity else None,
        look=pixels_and_maps(ours, images) if draw_cases else None,
    )


def sanity_rows(checks: SanityChecks) -> dict[str, list[dict[str, Any]]]:
    """Tables of the sanity checks by title, each a list of rows."""
    return {
        "Deletion and insertion": [
            {
                "maps": name,
                "deletion area (low is good)": _mean([curve.deletion_areas for curve in curves.values()]),
                "insertion area (high is good)": _mean([curve.insertion_areas for curve in curves.values()]),
                "maps measured": sum(curve.images for curve in curves.values()),
                "blank maps": sum(curve.blank for curve in curves.values()),
            }
            for name, curves in checks.perturbations.items()
        ],
        "Randomised weights, from the heads down": [
            {
                "made random": stage.part,
                "rank correlation": stage.rank_correlation,
                "SSIM": stage.similarity,
                "maps": stage.maps,
                "left out": stage.undefined,
            }
            for stage in checks.randomised
        ],
    }


def _mean(areas: Sequence[np.ndarray]) -> float:
    return float(np.concatenate(areas).mean())
