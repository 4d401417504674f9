"""Compaction: runs in position order become an era of bucket files sorted by (stream, version), or one longer run.

An *era* holds all events of a run of positions, of every tenant and category. Each category's streams are spread over N
buckets by the CRC-32 of their names, so that a stream is read from one file, and a fold takes a bucket at a time in little
memory. Small runs are merged into longer ones until there are enough for an era. Events do not change, only their files:
one transaction retires the old ones and registers the new, and whoever reads a cut sees no difference.

Rows go from the old files to one spill file a bucket, a row group at a time; then each bucket is sorted by itself (a
distribution sort: Knuth, The Art of Computer Programming, vol. 3, § 5.2.5, with a stable sort at the leaves). A stream's
events keep the order in which they are met, and that is the order of versions.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.ipc

from eventlab.model.types import Leaf
from eventlab.store.columns import ENVELOPE_NAMES, codec
from eventlab.store.runs import Finished, Place, Runs
from eventlab.store.seal import Pause, no_pause
from eventlab.store.segment import Segment, SegmentGone, buckets_of

#: An era closes at so many positions, once the next one is half full: the newest events stay in position order.
ERA_POSITIONS: Final = 10_000_000
#: So many short runs are merged into longer ones, of at most so many positions.
MANY_RUNS: Final = 32
MERGED_POSITIONS: Final = 1_000_000
#: A bucket has at most so many streams, if its file then still has so many rows.
BUCKET_STREAMS: Final = 150_000
BUCKET_ROWS: Final = 262_144
#: A bucket is sorted in memory, some 250 bytes a row, twice: so many rows at most.
FILE_ROWS: Final = 1 << 20
#: Up to so many bytes of a category are sorted in memory; more is spilled to the system's temporary folder.
SPILL_BYTES: Final = 256 << 20


@dataclass(frozen=True)
class Era:
    """A run of positions with its segments: what is rewritten together, and whether sorted by stream or merged in order."""

    first: int
    last: int
    segments: tuple[Segment, ...]
    by_stream: bool

    @property
    def positions(self) -> int:
        return self.last - self.first + 1


@dataclass(frozen=True)
class Compacted:
    """What a compaction did: eras and merged runs made, events rewritten, files before and after."""

    eras: int = 0
    merged: int = 0
    events: int = 0
    files_before: int = 0
    files_after: int = 0


def compact(runs: Runs, *, all: bool = False, positions: int = ERA_POSITIONS, pause: Pause = no_pause) -> Compacted:
    """Rewrite what is due; `all` closes every sealed run into eras at once."""
    done = Compacted()
    with runs.catalog.read() as connection:
        live = runs.live(connection)
    for era in due(live, all=all, positions=positions):
        files: list[Finished] = []
        # Where another process was faster, its files are as good as ours.
        with contextlib.suppress(SegmentGone):
            files = _rewrite(runs, era, pause)
        if files:
            done = Compacted(
                done.eras + era.by_stream,
                done.merged + (not era.by_stream),
                done.events + sum(segment.rows for segment in era.segments),
                done.files_before + len(era.segments),
                done.files_after + len(files),
            )
    return done


def due(live: Sequence[Segment], *, all: bool, positions: int = ERA_POSITIONS) -> list[Era]:
    """What should be rewritten, first positions first."""
    found: list[Era] = []
    for chain in _chains(live):
        found += _closed(chain, all, positions) or _short(chain)
    return found


def _chains(live: Sequence[Segment]) -> Iterator[list[Era]]:
    """Runs that follow on one another without a hole of hot events between them."""
    runs: dict[tuple[int, int], list[Segment]] = {}
    for segment in live:
        runs.setdefault((segment.first, segment.last), []).append(segment)
    chain: list[Era] = []
    for (first, last), segments in sorted(runs.items()):
        if chain and chain[-1].last + 1 != first:
            yield chain
            chain = []
        chain.append(Era(first, last, tuple(segments), segments[0].by_stream))
    if chain:
        yield chain


def _closed(chain: Sequence[Era], all: bool, positions: int) -> list[Era]:
    """Neighbouring runs as eras, each as long as it may be."""
    groups: list[list[Era]] = []
    for run in chain:
        size = sum(one.positions for one in groups[-1]) if groups else 0
        if groups and size + run.positions <= positions:
            groups[-1].append(run)
        else:
            groups.append([run])
    found = []
    for i, group in enumerate(groups):
        following = sum(one.positions for later in groups[i + 1 :] for one in later)
        if _worth_it(group) and (all or (i + 1 < len(groups) and following >= positions // 2)):
            segments = tuple(segment for run in group for segment in run.segments)
            found.append(Era(group[0].first, group[-1].last, segments, by_stream=True))
    return found


def _worth_it(group: Sequence[Era]) -> bool:
    """Whether sorting a group again adds enough: what is sorted already is not sorted for the sake of a few events."""
    done = sum(run.positions for run in group if run.by_stream)
    new = sum(run.positions for run in group if not run.by_stream)
    return new > 0 and (new >= done or done < BUCKET_ROWS)


def _short(chain: Sequence[Era]) -> list[Era]:
    """Short runs in position order, merged into longer ones when there are many."""
    runs = [run for run in chain if not run.by_stream and run.positions <= MERGED_POSITIONS // 2]
    if len(runs) < MANY_RUNS:
        return []
    groups: list[list[Era]] = []
    for run in runs:
        near = groups and groups[-1][-1].last + 1 == run.first
        if near and sum(one.positions for one in groups[-1]) + run.positions <= MERGED_POSITIONS:
            groups[-1].append(run)
        else:
            groups.append([run])
    return [
        Era(group[0].first, group[-1].last, tuple(segment for run in group for segment in run.segments), by_stream=False)
        for group in groups
        if len(group) > 1
    ]


def buckets_for(rows: int, streams: int) -> int:
    """The number of buckets, a power of two: not too many streams or rows in each, and rows enough for each file."""
    buckets = 1
    while (buckets * BUCKET_STREAMS < streams or buckets * FILE_ROWS < rows) and rows >= 2 * buckets * BUCKET_ROWS:
        buckets *= 2
    return buckets


def _rewrite(runs: Runs, era: Era, pause: Pause) -> list[Finished]:
    """Write an era's files and swap them in; nothing where another process was faster."""
    categories: dict[tuple[str, str], list[Segment]] = {}
    for segment in era.segments:
        categories.setdefault((segment.tenant, segment.category), []).append(segment)
    numbers = {key: _buckets(segments, pause) if era.by_stream else 1 for key, segments in categories.items()}
    places = [Place(*key, bucket, count) for key, count in numbers.items() for bucket in range(count)]
    with runs.catalog.write() as connection:
        reserved = runs.reserve(connection, places, era.first, era.last, level=int(era.by_stream))
    with runs.or_abandon(reserved.values()):
        files = []
        for key, segments in categories.items():
            for bucket, table in _gathered(segments, numbers[key], pause):
                place = reserved[Place(*key, bucket, numbers[key])]
                files.append(runs.write(place, _by_stream(table) if era.by_stream else table, by_stream=era.by_stream))
                pause()
        written = {file.number for file in files}
        empty = [place for place in reserved.values() if place.number not in written]
        with runs.catalog.write() as connection:
            inputs = [segment.id for segment in era.segments]
            marks = ", ".join("?" * len(inputs))
            still = connection.execute(f"SELECT count(*) FROM segment WHERE state = 'live' AND id IN ({marks})", inputs)
            won = still.fetchone()[0] == len(inputs)
            if won:
                runs.publish(connection, files, era.segments)
                connection.executemany("DELETE FROM segment WHERE id = ?", [(place.number,) for place in empty])
    if not won:
        runs.abandon(reserved.values())
        return []
    return files


def _buckets(segments: Sequence[Segment], pause: Pause) -> int:
    """How many buckets a category's rows make; names are only counted where they decide."""
    rows = sum(segment.rows for segment in segments)
    streams: set[str] = set()
    for segment in segments if rows >= 2 * BUCKET_ROWS else ():
        for group in range(segment.metadata.num_row_groups):
            names = segment.read([group], ["stream"], ()).column(0)
            streams.update(names.unique().to_pylist())
            pause()
            if len(streams) > rows // BUCKET_ROWS * BUCKET_STREAMS:
                break
    return buckets_for(rows, len(streams))


def _gathered(segments: Sequence[Segment], buckets: int, pause: Pause) -> Iterator[tuple[int, pa.Table]]:
    """The rows of a category's segments as one table a bucket, in the order of their runs; a bucket without rows is left out."""
    columns = [*ENVELOPE_NAMES, *sorted({column for segment in segments for column in segment.columns})]
    in_memory = sum(segment.bytes for segment in segments) < SPILL_BYTES // 8
    with contextlib.ExitStack() as stack:
        folder = None if in_memory else Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="eventlab-")))
        spill = stack.enter_context(_Spill(buckets, folder))
        for segment in segments:
            for group in range(segment.metadata.num_row_groups):
                table = _padded(segment.read([group], ENVELOPE_NAMES, None), columns)
                spill.add(table, buckets_of(table.column("stream"), buckets))
                pause()
        for bucket in range(buckets):
            if (table := spill.take(bucket)) is not None:
                yield bucket, table


def _padded(table: pa.Table, columns: Sequence[str]) -> pa.Table:
    """The table with these columns, nulls where it has none of a name."""
    for column in columns:
        if column not in table.column_names:
            table = table.append_column(column, pa.nulls(len(table), codec(Leaf.parse(column).tag).arrow))
    return table.select(columns)


def _by_stream(table: pa.Table) -> pa.Table:
    """The rows in the order of their streams' names, as bytes; those of one stream stay in order."""
    names = table.column("stream").combine_chunks().dictionary_encode()
    rank = np.empty(len(names.dictionary), np.int64)
    rank[pc.sort_indices(names.dictionary).to_numpy()] = np.arange(len(rank))
    return table.take(pa.array(np.argsort(rank[names.indices.to_numpy()], kind="stable")))


class _Spill:
    """Rows by bucket: in memory, or in one Arrow file a bucket in a folder."""

    def __init__(self, buckets: int, folder: Path | None) -> None:
        self._folder = folder
        self._tables: list[list[pa.Table]] = [[] for _ in range(buckets)]
        self._writers: list[pa.RecordBatchStreamWriter | None] = [None] * buckets

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for writer in self._writers:
            if writer is not None:
                writer.close()

    def add(self, table: pa.Table, numbers: np.ndarray[Any, Any]) -> None:
        """Give each row to its bucket."""
        for bucket in range(len(self._tables)):
            at = np.flatnonzero(numbers == bucket)
            if len(at):
                self._keep(bucket, table if len(at) == len(table) else table.take(pa.array(at)))

    def _keep(self, bucket: int, table: pa.Table) -> None:
        if self._folder is None:
            self._tables[bucket].append(table)
            return
        writer = self._writers[bucket]
        if writer is None:
            writer = self._writers[bucket] = pa.ipc.new_stream(str(self._path(bucket)), table.schema)
        writer.write_table(table)

    def take(self, bucket: int) -> pa.Table | None:
        """All rows of a bucket, in the order in which they came; its memory or file is let go."""
        parts, self._tables[bucket] = self._tables[bucket], []
        writer, self._writers[bucket] = self._writers[bucket], None
        if writer is not None:
            writer.close()
            path = self._path(bucket)
            with pa.OSFile(str(path)) as file:
                parts = [pa.ipc.open_stream(file).read_all()]
            path.unlink()
        return pa.concat_tables(parts).combine_chunks() if parts else None

    def _path(self, bucket: int) -> Path:
        assert self._folder is not None
        return self._folder / f"{bucket}.arrows"
