"""A trace: the events of one conversation with who caused whom, how long after, and what is missing between them."""

from __future__ import annotations

import datetime as dt
import uuid
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from eventlab.store.words import many, mermaid_text

#: A wait of at least this share of the whole is a gap.
GAP = 0.25


@dataclass(frozen=True, eq=False)
class Trace:
    """The events of a conversation in the order of the log.

    `frame` has a row for each: `position`, `at`, `after` (the time since the first), `stream`, `version`, `type`, `actor`,
    `depth` (how many causes lie before it here), `cause` (the position of the event that caused it), `command` (it was caused by
    something that is no event here: a command, or an event of another log), `gap` (before it lies a wait of a quarter of the
    whole or more).
    """

    id: str
    events: int
    frame: pl.DataFrame = field(repr=False)

    @property
    def lasted(self) -> dt.timedelta:
        """From the first event to the last."""
        found = self.frame["after"].max()
        return found if isinstance(found, dt.timedelta) else dt.timedelta()

    @property
    def orphans(self) -> pl.DataFrame:
        """Events whose cause is not here: those of commands, and those that came from elsewhere."""
        return self.frame.filter("command")

    def __repr__(self) -> str:
        streams = self.frame["stream"].n_unique()
        return f"Trace({many(self.events, 'event')} of {many(streams, 'stream')} in {self.lasted})"

    def code(self) -> str:
        """The Python that gives it in another cell."""
        return f"lab.trace({self.id!r})"

    def mermaid(self) -> str:
        """Who caused whom, as a Mermaid flowchart."""
        lines = ["flowchart LR"]
        for row in self.frame.to_dicts():
            said = f"{mermaid_text(row['type'])}<br/><small>{mermaid_text(row['stream'])}</small>"
            lines.append(f'    e{row["position"]}["{said}"]')
            if row["cause"] is not None:
                lines.append(f"    e{row['cause']} --> e{row['position']}")
            elif row["command"]:
                lines.append(f"    c{row['position']}([command]) -.-> e{row['position']}")
        return "\n".join(lines) + "\n"


def trace_of(rows: pl.DataFrame, id: uuid.UUID) -> Trace:
    """From the envelopes of the events of a conversation."""
    at: dict[Any, dict[str, Any]] = {}
    told: list[dict[str, Any]] = []
    listed = rows.sort("_position").to_dicts()
    first: dt.datetime | None = listed[0]["_occurred_at"] if listed else None
    whole = max(row["_occurred_at"] for row in listed) - first if first is not None else dt.timedelta()
    before = first
    for row in listed:
        cause = at.get(row["_causation_id"])
        moment = row["_occurred_at"]
        one = {
            "position": row["_position"], "at": moment, "after": moment - (first or moment), "stream": row["_stream"],
            "version": row["_version"], "type": row["_type"], "actor": row["_actor"],
            "depth": cause["depth"] + 1 if cause else 0, "cause": cause["position"] if cause else None,
            "command": row["_causation_id"] is not None and cause is None,
            "gap": bool(whole) and before is not None and (moment - before) >= whole * GAP,
        }  # fmt: skip
        before = max(before or moment, moment)
        at[row["_event_id"]] = one
        told.append(one)
    kinds: dict[str, Any] = {
        "position": pl.Int64, "at": pl.Datetime("us", "UTC"), "after": pl.Duration("us"), "stream": pl.String,
        "version": pl.Int64, "type": pl.String, "actor": pl.String, "depth": pl.Int64, "cause": pl.Int64, "command": pl.Boolean,
        "gap": pl.Boolean,
    }  # fmt: skip
    return Trace(str(id), len(told), pl.DataFrame(told, schema=kinds, orient="row"))
