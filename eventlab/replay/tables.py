"""A model's table: entries of a fold as Arrow columns, and back.

Columns: the key (`_id` or the fields of the key's named tuple), the state's fields, `_version`, `_position`; `_tenant` first
when every tenant is asked for. Rows are sorted by key.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl
import pyarrow as pa

from eventlab.errors import EvolveFailed, InvalidValue
from eventlab.model.models import Model
from eventlab.model.types import FieldType, Record, field_type, record_parts
from eventlab.replay.rows import Entry, Key
from eventlab.store.base import ALL, Tenant
from eventlab.store.columns import codec


def table_of(model: Model, entries: Mapping[Key, Entry], tenant: Tenant) -> pa.Table:
    """The table of a fold's entries, sorted by key."""
    keys = list(entries)
    key_columns = _key_columns(model, keys, tenanted=tenant is ALL)
    arrays: dict[str, pa.Array] = {}
    for name, kind, values in key_columns:
        arrays[name] = _array(kind, _encoded(f"{model.cls.__name__}.key.{name}", kind, values, keys))
    states = [entry[0] for entry in entries.values()]
    for name, kind in model.fields:
        values = [getattr(state, name) for state in states]
        arrays[name] = _array(kind, _encoded(f"{model.cls.__name__}.{name}", kind, values, keys))
    arrays["_version"] = pa.array([entry[1] for entry in entries.values()], pa.int64())
    arrays["_position"] = pa.array([entry[2] for entry in entries.values()], pa.int64())
    # Each column says its tag, so that any reader of the file can tell a duration from a number.
    tags = {name: kind.tag for name, kind in columns_of(model, tenant)}
    fields = [pa.field(name, array.type, metadata={"tag": tags[name]}) for name, array in arrays.items()]
    return sorted_table(model, pa.table(list(arrays.values()), schema=pa.schema(fields)), tenant)


def stored_state(model: Model, key: Key, state: Any) -> tuple[Any, ...]:
    """A state in stored form, one value a field; `EvolveFailed` where a value does not fit its declared type."""
    return tuple(_encoded(f"{model.cls.__name__}.{name}", kind, [getattr(state, name)], [key])[0] for name, kind in model.fields)


def state_of(model: Model, stored: Sequence[Any]) -> Any:
    """The state of a stored form."""
    return model.cls(*(kind.decode(value) for (_, kind), value in zip(model.fields, stored, strict=True)))


def sorted_table(model: Model, table: pa.Table, tenant: Tenant) -> pa.Table:
    """The rows in the order of their keys."""
    return table.sort_by([(name, "ascending") for name in key_names(model, tenant)]).combine_chunks()


def key_names(model: Model, tenant: Tenant) -> tuple[str, ...]:
    """The columns that name a row."""
    return ("_tenant", *model.key_names) if tenant is ALL else model.key_names


def columns_of(model: Model, tenant: Tenant) -> tuple[tuple[str, FieldType], ...]:
    """The columns of a model's table and their types."""
    first = (("_tenant", field_type(str, "_tenant")),) if tenant is ALL else ()
    return (*first, *model.columns)


def entries_of(model: Model, table: pa.Table, tenant: Tenant) -> dict[Key, Entry]:
    """The entries that a table was made from."""
    keys = keys_of(model, table, tenant)
    fields = [_values(kind, table.column(name).combine_chunks()) for name, kind in model.fields]
    states = list(map(model.cls, *fields)) if fields else [model.cls() for _ in keys]
    versions, positions = table.column("_version").to_pylist(), table.column("_position").to_pylist()
    return {key: list(entry) for key, *entry in zip(keys, states, versions, positions, strict=True)}


def keys_of(model: Model, table: pa.Table, tenant: Tenant) -> list[Key]:
    """The fold's key of each row."""
    columns = [_values(kind, table.column(name).combine_chunks()) for name, kind in model.key_fields]
    keys: list[Key]
    if model.category is not None:
        keys = [f"{model.category}-{name}" for name in columns[0]]
    elif model.key_names == ("_id",):
        keys = columns[0]
    else:
        keys = list(zip(*columns, strict=True))
    if tenant is ALL:
        return list(zip(table.column("_tenant").to_pylist(), keys, strict=True))
    return keys


def frame_of(table: pa.Table, columns: Sequence[tuple[str, FieldType]]) -> pl.DataFrame:
    """A model's table as a Polars frame: durations and UUIDs in the types that a person reads."""
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)
    return frame.with_columns(*shown(tags={name: kind.tag for name, kind in columns}))


def shown(tags: Mapping[str, str]) -> list[pl.Expr]:
    """Expressions that turn stored columns into the types that a person reads, by tag."""
    return [_readable(pl.col(name), tag).alias(name) for name, tag in tags.items() if _hidden(tag)]


def uuid_text(value: pl.Expr) -> pl.Expr:
    """Sixteen bytes as the text of a UUID."""
    text = value.bin.encode("hex")
    parts = [text.str.slice(start, size) for start, size in ((0, 8), (8, 4), (12, 4), (16, 4), (20, 12))]
    return pl.concat_str(parts, separator="-")


def _hidden(tag: str) -> bool:
    """Whether a person would not read the stored form: a duration or a UUID, or something that holds one."""
    if tag.startswith(("l_", "m_")):
        return _hidden(tag[2:])
    return tag in ("td", "uuid") or (tag.startswith("r(") and any(_hidden(of) for _, of in record_parts(tag)))


def _readable(value: pl.Expr, tag: str) -> pl.Expr:
    if tag == "td":
        return value.cast(pl.Duration("us"))
    if tag == "uuid":
        return uuid_text(value)
    if not _hidden(tag):
        return value
    if tag.startswith("l_"):
        return value.list.eval(_readable(pl.element(), tag[2:]))
    if tag.startswith("m_"):
        pair = pl.element().struct
        pairs = pl.struct(pair.field("key"), _readable(pair.field("value"), tag[2:]).alias("value"))
        return value.map.entries().list.eval(pairs).cast(_readable_type(tag))
    parts = [_readable(value.struct.field(name), of).alias(name) for name, of in record_parts(tag)]
    return pl.when(value.is_not_null()).then(pl.struct(parts))


def _readable_type(tag: str) -> Any:
    if tag.startswith("l_"):
        return pl.List(_readable_type(tag[2:]))
    if tag.startswith("m_"):
        return pl.Map(pl.String(), _readable_type(tag[2:]))
    if tag.startswith("r("):
        return pl.Struct({name: _readable_type(of) for name, of in record_parts(tag)})
    known = {"td": pl.Duration("us"), "uuid": pl.String()}
    return known.get(tag) or pl.Series(pa.array([], codec(tag).arrow)).dtype


def key_table(model: Model, tenant: Tenant, keys: Sequence[Key]) -> pa.Table:
    """Keys of a fold as the key columns of the model's table."""
    return pa.table(
        {
            name: _array(kind, _encoded(f"{model.cls.__name__}.key.{name}", kind, values, keys))
            for name, kind, values in _key_columns(model, list(keys), tenanted=tenant is ALL)
        }
    )


def _key_columns(model: Model, keys: list[Key], *, tenanted: bool) -> list[tuple[str, FieldType, list[Any]]]:
    found: list[tuple[str, FieldType, list[Any]]] = []
    if tenanted:
        found.append(("_tenant", field_type(str, "_tenant"), [tenant for tenant, _ in keys]))
        keys = [key for _, key in keys]
    if model.category is not None:
        skip = len(model.category) + 1
        return [*found, ("_id", model.key_fields[0][1], [stream[skip:] for stream in keys])]
    if model.key_names == ("_id",):
        return [*found, ("_id", model.key_fields[0][1], keys)]
    for i, (name, kind) in enumerate(model.key_fields):
        found.append((name, kind, [key[i] for key in keys]))
    return found


def _encoded(path: str, kind: FieldType, values: Sequence[Any], keys: Sequence[Key]) -> list[Any]:
    out = []
    for i, value in enumerate(values):
        try:
            out.append(kind.encode(value, path))
        except InvalidValue as why:
            raise EvolveFailed(
                f"the state of {keys[i]!r}: {why.message}", hint="evolve and key must keep to the declared types", key=keys[i]
            ) from why
    return out


def _array(kind: FieldType, stored: list[Any]) -> pa.Array:
    """A column of a model's table; a nested dataclass is one struct column here."""
    return codec(kind.tag).to_array(stored)


def _values(kind: FieldType, array: pa.Array) -> list[Any]:
    stored = codec(kind.tag).to_stored(array)
    if isinstance(kind, Record):
        return [kind.decode(value) for value in stored]
    return kind.decode_columns([stored])
