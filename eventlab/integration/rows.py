"""Rows: what one source of an ingest says, read and checked as a whole before anything is stored."""

from __future__ import annotations

import functools
import operator
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from eventlab.errors import IngestRefused, InvalidName, InvalidValue
from eventlab.integration.convert import (
    UNFIT,
    loads,
    moments,
    refuse_rows,
    refuse_unfit,
    refused_value,
    stored_series,
    stored_value,
    tag_of_type,
)
from eventlab.integration.frames import read, typed
from eventlab.model.events import EventType, event_type
from eventlab.model.names import MAX_NAME_BYTES, check_distinct, check_plain, check_type_name, split_stream
from eventlab.model.schema import Schema
from eventlab.model.types import FieldType, Leaf, Record
from eventlab.replay.tables import uuid_text
from eventlab.store.base import MAX_PAYLOAD_BYTES, MAX_TAGS
from eventlab.store.columns import codec


@dataclass(frozen=True)
class Rows:
    """One source of an ingest: a frame or file whose rows are events of one type; made by `rows`."""

    type: type[Any] | str
    data: Any
    stream: str
    occurred_at: str | None = None
    tz: str | None = None
    fields: Mapping[str, str] | None = None
    nulls: Sequence[str] | Mapping[str, Sequence[str]] = ()
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
    nulls: Sequence[str] | Mapping[str, Sequence[str]] = (),
    zones: Mapping[str, str] | None = None,
    tags: Sequence[str] = (),
    event_id: str | None = None,
) -> Rows:
    """Say how the rows of a frame or file become events.

    `type` is an event class, or a name for a type that has none. `stream` is a template over columns: `"flight-{id}"`.
    `occurred_at` names the column of business time; `tz` is the zone of wall clocks, `zones` that of single columns.
    `fields` maps an event's field to the column that holds it (default: the same name). `nulls` are spellings of nothing,
    in every column or by column: `nulls=["NA"]`, `nulls={"delay": ["", "n/a"]}`. `event_id` names a column of ids of your own.

    Text is read as the field's type; lists, dicts and what may be anything come as JSON in text. A nested dataclass comes as a
    struct, as JSON, or as one column a field: `address.city`. Where that can only be done by rounding or guessing, or a value
    does not fit, `IngestRefused` names the row and the column, and nothing is stored.
    """
    return Rows(type, data, stream, occurred_at, tz, fields, nulls, zones, tags, event_id)


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


def prepare(part: Rows) -> Prepared:
    """Read a source and check all of it; nothing is stored."""
    kind = event_type(part.type) if isinstance(part.type, type) else None
    name = kind.name if kind is not None else check_type_name(str(part.type))
    frame, what = read(part.data)
    source = _with_nulls(_Source(part, frame, f"{name} from {what}"))
    where = source.where
    for column in part.zones or ():
        source.column(column)
    streams = _streams(source)
    times = ids = None
    if part.occurred_at is not None:
        given = source.column(part.occurred_at)
        times = moments(given, where, source.zone(part.occurred_at))
        refuse_rows(given, times.is_null(), where, part.occurred_at, "is missing: every event has its time")
    if part.event_id is not None:
        given = source.column(part.event_id)
        ids = stored_series(given, "uuid", where, None)
        refuse_rows(given, ids.is_null() | ids.is_duplicated(), where, part.event_id, "is missing or occurs twice")
    schema, payload = _of_class(kind, source) if kind is not None else _of_frame(name, source)
    _refuse_large(payload, where)
    tags = _tags(kind, source, payload)
    return Prepared(schema, split_stream(part.stream)[0], where, streams, times, ids, tags, payload)


@dataclass(frozen=True)
class _Source:
    """The rows of one source, and what to call them in an error."""

    part: Rows
    frame: pl.DataFrame
    where: str

    def __contains__(self, name: str) -> bool:
        return name in self.frame.columns

    def __len__(self) -> int:
        return len(self.frame)

    def column(self, name: str) -> pl.Series:
        if name not in self:
            names = self.frame.columns
            shown = f"it has {', '.join(names[:12])}{', …' if len(names) > 12 else ''}" if names else "it has no columns"
            hint = f"{shown}; fields={{'field': 'column'}} maps names"
            raise IngestRefused(f"{self.where}: there is no column {name!r}", hint=hint, column=name)
        return self.frame[name]

    def parts(self, name: str) -> list[pl.Series]:
        """The columns of a nested dataclass: `address.city`, `address.geo.lat`."""
        return [self.frame[column] for column in self.frame.columns if column.startswith(f"{name}.")]

    def zone(self, column: str) -> str | None:
        return (self.part.zones or {}).get(column, self.part.tz)


def _with_nulls(source: _Source) -> _Source:
    """The source with its spellings of nothing turned to nulls."""
    frame, nulls = source.frame, source.part.nulls
    by_column = nulls if isinstance(nulls, Mapping) else dict.fromkeys(frame.columns, nulls)
    for spellings in (nulls, *by_column.values()):
        if isinstance(spellings, str):
            raise InvalidValue(f"{spellings!r} is text, and each of its letters would be a null", hint=f"nulls=[{spellings!r}]")
        if not all(isinstance(spelling, str) for spelling in spellings):
            raise InvalidValue(f"nulls={nulls!r}: a spelling of nothing is text", hint="nulls=['NA', '-9']")
    for name, spellings in by_column.items():
        column = source.column(name)
        if spellings and column.dtype == pl.String:
            frame = frame.with_columns(pl.col(name).replace(dict.fromkeys(spellings)))
        elif spellings and column.dtype == pl.Object:
            values = [None if isinstance(value, str) and value in spellings else value for value in column.to_list()]
            frame = frame.with_columns(pl.Series(name, values, dtype=pl.Object))
    return replace(source, frame=frame)


def _streams(source: _Source) -> pl.Series:
    """The stream of each row, from a template over its columns."""
    template, where = source.part.stream, source.where
    pieces = _pieces(template)
    split_stream("".join(text + ("x" if name is not None else "") for text, name in pieces))
    if "-" not in pieces[0][0]:
        raise InvalidName(
            f"stream={template!r}: the category, before the first dash, cannot come from a column", hint="'flight-{id}'"
        )
    parts: list[pl.Expr] = []
    for text, name in pieces:
        if text:
            parts.append(pl.lit(text))
        if name is not None:
            column = source.column(name)
            refuse_rows(column, column.is_null(), where, name, "is missing, and it names the stream")
            if column.dtype == pl.String:
                # Before a name is made of it for every row.
                refuse_rows(column, column.str.len_bytes() > MAX_NAME_BYTES, where, name, "cannot name a stream: it is too long")
            if not (column.dtype.is_integer() or column.dtype in (pl.String, pl.Date, pl.Categorical, pl.Enum, pl.Null)):
                raise IngestRefused(
                    f"{where}: column {name!r} of type {column.dtype} names the stream", hint="cast it to text", column=name
                )
            parts.append(pl.col(name).dt.to_string("%Y-%m-%d") if column.dtype == pl.Date else pl.col(name).cast(pl.String))
    streams = source.frame.select(pl.concat_str(parts).alias("stream"))["stream"]
    if len(streams) != len(source):  # a template without columns
        streams = streams.new_from_index(0, len(source))
    nothing = pieces[0][0].split("-", 1)[0] + "-"  # a category, and no id
    refuse_rows(streams, _unplain(streams) | (streams == nothing), where, "stream", "cannot name a stream")
    return streams


def _pieces(template: str) -> list[tuple[str, str | None]]:
    """The parts of a template: text, and the column after it. What Python would take for a format belongs to the name.

    >>> _pieces("case-{case:concept:name}")
    [('case-', 'case:concept:name')]
    """
    try:
        parsed = list(string.Formatter().parse(template))
    except ValueError as why:
        raise InvalidName(f"stream={template!r}: {why}", hint="for example 'flight-{id}'") from None
    return [
        (text, None if name is None else f"{name}{'!' if conversion else ''}{conversion or ''}{':' if spec else ''}{spec}")
        for text, name, spec, conversion in parsed
    ]


def _unplain(texts: pl.Series) -> pl.Series:
    """Which texts cannot stand in a name."""
    long = texts.str.len_bytes() > MAX_NAME_BYTES
    # All bytes at once: no byte of a longer UTF-8 sequence is below 0x80.
    data = texts.to_arrow().cast(pa.large_string()).buffers()[2]
    codes = np.frombuffer(data, np.uint8) if data is not None else np.empty(0, np.uint8)
    if not ((codes < 0x20) | (codes == 0x7F)).any():
        return long
    return long | texts.str.contains(r"[\x00-\x1f\x7f]")


# -- payload ---------------------------------------------------------------------------------------------------------------


def _of_class(kind: EventType, source: _Source) -> tuple[Schema, pl.DataFrame]:
    """The payload columns of an event class."""
    mapped = source.part.fields or {}
    for field in mapped:
        if field not in dict(kind.fields):
            raise IngestRefused(
                f"{source.where}: {kind.name} has no field {field!r}", hint=f"it has {', '.join(n for n, _ in kind.fields)}"
            )
    columns: dict[str, pl.Series] = {}
    for field, of in kind.fields:
        name = mapped.get(field, field)
        there = name in source or field in mapped or (isinstance(of, Record) and source.parts(name))
        if there or not kind.has_default(field):
            columns |= _stored(of, field, name, source, f"{kind.name}.{field}")
        else:
            columns |= _default(of, field, kind.default(field), len(source))
    return kind.schema, pl.DataFrame([series.rename(column) for column, series in columns.items()])


def _default(of: FieldType, field: str, value: Any, count: int) -> dict[str, pl.Series]:
    """The stored columns of a field that the source does not have."""
    stored: list[Any] = []
    of.put(value, field, stored)
    leaves = zip(of.leaves(field), stored, strict=True)
    return {leaf.column: pl.Series(pl.from_arrow(codec(leaf.tag).to_array([value] * count))) for leaf, value in leaves}


def _stored(
    of: FieldType, field: str, name: str, source: _Source, path: str, within: pl.Series | None = None
) -> dict[str, pl.Series]:
    """The stored columns of a field; `within` are the rows whose nested dataclass, which holds the field, is not None."""
    if isinstance(of, Record):
        if name in source or not source.parts(name):
            return _by_value(of, field, source.column(name), source.where, within)
        return _by_part(of, field, name, source, path, within)
    given = source.column(name)
    stored = stored_series(given, of.tag, source.where, source.zone(name), of)
    if not of.nullable:
        missing = stored.is_null() if within is None else stored.is_null() & within
        refuse_rows(given, missing, source.where, name, f"is missing, and {path} is declared {of.declared}")
    return {of.leaves(field)[0].column: stored}


def _by_part(of: Record, field: str, name: str, source: _Source, path: str, within: pl.Series | None) -> dict[str, pl.Series]:
    """The stored columns of a nested dataclass that comes as one column a field: `address.city`.

    Where none of its columns says anything it is None, if it may be.
    """
    columns: dict[str, pl.Series] = {}
    if of.nullable:
        some = functools.reduce(operator.or_, [part.is_not_null() for part in source.parts(name)])
        # Inside a dataclass that is None nothing is said of presence either.
        columns[of.leaves(field)[0].column] = some if within is None else some.set(~within, None)
        within = some if within is None else some & within
    for inner, kind in of.fields:
        columns |= _stored(kind, f"{field}.{inner}", f"{name}.{inner}", source, f"{path}.{inner}", within)
    return columns


def _by_value(of: Record, field: str, series: pl.Series, where: str, within: pl.Series | None) -> dict[str, pl.Series]:
    """The stored columns of a nested dataclass that comes as structs or as JSON text."""
    refuse_unfit(series, where)
    leaves = of.leaves(field)
    out: list[list[Any]] = [[] for _ in leaves]
    for row, value in enumerate(series.to_list()):
        stored: list[Any] = []
        try:
            if within is not None and not within[row]:
                stored = [None] * len(leaves)
            else:
                plain = stored_value(of.tag, loads(value) if isinstance(value, str) else value)
                of.put(of.decode(plain), field, stored)
        except UNFIT as why:
            raise refused_value(value, row, where, series.name, of, why) from None
        for values, leaf_value in zip(out, stored, strict=True):
            values.append(leaf_value)
    return {
        leaf.column: pl.Series(pl.from_arrow(codec(leaf.tag).to_array(values))) for leaf, values in zip(leaves, out, strict=True)
    }


def _of_frame(name: str, source: _Source) -> tuple[Schema, pl.DataFrame]:
    """The payload columns of a type without a class: what the frame holds."""
    part, where = source.part, source.where
    mapped = dict(part.fields) if part.fields is not None else {
        column: column for column in source.frame.columns if column not in (part.occurred_at, part.event_id)
    }  # fmt: skip
    check_distinct(list(mapped), where)
    leaves, columns = [], []
    for field, column in mapped.items():
        if not field.isidentifier() or field.startswith("_"):
            raise IngestRefused(
                f"{where}: {field!r} cannot name a field", hint=f"fields={{'a_name': {field!r}}} renames it", column=column
            )
        series = typed(source.column(column), where)
        leaf = Leaf(field, tag_of_type(series.dtype, where, column))
        leaves.append(leaf)
        columns.append(stored_series(series, leaf.tag, where, source.zone(column)).rename(leaf.column))
    schema = Schema(
        name, 1, tuple(leaf.column for leaf in leaves), tuple(f"{leaf.path}: {leaf.tag}" for leaf in leaves), "", "ingest"
    )
    return schema, pl.DataFrame(columns)


def _refuse_large(payload: pl.DataFrame, where: str) -> None:
    """Refuse rows whose payload no append would take either."""
    if payload.estimated_size() <= MAX_PAYLOAD_BYTES:
        return
    sizes = np.zeros(len(payload), np.int64)
    for series in payload:
        if series.dtype == pl.String:
            sizes += series.str.len_bytes().fill_null(0).to_numpy()
        elif series.dtype.is_nested() or series.dtype == pl.Binary:
            sizes += _sizes(series.to_arrow())
    if (size := int(sizes.max(initial=0))) > MAX_PAYLOAD_BYTES:
        row = int(sizes.argmax()) + 1
        raise IngestRefused(
            f"{where}: row {row:,} has {size:,} bytes of payload, and {MAX_PAYLOAD_BYTES:,} are allowed",
            hint="nothing was stored; keep large things elsewhere, and their address or digest in the event",
            row=row,
        )


def _sizes(array: pa.Array) -> np.ndarray[Any, Any]:
    """At least so many bytes does each value take, with all that is in it."""
    kind = array.type
    if pa.types.is_map(kind):
        array = array.cast(pa.list_(pa.struct([("key", kind.key_type), ("value", kind.item_type)])))
        kind = array.type
    if pa.types.is_struct(kind):
        return sum((_sizes(part) for part in array.flatten()), np.zeros(len(array), np.int64))
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        lengths = pc.list_value_length(array).fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
        ends, before = np.cumsum(lengths), np.concatenate([[0], np.cumsum(_sizes(array.flatten()))])
        return np.asarray(before[ends] - before[ends - lengths])
    if pa.types.is_string_view(kind) or pa.types.is_binary_view(kind):
        array = array.cast(pa.large_binary())
        kind = array.type
    if pa.types.is_large_string(kind) or pa.types.is_string(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary(kind):
        return np.asarray(pc.binary_length(array).fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64))
    return np.ones(len(array), np.int64)


def _tags(kind: EventType | None, source: _Source, payload: pl.DataFrame) -> pl.Series | None:
    """Tags of the fields declared `Tag[...]`, and the constant ones, spelled as an append spells them."""
    given, mapped, count = source.part.tags, source.part.fields or {}, len(source)
    if isinstance(given, str):
        raise InvalidValue(f"tags={given!r} is text, and each of its letters would be a tag", hint=f"tags=[{given!r}]")
    of_fields: dict[str, pl.Series] = {}
    for field, of in kind.fields if kind is not None else ():
        if of.is_tag:
            tag = pl.concat_str([pl.lit(f"{field}:"), _tag_value(of.leaves(field)[0])]).alias(field)
            of_fields[field] = payload.select(tag).to_series()
            bad = _unplain(of_fields[field]).fill_null(False)
            why = f"cannot be a tag: at most {MAX_NAME_BYTES} bytes in a line"
            refuse_rows(of_fields[field], bad, source.where, mapped.get(field, field), why)
    constant = [check_plain(text, "tag") for text in dict.fromkeys(given)]
    if len(of_fields) + len(constant) > MAX_TAGS:
        raise InvalidValue(f"{source.where}: {len(of_fields) + len(constant)} tags, and {MAX_TAGS} are allowed")
    if not count or not (of_fields or constant):
        return None
    texts = [*of_fields.values(), *(pl.Series([text]).new_from_index(0, count) for text in constant)]
    frame, tags = pl.DataFrame([series.rename(str(i)) for i, series in enumerate(texts)]), pl.concat_list(pl.all())
    if any(series.null_count() for series in texts):
        tags = tags.list.drop_nulls()
    if len(texts) > 1:
        tags = tags.list.unique(maintain_order=True)
    return frame.select(tags.alias("tags"))["tags"]


def _tag_value(leaf: Leaf) -> pl.Expr:
    if leaf.tag == "uuid":
        return uuid_text(pl.col(leaf.column))
    if leaf.tag == "b":
        return pl.col(leaf.column).replace_strict({True: "True", False: "False"}, return_dtype=pl.String)
    return pl.col(leaf.column).cast(pl.String)
