# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""The programs of this folder, whole; each kind of fault once, and fast, is in tests/training/test_checkpoints.py,
tests/training/test_processes.py and tests/inference/test_batch.py."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(not hasattr(os, "fork"), reason="kills as POSIX systems do"),
]
HERE = Path(__file__).parent


def run(program, *words):
    done = subprocess.run(
        [sys.executable, str(HERE / program), *words], capture_output=True, text=True, check=False, timeout=1700
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-3000:]
    return done.stdout


def test_a_training_killed_twenty_times_ends_as_one_that_was_not():
    assert "| 20 | 20 |" in run("kill_training.py", "--kills", "20")


def test_a_prediction_killed_twenty_times_gives_each_image_once():
    assert "| 20 | 20 | 0 | 0 | 0 |" in run("kill_predict.py", "--kills", "20")


@pytest.mark.parametrize("fault", ["disk", "file", "checkpoint", "best", "worker", "process"])
def test_a_training_survives(fault):
    if fault == "disk" and (not hasattr(os, "geteuid") or os.geteuid() != 0):
        pytest.skip("mounts a small disk, which only root may")
    assert run("break_training.py", "--faults", fault).splitlines()[-2].endswith("| 0 |")
