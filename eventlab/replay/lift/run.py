"""Running a plan over a cut: the fastest engine that is exact here, and the row fold for whatever a guard caught."""

from __future__ import annotations

import contextlib
import decimal
import functools
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from eventlab.errors import EvolveFailed, NotLiftable, SchemaConflict
from eventlab.model.filters import Clause, Filter
from eventlab.model.models import Model
from eventlab.model.types import Record
from eventlab.replay.lift.columns import dressed, field_array, lowered_leaves, meta_columns, payload, table_from
from eventlab.replay.lift.lifted import STREAMED, Lifting, Query, connect, table_of_query
from eventlab.replay.lift.loop import Loop
from eventlab.replay.lift.partial import Halves
from eventlab.replay.lift.parts import Finished, begins_of, in_parts, together, versions_together
from eventlab.replay.lift.plan import Plan, plan_of
from eventlab.replay.lift.running import NotScanned, Running
from eventlab.replay.lift.scan import Part, Scan, refuse_broken, scan_of
from eventlab.replay.lift.source import Refused
from eventlab.replay.lift.sources import Abandoned
from eventlab.replay.lift.sql import NotHere
from eventlab.replay.lift.staged import SourceStates, fields_read, paths_read
from eventlab.replay.lift.types import closed_in, item_of
from eventlab.replay.parking import Parking, parked_table
from eventlab.replay.rows import Entry, Key, Lookup, RowFold, batches_of, events_of, source_entries
from eventlab.replay.tables import entries_of, key_names, key_table, sorted_table, table_of
from eventlab.store.base import ALL, FOLD_ENVELOPE, Batch, Cut, Tenant, collector_off
from eventlab.store.columns import ENVELOPE_NAMES, codec
from eventlab.store.read_models import base_in_memory

Engine = Literal["auto", "rows", "loop", "lifted"]
#: Finds the rows of some keys in a base.
Find = Callable[[pa.Table], pa.Table]
_CHUNK: Final = 65_536
#: Below so many events the loop is done before a query has begun.
_SMALL: Final = 10_000


def fold_table(
    model: Model,
    cut: Cut,
    tenant: Tenant,
    until: int,
    *,
    engine: str = "auto",
    after: int = 0,
    base: Find | None = None,
    parking: Parking | None = None,
    finished: Finished | None = None,
) -> pa.Table:
    """The model's table at `until`, by the engine asked for: equal to what the row fold gives, or raising what it raises.

    With `base`, which finds the rows of keys in a table of the same model at position `after`, the keys that events after it
    touch are folded on from there, and only their rows are given. With `parking`, a key whose event is not taken stops there
    and is noted, instead of raising. `finished` has parts of the same fold that were done before, and is given those of this.
    """
    until = min(until, cut.head)
    whole = _Whole(model, cut, tenant, until, after, base, parking, finished)
    if engine == "rows":
        return whole.rows()
    plan = _plan(model, cut)
    if plan is None:
        return whole.rows()
    if engine == "lifted":
        _refuse_not_liftable(plan)
    try:
        small = until < _SMALL and plan.loop is not None
        if (engine == "lifted" or (engine == "auto" and not small)) and base is None and after == 0:
            found = _lifted(plan, whole, engine)
            if found is not None:
                return found
            if engine == "lifted" and plan.last_why is not None:
                _not_liftable(plan, plan.model.cls.__name__, plan.last_why)
            found = _halved(plan, whole)
            if found is not None:
                return found
        if plan.loop is not None and _decimals_are_usual():
            return _looped(plan, plan.loop, whole)
    except Abandoned:
        pass
    return whole.rows()


def lifts(model: Model, cut: Cut) -> bool:
    """Whether the query gives every field of a model on this log, and every state of its source."""
    plan = _plan(model, cut)
    if plan is None:
        return False
    try:
        _refuse_not_liftable(plan)
    except NotLiftable:
        return False
    of = None if model.source is None else _plan(model.source, cut)
    return model.source is None or (of is not None and of.refusal is None and _streams(of))


def fold_versions(
    model: Model, cut: Cut, tenant: Tenant, until: int, *, engine: str = "auto", fields: Collection[str] | None = None,
    told: bool = False, only: Collection[Key] | None = None,
) -> pa.Table:  # fmt: skip
    """The state after every event: the columns of the model's table, a row for each event of a key, by key and position.

    With `fields`, of these only: what fails in another one fails all the same. With `told`, and where that costs nothing more,
    there are also `_recorded_at` and `_type` of the event. With `only`, of these keys, by the row fold.
    """
    if only is not None:
        return _row_versions(model, batches_of(model, cut, tenant, until=until), tenant, only)
    table = _versions(model, cut, tenant, until, engine, fields, told=told)
    if fields is None:
        return table
    unwanted = {name for name, _ in model.fields} - set(fields)
    return table.select([name for name in table.column_names if name not in unwanted])


def _versions(
    model: Model, cut: Cut, tenant: Tenant, until: int, engine: str, fields: Collection[str] | None, *, told: bool
) -> pa.Table:
    until = min(until, cut.head)
    plan = _plan(model, cut) if engine != "rows" else None
    if plan is None:
        return _row_versions(model, batches_of(model, cut, tenant, until=until), tenant, None)
    if engine == "lifted":
        _refuse_not_liftable(plan)
    try:
        if engine == "lifted" or (engine == "auto" and (until >= _SMALL or plan.every is None)):
            found = _lifted_versions(plan, cut, tenant, until, fields, told=told, engine=engine)
            if found is not None:
                return found
            if engine == "lifted" and plan.last_why is not None:
                _not_liftable(plan, model.cls.__name__, plan.last_why)
        if engine in ("auto", "loop") and plan.every is not None and _decimals_are_usual():
            return _looped_versions(plan, plan.every, cut, tenant, until)
    except Abandoned:
        pass
    return _row_versions(model, batches_of(model, cut, tenant, until=until), tenant, None)


def fold_since(model: Model, cut: Cut, tenant: Tenant, until: int, after: int, base: Find) -> pa.Table:
    """The state after each event since a base at position `after`, as `fold_versions` gives it, folded on from the base."""
    plan, until = _plan(model, cut), min(until, cut.head)
    if plan is not None and plan.every is not None and _decimals_are_usual():
        out: list[list[Any]] = []
        with contextlib.suppress(Abandoned), collector_off():
            _, bad = run_loop(plan, plan.every, cut, tenant, until, after, base, out)
            if not bad:
                table = table_from(model, plan.analysis.leaves, [state[-1] for state in out], out, tenant)
                return _by_key_and_position(model, table, tenant)
    before = _before_source(model, cut, tenant, after)
    return _row_versions(model, batches_of(model, cut, tenant, after=after, until=until), tenant, None, base, before)


def _source_states(
    plan: Plan, cut: Cut, tenant: Tenant, until: int, after: int = 0, *, engine: str = "auto"
) -> SourceStates | None:
    """The state of a projection's source after each event, as far as its key reads it; None for a key of events alone."""
    source, fields = plan.model.source, fields_read(plan.analysis)
    if source is None or not fields:
        return None
    try:
        if after == 0:
            of = _plan(source, cut) if engine == "auto" else None
            if of is not None and of.every is not None and _decimals_are_usual() and (until < _SMALL or not _streams(of)):
                table = _looped_states(of, of.every, cut, tenant, until, fields)
            else:
                table = fold_versions(source, cut, tenant, until, engine=engine, fields=fields)
        else:
            table = fold_since(source, cut, tenant, until, after, _states_at(source, cut, tenant, after))
        return SourceStates(source, paths_read(plan.analysis), table.select(["_position", *fields]))
    except NotLiftable:
        raise
    except Exception as why:  # what the source raises: it may be that nobody asks for its state there
        raise Abandoned(str(why)) from why


def _streams(plan: Plan) -> bool:
    """Whether the query may give every version of each field."""
    return not plan.not_lifted and all(leaf.kind in STREAMED for leaf in plan.fields.leaves.values())


def _looped_states(plan: Plan, loop: Loop, cut: Cut, tenant: Tenant, until: int, fields: Sequence[str]) -> pa.Table:
    """Some fields of the state after every event, by the loop; the others are not made into columns."""
    out: list[list[Any]] = []
    with collector_off():
        _, bad = run_loop(plan, loop, cut, tenant, until, 0, None, out)
        if bad:
            raise Abandoned("the source is to be folded row by row")
        columns = dict(zip(plan.analysis.leaves, map(list, zip(*out, strict=True)), strict=False)) if out else {}
        types = {path: leaf.type for path, leaf in plan.analysis.leaves.items()}
        kinds, size = dict(plan.model.fields), len(plan.analysis.leaves)
        arrays = {name: field_array(kinds[name], name, columns, types, len(out)) for name in fields}
    return pa.table({**arrays, "_position": pa.array([state[size + 1] for state in out], pa.int64())})


def _before_source(model: Model, cut: Cut, tenant: Tenant, after: int) -> Lookup | None:
    """The entries of a source's streams at a position, for a row fold of what comes after it."""
    source = model.source
    if source is None or after == 0:
        return None

    @functools.cache
    def states() -> Lookup:
        try:
            return _lookup_in(source, tenant, _states_at(source, cut, tenant, after))
        except Exception:  # a stream that fails has no state from there on, and others have
            found = source_entries(source, batches_of(source, cut, tenant, until=after), tenant)
            return lambda keys: {key: found[key] for key in keys if key in found}

    return lambda keys: states()(keys)


def _states_at(source: Model, cut: Cut, tenant: Tenant, position: int) -> Find:
    """Finds the states of a source's streams at a position; all of them are folded for it."""
    table, keys = fold_table(source, cut, tenant, position), key_names(source, tenant)
    return base_in_memory(source.name, "", source.fingerprint, position, table, keys).rows_of


def _plan(model: Model, cut: Cut) -> Plan | None:
    """The plan, or None where a type of the log has two classes here: the row fold says so when it meets one."""
    try:
        return plan_of(model, cut)
    except SchemaConflict:
        return None


def _lookup_in(model: Model, tenant: Tenant, base: Find) -> Lookup:
    """The entries of a base, for the row fold to go on from."""
    return lambda keys: entries_of(model, base(key_table(model, tenant, keys)), tenant)


class _Listed:
    """Entries of keys that come more than once, as `table_of` looks at them."""

    def __init__(self) -> None:
        self.keys: list[Key] = []
        self.entries: list[Entry] = []

    def __iter__(self) -> Iterator[Key]:
        return iter(self.keys)

    def values(self) -> list[Entry]:
        """The entries in their order."""
        return self.entries


def _row_versions(
    model: Model, batches: Iterable[Batch], tenant: Tenant, only: Collection[Key] | None, base: Find | None = None,
    of_source: Lookup | None = None,
) -> pa.Table:  # fmt: skip
    listed, lookup = _Listed(), None if base is None else _lookup_in(model, tenant, base)

    def watch(key: Key, event: Any, state: Any, position: int) -> None:
        listed.keys.append(key)
        listed.entries.append([state, folding.entries[key][1], position])

    more = (model, tenant, lookup, watch, of_source)
    folding = RowFold(*more) if only is None else _Only(only, *more)
    for batch in batches:
        folding.feed(batch)
    return _by_key_and_position(model, table_of(model, listed, tenant), tenant)  # type: ignore[arg-type]


def _by_key_and_position(model: Model, table: pa.Table, tenant: Tenant) -> pa.Table:
    order = [*key_names(model, tenant), "_position"]
    return table.sort_by([(name, "ascending") for name in order]).combine_chunks()


def _looped_versions(plan: Plan, loop: Loop, cut: Cut, tenant: Tenant, until: int) -> pa.Table:
    out: list[list[Any]] = []
    with collector_off():
        _, bad = run_loop(plan, loop, cut, tenant, until, 0, None, out)
        good = [state for state in out if state[-1] not in bad] if bad else out
        table = table_from(plan.model, plan.analysis.leaves, [state[-1] for state in good], good, tenant)
    return _with_row_versions(plan.model, table, cut, tenant, until, bad)


def _with_row_versions(model: Model, table: pa.Table, cut: Cut, tenant: Tenant, until: int, bad: Collection[Any]) -> pa.Table:
    if bad:
        try:
            only = python_keys(model, bad, tenant)
            rest = _row_versions(model, batches_of(model, cut, tenant, until=until), tenant, only)
        except Exception as why:
            raise Abandoned(str(why)) from why
        table = pa.concat_tables([table, rest.select(table.column_names)])
    return _by_key_and_position(model, table, tenant)


def counted(table: pa.Table, keys: Sequence[str]) -> bool:
    """Whether the rows of each key are together, with the versions 1, 2, 3, …"""
    if not len(table):
        return True
    versions = table.column("_version").to_numpy()
    begins = begins_of(table, keys)
    return bool(np.array_equal(begins, versions == 1) and (begins[1:] | (np.diff(versions) == 1)).all())


class _Disordered(Exception):
    """The rows of a key did not come in the order of their positions: windows over them say nothing."""


def _lifted_versions(
    plan: Plan, cut: Cut, tenant: Tenant, until: int, fields: Collection[str] | None, *, told: bool, engine: str
) -> pa.Table | None:
    """Every version by streaming windows; None where they do not give it."""
    found = _asked(plan, cut, tenant, until, every=True, only=fields, told=told, source_engine=engine)
    if found is None:
        return None
    tables, bad = found
    if not tables:
        return table_of(plan.model, {}, tenant)
    table = versions_together(plan.model, tables, tenant) if plan.model.category is not None else tables[0]
    if not bad:
        return table
    table = table.select([name for name in table.column_names if name not in ("_recorded_at", "_type")])
    return _with_row_versions(plan.model, table, cut, tenant, until, bad)


def fold_intervals(
    model: Model, cut: Cut, tenant: Tenant, until: int, fields: Collection[str]
) -> tuple[pa.Table, set[Key]] | None:
    """The versions with which intervals of some fields begin, with `_recorded_at` and `_to`; None where every version is needed.

    Of the keys in the set, which guards caught, there are none: the row fold decides about them.
    """
    until = min(until, cut.head)
    plan = _plan(model, cut)
    if plan is None or (until < _SMALL and plan.every is not None):
        return None
    if any(isinstance(kind, Record) or item_of(kind) is not None for name, kind in model.fields if name in fields):
        return None
    try:
        found = _asked(plan, cut, tenant, until, every=True, only=fields, told=True, settled=True)
        if found is None or not found[0]:
            return None
        tables, bad = found
        table = versions_together(model, tables, tenant) if model.category is not None else tables[0]
    except Abandoned:
        return None
    return table, python_keys(model, bad, tenant)


def _asked(
    plan: Plan,
    cut: Cut,
    tenant: Tenant,
    until: int,
    *,
    every: bool,
    half: Halves | None = None,
    finished: Finished | None = None,
    only: Collection[str] | None = None,
    told: bool = False,
    settled: bool = False,
    source_engine: str = "auto",
) -> tuple[list[pa.Table], set[Any]] | None:
    """The rows that the query gives, in one or more tables, and the keys that guards caught; None where it does not lift here.

    With `half`, of its fields only, and only if that and a loop over the rest cost less than a loop over everything. Of every
    version, `only` some fields, and with `told` when and by what; `settled`, of those with which an interval begins.
    """
    if plan.refusal is not None or (plan.not_lifted and half is None) or not _decimals_are_usual():
        return None
    model, plan.last_why = plan.model, None
    analysis, fields = (plan.analysis, plan.fields) if half is None else (half.query, half.fields)
    but = frozenset[str]() if half is None else half.of_loop
    if only is not None:
        but |= {name for name, _ in model.fields} - set(only)
    bad: set[Any] = set()
    connection = connect()

    def write(scan: Scan, part: bool) -> Query:
        given = (model, analysis, fields, scan, tenant, part, getattr(cut, "whole_streams", True))
        if every and not settled:
            with contextlib.suppress(NotScanned):
                return Running(*given).program(only, told=told)
        lifting = Lifting(*given)
        return lifting.every(only, told=told, settled=settled) if every else lifting.query()

    def take(found: pa.Table, query: Query, part: Part | None) -> pa.Table:
        if query.ordered and pc.any(found.column("_disorder")).as_py():
            raise _Disordered
        if query.counted and not counted(found, query.keys):
            raise _Disordered
        if query.bad and pc.any(found.column("_bad")).as_py():
            caught = _keys_of(model, found.filter(found.column("_bad")), query.keys, tenant)
            bad.update(caught)
            if every:  # the rows of the key that no guard caught are not to be believed either
                found = found.filter(pa.array([key not in bad for key in _keys_of(model, found, query.keys, tenant)]))
            else:
                found = found.filter(pc.invert(found.column("_bad")))
            part = None  # whoever takes it up would not know of them
        table = table_of_query(model, analysis.leaves, found, tenant, but)
        if finished is not None and part is not None:
            finished.put(part, table)
        return table

    try:
        more = ("recorded_at",) if told else ()
        scan = scan_of(model, plan.kinds, analysis.events, cut, tenant, until, connection, more)
        if not scan.sql:
            return [], bad
        states = _source_states(plan, cut, tenant, until, engine=source_engine)
        if states is not None:
            scan = states.joined(scan, connection)
        if half is not None and not _pays(half, plan, connection, scan):
            return None
        refuse_broken(connection, scan)
        tables, plan.last_sql = in_parts(scan, connection, write, take, finished)
    except NotHere as why:
        plan.last_why = why
        return None
    except _Disordered:
        plan.last_why = NotHere("the rows of a stream did not come in the order of their positions")
        return None
    except (duckdb.OutOfRangeException, duckdb.ConversionException, duckdb.IOException, FileNotFoundError) as error:
        # A number beyond 128 bits; or a segment that was compacted and collected meanwhile: the loop reads what took its place.
        plan.last_why = NotHere(f"DuckDB gave up: {error}")
        return None
    finally:
        connection.close()
    return tables, bad


def _lifted(plan: Plan, whole: _Whole, engine: str) -> pa.Table | None:
    """The table by the query; None where it does not lift over this log."""
    found = _asked(plan, whole.cut, whole.tenant, whole.until, every=False, finished=whole.finished, source_engine=engine)
    if found is None:
        return None
    tables, bad = found
    if not tables:
        return table_of(plan.model, {}, whole.tenant)
    return whole.with_rows(together(plan.model, tables, whole.tenant), bad)


def _pays(half: Halves, plan: Plan, connection: duckdb.DuckDBPyConnection, scan: Scan) -> bool:
    # `scan.sql` is text that the scan itself has quoted; the row without a type is that of all of them.
    counted = connection.sql(
        f"SELECT type, count(*), approx_count_distinct(stream) FROM ({scan.sql}) GROUP BY GROUPING SETS ((type), ())"
    ).fetchall()
    counts = {name: count for name, count, _ in counted if name is not None}
    streams = sum(found for name, _, found in counted if name is None)
    return half.pays(counts, streams if plan.model.category is not None else sum(counts.values()), plan.analysis)


def _halved(plan: Plan, whole: _Whole) -> pa.Table | None:
    """The table by the query for the fields that lift, and by a loop for the others; None where that does not pay, or work."""
    half, model, cut, tenant, until = plan.halves, plan.model, whole.cut, whole.tenant, whole.until
    if half is None:
        return None
    found = _asked(plan, cut, tenant, until, every=False, half=half)
    if found is None or not found[0]:
        return None
    tables, bad = found
    with collector_off():
        states, caught = run_loop(plan, half.loop, cut, tenant, until, 0, None, only=half.seen)
        bad |= caught
        table = together(model, tables, tenant)
        keys = _keys_in(model, table, tenant)
        if bad:
            table = table.filter(pa.array([key not in bad for key in keys], pa.bool_()))
            keys = [key for key in keys if key not in bad]
        begin = list(half.loop.initial)
        # A state ends in version and position, which are the query's here.
        states_of_keys = [states.get(key, begin)[: len(begin)] for key in keys]
        columns = dict(zip(half.looped.leaves, map(list, zip(*states_of_keys, strict=True)), strict=bool(keys)))
        types = {path: leaf.type for path, leaf in half.looped.leaves.items()}
        arrays = {name: table.column(name).combine_chunks() for name in key_names(model, tenant)}
        for name, kind in model.fields:
            looped = name in half.of_loop
            arrays[name] = field_array(kind, name, columns, types, len(keys)) if looped else table.column(name).combine_chunks()
        arrays |= {name: table.column(name).combine_chunks() for name in ("_version", "_position")}
        table = dressed(model, arrays, tenant, is_sorted=True)
    return whole.with_rows(table, bad)


def _keys_in(model: Model, table: pa.Table, tenant: Tenant) -> list[Any]:
    """The keys of a table's rows as the loop has them; of models whose key is one text."""
    ids: list[Any] = table.column("_id").to_pylist()
    keys = ids if model.category is None else [f"{model.category}-{of}" for of in ids]
    return keys if tenant is not ALL else list(zip(table.column("_tenant").to_pylist(), keys, strict=True))


def _keys_of(model: Model, found: pa.Table, names: Sequence[str], tenant: Tenant) -> list[Any]:
    columns = [found.column(n).to_pylist() for n in names]
    if tenant is ALL:
        tenants, *rest = columns
        plain = rest[0] if model.key_names == ("_id",) else list(zip(*rest, strict=True))
        return list(zip(tenants, plain, strict=True))
    return columns[0] if model.key_names == ("_id",) else list(zip(*columns, strict=True))


def _refuse_not_liftable(plan: Plan) -> None:
    if plan.refusal is not None:
        why, what = plan.refusal, plan.model.cls.__name__
    elif plan.not_lifted:
        path, why = next(iter(plan.not_lifted.items()))
        what = f"{plan.model.cls.__name__}.{path}"
    else:
        return
    _not_liftable(plan, what, why)


def _not_liftable(plan: Plan, what: str, why: Refused) -> None:
    file = why.file or plan.model.evolve.__code__.co_filename
    raise NotLiftable(f"{what} does not lift: {file}:{why.line}: {why.why}", hint=why.hint, file=file, line=why.line)


def _decimals_are_usual() -> bool:
    """Whether decimals are computed in this thread as the lowered ones are."""
    context = decimal.getcontext()
    usual = {decimal.InvalidOperation, decimal.DivisionByZero, decimal.Overflow}
    return context.prec >= 28 and context.Emax >= 999_999 and {trap for trap, on in context.traps.items() if on} <= usual


# -- the row fold ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Whole:
    """What is folded, for the row fold to do it, or what another engine left."""

    model: Model
    cut: Cut
    tenant: Tenant
    until: int
    after: int
    base: Find | None
    parking: Parking | None
    finished: Finished | None

    def rows(self, only: Collection[Key] | None = None) -> pa.Table:
        """The table by the row fold, of all keys or of some."""
        if self.parking is None:
            return self._plain_rows(only)
        if only is None and not self.parking.keys:
            # As a rule nothing is to be parked, and then no key need be watched.
            with contextlib.suppress(EvolveFailed):
                return self._plain_rows(only)
        before = _before_source(self.model, self.cut, self.tenant, self.after)
        return parked_table(self.model, lambda: self._batches(only), self.tenant, self._lookup, self.parking, only, before)

    def _plain_rows(self, only: Collection[Key] | None) -> pa.Table:
        before = _before_source(self.model, self.cut, self.tenant, self.after)
        more = (self.model, self.tenant, self._lookup, None, before)
        folding = RowFold(*more) if only is None else _Only(only, *more)
        for batch in self._batches(only):
            folding.feed(batch)
        return table_of(self.model, folding.entries, self.tenant)

    def with_rows(self, table: pa.Table, bad: Collection[Any]) -> pa.Table:
        """A table and the rows of the keys that guards caught; `Abandoned` where they raise, for another may raise before."""
        if not bad:
            return table
        try:
            rest = self.rows(python_keys(self.model, bad, self.tenant))
        except Exception as why:
            raise Abandoned(str(why)) from why
        return sorted_table(self.model, pa.concat_tables([table, rest]), self.tenant)

    @property
    def _lookup(self) -> Lookup | None:
        return None if self.base is None else _lookup_in(self.model, self.tenant, self.base)

    def _batches(self, only: Collection[Key] | None) -> Iterator[Batch]:
        found = batches_of(self.model, self.cut, self.tenant, after=self.after, until=self.until)
        if only is None or self.model.category is None:
            yield from found
            return
        streams = pa.array(sorted({key[1] if self.tenant is ALL else key for key in only}), pa.string())
        for batch in found:
            tables = tuple(t for t in (t.filter(pc.is_in(t.column("stream"), streams)) for t in batch.tables) if len(t))
            if tables:
                yield Batch(tables, batch.schemas)


class _Only(RowFold):
    """The row fold of some keys."""

    def __init__(self, only: Collection[Key], *arguments: Any) -> None:
        super().__init__(*arguments)
        self.only = only

    def _keys(self, batch: Batch, events: list[Any]) -> list[Key]:
        return [key if key in self.only else None for key in super()._keys(batch, events)]


# -- the loop --------------------------------------------------------------------------------------------------------------


def _looped(plan: Plan, loop: Loop, whole: _Whole) -> pa.Table:
    with collector_off():
        states, bad = run_loop(plan, loop, whole.cut, whole.tenant, whole.until, whole.after, whole.base)
    return _of_loop(plan, whole, states, bad)


def _of_loop(plan: Plan, whole: _Whole, states: dict[Any, list[Any]], bad: set[Any]) -> pa.Table:
    """The table of a loop's states; of the keys that a guard caught by the row fold."""
    with collector_off():
        if whole.parking is not None:
            # Those that have stopped go no further, and what they would have done is counted.
            bad |= {key for key in lowered_keys(plan.model, whole.parking.keys, whole.tenant) if key in states}
        for key in bad:
            states.pop(key, None)
        table = table_from(plan.model, plan.analysis.leaves, list(states), list(states.values()), whole.tenant)
    return whole.with_rows(table, bad)


def lowered_keys(model: Model, keys: Collection[Key], tenant: Tenant) -> set[Any]:
    """The row fold's keys as the loop has them."""
    if model.key_names == ("_id",):
        return set(keys)
    found = set()
    for key in keys:
        of, plain = key if tenant is ALL else (None, key)
        made = tuple(kind.encode(part, name) for (name, kind), part in zip(model.key_fields, plain, strict=True))
        found.add((of, made) if tenant is ALL else made)
    return found


def python_keys(model: Model, keys: Collection[Any], tenant: Tenant) -> set[Key]:
    """Lowered keys as the row fold has them."""
    if model.key_names == ("_id",):
        return set(keys)
    found = set()
    for key in keys:
        of, plain = key if tenant is ALL else (None, key)
        made = tuple(kind.decode(part) for (_, kind), part in zip(model.key_fields, plain, strict=True))
        found.add((of, made) if tenant is ALL else made)
    return found


def run_loop(
    plan: Plan, loop: Loop, cut: Cut, tenant: Tenant, until: int, after: int, base: Find | None,
    out: list[Any] | None = None, *, only: Sequence[str] | None = None, source: SourceStates | None = None,
) -> tuple[dict[Any, list[Any]], set[Any]]:  # fmt: skip
    """Fold with the generated loop, over some types of events or all: lowered states by key, and the keys that a guard caught.

    A state ends in version, position and key. `out` takes a copy of the state after every event. `source` has the states by
    which the keys are made, where they are there already.
    """
    states: dict[Any, list[Any]] = {}
    bad: set[Any] = set()
    begin = [*loop.initial, 0, 0]
    source = source or _source_states(plan, cut, tenant, until, after)
    held = {} if base is None else _base_states(plan, base, tenant, _touched(plan, loop, cut, tenant, until, after, source))
    initial: Callable[[Any], list[Any]] = lambda key: [*begin, key]  # noqa: E731
    if held:
        initial = lambda key: held.get(key) or [*begin, key]  # noqa: E731
    for batch in _batches(plan, loop, cut, tenant, until, after, only):
        try:
            run_batch(plan, loop, batch, states, bad, initial, tenant, out, source)
        except Abandoned:
            raise
        except Exception as why:  # a key that raises: there is no key to mark
            raise Abandoned(str(why)) from why
    return states, bad


def run_batch(
    plan: Plan, loop: Loop, batch: Batch, states: dict[Any, list[Any]], bad: set[Any], initial: Callable[[Any], list[Any]],
    tenant: Tenant, out: list[Any] | None = None, source: SourceStates | None = None,
) -> None:  # fmt: skip
    """Fold a batch on; `initial` gives the state with which a key begins."""
    if plan.model.key is not None:
        _run_keyed(plan, loop, batch, states, bad, initial, tenant, out, source)
    else:
        _run_streams(plan, loop, batch, states, bad, initial, tenant, out)


def _run_keyed(
    plan: Plan, loop: Loop, batch: Batch, states: dict[Any, list[Any]], bad: set[Any], initial: Callable[[Any], list[Any]],
    tenant: Tenant, out: list[Any] | None, source: SourceStates | None,
) -> None:  # fmt: skip
    codes, values = payload(batch, plan.kinds, loop.codes, loop.leaves)
    envelope = batch.envelope
    keyed_by = [] if source is None else source.at(envelope.position, loop.of_source)
    metas = meta_columns(batch, loop.metas)
    rows = zip(codes.tolist(), envelope.position, *metas, *keyed_by, envelope.tenant, strict=True)
    loop.run(rows, values, states, bad, initial, tenant is ALL, *([] if out is None else [out]))


def _run_streams(
    plan: Plan, loop: Loop, batch: Batch, states: dict[Any, list[Any]], bad: set[Any], initial: Callable[[Any], list[Any]],
    tenant: Tenant, out: list[Any] | None,
) -> None:  # fmt: skip
    """The states of a batch's streams are looked up once each, and told where they are now."""
    codes, values = payload(batch, plan.kinds, loop.codes, loop.leaves)
    keys, numbers = _streams_of(batch, tenant)
    current = []
    for key in keys:
        state = states.get(key)
        if state is None:
            state = states[key] = initial(key)
        current.append(state)
    metas = meta_columns(batch, loop.metas)
    if out is not None:
        envelope = batch.envelope
        found = map(current.__getitem__, numbers.tolist())
        loop.run(zip(found, codes.tolist(), envelope.version, envelope.position, *metas, strict=True), values, bad, out)
        return
    working = np.flatnonzero(np.isin(codes, list(loop.working)))
    if len(working) < len(codes):
        metas = [[column[at] for at in working.tolist()] for column in metas]
        codes = codes[working]
        rows = zip(map(current.__getitem__, numbers[working].tolist()), codes.tolist(), *metas, strict=True)
    else:
        rows = zip(map(current.__getitem__, numbers.tolist()), codes.tolist(), *metas, strict=True)
    loop.run(rows, values, bad)
    last = np.zeros(len(keys), np.int64)
    last[numbers] = np.arange(len(numbers))  # of several rows the last counts
    ends = [batch.envelope_table.column(name).to_numpy()[last].tolist() for name in ("version", "position")]
    size = len(loop.initial)
    for state, version, position in zip(current, *ends, strict=True):
        state[size] = version
        state[size + 1] = position


def _streams_of(batch: Batch, tenant: Tenant) -> tuple[list[Any], np.ndarray[Any, Any]]:
    """The streams of a batch, as keys, and the number of each row's."""
    table = batch.envelope_table
    names = table.column("stream").combine_chunks().dictionary_encode()
    keys, numbers = names.dictionary.to_pylist(), names.indices.to_numpy()
    if tenant is not ALL:
        return keys, numbers
    tenants = table.column("tenant").combine_chunks().dictionary_encode()
    together = tenants.indices.to_numpy().astype(np.int64) * len(keys) + numbers
    pairs, numbers = np.unique(together, return_inverse=True)
    of = tenants.dictionary.to_pylist()
    return [(of[pair // len(keys)], keys[pair % len(keys)]) for pair in pairs.tolist()], numbers


def _batches(
    plan: Plan, loop: Loop, cut: Cut, tenant: Tenant, until: int, after: int, only: Sequence[str] | None
) -> Iterator[Batch]:
    envelope, wanted = looked_at(plan, loop)
    wished = events_of(plan.model)
    if only is None and plan.model.source is not None and plan.model.handled is not None:
        only = list(plan.kinds)  # of the source's events
    if only is not None:
        wished &= Filter((Clause(types=frozenset(only)),))
    found = cut.batches(wished, tenant=tenant, after=after, until=until, envelope=envelope, types=wanted)
    for batch in found:
        yield from batch.split(_CHUNK)


def looked_at(plan: Plan, loop: Loop) -> tuple[list[str], list[str]]:
    """The envelope columns that a loop reads, and the types of which it reads, or has to decode, something."""
    wanted = [n for n, kind in plan.kinds.items() if loop.leaves.get(n) or any(closed_in(of) for _, of in kind.fields)]
    return [*FOLD_ENVELOPE, *(m for m in loop.metas if m in ENVELOPE_NAMES and m not in FOLD_ENVELOPE)], wanted


def _touched(
    plan: Plan, loop: Loop, cut: Cut, tenant: Tenant, until: int, after: int, source: SourceStates | None
) -> pa.Table:
    """The keys of the events after a base, as columns of the table: its other rows are not looked at."""
    model = plan.model
    if model.category is None:
        # A key is computed from its event, and the state of another.
        states, _ = run_loop(plan, loop, cut, tenant, until, after, None, source=source)
        return key_table(model, tenant, list(python_keys(model, states, tenant)))
    names = ["tenant", "stream"] if tenant is ALL else ["stream"]
    found = cut.batches(events_of(model), tenant=tenant, after=after, until=until, envelope=names, types=[])
    streams = [table.select(names) for batch in found for table in batch.tables]
    if not streams:
        return key_table(model, tenant, [])
    keys = pa.concat_tables(streams).group_by(names, use_threads=False).aggregate([])
    arrays = {"_tenant": keys.column("tenant")} if tenant is ALL else {}
    table = pa.table({**arrays, "_id": pc.utf8_slice_codeunits(keys.column("stream"), len(model.category) + 1)})
    # In the order in which their rows are written later, for they are looked for again then.
    return sorted_table(model, table, tenant)


def _base_states(plan: Plan, find: Find, tenant: Tenant, keys: pa.Table) -> dict[Any, list[Any]]:
    """The rows of a base that belong to some keys, as lowered states."""
    model, leaves = plan.model, plan.analysis.leaves
    if not len(keys):
        return {}
    base = find(keys)
    if not len(base):
        return {}
    types = {path: leaf.type for path, leaf in leaves.items()}
    columns: list[Sequence[Any]] = []
    for name, kind in model.fields:
        columns += lowered_leaves(kind, name, types, codec(kind.tag).to_stored(base.column(name).combine_chunks()))
    columns += [base.column(name).to_pylist() for name in ("_version", "_position")]
    own: list[Any] = []
    parts = [codec(kind.tag).to_stored(base.column(name).combine_chunks()) for name, kind in model.key_fields]
    if model.category is not None:
        own = [f"{model.category}-{id}" for id in parts[0]]
    elif model.key_names == ("_id",):
        own = parts[0]
    else:
        own = list(zip(*parts, strict=True))
    if tenant is ALL:
        own = list(zip(base.column("_tenant").to_pylist(), own, strict=True))
    return {key: [*state, key] for key, state in zip(own, zip(*columns, strict=True), strict=True)}
