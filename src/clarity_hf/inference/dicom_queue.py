# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Queue of the DICOM node for received images and unsent results: an SQLite file and DICOM files.

An image is *received*, then *done* (its results are in the outbox), *refused* or *failed*. A result stays in the
outbox until its destination has it. Every step is one transaction, committed and on disk before it is acknowledged,
and files are written before the rows that name them. After a crash at any moment the node therefore continues from the
rows, and repeats a step rather than skip it. Results have the same UID each time, so a destination that receives one
twice stores it once.

The folder holds patients' images, and only its owner can read it. An image is removed once its results are made, a
result once it was accepted. Rows contain UIDs but no names. Those of finished images stay for `KEPT_DAYS`, so that an
image that is sent again is not analysed again.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from clarity_hf.files import remove_unfinished, replaced_file

MAX_ATTEMPTS = 10
"""Attempts at an image before it is abandoned, because it crashes the process every time. Images that were attempted
before come after those that were not."""

KEPT_DAYS = 90
"""Days for which the rows of finished images are kept."""

_TABLES = """
CREATE TABLE IF NOT EXISTS images (
    id INTEGER PRIMARY KEY, uid TEXT NOT NULL, maker TEXT NOT NULL, study TEXT NOT NULL, file TEXT NOT NULL,
    bytes INTEGER NOT NULL, state TEXT NOT NULL, reason TEXT NOT NULL DEFAULT '', attempts INTEGER NOT NULL DEFAULT 0,
    received REAL NOT NULL, UNIQUE (uid, maker)
);
CREATE TABLE IF NOT EXISTS outbox (
    id INTEGER PRIMARY KEY, image INTEGER NOT NULL, uid TEXT NOT NULL UNIQUE, file TEXT NOT NULL,
    bytes INTEGER NOT NULL, state TEXT NOT NULL, attempts INTEGER NOT NULL DEFAULT 0, due REAL NOT NULL DEFAULT 0
);
CREATE INDEX IF NOT EXISTS images_by_state ON images (state, study);
CREATE INDEX IF NOT EXISTS outbox_by_state ON outbox (state, due);
"""


@dataclass(frozen=True)
class ReceivedImage:
    """An image to be analysed: its number in the queue, its file, and the number of attempts, this one included."""

    id: int
    file: Path
    attempts: int


@dataclass(frozen=True)
class WaitingResult:
    """A result to be sent: its number, that of its image, its file, and the number of failed attempts."""

    id: int
    image: int
    file: Path
    attempts: int


class FullQueueError(OSError):
    """The queue has reached its limit of bytes."""


class DicomQueue:
    """Received images and unsent results.

    Args:
        folder: Folder of the queue, created if needed, accessible only to its owner.
        maker: Model and settings in one string; an image that others analysed is analysed again.
        max_bytes: Limit of images and results together; more is not accepted.
        clock: Seconds since 1970.

    Raises:
        OSError: The folder cannot be written.
    """

    def __init__(
        self, folder: str | os.PathLike, maker: str, max_bytes: int, clock: Callable[[], float] = time.time
    ) -> None:
        self.folder, self.maker, self.max_bytes, self._clock = Path(folder), maker, max_bytes, clock
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._lock = threading.Lock()
        self._connection = sqlite3.connect(self.folder / "queue.sqlite", check_same_thread=False, isolation_level=None)
        for setting in ("journal_mode = WAL", "synchronous = FULL", "busy_timeout = 10000"):
            self._connection.execute(f"PRAGMA {setting}")
        self._connection.executescript(_TABLES)
        self._remove_orphans()

    def close(self) -> None:
        """Close the file; images and results are kept."""
        with self._lock:
            self._connection.close()

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")

    def _change(self, statement: str, *values: object) -> int:
        """Execute one statement as a transaction; return how many rows it changed."""
        with self._transaction() as connection:
            return connection.execute(statement, values).rowcount

    def _rows(self, query: str, *values: object) -> list[tuple]:
        with self._lock:
            return self._connection.execute(query, values).fetchall()

    def _write(self, content: bytes) -> Path:
        """Write a file that only this user may read, complete or not at all, and on disk when this returns."""
        path = self.folder / f"{uuid.uuid4().hex}.dcm"
        with (
            replaced_file(path, durable=True) as made,
            open(os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file,
        ):
            file.write(content)
        return path

    def _remove_orphans(self) -> None:
        """Remove old rows, and files that a crashed process wrote without their rows."""
        old = self._clock() - 86400 * KEPT_DAYS
        self._change("DELETE FROM images WHERE state != 'received' AND received < ?", old)
        self._change("DELETE FROM outbox WHERE state = 'sent' AND image NOT IN (SELECT id FROM images)")
        kept = {name for (name,) in self._rows("SELECT file FROM images WHERE state = 'received'")}
        kept |= {name for (name,) in self._rows("SELECT file FROM outbox WHERE state = 'waiting'")}
        for path in self.folder.glob("*.dcm*"):
            if path.name not in kept:
                path.unlink(missing_ok=True)
        remove_unfinished(self.folder)

    def knows(self, uid: str) -> bool:
        """Whether the image with a SOP Instance UID was received before, for this model and these settings."""
        return bool(self._rows("SELECT 1 FROM images WHERE uid = ? AND maker = ?", uid, self.maker))

    def receive(self, uid: str, study: str, content: bytes) -> bool:
        """Store the DICOM file of an image with these SOP and Study Instance UIDs; it is on disk when this returns.

        Returns whether it is new; an image that was received before is not stored again.

        Raises:
            FullQueueError: The queue is full.
            OSError: It cannot be written.
        """
        if self.knows(uid):
            return False
        if self.bytes() + len(content) > self.max_bytes:
            raise FullQueueError(f"`max_bytes` must leave room for the image, got {self.max_bytes}. Send it later.")
        path = self._write(content)
        is_new = self._change(
            "INSERT OR IGNORE INTO images (uid, maker, study, file, bytes, state, received) "
            "VALUES (?, ?, ?, ?, ?, 'received', ?)",
            *(uid, self.maker, study, path.name, len(content), self._clock()),
        )
        if not is_new:  # two associations sent it at once
            path.unlink()
        return bool(is_new)

    def next_image(self, settle_s: float) -> ReceivedImage | None:
        """The next image of a study without a new image for `settle_s` seconds; None if there is none.

        The attempt is counted, and images after `MAX_ATTEMPTS` attempts are abandoned.
        """
        abandoned = "UPDATE images SET state = 'failed', reason = 'it ended the process' WHERE state = 'received'"
        settled = (
            "SELECT id, file, attempts FROM images WHERE state = 'received' AND study NOT IN "
            "(SELECT study FROM images WHERE received > ?) ORDER BY attempts, received, id LIMIT 1"
        )
        with self._transaction() as connection:
            connection.execute(f"{abandoned} AND attempts >= ?", (MAX_ATTEMPTS,))
            found = connection.execute(settled, (self._clock() - settle_s,)).fetchone()
            if found is None:
                return None
            connection.execute("UPDATE images SET attempts = attempts + 1 WHERE id = ?", (found[0],))
        return ReceivedImage(found[0], self.folder / found[1], found[2] + 1)

    def put_back(self, image: ReceivedImage) -> None:
        """Do not count the last attempt, which did not fail because of the image."""
        self._change("UPDATE images SET attempts = attempts - 1 WHERE id = ?", image.id)

    def finish(self, image: ReceivedImage, results: Sequence[tuple[str, bytes]], state: str, reason: str = "") -> None:
        """Move an image's results, each a SOP Instance UID and a file, to the outbox and remove the image.

        Its state becomes `done`, or `refused` or `failed` with a reason that names no patient. If a result cannot be
        written, nothing changes.
        """
        rows = [(image.id, uid, self._write(content).name, len(content)) for uid, content in results]
        with self._transaction() as connection:
            connection.executemany(
                "INSERT OR IGNORE INTO outbox (image, uid, file, bytes, state) VALUES (?, ?, ?, ?, 'waiting')", rows
            )
            connection.execute("UPDATE images SET state = ?, reason = ? WHERE id = ?", (state, reason, image.id))
        image.file.unlink(missing_ok=True)

    def due_results(self, limit: int) -> list[WaitingResult]:
        """At most `limit` results that are due, oldest first."""
        query = "SELECT id, image, file, attempts FROM outbox WHERE state = 'waiting' AND due <= ? ORDER BY id LIMIT ?"
        rows = self._rows(query, self._clock(), limit)
        return [WaitingResult(number, image, self.folder / name, tried) for number, image, name, tried in rows]

    def sent(self, result: WaitingResult) -> None:
        """Remove a result that its destination has."""
        self._change("UPDATE outbox SET state = 'sent' WHERE id = ?", result.id)
        result.file.unlink(missing_ok=True)

    def retry(self, result: WaitingResult, after_s: float) -> None:
        """Keep a result that its destination did not accept, to be sent again after some seconds."""
        due = self._clock() + after_s
        self._change("UPDATE outbox SET attempts = attempts + 1, due = ? WHERE id = ?", due, result.id)

    def bytes(self) -> int:
        """Size of all images that wait to be analysed and results that wait to be sent."""
        query = "SELECT COALESCE(SUM(bytes), 0) FROM {} WHERE state = '{}'"
        pairs = (("images", "received"), ("outbox", "waiting"))
        return sum(self._rows(query.format(*pair))[0][0] for pair in pairs)

    def counts(self) -> dict[str, dict[str, int]]:
        """Number of `images` and of results (`outbox`) by their state."""
        return {
            table: dict(self._rows(f"SELECT state, COUNT(*) FROM {table} GROUP BY state"))
            for table in ("images", "outbox")
        }

    def oldest_s(self) -> float:
        """For how many seconds the oldest image has waited; 0 without an image."""
        (first,) = self._rows("SELECT MIN(received) FROM images WHERE state = 'received'")[0]
        return 0.0 if first is None else self._clock() - first
