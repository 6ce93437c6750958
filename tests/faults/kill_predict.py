# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Kill `clarity-hf predict` by SIGKILL at random moments, start it again each time, and count what is lost or doubled.

    python tests/faults/kill_predict.py [--kills 20] [--images 400] [--seed N]

Phantoms, a tiny model with random weights, one picture an image, two images a batch. After each kill every whole line
must be of another image and have its picture; once the last run has come to its end, lines, pictures and tables must
be
those of a run that was never killed: no image missing, none twice, none torn. Printed are the images that were done at
each kill, and a table; the status is 1 where something differs. tests/inference/killed_predict.py kills after every
single operation on a file instead.
"""

import argparse
import json
import random
import sys
import tempfile
import time
from pathlib import Path

from forks import SMALLEST, Fork, row

from clarity_hf.files import UNFINISHED


def main() -> int:
    """Kill until all kills are done and the last run has come to its end."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--seed", type=int, default=None, help="of the moments; default: another each time")
    arguments = parser.parse_args()
    seed = random.SystemRandom().randrange(2**32) if arguments.seed is None else arguments.seed
    print(f"seed {seed}", flush=True)
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        prepare(folder, arguments.images)
        killed, wrong = disturb(folder, arguments.kills, arguments.images, random.Random(seed))
        wrong += differences(folder / "out", folder / "whole", arguments.images)
    row("fault", "tried", "resumed with the same results", "images lost", "twice", "torn")
    row(*["---"] * 6)
    counts = [sum(word in line for line in wrong) for word in ("missing", "twice", "torn")]
    row("SIGKILL at a random moment of predict", killed, 0 if wrong else killed, *counts)
    print("\n".join(wrong))
    return 1 if wrong else 0


def prepare(folder: Path, images: int) -> None:
    """Draw images, save a model, and predict into `whole`, undisturbed. No forward in this process: forks follow."""
    from PIL import Image

    from clarity_hf import ClarityConfig, ClarityForMultiLabelLocalization, ClarityImageProcessor
    from clarity_hf.cli import main as command  # noqa: F401  so that forks have it
    from clarity_hf.phantoms import iterate_phantoms

    (folder / "images").mkdir()
    for index, phantom in enumerate(iterate_phantoms(images, size=64)):
        Image.fromarray(phantom.image).save(folder / "images" / f"{index:04d}.png")
    ClarityForMultiLabelLocalization(ClarityConfig(**SMALLEST)).save_pretrained(folder / "model")
    side = SMALLEST["image_size"]
    ClarityImageProcessor(size={"height": side, "width": side}).save_pretrained(folder / "model")
    run = Fork(lambda: predict(folder, folder / "whole"), folder / "log.txt")
    run.wait()
    if run.ended() != 0:
        raise RuntimeError(run.printed())


def predict(folder: Path, out: Path) -> None:
    """The command, the same every time."""
    from clarity_hf.cli import main as command

    words = [folder / "images", "--model", folder / "model", "--output-dir", out, "--device", "cpu", "--batch-size", 2]
    status = command(["predict", *map(str, words), "--overlays", "--csv"])
    if status:
        raise SystemExit(status)


def disturb(folder: Path, kills: int, images: int, chance: random.Random) -> tuple[int, list[str]]:
    """Kill and start again: how many kills there were, and what was wrong after one."""
    out, wrong, killed = folder / "out", [], 0
    moments = sorted(chance.choices(range(images), k=kills))
    for moment in moments:
        run = Fork(lambda: predict(folder, out), folder / "log.txt")
        run.wait(lambda moment=moment: lines_of(out) >= moment)
        end = time.monotonic() + chance.uniform(0, 0.1)
        run.wait(lambda end=end: time.monotonic() >= end)
        if run.ended() is not None:
            wrong.append(f"a run ended with {run.ended()} before it was killed: {run.printed()[-1500:]}")
            break
        run.kill()
        killed += 1
        done = whole_lines(out)
        wrong += [f"image twice: {name}" for name in {name for name in done if done.count(name) > 1}]
        bare = [name for name in done if not (out / "overlays" / f"{name}.png").exists()]
        wrong += [f"picture missing: {name}" for name in bare]
        print(f"killed with {len(done)} images done", flush=True)
    run = Fork(lambda: predict(folder, out), folder / "log.txt")
    run.wait()
    if run.ended() != 0:
        wrong.append(f"the last run ended with {run.ended()}: {run.printed()[-1500:]}")
    return killed, wrong


def lines_of(out: Path) -> int:
    """Lines that are written, a torn one not counted."""
    path = out / "findings.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def whole_lines(out: Path) -> list[str]:
    """Images of the whole lines."""
    path = out / "findings.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line)["image"] for line in lines if line.endswith("\n")]


def differences(out: Path, whole: Path, images: int) -> list[str]:
    """What of the results differs from those of the undisturbed run, image by image."""
    mine, theirs = ((each / "findings.jsonl").read_text().splitlines() for each in (out, whole))
    found = [f"image torn: {line[:80]}" for line in mine if not line.endswith("}")]
    by_name = [{json.loads(line)["image"]: json.loads(line) for line in lines} for lines in (mine, theirs)]
    found += ["image twice"] * (len(mine) - len(by_name[0]))
    found += [f"image missing: {name}" for name in by_name[1].keys() - by_name[0].keys()]
    for name in by_name[0].keys() & by_name[1].keys():
        one, other = (sorted(each[name]["findings"], key=lambda row: row["label"]) for each in by_name)
        for row_, reference in zip(one, other, strict=True):
            if abs(row_["score"] - reference["score"]) > 1e-5 or len(row_["boxes"]) != len(reference["boxes"]):
                found.append(f"other result: {name}")
    pictures = len(list((out / "overlays").glob("[!.]*.png")))
    rows = len((out / "findings.csv").read_text().splitlines()) - 1
    if (len(by_name[1]), pictures, rows) != (images, images, images):
        found.append(f"missing: {images} images, {pictures} pictures, {rows} rows")
    return found + [f"torn file left: {path.name}" for path in out.rglob(f"{UNFINISHED}*")]


if __name__ == "__main__":
    sys.exit(main())
