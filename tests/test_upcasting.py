"""Old versions of an event brought to today's: the same for every way to read and to fold."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Any, Self

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import eventlab as el
from eventlab.errors import InvalidValue, ModelError, SchemaConflict, UpcastFailed
from eventlab.model.events import event_type
from eventlab.model.models import model_of
from eventlab.model.schema import Schema
from eventlab.replay.lift.sources import sources_of

NAME = "upcast.FeeCharged"


@dataclass(frozen=True)
class Place:
    street: str
    town: str


@pytest.fixture(params=["memory", "disk"])
def lab(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[el.Lab]:
    lab = el.scratch() if request.param == "memory" else el.open(tmp_path / "log", maintain=False)
    yield lab
    lab.close()


def fee(version: int, step: Callable[[Any], Any] | None = None) -> type[Any]:
    """The class as it was at a version, defined in the place of the one before; that of today with what leads to it."""
    if version == 1:

        @el.event(name=NAME)
        class FeeCharged:
            """A fee was charged."""

            amount: el.Money
            where: Place | None = None

        return FeeCharged
    if version == 2:

        @el.event(name=NAME, version=2)
        class FeeCharged:  # type: ignore[no-redef]
            """A fee was charged."""

            cents: int
            place: Place | None
            currency: str

        return FeeCharged

    @el.event(name=NAME, version=3)
    class FeeCharged:  # type: ignore[no-redef]
        """A fee was charged."""

        cents: int
        place: Place | None
        currency: str
        waived: bool = False
        note: str | None = None

    def from_1(old: Any) -> Any:
        return {"cents": int(old.amount * 100), "place": old.where, "currency": "EUR"}

    el.upcast(FeeCharged, from_version=1)(step or from_1)
    return FeeCharged


def first(lab: el.Lab, n: int = 5) -> None:
    of = fee(1)
    for i in range(n):
        lab.append(f"fee-{i % 3}", [of(el.money(i) + Decimal("0.50"), Place(f"street {i}", "town") if i % 2 else None)])


def second(lab: el.Lab, n: int = 4) -> None:
    of = fee(2)
    for i in range(n):
        lab.append(f"fee-{i % 3}", [of(100 * i, Place("s", "t"), "CHF" if i % 2 else "EUR")])


def folded(step: Callable[[Any], Any] | None = None) -> type[Any]:
    """A fold of today's class."""
    FeeCharged = fee(3, step)

    @el.aggregate(name="fee")
    class Fee:
        cents: int = 0
        euros: int = 0
        town: str | None = None

        def evolve(self, event: FeeCharged) -> Self:  # type: ignore[valid-type]
            euros = self.euros + (event.cents if event.currency == "EUR" else 0)  # type: ignore[attr-defined]
            town = event.place.town if event.place is not None else self.town  # type: ignore[attr-defined]
            return replace(self, cents=self.cents + event.cents, euros=euros, town=town)  # type: ignore[attr-defined]

    return Fee


def test_old_events_are_read_as_those_of_today(lab: el.Lab) -> None:
    first(lab)
    second(lab)
    of = fee(3)
    events = [event.data for event in lab.read()]
    assert events[:2] == [of(50, None, "EUR"), of(150, Place("street 1", "town"), "EUR")]
    assert events[5:7] == [of(0, Place("s", "t"), "EUR"), of(100, Place("s", "t"), "CHF")]
    assert [event.schema_version for event in lab.read()] == [1] * 5 + [2] * 4


@pytest.mark.parametrize("layout", ["hot", "sealed", "compacted"])
def test_every_engine_folds_them_alike(tmp_path: Path, layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from eventlab.replay.lift import run

    monkeypatch.setattr(run, "_SMALL", 0)
    with el.open(tmp_path / "log", maintain=False) as lab:
        first(lab, 40)
        second(lab, 40)
        if layout != "hot":
            lab.seal()
        if layout == "compacted":
            lab.compact(all=True)
        fold = folded()
        rows = lab.table(fold, engine="rows")
        assert rows["cents"].sum() == sum(100 * i + 50 for i in range(40)) + sum(100 * i for i in range(40))
        for engine in ("loop", "auto", "lifted"):
            assert lab.table(fold, engine=engine).equals(rows)
        assert [lab.load(fold, str(i)).cents for i in range(3)] == rows["cents"].to_list()
        assert lab.versions(fold).group_by("_id").last().sort("_id")["cents"].to_list() == rows["cents"].to_list()
        lab.rebuild(fold)
        second(lab, 3)
        fold = folded()
        assert lab.catch_up(fold).events == 3
        assert lab.table(fold).equals(lab.table(fold, engine="rows"))


def tool(version: int) -> type[Any]:
    """Steps that the fold compiler reads: they rename, keep and add a constant."""
    if version == 1:

        @el.event(name="upcast.ToolLent")
        class ToolLent:
            """A tool was lent."""

            name: str
            days: int
            to: Place | None = None

        return ToolLent

    @el.event(name="upcast.ToolLent", version=3)
    class ToolLent:  # type: ignore[no-redef]
        """A tool was lent."""

        tool: str
        days: int
        to: Place | None
        shelf: str
        deposit: el.Money = el.money(0)

    @el.upcast(ToolLent, from_version=1)
    def named(old: Any) -> Any:
        """A name that says more."""
        return {"tool": old.name, "days": old["days"], "to": old.to}

    @el.upcast(ToolLent, from_version=2)
    def shelved(old: Any) -> Any:
        return {**old, "shelf": "A"}

    return ToolLent


def tools() -> type[Any]:
    ToolLent = tool(3)

    @el.projection(name="upcast_tool")
    class Tool:
        days: int = 0
        shelf: str = ""
        deposit: el.Money = el.money(0)

        @staticmethod
        def key(event: ToolLent) -> str:  # type: ignore[valid-type]
            return event.tool  # type: ignore[attr-defined, no-any-return]

        def evolve(self, event: ToolLent) -> Self:  # type: ignore[valid-type]
            return replace(self, days=self.days + event.days, shelf=event.shelf, deposit=self.deposit + event.deposit)  # type: ignore[attr-defined]

    return Tool


def test_what_only_renames_keeps_and_adds_constants_is_lifted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from eventlab.replay.lift import run

    monkeypatch.setattr(run, "_SMALL", 0)
    with el.open(tmp_path / "log", maintain=False) as lab:

        old = tool(1)
        lab.append("tool-1", [old("saw", i, Place("s", "t") if i % 2 else None) for i in range(9)])
        fold = tools()
        (of,) = (kind.cls for kind in model_of(fold).handled or ())
        lab.append("tool-1", [of("saw", 100, None, "B", el.money(3)), of("axe", 1, None, "C")])
        stored = Schema("upcast.ToolLent", 1, ("name:s", "days:i64", "to:p", "to.street:s", "to.town:s"))
        found = sources_of(event_type(of), stored)
        assert {path: (source.column, source.default) for path, source in found.leaves.items()} == {
            "tool": ("name:s", None), "days": ("days:i64", None), "to?": ("to:p", None), "to.street": ("to.street:s", None),
            "to.town": ("to.town:s", None), "shelf": (None, "A"), "deposit": (None, 0),
        }  # fmt: skip
        rows = lab.table(fold, engine="rows")
        assert rows["days"].to_list() == [1, 136]
        assert lab.table(fold, engine="lifted").equals(rows)
        assert lab.table(fold, engine="loop").equals(rows)
        lab.seal()
        assert lab.table(fold, engine="lifted").equals(rows)


@given(st.lists(st.tuples(st.integers(-5, 5), st.sampled_from([None, "x", "y"]), st.sampled_from([1, 2])), max_size=12))
@settings(max_examples=40, deadline=None)
def test_any_log_of_two_versions_folds_alike(events: list[tuple[int, str | None, int]]) -> None:
    def weighed(version: int) -> type[Any]:
        if version == 1:

            @el.event(name="upcast.Weighed")
            class Weighed:
                """Something was weighed."""

                grams: int
                who: str | None

            return Weighed

        @el.event(name="upcast.Weighed", version=2)
        class Weighed:  # type: ignore[no-redef]
            """Something was weighed."""

            grams: int
            by: str | None
            exact: bool

        @el.upcast(Weighed, from_version=1)
        def turned(old: Any) -> Any:
            return {"grams": -old.grams, "by": old.who, "exact": False}

        return Weighed

    with el.scratch() as lab:
        for n, where, version in events:
            lab.append("scale-1", [weighed(1)(n, where) if version == 1 else weighed(2)(n, where, True)])
        of = weighed(2)

        @el.projection(name="upcast_scale")
        class Scale:
            grams: int = 0
            exact: int = 0

            @staticmethod
            def key(event: of) -> str | None:  # type: ignore[valid-type]
                return event.by  # type: ignore[attr-defined, no-any-return]

            def evolve(self, event: of) -> Self:  # type: ignore[valid-type]
                return replace(self, grams=self.grams + event.grams, exact=self.exact + event.exact)  # type: ignore[attr-defined]

        expected: dict[str, list[int]] = {}
        for n, where, version in events:
            if where is not None:
                row = expected.setdefault(where, [0, 0])
                row[0] += n if version == 2 else -n
                row[1] += version == 2
        wanted = [(key, *row) for key, row in sorted(expected.items())]
        for engine in ("rows", "loop", "lifted"):
            assert lab.table(Scale, engine=engine).select("_id", "grams", "exact").rows() == wanted


@given(st.lists(st.tuples(st.integers(-5, 5), st.sampled_from([None, "x", "y"]), st.integers(1, 3)), min_size=1, max_size=12))
@settings(max_examples=60, deadline=None)
def test_columns_that_were_renamed_are_lifted_alike(events: list[tuple[int, str | None, int]]) -> None:
    def measured(version: int) -> type[Any]:
        if version == 1:

            @el.event(name="upcast.Measured")
            class Measured:
                """Something was measured."""

                mass: int
                who: str | None

            return Measured
        if version == 2:

            @el.event(name="upcast.Measured", version=2)
            class Measured:  # type: ignore[no-redef]
                """Something was measured."""

                grams: int
                who: str | None
                scale: str

            return Measured

        @el.event(name="upcast.Measured", version=3)
        class Measured:  # type: ignore[no-redef]
            """Something was measured."""

            grams: int
            by: str | None
            scale: str

        @el.upcast(Measured, from_version=1)
        def renamed(old: Any) -> Any:
            return {"grams": old.mass, "who": old.who, "scale": "old"}

        @el.upcast(Measured, from_version=2)
        def renamed_again(old: Any) -> Any:
            return {"grams": old.grams, "by": old["who"], "scale": old.scale}

        return Measured

    with el.scratch() as lab:
        for n, who, version in events:
            of = measured(version)
            lab.append("scale-1", [of(n, who) if version == 1 else of(n, who, "new")])
        of = measured(3)

        @el.projection(name="upcast_measured")
        class Total:
            grams: int = 0
            old: int = 0
            last: int = 0

            @staticmethod
            def key(event: of) -> str | None:  # type: ignore[valid-type]
                return event.by  # type: ignore[attr-defined, no-any-return]

            def evolve(self, event: of) -> Self:  # type: ignore[valid-type]
                old = self.old + (event.scale == "old")  # type: ignore[attr-defined]
                return replace(self, grams=self.grams + event.grams, old=old, last=event.grams)  # type: ignore[attr-defined]

        expected: dict[str, list[int]] = {}
        for n, who, version in events:
            if who is not None:
                row = expected.setdefault(who, [0, 0, 0])
                row[:] = row[0] + n, row[1] + (version == 1), n
        wanted = [(key, *row) for key, row in sorted(expected.items())]
        for engine in ("rows", "loop", "lifted"):
            assert lab.table(Total, engine=engine).select("_id", "grams", "old", "last").rows() == wanted


@pytest.mark.parametrize(
    ("step", "said"),
    [
        (lambda old: {"cents": old.amount, "place": None, "currency": "EUR"}, r"FeeCharged\.cents"),
        (lambda old: {"cents": 1, "place": None}, "gives no 'currency', which has no default"),
        (lambda old: {"cents": 1, "place": None, "currency": "EUR", "tip": 2}, "has no field 'tip' today"),
        (lambda old: {"cents": old.price, "place": None, "currency": "EUR"}, "version 1 has no 'price'; it has amount, where"),
        (lambda old: None, "and not the fields of the next version"),
        (lambda old: 1 / 0, "ZeroDivisionError"),
    ],
)
def test_a_step_that_fails_says_which_version_event_and_why(lab: el.Lab, step: Callable[[Any], Any], said: str) -> None:
    first(lab)
    fold = folded(step)
    with pytest.raises(UpcastFailed, match=said) as caught:
        lab.read().list()
    assert (caught.value.version, caught.value.position) == (1, 1)
    for engine in ("rows", "loop", "auto"):
        with pytest.raises(UpcastFailed, match=said):
            lab.table(fold, engine=engine)


def test_a_changed_step_is_other_code(lab: el.Lab) -> None:
    first(lab)
    one = folded()
    lab.rebuild(one)
    assert lab.status()["state"].to_list() == ["accepted"]
    other = folded(lambda old: {"cents": 1, "place": None, "currency": "EUR"})
    assert lab.table(other)["cents"].to_list() == [2, 2, 1]
    assert lab.rebuild(other).state == "candidate"


def test_a_class_that_is_defined_again_keeps_its_steps_until_they_are() -> None:
    def cell() -> type[Any]:
        @el.event(name="upcast.Kept", version=2)
        class Kept:
            """It was kept."""

            n: int

        return Kept

    el.upcast(cell(), from_version=1)(lambda old: {"n": 1})
    assert list(event_type(cell()).upcasters) == [1]


def test_a_step_leads_from_a_version_before() -> None:
    @el.event(name="upcast.Stepped", version=2)
    class Stepped:
        """It was stepped on."""

    for version in (0, 2, 3, True, "1"):
        with pytest.raises(ModelError, match="the versions before it are 1 to 1"):
            el.upcast(Stepped, from_version=version)  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="is not an event"):
        el.upcast(dt.date, from_version=1)


def test_without_a_step_a_missing_field_is_said_with_what_to_write(lab: el.Lab) -> None:
    def cell(version: int) -> type[Any]:
        if version == 1:

            @el.event(name="upcast.Tipped")
            class Tipped:
                """A tip was given."""

                amount: el.Money
                who: str

            return Tipped

        @el.event(name="upcast.Tipped", version=2)
        class Tipped:  # type: ignore[no-redef]
            """A tip was given."""

            tip: el.Money
            who: str

        return Tipped

    lab.append("tip-1", [cell(1)(el.money(1), "ann")])
    cell(2)
    with pytest.raises(SchemaConflict) as caught:
        lab.read().list()
    assert caught.value.hint.startswith("was amount renamed? @el.upcast(Tipped, from_version=1) on a function")


def test_frames_have_the_columns_as_they_are_stored(lab: el.Lab) -> None:
    first(lab)
    fee(3)
    assert lab.read().frame()["amount"].to_list() == [Decimal(f"{i}.50") for i in range(5)]


@pytest.mark.parametrize("sealed", [False, True])
def test_sql_has_a_type_as_its_class_has_it_and_each_version_as_it_was_written(lab: el.Lab, sealed: bool) -> None:
    first(lab)
    second(lab)
    of = fee(3)
    lab.append("fee-1", [of(7, None, "EUR", True, "n")])
    if sealed:
        lab.seal()
    asked = 'select _position, cents, currency, waived, place from types.upcast_fee_charged order by _position'
    found = lab.sql(asked)
    events = [event.data for event in lab.read()]
    assert found["cents"].to_list() == [event.cents for event in events]
    assert found["currency"].to_list() == [event.currency for event in events]
    assert found["place"].to_list() == [None if event.place is None else vars(event.place) for event in events]
    assert lab.sql("select sum(amount) from types.upcast_fee_charged_v1").item() == Decimal("12.50")
    assert lab.sql("select count(*) from types.upcast_fee_charged_v2").item() == 4
    assert lab.at(position=2).sql("select sum(cents) from types.upcast_fee_charged").item() == 200
    fee(3, lambda old: {"cents": 1, "place": None, "currency": "EUR"})
    assert lab.sql(asked)["cents"].to_list()[:6] == [1, 1, 1, 1, 1, 0]
    fee(3, lambda old: 1 / 0)
    for _ in range(2):
        with pytest.raises(UpcastFailed):
            lab.sql(asked)
    assert lab.sql("select count(*) from events.log").item() == 10


def test_two_readers_have_the_same_events_in_two_versions_at_once(lab: el.Lab) -> None:
    first(lab, 2)
    second(lab, 2)
    of = fee(3)
    lab.append("fee-1", [of(7, None, "EUR", True, "n")])
    el.downcast(of, to_version=2)(lambda new: {name: new[name] for name in ("cents", "place", "currency")})

    def to_1(new: Any) -> dict[str, Any]:
        return {"amount": Decimal(new.cents) / 100, "where": new.place}

    el.downcast(of, to_version=1)(to_1)
    events = lab.read(el.events(of))
    assert [event.data.cents for event in events] == [50, 150, 0, 100, 7]
    assert [event.data["amount"] for event in events.versioned(of, 1)] == [
        Decimal("0.50"), Decimal("1.50"), Decimal(0), Decimal(1), Decimal("0.07"),
    ]  # fmt: skip
    assert set(next(events.versioned(of, 2)).data) == {"cents", "place", "currency"}
    assert [event.position for event in events.versioned(of, 3)] == [1, 2, 3, 4, 5]
    for wrong in (0, 4, True, "1"):
        with pytest.raises(InvalidValue, match="1 to 3"):
            list(events.versioned(of, wrong))  # type: ignore[arg-type]


def test_a_reader_of_an_older_version_needs_the_steps_back(lab: el.Lab) -> None:
    second(lab, 1)
    of = fee(3)
    event_type(of).downcasters.clear()
    with pytest.raises(SchemaConflict) as caught:
        list(lab.read().versioned(of, 1))
    assert caught.value.hint == "@el.downcast(FeeCharged, to_version=1)"
    with pytest.raises(ModelError, match="the versions before it are 1 to 2"):
        el.downcast(of, to_version=3)


def scale(version: int) -> type[Any]:
    if version == 1:

        @el.event(name="upcast.ScaleRead")
        class ScaleRead:
            """A scale was read."""

            weight: int
            colour: str | None = None

        return ScaleRead
    if version == 2:

        @el.event(name="upcast.ScaleRead", version=2)
        class ScaleRead:  # type: ignore[no-redef]
            """A scale was read."""

            weight: int
            to: Place | None = Place("Aare", "Bern")

        return ScaleRead

    @el.event(name="upcast.ScaleRead", version=3)
    class ScaleRead:  # type: ignore[no-redef]
        """A scale was read."""

        grams: int
        to: Place | None = Place("Aare", "Bern")

    el.upcast(ScaleRead, from_version=2)(lambda old: {"grams": old.weight, "to": old.to})
    return ScaleRead


@pytest.fixture
def scaled(lab: el.Lab) -> el.Lab:
    """Three readings, one of each version."""
    lab.append("scale-1", [scale(1)(5, "red")])
    lab.append("scale-1", [scale(2)(6, None)])
    lab.append("scale-1", [scale(3)(7, Place("s", "t"))])
    return lab


def test_a_version_has_the_fields_that_it_was_stored_with(scaled: el.Lab) -> None:
    of = scale(3)
    el.upcast(of, from_version=1)(lambda old: {"weight": old.weight, "to": None})
    el.downcast(of, to_version=2)(lambda new: {"weight": new.grams})
    el.downcast(of, to_version=1)(lambda new: {"weight": new.weight, "colour": "blue"})
    home = {"street": "Aare", "town": "Bern"}
    assert [event.data for event in scaled.read().versioned(of, 3)] == [
        {"grams": 5, "to": None}, {"grams": 6, "to": None}, {"grams": 7, "to": {"street": "s", "town": "t"}},
    ]  # fmt: skip
    assert [event.data for event in scaled.read().versioned(of, 2)] == [
        {"weight": 5, "to": None}, {"weight": 6, "to": None}, {"weight": 7, "to": home},
    ]  # fmt: skip
    assert [event.data for event in scaled.read().versioned(of, 1)] == [
        {"weight": 5, "colour": "red"}, {"weight": 6, "colour": "blue"}, {"weight": 7, "colour": "blue"},
    ]  # fmt: skip


def test_without_a_step_defaults_fill_a_version_and_what_it_lacks_is_left_out(lab: el.Lab) -> None:
    lab.append("scale-1", [scale(1)(5, "red")])
    of = scale(2)
    wanted = {"weight": 5, "to": {"street": "Aare", "town": "Bern"}}
    assert [event.data for event in lab.read().versioned(of, 2)] == [wanted]
    lab.append("scale-1", [of(6)])
    later = scale(3)
    assert [event.data["weight"] for event in lab.read().versioned(later, 2)] == [5, 6]
    assert next(lab.read().versioned(later, 2)).data == wanted


@pytest.mark.parametrize(
    ("step", "said"),
    [
        (lambda new: {"nonsense": 1}, "version 2 has no field 'nonsense'; it has weight, to"),
        (lambda new: {}, "there is no 'weight', which version 2 has, and which has no default"),
        (lambda new: {"weight": "5"}, r"weight is '5' \(str\), and weight:i64 in version 2"),
        (lambda new: {"weight": None}, "weight is None, and version 2 declares it to be something"),
        (lambda new: {"weight": 1, "to": {"street": "s"}}, "has a 'town' in version 2"),
        (lambda new: {"weight": 1, "to": {"street": "s", "town": 1}}, r"to\.town is 1 \(int\), and to\.town:s in version 2"),
        (lambda new: None, "it gave None, and not the fields of the next version"),
        (lambda new: {"weight": 1 // 0}, "ZeroDivisionError"),
        (lambda new: {"weight": new.kilos}, "version 3 has no 'kilos'; it has grams, to"),
    ],
)
def test_a_step_back_that_fails_says_version_step_position_and_why(
    scaled: el.Lab, step: Callable[[Any], Any], said: str
) -> None:
    of = scale(3)
    el.downcast(of, to_version=2)(step)
    seen = scaled.read().versioned(of, 2)
    assert [next(seen).data["weight"], next(seen).data["weight"]] == [5, 6]
    with pytest.raises(UpcastFailed, match=said) as caught:
        next(seen)
    assert caught.value.message.startswith(
        "upcast.ScaleRead at position 3, stored as version 3, cannot be given as version 2: the step back to version 2 failed on"
    )
    assert caught.value.hint == "mend @el.downcast(ScaleRead, to_version=2)"
    assert (caught.value.position, caught.value.version, caught.value.stored, caught.value.step) == (3, 2, 3, 3)


def test_a_version_that_no_step_leads_to_says_which_is_missing(lab: el.Lab) -> None:
    lab.append("scale-1", [scale(1)(5)])
    of = scale(3)
    with pytest.raises(UpcastFailed, match="the step from version 2 failed on") as caught:
        list(lab.read().versioned(of, 3))
    missing = "there is no step from version 1: @el.upcast(ScaleRead, from_version=1)"
    assert caught.value.hint == f"{missing}; or mend @el.upcast(ScaleRead, from_version=2)"


def test_a_failure_names_the_version_that_was_stored_the_step_and_the_one_that_is_missing(lab: el.Lab) -> None:
    lab.append("scale-1", [scale(1)(5)])
    scale(3)
    with pytest.raises(UpcastFailed) as caught:
        lab.read().list()
    said, missing = caught.value.message, "there is no step from version 1: @el.upcast(ScaleRead, from_version=1)"
    assert said.startswith("upcasting upcast.ScaleRead, stored as version 1, failed in the step from version 2 on {'weight': 5,")
    assert caught.value.hint.startswith(f"{missing}; or mend the step from version 2")
    assert (caught.value.version, caught.value.step, caught.value.position) == (1, 2, 1)


def test_a_step_is_one_function_of_one_payload() -> None:
    of = scale(3)

    def again() -> None:
        @el.upcast(of, from_version=1)
        def one(old: Any) -> Any:
            return {**old}

    again()
    again()  # as when its cell is run again

    def other(old: Any) -> Any:
        return {**old}

    with pytest.raises(ModelError, match=r"ScaleRead has a step from version 1 already: .*\.one, and now .*\.other") as caught:
        el.upcast(of, from_version=1)(other)
    assert "define the class again" in caught.value.hint
    # What was taken over from the class before gives way.
    of = scale(3)
    el.upcast(of, from_version=1)(other)
    el.downcast(of, to_version=1)(other)
    with pytest.raises(ModelError, match="has a step back to version 1 already"):
        el.downcast(of, to_version=1)(lambda new: {**new})

    def two(old: Any, more: Any) -> Any:
        return {**old}

    for decorate in (el.upcast(of, from_version=1), el.downcast(of, to_version=2)):
        with pytest.raises(ModelError, match="is 'x', and no function"):
            decorate("x")  # type: ignore[type-var]
        with pytest.raises(ModelError, match=r"two\(old: 'Any', more: 'Any'\).* cannot be called with one payload"):
            decorate(two)
    el.downcast(of, to_version=2)(dict)


def filled(version: int) -> type[Any]:
    """A class whose second version has gained fields with defaults of many kinds, defined in the place of the first."""
    if version == 1:

        @el.event(name="upcast.TankFilled")
        class TankFilled:
            litres: int

        return TankFilled

    @el.event(name="upcast.TankFilled", version=2)
    class TankFilled:  # type: ignore[no-redef]
        litres: int
        by: str = "it's"
        price: el.Money = el.money("1.59")
        full: bool = True
        share: float = 0.1
        at: dt.datetime = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
        day: dt.date = dt.date(2026, 1, 2)
        notes: list[str] = el.field(default_factory=lambda: ["a", "b"])
        note: str | None = None
        unset: int | None = 7

    return TankFilled


@pytest.mark.parametrize("sealed", [False, True])
def test_sql_has_the_defaults_of_fields_that_an_older_version_lacks(lab: el.Lab, sealed: bool) -> None:
    old = filled(1)
    lab.append("tank-1", [old(3)])
    assert lab.sql("select litres from types.upcast_tank_filled")["litres"].to_list() == [3]
    new = filled(2)
    lab.append("tank-1", [new(3), new(4, by="ann", unset=None)])
    if sealed:
        lab.seal()
    asked = "select columns(lambda c: c[1] <> '_') from types.upcast_tank_filled order by _position"
    found = lab.sql(asked)
    # An old event is as one of today with all of its defaults; what was told otherwise stays, null too.
    assert found.rows()[0] == found.rows()[1]
    assert found.row(0, named=True)["price"] == Decimal("1.59")
    assert found.row(2, named=True)["by"] == "ann"
    assert found.row(2, named=True)["unset"] is None
    assert lab.sql("select sum(litres), count(\"by\") from types.upcast_tank_filled").row(0) == (10, 3)
    assert lab.sql("select * from types.upcast_tank_filled_v1")["litres"].to_list() == [3]
    assert lab.at(position=1).sql("select \"by\" from types.upcast_tank_filled").item() == "it's"


def test_sets_records_and_members_within_collections_are_made_of_plain_values(lab: el.Lab) -> None:
    def packed(version: int) -> type[Any]:
        @el.event(name="upcast.Packed", version=version)
        class Packed:
            """It was packed."""

            labels: frozenset[str]
            places: list[Place]
            by_name: dict[str, Place]
            n: int = 0

        return Packed

    of = packed(1)
    lab.append("pack-1", [of(frozenset("ab"), [Place("s", "t")], {"x": Place("u", "v")})])
    of = packed(2)

    @el.upcast(of, from_version=1)
    def counted(old: Any) -> Any:
        return {**old, "n": 7}

    @el.aggregate(name="pack")
    class UpcastPack:
        labels: int = 0
        n: int = 0

        def evolve(self, event: of) -> Self:  # type: ignore[valid-type]
            return replace(self, labels=len(event.labels), n=self.n + event.n)  # type: ignore[attr-defined]

    (event,) = lab.read()
    assert event.data == of(frozenset("ab"), [Place("s", "t")], {"x": Place("u", "v")}, 7)
    for engine in ("rows", "loop", "lifted", "auto"):
        assert lab.table(UpcastPack, engine=engine).select("labels", "n").rows() == [(2, 7)]
