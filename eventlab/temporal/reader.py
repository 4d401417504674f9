"""The read verbs, at a place in the log: what a lab and a moment share."""

from __future__ import annotations

import contextlib
import datetime as dt
import threading
import time
import uuid
import weakref
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

import duckdb
import polars as pl
import pyarrow as pa

from eventlab.commands import refuse_renamed
from eventlab.errors import InvalidValue, Late, ModelError, QueryRefused, SchemaConflict, UnknownType, Unsupported
from eventlab.model.events import EVENTS, EventType, event_class, event_type
from eventlab.model.filters import EVERYTHING, Filter, stream
from eventlab.model.meta import Recorded, current_context
from eventlab.model.models import MODELS, Model, model_of
from eventlab.model.names import check_plain
from eventlab.model.queries import Question, query_type
from eventlab.model.schema import Schema
from eventlab.model.types import as_uuid
from eventlab.projections.handmade import HANDMADE, Handmade
from eventlab.projections.read_models import Engine, base_of, check_engine, current, tenant_key
from eventlab.projections.without_code import table_without_code
from eventlab.replay.lift import Explanation
from eventlab.replay.rows import Entry, events_of, fold
from eventlab.replay.tables import columns_of, frame_of, state_of, stored_state
from eventlab.store.base import FOLD_ENVELOPE, Batch, Cut, Snapshot, Store, Tenant
from eventlab.store.columns import ENVELOPE_NAMES
from eventlab.store.query import SqlConnection
from eventlab.store.read_models import ReadModelBase
from eventlab.temporal import spans
from eventlab.temporal.basis import Basis as Basis
from eventlab.temporal.basis import engines, event_at, tenant_named
from eventlab.temporal.calendar import check_step, instant, local, steps, truncated, zone
from eventlab.temporal.compare import LIMIT, Comparison, compare, pair
from eventlab.temporal.debugger import Debugger, events_of_key
from eventlab.temporal.events import Events
from eventlab.temporal.explaining import explained
from eventlab.temporal.hindsight import Hindsight
from eventlab.temporal.snapshots import SnapshotPolicy
from eventlab.temporal.trace import Trace, trace_of
from eventlab.temporal.versions import intervals_of, versions, versions_of

M = TypeVar("M")
A = TypeVar("A")

#: Opens a progress display for a piece of work of so many events, and gives what to call as it advances.
Progress = Callable[[str, int], "Bar"]


class SupportsPosition(Protocol):
    """What an append or a command did: it says how far the log has come."""

    @property
    def position(self) -> int: ...


class Bar:
    """A progress display that shows nothing; the displays that show something are registered from above."""

    def advance(self, events: int) -> None:
        """So many more events are done."""

    def close(self) -> None:
        """The work is over."""


def quiet(what: str, total: int) -> Bar:
    """No progress display."""
    return Bar()


@dataclass(frozen=True)
class Loaded(Generic[M]):
    """A state with its stream's version, the position of its last event, and the basis of the answer."""

    state: M
    version: int
    position: int
    basis: Basis = field(repr=False)


class Reader:
    """Reads a log at a place. `_at` gives the cut and the position up to which it is read."""

    def __init__(self, store: Store, tenant: Tenant, progress: Progress, tables: Tables | None = None) -> None:
        self._store = store
        self._own_tenant = tenant
        self._progress = progress
        self._bound: dict[str, type[Any]] = {}
        self._known: set[tuple[str, int]] = set()
        self._sql_lock = threading.RLock()
        self._sql: tuple[tuple[Cut, int, Tenant, tuple[int, ...]], SqlConnection] | None = None
        self._tables = tables or Tables()
        #: Whether what is kept of read models says anything of this place: not by another clock than the recorded one.
        self._uses_bases = True
        #: When the states of streams are kept, and whether they are used.
        self._snapshots: SnapshotPolicy | None = SnapshotPolicy()
        #: The moments of a lab, which are closed with it.
        self._moments: weakref.WeakSet[Reader] = weakref.WeakSet()

    def _at(self) -> tuple[Cut, int]:
        cut = self._store.cut()
        return cut, cut.head

    def _own(self, of: Model) -> Hindsight | None:
        """What a model is folded over that sees other events here than the reader, or the same in another order."""
        return None

    def _at_of(self, of: Model) -> tuple[Cut, int]:
        """The cut and the end of it for one model."""
        own = self._own(of)
        return self._at() if own is None else (own, own.head)

    def _in_the_log(self, of: Model, frame: pl.DataFrame) -> pl.DataFrame:
        """A frame of a model with the positions of the log."""
        own = self._own(of)
        return frame if own is None else own.placed(frame)

    @property
    def _tenant(self) -> Tenant:
        """Whose events are read: the context's tenant inside `context(tenant=…)`, else the reader's own."""
        return current_context().tenant or self._own_tenant

    @property
    def head(self) -> int:
        """The position this reader sees as the last; 0 when there is none."""
        return self._at()[1]

    @property
    def basis(self) -> Basis:
        """What answers given now rest on."""
        return self._basis(None, *self._at())

    # -- events

    def read(self, filter: Filter = EVERYTHING, *, after: int = 0, until: int | None = None, limit: int | None = None) -> Events:
        """The events a filter picks, `after` < position ≤ `until`, in position order."""
        if not isinstance(filter, Filter):
            raise UnknownType(
                f"{filter!r} is no filter", hint='el.events(ItemAdded) & el.tag(customer="c9"), or el.stream("order-7")'
            )
        cut, end = self._at()
        _refuse_unknown(filter, cut)
        span = (after, end if until is None else min(until, end))
        return Events(cut, self._tenant, self._class_of, filter, span, limit)

    # -- states

    def load(self, model: type[M], id: str) -> M:
        """The state of one aggregate; its initial state when the stream has no events."""
        return self.loaded(model, id).state

    def loaded(self, model: type[M], id: str) -> Loaded[M]:
        """The state of one aggregate with its version, position and basis."""
        of = self._model(model)
        if of.category is None:
            raise Unsupported(
                f"{of.cls.__name__} is a projection, and only an aggregate has a stream to load",
                hint=f"lab.table({of.cls.__name__}) gives its rows",
            )
        stream = of.stream(id)
        tenant = self._one_tenant("load")
        # One look: the basis is that of this answer, whatever is appended meanwhile.
        own, (cut, until) = self._own(of), self._at()
        folded = (cut, until) if own is None else (own, own.head)
        state, version, position = self._loaded(of, stream, tenant, *folded)
        if position and own is not None:
            position = own.placed(pl.DataFrame({"position": [position]})).item()
        return Loaded(state, version, position, self._basis(of, cut, until))

    def table(self, model: type[Any], *, engine: Engine = "auto") -> pl.DataFrame:
        """Every row of a model, folded: key, the state's fields, `_version`, `_position`; sorted by key.

        `engine` says by what: "rows" runs your own `evolve`, which is the meaning; "loop" a loop made from its code, "lifted"
        one DuckDB query (`NotLiftable` names the line that does not lift); "auto", the default, the fastest that is exact
        here, from the read model's base if there is one. All give the same values, or are not used.
        """
        check_engine(engine)
        if isinstance(model, Handmade):
            if engine != "auto":
                raise Unsupported(f"{model.name} is written by hand, so no engine folds it", hint="lab.table without engine=")
            found = pl.from_arrow(self._handmade(model, *self._at()))
            assert isinstance(found, pl.DataFrame)
            return found
        of = self._model(model)
        table = self._table(of, *self._at_of(of), engine)
        return self._in_the_log(of, frame_of(table, columns_of(of, self._tenant)))

    def versions(self, model: type[Any], id: str | None = None, *, engine: Engine = "auto") -> pl.DataFrame:
        """The state after every event: a row for each event of each key, or of one aggregate.

        The columns are those of `table`, then `_recorded_at` and `_type`: when the event was recorded, and what it was. The last
        row of a key is its row in `table`. Rows are sorted by key and position; `engine` as for `table`. With an id only that
        stream is read.
        """
        of = self._model(model)
        check_engine(engine)
        cut, until = self._at_of(of)
        if id is None:
            return self._in_the_log(of, versions(of, cut, self._tenant, until, engine=engine))
        found = versions_of(of, id, cut, self._one_tenant("versions of one aggregate"), until, engine=engine)
        return self._in_the_log(of, found)

    def history(self, model: type[Any], id: Any, field: str) -> pl.DataFrame:
        """The values that one field of one key had: value, from, to, and the event: type, version, position, id, actor, cause.

        `to` is null for the value that stands. `cause` is the id of the event or command that led to the event. The key of a
        projection is its `_id`, or a tuple of its columns.
        """
        of = self._model(model)
        spans.check_fields(of, [field])
        cut, until = self._at_of(of)
        read: list[Batch] = []
        found = self._versions_of(of, id, [field], read).sort("_position")
        changed = spans.history(found, field)
        told = self._told(of, read, cut, until, changed["position"].to_list())
        return self._in_the_log(of, changed.join(told, on="position", how="left", maintain_order="left"))

    def intervals(self, model: type[Any], id: Any = None, *, fields: Sequence[str] | None = None) -> pl.DataFrame:
        """What was so from when to when: key, fields, `_from`, `_to`, and version and position of the event it began with.

        Half open, by the recorded clock; `_to` is null for what stands (others call this a slowly changing dimension, type 2).
        States that are equal in `fields`, all of them when left out, are one interval. Of one key, or of all.
        """
        of = self._model(model)
        listed = spans.check_fields(of, fields)
        if id is None:
            cut, until = self._at_of(of)
            return self._in_the_log(of, intervals_of(of, cut, self._tenant, until, listed))
        return self._in_the_log(of, spans.intervals(of, self._versions_of(of, id, listed), self._tenant, listed))

    def between(
        self, model: type[Any], start: str | dt.datetime, end: str | dt.datetime, id: Any = None, *,
        fields: Sequence[str] | None = None, tz: str | None = None,
    ) -> pl.DataFrame:  # fmt: skip
        """The intervals that overlap the span from `start` to before `end`, cut to it."""
        begin, stop = instant(start, tz), instant(end, tz)
        if begin >= stop:
            raise InvalidValue(f"the span ends at {stop}, and begins at {begin}", hint="between(Model, start, end)")
        return spans.clipped(self.intervals(model, id, fields=fields), begin, stop)

    def series(
        self, model: type[Any], every: str, *, start: str | dt.datetime | None = None, end: str | dt.datetime | None = None,
        tz: str = "UTC", id: Any = None, fields: Sequence[str] | None = None,
    ) -> pl.DataFrame:  # fmt: skip
        """The state of every key at each step of a calendar: `_at`, the key, its fields; a key from its first event on.

        `every` is "1d", "1h", "15m", "1mo", …, by the clock of `tz`, so that a day has 23 or 25 hours where clocks change.
        From the first record of the model to the last, rounded down to the step, unless `start` and `end` say otherwise.
        """
        of = self._model(model)
        check_step(every)
        zone(tz)
        found = self.intervals(model, id, fields=fields)
        if not len(found):
            return spans.series(of, found, pl.Series("_at", [], pl.Datetime("us", "UTC")), self._tenant)
        begin, last = found["_from"].min(), found["_from"].max() if end is None else instant(end, tz)
        assert isinstance(begin, dt.datetime)
        assert isinstance(last, dt.datetime)
        first = local(start, tz) if start is not None else truncated(begin, every, tz)
        return spans.series(of, found, steps(first, last, every, tz).alias("_at"), self._tenant)

    def blame(self, model: type[Any], id: Any, field: str) -> pl.DataFrame:
        """The events that made one cell what it is: those after which the field of this key had another value, the last first.

        before, value, when, and the event: type, version, position, id, actor, cause.
        """
        of = self._model(model)
        found = self.history(model, id, field)
        initial = spans.initial_row(of)[field]
        values = found["value"].to_list()
        before = [initial, *values][: len(values)]
        kept = [not spans.same_value(old, new) for old, new in zip(before, values, strict=True)]
        told = found.with_columns(pl.Series("before", [spans.said(old) for old in before], pl.String))
        rows = told.filter(pl.Series(kept, dtype=pl.Boolean)) if len(told) else told
        order = ["before", "value", "from", "event", "version", "position", "event_id", "actor", "cause", "correlation"]
        return rows.select(order).rename({"from": "when"}).reverse()

    def audit(self, model: type[Any], id: Any) -> pl.DataFrame:
        """The life of one key as a person reads it: when, who, which event, and what it changed in the state."""
        of = self._model(model)
        cut, until = self._at_of(of)
        read: list[Batch] = []
        found = self._versions_of(of, id, spans.check_fields(of, None), read).sort("_position")
        states = found.select([name for name, _ in of.fields]).to_dicts()
        before = [spans.initial_row(of), *states][: len(states)]
        changes = [spans.shown_changes(of, old, new) for old, new in zip(before, states, strict=True)]
        told = self._told(of, read, cut, until, found["_position"].to_list())
        shown = found.select(
            pl.col("_recorded_at").alias("when"), pl.col("_type").alias("event"), pl.col("_version").alias("version"),
            pl.col("_position").alias("position"),
        ).with_columns(pl.Series("changed", changes, pl.String)).join(
            told.select("position", "actor", "cause"), on="position", how="left", maintain_order="left"
        ).select("when", "actor", "event", "changed", "version", "position", "cause")  # fmt: skip
        return self._in_the_log(of, shown)

    def debug(self, model: type[Any], id: Any) -> Debugger:
        """Step through the events of one key, forwards and backwards: the state and what changed at each, stops, another fold.

        >>> import eventlab as el
        >>> @el.event
        ... class TankFilled:
        ...     "Water ran into the tank."
        ...     litres: int
        >>> @el.aggregate
        ... class Tank:
        ...     litres: int = 0
        ...     def evolve(self, event: TankFilled) -> "Tank":
        ...         return Tank(self.litres + event.litres)
        >>> lab = el.scratch()
        >>> done = lab.append("tank-1", [TankFilled(3), TankFilled(0), TankFilled(4)])
        >>> stepping = lab.debug(Tank, "1").step()
        >>> stepping.run(changed="litres").state, stepping.at, stepping.back(2).state
        (Tank(litres=7), 3, Tank(litres=3))
        """
        of = self._model(model)
        cut, end = self._at_of(of)
        self._one_tenant("debug")
        name = str(spans.key_of(of, id)) if of.category is None else of.stream(id)
        picked = events_of(of) if of.category is None else stream(name)
        read = Events(cut, self._tenant, self._class_of, picked, (0, end), None)
        events = read.list() if of.category is not None else events_of_key(of, id, read)
        if (own := self._own(of)) is not None:
            log = Events(own.log, self._tenant, self._class_of, picked, (0, self._at()[1]), None)
            real = {event.event_id: event for event in log}
            events = [real[event.event_id] for event in events]
        return Debugger(of, name, events)

    def trace(self, of: Recorded | uuid.UUID | str) -> Trace:
        """The conversation of an event, or of a correlation id: its events in order, who caused whom, waits and what is missing.

        `.frame` is a row for each event, `.mermaid()` draws who caused whom.
        """
        id = (of.correlation_id or of.event_id) if isinstance(of, Recorded) else as_uuid(of, "a correlation id")
        query = (
            "select _position, _occurred_at, _stream, _version, _type, _actor, _event_id, _causation_id from events.log "
            "where _correlation_id = $id or _event_id = $id"
        )
        return trace_of(self.sql(query, id=str(id)), id)

    def late(self, filter: Filter = EVERYTHING, *, at_least: dt.timedelta = dt.timedelta(days=1)) -> pl.DataFrame:
        """Events recorded long after they occurred, or after an event of their stream that occurred later.

        `delay` is from occurrence to record, at least so much; `behind` how much earlier it occurred than one before it.
        """
        if not isinstance(filter, Filter):
            raise UnknownType(f"{filter!r} is no filter", hint="el.events(ItemAdded)")
        if not isinstance(at_least, dt.timedelta):
            raise InvalidValue(f"at_least={at_least!r} is no duration", hint="datetime.timedelta(hours=1)")
        cut, until = self._at()
        _refuse_unknown(filter, cut)
        return spans.late(cut, filter, self._tenant, until, at_least)

    def compare(
        self,
        old: type[Any],
        new: type[Any] | None = None,
        *,
        until: int | None = None,
        engine: Engine = "auto",
        limit: int | None = LIMIT,
    ) -> Comparison:
        """Fold two definitions of a model over this log and show where their states part, key by key and field by field.

        `lab.compare(Order)` compares with the definition before this one: run a cell again with a changed `evolve`, and ask
        what that changes. `lab.compare(Old, New)` takes any two with the same key; a class that was superseded is welcome.
        States are compared after every event, so those that part and meet again are found too; `frame` names the first event.
        What both definitions have is compared; fields that were added, removed or stored in another type are named. A helper or
        constant that `evolve` finds by its name is what it is now, for both. `limit` is for the frame, not for the counts. Both
        are in memory while they are compared, with a row for each event: ask a moment, or `until=`, of a log that is too long.
        """
        check_engine(engine)
        given = self._model(old, superseded=True)
        one, other = pair(given, None if new is None else self._model(new, superseded=True))
        for of in (one, other):
            self._model(of.cls, superseded=True)
        cut, end = self._at()
        return compare(
            one, other, cut, self._tenant, end if until is None else min(until, end), engine=engine, limit=limit
        )

    def explain(self, model: type[Any]) -> Explanation:
        """How a model's table is folded: per field the kind, the engine, and for each refusal the line and what would lift it.

        `print(lab.explain(Order))`; `.sql` and `.loop` are the texts of the query over this log and of the loop.
        """
        of = self._model(model)
        cut, until = self._at_of(of)
        return explained(of, cut, self._tenant, until)

    # -- questions

    def ask(self, question: Question[A], *, at_least: SupportsPosition | int | None = None, timeout: float = 10.0) -> A:
        """The answer to an `@el.query`, as of what this lab or moment reads.

        `at_least` is what it has to know of: a position, or what an append or a handled command gave. A lab waits for it,
        where another process has written; `Late` when it has not come in `timeout` seconds, or never can.
        """
        query_type(type(question)).check(question)
        if at_least is not None:
            position = at_least if isinstance(at_least, int) else getattr(at_least, "position", None)
            if isinstance(position, bool) or not isinstance(position, int) or position < 0:
                said = f"at_least={at_least!r:.60} is neither a position nor something that was appended or handled"
                raise InvalidValue(said, hint="lab.ask(question, at_least=done)")
            if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not timeout >= 0:
                raise InvalidValue(f"timeout={timeout!r} is no number of seconds", hint="timeout=10")
            self._reach(position, timeout)
        return question.answer(self)

    def _reach(self, position: int, timeout: float) -> None:
        """Wait until this place has come to a position; a moment stays where it is."""
        if self.head < position:
            raise Late(
                f"this moment is position {self.head:,}, before the {position:,} that the answer has to know of",
                hint="ask the lab, or a later moment",
            )

    # -- SQL

    def sql(self, text: str, /, *parameters: Any, **named: Any) -> pl.DataFrame:
        """A query over `events`, `types` and `state`, as a Polars frame.

        `?` takes positional parameters, `$name` named ones; a frame given by name is a table of that name.

        Where the code of a read model is not, `state` has its table by the query that was stored with its base, or where that
        has no answer the base itself, as of its checkpoint, and a `CheckpointWarning`.
        """
        values, frames = _arguments(parameters, named)
        with self._connection() as connection:
            return connection.frame(text, values, frames)

    def relation(self, text: str, /, *parameters: Any, **named: Any) -> duckdb.DuckDBPyRelation:
        """The same query as a DuckDB relation, not yet fetched."""
        values, frames = _arguments(parameters, named)
        with self._connection() as connection:
            return connection.relation(text, values, frames)

    # -- inside

    def _all_versions(self, of: Model, fields: Sequence[str]) -> pl.DataFrame:
        """The versions of every key, with these fields."""
        cut, until = self._at_of(of)
        return versions(of, cut, self._tenant, until, engine="auto", fields=fields)

    def _versions_of(self, of: Model, id: Any, fields: Sequence[str], read: list[Batch] | None = None) -> pl.DataFrame:
        """The versions of one key, with these fields at least; where only its stream was read, the batches are in `read`."""
        self._one_tenant("the life of one key")
        if of.category is not None:
            cut, until = self._at_of(of)
            tenant = self._one_tenant("versions of one aggregate")
            return versions_of(of, id, cut, tenant, until, engine="auto", read=read)
        return spans.picked(of, self._all_versions(of, fields), id, self._tenant)

    def _told(self, of: Model, read: Sequence[Batch], cut: Cut, until: int, positions: Sequence[int]) -> pl.DataFrame:
        """Who and what was behind the events at some positions, of one key; from batches that were read, if there are any."""
        batches: Iterable[Batch] = read
        if positions and not read:
            names = ("position", "event_id", "actor", "causation_id", "correlation_id")
            span = {"after": min(positions) - 1, "until": max(positions)}
            batches = cut.batches(events_of(of), tenant=self._tenant, envelope=names, types=(), **span)
        return spans.told_of(batches, positions)

    def _loaded(self, model: Model, stream: str, tenant: str, cut: Cut, until: int) -> tuple[Any, int, int]:
        """State, version and position of one stream: from its snapshot, if there is one of this code, and the events since."""
        policy, started = self._snapshots, time.perf_counter()
        snapshot = self._store.snapshot(tenant, stream, model.name) if policy is not None else None
        entry: Entry = [model.initial, 0, 0]
        if snapshot is not None and snapshot.fingerprint == model.fingerprint and snapshot.position <= until:
            entry = [state_of(model, snapshot.state), snapshot.version, snapshot.position]
        handled = model.handled
        types = None if handled is None or model.takes_meta else [kind.name for kind in handled]
        envelope = ENVELOPE_NAMES if model.takes_meta else FOLD_ENVELOPE
        since = list(
            cut.stream(stream, tenant=tenant, after_version=entry[1], until=until, envelope=envelope, types=types)
        )
        if not since:
            return entry[0], entry[1], entry[2]
        folding = fold(model, since, tenant, lambda keys: {stream: entry})
        state, version, position = folding.entries[stream]
        values = stored_state(model, stream, state)
        took, files = time.perf_counter() - started, any(batch.sealed for batch in since)
        before = 0 if snapshot is None or snapshot.fingerprint != model.fingerprint else snapshot.version
        if policy is not None and policy.due(version - before, took, files=files):
            self._keep_snapshot(model, stream, tenant, Snapshot(model.fingerprint, version, position, values))
        return state, version, position

    def _keep_snapshot(self, model: Model, stream: str, tenant: str, snapshot: Snapshot) -> None:
        """This state is worth to be kept, so that the next load need not fold so much. A moment keeps none."""

    def _model(self, model: type[Any], *, superseded: bool = False) -> Model:
        of = model_of(model, superseded=superseded)
        for kind in of.handled or ():
            self._bind(kind.cls, kind.name)
        self._refuse_renamed([kind.schema for kind in of.handled or ()])
        return of

    def _refuse_renamed(self, schemas: Collection[Schema]) -> None:
        """Refuse classes that look like stored ones under a new name; looked at when a schema or a class is new here."""
        new = [schema for schema in schemas if schema.key not in self._known]
        if new:
            known = self._store.cut().schemas
            refuse_renamed([schema for schema in new if schema.key not in known], known)
            self._known.update(known)

    def _bind(self, cls: type[Any], name: str) -> None:
        """One stored name, one class: another class of the same name, defined elsewhere, is refused."""
        bound = self._bound.setdefault(name, cls)
        if bound is not cls:
            if (bound.__module__, bound.__qualname__) != (cls.__module__, cls.__qualname__):
                both = f"{bound.__module__}.{bound.__qualname__} in this store, and now also {cls.__module__}.{cls.__qualname__}"
                raise SchemaConflict(
                    f"{name!r} is {both}",
                    hint="give one of the two classes another stored name: @el.event(name=…)",
                    type=name,
                )
            self._bound[name] = cls

    def _class_here(self, name: str) -> EventType | None:
        """The class of a stored type, where there is one of that name."""
        return self._class_of(name) if len(EVENTS.named(name)) == 1 else None

    def _class_of(self, name: str) -> Any:
        bound = self._bound.get(name)
        if bound is None:
            return event_class(name)
        kind = EVENTS.successor(event_type(bound))
        return event_class(name, (kind.cls,) if kind.name == name and not kind.stale else ())

    def _table(self, model: Model, cut: Cut, until: int, engine: Engine = "auto") -> pa.Table:
        # Whoever asks for an engine wants the whole log folded by it.
        use_base = engine == "auto" and self._uses_bases
        base = self._tables.best(model, self._tenant, until, base_of(model, self._store, self._tenant)) if use_base else None
        start = base.position if base is not None else 0
        bar = self._progress(f"fold {model.name}", until - start)
        try:
            found = current(model, cut, self._tenant, until, base, bar.advance, engine)
            table = found.table()
        finally:
            bar.close()
        if use_base:
            self._tables.keep(found)
        return table

    def _handmade(self, of: Handmade, cut: Cut, until: int) -> pa.Table:
        """The rows of a projection written by hand: those that are stored, if they are of this moment, or computed."""
        tenant = tenant_key(self._tenant)
        for base in self._store.read_models.of(tenant, of.name) if self._uses_bases else ():
            if base.fingerprint == of.fingerprint and base.position == until:
                return base.table()
        asked = _ASKED.get()
        if of.name in asked:
            raise ModelError(f"the projection {of.name!r} asks for itself", hint=" → ".join((*asked, of.name)))
        token = _ASKED.set((*asked, of.name))
        try:
            return of.table(_Moment(self, cut, until, self._tenant))
        finally:
            _ASKED.reset(token)

    @contextlib.contextmanager
    def _connection(self) -> Iterator[SqlConnection]:
        """The SQL connection of this place, for one query; an older one is closed once nobody uses it any more."""
        with self._sql_lock:
            cut, until = self._at()
            # Upcasters, and defaults of later versions, that were defined since make other views.
            newer = [kind for kind in EVENTS.all() if kind.version > 1]
            steps = tuple(id(of) for kind in newer for of in (kind, *kind.upcasters.values()))
            place = (cut, until, self._tenant, steps)
            if self._sql is None or self._sql[0] != place:
                made = SqlConnection(cut, until, self._tenant, self._state_table, self._span_tables, self._class_here)
                old, self._sql = self._sql, (place, made)
                if old is not None:
                    old[1].retire()
            connection = self._sql[1]
            connection.enter()
        try:
            yield connection
        finally:
            connection.leave()

    def _close_sql(self) -> None:
        """Let go of the files that queries look at, here and in the moments of this lab."""
        for moment in list(self._moments):
            moment._close_sql()
        with self._sql_lock:
            if self._sql is not None:
                self._sql[1].close()
                self._sql = None

    def _state_table(self, name: str, cut: Cut, until: int) -> tuple[str, Callable[[], pa.Table]] | None:
        named = [m for m in MODELS.all() if m.name == name]
        if len(named) > 1:
            places = ", ".join(m.reference for m in named)
            raise UnknownType(f"state.{name} could be any of {places}", hint="give one of them name=…, or use lab.table(Model)")
        if named:
            of = self._model(named[0].cls)
            return of.fingerprint, lambda: self._table_in_the_log(of, self._table(of, *self._state_at(of, cut, until)))
        if (made := HANDMADE.get(name)) is not None:
            return made.fingerprint, lambda: self._handmade(made, cut, until)
        # No class here: the base, brought to this position by the query that was kept with it.
        if not self._uses_bases:
            return None
        base = self._store.read_models.accepted(tenant_key(self._tenant)).get(name)
        if base is None or base.position > until:
            return None
        return f"{base.fingerprint}@{until}", partial(table_without_code, base, self._store, cut, self._tenant, until)

    def _state_at(self, of: Model, cut: Cut, until: int) -> tuple[Cut, int]:
        """What a model is folded over where SQL looks at this cut."""
        own = self._own(of)
        return (cut, until) if own is None else (own, own.head)

    def _table_in_the_log(self, of: Model, table: pa.Table) -> pa.Table:
        """A table with the positions of the log."""
        places = self._in_the_log(of, pl.DataFrame({"_position": pl.Series(pl.from_arrow(table.column("_position")))}))
        at = table.column_names.index("_position")
        return table.set_column(at, table.schema.field(at), places["_position"].to_arrow())

    def _span_tables(self, name: str, cut: Cut, until: int) -> tuple[str, Callable[[], pa.Table], Callable[[], pa.Table]] | None:
        """What SQL knows as `state.<name>_at(…)`, `_intervals()` and `_history(…)`."""
        named = [m for m in MODELS.all() if m.name == name]
        if len(named) != 1:
            return None
        of = self._model(named[0].cls)
        fields, tenant = spans.check_fields(of, None), self._tenant

        def intervals() -> pa.Table:
            own, end = self._state_at(of, cut, until)
            found = self._in_the_log(of, intervals_of(of, own, tenant, end, fields))
            return found.to_arrow(compat_level=pl.CompatLevel.oldest())

        def values() -> pa.Table:
            own, end = self._state_at(of, cut, until)
            told = versions(of, own, tenant, end, engine="auto")
            return self._in_the_log(of, spans.values(of, told, tenant)).to_arrow(compat_level=pl.CompatLevel.oldest())

        return of.fingerprint, intervals, values

    def _one_tenant(self, verb: str) -> str:
        if not isinstance(self._tenant, str):
            raise Unsupported(f"{verb} asks for one tenant, and this lab sees all of them", hint='el.open(path, tenant="…")')
        return check_plain(self._tenant, "tenant")

    def _basis(self, model: Model | None, cut: Cut, until: int) -> Basis:
        tenant = tenant_named(self._tenant)
        print_ = None if model is None else model.fingerprint
        code = self._code() if model is None or print_ is None else ((model.name, print_),)
        asked, inside = self._asked(), self._splits_a_commit()
        clock, event = "recorded" if self._uses_bases else "occurred", partial(event_at, self._store, until)
        return Basis(self._store.store_id, tenant, until, cut.head, clock, asked, engines(), print_, inside, event, code)

    def _code(self) -> tuple[tuple[str, str], ...]:
        """The fingerprints of the models that were asked here; a lab is asked as its log and the code go on."""
        return ()

    def _asked(self) -> str:
        return "head"

    def _splits_a_commit(self) -> bool:
        return False  # the head is the end of one


class Tables:
    """Tables folded in this process, as bases for the next reading: the last few, at whatever positions they were asked.

    A lab shares them with its moments, so that asking for one moment after another folds each event once.
    """

    KEEP = 8

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: list[ReadModelBase] = []

    def best(self, model: Model, tenant: Tenant, until: int, stored: ReadModelBase | None) -> ReadModelBase | None:
        """The newest base of this code at or before `until`, kept or stored."""
        place = (tenant_key(tenant), model.name, model.fingerprint)
        with self._lock:
            bases = [base for base in self._kept if (base.tenant, base.name, base.fingerprint) == place]
        if stored is not None and stored.fingerprint == model.fingerprint:
            bases.append(stored)
        return max((base for base in bases if base.position <= until), key=lambda base: base.position, default=None)

    def keep(self, base: ReadModelBase) -> None:
        """Remember a table that was folded just now."""
        place = (base.tenant, base.name, base.fingerprint, base.position)
        with self._lock:
            others = [b for b in self._kept if (b.tenant, b.name, b.fingerprint, b.position) != place]
            self._kept = [*others[-self.KEEP + 1 :], base]


#: The projections that are being computed here, by name: one that asks for itself is refused.
_ASKED: ContextVar[tuple[str, ...]] = ContextVar("asked", default=())


@dataclass(frozen=True)
class _Moment:
    """What a projection written by hand is given to read."""

    reader: Reader
    cut: Cut
    until: int
    tenant: Tenant

    def query(self, text: str) -> pa.Table:
        connection = SqlConnection(
            self.cut, self.until, self.tenant, self.reader._state_table, self.reader._span_tables, self.reader._class_here
        )
        try:
            return connection.frame(text, None, {}).to_arrow(compat_level=pl.CompatLevel.oldest())
        finally:
            connection.close()

    def events(self, filter: Filter) -> pl.LazyFrame:
        return Events(self.cut, self.tenant, self.reader._class_of, filter, (0, self.until), None).lazy()


def _refuse_unknown(filter: Filter, cut: Cut) -> None:
    """`UnknownType` for a name that is neither stored nor defined here: a typing error would pick nothing, silently."""
    stored = {name for name, _ in cut.schemas}
    for name in sorted({name for clause in filter.clauses for name in clause.types or ()} - stored):
        if not EVENTS.named(name):
            near = get_close_matches(name, stored, n=3)
            known = (
                f"did you mean {' or '.join(near)}?"
                if near
                else f"the store has {', '.join(sorted(stored)[:12]) or 'no events yet'}"
            )
            raise UnknownType(f"no event type is called {name!r}", hint=known, type=name)


def _arguments(parameters: tuple[Any, ...], named: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Values for the query, and the frames among them."""
    frames = {name: _arrow(name, value) for name, value in named.items() if _is_frame(value)}
    values = {name: value for name, value in named.items() if name not in frames}
    return (values or parameters or None), frames


def _is_frame(value: Any) -> bool:
    return isinstance(value, (pl.DataFrame, pl.LazyFrame, pa.Table)) or hasattr(value, "__arrow_c_stream__")


def _arrow(name: str, value: Any) -> Any:
    if isinstance(value, pl.LazyFrame):
        value = value.collect()
    if isinstance(value, pl.DataFrame) and pl.Object in value.dtypes:
        raise QueryRefused(f"{name} has a column of Python objects, which SQL cannot read", hint="cast it to a type of values")
    try:
        return value.to_arrow() if isinstance(value, pl.DataFrame) else pa.table(value)
    except (pa.ArrowException, TypeError, ValueError) as why:
        raise QueryRefused(
            f"{name} is a {type(value).__name__}, which is no frame: {why}", hint=f"{name}=values.to_frame(), or a list"
        ) from None
