"""Lint of SQL: what in a query gives another answer the next time, read from the tree that DuckDB's own parser makes.

`S` findings: functions that differ from run to run, aggregates and windows that take rows in whatever order they come, floats
summed, limits without an order, as-of joins on what may tie. `-- eventlab: ignore[S4] reason` on its line passes one over.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any, Final

import duckdb

#: Code → why it matters, and what to write instead.
SQL_RULES: Final[dict[str, tuple[str, str]]] = {
    "S1": ("what differs from run to run makes another answer of the same log", "recorded_at or occurred_at of the event"),
    "S2": ("rows come in any order, and another thread count gives another answer", "ORDER BY position inside of it"),
    "S3": ("a sum of floats depends on the order of its rows", "a DECIMAL, or whole numbers of the smallest unit"),
    "S4": ("which rows are taken is left to chance", "ORDER BY with the key as its last column"),
    "S5": ("which of several rows at one time is taken is left to chance", "join on position, which never ties"),
}
_ORDERED: Final = frozenset(
    "first last any_value arbitrary list array_agg string_agg group_concat listagg first_value last_value nth_value".split()
)
_TIES: Final = frozenset("arg_max arg_min max_by min_by argmax argmin arg_max_null arg_min_null".split())
_SUMS: Final = frozenset("sum avg mean kahan_sum fsum stddev stddev_samp stddev_pop variance var_samp var_pop corr".split())
_EXACT: Final = frozenset({"kahan_sum", "fsum"})
_FLOATS: Final = frozenset({"double", "float", "real", "float4", "float8", "double precision"})
_NOW: Final = frozenset("current_timestamp current_date current_time localtime localtimestamp".split())
#: The clock and the session: the same within a query, and another the next time.
_SESSION: Final = _NOW | frozenset(
    "now today get_current_time get_current_timestamp transaction_timestamp current_localtime current_localtimestamp "
    "current_setting current_query current_connection_id current_transaction_id txid_current getvariable".split()
)
_HARMLESS: Final = frozenset("error write_log vector_type stats".split())
_WINDOWS: Final = frozenset(
    f"WINDOW_{name}" for name in "ROW_NUMBER FIRST_VALUE LAST_VALUE NTH_VALUE LAG LEAD NTILE RANK RANK_DENSE".split()
)
_IGNORE: Final = re.compile(r"--\s*eventlab:\s*ignore\[([\w, ]+)\]\s*\S")
#: A column that no two events share.
_TOTAL: Final = frozenset({"position", "_position", "event_id"})


@dataclass(frozen=True)
class InSql:
    """A finding in a query: its rule, what is there, and the line of the query, from 1 on."""

    code: str
    said: str
    line: int


def lint_sql(text: str, floats: Collection[str] = ()) -> list[InSql]:
    """What of a query may give another answer the next time; `floats` are the columns that hold floats.

    Empty where the query cannot be parsed: that is for whoever runs it to say.

    >>> [(found.code, found.said) for found in lint_sql("select item, first(price) from types.sold group by item limit 3")]
    [('S2', 'first(price) has no ORDER BY'), ('S4', 'LIMIT without ORDER BY')]
    """
    with duckdb.connect() as connection:
        tree = json.loads(connection.execute("SELECT json_serialize_sql(?)", [text]).fetchall()[0][0])
    if tree.get("error"):
        return []
    reader = _Reader(text, frozenset(name.lower() for name in floats))
    reader.read(tree["statements"])
    ignored = {
        number: {code.strip() for code in match[1].split(",")}
        for number, line in enumerate(text.splitlines(), 1)
        if (match := _IGNORE.search(line))
    }
    found = [one for one in reader.found if one.code not in ignored.get(one.line, set())]
    return sorted(dict.fromkeys(found), key=lambda one: (one.line, one.code, one.said))


class _Reader:
    """Walks the tree, and knows the text that each node was made from."""

    def __init__(self, text: str, floats: frozenset[str]) -> None:
        self.text, self.floats = text, floats
        self.found: list[InSql] = []

    def read(self, node: Any) -> None:
        for one in _nodes(node):
            kind = one.get("type")
            if kind == "SELECT_NODE":
                self._select(one)
            elif kind == "FUNCTION":
                self._function(one)
            elif isinstance(kind, str) and kind in _WINDOWS:
                self._window(one)
            elif kind == "JOIN" and one.get("ref_type") == "ASOF":
                self._asof(one)
            elif kind == "COLUMN_REF" and [name.lower() for name in one["column_names"]][-1:] in ([n] for n in _NOW):
                self._say("S1", one, one["column_names"][-1])
            if isinstance(one.get("sample"), dict) and not one["sample"].get("repeatable"):
                self._say("S1", one, "TABLESAMPLE without REPEATABLE")

    def _say(self, code: str, node: dict[str, Any], said: str) -> None:
        at = node.get("query_location")
        # Where DuckDB says nothing of the place it is all of the query.
        known = isinstance(at, int) and 0 <= at <= len(self.text.encode())
        line = self.text.encode()[:at].count(b"\n") + 1 if known else 1
        self.found.append(InSql(code, said, line))

    def _written(self, node: dict[str, Any]) -> str:
        name = node["function_name"]
        arguments = [_argument(one) for one in node.get("arguments", ())]
        return f"{name}({', '.join('.'.join(_columns(one)) or '…' for one in arguments)})"

    def _select(self, node: dict[str, Any]) -> None:
        modifiers = {one["type"]: one for one in node.get("modifiers", ())}
        if "ORDER_MODIFIER" in modifiers:
            return
        if "LIMIT_MODIFIER" in modifiers or "LIMIT_PERCENT_MODIFIER" in modifiers:
            self._say("S4", node, "LIMIT without ORDER BY")
        if modifiers.get("DISTINCT_MODIFIER", {}).get("distinct_on_targets"):
            self._say("S4", node, "DISTINCT ON without ORDER BY")

    def _function(self, node: dict[str, Any]) -> None:
        name = node["function_name"].lower()
        arguments = [_argument(one) for one in node.get("arguments", ())]
        if name in _volatile():
            self._say("S1", node, f"{name}()")
        elif name in _ORDERED and not (node.get("order_bys") or {}).get("orders"):
            self._say("S2", node, f"{self._written(node)} has no ORDER BY")
        elif name in _TIES and len(arguments) > 1 and not _TOTAL & set(_columns(arguments[1])[-1:]):
            self._say("S2", node, f"{self._written(node)} takes any of those that tie")
        elif name in _SUMS - _EXACT and arguments and self._is_float(arguments[0]):
            self._say("S3", node, f"{self._written(node)} adds floats")

    def _is_float(self, node: dict[str, Any]) -> bool:
        for one in _nodes(node):
            if one.get("type") == "OPERATOR_CAST":
                to = one.get("type_expr") or {}
                return str(to.get("type_name", "")).lower() in _FLOATS
            if one.get("type") == "COLUMN_REF" and one["column_names"][-1].lower() in self.floats:
                return True
        return False

    def _window(self, node: dict[str, Any]) -> None:
        if not node.get("orders"):
            self._say("S2", node, f"{node.get('function_name') or node['type'][7:].lower()}() OVER () has no ORDER BY")

    def _asof(self, node: dict[str, Any]) -> None:
        compared = [one for one in _nodes(node.get("condition")) if str(one.get("type", "")).startswith("COMPARE_")]
        uneven = [one for one in compared if one["type"] != "COMPARE_EQUAL"]
        if not any(_TOTAL & set(_columns(one["right"])[-1:]) for one in uneven):
            self._say("S5", node, "ASOF JOIN on what may tie")


def _nodes(node: Any) -> Iterator[dict[str, Any]]:
    """A node of the tree and all below it."""
    if isinstance(node, dict):
        yield node
        for below in node.values():
            yield from _nodes(below)
    elif isinstance(node, list):
        for below in node:
            yield from _nodes(below)


def _argument(node: dict[str, Any]) -> dict[str, Any]:
    found = node.get("expression", node)
    return found if isinstance(found, dict) else {}


def _columns(node: dict[str, Any]) -> list[str]:
    return [name.lower() for name in node.get("column_names", ())]


@functools.cache
def _volatile() -> frozenset[str]:
    """The functions that DuckDB itself says may differ from call to call, and those of the clock and the session."""
    with duckdb.connect() as connection:
        rows = connection.execute(
            "SELECT DISTINCT function_name FROM duckdb_functions() WHERE stability = 'VOLATILE' "
            "AND function_type IN ('scalar', 'aggregate')"
        ).fetchall()
    return (frozenset(name.lower() for (name,) in rows) | _SESSION) - _HARMLESS


