"""Ingest: rows that people already have become events of the log.

Several sources are checked whole, merged into one order by time, and written in chunks, each all or nothing. What was
written stays written: a repeated ingest of the same source goes on where it stopped, or adds nothing.
"""

from __future__ import annotations

import hashlib
import string
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import polars as pl
import pyarrow as pa

from eventlab.errors import IngestRefused, InvalidName, InvalidValue, SchemaConflict, SourceMissing
from eventlab.integration.convert import moments, refuse_rows, stored_series, tag_of_type
from eventlab.model.events import EventType, event_type
from eventlab.model.meta import Context
from eventlab.model.names import MAX_NAME_BYTES, check_distinct, check_type_name, split_stream
from eventlab.model.schema import Schema
from eventlab.model.types import Leaf
from eventlab.store.base import Chunk, Store
from eventlab.store.columns import codec
from eventlab.store.schemas import unknown
from eventlab.temporal.reader import Bar

CHUNK_ROWS: Final = 250_000


@dataclass(frozen=True)
class Rows:
    """One source of an ingest: a frame or file whose rows are events of one type; made by `rows`."""

    type: type[Any] | str
    data: Any
    stream: str
    occurred_at: str | None = None
    tz: str | None = None
    fields: Mapping[str, str] | None = None
    nulls: Sequence[str] = ()
    zones: Mapping[str, str] | None = None
    tags: Sequence[str] = ()
    event_id: str | None = None


def rows(
    type: type[Any] | str,
    data: Any,
    *,
    stream: str,
    occurred_at: str | None = None,
    tz: str | None = None,
    fields: Mapping[str, str] | None = None,
    nulls: Sequence[str] = (),
    zones: Mapping[str, str] | None = None,
    tags: Sequence[str] = (),
    event_id: str | None = None,
) -> Rows:
    """Say how the rows of a frame or file become events.

    `type` is an event class, or a name for a type that has none. `stream` is a template over columns: `"flight-{id}"`.
    `occurred_at` names the column of business time; `tz` is the zone of wall clocks, `zones` that of single columns.
    `fields` maps an event's field to the column that holds it (default: the same name). `nulls` are spellings of nothing.
    """
    return Rows(type, data, stream, occurred_at, tz, fields, nulls, zones, tags, event_id)


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


@dataclass(frozen=True)
class Prepared:
    """A source whose every row was checked: streams, times, ids and tags, and the payload in stored columns."""

    schema: Schema
    category: str
    where: str
    streams: pl.Series
    times: pl.Series | None
    ids: pl.Series | None
    tags: pl.Series | None
    payload: pl.DataFrame

    def __len__(self) -> int:
        return len(self.streams)


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
    unknown((part.schema for part in parts), store.cut().schemas)
    imported = recorded_at == "occurred_at"
    order, times = _order(parts, imported)
    done = store.chunks(tenant, source)
    _refuse_early(store, source, imported, times[order] if times is not None else None, done)
    added = already = 0
    first = last = 0
    starts = np.cumsum([0, *map(len, parts)])
    for number, low in enumerate(range(0, max(len(order), 1), CHUNK_ROWS)):
        picked = order[low : low + CHUNK_ROWS]
        if not len(picked):
            break
        chunk = _chunk(parts, starts, picked, low, source=source, number=number, imported=imported, context=context)
        before = done.get(number)
        if before is not None:
            _refuse_changed(source, number, before.rows, before.digest, chunk)
            state = before
            already += before.rows
        else:
            state = store.ingest(chunk, tenant=tenant)
            added += state.rows
        first, last = first or state.first, state.last
        bar.advance(len(picked))
    _refuse_shorter(source, done, len(order))
    by_type: dict[str, int] = {}
    for part in parts:
        by_type[part.schema.name] = by_type.get(part.schema.name, 0) + len(part)
    return Ingested(source, added, already, by_type, first, last, time.perf_counter() - started)


# -- one source ------------------------------------------------------------------------------------------------------------


def prepare(part: Rows) -> Prepared:
    """Read a source and check all of it; nothing is stored."""
    kind = event_type(part.type) if isinstance(part.type, type) else None
    name = kind.name if kind is not None else check_type_name(str(part.type))
    frame, what = _read(part.data)
    where = f"{name} from {what}"
    for spelling in part.nulls:
        frame = frame.with_columns(pl.col(pl.String).replace({spelling: None}))
    streams = _streams(frame, part.stream, where)
    times = None
    if part.occurred_at is not None:
        times = moments(_column(frame, part.occurred_at, where), where, _zone(part, part.occurred_at))
        refuse_rows(times, times.is_null(), where, part.occurred_at, "is missing: every event has its time")
    ids = None
    if part.event_id is not None:
        ids = stored_series(_column(frame, part.event_id, where), "uuid", where, None)
        refuse_rows(ids, ids.is_null() | ids.is_duplicated(), where, part.event_id, "is missing or occurs twice")
    schema, payload = _of_class(kind, frame, part, where) if kind is not None else _of_frame(name, frame, part, where)
    return Prepared(schema, split_stream(part.stream)[0], where, streams, times, ids, _tags(kind, frame, part, where), payload)


def _read(data: Any) -> tuple[pl.DataFrame, str]:
    """A frame from what was given, and what to call it in an error."""
    if isinstance(data, pl.LazyFrame):
        return data.collect(), "a frame"
    if isinstance(data, pl.DataFrame):
        return data, "a frame"
    if isinstance(data, (str, Path)):
        path = Path(data).expanduser()
        if not path.exists():
            raise SourceMissing(f"there is no file {path}", hint="check the path", path=str(path))
        suffix = path.suffix.lower()
        try:
            if suffix == ".parquet":
                return pl.read_parquet(path), path.name
            if suffix in (".jsonl", ".ndjson"):
                return pl.read_ndjson(path, infer_schema_length=None), path.name
            if suffix in (".csv", ".tsv"):
                # Text first: the declared types say what a column means, not a guess over its first rows.
                return pl.read_csv(path, infer_schema=False, separator="\t" if suffix == ".tsv" else ","), path.name
        except (pl.exceptions.PolarsError, OSError) as why:
            raise IngestRefused(f"{path} cannot be read: {why}", hint="nothing was stored", path=str(path)) from None
        raise IngestRefused(
            f"{path}: files of type {suffix or 'no type'} are not read", hint=".parquet, .csv, .tsv, .jsonl", path=str(path)
        )
    if hasattr(data, "__arrow_c_stream__") or isinstance(data, pa.Table):
        frame = pl.from_arrow(pa.table(data))
        assert isinstance(frame, pl.DataFrame)
        return frame, "a frame"
    raise IngestRefused(
        f"{data.__class__.__name__} holds no rows", hint="a Polars, Arrow or pandas frame, or a .parquet, .csv or .jsonl file"
    )


def _column(frame: pl.DataFrame, name: str, where: str) -> pl.Series:
    if name not in frame.columns:
        raise IngestRefused(
            f"{where}: there is no column {name!r}",
            hint=f"it has {', '.join(frame.columns[:12])}{', …' if len(frame.columns) > 12 else ''}; fields={{'field': 'column'}} maps names",
            column=name,
        )
    return frame[name]


def _zone(part: Rows, column: str) -> str | None:
    return (part.zones or {}).get(column, part.tz)


def _streams(frame: pl.DataFrame, template: str, where: str) -> pl.Series:
    """The stream of each row, from a template over its columns."""
    try:
        pieces = list(string.Formatter().parse(template))
    except ValueError as why:
        raise InvalidName(f"stream={template!r}: {why}", hint="for example 'flight-{id}'") from None
    split_stream("".join(text + ("x" if name is not None else "") for text, name, _, _ in pieces))
    if "-" not in pieces[0][0]:
        raise InvalidName(
            f"stream={template!r}: the category, before the first dash, cannot come from a column", hint="'flight-{id}'"
        )
    parts: list[pl.Expr] = []
    for text, name, _, _ in pieces:
        if text:
            parts.append(pl.lit(text))
        if name is not None:
            column = _column(frame, name, where)
            refuse_rows(column, column.is_null(), where, name, "is missing, and it names the stream")
            parts.append(pl.col(name).dt.to_string("%Y-%m-%d") if column.dtype == pl.Date else pl.col(name).cast(pl.String))
    streams = frame.select(pl.concat_str(parts).alias("stream"))["stream"]
    if len(streams) != len(frame):  # a template without columns
        streams = pl.Series("stream", [template] * len(frame))
    bad = (
        (streams.str.len_bytes() > MAX_NAME_BYTES) | streams.str.contains(r"[\x00-\x1f\x7f]") | streams.str.contains(r"^[^-]*-$")
    )
    refuse_rows(streams, bad, where, "stream", "cannot name a stream")
    return streams


def _of_class(kind: EventType, frame: pl.DataFrame, part: Rows, where: str) -> tuple[Schema, pl.DataFrame]:
    """The payload columns of an event class."""
    mapped = part.fields or {}
    for field in mapped:
        if field not in dict(kind.fields):
            raise IngestRefused(
                f"{where}: {kind.name} has no field {field!r}", hint=f"it has {', '.join(n for n, _ in kind.fields)}"
            )
    columns: dict[str, pl.Series] = {}
    for field, of in kind.fields:
        name = mapped.get(field, field)
        leaves = of.leaves(field)
        if len(leaves) > 1 or leaves[0].path != field:
            columns |= _by_objects(kind, field, of, _column(frame, name, where), where)
            continue
        if name not in frame.columns and field in kind._defaults and field not in mapped:
            default = of.encode(kind._default(field, kind.schema), f"{kind.name}.{field}")
            columns[leaves[0].column] = pl.Series(pl.from_arrow(codec(of.tag).to_array([default] * len(frame))))
            continue
        given = _column(frame, name, where)
        series = stored_series(given, of.tag, where, _zone(part, name))
        if not of.nullable:
            refuse_rows(given, series.is_null(), where, name, f"is missing, and {kind.name}.{field} is declared {of.declared}")
        _check_domain(of, given, series, where, name)
        columns[leaves[0].column] = series
    return kind.schema, pl.DataFrame([series.rename(column) for column, series in columns.items()])


def _check_domain(of: Any, given: pl.Series, series: pl.Series, where: str, name: str) -> None:
    """What a type's check refuses beyond its stored type: closed sets, NaN, half surrogates."""
    if of.tag == "f64" and of.declared != "AnyFloat":
        refuse_rows(
            given, (~series.is_finite()).fill_null(False), where, name, "is not a finite number, and the field is no el.AnyFloat"
        )
    elif of.tag in ("s", "i64") and of.declared not in ("str", "int"):
        known: set[Any] = set()
        for value in series.unique().drop_nulls().to_list():
            try:
                of.encode(of.decode(value), name)
                known.add(value)
            except (InvalidValue, SchemaConflict, Exception):
                continue
        refuse_rows(given, series.is_not_null() & ~series.is_in(list(known)), where, name, f"is not in {of.declared}")
    elif of.tag in ("dec", "json"):
        for row, value in enumerate(series.to_list()):
            try:
                of.decode(value)
            except Exception:
                refuse_rows(given, pl.Series([i == row for i in range(len(given))]), where, name, f"is not {of.declared}")


def _by_objects(kind: EventType, field: str, of: Any, series: pl.Series, where: str) -> dict[str, pl.Series]:
    """A nested dataclass from a struct column, value by value."""
    out: list[list[Any]] = [[] for _ in of.leaves(field)]
    for row, value in enumerate(series.to_list()):
        try:
            made = None if value is None else of.cls(**value)
            leaf_values: list[Any] = []
            of.put(made, f"{kind.name}.{field}", leaf_values)
        except (InvalidValue, TypeError) as why:
            raise IngestRefused(
                f"{where}: row {row + 1:,}, column {series.name!r}: {why}",
                hint="nothing was stored",
                row=row + 1,
                column=series.name,
            ) from None
        for values, leaf_value in zip(out, leaf_values, strict=True):
            values.append(leaf_value)
    return {
        leaf.column: pl.Series(pl.from_arrow(codec(leaf.tag).to_array(values)))
        for leaf, values in zip(of.leaves(field), out, strict=True)
    }


def _of_frame(name: str, frame: pl.DataFrame, part: Rows, where: str) -> tuple[Schema, pl.DataFrame]:
    """The payload columns of a type without a class: what the frame holds."""
    mapped = dict(part.fields) if part.fields is not None else {
        column: column for column in frame.columns if column not in (part.occurred_at, part.event_id)
    }  # fmt: skip
    check_distinct(list(mapped), where)
    leaves, columns = [], []
    for field, column in mapped.items():
        if not field.isidentifier() or field.startswith("_"):
            raise IngestRefused(
                f"{where}: {field!r} cannot name a field", hint=f"fields={{'a_name': {field!r}}} renames it", column=column
            )
        series = _column(frame, column, where)
        tag = tag_of_type(series.dtype, where, column)
        leaves.append(Leaf(field, tag))
        columns.append(stored_series(series, tag, where, _zone(part, column)).rename(Leaf(field, tag).column))
    schema = Schema(
        name, 1, tuple(leaf.column for leaf in leaves), tuple(f"{leaf.path}: {leaf.tag}" for leaf in leaves), "", "ingest"
    )
    return schema, pl.DataFrame(columns)


def _tags(kind: EventType | None, frame: pl.DataFrame, part: Rows, where: str) -> pl.Series | None:
    """Tags of the fields declared `Tag[...]`, and the constant ones."""
    mapped = part.fields or {}
    parts = [pl.lit(text) for text in part.tags]
    for field in kind.tag_fields if kind is not None else ():
        column = mapped.get(field, field)
        _column(frame, column, where)
        parts.append(pl.concat_str([pl.lit(f"{field}:"), pl.col(column).cast(pl.String)]))
    if not parts or not len(frame):
        return None
    return frame.select(pl.concat_list(parts).list.drop_nulls().alias("tags"))["tags"]


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


def _chunk(
    parts: Sequence[Prepared], starts: np.ndarray[Any, Any], picked: np.ndarray[Any, Any], low: int, *,
    source: str, number: int, imported: bool, context: Context,
) -> Chunk:  # fmt: skip
    """The rows at these places of the whole order, as one table a category."""
    tables: dict[str, list[pa.Table]] = {}
    digest = hashlib.blake2b(digest_size=16)
    for i, part in enumerate(parts):
        offsets = np.flatnonzero((picked >= starts[i]) & (picked < starts[i + 1]))
        if len(offsets):
            table = _table(part, picked[offsets] - starts[i], offsets, source, int(starts[i]), imported, context)
            # What the rows say; not the ids, nor the time of an ingest that has none of its own.
            said = table.drop_columns(["event_id"] if part.times is not None else ["event_id", "occurred_at"])
            for batch in said.combine_chunks().to_batches():
                digest.update(batch.serialize())
            tables.setdefault(part.category, []).append(table)
    whole = {
        category: pa.concat_tables(some, promote_options="default").sort_by("offset").combine_chunks()
        for category, some in tables.items()
    }
    schemas = tuple({part.schema.key: part.schema for part in parts}.values())
    stamp = f"{pa.__version__}|".encode() + digest.digest()
    return Chunk(source, number, stamp, len(picked), whole, schemas, imported)


def _table(
    part: Prepared,
    at: np.ndarray[Any, Any],
    offsets: np.ndarray[Any, Any],
    source: str,
    start: int,
    imported: bool,
    context: Context,
) -> pa.Table:
    """Some rows of one source, with the envelope but for what the log decides."""
    count = len(at)
    index = pl.Series(at)
    times = part.times.gather(index).to_physical().to_numpy() if part.times is not None else None
    now = time.time_ns() // 1000
    occurred = pa.array(times if times is not None else np.full(count, now), pa.int64()).view(pa.timestamp("us", "UTC"))
    ids = part.ids.gather(index).to_list() if part.ids is not None else None
    arrays: dict[str, Any] = {
        "offset": pa.array(offsets, pa.int64()),
        "stream": part.streams.gather(index).to_arrow().cast(pa.string()),
        "type": pa.repeat(pa.scalar(part.schema.name), count),
        "schema_version": pa.repeat(pa.scalar(part.schema.version, pa.int16()), count),
        "event_id": pa.array(ids, pa.binary(16)) if ids is not None else _row_ids(source, at + start, occurred),
        "occurred_at": occurred,
        "correlation_id": _constant(context.correlation_id and context.correlation_id.bytes, pa.binary(16), count),
        "causation_id": _constant(context.causation_id and context.causation_id.bytes, pa.binary(16), count),
        "actor": _constant(context.actor, pa.string(), count),
        "tags": part.tags.gather(index).to_arrow().cast(pa.list_(pa.string())) if part.tags is not None else _no_tags(count),
    }
    if imported:
        arrays["recorded_at"] = occurred
    payload = part.payload[index] if part.payload.width else part.payload
    for column in part.payload.columns:
        arrays[column] = payload[column].to_arrow().cast(codec(Leaf.parse(column).tag).arrow)
    return pa.table(arrays)


def _row_ids(source: str, numbers: np.ndarray[Any, Any], occurred: pa.Array) -> pa.Array:
    """Version 7 UUIDs of rows: their time, and bits mixed from the source and the row's number, the same every time.

    The mixing is splitmix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014), which maps
    different row numbers to different bits.
    """
    seed = int.from_bytes(hashlib.blake2b(source.encode(), digest_size=8).digest(), "little")
    with np.errstate(over="ignore"):
        z = np.uint64(seed) + numbers.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    raw = np.zeros((len(numbers), 16), np.uint8)
    milliseconds = np.maximum(occurred.view(pa.int64()).to_numpy() // 1000, 0).astype(">u8")
    raw[:, :6] = milliseconds.view(np.uint8).reshape(-1, 8)[:, 2:]
    raw[:, 6:14] = z.view(np.uint8).reshape(-1, 8)
    # All 64 mixed bits are kept: the six that version and variant overwrite move to the end.
    raw[:, 14] = raw[:, 6]
    raw[:, 15] = raw[:, 8]
    raw[:, 6] = (raw[:, 6] & 0x0F) | 0x70
    raw[:, 8] = (raw[:, 8] & 0x3F) | 0x80
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(16), len(numbers), [None, pa.py_buffer(raw.tobytes())])


def _constant(value: Any, kind: pa.DataType, count: int) -> pa.Array:
    return pa.repeat(pa.scalar(value, kind), count) if value is not None else pa.nulls(count, kind)


def _no_tags(count: int) -> pa.Array:
    return pa.ListArray.from_arrays(pa.array(np.zeros(count + 1, np.int32)), pa.array([], pa.string()))


def _refuse_early(store: Store, source: str, imported: bool, times: Any, done: Mapping[int, Any]) -> None:
    """Imported history may not begin before the store's last record: known then would no longer mean what it meant."""
    if not imported or times is None or not len(times):
        return
    first = int(times[min(len(done) * CHUNK_ROWS, len(times) - 1)])
    last = store.last_recorded()
    if len(done) * CHUNK_ROWS < len(times) and first < last:
        from_text, to_text = (pl.Series([v]).cast(pl.Datetime("us", "UTC"))[0].isoformat() for v in (first, last))
        raise IngestRefused(
            f"imported history of {source!r} begins at {from_text}, before the store's last record at {to_text}",
            hint="import history before live events, or into a store of its own, or leave recorded_at out",
            first=first,
            last=last,
        )


def _refuse_changed(source: str, number: int, rows: int, digest: bytes, chunk: Chunk) -> None:
    """A source that was ingested must be the same now; digests of another PyArrow are not compared."""
    comparable = digest.partition(b"|")[0] == chunk.digest.partition(b"|")[0]
    if rows != chunk.rows or (comparable and digest != chunk.digest):
        raise IngestRefused(
            f"source {source!r} was ingested before with other rows: chunk {number} ({rows:,} rows then, {chunk.rows:,} now) differs",
            hint="give the new rows a source name of their own; correct old ones with an event",
            source=source,
            chunk=number,
        )


def _refuse_shorter(source: str, done: Mapping[int, Any], rows: int) -> None:
    before = sum(state.rows for state in done.values())
    if before > rows:
        raise IngestRefused(
            f"source {source!r} was ingested before with {before:,} rows, and now has {rows:,}", hint="use another source name"
        )
