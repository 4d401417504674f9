"""What a lab keeps going: read models rebuilt, caught up and accepted, consumers told, subscriptions, and the loop."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final, overload

import polars as pl

from eventlab.errors import Busy, InvalidValue, Late, ReadOnly, UnknownType, Unsupported
from eventlab.model.filters import EVERYTHING, Filter
from eventlab.model.meta import Recorded
from eventlab.model.models import MODELS, Model
from eventlab.projections import read_models
from eventlab.projections.consumers import CONSUMERS, Consumer, Member
from eventlab.projections.following import Subscription
from eventlab.projections.handmade import HANDMADE, Handmade, renew
from eventlab.projections.read_models import Rebuilt, base_of, parked_rows, tenant_key
from eventlab.projections.runner import LEASE_SECONDS, ConsumerTask, ModelTask, Runner
from eventlab.replay.tables import key_names
from eventlab.store.base import ALL, Cut
from eventlab.store.read_models import ReadModelBase
from eventlab.store.work import new_owner
from eventlab.temporal import spans
from eventlab.temporal.calendar import Time
from eventlab.temporal.diff import FEW, diff_tables, moved
from eventlab.temporal.events import Events
from eventlab.temporal.moment import Moment, resolve
from eventlab.temporal.reader import Reader

#: A model, a projection written by hand, or a consumer.
Kept = Any
#: A place in the log: a moment, a position or a time.
Place = Moment | int | Time
_PARKED: Final = {
    "model": pl.String, "key": pl.String, "position": pl.Int64, "stream": pl.String, "version": pl.Int64, "type": pl.String,
    "error": pl.String, "waiting": pl.Int64, "fingerprint": pl.String, "state": pl.String,
}  # fmt: skip
_STATUS: Final = {
    "name": pl.String, "kind": pl.String, "state": pl.String, "fingerprint": pl.String, "position": pl.Int64, "lag": pl.Int64,
    "lag_seconds": pl.Float64, "rows": pl.Int64, "parked": pl.Int64, "events_per_second": pl.Float64,
    "rebuild_seconds": pl.Float64, "error": pl.String, "owner": pl.String,
}  # fmt: skip


class Keeper(Reader):
    """The verbs of a lab that keep something: they write to the store, and never to the log."""

    #: The loops that were started here.
    _runners: list[Runner]
    #: The models that its appends move, by name.
    _inlined: dict[str, Model]

    # -- read models

    @overload
    def rebuild(self, model: Kept, /) -> Rebuilt: ...
    @overload
    def rebuild(self, model: Kept, second: Kept, /, *more: Kept) -> list[Rebuilt]: ...
    def rebuild(self, model: Kept, /, *more: Kept) -> Rebuilt | list[Rebuilt]:
        """Fold the whole log into a new read model beside the old one, and swap it in.

        Where the name stands for other code, the new one stays beside it until `accept`. A long rebuild that was interrupted
        is taken up where it was. A key whose event the code cannot take stops there (`parked`), and the rest goes on.

        Several at once are of one moment, and those that do not lift to a query are folded in one look at the log.
        """
        return self._moved_together("rebuild", [model, *more]) if more else self._moved("rebuild", model)

    @overload
    def catch_up(self, model: Kept, /) -> Rebuilt: ...
    @overload
    def catch_up(self, model: Kept, second: Kept, /, *more: Kept) -> list[Rebuilt]: ...
    def catch_up(self, model: Kept, /, *more: Kept) -> Rebuilt | list[Rebuilt]:
        """Bring a read model up to the head, from its checkpoint, at a cost in proportion to the new events.

        Several at once come to the same position, and what is new is read and decoded once for all of them.
        """
        return self._moved_together("catch_up", [model, *more]) if more else self._moved("catch_up", model)

    def accept(self, model: Kept, fingerprint: str | None = None) -> ReadModelBase:
        """From here on the name of a read model stands for this code, for everyone who reads it; see `diff` before.

        With a name and the beginning of a fingerprint it is one that is stored (`status` lists them): so the one before can be
        brought back.
        """
        self._writable()
        tenant = tenant_key(self._tenant)
        if fingerprint is not None:
            name = model if isinstance(model, str) else self._kept(model).name
            fits = [base for base in self._store.read_models.of(tenant, name) if base.fingerprint.startswith(fingerprint)]
            if len(fits) != 1:
                known = ", ".join(base.fingerprint[:8] for base in self._store.read_models.of(tenant, name)) or "none"
                raise UnknownType(
                    f"{len(fits)} read models {name!r} begin with the fingerprint {fingerprint!r}", hint=f"there are: {known}"
                )
            return self._store.read_models.accept(name, tenant, fits[0].fingerprint)
        if isinstance(model, str):
            raise InvalidValue(f"accept({model!r}) takes a model, or a name and a fingerprint", hint='accept("order", "3fa9…")')
        of = self._kept(model)
        self._moved("catch_up", model)
        return self._store.read_models.accept(of.name, tenant, of.fingerprint)

    def retry(self, what: Kept) -> Rebuilt | int:
        """Try what is parked again: keys of a read model are folded from their first event on, a consumer is told again.

        For a failure that was not the code's. Code that was mended is other code: `rebuild` and `accept` it.
        """
        self._writable()
        if isinstance(what, Consumer):
            member = self._member(what, new_owner())
            try:
                return member.retry()
            finally:
                member.leave()
        of = self._kept(what)
        if isinstance(of, Handmade):
            return self._moved("rebuild", what)
        return read_models.retry(of, self._store, self._tenant)

    def rewind(self, consumer: Consumer, position: int = 0) -> None:
        """A consumer goes on after a position from here on: 0 tells it of everything again, `lab.head` of nothing before now.

        What of its streams is parked is forgotten. `Busy` while a member of its group is at work.
        """
        self._writable()
        if not isinstance(consumer, Consumer):
            raise InvalidValue(f"rewind({consumer!r}) takes a consumer", hint="a read model is made again: lab.rebuild")
        if isinstance(position, bool) or not isinstance(position, int) or not 0 <= position <= self.head:
            raise InvalidValue(f"position={position!r} is not one of this log", hint=f"0 to {self.head:,}")
        work, tenant, owner = self._store.work, tenant_key(self._tenant), new_owner()
        parts = len(work.checkpoints(tenant, consumer.name)) or consumer.parts
        leases = [f"{tenant}/consumer/{consumer.name}/{part:04d}" for part in range(parts)]
        held = work.take(leases, owner, LEASE_SECONDS)
        try:
            if len(held) < parts:
                raise Busy(
                    f"{parts - len(held)} of the {parts} parts of {consumer.name} are held by a process that tells it",
                    hint="stop it first: lab.status() shows which",
                )
            work.forget(tenant, consumer.name)
            work.checkpoints(tenant, consumer.name, parts, position)
        finally:
            work.leave(leases, owner)

    def diff(self, model: type[Any], before: Place | None = None, after: Place | None = None) -> pl.DataFrame:
        """What changed in a model's rows: key, field, before and after, as texts.

        Between two moments, positions or times (now, when `after` is left out), with the positions of the events that changed
        each field. Without any: what this code changes in the read model of its name, at the accepted checkpoint. A field of
        null `before` is new, one of null `after` is gone; the field `_row` stands for rows that come or go.
        """
        of = self._model(model)
        if before is not None or after is not None:
            return self._moved_on(of, self._placed(before), self._placed(after))
        accepted = self._store.read_models.accepted(tenant_key(self._tenant)).get(of.name)
        if accepted is None:
            raise UnknownType(f"there is no read model {of.name!r} to compare with", hint=f"lab.rebuild({of.cls.__name__})")
        cut, until = self._at()
        mine = self._table(of, cut, min(until, accepted.position))
        return diff_tables(accepted.table(), mine, accepted.keys or of.key_names)

    def parked(self, what: Kept | None = None) -> pl.DataFrame:
        """What stopped: a row for each key of a read model whose event could not be folded, and each stream of a consumer.

        `waiting` counts the events of that key or stream since. Those of one, or of all.
        """
        tenant = tenant_key(self._tenant)
        name = None if what is None else what if isinstance(what, str) else self._named(what)
        rows = parked_rows(base for base in self._store.read_models.of(tenant) if name in (None, base.name))
        for consumer in self._consumers():
            if name in (None, consumer):
                for at in self._store.work.checkpoints(tenant, consumer):
                    rows += [
                        {
                            "model": consumer, "key": of.stream, "position": of.position, "stream": of.stream,
                            "version": of.version, "type": of.type, "error": of.error, "waiting": of.waiting,
                            "fingerprint": None, "state": "consumer",
                        }
                        for of in at.parked
                    ]  # fmt: skip
        return pl.DataFrame(rows, schema=_PARKED)

    def status(self) -> pl.DataFrame:
        """Every read model and consumer of this store: where it stands, how far behind, what its runner says, what failed."""
        tenant = tenant_key(self._tenant)
        cut = self._store.cut()
        leases = {lease.name: lease for lease in self._store.work.leases(f"{tenant}/") if lease.held}
        rows: list[dict[str, Any]] = []
        for base in self._store.read_models.of(tenant):
            lease = leases.get(_lease_of(tenant, base.name, base.fingerprint))
            rows.append(
                {
                    "name": base.name, "kind": "read model", "state": base.state, "fingerprint": base.fingerprint,
                    "position": base.position, "rows": base.rows, "parked": len(base.parked), **_said(lease),
                }
            )  # fmt: skip
        for name in self._consumers():
            points = self._store.work.checkpoints(tenant, name)
            run = next((lease for lease in leases.values() if lease.name.startswith(f"{tenant}/run/{name}/")), None)
            rows.append(
                {
                    "name": name, "kind": "consumer", "position": min((of.position for of in points), default=0),
                    "parked": sum(len(of.parked) for of in points), **_said(run),
                }
            )  # fmt: skip
        now = time.time()
        for row in rows:
            row["lag"] = cut.head - row["position"]
            row["lag_seconds"] = max(now - _recorded_after(cut, row["position"]), 0.0) if row["lag"] else 0.0
        return pl.DataFrame(rows, schema=_STATUS)

    def inline(self, *models: type[Any]) -> None:
        """From here on each append of this lab moves these read models too, in its transaction: all of it is stored, or nothing.

        What an inline `evolve` cannot take is not appended. It makes every append slower by about a millisecond a model, so it
        is for what has to be right in the same instant; all others are current when they are read.

        >>> import eventlab as el
        >>> @el.event
        ... class Boarded:
        ...     "Somebody went aboard."
        >>> @el.aggregate
        ... class Boat:
        ...     aboard: int = 0
        ...     def evolve(self, event: Boarded) -> "Boat":
        ...         if self.aboard == 2:
        ...             raise ValueError("the boat is full")
        ...         return Boat(self.aboard + 1)
        >>> lab = el.scratch()
        >>> lab.inline(Boat)
        >>> done = lab.append("boat-1", [Boarded(), Boarded()])
        >>> try:
        ...     lab.append("boat-1", [Boarded()])
        ... except el.EventlabError as why:
        ...     print(why.message.splitlines()[0][-28:], lab.head)
        ValueError: the boat is full 2
        """
        self._writable()
        listed = [self._model(model) for model in models]
        for of in listed:
            if of.source is not None:
                said = f"{of.cls.__name__} is keyed by the state of {of.source.cls.__name__}, which an append does not read"
                raise Unsupported(said, hint=f"lab.table({of.cls.__name__}) is current without it")
        for of in listed:
            read_models.catch_up(of, self._store, self._tenant)
            self._inlined[of.name] = of

    # -- following

    def subscribe(
        self, filter: Filter = EVERYTHING, *, after: int = 0, live: bool = True, timeout: float | None = None
    ) -> Subscription[Recorded]:
        """Follow what a filter picks: the events after a position, then those that are appended, by whatever process.

        Iterate over it. It ends after `timeout` seconds without an event, at the head of the log with `live=False`, or when
        `stop()` is called; `position` is where to go on from.

        >>> import eventlab as el
        >>> @el.event
        ... class TideTurned:
        ...     "The water comes back."
        >>> lab = el.scratch()
        >>> done = lab.append("pier-1", [TideTurned(), TideTurned()])
        >>> following = lab.subscribe(el.events(TideTurned), after=1, live=False)
        >>> [event.position for event in following], following.position
        ([2], 2)
        """
        # A typing error in the filter is refused now, and not in the loop.
        self.read(filter, limit=0)
        tenant = self._tenant
        return Subscription(
            self._store,
            lambda begin, end: Events(self._store.cut(), tenant, self._class_of, filter, (begin, end), None),
            after, live=live, timeout=timeout,
        )  # fmt: skip

    def wait(self, position: int, *what: Kept, timeout: float = 10.0) -> None:
        """Block until read models and consumers have come to a position: those named, or every accepted read model.

        `Late` when the time is over: nobody moves them (`lab.run`), or they fail (`lab.status()`). What a lab reads is
        current without it; this is for whoever reads the files, or a consumer's effects.
        """
        tenant = tenant_key(self._tenant)
        names = {of if isinstance(of, str) else self._named(of) for of in what}
        until = time.monotonic() + timeout
        while True:
            at = {base.name: base.position for base in self._store.read_models.of(tenant) if base.state == "accepted"}
            at |= {
                n: min((of.position for of in self._store.work.checkpoints(tenant, n)), default=0)
                for n in self._consumers()
                if n in names
            }
            behind = [name for name in sorted(names or at) if at.get(name, 0) < position]
            if not behind:
                return
            if time.monotonic() > until:
                stands = ", ".join(f"{name} at {at.get(name, 0):,}" for name in behind)
                raise Late(
                    f"after {timeout:g} s not at position {position:,}: {stands}",
                    hint="is eventlab run, or lab.run(background=True), at work? lab.status() shows it",
                )
            time.sleep(0.005)

    def _reach(self, position: int, timeout: float) -> None:
        found = self._store.wait(position - 1, timeout) if self.head < position else position
        if found < position:
            raise Late(
                f"after {timeout:g} s the log is at position {found:,}, and the answer has to know of {position:,}",
                hint="is it the same store? at_least= takes what its append or handle gave",
            )

    # -- the loop

    def run(
        self, *what: Kept, background: bool = False, lease_seconds: float = LEASE_SECONDS
    ) -> Runner:
        """Keep read models at the head of the log and tell consumers, as events come; several processes share the work.

        Without a name: all that this process knows of and this log has events for. In the background it is a thread, to be
        ended with `.stop()` or by closing the lab; else it runs here until Ctrl-C.
        """
        self._writable()
        runner = self._runner(what, lease_seconds)
        self._runners.append(runner)
        if background:
            return runner.start()
        try:
            runner.run()
        except KeyboardInterrupt:
            runner.stop()
        return runner

    def run_until_idle(self, *what: Kept, timeout: float | None = None) -> None:
        """Do all there is to be done now, and return; what fails raises."""
        self._writable()
        self._runner(what, LEASE_SECONDS).run_until_idle(timeout)

    # -- inside

    def _placed(self, place: Place | None) -> Moment:
        if isinstance(place, Moment):
            if place._store is not self._store:
                raise InvalidValue(f"{place} is a moment of another log", hint="lab.at(…) of this lab")
            return place
        if place is None:
            return resolve(self, None, self.head, None, None)
        position = place if isinstance(place, int) else None
        return resolve(self, None if isinstance(place, int) else place, position, None, None)

    def _moved_on(self, of: Model, before: Moment, after: Moment) -> pl.DataFrame:
        """The rows of a model at two moments, and the events in between that made them differ."""
        if before._uses_bases != after._uses_bases:
            said = f"{before} and {after} are of different clocks: one is what was known, the other what had occurred"
            raise InvalidValue(said, hint="two times, or two of lab.at(occurred=…)")
        if before.position > after.position:
            raise InvalidValue(f"{before} lies after {after}", hint="diff(Model, before, after)")
        (cut, end), keys = after._at(), key_names(of, self._tenant)
        if before._uses_bases and after._uses_bases and end - before.position <= FEW:
            return moved(of, cut, self._tenant, before._table(of, *before._at()), before.position, end)
        found = diff_tables(before._table(of, *before._at()), after._table(of, *after._at()), keys)
        names, new = [name for name, _ in of.fields], pl.col("_position") > before.position
        if not after._uses_bases:  # what had occurred later may have been recorded before
            new = ~pl.col("_position").is_in(before.versions(of.cls)["_position"].implode())
        events = spans.causes(of, after.versions(of.cls), new, names, self._tenant)
        shown = found.with_columns(*(pl.col(key).cast(events.schema[key]) for key in keys))
        return shown.join(events, on=[*keys, "field"], how="left", nulls_equal=True, maintain_order="left")

    def _runner(self, what: Sequence[Kept], lease_seconds: float) -> Runner:
        listed = list(what) or self._everything()
        tenant = tenant_key(self._tenant)
        tasks = [self._task(of, lease_seconds) for of in listed]
        names = [task.name for task in tasks]
        double = next((name for name in names if names.count(name) > 1), None)
        if double is not None:
            raise InvalidValue(f"two pieces of work are called {double!r}", hint="name which: lab.run(Model, consumer)")
        return Runner(self._store, tasks, tenant, lease_seconds)

    def _everything(self) -> list[Kept]:
        """All that this process knows of, and that this log has events for."""
        cut = self._store.cut()
        types = {name for name, _ in cut.schemas}
        stored = {(base.name, base.fingerprint) for base in self._store.read_models.of(tenant_key(self._tenant))}
        models = [
            model.cls
            for model in MODELS.all()
            if (model.name, model.fingerprint) in stored
            or (model.category is None and any(kind.name in types for kind in model.handled or ()))
        ]
        return [*models, *HANDMADE.values(), *CONSUMERS.values()]

    def _task(self, what: Kept, lease_seconds: float) -> Any:
        if isinstance(what, Consumer):
            return ConsumerTask(what, lambda: self._member(what, new_owner(), lease_seconds))
        of, tenant = self._kept(what), self._tenant
        place = tenant_key(tenant)

        def position() -> int | None:
            found = [b for b in self._store.read_models.of(place, of.name) if b.fingerprint == of.fingerprint]
            return found[0].position if found else None

        def move() -> Rebuilt:
            if isinstance(of, Handmade):
                return self._renewed(of, "catch_up")
            return read_models.catch_up(of, self._store, tenant)

        return ModelTask(of.name, _lease_of(place, of.name, of.fingerprint), move, position)

    def _member(self, consumer: Consumer, owner: str, lease_seconds: float = LEASE_SECONDS) -> Member:
        tenant = self._tenant

        def read(filter: Filter, after: int, until: int) -> Iterable[Recorded]:
            return Events(self._store.cut(), tenant, self._class_of, filter, (after, until), None)

        return Member(consumer, self._store, tenant_key(tenant), read, owner, lease_seconds)

    def _moved(self, verb: str, model: Kept) -> Rebuilt:
        of = self._kept(model)
        self._writable()
        if isinstance(of, Handmade):
            return self._renewed(of, verb)
        base = base_of(of, self._store, self._tenant) if verb == "catch_up" else None
        bar = self._progress(f"{verb.replace('_', ' ')} {of.name}", self.head - (0 if base is None else base.position))
        try:
            move: Callable[..., Rebuilt] = read_models.rebuild if verb == "rebuild" else read_models.catch_up
            return move(of, self._store, self._tenant, bar.advance)
        finally:
            bar.close()

    def _moved_together(self, verb: str, models: Sequence[Kept]) -> list[Rebuilt]:
        """Several read models, in the order that they were given in; projections written by hand each by itself."""
        self._writable()
        kept = [self._kept(model) for model in models]
        folded = list(dict.fromkeys(of for of in kept if not isinstance(of, Handmade)))
        bar = self._progress(f"{verb.replace('_', ' ')} {len(folded)} read models", self.head * len(folded))
        try:
            move = read_models.rebuild_all if verb == "rebuild" else read_models.catch_up_all
            done = dict(zip(folded, move(folded, self._store, self._tenant, bar.advance), strict=True))
        finally:
            bar.close()
        return [self._renewed(of, verb) if isinstance(of, Handmade) else done[of] for of in kept]

    def _renewed(self, of: Handmade, verb: str) -> Rebuilt:
        def table(cut: Cut, until: int) -> Any:
            return self._handmade(of, cut, until)

        return renew(of, self._store, tenant_key(self._tenant), table, only_new=verb == "catch_up")

    def _kept(self, what: Kept) -> Model | Handmade:
        if isinstance(what, Handmade):
            return what
        if isinstance(what, Consumer):
            raise Unsupported(f"{what.name} is a consumer, and has no rows", hint="lab.run(…) tells it of events")
        return self._model(what)

    def _named(self, what: Kept) -> str:
        return what.name if isinstance(what, Consumer) else self._kept(what).name

    def _consumers(self) -> Iterator[str]:
        yield from self._store.work.consumers(tenant_key(self._tenant))

    def _writable(self) -> None:
        if self._store.read_only:
            raise ReadOnly("this lab only reads", hint="open the store where it can be written")


def _lease_of(tenant: str, name: str, fingerprint: str) -> str:
    return f"{tenant}/model/{name}/{fingerprint}"


def _said(lease: Any) -> dict[str, Any]:
    """What the process that holds a lease says of its work."""
    if lease is None:
        return {}
    said = json.loads(lease.said) if lease.said else {}
    seconds = said.get("seconds") or 0.0
    return {
        "events_per_second": said.get("events", 0) / seconds if seconds else None,
        "rebuild_seconds": said.get("rebuild_seconds"), "error": said.get("error") or None, "owner": lease.owner,
    }  # fmt: skip


def _recorded_after(cut: Cut, position: int) -> float:
    """When the event after a position was recorded, in seconds since 1970."""
    envelope = ("position", "recorded_at")
    for batch in cut.batches(EVERYTHING, tenant=ALL, after=position, until=position + 1, envelope=envelope, types=()):
        return float(batch.envelope.recorded_at[0] / 1e6)
    return time.time()
