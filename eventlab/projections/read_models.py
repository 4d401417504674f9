"""Bases and how they move: rebuild beside and swap, catch up from the checkpoint, read base and tail as one table.

A name stands for the code that was accepted. What other code makes of the same name lies beside it, and is read only by that
code, until it is accepted. A key whose event the code cannot take stops at its last good state; the rest goes on.
"""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, Literal, get_args

import pyarrow as pa
import pyarrow.compute as pc

from eventlab.errors import Outrun, Unsupported
from eventlab.model.models import Model
from eventlab.projections.tail import Tail
from eventlab.projections.unfinished import Unfinished
from eventlab.projections.without_code import keep_query
from eventlab.replay.lift import fold_shared, fold_table, lifts, plan_of
from eventlab.replay.parking import Parking, failure, key_text, parked_table
from eventlab.replay.rows import batches_of, events_of
from eventlab.replay.tables import key_names
from eventlab.store.base import ALL, Cut, Store, Tenant
from eventlab.store.read_models import Parked, ReadModelBase, State, base_in_memory

Engine = Literal["auto", "rows", "loop", "lifted"]
#: Told how many events were folded since the last call.
Advance = Callable[[int], None]
#: The query folds so many times as many events a second as the loop, at least; fewer events than `MANY` are the loop's anyway.
QUICKER: Final = 8
MANY: Final = 200_000
#: A fold that does not lift is kept every so many events while a read model is rebuilt.
STRIDE: Final = 4_000_000
#: From so many events on a rebuild that was interrupted is taken up where it was.
LONG: Final = 2_000_000


class StoppedWarning(UserWarning):
    """Some rows of a read model are not current: their keys stopped at an event that could not be folded."""


@dataclass(frozen=True)
class Rebuilt:
    """What a rebuild or a catch-up did: events folded, rows in the table, seconds, and the checkpoint it stands at.

    `state` is "accepted", or "candidate" where the name stands for other code so far; `parked` counts the keys that stopped.
    """

    model: str
    events: int
    rows: int
    position: int
    seconds: float
    size: int
    state: State = "accepted"
    parked: int = 0

    @property
    def events_per_second(self) -> float:
        return self.events / self.seconds if self.seconds else 0.0


def check_engine(engine: str) -> None:
    """Refuse an engine that there is not."""
    if engine not in get_args(Engine):
        raise Unsupported(
            f"there is no engine={engine!r}",
            hint="'rows' runs your own evolve, 'loop' a loop made from it, 'lifted' a query; 'auto' takes the fastest exact one",
        )


# -- reading ---------------------------------------------------------------------------------------------------------------


def current(
    model: Model,
    cut: Cut,
    tenant: Tenant,
    until: int,
    base: ReadModelBase | None,
    advance: Advance | None = None,
    engine: Engine = "auto",
) -> ReadModelBase:
    """The model's rows at `until`: a base of this code at or before it, and the fold of the events since.

    Where the base holds keys that stopped, an aggregate raises what stopped it, as its fold would; a projection goes on.
    """
    base = usable(model, base, tenant, until)
    if base is not None and engine == "auto" and not base.parked and _far(base.position, until) and lifts(model, cut):
        base = None
    if base is None:
        table = fold_table(model, cut, tenant, until, engine=engine)
        _tell(advance, until)
        return base_in_memory(model.name, tenant_key(tenant), model.fingerprint, until, table, key_names(model, tenant))
    if base.parked:
        if model.category is not None:
            raise failure(model, base.parked[0])
        _warn(model, base.parked)
    if base.position == until:
        return base
    parking = Parking(model, tenant, base.parked) if base.parked else None
    since = base.position
    touched = fold_table(model, cut, tenant, until, engine=engine, after=since, base=base.rows_of, parking=parking)
    _tell(advance, until - since)
    return base_in_memory(
        model.name, base.tenant, model.fingerprint, until, base.whole().with_rows(touched), base.keys,
        () if parking is None else parking.parked,
    )  # fmt: skip


def _far(since: int, until: int) -> bool:
    """Whether so much happened since a base that the query over everything is quicker than the loop over the rest."""
    return until - since > MANY and (until - since) * QUICKER > until


def usable(model: Model, base: ReadModelBase | None, tenant: Tenant, until: int) -> ReadModelBase | None:
    """A base that was made by this code and lies at or before `until`."""
    fits = base is not None and base.fingerprint == model.fingerprint and base.keys == key_names(model, tenant)
    return base if fits and base is not None and base.position <= until else None


def base_of(model: Model, store: Store, tenant: Tenant) -> ReadModelBase | None:
    """The stored base that this code of a model made for a tenant, if there is one."""
    print_ = model.fingerprint
    return next((base for base in store.read_models.of(tenant_key(tenant), model.name) if base.fingerprint == print_), None)


def tenant_key(tenant: Tenant) -> str:
    """The name under which the read models of a tenant, or of all of them, are kept."""
    return "" if tenant is ALL else str(tenant)


def _warn(model: Model, parked: tuple[Parked, ...]) -> None:
    first = parked[0]
    text = (
        f"{len(parked):,} of the keys of {model.name} stopped, the first ({key_text(first) or 'it has no key'}) at position "
        f"{first.position:,}: {first.error}; their rows are as before that (lab.parked() lists them)"
    )
    warnings.warn(text, StoppedWarning, stacklevel=2)


def _tell(advance: Advance | None, events: int) -> None:
    if advance is not None:
        advance(events)


# -- moving ----------------------------------------------------------------------------------------------------------------


def rebuild(
    model: Model, store: Store, tenant: Tenant, advance: Advance | None = None, shared: Shared | None = None
) -> Rebuilt:
    """Fold the whole log into a new base beside the old one, and swap it in.

    A long one that was interrupted, whatever by, is taken up where it was. `shared` is what was folded with others before.
    """
    started = time.perf_counter()
    place = (model.name, tenant_key(tenant), model.fingerprint)
    unfinished = Unfinished(store.read_models.bench(*place), advance)
    cut = store.cut() if shared is None else shared.cut
    until = unfinished.begin(cut.head) if cut.head >= LONG else cut.head
    parking = Parking(model, tenant) if shared is None else shared.parking
    if shared is None or shared.table is None:
        made = _whole(model, cut, tenant, until, parking, unfinished)
    else:
        started -= shared.seconds
        made = base_in_memory(*place, until, shared.table, key_names(model, tenant))
        unfinished.advance_to(until)
    events = _events(model, cut, tenant, made, parking)
    while True:
        try:
            saved = store.read_models.save(*place, made.position, made.table(), keys=made.keys, parked=parking.parked)
            break
        except Outrun:
            # The old base was moved on meanwhile: go past it.
            made = _onward(model, store.cut(), tenant, made, parking)
    unfinished.end()
    keep_query(model, store, tenant, saved, cut, anew=True)
    if saved.position < store.cut().head and until < cut.head:
        catch_up(model, store, tenant)
        saved = base_of(model, store, tenant) or saved
    return _rebuilt(saved, events, started)


@dataclass(frozen=True)
class Shared:
    """What several models have in common that are moved together: one cut, and of a rebuild the table, if it was folded."""

    cut: Cut
    parking: Parking
    table: pa.Table | None = None
    seconds: float = 0.0


def rebuild_all(models: Sequence[Model], store: Store, tenant: Tenant, advance: Advance | None = None) -> list[Rebuilt]:
    """Rebuild several models as of one cut; those that do not lift are folded in one look at the log.

    The states of those are in memory together. A long log is folded for each model by itself, for that can be taken up.
    """
    started, cut = time.perf_counter(), store.cut()
    parkings = [Parking(model, tenant) for model in models]
    tables: list[pa.Table | None] = [None] * len(models)
    if cut.head < LONG:
        tables = fold_shared(models, cut, tenant, cut.head, parkings)
    together = sum(table is not None for table in tables)
    seconds = (time.perf_counter() - started) / max(together, 1)
    done = []
    for number, model in enumerate(models):
        table, tables[number] = tables[number], None
        # Where it is folded by itself, what the others parked of it is not known.
        parking = parkings[number] if table is not None else Parking(model, tenant)
        share = Shared(cut, parking, table, seconds if table is not None else 0.0)
        done.append(rebuild(model, store, tenant, advance, share))
    return done


def catch_up_all(models: Sequence[Model], store: Store, tenant: Tenant, advance: Advance | None = None) -> list[Rebuilt]:
    """Catch several models up to one cut, each from its checkpoint: what came since is read and decoded once."""
    cut = store.cut()
    bases = [usable(model, base_of(model, store, tenant), tenant, cut.head) for model in models]
    if all(base is None for base in bases):
        return rebuild_all(models, store, tenant, advance)
    least = min((base.position for base in bases if base is not None), default=cut.head)
    if cut.head - least <= MANY:
        cut = Tail(cut, least)
    return [catch_up(model, store, tenant, advance, cut) for model in models]


def catch_up(
    model: Model, store: Store, tenant: Tenant, advance: Advance | None = None, cut: Cut | None = None
) -> Rebuilt:
    """Fold the events since the checkpoint into the base; the whole log when there is no base of this code.

    With a `cut` up to there, if the base is not beyond it by now.
    """
    started, given = time.perf_counter(), cut
    while True:
        cut, given = given or store.cut(), None
        found = base_of(model, store, tenant)
        if found is not None and found.position > cut.head:
            # Another has moved it beyond this cut: the log goes further by now.
            continue
        base = usable(model, found, tenant, cut.head)
        if base is None:
            return rebuild(model, store, tenant, advance)
        if base.position == cut.head:
            keep_query(model, store, tenant, base, cut)
            return _rebuilt(base, 0, started)
        parking = Parking(model, tenant, base.parked)
        touched = fold_table(
            model, cut, tenant, cut.head, after=base.position, base=base.rows_of, parking=parking
        )
        try:
            saved = store.read_models.save(
                model.name, base.tenant, base.fingerprint, cut.head, touched, keys=base.keys, onto=base, parked=parking.parked
            )
        except Outrun:
            continue
        _tell(advance, cut.head - base.position)
        keep_query(model, store, tenant, saved, cut)
        return _rebuilt(saved, count_events(model, cut, tenant, base.position), started)


def flush(model: Model, store: Store, tenant: Tenant) -> None:
    """Write the rows that an inline read model has in the catalog as a file, like those of a catch-up."""
    base = usable(model, base_of(model, store, tenant), tenant, store.cut().head)
    if base is not None:
        none = base.parts[0].rows().table.slice(0, 0)
        # If it moves meanwhile, the next one is written.
        with contextlib.suppress(Outrun):
            store.read_models.save(
                model.name, base.tenant, base.fingerprint, base.position, none, keys=base.keys, onto=base, parked=base.parked
            )


def accept(model: Model, store: Store, tenant: Tenant, advance: Advance | None = None) -> ReadModelBase:
    """Make this code what the name stands for; its base is brought up to date first."""
    catch_up(model, store, tenant, advance)
    return store.read_models.accept(model.name, tenant_key(tenant), model.fingerprint)


def retry(model: Model, store: Store, tenant: Tenant) -> Rebuilt:
    """Fold the keys that stopped once more, from their first event: for what failed was not the code alone."""
    started = time.perf_counter()
    while True:
        cut = store.cut()
        base = usable(model, base_of(model, store, tenant), tenant, cut.head)
        if base is None or not base.parked:
            return catch_up(model, store, tenant)
        old = Parking(model, tenant, base.parked)
        if old.keyless:
            # Nobody knows which rows these events belong to.
            return rebuild(model, store, tenant)
        parking, until = Parking(model, tenant), base.position
        again = partial(batches_of, model, cut, tenant, until=until)
        table = parked_table(model, again, tenant, None, parking, set(old.keys))
        try:
            store.read_models.save(
                model.name, base.tenant, base.fingerprint, until, table, keys=base.keys, onto=base, parked=parking.parked
            )
        except Outrun:
            continue
        done = catch_up(model, store, tenant)
        return Rebuilt(
            done.model, done.events, done.rows, done.position, time.perf_counter() - started, done.size, done.state, done.parked
        )


def _whole(
    model: Model, cut: Cut, tenant: Tenant, until: int, parking: Parking, unfinished: Unfinished
) -> ReadModelBase:
    plan = plan_of(model, cut) if until >= LONG else None
    keys, name, print_ = key_names(model, tenant), model.name, model.fingerprint
    if plan is None or (plan.refusal is None and not plan.not_lifted):
        table = fold_table(model, cut, tenant, until, parking=parking, finished=unfinished)
        unfinished.advance_to(until)
        return base_in_memory(name, tenant_key(tenant), print_, until, table, keys)
    # It goes through the log in its order: what it has at some places is kept.
    at, table, parked = unfinished.rows() or (0, None, ())
    parking.take(Parking(model, tenant, parked))
    while True:
        made = None if table is None else base_in_memory(name, tenant_key(tenant), print_, at, table, keys)
        end = min(at + STRIDE, until)
        touched = fold_table(
            model, cut, tenant, end, after=at, base=None if made is None else made.rows_of, parking=parking
        )
        table = touched if made is None else made.whole().with_rows(touched)
        at = end
        unfinished.advance_to(at)
        if at >= until:
            return base_in_memory(name, tenant_key(tenant), print_, at, table, keys)
        unfinished.keep(at, table, parking.parked)


def _onward(model: Model, cut: Cut, tenant: Tenant, made: ReadModelBase, parking: Parking) -> ReadModelBase:
    touched = fold_table(model, cut, tenant, cut.head, after=made.position, base=made.rows_of, parking=parking)
    whole = made.whole().with_rows(touched)
    return base_in_memory(model.name, made.tenant, made.fingerprint, cut.head, whole, made.keys)


def _rebuilt(base: ReadModelBase, events: int, started: float) -> Rebuilt:
    seconds = time.perf_counter() - started
    return Rebuilt(base.name, events, base.rows, base.position, seconds, base.size, base.state, len(base.parked))


def _events(model: Model, cut: Cut, tenant: Tenant, made: ReadModelBase, parking: Parking) -> int:
    """How many events a table was folded from."""
    if model.category is not None and not parking.parked:
        # The version of a stream is the number of its events.
        return int(pc.sum(made.table().column("_version")).as_py() or 0)
    return count_events(model, cut, tenant, 0, made.position)


def count_events(model: Model, cut: Cut, tenant: Tenant, after: int, until: int | None = None) -> int:
    """How many events a model has to look at after a position."""
    found = cut.batches(events_of(model), tenant=tenant, after=after, until=until, envelope=("position",), types=())
    return sum(map(len, found))


def parked_rows(bases: Iterable[ReadModelBase]) -> list[dict[str, object]]:
    """What is parked, as rows of a frame."""
    return [
        {
            "model": base.name, "key": key_text(of) if of.key is not None else None, "position": of.position,
            "stream": of.stream, "version": of.version, "type": of.type, "error": of.error, "waiting": of.waiting,
            "fingerprint": base.fingerprint, "state": base.state,
        }
        for base in bases
        for of in base.parked
    ]  # fmt: skip
