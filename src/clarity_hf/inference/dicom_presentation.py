# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Findings as a DICOM presentation state: boxes and labels that a viewer draws over the image itself.

The image keeps its appearance: its own modality and VOI transformations, polarity and displayed area are repeated.
Coordinates of unit PIXEL have their origin at the top left corner of the top left pixel, like boxes here (DICOM
PS3.3 C.10.5).

Standard: DICOM PS3.3 A.33.1 (Grayscale Softcopy Presentation State), C.11.6 (presentation LUT).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .dicom_source import (
    DEFAULT_OPTIONS,
    Findings,
    ModelIdentity,
    ResultOptions,
    ResultSource,
    check_findings,
    content_hash,
    item,
    polyline,
    quantised,
)

if TYPE_CHECKING:
    from pydicom import Dataset

GRAYSCALE_SOFTCOPY_PRESENTATION_STATE = "1.2.840.10008.5.1.4.1.1.11.1"

LAYER = "AI_FINDINGS"
"""Graphic layer of boxes and labels, which a viewer can hide."""

_ORANGE = [46653, 38053, 52082]  # CIELab of "#E69F00" as PCS values (PS3.3 C.10.7.1.1)
_LABEL = 0.03  # height of a label, as a share of the image's longer side
_MODALITY = ("ModalityLUTSequence", "RescaleIntercept", "RescaleSlope", "RescaleType")
_WINDOW = ("WindowCenter", "WindowWidth", "WindowCenterWidthExplanation", "VOILUTFunction")


def write_presentation_state(
    dataset: Dataset, findings: Findings, model: ModelIdentity, options: ResultOptions = DEFAULT_OPTIONS
) -> Dataset:
    """Make a Grayscale Softcopy Presentation State with the boxes of present findings, their labels and the notice.

    Arguments and errors are those of [`write_structured_report`]. Without a present finding it shows only the notice.
    """
    findings = quantised(findings)
    source = ResultSource(dataset, model, "presentation", content_hash(findings), options)
    check_findings(findings, source)
    state = source.document(GRAYSCALE_SOFTCOPY_PRESENTATION_STATE, "PR")
    state.ContentLabel, state.ContentDescription = LAYER, source.notice[:64]
    state.ContentCreatorName = ""
    state.Laterality = dataset.get("Laterality") or ""
    state.PresentationCreationDate, state.PresentationCreationTime = source.stamp()
    series = item(SeriesInstanceUID=dataset.SeriesInstanceUID, ReferencedImageSequence=[source.reference()])
    state.ReferencedSeriesSequence = [series]
    state.DisplayedAreaSelectionSequence = [_whole_area(source)]
    state.GraphicAnnotationSequence = [_annotation(findings, source)]
    layer = item(
        GraphicLayer=LAYER,
        GraphicLayerOrder=1,
        GraphicLayerRecommendedDisplayCIELabValue=_ORANGE,
        GraphicLayerDescription="Boxes and labels of findings",
    )
    state.GraphicLayerSequence = [layer]
    _repeat_grey_levels(state, dataset)
    return source.finish(state)


def _annotation(findings: Sequence[Mapping[str, Any]], source: ResultSource) -> Dataset:
    annotation = item(ReferencedImageSequence=[source.reference()], GraphicLayer=LAYER)
    shown = [(finding, box) for finding in findings if finding["present"] for box in finding["boxes"]]
    labels = [_label(f"{finding['label']} {finding['score']:.2f}", box, source.size) for finding, box in shown]
    if shown:
        annotation.GraphicObjectSequence = [_rectangle(box) for _, box in shown]
    annotation.TextObjectSequence = [*labels, _text(source.notice, "DISPLAY", (0.01, 0.95, 0.99, 0.99))]
    return annotation


def _rectangle(box: Mapping[str, float]) -> Dataset:
    return item(
        GraphicAnnotationUnits="PIXEL",
        GraphicDimensions=2,
        NumberOfGraphicPoints=5,
        GraphicData=polyline(box),
        GraphicType="POLYLINE",
        GraphicFilled="N",
    )


def _label(text: str, box: Mapping[str, float], size: tuple[int, int]) -> Dataset:
    """Text above a box, or inside its upper edge if there is no room above; a letter is half as wide as high."""
    height = max(1.0, _LABEL * max(size))
    width = min(size[1], height * (len(text) + 2) / 2)
    left = max(0.0, min(box["xmin"], size[1] - width))
    top = box["ymin"] - height if box["ymin"] >= height else box["ymin"]
    return _text(text.replace("_", " "), "PIXEL", (left, top, left + width, top + height))


def _text(text: str, units: str, corners: tuple[float, float, float, float]) -> Dataset:
    return item(
        BoundingBoxAnnotationUnits=units,
        UnformattedTextValue=text,
        BoundingBoxTopLeftHandCorner=list(corners[:2]),
        BoundingBoxBottomRightHandCorner=list(corners[2:]),
        BoundingBoxTextHorizontalJustification="LEFT",
    )


def _whole_area(source: ResultSource) -> Dataset:
    """The displayed area: the entire image, as large as the display allows."""
    area = item(
        ReferencedImageSequence=[source.reference()],
        DisplayedAreaTopLeftHandCorner=[1, 1],  # unlike in graphics, the first pixel is 1
        DisplayedAreaBottomRightHandCorner=[source.size[1], source.size[0]],
        PresentationSizeMode="SCALE TO FIT",
    )
    spacing = source.spacing()
    if spacing is None:
        ratio = source.dataset.get("PixelAspectRatio")
        area.PresentationPixelAspectRatio = [round(float(part)) for part in ratio] if ratio else [1, 1]
    else:
        area.PresentationPixelSpacing = list(spacing)
    return area


def _repeat_grey_levels(state: Dataset, dataset: Dataset) -> None:
    """Copy the image's grey-level transformations: a presentation state without a window would remove its own."""
    for name in _MODALITY:
        if name in dataset:
            state[name] = copy.deepcopy(dataset[name])
    if dataset.get("ModalityLUTSequence"):
        state.ModalityLUTSequence = _tables(dataset, "ModalityLUTSequence")
    if "ModalityLUTSequence" not in state and "RescaleSlope" in state and "RescaleType" not in state:
        state.RescaleType = "US"
    window = item()
    if dataset.get("VOILUTSequence"):
        window.VOILUTSequence = [_of_16_bits(table) for table in _tables(dataset, "VOILUTSequence")]
    if dataset.get("WindowCenter") not in (None, "") and dataset.get("WindowWidth") not in (None, ""):
        for name in _WINDOW:
            if dataset.get(name) not in (None, ""):
                window[name] = copy.deepcopy(dataset[name])
    if len(window):
        state.SoftcopyVOILUTSequence = [window]
    dark = (
        dataset.get("PhotometricInterpretation") == "MONOCHROME1" or dataset.get("PresentationLUTShape") == "INVERSE"
    )
    state.PresentationLUTShape = "INVERSE" if dark else "IDENTITY"


def _tables(dataset: Dataset, name: str) -> list[Dataset]:
    """Copies of an image's tables, with their words in the order of written files; pydicom leaves them as read."""
    tables = list(copy.deepcopy(dataset[name].value))
    for table in tables if dataset.original_encoding[1] is False else ():
        if isinstance(table.get("LUTData"), bytes):
            table.LUTData = np.frombuffer(table.LUTData, ">u2").astype("<u2").tobytes()
    return tables


def _of_16_bits(table: Dataset) -> Dataset:
    """A table with the same greys whose entries have 8 or 16 bits, as a presentation state requires."""
    entries, first, bits = (int(number) for number in table.LUTDescriptor)
    if 8 < bits < 16:
        data = table.LUTData
        values = np.frombuffer(data, "<u2") if isinstance(data, bytes) else np.asarray(data, dtype=np.float64)
        scaled = (values * (65535 / (2**bits - 1))).round().clip(0, 65535).astype(int).tolist()
        table.add_new("LUTData", "US", scaled)
        table.add_new("LUTDescriptor", table["LUTDescriptor"].VR, [entries, first, 16])
    return table
