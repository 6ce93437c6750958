# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""What all data sets share: labels in one order of findings, the draw of patients, streams of rows."""

import pickle

import datasets
import numpy as np
import pytest

from clarity_hf.data.rows import (
    AlignedRows,
    ImageRow,
    Source,
    align_labels,
    align_source,
    check_disjoint,
    check_validation_fraction,
    draw_patients,
    draws_patient,
    first_names,
    row_features,
    streamed,
    undecoded,
    union_of_findings,
)

NAN = np.nan


class Epochs(list):
    """Rows that remember the epoch."""

    def set_epoch(self, epoch):
        self.epoch = epoch


def label_rows(*labels):
    return Epochs({"labels": np.float32(label), "patient_id": str(i)} for i, label in enumerate(labels))


def test_labels_move_to_their_finding_and_the_rest_is_not_annotated():
    rows = AlignedRows(label_rows([1, 0], [NAN, 1]), own=["Mass", "Edema"], findings=["Edema", "Hernia", "Mass"])
    assert len(rows) == 2
    np.testing.assert_array_equal(rows[0]["labels"], [0, NAN, 1])
    np.testing.assert_array_equal(rows[1]["labels"], [1, NAN, NAN])
    assert rows[1]["labels"].dtype == np.float32
    assert rows[1]["patient_id"] == "1"


def test_aligning_leaves_the_rows_as_they_are():
    rows = label_rows([1])
    AlignedRows(rows, ["Mass"], ["Edema", "Mass"])[0]
    np.testing.assert_array_equal(rows[0]["labels"], [1])


def test_the_same_findings_need_no_alignment():
    rows = label_rows([1, 0])
    assert align_labels(rows, ["Mass", "Edema"], ["Mass", "Edema"]) is rows
    assert align_labels(rows, ["Mass", "Edema"], ["Edema", "Mass"]) is not rows


def test_a_loop_over_aligned_rows_ends():
    assert len(list(AlignedRows(label_rows([1], [0], [1]), ["Mass"], ["Mass", "Edema"]))) == 3
    with pytest.raises(IndexError, match="between 0 and 0"):
        AlignedRows(label_rows([1]), ["Mass"], ["Mass", "Edema"])[1]


def test_aligned_rows_pass_the_epoch_on():
    rows = label_rows([1])
    AlignedRows(rows, ["Mass"], ["Mass", "Edema"]).set_epoch(3)
    assert rows.epoch == 3
    AlignedRows([{"labels": [1]}], ["Mass"], ["Mass", "Edema"]).set_epoch(3)  # nothing to tell


def test_labels_are_not_lost():
    with pytest.raises(ValueError, match=r"`findings` must include .* without \['Mass'\]"):
        align_labels(label_rows([1, 0]), ["Mass", "Edema"], ["Edema"])


@pytest.mark.parametrize(("own", "findings"), [(["Mass", "Mass"], ["Mass"]), (["Mass"], ["Mass", "Mass"])])
def test_a_finding_occurs_once(own, findings):
    with pytest.raises(ValueError, match="must not repeat a finding"):
        align_labels(label_rows([1, 0]), own, findings)


def test_labels_of_another_length_are_refused():
    with pytest.raises(ValueError, match=r"one value per finding \(1\), got \(2,\)"):
        AlignedRows(label_rows([1, 0]), ["Mass"], ["Mass", "Edema"])[0]


def test_a_stream_is_aligned_as_it_is_read_and_can_be_sent_to_workers():
    features = datasets.Features(labels=datasets.List(datasets.Value("float32"), length=1))
    rows = datasets.Dataset.from_dict({"labels": [[1.0], [0.0]]}, features=features).to_iterable_dataset()
    aligned = align_labels(rows, ["Mass"], ["Edema", "Mass"])
    for stream in (aligned, pickle.loads(pickle.dumps(aligned))):
        np.testing.assert_array_equal([row["labels"] for row in stream], [[NAN, 1], [NAN, 0]])
    assert aligned.features["labels"].length == 2


def test_sources_meet_in_the_union_of_their_findings():
    one = Source("one", ("Mass", "Edema"), label_rows([1, 0]), label_rows(), label_rows())
    two = Source("two", ("Edema", "Clavicle"), label_rows([1, 1]), label_rows([0, 0]), label_rows())
    findings = union_of_findings([one, two])
    assert findings == ("Mass", "Edema", "Clavicle")
    one, two = (align_source(source, findings) for source in (one, two))
    assert one.findings == two.findings == findings
    np.testing.assert_array_equal(one.train[0]["labels"], [1, 0, NAN])
    np.testing.assert_array_equal(two.validation[0]["labels"], [NAN, 0, 0])
    assert list(two.splits()) == ["train", "validation", "test"]


def test_the_draw_does_not_depend_on_order_or_repetition():
    patients = [f"p{i}" for i in range(20)]
    drawn = draw_patients(patients, 0.2, seed=0)
    assert len(drawn) == 4
    assert drawn == draw_patients([*reversed(patients), *["p3"] * 10], 0.2, seed=0)
    assert drawn != draw_patients(patients, 0.2, seed=1)
    assert draw_patients(patients, 0, seed=0) == set()


def test_the_draw_is_that_of_the_releases_reader():
    """No image is in training in one of our splits and in validation in another, if ids agree."""
    from clarity_hf.data.nih import NihImage, split_images

    ids = [f"{i:08d}" for i in range(30)]
    images = [
        NihImage(image_id=f"{i}_000", patient_id=i, labels=np.zeros(14), split="train", path="x") for i in ids
    ]
    held_out = {image.patient_id for image in split_images(images, 0.2, seed=3)["validation"]}
    assert held_out == draw_patients(ids, 0.2, seed=3)


def test_a_patient_alone_is_drawn_with_the_given_probability():
    share = np.mean([draws_patient(str(i), 0.2, seed=0) for i in range(2000)])
    assert share == pytest.approx(0.2, abs=0.04)  # four and a half standard deviations
    assert not any(draws_patient(str(i), 0.0, seed=0) for i in range(100))
    # The lowest hashes are drawn by both: of many patients nearly the same ones.
    patients = [str(i) for i in range(2000)]
    alone = {patient for patient in patients if draws_patient(patient, 0.2, seed=0)}
    together = draw_patients(patients, 0.2, seed=0)
    assert alone <= together or together <= alone


def test_some_patients_are_taken_in_any_case_and_some_first():
    patients = [f"p{i}" for i in range(10)]
    drawn = draw_patients(patients, 0.3, seed=0, always=["p7", "unknown"], first=["p1", "p2", "p3"])
    assert "p7" in drawn
    assert len(drawn) == 3
    assert drawn - {"p7"} < {"p1", "p2", "p3"}
    assert draw_patients(patients, 0.0, seed=0, always=["p7", "p8"], first=["p1"]) == {"p7", "p8"}


def test_splits_that_share_a_patient_are_refused_by_their_lines_alone():
    def rows(*patients):
        return [
            ImageRow(image_id="x", patient_id=patient, labels=np.zeros(1), split=split, line=line)
            for line, (patient, split) in enumerate(zip(patients, ("train", "validation", "test"), strict=True), 2)
        ]

    check_disjoint(rows("a", "b", "c"), "")
    with pytest.raises(ValueError, match=r"train and test share 1 patients \(train lines 2; test lines 4\)\. Move"):
        check_disjoint(rows("a", "b", "a"), "Move it.")


@pytest.mark.parametrize("fraction", [-0.1, 1.0, NAN])
def test_a_validation_fraction_is_a_share(fraction):
    with pytest.raises(ValueError, match=r"`validation_fraction` must be in \[0, 1\)"):
        check_validation_fraction(fraction)


def test_images_are_left_undecoded():
    rows = datasets.Dataset.from_dict({"image": ["a.png"]}, features=datasets.Features(image=datasets.Image()))
    assert undecoded(rows)[0]["image"] == {"bytes": None, "path": "a.png"}


def test_a_source_becomes_streams_with_the_same_rows_also_of_an_empty_split():
    columns = {"image": ["a.png", "b.png"], "labels": [[1.0], [0.0]], "patient_id": ["1", "2"]}
    rows = datasets.Dataset.from_dict(columns, features=row_features(1))
    source = streamed(Source("own", ("Mass",), rows, rows.select([]), rows.select([0])))
    assert list(source.train) == list(rows)
    assert source.train.num_shards == 2
    assert list(source.validation) == []
    assert source.validation.features == rows.features


def test_of_many_names_the_first_few_are_said():
    assert first_names("abc") == "a, b, c"
    assert first_names("abcdefg", 2) == "a, b, …"
