"""What a person would write by hand: SQL over Parquet files, and rows in a SQLite table."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import time
from pathlib import Path
from typing import Any, Final

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from generate import ItemAdded, Log

import eventlab as el
from eventlab.store.disk import DiskStore

FILE_ROWS: Final = 1_000_000
GROUP_ROWS: Final = 122_880

FOLD: Final = """
SELECT substr(stream, 7) AS _id,
       coalesce(arg_max(CASE type WHEN 'OrderPlaced' THEN 'placed' WHEN 'OrderShipped' THEN 'shipped'
                                  WHEN 'OrderCancelled' THEN 'cancelled' END, position), 'draft') AS status,
       coalesce(sum("quantity:i64" * "unit_price:d18_2"), 0)::DECIMAL(18, 2) AS total,
       count(*) FILTER (type = 'ItemAdded') AS lines,
       max(version) AS _version,
       max(position) AS _position
FROM read_parquet(?) WHERE position <= ? GROUP BY stream ORDER BY 1
"""
BY_TYPE: Final = "SELECT type, count(*) AS events FROM read_parquet(?) GROUP BY 1 ORDER BY 1"
BY_STATUS: Final = "SELECT status, count(*) AS orders, sum(total) AS total FROM {} GROUP BY 1 ORDER BY 1"


class ByHand:
    """What a person would write who knows DuckDB and where the files are."""

    def __init__(self) -> None:
        self.connection = duckdb.connect()
        self.connection.execute("SET enable_progress_bar = false")

    def query(self, sql: str, *parameters: Any) -> pl.DataFrame:
        return self.connection.sql(sql, params=list(parameters)).pl()

    def fold(self, files: list[str], until: int) -> pl.DataFrame:
        return self.query(FOLD, files, until)


def segments(lab: el.Lab) -> list[str]:
    """The files that are the log now; what was compacted since lies beside them for a while."""
    assert isinstance(lab.store, DiskStore)
    return [str(segment.path) for segment in lab.store.segments()]


def write_by_hand(path: Path, frames: list[pl.DataFrame]) -> int:
    """The same events as one Parquet file in order of time, on the disk when it returns; its size."""
    table = pl.concat(frames, how="diagonal").sort("seq").to_arrow()
    pq.write_table(table, path, compression="zstd", compression_level=1)
    with path.open("rb") as file:
        os.fsync(file.fileno())
    return path.stat().st_size


def flat(log: Log) -> list[pl.DataFrame]:
    """The events of a log with what any log needs: stream, type, an id of sixteen bytes and the time."""
    frames = []
    for kind, frame in log.frames.items():
        ids = pl.Series("event_id", [os.urandom(16) for _ in range(len(frame))], dtype=pl.Binary)
        stream = pl.format("order-{}", pl.col("order")).alias("stream")
        frames.append(frame.select(stream, pl.all().exclude("order"), pl.lit(kind.__name__).alias("type"), ids))
    return frames


def plain_table(log: Log, ids: int = 1) -> pa.Table:
    """The events of a log in order of time, with what any log needs, and one to three ids of sixteen bytes each."""
    frames = []
    for kind, frame in log.frames.items():
        stream = pl.format("order-{}", pl.col("order")).alias("stream")
        frames.append(frame.select(stream, pl.all().exclude("order"), pl.lit(kind.__name__).alias("type")))
    table = pl.concat(frames, how="diagonal").sort("seq").to_arrow()
    for name in ("event_id", "correlation_id", "causation_id")[:ids]:
        column = by_stream_ids(table.column("stream")) if name == "correlation_id" else random_ids(len(table))
        table = table.append_column(name, column)
    return table


def random_ids(count: int) -> pa.Array:
    """So many ids of sixteen bytes."""
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(16), count, [None, pa.py_buffer(os.urandom(16 * count))])


def by_stream_ids(streams: pa.ChunkedArray) -> pa.Array:
    """One id a stream, the same wherever it occurs."""
    named = streams.combine_chunks().dictionary_encode()
    digests = b"".join(hashlib.blake2b(name.encode(), digest_size=16).digest() for name in named.dictionary.to_pylist())
    ids = pa.FixedSizeBinaryArray.from_buffers(pa.binary(16), len(named.dictionary), [None, pa.py_buffer(digests)])
    return ids.take(named.indices)


def write_files(table: pa.Table, folder: Path, first: int = 0) -> list[str]:
    """A table as Parquet files of a million rows, with DuckDB's size of row groups, on the disk when it returns; their names."""
    folder.mkdir(exist_ok=True)
    found = []
    for low in range(0, len(table), FILE_ROWS):
        path = folder / f"{first + low:09d}.parquet"
        part = table.slice(low, FILE_ROWS)
        pq.write_table(part, path, compression="zstd", compression_level=1, row_group_size=GROUP_ROWS)
        with path.open("rb") as file:
            os.fsync(file.fileno())
        found.append(str(path))
    return found


class RawSqlite:
    """One table in a SQLite file that waits for the disk: the least that an append can cost."""

    INSERT: Final = "INSERT INTO event(stream, version, type, recorded_at, payload) VALUES(?, ?, 'ItemAdded', ?, ?)"

    def __init__(self, path: Path) -> None:
        self.connection = sqlite3.connect(path, isolation_level=None, timeout=60)
        self.connection.execute("PRAGMA journal_mode=WAL").fetchall()
        self.connection.execute("PRAGMA synchronous=FULL")
        self.connection.execute(
            "CREATE TABLE IF NOT EXISTS event(position INTEGER PRIMARY KEY, stream TEXT NOT NULL, version INTEGER NOT NULL, "
            "type TEXT NOT NULL, recorded_at INTEGER NOT NULL, payload BLOB NOT NULL, UNIQUE(stream, version))"
        )

    def insert(self, stream: str, version: int, *added: ItemAdded) -> None:
        """One transaction: an INSERT alone where it is one event."""
        if len(added) == 1:
            self.connection.execute(self.INSERT, self.row(stream, version, added[0]))
            return
        self.connection.execute("BEGIN IMMEDIATE")
        self.connection.executemany(self.INSERT, [self.row(stream, at, one) for at, one in enumerate(added, version)])
        self.connection.execute("COMMIT")

    @staticmethod
    def row(stream: str, version: int, added: ItemAdded) -> tuple[str, int, int, str]:
        return stream, version, time.time_ns(), json.dumps([added.sku, added.quantity, str(added.unit_price)])

    def count(self) -> int:
        return int(self.connection.execute("SELECT count(*) FROM event").fetchone()[0])
