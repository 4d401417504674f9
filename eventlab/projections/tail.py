"""The end of a log, read once for several read models that catch up together."""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator, Mapping, Sequence

import pyarrow as pa

from eventlab.model.filters import EVERYTHING, Filter
from eventlab.model.schema import Schema
from eventlab.store.base import Batch, Cut, Held, SourceGroup, Tenant, picked
from eventlab.store.columns import ENVELOPE_NAMES
from eventlab.store.segment import clip


class Tail:
    """A cut that keeps what it has read after a position: who asks for less of that is given it from there.

    It is all in memory, so it is for a bounded number of events. What begins before the position is the cut's.
    """

    def __init__(self, cut: Cut, after: int) -> None:
        self._cut, self._after = cut, after
        self._read: dict[Tenant, list[Batch]] = {}
        self._lock = threading.Lock()
        self.head = cut.head

    @property
    def schemas(self) -> Mapping[tuple[str, int], Schema]:
        """Those of the cut."""
        return self._cut.schemas

    @property
    def types_of(self) -> Mapping[tuple[str, str], frozenset[tuple[str, int]]]:
        """Those of the cut."""
        return self._cut.types_of

    def batches(
        self,
        filter: Filter = EVERYTHING,
        *,
        tenant: Tenant,
        after: int = 0,
        until: int | None = None,
        envelope: Sequence[str] = ENVELOPE_NAMES,
        types: Collection[str] | None = None,
    ) -> Iterator[Batch]:
        """See `Cut`; there may be more columns than were asked for."""
        if after < self._after:
            yield from self._cut.batches(filter, tenant=tenant, after=after, until=until, envelope=envelope, types=types)
            return
        with self._lock:
            if tenant not in self._read:
                self._read[tenant] = list(self._cut.batches(tenant=tenant, after=self._after))
        end = self.head if until is None else min(until, self.head)
        for batch in self._read[tenant]:
            tables = tuple(_wanted(table, filter, after, end) for table in batch.tables)
            if all(len(mine) == len(table) for mine, table in zip(tables, batch.tables, strict=True)):
                # The same one, for then others have its columns decoded.
                yield batch
            elif some := tuple(table for table in tables if len(table)):
                yield Batch(some, batch.schemas, batch.sealed)

    def stream(
        self,
        stream: str,
        *,
        tenant: str,
        after_version: int = 0,
        until: int | None = None,
        envelope: Sequence[str] = ENVELOPE_NAMES,
        types: Collection[str] | None = None,
    ) -> Iterator[Batch]:
        """See `Cut`."""
        return self._cut.stream(
            stream, tenant=tenant, after_version=after_version, until=until, envelope=envelope, types=types
        )

    def position_at(self, recorded_us: int) -> int:
        """See `Cut`."""
        return self._cut.position_at(recorded_us)

    def sources(self, tenant: Tenant) -> list[SourceGroup]:
        """See `Cut`."""
        return self._cut.sources(tenant)

    def hold(self) -> Held:
        """See `Cut`."""
        return self._cut.hold()


def _wanted(table: pa.Table, filter: Filter, after: int, until: int) -> pa.Table:
    category = table.column("stream")[0].as_py().partition("-")[0]
    return clip(picked(table, category, filter), after, until)
