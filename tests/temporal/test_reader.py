"""The read verbs of a lab and a moment: events as objects, frames and relations; and which classes read them."""

from __future__ import annotations

import datetime as dt
import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Any, Self

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from replay import oracle
from replay.oracle import Log

import eventlab as el
from eventlab.errors import EventlabError, InvalidName, SchemaConflict, StaleType, UnknownType, Unsupported
from eventlab.model.filters import Filter
from eventlab.store.columns import ENVELOPE_NAMES


@dataclass(frozen=True)
class Spot:
    row: str
    chair: int | None = None


@el.event
class ChairBooked:
    """Someone wants to sit there."""

    guest: el.Tag[str]
    price: el.Money
    spot: Spot | None = None
    until: dt.timedelta | None = None
    ticket: uuid.UUID | None = None


@el.event
class ChairFreed:
    """Nobody does any more."""


@el.event
class RowClosed:
    """The whole row is closed."""

    guest: int


@el.aggregate
class Chair:
    guest: str = ""

    def evolve(self, event: ChairBooked | ChairFreed) -> Self:
        return replace(self, guest=event.guest if isinstance(event, ChairBooked) else "")


BOOKED = ChairBooked("c9", el.money("9.50"), Spot("A", 3), dt.timedelta(hours=2), uuid.UUID(int=5))


@pytest.fixture(params=["memory", "disk"])
def lab(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[el.Lab]:
    with el.scratch(seed=1) if request.param == "memory" else el.open(tmp_path / "log") as lab:
        with el.context(actor="ada"):
            lab.append("chair-1", [BOOKED, ChairFreed()], tags=["vip"])
        if lab.path is not None:
            lab.seal()
        lab.append("chair-2-b", [ChairBooked("c1", el.money(3))])
        lab.append("row-1", [RowClosed(7)])
        yield lab


def positions(events: Any) -> list[int]:
    return [event.position for event in events]


# -- events


def test_read_gives_the_events_with_their_envelopes_in_order(lab: el.Lab) -> None:
    events = lab.read().list()
    assert [event.data for event in events] == [BOOKED, ChairFreed(), ChairBooked("c1", el.money(3)), RowClosed(7)]
    assert [(e.position, e.stream, e.category, e.id, e.version, e.type) for e in events] == [
        (1, "chair-1", "chair", "1", 1, "ChairBooked"),
        (2, "chair-1", "chair", "1", 2, "ChairFreed"),
        (3, "chair-2-b", "chair", "2-b", 1, "ChairBooked"),
        (4, "row-1", "row", "1", 1, "RowClosed"),
    ]
    assert [(e.actor, e.tenant, e.tags) for e in events[1:3]] == [("ada", "default", ("vip",)), (None, "default", ("guest:c1",))]
    assert events[0].tags == ("guest:c9", "vip")
    assert events[0].recorded_at == events[1].recorded_at <= events[2].recorded_at
    assert events[0].occurred_at == events[0].recorded_at
    assert events[0].correlation_id == events[1].correlation_id == events[0].event_id


@pytest.mark.parametrize(
    ("filter", "found"),
    [
        (el.events(), [1, 2, 3, 4]),
        (el.events(ChairBooked), [1, 3]),
        (el.events("ChairBooked", RowClosed), [1, 3, 4]),
        (el.stream("chair-1"), [1, 2]),
        (el.stream("chair-1", "row-1"), [1, 2, 4]),
        (el.category("chair"), [1, 2, 3]),
        (el.category(Chair), [1, 2, 3]),
        (el.tag(guest="c9"), [1]),
        (el.tag("vip"), [1, 2]),
        (el.tag("vip") & el.events(ChairFreed), [2]),
        (el.tag(guest="c1") | el.category("row"), [3, 4]),
        (el.stream("chair-9"), []),
        (el.category("chair") & el.category("row"), []),
    ],
)
def test_a_filter_picks(lab: el.Lab, filter: Filter, found: list[int]) -> None:
    events = lab.read(filter)
    assert positions(events) == found
    assert len(events) == len(found)
    assert events.frame()["_position"].to_list() == found
    assert events.arrow().column("position").to_pylist() == found
    assert [row[0] for row in events.relation().fetchall()] == found


@settings(max_examples=30)
@given(
    log=oracle.logs(),
    after=st.integers(-2, 30),
    until=st.none() | st.integers(-2, 30),
    limit=st.none() | st.integers(0, 30),
    sealed=st.booleans(),
)
def test_after_is_exclusive_until_inclusive_and_limit_counts(
    log: Log, after: int, until: int | None, limit: int | None, sealed: bool
) -> None:
    layout = "mixed" if sealed else "memory"
    with tempfile.TemporaryDirectory() as folder, oracle.written(layout, Path(folder) / "log", log) as lab:
        high = len(log.facts) if until is None else min(until, len(log.facts))
        expected = list(range(max(after, 0) + 1, high + 1))[:limit]
        events = lab.read(after=after, until=until, limit=limit)
        assert positions(events) == expected
        assert len(events) == len(expected)
        assert events.frame()["_position"].to_list() == expected
        assert [event.data for event in events] == [log.facts[p - 1][1] for p in expected]


def test_events_are_those_of_the_call_and_can_be_taken_twice(lab: el.Lab) -> None:
    events = lab.read(el.category("chair"))
    lab.append("chair-3", [ChairFreed()])
    assert positions(events) == positions(events) == [1, 2, 3]
    assert positions(lab.read(el.category("chair"))) == [1, 2, 3, 5]
    assert repr(events) == "Events(category(chair), after 0, until 4)"


def test_events_keep_the_tenant_of_the_call(lab: el.Lab) -> None:
    with lab.context(tenant="acme"):
        lab.append("chair-1", [ChairFreed()])
        events = lab.read()
    assert positions(events) == [5]
    assert len(events) == 1


@pytest.mark.parametrize("filter", ["chair-1", ChairBooked, None, ["chair-1"]])
def test_what_is_no_filter_is_refused(lab: el.Lab, filter: Any) -> None:
    with pytest.raises(UnknownType, match="is no filter"):
        lab.read(filter)


def test_a_type_that_is_nowhere_known_is_refused_with_its_neighbours(lab: el.Lab) -> None:
    with pytest.raises(UnknownType, match="no event type is called 'ChairBoked'") as caught:
        lab.read(el.events("ChairBoked"))
    assert caught.value.hint == "did you mean ChairBooked or ChairFreed?"
    with pytest.raises(UnknownType) as caught:
        lab.read(el.events("Xyzzy"))
    assert caught.value.hint == "the store has ChairBooked, ChairFreed, RowClosed"
    with pytest.raises(UnknownType) as caught:
        el.scratch().read(el.events("Xyzzy"))
    assert caught.value.hint == "the store has no events yet"
    assert lab.read(el.events(oracle.CrateFilled)).list() == [], "defined here, if not stored"


# -- frames


def test_a_frame_has_the_envelope_then_the_fields_of_the_types_that_were_picked(lab: el.Lab) -> None:
    envelope = {
        "_position": pl.Int64(), "_stream": pl.String(), "_category": pl.String(), "_id": pl.String(), "_version": pl.Int64(),
        "_type": pl.String(), "_schema_version": pl.Int16(), "_event_id": pl.String(), "_recorded_at": pl.Datetime("us", "UTC"),
        "_occurred_at": pl.Datetime("us", "UTC"), "_correlation_id": pl.String(), "_causation_id": pl.String(),
        "_actor": pl.String(), "_tenant": pl.String(), "_tags": pl.List(pl.String()),
    }  # fmt: skip
    booked = {
        "guest": pl.String(), "price": pl.Decimal(18, 2), "spot.row": pl.String(), "spot.chair": pl.Int64(),
        "until": pl.Duration("us"), "ticket": pl.String(),
    }  # fmt: skip
    frame = lab.read(el.events(ChairBooked)).frame()
    assert frame.schema == {**envelope, **booked}
    assert frame.select(booked.keys()).rows() == [
        ("c9", Decimal("9.50"), "A", 3, dt.timedelta(hours=2), str(uuid.UUID(int=5))),
        ("c1", Decimal("3.00"), None, None, None, None),
    ]
    assert frame.select("_position", "_stream", "_category", "_id", "_version", "_type", "_tags").rows() == [
        (1, "chair-1", "chair", "1", 1, "ChairBooked", ["guest:c9", "vip"]),
        (3, "chair-2-b", "chair", "2-b", 1, "ChairBooked", ["guest:c1"]),
    ]
    assert lab.read(el.events(ChairBooked), until=0).frame().schema == frame.schema
    assert lab.read(until=0).frame().schema == envelope
    # One name with two types is two columns; each says its own.
    both = lab.read(el.events(ChairBooked, RowClosed)).frame()
    assert both.select("guest_s", "guest_i64").rows() == [("c9", None), ("c1", None), (None, 7)]


def test_ids_in_a_frame_are_those_of_the_events(lab: el.Lab) -> None:
    frame = lab.read().frame()
    for name in ("event_id", "correlation_id", "causation_id"):
        assert frame[f"_{name}"].to_list() == [None if v is None else str(v) for v in (getattr(e, name) for e in lab.read())]


def test_arrow_has_the_stored_columns(lab: el.Lab) -> None:
    table = lab.read(el.events(ChairBooked)).arrow()
    columns = ["guest:s", "price:d18_2", "spot:p", "spot.row:s", "spot.chair:i64", "until:td", "ticket:uuid"]
    assert table.column_names == [*ENVELOPE_NAMES, *columns]
    assert table.column("commit").to_pylist() == [1, 3]


@settings(max_examples=8)
@given(log=oracle.logs())
def test_a_frame_says_what_the_sql_view_says(log: Log) -> None:
    with tempfile.TemporaryDirectory() as folder, oracle.written("mixed", Path(folder) / "log", log) as lab:
        names = [name for name in lab.read().frame().columns if "." not in name]
        in_sql = lab.sql(f"select {', '.join(names[:15])} from events.log order by _position")
        assert lab.read().frame().select(names[:15]).equals(in_sql)


# -- which class reads an event


def ticket(price: Any) -> type[Any]:
    """The same event class, as a notebook's cell defines it again."""

    @el.event
    class TicketPrinted:
        """A ticket."""

        price: price
        note: str = "again"

    return TicketPrinted


def test_a_cell_that_is_run_again_reads_what_was_stored_before() -> None:
    lab = el.scratch()
    first = ticket(int)
    lab.append("ticket-1", [first(3)])
    old = first(4)
    second = ticket(int)
    assert [type(event.data) for event in lab.read()] == [second]
    with pytest.raises(StaleType, match="defined again since"):
        lab.append("ticket-1", [old])
    lab.append("ticket-1", [second(5)])
    assert [event.data for event in lab.read()] == [second(3), second(5)]
    assert lab.at(position=1).read().list()[0].data == second(3)


def test_two_classes_of_one_stored_name_in_one_store_are_refused() -> None:
    def elsewhere() -> type[Any]:
        @el.event(name="StubTorn")
        class Torn:
            """Half of a ticket."""

            n: int

        return Torn

    @el.event
    class StubTorn:
        """Half of a ticket."""

        n: int

    lab = el.scratch()
    lab.append("stub-1", [StubTorn(1)])
    with pytest.raises(SchemaConflict, match=r"'StubTorn' is .* in this store, and now also"):
        lab.append("stub-1", [elsewhere()(2)])
    assert [event.data for event in lab.read()] == [StubTorn(1)]
    assert [event.data for event in lab.at(position=1).read()] == [StubTorn(1)], "a moment knows what its lab knows"


def test_events_without_a_class_are_dicts_of_plain_values(lab: el.Lab) -> None:
    lab.ingest(el.rows("ChairPainted", pl.DataFrame({"id": ["1"], "colour": ["red"]}), stream="chair-{id}"), source="paint")
    event = lab.read(el.events("ChairPainted")).list()[0]
    assert event.data == {"id": "1", "colour": "red"}
    assert repr(event) == "Recorded(5, 'chair-1' @3, ChairPainted({'id': '1', 'colour': 'red'}))"
    assert (lab.load(Chair, "1"), lab.loaded(Chair, "1").version) == (Chair(""), 3)


def test_a_state_that_could_be_of_two_models_is_not_guessed() -> None:
    def another() -> None:
        @el.projection(name="twofold")
        class Other:
            n: int = 0

            @staticmethod
            def key(event: ChairBooked) -> str:
                return event.guest

            def evolve(self, event: ChairBooked) -> Self:
                return self

    @el.projection
    class Twofold:
        n: int = 0

        @staticmethod
        def key(event: ChairBooked) -> str:
            return event.guest

        def evolve(self, event: ChairBooked) -> Self:
            return replace(self, n=self.n + 1)

    lab = el.scratch()
    lab.append("chair-1", [BOOKED])
    assert lab.sql("select * from state.twofold").rows() == [("c9", 1, 1, 1)]
    another()
    with pytest.raises(UnknownType, match=r"state\.twofold could be any of .*Twofold.*Other"):
        lab.sql("select * from state.twofold")
    assert len(lab.table(Twofold)) == 1


def test_a_model_that_is_defined_again_is_another_table_in_sql() -> None:
    def counting(step: int) -> type[Any]:
        @el.aggregate
        class Turnstile:
            n: int = 0

            def evolve(self, event: ChairFreed) -> Self:
                return replace(self, n=self.n + step)

        return Turnstile

    with tempfile.TemporaryDirectory() as folder, el.open(folder) as lab:
        lab.append("turnstile-1", [ChairFreed(), ChairFreed()])
        first = counting(1)
        relation = lab.relation("select n from state.turnstile")
        assert lab.sql("select n from state.turnstile").rows() == [(2,)]
        second = counting(10)
        assert lab.sql("select n from state.turnstile").rows() == [(20,)]
        assert lab.table(second)["n"].to_list() == [20]
        assert relation.fetchall() == [(2,)]
        with pytest.raises(StaleType):
            lab.table(first)


# -- names and tenants


@pytest.mark.parametrize("id", ["", "\n", "a\0b", "x" * 600])
def test_an_id_that_names_no_stream_is_refused(lab: el.Lab, id: str) -> None:
    with pytest.raises(InvalidName):
        lab.load(Chair, id)


def test_a_lab_of_all_tenants_reads_them_all_and_loads_of_none(lab: el.Lab) -> None:
    with lab.context(tenant="acme"):
        lab.append("chair-1", [ChairBooked("c5", el.money(1))])
    everyone = el.Lab(lab.store, el.ALL, clock=lab._clock, chance=lab._chance, path=lab.path)
    assert len(everyone.read()) == 5
    assert everyone.table(Chair).rows() == [("acme", "1", "c5", 1, 5), ("default", "1", "", 2, 2), ("default", "2-b", "c1", 1, 3)]
    assert everyone.table(Chair).columns == ["_tenant", "_id", "guest", "_version", "_position"]
    assert everyone.sql("select _tenant, _id, guest from state.chair where guest = 'c5'").rows() == [("acme", "1", "c5")]
    assert everyone.basis.tenant == "ALL"
    for call in (lambda: everyone.load(Chair, "1"), lambda: everyone.at(version=(Chair, "1", 1))):
        with pytest.raises(Unsupported, match="asks for one tenant"):
            call()
    with everyone.context(tenant="acme"):
        assert everyone.load(Chair, "1") == Chair("c5")
        assert everyone.table(Chair).rows() == [("1", "c5", 1, 5)]


def test_everything_a_read_refuses_is_an_error_of_eventlab(lab: el.Lab) -> None:
    for call in (lambda: lab.read("x"), lambda: lab.load(Chair, ""), lambda: lab.table(int), lambda: lab.at()):  # type: ignore[arg-type]
        with pytest.raises(EventlabError) as caught:
            call()
        assert caught.value.hint
