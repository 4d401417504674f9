"""The rows of a cut as a FROM clause: lowered columns of the leaves that a fold reads, one SELECT a group of files.

A fold by stream is read in parts where eras have buckets: the files of a part hold whole streams, but for a rest in position
order, which is split by the same function of the stream's name.
"""

from __future__ import annotations

import datetime as dt
import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, Final

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from eventlab.model.events import EventType
from eventlab.model.models import Model
from eventlab.model.types import DAY_ZERO, EPOCH, MICROSECOND, WIDE, Closed
from eventlab.replay.lift.analyse import EventIR
from eventlab.replay.lift.operations import DATE_LIMITS, DAY_US, MOMENT_LIMITS
from eventlab.replay.lift.sources import Abandoned, Sources, Upcast, sources_of
from eventlab.replay.lift.sql import INT64, META_LIMITS, NotHere, Text, duck_type, meta_texts, name, quoted
from eventlab.replay.lift.types import Slot, closed_in
from eventlab.store.base import ALL, Cut, SourceGroup, Tenant
from eventlab.store.columns import ENVELOPE_NAMES


@dataclass(frozen=True)
class Select:
    """The rows of one group of files, or of its table under a name: what is selected of them, and which."""

    group: SourceGroup
    items: str
    where: str
    table: str = ""

    def over(self, paths: Sequence[str]) -> str:
        """As SQL, of some of the files."""
        rows = self.table or f"read_parquet([{', '.join(map(quoted, paths))}])"
        return f"SELECT {self.items} FROM {rows} WHERE {self.where}"


@dataclass(frozen=True)
class Part:
    """Some of a log's streams: their files by the number of their select, and whether there are others in position order."""

    files: tuple[tuple[int, tuple[str, ...]], ...]
    rows: int
    #: Whether the rows come by stream and version as they are: every stream in one sorted file.
    by_stream: bool
    #: The buckets of the part: those numbers of `of`.
    buckets: frozenset[int] = frozenset({0})
    of: int = 1


@dataclass(frozen=True)
class Scan:
    """All rows that a model folds: SQL giving `type`, `position`, `version`, the key's parts and the leaves by alias."""

    sql: str
    texts: Mapping[str, Text]
    #: Queries that count the rows which break what the plan takes for granted, and the files they read ("" for the hot tail).
    checks: tuple[tuple[tuple[str, ...], str], ...]
    #: No key has more events.
    count: int
    #: The columns of the key beyond those the model computes.
    key: tuple[str, ...]
    #: Whether the rows come by stream and version as they are: every stream in one sorted file.
    by_stream: bool = False
    selects: tuple[Select, ...] = ()
    #: Where there is more than one: the rows by buckets of streams.
    parts: tuple[Part, ...] = ()
    #: The selects whose rows are in position order, and have to be split for the parts.
    rest: tuple[int, ...] = ()

    def of_part(self, part: Part, rest: str = "") -> Scan:
        """The scan of one part; `rest` names the table of its rows from files in position order."""
        found = [self.selects[number].over(paths) for number, paths in part.files]
        found += [f"SELECT * FROM {rest}"] if rest else []
        return replace(self, sql=_UNION.join(found), by_stream=part.by_stream and not rest)


_UNION: Final = "\n  UNION ALL "
#: The types in more files than these are counted apart.
MANY_FILES: Final = 16
#: A part has at least so many rows, if there are so many.
PART_ROWS: Final = 500_000


def lowered(column: str, slot: Slot, most: int) -> str:
    """A stored column as its lowered value; no value is greater than `most`, in lowered form."""
    text, tag = name(column), column.rpartition(":")[2]
    if tag in ("ts", "t"):
        return f"epoch_us({text})"
    if tag == "d":
        return f"({text} - DATE '1970-01-01')"
    if tag.startswith(("d18_", "d38_")):
        places = int(tag[4:])
        if tag.startswith("d18_") and most * 10**places < 10**17:
            return f"CAST({text} * {10**places} AS BIGINT)"
        if places <= 18 and most * 10**places < 10**37:
            return f"CAST({text}::DECIMAL(38, {places}) * {10**places}::DECIMAL({places + 1}, 0) AS BIGINT)"
        return _no(column)
    if tag in (
        "l_i64",
        "l_s",
        "l_b",
        "l_f64",
        "l_uuid",
        "l_bin",
        "l_td",
        "i64",
        "f64",
        "s",
        "b",
        "bin",
        "uuid",
        "td",
        "json",
        "dec",
        "p",
    ):
        return text
    return _no(column)


def _no(column: str) -> str:
    raise NotHere(f"a column of {column.rpartition(':')[2]} is not read in SQL")


def scan_of(
    model: Model, kinds: Mapping[str, EventType], events: Mapping[str, EventIR], cut: Cut, tenant: Tenant, until: int,
    connection: duckdb.DuckDBPyConnection, more_metas: Sequence[str] = (),
) -> Scan:  # fmt: skip
    """The scan of a model's events at or before `until`; `more_metas` are columns beside those that the model reads."""
    groups = [g for g in cut.sources(tenant) if model.read_category in (None, g.category)]
    groups = [begun for g in groups if (begun := _begun(g, until)) is not None]
    handled = set(kinds)
    if model.category is None:
        groups = [g for g in groups if any(t in handled for t, _ in cut.types_of[g.tenant, g.category])]
    try:
        sources = {
            (type_name, version): sources_of(kinds[type_name], cut.schemas[type_name, version])
            for type_name, version in {key for g in groups for key in cut.types_of[g.tenant, g.category]} if type_name in kinds
        }  # fmt: skip
    except Upcast as why:
        raise NotHere(str(why), why.line, why.file) from None
    events = {n: event for n, event in events.items() if any(of == n for of, _ in sources)}
    wanted = _aliases(events, sources)
    metas = sorted({meta for event in events.values() for meta in event.metas} | set(more_metas))
    texts = {
        event_name: Text(
            {("event", leaf): wanted[event_name, leaf] for leaf in event.leaves} | {("meta", m): f"m_{m}" for m in metas},
            {("meta", m): _meta_limits(groups, m) for m in metas if m in META_LIMITS}
            | {("event", leaf): _limits(groups, sources, event_name, leaf) for leaf in event.leaves},
        )
        for event_name, event in events.items()
    }
    selects: list[Select] = []
    checks: list[tuple[tuple[str, ...], str]] = []
    for number in range(len(groups)):
        select, check = _select(
            model, kinds, events, groups, number, sources, wanted, metas, tenant, until, connection, cut, texts
        )
        selects.append(select)
        checks += check
    key = ("_tenant",) if tenant is ALL else ()
    sql = _UNION.join(select.over(select.group.paths) for select in selects)
    rest = tuple(number for number, group in enumerate(groups) if not group.by_stream)
    parts = parts_of(groups) if model.category is not None else ()
    most = max((part.rows for part in parts), default=until) + sum(_rows(groups[number]) for number in rest)
    by_stream = model.category is not None and not rest and len(_eras(groups)) == len({g.tenant for g in groups})
    many = parts if len(parts) > 1 else ()
    return Scan(sql, texts, tuple(checks), min(until, most), key, by_stream, tuple(selects), many, rest)


def _begun(group: SourceGroup, until: int) -> SourceGroup | None:
    """A group without the files that begin after a position; None where nothing is left."""
    if group.table is not None:
        return group
    files = tuple(file for file in group.files if file.first <= until)
    return replace(group, files=files, paths=tuple(file.path for file in files)) if files else None


def _rows(group: SourceGroup) -> int:
    return len(group.table) if group.table is not None else sum(file.rows for file in group.files)


def _eras(groups: Sequence[SourceGroup]) -> set[tuple[str, int]]:
    """The eras of sorted files, of each tenant."""
    return {(group.tenant, file.first) for group in groups if group.by_stream for file in group.files}


def parts_of(groups: Sequence[SourceGroup]) -> tuple[Part, ...]:
    """The files of eras by buckets of streams: as many as the era with the fewest has, some of them taken together.

    None where more rows lie in position order than in eras: to split those costs more than one query over everything.
    """
    eras = [(number, file) for number, group in enumerate(groups) if group.by_stream for file in group.files]
    of = min((file.buckets for _, file in eras), default=1)
    loose = sum(_rows(group) for group in groups if not group.by_stream)
    sorted_rows = sum(file.rows for _, file in eras)
    if loose > sorted_rows:
        return ()
    found: list[Part] = []
    waiting: list[int] = []
    rows = 0
    sizes = [0] * of
    for _, file in eras:
        sizes[file.bucket % of] += file.rows
    for bucket in range(of):
        waiting.append(bucket)
        rows += sizes[bucket]
        if rows + loose * len(waiting) // of >= PART_ROWS or bucket == of - 1:
            mine = frozenset(waiting)
            files: dict[int, list[str]] = {}
            begun: dict[str, set[int]] = {}
            for number, file in eras:
                if file.bucket % of in mine:
                    files.setdefault(number, []).append(file.path)
                    begun.setdefault(groups[number].tenant, set()).add(file.first)
            apart = all(len(firsts) == 1 for firsts in begun.values())
            found.append(Part(tuple((n, tuple(p)) for n, p in files.items()), rows, apart, mine, of))
            waiting, rows = [], 0
    return tuple(found)


def _aliases(
    events: Mapping[str, EventIR], sources: Mapping[tuple[str, int], Sources]
) -> dict[tuple[str, str], str]:
    """One alias for each leaf; leaves of one physical column share it where every version has it."""
    found: dict[tuple[str, str], str] = {}
    shared: dict[str, str] = {}
    for event_name, event in events.items():
        mine = [s for (of, _), s in sources.items() if of == event_name]
        for leaf in event.leaves:
            columns = {s[leaf].column if s[leaf].node is None else None for s in mine}
            (column,) = columns if len(columns) == 1 else (None,)
            if column is None:
                found[event_name, leaf] = f"c{len(set(found.values()))}"
            else:
                shared.setdefault(column, f"c{len(set(found.values()))}")
                found[event_name, leaf] = shared[column]
    return found


def _select(
    model: Model, kinds: Mapping[str, EventType], events: Mapping[str, EventIR], groups: Sequence[SourceGroup], number: int,
    sources: Mapping[tuple[str, int], Sources], wanted: Mapping[tuple[str, str], str], metas: Sequence[str],
    tenant: Tenant, until: int, connection: duckdb.DuckDBPyConnection, cut: Cut, texts: Mapping[str, Text],
) -> tuple[Select, list[tuple[tuple[str, ...], str]]]:  # fmt: skip
    group = groups[number]
    names = [*ENVELOPE_NAMES, *group.columns]
    if len({n.casefold() for n in names}) < len(names):
        raise NotHere("two columns differ in case alone, which SQL cannot tell apart")
    if group.table is not None:
        connection.register(f"hot_{number}", group.table)
        rows = f"hot_{number}"
    else:
        rows = f"read_parquet([{', '.join(map(quoted, group.paths))}])"
    types_here = [t for t in cut.types_of[group.tenant, group.category] if t[0] in kinds]
    # A condition on the position would have it read: it says nothing of files that end before.
    whole = group.table is None and max(file.last for file in group.files) <= until
    where = ["true"] if whole else [f"position <= {until}"]
    if model.category is None:
        where.append(f"type IN ({', '.join(quoted(n) for n in sorted({t for t, _ in types_here}))})")
    items = ["stream", "type", "position", "version"]
    if tenant is ALL:
        items.append(f"{quoted(group.tenant)} AS _tenant")
    shown = meta_texts()
    items += [f"{shown[m]} AS m_{m}" for m in metas]
    checks: list[tuple[tuple[str, ...], str]] = []
    done: set[str] = set()
    for (event_name, leaf), alias in wanted.items():
        if alias not in done:
            done.add(alias)
            items.append(f"{_column(groups, group, event_name, leaf, sources, texts)} AS {alias}")
    for type_name, version in sorted(types_here):
        of = sources[type_name, version]
        sure = [
            s.column
            for leaf in (of.leaves if of.upcast else events[type_name].leaves)
            if (s := of[leaf]).column is not None and not s.slot.type.opt and s.column in group.columns
        ]
        if group.table is None:
            _count_types(connection, group.paths)
            sure = [column for column in sure if not _full(group, column, cut)]
        broken = [f"{name(column)} IS NULL" for column in sure] + _unknown_members(kinds[type_name], of, group)
        broken += _old_text(groups, group, of).guards(of.effects)
        if broken:
            here = f"type = {quoted(type_name)} AND schema_version = {version}"
            checks.append((group.paths, f"SELECT count(*) AS n FROM {rows} WHERE {here} AND ({' OR '.join(broken)})"))
    table = rows if group.table is not None else ""
    return Select(group, ", ".join(items), " AND ".join(where), table), checks


def _unknown_members(kind: EventType, of: Sources, group: SourceGroup) -> list[str]:
    """Conditions under which decoding an event would raise."""
    found = []
    for field, declared in kind.fields:
        if not closed_in(declared):
            continue
        if not isinstance(declared, Closed):
            raise NotHere(f"{kind.name}.{field} holds an enum or a literal inside")
        source = of[field]
        if source.column is not None and source.column in group.columns:
            values = ", ".join(quoted(v) if isinstance(v, str) else str(v) for v in declared.members)
            found.append(f"{name(source.column)} NOT IN ({values})")
    return found


def _column(
    groups: Sequence[SourceGroup], group: SourceGroup, event_name: str, leaf: str,
    sources: Mapping[tuple[str, int], Sources], texts: Mapping[str, Text],
) -> str:  # fmt: skip
    """A leaf's lowered column within a group; a stored version without it has its default."""
    mine = [(version, s[leaf]) for (of, version), s in sources.items() if of == event_name]
    made = {v: s for (of, v), s in sources.items() if of == event_name and s[leaf].node is not None}
    slot = mine[0][1].slot if mine else None
    if slot is None:
        return "NULL::BIGINT"
    kind = duck_type(slot.type)
    bounds = texts[event_name].limits["event", leaf]
    most = 0 if bounds is None else max(map(abs, bounds))
    columns = sorted({s.column for _, s in mine if s.column is not None and s.column in group.columns})
    read = {column: lowered(column, slot, most) for column in columns}
    text = read[columns[0]] if columns else f"NULL::{kind}"
    plain = Text({}, {})
    # Versions that are read from another column, or that have a constant instead.
    others = {
        version: plain.constant(s.default, slot.type) if s.column is None else read.get(s.column, f"NULL::{kind}")
        for version, s in sorted(mine, key=lambda of: of[0])
        if version not in made and (s.column is None or (columns and s.column != columns[0]))
    }
    for version, of in made.items():
        node = of[leaf].node
        assert node is not None
        others[version] = f"({_old_text(groups, group, of).text(node)})::{kind}"
    if others:
        arms = " ".join(f"WHEN {version} THEN {value}" for version, value in sorted(others.items()))
        text = f"CASE schema_version {arms} ELSE {text} END"
    return text


def _old_text(groups: Sequence[SourceGroup], here: SourceGroup | None, of: Sources) -> Text:
    """Expressions over the leaves of an old version: bounds over all groups, columns as one of them has them."""
    names: dict[tuple[str, str], str] = {}
    limits: dict[tuple[str, str], Any] = {}
    for path, slot in of.old.items():
        bounds: Any = None
        if slot.type.whole:
            found = [(0, 0)] + [b for group in groups if slot.column in group.columns for b in measured(group, slot.column)]
            bounds = (0, DAY_US) if slot.type.name == "time" else (min(low for low, _ in found), max(high for _, high in found))
        limits["event", path] = bounds
        if here is not None:
            there = slot.column in here.columns
            most = 0 if bounds is None else max(map(abs, bounds))
            names["event", path] = lowered(slot.column, slot, most) if there else f"NULL::{duck_type(slot.type)}"
    return Text(names, limits)


def _limits(
    groups: Sequence[SourceGroup], sources: Mapping[tuple[str, int], Sources], event_name: str, leaf: str
) -> Any:
    """Bounds of a leaf's values over all groups, or None where it is no whole number."""
    mine = [(s, s[leaf]) for (of, _), s in sources.items() if of == event_name]
    if not mine or not mine[0][1].slot.type.whole:
        return None
    kind = mine[0][1].slot.type.name
    if kind == "time":
        return (0, DAY_US)
    found: list[tuple[int, int]] = [(0, 0)]
    for of, source in mine:
        if source.node is not None:
            bounds = _old_text(groups, None, of).bounds(source.node)
            if bounds is None:
                raise NotHere(f"the size of {event_name}.{leaf} is not known, as the upcasters make it", source.node.line)
            found.append(bounds)
            continue
        if source.column is None:
            found.append((source.default, source.default) if source.default is not None else (0, 0))
            continue
        for group in groups:
            if source.column in group.columns:
                found += measured(group, source.column)
    bounds = min(low for low, _ in found), max(high for _, high in found)
    if not (INT64[0] <= bounds[0] and bounds[1] <= INT64[1]):
        raise NotHere(f"{event_name}.{leaf} holds values beyond 64 bits")
    return bounds


def _meta_limits(groups: Sequence[SourceGroup], meta: str) -> Any:
    if meta not in ("occurred_at", "recorded_at"):
        return META_LIMITS[meta]
    found = [bounds for group in groups for bounds in measured(group, meta)] or [(0, 0)]
    return min(low for low, _ in found), max(high for _, high in found)


def measured(group: SourceGroup, column: str) -> list[tuple[int, int]]:
    """The least and the greatest stored value of a column."""
    if group.table is not None:
        bounds = measured_values(group.table.column(column), column)
        return [] if bounds is None else [bounds]
    return [bounds for path in group.paths for bounds in _footer(path)[column][0]]


def measured_values(values: pa.Array, column: str) -> tuple[int, int] | None:
    """The least and the greatest of stored values, lowered; None where there is none."""
    if values.null_count == len(values):
        return None
    found = pc.min_max(values).as_py()
    return _whole(found["min"], column), _whole(found["max"], column)


@functools.lru_cache(maxsize=4_096)
def _footer(path: str) -> Mapping[str, tuple[list[tuple[int, int]], int]]:
    """Of each column of a segment, which never changes: bounds of its row groups, and how many values are not null."""
    metadata = pq.read_metadata(path)
    found: dict[str, tuple[list[tuple[int, int]], int]] = {}
    places = [(at, column) for at, column in enumerate(metadata.schema.names) if metadata.schema.names.count(column) == 1]
    for at, column in places:
        bounds, present = [], 0
        for i in range(metadata.num_row_groups):
            part = metadata.row_group(i)
            statistics = part.column(at).statistics
            if statistics is None or not statistics.has_null_count:
                present = -(2**62)
                bounds.append(widest(column))
                continue
            present += part.num_rows - statistics.null_count
            if statistics.null_count == part.num_rows or not counted(column):
                continue
            bounds.append(
                widest(column)
                if not statistics.has_min_max
                else (_whole(statistics.min, column), _whole(statistics.max, column))
            )
        found[column] = (bounds, present)
    return found


def counted(column: str) -> bool:
    """Whether a column holds whole numbers when lowered."""
    tag = column.rpartition(":")[2]
    return tag in ("i64", "ts", "d", "td", "occurred_at", "recorded_at") or (tag[0] == "d" and "_" in tag)


#: How many events of each type and version a segment holds, by its path.
_TYPES: dict[str, dict[tuple[str, int], int]] = {}


def _count_types(connection: duckdb.DuckDBPyConnection, paths: Iterable[str]) -> None:
    """Count the types of the segments that were not counted yet."""
    new = [path for path in paths if path not in _TYPES]
    if not new:
        return
    if len(_TYPES) > 10_000:
        _TYPES.clear()
    files = ", ".join(map(quoted, new))
    query = f"SELECT filename, type, schema_version, count(*) AS n FROM read_parquet([{files}], filename = true) GROUP BY ALL"
    if len(new) > MANY_FILES:
        # Once and never again: a database of its own, which does not keep the footers.
        with duckdb.connect() as once:
            once.execute("SET enable_progress_bar = false")
            found = once.sql(query).to_arrow_table()
    else:
        found = connection.sql(query).to_arrow_table()
    for path in new:
        _TYPES[path] = {}
    for row in found.to_pylist():
        _TYPES[row["filename"]][row["type"], row["schema_version"]] = row["n"]


def _full(group: SourceGroup, column: str, cut: Cut) -> bool:
    """Whether every event whose type has a column has a value there, by the footers and the counts of types alone."""
    for path in group.paths:
        wanted = sum(count for key, count in _TYPES[path].items() if column in cut.schemas[key].columns)
        found = _footer(path).get(column)  # of a list the footer says how many items there are
        if found is None or found[1] != wanted:
            return False
    return True


def widest(column: str) -> tuple[int, int]:
    """Bounds of all that a column of whole numbers can hold, lowered."""
    tag = column.rpartition(":")[2]
    if tag in ("ts", "occurred_at", "recorded_at"):
        return MOMENT_LIMITS
    if tag == "d":
        return DATE_LIMITS
    if tag[0] == "d" and "_" in tag:
        digits = int(tag[1:].partition("_")[0])
        return (1 - 10**digits, 10**digits - 1)
    return INT64


def _whole(value: Any, column: str) -> int:
    if isinstance(value, Decimal):
        return int(value.scaleb(int(column.rpartition("_")[2]), context=WIDE))
    if isinstance(value, dt.datetime):
        return (value - EPOCH) // MICROSECOND
    if isinstance(value, dt.date):
        return (value - DAY_ZERO).days
    return int(value)


#: Answers of checks over segments, which never change.
_CHECKED: dict[str, int] = {}


def refuse_broken(connection: duckdb.DuckDBPyConnection, scan: Scan) -> None:
    """`Abandoned` when the log holds what the plan takes for impossible."""
    for paths, check in scan.checks:
        count = _CHECKED.get(check) if paths else None
        if count is None:
            table: pa.Table = connection.sql(check).to_arrow_table()
            count = int(table.column("n")[0].as_py())
            if paths:
                if len(_CHECKED) > 10_000:
                    _CHECKED.clear()
                _CHECKED[check] = count
        if count:
            raise Abandoned("a stored value that the classes of today do not allow")
