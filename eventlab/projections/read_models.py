"""Bases and how they move: rebuild beside and swap, catch up from the checkpoint, read base and tail as one table."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, get_args

import pyarrow as pa
import pyarrow.compute as pc

from eventlab.errors import Unsupported
from eventlab.model.models import Model
from eventlab.replay.lift import fold_table
from eventlab.replay.rows import Entry, Key, Lookup, batches_of, events_of, fold
from eventlab.replay.tables import entries_of, replaced, rows_for, table_of
from eventlab.store.base import ALL, Batch, Cut, ReadModelBase, Store, Tenant

Engine = Literal["auto", "rows", "loop", "lifted"]
#: Told how many events were folded since the last call.
Advance = Callable[[int], None]


@dataclass(frozen=True)
class Rebuilt:
    """What a rebuild or a catch-up did: events folded, rows in the table, seconds, and the checkpoint it stands at."""

    model: str
    events: int
    rows: int
    position: int
    seconds: float
    size: int

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


def current_table(
    model: Model,
    cut: Cut,
    tenant: Tenant,
    until: int,
    base: ReadModelBase | None,
    advance: Advance | None = None,
    engine: Engine = "auto",
) -> pa.Table:
    """The model's table at `until`. A base is used when it was made by this code and lies at or before `until`."""
    base = _usable(model, base, until)
    if base is not None and base.position == until:
        return base.table()
    after = base.position if base is not None else 0
    rows = base.table() if base is not None else None
    if engine == "rows":
        lookup = None if rows is None else _lookup(model, rows, tenant)
        folding = fold(model, _counted(batches_of(model, cut, tenant, after=after, until=until), advance), tenant, lookup)
        touched = table_of(model, folding.entries, tenant)
    else:
        touched = fold_table(model, cut, tenant, until, engine=engine, after=after, base=rows)
        if advance is not None:
            advance(until - after)
    return touched if rows is None else replaced(rows, touched, model, tenant)


def _usable(model: Model, base: ReadModelBase | None, until: int) -> ReadModelBase | None:
    """A base that was made by this code and lies at or before `until`."""
    return base if base is not None and base.fingerprint == model.fingerprint and base.position <= until else None


def rebuild(model: Model, store: Store, tenant: Tenant, advance: Advance | None = None) -> Rebuilt:
    """Fold the whole log into a new base beside the old one, and swap it in."""
    return _save(model, store, tenant, None, advance)


def catch_up(model: Model, store: Store, tenant: Tenant, advance: Advance | None = None) -> Rebuilt:
    """Fold the events since the checkpoint into the base; the whole log when there is no base of this code."""
    return _save(model, store, tenant, base_of(model, store, tenant), advance)


def base_of(model: Model, store: Store, tenant: Tenant) -> ReadModelBase | None:
    """The stored base of a model for this tenant, if there is one, whoever made it."""
    return store.read_models(tenant_key(tenant)).get(model.name)


def tenant_key(tenant: Tenant) -> str:
    """The name under which the read models of a tenant, or of all of them, are kept."""
    return "" if tenant is ALL else str(tenant)


def _save(model: Model, store: Store, tenant: Tenant, base: ReadModelBase | None, advance: Advance | None) -> Rebuilt:
    started = time.perf_counter()
    cut = store.cut()
    used = _usable(model, base, cut.head)
    table = current_table(model, cut, tenant, cut.head, used, advance)
    events = _events(model, cut, tenant, table, used)
    if base is None or base.position < cut.head or base.fingerprint != model.fingerprint:
        base = store.save_read_model(model.name, tenant_key(tenant), model.fingerprint, cut.head, table)
    return Rebuilt(model.name, events, base.rows, base.position, time.perf_counter() - started, base.size)


def _events(model: Model, cut: Cut, tenant: Tenant, table: pa.Table, base: ReadModelBase | None) -> int:
    """How many events a table was folded from, besides those of its base."""
    if model.kind == "aggregate":
        # The version of a stream is the number of its events.
        before = pc.sum(base.table().column("_version")).as_py() if base is not None else 0
        return int(pc.sum(table.column("_version")).as_py() or 0) - int(before or 0)
    after = base.position if base is not None else 0
    return sum(map(len, cut.batches(events_of(model), tenant=tenant, after=after, envelope=("position",), types=())))


def _lookup(model: Model, rows: pa.Table, tenant: Tenant) -> Lookup:
    def find(keys: list[Key]) -> dict[Key, Entry]:
        return entries_of(model, rows_for(rows, model, tenant, keys), tenant)

    return find


def _counted(batches: Iterable[Batch], advance: Advance | None) -> Iterator[Batch]:
    for batch in batches:
        yield batch
        if advance is not None:
            advance(len(batch))
