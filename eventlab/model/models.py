"""Models: aggregates and projections, the two kinds of fold.

Both are frozen dataclasses whose fields have defaults and whose `evolve(self, event)` or `evolve(self, event, meta)`
gives the next state. An aggregate is folded by stream and may `decide`; a projection names its own `key`.
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import inspect
import sys
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Annotated, Any, Final, Literal, TypeVar, dataclass_transform, overload

from eventlab.errors import InvalidName, ModelError, NotHandled, StaleType
from eventlab.model.events import (
    COMMANDS,
    EVENTS,
    CommandType,
    EventType,
    Registry,
    command_type,
    description,
    event_type,
    freeze,
)
from eventlab.model.names import check_category, check_distinct, check_type_name, snake, split_stream
from eventlab.model.source import Trail, capture, classes_reached, code_fingerprint, keep_text
from eventlab.model.types import FieldType, classes_in, field_type, type_hints

C = TypeVar("C", bound=type[Any])
_MARK: Final = "__eventlab_model__"
_FORBIDDEN: Final = ("__post_init__", "__init__", "__new__", "__eq__", "__getattr__", "__getattribute__")


class Model:
    """What eventlab knows of an aggregate or a projection class."""

    def __init__(
        self, cls: type[Any], kind: Literal["aggregate", "projection"], name: str | None, scope: dict[str, Any], *, local: bool,
        source: Model | None = None,
    ) -> None:  # fmt: skip
        self.cls, self.kind, self.stale = cls, kind, False
        #: Of a projection that is keyed by state: the aggregate whose state it is, and whose events it folds.
        self.source = source
        #: Whether it claims that the order of a key's events does not matter.
        self.any_order = False
        #: As of an occurrence: whether its events are sorted by theirs, and which of them correct others.
        self.late: Literal["sorted"] | None = None
        self.corrections: tuple[EventType, ...] = ()
        self.name = check_type_name(snake(cls.__name__ if name is None else name))
        if kind == "aggregate":
            check_category(self.name)
        hints = type_hints(cls, scope, cls.__name__)
        self.fields: tuple[tuple[str, FieldType], ...] = tuple(
            (f.name, field_type(hints[f.name], f"{cls.__name__}.{f.name}", limited=False)) for f in dataclasses.fields(cls)
        )
        check_distinct([field for field, _ in self.fields], f"{kind} {cls.__name__}")
        self._scope = _named_in(scope if local else {}, cls)
        #: Classes that the state's fields are made of: `evolve` may call their methods without naming them.
        self._parts = tuple(dict.fromkeys(part for hint in hints.values() for part in classes_in(hint)))
        self.evolve = _method(cls, "evolve", kind)
        self.takes_meta = _takes_meta(self.evolve, cls, self_first=True)
        self.decide = _method(cls, "decide", kind) if hasattr(cls, "decide") else None
        if self.decide is not None:
            _takes_one(self.decide, cls)
        self.key = _key_function(cls, kind)
        #: How many parameters `key` has: the event and its meta, or the state first and then these.
        self.key_takes = _key_takes(self.key, cls, source) if self.key is not None else 0
        self.key_takes_meta = self.key_takes == (2 if source is None else 3)
        if source is not None and self.key is not None:
            self._refuse_other_state(self.key, source)
        self.key_fields = self._key_fields()
        both = [name for name, _ in self.fields if name in self.key_names]
        if both:
            raise ModelError(
                f"{kind} {cls.__name__} has {both[0]} both as a field and as a column of its key",
                hint="leave the field out: the key's columns are in the table",
                field=both[0],
            )
        check_distinct([*self.key_names, *(field for field, _ in self.fields)], f"{kind} {cls.__name__}")
        self._initial = initial = _initial(cls)
        self._shares = not any(_holds_mutable(getattr(initial, field)) for field, _ in self.fields)
        stored: list[Any] = []
        for field, of in self.fields:
            of.put(getattr(initial, field), f"the default of {cls.__name__}.{field}", stored)
        #: Key, state and the state before the first event, in stored form: part of the fingerprint.
        self.shape = f"{self._columns_text()};{stored!r}"
        self._functions = {"evolve": self.evolve} if self.key is None else {"evolve": self.evolve, "key": self.key}
        #: What stands in the place of an event when it is folded, by the event's type.
        self._instead: dict[EventType, types.FunctionType] = {}
        self._stands_in: tuple[int, dict[type[Any], types.FunctionType], frozenset[type[Any]] | None] = (-1, {}, None)
        self._fingerprint: tuple[int, str, Trail] | None = None
        #: After it was superseded: what its code reaches by name and what has changed since it was last folded.
        self.changed: tuple[str, ...] = ()
        self._handled: tuple[int, tuple[EventType, ...] | None] | None = None
        self._decides: tuple[int, tuple[type[Any], ...] | None] | None = None
        keep_text((cls, *self._parts))

    def __repr__(self) -> str:
        return f"Model({self.name!r}, {self.kind})"

    @property
    def initial(self) -> Any:
        """The state before the first event; one of its own for whoever asks, where somebody could change what it holds."""
        return self._initial if self._shares else copy.deepcopy(self._initial)

    @property
    def category(self) -> str | None:
        """The category whose streams an aggregate folds; None for a projection."""
        return self.name if self.kind == "aggregate" else None

    @property
    def read_category(self) -> str | None:
        """The one category whose events are folded: an aggregate's own, or that of a projection's source; None for any."""
        return self.category if self.source is None else self.source.category

    def stream(self, id: str) -> str:
        """The name of the stream of one aggregate; `InvalidName` where the id is none."""
        if not isinstance(id, str):
            raise InvalidName(f"{id!r} ({type(id).__name__}) is no id of {self.cls.__name__}", hint=f"text: {str(id)!r}")
        if id.startswith(f"{self.category}-"):
            said = f"the id {id!r} begins with the category {self.category!r}, and would make the stream '{self.category}-{id}'"
            raise InvalidName(said, hint=f"the id alone: {id.removeprefix(f'{self.category}-')!r}")
        name = f"{self.category}-{id}"
        split_stream(name)
        return name

    @property
    def key_names(self) -> tuple[str, ...]:
        """The columns that name a row: `_id`, or the fields of the key's named tuple."""
        return tuple(name for name, _ in self.key_fields)

    @property
    def columns(self) -> tuple[tuple[str, FieldType], ...]:
        """The columns of the model's table: key, state, `_version`, `_position`."""
        whole = field_type(int, self.name)
        return (*self.key_fields, *self.fields, ("_version", whole), ("_position", whole))

    @property
    def handled(self) -> tuple[EventType, ...] | None:
        """The event types that `evolve` lists, their current classes; None when it takes every event.

        Looked up again when an event class was defined since; a class kept alive in a closure of `evolve` after it was
        superseded is `StaleType`, for its `case` would never match again.
        """
        if self._handled is None or self._handled[0] != EVENTS.generation:
            self._handled = (EVENTS.generation, self._resolve_handled())
        return self._handled[1]

    @property
    def instead(self) -> dict[type[Any], types.FunctionType]:
        """By event class: the function that gives what is folded in the place of such an event."""
        if self._stands_in[0] != EVENTS.generation:
            listed = self._annotated(self.evolve, "evolve") if self._instead else None
            taken = None if listed is None else frozenset(EVENTS.successor(event_type(cls)).cls for cls in listed)
            now = {EVENTS.successor(kind).cls: function for kind, function in self._instead.items()}
            # What a definition before this one put in the place of an event that this one takes itself is no more.
            now = {cls: function for cls, function in now.items() if cls not in (taken or ())}
            self._stands_in = (EVENTS.generation, now, taken)
        return self._stands_in[1]

    def replace(self, kind: EventType, function: types.FunctionType) -> None:
        """From here on fold what `function` gives in the place of events of this type."""
        listed = self._annotated(self.evolve, "evolve")
        if listed is not None and kind.cls in listed:
            raise ModelError(
                f"{self.cls.__name__}.evolve takes {kind.cls.__name__} itself", hint="leave it out of evolve, or of el.instead"
            )
        capture(function)
        self._instead = {of: made for of, made in self._instead.items() if of.name != kind.name} | {kind: function}
        self._stands_in, self._handled, self._fingerprint = (-1, {}, None), None, None

    def parts(self, event: Any) -> tuple[Any, ...] | None:
        """The events that stand in the place of this one; None where it stands for itself."""
        function = self.instead.get(event.__class__)
        if function is None:
            return None
        given = function(event)
        if not isinstance(given, (tuple, list)):
            raise TypeError(f"{function.__name__} gave {given!r}, not a tuple of events: (event,) for one, () for none")
        found = tuple(given)
        for part in found:
            if not self.takes(part.__class__):
                raise TypeError(f"{function.__name__} gave {part!r}, which evolve does not take")
        return found

    def takes(self, cls: type[Any]) -> bool:
        """Whether `evolve` takes events of a class as they are."""
        if cls in self.instead:
            return False
        taken = self._stands_in[2]
        return cls in taken if taken is not None else isinstance(vars(cls).get("__eventlab_type__"), EventType)

    def step(self, state: Any, event: Any, *meta: Any) -> Any:
        """The state after an event, or after those that stand in its place."""
        parts = self.parts(event)
        if parts is None:
            return state.evolve(event, *meta)
        for part in parts:
            if state.__class__ is not self.cls:
                break
            state = state.evolve(part, *meta)
        return state

    def row(self, event: Any, meta: Any, state: Any = None) -> Any:
        """The key of an event, or the one key of those that stand in its place; None passes it over.

        `state` is that of the source after the event.
        """
        assert self.key is not None
        first, last = () if self.source is None else (state,), (meta,) if self.key_takes_meta else ()
        if self.source is not None and self.key_takes == 1:
            return self.key(state)
        parts = self.parts(event) if self.instead else None
        if parts is None:
            return self.key(*first, event, *last)
        keys = [self.key(*first, part, *last) for part in parts]
        if any(key != keys[0] for key in keys):
            raise ValueError(f"what stands in its place belongs to several rows: {', '.join(map(repr, dict.fromkeys(keys)))}")
        return keys[0] if keys else None

    @property
    def fingerprint(self) -> str:
        """32 hex digits: the code of `evolve` and `key` with what they reach, the state's shape, the events' schemas, the source.

        Made again when anything it was made from was put in the place of something else.
        """
        own = self._own_fingerprint()
        return own if self.source is None else hashlib.sha256(f"{own};{self.source.fingerprint}".encode()).hexdigest()[:32]

    def _own_fingerprint(self) -> str:
        made = self._fingerprint
        if made is not None and made[0] == EVENTS.generation and made[2].holds():
            return made[1]
        handled = self.handled
        events = "*" if handled is None else ",".join(sorted(kind.schema.fingerprint for kind in handled))
        classes = {part for kind in handled or () for part in (kind.cls, *kind.parts)} | set(self._parts)
        steps = {
            f"upcast {kind.name} {version}": step.function
            for kind in (EVENTS.all() if handled is None else handled)
            for version, step in kind.upcasters.items()
        }
        others = {f"instead of {event_type(cls).name}": function for cls, function in self.instead.items()}
        functions: dict[str, Any] = {**self._functions, **others, **steps}
        digest, trail = code_fingerprint(functions, f"{self.kind};{self.name};{self.shape};{events}", self.cls, classes)
        if self.stale and made is not None and made[1] != digest:
            self.changed = tuple(sorted({*self.changed, *made[2].changed()}))
        self._fingerprint = (EVENTS.generation, digest, trail)
        return digest

    @property
    def reference(self) -> str:
        """Where another process finds the class: `package.module:Name`."""
        return f"{self.cls.__module__}:{self.cls.__qualname__}"

    def check_command(self, command: Any) -> None:
        """Refuse a command that is not valid or that `decide` does not list."""
        kind = command_type(type(command))
        kind.check(command)
        if self._decides is None or self._decides[0] != COMMANDS.generation:
            self._decides = (COMMANDS.generation, self._resolve_decides())
        listed = self._decides[1]
        if listed is not None and type(command) not in listed:
            names = ", ".join(c.__name__ for c in listed) or "no command"
            raise NotHandled(f"{self.cls.__name__} does not handle {kind.name}: its decide lists {names}", hint="add it there")

    def _columns_text(self) -> str:
        return ";".join(leaf.column for name, kind in (*self.key_fields, *self.fields) for leaf in kind.leaves(name))

    def _resolve_handled(self) -> tuple[EventType, ...] | None:
        self._refuse_superseded([*self._functions.values(), *self._instead.values()])
        listed = self._annotated(self.evolve, "evolve")
        if listed is None:
            return None
        kinds = [self._listed(cls, "evolve", event_type) for cls in listed]
        return tuple(dict.fromkeys(EVENTS.successor(kind) for kind in (*kinds, *self._instead)))

    def _listed(self, cls: type[Any], method: str, kind_of: Callable[[type[Any]], Any]) -> Any:
        """What a class is that a method's annotation lists."""
        try:
            return kind_of(cls)
        except ModelError as why:
            raise ModelError(f"{self.cls.__name__}.{method} lists {cls.__name__}: {why.message}", hint=why.hint) from None

    def _resolve_decides(self) -> tuple[type[Any], ...] | None:
        if self.decide is None:
            return ()
        self._refuse_superseded([self.decide])
        listed = self._annotated(self.decide, "decide")
        if listed is None:
            return None
        return tuple(COMMANDS.successor(self._listed(cls, "decide", command_type)).cls for cls in listed)

    def _refuse_superseded(self, functions: Iterable[types.FunctionType]) -> None:
        """A class that was defined again since, kept alive by a closure: its `case` would never match again."""
        for name, cls in classes_reached(functions, self.cls.__module__):
            kind = vars(cls).get("__eventlab_type__")
            if isinstance(kind, (EventType, CommandType)) and kind.stale:
                raise StaleType(
                    f"{self.cls.__name__} was defined with an old {cls.__name__} (its {name!r}), which was defined again since",
                    hint=f"define {self.cls.__name__} again too",
                    type=cls.__name__,
                )

    def _annotated(self, function: Callable[..., Any], what: str) -> tuple[type[Any], ...] | None:
        """The classes in the annotation of a method's first parameter after self; None when it names no classes."""
        parameter = next(iter([*inspect.signature(function).parameters.values()][1:]), None)
        hint = self._meant(function, parameter.annotation, what) if parameter is not None else Any
        if hint in (inspect.Parameter.empty, Any, object):
            return None
        found = tuple(_options(hint))
        for cls in found:
            if not isinstance(cls, type):
                raise ModelError(f"{self.cls.__name__}.{what} is annotated with {cls!r}, which is no class")
        return found

    def _meant(self, function: Callable[..., Any], hint: Any, what: str) -> Any:
        """What an annotation stands for, when it or a part is text: looked up where the method and its class are defined."""
        if hint is inspect.Parameter.empty:
            return hint
        names = {**getattr(function, "__globals__", {}), **self._scope, **inspect.getclosurevars(function).nonlocals}
        holder = type("holder", (), {"__annotations__": {"hint": hint}})
        return type_hints(holder, names, f"{self.cls.__name__}.{what}")["hint"]

    def _refuse_other_state(self, key: Callable[..., Any], source: Model) -> None:
        """Refuse a `key` whose first parameter is annotated with another class than that of the state it is given."""
        first = next(iter(inspect.signature(key).parameters.values()))
        hint = self._meant(key, first.annotation, "key")
        if isinstance(hint, type) and hint is not inspect.Parameter.empty and not issubclass(source.cls, hint):
            state = source.cls.__name__
            raise ModelError(
                f"{self.cls.__name__}.key takes a {hint.__name__} first, and with source={state} it is given a {state}",
                hint=f"def key({snake(state)}: {state}, event) -> str: …",
            )

    def _key_fields(self) -> tuple[tuple[str, FieldType], ...]:
        text = field_type(str, "_id")
        if self.key is None:
            return (("_id", text),)
        hint = self._meant(self.key, inspect.signature(self.key).return_annotation, "key")
        options = tuple(_options(hint))
        row = next((o for o in options if isinstance(o, type) and issubclass(o, tuple) and hasattr(o, "_fields")), None)
        if row is None:
            if hint is inspect.Parameter.empty or str in options:
                return (("_id", text),)
            raise ModelError(
                f"{self.cls.__name__}.key is annotated to give {hint}",
                hint="a str, a NamedTuple of columns, or one of them | None",
            )
        hints = type_hints(row, self._scope, f"{self.cls.__name__}.key")
        for name in row._fields:
            if name.startswith("_"):
                raise ModelError(f"{self.cls.__name__}.key: the column {name} begins with an underscore")
        return tuple((name, field_type(hints[name], f"{self.cls.__name__}.key.{name}", limited=False)) for name in row._fields)


def _named_in(scope: dict[str, Any], cls: type[Any]) -> dict[str, Any]:
    """Of the scopes a class and its bases are defined in, what their annotations may name: classes, types, modules."""
    kept: dict[str, Any] = {}
    for base in reversed(cls.__mro__[1:]):
        model = vars(base).get(_MARK)
        kept |= model._scope if isinstance(model, Model) else {}
    for name, value in scope.items():
        if isinstance(value, (type, types.ModuleType)) or type(value).__module__ in ("types", "typing"):
            kept[name] = value
    return {**kept, cls.__name__: cls}


def _options(hint: Any) -> Iterator[Any]:
    """The members of a union, through aliases and unions in it; a hint that is none by itself."""
    if type(hint).__name__ == "TypeAliasType":  # `type OrderEvent = ItemAdded | OrderPlaced`, from Python 3.12 on
        hint = hint.__value__
    if typing.get_origin(hint) is Annotated:
        hint = typing.get_args(hint)[0]
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        for option in typing.get_args(hint):
            yield from _options(option)
    else:
        yield hint


def _method(cls: type[Any], name: str, kind: str) -> types.FunctionType:
    method = getattr(cls, name, None)
    wanted = {
        "evolve": "def evolve(self, event: EventA | EventB) -> Self: …",
        "decide": "def decide(self, command: CommandA | CommandB) -> Iterator[EventA | EventB]: …",
    }[name]
    if not isinstance(method, types.FunctionType):
        said = f"has no {name}" if method is None else f"has a {name} that is no plain method"
        raise ModelError(f"{kind} {cls.__name__} {said}", hint=wanted)
    return method


def _takes_one(function: types.FunctionType, cls: type[Any]) -> None:
    """Refuse a `decide` that cannot be called with a command."""
    taken = [*inspect.signature(function).parameters.values()][1:]
    needed = [p for p in taken if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    plain = [p for p in taken if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD, p.VAR_POSITIONAL)]
    if not plain or len(needed) > 1:
        shown = ", ".join(map(str, taken))
        raise ModelError(f"{cls.__name__}.decide takes ({shown})", hint="it is given the command, and nothing else")


def _takes_meta(function: Callable[..., Any], cls: type[Any], *, self_first: bool) -> bool:
    taken = [*inspect.signature(function).parameters.values()][self_first:]
    plain = all(p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in taken)
    if len(taken) not in (1, 2) or not plain:
        shown = ", ".join(map(str, taken))
        raise ModelError(
            f"{cls.__name__}.{function.__name__} takes ({shown})", hint="it is given the event, or the event and its meta"
        )
    return len(taken) == 2


def _key_takes(function: Callable[..., Any], cls: type[Any], source: Model | None) -> int:
    """How many parameters `key` has."""
    if source is None:
        return 1 + _takes_meta(function, cls, self_first=False)
    taken = [*inspect.signature(function).parameters.values()]
    plain = all(p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in taken)
    if not 1 <= len(taken) <= 3 or not plain:
        shown = ", ".join(map(str, taken))
        raise ModelError(
            f"{cls.__name__}.key takes ({shown})",
            hint=f"with source={source.cls.__name__} it is given the state, or the state and the event, or these and its meta",
        )
    return len(taken)


def _key_function(cls: type[Any], kind: str) -> types.FunctionType | None:
    declared = next((vars(c)["key"] for c in cls.__mro__ if isinstance(vars(c).get("key"), staticmethod)), None)
    if kind == "aggregate":
        if declared is not None:
            raise ModelError(f"aggregate {cls.__name__} has a key", hint="its key is its stream; make it an @el.projection")
        return None
    if declared is None:
        raise ModelError(
            f"projection {cls.__name__} has no key",
            hint="@staticmethod def key(event, meta) -> str | None: … says which row an event belongs to",
        )
    function: types.FunctionType = declared.__func__
    return function


def _initial(cls: type[Any]) -> Any:
    for name in _FORBIDDEN:
        own = next((vars(c).get(name) for c in cls.__mro__[:-1] if name in vars(c)), None)
        if own is not None and getattr(own, "__module__", cls.__module__) == cls.__module__ and not _generated(own, cls):
            raise ModelError(
                f"{cls.__name__} defines {name}", hint="a state is a plain frozen dataclass: use defaults and evolve"
            )
    try:
        return cls()
    except TypeError as why:
        raise ModelError(f"{cls.__name__}: {why}", hint="give every field a default: the state before the first event") from None


def _holds_mutable(value: Any) -> bool:
    """Whether a default, or something in it, can be changed."""
    if isinstance(value, (list, dict, set)):
        return True
    if isinstance(value, (tuple, frozenset)):
        return any(map(_holds_mutable, value))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        frozen = type(value).__dataclass_params__.frozen  # type: ignore[attr-defined]
        return not frozen or any(_holds_mutable(getattr(value, of.name)) for of in dataclasses.fields(value))
    return False


def _generated(method: Any, cls: type[Any]) -> bool:
    code = getattr(method, "__code__", None)
    return code is None or code.co_filename == "<string>"


# -- the decorators ------------------------------------------------------------------------------------------------------

#: A cell is run again a few times before someone asks what that changed.
MODELS = Registry(keep=8)


@overload
@dataclass_transform(frozen_default=True)
def aggregate(cls: C, /) -> C: ...
@overload
@dataclass_transform(frozen_default=True)
def aggregate(
    *, name: str | None = None, any_order: bool = False, late: Literal["sorted"] | None = None,
    corrections: Sequence[type[Any]] = (),
) -> Callable[[C], C]: ...  # fmt: skip
def aggregate(
    cls: Any = None, /, *, name: str | None = None, any_order: bool = False, late: Literal["sorted"] | None = None,
    corrections: Sequence[type[Any]] = (),
) -> Any:  # fmt: skip
    """The state of one stream, and the rules it keeps: a frozen dataclass with `evolve` and, if it takes commands, `decide`.

    Its category is the snake case of its name; its streams are `category-id`. `any_order` claims that the order of its events
    does not matter; `lab.check` holds it to that.

    As of an occurrence, `lab.at(occurred=…)`, its events come in the order of the log. With `late="sorted"` they come as they
    occurred, as if each had been recorded then: positions and versions in its meta are those of that order. `corrections` are
    events that say what the event that caused them should have said: they count from when that one occurred.
    """
    scope = sys._getframe(1)

    def wrap(cls: C) -> C:
        return _define(cls, "aggregate", name, scope, any_order, late, corrections)

    return wrap(cls) if cls is not None else wrap


@overload
@dataclass_transform(frozen_default=True)
def projection(cls: C, /) -> C: ...
@overload
@dataclass_transform(frozen_default=True)
def projection(
    *, name: str | None = None, source: type[Any] | None = None, any_order: bool = False,
    late: Literal["sorted"] | None = None, corrections: Sequence[type[Any]] = (),
) -> Callable[[C], C]: ...  # fmt: skip
def projection(
    cls: Any = None, /, *, name: str | None = None, source: type[Any] | None = None, any_order: bool = False,
    late: Literal["sorted"] | None = None, corrections: Sequence[type[Any]] = (),
) -> Any:  # fmt: skip
    """A table folded from events of any stream: a frozen dataclass with `evolve` and a static `key(event, meta)`.

    `key` gives the row an event belongs to: a string, a named tuple of columns, or None to pass the event over. `any_order`
    claims that the order of a row's events does not matter, as for a sum; `lab.check` holds it to that. `late` and
    `corrections` as for an aggregate.

    With `source`, an aggregate, the key is made from the state that the event's stream has after it: `key(state)`,
    `key(state, event)` or `key(state, event, meta)`. It folds the events of that aggregate's streams which its own `evolve`
    lists, each into the row that the stream belongs to when the event comes.

    >>> from dataclasses import replace
    >>> import eventlab as el
    >>> @el.event
    ... class VanLeased:
    ...     depot: str
    >>> @el.event
    ... class VanFuelled:
    ...     litres: int
    >>> @el.aggregate
    ... class Van:
    ...     depot: str = ""
    ...     def evolve(self, event: VanLeased) -> "Van":
    ...         return replace(self, depot=event.depot)
    >>> @el.projection(source=Van)
    ... class DepotFuel:
    ...     litres: int = 0
    ...     @staticmethod
    ...     def key(van: Van) -> str:
    ...         return van.depot
    ...     def evolve(self, event: VanFuelled) -> "DepotFuel":
    ...         return replace(self, litres=self.litres + event.litres)
    >>> lab = el.scratch()
    >>> done = lab.append("van-1", [VanLeased("north"), VanFuelled(40), VanLeased("south"), VanFuelled(30)])
    >>> lab.table(DepotFuel).select("_id", "litres").rows()
    [('north', 40), ('south', 30)]
    """
    scope = sys._getframe(1)

    def wrap(cls: C) -> C:
        return _define(cls, "projection", name, scope, any_order, late, corrections, source)

    return wrap(cls) if cls is not None else wrap


def _late(given: Any) -> Literal["sorted"] | None:
    if given not in (None, "sorted"):
        raise ModelError(f"late={given!r}", hint='late="sorted", or nothing: as they were recorded')
    return "sorted" if given else None


def _corrections(given: Any) -> tuple[EventType, ...]:
    listed = (given,) if isinstance(given, type) else tuple(given)
    return tuple(event_type(cls) for cls in listed)


def _define(
    cls: C, kind: Literal["aggregate", "projection"], name: str | None, frame: types.FrameType, any_order: bool,
    late: Literal["sorted"] | None, corrections: Sequence[type[Any]], source: type[Any] | None = None,
) -> C:  # fmt: skip
    keyed_by = None if source is None else _source(source, cls, late, corrections)
    made = freeze(cls)
    model = Model(made, kind, name, frame.f_locals, local=frame.f_locals is not frame.f_globals, source=keyed_by)
    model.any_order = any_order
    model.late, model.corrections = _late(late), _corrections(corrections)
    setattr(made, _MARK, model)
    before = MODELS.successor(model)
    MODELS.add(model)
    # Until its own are defined: without them these events would be passed over, silently.
    model._instead = dict(before._instead)
    return made


def _source(source: type[Any], cls: type[Any], late: Any, corrections: Any) -> Model:
    """The aggregate by whose state a projection is keyed."""
    try:
        found = model_of(source)
    except StaleType:
        raise
    except ModelError as why:
        said = f"projection {cls.__name__} has a source, and {why.message}"
        raise ModelError(said, hint="source= takes the class of an aggregate") from None
    if found.kind != "aggregate":
        said = f"projection {cls.__name__} has source={source.__name__}, which is a projection and has no streams"
        raise ModelError(said, hint="an aggregate: the state of the event's stream gives the key")
    if late or corrections or found.late or found.corrections:
        raise ModelError(
            f"projection {cls.__name__} has a source, and late= or corrections= is given for one of the two",
            hint="its key depends on the order of the log: leave them out, or key it by the event",
        )
    return found


F = TypeVar("F", bound=Callable[[Any], Any])


def instead(cls: type[Any]) -> Callable[[F], F]:
    """What a model folds in the place of an event that its `evolve` does not take: other events, or none.

    The function is annotated with the event, and gives a tuple of events: one, where it has another name today; several,
    where it said more than one thing; none, to leave it out. The log stays as it is, and so do positions and versions; other
    models are not concerned. It is part of the model's code: where it changes, read models and snapshots are made anew. A
    function that is an expression is lifted with the fold.

    >>> from dataclasses import replace
    >>> import eventlab as el
    >>> @el.event
    ... class Renamed:
    ...     name: str
    >>> @el.event
    ... class Moved:
    ...     city: str
    >>> @el.event
    ... class RenamedAndMoved:
    ...     name: str
    ...     city: str
    >>> @el.aggregate
    ... class Client:
    ...     name: str = ""
    ...     city: str = ""
    ...     def evolve(self, event: Renamed | Moved) -> "Client":
    ...         match event:
    ...             case Renamed(name=name):
    ...                 return replace(self, name=name)
    ...             case Moved(city=city):
    ...                 return replace(self, city=city)
    >>> @el.instead(Client)
    ... def in_two(event: RenamedAndMoved) -> tuple[Renamed, Moved]:
    ...     return Renamed(event.name), Moved(event.city)
    >>> model_of(Client).step(Client(), RenamedAndMoved("Ann", "Bonn"))
    Client(name='Ann', city='Bonn')
    """
    model = model_of(cls)

    def wrap(function: F) -> F:
        said = getattr(function, "__name__", repr(function))
        if not isinstance(function, types.FunctionType) or len(inspect.signature(function).parameters) != 1:
            how = "def in_two(event: Old) -> tuple[New, …]: …"
            raise ModelError(f"{said} is to stand in for an event of {cls.__name__}", hint=how)
        (parameter,) = inspect.signature(function).parameters.values()
        meant = model._meant(function, parameter.annotation, said)
        listed = () if meant is inspect.Parameter.empty else tuple(_options(meant))
        if len(listed) != 1 or not isinstance(listed[0], type):
            raise ModelError(f"{said} says of no one event that it stands in its place", hint=f"def {said}(event: Old) -> …")
        model.replace(EVENTS.successor(event_type(listed[0])), function)
        EVENTS.generation += 1
        return function

    return wrap


def model_of(cls: type[Any], *, superseded: bool = False) -> Model:
    """The `Model` of an aggregate or projection class; `ModelError` when it is none.

    One that was superseded is `StaleType`, unless that is what is asked for.
    """
    model = vars(cls).get(_MARK) if isinstance(cls, type) else None
    if not isinstance(model, Model):
        shown = cls.__name__ if isinstance(cls, type) else repr(cls)
        own = vars(type(cls)).get(_MARK)
        hint = f"the class alone: {type(cls).__name__}" if isinstance(own, Model) else None
        raise ModelError(f"{shown} is not a model", hint=hint or "decorate its class with @el.aggregate or @el.projection")
    if model.stale and not superseded:
        raise StaleType(f"this {cls.__name__} was defined again since", hint="use the new class", type=cls.__name__)
    if model.source is not None and model.source.stale and not superseded:
        old = model.source.cls.__name__
        said = f"{cls.__name__} is keyed by the state of an old {old}, which was defined again since"
        raise StaleType(said, hint=f"define {cls.__name__} again too", type=old)
    return model


def model_description(model: Model) -> str:
    """What the class says it is for."""
    return description(model.cls)
