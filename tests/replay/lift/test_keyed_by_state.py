"""Projections keyed by the state of an aggregate: what they mean, by every engine, on from a base, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from replay.lift import gallery
from replay.lift.hostile import agree, answer, logs, shown, written

import eventlab as el
from eventlab.errors import EvolveFailed, ModelError, NotLiftable, StaleType, Unsupported
from eventlab.model.models import model_of
from eventlab.replay.lift import fold_table, fold_versions, plan_of
from eventlab.store.base import ALL
from eventlab.store.read_models import base_in_memory
from eventlab.testing import given as scenario


@el.event(name="keyed.TramRouted")
class TramRouted:
    """The tram runs on a line."""

    line: str | None


@el.event(name="keyed.TramTicketSold")
class TramTicketSold:
    """Somebody bought a ticket on it."""

    cents: int


@el.event(name="keyed.TramStopped")
class TramStopped:
    """It stopped; nobody but the source looks at that."""

    seconds: int


@el.aggregate(name="tram")
class Tram:
    """Where a tram runs, and how often it has stopped there."""

    line: str | None = None
    stops: int = 0

    def evolve(self, event: TramRouted | TramStopped) -> Self:
        if isinstance(event, TramRouted):
            return replace(self, line=event.line, stops=0)
        if event.seconds == 13:
            raise ValueError("thirteen seconds")
        return replace(self, stops=self.stops + 1)


@el.projection(source=Tram)
class LineTakings:
    """What was taken on a line."""

    sold: int = 0
    cents: int = 0
    most: int = 0

    @staticmethod
    def key(tram: Tram) -> str | None:
        return tram.line

    def evolve(self, event: TramTicketSold) -> Self:
        if event.cents < 0:
            raise ValueError("a negative price")
        return replace(self, sold=self.sold + 1, cents=self.cents + event.cents, most=max(self.most, event.cents))


@el.projection(source=Tram)
class LineStops:
    """Counts routes and stops, by line and by the actor who routed: the event is the source's too."""

    routed: int = 0
    stops: int = 0

    @staticmethod
    def key(tram: Tram, event: TramRouted | TramStopped, meta: el.Meta) -> str:
        return f"{tram.line}/{meta.actor}/{'r' if isinstance(event, TramRouted) else tram.stops % 2}"

    def evolve(self, event: TramRouted | TramStopped) -> Self:
        if isinstance(event, TramRouted):
            return replace(self, routed=self.routed + 1)
        return replace(self, stops=self.stops + 1)


MODELS = (LineTakings, LineStops, gallery.DeskWork, gallery.CityScans)
EVENTS = (TramRouted, TramTicketSold, TramStopped)


def oracle(facts: list[tuple[str, Any]]) -> dict[str, tuple[int, int]]:
    """Tickets and cents by line, in a few lines."""
    lines: dict[str, str | None] = {}
    found: dict[str, tuple[int, int]] = {}
    for stream, event in facts:
        if not stream.startswith("tram-"):
            continue
        if isinstance(event, TramRouted):
            lines[stream] = event.line
        line = lines.get(stream)
        if isinstance(event, TramTicketSold) and line is not None:
            sold, cents = found.get(line, (0, 0))
            found[line] = (sold + 1, cents + event.cents)
    return found


PLAIN = st.one_of(
    st.builds(TramRouted, st.sampled_from(["1", "2", "ä", None])), st.builds(TramTicketSold, st.integers(0, 500)),
    st.builds(TramStopped, st.integers(0, 12)),
)  # fmt: skip
FACTS = st.lists(st.tuples(st.sampled_from(["tram-1", "tram-2", "tram-3", "bus-1"]), PLAIN), max_size=40)


@settings(max_examples=60)
@given(facts=FACTS)
def test_an_event_belongs_to_the_row_of_its_stream_as_it_is_after_it(facts: list[tuple[str, Any]]) -> None:
    with written(facts, "memory", None) as lab:
        for engine in ("rows", "loop", "lifted", "auto"):
            table = lab.table(LineTakings, engine=engine)
            assert {row["_id"]: (row["sold"], row["cents"]) for row in table.to_dicts()} == oracle(facts)


@pytest.mark.parametrize("layout", ["memory", "hot", "mixed", "compacted", "eras"])
@pytest.mark.parametrize("model", MODELS, ids=lambda cls: cls.__name__)
@settings(max_examples=6, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_every_engine_gives_what_the_row_fold_gives(
    model: type[Any], layout: str, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    facts = data.draw(logs(model, EVENTS, max_size=20))
    folder = None if layout == "memory" else Path(tmp_path_factory.mktemp(layout))
    of = model_of(model)
    with written(facts, layout, folder) as lab:
        cut = lab.store.cut()
        agree(of, cut, "default", cut.head)
        agree(of, cut, ALL, data.draw(st.integers(0, cut.head), label="until"))
        agree(of, cut, "default", cut.head, fold=fold_versions)


@pytest.mark.parametrize("model", MODELS, ids=lambda cls: cls.__name__)
@settings(max_examples=25, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_it_goes_on_from_a_base(model: type[Any], data: st.DataObject) -> None:
    facts = data.draw(logs(model, EVENTS, max_size=20))
    of = model_of(model)
    with written(facts, "memory", None) as lab:
        cut = lab.store.cut()
        middle = data.draw(st.integers(0, cut.head), label="middle")
        base = answer(of, cut, "default", middle, "rows")
        if isinstance(base, tuple):
            return
        rows_of = base_in_memory(of.name, "default", "", middle, base, of.key_names).rows_of
        whole = answer(of, cut, "default", cut.head, "rows")
        for engine in ("rows", "loop", "auto"):
            found = answer(of, cut, "default", cut.head, engine, after=middle, base=rows_of)
            if isinstance(whole, tuple):
                assert found == whole
            else:
                touched = {tuple(row[name] for name in of.key_names): row for row in shown(found)}
                rows = [touched.get(tuple(row[name] for name in of.key_names), row) for row in shown(whole)]
                assert rows == shown(whole)
                assert all(row["_position"] > middle for row in touched.values())


def test_the_plan_lifts_and_says_by_what_it_is_keyed(tmp_path: Path) -> None:
    with el.open(tmp_path / "log") as lab:
        lab.append("tram-1", [TramRouted("4"), TramTicketSold(210), TramRouted("5"), TramTicketSold(90)])
        told = lab.explain(LineTakings)
        assert told.engine == "lifted"
        assert "JOIN" in told.sql
        assert "keyed by the state of Tram after each event" in str(told)
        lab.seal()
        assert lab.table(LineTakings, engine="lifted").rows() == [("4", 1, 210, 210, 1, 2), ("5", 1, 90, 90, 1, 4)]
        assert "states_of_source" in plan_of(model_of(LineTakings)).last_sql


def test_it_lifts_only_where_its_source_does() -> None:
    @el.aggregate(name="tram")
    class OddTram:
        stops: int = 0

        def evolve(self, event: TramStopped) -> Self:
            return replace(self, stops=self.stops * 3 % 7 + event.seconds)

    @el.projection(source=OddTram)
    class OddTakings:
        sold: int = 0

        @staticmethod
        def key(tram: OddTram) -> str:
            return f"{tram.stops}"

        def evolve(self, event: TramTicketSold) -> Self:
            return replace(self, sold=self.sold + 1)

    lab = el.scratch()
    for seconds in range(40):
        lab.append(f"tram-{seconds % 3}", [TramStopped(seconds), TramTicketSold(1)])
    with pytest.raises(NotLiftable, match=r"OddTram\.stops does not lift"):
        lab.table(OddTakings, engine="lifted")
    agree(model_of(OddTakings), lab.store.cut(), "default", 80, ("loop", "auto"))


def test_a_stream_that_its_source_cannot_fold_has_no_row_from_there_on() -> None:
    lab = el.scratch()
    lab.append("tram-1", [TramRouted("4"), TramTicketSold(1), TramStopped(13)])
    assert lab.table(LineTakings)["sold"].to_list() == [1], "nobody asks for the state that is not there"
    lab.append("tram-2", [TramRouted("4"), TramTicketSold(20)])
    lab.append("tram-1", [TramTicketSold(300)])
    assert [event.position for event in lab.debug(LineTakings, "4").events] == [2, 5], "the other stream can be looked at"
    for engine in ("rows", "loop", "auto"):
        with pytest.raises(EvolveFailed, match=r"LineTakings\.key failed.* at position 6 .*Tram\.evolve failed.*thirteen"):
            lab.table(LineTakings, engine=engine)
    done = lab.rebuild(LineTakings)
    assert done.parked == 1
    assert lab.parked()["position"].to_list() == [6]
    lab.append("tram-2", [TramTicketSold(4000)])
    assert lab.catch_up(LineTakings).parked == 1
    assert lab.sql("select sold, cents from state.line_takings").rows() == [(3, 4021)]


def test_a_read_model_is_current_and_knows_the_code_of_its_source(tmp_path: Path) -> None:
    with el.open(tmp_path / "log") as lab:
        lab.append("tram-1", [TramRouted("4"), TramTicketSold(10)])
        lab.rebuild(LineTakings)
        lab.append("tram-1", [TramTicketSold(5)])
        lab.append("tram-2", [TramRouted("9"), TramTicketSold(1)])
        assert lab.table(LineTakings)["cents"].to_list() == [15, 1]
        lab.catch_up(LineTakings)
        assert lab.sql("select cents from state.line_takings order by 1").rows() == [(1,), (15,)]
    before = model_of(LineTakings).fingerprint
    assert before != model_of(LineStops).fingerprint

    def one(by: int) -> str:
        @el.aggregate(name="tram")
        class Steps:
            stops: int = 0

            def evolve(self, event: TramStopped) -> Self:
                return replace(self, stops=self.stops + by)

        @el.projection(source=Steps)
        class Sold:
            sold: int = 0

            @staticmethod
            def key(tram: Steps) -> str:
                return str(tram.stops)

            def evolve(self, event: TramTicketSold) -> Self:
                return replace(self, sold=self.sold + 1)

        return model_of(Sold).fingerprint

    assert one(1) == one(1) != one(2), "what a key is made of is part of what it means"


def test_tenants_are_apart() -> None:
    lab = el.scratch()
    for tenant, line in (("acme", "1"), ("zeta", "2"), ("acme", "3")):
        with el.context(tenant=tenant):
            lab.append("tram-1", [TramRouted(line), TramTicketSold(7)])
    cut = lab.store.cut()
    found = agree(model_of(LineTakings), cut, ALL, cut.head)
    assert [(row["_tenant"], row["_id"], row["sold"]) for row in found.to_pylist()] == [
        ("acme", "1", 1), ("acme", "3", 1), ("zeta", "2", 1),
    ]  # fmt: skip
    of = model_of(LineTakings)
    base = base_in_memory(of.name, "", "", 2, fold_table(of, cut, ALL, 2), ("_tenant", "_id"))
    onward = fold_table(of, cut, ALL, cut.head, engine="rows", after=2, base=base.rows_of)
    assert shown(onward) == shown(fold_table(of, cut, ALL, cut.head, engine="loop", after=2, base=base.rows_of))


def test_the_past_versions_the_debugger_a_scenario_and_the_check(tmp_path: Path) -> None:
    with el.open(tmp_path / "log") as lab:
        lab.append("tram-1", [TramRouted("4"), TramTicketSold(10), TramRouted("5"), TramTicketSold(30), TramTicketSold(2)])
        assert lab.at(position=3).table(LineTakings)["_id"].to_list() == ["4"]
        assert lab.versions(LineTakings).select("_id", "cents", "_position").rows() == [("4", 10, 2), ("5", 30, 4), ("5", 32, 5)]
        debugger = lab.debug(LineTakings, "5")
        assert [event.position for event in debugger.events] == [4, 5]
        assert debugger.to(2).state == LineTakings(sold=2, cents=32, most=30)
        assert all(check.ok for check in lab.check(LineStops, level="quick")), "replayed by processes of other settings"
    scenario(LineTakings, [TramRouted("7"), TramTicketSold(4)]).expect([{"_id": "7", "sold": 1, "cents": 4, "most": 4}])


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(ModelError, match="source=LineTakings, which is a projection"):

        @el.projection(source=LineTakings)
        class OfProjection:
            n: int = 0

    with pytest.raises(ModelError, match=r"OfNoModel has a source, and 'tram' is not a model\s+Hint: source= takes the class"):

        @el.projection(source="tram")  # type: ignore[type-var]
        class OfNoModel:
            n: int = 0

    with pytest.raises(ModelError, match=r"key takes \(\)"):

        @el.projection(source=Tram)
        class OfNothing:
            n: int = 0

            @staticmethod
            def key() -> str:
                return ""

            def evolve(self, event: TramTicketSold) -> Self:
                return self

    with pytest.raises(ModelError, match="key takes a TramTicketSold first, and with source=Tram it is given a Tram"):

        @el.projection(source=Tram)
        class OfEvent:
            n: int = 0

            @staticmethod
            def key(event: TramTicketSold) -> str:
                return ""

            def evolve(self, event: TramTicketSold) -> Self:
                return self

    with pytest.raises(ModelError, match="late= or corrections="):

        @el.projection(source=Tram, late="sorted")
        class OfLate:
            n: int = 0

    with pytest.raises(Unsupported, match="LineTakings is keyed by the state of Tram"):
        el.scratch().inline(LineTakings)


def test_one_of_a_source_that_was_defined_again_says_so() -> None:
    def define() -> tuple[type[Any], type[Any]]:
        @el.aggregate(name="tram")
        class Again:
            n: int = 0

            def evolve(self, event: TramStopped) -> Self:
                return replace(self, n=self.n + 1)

        @el.projection(source=Again)
        class ByAgain:
            n: int = 0

            @staticmethod
            def key(tram: Again) -> str:
                return str(tram.n)

            def evolve(self, event: TramStopped) -> Self:
                return replace(self, n=self.n + 1)

        return Again, ByAgain

    first, old = define()

    @el.aggregate(name="tram")
    class Again:
        n: int = 1

        def evolve(self, event: TramStopped) -> Self:
            return self

    define_again = Again
    assert model_of(define_again)
    _, new = define()
    lab = el.scratch()
    lab.append("tram-1", [TramStopped(1)])
    assert lab.table(new)["n"].to_list() == [1]
    with pytest.raises(StaleType):
        lab.table(old)
    with pytest.raises(StaleType, match="was defined again since"):

        @el.projection(source=first)
        class OfTheFirst:
            n: int = 0
