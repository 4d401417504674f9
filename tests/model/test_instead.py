"""What a model folds in the place of an event: renamed, split, left out; the same in every engine and at every moment."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, Self

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import eventlab as el
from eventlab.errors import EvolveFailed, ModelError, NotLiftable
from eventlab.model.models import model_of


@el.event
class TenantNamed:
    """Somebody has a name."""

    name: str


@el.event
class TenantMoved:
    """Somebody lives elsewhere."""

    city: str
    rooms: int


@el.event
class TenantNamedAndMoved:
    """Both at once, as it was told in the old days."""

    name: str
    city: str
    rooms: int


@el.event
class TenantCalled:
    """What naming was called before."""

    calling: str


@el.event
class TenantGreeted:
    """Nobody needs it any more."""


@el.event
class TenantPerhapsMoved:
    """Where it went depends."""

    city: str


class Stay(NamedTuple):
    """A row for each city."""

    city: str


@el.aggregate
class Dweller:
    """Somebody who lives somewhere; the old events are folded as those of today."""

    name: str = ""
    city: str = ""
    rooms: int = 0
    moves: int = 0

    def evolve(self, event: TenantNamed | TenantMoved) -> Self:
        match event:
            case TenantNamed(name=name):
                return replace(self, name=name)
            case TenantMoved(city=city, rooms=rooms):
                return replace(self, city=city, rooms=self.rooms + rooms, moves=self.moves + 1)


@el.instead(Dweller)
def in_two(event: TenantNamedAndMoved) -> tuple[TenantNamed, TenantMoved]:
    """It said two things."""
    return TenantNamed(event.name.upper()), TenantMoved(city=event.city, rooms=event.rooms * 2)


@el.instead(Dweller)
def called(event: TenantCalled) -> tuple[TenantNamed]:
    """It has another name today."""
    return (TenantNamed(event.calling),)


@el.instead(Dweller)
def left_out(event: TenantGreeted) -> tuple[()]:
    """It says nothing."""
    return ()


@el.aggregate(name="dweller")
class ByHand:
    """The same by hand: the oracle."""

    name: str = ""
    city: str = ""
    rooms: int = 0
    moves: int = 0

    def evolve(self, event: TenantNamed | TenantMoved | TenantNamedAndMoved | TenantCalled | TenantGreeted) -> Self:
        if isinstance(event, TenantNamed):
            return replace(self, name=event.name)
        if isinstance(event, TenantMoved):
            return replace(self, city=event.city, rooms=self.rooms + event.rooms, moves=self.moves + 1)
        if isinstance(event, TenantNamedAndMoved):
            rooms, moves = self.rooms + event.rooms * 2, self.moves + 1
            return replace(self, name=event.name.upper(), city=event.city, rooms=rooms, moves=moves)
        if isinstance(event, TenantCalled):
            return replace(self, name=event.calling)
        return self


@el.projection
class Stays:
    """How many came to each city."""

    came: int = 0
    rooms: int = 0

    @staticmethod
    def key(event: TenantMoved) -> Stay:
        return Stay(event.city)

    def evolve(self, event: TenantMoved) -> Self:
        return replace(self, came=self.came + 1, rooms=self.rooms + event.rooms)


@el.instead(Stays)
def only_moved(event: TenantNamedAndMoved) -> tuple[TenantMoved]:
    """The name is no matter here."""
    return (TenantMoved(event.city, event.rooms * 2),)


@el.aggregate(name="dweller")
class Doubtful:
    """A split that depends on what the event says is no expression, and is folded row by row."""

    moves: int = 0

    def evolve(self, event: TenantMoved) -> Self:
        return replace(self, moves=self.moves + 1)


@el.instead(Doubtful)
def perhaps(event: TenantPerhapsMoved) -> list[TenantMoved]:
    """Only where a city is told."""
    return [TenantMoved(city, 1) for city in event.city.split(",") if city]


TEXTS = st.sampled_from(["", "a", "bo", "ß"])
EVENTS = st.one_of(
    st.builds(TenantNamed, TEXTS), st.builds(TenantMoved, TEXTS, st.integers(-3, 9)), st.just(TenantGreeted()),
    st.builds(TenantNamedAndMoved, TEXTS, TEXTS, st.integers(-3, 9)), st.builds(TenantCalled, TEXTS),
    st.builds(TenantPerhapsMoved, st.sampled_from(["", "a", "a,b"])),
)  # fmt: skip
LOGS = st.lists(st.tuples(st.sampled_from("123"), EVENTS), max_size=14)


def told(lab: el.Lab, log: list[tuple[str, Any]]) -> None:
    for id, event in log:
        lab.append(f"dweller-{id}", [event])


@given(LOGS, st.data())
@settings(max_examples=60, deadline=None)
def test_every_engine_folds_it_as_it_would_be_by_hand_at_every_moment(log: list[tuple[str, Any]], data: st.DataObject) -> None:
    until = data.draw(st.integers(0, len(log)))
    with el.scratch(seed=1) as lab:
        told(lab, log)
        for reader in (lab, lab.at(position=until)):
            wanted = reader.table(ByHand, engine="rows").rows()
            for engine in ("rows", "loop", "lifted", "auto"):
                assert reader.table(Dweller, engine=engine).rows() == wanted, engine
        for engine in ("rows", "loop", "lifted"):
            assert lab.versions(Dweller, engine=engine).equals(lab.versions(ByHand, engine="rows"))
        # Brute force of the projection.
        rows: dict[str, list[int]] = {}
        for position, (_, event) in enumerate(log, 1):
            if isinstance(event, (TenantMoved, TenantNamedAndMoved)):
                twice = 2 if isinstance(event, TenantNamedAndMoved) else 1
                row = rows.setdefault(event.city, [0, 0, 0, 0])
                rows[event.city] = [row[0] + 1, row[1] + twice * event.rooms, row[2] + 1, position]
        for engine in ("rows", "loop", "lifted"):
            assert lab.table(Stays, engine=engine).rows() == sorted((city, *row) for city, row in rows.items())
        cities = [len([c for c in event.city.split(",") if c]) for _, event in log if isinstance(event, TenantPerhapsMoved)]
        moves = sum(cities) + sum(isinstance(event, TenantMoved) for _, event in log)
        assert lab.table(Doubtful)["moves"].sum() == moves
        for id in {id for id, _ in log}:
            assert lab.load(Dweller, id) == Dweller(**vars(lab.load(ByHand, id)))
            steps, by_hand = lab.debug(Dweller, id), lab.debug(ByHand, id)
            for at in range(len(steps) + 1):
                assert vars(steps.to(at).state) == vars(by_hand.to(at).state)


def test_what_depends_on_the_event_is_said_to_be_no_expression() -> None:
    with el.scratch(seed=1) as lab:
        told(lab, [("1", TenantPerhapsMoved("a,b"))])
        assert lab.explain(Dweller).engine == "lifted"
        with pytest.raises(NotLiftable):
            lab.table(Doubtful, engine="lifted")
        assert lab.load(Doubtful, "1").moves == 2


def test_read_models_snapshots_and_checks_go_by_it(tmp_path: Path) -> None:
    chance = random.Random(3)
    with el.open(tmp_path / "dwellers", maintain=False) as lab:
        made = [TenantNamed("a"), TenantMoved("b", 1), TenantNamedAndMoved("c", "d", 2), TenantCalled("e"), TenantGreeted()]
        told(lab, [(str(chance.randrange(5)), chance.choice(made)) for _ in range(60)])
        lab.rebuild(Dweller)
        lab.seal()
        told(lab, [(str(chance.randrange(5)), chance.choice(made)) for _ in range(60)])
        wanted = lab.table(ByHand, engine="rows")
        assert lab.table(Dweller).equals(wanted)
        lab.catch_up(Dweller)
        assert lab.table(Dweller).equals(wanted)
        assert lab.sql("select * from state.stays order by 1").equals(lab.table(Stays, engine="rows"))
        for report in lab.check(Dweller, Stays, level="quick"):
            assert report.ok, report


def test_it_is_part_of_the_code_and_what_changes_it_is_another_code() -> None:
    @el.aggregate(name="lodger")
    class Lodger:
        name: str = ""

        def evolve(self, event: TenantNamed) -> Self:
            return replace(self, name=event.name)

    model = model_of(Lodger)
    plain = model.fingerprint

    @el.instead(Lodger)
    def as_named(event: TenantCalled) -> tuple[TenantNamed]:
        return (TenantNamed(event.calling),)

    first = model.fingerprint
    assert {kind.name for kind in model.handled or ()} == {"TenantNamed", "TenantCalled"}

    @el.instead(Lodger)
    def as_shouted(event: TenantCalled) -> tuple[TenantNamed]:
        return (TenantNamed(event.calling + "!"),)

    assert len({plain, first, model.fingerprint}) == 3
    with el.scratch(seed=1) as lab:
        lab.append("lodger-1", [TenantCalled("x")])
        for engine in ("rows", "loop", "lifted"):
            assert lab.table(Lodger, engine=engine)["name"].to_list() == ["x!"]

    # A cell that is run again defines the class anew: what stood in the place of old events still does.
    @el.aggregate(name="lodger")
    class Lodger:  # type: ignore[no-redef]
        name: str = ""
        n: int = 0

        def evolve(self, event: TenantNamed) -> Self:
            return replace(self, name=event.name, n=self.n + 1)

    with el.scratch(seed=1) as lab:
        lab.append("lodger-1", [TenantCalled("x")])
        assert lab.load(Lodger, "1") == Lodger("x!", 1)

    # And no more, once it takes them itself.
    @el.aggregate(name="lodger")
    class Lodger:  # type: ignore[no-redef]
        name: str = ""

        def evolve(self, event: TenantNamed | TenantCalled) -> Self:
            return replace(self, name=event.name if isinstance(event, TenantNamed) else event.calling.upper())

    with el.scratch(seed=1) as lab:
        lab.append("lodger-1", [TenantCalled("x")])
        for engine in ("rows", "loop", "lifted"):
            assert lab.table(Lodger, engine=engine)["name"].to_list() == ["X"]
    carried = model_of(Lodger).fingerprint
    model_of(Lodger)._instead.clear()
    model_of(Lodger)._fingerprint = None
    assert model_of(Lodger).fingerprint == carried, "what no fold uses is no part of the code: no fresh process knows it"


def test_commands_may_still_give_the_old_event() -> None:
    @el.command
    class NameTenant:
        name: str

    @el.aggregate(name="boarder")
    class Boarder:
        name: str = ""

        def decide(self, command: NameTenant) -> Any:
            yield TenantCalled(command.name)

        def evolve(self, event: TenantNamed) -> Self:
            return replace(self, name=event.name)

    @el.instead(Boarder)
    def as_named(event: TenantCalled) -> tuple[TenantNamed]:
        return (TenantNamed(event.calling),)

    with el.scratch(seed=1) as lab:
        assert lab.handle(Boarder, "1", NameTenant("ann")).state == Boarder("ann")
        assert lab.load(Boarder, "1") == Boarder("ann")


def test_mistakes_are_said() -> None:
    with pytest.raises(ModelError, match="evolve takes TenantNamed itself"):

        @el.instead(Dweller)
        def twice(event: TenantNamed) -> tuple[TenantNamed]:
            return (event,)

    with pytest.raises(ModelError, match="says of no one event that it stands in its place"):

        @el.instead(Dweller)
        def of_any(event) -> tuple[()]:  # type: ignore[no-untyped-def]
            return ()

    with pytest.raises(ModelError, match="is to stand in for an event of Dweller"):

        @el.instead(Dweller)
        def of_two(event: TenantCalled, other: int) -> tuple[()]:
            return ()

    with pytest.raises(ModelError, match="TenantCalled is not a model"):
        el.instead(TenantCalled)
    with pytest.raises(ModelError, match="int is not an event"):

        @el.instead(Dweller)
        def of_int(event: int) -> tuple[()]:
            return ()


def test_what_evolve_does_not_take_and_rows_that_part_name_the_event() -> None:
    @el.aggregate(name="wanderer")
    class Wanderer:
        n: int = 0

        def evolve(self, event: TenantMoved) -> Self:
            return replace(self, n=self.n + 1)

    @el.instead(Wanderer)
    def wrong(event: TenantCalled) -> tuple[TenantNamed]:
        return (TenantNamed("x"),)

    @el.projection(name="wanderings")
    class Wanderings:
        n: int = 0

        @staticmethod
        def key(event: TenantMoved) -> str:
            return event.city

        def evolve(self, event: TenantMoved) -> Self:
            return replace(self, n=self.n + 1)

    @el.instead(Wanderings)
    def to_two(event: TenantCalled) -> tuple[TenantMoved, TenantMoved]:
        return TenantMoved("a", 1), TenantMoved(event.calling, 1)

    with el.scratch(seed=1) as lab:
        lab.append("wanderer-1", [TenantCalled("b")])
        with pytest.raises(EvolveFailed, match=r"position 1 .*wrong gave TenantNamed\(name='x'\), which evolve does not take"):
            lab.load(Wanderer, "1")
        with pytest.raises(EvolveFailed, match=r"position 1 .*belongs to several rows: 'a', 'b'"):
            lab.table(Wanderings)
