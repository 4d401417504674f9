"""The row fold: the user's own `evolve`, once an event, in the order of the log; and the errors that name the event."""

from __future__ import annotations

import gc
import pickle
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple, Self

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import eventlab as el
from eventlab.errors import EvolveFailed
from eventlab.model.models import model_of
from eventlab.replay.rows import Key, RowFold, batches_of, fold
from eventlab.store.base import ALL
from replay import oracle
from replay.oracle import MODELS, Log


@el.event
class DoorOpened:
    """Someone came in."""

    who: str


@el.event
class DoorClosed:
    """It fell shut."""

    softly: bool = True


@el.event
class DoorPainted:
    """No model here lists it."""

    colour: str


DoorEvent = DoorOpened | DoorClosed

#: What `evolve` and `key` of the models below were called with.
CALLS: list[Any] = []


@el.aggregate
class Door:
    log: tuple[str, ...] = ()

    def evolve(self, event: DoorEvent) -> Self:
        CALLS.append(event)
        return replace(self, log=(*self.log, event.who if isinstance(event, DoorOpened) else "closed"))


@el.projection
class Visitor:
    visits: int = 0

    @staticmethod
    def key(event: DoorOpened, meta: el.Meta) -> str | None:
        CALLS.append(("key", event.who, meta.position))
        return None if event.who == "nobody" else event.who

    def evolve(self, event: DoorOpened, meta: el.Meta) -> Self:
        CALLS.append(("evolve", event.who, meta.position, meta.stream, meta.version, meta.actor, meta.tags))
        return replace(self, visits=self.visits + 1)


@pytest.fixture
def lab() -> el.Lab:
    CALLS.clear()
    lab = el.scratch(seed=1)
    with el.context(actor="ada"):
        lab.append("door-1", [DoorOpened("bob"), DoorPainted("red"), DoorClosed()], tags=["front"])
        lab.append("door-2", [DoorOpened("nobody")])
        lab.append("door-1", [DoorOpened("eve"), DoorPainted("blue")])
    return lab


# -- the modeller's own code


def test_evolve_is_called_once_an_event_in_the_order_of_the_log_with_the_events_it_lists(lab: el.Lab) -> None:
    lab.table(Door, engine="rows")
    assert [DoorOpened("bob"), DoorClosed(), DoorOpened("nobody"), DoorOpened("eve")] == CALLS


def test_an_event_that_evolve_does_not_list_moves_the_version_of_its_aggregate_and_not_the_state(lab: el.Lab) -> None:
    loaded = lab.loaded(Door, "1")
    assert (loaded.state.log, loaded.version, loaded.position) == (("bob", "closed", "eve"), 5, 6)
    lab.append("door-3", [DoorPainted("green")])
    assert (lab.loaded(Door, "3").state, lab.loaded(Door, "3").version) == (Door(), 1)
    assert lab.table(Door)["_id"].to_list() == ["1", "2", "3"]


def test_key_and_evolve_get_the_recorded_metadata(lab: el.Lab) -> None:
    lab.table(Visitor, engine="rows")
    assert CALLS == [
        ("key", "bob", 1),
        ("key", "nobody", 4),
        ("key", "eve", 5),
        ("evolve", "bob", 1, "door-1", 1, "ada", ("front",)),
        ("evolve", "eve", 5, "door-1", 4, "ada", ()),
    ]


def test_a_key_of_none_passes_the_event_over(lab: el.Lab) -> None:
    assert lab.table(Visitor).rows() == [("bob", 1, 1, 1), ("eve", 1, 1, 5)]


def test_an_evolve_without_annotation_takes_every_event_that_has_a_class_here(lab: el.Lab) -> None:
    @el.projection
    class WholeLog:
        types: tuple[str, ...] = ()

        @staticmethod
        def key(event) -> str:  # type: ignore[no-untyped-def]
            return "all"

        def evolve(self, event) -> Self:  # type: ignore[no-untyped-def]
            return replace(self, types=(*self.types, type(event).__name__))

    lab.ingest(el.rows("DoorOiled", pl.DataFrame({"id": ["1"]}), stream="door-{id}"), source="oil")
    names = ["DoorOpened", "DoorPainted", "DoorClosed", "DoorOpened", "DoorOpened", "DoorPainted"]
    assert lab.table(WholeLog).rows() == [("all", names, 6, 6)]


def test_a_stream_without_events_has_the_initial_state(lab: el.Lab) -> None:
    loaded = lab.loaded(Door, "77")
    assert (loaded.state, loaded.version, loaded.position) == (Door(), 0, 0)
    assert lab.load(Door, "77") == Door()


def test_ids_are_everything_after_the_first_dash(lab: el.Lab) -> None:
    lab.append("door-1-b-c", [DoorOpened("ann")])
    assert lab.load(Door, "1-b-c").log == ("ann",)
    assert lab.load(Door, "1").log == ("bob", "closed", "eve")


# -- a fold in pieces


@settings(max_examples=30)
@given(log=oracle.logs(), sizes=st.lists(st.integers(1, 5), min_size=1))
def test_where_the_batches_begin_changes_nothing(log: Log, sizes: list[int]) -> None:
    with oracle.written("memory", None, log) as lab:
        for model in map(model_of, MODELS):
            cut = lab.store.cut()
            whole = fold(model, batches_of(model, cut, "default"), "default")
            pieces = RowFold(model, "default")
            for batch in batches_of(model, cut, "default"):
                for part in batch.split(sizes[0]):
                    for smaller in part.split(sizes[-1]):
                        pieces.feed(smaller)
            assert pieces.entries == whole.entries
            assert pieces.events == whole.events


@settings(max_examples=30)
@given(log=oracle.logs(), at=st.integers(0, 20), tenant=st.sampled_from(["default", ALL]))
def test_a_fold_goes_on_from_entries_that_are_looked_up(log: Log, at: int, tenant: Any) -> None:
    with oracle.written("memory", None, log) as lab:
        for model in map(model_of, MODELS):
            cut = lab.store.cut()
            before = fold(model, batches_of(model, cut, tenant, until=at), tenant).entries
            asked: list[Key] = []

            def find(keys: list[Key], before: dict[Key, Any] = before, asked: list[Key] = asked) -> dict[Key, Any]:
                asked.extend(keys)
                return {key: list(before[key]) for key in keys if key in before}

            after = fold(model, batches_of(model, cut, tenant, after=at), tenant, find)
            assert {**before, **after.entries} == fold(model, batches_of(model, cut, tenant), tenant).entries
            assert len(asked) == len(set(asked)), "a key is looked up once"
            assert set(asked) == set(after.entries)


def test_a_watcher_sees_each_event_with_the_state_after_it(lab: el.Lab) -> None:
    seen: list[tuple[Any, ...]] = []
    folding = RowFold(model_of(Door), "default", watch=lambda *told: seen.append(told))
    for batch in batches_of(model_of(Door), lab.store.cut(), "default"):
        folding.feed(batch)
    assert [(key, state.log[-1:], position) for key, _, state, position in seen] == [
        ("door-1", ("bob",), 1),
        ("door-1", ("bob",), 2),
        ("door-1", ("closed",), 3),
        ("door-2", ("nobody",), 4),
        ("door-1", ("eve",), 5),
        ("door-1", ("eve",), 6),
    ]
    assert [event for _, event, _, _ in seen if event is not None] == CALLS


# -- code that fails


class Pair(NamedTuple):
    one: str
    two: int


class Longer(NamedTuple):
    one: str
    two: int
    three: int


def raising(error: Exception) -> Any:
    raise error


def nothing_to_give() -> Iterator[Any]:
    yield from ()


#: What the `evolve` and `key` below do at the event they trip over.
TRIP: dict[str, Any] = {}


@el.aggregate
class Trapdoor:
    count: int = 0

    def evolve(self, event: DoorEvent) -> Self:
        return TRIP["evolve"](self) if isinstance(event, DoorClosed) else replace(self, count=self.count + 1)


@el.projection
class Keyhole:
    count: int = 0

    @staticmethod
    def key(event: DoorEvent) -> Pair | None:
        return TRIP["key"]() if isinstance(event, DoorClosed) else Pair("a", 1)

    def evolve(self, event: DoorEvent) -> Self:
        return replace(self, count=self.count + 1)


def failure(call: Any) -> EvolveFailed:
    with pytest.raises(EvolveFailed) as caught:
        call()
    error = caught.value
    assert (error.position, error.stream, error.type) == (4, "trapdoor-1", "DoorClosed")
    assert "DoorClosed at position 4 ('trapdoor-1', version 2)" in error.message
    return error


@pytest.fixture
def trap() -> el.Lab:
    lab = el.scratch()
    lab.append("trapdoor-1", [DoorOpened("bob")])
    lab.append("trapdoor-2", [DoorOpened("eve"), DoorPainted("red")])
    lab.append("trapdoor-1", [DoorClosed(), DoorOpened("bob")])
    return lab


@pytest.mark.parametrize(
    ("does", "says"),
    [
        (lambda self: 1 // 0, "ZeroDivisionError: integer division or modulo by zero"),
        (lambda self: raising(AssertionError()), "AssertionError"),
        (lambda self: next(nothing_to_give()), "StopIteration"),
        # An error of eventlab's own, raised by what `evolve` calls, is a failure of this event like any other.
        (lambda self: el.money("1.234"), "InvalidValue: '1.234' has more than two decimal places"),
        (lambda self: raising(el.Rejected("not here")), "Rejected: not here"),
        (lambda self: None, "TypeError: it gave None, not a Trapdoor"),
        (lambda self: Trapdoor, "TypeError: it gave <class"),
        (lambda self: Keyhole(3), "TypeError: it gave Keyhole(count=3), not a Trapdoor"),
        (lambda self: {"count": 3}, "TypeError: it gave {'count': 3}, not a Trapdoor"),
    ],
)
def test_an_evolve_that_fails_names_the_event_its_position_and_its_stream(trap: el.Lab, does: Any, says: str) -> None:
    TRIP["evolve"] = does
    for call in (lambda: trap.table(Trapdoor), lambda: trap.load(Trapdoor, "1")):
        error = failure(call)
        assert error.message.startswith("Trapdoor.evolve failed on ")
        assert says in error.message
        assert "\nHint" not in error.message
    assert trap.at(position=3).load(Trapdoor, "1") == Trapdoor(1)
    assert trap.load(Trapdoor, "2") == Trapdoor(1)
    # A read model that is kept stops this key there, and goes on with the others.
    assert trap.rebuild(Trapdoor).parked == 1
    (stopped,) = trap.parked(Trapdoor).iter_rows(named=True)
    assert (stopped["key"], stopped["position"]) == ("1", 4)
    assert says in stopped["error"]


def test_the_hint_says_how_to_see_the_state_before(trap: el.Lab) -> None:
    TRIP["evolve"] = lambda self: None
    assert failure(lambda: trap.table(Trapdoor)).hint.endswith("the state before it: lab.at(position=3).load(…)")
    TRIP["evolve"] = lambda self: el.money("1.234")
    assert failure(lambda: trap.table(Trapdoor)).hint == "round it first"


@pytest.mark.parametrize(
    ("gives", "says"),
    [
        (lambda: raising(KeyError("x")), "KeyError: 'x'"),
        (lambda: el.money("x"), "InvalidValue: 'x' is not an amount of money"),
        (lambda: "a", "TypeError: it gave 'a', not (one, two) or None"),
        (lambda: ["a", 1], "TypeError: it gave ['a', 1], not (one, two) or None"),
        (lambda: ("a",), "TypeError: it gave ('a',), not (one, two) or None"),
        (lambda: Longer("a", 1, 2), "TypeError: it gave Longer(one='a', two=1, three=2), not (one, two) or None"),
    ],
)
def test_a_key_that_fails_or_is_not_of_its_declared_form_names_the_event(trap: el.Lab, gives: Any, says: str) -> None:
    TRIP["key"] = gives
    error = failure(lambda: trap.table(Keyhole))
    assert error.message.startswith("Keyhole.key failed on ")
    assert says in error.message


@pytest.mark.parametrize("key", [3, b"a", ("a",), Pair("a", 1)])
def test_a_key_of_one_column_is_text(lab: el.Lab, key: Any) -> None:
    @el.projection
    class Whatever:
        count: int = 0

        @staticmethod
        def key(event: DoorOpened) -> str:
            return key

        def evolve(self, event: DoorOpened) -> Self:
            return self

    with pytest.raises(EvolveFailed, match="not a str or None") as caught:
        lab.table(Whatever)
    assert caught.value.position == 1


def test_a_fold_that_fails_leaves_the_collector_as_it_was(trap: el.Lab) -> None:
    TRIP["evolve"] = lambda self: None
    assert gc.isenabled()
    failure(lambda: trap.table(Trapdoor))
    assert gc.isenabled()
    gc.disable()
    try:
        failure(lambda: trap.table(Trapdoor))
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_an_interrupt_inside_evolve_stays_an_interrupt(trap: el.Lab) -> None:
    TRIP["evolve"] = lambda self: raising(KeyboardInterrupt())  # type: ignore[arg-type]
    with pytest.raises(KeyboardInterrupt):
        trap.table(Trapdoor)


def test_the_error_survives_a_process_boundary(trap: el.Lab) -> None:
    TRIP["evolve"] = lambda self: None
    error = failure(lambda: trap.table(Trapdoor))
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), again.facts) == (EvolveFailed, str(error), error.facts)
