# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""The presentation state: boxes where they are, labels beside them, grey levels as without."""

import importlib.util
import io
from pathlib import Path

import numpy as np
import pytest

pydicom = pytest.importorskip("pydicom")
highdicom = pytest.importorskip("highdicom")

from clarity_hf.inference.dicom_presentation import write_presentation_state  # noqa: E402
from clarity_hf.inference.dicom_source import NOTICE, save  # noqa: E402

_spec = importlib.util.spec_from_file_location("dicom_cases", Path(__file__).with_name("dicom_cases.py"))
cases = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(cases)


@pytest.fixture
def image():
    return cases.digital_radiograph(np.zeros(cases.SIZE, dtype=np.uint8))


def test_boxes_and_labels_stand_on_the_image_in_its_pixels(image):
    state = write_presentation_state(image, cases.findings_of(cases.SIZE), cases.MODEL)
    (annotation,) = state.GraphicAnnotationSequence
    assert annotation.ReferencedImageSequence[0].ReferencedSOPInstanceUID == image.SOPInstanceUID
    graphics = annotation.GraphicObjectSequence
    assert graphics[0].GraphicData == [13.25, 80.75, 40.125, 80.75, 40.125, 120.875, 13.25, 120.875, 13.25, 80.75]
    assert {graphic.GraphicAnnotationUnits for graphic in graphics} == {"PIXEL"}
    *labels, notice = annotation.TextObjectSequence
    texts = [label.UnformattedTextValue for label in labels]
    assert texts == ["Effusion 0.61", "Effusion 0.61", "Mass 0.61", "Pleural Thickening 0.62"]
    assert notice.UnformattedTextValue == NOTICE
    for label, graphic in zip(labels, graphics, strict=True):
        left, top = label.BoundingBoxTopLeftHandCorner
        right, bottom = label.BoundingBoxBottomRightHandCorner
        assert 0 <= left < right <= 130
        assert 0 <= top < bottom <= 150
        assert bottom == graphic.GraphicData[1] or top == graphic.GraphicData[1]  # above, or inside at the edge


def test_a_normal_image_shows_the_notice_alone(image):
    absent = [finding | {"present": False, "boxes": []} for finding in cases.findings_of(cases.SIZE)]
    (annotation,) = write_presentation_state(image, absent, cases.MODEL).GraphicAnnotationSequence
    assert "GraphicObjectSequence" not in annotation
    assert [text.UnformattedTextValue for text in annotation.TextObjectSequence] == [NOTICE]


@pytest.mark.parametrize(
    ("photometric", "shape", "shown"),
    [
        ("MONOCHROME2", "IDENTITY", "IDENTITY"),
        ("MONOCHROME1", None, "INVERSE"),
        ("MONOCHROME1", "INVERSE", "INVERSE"),
        ("MONOCHROME2", "INVERSE", "INVERSE"),
    ],
)
def test_bones_are_as_bright_as_without(image, photometric, shape, shown):
    image.PhotometricInterpretation, image.PresentationLUTShape = photometric, shape
    assert write_presentation_state(image, cases.findings_of(cases.SIZE), cases.MODEL).PresentationLUTShape == shown


def test_the_window_and_the_tables_are_the_images(image, tmp_path):
    table = pydicom.Dataset()
    table.add_new("LUTDescriptor", "US", [256, 0, 12])
    table.add_new("LUTData", "US", list(range(15, 4096, 16)))
    table.LUTExplanation = "harder"
    image.VOILUTSequence = [table]
    path = tmp_path / "state.dcm"
    save(write_presentation_state(image, cases.findings_of(cases.SIZE), cases.MODEL), path)
    state = pydicom.dcmread(path)
    (window,) = state.SoftcopyVOILUTSequence
    assert (window.WindowCenter, window.WindowWidth) == (128, 256)
    (shown,) = window.VOILUTSequence
    assert shown.LUTExplanation == "harder"
    assert (shown.LUTDescriptor, shown.LUTData[0], shown.LUTData[-1]) == ([256, 0, 16], 240, 65535)  # of 12 bits
    assert (state.RescaleSlope, state.RescaleIntercept, state.RescaleType) == (1, 0, "US")
    assert cases.errors_of(path) == []


@pytest.mark.parametrize("bits", [12, 16])
@pytest.mark.parametrize("kind", ["ModalityLUTSequence", "VOILUTSequence"])
def test_tables_of_a_big_endian_image_keep_their_values(image, tmp_path, kind, bits):
    values = np.linspace(0, 2**bits - 1, 256).round().astype(int)
    table = pydicom.Dataset()
    table.add_new("LUTDescriptor", "US", [256, 0, bits])
    table.add_new("LUTData", "OW", values.astype(">u2").tobytes())
    if kind == "ModalityLUTSequence":
        table.ModalityLUTType = "US"
        del image.RescaleSlope, image.RescaleIntercept, image.RescaleType
    setattr(image, kind, [table])
    image.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRBigEndian
    path, made = tmp_path / "big.dcm", tmp_path / "state.dcm"
    image.save_as(path, enforce_file_format=True)
    save(write_presentation_state(pydicom.dcmread(path), cases.findings_of(cases.SIZE), cases.MODEL), made)
    state = pydicom.dcmread(made)
    (shown,) = state[kind] if kind in state else state.SoftcopyVOILUTSequence[0][kind]
    data = shown.LUTData
    stored = np.frombuffer(data, "<u2") if isinstance(data, bytes) else np.array(data)
    most = 2 ** shown.LUTDescriptor[2] - 1
    np.testing.assert_allclose(stored / most, values / (2**bits - 1), atol=2e-5)


@pytest.mark.parametrize(
    ("spacing", "given"),
    [([0.2, 0.1], [0.2, 0.1]), ([0, 0], [0.2, 0.2]), (None, [0.2, 0.2])],
)
def test_the_whole_image_is_shown_at_its_own_proportions(image, spacing, given):
    image.PixelSpacing = spacing  # that of the detector is 0.2
    (area,) = write_presentation_state(
        image, cases.findings_of(cases.SIZE), cases.MODEL
    ).DisplayedAreaSelectionSequence
    assert (area.DisplayedAreaTopLeftHandCorner, area.DisplayedAreaBottomRightHandCorner) == ([1, 1], [130, 150])
    assert area.PresentationPixelSpacing == given


def test_an_image_without_spacing_gets_square_pixels_or_its_own_ratio(image):
    del image.PixelSpacing, image.ImagerPixelSpacing
    for ratio, given in ((None, [1, 1]), ([2, 1], [2, 1]), (["1.0", "1.0"], [1, 1])):
        if ratio:
            image.PixelAspectRatio = ratio
        state = write_presentation_state(image, cases.findings_of(cases.SIZE), cases.MODEL)
        (area,) = pydicom.dcmread(as_file(state)).DisplayedAreaSelectionSequence
        assert area.PresentationPixelAspectRatio == given
        assert "PresentationPixelSpacing" not in area


def as_file(document):
    file = io.BytesIO()
    document.save_as(file, enforce_file_format=True)
    file.seek(0)
    return file
