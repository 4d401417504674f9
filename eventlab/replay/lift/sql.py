"""The DuckDB emitter: expressions as SQL over lowered columns, and the query that folds a whole population.

Bounds travel with every expression, from the statistics of the columns on: where they prove that nothing overflows and no
guard can hold, the query is as plain as one written by hand; where they do not, the guard stands in it, per key.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from eventlab.replay.lift.execute import Effect, Path
from eventlab.replay.lift.ir import Node
from eventlab.replay.lift.making import fill
from eventlab.replay.lift.operations import MOMENT_LIMITS, OPERATIONS
from eventlab.replay.lift.source import Refused
from eventlab.replay.lift.types import Type

INT64: Final = (-(2**63), 2**63 - 1)
HUGE: Final = 10**37
#: A `when` that is always or never.
ALWAYS, NEVER = "true", "false"


class NotHere(Refused):
    """This does not lift to SQL; the loop folds it."""


def quoted(value: str) -> str:
    """Text as SQL."""
    return "'" + value.replace("'", "''") + "'"


def name(value: str) -> str:
    """An identifier as SQL."""
    return '"' + value.replace('"', '""') + '"'


def duck_type(of: Type) -> str:
    """The DuckDB type of lowered values."""
    if of.name in ("list", "set"):
        return f"{duck_type(of.item)}[]" if of.item is not None else "BIGINT[]"
    if of.name == "map":
        return f"MAP(VARCHAR, {duck_type(of.item) if of.item is not None else 'BIGINT'})"
    if of.name == "rec":
        return f"STRUCT({', '.join(f'{name(n)} {duck_type(t)}' for n, t in of.parts)})"
    if of.text or of.name in ("json", "exact"):
        return "VARCHAR"
    return {"bool": "BOOLEAN", "float": "DOUBLE", "bytes": "BLOB", "uuid": "BLOB"}.get(of.name, "BIGINT")


@dataclass
class Text:
    """SQL of expressions. `names` says how leaves are written, `limits` the bounds of leaves."""

    names: Mapping[tuple[str, str], str]
    limits: Mapping[tuple[str, str], Any]
    _bounds: dict[Node, Any] = field(default_factory=dict)

    def bounds(self, node: Node) -> Any:
        """The least and the greatest value of a whole-number expression, or None where that is not known."""
        if node not in self._bounds:
            self._bounds[node] = self._bounds_of(node)
        return self._bounds[node]

    def _bounds_of(self, node: Node) -> Any:
        if node.op == "const":
            whole = isinstance(node.value, int) and not isinstance(node.value, bool)
            return (node.value, node.value) if whole else None
        if node.op in ("state", "event", "meta", "source"):
            return self.limits.get((node.op, node.value))
        if node.op == "cond":
            arms = [self.bounds(arm) for arm in node.args[1:] if not (arm.fixed and arm.value is None)]
            if not arms:
                return (0, 0)
            return None if None in arms else (min(b[0] for b in arms), max(b[1] for b in arms))
        row = OPERATIONS.get(node.op)
        if row is None or row.bounds is None:
            return None
        args = [self.bounds(arg) for arg in node.args]
        found: Any = row.bounds(*args, node.value) if node.op == "dec.rescale" else row.bounds(*args)
        if found is not None and row.within is not None:
            found = (max(found[0], row.within[0]), min(found[1], row.within[1]))
        return found

    def raw_bounds(self, node: Node) -> Any:
        """The bounds of a result before its guard has kept it within limits."""
        row = OPERATIONS[node.op]
        return None if row.bounds is None else row.bounds(*[self.bounds(arg) for arg in node.args])

    def text(self, node: Node) -> str:
        """An expression as SQL."""
        if node.op == "const":
            return self.constant(node.value, node.type)
        if node.op in ("state", "event", "meta", "source"):
            return self.names[node.op, node.value]
        if node.op == "cond":
            return self._condition(node)
        if node.op == "list.of" or node.op == "set.of":
            return f"[{', '.join(self.text(arg) for arg in node.args)}]"
        if node.op == "rec.of":
            parts = zip(node.value, node.args, strict=True)
            return f"struct_pack({', '.join(f'{name(n)} := {self.text(arg)}' for n, arg in parts)})"
        row = OPERATIONS.get(node.op)
        if row is None or node.op.startswith("map.") or node.op in ("list.in", "set.in", "set.diff", "set.union"):
            raise NotHere(f"{node.op} is not written in SQL", node.line)
        args = [self.text(arg) for arg in node.args]
        if row.bounds is not None and node.op not in ("sure", "some"):
            args = self._wide(node, args)
        found = fill(row.sql, args, node.value)
        if row.within is not None and not self._kept(node):
            return f"CASE WHEN {found} BETWEEN {row.within[0]} AND {row.within[1]} THEN {found} END"
        return found

    def _kept(self, node: Node) -> bool:
        """Whether the bounds prove that a result lies within its limits."""
        within, raw = OPERATIONS[node.op].within, self.raw_bounds(node)
        return within is None or (raw is not None and within[0] <= raw[0] and raw[1] <= within[1])

    def _wide(self, node: Node, args: list[str]) -> list[str]:
        """Operands in a type that holds the result: 64 bits where the bounds prove it, else 128."""
        inside = [self.raw_bounds(node) if node.op != "dec.rescale" else self.bounds(node)]
        inside += [self.bounds(arg) for arg in node.args if arg.type.whole]
        if None in inside:
            raise NotHere(f"the size of {node.op} is not known", node.line)
        low, high = min(b[0] for b in inside), max(b[1] for b in inside)
        if INT64[0] < low and high < INT64[1]:
            return [f"{a}::BIGINT" if arg.op == "const" and arg.type.whole else a for a, arg in zip(args, node.args, strict=True)]
        if low > -HUGE and high < HUGE:
            return [f"({a})::HUGEINT" if arg.type.whole else a for a, arg in zip(args, node.args, strict=True)]
        raise NotHere("an integer may pass 128 bits", node.line)

    def _condition(self, node: Node) -> str:
        c, a, b = node.args
        texts = [self.text(a), self.text(b)]
        if node.type.whole:
            bounds = self.bounds(node)
            if bounds is None or not (bounds[0] > -HUGE and bounds[1] < HUGE):
                raise NotHere("the size of a value is not known", node.line)
            kind = "BIGINT" if INT64[0] <= bounds[0] and bounds[1] <= INT64[1] else "HUGEINT"
            texts = [f"({t})::{kind}" for t in texts]
        return f"CASE WHEN {self.text(c)} THEN {texts[0]} ELSE {texts[1]} END"

    def constant(self, value: Any, kind: Type) -> str:
        if value is None:
            return f"NULL::{duck_type(kind)}"
        if isinstance(value, bool):
            return "true" if value else "false"
        if isinstance(value, int):
            return str(value) if value >= 0 else f"({value})"
        if isinstance(value, float):
            return f"{value!r}::DOUBLE" if value == value and abs(value) != float("inf") else f"'{value}'::DOUBLE"
        if isinstance(value, str):
            if "\0" in value:
                raise NotHere("a constant holds the character NUL")
            return quoted(value)
        if isinstance(value, bytes):
            return f"from_hex('{value.hex()}')"
        if isinstance(value, (tuple, frozenset)) and kind.item is not None:
            items = sorted(value, key=lambda v: (v is not None, v)) if isinstance(value, frozenset) else value
            return f"[{', '.join(self.constant(v, kind.item) for v in items)}]::{duck_type(kind)}"
        if isinstance(value, (tuple, frozenset)) and not value:
            return f"[]::{duck_type(kind)}"
        raise NotHere(f"a constant {value!r} is not written in SQL")

    # -- guards

    def guards(self, effects: Iterable[Effect], skip: frozenset[Node] = frozenset()) -> list[str]:
        """The conditions under which an event must be left to the row fold, as SQL; proved ones are left out."""
        found = []
        for effect in effects:
            if effect.node in skip:
                continue
            condition = self._guard(effect.node) if effect.node is not None else ALWAYS
            if condition == NEVER:
                continue
            path = self.all_of(effect.path)
            if path == NEVER:
                continue
            found.append(condition if path == ALWAYS else path if condition == ALWAYS else f"({path} AND ({condition}))")
        return list(dict.fromkeys(found))

    def all_of(self, path: Path) -> str:
        """The conjunction of literals."""
        parts = [self.text(c) if truth else f"NOT {self.text(c)}" for c, truth in path]
        return " AND ".join(parts) if parts else ALWAYS

    def _guard(self, node: Node) -> str:
        row = OPERATIONS.get(node.op)
        if row is None:
            raise NotHere(f"a guard of {node.op} is not written in SQL", node.line)
        parts = []
        for guard in row.guards:
            if self._proved(node, guard.why):
                continue
            parts.append(fill(guard.sql, [self.text(arg) for arg in node.args], node.value))
        if not self._kept(node):
            parts.append(f"({self.text(node)}) IS NULL")
        return " OR ".join(parts) if parts else NEVER

    def _proved(self, node: Node, why: str) -> bool:
        bounds = [self.bounds(arg) for arg in node.args]
        if "2**53" in why:
            return all(b is not None and b[0] >= -(2**53) and b[1] <= 2**53 for b in bounds)
        if "by zero" in why:
            b = bounds[-1]
            return b is not None and (b[0] > 0 or b[1] < 0)
        if "zones" in why:
            b = bounds[0]
            return b is not None and b[0] >= -8299411200000000 and b[1] <= 11676096000000000
        if "before 1000" in why:
            b = bounds[0]
            return b is not None and b[0] >= -354285
        return False


def meta_texts() -> dict[str, str]:
    """The metadata as lowered SQL over the envelope's columns."""
    plain = {
        n: n for n in ("stream", "type", "actor", "tenant", "event_id", "correlation_id", "causation_id", "position", "version")
    }
    return {
        **plain, "category": "split_part(stream, '-', 1)", "id": "substr(stream, position('-' IN stream) + 1)",
        "schema_version": "schema_version::BIGINT", "recorded_at": "epoch_us(recorded_at)",
        "occurred_at": "epoch_us(occurred_at)",
    }  # fmt: skip


META_LIMITS: Final[Mapping[str, tuple[int, int]]] = {
    "position": (1, 2**62), "version": (1, 2**62), "schema_version": (1, 32_767), "recorded_at": MOMENT_LIMITS,
    "occurred_at": MOMENT_LIMITS,
}  # fmt: skip
