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

import argparse
import sys

from transformers.utils import logging

from clarity_hf.deployment import publish


def main() -> int:
    """Publish and say what went; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="packaged name or folder")
    parser.add_argument("destination", help="folder, or Hub id owner/name")
    parser.add_argument("--half", action="store_true", help="weights in fp16, at half the size")
    parser.add_argument("--private", action="store_true", help="a private repository of the Hub")
    arguments = parser.parse_args()
    logging.disable_progress_bar()
    try:
        publication = publish(arguments.model, arguments.destination, half=arguments.half, private=arguments.private)
    except (OSError, TypeError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for name, size in sorted(publication.files.items(), key=lambda file: -file[1]):
        print(f"{size / 1e3:9,.0f} kB  {name}")
    print(f"left out: {', '.join(publication.left_out) or 'nothing'}")
    print(f"published {publication.place}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
