"""Several read models moved at once: of one cut, each what it is by itself, and the log read once for those that do not lift."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from replay import oracle

import eventlab as el
from eventlab.model.models import model_of
from eventlab.replay.lift import fold_shared, fold_table
from eventlab.replay.parking import Parking
from eventlab.store.base import ALL
from eventlab.store.cut import DiskCut


@el.event
class TicketTorn:
    """A ticket was torn at the door."""

    row: int


@el.event
class FilmStopped:
    """The film stopped."""


@el.aggregate(name="cinema")
class Cinema:
    """Lifts."""

    guests: int = 0

    def evolve(self, event: TicketTorn) -> Self:
        return replace(self, guests=self.guests + 1)


@el.projection(name="aisles")
class Aisles:
    """Does not lift, and cannot take a row below 0."""

    text: str = ""

    @staticmethod
    def key(event: TicketTorn) -> str:
        return f"{event.row % 3}"

    def evolve(self, event: TicketTorn) -> Self:
        if event.row < 0:
            raise ValueError("there is no such row")
        return replace(self, text=f"{len(self.text)}{event.row}{self.text}"[:12])


@el.projection(name="films")
class Films:
    """Does not lift."""

    last: str = ""

    @staticmethod
    def key(event: TicketTorn | FilmStopped, meta: el.Meta) -> str:
        return meta.stream

    def evolve(self, event: TicketTorn | FilmStopped) -> Self:
        return replace(self, last=f"{self.last}{type(event).__name__[0]}"[-5:])


MODELS = (Cinema, Aisles, Films)


@pytest.fixture(params=["memory", "disk"])
def lab(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[el.Lab]:
    with el.scratch() if request.param == "memory" else el.open(tmp_path / "log", maintain=False) as lab:
        for row in range(8):
            lab.append(f"cinema-{row % 2}", [TicketTorn(row), FilmStopped()] if row % 3 else [TicketTorn(row)])
        yield lab


def holds(lab: el.Lab) -> None:
    """Every base is the row fold."""
    bases = lab.store.read_models.accepted("default")
    for model in MODELS:
        base = bases[model_of(model).name]
        assert base.position == lab.head
        assert pl.DataFrame(pl.from_arrow(base.table())).equals(lab.table(model, engine="rows"))


def test_several_are_rebuilt_and_caught_up_in_the_order_they_were_given_in(lab: el.Lab) -> None:
    done = lab.rebuild(*MODELS)
    assert [of.model for of in done] == ["cinema", "aisles", "films"]
    assert {of.position for of in done} == {lab.head}
    holds(lab)
    lab.append("cinema-1", [TicketTorn(7), FilmStopped()])
    lab.rebuild(Films)
    lab.append("cinema-2", [TicketTorn(9)])
    done = lab.catch_up(*reversed(MODELS))
    assert [(of.model, of.events) for of in done] == [("films", 1), ("aisles", 2), ("cinema", 3)]
    holds(lab)
    assert [of.events for of in lab.catch_up(*MODELS)] == [0, 0, 0]


def test_a_key_that_stops_does_so_in_its_own_model_alone(lab: el.Lab) -> None:
    lab.append("cinema-1", [TicketTorn(-2), TicketTorn(4)])
    assert [of.parked for of in lab.rebuild(*MODELS)] == [0, 1, 0]
    lab.append("cinema-1", [TicketTorn(-1), TicketTorn(1)])
    assert [of.parked for of in lab.catch_up(*MODELS)] == [0, 2, 0]
    assert lab.parked()["position"].to_list() == [14, 16]


def test_the_log_is_read_once_for_those_that_do_not_lift(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[tuple[int, Any]] = []
    batches = DiskCut.batches

    def counted(self: DiskCut, *arguments: Any, **named: Any) -> Any:
        if named.get("types") != ():
            reads.append((named.get("after", 0), named.get("types")))
        return batches(self, *arguments, **named)

    monkeypatch.setattr(DiskCut, "batches", counted)
    with el.open(tmp_path / "log", maintain=False) as lab:
        for row in range(9):
            lab.append(f"cinema-{row % 2}", [TicketTorn(row)])
        lab.rebuild(Aisles, Films)
        assert len(reads) == 1
        lab.rebuild(Cinema)
        lab.append("cinema-0", [TicketTorn(1)])
        lab.seal()
        reads.clear()
        lab.catch_up(Cinema, Aisles, Films)
        assert [after for after, _ in reads] == [9]


@given(log=oracle.logs(), until=st.integers(0, 40), tenant=st.sampled_from(["default", ALL]))
@settings(max_examples=20, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large], deadline=None)
def test_what_is_fed_together_is_what_each_folds_alone(log: oracle.Log, until: int, tenant: Any) -> None:
    models = [model_of(cls) for cls in oracle.MODELS]
    with oracle.written("memory", None, log) as lab:
        cut = lab.store.cut()
        tables = fold_shared(models, cut, tenant, until, [Parking(model, tenant) for model in models])
        assert sum(table is not None for table in tables) >= 2
        for model, table in zip(models, tables, strict=True):
            if table is not None:
                assert table.equals(fold_table(model, cut, tenant, until, engine="rows"))
