"""A lifted query that is kept with a read model, for processes that do not have its code.

The text folds whole streams out of one table of stored columns, `hot_0`, whatever files they lie in; with it stands all that
was taken for granted when it was written: the types, versions and columns it knows, bounds of every value it computes with,
what no stored value may be, and how its columns become the model's. Who answers by it holds the log to that first, and has
no answer where anything is otherwise. It is JSON and SQL: nothing of it is run as Python, and the SQL in a connection that
reads the files of one cut and nothing else.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from eventlab.errors import EventlabError
from eventlab.model.schema import Schema
from eventlab.model.types import WIDE, Closed, FieldType, Record
from eventlab.replay.lift.lifted import Lifting, connect, table_of_query
from eventlab.replay.lift.plan import Plan
from eventlab.replay.lift.scan import counted, measured, scan_of, widest
from eventlab.replay.lift.sources import Abandoned
from eventlab.replay.lift.sql import NotHere, name, quoted
from eventlab.replay.lift.types import INT, STR, Type
from eventlab.store.base import ALL, Cut, SourceGroup, Tenant
from eventlab.store.columns import ENVELOPE, ENVELOPE_NAMES, codec
from eventlab.store.query import duck, locked, refuse_other_statements
from eventlab.store.read_models import ReadModelBase, Rows

#: What a stored query says of itself; another number is not read.
FORMAT: Final = 1
#: A stored query answers for a log of so many events, or a hundred times those there were.
MOST: Final = 1_000_000_000
#: Values may become so many times as large as those there are; less where that is beyond what is exact.
ROOM: Final = (1000, 10, 1)
#: As large as a value may be, if none was as large: whole numbers as they are, decimals by their whole part, durations.
_FLOOR: Final = 1_000_000
_CENTURY: Final = {"ts": 36_525 * 86_400_000_000, "d": 36_525}
_TABLE: Final = "hot_0"


class NoAnswer(Exception):
    """Why a stored query has no answer here."""


@dataclass(frozen=True)
class _Column:
    """The part of `StateLeaf` that a table needs."""

    type: Type


@dataclass(frozen=True)
class _Shape:
    """The part of a `Model` that a table needs."""

    category: str | None
    key_fields: tuple[tuple[str, FieldType], ...]
    fields: tuple[tuple[str, FieldType], ...]

    @property
    def columns(self) -> tuple[tuple[str, FieldType], ...]:
        """As `Model.columns`."""
        whole = _kind({"tag": "i64", "declared": "int"})
        return (*self.key_fields, *self.fields, ("_version", whole), ("_position", whole))


# -- written by who has the code -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Imagined:
    """A cut whose one table has, in each column, the least and the greatest value that the query is to answer for."""

    head: int
    schemas: Mapping[tuple[str, int], Schema]
    types_of: Mapping[tuple[str, str], frozenset[tuple[str, int]]]
    group: SourceGroup

    def sources(self, tenant: Tenant) -> list[SourceGroup]:
        """The one table."""
        return [self.group]


def known_types(category: str | None, cut: Cut, tenant: Tenant) -> set[tuple[str, int]]:
    """The types and versions that a model's events may have."""
    found = [keys for (of, name_), keys in cut.types_of.items() if of == tenant and category in (None, name_)]
    return set().union(*found)


def stored_query(plan: Plan, cut: Cut, tenant: Tenant) -> str | None:
    """The query of a model as text that another process can answer by; None where there is none that is exact."""
    model = plan.model
    if tenant is ALL or not plan.kinds or plan.refusal is not None or plan.not_lifted or model.source is not None:
        return None
    own = {kind.schema.key: kind.schema for kind in plan.kinds.values()} if model.handled is not None else {}
    schemas = {**own, **{key: cut.schemas[key] for key in known_types(model.category, cut, tenant)}}
    groups = [group for group in cut.sources(tenant) if model.category in (None, group.category)]
    most = max(MOST, 100 * cut.head)
    for room in ROOM:
        with contextlib.suppress(NotHere, Abandoned, duckdb.Error, EventlabError):
            written = _written(plan, schemas, groups, str(tenant), most, room)
            return json.dumps({**written, "head": cut.head}, sort_keys=True)
    return None


def _written(
    plan: Plan, schemas: Mapping[tuple[str, int], Schema], groups: Sequence[SourceGroup], tenant: str, most: int, room: int
) -> dict[str, Any]:
    model = plan.model
    known = {key: schema for key, schema in schemas.items() if key[0] in plan.kinds}
    columns = sorted({column for schema in known.values() for column in schema.columns})
    bounds = {
        column: _bounds(groups, column, room) for column in (*columns, "recorded_at", "occurred_at") if counted(column)
    }
    category = model.category if model.category is not None else ""
    group = SourceGroup(tenant, category, tuple(columns), table=_extremes(columns, bounds))
    imagined: Any = _Imagined(most, schemas, {(tenant, category): frozenset(schemas)}, group)
    with contextlib.closing(connect()) as connection:
        scan = scan_of(model, plan.kinds, plan.analysis.events, imagined, tenant, most, connection)
    query = Lifting(model, plan.analysis, plan.fields, scan, tenant).query()
    text = "\n".join([query.sql, *(check for _, check in scan.checks)])
    used = [column for column in columns if name(column) in text]
    beyond = [
        f"NOT ({_measure(column)} BETWEEN {_literal(column, low)} AND {_literal(column, high)})"
        for column, (low, high) in bounds.items()
        if column in used or (column in ENVELOPE_NAMES and _names(column, text))
    ]
    checks = [check for _, check in scan.checks]
    checks += [f"SELECT count(*) AS n FROM {_TABLE} WHERE {' OR '.join(beyond)}"] if beyond else []
    return {
        "format": FORMAT,
        "engine": engine(),
        "category": model.category,
        "most": most,
        "handled": None if model.handled is None else sorted(plan.kinds),
        "types": [[*key, list(schema.columns)] for key, schema in sorted(schemas.items())],
        "envelope": [of for of in ENVELOPE_NAMES if _names(of, text)],
        "columns": used,
        "sql": query.sql,
        "broken": " UNION ALL ".join(checks),
        "bad": query.bad,
        "ordered": query.ordered,
        "keys": [[key, _said(kind)] for key, kind in model.key_fields],
        "fields": [[field, _said(kind)] for field, kind in model.fields],
        "leaves": {path: _said_type(leaf.type) for path, leaf in plan.analysis.leaves.items()},
    }


def engine() -> str:
    """What runs a stored query; another version of it may give another answer, and is not asked."""
    return f"duckdb {duckdb.__version__}"


def _names(column: str, text: str) -> bool:
    return re.search(rf"\b{column}\b", text) is not None


def _tag(column: str) -> str:
    tag = column.rpartition(":")[2]
    return "ts" if tag in ("recorded_at", "occurred_at") else tag


def _bounds(groups: Sequence[SourceGroup], column: str, room: int) -> tuple[int, int]:
    """The values of a column that the query is to answer for, in lowered form."""
    here = [group for group in groups if column in ENVELOPE_NAMES or column in group.columns]
    found = [of for group in here for of in measured(group, column)]
    low, high = min((of[0] for of in found), default=0), max((of[1] for of in found), default=0)
    least, greatest = widest(column)
    tag = _tag(column)
    if (more := _CENTURY.get(tag)) is not None:
        return (least, greatest) if room > 1 else (max(low - more, least), min(high + more, greatest))
    floor = _FLOOR * (10 ** int(tag.partition("_")[2]) if "_" in tag else _FLOOR if tag == "td" else 1)
    most = max(floor, -low, high) * room
    return max(-most, least), min(most, greatest)


def _extremes(columns: Sequence[str], bounds: Mapping[str, tuple[int, int]]) -> pa.Table:
    kinds = {field.name: field.type for field in ENVELOPE} | {column: codec(_tag(column)).arrow for column in columns}
    arrays = []
    for column, kind in kinds.items():
        if column not in bounds:
            arrays.append(pa.nulls(2, kind))
        elif pa.types.is_decimal(kind):
            arrays.append(pa.array([Decimal(of).scaleb(-kind.scale, context=WIDE) for of in bounds[column]], kind))
        else:
            arrays.append(pa.array(bounds[column], pa.int32() if kind == pa.date32() else pa.int64()).view(kind))
    return pa.table(arrays, names=list(kinds))


def _measure(column: str) -> str:
    """A stored column as the number that its bounds are about."""
    return {"ts": f"epoch_us({name(column)})", "d": f"({name(column)} - DATE '1970-01-01')"}.get(_tag(column), name(column))


def _literal(column: str, value: int) -> str:
    tag = _tag(column)
    if tag[0] == "d" and "_" in tag:
        places = int(tag.partition("_")[2])
        return f"CAST('{Decimal(value).scaleb(-places, context=WIDE):f}' AS DECIMAL(38, {places}))"
    return str(value)


def _said(kind: FieldType) -> dict[str, Any]:
    """What a table needs of a field's type."""
    found: dict[str, Any] = {"tag": kind.tag, "declared": kind.declared, "nullable": kind.nullable}
    if isinstance(kind, Closed):
        found["members"] = list(kind.members)
    if isinstance(kind, Record):
        found["fields"] = [[part, _said(of)] for part, of in kind.fields]
    if kind.item is not None:
        found["item"] = _said(kind.item)
    return found


def _said_type(of: Type) -> dict[str, Any]:
    """A lowered type without its Python class: a member of an enum is its stored value."""
    plain = of.name if of.name != "enum" else "str" if of.text else "int"
    return {
        "name": plain,
        "opt": of.opt,
        "scale": of.scale,
        "item": None if of.item is None else _said_type(of.item),
        "parts": [[part, _said_type(kind)] for part, kind in of.parts],
    }


# -- answered by who does not ----------------------------------------------------------------------------------------------


def _kind(said: Mapping[str, Any]) -> FieldType:
    given: dict[str, Any] = {
        "tag": said["tag"], "declared": said["declared"], "check": _never, "back": _never,
        "nullable": said.get("nullable", False), "item": _kind(said["item"]) if "item" in said else None,
    }  # fmt: skip
    if "members" in said:
        return Closed(**given, members={of: of for of in said["members"]})
    if "fields" in said:
        return Record(**given, fields=tuple((part, _kind(of)) for part, of in said["fields"]))
    return FieldType(**given)


def _never(*_: Any) -> Any:
    raise AssertionError("a stored query has no Python values")


def _type(said: Mapping[str, Any]) -> Type:
    plain = {"int": INT, "str": STR}.get(said["name"], Type(said["name"]))
    item = None if said["item"] is None else _type(said["item"])
    return Type(plain.name, said["opt"], said["scale"], None, item, tuple((part, _type(of)) for part, of in said["parts"]))


def answered(text: str, cut: Cut, tenant: Tenant, until: int, base: ReadModelBase) -> pa.Table:
    """The rows at `until`: those of a base, and in place of what was touched since what the query makes of the log.

    An aggregate's touched streams are folded whole; of a projection all is. Either way an answer costs no more than the
    query over the whole log. `NoAnswer` where it would not surely be what the code gives.
    """
    try:
        query: dict[str, Any] = json.loads(text)
        if (query["format"], query["engine"]) != (FORMAT, engine()):
            raise NoAnswer(f"its stored query is for {query['engine']} in format {query['format']}, and here is {engine()}")
        return _answered(query, cut, tenant, until, base)
    except (KeyError, TypeError, ValueError) as why:
        raise NoAnswer(f"its stored query is not read here: {why!r}") from None
    except (Abandoned, EventlabError, duckdb.Error, pa.ArrowInvalid, FileNotFoundError) as why:
        raise NoAnswer(f"its stored query found what it does not answer for: {str(why).splitlines()[0]}") from None


def _answered(query: Mapping[str, Any], cut: Cut, tenant: Tenant, until: int, base: ReadModelBase) -> pa.Table:
    if base.parked:
        raise NoAnswer(f"{len(base.parked):,} of its keys stopped at an event that its code could not take")
    if until > query["most"]:
        raise NoAnswer(f"its stored query answers for {query['most']:,} events")
    category, handled = query["category"], query["handled"]
    known = {(of, version): tuple(columns) for of, version, columns in query["types"]}
    for of, version in sorted(known_types(category, cut, tenant)):
        if (handled is None or of in handled) and known.get((of, version)) != tuple(cut.schemas[of, version].columns):
            raise NoAnswer(f"its stored query does not know {of} in version {version}")
    held = cut.hold()
    try:
        groups = [group for group in cut.sources(tenant) if category in (None, group.category)]
        with _connected(groups) as connection:
            for statement in (query["sql"], query["broken"]):
                if statement:
                    refuse_other_statements(connection, statement)
            found = _rows(query, groups, connection, until, base.position)
    finally:
        held.release()
    shape: Any = _Shape(category, *(tuple((of, _kind(said)) for of, said in query[part]) for part in ("keys", "fields")))
    leaves: Any = {path: _Column(_type(said)) for path, said in query["leaves"].items()}
    table = table_of_query(shape, leaves, found, tenant)
    return base.whole().with_rows(table) if category is not None else Rows(table, base.keys).table


@contextlib.contextmanager
def _connected(groups: Sequence[SourceGroup]) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection that reads the files of these groups, and nothing else."""
    connection = locked([path for group in groups for path in group.paths])
    try:
        for number, group in enumerate(groups):
            if group.table is not None:
                connection.register(f"tail_{number}", group.table)
        yield connection
    finally:
        connection.close()


def _rows(
    query: Mapping[str, Any], groups: Sequence[SourceGroup], connection: duckdb.DuckDBPyConnection, until: int, after: int
) -> pa.Table:
    """What the query gives."""
    touched = query["category"] is not None
    if touched:
        since = [
            f"SELECT stream FROM {_from(number, group)} WHERE position > {after} AND position <= {until}"
            for number, group in enumerate(groups)
            if group.table is not None or any(file.last > after for file in group.files)
        ]
        streams = " UNION ALL ".join(since) or "SELECT NULL::VARCHAR AS stream WHERE false"
        connection.execute(f"CREATE TEMP TABLE touched AS SELECT DISTINCT stream FROM ({streams})")
    arrow = {field.name: field.type for field in ENVELOPE}
    selects = []
    for number, group in enumerate(groups):
        columns = [name(of) for of in query["envelope"]]
        columns += [
            name(of) if of in group.columns else f"NULL::{duck(codec(_tag(of)).arrow)} AS {name(of)}" for of in query["columns"]
        ]
        where = f"position <= {until}" + (" AND stream IN (SELECT stream FROM touched)" if touched else "")
        selects.append(f"SELECT {', '.join(columns)} FROM {_from(number, group)} WHERE {where}")
    if not selects:
        columns = [f"NULL::{duck(arrow[of])} AS {name(of)}" for of in query["envelope"]]
        columns += [f"NULL::{duck(codec(_tag(of)).arrow)} AS {name(of)}" for of in query["columns"]]
        selects = [f"SELECT {', '.join(columns)} WHERE false"]
    # Of few streams the rows are looked for once, and kept; of all they are read as the query asks for them.
    kind = "TABLE" if touched else "VIEW"
    connection.execute(f"CREATE TEMP {kind} {_TABLE} AS {' UNION ALL '.join(selects)}")
    broken = query["broken"] and connection.execute(f"SELECT sum(n) FROM ({query['broken']})").fetchall()[0][0]
    if broken:
        raise NoAnswer(f"{broken:,} stored values are not among those that its stored query answers for")
    found = connection.sql(query["sql"]).to_arrow_table()
    if query["ordered"] and pc.any(found.column("_disorder")).as_py():
        raise NoAnswer("the rows of a stream did not come in the order of their positions")
    if query["bad"] and pc.any(found.column("_bad")).as_py():
        raise NoAnswer("an event may raise in its code, or is not exact in SQL")
    return found


def _from(number: int, group: SourceGroup) -> str:
    return f"tail_{number}" if group.table is not None else f"read_parquet([{', '.join(map(quoted, group.paths))}])"
