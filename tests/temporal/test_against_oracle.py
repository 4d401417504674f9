"""What a log says of the past against a fold by hand: every verb, in every layout, on logs with ties, late events and imports."""

from __future__ import annotations

import datetime as dt
import itertools
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import eventlab as el
from eventlab.replay.lift import run, scan, threads
from eventlab.testing.plugin import Clock

ZERO = dt.datetime(2026, 3, 28, 12, tzinfo=dt.UTC)
LAYOUTS = ["memory", "hot", "sealed", "mixed", "compacted"]
FIELDS = ("at", "colour")


@el.event(name="oracle.CraneMoved")
class CraneMoved:
    """A crane was moved."""

    by: int
    colour: str | None = None


@el.event(name="oracle.CraneParked")
class CraneParked:
    """A crane was put back to where it began."""


@el.event(name="oracle.CraneGreased")
class CraneGreased:
    """A crane was greased, which no fold here looks at."""


@el.aggregate(name="oracle_crane")
class Crane:
    at: int = 0
    colour: str | None = None

    def evolve(self, event: CraneMoved | CraneParked) -> Self:
        match event:
            case CraneMoved(by=by, colour=colour):
                return replace(self, at=self.at + by, colour=colour or self.colour)
            case CraneParked():
                return replace(self, at=0)
        return self


@el.projection(name="oracle_crane_paint")
class CranePaint:
    at: int = 0
    colour: str | None = None

    @staticmethod
    def key(event: CraneMoved) -> str | None:
        return event.colour

    def evolve(self, event: CraneMoved) -> Self:
        return replace(self, at=self.at + event.by, colour=None if event.by else "still")


MOVED = st.builds(CraneMoved, st.integers(-1, 1), st.sampled_from([None, "red", "blue"]))
EVENT = st.one_of(MOVED, MOVED, st.builds(CraneParked), st.builds(CraneGreased))
#: What was imported: crane, event, days before noon.
IMPORTED = st.lists(st.tuples(st.sampled_from("ab"), MOVED, st.integers(1, 3)), max_size=5)
#: An append: minutes after the one before, crane, events, minutes from its record to its occurrence, actor.
APPENDED = st.tuples(st.sampled_from([0, 0, 1, 2]), st.sampled_from("ab"), st.lists(EVENT, min_size=1, max_size=3),
                     st.sampled_from([None, 0, -5000, -3, 4, 900]), st.sampled_from([None, "ann"]))  # fmt: skip
LOG = st.tuples(IMPORTED, st.lists(APPENDED, min_size=1, max_size=8))
#: Where to stand, as a part of the log; it may be inside a commit.
PLACE = st.integers(0, 4)


@contextmanager
def written(log: tuple[list[Any], list[Any]], layout: str, place: int) -> Iterator[tuple[Any, list[el.Recorded]]]:
    """A place in such a log, the lab itself or a moment, and the events that are known there in the order of positions."""
    imported, appended = log
    clock = Clock(ZERO)
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patched:
        # Queries in some of the examples, loops in the others.
        patched.setattr(run, "_SMALL", 0 if len(appended) % 2 else 10_000)
        lab = el.scratch(clock=clock, seed=0) if layout == "memory" else el.open(folder, clock=clock, maintain=False)
        with lab:
            if imported:
                rows = [(key, event.by, event.colour, ZERO - dt.timedelta(days=days)) for key, event, days in imported]
                frame = pl.DataFrame(rows, schema=["crane", "by", "colour", "time"], orient="row",
                                     schema_overrides={"colour": pl.String})  # fmt: skip
                picked = {"by": "by", "colour": "colour"}
                lab.ingest(el.rows(CraneMoved, frame, stream="oracle_crane-{crane}", occurred_at="time", fields=picked),
                           source="before", recorded_at="occurred_at")  # fmt: skip
            for i, (minutes, key, events, off, actor) in enumerate(appended):
                clock.advance(minutes=minutes)
                occurred = None if off is None else clock.now + dt.timedelta(minutes=off)
                with lab.context(actor=actor):
                    lab.append(f"oracle_crane-{key}", events, occurred_at=occurred)
                if layout == "mixed" and i == len(appended) // 2:
                    lab.seal()
            if layout in ("sealed", "compacted"):
                lab.seal()
            if layout == "compacted":
                lab.compact(all=True)
            events = lab.read().list()
            until = lab.head * place // 4
            at = lab if place == 4 else lab.at(position=until)
            yield at, [event for event in events if event.position <= until]


# -- by hand ---------------------------------------------------------------------------------------------------------------

#: An event of a key, its number among them, and the state after it.
Step = tuple[el.Recorded, int, Any]


def folded(model: type[Any], known: Sequence[el.Recorded]) -> dict[str, list[Step]]:
    """The steps of each key, keys in order."""
    found: dict[str, list[Step]] = {}
    for event in known:
        # Every event of its stream is an aggregate's, also one that it does not look at.
        seen = (CraneMoved, CraneParked) if model is Crane else (CraneMoved,)
        if model is Crane or isinstance(event.data, seen):
            key = event.stream.removeprefix("oracle_crane-") if model is Crane else model.key(event.data)
            if key is not None:
                mine = found.setdefault(key, [])
                state = mine[-1][2] if mine else model()
                after = state.evolve(event.data) if isinstance(event.data, seen) else state
                mine.append((event, event.version if model is Crane else len(mine) + 1, after))
    return dict(sorted(found.items()))


def changes(steps: Sequence[Step], field: str) -> list[tuple[Any, Any, el.Recorded, int]]:
    """The values of a field: value, until when, and the event it came with."""
    begun: list[Step] = []
    for step in steps:
        if not begun or getattr(step[2], field) != getattr(begun[-1][2], field):
            begun.append(step)
    ends = [event.recorded_at for event, _, _ in begun[1:]]
    return [(getattr(state, field), end, event, number)
            for (event, number, state), end in itertools.zip_longest(begun, ends, fillvalue=None)]  # fmt: skip


def spans_of(steps: Sequence[Step], fields: Sequence[str]) -> list[tuple[Any, ...]]:
    """What was so from when to when: values, from, to, position. Of several events at one time the last one counts."""
    begun: list[tuple[Any, ...]] = []
    for time, group in itertools.groupby(steps, lambda step: step[0].recorded_at):
        before = now = begun[-1][0] if begun else None
        place = 0
        for event, _, state in group:
            values = tuple(getattr(state, field) for field in fields)
            if values != now:
                now, place = values, event.position
        if now != before:
            begun.append((now, time, place))
    ends = [time for _, time, _ in begun[1:]]
    return [(*values, time, end, place)
            for (values, time, place), end in itertools.zip_longest(begun, ends, fillvalue=None)]  # fmt: skip


def known_at(model: type[Any], known: Sequence[el.Recorded], time: dt.datetime) -> list[tuple[Any, ...]]:
    """The rows that a model had at a time."""
    steps = folded(model, [event for event in known if event.recorded_at <= time])
    return [(key, mine[-1][2].at, mine[-1][2].colour) for key, mine in steps.items()]


def times_of(known: Sequence[el.Recorded]) -> list[dt.datetime]:
    """Times before, at and between the records."""
    times = sorted({event.recorded_at for event in known} | {ZERO - dt.timedelta(days=9), ZERO})
    return [*times, *(time + dt.timedelta(seconds=1) for time in times)]


# -- each verb -------------------------------------------------------------------------------------------------------------


def few(examples: int) -> Callable[[Any], Any]:
    """So many examples in each layout."""
    return settings(max_examples=examples, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@pytest.mark.parametrize("layout", LAYOUTS)
@given(LOG, PLACE)
@few(6)
def test_history_and_blame_are_the_changes_of_a_field(layout: str, log: Any, place: int) -> None:
    with written(log, layout, place) as (at, known):
        for model, keys in ((Crane, "abz"), (CranePaint, ("red", "blue", "green"))):
            steps = folded(model, known)
            for key, field in itertools.product(keys, FIELDS):
                meant = changes(steps.get(key, []), field)
                found = at.history(model, key, field)
                shown = found.select("value", "from", "to", "event", "version", "position", "event_id", "actor", "correlation")
                assert shown.rows() == [
                    (value, e.recorded_at, to, e.type, number, e.position, str(e.event_id), e.actor, text(e.correlation_id))
                    for value, to, e, number in meant
                ]
                before = [getattr(model(), field), *(value for value, _, _, _ in meant)]
                blamed = at.blame(model, key, field)
                assert blamed.select("before", "value", "when", "position", "event_id", "actor").rows() == [
                    (str(old), value, e.recorded_at, e.position, str(e.event_id), e.actor)
                    for old, (value, _, e, _) in zip(before, meant, strict=False) if old != value
                ][::-1]  # fmt: skip


def text(id: Any) -> str | None:
    return None if id is None else str(id)


@pytest.mark.parametrize("layout", LAYOUTS)
@given(LOG, PLACE)
@few(6)
def test_audit_and_debug_go_through_the_events_one_by_one(layout: str, log: Any, place: int) -> None:
    with written(log, layout, place) as (at, known):
        for model, keys in ((Crane, "abz"), (CranePaint, ("red", "green"))):
            steps = folded(model, known)
            for key in keys:
                mine = steps.get(key, [])
                states = [model(), *(state for _, _, state in mine)]
                said = [", ".join(f"{name}: {getattr(old, name)} → {getattr(new, name)}" for name in FIELDS
                                  if getattr(old, name) != getattr(new, name))
                        for old, new in itertools.pairwise(states)]  # fmt: skip
                audited = at.audit(model, key).select("when", "actor", "event", "changed", "version", "position").rows()
                assert audited == [(e.recorded_at, e.actor, e.type, change, number, e.position)
                                   for (e, number, _), change in zip(mine, said, strict=True)]  # fmt: skip
                stepping = at.debug(model, key)
                stops = [(stepping.position, stepping.state)]
                while not stepping.at_end:
                    stepping.step()
                    stops.append((stepping.position, stepping.state))
                # It stops at every event of a stream, also at those that the fold does not look at.
                after = {e.position: state for e, _, state in mine}
                every = [e for e in known if e.stream == f"oracle_crane-{key}"] if model is Crane else [e for e, _, _ in mine]
                places = [0, *(e.position for e in every)]
                meant = list(itertools.accumulate(places[1:], lambda state, p, after=after: after.get(p, state), initial=model()))
                assert stops == list(zip(places, meant, strict=True))
                back = [stepping.to(step).state for step in reversed(range(len(places)))]
                assert back == meant[::-1]


@pytest.mark.parametrize("layout", LAYOUTS)
@given(LOG, PLACE, st.integers(0, 5))
@few(6)
def test_late_is_what_was_recorded_late_or_out_of_order(layout: str, log: Any, place: int, minutes: int) -> None:
    with written(log, layout, place) as (at, known):
        least = dt.timedelta(minutes=minutes)
        meant = []
        for event in known:
            delay = event.recorded_at - event.occurred_at
            older = [e.occurred_at for e in known if e.stream == event.stream and e.version < event.version]
            behind = max(older) - event.occurred_at if older and max(older) > event.occurred_at else None
            if delay >= least or behind is not None:
                meant.append((event.position, event.stream, event.version, event.type, delay, behind))
        found = at.late(at_least=least)
        assert found.select("position", "stream", "version", "type", "delay", "behind").rows() == meant


@pytest.mark.parametrize("layout", LAYOUTS)
@given(LOG, PLACE, st.integers(-3, 4), st.integers(1, 6), st.booleans())
@few(6)
def test_between_is_what_held_in_a_span(layout: str, log: Any, place: int, begin: int, length: int, early: bool) -> None:
    with written(log, layout, place) as (at, known):
        start = ZERO + dt.timedelta(minutes=begin) - dt.timedelta(days=2 if early else 0)
        end = start + dt.timedelta(minutes=length)
        for model, fields in itertools.product((Crane, CranePaint), (FIELDS, ("at",), ("colour",))):
            meant = [
                (key, *values, max(since, start), min(to or end, end), position)
                for key, mine in folded(model, known).items()
                for *values, since, to, position in spans_of(mine, fields)
                if since < end and (to is None or to > start)
            ]
            shown = ["_id", *fields, "_from", "_to", "_position"]
            assert at.between(model, start, end, fields=fields).select(shown).rows() == meant
            for key in ("a", "red"):
                found = at.between(model, start, end, key, fields=fields)
                assert found.select(shown).rows() == [row for row in meant if row[0] == key]


@pytest.mark.parametrize("layout", LAYOUTS)
@given(LOG, PLACE)
@few(6)
def test_sql_says_what_was_known_when(layout: str, log: Any, place: int) -> None:
    with written(log, layout, place) as (at, known):
        for model, name in ((Crane, "oracle_crane"), (CranePaint, "oracle_crane_paint")):
            for time in times_of(known):
                asked = f"select _id, \"at\", colour from state.{name}_at(TIMESTAMPTZ '{time.isoformat()}') order by _id"
                assert at.sql(asked).rows() == known_at(model, known, time)
            steps = folded(model, known)
            found = at.sql(f'select _id, "at", colour, _from, _to, _position from state.{name}_intervals() order by _id, _from')
            assert found.rows() == [(key, *row) for key, mine in steps.items() for row in spans_of(mine, FIELDS)]
            for field in FIELDS:
                asked = f"select _id, value, _from, _to, _version, _position, _type from state.{name}_history('{field}')"
                assert at.sql(asked + " order by _id, _position").rows() == [
                    (key, text(value), e.recorded_at, to, number, e.position, e.type)
                    for key, mine in steps.items() for value, to, e, number in changes(mine, field)
                ]  # fmt: skip


# -- twice -----------------------------------------------------------------------------------------------------------------

ASKED: dict[str, Callable[[el.Lab], Any]] = {
    "table": lambda lab: lab.table(Crane),
    "table of a projection": lambda lab: lab.table(CranePaint),
    "table inside": lambda lab: lab.at(position=1234).table(Crane),
    "table as of occurrence": lambda lab: lab.at(occurred=ZERO + dt.timedelta(minutes=20)).table(CranePaint),
    "versions": lambda lab: lab.versions(Crane),
    "versions of one": lambda lab: lab.versions(Crane, "s3"),
    "versions of a projection": lambda lab: lab.versions(CranePaint),
    "history": lambda lab: lab.history(Crane, "s3", "at"),
    "history of a projection": lambda lab: lab.history(CranePaint, "red", "at"),
    "intervals": lambda lab: lab.intervals(Crane),
    "intervals of a field": lambda lab: lab.intervals(Crane, fields=["colour"]),
    "intervals of one": lambda lab: lab.intervals(Crane, "s3"),
    "intervals of a projection": lambda lab: lab.intervals(CranePaint),
    "intervals as of occurrence": lambda lab: lab.at(occurred=ZERO + dt.timedelta(minutes=20)).intervals(Crane),
    "between": lambda lab: lab.between(Crane, ZERO, ZERO + dt.timedelta(minutes=9)),
    "series": lambda lab: lab.series(Crane, "5m"),
    "diff": lambda lab: lab.diff(Crane, 1000, 1500),
    "diff of a projection": lambda lab: lab.diff(CranePaint, 50, 1500),
    "blame": lambda lab: lab.blame(Crane, "s3", "at"),
    "audit": lambda lab: lab.audit(Crane, "s3"),
    "late": lambda lab: lab.late(at_least=dt.timedelta(0)),
    "at in SQL": lambda lab: lab.sql("select * from state.oracle_crane_at(TIMESTAMPTZ '2026-03-28 12:10:00+00')"),
    "intervals in SQL": lambda lab: lab.sql("select * from state.oracle_crane_intervals()"),
    "history in SQL": lambda lab: lab.sql("select * from state.oracle_crane_paint_history('at')"),
    "table in SQL": lambda lab: lab.sql("select * from state.oracle_crane"),
    "loaded": lambda lab: lab.loaded(Crane, "s3"),
    "loaded before": lambda lab: lab.at(position=1234).loaded(Crane, "s3"),
    "debug": lambda lab: lab.debug(Crane, "s3").run(),
}  # fmt: skip


def as_bytes(answer: Any) -> bytes:
    """What was answered, as bytes."""
    if isinstance(answer, pl.DataFrame):
        assert len(answer), "nothing is equal to nothing"
        return answer.write_ipc(None).getvalue()
    return repr(answer).encode()


@pytest.fixture(scope="module")
def long_log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A compacted log of some thousand events in a few streams."""
    folder, clock = tmp_path_factory.mktemp("oracle") / "log", Clock(ZERO)
    with el.open(folder, clock=clock, maintain=False) as lab:
        for i in range(600):
            clock.advance(seconds=i % 4)
            events = [CraneMoved((i + n) % 5 - 2, ["red", None, "blue"][(i + n) % 3]) for n in range(1 + i % 7)]
            more = [CraneParked()] if i % 11 == 0 else [CraneGreased()] if i % 13 == 0 else []
            lab.append(f"oracle_crane-s{i % 17}", [*events, *more], occurred_at=clock.now - dt.timedelta(minutes=i % 5 - 2))
        lab.seal()
        lab.compact(all=True)
    return folder


def test_asking_twice_gives_the_same_bytes_at_one_and_at_two_threads(long_log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "_SMALL", 0)
    monkeypatch.setattr(scan, "PART_ROWS", 256)
    answers: dict[str, list[bytes]] = {name: [] for name in ASKED}
    for count in (1, 2):
        # Opened anew, so that nothing is remembered from the other number of threads.
        with threads(count), el.open(long_log, maintain=False) as lab:
            assert lab.head > 2000
            for name, ask in ASKED.items():
                answers[name] += [as_bytes(ask(lab)), as_bytes(ask(lab))]
    assert {name: len(set(found)) for name, found in answers.items()} == dict.fromkeys(ASKED, 1)
