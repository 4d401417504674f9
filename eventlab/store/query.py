"""SQL over one cut of the log: a DuckDB connection that can only read, and only this.

Schemas: `events` (the whole log and each category), `types` (one view an event type), `state` (models' tables, made when a
query names them). Payload fields have their plain names; envelope columns carry an underscore.

The connection opens exactly the files of the cut (`allowed_paths`), is locked, and is replaced, never altered. Each query
runs on a cursor of its own inside a read-only transaction, so that even `WITH x AS (INSERT …) SELECT` writes nothing.
A file that may be read may also be overwritten by a COPY, which stands inside a SELECT too: so the syntax tree of a query
is looked at first, and only nodes and table functions that are known to read are let through.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import secrets
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from eventlab.errors import EventlabError, QueryRefused
from eventlab.model.events import EventType
from eventlab.model.filters import Clause, Filter
from eventlab.model.names import snake
from eventlab.model.schema import Schema
from eventlab.model.types import Leaf, record_parts
from eventlab.model.upcasting import chain_of, upcast_columns
from eventlab.store.base import Cut, SourceGroup, Tenant
from eventlab.store.columns import ENVELOPE, ENVELOPE_NAMES, codec, payload_array, stored_column

#: SQL for a part of a value, made from SQL for that part.
Change = Callable[[str], str]
#: What the model that `state.<name>` stands for is at a position of a cut: which code made it, and how its table is had.
#: None when no model has that name.
StateTable = Callable[[str, Cut, int], tuple[str, Callable[[], pa.Table]] | None]

#: The spans of the model that a name stands for: which code, its intervals, and the values of its fields. None as above.
Spans = Callable[[str, Cut, int], tuple[str, Callable[[], pa.Table], Callable[[], pa.Table]] | None]
_SPANS: Final = re.compile(r"(\w+)_(at|intervals|history)")

# A name inside a string is found too, and costs no more than a table that nobody asked for.
_STATE: Final = re.compile(r"""\bstate"?\s*\.\s*"?(\w+)""", re.IGNORECASE)
_VIEW: Final = re.compile(r"""\b(events|types)"?\s*\.\s*"?(\w+)""", re.IGNORECASE)
_VIEWS_NAMED: Final = re.compile(r"\b(?:events|types)\b", re.IGNORECASE)
# What may list views, or look at one that it does not name as `_VIEW` does.
_LISTS: Final = re.compile(
    r"show|describe|pragma|information_schema|duckdb_|pg_|sqlite_|/\*|--|\bmain\b|\bmemory\b", re.IGNORECASE
)
_CONFIG: Final[dict[str, str | bool | int | float | list[str]]] = {
    "python_enable_replacements": "false",
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "allow_community_extensions": "false",
    "allow_persistent_secrets": "false",
}
_READS: Final = (duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN)
# Options in words alone: what is cut off here is what the parser takes for the EXPLAIN.
_EXPLAIN: Final = re.compile(r"\s*EXPLAIN\b\s*(ANALYZE\b|\([\w\s,]*\))?", re.IGNORECASE | re.ASCII)
# In the text of a syntax tree: what stands in a string or a name of the query has its quotes escaped, and is not found.
_NODE: Final = re.compile(r'"type":"(\w+_NODE)"')
_FUNCTION: Final = re.compile(r'"function_name":"([^"]*)"')
_READING_NODES: Final = frozenset({"SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE", "CTE_NODE"})
#: The table functions that a query may call. The others read files, change the engine, take addresses in memory, or run
#: SQL that nobody has looked at; what a newer DuckDB adds is not among these either.
_READING_FUNCTIONS: Final = frozenset(
    {
        "duckdb_columns", "duckdb_databases", "duckdb_functions", "duckdb_keywords", "duckdb_memory", "duckdb_schemas",
        "duckdb_settings", "duckdb_tables", "duckdb_types", "duckdb_views", "generate_series", "icu_calendar_names",
        "json_each", "json_tree", "pg_timezone_names", "pragma_collations", "pragma_show", "pragma_table_info",
        "pragma_version", "range", "repeat", "repeat_row", "summary", "test_all_types", "unnest",
    }
)  # fmt: skip
#: So many texts of queries are known to be allowed.
KEEP_ALLOWED: Final = 100
_READS_HINT: Final = "SELECT, WITH, FROM, VALUES, DESCRIBE, SUMMARIZE or EXPLAIN"
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

    def __init__(
        self, cut: Cut, until: int, tenant: Tenant, state: StateTable, spans: Spans | None = None,
        class_of: Callable[[str], EventType | None] | None = None,
    ) -> None:  # fmt: skip
        self._cut, self._until, self._tenant = cut, until, tenant
        self._state, self._spans, self._class_of = state, spans, class_of
        self._made: dict[str, str] = {}
        self._allowed: set[str] = set()
        #: The views that nobody has asked for yet, by schema and name.
        self._views: dict[tuple[str, str], str | Callable[[], str]] = {}
        self._lock = threading.RLock()
        # The files are opened query by query: until then they must not be compacted away.
        self._held = cut.hold()
        self._counting = threading.Lock()
        self._users, self._lent, self._retired = 0, False, False
        # As many as may ask at once; one that is there is a millisecond and a half quicker than a new one.
        self._threads = ThreadPoolExecutor(16, "eventlab-sql")
        self._connection = duckdb.connect(":memory:", config=_CONFIG)
        # For all of the database: a query's cursor has a session of its own, and would take the zone of the process.
        self._run("SET GLOBAL TimeZone = 'UTC'")
        self._run("SET enable_progress_bar = false")
        # What does not fit in memory goes to a folder of its own, made when it is needed, and not to the current one.
        self._run(f"SET temp_directory = {_text(os.path.join(tempfile.gettempdir(), f'eventlab-{secrets.token_hex(8)}'))}")
        # A segment never changes: its footer is read once, and not again for every query.
        self._run("SET GLOBAL parquet_metadata_cache = true")
        self._run("CREATE SCHEMA events")
        self._run("CREATE SCHEMA types")
        self._run("CREATE SCHEMA state")
        self._run("CREATE SCHEMA _hot")
        self._define_views()
        self._known_views = frozenset(self._views)
        _lock(self._connection, [path for group in self._cut.sources(tenant) for path in group.paths])

    def frame(self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] | None, frames: Mapping[str, Any]) -> pl.DataFrame:
        """The result of a query as a Polars frame."""
        cursor = self._ready(sql, frames)
        try:
            # DuckDB runs on another thread, for while it computes here, Ctrl-C would not be heard.
            work = self._threads.submit(lambda: _frame(_relation(cursor, sql, parameters)))
            try:
                # Wake up now and then: the signal may reach another thread, and then does not end a wait.
                while not wait([work], timeout=0.2).done:
                    pass
                return work.result()
            except KeyboardInterrupt:
                cursor.interrupt()
                wait([work])
                raise
        finally:
            with contextlib.suppress(duckdb.Error):
                cursor.execute("ROLLBACK")
            cursor.close()

    def relation(
        self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] | None, frames: Mapping[str, Any]
    ) -> duckdb.DuckDBPyRelation:
        """The result of a query as a DuckDB relation, on a cursor that stays in its read-only transaction."""
        self._lent = True
        cursor = self._ready(sql, frames)
        try:
            return _relation(cursor, sql, parameters)
        except BaseException:
            cursor.close()
            raise

    def enter(self) -> None:
        """One more caller uses this connection; it must not be retired yet."""
        with self._counting:
            self._users += 1

    def leave(self) -> None:
        """The caller has its answer."""
        with self._counting:
            self._users -= 1
        self._close_if_idle()

    def retire(self) -> None:
        """Close, now or when the last caller has its answer; never, if a relation was given away: it may be fetched later."""
        self._retired = True
        self._close_if_idle()

    def _close_if_idle(self) -> None:
        with self._counting:
            idle = self._retired and not self._users and not self._lent
        if idle:
            self.close()

    def close(self) -> None:
        """Let go of the files."""
        self._held.release()
        self._threads.shutdown(wait=False)
        with contextlib.suppress(duckdb.Error):
            self._connection.close()

    def _ready(self, sql: str, frames: Mapping[str, Any]) -> duckdb.DuckDBPyConnection:
        """A cursor in a read-only transaction that sees these frames and the state tables that the query names."""
        with self._lock:
            self._held.renew()
            if sql not in self._allowed:
                refuse_other_statements(self._connection, sql)
                if len(self._allowed) >= KEEP_ALLOWED:
                    self._allowed.clear()
                self._allowed.add(sql)
            self._make_views(sql)
            for name in _STATE.findall(sql):
                self._make_state(name.lower())
                self._make_spans(name.lower())
            cursor = self._connection.cursor()
            for name, frame in frames.items():
                if not name.isidentifier():
                    raise QueryRefused(f"{name!r} cannot name a frame in a query", hint="use letters, digits and '_'")
                cursor.register(name, frame)
            cursor.execute("BEGIN TRANSACTION READ ONLY")
            return cursor

    def _make_state(self, name: str) -> None:
        found = self._state(name, self._cut, self._until)
        # A model that was defined again since is another one; who reads the old table goes on reading it.
        if found is None or self._made.get(name) == found[0]:
            return
        table = found[1]()
        self._connection.register("_incoming", table)
        try:
            columns = ", ".join(_shown(table.schema.field(i).name, _tag_of(table, i)) for i in range(table.num_columns))
            self._run(f"CREATE OR REPLACE TABLE state.{_name(name)} AS SELECT {columns} FROM _incoming")
        finally:
            self._connection.unregister("_incoming")
        self._made[name] = found[0]

    def _make_spans(self, name: str) -> None:
        """`state.order_at(time)`, `state.order_intervals()` and `state.order_history('field')`, where a query names one."""
        match = _SPANS.fullmatch(name)
        found = self._spans(match[1], self._cut, self._until) if match is not None and self._spans is not None else None
        if match is None or found is None:
            return
        of, part = match[1], "values" if match[2] == "history" else "intervals"
        if self._made.get(f"{of} {part}") == found[0]:
            return
        rows = f"_hot.{_name(f'{of}_{part}')}"
        self._connection.register("_incoming", found[2]() if part == "values" else found[1]())
        try:
            self._run(f"CREATE OR REPLACE TABLE {rows} AS SELECT * FROM _incoming")
        finally:
            self._connection.unregister("_incoming")
        make = "CREATE OR REPLACE MACRO state."
        if part == "values":
            self._run(f"{make}{_name(f'{of}_history')}(of_field) AS TABLE SELECT * FROM {rows} WHERE _field = of_field")
        else:
            within = "_from <= known_at AND (_to IS NULL OR known_at < _to)"
            self._run(f"{make}{_name(f'{of}_at')}(known_at) AS TABLE SELECT * EXCLUDE (_from, _to) FROM {rows} WHERE {within}")
            self._run(f"{make}{_name(f'{of}_intervals')}() AS TABLE SELECT * FROM {rows}")
        self._made[f"{of} {part}"] = found[0]

    def _make_views(self, sql: str) -> None:
        """Make the views that a query names, for each takes milliseconds; all of them where it may look at any."""
        named = {(schema.lower(), name.lower()) for schema, name in _VIEW.findall(sql)}
        every = len(_VIEW.findall(sql)) < len(_VIEWS_NAMED.findall(sql)) or _LISTS.search(sql) or not named <= self._known_views
        for key in [*self._views] if every else named & self._views.keys():
            view = self._views.pop(key)
            try:
                self._run(view if isinstance(view, str) else view())
            except BaseException:
                # An upcaster may have raised: it is asked again the next time.
                self._views[key] = view
                raise

    def _define_views(self) -> None:
        scans = [self._scan(group, i) for i, group in enumerate(self._cut.sources(self._tenant))]
        everything = [f"SELECT {_envelope()} FROM {scan.text} WHERE {scan.within}" for scan in scans]
        self._view("events", "log", everything or [_empty(_envelope())])
        categories = {scan.group.category for scan in scans}
        for category in sorted(categories):
            name = category
            while name == "log" or (name != category and name in categories):
                name = "category_log" if name == "log" else f"{name}_"
            schemas = [self._cut.schemas[key] for key in sorted(self._types_in(category))]
            shown = shown_names(schemas)
            self._view("events", name, [self._select(s, shown, schemas) for s in scans if s.group.category == category])
        by_name: dict[str, list[Schema]] = {}
        for schema in self._cut.schemas.values():
            by_name.setdefault(schema.name, []).append(schema)
        for name, versions in by_name.items():
            mine = [s for s in scans if any(key[0] == name for key in self._types_in(s.group.category, s.group.tenant))]
            for schema in versions:
                raw = f"type = {_text(name)} AND schema_version = {schema.version}"
                self._view("types", f"{snake(name)}_v{schema.version}", self._type_selects(mine, schema, [schema], raw))
            latest = max(versions, key=lambda schema: schema.version)
            kind = self._class_of(name) if self._class_of is not None else None
            if kind is not None and any(chain_of(kind, schema) for schema in versions):
                self._views["types", snake(name).lower()] = functools.partial(self._upcast_view, kind, versions, mine)
                continue
            if kind is not None and any(_left_out(kind, versions, latest.leaves)):
                self._views["types", snake(name).lower()] = functools.partial(self._defaults_view, kind, versions, mine)
                continue
            self._view("types", snake(name), self._type_selects(mine, latest, versions, f"type = {_text(name)}"))

    def _upcast_view(self, kind: EventType, versions: Sequence[Schema], scans: Sequence[_Scan]) -> str:
        """A type in the shape of its class: versions that have upcasters are brought to it once, and kept as a table."""
        old = {schema.version for schema in versions if chain_of(kind, schema)}
        rest = [schema for schema in versions if schema.version not in old]
        table, number = self._upcast_rows(kind, old), len(self._made)
        self._made[f"{kind.name} upcast"] = kind.name
        given = (*ENVELOPE_NAMES, *kind.schema.columns)
        names = dict(zip(given, _told_apart(given), strict=True))
        self._connection.register("_incoming", table.rename_columns(list(names.values())))
        try:
            self._run(f"CREATE TABLE _hot.upcast_{number} AS SELECT * FROM _incoming")
        finally:
            self._connection.unregister("_incoming")
        made = _Scan(SourceGroup("", "", kind.schema.columns, table=table), f"_hot.upcast_{number}", names, "true")
        shown = {leaf: leaf.path for leaf in kind.schema.leaves}
        selects = [self._select(made, shown, [kind.schema])]
        if rest:
            where = f"type = {_text(kind.name)} AND schema_version IN ({', '.join(str(schema.version) for schema in rest)})"
            selects += self._type_selects(scans, kind.schema, rest, where, self._defaults(kind, rest, kind.schema.leaves))
        return f"CREATE VIEW types.{_name(snake(kind.name).lower())} AS {' UNION ALL '.join(selects)}"

    def _defaults_view(self, kind: EventType, versions: Sequence[Schema], scans: Sequence[_Scan]) -> str:
        """A type whose older versions lack fields: there they have the defaults of the class, as where Python reads them."""
        latest = max(versions, key=lambda schema: schema.version)
        where, filled = f"type = {_text(kind.name)}", self._defaults(kind, versions, latest.leaves)
        selects = self._type_selects(scans, latest, versions, where, filled)
        return f"CREATE VIEW types.{_name(snake(kind.name).lower())} AS {' UNION ALL '.join(selects)}"

    def _defaults(self, kind: EventType, versions: Sequence[Schema], shown: Sequence[Leaf]) -> dict[str, tuple[str, str]]:
        """For fields that versions lack: in which rows they do, and the default, which is kept in a table of one row."""
        found = list(_left_out(kind, versions, shown))
        if not found:
            return {}
        table = f"_hot.defaults_{len(self._made)}"
        self._made[f"{kind.name} {table}"] = kind.name
        row = {f"d{at}": payload_array(leaf.column, [value]) for at, (leaf, value, _) in enumerate(found)}
        self._connection.register("_incoming", pa.table(row))
        try:
            self._run(f"CREATE TABLE {table} AS SELECT * FROM _incoming")
        finally:
            self._connection.unregister("_incoming")
        return {
            leaf.path: (f"schema_version IN ({', '.join(map(str, lacking))})", f"(SELECT d{at} FROM {table})")
            for at, (leaf, _, lacking) in enumerate(found)
        }

    def _upcast_rows(self, kind: EventType, old: Collection[int]) -> pa.Table:
        """The events of some versions as those of today's class, with their envelopes."""
        kinds = [codec(Leaf.parse(column).tag).arrow for column in kind.schema.columns]
        schema = pa.schema([*ENVELOPE, *(pa.field(name, of) for name, of in zip(kind.schema.columns, kinds, strict=True))])
        found: list[pa.Table] = []
        picked = Filter((Clause(types=frozenset((kind.name,))),))
        for batch in self._cut.batches(picked, tenant=self._tenant, until=self._until):
            for table in batch.tables:
                for version in sorted(old):
                    same = pc.and_(pc.equal(table.column("type"), kind.name), pc.equal(table.column("schema_version"), version))
                    part = table.filter(same)
                    if not len(part):
                        continue
                    of = self._cut.schemas[kind.name, version]
                    stored = [stored_column(part, column) for column in of.columns]
                    columns = upcast_columns(kind, of, stored, len(part))
                    arrays = [payload_array(name, values) for name, values in zip(kind.schema.columns, columns, strict=True)]
                    envelope = [part.column(name) for name in ENVELOPE_NAMES]
                    found.append(pa.table([*envelope, *arrays], names=schema.names).cast(schema))
        return pa.concat_tables(found) if found else schema.empty_table()

    def _type_selects(
        self, scans: Sequence[_Scan], schema: Schema, versions: Sequence[Schema], where: str,
        defaults: Mapping[str, tuple[str, str]] = MappingProxyType({}),
    ) -> list[str]:  # fmt: skip
        shown = {leaf: leaf.path for leaf in schema.leaves}
        selects = [self._select(scan, shown, versions, defaults) + f" AND {where}" for scan in scans]
        return selects or [_empty(", ".join([_envelope(), *_fields(shown, versions, {})]))]

    def _types_in(self, category: str, tenant: str | None = None) -> set[tuple[str, int]]:
        return {
            key
            for (of, name), keys in self._cut.types_of.items()
            if name == category and tenant in (None, of) and (not isinstance(self._tenant, str) or of == self._tenant)
            for key in keys
        }

    def _scan(self, group: SourceGroup, number: int) -> _Scan:
        """The rows of a group: files by their exact names, or a hot table copied in."""
        names = dict(zip((*ENVELOPE_NAMES, *group.columns), _told_apart((*ENVELOPE_NAMES, *group.columns)), strict=True))
        # DuckDB takes `SKU:s` and `sku:s` for one name: where a group has both, its columns are named by their places.
        given = "" if all(map(str.__eq__, names, names.values())) else f" AS _rows({', '.join(map(_name, names.values()))})"
        if group.table is None:
            within = "true" if max(file.last for file in group.files) <= self._until else f"position <= {self._until}"
            return _Scan(group, f"read_parquet([{', '.join(map(_text, group.paths))}]){given}", names, within)
        self._connection.register("_incoming", group.table)
        try:
            self._run(f"CREATE TABLE _hot.rows_{number} AS SELECT * FROM _incoming{given} WHERE position <= {self._until}")
        finally:
            self._connection.unregister("_incoming")
        return _Scan(group, f"_hot.rows_{number}", names, "true")

    def _select(
        self, scan: _Scan, shown: Mapping[Leaf, str], schemas: Sequence[Schema],
        defaults: Mapping[str, tuple[str, str]] = MappingProxyType({}),
    ) -> str:  # fmt: skip
        picked = ", ".join([_envelope(), *_fields(shown, schemas, scan.names, defaults)])
        return f"SELECT {picked} FROM {scan.text} WHERE {scan.within}"

    def _view(self, schema: str, name: str, selects: Sequence[str]) -> None:
        self._views[schema, name.lower()] = f"CREATE VIEW {schema}.{_name(name)} AS {' UNION ALL '.join(selects)}"

    def _run(self, sql: str) -> None:
        self._connection.execute(sql)


@dataclass(frozen=True)
class _Scan:
    """A group as a FROM clause, the names of its columns there, and the condition for its rows up to the cut."""

    group: SourceGroup
    text: str
    names: Mapping[str, str]
    within: str


def locked(paths: Sequence[str]) -> duckdb.DuckDBPyConnection:
    """A connection that reads these files and no others, for text that was written elsewhere: see `refuse_other_statements`."""
    connection = duckdb.connect(":memory:", config=_CONFIG)
    connection.execute("SET GLOBAL TimeZone = 'UTC'")
    connection.execute("SET enable_progress_bar = false")
    folder = os.path.join(tempfile.gettempdir(), f"eventlab-{secrets.token_hex(8)}")
    connection.execute(f"SET temp_directory = {_text(folder)}")
    _lock(connection, paths)
    return connection


def _lock(connection: duckdb.DuckDBPyConnection, paths: Sequence[str]) -> None:
    """From here on nothing can be configured: no other file, no network, no extension, no way back."""
    connection.execute(f"SET allowed_paths = [{', '.join(map(_text, paths))}]")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")


def refuse_other_statements(connection: duckdb.DuckDBPyConnection, sql: str) -> None:
    """Refuse a text that is not one statement which reads, and only what is there."""
    try:
        statements = connection.extract_statements(sql)
    except duckdb.Error as why:
        raise QueryRefused(f"the query does not parse: {_first_line(why)}", hint=_after_first(why)) from None
    if len(statements) != 1:
        raise QueryRefused(f"a query is one statement, and this text holds {len(statements)}", hint="ask one question a call")
    try:
        kind = statements[0].type
    except ValueError:  # a kind of statement that DuckDB parses and its Python module has no name for: UPDATE EXTENSIONS
        raise QueryRefused("this connection only reads, and this statement does not", hint=_READS_HINT) from None
    if kind == duckdb.StatementType.MULTI:
        raise QueryRefused(
            "this connection cannot PIVOT by values that it has to look up first",
            hint="name them: PIVOT … ON status IN ('draft', 'placed') USING …",
        )
    if kind not in _READS:
        raise QueryRefused(f"this connection only reads, and {kind.name} does not", hint=_READS_HINT)
    explain = _EXPLAIN.match(sql) if kind == duckdb.StatementType.EXPLAIN else None
    _refuse_other_nodes(connection, sql[explain.end() :] if explain is not None else sql)


def _refuse_other_nodes(connection: duckdb.DuckDBPyConnection, sql: str) -> None:
    """Refuse what writes inside a SELECT, and table functions that do more than read what is here."""
    ((tree,),) = connection.execute("SELECT json_serialize_sql(?::VARCHAR)::VARCHAR", [sql]).fetchall()
    nodes = _NODE.findall(tree)
    if not nodes:
        raise QueryRefused("this connection only reads, and explains only what reads", hint="EXPLAIN [ANALYZE] SELECT …")
    for node in nodes:
        if node not in _READING_NODES:
            what = node.removesuffix("_NODE").removesuffix("_QUERY")
            raise QueryRefused(f"this connection only reads, and the query writes: {what} inside it", hint=_READS_HINT)
    for name in dict.fromkeys(map(str.lower, _FUNCTION.findall(tree))):
        if name not in _READING_FUNCTIONS and name in _table_functions():
            raise QueryRefused(
                f"a query reads the log and frames given to it, nothing else: {name}() does more", hint="pass data as name=frame"
            )


@functools.cache
def _table_functions() -> frozenset[str]:
    """The names of DuckDB's table functions."""
    with duckdb.connect(":memory:", config=_CONFIG) as connection:
        found = connection.execute("SELECT function_name FROM duckdb_functions() WHERE function_type = 'table'").fetchall()
    return frozenset(name.lower() for (name,) in found)


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
    kinds, names = relation.types, relation.columns
    for name, kind in zip(names, kinds, strict=True):
        if alien := _alien(kind):
            raise QueryRefused(
                f"column {name!r} is {kind}, and a frame cannot hold {alien}", hint="lab.relation(…) stays in DuckDB"
            )
    try:
        if any(map(_has_interval, kinds)):
            # By place, for two columns may have one name.
            picked = (_microseconds(f"#{i}", kind) for i, kind in enumerate(kinds, 1))
            relation = relation.project(", ".join(f"{p} AS {_name(n)}" for p, n in zip(picked, names, strict=True)))
        frame = relation.pl()
    except duckdb.Error as why:
        raise _refused(why) from None
    except pl.exceptions.PolarsError as why:
        raise QueryRefused(f"a frame cannot hold the result: {why}", hint="lab.relation(…) stays in DuckDB") from None
    found = []
    for name, kind in zip(frame.columns, kinds, strict=True):
        if kind.id == "hugeint" and frame[name].cast(pl.Int64, strict=False).null_count() == frame[name].null_count():
            found.append(pl.col(name).cast(pl.Int64))
        elif (dtype := _frame_type(kind, frame.schema[name])) != frame.schema[name]:
            found.append(pl.col(name).cast(dtype))
    shown: pl.DataFrame = frame.with_columns(found)
    return shown


def _parts(kind: Any) -> list[tuple[str, Any]]:
    """The types inside a nested DuckDB type, by name."""
    if kind.id not in ("list", "array", "struct", "map", "union"):
        return []
    return [(name, part) for name, part in kind.children if isinstance(part, type(kind))]


def _has_interval(kind: Any) -> bool:
    return kind.id == "interval" or any(_has_interval(part) for _, part in _parts(kind))


def _alien(kind: Any) -> str:
    """What in a DuckDB type a frame has no type for; "" for nothing."""
    if kind.id == "union":
        return "UNION"
    unnamed = kind.id == "array" or (kind.id == "struct" and not all(name for name, _ in _parts(kind)))
    if (unnamed and _has_interval(kind)) or (kind.id == "map" and _has_interval(kind.children[0][1])):
        return f"an INTERVAL inside {kind.id.upper()}"
    return next((alien for _, part in _parts(kind) if (alien := _alien(part))), "")


def _microseconds(value: str, kind: Any, depth: int = 0) -> str:
    """A value with its intervals as microseconds, wherever they stand in it."""
    if kind.id == "interval":
        return f"epoch_us({value})"
    if not _has_interval(kind):
        return value
    parts = dict(_parts(kind))
    if kind.id == "list":
        return _of_list(value, lambda item: _microseconds(item, parts["child"], depth + 1), depth)
    if kind.id == "map":
        return _of_map(value, lambda item: _microseconds(item, parts["value"], depth + 1), depth)
    return _of_struct(value, {name: functools.partial(_microseconds, kind=of, depth=depth) for name, of in parts.items()})


def _frame_type(kind: Any, dtype: Any) -> Any:
    """A Polars type with durations where DuckDB had intervals and its moments in UTC; DuckDB calls the zone Etc/UTC."""
    if kind.id == "interval":
        return pl.Duration("us")
    if isinstance(dtype, pl.Datetime) and dtype.time_zone is not None:
        return pl.Datetime(dtype.time_unit, "UTC")
    parts = dict(_parts(kind))
    if isinstance(dtype, pl.List):
        return pl.List(_frame_type(parts["child"], dtype.inner))
    if isinstance(dtype, pl.Map):
        return pl.Map(dtype.key, _frame_type(parts["value"], dtype.value))
    if isinstance(dtype, pl.Struct):
        inner = zip(parts.values(), dtype.fields, strict=True)
        return pl.Struct([pl.Field(field.name, _frame_type(part, field.dtype)) for part, field in inner])
    return dtype


# -- SQL text: values and identifiers are quoted here and nowhere else ----------------------------------------------------


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def _name(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _envelope() -> str:
    return ", ".join(f"{expression} AS {name}" for name, expression in _ENVELOPE_SHOWN.items())


def _empty(columns: str) -> str:
    """A select of these columns without a row, for a log without events."""
    typed = ", ".join(f"CAST(NULL AS {duck(f.type)}) AS {_name(f.name)}" for f in ENVELOPE)
    return f"SELECT {columns} FROM (SELECT {typed}) WHERE false AND position <= 0"


def _told_apart(names: Sequence[str]) -> list[str]:
    """The same names, with a number where a name differs from an earlier one in case alone."""
    seen: Counter[str] = Counter()
    found = []
    for name in names:
        seen[name.casefold()] += 1
        number = seen[name.casefold()]
        found.append(name if number == 1 else f"{name}#{number}")
    return found


def shown_names(schemas: Sequence[Schema]) -> dict[Leaf, str]:
    """The columns that show the fields of several types side by side: one name, one type.

    Fields of one name and type share a column, and so do names that differ in case alone, which SQL cannot tell apart.
    Where a name has several types each column says its own: `amount_i64`, `amount_s`.
    """
    leaves = dict.fromkeys(leaf for schema in schemas for leaf in schema.leaves)
    spelled: dict[tuple[str, str], str] = {}
    paths = {leaf: _spelled(leaf.path, spelled) for leaf in leaves}
    structs = {path[:at] for path in paths.values() for at, char in enumerate(path) if char == "."}
    tags: dict[str, set[str]] = {}
    for leaf, path in paths.items():
        if leaf.tag != "p":
            tags.setdefault(path, set()).add(leaf.tag)
    plain = {path for path, of in tags.items() if len(of) == 1 and path not in structs}
    shown = {}
    for leaf, path in paths.items():
        name = path
        if leaf.tag != "p" and path not in plain:
            name = f"{path}_{leaf.tag}"
            while name in plain or name in structs:
                name += "_"
        shown[leaf] = name
    return shown


def _spelled(path: str, spelled: dict[tuple[str, str], str]) -> str:
    """A path as it was first spelled."""
    found = ""
    for part in path.split("."):
        found = f"{found}.{spelled.setdefault((found, part.casefold()), part)}".removeprefix(".")
    return found


def _left_out(kind: EventType, versions: Sequence[Schema], shown: Sequence[Leaf]) -> Iterator[tuple[Leaf, Any, list[int]]]:
    """The shown fields of one column that versions lack: the default in stored form, where it is not null, and the versions."""
    paths = {leaf.path: leaf for leaf in shown}
    for name, of in kind.fields:
        leaves = of.leaves(name)
        lacking = [s.version for s in versions if not any(at.path.split(".")[0] == name for at in s.leaves)]
        if len(leaves) != 1 or paths.get(name) != leaves[0] or not lacking or not kind.has_default(name):
            continue
        stored: list[Any] = []
        try:
            of.put(kind.default(name), name, stored)
        except EventlabError:
            # It is not of its type: whoever reads such an event in Python is told.
            continue
        if stored[0] is not None:
            yield leaves[0], stored[0], lacking


def _fields(
    shown: Mapping[Leaf, str], schemas: Sequence[Schema], names: Mapping[str, str],
    defaults: Mapping[str, tuple[str, str]] = MappingProxyType({}),
) -> list[str]:  # fmt: skip
    """Select items for payload leaves, in order; the leaves of a nested dataclass become one struct.

    `names` are the columns that are there; the rows are of these `schemas`. `defaults` are those of fields that some rows lack:
    the condition for such rows, and the value.
    """
    found: dict[str, Any] = {}
    for leaf, name in shown.items():
        *outer, last = name.split(".")
        if leaf.tag == "p":
            outer.append(last)
        place = found
        for part in outer:
            place = place.setdefault(part, {})
        if leaf.tag != "p":
            place.setdefault(last, []).append(_leaf(leaf, names))
    items = {name: _packed(item, name, shown, schemas, names) for name, item in found.items()}
    for name, (lacking, value) in defaults.items():
        items[name] = f"CASE WHEN {lacking} THEN {value} ELSE {items[name]} END"
    return [f"{item} AS {_name(name)}" for name, item in items.items()]


def _packed(item: Any, path: str, shown: Mapping[Leaf, str], schemas: Sequence[Schema], names: Mapping[str, str]) -> str:
    if isinstance(item, list):
        return item[0] if len(item) == 1 else f"coalesce({', '.join(item)})"
    parts = [f"{_name(name)} := {_packed(of, f'{path}.{name}', shown, schemas, names)}" for name, of in item.items()]
    packed = f"struct_pack({', '.join(parts)})"
    present = _present(path, shown, schemas, names)
    return f"CASE WHEN {present} THEN {packed} END" if present else packed


def _present(path: str, shown: Mapping[Leaf, str], schemas: Sequence[Schema], names: Mapping[str, str]) -> str:
    """When a row has the nested dataclass at `path`: its presence column says so, or its type does; "" for always."""
    outer = path.rpartition(".")[0]
    columns: dict[str, None] = {}
    always = []
    rows = [schema for schema in schemas if not outer or _holds(schema, outer, shown)]
    for schema in rows:
        marks = [leaf for leaf in schema.leaves if leaf.tag == "p" and shown.get(leaf) == path]
        if marks:
            columns |= dict.fromkeys(_leaf(leaf, names) for leaf in marks)
        elif _holds(schema, path, shown):
            always.append(f"(type = {_text(schema.name)} AND schema_version = {schema.version})")
    return "" if len(always) == len(rows) else " OR ".join([*columns, *always])


def _holds(schema: Schema, path: str, shown: Mapping[Leaf, str]) -> bool:
    return any(shown.get(leaf, "").startswith(f"{path}.") for leaf in schema.leaves)


def _leaf(leaf: Leaf, names: Mapping[str, str]) -> str:
    if leaf.column not in names:
        return f"CAST(NULL AS {_shown_type(leaf.tag)})"
    return _read(_name(names[leaf.column]), leaf.tag)


def _read(value: str, tag: str, depth: int = 0) -> str:
    """A stored value as SQL shows it: durations, UUIDs and JSON in types of their own, wherever they stand in it."""
    if tag == "td":
        return f"to_microseconds({value})"
    if tag == "uuid":
        return f"lower(hex({value}))::UUID"
    if tag == "json":
        return f"{value}::JSON"
    if _shown_type(tag) == duck(codec(tag).arrow):
        return value
    if tag.startswith("l_"):
        return _of_list(value, lambda item: _read(item, tag[2:], depth + 1), depth)
    if tag.startswith("m_"):
        return _of_map(value, lambda item: _read(item, tag[2:], depth + 1), depth)
    return _of_struct(value, {name: functools.partial(_read, tag=of, depth=depth) for name, of in record_parts(tag)})


def _of_list(value: str, change: Change, depth: int) -> str:
    item = f"_item{depth}"
    return f"list_transform({value}, lambda {item}: {change(item)})"


def _of_map(value: str, change: Change, depth: int) -> str:
    pair = f"_item{depth}"
    changed = f"struct_pack(key := {pair}.key, value := {change(f'{pair}.value')})"
    return f"map_from_entries(list_transform(map_entries({value}), lambda {pair}: {changed}))"


def _of_struct(value: str, changes: Mapping[str, Change]) -> str:
    parts = (f"{_name(name)} := {change(f'struct_extract({value}, {_text(name)})')}" for name, change in changes.items())
    return f"CASE WHEN {value} IS NOT NULL THEN struct_pack({', '.join(parts)}) END"


def _shown(column: str, tag: str) -> str:
    # A table that was not made by a fold says nothing of its columns: they are shown as they are.
    return f"{_read(_name(column), tag)} AS {_name(column)}" if tag else _name(column)


def _tag_of(table: pa.Table, i: int) -> str:
    metadata = table.schema.field(i).metadata or {}
    return bytes(metadata.get(b"tag", b"")).decode()


def _shown_type(tag: str) -> str:
    """The DuckDB type that SQL shows a tag in."""
    if tag.startswith("l_"):
        return f"{_shown_type(tag[2:])}[]"
    if tag.startswith("m_"):
        return f"MAP(VARCHAR, {_shown_type(tag[2:])})"
    if tag.startswith("r("):
        return f"STRUCT({', '.join(f'{_name(name)} {_shown_type(of)}' for name, of in record_parts(tag))})"
    return {"td": "INTERVAL", "uuid": "UUID", "json": "JSON"}.get(tag) or duck(codec(tag).arrow)


def duck(kind: pa.DataType) -> str:
    """The DuckDB type of an Arrow type."""
    if pa.types.is_decimal(kind):
        return f"DECIMAL({kind.precision}, {kind.scale})"
    if pa.types.is_map(kind):
        return f"MAP(VARCHAR, {duck(kind.item_type)})"
    if pa.types.is_list(kind):
        return f"{duck(kind.value_type)}[]"
    if pa.types.is_struct(kind):
        return f"STRUCT({', '.join(f'{_name(f.name)} {duck(f.type)}' for f in kind)})"
    return _DUCK[str(kind)]


_DUCK: Final = {
    "bool": "BOOLEAN", "int16": "SMALLINT", "int32": "INTEGER", "int64": "BIGINT", "double": "DOUBLE", "string": "VARCHAR",
    "binary": "BLOB", "fixed_size_binary[16]": "BLOB", "date32[day]": "DATE", "time64[us]": "TIME",
    "timestamp[us, tz=UTC]": "TIMESTAMP WITH TIME ZONE",
}  # fmt: skip
