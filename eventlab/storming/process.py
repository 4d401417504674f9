"""A process as it is meant: which step may follow on which, as a value and a file; logs that follow it, and logs held against it.

`Process` is what a board of the process says. It is written by hand, or taken from a discovery and corrected. `simulate` makes
a log of it, the same for the same seed; `conform` names whatever a log does otherwise.
"""

from __future__ import annotations

import datetime as dt
import json
import random
import tomllib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import polars as pl

from eventlab.errors import InvalidValue
from eventlab.model.names import check_category
from eventlab.store.words import many
from eventlab.storming.discovery import Discovery, ends_of, span_of

#: Where a stream begins and ends, in the place of a step.
BEGIN: Final = ""
END: Final = ""
#: The numbers of a conformance that a limit can be set to.
SHARES: Final = ("fitness", "coverage", "drift")
MONDAY: Final = dt.datetime(2026, 1, 5, 9, tzinfo=dt.UTC)
_KINDS: Final[dict[str, Any]] = {
    "kind": pl.String, "step": pl.String, "then": pl.String, "count": pl.Int64, "streams": pl.Int64, "first": pl.Int64,
    "last": pl.Int64, "example": pl.String,
}  # fmt: skip


@dataclass(frozen=True)
class Move:
    """A step and one that may follow: how often it does, of all that follow on the step, and after how many seconds.

    A `step` of "" is the beginning of a stream, a `then` of "" its end.
    """

    step: str
    then: str
    share: float = 1.0
    seconds: float = 60.0

    def __post_init__(self) -> None:
        if self.share <= 0 or self.seconds < 0:
            raise InvalidValue(f"{self}: a share is above 0, and no time is below it")
        if self.step == self.then == "":
            raise InvalidValue("a move from the beginning to the end has no step")


@dataclass(frozen=True)
class Process:
    """What may happen in the streams of a category: its moves, in the order of their steps.

    >>> order = Process("parcel", (Move("", "Sent"), Move("Sent", "Lost", 0.1), Move("Sent", "Arrived", 0.9),
    ...     Move("Lost", ""), Move("Arrived", "")))
    >>> order.steps
    ('Arrived', 'Lost', 'Sent')
    >>> Process.read(order.text()) == order
    True
    """

    category: str
    moves: tuple[Move, ...]

    def __post_init__(self) -> None:
        check_category(self.category)
        pairs = [(move.step, move.then) for move in self.moves]
        if len(set(pairs)) < len(pairs):
            twice = next(pair for pair in pairs if pairs.count(pair) > 1)
            shown = f"{twice[0] or 'begin'} → {twice[1] or 'end'}"
            raise InvalidValue(f"the move {shown} is there twice", hint="once, with its share")
        object.__setattr__(self, "moves", tuple(sorted(self.moves, key=lambda move: (move.step, move.then))))

    @property
    def steps(self) -> tuple[str, ...]:
        """The names of the steps."""
        return tuple(sorted({name for move in self.moves for name in (move.step, move.then) if name}))

    def text(self) -> str:
        """It as TOML: a line for each move, so that a change reads well in a diff."""
        lines = [f"category = {json.dumps(self.category)}", "moves = ["]
        lines += [f"    [{json.dumps(m.step)}, {json.dumps(m.then)}, {m.share!r}, {m.seconds!r}]," for m in self.moves]
        return "\n".join([*lines, "]", ""])

    @classmethod
    def read(cls, text: str) -> Process:
        """From its TOML; `InvalidValue` says what is wrong with it."""
        try:
            return cls.told(tomllib.loads(text))
        except tomllib.TOMLDecodeError as why:
            raise InvalidValue(f"this is no TOML: {why}", hint="Process(…).text() shows how it looks") from None

    @classmethod
    def told(cls, told: Mapping[str, Any]) -> Process:
        """From the values of its TOML, which may be part of another file."""
        try:
            moves = [Move(str(a), str(b), float(share), float(seconds)) for a, b, share, seconds in told["moves"]]
            return cls(str(told["category"]), tuple(moves))
        except (KeyError, TypeError, ValueError) as why:
            hint = 'category = "order", moves = [["", "Opened", 1.0, 0.0], …]'
            raise InvalidValue(f"this is no process: {type(why).__name__} {why}", hint=hint) from None

    @classmethod
    def of(cls, found: Discovery) -> Process:
        """The process that a discovery shows: of one category, each move with its share and the median of its waiting time."""
        categories = found.types["category"].unique().to_list()
        if len(categories) != 1:
            said = f"{len(categories):,} categories" if categories else "no category: nothing happened"
            raise InvalidValue(f"these are events of {said}", hint='of one: lab.discover(el.category("order"))')
        return cls.of_rows(categories[0], found._rows)

    @classmethod
    def of_rows(cls, category: str, rows: pl.DataFrame) -> Process:
        """The process of rows that `discovery.walked` gave, all of one category."""
        moves, total = moves_of(rows), Counter[str]()
        for one in moves:
            total[one["step"]] += one["count"]
        made = [Move(one["step"], one["then"], one["count"] / total[one["step"]], one["seconds"]) for one in moves]
        return cls(category, tuple(made))

    def simulate(self, streams: int, *, seed: int = 0, start: dt.datetime = MONDAY, longest: int = 10_000) -> pl.DataFrame:
        """A log that follows it: `id`, `step`, `at`, in the order of time.

        Waits are exponential, and streams begin one after another.
        The walk by the shares of moves, as a Markov chain. A step that nothing follows ends its stream, and so does the
        `longest` way.
        """
        chance = random.Random(seed)
        onward: dict[str, list[Move]] = {}
        for move in self.moves:
            onward.setdefault(move.step, []).append(move)
        if BEGIN not in onward:
            raise InvalidValue(f"the process of {self.category!r} has no beginning", hint='Move("", "Opened")')
        rows: list[tuple[str, str, dt.datetime]] = []
        begun = start
        for number in range(streams):
            begun += dt.timedelta(seconds=chance.expovariate(1 / 30))
            step, at = BEGIN, begun
            for _ in range(longest):
                moves = onward.get(step)
                if moves is None:
                    break
                (move,) = chance.choices(moves, [one.share for one in moves])
                if move.then == END:
                    break
                # A microsecond at least: what is at one moment has no order that an ingest would keep.
                wait = chance.expovariate(1 / move.seconds) if move.seconds else 0.0
                at += dt.timedelta(seconds=wait) + dt.timedelta(microseconds=1)
                step = move.then
                rows.append((f"{number}", step, at))
        kinds: dict[str, Any] = {"id": pl.String, "step": pl.String, "at": pl.Datetime("us", "UTC")}
        return pl.DataFrame(rows, schema=kinds, orient="row").sort("at", maintain_order=True)


@dataclass(frozen=True)
class Accepted:
    """A deviation that is known and borne: which, why, and until when."""

    kind: str
    step: str
    then: str = ""
    reason: str = ""
    until: dt.date | None = None

    def __post_init__(self) -> None:
        if not self.reason.strip():
            raise InvalidValue(f"{self.kind} {self.step} is accepted without a reason", hint='reason = "the old tills do it so"')
        if self.until is not None and (isinstance(self.until, dt.datetime) or not isinstance(self.until, dt.date)):
            raise InvalidValue(f"until = {self.until!r}", hint="a day: until = 2027-01-31")


def read_accepted(path: Path) -> list[Accepted]:
    """Accepted deviations from their file: `[[accepted]]` with kind, step, then, reason, until."""
    try:
        return [Accepted(**one) for one in tomllib.loads(path.read_text(encoding="utf-8")).get("accepted", ())]
    except OSError as why:
        raise InvalidValue(f"{path} cannot be read: {why.strerror}") from None
    except (tomllib.TOMLDecodeError, TypeError, AttributeError, UnicodeDecodeError) as why:
        hint = '[[accepted]] kind = "undesigned move", step = "Sent", then = "Lost", reason = "…", until = 2027-01-31'
        raise InvalidValue(f"{path} says no accepted deviations: {why}", hint=hint) from None


@dataclass(frozen=True, eq=False)
class Conformance:
    """A log held against a process: what differs (`deviations`), and how far the two agree.

    `fitness` is the share of streams that took only moves of the process, `coverage` that of its moves which happened. Both speak
    of the events from `first` to `last`.
    """

    category: str
    streams: int
    fitness: float
    coverage: float
    first: int
    last: int
    deviations: pl.DataFrame = field(repr=False)
    #: Of a board: the share of events whose stored fields are not those of their notes.
    drift: float = 0.0
    #: Of a board: what the metadata of the log does not tell.
    not_observable: tuple[str, ...] = ()
    #: The streams that do not follow.
    strays: tuple[str, ...] = field(default=(), repr=False)
    #: Deviations that somebody accepted, with the reason.
    accepted: pl.DataFrame | None = field(default=None, repr=False)

    @property
    def ok(self) -> bool:
        """Whether nothing differs."""
        return not len(self.deviations)

    def accepting(self, given: Sequence[Accepted], today: dt.date) -> Conformance:
        """Without the deviations that somebody accepted, each with a reason and until its day; those are in `accepted` then."""
        valid = [one for one in given if one.until is None or today <= one.until]
        names = ("kind", "step", "then")
        rows = [(one.kind, one.step, one.then, one.reason) for one in valid]
        known = pl.DataFrame(rows, schema=[(name, pl.String) for name in (*names, "reason")], orient="row").unique(names)
        return replace(
            self, deviations=self.deviations.join(known, on=names, how="anti", maintain_order="left"),
            accepted=self.deviations.join(known, on=names, how="inner", maintain_order="left"),
        )  # fmt: skip

    def __str__(self) -> str:
        window = f"positions {self.first:,} to {self.last:,}"
        return (
            f"{self.category}: {self.fitness:.1%} of {many(self.streams, 'stream')} follow the process, and {self.coverage:.1%} "
            f"of it happened ({window}); {many(len(self.deviations), 'deviation')}"
            + (f", {len(self.accepted):,} more accepted" if self.accepted is not None and len(self.accepted) else "")
            + (f"; {self.drift:.1%} of the events have other fields" if self.drift else "")
            + (f"; {many(len(self.not_observable), 'thing')} not observable" if self.not_observable else "")
        )

    def __repr__(self) -> str:
        return f"Conformance({self})"


def conform(rows: pl.DataFrame, process: Process) -> Conformance:
    """Hold what a log does (`discovery.walked`) against what it is meant to do.

    Deviations are `unknown step`, `undesigned start`, `undesigned move`, `undesigned end`, each with its events, and `never
    happened` for moves of the process that no stream took.
    """
    designed = {(move.step, move.then) for move in process.moves}
    steps = set(process.steps)
    moves = moves_of(rows)
    deviations: list[dict[str, Any]] = []
    for one in moves:
        pair = one["step"], one["then"]
        if pair in designed:
            continue
        unknown = next((name for name in pair[::-1] if name and name not in steps), None)
        if unknown is not None:
            if not any(d["kind"] == "unknown step" and d["step"] == unknown for d in deviations):
                deviations.append(told("unknown step", unknown, "", rows.filter(pl.col("step") == unknown)))
            continue
        kind = "undesigned start" if pair[0] == BEGIN else "undesigned end" if pair[1] == END else "undesigned move"
        deviations.append(told(kind, *pair, _events(rows, *pair)))
    happened = {(one["step"], one["then"]) for one in moves}
    never = [move for move in process.moves if (move.step, move.then) not in happened]
    deviations += [told("never happened", move.step, move.then, rows.clear()) for move in never]
    count, strays = rows.select(_is_last().sum()).item(), _strays(rows, designed)
    return Conformance(
        process.category, count, (count - len(strays)) / count if count else 1.0,
        len(happened & designed) / max(len(designed), 1), *span_of(rows), deviations_of(deviations), strays=strays,
    )  # fmt: skip


def deviations_of(found: Sequence[Mapping[str, Any]]) -> pl.DataFrame:
    """Deviations as a frame, the most frequent first."""
    frame = pl.DataFrame(found, schema=_KINDS)
    return frame.sort(["count", "kind", "step", "then"], descending=[True, False, False, False])


def moves_of(rows: pl.DataFrame) -> list[dict[str, Any]]:
    """What follows on what and how long after as a rule, with begin and end."""
    follows = rows.filter(pl.col("before").is_not_null()).group_by("before", "step").agg(pl.len(), pl.col("wait").median())
    moves = [
        {"step": a, "then": b, "count": n, "seconds": wait.total_seconds()}
        for a, b, n, wait in follows.sort("before", "step").rows()
    ]
    moves += [{"step": BEGIN, "then": b, "count": n, "seconds": 0.0} for b, n in ends_of(rows, first=True).rows()]
    moves += [{"step": a, "then": END, "count": n, "seconds": 0.0} for a, n in ends_of(rows, first=False).rows()]
    return moves


def _events(rows: pl.DataFrame, step: str, then: str) -> pl.DataFrame:
    """The events behind a move: those of the second step, or the last of their streams."""
    if step == BEGIN:
        return rows.filter(pl.col("before").is_null(), pl.col("step") == then)
    if then == END:
        return rows.filter(_is_last(), pl.col("step") == step)
    return rows.filter(pl.col("before") == step, pl.col("step") == then)


def _is_last() -> pl.Expr:
    return (pl.col("stream") != pl.col("stream").shift(-1)).fill_null(value=True)


def told(kind: str, step: str, then: str, rows: pl.DataFrame) -> dict[str, Any]:
    """A deviation with the events behind it."""
    positions, ordered = rows["position"], rows.sort("position")
    return {
        "kind": kind, "step": step, "then": then, "count": len(rows), "streams": rows["stream"].n_unique(),
        "first": positions.min(), "last": positions.max(), "example": ordered["stream"].first() if len(rows) else None,
    }  # fmt: skip


def _strays(rows: pl.DataFrame, designed: Iterable[tuple[str, str]]) -> tuple[str, ...]:
    """The streams of which some move is not designed."""
    if not len(rows):
        return ()
    pairs = pl.DataFrame(sorted(designed), schema={"before": pl.String, "step": pl.String}, orient="row")
    moved = rows.select("stream", pl.col("before").fill_null(BEGIN), "step")
    ended = rows.filter(_is_last()).select("stream", pl.col("step").alias("before"), pl.lit(END).alias("step"))
    wrong = pl.concat([moved, ended]).join(pairs, on=["before", "step"], how="anti")
    return tuple(wrong["stream"].unique().sort())


def read_text(path: Path) -> str:
    """The text of a file of a design."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as why:
        said = getattr(why, "strerror", None) or "it is no text"
        raise InvalidValue(f"{path} cannot be read: {said}", hint="TOML, as discover --save or board draw write it") from None


def limits(given: Sequence[str]) -> dict[str, float]:
    """`fitness=0.99`, `coverage=0.5` and `drift=0` as numbers."""
    found = {}
    for text in given:
        name, equals, value = text.partition("=")
        try:
            number = float(value)
        except ValueError:
            number = -1.0
        if not equals or name not in SHARES or not 0 <= number <= 1:
            raise InvalidValue(f"{text!r} is no limit", hint="fitness=0.99, coverage=0.5 or drift=0, from 0 to 1")
        found[name] = number
    return found
