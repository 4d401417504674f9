"""A cut of the disk store: the log up to one position, whatever files it lies in at the time.

What a cut names is "position ≤ P". Where those events are, in the hot tail, in runs or in compacted eras, is its layout;
it is looked up when it is first needed, and again when a file is gone because it was compacted since.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from eventlab.model.filters import EVERYTHING, Filter
from eventlab.model.schema import Schema
from eventlab.store.base import (
    ALL,
    Batch,
    Row,
    RowBatch,
    SourceFile,
    SourceGroup,
    Tenant,
    needed_columns,
    needed_envelope,
    picked,
)
from eventlab.store.columns import ENVELOPE, ENVELOPE_NAMES, payload_columns
from eventlab.store.gc import Hold
from eventlab.store.segment import Reading, Segment, SegmentGone, clip, run_tables
from eventlab.store.tail import HotPart

TypesOf = Mapping[tuple[str, str], frozenset[tuple[str, int]]]


@dataclass(frozen=True)
class Layout:
    """Where the events at or before `head` are: live segments, and the hot rows between and after them."""

    head: int
    generation: int
    segments: tuple[Segment, ...]
    hot: tuple[HotPart, ...]

    @cached_property
    def pieces(self) -> list[tuple[int, int, list[Segment] | HotPart]]:
        """Segments by run, and hot parts, in position order."""
        runs: dict[tuple[int, int], list[Segment]] = {}
        for segment in self.segments:
            runs.setdefault((segment.first, segment.last), []).append(segment)
        pieces: list[tuple[int, int, list[Segment] | HotPart]] = [(first, last, run) for (first, last), run in runs.items()]
        pieces += [(part.first, part.last, part) for part in self.hot]
        return sorted(pieces, key=lambda piece: piece[0])


@dataclass(frozen=True)
class HotStream:
    """What the catalog knows of one stream: its version, first and last position, and its hot rows after a version."""

    version: int
    first: int
    last: int
    rows: list[Row]


class Layouts(Protocol):
    """What a cut asks of its store."""

    def layout(self, head: int, unlike: Layout | None = None) -> Layout:
        """Where the events up to `head` are now; with `unlike`, only if that has changed, else the same."""
        ...

    def hot_stream(self, tenant: str, stream: str, after_version: int, until: int) -> HotStream | None: ...
    def hold(self, layout: Layout) -> Hold: ...


@dataclass(frozen=True)
class DiskCut:
    """The log of a disk store up to one commit."""

    head: int
    schemas: Mapping[tuple[str, int], Schema]
    types_of: TypesOf
    store: Layouts = field(repr=False)

    @property
    def layout(self) -> Layout:
        """Where the events are, looked up when it is first asked for."""
        found: Layout | None = self.__dict__.get("_layout")
        if found is None:
            found = self.__dict__["_layout"] = self.store.layout(self.head)
        return found

    def _moved(self, layout: Layout) -> bool:
        """Whether the events lie elsewhere now; from here on the new layout is used."""
        found = self.store.layout(self.head, unlike=layout)
        self.__dict__["_layout"] = found
        return found is not layout

    def _steadily(self, look: Callable[[Layout], Any]) -> Any:
        """Do something that opens files, again when they were compacted in between."""
        while True:
            layout = self.layout
            try:
                return look(layout)
            except SegmentGone:
                if not self._moved(layout):
                    raise

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
        """The events picked, in position order, a row group or a run at a time."""
        categories, payload = filter.categories, needed_columns(filter, types, self.schemas)
        names = needed_envelope(filter, envelope)
        until = self.head if until is None else min(until, self.head)

        def pick(table: pa.Table, category: str) -> pa.Table:
            return picked(table, category, filter)

        def wanted(of_tenant: str, category: str) -> bool:
            return (tenant is ALL or tenant == of_tenant) and (categories is None or category in categories)

        at = after
        while True:
            layout = self.layout
            try:
                for first, last, piece in layout.pieces:
                    if last <= at or first > until:
                        continue
                    if isinstance(piece, HotPart):
                        keys = [key for key in sorted(piece.tables) if wanted(*key)]
                        found = [clip(pick(piece.select(key, names, payload), key[1]), at, until) for key in keys]
                        read: Iterator[list[pa.Table]] = iter([found])
                    else:
                        chosen = [s for s in piece if wanted(s.tenant, s.category)]
                        read = run_tables(chosen, Reading(at, until, names, payload, filter.streams, pick))
                    for tables in read:
                        parts = tuple(table for table in tables if len(table))
                        if parts:
                            yield Batch(parts, self.schemas)
                            at = max(at, *(int(table.column("position")[-1].as_py()) for table in parts))
                    at = max(at, min(last, until))
                return
            except SegmentGone:
                if not self._moved(layout):
                    raise

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
        """One stream: its hot events by index, and sealed ones from the runs that lie where versions are missing."""
        until = self.head if until is None else min(until, self.head)
        known = self.store.hot_stream(tenant, stream, after_version, until)
        if known is None or known.first > until or known.version <= after_version:
            return
        if [row.version for row in known.rows] == list(range(after_version + 1, known.version + 1)):
            # Nothing of it is sealed, so no file and no scan is needed.
            yield RowBatch(known.rows, self.schemas)
            return
        payload = needed_columns(EVERYTHING, types, self.schemas)
        span = (after_version, until)
        names = needed_envelope(EVERYTHING, [*envelope, "version"])
        yield from self._steadily(lambda layout: self._sealed_stream(layout, stream, tenant, span, known, names, payload))

    def _sealed_stream(
        self,
        layout: Layout,
        stream: str,
        tenant: str,
        span: tuple[int, int],
        known: HotStream,
        envelope: Sequence[str],
        payload: frozenset[str] | None,
    ) -> list[Batch]:
        found: list[Batch] = []
        after_version, until = span
        rows = known.rows
        positions = [row.position for row in rows]
        seen, at = after_version, 0
        for low, high, piece in layout.pieces:
            if high < known.first or low > min(until, known.last):
                continue
            end = bisect.bisect_left(positions, low, at)
            if end < len(rows) and rows[end].version == seen + 1 + end - at:
                continue
            if end > at:
                found.append(RowBatch(rows[at:end], self.schemas))
                seen, at = rows[end - 1].version, end
            table = _stream_rows(piece, stream, tenant, (seen, until), envelope, payload)
            if len(table):
                found.append(Batch((table,), self.schemas, sealed=not isinstance(piece, HotPart)))
                seen = table.column("version")[-1].as_py()
                at = bisect.bisect_right(positions, table.column("position")[-1].as_py(), at)
        if rows[at:]:
            found.append(RowBatch(rows[at:], self.schemas))
        return found

    def position_at(self, recorded_us: int) -> int:
        """The end of the last commit recorded at or before a moment; pieces are in order of time too, for it never goes back."""
        position: int = self._steadily(lambda layout: _position_at(layout, recorded_us))
        return min(position, self.head)

    def hold(self) -> Hold:
        """Keep the files that `sources` names from being deleted, for whoever opens them later."""
        while True:
            layout = self.layout
            if not layout.segments:
                return Hold(None, layout.generation, ())
            held = self.store.hold(layout)
            if held.complete:
                return held
            held.release()
            if not self._moved(layout):
                return self.store.hold(layout)

    def sources(self, tenant: Tenant) -> list[SourceGroup]:
        """Segments grouped by tenant, category and columns; and the hot tables."""
        groups: list[SourceGroup] = self._steadily(lambda layout: _sources(layout, tenant))
        return groups


def _stream_rows(
    piece: list[Segment] | HotPart,
    stream: str,
    tenant: str,
    span: tuple[int, int],
    envelope: Sequence[str],
    payload: frozenset[str] | None,
) -> pa.Table:
    """The rows of one stream in one piece of the log that come after a version, up to a position."""
    after_version, until = span
    key = (tenant, stream.partition("-")[0])
    if isinstance(piece, HotPart):
        table = piece.tables.get(key)
        parts = [] if table is None else [table.filter(pc.equal(table.column("stream"), stream))]
    else:
        segments = (s for s in piece if (s.tenant, s.category) == key)
        parts = [part for s in segments if (part := s.of_stream(stream, envelope, payload)) is not None]
    if not parts:
        return ENVELOPE.empty_table()
    table = clip(parts[0], 0, until)
    return table.filter(pc.greater(table.column("version"), after_version))


def _position_at(layout: Layout, recorded_us: int) -> int:
    found = 0
    for first, last, piece in layout.pieces:
        if isinstance(piece, HotPart):
            here = piece.position_at(recorded_us)
            if here < last:
                return max(found, here)
            found = last
        elif max(s.max_recorded for s in piece) <= recorded_us:
            found = last
        elif min(s.min_recorded for s in piece) > recorded_us:
            return found
        else:
            # A run holds all its positions, and they are in order of time: as many as are early enough come first.
            return first - 1 + sum(_recorded_by(s, recorded_us) for s in piece)
    return found


def _recorded_by(segment: Segment, recorded_us: int) -> int:
    """How many events of a segment were recorded at or before a moment."""
    if segment.max_recorded <= recorded_us:
        return segment.rows
    if segment.min_recorded > recorded_us:
        return 0
    count = 0
    for group in range(segment.metadata.num_row_groups):
        times = segment.read([group], ["recorded_at"], ()).column(0).combine_chunks().view(pa.int64()).to_numpy()
        count += int(np.count_nonzero(times <= recorded_us))
    return count


def _sources(layout: Layout, tenant: Tenant) -> list[SourceGroup]:
    groups: dict[tuple[str, str, tuple[str, ...], bool], list[Segment]] = {}
    for segment in layout.segments:
        if tenant is ALL or segment.tenant == tenant:
            segment.open()  # its digest is checked before SQL opens it
            groups.setdefault((segment.tenant, segment.category, segment.columns, segment.by_stream), []).append(segment)
    found = [
        SourceGroup(
            name,
            category,
            columns,
            tuple(str(s.path) for s in segments),
            by_stream=by_stream,
            files=tuple(SourceFile(str(s.path), s.first, s.last, s.rows, s.bucket, s.buckets) for s in segments),
        )
        for (name, category, columns, by_stream), segments in groups.items()
    ]
    for part in layout.hot:
        for (name, category), table in part.tables.items():
            if tenant is ALL or name == tenant:
                found.append(SourceGroup(name, category, tuple(payload_columns(table)), table=table))
    return found
