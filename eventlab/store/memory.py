"""The in-memory store: the specification of the store, and the log of a scratch lab.

Obvious code over a list of rows. Every other store gives the same answers; the contract tests hold it to that.
"""

from __future__ import annotations

import functools
import threading
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from eventlab.errors import Conflict
from eventlab.model.filters import EVERYTHING, Filter
from eventlab.model.schema import Schema
from eventlab.model.types import MOMENT_MIN
from eventlab.store import schemas as registry
from eventlab.store.base import (
    Appended,
    Batch,
    Chunk,
    ChunkState,
    Condition,
    Draft,
    Row,
    Snapshot,
    SourceGroup,
    Tenant,
    needed_envelope,
    rows_to_table,
)
from eventlab.store.columns import ENVELOPE_NAMES, payload_columns, stored_column
from eventlab.store.handled import Done, MemoryCommands
from eventlab.store.read_models import Inline, MemoryReadModels
from eventlab.store.rules import ids_of, late_retry, recorded, refuse_early, refuse_met, refuse_stale, same_append
from eventlab.store.work import Bell, MemoryWork, Work


class MemoryStore:
    """A log in memory, with one lock."""

    def __init__(self, now: Callable[[], int]) -> None:
        self.read_only = False
        self.store_id = uuid.uuid4().hex
        self._now = now
        self._lock = threading.RLock()
        self._rows: list[Row] = []
        self._by_id: dict[tuple[str, bytes], tuple[int, bytes]] = {}
        self._versions: dict[tuple[str, str], int] = {}
        self._schemas: dict[tuple[str, int], Schema] = {}
        self._chunks: dict[tuple[str, str], dict[int, ChunkState]] = {}
        self.read_models = MemoryReadModels()
        self.commands = MemoryCommands()
        self.work: Work = MemoryWork()
        self._bell = Bell()

    def append(
        self,
        drafts: Sequence[Draft],
        *,
        tenant: str,
        expected: Mapping[str, int],
        repeats: bool,
        condition: Condition | None = None,
        now: int | None = None,
        inline: Sequence[Inline] = (),
        commands: Sequence[Done] = (),
    ) -> Appended:
        """Append all drafts or none; see `store.base.Store`."""
        with self._lock:
            self.commands.check(tenant, commands)
            if repeats and (earlier := self._earlier(drafts, tenant)):
                return earlier
            try:
                for stream, version in expected.items():
                    types = [row.type for row in self._rows_after(tenant, stream, version)]
                    refuse_stale(stream, version, self._versions.get((tenant, stream), 0), types)
            except Conflict:
                after = functools.partial(self._rows_after, tenant)
                if repeats and (late := late_retry(drafts, expected, after, self._schemas)):
                    return late
                raise
            if condition is not None:
                later = [row for row in self._rows[condition.after :] if row.tenant == tenant]
                met = [row for row in later if condition.filter.matches(row.type, row.stream, row.tags)]
                refuse_met(condition, [(row.position, row.type) for row in met])
            schemas = registry.unknown([draft.schema for draft in drafts], self._schemas)
            recorded_at = max(self._now() if now is None else now, self.last_recorded())
            first = len(self._rows) + 1
            rows: list[Row] = []
            versions: dict[tuple[str, str], int] = {}
            for position, draft in enumerate(drafts, first):
                place = tenant, draft.stream
                versions[place] = version = (versions.get(place) or self._versions.get(place, 0)) + 1
                rows.append(recorded(draft, position, version, tenant, recorded_at, first))
            known = {**self._schemas, **{schema.key: schema for schema in schemas}}
            self.read_models.move(inline, rows, known, lambda after, until: self._rows[after:until])
            self._schemas = known
            self._versions.update(versions)
            self._by_id.update({(tenant, d.event_id): (r.position, d.content) for d, r in zip(drafts, rows, strict=True)})
            self._rows.extend(rows)
            self.commands.keep(tenant, commands, rows)
            self._bell.ring()
            return Appended(tuple(r.position for r in rows), tuple(r.version for r in rows), ids_of(drafts))

    def cut(self) -> MemoryCut:
        """The log as it is now."""
        with self._lock:
            return MemoryCut(tuple(self._rows), dict(self._schemas))

    def version(self, tenant: str, stream: str) -> int:
        """The version of a stream; 0 when it has no events."""
        return self._versions.get((tenant, stream), 0)

    def ingest(self, chunk: Chunk, *, tenant: str, now: int | None = None) -> ChunkState:
        """Append the rows of a chunk, each its own commit, unless the chunk is there."""
        with self._lock:
            done = self._chunks.setdefault((tenant, chunk.source), {})
            if chunk.number in done:
                return done[chunk.number]
            schemas = {schema.key: schema for schema in chunk.schemas}
            drafts = sorted(_drafts(chunk, schemas), key=lambda row: row[0])
            if chunk.imported:
                refuse_early(chunk.source, min(at for _, _, at in drafts if at is not None), self.last_recorded())
            occurring = {draft.schema.key for _, draft, _ in drafts}
            self._register([schema for schema in chunk.schemas if schema.key in occurring])
            first = len(self._rows) + 1
            recorded_at = max(self._now() if now is None else now, self.last_recorded())
            for offset, draft, imported_at in drafts:
                position = first + offset
                version = self._versions[tenant, draft.stream] = self._versions.get((tenant, draft.stream), 0) + 1
                at = recorded_at if imported_at is None else imported_at
                self._rows.append(recorded(draft, position, version, tenant, at, position))
            done[chunk.number] = ChunkState(chunk.rows, first, len(self._rows), chunk.digest)
            self._bell.ring()
            return done[chunk.number]

    def chunks(self, tenant: str, source: str) -> dict[int, ChunkState]:
        """The chunks of a source that are in the log."""
        return dict(self._chunks.get((tenant, source), {}))

    def last_recorded(self) -> int:
        """When the last event was recorded, in microseconds since 1970; the earliest moment there is when there is none."""
        return self._rows[-1].recorded_at if self._rows else MOMENT_MIN

    def seal(self) -> int:
        """Nothing to seal in memory."""
        return 0

    def snapshot(self, tenant: str, stream: str, model: str) -> Snapshot | None:
        """Events in memory are as near as any snapshot."""
        return None

    def save_snapshot(self, tenant: str, stream: str, model: str, snapshot: Snapshot) -> None:
        """Nothing to keep."""

    def snapshots(self, tenant: str) -> list[tuple[str, str, Snapshot]]:
        """None are kept."""
        return []

    def drop_snapshots(self, tenant: str) -> int:
        """None are kept."""
        return 0

    def wait(self, after: int, seconds: float) -> int:
        """The head, as soon as it is after a position, or when so many seconds are over."""
        return self._bell.wait(lambda: len(self._rows), after, seconds, alone=True)

    def close(self) -> None:
        """Nothing to close in memory."""

    def _register(self, schemas: Sequence[Schema]) -> None:
        self._schemas.update({schema.key: schema for schema in registry.unknown(schemas, self._schemas)})

    def _earlier(self, drafts: Sequence[Draft], tenant: str) -> Appended | None:
        found = [self._by_id.get((tenant, draft.event_id)) for draft in drafts]
        positions = same_append(drafts, found)
        if positions is None:
            return None
        versions = tuple(self._rows[p - 1].version for p in positions)
        return Appended(positions, versions, ids_of(drafts), repeated=True)

    def _rows_after(self, tenant: str, stream: str, version: int) -> list[Row]:
        return [r for r in self._rows if (r.tenant, r.stream) == (tenant, stream) and r.version > version]


@dataclass(frozen=True)
class MemoryCut:
    """The rows of a memory store up to one commit, or those after a position."""

    rows: tuple[Row, ...]
    schemas: Mapping[tuple[str, int], Schema]
    #: The position before the first row.
    start: int = 0

    @property
    def head(self) -> int:
        return self.start + len(self.rows)

    @property
    def types_of(self) -> Mapping[tuple[str, str], frozenset[tuple[str, int]]]:
        found: dict[tuple[str, str], set[tuple[str, int]]] = {}
        for row in self.rows:
            found.setdefault((row.tenant, row.stream.partition("-")[0]), set()).add((row.type, row.schema_version))
        return {key: frozenset(types) for key, types in found.items()}

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
        """One batch of everything picked."""
        rows = [
            row
            for row in self._between(after, until)
            if (not isinstance(tenant, str) or row.tenant == tenant) and filter.matches(row.type, row.stream, row.tags)
        ]
        if rows:
            names = needed_envelope(filter, envelope)
            tables = [_select(table, names) for table in self._tables(rows).values()]
            yield Batch(tuple(tables), self.schemas)

    def stream(
        self,
        stream: str,
        *,
        tenant: str,
        after_version: int = 0,
        until: int | None = None,
        envelope: Sequence[str] = ENVELOPE_NAMES,
        types: Collection[str] | None = None,
    ) -> Iterator[Batch]:
        """One batch of the stream."""
        rows = [
            r for r in self._between(0, until) if (r.tenant, r.stream) == (tenant, stream) and r.version > after_version
        ]
        if rows:
            yield Batch((rows_to_table(rows, self.schemas),), self.schemas)

    def position_at(self, recorded_us: int) -> int:
        """The last position recorded at or before this moment."""
        return max((row.position for row in self.rows if row.recorded_at <= recorded_us), default=0)

    def sources(self, tenant: Tenant) -> list[SourceGroup]:
        """One table a tenant and category."""
        groups = []
        for name in sorted({row.tenant for row in self.rows}):
            if isinstance(tenant, str) and name != tenant:
                continue
            for category, table in self._tables([r for r in self.rows if r.tenant == name]).items():
                groups.append(SourceGroup(name, category, tuple(payload_columns(table)), table=table))
        return groups

    def hold(self) -> MemoryCut:
        """Nothing in memory goes away while someone has it."""
        return self

    def renew(self) -> None:
        """It lasts."""

    def release(self) -> None:
        """It goes with its last user."""

    def _between(self, after: int, until: int | None) -> tuple[Row, ...]:
        end = self.head if until is None else until
        return self.rows[max(after - self.start, 0) : max(end - self.start, 0)]

    def _tables(self, rows: Sequence[Row]) -> dict[str, pa.Table]:
        parts: dict[str, list[Row]] = {}
        for row in rows:
            parts.setdefault(row.stream.partition("-")[0], []).append(row)
        return {category: rows_to_table(part, self.schemas) for category, part in sorted(parts.items())}


def _select(table: pa.Table, envelope: Sequence[str]) -> pa.Table:
    return table.select([*envelope, *payload_columns(table)])


def _drafts(chunk: Chunk, schemas: Mapping[tuple[str, int], Schema]) -> Iterator[tuple[int, Draft, int | None]]:
    """The rows of a chunk one by one: offset, draft, and when it was recorded if the chunk says so."""
    for table in chunk.tables.values():
        rows = table.select([n for n in table.column_names if ":" not in n])
        for name in ("occurred_at", "recorded_at"):
            if name in rows.column_names:
                at = rows.column_names.index(name)
                rows = rows.set_column(at, name, rows.column(name).combine_chunks().view(pa.int64()))
        payload = {column: stored_column(table, column) for column in payload_columns(table)}
        for i, row in enumerate(rows.to_pylist()):
            schema = schemas[row["type"], row["schema_version"]]
            stored = tuple(payload[column][i] if column in payload else None for column in schema.columns)
            draft = Draft(
                row["stream"], schema, stored, event_id=row["event_id"], occurred_at=row["occurred_at"],
                correlation_id=row["correlation_id"], causation_id=row["causation_id"], actor=row["actor"],
                tags=tuple(row["tags"]),
            )  # fmt: skip
            yield row["offset"], draft, row.get("recorded_at")
