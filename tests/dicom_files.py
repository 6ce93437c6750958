# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""DICOM files of a phantom, stored in many ways, for the tests of their reading."""

import importlib.util
import io
import re
import shutil
import subprocess
import warnings
from pathlib import Path

import numpy as np
import pytest

from clarity_hf.dicom_reading import read_dicom
from clarity_hf.phantoms import draw_phantom

pydicom = pytest.importorskip("pydicom", minversion="3.0")

from pydicom import uid  # noqa: E402
from pydicom.dataset import Dataset, FileMetaDataset  # noqa: E402
from pydicom.encaps import encapsulate  # noqa: E402
from pydicom.sequence import Sequence  # noqa: E402

_spec = importlib.util.spec_from_file_location("gdcm_files", Path(__file__).with_name("gdcm_files.py"))
_gdcm_files = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_gdcm_files)
transcoded = _gdcm_files.transcoded

SECRETS = ("Doe^Jane", "ID-4711", "1.2.3.4.5.6789")
CR = "1.2.840.10008.5.1.4.1.1.1"


@pytest.fixture(scope="module")
def truth():
    """Phantom `(96, 80)`, float in [0, 1], both reached, bones bright."""
    image = draw_phantom(3, size=(96, 80)).image.astype(np.float64)
    return (image - image.min()) / (image.max() - image.min())


def header(rows=96, columns=80, **elements):
    """A chest radiograph's data set without pixels; `elements` replace or, where `None`, remove."""
    dataset = Dataset()
    dataset.PatientName, dataset.PatientID, dataset.StudyInstanceUID = SECRETS
    dataset.SOPClassUID, dataset.SOPInstanceUID = CR, SECRETS[2] + ".1"
    dataset.Modality, dataset.ViewPosition, dataset.BodyPartExamined = "CR", "PA", "CHEST"
    dataset.Rows, dataset.Columns, dataset.SamplesPerPixel = rows, columns, 1
    dataset.PhotometricInterpretation, dataset.PixelRepresentation = "MONOCHROME2", 0
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    for keyword, value in elements.items():
        if value is not None:
            setattr(dataset, keyword, value)
        elif keyword in dataset:
            delattr(dataset, keyword)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = CR
    dataset.file_meta.MediaStorageSOPInstanceUID = SECRETS[2] + ".1"
    return dataset


def with_pixels(stored, **elements):
    """A data set that holds the integers `stored` `(H, W)`."""
    dataset = header(*stored.shape, **elements)
    kind = ("u" if dataset.PixelRepresentation == 0 else "i") + str(dataset.BitsAllocated // 8)
    dataset.PixelData = stored.astype(f"<{kind}").tobytes()
    dataset["PixelData"].VR = "OW"
    return dataset


def plain(truth, bits=12, **elements):
    """The image in `bits` bits, spanning them all, with nothing to apply."""
    depth = {"BitsAllocated": 8 if bits == 8 else 16, "BitsStored": bits, "HighBit": bits - 1}
    return with_pixels(np.rint(truth * (2**bits - 1)).astype(np.int64), **depth, **elements)


def table(values, first, bits=16):
    item = Dataset()
    item.add_new("LUTDescriptor", "US" if first >= 0 else "SS", [len(values) % 2**16, first, bits])
    words = np.asarray(values).astype("<u2")
    if len(words) > 4096:  # too many for words of their own
        item.add_new("LUTData", "OW", words.tobytes())
    else:
        item.add_new("LUTData", "US", words.tolist())
    return Sequence([item])


def written(dataset, preamble=True):
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, dataset, enforce_file_format=preamble)
    return buffer.getvalue()


def compressed(dataset, syntax, frame):
    dataset.PixelData = encapsulate([frame])
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    dataset.file_meta.TransferSyntaxUID = syntax
    return dataset


def refusal(source, error=ValueError, read=read_dicom):
    """The message, after checking that it says what must be, what was got and what to do, and names no patient."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(error) as caught:
            read(source)
    message = str(caught.value)
    assert re.fullmatch(r"`.+` must .+, got .+\. [A-Z][^.]+.*\.|No such file: .+", message, re.DOTALL), message
    chain = caught.value
    while chain is not None:  # what a traceback would print
        assert not [secret for secret in SECRETS if secret in str(chain)]
        chain = chain.__cause__ or (None if chain.__suppress_context__ else chain.__context__)
    return message


def stored_high(truth, signed=0):
    """The image in the upper 12 bits of 16, and below them what is none of it, such as an overlay."""
    stored = np.rint(truth * 4095).astype(int) - (2048 if signed else 0)
    return (stored << 4) | 9, {"HighBit": 15, "PixelRepresentation": signed}


def jpeg_lossless(truth, bits, tmp_path, syntax="JPEGLosslessProcess14_1"):
    """Path of the image in JPEG lossless."""
    (tmp_path / "plain.dcm").write_bytes(written(plain(truth, bits=bits)))
    return transcoded(tmp_path / "plain.dcm", tmp_path / "lossless.dcm", syntax)


def by_dcmtk(image, folder, program, *options):
    """The image as a program of dcmtk writes it."""
    if shutil.which(program) is None:
        pytest.skip(f"no {program} here")
    (folder / "plain.dcm").write_bytes(written(image))
    subprocess.run([program, *options, str(folder / "plain.dcm"), str(folder / "image.dcm")], check=True)
    return folder / "image.dcm"


def coded(value, scheme, meaning):
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return Sequence([item])
