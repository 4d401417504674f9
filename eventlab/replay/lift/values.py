"""What a name stands for while a function is executed symbolically: a node, a constant of Python, a record, a sequence."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from eventlab.replay.lift.ir import Node
from eventlab.replay.lift.source import Refused


@dataclass(frozen=True)
class Known:
    """A Python object that is there at analysis: a constant, a class, a function, a module."""

    value: Any


@dataclass(frozen=True, eq=False)
class Rec:
    """An instance of a dataclass or named tuple by its parts; None where `present` is false (`present` None: never)."""

    cls: type[Any]
    parts: Mapping[str, Sym]
    present: Node | None = None

    def with_parts(self, changed: Mapping[str, Sym]) -> Rec:
        return Rec(self.cls, {**self.parts, **changed}, None)


@dataclass(frozen=True, eq=False)
class Seq:
    """A tuple or list whose items are written out."""

    cls: type[Any]
    items: tuple[Sym, ...]


@dataclass(frozen=True, eq=False)
class Fields:
    """The fields of a payload in an upcaster, as a mapping whose names are known.

    `stored` is the field of the stored version that it is, unchanged; without parts it may be None, or nobody looks inside.
    Only the function whose call is its `home` may change it, as long as it has no other name.
    """

    parts: Mapping[str, Sym]
    stored: str = ""
    is_old: bool = False
    home: Any = None


@dataclass(frozen=True, eq=False)
class Method:
    """A method of a value: `name.upper`, `self.items.get`."""

    of: Sym
    name: str


@dataclass(frozen=True, eq=False)
class Bound:
    """A modeller's own function, with what it is bound to; `owner` is the class whose MRO `super()` continues after."""

    function: Any
    bound: Sym | None
    owner: type[Any] | None = None


@dataclass(frozen=True, eq=False)
class Super:
    """`super()` within a method of `owner`."""

    of: Rec
    owner: type[Any]


@dataclass(frozen=True, eq=False)
class MetaSym:
    """The recorded metadata."""


@dataclass(frozen=True, eq=False)
class Each:
    """A generator or comprehension: for each item of `source` (bound to `var`) where `cond` holds, `elt`."""

    source: Node
    var: Node
    elt: Node
    cond: Node | None
    kind: str


@dataclass(frozen=True, eq=False)
class Items:
    """`m.items()`, `m.keys()` or `m.values()`."""

    of: Node
    what: str


Sym = Node | Known | Rec | Seq | Fields | Method | Bound | Super | MetaSym | Each | Items


def plain_dataclass(cls: type[Any]) -> None:
    """Refuse classes whose making or comparing runs code that is not the dataclass's own."""
    if issubclass(cls, tuple) and hasattr(cls, "_fields"):
        return
    if not dataclasses.is_dataclass(cls):
        raise Refused(f"{cls.__name__} is not a dataclass")
    for name in ("__post_init__", "__new__", "__getattribute__", "__getattr__", "__setattr__", "__replace__"):
        own = next((vars(c)[name] for c in cls.__mro__[:-1] if name in vars(c)), None)
        if own is not None and getattr(getattr(own, "__code__", None), "co_filename", "") != "<string>":
            if name == "__setattr__" and _frozen_by_dataclass(own):
                continue
            raise Refused(f"{cls.__name__} defines {name}", hint="a plain frozen dataclass lifts")
    for name in ("__init__", "__eq__"):
        own = next((vars(c)[name] for c in cls.__mro__[:-1] if name in vars(c)), None)
        if own is not None and getattr(getattr(own, "__code__", None), "co_filename", "<string>") != "<string>":
            raise Refused(f"{cls.__name__} defines {name}", hint="a plain frozen dataclass lifts")
    for field in dataclasses.fields(cls):
        if not field.init or isinstance(getattr(cls, field.name, None), property):
            raise Refused(f"{cls.__name__}.{field.name} is not made from an argument")


def _frozen_by_dataclass(method: Any) -> bool:
    return getattr(method, "__qualname__", "").endswith("__setattr__") and "dataclass" in str(getattr(method, "__code__", ""))
