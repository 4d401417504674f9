"""Symbolic execution: a function's tree, run on values that are expressions; what it returns is an expression too.

`event` is bound to one class, so `match`, `isinstance` and helpers fold away. A branch whose condition is not known runs both
ways and is merged field by field. Whatever may raise is remembered with the path on which it is evaluated.
"""

from __future__ import annotations

import ast
import builtins
import dataclasses
import datetime as dt
import enum
import re
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final, NamedTuple

from eventlab.model.types import money
from eventlab.replay.lift.ir import Builder, Node
from eventlab.replay.lift.making import Making
from eventlab.replay.lift.operations import DAY_US, HOUR_US
from eventlab.replay.lift.source import Refused, text_of
from eventlab.replay.lift.types import BOOL, DATE, FLOAT, INT, NONE, STR, TS, UUID, WALL, Type, dec, zone_of
from eventlab.replay.lift.values import Bound, Each, Items, Known, MetaSym, Method, Rec, Seq, Super, Sym, plain_dataclass

MAX_DEPTH: Final = 12
Path = tuple[tuple[Node, bool], ...]
#: Functions without effects whose result on constants is a constant.
_PURE: Final = (
    dt.timedelta, dt.datetime, dt.date, dt.time, Decimal, money, int, float, str, bool, len, abs, round, min, max, sum,
    tuple, frozenset, sorted, range, divmod,
)  # fmt: skip
_META: Final[Mapping[str, Type]] = {
    "position": INT, "stream": STR, "category": STR, "id": STR, "version": INT, "type": STR, "schema_version": INT,
    "event_id": UUID, "recorded_at": TS, "occurred_at": TS, "correlation_id": UUID.maybe(), "causation_id": UUID.maybe(),
    "actor": STR.maybe(), "tenant": STR,
}  # fmt: skip
_BINARY: Final = {
    ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/", ast.FloorDiv: "//", ast.Mod: "%", ast.Pow: "**", ast.BitOr: "|",
    ast.BitAnd: "&",
}  # fmt: skip
_ORDER: Final = {ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">="}
_COUNTED: Final = ("hour", "minute", "second")
#: What a moment is rounded down to, where these parts are set to 0.
_FLOORS: Final = {
    frozenset(("microsecond", "second", "minute", "hour")[: at + 1]): unit
    for at, unit in enumerate((1_000_000, 60_000_000, HOUR_US, DAY_US))
}
_ZEROS: Final = re.compile(r"0(\d{1,3})d?")


class IsoDay(NamedTuple):
    """What `isocalendar` gives."""

    year: int
    week: int
    weekday: int


@dataclass(frozen=True)
class Effect:
    """Something that may raise, evaluated on a path: an operation that may trip, or None for a `raise` itself."""

    path: Path
    node: Node | None
    why: str
    line: int
    file: str


@dataclass
class Scope:
    """One call: the names of its function, and where it stands."""

    names: dict[str, Sym]
    function: types.FunctionType
    file: str
    offset: int
    owner: type[Any] | None
    depth: int


@dataclass
class _Ended:
    """How a block ends: values returned by path, in order; and whether it may be left at its end."""

    exits: list[tuple[Path, Sym]] = field(default_factory=list)
    open: bool = True


class Execution(Making):
    """One run of `evolve` or `key` for one event class."""

    def __init__(self, build: Builder) -> None:
        super().__init__(build)
        self.path: Path = ()
        self.effects: list[Effect] = []
        self.depends: list[types.FunctionType] = []
        self.file = ""
        self.ends = False

    # -- effects and paths

    def evaluated(self, node: Node) -> None:
        from eventlab.replay.lift.operations import OPERATIONS

        row = OPERATIONS.get(node.op)
        why = row.guards[0].why if row is not None and row.guards else "a result beyond what is exact"
        self.effects.append(Effect(self.path, node, why, self.line, self.file))

    def raises(self, why: str) -> None:
        """Python raises here."""
        self.effects.append(Effect(self.path, None, why, self.line, self.file))

    def assuming(self, condition: Node, truth: bool) -> Callable[[], None]:
        """Go on under a condition; the result undoes it."""
        path, known = self.path, self.known
        self.path = (*path, (condition, truth))
        self.known = {**known}
        self._learn(condition, truth)

        def undo() -> None:
            self.path, self.known = path, known

        return undo

    def _learn(self, condition: Node, truth: bool) -> None:
        self.known[condition] = truth
        if condition.op == "not":
            self._learn(condition.args[0], not truth)
        elif (condition.op == "and" and truth) or (condition.op == "or" and not truth):
            for part in condition.args:
                self._learn(part, truth)
        elif truth and condition.op in ("eq", "same", "feq"):
            for one, other in (condition.args, condition.args[::-1]):
                if one.type.opt and (not other.type.opt or (other.fixed and other.value is not None)):
                    self.known[self.op("isnull", one, type=BOOL)] = False
        for part in _evaluated_by(condition):
            if part.op in ("some", "sure") and part.args[0].type.opt:
                self.known[self.build.node("isnull", (part.args[0],), BOOL)] = False

    # -- calls of modellers' functions

    def call(
        self, function: Any, arguments: Sequence[Sym], keywords: Mapping[str, Sym], owner: type[Any] | None, depth: int
    ) -> Sym:
        """Execute a function; its value."""
        if depth > MAX_DEPTH:
            raise self.refused(f"{function.__name__} calls itself, or too deeply")
        text = text_of(function)
        tree = text.tree
        self.depends.append(function)
        given = tree.args
        if given.vararg or given.kwarg or given.kwonlyargs:
            raise Refused(f"{function.__name__} takes *, ** or keywords only", text.offset + 1, text.file)
        parameters = [p.arg for p in (*given.posonlyargs, *given.args)]
        names: dict[str, Sym] = dict(zip(parameters, arguments, strict=False))
        names.update(keywords)
        defaults = function.__defaults__ or ()
        for name, value in zip(parameters[len(parameters) - len(defaults) :], defaults, strict=True):
            names.setdefault(name, Known(value))
        if len(arguments) > len(parameters) or set(names) != set(parameters):
            raise self.refused(f"{function.__name__} is called with other arguments than it takes")
        scope = Scope(names, function, text.file, text.offset, owner, depth)
        before, file = self.path, self.file
        self.file = text.file
        try:
            body = tree.body if isinstance(tree, ast.FunctionDef) else [ast.Return(tree.body)]
            ended = self.block(body, scope)
            if ended.open:
                ended.exits.append((self.path, Known(None)))
            return self.folded(ended.exits, before)
        except Refused as refused:
            refused.file = refused.file or text.file
            raise
        finally:
            self.file = file

    def folded(self, exits: list[tuple[Path, Sym]], base: Path) -> Sym:
        """One value of several returns, each with its path."""
        if not exits:
            return Known(None)
        *early, (_, value) = exits
        for path, found in reversed(early):
            value = self.merge(self.all_of(path[len(base) :]), found, value)
        return value

    def all_of(self, path: Path) -> Node:
        """The conjunction of a path's conditions."""
        whole = self.build.true
        for condition, truth in path:
            literal = condition if truth else self._plain_not(condition)
            if whole.fixed:
                whole = literal if whole.value else whole
            elif literal.fixed:
                whole = whole if literal.value else literal
            else:
                whole = self.build.node("and", (whole, literal), BOOL)
        return whole

    def _plain_not(self, a: Node) -> Node:
        if a.fixed:
            return self.build.const(not a.value, BOOL)
        return a.args[0] if a.op == "not" else self.build.node("not", (a,), BOOL)

    # -- statements

    def block(self, statements: Sequence[ast.stmt], scope: Scope) -> _Ended:
        """Execute statements; `scope.names` is what they leave behind."""
        ended = _Ended()
        for i, statement in enumerate(statements):
            self.line = scope.offset + statement.lineno if hasattr(statement, "lineno") else self.line
            if isinstance(statement, (ast.If, ast.Match)):
                branches = self._branches(statement, scope)
                split = self._split(branches, statements[i + 1 :], scope)
                ended.exits += split.exits
                ended.open = split.open
                return ended
            if isinstance(statement, ast.Return):
                value = self.ev(statement.value, scope) if statement.value is not None else Known(None)
                ended.exits.append((self.path, self._pinned(value)))
                ended.open = False
                return ended
            if isinstance(statement, ast.Raise):
                self.raises("it raises here")
                ended.open = False
                return ended
            self.statement(statement, scope)
            if self.ends:
                self.ends, ended.open = False, False
                return ended
        return ended

    def _branches(self, statement: ast.If | ast.Match, scope: Scope) -> list[tuple[Any, Sequence[ast.stmt]]]:
        """The alternatives of a statement: a function that gives the condition and binds names, and the body."""
        if isinstance(statement, ast.If):
            return [(lambda s: self.test(statement.test, s), statement.body), (lambda s: self.build.true, statement.orelse)]
        subject = self.ev(statement.subject, scope)
        found: list[tuple[Any, Sequence[ast.stmt]]] = []
        for case in statement.cases:

            def condition(s: Scope, case: ast.match_case = case) -> Node:
                self.line = s.offset + case.pattern.lineno
                matched = self.matches(case.pattern, subject, s)
                if case.guard is None or (matched.fixed and not matched.value):
                    return matched
                if matched.fixed:
                    return self.test(case.guard, s)
                undo = self.assuming(matched, True)
                guard = self.test(case.guard, s)
                undo()
                return self.and_(matched, guard)

            found.append((condition, case.body))
        found.append((lambda s: self.build.true, []))
        return found

    def _split(self, branches: Sequence[tuple[Any, Sequence[ast.stmt]]], rest: Sequence[ast.stmt], scope: Scope) -> _Ended:
        """Execute alternatives; those that are not left early are merged before the rest is executed."""
        (condition_of, body), *others = branches
        before = dict(scope.names)
        condition = condition_of(scope)
        if condition.fixed and not condition.value:
            scope.names = before
            return self._split(others, rest, scope)
        if condition.fixed or not others:
            ended = self.block(body, scope)
            if ended.open:
                after = self.block(rest, scope)
                return _Ended(ended.exits + after.exits, after.open)
            return ended
        bound = scope.names
        undo = self.assuming(condition, True)
        yes = self.block(body, scope)
        yes_names, yes_path = scope.names, self.path
        undo()
        scope.names = dict(before)
        undo = self.assuming(condition, False)
        no = self._split(others, [], scope)
        no_names, no_path = scope.names, self.path
        undo()
        exits = yes.exits + no.exits
        if not yes.open and not no.open:
            return _Ended(exits, False)
        del bound
        if yes.open and no.open:
            scope.names = self._merged_names(condition, yes_names, no_names)
            after = self.block(rest, scope)
            return _Ended(exits + after.exits, after.open)
        scope.names = yes_names if yes.open else no_names
        undo = self.assuming(condition, yes.open)
        after = self.block(rest, scope)
        end = self.path
        undo()
        if after.open:  # the end of the function, on this side of the condition
            self.path = end
            return _Ended(exits + after.exits, True)
        del yes_path, no_path
        return _Ended(exits + after.exits, False)

    def _merged_names(self, condition: Node, yes: dict[str, Sym], no: dict[str, Sym]) -> dict[str, Sym]:
        merged: dict[str, Sym] = {}
        for name, value in yes.items():
            if name in no:
                try:
                    merged[name] = self.merge(condition, value, no[name])
                except Refused:
                    if value is no[name]:
                        raise
                    # Used later, the name is refused as undefined; most such names are not used.
        return merged

    def statement(self, statement: ast.stmt, scope: Scope) -> None:
        """Statements that go on to the next."""
        if isinstance(statement, ast.Assign) and len(statement.targets) == 1:
            self.assign(statement.targets[0], self.ev(statement.value, scope), scope)
        elif isinstance(statement, ast.AnnAssign) and statement.value is not None:
            self.assign(statement.target, self.ev(statement.value, scope), scope)
        elif isinstance(statement, ast.AugAssign) and isinstance(statement.target, ast.Name):
            left = self.lookup(statement.target.id, scope)
            right = self.ev(statement.value, scope)
            if isinstance(left, Node) and left.type.name in ("list", "set", "map") and left.type.cls not in (tuple, frozenset):
                raise self.refused(f"{statement.target.id} is changed in place", "make a new value")
            scope.names[statement.target.id] = self._binary(_sign(statement.op), left, right)
        elif isinstance(statement, ast.Assert):
            held = self.test(statement.test, scope)
            if held.fixed and held.value:
                return
            undo = self.assuming(held, False)
            self.raises("the assertion fails")
            undo()
            if held.fixed:
                self.ends = True
            else:
                self._learn(held, True)
        elif isinstance(statement, ast.Pass) or (isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)):
            return
        else:
            raise self.refused(
                f"{_statement_name(statement)} is not lifted", "say it as an expression: match, if, replace(self, …)"
            )

    def assign(self, target: ast.expr, value: Sym, scope: Scope) -> None:
        if isinstance(target, ast.Name):
            scope.names[target.id] = value
        elif isinstance(target, ast.Tuple):
            items = self.unpacked(value, len(target.elts))
            for part, item in zip(target.elts, items, strict=True):
                self.assign(part, item, scope)
        else:
            raise self.refused("only names are assigned to; an object is not changed", "replace(self, …) makes a new state")

    def unpacked(self, value: Sym, count: int) -> Sequence[Sym]:
        if isinstance(value, Seq) and len(value.items) == count:
            return value.items
        if isinstance(value, Rec) and issubclass(value.cls, tuple) and value.present is None and len(value.parts) == count:
            return list(value.parts.values())
        if isinstance(value, Known) and isinstance(value.value, (tuple, list)) and len(value.value) == count:
            return [Known(v) for v in value.value]
        raise self.refused("it cannot be unpacked here")

    # -- patterns

    def matches(self, pattern: ast.pattern, subject: Sym, scope: Scope) -> Node:
        """The condition under which a pattern matches; names are bound."""
        if isinstance(pattern, ast.MatchAs):
            found = self.build.true if pattern.pattern is None else self.matches(pattern.pattern, subject, scope)
            if pattern.name is not None:
                scope.names[pattern.name] = subject
            return found
        if isinstance(pattern, ast.MatchOr):
            found = self.build.false
            for part in pattern.patterns:
                found = self.or_(found, self.matches(part, subject, scope))
                if found.fixed and found.value:
                    break
            return found
        if isinstance(pattern, ast.MatchValue):
            return self.equal(subject, self.ev(pattern.value, scope))
        if isinstance(pattern, ast.MatchSingleton):
            return self.identical(subject, Known(pattern.value))
        if isinstance(pattern, ast.MatchClass):
            cls = self.ev(pattern.cls, scope)
            if not isinstance(cls, Known) or not isinstance(cls.value, type):
                raise self.refused("a class pattern names a class")
            found = self.isinstance(subject, cls.value)
            if found.fixed and not found.value:
                return found
            names = getattr(cls.value, "__match_args__", ())
            if pattern.patterns and len(pattern.patterns) > len(names):
                if len(pattern.patterns) == 1 and not names:  # `case str(x)`: the value itself
                    return self.and_(found, self.matches(pattern.patterns[0], subject, scope))
                raise self.refused(f"{cls.value.__name__} has no so many positions")
            inner = Rec(subject.cls, subject.parts) if isinstance(subject, Rec) else subject
            pairs = [*zip(names, pattern.patterns, strict=False), *zip(pattern.kwd_attrs, pattern.kwd_patterns, strict=True)]
            for name, part in pairs:
                undo = self.assuming(found, True) if not found.fixed else (lambda: None)
                more = self.matches(part, self.attribute(inner, name, scope), scope)
                undo()
                found = self.and_(found, more)
            return found
        if isinstance(pattern, ast.MatchSequence) and isinstance(subject, Seq):
            if len(pattern.patterns) != len(subject.items) or any(isinstance(p, ast.MatchStar) for p in pattern.patterns):
                if not any(isinstance(p, ast.MatchStar) for p in pattern.patterns):
                    return self.build.false
                raise self.refused("a starred pattern is not lifted")
            found = self.build.true
            for part, item in zip(pattern.patterns, subject.items, strict=True):
                found = self.and_(found, self.matches(part, item, scope))
            return found
        raise self.refused(f"a {type(pattern).__name__} pattern is not lifted")

    def isinstance(self, value: Sym, cls: Any) -> Node:
        """`isinstance(value, cls)`."""
        options = cls if isinstance(cls, tuple) else typing.get_args(cls) if isinstance(cls, types.UnionType) else (cls,)
        found = self.build.false
        for option in options:
            found = self.or_(found, self._instance(value, option))
        return found

    def _instance(self, value: Sym, cls: Any) -> Node:
        if isinstance(value, Rec):
            if not issubclass(value.cls, cls):
                return self.build.false
            return self.build.true if value.present is None else self.decide(value.present)
        if isinstance(value, Known):
            return self.build.const(isinstance(value.value, cls), BOOL)
        if isinstance(value, Seq):
            return self.build.const(issubclass(value.cls, cls), BOOL)
        if isinstance(value, Node):
            python = {
                "int": int, "bool": bool, "float": float, "str": str, "dec": Decimal, "exact": Decimal, "ts": dt.datetime,
                "date": dt.date, "time": dt.time, "dur": dt.timedelta, "bytes": bytes, "map": dict,
            }.get(value.type.name, value.type.cls)  # fmt: skip
            if isinstance(python, type) and value.type.name != "json":
                null = self.isnull(value)
                if not issubclass(python, cls):
                    if cls is types.NoneType:
                        return null
                    return self.build.false
                return self.not_(null) if not null.fixed else self.build.const(not null.value, BOOL)
        raise self.refused("its class is not known")

    def identical(self, left: Sym, right: Sym) -> Node:
        """`left is right`, for what has one identity: None, enum members, True and False."""
        for a, b in ((left, right), (right, left)):
            if isinstance(b, Known):
                if b.value is None:
                    if isinstance(a, Known):
                        return self.build.const(a.value is None, BOOL)
                    if isinstance(a, Rec):
                        return self.build.false if a.present is None else self.not_(self.decide(a.present))
                    return self.isnull(a) if isinstance(a, Node) else self.build.false
                if isinstance(b.value, type) and isinstance(a, Known):
                    return self.build.const(a.value is b.value, BOOL)
                if isinstance(b.value, (enum.Enum, bool)) and isinstance(a, (Node, Known)):
                    if isinstance(a, Node) and a.type.name not in ("enum", "bool"):
                        raise self.refused(f"`is` on a {a.type} is not lifted", "compare with ==")
                    return self.equal(a, b)
        if isinstance(left, Node) and isinstance(right, Node) and left.type.name == right.type.name == "enum":
            return self.equal(left, right)
        raise self.refused("`is` tells apart what == does not", "compare with ==")

    # -- names and attributes

    def lookup(self, name: str, scope: Scope) -> Sym:
        if name in scope.names:
            return self._pinned(scope.names[name])
        function = scope.function
        if name in function.__code__.co_varnames:
            raise self.refused(f"{name} may not be set here, or differs in kind between the branches")
        if name in function.__code__.co_freevars:
            cell = (function.__closure__ or ())[function.__code__.co_freevars.index(name)]
            try:
                return Known(cell.cell_contents)
            except ValueError:
                raise self.refused(f"{name} is not set yet") from None
        if name in function.__globals__:
            return Known(function.__globals__[name])
        if hasattr(builtins, name):
            return Known(getattr(builtins, name))
        raise self.refused(f"{name} is not defined")

    def attribute(self, of: Sym, name: str, scope: Scope) -> Sym:
        """`of.name`."""
        if isinstance(of, Rec):
            return self._of_record(of, name, scope)
        if isinstance(of, MetaSym):
            if name not in _META:
                if name == "tags":
                    raise self.refused("meta.tags is not lifted")
                raise self.refused(f"meta has no {name}")
            return self.build.node("meta", (), _META[name], name, self.line)
        if isinstance(of, Super):
            rest = of.of.cls.__mro__[of.of.cls.__mro__.index(of.owner) + 1 :]
            return self._member(of.of, name, rest)
        if isinstance(of, Known):
            value = of.value
            if isinstance(value, (types.ModuleType, type, enum.Enum)):
                if not hasattr(value, name):
                    raise self.refused(f"{value!r} has no {name}")
                found = getattr(value, name)
                if isinstance(value, type) and isinstance(found, types.MethodType):
                    return Bound(found.__func__, Known(found.__self__), value)
                return Known(found)
            if dataclasses.is_dataclass(value) and name in {f.name for f in dataclasses.fields(value)}:
                return Known(getattr(value, name))
            if dataclasses.is_dataclass(value):
                return self._of_record(self.record(of), name, scope)
            return Method(of, name)
        if isinstance(of, Node):
            return self._of_node(of, name)
        return Method(of, name)

    def _of_record(self, of: Rec, name: str, scope: Scope) -> Sym:
        if of.present is not None:
            here = self.decide(of.present)
            if not (here.fixed and here.value):
                undo = self.assuming(here, False)
                self.raises(f"it may be None here, and None has no {name}")
                undo()
            of = Rec(of.cls, of.parts)
        if name in of.parts:
            return self._pinned(of.parts[name])
        if name == "__class__":
            return Known(of.cls)
        return self._member(of, name, of.cls.__mro__)

    def _member(self, of: Rec, name: str, among: Sequence[type[Any]]) -> Sym:
        owner = next((c for c in among if name in vars(c)), None)
        if owner is None or owner is object:
            if issubclass(of.cls, tuple) and name == "_replace":
                return Method(of, name)
            raise self.refused(f"{of.cls.__name__} has no {name}")
        member = vars(owner)[name]
        if isinstance(member, property) and isinstance(member.fget, types.FunctionType):
            return self.call(member.fget, [of], {}, owner, MAX_DEPTH // 2)
        if isinstance(member, types.FunctionType):
            return Bound(member, of, owner)
        if isinstance(member, staticmethod):
            return Bound(member.__func__, None, owner)
        if isinstance(member, classmethod):
            return Bound(member.__func__, Known(of.cls), owner)
        if hasattr(type(member), "__get__"):
            raise self.refused(f"{of.cls.__name__}.{name} is a {type(member).__name__}", "a plain property or method lifts")
        return Known(member)

    def _of_node(self, of: Node, name: str) -> Sym:
        kind = of.type.name
        if kind in ("ts", "wall") and name in _COUNTED:
            return self.op(f"ts.{name}", self.need(of), type=INT)
        if kind in ("ts", "wall") and name in ("year", "month", "day"):
            return self.op(f"date.{name}", self.op("ts.date", self.need(of), type=DATE), type=INT)
        if kind == "date" and name in ("year", "month", "day"):
            return self.op(f"date.{name}", self.need(of), type=INT)
        if kind == "dur" and name == "days":
            return self.op("dur.days", self.need(of), type=INT)
        if kind == "enum" and name == "value":
            from eventlab.replay.lift.making import replace_type

            return replace_type(self.build, self.need(of), STR if of.type.text else INT)
        if kind == "rec":
            here = self.need(of)
            part = dict(here.type.parts).get(name)
            if part is None:
                raise self.refused(f"{of.type} has no {name}")
            return self.build.node("rec.get", (here,), part, name, self.line)
        return Method(of, name)

    # -- expressions

    def ev(self, node: ast.expr, scope: Scope) -> Sym:
        """The value of an expression."""
        self.line = scope.offset + node.lineno if hasattr(node, "lineno") else self.line
        method = getattr(self, f"_ev_{type(node).__name__}", None)
        if method is None:
            raise self.refused(f"{_statement_name(node)} is not lifted")
        found: Sym = method(node, scope)
        return found

    def test(self, node: ast.expr, scope: Scope) -> Node:
        """The truth of an expression: of `a or b` only the truths of its parts matter."""
        if not isinstance(node, ast.BoolOp):
            return self.truth(self.ev(node, scope))
        every = isinstance(node.op, ast.And)
        found = self.test(node.values[0], scope)
        for part in node.values[1:]:
            if found.fixed:
                found = self.test(part, scope) if found.value == every else found
                continue
            undo = self.assuming(found, every)
            one = self.test(part, scope)
            undo()
            found = self.and_(found, one) if every else self.or_(found, one)
        return found

    def _ev_Constant(self, node: ast.Constant, scope: Scope) -> Sym:
        return Known(node.value)

    def _ev_Name(self, node: ast.Name, scope: Scope) -> Sym:
        return self.lookup(node.id, scope)

    def _ev_Attribute(self, node: ast.Attribute, scope: Scope) -> Sym:
        return self._pinned(self.attribute(self.ev(node.value, scope), node.attr, scope))

    def _ev_Tuple(self, node: ast.Tuple | ast.List | ast.Set, scope: Scope) -> Sym:
        cls = {ast.Tuple: tuple, ast.List: list, ast.Set: set}[type(node)]
        if not any(isinstance(e, ast.Starred) for e in node.elts):
            return Seq(cls, tuple(self.ev(e, scope) for e in node.elts))
        whole: Node | None = None
        sign = "|" if cls is set else "+"
        plain: list[Sym] = []
        parts: list[Node] = []
        for e in node.elts:
            if isinstance(e, ast.Starred):
                if plain:
                    parts.append(self.display(Seq(cls, tuple(plain))))
                    plain = []
                parts.append(self._as(self.ev(e.value, scope), cls))
            else:
                plain.append(self.ev(e, scope))
        if plain:
            parts.append(self.display(Seq(cls, tuple(plain))))
        for part in parts:
            whole = part if whole is None else self.binary(sign, whole, part)
        assert whole is not None
        return whole

    _ev_List = _ev_Tuple
    _ev_Set = _ev_Tuple

    def _as(self, value: Sym, cls: type[Any]) -> Node:
        """The same items as a tuple, list or set."""
        node = self.need(self.node(value))
        name = "set" if cls in (set, frozenset) else "list"
        if node.type.name == name:
            if node.type.cls is cls or name == "set":
                return _retyped(self.build, node, cls)
            return _retyped(self.build, node, cls)
        raise self.refused(f"a {node.type} as a {cls.__name__} is not lifted")

    def _ev_Dict(self, node: ast.Dict, scope: Scope) -> Sym:
        if not node.keys:
            return Known({})
        first, *rest = zip(node.keys, node.values, strict=True)
        if first[0] is None:
            whole = self.need(self.node(self.ev(first[1], scope)))
        else:
            rest = [first, *rest]
            whole = self.build.const({}, Type("map"), self.line)
        if whole.type.name != "map":
            raise self.refused(f"** of a {whole.type} is not lifted")
        for key, value in rest:
            if key is None:
                raise self.refused("two mappings are merged", "one ** comes first, then the keys")
            whole = self.put(whole, self.ev(key, scope), self.ev(value, scope))
        return whole

    def put(self, whole: Node, key: Sym, value: Sym) -> Node:
        """`{**whole, key: value}`."""
        at, held = self.need(self.node(key)), self.node(value)
        if at.type.name != "str":
            raise self.refused(f"a mapping with keys of {at.type} is not lifted")
        item = held.type if whole.type.item is None else self._join(whole.type.item, held.type)
        kind = Type("map", item=item)
        return self.op("map.put", self.fit(whole, kind), at, self.fit(held, item), type=kind)

    def _ev_BinOp(self, node: ast.BinOp, scope: Scope) -> Sym:
        left, right = self.ev(node.left, scope), self.ev(node.right, scope)
        self.line = scope.offset + node.lineno
        return self._binary(_sign(node.op), left, right)

    def _binary(self, sign: str, left: Sym, right: Sym) -> Sym:
        if isinstance(left, Known) and isinstance(right, Known):
            return self._constant(lambda: _python(sign, left.value, right.value))
        if sign == "+" and isinstance(left, Seq) and isinstance(right, Seq) and left.cls is right.cls:
            return Seq(left.cls, (*left.items, *right.items))
        if sign == "|":
            a, b = self.node(left), self.node(right)
            if a.type.name == b.type.name == "map":
                if b.op == "map.put" and b.args[0].fixed and not b.args[0].value:
                    return self.put(self.need(a), b.args[1], b.args[2])
                if b.fixed and len(b.value) == 0:
                    return a
                raise self.refused("two mappings are merged", "{**mapping, key: value} lifts")
            return self.binary(sign, a, b)
        return self.binary(sign, self.node(left), self.node(right))

    def _constant(self, compute: Callable[[], Any]) -> Sym:
        try:
            return Known(compute())
        except Exception as why:
            self.raises(f"{type(why).__name__}: {why}")
            raise self.refused(f"Python raises here: {why}") from None

    def _ev_UnaryOp(self, node: ast.UnaryOp, scope: Scope) -> Sym:
        if isinstance(node.op, ast.Not):
            return self.not_(self.test(node.operand, scope))
        value = self.ev(node.operand, scope)
        if isinstance(value, Known) and isinstance(node.op, (ast.USub, ast.UAdd)):
            sign = -1 if isinstance(node.op, ast.USub) else 1
            return self._constant(lambda: -value.value if sign < 0 else +value.value)
        if isinstance(node.op, ast.USub):
            return self.negative(self.node(value))
        raise self.refused("this operator is not lifted")

    def _ev_BoolOp(self, node: ast.BoolOp, scope: Scope) -> Sym:
        value = self.ev(node.values[0], scope)
        for part in node.values[1:]:
            truth = self.truth(value)
            if truth.fixed:
                if truth.value == isinstance(node.op, ast.Or):
                    return value
                value = self.ev(part, scope)
                continue
            undo = self.assuming(truth, isinstance(node.op, ast.And))
            other = self.ev(part, scope)
            plain = [
                v if isinstance(v, Node) else self.node(v) if isinstance(v, Known) and v.value is not None else None
                for v in (value, other)
            ]
            undo()
            if all(p is not None and p.type == BOOL for p in plain):
                value = self.and_(plain[0], plain[1]) if isinstance(node.op, ast.And) else self.or_(plain[0], plain[1])  # type: ignore[arg-type]
            elif isinstance(node.op, ast.And):
                value = self.merge(truth, other, value)
            else:
                value = self.merge(truth, self._truthy(value), other)
        return value

    def _truthy(self, value: Sym) -> Sym:
        """A value that is known to be true, and so not None."""
        if isinstance(value, Node) and value.type.opt:
            return self.sure(value)
        return Rec(value.cls, value.parts) if isinstance(value, Rec) else value

    def _ev_IfExp(self, node: ast.IfExp, scope: Scope) -> Sym:
        test = self.test(node.test, scope)
        if test.fixed:
            return self.ev(node.body if test.value else node.orelse, scope)
        undo = self.assuming(test, True)
        body = self._pinned(self.ev(node.body, scope))
        undo()
        undo = self.assuming(test, False)
        orelse = self._pinned(self.ev(node.orelse, scope))
        undo()
        return self.merge(test, body, orelse)

    def _pinned(self, value: Sym) -> Sym:
        """A value as it is on this path: without None where that is known."""
        if isinstance(value, Node) and value.type.opt and not value.fixed:
            null = self.isnull(value)
            if null.fixed and not null.value:
                return self.sure(value)
        if isinstance(value, Rec) and value.present is not None:
            here = self.decide(value.present)
            if here.fixed and here.value:
                return Rec(value.cls, value.parts)
        return value

    def _ev_Compare(self, node: ast.Compare, scope: Scope) -> Sym:
        left = self.ev(node.left, scope)
        found: Node | None = None
        undo: Callable[[], None] = lambda: None  # noqa: E731
        for op, right_of in zip(node.ops, node.comparators, strict=True):
            if found is not None and not found.fixed:
                undo = self.assuming(found, True)
            right = self.ev(right_of, scope)
            one = self.compared(op, left, right)
            undo()
            undo = lambda: None  # noqa: E731
            found = one if found is None else self.and_(found, one)
            left = right
        assert found is not None
        return found

    def compared(self, op: ast.cmpop, left: Sym, right: Sym) -> Node:
        if isinstance(op, ast.Eq):
            return self.equal(left, right)
        if isinstance(op, ast.NotEq):
            return self.not_(self.equal(left, right))
        if isinstance(op, ast.Is):
            return self.identical(left, right)
        if isinstance(op, ast.IsNot):
            return self.not_(self.identical(left, right))
        if isinstance(op, ast.In):
            return self.within(left, right)
        if isinstance(op, ast.NotIn):
            return self.not_(self.within(left, right))
        if isinstance(left, Known) and isinstance(right, Known):
            found = self._constant(lambda: _python(_ORDER[type(op)], left.value, right.value))
            return self.node(found)
        return self.order(_ORDER[type(op)], self.node(left), self.node(right))

    def within(self, item: Sym, of: Sym) -> Node:
        """`item in of`."""
        if isinstance(of, Known) and isinstance(of.value, (tuple, list, set, frozenset, dict)):
            if isinstance(item, Known):
                return self.build.const(item.value in of.value, BOOL)
            members: Sequence[Sym] = [
                Known(v) for v in (sorted(of.value, key=repr) if isinstance(of.value, (set, frozenset)) else of.value)
            ]
        elif isinstance(of, Seq):
            members = of.items
        else:
            if isinstance(of, Items) and of.what == "keys":
                of = of.of
            whole = self.need(self.node(of))
            one = self.node(item)
            kind = whole.type.name
            if kind == "str" and one.type.name == "str":
                return self.op("str.in", self.need(one), whole, type=BOOL)
            if kind == "map":
                return self.op("map.in", self.need(one), whole, type=BOOL)
            if kind in ("list", "set") and whole.type.item is not None:
                null = self.isnull(one)
                if whole.type.item.opt or not (null.fixed and not null.value) or whole.type.item.name in ("float", "json", "rec"):
                    raise self.refused(f"`in` a {whole.type} that may hold None, floats or records is not lifted")
                one = self.sure(one)
                if one.type.name != whole.type.item.name:
                    raise self.refused(f"a {one.type} in a {whole.type} of {whole.type.item}")
                if one.type.name == "dec":
                    one = self.fit(one, whole.type.item)
                return self.op(f"{kind}.in", one, whole, type=BOOL)
            raise self.refused(f"`in` a {whole.type} is not lifted")
        found = self.build.false
        for member in members:
            found = self.or_(found, self.equal(item, member))
        return found

    def _ev_JoinedStr(self, node: ast.JoinedStr, scope: Scope) -> Sym:
        whole: Node = self.const("")
        for part in node.values:
            if isinstance(part, ast.Constant):
                text = self.const(part.value)
            else:
                assert isinstance(part, ast.FormattedValue)
                value = self.ev(part.value, scope)
                text = self.text(value) if part.format_spec is None else self._padded(value, part.format_spec)
                if part.conversion not in ((-1, 115) if part.format_spec is None else (-1,)):
                    raise self.refused("!r and !a are not lifted, nor a conversion with a format specification")
            whole = text if whole.fixed and whole.value == "" else self.op("str.cat", whole, text, type=STR)
        return whole

    def _padded(self, value: Sym, how: ast.expr) -> Node:
        """An integer with zeros in front; no other specification."""
        parts = how.values if isinstance(how, ast.JoinedStr) else []
        found = _ZEROS.fullmatch(str(parts[0].value)) if len(parts) == 1 and isinstance(parts[0], ast.Constant) else None
        node = self.node(value)
        if found is None or node.type.name != "int" or node.type.opt:
            raise self.refused("a format specification is lifted for whole numbers with zeros in front: {n:02d}")
        return self.op("int.padded", node, type=STR, value=int(found[1]))

    def text(self, value: Sym) -> Node:
        """`str(value)`."""
        if isinstance(value, Known):
            return self.const(str(value.value))
        node = self.node(value)
        null = self.isnull(node)
        if not null.fixed:
            undo = self.assuming(null, False)
            inner = self.text(self.sure(node))
            undo()
            return self.choose(null, self.const("None"), inner)
        if null.value:
            return self.const("None")
        node = self.sure(node)
        if node.type.name == "str":
            return node
        if node.type.name in ("int", "bool", "date"):
            return self.op(f"{node.type.name}.str", node, type=STR)
        if node.type.name == "enum" and isinstance(node.type.cls, type) and issubclass(node.type.cls, enum.StrEnum):
            return self.build.node("sure", (node,), STR, "str", self.line)
        raise self.refused(f"the text of a {node.type} is not lifted")

    def _ev_Subscript(self, node: ast.Subscript, scope: Scope) -> Sym:
        of = self.ev(node.value, scope)
        if isinstance(node.slice, ast.Slice):
            return self._slice(of, node.slice, scope)
        at = self.ev(node.slice, scope)
        if isinstance(at, Known):
            if isinstance(of, Known):
                return self._constant(lambda: of.value[at.value])
            if isinstance(of, Seq) and isinstance(at.value, int):
                if not -len(of.items) <= at.value < len(of.items):
                    raise self.refused("the index is out of range")
                return of.items[at.value]
            if isinstance(of, Rec) and issubclass(of.cls, tuple) and isinstance(at.value, int):
                return list(of.parts.values())[at.value]
        if isinstance(of, Known) and isinstance(of.value, Mapping):
            return self.in_table(of.value, at, None)
        whole = self.node(of)
        if whole.type.name == "map":
            here, key = self.need(whole), self.need(self.node(at))
            if here.type.item is None:
                raise self.refused("what the mapping holds is not known")
            return self.op("map.at", here, key, type=here.type.item)
        raise self.refused(f"an item of a {whole.type} is not lifted")

    def in_table(self, table: Mapping[Any, Any], at: Sym, default: Sym | None) -> Sym:
        """A look-up in a constant mapping."""
        if len(table) > 200:
            raise self.refused(f"the mapping has {len(table)} entries; at most 200 are lifted")
        found = default
        rest = self.build.true
        for key, value in reversed(list(table.items())):
            here = self.equal(at, Known(key))
            rest = self.and_(self.not_(here), rest)
            found = Known(value) if found is None else self.merge(here, Known(value), found)
        if default is None and not (rest.fixed and not rest.value):
            undo = self.assuming(rest, True)
            self.raises("the key is not in the mapping")
            undo()
        if found is None:
            raise self.refused("the mapping is empty")
        return found

    def _slice(self, of: Sym, part: ast.Slice, scope: Scope) -> Sym:
        bounds = [None if b is None else self.ev(b, scope) for b in (part.lower, part.upper, part.step)]
        numbers = [b.value if isinstance(b, Known) else b for b in bounds]
        if isinstance(of, Known) and all(b is None or isinstance(b, Known) for b in bounds):
            return self._constant(lambda: of.value[slice(*numbers)])
        text = self.need(self.node(of))
        low, high, step = numbers
        plain = all(n is None or (type(n) is int and 0 <= n < 10_000) for n in numbers[:2])
        if text.type.name != "str" or step is not None or not plain:
            raise self.refused("only a slice of text with fixed ends from 0 on is lifted")
        if high is not None:
            text = self.op("str.head", text, type=STR, value=high)
        return self.op("str.tail", text, type=STR, value=low) if low else text

    def _ev_DictComp(self, node: ast.DictComp, scope: Scope) -> Sym:
        """`{k: v for k, v in m.items() if k != x}`: the mapping without a key."""
        (comp,) = node.generators if len(node.generators) == 1 else (None,)
        if comp is not None and isinstance(comp.target, ast.Tuple) and len(comp.ifs) == 1 and not comp.is_async:
            names = [t.id for t in comp.target.elts if isinstance(t, ast.Name)]
            source = self.ev(comp.iter, scope)
            test = comp.ifs[0]
            if (
                isinstance(source, Items) and source.what == "items" and len(names) == 2
                and isinstance(node.key, ast.Name) and isinstance(node.value, ast.Name) and [node.key.id, node.value.id] == names
                and isinstance(test, ast.Compare) and len(test.ops) == 1 and isinstance(test.ops[0], ast.NotEq)
                and isinstance(test.left, ast.Name) and test.left.id == names[0]
                and not any(isinstance(n, ast.Name) and n.id in names for n in ast.walk(test.comparators[0]))
            ):  # fmt: skip
                key = self.need(self.node(self.ev(test.comparators[0], scope)))
                return self.op("map.drop", source.of, key, type=source.of.type)
        raise self.refused(
            "only a dict comprehension that leaves one key out is lifted", "{k: v for k, v in m.items() if k != x}"
        )

    def _ev_GeneratorExp(self, node: ast.GeneratorExp | ast.ListComp | ast.SetComp, scope: Scope) -> Sym:
        (comp,) = node.generators if len(node.generators) == 1 else (None,)
        if comp is None or comp.is_async or not isinstance(comp.target, ast.Name):
            raise self.refused("a comprehension over more than one thing is not lifted")
        of = self.ev(comp.iter, scope)
        if isinstance(of, Items):
            if of.what != "values" or of.of.type.item is None:
                raise self.refused(f"going through .{of.what}() is not lifted")
            source, item = self.build.node("map.values", (of.of,), Type("list", cls=tuple, item=of.of.type.item)), of.of.type.item
        else:
            source = self.need(self.node(of))
            if source.type.name not in ("list", "set") or source.type.item is None:
                raise self.refused(f"going through a {source.type} is not lifted")
            if source.type.name == "set" and not isinstance(node, (ast.GeneratorExp, ast.SetComp)):
                raise self.refused("the order of a set is not fixed")
            item = source.type.item
        var = self.build.node("var", (), item, f"v{len(scope.names)}_{self.line}", self.line)
        inner = Scope({**scope.names, comp.target.id: var}, scope.function, scope.file, scope.offset, scope.owner, scope.depth)
        before, effects = self.path, self.effects
        self.effects = []
        condition = self.build.true
        for test in comp.ifs:
            condition = self.and_(condition, self.test(test, inner))
        elt = self.node(self.ev(node.elt, inner))
        within, self.effects, self.path = self.effects, effects, before
        if any(effect.node is None for effect in within):
            raise self.refused("what may raise inside a comprehension is not lifted")
        kind = "set" if isinstance(node, ast.SetComp) else "list"
        return Each(source, var, elt, None if condition.fixed and condition.value else condition, kind)

    _ev_ListComp = _ev_GeneratorExp
    _ev_SetComp = _ev_GeneratorExp

    def each(self, of: Each, kind: str, type: Type) -> Node:
        """The node of a comprehension under a function: sum, any, all, len, tuple, …"""
        args = (of.source, of.var, of.elt, *(() if of.cond is None else (of.cond,)))
        guarded = of.elt.guarded or (of.cond is not None and of.cond.guarded) or kind == "dsum"
        made = self.build.node("each", args, type, kind, self.line, guarded=guarded)
        if guarded:
            self.evaluated(made)
        return made

    # -- calls

    def _ev_Call(self, node: ast.Call, scope: Scope) -> Sym:
        if isinstance(node.func, ast.Name) and node.func.id == "super" and not node.args:
            owner, me = scope.owner, next(iter(scope.names.values()))
            if owner is None or not isinstance(me, Rec):
                raise self.refused("super() is not lifted here")
            return Super(me, owner)
        function = self.ev(node.func, scope)
        if any(isinstance(a, ast.Starred) for a in node.args):
            raise self.refused("a call with * is not lifted")
        arguments = [self.ev(a, scope) for a in node.args]
        keywords: dict[str, Sym] = {}
        for keyword in node.keywords:
            if keyword.arg is None:
                raise self.refused("a call with ** is not lifted", "name the fields")
            keywords[keyword.arg] = self.ev(keyword.value, scope)
        self.line = scope.offset + node.lineno
        if isinstance(function, Bound):
            bound = [] if function.bound is None else [function.bound]
            return self._inlined(function.function, [*bound, *arguments], keywords, function.owner, scope)
        if isinstance(function, Method):
            return self.method(function, arguments, keywords, scope)
        if isinstance(function, Known):
            return self.function(function.value, arguments, keywords, scope)
        raise self.refused("this call is not lifted")

    def _inlined(
        self, function: Any, arguments: list[Sym], keywords: dict[str, Sym], owner: type[Any] | None, scope: Scope
    ) -> Sym:
        line, depth = self.line, scope.depth + 1
        found = self.call(function, arguments, keywords, owner, depth)
        self.line = line
        return found

    def function(self, function: Any, arguments: list[Sym], keywords: dict[str, Sym], scope: Scope) -> Sym:
        """A call of something that is known by name."""
        every = [*arguments, *keywords.values()]
        if function is dataclasses.replace and arguments:
            return self.replaced(arguments[0], keywords)
        if any(function is f for f in _PURE) and all(isinstance(a, Known) for a in every):
            given = [a.value for a in arguments if isinstance(a, Known)]
            return self._constant(lambda: function(*given, **{k: v.value for k, v in keywords.items() if isinstance(v, Known)}))
        if isinstance(function, type) and (
            dataclasses.is_dataclass(function) or (issubclass(function, tuple) and hasattr(function, "_fields"))
        ):
            return self.made(function, arguments, keywords)
        if isinstance(function, types.FunctionType) and not any(function is f for f in _PURE):
            return self._inlined(function, arguments, keywords, None, scope)
        name = getattr(function, "__name__", repr(function))
        handler = getattr(self, f"_call_{name}", None)
        if handler is not None and getattr(builtins, name, None) is function and not keywords:
            found: Sym = handler(arguments)
            return found
        if function is Decimal and len(arguments) == 1:
            node = self.need(self.node(arguments[0]))
            if node.type.name in ("int", "dec"):
                return self.op_int_dec(node)
        if function is dt.timedelta and not arguments:
            return self._timedelta(keywords)
        if isinstance(function, type) and issubclass(function, enum.Enum) and len(arguments) == 1:
            return self._member_of(function, self.node(arguments[0]))
        raise self.refused(f"a call of {name} is not lifted", "a helper of your own in plain Python is")

    def _member_of(self, cls: type[enum.Enum], value: Node) -> Node:
        """`Kind("wood")`."""
        value = self.need(value)
        known = self.build.false
        for member in cls:
            known = self.or_(known, self.equal(value, Known(member.value)))
        undo = self.assuming(known, False)
        self.raises(f"it is no {cls.__name__}")
        undo()
        from eventlab.replay.lift.making import replace_type

        return replace_type(self.build, value, Type("enum", cls=cls))

    def _timedelta(self, keywords: dict[str, Sym]) -> Node:
        from eventlab.replay.lift.types import DUR

        whole: Node | None = None
        for name, value in keywords.items():
            unit = dt.timedelta(**{name: 1})
            part = self.binary("*", self.const(unit, DUR), self.node(value))
            whole = part if whole is None else self.binary("+", whole, part)
        if whole is None:
            raise self.refused("timedelta() is not lifted")
        return whole

    def replaced(self, of: Sym, changed: dict[str, Sym]) -> Sym:
        """`dataclasses.replace`."""
        if isinstance(of, Known):
            of = self.record(of)
        if not isinstance(of, Rec):
            raise self.refused("replace() of something that is no dataclass")
        if of.present is not None:
            undo = self.assuming(self.decide(of.present), False)
            self.raises("it may be None here")
            undo()
        plain_dataclass(of.cls)
        for name in changed:
            if name not in of.parts:
                raise self.refused(f"{of.cls.__name__} has no field {name}")
        return of.with_parts(changed)

    def made(self, cls: type[Any], arguments: list[Sym], keywords: dict[str, Sym]) -> Rec:
        """An instance of a dataclass or a named tuple."""
        plain_dataclass(cls)
        if dataclasses.is_dataclass(cls):
            names = [f.name for f in dataclasses.fields(cls)]
            defaults = {f.name: f for f in dataclasses.fields(cls)}
        else:
            names, defaults = list(cls._fields), {}
            if (
                "__new__" in vars(cls)
                and getattr(vars(cls)["__new__"], "__code__", None) is not None
                and "namedtuple" not in vars(cls)["__new__"].__code__.co_filename
            ):
                raise self.refused(f"{cls.__name__} defines __new__")
        parts: dict[str, Sym] = dict(zip(names, arguments, strict=False))
        parts.update(keywords)
        for name in names:
            if name not in parts:
                parts[name] = self._default(cls, name, defaults)
        if set(parts) != set(names) or len(arguments) > len(names):
            raise self.refused(f"{cls.__name__} is made with other fields than it has")
        return Rec(cls, {name: parts[name] for name in names})

    def _default(self, cls: type[Any], name: str, fields: Mapping[str, Any]) -> Sym:
        if not fields:
            if name in cls._field_defaults:
                return Known(cls._field_defaults[name])
        elif fields[name].default is not dataclasses.MISSING:
            return Known(fields[name].default)
        elif fields[name].default_factory in (dict, list, set, frozenset, tuple):
            return Known(fields[name].default_factory())
        raise self.refused(f"{cls.__name__} is made without {name}")

    def method(self, of: Method, arguments: list[Sym], keywords: dict[str, Sym], scope: Scope) -> Sym:
        """A call of a method of a value."""
        name = of.name
        if isinstance(of.of, Rec) and name == "_replace" and not arguments:
            return Rec(of.of.cls, {**of.of.parts, **keywords})
        if isinstance(of.of, Known):
            value = of.of.value
            if isinstance(value, Mapping) and name == "get" and arguments and not isinstance(arguments[0], Known):
                return self.in_table(value, arguments[0], arguments[1] if len(arguments) > 1 else Known(None))
            if all(isinstance(a, Known) for a in (*arguments, *keywords.values())) and isinstance(
                value, (str, int, float, Decimal, dt.date, dt.timedelta, tuple, frozenset, dict)
            ):
                return self._constant(lambda: getattr(value, name)(*(a.value for a in arguments if isinstance(a, Known))))
        me = self.node(of.of) if not isinstance(of.of, (Items, Each, MetaSym)) else None
        if me is None:
            raise self.refused(f".{name}() is not lifted here")
        kind = me.type.name
        handler = getattr(self, f"_{kind}_{name}", None)
        if handler is None and kind in ("ts", "wall", "date", "dec", "str", "map", "set", "list", "dur"):
            handler = getattr(self, f"_{'ts' if kind == 'wall' else kind}_{name}", None)
        if handler is None:
            raise self.refused(f"{me.type}.{name}() is not lifted")
        found: Sym = handler(self.need(me), arguments, keywords)
        return found

    # methods of text

    def _plain_text(self, op: str, me: Node, arguments: list[Sym]) -> Node:
        if arguments:
            raise self.refused(f".{op}() with arguments is not lifted")
        return self.op(f"str.{op}", me, type=STR)

    def _str_upper(self, me: Node, a: list[Sym], k: dict[str, Sym]) -> Node:
        return self._plain_text("upper", me, a)

    def _str_lower(self, me: Node, a: list[Sym], k: dict[str, Sym]) -> Node:
        return self._plain_text("lower", me, a)

    def _str_strip(self, me: Node, a: list[Sym], k: dict[str, Sym]) -> Node:
        return self._plain_text("strip", me, a)

    def _str_lstrip(self, me: Node, a: list[Sym], k: dict[str, Sym]) -> Node:
        return self._plain_text("lstrip", me, a)

    def _str_rstrip(self, me: Node, a: list[Sym], k: dict[str, Sym]) -> Node:
        return self._plain_text("rstrip", me, a)

    def _str_startswith(self, me: Node, a: list[Sym], k: dict[str, Sym]) -> Node:
        return self._affix("str.startswith", me, a)

    def _str_endswith(self, me: Node, a: list[Sym], k: dict[str, Sym]) -> Node:
        return self._affix("str.endswith", me, a)

    def _affix(self, op: str, me: Node, a: list[Sym]) -> Node:
        if len(a) != 1:
            raise self.refused("with a start or an end it is not lifted")
        if isinstance(a[0], Known) and isinstance(a[0].value, tuple):
            found = self.build.false
            for option in a[0].value:
                found = self.or_(found, self.op(op, me, self.const(option), type=BOOL))
            return found
        other = self.need(self.node(a[0]))
        if other.type.name != "str":
            raise self.refused(f"{op} of a {other.type}")
        return self.op(op, me, other, type=BOOL)

    # methods of decimals, moments, days, durations

    def _dec_quantize(self, me: Node, a: list[Sym], k: dict[str, Sym]) -> Node:
        step = a[0] if a else None
        mode = k.get("rounding", a[1] if len(a) > 1 else Known("ROUND_HALF_EVEN"))
        if (
            not isinstance(step, Known)
            or not isinstance(step.value, Decimal)
            or not isinstance(mode, Known)
            or set(k) - {"rounding"}
        ):
            raise self.refused("quantize() takes a constant step and rounding here")
        exponent = step.value.as_tuple().exponent
        if not isinstance(exponent, int) or exponent > 0:
            raise self.refused("quantize() to tens and more is not lifted")
        return self.quantized(me, -exponent, mode.value)

    def _ts_date(self, me: Node, a: list[Sym], k: dict[str, Sym]) -> Node:
        return self.op("ts.date", me, type=DATE)

    def _ts_weekday(self, me: Node, a: list[Sym], k: dict[str, Sym]) -> Node:
        return self.op("date.weekday", self.op("ts.date", me, type=DATE), type=INT)

    def _date_weekday(self, me: Node, a: list[Sym], k: dict[str, Sym]) -> Node:
        return self.op("date.weekday", me, type=INT)

    def _ts_isoweekday(self, me: Node, a: list[Sym], k: dict[str, Sym]) -> Node:
        return self.binary("+", self._ts_weekday(me, a, k), self.const(1))

    def _date_isoformat(self, me: Node, a: list[Sym], k: dict[str, Sym]) -> Node:
        return self.op("date.str", me, type=STR)

    def _ts_strftime(self, me: Node, a: list[Sym], k: dict[str, Sym]) -> Node:
        return self._date_strftime(self.op("ts.date", me, type=DATE), a, k)

    def _date_strftime(self, me: Node, a: list[Sym], k: dict[str, Sym]) -> Node:
        if not a or not isinstance(a[0], Known) or a[0].value not in ("%Y", "%Y-%m", "%Y-%m-%d"):
            raise self.refused("strftime is lifted for '%Y', '%Y-%m' and '%Y-%m-%d'")
        return self.op("date.strftime", me, type=STR, value=a[0].value)

    def _date_replace(self, me: Node, a: list[Sym], k: dict[str, Sym]) -> Node:
        if not a and set(k) == {"day"} and isinstance(k["day"], Known) and k["day"].value == 1:
            return self.op("date.month_start", me, type=DATE)
        raise self.refused("date.replace is lifted for day=1")

    def _ts_astimezone(self, me: Node, a: list[Sym], k: dict[str, Sym]) -> Node:
        zone = a[0].value if len(a) == 1 and isinstance(a[0], Known) else None
        if zone is dt.UTC:
            return me
        name = zone_of(zone)
        if name is None or me.type.name != "ts":
            raise self.refused("astimezone takes a ZoneInfo constant here")
        return self.op("ts.wall", me, type=WALL, value=name)

    def _ts_replace(self, me: Node, a: list[Sym], k: dict[str, Sym]) -> Node:
        unit = _FLOORS.get(frozenset(k))
        if a or unit is None or me.type.name != "ts" or not all(isinstance(v, Known) and v.value == 0 for v in k.values()):
            raise self.refused("datetime.replace is lifted where the last parts, up to the microsecond, are set to 0")
        return self.op("ts.floor", me, type=me.type, value=unit)

    def _ts_isocalendar(self, me: Node, a: list[Sym], k: dict[str, Sym]) -> Rec:
        return self._date_isocalendar(self.op("ts.date", me, type=DATE), a, k)

    def _date_isocalendar(self, me: Node, a: list[Sym], k: dict[str, Sym]) -> Rec:
        weekday = self.binary("+", self.op("date.weekday", me, type=INT), self.const(1))
        parts = {"year": self.op("date.iso_year", me, type=INT), "week": self.op("date.iso_week", me, type=INT)}
        return Rec(IsoDay, {**parts, "weekday": weekday})

    def _dur_total_seconds(self, me: Node, a: list[Sym], k: dict[str, Sym]) -> Node:
        return self.op("dur.seconds", me, type=FLOAT)

    # methods of collections

    def _map_get(self, me: Node, a: list[Sym], k: dict[str, Sym]) -> Node:
        default = self.node(a[1]) if len(a) > 1 else self.build.const(None, NONE)
        item = default.type if me.type.item is None else self._join(me.type.item, default.type)
        key = self.need(self.node(a[0]))
        return self.op("map.get", self.fit(me, Type("map", item=me.type.item)), key, self.fit(default, item), type=item)

    def _map_items(self, me: Node, a: list[Sym], k: dict[str, Sym]) -> Items:
        return Items(me, "items")

    def _map_keys(self, me: Node, a: list[Sym], k: dict[str, Sym]) -> Items:
        return Items(me, "keys")

    def _map_values(self, me: Node, a: list[Sym], k: dict[str, Sym]) -> Items:
        return Items(me, "values")

    def _set_union(self, me: Node, a: list[Sym], k: dict[str, Sym]) -> Node:
        return self.binary("|", me, self._set_like(a))

    def _set_difference(self, me: Node, a: list[Sym], k: dict[str, Sym]) -> Node:
        return self.binary("-", me, self._set_like(a))

    def _set_like(self, a: list[Sym]) -> Node:
        if len(a) == 1 and isinstance(a[0], Seq):
            return self.display(Seq(frozenset, a[0].items))
        if len(a) == 1 and isinstance(a[0], Node) and a[0].type.name == "set":
            return a[0]
        raise self.refused("only of one set, or of items written out")

    # built-in functions

    def _call_max(self, a: list[Sym], name: str = "max") -> Node:
        if len(a) < 2:
            raise self.refused(f"{name}() of a collection is not lifted", f"{name}(a, b) is")
        found = self.need(self.node(a[0]))
        for other in a[1:]:
            x, y = self._alike(found, self.need(self.node(other)))
            if x.type.name != y.type.name or x.type.name not in ("int", "dec", "float", "str", "ts", "date", "time", "dur"):
                raise self.refused(f"{name}() of {x.type} and {y.type} is not lifted")
            prefix = {"float": "f", "str": "str."}.get(x.type.name, "")
            found = self.op(f"{prefix}{name}", x, y, type=x.type)
        return found

    def _call_min(self, a: list[Sym]) -> Node:
        return self._call_max(a, "min")

    def _call_abs(self, a: list[Sym]) -> Node:
        return self.absolute(self.node(a[0]))

    def _call_len(self, a: list[Sym]) -> Node:
        value = a[0]
        if isinstance(value, Seq):
            return self.const(len(value.items))
        if isinstance(value, Items):
            value = value.of
        me = self.need(self.node(value))
        if me.type.name == "str":
            return self.op("str.len", me, type=INT)
        if me.type.name in ("list", "set", "map"):
            return self.op("list.len", me, type=INT)
        raise self.refused(f"len() of a {me.type} is not lifted")

    def _call_bool(self, a: list[Sym]) -> Node:
        return self.truth(a[0])

    def _call_str(self, a: list[Sym]) -> Node:
        return self.text(a[0])

    def _call_int(self, a: list[Sym]) -> Node:
        me = self.whole(self.need(self.node(a[0])))
        if me.type.name == "int":
            return me
        if me.type.name == "dec":
            return self.op("dec.int", me, type=INT, value=10**me.type.scale)
        raise self.refused(f"int() of a {me.type} is not lifted")

    def _call_float(self, a: list[Sym]) -> Node:
        me = self.whole(self.need(self.node(a[0])))
        if me.type.name == "dec":
            return self.op("dec.float", me, type=FLOAT, value=10**me.type.scale)
        if me.type.name in ("int", "float"):
            return self.to_float(me)
        raise self.refused(f"float() of a {me.type} is not lifted")

    def _call_round(self, a: list[Sym]) -> Node:
        places = a[1].value if len(a) > 1 and isinstance(a[1], Known) else None
        return self.round(self.node(a[0]), places)

    def _call_isinstance(self, a: list[Sym]) -> Node:
        if len(a) == 2 and isinstance(a[1], Known):
            return self.isinstance(a[0], a[1].value)
        if len(a) == 2 and isinstance(a[1], Seq):
            return self.isinstance(a[0], tuple(i.value for i in a[1].items if isinstance(i, Known)))
        raise self.refused("isinstance() takes a class here")

    def _call_type(self, a: list[Sym]) -> Known:
        if len(a) == 1 and isinstance(a[0], Rec) and a[0].present is None:
            return Known(a[0].cls)
        raise self.refused("type() of this is not known")

    def _collected(self, a: list[Sym], cls: type[Any]) -> Sym:
        if not a:
            return Known(cls())
        if isinstance(a[0], Each):
            item = a[0].elt.type
            kind = Type("set" if cls in (set, frozenset) else "list", cls=cls, item=item)
            if kind.name == "list" and a[0].source.type.name == "set":
                raise self.refused("the order of a set is not fixed")
            return self.each(a[0], kind.name, kind)
        if isinstance(a[0], Seq):
            return Seq(cls, a[0].items)
        return self._as(a[0], cls)

    def _call_tuple(self, a: list[Sym]) -> Sym:
        return self._collected(a, tuple)

    def _call_list(self, a: list[Sym]) -> Sym:
        return self._collected(a, list)

    def _call_frozenset(self, a: list[Sym]) -> Sym:
        return self._collected(a, frozenset)

    def _call_set(self, a: list[Sym]) -> Sym:
        return self._collected(a, set)

    def _call_dict(self, a: list[Sym]) -> Sym:
        if not a:
            return Known({})
        me = self.node(a[0])
        if me.type.name == "map":
            return me
        raise self.refused("dict() of this is not lifted")

    def _each_of(self, value: Sym) -> Each:
        if isinstance(value, Each):
            return value
        if isinstance(value, Items) and value.what == "values" and value.of.type.item is not None:
            source = self.build.node("map.values", (value.of,), Type("list", cls=tuple, item=value.of.type.item))
        else:
            source = self.need(self.node(value))
        if source.type.name not in ("list", "set") or source.type.item is None:
            raise self.refused(f"going through a {source.type} is not lifted")
        var = self.build.node("var", (), source.type.item, f"w{self.line}", self.line)
        return Each(source, var, var, None, "list")

    def _call_sum(self, a: list[Sym]) -> Node:
        each = self._each_of(a[0])
        kind = each.elt.type
        if len(a) > 1 and not (isinstance(a[1], Known) and a[1].value == 0):
            raise self.refused("sum() with a start is not lifted")
        if kind == BOOL:
            each = Each(each.source, each.var, self.whole(each.elt), each.cond, each.kind)
            kind = INT
        if kind.opt or kind.name not in ("int", "dec"):
            raise self.refused(f"sum() of {kind} is not lifted: Python adds floats in its own way")
        return self.each(each, "sum" if kind.name == "int" else "dsum", kind if kind.name == "int" else dec(kind.scale))

    def _call_any(self, a: list[Sym]) -> Node:
        each = self._each_of(a[0])
        return self.each(Each(each.source, each.var, self.truth(each.elt), each.cond, each.kind), "any", BOOL)

    def _call_all(self, a: list[Sym]) -> Node:
        each = self._each_of(a[0])
        return self.each(Each(each.source, each.var, self.truth(each.elt), each.cond, each.kind), "all", BOOL)


def _evaluated_by(condition: Node) -> list[Node]:
    """The nodes that are surely evaluated when a condition is."""
    found, waiting = [], [condition]
    while waiting:
        node = waiting.pop()
        found.append(node)
        waiting += node.args[:1] if node.op in ("and", "or", "cond", "each") else node.args
    return found


def _retyped(build: Builder, node: Node, cls: type[Any]) -> Node:
    from dataclasses import replace

    kind = replace(node.type, cls=cls)
    if kind == node.type:
        return node
    if node.fixed:
        return build.const(node.value, kind, node.line)
    return build.node("sure", (node,), kind, cls.__name__, node.line)


def _sign(op: ast.operator) -> str:
    found = _BINARY.get(type(op))
    if found is None:
        raise Refused(f"the operator {type(op).__name__} is not lifted")
    return found


def _python(sign: str, a: Any, b: Any) -> Any:
    import operator

    return {
        "+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv, "//": operator.floordiv,
        "%": operator.mod,
        "**": operator.pow, "|": operator.or_, "&": operator.and_, "<": operator.lt, "<=": operator.le, ">": operator.gt,
        ">=": operator.ge,
    }[sign](a, b)  # fmt: skip


def _statement_name(node: ast.AST) -> str:
    name = type(node).__name__
    return {
        "For": "a for loop", "While": "a while loop", "With": "with", "Try": "try", "Global": "global", "Nonlocal": "nonlocal",
        "Expr": "a call for its effect", "NamedExpr": ":=", "Delete": "del", "AugAssign": "an object changed in place",
        "Assign": "an assignment to several targets", "Lambda": "a lambda", "Yield": "yield", "Await": "await",
        "Import": "import",
        "ImportFrom": "import", "FunctionDef": "a function inside",
    }.get(name, f"a {name}")  # fmt: skip
