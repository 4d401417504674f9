"""Load, decide, append: what a command leads to, what it is refused with, and what a lost race does."""

from __future__ import annotations

import dataclasses
import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import pytest
from hypothesis import given
from hypothesis import strategies as st

import eventlab as el
from eventlab.errors import (
    Conflict,
    DuplicateEvent,
    EvolveFailed,
    InvalidName,
    InvalidValue,
    ModelError,
    NotHandled,
    Refused,
    Rejected,
    StaleType,
    Unsupported,
)
from eventlab.store.base import MAX_APPEND_EVENTS, MAX_PAYLOAD_BYTES


@el.event
class CoinsPaidIn:
    """Someone put coins into the jar."""

    cents: int
    by: el.Tag[str] = "nobody"


@el.event
class CoinsTakenOut:
    """Someone took coins out of the jar."""

    cents: int


@el.event
class JarSealed:
    """The jar was closed for good."""


@el.command
class PayIn:
    cents: int


@el.command
class TakeOut:
    cents: int


@el.command
class SealJar:
    pass


@el.command
class PaintJar:
    colour: str


JarEvent = CoinsPaidIn | CoinsTakenOut | JarSealed


@el.aggregate
class CoinJar:
    cents: int = 0
    sealed: bool = False
    moves: int = 0

    def decide(self, command: PayIn | TakeOut | SealJar) -> Iterator[JarEvent]:
        if self.sealed:
            raise el.Rejected("the jar is sealed")
        match command:
            case PayIn(cents=cents):
                yield CoinsPaidIn(cents)
            case TakeOut(cents=cents):
                yield CoinsTakenOut(cents)
                if cents > self.cents:
                    raise el.Rejected(f"there are only {self.cents} cents in the jar", missing=cents - self.cents)
                if cents == self.cents:
                    yield JarSealed()
            case SealJar():
                if self.cents:
                    yield CoinsTakenOut(self.cents)
                yield JarSealed()

    def evolve(self, event: JarEvent) -> Self:
        match event:
            case CoinsPaidIn(cents=cents):
                return replace(self, cents=self.cents + cents, moves=self.moves + 1)
            case CoinsTakenOut(cents=cents):
                return replace(self, cents=self.cents - cents, moves=self.moves + 1)
            case JarSealed():
                return replace(self, sealed=True)


def stored(lab: el.Lab) -> list[tuple[str, int, Any]]:
    """Every event with its stream and version."""
    return [(r.stream, r.version, r.data) for r in lab.read()]


# -- load, decide, append ----------------------------------------------------------------------------------------------


def test_a_command_becomes_events_and_a_state():
    with el.scratch() as lab:
        first = lab.handle(CoinJar, "1", PayIn(30))
        done = lab.handle(CoinJar, "1", SealJar())
        assert (first.events, first.positions, first.state, first.version) == ((CoinsPaidIn(30),), (1,), CoinJar(30, False, 1), 1)
        assert (done.events, done.positions, done.version) == ((CoinsTakenOut(30), JarSealed()), (2, 3), 3)
        assert done.state == lab.load(CoinJar, "1") == CoinJar(0, True, 2)
        assert [r.type for r in lab.read()] == ["CoinsPaidIn", "CoinsTakenOut", "JarSealed"]
        assert len({r.recorded_at for r in lab.read(after=1)}) == 1, "the events of one command are one commit"


COMMANDS = st.one_of(st.builds(PayIn, st.integers(0, 9)), st.builds(TakeOut, st.integers(0, 9)), st.just(SealJar()))


@given(st.lists(st.tuples(st.sampled_from(["1", "2"]), COMMANDS), max_size=12))
def test_any_commands_lead_to_the_log_and_the_states_of_a_plain_reading(given: list[tuple[str, Any]]):
    cents, sealed, log = {"1": 0, "2": 0}, {"1": False, "2": False}, []
    with el.scratch() as lab:
        for id, command in given:
            if sealed[id] or (isinstance(command, TakeOut) and command.cents > cents[id]):
                with pytest.raises(Rejected):
                    lab.handle(CoinJar, id, command)
                continue
            happened: list[Any] = []
            if isinstance(command, PayIn):
                cents[id] += command.cents
                happened = [CoinsPaidIn(command.cents)]
            else:
                out = command.cents if isinstance(command, TakeOut) else cents[id]
                happened = [CoinsTakenOut(out)] if out or isinstance(command, TakeOut) else []
                cents[id] -= out
                sealed[id] = isinstance(command, SealJar) or cents[id] == 0
                happened += [JarSealed()] if sealed[id] else []
            log += [(f"coin_jar-{id}", event) for event in happened]
            done = lab.handle(CoinJar, id, command)
            assert list(done.events) == happened
            assert done.state == lab.load(CoinJar, id)
            assert (done.state.cents, done.state.sealed) == (cents[id], sealed[id])
            assert done.version == sum(stream.endswith(id) for stream, _ in log)
        assert [(stream, event) for stream, _, event in stored(lab)] == log


def test_it_is_the_same_on_disk_sealed_or_not(tmp_path: Path):
    with el.open(tmp_path / "log") as lab:
        for i in range(6):
            lab.handle(CoinJar, "1", PayIn(i))
            if i == 3:
                lab.seal()
    with el.open(tmp_path / "log") as lab:
        done = lab.handle(CoinJar, "1", TakeOut(5))
        assert (done.state, done.version) == (CoinJar(10, False, 7), 7)


def test_a_decide_may_give_its_events_in_any_way():
    @el.aggregate
    class AnyJar:
        cents: int = 0

        def decide(self, command: PayIn) -> Any:
            event = CoinsPaidIn(command.cents)
            ways: list[Callable[[], Any]] = [
                lambda: [event], lambda: (event,), lambda: iter([event]), lambda: event, lambda: el.new(event, tags=["gift"]),
                list, lambda: None,
            ]  # fmt: skip
            return ways[command.cents]()

        def evolve(self, event: CoinsPaidIn) -> Self:
            return replace(self, cents=self.cents + 1)

    with el.scratch() as lab:
        versions = [lab.handle(AnyJar, "1", PayIn(way)).version for way in range(7)]
        assert versions == [1, 2, 3, 4, 5, 5, 5]
        assert lab.load(AnyJar, "1").cents == 5
        assert [r.version for r in lab.read(el.tag("gift"))] == [5]


def test_a_command_without_consequences_stores_nothing_and_gives_the_state():
    @el.aggregate
    class CalmJar:
        cents: int = 7

        def decide(self, command: PayIn) -> Iterator[CoinsPaidIn]:
            yield from ()

        def evolve(self, event: CoinsPaidIn) -> Self:
            return self

    with el.scratch() as lab:
        done = lab.handle(CalmJar, "1", PayIn(1))
        assert (done.events, done.positions, done.state, done.version, lab.head) == ((), (), CalmJar(), 0, 0)


def test_an_event_that_the_model_does_not_fold_is_stored_and_leaves_the_state():
    @el.aggregate
    class BlindJar:
        paid: int = 0

        def decide(self, command: PayIn) -> Iterator[CoinsPaidIn | JarSealed]:
            yield CoinsPaidIn(command.cents)
            yield JarSealed()

        def evolve(self, event: CoinsPaidIn) -> Self:
            return replace(self, paid=self.paid + event.cents)

    with el.scratch() as lab:
        done = lab.handle(BlindJar, "1", PayIn(3))
        assert (done.state, done.version) == (BlindJar(3), 2)
        assert lab.load(BlindJar, "1") == BlindJar(3)


def test_a_state_that_looks_at_the_metadata_is_given_as_it_was_recorded():
    @el.aggregate
    class DatedJar:
        position: int = 0
        actor: str | None = None

        def decide(self, command: PayIn) -> Iterator[CoinsPaidIn]:
            yield CoinsPaidIn(command.cents)

        def evolve(self, event: CoinsPaidIn, meta: el.Meta) -> Self:
            return replace(self, position=meta.position, actor=meta.actor)

    with el.scratch() as lab:
        lab.append("other-1", [JarSealed()])
        with lab.context(actor="ada"):
            done = lab.handle(DatedJar, "1", PayIn(3))
        assert done.state == DatedJar(2, "ada") == lab.load(DatedJar, "1")


def test_a_state_is_folded_from_events_as_the_log_gives_them_back():
    @el.event
    class GiftsListed:
        """Someone wrote down the gifts."""

        prices: list[el.Money]

    @el.command
    class ListGifts:
        prices: list[el.Money]

    @el.aggregate
    class GiftJar:
        last: str = ""

        def decide(self, command: ListGifts) -> Iterator[GiftsListed]:
            yield GiftsListed(command.prices)

        def evolve(self, event: GiftsListed) -> Self:
            return replace(self, last=repr(event.prices))

    with el.scratch() as lab:
        done = lab.handle(GiftJar, "1", ListGifts((1, el.money("2.5"))))  # type: ignore[arg-type]
        assert done.state.last == lab.load(GiftJar, "1").last == "[Decimal('1.00'), Decimal('2.50')]"


# -- refusals: nothing is stored ---------------------------------------------------------------------------------------


def test_a_rejected_command_stores_nothing_though_decide_had_begun():
    with el.scratch() as lab:
        lab.handle(CoinJar, "1", PayIn(3))
        with pytest.raises(Rejected, match="there are only 3 cents in the jar") as refused:
            lab.handle(CoinJar, "1", TakeOut(5))
        assert refused.value.missing == 2
        assert isinstance(refused.value, Refused)
        assert stored(lab) == [("coin_jar-1", 1, CoinsPaidIn(3))]
        lab.handle(CoinJar, "1", TakeOut(3))
        with pytest.raises(Rejected, match="sealed"):
            lab.handle(CoinJar, "1", PayIn(1))


def test_a_command_outside_the_union_of_decide_is_not_handled():
    @el.aggregate
    class FoldedJar:
        cents: int = 0

        def evolve(self, event: CoinsPaidIn) -> Self:
            return self

    with el.scratch() as lab:
        with pytest.raises(NotHandled, match="CoinJar does not handle PaintJar: its decide lists PayIn, TakeOut, SealJar"):
            lab.handle(CoinJar, "1", PaintJar("red"))
        with pytest.raises(NotHandled, match="FoldedJar has no decide"):
            lab.handle(FoldedJar, "1", PayIn(1))
        assert lab.head == 0


def test_a_decide_that_names_no_commands_is_given_any():
    @el.aggregate
    class OpenJar:
        cents: int = 0

        def decide(self, command: Any) -> Iterator[CoinsPaidIn]:
            yield CoinsPaidIn(getattr(command, "cents", 0))

        def evolve(self, event: CoinsPaidIn) -> Self:
            return replace(self, cents=self.cents + event.cents)

    with el.scratch() as lab:
        assert [lab.handle(OpenJar, "1", c).state.cents for c in (PayIn(2), PaintJar("red"), TakeOut(3))] == [2, 2, 5]


@pytest.mark.parametrize(
    ("command", "error", "says"),
    [
        (PayIn("3"), InvalidValue, r"PayIn\.cents is '3' \(str\), but is declared int"),  # type: ignore[arg-type]
        (PayIn(True), InvalidValue, r"PayIn\.cents is True"),
        (PayIn(2**63), InvalidValue, r"PayIn\.cents .* beyond 64 bits"),
        (CoinsPaidIn(3), ModelError, "CoinsPaidIn is not a command"),
        ("pay in", ModelError, "str is not a command"),
        (PayIn, InvalidValue, "given the class PayIn, and not a command"),
        (None, ModelError, "NoneType is not a command"),
    ],
)
def test_a_command_that_is_none_or_does_not_fit_never_reaches_decide(command: Any, error: type[Exception], says: str):
    asked: list[Any] = []

    @el.aggregate
    class AskedJar:
        cents: int = 0

        def decide(self, command: Any) -> None:
            asked.append(command)

        def evolve(self, event: CoinsPaidIn) -> Self:
            return self

    with el.scratch() as lab:
        with pytest.raises(error, match=says):
            lab.handle(AskedJar, "1", command)
        assert (asked, lab.head) == ([], 0)


def test_an_event_that_could_not_be_folded_or_stored_is_refused_with_all_of_its_command():
    @el.aggregate
    class FragileJar:
        cents: int = 0

        def decide(self, command: PayIn | TakeOut | SealJar | PaintJar) -> Iterator[Any]:
            yield CoinsPaidIn(1)
            match command:
                case PayIn():
                    yield CoinsPaidIn(13)
                case TakeOut():
                    yield CoinsPaidIn("much")  # type: ignore[arg-type]
                case SealJar():
                    yield command
                case PaintJar():
                    yield CoinsPaidIn(14)

        def evolve(self, event: CoinsPaidIn) -> Self:
            if event.cents == 13:
                raise ValueError("unlucky")
            return replace(self, cents=event.cents) if event.cents != 14 else None  # type: ignore[return-value]

    with el.scratch() as lab:
        for command, error, says in (
            (PayIn(1), EvolveFailed, r"FragileJar\.evolve failed on CoinsPaidIn\(cents=13.*ValueError: unlucky"),
            (TakeOut(1), InvalidValue, r"CoinsPaidIn\.cents is 'much'"),
            (SealJar(), ModelError, "which is no event"),
            (PaintJar("red"), EvolveFailed, r"FragileJar\.evolve gave None"),
        ):
            with pytest.raises(error, match=says):
                lab.handle(FragileJar, "1", command)
        assert lab.head == 0


def test_an_error_of_decide_itself_is_passed_on_and_nothing_is_stored():
    @el.aggregate
    class BrokenJar:
        cents: int = 0

        def decide(self, command: PayIn) -> Iterator[CoinsPaidIn]:
            yield CoinsPaidIn(1)
            raise ZeroDivisionError

        def evolve(self, event: CoinsPaidIn) -> Self:
            return self

    with el.scratch() as lab:
        with pytest.raises(ZeroDivisionError):
            lab.handle(BrokenJar, "1", PayIn(1))
        assert lab.head == 0


def test_commands_go_to_aggregates_that_are_called_by_a_proper_id():
    @el.projection
    class JarLedger:
        n: int = 0

        @staticmethod
        def key(event: CoinsPaidIn) -> str:
            return event.by

        def evolve(self, event: CoinsPaidIn) -> Self:
            return self

    with el.scratch() as lab:
        with pytest.raises(Unsupported, match="JarLedger is a projection; commands go to aggregates"):
            lab.handle(JarLedger, "1", PayIn(1))
        for id in ("", "a\nb", "x" * 600):
            with pytest.raises(InvalidName):
                lab.handle(CoinJar, id, PayIn(1))
        for attempts in (0, -1):
            with pytest.raises(InvalidValue, match=f"attempts={attempts}"):
                lab.handle(CoinJar, "1", PayIn(1), attempts=attempts)
        assert lab.head == 0


# -- classes that were defined again -----------------------------------------------------------------------------------


def commands() -> type[Any]:
    @el.command
    class DropCoin:
        cents: int

    return DropCoin


def jar_of(Drop: type[Any]) -> type[Any]:
    def dropped(command: object) -> bool:
        return isinstance(command, Drop)

    @el.aggregate
    class DropJar:
        cents: int = 0

        def decide(self, command: Drop) -> Iterator[CoinsPaidIn]:  # type: ignore[valid-type]
            if dropped(command):
                yield CoinsPaidIn(command.cents)  # type: ignore[attr-defined]

        def evolve(self, event: CoinsPaidIn) -> Self:
            return replace(self, cents=self.cents + event.cents)

    return DropJar


def test_a_command_of_a_class_that_was_defined_again_is_refused():
    old, new = commands(), commands()
    jar = jar_of(new)
    with el.scratch() as lab:
        with pytest.raises(StaleType, match="this DropCoin is an instance of a class that was defined again"):
            lab.handle(jar, "1", old(1))
        assert lab.handle(jar, "1", new(1)).state.cents == 1


def test_a_model_whose_decide_holds_on_to_an_old_command_is_refused_and_not_silent():
    drop = commands()
    jar = jar_of(drop)
    with el.scratch() as lab:
        assert lab.handle(jar, "1", drop(1)).state.cents == 1
        again = commands()
        # Its condition would not hold for the new class: the command would lead to nothing, without a word.
        with pytest.raises(StaleType, match="DropJar was defined with an old DropCoin"):
            lab.handle(jar, "1", again(1))
        assert lab.head == 1
        assert lab.handle(jar_of(again), "1", again(1)).state.cents == 2


# -- lost races --------------------------------------------------------------------------------------------------------


def racing(lab: el.Lab, rivals: list[Callable[[], Any]]) -> type[Any]:
    """A jar beside which, each time it decides, someone else is faster."""

    @el.aggregate(name="raced_jar")
    class RacedJar:
        cents: int = 0

        def decide(self, command: PayIn) -> Iterator[CoinsPaidIn]:
            seen.append(self.cents)
            if rivals:
                rivals.pop(0)()
            if self.cents + command.cents > 100:
                raise el.Rejected("the jar is full")
            yield CoinsPaidIn(command.cents)

        def evolve(self, event: CoinsPaidIn) -> Self:
            return replace(self, cents=self.cents + event.cents)

    seen: list[int] = []
    RacedJar.seen = seen  # type: ignore[attr-defined]
    return RacedJar


def test_a_lost_race_is_decided_again_on_the_state_of_now():
    with el.scratch() as lab:
        rival = lambda: lab.append("raced_jar-1", [CoinsPaidIn(10)])  # noqa: E731
        jar = racing(lab, [rival, rival])
        done = lab.handle(jar, "1", PayIn(1))
        assert jar.seen == [0, 10, 20]
        assert (done.state.cents, done.version, done.positions) == (21, 3, (3,))
        assert [event.cents for _, _, event in stored(lab)] == [10, 10, 1]


def test_a_race_that_is_lost_every_time_is_a_conflict_with_what_came_between():
    with el.scratch() as lab:
        rival = lambda: lab.append("raced_jar-1", [CoinsPaidIn(10), CoinsPaidIn(20)])  # noqa: E731
        jar = racing(lab, [rival] * 5)
        with pytest.raises(Conflict, match=r"cannot append to 'raced_jar-1': expected version 4, but it is at version 6") as lost:
            lab.handle(jar, "1", PayIn(1))
        assert jar.seen == [0, 30, 60], "three attempts unless it is said otherwise"
        assert (lost.value.stream, lost.value.expected, lost.value.actual) == ("raced_jar-1", 4, 6)
        assert [(e.version, e.data) for e in lost.value.events] == [(5, CoinsPaidIn(10)), (6, CoinsPaidIn(20))]
        with pytest.raises(Conflict):
            lab.handle(jar, "1", PayIn(1), attempts=1)
        assert all(event.cents != 1 for _, _, event in stored(lab))


def test_a_lost_race_may_end_in_a_rejection():
    with el.scratch() as lab:
        jar = racing(lab, [lambda: lab.append("raced_jar-1", [CoinsPaidIn(100)])])
        with pytest.raises(Rejected, match="the jar is full"):
            lab.handle(jar, "1", PayIn(1))
        assert lab.head == 1


def test_what_happens_in_other_streams_is_no_race():
    with el.scratch() as lab:
        jar = racing(lab, [lambda: lab.append("raced_jar-2", [CoinsPaidIn(10)])])
        assert lab.handle(jar, "1", PayIn(1), attempts=1).state.cents == 1


def test_of_many_threads_each_command_counts_once(tmp_path: Path):
    begin, writers, rounds = threading.Barrier(4), 4, 8

    def work(lab: el.Lab) -> None:
        begin.wait()
        for _ in range(rounds):
            lab.handle(CoinJar, "1", PayIn(1), attempts=1_000)

    for lab in (el.scratch(), el.open(tmp_path / "log")):
        with lab:
            threads = [threading.Thread(target=work, args=(lab,)) for _ in range(writers)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert lab.load(CoinJar, "1") == CoinJar(writers * rounds, False, writers * rounds)
            assert [version for _, version, _ in stored(lab)] == list(range(1, writers * rounds + 1))


# -- append: repeats ---------------------------------------------------------------------------------------------------


def test_an_append_with_a_key_is_done_once(tmp_path: Path):
    given = [CoinsPaidIn(1), CoinsPaidIn(2)]
    with el.open(tmp_path / "log") as lab:
        first = lab.append("coin_jar-1", given, key="monday")
        lab.append("coin_jar-1", [CoinsPaidIn(4)])
        again = lab.append("coin_jar-1", given, key="monday")
        assert (first.positions, again.positions, again.ids, again.versions) == ((1, 2), (1, 2), first.ids, (1, 2))
        assert (first.repeated, again.repeated) == (False, True)
    with el.open(tmp_path / "log") as lab:
        lab.seal()
        assert lab.append("coin_jar-1", given, key="monday", expected=0).positions == (1, 2), "the repeat of a success is one"
        assert lab.append("coin_jar-1", given, key="tuesday").positions == (4, 5)
        assert lab.load(CoinJar, "1").cents == 1 + 2 + 4 + 1 + 2


@pytest.mark.parametrize(
    "other",
    [
        {"coin_jar-1": [CoinsPaidIn(1), CoinsPaidIn(3)]},
        {"coin_jar-1": [CoinsPaidIn(1)], "coin_jar-2": [CoinsPaidIn(2)]},
        {"coin_jar-1": [CoinsPaidIn(1), CoinsPaidIn(2), CoinsPaidIn(3)]},
        {"coin_jar-1": [CoinsPaidIn(1), CoinsTakenOut(2)]},
    ],
)
def test_a_key_that_returns_with_other_events_is_refused(other: dict[str, list[Any]]):
    with el.scratch() as lab:
        lab.append("coin_jar-1", [CoinsPaidIn(1), CoinsPaidIn(2)], key="monday")
        with pytest.raises(DuplicateEvent):
            lab.append(other, key="monday")
        assert lab.head == 2


def test_a_key_belongs_to_its_tenant_and_without_one_a_repeat_is_a_new_append():
    with el.scratch() as lab:
        for tenant in ("acme", "beta", "acme"):
            with lab.context(tenant=tenant):
                lab.append("coin_jar-1", [CoinsPaidIn(1)], key="monday")
        assert lab.head == 2
        for _ in range(3):
            lab.append("coin_jar-1", [CoinsPaidIn(1)])
        assert lab.load(CoinJar, "1").cents == 3
        for key in ("", "a\nb", 7):
            with pytest.raises(InvalidName, match="cannot name a key"):
                lab.append("coin_jar-1", [CoinsPaidIn(1)], key=key)  # type: ignore[arg-type]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("12")), max_size=12))
def test_however_often_a_key_is_repeated_the_log_holds_it_once(repeats: list[tuple[str, str]]):
    with el.scratch() as lab:
        for key, id in repeats:
            lab.append({f"coin_jar-{id}": [CoinsPaidIn(ord(key))], "ledger-1": [CoinsPaidIn(1)]}, key=f"{key}{id}")
        wanted = [(f"coin_jar-{id}", CoinsPaidIn(ord(key))) for key, id in dict.fromkeys(repeats)]
        assert [(stream, event) for stream, _, event in stored(lab) if stream != "ledger-1"] == wanted
        assert lab.head == 2 * len(wanted)


# -- append: several streams -------------------------------------------------------------------------------------------


def test_an_append_to_several_streams_is_one_commit():
    with el.scratch() as lab:
        lab.append("coin_jar-1", [CoinsPaidIn(9)])
        moved = {"coin_jar-1": [CoinsTakenOut(5)], "coin_jar-2": [CoinsPaidIn(5), JarSealed()]}
        done = lab.append(moved, expected={"coin_jar-1": 1, "coin_jar-2": 0})
        assert (done.positions, done.versions, done.position) == ((2, 3, 4), (2, 1, 2), 4)
        assert len({(r.recorded_at, r.correlation_id) for r in lab.read(after=1)}) == 1
        assert (lab.load(CoinJar, "1").cents, lab.load(CoinJar, "2").cents) == (4, 5)


@pytest.mark.parametrize("expected", [{"coin_jar-1": 2}, {"coin_jar-1": 1, "coin_jar-2": 1}, {"coin_jar-3": 1}])
def test_of_several_streams_all_are_appended_to_or_none(expected: dict[str, int]):
    with el.scratch() as lab:
        lab.append("coin_jar-1", [CoinsPaidIn(9)])
        with pytest.raises(Conflict) as lost:
            lab.append({"coin_jar-1": [CoinsTakenOut(5)], "coin_jar-2": [CoinsPaidIn(5)]}, expected=expected)
        assert expected[lost.value.stream] == lost.value.expected
        assert stored(lab) == [("coin_jar-1", 1, CoinsPaidIn(9))]


@pytest.mark.parametrize("expected", [-1, True, 1.0, "1", {"coin_jar-1": -1}, {"coin_jar-1": None}, [1]])
def test_an_expected_version_is_a_whole_number_from_0(expected: Any):
    with el.scratch() as lab:
        with pytest.raises(InvalidValue):
            lab.append("coin_jar-1", [CoinsPaidIn(1)], expected=expected)
        with pytest.raises(InvalidValue):
            lab.append({"coin_jar-1": [CoinsPaidIn(1)]}, expected=expected)
        assert lab.head == 0


def test_an_append_of_nothing_changes_nothing():
    with el.scratch() as lab:
        for done in (lab.append("coin_jar-1", []), lab.append({}), lab.append({"coin_jar-1": []})):
            assert (done.positions, done.ids, done.position) == ((), (), 0)
        assert lab.head == 0


@pytest.mark.parametrize("events", [None, "text", CoinsPaidIn(1), 7])
def test_append_takes_a_list_of_events(events: Any):
    with el.scratch() as lab, pytest.raises(InvalidValue, match="takes a list of events"):
        lab.append("coin_jar-1", events)


def test_an_append_has_bounds_and_says_them():
    @el.event
    class FileAttached:
        """Someone added a file."""

        content: bytes

    with el.scratch() as lab:
        with pytest.raises(Refused, match="at most 100,000 events, and this has 100,001"):
            lab.append("coin_jar-1", [CoinsPaidIn(1)] * (MAX_APPEND_EVENTS + 1))
        with pytest.raises(InvalidValue, match=r"FileAttached for 'jar_file-1' has 8,388,6\d\d bytes of payload"):
            lab.append("jar_file-1", [FileAttached(bytes(MAX_PAYLOAD_BYTES))])
        assert lab.head == 0


def test_the_context_fills_in_what_a_command_leads_to():
    talk, cause = uuid.uuid4(), uuid.uuid4()
    with el.scratch() as lab:
        with lab.context(actor="ada", correlation_id=talk, causation_id=cause):
            lab.handle(CoinJar, "1", PayIn(3))
            lab.handle(CoinJar, "1", SealJar())
        lab.handle(CoinJar, "2", PayIn(3))
        assert {(r.actor, r.correlation_id, r.causation_id) for r in lab.read(until=3)} == {("ada", talk, cause)}
        *_, last = lab.read()
        assert (last.actor, last.correlation_id, last.causation_id) == (None, last.event_id, None)


def test_a_command_is_frozen_and_compares_by_value():
    assert PayIn(3) == PayIn(cents=3) != PayIn(4)
    assert len({PayIn(3), PayIn(3), SealJar(), SealJar()}) == 2
    with pytest.raises(dataclasses.FrozenInstanceError):
        PayIn(3).cents = 4  # type: ignore[misc]


def test_what_is_no_event_or_no_state_is_said_with_what_to_write():
    @el.aggregate(name="coin_jar_wrong")
    class Wrong:
        cents: int = 0

        def decide(self, command: PayIn | TakeOut) -> Iterator[Any]:
            yield command if isinstance(command, PayIn) else CoinsPaidIn

        def evolve(self, event: CoinsPaidIn) -> Any:
            replace(self, cents=event.cents)

    lab = el.scratch()
    with pytest.raises(ModelError, match=r"Wrong\.decide gave PayIn\(cents=1\), which is no event"):
        lab.handle(Wrong, "1", PayIn(1))
    with pytest.raises(ModelError) as caught:
        lab.handle(Wrong, "1", TakeOut(1))
    assert "yield CoinsPaidIn(…)" in caught.value.hint
    lab.append("coin_jar_wrong-1", [CoinsPaidIn(1)])
    with pytest.raises(EvolveFailed) as caught:
        lab.load(Wrong, "1")
    assert "return replace(self, n=…)" in caught.value.hint
