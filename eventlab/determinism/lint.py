"""Lint of models: what a reviewer of an event-sourced system looks for, by reading the code and not by running it.

`N` is about names and words, `M` about how models fit together, `R` about what makes a fold give another state the second
time, `S` about the same in SQL. A finding says where, why it matters, and what to write instead; `# eventlab: ignore[R1]
reason` on its line passes it over. What lint cannot see, a library that reads the clock deep inside, `eventlab check` finds by
folding.
"""

from __future__ import annotations

import ast
import builtins
import contextlib
import datetime as dt
import inspect
import os
import random
import re
import textwrap
import types
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any, Final

from eventlab.determinism.sharing import Part, Shape, changes
from eventlab.determinism.sql_lint import SQL_RULES, lint_sql
from eventlab.errors import ModelError
from eventlab.model.events import COMMANDS, EVENTS, EventType, description
from eventlab.model.models import MODELS, Model, model_of
from eventlab.model.names import Finding, command_findings, event_findings, query_findings
from eventlab.model.queries import QUERIES
from eventlab.model.source import capture
from eventlab.model.types import FieldType, Record
from eventlab.projections.handmade import HANDMADE, Handmade
from eventlab.temporal.reader import Reader

#: Code → what it is about, and what to do.
RULES: Final[dict[str, tuple[str, str]]] = {
    "N1": ("an event reads as a fact in the past", "OrderPlaced, ItemAdded"),
    "N2": ("a command reads as an order", "PlaceOrder, AddItem"),
    "N3": ("it has a description: the business meaning", "a docstring"),
    "M1": ("an event that no model evolves says nothing to anyone here", "add it to an evolve, or to a projection"),
    "M2": ("a command that no model decides is never handled", "add it to a decide"),
    "M3": ("an aggregate knows another one by its id, never by its state", "keep the id: customer: str"),
    "M4": ("an event or command holds values, and no state of a model", "write down the values that matter"),
    "M5": ("a model that does not say what it takes may take everything: what nobody evolves or decides is then not found",
           "annotate it: event: OrderPlaced | ItemAdded, command: PlaceOrder | AddItem"),
    "R1": ("a fold or decision that reads the clock differs from run to run", "the time of the event, its meta or the command"),
    "R2": ("chance and fresh ids differ from run to run", "make them outside, and put them in the command or event"),
    "R3": ("what the machine around it says differs from machine to machine", "put it in the command or event"),
    "R4": ("a replay runs this again for every event: side effects would happen again", "write a consumer: @el.consumer"),
    "R5": ("the order of a set differs from process to process", "sorted(…), or a dict, which keeps its order"),
    "R6": ("hash() and id() differ from process to process", "compare the values themselves"),
    "R7": ("events and states are values: what others hold would change under them", "replace(self, …), (*old, new), old | {…}"),
    "R8": ("a global that changes is state that no event explains", "put it in the state, or pass it in the event"),
    "R9": ("a moment without a zone means another one on another machine", "dt.datetime(…, tzinfo=dt.UTC)"),
    "R10": ("a sum of floats depends on the order, and drifts", "el.Money, or whole numbers of the smallest unit"),
    "R11": ("a fold or decision that looks around in a lab finds something else each time, and no event says what it saw",
            "ask first, and put the answer in the command or event"),
    **SQL_RULES,
}  # fmt: skip
_CLOCK: Final = frozenset(
    "time time_ns monotonic monotonic_ns perf_counter perf_counter_ns localtime gmtime process_time ctime asctime".split()
)
_NOW: Final = frozenset({"now", "utcnow", "today"})
_OUTSIDE: Final = frozenset(
    "socket subprocess requests httpx urllib http ftplib smtplib sqlite3 threading multiprocessing asyncio concurrent logging "
    "shutil tempfile".split()
)
#: What takes the items of a set and does not care about their order.
_ORDERLESS: Final = frozenset({"sorted", "set", "frozenset", "sum", "len", "any", "all", "min", "max", "dict", "Counter"})
_IGNORE: Final = re.compile(r"#\s*eventlab:\s*ignore\[([\w, ]+)\]\s*(\S.*)?")
_MODEL_METHODS: Final = ("evolve", "decide", "key")


@dataclass(frozen=True)
class Found:
    """One finding: its rule, what it is about, where it is, what is there, why it matters, and what to write instead."""

    code: str
    name: str
    said: str
    why: str
    hint: str
    file: str = ""
    line: int = 0
    #: The class, as another process finds it.
    place: str = ""

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}: " if self.line else ""
        return f"{where}{self.code} {self.name}: {self.said}. {self.why[0].upper()}{self.why[1:]}; instead: {self.hint}"


class Linted(list[Found]):
    """Findings, in the order of their places; an empty list is praise."""

    def __repr__(self) -> str:
        return "\n".join(map(str, self)) or "nothing to say"


def lint(*models: type[Any] | Handmade) -> Linted:
    """What a reviewer would say of these models, with their events and commands; of all there are here without any.

    Without any, queries are looked at too, and what no model evolves or decides.

    Projections written as SQL or as a function of frames are read too.

    >>> import eventlab as el, time
    >>> @el.event
    ... class ClockStarted:
    ...     "Somebody started the clock."
    >>> @el.aggregate
    ... class Clock:
    ...     "A clock on the wall."
    ...     since: float = 0.0
    ...     def evolve(self, event: ClockStarted) -> "Clock":
    ...         return Clock(time.time())
    >>> [(found.code, found.said) for found in lint(Clock)]
    [('R1', 'evolve calls time.time()')]
    """
    by_hand = [one for one in models if isinstance(one, Handmade)] if models else list(HANDMADE.values())
    given = [model_of(cls) for cls in models if not isinstance(cls, Handmade)]
    if not models:
        given = [model for model in MODELS.all() if _whole(model)]
    found: list[Found] = [one for made in by_hand for one in _of_handmade(made)]
    events: dict[str, EventType] = {}
    for model in given:
        found += _of_model(model)
        for cls, function in model.instead.items():
            found += _of_function(function, f"instead of {cls.__name__}", model.cls, frozenset())
        for kind in model.handled or ():
            events.setdefault(kind.name, kind)
    if not models:
        found += _together(given)
    for kind in EVENTS.all() if not models else events.values():
        found += _named(kind.cls, event_findings(kind.name, kind.schema.doc))
        found += _holds(kind.cls, kind.fields, "M4")
        for step in kind.upcasters.values():
            found += _of_function(step.function, f"upcast of {kind.name}", kind.cls, frozenset())
    for command in COMMANDS.all() if not models else _commands(given):
        found += _named(command.cls, command_findings(command.name, description(command.cls)))
        found += _holds(command.cls, command.fields, "M4")
    for query in QUERIES.all() if not models else ():
        found += _named(query.cls, query_findings(query.name, query.doc))
    return Linted(sorted(dict.fromkeys(found), key=lambda one: (one.file, one.line, one.code, one.name)))


def _whole(model: Model) -> bool:
    """Whether what a model names is still there: one that was defined in a place that is gone says nothing any more."""
    with contextlib.suppress(ModelError):
        model._resolve_decides()
        return model.handled is None or isinstance(model.handled, tuple)
    return False


def _of_handmade(made: Handmade) -> Iterator[Found]:
    if made.kind == "frame":
        owner = type(made.name, (), {"__module__": made.made_by.__module__})
        yield from _of_function(made.made_by, made.name, owner, frozenset())
        return
    floats = {name for kind in EVENTS.all() for name, of in kind.fields if of.tag == "f64"}
    for one in lint_sql(made.made_by, floats):
        why, hint = RULES[one.code]
        yield Found(one.code, made.name, f"line {one.line} of its query: {one.said}", why, hint, place=made.reference)


# -- names, and how things fit together ------------------------------------------------------------------------------------


def _named(cls: type[Any], said: Iterable[Finding]) -> Iterator[Found]:
    for one in said:
        yield from _plain(one.code, cls, one.message)


def _plain(code: str, cls: type[Any], said: str, field: str = "") -> Iterator[Found]:
    """A finding about a class, or a field of it, unless it is passed over there or above the class."""
    why, hint = RULES[code]
    file, line, ignored = _place(cls, field)
    if code not in ignored:
        yield Found(code, cls.__name__, said, why, hint, file, line, f"{cls.__module__}:{cls.__qualname__}")


def _place(cls: type[Any], field: str) -> tuple[str, int, set[str]]:
    """File and line of a class or a field of it, and the codes that are passed over there."""
    try:
        lines, first = inspect.getsourcelines(cls)
        file = _short(inspect.getsourcefile(cls) or "")
    except (OSError, TypeError):
        return "", 0, set()
    head = next((at for at, line in enumerate(lines) if re.match(r"\s*class\b", line)), 0)
    at = next((at for at, line in enumerate(lines) if field and re.match(rf"\s*{field}\s*:", line)), 0)
    ignored = _ignored("".join(lines))
    return file, first + at, {code for where in (*range(head + 1), at) for code in ignored.get(where, ())}


def _ignored(text: str) -> dict[int, set[str]]:
    """Codes that are passed over, by line from 0 on; a reason has to be given."""
    found: dict[int, set[str]] = {}
    for at, line in enumerate(text.splitlines()):
        match = _IGNORE.search(line)
        if match and match[2]:
            found[at] = {code.strip() for code in match[1].split(",")}
    return found


def _short(file: str) -> str:
    if file.startswith("<") or not file:
        return file
    try:
        return str(Path(file).relative_to(Path.cwd()))
    except ValueError:
        return file


def _of_model(model: Model) -> Iterator[Found]:
    cls = model.cls
    if not description(cls):
        yield from _plain("N3", cls, f"the {model.kind} has no docstring")
    yield from _unsaid(model)
    yield from _holds(cls, model.fields, "M3")
    sets = frozenset(name for name, kind in model.fields if kind.declared.startswith(("set", "frozenset")))
    floats = frozenset(name for name, kind in model.fields if kind.tag == "f64")
    state = Shape(dict(model.fields), cls)
    of_source = [] if model.source is None else [Shape(dict(model.source.fields), model.source.cls)]
    shapes = {"evolve": [state, _shape(model.handled)], "decide": [state, _shape(_commands([model]))],
              "key": [*of_source, _shape(model.handled)]}  # fmt: skip
    for name in _MODEL_METHODS:
        function = getattr(cls, name, None)
        if isinstance(function, types.FunctionType):
            yield from _of_function(function, name, cls, sets, floats, shapes[name])


def _shape(kinds: Sequence[Any] | None) -> Shape:
    """The fields of any of these events or commands, but for those whose type depends on which of them it is."""
    every = [field for kind in kinds or () for field in kind.fields]
    types_of = {name: {of.declared for other, of in every if other == name} for name, _ in every}
    return Shape({name: of for name, of in every if len(types_of[name]) == 1})


def _unsaid(model: Model) -> Iterator[Found]:
    """An `evolve` or `decide` that leaves open what it takes."""
    open_ = []
    for function, what in ((model.evolve, "events"), (model.decide, "commands")):
        taken = [] if function is None else [*inspect.signature(function).parameters.values()][1:2]
        if function is not None and taken and taken[0].annotation is inspect.Parameter.empty:
            open_.append((function, f"{function.__name__}({taken[0].name}) does not say which {what} it takes"))
    if not open_:
        return
    source = capture(open_[0][0])
    why, hint = RULES["M5"]
    for function, _ in open_:
        if "M5" in _ignored(capture(function).text or "").get(0, ()):
            return
    said, cls = " and ".join(said for _, said in open_), model.cls
    place = f"{cls.__module__}:{cls.__qualname__}"
    yield Found("M5", cls.__name__, said, why, hint, _short(source.file), source.line, place)


def _holds(cls: type[Any], fields: Sequence[tuple[str, FieldType]], code: str) -> Iterator[Found]:
    """States of models inside of a state, an event or a command, be it in a list or dict or in a part of it."""
    for name, kind in fields:
        while kind.item is not None:
            name, kind = f"{name}[]", kind.item
        if isinstance(kind, Record):
            if _is_model(kind.cls):
                yield from _plain(code, cls, f"{name} holds a {kind.cls.__name__}", re.split(r"\W", name)[0])
            yield from _holds(cls, [(f"{name}.{part}", of) for part, of in kind.fields], code)


def _is_model(cls: type[Any]) -> bool:
    return "__eventlab_model__" in vars(cls)


def _together(models: Sequence[Model]) -> Iterator[Found]:
    """Events that nobody evolves, commands that nobody decides."""
    if not any(model.handled is None for model in models):
        evolved = {kind.cls for model in models for kind in model.handled or ()}
        for kind in EVENTS.all():
            if kind.cls not in evolved:
                yield from _plain("M1", kind.cls, "no model evolves it")
    decided = {command.cls for command in _commands(models)}
    if not any(model.decide is not None and model._resolve_decides() is None for model in models):
        for command in COMMANDS.all():
            if command.cls not in decided:
                yield from _plain("M2", command.cls, "no model decides it")


def _commands(models: Sequence[Model]) -> list[Any]:
    listed = [cls for model in models if model.decide is not None for cls in model._resolve_decides() or ()]
    return [command for command in COMMANDS.all() if command.cls in listed]


# -- what a function does --------------------------------------------------------------------------------------------------


def _of_function(
    function: Callable[..., Any], what: str, owner: type[Any], sets: frozenset[str], floats: frozenset[str] = frozenset(),
    shapes: Sequence[Shape] = (),
) -> list[Found]:  # fmt: skip
    """What is found in a function and its helpers; `shapes` are those of its arguments."""
    seen: set[types.CodeType] = set()
    found: list[Found] = []
    waiting: list[tuple[Callable[..., Any], str, Sequence[Shape]]] = [(function, what, shapes)]
    while waiting:
        one, name, given = waiting.pop()
        if not isinstance(one, types.FunctionType) or one.__code__ in seen:
            continue
        seen.add(one.__code__)
        reader = _Reader(one, name, owner, sets, floats, given)
        found += reader.read()
        waiting += reader.helpers
    return found


class _Reader(ast.NodeVisitor):
    """Reads one function: what it names is looked up where it is defined, so an alias hides nothing."""

    def __init__(
        self, function: types.FunctionType, what: str, owner: type[Any], sets: frozenset[str], floats: frozenset[str],
        shapes: Sequence[Shape],
    ) -> None:  # fmt: skip
        self.function, self.what, self.owner, self.sets, self.floats = function, what, owner, sets, floats
        self.source = capture(function)
        self.found: list[Found] = []
        #: Functions it calls, how they are called in a finding, and what their arguments look like.
        self.helpers: list[tuple[Callable[..., Any], str, Sequence[Shape]]] = []
        self.names = self._names(function)
        parameters = [*inspect.signature(function).parameters]
        #: Names that stand for the state, the event and what they hold.
        self.values = set(parameters)
        self.given = {name: Part(0, name, shape) for name, shape in zip_longest(parameters, shapes[: len(parameters)])}
        self.local: set[str] = set()
        self.calm: set[ast.AST] = set()

    @staticmethod
    def _names(function: types.FunctionType) -> dict[str, Any]:
        cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=False)
        inner = {}
        for name, cell in cells:
            try:
                inner[name] = cell.cell_contents
            except ValueError:
                continue
        return {**vars(builtins), **function.__globals__, **inner}

    def read(self) -> list[Found]:
        """The findings of the function itself; `helpers` are the functions of the same code base that it names."""
        if self.source.text is None:
            return []
        try:
            tree = ast.parse(textwrap.dedent(self.source.text))
        except SyntaxError:
            return []
        ignored = _ignored(self.source.text)
        for node in ast.walk(tree):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                self.local.add(node.id)
            elif isinstance(node, (ast.MatchAs, ast.MatchStar)) and node.name:
                self.local.add(node.name)
                self.values.add(node.name)
        defined = next((n for n in ast.walk(tree) if isinstance(n, (ast.FunctionDef, ast.Lambda))), None)
        # Its decorators and annotations are not what it does.
        body = defined.body if isinstance(defined, ast.FunctionDef) else [ast.Return(defined.body)] if defined else []
        for part in body:
            self.visit(part)
        for node, said in changes(body, self.given, self.object):
            self.say("R7", node, said)
        return [one for one in self.found if one.code not in ignored.get(one.line - self.source.line, ())]

    def say(self, code: str, node: ast.AST, said: str) -> None:
        why, hint = RULES[code]
        line = self.source.line + getattr(node, "lineno", 1) - 1
        name, place = self.owner.__name__, f"{self.owner.__module__}:{self.owner.__qualname__}"
        self.found.append(Found(code, name, f"{self.what} {said}", why, hint, _short(self.source.file), line, place))

    def object(self, node: ast.AST) -> Any:
        """What an expression names: a global, or an attribute of a module or class; None where that is not known."""
        if isinstance(node, ast.Name) and node.id not in self.local | self.values:
            return self.names.get(node.id)
        if isinstance(node, ast.Attribute):
            of = self.object(node.value)
            if isinstance(of, (types.ModuleType, type)) or of is os.environ:
                return inspect.getattr_static(of, node.attr, None) if isinstance(of, type) and of is self.owner else getattr(
                    of, node.attr, None)  # fmt: skip
        return None

    def root(self, node: ast.AST) -> str | None:
        """The name at the root of an attribute or subscript."""
        while isinstance(node, (ast.Attribute, ast.Subscript)):
            node = node.value
        return node.id if isinstance(node, ast.Name) else None

    # -- calls

    def visit_Call(self, node: ast.Call) -> None:
        """Clocks, chance, the outside, orders of sets."""
        of, text = self.object(node.func), ast.unparse(node.func)
        self._call(node, of, text)
        self._own(node)
        if isinstance(node.func, ast.Name) and node.func.id in _ORDERLESS:
            self.calm.update(node.args)
        elif self._takes_order(node):
            for argument in node.args[:1]:
                if self._is_set(argument):
                    self.say("R5", node, f"takes the items of a set in their order: {ast.unparse(node)[:60]}")
        self.generic_visit(node)

    def _call(self, node: ast.Call, of: Any, text: str) -> None:
        if of is None:
            return
        module, name = getattr(of, "__module__", "") or "", getattr(of, "__name__", "")
        owner = getattr(of, "__self__", None)
        top = module.split(".")[0]
        if (module == "time" and name in _CLOCK) or (isinstance(owner, type) and issubclass(owner, dt.date) and name in _NOW):
            self.say("R1", node, f"calls {text}()")
        elif of is random.Random and node.args:
            return  # from a seed it is the same each time
        elif isinstance(owner, random.Random) or top in ("random", "secrets") or (
            top == "uuid" and name in ("uuid1", "uuid4", "uuid6", "uuid7")) or of is os.urandom:  # fmt: skip
            self.say("R2", node, f"calls {text}()")
        elif of in (os.getenv, os.getcwd, os.getpid) or (top == "platform") or (top == "socket" and name == "gethostname"):
            self.say("R3", node, f"calls {text}()")
        elif module == "eventlab.lab" and name in ("open", "scratch"):
            self.say("R11", node, f"opens a lab: {text}()")
        elif of in (builtins.open, builtins.print, builtins.input) or top in _OUTSIDE or (top == "os" and name == "system"):
            self.say("R4", node, f"calls {text}()")
        elif of in (builtins.hash, builtins.id):
            self.say("R6", node, f"calls {text}()")
        elif of is dt.datetime and not any(word.arg == "tzinfo" for word in node.keywords) and len(node.args) < 8:
            self.say("R9", node, f"makes a datetime without a zone: {ast.unparse(node)[:60]}")
        elif isinstance(owner, type) and issubclass(owner, dt.datetime) and name == "fromtimestamp" and len(node.args) < 2 and (
            not node.keywords):  # fmt: skip
            self.say("R9", node, f"reads a timestamp in the zone of the machine: {text}()")
        elif isinstance(of, types.FunctionType) and not self._library(of):
            self.helpers.append((of, f"{self.what}, by way of {name},", ()))

    def _own(self, node: ast.Call) -> None:
        """A method of the model's own: what it does, its caller does."""
        method = node.func
        if isinstance(method, ast.Attribute) and isinstance(method.value, ast.Name) and method.value.id == "self":
            of = inspect.getattr_static(self.owner, method.attr, None)
            if "self" in self.values and isinstance(of, types.FunctionType) and not self._library(of):
                state = self.given["self"].kind
                shapes = [state] if isinstance(state, Shape) else []
                self.helpers.append((of, f"{self.what}, by way of {method.attr},", shapes))

    def _library(self, of: types.FunctionType) -> bool:
        home = str(self.function.__globals__.get("__name__", "")).split(".")[0]
        return (of.__module__ or "").split(".")[0] != home

    def _takes_order(self, node: ast.Call) -> bool:
        if isinstance(node.func, ast.Name):
            return node.func.id in ("list", "tuple", "iter", "enumerate", "next", "zip")
        return isinstance(node.func, ast.Attribute) and node.func.attr == "join"

    def _is_set(self, node: ast.AST) -> bool:
        if isinstance(node, (ast.Set, ast.SetComp)):
            return True
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("set", "frozenset"):
            return True
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            return node.value.id == "self" and node.attr in self.sets
        if isinstance(node, ast.BinOp) and isinstance(node.op, (ast.BitOr, ast.BitAnd, ast.Sub, ast.BitXor)):
            return self._is_set(node.left) or self._is_set(node.right)
        if isinstance(node, (ast.GeneratorExp, ast.ListComp)):
            return any(self._is_set(part.iter) for part in node.generators)
        return False

    def visit_For(self, node: ast.For) -> None:
        """A loop over a set."""
        if self._is_set(node.iter):
            self.say("R5", node, f"loops over a set: for … in {ast.unparse(node.iter)[:60]}")
        self.generic_visit(node)

    def visit_ListComp(self, node: ast.ListComp) -> None:
        """A list made from a set, unless whoever takes it does not care."""
        if node not in self.calm and any(self._is_set(part.iter) for part in node.generators):
            self.say("R5", node, f"makes a list from a set: {ast.unparse(node)[:60]}")
        self.generic_visit(node)

    # -- assignments, globals, operators

    def visit_Assign(self, node: ast.Assign) -> None:
        """Something is put into what is outside."""
        for target in node.targets:
            self._target(target, node)
        self.generic_visit(node)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        """The same with an operator."""
        self._target(node.target, node)
        self.generic_visit(node)

    def visit_Delete(self, node: ast.Delete) -> None:
        """Something is taken out of what is outside."""
        for target in node.targets:
            self._target(target, node)

    def _target(self, target: ast.AST, node: ast.AST) -> None:
        if isinstance(target, (ast.Attribute, ast.Subscript)):
            root = self.root(target)
            if root is not None and root not in self.local | self.values:
                self.say("R8", node, f"changes {ast.unparse(target)}")

    def visit_Global(self, node: ast.Global) -> None:
        """A name outside is set."""
        self.say("R8", node, f"sets {', '.join(node.names)}, a name outside of it")

    def visit_Nonlocal(self, node: ast.Nonlocal) -> None:
        """The same in a closure."""
        self.say("R8", node, f"sets {', '.join(node.names)}, a name outside of it")

    def visit_Name(self, node: ast.Name) -> None:
        """A list, dict or set outside, which anyone may change; a lab."""
        if isinstance(node.ctx, ast.Load) and node.id not in self.local | self.values:
            of = self.names.get(node.id)
            self._looks(node, of)
            if isinstance(of, (list, dict, set, bytearray)) and node.id not in vars(builtins):
                self.say("R8", node, f"reads {node.id}, a {type(of).__name__} outside of it that anyone may change")

    def visit_Attribute(self, node: ast.Attribute) -> None:
        """The environment; a lab of another module."""
        of = self.object(node)
        if of is os.environ:
            self.say("R3", node, "reads os.environ")
        self._looks(node, of)
        self.generic_visit(node)

    def _looks(self, node: ast.expr, of: Any) -> None:
        if isinstance(of, Reader):
            self.say("R11", node, f"looks around in {ast.unparse(node)}, a {type(of).__name__}")

    def visit_BinOp(self, node: ast.BinOp) -> None:
        """A float that is summed up from event to event."""
        left = node.left
        sums = isinstance(node.op, (ast.Add, ast.Sub)) and isinstance(left, ast.Attribute) and self.root(left) == "self"
        if sums and isinstance(left, ast.Attribute) and left.attr in self.floats:
            self.say("R10", node, f"sums floats: {ast.unparse(node)[:60]}")
        self.generic_visit(node)
