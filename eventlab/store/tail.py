"""The hot tail: events that are in the catalog and not yet part of a segment.

A row of the table is a *run*: events of one stream that were appended together, with consecutive positions, versions and
ids, in one record with one digest. So an append of a hundred events costs little more than one of a single event.
Appends insert here; `Tail` keeps the same rows as Arrow tables for those who scan the log, fetched once per process and
extended. A seal turns them into segments; rows at or below `sealed` are ignored, so trimming is never urgent.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa

from eventlab.errors import Damaged
from eventlab.store.base import Row, joined, record_digest, record_of, rows_of_record
from eventlab.store.columns import payload_columns

#: What `rows_of` takes.
READ_COLUMNS: Final = "position, tenant, stream, version, count, event_id, record, digest"
_INSERT: Final = (
    "INSERT INTO event(position, tenant, stream, version, count, event_id, record, digest) VALUES(?, ?, ?, ?, ?, ?, ?, ?)"
)
_UPSERT_HEAD: Final = (
    "INSERT INTO stream_head VALUES(?, ?, ?, ?, ?) ON CONFLICT(tenant, stream) DO UPDATE SET "
    "version = excluded.version, last_position = excluded.last_position"
)
#: Runs of hot events, and of those in the window of known ids that are not hot any more, whose first id is at most this one.
_FIND_IDS: Final = tuple(
    f"SELECT event_id, count, position, version FROM {table} WHERE tenant = ? AND event_id <= ? ORDER BY event_id DESC"
    for table in ("event", "event_key")
)
_STREAM: Final = (
    "SELECT h.version, h.first_position, h.last_position, e.position, e.tenant, e.stream, e.version, e.count, e.event_id, "
    "e.record, e.digest FROM stream_head h LEFT JOIN event e ON e.tenant = h.tenant AND e.stream = h.stream "
    "AND e.version > ? AND e.position <= ? WHERE h.tenant = ? AND h.stream = ? ORDER BY e.version"
)
#: A run has at most so many events, and bytes unless it is one event: what a reader decodes to see one of them.
RUN_EVENTS: Final = 256
RUN_BYTES: Final = 1 << 20
#: More streams than these are looked up by one statement.
MANY_STREAMS: Final = 16
#: A tenant's name by its number.
TenantName = Callable[[int], str]


# -- rows in the catalog ---------------------------------------------------------------------------------------------------


def insert(connection: sqlite3.Connection, tenant_id: int, rows: Sequence[Row]) -> None:
    """Add rows to the tail, and move the heads of their streams."""
    made = [(run, record) for together in _runs(rows) for run, record in _fitting(together)]
    connection.executemany(
        _INSERT,
        [
            (run[0].position, tenant_id, run[0].stream, run[0].version, len(run), run[0].event_id, record, record_digest(record))
            for run, record in made
        ],
    )
    heads: dict[str, tuple[int, int, int]] = {}
    for run, _ in made:
        stream, last = run[0].stream, run[-1]
        heads[stream] = (last.version, heads[stream][1] if stream in heads else run[0].position, last.position)
    move_heads(connection, ((tenant_id, stream, *numbers) for stream, numbers in heads.items()))


def _runs(rows: Sequence[Row]) -> Iterator[Sequence[Row]]:
    """Rows together that may be one run."""
    low, stream, number = 0, rows[0].stream, _number(rows[0].event_id)
    for at, row in enumerate(rows):
        if int.from_bytes(row.event_id, "big") - number != at - low or row.stream != stream or at - low == RUN_EVENTS:
            yield rows[low:at]
            low, stream, number = at, row.stream, _number(row.event_id)
    yield rows[low:]


def _fitting(rows: Sequence[Row]) -> Iterator[tuple[Sequence[Row], bytes]]:
    """A run with its record, or its halves where it is too large."""
    record = record_of(rows)
    if len(record) > RUN_BYTES and len(rows) > 1:
        middle = len(rows) // 2
        yield from _fitting(rows[:middle])
        yield from _fitting(rows[middle:])
    else:
        yield rows, record


def _number(event_id: bytes) -> int:
    return int.from_bytes(event_id, "big")


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


def known_ids(
    connection: sqlite3.Connection, tenant_id: int, event_ids: Sequence[bytes]
) -> list[tuple[int, int] | None]:
    """The position and version of the event that has each id, None where there is none: hot ones, and the window of others."""
    found: list[tuple[int, int] | None] = [None] * len(event_ids)
    numbers = [_number(event_id) for event_id in event_ids]
    low = 0
    for high in range(1, len(numbers) + 1):
        if high < len(numbers) and numbers[high] == numbers[high - 1] + 1:
            continue
        for query in _FIND_IDS:
            # Runs of ids do not overlap: the first that ends before ours ends the search.
            for event_id, count, position, version in connection.execute(query, (tenant_id, event_ids[high - 1])):
                begin = _number(event_id)
                if begin + count <= numbers[low]:
                    break
                for number in range(max(begin, numbers[low]), min(begin + count, numbers[high - 1] + 1)):
                    found[low + number - numbers[low]] = (position + number - begin, version + number - begin)
        low = high
    return found


def envelopes_after(connection: sqlite3.Connection, position: int) -> list[tuple[int, str, str, str, tuple[str, ...]]]:
    """Position, tenant, type, stream and tags of the hot events after a position."""
    head = connection.execute("SELECT head FROM log").fetchone()[0]
    rows = rows_between(connection, position + 1, head)
    return [(row.position, row.tenant, row.type, row.stream, row.tags) for row in rows]


def rows_of(raw: Sequence[Any], tenant_name: TenantName) -> list[Row]:
    """The rows that READ_COLUMNS were read from; `Damaged` where they are not what was written.

    So a damaged event is not read as if it were whole, and not sealed either.
    """
    position, tenant, stream, version, count, event_id, record, digest = raw
    rows = _whole(position, count, record, digest)
    first = rows[0]
    if (first.tenant, first.stream, first.version, first.event_id) != (tenant_name(tenant), stream, version, event_id):
        raise _changed(position)
    return rows


def _whole(position: int, count: int, record: bytes, digest: bytes) -> list[Row]:
    try:
        rows = rows_of_record(record)
    except Damaged as why:
        raise damaged(f"position {position:,}", why) from why
    if record_digest(record) != digest or len(rows) != count or not rows or rows[0].position != position:
        raise _changed(position)
    return rows


def _changed(position: int) -> Damaged:
    return damaged(f"position {position:,}", ValueError("it is not what was written"))


def rows_between(connection: sqlite3.Connection, first: int, last: int) -> list[Row]:
    """The hot rows of some positions, in order, by their records alone."""
    found = connection.execute(
        "SELECT position, count, record, digest FROM event WHERE position BETWEEN ? AND ? ORDER BY position",
        (first - RUN_EVENTS + 1, last),
    ).fetchall()
    rows: list[Row] = []
    for raw in found:
        if raw[0] + raw[1] > first:
            rows += _whole(*raw)
    while rows and rows[-1].position > last:
        rows.pop()
    begin = next((at for at, row in enumerate(rows) if row.position >= first), len(rows))
    return rows[begin:] if begin else rows


def run_end(connection: sqlite3.Connection, position: int) -> int:
    """The last position of the run that a position is in; the position itself where it is in none."""
    found = connection.execute(
        "SELECT position + count - 1 FROM event WHERE position <= ? ORDER BY position DESC LIMIT 1", (position,)
    ).fetchone()
    return position if found is None else max(position, int(found[0]))


def stream_of(
    connection: sqlite3.Connection, tenant_id: int, stream: str, after_version: int, until: int, tenant_name: TenantName
) -> tuple[tuple[int, int, int], list[Row]] | None:
    """A stream's version, first and last position, and its hot rows after a version; None where it has no events.

    It is one statement, and so of one moment without a transaction.
    """
    found = connection.execute(_STREAM, (after_version - RUN_EVENTS, until, tenant_id, stream)).fetchall()
    if not found:
        return None
    head = found[0][:3]
    if found[0][3] is None:  # none of it is hot
        return head, []
    rows = [row for raw in found if raw[6] + raw[7] > after_version + 1 for row in rows_of(raw[3:], tenant_name)]
    if rows and (rows[0].version <= after_version or rows[-1].position > until):
        rows = [row for row in rows if row.version > after_version and row.position <= until]
    return head, rows


def by_category(rows: Iterable[Row]) -> dict[tuple[str, str], list[Row]]:
    """Rows by tenant and category, in their order."""
    parts: dict[tuple[str, str], list[Row]] = {}
    part: list[Row] = []
    tenant = stream = ""
    for row in rows:
        if row.stream != stream or row.tenant != tenant:
            tenant, stream = row.tenant, row.stream
            part = parts.setdefault((tenant, stream.partition("-")[0]), [])
        part.append(row)
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
