# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""How time and memory grow with image size, batch, images and processes, as tables and `docs/images/growth.png`.

    python benchmarks/growth.py           (some minutes: few sizes and rounds; the plot goes to the temporary folder)
    python benchmarks/growth.py --full    (the real run, on a quiet machine; writes docs/images/growth.png)

Needs matplotlib. The order is the slope of a straight line through the logarithms: time goes with x to that power.

- Image size: one image of 224² to 1024², ours and timm's `vit_small_patch16_224`; what maps add is their paired ratio.
- Batch: images of 224² in one forward.
- Images: a stream of images of 1024² through the pipeline, one at a time, from a generator. Memory must not grow.
- Processes: each streams the same number of images, with one thread.

Memory of forwards is the growth of a process's peak over its idle size, that of streams the peak of the whole process;
each is measured in a process of its own.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import PINNED, interleaved, paired_ratio, restart_pinned
from localization_cost import build, forward_growth, in_own_process, memory_of

FULL = {
    "sizes": (224, 320, 448, 512, 640, 768, 1024),
    "batches": (1, 2, 4, 8, 16, 32),
    "images": (25, 50, 100, 200, 400),
    "rounds": 15,
    "images_a_process": 100,
}
SMALL = {"sizes": (224, 320, 448), "batches": (1, 2, 4), "images": (4, 8, 16), "rounds": 3, "images_a_process": 8}
PLOT = Path(__file__).parents[1] / "docs" / "images" / "growth.png"
IMAGE_SIDE = 1024


def order(counts, values):
    """Slope of the least-squares line through `(log count, log value)`."""
    horizontal, vertical = ([math.log(value) for value in series] for series in (counts, values))
    return statistics.linear_regression(horizontal, vertical).slope


def forward_times(image_size, batch, rounds):
    """Median seconds of timm's forward and ours, and the median of their paired ratios."""
    import torch

    models = {name: build(name, image_size) for name in ("timm", "clarity")}
    pixel_values = torch.randn(batch, 3, image_size, image_size)
    with torch.inference_mode():
        works = {name: lambda model=model: model(pixel_values) for name, model in models.items()}
        taken = {name: [seconds.wall for seconds in all_] for name, all_ in interleaved(works, rounds).items()}
    medians = {name: statistics.median(seconds) for name, seconds in taken.items()}
    return medians["timm"], medians["clarity"], paired_ratio(taken["clarity"], taken["timm"]).median


def stream(count):
    """Seconds that `count` images take in a warm pipeline, and this process's peak in MiB."""
    from transformers import pipeline

    import clarity_hf
    from clarity_hf.phantoms import draw_phantom

    localizer = pipeline(
        "chest-xray-localization",
        model=build("clarity", 224),
        image_processor=clarity_hf.ClarityImageProcessor(),
        device="cpu",
    )
    image = draw_phantom(0, IMAGE_SIDE).image
    localizer(image)
    localizer(image)
    start = time.perf_counter()
    for _ in localizer(image.copy() for _ in range(count)):
        pass
    return time.perf_counter() - start, memory_of("VmHWM")


def streams_at_once(processes, count):
    """Images a second of several processes, by the slowest one's time, and the largest peak of one in MiB."""
    command = [sys.executable, __file__, "--case", json.dumps(["stream", count])]
    environment = os.environ | PINNED | {"OMP_NUM_THREADS": "1"}
    started = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) for _ in range(processes)
    ]
    outputs = [process.communicate()[0] for process in started]
    failed = [process.args for process in started if process.returncode]
    if failed:
        raise RuntimeError(f"{len(failed)} of {processes} processes failed: {failed[0]}. See above.")
    results = [json.loads(output.splitlines()[-1]) for output in outputs]
    return processes * count / max(seconds for seconds, _ in results), max(peak for _, peak in results)


def measure(settings):
    """All series, by name: rows of figures."""
    rounds = settings["rounds"]
    series = {
        "sizes": [
            (size, *forward_times(size, 1, rounds), *(memory(name, size, 1) for name in ("timm", "clarity")))
            for size in settings["sizes"]
        ],
        "batches": [
            (batch, *forward_times(224, batch, rounds), *(memory(name, 224, batch) for name in ("timm", "clarity")))
            for batch in settings["batches"]
        ],
        "images": [(count, *in_own_process(__file__, ["stream", count])) for count in settings["images"]],
    }
    cores = len(os.sched_getaffinity(0))
    counts = sorted({2**power for power in range(cores.bit_length())} | {cores})
    series["processes"] = [(count, *streams_at_once(count, settings["images_a_process"])) for count in counts]
    return series


def memory(name, image_size, batch):
    """Growth of a forward in MiB, measured in its own process."""
    return in_own_process(__file__, ["forward", name, image_size, batch])


def print_tables(series):
    """Print the series as tables, their orders below."""
    for name, title in (("sizes", "image side"), ("batches", "batch")):
        print(f"\n| {title} | timm ms | clarity ms | ours / timm | timm MiB | clarity MiB |")
        print("|---|---|---|---|---|---|")
        for count, plain, ours, ratio, plain_memory, memory_ in series[name]:
            print(
                f"| {count} | {1000 * plain:.0f} | {1000 * ours:.0f} | **{ratio:.3f}** "
                f"| {plain_memory:.0f} | {memory_:.0f} |"
            )
        counts, plain, ours, _, plain_memory, memory_ = zip(*series[name], strict=True)
        orders = [f"{order(counts, values):.2f}" for values in (plain, ours, plain_memory, memory_)]
        print(f"| **order** | {orders[0]} | **{orders[1]}** | | {orders[2]} | **{orders[3]}** |")
    print("\n| images streamed | seconds | images a second | peak of the process MiB |\n|---|---|---|---|")
    for count, seconds, peak in series["images"]:
        print(f"| {count} | {seconds:.1f} | {count / seconds:.1f} | {peak:.0f} |")
    counts, seconds, peaks = zip(*series["images"], strict=True)
    print(f"| **order** | **{order(counts, seconds):.2f}** | | **{order(counts, peaks):.2f}** |")
    print("\n| processes | images a second | of one process | MiB of the largest |\n|---|---|---|---|")
    first = series["processes"][0][1]
    for count, speed, peak in series["processes"]:
        print(f"| {count} | {speed:.1f} | {speed / first:.2f} | {peak:.0f} |")


def draw(series, path):
    """Write the plot: time above, memory below, on logarithmic axes with the fitted orders."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(2, 4, figsize=(15, 6.5), layout="constrained")
    columns = {
        "sizes": ("side of the image in pixels", [("timm", 1, 4), ("clarity", 2, 5)]),
        "batches": ("images in a batch", [("timm", 1, 4), ("clarity", 2, 5)]),
        "images": ("images streamed", [("clarity", 1, 2)]),
        "processes": ("processes", [("clarity", 1, 2)]),
    }
    for column, (name, (label, lines)) in enumerate(columns.items()):
        rows = list(zip(*series[name], strict=True))
        for line, *positions in lines:
            for panel, position in zip(panels[:, column], positions, strict=True):
                fitted = f", order {order(rows[0], rows[position]):.2f}" if len(rows[0]) > 1 else ""
                panel.loglog(rows[0], rows[position], marker="o", label=line + fitted)
        for panel, unit in zip(panels[:, column], ("seconds", "MiB"), strict=True):
            panel.set_xlabel(label)
            panel.set_ylabel("images a second" if name == "processes" and unit == "seconds" else unit)
            panel.set_yscale("log", base=2)
            panel.yaxis.set_major_formatter("{x:.4g}")
            panel.set_xticks(rows[0], [str(count) for count in rows[0]], rotation=45)
            panel.minorticks_off()
            panel.grid(alpha=0.3)
        if name in ("sizes", "batches"):
            for count, seconds, ratio in zip(rows[0], rows[2], rows[3], strict=True):
                panels[0, column].annotate(
                    f"×{ratio:.2f}", (count, seconds), (0, 6), textcoords="offset points", ha="center"
                )
        for panel in panels[:, column]:
            panel.set_ylim(bottom=panel.get_ylim()[0] / 1.5, top=panel.get_ylim()[1] * 1.5)
            panel.legend(loc="upper left")
    figure.suptitle("Growth of time and memory; ×: ours against timm, side by side")
    figure.savefig(path, dpi=100)


def main():
    """Print the tables and write the plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--plot", type=Path, help="where the plot is written")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    restart_pinned()
    if arguments.case:
        work, *values = json.loads(arguments.case)
        print(json.dumps({"forward": forward_growth, "stream": stream}[work](*values)))
        return
    import torch

    settings = FULL if arguments.full else SMALL
    path = arguments.plot or (PLOT if arguments.full else Path(tempfile.gettempdir()) / "growth.png")
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, fp32, {settings['rounds']} rounds")
    series = measure(settings)
    print_tables(series)
    draw(series, path)
    print(f"\nPlot: {path.name}", file=sys.stderr)


if __name__ == "__main__":
    main()
