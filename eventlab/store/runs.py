"""Runs: how a run of positions becomes segments of the log, and how segments are replaced by others.

A seal, an ingest and a compaction all go the same way. The files are named in the catalog before they exist, as `pending`
with a lease (`reserve`); they are written outside the write transaction; one transaction makes them `live` and retires
what they replace (`publish`). What did not become part of the log is deleted by whoever wrote it (`abandon`), or after a
crash, when its lease is over, by `gc`.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import sqlite3
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from eventlab.errors import Damaged, EventlabError
from eventlab.store.catalog import SEE_VERIFY, Catalog, Names
from eventlab.store.columns import payload_columns
from eventlab.store.files import Disk, make_folders, remove
from eventlab.store.segment import Segment, Written, write_segment

LEASE_SECONDS: Final = 3_600


@dataclass(frozen=True)
class Place:
    """Which part of a run a file will hold."""

    tenant: str
    category: str
    bucket: int = 0
    buckets: int = 1


@dataclass(frozen=True)
class Reserved:
    """A file that is named in the catalog and not yet there."""

    number: int
    path: Path


@dataclass(frozen=True)
class Finished:
    """A written segment file, and what the catalog will say of it."""

    number: int
    written: Written
    rows: int
    columns: tuple[str, ...]
    recorded_us: tuple[int, int]


class Runs:
    """The files of one store, and their rows in its catalog."""

    def __init__(self, root: Path, catalog: Catalog, tenants: Names, categories: Names, disk: Disk) -> None:
        self.root, self.catalog, self.disk = root, catalog, disk
        self.tenants, self.categories = tenants, categories
        self._segments: dict[int, Segment] = {}
        #: Folders whose names are on the disk; a store never removes one.
        self._folders: set[Path] = set()

    # -- from nothing to live

    def reserve(
        self, connection: sqlite3.Connection, places: Iterable[Place], first: int, last: int, *, level: int = 0
    ) -> dict[Place, Reserved]:
        """Name the files of a run before they exist: a crash leaves nothing that nobody knows."""
        lease = int(time.time()) + LEASE_SECONDS
        reserved = {}
        for place in places:
            tenant = self.tenants.ensure(connection, place.tenant)
            category = self.categories.ensure(connection, place.category)
            salt = secrets.token_hex(4)
            folder = self.root.joinpath("segments", str(tenant), str(category))
            if level == 0:
                path = folder / "l0" / f"{first:019d}-{last:019d}-{salt}.parquet"
            else:
                path = folder / "l1" / f"e{first}" / f"n{place.buckets}" / f"{place.bucket:05d}-{salt}.parquet"
            cursor = connection.execute(
                "INSERT INTO segment(path, tenant, category, level, run_first, run_last, bucket, buckets, rows, bytes, digest, "
                "columns, min_recorded, max_recorded, state, lease) "
                "VALUES(?, ?, ?, ?, ?, ?, ?, ?, 0, 0, '', '[]', 0, 0, 'pending', ?)",
                (str(path.relative_to(self.root)), tenant, category, level, first, last, place.bucket, place.buckets, lease),
            )
            reserved[place] = Reserved(int(cursor.lastrowid or 0), path)
        return reserved

    def write(self, reserved: Reserved, table: pa.Table, *, by_stream: bool = False) -> Finished:
        """Write one reserved file."""
        times = pc.min_max(table.column("recorded_at").combine_chunks().view(pa.int64()))
        span = (times["min"].as_py(), times["max"].as_py())
        folder = reserved.path.parent
        if folder not in self._folders:
            make_folders(folder, self.disk, below=self.root)
            self._folders.add(folder)
        written = write_segment(reserved.path, table, self.disk, by_stream=by_stream)
        return Finished(reserved.number, written, len(table), tuple(payload_columns(table)), span)

    def publish(self, connection: sqlite3.Connection, files: Iterable[Finished], retired: Iterable[Segment] = ()) -> None:
        """Pending segments become live, and others are retired: from this COMMIT on readers see it so."""
        for file in files:
            connection.execute(
                "UPDATE segment SET rows = ?, bytes = ?, digest = ?, columns = ?, min_recorded = ?, max_recorded = ?, "
                "state = 'live', lease = 0 WHERE id = ?",
                (file.rows, file.written.bytes, file.written.digest, json.dumps(file.columns), *file.recorded_us, file.number),
            )
        connection.execute("UPDATE log SET generation = generation + 1")
        # `lease` says when it was retired, `gone` which generation is the first without it.
        connection.executemany(
            "UPDATE segment SET state = 'retired', lease = ?, gone = (SELECT generation FROM log) WHERE id = ?",
            [(int(time.time()), segment.id) for segment in retired],
        )
        advance_sealed(connection)

    def abandon(self, reserved: Iterable[Reserved]) -> None:
        """Delete files that did not become part of the log, and their pending rows.

        The catalog is asked first: an error, or Ctrl-C, may come when the COMMIT is already done. Whatever cannot be done
        now, on a full disk, is left over and harmless; `gc` removes it when its lease is over.
        """
        for file in reserved:
            with contextlib.suppress(EventlabError, sqlite3.Error, OSError), self.catalog.write() as connection:
                pending = "SELECT 1 FROM segment WHERE id = ? AND state = 'pending'"
                if connection.execute(pending, (file.number,)).fetchone():
                    remove(file.path, self.disk)
                    connection.execute("DELETE FROM segment WHERE id = ?", (file.number,))

    @contextlib.contextmanager
    def or_abandon(self, reserved: Iterable[Reserved]) -> Iterator[None]:
        """Abandon the files when what is done with them fails."""
        try:
            yield
        except BaseException:
            self.abandon(reserved)
            raise

    # -- what is live

    def live(self, connection: sqlite3.Connection) -> tuple[Segment, ...]:
        """The live segments in the order of their runs; a segment that was seen before keeps its open file."""
        rows = connection.execute(
            "SELECT id, path, tenant, category, run_first, run_last, rows, bytes, digest, columns, min_recorded, max_recorded, "
            "level, bucket, buckets FROM segment WHERE state = 'live' ORDER BY run_first, id"
        ).fetchall()
        found = []
        for number, path, tenant, category, first, last, count, size, digest, columns, low, high, *place in rows:
            segment = self._segments.get(number)
            if segment is None:
                try:
                    names = tuple(json.loads(columns))
                except (TypeError, ValueError) as why:
                    raise Damaged(f"the catalog's row of segment {number} cannot be read: {why}", hint=SEE_VERIFY) from why
                segment = Segment(
                    number, self.root / path, self.tenants.name(connection, tenant), self.categories.name(connection, category),
                    first, last, count, size, digest, names, low, high, *place,
                )  # fmt: skip
            found.append(segment)
        self._segments = {segment.id: segment for segment in found}
        return tuple(found)

    def forget(self) -> None:
        """Let go of the open files."""
        self._segments = {}


def advance_sealed(connection: sqlite3.Connection) -> None:
    """`sealed` is the end of the unbroken run of live segments from position 1."""
    while True:
        row = connection.execute(
            "SELECT max(run_last) FROM segment WHERE state = 'live' AND run_first = (SELECT sealed + 1 FROM log)"
        ).fetchone()
        if row[0] is None:
            return
        connection.execute("UPDATE log SET sealed = ?", (row[0],))
