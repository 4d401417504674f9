"""Bad input: whatever is parsed takes anything, and gives what was said, or an error of eventlab's that says where.

Payloads in the catalog, segment files, files to ingest, names, values. A damaged catalog or segment may even carry the right
digest: of a disk, or of a person, that wrote both. Nothing is stored by what is refused, and nothing is lost by it.

A slice runs by default; the campaign is `pytest -m campaign tests/store/test_bad_input.py` (minutes).
"""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import io
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from store.damage import catalog_of, says_something

import eventlab as el
from eventlab.errors import Damaged, EventlabError, IngestRefused, InvalidName, InvalidValue, NoStore
from eventlab.model.schema import Schema
from eventlab.store.base import MAX_PAYLOAD_BYTES, MAX_PAYLOAD_DEPTH, Row, pack, unpack
from eventlab.store.disk import open_store
from eventlab.store.verify import verify
from eventlab.testing.contract import append, draft, stream_rows

ROOT = Path(__file__).resolve().parents[2]
TAGS = (
    "b", "i64", "f64", "s", "bin", "uuid", "d18_2", "d38_9", "dec", "ts", "d", "t", "td", "json", "l_i64", "m_s",
    "r(city=s,n=i64)", "l_r(at=ts)",
)  # fmt: skip
EVERY = Schema("Every", 1, tuple(f"f{i}:{tag}" for i, tag in enumerate(TAGS)))
GOOD = (
    True, 1, 1.5, "x", b"b", bytes(16), 950, 10**20, "1.10", 0, 0, 0, 0, '{"a":1}', [1, 2], {"k": "v"}, {"city": "B", "n": 1},
    [{"at": 1}],
)  # fmt: skip

#: A function-scoped fixture is only a folder here, and every example takes another part of it.
few = settings(max_examples=25, suppress_health_check=list(HealthCheck))
fewer = settings(few, max_examples=12)
many = settings(max_examples=2_000, derandomize=False, suppress_health_check=list(HealthCheck))


def now() -> int:
    return time.time_ns() // 1000


def said(call: Callable[[], Any]) -> Any:
    """What a call gives, or the error of eventlab's that it raises; any other is a failure."""
    try:
        return call()
    except EventlabError as error:
        return error


def changed(folder: Path, statement: str, *values: Any) -> None:
    """Change the catalog of a closed store behind its back."""
    with catalog_of(folder) as catalog:
        catalog.execute(statement, values)


# -- what is read from a store ---------------------------------------------------------------------------------------------


def looks(folder: Path) -> dict[str, Any]:
    """What everything that reads a store gives, and then what keeps it."""
    found: dict[str, Any] = {}
    store = said(lambda: open_store(folder, now=now))
    if isinstance(store, EventlabError):
        return {"open": store}
    try:
        found["quick"], found["full"] = said(lambda: verify(store)), said(lambda: verify(store, full=True))
        found["rows"] = said(lambda: [row for batch in store.cut().batches(tenant=el.ALL) for row in batch.rows()])
        found["events"] = said(lambda: [e for batch in store.cut().batches(tenant=el.ALL) for e in batch.events(lambda _: None)])
        for stream in ("order-1", "every-1", "other-1"):
            found[stream] = said(lambda stream=stream: stream_rows(store.cut(), stream))
        found["load"] = said(lambda: [e for b in store.cut().stream("every-1", tenant="a") for e in b.events(lambda _: None)])
    finally:
        store.close()
    with el.open(folder, tenant=el.ALL) as lab:
        for name, query in {"sql": "select * from events.log", "types": "select * from types.every"}.items():
            found[name] = said(lambda query=query: lab.sql(query))
        found["frame"] = said(lambda: lab.read().frame())
        found["seal"], found["compact"] = said(lab.seal), said(lambda: lab.compact(all=True))
    return found


def hot_positions(folder: Path) -> list[int]:
    catalog = sqlite3.connect(folder / "catalog.sqlite")
    listed = catalog.execute("SELECT position FROM event ORDER BY position").fetchall()
    catalog.close()
    return [position for (position,) in listed]


@pytest.fixture(scope="module")
def hot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A closed store whose last four events are hot; those at positions 4 and 5 hold a value of every tag."""
    folder = tmp_path_factory.mktemp("hot") / "log"
    store = open_store(folder, now=now)
    append(store, draft("order-1", 1), draft("order-2", 2))
    store.seal()
    append(store, draft("order-1", 3))
    append(store, draft("every-1", *GOOD, schema=EVERY), draft("every-1", *GOOD, schema=EVERY))
    append(store, draft("other-1", 4))
    store.close()
    return folder


scalars = (
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=5) | st.binary(max_size=20)
)  # fmt: skip
anything = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3) | st.integers(0, 3), inner, max_size=3),
    max_leaves=5,
)


@st.composite
def blobs(draw: st.DrawFn) -> bytes:
    """Payloads: any bytes, a good one with bytes changed, any value, a good one with one value changed, and deep ones."""
    kind = draw(st.sampled_from(["bytes", "changed", "value", "one value", "deep"]))
    if kind == "bytes":
        return draw(st.binary(max_size=40))
    if kind == "changed":
        blob = bytearray(pack(GOOD))
        for _ in range(draw(st.integers(1, 3))):
            blob[draw(st.integers(0, len(blob) - 1))] = draw(st.integers(0, 255))
        return bytes(blob)
    if kind == "value":
        return pack(draw(anything))
    if kind == "deep":
        return b"\x91" * draw(st.sampled_from([10, 1_000, 100_000])) + b"\xc0"
    values = list(GOOD)
    values[draw(st.integers(0, len(values) - 1))] = draw(anything)
    return pack(values)


def put_payload(folder: Path, position: int, blob: bytes, *, proved: bool) -> None:
    """Write the payload of a hot event anew; `proved` takes its digest again where the bytes say anything at all."""
    with catalog_of(folder) as catalog:
        catalog.execute("UPDATE event SET record = set_in(record, 'payload', ?) WHERE position = ?", (blob, position))
        if proved and says_something(blob):
            catalog.execute("UPDATE event SET digest = digest_of(record) WHERE position = ?", (position,))


def payload_is_read_or_named(folder: Path, hot: Path, blob: bytes, proved: bool) -> None:
    shutil.copytree(hot, folder)
    put_payload(folder, 4, blob, proved=proved)
    before = hot_positions(folder)
    found = looks(folder)
    wrong = {name: error for name, error in found.items() if isinstance(error, EventlabError)}
    for name in wrong.keys() - {"compact"}:
        assert isinstance(wrong[name], Damaged), (name, wrong[name])
        assert "position 4" in wrong[name].message, (name, wrong[name])
    assert len(found["other-1"]) == 1, "another stream, all of it hot, is read as ever"
    if "rows" in wrong:
        assert {"every-1", "load", "sql", "seal"} & wrong.keys()
        assert {finding.severity for report in (found["quick"], found["full"]) for finding in report.findings} >= {"damage"}
        assert hot_positions(folder) == before, "what cannot be sealed is not trimmed"
    else:
        (row,) = (row for row in found["rows"] if row.position == 4)
        assert pack(row.payload) == pack(unpack(blob))
    if not proved and unpack_or_none(blob) != list(GOOD):
        assert "rows" in wrong
        assert "hot-event-damaged" in {finding.code for finding in found["quick"].findings}


def unpack_or_none(blob: bytes) -> Any:
    return None if isinstance(value := said(lambda: unpack(blob)), EventlabError) else value


@few
@given(blobs(), st.booleans())
@example(pack(GOOD), False)
@example(pack((*GOOD[:3], b"x", *GOOD[4:])), True)
@example(pack((*GOOD[:14], [1.0], *GOOD[15:])), True)
@example(pack((*GOOD[:8], "1.1O", *GOOD[9:])), True)
@example(b"\x91" * 100_000 + b"\xc0", True)
def test_a_hot_payload_is_read_as_it_was_written_or_damage_at_its_position(
    tmp_path_factory: pytest.TempPathFactory, hot: Path, blob: bytes, proved: bool
) -> None:
    payload_is_read_or_named(tmp_path_factory.mktemp("one") / "log", hot, blob, proved)


@pytest.mark.campaign
@many
@given(blobs(), st.booleans())
def test_two_thousand_hot_payloads_are_read_or_named(
    tmp_path_factory: pytest.TempPathFactory, hot: Path, blob: bytes, proved: bool
) -> None:
    folder = tmp_path_factory.mktemp("one") / "log"
    payload_is_read_or_named(folder, hot, blob, proved)
    shutil.rmtree(folder)


# -- segment files whose digest is right -----------------------------------------------------------------------------------

KINDS = (
    pa.int64(), pa.int32(), pa.string(), pa.large_string(), pa.binary(), pa.float64(), pa.bool_(), pa.list_(pa.int64()),
    pa.timestamp("ns"), pa.struct([("a", pa.int8())]), pa.binary(16), pa.decimal128(18, 2), pa.null(),
    pa.map_(pa.string(), pa.string()),
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Sealed:
    """A closed store, and one of its segments: its row in the catalog, its bytes, and the table in it."""

    folder: Path
    id: int
    path: str
    data: bytes
    table: pa.Table


def sealed_store(folder: Path, *, sorted_by_stream: bool) -> Sealed:
    store = open_store(folder, now=now)
    append(store, draft("order-1", 1), draft("order-2", 2))
    append(store, draft("every-1", *GOOD, schema=EVERY), draft("every-2", *GOOD, schema=EVERY))
    append(store, draft("every-1", *GOOD, schema=EVERY))
    store.seal()
    if sorted_by_stream:
        store.compact(all=True)
    append(store, draft("other-1", 4))
    segment = next(segment for segment in store.segments() if segment.category == "every")
    store.close()
    path = segment.path
    return Sealed(folder, segment.id, str(path.relative_to(folder)), path.read_bytes(), pq.read_table(path))


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Sealed, Sealed]:
    """A store whose segments are in position order, and one whose segments are sorted by stream."""
    base = tmp_path_factory.mktemp("sealed")
    return sealed_store(base / "runs", sorted_by_stream=False), sealed_store(base / "era", sorted_by_stream=True)


def parquet(table: pa.Table, **options: Any) -> bytes:
    file = io.BytesIO()
    pq.write_table(table, file, **options)
    return file.getvalue()


@st.composite
def files(draw: st.DrawFn, of: Sealed) -> bytes:
    """Segment files: any bytes, cut off, with bytes changed, of other columns, types, orders, values and row groups."""
    data, table = of.data, of.table
    kind = draw(st.sampled_from(["bytes", "cut", "footer", "pages", "type", "gone", "nulls", "values", "order", "rows"]))
    if kind == "bytes":
        return draw(st.binary(max_size=100))
    if kind == "cut":
        return data[: draw(st.integers(0, len(data) - 1))]
    if kind in ("footer", "pages"):
        footer = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
        low, high = (footer, len(data) - 1) if kind == "footer" else (0, footer - 1)
        flipped = bytearray(data)
        for _ in range(draw(st.integers(1, 4))):
            flipped[draw(st.integers(low, high))] = draw(st.integers(0, 255))
        return bytes(flipped)
    if kind == "order":
        return parquet(table.select(draw(st.permutations(table.column_names))))
    if kind == "rows":
        copies = [table.slice(0, 0), *[table] * draw(st.integers(0, 3))]
        return parquet(pa.concat_tables(copies), row_group_size=1, write_statistics=draw(st.booleans()))
    name = draw(st.sampled_from(table.column_names))
    at, there = table.column_names.index(name), table.schema.field(name).type
    if kind == "gone":
        return parquet(table.drop_columns([name]))
    if kind == "nulls":
        return parquet(table.set_column(at, name, pa.nulls(len(table), there)))
    values = [None] * len(table) if kind == "type" else draw(st.lists(scalars, min_size=len(table), max_size=len(table)))
    if kind == "type":
        there = draw(st.sampled_from(KINDS))
    return parquet(table.set_column(at, name, pa.chunked_array([one_value(value, there) for value in values], there)))


def one_value(value: Any, kind: pa.DataType) -> pa.Array:
    """A value as an array of a type; null where it has no place in it."""
    try:
        return pa.array([value]).cast(kind)
    except (pa.ArrowException, OverflowError):
        return pa.nulls(1, kind)


def segment_is_read_or_named(folder: Path, of: Sealed, data: bytes, rows_too: bool) -> None:
    shutil.copytree(of.folder, folder)
    (folder / of.path).write_bytes(data)
    changed(folder, "UPDATE segment SET bytes = ?, digest = ? WHERE id = ?", len(data), hashlib.sha256(data).hexdigest(), of.id)
    if rows_too:  # whoever wrote the file also put its number of rows and its columns into the catalog
        try:
            footer = pq.read_metadata(io.BytesIO(data))
            columns = json.dumps([name for name in footer.schema.to_arrow_schema().names if ":" in name])
            changed(folder, "UPDATE segment SET rows = ?, columns = ? WHERE id = ?", footer.num_rows, columns, of.id)
        except (pa.ArrowException, OSError, ValueError):
            pass
    before = hot_positions(folder)
    found = looks(folder)
    wrong = {name: error for name, error in found.items() if isinstance(error, EventlabError)}
    assert len(found["other-1"]) == 1, "a stream that is not in the file is read as ever"
    assert found["seal"] == len(before), "and what is hot can still be sealed"
    damage = [finding for finding in found["full"].findings if finding.severity == "damage"]
    if found["rows"] != of_store(of):
        assert wrong or damage, "what is not as it was written is noticed"
    for name in wrong.keys() & {"rows", "events", "every-1", "load"}:
        assert of.path in str(wrong[name]) or "position" in str(wrong[name]) or "does not know" in str(wrong[name]), wrong[name]


def of_store(of: Sealed) -> list[Row]:
    """All events of a store as it was written."""
    if of.folder not in _WRITTEN:
        store = open_store(of.folder, now=now)
        _WRITTEN[of.folder] = [row for batch in store.cut().batches(tenant=el.ALL) for row in batch.rows()]
        store.close()
    return _WRITTEN[of.folder]


_WRITTEN: dict[Path, list[Row]] = {}


@few
@given(st.data())
def test_a_segment_with_the_right_digest_is_read_as_it_was_written_or_it_is_noticed(
    tmp_path_factory: pytest.TempPathFactory, sealed: tuple[Sealed, Sealed], data: st.DataObject
) -> None:
    of = data.draw(st.sampled_from(sealed))
    folder = tmp_path_factory.mktemp("one") / "log"
    segment_is_read_or_named(folder, of, data.draw(files(of)), data.draw(st.booleans()))


@pytest.mark.campaign
@many
@given(st.data())
def test_two_thousand_segments_with_the_right_digest_are_read_or_noticed(
    tmp_path_factory: pytest.TempPathFactory, sealed: tuple[Sealed, Sealed], data: st.DataObject
) -> None:
    of = data.draw(st.sampled_from(sealed))
    folder = tmp_path_factory.mktemp("one") / "log"
    segment_is_read_or_named(folder, of, data.draw(files(of)), data.draw(st.booleans()))
    shutil.rmtree(folder)


# -- the catalog itself ----------------------------------------------------------------------------------------------------


@few
@given(
    table=st.sampled_from(["log", "event", "segment", "schema", "event_key_position", "stream_head"]),
    sql=st.none() | st.text(max_size=40) | st.just("CREATE TABLE x(") | st.just("CREATE TABLE log(id)") | st.binary(max_size=8),
    read_only=st.booleans(),
)
def test_a_store_whose_tables_are_defined_as_anything_else_says_that_it_is_damaged(
    tmp_path_factory: pytest.TempPathFactory, hot: Path, table: str, sql: str | bytes | None, read_only: bool
) -> None:
    folder = tmp_path_factory.mktemp("one") / "log"
    shutil.copytree(hot, folder)
    catalog = sqlite3.connect(folder / "catalog.sqlite")
    catalog.execute("PRAGMA writable_schema = ON")
    with catalog:
        catalog.execute("UPDATE sqlite_master SET sql = CAST(? AS TEXT) WHERE name = ?", (sql, table))
    catalog.close()

    def look() -> None:
        store = open_store(folder, now=now, read_only=read_only)
        try:
            assert not verify(store).ok
        finally:
            store.close()

    error = said(look)
    assert error is None or isinstance(error, Damaged), error


def test_a_catalog_that_is_no_database_is_no_store(tmp_path: Path) -> None:
    (tmp_path / "catalog.sqlite").write_bytes(b"SQLite format 3\0" + bytes(range(256)) * 20)
    for read_only in (False, True):
        with pytest.raises((NoStore, Damaged)):
            open_store(tmp_path, now=now, read_only=read_only)


# -- files to ingest -------------------------------------------------------------------------------------------------------

words = st.text(max_size=8)


def spelled(table: dict[str, list[str]], delimiter: str) -> bytes:
    file = io.StringIO()
    writer = csv.writer(file, delimiter=delimiter, quoting=csv.QUOTE_ALL, lineterminator="\n")
    writer.writerows([table.keys(), *zip(*table.values(), strict=True)])
    return file.getvalue().encode()


@st.composite
def sources(draw: st.DrawFn) -> tuple[str, bytes]:
    """A file to ingest: a good one, or one that was cut off or has bytes changed, or any bytes."""
    suffix = draw(st.sampled_from([".csv", ".tsv", ".jsonl", ".ndjson", ".parquet"]))
    if draw(st.booleans()):
        ids = draw(st.lists(st.integers(0, 9), max_size=4))
        table = {"id": [str(i) for i in ids], "word": [draw(words) for _ in ids]}
        if suffix == ".parquet":
            data = parquet(pa.table(table))
        elif suffix in (".csv", ".tsv"):
            data = spelled(table, "," if suffix == ".csv" else "\t")
        else:
            rows = [dict(zip(table, row, strict=True)) for row in zip(*table.values(), strict=True)]
            data = "".join(json.dumps(row) + "\n" for row in rows).encode()
    else:
        text = st.text(max_size=60) | words.map(lambda word: f"id,word\n1,{word}")
        data = draw(st.binary(max_size=60) | text.map(str.encode))
    changed = bytearray(data)
    for _ in range(draw(st.integers(0, 3)) if changed else 0):
        changed[draw(st.integers(0, len(changed) - 1))] = draw(st.integers(0, 255))
    return suffix, bytes(changed[: draw(st.none() | st.integers(0, len(changed)))])


def stored(lab: el.Lab) -> list[tuple[str, Any]]:
    return [(event.stream, event.data) for event in lab.read()]


def file_is_ingested_or_refused(folder: Path, suffix: str, data: bytes) -> None:
    path = folder / f"given{suffix}"
    path.write_bytes(data)
    with el.open(folder / "log", maintain=False) as lab:
        done = said(lambda: lab.ingest(el.rows("Given", path, stream="note-{id}"), source="given"))
        if isinstance(done, EventlabError):
            assert done.hint, done
            assert (lab.head, list((folder / "log").glob("segments/**/*.parquet"))) == (0, [])
            assert lab.append("note-1", [Noted("after it")]).positions == (1,)
            return
        there = stored(lab)
        assert len(there) == done.events == lab.head
        lab.seal()
        lab.compact(all=True)
        assert stored(lab) == there
        assert verify(lab.store, full=True).ok
        assert lab.ingest(el.rows("Given", path, stream="note-{id}"), source="given").events == 0


@few
@given(sources())
@example((".csv", b""))
@example((".csv", b"id,word\n1,\xff"))
@example((".csv", b"id,word\n1\n2,a,b\n"))
@example((".jsonl", b'{"id":"1","word":' + b"[" * 100_000 + b"]" * 100_000 + b"}"))
@example((".jsonl", b'{"id":"1","id":"2"}'))
@example((".parquet", b"PAR1PAR1"))
def test_a_file_is_ingested_whole_or_refused_and_nothing_is_stored(
    tmp_path_factory: pytest.TempPathFactory, source: tuple[str, bytes]
) -> None:
    file_is_ingested_or_refused(tmp_path_factory.mktemp("given"), *source)


@pytest.mark.campaign
@many
@given(sources())
def test_two_thousand_files_are_ingested_or_refused(tmp_path_factory: pytest.TempPathFactory, source: tuple[str, bytes]) -> None:
    folder = tmp_path_factory.mktemp("given")
    file_is_ingested_or_refused(folder, *source)
    shutil.rmtree(folder)


@few
@given(st.lists(st.tuples(st.integers(0, 9), words), min_size=1, max_size=6), st.sampled_from([".csv", ".tsv"]))
@example([(1, 'a "b"\n,\t\r'), (1, ""), (2, "\ufeff")], ".csv")
def test_cells_of_any_text_come_back_as_they_were(
    tmp_path_factory: pytest.TempPathFactory, cells: list[tuple[int, str]], suffix: str
) -> None:
    path = tmp_path_factory.mktemp("given") / f"given{suffix}"
    table = {"id": [str(i) for i, _ in cells], "word": [word for _, word in cells]}
    path.write_bytes(spelled(table, "," if suffix == ".csv" else "\t"))
    with el.scratch() as lab:
        done = said(lambda: lab.ingest(el.rows("Given", path, stream="note-{id}"), source="given"))
        assert not isinstance(done, EventlabError), done
        assert stored(lab) == [(f"note-{i}", {"id": str(i), "word": word}) for i, word in cells]


# -- names and values ------------------------------------------------------------------------------------------------------


@el.event
class Noted:
    """Somebody wrote something down."""

    what: Any


@el.event
class Tied:
    """Something was tied to something."""

    to: el.Tag[str]


QUOTE = '"'
#: What people and attackers put into names, beside any text at all.
names = st.text(max_size=12) | st.sampled_from(
    ["", " ", ".", "..", "../x", "a/b", "a\\b", "C:", "nul", "a\0b", "\n", "\x7f", "\ud800", "İ", "ß", "\u202ea", "é", "e\u0301",
     "%", "'", '"', ";--", "a" * 505, "a" * 513, "ä" * 256, "ä" * 257, "-", "--", "{x}", "$", "~", "*"]
)  # fmt: skip


def kept(folder: Path, write: Callable[[el.Lab], Any], tell: Callable[[el.Lab], Any], tenant: str = "default") -> None:
    """What is written is told the same hot, sealed, compacted and after a new start; or it is refused and nothing is there."""
    with el.open(folder, maintain=False) as lab:
        lab.append("note-0", [Noted(None)])
    with el.open(folder, tenant=el.ALL, maintain=False) as everything:

        def attempt() -> None:
            with el.open(folder, tenant=tenant, maintain=False) as lab:
                write(lab)

        refused = said(attempt)
        if refused is not None:
            assert isinstance(refused, (InvalidName, InvalidValue, IngestRefused)), refused
            assert everything.head == 1
            assert verify(everything.store, full=True).ok
            return
        assert everything.head > 1
    told = []
    for keep in (None, el.Lab.seal, lambda lab: lab.compact(all=True), None):
        with el.open(folder, tenant=tenant, maintain=False) as lab:
            if keep is not None:
                keep(lab)
            told.append(tell(lab))
            assert verify(lab.store, full=True).ok
    assert told[1:] == told[:-1]


@fewer
@given(names)
def test_a_stream_of_any_name_is_kept_or_refused(tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    stream = f"kept-{name}"

    def tell(lab: el.Lab) -> Any:
        events = [event.stream for event in lab.read(el.stream(stream))]
        assert events == [stream] * 2
        assert lab.sql("SELECT _stream FROM events.log WHERE _stream = $s", s=stream)["_stream"].to_list() == [stream] * 2
        return events

    kept(tmp_path_factory.mktemp("one") / "log", lambda lab: [lab.append(stream, [Noted(i)]) for i in range(2)], tell)


@fewer
@given(names)
def test_a_tag_of_any_value_is_kept_or_refused(tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    def tell(lab: el.Lab) -> Any:
        (event,) = lab.read(el.tag(to=name))
        assert event.data == Tied(name)
        return event.tags

    kept(tmp_path_factory.mktemp("one") / "log", lambda lab: lab.append("note-1", [Tied(name)]), tell)


@fewer
@given(names)
def test_a_tenant_of_any_name_is_kept_or_refused(tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    def tell(lab: el.Lab) -> Any:
        (event,) = lab.read()
        assert (event.data, event.tenant) == (Noted(1), name)
        return lab.sql("SELECT _stream, _tenant FROM events.log").rows()

    if name == "default":
        return
    kept(tmp_path_factory.mktemp("one") / "log", lambda lab: lab.append("note-1", [Noted(1)]), tell, tenant=name)


@fewer
@given(names, names, names)
def test_a_type_a_field_and_a_source_of_any_name_are_kept_or_refused(
    tmp_path_factory: pytest.TempPathFactory, name: str, field: str, source: str
) -> None:
    frame = pl.DataFrame({"id": [1, 2]}).with_columns(pl.Series("held", ["x", "y"]))

    def write(lab: el.Lab) -> Any:
        rows = el.rows(f"T{name}", frame, stream="note-{id}", fields={f"f{field}": "held", "id": "id"})
        return lab.ingest(rows, source=source or "s")

    def tell(lab: el.Lab) -> Any:
        found = [event for event in lab.read() if event.stream != "note-0"]
        assert [(event.type, event.data) for event in found] == [
            (f"T{name}", {"id": i + 1, f"f{field}": value}) for i, value in enumerate("xy")
        ]
        views = lab.sql("SELECT view_name FROM duckdb_views() WHERE schema_name = 'types'")["view_name"]
        shown = set(views) - {"noted", "noted_v1"}
        for view in shown:
            held = lab.sql(f'SELECT * FROM types."{view.replace(QUOTE, QUOTE * 2)}" ORDER BY _position')[f"f{field}"]
            assert held.to_list() == ["x", "y"]
        assert len(shown) == 2, "the type, and its one version"
        return [event.data for event in found]

    kept(tmp_path_factory.mktemp("one") / "log", write, tell)


values = st.recursive(
    scalars | st.sampled_from([2**63, -(2**63) - 1, 10**400, 1e308, -0.0, float("nan"), "\ud800", "a\0b", "x" * 70_000]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words | st.integers(0, 2), inner, max_size=3),
    max_leaves=6,
)


@fewer
@given(values)
def test_a_payload_of_any_value_is_kept_or_refused(tmp_path_factory: pytest.TempPathFactory, value: Any) -> None:
    def tell(lab: el.Lab) -> Any:
        found = [event.data.what for event in lab.read(el.stream("note-1"))]
        assert found == [value]
        assert json.dumps(found[0], sort_keys=True) == json.dumps(value, sort_keys=True), "and every number is of the same type"
        return found

    kept(tmp_path_factory.mktemp("one") / "log", lambda lab: lab.append("note-1", [Noted(value)]), tell)


def nested(depth: int) -> Any:
    """So many lists, one in the other."""
    value: list[Any] = []
    for _ in range(depth - 1):
        value = [value]
    return value


@pytest.mark.parametrize("way", ["append", "ingest"])
def test_payloads_nest_so_deep_and_no_deeper(tmp_path: Path, way: str) -> None:
    def put(depth: int) -> None:
        if way == "append":
            lab.append("note-1", [Noted(nested(depth))])
        else:
            (tmp_path / "given.jsonl").write_text('{"what":' + "[" * depth + "]" * depth + "}")
            lab.ingest(el.rows(Noted, tmp_path / "given.jsonl", stream="note-1"), source=f"at {lab.head}")

    with el.open(tmp_path / "log") as lab:
        put(MAX_PAYLOAD_DEPTH)
        lab.seal()
        assert [event.data.what for event in lab.read()] == [nested(MAX_PAYLOAD_DEPTH)]
        for depth in (MAX_PAYLOAD_DEPTH + 1, 2_000):
            with pytest.raises((InvalidValue, IngestRefused), match=f"{MAX_PAYLOAD_DEPTH} lists and dicts deep"):
                put(depth)
        assert lab.head == 1


@pytest.mark.parametrize("way", ["append", "ingest"])
def test_payloads_are_so_large_and_no_larger(tmp_path: Path, way: str) -> None:
    def put(text: str) -> None:
        if way == "append":
            lab.append("note-1", [Noted(text)])
        else:
            lab.ingest(el.rows(Noted, pl.DataFrame({"what": [[text]]}), stream="note-1"), source=f"at {lab.head}")

    with el.open(tmp_path / "log") as lab:
        put("x" * (MAX_PAYLOAD_BYTES - 100))
        with pytest.raises((InvalidValue, IngestRefused), match=f"{MAX_PAYLOAD_BYTES:,}"):
            put("x" * (MAX_PAYLOAD_BYTES + 1))
        assert lab.head == 1


# -- files that are small and hold much ------------------------------------------------------------------------------------

BOMBS = """
    import hashlib, resource, sqlite3, sys, time
    from pathlib import Path
    import numpy as np, pyarrow as pa, pyarrow.parquet as pq
    import eventlab as el
    from eventlab.errors import EventlabError
    from eventlab.model.schema import Schema
    from eventlab.store.disk import open_store
    from eventlab.store.verify import verify
    from eventlab.testing.contract import append, draft

    root, rows = Path(sys.argv[1]), 60_000_000
    listed = Schema("Listed", 1, ("n:l_i64",))

    def bomb(name, column):  # 480 MB in memory, next to nothing in a file
        folder = root / name
        store = open_store(folder, now=lambda: time.time_ns() // 1000)
        append(store, draft("order-1", [1], schema=listed) if column == "n:l_i64" else draft("order-1", 1))
        store.seal()
        (segment,) = store.segments()
        store.close()
        table = pq.read_table(segment.path)
        if column == "n:l_i64":
            long = pa.ListArray.from_arrays(pa.array([0, rows], pa.int32()), pa.repeat(pa.scalar(7), rows))
            table = table.set_column(table.column_names.index(column), column, long)
        else:
            table = pa.table({n: pa.repeat(c[0], 3_000_000) for n, c in zip(table.column_names, table.columns)})
        pq.write_table(table, segment.path, compression="zstd", row_group_size=rows)
        data = segment.path.read_bytes()
        catalog = sqlite3.connect(folder / "catalog.sqlite")
        with catalog:
            catalog.execute("UPDATE segment SET digest = ?, bytes = ?, rows = ?",
                            (hashlib.sha256(data).hexdigest(), len(data), len(table)))
        catalog.close()
        return folder, len(data)

    def text(path):  # a hundred gigabytes
        words = pa.DictionaryArray.from_arrays(pa.array(np.zeros(100_000, np.int32)), pa.array(["y" * 1_000_000]))
        pq.write_table(pa.table({"id": words, "text": words}), path, store_schema=False)
        return path

    def numbers(path):
        with pq.ParquetWriter(path, pa.schema([("id", pa.int64()), ("n", pa.int64())])) as file:
            part = pa.table({"id": pa.repeat(pa.scalar(7), 1_000_000), "n": pa.repeat(pa.scalar(7), 1_000_000)})
            for _ in range(10):
                file.write_table(part)
        return path

    def tell(what, call):
        try:
            call()
            print(what, "was read")
        except EventlabError as why:
            print(what, type(why).__name__, bool(why.hint), why.message)

    made = [bomb("list", "n:l_i64"), bomb("rows", "n:i64")]
    assert all(size < 1_000_000 for _, size in made)
    ingested = [text(root / "text.parquet"), numbers(root / "numbers.parquet")]
    with el.open(root / "new") as lab:  # everything that is imported late is imported now
        lab.append("order-1", [])
        lab.sql("select 1")
    pa.default_memory_pool().release_unused()
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + 400_000_000,) * 2)
    for folder, _ in made:
        with el.open(folder, tenant="a") as lab:
            tell("read", lambda: lab.read().list())
            tell("load", lambda: [b for b in lab.store.cut().stream("order-1", tenant="a")])
            tell("sql", lambda: lab.sql("select * from events.log"))
            print("verify", sorted({f.severity for f in verify(lab.store, full=True).findings} & {"damage"}))
    with el.open(root / "new") as lab:
        for path in ingested:
            tell("ingest", lambda: lab.ingest(el.rows("Seen", path, stream="order-{id}"), source=path.name))
            tell("ingest", lambda: lab.ingest(el.rows("Seen", path, stream="order-1"), source=path.name))
        print("head", lab.store.cut().head, sum(1 for _ in (root / "new").glob("segments/**/*.parquet")))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is limited and measured as Linux does it")
def test_a_small_file_that_expands_to_more_than_there_is_memory_is_refused(tmp_path: Path) -> None:
    command = [sys.executable, "-c", textwrap.dedent(BOMBS), str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "EVENTLAB_PROGRESS": "off"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=110, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    told = [line.split(" ", 3) for line in done.stdout.splitlines()]
    for kind in ("StoreError", "Damaged"):
        for what in ("read", "load", "sql"):
            assert told.pop(0)[:3] == [what, kind, "True"], done.stdout
        assert told.pop(0) == ["verify", "['damage']"], done.stdout
    for _ in range(4):
        what, kind, hint, message = told.pop(0)
        assert (what, kind, hint) == ("ingest", "IngestRefused", "True")
        assert "bytes of memory" in message
    assert told == [["head", "0", "0"]]
