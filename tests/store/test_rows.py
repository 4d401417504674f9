"""Rows of a base: replaced and inserted by key as a dictionary would do it, whatever their types."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventlab.store import read_models
from eventlab.store.read_models import Rows

VALUES = {
    "whole": (pa.int64(), st.integers(-(2**63), 2**63 - 1)),
    "wide": (pa.decimal128(38, 2), st.integers(-(10**30), 10**30).map(lambda n: Decimal(n).scaleb(-2))),
    "yes": (pa.bool_(), st.booleans()),
    "when": (pa.timestamp("us", tz="UTC"), st.datetimes(timezones=st.just(dt.UTC))),
    "day": (pa.date32(), st.dates()),
    "float": (pa.float64(), st.floats(allow_nan=False)),
    "text": (pa.string(), st.text(max_size=5)),
    "maybe": (pa.int64(), st.none() | st.integers(0, 9)),
    "many": (pa.list_(pa.int64()), st.lists(st.integers(0, 9), max_size=3)),
}
SCHEMAS = {
    "one": pa.schema([("k", pa.string()), *((name, kind) for name, (kind, _) in VALUES.items())]),
    "two": pa.schema([("k", pa.string()), ("n", pa.int64()), *((name, kind) for name, (kind, _) in VALUES.items())]),
}
ROW = st.fixed_dictionaries({name: values for name, (_, values) in VALUES.items()})


def keys(shape: str) -> st.SearchStrategy[tuple[Any, ...]]:
    """Few keys, so that they meet."""
    texts = st.sampled_from(["", "a", "b", "ab", "é", "z", "￿"])
    return st.tuples(texts) if shape == "one" else st.tuples(texts, st.integers(0, 2))


def table(shape: str, rows: dict[tuple[Any, ...], dict[str, Any]]) -> pa.Table:
    """Rows by key, in the order of their keys, with a slice's offset as files have it."""
    names = ["k"] if shape == "one" else ["k", "n"]
    listed = [dict(zip(names, key, strict=True)) | rows[key] for key in sorted(rows)]
    whole = pa.Table.from_pylist([*listed[:1], *listed], schema=SCHEMAS[shape])
    return whole.slice(1) if listed else whole


@given(st.data(), st.sampled_from(["one", "two"]), st.booleans())
def test_newer_rows_take_the_place_of_those_of_their_keys(data: st.DataObject, shape: str, only_known: bool) -> None:
    old = data.draw(st.dictionaries(keys(shape), ROW, max_size=8), label="old")
    known = st.sampled_from(sorted(old)) if only_known and old else keys(shape)
    new = data.draw(st.dictionaries(known, ROW, max_size=8), label="new")
    before, newer = table(shape, old), table(shape, new)
    names = ["k"] if shape == "one" else ["k", "n"]
    found = Rows(before, names).with_rows(newer)
    assert found.to_pylist() == table(shape, old | new).to_pylist()
    assert found.schema == before.schema
    # What was given is not written over.
    assert before.to_pylist() == table(shape, old).to_pylist()


@pytest.mark.parametrize("many", [0, 10**9], ids=["by Polars", "by PyArrow"])
def test_a_table_comes_back_from_its_file_as_it_was(many: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(read_models, "MANY_ROWS", many)
    moment = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    columns = {
        "_id": pa.array(["a", "b", None]),
        "n": pa.array([1, None, -(2**63)]),
        "x": pa.array([0.5, float("nan"), None]),
        "ok": pa.array([True, None, False]),
        "day": pa.array([moment.date(), None, dt.date(1, 1, 1)]),
        "at": pa.array([moment, None, moment], pa.timestamp("us", "UTC")),
        "total": pa.array([Decimal("1.10"), None, Decimal("-9999999999999999.99")], pa.decimal128(18, 2)),
        "wide": pa.array([Decimal(1), None, Decimal(10**37)], pa.decimal128(38, 0)),
        "texts": pa.array([["x", None], None, []], pa.list_(pa.string())),
        "nested": pa.array([[[1], []], None, []], pa.list_(pa.list_(pa.int64()))),
    }
    fields = [pa.field(name, array.type, metadata={"tag": name}) for name, array in columns.items()]
    table = pa.table(list(columns.values()), schema=pa.schema(fields))
    path = tmp_path / "x.parquet"
    with path.open("wb") as file:
        read_models._write_parquet(table, file, "{}")
    found = read_models._read_parquet(pa.py_buffer(path.read_bytes()))
    assert found.schema == table.schema
    assert [field.metadata[b"tag"] for field in found.schema] == [name.encode() for name in columns]
    assert str(found.to_pylist()) == str(table.to_pylist())
    assert pq.read_metadata(path).metadata[b"eventlab"] == b"{}"
    assert len(pl.read_parquet(path)) == 3
