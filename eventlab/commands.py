"""How events get into the log: drafts from event objects, and load, decide, append for a command."""

from __future__ import annotations

import dataclasses
import datetime as dt
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Generic, TypeVar, overload

from eventlab.errors import EventlabError, EvolveFailed, InvalidValue, ModelError, NotHandled, Refused, SchemaConflict
from eventlab.model.events import EVENTS, EventType, New, command_type, event_type
from eventlab.model.ids import derived, uuid7s
from eventlab.model.meta import Context, Recorded, current_context
from eventlab.model.models import Model
from eventlab.model.names import check_plain, split_stream
from eventlab.model.schema import Schema
from eventlab.model.types import moment_us
from eventlab.replay.rows import replaced
from eventlab.store.base import MAX_APPEND_EVENTS, MAX_PAYLOAD_BYTES, MAX_TAGS, Appended, Draft, pack

M = TypeVar("M")
ATTEMPTS = 3


@dataclass(frozen=True)
class Handled(Generic[M]):
    """What a command did: its events, where they are, and the state and version after them.

    `repeated` says that it was handled before, under the same id; `attempts` how often it was decided, after lost races.
    """

    events: tuple[Any, ...]
    positions: tuple[int, ...]
    state: M
    version: int
    command_id: str | None = None
    repeated: bool = False
    attempts: int = 1

    @property
    def position(self) -> int:
        """The last position; 0 where nothing was appended."""
        return self.positions[-1] if self.positions else 0


@dataclass(frozen=True)
class Preview(Generic[M]):
    """What a command would do now: its events, the state before and after them, and the version it was decided on."""

    events: tuple[Any, ...]
    before: M
    state: M
    version: int

    @property
    def changed(self) -> tuple[tuple[str, Any, Any], ...]:
        """The fields of the state that would differ: name, before, after."""
        return changed(self.before, self.state)


@dataclass(frozen=True)
class Handling:
    """A command on its way to its aggregate, as middleware sees it; `context` is who gives it, and in which conversation."""

    model: type[Any]
    id: str
    command: Any
    command_id: str | None = None
    attempts: int = ATTEMPTS

    @property
    def context(self) -> Context:
        """Actor, cause and conversation, as `el.context` has set them."""
        return current_context()


#: Wraps the handling of every command: does what it likes before and after `proceed(handling)`, or raises instead.
Middleware = Callable[[Handling, Callable[[Handling], Handled[Any]]], Handled[Any]]


def changed(before: Any, after: Any) -> tuple[tuple[str, Any, Any], ...]:
    """The fields of two states that differ: name, before, after."""
    found = ((of.name, getattr(before, of.name), getattr(after, of.name)) for of in fields(after))
    return tuple((name, old, new) for name, old, new in found if old != new)


def digest_of(model: Model, stream: str, command: Any) -> bytes:
    """Sixteen bytes of what a command says, and to whom.

    What a field says by default is left out: a command to which such a field was added since says the same as before.
    """
    kind = command_type(type(command))
    kind.encode(command)
    own: dict[str, list[Any]] = {}
    for name, of in kind.fields:
        value = getattr(command, name)
        default = kind.defaults.get(name, dataclasses.MISSING)
        if default is dataclasses.MISSING or value != default:
            of.put(value, name, own.setdefault(name, []))
    said = pack([model.name, stream, kind.name, own])
    return hashlib.blake2b(said, digest_size=16, person=b"eventlab command").digest()


class Decision(Sequence[Recorded]):
    """The events that a decision rests on, and what it appends; made by `Lab.decide_on`. `done` says where that went."""

    def __init__(self, seen: Sequence[Recorded], head: int) -> None:
        self._seen = seen
        self.head = head
        self.appending: dict[str, list[Any]] = {}
        self.done = Appended()
        self.ended = False

    @overload
    def __getitem__(self, index: int) -> Recorded: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Recorded]: ...
    def __getitem__(self, index: int | slice) -> Recorded | Sequence[Recorded]:
        return self._seen[index]

    def __len__(self) -> int:
        return len(self._seen)

    def __repr__(self) -> str:
        return f"Decision({len(self)} events seen up to position {self.head})"

    def append(self, stream: str, *events: Any) -> None:
        """Append events to a stream when the block ends, if nothing came in between."""
        if self.ended:
            raise Refused("this decision has ended: what is appended now would not be stored", hint="append within the block")
        if not isinstance(stream, str) or not events:
            given = "no stream" if not isinstance(stream, str) else f"no event for {stream!r}"
            raise InvalidValue(f"append() of a decision was given {given}", hint='seen.append("course-c1", SeatTaken("c1"))')
        self.appending.setdefault(stream, []).extend(events)


@dataclass(frozen=True)
class Drafting:
    """What every draft of one append shares."""

    context: Context
    tenant: str
    key: str | None
    occurred_at: dt.datetime | None
    tags: tuple[str, ...]
    milliseconds: int
    chance: Callable[[int], bytes]


def drafts(events: Sequence[tuple[str, Any]], shared: Drafting) -> tuple[list[Draft], bool]:
    """Drafts of events with their streams, and whether any carries an id of the caller's own.

    Everything about an event is checked here, before the log is touched.
    """
    if len(events) > MAX_APPEND_EVENTS:
        raise Refused(
            f"one append takes at most {MAX_APPEND_EVENTS:,} events, and this has {len(events):,}",
            hint="lab.ingest takes any number",
        )
    own = shared.key is not None or any(isinstance(event, New) and event.id for _, event in events)
    tags = tuple(dict.fromkeys(shared.tags))
    for tag in tags:
        check_plain(tag, "tag")
    for stream in dict.fromkeys(stream for stream, _ in events):
        split_stream(stream)
    ids = _event_ids(events, shared)
    context = shared.context
    causation = context.causation_id.bytes if context.causation_id else None
    # Without a conversation to belong to, an append is one: the id of its first event.
    correlation = context.correlation_id.bytes if context.correlation_id else ids[0] if ids else None
    occurred_at = None if shared.occurred_at is None else moment_us(shared.occurred_at, "occurred_at")
    classes = set(map(type, [event for _, event in events]))
    if len(classes) == 1 and New not in classes and len(tags) <= MAX_TAGS:
        (only,) = map(event_type, classes)
        if not only.tag_fields:
            payloads = only.encode_all([event for _, event in events])
            rest = (occurred_at, correlation, causation, context.actor, tags)
            made = [
                Draft(stream, only.schema, payload, event_id, *rest)
                for (stream, _), payload, event_id in zip(events, payloads, ids, strict=True)
            ]
            return _whole(made, ids), own
    made = []
    kinds: dict[type[Any], EventType] = {}
    for (stream, given), event_id in zip(events, ids, strict=True):
        event, at = given, occurred_at
        kind = kinds.get(type(given))
        if kind is None:
            if isinstance(given, New):
                event, kind = given.event, event_type(type(given.event))
                at = at if given.occurred_at is None else moment_us(given.occurred_at, f"occurred_at of {kind.name}")
            else:
                kind = kinds[type(given)] = event_type(type(given))
        plain = event is given and not kind.tag_fields and len(tags) <= MAX_TAGS
        of = tags if plain else _tags(given, event, kind, tags)
        made.append(Draft(stream, kind.schema, kind.encode(event), event_id, at, correlation, causation, context.actor, of))
    return _whole(made, ids), own


def _whole(made: list[Draft], ids: Sequence[bytes]) -> list[Draft]:
    """The drafts, if together they may be appended."""
    _refuse_large(made)
    if len(set(ids)) < len(ids):
        raise InvalidValue("two events of this append have the same id", hint="give each its own, or none")
    return made


def _refuse_large(made: Sequence[Draft]) -> None:
    """Refuse events with too large a payload; where all together are not, none is."""
    if len(pack([draft.payload for draft in made])) <= MAX_PAYLOAD_BYTES:
        return
    for draft in made:
        size = len(pack(draft.payload))
        if size > MAX_PAYLOAD_BYTES:
            raise InvalidValue(
                f"{draft.schema.name} for {draft.stream!r} has {size:,} bytes of payload, and {MAX_PAYLOAD_BYTES:,} are allowed",
                hint="store large things elsewhere and keep their address or digest in the event",
            )


def _event_ids(events: Sequence[tuple[str, Any]], shared: Drafting) -> list[bytes]:
    """The id of each event: its own, or one from the key, or a new one."""
    if shared.key is not None:
        key = check_plain(shared.key, "key")
        ids = derived(key, len(events), shared.tenant)
    else:
        ids = uuid7s(shared.milliseconds, len(events), shared.chance)
    for i, (_, event) in enumerate(events):
        if isinstance(event, New) and event.id is not None:
            ids[i] = event.id.bytes
    return ids


def _tags(given: Any, event: Any, kind: EventType, shared: tuple[str, ...]) -> tuple[str, ...]:
    """The tags of one event; those that it shares with others were looked at before."""
    own = (*kind.tags(event), *given.tags) if isinstance(given, New) else kind.tags(event)
    for tag in own:
        check_plain(tag, "tag")
    tags = tuple(dict.fromkeys((*own, *shared))) if own else shared
    if len(tags) > MAX_TAGS:
        raise InvalidValue(f"{kind.name} has {len(tags)} tags, and {MAX_TAGS} are allowed")
    return tags


def refuse_renamed(schemas: Iterable[Schema], known: Mapping[tuple[str, int], Schema]) -> None:
    """Refuse a class that looks like a stored one under a new name: its history would be lost from sight.

    A new, unnamed class is taken for a rename when a stored type of the same module has the same columns, and no class
    of this process has that type's name.
    """
    names = {name for name, _ in known}
    for schema in schemas:
        kind = next((k for k in EVENTS.named(schema.name) if k.schema is schema), None)
        if kind is None or kind.named or schema.name in names or not schema.columns:
            continue
        for stored in known.values():
            same_place = stored.origin.partition(":")[0] == schema.origin.partition(":")[0]
            if same_place and set(stored.columns) == set(schema.columns) and not EVENTS.named(stored.name):
                raise SchemaConflict(
                    f"{schema.name} has the fields of the stored {stored.name}, which has no class here any more: a rename?",
                    hint=f"@el.event(name={stored.name!r}) keeps its history; "
                    f"@el.event(name={schema.name!r}) says it is a new type",
                    type=schema.name,
                    stored=stored.name,
                )


# -- commands --------------------------------------------------------------------------------------------------------------


def check(model: Model, command: Any) -> None:
    """Refuse a command that is not valid, or that the model does not decide on, before the model sees it."""
    if model.decide is None:
        raise NotHandled(f"{model.cls.__name__} has no decide", hint="add decide(self, command) -> Iterator[Event]")
    if isinstance(command, type):
        raise InvalidValue(
            f"{model.cls.__name__} was given the class {command.__name__}, and not a command", hint=f"{command.__name__}(…)"
        )
    model.check_command(command)


def decide(model: Model, state: Any, command: Any) -> list[Any]:
    """The events that a model answers a command with; `Rejected` passes through."""
    check(model, command)
    assert model.decide is not None
    answer = model.decide(state, command)
    if answer is None:
        return []
    events = list(answer) if isinstance(answer, Iterable) else [answer]
    for event in events:
        _check_event(model, event.event if isinstance(event, New) else event)
    return events


def _check_event(model: Model, event: Any) -> None:
    """Refuse what `decide` gave in the place of an event."""
    try:
        event_type(type(event))
    except ModelError:
        made = f"{event.__name__}(…)" if isinstance(event, type) else "an instance of an @el.event class"
        said = f"{model.cls.__name__}.decide gave {event!r:.100}, which is no event"
        raise ModelError(said, hint=f"yield {made}; raise el.Rejected to refuse") from None


def after(model: Model, state: Any, events: Iterable[Any]) -> Any:
    """The state after events that are about to be appended: one that the model cannot take is not stored."""
    for event in events:
        state = _evolved(model, state, event.event if isinstance(event, New) else event)
    return state


def _evolved(model: Model, state: Any, event: Any) -> Any:
    """The state after an event that is about to be appended; a fold that looks at the metadata is loaded again instead."""
    handled = model.handled
    if model.takes_meta or (handled is not None and type(event) not in [kind.cls for kind in handled]):
        return state
    event = event_type(type(event)).normal(event)
    try:
        after = model.step(state, event)
    except EventlabError:
        raise
    except Exception as why:
        raise EvolveFailed(
            f"{model.cls.__name__}.evolve failed on {event!r}: {type(why).__name__}: {why}",
            hint=f"nothing was stored; {replaced(why)}".rstrip("; "),
        ) from why
    if after.__class__ is not model.cls:
        raise EvolveFailed(f"{model.cls.__name__}.evolve gave {after!r} for {event!r}", hint="return a state from every branch")
    return after
