"""Ingest: rows that people already have become events of the log.

Several sources are checked whole, merged into one order by time, and written in chunks, each all or nothing. What was
written stays written: a repeated ingest of the same source goes on where it stopped, or adds nothing.
"""

from __future__ import annotations

import hashlib
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import polars as pl
import pyarrow as pa

from eventlab.errors import IngestRefused
from eventlab.integration.rows import Prepared, Rows, prepare, rows
from eventlab.model.ids import derived
from eventlab.model.meta import Context
from eventlab.model.types import Leaf
from eventlab.store.base import Chunk, ChunkState, Cut, Store
from eventlab.store.columns import codec
from eventlab.store.schemas import unknown
from eventlab.temporal.reader import Bar

__all__ = ["CHUNK_ROWS", "Ingested", "Prepared", "Rows", "ingest", "prepare", "rows"]

CHUNK_ROWS: Final = 250_000
#: How the digest of a chunk is made; stores keep it, and compare only digests of one form.
_DIGEST_FORM: Final = 2


@dataclass(frozen=True)
class Ingested:
    """What an ingest did: `events` added now, `already` there from before, and where the source lies in the log."""

    source: str
    events: int
    already: int
    by_type: dict[str, int]
    first: int
    last: int
    seconds: float

    @property
    def events_per_second(self) -> float:
        return self.events / self.seconds if self.seconds else 0.0


def ingest(
    store: Store,
    sources: Sequence[Rows],
    *,
    source: str,
    tenant: str,
    recorded_at: Literal["now", "occurred_at"],
    context: Context,
    bar: Bar,
    prepared: Sequence[Prepared] | None = None,
) -> Ingested:
    """Check all rows, then write them chunk by chunk; see `Lab.ingest`."""
    started = time.perf_counter()
    parts = list(prepared) if prepared is not None else [prepare(part) for part in sources]
    # The log is looked at before its chunks: what somebody else ingests of this source in between is then not held against it.
    cut, last_recorded = store.cut(), store.last_recorded()
    unknown((part.schema for part in parts), cut.schemas)
    imported = recorded_at == "occurred_at"
    order, times = _order(parts, imported)
    done = store.chunks(tenant, source)
    _refuse_known_ids(cut, parts, tenant, done)
    _refuse_early(last_recorded, source, imported, times[order] if times is not None else None, done)
    added = already = 0
    first = last = 0
    starts = np.cumsum([0, *map(len, parts)])
    shared = _Shared(source, tenant, len(order), imported, context)
    number = low = 0
    while low < len(order):
        before = done.get(number)
        # What was written says where its chunks end, whatever their size was then.
        picked = order[low : low + (before.rows if before is not None else CHUNK_ROWS)]
        chunk = _chunk(parts, starts, picked, number, shared)
        if before is not None:
            _refuse_changed(before, chunk)
            state = before
            already += before.rows
        else:
            state = store.ingest(chunk, tenant=tenant)
            added += state.rows
        first, last = first or state.first, state.last
        bar.advance(len(picked))
        number, low = number + 1, low + len(picked)
    _refuse_shorter(source, done, len(order))
    by_type: dict[str, int] = {}
    for part in parts:
        by_type[part.schema.name] = by_type.get(part.schema.name, 0) + len(part)
    return Ingested(source, added, already, by_type, first, last, time.perf_counter() - started)


# -- all sources together --------------------------------------------------------------------------------------------------


def _order(parts: Sequence[Prepared], imported: bool) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any] | None]:
    """The order of all rows by time; ties keep the order of the sources, then of their rows."""
    timed = [part.times is not None for part in parts]
    if imported and not all(timed):
        raise IngestRefused("imported history needs occurred_at= for every source", hint="name the column of each source's time")
    if len(parts) > 1 and not all(timed):
        raise IngestRefused("several sources are merged by time, and one has no occurred_at=", hint="name the column of its time")
    if not parts or not all(timed):
        return np.arange(sum(map(len, parts))), None
    times = np.concatenate([part.times.to_physical().to_numpy() for part in parts if part.times is not None])
    return np.argsort(times, kind="stable"), times


@dataclass(frozen=True)
class _Shared:
    """What all rows of an ingest have in common; `rows` is their number."""

    source: str
    tenant: str
    rows: int
    imported: bool
    context: Context


def _chunk(
    parts: Sequence[Prepared], starts: np.ndarray[Any, Any], picked: np.ndarray[Any, Any], number: int, shared: _Shared
) -> Chunk:
    """The rows at these places of the whole order, as one table a category."""
    pieces: dict[str, list[tuple[pa.Table, np.ndarray[Any, Any]]]] = {}
    digest = hashlib.sha256(b"imported" if shared.imported else b"")
    for i, part in enumerate(parts):
        offsets = np.flatnonzero((picked >= starts[i]) & (picked < starts[i + 1]))
        if len(offsets):
            table = _table(part, picked[offsets] - starts[i], int(starts[i]), shared)
            _digest_rows(digest, table, timed=part.times is not None)
            pieces.setdefault(part.category, []).append((table, offsets))
    whole = {category: _merged(some, len(picked), shared) for category, some in pieces.items()}
    schemas = tuple({part.schema.key: part.schema for part in parts}.values())
    # The number of all rows too: a source that grew has changed, also where its first chunks have not.
    stamp = f"{pa.__version__}/{_DIGEST_FORM}|{shared.rows}|".encode() + digest.digest()
    return Chunk(shared.source, number, stamp, len(picked), whole, schemas, shared.imported)


def _merged(pieces: Sequence[tuple[pa.Table, np.ndarray[Any, Any]]], rows: int, shared: _Shared) -> pa.Table:
    """Pieces of a chunk as one table in its order, with what all rows have in common."""
    offsets = np.concatenate([places for _, places in pieces])
    table = pa.concat_tables([piece for piece, _ in pieces], promote_options="default").combine_chunks()
    if len(pieces) > 1:
        at = np.full(rows, -1, np.int64)
        at[offsets] = np.arange(len(offsets))
        at = at[at >= 0]
        offsets, table = offsets[at], table.take(pa.array(at))
    count, context = len(offsets), shared.context
    common: dict[str, Any] = {
        "offset": pa.array(offsets, pa.int64()),
        "correlation_id": _constant(context.correlation_id and context.correlation_id.bytes, pa.binary(16), count),
        "causation_id": _constant(context.causation_id and context.causation_id.bytes, pa.binary(16), count),
        "actor": _constant(context.actor, pa.string(), count),
    }
    if shared.imported:
        common["recorded_at"] = table.column("occurred_at")
    names = [*common, *table.column_names]
    return pa.table([*common.values(), *table.columns], names=names)


def _digest_rows(digest: Any, table: pa.Table, *, timed: bool) -> None:
    """Mix in what the rows say: not their ids, not who ingests them, nor the time of an ingest that has none of its own."""
    unsaid = {"event_id", *(() if timed else ("occurred_at",))}
    for name in table.column_names:
        if name in unsaid:
            continue
        column = table.column(name).combine_chunks()
        digest.update(f"{name} {column.type}".encode())
        if column.null_count:
            # What lies in memory under a null is chance.
            digest.update(column.is_valid().to_numpy(zero_copy_only=False).tobytes())
            column = column.drop_null()
        if pa.types.is_nested(column.type) or pa.types.is_boolean(column.type):
            # So is what lies under a null further down, and in the last byte of bits; a copy has neither.
            column = column.take(pa.array(np.arange(len(column))))
        digest.update(pa.record_batch([column], names=[name]).serialize())


def _table(part: Prepared, at: np.ndarray[Any, Any], start: int, shared: _Shared) -> pa.Table:
    """Some rows of one source, with what they say themselves of the envelope."""
    count = len(at)
    # A source in order of time is cut and not copied.
    low, run = int(at[0]), int(at[-1]) - int(at[0]) + 1 == count and bool((np.diff(at) == 1).all())
    index = pl.Series(at)

    def picked(series: pl.Series) -> pl.Series:
        return series.slice(low, count) if run else series.gather(index)

    times = picked(part.times).to_physical().to_numpy() if part.times is not None else None
    now = time.time_ns() // 1000
    occurred = pa.array(times if times is not None else np.full(count, now), pa.int64()).view(pa.timestamp("us", "UTC"))
    ids = picked(part.ids).to_list() if part.ids is not None else None
    arrays: dict[str, Any] = {
        "stream": picked(part.streams).to_arrow().cast(pa.string()),
        "type": pa.repeat(pa.scalar(part.schema.name), count),
        "schema_version": pa.repeat(pa.scalar(part.schema.version, pa.int16()), count),
        "event_id": pa.array(ids, pa.binary(16)) if ids is not None else _row_ids(shared, at + start),
        "occurred_at": occurred,
        "tags": picked(part.tags).to_arrow().cast(pa.list_(pa.string())) if part.tags is not None else _no_tags(count),
    }
    for column in part.payload:
        arrays[column.name] = picked(column).to_arrow().cast(codec(Leaf.parse(column.name).tag).arrow)
    return pa.table(arrays)


def _row_ids(shared: _Shared, numbers: np.ndarray[Any, Any]) -> pa.Array:
    """The ids that follow from the source, each by the number of its row; always the same, and small on the disk."""
    first = derived(shared.source, 1, shared.tenant, of=b"eventlab ingest")[0]
    high, low = np.frombuffer(first, ">u8")
    raw = np.empty((len(numbers), 2), ">u8")
    raw[:, 0] = high
    # As `derived` counts: in the last 62 bits.
    counted = np.uint64((1 << 62) - 1)
    raw[:, 1] = (low & ~counted) | ((low & counted) + numbers.astype(np.uint64) & counted)
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(16), len(numbers), [None, pa.py_buffer(raw.tobytes())])


def _constant(value: Any, kind: pa.DataType, count: int) -> pa.Array:
    return pa.repeat(pa.scalar(value, kind), count) if value is not None else pa.nulls(count, kind)


def _no_tags(count: int) -> pa.Array:
    return pa.ListArray.from_arrays(pa.array(np.zeros(count + 1, np.int32)), pa.array([], pa.string()))


def _refuse_known_ids(cut: Cut, parts: Sequence[Prepared], tenant: str, done: Mapping[int, ChunkState]) -> None:
    """An id names one event, in whichever source it stands, and in the log."""
    ids = pl.concat([pl.Series("id", [], pl.Binary), *(part.ids.rename("id") for part in parts if part.ids is not None)])
    if ids.n_unique() < len(ids):
        twice = uuid.UUID(bytes=ids.filter(ids.is_duplicated())[0])
        raise IngestRefused(f"the event id {twice} occurs in several sources", hint="nothing was stored", id=str(twice))
    if not len(ids) or sum(state.rows for state in done.values()) >= sum(map(len, parts)):
        return
    # Only ids of the caller's own are looked for: those made here are new with their source, and the look is at every id.
    for batch in cut.batches(tenant=tenant, envelope=("position", "event_id"), types=()):
        there = pl.DataFrame(batch.envelope_table).filter(pl.col("event_id").is_in(ids.implode()))
        for position, known in there.select("position", "event_id").iter_rows():
            if not any(state.first <= position <= state.last for state in done.values()):
                raise IngestRefused(
                    f"the event id {uuid.UUID(bytes=known)} is in the log already, at position {position:,}",
                    hint="nothing was stored; leave event_id= out, or these rows",
                    id=str(uuid.UUID(bytes=known)),
                    position=position,
                )


def _refuse_early(last: int, source: str, imported: bool, times: Any, done: Mapping[int, ChunkState]) -> None:
    """Imported history may not begin before the store's last record: known then would no longer mean what it meant."""
    if not imported or times is None or not len(times):
        return
    there = sum(state.rows for state in done.values())
    first = int(times[min(there, len(times) - 1)])
    if there < len(times) and first < last:
        from_text, to_text = (pl.Series([v]).cast(pl.Datetime("us", "UTC"))[0].isoformat() for v in (first, last))
        raise IngestRefused(
            f"imported history of {source!r} begins at {from_text}, before the store's last record at {to_text}",
            hint="import history before live events, or into a store of its own, or leave recorded_at out",
            first=first,
            last=last,
        )


def _refuse_changed(before: ChunkState, chunk: Chunk) -> None:
    """A source that was ingested must be the same now; digests of another PyArrow or another form are not compared."""
    then, now = before.digest.split(b"|", 2), chunk.digest.split(b"|", 2)
    if before.rows != chunk.rows or then[1] != now[1] or (then[0] == now[0] and then[2] != now[2]):
        counts = f"{int(then[1]):,} rows then, {int(now[1]):,} now"
        raise IngestRefused(
            f"source {chunk.source!r} was ingested before with other rows: chunk {chunk.number} differs ({counts} in all)",
            hint="give the new rows a source name of their own; correct old ones with an event",
            source=chunk.source,
            chunk=chunk.number,
        )


def _refuse_shorter(source: str, done: Mapping[int, ChunkState], rows: int) -> None:
    before = sum(state.rows for state in done.values())
    if before > rows:
        raise IngestRefused(
            f"source {source!r} was ingested before with {before:,} rows, and now has {rows:,}", hint="use another source name"
        )
