"""The hot tail: events that are rows of the catalog and not yet part of a segment.

Appends insert here; `Tail` keeps the same rows as Arrow tables for those who scan the log, fetched once per process and
extended. A seal turns them into segments; rows at or below `sealed` are ignored, so trimming is never urgent.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa

from eventlab.errors import Damaged
from eventlab.store.base import Draft, Row, joined, record_digest, record_of, row_of_record
from eventlab.store.columns import payload_columns
from eventlab.store.rules import same_append

#: What `row_of` takes.
READ_COLUMNS: Final = "position, tenant, stream, version, event_id, record, digest"
_INSERT: Final = (
    "INSERT INTO event(position, tenant, stream, version, event_id, content, record, digest) VALUES(?, ?, ?, ?, ?, ?, ?, ?)"
)
_UPSERT_HEAD: Final = (
    "INSERT INTO stream_head VALUES(?, ?, ?, ?, ?) ON CONFLICT(tenant, stream) DO UPDATE SET "
    "version = excluded.version, last_position = excluded.last_position"
)
#: An id is that of a hot event, or is in the window of ids that is kept of those that are not.
_FIND_ID: Final = (
    "SELECT position, content, version FROM event WHERE tenant = :tenant AND event_id = :id UNION ALL "
    "SELECT position, content, version FROM event_key WHERE tenant = :tenant AND event_id = :id"
)
#: More streams than these are looked up by one statement.
MANY_STREAMS: Final = 16
#: A tenant's name by its number.
TenantName = Callable[[int], str]


# -- rows in the catalog ---------------------------------------------------------------------------------------------------


def insert(connection: sqlite3.Connection, tenant_id: int, rows: Sequence[Row], drafts: Sequence[Draft]) -> None:
    """Add the rows of drafts to the tail, and move the heads of their streams."""
    records = map(record_of, rows)
    connection.executemany(
        _INSERT,
        [
            (row.position, tenant_id, row.stream, row.version, row.event_id, draft.content, record, record_digest(record))
            for row, draft, record in zip(rows, drafts, records, strict=True)
        ],
    )
    heads: dict[str, tuple[int, int, int]] = {}
    for row in rows:
        heads[row.stream] = (row.version, heads.get(row.stream, (0, row.position, 0))[1], row.position)
    move_heads(connection, ((tenant_id, stream, *numbers) for stream, numbers in heads.items()))


def move_heads(connection: sqlite3.Connection, heads: Iterable[tuple[int, str, int, int, int]]) -> None:
    """Record (tenant, stream, version, first position, last position); the first position of a known stream stays."""
    connection.executemany(_UPSERT_HEAD, heads)


def heads_of(connection: sqlite3.Connection, tenant_id: int, streams: Iterable[str]) -> dict[str, int]:
    """The versions of those streams that have events."""
    wanted = list(dict.fromkeys(streams))
    if len(wanted) > MANY_STREAMS:
        rows = connection.execute(
            "SELECT stream, version FROM json_each(?) CROSS JOIN stream_head WHERE tenant = ? AND stream = value",
            (json.dumps(wanted, ensure_ascii=False), tenant_id),
        )
        return dict(rows.fetchall())
    found = {}
    for stream in wanted:
        row = connection.execute(
            "SELECT version FROM stream_head WHERE tenant = ? AND stream = ?", (tenant_id, stream)
        ).fetchone()
        if row is not None:
            found[stream] = int(row[0])
    return found


def earlier(
    connection: sqlite3.Connection, tenant_id: int, drafts: Sequence[Draft]
) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """Positions and versions of an append that is repeated; None for a new one."""
    rows = [connection.execute(_FIND_ID, {"tenant": tenant_id, "id": draft.event_id}).fetchone() for draft in drafts]
    positions = same_append(drafts, [None if row is None else (row[0], row[1]) for row in rows])
    return None if positions is None else (positions, tuple(row[2] for row in rows))


def envelopes_after(connection: sqlite3.Connection, position: int) -> list[tuple[int, int, str, str, tuple[str, ...]]]:
    """Position, tenant, type, stream and tags of the hot events after a position."""
    found = connection.execute("SELECT tenant, record FROM event WHERE position > ? ORDER BY position", (position,))
    try:
        rows = [(tenant, row_of_record(record)) for tenant, record in found]
    except Damaged as why:
        raise damaged(f"positions after {position:,}", why) from why
    return [(row.position, tenant, row.type, row.stream, row.tags) for tenant, row in rows]


def row_of(raw: Sequence[Any], tenant_name: TenantName) -> Row:
    """The row that READ_COLUMNS were read from; `Damaged` where it is not what was written.

    So a damaged event is not read as if it were whole, and not sealed either.
    """
    position, tenant, stream, version, event_id, record, digest = raw
    row = _whole(position, record, digest)
    if (row.tenant, row.stream, row.version, row.event_id) != (tenant_name(tenant), stream, version, event_id):
        raise damaged(f"position {position:,}", ValueError("it is not what was written"))
    return row


def _whole(position: int, record: bytes, digest: bytes) -> Row:
    try:
        row = row_of_record(record)
    except Damaged as why:
        raise damaged(f"position {position:,}", why) from why
    if record_digest(record) != digest or row.position != position:
        raise damaged(f"position {position:,}", ValueError("it is not what was written"))
    return row


def rows_between(connection: sqlite3.Connection, first: int, last: int) -> list[Row]:
    """The hot rows of a run of positions, in order, by their records alone."""
    found = connection.execute(
        "SELECT position, record, digest FROM event WHERE position BETWEEN ? AND ? ORDER BY position", (first, last)
    ).fetchall()
    return [_whole(*raw) for raw in found]


def rows_of_stream(
    connection: sqlite3.Connection, tenant_id: int, stream: str, after_version: int, until: int, tenant_name: TenantName
) -> list[Row]:
    """The hot rows of one stream after a version, by index."""
    found = connection.execute(
        f"SELECT {READ_COLUMNS} FROM event WHERE tenant = ? AND stream = ? AND version > ? AND position <= ? ORDER BY version",
        (tenant_id, stream, after_version, until),
    ).fetchall()
    return [row_of(raw, tenant_name) for raw in found]


def by_category(rows: Iterable[Row]) -> dict[tuple[str, str], list[Row]]:
    """Rows by tenant and category, in their order."""
    parts: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        parts.setdefault((row.tenant, row.stream.partition("-")[0]), []).append(row)
    return parts


def damaged(where: str, why: Exception) -> Damaged:
    """The error for hot events that do not decode."""
    said = why.message if isinstance(why, Damaged) else why
    return Damaged(f"hot events at {where} cannot be read: {said}", hint="eventlab verify tells which; restore a backup")


# -- the same rows in memory -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class HotPart:
    """A run of hot positions as one table a tenant and category."""

    first: int
    last: int
    tables: dict[tuple[str, str], pa.Table]

    def select(self, key: tuple[str, str], envelope: Sequence[str], payload: frozenset[str] | None) -> pa.Table:
        """Some columns of one table; `payload` None asks for every payload column."""
        table = self.tables[key]
        return table.select([*envelope, *(c for c in payload_columns(table) if payload is None or c in payload)])

    def position_at(self, recorded_us: int) -> int:
        """The last position recorded at or before a moment, `first - 1` when there is none."""
        found = self.first - 1
        for table in self.tables.values():
            times = table.column("recorded_at").combine_chunks().view(pa.int64()).to_numpy()
            at = int(np.searchsorted(times, recorded_us, "right"))
            if at:
                found = max(found, table.column("position")[at - 1].as_py())
        return found


class Tail:
    """Hot rows as Arrow, fetched once per process and extended; parts are merged so that there are never many."""

    MERGE_AT = 32

    def __init__(self) -> None:
        self._holes: dict[int, list[HotPart]] = {}

    def extend(self, first: int, last: int, fetch: Callable[[int, int], dict[tuple[str, str], pa.Table]]) -> None:
        """Bring the hole that begins at `first` up to `last`."""
        parts = self._holes.setdefault(first, [])
        begin = parts[-1].last + 1 if parts else first
        if begin <= last:
            parts.append(HotPart(begin, last, fetch(begin, last)))
        if len(parts) > self.MERGE_AT:
            self._holes[first] = [_merged(parts)]

    def parts(self) -> tuple[HotPart, ...]:
        """All parts, in position order."""
        return tuple(part for first in sorted(self._holes) for part in self._holes[first])


def _merged(parts: Sequence[HotPart]) -> HotPart:
    found: dict[tuple[str, str], list[pa.Table]] = {}
    for part in parts:
        for key, table in part.tables.items():
            found.setdefault(key, []).append(table)
    return HotPart(parts[0].first, parts[-1].last, {key: joined(some) for key, some in found.items()})
