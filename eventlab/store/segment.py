"""Segments: sealed runs of the log as Parquet files of typed columns.

A segment holds the events of one tenant and category within a run of positions, in position order. It is written once,
durably, and named with a digest in the catalog; nothing else is ever opened.
"""

from __future__ import annotations

import io
import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from eventlab.errors import Damaged
from eventlab.store.columns import payload_columns
from eventlab.store.files import file_digest, write_durably

ROW_GROUP: Final = 131_072
_DELTA: Final = ("position", "version", "commit", "recorded_at", "occurred_at")
_DICTIONARY: Final = ("stream", "type", "tenant", "actor", "correlation_id")


@dataclass(frozen=True)
class Written:
    """A segment file as written: where, how large, and its digest."""

    path: Path
    bytes: int
    digest: str


def write_segment(path: Path, table: pa.Table) -> Written:
    """Write a table of events in position order as a segment, durably."""
    payload = payload_columns(table)
    repeated = [name for name in payload if name.rsplit(":", 1)[1] in ("s", "dec", "json", "b", "d")]

    def write(temporary: Path) -> None:
        pq.write_table(
            table,
            temporary,
            row_group_size=ROW_GROUP,
            compression="zstd",
            compression_level=1,
            use_dictionary=[*_DICTIONARY, "tags.list.element", *repeated],
            column_encoding=dict.fromkeys(_DELTA, "DELTA_BINARY_PACKED"),
            write_page_index=True,
            bloom_filter_options={
                "stream": {"ndv": min(len(table), ROW_GROUP), "fpp": 0.01},
                "event_id": {"ndv": ROW_GROUP, "fpp": 0.01},
            },
            store_schema=False,
        )

    write_durably(path, write)
    return Written(path, path.stat().st_size, file_digest(path))


@dataclass(frozen=True)
class Segment:
    """A live segment of the catalog."""

    id: int
    path: Path
    tenant: str
    category: str
    first: int
    last: int
    rows: int
    bytes: int
    digest: str
    columns: tuple[str, ...]
    min_recorded: int
    max_recorded: int

    def verify_digest(self) -> None:
        """`Damaged` when the file's bytes are not those that were written."""
        try:
            digest = file_digest(self.path)
        except FileNotFoundError:
            raise Damaged(f"segment {self.path} is missing", hint="restore it from a backup", path=str(self.path)) from None
        if digest != self.digest:
            raise Damaged(
                f"segment {self.path} is not what was written: its digest is {digest[:12]}…, "
                f"the catalog says {self.digest[:12]}…",
                hint="restore the file from a backup; its events are unreadable until then",
                path=str(self.path),
            )

    @cached_property
    def file(self) -> pq.ParquetFile:
        """The open file, its digest checked once (a flipped byte would be read back as wrong data, silently)."""
        self.verify_digest()
        return pq.ParquetFile(self.path, memory_map=True)

    def groups(self, after: int, until: int | None) -> list[int]:
        """The row groups that hold positions in `after` < position ≤ `until`."""
        metadata = self.file.metadata
        found = []
        for i in range(metadata.num_row_groups):
            statistics = metadata.row_group(i).column(0).statistics
            if statistics.max > after and (until is None or statistics.min <= until):
                found.append(i)
        return found

    def read(self, groups: Sequence[int], envelope: Sequence[str], payload: Collection[str] | None) -> pa.Table:
        """Some columns of some row groups; `payload` None asks for every payload column."""
        wanted = [c for c in self.columns if payload is None or c in payload]
        table = self.file.read_row_groups(list(groups), columns=[*envelope, *wanted], use_threads=False)
        # Parquet brings fixed-size binary, maps and the rest back as they were; only column order is set here.
        return table.select([*envelope, *wanted])


def tables(
    segments: Sequence[Segment], after: int, until: int | None, envelope: Sequence[str], payload: Collection[str] | None
) -> Iterator[list[tuple[Segment, pa.Table]]]:
    """The tables of one run's segments: a row group at a time for a single segment, else all at once (runs are bounded)."""
    if len(segments) == 1:
        for group in segments[0].groups(after, until):
            yield [(segments[0], segments[0].read([group], envelope, payload))]
    elif segments:
        yield [(s, s.read(groups, envelope, payload)) for s in segments if (groups := s.groups(after, until))]


def describe(path: Path) -> str:
    """A segment's footer as a person would read it."""
    out = io.StringIO()
    file = pq.ParquetFile(path)
    print(
        f"{path.name}: {file.metadata.num_rows:,} events, {file.metadata.num_row_groups} row groups, "
        f"{os.stat(path).st_size:,} bytes",
        file=out,
    )
    sizes: dict[str, int] = {}
    for i in range(file.metadata.num_row_groups):
        group: Any = file.metadata.row_group(i)
        for j in range(group.num_columns):
            column = group.column(j)
            sizes[column.path_in_schema] = sizes.get(column.path_in_schema, 0) + column.total_compressed_size
    for name, size in sorted(sizes.items(), key=lambda item: -item[1]):
        print(f"  {name:<28} {size:>12,} bytes", file=out)
    return out.getvalue()
