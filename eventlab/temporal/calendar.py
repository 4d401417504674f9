"""Times as people write them: ISO 8601 text, zones, and the moments they mean."""

from __future__ import annotations

import datetime as dt
import re
from typing import Final, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import polars as pl

from eventlab.errors import InvalidValue

Time = str | dt.datetime


def instant(time: Time, tz: str | None = None) -> dt.datetime:
    """A moment in UTC from a datetime or ISO 8601 text; without an offset it needs `tz`.

    >>> instant("2013-02-08T18:00Z") == instant("2013-02-08T13:00", "America/New_York")
    True
    """
    if isinstance(time, str):
        try:
            time = dt.datetime.fromisoformat(time)
        except ValueError:
            raise InvalidValue(f"{time!r} is not a time", hint="ISO 8601, for example 2026-02-08T18:00Z") from None
    if not isinstance(time, dt.datetime):
        raise InvalidValue(f"{time!r} is not a time", hint="a datetime or ISO 8601 text")
    if time.tzinfo is None:
        if tz is None:
            raise InvalidValue(f"{time.isoformat()} has no time zone", hint="end it with Z for UTC, or say tz='America/New_York'")
        time = time.replace(tzinfo=zone(tz))
    elif tz is not None:
        zone(tz)
    try:
        return time.astimezone(dt.UTC)
    except OverflowError:
        raise InvalidValue(f"{time.isoformat()} lies in UTC outside the years 1 to 9999") from None


def zone(tz: str) -> ZoneInfo:
    """A time zone by its name."""
    try:
        return ZoneInfo(tz)
    except (ZoneInfoNotFoundError, ValueError, OSError, TypeError):  # the third for a folder of zones: America
        raise InvalidValue(f"{tz!r} is not a time zone", hint="an IANA name such as 'Europe/Berlin'") from None


def local(time: Time, tz: str) -> dt.datetime:
    """What the clock of a zone shows at a time; of a time without an offset, what it says itself."""
    if isinstance(time, str):
        instant(time, tz)
        time = dt.datetime.fromisoformat(time)
    return time if time.tzinfo is None else time.astimezone(zone(tz)).replace(tzinfo=None)


_STEP: Final = re.compile(r"(\d+(ns|us|ms|s|m|h|d|w|mo|q|y))+")


def truncated(moment: dt.datetime, every: str, tz: str) -> dt.datetime:
    """What the clock of a zone shows at a moment, rounded down to a step."""
    try:
        found = pl.Series([local(moment, tz)], dtype=pl.Datetime("us")).dt.truncate(check_step(every)).item()
    except pl.exceptions.PolarsError as why:
        raise _no_step(every) from why
    assert isinstance(found, dt.datetime)
    return found


def steps(first: dt.datetime, end: dt.datetime, every: str, tz: str) -> pl.Series:
    """The moments in UTC, up to `end`, at which the clock of a zone shows `first`, a step more, and so on.

    By days and more, a time of day that a change of clocks leaves out is the moment at which they were changed, and of one that
    comes twice the first counts. By hours and less, what is left out is left out, and what comes twice counts twice.
    """
    by_days = not any(unit in _SHORT for _, unit in re.findall(r"(\d+)(ns|us|ms|mo|[smhdwqy])", check_step(every)))
    of = zone(tz)
    last = end.astimezone(of).replace(tzinfo=None) + dt.timedelta(days=1)
    try:
        clock = pl.datetime_range(first, last, every, time_unit="us", eager=True)
    except (pl.exceptions.PolarsError, ValueError) as why:
        raise _no_step(every) from why
    if by_days:
        # Of a time that is left out `astimezone` counts on from before the change.
        found = pl.Series([at.replace(tzinfo=of).astimezone(dt.UTC) for at in clock.to_list()], dtype=_MOMENT)
    else:
        twice: tuple[Literal["earliest", "latest"], ...] = ("earliest", "latest")
        there = [clock.dt.replace_time_zone(tz, ambiguous=which, non_existent="null") for which in twice]
        found = pl.concat([part.dt.convert_time_zone("UTC") for part in there]).drop_nulls()
    return found.filter(found <= end).unique().sort()


_MOMENT: Final = pl.Datetime("us", "UTC")
_SHORT: Final = frozenset({"ns", "us", "ms", "s", "m", "h"})


def check_step(every: str) -> str:
    """The step of a calendar, or `InvalidValue`."""
    if not isinstance(every, str) or not _STEP.fullmatch(every) or not re.search(r"[1-9]", every):
        raise _no_step(every)
    return every


def _no_step(every: object) -> InvalidValue:
    return InvalidValue(f"every={every!r} is no step of a calendar", hint="'1d', '6h', '15m', '1w', '1mo'")


def shown(when: dt.datetime) -> str:
    """A moment in UTC as text: `2013-02-08T18:00:00Z`."""
    return when.astimezone(dt.UTC).isoformat().replace("+00:00", "Z")
