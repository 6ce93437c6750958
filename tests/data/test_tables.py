# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Own images with own labels from a table, on tables written here."""

import logging
import ntpath
import os
from types import SimpleNamespace

import datasets
import numpy as np
import pandas
import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from clarity_hf import ClarityImageProcessor
from clarity_hf.data import table_files, tables
from clarity_hf.data.rows import row_features
from clarity_hf.data.table_files import MAX_TABLE_BYTES
from clarity_hf.data.tables import is_inside, load_table, read_table
from clarity_hf.data.transforms import ImageTransform

NAN = np.nan


def write_image(path, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (16, 16), dtype=np.uint8)).save(path)


@pytest.fixture
def images(tmp_path):
    """Ten images, images/0.png to images/9.png."""
    for i in range(10):
        write_image(tmp_path / "images" / f"{i}.png", i)
    return tmp_path


def write(folder, text, name="own.csv"):
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def table_of(folder, header="path,patient_id,Effusion,Rib", rows=None):
    """Two images of each patient; without `rows`, every other image with an effusion."""
    rows = rows or [f"images/{i}.png,p{i // 2},{i % 2},{1 - i % 2}" for i in range(10)]
    return write(folder, "\n".join([header, *rows]) + "\n")


def by_name(source):
    rows = [row for rows in source.splits().values() for row in rows]
    return {row["image"]["path"].rsplit("/", 1)[1]: row for row in rows}


def labels_of(source, name):
    return by_name(source)[name]["labels"]


# What comes out


def test_a_table_becomes_splits_of_rows_for_training(images):
    source = load_table(table_of(images))
    assert source.name == "own"
    assert source.findings == ("Effusion", "Rib")
    assert not source.has_prior
    assert source.messages == ()
    assert [len(rows) for rows in source.splits().values()] == [8, 2, 0]
    assert all(rows.features == row_features(2) for rows in source.splits().values())
    row = by_name(source)["3.png"]
    assert row == {
        "image": {"path": str(images / "images" / "3.png"), "bytes": None},
        "labels": [1.0, 0.0],
        "patient_id": "p1",
    }
    example = ImageTransform(ClarityImageProcessor(size={"height": 32, "width": 32}), prior="none")(row)
    assert example["labels"].tolist() == [1, 0]


def test_each_split_describes_itself(images):
    rows = ["images/0.png,p0,1,-1", "images/1.png,p1,0,1", "images/2.png,p1,0,0"]
    source = load_table(table_of(images, rows=rows))
    assert source.train.info.description == ("Findings: Effusion, Rib.\n1 labels are uncertain (−1): Rib 1.")


def test_the_log_says_which_column_was_used_for_what(images, caplog):
    with caplog.at_level(logging.INFO):
        load_table(table_of(images))
    assert "image from 'path', patient from 'patient_id', labels from 'Effusion, Rib'" in caplog.text
    assert "findings Effusion, Rib." in caplog.text


def test_names_joined_by_a_bar_are_read_as_nih_writes_them(images):
    rows = ["images/0.png,p0,Pleural Effusion|Rib", "images/1.png,p1,No Finding", "images/2.png,p2,"]
    source = load_table(table_of(images, "Image Index,Patient ID,Finding Labels", rows))
    assert source.findings == ("Effusion", "Rib")
    assert labels_of(source, "0.png") == [1, 1]
    assert labels_of(source, "1.png") == [0, 0]
    assert np.isnan(labels_of(source, "2.png")).all()


@pytest.mark.parametrize(("uncertain", "label"), [("nan", NAN), ("negative", 0), ("positive", 1)])
def test_uncertain_labels_are_read_as_requested_and_counted(images, uncertain, label):
    rows = ["images/0.png,p0,-1,1", "images/1.png,p1,1,0", "images/2.png,p2,0,-1"]
    source = load_table(table_of(images, rows=rows), uncertain=uncertain)
    np.testing.assert_array_equal(labels_of(source, "0.png"), [label, 1])
    assert "2 labels are uncertain (−1): Effusion 1, Rib 1." in source.messages


def test_empty_cells_are_not_annotated_by_default(images):
    table = table_of(images, rows=["images/0.png,p0,,1", "images/1.png,p1,1,0", "images/2.png,p1,0,0"])
    np.testing.assert_array_equal(labels_of(load_table(table), "0.png"), [NAN, 1])
    np.testing.assert_array_equal(labels_of(load_table(table, empty="negative"), "0.png"), [0, 1])


def test_findings_choose_and_rename_columns(images):
    source = load_table(table_of(images), findings={"Rib": "Fracture"})
    assert source.findings == ("Fracture",)
    assert labels_of(source, "2.png") == [1]


def test_a_tab_a_semicolon_and_parquet_read_alike(images):
    expected = by_name(load_table(table_of(images)))
    text = (images / "own.csv").read_text()
    write(images, text.replace(",", "\t"), "tabs.tsv")
    write(images, "\ufeff" + text.replace(",", ";"), "semicolons.csv")
    columns = {
        "path": [f"images/{i}.png" for i in range(10)],
        "patient_id": [f"p{i // 2}" for i in range(10)],
        "Effusion": [float(i % 2) for i in range(10)],
        "Rib": [i % 2 == 0 for i in range(10)],
        "embedding": [[1.0]] * 10,
    }
    datasets.Dataset.from_dict(columns).to_parquet(images / "table.parquet")
    for name in ("tabs.tsv", "semicolons.csv", "table.parquet"):
        assert by_name(load_table(images / name)) == expected


def test_paths_begin_at_the_image_dir(images, tmp_path):
    table = write(images, "file,patient,Mass\n0.png,a,1\n1.png,b,0\n", "elsewhere.csv")
    assert set(by_name(load_table(table, image_dir=images / "images"))) == {"0.png", "1.png"}


def test_windows_paths_are_understood(images):
    table = write(images, "path,patient_id,Mass\nimages\\0.png,a,1\nimages\\1.png,b,0\n")
    assert set(by_name(load_table(table))) == {"0.png", "1.png"}


def test_masks_make_a_prior(images):
    write_image(images / "masks" / "0.png")
    rows = ["images/0.png,a,1,masks/0.png", "images/1.png,b,0,", "images/2.png,c,0,masks/2.png"]
    source = load_table(table_of(images, "path,patient_id,Mass,mask", rows), mask_column="mask")
    assert source.has_prior
    assert source.findings == ("Mass",)
    assert by_name(source)["0.png"]["thorax_mask"]["path"] == str(images / "masks" / "0.png")
    assert by_name(source)["1.png"]["thorax_mask"] is None
    assert "2 images have no thorax mask: images/1.png, images/2.png." in source.messages


# Patients and splits


def test_validation_is_drawn_by_patient_and_the_same_for_every_order(images):
    table = table_of(images)
    source = load_table(table, validation_fraction=0.4, seed=3)
    train, validation = set(source.train["patient_id"]), set(source.validation["patient_id"])
    assert (len(train), len(validation)) == (3, 2)
    assert not train & validation
    header, *rows = table.read_text().splitlines()
    again = load_table(write(images, "\n".join([header, *reversed(rows)])), validation_fraction=0.4, seed=3)
    assert set(again.validation["patient_id"]) == validation
    assert len(load_table(table, validation_fraction=0).validation) == 0


def test_a_lost_file_moves_no_patient(images):
    table = table_of(images)
    before = load_table(table)
    for row in before.validation:
        (images / "images" / row["image"]["path"].rsplit("/", 1)[1]).unlink()
    after = load_table(table)
    assert len(after.validation) == 0  # nobody takes the lost patient's place
    assert after.train["patient_id"][:] == before.train["patient_id"][:]


def test_without_patients_images_are_drawn_and_a_warning_says_so(images, caplog):
    # Names as in the NIH release do not make patients.
    rows = [f"images/{i}.png,{i % 2}" for i in range(10)]
    source = load_table(table_of(images, "path,Mass", rows))
    assert len(source.validation) == 2
    assert source.train[0]["patient_id"].startswith("images/")
    assert "No column names patients: images of one patient may be on both sides" in caplog.text


def test_an_image_without_a_patient_counts_as_one(images):
    rows = ["images/0.png,,1,0", "images/1.png,p,0,1", "images/2.png,p,1,1"]
    source = load_table(table_of(images, rows=rows))
    assert by_name(source)["0.png"]["patient_id"] == "images/0.png"
    assert "1 images name no patient and count as one patient each: images/0.png." in source.messages


def test_a_column_of_splits_is_used_as_given(images):
    rows = [
        f"images/{i}.png,{i},{i % 2},{split}" for i, split in enumerate(["train"] * 4 + ["Val"] * 3 + ["TEST"] * 3)
    ]
    source = load_table(table_of(images, "path,patient_id,Mass,split", rows))
    assert [sorted(rows["patient_id"]) for rows in source.splits().values()] == [
        ["0", "1", "2", "3"],
        ["4", "5", "6"],
        ["7", "8", "9"],
    ]


def test_validation_is_drawn_from_train_if_the_column_contains_none(images):
    rows = [f"images/{i}.png,{i},{i % 2},{'test' if i > 6 else 'train'}" for i in range(10)]
    table = table_of(images, "path,patient_id,Mass,split", rows)
    source = load_table(table)
    assert [len(rows) for rows in source.splits().values()] == [6, 1, 3]
    assert "contains no validation images: they are drawn from the training images" in " ".join(source.messages)
    assert len(load_table(table, validation_fraction=0).train) == 7


def test_a_patient_in_two_splits_is_an_error_that_names_the_rows_and_no_patient(images):
    rows = [
        "images/0.png,DOE,1,train",
        "images/1.png,DOE,0,test",
        "images/2.png,p1,0,valid",
        "images/3.png,DOE,1,train",
    ]
    with pytest.raises(ValueError, match=r"share 1 patients \(train lines 2, 5; test lines 3\)\. Move") as caught:
        load_table(table_of(images, "path,patient_id,Mass,split", rows))
    assert "DOE" not in str(caught.value)


def test_an_unknown_split_is_an_error_with_its_line(images):
    rows = ["images/0.png,p0,1,train", "images/1.png,p1,0,holdout"]
    with pytest.raises(ValueError, match=r"own.csv, line 3: 'split' must be one of .*got 'holdout'"):
        load_table(table_of(images, "path,patient_id,Mass,split", rows))


# What is dropped or doubted


def test_missing_images_are_dropped_by_name(images):
    rows = ["images/0.png,a,1,0", "images/nowhere.png,b,1,0", "images/1.png,c,0,1"]
    table = table_of(images, rows=rows)
    read, findings, report = read_table(table)
    assert [image.path is None for image in read] == [False, True, False]
    assert findings == ("Effusion", "Rib")
    assert (report.rows, report.usable, report.missing_files) == (3, 2, ["images/nowhere.png"])
    assert "1 images have no file and are dropped: images/nowhere.png." in report.messages()
    assert set(by_name(load_table(table))) == {"0.png", "1.png"}


def test_a_table_without_any_image_asks_for_the_image_dir(images):
    with pytest.raises(FileNotFoundError, match=r"found none of 1 images there \(0.png\)\. Give `image_dir`"):
        load_table(write(images, "path,Mass\n0.png,1\n"))


def test_unreadable_images_are_dropped_by_name_with_verify(images):
    (images / "images" / "0.png").write_bytes(b"no image")
    Image.new("L", (16, 16)).save(images / "images" / "1.png")
    table = table_of(images)
    assert len(by_name(load_table(table))) == 10
    source = load_table(table, verify=True)
    assert set(by_name(source)) == {f"{i}.png" for i in range(2, 10)}
    (message,) = (message for message in source.messages if "cannot be read" in message)
    assert "images/0.png" in message
    assert "must show something" in message


def test_repeated_rows_are_counted_and_the_first_is_used(images):
    rows = [
        "images/0.png,a,1,0",
        "./images/0.png,a,1,0",
        "images/0.png,a,0,0",
        "images/1.png,b,0,1",
        "images/1.png,b,0,1",
    ]
    _, _, report = read_table(table_of(images, rows=rows))
    assert report.duplicate_rows == ["./images/0.png", "images/1.png"]
    assert report.conflicting_rows == ["images/0.png"]
    assert labels_of(load_table(images / "own.csv"), "0.png") == [1, 0]


@pytest.mark.parametrize("written", ["../secret.png", "images/../../secret.png", "/etc/secret.png"])
def test_a_path_out_of_the_folder_is_refused_with_its_line(images, written):
    table = table_of(images, rows=["images/0.png,a,1,0", f"{written},b,0,0"])
    with pytest.raises(ValueError, match=rf"own.csv, line 3: 'path' must lead to a file in .*, got '{written}'"):
        load_table(table)


def test_a_mask_out_of_the_folder_is_refused(images):
    with pytest.raises(ValueError, match="line 2: 'thorax_mask' must lead to a file in"):
        load_table(table_of(images, "path,patient_id,Mass,thorax_mask", ["images/0.png,a,1,../m.png"]))


def test_absolute_paths_inside_the_folder_are_read(images):
    rows = [f"{images}/images/0.png,a,1,0", f"{images}/images/1.png,b,0,1"]
    assert set(by_name(load_table(table_of(images, rows=rows)))) == {"0.png", "1.png"}


def test_lateral_images_are_dropped_and_counted(images):
    rows = ["images/0.png,a,LL,1", "images/1.png,a,AP,1", "images/2.png,b,PA,0"]
    source = load_table(table_of(images, "path,patient_id,ViewPosition,Mass", rows))
    assert set(by_name(source)) == {"1.png", "2.png"}
    assert "1 lateral or oblique images are dropped: images/0.png." in source.messages


@pytest.mark.parametrize("column", ["view", "Projection", "ViewCodeSequence_CodeMeaning"])
def test_lateral_and_oblique_views_are_known_in_every_spelling(images, column):
    views = ["LLAT", "xtable lateral", "left lateral", "RAO", "right anterior oblique", "L", "lateral decubitus", "PA"]
    rows = [f"images/{i}.png,a,{view},{i % 2}" for i, view in enumerate(views)]
    source = load_table(table_of(images, f"path,patient_id,{column},Mass", rows))
    assert set(by_name(source)) == {"6.png", "7.png"}
    assert any(message.startswith("6 lateral or oblique images are dropped") for message in source.messages)


def test_columns_of_findings_come_before_a_column_of_other_names(images):
    rows = [f"images/{i}.png,a,{'abnormal' if i % 2 else 'normal'},{i % 2},{i // 5}" for i in range(10)]
    source = load_table(table_of(images, "path,patient_id,label,Effusion,Mass", rows))
    assert source.findings == ("Effusion", "Mass")
    assert list(labels_of(source, "7.png")) == [1, 1]


def test_labels_in_two_forms_are_refused(images):
    rows = [f"images/{i}.png,a,{'Effusion' if i % 2 else 'No Finding'},{i // 5}" for i in range(10)]
    table = table_of(images, "path,patient_id,label,Mass", rows)
    with pytest.raises(ValueError, match=r"labels in two forms, got names in the column 'label' and .*Mass"):
        load_table(table)
    assert load_table(table, findings=["Mass"]).findings == ("Mass",)
    rows = [f"images/{i}.png,a,{'Effusion' if i % 2 else 'No Finding'},{i // 5}" for i in range(10)]
    other = load_table(table_of(images, "path,patient_id,label,smoker", rows))  # a column that is no finding
    assert other.findings == ("Effusion",)


def test_rows_with_too_few_cells_are_counted(images):
    rows = ["images/0.png,a,1,1", "images/1.png,b,0", "images/2.png,c"]
    source = load_table(table_of(images, rows=rows))
    assert labels_of(source, "1.png")[0] == 0
    assert np.isnan(labels_of(source, "2.png")).all()
    wanted = "2 rows have fewer cells than there are columns; the last ones count as empty: line 3, line 4."
    assert wanted in source.messages


@pytest.mark.parametrize("written", ["nan", "NaN", "None", "null", "n/a", "<NA>"])
def test_what_programs_write_for_an_empty_cell_is_no_patient(images, written):
    rows = [f"images/{i}.png,{written if i < 6 else 'p'},{i % 2},0" for i in range(10)]
    source = load_table(table_of(images, rows=rows))
    patients = [row["patient_id"] for row in by_name(source).values()]
    assert len(set(patients)) == 7
    assert any("6 images name no patient" in message for message in source.messages)


def test_no_finding_beside_a_finding_is_counted(images):
    rows = ["images/0.png,a,1,1", "images/1.png,b,1,", "images/2.png,c,0,1"]
    source = load_table(table_of(images, "path,patient_id,No Finding,Mass", rows))
    assert "1 images have both No Finding and a finding; the finding is used: images/0.png." in source.messages
    assert labels_of(source, "1.png") == [0]


def test_a_finding_that_cannot_be_learned_is_named(images):
    rows = ["images/0.png,a,1,1", "images/1.png,b,0,", "images/2.png,c,0,1"]
    source = load_table(table_of(images, rows=rows))
    assert any("1 findings lack positive or negative labels" in message for message in source.messages)


def test_a_name_that_resembles_one_of_the_14_is_doubted_and_kept(images):
    rows = ["images/0.png,a,1,0", "images/1.png,b,0,1"]
    source = load_table(table_of(images, "path,patient_id,Cardiomegali,pleural_thickening", rows))
    assert source.findings == ("Cardiomegali", "Pleural_Thickening")
    (message,) = source.messages
    assert "Cardiomegali (Cardiomegaly?)" in message


# CheXpert

CHEXPERT = (
    "Path,Sex,Age,Frontal/Lateral,AP/PA,No Finding,Enlarged Cardiomediastinum,Cardiomegaly,Lung Opacity,Lung Lesion,"
    "Edema,Consolidation,Pneumonia,Atelectasis,Pneumothorax,Pleural Effusion,Pleural Other,Fracture,Support Devices"
)


@pytest.fixture
def chexpert(tmp_path):
    """Two frontal images and a lateral one, as they are published: paths begin with the folder's own name."""
    folder = tmp_path / "CheXpert-v1.0-small"
    names = ["train/patient00001/study1/view1_frontal.jpg", "train/patient00001/study1/view2_lateral.jpg"]
    names.append("train/patient00002/study2/view1_frontal.jpg")
    for name in names:
        write_image(folder / name)
    rows = [
        f"CheXpert-v1.0-small/{names[0]},Female,68,Frontal,AP,1.0,,,,,,,,,0.0,,,,1.0",
        f"CheXpert-v1.0-small/{names[1]},Female,68,Lateral,,1.0,,,,,,,,,0.0,,,,1.0",
        f"CheXpert-v1.0-small/{names[2]},Male,87,Frontal,AP,,,-1.0,1.0,,-1.0,-1.0,,-1.0,,-1.0,,1.0,",
    ]
    return write(folder, "\n".join([CHEXPERT, *rows]), "train.csv")


def test_the_table_of_chexpert_is_read_as_published(chexpert):
    source = load_table(chexpert, validation_fraction=0)
    # In the order of the columns; those without a label in the table are not findings.
    assert source.findings == (
        *("Cardiomegaly", "Lung Opacity", "Edema", "Consolidation", "Atelectasis", "Pneumothorax", "Effusion"),
        *("Fracture", "Support Devices"),
    )
    assert sorted(source.train["patient_id"]) == ["patient00001", "patient00002"]
    assert any("1 lateral or oblique images are dropped" in message for message in source.messages)
    assert any("5 labels are uncertain" in message for message in source.messages)


def test_labels_of_chexpert_take_nih_names_and_no_finding_makes_absent(chexpert):
    findings = ["Pleural Effusion", "Edema", "Lung Opacity", "Support Devices"]
    source = load_table(chexpert, findings=findings, validation_fraction=0)
    assert source.findings == ("Effusion", "Edema", "Lung Opacity", "Support Devices")
    rows = {row["patient_id"]: row["labels"] for row in source.train}
    assert rows["patient00001"] == [0, 0, 0, 1]
    np.testing.assert_array_equal(rows["patient00002"], [NAN, NAN, 1, NAN])


# Errors


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must have a row of column names, got the empty"),
        ("name,Mass\na,1\n", "`image_column` must be given if no column is called one of"),
        ("path,Mass,Mass\na,1,0\n", r"must name each column once, got \['Mass'\] twice"),
        ("path,Mass\na,1,0\n", "line 2: a row must have 2 cells, got 3"),
        ("path,patient_id,Mass\n,p,1\n", "line 2: 'path' must be a path, got an empty cell"),
        ("path,age\nimages/0.png,61\n", "`findings` must be given"),
    ],
)
def test_a_table_that_cannot_be_read_is_an_error(images, text, message):
    with pytest.raises(ValueError, match=message):
        load_table(write(images, text))


def test_an_invalid_label_is_an_error_with_its_line(images):
    table = table_of(images, rows=["images/0.png,a,1,0", "images/1.png,b,2,0"])
    with pytest.raises(ValueError, match=r"own.csv, line 3: 'Effusion' must be 1, 0, −1 or empty, got '2'"):
        load_table(table, findings=["Effusion"])


def test_a_table_of_another_encoding_or_kind_is_an_error(images):
    (images / "own.csv").write_bytes("path,Ödem\na,1\n".encode("latin-1"))
    with pytest.raises(ValueError, match="must be UTF-8"):
        load_table(images / "own.csv")
    with pytest.raises(ValueError, match=r"must end in .csv, .tsv, .parquet"):
        load_table(write(images, "x", "own.xlsx"))
    with pytest.raises(FileNotFoundError, match="No such file"):
        load_table(images / "nowhere.csv")


def test_a_missing_column_is_an_error(images):
    for argument in ("image_column", "patient_column", "split_column", "mask_column"):
        with pytest.raises(ValueError, match=f"`{argument}` must be one of the columns"):
            load_table(table_of(images), **{argument: "nowhere"})


def test_the_validation_fraction_is_checked(images):
    with pytest.raises(ValueError, match="validation_fraction"):
        load_table(table_of(images), validation_fraction=1)


@pytest.mark.parametrize("text", ['path,Mass\n"images/0.png,1\nimages/1.png,0\n', 'path,Mass\n"images"/0.png,1\n'])
def test_an_open_quote_does_not_swallow_the_rows_below_it(images, text):
    with pytest.raises(ValueError, match=r"own.csv, line \d: a row must be CSV, got one that is not"):
        load_table(write(images, text))


@pytest.mark.parametrize(
    ("row", "advice"),
    [
        (r'images/0.png,1,"say \"hi\" now"', r'Write a quote inside a cell as "" instead of \".'),
        ('images/0.png,1,"say "hi" now"', "Double the quotes inside a cell, and write nothing between"),
        ('images/0.png,1,"say hi', "Close its quotes."),
        (f"images/0.png,1,{'a' * 140_000}", "Shorten cells of more than 131072 characters."),
    ],
)
def test_a_csv_error_explains_what_is_wrong_with_the_row(images, row, advice):
    with pytest.raises(ValueError, match=r"own\.csv, line 2: a row must be CSV, got one that is not") as caught:
        load_table(write(images, f"path,Mass,note\n{row}\n"))
    assert advice in str(caught.value)


def test_blanks_after_a_closing_quote_are_ignored(images):
    rows = [
        '"images/0.png" ,1 ,"a ""b"" , c"',
        '"images/1.png","0"  ,"say ""hi"""  ',
        '"images/2.png",0,"two\nlines" ',
    ]
    read, _, report = read_table(table_of(images, "path,Mass,patient_id", rows))
    assert [image.labels.tolist() for image in read] == [[1], [0], [0]]
    assert [image.patient_id for image in read] == ['a "b" , c', 'say "hi"', "two\nlines"]
    assert [image.line for image in read] == [2, 3, 5]
    assert report.rows == 3


@pytest.mark.parametrize("line", ["sep=;\n", "SEP=;\r\n", '\ufeff"sep=;"\n'])
def test_a_separator_line_is_read(images, line):
    text = f"{line}path;Mass;a,b,c,d\nimages/0.png;1;\nimages/1.png;0;\n"
    assert labels_of(load_table(write(images, text)), "0.png") == [1]
    with pytest.raises(ValueError, match=r"own\.csv, line 3: 'Mass' must be 1, 0, −1 or empty, got 'x'"):
        load_table(write(images, f"{line}path;Mass\nimages/0.png;x\n"), findings=["Mass"])


def test_labels_with_a_decimal_comma_are_numbers(images):
    rows = ["images/0.png;1,0;0,00", "images/1.png;0,0;1,0", "images/2.png;-1,0;"]
    source = load_table(write(images, "\n".join(["path;Mass;Effusion", *rows])))
    assert source.findings == ("Mass", "Effusion")
    assert labels_of(source, "0.png") == [1, 0]
    np.testing.assert_array_equal(labels_of(source, "2.png"), [NAN, NAN])
    for written in ("1,000", "0,5", "1,", "1,0,0"):  # a thousand; no label; no number
        with pytest.raises(ValueError, match=f"'Mass' must be 1, 0, −1 or empty, got '{written}'"):
            load_table(write(images, f"path;Mass\nimages/0.png;{written}\n"), findings=["Mass"])


def test_nul_bytes_and_huge_cells_are_refused_with_their_line(images):
    with pytest.raises(ValueError, match=r"own.csv, line 2: a line must be text, got NUL bytes"):
        load_table(write(images, "path,Mass\nimages/0.png\0,1\n"))
    (images / "own.csv").write_bytes("path,Mass\n".encode("utf-16-le"))
    with pytest.raises(ValueError, match="line 1: a line must be text, got NUL bytes"):
        load_table(images / "own.csv")
    with pytest.raises(ValueError, match=r"own.csv, line 2: a row must be CSV.*more than 131072 characters"):
        load_table(write(images, f"path,Mass\nimages/0.png,{'1' * 140_000}\n"))


def test_pipes_folders_and_devices_are_not_tables(images):
    os.mkfifo(images / "pipe.csv")
    (images / "folder.csv").mkdir()
    for path in (images / "pipe.csv", images / "folder.csv", "/dev/zero", "/dev/null"):
        with pytest.raises(ValueError, match="must be a regular file, not a folder, pipe or device"):
            load_table(path)


@pytest.mark.parametrize("path", ["~nobody-of-that-name/own.csv", "a\0b.csv", "a" * 5000 + ".csv"])
def test_an_impossible_path_is_refused(path):
    with pytest.raises(FileNotFoundError, match="No such file"):
        load_table(path)


def test_a_table_beyond_any_data_set_is_not_read(images):
    with open(images / "own.csv", "ab") as file:
        file.truncate(10**12)  # a hole: nothing is written
    with pytest.raises(ValueError, match=f"at most {MAX_TABLE_BYTES} bytes, got 1000000000000"):
        load_table(images / "own.csv")


def test_a_path_too_long_for_the_disk_is_a_missing_image(images):
    rows = [f"{images.name}/{'a' * 400}.png,a,1,0", "images/1.png,b,0,1"]
    _, _, report = read_table(table_of(images, rows=rows), image_dir=images)
    assert len(report.missing_files) == 1
    with pytest.raises(FileNotFoundError, match="found none of 2 images there"):  # looked for beside the folder
        read_table(images / "own.csv")


@pytest.mark.parametrize("damage", ["empty", "cut", "flipped", "text"])
def test_broken_parquet_is_refused(images, damage):
    path = images / "own.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"path": ["images/0.png"], "Mass": [1]}), path)
    content = bytearray(path.read_bytes())
    content[-60] ^= 0xFF
    damaged = {"empty": b"", "cut": bytes(content)[:-9], "flipped": bytes(content), "text": b"PAR1 no PAR1"}[damage]
    path.write_bytes(damaged)
    with pytest.raises(ValueError, match=r"`table` must be intact parquet, got .*own\.parquet"):
        load_table(path)


def test_parquet_of_impossible_dates_or_repeated_columns_is_refused(images):
    dates = pyarrow.array([2**62], pyarrow.timestamp("ms"))
    pyarrow.parquet.write_table(pyarrow.table({"path": ["images/0.png"], "when": dates}), images / "own.parquet")
    with pytest.raises(ValueError, match="`table` must be intact parquet"):
        load_table(images / "own.parquet")
    repeated = pyarrow.Table.from_arrays([pyarrow.array(["images/0.png"])] * 2, names=["path", "path"])
    pyarrow.parquet.write_table(repeated, images / "own.parquet")
    with pytest.raises(ValueError, match="`table` must name each column once"):
        load_table(images / "own.parquet")


def test_unread_columns_of_parquet_do_not_count(images, monkeypatch):
    monkeypatch.setattr(table_files, "MAX_TABLE_BYTES", 50_000)
    image = {"bytes": bytes(100_000)}  # packed to nothing
    columns = {"path": ["images/0.png", "images/1.png"], "Mass": [1, 0], "image": [image] * 2}
    pyarrow.parquet.write_table(pyarrow.table(columns), images / "own.parquet", use_dictionary=False)
    assert len(by_name(load_table(images / "own.parquet"))) == 2
    columns["note"] = ["a" * 100_000] * 2
    pyarrow.parquet.write_table(pyarrow.table(columns), images / "own.parquet", use_dictionary=False)
    with pytest.raises(ValueError, match=r"`table` must have at most .* bytes unpacked"):
        load_table(images / "own.parquet")


def test_a_few_bytes_of_parquet_that_unpack_to_gigabytes_are_refused_on_the_way(images, monkeypatch):
    monkeypatch.setattr(table_files, "MAX_TABLE_BYTES", 20_000_000)
    words = pyarrow.DictionaryArray.from_arrays(pyarrow.array([0] * 100_000, pyarrow.int32()), ["a" * 50_000])
    pyarrow.parquet.write_table(pyarrow.table({"path": words}), images / "own.parquet", store_schema=False)
    assert (images / "own.parquet").stat().st_size < 100_000
    before = pyarrow.default_memory_pool().max_memory()
    with pytest.raises(ValueError, match="`table` must have at most 20000000 bytes unpacked"):
        load_table(images / "own.parquet")
    assert pyarrow.default_memory_pool().max_memory() - before < 100_000_000


def test_a_memory_error_is_not_reported_as_a_damaged_table(images, monkeypatch):
    def fail(path):
        raise MemoryError

    (images / "own.parquet").write_bytes(b"")
    monkeypatch.setattr(pyarrow.parquet, "ParquetFile", fail)
    with pytest.raises(MemoryError):
        load_table(images / "own.parquet")


def test_another_drive_is_out_of_the_folder(monkeypatch):
    assert is_inside("/images/a/0.png", "/images")
    assert not is_inside("/imagesystem/0.png", "/images")
    monkeypatch.setattr(tables, "os", SimpleNamespace(path=ntpath))
    assert is_inside(r"C:\images\0.png", r"C:\images")
    assert not is_inside(r"D:\images\0.png", r"C:\images")


def test_an_image_that_is_a_pipe_is_missing(images):
    (images / "images" / "0.png").unlink()
    os.mkfifo(images / "images" / "0.png")
    _, _, report = read_table(table_of(images), verify=True)
    assert report.missing_files == ["images/0.png"]


def test_a_link_inside_the_folder_is_followed(images, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("disk")
    write_image(elsewhere / "a.png")
    (images / "images" / "linked").symlink_to(elsewhere)
    rows = ["images/linked/a.png,a,1,0", "images/1.png,b,0,1"]
    assert set(by_name(load_table(table_of(images, rows=rows)))) == {"a.png", "1.png"}


def test_a_column_rejected_for_one_cell_is_reported_with_its_line(images):
    rows = [f"images/{i}.png,p{i},{'maybe' if i == 3 else i % 2},{i % 2},{50 + i},{i % 2}" for i in range(10)]
    loaded = load_table(table_of(images, "path,patient_id,Effusion,Rib,Weight,Mass", rows))
    assert loaded.findings == ("Rib", "Mass")
    (found,) = [message for message in loaded.messages if "not findings" in message]
    assert "1 columns are not findings" in found
    assert "Effusion (line 5 holds 'maybe')" in found
    assert not any("not findings" in message for message in load_table(table_of(images)).messages)


def test_a_column_named_like_a_finding_is_reported_however_many_of_its_cells_are_invalid(images):
    rows = [f"images/{i}.png,p{i},{'yes' if i % 2 else 'no'},{i % 2}" for i in range(10)]
    loaded = load_table(table_of(images, "path,patient_id,Edema,Rib", rows))
    (found,) = [message for message in loaded.messages if "not findings" in message]
    assert "Edema (line 2 holds 'no')" in found


@pytest.mark.parametrize("name", ["own.csv", "own.parquet"])
def test_empty_lists_are_normal_images_and_empty_cells_unannotated_ones_and_both_are_counted(images, name):
    labels = [["Mass", "Edema"], [], ["Mass"], None, []]
    frame = pandas.DataFrame({"path": [f"images/{i}.png" for i in range(5)], "labels": labels})
    frame.to_csv(images / name, index=False) if name.endswith("csv") else frame.to_parquet(images / name)
    source = load_table(images / name, validation_fraction=0)
    assert source.findings == ("Mass", "Edema")
    expected = [[1, 1], [0, 0], [1, 0], [np.nan] * 2, [0, 0]]
    np.testing.assert_array_equal([row["labels"] for row in source.train], expected)
    message = "2 images have an empty list of labels and count as without findings: images/1.png, images/4.png."
    assert message in source.messages
    assert "1 images have no labels and are not annotated: images/3.png." in source.messages


@pytest.mark.parametrize(
    "arrow",
    [
        pyarrow.large_string(),
        pyarrow.string_view(),
        pyarrow.dictionary(pyarrow.int32(), pyarrow.string()),
    ],
    ids=str,
)
def test_text_of_every_type_is_text(images, arrow):
    paths = pyarrow.array([f"images/{i}.png" for i in range(4)]).cast(pyarrow.large_string())
    labels = pyarrow.array(["Mass", "Edema", "Mass|Edema", None], type=arrow)
    pyarrow.parquet.write_table(pyarrow.table({"path": paths, "labels": labels}), images / "own.parquet")
    source = load_table(images / "own.parquet", validation_fraction=0)
    np.testing.assert_array_equal(source.train["labels"][:], [[1, 0], [0, 1], [1, 1], [np.nan] * 2])
