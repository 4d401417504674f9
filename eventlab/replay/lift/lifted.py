"""The lifted fold: one query over the population, each field one aggregate, guards per key."""

from __future__ import annotations

import functools
import os
import secrets
import tempfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from eventlab.model.models import Model
from eventlab.model.types import Closed, FieldType, Record
from eventlab.replay.lift.analyse import Analysis, StateLeaf
from eventlab.replay.lift.classify import KINDS, Case, Classified, LeafKind
from eventlab.replay.lift.columns import _array, dressed
from eventlab.replay.lift.ir import Node
from eventlab.replay.lift.operations import DEC_LIMIT
from eventlab.replay.lift.scan import Scan
from eventlab.replay.lift.sources import Abandoned
from eventlab.replay.lift.sql import HUGE, INT64, NotHere, Text, duck_type, name, quoted
from eventlab.replay.lift.types import DEC_TAG, STR, Type, type_of
from eventlab.store.base import ALL, Tenant
from eventlab.store.columns import codec

#: Kinds that one GROUP BY gives.
GROUPED: Final = frozenset(
    {"CONST", "LAST", "SUM", "FSUM", "MAX", "MIN", "FIRST", "LIST", "SET", "SEGSUM", "SEGMAX", "SEGMIN", "SEGLIST", "SEGSET"}
)
#: Kinds that are folds of their own, by key and item, joined to the rest.
JOINED: Final = frozenset({"MAP", "MAPSUM", "SETKEY", "SEGMAP", "SEGMAPSUM", "SEGSETKEY"})
#: Kinds whose value at every event a streaming window gives.
STREAMED: Final = frozenset({"CONST", "LAST", "FIRST", "SUM", "SEGSUM", "MAX", "MIN"})
_STREAMING: Final = "(ROWS UNBOUNDED PRECEDING)"
_RESET: Final = {"SEGSUM": "add", "SEGMAX": "max", "SEGMIN": "min", "SEGLIST": "append", "SEGSET": "setadd"}


@dataclass(frozen=True)
class Query:
    """A lifted fold as SQL: its text, and whether a column `_bad` says which keys a guard caught.

    With `ordered` a column `_disorder` says where the rows were in another order than the windows take for granted; with
    `counted` the versions of the answer do.
    """

    sql: str
    keys: tuple[str, ...]
    bad: bool
    ordered: bool
    counted: bool = False

    def run(self, connection: duckdb.DuckDBPyConnection) -> pa.Table:
        """Its answer."""
        return connection.sql(self.sql).to_arrow_table()


def liftable(analysis: Analysis, fields: Classified) -> dict[str, NotHere]:
    """Why leaves do not lift, by path; empty where every one does. What depends on the data is seen at the run."""
    found = refused(analysis, fields)
    for read in read_state(analysis, fields):
        leaf = fields.leaves[read]
        if leaf.kind not in STREAMED and read not in found:
            found[read] = NotHere(f"{leaf.kind.lower()} is not a running aggregate, and other fields read it", leaf.cases[0].line)
        if read in found:
            for path, other in fields.leaves.items():
                if read in other.reads or _guards_read(analysis, fields, read):
                    found.setdefault(
                        path, NotHere(f"it depends on {read}, which does not lift", other.cases[0].line if other.cases else 0)
                    )
    return found


def refused(analysis: Analysis, fields: Classified) -> dict[str, NotHere]:
    """Why leaves do not lift for what they are themselves, whoever reads them."""
    found = {}
    for path, leaf in fields.leaves.items():
        if leaf.kind == "CYCLE" or leaf.level is None:
            found[path] = NotHere(leaf.why, leaf.line, hint="the loop folds it; state that decides itself has no aggregate")
        elif leaf.kind in JOINED:
            state = analysis.leaves[path]
            if state.initial or state.type.item is None or state.type.item.item is not None or state.type.item.name == "rec":
                found[path] = NotHere(f"it does not begin empty, or holds a {state.type.item}", leaf.cases[0].line)
            for case in leaf.cases:
                operand = case.operands[-1]
                if case.form == "assign" and not (operand.fixed and not operand.value):
                    found[path] = NotHere("a collection is set to another one", case.line)
                if case.form in ("setadd", "setsub") and not (operand.op == "set.of" and len(operand.args) == 1):
                    found[path] = NotHere("only one item at a time is put in or taken out of a set in SQL", case.line)
        elif leaf.kind not in GROUPED:
            found[path] = NotHere(f"{leaf.kind.lower()} is not one aggregate", leaf.cases[0].line if leaf.cases else 0)
    return found


def read_state(analysis: Analysis, fields: Classified) -> list[str]:
    """The leaves that are read as of an event, by other leaves or by what may raise; those that read nothing first."""
    found: set[str] = set()
    for leaf in fields.leaves.values():
        found |= leaf.reads
        for case in leaf.cases:
            found |= frozenset().union(*(n.reads for n in (*case.operands, *(() if case.guard is None else (case.guard,)))))
    skip = consumed(fields)
    for event in analysis.events.values():
        for effect in event.effects:
            if effect.node not in skip:
                found |= frozenset().union(
                    *(c.reads for c, _ in effect.path), *(() if effect.node is None else (effect.node.reads,))
                )
    return sorted(found, key=lambda p: (fields.leaves[p].level or 0, p))


def _guards_read(analysis: Analysis, fields: Classified, path: str) -> bool:
    skip = consumed(fields)
    return any(
        path in frozenset().union(*(c.reads for c, _ in effect.path), *(() if effect.node is None else (effect.node.reads,)))
        for event in analysis.events.values()
        for effect in event.effects
        if effect.node not in skip
    )


def consumed(fields: Classified) -> frozenset[Node]:
    """Operations on a leaf itself whose guards its aggregate stands for."""
    return frozenset().union(*(leaf.consumed for leaf in fields.leaves.values()))


@dataclass
class Lifting:
    """Writes the query of one model over one scan."""

    model: Model
    analysis: Analysis
    fields: Classified
    scan: Scan
    tenant: Tenant
    #: Whether this is one of several queries: what they give is put in order together.
    part: bool = False
    #: Whether every stream is there from its first event on.
    whole_streams: bool = True

    def __post_init__(self) -> None:
        self.events = {n: e for n, e in self.analysis.events.items() if n in self.scan.texts}
        self.guards: dict[str, list[str]] = {}
        self.reach: dict[str, Any] = {}
        #: SQL of the value after the event, of the leaves that windows run for.
        self.posts: dict[str, str] = {}
        self.resets: dict[str, str] = {}

    def query(self) -> Query:
        """The whole query."""
        skip = consumed(self.fields)
        keys, key_sql, where = self.keys()
        keyed = "".join(f", {sql} AS {k}" for k, sql in zip(keys, key_sql, strict=True) if sql)
        ctes = [f"e AS (\n  SELECT *{keyed}\n  FROM ({self.scan.sql}){where}\n)"]
        source = "e"
        strata = self._strata()
        for event_name, event in self.events.items():
            key_guards = self.scan.texts[event_name].guards(event.key_effects)
            if key_guards:
                why = f"the key of {event_name} may raise, or is not exact, on this log: {key_guards[0]}"
                raise NotHere(why, event.key_effects[0].line)
        if strata:
            more, source = self.windows(strata, keys)
            ctes += more
        for event_name, event in self.events.items():
            self.guards[event_name] = self.scan.texts[event_name].guards(event.effects, skip) + self.guards.get(event_name, [])
        plain = [path for path, leaf in self.fields.leaves.items() if leaf.kind not in JOINED]
        columns = [f"{self._shown(path)} AS {name(path)}" for path in plain]
        joined = {path: self._joined(path, keys) for path in self.fields.leaves if path not in plain}
        version = "max(version)" if self.model.category is not None else "count(*)"
        columns += [f"{version}::BIGINT AS _version", "max(position)::BIGINT AS _position"]
        caught = [f"(type = {quoted(e)} AND ({' OR '.join(g)}))" for e, g in self.guards.items() if g]
        if caught:
            columns.append(f"coalesce(bool_or({' OR '.join(caught)}), false) AS _bad")
        if strata:
            # The rows came in the order that the windows take for granted, or nothing of this is believed.
            columns.append("(count(*) FILTER (WHERE _first) <> 1 OR bool_or(NOT _first AND position <= _before)) AS _disorder")
        if self.resets:
            windows = ", ".join(
                f"coalesce(max(position) FILTER (WHERE {condition}) OVER (PARTITION BY {', '.join(keys)}), 0) AS {alias}"
                for condition, alias in self.resets.items()
            )
            ctes.append(f"r AS (SELECT *, {windows} FROM {source})")
            source = "r"
        if joined:
            if source != "r":
                ctes.append(f"r AS (SELECT * FROM {source})")
            return self._with_joined(ctes, joined, keys, columns, bad=bool(caught), ordered=bool(strata))
        listed = ",\n  ".join([*keys, *columns])
        sql = f"WITH {', '.join(ctes)}\nSELECT\n  {listed}\nFROM {source}\nGROUP BY {', '.join(keys)}{self._ordered(keys)}"
        return Query(sql, tuple(keys), bool(caught), bool(strata))

    def every(self, only: Collection[str] | None = None, *, told: bool = False, settled: bool = False) -> Query:
        """The state after each event, from the same windows, in the order of key and position.

        With `only`, of these fields; `told` adds when each event was recorded, and its type. `settled` leaves out what says the
        same as the row before, and of changes recorded at one time all but the last.
        """
        skip = consumed(self.fields)
        keys, key_sql, where = self.keys()
        keyed = "".join(f", {sql} AS {k}" for k, sql in zip(keys, key_sql, strict=True) if sql)
        for event_name, event in self.events.items():
            if self.scan.texts[event_name].guards(event.key_effects):
                raise NotHere(f"the key of {event_name} may raise, or is not exact, on this log", event.key_effects[0].line)
        leaves = sorted(self.fields.leaves.values(), key=lambda leaf: (leaf.level or 0, leaf.path))
        # Where every version is there, the versions say where a stream begins, and afterwards whether the order was right.
        counted = not settled and self.whole_streams and self.model.category is not None
        more, source = self.windows([leaf.path for leaf in leaves], keys, counted=counted)
        for event_name, event in self.events.items():
            self.guards[event_name] = self.scan.texts[event_name].guards(event.effects, skip) + self.guards.get(event_name, [])
        if settled and self.whole_streams and self.model.category is not None and only is not None:
            moving = ", ".join(map(quoted, sorted(self._moving(only)))) or "NULL"
            where = f"{where} AND (version = 1 OR type IN ({moving}))" if where else f" WHERE version = 1 OR type IN ({moving})"
        ctes = [f"e AS (\n  SELECT *{keyed}\n  FROM ({self.scan.sql}){where}\n)"]
        columns = []
        for leaf in leaves:
            state, post = self.analysis.leaves[leaf.path], self.posts[leaf.path]
            if only is not None and state.field not in only:
                continue
            reach = self.reach[leaf.path]
            if state.type.whole and not (INT64[0] <= reach[0] and reach[1] <= INT64[1]):
                post = f"({post})::DECIMAL(38, 0)"
            columns.append(f"{post} AS {name(leaf.path)}")
        number = f"row_number() OVER (PARTITION BY {', '.join(keys)} ORDER BY position)"
        columns += [
            f"{'version' if self.model.category is not None else number}::BIGINT AS _version",
            "position::BIGINT AS _position",
        ]
        if told:
            columns += ["m_recorded_at AS _recorded_at", "type AS _type"]
        caught = [f"(type = {quoted(e)} AND ({' OR '.join(g)}))" for e, g in self.guards.items() if g]
        columns.append(f"coalesce({' OR '.join(caught) or 'false'}, false) AS _bad")
        if not counted:
            columns.append("coalesce(NOT _first AND position <= _before, false) AS _disorder")
        order = ", ".join([*(f"{k} NULLS LAST" for k in keys), f"{source}.position"])
        listed = ",\n  ".join([*keys, *columns])
        sorted_by = "" if self.part or counted else f"\nORDER BY {order}"
        if settled:
            shown = [leaf.path for leaf in leaves if only is None or self.analysis.leaves[leaf.path].field in only]
            ctes += more
            select = self._settled(f"SELECT\n  {listed}\nFROM {source}", keys, shown, ctes)
            sorted_by = sorted_by.replace(f"{source}.position", "_position")
            return Query(f"WITH {', '.join(ctes)}\n{select}{sorted_by}", tuple(keys), True, True)
        sql = f"WITH {', '.join([*ctes, *more])}\nSELECT\n  {listed}\nFROM {source}{sorted_by}"
        return Query(sql, tuple(keys), True, not counted, counted)

    def _settled(self, rows: str, keys: Sequence[str], paths: Sequence[str], ctes: list[str]) -> str:
        """Of every version those with which an interval begins, and when it ends.

        First those that change something, then of these the last of each time, then those that still do. Rows of keys that a
        guard caught come along, and so do those that hold what the table would refuse.
        """
        unfit = [text for path in paths if (text := self._unfit(path))]
        bad = " OR ".join(["_bad", "_disorder", *unfit])
        on = " AND ".join(f"{k} IS NOT DISTINCT FROM lead({k}) OVER ()" for k in keys)
        gone = f"coalesce(lead(_recorded_at) OVER () = _recorded_at AND {on}, false)"
        kept = "_bad OR _disorder"
        differs = [f"{k} IS DISTINCT FROM lag({k}) OVER ()" for k in keys]
        differs += [f"{name(path)} IS DISTINCT FROM lag({name(path)}) OVER ()" for path in paths]
        first = "row_number() OVER () = 1" if self.model.category is None else "false"
        ctes += [
            f"v AS ({rows})",
            f"d AS (SELECT * REPLACE ({bad} AS _bad), {first} OR {' OR '.join(differs)} AS _moves FROM v)",
            f"s AS (SELECT *, {gone} AS _gone FROM d WHERE _moves OR {kept})",
            f"g AS (SELECT * REPLACE ({first} OR {' OR '.join(differs)} AS _moves) FROM s WHERE NOT _gone OR {kept})",
            f"b AS (SELECT * FROM g WHERE _moves OR {kept})",
        ]
        return f"SELECT * EXCLUDE (_gone, _moves), CASE WHEN {on} THEN lead(_recorded_at) OVER () END AS _to FROM b"

    def _moving(self, only: Collection[str]) -> set[str]:
        """The events that may change some fields, or what these are made of, or that a guard may catch."""
        events = {event for event, guards in self.guards.items() if guards}
        needed = {path for path in self.fields.leaves if self.analysis.leaves[path].field in only}
        for event in events:
            for effect in self.events[event].effects:
                needed |= frozenset().union(*(c.reads for c, _ in effect.path))
                needed |= frozenset() if effect.node is None else effect.node.reads
        waiting = list(needed)
        while waiting:
            leaf = self.fields.leaves[waiting.pop()]
            nodes = [n for c in leaf.cases for n in (*c.operands, *([] if c.guard is None else [c.guard]))]
            more = leaf.reads.union(*(n.reads for n in nodes))
            waiting += more - needed
            needed |= more
        return events | {case.event for path in needed for case in self.fields.leaves[path].cases}

    def _unfit(self, path: str) -> str:
        """When a value is not what the table takes; what never is, is left out."""
        leaf, column = self.analysis.leaves[path], name(path)
        kind = leaf.slot.kind
        assert kind is not None
        found = [] if kind.nullable else [f"{column} IS NULL"]
        if isinstance(kind, Closed):
            found.append(f"{column} NOT IN ({', '.join(quoted(v) if isinstance(v, str) else str(v) for v in kind.members)})")
        elif kind.tag == "f64" and kind.declared.startswith("float"):
            found.append(f"NOT isfinite({column})")
        elif matched := DEC_TAG.fullmatch(kind.tag):
            least = 10 ** (int(matched[1]) + leaf.type.scale - int(matched[2]))
            low, high = self.reach[path]
            found += [] if -least < low and high < least else [f"abs({column}) >= {least}"]
            found += [f"{column} % {10 ** (leaf.type.scale - int(matched[2]))} <> 0"] if leaf.type.scale > int(matched[2]) else []
        elif leaf.type.whole and not (INT64[0] <= self.reach[path][0] and self.reach[path][1] <= INT64[1]):
            found.append(f"{column} NOT BETWEEN {INT64[0]} AND {INT64[1]}")
        return f"coalesce({' OR '.join(found)}, false)" if found else ""

    def _ordered(self, keys: Sequence[str], of: str = "") -> str:
        return "" if self.part else f"\nORDER BY {', '.join(f'{of}{k} NULLS LAST' for k in keys)}"

    def _strata(self) -> list[str]:
        """The leaves that windows run for: those that others read, and then also those that are set back, by the same order."""
        read = read_state(self.analysis, self.fields)
        if not read:
            return []
        more = [p for p, leaf in self.fields.leaves.items() if leaf.kind == "SEGSUM" and leaf.level is not None and p not in read]
        return sorted([*read, *more], key=lambda p: (self.fields.leaves[p].level or 0, p))

    # -- mappings, and sets from which something is taken

    def _joined(self, path: str, keys: Sequence[str]) -> str:
        """A fold by key and item, and its items gathered by key."""
        leaf, state = self.fields.leaves[path], self.analysis.leaves[path]
        cases = tuple(c for c in leaf.cases if c.event in self.scan.texts)
        resets = [c for c in cases if c.form == "assign"]
        others = [c for c in cases if c.form != "assign"]
        item = state.type.item
        assert item is not None
        if not others:
            return ""
        after = ""
        if resets:
            after = f" AND position > {self.resets.setdefault(self.any_of(resets), f'reset{len(self.resets)}')}"
        by = ", ".join(keys)
        of = [Case(c.event, c.guard, c.form, (self._entry(c),), c.line) for c in others]
        if any(c.operands[0].type.opt for c in of):
            raise NotHere("an item may be None", others[0].line)
        entry = self.value(of, item if state.type.name == "set" else STR)
        puts = [c for c in others if c.form in ("mapset", "setadd", "mapadd")]
        kept = f"CASE WHEN {self.any_of(puts)} THEN true ELSE false END" if puts else "false"
        where = f"WHERE ({self.any_of(others)}){after}"
        if state.type.name == "set":
            inner = f"SELECT {by}, {entry} AS item, arg_max({kept}, position) AS kept FROM r {where} GROUP BY ALL"
            return f"SELECT {by}, list(item ORDER BY item) AS found FROM ({inner}) WHERE kept GROUP BY {by}"
        held = [Case(c.event, c.guard, "add" if c.form == "mapadd" else "assign", (c.operands[1],), c.line) for c in puts]
        zero = StateLeaf(state.slot, state.field, item, 0)
        if leaf.kind.endswith("MAPSUM"):
            value = self._sum(held, zero, "0", "")
        else:
            value = f"arg_max_null({self.value(held, item)}, position) FILTER (WHERE {self.any_of(puts)})" if held else "NULL"
            if item.whole:
                low, high = self._reach("", tuple(held), zero)
                value = f"({value})::{'BIGINT' if INT64[0] <= low and high <= INT64[1] else 'DECIMAL(38, 0)'}"
        inner = (
            f"SELECT {by}, {entry} AS item, arg_max({kept}, position) AS kept, {value} AS held FROM r {where} GROUP BY {by}, item"
        )
        return f"SELECT {by}, list({{'key': item, 'value': held}} ORDER BY item) AS found FROM ({inner}) WHERE kept GROUP BY {by}"

    def _entry(self, case: Case) -> Node:
        return case.operands[0].args[0] if case.form in ("setadd", "setsub") else case.operands[0]

    def _with_joined(
        self, ctes: list[str], joined: Mapping[str, str], keys: Sequence[str], columns: Sequence[str], *, bad: bool,
        ordered: bool,
    ) -> Query:  # fmt: skip
        """The grouped fold and the folds by item side by side."""
        listed = ",\n  ".join([*keys, *columns])
        ctes = [*ctes, f"g AS (SELECT\n  {listed}\nFROM r\nGROUP BY {', '.join(keys)})"]
        shown, joins = [], []
        for number, (path, select) in enumerate(joined.items()):
            if not select:
                shown.append(f"[] AS {name(path)}")
                continue
            ctes.append(f"m{number} AS ({select})")
            on = " AND ".join(f"g.{k} IS NOT DISTINCT FROM m{number}.{k}" for k in keys)
            joins.append(f"LEFT JOIN m{number} ON {on}")
            shown.append(f"coalesce(m{number}.found, []) AS {name(path)}")
        sql = f"WITH {', '.join(ctes)}\nSELECT g.*, {', '.join(shown)}\nFROM g {' '.join(joins)}{self._ordered(keys, 'g.')}"
        return Query(sql, tuple(keys), bad, ordered)

    # -- strata

    def windows(self, strata: Sequence[str], keys: Sequence[str], *, counted: bool = False) -> tuple[list[str], str]:
        """Steps that add, row by row, the value that each of these leaves has before the event.

        The rows are in the order of key and position; a window over all of them streams, where one by key does not. With
        `counted` those of a key have the versions 1, 2, 3, …
        """
        order = ", ".join([*keys, "position"])
        # No stream is NULL, and so the first row differs from what is before it; the keys of projections may be.
        differs = " OR ".join(f"{k} IS DISTINCT FROM lag({k}) OVER ()" for k in keys)
        if self.model.category is None:
            differs = f"row_number() OVER () = 1 OR {differs}"
        begins = "version = 1 AS _first" if counted else f"{differs} AS _first, lag(position) OVER () AS _before"
        ctes = [
            # Files sorted by stream are read in their order; whether they were is looked at in the end.
            f"o AS (SELECT * FROM e{'' if self.scan.by_stream else f' ORDER BY {order}'})",
            f"f AS (SELECT *, {begins} FROM o)",
        ]
        source = "f"
        for number, path in enumerate(strata):
            steps = self._running(path, number, keys)
            for i, step in enumerate(steps):
                made = f"w{number}_{i}"
                ctes.append(f"{made} AS (SELECT *, {step} FROM {source})")
                source = made
            for event_name, text in self.scan.texts.items():
                names: dict[tuple[str, str], str] = text.names  # type: ignore[assignment]
                limits: dict[tuple[str, str], Any] = text.limits  # type: ignore[assignment]
                names["state", path] = self._before(path, number, event_name)
                limits["state", path] = self.reach[path]
        return ctes, source

    def _before(self, path: str, number: int, event_name: str) -> str:
        """The value that a leaf has before an event of a type: that after it, where such an event does nothing to it, or only
        adds; else that after the row before, by one window more.
        """
        forms = {case.form for case in self.fields.leaves[path].cases if case.event == event_name}
        if not forms:
            return self.posts[path]
        kind = KINDS[frozenset(c.form for c in self.fields.leaves[path].cases if c.event in self.scan.texts)]
        if kind in ("SUM", "SEGSUM") and forms == {"add"}:
            return f"(post{number} - add{number})"
        return f"pre{number}"

    def _running(self, path: str, number: int, keys: Sequence[str]) -> list[str]:
        """Window expressions, one step after the other, the last of which is the value before the event."""
        leaf, state = self.fields.leaves[path], self.analysis.leaves[path]
        initial = Text({}, {}).constant(state.initial, state.type)
        cases = tuple(c for c in leaf.cases if c.event in self.scan.texts)
        kind = KINDS[frozenset(c.form for c in cases)]
        if kind not in STREAMED:
            raise NotHere(f"{kind.lower()} is not a running aggregate, and other fields read it", cases[0].line)
        self.reach[path] = self._reach(kind, cases, state)
        self.posts[path] = f"post{number}"
        if kind == "CONST" or (kind == "FIRST" and state.initial is not None):
            self.posts[path] = f"pre{number}"
            return [f"{initial} AS pre{number}"]
        pre = f"CASE WHEN _first THEN {initial} ELSE lag(post{number}) OVER () END AS pre{number}"
        if kind == "LAST":
            return [*self._running_last(cases, state, initial, number), pre]
        if kind == "FIRST":
            return [*self._running_first(cases, state, number), pre]
        if kind in ("MAX", "MIN"):
            return [*self._running_most(kind, cases, state, initial, number, keys), pre]
        resets = [c for c in cases if c.form == "assign"]
        added = [c for c in cases if c.form == "add"]
        if state.initial is None or any(c.operands[0].type.opt for c in resets):
            raise NotHere("a sum that begins at None, or is set back to it", cases[0].line)
        addend = f"coalesce({self.value(added, state.type, self._addends(added, state))}, 0)"
        arms = [f"WHEN {self.when(c)} THEN sum{number} - ({self.operand(c, state.type)})" for c in resets]
        base = f"CASE {' '.join(arms)} WHEN _first THEN sum{number} - add{number} - ({initial}) END"
        kind_of = "BIGINT" if INT64[0] <= self.reach[path][0] and self.reach[path][1] <= INT64[1] else "HUGEINT"
        return [
            f"{addend} AS add{number}",
            # What all keys add up to stays within the same bounds, for they count every row.
            f"(sum(add{number}) OVER {_STREAMING})::{kind_of} AS sum{number}",
            f"(sum{number} - last_value({base} IGNORE NULLS) OVER {_STREAMING})::{kind_of} AS post{number}",
            pre,
        ]

    def _running_last(self, cases: Sequence[Case], state: StateLeaf, initial: str, number: int) -> list[str]:
        """The last value since the key began; one that may be NULL lies in a box, for NULLs are passed over."""
        box, value = ("{'v': ", "}") if self._nullable(cases, state) else ("", "")
        arms = " ".join(f"WHEN {self.when(c)} THEN {box}{self.operand(c, state.type)}{value}" for c in cases)
        last = f"last_value(CASE {arms} WHEN _first THEN {box}{initial}{value} END IGNORE NULLS) OVER {_STREAMING}"
        return [f"{last} AS box{number}", f"box{number}.v AS post{number}"] if box else [f"{last} AS post{number}"]

    def _running_first(self, cases: Sequence[Case], state: StateLeaf, number: int) -> list[str]:
        """The first value since the key began: that of the row at which the count of values becomes one."""
        own, many = f"own{number}", f"many{number}"
        begun = f"CASE WHEN _first THEN {many} - ({own} IS NOT NULL)::BIGINT END"
        first = f"WHEN {own} IS NOT NULL AND {many} = ago{number} + 1 THEN {{'v': {own}}} WHEN _first THEN {{'v': NULL}}"
        return [
            f"{self.value(cases, state.type)} AS {own}",
            f"count({own}) OVER {_STREAMING} AS {many}",
            f"last_value({begun} IGNORE NULLS) OVER {_STREAMING} AS ago{number}",
            f"last_value(CASE {first} END IGNORE NULLS) OVER {_STREAMING} AS box{number}",
            f"box{number}.v AS post{number}",
        ]

    def _running_most(
        self, kind: str, cases: Sequence[Case], state: StateLeaf, initial: str, number: int, keys: Sequence[str]
    ) -> list[str]:  # fmt: skip
        """The greatest or least value since the key began.

        A greatest value cannot be taken back. So that a window over everything gives it by key, the key's number stands above
        the value in one integer, and passes every value of the keys before.
        """
        value = self.value(cases, state.type)
        if state.type.whole:
            low, high = self.reach[state.slot.path]
            span = high - low + 2
            limit = span * (self.scan.count + 2)
            if limit < HUGE:
                wide = "BIGINT" if limit < INT64[1] else "HUGEINT"
                up = f"({value})::{wide} - ({low - 1})" if kind == "MAX" else f"({high + 1}) - ({value})::{wide}"
                first = 0 if state.initial is None else state.initial - (low - 1) if kind == "MAX" else high + 1 - state.initial
                back = f"rank{number} % {span}"
                post = f"({back} + ({low - 1}))" if kind == "MAX" else f"(({high + 1}) - {back})"
                # A rank that is 0 is no value: nothing was there yet.
                ranked = f"(sum(_first::BIGINT) OVER {_STREAMING})::{wide} * {span}"
                # What a guard has caught may lie anywhere: it must not reach the keys that follow.
                kept = f"least(greatest(coalesce({up}, {first}), {first}), {span - 1})"
                shown = f"CASE WHEN {back} <> 0 THEN {post} END" if state.initial is None else post
                kind_of = "BIGINT" if INT64[0] <= low and high <= INT64[1] else "HUGEINT"
                return [
                    f"{ranked} + {kept} AS own{number}",
                    f"max(own{number}) OVER {_STREAMING} AS rank{number}",
                    f"({shown})::{kind_of} AS post{number}",
                ]
        within = f"OVER (PARTITION BY {', '.join(keys)} ORDER BY position ROWS UNBOUNDED PRECEDING)"
        function = "greatest" if kind == "MAX" else "least"
        best = f"{kind.lower()}({value}) {within}"
        post = best if state.initial is None else f"{function}({initial}, coalesce({best}, {initial}))"
        return [f"{post} AS post{number}"]

    def _nullable(self, cases: Sequence[Case], state: StateLeaf) -> bool:
        if state.initial is None or (state.slot.type.opt and "." in state.slot.path):
            return True
        return any(c.operands[-1].type.opt for c in cases)

    def _reach(self, kind: str, cases: Sequence[Case], state: StateLeaf) -> Any:
        """Bounds of a leaf's values at any event."""
        if not state.type.whole:
            return None
        first = state.initial if state.initial is not None else 0
        low = high = first
        for case in cases:
            bounds = self.scan.texts[case.event].bounds(case.operands[-1])
            if bounds is None and not (case.operands[-1].fixed and case.operands[-1].value is None):
                raise NotHere("the size of a value is not known", case.line)
            if bounds is not None and case.form != "add":
                low, high = min(low, bounds[0]), max(high, bounds[1])
        sums = [c for c in cases if c.form == "add"]
        if sums:
            most = min(self._most(state), max(max(map(abs, self.scan.texts[c.event].bounds(c.operands[-1]))) for c in sums))
            low, high = low - most * self.scan.count, high + most * self.scan.count
        return low, high

    def keys(self) -> tuple[list[str], list[str], str]:
        """The names of the key's columns, their SQL (empty where the scan has them), and the WHERE of projections."""
        first, sql = (["_tenant"], [""]) if self.tenant is ALL else ([], [])
        if self.model.category is not None:
            return [*first, "_stream"], [*sql, "stream"], ""
        names = [f"_k{i}" for i in range(len(self.model.key_fields))]
        for i in range(len(names)):
            arms = []
            for event_name, event in self.events.items():
                arms.append(f"WHEN {quoted(event_name)} THEN {self.scan.texts[event_name].text(event.key[i])}")
            sql.append(f"CASE type {' '.join(arms)} END")
        present = []
        for event_name, event in self.events.items():
            if event.key_present is not None:
                here = self.scan.texts[event_name].text(event.key_present)
                present.append(f"(type <> {quoted(event_name)} OR {here})")
        return [*first, *names], sql, f"\n  WHERE {' AND '.join(present)}" if present else ""

    # -- leaves

    def _shown(self, path: str) -> str:
        """The aggregate of one leaf in a type that Arrow has."""
        found, state = self.leaf(path), self.analysis.leaves[path]
        if self._by_windows(path) and state.type.whole:
            low, high = self.reach[path]
            return found if INT64[0] <= low and high <= INT64[1] else f"({found})::DECIMAL(38, 0)"
        if not state.type.whole or self.fields.leaves[path].kind in ("SUM", "SEGSUM"):
            return found
        low, high = self._reach("", tuple(c for c in self.fields.leaves[path].cases if c.event in self.scan.texts), state)
        return found if INT64[0] <= low and high <= INT64[1] else f"({found})::DECIMAL(38, 0)"

    def _by_windows(self, path: str) -> bool:
        """Whether a leaf's last value is the last of its running values."""
        return path in self.posts and self.fields.leaves[path].kind in ("LAST", "SEGSUM")

    def leaf(self, path: str) -> str:
        """The aggregate of one leaf."""
        leaf, state = self.fields.leaves[path], self.analysis.leaves[path]
        if self._by_windows(path):
            return f"arg_max{'_null' if self._nullable(leaf.cases, state) else ''}({self.posts[path]}, position)"
        initial = Text({}, {}).constant(state.initial, state.type)
        # Types that are not in the log change nothing.
        cases = tuple(c for c in leaf.cases if c.event in self.scan.texts)
        leaf = replace(leaf, cases=cases, kind=KINDS[frozenset(c.form for c in cases)])
        kind = leaf.kind
        if kind == "CONST":
            return initial if self.analysis.leaves[path].initial is not None else f"NULL::{duck_type(state.type)}"
        if kind in _RESET:
            return self._since_reset(leaf, state, initial)
        return self._plain(kind, cases, state, initial)

    def _plain(self, kind: str, cases: Sequence[Case], state: StateLeaf, initial: str, more: str = "") -> str:
        if kind == "LAST":
            return self._last(cases, state, initial, more)
        if kind == "FIRST":
            if state.initial is not None:
                return initial
            return f"arg_min({self.value(cases, state.type)}, position){self._filter('', more)}"
        if kind in ("MAX", "MIN"):
            best = f"{kind.lower()}({self.value(cases, state.type)}){self._filter('', more)}"
            function = "greatest" if kind == "MAX" else "least"
            return best if state.initial is None else f"{function}({initial}, coalesce({best}, {initial}))"
        if kind == "SUM":
            return self._sum(cases, state, initial, more)
        if kind == "FSUM":
            if state.initial != 0:
                raise NotHere("a float sum that does not begin at 0.0", cases[0].line)
            return f"coalesce(sum({self.value(cases, state.type)} ORDER BY position){self._filter('', more)}, 0.0::DOUBLE)"
        if kind == "LIST":
            return self._list(cases, state, initial, more)
        return self._set(cases, state, initial, more)

    def when(self, case: Case) -> str:
        """The condition of a case."""
        here = f"type = {quoted(case.event)}"
        return here if case.guard is None else f"{here} AND {self.scan.texts[case.event].text(case.guard)}"

    def any_of(self, cases: Sequence[Case]) -> str:
        return " OR ".join(f"({self.when(c)})" for c in cases) if len(cases) > 1 else self.when(cases[0])

    def value(self, cases: Sequence[Case], kind: Type, texts: Sequence[str] | None = None) -> str:
        """The operand of whichever case an event is."""
        found = texts if texts is not None else [self.operand(c, kind) for c in cases]
        arms = " ".join(f"WHEN {self.when(c)} THEN {text}" for c, text in zip(cases, found, strict=True))
        return f"CASE {arms} END"

    def operand(self, case: Case, kind: Type, at: int = -1) -> str:
        """An operand as SQL of the leaf's type."""
        text, node = self.scan.texts[case.event], case.operands[at]
        if node.fixed and node.value is None:
            return f"NULL::{duck_type(kind)}"
        found = text.text(node)
        if node.type.whole:
            bounds = text.bounds(node)
            if bounds is None or not (bounds[0] > -HUGE and bounds[1] < HUGE):
                raise NotHere("the size of a value is not known", case.line)
            return f"({found})::{'BIGINT' if INT64[0] <= bounds[0] and bounds[1] <= INT64[1] else 'HUGEINT'}"
        return found

    def _filter(self, condition: str, more: str) -> str:
        both = " AND ".join(f"({c})" for c in (condition, more) if c)
        return f" FILTER (WHERE {both})" if both else ""

    def _last(self, cases: Sequence[Case], state: StateLeaf, initial: str, more: str) -> str:
        value = self.value(cases, state.type)
        nullable = any(c.operands[-1].type.opt for c in cases) or (state.slot.type.opt and "." in state.slot.path)
        if not nullable:
            best = f"arg_max({value}, position){self._filter('', more)}"
            return best if state.initial is None else f"coalesce({best}, {initial})"
        where = self._filter(self.any_of(cases), more)
        best = f"arg_max_null({value}, position){where}"
        return best if state.initial is None else f"CASE WHEN count(*){where} > 0 THEN {best} ELSE {initial} END"

    def _sum(self, cases: Sequence[Case], state: StateLeaf, initial: str, more: str) -> str:
        if all(c.operands[0].fixed and c.operands[0].value == 1 for c in cases) and self.scan.count < 2**53:
            return f"count(*){self._filter(self.any_of(cases), more)} + {initial}"
        texts = self._addends(cases, state)
        found = f"coalesce(sum({self.value(cases, state.type, texts)}){self._filter('', more)}, 0) + {initial}"
        low, high = self._reach("SUM", cases, state)
        # What DuckDB gives for a sum is 128 bits wide; Arrow takes 64, or decimals.
        return f"({found})::{'BIGINT' if INT64[0] <= low and high <= INT64[1] else 'DECIMAL(38, 0)'}"

    def _most(self, state: StateLeaf) -> int:
        """No partial sum can pass what is exact when no addend passes this."""
        limit = DEC_LIMIT if state.type.name == "dec" else HUGE
        return int((limit - 1 - abs(state.initial)) // (2 * (self.scan.count + 1)))

    def _addends(self, cases: Sequence[Case], state: StateLeaf) -> list[str]:
        """Addends as SQL; one beyond what may be added sends its key to the row fold."""
        most, texts = self._most(state), []
        for case in cases:
            found = self.operand(case, state.type)
            low, high = self.scan.texts[case.event].bounds(case.operands[-1])
            if max(-low, high) > most:
                here = "true" if case.guard is None else self.scan.texts[case.event].text(case.guard)
                guard = f"({here} AND NOT ({found}) BETWEEN {-most} AND {most})"
                if guard not in self.guards.setdefault(case.event, []):
                    self.guards[case.event].append(guard)
                found = f"CASE WHEN {found} BETWEEN {-most} AND {most} THEN {found} END"
            texts.append(found)
        return texts

    def _list(self, cases: Sequence[Case], state: StateLeaf, initial: str, more: str) -> str:
        item = state.type.item
        if item is None:
            raise NotHere("the items of a list are not known", cases[0].line)
        where = self._filter(self.any_of(cases), more)
        single = all(c.operands[0].op == "list.of" and len(c.operands[0].args) == 1 for c in cases)
        if single:
            texts = [self._item(c, c.operands[0].args[0], item) for c in cases]
            found = f"list({self.value(cases, item, texts)} ORDER BY position){where}"
        else:
            found = f"flatten(list({self.value(cases, state.type)} ORDER BY position){where})"
        empty = f"[]::{duck_type(state.type)}"
        found = f"coalesce({found}, {empty})"
        return found if not state.initial else f"list_concat({initial}, {found})"

    def _item(self, case: Case, node: Node, item: Type) -> str:
        return self.operand(Case(case.event, case.guard, case.form, (node,), case.line), item)

    def _set(self, cases: Sequence[Case], state: StateLeaf, initial: str, more: str) -> str:
        item = state.type.item
        single = all(c.operands[0].op == "set.of" and len(c.operands[0].args) == 1 for c in cases)
        if (
            item is None
            or not single
            or item.name not in ("str", "int", "enum", "date", "ts", "dec", "dur", "bytes", "uuid")
            or item.opt
        ):
            raise NotHere("only one item at a time is put in a set in SQL", cases[0].line)
        if any(c.operands[0].args[0].type.opt for c in cases):
            raise NotHere("an item of a set may be None", cases[0].line)
        texts = [self._item(c, c.operands[0].args[0], item) for c in cases]
        where = self._filter(self.any_of(cases), more)
        found = f"coalesce(list(DISTINCT {self.value(cases, item, texts)}){where}, []::{duck_type(state.type)})"
        return found if not state.initial else f"list_distinct(list_concat({initial}, {found}))"

    def _since_reset(self, leaf: LeafKind, state: StateLeaf, initial: str) -> str:
        """The value at the last reset, and what came after it."""
        form = _RESET[leaf.kind]
        resets = [c for c in leaf.cases if c.form == "assign"]
        others = [c for c in leaf.cases if c.form == form]
        alias = self.resets.setdefault(self.any_of(resets), f"reset{len(self.resets)}")
        if any(c.operands[0].type.opt for c in resets) or state.initial is None:
            raise NotHere("a reset to None", resets[0].line)
        base = self._last(resets, state, initial, "")
        after = f"position > {alias}"
        if form == "add":
            zero = StateLeaf(state.slot, state.field, state.type, 0)
            most = max((max(abs(b) for b in self.scan.texts[c.event].bounds(c.operands[0])) for c in resets), default=0)
            if most * 2 > (DEC_LIMIT if state.type.name == "dec" else HUGE):
                raise NotHere("a reset to a value beyond what is exact", resets[0].line)
            # Room for the value at the reset: the addends stay within half of the limit.
            low, high = self._reach("SEGSUM", leaf.cases, state)
            kind = "BIGINT" if INT64[0] <= low and high <= INT64[1] else "DECIMAL(38, 0)"
            return f"(({base})::{kind} + ({self._sum(others, zero, '0', after)})::{kind})::{kind}"
        if form in ("max", "min"):
            function = "greatest" if form == "max" else "least"
            best = f"{form}({self.value(others, state.type)}) FILTER (WHERE {after})"
            return f"{function}({base}, coalesce({best}, {base}))"
        none = StateLeaf(state.slot, state.field, state.type, ())
        if form == "append":
            return f"list_concat({base}, {self._list(others, none, '', after)})"
        return f"list_distinct(list_concat({base}, {self._set(others, none, '', after)}))"


# -- from the query's result to the model's table --------------------------------------------------------------------------


def connect(worker: int | None = None) -> duckdb.DuckDBPyConnection:
    """A connection of one fold's own, to a database of this process: UTC, no progress bar; that of a worker has one thread."""
    try:
        connection = _database(os.getpid(), worker).cursor()
        connection.execute("SET TimeZone = 'UTC'")
    except duckdb.Error:
        # After an error inside it, DuckDB opens a database no more.
        _database.cache_clear()
        connection = _database(os.getpid(), worker).cursor()
        connection.execute("SET TimeZone = 'UTC'")
    connection.execute("SET enable_progress_bar = false")
    return connection


@functools.cache
def _database(process: int, worker: int | None) -> duckdb.DuckDBPyConnection:
    """An empty database, which knows the footers of files that were read: to begin anew takes as long as a small fold.

    What does not fit in memory goes to a folder of its own.
    """
    config: dict[str, Any] = {"autoinstall_known_extensions": "false", "autoload_known_extensions": "false"}
    connection = duckdb.connect(":memory:", config=config if worker is None else {**config, "threads": "1"})
    connection.execute("SET GLOBAL parquet_metadata_cache = true")
    # A segment is read once: what is kept of its pages would only take memory, beside the system's own cache.
    connection.execute("SET GLOBAL enable_external_file_cache = false")
    folder = os.path.join(tempfile.gettempdir(), f"eventlab-{secrets.token_hex(8)}")
    connection.execute(f"SET temp_directory = {quoted(folder)}")
    return connection


def table_of_query(
    model: Model, leaves: Mapping[str, StateLeaf], found: pa.Table, tenant: Tenant, but: Collection[str] = ()
) -> pa.Table:
    """The query's result as the model's table, but for some fields, or `Abandoned` where a value does not fit its type."""
    arrays: dict[str, pa.Array] = {}
    if tenant is ALL:
        arrays["_tenant"] = found.column("_tenant").combine_chunks()
    if model.category is not None:
        streams, skip = found.column("_stream").combine_chunks(), len(model.category) + 1
        if pa.types.is_dictionary(streams.type):
            ids = pc.utf8_slice_codeunits(streams.dictionary, skip)
            arrays["_id"] = pa.DictionaryArray.from_arrays(streams.indices, ids)
        else:
            arrays["_id"] = pc.utf8_slice_codeunits(streams, skip)
    else:
        for i, (key, kind) in enumerate(model.key_fields):
            arrays[key] = converted(kind, type_of(kind), found.column(f"_k{i}").combine_chunks())
    types = {path: leaf.type for path, leaf in leaves.items()}
    for field, kind in model.fields:
        if field not in but:
            arrays[field] = _field(kind, field, types, found)
    arrays["_version"] = found.column("_version").combine_chunks()
    arrays["_position"] = found.column("_position").combine_chunks()
    table = dressed(model, arrays, tenant, is_sorted=True)
    if "_recorded_at" in found.column_names:
        when = found.column("_recorded_at").combine_chunks().cast(pa.int64()).view(pa.timestamp("us", "UTC"))
        table = table.append_column("_recorded_at", when).append_column("_type", found.column("_type").combine_chunks())
    if "_to" in found.column_names:
        end = found.column("_to").combine_chunks().cast(pa.int64()).view(pa.timestamp("us", "UTC"))
        table = table.append_column("_to", end)
    return table


def _field(kind: FieldType, path: str, types: Mapping[str, Type], found: pa.Table) -> pa.Array:
    if not isinstance(kind, Record):
        return converted(kind, types[path], found.column(path).combine_chunks())
    return _record(kind, path, types, found, None)


def _record(kind: Record, path: str, types: Mapping[str, Type], found: pa.Table, outer: pa.Array | None) -> pa.Array:
    """A nested dataclass as one struct column; what lies in an absent one is not looked at."""
    here = found.column(f"{path}?").combine_chunks() if kind.nullable else None
    if outer is not None:
        here = outer if here is None else pc.and_(outer, here)
    children = []
    for part, of in kind.fields:
        inner = f"{path}.{part}"
        if isinstance(of, Record):
            children.append(_record(of, inner, types, found, here))
            continue
        values = found.column(inner).combine_chunks()
        if here is None:
            children.append(converted(of, types[inner], values))
        else:
            shown = pc.if_else(here, values, pa.scalar(None, values.type))
            if not of.nullable and shown.null_count > len(here) - (pc.sum(here).as_py() or 0):
                raise Abandoned("a None that is not declared")
            children.append(converted(replace(of, nullable=True), types[inner].maybe(), shown))
    arrow = codec(kind.tag).arrow
    return pa.StructArray.from_arrays(children, fields=list(arrow), mask=None if here is None else pc.invert(here))


def converted(kind: FieldType, of: Type, values: pa.Array) -> pa.Array:
    """One column of lowered values as the column of its declared type."""
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    if values.null_count and not kind.nullable:
        raise Abandoned("a None that is not declared")
    tag, arrow = kind.tag, codec(kind.tag).arrow
    if isinstance(kind, Closed) and not set(pc.unique(values).to_pylist()) <= {*kind.members, None}:
        raise Abandoned("a value that is not declared")
    if tag == "f64" and kind.declared.startswith("float") and pc.any(pc.invert(pc.is_finite(values))).as_py():
        raise Abandoned("a float that is not finite")
    if pa.types.is_dictionary(values.type) and values.type.value_type == arrow:
        return values
    if values.type == arrow and tag in ("i64", "s", "b", "f64", "td", "json", "dec", "bin"):
        return values
    if tag == "ts" and values.type == pa.int64():
        return values.view(arrow)
    if tag in ("d", "t") and values.type in (pa.int64(), pa.int32()):
        return values.cast(pa.int32() if tag == "d" else pa.int64()).view(arrow)
    if tag.startswith("d18_") and values.type == pa.int64() and of.scale == int(tag[4:]):
        return _short_decimal(values, arrow)
    if (
        tag in ("l_s", "l_i64")
        and pa.types.is_list(values.type)
        and values.type.value_type == arrow.value_type
        and of.name == "list"
        and pc.list_flatten(values).null_count == 0
    ):
        return values.cast(arrow)
    return _array(kind, of, [_lower_again(v, of) for v in values.to_pylist()])


def _short_decimal(values: pa.Array, arrow: pa.DataType) -> pa.Array:
    """Scaled 64-bit integers as decimals, without an object a value."""
    whole = (pc.coalesce(values, pa.scalar(0, pa.int64())) if values.null_count else values).to_numpy()
    if len(whole) and (whole.max() >= 10**18 or whole.min() <= -(10**18)):
        raise Abandoned("more digits than are declared")
    words = np.empty((len(whole), 2), np.int64)
    words[:, 0] = whole
    np.right_shift(whole, 63, out=words[:, 1])
    mask = pc.is_valid(values) if values.null_count else None
    validity = None if mask is None else pa.array(mask).buffers()[1]
    return pa.Array.from_buffers(arrow, len(whole), [validity, pa.py_buffer(words)])


def _lower_again(value: Any, of: Type) -> Any:
    if value is None:
        return None
    if of.whole:
        return int(value)
    if of.item is not None and of.name == "map":
        return {entry["key"]: _lower_again(entry["value"], of.item) for entry in value}
    if of.item is not None and of.name in ("list", "set"):
        items = [_lower_again(v, of.item) for v in value]
        return tuple(items) if of.name == "list" else frozenset(items)
    return value
