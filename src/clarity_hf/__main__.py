# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""The command line as `python -m clarity_hf` and under `accelerate launch -m clarity_hf`."""

import sys

from clarity_hf.cli import main

if __name__ == "__main__":
    sys.exit(main())
