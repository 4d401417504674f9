"""The log by its other clock: only what had occurred by a moment, in the order in which it was recorded.

What was true then, as far as is known now; what was known then is `at` by the recorded clock. A fold that minds the order of
events sees them as they came to be known: a correction that was recorded late comes late.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from eventlab.model.filters import EVERYTHING, Filter
from eventlab.model.schema import Schema
from eventlab.store.base import Batch, Cut, Held, SourceGroup, Tenant
from eventlab.store.columns import ENVELOPE, ENVELOPE_NAMES

_MOMENT = ENVELOPE.field("occurred_at").type


class OccurredCut:
    """A cut without the events that occurred after a moment, in microseconds since 1970."""

    #: A stream may begin with an event that is left out.
    whole_streams = False

    def __init__(self, cut: Cut, occurred_us: int) -> None:
        self._cut = cut
        self._last = pa.scalar(occurred_us, pa.int64()).cast(_MOMENT)

    @property
    def head(self) -> int:
        return self._cut.head

    @property
    def schemas(self) -> Mapping[tuple[str, int], Schema]:
        return self._cut.schemas

    @property
    def types_of(self) -> Mapping[tuple[str, str], frozenset[tuple[str, int]]]:
        return self._cut.types_of

    def batches(
        self, filter: Filter = EVERYTHING, *, tenant: Tenant, after: int = 0, until: int | None = None,
        envelope: Sequence[str] = ENVELOPE_NAMES, types: Collection[str] | None = None,
    ) -> Iterator[Batch]:  # fmt: skip
        """The events picked that had occurred, in position order."""
        names = tuple(dict.fromkeys((*envelope, "occurred_at")))
        yield from self._kept(self._cut.batches(filter, tenant=tenant, after=after, until=until, envelope=names, types=types))

    def stream(
        self, stream: str, *, tenant: str, after_version: int = 0, until: int | None = None,
        envelope: Sequence[str] = ENVELOPE_NAMES, types: Collection[str] | None = None,
    ) -> Iterator[Batch]:  # fmt: skip
        """One stream's events that had occurred, in order."""
        names = tuple(dict.fromkeys((*envelope, "occurred_at")))
        found = self._cut.stream(
            stream, tenant=tenant, after_version=after_version, until=until, envelope=names, types=types
        )
        yield from self._kept(found)

    def position_at(self, recorded_us: int) -> int:
        """The end of the last commit recorded at or before a moment."""
        return self._cut.position_at(recorded_us)

    def sources(self, tenant: Tenant) -> list[SourceGroup]:
        """What SQL reads: tables in memory, in the order of positions."""
        return [self._table_of(group) for group in self._cut.sources(tenant)]

    def hold(self) -> Held:
        """See `Cut`."""
        return self._cut.hold()

    def _kept(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        for batch in batches:
            tables = tuple(table for table in map(self._filtered, batch.tables) if len(table))
            if tables:
                yield Batch(tables, batch.schemas)

    def _filtered(self, table: pa.Table) -> pa.Table:
        return table.filter(pc.less_equal(table.column("occurred_at"), self._last))

    def _table_of(self, group: SourceGroup) -> SourceGroup:
        if group.table is not None:
            return replace(group, table=self._filtered(group.table))
        columns = [*ENVELOPE_NAMES, *group.columns]
        found = ds.dataset(list(group.paths)).to_table(columns=columns, filter=ds.field("occurred_at") <= self._last)
        return replace(group, table=found.sort_by("position").combine_chunks(), paths=(), files=(), by_stream=False)
