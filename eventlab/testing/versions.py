"""Tests of upcasters and downcasters: an event as an older version stored it, read as the class of today, and the way back.

What a test gives as plain values is stored as the log stores it and read as the log reads it: by the steps of the event and
their checks.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from decimal import Decimal
from enum import Enum
from typing import Any, Final

from eventlab.errors import EventlabError, InvalidValue, StaleType, UpcastFailed
from eventlab.model.events import EventType, event_type
from eventlab.model.schema import Schema
from eventlab.model.types import AnyFloat, ExactDecimal, FieldType, field_type
from eventlab.model.upcasting import at_version, built, chain_of, payloads
from eventlab.testing.words import agrees, bare, named_values, normal, reason_text, told, unlike


def given_stored(cls: type[Any], values: Mapping[str, Any] | None = None, /, *, version: int, **more: Any) -> Read:
    """An event as an older version of its class stored it, read as the class is today.

    The fields are those of that version, as plain values, which is how the steps see them: an `int` was stored as an `int`.
    A mapping may hold those that cannot be written as arguments, such as `version`.

    >>> import eventlab as el
    >>> from eventlab.testing import given, given_stored
    >>> @el.event(version=2)
    ... class KettleSold:
    ...     "A kettle was sold."
    ...     litres: int
    ...     currency: str
    >>> @el.upcast(KettleSold, from_version=1)
    ... def in_euros(old):
    ...     return {**old, "currency": "EUR"}
    >>> given_stored(KettleSold, version=1, litres=2).then(KettleSold(2, "EUR"))
      given KettleSold, version 1
            litres=2
      by    in_euros
      then  KettleSold(litres=2, currency='EUR')
            currency: new, 'EUR'
    >>> done = given_stored(KettleSold, version=1, litres="two").fails("litres is 'two'")

    The way back, for readers that know no newer version:

    >>> @el.downcast(KettleSold, to_version=1)
    ... def without_currency(new):
    ...     return {"litres": new.litres}
    >>> done = given(KettleSold(2, "EUR")).at_version(1).then(litres=2)
    """
    if not isinstance(cls, type) and vars(type(cls)).get("__eventlab_type__"):
        name = type(cls).__name__
        raise InvalidValue(f"given_stored takes the class, and {cls!r} is one of it", hint=f"given_stored({name}, version=1, …)")
    kind = _current(event_type(cls))
    if kind.version == 1:
        hint = "@el.event(version=2), once its fields have changed"
        raise InvalidValue(f"{cls.__name__} is version 1, so there is none before it", hint=hint)
    _check_version(kind, version, kind.version - 1)
    columns: list[str] = []
    stored: list[Any] = []
    for name, value in {**(values or {}), **more}.items():
        for column, one in _stored(kind, name, value):
            columns.append(column)
            stored.append(one)
    schema = Schema(kind.name, version, tuple(columns))
    steps = tuple(step.function.__name__ for step in chain_of(kind, schema))
    try:
        (found,) = kind.decode(schema, [[one] for one in stored] or [[None]])
    except EventlabError as why:
        return Read(kind, schema, tuple(stored), kind.version, steps, None, why)
    return Read(kind, schema, tuple(stored), kind.version, steps, found)


def read_back(event: Any, version: int) -> Read:
    """An event of today in the shape of an older version."""
    kind = _current(event_type(type(bare(event))))
    _check_version(kind, version, kind.version)
    return _read_as(kind, kind.schema, kind.encode(bare(event)), version)


@dataclass(frozen=True)
class Read:
    """An event read as another version of its type than it was stored in; made by `given_stored` and `given(…).at_version`."""

    kind: EventType
    schema: Schema
    values: tuple[Any, ...]
    version: int
    #: The names of the functions that lead there.
    steps: tuple[str, ...]
    #: An event, or in the shape of a version its fields; None where it failed.
    found: Any
    failure: EventlabError | None = None

    @property
    def stored(self) -> dict[str, Any]:
        """What was stored, as plain values."""
        return payloads(self.schema, [[value] for value in self.values], 1)[0]

    @property
    def fields(self) -> dict[str, Any]:
        """What it is read as, as plain values."""
        return {} if self.found is None else plain(self.found)

    @property
    def changed(self) -> tuple[tuple[str, str], ...]:
        """What became of the fields that are not as they were: name, and what there is to say."""
        return tuple(self._changes()) if self.failure is None else ()

    def __repr__(self) -> str:
        answer = f"fails: {self.failure.message}" if self.failure is not None else _shown(self.found)
        lines = [*self._given(), *told("then", "", [answer, *(f"{name}: {said}" for name, said in self.changed)])]
        return "\n".join(lines)

    def then(self, event: Any = None, /, **values: Any) -> Read:
        """It is read as this event; or, in the shape of a version, with these fields and no others."""
        __tracebackhide__ = True
        mapping = isinstance(event, Mapping)
        if mapping or event is None:
            wanted = plain({**(event or {}), **values})
        elif values:
            raise InvalidValue("then takes an event, or fields", hint="given_stored(…).then(ItemAdded(…))")
        elif isinstance(self.found, Mapping):
            hint = f"at_version({self.version}).then(sku=…)"
            raise InvalidValue(f"{self.kind.name} version {self.version} has no class: then takes its fields", hint=hint)
        else:
            event = normal(event, "then")
        whole = not mapping and event is not None
        if self.failure is not None:
            self._fail(f"it cannot be read: {self.failure.message}", [f"- {_shown(event if whole else wanted)}"])
        if whole:
            if type(event) is not type(self.found) or event != self.found:
                lines = unlike([event], [self.found])
                if type(event) is type(self.found):
                    lines = [line for line in lines if not line.startswith("    ")] + self._beside(plain(event))
                self._fail("it is read otherwise", lines)
        elif not same(wanted, self.fields):
            self._fail("it is read otherwise", [f"- {_shown(wanted)}", f"+ {_shown(self.fields)}", *self._beside(wanted)])
        return self

    def fails(self, reason: str | re.Pattern[str] | EventlabError | type[EventlabError] | None = None) -> Read:
        """It cannot be read, and the error says this: a regular expression that is found in it, or its class."""
        __tracebackhide__ = True
        if self.failure is None:
            self._fail("it was read", [f"+ {_shown(self.found)}"])
        elif not agrees(reason, self.failure, "fails"):
            self._fail("it failed for another reason", [f"- {reason_text(reason)}", f"+ {self.failure.message}"])
        return self

    def at_version(self, version: int) -> Read:
        """The same stored event in the shape of a version: a chain of steps one by one, or the way back."""
        _check_version(self.kind, version, self.kind.version)
        return _read_as(self.kind, self.schema, self.values, version)

    # -- inside

    def _given(self) -> list[str]:
        lines = told("given", f"{self.kind.name}, version {self.schema.version}", [named_values(self.stored) or "no fields"])
        if isinstance(self.found, Mapping) or self.version != self.kind.version:
            lines += told("as", "", [f"version {self.version}"])
        return lines + (told("by", "", [", ".join(self.steps)]) if self.steps else [])

    def _changes(self) -> Iterable[tuple[str, str]]:
        before, after = self.stored, self.fields
        for name, value in after.items():
            if name not in before:
                yield name, f"new, {value!r}"
            elif not same(before[name], value):
                yield name, f"{before[name]!r} → {value!r}"
        yield from ((name, f"gone, {value!r}") for name, value in before.items() if name not in after)

    def _beside(self, wanted: Mapping[str, Any]) -> list[str]:
        """The fields that differ: as they were stored, as they are read, as they are expected."""
        before, after = self.stored, self.fields
        sides = (("stored", before), ("read as", after), ("expected", wanted))
        return [
            f"    {name}: {', '.join(_or_not(word, name, values) for word, values in sides)}"
            for name in dict.fromkeys((*after, *wanted))
            if not same(after.get(name, _MISSING), wanted.get(name, _MISSING))
        ]

    def _fail(self, why: str, lines: Iterable[str]) -> None:
        __tracebackhide__ = True
        raise AssertionError("\n".join([why, *self._given(), *told("then", "", [*lines])]))


def _read_as(kind: EventType, schema: Schema, values: tuple[Any, ...], version: int) -> Read:
    up = [kind.upcasters[v] for v in range(schema.version, version) if v in kind.upcasters]
    back = [kind.downcasters[v] for v in range(schema.version - 1, version - 1, -1) if v in kind.downcasters]
    steps = tuple(step.function.__name__ for step in (*up, *back))
    try:
        return Read(kind, schema, values, version, steps, plain(at_version(kind, schema, values, version)))
    except EventlabError as why:
        return Read(kind, schema, values, version, steps, None, why)
    except Exception as why:
        said = f"reading {kind.name} version {schema.version} as version {version} failed: {type(why).__name__}: {why}"
        return Read(kind, schema, values, version, steps, None, UpcastFailed(said, hint="mend the step"))


def _current(kind: EventType) -> EventType:
    if kind.stale:
        raise StaleType(f"this {kind.name} is a class that was defined again since", hint="run the cell again", type=kind.name)
    return kind


def _check_version(kind: EventType, version: Any, last: int) -> None:
    if isinstance(version, bool) or not isinstance(version, int) or not 1 <= version <= last:
        known = f"a number from 1 to {last}" if last > 1 else "1 and no other"
        name = kind.cls.__name__
        raise InvalidValue(f"{name}: version={version!r}, and {name} is version {kind.version} today", hint=f"here it is {known}")


# -- plain values ----------------------------------------------------------------------------------------------------------

_MISSING: Final = object()


def plain(value: Any) -> Any:
    """A value as a step sees it: nested dataclasses as dicts, members as their values, tuples and sets as lists."""
    if isinstance(value, Enum):
        return value.value
    if is_dataclass(value) and not isinstance(value, type):
        return {of.name: plain(getattr(value, of.name)) for of in fields(value)}
    if isinstance(value, Mapping):
        return {name: plain(part) for name, part in value.items()}
    if isinstance(value, (set, frozenset)):
        return sorted(map(plain, value))
    return [plain(part) for part in value] if isinstance(value, (list, tuple)) else value


def same(one: Any, other: Any) -> bool:
    """Whether two plain values are equal and of the same types, so that 1 is neither True nor 1.0."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(part, other[name]) for name, part in one.items())
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other or one is other or repr(one) == repr(other) == "nan")


def _stored(kind: EventType, name: str, value: Any) -> Iterable[tuple[str, Any]]:
    """The stored columns of a field: of the type that it has today, where that keeps the value, else of the value's own."""
    today = dict(kind.fields).get(name)
    if value is None:
        of = replace(today, nullable=True) if today is not None else field_type(str | None, name)
        return _put(of, name, None, f"{kind.name}.{name}")
    kept = None if today is None else _kept(kind, name, today, value)
    return _inferred(kind, name, plain(value)) if kept is None else kept


def _kept(kind: EventType, name: str, today: FieldType, value: Any) -> list[tuple[str, Any]] | None:
    """The stored columns of a value by the type of today; None where they would give another value."""
    made: tuple[Callable[[], Any], ...] = (lambda: value, lambda: built(today, plain(value)))
    for make in made:
        # What does not fit, a member that is gone, another class: it was of another type then.
        with contextlib.suppress(Exception):
            found = _put(today, name, make(), f"{kind.name}.{name}")
            schema = Schema(kind.name, 1, tuple(column for column, _ in found))
            if same(payloads(schema, [[part] for _, part in found], 1)[0][name], plain(value)):
                return found
    return None


def _inferred(kind: EventType, path: str, value: Any) -> Iterable[tuple[str, Any]]:
    if isinstance(value, dict) and value and all(isinstance(name, str) and name.isidentifier() for name in value):
        for name, part in value.items():
            yield from _inferred(kind, f"{path}.{name}", part)
    else:
        at = f"{kind.name}.{path}"
        yield from _put(field_type(str | None if value is None else _hint(value), at), path, value, at)


def _put(of: FieldType, name: str, value: Any, path: str) -> list[tuple[str, Any]]:
    out: list[Any] = []
    of.put(value, path, out)
    return [(leaf.column, one) for leaf, one in zip(of.leaves(name), out, strict=True)]


def _hint(value: Any) -> Any:
    """The type that keeps a plain value as it is."""
    if isinstance(value, list):
        hints = {_hint(part) for part in value if part is not None}
        of = next(iter(hints)) if len(hints) == 1 else Any
        return list[of | None] if of is not Any else list[Any]  # type: ignore[valid-type]
    if isinstance(value, dict):
        return Any
    return {Decimal: ExactDecimal, float: AnyFloat}.get(type(value), type(value))


def _shown(found: Any) -> str:
    return named_values(found) or "no fields" if isinstance(found, Mapping) else repr(found)


def _or_not(word: str, name: str, values: Mapping[str, Any]) -> str:
    return f"{word} {values[name]!r}" if name in values else f"not {word.removesuffix(' as')}"
