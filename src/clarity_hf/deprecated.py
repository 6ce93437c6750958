# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Old spellings that work for one more release, with a `DeprecationWarning` that gives the new one.

A package or module whose names have moved ends with `__getattr__ = old_names(__name__)`. Add a renamed public name to
[`NAMES`], a moved module to [`MODULES`], and a renamed option of a command, or key of a training configuration file,
to [`OPTIONS`].
"""

import importlib
import sys
import warnings
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any


def _moved(old: str, new: str, names: str) -> dict[str, str]:
    """Full old and new names of moved names whose last part is unchanged."""
    return {f"{old}.{name}": f"{new}.{name}" for name in names.split()}


MODULES: dict[str, str] = {
    "data.film_cache": "data.image_cache",
    "data.phantoms": "phantoms",
    "data.phantoms.film": "phantoms.phantom",
    "data.phantoms.release": "phantoms.release",
    "data.phantoms.statistics": "phantoms.statistics",
    "deployment": "export",
    **_moved("deployment", "export", "calibrated_checkpoint checkpoint export onnx_runner publishing"),
    **_moved("deployment", "reporting", "checkpoint_card committed_reports model_card"),
    **_moved("deployment", "inference", "dicom_destinations dicom_inference dicom_node dicom_output"),
    **_moved("deployment", "inference", "dicom_presentation dicom_queue dicom_report dicom_source fhir web_page"),
    "deployment.batch_prediction": "inference.batch",
    "evaluation.checkpoint": "reporting.run",
    "evaluation.curves": "reporting.figures",
    "evaluation.films": "evaluation.images",
    **_moved("evaluation", "metrics", "bootstrap classification classification_rivals image_driven localization"),
    **_moved("evaluation", "metrics", "records"),
    "evaluation.protocol": "metrics.protocols",
    **_moved("evaluation", "reporting", "calibration_text cases report rival_tables"),
    "evaluation.table": "reporting.schema",
    "recipes": "training.train",
    "recipes.common": "training.recipes",
    "recipes.teacher": "training.train_teacher",
    "recipes.training": "training.train",
    "training.foreign_models": "safe_loading",
    "training.runs": "training.arguments",
    "training.teacher": "teacher",
    "training.whole_files": "files",
}
"""New modules by old name, both relative to the package; names are looked up in the new module."""

NAMES: dict[str, str] = {
    "DicomFilm": "dicom_reading.DicomImage",
    "data.image_cache.FilmCache": "data.image_cache.ImageCache",
    "data.nih.NihFilm": "data.nih.NihImage",
    "data.nih.split_films": "data.nih.split_images",
    "data.nih.NihReport": "data.row_report.RowReport",
    "data.tables.TableFilm": "data.rows.ImageRow",
    "data.tables.TableImage": "data.rows.ImageRow",
    "data.tables.TableReport": "data.row_report.RowReport",
    **_moved("data.tables", "data.table_files", "MAX_TABLE_BYTES MAX_TABLE_ROWS TABLE_SUFFIXES"),
    "data.transforms.FilmTransform": "data.transforms.ImageTransform",
    "deployment.batch_prediction.find_images": "inference.image_files.find_images",
    "deployment.write_model_card": "reporting.write_model_card",
    "evaluation.Film": "evaluation.EvaluationImage",
    "evaluation.FilmRecord": "metrics.ImageRecord",
    "evaluation.PhantomFilms": "evaluation.PhantomImages",
    "evaluation.RowFilms": "evaluation.RowImages",
    "evaluation.evaluate_films": "evaluation.evaluate_images",
    "evaluation.open_films": "evaluation.open_images",
    **_moved("evaluation", "reporting", "check_report evaluate_checkpoint write_report"),
    **_moved("evaluation", "metrics", "AnnotationRecord Interval"),
    **_moved("evaluation", "metrics", "auroc_per_finding"),
    **_moved("evaluation", "metrics", "average_precision_per_finding bootstrap_by_patient boxes_found"),
    **_moved("evaluation", "metrics", "calibration_error_per_finding chexlocalize_miou clarity_protocol"),
    **_moved("evaluation", "metrics", "classification_intervals data_digest f1_thresholds halves"),
    **_moved("evaluation", "metrics", "ham_mask_iou localization_difference localization_intervals macro max_box_acc"),
    **_moved("evaluation", "metrics", "max_box_acc_v2 mean_auroc measure_map operating_points"),
    **_moved("evaluation", "metrics", "patient_protocol pointing_game reliability sensitivity_thresholds support"),
    **_moved("evaluation", "metrics", "t_iobb t_iou tune_map_thresholds wang_protocol"),
    "evaluation.youden_thresholds": "metrics.youden_thresholds",
    "evaluation.evaluator.evaluate_films": "evaluation.evaluator.evaluate_images",
    "evaluation.images.AlignedFilms": "evaluation.images.AlignedImages",
    "evaluation.images.Film": "evaluation.images.EvaluationImage",
    "evaluation.images.PhantomFilms": "evaluation.images.PhantomImages",
    "evaluation.images.RowFilms": "evaluation.images.RowImages",
    "evaluation.images.open_films": "evaluation.images.open_images",
    "evaluation.sanity.map_over_film": "evaluation.sanity.map_over_image",
    "deployment.batch_prediction.find_films": "inference.image_files.find_images",
    "deployment.batch_prediction.predict_films": "inference.batch.predict_images",
    "evaluation.records.FilmRecord": "metrics.ImageRecord",
    "data.phantoms.film_seed": "phantoms.image_seed",
    "data.phantoms.film.film_seed": "phantoms.image_seed",
    "recipes.TeacherRecipe": "training.train_teacher.TeacherRecipe",
    "recipes.train_teacher": "training.train_teacher.train_teacher",
    **_moved("training.runs", "training.checkpoint_manifest", "COMPARED drop_pickle last_checkpoint"),
    **_moved("training.runs", "training.trainer", "LogLastStepCallback SetEpochCallback"),
}
"""New public names by old name, both relative to the package."""

OPTIONS: dict[str, str] = {
    "film_cache": "image_cache",
    "film_repeats": "image_repeats",
    "films": "images",
    "sanity_films": "sanity_images",
}
"""New options of commands, and keys of training configuration files, by old name, with underscores."""


def old_names(module: str) -> Callable[[str], Any]:
    """The `__getattr__` of a module with moved names or submodules.

    Submodules that no longer exist can then be imported, and give the names of the modules that replace them.

    Args:
        module: `__name__` of the module, which may itself have moved.
    """
    package, _, place = module.partition(".")
    for old in MODULES:
        if place and old.startswith(f"{place}.") and f"{package}.{old}" not in sys.modules:
            gone: Any = ModuleType(f"{package}.{old}")
            gone.__path__ = []  # it may contain moved modules
            gone.__getattr__ = _getattr_of(package, old)
            sys.modules[gone.__name__] = gone
    return _getattr_of(package, place)


def _getattr_of(package: str, place: str) -> Callable[[str], Any]:
    def getattr_(name: str) -> Any:
        now = MODULES.get(place, place)
        old = f"{place}.{name}".lstrip(".")
        new = NAMES.get(old) or NAMES.get(f"{now}.{name}") or (f"{now}.{name}" if now != place else None)
        if new is None or name.startswith("__"):
            raise AttributeError(f"module '{package}.{place}' has no attribute {name!r}".replace(".'", "'"))
        if f"{package}.{old}" in sys.modules:  # a moved module, accessed as an attribute
            return sys.modules[f"{package}.{old}"]
        target, _, attribute = new.rpartition(".")
        value = getattr(importlib.import_module(f"{package}.{target}"), attribute)
        warnings.warn(
            f"`{package}.{old}` is deprecated and will be removed in the next release. Use `{package}.{new}`.",
            DeprecationWarning,
            stacklevel=2,
        )
        return value

    return getattr_


def current_options(words: Sequence[str]) -> list[str]:
    """Replace old options by new ones, with a warning for each.

    Args:
        words: Arguments of a command; options with hyphens or underscores, values after `=` or as the next word.

    Example:
        >>> current_options(["train.yaml", "--image_cache", "cache"])
        ['train.yaml', '--image_cache', 'cache']
    """
    current = []
    for word in words:
        option, equals, value = word.partition("=")
        name = option.removeprefix("--")
        new = OPTIONS.get(name.replace("-", "_")) if option.startswith("--") else None
        if new is not None:
            new = f"--{new}" if "_" in name else f"--{new.replace('_', '-')}"
            warnings.warn(
                f"`{option}` is deprecated and will be removed in the next release. Use `{new}`.",
                DeprecationWarning,
                stacklevel=2,
            )
            option = new
        current.append(f"{option}{equals}{value}")
    return current


__all__ = ["MODULES", "NAMES", "OPTIONS", "current_options", "old_names"]
