# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Findings as DICOM objects for a PACS: a report, marks, segmentations and an overlay.

Every object is a new series in the study of its image, refers to the image by its UIDs, and states in
ContentQualification, SeriesDescription and text that it is output of research software, not for diagnosis. Patient,
study and request are copied from the image unchanged, mistakes included, so that a PACS files both together.
[`dicom_source`][clarity_hf.inference.dicom_source] defines UIDs and times.

Coordinates need no conversion: DICOM's image-relative coordinates have their origin at the top left corner of the top
left pixel, like boxes here (DICOM PS3.3 C.18.6.1).

Maps are stored at an eighth of the image's rows and columns, which is more than the model resolves, and edge to edge
with the image. Overlays are compressed losslessly by JPEG 2000. Segmentations are not compressed: few viewers decode
compressed ones, and GDCM, which encodes RLE here, crashes the process on an odd number of pixels.

highdicom and pydicom are the extra `dicom` and are imported when the first object is made. Standards: DICOM PS3.3
A.35.3 (Comprehensive SR), A.33.1 (presentation state), A.51 (Segmentation), A.8.1 (Secondary Capture).
"""

from __future__ import annotations

import copy
import dataclasses
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from clarity_hf.visualization import draw_findings

from .dicom_presentation import write_presentation_state
from .dicom_report import write_refusal_report, write_structured_report
from .dicom_source import (
    CODING_SCHEME,
    DEFAULT_OPTIONS,
    FINDING_CODES,
    MANUFACTURER,
    NOTICE,
    Findings,
    ModelIdentity,
    ResultOptions,
    ResultSource,
    check_findings,
    content_hash,
    finding_code,
    highdicom_and_codes,
    item,
    quantised,
    save,
    uid_of,
)

if TYPE_CHECKING:
    from pydicom import Dataset

KINDS = ("report", "presentation", "boxes", "regions", "probabilities", "overlay")
"""Kinds of results: a structured report, marks for a viewer, three segmentations, a picture."""

DEFAULT_KINDS = ("report", "presentation", "probabilities", "overlay")
"""Kinds made by default. Report and presentation contain the boxes, whose full-size masks would be the largest."""

MAX_OVERLAY_SIDE = 1024
"""Overlays are reduced to this many pixels on the longer side."""

MAP_REDUCTION = 8
"""Pixels of the image to a pixel of stored maps, along each side."""


@dataclasses.dataclass(frozen=True, eq=False)
class DicomResults:
    """DICOM objects made from one image.

    Attributes:
        datasets: By kind, in the requested order.
        files: Paths by kind; empty without a folder.
        left_out: By kind that was requested but not made, the reason.
    """

    datasets: dict[str, Any]
    files: dict[str, Path]
    left_out: dict[str, str]


def write_dicom_results(
    dataset: Dataset,
    pixels: np.ndarray,
    findings: Findings,
    model: ModelIdentity,
    folder: str | os.PathLike | None = None,
    kinds: Sequence[str] = DEFAULT_KINDS,
    *,
    stem: str = "findings",
    options: ResultOptions = DEFAULT_OPTIONS,
) -> DicomResults:
    """Make several objects of one image's findings.

    Args:
        dataset: The image's header, as `pydicom.dcmread` returns it, with or without its pixel data; not modified.
        pixels: `(H, W)` in [0, 255], the image as the model saw it, for the overlay; of the header's rows and columns.
        findings: Result of the pipeline for this image; with `return_maps=True` for `regions` and `probabilities`, or
            with maps of [`stored_map_size`].
        model: The model that made them.
        folder: Folder for `STEM.KIND.dcm`, created if needed; None writes nothing.
        kinds: Some of `KINDS`. `boxes`, `regions` and `probabilities` are the `values` of `write_segmentation`.
        stem: Start of the file names, chosen by the caller so that they contain no UID.
        options: Options of all objects.

    Returns:
        The objects; a segmentation without content (no present finding, or no maps) is left out with the reason.

    Raises:
        ImportError: The extra `dicom` is not installed.
        ValueError: A kind is unknown, or the header or the findings are not accepted by `write_structured_report`.
    """
    check_kinds(kinds)
    if Path(stem).name != stem or stem in (".", ".."):
        raise ValueError(f"`stem` must be a file name without a folder, got '{stem}'. Pass the folder as `folder`.")
    results = DicomResults({}, {}, {})
    for kind in dict.fromkeys(kinds):
        if kind in _SEGMENT_MEANING:
            reason = _nothing_to_segment(findings, kind)
            if reason:
                results.left_out[kind] = reason
                continue
            results.datasets[kind] = write_segmentation(dataset, findings, model, kind, options)  # type: ignore[arg-type]
        elif kind == "overlay":
            results.datasets[kind] = write_secondary_capture(dataset, pixels, findings, model, options)
        else:
            write = write_structured_report if kind == "report" else write_presentation_state
            results.datasets[kind] = write(dataset, findings, model, options)
        if folder is not None:
            results.files[kind] = save(results.datasets[kind], Path(folder) / f"{stem}.{kind}.dcm")
    return results


def check_kinds(kinds: Sequence[str]) -> None:
    """Raise a ValueError unless all kinds are in `KINDS`."""
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown:
        raise ValueError(f"`kinds` must be some of {', '.join(KINDS)}, got {', '.join(unknown)}. Correct the name.")


def stored_map_size(size: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns of maps in results: those of the image divided by `MAP_REDUCTION`, rounded up."""
    return math.ceil(size[0] / MAP_REDUCTION), math.ceil(size[1] / MAP_REDUCTION)


def write_segmentation(
    dataset: Dataset,
    findings: Findings,
    model: ModelIdentity,
    values: Literal["boxes", "regions", "probabilities"] = "boxes",
    options: ResultOptions = DEFAULT_OPTIONS,
) -> Dataset:
    """Make a segmentation with one segment per present finding.

    Args:
        dataset: As in `write_structured_report`.
        findings: Result of the pipeline for this image.
        model: The model that made them.
        values: Meaning of the pixels.
            - `"boxes"`: BINARY, at the size of the image: 1 in every pixel that one of the finding's boxes touches.
            - `"regions"`: BINARY, of [`stored_map_size`]: 1 where the finding's map is above its share of the peak.
            - `"probabilities"`: FRACTIONAL of type PROBABILITY, 8 bit, of [`stored_map_size`]: the map divided by its
              peak, so that 1 (stored as 255) is the peak and a box of the pipeline encloses values above
              `map_threshold`. It is not a calibrated probability per pixel; the finding's probability is in the
              report.
        options: UIDs, time, warning, and for `"regions"` the thresholds of maps.

    Returns:
        A `highdicom.seg.Segmentation` with one frame per segment, covering exactly the image. If the image has a
        spacing, PixelSpacing is that of the segmentation's own pixels.

    Raises:
        ImportError: The extra `dicom` is not installed.
        ValueError: As in `write_structured_report`; no finding is present; `values` needs maps that are missing, of
            another size than the image or [`stored_map_size`], negative or not finite, or `map_thresholds` outside
            (0, 1).
    """
    if values not in _SEGMENT_MEANING:
        raise ValueError(f"`values` must be of {', '.join(_SEGMENT_MEANING)}, got '{values}'. Choose one of them.")
    hd, codes = highdicom_and_codes()
    reason = _nothing_to_segment(findings, values)
    if reason:
        raise ValueError(f"`findings` must contain something to segment, got a result where {reason}. Leave it out.")
    shown = quantised([finding for finding in findings if _is_shown(finding, values)])
    content = content_hash(shown, maps_of=None if values == "boxes" else lambda finding: True)
    levels = options.map_thresholds if values == "regions" else None
    source = ResultSource(dataset, model, values, content, options, [levels])
    check_findings(shown, source)
    masks = [_mask(finding, values, source.size, levels) for finding in shown]
    header = copy.copy(source.header)
    header.Rows, header.Columns = masks[0].shape
    document = hd.seg.Segmentation(
        source_images=[header],
        pixel_array=np.stack(masks, axis=-1)[None],
        segmentation_type="FRACTIONAL" if values == "probabilities" else "BINARY",
        segment_descriptions=[
            _segment(hd, codes, number, finding, source) for number, finding in enumerate(shown, start=1)
        ],
        fractional_type="PROBABILITY",
        content_label=f"AI_{values.upper()}",
        content_description=f"{_SEGMENT_MEANING[values]}. {source.doubt or NOTICE}"[:64],
        omit_empty_frames=False,
        **source.arguments(),
    )
    # highdicom chooses this UID at random, but equal content must give an equal object.
    organization = uid_of("dimensions", document.SOPInstanceUID)
    document.DimensionOrganizationSequence[0].DimensionOrganizationUID = organization
    for index in document.DimensionIndexSequence:
        index.DimensionOrganizationUID = organization
    _place(document, source)
    return source.finish(document)


def write_secondary_capture(
    dataset: Dataset,
    pixels: np.ndarray,
    findings: Findings,
    model: ModelIdentity,
    options: ResultOptions = DEFAULT_OPTIONS,
) -> Dataset:
    """Make a colour picture of the image with its boxes, and the notice in a strip below.

    Args:
        dataset: As in `write_structured_report`.
        pixels: `(H, W)` in [0, 255], bones bright; of the header's rows and columns.
        findings: Result of the pipeline for this image.
        model: The model that made them.
        options: UIDs, time and warning.

    Returns:
        A `highdicom.sc.SCImage`, RGB, at most `MAX_OVERLAY_SIDE` pixels plus the strip, without a spacing.
        BurnedInAnnotation, which states whether text identifies the patient, is copied from the image, because the
        text drawn here does not.

    Raises:
        ImportError: The extra `dicom` is not installed.
        ValueError: As in `write_structured_report`, or `pixels` are not of the image's size.
    """
    hd, codes = highdicom_and_codes()
    findings = quantised(findings)
    source = ResultSource(dataset, model, "overlay", content_hash(findings), options, [None])
    check_findings(findings, source)
    if np.shape(pixels) != source.size:
        raise ValueError(
            f"`pixels` must be (rows, columns) {source.size} of the header, got {np.shape(pixels)}. "
            "Pass the image that the header belongs to."
        )
    lines = [NOTICE, *([source.doubt] if source.doubt else []), f"{model.name}, {MANUFACTURER} {model.version}"]
    if not any(finding["present"] for finding in findings):
        lines.append("No finding reached its threshold")
    picture = _with_strip(_overlay(pixels, findings), lines)
    document = hd.sc.SCImage.from_ref_dataset(
        source.header,
        pixel_array=np.asarray(picture),
        photometric_interpretation="YBR_RCT",
        bits_allocated=8,
        coordinate_system="PATIENT",
        patient_orientation=("L", "F"),  # required by highdicom; replaced by the image's own below
        **source.arguments() | {"transfer_syntax_uid": _JPEG_2000_LOSSLESS},
    )
    document["PixelData"].is_undefined_length = True  # otherwise pynetdicom would send fragments with a defined length
    if dataset.get("BodyPartExamined"):
        document.BodyPartExamined = dataset.BodyPartExamined
    if dataset.get("BodyPartExamined") != "CHEST":  # validators require it for all other parts, and for none
        document.Laterality = dataset.get("Laterality") or ""
    document.ConversionType = "WSD"
    document.DerivationDescription = f"Boxes of findings drawn over the image. {source.notice}"
    reference = source.reference()
    purpose = hd.sr.CodedConcept.from_code(codes.DCM.SourceImageForImageProcessingOperation)
    reference.PurposeOfReferenceCodeSequence = [purpose]
    document.SourceImageSequence = [reference]
    if dataset.get("BurnedInAnnotation"):
        document.BurnedInAnnotation = dataset.BurnedInAnnotation
    document.DateOfSecondaryCapture, document.TimeOfSecondaryCapture = source.stamp()
    return source.finish(document)


_JPEG_2000_LOSSLESS = "1.2.840.10008.1.2.4.90"

_SEGMENT_MEANING = {
    "boxes": "Boxes",
    "regions": "Map thresholded",
    "probabilities": "Map over peak",
}


def _segment(hd: Any, codes: Any, number: int, finding: Mapping[str, Any], source: ResultSource) -> Any:
    model = source.model
    return hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=finding["label"][:64],
        segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
        segmented_property_type=finding_code(finding["label"]),
        algorithm_type="AUTOMATIC",
        algorithm_identification=hd.AlgorithmIdentificationSequence(
            name=model.name,
            family=codes.DCM.ArtificialIntelligence,
            version=model.version,
            source=MANUFACTURER,
            parameters={"weights": model.weights_hash},
        ),
        tracking_uid=source.uid("tracking", finding["label"]),
        tracking_id=finding["label"],
    )


def _is_shown(finding: Mapping[str, Any], values: str) -> bool:
    """Whether a present finding has the boxes or map for its segment."""
    if values == "boxes":
        return finding["present"] and bool(finding["boxes"])
    return finding["present"] and "map" in finding and float(np.max(finding["map"])) > 0


def _nothing_to_segment(findings: Findings, values: str) -> str:
    """Why there is no segmentation; empty if there is one."""
    if any(_is_shown(finding, values) for finding in findings):
        return ""
    if not any(finding["present"] for finding in findings):
        return "no finding is present"
    if values == "boxes":
        return "no present finding has a box"
    if not any("map" in finding for finding in findings):
        return "there are no maps (call the pipeline with return_maps=True)"
    return "the maps of the present findings are zero everywhere"


def _mask(
    finding: Mapping[str, Any], values: str, size: tuple[int, int], map_thresholds: float | Mapping[str, float] | None
) -> np.ndarray:
    """Segment of a finding: 0 or 1 as uint8, or for `"probabilities"` float32 in [0, 1]."""
    if values == "boxes":
        mask = np.zeros(size, dtype=np.uint8)
        for box in finding["boxes"]:
            rows = slice(math.floor(box["ymin"]), math.ceil(box["ymax"]))
            mask[rows, math.floor(box["xmin"]) : math.ceil(box["xmax"])] = 1
        return mask
    heat, label = np.asarray(finding["map"], dtype=np.float32), finding["label"]
    stored = stored_map_size(size)
    if heat.shape not in (size, stored):
        raise ValueError(
            f"`map` of {label} must have the image's {size} or {stored}, got {heat.shape}. Pass this image's findings."
        )
    if not np.isfinite(heat).all() or heat.min() < 0:
        raise ValueError(f"`map` of {label} must be finite and at least 0, got others. Check the model's output.")
    if heat.shape != stored:
        heat = np.asarray(Image.fromarray(heat).resize(stored[::-1], Image.Resampling.BOX))
    share = heat / heat.max()
    if values == "probabilities":
        return share
    level = map_thresholds.get(label) if isinstance(map_thresholds, Mapping) else map_thresholds
    if level is None or not 0 < level < 1:
        raise ValueError(f"`map_thresholds` must be inside (0, 1) for {label}, got {level}. Give a share of the peak.")
    return (share > level).astype(np.uint8)


def _place(document: Any, source: ResultSource) -> None:
    """Give the segmentation its pixel spacing, if the image has one."""
    # highdicom reads a spacing only with a slice thickness, which a projection lacks: 1 mm is a placeholder.
    spacing = source.spacing()
    if spacing is None:
        return
    factors = source.size[0] / document.Rows, source.size[1] / document.Columns
    sides = [f"{side * factor:.10g}" for side, factor in zip(spacing, factors, strict=True)]
    measures = item(PixelSpacing=sides, SliceThickness="1")
    document.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence = [measures]


def _overlay(pixels: np.ndarray, findings: Findings) -> Image.Image:
    """Draw the boxes over the image, which is reduced first."""
    image = Image.fromarray(np.asarray(pixels).round().astype(np.uint8))
    height, width = image.size[1], image.size[0]
    if max(image.size) > MAX_OVERLAY_SIDE:
        image.thumbnail((MAX_OVERLAY_SIDE, MAX_OVERLAY_SIDE), Image.Resampling.LANCZOS, reducing_gap=2.0)
    scale = {"x": image.width / width, "y": image.height / height}
    drawn: list[dict[str, Any]] = []
    for finding in findings:
        boxes = [{side: value * scale[side[0]] for side, value in box.items()} for box in finding["boxes"]]
        drawn.append({key: value for key, value in finding.items() if key != "map"} | {"boxes": boxes})
    return draw_findings(np.asarray(image), drawn)


def _with_strip(picture: Image.Image, lines: Sequence[str]) -> Image.Image:
    """The picture with lines of text in a black strip below it, which covers none of the image."""
    width = picture.width
    probe = ImageDraw.Draw(picture)
    largest = max(probe.textlength(line, font=ImageFont.load_default(size=100)) for line in lines)
    size = max(8, min(width // 30, int(0.94 * width / largest * 100)))
    font, step = ImageFont.load_default(size=size), round(1.5 * size)
    extended = Image.new("RGB", (width, picture.height + step * len(lines) + size // 2), "black")
    extended.paste(picture, (0, 0))
    draw = ImageDraw.Draw(extended)
    for number, line in enumerate(lines):
        draw.text((round(0.03 * width), picture.height + size // 4 + number * step), line, fill="white", font=font)
    return extended


__all__ = [
    "CODING_SCHEME",
    "DEFAULT_KINDS",
    "FINDING_CODES",
    "KINDS",
    "NOTICE",
    "DicomResults",
    "Findings",
    "ModelIdentity",
    "ResultOptions",
    "check_kinds",
    "finding_code",
    "quantised",
    "save",
    "stored_map_size",
    "write_dicom_results",
    "write_presentation_state",
    "write_refusal_report",
    "write_secondary_capture",
    "write_segmentation",
    "write_structured_report",
]
