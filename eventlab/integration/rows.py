"""Rows: what one source of an ingest says, read and checked as a whole before anything is stored."""

from __future__ import annotations

import json
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa

from eventlab.errors import EventlabError, IngestRefused, InvalidName, InvalidValue, SourceMissing
from eventlab.integration.convert import moments, refuse_rows, refused_value, stored_series, stored_value, tag_of_type
from eventlab.model.events import EventType, event_type
from eventlab.model.names import MAX_NAME_BYTES, check_distinct, check_plain, check_type_name, split_stream
from eventlab.model.schema import Schema
from eventlab.model.types import Leaf, Record
from eventlab.replay.tables import uuid_text
from eventlab.store.base import MAX_TAGS
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
    frame, what = _read(part.data)
    where = f"{name} from {what}"
    frame = _with_nulls(frame, part.nulls, where)
    for column in part.zones or ():
        _column(frame, column, where)
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
    tags = _tags(kind, part, payload, len(frame), where)
    return Prepared(schema, split_stream(part.stream)[0], where, streams, times, ids, tags, payload)


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


def _with_nulls(frame: pl.DataFrame, nulls: Sequence[str] | Mapping[str, Sequence[str]], where: str) -> pl.DataFrame:
    """The frame with its spellings of nothing turned to nulls."""
    if isinstance(nulls, str):
        raise InvalidValue(f"nulls={nulls!r} is text, and each of its letters would be a null", hint=f"nulls=[{nulls!r}]")
    texts = [name for name, kind in frame.schema.items() if kind == pl.String]
    by_column = nulls if isinstance(nulls, Mapping) else dict.fromkeys(texts, nulls)
    for name in by_column:
        _column(frame, name, where)
    return frame.with_columns(pl.col(name).replace(dict.fromkeys(by_column[name])) for name in texts if by_column.get(name))


def _column(frame: pl.DataFrame, name: str, where: str) -> pl.Series:
    if name not in frame.columns:
        shown = ", ".join(frame.columns[:12]) + (", …" if len(frame.columns) > 12 else "")
        raise IngestRefused(
            f"{where}: there is no column {name!r}", hint=f"it has {shown}; fields={{'field': 'column'}} maps names", column=name
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
    if any(spec or conversion for _, _, spec, conversion in pieces):
        raise InvalidName(f"stream={template!r}: columns go in as they are, without a format", hint="format the column first")
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
            if not (column.dtype.is_integer() or column.dtype in (pl.String, pl.Date, pl.Categorical, pl.Enum, pl.Null)):
                raise IngestRefused(
                    f"{where}: column {name!r} of type {column.dtype} names the stream", hint="cast it to text", column=name
                )
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
        if isinstance(of, Record):
            columns |= _record(of, field, _record_column(frame, of, name, where), where)
            continue
        column = of.leaves(field)[0].column
        if name not in frame.columns and field not in mapped and kind.has_default(field):
            default = of.encode(kind.default(field), f"{kind.name}.{field}")
            columns[column] = pl.Series(pl.from_arrow(codec(of.tag).to_array([default] * len(frame))))
            continue
        given = _column(frame, name, where)
        columns[column] = stored_series(given, of.tag, where, _zone(part, name), of)
        if not of.nullable:
            missing = columns[column].is_null()
            refuse_rows(given, missing, where, name, f"is missing, and {kind.name}.{field} is declared {of.declared}")
    return kind.schema, pl.DataFrame([series.rename(column) for column, series in columns.items()])


def _record_column(frame: pl.DataFrame, of: Record, name: str, where: str) -> pl.Series:
    """The column of a nested dataclass: one of structs or of JSON text, else one column a field: `address.city`."""
    if name in frame.columns or not any(column.startswith(f"{name}.") for column in frame.columns):
        return _column(frame, name, where)
    parts = {}
    for field, kind in of.fields:
        inner = f"{name}.{field}"
        parts[field] = _record_column(frame, kind, inner, where) if isinstance(kind, Record) else _column(frame, inner, where)
    values = pl.DataFrame(parts)
    nothing = values.select(pl.all_horizontal(pl.all().is_null())).to_series()
    # Nothing in any of its columns: None where the field may be None.
    return values.to_struct(name).to_frame().select(pl.when(~nothing | (not of.nullable)).then(pl.col(name))).to_series()


def _record(of: Record, field: str, series: pl.Series, where: str) -> dict[str, pl.Series]:
    """The stored columns of a nested dataclass."""
    text = series.dtype == pl.String
    out: list[list[Any]] = [[] for _ in of.leaves(field)]
    for row, value in enumerate(series.to_list()):
        stored: list[Any] = []
        try:
            plain = stored_value(of.tag, json.loads(value) if text and value is not None else value)
            of.put(of.decode(plain), field, stored)
        except (EventlabError, ValueError, TypeError, KeyError, ArithmeticError) as why:
            raise refused_value(value, row, where, series.name, of, why) from None
        for values, leaf_value in zip(out, stored, strict=True):
            values.append(leaf_value)
    leaves = zip(of.leaves(field), out, strict=True)
    return {leaf.column: pl.Series(pl.from_arrow(codec(leaf.tag).to_array(values))) for leaf, values in leaves}


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


def _tags(kind: EventType | None, part: Rows, payload: pl.DataFrame, count: int, where: str) -> pl.Series | None:
    """Tags of the fields declared `Tag[...]`, and the constant ones, spelled as an append spells them."""
    if isinstance(part.tags, str):
        raise InvalidValue(f"tags={part.tags!r} is text, and each of its letters would be a tag", hint=f"tags=[{part.tags!r}]")
    parts = [pl.lit(check_plain(text, "tag")) for text in dict.fromkeys(part.tags)]
    for field, of in kind.fields if kind is not None else ():
        if of.is_tag:
            parts.append(pl.concat_str([pl.lit(f"{field}:"), _tag_value(of.leaves(field)[0])]))
    if len(parts) > MAX_TAGS:
        raise InvalidValue(f"{where}: {len(parts)} tags, and {MAX_TAGS} are allowed")
    if not parts or not count:
        return None
    tags = payload.select(pl.concat_list(parts).list.drop_nulls().list.unique(maintain_order=True).alias("tags"))["tags"]
    if len(tags) != count:  # constant tags alone
        tags = tags.new_from_index(0, count)
    flat = tags.explode()
    bad = (flat.str.len_bytes() > MAX_NAME_BYTES) | flat.str.contains(r"[\x00-\x1f\x7f]")
    if bad.any():
        shown = flat[int(bad.arg_max() or 0)][:60]
        raise IngestRefused(f"{where}: {shown!r} cannot be a tag", hint="tags are short text in one line")
    return tags


def _tag_value(leaf: Leaf) -> pl.Expr:
    if leaf.tag == "uuid":
        return uuid_text(leaf.column)
    if leaf.tag == "b":
        return pl.col(leaf.column).replace_strict({True: "True", False: "False"}, return_dtype=pl.String)
    return pl.col(leaf.column).cast(pl.String)
