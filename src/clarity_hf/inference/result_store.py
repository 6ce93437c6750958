# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""A folder of results that can be resumed: records, tables and settings.

The folder holds `findings.jsonl`, one line per image in the order in which they were predicted; `failed.jsonl`, the
images that the last run could not read and why; and `settings.json`, the settings that decide the results. A batch's
lines are written to disk together, after all other outputs of its images, so a killed run loses at most one batch.
Each of several processes appends to its own shards, `findings-r00.jsonl` and so on, which [`merge_shards`] merges.
Locks of the operating system, which end with their process, keep other runs out of the folder.
"""

from __future__ import annotations

import contextlib
import csv
import json
import math
import os
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from filelock import FileLock, Timeout

from clarity_hf.files import remove_unfinished, replaced_file

from .dicom_source import SIDES
from .image_files import ImageFile

SETTINGS = "settings.json"

IDENTIFIERS = {
    "study": "StudyInstanceUID",
    "series": "SeriesInstanceUID",
    "sop": "SOPInstanceUID",
    "accession": "AccessionNumber",
}
"""Keys that the output `identifiers` adds to lines and tables, and the DICOM attribute of each."""

LOCK = ".lock"
"""File locked by a run of one process; process r of several locks `.lock-rRR`. The files remain, the locks do not."""

_PATIENCE = 2.0  # seconds to wait for a lock, which another process may hold briefly to see whether it is free


@dataclass(frozen=True)
class _Done:
    """How often an image was predicted again, and the version of its file, as (bytes, time of change)."""

    revision: int
    stat: tuple[int, int]


class ResultStore:
    """A folder of results, created if needed, as process `rank` of `world_size` sees it; used inside `held`.

    Raises:
        ValueError: `folder` is a file, or the rank is out of range.
    """

    def __init__(self, folder: str | os.PathLike, rank: int = 0, world_size: int = 1):
        if not 0 <= rank < world_size:
            raise ValueError(f"`rank` must be in [0, {world_size}), got {rank}. Check RANK and WORLD_SIZE.")
        self.folder, self.world_size = Path(folder), world_size
        if self.folder.exists() and not self.folder.is_dir():
            raise ValueError(f"`folder` must be a folder, got the file {self.folder.name}. Choose another name.")
        self.folder.mkdir(parents=True, exist_ok=True)
        self._shard = f"-r{rank:02d}" if world_size > 1 else ""

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Keep other runs out: a single process excludes all others, one of several its own rank and single processes.

        Each takes its own lock before it tries the others, so if two start together, at least one sees the other.

        Raises:
            BlockingIOError: Another run is writing to the folder.
        """
        own = f"{LOCK}{self._shard}"
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(FileLock(self.folder / own, timeout=_PATIENCE))
                for other in sorted(self.folder.glob(f"{LOCK}-r*")) if self.world_size == 1 else [self.folder / LOCK]:
                    with FileLock(other, timeout=_PATIENCE):
                        pass
            except Timeout as error:
                raise BlockingIOError(
                    "Another run is writing to this folder "
                    f"({Path(error.lock_file).name} is held). Wait until it ends, or choose another folder."
                ) from error
            yield

    def open_results(self, settings: dict[str, Any], images: Sequence[ImageFile]) -> dict[str, int]:
        """Prepare the folder for writing results of these images, those of all processes, also after a killed run.

        Returns:
            The images that have a result, each with 0, or with the number of its next revision if its file has
            changed.

        Raises:
            ValueError: The folder holds broken records, results of another model, of other settings, of other files
                under the images' names, or of the same files under other names.
        """
        _check_settings(self.folder, settings)
        if self.world_size == 1:
            merge_shards(self.folder, remove=True)
            remove_unfinished(self.folder)
        _drop_torn_line(self.folder / f"findings{self._shard}.jsonl")
        done = _latest(self.folder)
        revisions = _revisions(images, done)
        _check_names(images, done)
        return revisions

    @contextlib.contextmanager
    def appending(self) -> Iterator[tuple[TextIO, TextIO]]:
        """Open this process's lines and its failures, the latter empty, for [`append`]."""
        with (
            (self.folder / f"findings{self._shard}.jsonl").open("a", encoding="utf-8") as lines,
            (self.folder / f"failed{self._shard}.jsonl").open("w", encoding="utf-8") as failures,
        ):
            yield lines, failures


def append(file: TextIO, records: Sequence[dict[str, Any]]) -> None:
    """Append lines to a file, and wait until they are on the disk."""
    if records:
        file.write("".join(map(_line, records)))
        file.flush()
        os.fsync(file.fileno())


def _line(record: dict[str, Any]) -> str:
    return json.dumps(record, allow_nan=False) + "\n"


def merge_shards(folder: str | os.PathLike, table: bool = False, remove: bool = False) -> None:
    """Update `findings.jsonl` and `failed.jsonl` with the results of all processes, each image's last result once.

    Without a launcher, each process merges when it ends, one at a time; the last one then sees all lines. `table` also
    writes `findings.csv` and `boxes.csv`. `remove` removes the shards, whose failures are then tried again; no process
    may be running.

    Raises:
        ValueError: A line is broken, or its findings are not those of the first line.
    """
    folder = Path(folder)
    with FileLock(folder / f"{LOCK}-merge"):
        shards = {kind: _files(folder, kind)[1:] for kind in ("findings", "failed")}
        merged = folder / "findings.jsonl"
        rewrite = bool(shards["findings"]) or _is_superseded(merged)
        latest = _latest(folder) if rewrite or table or shards["failed"] else {}
        with contextlib.ExitStack() as stack:
            lines = tables = None
            if rewrite:  # durable, as the shards may be removed next
                made = stack.enter_context(replaced_file(merged, durable=True))
                lines = stack.enter_context(made.open("w", encoding="utf-8"))
            if table:
                files = [stack.enter_context(_csv(folder / f"{name}.csv")) for name in ("findings", "boxes")]
                tables = _Tables(*files, added=_added_columns(folder))
            for record in _last_records(folder, latest) if rewrite or table else ():
                if lines is not None:
                    lines.write(_line(record))
                if tables is not None:
                    tables.add(record)
        if remove:
            for path in (*shards["findings"], *shards["failed"]):
                path.unlink()
        elif shards["failed"]:
            with replaced_file(folder / "failed.jsonl") as made:
                made.write_text("".join(_failures(shards["failed"], latest)), encoding="utf-8")


def _files(folder: Path, kind: str) -> list[Path]:
    """The merged file first, then the shards."""
    return [folder / f"{kind}.jsonl", *sorted(folder.glob(f"{kind}-r*.jsonl"))]


def _latest(folder: Path) -> dict[str, _Done]:
    """Each image's last result."""
    done: dict[str, _Done] = {}
    for path in _files(folder, "findings"):
        for _, record in _records(path):
            name, revision = record["image"], record.get("revision", 0)
            if name not in done or revision > done[name].revision:
                done[name] = _Done(revision, (record["bytes"], record["modified"]))
    return done


def _last_records(folder: Path, latest: dict[str, _Done]) -> Iterator[dict[str, Any]]:
    """The record of each image's last revision."""
    left = {name: done.revision for name, done in latest.items()}
    for path in _files(folder, "findings"):
        for _, record in _records(path):
            if left.get(record["image"]) == record.get("revision", 0):
                del left[record["image"]]
                yield record


def _failures(shards: Sequence[Path], latest: dict[str, _Done]) -> Iterator[str]:
    """Lines of images that a process could not read and no process has read since."""
    failures = {record["image"]: record for path in shards for _, record in _records(path)}
    for name, record in failures.items():
        if name not in latest or latest[name].revision < record.get("revision", 0):
            yield _line(record)


def _is_superseded(merged: Path) -> bool:
    """Whether an image has several lines, or a line has an old key."""
    names: set[str] = set()
    for old, record in _records(merged):
        if old or record["image"] in names:
            return True
        names.add(record["image"])
    return False


def _records(path: Path) -> Iterator[tuple[bool, dict[str, Any]]]:
    """Records of the complete lines of a file, and whether an earlier version wrote them, with `film` for `image`.

    A torn last line is ignored; a missing file has no lines.
    """
    failed = path.name.startswith("failed")
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return
    except OSError as error:
        raise ValueError(
            f"`folder` must hold complete records, got {path.name} that cannot be read ({error.strerror}). Remove it."
        ) from error
    with file:
        for number, content in enumerate(file, start=1):
            if not content.endswith(b"\n"):
                return
            try:
                record = json.loads(content.decode())
                old = isinstance(record, dict) and "film" in record and "image" not in record
                if old:
                    record = {"image" if name == "film" else name: value for name, value in record.items()}
                _check_record(record, failed)
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                raise ValueError(
                    f"`folder` must hold complete records, got a broken one in {path.name} line {number}. Remove the "
                    "line."
                ) from error
            if old:
                warnings.warn(
                    f"{path.name} has the deprecated key `film`, which the next release will not read. A run of "
                    "this release rewrites it as `image`.",
                    DeprecationWarning,
                    stacklevel=2,
                )
            yield old, record


def _check_record(record: Any, failed: bool) -> None:
    """Raise KeyError, TypeError or ValueError unless a line holds what is read of it."""
    if not isinstance(record, dict):
        raise TypeError("not an object")
    kinds: dict[str, type] = {"image": str}
    kinds |= {"reason": str} if failed else {"bytes": int, "modified": int, "findings": list}
    kinds |= {name: kind for name, kind in (("revision", int), ("warning", dict)) if name in record}
    if not all(isinstance(record[name], kind) for name, kind in kinds.items()):
        raise TypeError("a value of another type")
    if failed:
        return
    height, width = record["size"]
    for finding in record["findings"]:
        numbers = [height, width, finding["score"], finding["threshold"]]
        numbers += [box[side] for box in finding["boxes"] for side in SIDES]
        if not isinstance(finding["label"], str) or not all(map(math.isfinite, [*numbers, finding["present"]])):
            raise ValueError("a value out of range")


def _drop_torn_line(path: Path) -> None:
    """Remove an incomplete last line, which a killed run left."""
    if not path.exists():
        return
    with path.open("r+b") as file:
        end = file.seek(0, os.SEEK_END)
        while end:
            start = max(0, end - 65536)
            file.seek(start)
            place = file.read(end - start).rfind(b"\n")
            if place >= 0:
                end = start + place + 1
                break
            end = start
        file.truncate(end)


def _check_names(images: Sequence[ImageFile], done: dict[str, _Done]) -> None:
    """Refuse images that have other names in the folder: another input can change the names of all images."""
    if not done or any(image.name in done for image in images):
        return
    before = {(Path(name).name, *entry.stat): name for name, entry in done.items()}
    for image in images:
        if image.path.exists():
            stat = image.path.stat()
            name = before.get((image.path.name, stat.st_size, stat.st_mtime_ns))
            if name is not None:
                raise ValueError(
                    f"`images` must be named as they are in the folder, got '{image.name}' for its '{name}'. Pass the "
                    "inputs that made it, or choose another folder."
                )


def _revisions(images: Sequence[ImageFile], done: dict[str, _Done]) -> dict[str, int]:
    """Images with a result: 0 if the file is unchanged, else the number of the next revision."""
    revisions = {}
    for image in images:
        if image.name in done:
            stat = image.path.stat() if image.path.exists() else None
            same = stat is None or (stat.st_size, stat.st_mtime_ns) == done[image.name].stat
            revisions[image.name] = 0 if same else done[image.name].revision + 1
    changed = [image for image in images if revisions.get(image.name)]
    unchanged = [image for image in images if revisions.get(image.name) == 0 and image.path.exists()]
    if len(changed) > 1 and not unchanged:
        raise ValueError(
            f"`folder` must hold results of these files, got another file named '{changed[0].name}' (by size or time "
            f"of change), and so for all {len(changed)} that have results. Choose another folder."
        )
    return revisions


# Settings


def _check_settings(folder: Path, settings: dict[str, Any]) -> None:
    """Write the settings, or compare them with those already there; the model's name may differ."""
    path = folder / SETTINGS
    findings = list(folder.glob("findings*.jsonl"))  # before the settings: another process writes those first
    if not path.exists():
        if findings:
            raise ValueError(f"`folder` must hold {SETTINGS} with its findings, got none. Choose another folder.")
        with replaced_file(path) as made:
            made.write_text(json.dumps(settings, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(stored, dict):
            raise TypeError(f"JSON of type {type(stored).__name__}")
    except (OSError, ValueError, TypeError, RecursionError) as error:
        what = error.strerror if isinstance(error, OSError) else error
        raise ValueError(f"`folder` must hold readable {SETTINGS}, got {what}. Choose another folder.") from error
    before, now = (_flat(json.loads(json.dumps(made))) for made in (stored, settings))
    if "config" in stored and before != now:  # the folder may lack newer fields
        from clarity_hf.configuration_clarity import ClarityConfig  # imports transformers

        defaults = _flat({"config": json.loads(json.dumps(ClarityConfig().to_dict(), default=str))})
        before = {name: value for name, value in defaults.items() if name in now} | before
    differ = [name for name in {**before, **now} if name != "model" and before.get(name) != now.get(name)]
    if differ:
        pairs = "; ".join(
            f"{name} {_short(before.get(name))} there, {_short(now.get(name))} now" for name in differ[:5]
        )
        more = f"; and {len(differ) - 5} more" if len(differ) > 5 else ""
        raise ValueError(
            f"`folder` must hold results of this model and these settings, got others: {pairs}{more}. "
            "Choose another folder."
        )


def _flat(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


# Tables


@contextlib.contextmanager
def _csv(path: Path) -> Iterator[Any]:
    # A file name that is not UTF-8 is written as JSON writes it.
    with (
        replaced_file(path) as made,
        made.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file,
    ):
        yield csv.writer(_LineEnds(file), lineterminator="\r\n")


class _LineEnds:
    """Rows that end with a line feed; the CSV writer ends them with CRLF, so it quotes fields with CR or LF."""

    def __init__(self, file: TextIO):
        self.file = file

    def write(self, row: str) -> None:
        """Write one row."""
        self.file.write(row.removesuffix("\r\n") + "\n")


def _added_columns(folder: Path) -> list[str]:
    settings = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
    return list(IDENTIFIERS) if "identifiers" in settings.get("outputs", ()) else []


class _Tables:
    """Rows of `findings.csv` and `boxes.csv`; columns are findings, sorted by name."""

    def __init__(self, findings: Any, boxes: Any, *, added: Sequence[str]):
        self.findings, self.boxes, self.added = findings, boxes, added
        self.labels: list[str] = []
        self.boxes.writerow(["image", "finding", "score", *SIDES, *added])

    def add(self, record: dict[str, Any]) -> None:
        """Write an image's rows; the first image's labels become the header."""
        by_label = {finding["label"]: finding for finding in record["findings"]}
        if not self.labels:
            self.labels = sorted(by_label)
            marks = [f"{label} present" for label in self.labels]
            self.findings.writerow(["image", "height", "width", *self.labels, *marks, "warning", *self.added])
        if sorted(by_label) != self.labels:
            raise ValueError(
                f"`folder` must hold records of the same findings, got others for {record['image']}. Remove its line."
            )
        rows = [by_label[label] for label in self.labels]
        scores, present = [row["score"] for row in rows], [int(row["present"]) for row in rows]
        warning = record.get("warning", {}).get("reason", "")
        added = [record.get(name, "") for name in self.added]
        self.findings.writerow([record["image"], *record["size"], *scores, *present, warning, *added])
        for row in rows:
            for box in row["boxes"]:
                sides = [box[side] for side in SIDES]
                self.boxes.writerow([record["image"], row["label"], row["score"], *sides, *added])
