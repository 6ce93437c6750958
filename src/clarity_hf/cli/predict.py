# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""`clarity-hf predict`: films in, a folder of findings out."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from .common import load

SOME_FAILED = 3
"""Exit status where some films failed and the others are done."""


def predict(
    inputs: Annotated[list[str], typer.Argument(help="Films, folders, globs, or @FILE, a list of them.")],
    output_dir: Annotated[Path, typer.Option(help="Folder of the results; one that is there is resumed.")] = Path(
        "predictions"
    ),
    model: Annotated[str, typer.Option(help="Packaged name, folder or Hub id.")] = "clarity-s16-224",
    recursive: Annotated[bool, typer.Option("--recursive", "-r", help="Look into folders inside folders.")] = False,
    threshold: Annotated[
        float | None, typer.Option(help="Score from which a finding is present; by default the model's own.")
    ] = None,
    csv: Annotated[bool, typer.Option("--csv", help="Also findings.csv and boxes.csv.")] = False,
    overlays: Annotated[bool, typer.Option("--overlays", help="Also a picture of each film.")] = False,
    maps: Annotated[bool, typer.Option("--maps", help="Also each film's localization maps as npz.")] = False,
    dicom: Annotated[
        bool, typer.Option("--dicom", help="Also DICOM SR, SEG and Secondary Capture, of films that are DICOM.")
    ] = False,
    batch_size: Annotated[int, typer.Option(help="Films per forward pass.")] = 8,
    workers: Annotated[int, typer.Option(help="Threads that read films ahead.")] = 2,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")] = "auto",
) -> None:
    """Localize the findings of films: findings.jsonl, one line a film, and more by option.

    Started again with the same arguments it goes on where it was stopped. Started by torchrun or accelerate launch,
    the processes share the films. Exit status: 0 all films done, 1 nothing could be done, 3 some films failed, which
    failed.jsonl names.
    """
    rank, world_size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    from tqdm import tqdm

    from clarity_hf.deployment.batch_prediction import find_films, predict_films
    from clarity_hf.pipeline_chest_xray_localization import ChestXrayLocalizationPipeline
    from clarity_hf.training.runs import published_name

    found = find_films(inputs, recursive, exclude=[output_dir])
    if found.passed_over and rank == 0:
        told = ", ".join(f"{count} {suffix or 'without ending'}" for suffix, count in found.passed_over.items())
        print(f"passed over, no films: {told}", file=sys.stderr)
    loaded, image_processor = load(model, device)
    pipeline = ChestXrayLocalizationPipeline(model=loaded, image_processor=image_processor, device=loaded.device)
    outputs = [name for name, on in (("overlays", overlays), ("maps", maps), ("dicom", dicom)) if on]
    with tqdm(unit="film", file=sys.stderr, desc=f"process {rank}" if world_size > 1 else None) as bar:

        def advance(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        done = predict_films(
            pipeline,
            found.films,
            output_dir,
            model_name=published_name(model),
            threshold=threshold,
            outputs=outputs,
            table=csv,
            batch_size=batch_size,
            workers=workers,
            rank=rank,
            world_size=world_size,
            progress=advance,
        )
    print(
        f"{done.predicted} films predicted, {done.skipped} done before, {done.failed} failed; "
        f"wrote {output_dir / 'findings.jsonl'}. For research, not for diagnosis."
    )
    if done.failed:
        part = f"failed-r{rank:02d}.jsonl" if world_size > 1 else "failed.jsonl"
        print(f"what failed and why: {output_dir / part}", file=sys.stderr)
        raise typer.Exit(SOME_FAILED if done.predicted or done.skipped else 1)
