"""A fold in two halves: the query gives the fields that lift, the loop those that are cycles and what they read.

The loop's half is a model of its own: it sees only the events that change its fields, or that may raise over them, and reads
only their columns; the keys, versions and positions are the query's. Each guard stands in one half at least, and a key that
either caught is folded anew by the row fold.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from eventlab.replay.lift.analyse import Analysis, EventIR
from eventlab.replay.lift.classify import Classified
from eventlab.replay.lift.execute import Effect
from eventlab.replay.lift.ir import Node, walk
from eventlab.replay.lift.lifted import STREAMED
from eventlab.replay.lift.loop import Loop, loop_of
from eventlab.replay.lift.types import Type

#: Nanoseconds, by order of size: an event in the loop, one of its values by kind, one of its updates; an event and a field in
#: the query, on one core; a key at which the halves meet. Only their ratios count; what the loop takes is put too low, so that
#: halves that are taken pay.
_EVENT, _UPDATE, _QUERIED, _FIELD, _KEY = 420.0, 60.0, 110.0, 15.0, 700.0
_VALUES: Mapping[str, float] = {
    "int": 25, "bool": 25, "float": 25, "ts": 35, "date": 35, "time": 35, "dur": 25, "dec": 60, "str": 55, "enum": 55,
    "bytes": 60, "uuid": 60, "json": 60, "list": 400, "set": 400, "map": 600, "rec": 600,
}  # fmt: skip


@dataclass(frozen=True)
class Halves:
    """What the query gives and what the loop gives, each as an analysis of its own."""

    query: Analysis
    fields: Classified
    looped: Analysis
    #: The fields whose values come from the loop.
    of_loop: frozenset[str]

    @cached_property
    def loop(self) -> Loop:
        """The loop over its half."""
        return loop_of(self.looped)

    @cached_property
    def seen(self) -> tuple[str, ...]:
        """The types of events that the loop has to see."""
        return tuple(name for name, event in self.looped.events.items() if event.updates or event.effects)

    def pays(self, counts: Mapping[str, int], keys: int, whole: Analysis) -> bool:
        """Whether the halves cost less than the loop over everything, by what each event costs in it."""
        both = sum(count * (_QUERIED + _FIELD * len(self.query.leaves)) for count in counts.values()) + keys * _KEY
        both += sum(counts.get(name, 0) * looped_cost(self.looped.events[name], self.looped) for name in self.seen)
        alone = sum(count * looped_cost(whole.events.get(name), whole) for name, count in counts.items())
        return both < alone


def looped_cost(event: EventIR | None, of: Analysis) -> float:
    """Nanoseconds that an event takes in a loop."""
    if event is None:
        return _EVENT
    kinds = {str(n.value): n.type for n in event.nodes() if n.op == "event"}
    read = sum(_value_cost(kinds[leaf]) for leaf in event.leaves)
    return _EVENT + read + _UPDATE * len(event.updates) + 30 * len(event.metas)


def _value_cost(of: Type) -> float:
    return _VALUES.get(of.name, 60)


def halves_of(analysis: Analysis, fields: Classified, refused: Iterable[str]) -> Halves | None:
    """The two halves where some leaves do not lift; None where nothing is left for the query, or a guard belongs to neither."""
    leaves = fields.leaves
    bad = set(refused)
    if any(event.key_effects for event in analysis.events.values()):
        return None  # a key that may raise ends either half
    while True:
        more = {p for p, leaf in leaves.items() if p not in bad and any(not _streams(r, fields, bad) for r in leaf.reads)}
        if not more:
            break
        bad |= more
    held = _closed_over(bad, analysis)
    queried = set(leaves) - held
    while more := {r for p in queried for r in leaves[p].reads} - queried:
        queried |= more
    if not set(leaves) - held or not held:
        return None
    # A field that both would know is the query's own business; what it gives of it is not looked at.
    of_query: dict[str, list[Effect]] = {name: [] for name in analysis.events}
    of_loop: dict[str, list[Effect]] = {name: [] for name in analysis.events}
    for name, event in analysis.events.items():
        in_loop = _nodes(event, held)
        in_query = _nodes(event, queried)
        for effect in event.effects:
            reads = frozenset[str]().union(
                *(c.reads for c, _ in effect.path), *(() if effect.node is None else (effect.node.reads,))
            )
            alone = effect.node is not None and effect.node in in_loop and effect.node not in in_query
            if reads <= held and (reads or alone):
                of_loop[name].append(effect)
            elif all(_streams(r, fields, bad) for r in reads):
                of_query[name].append(effect)
                queried |= _closed_over(reads, analysis)
            else:
                return None
    return Halves(
        _part(analysis, queried, of_query),
        Classified({path: leaf for path, leaf in leaves.items() if path in queried}),
        _part(analysis, held, of_loop),
        frozenset(analysis.leaves[path].field for path in held),
    )


def _streams(path: str, fields: Classified, bad: set[str]) -> bool:
    return path not in bad and fields.leaves[path].kind in STREAMED


def _closed_over(paths: Iterable[str], analysis: Analysis) -> set[str]:
    """Leaves, the others of their fields, and all that decides about them."""
    found = set(paths)
    while True:
        fields = {analysis.leaves[path].field for path in found}
        more = {path for path, leaf in analysis.leaves.items() if leaf.field in fields}
        for event in analysis.events.values():
            for path in more & set(event.updates):
                more = more | event.updates[path].reads
        if more <= found:
            return found
        found |= more


def _nodes(event: EventIR, paths: set[str]) -> set[Node]:
    seen: set[int] = set()
    return {node for path, update in event.updates.items() if path in paths for node in walk(update, seen)}


def _part(analysis: Analysis, paths: set[str], effects: Mapping[str, list[Effect]]) -> Analysis:
    leaves = {path: leaf for path, leaf in analysis.leaves.items() if path in paths}
    events = {
        name: replace(event, updates={p: n for p, n in event.updates.items() if p in paths}, effects=tuple(effects[name]))
        for name, event in analysis.events.items()
    }
    return Analysis(analysis.model, analysis.build, leaves, events)
