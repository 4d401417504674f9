"""The lab: the one object a notebook needs. Everything it does is a verb of a lower layer."""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import sys
import uuid
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

import polars as pl

from eventlab.errors import InvalidValue, ReadOnly, Unsupported
from eventlab.integration import ingest as ingesting
from eventlab.integration.copying import Copied, Transform, copy, refuse_all
from eventlab.integration.export import Exported, export
from eventlab.model.events import EVENTS, event_type
from eventlab.model.filters import EVERYTHING, Filter, category
from eventlab.model.ids import seeded
from eventlab.model.meta import DEFAULT_TENANT, Context, context, current_context
from eventlab.model.models import Model, model_of
from eventlab.model.names import check_plain
from eventlab.model.types import moment_us
from eventlab.projections.consumers import CONSUMERS
from eventlab.projections.runner import Runner
from eventlab.proving import Prover
from eventlab.schemas import SchemaFinding, SchemaWarning, check_schemas, dry_run, sampler_of, warnings_of
from eventlab.store.backup import BackedUp, backup
from eventlab.store.base import ALL, Cut, Draft, Snapshot, Store, Tenant
from eventlab.store.compact import Compacted
from eventlab.store.disk import DiskStore, open_store
from eventlab.store.maintain import LARGE_INGEST, POLICY, Policy, maintenance_of
from eventlab.store.memory import MemoryStore
from eventlab.storming.against import hold
from eventlab.storming.board import Board
from eventlab.storming.discovery import Discovery, discover, walked
from eventlab.storming.origins import of_code, of_log
from eventlab.storming.process import Conformance, Process, conform
from eventlab.temporal.moment import Moment, Time, resolve
from eventlab.temporal.reader import Basis, Progress, quiet
from eventlab.temporal.snapshots import SnapshotPolicy
from eventlab.writing import Clock as Clock

M = TypeVar("M")
#: When the states of streams are kept, unless something else is said.
SNAPSHOTS = SnapshotPolicy()
#: Where progress is shown; `display` registers something that a person sees.
default_progress: Progress = quiet


class Lab(Prover):
    """A log with everything that can be done with it; made by `open` or `scratch`.

    Reads see the log as it is now; `at` gives the same reads at another moment. A lab can be used from several threads.
    """

    def __init__(self, store: Store, tenant: Tenant, *, clock: Clock, chance: Callable[[int], bytes], path: Path | None) -> None:
        super().__init__(
            store, tenant, lambda what, total: default_progress(what, total), clock=clock, chance=chance
        )
        self.path = path
        self._closed = False
        self._runners: list[Runner] = []
        #: Up to which class of this process the stored schemas were looked at, and what was said of them.
        self._looked_at = -1
        self._warned: set[str] = set()

    def __repr__(self) -> str:
        where = str(self.path) if self.path is not None else "in memory"
        tenant = "" if self._own_tenant == DEFAULT_TENANT else f", tenant={self._own_tenant!r}"
        events = "closed" if self._closed else f"{self.head:,} events"
        return f"Lab({where!r}, {events}{tenant})"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the store; opening it again gives the same log. A lab that is closed already stays so."""
        # Only once: the store is counted by whoever opened it, and may be open for others.
        if not self._closed:
            self._closed = True
            for runner in self._runners:
                runner.stop()
            self._close_sql()
            if self._maintenance is not None:
                self._maintenance.leave()
            self._store.close()

    @property
    def store(self) -> Store:
        """The store beneath: for `verify`, and for what the lab has no verb for."""
        return self._store

    @property
    def read_only(self) -> bool:
        """Whether this lab only reads."""
        return self._store.read_only

    # -- who acts

    def context(
        self,
        *,
        actor: str | None = None,
        tenant: str | None = None,
        correlation_id: uuid.UUID | str | None = None,
        causation_id: uuid.UUID | str | None = None,
    ) -> contextlib.AbstractContextManager[Context]:
        """Fill in who acts, for which tenant and in which conversation, for everything appended inside."""
        return context(actor=actor, tenant=tenant, correlation_id=correlation_id, causation_id=causation_id)

    # -- in and out

    def ingest(
        self,
        sources: ingesting.Rows | Sequence[ingesting.Rows],
        *,
        source: str,
        recorded_at: Literal["now", "occurred_at"] = "now",
    ) -> ingesting.Ingested:
        """Turn the rows of frames and files into events: checked whole, merged by time, written in chunks.

        `source` names what is ingested: repeating it adds nothing, and goes on where an interrupted one stopped.
        `recorded_at="occurred_at"` declares imported history: each row was known when it happened, so that `at` means it.
        """
        listed = [sources] if isinstance(sources, ingesting.Rows) else list(sources)
        if recorded_at not in ("now", "occurred_at"):
            raise InvalidValue(f"recorded_at={recorded_at!r}", hint="'now', or 'occurred_at' for imported history")
        if self.read_only:
            raise ReadOnly("this lab only reads", hint="open the store where it can be written")
        tenant = self._one_tenant("ingest")
        for part in listed:
            if not isinstance(part, ingesting.Rows):
                raise InvalidValue(
                    f"ingest takes el.rows(…), and got a {type(part).__name__}",
                    hint='lab.ingest(el.rows(Paid, frame, stream="order-{id}"), source="shop")',
                )
            if isinstance(part.type, type):
                self._bind(part.type, event_type(part.type).name)
        prepared = [ingesting.prepare(part) for part in listed]
        self._refuse_renamed([part.schema for part in prepared])
        bar = self._progress(f"ingest {source}", sum(map(len, prepared)))
        try:
            done = ingesting.ingest(
                self._store, listed, source=check_plain(source, "source"), tenant=tenant, recorded_at=recorded_at,
                context=current_context(), bar=bar, prepared=prepared,
            )  # fmt: skip
        finally:
            bar.close()
        if done.events >= LARGE_INGEST:
            # Nobody waits for a store that has just been filled, and all that is asked of it later is quicker.
            self.compact(all=True)
        return done

    def ingested(self, source: str) -> int:
        """How many events of a source are in the log."""
        return sum(chunk.rows for chunk in self._store.chunks(self._one_tenant("ingested"), source).values())

    def export(self, path: str | os.PathLike[str], filter: Filter = EVERYTHING) -> Exported:
        """Write the events a filter picks as `.parquet`, `.csv` or `.jsonl`."""
        return export(self.read(filter), Path(path).expanduser())

    def copy(
        self, to: Lab, *, filter: Filter = EVERYTHING, transform: Transform | None = None, name: str | None = None,
        recorded_at: Literal["keep", "now"] = "keep",
    ) -> Copied:  # fmt: skip
        """Copy the events a filter picks into another lab: to merge logs, to move one, to leave out what must not be kept.

        `transform` takes each `Recorded` and gives it back as it is, or what it becomes: None drops it, an event takes its place,
        `("order-7", event)` in another stream, a list is several. Ids, times, actors and causes stay. The same copy again goes
        on after what came over; `name` tells copies into one lab apart. Where `to` has later events, `recorded_at="now"`.

        A wrong event is corrected by another event; a copy is for what must be gone.
        """
        if not isinstance(to, Lab) or to._store is self._store:
            raise InvalidValue("copy takes another lab", hint='lab.copy(el.open("data/clean"), transform=…)')
        refuse_all(self._tenant)
        if recorded_at not in ("keep", "now"):
            raise InvalidValue(f"recorded_at={recorded_at!r}", hint="'keep' the times of record, or 'now'")
        if to.read_only:
            raise ReadOnly("the other lab only reads", hint="open the store where it can be written")
        if transform is not None and not callable(transform):
            raise InvalidValue(f"transform={transform!r} is no function", hint="transform=lambda event: … takes each event")
        self.read(filter, limit=0)
        cut, until = self._at()
        bar = self._progress(f"copy to {to}", until)
        try:
            return copy(
                cut, until, self._tenant, check_plain(name or f"copy of {self._store.store_id}", "name"), to._store,
                to._one_tenant("copy"), self._class_of, filter, transform, recorded_at, bar.advance,
            )  # fmt: skip
        finally:
            bar.close()

    # -- what happens here

    def discover(self, filter: Filter = EVERYTHING, *, step: str | None = None) -> Discovery:
        """What happens in this log, or in the events that a filter picks: what follows on what, variants, types, causes.

        A stream is a case, an event type a step; with `step` the value of that field is the step. `.map`, `.variants`, `.types`,
        `.fields`, `.causes`, `.commands`, `.rework` are frames; `.mermaid()` draws the map. Behind the numbers lie events:
        `.positions(a, b)` of a move, `.filled`, `.caused`, `.given` of a row of fields, causes and commands.
        """
        handled = self._store.commands.all(self._one_tenant("discover"))
        return discover(self.read(filter), self._store.cut().schemas, step, handled)

    def board(self, name: str, *models: type[Any]) -> Board:
        """The board that aggregates and projections draw, with the consumers of this process; without any, what this log shows.

        From code: commands, what each gives, who reads what. From the log: events with their fields, a flow for each
        category, and a policy where an event of one category caused one of another.
        """
        if models:
            told = [model_of(model) for model in models]
            handled = {kind.name for model in told for kind in model.handled or ()}
            mine = (any(handled & set(of.types or ()) for of in one.filter.clauses) for one in CONSUMERS.values())
            consumers = [one for one, heard in zip(CONSUMERS.values(), mine, strict=True) if heard]
            return of_code(name, told, consumers)
        return of_log(self.discover(), name, self._store.cut().schemas)

    def conform(self, design: Process | Board, *, step: str | None = None) -> Conformance:
        """Hold the log against what is meant: the streams of a category against a process, all of it against a board.

        `deviations` names each kind of difference with its events; `fitness` is the share of the streams that follow,
        `coverage` the share of the design that happened. Of a board also `drift`, the share of events with other fields, and
        `not_observable`, what the metadata does not tell.
        """
        self._one_tenant("conform")
        if isinstance(design, Board):
            return hold(self.read(), design, self._store.cut().schemas, step)
        process = design
        return conform(walked(self.read(category(process.category)), step), process)

    # -- keeping

    def seal(self) -> int:
        """Write the hot tail as Parquet segments; the number of events sealed. Readers see no difference."""
        return self._store.seal()

    def compact(self, *, all: bool = False) -> Compacted:
        """Rewrite sealed runs into eras sorted by stream where they are due, `all` of them at once; readers see no difference.

        A stream is loaded from one file then, and a fold takes its streams in order. A lab in memory has nothing to do.
        """
        return self._store.compact(all=all) if isinstance(self._store, DiskStore) else Compacted()

    def backup(self, to: str | os.PathLike[str]) -> BackedUp:
        """Copy the store to a new folder, whole as of one commit, while it is in use; the copy is verified."""
        if not isinstance(self._store, DiskStore):
            raise Unsupported("a lab in memory has no files to copy", hint="lab.export writes its events")
        return backup(self._store, Path(to), now=lambda: moment_us(self._clock(), "the clock"))

    # -- schemas

    def check_schemas(self) -> list[SchemaFinding]:
        """What of the stored schemas the classes of this process cannot read, or would read otherwise than one may think.

        Empty is praise. An "error" cannot be read, a "question" is whether a field was renamed. It looks at one event of each
        version that has upcasters; `dry_run` looks at all.
        """
        cut = self._store.cut()
        return check_schemas(cut.schemas.values(), sampler=sampler_of(cut, self._tenant))

    def dry_run(self, *types: type[Any]) -> pl.DataFrame:
        """Bring every stored event to its class of today, and throw it away: rows, failures, new nulls and lost values by type
        and version, with examples of each. Nothing is changed; of these types, or of all.
        """
        bar = self._progress("dry run", self.head)
        try:
            return dry_run(self._store.cut(), self._tenant, bar.advance, [event_type(of).name for of in types])
        finally:
            bar.close()

    # -- time

    def at(
        self,
        time: Time | None = None,
        *,
        position: int | None = None,
        version: tuple[type[Any], str, int] | None = None,
        recorded: Time | None = None,
        occurred: Time | None = None,
        basis: Basis | Mapping[str, Any] | None = None,
        tz: str | None = None,
    ) -> Moment:
        """The log as it was known: at a time (the last commit at or before it), a position, or a version of an aggregate.

        `at(time)` and `at(recorded=time)` are the same. `occurred` is the other clock: of all that is known now, what had
        occurred by then, in the order of the log, unless a model says otherwise (`late` and `corrections` of `el.aggregate`).
        `basis` opens the moment of an earlier answer again; `drift` tells what differs from then.
        """
        if time is not None and recorded is not None:
            raise InvalidValue("at() takes a time or recorded=, which are the same, and got both", hint="lab.at(recorded=…)")
        return resolve(self, recorded if time is None else time, position, version, tz, occurred, basis)

    # -- inside

    def _at(self) -> tuple[Cut, int]:
        self._warn_of_schemas()
        return super()._at()

    def _drafts(self, *given: Any, **named: Any) -> tuple[list[Draft], bool]:
        self._warn_of_schemas()
        return super()._drafts(*given, **named)

    def _warn_of_schemas(self) -> None:
        """Say which stored versions cannot be read here, where a class was defined since it was looked at.

        No error: such a store can be browsed, and its other types read.
        """
        if self._looked_at == EVENTS.generation:
            return
        texts: list[str] = []
        generation = EVENTS.generation
        with contextlib.suppress(Exception):  # what cannot be looked at says so where it is read
            texts = warnings_of(self._store.cut().schemas.values())
            self._looked_at = generation
        for text in texts:
            if text not in self._warned:
                self._warned.add(text)
                warnings.warn(text, SchemaWarning, stacklevel=_outside())

    def _keep_snapshot(self, model: Model, stream: str, tenant: str, snapshot: Snapshot) -> None:
        if not self.read_only:
            self._store.save_snapshot(tenant, stream, model.name, snapshot)


def open(
    path: str | os.PathLike[str],
    *,
    tenant: Tenant | None = None,
    create: bool = True,
    read_only: bool = False,
    clock: Clock | None = None,
    allow_disk: str | None = None,
    maintain: bool | Policy = True,
    snapshots: SnapshotPolicy | None = SNAPSHOTS,
) -> Lab:
    """Open the store in a folder, made on first use; the same store for everyone in this process.

    A store that holds several tenants asks which one; `tenant=el.ALL` reads all of them. From the first append on a thread
    keeps the store in shape (seal, compact, collect); `maintain=False` leaves that to `eventlab seal | compact | gc`. States
    are kept as `snapshots` says; None keeps and uses none. A `SchemaWarning` names what the classes here cannot read.
    """
    if snapshots is not None and not isinstance(snapshots, SnapshotPolicy):
        raise InvalidValue(f"snapshots={snapshots!r} is no policy", hint=f"el.SnapshotPolicy(every={snapshots!r:.20}), or None")
    now = clock or _utc_now
    store = open_store(path, now=lambda: moment_us(now(), "the clock"), create=create, read_only=read_only, allow_disk=allow_disk)
    try:
        tenant = _tenant(store, tenant)
    except BaseException:
        store.close()
        raise
    lab = Lab(store, tenant, clock=now, chance=seeded(None), path=store.root)
    lab._snapshots = snapshots
    if maintain and not store.read_only:
        lab._maintenance = maintenance_of(store, maintain if isinstance(maintain, Policy) else POLICY)
    lab._warn_of_schemas()
    return lab


def scratch(*, clock: Clock | None = None, seed: int | None = None, tenant: Tenant = DEFAULT_TENANT) -> Lab:
    """A throw-away lab in memory, for notebooks and tests; with a clock and a seed its ids and times repeat."""
    now = clock or _utc_now
    return Lab(MemoryStore(lambda: moment_us(now(), "the clock")), tenant, clock=now, chance=seeded(seed), path=None)


def _tenant(store: DiskStore, tenant: Tenant | None) -> Tenant:
    if tenant is not None:
        return tenant if tenant is ALL else check_plain(str(tenant), "tenant")
    names = {name for name, _ in store.cut().types_of}
    if names - {DEFAULT_TENANT}:
        raise Unsupported(
            f"the store holds {len(names)} tenants ({', '.join(sorted(names)[:5])})",
            hint=f"say which: el.open(path, tenant={min(names)!r}), or tenant=el.ALL to read all of them",
            tenants=sorted(names),
        )
    return DEFAULT_TENANT


def _outside() -> int:
    """How far up the caller of this package is, for a warning that names his line."""
    found, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").split(".")[0] == __name__.split(".")[0]:
        found, frame = found + 1, frame.f_back
    return found


def _utc_now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)
