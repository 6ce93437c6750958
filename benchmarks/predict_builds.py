# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""`clarity-hf predict` of two builds side by side: images a second, processor time, peak memory, and what it finds.

    python benchmarks/predict_builds.py --base ../base/src                          (about half an hour on two cores)
    python benchmarks/predict_builds.py --base ../base/src --images 120 --rounds 1   (quick)
    python benchmarks/predict_builds.py --engines torch torch:bf16 onnx onnx:int8    (this build alone, by engine)

500 phantoms of 1024² are written as PNG, as uncompressed DICOM and as DICOM in JPEG Lossless (12 bits, with the noise
of a detector), and stay in `--folder` for the next run. Each build predicts each folder by the command line as a user
would, in a process of its own; rounds are interleaved. `start` is the same command with one image, so `images a
second` counts all the others in the time beyond it. The export of an engine is made before the rounds, and its time
is printed. Memory is the largest resident size of the process.

The last table compares what the builds find: mean AUROC over the findings of the phantoms, and the share of findings
with boxes in either whose boxes are as many and moved by at most 2 pixels. The row `noise` compares the base with
itself at another batch size.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from common import dicom_of

OWN = Path(__file__).resolve().parents[1] / "src"
KINDS = ("png", "dicom", "dicom-lossless")
SIDE, BITS, NEAR = 1024, 12, 2.0
NOISE_BATCH = 3
"""Batch size of the run that shows the base's own noise; the others have the command's default."""


class Run(NamedTuple):
    """What one process took."""

    wall: float
    processor: float
    megabytes: float


def write_image(folder: Path, index: int) -> list[float]:
    """Write a phantom in all kinds of files, and return its labels."""
    from PIL import Image

    from clarity_hf.phantoms import draw_phantom
    from clarity_hf.phantoms.phantom import image_seed

    phantom = draw_phantom(image_seed(0, index), SIDE)
    Image.fromarray(phantom.image).save(folder / "png" / f"{index:04d}.png")
    dataset = dicom_of(phantom.image, index, BITS)
    plain = folder / "dicom" / f"{index:04d}.dcm"
    dataset.save_as(plain, enforce_file_format=True)
    compress(plain, folder / "dicom-lossless" / plain.name)
    return phantom.labels.tolist()


def compress(source: Path, target: Path) -> None:
    """Write a DICOM file in JPEG Lossless, first-order prediction."""
    import gdcm

    reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
    reader.SetFileName(str(source))
    read = reader.Read()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGLosslessProcess14_1))
    change.SetInput(reader.GetImage())
    changed = change.Change()
    writer.SetFileName(str(target))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    if not (read and changed and writer.Write()):
        raise OSError(f"gdcm cannot write {target.name}.")


def write_images(folder: Path, count: int) -> np.ndarray:
    """Write what is missing, and return the labels `(count, F)`."""
    labels = folder / f"labels-{count}.json"
    if not labels.is_file():
        for kind in KINDS:
            (folder / kind).mkdir(parents=True, exist_ok=True)
        with ProcessPoolExecutor() as pool:
            written = list(pool.map(write_image, [folder] * count, range(count), chunksize=8))
        labels.write_text(json.dumps(written), encoding="utf-8")
    return np.array(json.loads(labels.read_text(encoding="utf-8")))


def predict(source: Path, images: list[Path], results: Path, *words: str) -> Run:
    """Run the command of a build."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as listed:
        listed.write("".join(f"{path}\n" for path in images))
        listed.flush()
        program = [sys.executable, "-c", "from clarity_hf.cli import main; raise SystemExit(main())", "predict"]
        command = [*program, f"@{listed.name}", "--output-dir", str(results), "--device", "cpu", *words]
        start = time.perf_counter()
        process = subprocess.Popen(
            command, env=os.environ | {"PYTHONPATH": str(source)}, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        complaints = process.stderr.read().decode() if process.stderr else ""
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - start
    if status:
        raise SystemExit(f"{' '.join(command)} ended with {status}: {complaints[-2000:]}")
    return Run(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024 / 1e6)


def findings_of(results: Path) -> dict[str, dict[str, dict]]:
    """Findings by image and label."""
    lines = (results / "findings.jsonl").read_text(encoding="utf-8").splitlines()
    return {
        Path(record.get("image") or record["film"]).stem: {row["label"]: row for row in record["findings"]}
        for record in map(json.loads, lines)
    }


def same_boxes(ours: dict, theirs: dict) -> tuple[int, int]:
    """Findings whose boxes stayed, and all with boxes in either."""
    same = total = 0
    for name, findings in theirs.items():
        for label, row in findings.items():
            pair = [[list(box.values()) for box in found["boxes"]] for found in (row, ours[name][label])]
            if any(pair):
                total += 1
                same += len(pair[0]) == len(pair[1]) and bool((np.abs(np.subtract(*pair)) <= NEAR).all())
    return same, total


def mean_area(findings: dict, labels: np.ndarray) -> float:
    """Mean AUROC over the findings."""
    from clarity_hf.labels import FINDINGS
    from clarity_hf.metrics.classification import mean_auroc

    names = [f"{index:04d}" for index in range(len(labels))]
    scores = np.array([[findings[name][label]["score"] for label in FINDINGS] for name in names])
    return mean_auroc(scores, labels)


def print_speed(kind: str, runs: dict[str, list[Run]], starts: dict[str, list[Run]], count: int) -> None:
    """A row per build; ratios are medians over rounds, of the first build over this one."""
    first = next(iter(runs))
    for name, taken in runs.items():
        cells = []
        for clock in ("wall", "processor"):
            whole = {key: np.array([getattr(run, clock) for run in runs[key]]) for key in (name, first)}
            start = {key: np.array([getattr(run, clock) for run in starts[key]]) for key in (name, first)}
            beyond = {key: whole[key] - start[key] for key in whole}
            ratio, of_whole = (np.median(seconds[first] / seconds[name]) for seconds in (beyond, whole))
            rate = (count - 1) / np.median(beyond[name])
            cells += [f"{rate:.1f}", f"**{ratio:.2f}**", f"{of_whole:.2f}"]
        seconds = statistics.median(run.wall for run in starts[name])
        memory = statistics.median(run.megabytes for run in taken)
        share = memory / statistics.median(run.megabytes for run in runs[first])
        cells += [f"{seconds:.1f}", f"{memory:.0f}", f"**{share:.2f}**"]
        print(f"| {kind} | {name} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path, help="src of the build to compare with; default: none")
    parser.add_argument("--engines", nargs="*", default=["auto"], help="of this build, with or without :PRECISION")
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--kinds", nargs="*", default=list(KINDS), choices=KINDS)
    parser.add_argument("--folder", type=Path, default=Path("runs/predict-builds"))
    arguments = parser.parse_args()
    labels = write_images(arguments.folder, arguments.images)
    builds: dict[str, tuple[Path, list[str]]] = {} if arguments.base is None else {"base": (arguments.base, [])}
    for name in arguments.engines:
        engine, _, precision = name.partition(":")
        builds[name] = OWN, ["--engine", engine, *(["--precision", precision] if precision else [])]
    paths = {kind: sorted((arguments.folder / kind).iterdir())[: arguments.images] for kind in arguments.kinds}
    found: dict[str, dict] = {}
    print(f"{os.cpu_count()} cores, {arguments.images} images of {SIDE}², {arguments.rounds} rounds\n")
    with tempfile.TemporaryDirectory() as temporary:
        names = (Path(temporary) / str(number) for number in range(10**6))
        for name, (source, words) in builds.items():
            results = next(names)
            first = predict(source, next(iter(paths.values())), results, *words)
            print(f"first run of {name}: {first.wall:.0f} s by the clock, {first.processor:.0f} s of processors")
            settings = json.loads((results / "settings.json").read_text(encoding="utf-8"))
            engine, precision = settings.get("engine", "torch fp32").split()
            builds[name] = source, [] if name == "base" else ["--engine", engine, "--precision", precision]
            found[name] = findings_of(results)
        columns = "images/s | by the clock | whole command | images/s, 1 core | by processor time | whole command"
        print(f"\n| files | build | {columns} | start s | peak MB | of the first |\n|{'---|' * 11}")
        for kind, images in paths.items():
            runs: dict[str, list[Run]] = {name: [] for name in builds}
            starts: dict[str, list[Run]] = {name: [] for name in builds}
            for turn in range(arguments.rounds):
                for name in builds if turn % 2 else reversed(builds):
                    source, words = builds[name]
                    starts[name].append(predict(source, images[:1], next(names), *words))
                    runs[name].append(predict(source, images, next(names), *words))
            print_speed(kind, runs, starts, arguments.images)
        if arguments.base is not None:
            results = next(names)
            predict(arguments.base, next(iter(paths.values())), results, "--batch-size", str(NOISE_BATCH))
            found["noise"] = findings_of(results)
    reference = next(iter(found))
    print("\n| build | mean AUROC | difference | boxes within 2 pixels |\n|---|---|---|---|")
    area = mean_area(found[reference], labels)
    for name, findings in found.items():
        same, total = same_boxes(findings, found[reference])
        own = mean_area(findings, labels)
        print(f"| {name} | {own:.4f} | {own - area:+.4f} | {same / total:.4f} ({same} of {total}) |")


if __name__ == "__main__":
    main()
