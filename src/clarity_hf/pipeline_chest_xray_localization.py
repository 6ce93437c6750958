# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""The task `chest-xray-localization`: from an image to findings with scores and boxes."""

from __future__ import annotations

import numbers
import os
import types
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import Pipeline
from transformers.modeling_outputs import ModelOutput

from .dicom_header import is_dicom_dataset
from .image_processing_clarity import check_outputs
from .image_reading import read_image
from .labels import checked_shares
from .plain_card import replace_draft
from .radiograph_check import NotARadiographWarning, check_mode, check_radiograph, is_available


class ChestXrayLocalizationPipeline(Pipeline):
    """Pipeline that classifies and localizes the findings of chest radiographs with a CLARiTy model.

    Attributes:
        engine: Computes scores and maps from `pixel_values` instead of the model; None by default.
            `clarity_hf.inference.use_engine` sets it.

    Raises:
        ValueError: The model is not a CLARiTy model, or the image processor not a `ClarityImageProcessor`.

    Example:
        >>> from transformers import pipeline
        >>> import clarity_hf
        >>> localizer = pipeline("chest-xray-localization")  # doctest: +SKIP
        >>> localizer("image.png")[0]  # doctest: +SKIP
        {'label': 'Effusion', 'score': 0.93, 'threshold': 0.5, 'present': True, 'boxes': [{'xmin': 96.0, ...}]}
    """

    engine: Callable[..., ModelOutput] | None = None
    _load_image_processor = True
    _load_processor = False
    _load_feature_extractor = False
    _load_tokenizer = False
    _load_video_processor = False

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        kind = self.model.config.model_type
        if kind != "clarity":
            raise ValueError(f"`model` must be a CLARiTy model, got one of type '{kind}'. Check its config.json.")
        if not hasattr(self.image_processor, "post_process_localization"):
            raise ValueError(
                f"`image_processor` must be a ClarityImageProcessor, got {type(self.image_processor).__name__}. "
                "Check the preprocessor_config.json beside the model."
            )

    def __call__(self, inputs: Any, **kwargs: Any) -> Any:
        """Localize the findings of images.

        Args:
            inputs: An image, or a list, generator, dataset or column (pandas, polars, pyarrow, numpy) of images. An
                image is a path, the bytes or the open file of a PNG, JPEG, TIFF, BMP or DICOM file, a
                `pydicom.Dataset`, a PIL image, or an array or tensor as in [`read_image`]. Nothing is fetched from
                URLs.
            threshold (`float` or list of F, *optional*): Score in [0, 1] from which a finding is present and gets
                boxes, instead of the config's `score_thresholds`.
            map_threshold (`float` or list of F, *optional*): Share of a map's peak, in (0, 1), that a box encloses,
                instead of the config's `map_thresholds`.
            top_k (`int`, *optional*): Keep the findings with the highest scores; all by default.
            return_maps (`bool`, defaults to `False`): Add to each finding `"map"`, its localization map over the
                image, a numpy array `(H, W)` float32 of values ≥ 0 on the model's own scale.
            radiograph_check (`str`, *optional*): What to do if an image does not look like a whole, upright frontal
                chest radiograph with bright bones (see [`check_radiograph`]): `"warn"` gives a
                [`NotARadiographWarning`] for every such image, with its file name or its place among `inputs`,
                `"refuse"` raises, `"off"` does not check. The default is `"warn"`; a copy of this code beside a
                published model lacks the check's weights, and its default is `"off"`.
            batch_size (`int`, *optional*): Images per forward pass.

        Returns:
            For an image a list of one dict per finding, highest score first; for a list a list of those, also of one;
            for a generator or dataset an iterator. A dict holds
            - `label` (str) and `score` (float in [0, 1]);
            - `threshold` (float) and `present` (bool, score ≥ threshold);
            - `boxes`: list of `{"xmin", "ymin", "xmax", "ymax"}`, floats in pixels of the original image, right and
              bottom exclusive; empty for an absent finding.
            Without `return_maps` all of it is JSON.

        Raises:
            FileNotFoundError, TypeError, ValueError: An input is not an image, or is refused by the check; the message
                names it and the reason.
            OSError: The weights of the check are not those that ship with clarity_hf.
        """
        inputs = _column_as_list(inputs)
        if isinstance(inputs, list | tuple) and not inputs:
            raise ValueError("`inputs` must hold at least one image, got an empty list. Pass an image.")
        if isinstance(inputs, list | tuple):
            inputs = [_Listed(image, index) for index, image in enumerate(inputs)]
        elif isinstance(inputs, types.GeneratorType) or _is_many(inputs):
            # A generator, as the base class takes iterators of other types for one image.
            inputs = (_Listed(image, index) for index, image in enumerate(inputs))
        results = super().__call__(inputs, **kwargs)
        return results if isinstance(results, list) else _Results(results)

    def _sanitize_parameters(
        self,
        threshold: Any = None,
        map_threshold: Any = None,
        top_k: int | None = None,
        return_maps: bool | None = None,
        radiograph_check: str | None = None,
    ) -> tuple[dict, dict, dict]:
        if radiograph_check is not None:
            check_mode(radiograph_check)
        if top_k is not None and (type(top_k) is bool or not isinstance(top_k, numbers.Integral) or top_k < 1):
            raise ValueError(f"`top_k` must be at least 1, got {top_k}. Leave it out for all findings.")
        count = self.model.config.num_labels
        if threshold is not None:
            threshold = checked_shares("threshold", threshold, count).tolist()
        if map_threshold is not None:
            map_threshold = checked_shares("map_threshold", map_threshold, count, open_ends=True).tolist()
        given = {"threshold": threshold, "map_threshold": map_threshold, "top_k": top_k, "return_maps": return_maps}
        reading = {} if radiograph_check is None else {"radiograph_check": radiograph_check}
        return reading, {}, {name: value for name, value in given.items() if value is not None}

    def preprocess(self, image: Any, radiograph_check: str | None = None) -> dict[str, torch.Tensor]:
        """Read, check and prepare one image, and keep its own size."""
        name = "image"
        if isinstance(image, _Listed):
            image, name = image.image, f"inputs[{image.index}]"
        if isinstance(image, str | os.PathLike):
            name = os.path.basename(os.fsdecode(image))
        pixels = read_image(image)
        _check(pixels, name, radiograph_check or ("warn" if is_available() else "off"))
        inputs = dict(self.image_processor(images=pixels, return_tensors="pt"))
        inputs["pixel_values"] = inputs["pixel_values"].to(self.dtype)
        inputs["image_sizes"] = torch.tensor([pixels.shape])
        return inputs

    def _forward(self, model_inputs: dict[str, torch.Tensor]) -> ModelOutput:
        compute = self.model if self.engine is None else self.engine
        outputs = compute(pixel_values=model_inputs["pixel_values"])
        # Only what a result needs, as a batch's outputs are split by image afterwards.
        return ModelOutput(
            scores=outputs.scores,
            localization_maps=outputs.localization_maps,
            box_settings=outputs.box_settings,
            image_sizes=model_inputs["image_sizes"],
        )

    def postprocess(
        self,
        model_outputs: Any,
        threshold: Any = None,
        map_threshold: Any = None,
        top_k: int | None = None,
        return_maps: bool = False,
    ) -> list[dict[str, Any]]:
        """Turn the outputs of `_forward` for one image into the result of `__call__`, with the same arguments.

        Args:
            model_outputs: Outputs for one image.
            threshold, map_threshold, top_k, return_maps: As in `__call__`.

        Raises:
            ValueError: A threshold is out of range, or the model's scores or maps are not finite.
        """
        config = self.model.config
        name = Path(config.name_or_path or "model").name
        check_outputs(model_outputs["scores"].numpy(), model_outputs["localization_maps"].float().numpy(), name)
        thresholds = config.per_finding("score_thresholds") if threshold is None else threshold
        result = self.image_processor.post_process_localization(
            model_outputs,
            score_thresholds=threshold,
            map_thresholds=map_threshold,
            target_sizes=model_outputs["image_sizes"],
        )[0]
        thresholds = checked_shares("threshold", thresholds, config.num_labels).tolist()
        findings: list[dict[str, Any]] = []
        order = result["finding_scores"].argsort(descending=True, stable=True)[:top_k].tolist()
        for index in order:
            score = result["finding_scores"][index].item()
            boxes = result["boxes"][result["labels"] == index].tolist()
            findings.append(
                {
                    "label": config.id2label[index],
                    "score": score,
                    "threshold": thresholds[index],
                    "present": score >= thresholds[index],
                    "boxes": [dict(zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)) for box in boxes],
                }
            )
        if return_maps:
            maps = self.image_processor.post_process_maps(model_outputs, model_outputs["image_sizes"], order)[0]
            for finding, localization_map in zip(findings, maps.numpy(), strict=True):
                finding["map"] = localization_map
        return findings

    def save_pretrained(self, save_directory: str | os.PathLike, **kwargs: Any) -> None:
        """Save model and image processor; the folder loads with `pipeline("chest-xray-localization", model=folder)`.

        The base class would also write the pipeline's code into the config, which then needs `trust_remote_code`.
        """
        self.model.save_pretrained(save_directory, **kwargs)
        self.image_processor.save_pretrained(save_directory, **kwargs)

    def _upload_modified_files(self, working_dir: str, repo_id: str, *args: Any, **kwargs: Any) -> Any:
        """Part of `push_to_hub`: keep the repository's own card, but replace the library's draft by a plain one."""
        replace_draft(working_dir, repo_id, self.model.config.findings)
        return super()._upload_modified_files(working_dir, repo_id, *args, **kwargs)


@dataclass(frozen=True)
class _Listed:
    """One of several images, with its place among them, by which a warning names an array."""

    image: Any
    index: int


class _Results(Iterator):
    """Iterator over the results of many images; the library's own iterable starts again with each `for`."""

    def __init__(self, results: Any):
        self._results = results
        self._remaining = iter(results)

    def __next__(self) -> list[dict[str, Any]]:
        return next(self._remaining)

    def __len__(self) -> int:
        """Number of batches of a data set, for a progress bar; a TypeError for a generator, as in the library."""
        return len(self._results)


def _check(pixels: np.ndarray, name: str, mode: str) -> None:
    """Warn of pixels that do not look like a frontal chest radiograph, or refuse them."""
    if mode == "off":
        return
    verdict = check_radiograph(pixels)
    if verdict.passed:
        return
    if mode == "refuse":
        raise ValueError(verdict.message(name))
    # With its own registry, because Python would drop a repeated message. The caller's filters apply.
    place = _check.__code__
    warnings.warn_explicit(
        verdict.message(name), NotARadiographWarning, place.co_filename, place.co_firstlineno, __name__, registry={}
    )


def _column_as_list(inputs: Any) -> Any:
    """A column of paths or bytes as a list; anything else unchanged, such as an array, which is an image."""
    if not hasattr(inputs, "__array__") or hasattr(inputs, "detach") or is_dicom_dataset(inputs):
        return inputs
    column = np.asarray(inputs)
    if column.dtype.kind in "biufc":
        return inputs
    if column.ndim > 1:
        raise TypeError(f"`inputs` must be one column of images, got {column.shape[1]}. Pick that of the images.")
    return column.tolist()


def _is_many(inputs: Any) -> bool:
    """Whether inputs are an iterable of images of a type unknown to the base class, such as a column."""
    images = (
        (str, bytes, bytearray, memoryview, os.PathLike, Mapping),
        (list, torch.utils.data.Dataset, types.GeneratorType),
    )
    one = isinstance(inputs, images) or hasattr(inputs, "__array__") or hasattr(inputs, "read")
    return isinstance(inputs, Iterable) and not one


__all__ = ["ChestXrayLocalizationPipeline"]
