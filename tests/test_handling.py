"""Commands under an id, in bulk, wrapped, previewed and rejected; in memory, on disk, and by processes that are killed."""

from __future__ import annotations

import random
import signal
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from processes import ended, started

import eventlab as el
from eventlab.commands import Handled, Handling
from eventlab.errors import InvalidName, InvalidValue, ModelError, NotHandled, Refused, Rejected, Unsupported
from eventlab.store import handled


@el.event
class CreditAdded:
    """Somebody paid in advance."""

    cents: int


@el.event
class CreditSpent:
    """Somebody spent what was paid in advance."""

    cents: int


@el.command
class AddCredit:
    cents: int


@el.command
class Spend:
    cents: int


@el.command
class Look:
    pass


@el.aggregate
class Prepaid:
    cents: int = 0

    def decide(self, command: AddCredit | Spend | Look) -> Iterator[CreditAdded | CreditSpent]:
        match command:
            case AddCredit(cents=cents):
                yield CreditAdded(cents)
            case Spend(cents=cents):
                if cents > self.cents:
                    raise el.Rejected(f"only {self.cents} are left")
                for _ in range(2):
                    yield CreditSpent(cents // 2)

    def evolve(self, event: CreditAdded | CreditSpent) -> Self:
        match event:
            case CreditAdded(cents=cents):
                return replace(self, cents=self.cents + cents)
            case CreditSpent(cents=cents):
                return replace(self, cents=self.cents - cents)


@pytest.fixture(params=["memory", "disk"])
def lab(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[el.Lab]:
    lab = el.scratch() if request.param == "memory" else el.open(tmp_path / "log", maintain=False)
    yield lab
    lab.close()


# -- an id of its own


def test_a_command_that_is_given_twice_has_one_effect_and_the_same_result(lab: el.Lab) -> None:
    lab.handle(Prepaid, "1", AddCredit(10))
    first = lab.handle(Prepaid, "1", Spend(4), command_id="c1")
    lab.handle(Prepaid, "1", AddCredit(100))
    lab.append("prepaid-2", [CreditAdded(1)])
    again = lab.handle(Prepaid, "1", Spend(4), command_id="c1")
    assert (first.repeated, again.repeated) == (False, True)
    assert replace(again, repeated=False) == first
    assert (again.events, again.positions, again.state, again.version) == ((CreditSpent(2),) * 2, (2, 3), Prepaid(6), 3)
    assert lab.load(Prepaid, "1") == Prepaid(106)


def test_one_that_led_to_nothing_is_known_too(lab: el.Lab) -> None:
    first = lab.handle(Prepaid, "1", Look(), command_id="look")
    lab.handle(Prepaid, "1", AddCredit(10))
    again = lab.handle(Prepaid, "1", Look(), command_id="look")
    assert replace(again, repeated=False) == first == Handled((), (), Prepaid(), 0, "look")
    second = lab.handle(Prepaid, "1", Look(), command_id="look-2")
    lab.handle(Prepaid, "1", AddCredit(10))
    assert lab.handle(Prepaid, "1", Look(), command_id="look-2").state == second.state == Prepaid(10)


def test_a_rejected_command_is_decided_again(lab: el.Lab) -> None:
    with pytest.raises(Rejected):
        lab.handle(Prepaid, "1", Spend(4), command_id="c1")
    lab.handle(Prepaid, "1", AddCredit(10))
    assert lab.handle(Prepaid, "1", Spend(4), command_id="c1").state == Prepaid(6)


def test_an_id_belongs_to_one_command_and_tenant(lab: el.Lab) -> None:
    lab.handle(Prepaid, "1", AddCredit(10), command_id="c1")
    for id, command in (("2", AddCredit(10)), ("1", AddCredit(11)), ("1", Look())):
        with pytest.raises(Refused, match="'c1' was given to AddCredit for 'prepaid-1'"):
            lab.handle(Prepaid, id, command, command_id="c1")
    with el.context(tenant="acme"):
        assert not lab.handle(Prepaid, "1", AddCredit(10), command_id="c1").repeated
    for wrong in ("", "a\nb"):
        with pytest.raises(el.EventlabError):
            lab.handle(Prepaid, "1", Look(), command_id=wrong)


def test_the_events_carry_the_command_as_their_cause_and_the_context_as_it_is(lab: el.Lab) -> None:
    of = uuid.uuid4()
    with lab.context(actor="ann", correlation_id=of):
        lab.handle(Prepaid, "1", AddCredit(10), command_id=of)
        lab.handle(Prepaid, "1", Spend(4), command_id="by name")
        lab.handle(Prepaid, "1", Spend(2))
    events = lab.read().list()
    assert {event.actor for event in events} == {"ann"}
    assert {event.correlation_id for event in events} == {of}
    assert events[0].causation_id == of
    assert events[1].causation_id == events[2].causation_id
    assert events[1].causation_id not in (None, of)
    assert events[3].causation_id is None


def test_a_consumer_passes_conversation_cause_and_actor_on(lab: el.Lab) -> None:
    def reward(event: Any) -> None:
        lab.handle(Prepaid, "reward", AddCredit(1), command_id=event.event_id)

    consumer = el.consumer(el.stream("prepaid-1"), name="rewards")(reward)
    with lab.context(actor="ann"):
        lab.append("prepaid-1", [CreditAdded(10)])
    lab.run_until_idle(consumer)
    lab.rewind(consumer)
    lab.run_until_idle(consumer)
    cause, effect = lab.read()
    assert (effect.stream, effect.actor) == ("prepaid-reward", "ann")
    assert effect.causation_id == cause.event_id
    assert effect.correlation_id == cause.correlation_id


def test_what_was_handled_is_known_after_a_restart_and_a_backup(tmp_path: Path) -> None:
    with el.open(tmp_path / "log") as lab:
        first = lab.handle(Prepaid, "1", AddCredit(10), command_id="c1")
        lab.seal()
        lab.backup(tmp_path / "copy")
    for path in (tmp_path / "log", tmp_path / "copy"):
        with el.open(path) as lab:
            assert replace(lab.handle(Prepaid, "1", AddCredit(10), command_id="c1"), repeated=False) == first
            assert lab.head == 1


def test_of_threads_with_one_command_id_one_has_an_effect(lab: el.Lab) -> None:
    results: list[Handled[Any]] = []
    start = threading.Barrier(6)

    def work(n: int) -> None:
        start.wait()
        results.extend(lab.handle(Prepaid, "1", AddCredit(i), command_id=f"c{i}", attempts=100) for i in range(5))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 30
    assert sum(not done.repeated for done in results) == 5
    assert lab.load(Prepaid, "1") == Prepaid(sum(range(5)))
    for i in range(5):
        assert len({done.positions for done in results if done.command_id == f"c{i}"}) == 1


def work_until_killed(path: str, seed: str) -> None:
    """Give commands at random, in a process of its own."""
    chance = random.Random(int(seed))
    with el.open(path, maintain=False) as lab:
        while True:
            n = chance.randrange(300)
            if n % 3:
                lab.handle(Prepaid, str(n % 7), AddCredit(1 << (n % 5)), command_id=f"c{n}", attempts=100)
            else:
                some = {chance.randrange(300) for _ in range(6)}
                many = [(Prepaid, str(m % 7), AddCredit(1 << (m % 5)), f"c{m}") for m in some]
                lab.handle_many(many, attempts=100)


def test_commands_have_one_effect_however_often_processes_are_killed_and_give_them_again(tmp_path: Path) -> None:
    path = tmp_path / "log"
    chance = random.Random(5)
    with el.open(path, maintain=False) as lab:
        for generation in range(6):
            before = lab.head
            workers = [started(work_until_killed, path, generation * 10 + n) for n in range(2)]
            # They are at work once the log has grown, or when nothing is left to be done.
            lab.store.wait(before, 5)
            time.sleep(chance.uniform(0.0, 0.2))
            for worker in workers:
                worker.kill()
            assert set(ended(workers)) == {-signal.SIGKILL}
    with el.open(path) as lab:
        seen = lab.head
        assert seen > 20
        causes = [event.causation_id for event in lab.read()]
        assert len(set(causes)) == len(causes)
        for n in range(300):
            lab.handle(Prepaid, str(n % 7), AddCredit(1 << (n % 5)), command_id=f"c{n}")
        assert lab.head == 300
        total = lab.table(Prepaid)["cents"].sum()
        assert total == sum(1 << (n % 5) for n in range(300))


# -- rejections


def test_a_rejection_is_noted_outside_the_log(lab: el.Lab) -> None:
    with lab.context(actor="ann"), pytest.raises(Rejected):
        lab.handle(Prepaid, "1", Spend(4), command_id="c1")
    with pytest.raises(Rejected):
        lab.handle(Prepaid, "2", Spend(6))
    assert lab.head == 0
    found = lab.rejections()
    assert found.select(pl.exclude("at")).rows() == [
        (None, "Spend", "prepaid-2", "only 0 are left", None, "cents=6"),
        ("c1", "Spend", "prepaid-1", "only 0 are left", "ann", "cents=4"),
    ]
    assert found["at"].dtype == pl.Datetime("us", "UTC")
    assert len(lab.rejections(limit=1)) == 1
    with el.context(tenant="acme"):
        assert lab.rejections().is_empty()


def test_the_last_rejections_are_kept(lab: el.Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handled, "REJECTIONS", 3)
    for n in range(1, 6):
        with pytest.raises(Rejected):
            lab.handle(Prepaid, str(n), Spend(n))
    assert lab.rejections()["said"].to_list() == ["cents=5", "cents=4", "cents=3"]


# -- preview


def test_a_preview_shows_what_a_command_would_do_and_does_nothing(lab: el.Lab) -> None:
    lab.handle(Prepaid, "1", AddCredit(10))
    seen = lab.preview(Prepaid, "1", Spend(4))
    assert (seen.events, seen.before, seen.state, seen.version) == ((CreditSpent(2),) * 2, Prepaid(10), Prepaid(6), 1)
    assert seen.changed == (("cents", 10, 6),)
    with pytest.raises(Rejected):
        lab.preview(Prepaid, "1", Spend(11))
    assert lab.head == 1
    assert lab.rejections().is_empty()


# -- middleware


def test_middleware_wraps_every_handling_the_first_outermost(lab: el.Lab) -> None:
    said: list[str] = []

    @lab.use
    def outer(handling: Handling, proceed: Callable[[Handling], Handled[Any]]) -> Handled[Any]:
        said.append(f"outer {type(handling.command).__name__} {handling.id}")
        done = proceed(handling)
        said.append(f"outer {len(done.events)}")
        return done

    @lab.use
    def inner(handling: Handling, proceed: Callable[[Handling], Handled[Any]]) -> Handled[Any]:
        if isinstance(handling.command, Look):
            raise PermissionError("looking is not allowed")
        said.append("inner")
        return proceed(replace(handling, id="other"))

    lab.handle(Prepaid, "1", AddCredit(3))
    assert said == ["outer AddCredit 1", "inner", "outer 1"]
    assert lab.load(Prepaid, "other") == Prepaid(3)
    with pytest.raises(PermissionError):
        lab.handle(Prepaid, "1", Look())
    lab.handle_many([(Prepaid, "1", AddCredit(3))])
    assert said[-3:] == ["outer AddCredit 1", "inner", "outer 1"]


CELL = """
@lab.use
def count(handling, proceed):
    said.append({n})
    return proceed(handling)
"""


def test_middleware_of_a_cell_that_is_run_again_takes_the_place_of_the_old(lab: el.Lab) -> None:
    said: list[int] = []
    names = {"lab": lab, "said": said, "__name__": "__main__"}
    for n in (1, 2):
        exec(CELL.format(n=n), names)
    lab.handle(Prepaid, "1", AddCredit(3))
    assert said == [2]


def test_middleware_that_a_function_makes_stands_beside_the_others(lab: el.Lab) -> None:
    asked: list[str] = []

    def only(role: str) -> Callable[..., Handled[Any]]:
        def checked(handling: Handling, proceed: Callable[[Handling], Handled[Any]]) -> Handled[Any]:
            asked.append(role)
            if handling.context.actor == "nobody":
                raise Rejected(f"only a {role}")
            return proceed(handling)

        return checked

    clerk = only("clerk")
    lab.use(clerk)
    lab.use(only("auditor"))
    lab.use(clerk)  # a second time is once
    lab.handle(Prepaid, "1", AddCredit(3))
    assert asked == ["clerk", "auditor"]
    with lab.context(actor="nobody"), pytest.raises(Rejected, match="only a clerk"):
        lab.handle(Prepaid, "1", AddCredit(3))
    assert lab.rejections()["reason"].to_list() == ["only a clerk"], "it is noted, and once"


def test_middleware_that_gives_nothing_back_is_named(lab: el.Lab) -> None:
    @lab.use
    def forgetful(handling: Handling, proceed: Callable[[Handling], Handled[Any]]) -> Any:
        proceed(handling)

    with pytest.raises(ModelError, match=r"forgetful gave None"):
        lab.handle(Prepaid, "1", AddCredit(3))
    with pytest.raises(InvalidValue, match="'x' is no middleware"):
        lab.use("x")  # type: ignore[arg-type]


def test_an_id_is_text_without_its_category(lab: el.Lab) -> None:
    with pytest.raises(InvalidName, match="begins with the category 'prepaid'") as caught:
        lab.handle(Prepaid, "prepaid-1", AddCredit(3))
    assert caught.value.hint == "the id alone: '1'"
    with pytest.raises(InvalidName, match=r"None .* is no id of Prepaid"):
        lab.handle(Prepaid, None, AddCredit(3))  # type: ignore[arg-type]
    with pytest.raises(InvalidValue, match="given the class AddCredit, and not a command"):
        lab.handle(Prepaid, "1", AddCredit)
    with pytest.raises(ModelError, match="is not a model") as caught_:
        lab.handle(Prepaid(), "1", AddCredit(3))  # type: ignore[arg-type]
    assert caught_.value.hint == "the class alone: Prepaid"


def test_a_command_says_the_same_when_a_field_with_a_default_was_added_since(lab: el.Lab) -> None:
    def give(later: bool) -> type[Any]:
        if later:

            @el.command
            class GiveAway:
                cents: int
                kindly: bool = False

            return GiveAway

        @el.command
        class GiveAway:  # type: ignore[no-redef]
            cents: int

        return GiveAway

    def purse(of: type[Any]) -> type[Any]:
        @el.aggregate(name="handling_purse")
        class Purse:
            cents: int = 0

            def decide(self, command: of) -> Iterator[CreditAdded]:  # type: ignore[valid-type]
                yield CreditAdded(command.cents)  # type: ignore[attr-defined]

            def evolve(self, event: CreditAdded) -> Purse:
                return Purse(self.cents + event.cents)

        return Purse

    of = give(later=False)
    first = lab.handle(purse(of), "1", of(5), command_id="g1")
    of = give(later=True)
    model = purse(of)
    assert lab.handle(model, "1", of(5), command_id="g1").positions == first.positions
    with pytest.raises(Refused, match="said something else"):
        lab.handle(model, "1", of(5, kindly=True), command_id="g1")


def test_a_state_that_somebody_changes_is_nobody_elses(lab: el.Lab) -> None:
    @el.aggregate(name="handling_bag")
    class Bag:
        held: dict[str, int] = el.field(default_factory=dict)

        def evolve(self, event: CreditAdded) -> Bag:
            held = self.held
            held["cents"] = held.get("cents", 0) + event.cents
            return Bag(held)

    lab.load(Bag, "nobody").held["ghost"] = 1
    lab.append("handling_bag-1", [CreditAdded(2)])
    lab.append("handling_bag-2", [CreditAdded(3)])
    assert lab.load(Bag, "1").held == {"cents": 2}
    assert lab.table(Bag, engine="rows")["held"].to_list() == [{"cents": 2}, {"cents": 3}]


# -- many


def test_many_commands_share_an_append_and_each_has_its_own_answer(lab: el.Lab) -> None:
    results = lab.handle_many(
        [
            (Prepaid, "1", AddCredit(10), "c1"),
            (Prepaid, "2", Spend(1)),
            (Prepaid, "1", Spend(4)),
            (Prepaid, "2", AddCredit(5)),
            (Prepaid, "1", Look(), "c2"),
        ]
    )
    assert [type(one).__name__ for one in results] == ["Handled", "Rejected", "Handled", "Handled", "Handled"]
    assert [getattr(one, "positions", None) for one in results] == [(1,), None, (2, 3), (4,), ()]
    assert [getattr(one, "version", None) for one in results] == [1, None, 3, 1, 3]
    assert [getattr(one, "state", None) for one in results] == [Prepaid(10), None, Prepaid(6), Prepaid(5), Prepaid(6)]
    events = lab.read().list()
    assert len({event.recorded_at for event in events}) == 1
    assert len({event.correlation_id for event in events}) == 3
    assert lab.rejections()["stream"].to_list() == ["prepaid-2"]
    again = lab.handle_many([(Prepaid, "1", AddCredit(10), "c1"), (Prepaid, "1", Look(), "c2"), (Prepaid, "3", AddCredit(1))])
    assert [getattr(one, "repeated", None) for one in again] == [True, True, False]
    assert lab.head == 5


def test_what_is_no_command_of_many_is_refused_before_anything_is_stored(lab: el.Lab) -> None:
    for wrong, error in (
        ([(Prepaid, "1")], InvalidValue),
        ([AddCredit(1)], InvalidValue),
        ([(Prepaid, "1", AddCredit(1)), ("prepaid", "1", AddCredit(1))], ModelError),
        ([(Prepaid, "1", AddCredit(1)), (Prepaid, "1", CreditAdded(1))], ModelError),
        ([(Prepaid, "1", AddCredit(1)), (Prepaid, "1", AddCredit("x"))], InvalidValue),
    ):
        with pytest.raises(error):
            lab.handle_many(wrong)  # type: ignore[arg-type]
    assert lab.head == 0
    assert lab.handle_many([]) == []


@given(
    st.lists(
        st.tuples(
            st.sampled_from("123"),
            st.one_of(st.integers(1, 9).map(AddCredit), st.integers(1, 9).map(Spend), st.just(Look())),
            st.none() | st.sampled_from(["a", "b", "c"]),
        ),
        max_size=14,
    ),
    st.integers(1, 5),
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_many_at_once_are_what_each_is_by_itself(commands: list[tuple[str, Any, str | None]], size: int) -> None:
    def answer(lab: el.Lab, id: str, command: Any, command_id: str | None) -> Any:
        try:
            return lab.handle(Prepaid, id, command, command_id=command_id)
        except el.Rejected as why:
            return why.message

    # An id belongs to one command: one that says something else is another.
    named = [(id, command, None if of is None else f"{of}-{id}-{command}") for id, command, of in commands]
    with el.scratch() as one, el.scratch() as other, tempfile.TemporaryDirectory() as folder, el.open(folder) as disk:
        expected = [answer(one, *given) for given in named]
        for many in (other, disk):
            found: list[Any] = []
            for begin in range(0, len(named), size):
                found += many.handle_many([(Prepaid, *given) for given in named[begin : begin + size]])
            assert [of.message if isinstance(of, Rejected) else of for of in found] == expected
            assert [(e.stream, e.version, e.data) for e in many.read()] == [(e.stream, e.version, e.data) for e in one.read()]
            assert len(many.rejections()) == len(one.rejections())


def test_a_lost_race_of_many_is_handled_one_by_one(lab: el.Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    stored = lab.store.append
    raced = []

    def race(*given: Any, **more: Any) -> Any:
        if not raced:
            raced.append(True)
            lab.append("prepaid-1", [CreditAdded(100)])
        return stored(*given, **more)

    monkeypatch.setattr(lab.store, "append", race)
    results = lab.handle_many([(Prepaid, "1", AddCredit(1), "c1"), (Prepaid, "2", AddCredit(2))])
    assert [one.state for one in results] == [Prepaid(101), Prepaid(2)]  # type: ignore[union-attr]


def test_commands_go_to_aggregates(lab: el.Lab) -> None:
    @el.projection
    class Spent:
        n: int = 0

        @staticmethod
        def key(event: CreditSpent) -> str:
            return "all"

        def evolve(self, event: CreditSpent) -> Self:
            return replace(self, n=self.n + 1)

    for verb in (lab.handle, lab.preview):
        with pytest.raises(Unsupported, match="projection"):
            verb(Spent, "1", Look())
    with pytest.raises(InvalidValue, match="not a number of times"):
        lab.handle(Prepaid, "1", Look(), attempts=0)

    @el.command
    class Paint:
        pass

    with pytest.raises(NotHandled):
        lab.handle(Prepaid, "1", Paint())
