"""Making nodes: which operation a Python operator is for operands of these types, with constants folded on the way."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import replace
from decimal import ROUND_HALF_EVEN
from typing import Any, Final

from eventlab.replay.lift.ir import Builder, Node
from eventlab.replay.lift.operations import HELPERS, OPERATIONS
from eventlab.replay.lift.source import Refused
from eventlab.replay.lift.types import (
    BOOL,
    DATE,
    DUR,
    FLOAT,
    INT,
    MAX_SCALE,
    STR,
    TS,
    NotLowered,
    Type,
    dec,
    join,
    lower,
    type_of_value,
)
from eventlab.replay.lift.values import Known, Rec, Seq, Sym

Literals = Mapping[Node, bool]
#: The operation of an operator for two operands of these types; what is missing is converted first.
_SAME: Final[Mapping[tuple[str, str, str], tuple[str, Type]]] = {
    ("+", "int", "int"): ("int.add", INT), ("-", "int", "int"): ("int.sub", INT), ("*", "int", "int"): ("int.mul", INT),
    ("//", "int", "int"): ("int.floordiv", INT), ("%", "int", "int"): ("int.mod", INT),
    ("/", "int", "int"): ("int.truediv", FLOAT),
    ("+", "float", "float"): ("float.add", FLOAT), ("-", "float", "float"): ("float.sub", FLOAT),
    ("*", "float", "float"): ("float.mul", FLOAT), ("/", "float", "float"): ("float.div", FLOAT),
    ("+", "str", "str"): ("str.cat", STR), ("-", "ts", "ts"): ("ts.diff", DUR), ("+", "ts", "dur"): ("ts.add", TS),
    ("+", "dur", "ts"): ("ts.add", TS), ("-", "ts", "dur"): ("ts.sub", TS), ("-", "date", "date"): ("date.diff", DUR),
    ("+", "date", "dur"): ("date.add", DATE), ("-", "date", "dur"): ("date.sub", DATE), ("+", "dur", "dur"): ("dur.add", DUR),
    ("-", "dur", "dur"): ("dur.sub", DUR), ("*", "dur", "int"): ("dur.mul", DUR), ("*", "int", "dur"): ("dur.mul", DUR),
    ("//", "dur", "dur"): ("dur.floordiv", INT), ("/", "dur", "dur"): ("dur.truediv", FLOAT),
}  # fmt: skip
_NEGATED: Final = {"int": "int.neg", "dec": "dec.neg", "float": "float.neg", "dur": "dur.neg"}
_ABSOLUTE: Final = {"int": "int.abs", "dec": "dec.abs", "float": "float.abs"}
_FLIPPED: Final = {"<": "lt", "<=": "le", ">": "gt", ">=": "ge"}


class Making:
    """Node making with a context: what is known on this path, and who is told of an operation that may trip."""

    def __init__(self, build: Builder) -> None:
        self.build = build
        self.known: dict[Node, bool] = {}
        self.line = 0

    # -- to be overridden: what has effects

    def evaluated(self, node: Node) -> None:
        """Called when an operation that may trip is evaluated on the path being executed."""

    # -- basics

    def op(self, name: str, *args: Node, type: Type, value: Any = None) -> Node:
        """The node of an operation of the table, folded where its arguments are constants."""
        row = OPERATIONS[name]
        if all(a.fixed for a in args) and name != "sure" and (folded := self._folded(name, args, type, value)) is not None:
            return folded
        made = self.build.node(name, args, type, value, self.line, guarded=row.guarded)
        if row.guarded:
            self.evaluated(made)
        return made

    def _folded(self, name: str, args: tuple[Node, ...], type: Type, value: Any) -> Node | None:
        row = OPERATIONS[name]
        texts = [f"({a.value!r})" for a in args]
        try:
            for guard in row.guards:
                if guard.python and eval(fill(guard.python, texts, value), dict(HELPERS)):
                    return None
            found = eval(fill(row.python, texts, value), dict(HELPERS))
        except Exception:
            return None
        if row.within is not None and not row.within[0] <= found <= row.within[1]:
            return None
        return self.build.const(found, type, self.line)

    def const(self, value: Any, to: Type | None = None) -> Node:
        """A Python constant as a node."""
        try:
            kind = to if to is not None else type_of_value(value)
            return self.build.const(lower(value, kind), kind, self.line)
        except (NotLowered, ArithmeticError, AttributeError, TypeError) as why:
            raise self.refused(str(why)) from None

    def refused(self, why: str, hint: str = "") -> Refused:
        """The refusal of the line being executed."""
        return Refused(why, self.line, "", hint)

    # -- conditions

    def decide(self, node: Node) -> Node:
        """A condition, or the constant that it is on this path."""
        if node in self.known:
            return self.build.true if self.known[node] else self.build.false
        return node

    def not_(self, a: Node) -> Node:
        return a.args[0] if a.op == "not" else self.decide(self.op("not", a, type=BOOL))

    def and_(self, a: Node, b: Node) -> Node:
        if a.fixed:
            return b if a.value else a
        if b.fixed:
            return a if b.value else b
        return a if a is b else self.decide(self.op("and", a, b, type=BOOL))

    def or_(self, a: Node, b: Node) -> Node:
        if a.fixed:
            return a if a.value else b
        if b.fixed:
            return b if b.value else a
        return a if a is b else self.decide(self.op("or", a, b, type=BOOL))

    def isnull(self, a: Node) -> Node:
        if a.type.name == "none":
            return self.build.true
        if not a.type.opt:
            return self.build.false
        if a.fixed:
            return self.build.const(a.value is None, BOOL)
        if a.op == "cond":
            c, x, y = a.args
            return self.choose(c, self.isnull(x), self.isnull(y))
        return self.decide(self.op("isnull", a, type=BOOL))

    def choose(self, c: Node, a: Node, b: Node) -> Node:
        """`a if c else b`."""
        c = self.decide(c)
        if c.fixed:
            return a if c.value else b
        if a is b:
            return a
        if a.type == BOOL and b.type == BOOL:
            if a.fixed:
                return self.or_(c, b) if a.value else self.and_(self.not_(c), b)
            if b.fixed:
                return self.or_(self.not_(c), a) if b.value else self.and_(c, a)
        try:
            kind = join(a.type, b.type)
        except NotLowered as why:
            raise self.refused(str(why)) from None
        if c.op == "not":
            c, a, b = c.args[0], b, a
        return self.build.node("cond", (c, self.fit(a, kind), self.fit(b, kind)), kind, None, self.line)

    def fit(self, a: Node, kind: Type) -> Node:
        """A node as a value of a wider type: decimals to its scale."""
        if a.type.name == "dec" and kind.name == "dec" and a.type.scale != kind.scale:
            return self.rescaled(a, kind.scale)
        if a.type.name in ("none", "list", "set", "map") and a.fixed and a.type != kind:
            return self.build.const(a.value, kind, self.line)
        return a

    def rescaled(self, a: Node, scale: int) -> Node:
        """A decimal with more places, None staying None."""
        if scale > MAX_SCALE:
            raise self.refused("the decimal places grow without bound", "quantize the result")
        step = 10 ** (scale - a.type.scale)
        kind = replace(a.type, scale=scale)
        if a.fixed:
            return self.build.const(None if a.value is None else a.value * step, kind, self.line)
        if a.op == "cond":
            c, x, y = a.args
            return self.choose(c, self.rescaled(x, scale), self.rescaled(y, scale))
        if a.type.name == "none":
            return self.build.const(None, kind, self.line)
        if a.type.opt:
            inner = self.op("dec.rescale", self.sure(a), type=kind.sure(), value=step)
            return self.choose(self.isnull(a), self.build.const(None, kind), inner)
        return self.op("dec.rescale", a, type=kind, value=step)

    def sure(self, a: Node) -> Node:
        """A node that is known not to be None here."""
        if not a.type.opt:
            return a
        if a.fixed:
            return self.build.const(a.value, a.type.sure(), self.line)
        if a.op == "cond":  # an arm that would be None is not taken
            _, x, y = a.args
            nulls = [z.fixed and z.value is None for z in (x, y)]
            if nulls[0] != nulls[1]:
                return self.sure(y if nulls[0] else x)
        return self.op("sure", a, type=a.type.sure())

    def need(self, a: Node) -> Node:
        """A node as a value that is not None; where it may be, a guard."""
        null = self.isnull(a)
        if null.fixed:
            if null.value:
                raise self.refused("it is None here, and Python would raise a TypeError")
            return self.sure(a)
        return self.op("some", a, type=a.type.sure())

    # -- values

    def node(self, value: Sym) -> Node:
        """A value as one node."""
        if isinstance(value, Node):
            return value
        if isinstance(value, Known):
            return self.const(value.value)
        if isinstance(value, Seq):
            return self.display(value)
        if isinstance(value, Rec) and value.present is None:
            parts = {name: self.node(part) for name, part in value.parts.items()}
            kind = Type("rec", cls=value.cls, parts=tuple((n, p.type) for n, p in parts.items()))
            if all(p.fixed for p in parts.values()):
                return self.build.const({n: p.value for n, p in parts.items()}, kind, self.line)
            return self.build.node("rec.of", tuple(parts.values()), kind, tuple(parts), self.line)
        raise self.refused(f"a {type(value).__name__.lower()} cannot be a value here")

    def display(self, value: Seq) -> Node:
        """A tuple, list or set whose items are written out."""
        items = [self.node(item) for item in value.items]
        kind: Type | None = None
        for item in items:
            kind = item.type if kind is None else self._join(kind, item.type)
        name = "set" if value.cls in (set, frozenset) else "list"
        whole = Type(name, cls=value.cls, item=kind)
        fitted = [self.fit(item, kind) for item in items if kind is not None]
        if all(item.fixed for item in fitted):
            made = (item.value for item in fitted)
            return self.build.const(frozenset(made) if name == "set" else tuple(made), whole, self.line)
        return self.build.node(f"{name}.of", tuple(fitted), whole, None, self.line)

    def _join(self, a: Type, b: Type) -> Type:
        try:
            return join(a, b)
        except NotLowered as why:
            raise self.refused(str(why)) from None

    def truth(self, value: Sym) -> Node:
        """`bool(value)`."""
        if isinstance(value, Known):
            return self.build.const(bool(value.value), BOOL)
        if isinstance(value, Seq):
            return self.build.const(bool(value.items), BOOL)
        if isinstance(value, Rec):
            if any(name in vars(c) for c in value.cls.__mro__[:-1] for name in ("__bool__", "__len__")) and not issubclass(
                value.cls, tuple
            ):
                raise self.refused(f"{value.cls.__name__} has a truth of its own")
            return self.build.true if value.present is None else self.decide(value.present)
        if not isinstance(value, Node):
            raise self.refused("its truth is not known")
        if value.type == BOOL:
            return self.decide(value)
        if value.type.name == "none":
            return self.build.false
        if value.fixed:
            return self.build.const(bool(value.value), BOOL)
        if value.op == "cond":
            c, a, b = value.args
            return self.choose(c, self.truth(a), self.truth(b))
        null = self.isnull(value)
        if null.fixed and null.value:
            return self.build.false
        kind, here = value.type.sure(), self.sure(value)
        if kind == BOOL:
            found = here
        elif kind.name in ("int", "dec", "dur"):
            found = self.not_(self.op("same", here, self.build.const(0, kind), type=BOOL))
        elif kind.name == "str":
            found = self.not_(self.op("same", here, self.build.const("", kind), type=BOOL))
        elif kind.name == "float":
            found = self.op("float.truth", here, type=BOOL)
        elif kind.name in ("list", "set"):
            found = self.op("gt", self.op("list.len", here, type=INT), self.build.const(0, INT), type=BOOL)
        elif kind.name in ("ts", "wall", "date", "time", "uuid") or (kind.name == "enum" and kind.cls.__bases__ == (enum.Enum,)):
            if kind.name == "enum" and any("__bool__" in vars(c) for c in kind.cls.__mro__[:-2]):
                raise self.refused(f"{kind.cls.__name__} has a truth of its own")
            found = self.build.true
        else:
            raise self.refused(f"the truth of a {kind} is not lifted")
        return found if null.fixed else self.and_(self.not_(null), self.decide(found))

    # -- operators

    def whole(self, a: Node) -> Node:
        """A bool as the integer it is in arithmetic."""
        return self.op("bool.int", a, type=INT) if a.type == BOOL else a

    def binary(self, sign: str, left: Node, right: Node) -> Node:
        """`left sign right` for plain values."""
        if sign in ("|", "&") and left.type == right.type == BOOL:
            return self.or_(left, right) if sign == "|" else self.and_(left, right)
        a, b = self.whole(self.need(left)), self.whole(self.need(right))
        names = (a.type.name, b.type.name)
        if "dec" in names:
            return self._decimal(sign, a, b)
        if set(names) == {"int", "float"}:
            a, b = (self.to_float(x) for x in (a, b))
            names = ("float", "float")
        if (sign, *names) in _SAME:
            name, kind = _SAME[sign, *names]
            if (sign, names) in (("+", ("dur", "ts")), ("*", ("int", "dur"))):
                a, b = b, a
            return self.op(name, a, b, type=kind)
        if sign == "+" and names == ("list", "list") and (a.type.cls is b.type.cls):
            kind = self._join(a.type, b.type)
            return self.op("list.cat", self.fit(a, kind), self.fit(b, kind), type=kind)
        if sign in ("|", "-") and names == ("set", "set"):
            kind = self._join(a.type, b.type)
            return self.op("set.union" if sign == "|" else "set.diff", self.fit(a, kind), self.fit(b, kind), type=kind)
        if sign == "**" and b.fixed and b.value == 2 and a.type.name == "int":
            return self.op("int.mul", a, a, type=INT)
        raise self.refused(f"{left.type} {sign} {right.type} is not lifted", "see the table of operations")

    def _decimal(self, sign: str, a: Node, b: Node) -> Node:
        a, b = (self.op_int_dec(x) for x in (a, b))
        if a.type.name != "dec" or b.type.name != "dec":
            raise self.refused(f"{a.type} {sign} {b.type} raises in Python, or is not exact")
        if sign in ("+", "-"):
            scale = max(a.type.scale, b.type.scale)
            kind = dec(scale)
            return self.op("dec.add" if sign == "+" else "dec.sub", self.fit(a, kind), self.fit(b, kind), type=kind)
        if sign == "*":
            return self.op("dec.mul", a, b, type=dec(a.type.scale + b.type.scale))
        raise self.refused(f"Decimal {sign} Decimal is not lifted: DuckDB divides in floats", "multiply, and quantize the result")

    def op_int_dec(self, a: Node) -> Node:
        """An integer as a decimal without places."""
        if a.type.name != "int":
            return a
        if a.fixed:
            return self.build.const(a.value, replace(dec(0), opt=a.type.opt), self.line)
        return self.build.node("sure", (a,), replace(dec(0), opt=a.type.opt), "dec", self.line)

    def to_float(self, a: Node) -> Node:
        if a.type.name == "float":
            return a
        if a.fixed:
            return self.const(a.value, FLOAT)
        return self.op("int.float", a, type=FLOAT)

    def negative(self, a: Node) -> Node:
        a = self.whole(self.need(a))
        if a.type.name not in _NEGATED:
            raise self.refused(f"-{a.type} is not lifted")
        return self.op(_NEGATED[a.type.name], a, type=a.type)

    def absolute(self, a: Node) -> Node:
        a = self.whole(self.need(a))
        if a.type.name not in _ABSOLUTE:
            raise self.refused(f"abs() of a {a.type} is not lifted")
        return self.op(_ABSOLUTE[a.type.name], a, type=a.type)

    def order(self, sign: str, left: Node, right: Node) -> Node:
        """`<` and its kin."""
        a, b = self._alike(self.whole(self.need(left)), self.whole(self.need(right)))
        name = _FLIPPED[sign]
        if a.type.name == b.type.name == "float":
            name = f"f{name}"
        elif a.type.name == b.type.name == "str":
            name = f"str.{name}"
        elif a.type.name != b.type.name or a.type.name not in ("int", "dec", "ts", "date", "time", "dur"):
            raise self.refused(f"{left.type} {sign} {right.type} is not lifted")
        return self.decide(self.op(name, a, b, type=BOOL))

    def _alike(self, a: Node, b: Node) -> tuple[Node, Node]:
        """Two operands brought to one type, where that is exact."""
        names = {a.type.name, b.type.name}
        if names == {"int", "dec"}:
            a, b = self.op_int_dec(a), self.op_int_dec(b)
        if a.type.name == b.type.name == "dec":
            scale = max(a.type.scale, b.type.scale)
            return self.fit(a, replace(a.type, scale=scale)), self.fit(b, replace(b.type, scale=scale))
        if names == {"int", "float"} and (a.fixed or b.fixed) and (a if a.fixed else b).type.name == "int":
            return self.to_float(a), self.to_float(b)
        if {"enum", "str"} == names:
            cls = (a if a.type.name == "enum" else b).type.cls
            if issubclass(cls, str) and "__eq__" not in vars(cls):
                a, b = (replace_type(self.build, x, replace(STR, opt=x.type.opt)) for x in (a, b))
        return a, b

    def equal(self, left: Sym, right: Sym) -> Node:
        """`left == right`."""
        if isinstance(left, Known) and isinstance(right, Known):
            return self.build.const(bool(left.value == right.value), BOOL)
        if isinstance(left, Rec) or isinstance(right, Rec):
            return self._equal_records(left, right)
        if isinstance(left, Seq) and isinstance(right, Seq) and left.cls is right.cls:
            if len(left.items) != len(right.items):
                return self.build.false
            found = self.build.true
            for x, y in zip(left.items, right.items, strict=True):
                found = self.and_(found, self.equal(x, y))
            return found
        a, b = self.node(left), self.node(right)
        for x, y in ((a, b), (b, a)):
            if x.type.name == "none" or (x.fixed and x.value is None):
                return self.isnull(y)
        a, b = self._alike(self._numeric(a, b), self._numeric(b, a))
        if a.type.name != b.type.name or (a.type.name == "enum" and a.type.cls is not b.type.cls):
            raise self.refused(f"{a.type} == {b.type} is never true, or is not exact")
        if a.type.name in ("map", "json", "exact", "rec") or (a.type.name == "list" and a.type.cls is not b.type.cls):
            raise self.refused(f"{a.type} == {b.type} is not lifted")
        sure = not (a.type.opt or b.type.opt)
        name = "feq" if a.type.name == "float" else "same" if sure else "eq"
        if not sure and all(self.isnull(x).fixed for x in (a, b)):
            a, b, name = self.sure(a), self.sure(b), "feq" if name == "feq" else "same"
        return self.decide(self.op(name, a, b, type=BOOL))

    def _numeric(self, a: Node, b: Node) -> Node:
        return self.whole(a) if a.type.name == "bool" and b.type.name == "int" else a

    def _equal_records(self, left: Sym, right: Sym) -> Node:
        for x, y in ((left, right), (right, left)):
            if isinstance(y, Known) and y.value is None and isinstance(x, Rec):
                return self.build.false if x.present is None else self.not_(self.decide(x.present))
        a, b = (self.record(x) for x in (left, right))
        if a.cls is not b.cls:
            raise self.refused(f"{a.cls.__name__} == {b.cls.__name__} is never true")
        found = self.build.true
        for name, part in a.parts.items():
            found = self.and_(found, self.equal(part, b.parts[name]))
        here = [self.build.true if x.present is None else x.present for x in (a, b)]
        both = self.and_(here[0], here[1])
        neither = self.and_(self.not_(here[0]), self.not_(here[1]))
        return self.or_(neither, self.and_(both, found))

    def record(self, value: Sym) -> Rec:
        """A value as a record by its parts."""
        if isinstance(value, Rec):
            return value
        import dataclasses

        if isinstance(value, Known) and dataclasses.is_dataclass(value.value) and not isinstance(value.value, type):
            parts = {f.name: Known(getattr(value.value, f.name)) for f in dataclasses.fields(value.value)}
            return Rec(type(value.value), parts)
        raise self.refused("it is not a record")

    def merge(self, c: Node, a: Sym, b: Sym) -> Sym:
        """`a if c else b` for values of any sort."""
        if a is b or (isinstance(a, Known) and isinstance(b, Known) and a.value is b.value):
            return a
        if c.fixed:
            return a if c.value else b
        if isinstance(a, Rec) or isinstance(b, Rec):
            return self._merged_records(c, a, b)
        if isinstance(a, Seq) and isinstance(b, Seq) and a.cls is b.cls and len(a.items) == len(b.items):
            return Seq(a.cls, tuple(self.merge(c, x, y) for x, y in zip(a.items, b.items, strict=True)))
        return self.choose(c, self.node(a), self.node(b))

    def _merged_records(self, c: Node, a: Sym, b: Sym) -> Sym:
        none = [isinstance(x, Known) and x.value is None for x in (a, b)]
        if none[0]:
            rest = self.record(b)
            a = Rec(rest.cls, rest.parts, self.build.false)
        if none[1]:
            rest = self.record(a)
            b = Rec(rest.cls, rest.parts, self.build.false)
        x, y = self.record(a), self.record(b)
        if x.cls is not y.cls:
            raise self.refused(f"it may be a {x.cls.__name__} or a {y.cls.__name__}")
        parts = {name: self.merge(c, part, y.parts[name]) for name, part in x.parts.items()}
        if x.present is None and y.present is None:
            return Rec(x.cls, parts)
        here = [self.build.true if r.present is None else r.present for r in (x, y)]
        return Rec(x.cls, parts, self.choose(c, here[0], here[1]))

    def round(self, a: Node, places: int | None) -> Node:
        a = self.need(a)
        if a.type.name == "dec" and places is not None and places >= 0:
            return self.quantized(a, places, ROUND_HALF_EVEN)
        if a.type.name == "int" and (places is None or places >= 0):
            return a
        raise self.refused(f"round() of a {a.type} is not lifted: floats round in another way in SQL")

    def quantized(self, a: Node, places: int, mode: str) -> Node:
        a = self.op_int_dec(self.need(a))
        if a.type.name != "dec":
            raise self.refused(f"{a.type} has no quantize")
        if places >= a.type.scale:
            return self.fit(a, dec(places))
        name = f"dec.quantize.{mode}"
        if name not in OPERATIONS:
            raise self.refused(f"rounding {mode} is not lifted")
        return self.op(name, a, type=dec(places), value=(10 ** (a.type.scale - places),))


def replace_type(build: Builder, node: Node, kind: Type) -> Node:
    """The same lowered value under another type."""
    if node.fixed:
        return build.const(node.value, kind, node.line)
    return build.node("sure", (node,), kind, kind.name, node.line)


def fill(template: str, texts: list[str], value: Any) -> str:
    """A template of the table with its arguments put in."""
    return template.format(*texts, v=_Parameter(value))


class _Parameter:
    """A parameter within a template: `{v}` as it is, `{v!r}` as Python text, `{v!s}` as SQL text, `{v[0]}`."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __getitem__(self, key: Any) -> Any:
        return self.value[key]

    def __str__(self) -> str:
        return "'" + str(self.value).replace("'", "''") + "'"

    def __repr__(self) -> str:
        return repr(self.value)

    def __format__(self, spec: str) -> str:
        return str(self.value)
