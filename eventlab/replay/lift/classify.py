"""What each leaf of the state is: the forms of its updates, its kind, what it reads, and its stratum.

An update is a tree of conditions over forms: keep, assign, add, max, first, append, … A field of one form is one aggregate of
a query; `assign` beside another form is a reset, and the kind is "since the last reset". A leaf that reads others stands one
stratum above them; leaves that read each other in a circle, or themselves in no known form, are cycles, and are looped.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from eventlab.replay.lift.analyse import Analysis
from eventlab.replay.lift.ir import Builder, Node
from eventlab.replay.lift.types import BOOL

_ADDED: Final = {"int.add": "int.neg", "dec.add": "dec.neg", "dur.add": "dur.neg"}
_SUBTRACTED: Final = {"int.sub": "int.neg", "dec.sub": "dec.neg", "dur.sub": "dur.neg"}
_MAXIMA: Final = {"max": "max", "str.max": "max", "min": "min", "str.min": "min"}
_COMPARED: Final = {
    "gt": "max",
    "ge": "max",
    "lt": "min",
    "le": "min",
    "str.gt": "max",
    "str.ge": "max",
    "str.lt": "min",
    "str.le": "min",
}
_FLIP: Final = {"max": "min", "min": "max"}
#: The kinds by the forms that make them.
KINDS: Final[Mapping[frozenset[str], str]] = {
    frozenset(): "CONST", frozenset({"assign"}): "LAST", frozenset({"add"}): "SUM", frozenset({"fadd"}): "FSUM",
    frozenset({"max"}): "MAX", frozenset({"min"}): "MIN", frozenset({"first"}): "FIRST", frozenset({"append"}): "LIST",
    frozenset({"setadd"}): "SET", frozenset({"setadd", "setsub"}): "SETKEY", frozenset({"setsub"}): "SETKEY",
    frozenset({"mapset"}): "MAP", frozenset({"mapset", "mapdel"}): "MAP", frozenset({"mapdel"}): "MAP",
    frozenset({"mapset", "assign"}): "SEGMAP", frozenset({"mapset", "mapdel", "assign"}): "SEGMAP",
    frozenset({"setadd", "setsub", "assign"}): "SEGSETKEY", frozenset({"mapadd", "assign"}): "SEGMAPSUM",
    frozenset({"mapadd"}): "MAPSUM", frozenset({"add", "assign"}): "SEGSUM", frozenset({"max", "assign"}): "SEGMAX",
    frozenset({"min", "assign"}): "SEGMIN", frozenset({"append", "assign"}): "SEGLIST", frozenset({"setadd", "assign"}): "SEGSET",
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """One way in which an event changes a leaf: under `guard` (None: always), in a form, by operands."""

    event: str
    guard: Node | None
    form: str
    operands: tuple[Node, ...]
    line: int


@dataclass(frozen=True)
class LeafKind:
    """What one leaf is. `why` and `line` say what stands in the way where its kind is CYCLE."""

    path: str
    kind: str
    cases: tuple[Case, ...]
    reads: frozenset[str]
    level: int | None
    why: str = ""
    line: int = 0
    #: Operations on the leaf itself that its aggregate stands for: their guards are proved for the aggregate.
    consumed: frozenset[Node] = frozenset()


@dataclass(frozen=True)
class Classified:
    """Every leaf by its path."""

    leaves: Mapping[str, LeafKind] = field(default_factory=dict)

    @property
    def strata(self) -> list[list[str]]:
        """Leaves by level, those that read nothing first."""
        top = max((leaf.level for leaf in self.leaves.values() if leaf.level is not None), default=-1)
        return [[p for p, leaf in self.leaves.items() if leaf.level == level] for level in range(top + 1)]


class _Cycle(Exception):
    def __init__(self, why: str, line: int) -> None:
        super().__init__(why)
        self.why, self.line = why, line


def classify(analysis: Analysis) -> Classified:
    """Classify every leaf of a model that was understood."""
    found: dict[str, LeafKind] = {}
    for path in analysis.leaves:
        cases: list[Case] = []
        consumed: set[Node] = set()
        try:
            for name, event in analysis.events.items():
                node = event.updates.get(path)
                if node is not None:
                    _Flatten(analysis.build, path, name, cases, consumed).visit(node, None)
            kind = KINDS.get(frozenset(case.form for case in cases))
            if kind is None:
                forms = sorted({case.form for case in cases})
                raise _Cycle(f"it is changed in forms that have no common aggregate: {', '.join(forms)}", cases[-1].line)
            reads = frozenset().union(*(n.reads for c in cases for n in (*c.operands, *(() if c.guard is None else (c.guard,)))))
            found[path] = LeafKind(path, kind, tuple(cases), reads - {path}, None, consumed=frozenset(consumed))
        except _Cycle as cycle:
            reads = frozenset().union(*(e.updates[path].reads for e in analysis.events.values() if path in e.updates))
            found[path] = LeafKind(path, "CYCLE", (), reads - {path}, None, cycle.why, cycle.line)
    return Classified(_levelled(found))


def _levelled(found: Mapping[str, LeafKind]) -> dict[str, LeafKind]:
    levels: dict[str, int] = {}
    waiting = {path for path, leaf in found.items() if leaf.kind != "CYCLE"}
    while ready := [p for p in waiting if found[p].reads <= set(levels)]:
        for path in ready:
            levels[path] = 1 + max((levels[r] for r in found[path].reads), default=-1)
        waiting -= set(ready)
    done = {}
    for path, leaf in found.items():
        why, line = leaf.why, leaf.line
        if leaf.kind != "CYCLE" and path not in levels:
            others = sorted(leaf.reads - set(levels))
            are = "is" if len(others) == 1 else "are"
            why = f"it reads {', '.join(others)}, which {are} decided by what {path} is, or by a cycle"
            line = leaf.cases[-1].line if leaf.cases else 0
        done[path] = replace(leaf, level=levels.get(path), why=why, line=line)
    return done


class _Flatten:
    """Takes the update of one leaf by one event apart into cases."""

    def __init__(self, build: Builder, path: str, event: str, cases: list[Case], consumed: set[Node]) -> None:
        self.build, self.path, self.event, self.cases, self.consumed = build, path, event, cases, consumed

    def me(self, node: Node) -> bool:
        """Whether a node is the leaf itself."""
        return (
            (node.op == "state" and node.value == self.path)
            or (node.op == "sure" and self.me(node.args[0]))
            or (node.op == "some" and self.me(node.args[0]))
        )

    def free(self, *nodes: Node) -> bool:
        """Whether the leaf itself is not read."""
        return not any(self.path in node.reads for node in nodes)

    def both(self, guard: Node | None, condition: Node) -> Node:
        return condition if guard is None else self.build.node("and", (guard, condition), BOOL)

    def negated(self, a: Node) -> Node:
        return a.args[0] if a.op == "not" else self.build.node("not", (a,), BOOL)

    def case(self, guard: Node | None, form: str, node: Node, *operands: Node) -> None:
        self.cases.append(Case(self.event, guard, form, operands, node.line))

    def visit(self, node: Node, guard: Node | None) -> None:
        if self.me(node):
            return
        if self.free(node) and node.op != "cond":
            self.case(guard, "assign", node, node)
            return
        if node.op == "cond":
            self._condition(node, guard)
            return
        if node.op in ("or", "and") and node.type == BOOL:
            # `f or c` sets it where c holds; `f and c` clears it where c does not.
            for one, other in (node.args, node.args[::-1]):
                if self.me(one) and self.free(other):
                    found = node.op == "or"
                    condition = other if found else self.negated(other)
                    self.case(self.both(guard, condition), "assign", node, self.build.const(found, BOOL))
                    return
        if (addend := self._addend(node)) is not None:
            self.case(guard, "add", node, addend)
            return
        if node.op == "float.add" and self.me(node.args[0]) and self.free(node.args[1]):
            self.case(guard, "fadd", node, node.args[1])
            return
        if node.op in _MAXIMA:
            for one, other in (node.args, node.args[::-1]):
                if self.me(one) and self.free(other):
                    self.case(guard, _MAXIMA[node.op], node, other)
                    return
        if node.op == "list.cat" and self.me(node.args[0]) and self.free(node.args[1]):
            self.case(guard, "append", node, node.args[1])
            return
        if node.op in ("set.union", "set.diff") and self.me(node.args[0]) and self.free(node.args[1]):
            self.case(guard, "setadd" if node.op == "set.union" else "setsub", node, node.args[1])
            return
        if node.op == "map.drop" and self.me(node.args[0]) and self.free(node.args[1]):
            self.case(guard, "mapdel", node, node.args[1])
            return
        if node.op == "map.put" and self.me(node.args[0]) and self.free(node.args[1]):
            self._put(node, guard)
            return
        raise _Cycle(f"self.{self.path} decides its own next value", node.line)

    def _put(self, node: Node, guard: Node | None) -> None:
        _, key, value = node.args
        if self.free(value):
            self.case(guard, "mapset", node, key, value)
            return
        if value.op in ("int.add", "dec.add") and value.args[0].op in ("map.get", "sure", "dec.rescale"):
            got = value.args[0]
            if (
                got.op == "map.get"
                and self.me(got.args[0])
                and got.args[1] is key
                and got.args[2].fixed
                and got.args[2].value == 0
                and self.free(value.args[1])
            ):
                self.consumed.add(value)
                self.case(guard, "mapadd", node, key, value.args[1])
                return
        raise _Cycle(f"an entry of self.{self.path} decides its own next value", node.line)

    def _condition(self, node: Node, guard: Node | None) -> None:
        c, yes, no = node.args
        if self.free(c):
            self.visit(yes, self.both(guard, c))
            self.visit(no, self.both(guard, self.negated(c)))
            return
        # `e if f is None else f`: the first; `e if f is None else max(f, e)`, `e if f is None or e > f else f`: the most.
        if c.op == "isnull" and self.me(c.args[0]) and self.free(yes):
            if self.me(no):
                self.case(guard, "first", node, yes)
                return
            if no.op in _MAXIMA and any(self.me(a) and b is yes for a, b in (no.args, no.args[::-1])):
                self.case(guard, _MAXIMA[no.op], node, yes)
                return
        form = self._compared(c, yes, no)
        if form is not None:
            self.case(guard, form, node, yes if self.me(no) else no)
            return
        # `if f is None and g: f = e`
        if c.op == "and" and self.me(no):
            for one, other in (c.args, c.args[::-1]):
                if one.op == "isnull" and self.me(one.args[0]) and self.free(other, yes):
                    self.case(self.both(guard, other), "first", node, yes)
                    return
        raise _Cycle(f"self.{self.path} decides whether it changes", c.line or node.line)

    def _compared(self, c: Node, yes: Node, no: Node) -> str | None:
        """`max` or `min` for `e if e > f else f` and its kin, where f may be None at first."""
        if c.op == "or" and c.args[0].op == "isnull" and self.me(c.args[0].args[0]):
            c = c.args[1]
        mine, other = (no, yes) if self.me(no) else (yes, no)
        if c.op not in _COMPARED or not self.me(mine) or not self.free(other):
            return None
        form = _COMPARED[c.op]
        a, b = c.args
        if a is other and self.me(b):
            pass
        elif b is other and self.me(a):
            form = _FLIP[form]
        else:
            return None
        return form if other is yes else _FLIP[form]

    def _addend(self, node: Node) -> Node | None:
        """What is added to the leaf itself, where that is all that happens to it."""
        if self.free(node):
            return None
        if node.op in _ADDED or node.op in _SUBTRACTED:
            self.consumed.add(node)
        if node.op in _ADDED:
            for one, other in (node.args, node.args[::-1]):
                if self.me(one) and self.free(other):
                    return other
                rest = self._addend(one) if self.free(other) else None
                if rest is not None:
                    return self.build.node(node.op, (rest, other), node.type, None, node.line)
        if node.op in _SUBTRACTED:
            one, other = node.args
            if not self.free(other):
                return None
            minus = self.build.node(_SUBTRACTED[node.op], (other,), node.type, None, node.line)
            if self.me(one):
                return minus
            rest = self._addend(one)
            if rest is not None:
                return self.build.node(node.op.replace("sub", "add"), (rest, minus), node.type, None, node.line)
        return None
