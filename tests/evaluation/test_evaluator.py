# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""From a method and images to records: the numbers, the resuming, the images that cannot be read."""

import json

import numpy as np
import pytest

from clarity_hf import ClarityImageProcessor
from clarity_hf.boxes import Letterbox, boxes_from_map
from clarity_hf.evaluation.evaluator import BoxSettings, evaluate_images, read_records
from clarity_hf.evaluation.images import EvaluationImage, PhantomImages
from clarity_hf.evaluation.localizers import LocalizerOutput, ModelLocalizer
from clarity_hf.metrics.records import PackedBoxes, data_digest, to_json

SETTINGS = BoxSettings([0.5, 0.5], [0.5, 0.5])


class Corner:
    """Finding 0 in the upper left quarter of a 4 × 4 map, finding 1 everywhere; scores .9 and .1. Counts its
    images.
    """

    name, findings = "corner", ("Mass", "Nodule")

    def __init__(self):
        self.seen, self.wanted = [], []

    def __call__(self, images, wanted=None):
        self.seen += [int(image[0, 0]) for image in images]
        self.wanted += [None] * len(images) if wanted is None else list(wanted)
        maps = np.zeros((len(images), 2, 4, 4), dtype=np.float32)
        maps[:, 0, :2, :2], maps[:, 1] = 3.0, 1.0
        boxes = [Letterbox.fit(image.shape, (64, 64)) for image in images]
        return LocalizerOutput(np.tile([0.9, 0.1], (len(images), 1)), maps, boxes)


class Squares:
    """Images of 100 × 100 pixels, the grey of each its index; the last may be unreadable."""

    def __init__(self, count=5, unreadable=()):
        self.names, self.unreadable, self.read = [f"image-{i}" for i in range(count)], unreadable, []
        self.findings, self.fingerprint = ("Mass", "Nodule"), "squares"

    def __len__(self):
        return len(self.names)

    def __getitem__(self, index):
        if index >= len(self):
            raise IndexError(index)
        self.read.append(index)
        if index in self.unreadable:
            raise OSError(f"/home/someone/images/image-{index} does not decode")
        thorax = np.zeros((10, 10), dtype=bool)
        thorax[:, 5:] = True
        return EvaluationImage(
            f"image-{index}",
            f"patient-{index // 2}",
            np.full((100, 100), index, dtype=np.uint8),
            np.array([1.0, np.nan]),
            {0: np.array([[0.0, 0.0, 50.0, 50.0]])},
            age=40.0,
            thorax=thorax,
        )


def same(one, other):
    return [to_json(record) for record in one.records] == [to_json(record) for record in other.records]


def test_a_record_holds_what_the_maps_say(tmp_path):
    evaluation = evaluate_images(Corner(), Squares(), SETTINGS, tmp_path / "records.jsonl", progress=False)
    record = evaluation.records[3]
    assert (record.name, record.patient, record.size, record.age) == ("image-3", "patient-1", (100, 100), 40.0)
    np.testing.assert_array_equal(record.labels, [1, np.nan])
    np.testing.assert_array_equal(record.scores, [0.9, 0.1])
    np.testing.assert_array_equal(record.peaks, [3, 1])
    corner = np.zeros((4, 4), dtype=np.float32)
    corner[:2, :2] = 3
    expected = boxes_from_map(corner, Letterbox.fit((100, 100), (64, 64)), 0.5)
    assert [finding for finding, _ in record.shown] == [0]  # the other is below its score threshold
    np.testing.assert_allclose(record.shown[0][1], expected[0])
    (annotation,) = record.annotations
    np.testing.assert_allclose(annotation.own, expected)
    assert annotation.hit
    # Left of the thorax lies all of the corner, and half of the even map.
    assert record.mass_outside[0] > 0.9
    assert record.mass_outside[1] == pytest.approx(0.5, abs=0.02)


def test_records_come_back_from_the_file_as_they_were(tmp_path):
    evaluation = evaluate_images(Corner(), Squares(), SETTINGS, tmp_path / "r.jsonl", {"seed": 1}, progress=False)
    head, kept = read_records(tmp_path / "r.jsonl")
    assert same(kept, evaluation)
    assert head["method"] == "corner"
    assert head["about"] == {"seed": 1}
    assert head["settings"]["map_thresholds"] == [0.5, 0.5]


@pytest.mark.parametrize("torn", [False, True])
def test_a_run_that_was_stopped_resumes_and_no_image_is_evaluated_twice(tmp_path, torn):
    path = tmp_path / "records.jsonl"
    whole = evaluate_images(Corner(), Squares(), SETTINGS, tmp_path / "whole.jsonl", progress=False)
    evaluate_images(Corner(), Squares(), SETTINGS, path, batch_size=2, progress=False)
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:3]) + (lines[3][: len(lines[3]) // 2] if torn else ""))
    method, images = Corner(), Squares()
    resumed = evaluate_images(method, images, SETTINGS, path, batch_size=2, progress=False)
    assert same(resumed, whole)
    assert method.seen == images.read == [2, 3, 4]
    assert len(path.read_text().splitlines()) == 6
    again = Corner()
    assert same(evaluate_images(again, Squares(), SETTINGS, path, progress=False), whole)
    assert again.seen == []


def test_a_file_torn_within_its_first_line_is_started_again(tmp_path):
    path = tmp_path / "records.jsonl"
    path.write_text('{"method": "cor')
    assert len(evaluate_images(Corner(), Squares(), SETTINGS, path, progress=False).records) == 5
    assert len(read_records(path)[1].records) == 5


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"settings": BoxSettings([0.5, 0.5], [0.5, 0.4])}, "settings"),
        ({"about": {"weights": "other"}}, "about"),
        ({"maps": "annotated"}, "maps"),
        ({"fingerprint": "others"}, "images"),
    ],
)
def test_a_file_of_another_evaluation_is_refused_and_left_alone(tmp_path, changes, what):
    path = tmp_path / "records.jsonl"
    evaluate_images(Corner(), Squares(), SETTINGS, path, progress=False)
    before = path.read_bytes()
    images = Squares()
    images.fingerprint = changes.pop("fingerprint", images.fingerprint)
    arguments = {"settings": SETTINGS, "path": path, "progress": False} | changes
    with pytest.raises(ValueError, match=f"differs in {what}"):
        evaluate_images(Corner(), images, **arguments)
    assert path.read_bytes() == before


def test_an_image_that_cannot_be_read_is_named_counted_and_left_out(tmp_path, caplog):
    path = tmp_path / "records.jsonl"
    evaluation = evaluate_images(Corner(), Squares(unreadable=(1, 4)), SETTINGS, path, batch_size=2, progress=False)
    assert [record.name for record in evaluation.records] == ["image-0", "image-2", "image-3"]
    assert evaluation.unreadable == {"image-1": "image-1 does not decode", "image-4": "image-4 does not decode"}
    assert "image-4 cannot be read" in caplog.text
    assert read_records(path)[1].unreadable == evaluation.unreadable


def test_only_annotated_maps_are_asked_of_a_method_whose_maps_are_expensive(tmp_path):
    method = Corner()
    evaluation = evaluate_images(method, Squares(), SETTINGS, tmp_path / "r.jsonl", maps="annotated", progress=False)
    assert method.wanted == [[0]] * 5
    record = evaluation.records[0]
    assert record.shown == ()
    np.testing.assert_array_equal(record.peaks, [3, np.nan])
    assert np.isnan(record.mass_outside[1])


def test_batches_and_workers_change_no_record(tiny_model, tmp_path):
    processor = ClarityImageProcessor(size={"height": 64, "width": 64})
    method, settings = ModelLocalizer(tiny_model, processor), BoxSettings.of_config(tiny_model.config)
    images = PhantomImages(5, size=64)
    one = evaluate_images(method, images, settings, tmp_path / "1.jsonl", batch_size=1, progress=False)
    many = evaluate_images(method, images, settings, tmp_path / "4.jsonl", batch_size=4, num_workers=1, progress=False)
    assert data_digest(one.records) == data_digest(many.records)
    for record, other in zip(one.records, many.records, strict=True):
        np.testing.assert_allclose(record.scores, other.scores, atol=1e-5)
        np.testing.assert_allclose(record.peaks, other.peaks, rtol=1e-3)
        assert len(record.annotations) == len(other.annotations)


def test_the_hash_of_the_data_changes_with_labels_boxes_and_pixels_and_not_with_the_order(tmp_path):
    records = evaluate_images(Corner(), Squares(), SETTINGS, tmp_path / "r.jsonl", progress=False).records
    digest = data_digest(records)
    assert data_digest(records[::-1]) == digest
    assert data_digest(records[1:]) != digest
    for changed in ({"digest": "0"}, {"labels": np.array([0.0, 1.0])}, {"annotations": ()}):
        assert data_digest([type(records[0])(**vars(records[0]) | changed), *records[1:]]) != digest


@pytest.mark.parametrize("findings", [("Nodule", "Mass"), ("Mass",), ("Mass", "Nodule", "Hernia")])
def test_findings_in_another_order_or_number_are_refused(tmp_path, findings):
    images = Squares()
    images.findings = findings
    with pytest.raises(ValueError, match="`images` must have the method's findings in its order"):
        evaluate_images(Corner(), images, SETTINGS, tmp_path / "r.jsonl", progress=False)
    assert images.read == []


def test_images_that_could_not_be_read_are_tried_again(tmp_path):
    path = tmp_path / "records.jsonl"
    evaluate_images(Corner(), Squares(unreadable=(1, 4)), SETTINGS, path, progress=False)
    images = Squares(unreadable=(4,))
    again = evaluate_images(Corner(), images, SETTINGS, path, progress=False)
    assert images.read == [1, 4]
    assert [record.name for record in again.records] == ["image-0", "image-1", "image-2", "image-3"]
    assert list(again.unreadable) == ["image-4"]
    assert list(read_records(path)[1].unreadable) == ["image-4"]


def test_scores_are_kept_exactly(tmp_path):
    class Fine(Corner):
        def __call__(self, images, wanted=None):
            output = super().__call__(images, wanted)
            output.scores[:] = [1 / 3 + 1e-12, 1e-9 / 7]
            return output

    evaluate_images(Fine(), Squares(), SETTINGS, tmp_path / "r.jsonl", progress=False)
    record = read_records(tmp_path / "r.jsonl")[1].records[0]
    assert record.scores.tolist() == [1 / 3 + 1e-12, 1e-9 / 7]


def test_names_that_occur_twice_are_refused(tmp_path):
    images = Squares()
    images.names[1] = images.names[0]
    with pytest.raises(ValueError, match="`images` must have unique names"):
        evaluate_images(Corner(), images, SETTINGS, tmp_path / "r.jsonl", progress=False)


def test_another_file_is_not_a_file_of_records(tmp_path):
    path = tmp_path / "other.jsonl"
    path.write_text(json.dumps({"a": 1}) + "\n")
    with pytest.raises(ValueError, match="`path` must be a file of records"):
        read_records(path)


def test_packed_lists_of_boxes_read_as_the_lists_they_were():
    lists = [np.zeros((0, 4)), np.array([[0.5, 1, 2, 3], [4, 5, 6, 7]]), np.zeros((0, 4)), np.ones((1, 4))]
    packed = PackedBoxes(lists)
    assert len(packed) == 4
    for found, boxes in zip(packed, lists, strict=True):
        assert found.dtype == np.float64
        np.testing.assert_array_equal(found, boxes)
    np.testing.assert_array_equal(packed[-1], lists[-1])
    assert [len(part) for part in packed[1:3]] == [2, 0]
    assert len(PackedBoxes([])) == 0
    with pytest.raises(IndexError):
        packed[4]
