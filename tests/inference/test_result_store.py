# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""A folder of results: resumed after any end, shared by processes, held by one run at a time."""

import json
import os

import pytest
from PIL import Image

from clarity_hf.fingerprints import BOX_FIELDS
from clarity_hf.inference import batch, find_images, merge_shards, predict_images, result_store

COUNT = 7


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def predicted(folder):
    return [record["image"] for record in lines(folder / "findings.jsonl")]


def png(index):
    return f"{index}.png"


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


def test_a_stopped_run_is_resumed_and_repeats_nothing(pipeline, images, tmp_path, monkeypatch):
    out, found = tmp_path / "out", find_images([images]).images
    with pytest.raises(Killed):
        predict_images(pipeline, found, out, batch_size=2, workers=2, progress=stop_after(2))
    assert predicted(out) == [png(index) for index in range(4)]
    with (out / "findings.jsonl").open("a") as file:
        file.write('{"image": "4.png", "si')  # a torn line
    read = []
    whole = batch.read_image
    monkeypatch.setattr(batch, "read_image", lambda path, *_: read.append(path.name) or whole(path))
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
    with pytest.raises(ValueError, match=r"findings\.jsonl line 2"):
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
def test_a_line_that_is_not_a_record_is_an_error_that_names_it(pipeline, images, tmp_path, kind):
    out, found = tmp_path / "out", find_images([images]).images
    predict_images(pipeline, found[:1], out)
    first = (out / "findings.jsonl").read_bytes()
    (out / "findings.jsonl").write_bytes(first + LINES[kind] + first)
    with pytest.raises(
        ValueError, match=r"must hold complete records, got a broken one in findings\.jsonl line 2. Remove"
    ):
        predict_images(pipeline, found, out, table=True)


STATES = ["", "{", "[]", "null", "3", '"text"', "[" * 100_000, "\0", "{}"]


@pytest.mark.parametrize("text", STATES, ids=lambda text: text[:9])
def test_broken_settings_are_an_error_that_names_them(pipeline, images, tmp_path, text):
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
    ("change", "message"),
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
def test_a_folder_of_another_model_or_settings_is_refused_with_what_differs(
    pipeline, images, tmp_path, change, message
):
    out, found = tmp_path / "out", find_images([images]).images
    predict_images(pipeline, found[:2], out)
    before = (out / "findings.jsonl").read_bytes()
    if change == "weights":
        next(pipeline.model.parameters()).data.add_(1)
        change = {}
    elif change.keys() & set(BOX_FIELDS):
        pipeline.model.config.update(change)
        change = {}
    with pytest.raises(ValueError, match=message):
        predict_images(pipeline, found, out, **change)
    assert (out / "findings.jsonl").read_bytes() == before


def test_the_same_model_by_another_name_resumes(pipeline, images, tmp_path):
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


def test_a_changed_image_that_cannot_be_read_is_reported_and_its_earlier_result_stands(pipeline, images, tmp_path):
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


def test_what_killed_runs_did_not_finish_is_removed_by_a_run_of_one_process(pipeline, images, tmp_path):
    out, found = tmp_path / "out", find_images([images]).images
    predict_images(pipeline, found[:2], out, outputs=["overlays"])
    torn, folder, mine = out / "overlays" / ".unfinished-0a", out / ".unfinished-1b", out / ".mine.part"
    folder.mkdir()
    for path in (torn, folder / "x.dcm", mine):
        path.write_bytes(b"half a picture")
    predict_images(pipeline, found, out, outputs=["overlays"], rank=1, world_size=2)
    assert torn.exists()  # process 0 may be writing it
    predict_images(pipeline, found, out, outputs=["overlays"])
    assert not torn.exists()
    assert not folder.exists()
    assert mine.exists()


def with_old_keys(path):
    path.write_text(path.read_text().replace('{"image": ', '{"film": '))


def test_the_key_film_of_an_earlier_version_is_read_with_a_warning_and_rewritten(pipeline, images, tmp_path):
    out, found = tmp_path / "out", find_images([images]).images
    predict_images(pipeline, found, out)
    before = (out / "findings.jsonl").read_text()
    with_old_keys(out / "findings.jsonl")
    with pytest.warns(DeprecationWarning, match="findings.jsonl has the deprecated key `film`"):
        assert predict_images(pipeline, found, out, table=True).skipped == COUNT
    assert (out / "findings.jsonl").read_text() == before


@pytest.mark.filterwarnings("ignore:.*deprecated key")
def test_shards_of_an_earlier_version_are_merged(pipeline, images, tmp_path):
    out, found = tmp_path / "out", find_images([images]).images
    (images / "1.png").write_bytes(b"junk")
    for rank in (0, 1):
        predict_images(pipeline, found, out, rank=rank, world_size=2)
    for path in (*out.glob("findings*.jsonl"), out / "failed-r01.jsonl"):
        with_old_keys(path)
    merge_shards(out)
    assert sorted(predicted(out)) == [png(index) for index in (0, 2, 3, 4, 5, 6)]
    assert [record["image"] for record in lines(out / "failed.jsonl")] == ["1.png"]


def test_a_setting_newer_than_the_folder_counts_as_its_default(pipeline, images, tmp_path):
    out, found = tmp_path / "out", find_images([images]).images
    predict_images(pipeline, found[:2], out)
    settings = json.loads((out / "settings.json").read_text())
    del settings["config"]["hidden_act"]
    (out / "settings.json").write_text(json.dumps(settings))
    assert predict_images(pipeline, found, out).skipped == 2
    del settings["config"]["hidden_size"]  # of which this model does not have the default
    (out / "settings.json").write_text(json.dumps(settings))
    with pytest.raises(ValueError, match=r"config\.hidden_size \d+ there"):
        predict_images(pipeline, found, out)


def test_a_score_for_boxes_is_a_setting_only_where_it_is_one(pipeline, images, tmp_path):
    out, found = tmp_path / "out", find_images([images]).images
    predict_images(pipeline, found[:2], out)
    settings = json.loads((out / "settings.json").read_text())
    assert "box_score_thresholds" not in settings  # as in folders of earlier versions, which resume
    pipeline.model.config.box_score_thresholds = 0.9
    with pytest.raises(ValueError, match=r"box_score_thresholds null there, \[0\.9"):
        predict_images(pipeline, found, out)


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


def test_shards_are_left_to_the_caller_to_merge_where_asked(pipeline, images, tmp_path):
    out, found = tmp_path / "out", find_images([images]).images
    for rank in (0, 1):
        predict_images(pipeline, found, out, rank=rank, world_size=2, merge=False)
    assert not (out / "findings.jsonl").exists()
    merge_shards(out, table=True)
    assert sorted(predicted(out)) == [png(index) for index in range(COUNT)]
    assert len((out / "findings.csv").read_text().splitlines()) == COUNT + 1


def test_a_merge_that_was_killed_before_the_shards_were_removed_counts_no_image_twice(pipeline, images, tmp_path):
    out, found = tmp_path / "out", find_images([images]).images
    for rank in (0, 1):
        predict_images(pipeline, found, out, rank=rank, world_size=2)
    for _ in range(2):
        merge_shards(out, remove=False)
        assert sorted(predicted(out)) == [png(index) for index in range(COUNT)]
    merge_shards(out, remove=True)
    assert list(out.glob("*-r*.jsonl")) == []
    assert sorted(predicted(out)) == [png(index) for index in range(COUNT)]


# One run at a time


@pytest.fixture
def no_patience(monkeypatch):
    monkeypatch.setattr(result_store, "_PATIENCE", 0)


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ((0, 1), (0, 1), r"\.lock is held"),
        ((0, 1), (1, 2), r"\.lock is held"),
        ((1, 2), (0, 1), r"\.lock-r01 is held"),
        ((1, 2), (1, 3), r"\.lock-r01 is held"),
        ((1, 2), (0, 2), None),
    ],
)
def test_a_second_run_is_refused_and_shares_of_one_run_are_not(
    pipeline, images, tmp_path, no_patience, first, second, message
):
    out, found = tmp_path / "out", find_images([images]).images
    summaries = []

    def meanwhile(done, _):
        rank, world_size = second
        if done and not summaries:
            summaries.append(predict_images(pipeline, found, out, rank=rank, world_size=world_size))

    rank, world_size = first
    if message is None:
        predict_images(pipeline, found, out, rank=rank, world_size=world_size, progress=meanwhile)
        assert sorted(predicted(out)) == [png(index) for index in range(COUNT)]
    else:
        with pytest.raises(BlockingIOError, match=message):
            predict_images(pipeline, found, out, rank=rank, world_size=world_size, progress=meanwhile)
        assert summaries == []


def test_a_run_that_ended_or_failed_leaves_the_folder_free(pipeline, images, tmp_path, no_patience):
    out, found = tmp_path / "out", find_images([images]).images
    with pytest.raises(Killed):
        predict_images(pipeline, found, out, batch_size=2, progress=stop_after(1))
    predict_images(pipeline, found, out)
    assert predict_images(pipeline, found, out).skipped == COUNT
