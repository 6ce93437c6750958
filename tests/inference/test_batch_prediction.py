# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Many images: what is found, what is written, what a stopped, shared or mistaken run does."""

import csv
import errno
import json
import os

import numpy as np
import pytest
import torch
from PIL import Image

from clarity_hf import ChestXrayLocalizationPipeline, ClarityImageProcessor
from clarity_hf.fingerprints import BOX_FIELDS
from clarity_hf.inference import batch_prediction
from clarity_hf.inference.batch_prediction import find_images, predict_images
from clarity_hf.inference.dicom_output import KINDS
from clarity_hf.phantoms import draw_phantom

COUNT = 7


@pytest.fixture
def pipeline(tiny_model):
    return ChestXrayLocalizationPipeline(
        model=tiny_model, image_processor=ClarityImageProcessor(size={"height": 64, "width": 64})
    )


@pytest.fixture
def images(image, tmp_path):
    """Folder of seven different images."""
    folder = tmp_path / "images"
    folder.mkdir()
    for index in range(COUNT):
        Image.fromarray(np.roll(image, 7 * index, axis=1)).save(folder / f"{index}.png")
    return folder


def names(found):
    return [image.name for image in found.images]


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def predicted(folder):
    return [record["image"] for record in lines(folder / "findings.jsonl")]


def png(index):
    return f"{index}.png"


# Finding


def test_a_folder_is_searched_by_content_and_the_rest_is_counted(images):
    (images / "0.png").rename(images / "no-ending")
    (images / "dicom-like").write_bytes(bytes(128) + b"DICM" + bytes(20))
    (images / "broken.jpg").write_bytes(b"junk")
    (images / "notes.txt").write_text("images")
    (images / "DICOMDIR").write_bytes(bytes(128) + b"DICM")
    (images / ".hidden.png").write_bytes(b"")
    found = find_images([images])
    assert names(found) == [*(png(index) for index in range(1, COUNT)), "broken.jpg", "dicom-like", "no-ending"]
    assert found.passed_over == {"": 1, ".txt": 1}


def test_folders_inside_are_searched_only_if_asked_and_never_the_results(images):
    for inside in ("deep/er", "out/overlays"):
        (images / inside).mkdir(parents=True)
        (images / "0.png").replace(images / inside / "0.png") if inside == "deep/er" else None
    (images / "out" / "overlays" / "1.png.png").write_bytes((images / "1.png").read_bytes())
    rest = [png(index) for index in range(1, COUNT)]
    assert names(find_images([images])) == rest
    assert names(find_images([images], recursive=True, exclude=[images / "out"])) == [*rest, "deep/er/0.png"]
    glob = find_images([f"{images}/**/*.png"], exclude=[images / "out"])
    assert sorted(names(glob)) == sorted([*rest, "deep/er/0.png"])
    assert glob.passed_over == {".png": 1}


def test_files_globs_and_lists_name_each_image_once(images, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "list.txt").write_text("images/5.png\n\nimages/[01].png\n")
    found = find_images(["images/1.png", "@list.txt", f"{images}/5.png"])
    assert names(found) == ["1.png", "5.png", "0.png"]
    assert [image.path for image in found.images] == [images / name for name in names(found)]


def test_names_start_below_the_folder_common_to_all_inputs(images, image, tmp_path):
    other = tmp_path / "more"
    other.mkdir()
    Image.fromarray(image).save(other / "0.png")
    assert names(find_images([images / "0.png", other])) == ["images/0.png", "more/0.png"]


def test_without_a_common_folder_names_start_with_what_tells_the_inputs_apart():
    starts = batch_prediction._starts_of_names
    assert starts({"/one/images", "/one/images/deep", "/two/more"}) == {"/one/images": "images", "/two/more": "more"}
    assert starts({"/one/a/images", "/two/b/images"}) == {"/one/a/images": "a/images", "/two/b/images": "b/images"}
    assert starts({"/one/images", "/two/b"}) == {"/one/images": "images", "/two/b": "b"}
    assert starts({"/", "/one"}) == {"/": ""}  # asked for
    named = starts({"/one/images", "/two/more"})
    assert batch_prediction._name("/one/images/deep/0.png", named) == "images/deep/0.png"


@pytest.mark.parametrize("given", ["nowhere.png", "images/*.gif", "@nowhere.txt"])
def test_an_input_that_is_not_there_is_named(images, given, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"`inputs` must be there, got .*(nowhere|gif)"):
        find_images(["images", given])


def test_a_folder_without_images_is_an_error_that_counts_what_is_there(tmp_path):
    (tmp_path / "notes.txt").write_text("none")
    with pytest.raises(ValueError, match="got none beside 1 other files"):
        find_images([tmp_path])


def test_one_input_needs_no_list(images):
    assert names(find_images(str(images))) == names(find_images(images)) == [png(index) for index in range(COUNT)]


def test_folders_that_cannot_be_listed_are_named(images, monkeypatch):
    for closed in ("closed", "open/closed"):
        (images / closed).mkdir(parents=True)
    (images / "0.png").rename(images / "open" / "0.png")
    scan = os.scandir

    def scandir(path):
        if str(path).endswith("closed"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", scandir)
    found = find_images([images], recursive=True)
    assert "open/0.png" in names(found)
    assert found.unread == {
        str(images / folder): "cannot be listed (Permission denied)" for folder in ("closed", "open/closed")
    }
    assert find_images([f"{images}/**/*.png"]).unread == found.unread
    assert find_images([f"{images}/*/*.png"]).unread == {
        str(images / "closed"): "cannot be listed (Permission denied)"
    }
    with pytest.raises(ValueError, match=r"got none .* /.*closed: cannot be listed \(Permission denied\)"):
        find_images([images / "closed"])


def test_folders_inside_that_are_not_asked_for_are_counted(images):
    for inside in ("one/deep", "two"):
        (images / inside).mkdir(parents=True)
    assert find_images([images]).folders == 2
    assert find_images([images], recursive=True).folders == 0


def test_linked_folders_are_looked_into_once_and_loops_end(images, image, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    Image.fromarray(image).save(elsewhere / "9.png")
    (images / "real").mkdir()
    (images / "0.png").rename(images / "real" / "0.png")
    for link, target in (("again", images / "real"), ("loop", images), ("out", elsewhere), ("out-2", elsewhere)):
        (images / link).symlink_to(target)
    (elsewhere / "back").symlink_to(images)
    (images / "up").symlink_to(tmp_path)
    found = find_images([images], recursive=True)
    assert names(found) == [*(png(index) for index in range(1, COUNT)), "out/9.png", "real/0.png"]
    assert found.unread == {
        str(images / "up"): "is a link to a folder that holds this one",
    }


def test_a_broken_link_with_the_ending_of_an_image_is_an_image_that_fails(pipeline, images, tmp_path):
    (images / "7.png").symlink_to(images / "nowhere.png")
    summary = predict_images(pipeline, find_images([images]).images, tmp_path / "out")
    assert (summary.predicted, summary.failed) == (COUNT, 1)
    assert lines(tmp_path / "out" / "failed.jsonl")[0]["image"] == "7.png"


LISTS = {
    "plain": b"images/5.png\nimages/1.png\n",
    "Windows": b"images/5.png\r\nimages/1.png\r\n",
    "UTF-8 with its mark": "\ufeffimages/5.png\nimages/1.png".encode(),
    "UTF-16": "images/5.png\r\nimages/1.png\r\n".encode("utf-16"),
    "UTF-16 of the other order": b"\xfe\xff" + "images/5.png\nimages/1.png\n".encode("utf-16-be"),
    "quotes": b"\"images/5.png\"\n'images/1.png'\n",
    "blanks": b"  images/5.png\t\n\n images/1.png \n",
}


@pytest.mark.parametrize("kind", LISTS)
def test_lists_are_read_as_editors_and_spreadsheets_write_them(images, tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "list.txt").write_bytes(LISTS[kind])
    assert names(find_images(["@list.txt"])) == ["5.png", "1.png"]


@pytest.mark.parametrize("name", ["a b.png", " a.png", "a.png ", '"a".png', "a\x0bb.png", "a\u2028b.png", "@a.png"])
def test_names_in_lists_are_taken_to_the_letter(images, tmp_path, monkeypatch, name):
    monkeypatch.chdir(images)
    (images / "0.png").rename(images / name)
    (tmp_path / "list.txt").write_text(f"{name}\n")
    assert names(find_images([f"@{tmp_path}/list.txt"])) == [name]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("images/größe.png".encode("latin-1"), "must list paths in UTF-8, got another text in '@list.txt'"),
        ("images/1.png\n".encode("utf-16-le"), "must list paths as text, got NUL in '@list.txt'"),
        (b"@list.txt\n", "must name no list in a list, got '@list.txt'"),
    ],
)
def test_what_is_no_list_is_refused(images, tmp_path, monkeypatch, content, told):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "list.txt").write_bytes(content)
    with pytest.raises(ValueError, match=told):
        find_images(["@list.txt"])


# Predicting


def test_a_line_holds_what_the_pipeline_gives(pipeline, images, tmp_path):
    out = tmp_path / "out"
    counts = []
    summary = predict_images(
        pipeline,
        find_images([images]).images,
        out,
        batch_size=3,
        workers=2,
        progress=lambda *done: counts.append(done),
    )
    assert (summary.images, summary.skipped, summary.predicted, summary.failed) == (7, 0, 7, 0)
    assert counts == [(0, 7), (3, 7), (6, 7), (7, 7)]
    assert predicted(out) == [png(index) for index in range(COUNT)]
    record = lines(out / "findings.jsonl")[4]
    assert record["size"] == [120, 90]
    assert record["bytes"] == (images / "4.png").stat().st_size
    alone = pipeline(str(images / "4.png"))
    assert [finding["label"] for finding in record["findings"]] == [finding["label"] for finding in alone]
    for mine, theirs in zip(record["findings"], alone, strict=True):
        assert mine["score"] == pytest.approx(theirs["score"], abs=1e-5)
        assert (mine["threshold"], mine["present"]) == (theirs["threshold"], theirs["present"])
        for box, other in zip(mine["boxes"], theirs["boxes"], strict=True):
            assert box == pytest.approx(other, abs=1)


def test_a_threshold_decides_what_is_present(pipeline, images, tmp_path):
    found = find_images([images / "0.png"]).images
    for threshold, present in ((0.0, True), (1.0, False)):
        predict_images(pipeline, found, tmp_path / str(threshold), threshold=threshold)
        for finding in lines(tmp_path / str(threshold) / "findings.jsonl")[0]["findings"]:
            assert (finding["threshold"], finding["present"]) == (threshold, present)
            assert present or finding["boxes"] == []


@pytest.mark.parametrize("workers", [0, 2])
def test_bad_images_are_told_without_their_folder_and_the_rest_go_on(pipeline, images, tmp_path, workers):
    (images / "0.png").write_bytes((images / "0.png").read_bytes()[:500])
    (images / "3.png").write_bytes(b"junk")
    found = find_images([images]).images
    (images / "6.png").unlink()
    summary = predict_images(pipeline, found, tmp_path / "out", batch_size=2, workers=workers)
    assert (summary.predicted, summary.failed) == (4, 3)
    assert predicted(tmp_path / "out") == [png(index) for index in (1, 2, 4, 5)]
    failed = lines(tmp_path / "out" / "failed.jsonl")
    assert [record["image"] for record in failed] == ["0.png", "3.png", "6.png"]
    for record in failed:
        assert record["image"] in record["reason"]
        assert str(tmp_path) not in record["reason"]


@pytest.mark.parametrize("outputs", [["overlays"], ["maps"], ["overlays", "maps"]])
def test_a_name_too_long_for_its_results_fails_alone(pipeline, images, tmp_path, outputs):
    long = "x" * 251 + ".png"
    (images / "3.png").rename(images / long)
    summary = predict_images(pipeline, find_images([images]).images, tmp_path / "out", outputs=outputs)
    assert (summary.predicted, summary.failed) == (COUNT - 1, 1)
    (failed,) = lines(tmp_path / "out" / "failed.jsonl")
    assert failed["image"] == long
    assert failed["reason"].endswith("must be a name that results can have, got File name too long. Rename the image.")
    assert list((tmp_path / "out").rglob("*.part")) == []


def test_a_folder_in_the_place_of_a_result_fails_its_image_alone(pipeline, images, tmp_path):
    (tmp_path / "out" / "overlays" / "3.png.png" / "x").mkdir(parents=True)
    summary = predict_images(pipeline, find_images([images]).images, tmp_path / "out", outputs=["overlays"])
    assert (summary.predicted, summary.failed) == (COUNT - 1, 1)


def test_a_full_disk_ends_the_run(pipeline, images, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np, "savez_compressed", full)
    with pytest.raises(OSError, match="No space left"):
        predict_images(pipeline, find_images([images]).images, tmp_path / "out", outputs=["maps"])


STRANGE_NAMES = ["a\rb.png", "a\nb.png", "a\r\nb.png", 'a"b.png', "a,b.png", "a\x1b[2Jb.png", "=1+1.png"]


def test_names_with_line_ends_quotes_and_commas_come_back_from_every_table(pipeline, images, tmp_path):
    for index, name in enumerate(STRANGE_NAMES):
        (images / png(index)).rename(images / name)
    predict_images(pipeline, find_images([images]).images, tmp_path / "out", threshold=0.0, table=True)
    for table in ("findings", "boxes"):
        with (tmp_path / "out" / f"{table}.csv").open(newline="") as file:
            rows = list(csv.reader(file))
        assert {len(row) for row in rows} == {len(rows[0])}
        assert {row[0] for row in rows[1:]} == set(STRANGE_NAMES)
    assert b"\r\n" not in (tmp_path / "out" / "boxes.csv").read_bytes().replace(b"a\r\nb.png", b"")
    assert set(predicted(tmp_path / "out")) == set(STRANGE_NAMES)


@pytest.mark.parametrize("error", [MemoryError(), OSError(errno.ENOMEM, "Cannot allocate memory")], ids=str)
def test_too_little_memory_is_no_broken_image(pipeline, images, tmp_path, monkeypatch, error):
    def broken(*_):
        try:
            raise error
        except (MemoryError, OSError) as cause:
            raise ValueError("`image` must be a whole image") from cause

    monkeypatch.setattr(batch_prediction, "read_image", broken)
    predict_images(pipeline, find_images([images]).images[:1], tmp_path / "out")
    reason = lines(tmp_path / "out" / "failed.jsonl")[0]["reason"]
    assert reason.startswith("`0.png` must fit the memory that is free, got too little of it.")


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"),
        torch.OutOfMemoryError("CUDA out of memory"),
    ],
    ids=repr,
)
def test_a_batch_too_large_for_the_memory_ends_the_run_with_the_way_out(
    pipeline, images, tmp_path, monkeypatch, error
):
    def large(*_):
        raise error

    monkeypatch.setattr(pipeline, "forward", large)
    with pytest.raises(MemoryError, match=r"`batch_size` must give batches that fit the memory, got 4 images\. Lower"):
        predict_images(pipeline, find_images([images]).images, tmp_path / "out", batch_size=4)


def test_scores_that_are_no_numbers_fail_their_image(pipeline, images, tmp_path):
    with torch.no_grad():
        pipeline.model.class_token_head.bias.fill_(float("nan"))
    summary = predict_images(pipeline, find_images([images]).images, tmp_path / "out", table=True)
    assert (summary.predicted, summary.failed) == (0, COUNT)
    assert "must give finite scores in [0, 1], got nan" in lines(tmp_path / "out" / "failed.jsonl")[0]["reason"]
    assert "NaN" not in (tmp_path / "out" / "findings.jsonl").read_text()


def test_the_words_of_an_unexpected_error_are_not_repeated(pipeline, images, tmp_path, monkeypatch):
    def broken(*_):
        raise RuntimeError("PatientName Doe^Jane")

    monkeypatch.setattr(batch_prediction, "read_image", broken)
    predict_images(pipeline, find_images([images]).images[:1], tmp_path / "out")
    assert lines(tmp_path / "out" / "failed.jsonl")[0]["reason"].startswith(
        "`0.png` must be readable, got an unexpected RuntimeError."
    )


def test_an_image_that_failed_is_tried_again(pipeline, images, image, tmp_path):
    (images / "2.png").write_bytes(b"junk")
    predict_images(pipeline, find_images([images]).images, tmp_path / "out")
    Image.fromarray(image).save(images / "2.png")
    summary = predict_images(pipeline, find_images([images]).images, tmp_path / "out")
    assert (summary.skipped, summary.predicted, summary.failed) == (6, 1, 0)
    assert (tmp_path / "out" / "failed.jsonl").read_text() == ""


def test_pictures_maps_and_tables_stand_beside_the_lines(pipeline, images, tmp_path):
    (images / "study").mkdir()
    (images / "1.png").rename(images / "study" / "1.png")
    out = tmp_path / "out"
    found = find_images([images], recursive=True).images
    predict_images(pipeline, found, out, threshold=0.0, outputs=["overlays", "maps"], table=True)
    with Image.open(out / "overlays" / "0.png.png") as overlay:
        assert overlay.width == 512
        assert overlay.height > 683  # a strip below the image names the map and its scale
    with np.load(out / "maps" / "study" / "1.png.npz") as maps:
        assert maps["maps"].shape == (14, 4, 4)
        assert maps["image_size"].tolist() == [120, 90]
        assert maps["input_size"].tolist() == [64, 64]
        assert maps["content"].tolist() == [0, 8, 64, 48]  # 120 × 90 fits 64 × 64 as 64 × 48, centred
        assert maps["labels"][0] == "Atelectasis"
    records = {record["image"]: record for record in lines(out / "findings.jsonl")}
    with (out / "findings.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["image"] for row in rows} == set(records)
    for row in rows:
        for finding in records[row["image"]]["findings"]:
            assert float(row[finding["label"]]) == finding["score"]
            assert row[f"{finding['label']} present"] == "1"
    with (out / "boxes.csv").open(newline="") as file:
        boxes = sum(1 for _ in csv.DictReader(file))
    assert boxes == sum(len(finding["boxes"]) for record in records.values() for finding in record["findings"]) > 0
    assert list(out.rglob("*.part")) == []


@pytest.mark.parametrize("present", [(2, 5), ()])
def test_the_map_of_the_first_present_finding_is_drawn_whatever_its_rank(
    pipeline, images, tmp_path, monkeypatch, present
):
    drawn = []
    draw = batch_prediction.draw_findings
    monkeypatch.setattr(
        batch_prediction, "draw_findings", lambda *given, **options: drawn.append(given[2]) or draw(*given, **options)
    )
    ranked = [finding["label"] for finding in pipeline(str(images / "0.png"))]
    thresholds = [0.0 if ranked.index(label) in present else 1.0 for label in pipeline.model.config.findings]
    pipeline.model.config.score_thresholds = thresholds
    predict_images(pipeline, find_images([images / "0.png"]).images, tmp_path / "out", outputs=["overlays"])
    assert drawn == [ranked[2] if present else None]


# What looks like no frontal chest radiograph


@pytest.fixture
def mixed(tmp_path):
    """Folder of two phantoms, one of them inverted, and noise."""
    folder = tmp_path / "mixed"
    folder.mkdir()
    phantom = draw_phantom(0, size=128).image
    noise = np.random.default_rng(0).integers(0, 256, (100, 128)).astype(np.uint8)
    for name, pixels in (("dark", 255 - phantom), ("good", phantom), ("noise", noise)):
        Image.fromarray(pixels).save(folder / f"{name}.png")
    return folder


@pytest.mark.parametrize("workers", [0, 2])
def test_what_looks_wrong_is_predicted_with_a_warning_in_its_line_and_its_row(pipeline, mixed, tmp_path, workers):
    out = tmp_path / "out"
    summary = predict_images(pipeline, find_images([mixed]).images, out, batch_size=2, workers=workers, table=True)
    assert (summary.predicted, summary.failed, summary.warned) == (3, 0, 2)
    records = {record["image"]: record for record in lines(out / "findings.jsonl")}
    assert "warning" not in records["good.png"]
    assert records["dark.png"]["warning"]["kind"] == "inverted"
    assert set(records["noise.png"]["warning"]) == {"kind", "reason", "probability"}
    assert len(records["noise.png"]["findings"]) == 14
    with (out / "findings.csv").open(newline="") as file:
        told = {row["image"]: row["warning"] for row in csv.DictReader(file)}
    assert told == {"dark.png": "an image with dark bones", "good.png": "", "noise.png": "no radiograph"}
    assert json.loads((out / "settings.json").read_text())["radiograph_check"] == "warn"


def test_what_looks_wrong_is_refused_where_asked_and_named_with_the_reason(pipeline, mixed, tmp_path):
    out, found = tmp_path / "out", find_images([mixed]).images
    summary = predict_images(pipeline, found, out, radiograph_check="refuse")
    assert (summary.predicted, summary.failed, summary.warned) == (1, 2, 0)
    assert predicted(out) == ["good.png"]
    failed = {record["image"]: record["reason"] for record in lines(out / "failed.jsonl")}
    assert "`noise.png` must be a whole frontal chest radiograph" in failed["noise.png"]
    assert "looks like an image with dark bones (probability" in failed["dark.png"]
    with pytest.raises(ValueError, match='radiograph_check "refuse" there, "off" now'):
        predict_images(pipeline, found, out, radiograph_check="off")


def test_unchecked_images_have_no_warning(pipeline, mixed, tmp_path):
    summary = predict_images(pipeline, find_images([mixed]).images, tmp_path / "out", radiograph_check="off")
    assert (summary.predicted, summary.warned) == (3, 0)
    assert "warning" not in (tmp_path / "out" / "findings.jsonl").read_text()


# Resuming


class Killed(BaseException):
    """Ends a run as a signal does."""


def stop_after(batches):
    calls = []

    def progress(*_):
        calls.append(1)
        if len(calls) == batches + 1:  # the first call is before any batch
            raise Killed

    return progress


def test_a_stopped_run_goes_on_and_repeats_nothing(pipeline, images, tmp_path, monkeypatch):
    out, found = tmp_path / "out", find_images([images]).images
    with pytest.raises(Killed):
        predict_images(pipeline, found, out, batch_size=2, workers=2, progress=stop_after(2))
    assert predicted(out) == [png(index) for index in range(4)]
    with (out / "findings.jsonl").open("a") as file:
        file.write('{"image": "4.png", "si')  # a torn line
    read = []
    whole = batch_prediction.read_image
    monkeypatch.setattr(batch_prediction, "read_image", lambda path, *_: read.append(path.name) or whole(path))
    summary = predict_images(pipeline, found, out, batch_size=2, table=True)
    assert read == ["4.png", "5.png", "6.png"]
    assert (summary.skipped, summary.predicted) == (4, 3)
    assert predicted(out) == [png(index) for index in range(COUNT)]
    assert len((out / "findings.csv").read_text().splitlines()) == COUNT + 1


def test_a_torn_first_line_leaves_nothing(pipeline, images, tmp_path):
    out, found = tmp_path / "out", find_images([images]).images
    predict_images(pipeline, found, out)
    (out / "findings.jsonl").write_bytes(b'{"image": "0.png"' + b" " * 70_000)
    assert predict_images(pipeline, found, out).predicted == COUNT
    assert predicted(out) == [png(index) for index in range(COUNT)]


def test_a_broken_line_within_is_an_error_that_names_it(pipeline, images, tmp_path):
    out, found = tmp_path / "out", find_images([images]).images
    predict_images(pipeline, found, out)
    text = (out / "findings.jsonl").read_text().splitlines(keepends=True)
    (out / "findings.jsonl").write_text("".join([text[0], "nothing\n", *text[1:]]))
    with pytest.raises(ValueError, match=r"findings\.jsonl line 2 that is none"):
        predict_images(pipeline, found, out)


GOOD = '{"image": "x", "size": [1, 1], "bytes": 1, "modified": 1, "findings": []}\n'
LINES = {
    "no JSON": b"nothing\n",
    "list": b"[]\n",
    "number": b"3\n",
    "null": b"null\n",
    "text": b'"image"\n',
    "empty line": b"\n",
    "NUL": bytes(20) + b"\n",
    "no UTF-8": b'{"image": "\xff"}\n',
    "nested too deep": b"[" * 100_000 + b"\n",
    "empty object": b"{}\n",
    "no bytes": GOOD.replace('"bytes": 1, ', "").encode(),
    "bytes as text": GOOD.replace('"bytes": 1', '"bytes": "1"').encode(),
    "image is a list": GOOD.replace('"x"', '["x"]').encode(),
    "no findings": GOOD.replace(', "findings": []', "").encode(),
    "findings of numbers": GOOD.replace("[]}", "[3]}").encode(),
    "a score of NaN": GOOD.replace(
        "[]}", '[{"label": "Mass", "score": NaN, "threshold": 0.5, "present": true, "boxes": []}]}'
    ).encode(),
    "no size": GOOD.replace("[1, 1]", "null").encode(),
    "a warning of text": GOOD.replace('"bytes"', '"warning": "x", "bytes"').encode(),
    "a revision of text": GOOD.replace('"bytes"', '"revision": "x", "bytes"').encode(),
}


@pytest.mark.parametrize("kind", LINES)
def test_a_line_that_is_no_record_is_an_error_that_names_it(pipeline, images, tmp_path, kind):
    out, found = tmp_path / "out", find_images([images]).images
    predict_images(pipeline, found[:1], out)
    first = (out / "findings.jsonl").read_bytes()
    (out / "findings.jsonl").write_bytes(first + LINES[kind] + first)
    with pytest.raises(ValueError, match=r"must hold whole records, got findings\.jsonl line 2 that is none. Remove"):
        predict_images(pipeline, found, out, table=True)


STATES = ["", "{", "[]", "null", "3", '"text"', "[" * 100_000, "\0", "{}"]


@pytest.mark.parametrize("text", STATES, ids=lambda text: text[:9])
def test_settings_that_are_none_are_an_error_that_names_them(pipeline, images, tmp_path, text):
    out, found = tmp_path / "out", find_images([images]).images
    predict_images(pipeline, found[:1], out)
    (out / "settings.json").write_text(text)
    with pytest.raises(ValueError, match=r"`folder` must hold (readable settings.json|results of this model)"):
        predict_images(pipeline, found, out)


@pytest.mark.parametrize("name", ["settings.json", "findings.jsonl", "findings-r00.jsonl"])
def test_a_folder_in_the_place_of_a_state_file_is_an_error_that_names_it(pipeline, images, tmp_path, name):
    out, found = tmp_path / "out", find_images([images]).images
    predict_images(pipeline, found[:1], out)
    (out / name).unlink(missing_ok=True)
    (out / name).mkdir()
    with pytest.raises((ValueError, OSError), match=rf"{name}"):
        predict_images(pipeline, found, out)


def test_a_file_in_the_place_of_the_folder_is_an_error(pipeline, images, tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(ValueError, match="`folder` must be a folder, got the file out"):
        predict_images(pipeline, find_images([images]).images, tmp_path / "out")


def test_a_record_of_other_findings_is_an_error_that_names_the_image(pipeline, images, tmp_path):
    out, found = tmp_path / "out", find_images([images]).images
    predict_images(pipeline, found[:2], out)
    (out / "findings.jsonl").write_text((out / "findings.jsonl").read_text() + GOOD)
    with pytest.raises(ValueError, match=r"must hold records of the same findings, got others for x\."):
        predict_images(pipeline, found, out, table=True)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"threshold": 0.25}, r"score_thresholds \[.* there, 0\.25 now"),
        ({"outputs": ["maps"]}, r'outputs \[\] there, \["maps"\] now'),
        ("weights", r'weights "[0-9a-f]{16}" there, "[0-9a-f]{16}" now'),
        ({"map_thresholds": 0.25}, r"map_thresholds \[.* there, \[0\.25, .* now"),
        ({"box_valleys": 0.5}, r"box_valleys \[.* there, \[0\.5, .* now"),
        ({"box_components": "largest"}, r'box_components "all" there, "largest" now'),
        ({"box_upsampling": 4}, "box_upsampling 8 there, 4 now"),
    ],
)
def test_a_folder_of_another_model_or_settings_is_refused_with_what_differs(pipeline, images, tmp_path, change, told):
    out, found = tmp_path / "out", find_images([images]).images
    predict_images(pipeline, found[:2], out)
    before = (out / "findings.jsonl").read_bytes()
    if change == "weights":
        next(pipeline.model.parameters()).data.add_(1)
        change = {}
    elif change.keys() & set(BOX_FIELDS):
        pipeline.model.config.update(change)
        change = {}
    with pytest.raises(ValueError, match=told):
        predict_images(pipeline, found, out, **change)
    assert (out / "findings.jsonl").read_bytes() == before


def test_the_same_model_by_another_name_goes_on(pipeline, images, tmp_path):
    out, found = tmp_path / "out", find_images([images]).images
    predict_images(pipeline, found[:2], out, model_name="one")
    assert predict_images(pipeline, found, out, model_name="other").skipped == 2


def test_an_image_whose_file_has_changed_is_predicted_again_and_the_others_stay(pipeline, images, image, tmp_path):
    out, found = tmp_path / "out", find_images([images]).images
    predict_images(pipeline, found, out, table=True)
    before = {record["image"]: record for record in lines(out / "findings.jsonl")}
    Image.fromarray(image.T.copy()).save(images / "3.png")
    for revision in (1, 2):
        os.utime(images / "3.png", ns=(revision, revision))
        summary = predict_images(pipeline, found, out, table=True)
        assert (summary.skipped, summary.predicted, summary.changed) == (COUNT - 1, 1, 1)
        after = {record["image"]: record for record in lines(out / "findings.jsonl")}
        assert len(lines(out / "findings.jsonl")) == COUNT
        assert {name for name in before if before[name] != after[name]} == {"3.png"}
        assert (after["3.png"]["size"], after["3.png"]["modified"]) == ([90, 120], revision)
        assert after["3.png"]["revision"] == revision
    assert len((out / "findings.csv").read_text().splitlines()) == COUNT + 1
    assert predict_images(pipeline, found, out).skipped == COUNT


def test_a_changed_image_of_a_run_that_was_stopped_is_there_once(pipeline, images, tmp_path):
    out, found = tmp_path / "out", find_images([images]).images
    predict_images(pipeline, found, out)
    os.utime(images / "0.png", ns=(1, 1))
    with pytest.raises(Killed):
        predict_images(pipeline, found, out, progress=stop_after(1))
    assert len(lines(out / "findings.jsonl")) == COUNT + 1
    assert predict_images(pipeline, found, out).skipped == COUNT
    assert len(lines(out / "findings.jsonl")) == COUNT


def test_a_changed_image_is_predicted_again_by_whichever_process_has_it(pipeline, images, tmp_path):
    out, found = tmp_path / "out", find_images([images]).images
    for rank in (0, 1):
        predict_images(pipeline, found, out, rank=rank, world_size=2)
    os.utime(images / "1.png", ns=(1, 1))
    os.utime(images / "2.png", ns=(1, 1))
    for rank in (
        0,
        1,
        2,
    ):  # of another number of processes: image 1 is in the share of process 1, image 2 of process 2
        predict_images(pipeline, found, out, rank=rank, world_size=3)
    stood = {record["image"]: record["modified"] for record in lines(out / "findings.jsonl")}
    assert len(stood) == len(lines(out / "findings.jsonl")) == COUNT
    assert (stood["1.png"], stood["2.png"]) == (1, 1)


def test_a_changed_image_that_cannot_be_read_is_told_and_its_earlier_result_stands(pipeline, images, tmp_path):
    out, found = tmp_path / "out", find_images([images]).images
    predict_images(pipeline, found, out)
    (images / "3.png").write_bytes(b"junk")
    summary = predict_images(pipeline, found, out)
    assert (summary.skipped, summary.predicted, summary.failed) == (COUNT - 1, 0, 1)
    assert [record["image"] for record in lines(out / "failed.jsonl")] == ["3.png"]
    assert len(lines(out / "findings.jsonl")) == COUNT


def test_other_images_under_the_same_names_are_refused(pipeline, images, tmp_path):
    out, found = tmp_path / "out", find_images([images]).images
    predict_images(pipeline, found, out)
    for image in found:
        os.utime(image.path, ns=(1, 1))
    with pytest.raises(ValueError, match=r"another file named '0\.png' .*all 7 that have results. Choose another"):
        predict_images(pipeline, found, out)


def test_the_same_files_under_other_names_are_refused(pipeline, images, image, tmp_path):
    """With another input all names get longer, and every image would be there twice."""
    out, more = tmp_path / "out", tmp_path / "more"
    predict_images(pipeline, find_images([images]).images, out)
    more.mkdir()
    Image.fromarray(image).save(more / "9.png")
    with pytest.raises(ValueError, match=r"got 'images/0\.png' for its '0\.png'"):
        predict_images(pipeline, find_images([images, more]).images, out)
    assert predict_images(pipeline, find_images([more]).images, out).predicted == 1  # other images may join


def test_what_killed_runs_did_not_finish_is_removed(pipeline, images, tmp_path):
    out, found = tmp_path / "out", find_images([images]).images
    predict_images(pipeline, found[:2], out, outputs=["overlays"])
    torn, other = (out / "overlays" / f".{'0a' * 16}-r0{rank}.part" for rank in (1, 0))
    folder = out / f".{'1b' * 16}-r01.part"
    folder.mkdir()
    mine = out / ".mine.part"
    for path in (torn, other, mine):
        path.write_bytes(b"half a picture")
    predict_images(pipeline, found, out, outputs=["overlays"], rank=1, world_size=2)
    assert not torn.exists()
    assert not folder.exists()
    assert other.exists()  # process 0 may be writing it
    predict_images(pipeline, found, out, outputs=["overlays"])
    assert not other.exists()
    assert mine.exists()


def test_findings_without_settings_are_refused(pipeline, images, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "findings.jsonl").write_text("{}\n")
    with pytest.raises(ValueError, match=r"must hold settings\.json"):
        predict_images(pipeline, find_images([images]).images, tmp_path / "out")


# Sharing


def test_processes_share_the_images_and_the_last_leaves_all_in_one_file(pipeline, images, tmp_path):
    out, found = tmp_path / "out", find_images([images]).images
    (images / "1.png").write_bytes(b"junk")
    for rank, share in ((0, [0, 2, 4, 6]), (1, [3, 5])):
        predict_images(pipeline, found, out, rank=rank, world_size=2, table=True)
        assert [record["image"] for record in lines(out / f"findings-r0{rank}.jsonl")] == [png(i) for i in share]
    assert sorted(predicted(out)) == [png(index) for index in (0, 2, 3, 4, 5, 6)]
    assert [record["image"] for record in lines(out / "failed.jsonl")] == ["1.png"]
    assert len((out / "findings.csv").read_text().splitlines()) == 7


def test_one_of_two_is_stopped_and_the_next_run_takes_what_is_missing(pipeline, images, tmp_path):
    out, found = tmp_path / "out", find_images([images]).images
    predict_images(pipeline, found, out, rank=0, world_size=2)
    with pytest.raises(Killed):
        predict_images(pipeline, found, out, batch_size=1, rank=1, world_size=2, progress=stop_after(1))
    summary = predict_images(pipeline, found, out)
    assert (summary.skipped, summary.predicted) == (5, 2)
    assert sorted(predicted(out)) == [png(index) for index in range(COUNT)]
    assert sorted(path.name for path in out.glob("[!.]*")) == ["failed.jsonl", "findings.jsonl", "settings.json"]


def test_an_older_union_written_over_a_newer_one_is_made_good(pipeline, images, tmp_path, monkeypatch):
    """A process that reads the others' lines just before their last batch and writes just after their union."""
    out, found = tmp_path / "out", find_images([images]).images
    predict_images(pipeline, found, out, rank=0, world_size=2)
    predict_images(pipeline, found, out, rank=1, world_size=2)
    late = (out / "findings-r01.jsonl").read_text().splitlines(keepends=True)
    write = batch_prediction._write_union

    def raced(folder, *options):
        monkeypatch.setattr(batch_prediction, "_write_union", write)
        (out / "findings.jsonl").unlink()
        (out / "findings-r01.jsonl").write_text(late[0])
        names = write(folder, *options)
        (out / "findings-r01.jsonl").write_text("".join(late))
        return names

    monkeypatch.setattr(batch_prediction, "_write_union", raced)
    batch_prediction._unite(out, table=False)
    assert sorted(predicted(out)) == [png(index) for index in range(COUNT)]


def test_an_older_list_of_failures_written_over_a_newer_one_is_made_good(pipeline, images, tmp_path, monkeypatch):
    out, found = tmp_path / "out", find_images([images]).images
    (images / "1.png").write_bytes(b"junk")
    for rank in (0, 1):
        predict_images(pipeline, found, out, rank=rank, world_size=2)
    write = batch_prediction._write_union

    def raced(folder, *options):
        monkeypatch.setattr(batch_prediction, "_write_union", write)
        names = write(folder, *options)
        (out / "failed.jsonl").write_text("")
        return names

    monkeypatch.setattr(batch_prediction, "_write_union", raced)
    batch_prediction._unite(out, table=False)
    assert [record["image"] for record in lines(out / "failed.jsonl")] == ["1.png"]


# One run at a time


@pytest.fixture
def no_patience(monkeypatch):
    monkeypatch.setattr(batch_prediction, "_LOOK", 0)


@pytest.mark.parametrize(
    ("first", "second", "told"),
    [
        ((0, 1), (0, 1), r"\.lock is held"),
        ((0, 1), (1, 2), r"\.lock is held"),
        ((1, 2), (0, 1), r"\.lock-r01 is held"),
        ((1, 2), (1, 3), r"\.lock-r01 is held"),
        ((1, 2), (0, 2), None),
    ],
)
def test_a_second_run_is_refused_and_shares_of_one_run_are_not(
    pipeline, images, tmp_path, no_patience, first, second, told
):
    out, found = tmp_path / "out", find_images([images]).images
    summaries = []

    def meanwhile(done, _):
        rank, world_size = second
        if done and not summaries:
            summaries.append(predict_images(pipeline, found, out, rank=rank, world_size=world_size))

    rank, world_size = first
    if told is None:
        predict_images(pipeline, found, out, rank=rank, world_size=world_size, progress=meanwhile)
        assert sorted(predicted(out)) == [png(index) for index in range(COUNT)]
    else:
        with pytest.raises(BlockingIOError, match=told):
            predict_images(pipeline, found, out, rank=rank, world_size=world_size, progress=meanwhile)
        assert summaries == []


def test_a_run_that_ended_or_failed_leaves_the_folder_free(pipeline, images, tmp_path, no_patience):
    out, found = tmp_path / "out", find_images([images]).images
    with pytest.raises(Killed):
        predict_images(pipeline, found, out, batch_size=2, progress=stop_after(1))
    predict_images(pipeline, found, out)
    assert predict_images(pipeline, found, out).skipped == COUNT


# Arguments


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"outputs": ["pictures"]}, "`outputs` must be of overlays, maps, dicom, .*, got pictures"),
        ({"threshold": 1.5}, r"`threshold` must be in \[0, 1\], got 1.5"),
        ({"radiograph_check": "on"}, "`radiograph_check` must be one of warn, refuse, off, got 'on'"),
        ({"batch_size": 0}, "`batch_size` must be at least 1, got 0"),
        ({"workers": -1}, "`workers` must be at least 0, got -1"),
        ({"rank": 2, "world_size": 2}, r"`rank` must be in \[0, 2\), got 2"),
    ],
)
def test_arguments_out_of_range_are_named_before_anything_is_written(pipeline, images, tmp_path, options, told):
    with pytest.raises(ValueError, match=told):
        predict_images(pipeline, find_images([images]).images, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_images_of_one_name_are_refused(pipeline, images, tmp_path):
    found = find_images([images]).images
    with pytest.raises(ValueError, match=r"different names, got '0\.png' twice"):
        predict_images(pipeline, [*found, found[0]], tmp_path / "out")


# DICOM


def test_images_that_came_as_dicom_get_dicom_results(pipeline, images, image, tmp_path):
    pytest.importorskip("highdicom")
    write_dicom(images / "IM000001", image)
    out = tmp_path / "out"
    summary = predict_images(pipeline, find_images([images]).images, out, threshold=0.0, outputs=["dicom"])
    assert (summary.predicted, summary.failed) == (COUNT + 1, 0)
    kinds = sorted(path.name.removeprefix("IM000001.") for path in (out / "dicom").iterdir())  # and nothing unfinished
    assert kinds == ["overlay.dcm", "presentation.dcm", "probabilities.dcm", "report.dcm"]


def test_an_image_whose_header_lacks_what_a_report_needs_fails_alone(pipeline, images, image, tmp_path):
    pytest.importorskip("highdicom")
    write_dicom(images / "IM000001", image, StudyInstanceUID=None)
    out = tmp_path / "out"
    summary = predict_images(pipeline, find_images([images]).images, out, outputs=["dicom"])
    assert (summary.predicted, summary.failed) == (COUNT, 1)
    assert lines(out / "failed.jsonl")[0]["reason"].startswith("DICOM results: ")


def test_whatever_fails_in_dicom_results_fails_the_image_alone_but_a_full_disk_ends_the_run(
    pipeline, images, image, tmp_path, monkeypatch
):
    from clarity_hf.inference import dicom_inference

    pytest.importorskip("highdicom")
    write_dicom(images / "IM000001", image)
    found = find_images([images]).images

    def fails_with(error):
        def fail(*_, **__):
            raise error

        monkeypatch.setattr(dicom_inference, "write_dicom_results", fail)

    fails_with(AttributeError("PatientName Doe^Jane"))
    summary = predict_images(pipeline, found, tmp_path / "out", outputs=["dicom"])
    assert (summary.predicted, summary.failed) == (COUNT, 1)
    assert "Doe" not in (tmp_path / "out" / "failed.jsonl").read_text()
    fails_with(OSError("no space left"))
    with pytest.raises(OSError, match="no space left"):
        predict_images(pipeline, found, tmp_path / "out", outputs=["dicom"])


def test_dicom_results_are_the_same_bytes_whatever_the_batch(pipeline, image, tmp_path):
    pytest.importorskip("highdicom")
    (tmp_path / "images").mkdir()
    for index in range(5):
        write_dicom(tmp_path / "images" / str(index), np.roll(image, 11 * index, axis=1))
    found = find_images([tmp_path / "images"]).images
    written = []
    for batch_size in (1, 2, 5):
        out = tmp_path / f"out{batch_size}"
        predict_images(
            pipeline, found, out, threshold=0.0, outputs=["dicom"], dicom_kinds=KINDS, batch_size=batch_size
        )
        written.append({path.name: path.read_bytes() for path in (out / "dicom").iterdir()})
    assert len(written[0]) == 5 * len(KINDS)
    assert written[0] == written[1] == written[2]


def test_other_settings_are_other_instances(pipeline, image, tmp_path):
    pydicom = pytest.importorskip("pydicom")
    write_dicom(tmp_path / "image", image)
    found = find_images([tmp_path / "image"]).images
    uids = set()
    for number, threshold in enumerate((0.0, 0.01)):  # all findings are present with both
        out = tmp_path / f"out{number}"
        predict_images(pipeline, found, out, threshold=threshold, outputs=["dicom"], dicom_kinds=["overlay"])
        uids.add(pydicom.dcmread(out / "dicom" / "image.overlay.dcm").SOPInstanceUID)
    assert len(uids) == 2


def test_what_the_radiograph_check_says_stands_in_dicom_results(pipeline, tmp_path):
    pydicom = pytest.importorskip("pydicom")
    phantom = draw_phantom(0, size=128).image
    write_dicom(tmp_path / "dark", 255 - phantom)
    found = find_images([tmp_path / "dark"]).images
    predict_images(pipeline, found, tmp_path / "warned", threshold=0.0, outputs=["dicom"])
    written = {path.name: pydicom.dcmread(path).to_json() for path in (tmp_path / "warned" / "dicom").iterdir()}
    assert len(written) == 4
    for name, text in written.items():
        assert "this looks like an image with dark bones" in text, name
    summary = predict_images(pipeline, found, tmp_path / "refused", outputs=["dicom"], radiograph_check="refuse")
    assert (summary.predicted, summary.failed) == (0, 1)
    (report,) = (tmp_path / "refused" / "dicom").iterdir()
    assert report.name == "dark.report.dcm"
    assert "The image was not analysed: `image` must be a whole frontal" in pydicom.dcmread(report).to_json()


def test_a_lateral_view_gets_a_report_that_it_was_not_analysed(pipeline, image, tmp_path):
    pydicom = pytest.importorskip("pydicom")
    write_dicom(tmp_path / "side", image, ViewPosition="LL")
    found = find_images([tmp_path / "side"]).images
    summary = predict_images(pipeline, found, tmp_path / "out", outputs=["dicom"])
    assert summary.failed == 1
    report = pydicom.dcmread(tmp_path / "out" / "dicom" / "side.report.dcm")
    assert "got a lateral view" in report.to_json()


def test_lines_and_tables_say_whose_they_are_when_asked(pipeline, images, image, tmp_path):
    pydicom = pytest.importorskip("pydicom")
    write_dicom(images / "IM000001", image, AccessionNumber="A7")
    header = pydicom.dcmread(images / "IM000001", stop_before_pixels=True)
    found = find_images([images]).images
    for name, outputs in (("asked", ["identifiers"]), ("not", [])):
        predict_images(pipeline, found, tmp_path / name, outputs=outputs, table=True, threshold=0.0)
    wanted = [header.StudyInstanceUID, header.SeriesInstanceUID, header.SOPInstanceUID, "A7"]
    told = {line["image"]: line for line in lines(tmp_path / "asked" / "findings.jsonl")}
    assert [told["IM000001"][name] for name in ("study", "series", "sop", "accession")] == wanted
    assert "study" not in told["0.png"]
    for table in ("findings", "boxes"):
        rows = (tmp_path / "asked" / f"{table}.csv").read_text().splitlines()
        assert rows[0].endswith(",study,series,sop,accession")
        assert {row.startswith("IM000001") for row in rows if row.endswith(",".join(wanted))} == {True}
    for path in (tmp_path / "not").glob("*.[cj]s*"):
        assert header.StudyInstanceUID not in path.read_text(), path.name
    assert not (tmp_path / "asked" / "dicom").exists()


def test_images_that_came_as_dicom_get_fhir(pipeline, images, image, tmp_path):
    pytest.importorskip("fhir.resources")
    write_dicom(images / "IM000001", image)
    predict_images(
        pipeline, find_images([images]).images, tmp_path / "out", threshold=0.0, outputs=["fhir", "fhir_r5"]
    )
    kinds = set()
    for output in ("fhir", "fhir_r5"):
        (path,) = (tmp_path / "out" / output).iterdir()
        kinds |= {entry["resource"]["resourceType"] for entry in json.loads(path.read_text())["entry"]}
    assert kinds == {"DiagnosticReport", "Observation", "ImagingSelection"}


def write_dicom(path, pixels, **changes):
    """A CR image, PA, with every attribute that a report copies."""
    import pydicom
    from pydicom.uid import ComputedRadiographyImageStorage, ExplicitVRLittleEndian, generate_uid

    dataset = pydicom.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = ComputedRadiographyImageStorage
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = generate_uid(), generate_uid()
    dataset.PatientID, dataset.PatientName, dataset.PatientBirthDate, dataset.PatientSex = "1", "A", "", ""
    dataset.StudyID, dataset.AccessionNumber, dataset.ReferringPhysicianName = "1", "", ""
    dataset.StudyDate, dataset.StudyTime = "20200101", "120000"
    dataset.SeriesNumber, dataset.InstanceNumber = 1, 1
    dataset.Modality, dataset.BodyPartExamined, dataset.ViewPosition = "CR", "CHEST", "PA"
    dataset.PatientOrientation = ["L", "F"]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 8, 8, 7, 0
    dataset.PixelData = pixels.tobytes()
    for name, value in changes.items():
        delattr(dataset, name) if value is None else setattr(dataset, name, value)
    dataset.save_as(path, enforce_file_format=True)
