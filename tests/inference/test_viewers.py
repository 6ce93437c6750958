# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""What OHIF's own library makes of results, in Node: rectangles where the boxes are. Its packages are pinned:

npm ci --ignore-scripts --prefix tests/inference/viewers
"""

import importlib.util
import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

pydicom = pytest.importorskip("pydicom")
pytest.importorskip("highdicom")

from clarity_hf.inference.dicom_output import quantised, save, write_dicom_results, write_refusal_report  # noqa: E402

_spec = importlib.util.spec_from_file_location("dicom_cases", Path(__file__).with_name("dicom_cases.py"))
cases = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(cases)

VIEWERS = Path(__file__).with_name("viewers")
pytestmark = [
    pytest.mark.skipif(shutil.which("node") is None, reason="no Node here (Debian: nodejs)"),
    pytest.mark.skipif(not (VIEWERS / "node_modules").is_dir(), reason="no viewers here: run npm ci in viewers/"),
]


def hydrated(folder, *files):
    """What `hydrate.mjs` prints of an image and its results."""
    command = ["node", str(VIEWERS / "hydrate.mjs"), *(str(folder / file) for file in files)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=200, check=True)
    return json.loads(run.stdout.splitlines()[-1])


@pytest.fixture
def written(tmp_path):
    """Writes an image of a pixel spacing and its results into a folder."""

    def write(spacing):
        image = cases.digital_radiograph(np.tile(np.arange(cases.SIZE[1], dtype=np.uint8), (cases.SIZE[0], 1)))
        image.PixelSpacing = image.ImagerPixelSpacing = spacing
        image.save_as(tmp_path / "image.dcm", enforce_file_format=True)
        findings = cases.findings_of(cases.SIZE)
        kinds = ["report", "boxes", "probabilities"]
        write_dicom_results(image, image.pixel_array, findings, cases.MODEL, tmp_path, kinds, stem="r")
        return quantised(findings)

    return write


@pytest.mark.parametrize("spacing", [[0.2, 0.2], [0.2, 0.1]], ids=["square", "oblong"])
def test_every_box_is_a_rectangle_at_its_place_with_its_name(written, tmp_path, spacing):
    boxes = [(finding, box) for finding in written(spacing) for box in finding["boxes"]]
    told = hydrated(tmp_path, "image.dcm", "r.report.dcm")
    assert told["tools"] == ["RectangleROI"]
    assert len(told["rectangles"]) == len(boxes) == 4
    for rectangle, (finding, box) in zip(told["rectangles"], boxes, strict=True):
        x0, y0, x1, y1 = (box[side] for side in ("xmin", "ymin", "xmax", "ymax"))
        np.testing.assert_allclose(rectangle["pixels"], [(x0, y0), (x1, y0), (x0, y1), (x1, y1)], atol=1e-4)
        assert rectangle["label"] == f"{finding['label'].replace('_', ' ')} {finding['score']:.2f}"
        # In the world the library takes the rows' spacing for x and the columns' for y: with oblong pixels a rectangle
        # is right in the image and exchanged in millimetres. Once this fails, it does so no longer.
        (left, top, _), (right, bottom, _) = rectangle["world"][0], rectangle["world"][3]
        millimetres = [(x1 - x0) * spacing[0], (y1 - y0) * spacing[1]]
        np.testing.assert_allclose([right - left, bottom - top], millimetres, 1e-4)


def test_a_refusal_has_no_rectangles(tmp_path):
    image = cases.digital_radiograph(np.zeros(cases.SIZE, dtype=np.uint8))
    image.save_as(tmp_path / "image.dcm", enforce_file_format=True)
    save(write_refusal_report(image, "it is a lateral view", cases.MODEL), tmp_path / "refused.dcm")
    assert hydrated(tmp_path, "image.dcm", "refused.dcm") == {"tools": [], "rectangles": []}


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("boxes", "Cannot read properties of undefined (reading 'ImageOrientationPatient')"),
        ("probabilities", "Fractional segmentations are not yet supported"),
    ],
)
def test_segmentations_of_a_projection_are_not_loaded_as_the_page_says(written, tmp_path, kind, error):
    written([0.2, 0.2])
    assert hydrated(tmp_path, "image.dcm", "r.report.dcm", f"r.{kind}.dcm")["segmentation"] == {"error": error}
