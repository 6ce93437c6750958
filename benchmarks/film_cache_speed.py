# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""What a training row costs a core with and without a cache of decoded films.

    python benchmarks/film_cache_speed.py                         (about two minutes)
    python benchmarks/film_cache_speed.py --films 2 --rounds 2    (quick)
    python benchmarks/film_cache_speed.py FILM.png FILM.dcm ...   (these files instead)

A row is all that a worker does for one film, with crops (`--augment full`) at 224: read, reduce, draw a view, lay the
atlas over it. `decoded` does it from the file, `cached` with `--film_cache` in the second epoch. Without files,
phantoms are written as PNG of 1024².

Time: processor time of one thread, the median over interleaved rounds of the ratio within a round.
"""

import argparse
import statistics
import tempfile
from pathlib import Path

from common import interleaved, paired_ratio, restart_pinned, write_phantom_pngs


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="*", type=Path, metavar="FILM")
    parser.add_argument("--films", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    restart_pinned(OMP_NUM_THREADS="1")

    import torch

    from clarity_hf import ClarityImageProcessor
    from clarity_hf.data.transforms import FilmTransform, TransformedDataset

    with tempfile.TemporaryDirectory() as folder:
        paths = arguments.paths or write_phantom_pngs(Path(folder), arguments.films)
        rows = [{"image": str(path), "labels": [0.0]} for path in paths]
        cache = Path(folder) / "cache"
        data = {
            name: TransformedDataset(rows, FilmTransform(ClarityImageProcessor(), "full", film_cache=films))
            for name, films in (("decoded", None), ("cached", cache))
        }
        taken = interleaved(
            {name: lambda films=films: [films[index] for index in range(len(films))] for name, films in data.items()},
            arguments.rounds,
        )
        kept = sum(path.stat().st_size for path in cache.rglob("*.safetensors")) / len(paths)

    seconds = {name: [each.processor for each in values] for name, values in taken.items()}
    print(f"torch {torch.__version__}, 1 thread, {len(paths)} films, {arguments.rounds} rounds\n")
    print("| row | ms | films a second and core | of decoding each time (quartiles) | KiB on disk |")
    print("|---|---|---|---|---|")
    for name, values in seconds.items():
        each = statistics.median(values) / len(paths)
        size = f"{kept / 1024:.0f}" if name == "cached" else ""
        ratio = paired_ratio(values, seconds["decoded"])
        print(f"| {name} | {1000 * each:.1f} | {1 / each:.0f} | {ratio} | {size} |")


if __name__ == "__main__":
    main()
