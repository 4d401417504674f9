"""Columns of a frame as stored columns: parsed, checked and typed, with the row and column of what does not fit."""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import functools
import json
import re
import uuid
import zoneinfo
from collections.abc import Callable
from decimal import Decimal
from typing import Annotated, Any, Final

import polars as pl

from eventlab.errors import EventlabError, IngestRefused, InvalidValue
from eventlab.model.names import check_distinct
from eventlab.model.types import (
    DAY_ZERO,
    FLOAT_EXACT,
    INT64_MAX,
    MAX_PAYLOAD_DEPTH,
    MOMENT_MAX,
    MOMENT_MIN,
    AnyFloat,
    Closed,
    ExactDecimal,
    FieldType,
    Scale,
    broken,
    field_type,
    record_parts,
)
from eventlab.store.columns import codec

#: Year first: with the day or the month first nobody can tell one from the other. No more digits than are kept, and no
#: leap second, which would be read as the second after it. The groups are the date, the time of day and the offset.
_HOUR: Final = r"(?:[01]\d|2[0-3])"
_MOMENT: Final = rf"^(\d{{4}}[-/]\d\d[-/]\d\d)(?:[T ]({_HOUR}:[0-5]\d(?::[0-5]\d(?:\.\d{{1,6}}0*)?)?)(Z|[+-]{_HOUR}:?[0-5]\d)?)?$"
_FINER: Final = re.compile(r"[.,]\d{6}\d*[1-9]")

#: What reading one value raises when it does not fit.
UNFIT: Final = (EventlabError, ValueError, TypeError, KeyError, ArithmeticError, RecursionError)


def refuse_rows(values: pl.Series, bad: pl.Series, where: str, column: str, why: str) -> None:
    """`IngestRefused` naming the first bad row, counted from 1, when there is one."""
    if not bad.any():
        return
    row = int(bad.arg_max() or 0)
    count = int(bad.sum())
    more = f" ({count:,} rows like it)" if count > 1 else ""
    raise _refused(values[row], row, where, column, why + more)


def _refused(value: Any, row: int, where: str, column: str, why: str) -> IngestRefused:
    text = repr(value)
    return IngestRefused(
        f"{where}: row {row + 1:,}, column {column!r}: {text if len(text) <= 80 else text[:77] + '...'} {why}",
        hint="nothing was stored; mend the rows, or declare nulls=, zones= or tz= for the column",
        row=row + 1,
        column=column,
        value=value,
    )


def refused_value(value: Any, row: int, where: str, column: str, of: FieldType | str, why: Exception) -> IngestRefused:
    """The refusal of one value of a column that is read value by value."""
    said = why.message if isinstance(why, EventlabError) else str(why) or type(why).__name__
    if isinstance(why, RecursionError):
        said = "it is nested too deeply"
    return _refused(value, row, where, column, f"is not {of.declared if isinstance(of, FieldType) else of}: {said}")


def stored_series(series: pl.Series, tag: str, where: str, zone: str | None, of: FieldType | None = None) -> pl.Series:
    """A column as the Polars type of its tag; text is parsed, nothing is rounded. `of` refuses what its field does."""
    convert = _CONVERT.get(tag)
    if series.dtype == pl.Object:
        return _by_value(series, tag, where, of)
    if convert is not None:
        stored = convert(series, where, zone)
    elif tag[0] == "d" and "_" in tag:
        stored = _decimal(series, tag, where)
    else:
        return _by_value(series, tag, where, of)
    if of is not None:
        _refuse_outside(of, series, stored, where)
    return stored


def _refuse_outside(of: FieldType, given: pl.Series, stored: pl.Series, where: str) -> None:
    """Refuse what a field does not take though its stored type does: other members of a closed set, numbers not finite."""
    if isinstance(of, Closed):
        known = pl.Series(list(of.members), dtype=stored.dtype)
        bad = stored.is_not_null() & ~stored.is_in(known.implode())
        refuse_rows(given, bad, where, given.name, f"is not in {of.declared}")
    elif stored.dtype == pl.Float64:
        wild = stored.is_not_null() & ~stored.is_finite()
        if wild.any() and not _takes(of, float("nan")):
            refuse_rows(given, wild, where, given.name, "is not a finite number, and the field is no el.AnyFloat")
    if of.limits:
        distinct = stored.drop_nulls().unique(maintain_order=True)
        values = [of.decode(value) for value in codec(of.tag).to_stored(distinct.to_arrow())]
        wanted = [next(filter(None, (broken(limit, value) for limit in of.limits)), "") for value in values]
        outside = distinct.filter(pl.Series([bool(said) for said in wanted], dtype=pl.Boolean))
        if len(outside):
            said = next(filter(None, wanted))
            refuse_rows(given, stored.is_in(outside.implode()) & stored.is_not_null(), where, given.name, f"has to be {said}")


def _takes(of: FieldType, value: Any) -> bool:
    try:
        of.encode(value, "")
    except InvalidValue:
        return False
    return True


def tag_of_type(kind: Any, where: str, column: str) -> str:
    """The tag of a Polars type, for an event type that has no class."""
    if kind.is_integer():
        return "i64"
    for test, tag in _TAG_OF:
        if kind == test:
            return tag
    if kind.is_float():
        return "f64"
    if isinstance(kind, pl.Decimal):
        return f"d{18 if (kind.precision or 38) <= 18 else 38}_{kind.scale}"
    if isinstance(kind, pl.Map) and kind.key == pl.String:
        return f"m_{tag_of_type(kind.value, where, column)}"
    if isinstance(kind, (pl.List, pl.Array)):
        return f"l_{tag_of_type(kind.inner, where, column)}"
    if isinstance(kind, pl.Struct) and kind.fields and all(field.name.isidentifier() for field in kind.fields):
        check_distinct([field.name for field in kind.fields], f"{where}: column {column!r}")
        return f"r({','.join(f'{f.name}={tag_of_type(f.dtype, where, column)}' for f in kind.fields)})"
    raise IngestRefused(
        f"{where}: column {column!r} has type {kind}, which has no stored form",
        hint="cast it first; the names of a struct's fields are letters, digits and '_'",
        column=column,
    )


_TAG_OF: Final = (
    (pl.Boolean, "b"), (pl.String, "s"), (pl.Date, "d"), (pl.Time, "t"), (pl.Duration, "td"), (pl.Binary, "bin"),
    (pl.Datetime, "ts"), (pl.Categorical, "s"), (pl.Enum, "s"), (pl.Null, "s"),
)  # fmt: skip


def _lost(before: pl.Series, after: pl.Series) -> pl.Series:
    """Where a value turned to null."""
    return before.is_not_null() & after.is_null()


def refuse_unfit(series: pl.Series, where: str, given: pl.Series | None = None) -> None:
    """Refuse times that the log cannot keep as they are, also inside lists and records; `given` is what they were read from."""
    for test, why in (
        (_beyond, "lies beyond the years 1 to 9999, or 64 bits of microseconds"),
        (_finer, "is finer than a microsecond"),
    ):
        bad = _rows_with(series, test)
        if bad is not None:
            # As counts: Python has no such time to show.
            refuse_rows(series.to_physical() if given is None else given, bad, where, series.name, why)


def _rows_with(series: pl.Series, found: Callable[[pl.Series], pl.Series | None]) -> pl.Series | None:
    """The rows that hold a value, however deep, for which `found` is true; None where it does not look at such types."""
    kind = series.dtype
    if isinstance(kind, pl.Map):
        return _rows_with(series.to_frame().select(pl.all().map.entries()).to_series(), found)
    if isinstance(kind, (pl.List, pl.Array)):
        inside = pl.DataFrame({"row": pl.int_range(len(series), eager=True), "value": series}).explode("value")
        deep = _rows_with(inside["value"], found)
        return None if deep is None else pl.int_range(len(series), eager=True).is_in(inside["row"].filter(deep).implode())
    if isinstance(kind, pl.Struct):
        parts = [part for field in kind.fields if (part := _rows_with(series.struct.field(field.name), found)) is not None]
        return functools.reduce(pl.Series.__or__, parts) if parts else None
    return found(series)


def _finer(series: pl.Series) -> pl.Series | None:
    """Times and durations with nanoseconds that would be lost."""
    if series.dtype == pl.Time or getattr(series.dtype, "time_unit", None) == "ns":
        return (series.to_physical() % 1000 != 0).fill_null(False)
    return None


def _beyond(series: pl.Series) -> pl.Series | None:
    """Dates and times that Python, and so every reader, has no value for; durations of more than 64 bits."""
    unit = getattr(series.dtype, "time_unit", None)
    if series.dtype == pl.Date:
        low, high = (dt.date.min - DAY_ZERO).days, (dt.date.max - DAY_ZERO).days
    elif isinstance(series.dtype, pl.Datetime) and unit != "ns":
        low, high = (MOMENT_MIN, MOMENT_MAX) if unit == "us" else (MOMENT_MIN // 1000, MOMENT_MAX // 1000)
    elif isinstance(series.dtype, pl.Duration) and unit == "ms":
        low, high = -(INT64_MAX // 1000), INT64_MAX // 1000
    else:
        return None
    counts = series.to_physical()
    return ((counts < low) | (counts > high)).fill_null(False)


def _text(series: pl.Series, where: str, zone: str | None) -> pl.Series:
    if series.dtype == pl.String or series.dtype in (pl.Categorical, pl.Enum, pl.Null):
        return series.cast(pl.String)
    raise _type_error(series, where, "text")


def _whole(series: pl.Series, where: str, zone: str | None) -> pl.Series:
    if series.dtype == pl.Boolean or not (series.dtype.is_numeric() or series.dtype in (pl.String, pl.Null)):
        raise _type_error(series, where, "whole numbers")
    out = (series.str.strip_chars() if series.dtype == pl.String else series).cast(pl.Int64, strict=False)
    refuse_rows(series, _lost(series, out), where, series.name, "is not a whole number within 64 bits")
    if series.dtype.is_float() or series.dtype.is_decimal():
        refuse_rows(series, (out.cast(series.dtype) != series).fill_null(False), where, series.name, "is not a whole number")
    return out


def _real(series: pl.Series, where: str, zone: str | None) -> pl.Series:
    if series.dtype.is_integer():
        wide = series.cast(pl.Int128, strict=False)  # a narrow type cannot be compared with a number beyond it
        large = _lost(series, wide) | ~wide.is_between(-FLOAT_EXACT, FLOAT_EXACT).fill_null(True)
        refuse_rows(series, large, where, series.name, "has no exact float")
    elif not series.dtype.is_float() and series.dtype not in (pl.String, pl.Null):
        raise _type_error(series, where, "numbers")
    out = (series.str.strip_chars() if series.dtype == pl.String else series).cast(pl.Float64, strict=False)
    refuse_rows(series, _lost(series, out), where, series.name, "is not a number")
    return out


def _truth(series: pl.Series, where: str, zone: str | None) -> pl.Series:
    if series.dtype in (pl.Boolean, pl.Null):
        return series.cast(pl.Boolean)
    if series.dtype != pl.String:
        raise _type_error(series, where, "truth values")
    low = series.str.strip_chars().str.to_lowercase()
    out = low.replace_strict({"true": True, "false": False}, default=None, return_dtype=pl.Boolean)
    refuse_rows(series, _lost(series, out), where, series.name, "is neither true nor false")
    return out


def moments(series: pl.Series, where: str, zone: str | None) -> pl.Series:
    """Moments in UTC; a wall clock needs its zone, and must name exactly one instant there."""
    if series.dtype == pl.Null:
        return series.cast(pl.Datetime("us", "UTC"))
    given: pl.Series | None = None
    if series.dtype == pl.String:
        given = series
        series, minutes = _read_moments(series, where)
        if minutes.count() or not series.count():
            without = series.is_not_null() & minutes.is_null()
            refuse_rows(given, without, where, series.name, "has no offset from UTC, and other rows have one")
            out = (series.to_physical() - minutes * 60_000_000).cast(pl.Datetime("us", "UTC"))
            refuse_unfit(out, where, given)
            return out
    if not isinstance(series.dtype, pl.Datetime):
        raise _type_error(series, where, "moments in time")
    refuse_unfit(series, where, given)
    series = series.dt.cast_time_unit("us")
    if series.dtype.time_zone is not None:  # type: ignore[attr-defined]
        return series.dt.convert_time_zone("UTC")
    if zone is None:
        raise IngestRefused(
            f"{where}: column {series.name!r} holds wall-clock times without a zone",
            hint=f"say tz='America/New_York' for the whole source, or zones={{{series.name!r}: 'UTC'}}",
            column=series.name,
        )
    try:
        zoneinfo.ZoneInfo(zone)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        raise IngestRefused(f"{where}: there is no time zone {zone!r}", hint="such as 'America/New_York'", zone=zone) from None
    out = series.dt.replace_time_zone(zone, ambiguous="null", non_existent="null").dt.convert_time_zone("UTC")
    shown = series if given is None else given
    refuse_rows(shown, _lost(series, out), where, series.name, f"happened twice or never on the clocks of {zone}")
    refuse_unfit(out, where, given)
    return out


def _read_moments(series: pl.Series, where: str) -> tuple[pl.Series, pl.Series]:
    """What text says of moments: the clock, and its offset from UTC in minutes where one is given."""
    parts = series.str.strip_chars().str.extract_groups(_MOMENT)
    date, time, offset = (parts.struct.field(str(group)) for group in (1, 2, 3))
    refuse_rows(series, _lost(series, date), where, series.name, "is not a time such as 2013-02-08T18:00:00Z")
    day = date.str.replace_all("/", "-", literal=True).str.to_date("%Y-%m-%d", strict=False)
    refuse_rows(series, _lost(series, day), where, series.name, "is not in the calendar")
    time = time.fill_null("00:00").str.replace(r"^(\d\d:\d\d)$", "$1:00").str.replace(r"(\.\d{6})0+$", "$1")
    clock, digits = pl.col("day").dt.combine(pl.col("time"), "us"), pl.col("offset").str.replace(":", "", literal=True)
    minutes = digits.str.slice(1, 2).cast(pl.Int64, strict=False) * 60 + digits.str.slice(3, 2).cast(pl.Int64, strict=False)
    minutes = pl.when(digits == "Z").then(0).when(digits.str.starts_with("-")).then(-minutes).otherwise(minutes)
    read = pl.DataFrame({"day": day, "time": time.str.to_time("%H:%M:%S%.f"), "offset": offset})
    read = read.select(clock.alias("clock"), minutes.alias("minutes"))
    return read["clock"].rename(series.name), read["minutes"]


def _date(series: pl.Series, where: str, zone: str | None) -> pl.Series:
    if series.dtype in (pl.Date, pl.Null):
        refuse_unfit(series, where)
        return series.cast(pl.Date)
    if series.dtype != pl.String:
        raise _type_error(series, where, "dates")
    out = series.str.strip_chars().str.to_date("%Y-%m-%d", strict=False)
    refuse_rows(series, _lost(series, out), where, series.name, "is not a date such as 2013-02-08")
    refuse_unfit(out, where, series)
    return out


def _time(series: pl.Series, where: str, zone: str | None) -> pl.Series:
    if series.dtype in (pl.Time, pl.Null):
        refuse_unfit(series, where)
        return series.cast(pl.Time)
    if series.dtype != pl.String:
        raise _type_error(series, where, "times of day")
    text = series.str.strip_chars().str.replace(r"(\.\d{6})0+$", "$1")
    refuse_rows(series, text.str.contains(r"\.\d{7,}$"), where, series.name, "is finer than a microsecond")
    out = text.str.to_time("%H:%M:%S%.f", strict=False).fill_null(text.str.to_time("%H:%M", strict=False))
    refuse_rows(series, _lost(series, out), where, series.name, "is not a time of day such as 18:30:00")
    return out


def _span(series: pl.Series, where: str, zone: str | None) -> pl.Series:
    if isinstance(series.dtype, pl.Duration):
        refuse_unfit(series, where)
        return series.dt.cast_time_unit("us").to_physical()
    if series.dtype.is_integer() or series.dtype in (pl.String, pl.Null):
        return _whole(series, where, zone)
    raise _type_error(series, where, "durations or whole microseconds")


def _bytes(series: pl.Series, where: str, zone: str | None) -> pl.Series:
    if series.dtype in (pl.Binary, pl.Null):
        return series.cast(pl.Binary)
    if series.dtype != pl.String:
        raise _type_error(series, where, "bytes or their base64 text")
    out = series.str.decode("base64", strict=False)
    refuse_rows(series, _lost(series, out), where, series.name, "is not base64")
    return out


def _uuid(series: pl.Series, where: str, zone: str | None) -> pl.Series:
    if series.dtype == pl.Binary:
        refuse_rows(series, (series.bin.size() != 16).fill_null(False), where, series.name, "is not sixteen bytes")
        return series
    if series.dtype == pl.Null:
        return series.cast(pl.Binary)
    if series.dtype != pl.String:
        raise _type_error(series, where, "UUIDs")
    plain = series.str.replace_all("-", "", literal=True)
    good = plain.str.contains(r"^[0-9a-fA-F]{32}$")
    refuse_rows(series, series.is_not_null() & ~good.fill_null(True), where, series.name, "is not a UUID")
    return plain.str.decode("hex").rename(series.name)


def _decimal(series: pl.Series, tag: str, where: str) -> pl.Series:
    digits, places = map(int, tag[1:].split("_"))
    declared = f"a decimal of at most {digits - places} digits before and {places} after the point"
    kind = pl.Decimal(38, places)
    if series.dtype == pl.String:
        text = series.str.strip_chars()
        whole = rf"0*\d{{1,{digits - places}}}" if digits > places else "0+"
        shape = rf"^[+-]?{whole}(\.\d{{0,{places}}}0*)?$"
        refuse_rows(series, (~text.str.contains(shape)).fill_null(False), where, series.name, f"is not {declared}")
        # Zeros that say nothing would be counted as digits.
        text = text.str.replace(r"^\+", "").str.replace(r"^(-?)0+(\d)", "$1$2")
        return text.str.replace(rf"(\.\d{{{places}}})0+$", "$1").str.replace(r"\.$", "").cast(kind)
    if series.dtype.is_float():
        raise _type_error(series, where, "exact decimals", hint="read them as text")
    if not (series.dtype.is_integer() or series.dtype.is_decimal() or series.dtype == pl.Null):
        raise _type_error(series, where, "decimals")
    out = series.cast(kind, strict=False)
    inexact = (
        (out.cast(pl.Decimal(38, max(places, series.dtype.scale))) != series)
        if isinstance(series.dtype, pl.Decimal)
        else out.is_null()
    )
    too_large = (out.abs() >= pl.Series([10 ** (digits - places)]).cast(kind)[0]) if digits < 38 else out.is_null() & False
    bad = series.is_not_null() & (out.is_null() | inexact.fill_null(False) | too_large.fill_null(False))
    refuse_rows(series, bad, where, series.name, f"is not {declared}")
    return out


# -- value by value: JSON, lists, maps and records -------------------------------------------------------------------------


def _by_value(series: pl.Series, tag: str, where: str, of: FieldType | None) -> pl.Series:
    """What no cast of a whole column does exactly: sets are sorted, members and parts checked, text is read as JSON."""
    refuse_unfit(series, where)
    text = tag == "json" or tag.startswith(("l_", "m_", "r("))
    objects = isinstance(series.dtype, pl.Struct) and tag.startswith("m_")
    stored: list[Any] = []
    for row, value in enumerate(series.to_list()):
        try:
            if objects and value is not None:  # a reader of JSON gives every object all the keys of the others
                value = {key: item for key, item in value.items() if item is not None}
            plain = stored_value(tag, loads(value) if text and isinstance(value, str) else value)
            stored.append(plain if plain is None or of is None else of.encode(of.decode(plain), series.name))
        except UNFIT as why:
            raise refused_value(value, row, where, series.name, of or tag, why) from None
    return pl.Series(series.name, pl.from_arrow(codec(tag).to_array(stored)))


def stored_value(tag: str, value: Any) -> Any:
    """The stored form of a plain value by its tag, such as the parts of a list that was read from JSON.

    >>> stored_value("l_r(price=d18_2)", [{"price": "9.50"}])
    [{'price': 950}]
    """
    if value is None:
        return None
    if tag.startswith("l_"):
        return [stored_value(tag[2:], item) for item in _of(list, value)]
    if tag.startswith("m_"):
        # Arrow has maps as lists of pairs.
        pairs = value if isinstance(value, dict) else _distinct([_pair(pair) for pair in _of(list, value)])
        return {key: stored_value(tag[2:], pairs[key]) for key in sorted(pairs)}
    if tag.startswith("r("):
        parts = dict(record_parts(tag))
        if unknown := set(_of(dict, value)) - set(parts):
            raise ValueError(f"there is no field {min(unknown)!r}")
        return {name: stored_value(part, value.get(name)) for name, part in parts.items()}
    if tag == "json":
        return field_type(Any, "").encode(value, "the value")
    kind, parse = _scalar(tag)
    return kind.encode(parse(value) if isinstance(value, str) else _unpacked(tag, value), "the value")


def loads(text: str) -> Any:
    """A value from JSON, where no key hides another.

    >>> loads('{"a": 1, "a": 2}')
    Traceback (most recent call last):
    ValueError: the key 'a' occurs twice
    """
    try:
        return json.loads(text, object_pairs_hook=_distinct)
    except RecursionError:
        raise ValueError(f"it is nested too deeply: more than {MAX_PAYLOAD_DEPTH} lists and dicts deep") from None


def _distinct(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(key for key in keys if keys.count(key) > 1)!r} occurs twice")
    return found


def _pair(value: Any) -> tuple[Any, Any]:
    if set(_of(dict, value)) != {"key", "value"}:
        raise ValueError(f"{value!r} is no pair of key and value")
    return value["key"], value["value"]


def _of(kind: type, value: Any) -> Any:
    if not isinstance(value, kind):
        raise TypeError(f"{value!r} is no {kind.__name__}")
    return value


def _scalar(tag: str) -> tuple[FieldType, Callable[[str], Any]]:
    """The type of a single value, and how its text is read."""
    if tag[0] == "d" and "_" in tag:
        digits, places = map(int, tag[1:].split("_"))
        return field_type(Annotated[Decimal, Scale(digits, places)], ""), Decimal
    return _SCALARS[tag]


def _unpacked(tag: str, value: Any) -> Any:
    """A value that its own type does not write as text: sixteen bytes of a UUID, microseconds of a duration."""
    if tag == "uuid" and isinstance(value, bytes):
        return uuid.UUID(bytes=value)
    return dt.timedelta(microseconds=value) if tag == "td" and type(value) is int else value


def _uuid_of(text: str) -> uuid.UUID:
    try:
        return uuid.UUID(text)
    except ValueError:
        return uuid.UUID(bytes=_base64(text))


def _base64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as why:
        raise ValueError(f"{text!r} is not base64: {why}") from None


def _moment_of(text: str) -> dt.datetime:
    return dt.datetime.fromisoformat(_whole_microseconds(text))


def _time_of(text: str) -> dt.time:
    return dt.time.fromisoformat(_whole_microseconds(text))


def _whole_microseconds(text: str) -> str:
    if _FINER.search(text):
        raise ValueError(f"{text!r} is finer than a microsecond")
    return text


def _microsecond_count(text: str) -> dt.timedelta:
    return dt.timedelta(microseconds=int(text))


def _as_it_is(text: str) -> str:
    return text


_SCALARS: Final[dict[str, tuple[FieldType, Callable[[str], Any]]]] = {
    "s": (field_type(str, ""), _as_it_is),
    "dec": (field_type(ExactDecimal, ""), Decimal),
    "i64": (field_type(int, ""), _as_it_is),
    "f64": (field_type(AnyFloat, ""), _as_it_is),
    "b": (field_type(bool, ""), _as_it_is),
    "ts": (field_type(dt.datetime, ""), _moment_of),
    "d": (field_type(dt.date, ""), dt.date.fromisoformat),
    "t": (field_type(dt.time, ""), _time_of),
    "td": (field_type(dt.timedelta, ""), _microsecond_count),
    "bin": (field_type(bytes, ""), _base64),
    "uuid": (field_type(uuid.UUID, ""), _uuid_of),
}


def _type_error(series: pl.Series, where: str, wanted: str, hint: str = "cast it first") -> IngestRefused:
    return IngestRefused(
        f"{where}: column {series.name!r} has type {series.dtype} instead of {wanted}", hint=hint, column=series.name
    )


_CONVERT: Final[dict[str, Callable[[pl.Series, str, str | None], pl.Series]]] = {
    "s": _text,
    "i64": _whole,
    "f64": _real,
    "b": _truth,
    "ts": moments,
    "d": _date,
    "t": _time,
    "td": _span,
    "bin": _bytes,
    "uuid": _uuid,
}
