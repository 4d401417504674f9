"""The debugger's engine: every step has the state that `at` gives, both ways; stops, faults, and another fold."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Self

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import eventlab as el
from eventlab.errors import InvalidValue


@el.event(name="debugger.KeyPressed")
class KeyPressed:
    """A key was pressed."""

    digit: int


@el.event(name="debugger.Reset")
class ScreenCleared:
    """The screen was cleared."""


@el.event(name="debugger.LidOpened")
class LidOpened:
    """The lid was opened."""


@el.aggregate(name="debugger_screen")
class Screen:
    shown: int = 0
    keys: int = 0

    def evolve(self, event: KeyPressed | ScreenCleared) -> Self:
        match event:
            case KeyPressed(digit=digit):
                if digit > 9:
                    raise ValueError(f"{digit} is no digit")
                return replace(self, shown=self.shown * 10 + digit, keys=self.keys + 1)
            case ScreenCleared():
                return replace(self, shown=0)
        return self


@el.projection(name="debugger_digit")
class Digit:
    presses: int = 0

    @staticmethod
    def key(event: KeyPressed) -> str:
        return str(event.digit)

    def evolve(self, event: KeyPressed, meta: el.Meta) -> Self:
        return replace(self, presses=self.presses + meta.version)


EVENT = st.one_of(st.builds(KeyPressed, st.integers(0, 10)), st.just(ScreenCleared()), st.just(LidOpened()))


@given(st.lists(EVENT, max_size=12), st.lists(st.integers(-3, 3), max_size=8))
@settings(max_examples=80, deadline=None)
def test_each_step_has_the_state_of_its_moment_in_whatever_order_they_are_visited(events: list[Any], moves: list[int]) -> None:
    with el.scratch() as lab:
        for event in events:
            lab.append("debugger_screen-1", [event])
        debugger = lab.debug(Screen, "1")
        failing = next((i for i, event in enumerate(events, 1) if isinstance(event, KeyPressed) and event.digit > 9), None)
        last = len(events) if failing is None else failing
        at = 0
        for move in moves:
            at = min(max(at + move, 0), last)
            debugger.step(move) if move > 0 else debugger.back(-move)
            assert debugger.at == at
            if at == failing:
                assert isinstance(debugger.error, ValueError)
                assert debugger.at_end
                assert debugger.state == lab.at(position=at - 1).load(Screen, "1")
            else:
                assert debugger.error is None
                assert debugger.state == lab.at(position=at).load(Screen, "1")
                assert debugger.before == lab.at(position=max(at - 1, 0)).load(Screen, "1")
                assert debugger.at_end == (at == last)
            assert debugger.position == at


@pytest.fixture
def screen() -> Iterator[el.Lab]:
    with el.scratch() as lab:
        pressed = [KeyPressed(0), KeyPressed(4), LidOpened(), KeyPressed(2), ScreenCleared(), KeyPressed(7)]
        lab.append("debugger_screen-1", pressed)
        yield lab


def test_it_runs_to_positions_types_changes_and_what_a_function_says(screen: el.Lab) -> None:
    debugger = screen.debug(Screen, "1")
    assert debugger.run(position=3).at == 3
    assert debugger.run(type=KeyPressed).at == 4
    assert debugger.run(type="debugger.Reset").at == 5
    assert debugger.to(0).run(changed="shown").at == 2
    assert debugger.changed == (("shown", 0, 4), ("keys", 1, 2))
    assert debugger.run(when=lambda event, state: state.shown == 42).at == 4
    assert debugger.run(when=lambda event, state: False).at == 6
    assert debugger.at_end
    assert debugger.run_back(changed="shown").at == 5
    assert debugger.run_back(type=LidOpened).at == 3
    assert debugger.run_back(type=ScreenCleared).at == 0
    assert debugger.event is None


def test_stops_stay_until_they_are_taken_away(screen: el.Lab) -> None:
    debugger = screen.debug(Screen, "1").stop_at(type=ScreenCleared).stop_at(position=2).stop_at(changed="keys")
    assert debugger.stops == ["every debugger.Reset", "position 2", "keys changes"]
    assert [debugger.run().at for _ in range(5)] == [1, 2, 4, 5, 6]
    assert debugger.clear().to(0).run().at == 6


def test_a_fold_that_raises_stops_at_its_event(screen: el.Lab) -> None:
    screen.append("debugger_screen-1", [KeyPressed(12), KeyPressed(1)])
    debugger = screen.debug(Screen, "1").run()
    assert (debugger.at, str(debugger.error)) == (7, "12 is no digit")
    assert debugger.state.shown == 7
    assert "ValueError: 12 is no digit" in repr(debugger)
    assert debugger.step().at == 7
    assert debugger.back().error is None


def test_another_fold_parts_at_a_step(screen: el.Lab) -> None:
    @el.aggregate(name="debugger_screen")
    class Other:
        shown: int = 0

        def evolve(self, event: KeyPressed | ScreenCleared) -> Self:
            match event:
                case KeyPressed(digit=digit):
                    return replace(self, shown=self.shown * 10 + digit)
            return self

    parting = screen.debug(Screen, "1").against(Other)
    assert parting is not None
    assert (parting.step, parting.event.type, parting.field, parting.mine, parting.other) == (5, "debugger.Reset", "shown", 0, 42)
    assert screen.debug(Screen, "1").against(Screen) is None
    screen.append("debugger_screen-2", [KeyPressed(12)])
    parting = screen.debug(Screen, "2").against(Other)
    assert parting is not None
    assert (parting.field, parting.mine) == ("_error", "ValueError: 12 is no digit")


def test_rows_of_projections_and_moments_are_debugged_too(screen: el.Lab) -> None:
    debugger = screen.debug(Digit, "4").run()
    assert (len(debugger), debugger.state) == (1, Digit(2))
    assert screen.table(Digit).select("_id", "presses").rows()[2] == ("4", debugger.state.presses)
    assert len(screen.at(position=2).debug(Screen, "1")) == 2
    assert len(screen.debug(Screen, "nobody")) == 0
    assert repr(screen.debug(Screen, "1")) == "Debugger(Screen 'debugger_screen-1', step 0 of 6: before the first event)"


def test_what_cannot_be_stepped_to_is_refused(screen: el.Lab) -> None:
    debugger = screen.debug(Screen, "1")
    for wrong in ({}, {"position": 1, "type": KeyPressed}, {"changed": "colour"}, {"when": "now"}):
        with pytest.raises(InvalidValue):
            debugger.stop_at(**wrong)  # type: ignore[arg-type]
    for wrong in ({"until": 1}, {"position": 1, "changed": "shown"}):
        with pytest.raises(InvalidValue):
            debugger.run(**wrong)
    with pytest.raises(InvalidValue):
        debugger.to("end")  # type: ignore[arg-type]
