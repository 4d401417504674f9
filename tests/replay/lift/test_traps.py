"""What lifting must not get wrong: each trap is refused with its line and reason, or right."""

# ruff: noqa: RET503 - one of the traps is a branch that gives nothing back

from __future__ import annotations

import datetime as dt
import enum
import functools
import importlib.util
import itertools
import linecache
import os
import random
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from types import ModuleType
from typing import Any, Self

import pytest
from replay.lift.hostile import agree, answer, written

import eventlab as el
from eventlab.errors import EvolveFailed, ModelError, NotLiftable
from eventlab.model.models import model_of
from eventlab.replay.lift import fold_table, plan_of

LIMIT = 10
FEES = {"a": 1, "b": 2}


@el.event
class Happened:
    """Something happened."""

    n: int
    note: str | None = None
    price: el.Money = el.money(0)


@el.event
class Repeated(Happened):
    """It happened again: an event of a derived class."""


@el.event
class Unlisted:
    """No model here lists it."""

    n: int


def refusal(model: type[Any]) -> str:
    """Why a model is not understood, with the text of the line."""
    found = plan_of(model_of(model)).refusal
    assert found is not None, plan_of(model_of(model)).loop
    return f"{found.why} | {linecache.getline(found.file, found.line).strip()}"


def same(model: type[Any], facts: list[Any], engines: tuple[str, ...] = ("loop", "auto", "lifted?")) -> Any:
    """All engines agree on these events of one stream; the row fold's answer."""
    of = model_of(model)
    category = of.category or "thing"
    with written([(f"{category}-1", fact) for fact in facts] + [(f"{category}-2", Unlisted(1))], "memory", None) as lab:
        cut = lab.store.cut()
        return agree(of, cut, "default", cut.head, engines)


# -- refused, with the line


def test_a_loop_is_refused_with_its_line() -> None:
    @el.aggregate
    class Looping:
        n: int = 0

        def evolve(self, event: Happened) -> Self:
            n = self.n
            for _ in range(event.n):
                n += 1
            return replace(self, n=n)

    assert refusal(Looping) == "a for loop is not lifted | for _ in range(event.n):"
    same(Looping, [Happened(3)])


@pytest.mark.parametrize("what", ["try", "with", "global", "walrus", "mutation", "lambda"])
def test_statements_with_effects_are_refused(what: str, tmp_path: Path) -> None:
    body = {
        "try": "try:\n            return replace(self, n=event.n)\n        except ValueError:\n            return self",
        "with": "with open('x'):\n            return self",
        "global": "global LIMIT\n        return self",
        "walrus": "return replace(self, n=(m := event.n))",
        "mutation": "self.log.append(event.n)\n        return self",
        "lambda": "return replace(self, n=(lambda: event.n)())",
    }[what]
    module = written_module(tmp_path, f"with_{what}", body)
    assert plan_of(model_of(module.Model)).refusal is not None
    assert "is not lifted" in refusal(module.Model)


def written_module(folder: Path, name: str, body: str) -> ModuleType:
    """A module with a model of this body."""
    path = folder / f"{name}.py"
    path.write_text(model_text(name, body))
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def model_text(name: str, body: str) -> str:
    """The text of a module with a model of this body."""
    return (
        "from __future__ import annotations\nfrom dataclasses import replace\nfrom typing import Self\nimport eventlab as el\n"
        f"from replay.lift.test_traps import Happened\nLIMIT = 5\n"
        f"@el.aggregate(name='{name}')\nclass Model:\n    n: int = 0\n    log: list[int] = el.field(default_factory=list)\n\n"
        f"    def evolve(self, event: Happened) -> Self:\n        {body}\n"
    )


def test_an_impure_call_is_refused() -> None:
    @el.aggregate
    class Impure:
        n: int = 0

        def evolve(self, event: Happened) -> Self:
            return replace(self, n=random.randrange(3))

    assert "a call of randrange is not lifted" in refusal(Impure) or "is not lifted" in refusal(Impure)

    @el.aggregate
    class Clocked:
        at: dt.datetime | None = None

        def evolve(self, event: Happened) -> Self:
            return replace(self, at=dt.datetime.now(dt.UTC))

    assert "a call of now is not lifted" in refusal(Clocked)


def test_recursion_is_refused() -> None:
    assert "calls itself, or too deeply" in refusal(Recursive)


def down(n: int) -> int:
    """Calls itself."""
    return n if n <= 0 else down(n - 1)


@el.aggregate
class Recursive:
    n: int = 0

    def evolve(self, event: Happened) -> Self:
        return replace(self, n=down(event.n))


def doubled(function: Callable[..., Any]) -> Callable[..., Any]:
    """A decorator that acts."""

    @functools.wraps(function)
    def wrapper(self: Any, event: Happened) -> Any:
        return function(function(self, event), event)

    return wrapper


def test_a_decorated_evolve_is_never_lifted_as_the_function_inside() -> None:
    @el.aggregate
    class Decorated:
        n: int = 0

        @doubled
        def evolve(self, event: Happened) -> Self:
            return replace(self, n=self.n + event.n)

    assert "is wrapped by a decorator" in refusal(Decorated)
    assert same(Decorated, [Happened(2)]).column("n").to_pylist() == [4, 0]


@dataclass(frozen=True)
class Loud:
    """A value object whose making does something."""

    text: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "text", self.text.upper())


def test_a_value_object_that_makes_itself_is_refused() -> None:
    @el.aggregate
    class Loudly:
        said: Loud | None = None

        def evolve(self, event: Happened) -> Self:
            return replace(self, said=Loud(event.note or "nothing"))

    assert "Loud defines __post_init__" in refusal(Loudly)
    same(Loudly, [Happened(1, "a")])


def test_an_event_that_checks_itself_is_refused() -> None:
    @el.event
    class Checked:
        """It refuses what it does not like."""

        n: int

        def __post_init__(self) -> None:
            if self.n > 100:
                raise ValueError("too much")

    @el.aggregate
    class OfChecked:
        n: int = 0

        def evolve(self, event: Checked) -> Self:
            return replace(self, n=event.n)

    assert "Checked defines __post_init__" in refusal(OfChecked)


def test_code_without_text_is_refused_and_folded_row_by_row() -> None:
    space: dict[str, Any] = {"el": el, "Happened": Happened, "replace": replace}
    exec(
        "@el.aggregate\nclass Typed:\n    n: int = 0\n    def evolve(self, event: Happened):\n"
        "        return replace(self, n=self.n + event.n)\n",
        space,
    )
    assert "there is no source text" in refusal(space["Typed"])
    assert same(space["Typed"], [Happened(2), Happened(3)]).column("n").to_pylist() == [5, 0]


def test_a_file_edited_after_the_import_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "edited_after.py"
    text = model_text("edited_after", "return replace(self, n=self.n + event.n)")
    old = compile(text, str(path), "exec")  # what an import before the edit has in memory
    path.write_text(text.replace("self.n + event.n", "self.n - event.n"))
    linecache.clearcache()
    again = ModuleType("edited_after")
    sys.modules["edited_after"] = again
    exec(old, vars(again))
    assert "is not what runs" in refusal(again.Model)
    assert same(again.Model, [Happened(2)]).column("n").to_pylist() == [2, 0]


# -- right


def test_an_event_of_a_derived_class_takes_the_branch_of_its_base() -> None:
    @el.aggregate
    class OfBase:
        n: int = 0
        repeated: int = 0

        def evolve(self, event: Happened | Repeated) -> Self:
            match event:
                case Repeated(n=n) if n > 5:
                    return replace(self, repeated=self.repeated + n)
                case Happened(n=n):
                    return replace(self, n=self.n + n)
            return self

    found = same(OfBase, [Happened(1), Repeated(2), Repeated(20), Unlisted(5)], ("loop", "lifted"))
    assert found.select(["n", "repeated", "_version"]).to_pylist()[0] == {"n": 3, "repeated": 20, "_version": 4}


def test_a_stream_whose_events_change_nothing_has_its_defaults() -> None:
    @el.aggregate
    class Idle:
        n: int = 7

        def evolve(self, event: Happened) -> Self:
            return self

    assert same(Idle, [Unlisted(1)], ("loop", "lifted")).column("n").to_pylist() == [7, 7]


def test_an_exception_of_evolve_is_the_modellers_own_from_every_engine() -> None:
    @el.aggregate
    class Strict:
        n: int = 0

        def evolve(self, event: Happened) -> Self:
            if event.n > LIMIT:
                raise ValueError(f"{event.n} is too much")
            return replace(self, n=self.n + 100 // event.n)

    of = model_of(Strict)
    for facts, said in ((([Happened(1), Happened(99), Happened(0)]), "99 is too much"), ([Happened(0)], "ZeroDivisionError")):
        with written([("strict-1", f) for f in facts], "memory", None) as lab:
            cut = lab.store.cut()
            for engine in ("rows", "loop", "lifted", "auto"):
                with pytest.raises(EvolveFailed, match=said) as caught:
                    fold_table(of, cut, "default", cut.head, engine=engine)
                assert caught.value.position == (2 if said.startswith("99") else 1)


def test_only_the_key_whose_guard_holds_leaves_the_query() -> None:
    @el.aggregate
    class Divided:
        n: int = 0
        tried: bool = False

        def evolve(self, event: Happened) -> Self:
            if event.n == 0:
                return replace(self, tried=True)
            return replace(self, n=self.n + 100 // (event.n * event.n - 9))

    facts = [("divided-1", Happened(1)), ("divided-2", Happened(0)), ("divided-1", Happened(2))]
    with written(facts, "memory", None) as lab:
        cut = lab.store.cut()
        agree(model_of(Divided), cut, "default", cut.head, ("loop", "lifted"))


def test_a_branch_that_gives_nothing_back_is_an_error_of_the_model() -> None:
    @el.aggregate
    class Forgetful:
        n: int = 0

        def evolve(self, event: Happened) -> Self:  # type: ignore[return]
            if event.n > 0:
                return replace(self, n=event.n)

    found = same(Forgetful, [Happened(1), Happened(-1)])
    assert found[0] == "EvolveFailed"
    assert "it gave None" in found[1]
    same(Forgetful, [Happened(1)], ("loop", "lifted"))


def test_arithmetic_with_none_raises_as_in_python() -> None:
    @el.aggregate
    class Lengths:
        total: int = 0
        shown: str = ""

        def evolve(self, event: Happened) -> Self:
            return replace(self, total=self.total + len(event.note), shown=f"{event.note}!")  # type: ignore[arg-type]

    same(Lengths, [Happened(1, "abc"), Happened(1, "")], ("loop", "lifted"))
    found = same(Lengths, [Happened(1, "abc"), Happened(1, None)])
    assert "TypeError" in found[1]


def test_what_is_computed_and_not_used_raises_all_the_same() -> None:
    @el.aggregate
    class Wasteful:
        n: int = 0

        def evolve(self, event: Happened) -> Self:
            ratio = 10 // event.n
            if event.note == "use":
                return replace(self, n=ratio)
            return replace(self, n=1)

    assert "ZeroDivisionError" in same(Wasteful, [Happened(0, "do not")])[1]
    same(Wasteful, [Happened(3, "use")], ("loop", "lifted"))


def test_a_rebound_constant_is_seen_at_the_next_fold(monkeypatch: pytest.MonkeyPatch) -> None:
    @el.aggregate
    class Rebound:
        over: int = 0
        fees: int = 0

        def evolve(self, event: Happened) -> Self:
            return replace(self, over=self.over + (event.n > LIMIT), fees=self.fees + FEES.get(event.note, 0))  # type: ignore[arg-type]

    facts = [Happened(7, "a"), Happened(11, "b")]
    assert same(Rebound, facts, ("loop", "lifted")).column("over").to_pylist() == [1, 0]
    monkeypatch.setattr(sys.modules[__name__], "LIMIT", 5)
    monkeypatch.setitem(FEES, "a", 100)
    found = same(Rebound, facts, ("loop", "lifted"))
    assert found.select(["over", "fees"]).to_pylist()[0] == {"over": 2, "fees": 102}


def test_decimals_beyond_28_digits_are_rounded_as_python_does() -> None:
    @el.event
    class Weighed:
        """A very precise amount."""

        amount: el.ExactDecimal
        wide: Decimal

    @el.aggregate
    class Wide:
        product: Decimal = Decimal(0)
        last: el.ExactDecimal = Decimal(0)

        def evolve(self, event: Weighed) -> Self:
            return replace(self, product=event.wide * 3, last=event.amount)

    of = model_of(Wide)
    for wide in ("1.5", "33333333333333333333.123456789", "9999999999999999999999999999.1"):
        with written([("wide-1", Weighed(Decimal("1.10"), Decimal(wide)))], "memory", None) as lab:
            agree(of, lab.store.cut(), "default", 1)


def test_a_state_that_does_not_fit_its_type_is_the_same_error() -> None:
    @el.aggregate
    class Big:
        n: int = 1

        def evolve(self, event: Happened) -> Self:
            return replace(self, n=self.n + event.n)

    found = same(Big, [Happened(2**62), Happened(2**62), Happened(2**62)])
    assert "beyond 64 bits" in found[1]
    same(Big, [Happened(2**62), Happened(2**62), Happened(-(2**62)), Happened(-(2**62))], ("loop", "lifted"))


class Mood(enum.Enum):
    GOOD = "good"
    BAD = "bad"


def test_a_member_that_is_gone_is_the_same_error() -> None:
    @el.event(name="Felt")
    class Felt:
        """How it was."""

        mood: Mood

    with written([("felt_log-1", Felt(Mood.GOOD)), ("felt_log-1", Felt(Mood.BAD))], "memory", None) as lab:
        smaller = enum.Enum("Mood", {"GOOD": "good"})

        @el.event(name="Felt")
        class FeltNow:
            """How it was, with fewer words."""

            mood: smaller  # type: ignore[valid-type]

        @el.aggregate(name="felt_log")
        class FeltLog:
            n: int = 0

            def evolve(self, event: FeltNow) -> Self:
                return replace(self, n=self.n + 1)

        cut, of = lab.store.cut(), model_of(FeltLog)
        with pytest.raises(ModelError) as meant:
            fold_table(of, cut, "default", cut.head, engine="rows")
        for engine in ("loop", "auto", "lifted"):
            with pytest.raises(ModelError, match=r"is not in|not in") as caught:
                fold_table(of, cut, "default", cut.head, engine=engine)
            assert caught.value.message == meant.value.message


def test_older_versions_take_the_defaults_of_today() -> None:
    @el.event(name="Grown", version=1)
    class Grown:
        """How it was first."""

        n: int

    with written([("grown_log-1", Grown(3)), ("grown_log-2", Grown(4))], "memory", None) as lab:

        @el.event(name="Grown", version=2)
        class Grown:
            """With a factor, and a place."""

            n: int
            factor: int = 2
            place: str | None = "here"

        @el.aggregate(name="grown_log")
        class GrownLog:
            n: int = 0
            place: str | None = None

            def evolve(self, event: Grown) -> Self:
                return replace(self, n=self.n + event.n * event.factor, place=event.place)

        lab.append("grown_log-1", [Grown(5, 10, None)])
        cut = lab.store.cut()
        found = agree(model_of(GrownLog), cut, "default", cut.head, ("loop", "lifted"))
        assert found.select(["n", "place"]).to_pylist() == [{"n": 56, "place": None}, {"n": 8, "place": "here"}]


def test_a_session_in_berlin_and_threads_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    from replay.lift import gallery

    monkeypatch.setenv("TZ", "Europe/Berlin")
    at = dt.datetime(2026, 3, 28, 23, 30, tzinfo=dt.UTC)
    facts = [("ticket-1", gallery.TicketAnswered("ann", at + dt.timedelta(minutes=30 * i), i)) for i in range(6)]
    with written(facts, "memory", None) as lab:
        cut = lab.store.cut()
        for model in (gallery.Ticket, gallery.AgentWork, gallery.TimedTicket):
            agree(model_of(model), cut, "default", cut.head, ("loop", "lifted"))


def test_a_database_that_broke_is_made_anew() -> None:
    from replay.lift import gallery

    from eventlab.replay.lift import lifted

    facts = [("ticket-1", gallery.TicketAnswered("ann", dt.datetime(2026, 3, 28, tzinfo=dt.UTC), i)) for i in range(6)]
    with written(facts, "memory", None) as lab:
        cut = lab.store.cut()
        for _ in range(2):
            agree(model_of(gallery.Ticket), cut, "default", cut.head, ("loop", "lifted"))
            # As DuckDB closes one in which it found itself to be wrong.
            lifted._database(os.getpid(), None).close()


# -- asked for what cannot be


def test_lifted_says_which_field_does_not_lift_and_where() -> None:
    from replay.lift import gallery

    with written([("stock-1", gallery.StockReserved("a", 1))], "memory", None) as lab:
        cut, of = lab.store.cut(), model_of(gallery.Stock)
        with pytest.raises(NotLiftable, match=r"Stock.reserved does not lift: .*gallery.py:\d+: self.reserved decides") as caught:
            fold_table(of, cut, "default", cut.head, engine="lifted")
        assert "if event.count > self.on_hand - self.reserved" in linecache.getline(caught.value.file, caught.value.line)
        assert answer(of, cut, "default", cut.head, "auto").equals(answer(of, cut, "default", cut.head, "rows"))


def test_an_explanation_names_kind_stratum_engine_line_and_remedy() -> None:
    from replay.lift import gallery

    told = plan_of(model_of(gallery.TieredLoyalty)).explain()
    assert [(f.field, f.kind, f.stratum, f.engine) for f in told.fields] == [
        ("points", "SEGSUM", 0, "lifted"), ("tier", "LAST", 1, "lifted"), ("gold_purchases", "SUM", 2, "lifted"),
    ]  # fmt: skip
    assert told.engine == "lifted"
    assert "def fold(rows" in told.loop
    text = str(plan_of(model_of(gallery.Stock)).explain())
    assert "reserved  CYCLE   stratum -  loop reads on_hand" in text
    assert "if event.count > self.on_hand - self.reserved:" in text
    assert "what would lift it:" in text
    told = plan_of(model_of(Recursive)).explain()
    assert told.engine == "rows"
    assert "calls itself" in str(told)
    assert str(told) == str(plan_of(model_of(Recursive)).explain())


def test_a_plan_is_kept_until_the_code_or_what_it_captures_changes() -> None:
    factor = itertools.count(2)
    value = next(factor)

    @el.aggregate
    class Captured:
        n: int = 0

        def evolve(self, event: Happened) -> Self:
            return replace(self, n=self.n + event.n * value)

    first = plan_of(model_of(Captured))
    assert plan_of(model_of(Captured)) is first
    value = 5
    assert plan_of(model_of(Captured)) is not first
    assert same(Captured, [Happened(2)], ("loop", "lifted")).column("n").to_pylist() == [10, 0]
