"""Upcasters that compute, executed symbolically: the query folds what Python makes of every event, or leaves it alone."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import enum
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, Self

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import eventlab as el
from eventlab.errors import EventlabError, NotLiftable, UpcastFailed
from eventlab.model.events import event_type
from eventlab.model.models import model_of
from eventlab.replay.lift import fold_table, plan_of, run
from eventlab.replay.lift.sources import Upcast, sources_of
from eventlab.replay.lift.stored import NoAnswer, answered, stored_query
from eventlab.replay.tables import key_names
from eventlab.store.read_models import base_in_memory

NAME = "liftedupcast.ParcelSent"
FACTOR = Decimal("1.19")
REGIONS = {"de": "eu", "fr": "eu", "us": "na"}


class Size(enum.Enum):
    SMALL = "S"
    LARGE = "L"


@dataclasses.dataclass(frozen=True)
class Address:
    street: str
    city: str


@dataclasses.dataclass(frozen=True)
class Price:
    cents: int
    currency: str = "EUR"


def sent(version: int) -> type[Any]:
    """The class as it was, or as it is today."""
    if version == 1:

        @el.event(name=NAME)
        class ParcelSent:
            """A parcel was sent."""

            net: el.Money
            grams: int
            weight: el.AnyFloat
            country: str
            size: str
            to: Address
            back: Address | None
            day: dt.date
            at: dt.datetime
            note: str | None = None
            codes: list[str] = dataclasses.field(default_factory=list)

        return ParcelSent

    @el.event(name=NAME, version=2)
    class ParcelSent:  # type: ignore[no-redef]
        """A parcel was sent."""

        gross: el.Money
        kilos: int
        weight: float
        region: Literal["eu", "na", "other"]
        size: Size
        to: Address
        back: Address | None
        day: dt.date
        at: dt.datetime
        price: Price
        note: str = ""
        codes: list[str] = dataclasses.field(default_factory=list)

    return ParcelSent


def _region(country: str) -> str:
    return REGIONS.get(country.lower(), "other")


def as_one_expression(old: Any) -> Any:
    return {
        "gross": (old.net * FACTOR).quantize(Decimal("0.01")), "kilos": old.grams // 1000, "weight": old.weight,
        "region": _region(old.country), "size": Size(old.size), "to": old.to, "back": old["back"], "day": old.day, "at": old.at,
        "price": {"cents": int(old.net * 100)}, "note": old.note or "", "codes": old.codes,
    }  # fmt: skip


def as_statements(old: Any) -> Any:
    fields = dict(old)
    net = fields.pop("net")
    fields["gross"] = net + 1 if net > 10 else net
    fields["kilos"] = fields.pop("grams") // 1000
    if fields["kilos"] > 3:
        fields["size"] = "L"
    else:
        fields["size"] = "S"
    fields["region"] = "eu" if fields["country"] in ("de", "fr") else "other"
    del fields["country"]
    fields["price"] = Price(int(net), "CHF")
    if fields["note"] is None:
        fields["note"] = "none"
    return fields


def as_comprehension(old: Any) -> Any:
    kept = {name: value for name, value in old.items() if name not in ("net", "grams", "country", "note")}
    return {
        **kept, "gross": old.net, "kilos": old.grams, "region": "other", "size": old.size.upper(),
        "to": {"street": old.to["street"].strip(), "city": f"{old.to['city']}!"}, "price": {"cents": old.grams % 7},
        "day": old.at.date(), "at": old.at + dt.timedelta(days=1),
    }  # fmt: skip


def as_dict_call(old: Any) -> Any:
    given = dict(old, gross=-old.net, kilos=abs(old.grams), region="na", price={"cents": 1, "currency": old.country})
    for_today = {name: value for name, value in given.items() if name != "net" and name != "grams"}
    for_today.pop("country")
    for_today["weight"] = old.weight / 2
    for_today["note"] = for_today.get("note") or old.get("nothing", "x")
    return for_today


def that_refuses_some(old: Any) -> Any:
    if old.grams < 0:
        raise ValueError("less than nothing")
    return {**as_comprehension(old), "kilos": 100 // old.grams, "note": old.note}


STEPS = (as_one_expression, as_statements, as_comprehension, as_dict_call, that_refuses_some)

moments = st.integers(-(10**15), 10**15).map(lambda us: dt.datetime(1990, 1, 1, tzinfo=dt.UTC) + dt.timedelta(0, 0, us))
olds = st.fixed_dictionaries({
    "net": st.decimals("-50", "50", places=2), "grams": st.sampled_from([0, 1, -1, 700, 3999, 4000, -2500, 2**62]),
    "weight": st.sampled_from([0.5, -1.0, float("nan"), float("inf"), 1e300]),
    "country": st.sampled_from(["de", "DE", "us", "xx", "ß"]),
    "size": st.sampled_from(["S", "L", "s"]), "to": st.builds(Address, st.sampled_from(["a", " b "]), st.sampled_from(["c", ""])),
    "back": st.none() | st.builds(Address, st.just("a"), st.just("b")), "day": st.dates(dt.date(1900, 1, 1), dt.date(2100, 1, 1)),
    "at": moments, "note": st.sampled_from([None, "", "n"]), "codes": st.lists(st.sampled_from(["x", "y"]), max_size=2),
})  # fmt: skip
#: Old events for which the steps are most often made, so that most logs have an answer.
quiet = st.fixed_dictionaries({
    "net": st.decimals("0", "50", places=2), "grams": st.integers(1, 9000), "weight": st.floats(0, 100),
    "country": st.sampled_from(["de", "us", "jp"]), "size": st.sampled_from(["S", "L"]),
    "to": st.builds(Address, st.just("a"), st.sampled_from(["c", "d"])),
    "back": st.none() | st.builds(Address, st.just("a"), st.just("b")),
    "day": st.dates(dt.date(1900, 1, 1), dt.date(2100, 1, 1)),
    "at": moments, "note": st.just("n"), "codes": st.just([]),
})  # fmt: skip


def parcels(step: Callable[[Any], Any]) -> type[Any]:
    """A fold that looks at everything."""
    of = sent(2)
    el.upcast(of, from_version=1)(step)

    @el.aggregate(name="parcel")
    class LiftedUpcastParcel:
        gross: el.Money = el.money(0)
        kilos: int = 0
        weight: float = 0.0
        heaviest: int | None = None
        region: str = ""
        european: int = 0
        size: Size = Size.SMALL
        city: str = ""
        back: str | None = None
        last: dt.date | None = None
        at: dt.datetime | None = None
        cents: int = 0
        currency: str = ""
        note: str = ""

        def evolve(self, event: of) -> Self:  # type: ignore[valid-type]
            return dataclasses.replace(
                self, gross=self.gross + event.gross, kilos=self.kilos + event.kilos % 1000, weight=event.weight,  # type: ignore[attr-defined]
                heaviest=event.kilos, region=event.region, european=self.european + (event.region == "eu"),  # type: ignore[attr-defined]
                size=event.size, city=event.to.city, back=event.back.city if event.back is not None else None,  # type: ignore[attr-defined]
                last=event.day, at=event.at, cents=self.cents + event.price.cents % 1000, currency=event.price.currency,  # type: ignore[attr-defined]
                note=event.note,  # type: ignore[attr-defined]
            )  # fmt: skip

    return LiftedUpcastParcel


def outcome(lab: el.Lab, fold: type[Any], engine: Any) -> Any:
    try:
        return lab.table(fold, engine=engine).to_dict(as_series=False)
    except UpcastFailed as why:
        return why.message


def filled(lab: el.Lab, events: list[tuple[bool, dict[str, Any]]]) -> None:
    today = {
        "gross": el.money(3), "kilos": 2, "weight": 1.0, "region": "na", "size": Size.LARGE, "to": Address("x", "y"),
        "back": None, "day": dt.date(2020, 1, 1), "at": dt.datetime(2020, 1, 1, tzinfo=dt.UTC),
        "price": Price(5, "USD"), "note": "t",
    }  # fmt: skip
    for version in (1, 2):
        of = sent(version)
        for i, (is_old, fields) in enumerate(events):
            if is_old == (version == 1):
                lab.append(f"parcel-{i % 2}", [of(**fields) if is_old else of(**today)])


@pytest.mark.parametrize("step", STEPS)
@given(
    st.one_of(
        st.lists(st.tuples(st.booleans(), quiet), min_size=1, max_size=8), st.lists(st.tuples(st.booleans(), olds), max_size=5)
    )
)
@settings(max_examples=25, deadline=None)
def test_the_query_gives_what_python_makes_of_every_event(
    step: Callable[[Any], Any], events: list[tuple[bool, dict[str, Any]]]
) -> None:
    with el.scratch() as lab, pytest.MonkeyPatch.context() as patched:
        patched.setattr(run, "_SMALL", 0)
        filled(lab, events)
        fold = parcels(step)
        wanted = outcome(lab, fold, "rows")
        for engine in ("loop", "auto"):
            assert str(outcome(lab, fold, engine)) == str(wanted)


@pytest.mark.parametrize("step", STEPS)
@given(st.lists(st.tuples(st.booleans(), quiet), min_size=1, max_size=8), st.integers(0, 4))
@settings(max_examples=15, deadline=None)
def test_a_stored_query_makes_of_old_events_what_python_makes(
    step: Callable[[Any], Any], events: list[tuple[bool, dict[str, Any]]], at: int
) -> None:
    with el.scratch() as lab:
        filled(lab, events)
        of, cut = model_of(parcels(step)), lab.store.cut()
        at = min(at, cut.head)
        try:
            before, meant = (fold_table(of, cut, "default", until, engine="rows") for until in (at, cut.head))
        except UpcastFailed:
            return
        base = base_in_memory(of.name, "default", of.fingerprint, at, before, key_names(of, "default"))
        text = stored_query(plan_of(of, cut), cut, "default")
        assert text is not None
        with contextlib.suppress(NoAnswer):
            assert answered(text, cut, "default", cut.head, base).to_pylist() == meant.to_pylist()
        if all(not is_old or fields["weight"] < 50 for is_old, fields in events):
            answered(text, cut, "default", cut.head, base)


@pytest.mark.parametrize("layout", ["hot", "sealed", "compacted"])
@pytest.mark.parametrize("step", STEPS)
def test_it_is_one_query(step: Callable[[Any], Any], layout: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "_SMALL", 0)
    old = {
        "net": Decimal("9.50"), "grams": 2100, "weight": 2.5, "country": "de", "size": "L", "to": Address(" a", "c"),
        "back": None, "day": dt.date(2001, 2, 3), "at": dt.datetime(2001, 2, 3, 4, tzinfo=dt.UTC), "note": "n",
    }  # fmt: skip
    events = [(i % 3 > 0, old | {"grams": 2100 + i, "back": Address("a", str(i)) if i % 2 else None}) for i in range(60)]
    with el.open(tmp_path / "log", maintain=False) as lab:
        filled(lab, events)
        if layout != "hot":
            lab.seal()
        if layout == "compacted":
            lab.compact(all=True)
        fold = parcels(step)
        assert lab.table(fold, engine="lifted").equals(lab.table(fold, engine="rows"))
        plan = lab.explain(fold)
        assert plan.engine == "lifted"
        assert [g.why for g in plan.guards if g.event == f"{NAME} 1" and "float" in g.why] == ["a float that is not finite"]
        assert all(g.where.startswith("test_upcasters.py:") for g in plan.guards)


# -- what is left to Python


def leaves(old: Any) -> Any:
    return {**old, "n": [old.n]}


def loops(old: Any) -> Any:
    found = {}
    for name in old:
        found[name] = old[name]
    return found


def other_fields(old: Any) -> Any:
    return {**old, "m": 1} if old.n > 1 else {**old}


def known_twice(old: Any) -> Any:
    found = dict(old)
    again = found
    found["n"] = 5
    return again


def changed_inside(old: Any) -> Any:
    found = {"inner": {"n": 1}, "n": old.n}
    inner = found["inner"]
    inner["n"] = 2
    return {"n": found["inner"]["n"]}


def changed_elsewhere(old: Any) -> Any:
    found = dict(old)
    _change(found)
    return found


def _change(found: dict[str, Any]) -> None:
    found["n"] = 7


def too_many_places(old: Any) -> Any:
    return {"n": old.n, "amount": old.amount * Decimal("0.5")}


def computed_name(old: Any) -> Any:
    return {name + "": value for name, value in old.items() if old.n > 0}


@pytest.mark.parametrize(
    ("step", "why"),
    [
        (leaves, "declared int, and is given a sequence"), (loops, "a for loop is not lifted"),
        (other_fields, "which fields there are"), (known_twice, "known by another name"),
        (changed_inside, "known by another name"), (changed_elsewhere, "a call for its effect"),
        (too_many_places, "may have 3 decimal places"), (computed_name, "which fields there are depends on the event"),
    ],
)  # fmt: skip
def test_what_is_not_read_is_left_to_python_with_the_reason(
    step: Callable[[Any], Any], why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "_SMALL", 0)

    def counted(version: int) -> type[Any]:
        @el.event(name="liftedupcast.Counted", version=version)
        class Counted:
            """It was counted."""

            n: int
            amount: el.Money = el.money(0)

        return Counted

    with el.open(tmp_path / "log", maintain=False) as lab:
        of = counted(1)
        lab.append("count-1", [of(n, el.money(n)) for n in range(1, 5)])
        of = counted(2)
        el.upcast(of, from_version=1)(step)

        @el.aggregate(name="count")
        class LiftedUpcastCount:
            n: int = 0

            def evolve(self, event: of) -> Self:  # type: ignore[valid-type]
                return dataclasses.replace(self, n=self.n + event.n)  # type: ignore[attr-defined]

        (schema,) = (s for s in lab.store.cut().schemas.values() if s.name == "liftedupcast.Counted" and s.version == 1)
        with pytest.raises(Upcast, match=why):
            sources_of(event_type(of), schema)
        with pytest.raises((NotLiftable, UpcastFailed)):
            lab.table(LiftedUpcastCount, engine="lifted")
        try:
            wanted = lab.table(LiftedUpcastCount, engine="rows")
        except EventlabError:
            with pytest.raises(UpcastFailed):
                lab.table(LiftedUpcastCount)
        else:
            assert lab.table(LiftedUpcastCount).equals(wanted)
            assert lab.table(LiftedUpcastCount, engine="loop").equals(wanted)


def test_what_nobody_reads_has_to_fit_all_the_same(lab_of: Callable[[], el.Lab]) -> None:
    def stored(version: int) -> type[Any]:
        @el.event(name="liftedupcast.Stored", version=version)
        class Stored:
            """It was stored."""

            n: int
            place: str | None if version == 1 else str  # type: ignore[valid-type]
            share: el.AnyFloat if version == 1 else float = 1.0  # type: ignore[valid-type]

        return Stored

    def renamed(old: Any) -> Any:
        return {**old, "n": old.n + 1}

    for place, share in (("a", 1.0), (None, 1.0), ("a", float("nan"))):
        with lab_of() as lab:
            lab.append("store-1", [stored(1)(1, place, share)])
            lab.seal()
            of = stored(2)
            el.upcast(of, from_version=1)(renamed)

            @el.aggregate(name="store")
            class LiftedUpcastStore:
                n: int = 0

                def evolve(self, event: of) -> Self:  # type: ignore[valid-type]
                    return dataclasses.replace(self, n=self.n + event.n)  # type: ignore[attr-defined]

            if place is not None and share == 1.0:
                assert lab.table(LiftedUpcastStore, engine="lifted")["n"].to_list() == [2]
                continue
            for engine in ("rows", "loop", "auto"):
                with pytest.raises(UpcastFailed, match=r"place is None|share is nan"):
                    lab.table(LiftedUpcastStore, engine=engine)


@pytest.fixture
def lab_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], el.Lab]:
    monkeypatch.setattr(run, "_SMALL", 0)
    return lambda: el.open(tmp_path / str(len(list(tmp_path.iterdir()))), maintain=False)
