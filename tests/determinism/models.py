"""Models that other processes can import: sound ones, and one for each kind of fault a check must find."""

from __future__ import annotations

import datetime as dt
import os
import random
import shutil
import signal
import sys
import time
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Self
from zoneinfo import ZoneInfo

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


# -- folds that come to no end, or act on the world, at the fifth count


@el.projection
class Hangs:
    """Waits for what never comes."""

    count: int = 0

    @staticmethod
    def key(event: Counted) -> str:
        return "all"

    def evolve(self, event: Counted) -> Self:
        while self.count == 4:
            pass
        return replace(self, count=self.count + 1)


@el.projection
class Eats:
    """Takes all the memory there is."""

    count: int = 0

    @staticmethod
    def key(event: Counted) -> str:
        return "all"

    def evolve(self, event: Counted) -> Self:
        eaten = []
        while self.count == 4:
            eaten.append(bytearray(b"x" * (1 << 22)))
        return replace(self, count=self.count + 1)


@el.projection
class Exits:
    """Ends the program."""

    count: int = 0

    @staticmethod
    def key(event: Counted) -> str:
        return "all"

    def evolve(self, event: Counted) -> Self:
        if self.count == 4:
            sys.exit(7)
        return replace(self, count=self.count + 1)


@el.projection
class Dies:
    """Kills its own process."""

    count: int = 0

    @staticmethod
    def key(event: Counted) -> str:
        return "all"

    def evolve(self, event: Counted) -> Self:
        if self.count == 4:
            os.kill(os.getpid(), signal.SIGKILL)
        return replace(self, count=self.count + 1)


@el.projection
class Raises:
    """Cannot take what there is."""

    count: int = 0

    @staticmethod
    def key(event: Counted) -> str:
        return "all"

    def evolve(self, event: Counted) -> Self:
        if self.count == 4:
            raise ValueError("not more than four")
        return replace(self, count=self.count + 1)


@el.projection
class Prints:
    """Says what it does."""

    count: int = 0

    @staticmethod
    def key(event: Counted) -> str:
        return "all"

    def evolve(self, event: Counted) -> Self:
        if self.count == 4:
            print("counted", event.amount)
        return replace(self, count=self.count + 1)


@el.projection
class Forks:
    """Makes another process of itself."""

    count: int = 0

    @staticmethod
    def key(event: Counted) -> str:
        return "all"

    def evolve(self, event: Counted) -> Self:
        if self.count == 4:
            os.waitpid(os.fork(), 0)
        return replace(self, count=self.count + 1)


@el.projection
class AsksALibrary:
    """Touches a good deal, by way of a library, and keeps none of it."""

    count: int = 0

    @staticmethod
    def key(event: Counted) -> str:
        return "all"

    def evolve(self, event: Counted) -> Self:
        if self.count == 4:
            uuid.uuid1()
            uuid.uuid4()
            shutil.which("sh")
            Path("/etc/hostname").exists() and Path("/etc/hostname").read_text()
        return replace(self, count=self.count + 1)


@el.projection
class KeepsAZone:
    """Its state holds a moment in Berlin; what is stored of it is the moment, and the zone is gone."""

    hours: int = 0
    at: dt.datetime | None = None

    @staticmethod
    def key(event: Counted) -> str:
        return "all"

    def evolve(self, event: Counted, meta: el.Meta) -> Self:
        hours = self.hours if self.at is None else self.hours + self.at.hour
        return replace(self, hours=hours, at=dt.datetime(2026, 7, 1, 12, tzinfo=ZoneInfo("Europe/Berlin")))


@el.projection(any_order=True)
class Sums:
    """Claims that the order does not matter, and is right."""

    total: int = 0

    @staticmethod
    def key(event: Counted) -> str:
        return "all"

    def evolve(self, event: Counted) -> Self:
        return replace(self, total=self.total + event.amount)


@el.projection(any_order=True)
class ClaimsInVain:
    """Claims the same, and keeps the last."""

    last: int = 0

    @staticmethod
    def key(event: Counted) -> str:
        return "all"

    def evolve(self, event: Counted) -> Self:
        return replace(self, last=event.amount)
