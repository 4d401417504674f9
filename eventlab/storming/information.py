"""The types of a board's fields: the names people write on notes, what they are in code, and values made up of them."""

from __future__ import annotations

import ast
import datetime as dt
import random
import re
import typing
import uuid
from collections.abc import Callable
from decimal import Decimal
from typing import Any, Final, Literal

from eventlab.errors import InvalidValue, ModelError
from eventlab.model.types import FieldType, Money, Tag, field_type

#: What a type on a note stands for, and how generated code writes it.
NAMES: Final[dict[str, tuple[Any, str]]] = {
    "str": (str, "str"), "int": (int, "int"), "float": (float, "float"), "bool": (bool, "bool"), "bytes": (bytes, "bytes"),
    "Money": (Money, "el.Money"), "Decimal": (Decimal, "Decimal"), "date": (dt.date, "dt.date"),
    "datetime": (dt.datetime, "dt.datetime"), "time": (dt.time, "dt.time"), "timedelta": (dt.timedelta, "dt.timedelta"),
    "UUID": (uuid.UUID, "uuid.UUID"), "list": (list, "list"), "tuple": (tuple, "tuple"), "set": (frozenset, "frozenset"),
    "frozenset": (frozenset, "frozenset"), "dict": (dict, "dict"), "Tag": (Tag, "el.Tag"), "Literal": (Literal, "Literal"),
}  # fmt: skip
_PARTS: Final = (ast.Expression, ast.Name, ast.Load, ast.Subscript, ast.BinOp, ast.BitOr, ast.Constant, ast.Tuple)
_FIRST: Final = dt.datetime(2026, 1, 5, 9, tzinfo=dt.UTC)


def hint_of(text: str) -> Any:
    """The type that a text stands for; `InvalidValue` where it is none of those that are stored."""
    try:
        tree = ast.parse(text, mode="eval")
    except (SyntaxError, ValueError):
        raise _unknown(text) from None
    for node in ast.walk(tree):
        named = not isinstance(node, ast.Name) or node.id in NAMES
        if not isinstance(node, _PARTS) or not named:
            raise _unknown(text)
    try:
        found = eval(compile(tree, "<field>", "eval"), {"__builtins__": {}}, {name: hint for name, (hint, _) in NAMES.items()})
        field_type(found, "it")
    except (TypeError, ModelError, IndexError):
        raise _unknown(text) from None
    return found


def stored_as(text: str) -> FieldType:
    """How a field of this type is stored."""
    return field_type(hint_of(text), text)


def in_code(text: str) -> str:
    """The type as generated code writes it: `Money | None` is `el.Money | None`."""
    hint_of(text)
    tree = ast.parse(text, mode="eval")
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            node.id = NAMES[node.id][1]
    return ast.unparse(tree).replace("'", '"')


def from_declared(declared: str, *, tag: bool = False) -> str:
    """A declared type as a note says it; one that notes have no word for stays as it is."""
    text = re.sub(r"Annotated\[decimal\.Decimal, Scale\(digits=18, places=2\)\]|Decimal\(18, 2\)", "Money", declared)
    text = text.replace("Decimal(38, 9)", "Decimal")
    text = re.sub(r"\b(?:datetime|decimal|uuid)\.(?=[a-zA-Z])", "", text).replace("'", '"')
    return f"Tag[{text}]" if tag else text


def made_up(text: str, chance: random.Random) -> Any:
    """A value of a type, the same for the same state of `chance`."""
    return _made(hint_of(text), chance)


def _made(hint: Any, chance: random.Random) -> Any:
    if hint in _MADE:
        return _MADE[hint](chance)
    origin, options = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return chance.choice(options)
    if hint == Money:
        return Decimal(chance.randrange(1, 20_000)).scaleb(-2)
    if origin is typing.Annotated or getattr(hint, "__metadata__", None):
        return _made(options[0], chance)
    if origin is dict:
        return {f"k{n}": _made(options[1], chance) for n in range(chance.randrange(3))}
    if origin in (list, tuple, frozenset):
        return origin(_made(options[0], chance) for _ in range(chance.randrange(4)))
    some = [option for option in options if option is not type(None)]
    return None if len(some) < len(options) and chance.random() < 0.2 else _made(chance.choice(some), chance)


_MADE: Final[dict[Any, Callable[[random.Random], Any]]] = {
    str: lambda chance: f"{chance.choice('abcdefgh')}{chance.randrange(1_000)}",
    int: lambda chance: chance.randrange(1, 100),
    float: lambda chance: chance.randrange(1, 10_000) / 4,
    bool: lambda chance: chance.random() < 0.5,
    bytes: lambda chance: chance.randbytes(4),
    Decimal: lambda chance: Decimal(chance.randrange(1, 1_000_000)).scaleb(-3),
    dt.date: lambda chance: _FIRST.date() + dt.timedelta(chance.randrange(365)),
    dt.datetime: lambda chance: _FIRST + dt.timedelta(minutes=chance.randrange(525_600)),
    dt.time: lambda chance: dt.time(chance.randrange(24), chance.randrange(60)),
    dt.timedelta: lambda chance: dt.timedelta(minutes=chance.randrange(10_000)),
    uuid.UUID: lambda chance: uuid.UUID(bytes=chance.randbytes(16), version=4),
}


def _unknown(text: str) -> InvalidValue:
    shown = ", ".join(NAMES)
    return InvalidValue(f"{text!r} is no type of a field", hint=f"made of {shown}, as in 'list[str]' or 'date | None'")
