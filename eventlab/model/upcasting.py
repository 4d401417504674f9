"""Upcasting: old payloads brought to the shape that their class has today, on the way out of the log.

Stored events never change. A function leads from the shape of one schema version to that of the next; versions without one
are weak schemas, whose missing fields take their defaults. What comes out is checked as if it were appended.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from eventlab.errors import EventlabError, ModelError, SchemaConflict, UpcastFailed
from eventlab.model.schema import Schema
from eventlab.model.types import Closed, FieldType, Record, back_of

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


@dataclass(frozen=True)
class Upcaster:
    """The step from one schema version of a type to the next."""

    function: Callable[[Old], Mapping[str, Any]]
    version: int


def chain_of(kind: EventType, schema: Schema) -> tuple[Upcaster, ...]:
    """The steps from a stored version to the class of today; none where fields and defaults are all there is to it."""
    return tuple(kind.upcasters[v] for v in range(schema.version, kind.version) if v in kind.upcasters)


def upcast_columns(kind: EventType, schema: Schema, columns: Sequence[Sequence[Any]], count: int) -> list[list[Any]]:
    """Stored values of an old version, one list a leaf, as those of the class's own schema.

    `UpcastFailed` says which version, which row (`at`) and why.
    """
    chain = chain_of(kind, schema)
    made: list[list[Any]] = []
    for at, payload in enumerate(payloads(schema, columns, count)):
        version = schema.version
        fields: Mapping[str, Any] = payload
        try:
            for step in chain:
                version = step.version
                fields = step.function(Old(fields, f"{kind.name} version {version}"))
                if not isinstance(fields, Mapping):
                    raise TypeError(f"it gave {fields!r}, and not the fields of the next version")
            made.append(_stored(kind, fields))
        except Exception as why:
            said = why.message if isinstance(why, EventlabError) else f"{type(why).__name__}: {why}"
            raise UpcastFailed(
                f"upcasting {kind.name} from version {version} failed on {dict(payload)}: {said}",
                hint="mend the @el.upcast function; eventlab schema dry-run shows all that fail",
                type=kind.name, version=version, at=at,
            ) from why  # fmt: skip
    return [list(column) for column in zip(*made, strict=True)] if made else [[] for _ in kind.schema.columns]


def at_version(kind: EventType, schema: Schema, stored: Sequence[Any], version: int) -> dict[str, Any]:
    """The payload of one event in the shape of a version: steps up from an older one, back from a newer one."""
    (found,) = payloads(schema, [[value] for value in stored], 1)
    fields: Mapping[str, Any] = found
    for v in range(schema.version, version):
        if v in kind.upcasters:
            fields = kind.upcasters[v].function(Old(fields, f"{kind.name} version {v}"))
    for v in range(schema.version - 1, version - 1, -1):
        if v not in kind.downcasters:
            raise SchemaConflict(
                f"{kind.name} version {v + 1} cannot be read as version {version}: there is no step back to {v}",
                hint=f"@el.downcast({kind.cls.__name__}, to_version={v})", type=kind.name, version=v,
            )  # fmt: skip
        fields = kind.downcasters[v].function(Old(fields, f"{kind.name} version {v + 1}"))
    return dict(fields)


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
        raise ValueError(f"{kind.name} has no field {strange[0]!r} today")
    out: list[Any] = []
    for name, of in kind.fields:
        if name in fields:
            value = built(of, fields[name])
        elif kind.has_default(name):
            value = kind.default(name)
        else:
            raise ValueError(f"it gives no {name!r}, which has no default")
        of.put(value, f"{kind.name}.{name}", out)
    return out


def built(kind: FieldType, value: Any) -> Any:
    """A plain value as its declared type wants it: nested dataclasses and members of an Enum are made."""
    if isinstance(value, Mapping) and isinstance(kind, Record):
        parts = dict(kind.fields)
        return kind.cls(**{name: built(parts[name], part) if name in parts else part for name, part in value.items()})
    if isinstance(kind, Closed) and value in kind.members:
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
