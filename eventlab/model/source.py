"""The code of a model as data: captured when it is defined, fingerprinted without its comments and layout."""

from __future__ import annotations

import ast
import builtins
import hashlib
import inspect
import textwrap
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass, is_dataclass
from enum import Enum
from typing import Any


@dataclass(frozen=True)
class Source:
    """The text of one function, where it stands, or None where there is no text (a REPL, `python -c`)."""

    text: str | None
    file: str
    line: int


def capture(function: Callable[..., Any]) -> Source:
    """The source of a function now; later the file may have changed under it."""
    code = function.__code__
    try:
        lines, first = inspect.getsourcelines(function)
    except (OSError, TypeError, SyntaxError, IndexError):
        return Source(None, code.co_filename, code.co_firstlineno)
    return Source(textwrap.dedent("".join(lines)), code.co_filename, first)


def code_fingerprint(functions: dict[str, tuple[Callable[..., Any], Source]], shape: str) -> str:
    """32 hex digits of what these functions do, with the helpers and constants they reach; `shape` is mixed in."""
    digest = hashlib.sha256(shape.encode())
    seen: set[int] = set()
    for name in sorted(functions):
        function, source = functions[name]
        for part in _reach(name, function, source, seen):
            digest.update(part.encode())
            digest.update(b"\0")
    return digest.hexdigest()[:32]


def _reach(name: str, function: Callable[..., Any], source: Source, seen: set[int]) -> Iterator[str]:
    """The function's own tree, then everything its global and closed-over names stand for."""
    if id(function) in seen:
        return
    seen.add(id(function))
    yield f"def {name}"
    yield _tree(source) if source.text is not None else _bytecode(function.__code__)
    bound = inspect.getclosurevars(function)
    for reached, value in sorted({**bound.globals, **bound.nonlocals}.items()):
        yield from _value(reached, value, seen)


def _value(name: str, value: Any, seen: set[int]) -> Iterator[str]:
    if isinstance(value, types.FunctionType):
        yield from _reach(name, value, capture(value), seen)
    elif isinstance(value, types.ModuleType):
        yield f"module {name}={value.__name__}"
    elif isinstance(value, type):
        yield f"class {name}={value.__qualname__}"
        if is_dataclass(value) or issubclass(value, Enum):
            for member, part in sorted(vars(value).items()):
                if isinstance(part, types.FunctionType) and not member.startswith("__") and id(part) not in seen:
                    yield from _reach(member, part, capture(part), seen)
                elif isinstance(part, Enum):
                    yield f"{member}={part.value!r}"
    elif not hasattr(builtins, name):
        yield f"{name}={_constant(value)}"


def _constant(value: Any) -> str:
    """A constant in an order that does not depend on the hash seed."""
    if isinstance(value, (set, frozenset)):
        return f"{type(value).__name__}({sorted(map(_constant, value))})"
    if isinstance(value, dict):
        return f"dict({sorted((_constant(k), _constant(v)) for k, v in value.items())})"
    if isinstance(value, (list, tuple)):
        return f"{type(value).__name__}({[_constant(v) for v in value]})"
    text = repr(value)
    return text if " at 0x" not in text else f"{type(value).__module__}.{type(value).__qualname__}"


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
    constants = [_bytecode(c) if isinstance(c, types.CodeType) else repr(c) for c in code.co_consts]
    return f"{code.co_code.hex()} {code.co_names} {constants}"
