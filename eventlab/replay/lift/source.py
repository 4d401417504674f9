"""The text of a function, proved to be what runs: compiled again, its bytecode must be the live function's."""

from __future__ import annotations

import ast
import functools
import linecache
import types
from dataclasses import dataclass
from typing import Any

from eventlab.model.source import capture


class Refused(Exception):
    """Something that is not lifted: why, and in which line of which file."""

    def __init__(self, why: str, line: int = 0, file: str = "", hint: str = "") -> None:
        super().__init__(why)
        self.why, self.line, self.file, self.hint = why, line, file, hint


@dataclass(frozen=True)
class Text:
    """A function as a syntax tree; `offset` added to a line of the tree gives the line in the file."""

    tree: ast.FunctionDef | ast.Lambda
    file: str
    offset: int


def text_of(function: Any) -> Text:
    """The tree of a plain function; `Refused` where its text is not there or is not what runs."""
    if not isinstance(function, types.FunctionType):
        raise Refused(f"{function!r} is not a plain function", hint="def evolve(self, event): …, without decorators")
    code = function.__code__
    if hasattr(function, "__wrapped__"):
        raise Refused(
            f"{function.__name__} is wrapped by a decorator", code.co_firstlineno, code.co_filename, "leave the decorator out"
        )
    return _text_of(code)


@functools.lru_cache(maxsize=4_096)
def _text_of(code: types.CodeType) -> Text:
    class _:  # what `capture` wants: something with a code
        __code__ = code

    source = capture(_)
    if source.text is None:
        raise Refused(
            "there is no source text: it was defined in a REPL, by exec or with -c", code.co_firstlineno, code.co_filename,
            "put the model in a file or a notebook cell",
        )  # fmt: skip
    try:
        tree = ast.parse(source.text).body[0]
    except (SyntaxError, IndexError):
        tree = ast.Pass()
    if not isinstance(tree, ast.FunctionDef):
        raise Refused("it is not written as one def", source.line, source.file, "write it with def")
    decorators = [d for d in tree.decorator_list if not _gives_the_same(d)]
    if decorators:
        raise Refused(
            f"{tree.name} is decorated with {ast.unparse(decorators[0])}", source.line, source.file, "leave the decorator out"
        )
    if not (_alone(source.text, code) or _within(code)):
        raise Refused(
            f"the text of {tree.name} is not what runs: the file was edited after the import, or something rewrote the function",
            source.line, source.file, "import it again",
        )  # fmt: skip
    return Text(tree, source.file, source.line - 1)


def _gives_the_same(decorator: ast.expr) -> bool:
    """Whether what is decorated still does what its text says: one of Python's own, `@el.instead(…)` or `@el.upcast(…)`."""
    if isinstance(decorator, ast.Call):
        of = decorator.func
        return (of.attr if isinstance(of, ast.Attribute) else of.id if isinstance(of, ast.Name) else "") in ("instead", "upcast")
    return isinstance(decorator, ast.Name) and decorator.id in ("staticmethod", "classmethod", "property")


def _alone(text: str, code: types.CodeType) -> bool:
    """Whether the dedented text alone compiles to the code."""
    return any(same_code(found, code) for found in _functions(_compiled(text, code.co_filename), code.co_name))


def _within(code: types.CodeType) -> bool:
    """Whether the whole file compiles to the code: closures, `super()` and imports of a name twice need their surroundings."""
    lines = linecache.getlines(code.co_filename)
    whole = _compiled("".join(lines), code.co_filename)
    return any(
        found.co_firstlineno == code.co_firstlineno and same_code(found, code) for found in _functions(whole, code.co_name)
    )


@functools.lru_cache(maxsize=256)
def _compiled(text: str, name: str) -> types.CodeType | None:
    try:
        return compile(text, name, "exec", dont_inherit=True)
    except (SyntaxError, ValueError):
        return None


def _functions(code: types.CodeType | None, name: str) -> list[types.CodeType]:
    found = []
    for part in code.co_consts if code is not None else ():
        if isinstance(part, types.CodeType):
            if part.co_name == name:
                found.append(part)
            found += _functions(part, name)
    return found


def same_code(a: types.CodeType, b: types.CodeType) -> bool:
    """Whether two code objects do the same, wherever they stand."""
    if (a.co_code, a.co_names, a.co_varnames, a.co_freevars, a.co_cellvars, a.co_argcount, a.co_kwonlyargcount) != (
        b.co_code, b.co_names, b.co_varnames, b.co_freevars, b.co_cellvars, b.co_argcount, b.co_kwonlyargcount,
    ):  # fmt: skip
        return False
    if len(a.co_consts) != len(b.co_consts):
        return False
    return all(_same_constant(x, y) for x, y in zip(a.co_consts, b.co_consts, strict=True))


def _same_constant(a: Any, b: Any) -> bool:
    if isinstance(a, types.CodeType):
        return isinstance(b, types.CodeType) and same_code(a, b)
    return type(a) is type(b) and repr(a) == repr(b)
