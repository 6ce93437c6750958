# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Findings as DICOM objects for a PACS: a structured report, segmentations and an overlay, built with highdicom.

Every object joins the study of its film in a series of its own, refers to the film by its UIDs, and says in
ContentQualification, SeriesDescription and text that it is the output of software for research, not for diagnosis.
Patient and study are copied from the film as they stand there, right or wrong, so that a PACS files both together.

UIDs come from the film's SOP Instance UID, the weights and the kind; that of an instance also from its content. The
same findings written twice are the same instance, which a PACS stores once, and other findings are another instance of
the same series, never other content under a known UID.

Coordinates need no conversion: DICOM's image-relative coordinates have their origin at the top left corner of the top
left pixel, as boxes have here (DICOM PS3.3 C.18.6.1).

highdicom and pydicom are the extra `dicom` and are imported when the first object is made. Standards: DICOM PS3.3
A.35.3 (Comprehensive SR), A.51 (Segmentation), A.8.1 (Secondary Capture), PS3.16 TID 1500, PS3.5 B.2 (UIDs).
"""

from __future__ import annotations

import copy
import dataclasses
import datetime
import hashlib
import importlib.metadata
import json
import math
import os
import re
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from clarity_hf.visualization import draw_findings

if TYPE_CHECKING:
    from pydicom import Dataset

Findings = Sequence[Mapping[str, Any]]
"""Result of the pipeline for one film: a dict for each finding."""

NOTICE = "AI output, research use, not for diagnosis"
"""What every object says of itself."""

KINDS = ("report", "boxes", "regions", "probabilities", "overlay")
"""Kinds of `write_dicom_results`: a structured report, three segmentations, a picture."""

MANUFACTURER = "clarity_hf"

CODING_SCHEME = "99CLARITY"
"""Private coding scheme of findings for which no code of a public one could be verified."""

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

Those of Effusion, Infiltration, Mass, Nodule, Pneumothorax, Edema and Fibrosis are in the DICOM standard's own tables
(PS3.16); the other five are SNOMED CT concepts. Nodule is no "solitary nodule of lung": the finding does not say that
it is alone. Pleural_Thickening, Hernia (of which kind, the labels do not say) and findings of own labels get a code of
`CODING_SCHEME`."""

MAX_OVERLAY_SIDE = 2048
"""Overlays are reduced to this many pixels on the longer side: 12 MB of colour at most, uncompressed."""

_SERIES = {
    "report": (9801, "AI findings (report), not for diagnosis"),
    "boxes": (9802, "AI findings (boxes), not for diagnosis"),
    "regions": (9803, "AI findings (regions), not for diagnosis"),
    "probabilities": (9804, "AI findings (maps), not for diagnosis"),
    "overlay": (9805, "AI findings (overlay), not for diagnosis"),
}
# Attributes of type 2 that highdicom reads without asking whether they are there.
_EXPECTED = ("PatientID", "AccessionNumber", "StudyID")
_NEEDED = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "Rows", "Columns", "Modality")
_LOSSY = ("LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod")
_COPIED = (*_NEEDED, *_LOSSY)


@dataclasses.dataclass(frozen=True)
class ModelIdentity:
    """What an object says of the model that made it.

    Attributes:
        name: Such as `clarity-s16-224`; at most 64 characters. It goes to the PACS: pass no path.
        weights_hash: Hash of the weights, at most 64 characters; [`weights_digest`] makes one.
        version: Of this package, by default the installed one; at most 64 characters.

    Raises:
        ValueError: One of them is empty, too long, or holds what DICOM's short strings cannot.
    """

    name: str
    weights_hash: str
    version: str = dataclasses.field(default_factory=lambda: importlib.metadata.version("clarity_hf"))

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            text = getattr(self, field.name)
            if not 1 <= len(text) <= 64 or not text.isascii() or not text.isprintable() or "\\" in text:
                raise ValueError(
                    f"`{field.name}` must be 1 to 64 ASCII characters without a backslash, got '{text}'. Shorten it."
                )

    @classmethod
    def of(cls, model: Any, name: str) -> ModelIdentity:
        """Name a model and hash its weights.

        Args:
            model: A torch module, such as `pipeline.model`.
            name: As in the class.
        """
        from clarity_hf.fingerprints import weights_digest

        return cls(name, weights_digest(model))


@dataclasses.dataclass(frozen=True, eq=False)
class DicomResults:
    """What `write_dicom_results` made of one film.

    Attributes:
        datasets: By kind, in the order asked for.
        files: By kind, where each was written; empty without a folder.
        left_out: By kind that was asked for and not made, why.
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
    kinds: Sequence[str] = ("report", "boxes", "probabilities", "overlay"),
    *,
    stem: str = "findings",
    map_thresholds: float | Mapping[str, float] | None = None,
    uids: Literal["same", "new"] = "same",
    created: datetime.datetime | None = None,
) -> DicomResults:
    """Make several objects of one film's findings.

    Args:
        dataset: The film's header, as `pydicom.dcmread` gives it, with or without its pixel data. Left as it is.
        pixels: `(H, W)` in [0, 255], the film as the model saw it, for the overlay; of the header's rows and columns.
        findings: Result of the pipeline for this film; with `return_maps=True` for `regions` and `probabilities`.
        model: What made them.
        folder: Where `STEM.KIND.dcm` are written, made where it is not there; nothing is written without.
        kinds: Of `KINDS`. `boxes`, `regions` and `probabilities` are the `values` of `write_segmentation`.
        stem: Start of the file names; the caller's, so that no UID gets into them unasked.
        map_thresholds: For `regions`, as in `write_segmentation`.
        uids: As in `write_structured_report`.
        created: As in `write_structured_report`; one time for all.

    Returns:
        The objects; a segmentation that has nothing to show (no finding is present, there are no maps) is left out
        with the reason.

    Raises:
        ImportError: The extra `dicom` is not installed.
        ValueError: A kind is unknown, or the header or the findings are not what `write_structured_report` takes.
    """
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown:
        raise ValueError(f"`kinds` must be of {', '.join(KINDS)}, got {', '.join(unknown)}. Correct the name.")
    if Path(stem).name != stem or stem in (".", ".."):
        raise ValueError(f"`stem` must be a file name without a folder, got '{stem}'. Pass the folder as `folder`.")
    created = created or datetime.datetime.now()
    same: dict[str, Any] = {"uids": uids, "created": created}
    makers: dict[str, Callable[[], Dataset]] = {
        "report": lambda: write_structured_report(dataset, findings, model, **same),
        "boxes": lambda: write_segmentation(dataset, findings, model, "boxes", **same),
        "regions": lambda: write_segmentation(
            dataset, findings, model, "regions", map_thresholds=map_thresholds, **same
        ),
        "probabilities": lambda: write_segmentation(dataset, findings, model, "probabilities", **same),
        "overlay": lambda: write_secondary_capture(dataset, pixels, findings, model, **same),
    }
    results = DicomResults({}, {}, {})
    for kind in dict.fromkeys(kinds):
        reason = _nothing_to_segment(findings, kind) if kind in ("boxes", "regions", "probabilities") else ""
        if reason:
            results.left_out[kind] = reason
            continue
        results.datasets[kind] = makers[kind]()
        if folder is not None:
            results.files[kind] = _save(results.datasets[kind], Path(folder) / f"{stem}.{kind}.dcm")
    return results


def write_structured_report(
    dataset: Dataset,
    findings: Findings,
    model: ModelIdentity,
    *,
    uids: Literal["same", "new"] = "same",
    created: datetime.datetime | None = None,
    file: str | os.PathLike | None = None,
) -> Dataset:
    """Make a TID 1500 measurement report (Comprehensive SR) of every finding, present or absent.

    A finding with boxes is one measurement group for each box (TID 1410), with the box as a closed polyline in pixels
    of the film; a finding without is one group (TID 1501). Each group holds the finding's code, its probability
    (DCM 122157, exact in FloatingPointValue), its threshold (DCM 122411) and whether it is present or absent (DCM
    121053, 121054). Coordinates are float32. The report is preliminary, partial and unverified: nobody has read it.

    Args:
        dataset: The film's header, as `pydicom.dcmread` gives it, with or without its pixel data. Left as it is.
        findings: Result of the pipeline for this film; maps are not used.
        model: What made them.
        uids: `"same"` derives UIDs from the film, the weights, the kind and the content, so that a second run makes
            the same instance; `"new"` draws random ones.
        created: Local time that the object gives as its own, by default now.
        file: Where it is written, if anywhere.

    Returns:
        A `highdicom.sr.ComprehensiveSR`.

    Raises:
        ImportError: The extra `dicom` is not installed.
        ValueError: The header lacks a UID, its rows or columns; a score, a threshold or a box is not finite or out of
            range; there are no findings.
    """
    hd, codes = _highdicom()
    source = _Source(dataset, model, "report", uids, created, _content(findings))
    _check_findings(findings, source)
    groups = [group for finding in findings for group in _measurement_groups(hd, codes, finding, source)]
    device = hd.sr.DeviceObserverIdentifyingAttributes(
        uid=_uid("device", model.name, model.version, model.weights_hash),
        name=model.name,
        manufacturer_name=MANUFACTURER,
        model_name=f"{MANUFACTURER} {model.version}",
        serial_number=model.weights_hash,
    )
    report = hd.sr.MeasurementReport(
        observation_context=hd.sr.ObservationContext(
            observer_device_context=hd.sr.ObserverContext(codes.DCM.Device, device)
        ),
        procedure_reported=codes.cid100.XRUnspecifiedBodyRegion,
        imaging_measurements=groups,
        title=codes.cid7021.ImagingMeasurementReport,
    )
    # TID 1500 is extensible; a reader of the text alone must see this too.
    report[0].ContentSequence.append(
        hd.sr.TextContentItem(codes.DCM.Comment, NOTICE, hd.sr.RelationshipTypeValues.CONTAINS)
    )
    document = hd.sr.ComprehensiveSR(evidence=[source.header], content=report[0], **source.arguments())
    document.SeriesDescription = _SERIES["report"][1]
    return source.finish(document, file)


def write_segmentation(
    dataset: Dataset,
    findings: Findings,
    model: ModelIdentity,
    values: Literal["boxes", "regions", "probabilities"] = "boxes",
    *,
    map_thresholds: float | Mapping[str, float] | None = None,
    uids: Literal["same", "new"] = "same",
    created: datetime.datetime | None = None,
    file: str | os.PathLike | None = None,
) -> Dataset:
    """Make a segmentation of the film's rows and columns with a segment for each present finding.

    Args:
        dataset: As in `write_structured_report`.
        findings: Result of the pipeline for this film.
        model: What made them.
        values: What the pixels are.
            - `"boxes"`: BINARY, 1 in every pixel that one of the finding's boxes touches.
            - `"regions"`: BINARY, 1 where the finding's map is above its share of the peak.
            - `"probabilities"`: FRACTIONAL of type PROBABILITY, 8 bit: the map divided by its peak, so that 1 (stored
              as 255) is the peak and a box of the pipeline encloses what is above `map_threshold`. It is no
              calibrated probability of a pixel; the finding's own one is in the report.
        map_thresholds: For `"regions"`: share of the peak in (0, 1), for all findings or by label.
        uids: As in `write_structured_report`.
        created: As in `write_structured_report`.
        file: Where it is written, if anywhere.

    Returns:
        A `highdicom.seg.Segmentation` of one frame a segment. Its pixels are the film's, one for one; it repeats
        neither spacing nor frame of reference.

    Raises:
        ImportError: The extra `dicom` is not installed.
        ValueError: As in `write_structured_report`; no finding is present; `values` needs maps that are not there, not
            of the film's size, negative or not finite, or `map_thresholds` that are not in (0, 1).
    """
    if values not in _SEGMENT_MEANING:
        raise ValueError(f"`values` must be of {', '.join(_SEGMENT_MEANING)}, got '{values}'. Choose one of them.")
    hd, codes = _highdicom()
    reason = _nothing_to_segment(findings, values)
    if reason:
        raise ValueError(f"`findings` must hold something to segment, got a result where {reason}. Leave it out.")
    shown = [finding for finding in findings if _is_shown(finding, values)]
    content = _content(shown, map_thresholds, maps_of=None if values == "boxes" else lambda finding: True)
    source = _Source(dataset, model, values, uids, created, content)
    _check_findings(findings, source)
    masks = [_mask(finding, values, source.size, map_thresholds) for finding in shown]
    document = hd.seg.Segmentation(
        source_images=[source.header],
        pixel_array=np.stack(masks, axis=-1)[None],
        segmentation_type="FRACTIONAL" if values == "probabilities" else "BINARY",
        segment_descriptions=[
            _segment(hd, codes, number, finding, source) for number, finding in enumerate(shown, start=1)
        ],
        fractional_type="PROBABILITY",
        content_label=f"AI_{values.upper()}",
        content_description=f"{_SEGMENT_MEANING[values]}. {NOTICE}"[:64],
        omit_empty_frames=False,
        series_description=_SERIES[values][1],
        **source.arguments(),
    )
    # highdicom draws this UID at random; the same content must be the same object.
    organization = _uid("dimensions", document.SOPInstanceUID)
    document.DimensionOrganizationSequence[0].DimensionOrganizationUID = organization
    for index in document.DimensionIndexSequence:
        index.DimensionOrganizationUID = organization
    return source.finish(document, file)


def write_secondary_capture(
    dataset: Dataset,
    pixels: np.ndarray,
    findings: Findings,
    model: ModelIdentity,
    *,
    heat_of: str | None = None,
    uids: Literal["same", "new"] = "same",
    created: datetime.datetime | None = None,
    file: str | os.PathLike | None = None,
) -> Dataset:
    """Make a colour picture of the film with its boxes, and the notice in a strip below it.

    Args:
        dataset: As in `write_structured_report`.
        pixels: `(H, W)` in [0, 255], bones bright; of the header's rows and columns.
        findings: Result of the pipeline for this film.
        model: What made them.
        heat_of: Label of the finding whose map is laid over the film, as in `draw_findings`.
        uids: As in `write_structured_report`.
        created: As in `write_structured_report`.
        file: Where it is written, if anywhere.

    Returns:
        A `highdicom.sc.SCImage`, RGB, at most `MAX_OVERLAY_SIDE` pixels plus the strip. Its pixels are not the film's
        and carry no spacing. BurnedInAnnotation asks whether text names the patient: it is the film's own answer, and
        left out where the film gives none, as nothing drawn here does.

    Raises:
        ImportError: The extra `dicom` is not installed.
        ValueError: As in `write_structured_report`, or `pixels` are not of the film's size.
    """
    hd, codes = _highdicom()
    content = _content(findings, heat_of, np.asarray(pixels), maps_of=lambda finding: finding["label"] == heat_of)
    source = _Source(dataset, model, "overlay", uids, created, content)
    _check_findings(findings, source)
    if np.shape(pixels) != source.size:
        raise ValueError(
            f"`pixels` must be (rows, columns) {source.size} of the header, got {np.shape(pixels)}. "
            "Pass the film that the header belongs to."
        )
    picture = draw_findings(pixels, findings, heat_of=heat_of)
    picture.thumbnail((MAX_OVERLAY_SIDE, MAX_OVERLAY_SIDE), Image.Resampling.LANCZOS)
    lines = [NOTICE, f"{model.name}, {MANUFACTURER} {model.version}"]
    if not any(finding["present"] for finding in findings):
        lines.append("No finding reached its threshold")
    document = hd.sc.SCImage.from_ref_dataset(
        source.header,
        pixel_array=np.asarray(_with_strip(picture, lines)),
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system="PATIENT",
        patient_orientation=("L", "F"),  # highdicom insists on one; the film's own follows
        series_description=_SERIES["overlay"][1],
        **source.arguments(),
    )
    if dataset.get("BodyPartExamined"):
        document.BodyPartExamined = dataset.BodyPartExamined
    if dataset.get("BodyPartExamined") != "CHEST":  # no pair; of what else or nothing is named, it is asked for
        document.Laterality = dataset.get("Laterality") or ""
    document.ConversionType = "WSD"
    document.DerivationDescription = f"Boxes of findings drawn over the film. {NOTICE}"
    document.SourceImageSequence = [source.reference(codes)]
    if dataset.get("BurnedInAnnotation"):
        document.BurnedInAnnotation = dataset.BurnedInAnnotation
    stamp = _stamp(source.created)
    document.DateOfSecondaryCapture, document.TimeOfSecondaryCapture = stamp
    return source.finish(document, file)


_SEGMENT_MEANING = {
    "boxes": "Boxes",
    "regions": "Map thresholded",
    "probabilities": "Map over peak",
}


class _Source:
    """The film that an object is made of: what highdicom may see of it, the object's UIDs, its last touches."""

    def __init__(
        self,
        dataset: Dataset,
        model: ModelIdentity,
        kind: str,
        uids: Literal["same", "new"],
        created: datetime.datetime | None,
        content: str,
    ) -> None:
        if uids not in ("same", "new"):
            raise ValueError(f"`uids` must be 'same' or 'new', got '{uids}'. Choose one of them.")
        missing = [name for name in _NEEDED if dataset.get(name) in (None, "")]
        if missing:
            raise ValueError(f"`dataset` must have {', '.join(missing)}, got none. Pass the film's whole header.")
        if int(dataset.get("NumberOfFrames") or 1) != 1:
            raise ValueError(f"`dataset` must be of one film, got {dataset.NumberOfFrames} frames. Split them first.")
        self.dataset, self.model, self.kind = dataset, model, kind
        self.created = created or datetime.datetime.now()
        self.header = _header_for_highdicom(dataset)
        self.size = (int(dataset.Rows), int(dataset.Columns))
        # Random ones hang on a random word in place of the film's UID.
        film = dataset.SOPInstanceUID if uids == "same" else uuid.uuid4().hex
        self._root = (film, model.weights_hash, model.version, kind)
        self._content = content

    def uid(self, *parts: str) -> str:
        """UID of a part of this object."""
        return _uid(*self._root, *parts)

    def arguments(self) -> dict[str, Any]:
        """What every class of highdicom takes."""
        return {
            "series_instance_uid": self.uid("series"),
            "series_number": _SERIES[self.kind][0],
            "sop_instance_uid": self.uid("instance", self._content),
            "instance_number": 1,
            "manufacturer": MANUFACTURER,
            "manufacturer_model_name": self.model.name,
            "software_versions": f"{MANUFACTURER} {self.model.version}",
            "device_serial_number": self.model.weights_hash,
            "content_qualification": "RESEARCH",
            "transfer_syntax_uid": "1.2.840.10008.1.2.1",
        }

    def reference(self, codes: Any) -> Dataset:
        """The film as an item of SourceImageSequence."""
        from highdicom.sr import CodedConcept
        from pydicom import Dataset

        item = Dataset()
        item.ReferencedSOPClassUID = self.dataset.SOPClassUID
        item.ReferencedSOPInstanceUID = self.dataset.SOPInstanceUID
        purpose = CodedConcept.from_code(codes.DCM.SourceImageForImageProcessingOperation)
        item.PurposeOfReferenceCodeSequence = [purpose]
        return item

    def finish(self, document: Any, file: str | os.PathLike | None) -> Any:
        """Copy patient and study as they stand in the film, set every time to one, and save."""
        document.copy_patient_and_study_information(copy.deepcopy(_without_pixels(self.dataset)))
        if "Rows" in document:  # an image must have it, empty where it is not known
            document.PatientOrientation = list(self.dataset.get("PatientOrientation") or [])
        for item in _items(document):
            if item.get("ReferencedSOPInstanceUID") == self.dataset.SOPInstanceUID:
                item.ReferencedSOPClassUID = self.dataset.SOPClassUID
        if "SpecificCharacterSet" in self.dataset:
            document.SpecificCharacterSet = self.dataset.SpecificCharacterSet
        date, time = _stamp(self.created)
        for name in ("Content", "Series", "InstanceCreation"):
            setattr(document, f"{name}Date", date)
            setattr(document, f"{name}Time", time)
        for equipment in document.get("ContributingEquipmentSequence", []):
            if "ContributionDateTime" in equipment and equipment.get("ManufacturerModelName") == "highdicom":
                equipment.ContributionDateTime = date + time
        if file is not None:
            _save(document, Path(file))
        return document


def _highdicom() -> tuple[Any, Any]:
    """highdicom, and the code dictionaries of pydicom."""
    try:
        import highdicom
        import highdicom.sc
        import highdicom.seg
        import highdicom.sr
        from pydicom.sr.codedict import codes
    except ImportError as error:
        raise ImportError(
            f"`{error.name}` must be installed to write DICOM, got none. Run pip install 'clarity_hf[dicom]'."
        ) from error
    return highdicom, codes


def _without_pixels(dataset: Dataset) -> Dataset:
    return dataset[:0x7FE00000]


def _header_for_highdicom(dataset: Dataset) -> Dataset:
    """The few attributes that highdicom needs of a film, mended where it or a validator would stumble.

    A projection has no frame of reference, whatever its header says of one. Its spacing stays out: a spacing of 0 is
    an error in the result, and highdicom 0.28 does not read the segmentations that it writes with a spacing and
    without a thickness of slices. What highdicom would parse and refuse in patient and study is left blank here and
    copied as it stands at the end; the names of people are not shown to it, since it prints those that it doubts.
    """
    from pydicom import Dataset
    from pydicom.valuerep import DA, TM

    header = Dataset()
    for name in _EXPECTED:
        setattr(header, name, dataset.get(name))
    for name in _COPIED:
        if name in dataset:
            setattr(header, name, dataset.get(name))
    for name, kind in (("PatientBirthDate", DA), ("StudyDate", DA), ("StudyTime", TM)):
        setattr(header, name, _parsed(dataset.get(name), kind))
    sex = dataset.get("PatientSex")
    header.PatientSex = sex if sex in ("F", "M", "O") else ""
    header.PatientName = header.ReferringPhysicianName = ""
    if "NumberOfFrames" in dataset:  # a wrapper of one frame; highdicom would look for its functional groups
        header.SOPClassUID = "1.2.840.10008.5.1.4.1.1.7"  # references get the film's own class at the end
    return header


def _items(dataset: Dataset) -> Iterator[Dataset]:
    """The items of all sequences, at every depth."""
    for element in dataset:
        if element.VR == "SQ":
            for item in element.value:
                yield item
                yield from _items(item)


def _parsed(value: Any, kind: Any) -> Any:
    try:
        return kind(value) if value else None
    except ValueError:
        return None  # it is copied as it stands at the end


def _measurement_groups(hd: Any, codes: Any, finding: Mapping[str, Any], source: _Source) -> list[Any]:
    """Content items of one finding: a group for each box, or one without a region."""
    sr, label = hd.sr, finding["label"]
    shared = {
        "finding_type": finding_code(label),
        "algorithm_id": sr.AlgorithmIdentification(
            name=source.model.name,
            version=source.model.version,
            parameters=[f"weights {source.model.weights_hash}"],
        ),
        "measurements": [
            sr.Measurement(name=name, value=float(finding[key]), unit=codes.UCUM.NoUnits)
            for name, key in ((codes.DCM.Probability, "score"), (codes.DCM.ThresholdValue, "threshold"))
        ],
        "qualitative_evaluations": [
            sr.QualitativeEvaluation(
                name=codes.DCM.PresenceOfProperty,
                value=codes.DCM.Present if finding["present"] else codes.DCM.Absent,
            )
        ],
    }
    film = {
        "referenced_sop_class_uid": source.dataset.SOPClassUID,
        "referenced_sop_instance_uid": source.dataset.SOPInstanceUID,
    }
    if not finding["boxes"]:
        tracking = sr.TrackingIdentifier(uid=source.uid("tracking", label), identifier=label)
        images = [sr.SourceImageForMeasurementGroup(**film)]
        return [
            sr.MeasurementsAndQualitativeEvaluations(tracking_identifier=tracking, source_images=images, **shared)
        ]
    groups = []
    for number, box in enumerate(finding["boxes"], start=1):
        identifier = f"{label} {number}"
        groups.append(
            sr.PlanarROIMeasurementsAndQualitativeEvaluations(
                tracking_identifier=sr.TrackingIdentifier(source.uid("tracking", identifier), identifier),
                referenced_region=sr.ImageRegion(
                    graphic_type="POLYLINE", graphic_data=_corners(box), source_image=sr.SourceImageForRegion(**film)
                ),
                **shared,
            )
        )
    return groups


def _corners(box: Mapping[str, float]) -> np.ndarray:
    """`(5, 2)` column and row of a box's corners, clockwise from the top left and back to it."""
    x0, y0, x1, y1 = (box[side] for side in ("xmin", "ymin", "xmax", "ymax"))
    return np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1), (x0, y0)], dtype=np.float64)


def finding_code(label: str) -> Any:
    """Code of a finding as a `highdicom.sr.CodedConcept`: of `FINDING_CODES`, else of `CODING_SCHEME`.

    Args:
        label: Such as `Effusion`. A private code is made of its letters and digits, in capitals; one that does not fit
            into 16 characters ends in four of its hash.

    Raises:
        ImportError: The extra `dicom` is not installed.
    """
    hd, _ = _highdicom()
    if label in FINDING_CODES:
        return hd.sr.CodedConcept(*FINDING_CODES[label])
    value = re.sub("[^A-Z0-9]+", "_", label.upper()).strip("_")
    if not 1 <= len(value) <= 16:
        value = f"{value[:11]}_{hashlib.sha256(label.encode()).hexdigest()[:4].upper()}"
    return hd.sr.CodedConcept(value, CODING_SCHEME, label.replace("_", " ")[:64])


def _segment(hd: Any, codes: Any, number: int, finding: Mapping[str, Any], source: _Source) -> Any:
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
    """Whether a present finding has what its segment is made of."""
    if values == "boxes":
        return finding["present"] and bool(finding["boxes"])
    return finding["present"] and "map" in finding and float(np.max(finding["map"])) > 0


def _nothing_to_segment(findings: Findings, values: str) -> str:
    """Why there is no segmentation, or nothing."""
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
    finding: Mapping[str, Any],
    values: str,
    size: tuple[int, int],
    map_thresholds: float | Mapping[str, float] | None,
) -> np.ndarray:
    """`(H, W)` of one finding: bool as uint8, or float32 in [0, 1]."""
    if values == "boxes":
        mask = np.zeros(size, dtype=np.uint8)
        for box in finding["boxes"]:
            rows = slice(math.floor(box["ymin"]), math.ceil(box["ymax"]))
            mask[rows, math.floor(box["xmin"]) : math.ceil(box["xmax"])] = 1
        return mask
    heat, label = np.asarray(finding["map"], dtype=np.float32), finding["label"]
    if heat.shape != size:
        raise ValueError(f"`map` of {label} must have the film's {size}, got {heat.shape}. Pass this film's findings.")
    if not np.isfinite(heat).all() or heat.min() < 0:
        raise ValueError(f"`map` of {label} must be finite and at least 0, got others. Check the model's output.")
    share = heat / heat.max()
    if values == "probabilities":
        return share
    level = map_thresholds.get(label) if isinstance(map_thresholds, Mapping) else map_thresholds
    if level is None or not 0 < level < 1:
        raise ValueError(f"`map_thresholds` must be inside (0, 1) for {label}, got {level}. Give a share of the peak.")
    return (share > level).astype(np.uint8)


def _check_findings(findings: Findings, source: _Source) -> None:
    if not findings:
        raise ValueError("`findings` must hold at least one finding, got none. Pass the pipeline's result.")
    size = source.size
    for finding in findings:
        label, score = finding["label"], finding["score"]
        if not label.isascii() and source.dataset.get("SpecificCharacterSet") != "ISO_IR 192":
            raise ValueError(
                f"`label` must be ASCII for a film that is not in UTF-8 (ISO_IR 192), got '{label}'. Rename it."
            )
        if not 0 <= score <= 1:
            raise ValueError(f"`score` of {label} must be in [0, 1], got {score}. Pass the pipeline's result.")
        if not math.isfinite(finding["threshold"]):
            raise ValueError(f"`threshold` of {label} must be finite, got {finding['threshold']}. Set one.")
        for box in finding["boxes"]:
            inside = 0 <= box["xmin"] < box["xmax"] <= size[1] and 0 <= box["ymin"] < box["ymax"] <= size[0]
            if not inside:
                raise ValueError(
                    f"`boxes` of {label} must lie inside the film of {size[0]} rows and {size[1]} columns, got {box}. "
                    "Pass the findings of the film that the header belongs to."
                )


def _content(findings: Findings, *more: Any, maps_of: Callable[[Mapping[str, Any]], bool] | None = None) -> str:
    """Hash of everything that an object shows; of the maps those alone that it shows."""
    digest = hashlib.sha256()
    for finding in findings:
        plain = {key: value for key, value in finding.items() if key != "map"}
        digest.update(json.dumps(plain, sort_keys=True, default=float).encode())
        if maps_of is not None and "map" in finding and maps_of(finding):
            digest.update(np.ascontiguousarray(finding["map"], dtype=np.float32).data)
    for part in more:
        digest.update(np.ascontiguousarray(part).data if isinstance(part, np.ndarray) else repr(part).encode())
    return digest.hexdigest()


def _uid(*parts: str) -> str:
    """UID of parts under 2.25, the root of UUIDs (PS3.5 B.2): the same parts give the same UID."""
    return f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, json.dumps(['clarity_hf', *map(str, parts)])).int}"


def _stamp(moment: datetime.datetime) -> tuple[str, str]:
    return moment.strftime("%Y%m%d"), moment.strftime("%H%M%S.%f")


def _with_strip(picture: Image.Image, lines: Sequence[str]) -> Image.Image:
    """The picture with lines of text in a black strip below it, which covers none of the film."""
    width = picture.width
    probe = ImageDraw.Draw(picture)
    largest = max(probe.textlength(line, font=ImageFont.load_default(size=100)) for line in lines)
    size = max(8, min(width // 30, int(0.94 * width / largest * 100)))
    font, step = ImageFont.load_default(size=size), round(1.5 * size)
    whole = Image.new("RGB", (width, picture.height + step * len(lines) + size // 2), "black")
    whole.paste(picture, (0, 0))
    draw = ImageDraw.Draw(whole)
    for number, line in enumerate(lines):
        draw.text((round(0.03 * width), picture.height + size // 4 + number * step), line, fill="white", font=font)
    return whole


def _save(document: Any, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    document.save_as(path, enforce_file_format=True)
    return path
