"""A conversation followed: its events as a waterfall and as a graph, from each to what caused it and what it caused."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Mapping
from typing import Any, Final

from eventlab.display import charts
from eventlab.display.browsing import told_event
from eventlab.display.html import trace_html
from eventlab.display.view import Controller
from eventlab.errors import InvalidValue
from eventlab.lab import Lab
from eventlab.model.meta import Recorded
from eventlab.store.words import many

#: Events of a conversation that are listed.
LISTED: Final = 1_000


class Follower(Controller):
    """The events of a conversation, of which one is looked at."""

    def __init__(self, lab: Lab, of: Recorded | uuid.UUID | str) -> None:
        super().__init__()
        self._lab, self._of = lab, of
        self._look()
        here = [at for at, row in enumerate(self._rows) if isinstance(of, Recorded) and row["position"] == of.position]
        self.at = here[0] if here else 0
        self._open()

    def __repr__(self) -> str:
        return f"Follower({self.trace!r})"

    def code(self) -> str:
        """The Python that gives the conversation."""
        return self.trace.code()

    def state(self) -> dict[str, Any]:
        """All that is drawn; the graph is a picture already."""
        whole = max(self.trace.lasted, dt.timedelta(microseconds=1))
        rows = [
            {
                "position": row["position"], "after": f"+{row['after']}", "share": row["after"] / whole,
                "depth": row["depth"], "type": row["type"], "stream": row["stream"], "actor": row["actor"] or "",
                "command": row["command"], "gap": row["gap"],
            }
            for row in self._rows
        ]  # fmt: skip
        chosen = self._rows[self.at]["position"] if self._rows else None
        hidden = self.trace.events - len(rows)
        said = f"{self.trace!r}"[6:-1] + (f"; {many(hidden, 'event')} not listed" if hidden else "")
        return {
            **super().state(), "said": said, "rows": rows, "at": self.at, "opened": told_event(self._opened),
            "graph": charts.causes(self.trace, chosen), "orphans": len(self.trace.orphans),
        }  # fmt: skip

    def html(self) -> str:
        """The waterfall and the graph."""
        return trace_html(self.trace)

    # -- gestures

    def on_to(self, told: Mapping[str, Any]) -> None:
        """To an event, by its place in the list."""
        at = int(told["at"])
        if not 0 <= at < len(self._rows):
            raise InvalidValue(f"there is no event {at}", hint=f"0 to {len(self._rows) - 1}")
        self.at = at
        self._open()

    def on_cause(self, told: Mapping[str, Any]) -> None:
        """To the event that caused the one at hand."""
        cause = self._rows[self.at]["cause"] if self._rows else None
        if cause is None:
            raise InvalidValue("it was caused by nothing that is an event here")
        self._to_position(cause)

    def on_effect(self, told: Mapping[str, Any]) -> None:
        """To the first event that the one at hand caused."""
        here = self._rows[self.at]["position"] if self._rows else None
        found = [row["position"] for row in self._rows if row["cause"] == here]
        if not found:
            raise InvalidValue("it caused no event here")
        self._to_position(found[0])

    def on_refresh(self, told: Mapping[str, Any]) -> None:
        """The conversation as it is now."""
        self._look()
        self.at = min(self.at, max(len(self._rows) - 1, 0))
        self._open()

    def _look(self) -> None:
        self.trace = self._lab.trace(self._of)
        self._rows = self.trace.frame.head(LISTED).to_dicts()

    def _to_position(self, position: int) -> None:
        self.at = next(at for at, row in enumerate(self._rows) if row["position"] == position)
        self._open()

    def _open(self) -> None:
        self._opened = None
        if self._rows:
            at = self._rows[self.at]["position"]
            (self._opened,) = self._lab.read(after=at - 1, until=at)
