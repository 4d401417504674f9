"""Export: events as a file that other programs read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import polars as pl

from eventlab.errors import Unsupported
from eventlab.store.files import write_durably
from eventlab.temporal.reader import Events


@dataclass(frozen=True)
class Exported:
    """What an export wrote."""

    path: Path
    events: int
    bytes: int


def export(events: Events, path: Path) -> Exported:
    """Write the events as `.parquet`, `.csv` or `.jsonl`, whole or not at all.

    Envelope columns carry an underscore. In CSV lists are JSON text; moments are ISO 8601 with their offset everywhere.
    """
    suffix = path.suffix.lower()
    if suffix not in (".parquet", ".csv", ".jsonl"):
        raise Unsupported(
            f"{path.name}: events are not written as {suffix or 'a file without a type'}", hint=".parquet, .csv or .jsonl"
        )
    frame = events.frame()
    if suffix == ".parquet":
        write_durably(path, lambda temporary: frame.write_parquet(temporary))
    elif suffix == ".csv":
        write_durably(path, lambda temporary: _flat(frame).write_csv(temporary))
    else:
        write_durably(path, lambda temporary: _texts(frame).write_ndjson(temporary))
    return Exported(path, len(frame), path.stat().st_size)


def _texts(frame: pl.DataFrame) -> pl.DataFrame:
    """Types that JSON does not have as text; durations as microseconds."""
    found = []
    for name, kind in frame.schema.items():
        if kind == pl.Datetime:
            found.append(pl.col(name).dt.to_string("%Y-%m-%dT%H:%M:%S%.6fZ"))
        elif kind == pl.Duration:
            found.append(pl.col(name).dt.total_microseconds())
        elif kind == pl.Binary:
            found.append(pl.col(name).bin.encode("base64"))
        elif kind.is_decimal() or kind in (pl.Date, pl.Time):
            found.append(pl.col(name).cast(pl.String))
    return frame.with_columns(found)


def _flat(frame: pl.DataFrame) -> pl.DataFrame:
    """Nested columns as JSON text."""
    frame = _texts(frame)
    nested = [name for name, kind in frame.schema.items() if kind.is_nested()]
    wrapped = [pl.struct(pl.col(name).alias("v")).struct.json_encode().str.slice(5).str.head(-1).alias(name) for name in nested]
    return frame.with_columns(wrapped)
