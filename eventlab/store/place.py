"""Ingest: a chunk of rows gets its places after the head and becomes segments, all or nothing.

The files are written outside the write transaction, betting that `head` does not move; inside it the bet is checked. A
bet that is lost too often is not made again: the last try writes the files inside the transaction, and cannot lose.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from eventlab.errors import Damaged
from eventlab.model.schema import Schema
from eventlab.store.base import Chunk, ChunkState, checksum
from eventlab.store.catalog import SEE_VERIFY
from eventlab.store.columns import ENVELOPE_NAMES, payload_columns
from eventlab.store.rules import refuse_early
from eventlab.store.runs import Finished, Place, Reserved, Runs
from eventlab.store.tail import heads_of, move_heads

INGEST_BETS: Final = 2
#: Records types, and which category uses them, in the transaction of the connection.
Register = Callable[[sqlite3.Connection, int, Collection[tuple[str, Schema]]], object]


@dataclass(frozen=True)
class _Heads:
    """Streams with their new version, first and last position."""

    streams: list[str]
    versions: list[int]
    first: list[int]
    last: list[int]


@dataclass(frozen=True)
class _Placed:
    """Rows that have places after `base`, written as files that are still pending; and the new heads of their streams."""

    base: int
    files: tuple[Finished, ...]
    heads: tuple[_Heads, ...]


@dataclass(frozen=True)
class _Bet:
    """The files that a chunk will be written to, if `head` is still `base` then."""

    base: int
    recorded_at: int
    files: dict[Place, Reserved]


def ingest(runs: Runs, register: Register, chunk: Chunk, *, tenant: str, now: int) -> ChunkState:
    """Write a chunk as segments and register it, all or nothing; a chunk that is there stays as it is."""
    for bet in range(INGEST_BETS + 1):
        reserved: _Bet | None = None
        placed: _Placed | None = None
        try:
            if bet < INGEST_BETS:
                with runs.catalog.write() as connection:
                    if done := _state(runs, connection, chunk, tenant):
                        return done
                    reserved = _reserve(runs, connection, chunk, tenant)
                with runs.catalog.read() as connection:
                    placed = _place(runs, connection, chunk, tenant, reserved, now)
            with runs.catalog.write() as connection:
                done = _state(runs, connection, chunk, tenant)
                head = connection.execute("SELECT head FROM log").fetchone()[0]
                if done is None and placed is None:
                    # Slower for others, but it cannot lose.
                    reserved = _reserve(runs, connection, chunk, tenant)
                    placed = _place(runs, connection, chunk, tenant, reserved, now)
                if done is None and placed is not None and placed.base == head:
                    return _commit(runs, register, connection, chunk, tenant, placed)
        except BaseException:
            runs.abandon(reserved.files.values() if reserved is not None else ())
            raise
        runs.abandon(reserved.files.values() if reserved is not None else ())
        if done is not None:
            return done
    raise AssertionError("the last try commits or raises")


def chunk_states(connection: sqlite3.Connection, tenant_id: int, source: str) -> dict[int, ChunkState]:
    """The chunks of a source that are in the log."""
    rows = connection.execute(
        "SELECT chunk, rows, first, last, digest, checksum FROM import_chunk WHERE tenant = ? AND source = ?", (tenant_id, source)
    ).fetchall()
    for *row, said in rows:
        if checksum(tenant_id, source, *row) != said:
            raise Damaged(f"what the catalog says of chunk {row[0]} of {source!r} is not what was written", hint=SEE_VERIFY)
    return {chunk: ChunkState(count, first, last, digest) for chunk, count, first, last, digest, _ in rows}


def _state(runs: Runs, connection: sqlite3.Connection, chunk: Chunk, tenant: str) -> ChunkState | None:
    return chunk_states(connection, runs.tenants.ensure(connection, tenant), chunk.source).get(chunk.number)


def _reserve(runs: Runs, connection: sqlite3.Connection, chunk: Chunk, tenant: str) -> _Bet:
    base, last = connection.execute("SELECT head, recorded_at FROM log").fetchone()
    places = [Place(tenant, category) for category in sorted(chunk.tables)]
    return _Bet(base, last, runs.reserve(connection, places, base + 1, base + chunk.rows))


def _place(runs: Runs, connection: sqlite3.Connection, chunk: Chunk, tenant: str, bet: _Bet, now: int) -> _Placed:
    """Give the rows of a chunk their places after the head of now, and write them as segment files."""
    recorded_at = max(now, bet.recorded_at)
    tenant_id = runs.tenants.get(connection, tenant) or 0
    files, heads = [], []
    for place, reserved in bet.files.items():
        table = chunk.tables[place.category]
        if chunk.imported:
            first = pc.min(table.column("recorded_at").combine_chunks().view(pa.int64())).as_py()
            refuse_early(chunk.source, first, bet.recorded_at)
        placed, of_streams = _with_places(table, bet.base, tenant, recorded_at, connection, tenant_id)
        files.append(runs.write(reserved, placed))
        heads.append(of_streams)
    return _Placed(bet.base, tuple(files), tuple(heads))


def _commit(
    runs: Runs, register: Register, connection: sqlite3.Connection, chunk: Chunk, tenant: str, placed: _Placed
) -> ChunkState:
    tenant_id = runs.tenants.ensure(connection, tenant)
    uses = [
        (category, schema)
        for schema in chunk.schemas
        for category, table in chunk.tables.items()
        if pc.any(_is_type(table, schema)).as_py()
    ]
    register(connection, tenant_id, uses)
    first, last = placed.base + 1, placed.base + chunk.rows
    for heads in placed.heads:
        numbers = (heads.streams, heads.versions, heads.first, heads.last)
        move_heads(connection, zip([tenant_id] * len(heads.streams), *numbers, strict=True))
    row = (tenant_id, chunk.source, chunk.number, chunk.rows, first, last, chunk.digest)
    connection.execute("INSERT INTO import_chunk VALUES(?, ?, ?, ?, ?, ?, ?, ?)", (*row, checksum(*row)))
    recorded_at = max(file.recorded_us[1] for file in placed.files)
    connection.execute("UPDATE log SET head = ?, recorded_at = max(recorded_at, ?)", (last, recorded_at))
    runs.publish(connection, placed.files)
    return ChunkState(chunk.rows, first, last, chunk.digest)


def _with_places(
    table: pa.Table, base: int, tenant: str, recorded_at: int, connection: sqlite3.Connection, tenant_id: int
) -> tuple[pa.Table, _Heads]:
    """A chunk's table with what the log decides: position, version, tenant, commit; and the new heads of its streams."""
    rows = table.num_rows
    offsets = table.column("offset").to_numpy()
    names = table.column("stream").combine_chunks().dictionary_encode()
    codes, streams = names.indices.to_numpy(), names.dictionary.to_pylist()
    known = heads_of(connection, tenant_id, streams)
    before = (
        np.fromiter((known.get(name, 0) for name in streams), np.int64, len(streams))
        if known
        else np.zeros(len(streams), np.int64)
    )
    # Rows by stream, each stream's in order: its k-th row here is its version before this chunk, plus k.
    # Numbers of two bytes are sorted by their digits, many times as fast.
    order = np.argsort(codes.astype(np.uint16) if len(streams) <= 0x10000 else codes, kind="stable")
    counts = np.bincount(codes, minlength=len(streams))
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    versions = np.empty(rows, np.int64)
    versions[order] = np.arange(1, rows + 1) - np.repeat(starts, counts) + np.repeat(before, counts)
    first, last = offsets[order[starts]], offsets[order[starts + counts - 1]]
    # In the order of their names, which is that of the catalog: nearly twice as fast as any other.
    at = pc.sort_indices(names.dictionary).to_numpy()
    heads = _Heads(
        names.dictionary.take(pa.array(at)).to_pylist(),
        (before + counts)[at].tolist(),
        (first + base + 1)[at].tolist(),
        (last + base + 1)[at].tolist(),
    )
    position = pa.array(offsets + (base + 1))
    given = {name: table.column(name) for name in table.column_names if name != "offset"}
    given |= {
        "position": position,
        "version": pa.array(versions),
        "tenant": pa.repeat(pa.scalar(tenant), rows),
        "commit": position,
    }
    given.setdefault("recorded_at", pa.repeat(pa.scalar(recorded_at, pa.int64()), rows).view(pa.timestamp("us", "UTC")))
    columns = [*ENVELOPE_NAMES, *payload_columns(table)]
    return pa.table([given[name] for name in columns], names=columns), heads


def _is_type(table: pa.Table, schema: Schema) -> Any:
    return pc.and_(pc.equal(table.column("type"), schema.name), pc.equal(table.column("schema_version"), schema.version))
