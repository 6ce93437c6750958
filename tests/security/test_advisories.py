# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Dependencies: each floor has its reason in the docs, and pip-audit knows no vulnerability of what is installed."""

import configparser
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
USERS = ("report", "curves", "baselines", "dicom", "tiff", "export", "openvino", "demo")
"""Extras of those who use the package; the others are for those who work on it."""


def floors():
    """Floor by package, of what users install."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    extras = [setup["options.extras_require"].get(name, "") for name in USERS]
    lines = "\n".join([setup["options"]["install_requires"], *extras]).split()
    return {match[1]: match[2] for line in lines if (match := re.match(r"([\w-]+)>=([\d.]+)", line))}


def test_every_floor_has_its_reason_in_the_docs():
    page = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
    told = dict(re.findall(r"^\| ([\w-]+) \| ([\d.]+) \|", page, re.MULTILINE))
    assert told == floors()


@pytest.mark.slow
@pytest.mark.network
def test_pip_audit_reports_no_vulnerability():
    if shutil.which("pip-audit") is None:
        pytest.skip("pip-audit is not installed: pip install pip-audit")
    run = subprocess.run(["pip-audit", "--strict", "--skip-editable"], capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
