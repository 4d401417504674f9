"""What changed between two versions of a shape: field by field, and whether what was written before still fits.

JSON Schema is the common form: an event class gives one, and so do the documents of other systems. A step that tightens what
it accepts breaks data that was right before; semantic versions say which steps may.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import annotated_types as at

from eventlab.errors import InvalidValue
from eventlab.model.events import EventType
from eventlab.model.schema import Schema
from eventlab.model.types import Closed, FieldType, Leaf, Record, record_parts

What = Literal["added", "required", "removed", "type", "values", "pattern", "closed"]
Step = Literal["major", "minor", "patch"]


@dataclass(frozen=True)
class Change:
    """One difference: the path of a field, what is different, in words, and whether it breaks what was right before."""

    path: str
    what: What
    said: str
    breaks: bool

    def __str__(self) -> str:
        return f"{self.path}: {self.said}{' (breaks)' if self.breaks else ''}"


@dataclass(frozen=True)
class Released:
    """A step from one semantic version of a document to the next: what it declares to be, and what it changed."""

    name: str
    before: str
    after: str
    declared: Step
    changes: tuple[Change, ...]

    @property
    def breaking(self) -> tuple[Change, ...]:
        """The changes after which data that was right is wrong."""
        return tuple(change for change in self.changes if change.breaks)

    @property
    def demands(self) -> tuple[Change, ...]:
        """Fields that have to be given now, be it only inside something that is new."""
        return tuple(change for change in self.changes if change.what == "required")

    @property
    def untrue(self) -> bool:
        """Whether it breaks what was right before, or demands what nobody gave, and declares that it does not."""
        return self.declared != "major" and bool(self.breaking or self.demands)


# -- JSON Schema -----------------------------------------------------------------------------------------------------------

_PLAIN: Final[dict[str, dict[str, Any]]] = {
    "b": {"type": "boolean"},
    "i64": {"type": "integer", "minimum": -(2**63), "maximum": 2**63 - 1},
    "f64": {"type": "number"},
    "s": {"type": "string"},
    "bin": {"type": "string", "contentEncoding": "base64"},
    "uuid": {"type": "string", "format": "uuid"},
    "dec": {"type": "string", "format": "decimal"},
    "ts": {"type": "string", "format": "date-time"},
    "d": {"type": "string", "format": "date"},
    "t": {"type": "string", "format": "time"},
    "td": {"type": "string", "format": "duration"},
    "json": {},
}


def json_schema(kind: EventType) -> dict[str, Any]:
    """The JSON Schema (2020-12) of an event's payload as its class has it today.

    >>> from eventlab.model.events import event, event_type
    >>> @event
    ... class BreadBaked:
    ...     "A loaf came out of the oven."
    ...     grams: int
    ...     flour: str | None = None
    >>> found = json_schema(event_type(BreadBaked))
    >>> found["required"], found["properties"]["flour"]["type"], found["title"]
    (['grams'], ['string', 'null'], 'BreadBaked v1')
    """
    found = _object([(name, _of_field(of), not kind.has_default(name)) for name, of in kind.fields])
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema", "title": f"{kind.name} v{kind.version}",
        **({"description": kind.schema.doc} if kind.schema.doc else {}), **found,
    }  # fmt: skip


def stored_schema(schema: Schema, optional: Collection[str] | None = None) -> dict[str, Any]:
    """The JSON Schema of a version as the store remembers it; `optional` are the fields that may be left out, if not those
    that it remembers.
    """
    left_out = set(schema.defaults or () if optional is None else optional)
    tree: dict[str, Any] = {}
    for leaf in schema.leaves:
        if leaf.tag == "p":
            continue
        *outer, last = leaf.path.split(".")
        place = tree
        for part in outer:
            place = place.setdefault(part, {})
        place[last] = leaf

    def built(of: Mapping[str, Any], *, top: bool) -> dict[str, Any]:
        rows = []
        for name, part in of.items():
            found = _of_tag(part.tag) if isinstance(part, Leaf) else built(part, top=False)
            rows.append((name, _nullable(found) if top and name in schema.nullable else found, not (top and name in left_out)))
        return _object(rows)

    return built(tree, top=True)


def _object(rows: Iterable[tuple[str, dict[str, Any], bool]]) -> dict[str, Any]:
    listed = list(rows)
    return {
        "type": "object", "properties": {name: of for name, of, _ in listed},
        "required": [name for name, _, needed in listed if needed], "additionalProperties": False,
    }  # fmt: skip


def _of_field(kind: FieldType) -> dict[str, Any]:
    if isinstance(kind, Record):
        found = _object([(name, _of_field(of), True) for name, of in kind.fields])
    elif isinstance(kind, Closed):
        found = {**_of_tag(kind.tag), "enum": list(kind.members)}
    elif kind.item is not None and kind.origin is not dict:
        found = {"type": "array", "items": _nullable(_of_field(kind.item))}
    elif kind.item is not None:
        found = {"type": "object", "additionalProperties": _nullable(_of_field(kind.item))}
    else:
        found = _of_tag(kind.tag)
    for limit in kind.limits:
        found |= _of_limit(limit, found)
    return _nullable(found) if kind.nullable else found


def _of_limit(limit: Any, found: Mapping[str, Any]) -> dict[str, Any]:
    """A limit of a field as JSON Schema says it; of a decimal, which is text there, it says nothing."""
    if isinstance(limit, (at.MinLen, at.MaxLen)):
        least = isinstance(limit, at.MinLen)
        size = limit.min_length if isinstance(limit, at.MinLen) else limit.max_length
        what = {"string": "Length", "array": "Items", "object": "Properties"}[found["type"]]
        return {f"{'min' if least else 'max'}{what}": size}
    if found.get("type") not in ("integer", "number"):
        return {}
    names = {
        at.Ge: ("minimum", "ge"), at.Gt: ("exclusiveMinimum", "gt"), at.Le: ("maximum", "le"), at.Lt: ("exclusiveMaximum", "lt"),
        at.MultipleOf: ("multipleOf", "multiple_of"),
    }  # fmt: skip
    name, of = names.get(type(limit), ("", ""))
    return {name: getattr(limit, of)} if name else {}


def _of_tag(tag: str) -> dict[str, Any]:
    if tag[0] == "d" and "_" in tag:
        digits, places = map(int, tag[1:].split("_"))
        whole = digits - places
        pattern = rf"^-?\d{{1,{max(whole, 1)}}}" + (rf"(\.\d{{1,{places}}})?$" if places else "$")
        return {"type": "string", "format": "decimal", "pattern": pattern}
    if tag.startswith("l_"):
        return {"type": "array", "items": _nullable(_of_tag(tag[2:]))}
    if tag.startswith("m_"):
        return {"type": "object", "additionalProperties": _nullable(_of_tag(tag[2:]))}
    if tag.startswith("r("):
        return _object([(name, _nullable(_of_tag(of)), True) for name, of in record_parts(tag)])
    return dict(_PLAIN[tag])


def _nullable(found: dict[str, Any]) -> dict[str, Any]:
    if "type" not in found:
        return found
    kinds = found["type"] if isinstance(found["type"], list) else [found["type"]]
    made = {**found, "type": [*kinds, "null"] if "null" not in kinds else kinds}
    return {**made, "enum": [*made["enum"], None]} if "enum" in made else made


# -- differences -----------------------------------------------------------------------------------------------------------


def changes(old: Mapping[str, Any], new: Mapping[str, Any], ignore: Iterable[str] = ()) -> list[Change]:
    """The differences of two JSON Schemas. A change breaks where data that the old one accepts may be refused by the new one.

    `ignore` are paths that are different on purpose, such as a field that holds the version itself. `$ref` is not followed.
    """
    passed = set(ignore)
    return [change for change in _changes(old, new, "") if change.path not in passed]


def _changes(old: Mapping[str, Any], new: Mapping[str, Any], path: str) -> Iterator[Change]:
    here = path or "(the whole)"
    was, now = _types(old), _types(new)
    lost = set() if now is None else ({"anything"} if was is None else was - now - ({"integer"} if "number" in now else set()))
    if was != now:
        yield Change(here, "type", f"was {_said(was)}, is {_said(now)}", bool(lost))
    yield from _values(old, new, here)
    if old.get("pattern") != new.get("pattern"):
        tighter = new.get("pattern") is not None
        yield Change(here, "pattern", f"pattern was {old.get('pattern')}, is {new.get('pattern')}", tighter)
    if old.get("format") != new.get("format"):
        yield Change(here, "type", f"format was {old.get('format')}, is {new.get('format')}", new.get("format") is not None)
    before, after = old.get("properties", {}), new.get("properties", {})
    needed, needs = set(old.get("required", ())), set(new.get("required", ()))
    closed, was_closed = new.get("additionalProperties") is False, old.get("additionalProperties") is False
    if closed and not was_closed and (before or after):
        yield Change(here, "closed", "takes no other fields any more", True)
    for name in [*before, *(name for name in after if name not in before)]:
        inner = f"{path}.{name}".lstrip(".")
        if name not in after:
            yield Change(inner, "removed", "is gone", closed)
        elif name not in before:
            yield Change(inner, "required" if name in needs else "added", _new(name in needs), name in needs)
            # What it holds is new as well: whoever gave a field of this name before gave it in a form of his own.
            yield from _inside(after[name], inner, open_before=not was_closed)
        else:
            if name in needs and name not in needed:
                yield Change(inner, "required", "has to be given now", True)
            yield from _changes(before[name], after[name], inner)
    for name in sorted(needs - needed - set(after)):
        yield Change(f"{path}.{name}".lstrip("."), "required", "has to be given now", True)
    if isinstance(old.get("items"), Mapping) and isinstance(new.get("items"), Mapping):
        yield from _changes(old["items"], new["items"], f"{path}[]")


def _inside(of: Mapping[str, Any], path: str, *, open_before: bool) -> Iterator[Change]:
    """What has to be given inside a field that is new."""
    needs = set(of.get("required", ()))
    for name, part in of.get("properties", {}).items():
        inner = f"{path}.{name}"
        if name in needs:
            free = "; the old version took that field in any form" if open_before else ""
            yield Change(inner, "required", f"has to be given inside what is new{free}", open_before)
        yield from _inside(part, inner, open_before=open_before)
    if isinstance(of.get("items"), Mapping):
        yield from _inside(of["items"], f"{path}[]", open_before=open_before)


def _values(old: Mapping[str, Any], new: Mapping[str, Any], path: str) -> Iterator[Change]:
    was, now = old.get("enum"), new.get("enum")
    if was == now:
        return
    if now is None:
        yield Change(path, "values", "takes any value now", False)
    elif was is None:
        yield Change(path, "values", f"takes only {_listed(now)} now", True)
    else:
        gone, more = [v for v in was if v not in now], [v for v in now if v not in was]
        said = "; ".join([*([f"not {_listed(gone)} any more"] if gone else []), *([f"also {_listed(more)}"] if more else [])])
        if said:
            yield Change(path, "values", said, bool(gone))


def _new(needed: bool) -> str:
    return "is new, and has to be given" if needed else "is new, and may be left out"


def _listed(values: Iterable[Any]) -> str:
    return ", ".join(json.dumps(value) for value in values)


def _types(of: Mapping[str, Any]) -> set[str] | None:
    kind = of.get("type")
    return None if kind is None else {kind} if isinstance(kind, str) else set(kind)


def _said(kinds: set[str] | None) -> str:
    return "anything" if kinds is None else " or ".join(sorted(kinds))


# -- released versions of documents ----------------------------------------------------------------------------------------

_VERSION: Final = re.compile(r"(\d+)\.(\d+)\.(\d+)")


def released(folder: Path, ignore: Iterable[str] = ()) -> list[Released]:
    """The steps between the versions of JSON Schemas in a folder: `NAME/1.2.0.json`, in the order of their versions."""
    names = sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    found: list[Released] = []
    for name in names:
        matched = [(_VERSION.fullmatch(path.stem), path) for path in name.glob("*.json")]
        versions = sorted((tuple(map(int, m.groups())), path) for m, path in matched if m is not None)
        documents = [(version, path.stem, _document(path)) for version, path in versions]
        for (a, before, old), (b, after, new) in itertools.pairwise(documents):
            step: Step = "major" if a[0] != b[0] else "minor" if a[1] != b[1] else "patch"
            found.append(Released(name.name, before, after, step, tuple(changes(old, new, ignore))))
    if not found:
        raise InvalidValue(f"{folder} holds no versions of JSON Schemas", hint="NAME/1.0.0.json, NAME/1.1.0.json, …")
    return found


def _document(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as why:
        raise InvalidValue(f"{path} cannot be read as JSON: {why}", hint="a JSON Schema document") from None
    if not isinstance(found, dict):
        raise InvalidValue(f"{path} is no JSON Schema, but a {type(found).__name__}", hint="an object with properties")
    return found
