# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""The NIH ChestX-ray14 reader, on a tiny release written here and on a real subset where there is one."""

import csv
import gzip
import logging
import os
import random
import shutil
import time
from pathlib import Path

import datasets
import numpy as np
import PIL.Image
import pytest

from clarity_hf.data.nih import BOX_FRAME, load_nih, open_image, read_nih_tables, split_images
from clarity_hf.labels import FINDINGS

HEADER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]"
)
BOX_HEADER = "Image Index,Finding Label,Bbox [x,y,w,h],,,"


def row(name: str, findings: str = "No Finding", age: str = "50") -> str:
    follow_up, patient = int(name[9:12]), int(name[:8])
    return f"{name},{findings},{follow_up},{patient},{age},F,PA,2500,2048,0.171,0.171"


def write_image(path: Path, mode: str = "L", seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (16, 16), dtype=np.uint8)
    if mode == "I;16":
        PIL.Image.fromarray(pixels.astype(np.uint16) * 257).save(path)
    else:
        PIL.Image.fromarray(pixels).convert(mode).save(path)


def write_table(folder: Path, rows: list[str], name: str = "Data_Entry_2017_v2020.csv") -> None:
    (folder / name).write_text("\n".join([HEADER, *rows]) + "\n")


def image_names(first: int, last: int) -> list[str]:
    """Two images of each patient."""
    return [f"{patient:08d}_{visit:03d}.png" for patient in range(first, last) for visit in range(2)]


@pytest.fixture
def release(tmp_path):
    """Patients 1-20 in the train list and 21-24 in the test list, two images each; boxes on patients 3 and 21."""
    train, test = image_names(1, 21), image_names(21, 25)
    findings = {"00000003_000.png": "Infiltration", "00000021_000.png": "Mass", "00000001_001.png": "Hernia|Edema"}
    write_table(tmp_path, [row(name, findings.get(name, "No Finding")) for name in train + test])
    (tmp_path / "train_val_list.txt").write_text("\n".join(train))
    (tmp_path / "test_list.txt").write_text("\n".join(test) + "\n")
    boxes = ["00000003_000.png,Infiltrate,100.5,200,300,400,,,", "00000021_000.png,Mass,0,0,1024,1024,,,"]
    (tmp_path / "BBox_List_2017.csv").write_text("\n".join([BOX_HEADER, *boxes]) + "\n")
    for name in train + test:
        write_image(tmp_path / "images" / name)
    return tmp_path


def find(split: datasets.Dataset, image_id: str) -> dict:
    return split[split["image_id"][:].index(image_id)]


def patients(split: datasets.Dataset) -> set[str]:
    return set(split["patient_id"])


# Columns


def test_splits_have_the_documented_columns(release):
    splits = load_nih(release)
    assert list(splits) == ["train", "validation", "test"]
    for split in splits.values():
        assert split.features == datasets.Features(
            image=datasets.Image(),
            image_id=datasets.Value("string"),
            patient_id=datasets.Value("string"),
            labels=datasets.List(datasets.Value("float32"), length=14),
            boxes=datasets.List(datasets.List(datasets.Value("float32"), length=4)),
            box_findings=datasets.List(datasets.ClassLabel(names=list(FINDINGS))),
            sex=datasets.Value("string"),
            age=datasets.Value("float32"),
            view=datasets.Value("string"),
            follow_up=datasets.Value("int32"),
        )


def test_an_image_comes_with_its_row_image_and_boxes(release):
    radiograph = find(load_nih(release)["validation"], "00000003_000")
    image = radiograph.pop("image")
    assert (image.size, image.mode) == ((16, 16), "L")
    labels = radiograph.pop("labels")
    assert [name for name, label in zip(FINDINGS, labels, strict=True) if label == 1] == ["Infiltration"]
    assert sum(labels) == 1
    assert radiograph == {
        "image_id": "00000003_000",
        "patient_id": "00000003",
        "boxes": [[100.5, 200.0, 400.5, 600.0]],
        "box_findings": [FINDINGS.index("Infiltration")],
        "sex": "F",
        "age": 50.0,
        "view": "PA",
        "follow_up": 0,
    }


def test_right_and_bottom_of_a_box_over_the_entire_image_are_exclusive(release):
    assert find(load_nih(release)["test"], "00000021_000")["boxes"] == [[0.0, 0.0, BOX_FRAME, BOX_FRAME]]


def test_several_findings_of_a_row_are_all_present(release):
    images, _ = read_nih_tables(release)
    assert [name for name, label in zip(FINDINGS, images[1].labels, strict=True) if label] == ["Edema", "Hernia"]


def test_columns_convert_to_torch(release):
    split = load_nih(release)["validation"].remove_columns("image").with_format("torch")
    image = split[0]
    assert image["labels"].shape == (14,)
    assert str(image["labels"].dtype) == "torch.float32"


@pytest.mark.parametrize("mode", ["RGBA", "RGB", "LA", "P", "I;16"])
def test_an_image_keeps_its_own_mode(release, mode):
    write_image(release / "images" / "00000021_001.png", mode)
    image = find(load_nih(release, verify=True)["test"], "00000021_001")
    assert image["image"].mode == mode
    assert image["image"].size == (16, 16)


def test_boxes_of_all_lists_are_joined_and_repetitions_dropped(release):
    boxes = ["00000003_000.png,Infiltration,1,2,3,4", "00000003_000.png,Infiltrate,100.5,200,300,400"]
    (release / "BBox_List_RSNA.csv").write_text("\n".join([BOX_HEADER, *boxes, ",,,,,"]) + "\n")
    images, report = read_nih_tables(release)
    assert images[4].boxes == ((100.5, 200.0, 400.5, 600.0), (1.0, 2.0, 4.0, 6.0))
    assert images[4].box_findings == (3, 3)
    assert report.duplicate_boxes == ["00000003_000"]


def test_a_box_a_pixel_beyond_the_frame_is_cut_to_it(release):
    (release / "BBox_List_2017.csv").write_text(f"{BOX_HEADER}\n00000021_000.png,Mass,-0.5,1000,100,24.6\n")
    assert find(load_nih(release)["test"], "00000021_000")["boxes"] == [[0.0, 1000.0, 99.5, 1024.0]]


def test_a_box_for_a_finding_outside_the_labels_is_kept_and_counted(release):
    (release / "BBox_List_RSNA.csv").write_text(f"{BOX_HEADER}\n00000003_000.png,Pneumonia,1,2,3,4\n")
    images, report = read_nih_tables(release)
    assert images[4].box_findings == (3, 6)
    assert report.boxes_without_label == ["00000003_000"]


def test_a_release_without_boxes_has_empty_lists(release):
    (release / "BBox_List_2017.csv").unlink()
    assert find(load_nih(release)["test"], "00000021_000")["boxes"] == []


def test_masks_become_a_column_and_missing_ones_are_none(release):
    write_image(release / "masks" / "00000021_000.png")
    splits = load_nih(release)
    assert find(splits["test"], "00000021_000")["thorax_mask"].size == (16, 16)
    assert find(splits["test"], "00000021_001")["thorax_mask"] is None
    assert len(read_nih_tables(release)[1].missing_masks) == 47


def test_masks_may_have_any_size_and_be_jpegs_a_png_first(release):
    (release / "masks").mkdir()
    for name, size in (("00000021_000.jpg", 8), ("00000021_000.png", 24), ("00000021_001.JPG", 8)):
        PIL.Image.fromarray(np.full((size, size + 1), 255, dtype=np.uint8)).save(release / "masks" / name)
    test = load_nih(release)["test"]
    assert find(test, "00000021_000")["thorax_mask"].size == (25, 24)
    assert find(test, "00000021_001")["thorax_mask"].size == (9, 8)
    assert len(read_nih_tables(release)[1].missing_masks) == 46


@pytest.mark.parametrize("inside", [True, False])
def test_masks_of_another_folder_are_read_and_not_taken_for_images(release, tmp_path_factory, inside):
    """Also below the release, where the search for images must not take them for further copies."""
    folder = release / "segmented" if inside else tmp_path_factory.mktemp("segmented")
    write_image(folder / "00000021_000.png")
    write_image(release / "masks" / "00000021_001.png")
    images, report = read_nih_tables(release, masks_dir=folder)
    assert {image.image_id: image.mask_path for image in images if image.mask_path} == {
        "00000021_000": str(folder / "00000021_000.png")
    }
    assert len(report.missing_masks) == 47
    assert report.duplicate_files == []
    test = load_nih(release, masks_dir=str(folder))["test"]
    assert find(test, "00000021_000")["thorax_mask"].size == (16, 16)
    assert find(test, "00000021_001")["thorax_mask"] is None


def test_a_missing_folder_of_masks_is_an_error(release, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"`masks_dir` must be a folder of masks, got .*nowhere"):
        load_nih(release, masks_dir=tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("written", "years"), [("058Y", 58.0), ("018M", 1.5), ("414", None), ("", None), ("120", 120.0), ("95", 95.0)]
)
def test_ages_are_years_and_impossible_ones_unknown(release, written, years):
    names = image_names(1, 21)
    write_table(release, [row(names[0], age=written), *(row(name) for name in names[1:])])
    images, report = read_nih_tables(release)
    assert images[0].age == years
    assert report.unknown_ages == ([] if years is not None else ["00000001_000"])
    split = load_nih(release, validation_patients=[1])["validation"]
    assert find(split, "00000001_000")["age"] == years


# Where the images are


@pytest.mark.parametrize("folder", ["images_001/images", "images_012/images", "images_003", ".", "reduced/deep"])
def test_images_are_found_in_other_folders(release, folder):
    names = [path.name for path in (release / "images").iterdir()]
    (release / folder).mkdir(parents=True, exist_ok=True)
    for name in names:
        (release / "images" / name).rename(release / folder / name)
    images, report = read_nih_tables(release)
    assert report.usable == 48
    assert images[0].path == str((release / folder / "00000001_000.png").absolute())


def test_jpeg_copies_match_by_name_without_extension(release):
    for path in list((release / "images").iterdir()):
        path.rename(path.with_suffix(".jpg"))
    assert read_nih_tables(release)[1].usable == 48


def test_a_linked_image_folder_is_followed_once(release, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("disk") / "images"
    shutil.move(release / "images", elsewhere)
    (release / "images").symlink_to(elsewhere)
    (elsewhere / "loop").symlink_to(release)
    _, report = read_nih_tables(release)
    assert (report.usable, report.duplicate_files) == (48, [])


def test_the_release_folder_wins_over_copies_and_originals_come_last(release):
    for folder in ("a-copy", "original-1024"):
        write_image(release / folder / "00000005_000.png")
    write_image(release / "original-1024" / "00000006_000.png")
    (release / "images" / "00000006_000.png").unlink()
    images, report = read_nih_tables(release)
    by_id = {image.image_id: image for image in images}
    assert Path(by_id["00000005_000"].path).parent.name == "images"
    assert Path(by_id["00000006_000"].path).parent.name == "original-1024"
    assert report.duplicate_files == ["00000005_000", "00000005_000"]


# Split


def test_no_patient_is_in_two_splits_and_the_test_list_is_kept(release):
    splits = load_nih(release, validation_fraction=0.3)
    train, validation, test = (patients(splits[name]) for name in ("train", "validation", "test"))
    assert not train & validation
    assert not (train | validation) & test
    assert test == {f"{patient:08d}" for patient in range(21, 25)}
    assert (len(train), len(validation)) == (14, 6)
    assert sum(len(split) for split in splits.values()) == 48


def test_the_split_follows_the_seed_and_not_the_order_of_the_rows(release):
    images, _ = read_nih_tables(release)
    shuffled = random.Random(0).sample(images, len(images))

    def validation(images, seed):
        return {image.image_id for image in split_images(images, 0.5, seed)["validation"]}

    assert validation(images, 0) == validation(shuffled, 0)
    assert validation(images, 0) != validation(images, 1)


def test_the_split_is_the_same_on_every_platform(release):
    images, _ = read_nih_tables(release)
    # SHA-256 of "0:00000001" and so on, the three lowest beside patient 3, who has a box.
    expected = {"00000003", "00000012", "00000014", "00000016"}
    assert {image.patient_id for image in split_images(images)["validation"]} == expected


def test_patients_with_boxes_originals_or_named_go_to_validation_first(release):
    write_image(release / "original-1024" / "00000011_001.png")
    splits = load_nih(release, validation_fraction=0.25, validation_patients=["12", 13, "00000014"])
    expected = {"00000003", "00000011", "00000012", "00000013", "00000014"}
    assert patients(splits["validation"]) == expected
    assert len(splits["validation"]) == 10


def test_if_more_patients_have_boxes_than_requested_only_as_many_as_requested_go_to_validation(release):
    for patient in range(1, 12):
        write_image(release / "original-1024" / f"{patient:08d}_001.png")
    splits = load_nih(release, validation_fraction=0.2)
    first = patients(splits["validation"])
    assert len(first) == 4
    assert max(first) <= "00000011"
    assert patients(load_nih(release, validation_fraction=0.0)["validation"]) == set()


def test_more_named_patients_than_the_requested_share_are_all_taken_with_a_warning(release, caplog):
    splits = load_nih(release, validation_fraction=0.0, validation_patients=[12, 13])
    assert patients(splits["validation"]) == {"00000012", "00000013"}
    assert "Validation takes all 2 `validation_patients`" in caplog.text


def test_named_patients_outside_the_train_list_stay_and_are_reported(release, caplog):
    splits = load_nih(release, validation_patients=[22, 999])
    assert "00000022" in patients(splits["test"])
    assert "2 of `validation_patients` are not in train_val_list.txt" in caplog.text
    assert "00000022, 00000999" in caplog.text


def test_a_string_of_validation_patients_is_refused(release):
    with pytest.raises(TypeError, match=r"`validation_patients` must be an iterable .* Pass \['12'\]"):
        load_nih(release, validation_patients="12")


@pytest.mark.parametrize("fraction", [-0.1, 1.0, float("nan")])
def test_a_fraction_out_of_range_is_refused(release, fraction):
    with pytest.raises(ValueError, match=r"`validation_fraction` must be in \[0, 1\), got"):
        load_nih(release, validation_fraction=fraction)


def test_without_a_test_list_the_test_split_is_empty_and_a_warning_says_so(release, caplog):
    (release / "test_list.txt").unlink()
    splits = load_nih(release)
    assert len(splits["test"]) == 0
    assert splits["test"].features == splits["train"].features
    assert "no test_list.txt: the test split is empty" in caplog.text
    assert "8 images are in neither official list" in caplog.text


def test_a_patient_in_both_lists_is_an_error_that_names_the_rows(release):
    lines = (release / "train_val_list.txt").read_text().split()
    (release / "train_val_list.txt").write_text("\n".join(line for line in lines if line != "00000007_001.png"))
    with (release / "test_list.txt").open("a") as file:
        file.write("00000007_001.png\n")
    with pytest.raises(ValueError, match=r"train and test share 1 patients \(train lines 14; test lines 15\)"):
        load_nih(release)


def test_an_image_in_both_lists_is_an_error_that_names_it(release):
    with (release / "test_list.txt").open("a") as file:
        file.write("00000007_001.png\n")
    with pytest.raises(ValueError, match="must share no image, got 00000007_001 in both"):
        load_nih(release)


# What is dropped is reported


def test_a_missing_file_is_counted_and_named_and_moves_no_patient(release, caplog):
    before = load_nih(release)
    (release / "images" / "00000008_001.png").unlink()
    caplog.clear()
    after = load_nih(release)
    assert "1 images have no file and are dropped: 00000008_001." in caplog.text
    assert "00000008_001" in after["train"].info.description
    for name, split in before.items():
        assert set(split["image_id"]) - {"00000008_001"} == set(after[name]["image_id"])
    assert read_nih_tables(release)[1].usable == 47


@pytest.mark.parametrize("damage", ["cut", "text", "empty", "bits"])
def test_verify_drops_a_corrupt_file_by_name_and_keeps_the_others(release, caplog, damage):
    path = release / "images" / "00000022_000.png"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes({"cut": bytes(content)[:150], "text": b"<html>", "empty": b"", "bits": bytes(content)}[damage])
    _, report = read_nih_tables(release, verify=True)
    assert list(report.unreadable_files) == ["00000022_000"]
    assert report.usable == 47
    splits = load_nih(release, verify=True)
    assert "1 images cannot be read and are dropped: 00000022_000 (" in caplog.text
    assert [image["image"].size for image in splits["test"]] == [(16, 16)] * 7


def test_open_image_names_the_corrupt_file(release):
    path = release / "images" / "00000022_000.png"
    path.write_bytes(path.read_bytes()[:150])
    split = load_nih(release)["test"].cast_column("image", datasets.Image(decode=False))
    with pytest.raises(OSError, match=r"must be an image that decodes, got .*00000022_000\.png"):
        open_image(find(split, "00000022_000")["image"]["path"])
    assert np.asarray(open_image(find(split, "00000022_001")["image"]["path"])).shape == (16, 16)
    with pytest.raises(FileNotFoundError, match="absent"):
        open_image(release / "absent.png")


def test_too_little_memory_is_not_blamed_on_the_image(release, monkeypatch):
    def fail(image):
        raise MemoryError

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", fail)
    with pytest.raises(MemoryError):
        open_image(release / "images" / "00000022_000.png")
    with pytest.raises(MemoryError):
        load_nih(release, verify=True)


def test_rows_lists_and_files_that_do_not_match_are_counted(release):
    with (release / "Data_Entry_2017_v2020.csv").open("a") as file:
        file.write("\n".join([row("00000001_000.png", "Mass"), row("00000090_000.png")]) + "\n\n")
    with (release / "train_val_list.txt").open("a") as file:
        file.write("\n00000091_000.png\n")
    with (release / "BBox_List_2017.csv").open("a") as file:
        file.write("00000092_000.png,Mass,1,2,3,4,,,\n")
    write_image(release / "images" / "00000093_000.png")
    write_image(release / "images" / "._00000001_000.png")  # what macOS archives leave behind
    images, report = read_nih_tables(release)
    assert (report.rows, len(images), report.usable) == (50, 49, 48)
    assert not images[0].labels.any()
    assert report.conflicting_rows == ["00000001_000"]
    assert report.unlisted == ["00000090_000"]
    assert report.missing_files == ["00000090_000"]
    assert report.listed_without_row == ["00000091_000"]
    assert report.boxes_without_row == ["00000092_000"]
    assert report.files_without_row == ["00000093_000"]
    assert len(report.messages()) == 6


def test_a_complete_release_gives_no_warning(release, caplog):
    with caplog.at_level(logging.WARNING):
        load_nih(release)
    assert caplog.text == ""
    assert read_nih_tables(release)[1].messages() == []


# Tables that cannot be read


def test_the_older_table_with_its_trailing_column_is_read(release):
    (release / "Data_Entry_2017_v2020.csv").unlink()
    names = image_names(1, 25)
    lines = [f"{HEADER},", *(f"{row(name, age='058Y')}," for name in names)]
    (release / "Data_Entry_2017.csv").write_text("\ufeff" + "\r\n".join(lines), encoding="utf-8")
    images, report = read_nih_tables(release)
    assert report.usable == 48
    assert images[0].age == 58


def test_a_table_with_names_and_findings_alone_is_enough(release):
    names = image_names(1, 25)
    lines = ["Image Index,Finding Labels", *(f"{name},No Finding" for name in names)]
    (release / "Data_Entry_2017_v2020.csv").write_text("\n".join(lines))
    image = load_nih(release)["test"][0]
    assert image["patient_id"] == "00000021"
    assert [image[name] for name in ("sex", "age", "view", "follow_up")] == [None] * 4


def test_an_unknown_finding_names_file_line_and_image(release):
    with (release / "Data_Entry_2017_v2020.csv").open("a") as file:
        file.write(row("00000030_000.png", "Effusion|Pneumotorax") + "\n")
    with pytest.raises(ValueError, match=r"v2020\.csv, line 50 \(00000030_000\.png\).*'Pneumotorax'.*'Pneumothorax'"):
        load_nih(release)


@pytest.mark.parametrize(
    "header",
    [
        "Image Index,Finding Label,x1,y1,x2,y2",
        "image,finding,xmin,ymin,xmax,ymax",
        "image,finding,w,h,x,y",
        "image,finding,y,x,h,w",
        "00000003_000.png,Mass,1,2,3,4",
        "00000003_000.png,Mass,1.5,2.5,3.0,4.0,,",
    ],
)
def test_a_box_list_of_other_columns_or_without_names_is_refused(release, header):
    (release / "BBox_List_own.csv").write_text(f"{header}\n00000003_000.png,Mass,100,200,300,400\n")
    with pytest.raises(ValueError, match=r"BBox_List_own\.csv, line 1: the columns must be named image"):
        load_nih(release)


@pytest.mark.parametrize("header", ["Image Index,Label,Bbox [x,y,w,h],,,", "a,b,x,y,width,height", "a,b,c,d,e,f"])
def test_a_box_list_may_name_its_columns_as_it_likes(release, header):
    (release / "BBox_List_2017.csv").unlink()
    (release / "BBox_List_own.csv").write_text(f"{header}\n00000003_000.png,Mass,100,200,300,400\n")
    boxes = [box for rows in load_nih(release).values() for row in rows for box in row["boxes"]]
    assert np.asarray(boxes).tolist() == [[100, 200, 400, 600]]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("00000003_000.png,Masss,1,2,3,4", r"line 4 \(00000003_000\.png\).*'Masss'"),
        ("00000003_000.png,Mass,1,2,wide,4", "line 4: x, y, w, h must be numbers"),
        ("00000003_000.png,Mass,1,2", "line 4: a row must be image, finding, x, y, w, h"),
        ("00000003_000.png,Mass,1,2,0,4", "line 4: a box must have a positive size"),
        ("00000003_000.png,Mass,0.25,0.5,0.125,0.25", "1024x1024 frame of the release, in pixels, got"),
        ("00000003_000.png,Mass,1000,2,100,4", "lie in the 1024x1024 frame"),
        ("00000003_000.png,Mass,nan,2,100,4", "lie in the 1024x1024 frame"),
        ("00000003_000.png,Mass,1,nan,100,4", "lie in the 1024x1024 frame"),
    ],
)
def test_a_box_that_cannot_be_read_names_file_and_line(release, line, message):
    with (release / "BBox_List_2017.csv").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(ValueError, match=message):
        load_nih(release)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("00000030_000.png", "line 50: a row must name its image and its findings"),
        (row("00000030_000.png", age="old"), "line 50 .*an age must be a number of years"),
        ("00000030_000.png,Mass,first,30,50,F,PA", "line 50 .*'Follow-up #' must be a whole number"),
    ],
)
def test_a_row_that_cannot_be_read_names_file_and_line(release, line, message):
    with (release / "Data_Entry_2017_v2020.csv").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(ValueError, match=message):
        load_nih(release)


def test_a_table_without_its_columns_is_refused(release):
    (release / "Data_Entry_2017_v2020.csv").write_text("name,labels\n")
    with pytest.raises(ValueError, match="must have the column 'Image Index'"):
        load_nih(release)


@pytest.mark.parametrize("folder", ["", "absent"])
def test_a_folder_without_the_table_is_refused(tmp_path, folder):
    with pytest.raises(FileNotFoundError, match=r"`data_dir` must be a folder with .* Download the release from http"):
        load_nih(tmp_path / folder)


def test_a_release_without_its_train_list_or_images_is_refused(release):
    (release / "train_val_list.txt").rename(release / "list.txt")
    with pytest.raises(FileNotFoundError, match=r"must hold train_val_list\.txt"):
        load_nih(release)
    (release / "list.txt").rename(release / "train_val_list.txt")
    shutil.rmtree(release / "images")
    with pytest.raises(FileNotFoundError, match="must hold the images of its table"):
        load_nih(release)


FILES = ("Data_Entry_2017_v2020.csv", "train_val_list.txt", "test_list.txt", "BBox_List_2017.csv")


@pytest.mark.parametrize("name", FILES)
def test_a_table_or_list_of_another_encoding_is_refused(release, name):
    for content, reason in ((b"\xd6dem\n", "must be UTF-8"), (b"a\0b\n", "line .*must be text, got NUL bytes")):
        before = (release / name).read_bytes()
        (release / name).write_bytes(before + content)
        with pytest.raises(ValueError, match=rf"{name},? {reason}.* Save it as UTF-8"):
            load_nih(release)
        (release / name).write_bytes(before)


@pytest.mark.parametrize("name", ["Data_Entry_2017_v2020.csv", "BBox_List_2017.csv"])
def test_an_open_quote_does_not_swallow_the_rows_below_it(release, name):
    with (release / name).open("a") as file:
        file.write('"00000003_000.png,Mass,1,2,3,4\n')
    with pytest.raises(ValueError, match=rf"{name}, line \d+: a row must be CSV"):
        load_nih(release)


@pytest.mark.parametrize("name", ["test_list.txt", "BBox_List_2017.csv"])
@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_pipes_and_folders_are_refused_as_tables(release, name, make):
    (release / name).unlink()
    make(release / name)
    with pytest.raises(ValueError, match=rf"{name} must be a regular file, not a folder, pipe or device"):
        load_nih(release)


def test_images_and_masks_that_are_pipes_or_broken_links_are_missing(release):
    write_image(release / "masks" / "00000022_001.png")
    for path in (release / "images" / "00000022_000.png", release / "masks" / "00000021_000.png"):
        path.unlink(missing_ok=True)
        os.mkfifo(path)
    (release / "images" / "00000023_000.png").unlink()
    (release / "images" / "00000023_000.png").symlink_to(release / "absent.png")
    _, report = read_nih_tables(release, verify=True)
    assert report.missing_files == ["00000022_000", "00000023_000"]
    assert "00000021_000" in report.missing_masks
    with pytest.raises(OSError, match="`source` must be a file, got the folder, pipe or device"):
        open_image(release / "images" / "00000022_000.png")


def test_a_name_in_a_table_or_list_does_not_lead_out_of_the_release(release, tmp_path_factory):
    write_image(tmp_path_factory.mktemp("elsewhere") / "00000099_000.png")
    (release / "test_list.txt").write_text("../elsewhere0/00000099_000.png\n")
    with (release / "Data_Entry_2017_v2020.csv").open("a") as file:
        file.write(row("00000099_000.png").replace("00000099", "../elsewhere0/00000099", 1) + "\n")
    images, report = read_nih_tables(release)
    assert report.missing_files == ["00000099_000"]
    assert [image.path for image in images if image.image_id == "00000099_000"] == [None]


def test_an_impossible_number_of_a_visit_is_refused(release):
    with (release / "Data_Entry_2017_v2020.csv").open("a") as file:
        file.write("00000030_000.png,Mass,99999999999,30,50,F,PA\n")
    with pytest.raises(ValueError, match="'Follow-up #' must be a whole number"):
        load_nih(release)


@pytest.mark.parametrize("kind", ["GIF", "several frames", "60000²"])
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_open_image_refuses_what_is_not_a_single_image(release, kind):
    path, grey = release / "image.png", PIL.Image.new("L", (16, 16), 3)
    if kind == "60000²":
        grey.save(path, "BMP")
        content = bytearray(path.read_bytes())
        content[18:26] = (60_000).to_bytes(4, "little") * 2
        path.write_bytes(content)
    else:
        grey.save(path, kind if kind == "GIF" else "TIFF", save_all=True, append_images=[grey])
    with pytest.raises(OSError, match=r"must be an image that decodes, got .*image\.png"):
        open_image(path)


# Real images


def test_the_real_subset_splits_as_its_readme_says(nih_folder):
    folder = nih_folder
    images, report = read_nih_tables(folder)
    assert (report.rows, report.usable) == (1381, 1381)
    assert sum(len(image.boxes) for image in images) == 155
    assert len({image.patient_id for image in images if image.boxes}) == 92
    assert len(report.duplicate_files) == 28

    splits = load_nih(folder)
    train, validation = patients(splits["train"]), patients(splits["validation"])
    assert len(splits["test"]) == 0
    assert len(train | validation) == 1119
    assert not train & validation
    assert len(validation) == round(0.2 * 1119)
    assert {image.patient_id for image in images if image.boxes} <= validation
    originals = {path.stem for path in (folder / "original-1024").glob("*.png")}
    assert len(originals) == 28
    assert originals <= set(splits["validation"]["image_id"])
    assert splits["validation"][0]["image"].size == (384, 384)


@pytest.mark.slow
def test_every_image_of_the_real_subset_can_be_read(nih_folder):
    assert read_nih_tables(nih_folder, verify=True)[1].unreadable_files == {}


@pytest.mark.slow
def test_the_tables_of_the_complete_release_load_in_seconds(nih_folder, tmp_path):
    metadata = nih_folder / "full-release-metadata"
    for packed in metadata.glob("*.gz"):
        with gzip.open(packed) as source, (tmp_path / packed.stem).open("wb") as target:
            shutil.copyfileobj(source, target)
    with (tmp_path / "Data_Entry_2017_v2020.csv").open(newline="") as file:
        names = [cells[0] for cells in csv.reader(file)][1:]
    for index in range(12):
        (tmp_path / f"images_{index + 1:03d}" / "images").mkdir(parents=True)
    for index, name in enumerate(names):
        (tmp_path / f"images_{index % 12 + 1:03d}" / "images" / name).touch()
    start = time.perf_counter()
    splits = load_nih(tmp_path)
    assert time.perf_counter() - start < 30  # about four seconds on two cores
    assert len(splits["train"]) + len(splits["validation"]) == 86524
    assert len(splits["test"]) == 25596
    assert sum(map(len, splits["test"]["boxes"])) == 984
