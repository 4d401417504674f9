"""The debugger with a face: one key's events, forwards and backwards, with the state as a tree and what each event changed."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, Final

from eventlab.display.html import payload_text, table
from eventlab.display.view import Controller
from eventlab.errors import InvalidValue
from eventlab.model.names import split_stream
from eventlab.temporal.debugger import Debugger, Parting

#: So many events are listed around the one at hand.
AROUND: Final = 40
#: So many lines of a state are shown.
LINES: Final = 400


class Stepper(Controller):
    """A debugger as people step through it."""

    def __init__(self, debugger: Debugger) -> None:
        super().__init__()
        self.debugger = debugger
        self._parted: Parting | None = None
        self._against = ""

    def __repr__(self) -> str:
        return f"Stepper({self.debugger!r})"

    def code(self) -> str:
        """The Python that stands where this does."""
        of = self.debugger
        key = split_stream(of.name)[1] if of.model.category is not None else of.name
        return f"lab.debug({of.model.cls.__name__}, {key!r}).to({of.at})"

    def state(self) -> dict[str, Any]:
        """All that is drawn."""
        of = self.debugger
        low = max(0, min(of.at - AROUND // 2, len(of) - AROUND))
        listed = [
            {"step": low + at + 1, "position": event.position, "type": event.type, "text": payload_text(event.data)}
            for at, event in enumerate(of.events[low : low + AROUND])
        ]
        before, after = dict(flat(of.before)), dict(flat(of.state))
        tree = [(path, value, before.get(path) != value) for path, value in after.items()]
        tree += [(path, "", True) for path in before if path not in after]
        event = of.event
        return {
            **super().state(), "name": f"{of.model.cls.__name__} {of.name}", "at": of.at, "count": len(of), "events": listed,
            "tree": [(path, value, changed, before.get(path, "")) for path, value, changed in tree][:LINES],
            "stops": of.stops, "raised": f"{type(of.error).__name__}: {of.error}" if of.error is not None else "",
            "fields": [name for name, _ in of.model.fields], "types": sorted({of_.type for of_ in of.events}),
            "when": str(event.recorded_at.replace(tzinfo=None)) if event is not None else "", "parted": self._said(),
        }  # fmt: skip

    def html(self) -> str:
        """The step at hand: the event, and the state after it with what it changed."""
        now = self.state()
        here = self.debugger.event
        event = "before the first event"
        if here is not None:
            event = f"{here.type} at position {here.position:,}: {payload_text(here.data)}"
        rows = [(path, value, f"was {old}" if changed else "") for path, value, changed, old in now["tree"]]
        shown = table(f"{now['name']}, step {now['at']} of {now['count']}: {event}", ("field", "value", ""), rows, whole={0})
        return shown + (table("the fold raises", ("",), [(now["raised"],)]) if now["raised"] else "")

    def swap(self, other: type[Any]) -> Parting | None:
        """Hold another definition of the fold against this one: where their states part first, which is where it goes."""
        with self._one:
            self._against = other.__name__
            self._parted = self.debugger.against(other)
            if self._parted is not None:
                self.debugger.to(self._parted.step)
            return self._parted

    # -- gestures

    def on_step(self, told: Mapping[str, Any]) -> None:
        """By so many events, back where it is below 0."""
        self.debugger.step(int(told.get("by", 1)))

    def on_to(self, told: Mapping[str, Any]) -> None:
        """To a step, from 0 on."""
        self.debugger.to(int(told["step"]))

    def on_run(self, told: Mapping[str, Any]) -> None:
        """To the next event that a stop is for, or the end; `back` to the one before, or the beginning."""
        if told.get("back"):
            self.debugger.run_back()
        else:
            self.debugger.run()

    def on_stop(self, told: Mapping[str, Any]) -> None:
        """Put a stop: `type`, `changed` (a field) or `position`."""
        given = {name: told[name] for name in ("type", "changed", "position") if told.get(name)}
        if "position" in given:
            given["position"] = int(given["position"])
        self.debugger.stop_at(**given)

    def on_clear(self, told: Mapping[str, Any]) -> None:
        """Take all stops away."""
        self.debugger.clear()

    def _said(self) -> str:
        if not self._against:
            return ""
        of = self._parted
        if of is None:
            return f"{self._against} gives the same states"
        return f"{self._against} parts at step {of.step}, {of.field}: {of.mine!r} here, {of.other!r} there"


def flat(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """A state as lines: the path of each value, and the value."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            yield from flat(getattr(value, field.name), f"{path}.{field.name}" if path else field.name)
    elif isinstance(value, Mapping) and value:
        for name, one in value.items():
            yield from flat(one, f"{path}[{name!r}]")
    elif isinstance(value, (list, tuple)) and value:
        for at, one in enumerate(value):
            yield from flat(one, f"{path}[{at}]")
    else:
        yield path, str(value) if value is not None else "None"


def stepper(debugger: Any) -> Stepper:
    """The controller of a debugger; `InvalidValue` where it is none."""
    if not isinstance(debugger, Debugger):
        raise InvalidValue(f"{type(debugger).__name__} is no debugger", hint='el.step(lab.debug(Order, "7"))')
    return Stepper(debugger)
