"""Hypothesis strategies: events, commands and valid histories of your own classes; and hostile values for whoever writes a store.

`events(ItemAdded)`, `commands(AddItem)` and `histories(Order)` are for tests of a model. The others make what goes into a log:
stored values by their tag, payloads, schemas and drafts.

Values are in stored form (`eventlab.model.types`) and hostile on purpose: the ends of every range, NaN and -0.0, text with
quotes, newlines, NUL and letters outside the first plane, empty and nested lists, None wherever it is allowed.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import functools
import json
import uuid
from collections.abc import Sequence
from decimal import Decimal
from typing import Any, Final

from annotated_types import MaxLen, MinLen
from hypothesis import strategies as st

from eventlab import commands as handling
from eventlab.errors import EventlabError, InvalidValue, Rejected
from eventlab.model.events import command_type, event_type
from eventlab.model.models import model_of
from eventlab.model.schema import Schema
from eventlab.model.types import (
    DAY_ZERO,
    INT64_MAX,
    INT64_MIN,
    MOMENT_MAX,
    MOMENT_MIN,
    Closed,
    FieldType,
    Leaf,
    Record,
    broken,
    record_parts,
)
from eventlab.store.base import Draft

_DAY_US: Final = 86_400_000_000
_FIRST_DAY, _LAST_DAY = (dt.date.min - DAY_ZERO).days, (dt.date.max - DAY_ZERO).days
_TEXTS: Final = [
    "", " ", "'", '"', "\\", "\n", "\0", "a\0b", "%s", "null", "NaN", "é", "e\u0301", "ß", "𝔘", "\U0010ffff", "\ufeff",
]  # fmt: skip

#: Values at the edge of what each scalar tag can hold.
EDGES: Final[dict[str, list[Any]]] = {
    "b": [True, False],
    "i64": [0, 1, -1, INT64_MIN, INT64_MAX, 2**53 + 1],
    "f64": [0.0, -0.0, 0.1, 5e-324, 1.7976931348623157e308, float("inf"), float("-inf"), float("nan")],
    "s": [*_TEXTS, "x" * 10_000],
    "bin": [b"", b"\0", b"\xff\xfe", bytes(range(256))],
    "uuid": [bytes(16), b"\xff" * 16],
    "d18_2": [0, 1, -1, 10**18 - 1, 1 - 10**18],
    "d18_0": [0, 10**18 - 1],
    "d18_18": [1, 1 - 10**18],
    "d38_9": [0, 1, -1, 10**38 - 1, 1 - 10**38, 2**64],
    "d38_38": [1, 10**38 - 1],
    "dec": ["0", "-0", "1.10", "1E+3", "123456789012345678901234567890.123456789"],
    "ts": [0, -1, 1, MOMENT_MIN, MOMENT_MAX],
    "d": [0, -1, _FIRST_DAY, _LAST_DAY],
    "t": [0, 1, _DAY_US - 1],
    "td": [0, -1, INT64_MIN, INT64_MAX],
    "json": ["null", "0", '""', "[]", "{}", '{"a":[1,{"b":null}]}', '"\\u0000"'],
}

scalar_tags = st.sampled_from(sorted(EDGES))


# -- for tests of a model --------------------------------------------------------------------------------------------------


def events(cls: type[Any], **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Events of a class, with any values that its types allow; `fields` are strategies for some of them.

    Values are as hostile as the types permit: a rule that should hold of them is written as a strategy.
    """
    return _built(cls, event_type(cls).fields, fields)


def commands(cls: type[Any], **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Commands of a class, with any values that its types allow; `fields` are strategies for some of them."""
    return _built(cls, command_type(cls).fields, fields)


def _built(cls: type[Any], kinds: Sequence[tuple[str, FieldType]], fields: dict[str, Any]) -> st.SearchStrategy[Any]:
    known = [name for name, _ in kinds]
    for name, drawn in fields.items():
        if name not in known:
            raise InvalidValue(f"{cls.__name__} has no field {name!r}", hint=f"its fields: {', '.join(known) or 'none'}")
        if not isinstance(drawn, st.SearchStrategy):
            raise InvalidValue(f"{name}={drawn!r} is no strategy to draw values from", hint=f"{name}=st.just({drawn!r})")
    return st.builds(cls, **{name: fields[name] if name in fields else of_type(kind) for name, kind in kinds})


def histories(
    model: type[Any], given: st.SearchStrategy[Any] | None = None, *, max_size: int = 20
) -> st.SearchStrategy[list[Any]]:
    """Events of one aggregate as its own `decide` makes them: commands are drawn and decided, and rejected ones passed over.

    Without a strategy for commands they are any that `decide` lists.
    """
    of = model_of(model)
    if given is None:
        listed = of._resolve_decides()
        if not listed:
            name, says = model.__name__, "has no decide" if of.decide is None else "names no commands where it decides"
            raise InvalidValue(
                f"histories draws commands, and {name} {says}",
                hint=f"def decide(self, command: Add | Drop); or histories({name}, commands(Add) | commands(Drop))",
            )
        given = st.one_of([commands(cls) for cls in listed])

    def history(asked: list[Any]) -> list[Any]:
        state, found = of.initial, []
        for command in asked:
            try:
                made = handling.decide(of, state, command)
            except Rejected:
                continue
            state = handling.after(of, state, made)
            found += made
        return found

    return st.lists(given, max_size=max_size).map(history)


def of_type(kind: FieldType) -> st.SearchStrategy[Any]:
    """Python values of a field's type."""
    found: st.SearchStrategy[Any]
    if isinstance(kind, Closed):
        found = st.sampled_from(list(kind.members.values()))
    elif isinstance(kind, Record):
        found = st.builds(kind.cls, **{name: of_type(of) for name, of in kind.fields})
    elif kind.limits:
        found = _within(kind).filter(lambda value: not any(broken(limit, value) for limit in kind.limits))
    else:
        found = values(kind.tag).filter(lambda stored: _fits(kind, stored)).map(kind.decode)
    return st.none() | found if kind.nullable else found


def _within(kind: FieldType) -> st.SearchStrategy[Any]:
    """Values of a type that are most often within its limits; those that are not are filtered."""
    plain = dataclasses.replace(kind, limits=(), nullable=False)
    bounds = {name: getattr(of, name) for of in kind.limits for name in ("ge", "gt", "le", "lt") if hasattr(of, name)}
    low, high = bounds.get("ge", bounds.get("gt")), bounds.get("le", bounds.get("lt"))
    least = max((of.min_length for of in kind.limits if isinstance(of, MinLen)), default=0)
    most = min((of.max_length for of in kind.limits if isinstance(of, MaxLen)), default=least + 20)
    if kind.tag == "s":
        return st.text(st.characters(exclude_categories=["Cs"]), min_size=least, max_size=most)
    if kind.tag == "i64":
        return st.integers(INT64_MIN if low is None else int(low), INT64_MAX if high is None else int(high))
    if kind.tag == "f64":
        return st.floats(low, high, allow_nan=False, allow_infinity=False)
    if kind.tag[0] == "d" and "_" in kind.tag:
        digits, places = map(int, kind.tag[1:].split("_"))
        edge = Decimal(10**digits - 1).scaleb(-places)
        return st.decimals(-edge if low is None else low, edge if high is None else high, places=places)
    return of_type(plain)


def _fits(kind: FieldType, stored: Any) -> bool:
    """Whether a stored value is one that the type itself would store: a tag says less than its type."""
    try:
        kind.encode(kind.decode(stored), "it")
    except (ArithmeticError, AttributeError, EventlabError, LookupError, TypeError, ValueError):
        return False
    return True


# -- what goes into a log --------------------------------------------------------------------------------------------------


def texts() -> st.SearchStrategy[str]:
    """Text that a payload may hold: any, but without half surrogates."""
    return st.sampled_from(_TEXTS) | st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@functools.cache
def values(tag: str) -> st.SearchStrategy[Any]:
    """Stored values of a tag, without None at the top."""
    if tag in EDGES:
        return st.sampled_from(EDGES[tag]) | _scalars(tag)
    if tag.startswith("l_"):
        return st.lists(optional(tag[2:]), max_size=4)
    if tag.startswith("m_"):
        return st.dictionaries(texts(), optional(tag[2:]), max_size=4).map(lambda d: dict(sorted(d.items())))
    if tag.startswith("r("):
        names = [name for name, _ in record_parts(tag)]
        return st.tuples(*(optional(of) for _, of in record_parts(tag))).map(lambda found: dict(zip(names, found, strict=True)))
    return _scalars(tag)


def optional(tag: str) -> st.SearchStrategy[Any]:
    """Stored values of a tag, or None."""
    return st.none() | values(tag)


def _scalars(tag: str) -> st.SearchStrategy[Any]:
    if tag[0] == "d" and "_" in tag:
        limit = 10 ** int(tag[1:].split("_")[0]) - 1
        return st.integers(-limit, limit)
    json_values = st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts(), inner, max_size=3),
        max_leaves=6,
    )
    kinds: dict[str, st.SearchStrategy[Any]] = {
        "b": st.booleans(),
        "p": st.booleans(),
        "i64": st.integers(INT64_MIN, INT64_MAX),
        "td": st.integers(INT64_MIN, INT64_MAX),
        "f64": st.floats(),
        "s": texts(),
        "bin": st.binary(max_size=20),
        "uuid": st.binary(min_size=16, max_size=16),
        "dec": st.decimals(allow_nan=False, allow_infinity=False).map(str),
        "ts": st.integers(MOMENT_MIN, MOMENT_MAX),
        "d": st.integers(_FIRST_DAY, _LAST_DAY),
        "t": st.integers(0, _DAY_US - 1),
        "json": json_values.map(lambda v: json.dumps(v, sort_keys=True, ensure_ascii=False, separators=(",", ":"))),
    }
    return kinds[tag]


def tags() -> st.SearchStrategy[str]:
    """Tags of every kind: scalars, and lists, maps and records of tags."""
    names = st.sampled_from(["city", "at", "größe", "select", "x1"])

    def nest(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
        record = st.lists(st.tuples(names, inner), min_size=1, max_size=3, unique_by=lambda part: part[0])
        return (
            inner.map(lambda tag: f"l_{tag}")
            | inner.map(lambda tag: f"m_{tag}")
            | record.map(lambda parts: f"r({','.join(f'{name}={tag}' for name, tag in parts)})")
        )

    return st.recursive(scalar_tags, nest, max_leaves=3)


def columns(max_size: int = 5) -> st.SearchStrategy[list[str]]:
    """Physical columns of one event type, with the names that nested dataclasses give: `addr:p`, `addr.city:s`."""
    paths = st.sampled_from(["quantity", "addr.city", "addr.geo.lat", "größe", "position", "select", "type", "order", "x"])
    plain = st.lists(st.tuples(paths, tags()), max_size=max_size, unique_by=lambda part: part[0])
    named = plain.map(lambda parts: [f"{path}:{tag}" for path, tag in parts])
    return named.flatmap(lambda found: st.sampled_from([found, [*found, "addr:p"]]))


def schemas(name: str, version: int = 1) -> st.SearchStrategy[Schema]:
    """Schemas of one event type and version."""
    return columns().map(lambda found: Schema(name, version, tuple(found)))


def payloads(schema: Schema) -> st.SearchStrategy[tuple[Any, ...]]:
    """Payloads of a schema in stored form."""
    return st.tuples(*(optional(Leaf.parse(column).tag) for column in schema.columns))


@st.composite
def drafts(draw: st.DrawFn, streams: Sequence[str], among: Sequence[Schema]) -> Draft:
    """Events ready to append to one of these streams, with hostile payloads, tags, times, actors and causes."""
    stream, schema = draw(st.sampled_from(streams)), draw(st.sampled_from(among))
    payload = draw(payloads(schema))
    ids = st.none() | st.uuids().map(lambda made: made.bytes)
    return Draft(
        stream,
        schema,
        payload,
        event_id=uuid.UUID(int=draw(st.integers(0, 2**128 - 1))).bytes,
        occurred_at=draw(st.none() | values("ts")),
        correlation_id=draw(ids),
        causation_id=draw(ids),
        actor=draw(st.none() | st.sampled_from(["ann", "bob 'the' \"builder\"", "é"])),
        tags=tuple(draw(st.lists(st.sampled_from(["vip", "customer:c9", "customer:c'1", "größe:😀"]), unique=True, max_size=3))),
    )
