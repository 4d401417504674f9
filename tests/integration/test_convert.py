"""Columns as stored columns: what a value of each declared type may look like outside, and what is refused, row and all."""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import uuid
from collections.abc import Callable
from decimal import Decimal
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

import eventlab as el
from eventlab.errors import IngestRefused, InvalidName, InvalidValue
from eventlab.integration.convert import moments, stored_series, tag_of_type
from eventlab.model.types import EPOCH, MICROSECOND, field_type
from eventlab.store.base import pack
from eventlab.store.columns import codec
from eventlab.testing import strategies

UTC = dt.UTC
WHERE = "ParcelWeighed from parcels.csv"
INSTANT = pl.Datetime("us", "UTC")


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Step(enum.IntEnum):
    ONE = 1
    TWO = 2


@dataclasses.dataclass(frozen=True)
class Spot:
    shelf: int
    since: dt.date | None


def series(values: Any, kind: Any = None) -> pl.Series:
    return values.rename("v") if isinstance(values, pl.Series) else pl.Series("v", values, dtype=kind, strict=False)


def counted(*counts: int, kind: Any) -> pl.Series:
    """Times of any unit from their counts, also such as Python has no value for."""
    return pl.Series("v", list(counts), dtype=pl.Int64).cast(kind)


def lists(*counts: list[int], of: Any) -> pl.Series:
    """Lists of such times."""
    return pl.Series("v", counts, dtype=pl.List(pl.Int32 if of == pl.Date else pl.Int64)).cast(pl.List(of))


def named(cases: list[tuple[Any, pl.Series, Any]]) -> list[Any]:
    """Cases under the declared type and their number: such columns cannot all be shown."""
    return [pytest.param(*case, id=f"{field_type(case[0], '').declared}-{i}") for i, case in enumerate(cases)]


def read(hint: Any, column: pl.Series, zone: str | None = None) -> list[Any]:
    """The Python values that a column becomes for a field declared so."""
    of = field_type(hint, "Parcel.v")
    stored = stored_series(column, of.tag, WHERE, zone, of)
    array = stored.to_arrow().cast(codec(of.tag).arrow)
    return [of.decode(value) for value in codec(of.tag).to_stored(array)]


# -- accepted --------------------------------------------------------------------------------------------------------------

DAY = dt.date(2013, 2, 8)
SIX = dt.datetime(2013, 2, 8, 18, tzinfo=UTC)
ID = uuid.UUID("018f6f2c-8f6e-7cc1-9a3b-5d1a3f0c2b11")

ACCEPTED: list[tuple[Any, pl.Series, list[Any]]] = [
    (int, series(["9223372036854775807", " -5 ", "+7", "007"]), [2**63 - 1, -5, 7, 7]),
    (int, series([1.0, -(2.0**63), 2.0**63 - 1024]), [1, -(2**63), 2**63 - 1024]),
    (int, series([Decimal("2.00")]), [2]),
    (int, series([255], pl.UInt8), [255]),
    (int, series([2**63 - 1], pl.Int128), [2**63 - 1]),
    (int | None, series([None, 1]), [None, 1]),
    (int | None, series([None, None]), [None, None]),
    (float, series(["0.1", "1e300", " -0.0", "5e-324"]), [0.1, 1e300, -0.0, 5e-324]),
    (float, series([1, 2**53, -(2**53)]), [1.0, 2.0**53, -(2.0**53)]),
    (float, series([1.5], pl.Float32), [1.5]),
    (el.AnyFloat, series(["inf", "-inf", "Infinity"]), [float("inf"), float("-inf"), float("inf")]),
    (bool, series(["true", " FALSE", "True"]), [True, False, True]),
    (str, series(["", " a ", "null", "𝔘\0"]), ["", " a ", "null", "𝔘\0"]),
    (str, series(["a"], pl.Categorical), ["a"]),
    (Colour, series(["red", "blue"]), [Colour.RED, Colour.BLUE]),
    (Step | None, series([2, None]), [Step.TWO, None]),
    (Step, series(["1"]), [Step.ONE]),
    (Literal["a", "b"], series(["b"], pl.Enum(["b"])), ["b"]),
    (el.Money, series(["9.50", "-0.5", " 1 ", "+2"]), [Decimal("9.50"), Decimal("-0.50"), Decimal(1), Decimal(2)]),
    (el.Money, series(["3.", "1.500", "0001.10"]), [Decimal(3), Decimal("1.5"), Decimal("1.1")]),
    (el.Money, series([10**16 - 1]), [Decimal(10**16 - 1)]),
    (el.Money, series([Decimal("1.550")]), [Decimal("1.55")]),
    (el.Money, series(["1." + "0" * 60, "0" * 60 + "9.99"]), [Decimal(1), Decimal("9.99")]),
    (Annotated[Decimal, el.Scale(18, 18)], series(["0.5", "-0.999999999999999999", "00.10"]),
     [Decimal("0.5"), Decimal("-0.999999999999999999"), Decimal("0.1")]),
    (Annotated[Decimal, el.Scale(38, 38)], series(["-0." + "9" * 38]), [Decimal("-0." + "9" * 38)]),
    (Annotated[Decimal, el.Scale(38, 0)], series(["9" * 38, "-1"]), [Decimal("9" * 38), Decimal(-1)]),
    (Decimal, series(["1.123456789"]), [Decimal("1.123456789")]),
    (el.ExactDecimal, series(["1.10", "1E+3"]), [Decimal("1.10"), Decimal("1E+3")]),
    (el.ExactDecimal, series([5]), [Decimal(5)]),
    (dt.datetime, series(["2013-02-08T18:00:00Z", "2013/02/08 18:00Z", "2013-02-08T19:00:00.000+01:00", "2013-02-08 12:30-0530"]),
     [SIX] * 4),
    (dt.datetime, series(["2013-02-08T18:00:00.1234560Z"]), [SIX.replace(microsecond=123456)]),
    (dt.datetime, counted(1_000, kind=pl.Datetime("ns", "UTC")), [EPOCH + MICROSECOND]),
    (dt.datetime, counted(1, kind=pl.Datetime("ms", "America/New_York")), [EPOCH + 1000 * MICROSECOND]),
    (dt.datetime | None, series([None, None], pl.String), [None, None]),
    (dt.date, series(["2013-02-08", "0001-01-01", " 9999-12-31"]), [DAY, dt.date.min, dt.date.max]),
    (dt.time, series(["18:30", "18:30:00", "18:30:00.5", "18:30:00.1234560"]),
     [dt.time(18, 30), dt.time(18, 30), dt.time(18, 30, 0, 500000), dt.time(18, 30, 0, 123456)]),
    (dt.timedelta, series(["5", "-1"]), [5 * MICROSECOND, -MICROSECOND]),
    (dt.timedelta, counted(7, kind=pl.Duration("ms")), [7000 * MICROSECOND]),
    (bytes, series(["AP8=", ""]), [b"\0\xff", b""]),
    (uuid.UUID, series([str(ID), ID.hex, ID.hex.upper()]), [ID, ID, ID]),
    (uuid.UUID, series([ID.bytes]), [ID]),
    (list[int], series(["[1,2]", "[]", " [ 3 ] "]), [[1, 2], [], [3]]),
    (list[int], series([[1, 2]], pl.Array(pl.Int64, 2)), [[1, 2]]),
    (list[int | None] | None, series([[1, None], None]), [[1, None], None]),
    (list[dt.datetime], series(['["2013-02-08T18:00:00Z","2013-02-08T19:00:00.0000000+01:00"]']), [[SIX, SIX]]),
    (list[dt.timedelta], series(["[5]"]), [[5 * MICROSECOND]]),
    (list[dt.timedelta], series([[5 * MICROSECOND]]), [[5 * MICROSECOND]]),
    (list[uuid.UUID], series([f'["{ID}"]']), [[ID]]),
    (list[bytes], series(['["AP8="]']), [[b"\0\xff"]]),
    (list[el.Money], series(['["9.50", 3]']), [[Decimal("9.50"), Decimal(3)]]),
    (list[Colour], series([["red"]]), [[Colour.RED]]),
    (frozenset[str], series([["b", "a", "b"]]), [frozenset("ab")]),
    (tuple[int, ...], series([[1]]), [(1,)]),
    (dict[str, int], series([{"a": 1}, {"b": 2}]), [{"a": 1}, {"b": 2}]),
    (dict[str, int], series(['{"a": 1}', '[{"key": "b", "value": 2}]', "{}"]), [{"a": 1}, {"b": 2}, {}]),
    (dict[str, int], series([[{"key": "b", "value": 2}]]), [{"b": 2}]),
    (dict[str, int | None], series(['{"a": null}']), [{"a": None}]),
    (list[Spot], series([[{"shelf": 1, "since": DAY}]]), [[Spot(1, DAY)]]),
    (list[Spot], series(['[{"shelf": 1, "since": "2013-02-08"}, {"shelf": 2}]']), [[Spot(1, DAY), Spot(2, None)]]),
    (Any, series(['{"b": 1, "a": [null, 1.5]}', '"x"', "1" * 30]), [{"a": [None, 1.5], "b": 1}, "x", int("1" * 30)]),
    (int | str, series(["5", '"5"']), [5, "5"]),
    (Any, series([[1, 2]]), [[1, 2]]),
]  # fmt: skip


@pytest.mark.parametrize(("hint", "column", "expected"), named(ACCEPTED))
def test_a_value_is_taken_as_it_is_written(hint: Any, column: pl.Series, expected: list[Any]) -> None:
    of = field_type(hint, "Parcel.v")
    found = read(hint, column)
    assert found == expected
    assert [pack(of.encode(value, "v")) for value in found] == [pack(of.encode(value, "v")) for value in expected]


INTEGERS = [pl.Int8, pl.Int16, pl.Int32, pl.Int64, pl.Int128, pl.UInt8, pl.UInt16, pl.UInt32, pl.UInt64, pl.UInt128]


@pytest.mark.parametrize("kind", INTEGERS)
def test_integers_of_every_width_are_taken_for_every_kind_of_number(kind: Any) -> None:
    column = series([1, None, 100], kind)
    for hint in (int, float, el.AnyFloat, el.Money, Decimal, el.ExactDecimal, dt.timedelta):
        expected = [1 * MICROSECOND, None, 100 * MICROSECOND] if hint is dt.timedelta else [1, None, 100]
        assert read(hint | None, column) == expected
    assert read(list[int], series([[1, 100]], pl.List(kind))) == [[1, 100]]


# -- refused ---------------------------------------------------------------------------------------------------------------

#: A declared type, a good value before the bad one, the bad one, and what is said of it. The bad one is in row 2.
REFUSED: list[tuple[Any, pl.Series, str]] = [
    (int, series(["1", "1.0"]), "is not a whole number within 64 bits"),
    (int, series(["1", "x"]), "is not a whole number"),
    (int, series(["1", ""]), "is not a whole number"),
    (int, series(["1", "1_000"]), "is not a whole number"),
    (int, series(["1", "9223372036854775808"]), "within 64 bits"),
    (int, series([1.0, 1.5]), "is not a whole number"),
    (int, series([1.0, 2.0**63]), "within 64 bits"),
    (int, series([1.0, float("nan")]), "is not a whole number"),
    (int, series([1.0, float("inf")]), "is not a whole number"),
    (int, series([1, 2**63], pl.UInt64), "within 64 bits"),
    (int, series([1, -(2**63) - 1], pl.Int128), "within 64 bits"),
    (int, series([Decimal("1.0"), Decimal("1.5")]), "is not a whole number"),
    (float, series(["1", "1,5"]), "is not a number"),
    (float, series(["1", "1e400"]), "is not a finite number"),
    (float, series(["1", "nan"]), "is not a finite number, and the field is no el.AnyFloat"),
    (float, series([1.0, float("nan")]), "is not a finite number"),
    (float | None, series([1.0, float("-inf")]), "is not a finite number"),
    (float, series([1, 2**53 + 1]), "has no exact float"),
    (float, series([1, -(2**53) - 1]), "has no exact float"),
    (float, series([1, 2**70], pl.Int128), "has no exact float"),
    (el.AnyFloat, series(["inf", "endless"]), "is not a number"),
    (bool, series(["true", "yes"]), "is neither true nor false"),
    (bool, series(["true", "1"]), "is neither true nor false"),
    (Colour, series(["red", "green"]), "is not in Colour"),
    (Colour | None, series([None, "RED"]), "is not in Colour"),
    (Step, series([1, 3]), "is not in Step"),
    (Literal["a", "b"], series(["a", "c"]), "is not in Literal"),
    (el.Money, series(["1.00", "1.555"]), "at most 16 digits before and 2 after the point"),
    (el.Money, series(["1.00", "10000000000000000.00"]), "at most 16 digits"),
    (el.Money, series(["1", "1e2"]), "is not a decimal"),
    (el.Money, series(["1", "NaN"]), "is not a decimal"),
    (el.Money, series(["1", ".5"]), "is not a decimal"),
    (el.Money, series(["1", ""]), "is not a decimal"),
    (el.Money, series([1, 10**16]), "is not a decimal"),
    (el.Money, series([1, 2**120], pl.Int128), "is not a decimal"),
    (el.Money, series([Decimal("1.000"), Decimal("1.555")]), "is not a decimal"),
    (el.Money, series([Decimal(1), Decimal(10**16)]), "is not a decimal"),
    (Annotated[Decimal, el.Scale(18, 18)], series(["0.1", "1.0"]), "at most 0 digits before and 18 after"),
    (Annotated[Decimal, el.Scale(38, 38)], series([Decimal("0.5"), Decimal("5.5")]), "at most 0 digits before"),
    (Annotated[Decimal, el.Scale(38, 0)], series([Decimal("1.0"), Decimal("1.9")]), "0 after the point"),
    (Decimal, series(["1", "1.1234567891"]), "9 after the point"),
    (el.ExactDecimal, series(["1", "NaN"]), "NaN and infinities are not amounts"),
    (el.ExactDecimal, series(["1", "x"]), "is not ExactDecimal"),
    (dt.datetime, series(["2013-02-08T18:00Z", "08.02.2013 18:00Z"]), "is not a time such as 2013-02-08T18:00:00Z"),
    (dt.datetime, series(["2013-02-08T18:00Z", "2013-02-08Z"]), "is not a time"),
    (dt.datetime, series(["2013-02-08T18:00Z", "2013-02-08T24:00Z"]), "is not a time"),
    (dt.datetime, series(["2013-02-08T18:00Z", "2016-12-31T23:59:60Z"]), "is not a time"),
    (dt.datetime, series(["2013-02-08T18:00Z", "2013-02-30T18:00Z"]), "is not in the calendar"),
    (dt.datetime, series(["2013-02-08T18:00Z", "2013-02-08T18:00:00+99:99"]), "is not a time"),
    (dt.datetime, series(["2013-02-08T18:00Z", "2013-02-08T18:00:00.1234567Z"]), "is not a time"),
    (dt.datetime, series(["2013-02-08T18:00Z", "2013-02-08T18:00"]), "has no offset from UTC, and other rows have one"),
    (dt.datetime, series(["2013-02-08T18:00Z", "9999-12-31T23:59:59-05:00"]), "beyond the years 1 to 9999"),
    (dt.datetime, series(["2013-02-08T18:00Z", "0001-01-01T00:00:00+01:00"]), "beyond the years 1 to 9999"),
    (dt.datetime, series(["2013-02-08T18:00Z", "0000-01-01T00:00:00Z"]), "beyond the years 1 to 9999"),
    (dt.datetime, counted(0, 1_001, kind=pl.Datetime("ns", "UTC")), "is finer than a microsecond"),
    (dt.datetime, counted(0, 253_402_300_800_000_000, kind=INSTANT), "beyond the years 1 to 9999"),
    (dt.datetime, counted(0, -62_135_596_800_000_001, kind=INSTANT), "beyond the years 1 to 9999"),
    (dt.datetime, counted(0, 9 * 10**18, kind=pl.Datetime("ms", "UTC")), "beyond the years 1 to 9999"),
    (dt.datetime, counted(0, -9 * 10**18, kind=INSTANT), "beyond the years 1 to 9999"),
    (dt.date, series(["2013-02-08", "2013-02-30"]), "is not a date such as 2013-02-08"),
    (dt.date, series(["2013-02-08", "08/02/2013"]), "is not a date"),
    (dt.date, series(["2013-02-08", "0000-01-01"]), "beyond the years 1 to 9999"),
    (dt.date, series(["2013-02-08", "+12013-01-01"]), "beyond the years 1 to 9999"),
    (dt.date, series([1, 3_000_000], pl.Int32).cast(pl.Date), "beyond the years 1 to 9999"),
    (dt.time, series(["18:30", "24:00"]), "is not a time of day such as 18:30:00"),
    (dt.time, series(["18:30", "23:59:60"]), "is not a time of day"),
    (dt.time, series(["18:30", "18:30+01:00"]), "is not a time of day"),
    (dt.time, series(["18:30", "18:30:00.1234567"]), "is finer than a microsecond"),
    (dt.time, counted(0, 1, kind=pl.Time), "is finer than a microsecond"),
    (dt.timedelta, counted(0, 1, kind=pl.Duration("ns")), "is finer than a microsecond"),
    (dt.timedelta, counted(0, 9 * 10**18, kind=pl.Duration("ms")), "64 bits of microseconds"),
    (dt.timedelta, series(["1", "1.5"]), "is not a whole number"),
    (bytes, series(["AA==", "AA"]), "is not base64"),
    (uuid.UUID, series([str(ID), "{" + str(ID) + "}"]), "is not a UUID"),
    (uuid.UUID, series([ID.bytes, ID.bytes[:15]]), "is not sixteen bytes"),
    (list[int], series([[], [1.5]], pl.List(pl.Float64)), r"is not list\[int\]: the value is 1.5"),
    (list[int], series(["[]", "[1, true]"]), r"the value is True \(bool\), but is declared int"),
    (list[int], series(["[]", "[1, null]"]), "is None, but is declared int"),
    (list[int], series(["[]", '["1"]']), "is declared int"),
    (list[int], series(["[]", "[9223372036854775808]"]), "beyond 64 bits"),
    (list[int], series(["[]", "{"]), "Expecting property name"),
    (list[int], series(["[]", "1"]), "1 is no list"),
    (list[int], series(["[]", "[" * 100_000]), "it is nested too deeply"),
    (list[float], series(["[]", "[NaN]"]), "only el.AnyFloat may be NaN"),
    (list[float], series([[1.0], [float("nan")]]), "only el.AnyFloat may be NaN"),
    (list[float], series(["[]", "[9007199254740993]"]), "this integer has no exact float"),
    (list[str], series(["[]", "[1]"]), "is declared str"),
    (list[str], series(["[]", r'["\ud800"]']), "half of a surrogate pair"),
    (list[el.Money], series(["[]", "[1.5]"]), "is declared Decimal"),
    (list[el.Money], series(["[]", '["1.555"]']), "more than 2 decimal places"),
    (list[Colour], series([["red"], ["green"]]), "'green' is not in Colour"),
    (list[bytes], series(["[]", '["*"]']), "is not base64"),
    (list[uuid.UUID], series(["[]", '["x"]']), "is not"),
    (list[dt.datetime], series(["[]", '["2013-02-08T18:00:00"]']), "it has no time zone"),
    (list[dt.datetime], series(["[]", '["2013-02-08T18:00:00.1234567Z"]']), "is finer than a microsecond"),
    (list[dt.datetime], series(["[]", '["9999-12-31T23:00:00-05:00"]']), "outside the years 1 to 9999"),
    (list[dt.datetime], lists([0], [0, 1], of=pl.Datetime("ns", "UTC")), "is finer than a microsecond"),
    (list[dt.datetime], lists([0], [4 * 10**17], of=INSTANT), "beyond the years 1 to 9999"),
    (list[dt.date], lists([0], [3_000_000], of=pl.Date), "beyond the years 1 to 9999"),
    (list[dt.time], lists([0], [1], of=pl.Time), "is finer than a microsecond"),
    (list[dt.time], series(["[]", '["18:30:00.0000001"]']), "is finer than a microsecond"),
    (list[dt.timedelta], lists([0], [1], of=pl.Duration("ns")), "is finer than a microsecond"),
    (list[dt.timedelta], series(["[]", "[true]"]), "is declared timedelta"),
    (list[Spot], series(["[]", '[{"shelf": 1, "rack": 2}]']), "there is no field 'rack'"),
    (list[Spot], series(["[]", '[{"since": null}]']), "is None, but is declared int"),
    (dict[str, int], series(["{}", '{"a": 1.5}']), "is declared int"),
    (dict[str, int], series(["{}", '{"a": 1, "a": 2}']), "the key 'a' occurs twice"),
    (dict[str, int], series([[], [{"key": "a", "value": 1}, {"key": "a", "value": 2}]]), "the key 'a' occurs twice"),
    (dict[str, int], series(["{}", '[{"key": "a"}]']), "is no pair of key and value"),
    (dict[str, int], series(["{}", '[{"key": 1, "value": 1}]']), "a key"),
    (dict[str, int], series(["{}", r'{"\ud800": 1}']), "half of a surrogate pair"),
    (dict[str, dt.time], series([[], [{"key": "a", "value": 1}]]).cast(pl.List(pl.Struct({"key": pl.String, "value": pl.Time}))),
     "is finer than a microsecond"),
    (Any, series(["1", "hello"]), "is not Any: Expecting value"),
    (Any, series(["1", "NaN"]), "NaN"),
    (Any, series([1.0, float("nan")]), "NaN"),
    (Any, series(["1", "9" * 5000]), "is not Any"),
    (Any, series(["1", "[" * 100_000 + "]" * 100_000]), "it is nested too deeply"),
    (int | str, series(["1", "1.5"]), "is declared int"),
    (int | str, series(["1", "true"]), "is declared int"),
]  # fmt: skip


@pytest.mark.parametrize(("hint", "column", "why"), named(REFUSED))
def test_a_value_that_does_not_fit_is_refused_with_its_row_and_column(hint: Any, column: pl.Series, why: str) -> None:
    read(hint, column[:1])
    with pytest.raises(IngestRefused, match=why) as refused:
        read(hint, column)
    assert (refused.value.row, refused.value.column) == (2, "v")
    assert str(refused.value).startswith(f"{WHERE}: row 2, column 'v': ")
    assert "nothing was stored" in refused.value.hint


#: Columns of a type that no value of the declared one has.
WRONG_TYPES: list[tuple[Any, pl.Series, str]] = [
    (int, series([True]), "Boolean instead of whole numbers"),
    (int, series([SIX]), "instead of whole numbers"),
    (int, series([[1]]), "List(Int64) instead of whole numbers"),
    (float, series([True]), "Boolean instead of numbers"),
    (float, series([Decimal("1.5")]), "instead of numbers"),
    (bool, series([1]), "Int64 instead of truth values"),
    (str, series([1]), "Int64 instead of text"),
    (str, series([b"x"]), "Binary instead of text"),
    (Colour, series([1]), "Int64 instead of text"),
    (Literal[1, 2], series([True]), "Boolean instead of whole numbers"),
    (el.Money, series([1.5]), "Float64 instead of exact decimals"),
    (el.Money, series([True]), "Boolean instead of decimals"),
    (dt.datetime, series([DAY]), "Date instead of moments in time"),
    (dt.datetime, series([1360346400]), "Int64 instead of moments in time"),
    (dt.date, series([SIX]), "instead of dates"),
    (dt.time, series([5]), "Int64 instead of times of day"),
    (dt.timedelta, series([1.0]), "Float64 instead of durations or whole microseconds"),
    (bytes, series([1]), "Int64 instead of bytes or their base64 text"),
    (uuid.UUID, series([1]), "Int64 instead of UUIDs"),
]  # fmt: skip


@pytest.mark.parametrize(("hint", "column", "why"), named(WRONG_TYPES))
def test_a_column_of_another_type_is_refused_as_a_whole(hint: Any, column: pl.Series, why: str) -> None:
    with pytest.raises(IngestRefused) as refused:
        read(hint, column)
    assert why in refused.value.message
    assert refused.value.column == "v"
    assert "row" not in refused.value.facts


def test_the_first_bad_row_is_named_and_the_others_are_counted() -> None:
    column = series([None, *map(str, range(2_000)), "x", "y", "3", "z"])
    with pytest.raises(IngestRefused, match=r"row 2,002, column 'v': 'x' is not a whole number .* \(3 rows like it\)"):
        read(int | None, column)


def test_a_long_value_is_shown_short() -> None:
    with pytest.raises(IngestRefused) as refused:
        read(int, series(["x" * 10_000]))
    assert len(refused.value.message) < 250
    assert refused.value.value == "x" * 10_000


# -- against an oracle -----------------------------------------------------------------------------------------------------


def agrees(hint: Any, text: str, parse: Callable[[str], Any]) -> None:
    """A column of this text is taken exactly when the value that Python reads fits the field, and as that value."""
    of = field_type(hint, "v")
    try:
        expected = pack(of.encode(parse(text), "v"))
    except InvalidValue:
        with pytest.raises(IngestRefused):
            read(hint, series([text]))
    else:
        (value,) = read(hint, series([text]))
        assert pack(of.encode(value, "v")) == expected


@given(st.integers() | st.integers(-(2**64), 2**64))
def test_text_of_whole_numbers_is_read_as_python_reads_it(number: int) -> None:
    agrees(int, str(number), int)


@given(st.floats() | st.integers().map(float), st.sampled_from([float, el.AnyFloat]))
def test_text_of_numbers_is_read_as_python_reads_it(number: float, hint: Any) -> None:
    agrees(hint, repr(number), float)


SCALES = [(18, 0), (18, 2), (18, 18), (38, 0), (38, 9), (38, 20), (38, 38)]
digits = st.text("0123456789", max_size=42)


@given(
    st.sampled_from(["", "-", "+"]),
    digits.filter(len),
    st.none() | digits,
    st.sampled_from([Annotated[Decimal, el.Scale(*of)] for of in SCALES]),
)
def test_text_of_decimals_is_read_exactly_or_refused(sign: str, whole: str, fraction: str | None, hint: Any) -> None:
    agrees(hint, sign + whole + ("" if fraction is None else f".{fraction}"), Decimal)


@given(
    st.datetimes(),
    st.integers(-1439, 1439),
    st.sampled_from(["T", " "]),
    st.sampled_from(["-", "/"]),
    st.booleans(),
)
def test_text_of_moments_is_read_as_python_reads_it(at: dt.datetime, offset: int, middle: str, dash: str, colon: bool) -> None:
    iso = at.replace(tzinfo=dt.timezone(dt.timedelta(minutes=offset))).isoformat(middle)
    text = iso[:10].replace("-", dash) + iso[10:]
    if not colon:
        text = text[:-3] + text[-2:]
    agrees(dt.datetime, text, lambda _: dt.datetime.fromisoformat(iso))


ZONES = ["UTC", "America/New_York", "Europe/Berlin", "Australia/Lord_Howe", "Asia/Kathmandu", "America/Puerto_Rico"]
#: Minutes around a change of clocks somewhere, and any others.
local_times = st.one_of(
    st.builds(
        lambda day, minutes: dt.datetime.combine(day, dt.time()) + dt.timedelta(minutes=minutes),
        st.sampled_from([*(dt.date(2013, m, d) for m, d in [(3, 10), (11, 3), (3, 31), (10, 27), (4, 7), (10, 6)])]),
        st.integers(0, 300),
    ),
    st.datetimes(dt.datetime(1990, 1, 1), dt.datetime(2030, 1, 1)),  # noqa: DTZ001 (wall clocks are meant)
)


@given(local_times, st.sampled_from(ZONES), st.sampled_from(["us", "ms", "ns", "text"]))
def test_a_wall_clock_names_exactly_one_instant_or_is_refused(at: dt.datetime, zone: str, form: str) -> None:
    at = at.replace(microsecond=at.microsecond // 1000 * 1000)
    column = series([at.isoformat(" ")]) if form == "text" else series([at], pl.Datetime(form))  # type: ignore[arg-type]
    # Python gives an instant to any wall clock; the clock shows it again at that instant only if there is one, and it is
    # another instant on the second showing if there are two.
    first, second = (at.replace(tzinfo=ZoneInfo(zone), fold=fold).astimezone(UTC) for fold in (0, 1))
    once = first == second and first.astimezone(ZoneInfo(zone)).replace(tzinfo=None) == at
    if once:
        assert read(dt.datetime, column, zone) == [first]
    else:
        with pytest.raises(IngestRefused, match=f"row 1, column 'v': .* happened twice or never on the clocks of {zone}"):
            read(dt.datetime, column, zone)


def columns_of(tag: str) -> st.SearchStrategy[tuple[str, list[Any]]]:
    return st.tuples(st.just(tag), st.lists(strategies.optional(tag), min_size=1, max_size=5))


@given(strategies.scalar_tags.flatmap(columns_of))
def test_what_is_in_stored_form_already_stays_as_it_is(found: tuple[str, list[Any]]) -> None:
    tag, values = found
    given_ = pl.Series("v", pl.from_arrow(codec(tag).to_array(values)))
    stored = stored_series(given_, tag, WHERE, None)
    assert [pack(value) for value in codec(tag).to_stored(stored.to_arrow().cast(codec(tag).arrow))] == [*map(pack, values)]


# -- zones -----------------------------------------------------------------------------------------------------------------


def test_a_wall_clock_without_a_zone_is_refused() -> None:
    for column in (series(["2013-02-08 18:00"]), series([dt.datetime(2013, 2, 8, 18)])):  # noqa: DTZ001
        with pytest.raises(IngestRefused, match="column 'v' holds wall-clock times without a zone") as refused:
            moments(column, WHERE, None)
        assert "tz='America/New_York'" in refused.value.hint
        assert "zones={'v': 'UTC'}" in refused.value.hint


@pytest.mark.parametrize("zone", ["Nowhere/Land", "../../etc/passwd", "+01:00", "", "America"])
def test_a_zone_that_does_not_exist_is_refused(zone: str) -> None:
    with pytest.raises(IngestRefused, match="there is no time zone"):
        moments(series(["2013-02-08 18:00"]), WHERE, zone)


def test_an_offset_in_the_text_and_a_zone_in_the_column_win_over_the_declared_zone() -> None:
    assert moments(series(["2013-02-08T18:00Z"]), WHERE, "America/New_York").to_list() == [SIX]
    assert moments(series([SIX]), WHERE, "America/New_York").to_list() == [SIX]


def test_a_local_time_that_lies_beyond_the_years_in_utc_is_refused() -> None:
    with pytest.raises(IngestRefused, match="row 2, column 'v': '9999-12-31 23:00' lies beyond the years"):
        moments(series(["2013-01-01 00:00", "9999-12-31 23:00"]), WHERE, "America/New_York")


# -- types without a class -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "tag"),
    [
        (pl.Int8, "i64"), (pl.UInt64, "i64"), (pl.Float32, "f64"), (pl.Boolean, "b"), (pl.String, "s"), (pl.Categorical, "s"),
        (pl.Enum(["a"]), "s"), (pl.Null, "s"), (pl.Binary, "bin"), (pl.Date, "d"), (pl.Time, "t"), (pl.Duration("ms"), "td"),
        (pl.Datetime("ns"), "ts"), (pl.Datetime("us", "UTC"), "ts"), (pl.Decimal(10, 2), "d18_2"), (pl.Decimal(19, 4), "d38_4"),
        (pl.List(pl.Int16), "l_i64"), (pl.Array(pl.String, 2), "l_s"), (pl.List(pl.List(pl.Date)), "l_l_d"),
        (pl.Struct({"a": pl.Int8, "b": pl.List(pl.String)}), "r(a=i64,b=l_s)"), (pl.Map(pl.String, pl.Float64), "m_f64"),
    ],
)  # fmt: skip
def test_every_type_of_a_frame_has_a_stored_type(kind: Any, tag: str) -> None:
    assert tag_of_type(kind() if isinstance(kind, type) else kind, WHERE, "v") == tag


@pytest.mark.parametrize(
    "kind", [pl.Object(), pl.Struct([]), pl.Struct({"a=b,c": pl.Int8}), pl.Map(pl.Int8, pl.Int8), pl.List(pl.Object)]
)
def test_a_type_without_a_stored_form_is_refused_by_name(kind: Any) -> None:
    with pytest.raises(IngestRefused, match="which has no stored form") as refused:
        tag_of_type(kind, WHERE, "v")
    assert refused.value.column == "v"


def test_fields_of_a_struct_that_sql_cannot_tell_apart_are_refused() -> None:
    with pytest.raises(InvalidName, match="'a' and 'A'"):
        tag_of_type(pl.Struct({"a": pl.Int8, "A": pl.Int8}), WHERE, "v")
