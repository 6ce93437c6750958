# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Findings, or why there are none, as a DICOM structured report: TID 1500 in a Comprehensive SR.

The content tree is written here, item by item: highdicom's report copies and searches the tree several times over,
which takes most of a second for fourteen findings. What surrounds it is highdicom's, and highdicom reads it.

Viewers built on cornerstone (OHIF) turn a group into a rectangle by its tracking identifier and look for the
coordinates below the first number; other readers look for them as the region of the group (TID 1410). They stand in
both places.

Standards: DICOM PS3.3 A.35.3 (Comprehensive SR), PS3.16 TID 1500, 1410, 1501, 300, 320.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from .dicom_source import (
    MANUFACTURER,
    Findings,
    ModelIdentity,
    ResultSource,
    check_findings,
    code_of,
    content_hash,
    quantised,
    save,
    uid_of,
)

if TYPE_CHECKING:
    from pydicom import Dataset

TRACKED_RECTANGLE = "Cornerstone3DTools@^0.1.0:RectangleROI"
"""Tracking identifier by which viewers built on cornerstone know that a polyline is a rectangle."""

COMPREHENSIVE_SR = "1.2.840.10008.5.1.4.1.1.88.33"

Code = tuple[str, str, str]

_UNIT = ("1", "UCUM", "no units")
_COMMENT = ("121106", "DCM", "Comment")
_PROCEDURE = ("43468-8", "LN", "XR unspecified body region")
_MEASURED = ("121112", "DCM", "Source of Measurement")
_SELECTED = ("260753009", "SCT", "Source")
_NOTHING_DONE = ("111245", "DCM", "No algorithms succeeded; without findings")


def write_structured_report(
    dataset: Dataset,
    findings: Findings,
    model: ModelIdentity,
    *,
    uids: Literal["same", "new"] = "same",
    created: datetime.datetime | None = None,
    doubt: str = "",
    file: str | os.PathLike | None = None,
) -> Dataset:
    """Make a TID 1500 measurement report (Comprehensive SR) of every finding, present or absent.

    A finding with boxes is one measurement group for each box (TID 1410), with the box as a closed polyline in pixels
    of the image; a finding without is one group (TID 1501). Each group holds the finding's code, its probability
    (DCM 122157, with `SCORE_DIGITS` decimals), its threshold (DCM 122411, exact in FloatingPointValue) and whether it
    is present or absent (DCM 121053, 121054). The report is preliminary, partial and unverified: nobody has read it.

    Args:
        dataset: The image's header, as `pydicom.dcmread` gives it, with or without its pixel data. Left as it is.
        findings: Result of the pipeline for this image; maps are not used.
        model: What made them.
        uids: `"same"` derives UIDs from the image, the model, the kind and what the object shows, so that a second run
            makes the same instance; `"new"` draws random ones.
        created: Local time that the object gives as its own, by default the image's.
        doubt: What the object says of doubts about the image, such as the radiograph check's; ASCII.
        file: Where it is written, if anywhere.

    Returns:
        The report.

    Raises:
        ImportError: The extra `dicom` is not installed.
        ValueError: The header lacks a UID, its rows or columns; a score, a threshold or a box is not finite or out of
            range; there are no findings.
    """
    findings = quantised(findings)
    source = ResultSource(dataset, model, "report", uids, created, content_hash(findings), doubt=doubt)
    check_findings(findings, source)
    return _report(source, [group for finding in findings for group in _groups(finding, source)], file)


def write_refusal_report(
    dataset: Dataset,
    reason: str,
    model: ModelIdentity,
    *,
    uids: Literal["same", "new"] = "same",
    created: datetime.datetime | None = None,
    file: str | os.PathLike | None = None,
) -> Dataset:
    """Make a report that says that an image was not analysed, and why.

    It has one group without a finding, which holds the summary "No algorithms succeeded; without findings" (DCM
    111017, 111245), and the reason as a comment. Its series is that of the findings.

    Args:
        dataset: The image's header, as `pydicom.dcmread` gives it, with or without its pixel data. Left as it is.
        reason: In words, without a patient's name or number.
        model: What did not analyse it.
        uids: As in `write_structured_report`.
        created: As in `write_structured_report`.
        file: Where it is written, if anywhere.

    Returns:
        The report.

    Raises:
        ImportError: The extra `dicom` is not installed.
        ValueError: The header lacks a UID, its rows or columns; there is no reason, or it is not ASCII.
    """
    if not reason or not reason.isascii():
        raise ValueError(f"`reason` must be words in ASCII, got '{reason}'. Say why the image was not analysed.")
    doubt = f"The image was not analysed: {reason}"
    source = ResultSource(dataset, model, "report", uids, created, "refused", ("refused",), doubt)
    summary = _coded("CONTAINS", ("111017", "DCM", "CAD Processing and Findings Summary"), _NOTHING_DONE)
    content = [*_tracked("image", source.uid("tracking")), *_algorithm(model), _image("CONTAINS", source), summary]
    return _report(source, [_group("1501", content)], file)


def _report(source: ResultSource, groups: Sequence[Dataset], file: str | os.PathLike | None) -> Dataset:
    """The document around what it says."""
    from pydicom import Dataset

    document = source.document(COMPREHENSIVE_SR, "SR")
    document.ReferencedPerformedProcedureStepSequence = []
    document.PerformedProcedureCodeSequence = []
    document.CompletionFlag, document.VerificationFlag = "PARTIAL", "UNVERIFIED"
    document.PreliminaryFlag = "PRELIMINARY"
    requests = source.requests()
    if requests:
        document.ReferencedRequestSequence = requests
    series, study = Dataset(), Dataset()
    series.SeriesInstanceUID = source.dataset.SeriesInstanceUID
    series.ReferencedSOPSequence = [source.reference()]
    study.StudyInstanceUID = source.dataset.StudyInstanceUID
    study.ReferencedSeriesSequence = [series]
    document.CurrentRequestedProcedureEvidenceSequence = [study]
    measurements = _container("CONTAINS", ("126010", "DCM", "Imaging Measurements"), groups)
    notice = _text("CONTAINS", _COMMENT, source.notice)
    content = [*_context(source), measurements, notice]
    root = _container("", ("126000", "DCM", "Imaging Measurement Report"), content)
    root.ContentTemplateSequence = [_template("1500")]
    document.update(root)
    document = source.finish(document)
    if file is not None:
        save(document, Path(file))
    return document


def _context(source: ResultSource) -> list[Dataset]:
    """Language, the device that observed, the procedure."""
    model, observed = source.model, "HAS OBS CONTEXT"
    device = _item(observed, "UIDREF", ("121012", "DCM", "Device Observer UID"))
    device.UID = uid_of("device", model.name, model.version, model.weights_hash)
    language = _coded("HAS CONCEPT MOD", ("121049", "DCM", "Language of Content Item and Descendants"), _ENGLISH)
    procedures = source.dataset.get("ProcedureCodeSequence") or ()
    codes: list[Any] = [tuple(str(item.get(name) or "") for name in _CODE) for item in procedures]
    whole = [code for code in codes if all(code)] or [_PROCEDURE]
    return [
        language,
        _coded(observed, ("121005", "DCM", "Observer Type"), ("121007", "DCM", "Device")),
        device,
        _text(observed, ("121013", "DCM", "Device Observer Name"), model.name),
        _text(observed, ("121014", "DCM", "Device Observer Manufacturer"), MANUFACTURER),
        _text(observed, ("121015", "DCM", "Device Observer Model Name"), f"{MANUFACTURER} {model.version}"),
        _text(observed, ("121016", "DCM", "Device Observer Serial Number"), model.weights_hash),
        *(_coded("HAS CONCEPT MOD", ("121058", "DCM", "Procedure reported"), code) for code in whole),
    ]


_ENGLISH = ("en-US", "RFC5646", "English (United States)")
_CODE = ("CodeValue", "CodingSchemeDesignator", "CodeMeaning")


def _groups(finding: Mapping[str, Any], source: ResultSource) -> list[Dataset]:
    """A measurement group for each box of a finding, or one without a region."""
    label = finding["label"]
    if not finding["boxes"]:
        tracked = _tracked(label, source.uid("tracking", label))
        return [_group("1501", [*tracked, *_said(finding, source), _image("CONTAINS", source)])]
    groups = []
    for number, box in enumerate(finding["boxes"], start=1):
        tracked = _tracked(TRACKED_RECTANGLE, source.uid("tracking", f"{label} {number}"))
        below = _region("INFERRED FROM", box, source)
        content = [*tracked, *_said(finding, source, [below]), _region("CONTAINS", box, source)]
        groups.append(_group("1410", content))
    return groups


def _group(template: str, content: Sequence[Dataset]) -> Dataset:
    group = _container("CONTAINS", ("125007", "DCM", "Measurement Group"), content)
    group.ContentTemplateSequence = [_template(template)]
    return group


def _tracked(identifier: str, uid: str) -> list[Dataset]:
    item = _item("HAS OBS CONTEXT", "UIDREF", ("112040", "DCM", "Tracking Unique Identifier"))
    item.UID = uid
    return [_text("HAS OBS CONTEXT", ("112039", "DCM", "Tracking Identifier"), identifier), item]


def _algorithm(model: ModelIdentity) -> list[Dataset]:
    said = [("111001", "Algorithm Name", model.name), ("111003", "Algorithm Version", model.version)]
    said.append(("111002", "Algorithm Parameters", f"weights {model.weights_hash}"))
    return [_text("HAS CONCEPT MOD", (value, "DCM", meaning), text) for value, meaning, text in said]


def _said(finding: Mapping[str, Any], source: ResultSource, below: Sequence[Dataset] = ()) -> list[Dataset]:
    """What a group says of its finding; `below` its probability stands what that was inferred from."""
    presence = ("121053", "DCM", "Present") if finding["present"] else ("121054", "DCM", "Absent")
    probability = _number(("122157", "DCM", "Probability"), finding["score"])
    if below:
        probability.ContentSequence = list(below)
    return [
        _coded("CONTAINS", ("121071", "DCM", "Finding"), code_of(finding["label"])),
        *_algorithm(source.model),
        probability,
        _number(("122411", "DCM", "Threshold Value"), finding["threshold"]),
        _coded("CONTAINS", ("121052", "DCM", "Presence of property"), presence),
        _text("CONTAINS", _COMMENT, f"{finding['label'].replace('_', ' ')} {finding['score']:.2f}"),
    ]


# Content items


def _code(code: Code) -> Dataset:
    from pydicom import Dataset

    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code
    return item


def _template(identifier: str) -> Dataset:
    from pydicom import Dataset

    item = Dataset()
    item.MappingResource, item.TemplateIdentifier = "DCMR", identifier
    return item


def _item(relationship: str, value_type: str, name: Code) -> Dataset:
    from pydicom import Dataset

    item = Dataset()
    if relationship:
        item.RelationshipType = relationship
    item.ValueType = value_type
    item.ConceptNameCodeSequence = [_code(name)]
    return item


def _container(relationship: str, name: Code, content: Sequence[Dataset]) -> Dataset:
    item = _item(relationship, "CONTAINER", name)
    item.ContinuityOfContent = "SEPARATE"
    item.ContentSequence = list(content)
    return item


def _coded(relationship: str, name: Code, value: Code) -> Dataset:
    item = _item(relationship, "CODE", name)
    item.ConceptCodeSequence = [_code(value)]
    return item


def _text(relationship: str, name: Code, value: str) -> Dataset:
    item = _item(relationship, "TEXT", name)
    item.TextValue = value
    return item


def _number(name: Code, value: float) -> Dataset:
    from pydicom import Dataset
    from pydicom.valuerep import format_number_as_ds

    item, measured = _item("CONTAINS", "NUM", name), Dataset()
    measured.NumericValue = format_number_as_ds(float(value))
    measured.FloatingPointValue = float(value)
    measured.MeasurementUnitsCodeSequence = [_code(_UNIT)]
    item.MeasuredValueSequence = [measured]
    return item


def _region(relationship: str, box: Mapping[str, float], source: ResultSource) -> Dataset:
    """A box as a closed polyline, clockwise from the top left corner, on the image."""
    x0, y0, x1, y1 = (box[side] for side in ("xmin", "ymin", "xmax", "ymax"))
    region = _item(relationship, "SCOORD", ("111030", "DCM", "Image Region"))
    region.GraphicType = "POLYLINE"
    region.GraphicData = [x0, y0, x1, y0, x1, y1, x0, y1, x0, y0]
    region.ContentSequence = [_image("SELECTED FROM", source)]
    return region


def _image(relationship: str, source: ResultSource) -> Dataset:
    item = _item(relationship, "IMAGE", _SELECTED if relationship == "SELECTED FROM" else _MEASURED)
    item.ReferencedSOPSequence = [source.reference()]
    return item
