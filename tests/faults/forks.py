# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""What the programs of this folder share: a command in a fork of this process, and a tiny training to disturb.

A fork starts at once, as what it imports is there. Nothing is computed before it: threads of torch would be lost.
"""

import contextlib
import json
import os
import re
import signal
import sys
import time
import traceback
from pathlib import Path

os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
ENVIRONMENT = os.environ | {"PYTHONUNBUFFERED": "1"}

import torch  # noqa: E402
from safetensors.torch import load_file  # noqa: E402

PATIENCE = 180.0
"""Seconds after which something that does not come is a hang."""

TINY = {
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 48,
    "class_attention_layers": 2,
    "cam_size": 16,
    "cam_groups": 4,
    "hidden_dropout_prob": 0.1,
}
SMALLEST = {
    "hidden_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 96,
    "image_size": 64,
    "class_attention_layers": 2,
    "cam_size": 16,
    "cam_groups": 4,
}
STEPS, SAVE_STEPS = 36, 4
TRAINING = [
    *("--config", json.dumps(TINY), "--image_size", "32", "--min_positives", "1"),
    *("--use_cpu", "--bf16", "False", "--per_device_train_batch_size", "8", "--per_device_eval_batch_size", "50"),
    *("--max_steps", str(STEPS), "--learning_rate", "1e-3", "--logging_steps", "1"),
    *("--save_strategy", "steps", "--save_steps", str(SAVE_STEPS), "--eval_strategy", "steps"),
    *("--eval_steps", str(SAVE_STEPS), "--disable_tqdm", "True", "--dataloader_num_workers", "0"),
]
"""36 steps of 8 images, augmented, with dropout, under a falling rate; the best of nine checkpoints at the end."""


class Fork:
    """A function in a process of its own, what it prints at the end of a file.

    Args:
        work: Called without arguments; what it raises is printed and makes the status 1.
        log: File for stdout and stderr.
    """

    def __init__(self, work, log):
        self.log, self.status = Path(log), None
        self.log.touch()
        self.before = self.log.stat().st_size
        self.pid = os.fork()
        if self.pid == 0:
            self._run(work)

    def _run(self, work):
        status = 1
        try:
            os.setpgid(0, 0)
            with self.log.open("a") as output:
                os.dup2(output.fileno(), 1)
                os.dup2(output.fileno(), 2)
            for stream in (sys.stdout, sys.stderr):
                stream.reconfigure(line_buffering=True)
            work()
            status = 0
        except BaseException:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch's raises for each reader that ends, here too
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)

    def printed(self):
        """What this process has printed so far."""
        with self.log.open(errors="replace") as file:
            file.seek(self.before)
            return file.read()

    def ended(self):
        """Its status once it has ended, minus the signal that ended it; None before."""
        if self.status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.status = os.waitstatus_to_exitcode(status)
        return self.status

    def wait(self, condition=lambda: False, seconds=PATIENCE):
        """Wait until something is so or the process has ended; whether it is so.

        Raises:
            TimeoutError: Neither comes.
        """
        end = time.monotonic() + seconds
        while not condition():
            if self.ended() is not None:
                return False
            if time.monotonic() > end:
                self.kill()
                raise TimeoutError(f"nothing after {seconds} s: {self.printed()[-2000:]}")
            time.sleep(0.002)
        return True

    def kill(self):
        """End it by SIGKILL, and the workers that it started, which would end by themselves later."""
        if self.ended() is None:
            os.kill(self.pid, signal.SIGKILL)
            self.status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)


def write_images(folder):
    """80 small phantoms on the disk, laid out as the NIH release."""
    from clarity_hf.phantoms import write_phantoms

    write_phantoms(folder, 80, seed=0, size=48)
    return folder


def training_words(images, folder):
    """Arguments of `clarity-hf train` for the tiny training, the same every time."""
    return ["--data_dir", str(images), "--output_dir", str(folder), *TRAINING]


def train(images, folder, *more):
    """The recipe of `clarity-hf train` into a folder; what is more overrides the tiny training's arguments."""
    from clarity_hf.training import train as training

    training.main([*training_words(images, folder), *more])


def step_of(printed):
    """Last step that a training has logged, 0 before the first."""
    resumed = re.search(r"resuming from .*checkpoint-(\d+)", printed)
    losses = printed.count("{'loss': ")
    return (int(resumed[1]) if resumed else 0) + losses if losses else 0


def same_run(folder, whole):
    """What of a finished run differs from the undisturbed one, to the last bit; empty where nothing does."""
    folder, whole = Path(folder), Path(whole)
    if not (folder / "model.safetensors").exists():
        return "no final model"
    one, other = (load_file(each / "model.safetensors") for each in (folder, whole))
    if one.keys() != other.keys() or any(not torch.equal(one[name], other[name]) for name in one):
        return "other weights"
    if (folder / "config.json").read_bytes() != (whole / "config.json").read_bytes():
        return "another config"
    if curve(folder) != curve(whole):
        return "another curve"
    return "something unfinished" if list(folder.glob(".unfinished*")) else ""


def curve(folder):
    """Logs of every step and evaluation, without what a clock measures."""
    history = json.loads((Path(folder) / "trainer_state.json").read_text(encoding="utf-8"))["log_history"]
    timed = ("runtime", "per_second")
    logs = [{name: value for name, value in log.items() if not name.endswith(timed)} for log in history]
    return [log for log in logs if "loss" in log or "eval_loss" in log]


def row(*cells):
    """A line of a table."""
    print(f"| {' | '.join(str(cell) for cell in cells)} |", flush=True)


def table_head():
    """Head of a table of faults."""
    row("fault", "tried", "went on on the same curve", "of them fell back and said so", "refused", "lost")
    row(*["---"] * 6)
