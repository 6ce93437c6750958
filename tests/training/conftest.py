# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Scripts that the tests of this folder launch hold no tests and no examples."""

collect_ignore = ["killed_run.py", "sharded_run.py", "tiny_run.py", "tiny_vits.py"]
