"""SQL over one cut of the log: a DuckDB connection that can only read, and only this.

Schemas: `events` (the whole log and each category), `types` (one view an event type), `state` (models' tables, made when a
query names them). Payload fields have their plain names; envelope columns carry an underscore.

The connection opens exactly the files of the cut (`allowed_paths`), is locked, and is replaced, never altered. Each query
runs on a cursor of its own inside a read-only transaction, so that even `WITH x AS (INSERT …) SELECT` writes nothing.
"""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any, Final

import duckdb
import polars as pl
import pyarrow as pa

from eventlab.errors import QueryRefused
from eventlab.model.names import snake
from eventlab.model.schema import Schema
from eventlab.model.types import Leaf
from eventlab.store.base import Cut, SourceGroup, Tenant
from eventlab.store.columns import ENVELOPE, codec

#: Gives the table of the model that `state.<name>` stands for, or None when no model has that name.
StateTable = Callable[[str], pa.Table | None]

_STATE: Final = re.compile(r"""\bstate\s*\.\s*("?)(\w+)\1""", re.IGNORECASE)
_READS: Final = (duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN)
_ENVELOPE_SHOWN: Final = {
    "_position": "position",
    "_stream": "stream",
    "_category": "split_part(stream, '-', 1)",
    "_id": "substr(stream, position('-' IN stream) + 1)",
    "_version": "version",
    "_type": "type",
    "_schema_version": "schema_version",
    "_event_id": "lower(hex(event_id))::UUID",
    "_recorded_at": "recorded_at",
    "_occurred_at": "occurred_at",
    "_correlation_id": "lower(hex(correlation_id))::UUID",
    "_causation_id": "lower(hex(causation_id))::UUID",
    "_actor": "actor",
    "_tenant": "tenant",
    "_tags": "tags",
}


class SqlConnection:
    """SQL over the events at or before `until` of one cut."""

    def __init__(self, cut: Cut, until: int, tenant: Tenant, state: StateTable) -> None:
        self._cut, self._until, self._tenant = cut, until, tenant
        self._state = state
        self._made: set[str] = set()
        self._lock = threading.RLock()
        self._connection = duckdb.connect(":memory:", config={"python_enable_replacements": "false"})
        self._run("SET TimeZone = 'UTC'")
        self._run("SET enable_progress_bar = false")
        self._run("CREATE SCHEMA events")
        self._run("CREATE SCHEMA types")
        self._run("CREATE SCHEMA state")
        self._create_views()
        # From here on nothing can be configured: no other file, no network, no extension, no way back.
        paths = ", ".join(_text(path) for group in cut.sources(tenant) for path in group.paths)
        self._run(f"SET allowed_paths = [{paths}]")
        self._run("SET enable_external_access = false")
        self._run("SET lock_configuration = true")

    def frame(self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] | None, frames: Mapping[str, Any]) -> pl.DataFrame:
        """The result of a query as a Polars frame."""
        cursor = self._ready(sql, frames)
        try:
            # DuckDB runs on a thread of its own, for while it computes here, Ctrl-C would not be heard.
            with ThreadPoolExecutor(1, "eventlab-sql") as pool:
                work = pool.submit(lambda: _frame(_relation(cursor, sql, parameters)))
                try:
                    # Wake up now and then: the signal may reach another thread, and then does not end a wait.
                    while not wait([work], timeout=0.2).done:
                        pass
                    return work.result()
                except KeyboardInterrupt:
                    cursor.interrupt()
                    raise
        finally:
            with contextlib.suppress(duckdb.Error):
                cursor.execute("ROLLBACK")
            cursor.close()

    def relation(
        self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] | None, frames: Mapping[str, Any]
    ) -> duckdb.DuckDBPyRelation:
        """The result of a query as a DuckDB relation, on a cursor that stays in its read-only transaction."""
        cursor = self._ready(sql, frames)
        try:
            return _relation(cursor, sql, parameters)
        except BaseException:
            cursor.close()
            raise

    def close(self) -> None:
        """Let go of the files."""
        with contextlib.suppress(duckdb.Error):
            self._connection.close()

    def _ready(self, sql: str, frames: Mapping[str, Any]) -> duckdb.DuckDBPyConnection:
        """A cursor in a read-only transaction that sees these frames and the state tables that the query names."""
        with self._lock:
            _refuse_other_statements(self._connection, sql)
            for _, name in _STATE.findall(sql):
                self._make_state(name.lower())
            cursor = self._connection.cursor()
            for name, frame in frames.items():
                if not name.isidentifier():
                    raise QueryRefused(f"{name!r} cannot name a frame in a query", hint="use letters, digits and '_'")
                cursor.register(name, frame)
            cursor.execute("BEGIN TRANSACTION READ ONLY")
            return cursor

    def _make_state(self, name: str) -> None:
        if name in self._made:
            return
        table = self._state(name)
        if table is None:
            return
        self._connection.register("_incoming", table)
        try:
            columns = ", ".join(_shown(table.schema.field(i).name, _tag_of(table, i)) for i in range(table.num_columns))
            self._run(f"CREATE TABLE state.{_name(name)} AS SELECT {columns} FROM _incoming")
        finally:
            self._connection.unregister("_incoming")
        self._made.add(name)

    def _create_views(self) -> None:
        groups = self._cut.sources(self._tenant)
        scans = [(group, self._scan(group, f"_hot_{i}")) for i, group in enumerate(groups)]
        self._view("events", "log", [f"SELECT {_envelope()} FROM {scan}" for _, scan in scans] or [_empty(_envelope())])
        for category in sorted({group.category for group in groups}):
            mine = [(group, scan) for group, scan in scans if group.category == category]
            schemas = [self._cut.schemas[key] for key in sorted(self._types_in(category))]
            name = category if category != "log" else "category_log"
            leaves = _distinct_leaves([leaf for schema in schemas for leaf in schema.leaves])
            self._view("events", name, [self._select(scan, group.columns, leaves) for group, scan in mine])
        latest: dict[str, Schema] = {}
        for schema in self._cut.schemas.values():
            latest[schema.name] = max(schema, latest.get(schema.name, schema), key=lambda s: s.version)
        for schema in self._cut.schemas.values():
            mine = [(g, scan) for g, scan in scans if any(k[0] == schema.name for k in self._types_in(g.category, g.tenant))]
            raw = f"type = {_text(schema.name)} AND schema_version = {schema.version}"
            self._view("types", f"{snake(schema.name)}_v{schema.version}", self._type_selects(mine, schema, raw))
            if latest[schema.name] is schema:
                self._view("types", snake(schema.name), self._type_selects(mine, schema, f"type = {_text(schema.name)}"))

    def _type_selects(self, scans: Sequence[tuple[SourceGroup, str]], schema: Schema, where: str) -> list[str]:
        leaves = {leaf: leaf.path for leaf in schema.leaves}
        selects = [self._select(scan, group.columns, leaves) + f" AND {where}" for group, scan in scans]
        return selects or [_empty(", ".join([_envelope(), *_fields(leaves, ())]))]

    def _types_in(self, category: str, tenant: str | None = None) -> set[tuple[str, int]]:
        return {
            key
            for (of, name), keys in self._cut.types_of.items()
            if name == category and tenant in (None, of) and (not isinstance(self._tenant, str) or of == self._tenant)
            for key in keys
        }

    def _scan(self, group: SourceGroup, name: str) -> str:
        """The rows of a group: files by their exact names, or a hot table copied in."""
        if group.table is None:
            return f"read_parquet([{', '.join(map(_text, group.paths))}])"
        self._connection.register("_incoming", group.table)
        try:
            self._run(f"CREATE TABLE {name} AS SELECT * FROM _incoming")
        finally:
            self._connection.unregister("_incoming")
        return name

    def _select(self, scan: str, columns: Sequence[str], leaves: Mapping[Leaf, str]) -> str:
        picked = ", ".join([_envelope(), *_fields(leaves, columns)])
        return f"SELECT {picked} FROM {scan} WHERE position <= {self._until}"

    def _view(self, schema: str, name: str, selects: Sequence[str]) -> None:
        if schema == "events" and name == "log":
            selects = [s if " WHERE " in s else f"{s} WHERE position <= {self._until}" for s in selects]
        self._run(f"CREATE VIEW {schema}.{_name(name)} AS {' UNION ALL '.join(selects)}")

    def _run(self, sql: str) -> None:
        self._connection.execute(sql)


def _refuse_other_statements(connection: duckdb.DuckDBPyConnection, sql: str) -> None:
    try:
        statements = connection.extract_statements(sql)
    except duckdb.Error as why:
        raise QueryRefused(f"the query does not parse: {_first_line(why)}", hint=_after_first(why)) from None
    if len(statements) != 1:
        raise QueryRefused(f"a query is one statement, and this text holds {len(statements)}", hint="ask one question a call")
    if statements[0].type not in _READS:
        kind = statements[0].type.name
        raise QueryRefused(
            f"this connection only reads, and {kind} does not", hint="SELECT, WITH, FROM, VALUES, DESCRIBE, SUMMARIZE or EXPLAIN"
        )


def _relation(
    cursor: duckdb.DuckDBPyConnection, sql: str, parameters: Sequence[Any] | Mapping[str, Any] | None
) -> duckdb.DuckDBPyRelation:
    given: Any = parameters if not isinstance(parameters, tuple) else list(parameters)
    try:
        relation = cursor.sql(sql, params=given or None)
    except duckdb.Error as why:
        raise _refused(why) from None
    if relation is None:
        raise QueryRefused("the query gives no rows", hint="SELECT something")
    return relation


def _refused(why: duckdb.Error) -> QueryRefused:
    text = str(why)
    if "read-only mode" in text:
        return QueryRefused("this connection only reads, and the query writes", hint="events are added with lab.append")
    if "disabled by configuration" in text or "has been locked" in text:
        return QueryRefused(
            f"a query reads the log and frames given to it, nothing else: {_first_line(why)}", hint="pass data as name=frame"
        )
    return QueryRefused(_first_line(why), hint=_after_first(why))


def _first_line(why: duckdb.Error) -> str:
    return str(why).split("\n", 1)[0].partition("Error: ")[2] or str(why).split("\n", 1)[0]


def _after_first(why: duckdb.Error) -> str:
    return str(why).partition("\n")[2].strip()


def _frame(relation: duckdb.DuckDBPyRelation) -> pl.DataFrame:
    """A relation as Polars: sums of integers as Int64 where they fit, intervals as durations, moments in UTC."""
    kinds = [str(kind) for kind in relation.types]
    names = relation.columns
    try:
        if any(kind == "INTERVAL" for kind in kinds):
            picked = [
                f"epoch_us({_name(n)}) AS {_name(n)}" if k == "INTERVAL" else _name(n) for n, k in zip(names, kinds, strict=True)
            ]
            relation = relation.project(", ".join(picked))
        frame = relation.pl()
    except duckdb.Error as why:
        raise _refused(why) from None
    found = []
    for name, kind in zip(frame.columns, kinds, strict=True):
        if kind == "INTERVAL":
            found.append(pl.col(name).cast(pl.Duration("us")))
        elif kind == "HUGEINT" and frame[name].cast(pl.Int64, strict=False).null_count() == frame[name].null_count():
            found.append(pl.col(name).cast(pl.Int64))
        elif kind == "TIMESTAMP WITH TIME ZONE":
            found.append(pl.col(name).dt.convert_time_zone("UTC"))
    shown: pl.DataFrame = frame.with_columns(found)
    return shown


# -- SQL text: values and identifiers are quoted here and nowhere else ----------------------------------------------------


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def _name(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _envelope() -> str:
    return ", ".join(f"{expression} AS {name}" for name, expression in _ENVELOPE_SHOWN.items())


def _empty(columns: str) -> str:
    """A select of these columns without a row, for a log without events."""
    typed = ", ".join(f"CAST(NULL AS {_duck(f.type)}) AS {_name(f.name)}" for f in ENVELOPE)
    return f"SELECT {columns} FROM (SELECT {typed}) WHERE false AND position <= 0"


def _distinct_leaves(leaves: Sequence[Leaf]) -> dict[Leaf, str]:
    """Leaves of several types and the names they go by: plain, or with the tag where one name has two types."""
    tags: dict[str, set[str]] = {}
    for leaf in leaves:
        tags.setdefault(leaf.path, set()).add(leaf.tag)
    return {leaf: leaf.path if len(tags[leaf.path]) == 1 else f"{leaf.path}_{leaf.tag}" for leaf in dict.fromkeys(leaves)}


def _fields(leaves: Mapping[Leaf, str], columns: Sequence[str]) -> list[str]:
    """Select items for payload leaves, in order; the leaves of a nested dataclass become one struct."""
    items: dict[str, Any] = {}
    present: dict[str, str] = {}
    for leaf, shown in leaves.items():
        expression = _leaf(leaf, leaf.column in columns)
        if leaf.tag == "p":
            present[leaf.path] = expression
            items.setdefault(leaf.path, {})
            continue
        *outer, last = shown.split(".")
        place = items
        for part in outer:
            place = place.setdefault(part, {})
        place[last] = expression
    return [f"{_packed(item, name, present)} AS {_name(name)}" for name, item in items.items()]


def _packed(item: Any, path: str, present: Mapping[str, str]) -> str:
    if not isinstance(item, dict):
        return str(item)
    parts = ", ".join(f"{_name(name)} := {_packed(inner, f'{path}.{name}', present)}" for name, inner in item.items())
    packed = f"struct_pack({parts})" if parts else "NULL"
    return f"CASE WHEN {present[path]} THEN {packed} END" if path in present else packed


def _leaf(leaf: Leaf, here: bool) -> str:
    if not here:
        kind = "BOOLEAN" if leaf.tag == "p" else _shown_type(leaf.tag)
        return f"CAST(NULL AS {kind})"
    return _read(_name(leaf.column), leaf.tag)


def _read(column: str, tag: str) -> str:
    if tag == "td":
        return f"to_microseconds({column})"
    if tag == "uuid":
        return f"lower(hex({column}))::UUID"
    if tag == "json":
        return f"{column}::JSON"
    return column


def _shown(column: str, tag: str) -> str:
    return f"{_read(_name(column), tag)} AS {_name(column)}"


def _tag_of(table: pa.Table, i: int) -> str:
    metadata = table.schema.field(i).metadata or {}
    return bytes(metadata.get(b"tag", b"")).decode()


def _shown_type(tag: str) -> str:
    return {"td": "INTERVAL", "uuid": "UUID", "json": "JSON"}.get(tag) or _duck(codec(tag).arrow)


def _duck(kind: pa.DataType) -> str:
    """The DuckDB type of an Arrow type."""
    if pa.types.is_decimal(kind):
        return f"DECIMAL({kind.precision}, {kind.scale})"
    if pa.types.is_map(kind):
        return f"MAP(VARCHAR, {_duck(kind.item_type)})"
    if pa.types.is_list(kind):
        return f"{_duck(kind.value_type)}[]"
    if pa.types.is_struct(kind):
        return f"STRUCT({', '.join(f'{_name(f.name)} {_duck(f.type)}' for f in kind)})"
    return _DUCK[str(kind)]


_DUCK: Final = {
    "bool": "BOOLEAN", "int16": "SMALLINT", "int32": "INTEGER", "int64": "BIGINT", "double": "DOUBLE", "string": "VARCHAR",
    "binary": "BLOB", "fixed_size_binary[16]": "BLOB", "date32[day]": "DATE", "time64[us]": "TIME",
    "timestamp[us, tz=UTC]": "TIMESTAMP WITH TIME ZONE",
}  # fmt: skip
