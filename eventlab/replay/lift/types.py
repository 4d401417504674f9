"""Types of the values in an expression, and their lowered form: the stored form of `model.types`, for both backends.

A decimal is an integer with a scale that the analysis knows, a moment its microseconds, a day its number, an enum member
its stored value, a tuple or list a tuple, a set a frozenset. Two lowered values of one type are equal exactly when the Python
values are.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import json
import re
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, Final
from zoneinfo import ZoneInfo

from eventlab.model.types import DAY_ZERO, EPOCH, INT64_MAX, INT64_MIN, MICROSECOND, Closed, FieldType, Leaf, Record

#: Kinds whose values are plain integers when lowered, and compare as such.
WHOLE: Final = frozenset({"int", "dec", "ts", "wall", "date", "time", "dur"})
ORDERED: Final = WHOLE | {"str", "float", "bytes"}
SCALARS: Final = ORDERED | {"bool", "enum", "uuid"}
MAX_SCALE: Final = 24


@dataclass(frozen=True)
class Type:
    """What an expression gives.

    `name` is one of int, bool, float, str, dec, ts, wall (a local time of day and date), date, time, dur, bytes, uuid, enum,
    json, exact, list, set, map, rec, none. `cls` is the enum, the dataclass, or which Python sequence a list is.
    """

    name: str
    opt: bool = False
    scale: int = 0
    cls: Any = None
    item: Type | None = None
    parts: tuple[tuple[str, Type], ...] = ()

    def __str__(self) -> str:
        shown = {"dec": "Decimal", "ts": "datetime", "dur": "timedelta", "list": "sequence"}.get(self.name, self.name)
        if self.name in ("enum", "rec"):
            shown = self.cls.__name__
        return f"{shown} | None" if self.opt else shown

    def maybe(self) -> Type:
        """The same, or None."""
        return replace(self, opt=True)

    def sure(self) -> Type:
        """The same without None."""
        return replace(self, opt=False)

    @property
    def whole(self) -> bool:
        return self.name in WHOLE or (self.name == "enum" and self.text is False)

    @property
    def text(self) -> bool:
        """Whether the lowered form is text."""
        return self.name == "str" or (self.name == "enum" and all(isinstance(m.value, str) for m in self.cls))


INT, BOOL, FLOAT, STR, TS, WALL = Type("int"), Type("bool"), Type("float"), Type("str"), Type("ts"), Type("wall")
DATE, TIME, DUR, BYTES, UUID, NONE = Type("date"), Type("time"), Type("dur"), Type("bytes"), Type("uuid"), Type("none", opt=True)


def dec(scale: int) -> Type:
    """Decimals with so many places."""
    return Type("dec", scale=scale)


_BY_TAG: Final = {
    "b": BOOL, "i64": INT, "f64": FLOAT, "s": STR, "bin": BYTES, "uuid": UUID, "ts": TS, "d": DATE, "t": TIME, "td": DUR,
    "json": Type("json"), "dec": Type("exact"), "p": BOOL,
}  # fmt: skip


#: The tag of a decimal: its digits and its places.
DEC_TAG: Final = re.compile(r"d(18|38)_(\d+)")


def by_tag(tag: str) -> Type | None:
    """The type of a stored leaf whose class is not known; None for collections and for what is not computed with."""
    if matched := DEC_TAG.fullmatch(tag):
        return dec(int(matched[2]))
    return _BY_TAG.get(tag) if tag not in ("json", "dec") else None


def type_of(kind: FieldType) -> Type:
    """The type of a field's values."""
    found = _plain(kind)
    return found.maybe() if kind.nullable else found


def _plain(kind: FieldType) -> Type:
    if isinstance(kind, Closed):
        member = next(iter(kind.members.values()))
        if isinstance(member, enum.Enum):
            return Type("enum", cls=type(member))
        return STR if kind.tag == "s" else INT
    if isinstance(kind, Record):
        return Type("rec", cls=kind.cls, parts=tuple((name, type_of(of)) for name, of in kind.fields))
    if kind.item is not None:
        item = type_of(kind.item)
        if kind.origin is dict:
            return Type("map", item=item)
        return Type("set" if kind.origin in (set, frozenset) else "list", cls=kind.origin, item=item)
    if kind.tag[0] == "d" and "_" in kind.tag:
        return dec(int(kind.tag.partition("_")[2]))
    return _BY_TAG[kind.tag]


def item_of(kind: FieldType) -> FieldType | None:
    """The field type of the items of a list, set or map."""
    return kind.item


@dataclass(frozen=True)
class Slot:
    """One leaf of a field: its path, its type, and the `FieldType` of the leaf itself; None for a presence mark."""

    path: str
    type: Type
    kind: FieldType | None

    @property
    def column(self) -> str:
        return Leaf(self.path.rstrip("?"), self.kind.tag if self.kind is not None else "p").column


def slots(name: str, kind: FieldType, within_optional: bool = False) -> Iterator[Slot]:
    """The leaves of a field, in the order of `FieldType.leaves`; what lies in an optional dataclass may be None itself."""
    if isinstance(kind, Record):
        if kind.nullable:
            yield Slot(f"{name}?", BOOL, None)
        for field, of in kind.fields:
            yield from slots(f"{name}.{field}", of, within_optional or kind.nullable)
    else:
        found = type_of(kind)
        yield Slot(name, found.maybe() if within_optional else found, kind)


def closed_in(kind: FieldType) -> bool:
    """Whether decoding a value of this type can meet a member that the class of today does not have."""
    if isinstance(kind, Closed):
        return True
    if isinstance(kind, Record):
        return any(closed_in(of) for _, of in kind.fields)
    item = item_of(kind)
    return item is not None and closed_in(item)


# -- constants -------------------------------------------------------------------------------------------------------------


class NotLowered(Exception):
    """A Python value that has no lowered form; the text says why."""


def type_of_value(value: Any) -> Type:
    """The type of a Python constant."""
    if value is None:
        return NONE
    if isinstance(value, enum.Enum):
        return Type("enum", cls=type(value))
    simple = {bool: BOOL, int: INT, float: FLOAT, str: STR, bytes: BYTES, uuid.UUID: UUID, dt.date: DATE, dt.timedelta: DUR}
    if type(value) in simple:
        return simple[type(value)]
    if type(value) is Decimal and value.is_finite():
        return dec(max(0, -int(value.as_tuple().exponent)))
    if type(value) is dt.datetime and value.utcoffset() is not None:
        if value.tzinfo is not dt.UTC and value.utcoffset() != dt.timedelta(0):
            raise NotLowered(f"{value!r} is not in UTC")
        return TS
    if type(value) is dt.time and value.tzinfo is None:
        return TIME
    if isinstance(value, (tuple, list, set, frozenset)) and type(value) in (tuple, list, set, frozenset):
        items = [type_of_value(v) for v in value]
        item = None
        for found in items:
            item = found if item is None else join(item, found)
        return Type("set" if isinstance(value, (set, frozenset)) else "list", cls=type(value), item=item)
    if type(value) is dict and all(type(k) is str for k in value):
        item = None
        for held in value.values():
            item = type_of_value(held) if item is None else join(item, type_of_value(held))
        return Type("map", item=item)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        parts = tuple((f.name, type_of_value(getattr(value, f.name))) for f in dataclasses.fields(value))
        return Type("rec", cls=type(value), parts=parts)
    raise NotLowered(f"{value!r} ({type(value).__name__}) has no stored form")


def join(a: Type, b: Type) -> Type:
    """The type of either; `NotLowered` where there is none."""
    if a == b:
        return a
    if a.name == "none":
        return b.maybe()
    if b.name == "none":
        return a.maybe()
    opt = a.opt or b.opt
    if a.name == b.name == "dec":
        return replace(dec(max(a.scale, b.scale)), opt=opt)
    if a.name != b.name or (a.name == "enum" and a.cls is not b.cls):
        raise NotLowered(f"it may be {a} or {b}")
    if a.name == "rec":
        if a.cls is not b.cls:
            raise NotLowered(f"it may be {a} or {b}")
        parts = tuple((n, join(x, y)) for (n, x), (_, y) in zip(a.parts, b.parts, strict=True))
        return replace(a, opt=opt, parts=parts)
    if a.name in ("list", "set", "map"):
        if a.name == "list" and a.cls is not b.cls:
            raise NotLowered("it may be a tuple or a list")
        item = a.item if b.item is None else b.item if a.item is None else join(a.item, b.item)
        return replace(a, opt=opt, item=item, cls=a.cls)
    return replace(a, opt=opt)


def lower(value: Any, to: Type) -> Any:
    """The lowered form of a Python constant as a value of type `to`."""
    if value is None:
        return None
    name = to.name
    if name == "dec":
        number = Decimal(value).scaleb(to.scale)
        if number != number.to_integral_value() or abs(number) >= 10**28:
            raise NotLowered(f"{value!r} has more places or digits than are computed with")
        return int(number)
    if name == "float":
        if isinstance(value, int) and abs(value) > 2**53:
            raise NotLowered(f"{value!r} has no exact float")
        return float(value)
    if name == "enum":
        return value.value
    if name == "ts":
        return (value - EPOCH) // MICROSECOND
    if name == "date":
        return (value - DAY_ZERO).days
    if name == "time":
        return ((value.hour * 60 + value.minute) * 60 + value.second) * 1_000_000 + value.microsecond
    if name == "dur":
        return value // MICROSECOND
    if name == "uuid":
        return value.bytes
    if name == "exact":
        return str(value)
    if name == "json":
        return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    if name in ("list", "set"):
        item = to.item or NONE
        made = (lower(v, item) for v in value)
        return tuple(made) if name == "list" else frozenset(made)
    if name == "map":
        return {k: lower(v, to.item or NONE) for k, v in value.items()}
    if name == "rec":
        return {field: lower(getattr(value, field), of) for field, of in to.parts}
    if name == "str":
        try:
            value.encode()
        except UnicodeEncodeError:
            raise NotLowered(f"{value!r} holds half of a surrogate pair") from None
    return value


def stored_to_lowered(value: Any, to: Type) -> Any:
    """From the stored form in a column to the lowered one: sequences become tuples, sets frozensets."""
    if value is None or to.item is None:
        return value
    item = to.item
    deep = item.item is not None
    if to.name == "map":
        return {k: stored_to_lowered(v, item) for k, v in value.items()} if deep else value
    made = (stored_to_lowered(v, item) for v in value) if deep else value
    return tuple(made) if to.name == "list" else frozenset(made)


def zone_of(value: Any) -> str | None:
    """The name of a zone, where both backends know it."""
    return value.key if isinstance(value, ZoneInfo) and value.key else None


def fits_int64(value: int) -> bool:
    """Whether an integer fits 64 bits."""
    return INT64_MIN <= value <= INT64_MAX


def parts_of(kind: FieldType) -> Mapping[str, FieldType]:
    """The fields of a nested dataclass."""
    return dict(kind.fields) if isinstance(kind, Record) else {}
