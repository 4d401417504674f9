"""Segments: sealed runs of the log as Parquet files of typed columns.

A segment holds events of one tenant and category within a run of positions. At level 0 it holds all of them, in position
order; at level 1 it is one of N buckets of streams, sorted by (stream, version). It is written once, durably, and named
with a digest in the catalog; nothing else is ever opened.
"""

from __future__ import annotations

import bisect
import contextlib
import hashlib
import os
import threading
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from eventlab.errors import Damaged, EventlabError, StoreError
from eventlab.model.types import Leaf
from eventlab.store.columns import ENVELOPE, ENVELOPE_NAMES, codec, payload_columns
from eventlab.store.files import LOCAL_DISK, Disk, free_memory, write_durably

ROW_GROUP: Final = 131_072
#: A stream is read from one row group or two: small ones in sorted files, but never so many that the footer costs more.
SORTED_ROW_GROUP: Final = 16_384
SMALL_SORTED_ROW_GROUP: Final = 8_192
SMALL_FILE_ROWS: Final = 500_000
MAX_ROW_GROUPS: Final = 100
#: Row groups of a sorted file that are read together when all of it is.
GROUPS_AT_ONCE: Final = 16
#: What PyArrow raises over a file that is not what it says it is.
_UNREADABLE: Final = (pa.ArrowException, AttributeError, LookupError, OSError, OverflowError, TypeError, ValueError)
#: A row group that takes more is looked at before it is read.
LARGE_GROUP_BYTES: Final = 64 << 20
#: Bytes in memory of a value; of text, what points to it.
_WIDTHS: Final = {"BOOLEAN": 1, "INT32": 4, "INT64": 8, "INT96": 8, "FLOAT": 4, "DOUBLE": 8, "BYTE_ARRAY": 16}
#: A column gets a dictionary where each of so many values occurs so often.
SAMPLE_ROWS: Final = 50_000
MIN_REPEATS: Final = 2
#: What every event has.
_NEEDED: Final = frozenset(ENVELOPE_NAMES) - {"correlation_id", "causation_id", "actor"}
_DELTA: Final = ("position", "version", "commit", "recorded_at", "occurred_at")
_DICTIONARY: Final = ("stream", "type", "tenant", "actor", "correlation_id")


@dataclass(frozen=True)
class Written:
    """A segment file as written: where, how large, and its digest."""

    path: Path
    bytes: int
    digest: str


class SegmentGone(Damaged):
    """The file of a segment is not there; unless it was compacted since, it is lost."""


def _digest_of(file: int) -> str:
    """The SHA-256 of an open file, from its first byte on."""
    found, at = hashlib.sha256(), 0
    while part := os.pread(file, 1 << 20, at):
        found.update(part)
        at += len(part)
    return found.hexdigest()


def bucket_of(stream: str, buckets: int) -> int:
    """The bucket of a stream: CRC-32 of its name in UTF-8, modulo a power of two."""
    return zlib.crc32(stream.encode()) & (buckets - 1)


def buckets_of(streams: pa.ChunkedArray, buckets: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The bucket of each of many streams: one checksum a name."""
    names = streams.combine_chunks().dictionary_encode()
    of_name = np.fromiter((bucket_of(name, buckets) for name in names.dictionary.to_pylist()), np.int64, len(names.dictionary))
    found: np.ndarray[Any, np.dtype[np.int64]] = of_name[names.indices.to_numpy()]
    return found


def expanded_bytes(metadata: pq.FileMetaData, groups: Iterable[int]) -> int:
    """At least so many bytes are in memory when these row groups are read: a column that says one thing over and over is
    next to nothing in a file, and its footer does not tell."""
    widths = [_WIDTHS.get(of.physical_type, of.length) for of in map(metadata.schema.column, range(metadata.num_columns))]
    return sum(metadata.row_group(i).column(j).num_values * width for i in groups for j, width in enumerate(widths))


def row_group_size(rows: int, *, by_stream: bool) -> int:
    """How many rows a row group of a file of so many rows has."""
    if not by_stream:
        return ROW_GROUP
    size = SMALL_SORTED_ROW_GROUP if rows < SMALL_FILE_ROWS else SORTED_ROW_GROUP
    return max(size, -(-rows // MAX_ROW_GROUPS))


def write_segment(path: Path, table: pa.Table, disk: Disk = LOCAL_DISK, *, by_stream: bool = False) -> Written:
    """Write a table of events as a segment, durably: in position order, or sorted by (stream, version)."""
    repeated = [name for name in payload_columns(table) if _repeats(table.column(name))]
    # Within a file of one row group or many, a name is looked for by the bloom filter where order does not tell its place.
    filters = {
        "stream": {"ndv": min(len(table), ROW_GROUP), "fpp": 0.01},
        "event_id": {"ndv": min(len(table), ROW_GROUP), "fpp": 0.01},
    }

    def write(file: IO[bytes]) -> None:
        pq.write_table(
            table,
            file,
            row_group_size=row_group_size(len(table), by_stream=by_stream),
            compression="zstd",
            compression_level=1,
            use_dictionary=[*_DICTIONARY, "tags.list.element", *repeated],
            column_encoding=dict.fromkeys(_DELTA, "DELTA_BINARY_PACKED"),
            write_page_index=True,
            bloom_filter_options=None if by_stream else filters,
            store_schema=False,
            store_decimal_as_integer=True,
        )

    write_durably(path, write, disk)
    return Written(path, disk.size(path), disk.digest(path))


def _repeats(column: pa.ChunkedArray) -> bool:
    """Whether the values of a column recur, by some of them: then a dictionary of them is smaller, and quicker to read."""
    if pa.types.is_nested(column.type) or pa.types.is_boolean(column.type):
        return False
    some = column.drop_null().slice(0, SAMPLE_ROWS)
    return len(some) > 0 and int(pc.count_distinct(some).as_py()) * MIN_REPEATS <= len(some)


@dataclass(frozen=True)
class _Opened:
    """A mapped file, its footer, and a reader for each thread."""

    source: pa.MemoryMappedFile
    metadata: pq.FileMetaData
    readers: threading.local


@dataclass(frozen=True)
class Segment:
    """A live segment of the catalog; at level 1 it is `bucket` of `buckets`."""

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
    level: int = 0
    bucket: int = 0
    buckets: int = 1

    @property
    def by_stream(self) -> bool:
        """Whether rows are sorted by (stream, version) and not by position."""
        return self.level > 0

    def verify_digest(self) -> None:
        """`Damaged` when the file's bytes are not those that were written."""
        try:
            digest = LOCAL_DISK.digest(self.path)
        except FileNotFoundError:
            raise SegmentGone(f"segment {self.path} is missing", hint="restore it from a backup", path=str(self.path)) from None
        if digest != self.digest:
            raise self._changed(digest)

    def _changed(self, digest: str) -> Damaged:
        return Damaged(
            f"segment {self.path} is not what was written: its digest is {digest[:12]}…, the catalog says {self.digest[:12]}…",
            hint="restore the file from a backup; its events are unreadable until then",
            path=str(self.path),
        )

    @cached_property
    def _opened(self) -> _Opened:
        try:
            source = pa.memory_map(str(self.path))
        except FileNotFoundError:
            raise SegmentGone(f"segment {self.path} is missing", hint="restore it from a backup", path=str(self.path)) from None
        except (OSError, ValueError) as why:
            raise self._unreadable(why) from why
        # Mapped first: these are the bytes that are checked, and read from now on, whatever becomes of the name. They are
        # checked by reading, for a page of the map that was looked at counts as this process's memory.
        with self._reading():
            digest = _digest_of(source.fileno())
        if digest != self.digest:
            raise self._changed(digest)
        with self._reading():
            metadata = pq.read_metadata(source)
            names = tuple(name for name in metadata.schema.to_arrow_schema().names if ":" in name)
        if (metadata.num_rows, names) != (self.rows, self.columns):
            raise self._unreadable(f"it has {metadata.num_rows:,} rows of {', '.join(names) or 'no payload'}")
        self._refuse_unlike(metadata)
        return _Opened(source, metadata, threading.local())

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except EventlabError:
            raise
        except _UNREADABLE as why:
            raise self._unreadable(why) from why

    def _refuse_unlike(self, metadata: pq.FileMetaData) -> None:
        """Refuse a file of other columns, or with row groups that may be larger in memory than any that is written."""
        schema = metadata.schema.to_arrow_schema()
        there = dict(zip(schema.names, schema.types, strict=True))
        wanted = dict(zip(ENVELOPE.names, ENVELOPE.types, strict=True))
        wanted |= {column: codec(Leaf.parse(column).tag).arrow for column in self.columns}
        for name in {**wanted, **there}:
            found, expected = there.get(name, "not there"), wanted.get(name, "a column of a segment")
            if found != expected:
                raise self._unreadable(f"its column {name!r} is {found}, not {expected}")
        if schema.names != list(wanted):
            raise self._unreadable(f"its columns are in another order: {', '.join(schema.names)}")
        most = max(ROW_GROUP, -(-self.rows // MAX_ROW_GROUPS))
        for i in range(metadata.num_row_groups):
            if (rows := metadata.row_group(i).num_rows) > most:
                raise self._unreadable(f"row group {i} has {rows:,} rows, and none is written with more than {most:,}")
            size = expanded_bytes(metadata, [i])
            if size > LARGE_GROUP_BYTES and size > (free := free_memory() or size):
                raise StoreError(
                    f"row group {i} of segment {self.path} takes at least {size:,} bytes of memory, and {free:,} are free",
                    hint="read it where there is more; if nothing so large was written: eventlab verify",
                    path=str(self.path),
                )

    def _unreadable(self, why: object) -> Damaged:
        return Damaged(
            f"segment {self.path} does not hold what the catalog says of it: {why}",
            hint="eventlab verify; restore a backup",
            path=str(self.path),
        )

    def open(self) -> None:
        """Map the file and check its digest, once (a flipped byte would be read back as wrong data, silently)."""
        assert self._opened

    @property
    def metadata(self) -> pq.FileMetaData:
        """The footer."""
        return self._opened.metadata

    @property
    def file(self) -> pq.ParquetFile:
        """A reader of the open file for this thread: two threads may not share one."""
        return self._reader("file", ())

    def _reader(self, name: str, dictionary: Sequence[str]) -> pq.ParquetFile:
        opened = self._opened
        found: pq.ParquetFile | None = getattr(opened.readers, name, None)
        if found is None:
            found = pq.ParquetFile(opened.source, metadata=opened.metadata, read_dictionary=list(dictionary))
            setattr(opened.readers, name, found)
        return found

    def groups(self, after: int, until: int | None) -> list[int]:
        """The row groups that hold positions in `after` < position ≤ `until`."""
        metadata = self.metadata
        found = []
        with self._reading():
            for i in range(metadata.num_row_groups):
                statistics = metadata.row_group(i).column(0).statistics
                if statistics.max > after and (until is None or statistics.min <= until):
                    found.append(i)
        return found

    def has_positions(self, group: int, after: int, until: int) -> bool:
        """Whether a row group holds some position in `after` < position ≤ `until`: by that column alone."""
        position = self._read([group], ["position"], ()).column(0)
        inside = pc.and_(pc.greater(position, after), pc.less_equal(position, until))
        return bool(pc.any(inside).as_py())

    @cached_property
    def _last_streams(self) -> list[str]:
        """The last stream of each row group of a sorted file."""
        metadata = self.metadata
        with self._reading():
            return [metadata.row_group(i).column(1).statistics.max for i in range(metadata.num_row_groups)]

    def groups_of(self, stream: str) -> list[int]:
        """The row groups that can hold a stream."""
        metadata = self.metadata
        found = []
        with self._reading():
            first = bisect.bisect_left(self._last_streams, stream) if self.by_stream else 0
            for i in range(first, metadata.num_row_groups):
                statistics = metadata.row_group(i).column(1).statistics
                if statistics.min > stream:
                    if self.by_stream:
                        break
                    continue
                if statistics.max >= stream:
                    found.append(i)
        return found

    def read(self, groups: Sequence[int], envelope: Sequence[str], payload: Collection[str] | None) -> pa.Table:
        """Some columns of some row groups; `payload` None asks for every payload column."""
        return self._checked(self._read(groups, envelope, payload))

    def _read(self, groups: Sequence[int], envelope: Sequence[str], payload: Collection[str] | None) -> pa.Table:
        wanted = [c for c in self.columns if payload is None or c in payload]
        with self._reading():
            table = self.file.read_row_groups(list(groups), columns=[*envelope, *wanted], use_threads=False)
            # Parquet brings fixed-size binary, maps and the rest back as they were; only column order is set here.
            return table.select([*envelope, *wanted])

    def _checked(self, table: pa.Table) -> pa.Table:
        """The table, whose text is text and which says all that an event must; a digest does not know what it was taken of."""
        with self._reading():
            table.validate(full=True)
        for name in table.column_names:
            if name in _NEEDED and (missing := table.column(name).null_count):
                raise self._unreadable(f"its column {name!r} has {missing:,} nulls")
        return table

    def of_stream(self, stream: str, envelope: Sequence[str], payload: Collection[str] | None) -> pa.Table | None:
        """The rows of one stream in version order: look at the names first, then read only the row groups that have it.

        Its own name and that of its tenant are known, and are not read again for all the others of a row group.
        """
        read = [name for name in envelope if name not in ("stream", "tenant")]
        known = {"stream": stream, "tenant": self.tenant}
        if self.by_stream and bucket_of(stream, self.buckets) != self.bucket:
            return None
        parts = []
        wanted = [c for c in self.columns if payload is None or c in payload]
        # Names and types stay numbers for all the rows that are not this stream's.
        reader = self._reader("of_stream", ("stream", "type"))
        for group in self.groups_of(stream):
            with self._reading():
                at = _rows_named(reader.read_row_group(group, columns=["stream"], use_threads=False).column(0), stream)
                if not len(at):
                    continue
                table = reader.read_row_group(group, columns=[*read, *wanted], use_threads=False).select([*read, *wanted])
                together = int(at[-1]) - int(at[0]) + 1 == len(at)
                table = table.slice(int(at[0]), len(at)) if together else table.take(pa.array(at))
                if "type" in read:
                    table = table.set_column(read.index("type"), "type", table.column("type").cast(pa.string()))
            for place, name in enumerate(envelope):
                if name in known:
                    table = table.add_column(place, name, pa.array([known[name]] * len(table), pa.string()))
            parts.append(self._checked(table))
        return pa.concat_tables(parts) if parts else None


def _rows_named(names: pa.ChunkedArray, name: str) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Where a column of names, as a dictionary, has one of them."""
    found, before = [], 0
    for chunk in names.chunks:
        code = chunk.dictionary.index(name).as_py()
        if code >= 0:
            found.append(before + np.flatnonzero(chunk.indices.to_numpy(zero_copy_only=False) == code))
        before += len(chunk)
    return np.concatenate(found) if found else np.empty(0, np.int64)


@dataclass(frozen=True)
class Reading:
    """What a scan asks for: positions in `after` < position ≤ `until`, these envelope columns, and the payload of some types.

    `pick` keeps the rows that a filter picks, out of a table of one category.
    """

    after: int
    until: int
    envelope: Sequence[str]
    payload: Collection[str] | None
    streams: frozenset[str] | None
    pick: Callable[[pa.Table, str], pa.Table]


def run_tables(segments: Sequence[Segment], reading: Reading) -> Iterator[list[pa.Table]]:
    """One run's rows in position order, a bounded number at a time: each list holds one table a category.

    A single segment in position order is read a row group at a time, several of one run all at once (runs are bounded).
    An era that is sorted by stream is sorted again as a whole: it is bounded too.
    """
    if len(segments) == 1 and not segments[0].by_stream:
        (segment,) = segments
        for group in segment.groups(reading.after, reading.until):
            table = segment.read([group], reading.envelope, reading.payload)
            yield [clip(reading.pick(table, segment.category), reading.after, reading.until)]
    elif segments and not segments[0].by_stream:
        found = []
        for segment in segments:
            if groups := segment.groups(reading.after, reading.until):
                table = segment.read(groups, reading.envelope, reading.payload)
                found.append(clip(reading.pick(table, segment.category), reading.after, reading.until))
        yield found
    elif segments:
        yield from _era_tables(segments, reading)


def _era_tables(segments: Sequence[Segment], reading: Reading) -> Iterator[list[pa.Table]]:
    """The rows of sorted bucket files in position order: a slice of positions at a time, sorted a category at once."""
    parts: dict[tuple[str, str], list[pa.Table]] = {}
    for segment in segments:
        groups: Sequence[int] = segment.groups(reading.after, reading.until)
        if reading.streams is not None:
            mine = [s for s in reading.streams if bucket_of(s, segment.buckets) == segment.bucket]
            groups = sorted({group for stream in mine for group in segment.groups_of(stream)} & set(groups))
        if len(groups) > 1 and reading.until - reading.after < segment.rows:
            # Few of these positions are asked for: where none of a row group are, nothing else of it is read.
            groups = [group for group in groups if segment.has_positions(group, reading.after, reading.until)]
        for low in range(0, len(groups), GROUPS_AT_ONCE):
            table = segment.read(groups[low : low + GROUPS_AT_ONCE], reading.envelope, reading.payload)
            position = table.column("position")
            inside = pc.and_(pc.greater(position, reading.after), pc.less_equal(position, reading.until))
            table = reading.pick(table.filter(inside), segment.category)
            if len(table):
                parts.setdefault((segment.tenant, segment.category), []).append(table)
    whole = []
    for key in sorted(parts):
        table = pa.concat_tables(parts.pop(key), promote_options="default")
        whole.append(table.take(pa.array(np.argsort(table.column("position").to_numpy(), kind="stable"))))
    total = sum(map(len, whole))
    if total:
        positions = np.sort(np.concatenate([table.column("position").to_numpy() for table in whole]))
        edges = [*positions[ROW_GROUP - 1 : -1 : ROW_GROUP].tolist(), int(positions[-1])]
        low = 0
        for high in edges:
            yield [clip(table, low, high) for table in whole]
            low = high


def clip(table: pa.Table, after: int, until: int) -> pa.Table:
    """The rows with `after` < position ≤ `until` of a table in position order."""
    positions = table.column("position").to_numpy()
    low, high = int(np.searchsorted(positions, after, "right")), int(np.searchsorted(positions, until, "right"))
    return table if (low, high) == (0, len(positions)) else table.slice(low, max(0, high - low))
