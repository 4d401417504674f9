"""What a fold must give, in ten lines, and the logs and models that the tests of replay and time compare it with.

`folded` runs the models' own functions over a list of facts. Nothing of it reads a store: where in the log a fact lands is
counted here. `written` brings the same facts into a lab, in memory or on disk, hot, sealed or ingested.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import enum
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple, Self

import polars as pl
from hypothesis import strategies as st

import eventlab as el
from eventlab.model.models import model_of

START = dt.datetime(2026, 3, 1, 8, tzinfo=dt.UTC)
STEP = dt.timedelta(minutes=10)
LAYOUTS = ("memory", "hot", "sealed", "mixed", "ingested")


class Kind(enum.Enum):
    WOOD = "wood"
    STEEL = "steel"


@dataclass(frozen=True)
class Bay:
    """A place in the warehouse; `deck` holds None and text."""

    row: str
    number: int
    deck: str | None = None


@el.event
class CrateFilled:
    """Something was put into a crate."""

    amount: int
    kind: Kind = Kind.WOOD


@el.event
class CratePriced:
    """Someone said what its content is worth."""

    label: str
    price: el.Money


@el.event
class CrateMoved:
    """It stands somewhere else now, or nobody knows where."""

    to: Bay | None
    at: dt.datetime


@el.event
class CrateCleared:
    """Everything was taken out."""


@el.event
class CrateInspected:
    """No model of these tests lists it."""

    note: str


CrateEvent = CrateFilled | CratePriced | CrateMoved | CrateCleared


@el.aggregate
class Crate:
    """A field of each sort: counter, last value, set, map, log, nested, optional, money."""

    amount: int = 0
    total: el.Money = el.money(0)
    label: str | None = None
    labels: frozenset[str] = frozenset()
    prices: dict[str, el.Money] = el.field(default_factory=dict)
    log: tuple[str, ...] = ()
    bay: Bay | None = None
    origin: Bay = Bay("", 0)
    moved: dt.datetime | None = None
    kinds: tuple[Kind, ...] = ()
    idle: dt.timedelta = dt.timedelta(0)

    def evolve(self, event: CrateEvent) -> Self:
        match event:
            case CrateFilled(amount=amount, kind=kind):
                return replace(self, amount=self.amount + amount, kinds=(*self.kinds, kind), log=(*self.log, "filled"))
            case CratePriced(label=label, price=price):
                total = self.total + price
                return replace(self, label=label, labels=self.labels | {label}, prices={**self.prices, label: price}, total=total)
            case CrateMoved(to=bay, at=at):
                origin = self.origin if self.origin.row or bay is None else bay
                idle = at - self.moved if self.moved is not None else self.idle
                return replace(self, bay=bay, origin=origin, moved=at, idle=idle)
            case CrateCleared():
                return replace(self, amount=0, prices={}, log=(*self.log, "cleared"))
        return self


@el.aggregate
class Pallet:
    """A fold over the metadata."""

    first: dt.datetime | None = None
    versions: tuple[int, ...] = ()
    types: frozenset[str] = frozenset()

    def evolve(self, event: CrateFilled | CratePriced, meta: el.Meta) -> Self:
        first = self.first or meta.occurred_at
        return replace(self, first=first, versions=(*self.versions, meta.version), types=self.types | {meta.type})


@el.projection
class LabelValue:
    """A text key, from the event."""

    times: int = 0
    highest: el.Money | None = None

    @staticmethod
    def key(event: CratePriced | CrateFilled) -> str | None:
        return event.label if isinstance(event, CratePriced) else None

    def evolve(self, event: CratePriced | CrateFilled) -> Self:
        assert isinstance(event, CratePriced)
        highest = event.price if self.highest is None else max(self.highest, event.price)
        return replace(self, times=self.times + 1, highest=highest)


class BayDay(NamedTuple):
    deck: str | None
    day: dt.date


@el.projection
class BayTraffic:
    """A key of several columns, one of which may be None, from the event and its metadata."""

    moves: int = 0
    last: str = ""

    @staticmethod
    def key(event: CrateMoved, meta: el.Meta) -> BayDay | None:
        return BayDay(event.to.deck, meta.occurred_at.date()) if event.to is not None else None

    def evolve(self, event: CrateMoved, meta: el.Meta) -> Self:
        return replace(self, moves=self.moves + 1, last=meta.stream)


@el.projection
class StreamActivity:
    """No annotation: it takes every event."""

    events: int = 0

    @staticmethod
    def key(event, meta) -> str:  # type: ignore[no-untyped-def]
        return str(meta.category)

    def evolve(self, event) -> Self:  # type: ignore[no-untyped-def]
        return replace(self, events=self.events + 1)


MODELS: tuple[type[Any], ...] = (Crate, Pallet, LabelValue, BayTraffic, StreamActivity)
_LISTED = {Crate: CrateEvent, Pallet: CrateFilled | CratePriced, LabelValue: CratePriced | CrateFilled, BayTraffic: CrateMoved}

#: A fact is a stream and an event.
Fact = tuple[str, Any]


@dataclass(frozen=True)
class Log:
    """Facts in the order of the log, in the commits they are appended in."""

    commits: tuple[tuple[Fact, ...], ...]

    @property
    def facts(self) -> list[Fact]:
        return [fact for commit in self.commits for fact in commit]

    @property
    def ends(self) -> list[int]:
        """The positions at which commits end."""
        return list(itertools.accumulate(map(len, self.commits)))

    def singly(self) -> Log:
        """The same facts, each in a commit of its own."""
        return Log(tuple((fact,) for fact in self.facts))


# -- the oracle ------------------------------------------------------------------------------------------------------------


def folded(model: type[Any], facts: Sequence[Fact], ends: Sequence[int] = ()) -> dict[Any, tuple[Any, int, int]]:
    """State, version and position by key, after these facts."""
    rows: dict[Any, tuple[Any, int, int]] = {}
    versions: dict[str, int] = {}
    of, listed = model_of(model), _LISTED.get(model, object)
    for position, (stream, event) in enumerate(facts, 1):
        version = versions[stream] = versions.get(stream, 0) + 1
        category, id = stream.split("-", 1)
        at = occurred(position, ends)
        meta = SimpleNamespace(stream=stream, category=category, version=version, type=type(event).__name__, occurred_at=at)
        takes = isinstance(event, listed)
        if of.category is None:
            key = (of.key(event, meta) if of.key_takes_meta else of.key(event)) if takes and of.key else None
        else:
            key = id if category == of.category else None
        if key is not None:
            state, seen, _ = rows.get(key, (model(), 0, 0))
            if takes:
                state = state.evolve(event, meta) if of.takes_meta else state.evolve(event)
            rows[key] = (state, version if of.category else seen + 1, position)
    return rows


def table(model: type[Any], facts: Sequence[Fact], ends: Sequence[int] = ()) -> list[tuple[Any, ...]]:
    """The rows of a model's table as Polars gives them, sorted by key, None last."""
    rows = folded(model, facts, ends)
    columns = [key if isinstance(key, tuple) else (key,) for key in rows]
    found = [
        (*key, *(shown(getattr(state, f.name)) for f in dataclasses.fields(state)), version, position)
        for key, (state, version, position) in zip(columns, rows.values(), strict=True)
    ]
    width = len(model_of(model).key_names)
    return sorted(found, key=lambda row: [(part is None, part) for part in row[:width]])


def shown(value: Any) -> Any:
    """A value as a frame gives it back: sets as sorted lists, dataclasses as dicts, enum members as their values."""
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, (set, frozenset)):
        return sorted(map(shown, value))
    if isinstance(value, (tuple, list)):
        return list(map(shown, value))
    if isinstance(value, dict):
        return {key: shown(of) for key, of in value.items()}
    if dataclasses.is_dataclass(value):
        return {f.name: shown(getattr(value, f.name)) for f in dataclasses.fields(value)}
    return value


def occurred(position: int, ends: Sequence[int]) -> dt.datetime:
    """When the event at a position was recorded and occurred: every commit ten minutes after the one before."""
    return START + STEP * sum(end < position for end in ends)


# -- logs ------------------------------------------------------------------------------------------------------------------

_texts = st.sampled_from(["", "hat", "Hat", "größe", "a'b", "😀", "x" * 40]) | st.text(max_size=4)
_prices = st.integers(-(10**6), 10**6).map(lambda cents: el.money(0) + cents * el.money("0.01"))
_bays = st.builds(Bay, st.sampled_from(["A", "B"]), st.integers(0, 3), st.none() | st.sampled_from(["lower", "upper"]))
_moments = st.datetimes(dt.datetime(1900, 1, 1), dt.datetime(2100, 1, 1), timezones=st.just(dt.UTC))  # noqa: DTZ001
_events = st.one_of(
    st.builds(CrateFilled, st.integers(-(2**30), 2**30), st.sampled_from(Kind)),
    st.builds(CratePriced, _texts, _prices),
    st.builds(CrateMoved, st.none() | _bays, _moments),
    st.just(CrateCleared()),
    st.builds(CrateInspected, _texts),
)
_streams = st.sampled_from(["crate-1", "crate-2", "crate-1-b", "crate-ä/1", "pallet-1", "pallet-2"])


def _together(facts: list[Fact]) -> tuple[Fact, ...]:
    """One append takes the events of a stream together."""
    return tuple(fact for stream in dict.fromkeys(stream for stream, _ in facts) for fact in facts if fact[0] == stream)


def logs(min_commits: int = 0, max_commits: int = 7) -> st.SearchStrategy[Log]:
    """Facts of several streams of two categories, in commits of one to four."""
    commit = st.lists(st.tuples(_streams, _events), min_size=1, max_size=4).map(_together)
    return st.lists(commit, min_size=min_commits, max_size=max_commits).map(lambda commits: Log(tuple(commits)))


@contextlib.contextmanager
def written(layout: str, folder: Path | None, log: Log) -> Iterator[el.Lab]:
    """A lab that holds the log, in memory or in a folder: hot, sealed, half and half, or ingested from frames."""
    ticks = (START + STEP * i for i in range(10_000))
    if layout == "memory":
        lab = el.scratch(clock=lambda: next(ticks), seed=1)
    else:
        assert folder is not None
        lab = el.open(folder, clock=lambda: next(ticks), maintain=False)
    with lab:
        if layout == "ingested":
            ingest(lab, log)
        else:
            for i, commit in enumerate(log.commits):
                append(lab, commit)
                if layout == "mixed" and i == len(log.commits) // 2:
                    lab.seal()
            if layout == "sealed":
                lab.seal()
        yield lab


def append(lab: el.Lab, commit: Sequence[Fact]) -> None:
    """Append one commit of a log."""
    lab.append({stream: [event for of, event in commit if of == stream] for stream, _ in commit})


def ingest(lab: el.Lab, log: Log) -> None:
    """A log of single facts as imported history: a frame for each type and category, merged by time."""
    assert log == log.singly(), "an ingested row is a commit of its own"
    frames: dict[tuple[type[Any], str], list[dict[str, Any]]] = {}
    for position, (stream, event) in enumerate(log.facts, 1):
        category, id = stream.split("-", 1)
        row = {f.name: shown(getattr(event, f.name)) for f in dataclasses.fields(event)}
        frames.setdefault((type(event), category), []).append({**row, "_of": id, "_at": occurred(position, log.ends)})
    sources = [
        el.rows(cls, _frame(cls, rows), stream=f"{category}-{{_of}}", occurred_at="_at")
        for (cls, category), rows in frames.items()
    ]
    if sources:
        lab.ingest(sources, source="oracle", recorded_at="occurred_at")


_BAY = pl.Struct({"row": pl.String(), "number": pl.Int64(), "deck": pl.String()})
_COLUMNS: dict[type[Any], dict[str, Any]] = {
    CrateFilled: {"amount": pl.Int64(), "kind": pl.String()},
    CratePriced: {"label": pl.String(), "price": pl.Decimal(18, 2)},
    CrateMoved: {"to": _BAY, "at": pl.Datetime("us", "UTC")},
    CrateCleared: {},
    CrateInspected: {"note": pl.String()},
}


def _frame(cls: type[Any], rows: list[dict[str, Any]]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema={**_COLUMNS[cls], "_of": pl.String(), "_at": pl.Datetime("us", "UTC")})
