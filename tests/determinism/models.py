"""Models that other processes can import: sound ones, and one for each kind of fault a check must find."""

from __future__ import annotations

import datetime as dt
import os
import random
import time
from dataclasses import replace
from typing import Self

import eventlab as el


@el.event
class Tagged:
    """Someone put a label on something."""

    label: str


@el.event
class Counted:
    """Someone counted."""

    amount: int


@el.event
class NeverHappened:
    """Handled, and never in the log."""

    reason: str


@el.aggregate
class Sound:
    """Nothing that varies: the verdict is no divergence."""

    labels: frozenset[str] = frozenset()
    total: int = 0
    last: str = ""

    def evolve(self, event: Tagged | Counted | NeverHappened) -> Self:
        match event:
            case Tagged(label=label):
                return replace(self, labels=self.labels | {label}, last=label)
            case Counted(amount=amount):
                return replace(self, total=self.total + amount)
        return self


@el.projection
class ByLabel:
    """A sound projection with a key of its own."""

    times: int = 0

    @staticmethod
    def key(event: Tagged, meta: el.Meta) -> str | None:
        return event.label if meta.version > 1 else None

    def evolve(self, event: Tagged) -> Self:
        return replace(self, times=self.times + 1)


@el.aggregate(name="sound_set_order")
class SetOrder:
    """Iterates a set of text: changes with the hash seed."""

    first: str = ""
    seen: frozenset[str] = frozenset()

    def evolve(self, event: Tagged | Counted) -> Self:
        if isinstance(event, Tagged):
            seen = self.seen | {event.label}
            return replace(self, seen=seen, first=next(iter(seen)))
        return self


@el.projection
class ClockReader:
    """Looks at the clock from the tenth count on."""

    count: int = 0
    at: dt.datetime | None = None

    @staticmethod
    def key(event: Counted) -> str:
        return "all"

    def evolve(self, event: Counted) -> Self:
        count = self.count + 1
        return replace(self, count=count, at=dt.datetime.now(dt.UTC) if count >= 10 else None)


@el.projection
class ZoneReader:
    """Formats by the time zone of the process."""

    hour: int = 0

    @staticmethod
    def key(event: Counted) -> str:
        return "all"

    def evolve(self, event: Counted) -> Self:
        return replace(self, hour=time.localtime(event.amount * 3600).tm_hour)


@el.projection
class Dice:
    """Throws dice once in a while."""

    eyes: int = 0

    @staticmethod
    def key(event: Counted) -> str:
        return str(event.amount % 3)

    def evolve(self, event: Counted) -> Self:
        return replace(self, eyes=random.randrange(1_000_000) if event.amount == 33 else self.eyes)


@el.projection
class AssertionOnly:
    """Relies on an assertion, which `python -O` leaves out."""

    count: int = 0

    @staticmethod
    def key(event: Counted) -> str:
        return "all"

    def evolve(self, event: Counted) -> Self:
        count = self.count + 1
        assert count < 20 or os.environ.get("NEVER"), "never more than twenty"
        return replace(self, count=count)
