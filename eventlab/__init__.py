"""eventlab: a workbench for event sourcing. State is a fold over the log; a command adds to the log; all else is a read.

    import eventlab as el

The way through the package is the way of the data: `model` (what an event, an aggregate, a projection is) → `commands`
(load, decide, append) → `store` (the log) → `replay` (the fold) → `projections` and `temporal` (tables, moments) → `lab`.
`integration` brings events in and out, `determinism` proves replay, `storming` says what happens in a log, `domains` are
examples, `display` and `cli` the faces.
"""

from dataclasses import field
from importlib import import_module
from typing import TYPE_CHECKING, Any

from eventlab.errors import Conflict, EventlabError, Rejected, StaleType
from eventlab.model.events import command, downcast, event, findings, new, upcast
from eventlab.model.filters import Filter, category, events, stream, tag
from eventlab.model.meta import Meta, Recorded, context
from eventlab.model.models import aggregate, instead, projection
from eventlab.model.queries import query
from eventlab.model.types import AnyFloat, ExactDecimal, Money, Scale, Tag, money

if TYPE_CHECKING:
    from eventlab.determinism.lint import lint
    from eventlab.display.widgets import browse, follow, inspect, slide, step, storm, watch
    from eventlab.integration.ingest import Rows, rows
    from eventlab.lab import Lab, open, scratch
    from eventlab.projections.consumers import consumer
    from eventlab.projections.handmade import frame_projection, sql_projection
    from eventlab.store.base import ALL
    from eventlab.storming.board import Board, Example, Fact, Note
    from eventlab.storming.process import Move, Process
    from eventlab.temporal.moment import Moment
    from eventlab.temporal.snapshots import SnapshotPolicy

__version__ = "0.1.0"

__all__ = [
    "ALL", "AnyFloat", "Board", "Conflict", "EventlabError", "ExactDecimal", "Example", "Fact", "Filter", "Lab", "Meta",
    "Moment", "Money", "Move", "Note", "Process", "Recorded", "Rejected", "Rows", "Scale", "SnapshotPolicy", "StaleType", "Tag",
    "aggregate", "browse", "category", "command", "consumer", "context", "downcast", "event", "events", "field", "findings",
    "follow", "frame_projection", "inspect", "instead", "lint", "money", "new", "open", "projection", "query", "rows", "scratch",
    "slide", "sql_projection", "step", "storm", "stream", "tag", "upcast", "watch",
]  # fmt: skip

# What needs DuckDB, Polars and PyArrow is imported when it is first named, so that a module of events loads at once.
_LATE = {
    "ALL": "eventlab.store.base",
    "Board": "eventlab.storming.board",
    "browse": "eventlab.display.widgets",
    "follow": "eventlab.display.widgets",
    "watch": "eventlab.display.widgets",
    "Example": "eventlab.storming.board",
    "Fact": "eventlab.storming.board",
    "Note": "eventlab.storming.board",
    "Lab": "eventlab.lab",
    "Moment": "eventlab.temporal.moment",
    "Move": "eventlab.storming.process",
    "Process": "eventlab.storming.process",
    "Rows": "eventlab.integration.ingest",
    "consumer": "eventlab.projections.consumers",
    "lint": "eventlab.determinism.lint",
    "frame_projection": "eventlab.projections.handmade",
    "open": "eventlab.lab",
    "rows": "eventlab.integration.ingest",
    "SnapshotPolicy": "eventlab.temporal.snapshots",
    "scratch": "eventlab.lab",
    "sql_projection": "eventlab.projections.handmade",
    "inspect": "eventlab.display.widgets",
    "slide": "eventlab.display.widgets",
    "step": "eventlab.display.widgets",
    "storm": "eventlab.display.widgets",
}


def __getattr__(name: str) -> Any:
    if name not in _LATE:
        raise AttributeError(f"module 'eventlab' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_LATE[name]), name)
    if _LATE[name] in ("eventlab.lab", "eventlab.storming.board", "eventlab.display.widgets"):
        # Progress and rich display come from above: the lab does not know of them.
        import_module("eventlab.display").register()
    return value


def load_ipython_extension(shell: Any) -> None:
    """`%load_ext eventlab`: brings the magics `%%events` and `%at`."""
    import_module("eventlab.display.magics").register(shell)


def __dir__() -> list[str]:
    return sorted(__all__)
