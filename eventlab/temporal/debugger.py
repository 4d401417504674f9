"""The debugger's engine: one key's events, stepped through forwards and backwards, with the state and what changed at each stop.

It folds row by row, as your own `evolve` does, and keeps every state it has come to: back is as fast as forward. A fold that
raises stops it, with the error and the event at hand; another fold can be put in, to see where its states part from these.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any

from eventlab.commands import changed
from eventlab.errors import EvolveFailed, InvalidValue, UnknownType
from eventlab.model.events import type_name
from eventlab.model.meta import Recorded
from eventlab.model.models import Model, model_of
from eventlab.replay.rows import SourceFold

#: Told an event and the state after it; true where to stop.
Predicate = Callable[[Recorded, Any], object]


@dataclass(frozen=True)
class Parting:
    """Where two folds of the same events part first: the step, the event, the field, and both values."""

    step: int
    event: Recorded
    field: str
    mine: Any
    other: Any


class Debugger:
    """Steps through the events of one key. Step 0 is before the first; `state` is that after the event of the step.

    Made by `lab.debug(Order, "7")`.
    """

    def __init__(self, model: Model, name: str, events: Sequence[Recorded]) -> None:
        self.model, self.name = model, name
        self.events = list(events)
        self.at = 0
        self._states: list[Any] = [model.initial]
        #: What the fold raised, and at which step; there are no states after it.
        self._failed: tuple[int, Exception] | None = None
        self._stops: list[tuple[str, Predicate]] = []

    def __len__(self) -> int:
        return len(self.events)

    def __repr__(self) -> str:
        here = "before the first event" if self.event is None else f"{self.event.type} at position {self.event.position:,}"
        error = f", {type(self.error).__name__}: {self.error}" if self.error is not None else ""
        return f"Debugger({self.model.cls.__name__} {self.name!r}, step {self.at} of {len(self)}: {here}{error})"

    # -- where it stands

    @property
    def event(self) -> Recorded | None:
        """The event of this step; None before the first."""
        return self.events[self.at - 1] if self.at else None

    @property
    def state(self) -> Any:
        """The state after the event; before it, where the fold raises on it."""
        return self._state(self.at)

    @property
    def before(self) -> Any:
        """The state before the event."""
        return self._state(max(self.at - 1, 0))

    @property
    def changed(self) -> tuple[tuple[str, Any, Any], ...]:
        """The fields that the event changed: name, before, after."""
        return changed(self.before, self.state)

    @property
    def error(self) -> Exception | None:
        """What the fold raises on the event of this step."""
        self._state(self.at)
        return self._failed[1] if self._failed is not None and self._failed[0] == self.at else None

    @property
    def position(self) -> int:
        """The position of the event; 0 before the first."""
        return 0 if self.event is None else self.event.position

    @property
    def at_end(self) -> bool:
        """Whether there is nothing to step to: the last event, or one that the fold raises on."""
        self._state(self.at)
        return self.at == len(self) or (self._failed is not None and self.at >= self._failed[0])

    # -- moving

    def step(self, count: int = 1) -> Debugger:
        """Go on by so many events."""
        return self.to(self.at + _check_count(count, "count"))

    def back(self, count: int = 1) -> Debugger:
        """Go back by so many events."""
        return self.to(self.at - _check_count(count, "count"))

    def to(self, step: int) -> Debugger:
        """Go to a step, from 0 (before the first) on; one beyond the ends is the end, and so is one that the fold raises on."""
        if isinstance(step, bool) or not isinstance(step, int):
            raise InvalidValue(f"{step!r} is no step", hint=f"a whole number from 0 to {len(self)}")
        self.at = min(max(step, 0), len(self))
        self._state(self.at)
        if self._failed is not None:
            self.at = min(self.at, self._failed[0])
        return self

    def stop_at(
        self, *, position: int | None = None, type: type[Any] | str | None = None, changed: str | None = None,
        when: Predicate | None = None,
    ) -> Debugger:  # fmt: skip
        """Put a stop: a position or the first event after it, a type of event, a field that changes, or what a function says."""
        given = [one for one in (position, type, changed, when) if one is not None]
        if len(given) != 1:
            raise InvalidValue("a stop is one of position=, type=, changed=, when=", hint="call stop_at once for each")
        self._stops.append(self._predicate(position, type, changed, when))
        return self

    @property
    def stops(self) -> list[str]:
        """The stops there are, in words."""
        return [said for said, _ in self._stops]

    def clear(self) -> Debugger:
        """Take all stops away."""
        self._stops.clear()
        return self

    def run(self, **to: Any) -> Debugger:
        """Go on to the next event that a stop is for, or to the end. With arguments as for `stop_at`: to that one alone."""
        return self._run(1, to)

    def run_back(self, **to: Any) -> Debugger:
        """Go back to the event before this one that a stop is for, or to the beginning."""
        return self._run(-1, to)

    # -- another fold

    def against(self, other: type[Any]) -> Parting | None:
        """Fold the same events by another definition, and find the first state that is not the same; None where all are.

        Fields that only one of them has are passed over.
        """
        of = Debugger(model_of(other, superseded=True), self.name, self.events)
        shared = [of.name for of in fields(self.model.cls) if of.name in {f.name for f in fields(other)}]
        if not shared:
            said = f"{self.model.cls.__name__} and {other.__name__} have no field in common"
            raise InvalidValue(said, hint="two folds of one thing")
        for step in range(1, len(self) + 1):
            mine, theirs, event = self._state(step), of._state(step), self.events[step - 1]
            if self._failed_at(step) != of._failed_at(step):
                return Parting(step, event, "_error", self._failed_at(step), of._failed_at(step))
            for field in shared:
                if getattr(mine, field) != getattr(theirs, field):
                    return Parting(step, event, field, getattr(mine, field), getattr(theirs, field))
        return None

    def under(self, other: type[Any]) -> Debugger:
        """The same events by another definition, at the same step: the fold is swapped. Stops at fields are put anew."""
        found = Debugger(model_of(other, superseded=True), self.name, self.events)
        found._stops = [(said, stop) for said, stop in self._stops if not said.endswith(" changes")]
        return found.to(self.at)

    # -- inside

    def _failed_at(self, step: int) -> str | None:
        if self._failed is None or self._failed[0] > step:
            return None
        return f"{type(self._failed[1]).__name__}: {self._failed[1]}"

    def _state(self, step: int) -> Any:
        while len(self._states) <= step and self._failed is None:
            self._fold_one()
        return self._states[min(step, len(self._states) - 1)]

    def _fold_one(self) -> None:
        number = len(self._states)
        event, state = self.events[number - 1], self._states[-1]
        handled = self.model.handled
        if isinstance(event.data, dict) or (handled is not None and type(event.data) not in [kind.cls for kind in handled]):
            self._states.append(state)
            return
        try:
            after = self.model.step(state, event.data, *([event] if self.model.takes_meta else []))
            if after.__class__ is not self.model.cls:
                raise TypeError(f"evolve gave {after!r}, not a {self.model.cls.__name__}")
        except Exception as why:
            self._failed = (number, why)
            return
        self._states.append(after)

    def _predicate(self, position: Any, type: Any, changed: Any, when: Any) -> tuple[str, Predicate]:
        if position is not None:
            _check_count(position, "position", least=0)
            first = next((event.position for event in self.events if event.position >= position), None)
            return f"position {position}", lambda event, state: event.position == first
        if type is not None:
            name = type_name(type)
            handled = [kind.name for kind in self.model.handled or ()]
            if name not in {*handled, *(event.type for event in self.events)}:
                raise UnknownType(f"{self.name} has no event {name!r}", hint=f"{', '.join(handled) or 'its events'}")
            return f"every {name}", lambda event, state: event.type == name
        if changed is not None:
            known = [of.name for of in fields(self.model.cls)]
            if changed not in known:
                raise InvalidValue(f"{self.model.cls.__name__} has no field {changed!r}", hint=f"its fields: {', '.join(known)}")
            return f"{changed} changes", lambda event, state: any(name == changed for name, _, _ in self.changed)
        if not callable(when):
            raise InvalidValue(f"when={when!r} takes a function of the event and the state", hint="lambda event, state: …")
        with contextlib.suppress(ValueError):  # some built-in functions do not say what they take
            try:
                inspect.signature(when).bind(None, None)
            except TypeError as why:
                raise InvalidValue(f"when={when!r} takes other arguments: {why}", hint="lambda event, state: …") from None
        return f"when {getattr(when, '__name__', when)}", when

    def _run(self, way: int, to: dict[str, Any]) -> Debugger:
        stops = self._stops
        if to:
            unknown = sorted(set(to) - {"position", "type", "changed", "when"})
            if unknown or len(to) != 1:
                raise InvalidValue("run to one of position=, type=, changed=, when=", hint="debugger.run(changed='status')")
            stops = [self._predicate(*(to.get(name) for name in ("position", "type", "changed", "when")))]
        while not (self.at == 0 if way < 0 else self.at_end):
            self.to(self.at + way)
            event = self.event
            if event is None or self.error is not None or any(stop(event, self.state) for _, stop in stops):
                break
        return self


def _check_count(value: Any, what: str, least: int | None = None) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or (least is not None and value < least):
        hint = "a whole number" if least is None else f"a whole number from {least} on"
        raise InvalidValue(f"{what}={value!r} is no number of events", hint=hint)
    return value


def events_of_key(model: Model, key: Any, events: Iterable[Recorded]) -> list[Recorded]:
    """The events that a projection folds into one row."""
    assert model.key is not None
    found, source, handled = [], model.source, model.handled
    own = None if handled is None else {kind.cls for kind in handled}
    folding = None if source is None else SourceFold(source, "")
    of_source = None if source is None or source.handled is None else {kind.cls for kind in source.handled}
    for event in events:
        if isinstance(event.data, dict):
            continue
        state, cls = None, type(event.data)
        if folding is not None:
            state = folding.after(event.stream, event.data if of_source is None or cls in of_source else None, event)
            if isinstance(state, EvolveFailed) or (own is not None and cls not in own):
                continue  # of a stream that its source cannot fold nobody knows the row
        of = model.row(event.data, event, state)
        if of is not None and (of == key or (isinstance(of, tuple) and tuple(of) == key)):
            found.append(event)
    return found
