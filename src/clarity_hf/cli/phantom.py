# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""`clarity-hf phantom`: a data set of synthetic images."""

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from clarity_hf.labels import FINDINGS

Finding = StrEnum("Finding", {finding: finding for finding in FINDINGS})  # type: ignore[misc]


def phantom(
    folder: Annotated[Path, typer.Argument(help="Created if needed; files of the same names are replaced.")],
    count: Annotated[int, typer.Option(help="Number of images.")] = 100,
    seed: Annotated[int, typer.Option(help="Random seed; the same seed gives the same images.")] = 0,
    size: Annotated[int, typer.Option(help="Side of the images in pixels.")] = 512,
    test_fraction: Annotated[float, typer.Option(help="Share of patients in test_list.txt.")] = 0.2,
    findings: Annotated[
        list[Finding] | None,
        typer.Option("--findings", "--finding", help="Findings of every image; random by default."),
    ] = None,
) -> None:
    """Write synthetic images, masks, labels and boxes in the layout of NIH ChestX-ray14."""
    from tqdm import tqdm

    from clarity_hf.phantoms import write_phantoms

    names = [finding.value for finding in findings] if findings else None
    with tqdm(total=count, unit="image", file=sys.stderr) as bar:
        write_phantoms(folder, count, seed, size, test_fraction, names, lambda done, total: bar.update())
    print(f"wrote {count} images to {folder}")
