# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Findings as FHIR: a DiagnosticReport, an Observation for each finding and, in R5, an ImagingSelection for each box.

Everything is preliminary, because nobody has read it. R4 has no element for a region of an image, so a box is four
components of its finding's Observation, in pixels of the image from its top left corner; in R5 it is also an
ImagingSelection with the coordinates of a closed polyline (`imageRegion2D`). `fhir.resources`, the extra `fhir`,
checks resources against the schema of their release; its R4B agrees with R4 in all elements used here.

Codes are those of the DICOM results. The patient is only identified by PatientID. HL7 v2 (ORU) is out of scope.

Standards: HL7 FHIR 4.0.1 and 5.0.0, DiagnosticReport, Observation, ImagingSelection.
"""

from __future__ import annotations

import dataclasses
import datetime
import functools
import importlib
import json
import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from .dicom_source import (
    NOTICE,
    SIDES,
    UNDATED,
    Findings,
    ModelIdentity,
    code_of,
    content_hash,
    moment_of,
    polyline,
    quantised,
    text_of,
    zone_of,
)

if TYPE_CHECKING:
    from pydicom import Dataset

_SYSTEMS = {"SCT": "http://snomed.info/sct", "DCM": "http://dicom.nema.org/resources/ontology/DCM"}
_PRIVATE = "urn:clarity_hf:codes"
_UCUM = "http://unitsofmeasure.org"


def fhir_bundle(
    dataset: Dataset,
    findings: Findings,
    model: ModelIdentity,
    *,
    release: Literal["R4", "R5"] = "R4",
    patient_system: str = "urn:clarity_hf:patient",
    created: datetime.datetime | None = None,
    doubt: str = "",
) -> dict[str, Any]:
    """Make a Bundle of type collection: the report, its observations, and in R5 the selections of boxes.

    The same image, findings and model give the same ids.

    Args:
        dataset: The image's header, as `pydicom.dcmread` returns it, with or without its pixel data.
        findings: Result of the pipeline for this image; scores and boxes are rounded by [`quantised`].
        model: The model that made them.
        release: Release of FHIR.
        patient_system: Namespace of PatientID, such as the hospital's.
        created: Time of the report, by default the image's; without a zone it is in the image's. Where no zone is
            known, the date alone is written, and no `issued`.
        doubt: Warning about the image that the report repeats.

    Raises:
        ImportError: The extra `fhir` is not installed.
        ValueError: The release is unknown; the header lacks the image's UID or the study's.
    """
    if release not in ("R4", "R5"):
        raise ValueError(f"`release` must be R4 or R5, got {release!r}. Choose one of them.")
    missing = [name for name in ("SOPInstanceUID", "StudyInstanceUID") if not dataset.get(name)]
    if missing:
        raise ValueError(f"`dataset` must have {', '.join(missing)}, got none. Pass the image's complete header.")
    maker = _Maker(dataset, quantised(findings), model, release, patient_system, created, doubt)
    entries = [{"fullUrl": f"urn:uuid:{one['id']}", "resource": one} for one in maker.resources()]
    return _checked(release, {"resourceType": "Bundle", "type": "collection", "entry": entries})


@dataclasses.dataclass(frozen=True)
class _Maker:
    """What the resources of one image share."""

    dataset: Dataset
    findings: Findings
    model: ModelIdentity
    release: str
    patient_system: str
    created: datetime.datetime | None
    doubt: str

    @functools.cached_property
    def times(self) -> dict[str, str]:
        """`effectiveDateTime` and `issued`: with the offset from UTC, or where it is unknown the date alone."""
        moment = self.created or moment_of(self.dataset)
        if moment == UNDATED:
            return {}
        zone = moment.tzinfo or zone_of(self.dataset)
        if zone is None:  # a time must have its offset
            return {"effectiveDateTime": f"{moment:%Y-%m-%d}"}
        written = moment.replace(tzinfo=zone).isoformat(timespec="seconds")
        return {"effectiveDateTime": written, "issued": written}

    @functools.cached_property
    def _root(self) -> str:
        model, cause = self.model, self.model.settings or content_hash(self.findings)
        image = self.dataset.SOPInstanceUID
        return json.dumps([image, model.weights_hash, model.version, cause, self.release])

    def id(self, *parts: Any) -> str:
        """UUID of a resource of this image."""
        return str(uuid.uuid5(uuid.NAMESPACE_OID, json.dumps(["clarity_hf", self._root, *map(str, parts)])))

    def resources(self) -> list[dict[str, Any]]:
        """The report and everything it refers to."""
        observations = [self._observation(finding) for finding in self.findings]
        boxed = self.findings if self.release == "R5" else ()
        selections = [self._selection(one, number) for one in boxed for number in range(len(one["boxes"]))]
        return [self._report(observations), *observations, *selections]

    def _subject(self) -> dict[str, Any]:
        value = text_of(self.dataset, "PatientID")
        identifier = {"identifier": {"system": self.patient_system, "value": value}} if value else {}
        return {"subject": {"type": "Patient", **identifier}}

    def _study(self) -> dict[str, Any]:
        identifier = {"system": "urn:dicom:uid", "value": f"urn:oid:{self.dataset.StudyInstanceUID}"}
        return {"type": "ImagingStudy", "identifier": identifier}

    def _report(self, observations: list[dict[str, Any]]) -> dict[str, Any]:
        accession = text_of(self.dataset, "AccessionNumber")
        present = [finding["label"].replace("_", " ") for finding in self.findings if finding["present"]]
        notice = f"{NOTICE}. {self.doubt}" if self.doubt else NOTICE
        study = {"study" if self.release == "R5" else "imagingStudy": [self._study()]}
        request = {"type": "ServiceRequest", "identifier": {"type": _ACCESSION, "value": accession}}
        return {
            "resourceType": "DiagnosticReport",
            "id": self.id("report"),
            "identifier": [{"system": "urn:ietf:rfc:3986", "value": f"urn:uuid:{self.id('report')}"}],
            "status": "preliminary",
            "category": [_concept("http://terminology.hl7.org/CodeSystem/v2-0074", "RAD", "Radiology")],
            "code": _concept("http://loinc.org", "18748-4", "Diagnostic imaging study"),
            **self._subject(),
            **self.times,
            **({"basedOn": [request]} if accession else {}),
            **study,
            "result": [{"reference": f"urn:uuid:{one['id']}"} for one in observations],
            "conclusion": f"{', '.join(present) or 'No finding reached its threshold'}. {notice}.",
        }

    def _observation(self, finding: Mapping[str, Any]) -> dict[str, Any]:
        code, scheme, meaning = code_of(finding["label"])
        state = ("POS", "Positive") if finding["present"] else ("NEG", "Negative")
        interpretation = _concept("http://terminology.hl7.org/CodeSystem/v3-ObservationInterpretation", *state)
        regions = [
            {"reference": f"urn:uuid:{self.id('box', finding['label'], n)}"} for n in range(len(finding["boxes"]))
        ]
        image = {"system": "urn:dicom:uid", "value": f"urn:oid:{self.dataset.SOPInstanceUID}"}
        return {
            "resourceType": "Observation",
            "id": self.id("finding", finding["label"]),
            "status": "preliminary",
            "category": [_concept("http://terminology.hl7.org/CodeSystem/observation-category", "imaging", "Imaging")],
            "code": _concept(_SYSTEMS.get(scheme, _PRIVATE), code, meaning),
            **self._subject(),
            **{name: time for name, time in self.times.items() if name == "effectiveDateTime"},
            "valueQuantity": _quantity(finding["score"]),
            "interpretation": [interpretation],
            "method": {
                "text": f"{self.model.name}, clarity_hf {self.model.version}, weights {self.model.weights_hash}"
            },
            "device": {"type": "Device", "display": self.model.name},
            "derivedFrom": [
                {**self._study(), "display": "the study of the image"},
                *(regions if self.release == "R5" else []),
            ],
            "note": [{"text": f"{NOTICE}. Image {image['value']}"}],
            "referenceRange": [{"low": _quantity(finding["threshold"]), "text": "present from this value"}],
            "component": [
                {"code": _box_code(number, side), "valueQuantity": _quantity(box[side], "{pixels}")}
                for number, box in enumerate(finding["boxes"], start=1)
                for side in SIDES
            ],
        }

    def _selection(self, finding: Mapping[str, Any], number: int) -> dict[str, Any]:
        code, scheme, meaning = code_of(finding["label"])
        uid, sop_class = str(self.dataset.SOPInstanceUID), str(self.dataset.get("SOPClassUID") or "")
        region = {"regionType": "polyline", "coordinate": polyline(finding["boxes"][number])}
        kind = {"sopClass": {"system": "urn:ietf:rfc:3986", "code": f"urn:oid:{sop_class}"}} if sop_class else {}
        series = str(self.dataset.get("SeriesInstanceUID") or "")
        return {
            "resourceType": "ImagingSelection",
            "id": self.id("box", finding["label"], number),
            "status": "available",
            **self._subject(),
            "code": _concept(_SYSTEMS.get(scheme, _PRIVATE), code, meaning),
            "derivedFrom": [self._study()],
            "studyUid": str(self.dataset.StudyInstanceUID),
            **({"seriesUid": series} if series else {}),
            "instance": [{"uid": uid, **kind, "imageRegion2D": [region]}],
        }


_ACCESSION = {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v2-0203", "code": "ACSN"}]}


def _concept(system: str, code: str, display: str) -> dict[str, Any]:
    return {"coding": [{"system": system, "code": code, "display": display}]}


def _box_code(number: int, side: str) -> dict[str, Any]:
    text = f"box {number} {side}, pixels of the image, right and bottom exclusive"
    return {"coding": [{"system": _PRIVATE, "code": f"box-{side}"}], "text": text}


def _quantity(value: float, unit: str = "1") -> dict[str, Any]:
    return {"value": float(value), "unit": "pixels" if unit != "1" else "probability", "system": _UCUM, "code": unit}


def _checked(release: str, bundle: dict[str, Any]) -> dict[str, Any]:
    """The bundle without empty elements, checked against the schema of its release."""
    try:
        module = importlib.import_module("fhir.resources.R4B.bundle" if release == "R4" else "fhir.resources.bundle")
    except ImportError as error:
        raise ImportError("FHIR needs fhir.resources. Run pip install 'clarity_hf[fhir]'.") from error
    return json.loads(module.Bundle.model_validate(bundle).model_dump_json())
