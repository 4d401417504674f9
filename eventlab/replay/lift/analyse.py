"""Analysis: a model's `evolve` and `key` as one expression per state leaf and event class.

The state's types are found by a fixpoint: a decimal takes the most places that are ever assigned, a field that is set to
None may be None, whatever its annotation says.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from eventlab.model.events import EventType
from eventlab.model.models import Model
from eventlab.model.types import FieldType, Record
from eventlab.replay.lift.execute import Effect, Execution
from eventlab.replay.lift.ir import Builder, Node, walk
from eventlab.replay.lift.source import Refused
from eventlab.replay.lift.types import NotLowered, Slot, Type, join, lower, slots, type_of
from eventlab.replay.lift.values import Known, MetaSym, Rec, Seq, Sym, plain_dataclass

_ROUNDS: Final = 30


@dataclass(frozen=True)
class EventIR:
    """What one event class does: the new value of each state leaf it changes, what may raise, and the row it belongs to."""

    kind: EventType
    updates: Mapping[str, Node]
    effects: tuple[Effect, ...]
    #: The key's columns, the condition under which there is a key (None: always), and what may raise on the way.
    key: tuple[Node, ...] = ()
    key_present: Node | None = None
    key_effects: tuple[Effect, ...] = ()

    def nodes(self) -> Iterable[Node]:
        """Every node that stands in it."""
        seen: set[int] = set()
        roots = [*self.updates.values(), *self.key, *([] if self.key_present is None else [self.key_present])]
        for effect in (*self.effects, *self.key_effects):
            roots += [condition for condition, _ in effect.path]
            roots += [] if effect.node is None else [effect.node]
        for root in roots:
            yield from walk(root, seen)

    @property
    def leaves(self) -> tuple[str, ...]:
        """The event's leaves that are read."""
        return tuple(dict.fromkeys(str(n.value) for n in self.nodes() if n.op == "event"))

    @property
    def of_source(self) -> tuple[str, ...]:
        """The leaves of the source's state that are read."""
        return tuple(dict.fromkeys(str(n.value) for n in self.nodes() if n.op == "source"))

    @property
    def metas(self) -> tuple[str, ...]:
        """The metadata that is read."""
        return tuple(dict.fromkeys(str(n.value) for n in self.nodes() if n.op == "meta"))


@dataclass(frozen=True)
class StateLeaf:
    """One leaf of the state: its type while folding, and its lowered value before the first event."""

    slot: Slot
    field: str
    type: Type
    initial: Any


@dataclass
class Analysis:
    """A model as data, or why it is not."""

    model: Model
    build: Builder
    leaves: dict[str, StateLeaf] = field(default_factory=dict)
    events: dict[str, EventIR] = field(default_factory=dict)
    refusal: Refused | None = None


def analyse(model: Model, kinds: Iterable[EventType]) -> Analysis:
    """Analyse a model for some event classes."""
    build = Builder()
    found = Analysis(model, build)
    listed = list(kinds)
    try:
        plain_dataclass(model.cls)
        slots_of = {slot.path: (name, slot) for name, kind in model.fields for slot in slots(name, kind)}
        types = {path: slot.type for path, (_, slot) in slots_of.items()}
        for _ in range(_ROUNDS):
            wider = dict(types)
            found.events = {}
            for kind in listed:
                _refuse_code_in_making(kind)
                found.events[kind.name] = _event(model, kind, build, types, wider)
            if wider == types:
                break
            types = wider
        else:
            raise Refused("the types of the state do not settle")
        for path, (name, slot) in slots_of.items():
            found.leaves[path] = StateLeaf(slot, name, types[path], _initial(model, path, types[path]))
    except Refused as refused:
        found.refusal = refused
    except NotLowered as why:
        found.refusal = Refused(str(why))
    except RecursionError:
        found.refusal = Refused("the expressions are nested too deeply")
    if found.refusal is not None:
        found.refusal.file = found.refusal.file or model.evolve.__code__.co_filename
        found.refusal.line = found.refusal.line or model.evolve.__code__.co_firstlineno
    return found


def _refuse_code_in_making(kind: EventType) -> None:
    """An event class, or a part of it, whose making runs code: it may raise, or change what was stored."""
    plain_dataclass(kind.cls)
    for _, of in kind.fields:
        _refuse_in(of)


def _refuse_in(kind: FieldType) -> None:
    from eventlab.replay.lift.types import item_of

    if isinstance(kind, Record):
        plain_dataclass(kind.cls)
        for _, of in kind.fields:
            _refuse_in(of)
    item = item_of(kind)
    if item is not None:
        _refuse_in(item)


def _symbol(build: Builder, op: str, name: str, kind: FieldType, types: Mapping[str, Type] | None) -> Sym:
    """A field of the state or an event as a value: a record by its leaves, or one node."""
    if isinstance(kind, Record):
        plain_dataclass(kind.cls)
        parts = {part: _symbol(build, op, f"{name}.{part}", of, types) for part, of in kind.fields}
        present = build.node(op, (), types[f"{name}?"] if types else type_of(_BOOL), f"{name}?") if kind.nullable else None
        return Rec(kind.cls, parts, present)
    declared = type_of(kind)
    if types is not None and types[name].scale != declared.scale:
        declared = replace(declared, scale=types[name].scale)
    if types is not None and types[name].opt and not _within_optional(name, types):
        declared = declared.maybe()
    return build.node(op, (), declared, name)


def _within_optional(path: str, types: Mapping[str, Type]) -> bool:
    """Whether a leaf lies in an optional record: it is None where the record is, and nobody looks at it then."""
    parts = path.split(".")
    return any(".".join(parts[:i]) + "?" in types for i in range(1, len(parts)))


_BOOL: Final = FieldType("b", "bool", lambda value, path: value)


def _event(model: Model, kind: EventType, build: Builder, types: Mapping[str, Type], wider: dict[str, Type]) -> EventIR:
    me = Rec(model.cls, {name: _symbol(build, "state", name, of, types) for name, of in model.fields})
    event = Rec(kind.cls, {name: _symbol(build, "event", name, of, None) for name, of in kind.fields})
    key, present, key_effects = _key(model, build, event)
    run = Execution(build)
    owner = next(c for c in model.cls.__mro__ if vars(c).get("evolve") is model.evolve)
    after: Sym = me
    for part in _parts(model, run, event):
        if not (isinstance(after, Rec) and after.cls is model.cls and after.present is None):
            break
        after = run.call(model.evolve, [after, part, *([MetaSym()] if model.takes_meta else [])], {}, owner, 0)
    updates: dict[str, Node] = {}
    if isinstance(after, Rec) and after.cls is model.cls:
        if after.present is not None:
            undo = run.assuming(after.present, False)
            run.raises("it gives None here")
            undo()
        for name, of in model.fields:
            if after.parts[name] is not me.parts[name]:
                try:
                    _assigned(run, name, of, after.parts[name], me.parts[name], types, wider, updates)
                except Refused as refused:
                    refused.why = f"{model.cls.__name__}.{name}: {refused.why}"
                    raise
    else:
        run.raises("it gives something that is not its state")
    return EventIR(kind, updates, tuple(run.effects), key, present, key_effects)


def _parts(model: Model, run: Execution, event: Rec) -> tuple[Rec, ...]:
    """What is folded in the place of an event; the event alone where nothing is."""
    function = model.instead.get(event.cls)
    if function is None:
        return (event,)
    value = run.call(function, [event], {}, None, 0)
    items = value.items if isinstance(value, Seq) else () if isinstance(value, Known) and value.value in ((), []) else None
    parts = [part for part in items or () if isinstance(part, Rec) and part.present is None and model.takes(part.cls)]
    if items is None or len(parts) != len(items):
        raise Refused(f"{function.__name__} does not give the same events each time", run.line, hint="return a tuple of events")
    return tuple(parts)


def _assigned(
    run: Execution, path: str, kind: FieldType, value: Sym, before: Sym, types: Mapping[str, Type], wider: dict[str, Type],
    updates: dict[str, Node],
) -> None:  # fmt: skip
    """The leaves of a field that is given a new value."""
    if isinstance(kind, Record):
        assert isinstance(before, Rec)
        if isinstance(value, Known) and value.value is None:
            if not kind.nullable:
                raise Refused("it is set to None, and declared to be something", run.line)
            updates[f"{path}?"] = run.build.false
            return
        made = run.record(value)
        if made.cls is not kind.cls:
            raise Refused(f"it is set to a {made.cls.__name__}", run.line)
        if kind.nullable:
            present = run.build.true if made.present is None else made.present
            if present is not before.present:
                updates[f"{path}?"] = present
        elif made.present is not None:
            raise Refused("it may be set to None, and is declared to be something", run.line)
        for part, of in kind.fields:
            if made.parts[part] is not before.parts[part]:
                _assigned(run, f"{path}.{part}", of, made.parts[part], before.parts[part], types, wider, updates)
        return
    node = run.node(value)
    declared = types[path]
    if node.type.name == "int" and declared.name == "dec":
        node = run.op_int_dec(node)
    if node.type.name == "int" and declared.name == "float" and node.fixed:
        node = run.to_float(node)
    if node.op == "cond" and declared.name in ("float", "dec"):
        node = node
    try:
        joined = join(declared, node.type)
    except NotLowered:
        line = node.line or run.line
        raise Refused(f"it is declared {type_of(kind)}, and is set to a {node.type}", line) from None
    null = run.isnull(node)
    if not null.fixed or null.value:
        joined = joined.maybe()
    elif node.type.opt:
        joined = replace(joined, opt=declared.opt)
    if joined.name in ("list", "set", "map"):
        item = declared.item
        if item is not None and joined.item is not None and joined.item != item:
            raise Refused(f"its items are {item}, and {joined.item} is put in", node.line or run.line)
        joined = replace(joined, item=item, cls=declared.cls)
    if joined.scale > declared.scale or (joined.opt and not declared.opt):
        wider[path] = join(wider[path], joined)
    if joined.scale > 20:
        raise Refused("its decimal places grow with every event", node.line or run.line, hint="quantize the result")
    updates[path] = (
        run.fit(node, replace(joined, opt=node.type.opt)) if node.type.name != "none" else run.build.const(None, joined)
    )


def _key(model: Model, build: Builder, event: Rec) -> tuple[tuple[Node, ...], Node | None, tuple[Effect, ...]]:
    if model.key is None:
        return (), None, ()
    run = Execution(build)
    owner = next((c for c in model.cls.__mro__ if isinstance(vars(c).get("key"), staticmethod)), None)
    source, first = model.source, list[Sym]()
    if source is not None:
        plain_dataclass(source.cls)
        first = [Rec(source.cls, {name: _symbol(build, "source", name, of, None) for name, of in source.fields})]
    last = [MetaSym()] if model.key_takes_meta else []
    try:
        found = [
            run.call(model.key, [*first, part, *last] if len(first) < model.key_takes else first, {}, owner, 0)
            for part in (_parts(model, run, event) if len(first) < model.key_takes else (event,))
        ]
        value = found[0] if found else Known(None)
        if len(found) > 1 and not all(_one(value, other) for other in found):
            raise Refused("what stands in its place may belong to several rows", run.line)
        if isinstance(value, Known) and value.value is None:
            return tuple(build.const(None, type_of(of).maybe()) for _, of in model.key_fields), build.false, tuple(run.effects)
        if model.key_names == ("_id",) and not isinstance(value, (Rec, Seq)):
            node = run.node(value)
            if node.type.name != "str":
                raise Refused(f"the key is a {node.type}, not text", run.line)
            null = run.isnull(node)
            present = None if null.fixed else run.not_(null)
            return (run.sure(node),), present, tuple(run.effects)
        if isinstance(value, Seq):
            raise Refused("the key is a plain tuple", run.line, hint="give the named tuple that the annotation says")
        if not isinstance(value, Rec) or not issubclass(value.cls, tuple) or len(value.parts) != len(model.key_fields):
            raise Refused("the key is not what its annotation says", run.line)
        columns = []
        for (name, of), part in zip(model.key_fields, value.parts.values(), strict=True):
            node = run.node(part)
            wanted = type_of(of)
            if node.type.name == "none":
                node = build.const(None, wanted.maybe())
            if node.type.name != wanted.name or node.type.name in ("float", "rec", "map", "json", "exact", "list", "set"):
                raise Refused(f"the key's column {name} is declared {wanted}, and is a {node.type}", run.line)
            columns.append(run.fit(node, replace(node.type, scale=max(wanted.scale, node.type.scale))))
            if columns[-1].type.scale != wanted.scale:
                raise Refused(f"the key's column {name} has more decimal places than its type", run.line)
        return tuple(columns), value.present, tuple(run.effects)
    except Refused as refused:
        refused.why = f"key: {refused.why}"
        raise


def _one(value: Sym, other: Sym) -> bool:
    """Whether two values are the same, as far as can be seen."""
    if isinstance(value, Rec) and isinstance(other, Rec):
        same = value.cls is other.cls and value.present is other.present
        return same and all(_one(value.parts[name], other.parts[name]) for name in value.parts)
    return value is other or (isinstance(value, Known) and isinstance(other, Known) and value.value == other.value)


def _initial(model: Model, path: str, to: Type) -> Any:
    """The lowered value of a leaf before the first event."""
    value: Any = model.initial
    for name in path.rstrip("?").split("."):
        if value is None:
            return None
        value = getattr(value, name)
    return value is not None if path.endswith("?") else lower(value, to)
