"""Folds to check the checker with: faulty ones, each with a real kind of fault, and sound ones that look suspicious.

Every one folds the same few events. What makes a fold faulty is in its docstring, and nothing here is an example to follow.
"""

from __future__ import annotations

import datetime as dt
import functools
import hashlib
import itertools
import json
import math
import os
import random
import re
import sys
import tempfile
import time
import uuid
import zlib
from collections import Counter
from dataclasses import replace
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from time import perf_counter as ticks
from typing import Any, Final, Self, TypeVar, dataclass_transform
from zoneinfo import ZoneInfo

import eventlab as el


@el.event(name="selftest.ParcelScanned")
class ParcelScanned:
    """A parcel passed a gate."""

    gate: str
    grams: int
    at: dt.datetime
    marks: tuple[str, ...] = ()
    cost: float = 0.0


@el.event(name="selftest.ParcelLost")
class ParcelLost:
    """A parcel was lost."""

    reason: str


ParcelEvent = ParcelScanned | ParcelLost
C = TypeVar("C", bound=type[Any])
#: By their names, in their order.
FAULTY: Final[list[type[Any]]] = []
SOUND: Final[list[type[Any]]] = []


@dataclass_transform(frozen_default=True)
def _faulty(cls: C) -> C:
    made = el.aggregate(name=f"selftest_{cls.__name__.lower()}")(cls)
    FAULTY.append(made)
    return made


@dataclass_transform(frozen_default=True)
def _sound(cls: C) -> C:
    made = el.aggregate(name=f"selftest_{cls.__name__.lower()}")(cls)
    SOUND.append(made)
    return made


def happened() -> list[tuple[str, Any]]:
    """Streams and events that every fold of the corpus folds; the same each time."""
    chance = random.Random(11)
    begin = dt.datetime(2026, 3, 28, 22, tzinfo=dt.UTC)
    found: list[tuple[str, Any]] = []
    for number in range(72):
        parcel = f"{number % 4}"
        marks = tuple(chance.sample(["red", "blue", "fragile", "heavy", "abroad", "gift"], 3))
        at = begin + dt.timedelta(minutes=37 * number)
        if number % 9 == 8:
            found.append((parcel, ParcelLost(chance.choice(["rain", "theft", "fire"]))))
        else:
            found.append((parcel, ParcelScanned(chance.choice("ABCD"), chance.randrange(1, 900), at, marks, chance.random())))
    return found


def streams(*models: type[Any]) -> dict[str, list[Any]]:
    """What happened, in streams of the category of each model."""
    found: dict[str, list[Any]] = {}
    for model in models:
        for id, event in happened():
            found.setdefault(f"selftest_{model.__name__.lower()}-{id}", []).append(event)
    return found


# -- faulty ----------------------------------------------------------------------------------------------------------------

_SEEN: dict[str, int] = {}
_LAST: list[Any] = []
_BERLIN: Final = ZoneInfo("Europe/Berlin")


def _stamp() -> float:
    return ticks()


def _grown(made: list[int]) -> bool:
    made.append(made[-1] + 1)
    return True


class _Machine:
    """Something that is not the model's, whose methods nobody reads."""

    @property
    def day(self) -> str:
        return dt.datetime.fromtimestamp(1_767_225_600).strftime("%Y-%m-%d")  # noqa: DTZ006

    def pick(self, of: frozenset[str]) -> str:
        return next(iter(of))


_MACHINE: Final = _Machine()


@_faulty
class ReadsTheClock:
    """time.time()."""

    at: float = 0.0

    def evolve(self, event: ParcelEvent) -> Self:
        return replace(self, at=time.time())


@_faulty
class ReadsTheClockByAnAlias:
    """A counter of the machine, imported under another name, in a helper."""

    at: float = 0.0

    def evolve(self, event: ParcelEvent) -> Self:
        return replace(self, at=_stamp())


@_faulty
class ReadsToday:
    """date.today()."""

    day: str = ""

    def evolve(self, event: ParcelEvent) -> Self:
        return replace(self, day=dt.date.today().isoformat())  # noqa: DTZ011


@_faulty
class RollsADie:
    """random.random()."""

    roll: float = 0.0

    def evolve(self, event: ParcelEvent) -> Self:
        return replace(self, roll=random.random())


@_faulty
class MakesAnId:
    """uuid.uuid4()."""

    id: str = ""

    def evolve(self, event: ParcelEvent) -> Self:
        return replace(self, id=self.id or str(uuid.uuid4()))


@_faulty
class AsksTheSystemForBytes:
    """os.urandom()."""

    salt: bytes = b""

    def evolve(self, event: ParcelEvent) -> Self:
        return replace(self, salt=self.salt or os.urandom(4))


@_faulty
class ReadsTheEnvironment:
    """os.environ: the zone of the process."""

    zone: str = ""

    def evolve(self, event: ParcelEvent) -> Self:
        return replace(self, zone=os.environ.get("TZ", "?"))


@_faulty
class KnowsItsProcess:
    """os.getpid()."""

    process: int = 0

    def evolve(self, event: ParcelEvent) -> Self:
        return replace(self, process=os.getpid())


@_faulty
class LoopsOverASet:
    """The first mark in the order of a set."""

    first: str = ""

    def evolve(self, event: ParcelEvent) -> Self:
        if isinstance(event, ParcelScanned):
            for mark in set(event.marks):
                return replace(self, first=mark)
        return self


@_faulty
class ListsASetOfItsState:
    """A tuple made from a frozenset of the state."""

    marks: frozenset[str] = frozenset()
    order: tuple[str, ...] = ()

    def evolve(self, event: ParcelEvent) -> Self:
        if isinstance(event, ParcelScanned):
            marks = self.marks | set(event.marks)
            return replace(self, marks=marks, order=tuple(marks))
        return self


@_faulty
class JoinsASet:
    """', '.join of a set."""

    text: str = ""

    def evolve(self, event: ParcelEvent) -> Self:
        return replace(self, text=", ".join({"a", *event.marks})) if isinstance(event, ParcelScanned) else self


@_faulty
class SaysASet:
    """The text of a set: str() shows it in its order, and no loop is to be seen."""

    text: str = ""

    def evolve(self, event: ParcelEvent) -> Self:
        return replace(self, text=f"{frozenset(event.marks)}") if isinstance(event, ParcelScanned) else self


@_faulty
class TakesTheLongestOfASet:
    """max() of a set by a rough length: of those that are as long, the first in the order of the set."""

    mark: str = ""

    def evolve(self, event: ParcelEvent) -> Self:
        rough = max(set(event.marks), key=lambda mark: len(mark) // 4) if isinstance(event, ParcelScanned) else self.mark
        return replace(self, mark=rough)


@_faulty
class CountsTheMostCommon:
    """Counter(set).most_common(): ties in the order of the set."""

    mark: str = ""

    def evolve(self, event: ParcelEvent) -> Self:
        return replace(self, mark=Counter(set(event.marks)).most_common(1)[0][0]) if isinstance(event, ParcelScanned) else self


@_faulty
class AddsFloatsOfASet:
    """A sum of floats in the order of a set: rounding differs with the order."""

    total: float = 0.0

    def evolve(self, event: ParcelEvent) -> Self:
        if isinstance(event, ParcelScanned):
            parts = {mark: len(mark) * event.cost / 7 for mark in event.marks}
            return replace(self, total=self.total + sum(parts[mark] for mark in set(event.marks)))
        return self


@_faulty
class HashesText:
    """hash() of a text."""

    bucket: int = 0

    def evolve(self, event: ParcelEvent) -> Self:
        return replace(self, bucket=hash(event.gate) % 8) if isinstance(event, ParcelScanned) else self


@_faulty
class KnowsAnAddress:
    """id() of an object."""

    address: int = 0

    def evolve(self, event: ParcelEvent) -> Self:
        return replace(self, address=id(event))


@_faulty
class KeepsAGlobal:
    """A dict outside that remembers from event to event, and from fold to fold."""

    times: int = 0

    def evolve(self, event: ParcelEvent) -> Self:
        _SEEN["n"] = _SEEN.get("n", 0) + 1
        return replace(self, times=_SEEN["n"])


@_faulty
class RemembersTheLastEvent:
    """A list outside with the last event of any stream."""

    before: str = ""

    def evolve(self, event: ParcelEvent) -> Self:
        before = type(_LAST[-1]).__name__ if _LAST else ""
        _LAST.append(event)
        return replace(self, before=before)


@_faulty
class ReadsAZone:
    """A timestamp in the zone of the machine."""

    hour: int = 0

    def evolve(self, event: ParcelEvent) -> Self:
        if isinstance(event, ParcelScanned):
            return replace(self, hour=dt.datetime.fromtimestamp(event.at.timestamp()).hour)  # noqa: DTZ006
        return self


@_faulty
class TurnsToLocalTime:
    """astimezone() without a zone: that of the machine."""

    hour: int = 0

    def evolve(self, event: ParcelEvent) -> Self:
        return replace(self, hour=event.at.astimezone().hour) if isinstance(event, ParcelScanned) else self


@_faulty
class AsksATool:
    """A property of something else, which reads the zone of the machine: nobody sees that by reading the fold."""

    day: str = ""

    def evolve(self, event: ParcelEvent) -> Self:
        return replace(self, day=_MACHINE.day)


@_faulty
class LetsATool:
    """A method of something else that takes the first of a set."""

    mark: str = ""

    def evolve(self, event: ParcelEvent) -> Self:
        return replace(self, mark=_MACHINE.pick(frozenset(event.marks))) if isinstance(event, ParcelScanned) else self


@_faulty
class WorksInAnAssert:
    """An assert that does some of the work: python -O leaves it out."""

    count: int = 0

    def evolve(self, event: ParcelEvent) -> Self:
        made = [self.count]
        assert _grown(made)
        return replace(self, count=made[-1])


@_faulty
class NamesAFile:
    """A name of chance from the standard library."""

    name: str = ""

    def evolve(self, event: ParcelEvent) -> Self:
        return replace(self, name=self.name or next(tempfile._get_candidate_names()))  # type: ignore[attr-defined]


@_faulty
class KnowsHowItRuns:
    """sys.flags: whether python runs with -O."""

    optimised: int = 0

    def evolve(self, event: ParcelEvent) -> Self:
        return replace(self, optimised=sys.flags.optimize)


@_faulty
class HidesAZone:
    """A moment kept in Berlin: stored it is the moment alone, and whoever goes on from there reads another hour."""

    hours: int = 0
    seen: dt.datetime | None = None

    def evolve(self, event: ParcelEvent) -> Self:
        match event:
            case ParcelScanned(at=at):
                hours = self.hours if self.seen is None else self.hours + self.seen.hour
                return replace(self, hours=hours, seen=at.astimezone(_BERLIN))
        return self


# -- sound -----------------------------------------------------------------------------------------------------------------


@_sound
class TellsTheHourInBerlin:
    """A moment kept in UTC, and turned where it is read."""

    hours: int = 0
    seen: dt.datetime | None = None

    def evolve(self, event: ParcelEvent) -> Self:
        match event:
            case ParcelScanned(at=at):
                hours = self.hours if self.seen is None else self.hours + self.seen.astimezone(_BERLIN).hour
                return replace(self, hours=hours, seen=at)
        return self


class Colour(Enum):
    """Marks that are colours."""

    RED = "red"
    BLUE = "blue"


_LIMITS: Final = (100, 500)
_WORD: Final = re.compile(r"[a-z]+")


@functools.lru_cache
def _weight(grams: int) -> int:
    return grams // 100


@_sound
class SortsASet:
    """A set, sorted."""

    marks: tuple[str, ...] = ()

    def evolve(self, event: ParcelEvent) -> Self:
        return replace(self, marks=tuple(sorted({*self.marks, *event.marks}))) if isinstance(event, ParcelScanned) else self


@_sound
class CountsASet:
    """How many there are does not depend on the order."""

    count: int = 0

    def evolve(self, event: ParcelEvent) -> Self:
        return replace(self, count=self.count + len(set(event.marks))) if isinstance(event, ParcelScanned) else self


@_sound
class AsksWhetherAnyInASet:
    """any() of a set, of whole numbers and texts."""

    known: frozenset[str] = frozenset()
    again: int = 0

    def evolve(self, event: ParcelEvent) -> Self:
        if isinstance(event, ParcelScanned):
            again = any(mark in self.known for mark in set(event.marks))
            return replace(self, known=self.known | set(event.marks), again=self.again + again)
        return self


@_sound
class AddsWholeNumbersOfASet:
    """A sum of whole numbers is the same in any order."""

    letters: int = 0

    def evolve(self, event: ParcelEvent) -> Self:
        return replace(self, letters=sum(len(mark) for mark in set(event.marks))) if isinstance(event, ParcelScanned) else self


@_sound
class TakesTheTimeOfTheEvent:
    """The clock of the event, not of the machine."""

    at: dt.datetime | None = None

    def evolve(self, event: ParcelEvent, meta: el.Meta) -> Self:
        return replace(self, at=meta.occurred_at)


@_sound
class CallsAFieldTime:
    """Names like those of clocks and chance."""

    time: int = 0

    def evolve(self, event: ParcelEvent) -> Self:
        now = random = self.time + 1
        return replace(self, time=max(now, random))


@_sound
class MakesAMomentWithAZone:
    """A datetime with its zone."""

    late: bool = False

    def evolve(self, event: ParcelEvent) -> Self:
        return replace(self, late=isinstance(event, ParcelScanned) and event.at > dt.datetime(2026, 3, 29, tzinfo=dt.UTC))


@_sound
class TurnsToUtc:
    """astimezone() to a zone that is named."""

    hour: int = 0

    def evolve(self, event: ParcelEvent) -> Self:
        return replace(self, hour=event.at.astimezone(dt.UTC).hour) if isinstance(event, ParcelScanned) else self


@_sound
class DrawsFromASeed:
    """Chance that is seeded by the event is not chance."""

    roll: float = 0.0

    def evolve(self, event: ParcelEvent) -> Self:
        return replace(self, roll=random.Random(event.grams).random()) if isinstance(event, ParcelScanned) else self


@_sound
class NamesByADigest:
    """A digest is the same everywhere."""

    digest: str = ""

    def evolve(self, event: ParcelEvent) -> Self:
        return replace(self, digest=hashlib.sha256(f"{self.digest}{event}".encode()).hexdigest()[:8])


@_sound
class BucketsByAChecksum:
    """crc32 and not hash()."""

    bucket: int = 0

    def evolve(self, event: ParcelEvent) -> Self:
        return replace(self, bucket=zlib.crc32(event.gate.encode()) % 8) if isinstance(event, ParcelScanned) else self


@_sound
class DerivesAnId:
    """A UUID from a name."""

    id: str = ""

    def evolve(self, event: ParcelEvent) -> Self:
        return replace(self, id=str(uuid.uuid5(uuid.NAMESPACE_URL, type(event).__name__)))


@_sound
class KeepsADict:
    """A dict keeps its order."""

    gates: dict[str, int] = el.field(default_factory=dict)

    def evolve(self, event: ParcelEvent) -> Self:
        if isinstance(event, ParcelScanned):
            return replace(self, gates=self.gates | {event.gate: self.gates.get(event.gate, 0) + 1})
        return self


@_sound
class LoopsOverADict:
    """The items of a dict, in their order."""

    text: str = ""

    def evolve(self, event: ParcelEvent) -> Self:
        lengths = {mark: len(mark) for mark in getattr(event, "marks", ())}
        return replace(self, text=",".join(f"{mark}{n}" for mark, n in lengths.items()))


@_sound
class ChangesAListOfItsOwn:
    """A list that nobody else has."""

    marks: tuple[str, ...] = ()

    def evolve(self, event: ParcelEvent) -> Self:
        found = list(self.marks)
        found.extend(getattr(event, "marks", ()))
        found.sort()
        del found[4:]
        return replace(self, marks=tuple(found))


@_sound
class ReadsConstants:
    """A tuple and a pattern outside, which nobody can change."""

    heavy: int = 0
    words: int = 0

    def evolve(self, event: ParcelEvent) -> Self:
        if isinstance(event, ParcelScanned):
            words = sum(1 for mark in event.marks if _WORD.fullmatch(mark))
            return replace(self, heavy=self.heavy + (event.grams > _LIMITS[1]), words=self.words + words)
        return self


@_sound
class RemembersAPureFunction:
    """A cache of what is the same each time."""

    weight: int = 0

    def evolve(self, event: ParcelEvent) -> Self:
        return replace(self, weight=self.weight + _weight(event.grams)) if isinstance(event, ParcelScanned) else self


@_sound
class AddsDecimals:
    """Decimals add up exactly."""

    total: el.Money = el.money(0)

    def evolve(self, event: ParcelEvent) -> Self:
        return replace(self, total=self.total + Decimal(event.grams) / 100) if isinstance(event, ParcelScanned) else self


@_sound
class AddsFractions:
    """Fractions too; the state is a whole number."""

    sixths: int = 0

    def evolve(self, event: ParcelEvent) -> Self:
        more = Fraction(getattr(event, "grams", 0), 1) * 6
        return replace(self, sixths=self.sixths + int(more))


@_sound
class ComparesFloats:
    """The greatest of floats, and no sum of them."""

    dearest: float = 0.0

    def evolve(self, event: ParcelEvent) -> Self:
        return replace(self, dearest=max(self.dearest, getattr(event, "cost", 0.0)))


@_sound
class AddsExactly:
    """fsum of the floats of one event rounds once."""

    cost: float = 0.0

    def evolve(self, event: ParcelEvent) -> Self:
        return replace(self, cost=math.fsum([getattr(event, "cost", 0.0), 0.1, 0.2]))


@_sound
class WritesJson:
    """JSON with sorted keys."""

    text: str = ""

    def evolve(self, event: ParcelEvent) -> Self:
        return replace(self, text=json.dumps({"marks": sorted(getattr(event, "marks", ())), "a": 1}, sort_keys=True))


@_sound
class KnowsColours:
    """An Enum."""

    colour: Colour | None = None

    def evolve(self, event: ParcelEvent) -> Self:
        found = next((colour for colour in Colour if colour.value in getattr(event, "marks", ())), None)
        return replace(self, colour=found or self.colour)


@_sound
class TakesPairs:
    """Pairs of what has an order."""

    pairs: int = 0

    def evolve(self, event: ParcelEvent) -> Self:
        return replace(self, pairs=self.pairs + sum(a < b for a, b in itertools.pairwise(getattr(event, "marks", ()))))


@_sound
class AssertsWhatIsSo:
    """An assert that does no work."""

    count: int = 0

    def evolve(self, event: ParcelEvent) -> Self:
        assert self.count >= 0
        return replace(self, count=self.count + 1)


@_sound
class LooksAtTheVersion:
    """The metadata of the event."""

    version: int = 0
    stream: str = ""

    def evolve(self, event: ParcelEvent, meta: el.Meta) -> Self:
        return replace(self, version=meta.version, stream=meta.stream)
