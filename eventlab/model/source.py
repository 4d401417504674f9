"""The code of a model as data: captured when it is defined, fingerprinted without its comments and layout."""

from __future__ import annotations

import ast
import builtins
import datetime as dt
import dis
import functools
import hashlib
import inspect
import re
import sys
import sysconfig
import textwrap
import types
import uuid
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, is_dataclass
from decimal import Decimal
from enum import Enum
from pathlib import PurePath
from typing import Any, Final

_ABSENT: Final = object()
_PLAIN: Final = (
    bool, int, float, complex, str, bytes, Decimal, uuid.UUID, dt.date, dt.time, dt.timedelta, dt.tzinfo, range, re.Pattern,
    PurePath, types.NoneType, types.EllipsisType,
)  # fmt: skip
_LIBRARIES: Final = tuple({sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")})


@dataclass(frozen=True)
class Source:
    """The text of one function, where it stands, or None where there is no text (a REPL, `python -c`)."""

    text: str | None
    file: str
    line: int


#: Sources by code object: what a function was when it was first looked at, for its file may change while it runs.
_captured: weakref.WeakKeyDictionary[types.CodeType, Source] = weakref.WeakKeyDictionary()


def capture(function: Callable[..., Any]) -> Source:
    """The source of a function as it was when it was first looked at."""
    code = function.__code__
    found = _captured.get(code)
    if found is None:
        found = _captured[code] = _read(function, code)
    return found


def _read(function: Callable[..., Any], code: types.CodeType) -> Source:
    try:
        lines, first = inspect.getsourcelines(function)
    except (OSError, TypeError, SyntaxError, IndexError):
        return Source(None, code.co_filename, code.co_firstlineno)
    return Source(textwrap.dedent("".join(lines)), code.co_filename, first)


# -- what code reaches -----------------------------------------------------------------------------------------------------


def reached(function: types.FunctionType) -> list[tuple[str, Any]]:
    """What the global, closed-over and `module.name` names in a function stand for now, by name."""
    cells = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))
    found: dict[str, Any] = {}
    for first, *rest in _paths(function.__code__):
        value = _content(cells[first]) if first in cells else function.__globals__.get(first, _ABSENT)
        name = first
        for part in rest:
            if not isinstance(value, types.ModuleType):
                break
            name, value = f"{name}.{part}", getattr(value, part, _ABSENT)
        if value is not _ABSENT:
            found[name] = value
    return sorted(found.items())


def _content(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not filled yet
        return _ABSENT


@functools.lru_cache(maxsize=10_000)
def _paths(code: types.CodeType) -> frozenset[tuple[str, ...]]:
    """The dotted names that begin with a global or closed-over one, in a function and those inside it."""
    found: set[tuple[str, ...]] = set()
    path: tuple[str, ...] = ()
    for step in dis.get_instructions(code):
        if step.opname in ("LOAD_ATTR", "LOAD_METHOD") and path:
            path = (*path, step.argval)
            continue
        if path:
            found.add(path)
        path = (step.argval,) if step.opname in ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_DEREF", "LOAD_CLASSDEREF") else ()
    for part in code.co_consts:
        if isinstance(part, types.CodeType):
            found |= _paths(part)
    return frozenset(found)


@functools.lru_cache(maxsize=10_000)
def _attributes(code: types.CodeType) -> frozenset[str]:
    """The attribute names in a function and those inside it: `self.total` may be a method of its class."""
    names = {step.argval for step in dis.get_instructions(code) if step.opname in ("LOAD_ATTR", "LOAD_METHOD")}
    return frozenset(names.union(*(_attributes(part) for part in code.co_consts if isinstance(part, types.CodeType))))


def classes_reached(functions: list[Callable[..., Any]]) -> Iterator[tuple[str, type[Any]]]:
    """Every class that these functions and their helpers name, alone or in a tuple or union."""
    waiting: list[Any] = list(functions)
    seen: set[int] = set()
    while waiting:
        function = waiting.pop()
        if id(function) in seen or not isinstance(function, types.FunctionType) or _in_library(function.__code__.co_filename):
            continue
        seen.add(id(function))
        for name, value in reached(function):
            options = value if isinstance(value, (tuple, list, set, frozenset)) else getattr(value, "__args__", (value,))
            yield from ((name, option) for option in options if isinstance(option, type))
            waiting.append(_unwrapped(value))


def _unwrapped(value: Any) -> Any:
    """The function beneath `functools.cache` and the like."""
    try:
        return inspect.unwrap(value) if callable(value) else value
    except ValueError:
        return value


def _in_library(file: str) -> bool:
    return file.startswith((*_LIBRARIES, "<frozen")) or "site-packages" in file or "dist-packages" in file


# -- fingerprints ----------------------------------------------------------------------------------------------------------


def code_fingerprint(functions: dict[str, tuple[Callable[..., Any], Source]], shape: str, owner: type[Any]) -> str:
    """32 hex digits of what these functions of the class `owner` do, with the helpers and constants they reach.

    `shape` is mixed in. Libraries count by name: their insides are not the model's.
    """
    digest = hashlib.sha256(shape.encode())
    seen: set[int] = {id(owner)}
    for name in sorted(functions):
        function, source = functions[name]
        for part in _function(name, function, source, owner, seen):
            digest.update(part.encode())
            digest.update(b"\0")
    return digest.hexdigest()[:32]


def _function(name: str, function: Callable[..., Any], source: Source, owner: type[Any] | None, seen: set[int]) -> Iterator[str]:
    """The function's own tree, then everything that its names stand for, among them what it uses of its class."""
    if id(function) in seen or not isinstance(function, types.FunctionType):
        return
    seen.add(id(function))
    yield f"def {name}"
    yield _tree(source) if source.text is not None else _bytecode(function.__code__)
    for path, value in reached(function):
        yield from _value(path, value, seen)
    if owner is not None:
        for attribute in sorted(_attributes(function.__code__)):
            yield from _member(attribute, _static(owner, attribute), owner, seen)


def _value(name: str, value: Any, seen: set[int]) -> Iterator[str]:
    inner = _unwrapped(value)
    if isinstance(inner, functools.partial):
        yield f"{name}=partial({_constant(inner.args)}, {_constant(inner.keywords)})"
        yield from _value(name, inner.func, seen)
    elif isinstance(inner, types.FunctionType):
        if _in_library(inner.__code__.co_filename):
            yield f"{name}={inner.__module__}.{inner.__qualname__}"
        else:
            yield from _function(name, inner, capture(inner), None, seen)
    elif isinstance(inner, types.ModuleType):
        yield f"module {name}={inner.__name__}"
    elif isinstance(inner, type):
        yield from _class(name, inner, seen)
    elif getattr(builtins, name, _ABSENT) is not inner:
        yield f"{name}={_constant(inner)}"


def _class(name: str, cls: type[Any], seen: set[int]) -> Iterator[str]:
    """A class by name, and one of the modeller's own with what it holds."""
    yield f"class {name}={cls.__qualname__}"
    file = getattr(sys.modules.get(cls.__module__), "__file__", None) or ""
    if id(cls) in seen or cls.__module__ == "builtins" or _in_library(file):
        return
    seen.add(id(cls))
    if issubclass(cls, Enum):
        yield f"{name}={[(member.name, _constant(member.value)) for member in cls]}"
    for base in cls.__bases__:
        yield from _class(base.__name__, base, seen)
    for attribute, value in sorted(vars(cls).items()):
        special = attribute.startswith("_") and attribute.endswith("_") and not _written(value)
        if not special and not isinstance(value, Enum):
            yield from _member(attribute, value, cls, seen)


def _member(name: str, value: Any, owner: type[Any], seen: set[int]) -> Iterator[str]:
    """What stands under a name in a class."""
    if value is _ABSENT:
        return
    for part in (value.fget, value.fset) if isinstance(value, property) else (value,):
        function = _unwrapped(getattr(part, "__func__", getattr(part, "func", part)))
        if isinstance(function, types.FunctionType):
            if not _in_library(function.__code__.co_filename):
                yield from _function(name, function, capture(function), owner, seen)
        elif part is not None and not isinstance(part, (types.MemberDescriptorType, types.GetSetDescriptorType)):
            yield f"{name}={_constant(part)}"


def _static(owner: type[Any], name: str) -> Any:
    return next((vars(cls)[name] for cls in owner.__mro__[:-1] if name in vars(cls)), _ABSENT)


def _written(value: Any) -> bool:
    """Whether someone wrote this method, rather than `dataclass` or `Enum`."""
    code = getattr(value, "__code__", None)
    return code is not None and code.co_filename != "<string>" and not _in_library(code.co_filename)


def _constant(value: Any) -> str:
    """A constant as text that does not depend on the hash seed; of other objects only the type."""
    if isinstance(value, Enum):
        return f"{type(value).__qualname__}.{value.name}"
    if isinstance(value, _PLAIN):
        return repr(value)
    if isinstance(value, (set, frozenset)):
        return f"{type(value).__name__}({sorted(map(_constant, value))})"
    if isinstance(value, (dict, types.MappingProxyType)):
        return f"dict({sorted((_constant(k), _constant(v)) for k, v in value.items())})"
    if isinstance(value, (list, tuple)):
        return f"{type(value).__name__}({[_constant(v) for v in value]})"
    if is_dataclass(value) and not isinstance(value, type):
        return f"{type(value).__qualname__}({[(f.name, _constant(getattr(value, f.name, None))) for f in fields(value)]})"
    if isinstance(value, type) or callable(value):
        return f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', type(value).__qualname__)}"
    return f"{type(value).__module__}.{type(value).__qualname__}"


def _tree(source: Source) -> str:
    assert source.text is not None
    try:
        return _node(ast.parse(source.text).body[0])
    except SyntaxError:  # a lambda or a fragment that does not parse alone
        return source.text


def _node(node: Any) -> str:
    """An `ast` node as text that leaves out positions, descriptions and empty parts, and so survives Python versions."""
    if isinstance(node, list):
        return f"[{','.join(map(_node, node))}]"
    if not isinstance(node, ast.AST):
        return repr(node)
    parts = []
    for name, value in ast.iter_fields(node):
        if name in ("ctx", "type_comment", "kind", "returns", "annotation", "type_params", "decorator_list"):
            continue
        if name == "body" and isinstance(value, list) and _is_description(value[0] if value else None):
            value = value[1:]
        if value is None or value == []:
            continue
        parts.append(f"{name}={_node(value)}")
    return f"{type(node).__name__}({','.join(parts)})"


def _is_description(node: Any) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _bytecode(code: types.CodeType) -> str:
    constants = [_bytecode(c) if isinstance(c, types.CodeType) else _constant(c) for c in code.co_consts]
    return f"{code.co_code.hex()} {code.co_names} {constants}"
