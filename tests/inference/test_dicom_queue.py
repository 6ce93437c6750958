# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""The node's queue: what is acknowledged is kept, what is finished goes, nothing is done for ever."""

import os
import sqlite3
import stat

import pytest

from clarity_hf.inference.dicom_queue import KEPT_DAYS, MAX_ATTEMPTS, DicomQueue, FullQueueError


class Clock:
    def __init__(self):
        self.now = 1e9

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def queue(tmp_path, clock):
    opened = DicomQueue(tmp_path / "queue", "model", 1000, clock)
    yield opened
    opened.close()


def files(queue):
    return sorted(path.name for path in queue.folder.glob("*.dcm*"))


def test_an_image_is_kept_until_its_results_are_taken(queue):
    assert queue.receive("1.1", "1", b"image")
    image = queue.next_image(0)
    assert (image.file.read_bytes(), image.attempts) == (b"image", 1)
    queue.finish(image, [("2.1", b"report"), ("2.2", b"picture")], "done")
    assert queue.next_image(0) is None
    first, second = queue.due_results(10)
    assert (first.file.read_bytes(), second.file.read_bytes()) == (b"report", b"picture")
    assert not image.file.exists()
    queue.sent(first)
    assert queue.due_results(10) == [second]
    queue.sent(second)
    assert files(queue) == []
    assert queue.counts() == {"images": {"done": 1}, "outbox": {"sent": 2}}


def test_an_image_that_comes_again_is_taken_once_and_by_another_model_again(queue, clock):
    assert queue.receive("1.1", "1", b"image")
    assert not queue.receive("1.1", "1", b"image")
    assert len(files(queue)) == 1
    other = DicomQueue(queue.folder, "another model", 1000, clock)
    assert other.receive("1.1", "1", b"image")
    other.close()


def test_a_study_waits_until_nothing_more_comes(queue, clock):
    queue.receive("1.1", "1", b"a")
    clock.now += 9
    queue.receive("1.2", "1", b"b")
    queue.receive("9.1", "9", b"c")
    clock.now += 9
    assert queue.next_image(10) is None
    clock.now += 2
    assert queue.next_image(10).file.read_bytes() == b"a"


def test_more_than_the_folder_may_hold_is_not_taken(queue):
    queue.receive("1.1", "1", bytes(900))
    with pytest.raises(FullQueueError, match="`max_bytes` must leave room"):
        queue.receive("1.2", "1", bytes(101))
    image = queue.next_image(0)
    queue.finish(image, [("2.1", bytes(10))], "done")
    assert queue.bytes() == 10
    assert queue.receive("1.2", "1", bytes(101))


def test_an_image_that_ends_the_process_is_given_up_and_the_next_one_done(queue, clock):
    queue.receive("1.1", "1", b"poison")
    clock.now += 1
    queue.receive("1.2", "2", b"good")
    assert queue.next_image(0).file.read_bytes() == b"poison"
    good = queue.next_image(0)  # before the other is tried again
    assert good.file.read_bytes() == b"good"
    queue.finish(good, [], "done")
    for _ in range(MAX_ATTEMPTS - 1):
        assert queue.next_image(0).file.read_bytes() == b"poison"
    assert queue.next_image(0) is None
    assert queue.counts()["images"] == {"failed": 1, "done": 1}


def test_failures_not_caused_by_the_images_do_not_count(queue):
    queue.receive("1.1", "1", b"image")
    for _ in range(3 * MAX_ATTEMPTS):
        queue.put_back(queue.next_image(0))
    assert queue.next_image(0) is not None


def test_a_result_that_is_not_taken_waits(queue, clock):
    queue.receive("1.1", "1", b"image")
    queue.finish(queue.next_image(0), [("2.1", b"report")], "done")
    (result,) = queue.due_results(10)
    queue.retry(result, 60)
    assert queue.due_results(10) == []
    clock.now += 61
    (again,) = queue.due_results(10)
    assert (again.id, again.attempts) == (result.id, 1)


def test_a_killed_process_leaves_rows_that_are_resumed_and_files_that_are_removed(queue, clock):
    queue.receive("1.1", "1", b"image")
    queue.next_image(0)
    for name in ("0.dcm", ".unfinished-1"):  # written, and killed before the rows
        (queue.folder / name).write_bytes(b"x")
    queue.close()
    again = DicomQueue(queue.folder, "model", 1000, clock)
    assert len(files(again)) == 1
    assert not list(queue.folder.glob(".unfinished-*"))
    assert again.next_image(0).attempts == 2
    again.close()


def test_results_that_are_made_twice_wait_once(queue):
    queue.receive("1.1", "1", b"image")
    image = queue.next_image(0)
    queue.finish(image, [("2.1", b"report")], "done")
    queue.finish(image, [("2.1", b"report")], "done")
    assert len(queue.due_results(10)) == 1


def test_a_result_that_cannot_be_written_leaves_the_image(queue, monkeypatch):
    queue.receive("1.1", "1", b"image")
    image = queue.next_image(0)

    def full(*_):
        raise OSError("no space left")

    monkeypatch.setattr("clarity_hf.inference.dicom_queue.os.fsync", full)
    with pytest.raises(OSError, match="no space left"):
        queue.finish(image, [("2.1", b"report")], "done")
    monkeypatch.undo()
    assert image.file.exists()
    assert queue.counts() == {"images": {"received": 1}, "outbox": {}}


def test_old_rows_go_and_the_folder_is_the_owners_alone(queue, clock):
    queue.receive("1.1", "1", b"image")
    queue.finish(queue.next_image(0), [("2.1", b"report")], "done")
    queue.sent(queue.due_results(1)[0])
    assert stat.S_IMODE(os.stat(queue.folder).st_mode) == 0o700
    queue.close()
    clock.now += 86400 * (KEPT_DAYS + 1)
    again = DicomQueue(queue.folder, "model", 1000, clock)
    assert again.counts() == {"images": {}, "outbox": {}}
    again.close()


def test_rows_name_no_patient(queue):
    queue.receive("1.1", "1", b"image of Doe^Jane")
    queue.close()
    columns = sqlite3.connect(queue.folder / "queue.sqlite").execute("PRAGMA table_info(images)").fetchall()
    assert [name for _, name, *_ in columns] == [
        *("id", "uid", "maker", "study", "file", "bytes", "state", "reason", "attempts", "received")
    ]
