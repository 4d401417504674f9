"""Two tables of a model, field by field: what changed, what came and what went."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl
import pyarrow as pa

#: Columns that say where a row stands, not what it says.
_PLACES = ("_version", "_position")


def diff_tables(before: pa.Table, after: pa.Table, keys: Sequence[str]) -> pl.DataFrame:
    """A row for each field of a key that differs: the key, `field`, `before` and `after` as text.

    A row that is only in one of them is one line, of the field `_row`. Fields that only one table has are compared with null.
    """
    left, right = (pl.DataFrame(pl.from_arrow(table)) for table in (before, after))
    names = list(keys)
    fields = [f for f in dict.fromkeys([*right.columns, *left.columns]) if f not in names and f not in _PLACES]
    texts = [_texts(frame, names, fields) for frame in (left, right)]
    joined = texts[0].join(texts[1], on=names, how="full", coalesce=True, nulls_equal=True, suffix=":after")
    found: list[pl.DataFrame] = []
    whole = pl.col("_row").is_null() != pl.col("_row:after").is_null()
    found.append(_lines(joined.filter(whole), names, "_row"))
    both = joined.filter(~whole)
    found += [_lines(both.filter(pl.col(of).ne_missing(pl.col(f"{of}:after"))), names, of) for of in fields]
    return pl.concat(found).sort([*names, "field"])


def _texts(frame: pl.DataFrame, keys: list[str], fields: list[str]) -> pl.DataFrame:
    columns = [frame[key] for key in keys]
    for field in fields:
        values = frame[field].to_list() if field in frame.columns else [None] * len(frame)
        columns.append(pl.Series(field, [None if value is None else str(value) for value in values], pl.String))
    return pl.DataFrame(columns).with_columns(pl.lit("there").alias("_row"))


def _lines(frame: pl.DataFrame, keys: list[str], field: str) -> pl.DataFrame:
    return frame.select(
        *keys, pl.lit(field).alias("field"), pl.col(field).alias("before"), pl.col(f"{field}:after").alias("after")
    )
