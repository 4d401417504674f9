"""Moments: the log as it was known at a position, a time or a version; the same reads, and never another answer later."""

from __future__ import annotations

import datetime as dt
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from replay import oracle
from replay.oracle import LAYOUTS, MODELS, Log

import eventlab as el
from eventlab.errors import InvalidName, InvalidValue, ModelError, UnknownStream, Unsupported
from eventlab.model.models import model_of
from eventlab.temporal.moment import instant, shown


@el.event
class LanternLit:
    """It burns."""

    watts: int


@el.event
class LanternDimmed:
    """It burns less."""


@el.aggregate
class Lantern:
    watts: int = 0

    def evolve(self, event: LanternLit | LanternDimmed) -> Self:
        return replace(self, watts=event.watts if isinstance(event, LanternLit) else self.watts // 2)


@el.projection
class Brightest:
    watts: int = 0

    @staticmethod
    def key(event: LanternLit) -> str:
        return "house"

    def evolve(self, event: LanternLit) -> Self:
        return replace(self, watts=max(self.watts, event.watts))


class Clock:
    """A clock that is set by hand, in seconds after noon."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> dt.datetime:
        return NOON + dt.timedelta(seconds=self.seconds)


NOON = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["memory", "disk"])
def lab(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> Iterator[el.Lab]:
    """Six events in three commits, ten seconds apart: one of one, one of three, one of two streams."""
    with el.scratch(clock=clock) if request.param == "memory" else el.open(tmp_path / "log", clock=clock) as lab:
        lab.append("lantern-1", [LanternLit(60)])
        clock.seconds = 10
        lab.append("lantern-1", [LanternDimmed(), LanternLit(100), LanternDimmed()])
        clock.seconds = 20
        lab.append({"lantern-1": [LanternLit(40)], "lantern-2": [LanternLit(7)]})
        yield lab


def seconds(after_noon: float) -> dt.datetime:
    return NOON + dt.timedelta(seconds=after_noon)


# -- equal to the fold of the prefix


@pytest.mark.parametrize("layout", LAYOUTS)
def test_at_every_position_load_table_and_sql_are_the_fold_of_the_prefix(layout: str) -> None:
    @settings(max_examples=2)
    @given(log=oracle.logs(min_commits=2, max_commits=4))
    def check(log: Log) -> None:
        log = log.singly() if layout == "ingested" else log
        with tempfile.TemporaryDirectory() as folder, oracle.written(layout, Path(folder) / "log", log) as lab:
            for position in range(len(log.facts) + 1):
                moment = lab.at(position=position)
                facts = log.facts[:position]
                assert (moment.position, moment.head, len(moment.read())) == (position, position, position)
                assert moment.inside_commit is (position not in [0, *log.ends])
                for model in MODELS:
                    expected = oracle.table(model, facts, log.ends)
                    assert moment.table(model).rows() == expected
                    name = model_of(model).name
                    assert moment.sql(f"select * from state.{name}").rows() == expected
                for id, (state, version, last) in oracle.folded(oracle.Crate, facts, log.ends).items():
                    got = moment.loaded(oracle.Crate, id)
                    assert (got.state, got.version, got.position) == (state, version, last)
                in_sql = moment.sql("select count(*), max(_position) from events.log").rows()
                assert in_sql == [(position, position or None)]

    check()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_time_is_the_last_commit_at_or_before_it(layout: str) -> None:
    @settings(max_examples=10 if layout == "memory" else 3)
    @given(log=oracle.logs(), off=st.sampled_from([-1, 0, 1]))
    def check(log: Log, off: int) -> None:
        log = log.singly() if layout == "ingested" else log
        with tempfile.TemporaryDirectory() as folder, oracle.written(layout, Path(folder) / "log", log) as lab:
            for i in range(len(log.commits)):
                time = oracle.START + i * oracle.STEP + dt.timedelta(microseconds=off)
                known = [end for j, end in enumerate(log.ends) if j < i or (j == i and off >= 0)]
                moment = lab.at(time)
                assert moment.position == max(known, default=0)
                assert not moment.inside_commit
                assert moment.table(oracle.Crate).rows() == oracle.table(oracle.Crate, log.facts[: moment.position], log.ends)

    check()


# -- positions


def test_a_position_inside_a_commit_says_so(lab: el.Lab) -> None:
    inside = [lab.at(position=position).inside_commit for position in range(8)]
    assert inside == [False, False, True, True, False, True, False, False]
    moment = lab.at(position=2)
    assert repr(moment) == "Moment(position=2, inside a commit, asked='position 2')"
    assert moment.basis.inside_commit
    assert moment.loaded(Lantern, "1").basis.inside_commit
    assert repr(lab.at(position=4)) == "Moment(position=4, asked='position 4')"
    assert not lab.at(position=4).basis.inside_commit
    assert not lab.basis.inside_commit


def test_a_commit_of_another_tenant_can_be_split_too(lab: el.Lab) -> None:
    with lab.context(tenant="acme"):
        lab.append("lantern-1", [LanternLit(1), LanternLit(2)])
    assert lab.at(position=7).inside_commit
    assert not lab.at(position=8).inside_commit


def test_a_position_in_the_future_is_the_log_as_it_is_now(lab: el.Lab) -> None:
    moment = lab.at(position=1_000)
    assert (moment.position, moment.asked, moment.basis.head) == (6, "position 1000", 6)
    lab.append("lantern-1", [LanternLit(1)])
    assert moment.load(Lantern, "1") == Lantern(40)
    assert lab.at(position=1_000).load(Lantern, "1") == Lantern(1)


def test_position_0_is_before_the_first_event(lab: el.Lab) -> None:
    moment = lab.at(position=0)
    assert moment.load(Lantern, "1") == Lantern()
    assert moment.loaded(Lantern, "1").version == 0
    assert len(moment.table(Lantern)) == len(moment.read().frame()) == 0
    assert moment.sql("select * from types.lantern_lit").height == 0


@pytest.mark.parametrize("position", [-1, 1.0, "3", True, b"1"])
def test_what_is_no_position_is_refused(lab: el.Lab, position: Any) -> None:
    with pytest.raises(InvalidValue, match="is not a position"):
        lab.at(position=position)


# -- times


@pytest.mark.parametrize(
    ("after_noon", "position"),
    [(-1e9, 0), (-0.000001, 0), (0, 1), (9.999999, 1), (10, 4), (10.000001, 4), (19.999999, 4), (20, 6), (1e9, 6)],
)
def test_a_time_before_between_and_after_the_commits(lab: el.Lab, after_noon: float, position: int) -> None:
    assert lab.at(seconds(after_noon)).position == position


def test_a_time_in_the_future_stays_what_it_was_when_it_was_asked(lab: el.Lab, clock: Clock) -> None:
    moment = lab.at("2999-01-01T00:00Z")
    clock.seconds = 30
    lab.append("lantern-1", [LanternLit(5)])
    assert (moment.position, moment.load(Lantern, "1")) == (6, Lantern(40))
    assert lab.at("2999-01-01T00:00Z").position == 7


def test_the_recorded_clock_never_goes_back(lab: el.Lab, clock: Clock) -> None:
    clock.seconds = -3_600
    lab.append("lantern-1", [LanternLit(1)])
    clock.seconds = 15
    lab.append("lantern-1", [LanternLit(2)])
    times = [event.recorded_at for event in lab.read()]
    assert times == sorted(times)
    assert times[-2:] == [seconds(20), seconds(20)]
    assert lab.at(seconds(19.9)).position == 4
    assert lab.at(seconds(20)).position == 8
    clock.seconds = 21
    lab.append("lantern-1", [LanternLit(3)])
    assert lab.at(seconds(20)).position == 8


def test_when_something_happened_does_not_change_when_it_was_known(lab: el.Lab, clock: Clock) -> None:
    clock.seconds = 30
    lab.append("lantern-1", [LanternLit(1)], occurred_at=seconds(5))
    assert lab.at(seconds(6)).load(Lantern, "1") == Lantern(60)
    assert lab.at(seconds(30)).load(Lantern, "1") == Lantern(1)


@pytest.mark.parametrize(
    ("time", "tz"),
    [
        ("2026-03-01T12:00:10Z", None),
        ("2026-03-01T12:00:10+00:00", None),
        ("2026-03-01T13:00:10+01:00", None),
        ("2026-03-01T13:00:10", "Europe/Berlin"),
        ("2026-03-01 07:00:10", "America/New_York"),
        ("2026-03-01T12:00:10Z", "Europe/Berlin"),
        (dt.datetime(2026, 3, 1, 12, 0, 10, tzinfo=dt.UTC), None),
        (dt.datetime(2026, 3, 1, 13, 0, 10, tzinfo=dt.timezone(dt.timedelta(hours=1))), None),
        (dt.datetime(2026, 3, 1, 13, 0, 10), "Europe/Berlin"),  # noqa: DTZ001
    ],
)
def test_a_time_is_text_or_a_datetime_with_an_offset_or_a_zone(lab: el.Lab, time: Any, tz: str | None) -> None:
    moment = lab.at(time, tz=tz)
    assert (moment.position, moment.asked) == (4, "recorded 2026-03-01T12:00:10Z")


def test_a_day_alone_is_its_midnight(lab: el.Lab) -> None:
    assert lab.at("2026-03-01", tz="UTC").position == 0
    assert lab.at("2026-03-02", tz="UTC").position == 6


@pytest.mark.parametrize(
    ("time", "tz", "says"),
    [
        ("2026-03-01T12:00:10", None, "has no time zone"),
        (dt.datetime(2026, 3, 1), None, "has no time zone"),  # noqa: DTZ001
        ("yesterday", None, "is not a time"),
        ("", None, "is not a time"),
        (1_772_366_410, None, "is not a time"),
        (dt.date(2026, 3, 1), None, "is not a time"),
        ("2026-03-01T12:00", "Mars/Olympus", "is not a time zone"),
        ("2026-03-01T12:00", "America", "is not a time zone"),
        ("2026-03-01T12:00", "", "is not a time zone"),
        ("2026-03-01T12:00", "../../etc/passwd", "is not a time zone"),
        ("0001-01-01T00:00+14:00", None, "outside the years"),
    ],
)
def test_what_is_no_time_is_refused_in_words(lab: el.Lab, time: Any, tz: str | None, says: str) -> None:
    with pytest.raises(InvalidValue, match=says):
        lab.at(time, tz=tz)


@given(st.datetimes(min_value=dt.datetime(2, 1, 1), timezones=st.sampled_from([dt.UTC, dt.timezone(dt.timedelta(hours=-7.5))])))  # noqa: DTZ001
def test_a_moment_as_text_is_read_back(when: dt.datetime) -> None:
    assert instant(shown(when)) == when
    assert shown(when).endswith("Z")


# -- versions


def test_a_version_is_the_moment_right_after_that_event(lab: el.Lab) -> None:
    states = [lab.at(version=(Lantern, "1", version)).load(Lantern, "1").watts for version in range(6)]
    assert states == [0, 60, 30, 100, 50, 40]
    moment = lab.at(version=(Lantern, "1", 2))
    assert (moment.position, moment.inside_commit, moment.asked) == (2, True, "version 2 of 1")
    assert lab.at(version=(Lantern, "2", 1)).position == 6


def test_a_version_that_is_not_there_says_what_the_last_is(lab: el.Lab) -> None:
    with pytest.raises(UnknownStream, match="'lantern-1' has no version 6: its last is 5") as caught:
        lab.at(version=(Lantern, "1", 6))
    assert (caught.value.stream, caught.value.version, caught.value.last) == ("lantern-1", 6, 5)
    with pytest.raises(UnknownStream, match="'lantern-9' has no version 1: its last is 0"):
        lab.at(version=(Lantern, "9", 1))


@pytest.mark.parametrize(
    ("version", "kind", "says"),
    [
        ((Lantern, "1"), InvalidValue, "is not \\(Model, id, number\\)"),
        (7, InvalidValue, "is not \\(Model, id, number\\)"),
        ((Lantern, "1", -1), InvalidValue, "is not a version"),
        ((Lantern, "1", 1.5), InvalidValue, "is not a version"),
        ((Lantern, "1", True), InvalidValue, "is not a version"),
        ((Brightest, "house", 1), Unsupported, "only an aggregate has versions"),
        ((LanternLit, "1", 1), ModelError, "is not a model"),
        ((Lantern, "", 1), InvalidName, "not the name of a stream"),
    ],
)
def test_what_is_no_version_is_refused(lab: el.Lab, version: Any, kind: type[Exception], says: str) -> None:
    with pytest.raises(kind, match=says):
        lab.at(version=version)


@pytest.mark.parametrize(
    "given", [{}, {"position": 1, "time": "2026-03-01T12:00Z"}, {"position": 1, "version": (Lantern, "1", 1)}]
)
def test_one_of_time_position_and_version_is_asked_for(lab: el.Lab, given: dict[str, Any]) -> None:
    with pytest.raises(InvalidValue, match="takes one of a time, position=, version=, occurred= and basis="):
        lab.at(**given)


# -- a moment stays what it is


def test_appends_and_rebuilds_after_a_moment_was_taken_do_not_change_it(lab: el.Lab) -> None:
    moment = lab.at(position=4)
    untouched = lab.at(position=4)

    def answers(of: Any) -> list[Any]:
        return [
            of.load(Lantern, "1"),
            of.table(Lantern).rows(),
            of.table(Brightest).rows(),
            of.sql("select * from state.lantern").rows(),
            of.sql("select count(*) from events.log").rows(),
            of.sql("select watts from types.lantern_lit order by _position").rows(),
            [event.position for event in of.read()],
            of.read().frame().rows(),
            of.head,
        ]

    before = answers(moment)
    assert before[:2] == [Lantern(50), [("1", 50, 4, 4)]]
    lab.append("lantern-1", [LanternLit(1)])
    lab.append("lantern-3", [LanternLit(500)])
    lab.rebuild(Lantern)
    lab.rebuild(Brightest)
    lab.seal()
    assert answers(moment) == before
    assert answers(untouched) == before, "asked for the first time after the log went on"


def test_a_moment_is_of_its_readers_tenant(lab: el.Lab) -> None:
    with lab.context(tenant="acme"):
        lab.append("lantern-1", [LanternLit(999)])
    moment = lab.at(position=7)
    assert moment.load(Lantern, "1") == Lantern(40)
    with lab.context(tenant="acme"):
        assert moment.load(Lantern, "1") == Lantern(999)
        assert moment.table(Lantern).rows() == [("1", 999, 1, 7)]
        assert lab.at(version=(Lantern, "1", 1)).position == 7
    assert lab.at(version=(Lantern, "1", 1)).position == 1


def test_the_basis_says_what_the_answer_rests_on(lab: el.Lab) -> None:
    basis = lab.at(seconds(12)).loaded(Lantern, "1").basis
    assert (basis.store, basis.tenant, basis.position, basis.head) == (lab.store.store_id, "default", 4, 6)
    assert (basis.clock, basis.asked) == ("recorded", "recorded 2026-03-01T12:00:12Z")
    assert basis.fingerprint == model_of(Lantern).fingerprint
    assert [engine.split()[0] for engine in basis.engines] == ["duckdb", "polars", "pyarrow"]
    assert (lab.basis.asked, lab.basis.position, lab.basis.fingerprint) == ("head", 6, None)
