# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parent / "run_common_suites.py"
LEAST_PASSED = 100


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.timeout(1800)
def test_the_common_suites_of_transformers_pass_against_our_classes():
    run = subprocess.run([sys.executable, str(SCRIPT)], capture_output=True, text=True)
    summary = dict(re.findall(r"(\d+) (passed|failed|error)", run.stdout.strip().splitlines()[-1]))
    counts = {outcome: int(count) for count, outcome in summary.items()}
    assert run.returncode == 0, run.stdout[-5000:] + run.stderr[-2000:]
    assert counts.get("failed", 0) == counts.get("error", 0) == 0
    assert counts["passed"] >= LEAST_PASSED
