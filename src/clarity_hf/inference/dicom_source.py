# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""What all DICOM objects of one image share: model, UIDs, times, patient, study and request.

UIDs are derived from the image's SOP Instance UID, the weights, the version, the kind and the settings of
`ModelIdentity`, or from the findings if the settings are unknown. Findings are rounded before they are hashed and
written ([`quantised`]), and times are the image's own, so that a second run writes the same bytes, whatever its
batches and processes. Other settings or weights give other UIDs: content never changes under a known one.

Standards: DICOM PS3.5 B.2 (UIDs), PS3.3 C.7.1 to C.7.5 (patient, study, series, equipment), C.12.1 (SOP common).
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import datetime
import hashlib
import importlib.metadata
import json
import math
import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from pydicom import DataElement, Dataset

SIDES = ("xmin", "ymin", "xmax", "ymax")
"""Sides of a box."""

Findings = Sequence[Mapping[str, Any]]
"""Result of the pipeline for one image: a dict for each finding."""

NOTICE = "AI output, research use, not for diagnosis"
"""Notice in every object."""

MANUFACTURER = "clarity_hf"

CODING_SCHEME = "99CLARITY"
"""Private coding scheme for findings without a verified public code."""

FINDING_CODES: dict[str, tuple[str, str, str]] = {
    "Atelectasis": ("46621007", "SCT", "Atelectasis"),
    "Cardiomegaly": ("8186001", "SCT", "Cardiomegaly"),
    "Effusion": ("60046008", "SCT", "Pleural effusion"),
    "Infiltration": ("112121", "DCM", "Infiltrate"),
    "Mass": ("4147007", "SCT", "Mass"),
    "Nodule": ("27925004", "SCT", "Nodule"),
    "Pneumonia": ("233604007", "SCT", "Pneumonia"),
    "Pneumothorax": ("36118008", "SCT", "Pneumothorax"),
    "Consolidation": ("95436008", "SCT", "Lung consolidation"),
    "Edema": ("19242006", "SCT", "Pulmonary edema"),
    "Emphysema": ("87433001", "SCT", "Pulmonary emphysema"),
    "Fibrosis": ("112674009", "SCT", "Fibrosis"),
}
"""Code value, coding scheme and meaning of findings.

Those of Effusion, Infiltration, Mass, Nodule, Pneumothorax, Edema and Fibrosis are in tables of the DICOM standard
(PS3.16); the other five are SNOMED CT concepts. Nodule is not coded as "solitary nodule of lung", because there may be
several. Pleural_Thickening, Hernia (whose kind the labels do not say) and other findings get a code of
`CODING_SCHEME`."""

SERIES = {
    "report": (9801, "AI findings (report), not for diagnosis"),
    "boxes": (9802, "AI findings (boxes), not for diagnosis"),
    "regions": (9803, "AI findings (regions), not for diagnosis"),
    "probabilities": (9804, "AI findings (maps), not for diagnosis"),
    "overlay": (9805, "AI findings (overlay), not for diagnosis"),
    "presentation": (9806, "AI findings (marks), not for diagnosis"),
}
"""Number and description of the series of each kind."""

LAYOUT = "2"
"""Part of every UID, incremented when the same findings are written differently, because a PACS keeps the first object
that it receives under a UID."""

SCORE_DIGITS = 4
"""Decimals of a score in results. Scores differ by 1e-7 between batch sizes."""

BOX_STEPS = 8
"""Sides of boxes in results are multiples of 1 / `BOX_STEPS` pixels."""

UNDATED = datetime.datetime(1970, 1, 1)
"""Time of results of an image without a date."""

# Attributes that highdicom requires but that may be missing.
_EXPECTED = ("PatientID", "AccessionNumber", "StudyID")
_NEEDED = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "Rows", "Columns", "Modality")
_LOSSY = ("LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod")

# Attributes by which a PACS links results to an order, of the image and of an item of RequestAttributesSequence.
_JOINING = (
    "TimezoneOffsetFromUTC",
    "RequestAttributesSequence",
    "ProcedureCodeSequence",
    "RequestingService",
    "RequestedProcedureDescription",
    "RequestedProcedureCodeSequence",
    "IssuerOfAccessionNumberSequence",
)
_REQUEST = (
    "AccessionNumber",
    "IssuerOfAccessionNumberSequence",
    "OrderPlacerIdentifierSequence",
    "OrderFillerIdentifierSequence",
    "RequestedProcedureID",
    "RequestedProcedureDescription",
    "RequestedProcedureCodeSequence",
)


@dataclasses.dataclass(frozen=True)
class ModelIdentity:
    """The model that made an object.

    Attributes:
        name: Such as `clarity-s16-224`. It is sent to the PACS, so do not pass a path.
        weights_hash: Hash of the weights, from [`weights_digest`].
        version: Version of this package, by default the installed one.
        settings: Hash of everything else that decides the findings, such as thresholds and preprocessing. UIDs are
            derived from it, or from the findings if it is empty.

    Raises:
        ValueError: One of them is not 1 to 64 ASCII characters without a backslash; only `settings` may be empty.
    """

    name: str
    weights_hash: str
    version: str = dataclasses.field(default_factory=lambda: importlib.metadata.version("clarity_hf"))
    settings: str = ""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            text = getattr(self, field.name)
            short = 0 if field.name == "settings" else 1
            if not short <= len(text) <= 64 or not text.isascii() or not text.isprintable() or "\\" in text:
                raise ValueError(
                    f"`{field.name}` must be 1 to 64 ASCII characters without a backslash, got '{text}'. Shorten it."
                )

    @classmethod
    def of(cls, model: Any, name: str, settings: Mapping[str, Any] | None = None) -> ModelIdentity:
        """Name a model, such as `pipeline.model`, and hash its weights and the settings, which are JSON values."""
        from clarity_hf.fingerprints import weights_digest

        described = "" if settings is None else json.dumps(settings, sort_keys=True, default=str)
        digest = hashlib.sha256(described.encode()).hexdigest()[:16] if described else ""
        return cls(name, weights_digest(model), settings=digest)


@dataclasses.dataclass(frozen=True)
class ResultOptions:
    """Options of all objects made from one image.

    Attributes:
        uids: `"same"` derives UIDs from the image, the model, the kind and the content, so that a second run makes the
            same instance; `"new"` makes random ones.
        created: Local time of the objects, by default the image's.
        doubt: Warning about the image that the objects repeat, such as the radiograph check's; ASCII.
        map_thresholds: For segmentations of regions: share of the map's peak in (0, 1), for all findings or by label.

    Raises:
        ValueError: `uids` is neither `"same"` nor `"new"`.
    """

    uids: Literal["same", "new"] = "same"
    created: datetime.datetime | None = None
    doubt: str = ""
    map_thresholds: float | Mapping[str, float] | None = None

    def __post_init__(self) -> None:
        if self.uids not in ("same", "new"):
            raise ValueError(f"`uids` must be 'same' or 'new', got '{self.uids}'. Choose one of them.")


DEFAULT_OPTIONS = ResultOptions()
"""Reproducible UIDs, the image's own time, no warning."""


class ResultSource:
    """The image that an object is made from: its header for highdicom, the object's UIDs, its final attributes.

    Args:
        dataset: The image's header, with or without its pixel data; not modified.
        model: The model that made the object.
        kind: Key of `SERIES`.
        content: Hash of what the object shows, from [`content_hash`], for a model without known settings.
        options: Options of the object.
        choices: Further arguments that change the object and therefore its UID.

    Raises:
        ValueError: The header lacks a UID, its rows or columns, or has several frames.
    """

    def __init__(
        self,
        dataset: Dataset,
        model: ModelIdentity,
        kind: str,
        content: str,
        options: ResultOptions = DEFAULT_OPTIONS,
        choices: Sequence[Any] = (),
    ) -> None:
        missing = missing_attributes(dataset)
        if missing:
            raise ValueError(f"`dataset` must have {', '.join(missing)}, got none. Pass the image's complete header.")
        if int(dataset.get("NumberOfFrames") or 1) != 1:
            raise ValueError(f"`dataset` must be of one image, got {dataset.NumberOfFrames} frames. Split them first.")
        self.dataset, self.model, self.kind, self.doubt = dataset, model, kind, options.doubt
        self.created = options.created or moment_of(dataset)
        self.header = _header_for_highdicom(dataset)
        self.size = (int(dataset.Rows), int(dataset.Columns))
        image = dataset.SOPInstanceUID if options.uids == "same" else uuid.uuid4().hex
        self._root = (LAYOUT, image, model.weights_hash, model.version, kind)
        stamp = "" if options.created is None else options.created.isoformat()
        self._cause = (model.settings or content, json.dumps([*choices, options.doubt, stamp], default=str))

    @property
    def notice(self) -> str:
        """The research notice, followed by the warning about the image."""
        return f"{NOTICE}. {self.doubt}" if self.doubt else NOTICE

    def uid(self, *parts: str) -> str:
        """UID of a named part of this object, the same for every content."""
        return uid_of(*self._root, *parts)

    def arguments(self) -> dict[str, Any]:
        """Arguments common to all classes of highdicom."""
        return {
            "series_instance_uid": self.uid("series"),
            "series_number": SERIES[self.kind][0],
            "sop_instance_uid": self.uid("instance", *self._cause),
            "instance_number": 1,
            "manufacturer": MANUFACTURER,
            "manufacturer_model_name": self.model.name,
            "software_versions": f"{MANUFACTURER} {self.model.version}",
            "device_serial_number": self.model.weights_hash,
            "content_qualification": "RESEARCH",
            "series_description": SERIES[self.kind][1],
            "transfer_syntax_uid": "1.2.840.10008.1.2.1",
        }

    def document(self, sop_class_uid: str, modality: str) -> Any:
        """Make an object without pixels that has only the common attributes."""
        hd, _ = highdicom_and_codes()
        return hd.base.SOPClass(
            study_instance_uid=self.dataset.StudyInstanceUID,
            sop_class_uid=sop_class_uid,
            modality=modality,
            patient_id=self.header.PatientID,
            patient_sex="",
            **self.arguments(),
        )

    def reference(self) -> Dataset:
        """An item that refers to the image."""
        return item(
            ReferencedSOPClassUID=self.dataset.SOPClassUID, ReferencedSOPInstanceUID=self.dataset.SOPInstanceUID
        )

    def spacing(self) -> tuple[float, float] | None:
        """Height and width of a pixel in mm, preferably in the patient's plane; None if unknown."""
        for name in ("PixelSpacing", "ImagerPixelSpacing"):
            value = self.dataset.get(name)
            if value is not None and len(value) == 2 and all(0 < float(side) < math.inf for side in value):
                return float(value[0]), float(value[1])
        return None

    def requests(self) -> list[Dataset]:
        """The orders of the image, as items of a report's ReferencedRequestSequence."""
        found = []
        for asked in self.dataset.get("RequestAttributesSequence") or ():
            order = item(
                StudyInstanceUID=asked.get("StudyInstanceUID") or self.dataset.StudyInstanceUID,
                ReferencedStudySequence=copy.deepcopy(list(asked.get("ReferencedStudySequence") or ())),
                AccessionNumber=self.dataset.get("AccessionNumber") or "",
                PlacerOrderNumberImagingServiceRequest="",
                FillerOrderNumberImagingServiceRequest="",
                RequestedProcedureID="",
                RequestedProcedureDescription="",
                RequestedProcedureCodeSequence=[],
            )
            for name in _REQUEST:
                if asked.get(name):
                    order[name] = copy.deepcopy(asked[name])
            found.append(order)
        return found

    def finish(self, document: Any) -> Any:
        """Copy patient, study and request unchanged from the image to an object, set its time, and return it."""
        document.copy_patient_and_study_information(copy.deepcopy(self.dataset[:0x7FE00000]))
        for name in _JOINING:
            if name in self.dataset:
                document[name] = copy.deepcopy(self.dataset[name])
        if "Rows" in document:  # required in images, empty if unknown
            document.PatientOrientation = list(self.dataset.get("PatientOrientation") or [])

        def restore_class(reference: Dataset, element: DataElement) -> None:
            if element.keyword == "ReferencedSOPInstanceUID" and element.value == self.dataset.SOPInstanceUID:
                reference.ReferencedSOPClassUID = self.dataset.SOPClassUID

        document.walk(restore_class)
        if "SpecificCharacterSet" in self.dataset:
            document.SpecificCharacterSet = self.dataset.SpecificCharacterSet
        date, time = self.stamp()
        for name in ("Series", "InstanceCreation", *(["Content"] if "ContentDate" in document else [])):
            setattr(document, f"{name}Date", date)
            setattr(document, f"{name}Time", time)
        for equipment in document.get("ContributingEquipmentSequence", []):
            if "ContributionDateTime" in equipment and equipment.get("ManufacturerModelName") == "highdicom":
                equipment.ContributionDateTime = date + time
        return document

    def stamp(self) -> tuple[str, str]:
        """Date and time of the object, as DICOM writes them."""
        return self.created.strftime("%Y%m%d"), self.created.strftime("%H%M%S.%f")


def item(**attributes: Any) -> Dataset:
    """A data set from its attributes, by their DICOM keywords."""
    from pydicom import Dataset

    made = Dataset()
    for keyword, value in attributes.items():
        setattr(made, keyword, value)
    return made


def polyline(box: Mapping[str, float]) -> list[float]:
    """Corners of a box as x, y, x, y, ..., clockwise from the top left one and back to it."""
    x0, y0, x1, y1 = (box[side] for side in SIDES)
    return [x0, y0, x1, y0, x1, y1, x0, y1, x0, y0]


def missing_attributes(dataset: Dataset) -> list[str]:
    """Keywords of the attributes that results need and that an image's header lacks."""
    return [name for name in _NEEDED if dataset.get(name) in (None, "")]


def text_of(dataset: Dataset, keyword: str) -> str:
    """An element as text, several values with backslashes between them as in the file; empty if it is absent."""
    value = dataset.get(keyword)
    several = not isinstance(value, str) and isinstance(value, Sequence)
    return "\\".join(map(str, value)) if several else str(value or "")


def zone_of(dataset: Dataset) -> datetime.tzinfo | None:
    """Zone of [`moment_of`]: TimezoneOffsetFromUTC, else that of AcquisitionDateTime, else unknown."""
    from pydicom.valuerep import DT

    written = re.fullmatch(r"([+-])(0\d|1[0-4])([0-5]\d)", text_of(dataset, "TimezoneOffsetFromUTC").strip())
    if written:
        offset = datetime.timedelta(hours=int(written[2]), minutes=int(written[3]))
        return datetime.timezone(-offset if written[1] == "-" else offset)
    both = _parsed(dataset.get("AcquisitionDateTime"), DT)
    return None if both is None else both.tzinfo


def moment_of(dataset: Dataset) -> datetime.datetime:
    """Local time at which an image was acquired, else that of its content, its series or its study, else `UNDATED`."""
    from pydicom.valuerep import DA, DT, TM

    both = _parsed(dataset.get("AcquisitionDateTime"), DT)
    if both is not None and both.tzinfo is not None:
        both = both.astimezone(zone_of(dataset))
    moments = [(both, both)]
    for name in ("Acquisition", "Content", "Series", "Study"):
        moments.append((_parsed(dataset.get(f"{name}Date"), DA), _parsed(dataset.get(f"{name}Time"), TM)))
    for date, time in moments:
        if date is not None:
            clock = () if time is None else (time.hour, time.minute, time.second, time.microsecond)
            return datetime.datetime(date.year, date.month, date.day, *clock)
    return UNDATED


def quantised(findings: Findings) -> list[dict[str, Any]]:
    """Copy findings with scores rounded to `SCORE_DIGITS` decimals and boxes to 1 / `BOX_STEPS` of a pixel.

    A side moves by at most 1/16 of a pixel, or 1/8 if the box would be empty. A model's outputs differ in the last
    digits between batches; the rounded values do not.
    """
    return [
        dict(finding)
        | {"score": round(float(finding["score"]), SCORE_DIGITS)}
        | {"boxes": [_quantised_box(box) for box in finding["boxes"]]}
        for finding in findings
    ]


def _quantised_box(box: Mapping[str, float]) -> dict[str, float]:
    sides: dict[str, float] = {}
    for low, high in (("xmin", "xmax"), ("ymin", "ymax")):
        first, last = (round(float(box[side]) * BOX_STEPS) for side in (low, high))
        if first == last:
            first, last = (first - 1, last) if first else (first, last + 1)
        sides |= {low: first / BOX_STEPS, high: last / BOX_STEPS}
    return {side: sides[side] for side in SIDES}


def finding_code(label: str) -> Any:
    """Code of a finding, from [`code_of`], as a `highdicom.sr.CodedConcept`."""
    hd, _ = highdicom_and_codes()
    return hd.sr.CodedConcept(*code_of(label))


def code_of(label: str) -> tuple[str, str, str]:
    """Code value, coding scheme and meaning of a finding, from `FINDING_CODES`, else private (`CODING_SCHEME`).

    A private code consists of the label's letters and digits in upper case; if they exceed 16 characters, they are
    truncated and end in four characters of the label's hash.
    """
    if label in FINDING_CODES:
        return FINDING_CODES[label]
    value = re.sub("[^A-Z0-9]+", "_", label.upper()).strip("_")
    if not 1 <= len(value) <= 16:
        value = f"{value[:11]}_{hashlib.sha256(label.encode()).hexdigest()[:4].upper()}"
    return value, CODING_SCHEME, label.replace("_", " ")[:64]


def check_findings(findings: Findings, source: ResultSource) -> None:
    """Refuse findings that do not belong to the image or do not come from the pipeline.

    Raises:
        ValueError: There are no findings; a score, a threshold or a box is not finite or out of range; a label is not
            ASCII although the image is not in UTF-8.
    """
    if not findings:
        raise ValueError("`findings` must hold at least one finding, got none. Pass the pipeline's result.")
    size = source.size
    for finding in findings:
        label, score = finding["label"], finding["score"]
        if not label.isascii() and source.dataset.get("SpecificCharacterSet") != "ISO_IR 192":
            raise ValueError(
                f"`label` must be ASCII for an image that is not in UTF-8 (ISO_IR 192), got '{label}'. Rename it."
            )
        if not 0 <= score <= 1:
            raise ValueError(f"`score` of {label} must be in [0, 1], got {score}. Pass the pipeline's result.")
        if not math.isfinite(finding["threshold"]):
            raise ValueError(f"`threshold` of {label} must be finite, got {finding['threshold']}. Set one.")
        for box in finding["boxes"]:
            if not (0 <= box["xmin"] < box["xmax"] <= size[1] and 0 <= box["ymin"] < box["ymax"] <= size[0]):
                raise ValueError(
                    f"`boxes` of {label} must lie inside the image of {size[0]} rows and {size[1]} columns, got "
                    f"{box}. Pass the findings of the image that the header belongs to."
                )


def content_hash(findings: Findings, maps_of: Callable[[Mapping[str, Any]], bool] | None = None) -> str:
    """Hash of findings as written, from [`quantised`], with the maps of those for which `maps_of` is true."""
    digest = hashlib.sha256()
    for finding in findings:
        plain = {key: value for key, value in finding.items() if key != "map"}
        digest.update(json.dumps(plain, sort_keys=True, default=float).encode())
        if maps_of is not None and "map" in finding and maps_of(finding):
            digest.update(np.ascontiguousarray(finding["map"], dtype=np.float32).data)
    return digest.hexdigest()


def uid_of(*parts: Any) -> str:
    """UID under 2.25, the root of UUIDs (PS3.5 B.2); equal parts give equal UIDs."""
    return f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, json.dumps(['clarity_hf', *map(str, parts)])).int}"


def save(document: Any, path: Path) -> Path:
    """Write an object as a DICOM file (PS3.10), creating its folder if needed, and return the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    document.save_as(path, enforce_file_format=True)
    return path


def highdicom_and_codes() -> tuple[Any, Any]:
    """highdicom, and the code dictionaries of pydicom.

    Raises:
        ImportError: The extra `dicom` is not installed.
    """
    try:
        import highdicom
        import highdicom.base
        import highdicom.sc
        import highdicom.seg
        import highdicom.sr
        from pydicom.sr.codedict import codes
    except ImportError as error:
        raise ImportError(f"Writing DICOM needs {error.name}. Run pip install 'clarity_hf[dicom]'.") from error
    return highdicom, codes


def _header_for_highdicom(dataset: Dataset) -> Dataset:
    """The image attributes that highdicom needs, corrected where it or a validator would fail."""
    # Spacing is left out: 0 is an error in the result, and highdicom 0.28 cannot read the segmentations that it writes
    # with a spacing and without a slice thickness. Values of patient and study that highdicom may refuse are blank
    # here and copied at the end; it also prints names that it finds doubtful.
    from pydicom.valuerep import DA, TM

    header = item(**{name: dataset.get(name) for name in _EXPECTED})
    for name in _NEEDED:
        if name in dataset:
            setattr(header, name, dataset.get(name))
    for name in _LOSSY:
        with contextlib.suppress(ValueError):  # such as a ratio of "10:1"
            if name in dataset:
                setattr(header, name, dataset.get(name))
    for name, kind in (("PatientBirthDate", DA), ("StudyDate", DA), ("StudyTime", TM)):
        setattr(header, name, _parsed(dataset.get(name), kind))
    sex = dataset.get("PatientSex")
    header.PatientSex = sex if sex in ("F", "M", "O") else ""
    header.PatientName = header.ReferringPhysicianName = ""
    if "NumberOfFrames" in dataset:  # a wrapper of one frame; highdicom would look for its functional groups
        header.SOPClassUID = "1.2.840.10008.5.1.4.1.1.7"  # references get the image's own class at the end
    return header


def _parsed(value: Any, kind: Any) -> Any:
    try:
        return kind(value) if value else None
    except ValueError:
        return None  # copied unchanged at the end
