"""The state after every event by scans of whole columns: SQL gives what each event does, numpy what that adds up to.

A window that runs over all rows costs DuckDB some fifty nanoseconds a row and sum; a sum over a column costs numpy two. So the
query gives, in the order of the streams, the addends and the values that are set, and the columns are summed and carried forward
here. What depends on the state before an event is asked of DuckDB in a next stage, over the columns that are there by then.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from typing import Any, Final

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from eventlab.replay.lift.analyse import StateLeaf
from eventlab.replay.lift.classify import KINDS, LeafKind
from eventlab.replay.lift.lifted import STREAMED, Lifting, Query, consumed
from eventlab.replay.lift.sql import INT64, NotHere, Text, quoted

_ROWS: Final = "rows_of_stage"
Columns = dict[str, pa.Array]
Ints = np.ndarray[Any, np.dtype[np.int64]]


class NotScanned(Exception):
    """A leaf that these scans do not give: the windows do."""


@dataclass
class _Rows:
    """The rows of streams, one stream after the other."""

    size: int
    first: np.ndarray[Any, np.dtype[np.bool_]]
    starts: Ints
    counts: Ints
    #: The number of each row's stream, from one.
    ordinal: Ints

    @classmethod
    def of(cls, columns: Columns, keys: Iterable[str]) -> _Rows:
        """By the columns of the key."""
        size = len(columns["position"])
        first = np.zeros(size, np.bool_)
        first[:1] = True
        for key in keys:
            column = columns[key]
            first[1:] |= pc.not_equal(column.slice(1), column.slice(0, max(size - 1, 0))).to_numpy(zero_copy_only=False)
        starts = np.flatnonzero(first)
        return cls(size, first, starts, np.diff(np.append(starts, size)), np.cumsum(first, dtype=np.int64))

    def carried(self, at: Ints, values: Any) -> Any:
        """At each row the value of the last mark; `values` are those at the marks, and every stream begins with one."""
        many = np.diff(np.append(at, self.size))
        if isinstance(values, np.ndarray):
            return np.repeat(values, many)
        return values.take(pa.array(np.repeat(np.arange(len(at)), many)))


@dataclass
class _Scan:
    """One leaf: what is asked of each event, and what it adds up to."""

    number: int
    #: SQL of the columns that it is made from.
    asked: dict[str, str]
    #: The column `post…` from those.
    made: Callable[[Columns, _Rows], pa.Array]
    initial: Any
    initial_sql: str
    stage: int = 0

    @property
    def pre(self) -> str:
        """SQL of the value before an event, from the column after it."""
        return f"CASE WHEN _first THEN {self.initial_sql} ELSE lag(post{self.number}) OVER () END AS pre{self.number}"


@dataclass(frozen=True)
class Program(Query):
    """A query in stages, and the scans between."""

    scans: tuple[_Scan, ...] = ()
    #: Of each stage but the first: its text, and the columns that it reads.
    stages: tuple[tuple[str, tuple[str, ...]], ...] = ()
    shown: tuple[tuple[str, str], ...] = field(default=())
    #: Whether every stream is there from its first event on, with the versions 1, 2, 3, …
    whole: bool = True

    def run(self, connection: duckdb.DuckDBPyConnection) -> pa.Table:
        """The rows, as a query by windows gives them."""
        columns = _columns(connection.sql(self.sql).to_arrow_table())
        rows = _Rows.of(columns, self.keys)
        self._scan(0, columns, rows)
        for number, (sql, read) in enumerate(self.stages, 1):
            columns["_first"] = pa.array(rows.first)
            connection.register(_ROWS, pa.table({name: columns[name] for name in read}))
            try:
                columns |= _columns(connection.sql(sql).to_arrow_table())
            finally:
                connection.unregister(_ROWS)
            self._scan(number, columns, rows)
        (key,) = self.keys
        names = columns[key].take(pa.array(rows.starts))  # each is named once
        columns["_disorder"] = pa.array(np.full(rows.size, not self._in_order(columns, rows, names)))
        columns[key] = pa.DictionaryArray.from_arrays(pa.array(rows.ordinal.astype(np.int32) - np.int32(1)), names)
        return pa.table({shown: columns[name] for shown, name in self.shown})

    def _in_order(self, columns: Columns, rows: _Rows, names: pa.Array) -> bool:
        """Whether the rows of a stream follow on one another in their order: nothing of this is to be believed otherwise."""
        if self.whole:
            versions = columns["version"].to_numpy()
            return bool((versions[rows.starts] == 1).all() and (rows.first[1:] | (np.diff(versions) == 1)).all())
        ascending = rows.first[1:] | (np.diff(columns["position"].to_numpy()) > 0)
        return bool(ascending.all()) and pc.count_distinct(names).as_py() == len(names)

    def _scan(self, stage: int, columns: Columns, rows: _Rows) -> None:
        for scan in self.scans:
            if scan.stage == stage:
                columns[f"post{scan.number}"] = scan.made(columns, rows)
                for name in scan.asked:
                    del columns[name]


def _columns(table: pa.Table) -> Columns:
    return {name: table.column(name).combine_chunks() for name in table.column_names}


class Running(Lifting):
    """Writes the program of every version of an aggregate."""

    def program(self, only: Collection[str] | None, *, told: bool) -> Program:
        """The state after each event, by scans; `NotScanned` where a leaf needs windows."""
        skip = consumed(self.fields)
        keys, key_sql, where = self.keys()
        if self.model.category is None or where or "_tenant" in keys:
            raise NotScanned
        leaves = sorted(self.fields.leaves.values(), key=lambda leaf: (leaf.level or 0, leaf.path))
        scans: dict[int, _Scan] = {}
        for number, leaf in enumerate(leaves):
            state = self.analysis.leaves[leaf.path]
            scan = scans[number] = self._scan_of(leaf, state, number)
            scan.stage = self._stage(" ".join(scan.asked.values()), scans)
            for text in self.scan.texts.values():
                text.names["state", leaf.path] = f"pre{number}"  # type: ignore[index]
                text.limits["state", leaf.path] = self.reach[leaf.path]  # type: ignore[index]
        caught = []
        for name, event in self.events.items():
            found = self.scan.texts[name].guards(event.effects, skip) + self.guards.get(name, [])
            caught += [f"(type = {quoted(name)} AND ({' OR '.join(found)}))"] if found else []
        shown = {leaf.path: number for number, leaf in enumerate(leaves) if only is None or self._field(leaf) in only}
        bad = f"coalesce({' OR '.join(caught)}, false)"
        wanted = self._needed({*shown.values(), *_pres(bad if caught else "")}, scans)
        stages = 1 + max([*(scans[n].stage for n in wanted), self._stage(bad, scans) if caught else 0])
        asked = [[f"{sql} AS {name}" for n in wanted if scans[n].stage == s for name, sql in scans[n].asked.items()]
                 for s in range(stages)]  # fmt: skip
        if caught:
            asked[self._stage(bad, scans)].append(f"{bad} AS _bad")
        columns = [(key, key) for key in keys] + [(path, f"post{n}") for path, n in shown.items()]
        columns += [("_version", "version"), ("_position", "position"), ("_disorder", "_disorder")]
        columns += [("_recorded_at", "m_recorded_at"), ("_type", "type")] if told else []
        columns += [("_bad", "_bad")] if caught else []
        first, later = self._texts(asked, {n: scans[n] for n in wanted}, keys, key_sql, told=told)
        scanned, whole = tuple(scans[n] for n in wanted), self.whole_streams
        return Program(first, tuple(keys), bool(caught), True, False, scanned, tuple(later), tuple(columns), whole)

    def _field(self, leaf: LeafKind) -> str:
        return self.analysis.leaves[leaf.path].field

    def _stage(self, text: str, scans: dict[int, _Scan]) -> int:
        """The stage at which an expression can be computed."""
        return max((scans[number].stage + 1 for number in _pres(text)), default=0)

    def _needed(self, wanted: set[int], scans: dict[int, _Scan]) -> list[int]:
        """These leaves, and all that they are computed from."""
        while more := {n for number in wanted for sql in scans[number].asked.values() for n in _pres(sql)} - wanted:
            wanted |= more
        return sorted(wanted)

    def _texts(
        self, asked: list[list[str]], scans: dict[int, _Scan], keys: list[str], key_sql: list[str], *, told: bool
    ) -> tuple[str, list[tuple[str, tuple[str, ...]]]]:
        """The SQL of the first stage and of the others, which know the type of an event by a truth value."""
        kinds = {f"_is{number}": f"type = {quoted(name)}" for number, name in enumerate(self.events)}
        later, read_later = [], set[str]()
        for items in asked[1:]:
            text = ",\n  ".join(items)
            for alias, condition in kinds.items():
                text = text.replace(condition, alias)
            pres = [scans[number] for number in sorted(_pres(text))]
            words = set(re.findall(r"\w+", _without_text(text)))
            read = (words - {f"pre{s.number}" for s in pres}) | {f"post{s.number}" for s in pres}
            source = f"SELECT *, {', '.join(s.pre for s in pres)} FROM {_ROWS}" if pres else f"FROM {_ROWS}"
            later.append((f"SELECT\n  {text}\nFROM ({source})", read | {"_first"}))
            read_later |= read
        columns = self._scanned() | set(kinds)
        carried = sorted((read_later | ({"m_recorded_at", "type"} if told else set())) & columns | {"position", "version"})
        items = [f"{sql} AS {key}" for key, sql in zip(keys, key_sql, strict=True)]
        items += [f"({kinds[name]}) AS {name}" if name in kinds else name for name in carried] + asked[0]
        order = "" if self.scan.by_stream else "\nORDER BY stream, position"
        posts = {f"post{number}" for number in scans}
        there = set(carried) | posts | {"_first"}
        stages = [(sql, tuple(sorted(read & there))) for sql, read in later]
        listed = ",\n  ".join(items)
        return f"SELECT\n  {listed}\nFROM ({self.scan.sql}){order}", stages

    def _scanned(self) -> set[str]:
        """The columns that the scan of the log has."""
        names = {str(name) for text in self.scan.texts.values() for (kind, _), name in text.names.items() if kind != "state"}
        return names | {"position", "version", "type", "stream", "m_recorded_at"}

    # -- leaves

    def _scan_of(self, leaf: LeafKind, state: StateLeaf, number: int) -> _Scan:
        initial = Text({}, {}).constant(state.initial, state.type)
        cases = tuple(c for c in leaf.cases if c.event in self.scan.texts)
        kind = KINDS[frozenset(c.form for c in cases)]
        if kind not in STREAMED:
            raise NotScanned
        self.reach[leaf.path] = reach = self._reach(kind, cases, state)
        if state.type.whole and not (INT64[0] <= reach[0] and reach[1] <= INT64[1]):
            raise NotScanned
        value, add, reset, has = f"value{number}", f"add{number}", f"reset{number}", f"has{number}"
        if kind == "CONST" or (kind == "FIRST" and state.initial is not None):
            return _Scan(number, {value: initial}, lambda columns, _: columns[value], state.initial, initial)
        if kind == "LAST":
            asked = {value: self.value(cases, state.type)}
            if self._nullable(cases, state):
                asked[has] = f"coalesce({self.any_of(cases)}, false)"
            return _Scan(number, asked, _last(value, has if has in asked else None, state.initial), state.initial, initial)
        if kind == "FIRST":
            return _Scan(number, {value: self.value(cases, state.type)}, _earliest(value), None, initial)
        if kind in ("MAX", "MIN"):
            if not state.type.whole:
                raise NotScanned
            low, high = reach
            if (high - low + 2) * (self.scan.count + 2) >= INT64[1] or max(-low, high) >= 1 << 62:
                raise NotScanned
            asked = {value: f"({self.value(cases, state.type)})::BIGINT"}
            return _Scan(number, asked, _most(value, kind, low, high, state.initial), state.initial, initial)
        resets = [c for c in cases if c.form == "assign"]
        added = [c for c in cases if c.form == "add"]
        if state.initial is None or any(c.operands[0].type.opt for c in resets):
            raise NotHere("a sum that begins at None, or is set back to it", cases[0].line)
        asked = {add: f"coalesce({self.value(added, state.type, self._addends(added, state))}, 0)::BIGINT"}
        if resets:
            asked[reset] = f"({self.value(resets, state.type)})::BIGINT"
        return _Scan(number, asked, _sum(add, reset if resets else None, state.initial), state.initial, initial)


def _pres(text: str) -> set[int]:
    """The leaves whose value before the event an expression may read."""
    return set(map(int, re.findall(r"\bpre(\d+)\b", _without_text(text))))


def _without_text(sql: str) -> str:
    """SQL without what stands in it as text or as a quoted name: a model may hold any."""
    return re.sub(r"""'(?:[^']|'')*'|"(?:[^"]|"")*\"""", "''", sql)


# -- scans -----------------------------------------------------------------------------------------------------------------


def _valid(column: pa.Array) -> np.ndarray[Any, np.dtype[np.bool_]]:
    found: np.ndarray[Any, Any] = column.is_valid().to_numpy(zero_copy_only=False)
    return found


def _numbers(column: pa.Array) -> Ints:
    """Whole numbers; what stands where none is says nothing."""
    if column.null_count:
        column = pc.coalesce(column, pa.scalar(0, column.type))
    found: Ints = column.to_numpy()
    return found


def _sum(add: str, reset: str | None, initial: int) -> Callable[[Columns, _Rows], pa.Array]:
    """A sum since the stream began or was last set: the sum over everything, less what it was then.

    It may run over: the difference is right all the same, where it fits.
    """

    def made(columns: Columns, rows: _Rows) -> pa.Array:
        added = columns[add].to_numpy()
        total = np.cumsum(added)
        marks, at = rows.first, rows.starts
        if reset is not None:
            is_set = _valid(columns[reset])
            marks = marks | is_set
            at = np.flatnonzero(marks)
        before = total[at] - added[at] - initial
        if reset is not None:
            here = np.flatnonzero(is_set[at])
            before[here] = total[at[here]] - _numbers(columns[reset].take(pa.array(at[here])))
        total -= rows.carried(at, before)
        return pa.array(total)

    return made


def _last(value: str, has: str | None, initial: Any) -> Callable[[Columns, _Rows], pa.Array]:
    """The last value that was set since the stream began."""

    def made(columns: Columns, rows: _Rows) -> pa.Array:
        values = columns[value]
        is_set = _valid(values) if has is None else columns[has].to_numpy(zero_copy_only=False)
        at = np.flatnonzero(rows.first | is_set)
        begun = pa.array([initial], values.type)[0]
        found = pc.if_else(pa.array(is_set[at]), values.take(pa.array(at)), begun)
        if not pa.types.is_string(found.type) or found.null_count:
            return rows.carried(at, found)
        coded = found.dictionary_encode()
        return pa.DictionaryArray.from_arrays(pa.array(rows.carried(at, coded.indices.to_numpy())), coded.dictionary)

    return made


def _earliest(value: str) -> Callable[[Columns, _Rows], pa.Array]:
    """The first value since the stream began."""

    def made(columns: Columns, rows: _Rows) -> pa.Array:
        is_set = _valid(columns[value])
        before = np.cumsum(is_set)[rows.starts] - is_set[rows.starts]
        at = np.repeat(np.append(np.flatnonzero(is_set), rows.size)[before], rows.counts)
        return columns[value].take(pa.array(at, mask=at > np.arange(rows.size)))

    return made


def _most(value: str, kind: str, low: int, high: int, initial: int | None) -> Callable[[Columns, _Rows], pa.Array]:
    """The greatest or least value since the stream began: the stream's number stands above the value in one integer."""
    span, up = high - low + 2, kind == "MAX"
    least = 0 if initial is None else initial - (low - 1) if up else high + 1 - initial

    def made(columns: Columns, rows: _Rows) -> pa.Array:
        values = _numbers(columns[value])
        # What a guard has caught may lie anywhere: it must not reach the streams that follow.
        own = np.clip(values, low, high)
        own = np.subtract(own, low - 1, out=own) if up else np.subtract(high + 1, own, out=own)
        np.maximum(own, least, out=own)
        if columns[value].null_count:
            own[~_valid(columns[value])] = least
        begun = rows.ordinal * span
        own += begun
        np.maximum.accumulate(own, out=own)
        own -= begun
        missing = own == 0 if initial is None else None
        found = np.add(own, low - 1, out=own) if up else np.subtract(high + 1, own, out=own)
        return pa.array(found, mask=missing)

    return made
