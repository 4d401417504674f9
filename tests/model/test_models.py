"""Aggregates and projections: what they are, which events they handle, what their key may be, and what is refused."""

from __future__ import annotations

import dataclasses
import datetime as dt
import re
import sys
import textwrap
from collections.abc import Callable
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, NamedTuple, Self, Union

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

import eventlab as el
from eventlab.errors import EvolveFailed, InvalidName, InvalidValue, ModelError, StaleType
from eventlab.model.models import model_description, model_of

Notebooks = Callable[..., Any]


@el.event
class LoanOpened:
    """The bank lent money."""

    amount: el.Money
    branch: str


@el.event
class LoanRepaid:
    """The borrower gave some of it back."""

    amount: el.Money


@el.event
class LoanAudited:
    """Someone looked at it; no model here cares."""

    by: str


LoanEvent = LoanOpened | LoanRepaid


@el.aggregate
class BankLoan:
    """What is owed."""

    owed: el.Money = el.money(0)
    parts: int = 0

    def evolve(self, event: LoanEvent) -> Self:
        match event:
            case LoanOpened(amount=amount):
                return replace(self, owed=self.owed + amount)
            case LoanRepaid(amount=amount):
                return replace(self, owed=self.owed - amount, parts=self.parts + 1)
        return self


def handled(model: type[Any]) -> set[str] | None:
    """The names of the events that a model handles; None for every event."""
    kinds = model_of(model).handled
    return None if kinds is None else {kind.name for kind in kinds}


BOTH = {"LoanOpened", "LoanRepaid"}


# -- what the decorators make ------------------------------------------------------------------------------------------


def test_a_state_is_a_frozen_dataclass_and_begins_with_its_defaults():
    assert BankLoan() == BankLoan(el.money(0), 0)
    with pytest.raises(dataclasses.FrozenInstanceError):
        BankLoan().parts = 1  # type: ignore[misc]
    with el.scratch() as lab:
        assert lab.load(BankLoan, "7") == BankLoan()
        assert lab.loaded(BankLoan, "7").version == 0


def test_a_category_is_the_snake_case_of_the_name_and_may_be_given():
    @el.aggregate(name="loan")
    class Renamed:
        n: int = 0

        def evolve(self, event: LoanEvent) -> Self:
            return replace(self, n=self.n + 1)

    assert model_of(BankLoan).category == "bank_loan"
    assert model_of(Renamed).category == "loan"
    assert (model_description(model_of(BankLoan)), model_description(model_of(Renamed))) == ("What is owed.", "")
    with el.scratch() as lab:
        lab.append({"bank_loan-1": [LoanRepaid(el.money(1))], "loan-1": [LoanRepaid(el.money(1))]})
        assert (lab.load(BankLoan, "1").parts, lab.load(Renamed, "1").n) == (1, 1)


@given(st.lists(st.tuples(st.sampled_from("123"), st.sampled_from("ora"), st.integers(0, 999)), max_size=12))
def test_an_aggregate_is_the_fold_of_its_stream(log: list[tuple[str, str, int]]):
    wanted: dict[str, tuple[Decimal, int, int]] = {}
    with el.scratch() as lab:
        for id, what, cents in log:
            amount = Decimal(cents) / 100
            event = {"o": LoanOpened(amount, "N"), "r": LoanRepaid(amount), "a": LoanAudited("ann")}[what]
            lab.append(f"bank_loan-{id}", [event])
            owed, parts, version = wanted.get(id, (Decimal(0), 0, 0))
            wanted[id] = (owed + {"o": amount, "r": -amount, "a": 0}[what], parts + (what == "r"), version + 1)
        rows = lab.table(BankLoan).select("_id", "owed", "parts", "_version").rows()
        assert rows == [(id, *of) for id, of in sorted(wanted.items())]
        for id, (owed, parts, version) in wanted.items():
            found = lab.loaded(BankLoan, id)
            assert (found.state, found.version) == (BankLoan(owed, parts), version)


# -- what is refused at definition -------------------------------------------------------------------------------------


def without_evolve() -> type[Any]:
    class Wrong:
        n: int = 0

    return Wrong


def without_default() -> type[Any]:
    class Wrong:
        n: int

        def evolve(self, event: LoanEvent) -> Self:
            return self

    return Wrong


def with_key() -> type[Any]:
    class Wrong:
        n: int = 0

        @staticmethod
        def key(event: LoanEvent) -> str:
            return "all"

        def evolve(self, event: LoanEvent) -> Self:
            return self

    return Wrong


def with_post_init() -> type[Any]:
    class Wrong:
        n: int = 0

        def __post_init__(self) -> None:
            object.__setattr__(self, "n", 1)

        def evolve(self, event: LoanEvent) -> Self:
            return self

    return Wrong


def with_equality() -> type[Any]:
    class Wrong:
        n: int = 0

        def __eq__(self, other: object) -> bool:
            return True

        __hash__ = None  # type: ignore[assignment]

        def evolve(self, event: LoanEvent) -> Self:
            return self

    return Wrong


def with_bad_default() -> type[Any]:
    class Wrong:
        n: int = "none"  # type: ignore[assignment]

        def evolve(self, event: LoanEvent) -> Self:
            return self

    return Wrong


def with_three_parameters() -> type[Any]:
    class Wrong:
        n: int = 0

        def evolve(self, event: LoanEvent, meta: el.Meta, more: int) -> Self:
            return self

    return Wrong


def with_no_event() -> type[Any]:
    class Wrong:
        n: int = 0

        def evolve(self) -> Self:
            return self

    return Wrong


def with_keyword_meta() -> type[Any]:
    class Wrong:
        n: int = 0

        def evolve(self, event: LoanEvent, *, meta: el.Meta) -> Self:
            return self

    return Wrong


def with_a_default_that_meta_would_replace() -> type[Any]:
    class Wrong:
        n: int = 0

        def evolve(self, event: LoanEvent, rate: int = 2) -> Self:
            return self

    return Wrong


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (without_evolve, "aggregate Wrong has no evolve"),
        (without_default, r"Wrong: .*missing 1 required positional argument: 'n'[\s\S]*give every field a default"),
        (with_key, "aggregate Wrong has a key"),
        (with_post_init, "Wrong defines __post_init__"),
        (with_equality, "Wrong defines __eq__"),
        (with_bad_default, r"the default of Wrong\.n is 'none' \(str\), but is declared int"),
        (with_three_parameters, r"Wrong\.evolve takes \(event: 'LoanEvent', meta: 'el.Meta', more: 'int'\)"),
        (with_no_event, r"Wrong\.evolve takes \(\)"),
        (with_keyword_meta, r"Wrong\.evolve takes \(event: 'LoanEvent', meta: 'el.Meta'\)"),
        (with_a_default_that_meta_would_replace, r"Wrong\.evolve takes \(event: 'LoanEvent', rate: 'int' = 2\)"),
    ],
)
def test_a_model_that_could_not_be_folded_is_refused_at_definition(make: Callable[[], type[Any]], says: str):
    with pytest.raises((ModelError, InvalidValue), match=says):
        el.aggregate(make())


@pytest.mark.parametrize("name", ["", "größe", "7", "_"])
def test_a_category_is_refused_where_it_could_not_begin_a_stream(name: str):
    with pytest.raises(InvalidName):

        @el.aggregate(name=name)
        class Wrong:
            n: int = 0

            def evolve(self, event: LoanEvent) -> Self:
                return self


def test_a_projection_asks_for_a_static_key():
    for key in (None, lambda event: "x", classmethod(lambda cls, event: "x")):
        made = type("Wrong", (), {"evolve": lambda self, event: self, **({"key": key} if key else {})})
        with pytest.raises(ModelError, match="projection Wrong has no key"):
            el.projection(made)


def test_a_model_is_asked_for_by_its_class_and_by_nothing_else():
    class Plain:
        n: int = 0

    class Heir(BankLoan):
        """Not decorated itself."""

    with el.scratch() as lab:
        for wrong, said in ((Plain, "Plain"), (Heir, "Heir"), ("bank_loan", "'bank_loan'")):
            with pytest.raises(ModelError, match=f"{said} is not a model"):
                lab.table(wrong)  # type: ignore[arg-type]


# -- which events it handles -------------------------------------------------------------------------------------------


def test_a_model_handles_the_union_its_evolve_is_annotated_with():
    @el.aggregate
    class OfOne:
        def evolve(self, event: LoanOpened) -> Self:
            return self

    @el.aggregate
    class OfUnion:
        def evolve(self, event: Union[LoanOpened, LoanRepaid]) -> Self:  # noqa: UP007 - both spellings
            return self

    @el.aggregate
    class OfOtherSelf:
        def evolve(this, event: LoanEvent) -> Self:  # whatever the state is called
            return this

    @el.aggregate
    class OfAny:
        def evolve(self, event: Any) -> Self:
            return self

    @el.aggregate
    class OfNothing:
        def evolve(self, event):  # type: ignore[no-untyped-def]
            return self

    assert [handled(m) for m in (OfOne, OfUnion, OfOtherSelf, OfAny, OfNothing)] == [{"LoanOpened"}, BOTH, BOTH, None, None]


def test_a_union_is_found_in_the_closure_it_was_defined_in():
    def define(First: type[Any]) -> type[Any]:
        @el.event
        class LoanForgiven:
            """The bank gave up."""

        Alias = First | LoanForgiven

        def deeper() -> type[Any]:
            @el.aggregate
            class Inner:
                n: int = 0

                def evolve(self, event: Alias) -> Self:
                    return replace(self, n=self.n + isinstance(event, Alias))

            return Inner

        return deeper()

    assert handled(define(LoanOpened)) == {"LoanOpened", "LoanForgiven"}


def test_a_union_is_found_through_a_base_class():
    def base() -> type[Any]:
        Local = LoanEvent

        @el.aggregate
        class Ledger:
            n: int = 0

            def evolve(self, event: Local) -> Self:
                return replace(self, n=self.n + 1)

        return Ledger

    class Plain:
        def evolve(self, event: LoanEvent) -> Self:
            return replace(self, n=getattr(self, "n", 0) + 1)  # type: ignore[type-var]

    @el.aggregate
    class Heir(base()):  # type: ignore[misc]
        more: int = 0

    @el.aggregate
    class Adopted(Plain):
        n: int = 0

    @el.aggregate(name="heir")
    class Overriding(base()):  # type: ignore[misc]
        def evolve(self, event: LoanRepaid) -> Self:
            return super().evolve(event)  # type: ignore[no-any-return]

    assert [handled(m) for m in (Heir, Adopted, Overriding)] == [BOTH, BOTH, {"LoanRepaid"}]
    with el.scratch() as lab:
        lab.append({"heir-1": [LoanRepaid(el.money(1))] * 2, "adopted-1": [LoanRepaid(el.money(1))]})
        assert (lab.load(Heir, "1"), lab.load(Adopted, "1")) == (Heir(2, 0), Adopted(1))
        assert lab.load(Overriding, "1") == Overriding(2)


UNIONS = {
    "as they are": "LoanOpened | LoanRepaid",
    "as text": "'LoanOpened | LoanRepaid'",
    "as text of an alias": "'Both'",
    "a union of texts": "Union['LoanOpened', 'LoanRepaid']",
    "a part as text": "Union['LoanOpened', LoanRepaid]",
    "unions in unions": "Union[Union[LoanOpened, LoanRepaid], Both]",
    "annotated": "Annotated[Both, 'note']",
    "through a module": "bank.LoanOpened | bank.LoanRepaid",
    "through a module as text": "'bank.LoanOpened | bank.LoanRepaid'",
}


SPELLED = """
from typing import Annotated, Self, Union
import types
import eventlab as el

@el.event
class LoanOpened:
    pass

@el.event
class LoanRepaid:
    pass

Both = LoanOpened | LoanRepaid
bank = types.SimpleNamespace(LoanOpened=LoanOpened, LoanRepaid=LoanRepaid)

@el.aggregate
class Spelled:
    n: int = 0

    def evolve(self, event: UNION) -> Self:
        return self
"""


@pytest.mark.parametrize("union", UNIONS.values(), ids=UNIONS)
@pytest.mark.parametrize("lazily", [False, True], ids=["annotations", "future annotations"])
@pytest.mark.parametrize("local", [False, True], ids=["in a module", "in a function"])
def test_a_union_may_be_spelled_in_every_way_that_python_has(notebook: Notebooks, union: str, lazily: bool, local: bool):
    text = SPELLED.replace("UNION", union)
    if local:
        text = f"def define():\n{textwrap.indent(text, '    ')}\n    return Spelled\n\nSpelled = define()\n"
    future = "from __future__ import annotations\n" if lazily else ""
    assert handled(notebook().run(future + text).Spelled) == BOTH


@pytest.mark.skipif(sys.version_info < (3, 12), reason="type aliases are from Python 3.12")
def test_a_type_alias_is_the_union_it_stands_for(notebook: Notebooks):
    text = SPELLED.replace("Both =", "type Both =").replace("UNION", "Both")
    assert handled(notebook().run(text).Spelled) == BOTH


def test_a_union_of_what_is_no_event_is_refused_by_name(notebook: Notebooks):
    for union, says in {
        "LoanOpened | int": "int is not an event",
        "LoanOpened | Missing": r"Spelled\.evolve: name 'Missing' is not defined",
        "'LoanOpened |'": r"Spelled\.evolve: Forward reference must be an expression",
        "list[LoanOpened]": r"Spelled\.evolve is annotated with list\[.*LoanOpened\], which is no class",
    }.items():
        cells = notebook().run("from __future__ import annotations\n" + SPELLED.replace("UNION", union))
        with el.scratch() as lab, pytest.raises(ModelError, match=says):
            lab.load(cells.Spelled, "1")


# -- keys --------------------------------------------------------------------------------------------------------------


class BranchDay(NamedTuple):
    branch: str
    day: dt.date
    limit: Decimal | None


@el.projection
class OpenedByDay:
    loans: int = 0
    amount: el.Money = el.money(0)

    @staticmethod
    def key(event: LoanOpened, meta: el.Meta) -> BranchDay | None:
        if event.branch == "closed":
            return None
        return BranchDay(event.branch, meta.occurred_at.date(), None if event.amount < 100 else Decimal(100))

    def evolve(self, event: LoanOpened) -> Self:
        return replace(self, loans=self.loans + 1, amount=self.amount + event.amount)


@el.projection
class LoansByBranch:
    loans: int = 0

    @staticmethod
    def key(event: LoanEvent) -> str | None:
        return event.branch if isinstance(event, LoanOpened) and event.branch != "closed" else None

    def evolve(self, event: LoanEvent, meta: el.Meta) -> Self:
        return replace(self, loans=meta.position)


@given(st.lists(st.tuples(st.sampled_from(["N", "S", "closed"]), st.integers(0, 2), st.sampled_from([50, 150])), max_size=10))
def test_a_projection_is_the_fold_by_its_key_and_none_passes_over(log: list[tuple[str, int, int]]):
    by_day: dict[BranchDay, list[int]] = {}
    by_branch: dict[str, int] = {}
    with el.scratch() as lab:
        for i, (branch, day, amount) in enumerate(log):
            when = dt.datetime(2026, 2, 1 + day, 12, tzinfo=dt.UTC)
            lab.append(f"loan-{i % 2}", [LoanOpened(Decimal(amount), branch), LoanRepaid(Decimal(1))], occurred_at=when)
            if branch != "closed":
                by_day.setdefault(BranchDay(branch, when.date(), None if amount < 100 else Decimal(100)), []).append(amount)
                by_branch[branch] = 2 * i + 1
        table = lab.table(OpenedByDay)
        rows = {BranchDay(*row[:3]): row[3:5] for row in table.rows()}
        assert rows == {key: (len(amounts), sum(amounts)) for key, amounts in by_day.items()}
        assert table.columns == ["branch", "day", "limit", "loans", "amount", "_version", "_position"]
        assert dict(table.schema) | {"branch": pl.String, "day": pl.Date, "limit": pl.Decimal(38, 9)} == dict(table.schema)
        assert lab.table(LoansByBranch).select("_id", "loans").rows() == sorted(by_branch.items())


def test_a_key_that_is_not_what_it_was_annotated_to_be_is_refused_with_its_event():
    @el.projection
    class Confused:
        n: int = 0

        @staticmethod
        def key(event: LoanOpened) -> str:
            return 7 if event.branch == "S" else event.branch  # type: ignore[return-value]

        def evolve(self, event: LoanOpened) -> Self:
            return self

    with el.scratch() as lab:
        lab.append("loan-1", [LoanOpened(el.money(1), "N"), LoanOpened(el.money(1), "S")])
        with pytest.raises(EvolveFailed, match=r"Confused\.key failed on LoanOpened at position 2 .*gave 7, not a str"):
            lab.table(Confused)


@pytest.mark.parametrize(
    ("annotation", "says"),
    [
        ("int", r"Wrong\.key is annotated to give <class 'int'>"),
        ("tuple[str, int]", r"Wrong\.key is annotated to give tuple\[str, int\]"),
        ("None", r"Wrong\.key is annotated to give"),
        ("Underscored", r"Wrong\.key: the column _id begins with an underscore"),
        ("Unstorable", r"Wrong\.key\.where is declared complex"),
        ("Doubled", "has n both as a field and as a column of its key"),
        ("Twins", "'N' and 'n'"),
        ("Missing", r"Wrong\.key: name 'Missing' is not defined"),
    ],
)
def test_a_key_is_text_or_a_named_tuple_of_columns(notebook: Notebooks, annotation: str, says: str):
    text = f"""
        from __future__ import annotations
        import collections
        from typing import NamedTuple, Self
        import eventlab as el

        Underscored = collections.namedtuple("Underscored", ["id"])
        Underscored._fields = ("_id",)

        class Unstorable(NamedTuple):
            where: complex

        class Doubled(NamedTuple):
            n: int

        class Twins(NamedTuple):
            N: int

        @el.projection
        class Wrong:
            n: int = 0

            @staticmethod
            def key(event: object) -> {annotation}:
                return "all"

            def evolve(self, event: object) -> Self:
                return self
    """
    with pytest.raises((ModelError, InvalidName), match=says):
        notebook().run(text)


def test_a_key_without_an_annotation_gives_text():
    @el.projection
    class Unannotated:
        n: int = 0

        @staticmethod
        def key(event):  # type: ignore[no-untyped-def]
            return event.branch

        def evolve(self, event: LoanOpened) -> Self:
            return replace(self, n=self.n + 1)

    with el.scratch() as lab:
        lab.append("loan-1", [LoanOpened(el.money(1), "N")])
        assert lab.table(Unannotated).select("_id", "n").rows() == [("N", 1)]


# -- a cell is run again -----------------------------------------------------------------------------------------------

EVENTS_CELL = """
    from dataclasses import replace
    from typing import Iterator
    import eventlab as el

    @el.event
    class LampLit:
        "Someone lit a lamp."
        n: int = 1

    @el.command
    class LightLamp:
        n: int
"""
MODEL_CELL = """
    @el.aggregate
    class Lamp:
        lit: int = 0

        def decide(self, command: LightLamp) -> Iterator[LampLit]:
            match command:
                case LightLamp(n=n):
                    yield LampLit(n)

        def evolve(self, event: LampLit) -> "Lamp":
            match event:
                case LampLit(n=n):
                    return replace(self, lit=self.lit + n)
"""


def test_a_model_whose_events_are_defined_again_goes_on_with_the_new_ones(notebook: Notebooks):
    cells = notebook().run(EVENTS_CELL).run(MODEL_CELL)
    with el.scratch() as lab:
        lab.handle(cells.Lamp, "1", cells.LightLamp(1))
        cells.run(EVENTS_CELL)
        assert lab.load(cells.Lamp, "1").lit == 1, "what was stored is read as the class of today"
        lab.handle(cells.Lamp, "1", cells.LightLamp(2))
        lab.append("lamp-1", [cells.LampLit(4)])
        assert lab.load(cells.Lamp, "1").lit == 7
        assert model_of(cells.Lamp).handled == (vars(cells.LampLit)["__eventlab_type__"],)


def test_a_model_that_was_defined_again_is_refused_and_its_successor_is_not(notebook: Notebooks):
    cells = notebook().run(EVENTS_CELL).run(MODEL_CELL)
    old = cells.Lamp
    with el.scratch() as lab:
        lab.append("lamp-1", [cells.LampLit(4)])
        cells.run(MODEL_CELL.replace("self.lit + n", "self.lit + 10 * n"))
        for use in (lambda: lab.load(old, "1"), lambda: lab.table(old), lambda: lab.handle(old, "1", cells.LightLamp(1))):
            with pytest.raises(StaleType, match="this Lamp was defined again"):
                use()
        assert lab.load(cells.Lamp, "1").lit == 40
        assert lab.sql("select lit from state.lamp").rows() == [(40,)]


HOLDS = """
    import functools
    import eventlab as el

    def define(LampLit):
        SEVERAL, EITHER, TABLE = (LampLit, str), LampLit | str, {LampLit: 1}

        def is_lit(event):
            match event:
                case LampLit(n=n):
                    return True

        @functools.cache
        def is_lit_too(event):
            return is_lit(event)

        partly = functools.partial(is_lit)

        @el.aggregate
        class Lamp:
            lit: int = 0

            def evolve(self, event: object) -> "Lamp":
                return Lamp(self.lit + 1) if CONDITION else self

        return Lamp
"""


@pytest.mark.parametrize(
    "condition",
    [
        "isinstance(event, LampLit)", "isinstance(event, SEVERAL)", "isinstance(event, EITHER)", "type(event) in TABLE",
        "is_lit(event)", "is_lit_too(event)", "partly(event)", "any(isinstance(event, one) for one in [LampLit])",
    ],
)  # fmt: skip
def test_a_model_that_holds_on_to_an_old_class_in_a_closure_is_refused(notebook: Notebooks, condition: str):
    cells = notebook().run(EVENTS_CELL).run(HOLDS.replace("CONDITION", condition))
    model = cells.define(cells.LampLit)
    with el.scratch() as lab:
        lab.append("lamp-1", [cells.LampLit(1)])
        assert lab.load(model, "1").lit == 1
        cells.run(EVENTS_CELL)
        # Its condition would never hold again, and the state would silently stay as it is.
        with pytest.raises(StaleType, match=r"Lamp was defined with an old LampLit .* defined again since"):
            lab.load(model, "1")
        assert lab.load(cells.define(cells.LampLit), "1").lit == 1


def test_a_key_that_holds_on_to_an_old_class_is_refused(notebook: Notebooks):
    cells = notebook().run(EVENTS_CELL)

    def define(kind: type[Any]) -> type[Any]:
        @el.projection
        class LampsLit:
            n: int = 0

            @staticmethod
            def key(event: object) -> str | None:
                return "all" if isinstance(event, kind) else None

            def evolve(self, event: object) -> Self:
                return replace(self, n=self.n + 1)

        return LampsLit

    model = define(cells.LampLit)
    with el.scratch() as lab:
        lab.append("lamp-1", [cells.LampLit(1)])
        assert lab.table(model)["n"].to_list() == [1]
        cells.run(EVENTS_CELL)
        with pytest.raises(StaleType, match="LampsLit was defined with an old LampLit"):
            lab.table(model)


# -- values within the state -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Address:
    city: str
    zip: str | None


@el.event
class AddressGiven:
    """The borrower lives somewhere else now."""

    to: Address | None
    seen: dt.datetime


@el.aggregate
class Borrower:
    address: Address | None = None
    before: tuple[Address, ...] = ()
    cities: frozenset[str] = frozenset()
    days: dict[str, dt.date] = el.field(default_factory=dict)

    def evolve(self, event: AddressGiven) -> Self:
        match event:
            case AddressGiven(to=Address(city=city) as to, seen=seen):
                before = self.before if self.address is None else (*self.before, self.address)
                days = self.days | {city: seen.date()}
                return replace(self, address=to, before=before, cities=self.cities | {city}, days=days)
            case AddressGiven(to=None):
                return replace(self, address=None)
        return self


def test_a_state_may_hold_records_lists_sets_and_dicts():
    oslo, rome = Address("Oslo", "0150"), Address("Rome", None)
    first, second = dt.datetime(2026, 1, 1, tzinfo=dt.UTC), dt.datetime(2026, 2, 1, tzinfo=dt.UTC)
    with el.scratch() as lab:
        lab.append("borrower-1", [AddressGiven(oslo, first), AddressGiven(rome, second)])
        assert lab.load(Borrower, "1") == Borrower(
            rome, (oslo,), frozenset({"Oslo", "Rome"}), {"Oslo": first.date(), "Rome": second.date()}
        )
        lab.append("borrower-1", [AddressGiven(None, second)])
        assert lab.load(Borrower, "1").address is None
        assert lab.table(Borrower).select("cities").rows() == [(["Oslo", "Rome"],)]


def test_the_state_before_the_first_event_is_the_same_for_all():
    with el.scratch() as lab:
        lab.append("borrower-1", [AddressGiven(Address("Oslo", None), dt.datetime(2026, 1, 1, tzinfo=dt.UTC))])
        assert lab.load(Borrower, "1").days != {}
        assert lab.load(Borrower, "2") == Borrower() == model_of(Borrower).initial


def test_a_message_about_a_model_ends_with_the_way_out():
    for wrong in (without_evolve, without_default, with_key, with_post_init):
        with pytest.raises(ModelError) as refused:
            el.aggregate(wrong())
        assert refused.value.hint
        assert re.search(r"\nHint: ", str(refused.value))
