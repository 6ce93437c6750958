# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""`clarity-hf publish`: write a checkpoint and its card to a folder or to the Hub."""

from pathlib import Path
from typing import Annotated

import typer


def publish(
    model: Annotated[str, typer.Argument(help="Packaged checkpoint or folder.")],
    destination: Annotated[str, typer.Argument(help="Folder, or Hub id owner/name.")],
    half: Annotated[bool, typer.Option("--half", help="Store weights in fp16, half the size.")] = False,
    private: Annotated[bool, typer.Option("--private", help="Make the Hub repository private.")] = False,
    card: Annotated[Path | None, typer.Option(help="Model card to use instead of the checkpoint's own.")] = None,
) -> None:
    """Publish a checkpoint: safetensors, flat code and card only. Prints what was left out."""
    from transformers.utils import logging

    from clarity_hf.export import publishing

    logging.disable_progress_bar()
    publication = publishing.publish(model, destination, half=half, private=private, card=card)
    for name, size in sorted(publication.files.items(), key=lambda file: -file[1]):
        print(f"{size / 1e3:9,.0f} kB  {name}")
    print(f"left out: {', '.join(publication.left_out) or 'nothing'}")
    print(f"published {publication.place}")
