"""The rules of append that every store keeps: versions, repeats, and the row a draft becomes."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence

from eventlab.errors import Conflict, DuplicateEvent, IngestRefused
from eventlab.model.schema import Schema
from eventlab.model.types import from_us
from eventlab.store.base import Appended, Condition, Draft, Row, content_digest, pack


def recorded(draft: Draft, position: int, version: int, tenant: str, recorded_at: int, commit: int) -> Row:
    """The row of a draft at its place in the log."""
    return Row(
        position, tenant, draft.stream, version, draft.schema.name, draft.schema.version, draft.event_id, recorded_at,
        recorded_at if draft.occurred_at is None else draft.occurred_at,
        draft.correlation_id, draft.causation_id, draft.actor, draft.tags, commit, draft.payload,
    )  # fmt: skip


def placed(drafts: Sequence[Draft], head: int, versions: Mapping[str, int], tenant: str, recorded_at: int) -> list[Row]:
    """The rows of drafts that one append puts behind `head`, where their streams are at these versions: `recorded`, at once."""
    if len({draft.stream for draft in drafts}) > 1:
        rows, reached = [], dict(versions)
        for position, draft in enumerate(drafts, head + 1):
            reached[draft.stream] = version = reached.get(draft.stream, 0) + 1
            rows.append(recorded(draft, position, version, tenant, recorded_at, head + 1))
        return rows
    version, commit = versions.get(drafts[0].stream, 0), head + 1
    return [
        Row(
            head + at, tenant, stream, version + at, schema.name, schema.version, event_id, recorded_at,
            recorded_at if occurred_at is None else occurred_at, correlation, causation, actor, tags, commit, payload,
        )
        for at, (stream, schema, payload, event_id, occurred_at, correlation, causation, actor, tags) in enumerate(drafts, 1)
    ]  # fmt: skip


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


def refuse_met(condition: Condition, found: Sequence[tuple[int, str]]) -> None:
    """`Conflict`, when events that the condition is about came after what the writer saw; (position, type) of each."""
    if not found:
        return
    names = list(dict.fromkeys(name for _, name in found))
    shown = ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
    raise Conflict(
        f"cannot append: {len(found)} event{'s'[: len(found) != 1]} that {condition.filter} picks came after position "
        f"{condition.after:,}, the first at {found[0][0]:,}: {shown}.",
        hint="read and decide again, or let lab.decide(filter, function, attempts=3) do it.",
        condition=condition,
        position=found[0][0],
    )


def refuse_early(source: str, first: int, last: int) -> None:
    """`IngestRefused` for imported history that begins before the store's last record: `recorded_at` never goes back."""
    if first < last:
        raise IngestRefused(
            f"imported history of {source!r} begins at {_iso(first)}, before the store's last record at {_iso(last)}",
            hint="import history before live events, or into a store of its own, or leave recorded_at out",
        )


def _iso(us: int) -> str:
    return from_us(us).isoformat().replace("+00:00", "Z")


def late_retry(
    drafts: Sequence[Draft],
    expected: Mapping[str, int],
    rows_after: Callable[[str, int], Sequence[Row]],
    schemas: Mapping[tuple[str, int], Schema],
) -> Appended | None:
    """What an append did the first time, when the events after the expected versions carry exactly its ids.

    So a success that is repeated late is known for what it is, however long ago the store forgot the ids.
    """
    streams: dict[str, list[bytes]] = {}
    for draft in drafts:
        streams.setdefault(draft.stream, []).append(draft.event_id)
    if not streams.keys() <= expected.keys():
        return None
    found: dict[bytes, Row] = {}
    for stream, ids in streams.items():
        rows = rows_after(stream, expected[stream])[: len(ids)]
        if [row.event_id for row in rows] != ids:
            return None
        found |= {row.event_id: row for row in rows}
    rows = [found[draft.event_id] for draft in drafts]
    contents = [content_digest(row.stream, (row.type, row.schema_version), pack(row.payload)) for row in rows]
    positions = same_append(drafts, [(row.position, content) for row, content in zip(rows, contents, strict=True)])
    return Appended(positions or (), tuple(row.version for row in rows), ids_of(drafts), repeated=True)


def ids_of(drafts: Sequence[Draft]) -> tuple[bytes, ...]:
    """The ids of drafts, in their order."""
    return tuple(draft.event_id for draft in drafts)


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
