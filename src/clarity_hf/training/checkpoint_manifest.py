# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Manifests of a run's checkpoints, by which damaged ones are found before a run resumes from them.

The Trainer writes a checkpoint in place, file by file. A manifest is added once all files are written. Checkpoints
that a kill, a full disk or a failing disk left damaged are skipped or refused.
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

from clarity_hf.files import UNFINISHED, replaced_file

logger = logging.getLogger(__name__)

SEAL = "whole.json"
"""A checkpoint's manifest, written last: size in bytes and hash (BLAKE2b, 16 bytes) of every other file by path."""

STATE = "trainer_state.json"
"""The last file that the Trainer writes."""


class CheckpointManifestCallback(TrainerCallback):
    """Writes each checkpoint's manifest when every process has written its part, see [`write_manifest`].

    Folders of the trials of a hyperparameter search get none.
    """

    def on_save(self, args: TrainingArguments, state: Any, control: Any, **kwargs: Any) -> None:
        """Write the manifest of the new checkpoint.

        Raises:
            OSError: The disk has no room for it.
        """
        PartialState().wait_for_everyone()  # another process may still be writing its random state
        checkpoint = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        if args.should_save and checkpoint.is_dir():
            try:
                write_manifest(checkpoint)
            except OSError as error:
                raise _save_failure(checkpoint, error) from error

    def on_train_end(self, args: TrainingArguments, state: Any, control: Any, **kwargs: Any) -> None:
        """Refuse the best epoch's weights, just loaded, if they were damaged after they were saved.

        Raises:
            ValueError: They were damaged.
        """
        # A second machine without a shared disk has random states only.
        if args.should_save and args.load_best_model_at_end and state.best_model_checkpoint:
            require_whole(state.best_model_checkpoint)


def write_manifest(checkpoint: str | os.PathLike) -> None:
    """Write `whole.json` into a checkpoint atomically.

    Args:
        checkpoint: Folder of a finished checkpoint.

    Raises:
        OSError: A file cannot be read or the manifest cannot be written.
    """
    folder = Path(checkpoint)
    files = sorted(
        path
        for path in folder.rglob("*")
        if path.is_file() and path.name != SEAL and not path.name.startswith(UNFINISHED)
    )
    sealed = {path.relative_to(folder).as_posix(): _size_and_hash(path) for path in files}
    with replaced_file(folder / SEAL) as made:
        made.write_text(json.dumps({"files": sealed}, indent=2) + "\n", encoding="utf-8")


def damage_of(checkpoint: str | os.PathLike, processes: int | None = None) -> str:
    """Describe what is missing from a checkpoint or has changed; an empty string if it is intact.

    Files are compared with the manifest, to the last bit. A checkpoint without a manifest is from an earlier version
    or its run was killed before writing it: its state must be JSON, its weights as long as their header says, and
    files of `torch.save` must match their own checksums.

    Args:
        checkpoint: Folder of the checkpoint.
        processes: Number of processes of the run, each of which has a random state; None to accept any number.
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
    """Whether a checkpoint is complete and unchanged, see [`damage_of`]."""
    return not damage_of(checkpoint, processes)


def require_whole(checkpoint: str | os.PathLike) -> None:
    """Refuse a damaged checkpoint; a missing folder is left to the Trainer, which reports it.

    Raises:
        ValueError: Part of the checkpoint is missing or has changed.
    """
    damage = damage_of(checkpoint) if Path(checkpoint).is_dir() else ""
    if damage:
        raise ValueError(
            f"`checkpoint` must be as it was written, got {checkpoint}: {damage}. Delete it and repeat the command: "
            "the run resumes from another checkpoint, and ends with its last weights if the best ones are lost."
        )


def best_checkpoint(checkpoint: str | os.PathLike) -> str | None:
    """Path of the best checkpoint so far according to a checkpoint's state, or None."""
    state = json.loads((Path(checkpoint) / STATE).read_text(encoding="utf-8"))
    return state.get("best_model_checkpoint")


@contextlib.contextmanager
def named_save_failures(trainer: Trainer) -> Iterator[None]:
    """Wrap `trainer.train`, so that an error of a library about a full disk names the unfinished checkpoint.

    Args:
        trainer: A Trainer with a [`CheckpointManifestCallback`].

    Raises:
        OSError: A checkpoint could not be written. Earlier ones are unchanged.
    """
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:  # torch and safetensors differ
        checkpoint = Path(trainer.args.output_dir) / f"checkpoint-{trainer.state.global_step}"
        if not (trainer.control.should_save and checkpoint.is_dir() and damage_of(checkpoint)):
            raise
        raise _save_failure(checkpoint, error) from error


def has_state(checkpoint: Path) -> bool:
    """Whether the Trainer's state, which the main process writes last, is complete."""
    try:
        json.loads((checkpoint / STATE).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):  # invalid UTF-8 is a ValueError too
        return False
    return True


def processes_of(checkpoint: Path, recorded: int | None = None) -> int | None:
    """Number of processes that wrote a checkpoint with a complete state, or None if that cannot be determined.

    Args:
        checkpoint: Folder of the checkpoint.
        recorded: Number that the run recorded, if known: a kill may have left fewer random states.

    Raises:
        ValueError: The checkpoint has weights only, because it was saved with `save_only_model`.
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
    """The last intact checkpoint of a folder, or None; damaged ones are skipped with a warning that says why.

    Args:
        folder: Output folder of a run.
        processes: Number of processes of this run; only a checkpoint of as many can be resumed exactly.
        recorded: Number of processes with which the folder's run was started, if known.

    Raises:
        ValueError: A checkpoint was written by another number of processes, or has weights only.
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
        "Free space and repeat the command: the run resumes from its last intact checkpoint."
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
