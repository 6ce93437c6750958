# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Data sets by name: phantoms, the release, own tables and folders, the Hub."""

import os
import shutil

import datasets
import numpy as np
import pytest

from clarity_hf import FINDINGS, ClarityImageProcessor
from clarity_hf.data.label_columns import LabelOptions
from clarity_hf.data.named_splits import named_split
from clarity_hf.data.rows import AlignedRows, label_feature
from clarity_hf.data.sources import (
    PHANTOM,
    JoinedRows,
    PhantomOptions,
    PhantomRows,
    ReadingOptions,
    RepeatedRows,
    open_source,
    open_sources,
    prevalence_of,
    sample_labels,
)
from clarity_hf.data.transforms import ImageTransform
from clarity_hf.phantoms import write_phantoms

FEW = PhantomOptions(3, size=64)


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    folder = tmp_path_factory.mktemp("release")
    write_phantoms(folder, 12, seed=0, size=64, test_fraction=0.25)
    return folder


def test_a_phantom_is_the_same_image_on_every_reading():
    rows, others = PhantomRows(5, size=64), PhantomRows(50, size=64)
    for reading in (rows[3], others[3]):
        np.testing.assert_array_equal(reading["image"], rows[3]["image"])
        np.testing.assert_array_equal(reading["labels"], rows[3]["labels"])
        np.testing.assert_array_equal(reading["thorax_mask"], rows[3]["thorax_mask"])
    assert not np.array_equal(rows[3]["image"], rows[4]["image"])


def test_a_row_has_image_labels_and_mask_of_one_size():
    row = PhantomRows(1, size=64)[0]
    assert row["image"].shape == row["thorax_mask"].shape == (64, 64)
    assert row["image"].dtype == np.uint8
    assert row["labels"].shape == (14,)
    assert set(np.unique(row["labels"])) <= {0, 1}


def test_the_largest_splits_of_any_seeds_share_no_image():
    """An image is its seed: the ranges of seeds of splits of 2³² images each do not touch."""
    starts = sorted(
        PhantomRows(1, split, seed).first_seed for split in ("train", "validation", "test") for seed in range(3)
    )
    assert min(np.diff(starts)) >= 2**32


@pytest.mark.parametrize("index", [-1, 3])
def test_an_index_outside_the_rows_is_refused(index):
    with pytest.raises(IndexError, match="between 0 and 2"):
        PhantomRows(3, size=64)[index]


def test_the_finding_rate_is_the_share_of_each_finding():
    assert PhantomRows(1, size=64, finding_rate=0.0)[0]["labels"].sum() == 0
    rows = PhantomRows(40, size=64, finding_rate=0.2)
    rate = np.mean([rows[i]["labels"] for i in range(40)])
    assert 0.13 < rate < 0.27  # five standard deviations of 560 draws at 0.2


def test_findings_of_stronger_contrast_are_the_same_findings_at_the_same_place():
    usual, strong = (PhantomRows(6, size=64, finding_rate=0.3, finding_contrast=c) for c in (1.0, 4.0))
    differing = 0
    for index in range(6):
        np.testing.assert_array_equal(usual[index]["labels"], strong[index]["labels"])
        differing += (usual[index]["image"] != strong[index]["image"]).any()
    assert differing >= 4


def test_only_training_phantoms_are_of_stronger_contrast():
    usual, strong = (open_source(PHANTOM, PhantomOptions(30, size=64, finding_contrast=c)) for c in (1.0, 4.0))
    for index in range(8):
        np.testing.assert_array_equal(usual.validation[index]["image"], strong.validation[index]["image"])
    assert any((usual.train[index]["image"] != strong.train[index]["image"]).any() for index in range(8))


def test_arguments_of_phantoms_are_checked():
    with pytest.raises(ValueError, match="split"):
        PhantomRows(3, "dev")
    with pytest.raises(ValueError, match="finding_rate"):
        PhantomRows(3, finding_rate=1.5)
    with pytest.raises(ValueError, match="`finding_contrast` must be at least 1"):
        PhantomRows(3, finding_contrast=0.5)


def test_repeated_rows_cycle_and_end():
    rows = RepeatedRows(["a", "b", "c"], 2)
    assert len(rows) == 6
    assert list(rows) == ["a", "b", "c", "a", "b", "c"]
    with pytest.raises(IndexError, match="between 0 and 5"):
        rows[6]


def test_rows_cannot_be_repeated_less_than_once():
    with pytest.raises(ValueError, match="times"):
        RepeatedRows([1], 0)


def test_phantoms_have_three_splits_of_which_training_alone_is_dense():
    source = open_source(PHANTOM, PhantomOptions(30, size=64, finding_rate=0.0))
    assert (source.name, source.findings, source.has_prior) == (PHANTOM, FINDINGS, True)
    splits = source.splits()
    assert {name: len(rows) for name, rows in splits.items()} == {"train": 30, "validation": 30, "test": 30}
    assert all(splits["train"][i]["labels"].sum() == 0 for i in range(5))
    assert sum(splits["validation"][i]["labels"].sum() for i in range(20)) > 0
    assert splits["test"][0]["image"].shape == (64, 64)


@pytest.mark.parametrize(("count", "held_out"), [(16, 16), (100, 100), (1000, 200), (5000, 500), (50_000, 1000)])
def test_a_tenth_of_the_phantoms_within_bounds_is_held_out(count, held_out):
    source = open_source(PHANTOM, PhantomOptions(count))
    assert len(source.validation) == len(source.test) == held_out


def test_a_release_opens_with_images_masks_and_labels_for_the_transform(release):
    source = open_source(str(release), reading=ReadingOptions(validation_fraction=0.3))
    assert (source.name, source.findings, source.has_prior) == (release.name, FINDINGS, True)
    splits = source.splits()
    assert sum(map(len, splits.values())) == 12
    transform = ImageTransform(ClarityImageProcessor(size={"height": 64, "width": 64}), augment="full")
    for rows in splits.values():
        assert len(rows) > 0
        example = transform(rows[0])
        assert example["pixel_values"].shape == (3, 64, 64)
        assert example["labels"].shape == (len(FINDINGS),)
        assert not example["anatomical_prior"].isnan().any()
        assert example["anatomical_prior"].max() == 1


def test_errors_of_a_release_name_the_file(release, tmp_path):
    write_phantoms(tmp_path, 3, seed=1, size=64, test_fraction=0.0)
    rows = open_source(str(tmp_path), reading=ReadingOptions(validation_fraction=0.0)).train
    name = rows[0]["image"]["path"]
    with open(name, "r+b") as file:
        file.truncate(200)
    transform = ImageTransform(ClarityImageProcessor(size={"height": 64, "width": 64}))
    with pytest.raises(ValueError, match=f"{rows[0]['image_id']}"):
        transform(rows[0])


def test_a_release_without_test_images_has_an_empty_split(tmp_path):
    write_phantoms(tmp_path, 3, seed=1, size=64, test_fraction=0.0)
    assert len(open_source(str(tmp_path)).test) == 0


def test_what_was_dropped_from_a_release_is_in_its_messages(tmp_path):
    write_phantoms(tmp_path, 4, seed=1, size=64, test_fraction=0.0)
    lost = sorted((tmp_path / "images").iterdir())[0]
    lost.unlink()
    (message, *_) = open_source(str(tmp_path)).messages
    assert message == f"1 images have no file and are dropped: {lost.stem}."


def test_masks_of_a_release_may_be_in_another_folder(release, tmp_path):
    shutil.copytree(release, tmp_path / "release")
    (tmp_path / "release" / "masks").rename(tmp_path / "elsewhere")
    assert not open_source(str(tmp_path / "release")).has_prior
    source = open_source(str(tmp_path / "release"), reading=ReadingOptions(masks_dir=tmp_path / "elsewhere"))
    assert source.has_prior
    assert "elsewhere" in source.train[0]["thorax_mask"]["path"]


@pytest.fixture
def own(release, tmp_path):
    """A table and images of one's own."""
    shutil.copytree(release / "images", tmp_path / "images")
    names = sorted(path.name for path in (tmp_path / "images").iterdir())
    rows = [f"images/{name},{name[:8]},{i % 2},{-1 if i == 0 else i % 2}" for i, name in enumerate(names)]
    (tmp_path / "own.csv").write_text("\n".join(["path,patient_id,Effusion,Rib", *rows]))
    return tmp_path


def test_a_table_opens_with_the_options_of_its_labels(own):
    labels, reading = LabelOptions(["Rib"], uncertain="positive"), ReadingOptions(validation_fraction=0.3)
    source = open_source(str(own / "own.csv"), labels=labels, reading=reading)
    assert (source.name, source.findings) == ("own", ("Rib",))
    assert sum(len(rows) for rows in source.splits().values()) == 12
    values = [row["labels"][0] for rows in source.splits().values() for row in rows]
    assert sum(values) == 7  # six of twelve, and the uncertain one


def test_a_folder_of_images_opens_and_one_with_a_table_asks_for_it(own):
    with pytest.raises(FileNotFoundError, match=r"must be the table itself .* Name .*own.csv"):
        open_source(str(own))
    for kind in ("Mass", "normal"):
        (own / "sorted" / kind).mkdir(parents=True)
    for i, path in enumerate(sorted((own / "images").iterdir())):
        shutil.copy(path, own / "sorted" / ("Mass", "normal")[i % 2] / path.name)
    source = open_source(str(own / "sorted"))
    assert (source.name, source.findings) == ("sorted", ("Mass",))


@pytest.mark.parametrize("streaming", [False, True])
def test_a_folder_of_parquet_opens_as_the_hub_would(own, streaming, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", own / "cache")
    path = next((own / "images").iterdir())
    features = datasets.Features(image=datasets.Image(), labels=datasets.List(datasets.Value("string")))
    rows = datasets.Dataset.from_dict({"image": [str(path)], "labels": [["Mass"]]}, features=features)
    (own / "hub").mkdir()
    rows.to_parquet(own / "hub" / "train-0.parquet")
    source = open_source(str(own / "hub"), reading=ReadingOptions(validation_fraction=0, streaming=streaming))
    assert (source.name, source.findings) == ("hub", FINDINGS)
    assert next(iter(source.train))["labels"][FINDINGS.index("Mass")] == 1


def test_a_table_and_a_release_stream_too(own, release):
    for name in (own / "own.csv", release):
        whole, stream = (
            open_source(str(name), reading=ReadingOptions(streaming=streaming)) for streaming in (False, True)
        )
        assert isinstance(stream.train, datasets.IterableDataset)
        assert [row["patient_id"] for row in stream.train] == whole.train["patient_id"][:]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": LabelOptions(["Mass"])}, "`findings` must be left out"),
        ({"reading": ReadingOptions(masks_dir="masks")}, "`masks_dir` must be left out"),
        ({"reading": ReadingOptions(validation_split="nih-validation")}, "`validation_split` must be left out"),
        ({"reading": ReadingOptions(streaming=True)}, "`streaming` must be False for phantoms"),
    ],
)
def test_options_that_do_not_fit_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        open_source(PHANTOM, **options)


def test_an_unknown_name_lists_what_is_accepted_and_suggests_the_closest(own):
    with pytest.raises(FileNotFoundError, match=r"got 'phantm', .* Did you mean 'phantom'\?"):
        open_source("phantm")
    with pytest.raises(FileNotFoundError, match=r"a table \(.csv, .tsv, .parquet\).*Did you mean '.*images'\?"):
        open_source(str(own / "imagees"))
    with pytest.raises(FileNotFoundError, match=r"got 'nobody/nothing', .* The Hub says: "):
        open_source("nobody/nothing")
    with pytest.raises(FileNotFoundError, match=r"No such file: .*nowhere\.csv"):
        open_source(str(own / "nowhere.csv"))
    (own / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="without any of them"):
        open_source(str(own / "empty"))


def test_a_missing_folder_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        open_source(str(tmp_path / "nowhere"))


# Several data sets


def test_several_data_sets_are_returned_by_name_with_labels_in_one_order(own):
    sources = open_sources(["phantom", str(own / "own.csv")], 1, FEW)
    assert list(sources) == [PHANTOM, "own"]
    assert all(source.findings == (*FINDINGS, "Rib") for source in sources.values())
    for source in sources.values():
        assert len(source.train[0]["labels"]) == 15
    phantom, image = (source.train[0]["labels"] for source in sources.values())
    assert np.flatnonzero(np.isnan(phantom)).tolist() == [14]
    assert np.isnan(image[FINDINGS.index("Mass")])
    assert not np.isnan(image[FINDINGS.index("Effusion")])


def test_options_of_some_kinds_go_to_those_among_several_data_sets(own, release):
    names = [PHANTOM, str(release), str(own / "own.csv")]
    sources = open_sources(names, 1, FEW, LabelOptions(["Rib"]), ReadingOptions(masks_dir=release / "masks"))
    assert all(source.findings == (*FINDINGS, "Rib") for source in sources.values())
    own_labels = np.asarray(sources["own"].train[0]["labels"])
    assert np.isnan(own_labels[:14]).all()  # Effusion of the table was not requested
    assert sources[release.name].has_prior


def test_an_option_that_none_of_several_data_sets_takes_is_refused(own, release):
    with pytest.raises(ValueError, match="`findings` must be left out for phantom"):
        open_sources([PHANTOM, str(release)], labels=LabelOptions(["Mass"]))
    with pytest.raises(ValueError, match="`masks_dir` must be left out for phantom"):
        open_sources([PHANTOM, str(own / "own.csv")], reading=ReadingOptions(masks_dir="masks"))


def test_a_committed_list_applies_to_the_release_among_phantoms_and_tables(own, tmp_path):
    folder = tmp_path / "release"
    write_phantoms(folder, 24, seed=0, size=32)
    present = {line[:8] for line in (folder / "train_val_list.txt").read_text().split()}
    reading = ReadingOptions(validation_split="nih-validation")
    source = open_sources([PHANTOM, str(folder), str(own / "own.csv")], 1, FEW, reading=reading)["release"]
    validation, train = ({row["patient_id"] for row in rows} for rows in (source.validation, source.train))
    assert validation == present & named_split("nih-validation")
    assert train == present - validation
    assert len(validation) > 0


def test_images_are_repeated_and_phantoms_are_not(own):
    once, thrice = (open_sources(["phantom", str(own / "own.csv")], times, FEW) for times in (1, 3))
    assert len(thrice["own"].train) == 3 * len(once["own"].train)
    assert len(thrice["own"].validation) == len(once["own"].validation)
    assert len(thrice[PHANTOM].train) == 3


def test_two_data_sets_of_one_name_are_refused(own):
    (own / "copy").mkdir()
    shutil.copytree(own / "images", own / "copy" / "images")
    shutil.copy(own / "own.csv", own / "copy")
    with pytest.raises(ValueError, match="`names` must be of data sets with different names"):
        open_sources([str(own / "own.csv"), str(own / "copy" / "own.csv")])


def test_a_file_that_one_table_trains_on_and_another_holds_out_is_refused(own):
    header, *lines = (own / "own.csv").read_text().splitlines()
    patient = header.split(",").index("patient_id")
    patients = sorted({line.split(",")[patient] for line in lines})
    for name, splits in (("a", ("train", "validation")), ("b", ("validation", "train"))):
        rows = [f"{line},{splits[patients.index(line.split(',')[patient]) % 2]}" for line in lines]
        (own / f"{name}.csv").write_text("\n".join([f"{header},split", *rows]))
    with pytest.raises(ValueError, match=r"got \d+ files in the validation split of b and in the training of a"):
        open_sources([str(own / "a.csv"), str(own / "b.csv")])


@pytest.mark.parametrize("streaming", [False, True])
def test_patients_that_one_release_trains_on_and_another_holds_out_are_doubted(tmp_path, caplog, streaming):
    for name, fraction in (("one", 0.0), ("two", 0.5)):
        write_phantoms(tmp_path / name, 24, seed=0, size=32, test_fraction=fraction)
    names = [str(tmp_path / name) for name in ("one", "two")]
    sources = open_sources(names, reading=ReadingOptions(streaming=streaming))
    trained, held_out = ({row["patient_id"] for row in rows} for rows in (sources["one"].train, sources["two"].test))
    shared = len(trained & held_out)
    assert shared > 0
    assert f"{shared} patients in the test split of two are in the training of one by their ids" in caplog.text
    assert "Leave one of them out" in caplog.text
    caplog.clear()
    open_sources(names[:1], reading=ReadingOptions(streaming=streaming))
    assert "by their ids" not in caplog.text


# Labels


def labels_alone(labels):
    """A data set of labels, which breaks if an image is read with them."""
    features = datasets.Features(image=datasets.Image(), labels=label_feature(len(labels[0])))
    lost = [{"path": "nowhere.png", "bytes": None}] * len(labels)
    return datasets.Dataset.from_dict({"image": lost, "labels": labels}, features=features)


def test_labels_are_read_completely_and_without_the_images():
    labels = np.zeros((2000, 2))
    labels[[3, 1234], 1] = 1  # a rare finding, between the rows of any coarse sample
    labels[7, 0] = np.nan
    rows = labels_alone(labels.tolist())
    np.testing.assert_array_equal(sample_labels(rows), labels)
    np.testing.assert_array_equal(sample_labels(rows.select([1234, 7])), labels[[1234, 7]])
    moved = sample_labels(RepeatedRows(AlignedRows(rows, ["a", "b"], ["b", "c", "a"]), 2))
    assert moved.shape == (4000, 3)
    np.testing.assert_array_equal(moved[2000:, [2, 0]], labels)
    assert np.isnan(moved[:, 1]).all()


def test_phantoms_are_sampled_and_keep_their_weight_beside_images():
    phantoms, read = PhantomRows(30, size=64, finding_rate=1.0), []
    phantoms.phantom = lambda index: read.append(index) or PhantomRows.phantom(phantoms, index)
    rows = JoinedRows([labels_alone([[0.0] * 14] * 10), phantoms, labels_alone([[0.0] * 14]).select([])])
    labels = sample_labels(rows, count=4)
    assert read == [0, 9, 19, 29]
    assert labels.shape == (40, 14)
    np.testing.assert_allclose(prevalence_of(labels), 30 / 40)


def test_fewer_phantoms_than_wanted_are_read_once_each():
    rows = PhantomRows(3, size=64, finding_rate=0.3)
    np.testing.assert_array_equal(sample_labels(rows), [rows[i]["labels"] for i in range(3)])


def test_a_stream_is_sampled_at_its_head():
    rows = labels_alone([[float(i % 2)] for i in range(20)]).cast_column("image", datasets.Image(decode=False))
    np.testing.assert_array_equal(sample_labels(rows.to_iterable_dataset(), count=3), [[0], [1], [0]])


def test_an_unknown_user_and_a_pipe_are_not_data_sets(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name in ("~nobody-of-that-name/images", str(tmp_path / "pipe")):
        with pytest.raises(FileNotFoundError, match="which is none of them"):
            open_source(name)
