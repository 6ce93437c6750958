# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Findings, or the reason why there are none, as a DICOM structured report: TID 1500 in a Comprehensive SR.

The content tree is built here, item by item, because highdicom copies and searches the tree several times, which takes
most of a second for fourteen findings. The document around it is made by highdicom, which can read the result.

Viewers built on cornerstone (OHIF) recognize a rectangle by the tracking identifier of its group and look for its
coordinates below the first number, other readers in the region of the group (TID 1410). The report has them in both.

Standards: DICOM PS3.3 A.35.3 (Comprehensive SR), PS3.16 TID 1500, 1410, 1501, 300, 320.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .dicom_source import (
    DEFAULT_OPTIONS,
    MANUFACTURER,
    Findings,
    ModelIdentity,
    ResultOptions,
    ResultSource,
    check_findings,
    code_of,
    content_hash,
    item,
    polyline,
    quantised,
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
    dataset: Dataset, findings: Findings, model: ModelIdentity, options: ResultOptions = DEFAULT_OPTIONS
) -> Dataset:
    """Make a TID 1500 measurement report (Comprehensive SR) of every finding, present or absent.

    A finding with boxes is one measurement group for each box (TID 1410), with the box as a closed polyline in pixels
    of the image; a finding without is one group (TID 1501). Each group contains the finding's code, its probability
    (DCM 122157, with `SCORE_DIGITS` decimals), its threshold (DCM 122411, exact in FloatingPointValue) and whether it
    is present or absent (DCM 121053, 121054). The report is preliminary, partial and unverified: nobody has read it.

    Args:
        dataset: The image's header, as `pydicom.dcmread` returns it, with or without its pixel data; not modified.
        findings: Result of the pipeline for this image; maps are not used.
        model: The model that made them.
        options: UIDs, time and warning.

    Raises:
        ImportError: The extra `dicom` is not installed.
        ValueError: The header lacks a UID, its rows or columns; a score, a threshold or a box is not finite or out of
            range; there are no findings.
    """
    findings = quantised(findings)
    source = ResultSource(dataset, model, "report", content_hash(findings), options)
    check_findings(findings, source)
    return _report(source, [group for finding in findings for group in _groups(finding, source)])


def write_refusal_report(
    dataset: Dataset, reason: str, model: ModelIdentity, options: ResultOptions = DEFAULT_OPTIONS
) -> Dataset:
    """Make a report that says that an image was not analysed, and why, in ASCII without a patient's name or number.

    It has one group without a finding, which contains the summary "No algorithms succeeded; without findings" (DCM
    111017, 111245), and the reason as a comment. Its series is that of the findings. Other arguments are those of
    [`write_structured_report`].

    Raises:
        ImportError: The extra `dicom` is not installed.
        ValueError: The header lacks a UID, its rows or columns; there is no reason, or it is not ASCII.
    """
    if not reason or not reason.isascii():
        raise ValueError(f"`reason` must be words in ASCII, got '{reason}'. Say why the image was not analysed.")
    options = dataclasses.replace(options, doubt=f"The image was not analysed: {reason}")
    source = ResultSource(dataset, model, "report", "refused", options, ("refused",))
    summary = _coded("CONTAINS", ("111017", "DCM", "CAD Processing and Findings Summary"), _NOTHING_DONE)
    content = [*_tracked("image", source.uid("tracking")), *_algorithm(model), _image("CONTAINS", source), summary]
    return _report(source, [_group("1501", content)])


def _report(source: ResultSource, groups: Sequence[Dataset]) -> Dataset:
    """The document around its measurement groups."""
    document = source.document(COMPREHENSIVE_SR, "SR")
    document.ReferencedPerformedProcedureStepSequence = []
    document.PerformedProcedureCodeSequence = []
    document.CompletionFlag, document.VerificationFlag = "PARTIAL", "UNVERIFIED"
    document.PreliminaryFlag = "PRELIMINARY"
    requests = source.requests()
    if requests:
        document.ReferencedRequestSequence = requests
    series = item(SeriesInstanceUID=source.dataset.SeriesInstanceUID, ReferencedSOPSequence=[source.reference()])
    study = item(StudyInstanceUID=source.dataset.StudyInstanceUID, ReferencedSeriesSequence=[series])
    document.CurrentRequestedProcedureEvidenceSequence = [study]
    measurements = _container("CONTAINS", ("126010", "DCM", "Imaging Measurements"), groups)
    content = [*_context(source), measurements, _text("CONTAINS", _COMMENT, source.notice)]
    root = _container("", ("126000", "DCM", "Imaging Measurement Report"), content)
    root.ContentTemplateSequence = [_template("1500")]
    document.update(root)
    return source.finish(document)


def _context(source: ResultSource) -> list[Dataset]:
    """Language, the device that observed, the procedure."""
    model, observed = source.model, "HAS OBS CONTEXT"
    uid = uid_of("device", model.name, model.version, model.weights_hash)
    device = _item(observed, "UIDREF", ("121012", "DCM", "Device Observer UID"), UID=uid)
    language = _coded("HAS CONCEPT MOD", ("121049", "DCM", "Language of Content Item and Descendants"), _ENGLISH)
    procedures = source.dataset.get("ProcedureCodeSequence") or ()
    codes: list[Any] = [tuple(str(procedure.get(name) or "") for name in _CODE) for procedure in procedures]
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
    unique = _item("HAS OBS CONTEXT", "UIDREF", ("112040", "DCM", "Tracking Unique Identifier"), UID=uid)
    return [_text("HAS OBS CONTEXT", ("112039", "DCM", "Tracking Identifier"), identifier), unique]


def _algorithm(model: ModelIdentity) -> list[Dataset]:
    said = [("111001", "Algorithm Name", model.name), ("111003", "Algorithm Version", model.version)]
    said.append(("111002", "Algorithm Parameters", f"weights {model.weights_hash}"))
    return [_text("HAS CONCEPT MOD", (value, "DCM", meaning), text) for value, meaning, text in said]


def _said(finding: Mapping[str, Any], source: ResultSource, below: Sequence[Dataset] = ()) -> list[Dataset]:
    """Content of a finding's group, with the items `below` its probability."""
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
    value, scheme, meaning = code
    return item(CodeValue=value, CodingSchemeDesignator=scheme, CodeMeaning=meaning)


def _template(identifier: str) -> Dataset:
    return item(MappingResource="DCMR", TemplateIdentifier=identifier)


def _item(relationship: str, value_type: str, name: Code, **value: Any) -> Dataset:
    related = {"RelationshipType": relationship} if relationship else {}
    return item(**related, ValueType=value_type, ConceptNameCodeSequence=[_code(name)], **value)


def _container(relationship: str, name: Code, content: Sequence[Dataset]) -> Dataset:
    return _item(relationship, "CONTAINER", name, ContinuityOfContent="SEPARATE", ContentSequence=list(content))


def _coded(relationship: str, name: Code, value: Code) -> Dataset:
    return _item(relationship, "CODE", name, ConceptCodeSequence=[_code(value)])


def _text(relationship: str, name: Code, value: str) -> Dataset:
    return _item(relationship, "TEXT", name, TextValue=value)


def _number(name: Code, value: float) -> Dataset:
    from pydicom.valuerep import format_number_as_ds

    measured = item(
        NumericValue=format_number_as_ds(float(value)),
        FloatingPointValue=float(value),
        MeasurementUnitsCodeSequence=[_code(_UNIT)],
    )
    return _item("CONTAINS", "NUM", name, MeasuredValueSequence=[measured])


def _region(relationship: str, box: Mapping[str, float], source: ResultSource) -> Dataset:
    """A box as a closed polyline, clockwise from the top left corner, on the image."""
    return _item(
        relationship,
        "SCOORD",
        ("111030", "DCM", "Image Region"),
        GraphicType="POLYLINE",
        GraphicData=polyline(box),
        ContentSequence=[_image("SELECTED FROM", source)],
    )


def _image(relationship: str, source: ResultSource) -> Dataset:
    name = _SELECTED if relationship == "SELECTED FROM" else _MEASURED
    return _item(relationship, "IMAGE", name, ReferencedSOPSequence=[source.reference()])
