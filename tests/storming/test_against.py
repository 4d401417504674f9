"""A log against a board: what is simulated from a board shows no difference, and every change of the board exactly that one."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from storming.boards import LENDING

import eventlab as el
from eventlab.errors import InvalidValue
from eventlab.storming import Board, Example, Fact, Note, simulate
from eventlab.storming.process import Accepted, Conformance, Move, Process, read_accepted

TYPES = ("str", "int", "float", "bool", "bytes", "Money", "Decimal", "date", "datetime", "time", "timedelta", "UUID", "list[str]",
         "dict[str, int]", "Literal['a', 'b']", "date | None", "list[dict[str, int]]")  # fmt: skip


def told(found: Conformance) -> list[tuple[str, str, str]]:
    return sorted(found.deviations.select("kind", "step", "then").rows())


@st.composite
def designs(draw: st.DrawFn) -> Board:
    """A board of one or two aggregates, each with a flow over all of its events."""
    board = Board("design")
    for name in ("Left", "Right")[: draw(st.integers(1, 2))]:
        board = board.add("aggregate", name)
        steps = [f"{name}{word}" for word in ("Opened", "Filled", "Moved", "Closed")[: draw(st.integers(1, 4))]]
        for step in steps:
            fields = [f"f{at}: {of}" for at, of in enumerate(draw(st.lists(st.sampled_from(TYPES), max_size=3)))]
            board = board.add("event", step, fields=fields).link(name, step)
        moves = [Move("", steps[0]), *(Move(a, b, 1.0, 60.0) for a, b in pairwise(steps)), Move(steps[-1], "")]
        extra = draw(st.lists(st.tuples(st.sampled_from(steps), st.sampled_from(steps)), max_size=2))
        known = {(move.step, move.then) for move in moves}
        moves += [Move(a, b, 0.4, 30.0) for a, b in dict.fromkeys(extra) if (a, b) not in known]
        board = board.with_flow(Process(name.lower(), tuple(moves)))
    return board


def log_of(board: Board, seed: int, streams: int = 60) -> el.Lab:
    lab = el.scratch()
    lab.ingest(simulate(board, streams, seed=seed), source="made up", recorded_at="occurred_at")
    return lab


@given(designs(), st.integers(0, 1_000), st.data())
@settings(max_examples=50, deadline=None)
def test_the_round_trip_has_no_difference_and_a_change_is_exactly_that_one(board: Board, seed: int, data: st.DataObject) -> None:
    with log_of(board, seed) as lab:
        found = lab.conform(board)
        # Sixty streams take every branch of these shares, but for very few seeds.
        never = [one for one in told(found) if one[0] == "never happened"]
        assert told(found) == never
        assert (found.fitness, found.drift, found.not_observable) == (1.0, 0.0, ())

        seen = lab.board("seen")
        assert told(lab.conform(seen)) == []
        events = {note.name: [str(of) for of in note.fields] for note in board.find("event")}
        assert {note.name: [str(of).replace('"', "'") for of in note.fields] for note in seen.find("event")} == events
        owners = {note.name: board.aggregate_of(note.id).name for note in board.find("event")}  # type: ignore[union-attr]
        assert {note.name: seen.aggregate_of(note.id).name for note in seen.find("event")} == owners  # type: ignore[union-attr]
        moves = {(flow.category, move.step, move.then) for flow in board.flows for move in flow.moves}
        assert {(flow.category, of.step, of.then) for flow in seen.flows for of in flow.moves} == moves - {
            (flow.category, a, b) for flow in board.flows for _, a, b in never if a in flow.steps or b in flow.steps
        }

        # One change at a time.
        event = data.draw(st.sampled_from(board.find("event")))
        assert told(lab.conform(board.remove(event.id))) == sorted([("unknown event", event.name, ""), *never])
        assert told(lab.conform(board.add("event", "NeverHeardOf"))) == sorted([("never seen", "NeverHeardOf", ""), *never])
        owner = board.aggregate_of(event.id)
        assert owner is not None
        astray = board.add("aggregate", "Elsewhere").unlink(owner.id, event.id).link("Elsewhere", event.id)
        assert told(lab.conform(astray)) == sorted([("wrong category", event.name, owner.name.lower()), *never])
        more = board.change(event.id, fields=[*event.fields, "extra: int"])
        drifted = lab.conform(more)
        assert [one for one in told(drifted) if one not in never] == [
            ("field drift", event.name, "extra: extra:i64 on the board, nothing in version 1")
        ]
        assert drifted.drift > 0
        flow = data.draw(st.sampled_from(board.flows))
        move = data.draw(st.sampled_from([of for of in flow.moves if ("never happened", of.step, of.then) not in never]))
        kept = tuple(of for of in flow.moves if of is not move)
        kind = "undesigned start" if not move.step else "undesigned end" if not move.then else "undesigned move"
        wrong = lab.conform(board.with_flow(replace(flow, moves=kept)))
        steps = {name for of in kept for name in (of.step, of.then)}
        if {move.step, move.then} <= steps | {""}:
            assert (kind, move.step, move.then) in told(wrong)
            assert wrong.fitness < 1.0


def test_a_simulation_is_the_same_for_a_seed_and_gives_every_type() -> None:
    def events(seed: int) -> list[tuple[str, object]]:
        with log_of(LENDING, seed, 20) as lab:
            return [(event.stream, repr(event.data)) for event in lab.read()]

    assert events(1) == events(1)
    assert events(1) != events(2)
    wide = Board("wide").add("aggregate", "Thing").add("event", "Done", fields=[f"f{at}: {of}" for at, of in enumerate(TYPES)])
    wide = wide.link("Thing", "Done").with_flow(Process("thing", (Move("", "Done"), Move("Done", ""))))
    with log_of(wide, 3, 50) as lab:
        assert lab.conform(wide).ok
        assert len(lab.read()) == 50
    with pytest.raises(InvalidValue, match="x has no flow to simulate"):
        simulate(Board("x"), 3)


# -- policies and causes, in a lab that is lived in --------------------------------------------------------------------------


@el.event
class PotBoiled:
    """The water boils."""


@el.event
class TeaServed:
    """Somebody has a cup."""


SERVING = Board("serving", (
    Note("command", "BoilPot", to=("Pot", "PotBoiled")), Note("aggregate", "Pot"),
    Note("event", "PotBoiled", to=("ServeWhenItBoils",)),
    Note("policy", "ServeWhenItBoils", to=("ServeTea",), within=60.0),
    Note("command", "ServeTea", to=("Guest", "TeaServed")), Note("aggregate", "Guest"), Note("event", "TeaServed"),
), (
    Example("a pot boils once", Fact("BoilPot"), [Fact("PotBoiled")], rejected="it boils"),
))  # fmt: skip


class Clock:
    def __init__(self) -> None:
        self.now = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)

    def __call__(self) -> dt.datetime:
        return self.now


def served(*minutes: float | None, unasked: bool = False, twice: bool = False) -> tuple[el.Lab, Clock]:
    """A pot boils each hour, and tea is served so many minutes later, or never."""
    clock = Clock()
    lab = el.scratch(clock=clock)
    for number, after in enumerate(minutes):
        lab.append(f"pot-{number}", [PotBoiled()] * (2 if twice else 1))
        (boiled, *_) = lab.read(el.stream(f"pot-{number}"))
        began = clock.now
        if after is not None:
            clock.now += dt.timedelta(minutes=after)
            with el.context(causation_id=boiled.event_id, correlation_id=boiled.event_id):
                lab.append(f"guest-{number}", [TeaServed()])
        clock.now = began + dt.timedelta(hours=1)
    if unasked:
        with el.context(causation_id="00000000-0000-4000-8000-000000000001"):
            lab.append("guest-x", [TeaServed()])
    return lab, clock


def kinds(found: Conformance) -> dict[str, int]:
    return dict(found.deviations.select("kind", "count").rows())


@pytest.mark.parametrize(
    ("make", "wanted"),
    [
        (lambda: served(0.5, 0.5), {}),
        (lambda: served(0.5, 5, 5), {"policy late": 2}),
        (lambda: served(0.5, None, 0.5), {"policy owed": 1}),
        (lambda: served(0.5, unasked=True), {"policy without trigger": 1}),
        (lambda: served(0.5, 0.5, twice=True), {"scenario contradicted": 2}),
    ],
)  # fmt: skip
def test_policies_are_held_to_their_promise(make: Callable[[], tuple[el.Lab, Clock]], wanted: dict[str, int]) -> None:
    lab, _ = make()
    with lab:
        found = lab.conform(SERVING)
        got = {kind: count for kind, count in kinds(found).items() if kind != "event without cause"}
        assert got == wanted
        assert any("what causes PotBoiled" in said for said in found.not_observable)


def test_a_trigger_whose_time_is_not_over_is_owed_nothing() -> None:
    lab, clock = served(0.5)
    with lab:
        lab.append("pot-9", [PotBoiled()])
        assert "policy owed" not in kinds(lab.conform(SERVING))
        clock.now += dt.timedelta(minutes=2)
        lab.append("cup-1", [el.new(PotBoiled())])
        assert kinds(lab.conform(SERVING))["policy owed"] == 1
        assert kinds(lab.conform(SERVING))["wrong category"] == 1


def test_what_the_metadata_does_not_tell_is_said_and_not_guessed() -> None:
    with el.scratch() as lab:
        lab.append("pot-1", [PotBoiled()])
        lab.append("guest-1", [TeaServed()])
        found = lab.conform(SERVING)
        assert found.ok
        assert found.not_observable == (
            "what causes PotBoiled: none of its 1 events says it", "what causes TeaServed: none of its 1 events says it",
            "policy ServeWhenItBoils: none of the 1 events it leads to says what caused it",
        )  # fmt: skip
        assert "3 things not observable" in str(found)
        with el.context(causation_id="00000000-0000-4000-8000-000000000001"):
            lab.append("pot-2", [PotBoiled()])
        assert kinds(lab.conform(SERVING)) == {"event without cause": 1}


def test_an_example_speaks_of_streams_that_begin_as_it_says() -> None:
    board = SERVING.with_example(Example("once", Fact("BoilPot"), [Fact("PotBoiled"), Fact("PotBoiled")], rejected="never"))
    with el.scratch() as lab:
        lab.append("pot-1", [PotBoiled()] * 3)
        lab.append("pot-2", [PotBoiled()])
        rows = {row["step"]: row for row in lab.conform(board).deviations.to_dicts() if row["kind"] == "scenario contradicted"}
        assert {name: (row["count"], row["example"], row["then"]) for name, row in rows.items()} == {
            "a pot boils once": (1, "pot-1", "rejected: it boils"), "once": (1, "pot-1", "rejected: never"),
        }  # fmt: skip


def test_policies_seen_in_a_log_stand_on_its_board() -> None:
    lab, _ = served(0.5, 0.5)
    with lab:
        board = lab.board("seen")
        (policy,) = board.find("policy")
        assert policy.name == "AfterPotBoiledTeaServed"
        assert [of.name for of in board.before(policy.id)] == ["PotBoiled"]
        assert [of.name for one in board.after(policy.id) for of in board.events_of(one.id)] == ["TeaServed"]
        assert lab.conform(board).ok


# -- what is accepted --------------------------------------------------------------------------------------------------------


def test_an_accepted_deviation_has_a_reason_and_a_last_day(tmp_path: Path) -> None:
    path = tmp_path / "accepted.toml"
    path.write_text(
        '[[accepted]]\nkind = "policy owed"\nstep = "ServeWhenItBoils"\nthen = "TeaServed"\nreason = "guests leave"\n'
        "until = 2026-06-30\n"
    )
    (one,) = read_accepted(path)
    assert one == Accepted("policy owed", "ServeWhenItBoils", "TeaServed", "guests leave", dt.date(2026, 6, 30))
    lab, _ = served(0.5, None, 0.5)
    with lab:
        found = lab.conform(SERVING)
        borne = found.accepting([one], dt.date(2026, 6, 30))
        assert (found.ok, borne.ok) == (False, True)
        assert isinstance(borne.accepted, pl.DataFrame)
        assert borne.accepted["reason"].to_list() == ["guests leave"]
        assert "0 deviations, 1 more accepted" in str(borne)
        assert not found.accepting([one], dt.date(2026, 7, 1)).ok, "its time is over"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[[accepted]]\nkind = "never seen"\nstep = "A"\n', "accepted without a reason"),
        ('[[accepted]]\nkind = "never seen"\n', "says no accepted deviations"),
        ("[[accepted]]\nkind = 3 3", "says no accepted deviations"),
        ('[[accepted]]\nkind = "a"\nstep = "A"\nreason = "r"\nuntil = "tomorrow"\n', "until = 'tomorrow'"),
    ],
)
def test_a_file_of_accepted_deviations_that_is_none(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "accepted.toml"
    path.write_text(text)
    with pytest.raises(InvalidValue, match=said):
        read_accepted(path)
