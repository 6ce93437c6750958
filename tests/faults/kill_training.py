# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Kill a training by SIGKILL at random moments, start it again each time, and compare it with one never killed.

    python tests/faults/kill_training.py [--kills 20] [--seed N]

A training of 36 steps, with an evaluation and a checkpoint every fourth, by the recipe of `clarity-hf train`. The
moments are drawn over all of it: while it starts, inside a step or an evaluation, and while the final model is
written; every third is drawn inside the next save of a checkpoint, which takes some hundredths of a second. Whenever a
run comes to its end, its weights, its config with the thresholds and its logs must be those of the run that was never
killed, to the last bit. Printed is what each kill met, and a table; the status is 1 where a run differs.
"""

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path

from forks import STEPS, Fork, row, same_run, step_of, table_head, train, write_images

from clarity_hf.training.checkpoint_manifest import damage_of


def main() -> int:
    """Kill until all kills are done and the last run has come to its end."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=None, help="of the moments; default: another each time")
    arguments = parser.parse_args()
    import clarity_hf.training.train  # noqa: F401  so that forks have it

    seed = random.SystemRandom().randrange(2**32) if arguments.seed is None else arguments.seed
    print(f"seed {seed}", flush=True)
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        write_images(folder / "images")
        times = undisturbed(folder)
        met, differs, runs = disturb(folder, times, arguments.kills, chance)
    told = [what for what in met if what["fell back"]]
    torn = sum(what["torn"] for what in met)
    resumed = sum(what["resumed"] for what in met)
    print(f"{len(met)} kills in {runs} runs: {torn} inside a save, {resumed} with a whole checkpoint to go on from")
    good = 0 if differs else len(met)
    table_head()
    row("SIGKILL at a random moment of a training", len(met), good, len(told), 0, len(met) - good)
    print("\n".join(differs))
    return 1 if differs or len(told) < torn else 0


def undisturbed(folder: Path) -> dict[str, float]:
    """Train to the end into `whole`, and tell how long its parts took, in seconds."""
    began = time.monotonic()
    run = Fork(lambda: train(folder / "images", folder / "whole"), folder / "log.txt")
    run.wait(lambda: step_of(run.printed()) > 0)
    started = time.monotonic()
    run.wait(lambda: step_of(run.printed()) >= STEPS)
    stepped = time.monotonic()
    run.wait()
    if run.ended() != 0:
        raise RuntimeError(run.printed())
    return {
        "start": started - began,
        "step": (stepped - started) / STEPS,
        "end": time.monotonic() - stepped,
        "save": 0.02,
    }


def disturb(folder: Path, times: dict[str, float], kills: int, chance: random.Random) -> tuple[list, list[str], int]:
    """Kill runs and start them again: what each kill met, what ended differently, and how many runs were ended."""
    met: list[dict] = []
    differs: list[str] = []
    moments = sorted(chance.choices(range(STEPS + 1), k=kills))
    runs = 0
    out = folder / "run-0"
    while True:
        target = moments[len(met)] if len(met) < kills else None
        run = Fork(lambda out=out: train(folder / "images", out), folder / "log.txt")
        if target is not None:
            part = "start" if target == 0 else "end" if target == STEPS else "step"
            run.wait(lambda run=run, target=target: step_of(run.printed()) >= target)
            if len(met) % 3 == 2:
                run.wait(lambda run=run, out=out: is_saving(out) or step_of(run.printed()) >= STEPS)
                part = "save"
            end = time.monotonic() + chance.uniform(0, times[part])
            run.wait(lambda end=end: time.monotonic() >= end)
            if run.ended() is None:
                run.kill()
        else:
            run.wait()
        if met:
            # A run that ends before its kill is followed by one in another folder, which says nothing of this kill.
            met[-1]["fell back"] |= "is damaged and is skipped" in run.printed()
            met[-1]["resumed"] |= "resuming from" in run.printed()
        if run.ended() == 0:
            runs += 1
            difference = same_run(out, folder / "whole")
            differs += [f"run {runs}: {difference}"] if difference else []
            out = folder / f"run-{runs}"
            if target is None:
                return met, differs, runs
        elif target is None or run.ended() != -9:
            return met, [*differs, f"a run ended with {run.ended()}: {run.printed()[-2000:]}"], runs
        else:
            met.append(what_is_there(out, part, step_of(run.printed())))
            print(f"killed {met[-1]['when']}", flush=True)


def is_saving(out: Path) -> bool:
    """Whether a checkpoint is being written."""
    return any(not (path / "trainer_state.json").exists() for path in out.glob("checkpoint-*"))


def what_is_there(out: Path, part: str, step: int) -> dict:
    """What a kill left: after which step, whether the last checkpoint is torn, and what is half written, in words.

    A torn one before a whole one was being deleted; nobody looks at it again.
    """
    found = sorted(out.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    damaged = [bool(damage_of(path, 1)) for path in found]
    torn = [path.name for path, broken in zip(found, damaged, strict=True) if broken]
    unfinished = torn + [path.name for path in out.glob(".unfinished*")]
    left = f", {' and '.join(unfinished)} half written" if unfinished else ""
    where = "while it started" if part == "start" else f"after step {step}"
    return {"torn": damaged[-1:] == [True], "when": where + left, "fell back": False, "resumed": False}


if __name__ == "__main__":
    sys.exit(main())
