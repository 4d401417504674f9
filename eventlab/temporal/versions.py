"""Every version of a model's states: the state after each event, with when it was recorded and by what."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import polars as pl
import pyarrow as pa

from eventlab.errors import Unsupported
from eventlab.model.models import Model
from eventlab.replay.lift import fold_intervals, fold_versions
from eventlab.replay.rows import Entry, RowFold, events_of
from eventlab.replay.tables import columns_of, frame_of, key_names, table_of
from eventlab.store.base import Batch, Cut, Tenant
from eventlab.store.columns import ENVELOPE_NAMES
from eventlab.temporal import spans


def versions(
    model: Model, cut: Cut, tenant: Tenant, until: int, *, engine: str, fields: Sequence[str] | None = None
) -> pl.DataFrame:
    """The state after every event of every key: the table's columns, `_recorded_at`, `_type`; by key and position."""
    return _told(
        model, fold_versions(model, cut, tenant, until, engine=engine, fields=fields, told=True), cut, tenant, until
    )


def intervals_of(model: Model, cut: Cut, tenant: Tenant, until: int, fields: Sequence[str]) -> pl.DataFrame:
    """The intervals of some fields of every key: from the query where it lifts, else from every version."""
    found = fold_intervals(model, cut, tenant, until, fields)
    if found is None:
        return spans.intervals(model, versions(model, cut, tenant, until, engine="auto", fields=fields), tenant, fields)
    table, others = found
    keys = key_names(model, tenant)
    columns = [*keys, *fields, "_from", "_to", "_version", "_position"]
    whole = _typed(model, table, tenant).rename({"_recorded_at": "_from"}).select(columns)
    if not others:
        return whole
    rest = _told(model, fold_versions(model, cut, tenant, until, fields=fields, only=others), cut, tenant, until)
    return pl.concat([whole, spans.intervals(model, rest, tenant, fields)]).sort([*keys, "_position"], nulls_last=True)


def versions_of(
    model: Model, id: str, cut: Cut, tenant: str, until: int, *, engine: str, read: list[Batch] | None = None
) -> pl.DataFrame:
    """The same of one aggregate: only its own stream is read, unless an engine for whole logs is asked for.

    The batches that were read are put in `read`, for who wants to know more of these events.
    """
    if model.category is None:
        raise Unsupported(
            f"{model.cls.__name__} is a projection, and only an aggregate has a stream of its own",
            hint=f"lab.versions({model.cls.__name__}).filter(…) picks rows by its key",
        )
    stream = model.stream(id)
    if engine in ("loop", "lifted"):
        return versions(model, cut, tenant, until, engine=engine).filter(pl.col("_id") == id)
    handled = model.handled
    types = None if handled is None or model.takes_meta else [kind.name for kind in handled]
    # What neither a fold nor a history looks at is not read.
    names = ENVELOPE_NAMES if model.takes_meta else [n for n in ENVELOPE_NAMES if n not in ("occurred_at", "tags", "commit")]
    batches = list(cut.stream(stream, tenant=tenant, until=until, types=types, envelope=names))
    if read is not None:
        read += batches
    frame = frame_of(_stream_table(model, id, batches, tenant), columns_of(model, tenant))
    envelopes = [batch.envelope for batch in batches]
    told = pl.DataFrame(
        {
            "_recorded_at": pl.Series([us for e in envelopes for us in e.recorded_at], dtype=pl.Int64).cast(_MOMENT),
            "_type": pl.Series([name for e in envelopes for name in e.type], dtype=pl.String),
        }
    )
    return pl.concat([frame, told], how="horizontal")


_MOMENT = pl.Datetime("us", "UTC")


def _stream_table(model: Model, id: str, batches: Sequence[Batch], tenant: str) -> pa.Table:
    """The versions of one stream, folded row by row."""
    entries: dict[str, Entry] = {}

    def watch(key: str, event: Any, state: Any, position: int) -> None:
        # A table has one row a key: each version is a key of its own until the table is made.
        entries[f"{model.category}-{position:020}"] = [state, folding.entries[key][1], position]

    folding = RowFold(model, tenant, None, watch)
    for batch in batches:
        folding.feed(batch)
    table = table_of(model, entries, tenant)
    return table.set_column(0, table.schema.field(0), pa.array([id] * len(table), pa.string()))


def _told(model: Model, table: pa.Table, cut: Cut, tenant: Tenant, until: int) -> pl.DataFrame:
    """The versions as a frame, each with the time and the type of its event."""
    frame = _typed(model, table, tenant)
    if "_recorded_at" in frame.columns:
        return frame
    return frame.join(envelope_of(model, cut, tenant, until), on="_position", how="left", maintain_order="left")


def _typed(model: Model, table: pa.Table, tenant: Tenant) -> pl.DataFrame:
    return frame_of(table, [(name, kind) for name, kind in columns_of(model, tenant) if name in table.column_names])


def envelope_of(
    model: Model, cut: Cut, tenant: Tenant, until: int, names: Sequence[str] = ("recorded_at", "type")
) -> pl.DataFrame:
    """Columns of the envelope, by `_position`, of the events that a model folds."""
    found = [
        batch_table.select(["position", *names])
        for batch in cut.batches(events_of(model), tenant=tenant, until=until, envelope=("position", *names), types=[])
        for batch_table in batch.tables
    ]
    if not found:
        kinds = {"_position": pl.Int64(), "_recorded_at": _MOMENT, "_type": pl.String()}
        return pl.DataFrame(schema={name: kinds[name] for name in ("_position", *(f"_{name}" for name in names))})
    frame = pl.from_arrow(pa.concat_tables(found))
    assert isinstance(frame, pl.DataFrame)
    return frame.rename({name: f"_{name}" for name in frame.columns})
