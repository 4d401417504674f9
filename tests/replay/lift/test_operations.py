"""Every row of the table of operations: Python, the loop's text and SQL agree on hostile values, or a guard holds."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eventlab.model.types import DAY_ZERO, EPOCH, MICROSECOND, MOMENT_MAX, MOMENT_MIN, from_us
from eventlab.replay.lift.making import fill
from eventlab.replay.lift.operations import DATE_MAX, DATE_MIN, HELPERS, OPERATIONS, Operation

_EDGES = [0, 1, -1, 2, 5, -7, 2**31, -(2**31), 2**53, -(2**53), 2**53 + 1, 2**62, -(2**62)]
_INTS = st.sampled_from(_EDGES) | st.integers(-30, 30) | st.integers(-(2**62), 2**62)
_SCALED = st.sampled_from([0, 5, -5, 15, 25, 50, -50, 105, 10**17, -(10**17), 10**18 - 1]) | st.integers(-(10**18), 10**18)
_TEXT = st.sampled_from(
    ["", " ", "a", "A", "ab", "a-b", "-", "größe", "ß", "İ", "ŉ", "😀", "e\u0301", "\u2003x\u00a0", "\x1fa\x1c", "ab " * 9]
) | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
_US = (
    st.sampled_from([0, -1, 1, MOMENT_MIN, MOMENT_MAX, 1_774_746_000_000_000])
    | st.integers(MOMENT_MIN, MOMENT_MAX)
    | st.integers(-(10**15), 2 * 10**15)
)
_VALUES: dict[str, st.SearchStrategy[Any]] = {
    "int": _INTS,
    "small": st.integers(-3, 3),
    "int?": st.none() | _INTS,
    "bool": st.booleans(),
    "dec2": _SCALED,
    "dec4": _SCALED,
    "str": _TEXT,
    "float": st.sampled_from([0.0, -0.0, 0.1, 1e16, -2.5, math.inf, -math.inf, math.nan, 5e-324]) | st.floats(-1e100, 1e100),
    "float?": st.none() | st.sampled_from([0.0, -0.0, 0.1, math.nan, math.inf]) | st.floats(-1e100, 1e100),
    "ts": _US,
    "date": st.sampled_from([DATE_MIN, DATE_MAX, 0, -1]) | st.integers(DATE_MIN, DATE_MAX) | st.integers(-3000, 40_000),
    "dur": st.sampled_from([0, 1, -1, 86_400_000_000, -86_400_000_001])
    | st.integers(-(2**62), 2**62)
    | st.integers(-(10**13), 10**13),
    "list": st.lists(st.integers(-3, 3), max_size=4).map(tuple),
    "set": st.frozensets(st.integers(-3, 3), max_size=4),
    "map": st.dictionaries(st.sampled_from(["", "a", "b", "ß"]), st.integers(-3, 3), max_size=3),
}
_DUCK = {
    "int": "HUGEINT",
    "small": "BIGINT",
    "int?": "HUGEINT",
    "bool": "BOOLEAN",
    "dec2": "HUGEINT",
    "dec4": "HUGEINT",
    "str": "VARCHAR",
    "float": "DOUBLE",
    "float?": "DOUBLE",
    "ts": "BIGINT",
    "date": "BIGINT",
    "dur": "HUGEINT",
    "list": "BIGINT[]",
    "set": "BIGINT[]",
    "map": "MAP(VARCHAR, BIGINT)",
}
_BACK: dict[str, Any] = {
    "dec2": lambda v: Decimal(v).scaleb(-2), "dec4": lambda v: Decimal(v).scaleb(-4), "ts": from_us,
    "date": lambda v: DAY_ZERO + dt.timedelta(v), "dur": lambda v: dt.timedelta(0, 0, v),
}  # fmt: skip


def lowered(kind: str, value: Any) -> Any:
    """A Python result in lowered form."""
    if kind in ("dec2", "dec4"):
        return int(value.scaleb(int(kind[3])))
    if kind == "ts":
        return (value - EPOCH) // MICROSECOND
    if kind == "wall":
        return (value.replace(tzinfo=dt.UTC) - EPOCH) // MICROSECOND
    if kind == "date":
        return (value - DAY_ZERO).days
    if kind == "dur":
        return value // MICROSECOND
    return value


@pytest.fixture(scope="module")
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as found:
        found.execute("SET TimeZone = 'Europe/Berlin'")  # nothing here may depend on it
        yield found


CASES = [(row, value) for row in OPERATIONS.values() for value in row.values]


@pytest.mark.parametrize(("row", "value"), CASES, ids=[f"{row.name}" for row, _ in CASES])
@settings(max_examples=4)
@given(data=st.data())
def test_python_the_loop_and_sql_agree_or_a_guard_holds(
    connection: duckdb.DuckDBPyConnection, row: Operation, value: Any, data: st.DataObject
) -> None:
    tuples = data.draw(st.lists(st.tuples(*(_VALUES[kind] for kind in row.takes)), min_size=1, max_size=25))
    in_sql = sql_answers(connection, row, value, tuples)
    for arguments, (sql_value, sql_trips) in zip(tuples, in_sql, strict=True):
        meant, raised = python(row, arguments)
        found, trips = loop(row, value, arguments)
        if raised:
            assert trips, f"{row.name}{arguments} raises in Python, and the loop gives {found!r}"
            assert sql_trips, f"{row.name}{arguments} raises in Python, and SQL gives {sql_value!r}"
            continue
        if not trips:
            assert same(found, meant), f"{row.name}{arguments}: the loop gives {found!r}, Python {meant!r}"
        if not sql_trips:
            assert same(sql_value, meant), f"{row.name}{arguments}: SQL gives {sql_value!r}, Python {meant!r}"


def python(row: Operation, arguments: tuple[Any, ...]) -> tuple[Any, bool]:
    """What Python gives, lowered; or that it raises."""
    values = [_BACK.get(kind, lambda v: v)(v) for kind, v in zip(row.takes, arguments, strict=True)]
    try:
        return lowered(row.gives, row.means(*values)), False
    except Exception:
        return None, True


def loop(row: Operation, value: Any, arguments: tuple[Any, ...]) -> tuple[Any, bool]:
    """What the loop's text gives, or that it trips."""
    names = {f"a{i}": v for i, v in enumerate(arguments)}
    texts = list(names)
    space = {**HELPERS, **names}
    try:
        if any(g.python and eval(fill(g.python, texts, value), space) for g in row.guards):
            return None, True
        found = eval(fill(row.python, texts, value), space)
    except Exception:
        return None, True
    return found, row.within is not None and not row.within[0] <= found <= row.within[1]


def sql_answers(
    connection: duckdb.DuckDBPyConnection, row: Operation, value: Any, tuples: list[tuple[Any, ...]]
) -> list[tuple[Any, bool]]:
    """What SQL gives for each, and whether a guard holds."""
    columns = [f"a{i}" for i in range(len(row.takes))]
    typed = ", ".join(f"a{i}::{_DUCK[kind]} AS a{i}" for i, kind in enumerate(row.takes))
    trips = [f"coalesce({fill(g.sql, columns, value)}, false)" for g in row.guards]
    body = fill(row.sql, columns, value)
    if row.within is not None:
        trips.append(f"coalesce(NOT ({body}) BETWEEN {row.within[0]} AND {row.within[1]}, true)")
    connection.execute("CREATE OR REPLACE TEMP TABLE given AS SELECT n, " + typed + " FROM (VALUES "
                       + ", ".join(f"({n}, {', '.join(map(literal, t))})" for n, t in enumerate(tuples))
                       + f") AS t(n, {', '.join(columns)})")  # fmt: skip
    tripped = " OR ".join(trips) or "false"
    found = connection.execute(f"SELECT ({body}) AS x, ({tripped}) AS t FROM given ORDER BY n").fetchall()
    return [(x, bool(t)) for x, t in found]


def literal(value: Any) -> str:
    """A lowered value as SQL."""
    if value is None:
        return "NULL"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"'{value!r}'::DOUBLE"
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    if isinstance(value, (tuple, frozenset)):
        return f"[{', '.join(map(str, value))}]::BIGINT[]"
    if isinstance(value, dict):
        inner = ", ".join(f"{literal(k)}: {v}" for k, v in value.items())
        return f"MAP {{{inner}}}::MAP(VARCHAR, BIGINT)"
    return f"'{value}'::HUGEINT"


def same(found: Any, meant: Any) -> bool:
    """Equal, NaN to NaN; sets and maps have no order."""
    if isinstance(meant, float) and math.isnan(meant):
        return isinstance(found, float) and math.isnan(found)
    if isinstance(meant, frozenset):
        return frozenset(found) == meant and len(found) == len(meant)
    if isinstance(meant, tuple):
        return tuple(found) == meant
    return bool(found == meant) and (type(found) is type(meant) or not isinstance(meant, (bool, float)))
