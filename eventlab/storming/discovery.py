"""Discovery: what happens in a log, read from the events alone, as if nobody had told.

A stream is a case, and its events in their order are its way; what follows directly on what is the process map (the
directly-follows graph of process mining: van der Aalst, Process Mining, 2nd ed., ch. 6). Every number can be asked for its
events.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import polars as pl

from eventlab.errors import InvalidValue, UnknownType
from eventlab.model.filters import EVERYTHING
from eventlab.model.schema import Schema
from eventlab.store.handled import Done
from eventlab.store.words import many, mermaid_text
from eventlab.temporal.events import Events

#: Between the steps of a way, where it is one text.
ARROW: Final = " → "
#: The same where ways are compared: no name of a step has it.
_BETWEEN: Final = "\x1f"
#: Nodes of a drawn map, unless more are asked for.
NODES: Final = 24


@dataclass(frozen=True, eq=False)
class Discovery:
    """The process that a log shows.

    `map` has a row for each step and the one that follows it: how often, in how many streams, and the waiting time between
    them. `variants` are the ways that streams took, the most frequent first; `types` the event types, `fields` how often
    each field of them is filled, and how that drifts; `causes` which type caused which, across categories; `commands` which
    command gave which type, of those that were handled under an id; `rework` the steps that some stream took more than once. A
    step is an event type, or the value of the field `step`.
    """

    events: int
    streams: int
    step: str | None
    first: int
    last: int
    map: pl.DataFrame = field(repr=False)
    variants: pl.DataFrame = field(repr=False)
    types: pl.DataFrame = field(repr=False)
    fields: pl.DataFrame = field(repr=False)
    causes: pl.DataFrame = field(repr=False)
    commands: pl.DataFrame = field(repr=False)
    starts: pl.DataFrame = field(repr=False)
    ends: pl.DataFrame = field(repr=False)
    rework: pl.DataFrame = field(repr=False)
    _rows: pl.DataFrame = field(repr=False)
    #: The variant of each stream.
    _ways: pl.DataFrame = field(repr=False)
    #: The events that a command gave, and those that say a cause.
    _given: pl.DataFrame = field(repr=False)
    _caused: pl.DataFrame = field(repr=False)
    _events: Events = field(repr=False)

    def __repr__(self) -> str:
        of = many(self.streams, "stream")
        steps = self._rows["step"].n_unique()
        return f"Discovery({many(self.events, 'event')} of {of}: {many(steps, 'step')}, {many(len(self.variants), 'variant')})"

    def code(self) -> str:
        """The Python that gives it in another cell."""
        given = [] if self._events.filter == EVERYTHING else [self._events.filter.code()]
        return f"lab.discover({', '.join([*given, *([f'step={self.step!r}'] if self.step is not None else [])])})"

    def positions(self, step: str, then: str | None = None) -> list[int]:
        """The positions behind a number: of a step, or of the second of two steps that follow on one another."""
        known = self._rows["step"].unique()
        for name in (step, then):
            if name is not None and name not in known:
                raise UnknownType(f"there is no step {name!r}", hint=f"the steps are {', '.join(sorted(known.to_list())[:20])}")
        rows = self._rows
        if then is None:
            return rows.filter(pl.col("step") == step)["position"].sort().to_list()
        return rows.filter(pl.col("before") == step, pl.col("step") == then)["position"].sort().to_list()

    @property
    def steps(self) -> pl.DataFrame:
        """Each step: how many `events` it has, and as which of a stream it `comes` (the median), the most frequent first."""
        first = self._rows.group_by("stream", "step").agg(pl.len().alias("events"), pl.col("version").min().alias("first"))
        found = first.group_by("step").agg(pl.col("events").sum(), pl.col("first").median().alias("comes"))
        return found.sort(["events", "step"], descending=[True, False])

    def filled(self, type: str, field: str, *, empty: bool = False) -> list[int]:
        """The positions of the events of a type that have a value in a field; with `empty`, of those that have none."""
        if not len(self.fields.filter(pl.col("type") == type, pl.col("field") == field)):
            raise UnknownType(f"{type} has no field {field!r}", hint="`.fields` lists them all")
        kept = self._events.lazy().filter(pl.col("_type") == type, pl.col(field).is_null() == empty)
        return kept.select(pl.col("_position").sort()).collect().to_series().to_list()

    def given(self, command: str, type: str | None = None) -> list[int]:
        """The positions of the events that a command gave: of all types, or of one."""
        if command not in self.commands["command"]:
            known = ", ".join(sorted(self.commands["command"].unique())) or "none that was handled under an id"
            raise UnknownType(f"no event was given by a command {command!r}", hint=f"the commands are {known}")
        rows = self._given.filter(pl.col("command") == command)
        return (rows if type is None else rows.filter(pl.col("type") == type))["position"].sort().to_list()

    def caused(self, type: str, by: str | None = None) -> list[int]:
        """The positions of the events of a type that one of another type caused; without `by`, those that no event here did."""
        rows = self._caused.filter(pl.col("type") == type, pl.col("cause").eq_missing(pl.lit(by, pl.String)))
        if not len(rows):
            what = "something that is no event here" if by is None else by
            raise UnknownType(f"no {type} was caused by {what}", hint="`.causes` lists what caused what")
        return rows["position"].sort().to_list()

    def streams_of(self, variant: int) -> list[str]:
        """The streams that took a way: the row of `variants` with this number, from 0 on."""
        if not 0 <= variant < len(self.variants):
            raise InvalidValue(f"there is no variant {variant}", hint=f"0 to {len(self.variants) - 1}")
        return self._ways.filter(pl.col("variant") == variant)["stream"].sort().to_list()

    def mermaid(self, nodes: int = NODES) -> str:
        """The process map as a Mermaid flowchart; of more nodes the most frequent, and what is hidden is said."""
        if nodes < 1:
            raise InvalidValue(f"nodes={nodes!r}", hint="at least one")
        counts = self.steps.select("step", "events")
        kept = counts["step"].to_list()[:nodes]
        number = {name: at for at, name in enumerate(kept)}
        lines = ["flowchart LR"]
        lines += [f'    n{at}["{mermaid_text(name)}<br/>{count:,}"]' for at, (name, count) in enumerate(counts.rows()[:nodes])]
        ends = ((self.starts, "begin([begin])", "begin", True), (self.ends, "done([end])", "done", False))
        for frame, node, name, begins in ends:
            rows = [(step, count) for step, count in frame.select("step", "streams").iter_rows() if step in number]
            if rows:
                lines.append(f"    {node}")
            for step, count in rows:
                pair = (name, f"n{number[step]}") if begins else (f"n{number[step]}", name)
                lines.append(f"    {pair[0]} -.->|{count:,}| {pair[1]}")
        shown = self.map.filter(pl.col("step").is_in(kept), pl.col("then").is_in(kept))
        lines += [f"    n{number[a]} -->|{n:,}| n{number[b]}" for a, b, n in shown.select("step", "then", "count").iter_rows()]
        if len(counts) > nodes:
            hidden = int(counts["events"][nodes:].sum())
            lines.append(f'    more["{many(len(counts) - nodes, "more step")}, {many(hidden, "event")}, not drawn"]')
        return "\n".join(lines) + "\n"


def discover(
    events: Events, schemas: Mapping[tuple[str, int], Schema], step: str | None = None, handled: Sequence[Done] = ()
) -> Discovery:
    """What happens in these events, and which commands gave them; see `Discovery`."""
    lazy, rows = events.lazy(), walked(events, step)
    ways = _ways(rows)
    variants = ways.group_by("way").agg(
        pl.len().alias("streams"), (pl.len() / max(len(ways), 1)).alias("share"), pl.col("steps").first(),
        pl.col("stream").min().alias("example"), pl.col("lasted").median().alias("median_time"),
    )  # fmt: skip
    variants = variants.sort(["streams", "way"], descending=[True, False]).with_row_index("variant")
    numbers = ways.join(variants.select("way", pl.col("variant").cast(pl.Int64)), on="way").select("stream", "variant")
    variants = variants.drop("variant").with_columns(pl.col("way").str.replace_all(_BETWEEN, ARROW, literal=True))
    given, caused = _given(rows, handled), _caused(lazy)
    return Discovery(
        len(rows), len(ways), step, *span_of(rows), _map(rows), variants, _types(rows), _fields(lazy, rows, schemas),
        _causes(caused), _commands(given), ends_of(rows, first=True), ends_of(rows, first=False), _rework(rows),
        rows, numbers, given, caused, events,
    )  # fmt: skip


def walked(events: Events, step: str | None) -> pl.DataFrame:
    """The events by stream and version: `step`, the one `before` it in its stream, and the `wait` since."""
    lazy = events.lazy()
    names = lazy.collect_schema().names()
    if step is not None and step not in names:
        raise UnknownType(f"no event has a field {step!r}", hint=", ".join(n for n in names if not n.startswith("_")) or "none")
    if step is not None and step.startswith("_"):
        raise InvalidValue(f"step={step!r} is no field of an event", hint="a field, as step='activity'")
    of = (pl.col("_type") if step is None else pl.coalesce(pl.col(step).cast(pl.String), "_type")).alias("step")
    columns = ("_position", "_stream", "_category", "_version", "_type", "_occurred_at")
    rows = lazy.select(*(pl.col(name).alias(name[1:]) for name in columns), of).collect().sort(["stream", "version"])
    within = pl.col("stream") == pl.col("stream").shift(1)
    return rows.with_columns(
        pl.when(within).then(pl.col("step").shift(1)).alias("before"),
        pl.when(within).then(pl.col("occurred_at") - pl.col("occurred_at").shift(1)).alias("wait"),
    )


def span_of(rows: pl.DataFrame) -> tuple[int, int]:
    """The positions of the first and the last event; 0 where there is none."""
    return (int(rows["position"].min()), int(rows["position"].max())) if len(rows) else (0, 0)  # type: ignore[arg-type]


def _ways(rows: pl.DataFrame) -> pl.DataFrame:
    """The way of each stream: its steps in their order as one text, their number, and how long it lasted."""
    return rows.group_by("stream", maintain_order=True).agg(
        pl.col("step").str.join(_BETWEEN).alias("way"), pl.len().alias("steps"),
        (pl.col("occurred_at").max() - pl.col("occurred_at").min()).alias("lasted"),
    )  # fmt: skip


def _map(rows: pl.DataFrame) -> pl.DataFrame:
    """What follows directly on what."""
    pairs = rows.filter(pl.col("before").is_not_null()).group_by("before", "step").agg(
        pl.len().alias("count"), pl.col("stream").n_unique().alias("streams"), pl.col("wait").min().alias("first_wait"),
        pl.col("wait").median().alias("median_wait"), pl.col("wait").mean().alias("mean_wait"),
    )  # fmt: skip
    found = pairs.rename({"step": "then"}).rename({"before": "step"})
    return found.sort(["count", "step", "then"], descending=[True, False, False])


def ends_of(rows: pl.DataFrame, *, first: bool) -> pl.DataFrame:
    """With which steps streams begin, or end."""
    edge = pl.col("stream") != pl.col("stream").shift(1 if first else -1)
    found = rows.filter(edge.fill_null(value=True)).group_by("step").agg(pl.len().alias("streams"))
    return found.sort(["streams", "step"], descending=[True, False])


def _rework(rows: pl.DataFrame) -> pl.DataFrame:
    """Steps that a stream took more than once: in how many streams, how often again, and how often at once again (a loop)."""
    times = rows.group_by("stream", "step").len().filter(pl.col("len") > 1)
    again = times.group_by("step").agg(pl.len().alias("streams"), (pl.col("len") - 1).sum().alias("again"))
    loops = rows.filter(pl.col("before") == pl.col("step")).group_by("step").agg(pl.len().alias("at_once"))
    found = again.join(loops, on="step", how="left").with_columns(pl.col("at_once").fill_null(0))
    return found.sort(["again", "step"], descending=[True, False])


def _types(rows: pl.DataFrame) -> pl.DataFrame:
    found = rows.group_by("category", "type").agg(
        pl.len().alias("events"), pl.col("stream").n_unique().alias("streams"), pl.col("position").min().alias("first"),
        pl.col("position").max().alias("last"), pl.col("occurred_at").min().alias("first_at"),
        pl.col("occurred_at").max().alias("last_at"),
    )  # fmt: skip
    return found.sort(["category", "type"])


def _fields(lazy: pl.LazyFrame, rows: pl.DataFrame, schemas: Mapping[tuple[str, int], Schema]) -> pl.DataFrame:
    """Of each field of each type: in how many of its events it is filled."""
    there = set(rows["type"].unique())
    named: dict[str, list[str]] = {}
    for schema in schemas.values():
        if schema.name in there:
            fields = named.setdefault(schema.name, [])
            fields += [leaf.path.split(".")[0] for leaf in schema.leaves]
    columns = [name for name in dict.fromkeys(f for of in named.values() for f in of) if name in lazy.collect_schema().names()]
    kinds = {"type": pl.String, "field": pl.String, "filled": pl.Int64, "events": pl.Int64, "rate": pl.Float64,
             "early": pl.Float64, "late": pl.Float64, "drift": pl.Float64}  # fmt: skip
    if not columns:
        return pl.DataFrame(schema=kinds)
    middle = rows.group_by("type").agg(pl.col("position").median().alias("_middle")).rename({"type": "_type"})
    early = (pl.col("_position") <= pl.col("_middle")).alias("_early")
    counted = (
        lazy.join(middle.lazy(), on="_type").group_by("_type", early)
        .agg(pl.len().alias("_events"), *(pl.col(name).count() for name in columns)).collect()
    )  # fmt: skip
    halves = {(row["_type"], row["_early"]): row for row in counted.to_dicts()}
    found = []
    for kind in sorted({kind for kind, _ in halves}):
        parts = [halves.get((kind, half)) for half in (True, False)]
        for name in (name for name in dict.fromkeys(named.get(kind, ())) if name in columns):
            pairs = [(part[name], part["_events"]) if part else (0, 0) for part in parts]
            filled, events = sum(a for a, _ in pairs), sum(b for _, b in pairs)
            early_rate, late_rate = (a / b if b else filled / events for a, b in pairs)
            found.append((kind, name, filled, events, filled / events, early_rate, late_rate, late_rate - early_rate))
    return pl.DataFrame(found, schema=kinds, orient="row").sort(["type", "field"])


def _given(rows: pl.DataFrame, handled: Sequence[Done]) -> pl.DataFrame:
    """The events that commands gave, each with its command; a command that was handled under no id left no trace."""
    kinds: dict[str, Any] = {"command": pl.String, "first": pl.Int64, "count": pl.Int64}
    runs = pl.DataFrame([(of.name, of.first, of.count) for of in handled if of.count], schema=kinds, orient="row")
    places = runs.select("command", pl.int_ranges("first", pl.col("first") + pl.col("count")).alias("position"))
    exploded = places.explode("position", empty_as_null=False)
    return exploded.join(rows.select("position", "category", "type"), on="position")


def _commands(given: pl.DataFrame) -> pl.DataFrame:
    """Which command gave which type, and how often."""
    found = given.group_by("command", "category", "type").agg(pl.len().alias("count"))
    return found.sort(["count", "command", "type"], descending=[True, False, False])


def _caused(lazy: pl.LazyFrame) -> pl.DataFrame:
    """The events that say a cause; one that is no event of these is a command, or lies elsewhere: its `cause` is null."""
    ids = lazy.select("_position", "_event_id", "_causation_id", "_type", "_category", "_stream").collect()
    caused = ids.filter(pl.col("_causation_id").is_not_null())
    by = ids.select(pl.col("_event_id").alias("_causation_id"), pl.col("_type").alias("cause"), pl.col("_category").alias("of"),
                    pl.col("_stream").alias("_by"))  # fmt: skip
    joined = caused.join(by, on="_causation_id", how="left")
    return joined.select(
        "of", "cause", pl.col("_category").alias("category"), pl.col("_type").alias("type"),
        pl.col("_position").alias("position"), (pl.col("_by") != pl.col("_stream")).alias("across"),
    )  # fmt: skip


def _causes(caused: pl.DataFrame) -> pl.DataFrame:
    """Which type caused which, how often, and how often across streams."""
    found = caused.group_by("of", "cause", "category", "type").agg(pl.len().alias("count"), pl.col("across").sum())
    return found.sort(["count", "cause", "type"], descending=[True, False, False], nulls_last=True)


def told(found: Discovery) -> dict[str, Any]:
    """A discovery as plain values."""
    frames = ("types", "map", "variants", "starts", "ends", "rework", "causes", "commands", "fields")
    about = {"events": found.events, "streams": found.streams, "step": found.step, "first": found.first, "last": found.last}
    return about | {name: getattr(found, name).to_dicts() for name in frames}
