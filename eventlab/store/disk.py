"""The durable store: a catalog, its hot tail, and segments, behind the verbs of a store.

**append** encodes outside; inside one write transaction it looks for repeats, checks versions, inserts, and moves `head`.
**cut** takes head and generation in one short read transaction; where the events lie is looked up when they are read.
`seal`, `place` (ingest) and `compact` write segments; `runs` makes them part of the log.
"""

from __future__ import annotations

import contextlib
import functools
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from eventlab.errors import Conflict, Damaged, NoStore, ReadOnly
from eventlab.model.schema import Schema
from eventlab.store import compact as compacting
from eventlab.store import gc as collecting
from eventlab.store import place as placing
from eventlab.store import schemas as registry
from eventlab.store import seal as sealing
from eventlab.store import tail
from eventlab.store.base import (
    Appended,
    Chunk,
    ChunkState,
    Condition,
    Draft,
    Row,
    Snapshot,
    checksum,
    content_digest,
    pack,
    rows_to_table,
    unpack,
)
from eventlab.store.catalog import SEE_VERIFY, Catalog, Names, forked
from eventlab.store.compact import Compacted
from eventlab.store.cut import DiskCut, HotStream, Layout, TypesOf
from eventlab.store.files import LOCAL_DISK, Disk, make_folders, refuse_unsafe_disk
from eventlab.store.gc import Collected, Hold
from eventlab.store.handled import DiskCommands, Done
from eventlab.store.read_models import DiskReadModels, Inline
from eventlab.store.rules import ids_of, late_retry, placed, refuse_met, refuse_stale, same_append
from eventlab.store.runs import Runs
from eventlab.store.seal import Pause, no_pause
from eventlab.store.segment import Segment
from eventlab.store.tail import Tail
from eventlab.store.work import Bell, DiskWork, Work

#: So many events are looked at under the write lock for what an append condition forbids.
LOOK_UNDER_LOCK: Final = 256


class DiskStore:
    """A store in a folder; `open_store` gives the one of this process."""

    def __init__(self, root: Path, *, now: Callable[[], int], read_only: bool, create: bool, disk: Disk = LOCAL_DISK) -> None:
        self.root = root
        self.read_only = read_only
        self._now = now
        self._disk = disk
        self._catalog = Catalog(root, read_only=read_only, create=create)
        #: Commits that a crash left unread, for `verify`.
        self.unread = self._catalog.unread
        self._tenants, self._categories = Names("tenant"), Names("category")
        self._runs = Runs(root, self._catalog, self._tenants, self._categories, disk)
        self.read_models = DiskReadModels(root, self._catalog, disk)
        self.work: Work = DiskWork(self._catalog)
        self.commands = DiskCommands(self._catalog, self._tenants)
        self._bell = Bell()
        self._schemas: dict[tuple[str, int], Schema] = {}
        #: What is committed for ever: the numbers of tenants, and which of their categories use which types.
        self._numbers: dict[str, int] = {}
        self._uses: set[tuple[int, str, Schema]] = set()
        self._types_of: TypesOf = {}
        self._types_seen: int | None = None
        self._cut_lock = threading.RLock()
        self._tail = Tail()
        self._layout: Layout | None = None
        self._last_cut: tuple[int, DiskCut] | None = None
        self.users, self.pid = 1, os.getpid()
        with self._catalog.read() as connection:
            self.store_id = str(connection.execute("SELECT store_id FROM log").fetchone()[0])

    # -- append

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
        """Append all drafts or none, in one transaction; see `store.base.Store`."""
        seen = condition.after if condition is not None else 0
        earlier: list[tuple[int, int] | None] = []
        try:
            while True:
                with self._catalog.write() as connection:
                    tenant_id = self._numbers.get(tenant) or self._tenants.ensure(connection, tenant)
                    if commands:
                        self.commands.check(connection, tenant_id, commands)
                    if repeats:
                        earlier = tail.known_ids(connection, tenant_id, ids_of(drafts))
                        if any(earlier):
                            break
                    heads = tail.heads_of(connection, tenant_id, [*expected, *(draft.stream for draft in drafts)])
                    for stream, version in expected.items():
                        refuse_stale(stream, version, heads.get(stream, 0), ())
                    if condition is None or self._still_holds(connection, tenant, condition, seen):
                        uses = _uses_of(tenant_id, drafts)
                        known = self._schemas
                        if not uses.keys() <= self._uses:
                            known = self._register(connection, tenant_id, [use[1:] for use in uses])
                        head, last = connection.execute("SELECT head, recorded_at FROM log").fetchone()
                        recorded_at = max(self._now() if now is None else now, last)
                        connection.execute("UPDATE log SET head = ?, recorded_at = ?", (head + len(drafts), recorded_at))
                        rows = placed(drafts, head, heads, tenant, recorded_at)
                        tail.insert(connection, tenant_id, rows)
                        self.commands.keep(connection, tenant_id, commands, rows)
                        if inline:
                            between = functools.partial(tail.rows_between, connection)
                            self.read_models.move(connection, inline, rows, known, between)
                        break
                # Too much to look at under the lock: it is looked at outside, and only what comes after that inside.
                seen = self._looked_at(condition, seen, tenant)
        except Conflict as conflict:
            if "stream" not in conflict.facts:
                raise
            cut = self.cut()

            def rows_after(stream: str, version: int) -> list[Row]:
                return [row for batch in cut.stream(stream, tenant=tenant, after_version=version) for row in batch.rows()]

            if repeats and (late := late_retry(drafts, expected, rows_after, cut.schemas)):
                return late
            since = cut.stream(conflict.stream, tenant=tenant, after_version=conflict.expected)
            types = [name for batch in since for name in batch.envelope.type]
            refuse_stale(conflict.stream, conflict.expected, conflict.actual, types)
            raise
        if any(earlier):
            return self._repeated(drafts, earlier, tenant)
        self._bell.ring()
        if not uses.keys() <= self._uses:
            # Another thread may have learned of other types since.
            with self._cut_lock:
                self._schemas = {**self._schemas, **known}
                self._numbers[tenant] = tenant_id
                self._uses.update(uses)
        return Appended(tuple(range(head + 1, head + 1 + len(rows))), tuple([row.version for row in rows]), ids_of(drafts))

    def _repeated(self, drafts: Sequence[Draft], earlier: Sequence[tuple[int, int] | None], tenant: str) -> Appended:
        """What an append did the first time, whose ids are at these positions and versions; `DuplicateEvent` if it did not.

        What is in the log stays as it is, so it is looked at outside the lock.
        """
        cut = self.cut()
        found: dict[int, bytes] = {}
        places = sorted(place[0] for place in earlier if place is not None)
        for first, last in _spans(places):
            for batch in cut.batches(tenant=tenant, after=first - 1, until=last):
                for row in batch.rows():
                    found[row.position] = content_digest(row.stream, (row.type, row.schema_version), pack(row.payload))
        positions = same_append(drafts, [None if at is None else (at[0], found[at[0]]) for at in earlier])
        assert positions is not None
        return Appended(positions, tuple(at[1] for at in earlier if at is not None), ids_of(drafts), repeated=True)

    def _still_holds(self, connection: sqlite3.Connection, tenant: str, condition: Condition, seen: int) -> bool:
        """Look for what a condition forbids after `seen`, under the lock; False where that is too much, or not hot."""
        head = connection.execute("SELECT head FROM log").fetchone()[0]
        if head - seen > LOOK_UNDER_LOCK:
            return False
        found = tail.envelopes_after(connection, seen)
        if len(found) != head - seen:
            return False
        met = [
            (position, name)
            for position, of, name, stream, tags in found
            if of == tenant and condition.filter.matches(name, stream, tags)
        ]
        refuse_met(condition, met)
        return True

    def _looked_at(self, condition: Condition, seen: int, tenant: str) -> int:
        """Look for what a condition forbids after `seen` in the log as it is; how far that is."""
        cut = self.cut()
        found: list[tuple[int, str]] = []
        for batch in cut.batches(condition.filter, tenant=tenant, after=seen, envelope=("position", "type"), types=()):
            found += zip(batch.envelope.position, batch.envelope.type, strict=True)
        refuse_met(condition, found)
        return max(seen, cut.head)

    def _register(
        self, connection: sqlite3.Connection, tenant_id: int, uses: Collection[tuple[str, Schema]]
    ) -> dict[tuple[str, int], Schema]:
        """Record types, and which category uses them, where the catalog does not know it yet.

        Gives what the catalog knows then; it holds once this transaction is committed, and not before.
        """
        schemas = [schema for _, schema in uses]
        known = self._schemas
        if any(schema.key not in known for schema in schemas):
            known = load_schemas(connection)
        new = registry.unknown(schemas, known)
        connection.executemany(
            "INSERT INTO schema VALUES(?, ?, ?, ?, ?)", [(*row, checksum(*row)) for row in map(_schema_row, new)]
        )
        used = 0
        for category, schema in uses:
            place = (tenant_id, self._categories.ensure(connection, category), *schema.key)
            used += connection.execute("INSERT OR IGNORE INTO type_use VALUES(?, ?, ?, ?)", place).rowcount
        if new or used:
            connection.execute("UPDATE log SET types = types + 1")
        return {**known, **{schema.key: schema for schema in new}} if new else known

    # -- segments

    def ingest(self, chunk: Chunk, *, tenant: str, now: int | None = None) -> ChunkState:
        """Write a chunk as segments and register it, all or nothing; a chunk that is there stays as it is."""
        done = placing.ingest(self._runs, self._register, chunk, tenant=tenant, now=self._now() if now is None else now)
        self._bell.ring()
        return done

    def chunks(self, tenant: str, source: str) -> dict[int, ChunkState]:
        """The chunks of a source that are in the log."""
        with self._catalog.read() as connection:
            tenant_id = self._tenants.get(connection, tenant)
            return {} if tenant_id is None else placing.chunk_states(connection, tenant_id, source)

    def seal(self, pause: Pause = no_pause) -> int:
        """Write the hot rows before the first hole as segments, then trim them; the number of events sealed.

        Readers and writers see no difference. Of two that race the loser deletes its own files.
        """
        return sealing.seal(self._runs, load_schemas, pause)

    def compact(self, *, all: bool = False, positions: int = compacting.ERA_POSITIONS, pause: Pause = no_pause) -> Compacted:
        """Rewrite sealed runs into eras of buckets sorted by stream where they are due; `all` closes them at once."""
        return compacting.compact(self._runs, all=all, positions=positions, pause=pause)

    def collect(self, *, grace: float = collecting.GRACE_SECONDS) -> Collected:
        """Delete the files of segments that were compacted, once the grace time is over and no reader holds them."""
        self.read_models.collect(time.time() - grace)
        return collecting.collect(self._runs, grace=grace)

    def hold(self, layout: Layout) -> Hold:
        """A lease on the files of a layout; none where the store cannot be written, and so not compacted from here."""
        return Hold(None if self.read_only else self._runs, layout.generation, layout.segments)

    # -- read

    def cut(self) -> DiskCut:
        """The log up to its last commit, taken in one look; the scan comes later."""
        where = "SELECT head, generation, types FROM log"
        with self._cut_lock:
            with self._catalog.look() as connection:
                head, generation, types = connection.execute(where).fetchone()
            if types != self._types_seen:
                with self._catalog.read() as connection:
                    head, generation, types = connection.execute(where).fetchone()
                    self._schemas = load_schemas(connection)
                    self._types_of = _load_uses(connection, self._schemas)
                self._types_seen = types
            last = self._last_cut
            if last is None or last[0] != generation or last[1].head != head:
                last = self._last_cut = generation, DiskCut(head, dict(self._schemas), self._types_of, self)
            return last[1]

    def layout(self, head: int, unlike: Layout | None = None) -> Layout:
        """Where the events up to `head` are now; with `unlike`, only if that has changed, else the same."""
        with self._cut_lock, self._catalog.read() as connection:
            end, generation = connection.execute("SELECT head, generation FROM log").fetchone()
            last = self._layout
            if unlike is not None and unlike.generation == generation:
                return unlike
            if last is not None and last.generation == generation and last.head >= head:
                return last
            if last is None or last.generation != generation:
                self._tail = Tail()
                segments = self._runs.live(connection)
            else:
                segments = last.segments
            for first, until in _holes(segments, end):
                self._tail.extend(first, until, lambda a, b: self._hot_tables(connection, a, b))
            self._layout = Layout(end, generation, segments, self._tail.parts())
            return self._layout

    def version(self, tenant: str, stream: str) -> int:
        """The version of a stream; 0 when it has no events."""
        with self._catalog.read() as connection:
            tenant_id = self._tenants.get(connection, tenant)
            row = connection.execute(
                "SELECT version FROM stream_head WHERE tenant = ? AND stream = ?", (tenant_id, stream)
            ).fetchone()
            return 0 if row is None else int(row[0])

    def hot_stream(self, tenant: str, stream: str, after_version: int, until: int) -> HotStream | None:
        """What the catalog knows of one stream, with its hot rows after a version; None when it has no events."""
        with self._catalog.look() as connection:
            tenant_id = self._tenants.get(connection, tenant)
            if tenant_id is None:
                return None
            found = tail.stream_of(connection, tenant_id, stream, after_version, until, {tenant_id: tenant}.__getitem__)
            return None if found is None else HotStream(*found[0], found[1])

    def last_recorded(self) -> int:
        """When the last event was recorded, in microseconds since 1970; the earliest moment there is when there is none."""
        with self._catalog.read() as connection:
            return int(connection.execute("SELECT recorded_at FROM log").fetchone()[0])

    def segments(self) -> tuple[Segment, ...]:
        """The live segments, for `verify`: they can be looked at where the hot tail cannot be read."""
        with self._cut_lock, self._catalog.read() as connection:
            return self._runs.live(connection)

    def _hot_tables(self, connection: sqlite3.Connection, first: int, last: int) -> dict[tuple[str, str], pa.Table]:
        rows = tail.rows_between(connection, first, last)
        parts = tail.by_category(rows)
        schemas = load_schemas(connection) if any(_missing(parts, self._schemas)) else self._schemas
        try:
            return {key: rows_to_table(part, schemas) for key, part in parts.items()}
        except (pa.ArrowException, ArithmeticError, LookupError, TypeError, ValueError) as why:
            raise tail.damaged(f"positions {first:,} to {last:,}", why) from why

    # -- snapshots

    def snapshot(self, tenant: str, stream: str, model: str) -> Snapshot | None:
        """The last snapshot of a stream for a model, whoever's code made it."""
        with self._catalog.look() as connection:
            key = (self._tenants.get(connection, tenant), stream, model)
            row = connection.execute(
                "SELECT fingerprint, version, position, state, checksum FROM snapshot "
                "WHERE tenant = ? AND stream = ? AND model = ?",
                key,
            ).fetchone()
            # One that is not as it was written is none: the events are there to be folded.
            if row is None or checksum(*key, *row[:4]) != row[4]:
                return None
            return Snapshot(row[0], row[1], row[2], tuple(unpack(row[3])))

    def save_snapshot(self, tenant: str, stream: str, model: str, snapshot: Snapshot) -> None:
        """Keep a snapshot in the place of an older one; one that is newer, of the same code, stays."""
        with self._catalog.write_unhurried() as connection:
            row = (
                self._tenants.ensure(connection, tenant), stream, model, snapshot.fingerprint, snapshot.version,
                snapshot.position, pack(snapshot.state),
            )  # fmt: skip
            connection.execute(
                "INSERT INTO snapshot VALUES(?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT(tenant, stream, model) DO UPDATE SET "
                "fingerprint = excluded.fingerprint, version = excluded.version, position = excluded.position, "
                "state = excluded.state, checksum = excluded.checksum "
                "WHERE excluded.version > version OR excluded.fingerprint != fingerprint",
                (*row, checksum(*row)),
            )

    def snapshots(self, tenant: str) -> list[tuple[str, str, Snapshot]]:
        """Every snapshot of a tenant, with its stream and model; those that are not as they were written are none."""
        columns = "tenant, stream, model, fingerprint, version, position, state"
        with self._catalog.read() as connection:
            number = self._tenants.get(connection, tenant)
            query = f"SELECT {columns}, checksum FROM snapshot WHERE tenant = ? ORDER BY stream, model"
            rows = connection.execute(query, (number,)).fetchall()
        return [(r[1], r[2], Snapshot(r[3], r[4], r[5], tuple(unpack(r[6])))) for r in rows if checksum(*r[:-1]) == r[-1]]

    def drop_snapshots(self, tenant: str) -> int:
        """Delete every snapshot of a tenant; how many there were."""
        with self._catalog.write() as connection:
            number = self._tenants.get(connection, tenant)
            return connection.execute("DELETE FROM snapshot WHERE tenant = ?", (number,)).rowcount

    def wait(self, after: int, seconds: float) -> int:
        """The head, as soon as it is after a position, or when so many seconds are over."""
        return self._bell.wait(self._head, after, seconds)

    def _head(self) -> int:
        with self._catalog.look() as connection:
            return int(connection.execute("SELECT head FROM log").fetchone()[0])

    # -- the rest

    @contextlib.contextmanager
    def inspect(self) -> Iterator[sqlite3.Connection]:
        """One read transaction on the catalog, for `verify` and `info`."""
        with self._catalog.read() as connection:
            yield connection

    def heads(self) -> tuple[int, int]:
        """The last position, and the last one that is sealed without a hole before it."""
        with self._catalog.read() as connection:
            head, sealed = connection.execute("SELECT head, sealed FROM log").fetchone()
            return int(head), int(sealed)

    def copy_catalog(self, to: sqlite3.Connection) -> None:
        """Copy the catalog into an empty database, as of one commit; writers wait no longer than for another reader."""
        self._catalog.copy(to)

    def close(self) -> None:
        """Close the store once everyone in this process who opened it has."""
        with _OPEN_LOCK:
            self.users -= 1
            if self.users > 0:
                return
            _OPEN.pop(str(self.root), None)
            self._last_cut = self._layout = None
            self._runs.forget()
            self._catalog.close()


def _uses_of(tenant_id: int, drafts: Sequence[Draft]) -> dict[tuple[int, str, Schema], None]:
    """The categories of drafts with the types that they use, in their order."""
    stream, schema = "", None
    found: dict[tuple[int, str, Schema], None] = {}
    for draft in drafts:
        if draft.stream is not stream or draft.schema is not schema:
            stream, schema = draft.stream, draft.schema
            found[tenant_id, stream.partition("-")[0], schema] = None
    return found


def _spans(positions: Sequence[int]) -> Iterator[tuple[int, int]]:
    """The first and last of those that follow on one another."""
    low = 0
    for high in range(1, len(positions) + 1):
        if high == len(positions) or positions[high] > positions[high - 1] + 1:
            yield positions[low], positions[high - 1]
            low = high


def load_schemas(connection: sqlite3.Connection) -> dict[tuple[str, int], Schema]:
    """Every type and version that the catalog knows."""
    found = {}
    for *row, said in connection.execute("SELECT name, version, fingerprint, json, checksum FROM schema ORDER BY name, version"):
        if checksum(*row) != said:
            raise Damaged(f"the schema of {row[0]} version {row[1]} is not what was registered", hint=SEE_VERIFY)
        schema = Schema.from_json(row[3])
        found[schema.key] = schema
    return found


def _schema_row(schema: Schema) -> tuple[str, int, str, str]:
    return schema.name, schema.version, schema.fingerprint, schema.to_json()


def _load_uses(connection: sqlite3.Connection, known: Mapping[tuple[str, int], Schema]) -> TypesOf:
    uses = connection.execute(
        "SELECT tenant.name, category.name, type, version FROM type_use JOIN tenant ON tenant.id = tenant "
        "JOIN category ON category.id = category"
    ).fetchall()
    found: dict[tuple[str, str], set[tuple[str, int]]] = {}
    for tenant, category, name, version in uses:
        if (name, version) not in known:
            raise Damaged(f"{name} version {version} occurs in {category!r}, and the catalog does not know it", hint=SEE_VERIFY)
        found.setdefault((tenant, category), set()).add((name, version))
    return {key: frozenset(types) for key, types in found.items()}


def _missing(parts: Mapping[Any, Sequence[Row]], known: Mapping[tuple[str, int], Schema]) -> Iterator[bool]:
    return ((row.type, row.schema_version) not in known for rows in parts.values() for row in rows)


def _holes(segments: Sequence[Segment], head: int) -> Iterator[tuple[int, int]]:
    """The runs of positions that no live segment covers."""
    at = 1
    for first, last in sorted({(s.first, s.last) for s in segments}):
        if first > at:
            yield at, first - 1
        at = max(at, last + 1)
    if at <= head:
        yield at, head


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
    disk: Disk = LOCAL_DISK,
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
            make_folders(root, disk)
        elif not os.access(root, os.W_OK):
            read_only = True
        store = DiskStore(root, now=now, read_only=read_only, create=create and not read_only, disk=disk)
        _OPEN[str(root)] = store
        return store


def _look(root: Path, create: bool) -> bool:
    """Whether there is a store; `NoStore` where there is something else, or nothing and none is to be made."""
    if root.exists() and not root.is_dir():
        raise NoStore(f"{root} is a file, not the folder of a store", hint="name a folder", path=str(root))
    # The folder first and the catalog then: in the other order, another process may make the store in between.
    others = [p.name for p in root.iterdir() if p.name != "write.lock"] if root.exists() else []
    if (root / "catalog.sqlite").exists():
        return True
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
