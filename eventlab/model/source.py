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
import types
import typing
import uuid
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
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
_LASTING: Final = (
    *_PLAIN, Enum, type, frozenset, types.UnionType, types.FunctionType, types.BuiltinFunctionType, types.ModuleType,
    types.MethodType, property, staticmethod, classmethod,
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
        found = _captured[code] = _read(code)
    return found


def _read(code: types.CodeType) -> Source:
    try:
        lines, first = inspect.getsourcelines(code)  # of the code itself: a function may pass itself off as what it wraps
    except (OSError, TypeError, SyntaxError, IndexError):
        return Source(None, code.co_filename, code.co_firstlineno)
    # By the margin of its first line alone: a remark may stand further to the left.
    margin = lines[0][: len(lines[0]) - len(lines[0].lstrip())]
    return Source("".join(line.removeprefix(margin) for line in lines), code.co_filename, first)


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


def classes_reached(functions: Iterable[types.FunctionType], home: str) -> Iterator[tuple[str, type[Any]]]:
    """Every class that these functions of the module `home` and their helpers name, alone or in a tuple, a dict or a union."""
    waiting = [found for function in functions for found in reached(function)]
    seen: dict[int, Any] = {}
    while waiting:
        name, value = waiting.pop()
        if id(value) in seen:
            continue
        seen[id(value)] = value
        if isinstance(value, type):
            yield name, value
        elif isinstance(value, types.FunctionType) and not _foreign(value.__globals__.get("__name__"), home):
            waiting += reached(value)
        waiting += [(name, part) for _, part in _parts(value)]


def _parts(value: Any) -> list[tuple[str, Any]]:
    """What a value holds or wraps, in an order that does not depend on the hash seed."""
    if isinstance(value, (*_PLAIN, Enum, types.ModuleType)):
        return []
    if isinstance(value, functools.partial):
        return [("func", value.func), ("args", value.args), ("keywords", value.keywords)]
    if isinstance(value, types.MethodType):
        return [("func", value.__func__), ("self", value.__self__)]
    if isinstance(value, property):
        return [("get", value.fget)]
    if isinstance(value, (staticmethod, classmethod)):
        return [("func", value.__func__)]
    if isinstance(value, (list, tuple)):
        return [(str(i), part) for i, part in enumerate(value)]
    if isinstance(value, (set, frozenset)):
        return [("item", part) for part in sorted(value, key=_constant)]
    if isinstance(value, (dict, types.MappingProxyType)):
        items = sorted(value.items(), key=lambda item: _constant(item[0]))
        return [part for key, held in items for part in (("key", key), (_constant(key), held))]
    if isinstance(value, type) or typing.get_origin(value) is not None:
        return [("of", part) for part in typing.get_args(value)]
    if is_dataclass(value):
        return [(f.name, getattr(value, f.name, None)) for f in fields(value)]
    beneath = getattr(value, "__dict__", {})  # of `functools.wraps`, `cache`, `cached_property` and `singledispatch`
    return [(part, beneath[part]) for part in ("__wrapped__", "func", "registry") if part in beneath]


def _foreign(module: str | None, home: str) -> bool:
    """Whether a module is a library's: not of the model's own package, wherever that is installed, and not a script."""
    module = module or ""
    top = module.partition(".")[0]
    if module == home or (top == home.partition(".")[0] != "eventlab"):
        return False
    if top == "eventlab":
        return not module.startswith("eventlab.domains")
    file = getattr(sys.modules.get(module), "__file__", None) or ""
    return top in sys.stdlib_module_names or file.startswith(_LIBRARIES) or "site-packages" in file or "dist-packages" in file


# -- fingerprints ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Trail:
    """What a fingerprint was made from: as long as every name still stands for the same object, it still holds.

    `lasting` is False where something that can change inside, such as a list, was among it.
    """

    names: tuple[tuple[dict[str, Any], str, Any], ...]
    cells: tuple[tuple[types.CellType, Any], ...]
    parts: tuple[tuple[Any, str, Any], ...]
    members: tuple[tuple[type[Any], tuple[int, ...]], ...]
    lasting: bool

    def holds(self) -> bool:
        """Whether nothing was put in the place of anything."""
        # Loops and not `all`: this is asked for every load of an aggregate.
        for names, name, value in self.names:
            if names.get(name, _ABSENT) is not value:
                return False
        for cell, value in self.cells:
            if _content(cell) is not value:
                return False
        for of, name, value in self.parts:
            if getattr(of, name, _ABSENT) is not value:
                return False
        for cls, ids in self.members:
            if tuple(map(id, vars(cls).values())) != ids:
                return False
        return self.lasting

    def changed(self) -> tuple[str, ...]:
        """The names, classes aside, that stand for another value now."""
        found = [(name, value, names.get(name, _ABSENT)) for names, name, value in self.names]
        found += [(name, value, getattr(of, name, _ABSENT)) for of, name, value in self.parts]
        values = [(name, then, now) for name, then, now in found if now is not then and not isinstance(then, type)]
        return tuple(sorted({name for name, then, now in values if not _alike(then, now)}))


def _alike(then: Any, now: Any) -> bool:
    """Whether a value is what it was, though made again: a cell that is run a second time makes every function anew."""
    if isinstance(then, types.FunctionType) and isinstance(now, types.FunctionType):
        return capture(then).text == capture(now).text and then.__code__.co_code == now.__code__.co_code
    return type(then) is type(now) and isinstance(then, _PLAIN) and then == now


def code_fingerprint(
    functions: Mapping[str, types.FunctionType], shape: str, owner: type[Any], classes: Iterable[type[Any]] = ()
) -> tuple[str, Trail]:
    """32 hex digits of what these functions of the class `owner` do, with the helpers, classes and constants they reach.

    `shape` is mixed in, and so are `classes`, whose methods the functions may call without naming them. Libraries count by
    name: their insides are not the model's. With it comes the trail that tells how long it holds.
    """
    digest = hashlib.sha256(shape.encode())
    walk = _Walk(owner)
    for name in sorted(functions):
        for part in walk.function(name, functions[name], (owner,)):
            digest.update(part.encode() + b"\0")
    for cls in sorted(classes, key=lambda cls: cls.__qualname__):
        for part in walk.value(cls.__name__, cls, ()):
            digest.update(part.encode() + b"\0")
    return digest.hexdigest()[:32], walk.trail([owner, *classes])


def keep_text(classes: Iterable[type[Any]]) -> None:
    """Capture what the methods of these classes reach: the files it stands in may change while this process runs."""
    for cls in classes:
        walk = _Walk(cls)
        walk.told.clear()
        for _ in walk.value(cls.__name__, cls, ()):
            pass


class _Walk:
    """Tells what a name stands for as texts: code and constants, and everything they reach, each function and class once.

    `owners` are the classes whose members the code may use as attributes, as in `self.total`.
    """

    def __init__(self, owner: type[Any]) -> None:
        self.home = owner.__module__
        self.told: dict[int, Any] = {id(owner): owner}
        self.inside: set[int] = set()
        self.lasting = True

    def trail(self, classes: Iterable[type[Any]]) -> Trail:
        """Everything that was looked up on the way, to be looked up again."""
        names: dict[tuple[int, str], tuple[dict[str, Any], str, Any]] = {}
        cells: dict[int, tuple[types.CellType, Any]] = {}
        parts: list[tuple[Any, str, Any]] = []
        functions = [value for value in self.told.values() if isinstance(value, types.FunctionType)]
        for function in functions:
            closed = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))
            parts += [(function, name, getattr(function, name)) for name in ("__code__", "__defaults__", "__kwdefaults__")]
            for first, *rest in _paths(function.__code__):
                if first in closed:
                    value = _content(closed[first])
                    cells[id(closed[first])] = (closed[first], value)
                else:
                    value = function.__globals__.get(first, _ABSENT)
                    names[id(function.__globals__), first] = (function.__globals__, first, value)
                for part in rest:
                    if not isinstance(value, types.ModuleType):
                        break
                    parts.append((value, part, getattr(value, part, _ABSENT)))
                    value = parts[-1][2]
        told = {id(cls): cls for cls in (*classes, *self.told.values()) if isinstance(cls, type)}
        members = tuple((cls, tuple(map(id, vars(cls).values()))) for cls in told.values())
        return Trail(tuple(names.values()), tuple(cells.values()), tuple(parts), members, self.lasting)

    def value(self, name: str, value: Any, owners: tuple[type[Any], ...]) -> Iterator[str]:
        """What stands under a name."""
        if not isinstance(value, _LASTING) and not (isinstance(value, tuple) or typing.get_origin(value) is not None):
            self.lasting = False
        if isinstance(value, types.FunctionType):
            module = value.__globals__.get("__name__")
            if _foreign(module, self.home):
                yield f"{name}={module}.{value.__qualname__}"
            else:
                yield from self.function(name, value, owners)
        elif isinstance(value, types.ModuleType):
            yield f"module {name}={value.__name__}"
        elif isinstance(value, type):
            yield from self._class(name, value)
        elif getattr(builtins, name, _ABSENT) is not value:
            yield f"{name}={self._label(value)}"
            if not isinstance(value, _PLAIN):
                yield from self._class(name, type(value))
        if id(value) not in self.inside:  # a list may hold itself
            self.inside.add(id(value))
            for part, held in _parts(value):
                yield from self.value(f"{name}.{part}", held, owners)
            self.inside.discard(id(value))

    def _label(self, value: Any) -> str:
        """A constant as text; of a library's function its full name, of any other object its type."""
        if isinstance(value, (*_PLAIN, Enum)):
            return _constant(value)
        name, module = getattr(value, "__qualname__", type(value).__qualname__), getattr(value, "__module__", "")
        return f"{module}.{name}" if _foreign(module, self.home) else name

    def function(self, name: str, function: types.FunctionType, owners: tuple[type[Any], ...]) -> Iterator[str]:
        """The function's own tree, then everything that its names stand for, among them what it uses of its class."""
        yield f"def {name}={function.__name__}"
        if id(function) in self.told:
            return
        self.told[id(function)] = function
        # A lambda's lines may end in the middle of it.
        text = None if function.__code__.co_name == "<lambda>" else _tree(capture(function))
        yield text or _bytecode(function.__code__)
        yield from self.value("defaults", (function.__defaults__, function.__kwdefaults__), owners)
        for path, value in reached(function):
            yield from self.value(path, value, owners)
        for owner in owners:
            for attribute in sorted(_attributes(function.__code__)):
                for cls in owner.__mro__[:-1]:
                    if attribute in vars(cls):
                        yield from self._member(attribute, vars(cls)[attribute], owners)

    def _class(self, name: str, cls: type[Any]) -> Iterator[str]:
        """A class by name, and one of the modeller's own with what it holds."""
        yield f"class {name}={cls.__qualname__}"
        if id(cls) in self.told or cls.__module__ == "builtins" or _foreign(cls.__module__, self.home):
            return
        self.told[id(cls)] = cls
        yield f"{name} match {getattr(cls, '__match_args__', ())}"
        if issubclass(cls, Enum):
            yield f"{name}={[(member.name, _constant(member.value)) for member in cls]}"
        for base in cls.__bases__:
            yield from self._class(base.__name__, base)
        for attribute, value in sorted(vars(cls).items()):
            special = attribute.startswith("_") and attribute.endswith("_") and not self._written(value)
            if not special and not isinstance(value, Enum):
                yield from self._member(attribute, value, (cls,))

    def _member(self, name: str, value: Any, owners: tuple[type[Any], ...]) -> Iterator[str]:
        if not isinstance(value, (types.MemberDescriptorType, types.GetSetDescriptorType)):
            yield from self.value(name, value, owners)

    def _written(self, value: Any) -> bool:
        """Whether someone wrote this method, rather than `dataclass` or `Enum`."""
        code = getattr(value, "__code__", None)
        return code is not None and code.co_filename != "<string>" and not _foreign(value.__globals__.get("__name__"), self.home)


def _constant(value: Any) -> str:
    """A constant as text that does not depend on the hash seed; of other objects only the type."""
    if isinstance(value, Enum):
        return f"{type(value).__qualname__}.{value.name}"
    if isinstance(value, _PLAIN):
        return repr(value)
    if isinstance(value, (set, frozenset)):
        return f"{type(value).__name__}({sorted(map(_constant, value))})"
    if isinstance(value, (list, tuple)):
        return f"{type(value).__name__}({[_constant(v) for v in value]})"
    if is_dataclass(value) and not isinstance(value, type):
        return f"{type(value).__qualname__}({[(f.name, _constant(getattr(value, f.name, None))) for f in fields(value)]})"
    return str(getattr(value, "__qualname__", type(value).__qualname__))


@functools.lru_cache(maxsize=10_000)
def _tree(source: Source) -> str | None:
    """A function's text as its syntax tree, or None where the text is not one function."""
    try:
        node = ast.parse(source.text or "").body[0]
    except (SyntaxError, IndexError):
        return None
    return _node(node) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) else None


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
    parameters = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags)
    names = (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
    return f"{parameters} {names} {code.co_code.hex()} {code.co_exceptiontable.hex()} {constants}"
