"""Columns: stored values as Arrow arrays, and back.

The tag of a column (`model.types`) says everything: its Arrow type, how lists of stored values become an array without a
Python object per value where that can be avoided, and how the array is shown in SQL.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

import numpy as np
import pyarrow as pa

from eventlab.errors import Damaged
from eventlab.model.types import WIDE, Leaf, record_parts

ENVELOPE: Final = pa.schema(
    [
        ("position", pa.int64()),
        ("stream", pa.string()),
        ("version", pa.int64()),
        ("type", pa.string()),
        ("schema_version", pa.int16()),
        ("event_id", pa.binary(16)),
        ("recorded_at", pa.timestamp("us", "UTC")),
        ("occurred_at", pa.timestamp("us", "UTC")),
        ("correlation_id", pa.binary(16)),
        ("causation_id", pa.binary(16)),
        ("actor", pa.string()),
        ("tenant", pa.string()),
        ("tags", pa.list_(pa.string())),
        ("commit", pa.int64()),
    ]
)
ENVELOPE_NAMES: Final = tuple(ENVELOPE.names)


@dataclass(frozen=True)
class Codec:
    """One tag: its Arrow type, and both directions between a list of stored values and an array."""

    arrow: pa.DataType
    to_array: Callable[[list[Any]], pa.Array]
    to_stored: Callable[[pa.Array], list[Any]]


@functools.cache
def codec(tag: str) -> Codec:
    """The `Codec` of a tag.

    >>> codec("l_i64").to_stored(codec("l_i64").to_array([[1, 2], None, []]))
    [[1, 2], None, []]
    """
    simple = _SIMPLE.get(tag)
    if simple is not None:
        return Codec(simple, functools.partial(_plain_array, simple), pa.Array.to_pylist)
    counted = _COUNTED.get(tag)
    if counted is not None:
        arrow, whole = counted
        return Codec(arrow, lambda v: pa.array(v, whole).view(arrow), lambda a: a.view(whole).to_pylist())
    if tag.startswith("d") and "_" in tag:
        digits, places = map(int, tag[1:].split("_"))
        return _short_decimal(places) if digits == 18 else _long_decimal(places)
    if tag.startswith("l_"):
        return _list(codec(tag[2:]))
    if tag.startswith("m_"):
        return _map(codec(tag[2:]))
    if tag.startswith("r(") and tag.endswith(")"):
        return _struct(tuple(record_parts(tag)))
    raise Damaged(f"no column type is called {tag!r}", hint="the store was written by a newer eventlab, or is damaged")


_SIMPLE = {
    "b": pa.bool_(),
    "i64": pa.int64(),
    "f64": pa.float64(),
    "s": pa.string(),
    "bin": pa.binary(),
    "uuid": pa.binary(16),
    "dec": pa.string(),
    "json": pa.string(),
    "td": pa.int64(),
    "p": pa.bool_(),
}
_COUNTED = {
    "ts": (pa.timestamp("us", "UTC"), pa.int64()),
    "d": (pa.date32(), pa.int32()),
    "t": (pa.time64("us"), pa.int64()),
}


def _plain_array(arrow: pa.DataType, values: list[Any]) -> pa.Array:
    return pa.array(values, arrow)


def _short_decimal(places: int) -> Codec:
    """decimal128 whose scaled values fit 64 bits: built from the integers, no Decimal objects."""
    arrow = pa.decimal128(18, places)

    def to_array(values: list[int | None]) -> pa.Array:
        whole = pa.array(values, pa.int64())
        low = whole.fill_null(0).to_numpy(zero_copy_only=False) if whole.null_count else whole.to_numpy()
        words = np.empty((len(low), 2), np.int64)
        words[:, 0], words[:, 1] = low, low >> 63
        validity = whole.buffers()[0] if whole.null_count else None
        return pa.Array.from_buffers(arrow, len(low), [validity, pa.py_buffer(words.tobytes())])

    def to_stored(array: pa.Array) -> list[int | None]:
        # A buffer may be padded to any size, and is left out where every value is null.
        data, end = array.buffers()[1], array.offset + len(array)
        words = np.zeros(2 * end, np.int64) if data is None else np.frombuffer(data, np.int64, 2 * end)
        values: list[int | None] = words[2 * array.offset :: 2].tolist()
        if array.null_count:
            return [v if here else None for v, here in zip(values, array.is_valid().to_pylist(), strict=True)]
        return values

    return Codec(arrow, to_array, to_stored)


def _long_decimal(places: int) -> Codec:
    arrow = pa.decimal128(38, places)

    def to_array(values: list[int | None]) -> pa.Array:
        return pa.array([None if v is None else Decimal(v).scaleb(-places, context=WIDE) for v in values], arrow)

    def to_stored(array: pa.Array) -> list[int | None]:
        return [None if v is None else int(v.scaleb(places, context=WIDE)) for v in array.to_pylist()]

    return Codec(arrow, to_array, to_stored)


def _list(item: Codec) -> Codec:
    arrow = pa.list_(item.arrow)

    def to_array(values: list[list[Any] | None]) -> pa.Array:
        flat = item.to_array([v for row in values if row is not None for v in row])
        return pa.ListArray.from_arrays(_offsets(values), flat, type=arrow, mask=_nulls(values))

    def to_stored(array: pa.Array) -> list[list[Any] | None]:
        flat = item.to_stored(array.flatten())
        return _sliced(array, flat)

    return Codec(arrow, to_array, to_stored)


def _map(item: Codec) -> Codec:
    arrow = pa.map_(pa.string(), item.arrow)

    def to_array(values: list[dict[str, Any] | None]) -> pa.Array:
        rows = [row for row in values if row is not None]
        keys = pa.array([k for row in rows for k in row], pa.string())
        items = item.to_array([v for row in rows for v in row.values()])
        return pa.MapArray.from_arrays(_offsets(values), keys, items, type=arrow, mask=_nulls(values))

    def to_stored(array: pa.Array) -> list[dict[str, Any] | None]:
        pairs = array.cast(pa.list_(pa.struct([("key", pa.string()), ("value", item.arrow)])))
        flat = pairs.flatten()
        keys, items = flat.field("key").to_pylist(), item.to_stored(flat.field("value"))
        return [None if row is None else dict(row) for row in _sliced(pairs, list(zip(keys, items, strict=True)))]

    return Codec(arrow, to_array, to_stored)


def _struct(parts: tuple[tuple[str, str], ...]) -> Codec:
    codecs = [(name, codec(tag)) for name, tag in parts]
    arrow = pa.struct([(name, c.arrow) for name, c in codecs])

    def to_array(values: list[dict[str, Any] | None]) -> pa.Array:
        children = [c.to_array([None if row is None else row[name] for row in values]) for name, c in codecs]
        return pa.StructArray.from_arrays(children, fields=list(arrow), mask=_nulls(values))

    def to_stored(array: pa.Array) -> list[dict[str, Any] | None]:
        children = [c.to_stored(child) for (_, c), child in zip(codecs, array.flatten(), strict=True)]
        names = [name for name, _ in codecs]
        rows = zip(array.is_valid().to_pylist(), zip(*children, strict=True), strict=True)
        return [dict(zip(names, row, strict=True)) if here else None for here, row in rows]

    return Codec(arrow, to_array, to_stored)


def _offsets(values: Iterable[Any]) -> pa.Array:
    sizes = np.fromiter((0 if row is None else len(row) for row in values), np.int32)
    return pa.array(np.concatenate([np.zeros(1, np.int32), np.cumsum(sizes, dtype=np.int32)]))


def _nulls(values: Sequence[Any]) -> pa.Array | None:
    mask = [row is None for row in values]
    return pa.array(mask, pa.bool_()) if any(mask) else None


def _sliced(array: pa.Array, flat: list[Any]) -> list[list[Any] | None]:
    """The rows of a list array, from its flattened values (which leave out what nulls hide)."""
    lengths = array.value_lengths().to_pylist()
    rows: list[list[Any] | None] = []
    at = 0
    for size in lengths:
        if size is None:
            rows.append(None)
        else:
            rows.append(flat[at : at + size])
            at += size
    return rows


# -- tables ----------------------------------------------------------------------------------------------------------------


def stored_column(table: pa.Table, column: str) -> list[Any]:
    """One physical payload column as a list of stored values; all None where the table does not have it."""
    if column not in table.column_names:
        return [None] * len(table)
    array = table.column(column).combine_chunks()
    return codec(Leaf.parse(column).tag).to_stored(array)


def payload_array(column: str, values: list[Any]) -> pa.Array:
    """A list of stored values as the array of a physical column."""
    return codec(Leaf.parse(column).tag).to_array(values)


def fits(tag: str, values: Sequence[Any]) -> bool:
    """Whether values have the Python types of a tag's stored form, however deep; None fits anywhere.

    >>> fits("l_i64", [[1, None], None]), fits("l_i64", [["1"]])
    (True, False)
    """
    kinds = set(map(type, values)) - {type(None)}
    if tag.startswith("l_"):
        return kinds <= {list, tuple} and fits(tag[2:], [v for row in values if row is not None for v in row])
    if tag.startswith("m_"):
        rows = [row for row in values if row is not None]
        same = kinds <= {dict} and fits("s", [key for row in rows for key in row])
        return same and fits(tag[2:], [value for row in rows for value in row.values()])
    if tag.startswith("r("):
        parts = record_parts(tag)
        rows = [row for row in values if row is not None]
        same = kinds <= {dict} and all(row.keys() == {name for name, _ in parts} for row in rows)
        return same and all(fits(of, [row[name] for row in rows]) for name, of in parts)
    return kinds <= {_PYTHON.get(tag, int)}


def python_type(tag: str) -> type | None:
    """The Python type of a tag's stored form; None for a list, a map or a record, where `fits` looks inside."""
    return None if tag.startswith(("l_", "m_", "r(")) else _PYTHON.get(tag, int)


#: The Python types of stored forms; all others are whole numbers.
_PYTHON: Final = {
    "b": bool, "p": bool, "f64": float, "s": str, "dec": str, "json": str, "bin": bytes, "uuid": bytes,
}  # fmt: skip


def payload_columns(table: pa.Table) -> list[str]:
    """The physical payload columns of a table of events."""
    return [name for name in table.column_names if ":" in name]
