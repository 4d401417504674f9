"""Limits declared in the types: held against what is appended, ingested and commanded, and not against what is stored."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Annotated, Any, Self

import polars as pl
import pytest
from annotated_types import Ge, Gt, Interval, Le, Len, Lt, MaxLen, MinLen, MultipleOf, Predicate, Unit
from hypothesis import given

import eventlab as el
from eventlab.errors import IngestRefused, InvalidValue, ModelError, UpcastFailed
from eventlab.model.changes import json_schema
from eventlab.model.events import event_type
from eventlab.model.types import field_type, limited
from eventlab.testing.strategies import commands, events


@dataclass(frozen=True)
class Weight:
    grams: Annotated[int, Gt(0)]


@el.event(name="limits.CrateSold")
class CrateSold:
    """A crate was sold."""

    count: Annotated[int, Ge(1), Le(10)]
    name: Annotated[str, MinLen(1)] = "x"
    weight: Weight = Weight(1)
    codes: list[Annotated[str, MaxLen(2)]] = el.field(default_factory=list)
    price: Annotated[el.Money, Ge(Decimal(0))] | None = None


@el.command
class SellCrate:
    count: Annotated[int, Interval(gt=0, le=10)]


@el.aggregate(name="limits_crate")
class LimitedCrate:
    left: Annotated[int, Ge(0)] = 3
    weight: Weight = Weight(1)

    def decide(self, command: SellCrate) -> Iterator[CrateSold]:
        yield CrateSold(command.count)

    def evolve(self, event: CrateSold) -> Self:
        return replace(self, left=self.left - event.count, weight=Weight(self.left - 9))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"count": 0}, r"CrateSold\.count is 0 \(int\), and has to be at least 1"),
        ({"count": 11}, r"count is 11 \(int\), and has to be at most 10"),
        ({"name": ""}, r"name is '' \(str\), and has to be of 1 or more \(it has 0\)"),
        ({"weight": Weight(0)}, r"weight\.grams is 0 .* greater than 0"),
        ({"codes": ["ab", "abc"]}, r"codes\[1\] is 'abc' .* of 2 or fewer \(it has 3\)"),
        ({"price": el.money(-1)}, r"price is Decimal\('-1.00'\) .* at least 0"),
        ({"count": True}, "is declared int"),
    ],
)
def test_an_event_that_breaks_a_limit_is_not_stored(fields: dict[str, Any], said: str) -> None:
    with el.scratch() as lab:
        with pytest.raises(InvalidValue, match=said):
            lab.append("limits_crate-1", [CrateSold(**{"count": 1} | fields)])
        assert lab.head == 0


def test_a_command_is_held_against_them_before_the_model_sees_it() -> None:
    with el.scratch() as lab:
        with pytest.raises(InvalidValue, match=r"SellCrate\.count is 0 .* greater than 0"):
            lab.handle(LimitedCrate, "1", SellCrate(0))
        assert lab.handle(LimitedCrate, "1", SellCrate(10)).state == LimitedCrate(-7, Weight(-6)), "a state takes any value"
        assert lab.table(LimitedCrate, engine="lifted").equals(lab.table(LimitedCrate, engine="rows"))


def test_rows_of_an_ingest_are_held_against_them() -> None:
    good = {"count": 3, "weight.grams": 2, "price": "1.50"}
    with el.scratch() as lab:
        for bad, said in (
            ({"count": 0}, "'count'.*has to be at least 1"), ({"weight.grams": -1}, "has to be greater than 0"),
            ({"price": "-0.01"}, "has to be at least 0"), ({"codes": ["abc"]}, "of 2 or fewer"), ({"name": ""}, "of 1 or more"),
        ):  # fmt: skip
            rows = pl.DataFrame([good | {"codes": ["a"], "name": "n"}, good | {"codes": ["a"], "name": "n"} | bad])
            with pytest.raises(IngestRefused, match=said):
                lab.ingest(el.rows(CrateSold, rows, stream="crate-1"), source="rows")
        lab.ingest(el.rows(CrateSold, pl.DataFrame([good]), stream="crate-1"), source="rows")
        assert lab.head == 1


def test_what_is_stored_is_read_whatever_the_limits_are_now() -> None:
    def sold(version: int, least: int) -> type[Any]:
        @el.event(name="limits.Sold", version=version)
        class Sold:
            """It was sold."""

            count: Annotated[int, Ge(least)]

        return Sold

    with el.scratch() as lab:
        lab.append("sale-1", [sold(1, 0)(0)])
        sold(1, 5)
        assert [event.data.count for event in lab.read()] == [0]
        of = sold(2, 5)

        @el.upcast(of, from_version=1)
        def doubled(old: Any) -> Any:
            return {"count": old.count * 2}

        @el.aggregate(name="sale")
        class LimitedSale:
            count: int = 0

            def evolve(self, event: of) -> Self:  # type: ignore[valid-type]
                return replace(self, count=self.count + event.count)  # type: ignore[attr-defined]

        # What upcasters make is held against the class of today, as if it were appended.
        for engine in ("rows", "loop", "auto"):
            with pytest.raises(UpcastFailed, match="at least 5"):
                lab.table(LimitedSale, engine=engine)


def test_every_limit_and_what_is_none() -> None:
    whole = lambda value: value == int(value)  # noqa: E731
    whole.__name__ = "whole"
    hint = Annotated[float, Lt(9.5), MultipleOf(0.5), Predicate(whole), Unit("kg")]
    of = field_type(hint, "it")
    assert of.encode(3.0, "it") == 3.0
    for bad, said in ((9.5, "less than 9.5"), (0.3, "a multiple of 0.5"), (0.5, "as whole says")):
        with pytest.raises(InvalidValue, match=said):
            of.encode(bad, "it")
    assert [type(limit) for limit in field_type(Annotated[str, Len(1, 3)], "it").limits] == [MinLen, MaxLen]
    assert not limited(field_type(Annotated[str, "a note"], "it"))
    assert limited(field_type(dict[str, list[Annotated[int, Ge(0)]]], "it"))
    assert limited(dict(event_type(CrateSold).fields)["weight"])
    assert field_type(Annotated[dt.timedelta, Ge(dt.timedelta(0))] | None, "it").encode(None, "it") is None
    with pytest.raises(ModelError, match="the limits of a dataclass stand at its fields"):
        field_type(Annotated[Weight, Ge(1)], "it")


def test_json_schema_says_them() -> None:
    found = json_schema(event_type(CrateSold))["properties"]
    assert (found["count"]["minimum"], found["count"]["maximum"]) == (1, 10)
    assert found["name"]["minLength"] == 1
    assert found["weight"]["properties"]["grams"]["exclusiveMinimum"] == 0
    assert found["codes"]["items"]["maxLength"] == 2


@given(commands(SellCrate), events(CrateSold))
def test_strategies_stay_within_them(command: SellCrate, event: CrateSold) -> None:
    assert 0 < command.count <= 10
    event_type(CrateSold).encode(event)
