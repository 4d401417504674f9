"""Field types: what a payload or a state may hold, and its one stored form.

Each supported Python type has a tag (`i64`, `d18_2`, `l_s`), which names its Arrow type for ever, and a *stored form*:
the lowered, exact value that is written (a scaled integer for a decimal, microseconds since 1970 in UTC for a moment).
`encode` goes from Python to the stored form and refuses what does not fit; `decode` comes back. What a hot event and a
sealed one hold is the same stored form, so they are equal in every way.

=====================================  ==================  ==========================================================
Python                                 tag                 stored form
=====================================  ==================  ==========================================================
bool                                   b                   bool
int                                    i64                 int within 64 bits
float                                  f64                 float; NaN and infinities only in `AnyFloat`
str, Literal, Enum of strings          s                   str without lone surrogates
Enum or Literal of integers            i64                 int
bytes, UUID                            bin, uuid           bytes
Decimal with `Scale(18 | 38, s)`       d18_s, d38_s        int, scaled by 10**s
Decimal                                d38_9               int, scaled by 10**9
`ExactDecimal`                         dec                 str
datetime with a zone                   ts                  int, microseconds since 1970-01-01 UTC
date, time                             d, t                int, days since 1970-01-01; microseconds of the day
timedelta                              td                  int, microseconds
list, tuple[X, ...], set, frozenset    l_X                 list; a set is sorted
dict[str, X]                           m_X                 dict, sorted by key
dataclass                              one column a leaf   `addr.city:s`; inside a list or dict `r(city=s)`
Any, and unions of what JSON has       json                str, canonical JSON
=====================================  ==================  ==========================================================

`Annotated[int, Ge(1)]`, `Annotated[str, MinLen(1)]` and the other limits of `annotated_types` hold for what is appended,
ingested and commanded. What is stored already is read as it is.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import enum
import inspect
import json
import math
import operator
import types
import typing
import uuid
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Any, Final, Literal, TypeVar

import annotated_types as at

from eventlab.errors import InvalidValue, ModelError, StaleType, UnknownValue

EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
DAY_ZERO = dt.date(1970, 1, 1)
MICROSECOND = dt.timedelta(microseconds=1)
INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1
MOMENT_MIN = (dt.datetime.min.replace(tzinfo=dt.UTC) - EPOCH) // MICROSECOND
MOMENT_MAX = (dt.datetime.max.replace(tzinfo=dt.UTC) - EPOCH) // MICROSECOND
FLOAT_EXACT = 2**53
#: Lists and dicts may hold one another so deep, where a field may hold anything: every reader of JSON can follow.
MAX_PAYLOAD_DEPTH = 100

WIDE = decimal.Context(prec=80, traps=[decimal.InvalidOperation])
_EXACT = decimal.Context(prec=80, traps=[decimal.InvalidOperation, decimal.Inexact])


@dataclass(frozen=True)
class Scale:
    """Digits and decimal places of a `Decimal` field: `Annotated[Decimal, Scale(18, 2)]`. Digits are 18 or 38."""

    digits: int
    places: int

    def __post_init__(self) -> None:
        if self.digits not in (18, 38) or not 0 <= self.places <= self.digits:
            raise ModelError(
                f"Scale({self.digits}, {self.places}) is not a decimal type that is stored exactly",
                hint="digits are 18 or 38, and places lie between 0 and digits",
            )


@dataclass(frozen=True)
class TagMark:
    """Marks a field whose value is also a tag; written `Tag[str]`."""


@dataclass(frozen=True)
class ExactMark:
    """Marks a decimal kept digit by digit as text; written `ExactDecimal`."""


@dataclass(frozen=True)
class NonFiniteMark:
    """Marks a float that may be NaN or infinite; written `AnyFloat`."""


T = TypeVar("T")
Tag = Annotated[T, TagMark()]
Money = Annotated[Decimal, Scale(18, 2)]
ExactDecimal = Annotated[Decimal, ExactMark()]
AnyFloat = Annotated[float, NonFiniteMark()]


def money(value: str | int | Decimal) -> Decimal:
    """An amount with two decimal places, exactly.

    >>> money("9.50"), money(0)
    (Decimal('9.50'), Decimal('0.00'))
    """
    try:
        number = Decimal(value)
        if number.is_finite():
            return number.quantize(Decimal("0.01"), context=_EXACT)
    except decimal.Inexact:
        raise InvalidValue(f"{value!r} has more than two decimal places", hint="round it first") from None
    except (decimal.InvalidOperation, TypeError, ValueError):
        pass
    raise InvalidValue(f"{value!r} is not an amount of money", hint="el.money('9.50')")


@dataclass(frozen=True)
class Leaf:
    """One stored column: `path` within the payload and `tag` of its type; its physical name is both."""

    path: str
    tag: str

    @property
    def column(self) -> str:
        return f"{self.path}:{self.tag}"

    @classmethod
    def parse(cls, column: str) -> Leaf:
        path, _, tag = column.partition(":")
        return cls(path, tag)


def _same(value: Any) -> Any:
    return value


@dataclass(frozen=True)
class FieldType:
    """How one field is checked, stored and read back.

    `check` takes a Python value and its path and gives the stored form; `back` takes the stored form. Neither sees
    None: `encode` and `decode` handle it. A `Record` overrides the column methods, all else is one column.
    """

    tag: str
    declared: str
    check: Callable[[Any, str], Any]
    back: Callable[[Any], Any] = _same
    nullable: bool = False
    is_tag: bool = False
    #: What the values of events and commands have to hold: `Annotated[int, Ge(1)]`.
    limits: tuple[at.BaseMetadata, ...] = ()
    #: Of a list, set or map: the type of its items, and the Python class.
    item: FieldType | None = None
    origin: Any = None

    def leaves(self, name: str) -> tuple[Leaf, ...]:
        """The stored columns of a field of this type."""
        return (Leaf(name, self.tag),)

    def encode(self, value: Any, path: str) -> Any:
        """The stored form; `InvalidValue` names the path where it does not fit."""
        if value is None:
            if self.nullable:
                return None
            raise InvalidValue(f"{path} is None, but is declared {self.declared}", field=path)
        stored = self.check(value, path)
        if self.limits:
            check_limits(self.limits, value, path)
        return stored

    def decode(self, stored: Any) -> Any:
        """The Python value of a stored form."""
        return None if stored is None else self.back(stored)

    def put(self, value: Any, path: str, out: list[Any]) -> None:
        """Append the stored form of each leaf to `out`."""
        out.append(self.encode(value, path))

    def decode_columns(self, columns: Sequence[list[Any]]) -> list[Any]:
        """A list of Python values from one list of stored values per leaf."""
        (column,) = columns
        if self.back is _same:
            return column
        back = self.back
        return [None if value is None else back(value) for value in column]


@dataclass(frozen=True)
class Record(FieldType):
    """A nested dataclass: one column a leaf, and a presence column when it may be None."""

    cls: type[Any] = object
    fields: tuple[tuple[str, FieldType], ...] = ()

    def leaves(self, name: str) -> tuple[Leaf, ...]:
        own = (Leaf(name, "p"),) if self.nullable else ()
        return own + tuple(leaf for field, kind in self.fields for leaf in kind.leaves(f"{name}.{field}"))

    def put(self, value: Any, path: str, out: list[Any]) -> None:
        if value is None and self.nullable:
            out.extend([False] + [None] * (len(self.leaves("")) - 1))
            return
        _check_class(value, self.cls, path, self.declared)
        if self.nullable:
            out.append(True)
        for field, kind in self.fields:
            kind.put(getattr(value, field), f"{path}.{field}", out)

    def decode_columns(self, columns: Sequence[list[Any]]) -> list[Any]:
        present = columns[0] if self.nullable else None
        at = 1 if self.nullable else 0
        parts = []
        for _, kind in self.fields:
            width = len(kind.leaves(""))
            parts.append(kind.decode_columns(columns[at : at + width]))
            at += width
        rows = zip(*parts, strict=True) if parts else ((),) * len(columns[0])
        if present is None:
            return [self.cls(*row) for row in rows]
        return [self.cls(*row) if here else None for here, row in zip(present, rows, strict=True)]


@dataclass(frozen=True)
class Closed(FieldType):
    """An Enum or a Literal: `members` are its Python values by their stored ones."""

    members: Mapping[Any, Any] = dataclasses.field(default_factory=dict)

    def decode_columns(self, columns: Sequence[list[Any]]) -> list[Any]:
        (column,) = columns
        # One look at the distinct values, for a literal's stored values are its Python ones.
        for value in set(column):
            self.decode(value)
        if all(stored is member for stored, member in self.members.items()):
            return column
        return [None if value is None else self.members[value] for value in column]


# -- from a Python type to a FieldType -----------------------------------------------------------------------------------


def field_type(hint: Any, path: str, within: tuple[type[Any], ...] = (), *, limited: bool = True) -> FieldType:
    """The `FieldType` of a type hint; `ModelError` names the field when it is not in the table above.

    `within` are the dataclasses that hold the field. Not `limited`, what is declared with limits takes any value of its type:
    a state is what events made of it.

    >>> field_type(list[int], "ItemAdded.counts").tag
    'l_i64'
    """
    hint, marks = _unwrap(hint)
    nullable = False
    options = _union(hint)
    if options and types.NoneType in options:
        nullable = True
        rest = [o for o in options if o is not types.NoneType]
        if len(rest) == 1:
            hint, more = _unwrap(rest[0])
            marks = marks + more
        else:
            hint = typing.Union[tuple(rest)]  # noqa: UP007
    kind = _plain_type(hint, marks, path, within, limited)
    tagged = any(isinstance(mark, TagMark) for mark in marks)
    if tagged and kind.tag not in ("s", "i64", "uuid", "b"):
        raise ModelError(f"{path} cannot be a tag: {kind.declared} is not text, an integer or a UUID", field=path)
    declared = f"{kind.declared} | None" if nullable else kind.declared
    limits = limits_in(marks)
    if limits and isinstance(kind, Record):
        raise ModelError(f"{path}: the limits of a dataclass stand at its fields", hint=f"in {kind.declared}", field=path)
    return dataclasses.replace(
        kind, nullable=nullable or kind.nullable, is_tag=tagged, declared=declared, limits=limits if limited else ()
    )


def _unwrap(hint: Any) -> tuple[Any, tuple[Any, ...]]:
    """A hint without `Annotated`, `NewType` and `type` aliases, and the marks it carried."""
    marks: tuple[Any, ...] = ()
    while True:
        if typing.get_origin(hint) is Annotated:
            hint, *more = typing.get_args(hint)
            marks += tuple(more)
        elif isinstance(hint, typing.NewType):
            hint = hint.__supertype__
        elif type(hint).__name__ == "TypeAliasType":  # `type Sku = str`, from Python 3.12 on
            hint = hint.__value__
        else:
            return hint, marks


def _union(hint: Any) -> tuple[Any, ...]:
    return typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else ()


def _plain_type(
    hint: Any, marks: tuple[Any, ...], path: str, within: tuple[type[Any], ...], limited: bool
) -> FieldType:
    if isinstance(hint, Hashable) and hint in _SCALARS:
        return _SCALARS[hint](marks)
    if hint is Any or hint is object:
        return FieldType("json", _name(hint), _check_json, json.loads, nullable=True)
    if options := _union(hint):
        return _union_of(options, hint, path)
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return _closed(args, args, _name(hint), path)
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return _closed(tuple(m.value for m in hint), tuple(hint), hint.__name__, path)
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return _record(hint, path, within, limited)
    if origin in (list, set, frozenset) or (origin is tuple and len(args) == 2 and args[1] is Ellipsis):
        return _list_of(origin, field_type(args[0], f"{path}[]", within, limited=limited), hint)
    if origin is dict and args[0] is str:
        return _map_of(field_type(args[1], f"{path}[]", within, limited=limited), hint)
    raise ModelError(
        f"{path} is declared {_name(hint)}, which has no exact stored form",
        hint="bool, int, float, str, bytes, UUID, Decimal, datetime, date, time, timedelta, an Enum, a Literal, a dataclass, "
        "or list[X], tuple[X, ...], frozenset[X], dict[str, X] of these, or X | None",
        field=path,
    )


def type_hints(cls: type[Any], names: Mapping[str, Any], path: str) -> dict[str, Any]:
    """The type hints of a class, its names looked up in `names` too; `ModelError` when one is not defined."""
    try:
        return typing.get_type_hints(cls, localns={**names, cls.__name__: cls}, include_extras=True)
    except (NameError, AttributeError, TypeError, SyntaxError) as why:
        raise ModelError(f"{path}: {why}", hint="define the types of its fields before the class") from None


def classes_in(hint: Any) -> Iterator[type[Any]]:
    """The dataclasses and enums that a supported type hint is made of."""
    hint, _ = _unwrap(hint)
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        yield hint
    elif isinstance(hint, type) and dataclasses.is_dataclass(hint):
        yield hint
        parts = type_hints(hint, {}, hint.__name__)
        yield from (cls for field in dataclasses.fields(hint) for cls in classes_in(parts[field.name]))
    elif typing.get_origin(hint) is not Literal:
        yield from (cls for part in typing.get_args(hint) for cls in classes_in(part))


def check_positional(cls: type[Any]) -> None:
    """A class whose instances are made again from the values of its fields, in order."""
    for field in dataclasses.fields(cls):
        if not field.init or field.kw_only:
            what = "init=False" if not field.init else "kw_only=True"
            raise ModelError(
                f"{cls.__name__}.{field.name} has {what}", hint="a stored object is made again from its fields in order"
            )
    names = [field.name for field in dataclasses.fields(cls)]
    taken = [*inspect.signature(cls.__init__).parameters][1:]  # an __init__ written by hand, or an InitVar
    if taken != names:
        raise ModelError(
            f"{cls.__name__} is made from ({', '.join(taken)}), but its fields are ({', '.join(names)})",
            hint="a stored object is made again from its fields in order: no __init__ of its own, no InitVar",
        )


#: What a field may hold: of any other value in a class (a function, a property, another class) nobody thinks it is stored.
_DATA: Final = (
    str, bytes, int, float, Decimal, uuid.UUID, dt.date, dt.time, dt.timedelta, list, dict, set, tuple, frozenset,
    types.NoneType, enum.Enum, dataclasses.Field,
)  # fmt: skip


def check_declared(cls: type[Any]) -> None:
    """A class whose values are all fields: one without an annotation is none, and would be lost without a word."""
    if issubclass(cls, enum.Enum):
        return
    declared = {name for base in cls.__mro__ for name in inspect.get_annotations(base)}
    for name, value in vars(cls).items():
        # UPPER_CASE is how a constant is written.
        if name.startswith("_") or name.isupper() or name in declared or not _is_data(value):
            continue
        raise ModelError(
            f"{cls.__name__}.{name} has no annotation: it is no field, and its value is never stored",
            hint=f"{name}: {_declaration(value)}; for a constant {name.upper()} = …, or an annotation as ClassVar",
            field=name,
        )


def _is_data(value: Any) -> bool:
    if isinstance(value, _DATA):
        return True
    # A descriptor, or a wrapped function, may be written as a dataclass.
    acts = {"__get__", "__set__", "__set_name__", "__call__"}.intersection(dir(type(value)))
    return dataclasses.is_dataclass(type(value)) and not acts


def _declaration(value: Any) -> str:
    """How a field with this default is written: `str = "a"`."""
    of = type(value).__name__
    if isinstance(value, (list, dict, set)):
        return f"{of}[…] = el.field(default_factory={of})"
    if isinstance(value, dataclasses.Field):
        return "… = el.field(…)"
    if isinstance(value, enum.Enum):
        return f"{of} = {of}.{value.name}"
    if value is None:
        return "… | None = None"
    shown = f'"{value}"' if type(value) is str and not set(value) & {'"', "\\"} and value.isprintable() else repr(value)
    kind = "tuple[…, ...]" if type(value) is tuple else "frozenset[…]" if type(value) is frozenset else of
    return f"{kind} = {shown if len(shown) <= 40 else '…'}"


def _name(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) and not typing.get_args(hint) else str(hint).replace("typing.", "")


def _check_class(value: Any, cls: type[Any], path: str, declared: str, why: str = "") -> None:
    """Refuse an instance of any other class; one that only has the same name was redefined in between."""
    of = type(value)
    if of is cls:
        return
    if (of.__module__, of.__qualname__) == (cls.__module__, cls.__qualname__):
        raise StaleType(
            f"{path} is {_shown(value)} of another definition of {cls.__name__} than the one it was declared with",
            hint=f"after {cls.__name__}, define again the class that has the field, and make the value again",
            type=cls.__name__,
            field=path,
        )
    raise _wrong(value, path, declared, why)


def _shown(value: Any) -> str:
    text = repr(value)
    return f"{text if len(text) <= 60 else text[:57] + '...'} ({type(value).__name__})"


def _wrong(value: Any, path: str, declared: str, why: str = "") -> InvalidValue:
    tail = f": {why}" if why else ""
    return InvalidValue(f"{path} is {_shown(value)}, but is declared {declared}{tail}", field=path)


def _check_bool(value: Any, path: str) -> bool:
    if value is True or value is False:
        return value is True
    raise _wrong(value, path, "bool")


def _check_int(value: Any, path: str) -> int:
    if type(value) is not int:
        if not isinstance(value, int) or isinstance(value, (bool, enum.Enum)):
            raise _wrong(value, path, "int")
        value = int(value)
    if INT64_MIN <= value <= INT64_MAX:
        return typing.cast(int, value)
    raise _wrong(value, path, "int", "beyond 64 bits")


def _check_float(value: Any, path: str) -> float:
    number = _check_any_float(value, path)
    if math.isfinite(number):
        return number
    raise _wrong(value, path, "float", "only el.AnyFloat may be NaN or infinite")


def _check_any_float(value: Any, path: str) -> float:
    if type(value) is float:
        return value
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise _wrong(value, path, "float")
    if isinstance(value, int) and abs(value) > FLOAT_EXACT:
        raise _wrong(value, path, "float", "this integer has no exact float")
    return float(value)


def check_text(value: Any, path: str) -> str:
    """A string that is valid Unicode (no lone surrogates)."""
    if type(value) is not str:
        if not isinstance(value, str) or isinstance(value, enum.Enum):
            raise _wrong(value, path, "str")
        value = str(value)
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise _wrong(value, path, "str", "it holds half of a surrogate pair") from None
    return typing.cast(str, value)


def checked(check: Callable[[Any, str], Any], values: Sequence[Any], path: str) -> Sequence[Any] | None:
    """What a check makes of each of many values, of which none is None; None where it has to look at them one by one.

    Plain values of one type are looked at all at once.
    """
    types_ = set(map(type, values))
    if check is _check_int:
        return values if types_ == {int} and min(values) >= INT64_MIN and max(values) <= INT64_MAX else None
    if check is check_text:
        return values if types_ == {str} and "".join(values).isascii() else None
    if check is _check_bool:
        return values if types_ == {bool} else None
    return None if type(None) in types_ else [check(value, path) for value in values]


def _check_bytes(value: Any, path: str) -> bytes:
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    raise _wrong(value, path, "bytes")


def _check_uuid(value: Any, path: str) -> bytes:
    if isinstance(value, uuid.UUID):
        return value.bytes
    raise _wrong(value, path, "UUID")


def as_uuid(value: Any, what: str) -> uuid.UUID:
    """A UUID, or the text of one."""
    try:
        return value if isinstance(value, uuid.UUID) else uuid.UUID(value)
    except (ValueError, TypeError, AttributeError):
        raise InvalidValue(f"{what}={value!r} is not a UUID", hint="uuid.uuid4(), or its text", field=what) from None


def moment_us(value: dt.datetime, path: str) -> int:
    """Microseconds since 1970-01-01 UTC of a datetime that has a zone."""
    if not isinstance(value, dt.datetime):
        raise _wrong(value, path, "datetime")
    if value.utcoffset() is None:
        raise _wrong(value, path, "datetime", "it has no time zone; add tzinfo=datetime.UTC or the zone it was read in")
    stored = (value - EPOCH) // MICROSECOND
    if MOMENT_MIN <= stored <= MOMENT_MAX:
        return stored
    raise _wrong(value, path, "datetime", "in UTC it lies outside the years 1 to 9999")


def from_us(stored: int) -> dt.datetime:
    """The UTC datetime of microseconds since 1970."""
    return EPOCH + dt.timedelta(0, 0, stored)


def _check_date(value: Any, path: str) -> int:
    if isinstance(value, dt.date) and not isinstance(value, dt.datetime):
        return (value - DAY_ZERO).days
    raise _wrong(value, path, "date")


def _check_time(value: Any, path: str) -> int:
    if not isinstance(value, dt.time):
        raise _wrong(value, path, "time")
    if value.tzinfo is not None:
        raise _wrong(value, path, "time", "a time of day has no zone")
    return ((value.hour * 60 + value.minute) * 60 + value.second) * 1_000_000 + value.microsecond


def _time_back(stored: int) -> dt.time:
    seconds, micros = divmod(stored, 1_000_000)
    return dt.time(seconds // 3600, seconds // 60 % 60, seconds % 60, micros)


def _check_timedelta(value: Any, path: str) -> int:
    if not isinstance(value, dt.timedelta):
        raise _wrong(value, path, "timedelta")
    stored = value // MICROSECOND
    if INT64_MIN <= stored <= INT64_MAX:
        return stored
    raise _wrong(value, path, "timedelta", "more microseconds than 64 bits hold")


def _decimal(marks: tuple[Any, ...]) -> FieldType:
    if any(isinstance(mark, ExactMark) for mark in marks):
        return FieldType("dec", "ExactDecimal", _check_exact, Decimal)
    scale = next((mark for mark in marks if isinstance(mark, Scale)), Scale(38, 9))
    step, limit = Decimal(1).scaleb(-scale.places), 10**scale.digits
    declared = f"Decimal({scale.digits}, {scale.places})"

    def check(value: Any, path: str) -> int:
        # Most are as they should be; what is wrong with another is found out below.
        if type(value) is Decimal and value.adjusted() < scale.digits:
            try:
                shifted = value.scaleb(scale.places, _EXACT)
                if (whole := int(shifted)) == shifted and -limit < whole < limit:
                    return whole
            except (ArithmeticError, ValueError):
                pass
        number = _finite_decimal(value, path, declared)
        try:
            scaled = int(number.quantize(step, context=_EXACT).scaleb(scale.places, context=WIDE))
        except decimal.Inexact:
            raise _wrong(value, path, declared, f"more than {scale.places} decimal places; quantize it first") from None
        except decimal.InvalidOperation:
            raise _wrong(value, path, declared, f"more than {scale.digits} digits") from None
        if abs(scaled) >= limit:
            raise _wrong(value, path, declared, f"more than {scale.digits} digits")
        return scaled

    def back(stored: int) -> Decimal:
        return Decimal(stored).scaleb(-scale.places, context=WIDE)

    return FieldType(f"d{scale.digits}_{scale.places}", declared, check, back)


def _check_exact(value: Any, path: str) -> str:
    return str(_finite_decimal(value, path, "ExactDecimal"))


def _finite_decimal(value: Any, path: str, declared: str) -> Decimal:
    if isinstance(value, int) and not isinstance(value, bool):
        return Decimal(value)
    if not isinstance(value, Decimal):
        raise _wrong(value, path, declared, "make it with el.money('9.50') or Decimal('9.50')")
    if not value.is_finite():
        raise _wrong(value, path, declared, "NaN and infinities are not amounts")
    return value


def _float(marks: tuple[Any, ...]) -> FieldType:
    loose = any(isinstance(mark, NonFiniteMark) for mark in marks)
    return FieldType("f64", "AnyFloat" if loose else "float", _check_any_float if loose else _check_float)


def _check_json(value: Any, path: str) -> str:
    _only_json(value, path)
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def _only_json(value: Any, path: str, depth: int = 0) -> None:
    if depth >= MAX_PAYLOAD_DEPTH and isinstance(value, (list, dict)):
        raise InvalidValue(
            f"{path[:60]}… is nested more than {MAX_PAYLOAD_DEPTH} lists and dicts deep",
            hint="store it flatter, or as text of its own",
        )
    if isinstance(value, str):
        check_text(value, path)
    elif isinstance(value, float):
        _check_float(value, path)
    elif isinstance(value, list):
        for i, item in enumerate(value):
            _only_json(item, f"{path}[{i}]", depth + 1)
    elif isinstance(value, dict):
        for key, item in value.items():
            check_text(key, f"{path} (a key)")
            _only_json(item, f"{path}[{key!r}]", depth + 1)
    elif value is not None and (not isinstance(value, int) or isinstance(value, enum.Enum)):
        raise _wrong(value, path, "a union or Any", "it is stored as JSON: text, numbers, bools, None, lists, dicts")


_SCALARS: dict[Any, Callable[[tuple[Any, ...]], FieldType]] = {
    bool: lambda _: FieldType("b", "bool", _check_bool),
    int: lambda _: FieldType("i64", "int", _check_int),
    float: _float,
    str: lambda _: FieldType("s", "str", check_text),
    bytes: lambda _: FieldType("bin", "bytes", _check_bytes),
    uuid.UUID: lambda _: FieldType("uuid", "UUID", _check_uuid, lambda b: uuid.UUID(bytes=b)),
    Decimal: _decimal,
    dt.datetime: lambda _: FieldType("ts", "datetime", moment_us, from_us),
    dt.date: lambda _: FieldType("d", "date", _check_date, lambda days: DAY_ZERO + dt.timedelta(days)),
    dt.time: lambda _: FieldType("t", "time", _check_time, _time_back),
    dt.timedelta: lambda _: FieldType("td", "timedelta", _check_timedelta, lambda us: dt.timedelta(0, 0, us)),
}


def _union_of(options: tuple[Any, ...], hint: Any, path: str) -> FieldType:
    """A union, stored as JSON: of what JSON gives back as it was."""
    for option in options:
        if not _in_json(option):
            raise ModelError(
                f"{path} is declared {_name(hint)}, which is stored as JSON, and JSON has no {_name(option)}",
                hint="bool, int, float, str, a Literal, or list[X], dict[str, X] of these; or a field for each type",
                field=path,
            )
    kinds = [field_type(option, path) for option in options]

    def fits(kind: FieldType, value: Any, where: str) -> bool:
        try:
            kind.encode(value, where)
        except InvalidValue:
            return False
        return True

    def check(value: Any, where: str) -> str:
        if not any(fits(kind, value, where) for kind in kinds):
            raise _wrong(value, where, _name(hint))
        return _check_json(value, where)

    return FieldType("json", _name(hint), check, json.loads)


def _in_json(hint: Any) -> bool:
    hint, _ = _unwrap(hint)
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (list, dict) or _union(hint):
        return all(map(_in_json, args))
    return origin is Literal or hint in (bool, int, float, str, types.NoneType, Any, object)


def _closed(values: tuple[Any, ...], of: tuple[Any, ...], declared: str, path: str) -> Closed:
    """An Enum or a Literal: a closed set of strings or of integers, stored as these `values`."""

    def all_are(base: type) -> bool:
        return bool(values) and all(isinstance(v, base) and not isinstance(v, (bool, enum.Enum)) for v in values)

    if not all_are(str) and not all_are(int):
        raise ModelError(f"{path}: the values of {declared} are not all text or all integers", field=path)
    tag, fits = ("s", check_text) if all_are(str) else ("i64", _check_int)
    stored = [fits(value, f"a value of {declared}") for value in values]
    members, of_member, cls = dict(zip(stored, of, strict=True)), dict(zip(of, stored, strict=True)), type(of[0])

    def check(value: Any, where: str) -> Any:
        if type(value) is cls and value in of_member:
            return of_member[value]
        choices = f"one of {', '.join(map(repr, members))}"
        _check_class(value, cls, where, declared, choices)
        raise _wrong(value, where, declared, choices)

    def back(stored: Any) -> Any:
        try:
            return members[stored]
        except KeyError:
            raise UnknownValue(f"{path}: the stored value {stored!r} is not in {declared} today", field=path) from None

    return Closed(tag, declared, check, back, members=members)


def _record(cls: type[Any], path: str, within: tuple[type[Any], ...], limited: bool) -> Record:
    if cls in within:
        raise ModelError(
            f"{path}: {cls.__name__} holds itself, which has no flat columns", hint="name the parts by ids", field=path
        )
    check_positional(cls)
    hints = type_hints(cls, {}, path)
    fields = tuple(
        (f.name, field_type(hints[f.name], f"{path}.{f.name}", (*within, cls), limited=limited)) for f in dataclasses.fields(cls)
    )
    if not fields:
        raise ModelError(f"{path} is declared {cls.__name__}, which has no fields", hint="leave it out", field=path)
    tag = f"r({','.join(f'{name}={kind.tag}' for name, kind in fields)})"

    def check(value: Any, where: str) -> dict[str, Any]:
        _check_class(value, cls, where, cls.__name__)
        return {name: kind.encode(getattr(value, name), f"{where}.{name}") for name, kind in fields}

    def back(stored: dict[str, Any]) -> Any:
        return cls(*(kind.decode(stored[name]) for name, kind in fields))

    return Record(tag, cls.__name__, check, back, cls=cls, fields=fields)


def _list_of(origin: Any, item: FieldType, hint: Any) -> FieldType:
    unordered = origin in (set, frozenset)
    accepted = (set, frozenset) if unordered else (list, tuple)

    def check(value: Any, path: str) -> list[Any]:
        if type(value) not in accepted:
            raise _wrong(value, path, _name(hint))
        stored = [item.encode(v, f"{path}[{i}]") for i, v in enumerate(value)]
        return sorted(stored, key=_set_order) if unordered else stored

    back = lambda stored: origin(item.decode(v) for v in stored)  # noqa: E731
    return FieldType(f"l_{item.tag}", _name(hint), check, back, item=item, origin=origin)


def _set_order(stored: Any) -> tuple[Any, ...]:
    """A total order of stored values of one type: None first, NaN last, records and lists by their parts."""
    if stored is None:
        return (0,)
    if isinstance(stored, (dict, list)):
        return (1, *map(_set_order, stored.values() if isinstance(stored, dict) else stored))
    return (1, stored) if stored == stored else (2,)


def _map_of(item: FieldType, hint: Any) -> FieldType:
    def check(value: Any, path: str) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise _wrong(value, path, _name(hint))
        for key in value:
            check_text(key, f"{path} (a key)")
        return {key: item.encode(value[key], f"{path}[{key!r}]") for key in sorted(value)}

    back = lambda stored: {k: item.decode(v) for k, v in stored.items()}  # noqa: E731
    return FieldType(f"m_{item.tag}", _name(hint), check, back, item=item, origin=dict)


# -- limits ----------------------------------------------------------------------------------------------------------------

_COMPARED: Final[Mapping[type[at.BaseMetadata], tuple[str, str, Callable[[Any, Any], bool]]]] = {
    at.Gt: ("gt", "greater than", operator.gt), at.Ge: ("ge", "at least", operator.ge), at.Lt: ("lt", "less than", operator.lt),
    at.Le: ("le", "at most", operator.le),
}  # fmt: skip


def limits_in(marks: tuple[Any, ...]) -> tuple[at.BaseMetadata, ...]:
    """The limits among the marks of a hint, each by itself: `Interval(gt=0, le=9)` is two."""
    found: list[at.BaseMetadata] = []
    for mark in marks:
        if isinstance(mark, at.GroupedMetadata):
            found += limits_in(tuple(mark))
        elif isinstance(mark, at.BaseMetadata):
            found.append(mark)
    return tuple(found)


def check_limits(limits: tuple[at.BaseMetadata, ...], value: Any, path: str) -> None:
    """Refuse a value that does not hold what is declared of it."""
    for limit in limits:
        wanted = broken(limit, value)
        if wanted:
            raise InvalidValue(f"{path} is {_shown(value)}, and has to be {wanted}", field=path)


def broken(limit: at.BaseMetadata, value: Any) -> str:
    """What a value has to be and is not; nothing where it is."""
    if type(limit) in _COMPARED:
        name, said, holds = _COMPARED[type(limit)]
        bound = getattr(limit, name)
        return "" if holds(value, bound) else f"{said} {bound}"
    if isinstance(limit, at.MinLen):
        return "" if len(value) >= limit.min_length else f"of {limit.min_length} or more (it has {len(value)})"
    if isinstance(limit, at.MaxLen):
        return "" if len(value) <= limit.max_length else f"of {limit.max_length} or fewer (it has {len(value)})"
    if isinstance(limit, at.MultipleOf):
        return "" if value % limit.multiple_of == 0 else f"a multiple of {limit.multiple_of}"
    if isinstance(limit, at.Predicate):
        return "" if limit.func(value) else f"as {getattr(limit.func, '__name__', repr(limit.func))} says"
    return ""  # a mark that says how a value is meant, such as its unit


def limited(kind: FieldType) -> bool:
    """Whether a type, or one within it, has limits."""
    if isinstance(kind, Record):
        return any(limited(of) for _, of in kind.fields)
    return bool(kind.limits) or (kind.item is not None and limited(kind.item))


def back_of(tag: str) -> Callable[[Any], Any]:
    """From a stored value to a plain Python value by its tag alone, for readers that have no class.

    >>> back_of("l_d18_2")([950])
    [Decimal('9.50')]
    """
    if tag[0] == "d" and "_" in tag:
        digits, places = map(int, tag[1:].split("_"))
        return _decimal((Scale(digits, places),)).decode
    if tag.startswith("l_"):
        item = back_of(tag[2:])
        return lambda stored: [None if v is None else item(v) for v in stored]
    if tag.startswith("m_"):
        item = back_of(tag[2:])
        return lambda stored: {k: None if v is None else item(v) for k, v in stored.items()}
    if tag.startswith("r("):
        parts = {name: back_of(of) for name, of in record_parts(tag)}
        return lambda stored: {k: None if v is None else parts[k](v) for k, v in stored.items()}
    return _BACK_OF.get(tag, _same)


def record_parts(tag: str) -> list[tuple[str, str]]:
    """The names and tags of a record's fields, whose tags may hold commas of their own.

    >>> record_parts("r(city=s,at=r(lat=f64,lon=f64))")
    [('city', 's'), ('at', 'r(lat=f64,lon=f64)')]
    """
    found, depth, start = [], 0, 0
    inner = tag[2:-1]
    for i, char in enumerate(inner + ","):
        depth += (char == "(") - (char == ")")
        if char == "," and depth == 0:
            name, _, of = inner[start:i].partition("=")
            found.append((name, of))
            start = i + 1
    return found


_BACK_OF: dict[str, Callable[[Any], Any]] = {
    "uuid": lambda stored: uuid.UUID(bytes=stored),
    "dec": Decimal,
    "ts": from_us,
    "d": lambda stored: DAY_ZERO + dt.timedelta(stored),
    "t": _time_back,
    "td": lambda stored: dt.timedelta(0, 0, stored),
    "json": json.loads,
}
