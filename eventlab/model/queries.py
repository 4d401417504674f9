"""Queries: named, typed questions, each with the answer that it asks a lab or a moment for."""

from __future__ import annotations

import dataclasses
import inspect
import sys
from typing import Any, Final, Protocol, TypeVar, dataclass_transform

from eventlab.errors import ModelError, StaleType
from eventlab.model.events import Registry, description, freeze
from eventlab.model.types import field_type, type_hints

C = TypeVar("C", bound=type[Any])
A_co = TypeVar("A_co", covariant=True)
_MARK: Final = "__eventlab_query__"


class Question(Protocol[A_co]):
    """What `lab.ask` takes: something that answers itself from what it is given to read."""

    def answer(self, lab: Any, /) -> A_co:
        """The answer, as of the place that `lab` reads at."""
        ...


class QueryType:
    """What eventlab knows of a query class."""

    def __init__(self, cls: type[Any], hints: dict[str, Any]) -> None:
        self.cls, self.name, self.stale, self.doc = cls, cls.__name__, False, description(cls)
        self.fields = tuple((f.name, field_type(hints[f.name], f"{cls.__name__}.{f.name}")) for f in dataclasses.fields(cls))

    def check(self, question: Any) -> None:
        """Refuse a question whose values do not fit its types."""
        if self.stale:
            raise StaleType(f"this {self.name} is an instance of a class that was defined again since", hint="make it again")
        for name, kind in self.fields:
            kind.put(getattr(question, name), f"{self.name}.{name}", [])


#: The query classes of this process.
QUERIES: Final = Registry()


@dataclass_transform(frozen_default=True)
def query(cls: C, /) -> C:
    """A question with a name and typed values: a frozen dataclass whose `answer(self, lab)` reads what it needs.

    It is asked with `lab.ask(question)`, or of a moment. `answer` is given that lab or moment, and reads nothing else.

    >>> import eventlab as el
    >>> @el.event
    ... class HeronSeen:
    ...     "Somebody saw a heron."
    ...     where: str
    >>> @el.query
    ... class HeronsAt:
    ...     "How often was a heron seen at a place?"
    ...     where: str
    ...     def answer(self, lab) -> int:
    ...         return lab.sql("select count(*) from types.heron_seen where \\"where\\" = ?", self.where).item()
    >>> lab = el.scratch()
    >>> done = lab.append("pond-1", [HeronSeen("north"), HeronSeen("south"), HeronSeen("north")])
    >>> lab.ask(HeronsAt("north"), at_least=done), lab.at(position=1).ask(HeronsAt("north"))
    (2, 1)
    """
    scope = sys._getframe(1)
    made = freeze(cls)
    answer = getattr(made, "answer", None)
    if not inspect.isfunction(answer) or len(inspect.signature(answer).parameters) != 2:
        raise ModelError(f"query {cls.__name__} has no answer(self, lab)", hint="def answer(self, lab) -> int: return lab.…")
    kind = QueryType(made, type_hints(made, scope.f_locals, made.__name__))
    setattr(made, _MARK, kind)
    QUERIES.add(kind)
    return made


def query_type(cls: type[Any]) -> QueryType:
    """The `QueryType` of a query class; `ModelError` when it is none."""
    kind = vars(cls).get(_MARK)
    if not isinstance(kind, QueryType):
        raise ModelError(f"{cls.__name__} is not a query", hint="decorate its class with @el.query")
    return kind
