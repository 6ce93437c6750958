# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""The programs of this folder import each other as scripts do, and hold no tests."""

import sys
from pathlib import Path

collect_ignore = ["fuzz_inputs.py", "fuzz_readers.py", "fuzz_targets.py"]
sys.path.insert(0, str(Path(__file__).parent))
