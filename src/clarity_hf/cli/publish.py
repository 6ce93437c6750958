# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""`clarity-hf publish`: a checkpoint with its card to a folder or to the Hub."""

from pathlib import Path
from typing import Annotated

import typer


def publish(
    model: Annotated[str, typer.Argument(help="Packaged name or folder.")],
    destination: Annotated[str, typer.Argument(help="Folder, or Hub id owner/name.")],
    half: Annotated[bool, typer.Option("--half", help="Weights in fp16, at half the size.")] = False,
    private: Annotated[bool, typer.Option("--private", help="A private repository of the Hub.")] = False,
    card: Annotated[Path | None, typer.Option(help="Model card instead of the checkpoint's own.")] = None,
) -> None:
    """Publish a checkpoint: safetensors, flat code and card only; what was left out is named."""
    from transformers.utils import logging

    from clarity_hf.export import publishing

    logging.disable_progress_bar()
    publication = publishing.publish(model, destination, half=half, private=private, card=card)
    for name, size in sorted(publication.files.items(), key=lambda file: -file[1]):
        print(f"{size / 1e3:9,.0f} kB  {name}")
    print(f"left out: {', '.join(publication.left_out) or 'nothing'}")
    print(f"published {publication.place}")
