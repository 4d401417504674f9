"""The generated loop: straight-line Python over columns of lowered values, without an event or a state object.

One function a plan. Rows come in position order as the state of their key and the code of their type, with what the fold
reads of the metadata; of a projection, whose key the loop computes, without the state. The values of an event come from an
iterator over those of its type. A state is a list: its fields, version, position and key. What a guard catches, or what
raises, marks its key: the row fold decides about it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from eventlab.replay.lift.analyse import Analysis, EventIR
from eventlab.replay.lift.execute import Effect, Path
from eventlab.replay.lift.ir import LEAVES, Node
from eventlab.replay.lift.making import fill
from eventlab.replay.lift.operations import DEC_LIMIT, HELPERS, OPERATIONS

_PLAIN: Final = (int, str, bool, bytes, type(None))


@dataclass
class Emitter:
    """Python text of expressions; constants that have no text are put among the globals."""

    names: Mapping[tuple[str, str], str]
    given: dict[str, Any] = field(default_factory=dict)
    temporaries: int = 0
    #: Expressions that were computed before, by the local they stand in.
    bound: dict[Node, str] = field(default_factory=dict)

    def text(self, node: Node) -> str:
        """An expression as Python text."""
        if node in self.bound:
            return self.bound[node]
        if node.op == "const":
            return self.constant(node.value)
        if node.op in ("state", "event", "meta", "source"):
            return self.names[node.op, node.value]
        if node.op == "var":
            return str(node.value)
        args = [self.text(arg) for arg in node.args] if node.op != "each" else []
        if node.op == "cond":
            return f"({args[1]} if {args[0]} else {args[2]})"
        if node.op in ("list.of", "set.of"):
            inner = ", ".join(args)
            return f"({inner},)" if node.op == "list.of" else f"frozenset(({inner},))"
        if node.op == "rec.of":
            return "{" + ", ".join(f"{name!r}: {arg}" for name, arg in zip(node.value, args, strict=True)) + "}"
        if node.op == "rec.get":
            return f"{args[0]}[{node.value!r}]"
        if node.op == "map.values":
            return f"{args[0]}.values()"
        if node.op == "each":
            return self._each(node)
        return self._row(node, args)

    def constant(self, value: Any) -> str:
        if type(value) in _PLAIN or (type(value) is float and math.isfinite(value)):
            return (
                f"({value!r})" if isinstance(value, (int, float)) and not isinstance(value, bool) and value < 0 else repr(value)
            )
        if isinstance(value, tuple) and all(type(v) in _PLAIN for v in value):
            return repr(value)
        name = next((n for n, held in self.given.items() if held is value), f"_c{len(self.given)}")
        self.given[name] = value
        return name

    def _row(self, node: Node, args: list[str]) -> str:
        row = OPERATIONS[node.op]
        if node.op == "not" and node.args[0].op in ("isnull", "same", "eq", "feq"):
            inner = [self.text(arg) for arg in node.args[0].args]
            return f"({inner[0]} is not None)" if len(inner) == 1 else f"({inner[0]} != {inner[1]})"
        if node.op == "some":
            name = self._temporary()
            return f"({name} if ({name} := {args[0]}) is not None else trip())"
        conditions = [guard.python for guard in row.guards if guard.python]
        bound = []
        if conditions or any(row.python.count(f"{{{i}}}") > 1 for i in range(len(args))):
            for i, arg in enumerate(args):
                if not arg.isidentifier():
                    name = self._temporary()
                    bound.append(f"{name} := {arg}")
                    args[i] = name
        found = fill(row.python, args, node.value)
        if row.within is not None:
            low, high = row.within
            name = self._temporary()
            return f"({name} if {low} <= ({name} := {found}) <= {high} else trip())"
        if conditions:
            found = f"(trip() if {' or '.join(fill(c, args, node.value) for c in conditions)} else {found})"
        return f"([{', '.join(bound)}] and {found})" if bound else found

    def _each(self, node: Node) -> str:
        source, var, elt, *condition = node.args
        inner = f"{self.text(elt)} for {var.value} in {self.text(source)}"
        if condition:
            inner += f" if {self.text(condition[0])}"
        if node.value == "dsum":
            return f"dsum([{inner}])"
        function = {"list": "tuple", "set": "frozenset"}.get(node.value, node.value)
        return f"{function}({inner})" if function != "tuple" else f"tuple([{inner}])"

    def _temporary(self) -> str:
        self.temporaries += 1
        return f"t{self.temporaries}"


def dsum(values: list[int]) -> int:
    """The sum of scaled decimals, where no partial sum can pass the digits that Python keeps."""
    if sum(map(abs, values)) >= DEC_LIMIT:
        return HELPERS["trip"]()  # type: ignore[no-any-return]
    return sum(values)


@dataclass(frozen=True)
class Loop:
    """A generated loop: its text, what each event code reads, and the compiled function."""

    text: str
    codes: Mapping[str, int]
    #: The codes of the types that change a state.
    working: frozenset[int]
    leaves: Mapping[str, tuple[str, ...]]
    metas: tuple[str, ...]
    #: The leaves of its source's state that a projection's key reads.
    of_source: tuple[str, ...]
    order: tuple[str, ...]
    initial: tuple[Any, ...]
    run: Any


def loop_of(analysis: Analysis, *, every: bool = False) -> Loop:
    """Generate the loop of a model that was understood; with `every`, one that also gives the state after each event."""
    model = analysis.model
    order = tuple(analysis.leaves)
    place = {path: i for i, path in enumerate(order)}
    metas = tuple(dict.fromkeys(m for event in analysis.events.values() for m in event.metas))
    of_source = tuple(dict.fromkeys(leaf for event in analysis.events.values() for leaf in event.of_source))
    given: dict[str, Any] = {**HELPERS, "dsum": dsum}
    size = len(order)
    keyed = model.key is not None
    further = ["states", "bad", "initial", "tenanted"] if keyed else ["bad"]
    head = f"def fold(rows, values, {', '.join([*further, *(['out'] if every else [])])}):"
    unpacked = [
        *([] if keyed else ["s"]), "code", *(["version"] if every and not keyed else []),
        *(["position"] if every or keyed else []), *(f"m_{m}" for m in metas),
        *(f"f{i}" for i in range(len(of_source))), *(["tenant"] if keyed else []),
    ]  # fmt: skip
    lines = [f"    for {', '.join(unpacked)} in rows:"]
    before = ["    get = states.get"] if keyed else []
    body = "        "
    if every and not keyed:
        lines += [f"{body}s[{size}] = version", f"{body}s[{size + 1}] = position"]
    codes: dict[str, int] = {}
    working: set[int] = set()
    for number, (name, event) in enumerate(analysis.events.items(), 1):
        codes[name] = number
        names: dict[tuple[str, str], str] = {("meta", m): f"m_{m}" for m in metas}
        names |= {("source", leaf): f"f{i}" for i, leaf in enumerate(of_source)}
        names |= {("event", leaf): f"e{i}" for i, leaf in enumerate(event.leaves)}
        names |= {("state", path): f"s[{i}]" for path, i in place.items()}
        emitter = Emitter(names, given)
        within: list[str] = []
        columns = [f"e{i}" for i in range(len(event.leaves))]
        if columns:
            within.append(f"{', '.join(columns)} = next_{number}()")
        if keyed:
            within += _key_lines(event, emitter, size, plain=model.key_names == ("_id",))
        work = [*_effects(event, emitter, place), *_updates(event.updates, emitter, place)]
        if work:
            within += ["try:", *(f"    {line}" for line in work), "except Exception:", f"    bad.add(s[{size + 2}])"]
        if every and keyed and not (event.key_present is not None and event.key_present.fixed and not event.key_present.value):
            within.append("out.append(s.copy())")
        if not (work or keyed):
            continue
        working.add(number)
        if columns:
            before.append(f"    next_{number} = values.get({number})")
        lines.append(f"{body}{'elif' if any(' code == ' in line for line in lines) else 'if'} code == {number}:")
        lines += [f"{body}    {line}" for line in within]
    if every and not keyed:
        lines.append(f"{body}out.append(s.copy())")
    elif not working:
        lines.append(f"{body}pass")
    text = "\n".join([head, *before, *lines]) + "\n"
    space: dict[str, Any] = dict(given)
    exec(compile(text, f"<loop of {model.cls.__name__}>", "exec"), space)
    initial = tuple(leaf.initial for leaf in analysis.leaves.values())
    leaves = {name: event.leaves for name, event in analysis.events.items()}
    return Loop(text, codes, frozenset(working), leaves, metas, of_source, order, initial, space["fold"])


def _entered(indent: str, key: str) -> list[str]:
    """Find a key's state, or begin it."""
    return [f"{indent}s = get(key)", f"{indent}if s is None:", f"{indent}    s = states[key] = initial(key)"]


def _key_lines(event: EventIR, emitter: Emitter, size: int, *, plain: bool) -> list[str]:
    """The key of an event of a projection; what it raises ends the loop, for there is no key to mark."""
    lines = []
    for effect in event.key_effects:
        lines += _effect_lines(effect, emitter)
    if event.key_present is not None:
        if event.key_present.fixed and not event.key_present.value:
            return ["continue"]
        lines += [f"if not {emitter.text(event.key_present)}:", "    continue"]
    parts = [emitter.text(part) for part in event.key]
    key = parts[0] if plain else f"({', '.join(parts)},)"
    lines += [f"key = (tenant, {key}) if tenanted else {key}"]
    lines += _entered("", "")
    lines += [f"s[{size}] += 1", f"s[{size + 1}] = position"]
    return lines


def _effects(event: EventIR, emitter: Emitter, place: Mapping[str, int]) -> list[str]:
    """The guards that the updates themselves do not evaluate."""
    covered = _evaluated(event.updates.values())
    lines: list[str] = []
    for effect in event.effects:
        if effect.node is not None:
            path = frozenset(effect.path)
            if any(literals <= path for literals in covered.get(effect.node, ())):
                continue
        lines += _effect_lines(effect, emitter)
    return lines


def _effect_lines(effect: Effect, emitter: Emitter) -> list[str]:
    work = "trip()" if effect.node is None else emitter.text(effect.node)
    condition = _condition(effect.path, emitter)
    return [work] if condition is None else [f"if {condition}:", f"    {work}"]


def _condition(path: Path, emitter: Emitter) -> str | None:
    parts = [emitter.text(c) if truth else f"not {emitter.text(c)}" for c, truth in path]
    return " and ".join(parts) if parts else None


def _evaluated(roots: Iterable[Node]) -> dict[Node, list[frozenset[tuple[Node, bool]]]]:
    """Under which literals each guarded node is evaluated by these expressions."""
    found: dict[Node, list[frozenset[tuple[Node, bool]]]] = {}

    def visit(node: Node, literals: frozenset[tuple[Node, bool]]) -> None:
        if not node.guarded:
            return
        found.setdefault(node, []).append(literals)
        if node.op == "cond":
            c, a, b = node.args
            visit(c, literals)
            visit(a, literals | {(c, True)})
            visit(b, literals | {(c, False)})
        elif node.op in ("and", "or"):
            visit(node.args[0], literals)
            visit(node.args[1], literals | {(node.args[0], node.op == "and")})
        elif node.op != "each":
            for arg in node.args:
                visit(arg, literals)

    for root in roots:
        visit(root, frozenset())
    return found


def _updates(updates: Mapping[str, Node], emitter: Emitter, place: Mapping[str, int]) -> list[str]:
    """The assignments of an event; what is read by another field is read before anything is written."""
    shared: set[str] = set()
    for path, node in updates.items():
        shared |= (node.reads - {path}) | _decisions(node)
    lines = []
    names = dict(emitter.names)
    for path in sorted(shared & set(updates), key=lambda p: place[p]):
        names["state", path] = f"p{place[path]}"
        lines.append(f"p{place[path]} = s[{place[path]}]")
    emitter.names = names
    for node in _shared(updates.values()):
        text = emitter.text(node)
        emitter.bound[node] = f"x{len(emitter.bound)}"
        lines.append(f"{emitter.bound[node]} = {text}")
    return lines + _grouped([(path, node) for path, node in updates.items()], emitter, place)


def _shared(roots: Iterable[Node]) -> list[Node]:
    """Expressions that are evaluated in any case and stand in more than one place, those within others first."""
    uses: dict[Node, int] = {}
    surely: dict[Node, None] = {}

    def visit(node: Node, sure: bool) -> None:
        if node.op in LEAVES:
            return
        uses[node] = uses.get(node, 0) + 1
        if uses[node] > 1 and not (sure and node not in surely):
            return
        lazy = node.op in ("cond", "and", "or")
        if node.op != "each":
            for i, arg in enumerate(node.args):
                visit(arg, sure and (i == 0 or not lazy))
        if sure:
            surely[node] = None

    for root in roots:
        visit(root, True)
    return [node for node in surely if uses[node] > 1 and node.op not in ("sure", "isnull", "not")]


def _decisions(node: Node) -> frozenset[str]:
    """What the conditions read that choose between the values of an expression."""
    if node.op != "cond":
        return frozenset()
    return node.args[0].reads | _decisions(node.args[1]) | _decisions(node.args[2])


def _grouped(updates: Sequence[tuple[str, Node]], emitter: Emitter, place: Mapping[str, int]) -> list[str]:
    lines: list[str] = []
    waiting = list(updates)
    while waiting:
        path, node = waiting.pop(0)
        if node.op == "state" and node.value == path:
            continue
        if node.op != "cond":
            lines.append(f"s[{place[path]}] = {emitter.text(node)}")
            continue
        condition = node.args[0]
        group = [(path, node), *((p, n) for p, n in waiting if n.op == "cond" and n.args[0] is condition)]
        waiting = [(p, n) for p, n in waiting if not (n.op == "cond" and n.args[0] is condition)]
        yes = _grouped([(p, n.args[1]) for p, n in group], emitter, place)
        no = _grouped([(p, n.args[2]) for p, n in group], emitter, place)
        test = emitter.text(condition)
        if yes:
            lines += [f"if {test}:", *("    " + line for line in yes)]
            if no:
                lines += ["else:", *("    " + line for line in no)]
        elif no:
            lines += [f"if not {test}:", *("    " + line for line in no)]
        else:
            lines.append(test) if condition.guarded else None
    return lines
