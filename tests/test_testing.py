"""What eventlab gives to other people's tests: fixtures, a clock, and histories that their own rules make."""

from __future__ import annotations

import datetime as dt
import enum
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Self

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import eventlab as el
from eventlab.errors import InvalidValue
from eventlab.model.events import event_type
from eventlab.testing.plugin import Clock
from eventlab.testing.strategies import commands, events, histories


class Size(enum.Enum):
    SMALL = "small"
    LARGE = "large"


@dataclass(frozen=True)
class Spot:
    row: int
    name: str | None


@el.event(name="testing.TreePlanted")
class TreePlanted:
    """A tree was planted."""

    kind: Literal["oak", "elm"]
    size: Size
    spot: Spot
    price: el.Money
    planted: dt.date
    note: str | None = None
    tags: tuple[str, ...] = ()


@el.event(name="testing.TreeFelled")
class TreeFelled:
    """A tree was felled."""


@el.command
class PlantTree:
    spot: Spot
    price: el.Money


@el.command
class FellTree:
    pass


@el.aggregate(name="testing_plot")
class Plot:
    trees: int = 0

    def decide(self, command: PlantTree | FellTree) -> Iterator[TreePlanted | TreeFelled]:
        match command:
            case PlantTree(spot=spot, price=price):
                if self.trees == 2:
                    raise el.Rejected("two are enough")
                yield TreePlanted("oak", Size.SMALL, spot, price, dt.date(2026, 1, 1))
            case FellTree():
                if not self.trees:
                    raise el.Rejected("there is none")
                yield TreeFelled()

    def evolve(self, event: TreePlanted | TreeFelled) -> Self:
        return replace(self, trees=self.trees + (1 if isinstance(event, TreePlanted) else -1))


@given(events(TreePlanted))
@settings(max_examples=100)
def test_drawn_events_are_stored_and_come_back(event: Any) -> None:
    kind = event_type(TreePlanted)
    assert kind.normal(event) == kind.normal(kind.normal(event))
    assert kind.encode(kind.normal(event)) == kind.encode(event)


@given(events(TreePlanted, kind=st.just("elm"), price=st.integers(0, 9).map(el.money)))
def test_fields_can_be_narrowed(event: Any) -> None:
    assert event.kind == "elm"
    assert 0 <= event.price <= 9


@given(commands(PlantTree))
def test_drawn_commands_are_valid(command: Any) -> None:
    assert isinstance(command.spot, Spot)


@given(histories(Plot))
@settings(max_examples=50, deadline=None)
def test_histories_keep_the_rules_of_the_model(history: list[Any]) -> None:
    state = Plot()
    for event in history:
        state = state.evolve(event)
        assert 0 <= state.trees <= 2
    with el.scratch() as lab:
        if history:
            lab.append("testing_plot-1", history)
        assert lab.load(Plot, "1") == state
        assert lab.table(Plot, engine="rows").equals(lab.table(Plot))


@given(histories(Plot, st.just(FellTree()), max_size=3))
def test_commands_can_be_given(history: list[Any]) -> None:
    assert history == []


def test_what_a_strategy_cannot_draw_is_said() -> None:
    with pytest.raises(InvalidValue, match="TreePlanted has no field 'sort'"):
        events(TreePlanted, sort=st.just("elm"))
    with pytest.raises(InvalidValue, match="is no strategy"):
        commands(PlantTree, price=el.money(1))  # type: ignore[arg-type]

    @el.aggregate(name="testing_wild")
    class Wild:
        trees: int = 0

        def decide(self, command):  # type: ignore[no-untyped-def]
            return []

        def evolve(self, event: TreeFelled) -> Self:
            return self

    with pytest.raises(InvalidValue, match="Wild names no commands where it decides") as caught:
        histories(Wild)
    assert "histories(Wild, commands(" in caught.value.hint


def test_a_clock_stands_until_it_is_moved() -> None:
    clock = Clock()
    with el.scratch(clock=clock) as lab:
        first = lab.append("testing_plot-1", [TreeFelled()])
        clock.advance(hours=1)
        lab.append("testing_plot-1", [TreeFelled()])
        assert [e.recorded_at.hour for e in lab.read()] == [12, 13]
        assert lab.at("2026-01-01T12:30Z").head == first.position
    clock.set(dt.datetime(2030, 1, 1, tzinfo=dt.UTC))
    assert clock().year == 2030
    with pytest.raises(ValueError, match="has no zone"):
        clock.set(dt.datetime(2030, 1, 1))  # noqa: DTZ001


def test_the_fixtures_are_there_in_a_project_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "test_mine.py").write_text(
        textwrap.dedent("""
        import eventlab as el

        @el.event
        class BoxMoved:
            "A box was moved."

        def test_it(lab, clock):
            lab.append("box-1", [BoxMoved()])
            clock.advance(days=1)
            lab.append("box-1", [BoxMoved()])
            assert [event.recorded_at.day for event in lab.read()] == [1, 2]

        def test_it_is_empty_again(lab):
            assert lab.head == 0
        """)
    )
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", tmp_path, tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout
