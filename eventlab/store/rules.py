"""The rules of append that every store keeps: versions, repeats, and the row a draft becomes."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

from eventlab.errors import Conflict, DuplicateEvent
from eventlab.store.base import Draft, Row


def recorded(draft: Draft, position: int, version: int, tenant: str, recorded_at: int, commit: int) -> Row:
    """The row of a draft at its place in the log."""
    return Row(
        position, tenant, draft.stream, version, draft.schema.name, draft.schema.version, draft.event_id, recorded_at,
        recorded_at if draft.occurred_at is None else draft.occurred_at,
        draft.correlation_id, draft.causation_id, draft.actor, draft.tags, commit, draft.payload,
    )  # fmt: skip


def refuse_stale(stream: str, expected: int, actual: int, types: Sequence[str]) -> None:
    """`Conflict`, with the numbers, unless the stream is at the expected version."""
    if expected == actual:
        return
    shown = ", ".join(types[:5]) + (", …" if len(types) > 5 else "")
    since = (
        f" ({actual - expected} event{'s'[: actual - expected != 1]} since you loaded it: {shown})" if actual > expected else ""
    )
    raise Conflict(
        f"cannot append to {stream!r}: expected version {expected}, but it is at version {actual}{since}.",
        hint="load and decide again, or let lab.handle(…, attempts=3) do it.",
        stream=stream,
        expected=expected,
        actual=actual,
    )


def same_append(drafts: Sequence[Draft], found: Sequence[tuple[int, bytes] | None]) -> tuple[int, ...] | None:
    """The positions of an append that is repeated, None for a new one; anything between is `DuplicateEvent`."""
    known = [f for f in found if f is not None]
    if not known:
        return None
    positions = tuple(position for position, _ in known)
    same = len(known) == len(drafts) and all(f[1] == d.content for f, d in zip(known, drafts, strict=True))
    if same and positions == tuple(sorted(positions)):
        return positions
    other = next((d for f, d in zip(found, drafts, strict=True) if f is not None and f[1] != d.content), None)
    if other is not None:
        message = f"the id {uuid.UUID(bytes=other.event_id)} is in the log already, for an event that says something else"
    else:
        message = f"{len(known)} of these {len(drafts)} event ids are in the log already, at {', '.join(map(str, positions[:5]))}"
    raise DuplicateEvent(message, hint="repeat an append exactly as it was, or give new ids or another key=", positions=positions)
