"""SQL over the log: what its schemas hold, what parameters and frames do, and that no statement writes or looks elsewhere."""

from __future__ import annotations

import contextlib
import datetime as dt
import hashlib
import os
import sqlite3
import subprocess
import sys
import tempfile
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from decimal import Decimal
from pathlib import Path
from typing import Any, Self

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from replay import oracle
from replay.oracle import LAYOUTS, Log

import eventlab as el
from eventlab.errors import QueryRefused
from eventlab.model.names import snake

ENVELOPE = {
    "_position": pl.Int64(),
    "_stream": pl.String(),
    "_category": pl.String(),
    "_id": pl.String(),
    "_version": pl.Int64(),
    "_type": pl.String(),
    "_schema_version": pl.Int16(),
    "_event_id": pl.String(),
    "_recorded_at": pl.Datetime("us", "UTC"),
    "_occurred_at": pl.Datetime("us", "UTC"),
    "_correlation_id": pl.String(),
    "_causation_id": pl.String(),
    "_actor": pl.String(),
    "_tenant": pl.String(),
    "_tags": pl.List(pl.String()),
}


@dataclass(frozen=True)
class Size:
    width: int
    depth: int | None = None


@el.event
class BalePacked:
    """A bale was packed."""

    weight: Decimal
    size: Size
    tags: frozenset[str] = frozenset()
    took: dt.timedelta | None = None
    lid: Size | None = None
    code: uuid.UUID | None = None


@el.event
class BaleSent:
    """It left the house."""

    customer: el.Tag[str]


@el.aggregate
class Bale:
    status: str = "new"
    weight: Decimal = Decimal(0)

    def evolve(self, event: BalePacked | BaleSent) -> Self:
        if isinstance(event, BalePacked):
            return replace(self, status="packed", weight=event.weight)
        return replace(self, status="sent")


PACKED = BalePacked(Decimal("1.5"), Size(3), frozenset({"b", "a"}), dt.timedelta(minutes=2), Size(1, 2), uuid.UUID(int=7))


def fill(lab: el.Lab) -> None:
    with el.context(actor="ada"):
        lab.append("bale-1", [PACKED, BaleSent("c'9")], tags=["vip"])
    if lab.path is not None:
        lab.seal()
    lab.append("bale-2-b", [BalePacked(Decimal(20), Size(1, 1))])


@pytest.fixture(params=["memory", "disk"])
def lab(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[el.Lab]:
    with el.scratch() if request.param == "memory" else el.open(tmp_path / "log") as lab:
        fill(lab)
        yield lab


# -- what is there


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_views_hold_the_events_of_the_log(layout: str) -> None:
    @settings(max_examples=6 if layout == "memory" else 3)
    @given(log=oracle.logs())
    def check(log: Log) -> None:
        log = log.singly() if layout == "ingested" else log
        with tempfile.TemporaryDirectory() as folder, oracle.written(layout, Path(folder) / "log", log) as lab:
            expected, versions = [], Counter[str]()
            for position, (stream, event) in enumerate(log.facts, 1):
                versions[stream] += 1
                time = oracle.occurred(position, log.ends)
                place = (position, stream, *stream.split("-", 1), versions[stream])
                expected.append((*place, type(event).__name__, time, time))
            names = "_position, _stream, _category, _id, _version, _type, _recorded_at, _occurred_at"
            assert lab.sql(f"select {names} from events.log order by 1").rows() == expected
            for category, count in Counter(stream.partition("-")[0] for stream, _ in log.facts).items():
                assert lab.sql(f"select count(*) from events.{category}").item() == count
            for cls in {type(event) for _, event in log.facts} - {oracle.CrateCleared}:
                names = ", ".join(f'"{f.name}"' for f in fields(cls))
                payloads = [
                    (i, *(oracle.shown(getattr(event, f.name)) for f in fields(cls)))
                    for i, (_, event) in enumerate(log.facts, 1)
                    if isinstance(event, cls)
                ]
                for view in (snake(cls.__name__), f"{snake(cls.__name__)}_v1"):
                    assert lab.sql(f"select _position, {names} from types.{view} order by 1").rows() == payloads

    check()


def test_the_log_has_the_envelope_and_a_category_and_a_type_have_their_fields_too(lab: el.Lab) -> None:
    fields = {
        "weight": pl.Decimal(38, 9),
        "size": pl.Struct({"width": pl.Int64(), "depth": pl.Int64()}),
        "tags": pl.List(pl.String()),
        "took": pl.Duration("us"),
        "lid": pl.Struct({"width": pl.Int64(), "depth": pl.Int64()}),
        "code": pl.String(),
    }
    assert lab.sql("select * from events.log").schema == ENVELOPE
    assert lab.sql("select * from events.bale").schema == {**ENVELOPE, **fields, "customer": pl.String()}
    for view in ("bale_packed", "bale_packed_v1"):
        assert lab.sql(f"select * from types.{view}").schema == {**ENVELOPE, **fields}
    assert lab.sql("select * from types.bale_sent").schema == {**ENVELOPE, "customer": pl.String()}
    assert lab.sql("select * from state.bale").equals(lab.table(Bale))


def test_the_values_are_those_of_the_events(lab: el.Lab) -> None:
    names = "weight, size, tags, took, lid, code, _tags, _actor, _tenant, _version, _id, _category"
    assert lab.sql(f"select {names} from types.bale_packed order by _position").rows() == [
        (
            Decimal("1.5"), {"width": 3, "depth": None}, ["a", "b"], dt.timedelta(minutes=2), {"width": 1, "depth": 2},
            str(uuid.UUID(int=7)), ["vip"], "ada", "default", 1, "1", "bale",
        ),
        (Decimal(20), {"width": 1, "depth": 1}, [], None, None, None, [], None, "default", 1, "2-b", "bale"),
    ]  # fmt: skip
    assert lab.sql("select customer, _tags from types.bale_sent").rows() == [("c'9", ["customer:c'9", "vip"])]
    ids = [(str(e.event_id), str(e.correlation_id), e.causation_id and str(e.causation_id)) for e in lab.read()]
    assert lab.sql("select _event_id, _correlation_id, _causation_id from events.log order by _position").rows() == ids
    assert lab.sql("select typeof(took), typeof(code), typeof(_event_id) from types.bale_packed limit 1").rows() == [
        ("INTERVAL", "UUID", "UUID")
    ]


def test_an_empty_log_has_its_one_view() -> None:
    empty = el.scratch().sql("select * from events.log")
    assert (empty.schema, len(empty)) == (ENVELOPE, 0)


def bale_weighed(version: int) -> type[Any]:
    """The same event type, before and after it got another field."""
    if version == 1:

        @el.event(version=1)
        class BaleWeighed:
            """Put on a scale."""

            grams: int

    else:

        @el.event(version=2)
        class BaleWeighed:  # type: ignore[no-redef]
            """Put on a scale."""

            grams: int
            scale: str | None = None

    return BaleWeighed


def test_a_type_is_shown_at_its_newest_version_and_each_version_raw(lab: el.Lab) -> None:
    lab.append("bale-1", [bale_weighed(1)(100)])
    if lab.path is not None:
        lab.seal()
    lab.append("bale-1", [bale_weighed(2)(200, "left")])
    assert lab.sql("select grams, scale, _schema_version from types.bale_weighed order by _position").rows() == [
        (100, None, 1),
        (200, "left", 2),
    ]
    assert lab.sql("select * exclude (_event_id) from types.bale_weighed_v1").columns[-1] == "grams"
    assert lab.sql("select grams from types.bale_weighed_v1").rows() == [(100,)]
    assert lab.sql("select grams, scale from types.bale_weighed_v2").rows() == [(200, "left")]


@pytest.mark.parametrize("category", ["log", "order", "select", "table", "category_log"])
def test_a_category_may_have_a_name_that_sql_knows(category: str) -> None:
    lab = el.scratch()
    lab.append({f"{category}-1": [BaleSent("c1")], "log-2": [BaleSent("c2")]})
    views = lab.sql("select table_name from information_schema.tables where table_schema = 'events' order by 1")["table_name"]
    assert len(views) == len({category, "log"}) + 1
    assert lab.sql("select count(*) from events.log").item() == 2
    counts = {view: lab.sql(f'select count(*) from events."{view}"').item() for view in views if view != "log"}
    assert sum(counts.values()) == 2
    assert lab.sql("select customer from events.category_log").height == (2 if category == "log" else 1)


def test_names_are_found_in_any_case_and_quoted(lab: el.Lab) -> None:
    for text in ("from STATE.Bale", 'from "state"."bale"', "from state.BALE p", 'select * from "STATE" . "Bale"'):
        assert lab.sql(text).height == 2
    assert lab.sql("from Events.LOG").height == 3
    assert lab.sql("from types.Bale_Sent").height == 1


SPELLINGS = [
    "select count(*) as n from {}.{}",
    'SELECT count(*) AS n FROM "{}" . "{}"',
    'select count(*) as n from memory.{}."{}"',
    "select count(*) as n from {} /* a schema */ . {}",
    "select count(*) as n from {} -- a schema\n.{}",
    "with mine as (from {}.{}) select count(*) as n from mine",
    "select count(*) as n from {}.{} as events",
    "select count(*) as n from (select 'types and events' as text, * from {}.{})",
]


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("view", ["events.log", "types.bale_weighed_v1", "EVENTS.LOG"])
def test_a_view_is_there_however_a_first_query_spells_it(spelling: str, view: str) -> None:
    with el.scratch() as lab:
        fill(lab)
        known = [f"{schema}.{name}" for schema, name in lab.sql("select schema_name, view_name from duckdb_views()").rows()]
        view = view if view.lower() in known else next(name for name in known if name.startswith("types."))
        right = len(lab.read()) if view.lower() == "events.log" else lab.sql(f"select count(*) as n from {view}").item()
    with el.scratch() as lab:
        fill(lab)
        assert lab.sql(spelling.format(*view.split("."))).item() == right
        listed = lab.sql("select schema_name, view_name from duckdb_views()").rows()
        assert sorted(f"{schema}.{name}" for schema, name in listed) == sorted(known)
        with pytest.raises(QueryRefused, match=r"lag"):
            lab.sql("select * from events.lag")


def test_a_type_without_a_class_has_a_view_too(lab: el.Lab) -> None:
    frame = pl.DataFrame({"id": ["9"], "reason": ["torn"], "n": [3]})
    lab.ingest(el.rows("BaleReturned", frame, stream="bale-{id}", fields={"reason": "reason", "n": "n"}), source="returns")
    assert lab.sql("select reason, n, _stream from types.bale_returned").rows() == [("torn", 3, "bale-9")]


def test_a_state_is_current_and_a_name_in_a_text_is_only_text(lab: el.Lab) -> None:
    counts = lab.sql("select status, count(*) from state.bale group by all order by 1").rows()
    assert counts == [("packed", 1), ("sent", 1)]
    lab.append("bale-3", [PACKED])
    assert lab.sql("select count(*) from state.bale").item() == 3
    assert lab.sql("select 'state.bale' as a, 'state.nothing' as b").rows() == [("state.bale", "state.nothing")]
    assert lab.sql("select p._id from state.bale p join events.bale e using (_id) where e._version = 2").rows() == [("1",)]


def test_tables_can_be_listed_and_described(lab: el.Lab) -> None:
    listed = lab.sql("show all tables").select("schema", "name").rows()
    assert {("events", "log"), ("events", "bale"), ("types", "bale_sent"), ("types", "bale_sent_v1")} <= set(listed)
    described = lab.sql("describe state.bale").select("column_name", "column_type").rows()
    assert described == [
        ("_id", "VARCHAR"), ("status", "VARCHAR"), ("weight", "DECIMAL(38,9)"), ("_version", "BIGINT"), ("_position", "BIGINT"),
    ]  # fmt: skip
    assert lab.sql("summarize events.log").height == len(ENVELOPE)
    assert lab.sql("show tables").height == 0


# -- parameters and frames


@pytest.mark.parametrize(
    ("text", "positional", "named", "rows"),
    [
        ("select ? + ?, ?", (1, 2, "x"), {}, [(3, "x")]),
        ("select $a, $b, $a", (), {"a": 1, "b": None}, [(1, None, 1)]),
        ("select $1, $2", (5, 6), {}, [(5, 6)]),
        ("select $text", (), {"text": "'; drop table x; --"}, [("'; drop table x; --",)]),
        ("select list_sum($x)", (), {"x": [1, 2, 3]}, [(6,)]),
        ("select $x", (), {"x": {"a": 1}}, [({"a": 1},)]),
        ("select $x + 1", (), {"x": Decimal("1.10")}, [(Decimal("2.10"),)]),
        ("select $x", (), {"x": dt.date(2026, 1, 2)}, [(dt.date(2026, 1, 2),)]),
        ("select $x", (), {"x": dt.timedelta(days=1)}, [(dt.timedelta(days=1),)]),
        ("select $x", (), {"x": uuid.UUID(int=1)}, [(str(uuid.UUID(int=1)),)]),
        ("select $x", (), {"x": b"\0\xff"}, [(b"\0\xff",)]),
        ("select $x", (), {"x": dt.datetime(2026, 1, 2, 3, tzinfo=dt.UTC)}, [(dt.datetime(2026, 1, 2, 3, tzinfo=dt.UTC),)]),
        ("select _position from events.log where _stream = $s and _position > ?::int", (), {"s": "bale-1"}, None),
        ("select _position from events.log where _stream = $s order by 1", (), {"s": "bale-1"}, [(1,), (2,)]),
        ("select customer from types.bale_sent where customer = ?", ("c'9",), {}, [("c'9",)]),
    ],
)
def test_values_are_given_by_place_or_by_name(lab: el.Lab, text: str, positional: Any, named: Any, rows: Any) -> None:
    if rows is None:
        with pytest.raises(QueryRefused, match="Mixing named and positional"):
            lab.sql(text, *positional, **named)
    else:
        assert lab.sql(text, *positional, **named).rows() == rows
        assert len(lab.relation(text, *positional, **named).fetchall()) == len(rows)


@pytest.mark.parametrize(
    ("text", "positional", "named"),
    [
        ("select ?", (), {}),
        ("select ?", (1, 2), {}),
        ("select 1", (5,), {}),
        ("select $a", (), {}),
        ("select $a", (), {"a": 1, "b": 2}),
        ("select ?", (object(),), {}),
    ],
)
def test_a_value_too_few_too_many_or_of_no_sql_type_is_refused(lab: el.Lab, text: str, positional: Any, named: Any) -> None:
    with pytest.raises(QueryRefused):
        lab.sql(text, *positional, **named)


def _frames() -> list[Any]:
    frame = pl.DataFrame({"id": ["1", "2-b"], "price": [Decimal("1.50"), Decimal("2.25")]})
    table = frame.to_arrow()
    return [frame, frame.lazy(), table, table.to_reader(), table.to_batches()[0]]


@pytest.mark.parametrize("which", range(5), ids=["frame", "lazy", "table", "reader", "batch"])
def test_a_frame_given_by_name_is_a_table_of_that_name(lab: el.Lab, which: int) -> None:
    text = "select p._id, f.price from state.bale p join prices f on f.id = p._id where f.price > $least order by 1"
    assert lab.sql(text, prices=_frames()[which], least=2).rows() == [("2-b", Decimal("2.25"))]
    assert lab.relation(text, prices=_frames()[which], least=1).fetchall() == [("1", Decimal("1.50")), ("2-b", Decimal("2.25"))]
    with pytest.raises(QueryRefused, match="prices"):
        lab.sql("select * from prices")


@pytest.mark.parametrize("name", ["order", "events", "state", "log", "größe"])
def test_a_frame_may_have_a_name_that_sql_knows(lab: el.Lab, name: str) -> None:
    frame = pl.DataFrame({"a": [1]})
    assert lab.sql(f'select a from "{name}"', **{name: frame}).rows() == [(1,)]
    assert lab.sql(f'select count(*) from events.log, "{name}"', **{name: frame}).rows() == [(3,)]


@pytest.mark.parametrize("name", ["a b", "a-b", 'x"; drop schema events; --', ""])
def test_a_frame_whose_name_is_no_name_is_refused(lab: el.Lab, name: str) -> None:
    with pytest.raises(QueryRefused, match="cannot name a frame"):
        lab.sql("select 1", **{name: pl.DataFrame({"a": [1]})})


def test_what_is_no_frame_of_values_is_refused(lab: el.Lab) -> None:
    with pytest.raises(QueryRefused, match=r"f is a Series, which is no frame") as caught:
        lab.sql("select * from f", f=pl.Series([1]))
    assert "to_frame" in caught.value.hint
    with pytest.raises(QueryRefused, match="Python objects"):
        lab.sql("select * from f", f=pl.DataFrame({"a": [object()]}, schema={"a": pl.Object}))


def test_python_variables_are_not_tables(lab: el.Lab) -> None:
    secret = pl.DataFrame({"a": [1]})
    assert len(secret) == 1
    for text in ("select * from secret", "select * from PACKED", "from pl"):
        with pytest.raises(QueryRefused, match="does not exist"):
            lab.sql(text)


# -- results

NEW_YEAR = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    ("text", "dtype", "value"),
    [
        ("sum(_position)", pl.Int64(), 6),
        ("count(*)", pl.Int64(), 3),
        ("max(_recorded_at) - min(_recorded_at) >= interval 0 seconds", pl.Boolean(), True),
        ("interval 90 minutes", pl.Duration("us"), dt.timedelta(minutes=90)),
        ("[interval 1 day]", pl.List(pl.Duration("us")), [dt.timedelta(1)]),
        ("{'a': interval 1 day}", pl.Struct({"a": pl.Duration("us")}), {"a": dt.timedelta(1)}),
        ("map {'a': interval 1 day}", pl.Map(pl.String(), pl.Duration("us")), {"a": dt.timedelta(1)}),
        ("timestamptz '2026-01-01 01:00:00+01'", pl.Datetime("us", "UTC"), NEW_YEAR),
        ("date_trunc('day', timestamptz '2026-01-01 23:30:00Z')", pl.Datetime("us", "UTC"), NEW_YEAR),
        ("1.50::decimal(9, 2)", pl.Decimal(9, 2), Decimal("1.50")),
        ("'x'::blob", pl.Binary(), b"x"),
        ("null", pl.Null(), None),
    ],
)
def test_results_come_in_the_types_of_a_frame(lab: el.Lab, text: str, dtype: Any, value: Any) -> None:
    frame = lab.sql(f"select {text} as x from events.log" if "(_" in text or "*" in text else f"select {text} as x")
    assert (frame.schema, frame.rows()) == ({"x": dtype}, [(value,)])


def test_a_result_that_a_frame_cannot_hold_says_where_it_can_be_had(lab: el.Lab) -> None:
    with pytest.raises(QueryRefused, match="a frame cannot hold UNION") as caught:
        lab.sql("select union_value(a := 1) as u")
    assert "lab.relation" in caught.value.hint
    assert lab.relation("select union_value(a := 1) as u").fetchall() == [(1,)]


def test_a_relation_keeps_its_answer_while_the_log_goes_on(lab: el.Lab) -> None:
    relation = lab.relation("select count(*) from events.log")
    other = lab.relation("select status from state.bale order by _id")
    lab.append("bale-9", [BaleSent("c1")])
    assert lab.sql("select count(*) from events.log").item() == 4
    assert lab.relation("select count(*) from events.log").fetchall() == [(4,)]
    assert relation.fetchall() == [(3,)]
    assert other.fetchall() == [("sent",), ("packed",)]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "holds 0"),
        ("-- nothing", "holds 0"),
        ("selekt 1", "does not parse"),
        ("select * from nowhere", "nowhere"),
        ("select nothing from events.log", "nothing"),
        ("select * from state.no_such_model", "no_such_model"),
        ("select 1 + 'a'::varchar", "type casts"),
        ("select cast('a' as int)", "Could not convert"),
        ("pivot events.log on _stream using count(*)", "PIVOT by values"),
    ],
)
def test_a_query_that_is_wrong_is_refused_in_words_and_the_next_one_runs(lab: el.Lab, text: str, says: str) -> None:
    with pytest.raises(QueryRefused, match=says):
        lab.sql(text)
    assert lab.sql("select 1").item() == 1


def test_what_reads_is_not_mistaken_for_something_else(lab: el.Lab) -> None:
    for text in (
        "select 1;",
        "values (1)",
        "from range(1)",
        "table events.log",
        "with recursive t(i) as (select 1 union all select i + 1 from t where i < 5) select sum(i) from t",
        "with x as (from events.log) select * from x union all select * from x order by _position",
        "select * from events.log qualify row_number() over (order by _position) = 1",
        "pivot events.log on _stream in ('bale-1') using count(*)",
        "unpivot (select 1 as a, 2 as b) on a, b",
        "select unnest([1, 2]), * from generate_series(1, 2)",
        "select 'insert into x', '\"type\":\"COPY_QUERY_NODE\"', 'read_csv(1)' as \"read_csv\"",
        "select * from (select 1) t(\"COPY (SELECT 1) TO 'x'\")",
        "select list_transform([1, 2], lambda x: x + 1), [x for x in [1]]",
        "select * from events.log a asof join events.log b on a._position >= b._position",
        "select * from json_each('{\"a\": 1}')",
        "select count(*) from duckdb_tables()",
        "select " + " + ".join(["1"] * 900),
        "EXPLAIN select * from events.log",
        "explain analyze select count(*) from events.log",
        "explain (analyze, format json) select 1",
        "explain(format json)select 1",
    ):
        assert lab.sql(text).height >= 1, text


# -- hostile statements


@dataclass(frozen=True)
class Place:
    """A store under attack, and what lies around it."""

    lab: el.Lab
    store: Path
    others: Path
    names: dict[str, str]

    def digest(self) -> dict[str, str]:
        """Every file in the store and around it, by content; of the catalog what it says, but for the leases of readers."""
        with contextlib.closing(sqlite3.connect(self.store / "catalog.sqlite")) as catalog:
            said = "\n".join(line for line in catalog.iterdump() if not line.startswith('INSERT INTO "reader"'))
        found = {"the catalog": said}
        for root in (self.store, self.others, Path.cwd()):
            for path in sorted(root.rglob("*")):
                if path.parent != self.store or not path.name.startswith("catalog.sqlite"):
                    found[str(path)] = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
        return found


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    root = tmp_path_factory.mktemp("attacked")
    store, others = root / "store", root / "others"
    others.mkdir()
    (others / "secret.csv").write_text("a,b\n1,2\n")
    (others / "secret.json").write_text('{"a": 1}')
    pq.write_table(pa.table({"a": [1]}), others / "secret.parquet")
    with el.open(others / "store") as other:
        fill(other)
    with el.open(store, maintain=False) as lab:
        fill(lab)
        with lab.context(tenant="acme"):
            lab.append("bale-1", [PACKED])
            lab.seal()
        lab.append("bale-1", [PACKED])
        lab.rebuild(Bale)
        # A state table and both views are there when the attack begins.
        lab.sql("select * from state.bale, events.log, types.bale_sent")
        mine = sorted((store / "segments" / "1").rglob("*.parquet"))
        names = {
            "segment": str(mine[0]),
            "acme": str(next(path for path in (store / "segments").rglob("*.parquet") if path not in mine)),
            "base": str(next((store / "read_models").iterdir())),
            "catalog": str(store / "catalog.sqlite"),
            "other": str(next((others / "store" / "segments").rglob("*.parquet"))),
            "others": str(others),
            "out": str(others / "written"),
            "temp": str(lab.sql("select current_setting('temp_directory')").item()),
        }
        yield Place(lab, store, others, names)


COPIES = [
    "COPY (SELECT 1) TO '{segment}' (FORMAT csv, USE_TMP_FILE false)",
    "COPY (SELECT 1) TO '{segment}' (FORMAT parquet)",
    "COPY (SELECT 1) TO '{out}.csv'",
    "COPY (SELECT 1) TO '{temp}/x.csv'",
    "COPY (SELECT 1) TO '.tmp/x.csv'",
    "COPY (SELECT 1) TO 'here.csv'",
    "COPY events.log TO '{out}' (FORMAT parquet, PARTITION_BY (_type))",
    "COPY (SELECT 1) TO '/dev/stdout' (FORMAT csv)",
]
WRITES = [
    "INSERT INTO state.bale SELECT * FROM state.bale",
    "INSERT INTO _hot.rows_1 SELECT * FROM _hot.rows_1",
    "UPDATE state.bale SET status = 'stolen'",
    "UPDATE events.log SET _actor = 'mallory'",
    "DELETE FROM state.bale",
    "MERGE INTO state.bale p USING (SELECT '1' AS k) s ON p._id = s.k WHEN MATCHED THEN DELETE",
]
REFUSED = {
    "plain": [*COPIES, *WRITES],
    "inside a select": [
        *(f"WITH x AS ({write} RETURNING *) SELECT * FROM x" for write in WRITES if not write.startswith("MERGE")),
        *(f"WITH x AS ({copy}) SELECT 1" for copy in COPIES),
    ],
    "inside an explain": [
        *(f"EXPLAIN ANALYZE {statement}" for statement in (*COPIES, *WRITES)),
        *(f"EXPLAIN (ANALYZE, FORMAT json) {copy}" for copy in COPIES[:1]),
    ],
    "inside text that is run as SQL": [
        *(f"SELECT * FROM json_execute_serialized_sql(json_serialize_sql($$WITH x AS ({copy}) SELECT 1$$))" for copy in COPIES),
        *(f"SELECT * FROM query($$WITH x AS ({copy}) SELECT 1$$)" for copy in COPIES[:1]),
    ],
    "hidden in words, comments and spaces": [
        f"(WITH x AS ({COPIES[0]}) SELECT 1)",
        f"WITH x AS ({COPIES[0]}) SELECT 1 UNION ALL SELECT 2",
        f"WITH x AS ({COPIES[0]}), y AS (SELECT 1) FROM y",
        f"WITH RECURSIVE x AS ({COPIES[0]}) SELECT 1",
        f"WITH x AS MATERIALIZED ({COPIES[0]}) SELECT 1",
        f"FROM (WITH x AS ({COPIES[0]}) SELECT 1)",
        f"SELECT (WITH x AS ({COPIES[0]}) SELECT 1)",
        f"DESCRIBE (WITH x AS ({COPIES[0]}) SELECT 1)",
        f"SUMMARIZE WITH x AS ({COPIES[0]}) SELECT 1",
        f"/* SELECT */ {COPIES[0]}",
        f"WITH x AS (/* only a */ {COPIES[0].replace(' ', '  ').lower()}) SELECT 1",
        f"EXPLAIN /* SELECT 1 */ ANALYZE {COPIES[0]}",
        f"EXPLAIN ANALYZE WITH x AS ({COPIES[0]}) SELECT 1",
        f"explain\nanalyze\n{COPIES[0]}",
        f'EXPLAIN (FORMAT "a)SELECT 1 /*") {COPIES[0]} --*/',
        f"-- EXPLAIN SELECT 1\nEXPLAIN ANALYZE {COPIES[0]}",
        f"SELECT * FROM system.main.json_execute_serialized_sql(json_serialize_sql($$WITH x AS ({COPIES[0]}) SELECT 1$$))",
        f'SELECT * FROM "JSON_execute_serialized_SQL"(json_serialize_sql($$WITH x AS ({COPIES[0]}) SELECT 1$$))',
        "SELECT * FROM query('SELECT * FROM json_execute_' || 'serialized_sql(1)')",
    ],
    "several statements": [
        "SELECT 1; SELECT 2",
        "SELECT 1; DROP VIEW events.log",
        "COMMIT; DROP TABLE state.bale",
        "ROLLBACK; BEGIN; DROP TABLE state.bale; COMMIT",
    ],
    "what is there and what could be made": [
        "DROP TABLE state.bale",
        "DROP VIEW events.log",
        "DROP SCHEMA events CASCADE",
        "TRUNCATE state.bale",
        "ALTER TABLE state.bale ADD COLUMN z INT",
        "ALTER VIEW events.log RENAME TO gone",
        "CREATE TABLE state.mine AS SELECT 1",
        "CREATE TEMP TABLE mine AS SELECT 1",
        "CREATE OR REPLACE VIEW events.log AS SELECT 1",
        "CREATE TEMP VIEW log AS SELECT 1",
        "CREATE MACRO f(a) AS a",
        "CREATE TEMP MACRO f() AS TABLE SELECT 1",
        "CREATE SECRET (TYPE http)",
        "CREATE PERSISTENT SECRET s (TYPE http)",
        "CREATE SCHEMA mine",
        "CREATE SEQUENCE s",
        "CREATE TYPE mood AS ENUM ('a')",
        "CREATE INDEX i ON state.bale (status)",
        "COMMENT ON TABLE state.bale IS 'mine'",
    ],
    "other databases and files": [
        "ATTACH '{catalog}' AS c (TYPE sqlite)",
        "ATTACH '{out}.duckdb'",
        "ATTACH ':memory:' AS m",
        "DETACH memory",
        "USE types",
        "COPY state.bale FROM '{others}/secret.csv'",
        "COPY FROM DATABASE memory TO other",
        "EXPORT DATABASE '{out}'",
        "IMPORT DATABASE '{out}'",
        "SELECT * FROM read_csv('{others}/secret.csv')",
        "SELECT * FROM read_csv_auto('{others}/secret.csv')",
        "SELECT * FROM sniff_csv('{others}/secret.csv')",
        "SELECT * FROM read_json('{others}/secret.json')",
        "SELECT * FROM read_ndjson_objects('{others}/secret.json')",
        "SELECT * FROM read_text('{others}/secret.csv')",
        "SELECT * FROM read_blob('{catalog}')",
        "SELECT * FROM read_parquet('{others}/secret.parquet')",
        "SELECT * FROM parquet_scan('{others}/secret.parquet')",
        "SELECT * FROM parquet_metadata('{others}/secret.parquet')",
        "SELECT * FROM parquet_schema('{other}')",
        "SELECT * FROM read_parquet('{other}')",
        "SELECT * FROM read_parquet('{acme}')",
        "SELECT * FROM read_parquet('{base}')",
        "SELECT * FROM read_parquet('{segment}')",
        "SELECT * FROM read_parquet(['{segment}', '{other}'])",
        "SELECT * FROM read_duckdb('{out}.duckdb')",
        "SELECT * FROM glob('{others}/*')",
        "SELECT * FROM glob('/*')",
        "SELECT * FROM '{others}/secret.csv'",
        "SELECT * FROM '{others}/secret.parquet'",
        "SELECT * FROM '{acme}'",
        "FROM '{others}/*.csv'",
        'SELECT * FROM "{others}/secret.json"',
        "SELECT * FROM '/etc/passwd'",
        "SELECT * FROM read_text('/etc/passwd')",
        "SELECT * FROM (SELECT * FROM read_text('/etc/passwd'))",
        "SELECT (SELECT content FROM read_text('/etc/passwd'))",
        "SELECT * FROM query_table('/etc/passwd')",
        "SELECT * FROM query('SELECT * FROM read_text(''/etc/passwd'')')",
        "WITH x AS (FROM read_text('/etc/passwd')) FROM x",
        "DESCRIBE TABLE '{others}/secret.csv'",
        "SUMMARIZE TABLE '{others}/secret.csv'",
    ],
    "the network, extensions and the process": [
        "SELECT * FROM read_csv('https://127.0.0.1:9/x.csv')",
        "SELECT * FROM 'http://127.0.0.1:9/x.parquet'",
        "SELECT * FROM read_parquet('s3://bucket/x.parquet')",
        "INSTALL httpfs",
        "FORCE INSTALL httpfs FROM 'http://127.0.0.1:9'",
        "LOAD httpfs",
        "LOAD '{out}.duckdb_extension'",
        "UPDATE EXTENSIONS",
        "SELECT getenv('HOME')",
        "SELECT * FROM arrow_scan(1, 2, 3)",
        "SELECT * FROM pandas_scan(1)",
        "SELECT * FROM python_map_function()",
    ],
    "settings and transactions": [
        "SET lock_configuration = false",
        "SET enable_external_access = true",
        "SET allowed_paths = ['{others}/secret.csv']",
        "SET GLOBAL allowed_paths = ['/etc/passwd']",
        "SET allowed_directories = ['/']",
        "SET python_enable_replacements = true",
        "SET temp_directory = '{out}'",
        "SET TimeZone = 'Asia/Tokyo'",
        "SET VARIABLE v = 1",
        "SET SESSION search_path = 'types'",
        "RESET allowed_paths",
        "RESET ALL",
        "PRAGMA enable_profiling = 'json'",
        "PRAGMA profiling_output = '{out}.json'",
        "PRAGMA database_list",
        "PRAGMA table_info('state.bale')",
        "SELECT * FROM enable_profiling(save_location := '{out}.json')",
        "SELECT * FROM enable_logging(storage := 'file', storage_path := '{out}')",
        "SELECT * FROM disable_logging()",
        "SELECT * FROM truncate_duckdb_logs()",
        "SELECT * FROM checkpoint()",
        "SELECT * FROM force_checkpoint()",
        "SELECT * FROM add_grammar_extension('x')",
        "CALL force_checkpoint()",
        "CALL pragma_version()",
        "CHECKPOINT",
        "VACUUM",
        "ANALYZE",
        "PREPARE p AS SELECT 1",
        "EXECUTE p",
        "DEALLOCATE p",
        "BEGIN",
        "COMMIT",
        "ROLLBACK",
    ],
}


@pytest.mark.parametrize("group", REFUSED)
def test_a_statement_that_does_more_than_read_is_refused_and_leaves_no_trace(
    attacked: Place, group: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    statuses = "(select string_agg(status, ' ' order by _id) from state.bale)"
    asked = f"select count(*), current_setting('TimeZone'), current_schema(), {statuses} from events.log"
    for statement in REFUSED[group]:
        text, before = statement.format(**attacked.names), attacked.digest()
        for run in (attacked.lab.sql, attacked.lab.relation):
            try:
                run(text)
            except QueryRefused:
                continue
            pytest.fail(f"{run.__name__} ran {text}")
        assert attacked.digest() == before, text
        # Not only the files: the connection answers as before, in its zone, with its views and tables.
        assert attacked.lab.sql(asked).rows() == [(4, "UTC", "main", "packed packed")], text


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT current_setting('allowed_paths')",
        "SELECT * FROM duckdb_settings()",
        "SELECT nextval('x') WHERE false OR true",
        "SELECT setseed(0.5)",
        "SELECT write_log('x')",
        "SELECT pg_catalog.pg_get_viewdef(1)",
        "SELECT json_serialize_plan('SELECT 1')",
        f"SELECT json_serialize_sql($$WITH x AS ({COPIES[2]}) SELECT 1$$)",
        f"SELECT json_deserialize_sql(json_serialize_sql($$WITH x AS ({COPIES[2]}) SELECT 1$$))",
        "SELECT parse_filename('/etc/passwd')",
        "FROM _hot.rows_1",
        "SELECT 'INSERT INTO x'",
    ],
)
def test_what_only_looks_hostile_may_answer_and_leaves_no_trace(
    attacked: Place, statement: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = attacked.digest()
    with contextlib.suppress(QueryRefused):
        attacked.lab.sql(statement.format(**attacked.names))
    assert attacked.digest() == before
    assert attacked.lab.sql("select count(*) from events.log").item() == 4


def test_a_moment_and_a_lab_of_all_tenants_refuse_the_same(
    attacked: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = attacked.digest()
    everyone = el.open(attacked.store, tenant=el.ALL, maintain=False)
    for reader in (attacked.lab.at(position=2), everyone, everyone.at(position=4)):
        for statement in (COPIES[0], f"WITH x AS ({COPIES[0]}) SELECT 1", "SELECT * FROM read_text('/etc/passwd')"):
            with pytest.raises(QueryRefused):
                reader.sql(statement.format(**attacked.names))
    everyone.close()
    assert attacked.digest() == before


def test_the_time_zone_of_the_process_changes_no_answer(tmp_path: Path) -> None:
    code = """
import eventlab as el
text = "select timestamptz '2026-01-01 03:30Z' as t, date_trunc('day', t)::varchar, t::date::varchar, current_setting('TimeZone')"
lab = el.scratch()
print(lab.sql(text).rows()[0][1:], lab.relation(text).fetchall()[0][1:])
"""
    for zone in ("Asia/Tokyo", "America/New_York"):
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, env={**os.environ, "TZ": zone}, capture_output=True, text=True, timeout=60, check=False)
        assert done.stdout.replace("\n", " ") == "('2026-01-01 00:00:00+00', '2026-01-01', 'UTC') " * 2


def test_what_does_not_fit_in_memory_goes_to_a_folder_of_its_own(lab: el.Lab) -> None:
    folder = Path(lab.sql("select current_setting('temp_directory')").item())
    assert folder.parent == Path(tempfile.gettempdir())
    assert not folder.exists(), "made when it is needed"
    other = Path(el.scratch().sql("select current_setting('temp_directory')").item())
    assert other != folder
    assert os.path.commonpath([folder, Path.cwd()]) != str(Path.cwd())
