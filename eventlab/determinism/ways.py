"""Every way to fold that a log offers, held against the row fold: the engines, going on from a base, the versions, one stream.

They are all meant to give the same answer; a fold that minds what it is not told of, or an engine that is wrong, shows here.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final, cast

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from eventlab.errors import EventlabError, NotLiftable
from eventlab.model.models import Model
from eventlab.projections.read_models import current
from eventlab.replay.lift import fold_table, fold_versions, plan_of, threads
from eventlab.replay.rows import RowFold, batches_of, fold
from eventlab.replay.tables import key_names, state_of, stored_state, table_of
from eventlab.store.base import ALL, Cut, SourceGroup, Tenant
from eventlab.store.memory import MemoryCut
from eventlab.store.read_models import base_in_memory
from eventlab.store.words import many
from eventlab.temporal.diff import diff_tables

#: So many streams are loaded one by one.
STREAMS: Final = 25
#: A lifted fold may use any number of threads.
THREADS: Final = (1, 2, 8)
#: A log with no more events is folded from memory too.
IN_MEMORY: Final = 200_000
#: And if it has no more than these, it is shuffled, one by one, for models that claim not to mind.
SHUFFLED: Final = 20_000
#: States are stored at least after so many events.
BETWEEN: Final = 10_000
ONE_BY_ONE: Final = "streams one by one"
SNAPSHOT: Final = "streams one by one, from a snapshot in the middle"
ANY_ORDER: Final = "the events in another order"


@dataclass(frozen=True)
class Parted:
    """A way to fold that gave something else than the row fold: the first key and field, both values, and the earliest
    position up to which the two differ.
    """

    way: str
    key: str
    field: str
    rows: str
    other: str
    position: int

    def __str__(self) -> str:
        differ = f"gives {self.field} of {self.key} as {self.other}, and evolve {self.rows}"
        return f"{self.way} {differ}, at position {self.position:,}"


@dataclass(frozen=True)
class Tried:
    """Which ways were tried, which were not and why, and the first that parted."""

    ways: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    parted: Parted | None = None

    def with_more(self, other: Tried) -> Tried:
        """Both together."""
        return Tried((*self.ways, *other.ways), (*self.skipped, *other.skipped), self.parted or other.parted)


def every_way(model: Model, cut: Cut, tenant: Tenant, until: int, bases: int, part: int = 0, parts: int = 1) -> Tried:
    """Try them; `bases` is from how many positions a fold goes on.

    Of `parts` processes that share the work, the `part`-th tries every so many.
    """
    tried = Tried()
    rows: pa.Table | None = None
    for name, way in _ways(model, cut, tenant, until, bases)[part::parts]:
        if isinstance(way, str):
            tried = tried.with_more(Tried(skipped=(f"{name}: {way}",)))
            continue
        try:
            found = way(until)
        except NotLiftable as why:
            tried = tried.with_more(Tried(skipped=(f"{name}: {why.message}",)))
            continue
        tried = tried.with_more(Tried((name,)))
        if rows is None:
            rows = _rows(model, cut, tenant, until)
        if found is not None and (parted := _differs(model, tenant, rows, found, name)) is not None:
            return tried.with_more(Tried(parted=_earliest(model, cut, tenant, until, way, parted)))
    return tried


def _rows(model: Model, cut: Cut, tenant: Tenant, until: int) -> pa.Table:
    return fold_table(model, cut, tenant, until, engine="rows")


Way = Callable[[int], pa.Table | None]


def _ways(model: Model, cut: Cut, tenant: Tenant, until: int, bases: int) -> list[tuple[str, Way | str]]:
    """The slow and the quick ones in turn, so that two processes have as much to do each; or why one is not there."""
    plan = plan_of(model, cut)
    ways: list[tuple[str, Way | str]] = [
        ("states stored and read again between events", lambda end: _stored_between(model, cut, tenant, end)),
    ]
    if plan.loop is not None:
        ways.append(("the loop", lambda end: fold_table(model, cut, tenant, end, engine="loop")))
    elif plan.refusal is not None:
        ways.append(("the loop", f"its code is not understood ({plan.refusal.why})"))
    for number in range(1, bases + 1):
        at = until * number // (bases + 1)
        if 0 < at < until:
            ways.append((f"a base at {at:,} and the events since", partial(_onward, model, cut, tenant, at)))
    ways.append(("a read model that is told of events again", lambda end: _told_again(model, cut, tenant, end)))
    ways.append(("the last of every version", lambda end: _last_versions(model, cut, tenant, end)))
    if plan.refusal is not None:
        ways.append(("the lifted query", f"its code is not understood ({plan.refusal.why})"))
    elif plan.not_lifted:
        ways.append(("the lifted query", f"of its fields these do not lift: {', '.join(plan.not_lifted)}"))
    else:
        ways.append(("the lifted query", partial(_lifted, model, cut, tenant)))
        counted = {f"the lifted query in {many(count, 'thread')}": count for count in THREADS}
        ways += [(name, partial(_in_threads, model, cut, tenant, count)) for name, count in counted.items()]
        ways.append(("the lifted query over files in another order", partial(_lifted, model, cast(Cut, Shuffled(cut)), tenant)))
    from_memory = partial(_from_memory, model, cut, tenant) if until <= IN_MEMORY else f"more than {IN_MEMORY:,} events"
    ways.append(("the events from memory, in no files", from_memory))
    if model.category is not None and tenant is not ALL:
        ways.append((ONE_BY_ONE, lambda end: _one_by_one(model, cut, str(tenant), end)))
        ways.append((SNAPSHOT, lambda end: _from_snapshots(model, cut, str(tenant), end)))
    if model.any_order and model.source is not None:
        ways.append((ANY_ORDER, f"the rows of events depend on the order in the streams of {model.source.cls.__name__}"))
    elif model.any_order:
        shuffled = partial(_shuffled, model, cut, tenant) if until <= SHUFFLED else f"more than {SHUFFLED:,} events"
        ways.append((ANY_ORDER, shuffled))
    return ways


class Shuffled:
    """A cut whose files come in another order."""

    def __init__(self, cut: Cut) -> None:
        self._cut = cut

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cut, name)

    def sources(self, tenant: Tenant) -> list[SourceGroup]:
        """Groups from the last to the first, and their files too."""
        found = self._cut.sources(tenant)[::-1]
        return [replace(group, files=group.files[::-1], paths=group.paths[::-1]) for group in found]


def _lifted(model: Model, cut: Cut, tenant: Tenant, end: int) -> pa.Table:
    return fold_table(model, cut, tenant, end, engine="lifted")


def _in_threads(model: Model, cut: Cut, tenant: Tenant, count: int, end: int) -> pa.Table:
    with threads(count):
        return _lifted(model, cut, tenant, end)


def _from_memory(model: Model, cut: Cut, tenant: Tenant, end: int) -> pa.Table:
    rows = [row for batch in cut.batches(tenant=ALL, until=end) for row in batch.rows()]
    return fold_table(model, MemoryCut(tuple(rows), cut.schemas), tenant, end)


def _onward(model: Model, cut: Cut, tenant: Tenant, at: int, end: int) -> pa.Table | None:
    if end <= at:
        return None
    keys = key_names(model, tenant)
    first = fold_table(model, cut, tenant, at)
    base = base_in_memory(model.name, "", model.fingerprint, at, first, keys)
    touched = fold_table(model, cut, tenant, end, after=at, base=base.rows_of)
    return base.whole().with_rows(touched)


def _told_again(model: Model, cut: Cut, tenant: Tenant, end: int) -> pa.Table:
    """A base that is moved on twice by events that it may have already: what lies before its position is not folded again."""
    keys, table = key_names(model, tenant), fold_table(model, cut, tenant, end // 2)
    base = base_in_memory(model.name, "" if tenant is ALL else str(tenant), model.fingerprint, end // 2, table, keys)
    for until in (end * 3 // 4, end * 3 // 4, end, end):
        base = current(model, cut, tenant, until, base, engine="loop")
    return base.table()


def _last_versions(model: Model, cut: Cut, tenant: Tenant, end: int) -> pa.Table:
    table = fold_versions(model, cut, tenant, end)
    keys = list(key_names(model, tenant))
    frame = pl.DataFrame(pl.from_arrow(table.select([*keys, "_position"]))).with_row_index("_at")
    last = frame.group_by(keys, maintain_order=True).last().sort(keys, nulls_last=True)["_at"]
    return table.take(pa.array(last.to_list(), pa.int64()))


def _stored_between(model: Model, cut: Cut, tenant: Tenant, end: int) -> pa.Table:
    """The row fold whose states go through their stored form, those that moved, after every batch of some events."""
    moved: dict[Any, None] = {}
    folding = RowFold(model, tenant, watch=lambda key, _event, _state, _position: moved.setdefault(key))
    for batch in batches_of(model, cut, tenant, until=end):
        for part in batch.split(max(min(len(batch) // 3, BETWEEN), 1)):
            folding.feed(part)
            for key in moved:
                entry = folding.entries[key]
                entry[0] = state_of(model, stored_state(model, key, entry[0]))
            moved.clear()
    return table_of(model, folding.entries, tenant)


def _one_by_one(model: Model, cut: Cut, tenant: str, end: int) -> pa.Table | None:
    """Some of the streams, each read by itself; the rows of those alone."""
    whole = fold_table(model, cut, tenant, end)
    ids = sorted(whole.column("_id").to_pylist(), key=lambda id: zlib.crc32(id.encode()))[:STREAMS]
    entries: dict[Any, Any] = {}
    for id in ids:
        stream = f"{model.category}-{id}"
        entries |= fold(model, cut.stream(stream, tenant=tenant, until=end), tenant).entries
    return table_of(model, entries, tenant) if ids else None


def _from_snapshots(model: Model, cut: Cut, tenant: str, end: int) -> pa.Table | None:
    """The same streams, each folded up to its middle, stored, read again and gone on with."""
    whole = _one_by_one(model, cut, tenant, end)
    if whole is None:
        return None
    entries: dict[Any, Any] = {}
    for id, version in zip(whole.column("_id").to_pylist(), whole.column("_version").to_pylist(), strict=True):
        stream = f"{model.category}-{id}"
        batches = [part for batch in cut.stream(stream, tenant=tenant, until=end) for part in batch.split(max(version // 2, 1))]
        first = fold(model, batches[:1], tenant)
        kept = {key: [state_of(model, stored_state(model, key, e[0])), *e[1:]] for key, e in first.entries.items()}
        rest = fold(model, batches[1:], tenant, lambda keys, kept=kept: {k: kept[k] for k in keys if k in kept})  # type: ignore[misc]
        entries |= kept | rest.entries
    return table_of(model, entries, tenant)


def _shuffled(model: Model, cut: Cut, tenant: Tenant, end: int) -> pa.Table | None:
    """The row fold of events in another order, for a model that claims that it does not matter; of a log that is not too long."""
    batches = list(batches_of(model, cut, tenant, until=end)) if end <= SHUFFLED else []
    ones = [one for batch in batches for one in batch.split(1)]
    random.Random(end).shuffle(ones)
    return table_of(model, fold(model, ones, tenant).entries, tenant) if ones else None


def _differs(model: Model, tenant: Tenant, rows: pa.Table, other: pa.Table, way: str) -> Parted | None:
    keys: Sequence[str] = key_names(model, tenant)
    if way == ANY_ORDER:
        places = ["_version", "_position"]
        rows, other = rows.drop_columns(places), other.drop_columns(places)
    if way in (ONE_BY_ONE, SNAPSHOT):
        rows = rows.filter(pc.is_in(rows.column("_id"), other.column("_id").combine_chunks()))
    if rows.equals(other.cast(rows.schema) if rows.schema != other.schema else other):
        return None
    found = diff_tables(rows, other, keys)
    if not len(found):
        return None
    first = found.row(0, named=True)
    key = ", ".join(str(first[name]) for name in keys)
    return Parted(way, key, first["field"], str(first["before"]), str(first["after"]), 0)


def _earliest(
    model: Model, cut: Cut, tenant: Tenant, until: int, way: Callable[[int], pa.Table | None], parted: Parted
) -> Parted:
    """The smallest position that halving finds up to which the two differ."""
    low, high, found = 0, until, parted
    while high - low > 1:
        middle = (low + high) // 2
        try:
            table = way(middle)
            here = None if table is None else _differs(model, tenant, _rows(model, cut, tenant, middle), table, parted.way)
        except EventlabError:
            here = None
        if here is None:
            low = middle
        else:
            high, found = middle, here
    return Parted(found.way, found.key, found.field, found.rows, found.other, high)
