"""Events and commands: frozen, typed dataclasses with a stable stored name."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import operator
import sys
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar, dataclass_transform, overload

from eventlab.errors import InvalidValue, ModelError, SchemaConflict, StaleType, UnknownType
from eventlab.model.names import Finding, check_distinct, check_type_name, command_findings, event_findings
from eventlab.model.schema import Schema
from eventlab.model.source import keep_text
from eventlab.model.types import (
    FieldType,
    Leaf,
    Record,
    as_uuid,
    check_declared,
    check_positional,
    checked,
    classes_in,
    field_type,
    type_hints,
)
from eventlab.model.upcasting import Upcaster, chain_of, check_step, inherited, step_of, upcast_columns

C = TypeVar("C", bound=type[Any])
F = TypeVar("F", bound=Callable[..., Any])
_MARK: Final = "__eventlab_type__"
MAX_SCHEMA_VERSION: Final = 32_767


class EventType:
    """What eventlab knows of an event class: name, schema version, and how its fields are stored and read back."""

    def __init__(self, cls: type[Any], name: str, version: int, named: bool, hints: dict[str, Any]) -> None:
        self.cls = cls
        self.name = check_type_name(name)
        self.version = version
        self.named = named
        self.stale = False
        #: Steps from older versions, by the version they begin at.
        self.upcasters: dict[int, Upcaster] = {}
        #: Steps back to older versions, by the version they lead to.
        self.downcasters: dict[int, Upcaster] = {}
        self.fields: tuple[tuple[str, FieldType], ...] = tuple(
            (f.name, field_type(hints[f.name], f"{name}.{f.name}")) for f in dataclasses.fields(cls)
        )
        check_distinct([name for name, _ in self.fields], f"event {name}")
        #: Dataclasses and enums that the fields are made of.
        self.parts = tuple(dict.fromkeys(part for f in dataclasses.fields(cls) for part in classes_in(hints[f.name])))
        keep_text((cls, *self.parts))
        self._columns = tuple((field, kind, tuple(leaf.column for leaf in kind.leaves(field))) for field, kind in self.fields)
        self._values = _getter([field for field, _ in self.fields])
        self._puts = tuple((f"{name}.{field}", kind, None if isinstance(kind, Record) or kind.limits else kind.check)
                           for field, kind in self.fields)  # fmt: skip
        #: The checks of all fields, where each is all that `put` does to a value that is not None.
        checks = tuple((check, path) for path, _, check in self._puts if check is not None)
        self._checks = checks if len(checks) == len(self._puts) else ()
        self.leaves: tuple[Leaf, ...] = tuple(leaf for field, kind in self.fields for leaf in kind.leaves(field))
        self.tag_fields = tuple(field for field, kind in self.fields if kind.is_tag)
        self.schema = Schema(
            name,
            version,
            tuple(leaf.column for leaf in self.leaves),
            tuple(f"{field}: {kind.declared}" for field, kind in self.fields),
            description(cls),
            f"{cls.__module__}:{cls.__qualname__}",
            tuple(field.name for field in self._with_default()),
        )

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
        values = self._values(event)
        if self._checks:
            made = [
                None if value is None else check(value, path) for value, (check, path) in zip(values, self._checks, strict=True)
            ]
            if None not in made:
                return tuple(made)
        out: list[Any] = []
        for value, (path, kind, check) in zip(values, self._puts, strict=True):
            if check is None or value is None:
                kind.put(value, path, out)
            else:  # what `put` would do
                out.append(check(value, path))
        return tuple(out)

    def encode_all(self, events: Sequence[Any]) -> list[tuple[Any, ...]]:
        """The stored form of the payloads of several events, field by field where that can be; otherwise like `encode`."""
        if self._checks and not self.stale and len(events) > 1:
            found = []
            with contextlib.suppress(InvalidValue):  # which event it is that does not fit is said below
                for values, (check, path) in zip(zip(*map(self._values, events), strict=True), self._checks, strict=True):
                    column = checked(check, values, path)
                    if column is None:
                        break
                    found.append(column)
                else:
                    return list(zip(*found, strict=True))
        return list(map(self.encode, events))

    def tags(self, event: Any) -> tuple[str, ...]:
        """The tags that the fields declared `Tag[...]` carry: `customer:c9`."""
        if not self.tag_fields:
            return ()
        return tuple(tag_text(name, getattr(event, name)) for name in self.tag_fields if getattr(event, name) is not None)

    def decode(self, schema: Schema, columns: Sequence[list[Any]]) -> list[Any]:
        """Events from one list of stored values per leaf of the stored `schema`; any one list says how many where it has none.

        A field that the stored version does not have takes its default; a field without one is `SchemaConflict`.
        """
        count = len(columns[0]) if columns else 0
        if self.upcasters and chain_of(self, schema):
            columns, schema = upcast_columns(self, schema, columns[: len(schema.columns)], count), self.schema
            columns = columns or [[None] * count]
        stored = dict(zip(schema.columns, columns, strict=False))
        arguments = [self._argument(name, kind, wanted, schema, stored, count) for name, kind, wanted in self._columns]
        return list(map(self.cls, *arguments)) if arguments else [self.cls() for _ in range(count)]

    def plain_fields(self, schema: Schema) -> tuple[tuple[int, Leaf, FieldType], ...] | None:
        """Each field with its only stored column and the place of it; None unless fields and columns are one to one."""
        if self.upcasters and chain_of(self, schema):
            return None
        leaves = {leaf.column: (at, leaf) for at, leaf in enumerate(schema.leaves)}
        found = [(*leaves[wanted[0]], kind) for _, kind, wanted in self._columns if len(wanted) == 1 and wanted[0] in leaves]
        return tuple(found) if len(found) == len(self.fields) == len(leaves) else None

    def normal(self, event: Any) -> Any:
        """The event as the log will give it back: moments in UTC, decimals at their scale, a list where a tuple was given."""
        return self.decode(self.schema, [[value] for value in self.encode(event)] or [[None]])[0]

    def has_default(self, name: str) -> bool:
        """Whether a field may be left out."""
        return any(field.name == name for field in self._with_default())

    def default(self, name: str) -> Any:
        """What a field is where it is left out."""
        field = next(field for field in self._with_default() if field.name == name)
        return field.default_factory() if callable(field.default_factory) else field.default

    def _with_default(self) -> Iterator[dataclasses.Field[Any]]:
        return (f for f in dataclasses.fields(self.cls) if not (f.default is f.default_factory is dataclasses.MISSING))

    def _argument(
        self,
        name: str,
        kind: FieldType,
        wanted: tuple[str, ...],
        schema: Schema,
        stored: dict[str, list[Any]],
        count: int,
    ) -> list[Any]:
        """The values of one field, stored in the columns `wanted`, for `decode`."""
        found = [stored[column] for column in wanted if column in stored]
        if len(found) == len(wanted):
            return kind.decode_columns(found)
        # A field that is stored in another form is not a missing one: a default would hide what was recorded.
        others = [leaf.column for leaf in schema.leaves if leaf.path == name or leaf.path.startswith(f"{name}.")]
        if others:
            raise SchemaConflict(
                f"{self.name}.{name} is stored as {', '.join(others)} in version {schema.version}, now {', '.join(wanted)}",
                hint="keep the field as it was, and give the new form a name of its own with a default",
                type=self.name,
                field=name,
            )
        if not self.has_default(name):
            raise SchemaConflict(
                f"{self.name}.{name} is not in version {schema.version} of the stored {self.name}, and has no default",
                hint=self._way_out(name, wanted, schema),
                type=self.name,
                field=name,
            )
        return [self.default(name)] * count


    def _way_out(self, name: str, wanted: tuple[str, ...], schema: Schema) -> str:
        """What to write for a field that a version does not have; one of the same form that is gone may be its old name."""
        forms = [column.partition(":")[2] for column in wanted]
        names = dict.fromkeys(leaf.path.split(".")[0] for leaf in schema.leaves)
        gone = [of for of in names if of not in {field for field, _ in self.fields}]
        same = [of for of in gone if [leaf.tag for leaf in schema.leaves if leaf.path.split(".")[0] == of] == forms]
        asked = f"was {' or '.join(same)} renamed? " if same else ""
        if self.version <= schema.version:
            return f"{asked}give {name} a default, or keep version={schema.version} and its fields"
        step = f"@el.upcast({self.cls.__name__}, from_version={schema.version})"
        return f"{asked}{step} on a function of the old payload gives the fields of version {schema.version + 1}; or a default"


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
    if isinstance(tags, str):
        raise InvalidValue(f"tags={tags!r} is text, and each of its letters would be a tag", hint=f"tags=[{tags!r}]")
    return New(event, None if id is None else as_uuid(id, "id"), occurred_at, tuple(tags))


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
        made = freeze(cls)
        if type(version) is not int or not 1 <= version <= MAX_SCHEMA_VERSION:
            raise ModelError(
                f"{cls.__name__}: a schema version is a whole number from 1 to {MAX_SCHEMA_VERSION:,}, and {version!r} is not"
            )
        stored = cls.__name__ if name is None else name
        kind = EventType(made, stored, version, name is not None, type_hints(made, scope.f_locals, made.__name__))
        setattr(made, _MARK, kind)
        EVENTS.add(kind)
        return made

    return wrap(cls) if cls is not None else wrap


def upcast(cls: type[Any], *, from_version: int) -> Callable[[F], F]:
    """A step from an older schema version of an event to the next: takes the old payload, gives the fields of the new one.

    `old.sku` and `old["sku"]` are plain values; what is given is checked like an event that is appended. Steps chain, from
    version 1 to 2 to 3; a version that only gained fields with defaults needs none. A step is lifted with the fold, also where
    it computes; what is not read, such as a loop or a computed name, runs in Python for the events of its version, and
    `lab.explain(Model)` names the line. `eventlab.testing.given_stored` tests it.

    >>> @event(version=2)
    ... class PriceNamed:
    ...     "A price was named."
    ...     cents: int
    ...     currency: str
    >>> @upcast(PriceNamed, from_version=1)
    ... def in_euros(old):
    ...     return {"cents": old.amount, "currency": "EUR"}
    >>> event_type(PriceNamed).decode(Schema("PriceNamed", 1, ("amount:i64",)), [[950]])
    [PriceNamed(cents=950, currency='EUR')]
    """
    kind = event_type(cls)
    check_step(kind, from_version)

    def wrap(function: F) -> F:
        kind.upcasters[from_version] = step_of(kind, function, from_version, kind.upcasters, f"from version {from_version}")
        EVENTS.generation += 1
        return function

    return wrap


def downcast(cls: type[Any], *, to_version: int) -> Callable[[F], F]:
    """A step back, from a schema version of an event to the one before, for readers that know no newer one.

    Like `upcast` the other way round: takes the fields of the newer version, gives those of `to_version`. Used by
    `lab.read(…).versioned(ItemAdded, 1)`, and by nothing else.
    """
    kind = event_type(cls)
    check_step(kind, to_version)

    def wrap(function: F) -> F:
        kind.downcasters[to_version] = step_of(kind, function, to_version, kind.downcasters, f"back to version {to_version}")
        return function

    return wrap


class CommandType:
    """What eventlab knows of a command class."""

    def __init__(self, cls: type[Any], hints: dict[str, Any]) -> None:
        self.cls, self.name, self.stale = cls, cls.__name__, False
        self.fields = tuple((f.name, field_type(hints[f.name], f"{cls.__name__}.{f.name}")) for f in dataclasses.fields(cls))
        #: What fields are that are left out; what a function makes for each command is not among them.
        self.defaults = {f.name: f.default for f in dataclasses.fields(cls) if f.default is not dataclasses.MISSING}

    def check(self, command: Any) -> None:
        """Refuse a command whose values do not fit its types, before any model sees it."""
        if self.stale:
            raise StaleType(f"this {self.name} is an instance of a class that was defined again since", hint="make it again")
        self.encode(command)

    def encode(self, command: Any) -> tuple[Any, ...]:
        """The stored form of a command's values; `InvalidValue` names the field that does not fit."""
        out: list[Any] = []
        for name, kind in self.fields:
            kind.put(getattr(command, name), f"{self.name}.{name}", out)
        return tuple(out)


@dataclass_transform(frozen_default=True)
def command(cls: C, /) -> C:
    """An order in the imperative: a frozen, typed dataclass that a model's `decide` answers with events or `Rejected`."""
    scope = sys._getframe(1)
    made = freeze(cls)
    kind = CommandType(made, type_hints(made, scope.f_locals, made.__name__))
    setattr(made, _MARK, kind)
    COMMANDS.add(kind)
    return made


def freeze(cls: C) -> C:
    """The class as a frozen dataclass."""
    if not isinstance(cls, type):
        raise ModelError(f"{cls!r} is no class", hint="the decorator stands above a class; a stored name is name=…")
    if "__dataclass_params__" in vars(cls):
        raise ModelError(f"{cls.__name__} is a dataclass already", hint="leave @dataclass out: eventlab makes it one")
    check_declared(cls)
    try:
        dataclass(frozen=True)(cls)  # it adds methods to the class it is given
    except ValueError as why:  # a mutable default such as {} or []
        raise ModelError(f"{cls.__name__}: {why}", hint="for an empty dict write el.field(default_factory=dict)") from None
    except TypeError as why:  # the order of defaults, or a base that is not frozen
        raise ModelError(f"{cls.__name__}: {why}", hint="fields without a default come first; its bases are frozen too") from None
    check_positional(cls)
    for field in dataclasses.fields(cls):
        if field.name.startswith("_"):
            raise ModelError(f"{cls.__name__}.{field.name}: a field may not begin with an underscore", hint="envelope columns do")
    return cls


def description(cls: type[Any]) -> str:
    """A class's docstring, without the signature that dataclasses put where there is none."""
    doc = cls.__doc__ or ""
    return "" if doc.startswith(f"{cls.__name__}(") else " ".join(doc.split())


# -- the registry --------------------------------------------------------------------------------------------------------


class Registry:
    """The event or command classes of this process, by stored name and place of definition.

    A class defined again in the same place supersedes the old one, be it with another name or version; the same name in
    two places keeps both, and `named` asks which is meant. The last `keep` definitions of a place that were superseded stay
    at hand as `earlier` ones.
    """

    def __init__(self, keep: int = 0) -> None:
        self.generation = 0
        self._keep = keep
        self._earlier: dict[str, tuple[Any, ...]] = {}
        self._kinds: dict[str, dict[str, Any]] = {}
        self._places: dict[str, Any] = {}

    def add(self, kind: Any) -> None:
        place = _place(kind)
        old = self._places.get(place)
        if old is not None:
            old.stale = True
            del self._kinds[old.name][place]
            if isinstance(kind, EventType) and isinstance(old, EventType):
                # Until its own are defined: without them old events would be read by their defaults, silently.
                kind.upcasters = inherited(old.upcasters, kind.version)
                kind.downcasters = inherited(old.downcasters, kind.version)
            self._earlier[place] = (old, *self._earlier.get(place, ()))[: self._keep]
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

    def earlier(self, kind: Any) -> list[Any]:
        """The definitions that stood in the place of this one and were superseded, the last one first."""
        return list(self._earlier.get(_place(kind), ()))


def _place(kind: Any) -> str:
    return f"{kind.cls.__module__}:{kind.cls.__qualname__}"


EVENTS = Registry()
COMMANDS = Registry()


def _getter(names: Sequence[str]) -> Callable[[Any], tuple[Any, ...]]:
    """The values of these fields of an event."""
    if len(names) > 1:
        return operator.attrgetter(*names)
    return lambda event: tuple(getattr(event, name) for name in names)


def event_type(cls: type[Any]) -> EventType:
    """The `EventType` of an event class; `ModelError` when it is none."""
    kind = vars(cls).get(_MARK) if isinstance(cls, type) else None
    if not isinstance(kind, EventType):
        raise ModelError(f"{_called(cls)} is not an event", hint=_way_to(cls, EventType, "event", kind))
    return kind


def _called(cls: Any) -> str:
    return cls.__name__ if isinstance(cls, type) else repr(cls)


def _way_to(cls: Any, wanted: type[Any], what: str, kind: Any) -> str:
    """What to write instead of something that is no event, command or model."""
    if cls is type:
        return "an instance is wanted, and this is a class: Name(…)"
    if not isinstance(cls, type):
        own = vars(type(cls)).get(_MARK)
        return f"the class alone: {type(cls).__name__}" if isinstance(own, wanted) else f"a class decorated with @el.{what}"
    if kind is not None:
        return f"it is {_KINDS.get(type(kind).__name__, 'something else')}; a class decorated with @el.{what} is wanted"
    if cls.__module__ == "builtins":
        return f"a class decorated with @el.{what}, or an instance of one"
    return f"decorate its class with @el.{what}"


_KINDS = {"EventType": "an event", "CommandType": "a command", "Model": "a model", "QueryType": "a query"}


def command_type(cls: type[Any]) -> CommandType:
    """The `CommandType` of a command class; `ModelError` when it is none."""
    kind = vars(cls).get(_MARK) if isinstance(cls, type) else None
    if not isinstance(kind, CommandType):
        raise ModelError(f"{_called(cls)} is not a command", hint=_way_to(cls, CommandType, "command", kind))
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
    """What a reviewer would say of the names and descriptions of this process's events and commands; an empty list is praise."""
    found = [f for kind in EVENTS.all() for f in event_findings(kind.name, kind.schema.doc)]
    return found + [f for kind in COMMANDS.all() for f in command_findings(kind.name, description(kind.cls))]
