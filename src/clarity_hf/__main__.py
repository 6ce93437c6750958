# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""`python -m clarity_hf`, and what `accelerate launch -m clarity_hf` starts: the command line."""

import sys

from clarity_hf.cli import main

if __name__ == "__main__":
    sys.exit(main())
