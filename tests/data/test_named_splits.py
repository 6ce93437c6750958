# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""The committed lists of patients: what they hold, that the code still draws them, and `load_nih` by their names."""

import configparser
import gzip
import itertools
import re
import shutil
from pathlib import Path

import PIL.Image
import pytest

from clarity_hf.data import nih
from clarity_hf.data.named_splits import (
    CHECKPOINT_TRAIN,
    CHECKPOINT_VALIDATION,
    CLARITY_VALIDATION,
    NIH_VALIDATION,
    SPLIT_FOLDER,
    SPLITS,
    TUNING_HALVES,
    named_split,
)
from clarity_hf.data.nih import load_nih, read_nih_tables, split_images
from clarity_hf.data.rows import draw_patients

PACKAGE = Path(nih.__file__).parents[1]
SIZES = {
    NIH_VALIDATION: 5602,
    CLARITY_VALIDATION: 5612,
    CHECKPOINT_TRAIN: 3594,
    CHECKPOINT_VALIDATION: 224,
} | dict.fromkeys(TUNING_HALVES, 363)
LISTED = ("00000006", "00000010")
"""Two patients of `nih-validation`."""
OTHERS = ("00000001", "00000002", "00000004")
"""Three of the official train list who are not in it."""


def patients(images) -> set[str]:
    return {image.patient_id for image in images}


# The lists


def test_every_list_has_a_name_and_every_name_a_list():
    assert sorted(path.stem for path in SPLIT_FOLDER.iterdir()) == sorted(SPLITS) == sorted(SIZES)


@pytest.mark.parametrize("name", SPLITS)
def test_a_list_says_what_it_is_and_has_a_patient_of_eight_digits_a_line(name):
    lines = (SPLIT_FOLDER / f"{name}.txt").read_text().splitlines()
    head = list(itertools.takewhile(lambda line: line.startswith("# "), lines))
    assert head[0] == f"# {name}"
    assert f"{SIZES[name]:,} patients, one a line. Made by: python examples/write_splits.py" in head[-1]
    rows = lines[len(head) :]
    assert all(re.fullmatch(r"\d{8}", line) for line in rows)
    assert rows == sorted(set(rows))
    assert named_split(name) == frozenset(rows)
    assert len(rows) == SIZES[name]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (CHECKPOINT_TRAIN, CHECKPOINT_VALIDATION),
        (CHECKPOINT_TRAIN, CLARITY_VALIDATION),
        # Boxes are all of the official test list, the other lists of the train list.
        *itertools.product((NIH_VALIDATION, CHECKPOINT_TRAIN, CHECKPOINT_VALIDATION), TUNING_HALVES),
    ],
)
def test_lists_share_no_patient(one, other):
    assert not named_split(one) & named_split(other)


def test_tuning_halves_of_two_seeds_are_different_draws():
    for one, other in itertools.combinations(TUNING_HALVES, 2):
        assert 363 / 3 < len(named_split(one) & named_split(other)) < 363 * 2 / 3  # half of a half, about


def test_the_checkpoint_has_seen_patients_of_the_validation_list():
    """The docs give these figures: a list does not make a figure of the packaged checkpoint clean by itself."""
    assert len(named_split(NIH_VALIDATION) & named_split(CHECKPOINT_TRAIN)) == 76
    assert len(named_split(NIH_VALIDATION) & named_split(CHECKPOINT_VALIDATION)) == 138


def test_the_lists_are_data_of_the_package():
    setup = PACKAGE.parents[1] / "setup.cfg"
    if not setup.is_file():
        pytest.skip("installed without its setup.cfg: that the lists are read at all is the test")
    parser = configparser.ConfigParser()
    parser.read(setup)
    patterns = [pattern.strip() for pattern in parser["options.package_data"]["clarity_hf"].split(",")]
    shipped = {path for pattern in patterns for path in PACKAGE.glob(pattern)}
    assert {SPLIT_FOLDER / f"{name}.txt" for name in SPLITS} <= shipped


@pytest.mark.parametrize("name", ["nih-test", "nih-validation.txt", "../splits/nih-validation", ""])
def test_an_unknown_name_lists_the_known_ones(name):
    with pytest.raises(ValueError, match=r"`name` must be one of nih-validation, .*, got '.*'\. Choose one"):
        named_split(name)


# What the code draws


@pytest.fixture(scope="module")
def whole_release(nih_folder, tmp_path_factory):
    """Images of the complete release's tables, each with a path that does not exist."""
    folder = tmp_path_factory.mktemp("whole")
    for packed in (nih_folder / "full-release-metadata").glob("*.gz"):
        with gzip.open(packed) as source, (folder / packed.stem).open("wb") as target:
            shutil.copyfileobj(source, target)
    names = re.findall(r"^\d{8}_\d{3}\.png", (folder / nih.TABLES[0]).read_text(), flags=re.MULTILINE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nih, "_image_files", lambda root, masks: [(0, f"{root}/images/{name}") for name in names])
        images, report = read_nih_tables(folder)
    assert report.usable == 112_120
    return images


def test_the_default_draw_of_the_complete_release_is_the_list(whole_release):
    splits = split_images(whole_release)
    assert patients(splits["validation"]) == named_split(NIH_VALIDATION)
    assert len(patients(splits["train"]) | patients(splits["validation"])) == 28_008
    assert split_images(whole_release, validation_split=NIH_VALIDATION) == splits


def test_further_boxes_change_the_draw_but_not_the_list(whole_release, nih_folder):
    boxed = {image.image_id for image in read_nih_tables(nih_folder)[0] if image.boxes}
    images = [image for image in whole_release if image.split == "train"]
    before = [image.boxes for image in images]
    for image in images:
        if image.image_id in boxed:
            image.boxes = ((0.0, 0.0, 1.0, 1.0),)
    try:
        drawn, listed = split_images(images), split_images(images, validation_split=NIH_VALIDATION)
    finally:
        for image, boxes in zip(images, before, strict=True):
            image.boxes = boxes
    assert patients(drawn["validation"]) != named_split(NIH_VALIDATION)
    assert patients(listed["validation"]) == named_split(NIH_VALIDATION)


@pytest.mark.parametrize("seed", range(6))
def test_half_of_the_patients_with_boxes_tune_and_half_are_left(whole_release, seed):
    boxed = patients(image for image in whole_release if image.boxes)
    tuning = named_split(f"nih-boxes-tuning-{seed}")
    assert len(boxed) == 726
    assert tuning == draw_patients(boxed, 0.5, seed)
    assert len(boxed - tuning) == 363
    images = [image for image in whole_release if image.boxes]
    findings = {finding for image in images if image.patient_id in tuning for finding in image.box_findings}
    assert len(findings) == 8  # none is without boxes to tune on


def test_the_images_of_the_packaged_checkpoint_split_into_its_lists(nih_folder):
    first = split_images(read_nih_tables(nih_folder)[0])
    assert patients(first["train"]) < named_split(CHECKPOINT_TRAIN)
    assert patients(first["validation"]) == named_split(CHECKPOINT_VALIDATION)
    assert (len(first["train"]), len(first["validation"])) == (1049, 332)  # as its model card says
    if not (folder := nih_folder.with_name("nih-train-240")).is_dir():
        return
    last = split_images(read_nih_tables(folder)[0], validation_split=CLARITY_VALIDATION)
    assert patients(first["train"]) | patients(last["train"]) == named_split(CHECKPOINT_TRAIN)
    assert (len(last["train"]), len(last["validation"])) == (9263, 2659)


# A release by the name of a list


@pytest.fixture
def release(tmp_path):
    """Five patients of the train list, two of them of `nih-validation`, and one of the test list, an image each.

    A box and an image at full size of patients outside the list, which would send them to validation in a draw.
    """
    train, test = [f"{patient}_000.png" for patient in (*LISTED, *OTHERS)], ["00000003_000.png"]
    rows = [f"{name},No Finding" for name in train + test]
    (tmp_path / "Data_Entry_2017_v2020.csv").write_text("\n".join(["Image Index,Finding Labels", *rows]))
    (tmp_path / "train_val_list.txt").write_text("\n".join(train))
    (tmp_path / "test_list.txt").write_text("\n".join(test))
    boxes = ["Image Index,Finding Label,Bbox [x,y,w,h],,,", f"{OTHERS[0]}_000.png,Mass,1,2,3,4"]
    (tmp_path / "BBox_List_RSNA.csv").write_text("\n".join(boxes))
    for folder, names in (("images", train + test), ("original-1024", [f"{OTHERS[1]}_000.png"])):
        (tmp_path / folder).mkdir()
        for name in names:
            PIL.Image.new("L", (8, 8)).save(tmp_path / folder / name)
    return tmp_path


def test_the_validation_patients_are_exactly_those_of_the_list(release):
    splits = load_nih(release, validation_split=NIH_VALIDATION)
    assert set(splits["validation"]["patient_id"]) == set(LISTED)
    assert set(splits["train"]["patient_id"]) == set(OTHERS)  # also those with a box and with an image at full size
    assert set(splits["test"]["patient_id"]) == {"00000003"}
    drawn = load_nih(release, validation_fraction=2 / len([*LISTED, *OTHERS]))
    assert set(drawn["validation"]["patient_id"]) == set(OTHERS[:2])


def test_patients_of_the_list_who_are_not_there_are_counted_and_named(release, caplog):
    load_nih(release, validation_split=NIH_VALIDATION)
    assert "Validation takes 2 of the 5602 patients of nih-validation: the others are not in" in caplog.text
    first = sorted(named_split(NIH_VALIDATION))[2]
    assert f"train_val_list.txt: {first}, " in caplog.text


@pytest.mark.parametrize(
    "option", [{"validation_fraction": 0.1}, {"seed": 1}, {"validation_patients": ["00000001"]}], ids=str
)
def test_a_list_and_a_draw_are_not_combined(release, option):
    with pytest.raises(ValueError, match=r"`validation_split` must come without .* got 'nih-validation' with"):
        load_nih(release, validation_split=NIH_VALIDATION, **option)


@pytest.mark.parametrize("name", [TUNING_HALVES[0], CHECKPOINT_VALIDATION])
def test_a_list_without_a_patient_of_the_train_list_is_refused(release, name):
    with pytest.raises(ValueError, match=rf"must have patients of train_val_list.txt, got '{name}', none of whose"):
        load_nih(release, validation_split=name)


def test_an_unknown_list_is_refused_before_the_images_are_looked_at(tmp_path):
    with pytest.raises(ValueError, match="`name` must be one of nih-validation"):
        load_nih(tmp_path / "nowhere", validation_split="nih-valid")
