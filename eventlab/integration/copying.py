"""Copies of a log into another one, with a transformation on the way: for merges, moves, and mistakes that must go for good.

The log that is copied stays as it is. Events keep their ids, times, actors and causes; each is its own commit in the copy, as
imported history is. What was copied is known: the same copy again goes on after the last event that came over.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, is_dataclass
from typing import Any, Final, Literal

import pyarrow as pa

from eventlab.errors import InvalidValue, ModelError
from eventlab.model.events import New, event_type
from eventlab.model.filters import Filter
from eventlab.model.ids import derived
from eventlab.model.meta import Recorded
from eventlab.model.names import split_stream
from eventlab.model.schema import Schema
from eventlab.model.types import moment_us
from eventlab.store.base import ALL, Chunk, ClassOf, Cut, Draft, Row, Store, Tenant, rows_to_table
from eventlab.store.rules import recorded

#: What becomes of an event: itself (the same `Recorded`), nothing, an event, a stream and an event, or several of these.
Transform = Callable[[Recorded], Any]
#: So many events are looked at for one chunk of the copy.
CHUNK: Final = 50_000
_DECIDED: Final = ("position", "version", "tenant", "commit")


@dataclass(frozen=True)
class Copied:
    """What a copy did: events looked at, events written, those dropped; and up to which position of the source."""

    source: str
    events: int
    written: int
    dropped: int
    position: int


def copy(
    cut: Cut, until: int, tenant: Tenant, name: str, to: Store, to_tenant: str, class_of: ClassOf, filter: Filter,
    transform: Transform | None, recorded_at: Literal["keep", "now"], advance: Callable[[int], None],
) -> Copied:  # fmt: skip
    """Copy what a filter picks, from where an earlier copy of the same name came to."""
    chunks = to.chunks(to_tenant, name)
    after = max((_come(state.digest) for state in chunks.values()), default=0)
    number = max(chunks, default=-1) + 1
    seen = written = 0
    while after < until:
        end = min(after + CHUNK, until)
        rows: list[tuple[Draft, int]] = []
        for batch in cut.batches(filter, tenant=tenant, after=after, until=end):
            for row, event in zip(batch.rows(), batch.recorded(class_of), strict=True):
                seen += 1
                rows += [(draft, row.recorded_at) for draft in _drafts(row, event, cut, to_tenant, transform)]
            advance(len(batch))
        if rows:
            written += len(rows)
            to.ingest(_chunk(name, number, rows, end, to_tenant, imported=recorded_at == "keep"), tenant=to_tenant)
            number += 1
        after = end
    return Copied(name, seen, written, max(seen - written, 0), until)


def _drafts(row: Row, event: Recorded, cut: Cut, tenant: str, transform: Transform | None) -> Iterator[Draft]:
    found = event if transform is None else transform(event)
    if found is event:
        schema = cut.schemas[row.type, row.schema_version]
        yield _draft(row, row.stream, schema, row.payload, row.event_id, row.tags)
        return
    for at, (stream, given) in enumerate(_pairs(found, event, transform)):
        plain = given.event if isinstance(given, New) else given
        try:
            kind = event_type(type(plain))
        except ModelError:
            raise _refused(transform, event, f"{plain!r:.80}, which is no event") from None
        split_stream(stream)
        own = given if isinstance(given, New) else New(plain)
        # The first keeps the id: whoever knows the event by it finds what became of it.
        event_id = own.id.bytes if own.id else row.event_id if at == 0 else derived(row.event_id.hex(), at + 1, tenant)[at]
        tags = tuple(dict.fromkeys((*kind.tags(plain), *own.tags, *(() if kind.tag_fields else row.tags))))
        made = _draft(row, stream, kind.schema, kind.encode(plain), event_id, tags)
        if own.occurred_at is not None:
            made = made._replace(occurred_at=moment_us(own.occurred_at, f"occurred_at of {kind.name}"))
        yield made


def _refused(transform: Transform | None, event: Recorded, what: str) -> InvalidValue:
    """That a transformation gave what cannot be copied."""
    return InvalidValue(
        f"transform {getattr(transform, '__qualname__', repr(transform))} gave {what}, for the {event.type} at position "
        f"{event.position:,}",
        hint='give the event it took, event.data, another event, ("order-7", event), a list of these, or None to drop it',
        position=event.position,
    )  # fmt: skip


def _pairs(found: Any, event: Recorded, transform: Transform | None) -> Iterator[tuple[str, Any]]:
    """What a transformation gave, as streams and events."""
    if found is None:
        return
    if isinstance(found, tuple) and len(found) == 2 and isinstance(found[0], str):
        yield found
    elif isinstance(found, Recorded):
        raise _refused(transform, event, "another recorded event than it was given")
    elif isinstance(found, Iterable) and not isinstance(found, (str, bytes)) and not is_dataclass(found):
        for part in found:
            yield from _pairs(part, event, transform)
    else:
        yield event.stream, found


def _draft(row: Row, stream: str, schema: Schema, payload: tuple[Any, ...], event_id: bytes, tags: tuple[str, ...]) -> Draft:
    return Draft(
        stream, schema, tuple(payload), event_id=event_id, occurred_at=row.occurred_at, correlation_id=row.correlation_id,
        causation_id=row.causation_id, actor=row.actor, tags=tags,
    )  # fmt: skip


def _chunk(name: str, number: int, rows: list[tuple[Draft, int]], end: int, tenant: str, *, imported: bool) -> Chunk:
    """Drafts with their times of record as one chunk of an ingest."""
    schemas = {draft.schema.key: draft.schema for draft, _ in rows}
    by_category: dict[str, list[Row]] = {}
    for offset, (draft, at) in enumerate(rows):
        by_category.setdefault(draft.stream.partition("-")[0], []).append(recorded(draft, offset, 0, tenant, at, 0))
    tables = {}
    for category, listed in by_category.items():
        table = rows_to_table(listed, schemas)
        offsets = table.column("position")
        gone = [*_DECIDED, *(() if imported else ("recorded_at",))]
        tables[category] = table.drop_columns(gone).append_column("offset", offsets.cast(pa.int64()))
    return Chunk(name, number, _COME.pack(end), len(rows), tables, tuple(schemas.values()), imported)


#: The position that the source was read up to, in place of a digest: a copy is known by its source and that.
_COME: Final = struct.Struct(">q")


def _come(digest: bytes) -> int:
    return int(_COME.unpack(digest)[0]) if len(digest) == _COME.size else 0


def refuse_all(tenant: Tenant) -> None:
    """A copy of every tenant into one would mix their streams."""
    if tenant is ALL:
        raise InvalidValue("a copy is of one tenant", hint='el.open(path, tenant="acme").copy(…)')
