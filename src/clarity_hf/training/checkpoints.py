# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Checkpoints of a run: sealed once all of one is written, and checked against the seal before a run goes on from it.

The Trainer writes a checkpoint in place, file by file. What a kill, a full disk or a failing disk left of one is found
here and passed over, or refused; no run goes on from it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from accelerate import PartialState
from safetensors import SafetensorError, safe_open
from transformers import Trainer, TrainerCallback, TrainingArguments

logger = logging.getLogger(__name__)

SEAL = "whole.json"
"""File of a checkpoint, its last: size in bytes and hash (BLAKE2b, 16 bytes) of every other file, by its path."""

STATE = "trainer_state.json"
"""The Trainer's own last file."""


class SealCheckpoints(TrainerCallback):
    """Seals each checkpoint when every process has written its part, see [`seal_checkpoint`].

    Folders that a search over hyperparameters makes of its trials are not sealed.
    """

    def on_save(self, args: TrainingArguments, state: Any, control: Any, **kwargs: Any) -> None:
        """Seal what was just written.

        Raises:
            OSError: There is no room for the seal.
        """
        PartialState().wait_for_everyone()  # another process may still be writing its random state
        checkpoint = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        if args.should_save and checkpoint.is_dir():
            try:
                seal_checkpoint(checkpoint)
            except OSError as error:
                raise _save_failure(checkpoint, error) from error

    def on_train_end(self, args: TrainingArguments, state: Any, control: Any, **kwargs: Any) -> None:
        """Refuse weights of the best epoch, just loaded, that were damaged since their save.

        Raises:
            ValueError: They were.
        """
        # A second machine without a shared disk holds random states alone.
        if args.should_save and args.load_best_model_at_end and state.best_model_checkpoint:
            require_whole(state.best_model_checkpoint)


def seal_checkpoint(checkpoint: str | os.PathLike) -> None:
    """Write `whole.json` into a checkpoint, whole or not at all.

    Args:
        checkpoint: Its folder, to which nobody writes any more.

    Raises:
        OSError: A file cannot be read, or the seal not written.
    """
    folder = Path(checkpoint)
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name not in (SEAL, f"{SEAL}.part"))
    sealed = {path.relative_to(folder).as_posix(): _size_and_hash(path) for path in files}
    part = folder / f"{SEAL}.part"
    part.write_text(json.dumps({"files": sealed}, indent=2) + "\n", encoding="utf-8")
    part.replace(folder / SEAL)


def damage_of(checkpoint: str | os.PathLike, processes: int | None = None) -> str:
    """What of a checkpoint is missing or not as it was written, for a message; empty where it is whole.

    A sealed one is compared with its seal, to the last bit. One without a seal is of an earlier version, or its run
    was killed between the last file and the seal: its state must be JSON, its weights as long as their header says,
    and what `torch.save` wrote must have the checksums that it was written with.

    Args:
        checkpoint: Its folder.
        processes: Of the run: so many random states must be there. None to take those that are.
    """
    folder = Path(checkpoint)
    if not has_state(folder):
        return f"{STATE} is missing or torn"
    if processes is not None:
        names = ["rng_state.pth"] if processes == 1 else [f"rng_state_{index}.pth" for index in range(processes)]
        missing = [name for name in names if not (folder / name).is_file()]
        if missing:
            return f"{', '.join(missing)} missing"
    return _damage_by_seal(folder) if (folder / SEAL).exists() else _damage_by_format(folder)


def is_whole(checkpoint: str | os.PathLike, processes: int) -> bool:
    """Whether all of a checkpoint is there as it was written, see [`damage_of`]."""
    return not damage_of(checkpoint, processes)


def require_whole(checkpoint: str | os.PathLike) -> None:
    """Refuse a damaged checkpoint; a path where none is, is left to the Trainer, which says so.

    Raises:
        ValueError: Part of it is missing or not as it was written.
    """
    damage = damage_of(checkpoint) if Path(checkpoint).is_dir() else ""
    if damage:
        raise ValueError(
            f"`checkpoint` must be as it was written, got {checkpoint}: {damage}. Delete it and give the same command "
            "again: the run goes on from another checkpoint, and without the best one ends with its last weights."
        )


def best_checkpoint(checkpoint: str | os.PathLike) -> str | None:
    """Path of the best checkpoint so far, as the state in a checkpoint names it, or None."""
    state = json.loads((Path(checkpoint) / STATE).read_text(encoding="utf-8"))
    return state.get("best_model_checkpoint")


@contextlib.contextmanager
def named_save_failures(trainer: Trainer) -> Iterator[None]:
    """Around `trainer.train`: what a library says of a full disk, with the checkpoint that it was to write.

    Args:
        trainer: With [`SealCheckpoints`] among its callbacks.

    Raises:
        OSError: A checkpoint could not be written. The earlier ones are as they were.
    """
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:  # of torch and safetensors, each in its own words
        checkpoint = Path(trainer.args.output_dir) / f"checkpoint-{trainer.state.global_step}"
        if not (trainer.control.should_save and checkpoint.is_dir() and damage_of(checkpoint)):
            raise
        raise _save_failure(checkpoint, error) from error


def has_state(checkpoint: Path) -> bool:
    """Whether the Trainer's state, which the main process writes last, was written to its end."""
    try:
        json.loads((checkpoint / STATE).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):  # no UTF-8 is a ValueError too
        return False
    return True


def processes_of(checkpoint: Path, recorded: int | None = None) -> int | None:
    """How many processes wrote a checkpoint that has its state, or None where a kill left too little to tell.

    Args:
        checkpoint: Its folder.
        recorded: By the run, if known: a kill may have left fewer random states.

    Raises:
        ValueError: It holds weights alone, as the Trainer saves them with `save_only_model`.
    """
    names = {path.name for path in checkpoint.glob("rng_state*.pth")}
    if not names and not (checkpoint / "optimizer.pt").exists():
        raise ValueError(
            f"`output_dir` must hold checkpoints with an optimizer, got {checkpoint} with weights alone: it cannot be "
            "resumed. Leave --save_only_model out and give another --output_dir or delete the folder."
        )
    if "rng_state.pth" in names:
        return 1
    return recorded or (len(names) if len(names) > 1 else None)


def last_whole_checkpoint(folder: str | Path, processes: int = 1, recorded: int | None = None) -> Path | None:
    """The last checkpoint of a folder that is whole, or None; what is passed over is named in a warning, with why.

    Args:
        folder: Output folder of a run.
        processes: Of the run; a checkpoint of another number of processes cannot be resumed exactly.
        recorded: Number of processes with which the folder's run was started, if known.

    Raises:
        ValueError: A checkpoint is of another number of processes, or of weights alone.
    """
    found = [path for path in Path(folder).glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", path.name)]
    for checkpoint in sorted(found, key=lambda path: int(path.name.split("-")[1]), reverse=True):
        if has_state(checkpoint):
            written = processes_of(checkpoint, recorded)
            if written not in (None, processes):
                raise ValueError(
                    f"`output_dir` must be of a run with {processes} processes, got {checkpoint} of {written}. "
                    "Start as many processes as before, or give another --output_dir."
                )
        damage = damage_of(checkpoint, processes)
        if not damage:
            return checkpoint
        logger.warning("%s is not whole and is passed over: %s.", checkpoint, damage)
    if found:
        logger.warning("%s holds no whole checkpoint: the run starts from its beginning.", folder)
    return None


def _save_failure(checkpoint: Path, error: Exception) -> OSError:
    return OSError(
        f"`output_dir` must have room for a checkpoint, got a failure while {checkpoint} was written: {error}. "
        "Free space and give the same command again: the run goes on from its last whole checkpoint."
    )


def _size_and_hash(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16))
    return {"bytes": path.stat().st_size, "blake2b": digest.hexdigest()}


def _damage_by_seal(folder: Path) -> str:
    try:
        sealed = json.loads((folder / SEAL).read_text(encoding="utf-8"))["files"].items()
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"{SEAL} cannot be read"
    for name, expected in sealed:
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if _size_and_hash(path) != expected:
            return f"{name} is not as it was written"
    return ""


def _damage_by_format(folder: Path) -> str:
    for path in sorted(folder.iterdir()):
        try:
            if path.suffix in (".pt", ".pth", ".bin"):  # zip archives of torch.save
                with zipfile.ZipFile(path) as archive:
                    if archive.testzip() is not None:
                        return f"{path.name} fails its checksums"
            elif path.suffix == ".safetensors":
                with safe_open(path, framework="pt"):
                    pass
        except (zipfile.BadZipFile, SafetensorError, NotImplementedError, RuntimeError, EOFError, ValueError) as error:
            return f"{path.name} cannot be read ({type(error).__name__})"
    return ""
