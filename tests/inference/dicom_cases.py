# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""An image and findings of which the tests of DICOM results make objects."""

import datetime
import subprocess

import highdicom
import numpy as np
import pydicom

from clarity_hf import FINDINGS
from clarity_hf.inference.dicom_output import ModelIdentity

MODEL = ModelIdentity("clarity-s16-224", "0123456789abcdef", "0.1.0")
WHEN = datetime.datetime(2026, 3, 4, 5, 6, 7)
SIZE = (150, 130)


def digital_radiograph(pixels):
    """Header and pixels of a DX image that has every attribute its IOD asks for."""

    def code(*parts):
        return pydicom.Sequence([highdicom.sr.CodedConcept(*parts)])

    image = pydicom.Dataset()
    image.file_meta = pydicom.dataset.FileMetaDataset()
    image.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    values = {
        "SOPClassUID": pydicom.uid.DigitalXRayImageStorageForPresentation,
        "SOPInstanceUID": "2.25.1001",
        "StudyInstanceUID": "2.25.1002",
        "SeriesInstanceUID": "2.25.1003",
        "SpecificCharacterSet": "ISO_IR 100",
        "ImageType": ["ORIGINAL", "PRIMARY", ""],
        "StudyDate": "20250102",
        "StudyTime": "101112",
        "ContentDate": "20250102",
        "ContentTime": "101112",
        "AcquisitionDate": "20250102",
        "AcquisitionTime": "101112",
        "AccessionNumber": "A1",
        "Modality": "DX",
        "PresentationIntentType": "FOR PRESENTATION",
        "Manufacturer": "Phantoms",
        "ReferringPhysicianName": "Referrer^R",
        "StudyDescription": "Chest PA",
        "PatientName": "Förster^Ada",
        "PatientID": "P1",
        "PatientBirthDate": "19700101",
        "PatientSex": "F",
        "PatientAge": "054Y",
        "BodyPartExamined": "CHEST",
        "ImagerPixelSpacing": [0.2, 0.2],
        "PixelSpacing": [0.2, 0.2],
        "ViewPosition": "PA",
        "PositionerType": "",
        "DetectorType": "DIRECT",
        "StudyID": "S1",
        "SeriesNumber": 1,
        "InstanceNumber": 1,
        "PatientOrientation": ["L", "F"],
        "ImageLaterality": "U",
        "BurnedInAnnotation": "NO",
        "AcquisitionContextSequence": [],
        "PixelIntensityRelationship": "LOG",
        "PixelIntensityRelationshipSign": -1,
        "RescaleIntercept": 0,
        "RescaleSlope": 1,
        "RescaleType": "US",
        "PresentationLUTShape": "IDENTITY",
        "LossyImageCompression": "00",
        "AnatomicRegionSequence": code("816094009", "SCT", "Chest"),
        "ViewCodeSequence": code("399348003", "SCT", "postero-anterior"),
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "Rows": pixels.shape[0],
        "Columns": pixels.shape[1],
        "BitsAllocated": 8,
        "BitsStored": 8,
        "HighBit": 7,
        "PixelRepresentation": 0,
        "WindowCenter": 128,
        "WindowWidth": 256,
        "PixelData": pixels.tobytes(),
    }
    for name, value in values.items():
        setattr(image, name, value)
    image.ViewCodeSequence[0].ViewModifierCodeSequence = []
    return image


def box(x0, y0, x1, y1):
    return {"xmin": x0, "ymin": y0, "xmax": x1, "ymax": y1}


def findings_of(size):
    """All 14 findings: two boxes, one box, one box to the image's edge, the rest absent; a map for each."""
    height, width = size
    y, x = np.mgrid[0:height, 0:width]
    boxes = {
        "Effusion": [box(13.3, 80.7, 40.1, 120.9), box(70.0, 80.0, 110.5, 121.25)],
        "Mass": [box(20.0, 30.0, 21.0, 31.0)],
        "Pleural_Thickening": [box(0.0, 0.0, float(width), float(height))],
    }
    findings = []
    for number, label in enumerate(FINDINGS):
        heat = np.exp(-((y / height - 0.3) ** 2 + (x / width - 0.05 * number) ** 2) / 0.02) * 7
        present = label in boxes
        score = 0.61 + number / 1000 + 1 / 3000 if present else number / 1000 + 1e-9
        findings.append(
            {"label": label, "score": score, "threshold": 0.3 + number / 7000, "present": present}
            | {"boxes": boxes.get(label, []), "map": heat.astype(np.float32)}
        )
    return findings


def errors_of(path):
    """What dciodvfy calls an error in a file."""
    said = subprocess.run(["dciodvfy", "-new", str(path)], capture_output=True, text=True, timeout=60, check=False)
    lines = (said.stdout + said.stderr).splitlines()
    return [line for line in lines if line.startswith(("Error", "fatal"))] + ([] if lines else ["nothing was said"])
