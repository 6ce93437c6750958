# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""The programs of this folder fork, import each other as scripts do, and hold no tests."""

collect_ignore = ["break_training.py", "forks.py", "kill_predict.py", "kill_training.py"]
