"""Upcasting: old payloads brought to the shape that their class has today, on the way out of the log.

Stored events never change. A function leads from the shape of one schema version to that of the next; versions without one
are weak schemas, whose missing fields take their defaults. What comes out is checked as if it were appended.
"""

from __future__ import annotations

import datetime as dt
import inspect
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, TypeVar

from eventlab.errors import EventlabError, ModelError, SchemaConflict, UpcastFailed
from eventlab.model.schema import Schema
from eventlab.model.types import Closed, FieldType, Leaf, Record, back_of, record_parts

if TYPE_CHECKING:
    from eventlab.model.events import EventType

F = TypeVar("F", bound=Callable[..., Any])


class Old(Mapping[str, Any]):
    """A payload as an older version had it: `old.sku`, `old["sku"]`, or `{**old, "currency": "EUR"}`. Plain values."""

    def __init__(self, fields: Mapping[str, Any], what: str) -> None:
        self._fields, self._what = fields, what

    def __getitem__(self, name: str) -> Any:
        return self._fields[name]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name not in self._fields:
            raise AttributeError(f"{self._what} has no {name!r}; it has {', '.join(self._fields) or 'no fields'}")
        return self._fields[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)

    def __repr__(self) -> str:
        return f"{self._what}: {dict(self._fields)}"


class Watched(Old):
    """A payload that knows which of its fields were looked at."""

    def __init__(self, fields: Mapping[str, Any], what: str) -> None:
        super().__init__(fields, what)
        self.seen: set[str] = set()

    def __getitem__(self, name: str) -> Any:
        self.seen.add(name)
        return super().__getitem__(name)

    def __getattr__(self, name: str) -> Any:
        self.seen.add(name)
        return super().__getattr__(name)


class Misshapen(ValueError):
    """A payload that lacks a field, or has one too many."""


@dataclass(frozen=True)
class Upcaster:
    """The step from one schema version of a type to the next; `taken_over` from a class that was defined again since."""

    function: Callable[[Old], Mapping[str, Any]]
    version: int
    taken_over: bool = False


#: A stored field whose value no step looks at, and the version whose step it is.
Unread = tuple[str, int]


def chain_of(kind: EventType, schema: Schema) -> tuple[Upcaster, ...]:
    """The steps from a stored version to the class of today; none where fields and defaults are all there is to it."""
    return tuple(kind.upcasters[v] for v in range(schema.version, kind.version) if v in kind.upcasters)


def upcast_columns(
    kind: EventType, schema: Schema, columns: Sequence[Sequence[Any]], count: int, unread: list[list[Unread]] | None = None
) -> list[list[Any]]:
    """Stored values of an old version, one list a leaf, as those of the class's own schema.

    `UpcastFailed` says which version was stored, which row (`at`), which step and why. What no step looks at of a row is put
    in `unread`.
    """
    chain = chain_of(kind, schema)
    made: list[list[Any]] = []
    for at, payload in enumerate(payloads(schema, columns, count)):
        passed: list[Unread] | None = None if unread is None else []
        step, whole = schema.version, False
        try:
            fields: Mapping[str, Any] = payload
            alive = {name: value for name, value in payload.items() if value is not None} if passed is not None else {}
            for one in chain:
                step = one.version
                old = (Old if passed is None else Watched)(fields, f"{kind.name} version {step}")
                fields = _given(one, old)
                if isinstance(old, Watched) and passed is not None:
                    gone = [name for name, value in alive.items() if name not in old.seen and fields.get(name) != value]
                    passed += [(name, step) for name in gone]
                    alive = {name: value for name, value in alive.items() if name in fields and fields[name] is value}
            whole = True
            made.append(_stored(kind, fields))
        except Exception as why:
            raise _failed(kind, schema, payload, step, why, at=at, whole=whole) from why
        if unread is not None and passed is not None:
            unread.append(passed)
    return [list(column) for column in zip(*made, strict=True)] if made else [[] for _ in kind.schema.columns]


def _given(step: Upcaster, old: Old) -> Mapping[str, Any]:
    """The fields that a step gives."""
    fields = step.function(old)
    if not isinstance(fields, Mapping):
        raise TypeError(f"it gave {fields!r}, and not the fields of the next version")
    return fields


def _failed(
    kind: EventType, schema: Schema, payload: Mapping[str, Any], step: int, why: Exception, *, at: int, whole: bool
) -> UpcastFailed:
    """What is wrong with the way up of one payload, at or after a step; and which steps there are none of."""
    said = why.message if isinstance(why, EventlabError) else f"{type(why).__name__}: {why}"
    gaps = [v for v in range(schema.version, kind.version if whole else step) if v not in kind.upcasters]
    # After the last step it is more likely one that should come after it.
    likely = [v for v in gaps if v > step] or gaps
    shape = isinstance(why, (Misshapen, AttributeError, LookupError))
    mend = f"mend the step from version {step}"
    hint = f"{step_missing(kind, likely)}; or {mend}" if likely and shape else mend
    where = "after" if whole else "in"
    return UpcastFailed(
        f"upcasting {kind.name}, stored as version {schema.version}, failed {where} the step from version {step} "
        f"on {dict(payload)}: {said}",
        hint=f"{hint}; eventlab schema dry-run shows all that fail",
        type=kind.name, version=schema.version, step=step, at=at, said=f"{where} the step from version {step}: {said}",
        gaps=tuple(gaps), missing=tuple(likely) if shape else (),
    )  # fmt: skip


def step_missing(kind: EventType, versions: Sequence[int]) -> str:
    """That steps are missing, and what to write."""
    listed = " and ".join(map(str, versions))
    to_write = " and ".join(f"@el.upcast({kind.cls.__name__}, from_version={version})" for version in versions)
    return f"there is no step from version {listed}: {to_write}"


def at_version(
    kind: EventType, schema: Schema, stored: Sequence[Any], version: int, target: Schema | None = None, position: int = 0
) -> dict[str, Any]:
    """The payload of one event in the shape of a version: steps up from an older one, back from a newer one.

    Where the schema of that version is known, `target` or that of the class, it has its fields and no others: what is not
    given takes its default, as the class has it.
    """
    (found,) = payloads(schema, [[value] for value in stored], 1)
    if schema.version == version:
        return found
    what, cls = kind.name, kind.cls.__name__
    up = [kind.upcasters[v] for v in range(schema.version, version) if v in kind.upcasters]
    back = range(schema.version - 1, version - 1, -1)
    gaps = [v for v in range(schema.version, version) if v not in kind.upcasters]
    step, mend, last = schema.version, "", "reading it by its fields and their defaults"
    fields: Mapping[str, Any] = found
    try:
        for one in up:
            step, last = one.version, f"the step from version {one.version}"
            mend = f"mend @el.upcast({cls}, from_version={step})"
            fields = _given(one, Old(fields, f"{what} version {step}"))
        for v in back:
            step, last, mend = v + 1, f"the step back to version {v}", f"mend @el.downcast({cls}, to_version={v})"
            if v not in kind.downcasters:
                raise SchemaConflict(
                    f"{what} version {step} cannot be read as version {v}: there is no step back to {v}",
                    hint=f"@el.downcast({cls}, to_version={v})", type=what, version=v, position=position,
                )  # fmt: skip
            fields = _given(kind.downcasters[v], Old(fields, f"{what} version {step}"))
        of = kind.schema if version == kind.version else target
        return dict(fields) if of is None else _shaped(kind, of, fields, by_fields=not up and not back)
    except SchemaConflict:
        raise
    except Exception as why:
        said = why.message if isinstance(why, EventlabError) else str(why)
        said = said if isinstance(why, (EventlabError, Misshapen)) else f"{type(why).__name__}: {said}"
        raise UpcastFailed(
            f"{what} at position {position:,}, stored as version {schema.version}, cannot be given as version {version}: "
            f"{last} failed on {dict(found)}: {said}",
            hint="; or ".join([*([step_missing(kind, gaps)] if gaps else []), *([mend] if mend else [])]),
            type=what, version=version, stored=schema.version, step=step, position=position,
        ) from why  # fmt: skip


def _shaped(kind: EventType, of: Schema, fields: Mapping[str, Any], *, by_fields: bool) -> dict[str, Any]:
    """Fields as those of a version; what is only read `by_fields` leaves out those that it has none of."""
    strange = [name for name in fields if name not in of.fields]
    if strange and not by_fields:
        raise Misshapen(f"version {of.version} has no field {strange[0]!r}; it has {', '.join(of.fields) or 'no fields'}")
    made: dict[str, Any] = {}
    declared = dict(kind.fields)
    for name in of.fields:
        leaves = [leaf for leaf in of.leaves if leaf.path.partition(".")[0] == name]
        if name in fields:
            made[name] = fields[name]
            if fields[name] is None and of.declared and name not in of.nullable and leaves[0].tag != "json":
                raise Misshapen(f"{name} is None, and version {of.version} declares it to be something")
            for leaf in leaves:
                _refuse_other(leaf, fields[name], of.version)
        elif name in declared and kind.has_default(name) and declared[name].leaves(name) == tuple(leaves):
            out: list[Any] = []
            declared[name].put(kind.default(name), f"{kind.name}.{name}", out)
            part = Schema(kind.name, of.version, tuple(leaf.column for leaf in leaves))
            made |= payloads(part, [[value] for value in out], 1)[0]
        else:
            raise Misshapen(f"there is no {name!r}, which version {of.version} has, and which has no default")
    return made


def _refuse_other(leaf: Leaf, value: Any, version: int) -> None:
    """Refuse a plain value that is none of its leaf."""
    if leaf.tag == "p":
        return
    name, *inner = leaf.path.split(".")
    for part in inner:
        if value is None:
            return
        if not isinstance(value, Mapping) or part not in value:
            raise Misshapen(f"{name} is {value!r:.60}, and has a {part!r} in version {version}")
        value, name = value[part], f"{name}.{part}"
    if not fits(leaf.tag, value):
        raise Misshapen(f"{name} is {value!r:.60} ({type(value).__name__}), and {leaf.column} in version {version}")


def fits(tag: str, value: Any) -> bool:
    """Whether a plain value is one of a tag, as `back_of` gives it.

    >>> fits("l_i64", [1, None]), fits("i64", True), fits("r(city=s)", {"city": "Bern"})
    (True, False, True)
    """
    if value is None or tag == "json":
        return True
    if tag[0] == "d" and "_" in tag:
        return isinstance(value, (Decimal, int)) and not isinstance(value, bool)
    if tag.startswith("l_"):
        return isinstance(value, (list, tuple, set, frozenset)) and all(fits(tag[2:], part) for part in value)
    if tag.startswith("m_"):
        return isinstance(value, Mapping) and all(isinstance(k, str) and fits(tag[2:], part) for k, part in value.items())
    if tag.startswith("r("):
        parts = dict(record_parts(tag))
        return isinstance(value, Mapping) and set(value) == set(parts) and all(fits(parts[k], v) for k, v in value.items())
    of = _PLAIN[tag]
    return isinstance(value, of) and (not isinstance(value, bool) or tag == "b") and not (tag == "d" and hasattr(value, "hour"))


_PLAIN: Final[dict[str, tuple[type[Any], ...]]] = {
    "b": (bool,), "i64": (int,), "f64": (float, int), "s": (str,), "bin": (bytes,), "uuid": (uuid.UUID,), "dec": (Decimal, int),
    "ts": (dt.datetime,), "d": (dt.date,), "t": (dt.time,), "td": (dt.timedelta,),
}  # fmt: skip


def payloads(schema: Schema, columns: Sequence[Sequence[Any]], count: int) -> list[dict[str, Any]]:
    """Payloads as dicts of plain values; a nested one that is not there is None."""
    found: list[dict[str, Any]] = [{} for _ in range(count)]
    absent: list[tuple[str, Sequence[Any]]] = []
    for leaf, values in zip(schema.leaves, columns, strict=True):
        if leaf.tag == "p":
            absent.append((leaf.path, values))
            continue
        back = back_of(leaf.tag)
        *outer, last = leaf.path.split(".")
        for payload, value in zip(found, values, strict=True):
            for part in outer:
                payload = payload.setdefault(part, {})
            payload[last] = None if value is None else back(value)
    for path, here in sorted(absent, reverse=True):
        *outer, last = path.split(".")
        for payload, there in zip(found, here, strict=True):
            if not there:
                for part in outer:
                    payload = payload.setdefault(part, {})
                payload[last] = None
    return found


def _stored(kind: EventType, fields: Mapping[str, Any]) -> list[Any]:
    """The stored form of a payload of today, from its fields."""
    known = {name for name, _ in kind.fields}
    strange = [name for name in fields if name not in known]
    if strange:
        raise Misshapen(f"{kind.name} has no field {strange[0]!r} today")
    out: list[Any] = []
    for name, of in kind.fields:
        if name in fields:
            value = built(of, fields[name])
        elif kind.has_default(name):
            value = kind.default(name)
        else:
            raise Misshapen(f"it gives no {name!r}, which has no default")
        of.put(value, f"{kind.name}.{name}", out)
    return out


def built(kind: FieldType, value: Any) -> Any:
    """A plain value as its declared type wants it: nested dataclasses, members of an Enum and sets are made."""
    if kind.item is not None and kind.origin is not dict and type(value) in (list, tuple, set, frozenset):
        return kind.origin(built(kind.item, one) for one in value)
    if kind.item is not None and kind.origin is dict and isinstance(value, Mapping):
        return {key: built(kind.item, one) for key, one in value.items()}
    if isinstance(value, Mapping) and isinstance(kind, Record):
        parts = dict(kind.fields)
        return kind.cls(**{name: built(parts[name], part) if name in parts else part for name, part in value.items()})
    if isinstance(kind, Closed) and isinstance(value, (str, int)) and value in kind.members:
        return kind.members[value]
    return value


# -- the decorator ---------------------------------------------------------------------------------------------------------


def check_step(kind: EventType, version: int) -> None:
    """Refuse a step that leads nowhere."""
    if isinstance(version, bool) or not isinstance(version, int) or not 1 <= version < kind.version:
        before = f"1 to {kind.version - 1}" if kind.version > 1 else "none: it is version 1"
        raise ModelError(
            f"{kind.cls.__name__} has no step at version {version!r}: the versions before it are {before}",
            hint=f"give the changed class its next version: @el.event(version={kind.version + 1})",
        )


def step_of(kind: EventType, function: Any, version: int, there: Mapping[int, Upcaster], what: str) -> Upcaster:
    """A function as a step; `ModelError` where it cannot be one, or another one is that step already."""
    cls = kind.cls.__name__
    if not callable(function):
        raise ModelError(f"the step {what} of {cls} is {function!r}, and no function", hint="put it above def step(old): …")
    try:
        inspect.signature(function).bind(None)
    except TypeError:
        raise ModelError(
            f"{_called(function)}{inspect.signature(function)}, the step {what} of {cls}, cannot be called with one payload",
            hint="def step(old): … takes the old payload, and gives the fields of the other version",
        ) from None
    except ValueError:
        pass  # a built-in that does not tell what it takes
    old = there.get(version)
    if old is not None and not old.taken_over and _place(old.function) != _place(function):
        raise ModelError(
            f"{cls} has a step {what} already: {_called(old.function)}, and now {_called(function)}",
            hint="one function for each step: delete one, or define the class again before it",
        )
    return Upcaster(function, version)


def inherited(steps: Mapping[int, Upcaster], version: int) -> dict[int, Upcaster]:
    """The steps of a class as those of the one that takes its place, until it has its own."""
    return {v: replace(step, taken_over=True) for v, step in steps.items() if v < version}


def _place(function: Any) -> tuple[str, str]:
    of = function if hasattr(function, "__qualname__") else type(function)
    return of.__module__, of.__qualname__


def _called(function: Any) -> str:
    module, name = _place(function)
    return f"{module}.{name}"
