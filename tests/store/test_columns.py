"""Stored values become Arrow columns and come back, whole or in slices, from memory or from Parquet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eventlab.errors import Damaged
from eventlab.model.schema import Schema
from eventlab.store.base import Batch, Row, pack, rows_to_table, unpack
from eventlab.store.columns import ENVELOPE_NAMES, codec, payload_array, payload_columns, stored_column
from eventlab.store.segment import Segment, write_segment
from eventlab.testing.contract import comparable
from eventlab.testing.strategies import EDGES, columns, optional, payloads, tags


def told(values: list[Any]) -> list[bytes]:
    """Values as canonical bytes: NaN equals NaN, 0.0 is not -0.0, and 1 is not True."""
    return [pack(value) for value in values]


@st.composite
def columns_of_values(draw: st.DrawFn) -> tuple[str, list[Any]]:
    tag = draw(tags())
    return tag, draw(st.lists(optional(tag), max_size=8))


@pytest.mark.parametrize("tag", sorted(EDGES))
def test_the_edges_of_every_tag_come_back(tag: str) -> None:
    values = [*EDGES[tag], None]
    array = codec(tag).to_array(values)
    array.validate(full=True)
    assert array.type == codec(tag).arrow
    assert told(codec(tag).to_stored(array)) == told(values)


@given(columns_of_values(), st.data())
def test_values_of_every_tag_come_back_from_arrow_whole_and_sliced(column: tuple[str, list[Any]], data: st.DataObject) -> None:
    tag, values = column
    array = codec(tag).to_array(values)
    array.validate(full=True)
    assert told(codec(tag).to_stored(array)) == told(values)
    low = data.draw(st.integers(0, len(values)))
    high = data.draw(st.integers(low, len(values)))
    assert told(codec(tag).to_stored(array.slice(low, high - low))) == told(values[low:high])
    chunked = pa.table({f"x:{tag}": pa.chunked_array([array.slice(0, low), array.slice(low)], type=array.type)})
    assert told(stored_column(chunked, f"x:{tag}")) == told(values)
    picked = data.draw(st.lists(st.booleans(), min_size=len(values), max_size=len(values)))
    kept = [value for value, here in zip(values, picked, strict=True) if here]
    assert told(stored_column(chunked.filter(pa.array(picked, pa.bool_())), f"x:{tag}")) == told(kept)


@given(columns_of_values())
def test_values_of_every_tag_come_back_from_messagepack(column: tuple[str, list[Any]]) -> None:
    _, values = column
    again = unpack(pack(values))
    assert told(again) == told(values)
    assert [type(v) for v in again] == [type(v) for v in values]


@given(columns(), st.data())
@settings(max_examples=60)
def test_events_come_back_from_a_segment_whatever_their_columns_are_called(
    tmp_path_factory: pytest.TempPathFactory, names: list[str], data: st.DataObject
) -> None:
    kinds = {"A": Schema("A", 1, tuple(names)), "B": Schema("B", 1, tuple(names[::2])), "C": Schema("C", 1, ())}
    chosen = data.draw(st.lists(st.sampled_from("ABC"), min_size=1, max_size=6))
    rows = [
        Row(i, "a", f"order-{i % 2}", i, name, 1, bytes(16), i, -i, None, None, None, (), i, data.draw(payloads(kinds[name])))
        for i, name in enumerate(chosen, 1)
    ]
    schemas = {schema.key: schema for schema in kinds.values()}
    table = rows_to_table(rows, schemas)
    table.validate(full=True)
    path: Path = tmp_path_factory.mktemp("segments") / "one.parquet"
    written = write_segment(path, table)
    present = tuple(payload_columns(table))
    segment = Segment(1, path, "a", "order", 1, len(rows), len(rows), written.bytes, written.digest, present, 1, len(rows))
    assert segment.file.metadata.num_rows == len(rows)
    again = segment.read([0], ENVELOPE_NAMES, None)
    assert again.column_names == table.column_names
    assert again.schema.types == table.schema.types
    for column in present:
        assert told(stored_column(again, column)) == told(stored_column(table, column))
        alone = segment.read([0], ("position",), (column,))
        assert alone.column_names == ["position", column], "a column is picked by its whole name"
    assert [comparable(r) for r in Batch((again,), schemas).rows()] == [comparable(r) for r in rows]


def test_a_column_that_a_table_does_not_have_is_null_throughout() -> None:
    assert stored_column(pa.table({"position": [1, 2]}), "n:i64") == [None, None]


@pytest.mark.parametrize("column", ["x:i65", "x:", "x:l_", "x:r(", "x:variant"])
def test_a_column_of_an_unknown_type_is_damage_or_the_future(column: str) -> None:
    with pytest.raises(Damaged, match="no column type is called"):
        payload_array(column, [1])


def test_a_value_that_does_not_fit_its_column_is_never_stored_as_another() -> None:
    for column, value in [("x:i64", 2**63), ("x:d18_2", 2**63), ("x:s", 7), ("x:b", 1), ("x:uuid", b"short")]:
        with pytest.raises((pa.ArrowException, OverflowError)):
            payload_array(column, [value])
