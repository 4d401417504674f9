"""Show: an event, a stream, a segment or the catalog as a person reads it, and where each of them lies.

It is for the moment when something is wrong, so it needs no classes, changes nothing, and looks at every part by itself:
what cannot be read is named among the `problems`, and the rest is shown all the same. A segment whose digest is wrong is
not opened: its bytes say nothing that can be trusted, and a damaged footer can end the process that reads it. A hot event
that is not as it was written is shown as far as it decodes, and said to be so. The answers (`shown`) are plain values.
"""

from __future__ import annotations

import sqlite3
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from eventlab.errors import Damaged, EventlabError, Refused, UnknownStream
from eventlab.model.schema import Schema
from eventlab.model.types import Leaf, back_of
from eventlab.store.base import Row, rows_of_record, unpack
from eventlab.store.columns import ENVELOPE, ENVELOPE_NAMES, stored_column
from eventlab.store.disk import DiskStore
from eventlab.store.files import file_digest
from eventlab.store.segment import bucket_of
from eventlab.store.shown import (
    RIGHT,
    WRONG,
    SegmentLine,
    ShownCatalog,
    ShownColumn,
    ShownEvent,
    ShownField,
    ShownGroup,
    ShownSegment,
    ShownSnapshot,
    ShownStream,
    ShownTable,
    StreamPart,
    TableCount,
)
from eventlab.store.tail import READ_COLUMNS, RUN_EVENTS, rows_of
from eventlab.store.words import IDS, UNREADABLE, readable, said, second_text, size_text, span, type_text

_TABLES: Final = {
    "log": "the log itself, in one row",
    "event": "hot events: not sealed yet, or sealed and not trimmed since",
    "event_key": "ids of the last events, by which a repeated append is known",
    "stream_head": "streams: version, first and last position",
    "segment": "files of sealed events: live ones, those being written, those replaced",
    "schema": "event types and versions: their stored columns",
    "type_use": "which types occur in which category of which tenant",
    "tenant": "tenants by number",
    "category": "categories by number",
    "import_chunk": "chunks of ingests that are in the log",
    "read_model": "bases of read models and their checkpoints",
    "read_model_query": "lifted queries of read models, for processes without their code",
    "inline_row": "rows of inline read models, as appends left them",
    "snapshot": "kept states of single streams; can be deleted",
    "handled": "commands that were handled under an id, and where their events are",
    "rejection": "the last commands that a model said no to",
    "lease": "who does which work now",
    "checkpoint": "how far each consumer has read",
    "reader": "leases: readers who hold files of earlier layouts",
}
_T = TypeVar("_T")


# -- an event --------------------------------------------------------------------------------------------------------------


def show_event(store: DiskStore, position: int) -> ShownEvent:
    """The event at a position, wherever it lies; `Refused` for a position that the log does not have."""
    return _steadily(store, lambda: _event(store, position))


def _event(store: DiskStore, position: int) -> ShownEvent:
    problems: list[str] = []
    with store.inspect() as catalog:
        head = _attempt(problems, "the row of the log", None, _whole, catalog, "SELECT head FROM log")
        if position < 1 or (head is not None and position > head):
            end = "the log is empty" if head == 0 else f"the log ends at {head:,}" if head else "the log's end cannot be read"
            raise Refused(f"there is no position {position:,}: {end}", hint="positions start at 1; eventlab events lists some")
        files = _live(catalog, store.root, position, position, problems)
        query = f"SELECT {READ_COLUMNS} FROM event WHERE position <= ? ORDER BY position DESC LIMIT 1"
        raw = None if files else _attempt(problems, "the hot event", None, _row, catalog, query, position)
        tenants = _names(catalog, "tenant", problems) if raw else {}
    if raw is not None and (raw[0] == position or (isinstance(raw[4], int) and position < raw[0] + raw[4])):
        return _hot_event(store, raw, position - raw[0], tenants, problems)
    for file in files:
        found = _attempt(problems, file.name, None, _row_at, file, position)
        if found is not None:
            group, row, table = found
            return _sealed_event(store, file, (group, row), table)
    unread = [str(file.number) for file in files if file.condition != RIGHT]
    where = f"in a segment that cannot be read: {', '.join(unread)}" if unread else "not known"
    if not unread:
        problems.append(f"no live segment and no hot row holds position {position:,}")
    return ShownEvent(position, where, None, None, None, "not known", {}, (), tuple(dict.fromkeys(problems)))


def _sealed_event(store: DiskStore, file: _File, at: tuple[int, int], table: pa.Table) -> ShownEvent:
    """A row of a sound segment; what is wrong with the others of its run is no problem of this event."""
    problems: list[str] = []
    envelope = {name: _cell(table, name) for name in ENVELOPE_NAMES}
    schema = _schema(store, envelope["type"], envelope["schema_version"], problems)
    # Without a schema: the columns that hold something.
    columns = [c for c in table.column_names if ":" in c and not table[c].null_count] if schema is None else schema.columns
    stored = {c: _attempt(problems, f"field {c}", [None], stored_column, table, c)[0] for c in columns}
    payload = tuple(_field(column, value, problems) for column, value in stored.items())
    where = f"{file.words}, row group {at[0]}, row {at[1]:,}"
    return ShownEvent(envelope["position"], where, file.name, *at, file.condition, envelope, payload, tuple(problems))


def _hot_event(
    store: DiskStore, raw: Sequence[Any], at: int, tenants: Mapping[int, str], problems: list[str]
) -> ShownEvent:
    """An event of a run, by its place there."""
    first, tenant, stream, version, count, event_id, record, _ = raw
    position = first + at
    right = _is_right(raw, tenants)
    if not right:
        those = "the event is not as it was" if count == 1 else f"the {count} events of its run are not as they were"
        problems.append(f"{those} written: no longer with the digest, or the place, that was kept with them")
    rows = _attempt(problems, "the record", [], rows_of_record, record)
    row = rows[at] if at < len(rows) else None
    # The catalog finds an event by what its own columns say.
    said = {"position": position, "stream": stream, "tenant": _name(tenants, tenant)}
    if at == 0:
        said |= {"version": version, "event_id": event_id}
    known = {**(row._asdict() if row is not None else {}), **said}
    envelope = {name: readable(name, known.get(name)) for name in ENVELOPE_NAMES}
    payload: list[ShownField] = []
    if row is not None:
        schema = _schema(store, row.type, row.schema_version, problems)
        columns = schema.columns if schema is not None else [f"value {i}:?" for i in range(1, len(row.payload) + 1)]
        if len(columns) != len(row.payload):
            problems.append(
                f"the payload has {len(row.payload)} values, where {row.type} version {row.schema_version} has {len(columns)}"
            )
        payload = [_field(column, value, problems) for column, value in zip(columns, row.payload, strict=False)]
    return ShownEvent(
        position, "hot: a row of catalog.sqlite", None, None, None, RIGHT if right else WRONG, envelope, tuple(payload),
        tuple(problems),
    )  # fmt: skip


def _is_right(raw: Sequence[Any], tenants: Mapping[int, str]) -> bool:
    """Whether a row of the hot tail is what was written."""
    with suppress(EventlabError, *UNREADABLE):
        rows_of(raw, tenants.__getitem__)
        return True
    return False


def _row_at(file: _File, position: int) -> tuple[int, int, pa.Table] | None:
    reader = file.reader()
    for group in range(reader.metadata.num_row_groups):
        low, high = _spans(reader.metadata.row_group(group), 0)
        if low is not None and not low <= position <= high:
            continue
        positions = reader.read_row_group(group, columns=["position"], use_threads=False).column(0).to_numpy()
        at = np.flatnonzero(positions == position)
        if len(at):
            return group, int(at[0]), reader.read_row_group(group, use_threads=False).slice(int(at[0]), 1)
    return None


# -- a stream --------------------------------------------------------------------------------------------------------------


def show_stream(store: DiskStore, stream: str, tenant: str | None = None) -> tuple[ShownStream, ...]:
    """A stream's head, where its events lie and its snapshots; one answer a tenant that has such a stream."""
    find = "SELECT version, first_position, last_position FROM stream_head WHERE tenant = ? AND stream = ?"
    problems: list[str] = []
    with store.inspect() as catalog:
        asked = [(number, name) for number, name in _names(catalog, "tenant", problems).items() if tenant in (None, name)]
        heads = [(*of, _attempt(problems, f"the head of {stream}", None, _whole, catalog, find, of[0], stream)) for of in asked]
        near = _attempt(problems, "the list of streams", [], _near, catalog, stream)
    known = [(number, name, head) for number, name, head in heads if head is not None]
    if not known:
        of = "" if tenant is None else f" of tenant {tenant!r}"
        hint = f"there is {', '.join(near)}" if near else "eventlab show --catalog lists tenants and categories"
        raise UnknownStream(f"there is no stream {stream!r}{of}", hint="; ".join(problems) or hint)

    def look(number: int, name: str, head: tuple[int, int, int]) -> ShownStream:
        return _steadily(store, lambda: _stream(store, stream, (number, name), head))

    return tuple(look(*one) for one in known)


def _near(catalog: sqlite3.Connection, stream: str) -> list[str]:
    """Some streams of the same category, those that come next first."""
    begin = f"{stream.partition('-')[0]}-"
    query = "SELECT DISTINCT stream FROM stream_head WHERE stream >= ? AND substr(stream, 1, ?) = ? LIMIT 3"
    found = [name for low in (stream, begin) for (name,) in catalog.execute(query, (low, len(begin), begin))]
    return [name for name in dict.fromkeys(found) if isinstance(name, str)][:3]


def _stream(store: DiskStore, stream: str, tenant: tuple[int, str], head: tuple[int, int, int]) -> ShownStream:
    problems: list[str] = []
    version, first, last = head
    with store.inspect() as catalog:
        files = _live(catalog, store.root, first, last, problems)
        hot = _attempt(problems, "the hot events", [], _hot_places, catalog, tenant, stream, files)
        kept = _snapshots(catalog, tenant[0], stream, version, problems)
    category = stream.partition("-")[0]
    mine = [
        file
        for file in files
        if (file.tenant, file.category) == (tenant[1], category)
        and (file.level == 0 or bucket_of(stream, file.buckets) == file.bucket)
    ]
    looked = [_attempt(problems, file.name, None, _part, file, stream) for file in mine]
    parts = sorted([*(part for part in looked if part is not None), *_hot_parts(hot)], key=lambda part: part.versions)
    problems += [f"hot position {span(part.positions)} is {part.digest}" for part in parts if part.digest != RIGHT]
    at = 0
    for part in parts:
        if part.versions[0] != at + 1 or part.events != part.versions[1] - at:
            problems.append(f"versions {span((at + 1, part.versions[1]))} are not there once each")
        at = max(at, part.versions[1])
    if at != version:
        problems.append(f"the catalog knows version {version:,}, and version {at:,} is the last that was found")
    return ShownStream(stream, tenant[1], version, first, last, tuple(parts), kept, tuple(dict.fromkeys(problems)))


def _part(file: _File, stream: str) -> StreamPart | None:
    """The events of a stream in one file."""
    reader = file.reader()
    groups, tables = [], []
    for group in range(reader.metadata.num_row_groups):
        low, high = _spans(reader.metadata.row_group(group), 1)
        if low is not None and not low <= stream <= high:
            continue
        mask = pc.equal(reader.read_row_group(group, columns=["stream"], use_threads=False).column(0), stream)
        if pc.any(mask).as_py():
            groups.append(group)
            tables.append(reader.read_row_group(group, columns=["version", "position"], use_threads=False).filter(mask))
    if not tables:
        return None
    table = pa.concat_tables(tables)
    ends = [pc.min_max(table.column(name)) for name in ("version", "position")]
    versions, positions = ((both["min"].as_py(), both["max"].as_py()) for both in ends)
    return StreamPart(versions, positions, len(table), file.words, file.name, tuple(groups), file.condition)


def _hot_places(
    catalog: sqlite3.Connection, tenant: tuple[int, str], stream: str, files: Sequence[_File]
) -> list[tuple[int, int, bool]]:
    """A stream's hot rows: version, position, and whether it is right; those that a live run covers are sealed already."""
    query = f"SELECT {READ_COLUMNS} FROM event WHERE tenant = ? AND stream = ? ORDER BY version"
    found = []
    for raw in catalog.execute(query, (tenant[0], stream)):
        position, version, count = raw[0], raw[3], raw[4]
        if not all(isinstance(number, int) for number in (position, version, count)):
            raise ValueError(f"{position!r} is no position, {version!r} no version, or {count!r} no number of events")
        if not any(file.first <= position <= file.last for file in files):
            right = _is_right(raw, dict([tenant]))
            # A count that is not what was written may be any.
            found += [(version + at, position + at, right) for at in range(count if right else min(max(count, 1), RUN_EVENTS))]
    return found


def _hot_parts(hot: Sequence[tuple[int, int, bool]]) -> Iterator[StreamPart]:
    """The hot events of a stream, those together that follow on one another and are alike."""
    low = 0
    for high in range(1, len(hot) + 1):
        if high == len(hot) or (hot[high][0], hot[high][2]) != (hot[high - 1][0] + 1, hot[low][2]):
            versions, positions = (hot[low][0], hot[high - 1][0]), (hot[low][1], hot[high - 1][1])
            digest = RIGHT if hot[low][2] else WRONG
            yield StreamPart(versions, positions, high - low, "hot: rows of catalog.sqlite", None, (), digest)
            low = high


def _snapshots(
    catalog: sqlite3.Connection, tenant: int, stream: str, version: int, problems: list[str]
) -> tuple[ShownSnapshot, ...]:
    query = "SELECT model, fingerprint, version, position, length(state) FROM snapshot WHERE tenant = ? AND stream = ?"
    rows = _rows(catalog, "the snapshots", f"{query} ORDER BY model", (tenant, stream), problems, texts=2)
    return tuple(ShownSnapshot(model, at, position, version - at, size, code) for model, code, at, position, size in rows)


# -- a segment -------------------------------------------------------------------------------------------------------------


def show_segment(store: DiskStore, named: str) -> ShownSegment:
    """A segment by its number, its file, or a part of its name that no other has."""
    problems: list[str] = []
    with store.inspect() as catalog:
        listed = _files(catalog, store.root, problems)
        # A part of a name may be all digits too, so a number is tried first, and then the names.
        found = [file for file in listed if named == str(file.number)]
        found = found or [file for file in listed if named in (file.name, file.path.name, str(file.path))]
        found = found or [file for file in listed if named and named in file.name]
    if not found:
        hint = "; ".join(problems) or "eventlab show --catalog lists them with their numbers"
        raise Refused(f"there is no segment {named!r}", hint=hint)
    if len(found) > 1:
        some = ", ".join(f"{file.number} ({file.name})" for file in found[:3])
        raise Refused(f"{len(found):,} segments have {named!r} in their names: {some}, …", hint="say which, by its number")
    (file,) = found
    problems = []
    pending = file.state == "pending"
    columns: tuple[ShownColumn, ...] = ()
    groups: tuple[ShownGroup, ...] = ()
    footer = None if pending else _attempt(problems, file.name, None, lambda: file.reader().metadata)
    if footer is not None:
        columns = _attempt(problems, "the columns", (), _columns, footer)
        groups = _attempt(problems, "the row groups", (), _groups, footer)
        if footer.num_rows != file.rows:
            problems.append(f"the footer says {footer.num_rows:,} events, and the catalog {file.rows:,}")
    return ShownSegment(
        file.number, file.name, file.about(time.time()), file.tenant, file.category, file.level, file.first, file.last,
        file.bucket, file.buckets, file.place, file.rows, file.bytes, "not known yet" if pending else file.condition, columns,
        groups, tuple(problems),
    )  # fmt: skip


def _columns(footer: pq.FileMetaData) -> tuple[ShownColumn, ...]:
    physical = [name for name in footer.schema.to_arrow_schema().names if ":" in name]
    found: dict[str, ShownColumn] = {}
    for group in range(footer.num_row_groups):
        for at in range(footer.num_columns):
            column = footer.row_group(group).column(at)
            path, statistics = column.path_in_schema, column.statistics
            of = next((name for name in physical if path == name or path.startswith(f"{name}.")), None)
            kind = str(ENVELOPE.field(path.partition(".")[0]).type) if of is None else type_text(Leaf.parse(of).tag)
            is_id = path in IDS or (of is not None and Leaf.parse(of).tag == "uuid")
            ends = _ends(statistics)
            low, high = (uuid.UUID(bytes=end) if is_id and isinstance(end, bytes) else end for end in ends)
            nulls = statistics.null_count if statistics is not None and statistics.has_null_count else 0
            # Runs of levels are in every column; what is left is how values are written.
            encodings = tuple(sorted(set(column.encodings) - {"RLE"})) or ("RLE",)
            new = ShownColumn(path, kind, column.total_compressed_size, encodings, nulls, low, high)
            found[path] = _both(found[path], new) if path in found else new
    return tuple(found.values())


def _both(one: ShownColumn, other: ShownColumn) -> ShownColumn:
    """A column over two row groups."""
    low = min((end for end in (one.low, other.low) if end is not None), default=None)
    high = max((end for end in (one.high, other.high) if end is not None), default=None)
    encodings = tuple(sorted({*one.encodings, *other.encodings}))
    return ShownColumn(one.name, one.type, one.bytes + other.bytes, encodings, one.nulls + other.nulls, low, high)


def _groups(footer: pq.FileMetaData) -> tuple[ShownGroup, ...]:
    found = []
    for number in range(footer.num_row_groups):
        group = footer.row_group(number)
        size = sum(group.column(at).total_compressed_size for at in range(group.num_columns))
        found.append(ShownGroup(number, group.num_rows, size, _spans(group, 0), _spans(group, 1)))
    return tuple(found)


# -- the catalog -----------------------------------------------------------------------------------------------------------


def show_catalog(store: DiskStore) -> ShownCatalog:
    """The catalog's tables and counts, the log's row, names, read models, leases, and every segment in words."""
    problems: list[str] = []
    now = time.time()
    with store.inspect() as catalog:
        listed = _attempt(problems, "the list of tables", list(_TABLES), _tables, catalog)
        order = {name: place for place, name in enumerate(_TABLES)}
        tables = []
        for name in sorted(listed, key=lambda name: (order.get(name, len(order)), name)):
            count = _attempt(problems, f"table {name}", None, _whole, catalog, f"SELECT count(*) FROM {_quoted(name)}")
            tables.append(TableCount(name, count, _TABLES.get(name, "")))
        log = _attempt(problems, "the row of the log", {}, _log_row, catalog)
        tenants, categories = _names(catalog, "tenant", problems), _names(catalog, "category", problems)
        models, leases = _read_models(catalog, problems), _leases(catalog, now, problems)
        files = _files(catalog, store.root, problems)
    path = store.root / "catalog.sqlite"
    size = sum(found.stat().st_size for found in (path, path.with_name("catalog.sqlite-wal")) if found.exists())
    segments = tuple(
        SegmentLine(file.number, file.state, file.tenant, file.category, file.place, file.rows, file.bytes, file.about(now))
        for file in files
    )
    return ShownCatalog(
        str(path), size, tuple(tables), log, tenants, categories, models, leases, segments, tuple(dict.fromkeys(problems))
    )


def show_table(store: DiskStore, table: str, *, where: Mapping[str, str] | None = None, limit: int = 20) -> ShownTable:
    """Rows of one table of the catalog; `where` gives columns and what they hold, as it is stored."""
    problems: list[str] = []
    asked = dict(where or {})
    with store.inspect() as catalog:
        known = _tables(catalog)
        if table not in known:
            raise Refused(f"the catalog has no table {table!r}", hint=f"one of {', '.join(sorted(known))}")
        columns = [row[1] for row in catalog.execute(f"PRAGMA table_info({_quoted(table)})").fetchall()]
        strange = [name for name in asked if name not in columns]
        if strange:
            raise Refused(f"table {table} has no column {strange[0]!r}", hint=f"one of {', '.join(columns)}")
        names = {of: _names(catalog, of, problems) for of in ("tenant", "category")}
        rest = f"FROM {_quoted(table)}"
        if asked:
            rest += " WHERE " + " AND ".join(f"CAST({_quoted(name)} AS TEXT) = ?" for name in asked)
        total = _attempt(problems, f"all of table {table}", 0, _whole, catalog, f"SELECT count(*) {rest}", *asked.values())
        raw: list[tuple[Any, ...]] = []
        # One at a time: the rows before a damaged page are shown.
        read = catalog.execute(f"SELECT * {rest} LIMIT ?", (*asked.values(), limit))
        _attempt(problems, f"some rows of table {table}", None, raw.extend, read)
    rows = tuple(_catalog_row(dict(zip(columns, row, strict=True)), names) for row in raw)
    return ShownTable(table, rows, max(total, len(rows)), tuple(dict.fromkeys(problems)))


def _catalog_row(row: Mapping[str, Any], names: Mapping[str, Mapping[int, str]]) -> dict[str, Any]:
    """A row with its values as a person knows them; in the place of a record, what it says besides the other columns."""
    found: dict[str, Any] = {}
    for name, value in row.items():
        said = {name: value}
        if name == "record":
            with suppress(EventlabError, *UNREADABLE):
                said = _said(rows_of_record(value), row)
        found |= {field: readable(field, of, names) for field, of in said.items()}
    return found


def _said(rows: Sequence[Row], row: Mapping[str, Any]) -> dict[str, Any]:
    """What a record says besides the other columns of its row: of one event each field, of several a list of what differs."""
    found = {}
    for field in Row._fields:
        if field not in row:
            values = [getattr(one, field) for one in rows]
            found[field] = values if len(rows) > 1 and (field == "payload" or values.count(values[0]) < len(rows)) else values[0]
    return found


def _tables(catalog: sqlite3.Connection) -> list[str]:
    found = catalog.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'").fetchall()
    return [name for (name,) in found if isinstance(name, str)]


def _log_row(catalog: sqlite3.Connection) -> dict[str, Any]:
    cursor = catalog.execute("SELECT * FROM log")
    row = cursor.fetchone()
    if row is None:
        raise LookupError("it is not there")
    return {name: readable(name, value) for (name, *_), value in zip(cursor.description, row, strict=True) if name != "id"}


def _read_models(catalog: sqlite3.Connection, problems: list[str]) -> tuple[str, ...]:
    query = "SELECT name, tenant, fingerprint, state, rows, position, parts FROM read_model ORDER BY name, tenant, fingerprint"
    return tuple(
        f"state.{name} of {f'tenant {tenant}' if tenant else 'all tenants'}: {count:,} rows as of position {position:,}, "
        f"{state}, made by {fingerprint[:8]}, {_files_text(parts)}"
        for name, tenant, fingerprint, state, count, position, parts in _rows(
            catalog, "the read models", query, (), problems, texts=4
        )
    )


def _files_text(parts: bytes) -> str:
    try:
        files = [(path, size) for path, _, _, size, _ in unpack(parts)]
        return f"{size_text(sum(size for _, size in files))}, {', '.join(path for path, _ in files)}"
    except UNREADABLE as why:
        return f"its files cannot be told: {said(why)}"


def _leases(catalog: sqlite3.Connection, now: float, problems: list[str]) -> tuple[str, ...]:
    query = "SELECT token, generation, until FROM reader ORDER BY until, token"
    return tuple(
        f"reader {token} keeps the files of layout {generation:,} until {second_text(until)}"
        if until >= now
        else f"reader {token} kept the files of layout {generation:,}; its lease ended at {second_text(until)}"
        for token, generation, until in _rows(catalog, "the leases", query, (), problems, texts=1)
    )


# -- files of the catalog --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _File:
    """A row of the segment table."""

    name: str
    digest: str
    state: str
    number: int
    path: Path
    tenant: str
    category: str
    level: int
    first: int
    last: int
    rows: int
    bytes: int
    lease: int
    bucket: int
    buckets: int

    @property
    def place(self) -> str:
        """The run of positions and, in an era, the bucket."""
        if self.level == 0:
            return f"level 0, positions {self.first:,} to {self.last:,} in order"
        return f"level {self.level}, era of positions {self.first:,} to {self.last:,}, bucket {self.bucket} of {self.buckets}"

    @property
    def words(self) -> str:
        return f"segment {self.number} ({self.place})"

    def about(self, now: float) -> str:
        """What the state of the segment means."""
        if self.state == "pending":
            if self.lease >= now:
                return f"being written, until {second_text(self.lease)} at the latest"
            return f"left over from a writer that died before {second_text(self.lease)}; eventlab gc deletes it"
        if self.state == "retired":
            return f"replaced by compaction at {second_text(self.lease)}; eventlab gc deletes it when no reader can need it"
        return "live: a part of the log"

    @cached_property
    def condition(self) -> str:
        """What its digest says of the file."""
        try:
            return RIGHT if file_digest(self.path) == self.digest else WRONG
        except FileNotFoundError:
            return "missing"
        except OSError as why:
            return f"unreadable ({why.strerror})"

    def reader(self) -> pq.ParquetFile:
        """The open file, if it is as it was written."""
        if self.condition != RIGHT:
            raise Damaged(f"it is {self.condition}")
        return pq.ParquetFile(self.path, memory_map=True)


def _files(
    catalog: sqlite3.Connection, root: Path, problems: list[str], where: str = "", given: Sequence[Any] = ()
) -> list[_File]:
    """Rows of the segment table, in the order of their runs."""
    tenants, categories = _names(catalog, "tenant", []), _names(catalog, "category", [])
    query = (
        "SELECT path, digest, state, id, tenant, category, level, run_first, run_last, rows, bytes, lease, bucket, buckets "
        f"FROM segment {where} ORDER BY run_first, id"
    )
    found = []
    for path, digest, state, number, tenant, category, *numbers in _rows(catalog, "segments", query, given, problems, texts=3):
        names = (_name(tenants, tenant), _name(categories, category))
        found.append(_File(path, digest, state, number, root / path, *names, *numbers))
    return found


def _live(catalog: sqlite3.Connection, root: Path, first: int, last: int, problems: list[str]) -> list[_File]:
    """The live segments of the runs that hold positions of a span."""
    where = "WHERE state = 'live' AND run_first <= ? AND run_last >= ?"
    return _files(catalog, root, problems, where, (last, first))


def _spans(group: pq.RowGroupMetaData, column: int) -> tuple[Any, Any]:
    """The least and greatest value of a column in a row group; None where its footer does not say."""
    return _ends(group.column(column).statistics)


def _ends(statistics: pq.Statistics | None) -> tuple[Any, Any]:
    return (statistics.min, statistics.max) if statistics is not None and statistics.has_min_max else (None, None)


# -- reading what may be damaged -------------------------------------------------------------------------------------------


def _attempt(problems: list[str], what: str, otherwise: Any, look: Callable[..., Any], *given: Any) -> Any:
    """What `look` gives; where that cannot be read it is a problem, and something else is given."""
    try:
        return look(*given)
    except UNREADABLE as why:
        problems.append(f"{what} cannot be read: {said(why)}")
        return otherwise


def _steadily(store: DiskStore, look: Callable[[], _T]) -> _T:
    """Look again where something could not be read and files were replaced by compaction meanwhile."""
    while True:
        before = _generation(store)
        found = look()
        if not getattr(found, "problems", ()) or _generation(store) == before:
            return found


def _generation(store: DiskStore) -> Any:
    with suppress(*UNREADABLE), store.inspect() as catalog:
        return _row(catalog, "SELECT generation FROM log")
    return None


def _row(catalog: sqlite3.Connection, query: str, *given: Any) -> Any:
    """The first row of an answer, or None."""
    return catalog.execute(query, given).fetchone()


def _whole(catalog: sqlite3.Connection, query: str, *given: Any) -> Any:
    """The first row of an answer in whole numbers, or None; the number itself where it has one."""
    row = _row(catalog, query, *given)
    if row is not None and not all(isinstance(value, int) for value in row):
        raise ValueError(f"{row!r} are not whole numbers")
    return row[0] if row is not None and len(row) == 1 else row


def _rows(
    catalog: sqlite3.Connection, what: str, query: str, given: Sequence[Any], problems: list[str], *, texts: int
) -> list[tuple[Any, ...]]:
    """Rows of so many texts, then whole numbers and bytes; others are damaged, and left out."""
    read: list[tuple[Any, ...]] = []
    _attempt(problems, what, None, lambda: read.extend(catalog.execute(query, given)))
    kinds = [all(isinstance(value, str if at < texts else (int, bytes)) for at, value in enumerate(row)) for row in read]
    problems += [f"{what}: a row of the catalog is damaged: {row!r}" for row, right in zip(read, kinds, strict=True) if not right]
    return [row for row, right in zip(read, kinds, strict=True) if right]


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _names(catalog: sqlite3.Connection, table: str, problems: list[str]) -> dict[int, str]:
    """The names that numbers stand for in the catalog."""
    query = f"SELECT id, name FROM {table} ORDER BY name"
    rows: list[tuple[Any, Any]] = []
    _attempt(problems, f"table {table}", None, lambda: rows.extend(catalog.execute(query)))
    return {number: name for number, name in rows if isinstance(number, int) and isinstance(name, str)}


def _name(names: Mapping[int, str], number: int) -> str:
    return names.get(number, f"number {number}, which has no name")


def _schema(store: DiskStore, kind: Any, version: Any, problems: list[str]) -> Schema | None:
    def look() -> Schema:
        found: Any
        with store.inspect() as catalog:
            found = _row(catalog, "SELECT json FROM schema WHERE name = ? AND version = ?", kind, version)
        if found is None:
            raise LookupError("the catalog does not have it")
        schema = Schema.from_json(found[0])
        if not all(isinstance(column, str) for column in schema.columns):
            raise ValueError("its columns have no names")
        return schema

    found: Schema | None = _attempt(problems, f"the schema of {kind} version {version}", None, look)
    return found


def _field(column: str, stored: Any, problems: list[str]) -> ShownField:
    """A stored value of a column as a person knows it; as it is stored where that cannot be told."""
    leaf = Leaf.parse(column)
    value = stored
    if stored is not None and leaf.tag != "?":
        value = _attempt(problems, f"field {leaf.path}", stored, lambda: back_of(leaf.tag)(stored))
    return ShownField(leaf.path, column, type_text(leaf.tag), value)


def _cell(table: pa.Table, name: str) -> Any:
    """One cell of the envelope of a table with one row."""
    column = table.column(name).combine_chunks()
    if pa.types.is_timestamp(column.type):
        column = column.view(pa.int64())
    return readable(name, column[0].as_py())
