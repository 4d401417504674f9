"""Export: events as a file that other programs read."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from eventlab.errors import Unsupported
from eventlab.store.files import write_durably
from eventlab.temporal.events import Events


@dataclass(frozen=True)
class Exported:
    """What an export wrote."""

    path: Path
    events: int
    bytes: int


def export(events: Events, path: Path) -> Exported:
    """Write the events as `.parquet`, `.csv` or `.jsonl`, whole or not at all.

    Envelope columns carry an underscore. In CSV lists are JSON text; moments are ISO 8601 with their offset everywhere.
    JSON has no NaN and no infinity: in `.jsonl` they are null.
    """
    suffix = path.suffix.lower()
    if suffix not in (".parquet", ".csv", ".jsonl"):
        raise Unsupported(
            f"{path.name}: events are not written as {suffix or 'a file without a type'}", hint=".parquet, .csv or .jsonl"
        )
    if path.is_dir():
        raise Unsupported(f"{path} is a folder, and events are written as a file", hint="name a file in it")
    frame = events.frame()
    if suffix == ".parquet":
        write_durably(path, frame.write_parquet)
    elif suffix == ".csv":
        write_durably(path, _flat(frame).write_csv)
    else:
        write_durably(path, _texts(frame).write_ndjson)
    return Exported(path, len(frame), path.stat().st_size)


def _texts(frame: pl.DataFrame) -> pl.DataFrame:
    """Types that JSON does not have as text, also inside lists and records; durations as microseconds."""
    return frame.with_columns(_text(pl.col(name), kind).alias(name) for name, kind in frame.schema.items() if _needs_text(kind))


def _needs_text(kind: Any) -> bool:
    if isinstance(kind, pl.List):
        return _needs_text(kind.inner)
    if isinstance(kind, pl.Struct):
        return any(_needs_text(field.dtype) for field in kind.fields)
    return bool(kind.is_decimal() or kind in (pl.Map, pl.Datetime, pl.Duration, pl.Binary, pl.Date, pl.Time))


def _text(value: pl.Expr, kind: Any) -> pl.Expr:
    if isinstance(kind, pl.List):
        return value.list.eval(_text(pl.element(), kind.inner))
    if isinstance(kind, pl.Struct):
        parts = [_text(value.struct.field(field.name), field.dtype).alias(field.name) for field in kind.fields]
        return pl.when(value.is_not_null()).then(pl.struct(parts))
    if isinstance(kind, pl.Map):
        # As pairs: readers of JSON give every object all the keys of the others.
        return _text(value.map.entries(), pl.List(pl.Struct({"key": kind.key, "value": kind.value})))
    if kind == pl.Datetime:
        return value.dt.to_string("%Y-%m-%dT%H:%M:%S%.6fZ")
    if kind == pl.Time:
        return value.dt.to_string("%H:%M:%S%.6f")
    if kind == pl.Duration:
        return value.dt.total_microseconds()
    if kind == pl.Binary:
        return value.bin.encode("base64")
    return value.cast(pl.String) if kind.is_decimal() or kind == pl.Date else value


def _flat(frame: pl.DataFrame) -> pl.DataFrame:
    """Nested columns as JSON text."""
    frame = _texts(frame)
    nested = [name for name, kind in frame.schema.items() if kind.is_nested()]
    return frame.with_columns(pl.col(name).map_elements(_json, return_dtype=pl.String).alias(name) for name in nested)


def _json(value: Any) -> str:
    plain = value.to_list() if isinstance(value, pl.Series) else value
    return json.dumps(plain, ensure_ascii=False, separators=(",", ":"))
