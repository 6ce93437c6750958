# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""`clarity-hf phantom`: a data set of synthetic films."""

import sys
from pathlib import Path
from typing import Annotated

import typer


def phantom(
    folder: Annotated[Path, typer.Argument(help="Made where it is not there; files of the same names are replaced.")],
    count: Annotated[int, typer.Option(help="Number of films.")] = 100,
    seed: Annotated[int, typer.Option(help="The same seed draws the same films.")] = 0,
    size: Annotated[int, typer.Option(help="Side of the films in pixels.")] = 512,
    test_fraction: Annotated[float, typer.Option(help="Share of the patients in test_list.txt.")] = 0.2,
    finding: Annotated[
        list[str] | None, typer.Option(help="A finding of every film, repeatable; by default drawn film by film.")
    ] = None,
) -> None:
    """Write synthetic films, masks, labels and boxes in the layout of NIH ChestX-ray14."""
    from tqdm import tqdm

    from clarity_hf.data.phantoms import write_phantoms

    with tqdm(total=count, unit="film", file=sys.stderr) as bar:
        write_phantoms(folder, count, seed, size, test_fraction, finding or None, lambda done, total: bar.update())
    print(f"wrote {count} films to {folder}")
