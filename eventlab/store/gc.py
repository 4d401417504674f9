"""Garbage: files that are no part of the log any more are deleted once nobody can be reading them.

A retired segment stays for a grace time, in which a reader that had looked up its name opens it; after that it stays as
long as a reader holds a cut of the time when it was live (`hold`, a lease that a dead process cannot keep for ever). A
pending one goes when the lease of whoever was writing it is over. Files that the catalog does not name are never touched.
"""

from __future__ import annotations

import contextlib
import secrets
import sqlite3
import time
from dataclasses import dataclass
from typing import Final

from eventlab.errors import Busy
from eventlab.store.files import disk_errors
from eventlab.store.runs import Runs
from eventlab.store.segment import Segment

GRACE_SECONDS: Final = 900
HOLD_SECONDS: Final = 3_600


@dataclass(frozen=True)
class Collected:
    """What was deleted: files, and their bytes."""

    files: int
    bytes: int


def collect(runs: Runs, *, grace: float = GRACE_SECONDS) -> Collected:
    """Delete the files that are due, then their rows: a crash in between is made good by the next time."""
    now = time.time()
    with runs.catalog.write() as connection:
        connection.execute("DELETE FROM reader WHERE until < ?", (int(now),))
        oldest = connection.execute("SELECT min(generation) FROM reader").fetchone()[0]
        due = connection.execute(
            "SELECT id, path FROM segment WHERE (state = 'retired' AND lease <= ? AND gone <= ?) "
            "OR (state = 'pending' AND lease < ?)",
            (int(now - grace), 2**62 if oldest is None else oldest, int(now)),
        ).fetchall()
    files = size = 0
    for number, name in due:
        path = runs.root / name
        for found in (path, path.with_name(f".{path.name}.tmp")):
            # Two may collect at once.
            with contextlib.suppress(FileNotFoundError), disk_errors(found):
                size += runs.disk.size(found)
                runs.disk.unlink(found)
                files += 1
        with runs.catalog.write() as connection:
            connection.execute("DELETE FROM segment WHERE id = ? AND state != 'live'", (number,))
    return Collected(files, size)


class Hold:
    """A reader's lease on the files of one layout: while it lasts they stay, whatever is compacted."""

    def __init__(self, runs: Runs | None, generation: int, segments: tuple[Segment, ...]) -> None:
        self._runs, self.token = runs, secrets.token_hex(8)
        self.until = float("inf")
        if runs is not None:
            with runs.catalog.write() as connection:
                self._keep(connection, generation)
                self.complete = _all_there(connection, segments)

    complete = True

    def renew(self) -> None:
        """Make the lease last, when half of it is over."""
        if self._runs is not None and self.until - time.time() < HOLD_SECONDS / 2:
            with self._runs.catalog.write() as connection:
                self.until = time.time() + HOLD_SECONDS
                connection.execute("UPDATE reader SET until = ? WHERE token = ?", (int(self.until), self.token))

    def release(self) -> None:
        """Let the files go."""
        runs, self._runs = self._runs, None
        if runs is not None:
            try:
                with runs.catalog.write() as connection:
                    connection.execute("DELETE FROM reader WHERE token = ?", (self.token,))
            except (Busy, sqlite3.Error):
                # It ends by itself.
                return

    def _keep(self, connection: sqlite3.Connection, generation: int) -> None:
        self.until = time.time() + HOLD_SECONDS
        connection.execute("INSERT INTO reader VALUES(?, ?, ?)", (self.token, generation, int(self.until)))


def _all_there(connection: sqlite3.Connection, segments: tuple[Segment, ...]) -> bool:
    """Whether every segment still has its row: none of its files was deleted before it was held."""
    named = {number for (number,) in connection.execute("SELECT id FROM segment WHERE state != 'pending'")}
    return all(segment.id in named for segment in segments)
