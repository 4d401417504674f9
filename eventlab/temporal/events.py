"""Events that a read picked: iterate over them, or take them as Arrow, Polars or a DuckDB relation."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import reduce
from typing import Any, Final

import duckdb
import polars as pl
import pyarrow as pa

from eventlab.errors import InvalidValue
from eventlab.model.events import event_type
from eventlab.model.filters import EVERYTHING, Clause, Filter
from eventlab.model.meta import Recorded
from eventlab.model.schema import Schema
from eventlab.model.types import Leaf
from eventlab.model.upcasting import at_version
from eventlab.replay.tables import shown, uuid_text
from eventlab.store.base import ALL, Batch, ClassOf, Cut, Tenant, schema_of
from eventlab.store.columns import ENVELOPE, ENVELOPE_NAMES, codec
from eventlab.store.query import shown_names

#: So many positions are looked at first where only some events are wanted.
WINDOW: Final = 2_000


class Events:
    """The events that a read picked: iterate over them, or take them as Arrow, Polars or a DuckDB relation."""

    def __init__(
        self, cut: Cut, tenant: Tenant, class_of: ClassOf, filter: Filter, span: tuple[int, int], limit: int | None
    ) -> None:
        # The tenant is that of the call: these events may be fetched outside its context.
        self._cut, self._tenant, self._class_of = cut, tenant, class_of
        self.filter, self.limit = filter, limit
        self.after, self.until = span

    def __repr__(self) -> str:
        limit = f", limit {self.limit}" if self.limit is not None else ""
        return f"Events({self.filter}, after {self.after}, until {self.until}{limit})"

    def code(self) -> str:
        """The Python that gives the same events in another cell."""
        given = [] if self.filter == EVERYTHING else [self.filter.code()]
        given += [f"after={self.after}"] if self.after else []
        given += [f"until={self.until}", *([f"limit={self.limit}"] if self.limit is not None else [])]
        return f"lab.read({', '.join(given)})"

    def batches(self) -> Iterator[Batch]:
        """The events as batches of Arrow tables, a bounded number at a time."""
        return self._batches(ENVELOPE_NAMES, None)

    def _batches(self, envelope: Sequence[str], types: Collection[str] | None) -> Iterator[Batch]:
        left = self.limit
        if left is None:
            yield from self._cut.batches(
                self.filter, tenant=self._tenant, after=self.after, until=self.until, envelope=envelope, types=types
            )
            return
        # Files sorted by stream are sorted again for what is asked of them: ever more of the log, until there is enough.
        after, width = self.after, max(left, WINDOW)
        while after < self.until and left > 0:
            until = min(after + width, self.until)
            for batch in self._cut.batches(
                self.filter, tenant=self._tenant, after=after, until=until, envelope=envelope, types=types
            ):
                for part in batch.split(max(left, 1)):
                    if left > 0:
                        yield part
                    left -= len(part)
                if left <= 0:
                    return
            after, width = until, width * 4

    def __iter__(self) -> Iterator[Recorded]:
        for batch in self.batches():
            yield from batch.recorded(self._class_of)

    def __len__(self) -> int:
        # Counted without their payload.
        return sum(map(len, self._batches(("position",), ())))

    def list(self) -> list[Recorded]:
        """All of them, in memory."""
        return list(self)

    def versioned(self, cls: type[Any], version: int) -> Iterator[Recorded]:
        """The events of one type in the shape of one of its versions, as dicts, whatever versions they are stored in.

        For a reader that was written for an older one: `@el.downcast` leads back to it, `@el.upcast` up. So two readers can
        have the same events in two versions at once. Each has the fields that its version was stored with; `UpcastFailed` says
        which step gave something else, of which event.
        """
        kind = event_type(cls)
        if isinstance(version, bool) or not isinstance(version, int) or not 1 <= version <= kind.version:
            raise InvalidValue(f"{cls.__name__} has no version {version!r}", hint=f"1 to {kind.version}")
        for batch in self.batches():
            for at, row in enumerate(batch.rows()):
                if row.type == kind.name:
                    schema = schema_of(batch.schemas, (row.type, row.schema_version))
                    target = batch.schemas.get((row.type, version))
                    yield Recorded(batch.envelope, at, at_version(kind, schema, row.payload, version, target, row.position))

    def arrow(self) -> pa.Table:
        """Envelope and payload in their stored columns (`quantity:i64`), in position order.

        The payload columns are those of the types that the filter names, or else of the types that were picked.
        """
        tables = [pa.concat_tables(batch.tables, promote_options="default").sort_by("position") for batch in self.batches()]
        table = pa.concat_tables([ENVELOPE.empty_table(), *tables], promote_options="default").combine_chunks()
        columns = dict.fromkeys(column for schema in self._schemas(table) for column in schema.columns)
        for column in columns.keys() - set(table.column_names):
            table = table.append_column(column, pa.nulls(len(table), codec(Leaf.parse(column).tag).arrow))
        return table.select([*ENVELOPE_NAMES, *columns])

    def frame(self) -> pl.DataFrame:
        """Envelope columns with an underscore, then the payload fields by their plain names."""
        table = self.arrow()
        frame = pl.from_arrow(table)
        assert isinstance(frame, pl.DataFrame)
        return frame.select(*_shown_columns(self._schemas(table)))

    def lazy(self) -> pl.LazyFrame:
        """The same columns as a Polars LazyFrame over the segment files: only what a query looks at is read.

        With a `limit` the events are read now. Rows come in no order: sort by `_position` where it matters. Files that are
        compacted stay for a quarter of an hour, so collect it by then; `frame` and `sql` have no such end.
        """
        if self.limit is not None:
            return self.frame().lazy()
        schemas = self._possible_schemas()
        columns = dict.fromkeys(column for schema in schemas for column in schema.columns)
        categories = self.filter.categories
        scans = [pl.from_arrow(ENVELOPE.empty_table()).lazy()]  # type: ignore[union-attr]
        for group in self._cut.sources(self._tenant):
            if categories is None or group.category in categories:
                scan = pl.scan_parquet(list(group.paths)) if group.table is None else pl.from_arrow(group.table).lazy()  # type: ignore[union-attr]
                scans.append(scan.filter(_picks(self.filter, group.category)))
        shaped = [_with_columns(scan, columns).select(*_shown_columns(schemas)) for scan in scans]
        inside = pl.col("_position").is_between(self.after, self.until, closed="right")
        return pl.concat(shaped).filter(inside)

    def _schemas(self, table: pa.Table) -> Sequence[Schema]:
        """The schemas of the types that the filter names, or else of those in the table."""
        named = [clause.types for clause in self.filter.clauses]
        if None not in named:
            names = frozenset().union(*(types for types in named if types is not None))
            return [schema for key, schema in sorted(self._cut.schemas.items()) if key[0] in names]
        here = table.select(["type", "schema_version"]).group_by(["type", "schema_version"]).aggregate([])
        keys = sorted(zip(here.column("type").to_pylist(), here.column("schema_version").to_pylist(), strict=True))
        return [schema_of(self._cut.schemas, key) for key in keys]

    def _possible_schemas(self) -> Sequence[Schema]:
        """The schemas of the types that the filter names, or else of all that occur where it looks."""
        named = [clause.types for clause in self.filter.clauses]
        categories = self.filter.categories
        here = {
            key
            for (tenant, category), keys in self._cut.types_of.items()
            if self._tenant in (ALL, tenant) and (categories is None or category in categories)
            for key in keys
        }
        if None not in named:
            names = frozenset().union(*(types for types in named if types is not None))
            here = {key for key in self._cut.schemas if key[0] in names}
        return [self._cut.schemas[key] for key in sorted(here)]

    def relation(self) -> duckdb.DuckDBPyRelation:
        """The frame's columns as a DuckDB relation on a connection of its own."""
        connection = duckdb.connect()
        connection.execute("SET TimeZone = 'UTC'")
        return connection.from_arrow(self.frame().to_arrow())


def _shown_columns(schemas: Sequence[Schema]) -> list[pl.Expr]:
    """The columns that a person sees, from the stored ones of these schemas."""
    leaves = {leaf: name for leaf, name in shown_names(schemas).items() if leaf.tag != "p"}
    readable = {leaf.column: pl.col(leaf.column) for leaf in leaves}
    readable |= {expression.meta.output_name(): expression for expression in shown({leaf.column: leaf.tag for leaf in leaves})}
    ids = ("event_id", "correlation_id", "causation_id")
    envelope = [
        (uuid_text(pl.col(name)) if name in ids else pl.col(name)).alias(f"_{name}")
        for name in ENVELOPE_NAMES
        if name != "commit"
    ]
    stream = pl.col("stream").str.split_exact("-", 1)
    category, id_ = stream.struct.field("field_0"), pl.col("stream").str.replace(r"^[^-]*-", "")
    envelope[2:2] = [category.alias("_category"), id_.alias("_id")]
    columns: dict[str, list[str]] = {}
    for leaf, name in leaves.items():
        columns.setdefault(name, []).append(leaf.column)
    return [*envelope, *(pl.coalesce(readable[column] for column in of).alias(name) for name, of in columns.items())]


def _with_columns(scan: pl.LazyFrame, columns: Mapping[str, None]) -> pl.LazyFrame:
    """A scan with the types of the log, and nulls for the payload columns that it does not have."""
    there = scan.collect_schema().names()
    missing = [column for column in columns if column not in there]
    types = {column: pl.Series(pa.array([], codec(Leaf.parse(column).tag).arrow)).dtype for column in missing}
    moments = [pl.col(name).cast(pl.Datetime("us", "UTC")) for name in ("recorded_at", "occurred_at")]
    return scan.with_columns(*moments, *(pl.lit(None, kind).alias(column) for column, kind in types.items()))


def _picks(filter: Filter, category: str) -> pl.Expr:
    """Which rows of a category a filter picks."""
    clauses = [clause for clause in filter.clauses if clause.categories is None or category in clause.categories]
    return reduce(lambda one, other: one | other, map(_clause, clauses), pl.lit(False))


def _clause(clause: Clause) -> pl.Expr:
    parts = [pl.lit(True)]
    if clause.types is not None:
        parts.append(pl.col("type").is_in(sorted(clause.types)))
    if clause.streams is not None:
        parts.append(pl.col("stream").is_in(sorted(clause.streams)))
    parts += [pl.col("tags").list.contains(tag) for tag in sorted(clause.tags)]
    return reduce(lambda one, other: one & other, parts)
