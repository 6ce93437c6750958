# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Data sets in the forms of the Hub's NIH mirrors, written here as folders of parquet, and folders of images."""

import io
import os

import datasets
import numpy as np
import pyarrow
import pytest
from PIL import Image

from clarity_hf import FINDINGS, ClarityImageProcessor
from clarity_hf.data.hub import NUMBERED_LABELS, _check_fetched, label_text, load_hub, load_imagefolder
from clarity_hf.data.rows import row_features
from clarity_hf.data.streaming import TransformedStream
from clarity_hf.data.transforms import ImageTransform

NAN = np.nan
STRINGS = datasets.List(datasets.Value("string"))
NUMBERS = datasets.List(datasets.Value("int64"))
TEXT = datasets.Value("string")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def png(seed):
    file = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (16, 16), dtype=np.uint8)
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def write(folder, split, columns, names=None, **features):
    """A split as parquet, its images with the given file names."""
    count = len(next(iter(columns.values())))
    names = names or [f"{i:05d}.png" for i in range(count)]
    images = [{"path": name, "bytes": png(i)} for i, name in enumerate(names)]
    typed = datasets.Features({"image": datasets.Image(), **features})
    (folder / "data").mkdir(parents=True, exist_ok=True)
    rows = datasets.Dataset.from_dict({"image": images, **columns}, features=typed)
    rows.to_parquet(folder / "data" / f"{split}-00000-of-00001.parquet")
    return folder


def vector(*present, findings=FINDINGS):
    return [float(finding in present) for finding in findings]


def labels_of(rows):
    return {row["patient_id"]: list(row["labels"]) for row in rows}


@pytest.fixture
def numbered(tmp_path):
    """As alkzar90/NIH-Chest-X-ray-dataset: numbers, no patients but in the file names."""
    names = [f"{i // 2 + 1:08d}_{i % 2:03d}.png" for i in range(8)]
    write(tmp_path / "alk", "train", {"labels": [[0], [14]] * 4}, names, labels=NUMBERS)
    return write(tmp_path / "alk", "test", {"labels": [[1, 2]]}, ["00000099_000.png"], labels=NUMBERS)


@pytest.fixture
def written(tmp_path):
    """As BahaaEldin0/NIH-Chest-Xray-14: lists of names, patients as whole numbers."""
    features = {"label": STRINGS, "Patient ID": datasets.Value("int64")}
    rows = {"label": [["No Finding"], ["Effusion", "Pleural_Thickening"]], "Patient ID": [1, 2]}
    write(tmp_path / "baha", "train", rows, **features)
    write(tmp_path / "baha", "valid", {"label": [["Mass"]], "Patient ID": [3]}, **features)
    return write(tmp_path / "baha", "test", {"label": [["Hernia"]], "Patient ID": [2]}, **features)


@pytest.mark.parametrize("streaming", [False, True])
def test_numbered_labels_and_patients_in_file_names(numbered, streaming):
    source = load_hub(numbered, validation_fraction=0.5, streaming=streaming)
    assert source.name == "alk"
    assert source.findings == FINDINGS
    assert labels_of(source.test) == {"00000099": vector("Atelectasis", "Cardiomegaly")}
    rows = [*source.train, *source.validation]
    assert len(rows) == 8
    assert [list(row["labels"]) for row in rows].count(vector("Hernia")) == 4
    assert {row["patient_id"] for row in rows} == {f"{i:08d}" for i in range(1, 5)}
    assert any("read from file names" in message for message in source.messages)


def test_a_stream_is_split_like_the_map_style_data_set(numbered):
    whole, stream = (load_hub(numbered, validation_fraction=0.5, streaming=streaming) for streaming in (False, True))
    for split in ("train", "validation"):
        patients = [row["patient_id"] for row in whole.splits()[split]]
        assert patients
        assert [row["patient_id"] for row in stream.splits()[split]] == patients
    assert not set(whole.train["patient_id"]) & set(whole.validation["patient_id"])


@pytest.mark.parametrize("streaming", [False, True])
def test_rows_are_those_of_every_source(numbered, streaming):
    source = load_hub(numbered, streaming=streaming)
    assert all(rows.features == row_features(14) for rows in source.splits().values())
    transform = ImageTransform(ClarityImageProcessor(size={"height": 32, "width": 32}), prior="none")
    example = transform(next(iter(source.train)))
    assert example["pixel_values"].shape == (3, 32, 32)
    assert example["labels"].shape == (14,)


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("as_class", [False, True])
def test_lateral_images_are_left_out_whatever_type_their_view_has(tmp_path, streaming, as_class):
    names = ["Frontal", "Lateral"]
    view = datasets.ClassLabel(names=names) if as_class else TEXT
    cells = [0, 1, 0, 1, -1] if as_class else ["Frontal", "Lateral", "Frontal", "Lateral", ""]
    rows = {"label": [["Mass"], ["Mass"], ["Effusion"], ["Mass"], ["Mass"]], "Frontal/Lateral": cells}
    folder = write(tmp_path / "views", "train", rows, **{"label": STRINGS, "Frontal/Lateral": view})
    source = load_hub(folder, validation_fraction=0, streaming=streaming)
    assert [list(row["labels"]) for row in source.train] == [vector("Mass"), vector("Effusion"), vector("Mass")]


@pytest.mark.parametrize(
    "classes", [["absent", "present"], ["no", "yes"], ["0", "1"], ["False", "True"], ["positive", "negative"]]
)
def test_two_classes_of_a_findings_own_column_are_0_and_1(tmp_path, classes):
    present = 0 if classes[0] == "positive" else 1
    features = {name: datasets.ClassLabel(names=classes) for name in ("No Finding", "Effusion")}
    features["Mass"] = datasets.Value("float32")
    rows = {"No Finding": [1 - present, present, 1 - present], "Effusion": [present, -1, 1 - present]}
    folder = write(tmp_path / "own", "train", rows | {"Mass": [0.0, None, 1.0]}, **features)
    source = load_hub(folder, validation_fraction=0)
    assert source.findings == ("Effusion", "Mass")
    np.testing.assert_array_equal([row["labels"] for row in source.train], [[1, 0], [0, 0], [0, 1]])


@pytest.mark.parametrize(
    ("cells", "feature"),
    [(["yes", "no", "yes"], TEXT), ([0, 1, 2], datasets.ClassLabel(names=["absent", "present", "maybe"]))],
)
def test_a_findings_column_that_holds_other_words_is_reported(tmp_path, cells, feature):
    rows = {"Effusion": cells, "Mass": [0.0, 1.0, 1.0]}
    source = load_hub(write(tmp_path / "own", "train", rows, Effusion=feature, Mass=datasets.Value("float32")))
    assert source.findings == ("Mass",)
    assert any("1 columns are not findings because of cells that are not labels" in text for text in source.messages)


def test_a_multi_hot_list_of_classes_is_refused(tmp_path):
    feature = datasets.List(datasets.ClassLabel(names=["Mass", "Effusion", "Nodule"]))
    folder = write(tmp_path / "own", "train", {"labels": [[0, 1, 0], [1, 0, 0]]}, labels=feature)
    with pytest.raises(ValueError, match=r"numbers of those that are present, got \[0, 1, 0\]\. If it is multi-hot"):
        load_hub(folder)


def test_a_class_may_be_named_twice_in_a_list(tmp_path):
    """As with one class for each box."""
    feature = datasets.List(datasets.ClassLabel(names=["Mass", "Effusion", "Nodule"]))
    folder = write(tmp_path / "own", "train", {"labels": [[0, 0, 2], [2, 2], [1]]}, labels=feature)
    source = load_hub(folder, validation_fraction=0)
    np.testing.assert_array_equal([row["labels"] for row in source.train], [[0, 1, 1], [0, 0, 1], [1, 0, 0]])
    assert source.findings == ("Effusion", "Mass", "Nodule")


def test_columns_of_yes_and_no_are_findings_only_by_their_names_or_if_given(tmp_path):
    yes_no = datasets.ClassLabel(names=["no", "yes"])
    rows = {"portable": [0, 1], "Effusion": [1, 0], "sex": [0, 1]}
    sex = datasets.ClassLabel(names=["F", "M"])
    folder = write(tmp_path / "own", "train", rows, portable=yes_no, Effusion=yes_no, sex=sex)
    assert load_hub(folder).findings == ("Effusion",)
    assert load_hub(folder, findings=["Effusion", "portable"]).findings == ("Effusion", "portable")


@pytest.mark.parametrize("streaming", [False, True])
def test_columns_of_findings_come_before_classes_of_other_names(tmp_path, streaming):
    number = datasets.Value("int64")
    rows = {"label": [0, 1], "Effusion": [0, 1], "Mass": [1, 0]}
    features = {"label": datasets.ClassLabel(names=["normal", "abnormal"]), "Effusion": number, "Mass": number}
    folder = write(tmp_path / "both", "train", rows, **features)
    findings = ["Effusion", "Mass"] if streaming else None  # a stream's labels are named
    source = load_hub(folder, findings=findings, validation_fraction=0, streaming=streaming)
    assert source.findings == ("Effusion", "Mass")
    assert [list(row["labels"]) for row in source.train] == [[0, 1], [1, 0]]


def test_a_class_of_minus_one_is_not_annotated(tmp_path):
    feature = datasets.ClassLabel(names=["Effusion", "Mass"])
    folder = write(tmp_path / "unlabelled", "train", {"label": [0, -1]}, label=feature)
    source = load_hub(folder, validation_fraction=0)
    assert list(source.train[0]["labels"]) == [1, 0]
    assert np.isnan(source.train[1]["labels"]).all()


def test_patients_that_are_written_nan_are_unknown(tmp_path):
    rows = {"label": [["Mass"], ["Effusion"], ["Mass"]], "patient_id": ["nan", "nan", "7"]}
    folder = write(tmp_path / "patients", "train", rows, label=STRINGS, patient_id=TEXT)
    assert len(set(load_hub(folder, validation_fraction=0).train["patient_id"])) == 3


def test_a_stream_of_the_hub_trains(numbered):
    transform = ImageTransform(ClarityImageProcessor(size={"height": 32, "width": 32}), augment="full")
    stream = load_hub(numbered, validation_fraction=0, streaming=True).train.shuffle(seed=0, buffer_size=4)
    assert len(list(TransformedStream(stream, transform))) == 8


@pytest.mark.parametrize("streaming", [False, True])
def test_lists_of_names_with_another_split_than_the_official_one(written, streaming):
    source = load_hub(written, streaming=streaming)
    assert source.findings == FINDINGS
    assert labels_of(source.train) == {"1": vector(), "2": vector("Effusion", "Pleural_Thickening")}
    assert labels_of(source.validation) == {"3": vector("Mass")}
    assert any("does not have the official split" in message for message in source.messages)


def test_patients_in_two_splits_are_counted_and_their_rows_named(written):
    said = "train and test share 1 patients (train rows 1; test rows 0). Figures on them are too high."
    assert said in load_hub(written).messages


def test_rows_of_patients_in_two_splits_are_those_of_the_data_set(tmp_path):
    columns = {"labels": ["Mass", "Mass", "Nodule"], "view": ["LL", "PA", "AP"], "patient_id": ["a", "b", "DOE"]}
    for split in ("train", "test"):
        write(tmp_path / "leaking", split, columns, labels=TEXT, view=TEXT, patient_id=TEXT)
    (message,) = [message for message in load_hub(tmp_path / "leaking").messages if "share" in message]
    assert message.startswith("train and test share 2 patients (train rows 1, 2; test rows 1, 2).")
    assert "DOE" not in message


@pytest.mark.parametrize(
    ("feature", "labels"),
    [
        (STRINGS, [["Mass"], ["No Finding"]]),
        (datasets.List(datasets.ClassLabel(names=list(NUMBERED_LABELS))), [[5], [0]]),
        (TEXT, ["Mass", "No Finding"]),
    ],
)
def test_labels_of_any_type_with_scans_and_patients(tmp_path, feature, labels):
    """As chehablab/NIHChestXR: `patient_id`, `scan_id`, `image`, `labels`."""
    columns = {"labels": labels, "patient_id": ["00000007", "00000008"], "scan_id": ["a", "b"]}
    folder = write(tmp_path / "che", "train", columns, labels=feature, patient_id=TEXT, scan_id=TEXT)
    source = load_hub(folder, validation_fraction=0)
    assert source.findings == FINDINGS
    assert labels_of(source.train) == {"00000007": vector("Mass"), "00000008": vector()}
    assert source.messages == ()


def test_finding_columns_are_detected_map_style_and_must_be_named_for_streams(tmp_path):
    columns = {"Pleural Effusion": [1.0, -1.0], "Rib": [None, 0.0], "patient_id": ["a", "b"], "age": [61, 35]}
    number = datasets.Value("float32")
    features = {"Pleural Effusion": number, "Rib": number, "patient_id": TEXT, "age": datasets.Value("int32")}
    folder = write(tmp_path / "own", "train", columns, **features)
    source = load_hub(folder, validation_fraction=0)
    assert source.findings == ("Effusion", "Rib")
    np.testing.assert_array_equal(source.train["labels"][:], [[1, NAN], [NAN, 0]])
    assert "1 labels are uncertain (−1): Effusion 1." in source.messages
    with pytest.raises(ValueError, match="`findings` must be given"):
        load_hub(folder, streaming=True)
    stream = load_hub(folder, ["Pleural Effusion", "Rib"], uncertain="positive", validation_fraction=0, streaming=True)
    np.testing.assert_array_equal([row["labels"] for row in stream.train], [[1, NAN], [1, 0]])


@pytest.mark.parametrize("streaming", [False, True])
def test_masks_and_laterals(tmp_path, streaming):
    masks = [{"path": "m.png", "bytes": png(9)}, None, None]
    columns = {"labels": [["Mass"]] * 3, "thorax_mask": masks, "View Position": ["PA", "LL", "AP"]}
    features = {"labels": STRINGS, "thorax_mask": datasets.Image(), "View Position": TEXT}
    folder = write(tmp_path / "own", "full", columns, **features)
    source = load_hub(folder, ["Mass"], validation_fraction=0, streaming=streaming)
    assert source.has_prior
    first, second = source.train
    assert first["thorax_mask"]["bytes"] == png(9)
    assert second["thorax_mask"] is None
    assert any("lateral" in message.lower() for message in source.messages)
    assert any("No column names patients" in message for message in source.messages)


def test_an_unknown_name_asks_for_the_finding(tmp_path):
    folder = write(tmp_path / "own", "train", {"labels": [["Rib"]]}, labels=STRINGS)
    with pytest.raises(ValueError, match=r"train, row 0: 'labels' must hold names of .*got 'Rib'"):
        load_hub(folder)
    assert load_hub(folder, ["Rib"], validation_fraction=0).train["labels"][:] == [[1.0]]


def test_a_number_beyond_the_labels_is_refused(tmp_path):
    folder = write(tmp_path / "own", "train", {"labels": [[15]]}, labels=NUMBERS)
    with pytest.raises(ValueError, match=r"between 0 \(No Finding\) and 14 \(Hernia\), got \[15\]"):
        load_hub(folder)


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("label", [[0, 0, 1], [0, 5], [5, 5], [1, 1]])
def test_a_multi_hot_list_is_not_taken_for_numbers(tmp_path, label, streaming):
    folder = write(tmp_path / "own", "train", {"labels": [[5], label]}, labels=NUMBERS)
    with pytest.raises(ValueError, match=r"0 \(No Finding\) alone, got .*multi-hot, give `findings`"):
        list(load_hub(folder, validation_fraction=0, streaming=streaming).train)


@pytest.mark.parametrize("streaming", [False, True])
def test_a_multi_hot_list_is_read_with_a_name_for_each_place(tmp_path, streaming):
    columns = {"labels": [[0, 1, 0], [0, 0, 0], None, [1, 0, 1]], "patient_id": list("abcd")}
    folder = write(tmp_path / "own", "train", columns, labels=NUMBERS, patient_id=TEXT)
    options = {"validation_fraction": 0, "streaming": streaming}
    source = load_hub(folder, ["Rib", "Pleural Effusion", "Mass"], **options)
    assert source.findings == ("Rib", "Effusion", "Mass")
    np.testing.assert_array_equal([r["labels"] for r in source.train], [[0, 1, 0], [0, 0, 0], [NAN] * 3, [1, 0, 1]])
    normal = load_hub(folder, ["No Finding", "Rib", "Mass"], **options)
    assert normal.findings == ("Rib", "Mass")
    np.testing.assert_array_equal([r["labels"] for r in normal.train], [[1, 0], [0, 0], [NAN, NAN], [0, 1]])
    contradiction = "1 images have both No Finding and a finding; the finding is used: train row 3."
    assert streaming or contradiction in normal.messages
    with pytest.raises(ValueError, match="each number once"):
        list(load_hub(folder, ["Rib", "Mass"], **options).train)


@pytest.mark.parametrize("streaming", [False, True])
def test_labels_of_two_forms_are_refused(tmp_path, streaming):
    labels = [[0, 1]] * 20 + [[5]]
    folder = write(tmp_path / "own", "train", {"labels": labels}, labels=NUMBERS)
    message = r"a 0 or 1 for each of the 2 `findings`, got \[5\]" if streaming else "each number"
    with pytest.raises(ValueError, match=message):
        list(load_hub(folder, ["Rib", "Mass"], validation_fraction=0, streaming=streaming).train)


def test_one_number_an_image_stays_a_number_with_one_finding(tmp_path):
    folder = write(tmp_path / "own", "train", {"labels": [[1], [0]]}, labels=NUMBERS)
    assert load_hub(folder, ["Atelectasis"], validation_fraction=0).train["labels"][:] == [[1.0], [0.0]]
    with pytest.raises(ValueError, match="got 'Atelectasis'"):
        load_hub(folder, ["Mass"], validation_fraction=0)


def test_images_with_no_finding_and_a_finding_are_counted(tmp_path):
    labels = [["No Finding", "Mass"], ["No Finding"], ["Mass"]]
    source = load_hub(write(tmp_path / "own", "train", {"labels": labels}, labels=STRINGS), validation_fraction=0)
    assert "1 images have both No Finding and a finding; the finding is used: train row 0." in source.messages


def test_a_stream_says_that_it_does_not_look_for_patients_in_two_splits(written):
    assert "A stream is not searched for patients in two splits." in load_hub(written, streaming=True).messages


def test_labels_are_written_as_a_table_would(tmp_path):
    assert label_text(None, NUMBERS) == ""
    assert label_text([14, 1], NUMBERS) == "Hernia|Atelectasis"
    assert label_text([], STRINGS) == label_text([], NUMBERS) == "[]"
    assert label_text(["Mass", "Rib fracture"], STRINGS) == '["Mass", "Rib fracture"]'
    assert label_text([None], STRINGS) == ""
    assert label_text(1.0, datasets.Value("float32")) == "1"
    assert label_text(1, datasets.ClassLabel(names=["a", "b"])) == "b"


def test_columns_and_splits_that_do_not_fit_are_errors(tmp_path):
    features = {"labels": STRINGS, "other": datasets.Image()}
    two = write(tmp_path / "two", "train", {"labels": [["Mass"]], "other": [None]}, **features)
    with pytest.raises(ValueError, match=r"one column of images, got \['image', 'other'\]"):
        load_hub(two)
    assert len(load_hub(two, image_column="image", validation_fraction=0).train) == 1
    with pytest.raises(ValueError, match="`image_column` must be one of the columns of images"):
        load_hub(two, image_column="labels")
    with pytest.raises(ValueError, match="`patient_column` must be one of the columns"):
        load_hub(two, image_column="image", patient_column="nowhere")
    with pytest.raises(TypeError, match="Pass"):
        load_hub(two, "Mass", image_column="image")
    with pytest.raises(ValueError, match="validation_fraction"):
        load_hub(two, validation_fraction=2)
    for split in ("fold1", "fold2"):
        write(tmp_path / "folds", split, {"labels": [["Mass"]]}, labels=STRINGS)
    with pytest.raises(ValueError, match=r"must be train, validation, test, got \['fold1', 'fold2'\]"):
        load_hub(tmp_path / "folds")


# Folders of images


def save(folder, name, seed=0):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(png(seed))


@pytest.mark.parametrize("streaming", [False, True])
def test_a_subfolder_is_a_finding(tmp_path, streaming):
    for i, name in enumerate(["No Finding/a", "cardiomegaly/b", "Rib/c"]):
        save(tmp_path / "images", f"{name}.png", i)
    source = load_imagefolder(tmp_path / "images", validation_fraction=0, streaming=streaming)
    assert source.name == "images"
    assert source.findings == ("Cardiomegaly", "Rib")
    labels = {os.path.basename(row["image"]["path"]): list(row["labels"]) for row in source.train}
    assert labels == {"a.png": [0, 0], "b.png": [1, 0], "c.png": [0, 1]}
    assert any("No column names patients" in message for message in source.messages)
    assert isinstance(source.train, datasets.IterableDataset) == streaming
    assert list(source.test) == []


def test_folders_of_splits_are_kept(tmp_path):
    for name in ("train/normal/a", "train/Mass/b", "test/Mass/c", "test/normal/d"):
        save(tmp_path / "images", f"{name}.png")
    source = load_imagefolder(tmp_path / "images", validation_fraction=0)
    assert (len(source.train), len(source.test)) == (2, 2)
    assert sorted(source.test["labels"][:]) == [[0.0], [1.0]]


def test_subfolders_are_renamed_by_a_mapping(tmp_path):
    for name in ("normal/a", "kardio/b"):
        save(tmp_path / "images", f"{name}.png")
    source = load_imagefolder(tmp_path / "images", {"kardio": "Cardiomegaly"}, validation_fraction=0)
    assert source.findings == ("Cardiomegaly",)
    assert sorted(source.train["labels"][:]) == [[0.0], [1.0]]


@pytest.mark.parametrize("streaming", [False, True])
def test_metadata_in_the_folder_is_read_as_a_table(tmp_path, streaming):
    for i in range(4):
        save(tmp_path / "images", f"{i}.png")
    rows = "".join(f"{i}.png,p{i // 2},{i % 2},{['', -1][i % 2]}\n" for i in range(4))
    (tmp_path / "images" / "metadata.csv").write_text("file_name,patient_id,Mass,Edema\n" + rows)
    source = load_imagefolder(
        tmp_path / "images", uncertain="positive", empty="negative", validation_fraction=0.5, streaming=streaming
    )
    assert (source.name, source.findings) == ("images", ("Mass", "Edema"))
    assert [len({row["patient_id"] for row in rows}) for rows in source.splits().values()] == [1, 1, 0]
    assert sorted(list(row["labels"]) for row in source.train) == [[0, 0], [1, 1]]


def test_metadata_in_the_folders_of_splits_is_read_as_columns(tmp_path):
    for split in ("train", "test"):
        for i in range(2):
            save(tmp_path / "images" / split, f"{i}.png")
        text = f"file_name,patient_id,Mass\n0.png,{split}0,0\n1.png,{split}1,1\n"
        (tmp_path / "images" / split / "metadata.csv").write_text(text)
    source = load_imagefolder(tmp_path / "images", validation_fraction=0)
    assert source.findings == ("Mass",)
    assert labels_of(source.test) == {"test0": [0], "test1": [1]}


def test_a_missing_folder_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="`folder` must be a folder of images, found nothing at"):
        load_imagefolder(tmp_path / "nowhere")


# Bad input


@pytest.mark.parametrize("streaming", [False, True])
def test_a_fetched_row_may_not_name_an_image_of_this_machine(tmp_path, monkeypatch, streaming):
    (tmp_path / "private.png").write_bytes(png(0))
    features = datasets.Features(image=datasets.Image(decode=False), labels=TEXT, patient_id=TEXT)
    rows = {"labels": ["Mass", "Nodule"], "patient_id": ["a", "b"]}

    def fetched(name, **options):
        typed = datasets.Features({**features, "image": datasets.Image()})
        data = datasets.Dataset.from_dict(rows | {"image": images}, features=features).cast(typed)
        return {"train": data.to_iterable_dataset() if options["streaming"] else data}

    monkeypatch.setattr(datasets, "load_dataset", fetched)
    cached = str(tmp_path / "cache" / "b.png")
    images = [{"path": "a.png", "bytes": png(0)}, {"path": cached, "bytes": None}]
    assert len(list(load_hub("owner/name", validation_fraction=0, streaming=streaming).train)) == 2
    images[1] = {"path": str(tmp_path / "private.png"), "bytes": None}
    with pytest.raises(ValueError, match=r"must contain images, or paths of downloaded images, .*private\.png"):
        list(load_hub("owner/name", validation_fraction=0, streaming=streaming).train)


def test_images_in_any_folder_of_what_was_fetched_are_allowed(tmp_path, monkeypatch):
    for name in ("DOWNLOADED_DATASETS_PATH", "EXTRACTED_DATASETS_PATH"):
        monkeypatch.setattr(datasets.config, name, tmp_path / name)
        _check_fetched([str(tmp_path / name / "a.png")], "image")
    _check_fetched(["hf://datasets/a/b.png", "s3://images/b.png", None], "image")
    with pytest.raises(ValueError, match="paths of downloaded images"):
        _check_fetched([str(tmp_path / "a.png")], "image")


def test_a_memory_error_is_not_reported_as_a_damaged_data_set(tmp_path, monkeypatch):
    def fail(name, **options):
        raise datasets.exceptions.DatasetGenerationError("failed") from MemoryError()

    monkeypatch.setattr(datasets, "load_dataset", fail)
    with pytest.raises(MemoryError):
        load_hub("owner/name")


def test_images_outside_a_local_folder_of_parquet_are_counted(tmp_path):
    (tmp_path / "image.png").write_bytes(png(0))
    features = datasets.Features(image=datasets.Image(), labels=TEXT)
    rows = {"image": [str(tmp_path / "image.png")], "labels": ["Mass"]}
    (tmp_path / "own").mkdir()
    datasets.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "own" / "train.parquet")
    messages = load_hub(tmp_path / "own", validation_fraction=0).messages
    assert f"1 images are outside of the folder: {tmp_path / 'image.png'}." in messages


@pytest.mark.parametrize("content", [b"", b"PAR1 no parquet PAR1"])
def test_broken_parquet_is_refused(tmp_path, content):
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "train.parquet").write_bytes(content)
    with pytest.raises(ValueError, match=r"`name` must be a data set of intact files, got .*own"):
        load_hub(tmp_path / "own")


def test_a_pipe_in_a_folder_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / "train.parquet")
    with pytest.raises(ValueError, match="must be a folder of files, got the pipe or device"):
        load_hub(tmp_path)
    with pytest.raises(ValueError, match="must be a folder of files, got the pipe or device"):
        load_imagefolder(tmp_path)


def test_metadata_may_not_lead_out_of_the_folder(tmp_path):
    (tmp_path / "own" / "train").mkdir(parents=True)
    for path in (tmp_path / "own" / "train" / "a.png", tmp_path / "private.png"):
        path.write_bytes(png(0))
    metadata = "file_name,labels\na.png,Mass\n../../private.png,Mass\n"
    (tmp_path / "own" / "train" / "metadata.csv").write_text(metadata)
    with pytest.raises((ValueError, FileNotFoundError)):
        list(load_imagefolder(tmp_path / "own", validation_fraction=0).train)


TEXTS = {
    "string": (["Mass", "Edema"], pyarrow.string()),
    "large_string": (["Mass", "Edema"], pyarrow.large_string()),
    "string_view": (["Mass", "Edema"], pyarrow.string_view()),
    "dictionary": (["Mass", "Edema"], pyarrow.dictionary(pyarrow.int32(), pyarrow.string())),
    "dictionary of large_string": (["Mass", "Edema"], pyarrow.dictionary(pyarrow.int32(), pyarrow.large_string())),
    "list": ([["Mass"], ["Edema"]], pyarrow.list_(pyarrow.string())),
    "list of large_string": ([["Mass"], ["Edema"]], pyarrow.list_(pyarrow.large_string())),
    "large_list": ([["Mass"], ["Edema"]], pyarrow.large_list(pyarrow.string())),
    "large_list of large_string": ([["Mass"], ["Edema"]], pyarrow.large_list(pyarrow.large_string())),
    "list of a fixed size": ([["Mass"], ["Edema"]], pyarrow.list_(pyarrow.large_string(), 1)),
    "list of uint8": ([[5], [10]], pyarrow.list_(pyarrow.uint8())),
    "large_list of int32": ([[5], [10]], pyarrow.large_list(pyarrow.int32())),
}


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("kind", TEXTS)
def test_labels_are_seen_whichever_type_of_text_or_list_they_are_written_in(tmp_path, kind, streaming):
    values, arrow = TEXTS[kind]
    image = pyarrow.array([{"bytes": png(seed), "path": None} for seed in (0, 1)])
    table = pyarrow.table({"image": image, "labels": pyarrow.array(values, type=arrow)})
    (tmp_path / "own").mkdir()
    whole = datasets.Dataset(table).cast_column("image", datasets.Image())
    whole.to_parquet(tmp_path / "own" / "train.parquet")
    source = load_hub(tmp_path / "own", validation_fraction=0, streaming=streaming)
    assert source.findings == FINDINGS
    assert [list(row["labels"]) for row in source.train] == [vector("Mass"), vector("Edema")]


def test_an_empty_list_is_a_normal_image_and_null_an_unannotated_one_and_both_are_counted(tmp_path):
    labels = [["Mass"], [], None, []]
    source = load_hub(write(tmp_path / "own", "train", {"labels": labels}, labels=STRINGS), validation_fraction=0)
    assert source.train["labels"][0] == vector("Mass")
    assert source.train["labels"][1] == source.train["labels"][3] == vector()
    assert np.isnan(source.train["labels"][2]).all()
    empty = "2 images have an empty list of labels and count as without findings: train row 1, train row 3."
    assert empty in source.messages
    assert "1 images have no labels and are not annotated: train row 2." in source.messages


def test_an_empty_list_of_numbers_is_a_normal_image(tmp_path):
    source = load_hub(write(tmp_path / "own", "train", {"labels": [[5], []]}, labels=NUMBERS), validation_fraction=0)
    assert source.train["labels"][:] == [vector("Mass"), vector()]


def test_folders_named_by_several_findings_are_refused(tmp_path):
    for name in ("Mass", "Edema", "Mass;Edema"):
        (tmp_path / "own" / name).mkdir(parents=True)
        (tmp_path / "own" / name / "0.png").write_bytes(png(0))
    with pytest.raises(ValueError, match="must have names that contain no others, got Mass;Edema"):
        load_imagefolder(tmp_path / "own")
