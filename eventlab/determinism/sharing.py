"""What a function changes in place of the state and the event it is given, followed through the names that stand for them.

A name is followed from line to line until it is bound anew. `dict(self.lines)` is fresh, and what lies inside is still that of
the state: of everything that is followed it is known how many steps down it is shared. Where paths meet, what is shared on one
of them is shared. A call that is not known is taken to give something fresh: only what is sure to be shared is named.
"""

from __future__ import annotations

import ast
import dataclasses
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from eventlab.model.types import FieldType, Record

#: Methods that change what they are called on.
MUTATES: Final = frozenset(
    "append add update pop remove clear extend setdefault sort discard insert popitem reverse appendleft popleft extendleft "
    "difference_update intersection_update symmetric_difference_update __setitem__ __delitem__ __setattr__ __delattr__ "
    "__ior__ __iadd__".split()
)
#: Functions that change their first argument, in these modules.
_CHANGES: Final = frozenset(
    "setattr delattr setitem delitem iadd iconcat ior iand isub ixor heappush heappop heapify heapreplace heappushpop insort "
    "insort_left insort_right".split()
)
_CHANGING: Final = frozenset({"builtins", "operator", "_operator", "heapq", "_heapq", "bisect", "_bisect"})
#: They give a new container of the same items.
_COPIES: Final = frozenset(
    "dict list set tuple frozenset sorted reversed iter filter copy OrderedDict defaultdict deque Counter chain islice".split()
)
_COPYING: Final = frozenset({"builtins", "collections", "copy", "itertools"})
_AS_DICT: Final = frozenset({"dict", "copy", "OrderedDict", "defaultdict"})
_COPIES_ITSELF: Final = frozenset({"copy", "union", "difference", "intersection", "symmetric_difference"})
#: They give one of the items.
_GIVES: Final = frozenset({"get", "pop", "setdefault", "__getitem__"})
#: Stored as they are, and never changed.
_SCALARS: Final = frozenset({"b", "i64", "f64", "s", "bin", "uuid", "dec", "ts", "d", "t", "td"})


@dataclass(frozen=True)
class Shape:
    """The fields of the state, an event or a command, and its class where it is only one."""

    fields: Mapping[str, FieldType]
    cls: type[Any] | None = None


@dataclass(frozen=True)
class Part:
    """Something that is shared so many steps down: 0 is (part of) the state or event itself, 1 a fresh list of such parts."""

    depth: int
    #: What it was taken from, as it was written.
    origin: str = ""
    #: Its type, where it is known.
    kind: FieldType | Shape | None = None

    @property
    def item(self) -> Part:
        """One that lies inside."""
        inner = self.kind.item if isinstance(self.kind, FieldType) else None
        return Part(max(self.depth - 1, 0), self.origin, inner)

    @property
    def each(self) -> Part | None:
        """One that a loop over it gives: of a dict a key, which is a text."""
        keys = isinstance(self.kind, FieldType) and self.kind.tag.startswith("m_")
        return None if keys else self.item

    @property
    def values(self) -> Part:
        """A new container of what a dict holds."""
        kind = self.kind
        if isinstance(kind, FieldType) and kind.item is not None:
            kind = replace(kind, tag=f"l_{kind.item.tag}", declared="tuple")
        return Part(max(self.depth, 1), self.origin, kind)

    @property
    def copied(self) -> Part:
        """A new container of what lies inside."""
        return replace(self, depth=max(self.depth, 1))

    @property
    def held(self) -> Part:
        """A new container of it."""
        return Part(self.depth + 1, self.origin)


_FRESH: Final = Part(1_000)


@dataclass
class _Known:
    """What is known at one place of the code: of names, and of what was put at a place such as `d[key]`."""

    names: dict[str, Part]
    places: dict[str, tuple[frozenset[str], Part]]

    def copy(self) -> _Known:
        return _Known(dict(self.names), dict(self.places))

    def forget(self, name: str) -> None:
        self.names.pop(name, None)
        self.places = {text: (names, part) for text, (names, part) in self.places.items() if name not in names}

    def put(self, node: ast.expr, part: Part | None) -> None:
        names = frozenset(one.id for one in ast.walk(node) if isinstance(one, ast.Name))
        self.places[ast.unparse(node)] = (names, part or _FRESH)


def _joined(ways: Iterable[_Known]) -> _Known | None:
    """Where paths meet: what is shared on one of them is shared, and a place is known if it is on all of them."""
    found: _Known | None = None
    for way in ways:
        if found is None:
            found = way.copy()
            continue
        for name, part in way.names.items():
            if name not in found.names or part.depth < found.names[name].depth:
                found.names[name] = part
        both = found.places.keys() & way.places.keys()
        found.places = {text: min(found.places[text], way.places[text], key=lambda one: one[1].depth) for text in both}
    return found


def changes(
    body: Sequence[ast.stmt], given: Mapping[str, Part], meant: Callable[[ast.AST], Any]
) -> list[tuple[ast.AST, str]]:
    """Where a function with this body changes what it is given, and what to say of it; `meant` knows what a global names."""
    flow = _Flow(given, meant)
    flow.block(body)
    return list(dict.fromkeys(flow.found))


class _Flow:
    """Follows the statements of a function. `now` is None behind a `return`: nothing comes there."""

    def __init__(self, given: Mapping[str, Part], meant: Callable[[ast.AST], Any]) -> None:
        self.now: _Known | None = _Known(dict(given), {})
        self.meant = meant
        self.found: list[tuple[ast.AST, str]] = []
        #: What is known where the loops that are open are left or begun again early.
        self.leaves: list[list[_Known]] = []

    @property
    def known(self) -> _Known:
        assert self.now is not None
        return self.now

    # -- statements

    def block(self, body: Sequence[ast.stmt]) -> None:
        for statement in body:
            if self.now is None:
                return
            getattr(self, f"_{type(statement).__name__}", self._other)(statement)

    def _other(self, node: ast.stmt) -> None:
        for part in ast.iter_child_nodes(node):
            if isinstance(part, ast.expr):
                self.look(part)

    def _either(self, *ways: Callable[[], None]) -> None:
        before, after = self.known, []
        for way in ways:
            self.now = before.copy()
            way()
            if self.now is not None:
                after.append(self.now)
        self.now = _joined(after)

    def _Return(self, node: ast.Return | ast.Raise) -> None:
        self._other(node)
        self.now = None

    _Raise = _Return

    def _Break(self, node: ast.Break | ast.Continue) -> None:
        if self.leaves:
            self.leaves[-1].append(self.known)
        self.now = None

    _Continue = _Break

    def _Assign(self, node: ast.Assign) -> None:
        self.look(node.value)
        for target in node.targets:
            self.bind(target, node.value, node)

    def _AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.look(node.value)
            self.bind(node.target, node.value, node)

    def _AugAssign(self, node: ast.AugAssign) -> None:
        self.look(node.value)
        if not isinstance(node.target, ast.Name):
            if not self._put(node.target, node):
                self._grow(node, node.target)
            return
        self._grow(node, node.target)

    def _grow(self, node: ast.AugAssign, target: ast.expr) -> None:
        part = self.part(target)
        if part is not None and part.depth == 0 and _in_place(part.kind, node.value):
            self._say(node, f"changes {ast.unparse(target)} in place", part, target)

    def _Delete(self, node: ast.Delete) -> None:
        for target in node.targets:
            if isinstance(target, ast.Name):
                self.known.forget(target.id)
            else:
                self._put(target, node)

    def _If(self, node: ast.If) -> None:
        self.look(node.test)
        self._either(lambda: self.block(node.body), lambda: self.block(node.orelse))

    def _Match(self, node: ast.Match) -> None:
        self.look(node.subject)
        before, after = self.known, [self.known]
        for case in node.cases:
            if isinstance(case.pattern, ast.MatchAs) and case.pattern.pattern is None and case.guard is None:
                after.remove(before)  # `case _:` takes whatever is left
            self.now = before.copy()
            self._pattern(case.pattern, self.part(node.subject), node.subject)
            if case.guard is not None:
                self.look(case.guard)
            self.block(case.body)
            if self.now is not None:
                after.append(self.now)
        self.now = _joined(after)

    def _For(self, node: ast.For) -> None:
        self.look(node.iter)
        self._loop(lambda: self.bind_item(node.target, node.iter), node)

    def _While(self, node: ast.While) -> None:
        self._loop(lambda: self.look(node.test), node)

    def _loop(self, begin: Callable[[], None], node: ast.For | ast.While) -> None:
        # Twice: what the first round leaves behind, the second one finds.
        for _ in range(2):
            before = self.known
            self.leaves.append([])
            self.now = before.copy()
            begin()
            self.block(node.body)
            ways = [before, *self.leaves.pop(), *([] if self.now is None else [self.now])]
            self.now = _joined(ways)
        self.block(node.orelse)

    def _With(self, node: ast.With) -> None:
        for item in node.items:
            self.look(item.context_expr)
            if item.optional_vars is not None:
                self.bind(item.optional_vars, None, node)
        self.block(node.body)

    def _Try(self, node: ast.Try) -> None:
        before = self.known.copy()
        self.block(node.body)
        done = self.now
        self.now = caught = _joined([before, *([] if done is None else [done])])
        after = []
        for handler in node.handlers:
            self.now = None if caught is None else caught.copy()
            if handler.name and self.now is not None:
                self.now.forget(handler.name)
            self.block(handler.body)
            after += [] if self.now is None else [self.now]
        self.now = done
        self.block(node.orelse)
        after += [] if self.now is None else [self.now]
        self.now = _joined(after)
        if node.finalbody:
            ends = self.now is None
            self.now = self.now or before
            self.block(node.finalbody)
            self.now = None if ends else self.now

    _TryStar = _Try

    def _FunctionDef(self, node: ast.FunctionDef) -> None:
        self.known.forget(node.name)
        self._inside(node.args, lambda: self.block(node.body))

    _AsyncFunctionDef = _FunctionDef

    def _ClassDef(self, node: ast.ClassDef) -> None:
        self.known.forget(node.name)

    def _inside(self, arguments: ast.arguments, look: Callable[[], None]) -> None:
        """A function in the function: it sees what is known where it is made, but for the names of its own arguments."""
        before, leaves = self.known, self.leaves
        self.now, self.leaves = before.copy(), []
        for one in ast.walk(arguments):
            if isinstance(one, ast.arg):
                self.known.forget(one.arg)
        look()
        self.now, self.leaves = before, leaves

    # -- names

    def bind(self, target: ast.expr, value: ast.expr | None, node: ast.AST) -> None:
        """A target stands for a value from here on."""
        if isinstance(target, (ast.Tuple, ast.List)) and isinstance(value, (ast.Tuple, ast.List)) and (
            len(target.elts) == len(value.elts) and not any(isinstance(one, ast.Starred) for one in (*target.elts, *value.elts))
        ):  # fmt: skip
            parts = [self.part(one) for one in value.elts]
            for one, part in zip(target.elts, parts, strict=True):
                self._name(one, part, node)
            return
        self._name(target, None if value is None else self.part(value), node)
        if isinstance(target, ast.Name) and value is not None:
            self._remember(target, value)

    def _name(self, target: ast.expr, part: Part | None, node: ast.AST) -> None:
        if isinstance(target, ast.Name):
            self.known.forget(target.id)
            if part is not None:
                self.known.names[target.id] = part
        elif isinstance(target, ast.Starred):
            self._name(target.value, None if part is None else part.copied, node)
        elif isinstance(target, (ast.Tuple, ast.List)):
            for one in target.elts:
                inner = part if isinstance(one, ast.Starred) else part and part.item
                self._name(one, inner, node)
        else:
            self._put(target, node)
            self.known.put(target, part)

    def _remember(self, target: ast.Name, value: ast.expr) -> None:
        """What lies where in something new: `{"lines": []}`, `replace(self, lines=dict(self.lines))`."""
        inside: list[tuple[ast.expr, ast.expr]] = []
        if isinstance(value, ast.Dict):
            inside = [(ast.Subscript(target, key), of) for key, of in zip(value.keys, value.values, strict=True) if key]
        elif isinstance(value, (ast.List, ast.Tuple)) and not any(isinstance(one, ast.Starred) for one in value.elts):
            inside = [(ast.Subscript(target, ast.Constant(at)), of) for at, of in enumerate(value.elts)]
        elif isinstance(value, ast.Call):
            made = self.meant(value.func)
            if made is dataclasses.replace or _is_record(made):
                inside = [(ast.Attribute(target, word.arg), word.value) for word in value.keywords if word.arg]
            if _is_record(made):
                names = [field.name for field in dataclasses.fields(made)]
                inside += [(ast.Attribute(target, name), of) for name, of in zip(names, value.args, strict=False)]
        for place, of in inside:
            if target.id not in {one.id for one in ast.walk(of) if isinstance(one, ast.Name)}:
                self.known.put(place, self.part(of))

    def bind_item(self, target: ast.expr, of: ast.expr) -> None:
        """A target stands for one item after the other."""
        if isinstance(of, ast.Call) and isinstance(target, ast.Tuple):
            called = self.meant(of.func)
            parts: list[Part | None] | None = None
            if _named(called) == ("builtins", "zip") and len(of.args) == len(target.elts):
                parts = [part and part.each for part in map(self.part, of.args)]
            elif _named(called) == ("builtins", "enumerate") and of.args and len(target.elts) == 2:
                self._name(target.elts[0], None, of)
                self._name_item(target.elts[1], of.args[0])
                return
            elif isinstance(of.func, ast.Attribute) and of.func.attr == "items" and len(target.elts) == 2:
                base = self.part(of.func.value)
                parts = [None, base and base.item]
            if parts is not None:
                for one, part in zip(target.elts, parts, strict=True):
                    self._name(one, part, of)
                return
        self._name_item(target, of)

    def _name_item(self, target: ast.expr, of: ast.expr) -> None:
        if isinstance(of, (ast.Tuple, ast.List)):  # written out: some may be shared
            parts = [part.each if isinstance(one, ast.Starred) else part for one in of.elts if (part := self.part(one))]
            self._name(target, min(filter(None, parts), key=lambda one: one.depth, default=None), of)
            return
        part = self.part(of)
        self._name(target, part and part.each, of)

    def _pattern(self, pattern: ast.pattern, part: Part | None, subject: ast.expr | None = None) -> None:
        """The names that a pattern binds."""
        inner = part and part.item
        if isinstance(pattern, ast.MatchAs):
            if pattern.pattern is not None:
                self._pattern(pattern.pattern, part, subject)
            if pattern.name:
                self._name(ast.Name(pattern.name), part, pattern)
        elif isinstance(pattern, ast.MatchStar):
            if pattern.name:
                self._name(ast.Name(pattern.name), part and part.copied, pattern)
        elif isinstance(pattern, ast.MatchOr):
            for one in pattern.patterns:
                self._pattern(one, part, subject)
        elif isinstance(pattern, ast.MatchSequence):
            written = subject.elts if isinstance(subject, (ast.Tuple, ast.List)) else []
            for at, one in enumerate(pattern.patterns):
                if len(written) == len(pattern.patterns):
                    self._pattern(one, self.part(written[at]), written[at])
                else:
                    self._pattern(one, part if isinstance(one, ast.MatchStar) else inner)
        elif isinstance(pattern, ast.MatchMapping):
            for one in pattern.patterns:
                self._pattern(one, inner)
            if pattern.rest:
                self._name(ast.Name(pattern.rest), part and part.copied, pattern)
        elif isinstance(pattern, ast.MatchClass):
            of = self.meant(pattern.cls)
            names = [*getattr(of, "__match_args__", ())][: len(pattern.patterns)]
            fields = _fields_of(of)
            for name, one in zip([*names, *pattern.kwd_attrs], [*pattern.patterns, *pattern.kwd_patterns], strict=False):
                # `case dict(whole)` binds the whole of it
                kind = fields.get(name)
                scalar = kind is not None and kind.tag in _SCALARS
                self._pattern(one, None if scalar or inner is None else replace(inner, kind=kind))
            if not names:
                for one in pattern.patterns:
                    self._pattern(one, part)

    # -- what an expression stands for

    def part(self, node: ast.expr | None) -> Part | None:
        """What an expression shares with what was given; None where it is fresh, or not known."""
        if node is None:
            return None
        if isinstance(node, (ast.Attribute, ast.Subscript)) and self.known.places:
            _, put = self.known.places.get(ast.unparse(node), (None, None))
            if put is not None:
                return None if put is _FRESH else put
        found: Part | None = getattr(self, f"_of_{type(node).__name__}", lambda _: None)(node)
        # A text is never changed, wherever it is from.
        if found is not None and isinstance(found.kind, FieldType) and found.kind.tag in _SCALARS:
            return None
        return found

    def _least(self, nodes: Iterable[ast.expr]) -> Part | None:
        return min((part for part in map(self.part, nodes) if part), key=lambda one: one.depth, default=None)

    def _all(self, nodes: Sequence[ast.expr | None], spread: Sequence[ast.expr]) -> Part | None:
        """A new container: what is spread into it lies inside, and what is put there if all of it is shared."""
        parts = [self.part(node) for node in nodes]
        ways = [part.copied for part in map(self.part, spread) if part]
        known = [part for part in parts if part]
        if known and len(known) == len(parts):
            ways.append(max(known, key=lambda one: one.depth).held)
        return min(ways, key=lambda one: one.depth, default=None)

    def _of_Name(self, node: ast.Name) -> Part | None:
        return self.known.names.get(node.id)

    def _of_Attribute(self, node: ast.Attribute) -> Part | None:
        base = self.part(node.value)
        if base is None:
            return None
        if node.attr == "__dict__":
            return replace(base, kind=None)
        kind = base.kind
        fields = dict(kind.fields) if isinstance(kind, (Record, Shape)) else {}
        origin = ast.unparse(node) if base.depth == 0 else base.origin
        return Part(max(base.depth - 1, 0), origin, fields.get(node.attr))

    def _of_Subscript(self, node: ast.Subscript) -> Part | None:
        base = self.part(node.value)
        return base and (base.copied if isinstance(node.slice, ast.Slice) else base.item)

    def _of_Starred(self, node: ast.Starred) -> Part | None:
        return self.part(node.value)

    def _of_NamedExpr(self, node: ast.NamedExpr) -> Part | None:
        return self.part(node.value)

    def _of_IfExp(self, node: ast.IfExp) -> Part | None:
        return self._least([node.body, node.orelse])

    def _of_BoolOp(self, node: ast.BoolOp) -> Part | None:
        return self._least(node.values)

    def _of_BinOp(self, node: ast.BinOp) -> Part | None:
        part = self._least([node.left, node.right])
        return part and part.copied

    def _of_List(self, node: ast.List | ast.Tuple | ast.Set) -> Part | None:
        spread = [one.value for one in node.elts if isinstance(one, ast.Starred)]
        return self._all([one for one in node.elts if not isinstance(one, ast.Starred)], spread)

    _of_Tuple = _of_Set = _of_List

    def _of_Dict(self, node: ast.Dict) -> Part | None:
        spread = [of for key, of in zip(node.keys, node.values, strict=True) if key is None]
        return self._all([of for key, of in zip(node.keys, node.values, strict=True) if key is not None], spread)

    def _of_ListComp(self, node: ast.ListComp | ast.SetComp | ast.GeneratorExp | ast.DictComp) -> Part | None:
        with _Scope(self):
            for one in node.generators:
                self.bind_item(one.target, one.iter)
            part = self.part(node.value if isinstance(node, ast.DictComp) else node.elt)
            return part and part.held

    _of_SetComp = _of_GeneratorExp = _of_DictComp = _of_ListComp

    def _of_Call(self, node: ast.Call) -> Part | None:
        called = self.meant(node.func)
        if called is None:
            return self._of_method(node, node.func) if isinstance(node.func, ast.Attribute) else None
        module, name = _named(called)
        first = self.part(node.args[0]) if node.args else None
        if module in _COPYING and name in _COPIES:
            taken = node.args[1:] if name in ("defaultdict", "filter") else node.args
            part = self._least([*taken, *(word.value for word in node.keywords if word.arg is None)])
            return part and (part.copied if name in _AS_DICT or part.each is not None else None)
        if (module, name) in (("dataclasses", "replace"), ("copy", "replace")):
            return first and (None if any(word.arg is None for word in node.keywords) else first.copied)
        if module == "typing" and name == "cast":
            return self.part(node.args[1]) if len(node.args) == 2 else None
        if module == "builtins" and name == "vars":
            return first
        if module == "builtins" and name == "super":
            return self.known.names.get("self")
        if module == "builtins" and name in ("min", "max", "next", "getattr"):
            return self._least(node.args) if name in ("min", "max") and len(node.args) > 1 else first and first.item
        if module == "builtins" and name == "enumerate":
            return first and first.copied.held
        return self._all([*node.args, *(word.value for word in node.keywords)], []) if _is_record(called) else None

    def _of_method(self, node: ast.Call, method: ast.Attribute) -> Part | None:
        base = self.part(method.value)
        if base is None or _own_method(base.kind, method.attr):
            return None
        if method.attr in _COPIES_ITSELF:
            return base.copied
        if method.attr == "values":
            return base.values
        if method.attr == "items":
            return base.copied.held
        if method.attr in _GIVES:
            return min([base.item, *filter(None, map(self.part, node.args[1:]))], key=lambda one: one.depth)
        return None

    # -- what is changed

    def look(self, node: ast.expr) -> None:
        """The calls in an expression that change something, and the names it binds, from the inside out."""
        if isinstance(node, ast.Lambda):
            self._inside(node.args, lambda: self.look(node.body))
            return
        if isinstance(node, (ast.ListComp, ast.SetComp, ast.GeneratorExp, ast.DictComp)):
            with _Scope(self):
                for one in node.generators:
                    self.look(one.iter)
                    self.bind_item(one.target, one.iter)
                    for test in one.ifs:
                        self.look(test)
                for part in [node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt]:
                    self.look(part)
            return
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.expr):
                self.look(child)
            elif isinstance(child, ast.keyword):
                self.look(child.value)
        if isinstance(node, ast.NamedExpr):
            self.bind(node.target, node.value, node)
        elif isinstance(node, ast.Call):
            self._call(node)

    def _call(self, node: ast.Call) -> None:
        called = self.meant(node.func)
        if called is None:
            of = node.func.value if isinstance(node.func, ast.Attribute) and node.func.attr in MUTATES else None
            part = self.part(of)
            if of is not None and part is not None and part.depth == 0:
                assert isinstance(node.func, ast.Attribute)
                if not _own_method(part.kind, node.func.attr):
                    self._say(node, f"changes {ast.unparse(of)} in place: .{node.func.attr}()", part, of)
            return
        module, name = _named(called)
        method = isinstance(getattr(called, "__objclass__", None), type) and name in MUTATES  # dict.update(self.lines, …)
        if node.args and (method or (name in _CHANGES and module in _CHANGING)):
            part = self.part(node.args[0])
            if part is not None and part.depth == 0:
                self._say(node, f"changes {ast.unparse(node.args[0])} in place: {ast.unparse(node.func)}()", part, node.args[0])

    def _put(self, target: ast.expr, node: ast.AST) -> bool:
        """Something is put into a target, or taken out of it; whether that is said."""
        if isinstance(target, (ast.Attribute, ast.Subscript)):
            base = self.part(target.value)
            if base is not None and base.depth == 0:
                self._say(node, f"puts something into {ast.unparse(target)}", base, target.value)
                return True
        elif isinstance(target, (ast.Tuple, ast.List)):  # del a, b
            for one in target.elts:
                self._put(one, node)
        return False

    def _say(self, node: ast.AST, said: str, part: Part, of: ast.expr) -> None:
        """With where it comes from, unless it is to be read there."""
        shown = ast.unparse(of)
        other = part.origin and not (shown == part.origin or shown.startswith((f"{part.origin}.", f"{part.origin}[")))
        self.found.append((node, f"{said} ({shown} comes from {part.origin})" if other else said))


class _Scope:
    """Names that are bound in a comprehension are not bound behind it."""

    def __init__(self, flow: _Flow) -> None:
        self.flow = flow

    def __enter__(self) -> None:
        self.before = self.flow.known
        self.flow.now = self.before.copy()

    def __exit__(self, *_: object) -> None:
        self.flow.now = self.before


def _named(called: Any) -> tuple[str, str]:
    """Module and name of a function or class; empty where something answers to any name."""
    module, name = getattr(called, "__module__", ""), getattr(called, "__name__", "")
    return (module, name) if isinstance(module, str) and isinstance(name, str) else ("", "")


def _is_record(called: Any) -> bool:
    return isinstance(called, type) and dataclasses.is_dataclass(called)


def _in_place(kind: FieldType | Shape | None, value: ast.expr) -> bool:
    """Whether `name += value` changes what the name stands for, and does not make something new."""
    if isinstance(kind, FieldType):
        return kind.declared.startswith(("list", "dict", "set"))
    # Of a set it is not known: a frozenset gives a new one.
    return isinstance(value, (ast.List, ast.ListComp, ast.Dict, ast.DictComp))


def _own_method(kind: FieldType | Shape | None, name: str) -> bool:
    """Whether a value has a method of this name that its class was given: `cart.add(line)` may well give a new cart."""
    cls = kind.cls if isinstance(kind, (Record, Shape)) else None
    return isinstance(getattr(cls, name, None), types.FunctionType)


def _fields_of(cls: Any) -> dict[str, FieldType]:
    known = vars(cls).get("__eventlab_type__") or vars(cls).get("__eventlab_model__") if isinstance(cls, type) else None
    return {} if known is None else dict(known.fields)
