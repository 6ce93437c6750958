# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Which checkpoint a run resumes from, and manifests that reveal damaged checkpoints.

The Trainer writes a checkpoint file by file, and a manifest is added at the end. Checkpoints that a kill, a full disk
or a failing disk damaged are skipped or refused.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from accelerate import PartialState
from safetensors import SafetensorError, safe_open
from transformers import Trainer, TrainerCallback, TrainingArguments

from clarity_hf.files import UNFINISHED, replaced_file

logger = logging.getLogger(__name__)

MANIFEST = "whole.json"
"""A checkpoint's manifest: size in bytes and hash (BLAKE2b, 16 bytes) of every other file by path."""

STATE = "trainer_state.json"
"""The last file that the Trainer writes."""

COMPARED = (
    *("seed", "data_seed", "per_device_train_batch_size", "gradient_accumulation_steps", "learning_rate"),
    *("weight_decay", "layer_decay", "matrix_optimizer", "optim", "adam_beta1", "adam_beta2", "adam_epsilon"),
    *("distillation_alpha", "distillation_temperature", "map_distillation_weight"),
    *("patch_dropout", "patch_dropout_epochs", "muon_iterations"),
)
"""Arguments of the Trainer that distinguish runs. The number of epochs does not, as a run may be extended."""


class CheckpointManifestCallback(TrainerCallback):
    """Writes the manifest of each checkpoint when every process has written its part, see [`write_manifest`].

    Trials of a hyperparameter search get none.
    """

    def on_save(self, args: TrainingArguments, state: Any, control: Any, **kwargs: Any) -> None:
        """Write the manifest of the new checkpoint.

        Raises:
            OSError: The disk is full.
        """
        PartialState().wait_for_everyone()  # another process may still be writing its random state
        checkpoint = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        if args.should_save and checkpoint.is_dir():
            try:
                write_manifest(checkpoint)
            except OSError as error:
                raise _save_failure(checkpoint, error) from error

    def on_train_end(self, args: TrainingArguments, state: Any, control: Any, **kwargs: Any) -> None:
        """Raise ValueError if the best epoch's weights, which were just loaded, were damaged after they were saved."""
        # A second machine without a shared disk only has random states.
        if args.should_save and args.load_best_model_at_end and state.best_model_checkpoint:
            require_intact(state.best_model_checkpoint)


def write_manifest(checkpoint: str | os.PathLike) -> None:
    """Write `whole.json` into the folder of a finished checkpoint atomically; raises OSError if that fails."""
    folder = Path(checkpoint)
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(UNFINISHED))
    listed = {path.relative_to(folder).as_posix(): _size_and_hash(path) for path in files if path.name != MANIFEST}
    with replaced_file(folder / MANIFEST) as made:
        made.write_text(json.dumps({"files": listed}, indent=2) + "\n", encoding="utf-8")


def damage_of(checkpoint: str | os.PathLike, processes: int | None = None) -> str:
    """Describe what is missing from a checkpoint or has changed; an empty string if it is intact.

    Files are compared with the manifest, to the last bit. A checkpoint without a manifest is from an earlier version,
    or its run was killed before writing it: its state must be JSON, its weights as long as their header says, and
    files of `torch.save` must match their own checksums. If `processes` is given, each of them must have a random
    state.
    """
    folder = Path(checkpoint)
    if not _has_state(folder):
        return f"{STATE} is missing or incomplete"
    if processes is not None:
        names = ["rng_state.pth"] if processes == 1 else [f"rng_state_{index}.pth" for index in range(processes)]
        missing = [name for name in names if not (folder / name).is_file()]
        if missing:
            return f"{', '.join(missing)} missing"
    return _damage_by_manifest(folder) if (folder / MANIFEST).exists() else _damage_by_format(folder)


def require_intact(checkpoint: str | os.PathLike) -> None:
    """Raise ValueError for a damaged checkpoint; a missing folder is left to the Trainer, which reports it."""
    damage = damage_of(checkpoint) if Path(checkpoint).is_dir() else ""
    if damage:
        raise ValueError(
            f"`checkpoint` must be intact, got {checkpoint}: {damage}. Delete it and repeat the command: the run "
            "resumes from another checkpoint, and ends with its last weights if the best ones are lost."
        )


def best_checkpoint(checkpoint: str | os.PathLike) -> str | None:
    """Path of the best checkpoint so far according to a checkpoint's state, or None."""
    return json.loads((Path(checkpoint) / STATE).read_text(encoding="utf-8")).get("best_model_checkpoint")


@contextlib.contextmanager
def named_save_failures(trainer: Trainer) -> Iterator[None]:
    """Wrap `trainer.train`, so that a library's error about a full disk names the unfinished checkpoint.

    Raises:
        OSError: A checkpoint could not be written. Earlier ones are unchanged.
    """
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:  # of torch and of safetensors
        checkpoint = Path(trainer.args.output_dir) / f"checkpoint-{trainer.state.global_step}"
        if not (trainer.control.should_save and checkpoint.is_dir() and damage_of(checkpoint)):
            raise
        raise _save_failure(checkpoint, error) from error


def _has_state(checkpoint: Path) -> bool:
    """Whether the Trainer's state, which the main process writes last, is complete."""
    try:
        return json.loads((checkpoint / STATE).read_text(encoding="utf-8")) is not None
    except (FileNotFoundError, ValueError):  # invalid UTF-8 is a ValueError too
        return False


def _processes_of(checkpoint: Path, recorded: int | None) -> int | None:
    """Number of processes that wrote a checkpoint; a kill may have left fewer random states than the run recorded."""
    names = {path.name for path in checkpoint.glob("rng_state*.pth")}
    if not names and not (checkpoint / "optimizer.pt").exists():
        raise ValueError(
            f"`output_dir` must hold checkpoints with an optimizer, got {checkpoint} with weights alone: it cannot be "
            "resumed. Leave --save_only_model out and give another --output_dir or delete the folder."
        )
    if "rng_state.pth" in names:
        return 1
    return recorded or (len(names) if len(names) > 1 else None)


def last_checkpoint(args: TrainingArguments, described: Mapping[str, Any]) -> str | None:
    """Path of the last intact checkpoint in the output folder if it belongs to the same run; None without one.

    The run is described by `COMPARED` arguments of the Trainer and by `described`, JSON values by name, which the
    process that saves writes into `run.json`. Damaged checkpoints are skipped with a warning.

    Raises:
        ValueError: The folder has checkpoints of another run, of another number of processes or without optimizer, or
            no readable record of the run that made them.
    """
    folder = Path(args.output_dir)
    record = folder / "run.json"
    earlier = _read_record(record) if record.is_file() else {}
    checkpoint = last_intact_checkpoint(folder, args.world_size, earlier.get("processes"))
    settings = {name: getattr(args, name) for name in COMPARED if hasattr(args, name)}
    if checkpoint:
        if not record.is_file():
            raise ValueError(
                f"`output_dir` must hold {record.name} beside its checkpoints, got {checkpoint} of an unknown run. "
                "Give another --output_dir, or name the checkpoint by --resume_from_checkpoint."
            )
        changed = [name for name in described if earlier.get(name) != described[name]]
        # Records of earlier versions lack some of these.
        changed += [name for name in settings if name in earlier and earlier[name] != settings[name]]
        if changed:
            raise ValueError(
                f"`output_dir` must be of the same run, got {folder} of a run that differs in {sorted(changed)}. "
                "Give another --output_dir or delete the folder."
            )
        return str(checkpoint)
    if args.should_save:
        described = {**described, **settings, "processes": args.world_size}
        with replaced_file(record) as made:  # other processes may be reading it
            made.write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")
    return None


def _read_record(record: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(record.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"`output_dir` must hold a readable {record.name}, got {record}: {error}. Give another --output_dir, or "
            "name a checkpoint by --resume_from_checkpoint."
        ) from error


def drop_pickle(folder: str | Path) -> None:
    """Remove the Trainer's `training_args.bin`, a pickle that nothing loads, from a folder."""
    (Path(folder) / "training_args.bin").unlink(missing_ok=True)


def last_intact_checkpoint(folder: str | Path, processes: int = 1, recorded: int | None = None) -> Path | None:
    """The last intact checkpoint of a run's folder, or None; damaged ones are skipped with a warning.

    Only a checkpoint of as many `processes` can be resumed exactly; `recorded` is the number in run.json.

    Raises:
        ValueError: A checkpoint was written by another number of processes, or has weights only.
    """
    found = [path for path in Path(folder).glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", path.name)]
    for checkpoint in sorted(found, key=lambda path: int(path.name.split("-")[1]), reverse=True):
        written = _processes_of(checkpoint, recorded) if _has_state(checkpoint) else None
        if written not in (None, processes):
            raise ValueError(
                f"`output_dir` must be of a run with {processes} processes, got {checkpoint} of {written}. "
                "Start as many processes as before, or give another --output_dir."
            )
        damage = damage_of(checkpoint, processes)
        if not damage:
            return checkpoint
        logger.warning("%s is damaged and is skipped: %s.", checkpoint, damage)
    if found:
        logger.warning("%s holds no intact checkpoint: the run starts from its beginning.", folder)
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


def _damage_by_manifest(folder: Path) -> str:
    try:
        listed = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["files"].items()
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"{MANIFEST} cannot be read"
    for name, expected in listed:
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if _size_and_hash(path) != expected:
            return f"{name} has changed since it was written"
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
