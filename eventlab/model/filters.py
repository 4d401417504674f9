"""Filters: values that pick events. Others say criteria, or DCB query.

The same value serves reads, SQL, exports and append conditions. A filter is a choice of clauses; a clause asks for one
of its types, one of its streams, one of its categories, and all of its tags. No clause part means "any".
"""

from __future__ import annotations

import ast
import uuid
from collections.abc import Collection
from dataclasses import dataclass
from enum import Enum
from typing import Any

from eventlab.errors import InvalidName
from eventlab.model.events import tag_text, type_name
from eventlab.model.models import model_of
from eventlab.model.names import check_category, check_plain, split_stream


@dataclass(frozen=True)
class Clause:
    """All parts must hold; None means any."""

    types: frozenset[str] | None = None
    streams: frozenset[str] | None = None
    categories: frozenset[str] | None = None
    tags: frozenset[str] = frozenset()

    def matches(self, type: str, stream: str, tags: Collection[str]) -> bool:
        """Whether an event with this envelope is picked."""
        return (
            (self.types is None or type in self.types)
            and (self.streams is None or stream in self.streams)
            and (self.categories is None or stream.partition("-")[0] in self.categories)
            and (not self.tags or self.tags.issubset(tags))
        )

    def __and__(self, other: Clause) -> Clause:
        return Clause(
            _meet(self.types, other.types),
            _meet(self.streams, other.streams),
            _meet(self.categories, other.categories),
            self.tags | other.tags,
        )

    def __str__(self) -> str:
        parts = [f"events({', '.join(sorted(self.types))})"] if self.types is not None else []
        parts += [f"stream({', '.join(sorted(self.streams))})"] if self.streams is not None else []
        parts += [f"category({', '.join(sorted(self.categories))})"] if self.categories is not None else []
        parts += [f"tag({tag})" for tag in sorted(self.tags)]
        return " & ".join(parts) or "everything"


@dataclass(frozen=True)
class Filter:
    """Picks the events that any of its clauses picks; combine with `&` and `|`.

    >>> str(events("Paid") & tag(customer="c9") | stream("order-7"))
    'events(Paid) & tag(customer:c9) | stream(order-7)'
    """

    clauses: tuple[Clause, ...]

    def __and__(self, other: Filter) -> Filter:
        if not isinstance(other, Filter):
            return NotImplemented
        return Filter(tuple(dict.fromkeys(a & b for a in self.clauses for b in other.clauses)))

    def __or__(self, other: Filter) -> Filter:
        if not isinstance(other, Filter):
            return NotImplemented
        return Filter(tuple(dict.fromkeys(self.clauses + other.clauses)))

    def matches(self, type: str, stream: str, tags: Collection[str]) -> bool:
        """Whether an event with this envelope is picked."""
        return any(clause.matches(type, stream, tags) for clause in self.clauses)

    @property
    def categories(self) -> frozenset[str] | None:
        """The categories that can hold a match, or None for any: what a scan may leave unread."""
        found: set[str] = set()
        for clause in self.clauses:
            if clause.categories is not None:
                found |= clause.categories
            elif clause.streams is not None:
                found |= {stream.partition("-")[0] for stream in clause.streams}
            else:
                return None
        return frozenset(found)

    @property
    def streams(self) -> frozenset[str] | None:
        """The streams that can hold a match, or None for any."""
        found: set[str] = set()
        for clause in self.clauses:
            if clause.streams is None:
                return None
            found |= clause.streams
        return frozenset(found)

    def __str__(self) -> str:
        return " | ".join(map(str, self.clauses)) or "nothing"

    def code(self, prefix: str = "el.") -> str:
        """The Python that makes it; `parse` takes it too.

        >>> print((events("Paid") & tag("customer:c9")).code())
        el.events('Paid') & el.tag('customer:c9')
        """
        return " | ".join(_code(clause, prefix) for clause in self.clauses) or f"{prefix}events()"


def parse(text: str) -> Filter:
    """The filter that a person typed: Python of events, stream, category and tag with & and |, or single words.

    A word with a dash names a stream, one with a colon is a tag, one that begins small a category, any other a type.

    >>> print(parse("OrderPaid | order-7"))
    events(OrderPaid) | stream(order-7)
    >>> print(parse("tag(customer='c9') & events('Paid')"))
    events(Paid) & tag(customer:c9)
    >>> print(parse(""))
    everything
    """
    if not text.strip():
        return EVERYTHING
    try:
        return _made(ast.parse(text.strip(), mode="eval").body)
    except (SyntaxError, ValueError, RecursionError):
        pass
    found = None
    for part in text.split("|"):
        met = None
        for word in part.split("&"):
            one = _word(word.strip())
            met = one if met is None else met & one
        if met is not None:
            found = met if found is None else found | met
    return found if found is not None else EVERYTHING


def _code(clause: Clause, prefix: str) -> str:
    parts = []
    for name, values in (("events", clause.types), ("stream", clause.streams), ("category", clause.categories)):
        if values is not None:
            parts.append(f"{prefix}{name}({', '.join(map(repr, sorted(values)))})")
    if clause.tags:
        parts.append(f"{prefix}tag({', '.join(map(repr, sorted(clause.tags)))})")
    return " & ".join(parts) or f"{prefix}events()"


def _made(node: ast.expr) -> Filter:
    """A filter from its Python; ValueError where that is something else."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, (ast.BitOr, ast.BitAnd)):
        left, right = _made(node.left), _made(node.right)
        return left | right if isinstance(node.op, ast.BitOr) else left & right
    if isinstance(node, ast.Call):
        name = node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id if isinstance(node.func, ast.Name) else ""
        make = {"events": events, "stream": stream, "category": category, "tag": tag}.get(name)
        values = [_text(of) for of in node.args]
        named = {of.arg: _text(of.value) for of in node.keywords if of.arg is not None}
        if make is not None and (not named or name == "tag"):
            return make(*values, **named)
    if isinstance(node, ast.Name):
        return _word(node.id)
    raise ValueError(ast.dump(node))


def _text(node: ast.expr) -> str:
    if isinstance(node, ast.Constant) and isinstance(node.value, (str, int)):
        return str(node.value)
    if isinstance(node, ast.Name):
        return node.id
    raise ValueError(ast.dump(node))


def _word(word: str) -> Filter:
    if "-" in word:
        return stream(word)
    if ":" in word:
        return tag(word)
    return category(word) if word[:1].islower() else events(word)


EVERYTHING = Filter((Clause(),))


def events(*types: type[Any] | str) -> Filter:
    """Events of these types, by class or stored name; none given picks every event."""
    return Filter((Clause(types=frozenset(map(type_name, types)) if types else None),))


def tag(*texts: str, **named: str | int | uuid.UUID | Enum) -> Filter:
    """Events with all these tags: `tag(customer="c9")` or `tag("customer:c9", "vip")`."""
    tags = [*texts, *(tag_text(name, value) for name, value in named.items())]
    if not tags:
        raise InvalidName("tag() asks for a tag", hint='tag(customer="c9") or tag("vip")')
    return Filter((Clause(tags=frozenset(check_plain(text, "tag") for text in tags)),))


def stream(*names: str) -> Filter:
    """Events of these streams."""
    for name in names:
        split_stream(name)
    return Filter((Clause(streams=frozenset(names)),))


def category(*names: str | type[Any]) -> Filter:
    """Events of every stream of these categories, by name or by aggregate class."""
    return Filter((Clause(categories=frozenset(map(_category, names))),))


def _category(which: str | type[Any]) -> str:
    if isinstance(which, str):
        return check_category(which)
    name = model_of(which).category
    if name is None:
        raise InvalidName(f"{which.__name__} is a projection, and has no category", hint="name the events it reads: events(…)")
    return name


def _meet(one: frozenset[str] | None, other: frozenset[str] | None) -> frozenset[str] | None:
    if one is None or other is None:
        return other if one is None else one
    return one & other
