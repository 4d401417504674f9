"""Two definitions over one log: which states part, and after which event first; against folding both event by event."""

from __future__ import annotations

import datetime as dt
import itertools
import linecache
import sys
import tempfile
import textwrap
import types
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Any, Self

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from replay import oracle
from replay.oracle import Bay, BayDay, BayTraffic, Crate, CrateCleared, CrateFilled, CrateMoved, CratePriced, Log

import eventlab as el
from eventlab.errors import EvolveFailed, InvalidValue, ModelError, NotLiftable, UnknownType, Unsupported
from eventlab.model.models import MODELS, model_of
from eventlab.temporal.compare import Comparison


@el.aggregate(name="crate")
class CountedCrate:
    """As `Crate`, but: a mapping in another order, which is the same; fields that part at times, and meet when it is cleared."""

    amount: int = 0
    total: el.Money = el.money(0)
    label: str | None = ""
    labels: frozenset[str] = frozenset()
    prices: dict[str, el.Money] = el.field(default_factory=dict)
    log: tuple[str, ...] = ()
    bay: Bay | None = None
    origin: Bay = Bay("", 0)
    moved: str = ""
    cleared: int = 0
    idle: dt.timedelta = dt.timedelta(0)

    def evolve(self, event: oracle.CrateEvent) -> Self:
        match event:
            case CrateFilled(amount=amount):
                return replace(self, amount=self.amount + max(amount, 0), log=(*self.log, "filled"))
            case CratePriced(label=label, price=price):
                others = {name: of for name, of in self.prices.items() if name != label}
                seen = self.labels | {label} if label != "hat" else self.labels
                return replace(self, label=label, labels=seen, prices={label: price, **others}, total=max(self.total, price))
            case CrateMoved(to=bay):
                return replace(self, bay=bay, origin=bay or self.origin)
            case CrateCleared():
                return replace(self, amount=0, prices={}, log=(*self.log, "cleared"), cleared=self.cleared + 1)
        return self


@el.projection(name="by_label")
class ByLabel:
    """A row for each label, with a field of each sort that has no plain column."""

    prices: dict[str, el.Money] = el.field(default_factory=lambda: {"": el.money(1)})
    bay: Bay | None = Bay("A", 1)
    kinds: tuple[oracle.Kind, ...] = (oracle.Kind.WOOD,)
    wait: dt.timedelta = dt.timedelta(hours=1)
    exact: el.ExactDecimal = Decimal("1.0")
    number: uuid.UUID = uuid.UUID(int=7)

    @staticmethod
    def key(event: CratePriced | CrateFilled) -> str | None:
        return event.label if isinstance(event, CratePriced) else None

    def evolve(self, event: CratePriced | CrateFilled) -> Self:
        assert isinstance(event, CratePriced)
        more = replace(self, prices={**self.prices, event.label: event.price}, exact=event.price, wait=self.wait * 2)
        return replace(more, bay=None, number=uuid.UUID(int=len(event.label)))


@el.projection(name="by_label")
class OtherByLabel:
    """As `ByLabel`, with rows for other events: long labels have none, and steel is a label too."""

    exact: el.ExactDecimal = Decimal("1.00")
    prices: dict[str, el.Money] = el.field(default_factory=lambda: {"": el.money(1)})
    kinds: tuple[oracle.Kind, ...] = (oracle.Kind.WOOD,)
    bay: Bay | None = Bay("A", 1)
    wait: dt.timedelta = dt.timedelta(hours=1)
    number: uuid.UUID = uuid.UUID(int=7)

    @staticmethod
    def key(event: CratePriced | CrateFilled) -> str | None:
        if isinstance(event, CrateFilled):
            return event.kind.value if event.kind is oracle.Kind.STEEL else None
        return None if not isinstance(event, CratePriced) or len(event.label) > 3 else event.label

    def evolve(self, event: CratePriced | CrateFilled) -> Self:
        if isinstance(event, CrateFilled):
            return self if event.amount < 0 else replace(self, bay=None, kinds=(*self.kinds, event.kind))
        # The same mapping in another order, and the same number with other digits.
        prices = {event.label: event.price} | {name: price for name, price in self.prices.items() if name != event.label}
        exact = Decimal(str(event.price) + "0") if event.price > 0 else event.price - 1
        bay, number = (None, 1) if event.price > 3 else (Bay("B", 1), len(event.label))
        return replace(self, prices=prices, exact=exact, wait=self.wait * 2, bay=bay, number=uuid.UUID(int=number))


@el.projection(name="bay_traffic")
class OtherBayTraffic:
    """As `BayTraffic`, with other counts: the key has two columns, and one of them may be None."""

    moves: int = 0
    last: str = ""

    @staticmethod
    def key(event: CrateMoved, meta: el.Meta) -> BayDay | None:
        return BayTraffic.key(event, meta) if isinstance(event, CrateMoved) else None  # type: ignore[arg-type]

    def evolve(self, event: CrateMoved, meta: el.Meta) -> Self:
        return replace(self, moves=self.moves + (event.to is None or event.to.number < 2), last=meta.stream)


def forget(*models: type[Any]) -> None:
    """As if they were not registered: other tests ask for the one model that is called `crate`."""
    for model in map(model_of, models):
        del MODELS._kinds[model.name][model.reference]
        del MODELS._places[model.reference]


forget(CountedCrate, ByLabel, OtherByLabel, OtherBayTraffic)

PAIRS = [(Crate, CountedCrate), (CountedCrate, Crate), (ByLabel, OtherByLabel), (BayTraffic, OtherBayTraffic)]


@dataclass
class Expected:
    """What event-by-event folding of both gives."""

    partings: dict[str, dict[Any, tuple[Any, Any, int, int, str]]]
    still: dict[str, int]
    keys: int
    events: int
    only_old: int
    only_new: int


def as_shown(name: str, value: Any) -> Any:
    """As a frame of partings gives it: UUIDs and exact decimals are text there."""
    return str(value) if name in ("exact", "number") else oracle.shown(value)


def expected(old: type[Any], new: type[Any], log: Log, fields: tuple[str, ...]) -> Expected:
    found: dict[str, dict[Any, tuple[Any, Any, int, int, str]]] = {name: {} for name in fields}
    still = dict.fromkeys(fields, 0)
    events = 0
    one, other = {}, {}  # type: ignore[var-annotated]
    for position in range(1, len(log.facts) + 1):
        one, other = (oracle.folded(m, log.facts[:position], log.ends) for m in (old, new))
        touched = {key for rows in (one, other) for key, row in rows.items() if row[2] == position}
        events += len(touched)
        still = dict.fromkeys(fields, 0)
        for key in {*one, *other}:
            states = [rows.get(key, (model(), 0, 0)) for model, rows in ((old, one), (new, other))]
            for name in fields:
                was, now = (getattr(state, name) for state, _, _ in states)
                if was != now:
                    still[name] += 1
                    version = states[1][1] if states[1][2] == position else states[0][1]
                    kind = type(log.facts[position - 1][1]).__name__
                    found[name].setdefault(key, (as_shown(name, was), as_shown(name, now), position, version, kind))
    ones = [len(rows.keys() - others.keys()) for rows, others in ((one, other), (other, one))]
    return Expected(found, still, len({*one, *other}), events, *ones)


def agrees(found: Comparison, wanted: Expected) -> None:
    assert (found.keys, found.events) == (wanted.keys, wanted.events)
    assert (found.only_old, found.only_new) == (wanted.only_old, wanted.only_new)
    width = len(found.frame.columns) - 6
    for of in found.fields:
        rows = found.partings(of.field).rows()
        assert {row[:width] if width > 1 else row[0]: row[width:] for row in rows} == wanted.partings[of.field], of.field
        assert (of.parting, of.still) == (len(rows), wanted.still[of.field])
        assert of.position == min((row[-3] for row in rows), default=0)
    parting = {key for partings in wanted.partings.values() for key in partings}
    assert found.parting == len(parting)
    assert found.same == (not parting and not wanted.only_old and not wanted.only_new)
    assert len(found.frame) == sum(len(partings) for partings in wanted.partings.values()) == found.listed
    assert found.frame["_position"].is_sorted()


@pytest.mark.parametrize(("old", "new"), PAIRS, ids=lambda model: model.__name__)
@settings(max_examples=40)
@given(log=oracle.logs(), engine=st.sampled_from(["auto", "rows"]), until=st.integers(0, 30))
def test_states_part_where_folding_both_event_by_event_says_so(
    old: type[Any], new: type[Any], log: Log, engine: Any, until: int
) -> None:
    known = Log(tuple((fact,) for fact in log.facts[:until]))
    with oracle.written("memory", None, log.singly()) as lab:
        found = lab.compare(old, new, until=until, engine=engine)
        fields = tuple(of.field for of in found.fields)
        agrees(found, expected(old, new, known, fields))
        at = lab.at(position=min(until, lab.head)).compare(old, new, engine=engine)
        assert (at, at.frame.rows()) == (found, found.frame.rows())


# -- a cell that is run again


class Cells:
    """A module that grows by cells, as a notebook does; their text is found where `inspect` looks."""

    def __init__(self, name: str) -> None:
        self.module = sys.modules[name] = types.ModuleType(name)
        self.numbers = itertools.count(1)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.module, name)

    def run(self, text: str) -> None:
        file = f"<cell {next(self.numbers)} of {self.module.__name__}>"
        text = textwrap.dedent(text)
        linecache.cache[file] = (len(text), None, text.splitlines(keepends=True), file)
        exec(compile(text, file, "exec", dont_inherit=True), vars(self.module))


EVENTS = """
    import eventlab as el
    from dataclasses import replace
    from typing import Self

    LARGE = 100

    def counted(quantity):
        return quantity

    @el.event
    class PieSold:
        "Someone bought pies."
        quantity: int

    @el.event
    class StallCleared:
        "The day is over."
"""
STALL = """
    @el.aggregate
    class Stall:
        sold: int = 0
        large: int = 0

        def evolve(self, event: PieSold | StallCleared) -> Self:
            match event:
                case PieSold(quantity=n):
                    return replace(self, sold=self.sold + counted(n), large=self.large + (n > LARGE))
                case StallCleared():
                    return replace(self, sold=0)
            return self
"""
_names = itertools.count(1)


@pytest.fixture
def cells() -> Iterator[Cells]:
    made = Cells(f"stalls_{next(_names)}")
    made.run(EVENTS)
    made.run(STALL)
    yield made
    sys.modules.pop(made.module.__name__)
    forget(made.Stall)


@pytest.fixture
def lab(cells: Cells) -> el.Lab:
    lab = el.scratch()
    lab.append("stall-1", [cells.PieSold(5), cells.PieSold(120), cells.StallCleared()])
    lab.append("stall-2", [cells.PieSold(7)])
    return lab


def test_a_definition_is_compared_with_the_one_before_it(cells: Cells, lab: el.Lab) -> None:
    old = cells.Stall
    cells.run(STALL.replace("counted(n)", "counted(n) + 1"))
    found = lab.compare(cells.Stall)
    assert found.frame.rows() == [("1", "sold", "5", "6", 1, 1, "PieSold"), ("2", "sold", "7", "8", 4, 1, "PieSold")]
    assert found.frame.columns == ["_id", "field", "old", "new", "_position", "_version", "_type"]
    assert found.first == dict(zip(found.frame.columns, found.frame.row(0), strict=True))
    for same in (lab.compare(old), lab.compare(old, cells.Stall)):
        assert (same, same.frame.rows()) == (found, found.frame.rows())
    turned = lab.compare(cells.Stall, old)
    assert turned.frame["old"].to_list() == ["6", "8"]


def test_states_that_part_and_meet_again_are_found_and_counted_apart(cells: Cells, lab: el.Lab) -> None:
    cells.run(STALL.replace("counted(n)", "counted(n) + 1"))
    found = lab.compare(cells.Stall)
    assert lab.table(cells.Stall)["sold"].to_list() == [0, 8]
    sold = next(of for of in found.fields if of.field == "sold")
    assert (sold.parting, sold.still, sold.position) == (2, 1, 1)


def test_a_comparison_reads_as_text(cells: Cells, lab: el.Lab) -> None:
    cells.run(STALL.replace("large: int = 0", "large: str = ''\n        best: int = 0").replace("self.large + (n > LARGE)", "''"))
    cells.run(STALL.replace("counted(n)", "2 * n").replace("large: int = 0", "large: int = 0\n        last: int = 0"))
    assert repr(lab.compare(cells.Stall, limit=1)) == "Comparison(stall: 2 of 2 keys part over 4 events, first at position 1)"
    assert str(lab.compare(cells.Stall, limit=1)) == (
        "stall: 2 of 2 keys part over 4 events, first at position 1\n"
        "  sold   parts in 2 keys, first at position 1; 1 still at the end\n"
        "  large  was str, is int: not compared\n"
        "  last   only in the new definition\n"
        "  best   only in the old definition\n"
        "  note   the frame lists 1 of 2 partings; limit=None lists all"
    )


def test_a_mended_fold_that_means_the_same_parts_nowhere(cells: Cells, lab: el.Lab) -> None:
    cells.run(STALL.replace("self.sold + counted(n)", "n + self.sold"))
    found = lab.compare(cells.Stall)
    assert (found.same, found.first, found.parting, found.keys, len(found.frame)) == (True, None, 0, 2, 0)
    assert str(found) == "stall: no state of 2 keys parts over 4 events\n  sold   the same\n  large  the same"
    assert found.frame.columns == ["_id", "field", "old", "new", "_position", "_version", "_type"]


def test_a_cell_that_was_run_again_unchanged_is_passed_over(cells: Cells, lab: el.Lab) -> None:
    assert lab.compare(cells.Stall, cells.Stall).notes == ("both definitions have the same code, and reach the same",)
    cells.run(STALL)
    assert lab.compare(cells.Stall).notes == ("both definitions have the same code, and reach the same",)
    cells.run(STALL.replace("counted(n)", "0"))
    for _ in range(3):
        cells.run(STALL.replace("counted(n)", "0"))
    assert (lab.compare(cells.Stall).first or {})["old"] == "5"


def test_only_the_last_definitions_are_kept(cells: Cells) -> None:
    for step in range(20):
        cells.run(STALL.replace("counted(n)", str(step)))
    kept = MODELS.earlier(model_of(cells.Stall))
    assert [model.stale for model in kept] == [True] * 8
    assert MODELS.successor(kept[-1]).cls is cells.Stall


def test_a_class_that_was_defined_once_has_nothing_to_be_compared_with(cells: Cells, lab: el.Lab) -> None:
    with pytest.raises(UnknownType, match="Stall was defined only once") as caught:
        lab.compare(cells.Stall)
    assert "lab.compare(Old, Stall)" in caught.value.hint


def test_an_old_definition_folds_events_whose_class_was_defined_again_too(cells: Cells, lab: el.Lab) -> None:
    old = cells.Stall
    cells.run(EVENTS)
    cells.run(STALL.replace("counted(n)", "counted(n) + 1"))
    lab.append("stall-3", [cells.PieSold(1)])
    assert lab.compare(old).parting == 3


def test_a_constant_or_helper_that_changed_since_the_old_definition_was_folded_is_named(cells: Cells, lab: el.Lab) -> None:
    assert lab.table(cells.Stall)["large"].to_list() == [1, 0]
    cells.run("LARGE = 6\ndef counted(quantity):\n    return 2 * quantity\n")
    cells.run(STALL)
    found = lab.compare(cells.Stall)
    text = "the old definition was folded with LARGE, counted of today, which changed since it was last folded"
    assert (found.same, [note for note in found.notes if "today" in note]) == (True, [text])
    assert text in lab.compare(cells.Stall).notes, "asked a second time"


def test_a_helper_that_was_only_run_again_is_no_change(cells: Cells, lab: el.Lab) -> None:
    lab.table(cells.Stall)
    cells.run(EVENTS)
    cells.run(STALL.replace("counted(n)", "counted(n) + 1"))
    assert lab.compare(cells.Stall).notes == ()


def test_an_old_evolve_that_names_its_own_class_is_told_how_to_do_without(cells: Cells) -> None:
    named = STALL.replace("return replace(self, sold=0)", "return Stall(NOTHING, self.large)")
    cells.run("NOTHING = 0")
    cells.run(named)
    with el.scratch() as lab:
        lab.append("stall-1", [cells.StallCleared()])
        cells.run(STALL)
        with pytest.raises(EvolveFailed, match=r"the old definition: Stall\.evolve failed on StallCleared") as caught:
            lab.compare(cells.Stall)
        assert caught.value.hint == (
            "Stall means the new class where the old evolve names it: write replace(self, …) in both"
        )
        assert caught.value.position == 1


def test_an_error_of_a_modeller_says_which_definition_raised_it(cells: Cells, lab: el.Lab) -> None:
    cells.run(STALL.replace("counted(n)", "1 // (n - 7)"))
    with pytest.raises(EvolveFailed, match=r"the new definition: Stall\.evolve failed on PieSold at position 4") as caught:
        lab.compare(cells.Stall)
    assert caught.value.position == 4
    assert lab.at(position=3).compare(cells.Stall).keys == 1


# -- what can be compared


@el.aggregate
class Booth:
    n: int = 0

    def evolve(self, event: CrateFilled) -> Self:
        return replace(self, n=self.n + 1)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (Crate, Booth, "Crate folds the streams of 'crate' and Booth those of 'booth'"),
        (Crate, BayTraffic, r"Crate has a row for each \(_id: str\) and BayTraffic for each \(deck: str \| None, day: date\)"),
    ],
)
def test_definitions_without_a_common_key_are_refused(old: type[Any], new: type[Any], message: str) -> None:
    with el.scratch() as lab, pytest.raises(Unsupported, match=message) as caught:
        lab.compare(old, new)
    assert caught.value.hint


def test_what_is_asked_wrongly_is_refused() -> None:
    with el.scratch() as lab:
        for limit in (-1, True, "all"):
            with pytest.raises(InvalidValue, match="is no number of rows"):
                lab.compare(Crate, CountedCrate, limit=limit)  # type: ignore[arg-type]
        with pytest.raises(Unsupported, match="there is no engine='fast'"):
            lab.compare(Crate, CountedCrate, engine="fast")  # type: ignore[arg-type]
        with pytest.raises(ModelError, match="int is not a model"):
            lab.compare(Crate, int)
        found = lab.compare(Crate, CountedCrate)
        with pytest.raises(UnknownType, match="'moved' was not compared") as caught:
            found.partings("moved")
        assert caught.value.hint.startswith("compared were amount, total")


def test_an_engine_that_cannot_fold_one_of_them_says_so(cells: Cells, lab: el.Lab) -> None:
    cells.run(STALL.replace("counted(n)", "int(str(n))"))
    with pytest.raises(NotLiftable):
        lab.compare(cells.Stall, engine="lifted")
    assert lab.compare(cells.Stall).same


def test_a_lab_without_events_has_no_states_that_part() -> None:
    with el.scratch() as lab:
        found = lab.compare(Crate, CountedCrate)
        assert (found.same, found.keys, found.events, len(found.frame)) == (True, 0, 0, 0)
        assert lab.compare(ByLabel, OtherByLabel).same


def test_rows_that_only_one_definition_has_are_counted_and_said() -> None:
    with el.scratch() as lab:
        lab.append("crate-1", [CratePriced("a very long label", el.money(1)), CrateFilled(-1, oracle.Kind.STEEL)])
        found = lab.compare(ByLabel, OtherByLabel)
        assert (found.only_old, found.only_new, found.same) == (1, 1, False)
        assert [text for name, text in found.lines if name == "rows"] == [
            "1 key only in the new definition",
            "1 key only in the old definition",
        ]


def test_each_tenant_has_keys_of_its_own() -> None:
    with el.scratch() as lab:
        for tenant, amount in (("acme", 1), ("bert", -1)):
            with lab.context(tenant=tenant):
                lab.append("crate-1", [CrateFilled(amount)])
        everyone = el.Lab(lab.store, el.ALL, clock=lab._clock, chance=lab._chance, path=None)
        found = everyone.compare(Crate, CountedCrate)
        assert found.keys == 2
        assert found.frame.filter(field="amount").rows() == [("bert", "1", "amount", "-1", "0", 2, 1, "CrateFilled")]


@el.event
class GramsWeighed:
    """A scale said something."""

    grams: el.AnyFloat


def weighing(sign: float) -> type[Any]:
    @el.aggregate
    class Balance:
        grams: el.AnyFloat = 0.0
        all: tuple[el.AnyFloat, ...] = ()

        def evolve(self, event: GramsWeighed) -> Self:
            grams = event.grams if event.grams != 0 else sign * event.grams
            return replace(self, grams=grams, all=(*self.all, grams))

    return Balance


def test_not_a_number_is_the_same_as_itself_and_zero_has_no_sign() -> None:
    with el.scratch() as lab:
        lab.append("balance-1", [GramsWeighed(float("nan")), GramsWeighed(0.0), GramsWeighed(float("inf"))])
        weighing(1.0)
        found = lab.compare(weighing(-1.0))
        assert (found.same, [of.field for of in found.fields]) == (True, ["grams", "all"])


def test_a_store_on_disk_is_compared_in_its_files_and_its_tail() -> None:
    log = Log(tuple((("crate-1", CrateFilled(n - 500)),) for n in range(1_000)))
    with tempfile.TemporaryDirectory() as folder, oracle.written("mixed", Path(folder), log) as lab:
        lab.compact(all=True)
        found = lab.compare(Crate, CountedCrate)
        assert found.partings("amount").rows() == [("1", -500, 0, 1, 1, "CrateFilled")]
        assert (found.keys, found.events) == (1, 1_000)
