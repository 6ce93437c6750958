# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Images to evaluate on, from phantoms and from a data set's rows."""

import numpy as np
import PIL.Image
import pytest

from clarity_hf.evaluation.images import AlignedImages, PhantomImages, RowImages, open_images
from clarity_hf.labels import FINDINGS
from clarity_hf.phantoms import write_phantoms


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    folder = tmp_path_factory.mktemp("release")
    write_phantoms(folder, 12, seed=3, size=(64, 96))
    return folder


def test_a_phantom_is_the_same_image_at_every_reading_and_brings_all_that_is_known_of_it():
    images = PhantomImages(8, size=64)
    phantom = images.rows.phantom(5)
    image = images[5]
    assert image.name == images.names[5] == "phantom-test-0-5" == image.patient
    np.testing.assert_array_equal(image.pixels, phantom.image)
    np.testing.assert_array_equal(image.thorax, phantom.thorax)
    assert (image.sex, image.age, image.view) == (phantom.sex, phantom.age, phantom.view)
    assert sum(len(boxes) for boxes in image.boxes.values()) == len(phantom.boxes)
    for name, box in phantom.boxes:
        assert list(box) in image.boxes[FINDINGS.index(name)].tolist()


def test_streams_and_seeds_of_phantoms_have_names_and_images_of_their_own():
    sets = [PhantomImages(3, split, seed, size=64) for split in ("validation", "test") for seed in (0, 1)]
    assert len({name for images in sets for name in images.names}) == 12
    assert len({images[0].pixels.tobytes() for images in sets}) == 4


def test_boxes_of_a_release_are_in_pixels_of_the_image_on_disk(release):
    images = open_images(str(release), "validation", validation_fraction=0.9)
    assert isinstance(images, RowImages)
    boxed = [image for image in (images[index] for index in range(len(images))) if image.boxes]
    assert boxed
    for image in boxed:
        assert image.pixels.shape == (64, 96)
        for finding, boxes in image.boxes.items():
            assert image.labels[finding] == 1
            assert boxes.shape[1] == 4
            np.testing.assert_allclose(boxes, boxes.round(), atol=1e-3)  # drawn on whole pixels of the image
            assert (boxes[:, 2] <= 96).all()
            assert (boxes[:, 3] <= 64).all()
    assert max(boxes[:, 2].max() for image in boxed for boxes in image.boxes.values()) > 64  # no frame of 64 × 64


def test_a_row_of_a_release_has_patient_sex_age_view_and_thorax(release):
    image = open_images(str(release), "test")[0]
    assert image.name.startswith(image.patient)
    assert image.sex in ("M", "F")
    assert 0 <= image.age <= 120
    assert image.view in ("PA", "AP")
    assert image.thorax.dtype == bool
    assert 0.2 < image.thorax.mean() < 0.9


def test_rows_without_patients_are_separate_patients(image):
    rows = [{"image": image, "labels": [1.0, float("nan")]}, {"image": image, "labels": [0.0, 1.0]}]
    images = RowImages(rows, ["Mass", "Fracture"])
    assert [images[i].patient for i in range(2)] == ["image-000000", "image-000001"] == images.names
    np.testing.assert_array_equal(images[0].labels, [1, np.nan])
    assert images[0].boxes == {}
    assert images[0].thorax is None


def test_labels_and_boxes_take_the_models_order_and_missing_labels_are_unknown(image, caplog):
    row = {"image": image, "labels": [1.0, 0.0, 1.0], "box_findings": [0, 2, 2], "boxes": [[0, 0, 2, 2]] * 3}
    images = AlignedImages(RowImages([row], ["Nodule", "Fracture", "Mass"]), ["Mass", "Hernia", "Nodule"])
    found = images[0]
    np.testing.assert_array_equal(found.labels, [1, np.nan, 1])
    assert {finding: len(boxes) for finding, boxes in found.boxes.items()} == {0: 2, 2: 1}
    assert "Fracture are not the model's findings and are left out" in caplog.text
    assert images.names == ["image-000000"]


def test_images_without_any_finding_of_the_model_are_refused(image):
    rows = RowImages([{"image": image, "labels": [1.0]}], ["Fracture"])
    with pytest.raises(ValueError, match=r"`images` must have one of the model's findings, got \['Fracture'\]"):
        AlignedImages(rows, ["Mass"])


def test_a_table_whose_columns_are_in_another_order_gives_labels_in_the_models(tmp_path, image):
    PIL.Image.fromarray(image).save(tmp_path / "image.png")
    (tmp_path / "images.csv").write_text("path,patient_id,split,Pneumothorax,Atelectasis\nimage.png,a,test,1,0\n")
    images = open_images(str(tmp_path / "images.csv"), "test", wanted=FINDINGS)
    labels = dict(zip(FINDINGS, images[0].labels, strict=True))
    assert (labels["Pneumothorax"], labels["Atelectasis"]) == (1, 0)
    assert np.isnan(labels["Hernia"])
    assert images.findings == FINDINGS


def test_the_fingerprint_changes_with_labels_boxes_and_patients(image):
    row = {"image": image, "labels": [1.0], "patient_id": "a", "boxes": [[0, 0, 2, 2]], "box_findings": [0]}

    def fingerprint(**changes):
        return RowImages([row | changes], ["Mass"]).fingerprint

    assert fingerprint() == fingerprint()
    others = ({"labels": [0.0]}, {"patient_id": "b"}, {"boxes": [[0, 0, 3, 2]]}, {"box_findings": [1]})
    assert len({fingerprint(), *(fingerprint(**changes) for changes in others)}) == 5
    phantoms = [PhantomImages(3, "test", seed, size).fingerprint for seed in (0, 1) for size in (64, 96)]
    assert len(set(phantoms)) == 4


def test_only_the_first_images_are_opened_where_a_count_is_given(release):
    assert len(open_images(str(release), "train", count=3)) == 3
    assert len(open_images("phantom", count=7)) == 7


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"split": "dev"}, "`split` must be one of"),
        ({"count": 0}, "`count` must be at least 1"),
        ({"validation_fraction": 0.0, "split": "validation"}, "`split` must be one with images, got 'validation'"),
    ],
)
def test_what_cannot_be_opened_is_refused(release, settings, message):
    with pytest.raises(ValueError, match=message):
        open_images(str(release), **settings)
