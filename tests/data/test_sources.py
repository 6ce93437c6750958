# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Data sets by name: phantoms drawn as they are read, and folders in the layout of the release."""

import numpy as np
import pytest

from clarity_hf import FINDINGS, ClarityImageProcessor
from clarity_hf.data.phantoms import write_phantoms
from clarity_hf.data.sources import PHANTOM, PhantomRows, RepeatedRows, carries_prior, open_source
from clarity_hf.data.transforms import FilmTransform


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    folder = tmp_path_factory.mktemp("release")
    write_phantoms(folder, 12, seed=0, size=64, test_fraction=0.25)
    return folder


def test_a_phantom_is_the_same_film_on_every_reading():
    rows, others = PhantomRows(5, size=64), PhantomRows(50, size=64)
    for reading in (rows[3], others[3]):
        np.testing.assert_array_equal(reading["image"], rows[3]["image"])
        np.testing.assert_array_equal(reading["labels"], rows[3]["labels"])
        np.testing.assert_array_equal(reading["thorax_mask"], rows[3]["thorax_mask"])
    assert not np.array_equal(rows[3]["image"], rows[4]["image"])


def test_a_row_has_film_labels_and_mask_of_one_size():
    row = PhantomRows(1, size=64)[0]
    assert row["image"].shape == row["thorax_mask"].shape == (64, 64)
    assert row["image"].dtype == np.uint8
    assert row["labels"].shape == (14,)
    assert set(np.unique(row["labels"])) <= {0, 1}


def test_the_largest_splits_of_any_seeds_share_no_film():
    """A film is its seed: the ranges of seeds of splits of 2³² films each do not touch."""
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


def test_arguments_of_phantoms_are_checked():
    with pytest.raises(ValueError, match="split"):
        PhantomRows(3, "dev")
    with pytest.raises(ValueError, match="finding_rate"):
        PhantomRows(3, finding_rate=1.5)


def test_repeated_rows_come_in_turns_and_end():
    rows = RepeatedRows(["a", "b", "c"], 2)
    assert len(rows) == 6
    assert list(rows) == ["a", "b", "c", "a", "b", "c"]
    with pytest.raises(IndexError, match="between 0 and 5"):
        rows[6]


def test_rows_cannot_be_repeated_less_than_once():
    with pytest.raises(ValueError, match="times"):
        RepeatedRows([1], 0)


def test_phantoms_have_three_splits_of_which_training_alone_is_dense():
    splits = open_source(PHANTOM, phantom_count=30, finding_rate=0.0, phantom_size=64)
    assert {name: len(rows) for name, rows in splits.items()} == {"train": 30, "validation": 200, "test": 200}
    assert all(splits["train"][i]["labels"].sum() == 0 for i in range(5))
    assert sum(splits["validation"][i]["labels"].sum() for i in range(20)) > 0
    assert splits["test"][0]["image"].shape == (64, 64)


@pytest.mark.parametrize(("count", "held_out"), [(100, 200), (5000, 500), (50_000, 1000)])
def test_a_tenth_of_the_phantoms_within_bounds_is_held_out(count, held_out):
    splits = open_source(PHANTOM, phantom_count=count)
    assert len(splits["validation"]) == len(splits["test"]) == held_out


def test_a_release_opens_with_films_masks_and_labels_for_the_transform(release):
    splits = open_source(str(release), validation_fraction=0.3)
    assert sum(map(len, splits.values())) == 12
    transform = FilmTransform(ClarityImageProcessor(size={"height": 64, "width": 64}), augment=True)
    for rows in splits.values():
        assert len(rows) > 0
        example = transform(rows[0])
        assert example["pixel_values"].shape == (3, 64, 64)
        assert example["labels"].shape == (len(FINDINGS),)
        assert not example["anatomical_prior"].isnan().any()
        assert example["anatomical_prior"].max() == 1


def test_errors_of_a_release_name_the_file(release, tmp_path):
    write_phantoms(tmp_path, 3, seed=1, size=64, test_fraction=0.0)
    rows = open_source(str(tmp_path), validation_fraction=0.0)["train"]
    name = rows[0]["image"]["path"]
    with open(name, "r+b") as file:
        file.truncate(200)
    transform = FilmTransform(ClarityImageProcessor(size={"height": 64, "width": 64}))
    with pytest.raises(ValueError, match=f"{rows[0]['image_id']}"):
        transform(rows[0])


def test_rows_with_masks_carry_a_prior_and_others_do_not(release):
    rows = open_source(str(release))["train"]
    assert carries_prior(rows)
    assert carries_prior(PhantomRows(1, size=64))
    assert not carries_prior(rows.remove_columns("thorax_mask"))


def test_a_release_without_test_films_has_an_empty_split(tmp_path):
    write_phantoms(tmp_path, 3, seed=1, size=64, test_fraction=0.0)
    assert len(open_source(str(tmp_path))["test"]) == 0


def test_a_folder_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        open_source(str(tmp_path / "nowhere"))
