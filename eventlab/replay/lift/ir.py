"""The intermediate representation: frozen, shared nodes of expressions, each with its line and its type.

An expression speaks of the state before an event (`state`), the event's stored leaves (`event`), its metadata (`meta`), and
constants; everything between is an operation of the table in `operations`. Equal expressions are one object.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from eventlab.replay.lift.types import BOOL, Type

LEAVES = frozenset({"const", "state", "event", "meta", "source", "var"})


@dataclass(frozen=True, eq=False, slots=True)
class Node:
    """One operation on `args`; `value` is a constant, the name of a leaf, or a parameter of the operation."""

    op: str
    args: tuple[Node, ...]
    type: Type
    value: Any = None
    line: int = 0
    #: The state leaves it reads, whether it reads an event or its metadata, and whether some part of it may trip a guard.
    reads: frozenset[str] = frozenset()
    fixed: bool = False
    guarded: bool = False

    def __repr__(self) -> str:
        return show(self)


@dataclass
class Builder:
    """Makes nodes, each once."""

    made: dict[Any, Node] = field(default_factory=dict)

    def node(
        self, op: str, args: tuple[Node, ...], type: Type, value: Any = None, line: int = 0, *, guarded: bool = False
    ) -> Node:
        """The one node of these parts."""
        key = (op, *map(id, args), type, repr(value))
        found = self.made.get(key)
        if found is None:
            reads = frozenset((value,)) if op == "state" else frozenset().union(*(a.reads for a in args))
            found = self.made[key] = Node(
                op, args, type, value, line, reads, op == "const", guarded or any(a.guarded for a in args)
            )
        return found

    def const(self, value: Any, type: Type, line: int = 0) -> Node:
        """A constant in lowered form."""
        return self.node("const", (), type, value, line)

    @property
    def true(self) -> Node:
        return self.const(True, BOOL)

    @property
    def false(self) -> Node:
        return self.const(False, BOOL)


@dataclass(frozen=True)
class Guard:
    """A condition under which Python would raise, or the lowered form would not be exact: then the row fold decides."""

    condition: Node
    why: str
    line: int


def walk(node: Node, seen: set[int] | None = None) -> Iterator[Node]:
    """A node and everything beneath, each once."""
    seen = set() if seen is None else seen
    if id(node) in seen:
        return
    seen.add(id(node))
    yield node
    for arg in node.args:
        yield from walk(arg, seen)


def rewritten(node: Node, change: Callable[[Node], Node | None], build: Builder) -> Node:
    """The expression with some nodes replaced: `change` gives the replacement, or None to look inside."""
    found = change(node)
    if found is not None:
        return found
    if not node.args:
        return node
    args = tuple(rewritten(arg, change, build) for arg in node.args)
    if all(a is b for a, b in zip(args, node.args, strict=True)):
        return node
    return build.node(node.op, args, node.type, node.value, node.line, guarded=node.guarded)


def show(node: Node) -> str:
    """An expression as text, for people."""
    if node.op == "const":
        return repr(node.value)
    if node.op == "state":
        return f"self.{node.value}"
    if node.op in ("event", "meta", "source", "var"):
        return f"{node.op}.{node.value}"
    inner = ", ".join(map(show, node.args))
    return f"{node.op}({inner}{f'; {node.value!r}' if node.value is not None else ''})"
