# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""From a DICOM image and a model's outputs to DICOM results, for folders and for the node."""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch.nn.functional as F
from transformers.modeling_outputs import ModelOutput

from clarity_hf.dicom_reading import read_dicom
from clarity_hf.fingerprints import describe_results
from clarity_hf.image_reading import read_image
from clarity_hf.pipeline_chest_xray_localization import ChestXrayLocalizationPipeline
from clarity_hf.radiograph_check import check_mode, check_radiograph

from .dicom_output import (
    DEFAULT_KINDS,
    DicomResults,
    ModelIdentity,
    ResultOptions,
    check_kinds,
    save,
    stored_map_size,
    write_dicom_results,
    write_refusal_report,
)
from .dicom_source import missing_attributes
from .engines import engine_settings

if TYPE_CHECKING:
    from pydicom import Dataset

_MAPPED = ("regions", "probabilities")


@dataclass(frozen=True, eq=False)
class Localized:
    """The outcome for one DICOM file.

    Attributes:
        state: `done`, `refused` (not a frontal chest radiograph that can be read) or `failed`.
        reason: Why it was refused or failed, or the warning about it, without a patient's name.
        datasets: Results; for a refused file a report that says so, if requested and possible.
    """

    state: str
    reason: str
    datasets: tuple[Any, ...]


@dataclass(frozen=True)
class DicomResultWriter:
    """Writes a pipeline's findings as DICOM objects.

    Attributes:
        pipeline: Its model's weights are hashed once.
        model_name: Name of the model in results; not a path.
        threshold: Score in [0, 1] from which a finding is present, instead of the config's thresholds.
        kinds: Some of `KINDS`.

    Raises:
        ValueError: A kind is unknown.
    """

    pipeline: ChestXrayLocalizationPipeline
    model_name: str
    threshold: float | None = None
    kinds: Sequence[str] = DEFAULT_KINDS

    def __post_init__(self) -> None:
        check_kinds(self.kinds)

    @functools.cached_property
    def identity(self) -> ModelIdentity:
        """The model's name and the hash of everything that decides findings and boxes."""
        pipeline = self.pipeline
        settings = describe_results(pipeline.model, pipeline.image_processor, self.threshold)
        settings |= engine_settings(pipeline, settings)
        return ModelIdentity.of(pipeline.model, self.model_name, settings)

    def write(
        self,
        header: Dataset,
        pixels: np.ndarray,
        findings: list[dict[str, Any]],
        outputs: ModelOutput,
        folder: str | os.PathLike | None = None,
        stem: str = "findings",
        doubt: str = "",
    ) -> DicomResults:
        """Make the results of one image; arguments and errors as in [`write_dicom_results`].

        Args:
            header: Header of the image.
            pixels: `(H, W)` in [0, 255], as the model saw it.
            findings: Result of the pipeline's `postprocess` for the outputs.
            outputs: Result of the pipeline's `forward` for this image alone.
            folder: Folder for the files; None writes none.
            stem: Start of the file names.
            doubt: Warning about the image that the results repeat.
        """
        if set(_MAPPED) & set(self.kinds):
            findings = self._with_stored_maps(findings, outputs)
        config = self.pipeline.model.config
        levels = dict(zip(config.id2label.values(), config.per_finding("map_thresholds"), strict=True))
        options = ResultOptions(doubt=doubt, map_thresholds=levels)
        return write_dicom_results(
            header, pixels, findings, self.identity, folder, self.kinds, stem=stem, options=options
        )

    def refuse(self, header: Dataset, reason: str, file: str | os.PathLike | None = None) -> Dataset:
        """Make a report that says why an image was not analysed, and write it to `file`, if given.

        The reason must not contain a patient's name or number; its non-ASCII characters are replaced. Errors are those
        of [`write_refusal_report`].
        """
        report = write_refusal_report(header, reason.encode("ascii", "replace").decode(), self.identity)
        if file is not None:
            save(report, Path(file))
        return report

    def localize(self, path: str | os.PathLike, radiograph_check: str = "warn", reports: bool = True) -> Localized:
        """Read one DICOM file, localize its findings and make its results; errors of the file are in the outcome.

        Args:
            path: Path of the file.
            radiograph_check: `warn`, `refuse` or `off`.
            reports: Whether a refused image gets a report.

        Raises:
            ValueError: `radiograph_check` is unknown.
        """
        check_mode(radiograph_check)
        try:
            image = read_dicom(path)
            pixels = np.asarray(read_image(image.pixels, "image"))
            doubt = ""
            if radiograph_check != "off":
                verdict = check_radiograph(pixels)
                if not verdict.passed and radiograph_check == "refuse":
                    raise ValueError(verdict.message())
                doubt = "" if verdict.passed else doubt_about(verdict.reason)
            outputs = self.pipeline.forward(self.pipeline.preprocess(pixels, radiograph_check="off"))
            findings = self.pipeline.postprocess(outputs, threshold=self.threshold)
            results = self.write(image.dataset, pixels, findings, outputs, doubt=doubt)
            return Localized("done", doubt, tuple(results.datasets.values()))
        except MemoryError:  # not the file's fault
            raise
        except (ValueError, TypeError, ImportError, FileNotFoundError) as error:  # these messages name no patient
            reason = str(error).replace(os.fspath(path), "image")
            header = header_of(path) if reports else None
            try:
                return Localized("refused", reason, () if header is None else (self.refuse(header, reason),))
            except Exception:  # a header too broken for a report; the log has the reason
                return Localized("refused", reason, ())
        except Exception as error:  # for a broken file a library may raise, and quote, anything
            return Localized("failed", f"an unexpected {type(error).__name__}", ())

    def _with_stored_maps(self, findings: list[dict[str, Any]], outputs: ModelOutput) -> list[dict[str, Any]]:
        """Findings, the present ones with maps at stored size, computed without maps of the image's size."""
        present = [finding["label"] for finding in findings if finding["present"]]
        if not present:
            return findings
        processor, names = self.pipeline.image_processor, self.pipeline.model.config.findings
        height, width = outputs["image_sizes"][0].tolist()
        box = processor.letterbox((height, width))
        over_input = processor.post_process_maps(outputs, None, [names.index(label) for label in present])[0]
        (rows, columns), (top, left) = box.content, (box.top, box.left)
        content = over_input[None, :, top : top + rows, left : left + columns]
        size = stored_map_size((height, width))
        maps = F.interpolate(content, size=size, mode="bilinear", align_corners=False, antialias=True)[0].numpy()
        of_present = iter(maps)
        return [finding | ({"map": next(of_present)} if finding["present"] else {}) for finding in findings]


def doubt_about(reason: str) -> str:
    """Warning in the results of an image that did not pass the radiograph check, with the reason of its verdict."""
    return f"Check: looks like {reason}, not like a frontal chest radiograph"


def header_of(path: str | os.PathLike) -> Dataset | None:
    """Header of a DICOM file that could not be read as an image; None if it is not enough for a report."""
    import pydicom
    from pydicom.errors import InvalidDicomError

    try:
        header = pydicom.dcmread(path, stop_before_pixels=True)
    except (InvalidDicomError, OSError, ValueError, EOFError, NotImplementedError):
        return None
    return None if missing_attributes(header) else header
