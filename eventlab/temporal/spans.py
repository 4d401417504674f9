"""Spans: what was so from when to when. History of a field, validity intervals, a calendar of states, and who changed what.

All of it comes from the versions of a model, the state after each event, by the recorded clock: what was known. Intervals are
half open, from the record of one event to that of the next; of several events recorded at once the last one counts, for a
time means the last commit at or before it.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any, Final

import polars as pl

from eventlab.errors import InvalidValue
from eventlab.model.filters import Filter
from eventlab.model.models import Model
from eventlab.replay.tables import key_names
from eventlab.store.base import Batch, Cut, Tenant

_MOMENT: Final = pl.Datetime("us", "UTC")
_LATE: Final[dict[str, Any]] = {
    "position": pl.Int64, "stream": pl.String, "version": pl.Int64, "type": pl.String, "occurred_at": _MOMENT,
    "recorded_at": _MOMENT, "delay": pl.Duration("us"), "behind": pl.Duration("us"),
}  # fmt: skip


def picked(model: Model, frame: pl.DataFrame, id: Any, tenant: Tenant) -> pl.DataFrame:
    """The versions of one key."""
    names, parts = [name for name in key_names(model, tenant) if name != "_tenant"], key_of(model, id)
    return frame.filter(*(pl.col(name).eq_missing(pl.lit(part)) for name, part in zip(names, parts, strict=True)))


def key_of(model: Model, id: Any) -> tuple[Any, ...]:
    """The parts of a key, or `InvalidValue`."""
    names = [name for name, _ in model.key_fields]
    parts = id if isinstance(id, tuple) else (id,)
    try:
        if len(parts) != len(names):
            raise InvalidValue(f"it has {len(parts)} of {len(names)} parts")
        for (name, kind), part in zip(model.key_fields, parts, strict=True):
            kind.encode(part, name)
    except InvalidValue as why:
        said = f"{id!r} is no key of {model.cls.__name__}, whose keys are ({', '.join(names)}): {why.message}"
        raise InvalidValue(said, hint="text" if names == ["_id"] else "a tuple of them") from None
    return tuple(parts)


def check_fields(model: Model, fields: Sequence[str] | None) -> list[str]:
    """Fields of a model, all of them when none are named."""
    known = [name for name, _ in model.fields]
    if isinstance(fields, str) or not (fields is None or isinstance(fields, Sequence)):
        raise InvalidValue(f"fields={fields!r} are no names of fields", hint=f"a list: {known[:2]}")
    unknown = [name for name in fields or () if name not in known]
    if unknown:
        raise InvalidValue(f"{model.cls.__name__} has no field {unknown[0]!r}", hint=f"its fields: {', '.join(known)}")
    return known if fields is None else list(dict.fromkeys(fields))


def intervals(model: Model, versions: pl.DataFrame, tenant: Tenant, fields: Sequence[str]) -> pl.DataFrame:
    """Rows of key, fields, `_from`, `_to` (null: until now), `_version` and `_position` of the event that changed them.

    `versions` come by key and position.
    """
    keys = list(key_names(model, tenant))
    moves = versions.filter(_begins(versions, keys, fields))
    # Of several changes at one time the last counts, and only if it still is one.
    gone = same_key(keys, -1) & (pl.col("_recorded_at") == pl.col("_recorded_at").shift(-1)).fill_null(value=False)
    settled = moves.filter(~gone)
    merged = settled.filter(_begins(settled, keys, fields))
    ends = pl.when(same_key(keys, -1)).then(pl.col("_recorded_at").shift(-1))
    return merged.select(
        *keys, *fields, pl.col("_recorded_at").alias("_from"), ends.alias("_to"), "_version", "_position"
    )


def history(versions: pl.DataFrame, field: str) -> pl.DataFrame:
    """Each value that a field of one key had, from its first event on: value, from, to, and its event."""
    ordered = versions.sort("_position")
    rows = ordered.filter(_begins(ordered, [], [field]))
    return rows.select(
        pl.col(field).alias("value"), pl.col("_recorded_at").alias("from"), pl.col("_recorded_at").shift(-1).alias("to"),
        pl.col("_type").alias("event"), pl.col("_version").alias("version"), pl.col("_position").alias("position"),
    )  # fmt: skip


def values(model: Model, versions: pl.DataFrame, tenant: Tenant) -> pl.DataFrame:
    """The values of every field of every key, as texts: key, `_field`, `value`, `_from`, `_to`, and the event's place."""
    keys = list(key_names(model, tenant))
    ordered = versions.sort([*keys, "_position"], nulls_last=True)
    parts = []
    for name, _ in model.fields:
        rows = ordered.filter(_begins(ordered, keys, [name]))
        ends = pl.when(same_key(keys, -1)).then(pl.col("_recorded_at").shift(-1))
        column = rows[name]
        texts = (_comparable(column) if column.dtype.is_nested() else column.cast(pl.String)).alias("value")
        parts.append(
            rows.select(*keys, pl.lit(name).alias("_field"), texts, pl.col("_recorded_at").alias("_from"), ends.alias("_to"),
                        "_version", "_position", "_type")
        )  # fmt: skip
    if not parts:
        return ordered.clear().select(*keys, pl.lit("").alias("_field"), pl.lit("").alias("value"))
    return pl.concat(parts)


def clipped(found: pl.DataFrame, start: dt.datetime, end: dt.datetime) -> pl.DataFrame:
    """The intervals that overlap [start, end), cut to it."""
    overlap = (pl.col("_from") < end) & (pl.col("_to").is_null() | (pl.col("_to") > start))
    first, last = pl.lit(start, _MOMENT), pl.lit(end, _MOMENT)
    return found.filter(overlap).with_columns(
        pl.max_horizontal(pl.col("_from"), first).alias("_from"),
        pl.min_horizontal(pl.col("_to").fill_null(last), last).alias("_to"),
    )


def series(model: Model, found: pl.DataFrame, at: pl.Series, tenant: Tenant) -> pl.DataFrame:
    """The state of each key at each of these moments: `_at`, the key, its fields; from its first event on."""
    keys = list(key_names(model, tenant))
    asked = pl.DataFrame(at).join(found.select(keys).unique(), how="cross").sort("_at")
    begun = found.drop("_to").sort("_from")
    joined = asked.join_asof(begun, left_on="_at", right_on="_from", by=keys, strategy="backward", check_sortedness=False)
    there = joined.filter(pl.col("_from").is_not_null()).drop("_from")
    return there.select("_at", *(name for name in there.columns if name != "_at")).sort(["_at", *keys], nulls_last=True)


def causes(model: Model, versions: pl.DataFrame, new: pl.Expr, fields: Sequence[str], tenant: Tenant) -> pl.DataFrame:
    """For each key and field the positions of the new events at which it changed: key, `field`, `events`.

    `versions` come by key, and those of a key in the order in which its events are folded.
    """
    keys = list(key_names(model, tenant))
    ordered = versions
    parts = []
    for name in fields:
        at = ordered.filter(_begins(ordered, keys, [name]) & new)
        parts.append(at.group_by(keys, maintain_order=True).agg(pl.col("_position").alias("events"))
                     .with_columns(pl.lit(name).alias("field")))  # fmt: skip
    first = ordered.filter(~same_key(keys, 1) & new)
    parts.append(first.select(*keys, pl.concat_list("_position").alias("events"), pl.lit("_row").alias("field")))
    return pl.concat([part.select(*keys, "field", "events") for part in parts])


def late(cut: Cut, filter: Filter, tenant: Tenant, until: int, at_least: dt.timedelta) -> pl.DataFrame:
    """Events that were recorded long after they occurred, or after one of their stream that occurred later.

    `delay` is from occurrence to record, `behind` how much earlier it occurred than an event of its stream before it.
    """
    names = ("position", "stream", "version", "type", "occurred_at", "recorded_at")
    tables = [table.select(list(names)) for batch in cut.batches(filter, tenant=tenant, until=until, envelope=names, types=())
              for table in batch.tables]  # fmt: skip
    if not tables:
        return pl.DataFrame(schema=_LATE)
    frame = pl.concat([pl.DataFrame(pl.from_arrow(table)) for table in tables]).sort("position")
    newest = pl.col("occurred_at").cum_max().shift(1).over("stream", order_by="version")
    behind = pl.when(newest > pl.col("occurred_at")).then(newest - pl.col("occurred_at"))
    found = frame.with_columns((pl.col("recorded_at") - pl.col("occurred_at")).alias("delay"), behind.alias("behind"))
    return found.filter((pl.col("delay") >= at_least) | pl.col("behind").is_not_null())


def told_of(batches: Iterable[Batch], positions: Sequence[int]) -> pl.DataFrame:
    """Of the events at some positions: `position`, `event_id`, `actor`, `cause`, `correlation`, as texts."""
    wanted = set(positions)
    rows: list[tuple[Any, ...]] = []
    for batch in batches:
        of = batch.envelope
        for row in zip(of.position, of.event_id, of.actor, of.causation_id, of.correlation_id, strict=True):
            if row[0] in wanted:
                rows.append((row[0], _uuid(row[1]), row[2], _uuid(row[3]), _uuid(row[4])))  # noqa: PERF401
    kinds = {"position": pl.Int64, "event_id": pl.String, "actor": pl.String, "cause": pl.String, "correlation": pl.String}
    return pl.DataFrame(rows, schema=kinds, orient="row")


def _uuid(raw: bytes | None) -> str | None:
    if raw is None:
        return None
    text = raw.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


# -- comparing row with row ------------------------------------------------------------------------------------------------


def same_key(keys: Sequence[str], by: int) -> pl.Expr:
    """Whether the row so many before (or after, negative) is of the same key; false at the end."""
    same = pl.all_horizontal(pl.lit(value=True), *(pl.col(key).eq_missing(pl.col(key).shift(by)) for key in keys))
    at = pl.int_range(pl.len())
    return same & (at >= by if by > 0 else at < pl.len() + by)


def _begins(frame: pl.DataFrame, keys: Sequence[str], fields: Sequence[str]) -> pl.Series:
    """Whether a row begins a key, or differs from the row before in one of the fields."""
    plain = frame.select(*keys, *(_comparable(frame[name]) for name in fields))
    differs = [pl.col(name).ne_missing(pl.col(name).shift(1)) for name in fields]
    return plain.select(pl.any_horizontal(~same_key(keys, 1), *differs).alias("begins"))["begins"]


def _comparable(column: pl.Series) -> pl.Series:
    """A column whose values can be compared row by row; lists, maps and records as texts."""
    if column.dtype.is_nested() or column.dtype == pl.Object:
        return pl.Series(column.name, [repr(value) for value in column.to_list()], pl.String)
    return column


def _plain(value: Any) -> Any:
    """A value of a state as a frame has it."""
    if isinstance(value, (set, frozenset)):
        return sorted(map(_plain, value), key=repr)
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if hasattr(value, "__dataclass_fields__"):
        return {name: _plain(getattr(value, name)) for name in value.__dataclass_fields__}
    return getattr(value, "value", value) if hasattr(value, "_value_") else value


def shown_changes(model: Model, before: dict[str, Any], after: dict[str, Any]) -> str:
    """What changed between two states, as a person reads it: `status: draft → placed, total: 0.00 → 19.00`."""
    parts = []
    for name, _ in model.fields:
        old, new = _plain(before[name]), _plain(after[name])
        if not same_value(old, new):
            parts.append(f"{name}: {said(old)} → {said(new)}")
    return ", ".join(parts)


def same_value(one: Any, other: Any) -> bool:
    """Whether two values of a field say the same: a decimal with more noughts does, and a NaN is like another one."""
    return bool(one == other) or repr(one) == repr(other)


def said(value: Any) -> str:
    """A value as a person reads it: a decimal without an exponent, and with no more noughts than two."""
    if not isinstance(value, Decimal) or not value.is_finite():
        return str(value)
    text = f"{value:f}"
    whole, _, places = text.partition(".")
    kept = places.rstrip("0")
    return f"{whole}.{kept.ljust(min(len(places), 2), '0')}" if places and (kept or len(places) > 0) else text


def initial_row(model: Model) -> dict[str, Any]:
    """The state before the first event, by field, as a frame has it."""
    return {name: _plain(getattr(model.initial, name)) for name, _ in model.fields}
