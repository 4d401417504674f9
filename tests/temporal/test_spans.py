"""Spans against a plain reading: whatever is asked of intervals, series and differences, `at` says the same of each moment."""

from __future__ import annotations

import datetime as dt
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Any, Self
from zoneinfo import ZoneInfo

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import eventlab as el
from eventlab import keeping
from eventlab.errors import InvalidValue, Refused, UnknownType, Unsupported
from eventlab.testing.plugin import Clock

ZERO = dt.datetime(2026, 3, 28, 12, tzinfo=dt.UTC)


@dataclass(frozen=True)
class Spot:
    row: int


@el.event(name="spans.PieceMoved")
class PieceMoved:
    """A piece was moved."""

    by: int
    colour: str | None = None


@el.event(name="spans.PieceTaken")
class PieceTaken:
    """A piece was taken."""


@el.aggregate(name="spans_piece")
class Piece:
    at: int = 0
    colour: str | None = None
    spot: Spot = Spot(0)
    seen: tuple[int, ...] = ()

    def evolve(self, event: PieceMoved | PieceTaken) -> Self:
        match event:
            case PieceMoved(by=by, colour=colour):
                seen = (*self.seen[-1:], by)
                return replace(self, at=self.at + by, colour=colour or self.colour, spot=Spot(self.at % 2), seen=seen)
            case PieceTaken():
                return replace(self, at=0)
        return self


@el.projection(name="spans_colour")
class Colour:
    moves: int = 0

    @staticmethod
    def key(event: PieceMoved) -> str | None:
        return event.colour

    def evolve(self, event: PieceMoved) -> Self:
        return replace(self, moves=self.moves + 1)


STEP = st.tuples(
    st.integers(0, 3), st.sampled_from("ab"), st.one_of(st.just(PieceTaken()), st.builds(PieceMoved, st.integers(-1, 1),
                                                                                        st.sampled_from([None, "red", "blue"]))),
    st.integers(1, 2),
)  # fmt: skip


def played(steps: list[tuple[int, str, Any, int]], lab: el.Lab, clock: Clock) -> list[dt.datetime]:
    """Append events, so many at once, so many minutes after each other; the times between and at records."""
    times = [ZERO - dt.timedelta(minutes=1)]
    for minutes, piece, event, count in steps:
        clock.advance(minutes=minutes)
        lab.append(f"spans_piece-{piece}", [event] * count)
        times += [clock.now, clock.now + dt.timedelta(seconds=30)]
    return times


def rows_at(frame: pl.DataFrame, time: dt.datetime) -> list[tuple[Any, ...]]:
    """The rows of intervals that hold at a time."""
    there = frame.filter((pl.col("_from") <= time) & (pl.col("_to").is_null() | (pl.col("_to") > time)))
    return sorted(map(repr, there.drop("_from", "_to", "_version", "_position").rows()))


@given(st.lists(STEP, max_size=10))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_intervals_say_of_every_moment_what_at_says(steps: list[tuple[int, str, Any, int]]) -> None:
    clock = Clock(ZERO)
    with el.scratch(clock=clock, seed=0) as lab:
        times = played(steps, lab, clock)
        for model in (Piece, Colour):
            found = lab.intervals(model)
            for time in times:
                table = lab.at(time).table(model).drop("_version", "_position")
                assert rows_at(found, time) == sorted(map(repr, table.rows()))
            assert found.filter(pl.col("_to") <= pl.col("_from")).is_empty()
            # Neighbours differ, and one begins where the other ends.
            for key in found["_id"].unique():
                mine = found.filter(pl.col("_id") == key).sort("_from")
                assert mine["_to"].to_list()[:-1] == mine["_from"].to_list()[1:]
                states = list(map(repr, mine.drop("_id", "_from", "_to", "_version", "_position").rows()))
                assert all(a != b for a, b in itertools.pairwise(states))
                assert lab.intervals(model, key).equals(mine)


@given(st.lists(STEP, min_size=1, max_size=10), st.integers(1, 5))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_series_is_the_table_at_each_step(steps: list[tuple[int, str, Any, int]], minutes: int) -> None:
    clock = Clock(ZERO)
    with el.scratch(clock=clock, seed=0) as lab:
        played(steps, lab, clock)
        found = lab.series(Piece, f"{minutes}m")
        for time in found["_at"].unique():
            table = lab.at(time).table(Piece).drop("_version", "_position")
            mine = found.filter(pl.col("_at") == time).drop("_at", "_version", "_position")
            assert mine.equals(table)
        first = lab.read().list()[0].recorded_at
        narrow = lab.series(Piece, "1m", start=first, end=first + dt.timedelta(minutes=2), id="a", fields=["at"])
        assert set(narrow["_id"]) <= {"a"}
        assert narrow["_at"].n_unique() <= 3


@given(st.lists(STEP, max_size=10), st.integers(0, 12), st.integers(0, 12))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_diff_has_what_differs_and_the_events_that_did_it(steps: list[Any], one: int, other: int) -> None:
    clock = Clock(ZERO)
    with el.scratch(clock=clock, seed=0) as lab:
        played(steps, lab, clock)
        a, b = sorted((min(one, lab.head), min(other, lab.head)))
        found = lab.diff(Piece, a, b)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(keeping, "FEW", -1)
            assert found.equals(lab.diff(Piece, a, b)), "all versions say what the events one by one say"
        colours = lab.diff(Colour, a, b)
        assert {row["_id"] for row in colours.to_dicts()} <= {"red", "blue", "green"}
        before = {row["_id"]: row for row in lab.at(position=a).table(Piece).to_dicts()}
        after = {row["_id"]: row for row in lab.at(position=b).table(Piece).to_dicts()}
        expected = set()
        for key, row in after.items():
            if key not in before:
                expected.add((key, "_row"))
            else:
                expected |= {(key, field) for field in ("at", "colour", "spot", "seen") if before[key][field] != row[field]}
        assert {(row["_id"], row["field"]) for row in found.to_dicts()} == expected
        for row in found.to_dicts():
            assert row["events"], row
            assert all(a < position <= b for position in row["events"])
            last = row["events"][-1]
            if row["field"] != "_row":
                value = lab.at(position=last).load(Piece, row["_id"])
                assert getattr(value, row["field"]) == getattr(lab.at(position=b).load(Piece, row["_id"]), row["field"])


@pytest.fixture
def game(clock: Clock) -> Iterator[el.Lab]:
    clock.set(ZERO)
    with el.scratch(clock=clock, seed=0) as lab:
        for minutes, actor, event in (
            (0, "ann", PieceMoved(2, "red")), (5, "bob", PieceMoved(0)), (5, "ann", PieceMoved(3)), (5, None, PieceTaken()),
        ):  # fmt: skip
            clock.advance(minutes=minutes)
            with lab.context(actor=actor) if actor else lab.context():
                lab.append("spans_piece-a", [event])
        yield lab


def minute(n: int) -> dt.datetime:
    return ZERO + dt.timedelta(minutes=n)


def test_history_of_a_field(game: el.Lab) -> None:
    found = game.history(Piece, "a", "at")
    assert found.select("value", "from", "to", "event", "version", "actor").rows() == [
        (2, minute(0), minute(10), "spans.PieceMoved", 1, "ann"),
        (5, minute(10), minute(15), "spans.PieceMoved", 3, "ann"),
        (0, minute(15), None, "spans.PieceTaken", 4, None),
    ]
    ids = [str(event.event_id) for event in game.read()]
    assert found["event_id"].to_list() == [ids[0], ids[2], ids[3]]
    assert game.history(Colour, "red", "moves")["value"].to_list() == [1]
    assert game.at(position=2).history(Piece, "a", "at")["to"].to_list() == [None]
    assert game.history(Piece, "nobody", "at").is_empty()
    with pytest.raises(InvalidValue, match="has no field 'speed'"):
        game.history(Piece, "a", "speed")
    with pytest.raises(InvalidValue, match="is no key of Colour"):
        game.history(Colour, ("red", 1), "moves")


def test_the_cause_of_a_change_is_its_command(clock: Clock) -> None:
    @el.command
    class MovePiece:
        by: int

    @el.aggregate(name="spans_cause")
    class Cause:
        at: int = 0

        def decide(self, command: MovePiece) -> Iterator[PieceMoved]:
            yield PieceMoved(command.by)

        def evolve(self, event: PieceMoved) -> Self:
            return replace(self, at=self.at + event.by)

    with el.scratch(clock=clock) as lab:
        command_id = "018f6f2c-8f6e-7cc1-9a3b-5d1a3f0c2b11"
        lab.handle(Cause, "1", MovePiece(3), command_id=command_id)
        assert lab.history(Cause, "1", "at")["cause"].to_list() == [command_id]
        assert lab.audit(Cause, "1")["cause"].to_list() == [command_id]


def test_blame_and_audit_read_like_a_person_would(game: el.Lab) -> None:
    blamed = game.blame(Piece, "a", "at")
    assert blamed.select("before", "value", "event", "actor").rows() == [
        ("5", 0, "spans.PieceTaken", None), ("2", 5, "spans.PieceMoved", "ann"), ("0", 2, "spans.PieceMoved", "ann"),
    ]  # fmt: skip
    assert game.blame(Piece, "a", "colour").select("before", "value").rows() == [("None", "red")]
    audited = game.audit(Piece, "a")
    assert audited["changed"].to_list() == [
        "at: 0 → 2, colour: None → red, seen: [] → [2]", "seen: [2] → [2, 0]", "at: 2 → 5, seen: [2, 0] → [0, 3]", "at: 5 → 0",
    ]  # fmt: skip
    assert audited["actor"].to_list() == ["ann", "bob", "ann", None]
    assert audited["when"].to_list() == [minute(0), minute(5), minute(10), minute(15)]


def test_between_cuts_intervals_to_its_span(game: el.Lab) -> None:
    found = game.between(Piece, minute(3), minute(12), fields=["at"])
    assert found.select("at", "_from", "_to").rows() == [(2, minute(3), minute(10)), (5, minute(10), minute(12))]
    assert game.between(Piece, minute(-9), minute(-3)).is_empty()
    assert game.between(Piece, minute(20), minute(30), fields=["at"])["at"].to_list() == [0]
    with pytest.raises(InvalidValue, match="the span ends"):
        game.between(Piece, minute(3), minute(3))


def test_a_series_by_the_day_keeps_the_clock_of_its_zone(clock: Clock) -> None:
    # On 29 March 2026 the clocks of Berlin go forward: that day has 23 hours.
    with el.scratch(clock=clock, seed=0) as lab:
        for hours in (0, 20, 24, 24):
            clock.set(ZERO + dt.timedelta(hours=hours)) if not lab.head else clock.advance(hours=hours)
            lab.append("spans_piece-a", [PieceMoved(1)])
        found = lab.series(Piece, "1d", tz="Europe/Berlin")
        assert [(at - ZERO).total_seconds() / 3600 for at in found["_at"]] == [11, 34, 58]
        assert found["at"].to_list() == [1, 2, 3]
        for wrong, said in (
            ({"every": "soon"}, "'soon' is no step of a calendar"), ({"every": "0d"}, "no step"), ({"every": 5}, "no step"),
            ({"every": "1d", "tz": "Nowhere/Land"}, "is not a time zone"), ({"every": "1d", "tz": None}, "is not a time zone"),
        ):  # fmt: skip
            with pytest.raises(InvalidValue, match=said):
                lab.series(Piece, **wrong)  # type: ignore[arg-type]
    with el.scratch() as lab, pytest.raises(InvalidValue, match="no step"):
        lab.series(Piece, "banana")


@pytest.mark.parametrize(
    ("tz", "around", "every"),
    [
        ("Europe/Berlin", "2026-03-29", "1d"), ("Europe/Berlin", "2026-10-25", "1d"), ("Europe/Berlin", "2026-03-29", "6h"),
        ("Europe/Berlin", "2026-10-25", "6h"), ("Europe/Berlin", "2026-10-25", "1h"), ("Europe/Berlin", "2026-03-29", "1h"),
        ("America/Sao_Paulo", "2018-11-04", "1d"), ("America/Sao_Paulo", "2018-11-04", "12h"),
        ("Africa/Cairo", "2024-04-26", "1d"), ("Asia/Beirut", "2024-03-31", "1d"),
        ("Australia/Lord_Howe", "2026-10-04", "30m"), ("UTC", "2026-01-31", "1mo"),
    ],
)  # fmt: skip
def test_a_series_goes_by_the_clock_of_its_zone(tz: str, around: str, every: str) -> None:
    """Against a look at the zone's clock at every quarter of an hour."""
    middle, zone = dt.datetime.fromisoformat(around).replace(tzinfo=dt.UTC), ZoneInfo(tz)
    days = 70 if every == "1mo" else 3
    with el.scratch(clock=Clock(middle - dt.timedelta(days=days)), seed=0) as lab:
        lab.append("spans_piece-a", [PieceMoved(1)])
        end = middle + dt.timedelta(days=days)
        found = lab.series(Piece, every, tz=tz, end=end)["_at"].to_list()
    at = first = middle - dt.timedelta(days=days)
    expected: list[dt.datetime] = []
    before: object = None
    while at <= end:
        clock = at.astimezone(zone)
        minutes = clock.hour * 60 + clock.minute
        if every.endswith(("d", "mo")):
            new = (clock.month if every.endswith("mo") else clock.date()) != before
            if new and before is not None:
                expected.append(at)
            before = clock.month if every.endswith("mo") else clock.date()
        elif minutes % {"6h": 360, "12h": 720, "1h": 60, "30m": 30}[every] == 0:
            expected.append(at)
        at += dt.timedelta(minutes=15)
    assert [at for at in found if at > first] == [at for at in expected if at > first]


def test_late_and_out_of_order_events(clock: Clock) -> None:
    with el.scratch(clock=clock, seed=0) as lab:
        noon = clock.now
        lab.append("spans_piece-a", [PieceMoved(1)], occurred_at=noon - dt.timedelta(hours=1))
        lab.append("spans_piece-a", [PieceMoved(2)], occurred_at=noon - dt.timedelta(hours=3))
        lab.append("spans_piece-b", [PieceMoved(3)], occurred_at=noon - dt.timedelta(days=2))
        lab.append("spans_piece-b", [PieceMoved(4)])
        found = lab.late()
        assert found.select("position", "delay", "behind").rows() == [
            (2, dt.timedelta(hours=3), dt.timedelta(hours=2)), (3, dt.timedelta(days=2), None),
        ]  # fmt: skip
        assert len(lab.late(at_least=dt.timedelta(0))) == 4
        assert lab.late(el.events(PieceTaken)).is_empty()
        with pytest.raises(UnknownType):
            lab.late("all")  # type: ignore[arg-type]


def test_nothing_has_no_spans() -> None:
    with el.scratch() as lab:
        assert lab.intervals(Piece).columns == ["_id", "at", "colour", "spot", "seen", "_from", "_to", "_version", "_position"]
        assert lab.series(Piece, "1d").is_empty()
        assert lab.audit(Piece, "a").is_empty()
        assert lab.late().is_empty()
        assert lab.diff(Piece, 0, 0).is_empty()


def test_spans_of_a_store_on_disk_are_the_same_hot_sealed_and_compacted(tmp_path: Path) -> None:
    clock = Clock(ZERO)
    with el.open(tmp_path / "log", clock=clock, maintain=False) as lab:
        steps = [(1, "ab"[i % 2], PieceMoved(i % 3, ["red", None][i % 2]), 1 + i % 2) for i in range(60)]
        played(steps, lab, clock)
        asked = [lambda: lab.intervals(Piece), lambda: lab.series(Piece, "7m"), lambda: lab.diff(Piece, 20, 70),
                 lambda: lab.history(Piece, "a", "at"), lambda: lab.audit(Piece, "b")]  # fmt: skip
        hot = [ask() for ask in asked]
        lab.seal()
        assert all(ask().equals(before) for ask, before in zip(asked, hot, strict=True))
        lab.compact(all=True)
        assert all(ask().equals(before) for ask, before in zip(asked, hot, strict=True))


@given(st.lists(STEP, min_size=1, max_size=8))
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_sql_asks_the_same(steps: list[tuple[int, str, Any, int]]) -> None:
    clock = Clock(ZERO)
    with el.scratch(clock=clock, seed=0) as lab:
        times = played(steps, lab, clock)
        for time in times:
            found = lab.sql('select _id, "at", colour from state.spans_piece_at(?) order by _id', time)
            assert found.rows() == lab.at(time).table(Piece).select("_id", "at", "colour").rows()
        shown = ["_id", "at", "_from", "_to"]
        asked = lab.sql("select * from state.spans_piece_intervals() order by _id, _from")
        assert asked.select(shown).equals(lab.intervals(Piece).sort("_id", "_from").select(shown))
        for key in "ab":
            asked = "select value, _from, _to, _version from state.spans_piece_history('at') where _id = ? order by _position"
            mine = lab.history(Piece, key, "at")
            assert lab.sql(asked, key).rows() == [(str(v), f, t, n) for v, f, t, n in
                                                  mine.select("value", "from", "to", "version").rows()]  # fmt: skip
        old = lab.at(position=1)
        assert old.sql("select count(*) from state.spans_piece_intervals()").item() == 1


def test_sql_knows_of_what_was_appended_since(game: el.Lab) -> None:
    asked = "select \"at\" from state.spans_piece_at(TIMESTAMPTZ '2030-01-01') where _id = 'a'"
    assert game.sql(asked).item() == 0
    game.append("spans_piece-a", [PieceMoved(7)])
    assert game.sql(asked).item() == 7
    with pytest.raises(el.EventlabError):
        game.sql("select * from state.nothing_at(now())")


@el.event(name="spans.SumPaid")
class SumPaid:
    """Something was paid."""

    amount: Decimal


@el.aggregate(name="spans_purse")
class SpansPurse:
    total: Decimal = Decimal("0.00")
    n: int = 0

    def evolve(self, event: SumPaid) -> Self:
        return replace(self, total=self.total + event.amount, n=self.n + 1)


def test_a_decimal_with_more_noughts_is_no_change_and_is_read_as_a_person_writes_it() -> None:
    with el.scratch() as lab:
        lab.append("spans_purse-1", [SumPaid(Decimal("0.00")), SumPaid(Decimal("19.90")), SumPaid(Decimal("0.125"))])
        assert lab.blame(SpansPurse, "1", "total").select("before", "position").rows() == [("19.90", 3), ("0.00", 2)]
        assert lab.audit(SpansPurse, "1")["changed"].to_list() == [
            "n: 0 → 1", "total: 0.00 → 19.90, n: 1 → 2", "total: 19.90 → 20.025, n: 2 → 3",
        ]  # fmt: skip


def test_a_diff_of_what_had_occurred_has_the_events_that_occurred_in_between() -> None:
    with el.scratch() as lab:
        lab.append("spans_purse-1", [SumPaid(Decimal(1))], occurred_at="2026-01-02T00:00Z")
        lab.append("spans_purse-1", [SumPaid(Decimal(5))], occurred_at="2026-01-01T00:00Z")
        before, after = lab.at(occurred="2026-01-01T12:00Z"), lab.at(occurred="2026-01-03T00:00Z")
        found = lab.diff(SpansPurse, before, after)
        assert found.select("field", "events").rows() == [("n", [1]), ("total", [1])]
        with pytest.raises(InvalidValue, match="of different clocks"):
            lab.diff(SpansPurse, lab.at(position=1), after)
        with el.scratch() as other, pytest.raises(InvalidValue, match="a moment of another log"):
            lab.diff(SpansPurse, other.at(position=0), lab.at(position=1))


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (lambda lab: lab.history(Colour, 7, "moves"), "7 is no key of Colour"),
        (lambda lab: lab.history(Colour, ("a", "b"), "moves"), "it has 2 of 1 parts"),
        (lambda lab: lab.audit(Piece, 7), r"7 \(int\) is no id of Piece"),
        (lambda lab: lab.history(Piece, "spans_piece-a", "at"), "begins with the category"),
        (lambda lab: lab.load(Piece, "spans_piece-a"), "begins with the category"),
        (lambda lab: lab.debug(Piece, None), "is no id of Piece"),
        (lambda lab: lab.debug(Colour, ["red"]), "is no key of Colour"),
        (lambda lab: lab.late(at_least="1d"), "is no duration"),
        (lambda lab: lab.late(at_least=None), "is no duration"),
        (lambda lab: lab.intervals(Piece, fields=5), "are no names of fields"),
        (lambda lab: lab.intervals(Piece, fields="at"), "are no names of fields"),
        (lambda lab: lab.at("2026-03-28T12:00", tz=5), "5 is not a time zone"),
        (lambda lab: lab.at("2026-03-28T12:00Z", tz="Bad/Zone"), "is not a time zone"),
        (lambda lab: lab.debug(Piece, "a").step("x"), "count='x' is no number"),
        (lambda lab: lab.debug(Piece, "a").stop_at(position=-1), "position=-1 is no number"),
        (lambda lab: lab.debug(Piece, "a").run(type="Movd"), "has no event 'Movd'"),
        (lambda lab: lab.debug(Piece, "a").run(when=lambda event: True), "takes other arguments"),
        (lambda lab: lab.debug(Piece, "a").against(Colour), "no field in common"),
    ],
)
def test_a_wrong_question_is_told_what_is_wrong(game: el.Lab, ask: Callable[[el.Lab], Any], said: str) -> None:
    with pytest.raises(Refused, match=said):
        ask(game)


def test_a_lab_of_all_tenants_does_not_mix_the_lives_of_two_keys(tmp_path: Path) -> None:
    for tenant in ("t1", "t2"):
        with el.open(tmp_path / "log", tenant=tenant, maintain=False) as lab:
            lab.append("spans_piece-a", [PieceMoved(1, "red")])
    with el.open(tmp_path / "log", tenant=el.ALL, maintain=False) as lab:
        for ask in (lambda: lab.debug(Piece, "a"), lambda: lab.audit(Colour, "red"), lambda: lab.history(Colour, "red", "moves")):
            with pytest.raises(Unsupported, match="asks for one tenant"):
                ask()


def test_the_fold_is_swapped_where_one_stands(game: el.Lab) -> None:
    @el.aggregate(name="spans_piece")
    class SpansBackwards:
        at: int = 0

        def evolve(self, event: PieceMoved | PieceTaken) -> Self:
            return replace(self, at=self.at - (event.by if isinstance(event, PieceMoved) else 0))

    stepping = game.debug(Piece, "a").step()
    other = stepping.under(SpansBackwards)
    assert (other.at, other.event, other.state.at) == (1, stepping.event, -stepping.state.at)
    assert other.step().at == 2
