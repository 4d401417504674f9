"""Times as people write them: ISO 8601 text, zones, and the moments they mean."""

from __future__ import annotations

import datetime as dt
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

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
        try:
            time = time.replace(tzinfo=ZoneInfo(tz))
        except (ZoneInfoNotFoundError, ValueError, OSError):  # the last for a folder of zones: America
            raise InvalidValue(f"{tz!r} is not a time zone", hint="an IANA name such as Europe/Berlin") from None
    try:
        return time.astimezone(dt.UTC)
    except OverflowError:
        raise InvalidValue(f"{time.isoformat()} lies in UTC outside the years 1 to 9999") from None


def shown(when: dt.datetime) -> str:
    """A moment in UTC as text: `2013-02-08T18:00:00Z`."""
    return when.astimezone(dt.UTC).isoformat().replace("+00:00", "Z")
