# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Publish a checkpoint with its card to a local folder or to the Hub, safetensors and flat code only.

    python examples/publish.py clarity-s16-224 ./clarity-s16-224 --half
    python examples/publish.py runs/nih OWNER/NAME --half --private

A destination `owner/name` that is no path here is on the Hub: log in with `hf auth login` before. Expected output: the
files with their sizes, what was left out, and the place:

       44,968 kB  model.safetensors
            2 kB  config.json
    ...
    left out: checkpoint-500/ (9 files), run.json, training_args.bin
    published ./clarity-s16-224
"""

import sys

from clarity_hf.cli import main as clarity_hf


def main() -> int:
    """Run `clarity-hf publish` with the words of this command; returns the exit status."""
    return clarity_hf(["publish", *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())
