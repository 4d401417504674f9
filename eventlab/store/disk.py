"""The durable store: the commit protocol over a catalog and segments.

**append** encodes outside; inside one write transaction it looks for repeats, checks versions, inserts, and moves `head`.
**ingest** writes a chunk's segment files outside the transaction, betting that `head` does not move; inside it checks
the bet, and writes again where it lost. **seal** turns the hot rows before the first hole into a segment and trims them.
**cut** takes head, live segments and hot rows in one short read transaction; the scan comes after it.
"""

from __future__ import annotations

import bisect
import contextlib
import hashlib
import json
import os
import secrets
import sqlite3
import threading
import time
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from eventlab.errors import Conflict, Damaged, EventlabError, NoStore, ReadOnly
from eventlab.model.filters import EVERYTHING, Filter
from eventlab.model.schema import Schema
from eventlab.store import schemas as registry
from eventlab.store.base import (
    ALL,
    Appended,
    Batch,
    Chunk,
    ChunkState,
    Draft,
    ReadModelBase,
    Row,
    SourceGroup,
    Tenant,
    needed_columns,
    needed_envelope,
    pack,
    picked,
    row_digest,
    rows_to_table,
    unpack,
)
from eventlab.store.catalog import Catalog, Names, forked
from eventlab.store.columns import ENVELOPE, ENVELOPE_NAMES, payload_columns
from eventlab.store.files import file_digest, refuse_unsafe_disk, write_durably
from eventlab.store.rules import late_retry, recorded, refuse_early, refuse_stale, same_append
from eventlab.store.segment import Segment, Written, tables, write_segment

SEAL_ROWS: Final = 250_000
TRIM_ROWS: Final = 5_000
#: An event id that is given again within this many events is known to be a repeat; `expected` holds for ever.
ID_WINDOW: Final = 1_000_000
INGEST_BETS: Final = 2
LEASE_SECONDS: Final = 3_600
_EVENT_COLUMNS: Final = (
    "position, tenant, stream, version, type, schema_version, event_id, recorded_at, occurred_at, correlation_id, "
    "causation_id, actor, tags, commit_position, payload"
)


class DiskStore:
    """A store in a folder; `open_store` gives the one of this process."""

    def __init__(self, root: Path, *, now: Callable[[], int], read_only: bool, create: bool) -> None:
        self.root = root
        self.read_only = read_only
        self._now = now
        self._catalog = Catalog(root, read_only=read_only, create=create)
        self._tenants, self._categories = Names("tenant"), Names("category")
        self._schemas: dict[tuple[str, int], Schema] = {}
        self._segments: dict[int, Segment] = {}
        self._cut_lock = threading.RLock()
        self._hot = _Hot()
        self._last_cut: DiskCut | None = None
        self.users, self.pid = 1, os.getpid()
        with self._catalog.read() as connection:
            self.store_id = str(connection.execute("SELECT store_id FROM log").fetchone()[0])

    # -- append

    def append(
        self, drafts: Sequence[Draft], *, tenant: str, expected: Mapping[str, int], repeats: bool, now: int | None = None
    ) -> Appended:
        """Append all drafts or none, in one transaction; `repeats` says that the ids are the caller's own."""
        blobs = [pack(draft.payload) for draft in drafts]
        ids = tuple(uuid.UUID(bytes=draft.event_id) for draft in drafts)
        try:
            with self._catalog.write() as connection:
                tenant_id = self._tenants.ensure(connection, tenant)
                if repeats and (earlier := _earlier(connection, tenant_id, drafts)):
                    return Appended(earlier[0], ids=ids, versions=earlier[1], repeated=True)
                heads = _heads(connection, tenant_id, [*expected, *(draft.stream for draft in drafts)])
                for stream, version in expected.items():
                    refuse_stale(stream, version, heads.get(stream, 0), ())
                uses = dict.fromkeys((draft.stream.partition("-")[0], draft.schema) for draft in drafts)
                known = self._register(connection, tenant_id, uses)
                head, last = connection.execute("SELECT head, recorded_at FROM log").fetchone()
                recorded_at = max(self._now() if now is None else now, last)
                rows = []
                for position, draft in enumerate(drafts, head + 1):
                    heads[draft.stream] = version = heads.get(draft.stream, 0) + 1
                    rows.append(recorded(draft, position, version, tenant, recorded_at, head + 1))
                _insert(connection, tenant_id, rows, blobs, [draft.content for draft in drafts])
                connection.execute("UPDATE log SET head = ?, recorded_at = ?", (head + len(rows), recorded_at))
        except Conflict as conflict:
            cut = self.cut()

            def rows_after(stream: str, version: int) -> list[Row]:
                return [row for batch in cut.stream(stream, tenant=tenant, after_version=version) for row in batch.rows()]

            if repeats and (late := late_retry(drafts, expected, rows_after, cut.schemas)):
                return late
            since = cut.stream(conflict.stream, tenant=tenant, after_version=conflict.expected)
            types = [name for batch in since for name in batch.envelope.type]
            refuse_stale(conflict.stream, conflict.expected, conflict.actual, types)
            raise
        self._schemas = known
        return Appended(tuple(row.position for row in rows), ids=ids, versions=tuple(row.version for row in rows))

    def _register(
        self, connection: sqlite3.Connection, tenant_id: int, uses: Collection[tuple[str, Schema]]
    ) -> dict[tuple[str, int], Schema]:
        """Record types, and which category uses them, where the catalog does not know it yet.

        Gives what the catalog knows then; it holds once this transaction is committed, and not before.
        """
        schemas = [schema for _, schema in uses]
        known = self._schemas
        if any(schema.key not in known for schema in schemas):
            known = _load_schemas(connection)
        new = registry.unknown(schemas, known)
        connection.executemany(
            "INSERT INTO schema VALUES(?, ?, ?, ?)", [(s.name, s.version, s.fingerprint, s.to_json()) for s in new]
        )
        connection.executemany(
            "INSERT OR IGNORE INTO type_use VALUES(?, ?, ?, ?)",
            [(tenant_id, self._categories.ensure(connection, category), *schema.key) for category, schema in uses],
        )
        return {**known, **{schema.key: schema for schema in new}} if new else known

    # -- ingest

    def ingest(self, chunk: Chunk, *, tenant: str, now: int | None = None) -> ChunkState:
        """Write a chunk as segments and register it, all or nothing; a chunk that is there stays as it is."""
        for bet in range(INGEST_BETS + 1):
            reserved: _Reserved | None = None
            placed: _Placed | None = None
            try:
                if bet < INGEST_BETS:
                    with self._catalog.write() as connection:
                        if done := self._chunk_state(connection, chunk, tenant):
                            return done
                        reserved = self._reserve_chunk(connection, chunk, tenant)
                    with self._catalog.read() as connection:
                        placed = self._place(connection, chunk, tenant, reserved, now)
                with self._catalog.write() as connection:
                    done = self._chunk_state(connection, chunk, tenant)
                    head = connection.execute("SELECT head FROM log").fetchone()[0]
                    if done is None and placed is None:
                        # The last try writes the files inside the transaction: slower for others, but it cannot lose.
                        reserved = self._reserve_chunk(connection, chunk, tenant)
                        placed = self._place(connection, chunk, tenant, reserved, now)
                    if done is None and placed is not None and placed.base == head:
                        return self._commit_chunk(connection, chunk, tenant, placed)
            except BaseException:
                self._abandon(reserved.paths if reserved is not None else ())
                raise
            self._abandon(reserved.paths if reserved is not None else ())
            if done is not None:
                return done
        raise AssertionError("the last try commits or raises")

    def _chunk_state(self, connection: sqlite3.Connection, chunk: Chunk, tenant: str) -> ChunkState | None:
        return _chunk_states(connection, self._tenants.ensure(connection, tenant), chunk.source).get(chunk.number)

    def _reserve_chunk(self, connection: sqlite3.Connection, chunk: Chunk, tenant: str) -> _Reserved:
        base, last = connection.execute("SELECT head, recorded_at FROM log").fetchone()
        tenant_id = self._tenants.ensure(connection, tenant)
        keys = [(tenant_id, category) for category in sorted(chunk.tables)]
        return _Reserved(base, last, tenant_id, self._reserve(connection, keys, base + 1, base + chunk.rows))

    def _reserve(
        self, connection: sqlite3.Connection, keys: Iterable[tuple[int, str]], first: int, last: int
    ) -> dict[tuple[int, str], tuple[int, Path]]:
        """Name the files of a run before they exist, as pending with a lease: a crash leaves nothing that nobody knows."""
        lease = int(time.time()) + LEASE_SECONDS
        reserved = {}
        for tenant_id, category in keys:
            category_id = self._categories.ensure(connection, category)
            name = f"{first:019d}-{last:019d}-{secrets.token_hex(4)}.parquet"
            path = self.root.joinpath("segments", str(tenant_id), str(category_id), "l0", name)
            cursor = connection.execute(
                "INSERT INTO segment(path, tenant, category, level, run_first, run_last, rows, bytes, digest, columns, "
                "min_recorded, max_recorded, state, lease) VALUES(?, ?, ?, 0, ?, ?, 0, 0, '', '[]', 0, 0, 'pending', ?)",
                (str(path.relative_to(self.root)), tenant_id, category_id, first, last, lease),
            )
            reserved[tenant_id, category] = (int(cursor.lastrowid or 0), path)
        return reserved

    def _abandon(self, paths: Iterable[Path]) -> None:
        """Delete files that did not become part of the log, and their pending rows.

        The catalog is asked first: an error, or Ctrl-C, may come when the COMMIT is already done. Whatever cannot be done
        now, on a full disk, is left over and harmless; `verify` lists it.
        """
        for path in paths:
            with contextlib.suppress(EventlabError, sqlite3.Error, OSError), self._catalog.write() as connection:
                name = str(path.relative_to(self.root))
                if connection.execute("SELECT 1 FROM segment WHERE path = ? AND state != 'pending'", (name,)).fetchone():
                    continue
                path.unlink(missing_ok=True)
                connection.execute("DELETE FROM segment WHERE path = ?", (name,))

    def _place(self, connection: sqlite3.Connection, chunk: Chunk, tenant: str, reserved: _Reserved, now: int | None) -> _Placed:
        """Give the rows of a chunk their places after the head of now, and write them as segment files."""
        recorded_at = max(self._now() if now is None else now, reserved.recorded_at)
        files, heads = [], []
        for (tenant_id, category), (number, path) in reserved.files.items():
            table = chunk.tables[category]
            if chunk.imported:
                first = pc.min(table.column("recorded_at").combine_chunks().view(pa.int64())).as_py()
                refuse_early(chunk.source, first, reserved.recorded_at)
            placed, of_streams = _with_places(table, reserved.base, tenant, recorded_at, connection, tenant_id)
            files.append(_File.of(number, write_segment(path, placed), placed))
            heads.append(of_streams)
        return _Placed(reserved.base, tuple(files), tuple(heads))

    def _commit_chunk(self, connection: sqlite3.Connection, chunk: Chunk, tenant: str, placed: _Placed) -> ChunkState:
        tenant_id = self._tenants.ensure(connection, tenant)
        self._register(
            connection,
            tenant_id,
            [
                (category, schema)
                for schema in chunk.schemas
                for category, table in chunk.tables.items()
                if pc.any(_is_type(table, schema)).as_py()
            ],
        )
        first, last = placed.base + 1, placed.base + chunk.rows
        for heads in placed.heads:
            connection.executemany(
                "INSERT INTO stream_head VALUES(?, ?, ?, ?, ?) ON CONFLICT(tenant, stream) DO UPDATE SET "
                "version = excluded.version, last_position = excluded.last_position",
                zip([tenant_id] * len(heads), *(heads[c].to_list() for c in ("stream", "version", "first", "last")), strict=True),
            )
        connection.execute(
            "INSERT INTO import_chunk VALUES(?, ?, ?, ?, ?, ?, ?)",
            (tenant_id, chunk.source, chunk.number, chunk.rows, first, last, chunk.digest),
        )
        recorded_at = max(file.recorded_us[1] for file in placed.files)
        connection.execute("UPDATE log SET head = ?, recorded_at = max(recorded_at, ?)", (last, recorded_at))
        _publish(connection, placed.files)
        return ChunkState(chunk.rows, first, last, chunk.digest)

    def chunks(self, tenant: str, source: str) -> dict[int, ChunkState]:
        """The chunks of a source that are in the log."""
        with self._catalog.read() as connection:
            tenant_id = self._tenants.get(connection, tenant)
            return {} if tenant_id is None else _chunk_states(connection, tenant_id, source)

    # -- seal

    def seal(self) -> int:
        """Write the hot rows before the first hole as segments, then trim them; the number of events sealed.

        Readers and writers see no difference. Of two that race the loser deletes its own files.
        """
        total = 0
        while run := self._first_hot_run():
            sealed = self._seal_run(*run)
            if not sealed:
                break
            total += sealed
        self._trim()
        return total

    def _first_hot_run(self) -> tuple[int, int] | None:
        with self._catalog.write() as connection:
            _advance_sealed(connection)
            head, sealed = connection.execute("SELECT head, sealed FROM log").fetchone()
            after = connection.execute(
                "SELECT min(run_first) FROM segment WHERE state = 'live' AND run_first > ?", (sealed,)
            ).fetchone()[0]
        last = min(sealed + SEAL_ROWS, head if after is None else after - 1)
        return (sealed + 1, last) if last > sealed else None

    def _seal_run(self, first: int, last: int) -> int:
        with self._catalog.write() as connection:
            keys = connection.execute(
                "SELECT DISTINCT tenant, substr(stream, 1, instr(stream, '-') - 1) FROM event WHERE position BETWEEN ? AND ?",
                (first, last),
            ).fetchall()
            reserved = self._reserve(connection, keys, first, last)
        with self._catalog.read() as connection:
            parts = self._hot_rows(connection, first, last)
            schemas = _load_schemas(connection)
            numbers = {name: self._tenants.get(connection, name) or 0 for name, _ in parts}
        paths = [path for _, path in reserved.values()]
        try:
            files = []
            for (tenant, category), rows in parts.items():
                number, path = reserved[numbers[tenant], category]
                table = rows_to_table(rows, schemas)
                files.append(_File.of(number, write_segment(path, table), table))
            with self._catalog.write() as connection:
                sealed = connection.execute("SELECT sealed FROM log").fetchone()[0]
                won = sealed == first - 1 and sum(file.rows for file in files) == last - first + 1
                if won:
                    _publish(connection, files)
        except BaseException:
            self._abandon(paths)
            raise
        if not won:
            self._abandon(paths)
        return last - first + 1 if won else 0

    def _trim(self) -> None:
        """Delete hot rows that are sealed, and ids that fell out of the window, a batch a transaction."""
        while True:
            with self._catalog.write() as connection:
                gone = connection.execute(
                    "DELETE FROM event WHERE position IN (SELECT position FROM event WHERE position <= (SELECT sealed FROM log) "
                    "ORDER BY position LIMIT ?)",
                    (TRIM_ROWS,),
                ).rowcount
                head, floor = connection.execute("SELECT head, id_floor FROM log").fetchone()
                if head - ID_WINDOW > floor + TRIM_ROWS:
                    connection.execute("DELETE FROM event_key WHERE position <= ?", (head - ID_WINDOW,))
                    connection.execute("UPDATE log SET id_floor = ?", (head - ID_WINDOW,))
            if gone < TRIM_ROWS:
                return

    # -- read

    def cut(self) -> DiskCut:
        """The log up to its last commit, taken in one short read transaction; the scan comes later."""
        with self._cut_lock, self._catalog.read() as connection:
            head, generation = connection.execute("SELECT head, generation FROM log").fetchone()
            last = self._last_cut
            if last is not None and (last.head, last.generation) == (head, generation):
                return last
            if last is None or last.generation != generation:
                self._hot = _Hot()
            segments = last.segments if last is not None and last.generation == generation else self._live(connection)
            uses = connection.execute(
                "SELECT tenant.name, category.name, type, version FROM type_use JOIN tenant ON tenant.id = tenant "
                "JOIN category ON category.id = category"
            ).fetchall()
            self._schemas = _load_schemas(connection)
            for first, until in _holes(segments, head):
                self._hot.extend(first, until, lambda a, b: self._hot_tables(connection, a, b))
            types_of: dict[tuple[str, str], set[tuple[str, int]]] = {}
            for tenant, category, name, version in uses:
                types_of.setdefault((tenant, category), set()).add((name, version))
            self._last_cut = DiskCut(
                head, generation, segments, self._hot.parts(), dict(self._schemas),
                {key: frozenset(types) for key, types in types_of.items()}, self,
            )  # fmt: skip
            return self._last_cut

    def version(self, tenant: str, stream: str) -> int:
        """The version of a stream; 0 when it has no events."""
        head = self.stream_head(tenant, stream)
        return head[0] if head else 0

    def stream_head(self, tenant: str, stream: str) -> tuple[int, int, int] | None:
        """Version, first and last position of a stream."""
        with self._catalog.read() as connection:
            tenant_id = self._tenants.get(connection, tenant)
            row = connection.execute(
                "SELECT version, first_position, last_position FROM stream_head WHERE tenant = ? AND stream = ?",
                (tenant_id, stream),
            ).fetchone()
            return None if row is None else (row[0], row[1], row[2])

    def hot_stream(self, tenant: str, stream: str, after_version: int, until: int) -> tuple[list[Row], int]:
        """The hot rows of one stream, by index; and the generation: rows that were hot in an earlier one may be trimmed."""
        with self._catalog.read() as connection:
            tenant_id = self._tenants.get(connection, tenant)
            rows = connection.execute(
                f"SELECT {_EVENT_COLUMNS} FROM event WHERE tenant = ? AND stream = ? AND version > ? AND position <= ? "
                "ORDER BY version",
                (tenant_id, stream, after_version, until),
            ).fetchall()
            generation = int(connection.execute("SELECT generation FROM log").fetchone()[0])
            return [self._row(connection, raw) for raw in rows], generation

    def last_recorded(self) -> int:
        """When the last event was recorded, in microseconds since 1970; the earliest moment there is when there is none."""
        with self._catalog.read() as connection:
            return int(connection.execute("SELECT recorded_at FROM log").fetchone()[0])

    def segments(self) -> tuple[Segment, ...]:
        """The live segments, for `verify`: they can be looked at where the hot tail cannot be read."""
        with self._cut_lock, self._catalog.read() as connection:
            return self._live(connection)

    def _live(self, connection: sqlite3.Connection) -> tuple[Segment, ...]:
        rows = connection.execute(
            "SELECT id, path, tenant, category, run_first, run_last, rows, bytes, digest, columns, min_recorded, max_recorded "
            "FROM segment WHERE state = 'live' ORDER BY run_first, id"
        ).fetchall()
        found = []
        for number, path, tenant, category, *rest in rows:
            segment = self._segments.get(number)
            if segment is None:
                first, last, count, size, digest, columns, low, high = rest
                segment = Segment(
                    number, self.root / path, self._tenants.name(connection, tenant), self._categories.name(connection, category),
                    first, last, count, size, digest, tuple(json.loads(columns)), low, high,
                )  # fmt: skip
            found.append(segment)
        self._segments = {segment.id: segment for segment in found}
        return tuple(found)

    def _hot_rows(self, connection: sqlite3.Connection, first: int, last: int) -> dict[tuple[str, str], list[Row]]:
        parts: dict[tuple[str, str], list[Row]] = {}
        for raw in connection.execute(
            f"SELECT {_EVENT_COLUMNS} FROM event WHERE position BETWEEN ? AND ? ORDER BY position", (first, last)
        ):
            row = self._row(connection, raw)
            parts.setdefault((row.tenant, row.stream.partition("-")[0]), []).append(row)
        return parts

    def _hot_tables(self, connection: sqlite3.Connection, first: int, last: int) -> dict[tuple[str, str], pa.Table]:
        parts = self._hot_rows(connection, first, last)
        try:
            return {key: rows_to_table(rows, self._schemas) for key, rows in parts.items()}
        except (pa.ArrowException, ArithmeticError, LookupError, TypeError, ValueError) as why:
            raise _hot_damage(self.root, f"positions {first:,} to {last:,}", why) from why

    def _row(self, connection: sqlite3.Connection, raw: Sequence[Any]) -> Row:
        position, tenant, *middle, tags, commit, payload = raw
        try:
            said = (tuple(json.loads(tags)) if tags else (), commit, tuple(unpack(payload)))
        except (TypeError, ValueError) as why:
            raise _hot_damage(self.root, f"position {position:,}", why) from why
        values: list[Any] = [position, self._tenants.name(connection, tenant), *middle, *said]
        return Row(*values)

    # -- read models

    def read_models(self, tenant: str) -> dict[str, ReadModelBase]:
        """The bases of read models, by name; one whose file was deleted is none, for it can be made again."""
        found: dict[str, ReadModelBase] = {}
        # Twice: a file that is not there may have been swapped after its name was read.
        for _ in range(2):
            with self._catalog.read() as connection:
                rows = connection.execute(
                    "SELECT name, fingerprint, position, path, rows, bytes, digest FROM read_model WHERE tenant = ?", (tenant,)
                ).fetchall()
            for name, fingerprint, position, path, count, size, digest in rows:
                with contextlib.suppress(FileNotFoundError):
                    read = _reader(self.root / path, digest)
                    found[name] = ReadModelBase(name, tenant, fingerprint, position, count, size, read)
            if len(found) == len(rows):
                break
        return found

    def save_read_model(self, name: str, tenant: str, fingerprint: str, position: int, table: pa.Table) -> ReadModelBase:
        """Write a new base beside the old one, swap it in with its checkpoint in one transaction, then delete the old."""
        path = self.root / "read_models" / f"{name}-{position:019d}-{secrets.token_hex(4)}.parquet"
        if self.read_only:
            raise ReadOnly(f"the store in {self.root} is open for reading only", hint="rebuild it where it can be written")
        write_durably(path, lambda temporary: pq.write_table(table, temporary, compression="zstd", compression_level=1))
        digest, size = file_digest(path), path.stat().st_size
        try:
            with self._catalog.write() as connection:
                old = connection.execute("SELECT path FROM read_model WHERE tenant = ? AND name = ?", (tenant, name)).fetchone()
                connection.execute(
                    "INSERT OR REPLACE INTO read_model VALUES(?, ?, ?, ?, ?, ?, ?, ?)",
                    (tenant, name, fingerprint, position, str(path.relative_to(self.root)), len(table), size, digest),
                )
        except BaseException:
            # As in `_abandon`: the error may come when the COMMIT is already done.
            with contextlib.suppress(EventlabError, sqlite3.Error, OSError), self._catalog.read() as connection:
                named = "SELECT 1 FROM read_model WHERE path = ?"
                if connection.execute(named, (str(path.relative_to(self.root)),)).fetchone() is None:
                    path.unlink(missing_ok=True)
            raise
        read = _reader(path, digest)
        if old is not None:
            (self.root / old[0]).unlink(missing_ok=True)
        return ReadModelBase(name, tenant, fingerprint, position, len(table), size, read)

    # -- the rest

    @contextlib.contextmanager
    def inspect(self) -> Iterator[sqlite3.Connection]:
        """One read transaction on the catalog, for `verify` and `info`."""
        with self._catalog.read() as connection:
            yield connection

    def close(self) -> None:
        """Close the store once everyone in this process who opened it has."""
        with _OPEN_LOCK:
            self.users -= 1
            if self.users > 0:
                return
            _OPEN.pop(str(self.root), None)
            self._last_cut = None
            self._segments = {}
            self._catalog.close()


@dataclass(frozen=True)
class DiskCut:
    """The log of a disk store up to one commit: live segments and the hot rows between and after them."""

    head: int
    generation: int
    segments: tuple[Segment, ...]
    hot: tuple[_HotPart, ...]
    schemas: Mapping[tuple[str, int], Schema]
    types_of: Mapping[tuple[str, str], frozenset[tuple[str, int]]]
    store: DiskStore = field(repr=False)

    @cached_property
    def _pieces(self) -> list[tuple[int, int, list[Segment] | _HotPart]]:
        """Segments by run, and hot parts, in position order."""
        runs: dict[tuple[int, int], list[Segment]] = {}
        for segment in self.segments:
            runs.setdefault((segment.first, segment.last), []).append(segment)
        pieces: list[tuple[int, int, list[Segment] | _HotPart]] = [(first, last, run) for (first, last), run in runs.items()]
        pieces += [(part.first, part.last, part) for part in self.hot]
        return sorted(pieces, key=lambda piece: piece[0])

    def batches(
        self,
        filter: Filter = EVERYTHING,
        *,
        tenant: Tenant,
        after: int = 0,
        until: int | None = None,
        envelope: Sequence[str] = ENVELOPE_NAMES,
        types: Collection[str] | None = None,
    ) -> Iterator[Batch]:
        """The events picked, in position order, a row group or a run at a time."""
        categories, payload = filter.categories, needed_columns(filter, types, self.schemas)
        names = needed_envelope(filter, envelope)
        until = self.head if until is None else min(until, self.head)

        def wanted(of_tenant: str, category: str) -> bool:
            return (tenant is ALL or tenant == of_tenant) and (categories is None or category in categories)

        for first, last, piece in self._pieces:
            if last <= after or first > until:
                continue
            if isinstance(piece, _HotPart):
                read = [[(key[1], piece.select(key, names, payload)) for key in sorted(piece.tables) if wanted(*key)]]
            else:
                chosen = [s for s in piece if wanted(s.tenant, s.category)]
                read = ([(s.category, table) for s, table in found] for found in tables(chosen, after, until, names, payload))  # type: ignore[assignment]
            for found in read:
                parts = [_clip(picked(table, category, filter), after, until) for category, table in found]
                parts = [part for part in parts if len(part)]
                if parts:
                    yield Batch(tuple(parts), self.schemas)

    def stream(self, stream: str, *, tenant: str, after_version: int = 0, until: int | None = None) -> Iterator[Batch]:
        """One stream: its hot events by index, and sealed ones from the runs that lie where versions are missing."""
        until = self.head if until is None else min(until, self.head)
        head = self.store.stream_head(tenant, stream)
        if head is None or head[1] > until or head[0] <= after_version:
            return
        _, first, last = head
        rows, generation = self.store.hot_stream(tenant, stream, after_version, until)
        positions = [row.position for row in rows]
        seen, at = after_version, 0
        for low, high, piece in self._pieces if len(rows) < head[0] - after_version else ():
            if high < first or low > min(until, last):
                continue
            end = bisect.bisect_left(positions, low, at)
            if end < len(rows) and rows[end].version == seen + 1 + end - at:
                continue
            if end > at:
                yield Batch((rows_to_table(rows[at:end], self.schemas),), self.schemas)
                seen, at = rows[end - 1].version, end
            table = self._stream_rows(piece, stream, tenant, seen, until, moved=generation != self.generation)
            if len(table):
                yield Batch((table,), self.schemas)
                seen = table.column("version")[-1].as_py()
                at = bisect.bisect_right(positions, table.column("position")[-1].as_py(), at)
        if rows[at:]:
            yield Batch((rows_to_table(rows[at:], self.schemas),), self.schemas)

    def _stream_rows(
        self, piece: list[Segment] | _HotPart, stream: str, tenant: str, after_version: int, until: int, *, moved: bool
    ) -> pa.Table:
        """The rows of one stream in one piece of the log that come after a version."""
        key = (tenant, stream.partition("-")[0])
        if isinstance(piece, _HotPart):
            # While nothing was sealed since this cut, its hot rows are still those of the index.
            table = piece.tables.get(key) if moved else None
            table = None if table is None else table.filter(pc.equal(table.column("stream"), stream))
        else:
            segment = next((s for s in piece if (s.tenant, s.category) == key), None)
            table = None if segment is None else _rows_of_stream(segment, stream, until)
        if table is None:
            return ENVELOPE.empty_table()
        table = _clip(table, 0, until)
        return table.filter(pc.greater(table.column("version"), after_version))

    def position_at(self, recorded_us: int) -> int:
        """The end of the last commit recorded at or before a moment; pieces are in order of time too, for it never goes back."""
        found = 0
        for _, last, piece in self._pieces:
            if isinstance(piece, _HotPart):
                here = piece.position_at(recorded_us)
                if here < last:
                    return max(found, here)
                found = last
            elif max(s.max_recorded for s in piece) <= recorded_us:
                found = last
            else:
                return max(found, *(_segment_position_at(s, recorded_us) for s in piece))
        return found

    def sources(self, tenant: Tenant) -> list[SourceGroup]:
        """Segments grouped by tenant, category and columns; and the hot tables."""
        groups: dict[tuple[str, str, tuple[str, ...]], list[str]] = {}
        for segment in self.segments:
            if tenant is ALL or segment.tenant == tenant:
                segment.file  # noqa: B018 - its digest is checked before SQL opens it
                groups.setdefault((segment.tenant, segment.category, segment.columns), []).append(str(segment.path))
        found = [SourceGroup(name, category, columns, tuple(paths)) for (name, category, columns), paths in groups.items()]
        for part in self.hot:
            for (name, category), table in part.tables.items():
                if tenant is ALL or name == tenant:
                    found.append(SourceGroup(name, category, tuple(payload_columns(table)), table=table))
        return found


# -- the hot tail in memory ------------------------------------------------------------------------------------------------


@dataclass
class _HotPart:
    """A run of hot positions as one table a tenant and category."""

    first: int
    last: int
    tables: dict[tuple[str, str], pa.Table]

    def select(self, key: tuple[str, str], envelope: Sequence[str], payload: frozenset[str] | None) -> pa.Table:
        table = self.tables[key]
        return table.select([*envelope, *(c for c in payload_columns(table) if payload is None or c in payload)])

    def position_at(self, recorded_us: int) -> int:
        found = self.first - 1
        for table in self.tables.values():
            times = table.column("recorded_at").combine_chunks().view(pa.int64()).to_numpy()
            at = int(np.searchsorted(times, recorded_us, "right"))
            if at:
                found = max(found, table.column("position")[at - 1].as_py())
        return found


class _Hot:
    """Hot rows as Arrow, fetched once per process and extended; parts are merged so that there are never many."""

    MERGE_AT = 32

    def __init__(self) -> None:
        self._holes: dict[int, list[_HotPart]] = {}

    def extend(self, first: int, last: int, fetch: Callable[[int, int], dict[tuple[str, str], pa.Table]]) -> None:
        """Bring the hole that begins at `first` up to `last`."""
        parts = self._holes.setdefault(first, [])
        begin = parts[-1].last + 1 if parts else first
        if begin <= last:
            parts.append(_HotPart(begin, last, fetch(begin, last)))
        if len(parts) > self.MERGE_AT:
            self._holes[first] = [_merged(parts)]

    def parts(self) -> tuple[_HotPart, ...]:
        return tuple(part for first in sorted(self._holes) for part in self._holes[first])


def _merged(parts: Sequence[_HotPart]) -> _HotPart:
    found: dict[tuple[str, str], list[pa.Table]] = {}
    for part in parts:
        for key, table in part.tables.items():
            found.setdefault(key, []).append(table)
    whole = {key: pa.concat_tables(some, promote_options="default").combine_chunks() for key, some in found.items()}
    return _HotPart(parts[0].first, parts[-1].last, whole)


def _holes(segments: Sequence[Segment], head: int) -> Iterator[tuple[int, int]]:
    """The runs of positions that no live segment covers."""
    at = 1
    for first, last in sorted({(s.first, s.last) for s in segments}):
        if first > at:
            yield at, first - 1
        at = max(at, last + 1)
    if at <= head:
        yield at, head


# -- helpers ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Reserved:
    """The files that a chunk will be written to, if `head` is still `base` then."""

    base: int
    recorded_at: int
    tenant_id: int
    files: dict[tuple[int, str], tuple[int, Path]]

    @property
    def paths(self) -> list[Path]:
        return [path for _, path in self.files.values()]


@dataclass(frozen=True)
class _File:
    """A written segment file and what the catalog will say of it."""

    number: int
    written: Written
    rows: int
    columns: tuple[str, ...]
    recorded_us: tuple[int, int]

    @classmethod
    def of(cls, number: int, written: Written, table: pa.Table) -> _File:
        times = table.column("recorded_at").combine_chunks().view(pa.int64())
        return cls(number, written, len(table), tuple(payload_columns(table)), (pc.min(times).as_py(), pc.max(times).as_py()))


@dataclass(frozen=True)
class _Placed:
    """Rows that have places after `base`, written as files that are still pending; and the new heads of their streams."""

    base: int
    files: tuple[_File, ...]
    heads: tuple[pl.DataFrame, ...]


def _publish(connection: sqlite3.Connection, files: Iterable[_File]) -> None:
    """Pending segments become live: from this COMMIT on readers see them."""
    for file in files:
        connection.execute(
            "UPDATE segment SET rows = ?, bytes = ?, digest = ?, columns = ?, min_recorded = ?, max_recorded = ?, "
            "state = 'live', lease = 0 WHERE id = ?",
            (file.rows, file.written.bytes, file.written.digest, json.dumps(file.columns), *file.recorded_us, file.number),
        )
    connection.execute("UPDATE log SET generation = generation + 1")
    _advance_sealed(connection)


def _with_places(
    table: pa.Table, base: int, tenant: str, recorded_at: int, connection: sqlite3.Connection, tenant_id: int
) -> tuple[pa.Table, pl.DataFrame]:
    """A chunk's table with what the log decides: position, version, tenant, commit; and the new heads of its streams."""
    rows = table.num_rows
    streams = pl.from_arrow(table.select(["stream", "offset"]))
    assert isinstance(streams, pl.DataFrame)
    counts = (
        streams.group_by("stream")
        .agg(pl.len().alias("count"), pl.col("offset").min().alias("first"), pl.col("offset").max().alias("last"))
        .sort("stream")
    )
    before = _heads(connection, tenant_id, counts["stream"].to_list())
    known = pl.Series([before.get(s, 0) for s in counts["stream"].to_list()] if before else [0] * len(counts), dtype=pl.Int64)
    heads = counts.select(
        "stream",
        (known + counts["count"].cast(pl.Int64)).alias("version"),
        (pl.col("first") + base + 1).alias("first"),
        (pl.col("last") + base + 1).alias("last"),
    )
    versions = streams.select(pl.int_range(1, pl.len() + 1, dtype=pl.Int64).over("stream").alias("v"), "stream")
    if before:
        versions = versions.join(counts.select("stream", known.alias("known")), on="stream", how="left", maintain_order="left")
        versions = versions.select((pl.col("v") + pl.col("known")).alias("v"))
    position = pa.array(table.column("offset").to_numpy() + (base + 1))
    given = {name: table.column(name) for name in table.column_names if name != "offset"}
    given |= {
        "position": position,
        "version": versions["v"].to_arrow(),
        "tenant": pa.repeat(pa.scalar(tenant), rows),
        "commit": position,
    }
    given.setdefault("recorded_at", pa.repeat(pa.scalar(recorded_at, pa.int64()), rows).view(pa.timestamp("us", "UTC")))
    names = [*ENVELOPE_NAMES, *payload_columns(table)]
    placed = pa.table([given[name] for name in names], names=names)
    return placed, heads


def _is_type(table: pa.Table, schema: Schema) -> Any:
    return pc.and_(pc.equal(table.column("type"), schema.name), pc.equal(table.column("schema_version"), schema.version))


def _chunk_states(connection: sqlite3.Connection, tenant_id: int, source: str) -> dict[int, ChunkState]:
    rows = connection.execute(
        "SELECT chunk, rows, first, last, digest FROM import_chunk WHERE tenant = ? AND source = ?", (tenant_id, source)
    ).fetchall()
    return {chunk: ChunkState(count, first, last, digest) for chunk, count, first, last, digest in rows}


def _heads(connection: sqlite3.Connection, tenant_id: int, streams: Iterable[str]) -> dict[str, int]:
    found = {}
    for stream in dict.fromkeys(streams):
        row = connection.execute(
            "SELECT version FROM stream_head WHERE tenant = ? AND stream = ?", (tenant_id, stream)
        ).fetchone()
        if row is not None:
            found[stream] = int(row[0])
    return found


def _earlier(
    connection: sqlite3.Connection, tenant_id: int, drafts: Sequence[Draft]
) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    find = "SELECT position, content, version FROM event_key WHERE tenant = ? AND event_id = ?"
    rows = [connection.execute(find, (tenant_id, draft.event_id)).fetchone() for draft in drafts]
    positions = same_append(drafts, [None if row is None else (row[0], row[1]) for row in rows])
    return None if positions is None else (positions, tuple(row[2] for row in rows))


def _insert(
    connection: sqlite3.Connection, tenant_id: int, rows: Sequence[Row], blobs: Sequence[bytes], contents: Sequence[bytes]
) -> None:
    connection.executemany(
        f"INSERT INTO event({_EVENT_COLUMNS}, digest) VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [
            (
                row.position, tenant_id, row.stream, row.version, row.type, row.schema_version, row.event_id, row.recorded_at,
                row.occurred_at, row.correlation_id, row.causation_id, row.actor,
                json.dumps(row.tags, ensure_ascii=False) if row.tags else None, row.commit, blob, row_digest(row),
            )
            for row, blob in zip(rows, blobs, strict=True)
        ],
    )  # fmt: skip
    connection.executemany(
        "INSERT INTO event_key VALUES(?, ?, ?, ?, ?)",
        [(tenant_id, row.event_id, row.position, row.version, content) for row, content in zip(rows, contents, strict=True)],
    )
    heads: dict[str, tuple[int, int, int]] = {}
    for row in rows:
        heads[row.stream] = (row.version, heads.get(row.stream, (0, row.position, 0))[1], row.position)
    connection.executemany(
        "INSERT INTO stream_head VALUES(?, ?, ?, ?, ?) ON CONFLICT(tenant, stream) DO UPDATE SET "
        "version = excluded.version, last_position = excluded.last_position",
        [(tenant_id, stream, *numbers) for stream, numbers in heads.items()],
    )


def _load_schemas(connection: sqlite3.Connection) -> dict[tuple[str, int], Schema]:
    rows = connection.execute("SELECT json FROM schema ORDER BY name, version").fetchall()
    return {schema.key: schema for schema in (Schema.from_json(text) for (text,) in rows)}


def _hot_damage(root: Path, where: str, why: Exception) -> Damaged:
    return Damaged(f"hot events at {where} in {root} cannot be read: {why}", hint="eventlab verify tells which; restore a backup")


def _advance_sealed(connection: sqlite3.Connection) -> None:
    """`sealed` is the end of the unbroken run of live segments from position 1."""
    while True:
        row = connection.execute(
            "SELECT max(run_last) FROM segment WHERE state = 'live' AND run_first = (SELECT sealed + 1 FROM log)"
        ).fetchone()
        if row[0] is None:
            return
        connection.execute("UPDATE log SET sealed = ?", (row[0],))


def _clip(table: pa.Table, after: int, until: int) -> pa.Table:
    positions = table.column("position").to_numpy()
    low, high = int(np.searchsorted(positions, after, "right")), int(np.searchsorted(positions, until, "right"))
    return table if (low, high) == (0, len(positions)) else table.slice(low, max(0, high - low))


def _rows_of_stream(segment: Segment, stream: str, until: int) -> pa.Table | None:
    """The rows of one stream in a segment: look at the names first, then read only the row groups that have it."""
    parts = []
    for group in segment.groups(0, until):
        mask = pc.equal(segment.file.read_row_group(group, columns=["stream"], use_threads=False).column(0), stream)
        if pc.any(mask).as_py():
            parts.append(segment.read([group], ENVELOPE_NAMES, None).filter(mask))
    return pa.concat_tables(parts) if parts else None


def _segment_position_at(segment: Segment, recorded_us: int) -> int:
    for group in reversed(range(segment.file.metadata.num_row_groups)):
        table = segment.file.read_row_group(group, columns=["position", "recorded_at"], use_threads=False)
        times = table.column("recorded_at").combine_chunks().view(pa.int64()).to_numpy()
        at = int(np.searchsorted(times, recorded_us, "right"))
        if at:
            return int(table.column("position")[at - 1].as_py())
    return 0


def _reader(path: Path, digest: str) -> Callable[[], pa.Table]:
    """Reads a base whose file is open from now on: a swap that deletes its name does not take it away."""
    buffer = pa.memory_map(str(path)).read_buffer()

    def read() -> pa.Table:
        if hashlib.sha256(buffer).hexdigest() != digest:
            raise Damaged(f"the read model {path} is not what was written", hint="delete it or rebuild: eventlab rebuild")
        return pq.read_table(pa.BufferReader(buffer))

    return read


# -- opening ---------------------------------------------------------------------------------------------------------------

_OPEN: dict[str, DiskStore] = {}
_OPEN_LOCK = threading.RLock()


def open_store(
    path: str | os.PathLike[str],
    *,
    now: Callable[[], int],
    create: bool = True,
    read_only: bool = False,
    allow_disk: str | None = None,
) -> DiskStore:
    """The store in a folder; the same one for everyone in this process who opens it."""
    root = Path(path).expanduser().resolve()
    with _OPEN_LOCK:
        store = _OPEN.get(str(root))
        if store is not None:
            if store.pid != os.getpid():
                raise forked(root)
            if store.read_only and not read_only and os.access(root, os.W_OK):
                raise ReadOnly(
                    f"the store in {root} is open in this process for reading only",
                    hint="close it first, or open it for writing from the start",
                )
            store.users += 1
            return store
        exists = _look(root, create and not read_only)
        refuse_unsafe_disk(root if root.exists() else root.parent, allow=allow_disk)
        if not exists:
            root.mkdir(parents=True, exist_ok=True)
        elif not os.access(root, os.W_OK):
            read_only = True
        store = DiskStore(root, now=now, read_only=read_only, create=create and not read_only)
        _OPEN[str(root)] = store
        return store


def _look(root: Path, create: bool) -> bool:
    """Whether there is a store; `NoStore` where there is something else, or nothing and none is to be made."""
    if root.exists() and not root.is_dir():
        raise NoStore(f"{root} is a file, not the folder of a store", hint="name a folder", path=str(root))
    if (root / "catalog.sqlite").exists():
        return True
    others = [p.name for p in root.iterdir() if p.name != "write.lock"] if root.exists() else []
    if others:
        raise NoStore(
            f"{root} holds {len(others)} other files ({', '.join(sorted(others)[:3])}, …) and no catalog: it is not a store",
            hint="name an empty folder, or the folder of a store",
            path=str(root),
        )
    if not create:
        raise NoStore(
            f"there is no store in {root}", hint="el.open(path) makes one; eventlab demo makes one to look at", path=str(root)
        )
    return False
