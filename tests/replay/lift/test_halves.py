"""A fold in two halves: the query gives what lifts, a loop the rest, and together they are the row fold."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from replay.lift import gallery
from replay.lift.hostile import agree, answer, logs, written

import eventlab as el
from eventlab.model.models import model_of
from eventlab.replay.lift import plan_of, run
from eventlab.replay.lift.partial import Halves
from eventlab.store.base import ALL


@el.event
class Visited:
    """A guest came, and left some money."""

    spent: el.Money
    guests: int
    dish: str | None


@el.event
class Reviewed:
    """A guest gave stars."""

    stars: int
    text: str


@el.event
class Closed:
    """The table was given to somebody else."""

    reason: str


@el.aggregate(name="diner")
class Diner:
    """Sums and last values that lift, and a mood that makes its own next value."""

    visits: int = 0
    spent: el.Money = el.money(0)
    last_dish: str | None = None
    closed: bool = False
    mood: int = 50

    def evolve(self, event: Visited | Reviewed | Closed) -> Self:
        match event:
            case Visited(spent=s, dish=d):
                return replace(self, visits=self.visits + 1, spent=self.spent + s, last_dish=d)
            case Reviewed(stars=n):
                return replace(self, mood=(self.mood * 3 + n * 7) // 4)
            case Closed():
                return replace(self, closed=True)
        return self


@el.aggregate(name="diner")
class StrictDiner:
    """Both halves may raise: the query's over a division, the loop's over a review of nobody."""

    guests: int = 0
    share: int = 0
    streak: int = 0
    best: int = 0

    def evolve(self, event: Visited | Reviewed | Closed) -> Self:
        match event:
            case Visited(guests=g):
                return replace(self, guests=self.guests + g, share=100 // g)
            case Reviewed(stars=n):
                if n < 0 and self.streak > 1:
                    raise ValueError("no such stars")
                streak = self.streak + 1 if n > 2 else self.streak // 2
                return replace(self, streak=streak, best=max(self.best, streak))
        return self


@el.projection
class DishMood:
    """A key of its own."""

    eaten: int = 0
    spent: el.Money = el.money(0)
    fame: int = 1

    @staticmethod
    def key(event: Visited) -> str | None:
        return event.dish

    def evolve(self, event: Visited) -> Self:
        return replace(
            self, eaten=self.eaten + event.guests, spent=self.spent + event.spent, fame=(self.fame * 5 + event.guests) % 1_000
        )


MODELS = (Diner, StrictDiner, DishMood)
OTHERS = (gallery.LineAdded,)


@pytest.fixture
def halved(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Folds in halves however small the log, and whether each was."""
    monkeypatch.setattr(run, "_SMALL", 0)
    monkeypatch.setattr(Halves, "pays", lambda *given: True)
    done: list[bool] = []
    whole = run._halved

    def noted(*given: Any) -> Any:
        found = whole(*given)
        done.append(found is not None)
        return found

    monkeypatch.setattr(run, "_halved", noted)
    return done


@pytest.mark.parametrize("model", MODELS, ids=lambda cls: cls.__name__)
def test_what_lifts_is_the_query_s_and_a_cycle_is_the_loop_s(model: type[Any]) -> None:
    halves = plan_of(model_of(model)).halves
    assert halves is not None
    cycles = {"Diner": {"mood"}, "StrictDiner": {"streak", "best"}, "DishMood": {"fame"}}[model.__name__]
    assert halves.of_loop == cycles
    assert set(halves.query.leaves) == {name for name, _ in model_of(model).fields} - cycles


def test_the_loop_sees_only_the_events_of_its_half() -> None:
    halves = plan_of(model_of(Diner)).halves
    assert halves is not None
    assert halves.seen == ("Reviewed",)
    assert halves.loop.leaves["Reviewed"] == ("stars",)


def test_an_explanation_names_what_each_half_gives() -> None:
    with written([("diner-1", Visited(el.money(1), 2, "soup")), ("diner-1", Reviewed(4, ""))], "memory", None) as lab:
        told = lab.explain(Diner)
    assert told.engine == "lifted + loop"
    assert {field.field: field.engine for field in told.fields} == {
        "visits": "lifted", "spent": "lifted", "last_dish": "lifted", "closed": "lifted", "mood": "loop",
    }  # fmt: skip
    assert [field.field for field in told.refusals] == ["mood"]
    assert "mood" not in told.sql
    assert "visits" in told.sql
    assert "* 7" in told.loop
    assert str(told).startswith("Diner: lifted + loop, 4 of 5 fields lift")


@pytest.mark.parametrize("layout", ["memory", "hot", "sealed", "mixed", "compacted", "eras"])
@settings(max_examples=15, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_both_halves_together_are_the_row_fold(
    layout: str, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory, halved: list[bool]
) -> None:
    model = data.draw(st.sampled_from(MODELS), label="model")
    facts = data.draw(logs(model, OTHERS), label="facts")
    folder = None if layout == "memory" else Path(tmp_path_factory.mktemp("halves"))
    with written(facts, layout, folder) as lab:
        cut = lab.store.cut()
        agree(model_of(model), cut, "default", cut.head, ("auto",))
        agree(model_of(model), cut, ALL, data.draw(st.integers(0, cut.head), label="until"), ("auto",))


def test_the_halves_are_taken(halved: list[bool]) -> None:
    facts: list[tuple[str, Any]] = [(f"diner-{i % 5}", Visited(el.money(i), 1 + i % 3, "soup")) for i in range(20)]
    facts += [(f"diner-{i % 5}", Reviewed(i % 6, "")) for i in range(20)]
    with written(facts, "memory", None) as lab:
        cut = lab.store.cut()
        for model in MODELS:
            agree(model_of(model), cut, "default", cut.head, ("auto",))
    assert halved == [True] * len(MODELS)


def test_a_key_that_either_half_caught_is_folded_by_the_row_fold(halved: list[bool]) -> None:
    reviews = [("diner-2", Reviewed(stars, "")) for stars in (5, 5, 5)]
    fine = [("diner-1", Visited(el.money(1), 2, None)), *reviews]
    for bad, says in (
        (("diner-1", Visited(el.money(1), 0, None)), "ZeroDivisionError"),
        (("diner-2", Reviewed(-1, "")), "no such stars"),
    ):
        with written([*fine, bad, ("diner-3", Reviewed(4, ""))], "memory", None) as lab:
            cut = lab.store.cut()
            meant = agree(model_of(StrictDiner), cut, "default", cut.head, ("auto",))
            assert says in str(meant)
            assert len(agree(model_of(StrictDiner), cut, "default", 4, ("auto",))) == 2


def test_halves_that_do_not_pay_are_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "_SMALL", 0)
    halves = plan_of(model_of(Diner)).halves
    assert halves is not None
    # Where every event is the loop's and there are as many keys as events, the query only adds to it.
    assert not halves.pays({"Reviewed": 1_000_000}, 1_000_000, plan_of(model_of(Diner)).analysis)
    assert halves.pays({"Reviewed": 1_000, "Visited": 1_000_000}, 1_000, plan_of(model_of(Diner)).analysis)
    with written([("diner-1", Reviewed(4, ""))], "memory", None) as lab:
        cut = lab.store.cut()
        assert answer(model_of(Diner), cut, "default", 1, "auto").equals(answer(model_of(Diner), cut, "default", 1, "rows"))
