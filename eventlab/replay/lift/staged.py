"""A key that is made from state: first the source's state after each event, as columns by position, then a fold that reads them.

The states come from the engine that is fastest for the source, with its own proofs; here they are leaves in stored form, for
the loop as lists of lowered values and for the query as one more table, joined by position. Of what a key reads all are in
memory. To go on from a base, every stream of the source is folded up to there: a catch-up costs that, whatever is new.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Final

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from eventlab.model.models import Model
from eventlab.model.types import FieldType, Record
from eventlab.replay.lift.analyse import Analysis
from eventlab.replay.lift.scan import Scan, counted, lowered, measured_values, widest
from eventlab.replay.lift.sources import Abandoned
from eventlab.replay.lift.sql import Text
from eventlab.replay.lift.types import Slot, slots, stored_to_lowered
from eventlab.store.columns import codec

_TABLE: Final = "states_of_source"


class SourceStates:
    """The leaves of a source's state that a key reads, after each of some events."""

    def __init__(self, source: Model, paths: Sequence[str], table: pa.Table) -> None:
        order = pc.sort_indices(table.column("_position"))
        self.positions = table.column("_position").combine_chunks().take(order)
        self.slots: dict[str, Slot] = {}
        self.columns: dict[str, pa.Array] = {}
        for field, kind in source.fields:
            here = {slot.path: slot for slot in slots(field, kind) if slot.path in paths}
            if here:
                values = dict(_leaves(field, kind, table.column(field).combine_chunks().take(order)))
                self.slots |= here
                self.columns |= {path: values[path] for path in here}

    def at(self, positions: Sequence[int], paths: Sequence[str]) -> list[list[Any]]:
        """Lowered values of leaves after the events at these positions."""
        wanted, there = np.asarray(positions, np.int64), self.positions.to_numpy()
        places = np.searchsorted(there, wanted)
        if not np.array_equal(there.take(places, mode="clip"), wanted):
            raise Abandoned("an event that its source has no state for")
        where = pa.array(places)
        return [_lowered(self.slots[path], self.columns[path].take(where)) for path in paths]

    def joined(self, scan: Scan, connection: duckdb.DuckDBPyConnection) -> Scan:
        """A scan whose rows have these leaves too."""
        names = {path: f"f{number}" for number, path in enumerate(self.columns)}
        limits = {path: _limits(slot, self.columns[path]) for path, slot in self.slots.items()}
        table = pa.table([self.positions, *self.columns.values()], names=["_at", *(self.slots[p].column for p in self.columns)])
        connection.register(_TABLE, table)
        return _joined(scan, self.slots, names, limits)


def fields_read(analysis: Analysis) -> list[str]:
    """The fields of its source's state that a model's key reads."""
    paths = dict.fromkeys(path for event in analysis.events.values() for path in event.of_source)
    return list(dict.fromkeys(path.rstrip("?").partition(".")[0] for path in paths))


def paths_read(analysis: Analysis) -> list[str]:
    """The leaves of its source's state that a model's key reads."""
    return list(dict.fromkeys(path for event in analysis.events.values() for path in event.of_source))


def imagined(scan: Scan, source: Model, analysis: Analysis) -> Scan:
    """A scan as it would be with the source's states, whose values nobody knows yet: for people to read."""
    wanted = paths_read(analysis)
    found = {slot.path: slot for field, kind in source.fields for slot in slots(field, kind) if slot.path in wanted}
    names = {path: f"f{number}" for number, path in enumerate(found)}
    limits = {path: widest(slot.column) if counted(slot.column) else None for path, slot in found.items()}
    return _joined(scan, found, names, limits)


def _joined(scan: Scan, of: dict[str, Slot], names: dict[str, str], limits: dict[str, Any]) -> Scan:
    items = ["_at"]
    for path, slot in of.items():
        most = 0 if limits[path] is None else max(map(abs, limits[path]))
        items.append(f"{lowered(slot.column, slot, most)} AS {names[path]}")
    shown = "".join(f", {alias}" for alias in names.values())
    texts = {
        event: Text(
            {**text.names, **{("source", path): alias for path, alias in names.items()}},
            {**text.limits, **{("source", path): bounds for path, bounds in limits.items()}},
        )
        for event, text in scan.texts.items()
    }
    states = f"SELECT {', '.join(items)} FROM {_TABLE}"
    sql = f"SELECT l.*{shown} FROM ({scan.sql}) l JOIN ({states}) ON _at = position" if scan.sql else ""
    return replace(scan, sql=sql, texts=texts)


def _leaves(path: str, kind: FieldType, values: pa.Array) -> Iterator[tuple[str, pa.Array]]:
    """The leaves of a column of a table, in stored form; nothing lies in what is not there."""
    if not isinstance(kind, Record):
        yield path, values
        return
    if kind.nullable:
        yield f"{path}?", values.is_valid()
    for part, of in kind.fields:
        yield from _leaves(f"{path}.{part}", of, pc.struct_field(values, part))


def _lowered(slot: Slot, values: pa.Array) -> list[Any]:
    if slot.kind is None:
        return values.to_pylist()  # type: ignore[no-any-return]
    stored = codec(slot.kind.tag).to_stored(values)
    return stored if slot.type.item is None else [stored_to_lowered(value, slot.type) for value in stored]


def _limits(slot: Slot, values: pa.Array) -> Any:
    """Bounds of lowered values; None where they are no whole numbers."""
    return measured_values(values, slot.column) or (0, 0) if counted(slot.column) else None
