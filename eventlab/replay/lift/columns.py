"""Between the log's columns and lowered values: the rows a loop reads, and the columns of a model's table it makes.

`Abandoned` says that the row fold must decide about everything: a stored value that the class of today does not know, a
None where none is declared, a state that does not fit its type.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from eventlab.errors import UpcastFailed
from eventlab.model.events import EventType
from eventlab.model.models import Model
from eventlab.model.schema import Schema
from eventlab.model.types import Closed, FieldType, Record
from eventlab.model.upcasting import chain_of, upcast_columns
from eventlab.replay.lift.analyse import StateLeaf
from eventlab.replay.lift.sources import Abandoned, sources_of
from eventlab.replay.lift.types import Type, closed_in, item_of, stored_to_lowered, type_of
from eventlab.replay.tables import columns_of, sorted_table
from eventlab.store.base import ALL, Batch, Tenant
from eventlab.store.columns import codec, payload_array, stored_column

# -- what a loop reads -----------------------------------------------------------------------------------------------------


def payload(
    batch: Batch, kinds: Mapping[str, EventType], codes: Mapping[str, int], leaves: Mapping[str, Sequence[str]]
) -> tuple[np.ndarray[Any, Any], dict[int, Any]]:
    """The code of each event's type, in position order, and by code what gives the leaves that are read of one after another:
    a tuple of them, one of several columns.
    """
    numbers = np.zeros(len(batch), dtype=np.int64)
    parts: dict[int, list[tuple[np.ndarray[Any, Any], list[list[Any]]]]] = {}
    start = 0
    for table in batch.tables:
        for at, name, schema, part in _typed(table, batch.schemas, kinds):
            where = np.arange(start, start + len(table)) if at is None else at + start
            code = codes.get(name, 0)
            numbers[where] = code
            _check_closed(kinds[name], schema, part)
            if columns := _leaf_columns(kinds[name], schema, part, leaves.get(name, ())):
                parts.setdefault(code, []).append((where, columns))
        start += len(table)
    order = batch._order
    if order is None:
        return numbers, {code: _in_turn(found, None) for code, found in parts.items()}
    places = np.empty(len(order), np.int64)
    places[order] = np.arange(len(order))
    return numbers[order], {code: _in_turn(found, places) for code, found in parts.items()}


def _in_turn(parts: Sequence[tuple[np.ndarray[Any, Any], list[list[Any]]]], places: np.ndarray[Any, Any] | None) -> Any:
    """What gives the values of one type's events in the order of their positions."""
    if len(parts) == 1:
        columns = parts[0][1]
    else:
        # Of several stored versions, or categories.
        where = np.concatenate([at for at, _ in parts])
        turn = np.argsort(where if places is None else places[where], kind="stable").tolist()
        joined = [[value for part in of for value in part] for of in zip(*(columns for _, columns in parts), strict=True)]
        columns = [[values[at] for at in turn] for values in joined]
    return (iter(columns[0]) if len(columns) == 1 else zip(*columns, strict=True)).__next__


def _typed(
    table: pa.Table, schemas: Mapping[tuple[str, int], Schema], kinds: Mapping[str, EventType]
) -> Iterator[tuple[Any, str, Schema, pa.Table]]:
    """The rows of each handled type and stored version."""
    types = table.column("type").combine_chunks().dictionary_encode()
    names, codes = types.dictionary.to_pylist(), types.indices.to_numpy()
    versions = table.column("schema_version").to_numpy()
    for code, name in enumerate(names):
        if name not in kinds:
            continue
        of_type = codes == code
        for version in np.unique(versions[of_type]).tolist():
            mask = of_type & (versions == version)
            at = None if mask.all() else np.flatnonzero(mask)
            schema = schemas.get((name, version))
            if schema is None:
                raise Abandoned(f"{name} version {version} is not known")
            own = table.select([c for c in table.column_names if c == "position" or c in schema.columns])
            yield at, name, schema, own if at is None else own.take(pa.array(at))


def _leaf_columns(kind: EventType, schema: Schema, part: pa.Table, leaves: Sequence[str]) -> list[list[Any]]:
    if kind.upcasters and chain_of(kind, schema):
        part, schema = _upcast_part(kind, schema, part), kind.schema
    sources = sources_of(kind, schema)
    found = []
    for path in leaves:
        source = sources[path]
        if source.column is None:
            found.append([source.default] * len(part))
            continue
        if not source.slot.type.opt and part.column(source.column).null_count:
            raise Abandoned(f"{kind.name}.{path} is None in the log, and is declared to be something")
        values = stored_column(part, source.column)
        if source.slot.type.item is not None:
            values = [stored_to_lowered(v, source.slot.type) for v in values]
        found.append(values)
    return found


def _upcast_part(kind: EventType, schema: Schema, part: pa.Table) -> pa.Table:
    """The rows of an old version as those of today's."""
    stored = [stored_column(part, column) for column in schema.columns]
    try:
        columns = upcast_columns(kind, schema, stored, len(part))
    except UpcastFailed as why:
        raise Abandoned(str(why)) from None
    arrays = [payload_array(column, values) for column, values in zip(kind.schema.columns, columns, strict=True)]
    return pa.table([*arrays, pa.nulls(len(part))], names=[*kind.schema.columns, "position"])


def _check_closed(kind: EventType, schema: Schema, part: pa.Table) -> None:
    """Decode what may hold a member that is gone: the row fold raises there, whether it is looked at or not."""
    if kind.upcasters and chain_of(kind, schema):
        return  # they are checked where they are upcast
    stored = set(schema.columns)
    for name, of in kind.fields:
        wanted = [leaf.column for leaf in of.leaves(name)]
        if closed_in(of) and all(column in stored for column in wanted):
            try:
                if isinstance(of, Closed):
                    for value in set(stored_column(part, wanted[0])):
                        of.decode(value)
                else:
                    of.decode_columns([stored_column(part, column) for column in wanted])
            except Exception as why:
                raise Abandoned(str(why)) from None


def meta_columns(batch: Batch, names: Sequence[str]) -> list[list[Any]]:
    """Envelope columns in position order, lowered."""
    found = []
    for name in names:
        if name in ("category", "id"):
            at = 0 if name == "category" else 2
            found.append([stream.partition("-")[at] for stream in batch.envelope.stream])
        else:
            found.append(getattr(batch.envelope, name))
    return found


# -- what a fold gives -----------------------------------------------------------------------------------------------------


def table_from(
    model: Model, leaves: Mapping[str, StateLeaf], keys: Sequence[Any], states: Sequence[Sequence[Any]], tenant: Tenant
) -> pa.Table:
    """The table of lowered states: what `tables.table_of` gives for the same states, or `Abandoned`."""
    arrays: dict[str, pa.Array] = {}
    plain = keys
    if tenant is ALL:
        arrays["_tenant"] = pa.array([of for of, _ in keys], pa.string())
        plain = [key for _, key in keys]
    for (name, kind), values in zip(model.key_fields, key_columns(model, plain), strict=True):
        arrays[name] = _array(kind, type_of(kind), values)
    columns: dict[str, list[Any]] = dict(zip(leaves, map(list, zip(*states, strict=True)), strict=False)) if states else {}
    for name, kind in model.fields:
        arrays[name] = field_array(kind, name, columns, {path: leaf.type for path, leaf in leaves.items()}, len(states))
    size = len(leaves)
    arrays["_version"] = pa.array([state[size] for state in states], pa.int64())
    arrays["_position"] = pa.array([state[size + 1] for state in states], pa.int64())
    return dressed(model, arrays, tenant)


def key_columns(model: Model, keys: Sequence[Any]) -> list[list[Any]]:
    """Lowered keys as the columns of the table."""
    if model.category is not None:
        skip = len(model.category) + 1
        return [[stream[skip:] for stream in keys]]
    if model.key_names == ("_id",):
        return [list(keys)]
    return [list(column) for column in zip(*keys, strict=True)] if keys else [[] for _ in model.key_fields]


def dressed(model: Model, arrays: Mapping[str, pa.Array], tenant: Tenant, *, is_sorted: bool = False) -> pa.Table:
    """Arrays as the model's table: each column says its tag, rows in the order of their keys."""
    tags = {name: kind.tag for name, kind in columns_of(model, tenant)}
    fields = [pa.field(name, array.type, metadata={"tag": tags[name]}) for name, array in arrays.items()]
    table = pa.table(list(arrays.values()), schema=pa.schema(fields))
    return table.combine_chunks() if is_sorted else sorted_table(model, table, tenant)


def field_array(kind: FieldType, name: str, columns: Mapping[str, list[Any]], types: Mapping[str, Type], size: int) -> pa.Array:
    """One column of the table from its leaves."""
    if not columns:
        return codec(kind.tag).to_array([])
    if isinstance(kind, Record):
        return codec(kind.tag).to_array(_records(kind, name, columns, types, size))
    return _array(kind, types[name], columns[name])


def _records(kind: Record, name: str, columns: Mapping[str, list[Any]], types: Mapping[str, Type], size: int) -> list[Any]:
    here = columns[f"{name}?"] if kind.nullable else [True] * size
    names, parts = [], []
    for part, of in kind.fields:
        path = f"{name}.{part}"
        names.append(part)
        if isinstance(of, Record):
            parts.append(_records(of, path, columns, types, size))
        else:
            values = [v if present else None for v, present in zip(columns[path], here, strict=True)]
            stored = _stored(of, types[path], [v for v, present in zip(values, here, strict=True) if present])
            filled = iter(stored)
            parts.append([next(filled) if present else None for present in here])
    rows = zip(*parts, strict=True)
    return [dict(zip(names, row, strict=True)) if present else None for present, row in zip(here, rows, strict=True)]


def _array(kind: FieldType, of: Type, values: list[Any]) -> pa.Array:
    try:
        return codec(kind.tag).to_array(_stored(kind, of, values))
    except (OverflowError, pa.ArrowInvalid, pa.ArrowTypeError) as why:
        raise Abandoned(str(why)) from None


def _stored(kind: FieldType, of: Type, values: list[Any]) -> list[Any]:
    """Lowered values in stored form, as `FieldType.encode` gives it; `Abandoned` where it would raise."""
    if None in values:
        if not kind.nullable:
            raise Abandoned("a None that is not declared")
        if of.item is not None or of.name in ("dec", "float", "rec"):
            filled = iter(_stored(kind, of.sure(), [v for v in values if v is not None]))
            return [None if v is None else next(filled) for v in values]
    if of.name == "dec":
        return _decimals(kind, of.scale, values)
    if of.name == "float":
        if kind.declared.startswith("float") and not all(map(math.isfinite, values)):
            raise Abandoned("a float that is not finite")
        return values
    if isinstance(kind, Closed) and not set(values) <= {*kind.members, None}:
        raise Abandoned("a value that is not declared")
    if of.name == "int" and any(v is not None and not -(2**63) <= v < 2**63 for v in values):
        raise Abandoned("an integer beyond 64 bits")
    if of.name in ("list", "set", "map"):
        return _collections(kind, of, values)
    if of.name == "rec" and isinstance(kind, Record):
        return [{name: _stored(part, dict(of.parts)[name], [v[name]])[0] for name, part in kind.fields} for v in values]
    if of.name == "dur" and any(v is not None and not -(2**63) <= v < 2**63 for v in values):
        raise Abandoned("a duration beyond 64 bits")
    return values


def _decimals(kind: FieldType, scale: int, values: list[int]) -> list[int]:
    digits, places = map(int, kind.tag[1:].split("_"))
    if scale > places:
        step = 10 ** (scale - places)
        if any(v % step for v in values):
            raise Abandoned("more decimal places than are declared")
        values = [v // step for v in values]
    elif scale < places:
        values = [v * 10 ** (places - scale) for v in values]
    limit = 10**digits
    if any(not -limit < v < limit for v in values):
        raise Abandoned("more digits than are declared")
    return values


def _collections(kind: FieldType, of: Type, values: list[Any]) -> list[Any]:
    item = item_of(kind)
    assert item is not None
    inner = of.item or type_of(item)
    if of.name == "map":
        held = iter(_stored(item, inner, [x for v in values for x in v.values()]))
        found = [{k: next(held) for k in v} for v in values]
        return [dict(sorted(v.items())) for v in found]
    flat = iter(_stored(item, inner, [x for v in values for x in v]))
    lists = [[next(flat) for _ in v] for v in values]
    if of.name != "set":
        return lists
    # Plain values that are never None are in the order of Python's own.
    plain = inner.name in ("int", "str", "bytes") and not inner.opt
    return [sorted(v) for v in lists] if plain else [sorted(v, key=_in_order) for v in lists]


def _in_order(value: Any) -> tuple[Any, ...]:
    if value is None:
        return (0,)
    if isinstance(value, (tuple, list)):
        return (1, *map(_in_order, value))
    return (1, value) if value == value else (2,)


def lowered_leaves(kind: FieldType, name: str, types: Mapping[str, Type], stored: Sequence[Any]) -> list[Sequence[Any]]:
    """From the stored values of a table's column to lowered leaves, a column each, for going on from a base."""
    if isinstance(kind, Record):
        own: list[Sequence[Any]] = [[value is not None for value in stored]] if kind.nullable else []
        for part, of in kind.fields:
            inner = [None if value is None else value[part] for value in stored]
            own += lowered_leaves(of, f"{name}.{part}", types, inner)
        return own
    to = types[name]
    if to.name == "dec":
        more = 10 ** (to.scale - int(kind.tag.partition("_")[2]))
        return [stored if more == 1 else [None if value is None else value * more for value in stored]]
    return [stored if to.item is None else [stored_to_lowered(value, to) for value in stored]]
