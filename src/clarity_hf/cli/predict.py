# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""`clarity-hf predict`: findings of images, written to a folder."""

import contextlib
import datetime
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from .common import (
    BatchSizeOption,
    DeviceOption,
    DicomKindsOption,
    ModelOption,
    PrecisionOption,
    RadiographCheckOption,
    chosen_kinds,
    load_pipeline,
)

SOME_FAILED = 3
"""Exit status if some images failed and the others are done."""

MOST_FAILURES = 3
"""Up to this many failures are printed too."""

MOST_FOLDERS = 5
"""Up to this many unreadable folders are named."""

LONGEST_WAIT = datetime.timedelta(days=30)
"""Time for the other processes of a launcher to finish; one that crashes is noticed at once."""


def predict(
    inputs: Annotated[list[str], typer.Argument(help="Images, folders, globs, or @FILE with a list of them.")],
    output_dir: Annotated[Path, typer.Option(help="Folder for the results; an existing one is resumed.")] = Path(
        "predictions"
    ),
    model: ModelOption = "clarity-s16-224",
    recursive: Annotated[bool, typer.Option("--recursive", "-r", help="Search subfolders.")] = False,
    threshold: Annotated[
        float | None, typer.Option(help="Score at which a finding is present; by default the model's own.")
    ] = None,
    csv: Annotated[bool, typer.Option("--csv", help="Write findings.csv and boxes.csv too.")] = False,
    overlays: Annotated[bool, typer.Option("--overlays", help="Write an overlay of each image too.")] = False,
    maps: Annotated[bool, typer.Option("--maps", help="Write each image's localization maps as npz too.")] = False,
    dicom: Annotated[
        bool, typer.Option("--dicom", help="Write DICOM SR, SEG and Secondary Capture too, for DICOM images.")
    ] = False,
    dicom_kinds: DicomKindsOption = None,
    fhir: Annotated[bool, typer.Option("--fhir", help="Write FHIR R4 too, for DICOM images.")] = False,
    fhir_r5: Annotated[bool, typer.Option("--fhir-r5", help="Write FHIR R5 too, boxes as ImagingSelection.")] = False,
    identifiers: Annotated[
        bool,
        typer.Option("--identifiers", help="Include UIDs and accession numbers, which identify patients."),
    ] = False,
    radiograph_check: RadiographCheckOption = "warn",
    batch_size: BatchSizeOption = 8,
    workers: Annotated[int, typer.Option("--num-workers", "--workers", help="Threads that read images ahead.")] = 2,
    device: DeviceOption = "auto",
    engine: Annotated[
        str,
        typer.Option(
            help="auto, torch, onnx or openvino; auto is the fastest that gives torch's results without an export for "
            "fewer than 100 images."
        ),
    ] = "auto",
    precision: PrecisionOption = None,
) -> None:
    """Localize the findings of images: findings.jsonl with one line per image, and more by option.

    The same command resumes a run that was stopped. Under torchrun or accelerate launch, the processes share the
    images and end together. Exit status: 0 if all images are done, 1 if nothing could be done, 3 if some images
    failed, which are listed in failed.jsonl; a launcher's own status is 0 or 1.
    """
    rank, world_size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    part = f"-r{rank:02d}" if world_size > 1 else ""
    with _stoppable(output_dir, part) as stop:
        from clarity_hf.files import published_name, remove_unfinished
        from clarity_hf.inference import find_images, merge_shards, predict_images
        from clarity_hf.inference.dicom_output import DEFAULT_KINDS
        from clarity_hf.inference.engine_names import check_engine, engine_of
        from clarity_hf.inference.onnx_pipeline import ENGINE, onnx_pipeline
        from clarity_hf.inference.result_store import SETTINGS

        check_engine(engine, precision)
        found = find_images(inputs, recursive, exclude=[output_dir])
        if rank == 0:
            _report_skipped(found)
        wanted = {"overlays": overlays, "maps": maps, "dicom": dicom or dicom_kinds is not None}
        wanted |= {"fhir": fhir, "fhir_r5": fhir_r5, "identifiers": identifiers}
        outputs = [name for name, on in wanted.items() if on]
        before = engine_of(output_dir / SETTINGS) if engine == "auto" and precision is None else None
        asked = before or (engine, precision)
        pipeline: Any = onnx_pipeline(model, device, *asked, outputs)
        chosen = ENGINE
        if pipeline is None:
            from clarity_hf.inference.engines import use_engine

            pipeline = load_pipeline(model, device)
            chosen = use_engine(pipeline, *asked, images=len(found.images))
        if rank == 0 and chosen != "torch fp32":
            print(f"engine: {chosen}", file=sys.stderr)
        with _launched(world_size) as total_over_processes:
            with _bar(f"process {rank}" if world_size > 1 else None) as advance:
                done = predict_images(
                    pipeline,
                    found.images,
                    output_dir,
                    model_name=published_name(model),
                    threshold=threshold,
                    outputs=outputs,
                    table=csv,
                    radiograph_check=radiograph_check,
                    dicom_kinds=chosen_kinds(dicom_kinds, DEFAULT_KINDS),
                    batch_size=batch_size,
                    workers=workers,
                    rank=rank,
                    world_size=world_size,
                    merge=total_over_processes is None,
                    progress=stop.after(advance),
                )
            counts = [done.predicted, done.skipped, done.failed, done.warned, done.changed]
            summed = counts if total_over_processes is None else total_over_processes(counts)
            if total_over_processes is not None and rank == 0:  # all processes are done
                merge_shards(output_dir, csv)
                remove_unfinished(output_dir)
            if rank == 0 or total_over_processes is None:
                _report(summed, output_dir, part if total_over_processes is None else "")
    if summed[2] or found.unread:
        raise typer.Exit(SOME_FAILED if summed[0] or summed[1] else 1)


class _Stopped(BaseException):
    """Raised by a signal."""


class _Stop:
    """Progress of a run, and the signal that stopped it."""

    def __init__(self) -> None:
        self.images = self.total = 0
        self.signal: signal.Signals | None = None

    def __call__(self, number: int, _: Any) -> None:
        """Handle a signal: stop the run."""
        self.signal = signal.Signals(number)
        raise _Stopped

    def after(self, advance: Callable[[int, int], None]) -> Callable[[int, int], None]:
        """Note the progress, and stop if a library's callback swallowed the signal's exception."""

        def reached(images: int, total: int) -> None:
            advance(images, total)
            self.images, self.total = images, total
            if self.signal is not None:
                raise _Stopped

        return reached


@contextlib.contextmanager
def _stoppable(folder: Path, part: str) -> Iterator[_Stop]:
    """On SIGINT or SIGTERM, end the block and print what is done and how to resume."""
    stop = _Stop()
    in_main = threading.current_thread() is threading.main_thread()  # only it may handle signals
    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM) if in_main}
    try:
        yield stop
    except _Stopped:
        print(f"\n{_stopped_in_words(stop, folder, part)}", file=sys.stderr, flush=True)
        raise typer.Exit(128 + (stop.signal or signal.SIGTERM)) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _stopped_in_words(stop: _Stop, folder: Path, part: str) -> str:
    name = "a signal" if stop.signal is None else stop.signal.name
    if not stop.total:
        return f"stopped by {name} before the first image. Start the same command again."
    failures = folder / f"failed{part}.jsonl"
    failed = failures.read_bytes().count(b"\n") if failures.is_file() else 0
    return (
        f"stopped by {name}: {stop.images} of {stop.total} images are done, {failed} of them failed, and are in "
        f"{folder / f'findings{part}.jsonl'}. Start the same command again to predict the other "
        f"{stop.total - stop.images}."
    )


def _report_skipped(found: Any) -> None:
    if found.passed_over:
        kinds = ", ".join(f"{count} {suffix or 'without ending'}" for suffix, count in found.passed_over.items())
        print(f"skipped, not images: {kinds}", file=sys.stderr)
    if found.folders:
        print(f"not searched: {found.folders} subfolders (use -r)", file=sys.stderr)
    if found.results:
        print(f"not searched: {found.results} folders of earlier results", file=sys.stderr)
    for folder, reason in list(found.unread.items())[:MOST_FOLDERS]:
        print(f"warning: images may be missing: {_printable(folder)} {reason}", file=sys.stderr)
    if len(found.unread) > MOST_FOLDERS:
        print(f"warning: and {len(found.unread) - MOST_FOLDERS} more folders", file=sys.stderr)


def _printable(name: str) -> str:
    """A name with terminal control characters escaped."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in name)


def _report(counts: Sequence[int], folder: Path, part: str) -> None:
    predicted, skipped, failed, warned, changed = counts
    print(
        f"{predicted} {'image' if predicted == 1 else 'images'} predicted, {skipped} done before, {failed} failed; "
        f"wrote {folder / 'findings.jsonl'}. For research, not for diagnosis."
    )
    if changed:
        print(f"{changed} of them replace results of an earlier file of the same name", file=sys.stderr)
    if warned:
        print(
            f"warning: {warned} of these images do not look like a frontal chest radiograph; see "
            f'"warning" in {folder / "findings.jsonl"}',
            file=sys.stderr,
        )
    if failed:
        record = folder / f"failed{part}.jsonl"
        lines = record.read_text(encoding="utf-8").splitlines() if failed <= MOST_FAILURES and record.is_file() else []
        for line in map(json.loads, lines):
            print(_printable(f"{line['image']}: {line['reason']}"), file=sys.stderr)
        print(f"failures and reasons: {record}", file=sys.stderr)


@contextlib.contextmanager
def _bar(description: str | None) -> Iterator[Callable[[int, int], None]]:
    """A progress bar whose speed does not count images of earlier runs."""
    from tqdm import tqdm

    with tqdm(unit="image", file=sys.stderr, desc=description) as bar:

        def advance(done: int, total: int) -> None:
            if bar.total is None:
                bar.reset(total)
                bar.initial = bar.n = bar.last_print_n = done
                bar.refresh()
            else:
                bar.update(done - bar.n)

        yield advance


@contextlib.contextmanager
def _launched(world_size: int) -> Iterator[Callable[[Sequence[int]], list[int]] | None]:
    """A sum over the processes of a launcher once all of them are done; None without a launcher.

    A launcher stops all processes as soon as one ends with a status other than 0, for example after a bad image, so
    none may end before all are done.
    """
    if world_size == 1 or "MASTER_ADDR" not in os.environ:
        yield None
        return
    import torch
    import torch.distributed

    torch.distributed.init_process_group("gloo")
    group: Any = torch.distributed.new_group(timeout=LONGEST_WAIT)

    def total(counts: Sequence[int]) -> list[int]:
        summed = torch.tensor(counts)
        try:
            torch.distributed.all_reduce(summed, group=group)
        except RuntimeError as error:
            raise OSError("Another process of `predict` ended early. Start the same command again.") from error
        return summed.tolist()

    try:
        yield total
        torch.distributed.barrier(group)  # the first prints the sum before a launcher stops it
    finally:
        torch.distributed.destroy_process_group()
