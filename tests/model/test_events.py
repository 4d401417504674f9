"""Events: frozen, typed dataclasses with a stable stored name, and what is refused at their definition and at append."""

from __future__ import annotations

import dataclasses
import datetime as dt
import re
import uuid
import warnings
from collections.abc import Callable
from dataclasses import InitVar, dataclass, field, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import eventlab as el
from eventlab.errors import DuplicateEvent, InvalidName, InvalidValue, ModelError, SchemaConflict, StaleType, UnknownType
from eventlab.model.events import EVENTS, command_type, event_type

Notebooks = Callable[..., Any]


@dataclass(frozen=True)
class Shelf:
    room: str
    row: int | None


@el.event
class BookShelved:
    """A copy of a book
    was put in its place."""

    isbn: el.Tag[str]
    at: Shelf
    price: el.Money
    seen: dt.datetime
    marks: frozenset[str] = frozenset()
    by: el.Tag[uuid.UUID] | None = None


@el.event(name="shelf.Emptied", version=3)
class ShelfEmptied:
    room: str


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
SHELVED = st.builds(
    BookShelved,
    isbn=st.text("0123456789", min_size=1, max_size=13),
    at=st.builds(Shelf, TEXT, st.none() | st.integers(-(2**63), 2**63 - 1)),
    price=st.integers(-(10**17), 10**17).map(lambda cents: Decimal(cents).scaleb(-2)),
    seen=st.datetimes(timezones=st.just(dt.UTC)),
    marks=st.frozensets(TEXT, max_size=3),
    by=st.none() | st.uuids(),
)


# -- what the decorator makes ------------------------------------------------------------------------------------------


def test_an_event_is_a_frozen_dataclass_with_equality_and_a_repr():
    one, same = ShelfEmptied("A"), ShelfEmptied(room="A")
    assert (one, hash(one), repr(one)) == (same, hash(same), "ShelfEmptied(room='A')")
    assert replace(one, room="B") != one
    for change in (lambda: setattr(one, "room", "B"), lambda: delattr(one, "room"), lambda: setattr(one, "other", 1)):
        with pytest.raises(dataclasses.FrozenInstanceError):
            change()


def test_the_stored_name_is_the_class_name_and_the_version_one_unless_they_are_given():
    plain, named = event_type(BookShelved), event_type(ShelfEmptied)
    assert (plain.name, plain.version, plain.named) == ("BookShelved", 1, False)
    assert (named.name, named.version, named.named) == ("shelf.Emptied", 3, True)
    with el.scratch() as lab:
        lab.append("shelf-1", [ShelfEmptied("A")])
        (recorded,) = lab.read()
        assert (recorded.type, recorded.schema_version, recorded.data) == ("shelf.Emptied", 3, ShelfEmptied("A"))


def test_the_docstring_is_the_meaning_that_the_schema_remembers():
    assert event_type(BookShelved).schema.doc == "A copy of a book was put in its place."
    assert event_type(ShelfEmptied).schema.doc == "", "the signature that dataclasses write is no description"


def test_the_schema_says_every_column_and_how_it_was_declared():
    schema = event_type(BookShelved).schema
    assert schema.columns == ("isbn:s", "at.room:s", "at.row:i64", "price:d18_2", "seen:ts", "marks:l_s", "by:uuid")
    assert schema.declared[:3] == ("isbn: str", "at: Shelf", "price: Decimal(18, 2)")
    assert schema.origin == f"{__name__}:BookShelved"
    assert type(schema).from_json(schema.to_json()) == schema


@given(SHELVED)
def test_an_event_is_read_as_it_was_appended(shelved: BookShelved):
    with el.scratch() as lab:
        lab.append("shelf-1", [shelved])
        (recorded,) = lab.read()
    assert recorded.data == shelved
    assert type(recorded.data) is BookShelved
    assert recorded.data.seen.tzinfo is dt.UTC
    assert recorded.data == event_type(BookShelved).normal(shelved)


@given(st.lists(SHELVED, max_size=4), st.integers(0, 4))
@settings(max_examples=20)
def test_durable_events_are_read_as_they_were_appended_hot_or_sealed(
    tmp_path_factory: pytest.TempPathFactory, given: list[BookShelved], sealed: int
):
    path = tmp_path_factory.mktemp("events") / "log"
    with el.open(path) as lab:
        for i, event in enumerate(given):
            if i == sealed:
                lab.seal()
            lab.append("shelf-1", [event])
    with el.open(path) as lab:
        assert [recorded.data for recorded in lab.read()] == given



def test_an_event_that_inherits_has_the_fields_of_both_and_is_a_type_of_its_own():
    @el.event
    class CopyLost:
        """A copy is gone."""

        isbn: str

    @el.event
    class CopyBurnt(CopyLost):
        """A copy was lost to fire."""

        degrees: int = 451

    assert event_type(CopyBurnt).schema.columns == ("isbn:s", "degrees:i64")
    with el.scratch() as lab:
        lab.append("copy-1", [CopyBurnt("x"), CopyLost("y")])
        assert [r.data for r in lab.read(el.events(CopyLost))] == [CopyLost("y")]


def test_field_types_are_found_where_the_class_is_defined(notebook: Notebooks):
    Isbn = el.Tag[str]

    @dataclass(frozen=True)
    class Local:
        n: int

    @el.event
    class CopyMoved:
        """A copy was carried elsewhere."""

        isbn: Isbn
        to: Local
        again: list[Local] | None = None

    assert event_type(CopyMoved).schema.columns == ("isbn:s", "to.n:i64", "again:l_r(n=i64)")
    plain = notebook().run(
        """
        import eventlab as el
        from decimal import Decimal

        def make(kind):
            @el.event
            class CopySold:
                "A copy was sold."
                isbn: "el.Tag[kind]"
                price: "Decimal"
            return CopySold

        CopySold = make(str)
        """
    )
    assert event_type(plain.CopySold).schema.columns == ("isbn:s", "price:d38_9")
    assert event_type(plain.CopySold).tag_fields == ("isbn",)


# -- what is refused at definition -------------------------------------------------------------------------------------


def known() -> dict[str, int]:
    """How many event classes there are under each name."""
    return {kind.name: len(EVENTS.named(kind.name)) for kind in EVENTS.all()}


def bad_mutable() -> type[Any]:
    class WasBad:
        tags: list[str] = []

    return WasBad


def bad_order() -> type[Any]:
    class WasBad:
        one: int = 1
        two: int

    return WasBad


def bad_underscore() -> type[Any]:
    class WasBad:
        _position: int

    return WasBad


def bad_twins() -> type[Any]:
    class WasBad:
        isbn: str
        ISBN: str

    return WasBad


def bad_dataclass() -> type[Any]:
    @dataclass(frozen=True)
    class WasBad:
        n: int

    return WasBad


def bad_base() -> type[Any]:
    @dataclass
    class Base:
        n: int

    class WasBad(Base):
        m: int

    return WasBad


def bad_computed() -> type[Any]:
    class WasBad:
        n: int
        twice: int = field(init=False, default=0)

    return WasBad


def bad_keyword() -> type[Any]:
    class WasBad:
        n: int = field(kw_only=True)

    return WasBad


def bad_passing() -> type[Any]:
    class WasBad:
        n: int
        extra: InitVar[int]

    return WasBad


def bad_constructor() -> type[Any]:
    class WasBad:
        n: int

        def __init__(self, text: str) -> None:
            object.__setattr__(self, "n", int(text))

    return WasBad


def bad_type() -> type[Any]:
    class WasBad:
        fine: int
        amount: complex

    return WasBad


def bad_inner_type() -> type[Any]:
    class WasBad:
        amounts: dict[str, list[range]]

    return WasBad


REFUSED: list[tuple[Callable[[], type[Any]], str]] = [
    (bad_mutable, r"WasBad: mutable default .* for field tags[\s\S]*default_factory"),
    (bad_order, r"WasBad: non-default argument 'two'"),
    (bad_underscore, r"WasBad\._position: a field may not begin with an underscore"),
    (bad_twins, r"both 'isbn' and 'ISBN'"),
    (bad_dataclass, r"WasBad is a dataclass already"),
    (bad_base, r"WasBad: cannot inherit frozen"),
    (bad_computed, r"WasBad\.twice has init=False"),
    (bad_keyword, r"WasBad\.n has kw_only=True"),
    (bad_passing, r"WasBad is made from \(n, extra\), but its fields are \(n\)"),
    (bad_constructor, r"WasBad is made from \(text\), but its fields are \(n\)"),
    (bad_type, r"WasBad\.amount is declared complex"),
    (bad_inner_type, r"WasBad\.amounts\[\]\[\] is declared range"),
]


@pytest.mark.parametrize(
    ("decorator", "make", "says"),
    [
        (decorator, make, says)
        for decorator in (el.event, el.command, el.aggregate)
        for make, says in REFUSED
        if not (decorator is el.command and make is bad_twins)  # commands are no columns: SQL need not tell their fields apart
    ],
)
def test_a_class_that_cannot_be_stored_is_refused_at_definition_and_leaves_no_trace(
    decorator: Callable[[type[Any]], type[Any]], make: Callable[[], type[Any]], says: str
):
    before = known()
    with pytest.raises((ModelError, InvalidName), match=says):
        decorator(make())
    assert known() == before


@pytest.mark.parametrize("version", [0, -1, 32_768, True, "2", 1.0, None])
def test_a_schema_version_is_a_small_whole_number(version: Any):
    with pytest.raises(ModelError, match=f"WasBad: a schema version is a whole number from 1 to 32,767, and {version!r} is not"):

        @el.event(version=version)
        class WasBad:
            n: int


@pytest.mark.parametrize("name", ["", "1st", "_Paid", "Pa id", "Paid!", "a-b", "Paid\n", "x" * 513, 7])
def test_a_stored_name_is_spelled_with_letters_digits_dots_and_underscores(name: Any):
    with pytest.raises(InvalidName):

        @el.event(name=name)
        class WasBad:
            n: int


@pytest.mark.parametrize("name", ["Paid", "v2.Paid", "größe.Gemessen", "paid_2", "x" * 512])
def test_a_stored_name_may_be_any_word(name: str):
    @el.event(name=name)
    class Anything:
        n: int

    with el.scratch() as lab:
        lab.append("thing-1", [Anything(1)])
        assert [r.type for r in lab.read(el.events(name))] == [name]


@pytest.mark.parametrize("what", ["Paid", 3, len, lambda: None])
@pytest.mark.parametrize("decorator", [el.event, el.command, el.aggregate, el.projection])
def test_only_a_class_can_be_decorated(decorator: Any, what: Any):
    with pytest.raises(ModelError, match=re.escape(f"{what!r} is no class")):
        decorator(what)


def test_what_is_not_an_event_is_refused_by_name():
    class Plain:
        pass

    with el.scratch() as lab:
        for given, says in ((Plain(), "Plain is not an event"), ("text", "str is not an event"), (BookShelved, "type is not")):
            with pytest.raises(ModelError, match=says):
                lab.append("shelf-1", [given])
        assert lab.head == 0
    with pytest.raises(ModelError, match="ShelfEmptied is not a command"):
        command_type(ShelfEmptied)
    with pytest.raises(UnknownType, match="neither an event class nor the name"):
        el.events(7)  # type: ignore[arg-type]


# -- what is refused at append -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"isbn": 7}, "BookShelved.isbn"),
        ({"at": Shelf("A", True)}, "BookShelved.at.row"),
        ({"price": Decimal("1.001")}, "BookShelved.price"),
        ({"price": 9.5}, "BookShelved.price"),
        ({"seen": dt.datetime(2020, 1, 1)}, "BookShelved.seen"),  # noqa: DTZ001 - what must be refused
        ({"marks": ["a"]}, "BookShelved.marks"),
    ],
)
def test_a_field_that_does_not_fit_is_named_and_nothing_is_stored(change: dict[str, Any], field: str):
    good = BookShelved("1", Shelf("A", 1), el.money(1), dt.datetime(2020, 1, 1, tzinfo=dt.UTC))
    with el.scratch() as lab:
        with pytest.raises(InvalidValue) as refused:
            lab.append("shelf-1", [good, replace(good, **change)])
        assert refused.value.field == field
        assert lab.head == 0


def test_one_event_may_have_an_id_a_time_and_tags_of_its_own():
    own, when = uuid.uuid4(), dt.datetime(2020, 1, 1, 12, tzinfo=dt.timezone(dt.timedelta(hours=2)))
    with el.scratch() as lab:
        event = el.new(ShelfEmptied("A"), id=own, occurred_at=when, tags=["moved", "room:A", "moved"])
        done = lab.append("shelf-1", [event, ShelfEmptied("B")], tags=["all"], occurred_at="2021-06-01T00:00Z")
        first, second = lab.read()
    assert done.ids == (own, second.event_id)
    assert (first.event_id, first.occurred_at.isoformat(), first.tags) == (
        own, "2020-01-01T10:00:00+00:00", ("moved", "room:A", "all"),
    )  # fmt: skip
    assert (second.occurred_at.isoformat(), second.tags) == ("2021-06-01T00:00:00+00:00", ("all",))


def test_an_id_or_tags_of_the_wrong_kind_are_refused():
    for wrong in ("not-a-uuid", 7, b"x"):
        with pytest.raises(InvalidValue, match="is not a UUID"):
            el.new(ShelfEmptied("A"), id=wrong)  # type: ignore[arg-type]
    with pytest.raises(InvalidValue, match="each of its letters would be a tag"):
        el.new(ShelfEmptied("A"), tags="moved")
    with el.scratch() as lab:
        own = uuid.uuid4()
        with pytest.raises(InvalidValue, match="have the same id"):
            lab.append("shelf-1", [el.new(ShelfEmptied("A"), id=own), el.new(ShelfEmptied("B"), id=own)])
        for tag in ("", "a\nb", "x" * 513, 7):
            with pytest.raises(InvalidName, match="cannot name a tag"):
                lab.append("shelf-1", [el.new(ShelfEmptied("A"), tags=[tag])])  # type: ignore[list-item]
        with pytest.raises(InvalidValue, match="65 tags"):
            lab.append("shelf-1", [ShelfEmptied("A")], tags=[f"t{i}" for i in range(65)])
        assert lab.head == 0


def test_tag_fields_are_tags_unless_they_are_none():
    who, seen = uuid.uuid4(), dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
    with el.scratch() as lab:
        lab.append("shelf-1", [BookShelved("1", Shelf("A", 1), el.money(1), seen, by=who)])
        lab.append("shelf-1", [BookShelved("2", Shelf("A", 1), el.money(1), seen)])
        assert [r.tags for r in lab.read()] == [("isbn:1", f"by:{who}"), ("isbn:2",)]
        assert [r.version for r in lab.read(el.tag(by=who))] == [1]
        assert [r.version for r in lab.read(el.tag(isbn="2"))] == [2]


def test_an_event_with_an_id_of_its_own_is_appended_once():
    own = uuid.uuid4()
    with el.scratch() as lab:
        first = lab.append("shelf-1", [el.new(ShelfEmptied("A"), id=own)])
        assert lab.append("shelf-1", [el.new(ShelfEmptied("A"), id=str(own))]).positions == first.positions
        with pytest.raises(DuplicateEvent):
            lab.append("shelf-1", [el.new(ShelfEmptied("B"), id=own)])
        assert lab.head == 1


# -- a cell is run again -----------------------------------------------------------------------------------------------

PAID = """
    import eventlab as el

    @el.event
    class BillPaid:
        "A bill was paid."
        cents: int
"""


def test_running_a_cell_again_is_quiet_and_old_instances_are_refused(notebook: Notebooks):
    cells = notebook().run(PAID)
    old = cells.BillPaid(1)
    with el.scratch() as lab, warnings.catch_warnings():
        warnings.simplefilter("error")
        lab.append("bill-1", [old])
        cells.run(PAID)
        for stale in (old, el.new(old)):
            with pytest.raises(StaleType, match="this BillPaid is an instance of a class that was defined again"):
                lab.append("bill-1", [cells.BillPaid(2), stale])
        lab.append("bill-1", [cells.BillPaid(2)])
        assert [type(r.data) for r in lab.read()] == [cells.BillPaid] * 2, "what was stored is read as the class of today"
        assert [r.data.cents for r in lab.read()] == [1, 2]


def test_a_cell_that_fails_leaves_the_class_of_before_as_it_was(notebook: Notebooks):
    cells = notebook().run(PAID)
    old = cells.BillPaid(1)
    with pytest.raises(ModelError, match=r"BillPaid\.cents is declared complex"):
        cells.run(PAID.replace("int", "complex"))
    with el.scratch() as lab:
        lab.append("bill-1", [old])
        assert [r.data for r in lab.read()] == [old]


def test_a_class_that_gets_another_name_or_version_supersedes_the_one_in_its_place(notebook: Notebooks):
    cells = notebook().run(PAID)
    old = cells.BillPaid(1)
    cells.run(PAID.replace("@el.event", "@el.event(name='BillSettled', version=2)"))
    with el.scratch() as lab:
        with pytest.raises(StaleType):
            lab.append("bill-1", [old])
        lab.append("bill-1", [cells.BillPaid(1)])
        assert [(r.type, r.schema_version) for r in lab.read()] == [("BillSettled", 2)]


def test_a_value_within_an_event_that_was_defined_again_is_refused_too(notebook: Notebooks):
    shelf = """
        from dataclasses import dataclass
        import eventlab as el

        @dataclass(frozen=True)
        class Place:
            room: str
    """
    cells = notebook().run(shelf)
    cells.run("@el.event\nclass PlaceSwept:\n    'Someone swept.'\n    where: Place\n")
    cells.run(shelf)
    with el.scratch() as lab:
        with pytest.raises(StaleType, match=r"PlaceSwept\.where is .* of another definition of Place"):
            lab.append("place-1", [cells.PlaceSwept(cells.Place("A"))])
        cells.run("@el.event\nclass PlaceSwept:\n    'Someone swept.'\n    where: Place\n")
        lab.append("place-1", [cells.PlaceSwept(cells.Place("A"))])


# -- one stored name, one type -----------------------------------------------------------------------------------------


def test_two_classes_of_one_stored_name_are_refused_in_one_store(notebook: Notebooks):
    one, other = notebook().run(PAID), notebook().run(PAID)
    with el.scratch() as lab:
        lab.append("bill-1", [one.BillPaid(1)])
        with pytest.raises(SchemaConflict) as refused:
            lab.append("bill-1", [other.BillPaid(2)])
        for module in (one.module, other.module):
            assert f"{module.__name__}.BillPaid" in refused.value.message
        assert "name=" in refused.value.hint
        assert lab.head == 1
        # A store of its own takes the other, and another name is another type.
        with el.scratch() as second:
            second.append("bill-1", [other.BillPaid(2)])
            assert [type(r.data) for r in second.read()] == [other.BillPaid]
        other.run(PAID.replace("@el.event", "@el.event(name='BillPaidAbroad')"))
        lab.append("bill-1", [other.BillPaid(2)])
        assert [type(r.data) for r in lab.read()] == [one.BillPaid, other.BillPaid]


def test_of_two_classes_that_could_read_an_event_neither_is_guessed(notebook: Notebooks, tmp_path: Path):
    one, other = notebook().run(PAID), notebook()
    with el.open(tmp_path / "log") as lab:
        lab.append("bill-1", [one.BillPaid(1)])
    other.run(PAID)
    with el.open(tmp_path / "log") as lab:
        with pytest.raises(SchemaConflict, match="2 event classes are stored as 'BillPaid'"):
            list(lab.read())
        # The newest version is the current one, wherever it stands.
        other.run(PAID.replace("@el.event", "@el.event(version=2)").replace("cents: int", "cents: int\n        by: str = 'cash'"))
        assert [r.data for r in lab.read()] == [other.BillPaid(1, "cash")]


def test_another_shape_needs_another_version_and_old_events_take_the_defaults(notebook: Notebooks, tmp_path: Path):
    cells = notebook().run(PAID)
    fields = "cents: int\n        by: str = 'cash'\n        tags: list[int] = el.field(default_factory=list)"
    more = PAID.replace("cents: int", fields)
    with el.open(tmp_path / "log") as lab:
        lab.append("bill-1", [cells.BillPaid(1)])
        cells.run(more)
        with pytest.raises(SchemaConflict, match=r"BillPaid version 1 differs .* in the class but not stored: by:s, tags:l_i64"):
            lab.append("bill-1", [cells.BillPaid(2, "card")])
        assert lab.head == 1
        cells.run(more.replace("@el.event", "@el.event(version=2)"))
        lab.append("bill-1", [cells.BillPaid(2, "card", [1])])
        lab.seal()
        lab.append("bill-1", [cells.BillPaid(3)])
        assert [r.data for r in lab.read()] == [
            cells.BillPaid(1, "cash", []), cells.BillPaid(2, "card", [1]), cells.BillPaid(3, "cash", []),
        ]  # fmt: skip
        assert [r.schema_version for r in lab.read()] == [1, 2, 2]


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ("cents: int\n        by: str", r"BillPaid\.by is not in version 1 .* has no default"),
        ("cents: str = '0'", r"BillPaid\.cents is stored as cents:i64 in version 1, now cents:s"),
        ("cents: el.Money = el.money(0)", r"BillPaid\.cents is stored as cents:i64 in version 1, now cents:d18_2"),
    ],
)
def test_a_stored_field_is_never_replaced_by_a_default(notebook: Notebooks, fields: str, says: str):
    cells = notebook().run(PAID)
    with el.scratch() as lab:
        lab.append("bill-1", [cells.BillPaid(1)])
        cells.run(PAID.replace("@el.event", "@el.event(version=2)").replace("cents: int", fields))
        with pytest.raises(SchemaConflict, match=says):
            list(lab.read())


def test_a_field_that_was_removed_is_left_out_of_what_is_read(notebook: Notebooks):
    cells = notebook().run(PAID.replace("cents: int", "cents: int\n        note: str"))
    with el.scratch() as lab:
        lab.append("bill-1", [cells.BillPaid(1, "thanks")])
        cells.run(PAID.replace("@el.event", "@el.event(version=2)"))
        assert [r.data for r in lab.read()] == [cells.BillPaid(1)]


def test_a_renamed_class_asks_for_the_stored_name(notebook: Notebooks, tmp_path: Path):
    def stored(*names: str) -> list[str]:
        """What is in the log after a process that has these classes, all of the same fields, appended one of the last."""
        cells = notebook("bills").run("import eventlab as el\n")
        for name in names:
            cls, _, given = name.partition("=")
            cells.run(f"@el.event({given})\nclass {cls}:\n    'About a bill.'\n    cents: int\n")
        try:
            with el.open(tmp_path / "log") as lab:
                before = lab.head
                try:
                    lab.append("bill-1", [getattr(cells, names[-1].partition("=")[0])(1)])
                except SchemaConflict:
                    assert lab.head == before
                    raise
                return [recorded.type for recorded in lab.read()]
        finally:
            cells.close()

    assert stored("BillPaid") == ["BillPaid"]
    with pytest.raises(SchemaConflict, match="BillSettled has the fields of the stored BillPaid") as refused:
        stored("BillSettled")
    assert (refused.value.type, refused.value.stored) == ("BillSettled", "BillPaid")
    assert "@el.event(name='BillPaid') keeps its history" in refused.value.hint
    assert stored("BillSettled=name='BillPaid'") == ["BillPaid"] * 2
    assert stored("BillSettled=name='BillSettled'") == ["BillPaid"] * 2 + ["BillSettled"], "a new type, and it says so"
    # While the stored types have their classes, another with the same fields is no rename.
    assert stored("BillPaid", "BillSettled", "BillWaived")[-1] == "BillWaived"


# -- findings ----------------------------------------------------------------------------------------------------------


def test_a_name_that_reads_oddly_is_a_finding_and_no_failure(notebook: Notebooks):
    cells = notebook().run(
        """
        import eventlab as el

        @el.event
        class PayBillNow:
            cents: int

        @el.event
        class BillQuestioned:
            "Someone doubts the bill."
            cents: int

        @el.command
        class BillWasQuestioned:
            cents: int

        @el.command
        class QuestionBill:
            "Say that the bill is doubtful."
            cents: int
        """
    )
    mine = {"PayBillNow", "BillQuestioned", "BillWasQuestioned", "QuestionBill"}
    found = {(f.code, f.subject) for f in el.findings() if f.subject in mine}
    assert found == {
        ("N1", "PayBillNow"), ("N3", "PayBillNow"), ("N2", "BillWasQuestioned"), ("N3", "BillWasQuestioned"),
    }  # fmt: skip
    with el.scratch() as lab:
        lab.append("bill-1", [cells.PayBillNow(1)])
        assert lab.head == 1
