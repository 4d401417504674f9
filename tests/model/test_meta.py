"""The envelope: filled in without the modeller's code, by the log and by the context of the one who appends."""

from __future__ import annotations

import asyncio
import datetime as dt
import itertools
import threading
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Self
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

import eventlab as el
from eventlab.errors import InvalidName, InvalidValue, Unsupported
from eventlab.model.ids import derived, seeded, uuid7, uuid7s
from eventlab.model.meta import Context, Recorded, current_context

NAIVE = dt.datetime(2026, 2, 8, 18)  # noqa: DTZ001 - what must be refused
START = dt.datetime(2026, 2, 8, 18, tzinfo=dt.UTC)


@el.event
class BellRung:
    """Someone rang the bell."""

    times: int


@el.event
class AlarmSet:
    """Someone wants to be woken."""

    at: dt.datetime


def ticking(*seconds: float) -> Callable[[], dt.datetime]:
    """A clock that shows these seconds after the start, one a look, and then stands still."""
    times = itertools.chain(seconds, itertools.repeat(seconds[-1]))
    return lambda: START + dt.timedelta(seconds=next(times))


# -- what the log fills in ---------------------------------------------------------------------------------------------


def test_an_event_has_its_whole_envelope_without_a_word_from_the_modeller():
    with el.scratch(clock=ticking(0)) as lab:
        done = lab.append("bell-north-1", [BellRung(1), BellRung(2)])
        first, second = lab.read()
    assert (first.position, first.stream, first.category, first.id, first.version) == (1, "bell-north-1", "bell", "north-1", 1)
    assert (second.position, second.version, second.type, second.schema_version) == (2, 2, "BellRung", 1)
    assert (first.event_id, second.event_id) == done.ids
    assert first.event_id.version == second.event_id.version == 7
    assert first.recorded_at == second.recorded_at == first.occurred_at == second.occurred_at == START
    assert first.recorded_at.tzinfo is dt.UTC
    assert first.correlation_id == second.correlation_id == first.event_id, "an append without a conversation is one"
    assert (first.causation_id, first.actor, first.tenant, first.tags) == (None, None, "default", ())


def test_the_time_of_recording_never_goes_back():
    with el.scratch(clock=ticking(10, 5, 5, 20, 0)) as lab:
        for i in range(5):
            lab.append("bell-1", [BellRung(i), BellRung(i)])
        seconds = [(r.recorded_at - START).total_seconds() for r in lab.read()]
    assert seconds == [10, 10, 10, 10, 10, 10, 20, 20, 20, 20]


def test_evolve_and_key_see_the_envelope_that_a_reader_sees():
    seen: list[tuple[Any, ...]] = []

    @el.projection
    class BellLedger:
        rung: int = 0

        @staticmethod
        def key(event: BellRung, meta: el.Meta) -> str:
            return meta.id

        def evolve(self, event: BellRung, meta: el.Meta) -> Self:
            seen.append(envelope(meta))
            return replace(self, rung=self.rung + event.times)

    with el.scratch() as lab:
        cause = uuid.uuid4()
        with lab.context(actor="ada", causation_id=cause):
            lab.append({"bell-1": [BellRung(1), el.new(BellRung(2), occurred_at=START)], "bell-2": [BellRung(3)]}, tags=["loud"])
        assert lab.table(BellLedger).select("_id", "rung").rows() == [("1", 3), ("2", 3)]
        assert seen == [envelope(recorded) for recorded in lab.read()]
        assert [recorded.causation_id for recorded in lab.read()] == [cause] * 3


def envelope(meta: el.Meta) -> tuple[Any, ...]:
    return (
        meta.position, meta.stream, meta.category, meta.id, meta.version, meta.type, meta.schema_version, meta.event_id,
        meta.recorded_at, meta.occurred_at, meta.correlation_id, meta.causation_id, meta.actor, meta.tenant, meta.tags,
    )  # fmt: skip


def test_a_recorded_event_is_a_value():
    with el.scratch() as lab:
        lab.append("bell-1", [BellRung(1), BellRung(1)])
        first, second = lab.read()
        again, _ = lab.read()
    assert first == again
    assert len({first, again, second}) == 2
    assert first != second
    assert first != "Recorded"
    assert repr(first) == "Recorded(1, 'bell-1' @1, BellRung(times=1))"
    assert isinstance(first, Recorded)
    assert isinstance(first, el.Meta)


# -- times -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "write",
    [
        lambda lab: lab.append("bell-1", [BellRung(1)], occurred_at=NAIVE),
        lambda lab: lab.append("bell-1", [BellRung(1)], occurred_at="2026-02-08T18:00"),
        lambda lab: lab.append("bell-1", [el.new(BellRung(1), occurred_at=NAIVE)]),
        lambda lab: lab.append("alarm-1", [AlarmSet(NAIVE)]),
        lambda lab: lab.at(NAIVE),
        lambda lab: lab.at("2026-02-08 18:00"),
    ],
)
def test_a_time_without_a_zone_is_refused(write: Callable[[el.Lab], Any]):
    with el.scratch() as lab:
        with pytest.raises(InvalidValue, match="has no time zone"):
            write(lab)
        assert lab.head == 0


def test_a_clock_without_a_zone_is_refused():
    with el.scratch(clock=lambda: NAIVE) as lab:
        with pytest.raises(InvalidValue, match=r"the clock .* has no time zone"):
            lab.append("bell-1", [BellRung(1)])
        assert lab.head == 0


@pytest.mark.parametrize("when", ["2026-02-08", "yesterday", 7, dt.date(2026, 2, 8), "2026-13-01T00:00Z"])
def test_what_is_no_time_is_refused(when: Any):
    with el.scratch() as lab:
        with pytest.raises(InvalidValue):
            lab.append("bell-1", [BellRung(1)], occurred_at=when)
        assert lab.head == 0


@given(st.datetimes(timezones=st.sampled_from([dt.UTC, ZoneInfo("America/New_York"), ZoneInfo("Asia/Kolkata")])))
def test_a_business_time_is_kept_to_the_microsecond_in_utc(when: dt.datetime):
    try:
        instant = when.astimezone(dt.UTC)
    except OverflowError:
        return
    with el.scratch() as lab:
        lab.append("bell-1", [BellRung(1)], occurred_at=when)
        lab.append("bell-1", [el.new(BellRung(1), occurred_at=when)], occurred_at=START)
        lab.append("bell-1", [AlarmSet(when)], occurred_at=instant.isoformat())
        for recorded in lab.read():
            assert recorded.occurred_at == instant
            assert recorded.occurred_at.tzinfo is dt.UTC


# -- context -----------------------------------------------------------------------------------------------------------

IDS = st.none() | st.uuids()
NAMES = st.none() | st.sampled_from(["ada", "bob", "größe"])
CONTEXTS = st.fixed_dictionaries({"actor": NAMES, "correlation_id": IDS, "causation_id": IDS})


@given(st.lists(CONTEXTS, max_size=4), st.booleans())
def test_contexts_nest_and_what_is_not_given_stays_as_it_was_outside(given: list[dict[str, Any]], text: bool):
    expected: dict[str, Any] = {"actor": None, "correlation_id": None, "causation_id": None}
    stack: list[Any] = []
    with el.scratch() as lab:
        levels = [dict(expected)]
        for one in given:
            as_given = {name: str(value) if text and isinstance(value, uuid.UUID) else value for name, value in one.items()}
            stack.append(lab.context(**as_given))
            stack[-1].__enter__()
            expected |= {name: value for name, value in one.items() if value is not None}
            levels.append(dict(expected))
        while True:
            lab.append("bell-1", [BellRung(len(stack))])
            *_, recorded = lab.read()
            level = levels[len(stack)]
            assert (recorded.actor, recorded.causation_id) == (level["actor"], level["causation_id"])
            assert recorded.correlation_id == (level["correlation_id"] or recorded.event_id)
            if not stack:
                break
            stack.pop().__exit__(None, None, None)
    assert current_context() == Context()


def test_an_error_inside_leaves_the_context_as_it_was():
    with pytest.raises(RuntimeError), el.context(actor="ada"), el.context(actor="bob"):
        raise RuntimeError
    assert current_context() == Context()
    with el.context(actor="ada") as outer:
        for wrong in ({"actor": ""}, {"tenant": "a\nb"}, {"actor": 7}):
            with pytest.raises(InvalidName), el.context(**wrong):  # type: ignore[arg-type]
                pass
        for wrong in ({"correlation_id": "x"}, {"causation_id": 7}):
            with pytest.raises(InvalidValue, match="is not a UUID"), el.context(**wrong):  # type: ignore[arg-type]
                pass
        assert current_context() is outer


def test_each_thread_has_a_context_of_its_own(tmp_path: Path):
    begin, rounds = threading.Barrier(4), 5

    def work(lab: el.Lab, name: str) -> None:
        with lab.context(actor=name, correlation_id=uuid.uuid5(uuid.NAMESPACE_DNS, name)):
            for i in range(rounds):
                begin.wait()
                lab.append(f"bell-{name}", [BellRung(i)])

    with el.open(tmp_path / "log") as lab, lab.context(actor="main"):
        threads = [threading.Thread(target=work, args=(lab, name)) for name in ("ann", "bob", "cy", "di")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        lab.append("bell-main", [BellRung(0)])
        found = list(lab.read())
    assert len(found) == 4 * rounds + 1
    assert {(r.id, r.actor) for r in found} == {(name, name) for name in ("ann", "bob", "cy", "di", "main")}
    for recorded in found[:-1]:
        assert recorded.correlation_id == uuid.uuid5(uuid.NAMESPACE_DNS, recorded.id)


def test_each_task_has_a_context_of_its_own_that_begins_as_the_outer_one():
    async def work(lab: el.Lab, name: str) -> None:
        assert current_context().tenant == "acme"
        with lab.context(actor=name):
            for i in range(3):
                await asyncio.sleep(0)
                lab.append(f"bell-{name}", [BellRung(i)])

    async def main(lab: el.Lab) -> None:
        with lab.context(tenant="acme"):
            await asyncio.gather(*(work(lab, name) for name in ("ann", "bob")))

    with el.scratch() as lab:
        asyncio.run(main(lab))
        with lab.context(tenant="acme"):
            assert [(r.id, r.actor, r.tenant) for r in lab.read()] == [(n, n, "acme") for n in ("ann", "bob") * 3]
        assert len(lab.read()) == 0


def test_inside_a_tenants_context_its_streams_are_the_only_ones():
    @el.aggregate
    class Bell:
        rung: int = 0

        def evolve(self, event: BellRung) -> Self:
            return replace(self, rung=self.rung + event.times)

    with el.scratch() as lab:
        lab.append("bell-1", [BellRung(1)])
        with lab.context(tenant="acme"):
            assert lab.load(Bell, "1") == Bell()
            lab.append("bell-1", [BellRung(10)], expected=0)
            assert (lab.load(Bell, "1"), len(lab.read())) == (Bell(10), 1)
        assert (lab.load(Bell, "1"), lab.head) == (Bell(1), 2)
    with el.scratch(tenant=el.ALL) as everyone, pytest.raises(Unsupported, match="asks for one tenant"):
        everyone.append("bell-1", [BellRung(1)])


# -- ids ---------------------------------------------------------------------------------------------------------------

MILLISECONDS = st.integers(0, 2**48 - 1)


@given(MILLISECONDS, MILLISECONDS)
def test_an_id_is_a_uuid_of_version_7_and_ids_are_in_the_order_of_time(one: int, other: int):
    made = [uuid.UUID(bytes=uuid7(at)) for at in (one, other)]
    for id, at in zip(made, (one, other), strict=True):
        assert (id.version, id.variant) == (7, uuid.RFC_4122)
        assert id.int >> 80 == at
    if one != other:
        assert (made[0] < made[1]) == (one < other)
    else:
        assert made[0] != made[1]


def test_a_time_before_1970_makes_the_earliest_id():
    assert uuid.UUID(bytes=uuid7(-1)).int >> 80 == 0


def test_ids_of_later_appends_are_larger():
    with el.scratch(clock=ticking(*range(50))) as lab:
        for i in range(50):
            lab.append(f"bell-{i % 3}", [BellRung(i)])
        ids = [r.event_id for r in lab.read()]
    assert ids == sorted(ids)
    assert len(set(ids)) == 50


def test_with_a_clock_and_a_seed_ids_and_times_repeat():
    def log(seed: int) -> list[tuple[Any, ...]]:
        with el.scratch(clock=ticking(0, 1, 2), seed=seed) as lab:
            lab.append("bell-1", [BellRung(1), BellRung(2)])
            lab.append("bell-1", [BellRung(3)])
            return [envelope(r) for r in lab.read()]

    assert log(7) == log(7) != log(8)
    assert seeded(7)(10) == seeded(7)(10) != seeded(8)(10)


KEYS = st.tuples(st.text(max_size=4), st.just(3), st.text(max_size=4))


@given(KEYS, KEYS)
def test_ids_derived_from_a_key_are_the_same_every_time_and_only_then(one: tuple[str, int, str], other: tuple[str, int, str]):
    ids, others = derived(*one), derived(*other)
    assert (ids == others) == (one == other)
    assert one == other or not {*ids} & {*others}
    assert {uuid.UUID(bytes=event_id).version for event_id in ids} == {8}
    assert len({*ids}) == 3


@given(st.binary(min_size=10, max_size=10), st.integers(1, 300), st.integers(0, 2**47))
def test_new_ids_follow_on_one_another_and_are_of_version_7(chance: bytes, count: int, milliseconds: int):
    ids = [uuid.UUID(bytes=event_id) for event_id in uuid7s(milliseconds, count, lambda size: chance)]
    assert {(one.version, one.variant, one.int >> 80) for one in ids} == {(7, uuid.RFC_4122, milliseconds)}
    assert len({*ids}) == count
    numbers = [one.int % 2**62 for one in ids]
    assert [(number - numbers[0]) % 2**62 for number in numbers] == list(range(count))


def test_derived_ids_are_pinned_for_a_repeat_may_come_years_later():
    ids = derived("import-7", 4, "default")
    assert [event_id.hex() for event_id in ids] == [f"821510c2c53e8eb99feeeede40a3bef{last}" for last in "abcd"]
