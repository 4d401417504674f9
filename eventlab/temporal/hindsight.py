"""The log as a model sees it by the other clock that says how it takes what was recorded late.

`@el.aggregate(late="sorted")`: its events come as they occurred, as if each had been recorded then. `corrections=(Corrected,)`:
an event of these types counts from when the event that caused it occurred, however late it is itself.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from eventlab.model.filters import EVERYTHING, Filter
from eventlab.model.schema import Schema
from eventlab.store.base import ALL, Batch, Cut, Held, SourceGroup, Tenant, picked
from eventlab.store.columns import ENVELOPE, ENVELOPE_NAMES, payload_columns
from eventlab.store.segment import clip

Key = tuple[str, str]


class Hindsight:
    """What had occurred by a moment, in memory. Sorted, positions, versions and record times are those of the occurrences."""

    def __init__(self, cut: Cut, until: int, occurred_us: int, corrections: Collection[str], *, sort: bool) -> None:
        self.log = cut
        whole = _tables(cut, until)
        since = _since(whole, corrections)
        self._tables: dict[Key, pa.Table] = {}
        #: By position in this order, from 1 on, the position in the log; None where they are the same.
        self.real: np.ndarray[Any, Any] | None = None
        #: Whether every stream begins with its first version.
        self.whole_streams = sort
        self.head = until
        kept = {key: table.filter(pa.array(since[key] <= occurred_us)) for key, table in whole.items()}
        if not sort:
            self._tables = kept
            return
        since = {key: of[of <= occurred_us] for key, of in since.items()}
        times = np.concatenate([since[key] for key in kept]) if kept else np.empty(0, np.int64)
        positions = np.concatenate([kept[key].column("position").to_numpy() for key in kept]) if kept else np.empty(0, np.int64)
        order = np.lexsort((positions, times))
        places = np.empty(len(order), np.int64)
        places[order] = np.arange(1, len(order) + 1)
        self.real, self.head = positions[order], len(order)
        start = 0
        for key, table in kept.items():
            mine = places[start : start + len(table)]
            self._tables[key] = _again(table, mine, since[key])
            start += len(table)

    def placed(self, frame: pl.DataFrame) -> pl.DataFrame:
        """A frame with the positions of the log."""
        real = self.real
        if real is None:
            return frame
        names = [name for name in ("_position", "position") if name in frame.columns]
        return frame.with_columns(*(pl.Series(name, real[frame[name].to_numpy() - 1], pl.Int64) for name in names))

    @property
    def schemas(self) -> Mapping[tuple[str, int], Schema]:
        return self.log.schemas

    @property
    def types_of(self) -> Mapping[Key, frozenset[tuple[str, int]]]:
        return self.log.types_of

    def batches(
        self, filter: Filter = EVERYTHING, *, tenant: Tenant, after: int = 0, until: int | None = None,
        envelope: Sequence[str] = ENVELOPE_NAMES, types: Collection[str] | None = None,
    ) -> Iterator[Batch]:  # fmt: skip
        """The events picked, in one batch."""
        end = self.head if until is None else until
        found = [clip(picked(table, key[1], filter), after, end) for key, table in self._of(tenant)]
        if parts := tuple(table for table in found if len(table)):
            yield Batch(parts, self.schemas)

    def stream(
        self, stream: str, *, tenant: str, after_version: int = 0, until: int | None = None,
        envelope: Sequence[str] = ENVELOPE_NAMES, types: Collection[str] | None = None,
    ) -> Iterator[Batch]:  # fmt: skip
        """One stream's events."""
        table = self._tables.get((tenant, stream.partition("-")[0]))
        if table is not None:
            own = table.filter((pc.field("stream") == stream) & (pc.field("version") > after_version))
            if len(own := clip(own, 0, self.head if until is None else until)):
                yield Batch((own,), self.schemas)

    def position_at(self, recorded_us: int) -> int:
        """The last position at or before a moment."""
        found = 0
        for table in self._tables.values():
            times, places = table.column("recorded_at").cast(pa.int64()).to_numpy(), table.column("position").to_numpy()
            found = max(found, int(places[times <= recorded_us].max(initial=0)))
        return found

    def sources(self, tenant: Tenant) -> list[SourceGroup]:
        """One table a tenant and category."""
        return [SourceGroup(*key, tuple(payload_columns(table)), table=table) for key, table in self._of(tenant)]

    def hold(self) -> Held:
        """See `Cut`."""
        return self.log.hold()

    def _of(self, tenant: Tenant) -> list[tuple[Key, pa.Table]]:
        return [(key, table) for key, table in self._tables.items() if tenant is ALL or key[0] == tenant]


def _tables(cut: Cut, until: int) -> dict[Key, pa.Table]:
    """The events up to a position, a table for each tenant and category, in position order."""
    parts: dict[Key, list[pa.Table]] = {}
    for group in cut.sources(ALL):
        names = [*ENVELOPE_NAMES, *group.columns]
        held = group.table
        table = held.select(names) if held is not None else ds.dataset(list(group.paths)).to_table(columns=names)
        parts.setdefault((group.tenant, group.category), []).append(table)
    found: dict[Key, pa.Table] = {}
    for key, tables in sorted(parts.items()):
        table = pa.concat_tables(tables, promote_options="default").sort_by("position").combine_chunks()
        found[key] = clip(table, 0, until)
    return found


def _since(whole: Mapping[Key, pa.Table], corrections: Collection[str]) -> dict[Key, np.ndarray[Any, Any]]:
    """From when each event counts, in microseconds: its occurrence, or for a correction that of what it corrects."""
    since = {key: table.column("occurred_at").cast(pa.int64()).to_numpy().copy() for key, table in whole.items()}
    if not corrections:
        return since
    names = ["position", "event_id", "causation_id"]
    rows: list[tuple[int, bytes, bytes | None, Key, int]] = []
    for key, table in whole.items():
        at = np.flatnonzero(pl.Series(pl.from_arrow(table.column("type"))).is_in(list(corrections)).to_numpy())
        columns = [table.column(name).take(pa.array(at)).to_pylist() for name in names]
        rows += [(position, event, cause, key, int(i)) for position, event, cause, i in zip(*columns, at, strict=True)]
    causes = {cause for _, _, cause, _, _ in rows if cause is not None}
    known: dict[bytes, int] = {}
    for key, table in whole.items():
        ids = table.column("event_id")
        at = np.flatnonzero(pc.is_in(ids, value_set=pa.array(list(causes), ids.type)).to_numpy(zero_copy_only=False))
        known |= zip(ids.take(pa.array(at)).to_pylist(), since[key][at].tolist(), strict=True)
    for _, event, cause, key, i in sorted(rows, key=lambda row: row[0]):  # causes come before their effects
        if cause in known:
            since[key][i] = known[cause]
            if event in known:
                known[event] = known[cause]
    return since


def _again(table: pa.Table, places: np.ndarray[Any, Any], since: np.ndarray[Any, Any]) -> pa.Table:
    """The rows in the order of their places, numbered and timed anew."""
    order = np.argsort(places)
    table = table.take(pa.array(order))
    streams = pl.DataFrame({"stream": pl.Series(pl.from_arrow(table.column("stream")))})
    versions = streams.select(pl.int_range(1, pl.len() + 1).over("stream").cast(pl.Int64)).to_series().to_arrow()
    moment = ENVELOPE.field("recorded_at").type
    new = {
        "position": pa.array(places[order]), "version": versions, "commit": pa.array(places[order]),
        "recorded_at": pa.array(since[order]).view(moment),
    }  # fmt: skip
    for name, column in new.items():
        table = table.set_column(table.column_names.index(name), ENVELOPE.field(name), column)
    return table.combine_chunks()
