"""Seal: the hot rows before the first hole become segments, and are trimmed from the catalog."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Mapping
from typing import Final

import pyarrow as pa

from eventlab.model.schema import Schema
from eventlab.store import tail
from eventlab.store.base import collector_off, joined, rows_to_table
from eventlab.store.runs import Place, Runs, advance_sealed

SEAL_ROWS: Final = 250_000
#: Rows that are read or deleted at a time: a thread that seals lets go of the interpreter, and of the write lock, between.
SLICE_ROWS: Final = 500
TRIM_ROWS: Final = 10_000
#: An event id that is given again within this many events is known to be a repeat; `expected` holds for ever.
ID_WINDOW: Final = 1_000_000
#: Called between slices of work.
Pause = Callable[[], None]


def no_pause() -> None:
    """Go on at once."""


def seal(runs: Runs, schemas: Callable[[sqlite3.Connection], Mapping[tuple[str, int], Schema]], pause: Pause = no_pause) -> int:
    """Write the hot rows before the first hole as segments, then trim them; the number of events sealed.

    Readers and writers see no difference. Of two that race the loser deletes its own files. What is appended meanwhile stays
    hot: beside a busy writer there would be no end, and a great many small files.
    """
    with runs.catalog.look() as connection:
        end = int(connection.execute("SELECT head FROM log").fetchone()[0])
    total = 0
    while run := _first_hot_run(runs, end):
        sealed = _seal_run(runs, *run, schemas, pause)
        if not sealed:
            break
        total += sealed
    _trim(runs, pause)
    return total


def _first_hot_run(runs: Runs, end: int) -> tuple[int, int] | None:
    with runs.catalog.write() as connection:
        advance_sealed(connection)
        sealed = connection.execute("SELECT sealed FROM log").fetchone()[0]
        after = connection.execute(
            "SELECT min(run_first) FROM segment WHERE state = 'live' AND run_first > ?", (sealed,)
        ).fetchone()[0]
        last = end if after is None else after - 1
        # A run is sealed whole.
        last = min(last, tail.run_end(connection, sealed + SEAL_ROWS))
    return (sealed + 1, last) if last > sealed else None


def _seal_run(
    runs: Runs,
    first: int,
    last: int,
    schemas: Callable[[sqlite3.Connection], Mapping[tuple[str, int], Schema]],
    pause: Pause,
) -> int:
    with runs.catalog.read() as connection:
        known = schemas(connection)
    # A slice is columns before the next is read: so many rows at once are slow to make, and long in the way of a writer.
    slices: dict[tuple[str, str], list[pa.Table]] = {}
    found = 0
    low = first
    while low <= last:
        with collector_off():
            high, part = _slice(runs, low, last, known)
        for key, table in part.items():
            slices.setdefault(key, []).append(table)
            found += len(table)
        low = high + 1
        pause()
    if found != last - first + 1:
        # Another process sealed and trimmed some of them in between.
        return 0
    with runs.catalog.write() as connection:
        reserved = runs.reserve(connection, [Place(*key) for key in slices], first, last)
    with runs.or_abandon(reserved.values()):
        files = []
        for key, tables in slices.items():
            files.append(runs.write(reserved[Place(*key)], joined(tables)))
            pause()
        with runs.catalog.write() as connection:
            won = connection.execute("SELECT sealed FROM log").fetchone()[0] == first - 1
            if won:
                runs.publish(connection, files)
    if not won:
        runs.abandon(reserved.values())
    return last - first + 1 if won else 0


def _slice(
    runs: Runs, first: int, last: int, known: Mapping[tuple[str, int], Schema]
) -> tuple[int, dict[tuple[str, str], pa.Table]]:
    """Some hot rows as a table each category, and the last position of them.

    In a read transaction of its own, for a long one would keep the WAL long.
    """
    with runs.catalog.read() as connection:
        last = min(last, tail.run_end(connection, first + SLICE_ROWS - 1))
        rows = tail.rows_between(connection, first, last)
    return last, {key: rows_to_table(part, known) for key, part in tail.by_category(rows).items()}


def _trim(runs: Runs, pause: Pause) -> None:
    """Delete hot rows that are sealed, but for their ids, and ids that fell out of the window; a batch a transaction."""
    while True:
        with runs.catalog.write() as connection:
            # The first rows and not any rows: their pages are together, and a range needs no list of them.
            first, sealed, head, floor = connection.execute(
                "SELECT (SELECT min(position) FROM event), sealed, head, id_floor FROM log"
            ).fetchone()
            if head - ID_WINDOW - floor > TRIM_ROWS:
                # A floor that moved past ids of a large ingest has little to delete: those rows have no ids here.
                floor = head - ID_WINDOW
                connection.execute("DELETE FROM event_key WHERE position <= ?1 AND position + count - 1 <= ?1", (floor,))
                connection.execute("UPDATE log SET id_floor = ?", (floor,))
            last = sealed if first is None else min(tail.run_end(connection, first + TRIM_ROWS - 1), sealed)
            connection.execute(
                "INSERT INTO event_key SELECT tenant, event_id, count, position, version, digest FROM event "
                "WHERE position + count - 1 > ? AND position <= ?",
                (floor, last),
            )
            connection.execute("DELETE FROM event WHERE position <= ?", (last,))
        pause()
        if last == sealed:
            return


def breathe() -> None:
    """A pause for a background thread: others get the interpreter and the write lock."""
    time.sleep(0.001)
