# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""A run under CI names its skips and fails on those that no committed reason covers."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

CONFTEST = Path(__file__).with_name("conftest.py").read_text(encoding="utf-8")


def run(folder, reason):
    tests = folder / "tests"
    tests.mkdir()
    (tests / "conftest.py").write_text(CONFTEST, encoding="utf-8")
    (tests / "allowed_skips.txt").write_text("# a comment\nno real images here\n", encoding="utf-8")
    body = f"import pytest\ndef test_it(): pytest.skip({reason!r})\ndef test_other(): pass\n"
    (tests / "test_one.py").write_text(body, encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tests)]
    return subprocess.run(command, cwd=folder, env=os.environ | {"CI": "true"}, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("reason", "status"), [("no Chromium here", 1), ("no real images here: get some", 0)]
)
def test_a_skip_without_a_committed_reason_fails_under_ci(tmp_path, reason, status):
    ended = run(tmp_path, reason)
    assert ended.returncode == status, ended.stdout
    assert ("test_one.py::test_it: no Chromium here" in ended.stdout) == bool(status)
