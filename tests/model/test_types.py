"""What a field may hold, its one stored form, and what is refused by name."""

from __future__ import annotations

import datetime as dt
import enum
import math
import sys
import uuid
import zoneinfo
from collections.abc import Callable
from dataclasses import InitVar, dataclass, field
from decimal import Decimal
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, NewType

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import eventlab as el
from eventlab.errors import InvalidValue, ModelError, StaleType, UnknownValue
from eventlab.model.types import FieldType, Record, back_of, field_type

UTC = dt.UTC
INT64 = st.integers(-(2**63), 2**63 - 1)
TEXT = st.text(st.characters(exclude_categories=["Cs"]))
ZONES = st.timezone_keys(allow_prefix=False).map(zoneinfo.ZoneInfo)
FIRST, LAST = dt.datetime(1, 1, 3), dt.datetime(9999, 12, 29)  # noqa: DTZ001 - hypothesis adds the zone
MOMENTS = st.datetimes(timezones=ZONES, min_value=FIRST, max_value=LAST)
SPANS = st.timedeltas(dt.timedelta(microseconds=-(2**63)), dt.timedelta(microseconds=2**63 - 1))


def decimals(digits: int, places: int) -> st.SearchStrategy[Decimal]:
    limit = 10**digits - 1
    return st.integers(-limit, limit).map(lambda scaled: Decimal(f"{scaled}e-{places}"))


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 10


class Size(enum.StrEnum):
    SMALL = "s"
    LARGE = "l"


@dataclass(frozen=True)
class Place:
    city: str
    height: float | None


@dataclass(frozen=True)
class Trip:
    start: Place
    via: Place | None
    fare: el.Money


Sku = NewType("Sku", str)
PLACES = st.builds(Place, TEXT, st.none() | st.floats(allow_nan=False, allow_infinity=False))
TRIPS = st.builds(Trip, PLACES, st.none() | PLACES, decimals(18, 2))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)

#: A type, its tag, and values of it. What comes back is equal, and of the same type.
EXACT: list[tuple[Any, str, st.SearchStrategy[Any]]] = [
    (bool, "b", st.booleans()),
    (int, "i64", INT64),
    (float, "f64", st.floats(allow_nan=False, allow_infinity=False)),
    (el.AnyFloat, "f64", st.floats()),
    (str, "s", TEXT),
    (Sku, "s", TEXT),
    (Colour, "s", st.sampled_from(Colour)),
    (Size, "s", st.sampled_from(Size)),
    (Level, "i64", st.sampled_from(Level)),
    (Literal["draft", "placed"], "s", st.sampled_from(["draft", "placed"])),
    (Literal[1, 2, 3], "i64", st.sampled_from([1, 2, 3])),
    (bytes, "bin", st.binary()),
    (uuid.UUID, "uuid", st.uuids()),
    (el.Money, "d18_2", decimals(18, 2)),
    (Annotated[Decimal, el.Scale(38, 4)], "d38_4", decimals(38, 4)),
    (Annotated[Decimal, el.Scale(18, 18)], "d18_18", decimals(18, 18)),
    (Decimal, "d38_9", decimals(38, 9)),
    (el.ExactDecimal, "dec", st.decimals(allow_nan=False, allow_infinity=False)),
    (dt.datetime, "ts", MOMENTS),
    (dt.date, "d", st.dates()),
    (dt.time, "t", st.times()),
    (dt.timedelta, "td", SPANS),
    (list[int], "l_i64", st.lists(INT64)),
    (tuple[str, ...], "l_s", st.lists(TEXT).map(tuple)),
    (set[str], "l_s", st.sets(TEXT)),
    (frozenset[int | None], "l_i64", st.frozensets(st.none() | INT64)),
    (frozenset[Place], "l_r(city=s,height=f64)", st.frozensets(PLACES)),
    (frozenset[tuple[int | None, ...]], "l_l_i64", st.frozensets(st.lists(st.none() | INT64, max_size=3).map(tuple))),
    (list[list[el.Money | None]], "l_l_d18_2", st.lists(st.lists(st.none() | decimals(18, 2)))),
    (dict[str, dt.date], "m_d", st.dictionaries(TEXT, st.dates())),
    (dict[str, list[Colour]], "m_l_s", st.dictionaries(TEXT, st.lists(st.sampled_from(Colour)))),
    (list[Trip], "l_r(start=r(city=s,height=f64),via=r(city=s,height=f64),fare=d18_2)", st.lists(TRIPS, max_size=3)),
    (Any, "json", JSON),
    (int | str, "json", INT64 | TEXT),
    (list[int] | dict[str, bool] | None, "json", st.none() | st.lists(INT64) | st.dictionaries(TEXT, st.booleans())),
]  # fmt: skip
NAMES = [str(hint).replace("typing.", "") if not isinstance(hint, type) else hint.__name__ for hint, _, _ in EXACT]


def same(one: Any, other: Any) -> bool:
    """Equal in value and in type; NaN is NaN, -0.0 is not 0.0, and a moment is its instant.

    Python calls the two moments of a repeated hour unequal to any in another zone.
    """
    if isinstance(one, dt.datetime) and isinstance(other, dt.datetime):
        return one.astimezone(UTC) == other.astimezone(UTC)
    if isinstance(one, float) and isinstance(other, float):
        return (math.isnan(one) and math.isnan(other)) or (one == other and math.copysign(1, one) == math.copysign(1, other))
    return bool(type(one) is type(other) and one == other)


@pytest.mark.parametrize(("hint", "tag", "values"), EXACT, ids=NAMES)
def test_a_value_comes_back_as_it_went_in(hint: Any, tag: str, values: st.SearchStrategy[Any]):
    kind = field_type(hint, "Paid.what")
    assert kind.tag == tag

    @given(values)
    def holds(value: Any) -> None:
        stored = kind.encode(value, "Paid.what")
        assert same(kind.decode(stored), value)
        assert kind.encode(kind.decode(stored), "Paid.what") == stored or value != value
        assert all(map(same, kind.decode_columns([[stored, stored]]), [value, value]))

    holds()


@given(TRIPS, st.none() | TRIPS)
def test_a_nested_dataclass_has_one_column_a_leaf(always: Trip, maybe: Trip | None):
    plain, optional = field_type(Trip, "Booked.trip"), field_type(Trip | None, "Booked.trip")
    columns = [leaf.column for leaf in optional.leaves("trip")]
    assert columns == [
        "trip:p", "trip.start.city:s", "trip.start.height:f64", "trip.via:p", "trip.via.city:s", "trip.via.height:f64",
        "trip.fare:d18_2",
    ]  # fmt: skip
    assert [leaf.column for leaf in plain.leaves("trip")] == columns[1:]
    for kind, value in ((plain, always), (optional, maybe), (optional, always)):
        out: list[Any] = []
        kind.put(value, "Booked.trip", out)
        assert kind.decode_columns([[leaf] for leaf in out]) == [value]


def test_an_absent_dataclass_is_not_one_of_nothings():
    kind = field_type(Place | None, "x")
    blank = dataclass(frozen=True)(type("Blank", (), {"__annotations__": {"note": str | None}, "note": None}))
    maybe = field_type(blank | None, "x")
    rows = []
    for value in (None, blank(None)):
        out: list[Any] = []
        maybe.put(value, "x", out)
        rows.append(out)
    assert rows == [[False, None], [True, None]]
    assert kind.decode_columns([[False], [None], [None]]) == [None]


@given(st.frozensets(TEXT), st.permutations(range(20)))
def test_a_set_has_one_stored_form_whatever_the_order_of_its_making(texts: frozenset[str], order: list[int]):
    kind = field_type(frozenset[str], "x")
    listed = sorted(texts)
    shuffled = frozenset(listed[i % len(listed)] for i in order) | texts if listed else texts
    assert kind.encode(shuffled, "x") == kind.encode(texts, "x") == listed


def test_a_set_with_nothing_in_it_or_nan_is_sorted_too():
    assert field_type(frozenset[int | None], "x").encode(frozenset({3, None, 1}), "x") == [None, 1, 3]
    stored = field_type(frozenset[el.AnyFloat], "x").encode(frozenset({2.0, math.nan, 1.0}), "x")
    assert stored[:2] == [1.0, 2.0]
    assert math.isnan(stored[2])
    parts = field_type(frozenset[Place], "x").encode(frozenset({Place("b", None), Place("a", 2.0), Place("a", None)}), "x")
    assert [(p["city"], p["height"]) for p in parts] == [("a", None), ("a", 2.0), ("b", None)]


def test_a_dict_is_stored_by_key():
    assert list(field_type(dict[str, int], "x").encode({"b": 1, "a": 2}, "x")) == ["a", "b"]
    assert field_type(Any, "x").encode({"b": [1], "a": None}, "x") == '{"a":null,"b":[1]}'


def test_a_moment_is_the_same_in_every_zone():
    kind = field_type(dt.datetime, "x")
    there = dt.datetime(2013, 2, 8, 13, tzinfo=dt.timezone(dt.timedelta(hours=-5)))
    assert kind.encode(there, "x") == kind.encode(dt.datetime(2013, 2, 8, 18, tzinfo=UTC), "x")
    assert kind.decode(kind.encode(there, "x")).tzinfo is UTC


def test_an_amount_has_the_scale_that_was_declared():
    kind = field_type(el.Money, "x")
    assert [kind.encode(v, "x") for v in (Decimal("9.5"), Decimal("9.500"), Decimal("95E-1"), 9)] == [950, 950, 950, 900]
    assert str(kind.decode(950)) == "9.50"


@pytest.mark.parametrize(("text", "amount"), [("9.50", "9.50"), (3, "3.00"), (Decimal("1.100"), "1.10"), (" 7 ", "7.00")])
def test_money_makes_two_decimal_places(text: str | int | Decimal, amount: str):
    assert str(el.money(text)) == amount


@pytest.mark.parametrize("wrong", ["9.505", "nine", "", None, 0.1, float("nan"), "NaN", "Infinity", "1e90"])
def test_money_takes_nothing_that_is_no_exact_amount(wrong: Any):
    with pytest.raises(InvalidValue):
        el.money(wrong)


# -- refused at append, by the path of the field -----------------------------------------------------------------------

LONE = "half \ud83d"
NAIVE = dt.datetime(2020, 1, 1)  # noqa: DTZ001 - what must be refused


@dataclass(frozen=True)
class Stranger:
    city: str
    height: float | None


@pytest.mark.parametrize(
    ("hint", "value", "path", "says"),
    [
        (bool, 1, "E.x", "declared bool"),
        (int, True, "E.x", "declared int"),
        (int, 1.0, "E.x", "declared int"),
        (int, "1", "E.x", "declared int"),
        (int, Level.LOW, "E.x", "declared int"),
        (int, 2**63, "E.x", "beyond 64 bits"),
        (int, -(2**63) - 1, "E.x", "beyond 64 bits"),
        (int, None, "E.x", "is None"),
        (float, math.nan, "E.x", "AnyFloat"),
        (float, -math.inf, "E.x", "AnyFloat"),
        (float, True, "E.x", "declared float"),
        (float, 2**53 + 1, "E.x", "no exact float"),
        (str, LONE, "E.x", "surrogate"),
        (str, b"x", "E.x", "declared str"),
        (str, Size.SMALL, "E.x", "declared str"),
        (bytes, "x", "E.x", "declared bytes"),
        (uuid.UUID, "018f6f2c-8f6e-7cc1-9a3b-5d1a3f0c2b11", "E.x", "declared UUID"),
        (el.Money, Decimal("1.005"), "E.x", "more than 2 decimal places"),
        (el.Money, Decimal("1e16"), "E.x", "more than 18 digits"),
        (el.Money, 9.5, "E.x", "el.money"),
        (el.Money, True, "E.x", "el.money"),
        (el.Money, Decimal("NaN"), "E.x", "NaN"),
        (Decimal, Decimal("1e-10"), "E.x", "more than 9 decimal places"),
        (el.ExactDecimal, Decimal("Infinity"), "E.x", "infinities"),
        (dt.datetime, NAIVE, "E.x", "no time zone"),
        (dt.datetime, dt.date(2020, 1, 1), "E.x", "declared datetime"),
        (dt.datetime, dt.datetime(1, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=1))), "E.x", "years 1 to 9999"),
        (dt.date, dt.datetime(2020, 1, 1, tzinfo=UTC), "E.x", "declared date"),
        (dt.time, dt.time(1, tzinfo=UTC), "E.x", "no zone"),
        (dt.timedelta, dt.timedelta.max, "E.x", "64 bits"),
        (Colour, "red", "E.x", "one of 'red', 'blue'"),
        (Literal["draft", "placed"], "shipped", "E.x", "one of 'draft', 'placed'"),
        (Literal["draft"], ["draft"], "E.x", "one of"),
        (Literal["draft"], ([],), "E.x", "one of"),
        (Literal[1, 2], True, "E.x", "one of 1, 2"),
        (Literal[1, 2], 1.0, "E.x", "one of 1, 2"),
        (Place, Stranger("a", None), "E.x", "declared Place"),
        (Place, None, "E.x", "declared Place"),
        (Place, Place(7, None), "E.x.city", "declared str"),  # type: ignore[arg-type]
        (Trip, Trip(Place("a", None), Place("b", math.inf), el.money(1)), "E.x.via.height", "AnyFloat"),
        (list[int], [1, True], "E.x[1]", "declared int"),
        (list[int], {1}, "E.x", "declared list[int]"),
        (list[str], "text", "E.x", "declared list[str]"),
        (frozenset[int], [1], "E.x", "declared frozenset[int]"),
        (tuple[Place, ...], (Place(LONE, None),), "E.x[0].city", "surrogate"),
        (dict[str, int], {"a": 1, "b": None}, "E.x['b']", "is None"),
        (dict[str, int], {1: 1}, "E.x (a key)", "declared str"),
        (dict[str, int], [("a", 1)], "E.x", "declared dict[str, int]"),
        (Any, {"a": [1, {2}]}, "E.x['a'][1]", "stored as JSON"),
        (Any, (1, 2), "E.x", "stored as JSON"),
        (Any, {"a": math.nan}, "E.x['a']", "AnyFloat"),
        (Any, Decimal(1), "E.x", "stored as JSON"),
        (Any, Level.LOW, "E.x", "stored as JSON"),
        (int | str, 1.5, "E.x", "declared int | str"),
        (int | str, 2**63, "E.x", "declared int | str"),
        (int | str, None, "E.x", "is None"),
    ],
)  # fmt: skip
def test_a_value_that_does_not_fit_is_refused_by_the_path_of_its_field(hint: Any, value: Any, path: str, says: str):
    with pytest.raises(InvalidValue) as refused:
        field_type(hint, "E.x").put(value, "E.x", [])
    assert refused.value.field == path
    assert path in refused.value.message
    assert says in refused.value.message


@given(st.integers())
@example(2**63)
def test_an_integer_is_stored_if_it_has_64_bits_and_refused_if_not(number: int):
    kind = field_type(int, "x")
    if -(2**63) <= number < 2**63:
        assert kind.encode(number, "x") == number
    else:
        with pytest.raises(InvalidValue):
            kind.encode(number, "x")


@given(st.decimals(allow_nan=False, allow_infinity=False, places=4))
def test_an_amount_is_stored_exactly_or_not_at_all(amount: Decimal):
    kind = field_type(el.Money, "x")
    exact = amount * 100 == int(amount * 100) and abs(int(amount * 100)) < 10**18
    if exact:
        assert kind.decode(kind.encode(amount, "x")) == amount
    else:
        with pytest.raises(InvalidValue):
            kind.encode(amount, "x")


@pytest.mark.parametrize("kind", [Place, Colour])
def test_a_value_of_a_class_that_was_defined_again_says_so(kind: type[Any]):
    if kind is Place:
        twin = dataclass(frozen=True)(type("Place", (), {"__annotations__": {"city": str}, "__module__": __name__}))
        value = twin("a")
    else:
        value = enum.Enum("Colour", {"RED": "red"}, module=__name__).RED  # type: ignore[attr-defined]
    with pytest.raises(StaleType, match=r"E\.x is .* of another definition of"):
        field_type(kind, "E.x").encode(value, "E.x")


# -- refused at definition, by the name of the field -------------------------------------------------------------------


@dataclass
class Tree:
    children: list[Tree]


@dataclass
class Computed:
    base: int
    twice: int = field(init=False)


@dataclass(kw_only=True)
class Keyed:
    base: int


@dataclass
class Passing:
    base: int
    more: InitVar[int]


@dataclass
class Nothing:
    constant: ClassVar[int] = 1


@dataclass
class Unsupported:
    good: int
    bad: complex


class Pair(NamedTuple):
    left: int
    right: int


Mixed = enum.Enum("Mixed", {"A": 1, "B": "b"})
Truth = enum.Enum("Truth", {"YES": True, "NO": False})
Huge = enum.Enum("Huge", {"A": 2**64})


@pytest.mark.parametrize(
    ("hint", "path"),
    [
        (complex, "E.x"), (list, "E.x"), (dict, "E.x"), (dict[int, str], "E.x"), (tuple[int, str], "E.x"), (Pair, "E.x"),
        (range, "E.x"), (Callable[[], int], "E.x"), (list[complex], "E.x[]"), (dict[str, complex], "E.x[]"),
        (Unsupported, "E.x.bad"), (list[Unsupported], "E.x[].bad"), (Tree, "E.x.children[]"), (Computed, "Computed.twice"),
        (Keyed, "Keyed.base"), (Passing, "Passing is made from (base, more)"), (Nothing, "E.x"),
        (Mixed, "E.x"), (Truth, "E.x"), (Literal["a", 1], "E.x"), (Literal[1, True], "E.x"), (Literal[None], "E.x"),
        (int | Decimal, "E.x"), (int | Colour, "E.x"), (list[int] | set[int], "E.x"), (Place | Trip, "E.x"),
        (el.Tag[float], "E.x"), (el.Tag[el.Money], "E.x"), (el.Tag[list[str]], "E.x"), (type("Loose", (), {}), "E.x"),
    ],
    ids=str,
)  # fmt: skip
def test_a_type_without_an_exact_stored_form_is_refused_at_definition_by_the_name_of_the_field(hint: Any, path: str):
    with pytest.raises(ModelError) as refused:
        field_type(hint, "E.x")
    assert path in refused.value.message


def test_an_enum_beyond_64_bits_is_refused_at_definition():
    with pytest.raises(InvalidValue, match="beyond 64 bits"):
        field_type(Huge, "E.x")


@pytest.mark.parametrize(("digits", "places"), [(17, 2), (19, 2), (18, 19), (38, -1)])
def test_a_scale_has_18_or_38_digits(digits: int, places: int):
    with pytest.raises(ModelError, match="18 or 38"):
        el.Scale(digits, places)


def test_an_event_names_the_field_it_cannot_store():
    with pytest.raises(ModelError, match=r"Weighed\.how is declared complex"):

        @el.event
        class Weighed:
            """Someone weighed it."""

            what: str
            how: complex


def test_a_type_that_is_not_defined_yet_is_named():
    with pytest.raises(ModelError, match=r"Sent.*Letter.*not defined"):

        @el.event
        class Sent:
            """It left the house."""

            what: Letter  # type: ignore[name-defined]  # noqa: F821


# -- read back ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("hint", "unknown"), [(Colour, "green"), (Level, 7), (Literal["a", "b"], "c"), (Literal[1], 2)])
def test_a_stored_value_that_the_class_no_longer_knows_is_an_unknown_value(hint: Any, unknown: Any):
    kind = field_type(hint, "Painted.with_")
    known = next(iter(kind.members)) if hasattr(kind, "members") else None
    with pytest.raises(UnknownValue, match=r"Painted\.with_: the stored value .* is not in"):
        kind.decode(unknown)
    with pytest.raises(UnknownValue, match=r"Painted\.with_"):
        kind.decode_columns([[known, None, unknown]])
    with pytest.raises(UnknownValue, match=r"Painted\.with_"):
        field_type(list[hint], "Painted.with_").decode([known, unknown])


@pytest.mark.parametrize(
    ("hint", "value"),
    [
        (el.Money, Decimal("9.50")), (list[el.Money], [Decimal("1.00"), None]), (dict[str, dt.date], {"a": dt.date(2020, 1, 1)}),
        (uuid.UUID, uuid.UUID(int=7)), (dt.timedelta, dt.timedelta(seconds=1)), (el.ExactDecimal, Decimal("1.230")),
        (Any, {"a": [1]}), (dt.datetime, dt.datetime(2020, 1, 1, tzinfo=UTC)), (dt.time, dt.time(1, 2, 3, 4)),
        (dt.date, dt.date(1, 1, 1)), (bytes, b"\x00"),
    ],
    ids=str,
)  # fmt: skip
def test_without_its_class_a_value_reads_by_its_tag_alone(hint: Any, value: Any):
    kind = field_type(hint if hint != list[el.Money] else list[el.Money | None], "x")
    assert back_of(kind.tag)(kind.encode(value, "x")) == value


def test_without_its_class_a_record_in_a_list_reads_as_a_dict_of_plain_values():
    kind = field_type(list[Trip], "x")
    stored = kind.encode([Trip(Place("a", None), None, el.money("9.50"))], "x")
    assert back_of(kind.tag)(stored) == [{"start": {"city": "a", "height": None}, "via": None, "fare": Decimal("9.50")}]


def test_a_tag_may_be_text_a_number_a_bool_a_uuid_or_nothing():
    for of in (str, int, bool, uuid.UUID, Colour, str | None):
        assert field_type(el.Tag[of], "x").is_tag
    assert field_type(el.Tag[str] | None, "x").is_tag
    assert not field_type(str, "x").is_tag


def test_none_is_stored_where_it_was_declared_and_only_there():
    for hint in (int, el.Money, dt.datetime, Colour, list[int], dict[str, int], Place, int | str):
        optional = field_type(hint | None, "x")
        assert optional.encode(None, "x") is None
        assert optional.decode(None) is None
        with pytest.raises(InvalidValue, match="is None"):
            field_type(hint, "x").encode(None, "x")


@pytest.mark.skipif(sys.version_info < (3, 12), reason="type aliases are from Python 3.12")
def test_a_type_alias_is_what_it_stands_for():
    names: dict[str, Any] = {}
    exec("type Sku = str", names)
    assert field_type(names["Sku"], "x").tag == "s"


def test_a_record_knows_its_parts():
    kind: FieldType = field_type(Trip, "x")
    assert isinstance(kind, Record)
    assert [name for name, _ in kind.fields] == ["start", "via", "fare"]
