# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""The command line: exit statuses, `predict` over good and bad images and processes, reports, calibrations."""

import errno
import json
import os
import signal
import subprocess
import sys

import pytest
from PIL import Image

from clarity_hf import ChestXrayLocalizationPipeline
from clarity_hf.cli import main


@pytest.fixture
def call(tiny_checkpoint, image, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "images").mkdir()
    for index in range(3):
        Image.fromarray(image).save(f"images/{index}.png")

    def predict(*arguments):
        return main(["predict", "images", "--model", str(tiny_checkpoint), "--device", "cpu", *arguments])

    return predict


def predicted(folder):
    return [json.loads(line)["image"] for line in (folder / "findings.jsonl").read_text().splitlines()]


def test_all_done_is_0_some_failed_is_3_and_none_is_1(call, tmp_path, capsys):
    assert call("--output-dir", "out", "--csv") == 0
    assert predicted(tmp_path / "out") == ["0.png", "1.png", "2.png"]
    (tmp_path / "images" / "3.png").write_bytes(b"junk")
    assert call("--output-dir", "out", "--csv") == 3
    assert "0 images predicted, 3 done before, 1 failed" in capsys.readouterr().out
    for index in range(3):
        (tmp_path / "images" / f"{index}.png").write_bytes(b"junk")
    assert call("--output-dir", "other") == 1


def test_a_folder_that_cannot_be_listed_is_reported_with_status_3(call, tmp_path, monkeypatch, capsys):
    closed = tmp_path / "images" / "closed\x1b[2J"
    closed.mkdir()
    scan = os.scandir

    def scandir(path):
        if str(path) == os.path.join("images", closed.name):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert call("-r", "--output-dir", "out") == 3
    reported = capsys.readouterr().err
    assert "warning: images may be missing: images/closed\\x1b[2J cannot be listed (Permission denied)" in reported
    assert len(predicted(tmp_path / "out")) == 3


def test_subfolders_that_are_not_searched_are_reported(call, tmp_path, capsys):
    (tmp_path / "images" / "more").mkdir()
    assert call() == 0
    assert "not searched: 1 subfolders (use -r)" in capsys.readouterr().err


def test_too_little_memory_is_reported_with_status_1(call, monkeypatch, capsys):
    def large(*_, **__):
        raise MemoryError

    monkeypatch.setattr(ChestXrayLocalizationPipeline, "forward", large)
    assert call() == 1
    assert "error: A batch of 3 images does not fit into memory" in capsys.readouterr().err


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
@pytest.mark.parametrize("lost", [False, True])
def test_a_signal_reports_progress_and_how_to_resume(call, tmp_path, monkeypatch, capsys, number, status, lost):
    whole, batches = ChestXrayLocalizationPipeline.forward, []

    def forward(self, *arguments):
        batches.append(1)
        if len(batches) == 2:
            try:
                signal.raise_signal(number)
            except BaseException:
                if not lost:  # as an error in the callback of a library is
                    raise
        return whole(self, *arguments)

    monkeypatch.setattr(ChestXrayLocalizationPipeline, "forward", forward)
    before = signal.getsignal(number)
    assert call("--output-dir", "out", "--batch-size", "1") == status
    done = 2 if lost else 1
    message = (
        f"stopped by {number.name}: {done} of 3 images are done, 0 of them failed, and are in out/findings.jsonl. "
    )
    assert message + f"Start the same command again to predict the other {3 - done}." in capsys.readouterr().err
    assert signal.getsignal(number) == before
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    assert call("--output-dir", "out") == 0
    assert len(predicted(tmp_path / "out")) == 3


def test_a_signal_before_the_first_image_says_so(call, monkeypatch, capsys):
    module = sys.modules["clarity_hf.cli.predict"]  # the package has the command by that name
    monkeypatch.setattr(module, "load_pipeline", lambda *_: signal.raise_signal(signal.SIGTERM))
    assert call() == 143
    assert "stopped by SIGTERM before the first image. Start the same command again." in capsys.readouterr().err


def test_processes_are_numbered_by_the_environment(call, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in "01":
        monkeypatch.setenv("RANK", rank)
        assert call() == 0
    assert sorted(predicted(tmp_path / "predictions")) == ["0.png", "1.png", "2.png"]


@pytest.mark.parametrize("words", [["predict"], ["nothing"], ["predict", "nowhere.png"], ["predict", "--batch-size"]])
def test_wrong_arguments_are_1(words, capsys):
    assert main(words) == 1
    assert "rror" in capsys.readouterr().err


def test_another_threshold_in_the_same_folder_is_refused(call, capsys):
    assert call() == 0
    assert call("--threshold", "0.25") == 1
    assert "score_thresholds" in capsys.readouterr().err


def test_accelerate_launch_starts_predict(call, tiny_checkpoint, tmp_path):
    """One process, as on a CPU; several are in tests/inference/test_predict_processes.py."""
    launch = (sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "1")
    command = [*launch, "-m", "clarity_hf", "predict", "images", "--model", str(tiny_checkpoint), "--device", "cpu"]
    environment = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE")}
    environment |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith("3 images predicted, 0 done before, 0 failed; wrote predictions/findings.jsonl.")
    assert predicted(tmp_path / "predictions") == ["0.png", "1.png", "2.png"]


def test_a_report_has_the_command_that_reproduces_it_without_folders(tiny_checkpoint, tmp_path, capsys):
    folder = tmp_path / "report"
    options = ["--images", "4", "--repeats", "10", "--min-positives", "1", "--no-cases", "--device", "cpu"]
    assert main(["evaluate", str(tiny_checkpoint), "phantom", *options, "--output-dir", str(folder)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"wrote {folder / 'report.html'}"
    text = (folder / "report.json").read_text(encoding="utf-8")
    assert json.loads(text)["about"]["command"] == (
        "clarity-hf evaluate tiny phantom --output-dir report --images 4 --min-positives 1 --repeats 10 --no-cases "
        "--device cpu"
    )
    for written in (text, (folder / "report.html").read_text(encoding="utf-8")):
        assert str(tmp_path) not in written
        assert str(tiny_checkpoint.parent) not in written


def test_a_table_of_images_is_named_without_its_folder(tiny_checkpoint, image, tmp_path, capsys):
    private = tmp_path / "someone"
    private.mkdir()
    rows = ["image,patient,Edema"]
    for index in range(6):
        Image.fromarray(image).save(private / f"{index}.png")
        rows.append(f"{index}.png,p{index},{index % 2}")
    (private / "images.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    options = ["--split", "train", "--repeats", "2", "--min-positives", "1", "--no-cases", "--device", "cpu"]
    words = [str(tiny_checkpoint), str(private / "images.csv"), *options, "--output-dir", str(tmp_path / "report")]
    assert main(["evaluate", *words]) == 0, capsys.readouterr().err
    text = (tmp_path / "report" / "report.json").read_text(encoding="utf-8")
    assert json.loads(text)["about"]["data"] == "images.csv"
    assert "someone" not in text


def test_a_calibration_prints_how_well_it_works_on_unseen_images(tiny_checkpoint, tmp_path, capsys):
    folder = tmp_path / "calibrated"
    words = [str(tiny_checkpoint), "phantom", "--images", "24", "--output-dir", str(folder), "--device", "cpu"]
    assert main(["calibrate", *words]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0] == "| finding | positives | slope | intercept | score threshold | boxes | map threshold |"
    assert out[17].startswith("On the half of the patients not used for the fit, 5 splits: 24 images, ")
    assert [line for line in out if line.startswith("| findings flagged on a normal image | ")]
    assert out[-1] == f"saved {folder}: calibration on 24 validation images"
