"""Events and commands: frozen, typed dataclasses with a stable stored name."""

from __future__ import annotations

import dataclasses
import datetime as dt
import sys
import typing
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar, dataclass_transform, overload

from eventlab.errors import ModelError, SchemaConflict, StaleType, UnknownType
from eventlab.model.names import Finding, check_distinct, check_type_name, command_findings, event_findings
from eventlab.model.schema import Schema
from eventlab.model.types import FieldType, Leaf, field_type

C = TypeVar("C", bound=type[Any])
_MARK: Final = "__eventlab_type__"


class EventType:
    """What eventlab knows of an event class: name, schema version, and how its fields are stored and read back."""

    def __init__(self, cls: type[Any], name: str, version: int, named: bool, hints: dict[str, Any]) -> None:
        self.cls = cls
        self.name = check_type_name(name)
        self.version = version
        self.named = named
        self.stale = False
        self.fields: tuple[tuple[str, FieldType], ...] = tuple(
            (f.name, field_type(hints[f.name], f"{name}.{f.name}")) for f in dataclasses.fields(cls)
        )
        check_distinct([name for name, _ in self.fields], f"event {name}")
        self.leaves: tuple[Leaf, ...] = tuple(leaf for field, kind in self.fields for leaf in kind.leaves(field))
        self.tag_fields = tuple(field for field, kind in self.fields if kind.is_tag)
        self.schema = Schema(
            name,
            version,
            tuple(leaf.column for leaf in self.leaves),
            tuple(f"{field}: {kind.declared}" for field, kind in self.fields),
            description(cls),
            f"{cls.__module__}:{cls.__qualname__}",
        )
        self._defaults = {
            f.name: f for f in dataclasses.fields(cls) if not (f.default is f.default_factory is dataclasses.MISSING)
        }

    def __repr__(self) -> str:
        return f"EventType({self.name!r}, version={self.version})"

    def encode(self, event: Any) -> tuple[Any, ...]:
        """The stored form of an event's payload, one value a leaf; `InvalidValue` names the field that does not fit."""
        if self.stale:
            raise StaleType(
                f"this {self.name} is an instance of a class that was defined again since",
                hint="make it again: run the cell that creates it",
                type=self.name,
            )
        out: list[Any] = []
        for name, kind in self.fields:
            kind.put(getattr(event, name), f"{self.name}.{name}", out)
        return tuple(out)

    def tags(self, event: Any) -> tuple[str, ...]:
        """The tags that the fields declared `Tag[...]` carry: `customer:c9`."""
        return tuple(tag_text(name, getattr(event, name)) for name in self.tag_fields if getattr(event, name) is not None)

    def decode(self, schema: Schema, columns: Sequence[list[Any]]) -> list[Any]:
        """Events from one list of stored values per leaf of the stored `schema`.

        A field that the stored version does not have takes its default; a field without one is `SchemaConflict`.
        """
        count = len(columns[0]) if columns else 0
        at = {column: i for i, column in enumerate(schema.columns)}
        arguments = []
        for name, kind in self.fields:
            found = [at.get(leaf.column) for leaf in kind.leaves(name)]
            if None not in found:
                arguments.append(kind.decode_columns([columns[i] for i in found if i is not None]))
            else:
                arguments.append([self._default(name, schema)] * count)
        return list(map(self.cls, *arguments)) if arguments else [self.cls() for _ in range(count)]

    def _default(self, name: str, schema: Schema) -> Any:
        field = self._defaults.get(name)
        if field is None:
            raise SchemaConflict(
                f"{self.name}.{name} is not in version {schema.version} of the stored {self.name}, and has no default",
                hint=f"give {name} a default, or keep version={schema.version} and its fields",
                type=self.name,
                field=name,
            )
        return field.default if field.default is not dataclasses.MISSING else field.default_factory()  # type: ignore[misc]


@dataclass(frozen=True)
class New:
    """An event with an id, a business time or tags of its own, ready to append; made by `new`."""

    event: Any
    id: uuid.UUID | None = None
    occurred_at: dt.datetime | None = None
    tags: tuple[str, ...] = ()


def new(
    event: Any, *, id: uuid.UUID | str | None = None, occurred_at: dt.datetime | None = None, tags: Iterable[str] = ()
) -> New:
    """Set the id, the business time or more tags of one event by hand.

    >>> new("an event", id="018f6f2c-8f6e-7cc1-9a3b-5d1a3f0c2b11").id.version
    7
    """
    return New(event, uuid.UUID(id) if isinstance(id, str) else id, occurred_at, tuple(tags))


def tag_text(name: str, value: Any) -> str:
    """The text of a tag: `customer:c9`."""
    return f"{name}:{getattr(value, 'value', value)}"


# -- the decorators ------------------------------------------------------------------------------------------------------


@overload
@dataclass_transform(frozen_default=True)
def event(cls: C, /) -> C: ...
@overload
@dataclass_transform(frozen_default=True)
def event(*, name: str | None = None, version: int = 1) -> Callable[[C], C]: ...
def event(cls: Any = None, /, *, name: str | None = None, version: int = 1) -> Any:
    """A fact in the past tense: a frozen, typed dataclass, stored under its name and schema version.

    The docstring is the business meaning. A class rename asks for `name=` (the stored name), a change of fields for the
    next `version=`.

    >>> @event
    ... class ItemAdded:
    ...     "A customer put a product in the order."
    ...     sku: str
    >>> event_type(ItemAdded).schema.columns
    ('sku:s',)
    """
    scope = sys._getframe(1)

    def wrap(cls: C) -> C:
        if version < 1:
            raise ModelError(f"{cls.__name__}: schema versions start at 1, not at {version}")
        made = freeze(cls)
        kind = EventType(made, name or cls.__name__, version, name is not None, hints_of(made, scope.f_locals))
        setattr(made, _MARK, kind)
        EVENTS.add(kind)
        return made

    return wrap(cls) if cls is not None else wrap


class CommandType:
    """What eventlab knows of a command class."""

    def __init__(self, cls: type[Any], hints: dict[str, Any]) -> None:
        self.cls, self.name, self.stale = cls, cls.__name__, False
        self.fields = tuple((f.name, field_type(hints[f.name], f"{cls.__name__}.{f.name}")) for f in dataclasses.fields(cls))

    def check(self, command: Any) -> None:
        """Refuse a command whose values do not fit its types, before any model sees it."""
        if self.stale:
            raise StaleType(f"this {self.name} is an instance of a class that was defined again since", hint="make it again")
        for name, kind in self.fields:
            kind.put(getattr(command, name), f"{self.name}.{name}", [])


@dataclass_transform(frozen_default=True)
def command(cls: C, /) -> C:
    """An order in the imperative: a frozen, typed dataclass that a model's `decide` answers with events or `Rejected`."""
    scope = sys._getframe(1)
    made = freeze(cls)
    kind = CommandType(made, hints_of(made, scope.f_locals))
    setattr(made, _MARK, kind)
    COMMANDS.add(kind)
    return made


def freeze(cls: C) -> C:
    """The class as a frozen dataclass."""
    if "__dataclass_params__" in vars(cls):
        raise ModelError(f"{cls.__name__} is a dataclass already", hint="leave @dataclass out: eventlab makes it one")
    for name in getattr(cls, "__annotations__", {}):
        if name.startswith("_"):
            raise ModelError(f"{cls.__name__}.{name}: a field may not begin with an underscore", hint="envelope columns do")
    try:
        return dataclass(frozen=True)(cls)
    except ValueError as why:  # a mutable default such as {} or []
        raise ModelError(f"{cls.__name__}: {why}", hint="for an empty dict write el.field(default_factory=dict)") from None


def hints_of(cls: type[Any], scope: dict[str, Any]) -> dict[str, Any]:
    """The type hints of a class, its names looked up where it is defined."""
    try:
        return typing.get_type_hints(cls, localns={**scope, cls.__name__: cls}, include_extras=True)
    except NameError as why:
        raise ModelError(f"{cls.__name__}: {why}", hint="define the types of its fields before the class") from None


def description(cls: type[Any]) -> str:
    """A class's docstring, without the signature that dataclasses put where there is none."""
    doc = cls.__doc__ or ""
    return "" if doc.startswith(f"{cls.__name__}(") else " ".join(doc.split())


# -- the registry --------------------------------------------------------------------------------------------------------


class Registry:
    """The event or command classes of this process, by stored name and place of definition.

    A class defined again in the same place supersedes the old one; the same name in two places keeps both, and
    `named` asks which is meant.
    """

    def __init__(self) -> None:
        self.generation = 0
        self._kinds: dict[str, dict[str, Any]] = {}
        self._places: dict[str, Any] = {}

    def add(self, kind: Any) -> None:
        place = _place(kind)
        old = self._places.get(place)
        if old is not None:
            old.stale = True
            del self._kinds[old.name][place]
        self._places[place] = kind
        self._kinds.setdefault(kind.name, {})[place] = kind
        self.generation += 1

    def all(self) -> list[Any]:
        """Every class that is not superseded, by name."""
        return [kind for name in sorted(self._kinds) for kind in self._kinds[name].values()]

    def named(self, name: str) -> list[Any]:
        """The classes of this name that are not superseded."""
        return list(self._kinds.get(name, {}).values())

    def successor(self, kind: Any) -> Any:
        """The class that took the place of this one, or the same."""
        return self._places.get(_place(kind), kind)


def _place(kind: Any) -> str:
    return f"{kind.cls.__module__}:{kind.cls.__qualname__}:{getattr(kind, 'version', 1)}"


EVENTS = Registry()
COMMANDS = Registry()


def event_type(cls: type[Any]) -> EventType:
    """The `EventType` of an event class; `ModelError` when it is none."""
    kind = vars(cls).get(_MARK) if isinstance(cls, type) else None
    if not isinstance(kind, EventType):
        shown = cls.__name__ if isinstance(cls, type) else repr(cls)
        raise ModelError(f"{shown} is not an event", hint="decorate its class with @el.event")
    return kind


def command_type(cls: type[Any]) -> CommandType:
    """The `CommandType` of a command class; `ModelError` when it is none."""
    kind = vars(cls).get(_MARK)
    if not isinstance(kind, CommandType):
        raise ModelError(f"{cls.__name__} is not a command", hint="decorate its class with @el.command")
    return kind


def event_class(name: str, among: Iterable[type[Any]] = ()) -> EventType | None:
    """The class that reads events stored under `name` here: one of `among`, else the only one of that name, else None."""
    for cls in among:
        kind = event_type(cls)
        if kind.name == name:
            return kind
    kinds: list[EventType] = EVENTS.named(name)
    newest = max((kind.version for kind in kinds), default=0)
    kinds = [kind for kind in kinds if kind.version == newest]
    if len(kinds) > 1:
        places = ", ".join(kind.schema.origin for kind in kinds)
        raise SchemaConflict(f"{len(kinds)} event classes are stored as {name!r}: {places}", hint="give one of them name=…")
    return kinds[0] if kinds else None


def type_name(which: Any) -> str:
    """The stored name of an event class, or the name itself."""
    if isinstance(which, str):
        return check_type_name(which)
    if isinstance(which, type):
        return event_type(which).name
    raise UnknownType(f"{which!r} is neither an event class nor the name of one")


def findings() -> list[Finding]:
    """What a reviewer would say of the names of this process's events and commands; an empty list is praise."""
    found = [f for kind in EVENTS.all() for f in event_findings(kind.name, kind.schema.doc)]
    return found + [f for kind in COMMANDS.all() for f in command_findings(kind.name)]
