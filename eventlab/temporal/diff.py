"""Two tables of a model, field by field: what changed, what came and what went, and the events in between that did it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import polars as pl
import pyarrow as pa

from eventlab.model.models import Model
from eventlab.replay.lift import fold_since
from eventlab.replay.tables import key_names
from eventlab.store.base import Cut, Tenant
from eventlab.store.read_models import base_in_memory
from eventlab.temporal import spans

#: Columns that say where a row stands, not what it says.
_PLACES = ("_version", "_position")
#: The states after so many events are made one by one to see what each of them changed; of more, all versions are.
FEW: Final = 200_000


def diff_tables(before: pa.Table, after: pa.Table, keys: Sequence[str]) -> pl.DataFrame:
    """A row for each field of a key that differs: the key, `field`, `before` and `after` as text.

    A row that is only in one of them is one line, of the field `_row`. Fields that only one table has are compared with null.
    """
    left, right = (pl.DataFrame(pl.from_arrow(table)) for table in (before, after))
    names = list(keys)
    fields = [f for f in dict.fromkeys([*right.columns, *left.columns]) if f not in names and f not in _PLACES]
    numbered = [frame.select(names).with_row_index(at) for frame, at in ((left, "_left"), (right, "_right"))]
    joined = numbered[0].join(numbered[1], on=names, how="full", coalesce=True, nulls_equal=True)
    whole = pl.col("_left").is_null() != pl.col("_right").is_null()
    there = [pl.when(pl.col(at).is_not_null()).then(pl.lit("there")) for at in ("_left", "_right")]
    lonely = pl.lit("_row").alias("field"), there[0].alias("before"), there[1].alias("after")
    found = [joined.filter(whole).select(*names, *lonely)]
    both = joined.filter(~whole)
    for field in fields:
        sides = [_values(frame, field, both[at]) for frame, at in ((left, "_left"), (right, "_right"))]
        differ = _differs(*sides)
        texts = [_texts(side.filter(differ)) for side in sides]
        lines = both.filter(differ).select(*names, pl.lit(field).alias("field"))
        found.append(lines.with_columns(texts[0].alias("before"), texts[1].alias("after")))
    return pl.concat(found).sort([*names, "field"])


def _values(frame: pl.DataFrame, field: str, rows: pl.Series) -> pl.Series:
    return frame[field].gather(rows) if field in frame.columns else pl.Series(field, [None] * len(rows))


def _differs(one: pl.Series, other: pl.Series) -> pl.Series:
    """Where two columns have different values; those of types that are not compared as they are, by their texts."""
    if one.dtype != other.dtype or one.dtype.is_nested() or one.dtype == pl.Object:
        one, other = _texts(one), _texts(other)
    return one.ne_missing(other)


def _texts(values: pl.Series) -> pl.Series:
    return pl.Series(values.name, [None if value is None else str(value) for value in values.to_list()], pl.String)


def moved(model: Model, cut: Cut, tenant: Tenant, before: pa.Table, at: int, until: int) -> pl.DataFrame:
    """What the events after one position and up to another changed: as `diff_tables`, with their positions, `events`.

    `before` is the model's table at the first of them. Only the keys of these events are looked at.
    """
    keys = list(key_names(model, tenant))
    base = base_in_memory(model.name, "", model.fingerprint, at, before, keys)
    since = fold_since(model, cut, tenant, until, at, base.rows_of)
    ends = pa.array(pl.DataFrame(pl.from_arrow(since.select(keys))).select(~spans.same_key(keys, -1)).to_series().to_arrow())
    after = since.filter(ends)
    earlier = base.rows_of(after.select(keys))
    versions = pl.concat([pl.DataFrame(pl.from_arrow(table)) for table in (earlier.select(since.column_names), since)])
    versions = versions.sort([*keys, "_position"], nulls_last=True)
    events = spans.causes(model, versions, pl.col("_position") > at, [name for name, _ in model.fields], tenant)
    found = diff_tables(earlier, after, keys)
    return found.join(events, on=[*keys, "field"], how="left", nulls_equal=True, maintain_order="left")
