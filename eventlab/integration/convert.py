"""Columns of a frame as stored columns: parsed, checked and typed, with the row and column of what does not fit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import polars as pl
import pyarrow as pa

from eventlab.errors import IngestRefused
from eventlab.store.columns import codec


def refuse_rows(values: pl.Series, bad: pl.Series, where: str, column: str, why: str) -> None:
    """`IngestRefused` naming the first bad row, counted from 1, when there is one."""
    if not bad.any():
        return
    row = int(bad.arg_max() or 0)
    count = int(bad.sum())
    more = f" ({count:,} rows like it)" if count > 1 else ""
    raise IngestRefused(
        f"{where}: row {row + 1:,}, column {column!r}: {values[row]!r} {why}{more}",
        hint="nothing was stored; mend the rows, or declare nulls=, zones= or tz= for the column",
        row=row + 1,
        column=column,
        value=values[row],
    )


def stored_series(series: pl.Series, tag: str, where: str, zone: str | None) -> pl.Series:
    """A column as the Polars type of its tag; text is parsed, nothing is rounded."""
    convert = _CONVERT.get(tag)
    if convert is None and tag[0] == "d" and "_" in tag:
        return _decimal(series, tag, where)
    if convert is not None:
        return convert(series, where, zone)
    return _nested(series, tag, where)


def tag_of_type(kind: Any, where: str, column: str) -> str:
    """The tag of a Polars type, for an event type that has no class."""
    if kind.is_integer():
        return "i64"
    for test, tag in ((pl.Boolean, "b"), (pl.String, "s"), (pl.Date, "d"), (pl.Time, "t"), (pl.Duration, "td"), (pl.Binary, "bin"),
                      (pl.Datetime, "ts"), (pl.Categorical, "s"), (pl.Enum, "s"), (pl.Null, "s")):  # fmt: skip
        if kind == test:
            return tag
    if kind.is_float():
        return "f64"
    if isinstance(kind, pl.Decimal):
        return f"d{18 if (kind.precision or 38) <= 18 else 38}_{kind.scale}"
    if isinstance(kind, (pl.List, pl.Array)):
        return f"l_{tag_of_type(kind.inner, where, column)}"
    if isinstance(kind, pl.Struct):
        return f"r({','.join(f'{f.name}={tag_of_type(f.dtype, where, column)}' for f in kind.fields)})"
    raise IngestRefused(
        f"{where}: column {column!r} has type {kind}, which has no stored form", hint="cast it first", column=column
    )


def _lost(before: pl.Series, after: pl.Series) -> pl.Series:
    """Where a value turned to null."""
    return before.is_not_null() & after.is_null()


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
    if series.dtype == pl.Boolean or not (series.dtype.is_numeric() or series.dtype in (pl.String, pl.Null)):
        raise _type_error(series, where, "numbers")
    out = (series.str.strip_chars() if series.dtype == pl.String else series).cast(pl.Float64, strict=False)
    refuse_rows(series, _lost(series, out), where, series.name, "is not a number")
    return out


def _truth(series: pl.Series, where: str, zone: str | None) -> pl.Series:
    if series.dtype in (pl.Boolean, pl.Null):
        return series.cast(pl.Boolean)
    if series.dtype != pl.String:
        raise _type_error(series, where, "true or false")
    low = series.str.strip_chars().str.to_lowercase()
    out = pl.select(pl.when(low == "true").then(True).when(low == "false").then(False)).to_series().rename(series.name)
    refuse_rows(series, _lost(series, out), where, series.name, "is neither true nor false")
    return out


def moments(series: pl.Series, where: str, zone: str | None) -> pl.Series:
    """Moments in UTC; a wall clock needs its zone, and must name exactly one instant there."""
    if series.dtype == pl.Null:
        return series.cast(pl.Datetime("us", "UTC"))
    if series.dtype == pl.String:
        text = series.str.strip_chars()
        offset = text.str.contains(r"(?:Z|[+-]\d{2}:?\d{2})$")
        if offset.all() and len(text):
            out = text.str.to_datetime(time_unit="us", time_zone="UTC", strict=False)
            refuse_rows(series, _lost(series, out), where, series.name, "is not a time in ISO 8601")
            return out
        naive = text.str.to_datetime(time_unit="us", strict=False)
        refuse_rows(
            series, _lost(series, naive), where, series.name, "is not a time in ISO 8601, or only some rows have an offset"
        )
        series = naive.rename(series.name)
    if not isinstance(series.dtype, pl.Datetime):
        raise _type_error(series, where, "moments in time")
    if series.dtype.time_zone is not None:
        return series.dt.cast_time_unit("us").dt.convert_time_zone("UTC")
    if zone is None:
        raise IngestRefused(
            f"{where}: column {series.name!r} holds wall-clock times without a zone",
            hint=f"say tz='America/New_York' for the whole source, or zones={{{series.name!r}: 'UTC'}}",
            column=series.name,
        )
    out = series.dt.cast_time_unit("us").dt.replace_time_zone(zone, ambiguous="null", non_existent="null")
    refuse_rows(series, _lost(series, out), where, series.name, f"happened twice or never on the clocks of {zone}")
    return out.dt.convert_time_zone("UTC")


def _date(series: pl.Series, where: str, zone: str | None) -> pl.Series:
    if series.dtype in (pl.Date, pl.Null):
        return series.cast(pl.Date)
    if series.dtype != pl.String:
        raise _type_error(series, where, "dates")
    out = series.str.strip_chars().str.to_date("%Y-%m-%d", strict=False)
    refuse_rows(series, _lost(series, out), where, series.name, "is not a date such as 2013-02-08")
    return out


def _time(series: pl.Series, where: str, zone: str | None) -> pl.Series:
    if series.dtype in (pl.Time, pl.Null):
        return series.cast(pl.Time)
    if series.dtype != pl.String:
        raise _type_error(series, where, "times of day")
    text = series.str.strip_chars()
    out = text.str.to_time("%H:%M:%S%.f", strict=False).fill_null(text.str.to_time("%H:%M", strict=False))
    refuse_rows(series, _lost(series, out), where, series.name, "is not a time of day such as 18:30:00")
    return out


def _span(series: pl.Series, where: str, zone: str | None) -> pl.Series:
    if isinstance(series.dtype, pl.Duration):
        return series.dt.cast_time_unit("us").to_physical().cast(pl.Int64)
    if series.dtype.is_integer():
        return series.cast(pl.Int64)
    raise _type_error(series, where, "durations, or whole microseconds")


def _bytes(series: pl.Series, where: str, zone: str | None) -> pl.Series:
    if series.dtype == pl.Binary:
        return series
    raise _type_error(series, where, "bytes")


def _uuid(series: pl.Series, where: str, zone: str | None) -> pl.Series:
    if series.dtype == pl.Binary:
        refuse_rows(series, (series.bin.size() != 16).fill_null(False), where, series.name, "is not sixteen bytes")
        return series
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
        shape = rf"^[+-]?\d{{1,{digits - places}}}(\.\d{{0,{places}}}0*)?$"
        refuse_rows(series, (~text.str.contains(shape)).fill_null(False), where, series.name, f"is not {declared}")
        return text.str.replace(r"^\+", "").str.replace(r"\.$", "").cast(kind)
    if series.dtype.is_float():
        raise _type_error(series, where, "exact decimals; read them as text")
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


def _nested(series: pl.Series, tag: str, where: str) -> pl.Series:
    """Lists, maps and structs: what Arrow can cast without loss."""
    target = codec(tag).arrow
    try:
        array = series.to_arrow()
        return pl.Series(series.name, pl.from_arrow(array.cast(target)))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError) as why:
        raise IngestRefused(
            f"{where}: column {series.name!r}: {why}", hint=f"it is stored as {target}", column=series.name
        ) from None


def _type_error(series: pl.Series, where: str, wanted: str) -> IngestRefused:
    return IngestRefused(
        f"{where}: column {series.name!r} has type {series.dtype}, and {wanted} are wanted",
        hint="cast it first",
        column=series.name,
    )


_CONVERT: Final[dict[str, Callable[[pl.Series, str, str | None], pl.Series]]] = {
    "s": _text,
    "json": _text,
    "dec": _text,
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
