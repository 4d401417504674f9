"""What is kept of read models: their rows at a checkpoint, and which code a name stands for. All of it can be made again.

A base is a table sorted by key, and after it the rows that were replaced since, newest last. Rows, checkpoint and parked
events are named by one row of the catalog, so they move together or not at all. A name has one accepted base; those that
other code made lie beside it until they are accepted.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import json
import secrets
import shutil
import sqlite3
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import IO, Any, Final, Literal, Protocol

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from eventlab.errors import Behind, Damaged, EventlabError, Outrun, ReadOnly
from eventlab.model.schema import Schema
from eventlab.store.base import Row, checksum, pack, unpack
from eventlab.store.catalog import Catalog
from eventlab.store.files import Disk, remove, write_durably

State = Literal["accepted", "candidate", "previous"]
#: Replaced rows are folded into the table they replace when they are more than this part of it.
REWRITE_SHARE: Final = 0.25
#: So many bytes of rows are kept decoded in a process.
DECODED_BYTES: Final = 512 << 20
#: Of so many keys it is remembered where they were found.
KEEP_FOUND: Final = 100_000
#: A table of so many rows is written on every core.
MANY_ROWS: Final = 50_000
#: An inline read model takes so many events on within an append, and no more.
INLINE_GAP: Final = 10_000


@dataclass(frozen=True)
class Parked:
    """A key that stopped, for its model could not take one of its events.

    `key` is the key in stored form, None where the key itself could not be made; `position`, `stream`, `version` and `type`
    are those of the event, `error` what was raised; `waiting` counts the events of that key since, which were passed over.
    """

    key: tuple[Any, ...] | None
    position: int
    stream: str
    version: int
    type: str
    error: str
    waiting: int = 0


class Rows:
    """A table that is sorted by key, and where its keys are."""

    def __init__(self, table: pa.Table, keys: Sequence[str]) -> None:
        self.table = table
        self.keys = tuple(keys)
        self._column: pl.Series | None = None
        #: The keys that were looked for last, and where they are: a catch-up reads rows of some keys, and then writes them.
        self._found: tuple[pa.Array, np.ndarray[Any, Any]] | None = None

    def __len__(self) -> int:
        return len(self.table)

    def find(self, wanted: pa.Table) -> np.ndarray[Any, Any]:
        """The row of each key that is asked for; -1 where there is none."""
        if not len(self) or not len(wanted):
            return np.full(len(wanted), -1, np.int64)
        if self._single(wanted):
            keys, found = _one(wanted.column(self.keys[0])), self._found
            if found is not None and found[0].equals(keys):
                return found[1].copy()
            at = self._series().search_sorted(pl.Series(pl.from_arrow(keys))).to_numpy().astype(np.int64)
            at[at == len(self)] = len(self) - 1
            same = pc.equal(self.table.column(self.keys[0]).take(pa.array(at)), keys)
            at[~same.to_numpy()] = -1
            self._found = (keys, at.copy()) if len(at) <= KEEP_FOUND else None
            return at
        names = list(self.keys)
        left, right = pl.DataFrame(pl.from_arrow(wanted.select(names))), pl.DataFrame(pl.from_arrow(self.table.select(names)))
        joined = left.with_row_index("_of").join(right.with_row_index("_at"), on=names, how="left", nulls_equal=True)
        return joined.sort("_of")["_at"].cast(pl.Int64).fill_null(-1).to_numpy().copy()

    def with_rows(self, newer: pa.Table) -> pa.Table:
        """This table with rows, sorted by key too, put in the place of those of the same keys, or between them."""
        if not len(newer):
            return self.table
        if not len(self):
            return newer
        at = self.find(newer)
        size, fresh = len(self), np.flatnonzero(at < 0)
        if not len(fresh):
            return self._with_replaced(at, newer)
        order = np.arange(size)
        order[at[at >= 0]] = size + np.flatnonzero(at >= 0)
        if len(fresh):
            if not self._single(newer):
                kept = np.concatenate([order, size + fresh])
                whole = gathered([self.table, newer], kept)
                return whole.sort_by([(name, "ascending") for name in self.keys]).combine_chunks()
            asked = pl.Series(pl.from_arrow(newer.column(self.keys[0]))).gather(fresh)
            order = np.insert(order, self._series().search_sorted(asked).to_numpy().astype(np.int64), size + fresh)
        return gathered([self.table, newer], order)

    def over(self, newer: pa.Table) -> Rows:
        """The same as rows; where no key is new, what is known of the keys is kept."""
        made = Rows(self.with_rows(newer), self.keys)
        if len(made) == len(self):
            made._column = self._column
        return made

    def _with_replaced(self, at: np.ndarray[Any, Any], newer: pa.Table) -> pa.Table:
        """Every key is there: the keys stay, and numbers are written over a copy, which is quicker than gathering."""
        newer = newer.cast(self.table.schema) if newer.schema != self.table.schema else newer
        order = np.arange(len(self))
        order[at] = len(self) + np.arange(len(at))
        columns = []
        for name in self.table.column_names:
            column, values = _one(self.table.column(name)), _one(newer.column(name))
            if name in self.keys:
                columns.append(column)
            elif (written := _written_over(column, at, values)) is not None:
                columns.append(written)
            else:
                columns.append(pa.concat_arrays([column, values]).take(pa.array(order)))
        return pa.table(columns, schema=self.table.schema)

    def _single(self, other: pa.Table) -> bool:
        name = self.keys[0]
        column, of = self.table.column(name), other.column(name)
        return len(self.keys) == 1 and pa.types.is_string(column.type) and not column.null_count and not of.null_count

    def _series(self) -> pl.Series:
        if self._column is None:
            self._column = pl.Series(pl.from_arrow(self.table.column(self.keys[0])))
        return self._column


def gathered(tables: Sequence[pa.Table], order: np.ndarray[Any, Any]) -> pa.Table:
    """Rows of several tables after one another, in an order; a column on each core."""
    table = pa.concat_tables([t.cast(tables[0].schema) if t.schema != tables[0].schema else t for t in tables])
    indices = pa.array(order)

    def take(column: pa.ChunkedArray) -> pa.Array:
        return _one(column).take(indices)

    if len(order) < 10_000:
        return pa.table([take(column) for column in table.columns], schema=table.schema)
    with ThreadPoolExecutor(2, "eventlab-rows") as pool:
        return pa.table(list(pool.map(take, table.columns)), schema=table.schema)


def _one(column: pa.ChunkedArray) -> pa.Array:
    return column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)


def _written_over(column: pa.Array, at: np.ndarray[Any, Any], values: pa.Array) -> pa.Array | None:
    """A column with values in some places; None where its values are not of one width, or some are missing."""
    kind = column.type
    one_width = pa.types.is_primitive(kind) or pa.types.is_decimal(kind)
    if not one_width or pa.types.is_boolean(kind) or column.null_count or values.null_count:
        return None
    words = np.dtype(f"V{kind.bit_width // 8}")

    def of(array: pa.Array) -> np.ndarray[Any, Any]:
        return np.frombuffer(array.buffers()[1], words, len(array), array.offset * words.itemsize)

    copy = of(column).copy()
    copy[at] = of(values)
    return pa.Array.from_buffers(kind, len(copy), [None, pa.py_buffer(copy.view(np.uint8))])


@dataclass(frozen=True)
class Part:
    """One table of a base: all its rows as of a position, or those that were replaced up to it."""

    position: int
    count: int
    size: int
    rows: Callable[[], Rows]
    #: The file in the store's folder; empty in memory.
    path: str = ""
    digest: str = ""


@dataclass(frozen=True, repr=False)
class ReadModelBase:
    """The base of a read model: its rows at a checkpoint, the fingerprint of the code that made them, and what was parked."""

    name: str
    tenant: str
    fingerprint: str
    state: State
    position: int
    rows: int
    keys: tuple[str, ...]
    parts: tuple[Part, ...]
    parked: tuple[Parked, ...] = ()

    def __repr__(self) -> str:
        stopped = f", {len(self.parked):,} parked" if self.parked else ""
        stands = f"{self.rows:,} rows at position {self.position:,}, code {self.fingerprint[:8]}{stopped}"
        return f"ReadModelBase({self.name!r}, {self.state}, {stands})"

    @property
    def size(self) -> int:
        """Bytes on disk, or in memory."""
        return sum(part.size for part in self.parts)

    def whole(self) -> Rows:
        """All rows at the checkpoint, sorted by key."""
        return self._whole

    @cached_property
    def _whole(self) -> Rows:
        first, *newer = self.parts
        rows = first.rows()
        return rows if not newer else rows.over(_together(newer, self.keys).table)

    def table(self) -> pa.Table:
        """All rows at the checkpoint, sorted by key."""
        return self.whole().table

    def rows_of(self, wanted: pa.Table) -> pa.Table:
        """The rows of some keys, in no order; those that are not there are left out."""
        found: list[pa.Table] = []
        for part in reversed(self.parts):
            if not len(wanted):
                break
            rows = part.rows()
            at = rows.find(wanted)
            if (at >= 0).any():
                found.append(rows.table.take(pa.array(at[at >= 0])))
                wanted = wanted.filter(pa.array(at < 0))
        if not found:
            return self.parts[0].rows().table.slice(0, 0)
        return pa.concat_tables(found).combine_chunks()

    def missing(self, wanted: pa.Table) -> int:
        """How many of some keys have no row."""
        for part in reversed(self.parts):
            wanted = wanted.filter(pa.array(part.rows().find(wanted) < 0)) if len(wanted) else wanted
        return len(wanted)


def base_in_memory(
    name: str, tenant: str, fingerprint: str, position: int, table: pa.Table, keys: Sequence[str], parked: Sequence[Parked] = ()
) -> ReadModelBase:
    """A table as a base that nobody has stored."""
    rows = Rows(table, keys)
    part = Part(position, len(table), table.nbytes, lambda: rows)
    return ReadModelBase(name, tenant, fingerprint, "candidate", position, len(table), tuple(keys), (part,), tuple(parked))


def _together(parts: Sequence[Part], keys: Sequence[str]) -> Rows:
    """Replaced rows as one table; of a key the newest."""
    rows = parts[0].rows()
    for part in parts[1:]:
        rows = Rows(rows.with_rows(part.rows().table), keys)
    return rows


class Inline(Protocol):
    """A read model that moves within the transaction of an append."""

    @property
    def name(self) -> str: ...
    @property
    def tenant(self) -> str: ...
    @property
    def fingerprint(self) -> str: ...

    def rows(
        self, find: Callable[[pa.Table], pa.Table], events: Sequence[Row], schemas: Mapping[tuple[str, int], Schema],
        parked: Sequence[Parked],
    ) -> tuple[pa.Table, tuple[Parked, ...]]:  # fmt: skip
        """The rows that these events change, and what is parked then; raises where one of the last append cannot be taken."""
        ...


class ReadModels(Protocol):
    """The read models of a store."""

    def of(self, tenant: str, name: str | None = None) -> list[ReadModelBase]:
        """Every base of a tenant, of one name or of all, by name and fingerprint."""
        ...

    def accepted(self, tenant: str) -> dict[str, ReadModelBase]:
        """The accepted base of each name."""
        ...

    def save(
        self, name: str, tenant: str, fingerprint: str, position: int, table: pa.Table, *,
        keys: Sequence[str] = ("_id",), onto: ReadModelBase | None = None, parked: Sequence[Parked] = (),
    ) -> ReadModelBase:  # fmt: skip
        """Keep a table as the base of a name and a fingerprint; the first of a name is accepted, others wait for `accept`.

        With `onto`, the table holds only the rows that came or changed since that base. `Outrun` where the base has moved
        in between, or is newer than the table.
        """
        ...

    def accept(self, name: str, tenant: str, fingerprint: str) -> ReadModelBase:
        """From here on the name stands for this code; the one before is kept as the previous one."""
        ...

    def drop(self, name: str, tenant: str, fingerprint: str) -> None:
        """Forget a base."""
        ...

    def keep_query(self, base: ReadModelBase, query: str | None) -> None:
        """Keep a text with a base by which a process without its code can read it, in the place of another; None for none."""
        ...

    def query(self, base: ReadModelBase) -> str | None:
        """The text that was kept with a base."""
        ...

    def bench(self, name: str, tenant: str, fingerprint: str) -> Path | None:
        """A folder for what is half done, which a collection clears away when nothing happens in it; None in memory."""
        ...


# -- what both have in common ----------------------------------------------------------------------------------------------


def _plan(onto: ReadModelBase, table: pa.Table, keys: Sequence[str]) -> tuple[tuple[Part, ...], pa.Table]:
    """Which parts stay, and the table that is written after them: small ones are folded together, as in a binary counter."""
    newer, kept = Rows(table, keys), list(onto.parts)
    while len(kept) > 1 and kept[-1].count <= 2 * len(newer):
        newer = Rows(kept.pop().rows().with_rows(newer.table), keys)
    if sum(part.count for part in kept[1:]) + len(newer) > REWRITE_SHARE * kept[0].count:
        rows = kept[0].rows()
        if len(kept) > 1:
            newer = Rows(_together(kept[1:], keys).with_rows(newer.table), keys)
        return (), rows.with_rows(newer.table)
    return tuple(kept), newer.table


def refuse_outrun(now: ReadModelBase | None, onto: ReadModelBase | None, position: int, name: str) -> None:
    """`Outrun` where a base has moved since it was looked at, or stands after the position of what is to replace it."""
    place = None if onto is None else [(part.position, part.path, part.count) for part in onto.parts]
    there = None if now is None else [(part.position, part.path, part.count) for part in now.parts]
    moved = onto is not None and (now is None or now.position != onto.position or there != place)
    if moved or (now is not None and now.position > position):
        stands = 0 if now is None else now.position
        raise Outrun(
            f"the read model {name!r} stands at position {stands:,} by now", hint="read it again, and go on from there",
            name=name, position=stands,
        )  # fmt: skip


def _refuse_behind(of: Inline, base: ReadModelBase | None, first: int) -> ReadModelBase:
    if base is None or first - 1 - base.position > INLINE_GAP:
        stands = "is not there" if base is None else f"stands at position {base.position:,}"
        raise Behind(
            f"the inline read model {of.name!r} {stands}, and the append is at {first:,}", hint="catch it up, and append again",
            name=of.name,
        )  # fmt: skip
    return base


def _state(beside: Sequence[ReadModelBase], now: ReadModelBase | None) -> State:
    if now is not None:
        return now.state
    return "candidate" if any(base.state == "accepted" for base in beside) else "accepted"


def _swapped(bases: Sequence[ReadModelBase], fingerprint: str, name: str) -> tuple[list[ReadModelBase], list[ReadModelBase]]:
    """What the bases of a name are when one is accepted, and which of them are let go."""
    if all(base.fingerprint != fingerprint for base in bases):
        raise Outrun(f"there is no base of {name!r} with the fingerprint {fingerprint}", hint="rebuild it", name=name)
    kept: list[ReadModelBase] = []
    gone: list[ReadModelBase] = []
    if next(base for base in bases if base.fingerprint == fingerprint).state == "accepted":
        return list(bases), []
    for base in bases:
        if base.fingerprint == fingerprint:
            kept.append(replace(base, state="accepted"))
        elif base.state == "accepted":
            kept.append(replace(base, state="previous"))
        elif base.state == "previous":
            gone.append(base)
        else:
            kept.append(base)
    return kept, gone


class MemoryReadModels:
    """Read models of a lab in memory."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._bases: dict[tuple[str, str, str], ReadModelBase] = {}
        self._queries: dict[tuple[str, str, str], str] = {}

    def of(self, tenant: str, name: str | None = None) -> list[ReadModelBase]:
        """See `ReadModels`."""
        with self._lock:
            return [base for (of, n, _), base in sorted(self._bases.items()) if of == tenant and name in (None, n)]

    def accepted(self, tenant: str) -> dict[str, ReadModelBase]:
        """See `ReadModels`."""
        return {base.name: base for base in self.of(tenant) if base.state == "accepted"}

    def save(
        self, name: str, tenant: str, fingerprint: str, position: int, table: pa.Table, *,
        keys: Sequence[str] = ("_id",), onto: ReadModelBase | None = None, parked: Sequence[Parked] = (),
    ) -> ReadModelBase:  # fmt: skip
        """See `ReadModels`."""
        with self._lock:
            now = self._bases.get((tenant, name, fingerprint))
            refuse_outrun(now, onto, position, name)
            whole = table if onto is None else Rows(onto.table(), keys).with_rows(table)
            made = base_in_memory(name, tenant, fingerprint, position, whole, keys, parked)
            base = replace(made, state=_state(self.of(tenant, name), now))
            self._bases[tenant, name, fingerprint] = base
            return base

    def accept(self, name: str, tenant: str, fingerprint: str) -> ReadModelBase:
        """See `ReadModels`."""
        with self._lock:
            kept, gone = _swapped(self.of(tenant, name), fingerprint, name)
            for base in gone:
                del self._bases[tenant, name, base.fingerprint]
                self._queries.pop(_place(base), None)
            self._bases.update({(tenant, name, base.fingerprint): base for base in kept})
            return self._bases[tenant, name, fingerprint]

    def drop(self, name: str, tenant: str, fingerprint: str) -> None:
        """See `ReadModels`."""
        with self._lock:
            self._bases.pop((tenant, name, fingerprint), None)
            self._queries.pop((tenant, name, fingerprint), None)

    def move(
        self, inline: Sequence[Inline], rows: Sequence[Row], schemas: Mapping[tuple[str, int], Schema],
        between: Callable[[int, int], Sequence[Row]],
    ) -> None:  # fmt: skip
        """Move read models with an append; all of them, or an error and none."""
        with self._lock:
            moved: dict[tuple[str, str, str], ReadModelBase] = {}
            for of in inline:
                place = (of.tenant, of.name, of.fingerprint)
                base = _refuse_behind(of, self._bases.get(place), rows[0].position)
                events = [*between(base.position, rows[0].position - 1), *rows]
                table, parked = of.rows(base.rows_of, events, schemas, base.parked)
                whole = base.whole().with_rows(table)
                made = base_in_memory(of.name, of.tenant, of.fingerprint, rows[-1].position, whole, base.keys, parked)
                moved[place] = replace(made, state=base.state)
            self._bases.update(moved)

    def keep_query(self, base: ReadModelBase, query: str | None) -> None:
        """See `ReadModels`."""
        with self._lock:
            self._queries.pop(_place(base), None)
            if query is not None:
                self._queries[_place(base)] = query

    def query(self, base: ReadModelBase) -> str | None:
        """See `ReadModels`."""
        with self._lock:
            return self._queries.get(_place(base))

    def bench(self, name: str, tenant: str, fingerprint: str) -> Path | None:
        """See `ReadModels`."""
        return None


# -- on disk ---------------------------------------------------------------------------------------------------------------

#: The name in a file's metadata of the Arrow schema that its table has here.
_SCHEMA: Final = "eventlab.schema"
_COLUMNS: Final = "tenant, name, fingerprint, state, position, rows, keys, parts, parked"
_INLINE: Final = "tenant, name, fingerprint, key, row"
_PLACE: Final = "tenant = ? AND name = ? AND fingerprint = ?"


class DiskReadModels:
    """Read models of a store in a folder: Parquet files in `read_models`, and one row of the catalog for each base.

    Rows of an inline read model that were replaced by appends are in the catalog, until they are many: its last part.
    """

    def __init__(self, root: Path, catalog: Catalog, disk: Disk) -> None:
        self._root, self._catalog, self._disk = root, catalog, disk
        self._lock = threading.Lock()
        self._open: dict[str, _File] = {}

    def of(self, tenant: str, name: str | None = None) -> list[ReadModelBase]:
        """See `ReadModels`. One whose file was deleted is none, for it can be made again."""
        for attempt in (0, 1):
            with self._catalog.read() as connection:
                rows = self._select(connection, tenant, name)
                inline = [self._inline(connection, row) for row in rows]
            found = [base for row, held in zip(rows, inline, strict=True) if (base := self._base(row, held)) is not None]
            # A file that is not there may have been swapped after its name was read.
            if len(found) == len(rows) or attempt:
                break
        if name is None:
            self._forget({part.path for base in found for part in base.parts}, tenant)
        return found

    def accepted(self, tenant: str) -> dict[str, ReadModelBase]:
        """See `ReadModels`."""
        return {base.name: base for base in self.of(tenant) if base.state == "accepted"}

    def save(
        self, name: str, tenant: str, fingerprint: str, position: int, table: pa.Table, *,
        keys: Sequence[str] = ("_id",), onto: ReadModelBase | None = None, parked: Sequence[Parked] = (),
    ) -> ReadModelBase:  # fmt: skip
        """See `ReadModels`: write beside, swap in with the checkpoint in one transaction, then delete what was replaced."""
        if self._catalog.read_only:
            raise ReadOnly(f"the store in {self._root} is open for reading only", hint="rebuild it where it can be written")
        count = len(table) if onto is None else onto.rows + onto.missing(table.select(list(keys)))
        given = onto
        if onto is not None and not onto.parts[-1].path:
            # What is inline becomes a file with the rest.
            table = Rows(onto.parts[-1].rows().with_rows(table), keys).table
            onto = replace(onto, parts=onto.parts[:-1])
        kept, written = ((), table) if onto is None or not len(table) else _plan(onto, table, keys)
        parts = list(kept) if onto is None or len(table) else list(onto.parts)
        new = None
        if onto is None or len(table):
            new = self._write(name, fingerprint, position, written, keys, whole=not kept)
            parts.append(new)
        made = ReadModelBase(
            name, tenant, fingerprint, "candidate", position, count, tuple(keys), tuple(parts), tuple(parked)
        )
        gone: list[str] = []
        try:
            with self._catalog.write() as connection:
                bases = self._of(connection, tenant, name)
                now = next((base for base in bases if base.fingerprint == fingerprint), None)
                refuse_outrun(now, given, position, name)
                made = replace(made, state=_state(bases, now))
                self._put(connection, made)
                self._clear(connection, made)
                gone = [part.path for part in (now.parts if now is not None else ())
                        if part.path and part.path not in _paths(made)]  # fmt: skip
        except BaseException:
            if new is not None:
                self._abandon(new.path)
            raise
        self._delete(gone)
        return made

    def accept(self, name: str, tenant: str, fingerprint: str) -> ReadModelBase:
        """See `ReadModels`."""
        with self._catalog.write() as connection:
            kept, gone = _swapped(self._of(connection, tenant, name), fingerprint, name)
            for base in gone:
                self._remove(connection, base)
            for base in kept:
                self._put(connection, base)
        self._delete([part.path for base in gone for part in base.parts if part.path])
        return next(base for base in self.of(tenant, name) if base.fingerprint == fingerprint)

    def drop(self, name: str, tenant: str, fingerprint: str) -> None:
        """See `ReadModels`."""
        with self._catalog.write() as connection:
            gone = [base for base in self._of(connection, tenant, name) if base.fingerprint == fingerprint]
            for base in gone:
                self._remove(connection, base)
        self._delete([part.path for base in gone for part in base.parts if part.path])

    def move(
        self, connection: sqlite3.Connection, inline: Sequence[Inline], rows: Sequence[Row],
        schemas: Mapping[tuple[str, int], Schema], between: Callable[[int, int], Sequence[Row]],
    ) -> None:  # fmt: skip
        """Move read models with an append, in its transaction."""
        first, last = rows[0].position, rows[-1].position
        for of in inline:
            # Only the files: of the inline rows those are read that are looked for.
            bases = (self._base(row, ()) for row in self._select(connection, of.tenant, of.name))
            found = next((base for base in bases if base is not None and base.fingerprint == of.fingerprint), None)
            base = _refuse_behind(of, found, first)
            gap = list(between(base.position + 1, first - 1))
            if len(gap) != first - 1 - base.position or any((row.type, row.schema_version) not in schemas for row in gap):
                _refuse_behind(of, None, first)
            find = _Inlined(connection, base).rows_of
            table, parked = of.rows(find, [*gap, *rows], schemas, base.parked)
            table = table.cast(base.parts[0].rows().table.schema)
            count = base.rows + len(table) - (len(find(table.select(list(base.keys)))) if len(table) else 0)
            put = f"INSERT OR REPLACE INTO inline_row({_INLINE}, checksum) VALUES(?, ?, ?, ?, ?, ?)"
            place = (base.tenant, base.name, base.fingerprint)
            for key, batch in zip(_inline_keys(table, base.keys), _single_rows(table), strict=True):
                row = (*place, key, batch.serialize().to_pybytes())
                connection.execute(put, (*row, checksum(*row)))
            self._put(connection, replace(base, position=last, rows=count, parked=parked))

    def keep_query(self, base: ReadModelBase, query: str | None) -> None:
        """See `ReadModels`."""
        if self.query(base) == query:
            return
        with self._catalog.write() as connection:
            connection.execute(f"DELETE FROM read_model_query WHERE {_PLACE}", _place(base))
            if query is not None:
                row = (*_place(base), query)
                connection.execute("INSERT INTO read_model_query VALUES(?, ?, ?, ?, ?)", (*row, checksum(*row)))

    def query(self, base: ReadModelBase) -> str | None:
        """See `ReadModels`. One that is not as it was written is none."""
        with self._catalog.read() as connection:
            row = connection.execute(f"SELECT query, checksum FROM read_model_query WHERE {_PLACE}", _place(base)).fetchone()
        return row[0] if row is not None and checksum(*_place(base), row[0]) == row[1] else None

    def bench(self, name: str, tenant: str, fingerprint: str) -> Path | None:
        """See `ReadModels`."""
        if self._catalog.read_only:
            return None
        of = hashlib.blake2b(pack([tenant, fingerprint]), digest_size=8).hexdigest()
        return self._root / "read_models" / f".{name}-{of}"

    def collect(self, before: float) -> int:
        """Delete files that no base names and that are older than a moment, in seconds since 1970: a crash left them."""
        folder = self._root / "read_models"
        with self._catalog.look() as connection:
            rows = connection.execute("SELECT parts FROM read_model").fetchall()
        named = {path for (parts,) in rows for path, *_ in unpack(parts)}
        deleted = 0
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            if path.is_dir():
                # Where a file goes while it is looked at, somebody is at work.
                with contextlib.suppress(FileNotFoundError):
                    if max((file.stat().st_mtime for file in path.iterdir()), default=0.0) < before:
                        shutil.rmtree(path, ignore_errors=True)
                continue
            with contextlib.suppress(FileNotFoundError):
                if str(path.relative_to(self._root)) not in named and path.stat().st_mtime < before:
                    remove(path, self._disk)
                    deleted += 1
        return deleted

    # -- rows of the catalog

    def _select(self, connection: sqlite3.Connection, tenant: str, name: str | None) -> list[tuple[Any, ...]]:
        where, values = ("", ()) if name is None else (" AND name = ?", (name,))
        query = f"SELECT {_COLUMNS}, checksum FROM read_model WHERE tenant = ?{where} ORDER BY name, fingerprint"
        # One that is not as it was written is none: the events are there to be folded.
        return [row[:-1] for row in connection.execute(query, (tenant, *values)) if checksum(*row[:-1]) == row[-1]]

    def _of(self, connection: sqlite3.Connection, tenant: str, name: str) -> list[ReadModelBase]:
        rows = self._select(connection, tenant, name)
        return [_with_inline(base_of_row(row, self._unread), self._inline(connection, row) or ()) for row in rows]

    def _base(self, row: tuple[Any, ...], inline: Sequence[bytes] | None) -> ReadModelBase | None:
        try:
            return None if inline is None else _with_inline(base_of_row(row, self._part), inline)
        except FileNotFoundError:
            return None

    def _inline(self, connection: sqlite3.Connection, row: Sequence[Any]) -> list[bytes] | None:
        """The inline rows of a base; None where one is not as it was written, and so the base is none."""
        where = f"SELECT {_INLINE}, checksum FROM inline_row WHERE tenant = ? AND name = ? AND fingerprint = ?"
        found = connection.execute(where, row[:3]).fetchall()
        return [of[4] for of in found] if all(checksum(*of[:5]) == of[5] for of in found) else None

    def _clear(self, connection: sqlite3.Connection, base: ReadModelBase) -> None:
        connection.execute(
            "DELETE FROM inline_row WHERE tenant = ? AND name = ? AND fingerprint = ?", (base.tenant, base.name, base.fingerprint)
        )

    def _put(self, connection: sqlite3.Connection, base: ReadModelBase) -> None:
        parts = pack([[part.path, part.position, part.count, part.size, part.digest] for part in base.parts if part.path])
        parked = pack([[p.key, p.position, p.stream, p.version, p.type, p.error, p.waiting] for p in base.parked])
        row = (
            base.tenant, base.name, base.fingerprint, base.state, base.position, base.rows, json.dumps(base.keys), parts, parked,
        )  # fmt: skip
        insert = f"INSERT OR REPLACE INTO read_model({_COLUMNS}, checksum) VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
        connection.execute(insert, (*row, checksum(*row)))

    def _remove(self, connection: sqlite3.Connection, base: ReadModelBase) -> None:
        self._clear(connection, base)
        for table in ("read_model", "read_model_query"):
            connection.execute(f"DELETE FROM {table} WHERE {_PLACE}", _place(base))

    # -- files

    def _write(
        self, name: str, fingerprint: str, position: int, table: pa.Table, keys: Sequence[str], *, whole: bool
    ) -> Part:
        kind = "" if whole else ".delta"
        path = self._root / "read_models" / f"{name}-{position:019d}-{secrets.token_hex(4)}{kind}.parquet"
        # Any reader of the file can tell what it is, and as of when.
        said = {"model": name, "fingerprint": fingerprint, "position": position, "rows": "all" if whole
                else "those replaced since the file before"}  # fmt: skip
        write_durably(path, lambda file: _write_parquet(table, file, json.dumps(said)), self._disk)
        file = _File(path, self._disk.digest(path), tuple(keys))
        file.decoded = Rows(table, keys)
        with self._lock:
            self._open[str(path.relative_to(self._root))] = file
            self._keep_few()
        return Part(
            position, len(table), self._disk.size(path), file.rows, str(path.relative_to(self._root)), file.digest
        )

    def _part(self, values: Sequence[Any], keys: Sequence[str]) -> Part:
        path, position, count, size, digest = values
        with self._lock:
            file = self._open.get(path)
            if file is None or not file.path.exists():
                file = self._open[path] = _File(self._root / path, digest, tuple(keys))
                self._keep_few()
        return Part(position, count, size, file.rows, path, digest)

    def _unread(self, values: Sequence[Any], keys: Sequence[str]) -> Part:
        path, position, count, size, digest = values
        return Part(position, count, size, _nothing, path, digest)

    def _keep_few(self) -> None:
        """Let go of the rows that were decoded first when there are too many."""
        decoded = [file for file in self._open.values() if file.decoded is not None]
        size = sum(file.decoded.table.nbytes for file in decoded if file.decoded is not None)
        for file in decoded[:-1]:
            if size <= DECODED_BYTES or file.decoded is None:
                break
            size -= file.decoded.table.nbytes
            file.decoded = None

    def _forget(self, named: set[str], tenant: str) -> None:
        with self._lock:
            self._open = {path: file for path, file in self._open.items() if path in named or file.path.exists()}

    def _delete(self, paths: Sequence[str]) -> None:
        for path in paths:
            remove(self._root / path, self._disk)
            with self._lock:
                self._open.pop(path, None)

    def _abandon(self, path: str) -> None:
        # As in `Runs.abandon`: the error may come when the COMMIT is already done.
        with contextlib.suppress(EventlabError, sqlite3.Error, OSError), self._catalog.read() as connection:
            rows = connection.execute("SELECT parts FROM read_model").fetchall()
            if all(path != named for (parts,) in rows for named, *_ in unpack(parts)):
                self._delete([path])


class _File:
    """A file of rows that is open from now on: a swap that deletes its name does not take it away."""

    def __init__(self, path: Path, digest: str, keys: tuple[str, ...]) -> None:
        self.path, self.digest, self.keys = path, digest, keys
        self.decoded: Rows | None = None
        self._buffer = pa.memory_map(str(path)).read_buffer()

    def rows(self) -> Rows:
        """Its rows; `Damaged` where it is not what was written."""
        found = self.decoded
        if found is None:
            if hashlib.sha256(self._buffer).hexdigest() != self.digest:
                raise Damaged(
                    f"the read model {self.path} is not what was written", hint="delete it or rebuild: eventlab rebuild"
                )
            table = _read_parquet(self._buffer)
            found = self.decoded = Rows(table, self.keys)
        return found


def _write_parquet(table: pa.Table, file: IO[bytes], said: str) -> None:
    """A table as Parquet; a large one by Polars, which does so on every core, if it has all of its types.

    Polars has texts and lists of its own: what they were is noted in the file, for `_read_parquet`.
    """
    if len(table) < MANY_ROWS or not all(_known_to_polars(field.type) for field in table.schema):
        stored = table.replace_schema_metadata({"eventlab": said})
        pq.write_table(stored, file, compression="zstd", compression_level=1)
        return
    meant = base64.b64encode(table.schema.serialize().to_pybytes()).decode()
    buffer = io.BytesIO()
    frame = pl.DataFrame(pl.from_arrow(table))
    frame.write_parquet(
        buffer, compression="zstd", compression_level=1, statistics=False, metadata={"eventlab": said, _SCHEMA: meant}
    )
    file.write(buffer.getbuffer())


def _read_parquet(buffer: pa.Buffer) -> pa.Table:
    """The table that `_write_parquet` wrote."""
    file = pq.ParquetFile(pa.BufferReader(buffer))
    meant = (file.metadata.metadata or {}).get(_SCHEMA.encode())
    table = file.read().replace_schema_metadata(None)
    if meant is not None:
        table = table.cast(pa.ipc.read_schema(pa.BufferReader(base64.b64decode(meant))))
    return table.combine_chunks()


def _known_to_polars(kind: pa.DataType) -> bool:
    if pa.types.is_list(kind):
        return _known_to_polars(kind.value_type)
    same = (pa.string(), pa.int64(), pa.float64(), pa.bool_(), pa.date32(), pa.timestamp("us", "UTC"))
    return kind in same or pa.types.is_decimal(kind)


def base_of_row(row: Sequence[Any], part: Callable[[Sequence[Any], Sequence[str]], Part]) -> ReadModelBase:
    """A base from its row in the catalog."""
    tenant, name, fingerprint, state, position, rows, keys, parts, parked = row
    names = tuple(json.loads(keys))
    tables = tuple(part(values, names) for values in unpack(parts))
    events = tuple(Parked(None if key is None else tuple(key), *rest) for key, *rest in unpack(parked))
    return ReadModelBase(name, tenant, fingerprint, state, position, rows, names, tables, events)


@dataclass(frozen=True)
class _Inlined:
    """Finds rows of a base: those that appends replaced by their keys in the catalog, others in its files."""

    connection: sqlite3.Connection
    base: ReadModelBase

    def rows_of(self, wanted: pa.Table) -> pa.Table:
        """The rows of some keys, in no order; those that are not there are left out."""
        of = self.base
        where = f"SELECT {_INLINE}, checksum FROM inline_row WHERE tenant = ? AND name = ? AND fingerprint = ? AND key = ?"
        place = (of.tenant, of.name, of.fingerprint)
        rows = [self.connection.execute(where, (*place, key)).fetchone() for key in _inline_keys(wanted, of.keys)]
        if any(row is not None and checksum(*row[:5]) != row[5] for row in rows):
            raise Behind(f"a row of the inline read model {of.name!r} is not what was written", hint="rebuild it", name=of.name)
        rest = of.rows_of(wanted.filter(pa.array([row is None for row in rows], pa.bool_())))
        held = [row[4] for row in rows if row is not None]
        return rest if not held else pa.concat_tables([rest, _table_of(held, rest.schema)]).combine_chunks()


def _with_inline(base: ReadModelBase, inline: Sequence[bytes]) -> ReadModelBase:
    """A base with the rows that appends replaced as its last part."""
    if not inline:
        return base
    files = base.parts

    def rows() -> Rows:
        table = _table_of(inline, files[0].rows().table.schema)
        return Rows(table.sort_by([(name, "ascending") for name in base.keys]).combine_chunks(), base.keys)

    return replace(base, parts=(*files, Part(base.position, len(inline), sum(map(len, inline)), rows)))


def _inline_keys(table: pa.Table, keys: Sequence[str]) -> list[bytes]:
    columns = [table.column(name).to_pylist() for name in keys]
    return [pack(list(map(repr, key))) for key in zip(*columns, strict=True)]


def _single_rows(table: pa.Table) -> list[pa.RecordBatch]:
    return [table.slice(at, 1).combine_chunks().to_batches()[0] for at in range(len(table))]


def _table_of(rows: Sequence[bytes], schema: pa.Schema) -> pa.Table:
    return pa.Table.from_batches([pa.ipc.read_record_batch(row, schema) for row in rows], schema).combine_chunks()


def _place(base: ReadModelBase) -> tuple[str, str, str]:
    return base.tenant, base.name, base.fingerprint


def _paths(base: ReadModelBase) -> set[str]:
    return {part.path for part in base.parts}


def _nothing() -> Rows:
    raise AssertionError("a base that is only looked at has no rows")
