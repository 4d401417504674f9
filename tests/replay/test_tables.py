"""A model's table and its states: what `load`, `loaded` and `table` give, and in which columns."""

from __future__ import annotations

import datetime as dt
import enum
import tempfile
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import eventlab as el
from eventlab.errors import EvolveFailed, ModelError, Unsupported
from eventlab.model.models import model_of
from eventlab.replay.rows import batches_of, fold
from eventlab.replay.tables import entries_of, key_names, key_table, table_of
from eventlab.store.base import ALL
from eventlab.store.read_models import base_in_memory
from replay import oracle
from replay.oracle import LAYOUTS, MODELS, Log

# -- against the oracle


@pytest.mark.parametrize("layout", LAYOUTS)
def test_load_loaded_and_table_are_the_fold_of_the_log(layout: str) -> None:
    @settings(max_examples=10)
    @given(log=oracle.logs())
    def check(log: Log) -> None:
        log = log.singly() if layout == "ingested" else log
        with tempfile.TemporaryDirectory() as folder, oracle.written(layout, Path(folder) / "log", log) as lab:
            for model in MODELS:
                expected = oracle.folded(model, log.facts, log.ends)
                assert lab.table(model).rows() == oracle.table(model, log.facts, log.ends)
                assert lab.table(model, engine="rows").equals(lab.table(model))
                if model_of(model).category is not None:
                    for id, (state, version, position) in expected.items():
                        got = lab.loaded(model, id)
                        assert (got.state, got.version, got.position) == (state, version, position)
                        assert lab.load(model, id) == state

    check()


@settings(max_examples=30)
@given(log=oracle.logs(), tenant=st.sampled_from(["default", ALL]))
def test_a_table_turns_into_the_entries_that_it_was_made_from(log: Log, tenant: Any) -> None:
    with oracle.written("memory", None, log) as lab:
        for model in map(model_of, MODELS):
            entries = fold(model, batches_of(model, lab.store.cut(), tenant), tenant).entries
            table = table_of(model, entries, tenant)
            again = entries_of(model, table, tenant)
            assert again == entries
            assert [type(state) for state, _, _ in again.values()] == [model.cls] * len(entries)
            some = list(entries)[::2]
            base = base_in_memory(model.name, "", "", 0, table, key_names(model, tenant))
            found = base.rows_of(key_table(model, tenant, some))
            assert entries_of(model, found, tenant) == {key: entries[key] for key in some}


@settings(max_examples=30)
@given(log=oracle.logs(), at=st.integers(0, 20))
def test_rows_that_were_touched_take_the_place_of_those_of_the_base(log: Log, at: int) -> None:
    with oracle.written("memory", None, log) as lab:
        for model in map(model_of, MODELS):
            cut = lab.store.cut()
            old = fold(model, batches_of(model, cut, ALL, until=at), ALL).entries
            new = fold(model, batches_of(model, cut, ALL), ALL).entries
            touched = {key: entry for key, entry in new.items() if old.get(key) != entry}
            base = base_in_memory(model.name, "", "", at, table_of(model, old, ALL), key_names(model, ALL))
            merged = base.whole().with_rows(table_of(model, touched, ALL))
            assert merged.equals(table_of(model, new, ALL))


# -- columns


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


@dataclass(frozen=True)
class Spot:
    city: str
    since: dt.timedelta | None = None


@el.event
class GaugeRead:
    """A value was read."""

    value: int


_NOON = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)
_BERLIN = dt.datetime(2026, 3, 1, 13, tzinfo=dt.timezone(dt.timedelta(hours=1)))
_ID = uuid.UUID("018f6f2c-8f6e-7cc1-9a3b-5d1a3f0c2b11")
_SPOT = pl.Struct({"city": pl.String(), "since": pl.Duration("us")})

#: A declared type, a value of a state, and the dtype and the value of the table.
SHOWN: list[tuple[Any, Any, Any, Any]] = [
    (bool, True, pl.Boolean(), True),
    (int, -(2**63), pl.Int64(), -(2**63)),
    (float, 0.5, pl.Float64(), 0.5),
    (el.AnyFloat, float("inf"), pl.Float64(), float("inf")),
    (str, "größe", pl.String(), "größe"),
    (Literal["a", "b"], "b", pl.String(), "b"),
    (Colour, Colour.BLUE, pl.String(), "blue"),
    (Level, Level.HIGH, pl.Int64(), 2),
    (bytes, b"\0\xff", pl.Binary(), b"\0\xff"),
    (uuid.UUID, _ID, pl.String(), str(_ID)),
    (el.Money, el.money("9.5"), pl.Decimal(18, 2), Decimal("9.50")),
    (Decimal, Decimal("1.5"), pl.Decimal(38, 9), Decimal("1.500000000")),
    (el.ExactDecimal, Decimal("1.50"), pl.String(), "1.50"),
    (dt.datetime, _BERLIN, pl.Datetime("us", "UTC"), _NOON),
    (dt.date, dt.date(1, 1, 1), pl.Date(), dt.date(1, 1, 1)),
    (dt.time, dt.time(23, 59, 59, 999_999), pl.Time(), dt.time(23, 59, 59, 999_999)),
    (dt.timedelta, dt.timedelta(days=-1), pl.Duration("us"), dt.timedelta(days=-1)),
    (Any, {"b": [1, None], "a": 2}, pl.String(), '{"a":2,"b":[1,null]}'),
    (list[int], [2, 1], pl.List(pl.Int64()), [2, 1]),
    (tuple[el.Money, ...], (el.money(2),), pl.List(pl.Decimal(18, 2)), [Decimal("2.00")]),
    (frozenset[str], frozenset({"b", "a", "C"}), pl.List(pl.String()), ["C", "a", "b"]),
    (set[dt.timedelta], {dt.timedelta(2), dt.timedelta(1)}, pl.List(pl.Duration("us")), [dt.timedelta(1), dt.timedelta(2)]),
    (frozenset[str | None], frozenset({"a", None}), pl.List(pl.String()), [None, "a"]),
    (dict[str, int], {"b": 1, "a": 2}, pl.Map(pl.String(), pl.Int64()), {"a": 2, "b": 1}),
    (dict[str, uuid.UUID], {"a": _ID}, pl.Map(pl.String(), pl.String()), {"a": str(_ID)}),
    (Spot, Spot("Ulm", dt.timedelta(3)), _SPOT, {"city": "Ulm", "since": dt.timedelta(3)}),
    (tuple[Spot, ...], (Spot("Ulm"),), pl.List(_SPOT), [{"city": "Ulm", "since": None}]),
]


def named(given: Any) -> str:
    """A short name of a test's parameter; the same in every process, which the order of a set is not."""
    if isinstance(given, (set, frozenset)):
        given = sorted(given, key=repr)
    return ascii(given)[:24]


def gauge(hint: Any, value: Any, default: Any) -> type[Any]:
    """An aggregate with one field, which is `default` until the first event and `value` after it."""

    @el.aggregate
    class Gauge:
        field: hint = el.field(default_factory=lambda: default)  # type: ignore[valid-type]

        def evolve(self, event: GaugeRead) -> Self:
            return replace(self, field=value)

    return Gauge


def gauges() -> el.Lab:
    lab = el.scratch()
    lab.append("gauge-1", [GaugeRead(1)])
    return lab


@pytest.mark.parametrize(("hint", "value", "dtype", "shown"), SHOWN, ids=named)
def test_a_field_of_each_type_has_its_column(hint: Any, value: Any, dtype: Any, shown: Any) -> None:
    lab, model = gauges(), gauge(hint | None, value, None)
    frame = lab.table(model)
    assert frame.schema == {"_id": pl.String(), "field": dtype, "_version": pl.Int64(), "_position": pl.Int64()}
    assert frame.rows() == [("1", shown, 1, 1)]
    assert lab.load(model, "1").field == value
    # The base of a read model is read back as the states that were written, and SQL shows the same column.
    lab.rebuild(model)
    assert lab.table(model).equals(frame)
    in_sql = lab.sql("select * from state.gauge")
    assert (in_sql.schema, in_sql.rows()) == (frame.schema, frame.rows())
    assert lab.sql("select field from state.gauge where field is null").schema == {"field": dtype}


@pytest.mark.parametrize(("hint", "value", "dtype", "shown"), SHOWN, ids=named)
def test_none_is_null_in_a_column_of_each_type(hint: Any, value: Any, dtype: Any, shown: Any) -> None:
    lab, model = gauges(), gauge(hint | None, None, value)
    frame = lab.table(model)
    assert (frame.schema["field"], frame["field"].to_list()) == (dtype, [None])
    assert lab.load(model, "1").field is None
    assert lab.sql("select field from state.gauge").equals(frame.select("field"))


def test_the_columns_are_the_key_the_fields_in_their_order_and_version_and_position() -> None:
    lab = el.scratch()
    fields = ["amount", "total", "label", "labels", "prices", "log", "bay", "origin", "moved", "kinds", "idle"]
    assert lab.table(oracle.Crate).columns == ["_id", *fields, "_version", "_position"]
    place = {"_version": pl.Int64(), "_position": pl.Int64()}
    assert lab.table(oracle.LabelValue).schema == {
        "_id": pl.String(), "times": pl.Int64(), "highest": pl.Decimal(18, 2), **place,
    }  # fmt: skip
    assert lab.table(oracle.BayTraffic).schema == {
        "deck": pl.String(), "day": pl.Date(), "moves": pl.Int64(), "last": pl.String(), **place,
    }  # fmt: skip


def test_an_empty_table_has_the_columns_and_types_of_a_full_one() -> None:
    log = Log(((("crate-1", oracle.CratePriced("hat", el.money(1))), ("crate-1", oracle.CrateMoved(oracle.Bay("A", 1), _NOON))),))
    with oracle.written("memory", None, log) as lab:
        for model in MODELS:
            empty = lab.at(position=0).table(model)
            assert len(empty) == 0
            assert empty.schema == lab.table(model).schema


def test_a_state_without_fields_is_a_table_of_keys() -> None:
    @el.aggregate
    class Meter:
        def evolve(self, event: GaugeRead) -> Self:
            return self

    lab = el.scratch()
    lab.append("meter-1", [GaugeRead(1)])
    lab.rebuild(Meter)
    lab.append("meter-0", [GaugeRead(1)])
    assert lab.table(Meter).rows() == [("0", 1, 2), ("1", 1, 1)]
    assert lab.load(Meter, "0") == Meter()


def test_the_version_of_a_projection_counts_the_events_of_its_key() -> None:
    log = Log(tuple((("crate-1", oracle.CratePriced(label, el.money(1))),) for label in "abaa"))
    with oracle.written("memory", None, log) as lab:
        assert lab.table(oracle.LabelValue).select("_id", "_version", "_position").rows() == [("a", 3, 4), ("b", 1, 2)]


# -- order


class Keys(NamedTuple):
    day: dt.date | None
    name: str | None
    number: int


@el.projection
class Sorted:
    count: int = 0

    @staticmethod
    def key(event: GaugeRead) -> Keys:
        value = event.value
        return Keys(
            None if value % 3 == 0 else dt.date(2026, 1, 1) + dt.timedelta(value % 5),
            None if value % 4 == 0 else "äbZ😀a\uffff"[value % 6],
            -(value % 7),
        )

    def evolve(self, event: GaugeRead) -> Self:
        return replace(self, count=self.count + 1)


@settings(max_examples=30)
@given(values=st.lists(st.integers(0, 200), min_size=1, max_size=30), at=st.integers(0, 30))
def test_rows_are_sorted_by_key_none_last_whether_folded_or_merged(values: list[int], at: int) -> None:
    lab = el.scratch()
    lab.append("gauge-1", [GaugeRead(value) for value in values[:at]])
    lab.rebuild(Sorted)
    lab.append("gauge-1", [GaugeRead(value) for value in values[at:]])
    keys = [row[:3] for row in lab.table(Sorted).rows()]
    assert keys == sorted({tuple(Sorted.key(GaugeRead(v))) for v in values}, key=lambda key: [(p is None, p) for p in key])
    assert lab.table(Sorted).equals(lab.table(Sorted, engine="rows"))
    assert sum(lab.table(Sorted)["count"]) == len(values)


def test_text_sorts_by_code_points() -> None:
    lab = el.scratch()
    ids = ["b", "a", "B", "ä", "😀", "\uffff", "a-b", "10", "9"]
    lab.append({f"gauge-{id}": [GaugeRead(1)] for id in ids})
    assert lab.table(gauge(int, 1, 0))["_id"].to_list() == sorted(ids)


# -- what does not fit


MISFITS: list[tuple[Any, Any, str]] = [
    (int, "text", "is 'text' (str), but is declared int"),
    (int, True, "is True (bool), but is declared int"),
    (int, 2**63, "beyond 64 bits"),
    (int, None, "is None, but is declared int"),
    (bool, 1, "declared bool"),
    (float, float("nan"), "only el.AnyFloat may be NaN"),
    (str, "\ud800", "half of a surrogate pair"),
    (el.Money, 9.5, "is 9.5 (float), but is declared Decimal(18, 2)"),
    (el.Money, Decimal("0.001"), "more than 2 decimal places"),
    (dt.datetime, dt.datetime(2026, 3, 1), "it has no time zone"),  # noqa: DTZ001
    (dt.date, _NOON, "declared date"),
    (tuple[int, ...], (1, "2"), "field[1] is '2' (str)"),
    (frozenset[int], [1], "declared frozenset[int]"),
    (dict[str, int], {1: 1}, "(a key) is 1 (int)"),
    (Spot, {"city": "Ulm"}, "declared Spot"),
    (Spot, Spot(7), "field.city is 7 (int), but is declared str"),  # type: ignore[arg-type]
    (Colour, "red", "declared Colour"),
    (Literal["a"], "b", "one of 'a'"),
    (Any, {1, 2}, "it is stored as JSON"),
]


@pytest.mark.parametrize(("hint", "value", "says"), MISFITS, ids=named)
def test_a_state_that_does_not_fit_its_declared_types_is_refused_by_table_and_load(hint: Any, value: Any, says: str) -> None:
    samples = [*SHOWN, (Literal["a"], "a", 0, 0), (tuple[int, ...], (), 0, 0), (frozenset[int], frozenset(), 0, 0)]
    proper = next(sample for of, sample, _, _ in samples if of == hint)
    lab, model = gauges(), gauge(hint, value, proper)
    calls: list[Callable[[], Any]] = [
        lambda: lab.table(model),
        lambda: lab.load(model, "1"),
        lambda: lab.loaded(model, "1"),
        lambda: lab.sql("select * from state.gauge"),
    ]
    for call in calls:
        with pytest.raises(EvolveFailed) as caught:
            call()
        assert caught.value.key == "gauge-1"
        assert "the state of 'gauge-1': Gauge.field" in caught.value.message
        assert says in caught.value.message
    assert lab.load(model, "2").field == proper
    assert lab.rebuild(model).parked == 1, "a read model goes on without it"
    assert says in lab.parked()["error"][0]


def test_a_key_whose_parts_do_not_fit_is_refused_also_when_a_base_is_there() -> None:
    class Place(NamedTuple):
        name: str
        number: int

    @el.projection
    class Places:
        count: int = 0

        @staticmethod
        def key(event: GaugeRead) -> Place:
            return Place("x", event.value) if event.value < 5 else Place(None, event.value)  # type: ignore[arg-type]

        def evolve(self, event: GaugeRead) -> Self:
            return self

    lab = gauges()
    lab.rebuild(Places)
    lab.append("gauge-1", [GaugeRead(7)])
    for engine in ("auto", "rows"):
        with pytest.raises(EvolveFailed, match=r"Places\.key\.name is None, but is declared str"):
            lab.table(Places, engine=engine)  # type: ignore[arg-type]


# -- refusals


def test_only_an_aggregate_can_be_loaded() -> None:
    with pytest.raises(Unsupported, match="LabelValue is a projection") as caught:
        el.scratch().load(oracle.LabelValue, "hat")
    assert caught.value.hint == "lab.table(LabelValue) gives its rows"


def test_a_class_that_is_no_model_is_refused() -> None:
    for call in (el.scratch().table, lambda cls: el.scratch().load(cls, "1"), el.scratch().rebuild):
        with pytest.raises(ModelError, match="GaugeRead is not a model"):
            call(GaugeRead)


@pytest.mark.parametrize("engine", ["sql", "row", "", None])
def test_an_engine_that_is_not_there_is_refused_in_words(engine: Any) -> None:
    with pytest.raises(Unsupported, match="there is no engine"):
        gauges().table(oracle.Crate, engine=engine)


def test_the_columns_of_a_base_say_their_tags_so_that_a_reader_without_the_class_can_show_them() -> None:
    table = table_of(model_of(oracle.Crate), {}, "default")
    tags = {field.name: field.metadata[b"tag"].decode() for field in table.schema}
    assert (tags["total"], tags["idle"], tags["labels"], tags["prices"]) == ("d18_2", "td", "l_s", "m_d18_2")
    assert table.schema.field("idle").type == pa.int64()
