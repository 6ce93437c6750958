# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""No network without being asked: in a process where every connection is refused, all is done and none is tried."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent

ASKING = f"""
import sys, urllib.request
sys.path.insert(0, {str(HERE)!r})
import offline_run
sys.addaudithook(offline_run.refuse)
try:
    urllib.request.urlopen("http://example.org")
except OSError:
    pass
print(offline_run.REFUSED)
"""

FEW = [
    *("our class", "AutoModelForImageClassification", "AutoImageProcessor", "pipeline by name", "pipeline by default"),
    *("help", "phantom", "predict"),
]


def run_online(words, cache):
    """A process of a user who has switched nothing off, with a cache of the Hub that holds nothing."""
    switched = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_DISABLE_TELEMETRY", "HF_DATASETS_OFFLINE")
    environment = {name: value for name, value in os.environ.items() if name not in switched}
    environment |= {"OMP_NUM_THREADS": "1", "HF_HOME": str(cache)}
    run = subprocess.run([sys.executable, *words], capture_output=True, text=True, env=environment)
    assert run.returncode == 0, run.stderr[-3000:]
    return run


def check_steps(checkpoint, folder, names=()):
    run = run_online([HERE / "offline_run.py", checkpoint, folder / "work", *names], folder / "cache")
    result = json.loads(run.stdout.splitlines()[-1])
    assert result["refused"] == []
    return result["done"], run.stderr[-3000:]


def test_loading_a_packaged_checkpoint_and_predicting_ask_for_no_network(tiny_checkpoint, tmp_path):
    done, said = check_steps(tiny_checkpoint, tmp_path, FEW)
    assert done == FEW, said


@pytest.mark.slow
def test_nothing_else_asks_for_a_network(tiny_checkpoint, tmp_path):
    for library in ("matplotlib", "onnxscript", "openvino"):
        pytest.importorskip(library)
    done, said = check_steps(tiny_checkpoint, tmp_path)
    assert {"evaluate", "export torch", "export onnx", "export openvino", "publish", "train"} <= {*done}, said
    assert len(done) == 18, said


def test_the_check_sees_who_asks_for_a_network(tmp_path):
    assert "socket.getaddrinfo" in run_online(["-c", ASKING], tmp_path).stdout
