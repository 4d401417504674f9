"""A lifted fold in parts: a query for each bucket of streams, some at a time, what they give put in one order at the end.

Eras are written in buckets of streams, and a part is the files of some buckets. The rows that lie in position order, the
newest runs and the hot tail, are given to the parts by the same function of the stream's name: once, as lowered columns, in
memory or, where they are many, in files that are mapped into memory. Each core runs parts on a connection of its own, with
one thread: a window streams in one thread whatever the machine has.
"""

from __future__ import annotations

import contextlib
import os
import queue
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, Protocol

import duckdb
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from eventlab.model.models import Model
from eventlab.replay.lift.lifted import Query, connect
from eventlab.replay.lift.scan import Part, Scan
from eventlab.replay.tables import key_names, sorted_table
from eventlab.store.base import ALL, Tenant
from eventlab.store.segment import buckets_of

#: So many bytes of rows from files in position order are kept in memory; more are put in files.
REST_BYTES: Final = 128 << 20
_REST: Final = "rest_of_part"


_cores: int | None = None


@contextlib.contextmanager
def threads(count: int) -> Iterator[None]:
    """Fold in so many threads, for all of this process: what comes out may not depend on it."""
    global _cores
    before, _cores = _cores, count
    with connect() as connection:
        connection.execute(f"SET GLOBAL threads = {count:d}")
        try:
            yield
        finally:
            _cores = before
            connection.execute("RESET GLOBAL threads")


def cores() -> int:
    """How many cores this process may use."""
    if _cores is not None:
        return _cores
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Finished(Protocol):
    """Parts that were finished before, when the same fold was begun and did not end."""

    def get(self, part: Part) -> pa.Table | None:
        """The rows of a part; None where it is not finished."""
        ...

    def put(self, part: Part, table: pa.Table) -> None:
        """One more is finished."""
        ...


def in_parts(
    scan: Scan,
    connection: duckdb.DuckDBPyConnection,
    write: Callable[[Scan, bool], Query],
    take: Callable[[pa.Table, Query, Part | None], pa.Table],
    finished: Finished | None = None,
) -> tuple[list[pa.Table], str]:
    """What `take` makes of the answer to each part's query, and the text of the first.

    `connection` has the hot tail registered; it answers by itself where there is one part only. Parts that are `finished`
    are not asked for.
    """
    if not scan.parts:
        query = write(scan, False)
        return [take(query.run(connection), query, None)], query.sql
    before = {part: table for part in scan.parts if finished is not None and (table := finished.get(part)) is not None}
    with contextlib.ExitStack() as stack:
        rests = _split(scan, connection, stack)
        work: list[tuple[Query, pa.Table | None, Part]] = []
        for part, rest in zip(scan.parts, rests, strict=True):
            if (rest is not None or part.files) and part not in before:
                work.append((write(scan.of_part(part, "" if rest is None else _REST), True), rest, part))
        if not work:
            return list(before.values()), ""
        workers = min(cores(), len(work))
        idle: queue.SimpleQueue[duckdb.DuckDBPyConnection] = queue.SimpleQueue()
        for number in range(workers):
            own = connect(number)
            stack.callback(own.close)
            idle.put(own)
        pool = stack.enter_context(ThreadPoolExecutor(workers, "eventlab-lift"))
        tasks = [pool.submit(_answer, idle, query, rest, part, take) for query, rest, part in work]
        try:
            found = [*before.values(), *(task.result() for task in tasks)]
        except BaseException:
            for task in tasks:
                task.cancel()
            raise
        return found, f"-- one of {len(work)} parts, by the bucket of the stream's name\n{work[0][0].sql}"


def _answer(
    idle: queue.SimpleQueue[duckdb.DuckDBPyConnection], query: Query, rest: pa.Table | None, part: Part,
    take: Callable[[pa.Table, Query, Part | None], pa.Table],
) -> pa.Table:  # fmt: skip
    connection = idle.get()
    try:
        if rest is not None:
            connection.register(_REST, rest)
        return take(query.run(connection), query, part)
    finally:
        if rest is not None:
            connection.unregister(_REST)
        idle.put(connection)


# -- the rows in position order --------------------------------------------------------------------------------------------


def _split(scan: Scan, connection: duckdb.DuckDBPyConnection, stack: contextlib.ExitStack) -> list[pa.Table | None]:
    """The rows of files in position order and of the hot tail, by part; None where a part has none."""
    if not scan.rest:
        return [None] * len(scan.parts)
    of = scan.parts[0].of
    places = np.zeros(of, np.int64)
    for number, part in enumerate(scan.parts):
        places[list(part.buckets)] = number
    kept = _Kept(len(scan.parts), stack)
    sql = " UNION ALL ".join(scan.selects[number].over(scan.selects[number].group.paths) for number in scan.rest)
    for batch in connection.sql(sql).to_arrow_reader(131_072):
        table = pa.Table.from_batches([batch])
        to = places[buckets_of(table.column("stream"), of)]
        order = np.argsort(to, kind="stable")
        ends = np.cumsum(np.bincount(to, minlength=len(scan.parts)))
        taken, begin = table.take(pa.array(order)), 0
        for place, end in enumerate(ends.tolist()):
            if end > begin:
                kept.add(place, taken.slice(begin, end - begin))
            begin = end
    return kept.tables()


class _Kept:
    """Rows by part: in memory, and from some size on in one file a part."""

    def __init__(self, parts: int, stack: contextlib.ExitStack) -> None:
        self._tables: list[list[pa.Table]] = [[] for _ in range(parts)]
        self._writers: list[pa.RecordBatchFileWriter | None] = [None] * parts
        self._stack, self._bytes, self._folder = stack, 0, Path()

    def add(self, part: int, table: pa.Table) -> None:
        """Rows of a part, after those that it has."""
        self._tables[part].append(table)
        self._bytes += table.nbytes
        if self._bytes > REST_BYTES:
            self._spill()

    def _spill(self) -> None:
        if self._folder == Path():
            self._folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="eventlab-lift-")))
        for part, tables in enumerate(self._tables):
            if tables:
                writer = self._writers[part]
                if writer is None:
                    writer = self._writers[part] = pa.ipc.new_file(str(self._path(part)), tables[0].schema)
                writer.write_table(pa.concat_tables(tables).combine_chunks())
                self._tables[part] = []
        self._bytes = 0

    def tables(self) -> list[pa.Table | None]:
        """Of each part its rows; what lies in files is mapped, and read as it is looked at."""
        if self._folder != Path():
            self._spill()
        found: list[pa.Table | None] = []
        for part, writer in enumerate(self._writers):
            if writer is not None:
                writer.close()
                source = self._stack.enter_context(pa.memory_map(str(self._path(part))))
                found.append(pa.ipc.open_file(source).read_all())
            else:
                found.append(pa.concat_tables(self._tables[part]) if self._tables[part] else None)
        return found

    def _path(self, part: int) -> Path:
        return self._folder / f"{part}.arrow"


# -- one order -------------------------------------------------------------------------------------------------------------


def together(model: Model, tables: list[pa.Table], tenant: Tenant) -> pa.Table:
    """The rows of several parts in the order of their keys; the list is emptied on the way, to hold nothing twice."""
    if len(tables) == 1:
        return tables.pop()
    if tenant is ALL:
        return sorted_table(model, pa.concat_tables(tables), tenant)
    table = _Columns(tables)
    # Polars sorts text by its UTF-8 bytes, as Arrow does, and on every core.
    return table.taken(pl.Series(pl.from_arrow(table.whole("_id"))).arg_sort().to_arrow())


def _whole(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def begins_of(table: pa.Table, keys: Sequence[str]) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Where a row has another key than the row before it."""
    found = np.zeros(len(table), bool)
    found[:1] = True
    for name in keys:
        column = _whole(table.column(name))
        differs = pc.not_equal(column.slice(1), column.slice(0, max(0, len(table) - 1)))
        found[1:] |= differs.to_numpy(zero_copy_only=False)
    return found


def versions_together(model: Model, tables: list[pa.Table], tenant: Tenant) -> pa.Table:
    """The rows of several parts in the order of key and position, where those of a key follow on one another in theirs.

    Only the keys are sorted; the rows come along. Text that comes as codes is written out here.
    """
    names, size = key_names(model, tenant), sum(map(len, tables))
    if size == 0:
        return _written(tables[0])
    coded = names == ("_id",) and all(pa.types.is_dictionary(table.column("_id").type) for table in tables)
    if coded:
        runs = [_runs(table.column("_id")) for table in tables]
        keys = pa.table([pa.concat_arrays([ids for ids, _ in runs])], names=["_id"])
        ends = np.cumsum(np.concatenate([counts for _, counts in runs]))
        starts = np.append(0, ends[:-1])
        given = [table.drop_columns(["_id"]) for table in tables]
        tables.clear()
        table = _Columns(given)
    else:
        table = _Columns(tables)
        starts = np.flatnonzero(begins_of(pa.table([table.whole(name) for name in names], names=list(names)), names))
        keys = pa.table([table.whole(name).take(pa.array(starts)) for name in names], names=list(names))
    if len(names) == 1:
        order = pl.Series(pl.from_arrow(keys.column(0))).arg_sort().to_numpy()
    else:
        order = pc.sort_indices(keys, sort_keys=[(name, "ascending") for name in names]).to_numpy()
    counts = np.diff(np.append(starts, size))[order]
    if np.array_equal(order, np.arange(len(order))):
        found = table.all()
    else:
        begin = np.cumsum(counts) - counts
        found = table.taken(pa.array(np.arange(size) + np.repeat(starts[order] - begin, counts)))
    if coded:
        ids = _whole(keys.column("_id")).take(pa.array(np.repeat(order, counts)))
        found = found.add_column(0, pa.field("_id", ids.type, metadata=_TAGGED), ids)
    return found


_TAGGED: Final = {"tag": "s"}


def _runs(column: pa.ChunkedArray) -> tuple[pa.Array, np.ndarray[Any, Any]]:
    """Of a column of codes, in which equal ones follow on one another: the values, and how often each comes."""
    coded = _whole(column)
    codes = coded.indices.to_numpy()
    starts = np.flatnonzero(np.append(True, codes[1:] != codes[:-1]))[: len(codes)]
    return coded.dictionary.take(pa.array(codes[starts])), np.diff(np.append(starts, len(codes)))


def _text(column: pa.Array) -> pa.Array:
    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column


def _written(table: pa.Table) -> pa.Table:
    """A table with the text of every code."""
    arrays = [_text(_whole(column)) for column in table.columns]
    fields = [field.with_type(array.type) for field, array in zip(table.schema, arrays, strict=True)]
    return pa.table(arrays, schema=pa.schema(fields))


class _Columns:
    """A table that is given away column by column."""

    def __init__(self, tables: list[pa.Table]) -> None:
        if any(not table.schema.equals(tables[0].schema) for table in tables):
            # One of them has text as codes where another has none, for there it may be None.
            tables[:] = map(_written, tables)
        table = pa.concat_tables(tables)
        tables.clear()
        self.schema, self.rows = table.schema, len(table)
        self.columns = dict(zip(table.column_names, table.columns, strict=True))

    def whole(self, name: str) -> pa.Array:
        """A column in one piece, of which much is taken five times as fast."""
        self.columns[name] = whole = _whole(self.columns[name])
        return whole

    def all(self) -> pa.Table:
        """The rows as they are."""
        return self._of([_text(_whole(column)) for column in self.columns.values()])

    def _of(self, arrays: Sequence[pa.Array]) -> pa.Table:
        fields = [field.with_type(array.type) for field, array in zip(self.schema, arrays, strict=True)]
        return pa.table(list(arrays), schema=pa.schema(fields))

    def taken(self, order: pa.Array) -> pa.Table:
        """The rows in an order, column by column on every core; a column is let go when it was taken."""
        names = list(self.columns)

        def take(name: str) -> pa.Array:
            return _text(_whole(self.columns.pop(name)).take(order))

        with ThreadPoolExecutor(min(cores(), len(names)), "eventlab-lift") as pool:
            return self._of(list(pool.map(take, names)))
