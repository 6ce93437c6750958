# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""`clarity-hf predict` as processes: killed and resumed, shared under a launcher, and two at once on one folder.

The same within one process, and fast, is in test_batch.py.
"""

import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

from clarity_hf.cli import main

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not hasattr(os, "fork"), reason="kills as POSIX systems do")]

COUNT = 60
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
ENVIRONMENT = {name: value for name, value in ENVIRONMENT.items() if name not in ("RANK", "WORLD_SIZE")}
TWO_PROCESSES = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
ACCELERATE = ("-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2")


def write_images(folder, image, count, sides=(1, 1)):
    """Different images; those of odd numbers may be larger."""
    folder.mkdir()
    for index in range(count):
        drawn = np.roll(image, 3 * index, axis=1)
        Image.fromarray(np.kron(drawn, np.ones((sides[index % 2],) * 2, dtype=np.uint8))).save(
            folder / f"{index:02d}.png"
        )
    return folder


def arguments(images, checkpoint, *more):
    return [str(images), "--model", str(checkpoint), "--device", "cpu", "--overlays", "--csv", *more]


@pytest.fixture(scope="module")
def images(image, tmp_path_factory):
    return write_images(tmp_path_factory.mktemp("data") / "images", image, COUNT)


@pytest.fixture(scope="module")
def whole(images, tiny_checkpoint, tmp_path_factory):
    """Folder of a run that nothing interrupts."""
    folder = tmp_path_factory.mktemp("whole") / "out"
    assert main(["predict", *arguments(images, tiny_checkpoint), "--output-dir", str(folder)]) == 0
    return folder


def records(folder):
    """What `findings.jsonl` says of each image, which is there once."""
    found = [json.loads(line) for line in (folder / "findings.jsonl").read_text().splitlines()]
    by_name = {record["image"]: record for record in found}
    assert len(by_name) == len(found)
    return by_name


def assert_same_results(folder, whole):
    """Same images, scores to 1e-5, boxes to a pixel, a picture each, tables of all, and nothing unfinished."""
    mine, theirs = records(folder), records(whole)
    assert mine.keys() == theirs.keys()
    for name in mine:
        assert {key: mine[name][key] for key in ("size", "bytes", "modified")} == {
            key: theirs[name][key] for key in ("size", "bytes", "modified")
        }
        one, other = ({row["label"]: row for row in found[name]["findings"]} for found in (mine, theirs))
        assert one.keys() == other.keys()
        for label in one:
            assert one[label]["score"] == pytest.approx(other[label]["score"], abs=1e-5)
            assert one[label]["present"] == other[label]["present"]
            assert len(one[label]["boxes"]) == len(other[label]["boxes"])
            for box, reference in zip(one[label]["boxes"], other[label]["boxes"], strict=True):
                assert box == pytest.approx(reference, abs=1)
    assert {path.name for path in (folder / "overlays").iterdir()} == {f"{name}.png" for name in mine}
    rows = (folder / "findings.csv").read_text().splitlines()[1:]
    assert sorted(row.split(",")[0] for row in rows) == sorted(mine)
    assert list(folder.rglob(".unfinished-*")) == []


def lines_in(folder):
    return sum(path.read_bytes().count(b"\n") for path in folder.glob("findings*.jsonl"))


class Run:
    """A command in the background; leaves no process behind."""

    def __init__(self, *command, log):
        self.log = log
        with log.open("a") as output:
            self.process = subprocess.Popen(
                [sys.executable, *map(str, command)], env=ENVIRONMENT, stdout=output, stderr=output
            )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in [*self.descendants(), self.process]:
            process.kill()
        self.process.wait()

    def descendants(self):
        try:
            return psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    def wait_for(self, condition, seconds=240.0):
        end = time.monotonic() + seconds
        while not condition():
            assert self.process.poll() is None, f"ended with {self.process.returncode}: {self.log.read_text()[-3000:]}"
            assert time.monotonic() < end, self.log.read_text()[-3000:]
            time.sleep(0.002)

    def end(self):
        return self.process.wait(280)


def predict(images, checkpoint, out, *more):
    return ("-m", "clarity_hf", "predict", *arguments(images, checkpoint), "--output-dir", out, *more)


@pytest.mark.timeout(900)
@pytest.mark.parametrize(("processes", "count"), [(1, 6), (2, 8)])
def test_a_run_that_is_killed_after_any_file_operation_resumes(image, tiny_checkpoint, tmp_path, processes, count):
    """Killed before its first operation, resumed and killed before its second, and so on until it ends."""
    images, out = write_images(tmp_path / "images", image, count), tmp_path / "out"
    options = arguments(images, tiny_checkpoint, "--batch-size", "2", "--workers", "0")
    script = Path(__file__).with_name("killed_predict.py")
    run = subprocess.run(
        [sys.executable, script, out, str(processes), *options],
        env=ENVIRONMENT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    seen = json.loads(run.stdout)
    killed = [each for each in seen if -signal.SIGKILL in each["ended"]]
    assert len(killed) > 15
    assert all(code in (0, -signal.SIGKILL) for each in seen for code in each["ended"]), (
        tmp_path / "output.txt"
    ).read_text()
    for before, after in itertools.pairwise(seen):
        assert set(before["images"]) <= set(after["images"])  # what was done stays done
    assert [each["bare"] for each in seen] == [[]] * len(seen)  # a line only once its picture is there
    assert len(killed[-1]["images"]) > 0
    if processes > 1:  # the next run by one process tidies
        assert main(["predict", *options, "--output-dir", str(out)]) == 0
    whole = tmp_path / "whole"
    assert main(["predict", *options, "--output-dir", str(whole)]) == 0
    assert_same_results(out, whole)


@pytest.mark.timeout(900)
def test_a_second_run_is_refused_until_the_first_is_killed(images, whole, tiny_checkpoint, tmp_path):
    out, log = tmp_path / "out", tmp_path / "log.txt"
    command = predict(images, tiny_checkpoint, out, "--batch-size", "1")
    with Run(*command, log=log) as first:
        first.wait_for(lambda: lines_in(out) >= 3)
        os.kill(first.process.pid, signal.SIGSTOP)  # it holds the folder for as long as the second takes to start
        second = subprocess.run(
            [sys.executable, *map(str, command)], env=ENVIRONMENT, capture_output=True, text=True, check=False
        )
        before = lines_in(out)
        os.kill(first.process.pid, signal.SIGKILL)
        assert first.end() == -signal.SIGKILL
    assert second.returncode == 1
    assert "Another run is writing" in second.stderr
    assert "Traceback" not in second.stderr
    assert 3 <= before < COUNT
    with Run(*command, log=log) as third:
        assert third.end() == 0, log.read_text()[-3000:]
    assert f"{COUNT - before} images predicted, {before} done before, 0 failed" in log.read_text()
    assert_same_results(out, whole)


@pytest.mark.timeout(900)
def test_two_processes_of_which_one_is_killed_resume_by_the_same_command(images, whole, tiny_checkpoint, tmp_path):
    out, log = tmp_path / "out", tmp_path / "log.txt"
    command = (*TWO_PROCESSES, *predict(images, tiny_checkpoint, out, "--batch-size", "1"))

    def process_of_rank(run, rank):
        return next(each for each in run.descendants() if each.environ().get("RANK") == str(rank))

    with Run(*command, log=log) as first:
        first.wait_for(lambda: all((out / f"findings-r0{rank}.jsonl").exists() for rank in (0, 1)))
        first.wait_for(lambda: (out / "findings-r01.jsonl").read_bytes().count(b"\n") >= 3)
        process_of_rank(first, 1).kill()
        assert first.end() == 1
    assert 3 <= lines_in(out) < COUNT
    with Run(*command, log=log) as second:
        assert second.end() == 0, log.read_text()[-3000:]
    assert f"{COUNT} images" not in log.read_text()  # nothing twice: the sum of both runs is COUNT
    assert_same_results(out, whole)


@pytest.mark.timeout(900)
def test_a_bad_image_of_one_process_does_not_stop_the_other(image, tiny_checkpoint, tmp_path):
    """A launcher stops the rest where one process fails: the first, with the bad image, has small images only."""
    images, out, log = (
        write_images(tmp_path / "images", image, 24, sides=(1, 24)),
        tmp_path / "out",
        tmp_path / "log.txt",
    )
    (images / "02.png").write_bytes(b"junk")
    with Run(*TWO_PROCESSES, *predict(images, tiny_checkpoint, out, "--batch-size", "1"), log=log) as run:
        assert run.end() == 1  # the launcher's status for any other than 0
    assert "23 images predicted, 0 done before, 1 failed" in log.read_text()
    assert len(records(out)) == 23
    assert [json.loads(line)["image"] for line in (out / "failed.jsonl").read_text().splitlines()] == ["02.png"]
    assert len((out / "findings.csv").read_text().splitlines()) == 24


def free_port():
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


def test_accelerate_shares_the_images_over_its_processes(images, whole, tiny_checkpoint, tmp_path):
    """`--multi_gpu` starts processes also where there is no GPU; without it they are one."""
    out, log = tmp_path / "out", tmp_path / "log.txt"
    options = ("--num_machines", "1", "--main_process_port", "0")
    with Run(*ACCELERATE, *options, *predict(images, tiny_checkpoint, out), log=log) as run:
        assert run.end() == 0, log.read_text()[-3000:]
    assert f"{COUNT} images predicted, 0 done before, 0 failed" in log.read_text()
    shares = [(out / f"findings-r0{rank}.jsonl").read_bytes().count(b"\n") for rank in (0, 1)]
    assert shares == [COUNT // 2] * 2
    assert_same_results(out, whole)


def test_accelerate_shares_the_images_over_machines(images, whole, tiny_checkpoint, tmp_path):
    """Two launchers of one process each, which meet at an address, as on two machines."""
    out, port = tmp_path / "out", free_port()
    machines = ("--num_machines", "2", "--main_process_ip", "127.0.0.1", "--main_process_port", port)
    logs = [tmp_path / f"log-{rank}.txt" for rank in (0, 1)]
    command = predict(images, tiny_checkpoint, out)
    with (
        Run(*ACCELERATE, *machines, "--machine_rank", 0, *command, log=logs[0]) as first,
        Run(*ACCELERATE, *machines, "--machine_rank", 1, *command, log=logs[1]) as second,
    ):
        assert first.end() == 0, logs[0].read_text()[-3000:]
        assert second.end() == 0, logs[1].read_text()[-3000:]
    assert f"{COUNT} images predicted, 0 done before, 0 failed" in logs[0].read_text()
    assert "images predicted" not in logs[1].read_text()
    assert_same_results(out, whole)
