"""Fixtures for pytest, there as soon as eventlab is installed: `lab`, a throw-away lab, and `clock`, the time it is in there."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from eventlab.lab import Lab


class Clock:
    """The time in a test: it stands still until it is told to go on.

    >>> clock = Clock()
    >>> clock().isoformat(), clock.advance(days=1, hours=2).isoformat()
    ('2026-01-01T12:00:00+00:00', '2026-01-02T14:00:00+00:00')
    """

    def __init__(self, now: dt.datetime = dt.datetime(2026, 1, 1, 12, tzinfo=dt.UTC)) -> None:
        self.now = now

    def __call__(self) -> dt.datetime:
        return self.now

    def advance(self, **more: float) -> dt.datetime:
        """Go on by days, hours, minutes, seconds (as `timedelta` takes them), and say what time it is then."""
        self.now += dt.timedelta(**more)
        return self.now

    def set(self, now: dt.datetime) -> None:
        """Put the clock to a moment, which has a zone."""
        if now.tzinfo is None:
            raise ValueError(f"{now} has no zone: dt.datetime(…, tzinfo=dt.UTC)")
        self.now = now


@pytest.fixture
def clock() -> Clock:
    """The time of the test: noon on 1 January 2026, UTC, until it is moved."""
    return Clock()


@pytest.fixture
def lab(clock: Clock) -> Iterator[Lab]:
    """A lab in memory whose ids repeat and whose time is `clock`."""
    import eventlab as el

    with el.scratch(clock=clock, seed=0) as made:
        yield made
