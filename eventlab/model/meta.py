"""The envelope: what is recorded about an event beside its payload."""

from __future__ import annotations

import contextlib
import datetime as dt
import uuid
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any, Protocol

from eventlab.model.names import check_plain, split_stream
from eventlab.model.types import as_uuid, from_us

DEFAULT_TENANT = "default"


class Envelopes(Protocol):
    """The envelope columns of many events, as lists of stored values."""

    position: list[int]
    stream: list[str]
    version: list[int]
    type: list[str]
    schema_version: list[int]
    event_id: list[bytes]
    recorded_at: list[int]
    occurred_at: list[int]
    correlation_id: list[bytes | None]
    causation_id: list[bytes | None]
    actor: list[str | None]
    tenant: list[str]
    tags: list[list[str]]


class Meta:
    """Where and when an event was recorded, and by whom; `evolve` and `key` may take it as their second parameter.

    It looks at columns that are shared by many events and converts a value when it is asked for.
    """

    __slots__ = ("_columns", "_row")

    def __init__(self, columns: Envelopes, row: int) -> None:
        self._columns = columns
        self._row = row

    @property
    def position(self) -> int:
        """Place in the log, from 1."""
        return self._columns.position[self._row]

    @property
    def stream(self) -> str:
        return self._columns.stream[self._row]

    @property
    def category(self) -> str:
        return split_stream(self.stream)[0]

    @property
    def id(self) -> str:
        """The id of the stream: what follows the category and the dash."""
        return split_stream(self.stream)[1]

    @property
    def version(self) -> int:
        """Place in the stream, from 1."""
        return self._columns.version[self._row]

    @property
    def type(self) -> str:
        return self._columns.type[self._row]

    @property
    def schema_version(self) -> int:
        return self._columns.schema_version[self._row]

    @property
    def event_id(self) -> uuid.UUID:
        return uuid.UUID(bytes=self._columns.event_id[self._row])

    @property
    def recorded_at(self) -> dt.datetime:
        """When the log took it, in UTC; never goes back, and one append shares it."""
        return from_us(self._columns.recorded_at[self._row])

    @property
    def occurred_at(self) -> dt.datetime:
        """When it happened in the business, in UTC."""
        return from_us(self._columns.occurred_at[self._row])

    @property
    def correlation_id(self) -> uuid.UUID | None:
        """The conversation this event belongs to."""
        return _uuid(self._columns.correlation_id[self._row])

    @property
    def causation_id(self) -> uuid.UUID | None:
        """The event or command that caused this event."""
        return _uuid(self._columns.causation_id[self._row])

    @property
    def actor(self) -> str | None:
        return self._columns.actor[self._row]

    @property
    def tenant(self) -> str:
        return self._columns.tenant[self._row]

    @property
    def tags(self) -> tuple[str, ...]:
        return tuple(self._columns.tags[self._row])

    def __repr__(self) -> str:
        return f"Meta(position={self.position}, stream={self.stream!r}, version={self.version}, type={self.type!r})"


class Recorded(Meta):
    """An event with its place in the log: `data` is the event, or a dict of its fields where its class is not known."""

    __slots__ = ("data",)

    def __init__(self, columns: Envelopes, row: int, data: Any) -> None:
        super().__init__(columns, row)
        self.data = data

    def __repr__(self) -> str:
        shown = self.data if not isinstance(self.data, dict) else f"{self.type}({self.data})"
        return f"Recorded({self.position}, {self.stream!r} @{self.version}, {shown})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Recorded):
            return NotImplemented
        return (self.event_id, self.position, self.data) == (other.event_id, other.position, other.data)

    def __hash__(self) -> int:
        return hash((self.event_id, self.position))


def _uuid(raw: bytes | None) -> uuid.UUID | None:
    return None if raw is None else uuid.UUID(bytes=raw)


# -- context -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Context:
    """Who acts, for whom, and in which conversation; filled into every event appended inside it."""

    actor: str | None = None
    tenant: str | None = None
    correlation_id: uuid.UUID | None = None
    causation_id: uuid.UUID | None = None


_NOBODY = Context()
_CONTEXT: ContextVar[Context] = ContextVar("eventlab_context", default=_NOBODY)


def current_context() -> Context:
    """The context of this thread or task."""
    return _CONTEXT.get()


@contextlib.contextmanager
def context(
    *,
    actor: str | None = None,
    tenant: str | None = None,
    correlation_id: uuid.UUID | str | None = None,
    causation_id: uuid.UUID | str | None = None,
) -> Iterator[Context]:
    """Fill in the envelope of what is appended inside; what is not given stays as it was outside.

    >>> with context(actor="ada"), context(tenant="acme") as inner:
    ...     inner.actor, inner.tenant
    ('ada', 'acme')
    """
    given: dict[str, Any] = {}
    if actor is not None:
        given["actor"] = check_plain(actor, "actor")
    if tenant is not None:
        given["tenant"] = check_plain(tenant, "tenant")
    if correlation_id is not None:
        given["correlation_id"] = as_uuid(correlation_id, "correlation_id")
    if causation_id is not None:
        given["causation_id"] = as_uuid(causation_id, "causation_id")
    inner = replace(_CONTEXT.get(), **given)
    token = _CONTEXT.set(inner)
    try:
        yield inner
    finally:
        _CONTEXT.reset(token)
