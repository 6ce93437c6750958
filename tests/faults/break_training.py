# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Break what a training stands on, start it again, and compare it with one that nothing disturbed.

    python tests/faults/break_training.py [--faults disk file checkpoint best worker process] [--seed N]

- `disk`: the disk fills up in a save, at five sizes, as a tmpfs of too few bytes; needs the right to mount one;
- `file`: no file may grow beyond a limit, at three limits, so that the first save fails;
- `checkpoint`: each file of the last checkpoint with a bit flipped, cut short, or gone, and all checkpoints cut short;
- `best`: a bit of the weights of the best checkpoint, which the run would end with, flipped before the run goes on;
- `worker`: a process that reads images killed by SIGKILL, three times; one that has read all of its own is not missed;
- `process`: one of the two processes of a training, each once.

The training is that of kill_training.py. A broken run must end with an error that names the fault; the same command
must then go on from a whole checkpoint, say what it skipped, and come to the same weights, config and logs, to the
last bit. Printed is a table; the status is 1 where a run differs, goes on from damage or says nothing.
"""

import argparse
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil
from forks import ENVIRONMENT, PATIENCE, STEPS, Fork, row, same_run, step_of, table_head, train, training_words
from forks import write_images as write_training_images

from clarity_hf.training.checkpoint_manifest import best_checkpoint, damage_of, last_intact_checkpoint

MIB = 2**20


class Bench:
    """A folder with images, an undisturbed run, and places for disturbed ones."""

    def __init__(self, folder: Path, chance: random.Random):
        self.folder, self.chance = folder, chance
        self.images, self.whole, self.log = folder / "images", folder / "whole", folder / "log.txt"
        write_training_images(self.images)
        if self.run(self.whole).ended() != 0:
            raise RuntimeError(self.log.read_text())
        self.last = last_intact_checkpoint(self.whole)

    def start(self, out: Path, *more: str, before: Callable[[], object] = lambda: None) -> Fork:
        """A run into a folder, in a fork; something may be done in it first."""

        def work() -> None:
            before()
            train(self.images, out, *more)

        return Fork(work, self.log)

    def run(self, out: Path, *more: str, before: Callable[[], object] = lambda: None) -> Fork:
        """The same, to its end."""
        run = self.start(out, *more, before=before)
        run.wait()
        return run

    def judge(self, out: Path, broken: Fork | None, words: str, *more: str) -> str:
        """Start a broken run again and say how it ended.

        Args:
            out: Its folder.
            broken: The run that ended by the fault, if there was one.
            words: That it must have said.
            more: Arguments.

        Returns:
            `same`, `fell back` where a checkpoint was skipped too, or what is wrong.
        """
        if broken is not None and (broken.ended() != 1 or words not in broken.printed()):
            return f"the broken run ended with {broken.ended()}: {broken.printed()[-1500:]}"
        again = self.run(out, *more)
        if again.ended() != 0:
            return f"the run did not go on, {again.ended()}: {again.printed()[-1500:]}"
        fell = "is damaged and is skipped" in again.printed()
        return same_run(out, self.whole) or ("fell back" if fell else "same")


def full_disk(bench: Bench) -> list[str]:
    """A tmpfs that fills up in a save, and is then made larger."""
    one = sum(path.stat().st_size for path in bench.last.rglob("*"))
    ended = []
    for _ in range(5):
        disk = bench.folder / "disk"
        disk.mkdir(exist_ok=True)
        size = int(one * bench.chance.uniform(1.2, 2.9))
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", disk], check=True)
        try:
            broken = bench.run(disk / "run")
            whole = [path for path in (disk / "run").glob("checkpoint-*") if not damage_of(path, 1)]
            subprocess.run(["mount", "-o", f"remount,size={64 * MIB}", disk], check=True)
            found = bench.judge(disk / "run", broken, "must have room for a checkpoint")
            ended.append(found if whole else f"no checkpoint was left whole; {found}")
        finally:
            subprocess.run(["umount", disk], check=True)
    return ended


def limited_file(bench: Bench) -> list[str]:
    """A limit to the size of a file, below the size of the optimizer's."""
    largest = max(path.stat().st_size for path in bench.last.iterdir())
    ended = []
    for turn in range(3):
        out, limit = bench.folder / f"limited-{turn}", bench.chance.randint(largest // 8, largest - 1)
        bench.log = bench.folder / f"limited-{turn}.txt"

        def restrict(limit: int = limit) -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

        broken = bench.run(out, before=restrict)
        ended.append(bench.judge(out, broken, "must have room for a checkpoint"))
    return ended


def stopped_run(bench: Bench) -> tuple[Path, Path]:
    """The folder of a run that was killed on its way, and a copy to put it back from."""
    out, kept = bench.folder / "stopped", bench.folder / "kept"
    if not kept.exists():
        run = bench.start(out)
        run.wait(lambda: step_of(run.printed()) >= 22)
        run.kill()
        shutil.copytree(out, kept)
    if out.exists():
        shutil.rmtree(out)
    shutil.copytree(kept, out)
    return out, kept


def flip(path: Path, chance: random.Random) -> None:
    """Change one bit of a file."""
    content = bytearray(path.read_bytes())
    content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    path.write_bytes(content)


def cut(path: Path, chance: random.Random) -> None:
    """Leave the beginning of a file."""
    os.truncate(path, chance.randrange(path.stat().st_size))


def remove(path: Path, chance: random.Random) -> None:
    """Remove a file."""
    path.unlink()


def damaged_checkpoint(bench: Bench) -> list[str]:
    """Each file of the last checkpoint in each way, and all checkpoints at once."""
    ended = []
    out, _ = stopped_run(bench)
    last = last_intact_checkpoint(out)
    names = sorted(path.name for path in last.iterdir() if path.stat().st_size)
    for name in names:
        for damage in (flip, cut, remove):
            stopped_run(bench)
            damage(last / name, bench.chance)
            found = bench.judge(out, None, "")
            # Without its manifest a checkpoint is one of an earlier version; some bits of a manifest are white space.
            expected = ("same", "fell back") if name == "whole.json" and damage is not cut else ("fell back",)
            ended.append(found if found in expected else f"{damage.__name__} {name}: {found}")
    stopped_run(bench)
    for path in out.glob("checkpoint-*/model.safetensors"):
        cut(path, bench.chance)
    ended.append(bench.judge(out, None, ""))
    return ended


def damaged_best(bench: Bench) -> list[str]:
    """The best checkpoint, where it is not the last one."""
    out, _ = stopped_run(bench)
    last = last_intact_checkpoint(out)
    best = Path(best_checkpoint(last))
    if best == last:
        return ["the best checkpoint is the last one: nothing was tried"]
    flip(best / "model.safetensors", bench.chance)
    run = bench.run(out)
    refused = run.ended() == 1 and "must be intact" in run.printed()
    return ["refused" if refused else f"ended with {run.ended()}: {run.printed()[-1500:]}"]


def lost_worker(bench: Bench) -> list[str]:
    """A process that reads images, killed at a random step."""
    ended = []
    workers = ("--dataloader_num_workers", "2", "--dataloader_prefetch_factor", "1")
    for turn in range(3):
        out, step = bench.folder / f"worker-{turn}", bench.chance.randint(1, STEPS - 12)
        run = bench.start(out, *workers)

        def children(run: Fork = run) -> list[psutil.Process]:
            return psutil.Process(run.pid).children()

        run.wait(lambda run=run, step=step: step_of(run.printed()) >= step)
        run.wait(lambda children=children: len(children()) == 2)
        bench.chance.choice(children()).kill()
        run.wait()
        if run.ended() == 0:  # it had read all its images
            ended.append(same_run(out, bench.whole) or "same")
        else:
            ended.append(bench.judge(out, run, "DataLoader worker", *workers))
    return ended


def lost_process(bench: Bench) -> list[str]:
    """One of two processes of a training, killed at a random step; the other must end too."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    more = ["--ddp_backend", "gloo", "--per_device_train_batch_size", "4"]

    def launch(out: Path, log: Path) -> subprocess.Popen:
        words = [*launcher, "-m", "clarity_hf", "train", *training_words(bench.images, out), *more]
        with log.open("a") as output:
            return subprocess.Popen(words, env=ENVIRONMENT, stdout=output, stderr=output)

    whole = bench.folder / "whole-of-two"
    if launch(whole, bench.folder / "two.txt").wait(PATIENCE) != 0:
        raise RuntimeError((bench.folder / "two.txt").read_text())
    ended = []
    for rank in (0, 1):
        out, log, step = bench.folder / f"two-{rank}", bench.folder / f"two-{rank}.txt", bench.chance.randint(5, 20)
        run = launch(out, log)
        until(lambda log=log, step=step: log.exists() and step_of(log.read_text()) >= step)
        family = psutil.Process(run.pid).children(recursive=True)
        next(each for each in family if each.environ().get("RANK") == str(rank)).kill()
        began = time.monotonic()
        status = run.wait(PATIENCE)
        print(f"process {rank} killed after step {step}: the other ended within {time.monotonic() - began:.1f} s")
        if status == 0 or any(each.is_running() for each in family):
            ended.append(f"ended with {status}")
            continue
        status = launch(out, log).wait(PATIENCE)
        ended.append("same" if status == 0 and not same_run(out, whole) else log.read_text()[-1500:])
    return ended


def until(condition: Callable[[], bool]) -> None:
    """Wait until something is so.

    Raises:
        TimeoutError: It does not come.
    """
    end = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError
        time.sleep(0.01)


FAULTS = {
    "disk": ("disk full in a save", full_disk),
    "file": ("no room for the first checkpoint", limited_file),
    "checkpoint": ("checkpoint damaged: a bit flipped, cut short, a file gone", damaged_checkpoint),
    "best": ("best checkpoint damaged", damaged_best),
    "worker": ("a worker that reads images killed", lost_worker),
    "process": ("one of two processes killed", lost_process),
}


def main() -> int:
    """Try the faults and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faults", nargs="+", choices=FAULTS, default=list(FAULTS))
    parser.add_argument("--seed", type=int, default=None, help="of the moments and bits; default: another each time")
    arguments = parser.parse_args()
    import clarity_hf.training.train  # noqa: F401  so that forks have it

    seed = random.SystemRandom().randrange(2**32) if arguments.seed is None else arguments.seed
    print(f"seed {seed}", flush=True)
    wrong: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), random.Random(seed))
        table_head()
        for name in arguments.faults:
            words, attempt = FAULTS[name]
            ended = attempt(bench)
            fell = ended.count("fell back")
            good = ended.count("same") + fell
            refused = ended.count("refused")
            lost = [found for found in ended if found not in ("same", "fell back", "refused")]
            row(words, len(ended), good, fell, refused, len(lost))
            wrong += [f"{name}: {found}" for found in lost]
    print("\n".join(wrong))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
