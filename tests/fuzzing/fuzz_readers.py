# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Mutate inputs of every reader and count what becomes of them.

    python tests/fuzzing/fuzz_readers.py --inputs 105000 --workers 3 --findings findings
    python tests/fuzzing/fuzz_readers.py --inputs 20000 --folder IMAGES --findings findings

Each input is read in a worker process whose memory is bounded (RLIMIT_AS) and which is killed where one input takes
longer than `--seconds`. Input i is drawn from the seed and i alone, so that a run is repeated by its arguments.

Prints a row a reader: inputs, read, refused by kind of error, findings, and the longest input's seconds; then the peak
memory of a worker. Ends with status 1 where there is a finding: an error that is none of ours, a crash, a hang, or
memory beyond the bound. The smallest input of each is left in the folder of `--findings`, READER--WHAT.input, its
traceback beside it; `tests/fuzzing/corpus` keeps those that were mended.
"""

from __future__ import annotations

import argparse
import faulthandler
import gc
import logging
import multiprocessing
import os
import resource
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"

from fuzz_inputs import all_seeds, folder_seeds, make
from fuzz_targets import READERS, is_refusal, place_of, prepare

WEIGHTS = {"png": 12, "jpeg": 12, "tiff": 14, "bmp": 6, "dicom": 28, "mask": 6, "open_image": 4, "csv": 8, "tsv": 2}
WEIGHTS |= {"parquet": 8, "nih-table": 4, "nih-list": 2, "nih-boxes": 4, "yaml": 2, "config": 2}
WEIGHTS |= {"processor": 2}
"""Inputs of a reader in a round of all."""

OUTCOMES = ("not run", "read", "ValueError", "TypeError", "FileNotFoundError", "OSError", "ImportError")
OUTCOMES += ("its library's", "other error", "memory", "crash", "hang")
FIRST_FINDING = OUTCOMES.index("other error")


def schedule(seeds: dict[str, list[bytes]]) -> list[str]:
    """The readers in the order of their turns, spread evenly through a round."""
    turns = [((k + 0.5) / WEIGHTS[reader], reader) for reader in seeds for k in range(WEIGHTS[reader])]
    return [reader for _, reader in sorted(turns)]


def outcome_of(reader: str, error: BaseException | None) -> str:
    """What becomes of an input, one of `OUTCOMES`."""
    if error is None:
        return "read"
    if isinstance(error, MemoryError):
        return "memory"
    if not is_refusal(reader, error):
        return "other error"
    own = (ValueError, TypeError, FileNotFoundError, OSError, ImportError)
    return next((kind.__name__ for kind in own if isinstance(error, kind)), "its library's")


def keep(folder: Path, reader: str, what: str, content: bytes, text: str = "") -> None:
    """Leave a finding in its folder unless a smaller input showed it already."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{reader}--{what}.input"
    if not file.exists() or file.stat().st_size > len(content):
        file.write_bytes(content)
        file.with_suffix(".txt").write_text(text, encoding="utf-8", errors="backslashreplace")


def work(
    arguments: argparse.Namespace, seeds: dict[str, list[bytes]], own: int, first: int, shared: dict[str, Any]
) -> None:
    """Read every so-manieth input from `first` on, in worker `own`."""
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # what the decoders say
    faulthandler.disable()  # a crash is counted, and found again from its input
    folder = Path(tempfile.mkdtemp(prefix="fuzz-", dir=shared["scratch"]))
    prepare(folder)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + arguments.gigabytes * 2**30,) * 2)
    turns = schedule(seeds)
    gc.freeze()  # what was imported is not looked through again at each collection
    for index in range(first, arguments.inputs, arguments.workers):
        reader = turns[index % len(turns)]
        content = make(reader, seeds[reader], f"{arguments.seed}:{index}")
        shared["current"][own] = index
        shared["since"][own] = begun = time.monotonic()
        error = None
        try:
            READERS[reader](content, folder)
        except BaseException as caught:
            error = caught
        shared["since"][own] = 0.0
        shared["seconds"][index] = time.monotonic() - begun
        outcome = outcome_of(reader, error)
        shared["outcomes"][index] = OUTCOMES.index(outcome)
        if error is not None and OUTCOMES.index(outcome) >= FIRST_FINDING:
            text = "".join(traceback.format_exception(error))
            keep(arguments.findings, reader, place_of(error), content, text)
        del error
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        shared["peak"][own] = max(shared["peak"][own], peak)


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Read all inputs; a worker that crashes or hangs gives way to another, one input further."""
    seeds = folder_seeds(arguments.folder) if arguments.folder else all_seeds()
    seeds = {name: found for name, found in seeds.items() if not arguments.readers or name in arguments.readers}
    turns = schedule(seeds)
    fork = multiprocessing.get_context("fork")  # all is imported once
    shared: dict[str, Any] = {
        "current": fork.RawArray("q", arguments.workers),
        "since": fork.RawArray("d", arguments.workers),
        "peak": fork.RawArray("q", arguments.workers),
        "outcomes": fork.RawArray("B", arguments.inputs),
        "seconds": fork.RawArray("f", arguments.inputs),
    }

    def start(own: int, first: int) -> Any:
        worker = fork.Process(target=work, args=(arguments, seeds, own, first, shared))
        worker.start()
        return worker

    with tempfile.TemporaryDirectory() as scratch:
        shared["scratch"] = scratch
        workers = {own: start(own, own) for own in range(arguments.workers)}
        while workers:
            for own, worker in list(workers.items()):
                worker.join(0.2)
                what = _fate(worker, shared["since"][own], arguments.seconds)
                if what == "running":
                    continue
                del workers[own]
                if what == "done":
                    continue
                index = shared["current"][own]
                reader = turns[index % len(turns)]
                shared["outcomes"][index] = OUTCOMES.index(what)
                keep(arguments.findings, reader, what, make(reader, seeds[reader], f"{arguments.seed}:{index}"))
                workers[own] = start(own, index + arguments.workers)
    return shared | {"turns": turns}


def _fate(worker: Any, since: float, limit: float) -> str:
    """What has become of a worker that began its input at `since`; one that takes longer than `limit` is ended."""
    if worker.is_alive():
        if not since or time.monotonic() - since <= limit:
            return "running"
        worker.kill()
        worker.join()
        return "hang"
    return "done" if worker.exitcode == 0 else "crash"


def table(done: dict[str, Any], inputs: int) -> list[str]:
    """The counts as rows of Markdown."""
    counts: dict[str, Counter[str]] = {}
    longest: dict[str, float] = {}
    for index in range(inputs):
        reader = done["turns"][index % len(done["turns"])]
        counts.setdefault(reader, Counter())[OUTCOMES[done["outcomes"][index]]] += 1
        longest[reader] = max(longest.get(reader, 0.0), done["seconds"][index])
    counts["all"] = sum(counts.values(), Counter())
    longest["all"] = max(longest.values())
    refusals = OUTCOMES[2:FIRST_FINDING]
    lines = [f"| reader | inputs | read | {' | '.join(refusals)} | findings | longest s |"]
    lines.append("|---|" + "---:|" * (len(refusals) + 4))
    for reader, count in counts.items():
        found = sum(count[name] for name in OUTCOMES[FIRST_FINDING:])
        cells = [reader, f"{count.total():,}", f"{count['read']:,}", *(f"{count[name]:,}" for name in refusals)]
        lines.append(f"| {' | '.join(cells)} | {found} | {longest[reader]:.2f} |")
    return lines


def main(words: list[str] | None = None) -> int:
    """Fuzz as the command line says; see the head of this file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=105_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=1, help="processes that read at the same time")
    parser.add_argument("--seconds", type=float, default=20, help="longest that an input may take")
    parser.add_argument("--gigabytes", type=int, default=3, help="memory of a worker above what its imports take")
    parser.add_argument("--folder", type=Path, help="mutate the files of this folder instead of the synthetic seeds")
    parser.add_argument("--readers", nargs="*", choices=list(READERS), help="only these")
    parser.add_argument("--findings", type=Path, default=Path("findings"), help="folder of the findings")
    arguments = parser.parse_args(words)
    begun = time.monotonic()
    done = run(arguments)
    print("\n".join(table(done, arguments.inputs)))
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    minutes = (time.monotonic() - begun) / 60
    print(f"\nPeak memory of a worker {max(done['peak']) / 1024:.0f} MiB, of this process before any input was read")
    print(f"{own / 1024:.0f} MiB; {minutes:.1f} minutes.")
    names = Counter(OUTCOMES[outcome] for outcome in done["outcomes"])
    found = {name: names[name] for name in OUTCOMES[FIRST_FINDING:] if names[name]}
    if found:
        print(f"Findings in {arguments.findings}: {found}")
    return 1 if found or names["not run"] else 0


if __name__ == "__main__":
    sys.exit(main())
