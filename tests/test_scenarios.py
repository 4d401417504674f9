"""Given, when, then: what passes, what fails, and how a failure reads."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from typing import Any, Self

import polars as pl
import pytest

import eventlab as el
from eventlab.errors import EvolveFailed, InvalidValue, ModelError, NotHandled
from eventlab.testing import given


@el.event
class CupFilled:
    """Somebody poured into a cup."""

    what: str
    litres: el.Money


@el.event
class CupEmptied:
    """The cup was drunk up."""


@el.command
class Fill:
    what: str
    litres: el.Money


@el.command
class Drink:
    thirst: int = 1


@el.aggregate(name="cup")
class Cup:
    what: str | None = None
    litres: el.Money = el.money(0)
    pours: tuple[str, ...] = ()

    def decide(self, command: Fill | Drink) -> Iterator[CupFilled | CupEmptied]:
        match command:
            case Fill(what=what, litres=n):
                if self.what not in (None, what):
                    raise el.Rejected(f"there is {self.what} in it")
                yield CupFilled(what, n)
            case Drink():
                if self.what is not None:
                    yield CupEmptied()

    def evolve(self, event: CupFilled | CupEmptied) -> Self:
        match event:
            case CupFilled(what=what, litres=n):
                return replace(self, what=what, litres=self.litres + n, pours=(*self.pours, what))
            case CupEmptied():
                return replace(self, what=None, litres=el.money(0))


@el.projection(name="drink")
class Poured:
    litres: el.Money = el.money(0)
    cups: tuple[str, ...] = ()

    @staticmethod
    def key(event: CupFilled) -> str:
        return event.what

    def evolve(self, event: CupFilled, meta: el.Meta) -> Self:
        return replace(self, litres=self.litres + event.litres, cups=(*self.cups, meta.stream))


by_day = el.sql_projection(
    "poured_by_day",
    "select _recorded_at::date as day, sum(litres) as litres from types.cup_filled group by 1",
    key="day",
)


@el.frame_projection(key="what", events=el.events(CupFilled), name="largest_pour")
def largest(events: pl.LazyFrame) -> pl.LazyFrame:
    return events.group_by("what").agg(pl.col("litres").max())


TEA = CupFilled("tea", el.money("0.20"))


def test_a_scenario_reads_like_the_business() -> None:
    given(Cup).when(Fill("tea", el.money("0.2"))).then(TEA).state(what="tea", litres=Decimal("0.20"))
    given(Cup, TEA).when(Fill("rum", el.money(1))).rejected("there is tea").state(Cup("tea", el.money("0.2"), ("tea",)))
    given(Cup, TEA, CupEmptied()).when(Fill("rum", el.money(1))).then(CupFilled("rum", el.money(1)))
    given(Cup).when(Drink()).then()
    given(Cup, [TEA, TEA]).when(Drink()).then({"cup-1": [CupEmptied()]})
    given(Cup, {"cup-9": [TEA]}).when(Drink()).then()


def test_a_failure_shows_the_scenario_and_the_difference() -> None:
    with pytest.raises(AssertionError) as caught:
        given(Cup, CupEmptied()).when(Fill("tea", el.money(1))).then(CupFilled("tea", el.money(2)), CupEmptied())
    assert str(caught.value).splitlines() == [
        "it answered otherwise",
        "  given Cup",
        "        CupEmptied()",
        "  when  Fill(what='tea', litres=Decimal('1.00'))",
        "  then  - CupFilled(what='tea', litres=Decimal('2.00'))",
        "        + CupFilled(what='tea', litres=Decimal('1.00'))",
        "            litres: expected Decimal('2.00'), got Decimal('1.00')",
        "        - CupEmptied()",
    ]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda: given(Cup, TEA).when(Fill("rum", el.money(1))).then(TEA), "it was rejected: there is tea in it"),
        (lambda: given(Cup, TEA).when(Drink()).rejected(), "it was not rejected"),
        (lambda: given(Cup, TEA).when(Fill("rum", el.money(1))).rejected("full"), "for another reason"),
        (lambda: given(Cup, TEA).when(Drink()).then(), "it answered otherwise"),
        (lambda: given(Cup, TEA).when(Drink()).then({"cup-2": [CupEmptied()]}), "- cup-2: CupEmptied"),
        (lambda: given(Cup, TEA).when(Drink()).state(what="tea"), "what: expected 'tea', got None"),
        (lambda: given(Poured, TEA).expect([]), r"the rows are others \(by its evolve\)"),
        (lambda: given(Poured, TEA).expect([{"litres": 1}]), r"- litres=1\n.*\+ litres=Decimal"),
        (lambda: given(by_day, TEA).expect([{"litres": 1}]), "litres=1"),
    ],
)  # fmt: skip
def test_what_is_not_so_fails(wrong: Any, said: str) -> None:
    with pytest.raises(AssertionError, match=said):
        wrong()


def test_mistakes_in_a_test_are_no_outcomes() -> None:
    with pytest.raises(InvalidValue, match="has no field 'colour'"):
        given(Cup).when(Drink()).state(colour="red")
    with pytest.raises(InvalidValue, match="no column 'colour'"):
        given(Poured, TEA).expect([{"colour": 1}])
    with pytest.raises(InvalidValue, match="takes a command"):
        given(Cup).when("drink")
    with pytest.raises(InvalidValue, match="a command is for an aggregate"):
        given(Poured).when(Drink())
    with pytest.raises(InvalidValue, match="only an aggregate has a state"):
        given(TEA).when(lambda lab: None).state(what="tea")
    with pytest.raises(InvalidValue, match="about the rows"):
        given(TEA).expect([])
    with pytest.raises(InvalidValue, match="mappings"):
        given(Poured).expect([("tea", 1)])  # type: ignore[list-item]
    with pytest.raises(ModelError, match="not an event"):
        given(Cup, Drink())
    with pytest.raises(NotHandled):
        given(Poured and Cup).when(Stir())
    with pytest.raises(InvalidValue, match=r"Fill\.litres"):
        given(Cup).when(Fill("tea", "much"))  # type: ignore[arg-type]


@el.command
class Stir:
    pass


def test_rows_of_any_projection_can_be_expected() -> None:
    tea = {"_id": "tea", "litres": Decimal("0.40"), "cups": ["cup-1", "cup-2"], "_version": 2}
    before = given(Poured, {"cup-1": [TEA], "cup-2": [TEA, CupFilled("rum", el.money(1))]})
    before.expect([{"_id": "rum", "litres": 1, "cups": ["cup-2"]}, tea]).expect(before.table())
    before.expect({"tea": Poured(el.money("0.4"), ("cup-1", "cup-2")), "rum": {"litres": 1, "cups": ("cup-2",)}})
    given(by_day, TEA, TEA).expect([{"day": dt.date(2026, 1, 1), "litres": Decimal("0.40")}])
    given(largest, TEA, CupFilled("tea", el.money(3))).expect([{"what": "tea", "litres": 3}])
    given(Cup, TEA).expect([{"_id": "1", "litres": Decimal("0.20")}])
    given(Poured).expect([])


def test_rows_are_expected_of_every_way_to_fold() -> None:
    @el.projection(name="sly")
    class Sly:
        n: int = 0

        @staticmethod
        def key(event: CupFilled) -> str:
            return "all"

        def evolve(self, event: CupFilled) -> Self:
            seen.append(event)
            return replace(self, n=len(seen))

    seen: list[Any] = []
    with pytest.raises((AssertionError, EvolveFailed)):
        given(Sly, TEA, TEA).expect([{"n": 2}])


def test_a_decision_on_several_streams_is_a_function_of_the_lab() -> None:
    def subscribe(student: str) -> Any:
        def decide(lab: el.Lab) -> None:
            with lab.decide_on(el.events(CupFilled)) as seen:
                if len(seen) >= 2:
                    raise el.Rejected("no cups left")
                seen.append(f"cup-{student}", TEA)

        return decide

    given({"cup-a": [TEA]}).when(subscribe("b")).then({"cup-b": [TEA]})
    given({"cup-a": [TEA], "cup-b": [TEA]}).when(subscribe("c")).rejected("no cups")


def test_a_scenario_is_told_as_text() -> None:
    done = given(Cup, TEA).when(Drink())
    assert repr(done).splitlines() == [
        "  given Cup",
        "        CupFilled(what='tea', litres=Decimal('0.20'))",
        "  when  Drink(thirst=1)",
        "  then  CupEmptied()",
        "        what: 'tea' → None",
        "        litres: Decimal('0.20') → Decimal('0.00')",
    ]
    assert "rejected: there is tea" in repr(given(Cup, TEA).when(Fill("rum", el.money(1))))
    assert done.changed[0] == ("what", "tea", None)
    assert done.events == (CupEmptied(),)
