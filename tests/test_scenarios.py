"""Given, when, then: what passes, what fails, and how a failure reads."""

from __future__ import annotations

import datetime as dt
import enum
import re
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, Self

import polars as pl
import pytest

import eventlab as el
from eventlab.errors import EvolveFailed, InvalidValue, ModelError, NotHandled, SchemaConflict, StaleType, UpcastFailed
from eventlab.testing import given, given_stored


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


@pytest.mark.parametrize(
    ("mistake", "said", "way_out"),
    [
        (lambda: given(Cup, CupFilled), "takes events, and CupFilled is a class", "CupFilled(…)"),
        (lambda: given(Cup()).when(Drink()), "is a state", "given(Cup, …)"),
        (lambda: given(Cup).when(Drink), "takes a command, and Drink is a class", "when(Drink(…))"),
        (lambda: given(Cup).then(TEA), "nothing was asked for yet", "given(…).when(…).then(…)"),
        (lambda: given(Cup).when(Drink()).then(CupEmptied), "then takes events, and CupEmptied is a class", "CupEmptied(…)"),
        (lambda: given(Cup).when(Drink()).then({"cup-1": []}, TEA), "one mapping of streams to events, and not both", "cup-1"),
        (lambda: given(Cup, TEA).when(Fill("rum", el.money(1))).rejected("tea ("), "is no regular expression", "re.escape"),
        (lambda: given(Cup, TEA).when(Fill("rum", el.money(1))).rejected(3), "takes words of the reason", "rejected("),
        (lambda: given(Cup).when(Drink()).state("tea"), "takes a state or its fields", "state("),
        (lambda: given(Cup).when(Drink()).state({"colour": 1}), "has no field 'colour'", "litres"),
        (lambda: given(Poured).expect(3), "mappings", "expect("),
        (lambda: given(Poured).expect({"tea": 3}), "a state or fields for each key", "expect("),
    ],
)  # fmt: skip
def test_what_a_test_gives_wrongly_is_said_with_the_way_out(mistake: Any, said: str, way_out: str) -> None:
    with pytest.raises(InvalidValue, match=re.escape(said)) as caught:
        mistake()
    assert way_out.replace("cup-1", "order-1") in caught.value.hint


def test_what_can_be_meant_in_one_way_only_is_taken() -> None:
    refused = given(Cup, {"cup-1": TEA}).when(Fill("rum", el.money(1)))
    refused.rejected(el.Rejected("there is tea in it")).rejected(el.Rejected).rejected(re.compile("TEA", re.IGNORECASE))
    with pytest.raises(AssertionError, match="another reason"):
        refused.rejected(el.Rejected("tea"))
    done = given(Cup, iter([TEA])).when(Drink())
    done.then([CupEmptied()]).then({"cup-1": CupEmptied()}).state({"what": None}, litres=0)
    assert not hasattr(given(Cup), "_repr_html_")


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


# -- old versions ----------------------------------------------------------------------------------------------------------


class Glaze(enum.Enum):
    MATT = "matt"
    SHINY = "shiny"


@dataclass(frozen=True)
class Maker:
    name: str
    town: str | None = None


@el.event(name="scenario.CupSold", version=3)
class CupSold:
    """A cup was sold, in the shape of the third year."""

    price: el.Money
    currency: str
    glaze: Glaze = Glaze.MATT
    maker: Maker | None = None
    colours: tuple[str, ...] = ()


@el.upcast(CupSold, from_version=1)
def from_cents(old: Any) -> Any:
    return {"price": Decimal(old.cents) / 100}


@el.upcast(CupSold, from_version=2)
def in_euros(old: Any) -> Any:
    return {**old, "currency": "EUR"}


@el.downcast(CupSold, to_version=2)
def without_currency(new: Any) -> Any:
    if new.currency != "EUR":
        raise ValueError("it was not in euros")
    return {"price": new.price}


@el.event(name="scenario.CupShown", version=2)
class CupShown:
    """A cup was shown."""

    where: str = "here"
    litres: el.Money = el.money(0)


SOLD = CupSold(el.money("2.50"), "EUR")


def test_an_old_version_is_read_as_the_class_of_today() -> None:
    done = given_stored(CupSold, version=1, cents=250).then(SOLD)
    assert repr(done).splitlines() == [
        "  given scenario.CupSold, version 1",
        "        cents=250",
        "  by    from_cents, in_euros",
        "  then  CupSold(price=Decimal('2.50'), currency='EUR', glaze=<Glaze.MATT: 'matt'>, maker=None, colours=())",
        "        price: new, Decimal('2.50')",
        "        currency: new, 'EUR'",
        "        glaze: new, 'matt'",
        "        maker: new, None",
        "        colours: new, []",
        "        cents: gone, 250",
    ]
    given_stored(CupSold, {"cents": 250}, version=1).at_version(2).then(price=Decimal("2.5"))
    given_stored(CupShown, version=1).then(CupShown()).then(where="here", litres=el.money(0))
    given_stored(CupShown, version=1, where="there").then(CupShown("there"))


def test_stored_values_are_what_the_steps_see() -> None:
    whole = {"price": el.money(1), "glaze": Glaze.SHINY, "maker": Maker("Ann"), "colours": ("red", "blue")}
    nested = {"price": el.money(1), "glaze": "shiny", "maker": {"name": "Ann", "town": None}, "colours": ["red", "blue"]}
    for given_as in (whole, nested):
        done = given_stored(CupSold, given_as, version=2)
        assert done.stored == nested
        done.then(CupSold(el.money(1), "EUR", Glaze.SHINY, Maker("Ann"), ("red", "blue")))


@pytest.mark.parametrize(
    "value",
    [
        True, 2, 2.5, float("inf"), "two", b"2", uuid.UUID(int=2), Decimal("2.500"), dt.datetime(2026, 1, 1, tzinfo=dt.UTC),
        dt.date(2026, 1, 1), dt.time(12), dt.timedelta(2), [], [1, None], ["a", 1], {}, {"a b": 1}, {"a": {"b": Decimal(1)}},
        None,
    ],
    ids=repr,
)  # fmt: skip
def test_a_field_that_is_gone_is_stored_as_what_it_was(value: Any) -> None:
    stored = given_stored(CupSold, version=1, cents=1, extra=value).stored["extra"]
    assert (stored, type(stored)) == (value, type(value))


def test_an_event_of_today_is_read_by_those_who_know_an_older_version() -> None:
    done = given(SOLD).at_version(2).then(price=el.money("2.50"))
    assert (done.steps, done.changed[0]) == (("without_currency",), ("currency", "gone, 'EUR'"))
    given(SOLD).at_version(1).fails("there is no step back to 1").fails(SchemaConflict)
    given(CupSold(el.money(1), "CHF")).at_version(2).fails("ValueError: it was not in euros")


def test_what_cannot_be_read_fails_as_the_log_does() -> None:
    many = given_stored(CupSold, version=1, cents="many")
    many.fails("upcasting scenario.CupSold, stored as version 1, failed").fails(UpcastFailed)
    given_stored(CupSold, version=2, price=el.money(1), colour="red").fails("has no field 'colour' today")
    given_stored(CupSold, version=2, price=1.5).fails("price is 1.5")
    given_stored(CupSold, version=2, price=el.money(1), glaze="rough").fails("rough")
    # An int was stored as an int, and no step says what became of it.
    given_stored(CupShown, version=1, litres=2).fails("stored as litres:i64 in version 1, now litres:d18_2")


def test_a_difference_between_versions_is_told_field_by_field() -> None:
    with pytest.raises(AssertionError) as caught:
        given_stored(CupSold, version=2, price=el.money(2)).then(CupSold(el.money(2), "CHF"))
    assert str(caught.value).splitlines() == [
        "it is read otherwise",
        "  given scenario.CupSold, version 2",
        "        price=Decimal('2.00')",
        "  by    in_euros",
        "  then  - CupSold(price=Decimal('2.00'), currency='CHF', glaze=<Glaze.MATT: 'matt'>, maker=None, colours=())",
        "        + CupSold(price=Decimal('2.00'), currency='EUR', glaze=<Glaze.MATT: 'matt'>, maker=None, colours=())",
        "            currency: not stored, read as 'EUR', expected 'CHF'",
    ]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda: given_stored(CupSold, version=1, cents="x").then(SOLD), r"(?s)it cannot be read: upcasting.*- CupSold\("),
        (lambda: given_stored(CupSold, version=1, cents=250).then(CupShown()), r"- CupShown.*\n.*\+ CupSold"),
        (lambda: given_stored(CupSold, version=1, cents=250).fails(), r"(?s)it was read.*\+ CupSold"),
        (lambda: given_stored(CupSold, version=1, cents="x").fails("no y"), r"another reason(?s:.)*- no y"),
        (lambda: given(SOLD).at_version(2).then(price=Decimal("2.50"), n=1), "n: not stored, not read, expected 1"),
        (lambda: given_stored(CupShown, version=1).at_version(1).then(n=1), "then  - n=1\n        \\+ no fields"),
        (lambda: given_stored(CupShown, version=1, x=1).at_version(1).then(x=True), "x: stored 1, read as 1, expected True"),
    ],
)  # fmt: skip
def test_what_is_read_otherwise_fails(wrong: Any, said: str) -> None:
    with pytest.raises(AssertionError, match=said):
        wrong()


@pytest.mark.parametrize(
    ("mistake", "said"),
    [
        (lambda: given_stored(TEA, version=1), "takes the class"),
        (lambda: given_stored(CupFilled, version=1), "is version 1, so there is none before it"),
        (lambda: given_stored(CupSold, version=3, price=1), "version=3, and CupSold is version 3 today"),
        (lambda: given_stored(CupSold, version=True), "version=True"),
        (lambda: given(SOLD).at_version(4), "version=4"),
        (lambda: given(SOLD, SOLD).at_version(1), "about one event"),
        (lambda: given_stored(CupSold, version=1, cents=2**64), "cents is 18446744073709551616"),
        (lambda: given_stored(CupSold, version=1, cents=1).then(SOLD, price=1), "an event, or fields"),
        (lambda: given(SOLD).at_version(2).then(SOLD), "has no class: then takes its fields"),
    ],
)  # fmt: skip
def test_mistakes_about_versions_are_no_outcomes(mistake: Any, said: str) -> None:
    with pytest.raises(InvalidValue, match=re.escape(said)):
        mistake()


def test_what_a_scenario_says_of_an_old_version_is_what_a_log_says() -> None:
    @el.event(name="scenario.CupLost", version=1)
    class CupLost:
        """A cup was lost."""

        where: Maker
        cents: int
        seen: tuple[dt.date, ...] = ()

    with el.scratch() as lab:
        lab.append("cup-1", [CupLost(Maker("Ann"), 250, (dt.date(2026, 1, 2),))])

        @el.event(name="scenario.CupLost", version=2)
        class CupLost:  # type: ignore[no-redef]
            """A cup was lost."""

            price: el.Money
            seen: tuple[dt.date, ...]
            who: str

        el.upcast(CupLost, from_version=1)(lambda o: {"price": Decimal(o.cents) / 100, "seen": o.seen, "who": o.where["name"]})
        (stored,) = (schema for schema in lab.store.cut().schemas.values() if schema.name == "scenario.CupLost")
        done = given_stored(CupLost, version=1, where=Maker("Ann"), cents=250, seen=[dt.date(2026, 1, 2)])
        assert next(iter(lab.read())).data == done.found
        assert done.schema.columns[-2:] == stored.columns[-2:]


def test_a_class_that_was_defined_again_is_refused() -> None:
    def shelf() -> type[Any]:
        @el.event(name="scenario.CupShelved", version=2)
        class CupShelved:
            """A cup was put on a shelf."""

        return CupShelved

    old, _ = shelf(), shelf()
    with pytest.raises(StaleType, match="defined again"):
        given_stored(old, version=1)


def test_a_scenario_is_drawn_as_soon_as_one_is_told() -> None:
    code = """
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
from eventlab.testing import given, given_stored
from eventlab.domains.ordering import Order, OrderPaid, ProductAdded, SubmitOrder
old = given_stored(ProductAdded, version=1, sku="<hat>", quantity=2)
for shown in (given(Order), given(Order).when(SubmitOrder("c9")), old, given(OrderPaid(1)).at_version(1)):
    print([word for word in ("given", "rejected", "&lt;hat&gt;", "cannot be read", "version 1")
           if word in shell.display_formatter.format(shown)[0]["text/html"]])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == [
        "['given']", "['given', 'rejected']", "['&lt;hat&gt;', 'cannot be read', 'version 1']", "['version 1']",
    ], done.stderr  # fmt: skip
