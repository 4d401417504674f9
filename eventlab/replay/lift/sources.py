"""Where each leaf of an event comes from in one stored version: a column, a constant, or what the upcasters make of it.

The upcasters are executed symbolically as `evolve` is, over the leaves of the stored version. What they only rename or keep
stays a column with its statistics; what they compute is an expression; what may raise, or may not fit the class of today, is
an effect, so that the row fold decides about every event for which it holds.
"""

from __future__ import annotations

import ast
import dataclasses
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from eventlab.errors import EventlabError
from eventlab.model.events import EventType
from eventlab.model.schema import Schema
from eventlab.model.types import Closed, FieldType, Leaf, Record, limited
from eventlab.model.upcasting import built, chain_of
from eventlab.replay.lift.execute import Effect, Execution, Scope
from eventlab.replay.lift.ir import Builder, Node
from eventlab.replay.lift.making import replace_type
from eventlab.replay.lift.source import Refused
from eventlab.replay.lift.types import DEC_TAG, NotLowered, Slot, by_tag, lower, slots, type_of
from eventlab.replay.lift.values import Fields, Known, Rec, Sym, plain_dataclass


class Abandoned(Exception):
    """The row fold must decide: its error, or its answer."""


class Upcast(Abandoned):
    """An old version is brought to today's by Python, and not by columns: why, and in which line of which file."""

    def __init__(self, why: str, line: int, file: str) -> None:
        super().__init__(why)
        self.line, self.file = line, file


@dataclass(frozen=True)
class Source:
    """Where one leaf of an event comes from in one stored version; with neither column nor node, a default in lowered form."""

    slot: Slot
    column: str | None = None
    default: Any = None
    node: Node | None = None


@dataclass(frozen=True)
class Sources:
    """The source of every leaf of a class in one stored version; what may raise on the way, and the old leaves it reads."""

    leaves: Mapping[str, Source]
    effects: tuple[Effect, ...] = ()
    old: Mapping[str, Slot] = field(default_factory=dict)
    #: Whether upcasters make it: then every leaf is checked as if it were appended, and not only those that are read.
    upcast: bool = False

    def __getitem__(self, leaf: str) -> Source:
        return self.leaves[leaf]


def sources_of(kind: EventType, schema: Schema) -> Sources:
    """The source of each leaf of a class in a stored version, as `EventType.decode` takes it; `Abandoned` where it raises."""
    if kind.upcasters and chain_of(kind, schema):
        return _upcast(kind, schema)
    stored = set(schema.columns)
    found: dict[str, Source] = {}
    for name, of in kind.fields:
        wanted = [leaf.column for leaf in of.leaves(name)]
        own = list(slots(name, of))
        if all(column in stored for column in wanted):
            found |= {slot.path: Source(slot, slot.column) for slot in own}
            continue
        if any(leaf.path == name or leaf.path.startswith(f"{name}.") for leaf in schema.leaves) or not kind.has_default(name):
            raise Abandoned(f"{kind.name}.{name} cannot be read from version {schema.version}")
        try:
            default = _default(kind, name)
            found |= {slot.path: Source(slot, default=_leaf_of(default, name, slot)) for slot in own}
        except (NotLowered, ArithmeticError, AttributeError, TypeError) as why:
            raise Abandoned(f"the default of {kind.name}.{name}: {why}") from None
    return Sources(found)


def _default(kind: EventType, name: str) -> Any:
    factory = next(f for f in dataclasses.fields(kind.cls) if f.name == name).default_factory
    if factory is not dataclasses.MISSING and factory not in (dict, list, set, frozenset, tuple):
        raise NotLowered("it is computed for every event")
    return kind.default(name)


def _leaf_of(value: Any, field: str, slot: Slot) -> Any:
    """The lowered leaf of a field's value; the field may be one within another."""
    for name in slot.path.rstrip("?")[len(field) :].split(".")[1:]:
        value = None if value is None else getattr(value, name)
    return value is not None if slot.path.endswith("?") else lower(value, slot.type)


# -- upcasters -------------------------------------------------------------------------------------------------------------


def _upcast(kind: EventType, schema: Schema) -> Sources:
    """The sources of each leaf by the steps from a stored version to today's; `Upcast` where Python alone can say."""
    run = Steps(Builder())
    last = getattr(chain_of(kind, schema)[-1].function, "__code__", None)
    code_file, code_line = (last.co_filename, last.co_firstlineno) if last is not None else ("", 0)
    try:
        fields: Sym = stored_fields(run.build, schema)
        for step in chain_of(kind, schema):
            assert isinstance(fields, Fields)
            fields = run.call(step.function, [replace(fields, is_old=True, home=None)], {}, None, 0)
            if not isinstance(fields, Fields):
                raise run.refused(f"{step.function.__name__} does not give the same fields each time")
        assert isinstance(fields, Fields)
        run.file, run.line = code_file, code_line
        known = {name for name, _ in kind.fields}
        if strange := sorted(fields.parts.keys() - known):
            raise run.refused(f"{kind.name} has no field {strange[0]!r}")
        found: dict[str, Source] = {}
        for name, of in kind.fields:
            if limited(of):
                raise run.refused(f"{name!r} has limits, which every event is held against")
            if name not in fields.parts and not kind.has_default(name):
                raise run.refused(f"{name!r} is not given, and has no default")
            value = fields.parts[name] if name in fields.parts else Known(_default(kind, name))
            found |= _Put(run, schema).field(name, of, value)
    except (Refused, NotLowered, EventlabError, RecursionError) as why:
        line, file = (why.line, why.file) if isinstance(why, Refused) else (0, "")
        said = f"{kind.name} is upcast from version {schema.version} by Python: {why}"
        raise Upcast(said, line or code_line, file or code_file) from None
    old = {slot.path: slot for slot in map(_slot, schema.leaves) if slot is not None}
    return Sources(found, tuple(run.effects), old, upcast=True)


def _slot(leaf: Leaf) -> Slot | None:
    """A stored leaf as a value that may be None."""
    kind = by_tag(leaf.tag)
    return None if kind is None else Slot(leaf.path, kind.maybe(), FieldType(leaf.tag, leaf.tag, lambda value, path: value))


def stored_fields(build: Builder, schema: Schema) -> Fields:
    """A stored payload as `Old` shows it: plain values by name, nested ones by their parts."""
    whole: dict[str, Any] = {}
    optional: set[str] = set()
    for leaf in schema.leaves:
        *outer, last = leaf.path.split(".")
        at = whole
        for part in outer:
            at = at.setdefault(part, {})
        if leaf.tag == "p":
            optional.add(leaf.path)
            at.setdefault(last, {})
        else:
            slot = _slot(leaf)
            at[last] = None if slot is None else build.node("event", (), slot.type, leaf.path)

    def shown(parts: Mapping[str, Any], path: str) -> Fields:
        found: dict[str, Sym] = {}
        for name, value in parts.items():
            inner = f"{path}.{name}" if path else name
            if isinstance(value, dict):
                # Within what may be None nothing is looked at: it is passed on whole, or Python reads it.
                found[name] = Fields({} if inner in optional else shown(value, inner).parts, stored=inner)
            else:
                found[name] = Fields({}, stored=inner) if value is None else value
        return Fields(found)

    return shown(whole, "")


class Steps(Execution):
    """The execution of upcasters: `{…}` is the fields of a payload, and those that a function made it may change."""

    def _ev_Dict(self, node: ast.Dict, scope: Scope) -> Sym:
        parts: dict[str, Sym] = {}
        for key, value in zip(node.keys, node.values, strict=True):
            if key is None:
                parts |= self._fields(self._peek(value, scope)).parts
                continue
            name = self.ev(key, scope)
            if not isinstance(name, Known) or not isinstance(name.value, str):
                raise self.refused("the name of a field is computed")
            parts[name.value] = _held(self.ev(value, scope))
        return Fields(parts, home=scope)

    def _ev_DictComp(self, node: ast.DictComp, scope: Scope) -> Sym:
        """`{k: v for k, v in old.items() if k != "sku"}`: over names that are known."""
        (comp,) = node.generators if len(node.generators) == 1 else (None,)
        of = _with_items(comp.iter) if comp is not None else None
        source = self._peek(of, scope) if of is not None else None
        if comp is None or not isinstance(source, Fields) or not isinstance(comp.target, ast.Tuple) or comp.is_async:
            raise self.refused("only a comprehension over the fields of a payload is read")
        names = [t.id for t in comp.target.elts if isinstance(t, ast.Name)]
        if len(names) != 2:
            raise self.refused("only a comprehension over names and values is read")
        parts: dict[str, Sym] = {}
        for key, value in self._fields(source).parts.items():
            inner = dataclasses.replace(scope, names={**scope.names, names[0]: Known(key), names[1]: value})
            kept = [self.test(test, inner) for test in comp.ifs]
            if any(not test.fixed for test in kept):
                raise self.refused("which fields there are depends on the event")
            if all(test.value for test in kept):
                name = self.ev(node.key, inner)
                if not isinstance(name, Known) or not isinstance(name.value, str):
                    raise self.refused("the name of a field is computed")
                parts[name.value] = _held(self.ev(node.value, inner))
        return Fields(parts, home=scope)

    def _ev_Name(self, node: ast.Name, scope: Scope) -> Sym:
        found = super()._ev_Name(node, scope)
        if isinstance(found, Fields) and found.home is not None:
            # It has another name, or stands in something, from now on: what is changed would change there too.
            found = scope.names[node.id] = replace(found, home=None)
        return found

    def _ev_Subscript(self, node: ast.Subscript, scope: Scope) -> Sym:
        of = self._peek(node.value, scope)
        if not isinstance(of, Fields):
            return super()._ev_Subscript(node, scope)
        at = self.ev(node.slice, scope)
        if not isinstance(at, Known) or at.value not in self._fields(of).parts:
            raise self.refused(f"it has no {at.value!r}" if isinstance(at, Known) else "the name of a field is computed")
        return self._pinned(of.parts[at.value])

    def _ev_Attribute(self, node: ast.Attribute, scope: Scope) -> Sym:
        of = self._peek(node.value, scope)
        if isinstance(of, Fields) and of.is_old and node.attr in of.parts:
            return self._pinned(of.parts[node.attr])
        return super()._ev_Attribute(node, scope)

    def _ev_Call(self, node: ast.Call, scope: Scope) -> Sym:
        function = node.func
        if isinstance(function, ast.Name) and function.id == "dict" and self.lookup("dict", scope) == Known(dict):
            parts: dict[str, Sym] = {}
            for given in node.args:
                parts |= self._fields(self._peek(given, scope)).parts
            for keyword in node.keywords:
                if keyword.arg is None:
                    parts |= self._fields(self._peek(keyword.value, scope)).parts
                else:
                    parts[keyword.arg] = _held(self.ev(keyword.value, scope))
            return Fields(parts, home=scope)
        if isinstance(function, ast.Attribute) and not node.keywords:
            of = self._peek(function.value, scope)
            if isinstance(of, Fields):
                return self._method_of(of, function, [self.ev(given, scope) for given in node.args], scope)
        return super()._ev_Call(node, scope)

    def _method_of(self, of: Fields, called: ast.Attribute, arguments: list[Sym], scope: Scope) -> Sym:
        name = arguments[0].value if arguments and isinstance(arguments[0], Known) else None
        parts = self._fields(of).parts
        if called.attr == "get" and isinstance(name, str):
            return self._pinned(parts[name]) if name in parts else arguments[1] if len(arguments) > 1 else Known(None)
        if called.attr == "copy" and not arguments and not of.is_old:
            return Fields(parts, home=scope)
        if called.attr == "pop" and isinstance(name, str) and (name in parts or len(arguments) > 1):
            self._change(called.value, {n: value for n, value in parts.items() if n != name}, scope)
            return parts[name] if name in parts else arguments[1]
        raise self.refused(f".{called.attr}() of the fields is not read")

    def assign(self, target: ast.expr, value: Sym, scope: Scope) -> None:
        if isinstance(target, ast.Subscript):
            of, at = self._peek(target.value, scope), self.ev(target.slice, scope)
            if isinstance(of, Fields) and isinstance(at, Known) and isinstance(at.value, str):
                self._change(target.value, {**self._fields(of).parts, at.value: _held(value)}, scope)
                return
        super().assign(target, value, scope)

    def statement(self, statement: ast.stmt, scope: Scope) -> None:
        if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call):
            function = statement.value.func
            if isinstance(function, ast.Attribute) and function.attr == "pop":
                self.ev(statement.value, scope)
                return
        if isinstance(statement, ast.Delete) and all(isinstance(target, ast.Subscript) for target in statement.targets):
            for target in statement.targets:
                assert isinstance(target, ast.Subscript)
                of, at = self._peek(target.value, scope), self.ev(target.slice, scope)
                if not isinstance(of, Fields) or not isinstance(at, Known) or at.value not in of.parts:
                    raise self.refused("del of this is not read")
                self._change(target.value, {n: value for n, value in of.parts.items() if n != at.value}, scope)
            return
        super().statement(statement, scope)

    def within(self, item: Sym, of: Sym) -> Node:
        if isinstance(of, Fields) and isinstance(item, Known):
            return self.const(item.value in self._fields(of).parts)
        return super().within(item, of)

    def identical(self, left: Sym, right: Sym) -> Node:
        for one in (left, right):
            if isinstance(one, Fields):
                self._fields(one)
        return super().identical(left, right)

    def merge(self, c: Node, a: Sym, b: Sym) -> Sym:
        if isinstance(a, Fields) and isinstance(b, Fields) and a is not b and not c.fixed:
            if a.parts.keys() != b.parts.keys() or a.stored or b.stored:
                raise self.refused("which fields there are depends on the event")
            home = a.home if a.home == b.home else None
            return Fields({n: self.merge(c, value, b.parts[n]) for n, value in a.parts.items()}, home=home)
        return super().merge(c, a, b)

    def _peek(self, node: ast.expr, scope: Scope) -> Sym:
        """A value that is only looked into."""
        return self.lookup(node.id, scope) if isinstance(node, ast.Name) else self.ev(node, scope)

    def _fields(self, value: Sym) -> Fields:
        if not isinstance(value, Fields) or (value.stored and not value.parts):
            raise self.refused("it may be None, or its fields are not known")
        return value

    def _change(self, target: ast.expr, parts: dict[str, Sym], scope: Scope) -> None:
        """Change what a name stands for; nothing else may stand for it."""
        found = self.lookup(target.id, scope) if isinstance(target, ast.Name) else None
        if not isinstance(target, ast.Name) or not isinstance(found, Fields) or found.home is not scope:
            raise self.refused("what is changed may be known by another name", "{**old, …} makes a new one")
        scope.names[target.id] = Fields(parts, home=scope)


def _held(value: Sym) -> Sym:
    """A value that stands in another: nobody changes it from now on."""
    return replace(value, home=None) if isinstance(value, Fields) else value


def _with_items(node: ast.expr) -> ast.expr | None:
    """What `.items()` is called of."""
    plain = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "items" and not node.args
    return node.func.value if plain else None  # type: ignore[attr-defined]


_LARGEST: Final = sys.float_info.max


class _Put:
    """What `FieldType.put` makes of a value, leaf by leaf; where it would raise, an effect."""

    def __init__(self, run: Steps, schema: Schema) -> None:
        self.run = run
        self.schema = schema

    def field(self, name: str, of: FieldType, value: Sym) -> dict[str, Source]:
        """The sources of a field's leaves."""
        own = list(slots(name, of))
        stored = ""
        if isinstance(value, Fields):
            stored = value.stored
        elif isinstance(value, Node) and value.op == "event":
            stored = str(value.value)
        if stored:
            wanted = [f"{stored}{leaf.column[len(name) :]}" for leaf in of.leaves(name)]
            if [c for c in self.schema.columns if _lies_in(c, stored)] == wanted:
                if of.tag == "f64" and isinstance(value, Node):
                    self._finite(of, value)
                return {slot.path: Source(slot, f"{stored}{slot.column[len(name) :]}") for slot in own}
        if isinstance(value, Known):
            return self._constant(name, of, value.value, own)
        if isinstance(of, Record):
            return self._record(name, of, value)
        (slot,) = own
        return {slot.path: Source(slot, node=self._scalar(of, value))}

    def _constant(self, name: str, of: FieldType, value: Any, own: list[Slot]) -> dict[str, Source]:
        stored: list[Any] = []
        try:
            of.put(built(of, value), name, stored)
            (back,) = of.decode_columns([[one] for one in stored])
            return {slot.path: Source(slot, default=_leaf_of(back, name, slot)) for slot in own}
        except (ArithmeticError, AttributeError, TypeError) as why:
            raise self.run.refused(f"{name}: {why}") from None

    def _record(self, name: str, of: Record, value: Sym) -> dict[str, Source]:
        plain_dataclass(of.cls)
        if isinstance(value, Rec) and value.cls is of.cls and value.present is None:
            parts = dict(value.parts)
        elif isinstance(value, Fields) and value.parts:
            parts = dict(self.run.made(of.cls, [], dict(value.parts)).parts)
        else:
            raise self.run.refused(f"{name} is not made by its parts")
        found = {f"{name}?": Source(next(iter(slots(name, of))), default=True)} if of.nullable else {}
        for part, kind in of.fields:
            inner = self.field(f"{name}.{part}", kind, parts[part])
            if of.nullable:
                inner = {path: replace(s, slot=replace(s.slot, type=s.slot.type.maybe())) for path, s in inner.items()}
            found |= inner
        return found

    def _scalar(self, of: FieldType, value: Sym) -> Node:
        run, wanted = self.run, type_of(of)
        node = run.node(value)
        if wanted.name == "dec":
            node = run.op_int_dec(node)
        if not of.nullable:
            node = run.need(node)
        if wanted.name in ("list", "set", "map", "rec", "json", "exact"):
            raise run.refused(f"a {wanted} is not made here")
        if isinstance(of, Closed) and node.type.name in ("str", "int"):
            self._among(of, node)
            return replace_type(run.build, node, wanted)
        if node.type.name != wanted.name or (wanted.name == "enum" and node.type.cls is not wanted.cls):
            raise run.refused(f"it is declared {of.declared}, and is given a {node.type}")
        if wanted.name == "dec":
            if node.type.scale > wanted.scale:
                raise run.refused(f"it is declared {of.declared}, and may have {node.type.scale} decimal places", "quantize it")
            node = run.fit(node, replace(node.type, scale=wanted.scale))
            self._digits(of, node)
        elif wanted.name == "float":
            self._finite(of, node)
        return node

    def _among(self, of: Closed, node: Node) -> None:
        self._demand(node, lambda here: self.run.within(here, Known(tuple(of.members))), f"a value that is not in {of.declared}")

    def _finite(self, of: FieldType, node: Node) -> None:
        if not of.declared.startswith("float"):
            return
        run = self.run

        def finite(here: Node) -> Node:
            return run.and_(run.order(">=", here, run.const(-_LARGEST)), run.order("<=", here, run.const(_LARGEST)))

        self._demand(node, finite, "a float that is not finite")

    def _digits(self, of: FieldType, node: Node) -> None:
        matched = DEC_TAG.fullmatch(of.tag)
        assert matched is not None
        run, kind = self.run, node.type.sure()
        least, most = (run.build.const(sign * (10 ** int(matched[1]) - 1), kind) for sign in (-1, 1))

        def few(here: Node) -> Node:
            return run.and_(run.order(">=", here, least), run.order("<=", here, most))

        self._demand(node, few, f"more than {matched[1]} digits")

    def _demand(self, node: Node, holds: Callable[[Node], Node], why: str) -> None:
        """An effect where a value that is there does not fit."""
        run = self.run
        null = run.isnull(node)
        if null.fixed and null.value:
            return
        there = run.assuming(null, False)
        held = holds(run.sure(node))
        if not (held.fixed and held.value):
            undo = run.assuming(held, False)
            run.raises(why)
            undo()
        there()


def _lies_in(column: str, field: str) -> bool:
    path = column.partition(":")[0]
    return path == field or path.startswith(f"{field}.")

