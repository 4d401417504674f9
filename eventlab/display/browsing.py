"""Looking through the events of a log, millions of them: pages, counts by type, a filter, one event with what it belongs to.

The log is seen as of one moment, until `refresh`: pages fit together while others write. For each filter the positions that it
picks are found once, and a page is the read of its positions alone.
"""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import polars as pl

from eventlab.display.html import events_html, payload_text, table
from eventlab.display.view import Controller
from eventlab.errors import InvalidValue
from eventlab.lab import Lab
from eventlab.model.filters import EVERYTHING, Filter, parse
from eventlab.model.meta import Recorded
from eventlab.store.words import many

#: Rows of a page, at most.
PAGE: Final = 100
#: A page whose positions lie so far apart is read by its positions, not as a range.
FAR: Final = 50_000
_LINKS: Final = {"correlation": "_correlation_id", "cause": "_event_id", "effects": "_causation_id"}


@dataclasses.dataclass(frozen=True)
class Place:
    """What is looked at: a filter, or the events whose `column` is an id."""

    filter: Filter = EVERYTHING
    column: str = ""
    value: str = ""

    def __str__(self) -> str:
        return f"{self.column[1:]} is {self.value}" if self.column else str(self.filter)

    def code(self) -> str:
        """The Python that gives these events."""
        if self.column:
            return f'lab.sql("select * from events.log where {self.column} = $id order by _position", id={self.value!r})'
        return f"lab.read({'' if self.filter == EVERYTHING else self.filter.code()})"


class Browser(Controller):
    """A log as people look through it."""

    def __init__(self, lab: Lab, filter: Filter = EVERYTHING) -> None:
        super().__init__()
        self._lab = lab
        self._past: list[Place] = []
        self._opened: Recorded | None = None
        self._other: Recorded | None = None
        self._look(Place(filter))

    def __repr__(self) -> str:
        return f"Browser({self.place}: {many(self.count, 'event')} of {self.head:,})"

    def code(self) -> str:
        """The Python that gives what is looked at."""
        return self.place.code()

    def state(self) -> dict[str, Any]:
        """All that is drawn, but for pages."""
        return {
            **super().state(), "head": self.head, "count": self.count, "place": str(self.place), "back": len(self._past),
            "text": "" if self.place.column or self.place.filter == EVERYTHING else self.place.filter.code(""),
            "facets": self.facets, "opened": told_event(self._opened), "other": told_event(self._other), "turn_of": self._turn,
            "differs": _differs(self._opened, self._other), "page": PAGE,
        }  # fmt: skip

    def html(self) -> str:
        """The first events, how many there are of each type, and the one that is open."""
        few = self._moment.read(self.place.filter) if not self.place.column else None
        rows = [(f["category"], f["type"], f"{f['count']:,}") for f in self.facets[:20]]
        counted = table(f"{self.place}: {many(self.count, 'event')}", ("category", "type", "events"), rows, right={2})
        opened = told_event(self._opened)
        shown = table("", ("", ""), [*opened["about"], *opened["fields"]]) if opened else ""
        return counted + (events_html(few) if few is not None else "") + shown

    def rows(self, at: int, count: int = PAGE) -> list[dict[str, Any]]:
        """The events from the `at`-th of those that are looked at, as they are listed."""
        wanted = self._positions[max(at, 0) : max(at, 0) + min(count, PAGE)]
        return [
            {
                "position": of.position, "at": of.occurred_at.strftime("%Y-%m-%d %H:%M:%S"), "stream": of.stream,
                "version": of.version, "type": of.type, "text": payload_text(of.data),
            }
            for of in self._events(wanted)
        ]  # fmt: skip

    # -- gestures

    def on_page(self, told: Mapping[str, Any]) -> None:
        """A page is told as a message of its own, with the place in the list that it begins at."""
        at = int(told["at"])
        self.reply({"page": at, "turn_of": self._turn, "rows": self.rows(at, int(told.get("count", PAGE)))})

    def on_filter(self, told: Mapping[str, Any]) -> None:
        """What is typed into the box."""
        self._go(Place(parse(str(told["text"]))))

    def on_type(self, told: Mapping[str, Any]) -> None:
        """One type alone; with `add` beside those that are looked at."""
        self._go(Place(parse(f"events({str(told['type'])!r})")))

    def on_open(self, told: Mapping[str, Any]) -> None:
        """One event, with everything it says."""
        self._opened = self._event_at(int(told["position"]))

    def on_compare(self, told: Mapping[str, Any]) -> None:
        """A second event beside the one that is open; none to put it away."""
        self._other = self._event_at(int(told["position"])) if told.get("position") is not None else None

    def on_close(self, told: Mapping[str, Any]) -> None:
        """No event is open."""
        self._opened = self._other = None

    def on_follow(self, told: Mapping[str, Any]) -> None:
        """From the open event to its stream, its conversation, what caused it, or what it caused."""
        of = self._opened
        if of is None:
            raise InvalidValue("no event is open")
        what = str(told["what"])
        if what == "stream":
            self._go(Place(parse(f"stream({of.stream!r})")))
            return
        ids: dict[str, uuid.UUID | None] = {
            "correlation": of.correlation_id, "cause": of.causation_id, "effects": of.event_id
        }  # fmt: skip
        if what not in ids:
            raise InvalidValue(f"there is no way {what!r} from an event", hint="stream, correlation, cause, effects")
        if ids[what] is None:
            raise InvalidValue(f"the event says no {what}")
        self._go(Place(column=_LINKS[what], value=str(ids[what])))

    def on_back(self, told: Mapping[str, Any]) -> None:
        """What was looked at before."""
        if self._past:
            self._look(self._past.pop())

    def on_refresh(self, told: Mapping[str, Any]) -> None:
        """The log as it is now."""
        self._look(self.place)

    # -- inside

    def _go(self, place: Place) -> None:
        before = self.place
        self._look(place)
        if place != before:
            self._past.append(before)

    def _look(self, place: Place) -> None:
        moment = self._lab.at(position=self._lab.head)
        if place.column:
            asked = f"select _position, _category, _type from events.log where {place.column} = $id"
            lazy = moment.sql(asked, id=place.value).lazy()
        else:
            lazy = moment.read(place.filter).lazy()
        found = lazy.select("_position").collect()["_position"].sort()
        counted = lazy.group_by("_category", "_type").agg(pl.len().alias("n")).collect()
        self._moment, self.place, self.head = moment, place, moment.head
        self._positions: np.ndarray[Any, Any] = found.to_numpy()
        self.count = len(self._positions)
        self.facets = [
            {"category": category, "type": type_, "count": n}
            for category, type_, n in counted.sort(["n", "_type"], descending=[True, False]).rows()
        ]
        self._turn = getattr(self, "_turn", 0) + 1

    def _events(self, wanted: np.ndarray[Any, Any]) -> list[Recorded]:
        if not len(wanted):
            return []
        low, high = int(wanted[0]), int(wanted[-1])
        if high - low <= FAR:
            read = self._moment.read(self.place.filter, after=low - 1, until=high)
            picked = set(wanted.tolist())
            return [event for event in read if event.position in picked]
        return [event for position in wanted.tolist() for event in self._moment.read(after=position - 1, until=position)]

    def _event_at(self, position: int) -> Recorded:
        for event in self._moment.read(after=position - 1, until=position):
            return event
        raise InvalidValue(f"there is no event at position {position:,}", hint=f"1 to {self.head:,}")


def told_event(event: Recorded | None) -> dict[str, Any] | None:
    """An event as a person reads it: about it, and what it says."""
    if event is None:
        return None
    about = [
        ("position", f"{event.position:,}"), ("stream", event.stream), ("version", f"{event.version:,}"), ("type", event.type),
        ("schema version", str(event.schema_version)), ("occurred at, UTC", str(event.occurred_at.replace(tzinfo=None))),
        ("recorded at, UTC", str(event.recorded_at.replace(tzinfo=None))), ("actor", event.actor or ""),
        ("tags", ", ".join(event.tags)), ("id", str(event.event_id)), ("correlation", str(event.correlation_id or "")),
        ("cause", str(event.causation_id or "")),
    ]  # fmt: skip
    return {"position": event.position, "about": about, "fields": list(_fields(event).items())}


def _fields(event: Recorded) -> dict[str, str]:
    data = event.data if isinstance(event.data, dict) else vars(event.data)
    return {name: str(value) for name, value in data.items()}


def _differs(one: Recorded | None, other: Recorded | None) -> list[tuple[str, str, str]]:
    """The fields in which two events differ."""
    if one is None or other is None:
        return []
    a, b = _fields(one), _fields(other)
    return [(name, a.get(name, ""), b.get(name, "")) for name in {**a, **b} if a.get(name) != b.get(name)]
