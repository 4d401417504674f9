"""The row fold: `state.evolve(event)` for each event in position order, nothing else.

This is what a model means. Any other engine gives the same states or is not used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import FrozenInstanceError
from typing import Any, Final

from eventlab.errors import EventlabError, EvolveFailed
from eventlab.model.events import EventType, event_class
from eventlab.model.filters import EVERYTHING, Clause, Filter
from eventlab.model.meta import Meta
from eventlab.model.models import Model
from eventlab.store.base import ALL, FOLD_ENVELOPE, IGNORED, Batch, ClassOf, Cut, Tenant, collector_off
from eventlab.store.columns import ENVELOPE_NAMES

#: A key with its state: [state, version, position]. Lists, for a fold changes them a million times.
Entry = list[Any]
Key = Any
STATE: Final = 0
VERSION: Final = 1
POSITION: Final = 2

#: Finds the entries that a base holds for these keys.
Lookup = Callable[[list[Key]], dict[Key, Entry]]
#: Called after each event that was folded: key, event, state after it, position.
Watch = Callable[[Key, Any, Any, int], None]


class RowFold:
    """A fold in progress: feed it batches in position order, in as many pieces as you like; `entries` is its state.

    `lookup` gives entries to continue from, for keys that are seen for the first time; `of_source` the same for the streams
    of a projection's source.
    """

    def __init__(
        self, model: Model, tenant: Tenant, lookup: Lookup | None = None, watch: Watch | None = None,
        of_source: Lookup | None = None,
    ) -> None:  # fmt: skip
        self.model = model
        self.entries: dict[Key, Entry] = {}
        self.events = 0
        self._tenanted = tenant is ALL
        self._lookup = lookup
        self._watch = watch
        self._class_of = class_lookup(model)
        self._source = None if model.source is None else SourceFold(model.source, tenant, of_source)

    def feed(self, batch: Batch) -> None:
        """Fold the events of one batch."""
        # Folding makes millions of objects and no garbage cycles: the collector would walk them all again and again.
        with collector_off():
            self._feed(batch)

    def _feed(self, batch: Batch) -> None:
        events = batch.events(self._class_of)
        envelope = batch.envelope
        keys = self._keys(batch, events)
        if self._lookup is not None:
            missing = [key for key in dict.fromkeys(keys) if key is not None and key not in self.entries]
            if missing:
                self.entries.update(self._lookup(missing))
        versions: Iterable[int | None] = envelope.version if self.model.kind == "aggregate" else (None,) * len(events)
        self._run(zip(keys, events, versions, envelope.position, range(len(events)), strict=True), envelope)
        self.events += len(events)

    def _keys(self, batch: Batch, events: list[Any]) -> list[Key]:
        """The key of each event; None passes it over."""
        envelope = batch.envelope
        if self.model.key is None:
            keys: list[Key] = envelope.stream
        else:
            model, key_of = self.model, self.model.key
            plain = self._source is None and not model.instead
            states = [None] * len(events) if self._source is None else self._source.after_each(batch)
            keys = []
            expected = str if model.key_names == ("_id",) else tuple
            width = len(model.key_names)
            for i, (event, state) in enumerate(zip(events, states, strict=True)):
                if event is None:  # of a type without a class here, or that is not folded
                    keys.append(None)
                    continue
                try:
                    if isinstance(state, EvolveFailed):
                        raise state
                    if plain:
                        key = key_of(event, Meta(envelope, i)) if model.key_takes_meta else key_of(event)
                    else:
                        key = model.row(event, Meta(envelope, i) if model.key_takes_meta else None, state)
                except Exception as why:
                    keys.append(self._no_key(envelope, i, why))
                    continue
                if key is not None and not (isinstance(key, expected) and (expected is str or len(key) == width)):
                    wanted = "a str" if expected is str else f"({', '.join(self.model.key_names)})"
                    key = self._no_key(envelope, i, TypeError(f"it gave {key!r}, not {wanted} or None"))
                keys.append(key)
        if self._tenanted:
            return [None if key is None else (tenant, key) for tenant, key in zip(envelope.tenant, keys, strict=True)]
        return keys

    def _no_key(self, envelope: Any, at: int, why: Exception) -> Key:
        """What to do with an event that `key` did not take."""
        raise failed(self.model, "key", envelope, at, why) from why

    def _run(self, rows: Iterator[tuple[Key, Any, int | None, int, int]], envelope: Any) -> None:
        model, entries, cls = self.model, self.entries, self.model.cls
        takes_meta, watch, instead = model.takes_meta, self._watch, model.instead
        at = 0
        try:
            for key, event, version, position, at in rows:
                if key is None:
                    continue
                entry = entries.get(key)
                if entry is None:
                    entry = entries[key] = [model.initial, 0, 0]
                if event is not None:
                    if instead and event.__class__ in instead:
                        state = model.step(entry[0], event, *([Meta(envelope, at)] if takes_meta else []))
                    else:
                        state = entry[0].evolve(event, Meta(envelope, at)) if takes_meta else entry[0].evolve(event)
                    if state.__class__ is not cls:
                        raise TypeError(f"it gave {state!r}, not a {cls.__name__}")
                    entry[0] = state
                entry[1] = entry[1] + 1 if version is None else version
                entry[2] = position
                if watch is not None:
                    watch(key, event, entry[0], position)
        except Exception as why:
            raise failed(model, "evolve", envelope, at, why) from why


class SourceFold:
    """The states of the streams by which a projection is keyed; one that has raised has none from there on."""

    def __init__(self, model: Model, tenant: Tenant, lookup: Lookup | None = None) -> None:
        self.model, self._lookup, self._tenanted = model, lookup, tenant is ALL
        self.states: dict[Key, Any] = {}
        self._class_of = class_lookup(model)

    def after(self, key: Key, event: Any, meta: Meta) -> Any:
        """The state of a stream after an event, None for one that is not folded; or the error that there is none for."""
        model = self.model
        state = self.states.get(key)
        if state is None:
            state = model.initial
        if event is not None and not isinstance(state, EvolveFailed):
            try:
                state = model.step(state, event, *([meta] if model.takes_meta else []))
                if state.__class__ is not model.cls:
                    raise TypeError(f"it gave {state!r}, not a {model.cls.__name__}")
            except Exception as why:
                state = failed(model, "evolve", meta._columns, meta._row, why)
        self.states[key] = state
        return state

    def after_each(self, batch: Batch) -> list[Any]:
        """The state of its stream after each event, or the error that there is none for."""
        envelope, events = batch.envelope, batch.events(self._class_of)
        keys: list[Key] = list(zip(envelope.tenant, envelope.stream, strict=True)) if self._tenanted else envelope.stream
        if self._lookup is not None:
            missing = [key for key in dict.fromkeys(keys) if key not in self.states]
            self.states.update((key, entry[STATE]) for key, entry in self._lookup(missing).items())
        return [self.after(key, event, Meta(envelope, i)) for i, (key, event) in enumerate(zip(keys, events, strict=True))]


def source_entries(source: Model, batches: Iterable[Batch], tenant: Tenant) -> dict[Key, Entry]:
    """The entries of a projection's source, of which some streams may have failed: see `RowFold`."""
    states = SourceFold(source, tenant)
    for batch in batches:
        states.after_each(batch)
    return {key: [state, 0, 0] for key, state in states.states.items()}


def class_lookup(model: Model) -> ClassOf:
    """Which class reads a stored type for a model: those its `evolve` lists; the rest it never sees."""
    handled = model.handled
    if handled is not None:
        known: dict[str, EventType] = {kind.name: kind for kind in handled}
        return lambda name: known.get(name, IGNORED)
    return lambda name: event_class(name) or IGNORED


def events_of(model: Model) -> Filter:
    """The events that a fold has to see: the whole category of an aggregate or a source, or what a projection handles."""
    if model.read_category is not None:
        return Filter((Clause(categories=frozenset((model.read_category,))),))
    handled = model.handled
    return EVERYTHING if handled is None else Filter((Clause(types=frozenset(kind.name for kind in handled)),))


def batches_of(model: Model, cut: Cut, tenant: Tenant, *, after: int = 0, until: int | None = None) -> Iterator[Batch]:
    """What a model folds, in position order, with the columns it looks at and no others."""
    envelope, types = looked_at(model)
    return cut.batches(events_of(model), tenant=tenant, after=after, until=until, envelope=envelope, types=types)


def looked_at(model: Model) -> tuple[Sequence[str], list[str] | None]:
    """The envelope columns that a fold looks at, and the types whose payload it does, of its source too; None for all."""
    models = [model, *([] if model.source is None else [model.source])]
    metas = any(of.takes_meta or of.key_takes_meta for of in models)
    handled = [of.handled for of in models]
    types = None if None in handled else sorted({kind.name for kinds in handled for kind in kinds or ()})
    return ENVELOPE_NAMES if metas else FOLD_ENVELOPE, types


def fold(model: Model, batches: Iterable[Batch], tenant: Tenant, lookup: Lookup | None = None) -> RowFold:
    """Fold all batches."""
    folding = RowFold(model, tenant, lookup)
    for batch in batches:
        folding.feed(batch)
    return folding


def replaced(why: Exception) -> str:
    """What to write for an `evolve` that changes its state, or gives none back."""
    changes = isinstance(why, FrozenInstanceError) or (isinstance(why, TypeError) and str(why).startswith("it gave None"))
    return "evolve gives a new state from every branch: return replace(self, n=…), or return self" if changes else ""


def failed(model: Model, what: str, envelope: Any, at: int, why: Exception) -> EvolveFailed:
    """The error that names the event at which a model's code raised."""
    position, stream, name = envelope.position[at], envelope.stream[at], envelope.type[at]
    said, hint = (why.message, why.hint) if isinstance(why, EventlabError) else (str(why), replaced(why))
    before = f"the state before it: lab.at(position={position - 1}).load(…)" if model.category else ""
    return EvolveFailed(
        f"{model.cls.__name__}.{what} failed on {name} at position {position} ({stream!r}, version {envelope.version[at]}): "
        f"{type(why).__name__}: {said}",
        hint="; ".join(filter(None, (hint, before if not isinstance(why, EventlabError) or not hint else ""))),
        position=position,
        stream=stream,
        type=name,
    )
