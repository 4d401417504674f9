"""What a store is: the values that go in and out, and the two verbs.

`Draft`s go in: validated, encoded, with ids and tags, all decided outside the store. `Row`s are what a store keeps of
them. A `Cut` is the log up to one commit: it never changes, and every read goes through one. A `Batch` is what it gives.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import hashlib
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, Protocol

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from eventlab.errors import Damaged, EventlabError, UpcastFailed
from eventlab.model.events import EventType
from eventlab.model.filters import EVERYTHING, Clause, Filter
from eventlab.model.meta import Recorded
from eventlab.model.schema import Schema
from eventlab.model.types import MAX_PAYLOAD_DEPTH as MAX_PAYLOAD_DEPTH
from eventlab.model.types import back_of
from eventlab.store.columns import ENVELOPE, ENVELOPE_NAMES, fits, payload_array, payload_columns, python_type, stored_column

if TYPE_CHECKING:
    from eventlab.store.handled import Commands, Done
    from eventlab.store.read_models import Inline, ReadModels
    from eventlab.store.work import Work

#: The envelope columns a fold needs when its `evolve` does not look at the metadata.
FOLD_ENVELOPE: Final = ("position", "stream", "version", "type", "schema_version", "tenant")

#: So few rows of a table are read one by one.
FEW_ROWS: Final = 32
MAX_PAYLOAD_BYTES: Final = 8 << 20
MAX_APPEND_EVENTS: Final = 100_000
MAX_TAGS: Final = 64


class _All:
    """Every tenant of a store; only for reading."""

    def __repr__(self) -> str:
        return "eventlab.ALL"


ALL: Final = _All()
Tenant = str | _All


class Draft(NamedTuple):
    """An event ready to append: its payload in stored form, its id and its tags."""

    stream: str
    schema: Schema
    payload: tuple[Any, ...]
    event_id: bytes
    occurred_at: int | None = None
    correlation_id: bytes | None = None
    causation_id: bytes | None = None
    actor: str | None = None
    tags: tuple[str, ...] = ()

    @property
    def content(self) -> bytes:
        """A digest of what it says."""
        return content_digest(self.stream, self.schema.key, pack(self.payload))


class Row(NamedTuple):
    """A recorded event as a store keeps it, in stored form; a tuple, for a great many of them are made."""

    position: int
    tenant: str
    stream: str
    version: int
    type: str
    schema_version: int
    event_id: bytes
    recorded_at: int
    occurred_at: int
    correlation_id: bytes | None
    causation_id: bytes | None
    actor: str | None
    tags: tuple[str, ...]
    commit: int
    payload: tuple[Any, ...]


@dataclass(frozen=True)
class Appended:
    """What an append did: the positions, versions and ids of its events. `repeated` says they were there before."""

    positions: tuple[int, ...] = ()
    versions: tuple[int, ...] = ()
    event_ids: tuple[bytes, ...] = field(default=(), repr=False)
    repeated: bool = False

    @property
    def ids(self) -> tuple[uuid.UUID, ...]:
        """The ids, in the order of the positions."""
        return tuple(uuid.UUID(bytes=event_id) for event_id in self.event_ids)

    @property
    def position(self) -> int:
        """The last position."""
        return self.positions[-1] if self.positions else 0


@dataclass(frozen=True)
class Condition:
    """An append is done only if nothing that `filter` picks was appended after the position `after`.

    So a decision may rest on any events, not on one stream alone (a dynamic consistency boundary): what it read is what
    there is. Of the same tenant, like all that an append sees.
    """

    filter: Filter
    after: int


@dataclass(frozen=True)
class Chunk:
    """Rows of an ingest in their final order, one table a category: the envelope but for what the log decides, and payload.

    Each table has an int64 column `offset`, its rows' places in the chunk. `recorded_at` is present for imported history.
    """

    source: str
    number: int
    digest: bytes
    rows: int
    tables: Mapping[str, pa.Table]
    schemas: tuple[Schema, ...]
    imported: bool


@dataclass(frozen=True)
class ChunkState:
    """What the log knows of one chunk of a source: how many rows, where they went, and the digest of what came in."""

    rows: int
    first: int
    last: int
    digest: bytes


@dataclass(frozen=True)
class SourceFile:
    """A segment as SQL sees it: its run of positions, and which of how many buckets of streams it holds."""

    path: str
    first: int
    last: int
    rows: int
    bucket: int = 0
    buckets: int = 1


@dataclass(frozen=True)
class SourceGroup:
    """Files or a table of one category that share their physical columns: one scan for SQL.

    Rows of a file or a table are in position order; with `by_stream` each file is sorted by (stream, version) instead.
    """

    tenant: str
    category: str
    columns: tuple[str, ...]
    paths: tuple[str, ...] = ()
    table: pa.Table | None = None
    by_stream: bool = False
    files: tuple[SourceFile, ...] = ()


class Cut(Protocol):
    """The log up to the commit that ends at `head`; never changes."""

    @property
    def head(self) -> int: ...
    @property
    def schemas(self) -> Mapping[tuple[str, int], Schema]: ...
    @property
    def types_of(self) -> Mapping[tuple[str, str], frozenset[tuple[str, int]]]:
        """Which (type, schema version) occur in each (tenant, category)."""
        ...

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
        """The events picked, `after` < position ≤ `until`, in position order, a bounded number at a time.

        `envelope` and `types` say what will be looked at: these envelope columns, and the payload of these types.
        """
        ...

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
        """One stream's events from the version after `after_version`, in order; `envelope` and `types` as in `batches`."""
        ...

    def position_at(self, recorded_us: int) -> int:
        """The end of the last commit recorded at or before this moment; 0 when there is none."""
        ...

    def sources(self, tenant: Tenant) -> list[SourceGroup]:
        """Where SQL finds the events."""
        ...

    def hold(self) -> Held:
        """Keep the files that `sources` names until it is released."""
        ...


class Held(Protocol):
    """A reader's lease on the files of a cut."""

    def renew(self) -> None: ...
    def release(self) -> None: ...


@dataclass(frozen=True)
class Snapshot:
    """The state of one stream at a version, in stored form, made by code of one fingerprint. It can be deleted at any time."""

    fingerprint: str
    version: int
    position: int
    state: tuple[Any, ...]


class Store(Protocol):
    """The log. `append` and `cut` are all that a model needs; the rest keeps it in shape."""

    read_only: bool
    store_id: str

    @property
    def read_models(self) -> ReadModels:
        """What is kept of read models."""
        ...

    @property
    def commands(self) -> Commands:
        """What is kept of commands."""
        ...

    @property
    def work(self) -> Work:
        """Who works through the log, and how far: leases, checkpoints."""
        ...

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
        """Append all drafts or none.

        `expected` are the versions that streams must be at, `condition` what must not have been appended; `repeats` says
        that the ids are the caller's own, so that an append may be one that was done before. Read models that are `inline`
        move with the log, or nothing is stored; `Behind` where one has to be caught up before. `commands` are kept with their
        events; `HandledBefore` where one of them was.
        """
        ...

    def cut(self) -> Cut: ...
    def version(self, tenant: str, stream: str) -> int: ...
    def ingest(self, chunk: Chunk, *, tenant: str, now: int | None = None) -> ChunkState: ...
    def chunks(self, tenant: str, source: str) -> dict[int, ChunkState]: ...
    def last_recorded(self) -> int:
        """When the last event was recorded, in microseconds since 1970; the earliest moment there is when there is none."""
        ...

    def seal(self) -> int: ...
    def snapshot(self, tenant: str, stream: str, model: str) -> Snapshot | None: ...
    def save_snapshot(self, tenant: str, stream: str, model: str, snapshot: Snapshot) -> None: ...
    def snapshots(self, tenant: str) -> list[tuple[str, str, Snapshot]]:
        """Every snapshot of a tenant, with its stream and model."""
        ...

    def drop_snapshots(self, tenant: str) -> int:
        """Delete every snapshot of a tenant; how many there were."""
        ...

    def wait(self, after: int, seconds: float) -> int:
        """The head, as soon as it is after a position, or when so many seconds are over."""
        ...

    def close(self) -> None: ...


# -- canonical bytes -------------------------------------------------------------------------------------------------------

_encoder = msgspec.msgpack.Encoder()
_BIG_INT: Final = 1


def pack(value: Any) -> bytes:
    """Stored values as MessagePack: NaN and bytes survive, integers beyond 64 bits too."""
    try:
        return _encoder.encode(value)
    except OverflowError:
        return _encoder.encode(_big(value))


def _big(value: Any) -> Any:
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        return msgspec.msgpack.Ext(_BIG_INT, str(value).encode())
    if isinstance(value, (list, tuple)):
        return [_big(v) for v in value]
    return {k: _big(v) for k, v in value.items()} if isinstance(value, dict) else value


def _unpack_ext(code: int, data: memoryview) -> Any:
    if code != _BIG_INT:
        raise Damaged(f"a stored payload holds an unknown kind of value ({code})")
    return int(bytes(data))


_decoder = msgspec.msgpack.Decoder(ext_hook=_unpack_ext)
_rows_decoder = msgspec.msgpack.Decoder(list[Row], ext_hook=_unpack_ext)


def unpack(blob: bytes) -> Any:
    """The stored values that `pack` wrote."""
    try:
        return _decoder.decode(blob)
    except (msgspec.DecodeError, RecursionError, TypeError, ValueError) as why:
        raise Damaged(f"a stored payload of {len(blob)} bytes cannot be read: {why}", hint="eventlab verify") from None


def content_digest(stream: str, of: tuple[str, int], payload: bytes) -> bytes:
    """Eight bytes of what an event says, without where and when: tells a repeat from another event under the same id.

    `of` is its type and schema version, `payload` as `pack` writes it.
    """
    digest = _CONTENT_DIGEST.copy()
    digest.update(pack((stream, *of, payload)))
    return digest.digest()


def record_of(rows: Sequence[Row]) -> bytes:
    """The one canonical encoding of recorded events: everything that the rows hold, in their order."""
    return pack(rows)


def rows_of_record(record: bytes) -> list[Row]:
    """The rows that `record_of` wrote."""
    try:
        return _rows_decoder.decode(record)
    except (msgspec.DecodeError, RecursionError, TypeError, ValueError) as why:
        raise Damaged(f"a record of {len(record)} bytes cannot be read: {why}", hint="eventlab verify") from None


def record_digest(record: bytes) -> bytes:
    """Sixteen bytes over a record."""
    digest = _EVENT_DIGEST.copy()
    digest.update(record)
    return digest.digest()


# A copy of these costs a third of making them anew.
_CONTENT_DIGEST: Final = hashlib.blake2b(digest_size=8, person=b"eventlab content")
_EVENT_DIGEST: Final = hashlib.blake2b(digest_size=16, person=b"eventlab event")


def checksum(*values: Any) -> bytes:
    """Eight bytes over the other columns of a row in the catalog, where nothing else says whether one of them changed."""
    return hashlib.blake2b(pack(values), digest_size=8, person=b"eventlab catalog").digest()


@contextlib.contextmanager
def collector_off() -> Iterator[None]:
    """Pause the cyclic garbage collector, where many objects are made and no cycles; it changes nothing but the time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


# -- batches ---------------------------------------------------------------------------------------------------------------


def rows_to_table(rows: Sequence[Row], schemas: Mapping[tuple[str, int], Schema]) -> pa.Table:
    """Rows of one category as a table: the envelope, then every payload column that a type among them has.

    `Damaged`, with the position, where a payload is not one of its type.
    """
    columns = zip(*rows, strict=True) if rows else [()] * len(Row._fields)
    envelope: dict[str, Sequence[Any]] = dict(zip(Row._fields, columns, strict=True))
    arrays = [
        # Moments are given as numbers.
        pa.array(envelope[f.name], pa.int64()).view(f.type)
        if pa.types.is_timestamp(f.type)
        else pa.array(envelope[f.name], f.type)
        for f in ENVELOPE
    ]
    places: dict[tuple[str, int], list[int]] = {}
    for i, key in enumerate(zip(envelope["type"], envelope["schema_version"], strict=True)):
        places.setdefault(key, []).append(i)
    used = sorted(places)
    # The values of each type are together at first, and then put in the order of the rows.
    order = np.empty(len(rows), np.int64)
    order[np.fromiter((i for key in used for i in places[key]), np.int64, len(rows))] = np.arange(len(rows))
    found: dict[str, dict[tuple[str, int], pa.Array]] = {}
    for key in used:
        schema = schema_of(schemas, key)
        mine = rows if len(used) == 1 else [rows[i] for i in places[key]]
        values = refuse_misfit(schema, mine)
        for column, stored in zip(schema.columns, values, strict=True):
            found.setdefault(column, {})[key] = _array_of(mine, column, stored)
    for column in sorted(found):
        parts = found[column]
        kind = next(iter(parts.values())).type
        pieces = [parts[key] if key in parts else pa.nulls(len(places[key]), kind) for key in used]
        arrays.append(pieces[0] if len(used) == 1 else pa.concat_arrays(pieces).take(pa.array(order)))
    return pa.table(arrays, names=[*ENVELOPE.names, *sorted(found)])


def joined(tables: Sequence[pa.Table]) -> pa.Table:
    """Tables of one category as one, with the payload columns of all of them in their order."""
    whole = pa.concat_tables(tables, promote_options="default").combine_chunks()
    return whole.select([*ENVELOPE.names, *sorted(payload_columns(whole))])


def refuse_misfit(schema: Schema, rows: Sequence[Row]) -> list[list[Any]]:
    """The payloads of rows of one type, a list for each column; `Damaged`, with the position, where one is not of the type."""
    count = len(schema.columns)
    payloads = [row.payload for row in rows]
    if any(size != count for size in map(len, payloads)):
        row = next(row for row in rows if len(row.payload) != count)
        raise not_its_type(row.position, row.type, f"it has {len(row.payload)} values, and {count} columns")
    columns = list(map(list, zip(*payloads, strict=True))) if rows else [[] for _ in schema.columns]
    for leaf, values in zip(schema.leaves, columns, strict=True):
        if not fits(leaf.tag, values):
            bad = next(i for i, value in enumerate(values) if not fits(leaf.tag, [value]))
            raise not_its_type(rows[bad].position, schema.name, f"{values[bad]!r:.60} in {leaf.column}")
    return columns


def _array_of(rows: Sequence[Row], column: str, values: list[Any]) -> pa.Array:
    """The stored values of one column as an array; `Damaged` names the first row whose value has no place in it."""
    try:
        return payload_array(column, values)
    except _MISPLACED as why:
        for row, value in zip(rows, values, strict=True):
            try:
                payload_array(column, [value])
            except _MISPLACED:
                raise not_its_type(row.position, row.type, f"{value!r:.60} in {column}") from why
        raise not_its_type(
            rows[0].position, rows[0].type, f"the values of {column}, and of the {len(rows) - 1:,} events after it"
        ) from why


_MISPLACED: Final = (pa.ArrowException, ArithmeticError, LookupError, TypeError, ValueError)


def not_its_type(position: int, name: str, what: str) -> Damaged:
    """The error for a stored payload that its type cannot have."""
    return Damaged(
        f"the event at position {position:,} does not hold a {name}: {what}",
        hint="eventlab verify tells what else is damaged; restore a backup",
        position=position,
    )


class EnvelopeLists:
    """The envelope columns of a batch as lists of stored values, each made when it is first asked for."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table

    def __getattr__(self, name: str) -> list[Any]:
        if name.startswith("_") or name not in self._table.column_names:
            raise AttributeError(name)
        column = self._table.column(name).combine_chunks()
        if pa.types.is_timestamp(column.type):
            column = column.view(pa.int64())
        values: list[Any] = column.to_pylist()
        setattr(self, name, values)
        return values


#: What `class_of` gives for a type whose payload nobody looks at: its events come as None.
IGNORED: Final = "ignored"
ClassOf = Callable[[str], EventType | Literal["ignored"] | None]


@dataclass(frozen=True)
class Batch:
    """Events in position order: one table a category, each in position order, no position twice."""

    tables: tuple[pa.Table, ...]
    schemas: Mapping[tuple[str, int], Schema] = field(repr=False)
    #: Whether a file had to be opened for them.
    sealed: bool = False

    def __len__(self) -> int:
        return sum(map(len, self.tables))

    @cached_property
    def _order(self) -> np.ndarray[Any, Any] | None:
        """Where each row of the tables, one after the other, goes in position order; None for a single table."""
        if len(self.tables) < 2:
            return None
        positions = np.concatenate([t.column("position").to_numpy() for t in self.tables])
        return np.argsort(positions, kind="stable")

    @cached_property
    def envelope_table(self) -> pa.Table:
        if not self.tables:
            return ENVELOPE.empty_table()
        here = set(self.tables[0].column_names)
        names = [name for name in ENVELOPE_NAMES if name in here]
        whole = pa.concat_tables([t.select(names) for t in self.tables])
        return whole if self._order is None else whole.take(pa.array(self._order))

    @cached_property
    def envelope(self) -> Any:
        """The envelope columns as lists, in position order (`model.meta.Envelopes`)."""
        return EnvelopeLists(self.envelope_table)

    def events(self, class_of: ClassOf) -> list[Any]:
        """The payloads in position order: events of the classes that `class_of` gives, else dicts of plain values."""
        if len(self.tables) == 1 and len(self) <= FEW_ROWS and (few := self._few_events(self.tables[0], class_of)) is not None:
            return few
        out = np.empty(len(self), dtype=object)
        start = 0
        for table in self.tables:
            for at, events in _decoded(table, self.schemas, class_of):
                if at is None:
                    out[start : start + len(table)] = events
                else:
                    out[at + start] = events
            start += len(table)
        listed: list[Any] = (out if self._order is None else out[self._order]).tolist()
        return listed

    def _few_events(self, table: pa.Table, class_of: ClassOf) -> list[Any] | None:
        keys = list(zip(table.column("type").to_pylist(), table.column("schema_version").to_pylist(), strict=True))
        stored: dict[str, list[Any]] = {}
        columns: dict[tuple[str, int], list[list[Any]]] = {}
        for key in dict.fromkeys(keys):
            if class_of(key[0]) == IGNORED:
                columns[key] = []
                continue
            needed = schema_of(self.schemas, key).columns
            stored |= {column: stored_column(table, column) for column in needed if column not in stored}
            columns[key] = [stored[column] for column in needed]
        return _one_by_one(keys, lambda i, key: [column[i] for column in columns[key]], self.schemas, class_of)

    def recorded(self, class_of: ClassOf) -> list[Recorded]:
        """The events with their envelopes, in position order."""
        return [Recorded(self.envelope, i, data) for i, data in enumerate(self.events(class_of))]

    def rows(self) -> list[Row]:
        """The events in stored form, in position order; the batch must have been read with its whole envelope."""
        found: list[Row] = []
        for table in self.tables:
            envelope = {name: getattr(EnvelopeLists(table), name) for name in ENVELOPE_NAMES}
            envelope["tags"] = [tuple(tags or ()) for tags in envelope["tags"]]
            payload = {column: stored_column(table, column) for column in payload_columns(table)}
            nothing = [None] * len(table)
            columns_of = {
                key: [payload.get(column, nothing) for column in schema_of(self.schemas, key).columns]
                for key in set(zip(envelope["type"], envelope["schema_version"], strict=True))
            }
            for i, values in enumerate(zip(*envelope.values(), strict=True)):
                named = dict(zip(envelope, values, strict=True))
                columns = columns_of[named["type"], named["schema_version"]]
                found.append(Row(**named, payload=tuple(column[i] for column in columns)))
        return sorted(found, key=lambda row: row.position)

    def split(self, size: int) -> Iterator[Batch]:
        """The same events, at most `size` at a time."""
        if len(self) <= size:
            yield self
            return
        edges = self.envelope_table.column("position").to_numpy()[size - 1 :: size].tolist()
        low = 0
        for high in [*edges, None]:
            tables = tuple(t for t in (_between(t, low, high) for t in self.tables) if len(t))
            if tables:
                yield Batch(tables, self.schemas)
            low = high or 0


def _between(table: pa.Table, after: int, until: int | None) -> pa.Table:
    """The rows with `after` < position ≤ `until` of a table in position order."""
    positions = table.column("position").to_numpy()
    low = int(np.searchsorted(positions, after, "right"))
    high = len(positions) if until is None else int(np.searchsorted(positions, until, "right"))
    return table if low == 0 and high == len(positions) else table.slice(low, max(0, high - low))


class RowEnvelope:
    """The envelope columns of some rows, each made when it is first asked for."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self._rows = rows

    def __getattr__(self, name: str) -> list[Any]:
        if name not in ENVELOPE_NAMES:
            raise AttributeError(name)
        values = [getattr(row, name) for row in self._rows]
        if name == "tags":
            values = list(map(list, values))
        setattr(self, name, values)
        return values


class RowBatch(Batch):
    """A few rows of one category in position order, without columns in between: what one stream's hot events are."""

    _rows: Sequence[Row]

    def __init__(self, rows: Sequence[Row], schemas: Mapping[tuple[str, int], Schema]) -> None:
        object.__setattr__(self, "_rows", rows)
        object.__setattr__(self, "schemas", schemas)
        object.__setattr__(self, "envelope", RowEnvelope(rows))
        object.__setattr__(self, "sealed", False)

    def __len__(self) -> int:
        return len(self._rows)

    @cached_property
    def tables(self) -> tuple[pa.Table, ...]:
        return (rows_to_table(self._rows, self.schemas),)

    def events(self, class_of: ClassOf) -> list[Any]:
        """The payloads in order, as those of any batch."""
        rows = self._rows
        keys = [(row.type, row.schema_version) for row in rows]
        found = _one_by_one(keys, lambda i, key: rows[i].payload, self.schemas, class_of)
        return self._by_type(class_of) if found is None else found

    def _by_type(self, class_of: ClassOf) -> list[Any]:
        out: list[Any] = [None] * len(self._rows)
        of_type: dict[tuple[str, int], list[int]] = {}
        for i, row in enumerate(self._rows):
            of_type.setdefault((row.type, row.schema_version), []).append(i)
        for key, places in of_type.items():
            kind = class_of(key[0])
            if kind == IGNORED:
                continue
            schema, rows = schema_of(self.schemas, key), [self._rows[i] for i in places]
            columns = refuse_misfit(schema, rows)
            positions = [row.position for row in rows]
            for i, event in zip(places, decoded_events(kind, schema, columns, positions), strict=True):
                out[i] = event
        return out

    def rows(self) -> list[Row]:
        """The rows themselves."""
        return list(self._rows)

    def split(self, size: int) -> Iterator[Batch]:
        """The same events, at most `size` at a time."""
        for low in range(0, len(self._rows), size):
            yield RowBatch(self._rows[low : low + size], self.schemas)


def _one_by_one(
    keys: Sequence[tuple[str, int]],
    payload: Callable[[int, tuple[str, int]], Sequence[Any]],
    schemas: Mapping[tuple[str, int], Schema],
    class_of: ClassOf,
) -> list[Any] | None:
    """A few events, each from its payload; None where only columns will do, which also say what is wrong, and where."""
    readers: dict[tuple[str, int], Callable[[Sequence[Any]], Any] | None] = {}
    found = []
    for i, key in enumerate(keys):
        if key not in readers:
            kind = class_of(key[0])
            steps = tuple(kind.upcasters) if isinstance(kind, EventType) else ()
            readers[key] = _reader(kind, schemas.get(key), steps)
        read = readers[key]
        if read is None:
            return None
        try:
            found.append(read(payload(i, key)))
        except Exception:
            return None
    return found


@functools.lru_cache(1_000)
def _reader(kind: Any, schema: Schema | None, upcast_from: tuple[int, ...]) -> Callable[[Sequence[Any]], Any] | None:
    """Makes an event of one payload, quicker than by columns where there are few; None where only columns will do."""
    if kind == IGNORED:
        return _nothing
    fields = kind.plain_fields(schema) if isinstance(kind, EventType) and schema is not None else None
    types = [python_type(leaf.tag) for _, leaf, _ in fields or ()]
    if fields is None or schema is None or None in types:
        return None
    count, cls = len(schema.columns), kind.cls
    steps = [(at, of, field.decode) for (at, _, field), of in zip(fields, types, strict=True)]

    def read(payload: Sequence[Any]) -> Any:
        if len(payload) != count:
            raise ValueError(payload)
        values = []
        for at, of, decode in steps:
            value = payload[at]
            if value is not None and value.__class__ is not of:
                raise TypeError(value)
            values.append(decode(value))
        return cls(*values)

    return read


def _nothing(payload: Sequence[Any]) -> None:
    """What a fold sees of a type that it does not look at."""


def schema_of(schemas: Mapping[tuple[str, int], Schema], key: tuple[str, int]) -> Schema:
    """The schema of a stored type and version; `Damaged` where the catalog does not know it."""
    schema = schemas.get(key)
    if schema is None:
        raise Damaged(f"the log holds {key[0]} version {key[1]}, which the catalog does not know", hint="eventlab verify")
    return schema


def decoded_events(kind: EventType | None, schema: Schema, columns: Sequence[list[Any]], positions: Sequence[int]) -> list[Any]:
    """Events of a class, or dicts of plain values where there is none, from one list of stored values a leaf.

    `Damaged`, with the position, where a value cannot be one of its type.
    """
    count = len(positions)
    try:
        if kind is None:
            return plain_payloads(schema, columns, count)
        # A stored version without fields still says how many events there are.
        return kind.decode(schema, columns or [[None] * count]) if count else []
    except UpcastFailed as why:
        at = why.facts["at"]
        raise UpcastFailed(
            f"{why.message} (position {positions[at]})", hint=why.hint, **{**why.facts, "position": int(positions[at])}
        ) from why.__cause__
    except EventlabError:
        raise
    except Exception as why:
        # A class may have a mind of its own; it is damage where the value could not be read without one either.
        for leaf, values in zip(schema.leaves, columns, strict=True):
            for position, value in zip(positions, values, strict=True):
                if not _reads(leaf.tag, value):
                    raise not_its_type(position, schema.name, f"{value!r:.60} in {leaf.column}") from why
        raise


def _reads(tag: str, value: Any) -> bool:
    try:
        back_of(tag)(value) if value is not None else None
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError):
        return False
    return True


def _decoded(
    table: pa.Table, schemas: Mapping[tuple[str, int], Schema], class_of: ClassOf
) -> Iterator[tuple[np.ndarray[Any, Any] | None, Any]]:
    """For each type and schema version in a table: which rows it has, and their payloads."""
    types = table.column("type").combine_chunks().dictionary_encode()
    names, codes = types.dictionary.to_pylist(), types.indices.to_numpy()
    versions = table.column("schema_version").to_numpy()
    for code, name in enumerate(names):
        of_type = codes == code
        kind = class_of(name)
        if kind == IGNORED:
            continue
        for version in np.unique(versions[of_type]).tolist():
            mask = of_type & (versions == version)
            at = None if mask.all() else np.flatnonzero(mask)
            schema = schema_of(schemas, (name, version))
            # Only this type's columns are gathered; `position` keeps the number of rows where it has none.
            own = table.select([c for c in table.column_names if c == "position" or c in schema.columns])
            part = own if at is None else own.take(pa.array(at))
            columns = [stored_column(part, column) for column in schema.columns]
            yield at, _objects(decoded_events(kind, schema, columns, part.column("position").to_numpy()))


def _objects(values: list[Any]) -> np.ndarray[Any, Any]:
    out = np.empty(len(values), dtype=object)
    out[:] = values
    return out


def plain_payloads(schema: Schema, columns: Sequence[list[Any]], count: int) -> list[dict[str, Any]]:
    """Payloads as dicts of plain values, for a type that has no class here; `addr.city` becomes a dict in a dict."""
    payloads: list[dict[str, Any]] = [{} for _ in range(count)]
    for leaf, values in zip(schema.leaves, columns, strict=True):
        if leaf.tag == "p":
            continue
        back = back_of(leaf.tag)
        *outer, last = leaf.path.split(".")
        for payload, value in zip(payloads, values, strict=True):
            for part in outer:
                payload = payload.setdefault(part, {})
            payload[last] = None if value is None else back(value)
    return payloads


# -- filters over tables ---------------------------------------------------------------------------------------------------


def picked(table: pa.Table, category: str, filter: Filter) -> pa.Table:
    """The rows of a category's table that a filter picks."""
    masks = [mask for clause in filter.clauses if (mask := _clause_mask(table, category, clause)) is not None]
    if not masks:
        return table.slice(0, 0)
    if any(mask is True for mask in masks):
        return table
    whole = masks[0]
    for mask in masks[1:]:
        whole = pc.or_(whole, mask)
    return table.filter(whole)


def _clause_mask(table: pa.Table, category: str, clause: Clause) -> Any:
    """A mask, True for every row, or None for no row."""
    if clause.categories is not None and category not in clause.categories:
        return None
    parts = []
    if clause.types is not None:
        parts.append(pc.is_in(table.column("type"), pa.array(sorted(clause.types), pa.string())))
    if clause.streams is not None:
        parts.append(pc.is_in(table.column("stream"), pa.array(sorted(clause.streams), pa.string())))
    if clause.tags:
        tags = table.column("tags").combine_chunks()
        parents, flat = pc.list_parent_indices(tags).to_numpy(), pc.list_flatten(tags)
        for tag in sorted(clause.tags):
            mask = np.zeros(len(table), bool)
            mask[parents[pc.equal(flat, tag).to_numpy(zero_copy_only=False)]] = True
            parts.append(pa.array(mask))
    if not parts:
        return True
    whole = parts[0]
    for part in parts[1:]:
        whole = pc.and_(whole, part)
    return whole


def needed_columns(
    filter: Filter, types: Collection[str] | None, schemas: Mapping[tuple[str, int], Schema]
) -> frozenset[str] | None:
    """The payload columns of `types`, or else of the types a filter asks for; None for all."""
    if types is None:
        named = [clause.types for clause in filter.clauses]
        if None in named:
            return None
        types = frozenset().union(*(some for some in named if some is not None))
    return frozenset(column for key, schema in schemas.items() if key[0] in types for column in schema.columns)


def needed_envelope(filter: Filter, envelope: Sequence[str]) -> list[str]:
    """The envelope columns to read: those asked for, and those the filter looks at, in their order."""
    wanted = {*envelope, "position", "type", "schema_version", "stream"}
    if any(clause.tags for clause in filter.clauses):
        wanted.add("tags")
    return [name for name in ENVELOPE_NAMES if name in wanted]
