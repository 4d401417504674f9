"""A log made up from a board: streams that follow its flows, with values of its fields; the same for the same seed."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import random
import uuid
from collections.abc import Mapping
from typing import Any

import polars as pl

from eventlab.errors import InvalidValue
from eventlab.integration.rows import Rows, rows
from eventlab.model.events import EventType
from eventlab.model.names import snake
from eventlab.storming.board import Board, Field, Note
from eventlab.storming.information import hint_of, made_up
from eventlab.storming.process import MONDAY


def simulate(
    board: Board, streams: int, *, seed: int = 0, start: dt.datetime = MONDAY, types: Mapping[str, type[Any]] | None = None
) -> list[Rows]:
    """Sources for `lab.ingest`: so many streams of each flow of a board.

    Orders, branches and waiting times are those of the flows (`Process.simulate`); each field gets a made up value of its type.
    `types` gives the classes of events that have one; the others need none.
    """
    if not board.flows:
        raise InvalidValue(f"{board.name} has no flow to simulate", hint='board.with_flow(el.Process("order", (el.Move(…), …)))')
    known = {note.name: note for note in board.find("event")}
    made = []
    for number, flow in enumerate(board.flows):
        walked = flow.simulate(streams, seed=seed + number, start=start)
        for (step,), part in walked.partition_by("step", as_dict=True, maintain_order=True).items():
            fields = known[step].fields if step in known else ()
            chance = random.Random(f"{seed} {flow.category} {step}")
            frame = part.drop("step").with_columns(_column(of, len(part), chance) for of in fields)
            kind = (types or {}).get(str(step)) or _class(known.get(str(step)) or Note("event", str(step)))
            made.append(rows(kind, frame, stream=f"{flow.category}-{{id}}", occurred_at="at"))
    return made


def category_of(note: Note) -> str:
    """The category of the streams of an aggregate."""
    return snake(note.name)


def _column(field: Field, count: int, chance: random.Random) -> pl.Series:
    values = [_given(made_up(field.type, chance)) for _ in range(count)]
    return pl.Series(field.name, values)


def _given(value: Any) -> Any:
    """A value as the rows of an ingest hold it: lists and mappings as JSON."""
    if isinstance(value, (list, tuple, frozenset, dict)):
        return json.dumps(value if isinstance(value, (list, dict)) else list(value), default=str)
    return str(value) if isinstance(value, uuid.UUID) else value


def _class(note: Note) -> type[Any]:
    """A class of events for the ingest alone: it is registered nowhere, and events are read back as their fields."""
    hints = {of.name: hint_of(of.type) for of in note.fields}
    made: type[Any] = dataclasses.make_dataclass(note.name, hints.items(), frozen=True)
    made.__doc__, made.__module__ = note.text or note.name, "board"
    made.__eventlab_type__ = EventType(made, note.name, 1, True, hints)
    return made
