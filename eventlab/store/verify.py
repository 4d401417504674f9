"""Verify: looks for damage and for broken promises in a store, and changes nothing.

A quick look reads the catalog, the digests of all files and of every hot event, the checksums of what stands in the catalog
alone, and the numbers that must add up. A full one also checks the catalog's indexes and reads every event: positions
without a gap, versions 1…n in each stream, ids that occur once and are known as such, a clock of record that never goes
back, causes that come before their effects, payloads that decode, and types where the catalog says they are.

A segment whose digest is wrong is not read further: its bytes say nothing that can be trusted. The runs it belongs to are
left out of the rest, and the report says so.
"""

from __future__ import annotations

import bisect
import contextlib
import sqlite3
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from eventlab.errors import Damaged, EventlabError
from eventlab.model.schema import Schema
from eventlab.model.types import MOMENT_MIN
from eventlab.store.base import ALL, Row, checksum, record_digest, record_of, unpack
from eventlab.store.catalog import identity
from eventlab.store.columns import ENVELOPE_NAMES
from eventlab.store.cut import DiskCut, HotStream, Layout
from eventlab.store.disk import DiskStore
from eventlab.store.files import file_digest
from eventlab.store.gc import Hold
from eventlab.store.query import SqlConnection
from eventlab.store.segment import Segment, bucket_of
from eventlab.store.tail import READ_COLUMNS, RUN_EVENTS, rows_of

#: What looking at values raises that are not what the code takes them for; here it is something that was found.
_UNFIT: Final = (ArithmeticError, AttributeError, LookupError, OSError, TypeError, ValueError)
_RESTORE: Final = "restore a backup of the catalog"
Severity = Literal["damage", "warning", "note"]

#: Streams and ids are compared in buckets, each of about so many events, so that memory stays bounded.
BUCKET_EVENTS: Final = 4_000_000


@dataclass(frozen=True)
class Finding:
    """One kind of trouble: how often, where first, and the way out. `damage` means that events are lost or not as written."""

    code: str
    severity: Severity
    count: int
    message: str
    hint: str
    position: int | None = None

    def __str__(self) -> str:
        where = f" (first at position {self.position:,})" if self.position is not None else ""
        more = f", and {self.count - 1:,} more like it" if self.count > 1 else ""
        return f"{self.severity.upper()} {self.code}: {self.message}{more}{where}\n  Hint: {self.hint}"


@dataclass(frozen=True)
class Verified:
    """What a verification looked at and found; `ok` when nothing is damaged."""

    path: str
    full: bool
    events: int
    segments: int
    bytes: int
    findings: tuple[Finding, ...]
    left_out: tuple[str, ...]
    seconds: float

    @property
    def ok(self) -> bool:
        return not any(finding.severity == "damage" for finding in self.findings)

    def __str__(self) -> str:
        looked = "every event" if self.full else "catalog, digests and numbers; --full reads every event"
        verdict = "no damage found" if self.ok else "DAMAGED"
        head = (
            f"{self.path}: {verdict} in {self.events:,} events, {self.segments:,} segments, {self.bytes:,} bytes "
            f"({looked}; {self.seconds:.1f} s)"
        )
        return "\n".join([head, *map(str, self.findings), *(f"not looked at: {text}" for text in self.left_out)])

    def to_dict(self) -> dict[str, Any]:
        """The report as plain values."""
        return {**asdict(self), "ok": self.ok}


@dataclass
class _Report:
    """Findings as they come up, one a code."""

    found: dict[str, Finding] = field(default_factory=dict)

    def add(self, code: str, severity: Severity, message: str, hint: str, *, count: int = 1, position: int | None = None) -> None:
        """Add to a finding: the first message stands, the counts add up."""
        before = self.found.get(code)
        if before is None:
            self.found[code] = Finding(code, severity, count, message, hint, position)
        else:
            places = [p for p in (before.position, position) if p is not None]
            self.found[code] = replace(before, count=before.count + count, position=min(places, default=None))

    def listed(self) -> tuple[Finding, ...]:
        """The findings, worst first, each saying how many there are of it."""
        order = {"damage": 0, "warning": 1, "note": 2}
        return tuple(sorted(self.found.values(), key=lambda finding: order[finding.severity]))


@dataclass(frozen=True)
class _Seen:
    """The catalog at one commit."""

    head: int
    sealed: int
    recorded_at: int
    heads: pl.DataFrame
    uses: frozenset[tuple[str, str, str, int]]
    ingested: tuple[tuple[int, int], ...]


def verify(store: DiskStore, *, full: bool = False) -> Verified:
    """Look for damage; `full` reads every event. The store may be in use: what is checked is the log as it was at the start."""
    started = time.perf_counter()
    report = _Report()
    events = 0
    segments: tuple[Segment, ...] = ()
    left_out: list[str] = []
    try:
        seen = _catalog(store, report, full)
        events, segments = seen.head, store.segments()
        damaged = _segments(segments, report)
        _orphans(store, report)
        _read_models(store, report)
        cut = store.cut()
    except (EventlabError, *_UNFIT) as why:
        report.add("catalog-unreadable", "damage", _said(why), _RESTORE)
        left_out.append("everything that the catalog would have named")
    else:
        try:
            layout = cut.layout
        except (EventlabError, *_UNFIT) as why:
            report.add("event-unreadable", "damage", _said(why), _RESTORE)
            left_out.append("positions and single events, for the hot tail cannot be read")
        else:
            _runs(layout, seen, report)
            if full:
                try:
                    left_out += _whole_log(store, cut, seen, damaged, report)
                except (EventlabError, *_UNFIT) as why:
                    report.add("event-unreadable", "damage", _said(why), _RESTORE)
                    left_out.append("the rest of what is true of the whole log")
    return Verified(
        path=str(store.root),
        full=full,
        events=events,
        segments=len(segments),
        bytes=sum(segment.bytes for segment in segments),
        findings=report.listed(),
        left_out=tuple(left_out),
        seconds=time.perf_counter() - started,
    )


def _said(why: Exception) -> str:
    return why.message if isinstance(why, EventlabError) else f"{type(why).__name__}: {why}"


# -- the catalog and its hot events ----------------------------------------------------------------------------------------


def _catalog(store: DiskStore, report: _Report, full: bool) -> _Seen:
    _unread(store, report)
    with store.inspect() as catalog:
        # The full one also compares every index with its table.
        for (text,) in catalog.execute(f"PRAGMA {'integrity' if full else 'quick'}_check(5)").fetchall():
            if text != "ok":
                report.add("catalog-damaged", "damage", f"SQLite says of the catalog: {text}", _RESTORE)
        head, sealed, recorded_at, id_floor, generation, types, said = catalog.execute(
            "SELECT head, sealed, recorded_at, id_floor, generation, types, checksum FROM log"
        ).fetchone()
        if identity(catalog) != said or min(head, sealed, id_floor, generation, types) < 0 or max(sealed, id_floor) > head:
            report.add("log-row-changed", "damage", "what the catalog says of the whole log is not what was written", _RESTORE)
        _schemas(catalog, report)
        tenants = dict(catalog.execute("SELECT id, name FROM tenant").fetchall())
        last = MOMENT_MIN
        for raw in catalog.execute(f"SELECT {READ_COLUMNS} FROM event ORDER BY position"):
            last = max(last, _hot_run(raw, tenants, report))
        _counters(catalog, head, sealed, (recorded_at, last), report)
        ingested = _chunks(catalog, head, report)
        _known_ids(catalog, head, id_floor, ingested, report)
        _handled(catalog, head, report)
        _derived(catalog, head, report)
        dead = catalog.execute("SELECT path, lease FROM segment WHERE state = 'pending'").fetchall()
        for path, lease in dead:
            if lease < time.time():
                report.add(
                    "pending-dead",
                    "note",
                    f"{path} was begun and never finished: a process was killed while it sealed or ingested",
                    "harmless; its rows are not part of the log",
                )
        uses = catalog.execute(
            "SELECT coalesce(tenant.name, ''), coalesce(category.name, ''), type, version FROM type_use "
            "LEFT JOIN tenant ON tenant.id = tenant LEFT JOIN category ON category.id = category"
        ).fetchall()
        listed = catalog.execute("SELECT tenant, stream, version, first_position, last_position FROM stream_head").fetchall()
    # Bytes in a column of text, or the reverse, and a damaged row may hold anything: Polars would guess.
    fits = [row for row in listed if tuple(map(type, row)) == (int, str, int, int, int)]
    if len(fits) < len(listed):
        report.add("stream-head-wrong", "damage", "what the catalog says of a stream is not of the right types", _RESTORE,
                   count=len(listed) - len(fits))  # fmt: skip
    heads = pl.DataFrame(
        [(tenants.get(tenant, ""), *rest) for tenant, *rest in fits],
        schema={"tenant": pl.String, "stream": pl.String, "version": pl.Int64, "first": pl.Int64, "last": pl.Int64},
        orient="row",
    )
    return _Seen(head, sealed, recorded_at, heads, frozenset(uses), ingested)


def _unread(store: DiskStore, report: _Report) -> None:
    """What a crash left at the end of the write-ahead log, as it was when this process opened the store."""
    if store.unread is not None:
        report.add(
            "commit-unread",
            "note",
            f"the write-ahead log ended in {store.unread.commits} commits that could not be read (frame {store.unread.frame})",
            "this is what a process leaves that is killed, or loses power, before its commit is acknowledged; "
            "if neither happened, the disk changed it: compare with a backup",
        )


def _schemas(catalog: sqlite3.Connection, report: _Report) -> None:
    rows = catalog.execute("SELECT name, version, fingerprint, json, checksum FROM schema").fetchall()
    for name, version, fingerprint, text, said in rows:
        if checksum(name, version, fingerprint, text) != said or Schema.from_json(text).fingerprint != fingerprint:
            report.add("schema-changed", "damage", f"the schema of {name} version {version} is not the one that was registered",
                       _RESTORE)  # fmt: skip


def _hot_run(raw: Sequence[Any], tenants: dict[int, str], report: _Report) -> int:
    """Look at a run of hot events; when it was recorded."""
    try:
        rows = rows_of(raw, lambda number: tenants.get(number, ""))
    except EventlabError:
        several = isinstance(raw[4], int) and raw[4] > 1
        what = f"hot events {raw[0]:,} to {raw[0] + raw[4] - 1:,}" if several else f"hot event {raw[0]:,}"
        report.add("hot-event-damaged", "damage", f"{what} of {raw[2]!r} {'are' if several else 'is'} not what was written",
                   _RESTORE, count=raw[4] if several else 1, position=raw[0])  # fmt: skip
        return MOMENT_MIN
    return rows[-1].recorded_at


def _counters(catalog: sqlite3.Connection, head: int, sealed: int, recorded: tuple[int, int], report: _Report) -> None:
    """The counters of the log are what its rows say: where it ends, how far it is sealed, when its last event was recorded."""
    beyond = catalog.execute(
        "SELECT (SELECT count(*) FROM event WHERE position + count - 1 > ?1) "
        "+ (SELECT count(*) FROM event_key WHERE position + count - 1 > ?1) "
        "+ (SELECT count(*) FROM segment WHERE run_last > ?1 AND state = 'live')",
        (head,),
    ).fetchone()[0]
    if beyond:
        report.add("log-row-changed", "damage", f"the log ends at {head:,}, and there are events after it", _RESTORE,
                   count=beyond, position=head + 1)  # fmt: skip
    end = 0
    for first, last in catalog.execute(
        "SELECT DISTINCT run_first, run_last FROM segment WHERE state = 'live' ORDER BY run_first, run_last"
    ):
        if first > end + 1:
            break
        end = max(end, last)
    if sealed != end:
        report.add("log-row-changed", "damage", f"the log is sealed up to {end:,}, and the catalog says {sealed:,}", _RESTORE,
                   position=min(sealed, end) + 1)  # fmt: skip
    said, hot = recorded
    newest = catalog.execute("SELECT max(max_recorded) FROM segment WHERE state = 'live'").fetchone()[0]
    if said != max(hot, MOMENT_MIN if newest is None else newest):
        report.add("log-row-changed", "damage", "the catalog does not say when the last event was recorded", _RESTORE)


def _known_ids(
    catalog: sqlite3.Connection, head: int, id_floor: int, ingested: Sequence[tuple[int, int]], report: _Report
) -> None:
    """The window of known ids holds those of the events that were appended and are not hot any more, and no others."""
    first_hot = catalog.execute("SELECT coalesce(min(position), ?) FROM event", (head + 1,)).fetchone()[0]
    expected = max(0, first_hot - 1 - id_floor)
    expected -= sum(max(0, min(last, first_hot - 1) - max(first - 1, id_floor)) for first, last in ingested)
    found, strange = catalog.execute(
        # Of a run in which the window begins, all is kept.
        "SELECT coalesce(sum(position + count - max(position, ?1 + 1)) "
        "FILTER (WHERE position < ?2 AND position + count > ?1 + 1), 0), "
        "count(*) FILTER (WHERE position + count - 1 <= ?1 OR position >= ?2 OR count < 1) FROM event_key",
        (id_floor, first_hot),
    ).fetchone()
    if found < expected:
        report.add(
            "id-forgotten",
            "damage",
            "the id of an event is not in the window of known ids: a repeat of its append would store it twice",
            _RESTORE,
            count=expected - found,
        )
    if strange or found > expected:
        report.add("id-wrong", "damage", "the window of known ids holds some that should not be there", _RESTORE,
                   count=strange or found - expected)  # fmt: skip


def _chunks(catalog: sqlite3.Connection, head: int, report: _Report) -> tuple[tuple[int, int], ...]:
    """The runs of positions that were ingested; a source's chunks are counted without a gap."""
    found: list[tuple[int, int]] = []
    numbers: dict[tuple[int, str], int] = {}
    for *row, said in catalog.execute(
        "SELECT tenant, source, chunk, rows, first, last, digest, checksum FROM import_chunk ORDER BY tenant, source, chunk"
    ):
        tenant, source, number, count, first, last, _ = row
        in_order = number == numbers.get((tenant, source), -1) + 1
        numbers[tenant, source] = number
        if checksum(*row) != said or not in_order or count != last - first + 1 or last > head:
            report.add("chunk-changed", "damage",
                       f"what the catalog says of chunk {number} of the source {source!r} is not what was written",
                       f"{_RESTORE}; do not ingest that source before", position=first)  # fmt: skip
        else:
            found.append((first, last))
    return tuple(sorted(found))


def _handled(catalog: sqlite3.Connection, head: int, report: _Report) -> None:
    """Commands that were handled under an id: one that is not known would be handled again."""
    columns = "tenant, id, name, stream, digest, at, first, count, version"
    for *row, said in catalog.execute(f"SELECT {columns}, checksum FROM handled"):
        if checksum(*row) != said or row[6] + row[7] - 1 > head:
            report.add("command-changed", "damage",
                       f"what the catalog says of the command {row[1]!r} is not what was written",
                       f"{_RESTORE}; do not give that command again before")  # fmt: skip


def _derived(catalog: sqlite3.Connection, head: int, report: _Report) -> None:
    """Snapshots and read models are made from the log again; those that changed are not used."""
    for table, columns in (
        ("snapshot", "tenant, stream, model, fingerprint, version, position, state"),
        ("read_model", "tenant, name, fingerprint, state, position, rows, keys, parts, parked"),
        ("read_model_query", "tenant, name, fingerprint, query"),
        ("inline_row", "tenant, name, fingerprint, key, row"),
    ):
        names = columns.split(", ")
        for *row, said in catalog.execute(f"SELECT {columns}, checksum FROM {table}"):
            if checksum(*row) != said or ("position" in names and row[names.index("position")] > head):
                report.add(f"{table.replace('_', '-')}-changed", "warning",
                           f"what the catalog holds as {table} of {row[1]!r} is not what was written",
                           "nothing reads it; it is made again from the log when it is needed")  # fmt: skip


# -- files -----------------------------------------------------------------------------------------------------------------


def _segments(segments: Sequence[Segment], report: _Report) -> set[tuple[int, int]]:
    """Check every live segment against its digest and its numbers in the catalog; the runs that hold a damaged one."""
    damaged: set[tuple[int, int]] = set()
    for segment in segments:
        found = _segment(segment)
        if found is not None:
            code, message = found
            damaged.add((segment.first, segment.last))
            report.add(
                code,
                "damage",
                message,
                f"restore the file from a backup: it holds {segment.rows:,} events between positions {segment.first:,} and "
                f"{segment.last:,}, which cannot be read until then",
                position=segment.first,
            )
    return damaged


def _segment(segment: Segment) -> tuple[str, str] | None:
    if not segment.path.exists():
        return "segment-missing", f"segment {segment.path.name} is not there"
    try:
        segment.verify_digest()
    except Damaged:
        return "segment-changed", f"segment {segment.path.name} is not what was written"
    try:
        said = _as_said(segment)
    except (pa.ArrowException, *_UNFIT):
        said = False
    return None if said else ("segment-disagrees", f"segment {segment.path.name} does not hold what the catalog says of it")


def _as_said(segment: Segment) -> bool:
    """Whether the rows of a segment are those that the catalog says it has."""
    file = pq.ParquetFile(segment.path)
    numbers = file.read(columns=["position", "stream", "version", "recorded_at", "tenant"], use_threads=False).combine_chunks()
    placed = numbers.column("position").to_numpy()
    positions = np.sort(placed)
    times = pc.min_max(numbers.column("recorded_at").combine_chunks().view(pa.int64()))
    inside = len(positions) == segment.rows and positions[0] >= segment.first and positions[-1] <= segment.last
    return (
        inside
        and bool(np.all(np.diff(positions) > 0))
        and (times["min"].as_py(), times["max"].as_py()) == (segment.min_recorded, segment.max_recorded)
        and (_by_stream(segment, numbers) if segment.by_stream else bool(np.all(positions == placed)))
        and tuple(name for name in file.schema_arrow.names if ":" in name) == segment.columns
        and segment.path.stat().st_size == segment.bytes
        and numbers.column("tenant").unique().to_pylist() == [segment.tenant]
        and pc.all(pc.starts_with(numbers.column("stream"), f"{segment.category}-")).as_py()
    )


def _by_stream(segment: Segment, numbers: pa.Table) -> bool:
    """Whether a bucket file is sorted by (stream, version), and holds no stream of another bucket."""
    streams = numbers.column("stream").combine_chunks()
    versions = numbers.column("version").to_numpy()
    same = pc.equal(streams[1:], streams[:-1]).to_numpy(zero_copy_only=False)
    later = pc.greater(streams[1:], streams[:-1]).to_numpy(zero_copy_only=False)
    ordered = bool(np.all(later | (same & (np.diff(versions) == 1))))
    return ordered and all(bucket_of(name, segment.buckets) == segment.bucket for name in streams.unique().to_pylist())


def _runs(layout: Layout, seen: _Seen, report: _Report) -> None:
    """Positions are dense: each run's segments hold as many events as it has positions, and the hot events the rest."""
    rows: dict[tuple[int, int], int] = {}
    for segment in layout.segments:
        rows[segment.first, segment.last] = rows.get((segment.first, segment.last), 0) + segment.rows
    end = covered = 0
    for (first, last), count in sorted(rows.items()):
        if first <= end:
            report.add("runs-overlap", "damage", f"positions {first:,} to {end:,} lie in two runs of segments",
                       "restore a backup of the catalog", position=first)  # fmt: skip
        if count != last - first + 1:
            report.add("positions-missing", "damage",
                       f"the segments of positions {first:,} to {last:,} hold {count:,} events, not {last - first + 1:,}",
                       "restore the missing segments from a backup", position=first)  # fmt: skip
        end = max(end, last)
        covered += last - first + 1
    hot = sum(len(table) for part in layout.hot for table in part.tables.values())
    if covered + hot != layout.head:
        report.add("positions-missing", "damage",
                   f"{covered:,} sealed and {hot:,} hot events are not the {layout.head:,} that were acknowledged",
                   "restore a backup of the catalog", position=seen.sealed + 1)  # fmt: skip


def _orphans(store: DiskStore, report: _Report) -> None:
    """Files that are not part of the log: left over from a crash. They are named, never deleted."""
    present = {str(path.relative_to(store.root)) for path in sorted((store.root / "segments").rglob("*")) if path.is_file()}
    # The catalog is read after the folder: a file that was named in between is none.
    with store.inspect() as catalog:
        named = {path for (path,) in catalog.execute("SELECT path FROM segment") if isinstance(path, str) and Path(path).name}
    writing = {str(Path(path).with_name(f".{Path(path).name}.tmp")) for path in named}
    for name in sorted(present - named - writing):
        report.add("file-unknown", "note", f"{name} is no part of the log", "harmless; left over from a crash, or put there")


def _read_models(store: DiskStore, report: _Report) -> None:
    with store.inspect() as catalog:
        rows = catalog.execute("SELECT name, parts FROM read_model ORDER BY name, fingerprint").fetchall()
    for name, path, digest in _files_of(rows):
        try:
            whole = file_digest(store.root / path) == digest
        except (FileNotFoundError, IsADirectoryError, TypeError, ValueError):
            # Swapped since, or deleted, or no name at all: it is made again when it is asked for.
            continue
        if not whole:
            report.add("read-model-changed", "warning", f"the base of state.{name} is not what was written",
                       f"delete {path}, or eventlab rebuild: it is made again from the log")  # fmt: skip


def _files_of(rows: Sequence[tuple[str, bytes]]) -> Iterator[tuple[str, str, str]]:
    for name, parts in rows:
        # A row that cannot be read is a finding of `_derived`.
        with contextlib.suppress(Damaged, TypeError, ValueError):
            for path, _, _, _, digest in unpack(parts):
                yield name, path, digest


# -- every event -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Fixed:
    """A layout that stays as it is."""

    given: Layout

    def layout(self, head: int, unlike: Layout | None = None) -> Layout:
        """The same, always."""
        return self.given

    def hot_stream(self, tenant: str, stream: str, after_version: int, until: int) -> HotStream | None:
        """Nobody asks for single streams here."""
        return None

    def hold(self, layout: Layout) -> Hold:
        """Files that are gone are findings."""
        return Hold(None, layout.generation, layout.segments)


def _whole_log(
    store: DiskStore, cut: DiskCut, seen: _Seen, damaged: set[tuple[int, int]], report: _Report
) -> list[str]:
    """Read everything that can be read; what could not be looked at."""
    whole = tuple(s for s in cut.layout.segments if (s.first, s.last) not in damaged)
    healthy = replace(cut, store=_Fixed(replace(cut.layout, segments=whole)))
    if not _events(store, healthy, seen, damaged, report):
        return ["versions, ids and causes, for there are events that cannot be read"]
    if damaged:
        return [f"the {len(damaged)} runs with damaged segments; versions, ids and causes, which are counted over the whole log"]
    _counted(healthy, seen, report)
    return []


def _events(store: DiskStore, cut: DiskCut, seen: _Seen, damaged: set[tuple[int, int]], report: _Report) -> bool:
    """Read the log once in order; whether all of it could be read."""
    after, recorded = 0, None
    pending: list[Row] = []
    gaps = sorted(damaged)
    try:
        for batch in cut.batches(tenant=ALL, until=seen.head, envelope=ENVELOPE_NAMES):
            envelope = batch.envelope_table
            positions = envelope.column("position").to_numpy()
            while gaps and gaps[0][0] == after + 1:
                after = gaps.pop(0)[1]
            _dense(positions, after, report)
            times = envelope.column("recorded_at").combine_chunks().view(pa.int64()).to_numpy()
            before = np.concatenate([[times[0] if recorded is None else recorded], times[:-1]])
            for at in np.flatnonzero(times < before)[:1]:
                report.add("clock-back", "damage", "an event was recorded before the one in front of it",
                           "the log was written by another program; copy it with lab.export and lab.ingest",
                           count=int(np.count_nonzero(times < before)), position=int(positions[at]))  # fmt: skip
            _payloads(batch, report)
            pending = _ids_of(store, [*pending, *batch.rows()], seen, report)
            after, recorded = int(positions[-1]), int(times[-1])
    except EventlabError as why:
        report.add("event-unreadable", "damage", why.message, why.hint or "restore a backup", position=after + 1)
        return False
    while gaps and gaps[0][0] == after + 1:
        after = gaps.pop(0)[1]
    if after != seen.head:
        report.add("positions-missing", "damage", f"the log ends at {after:,}, and {seen.head:,} were acknowledged",
                   "restore a backup", count=seen.head - after, position=after + 1)  # fmt: skip
    return True


def _dense(positions: np.ndarray[Any, Any], after: int, report: _Report) -> None:
    before = np.concatenate([[after], positions[:-1]])
    broken = before[positions != before + 1]
    if len(broken):
        first = int(broken[0]) + 1
        report.add("positions-missing", "damage", f"position {first:,} is missing or twice", "restore a backup",
                   count=len(broken), position=first)  # fmt: skip


def _payloads(batch: Any, report: _Report) -> None:
    """Decode every payload by its stored schema; where one fails, find the first event that does."""
    try:
        batch.events(lambda name: None)
    except (EventlabError, ValueError, TypeError, ArithmeticError, OverflowError) as why:
        for one in batch.split(1):
            try:
                one.events(lambda name: None)
            except (EventlabError, ValueError, TypeError, ArithmeticError, OverflowError):
                report.add("payload-undecodable", "damage", f"{one.envelope.type[0]} does not decode: {_said(why)}",
                           "restore a backup", position=one.envelope.position[0])  # fmt: skip
                return


def _ids_of(store: DiskStore, rows: Sequence[Row], seen: _Seen, report: _Report) -> list[Row]:
    """What the window of known ids says of events, in their order: their places, and the digest of what they say.

    Ingest puts none there. Gives the last rows, where their run goes on in the next batch.
    """
    first, last = rows[0].position, rows[-1].position
    with store.inspect() as catalog:
        floor = catalog.execute("SELECT id_floor FROM log").fetchone()[0]
        names = dict(catalog.execute("SELECT id, name FROM tenant").fetchall())
        runs = catalog.execute(
            "SELECT tenant, event_id, count, position, version, digest FROM event_key WHERE position BETWEEN ?1 AND ?2 UNION ALL "
            "SELECT tenant, event_id, count, position, version, digest FROM event WHERE position BETWEEN ?1 AND ?2",
            (max(first, floor + 2 - RUN_EVENTS), last),
        ).fetchall()
    at = {row.position: row for row in rows}
    known: set[int] = set()
    wrong: list[int] = []
    later = last + 1
    for tenant, event_id, count, position, version, digest in runs:
        places = range(position, position + min(count, RUN_EVENTS))
        if last in places[:-1] and last < seen.head:
            later = min(later, position)
            continue
        known.update(places)
        run = [at[place] for place in places if place in at]
        said = names.get(tenant), event_id, version, count
        if (
            not run
            or said != (run[0].tenant, run[0].event_id, run[0].version, len(run))
            # Those of a store of format 4 have no digest.
            or (digest and record_digest(record_of(run)) != digest)
            or any(_ingested(place, seen) for place in places)
        ):
            wrong.append(position)
    wrong += [p for p in at if floor < p < min(later, seen.head + 1) and p not in known and not _ingested(p, seen)]
    if wrong:
        report.add("id-wrong", "damage", "what the catalog knows of an event's id is not what the event says: a repeat of its "
                   "append would be taken for another", _RESTORE, count=len(wrong), position=min(wrong))  # fmt: skip
    return [row for row in rows if row.position >= later]


def _ingested(position: int, seen: _Seen) -> bool:
    at = bisect.bisect_right(seen.ingested, (position, 2**63)) - 1
    return at >= 0 and position <= seen.ingested[at][1]


def _counted(cut: DiskCut, seen: _Seen, report: _Report) -> None:
    """What is true of the whole log and not of one event: versions, ids, causes. DuckDB counts, a bucket at a time."""
    log = SqlConnection(cut, seen.head, ALL, lambda name, of, until: None)
    try:
        _uses(log, seen, report)
        buckets = 1 + seen.head // BUCKET_EVENTS
        for bucket in range(buckets):
            _versions(log, seen, buckets, bucket, report)
            _ids(log, buckets, bucket, report)
    finally:
        log.close()


def _uses(log: SqlConnection, seen: _Seen, report: _Report) -> None:
    """Which types occur in which category is what the catalog says: a filter, and SQL, look no further."""
    found = log.frame("SELECT DISTINCT _tenant, _category, _type, _schema_version::BIGINT FROM events.log", None, {}).rows()
    for tenant, category, name, version in sorted(seen.uses ^ set(found), key=str):
        report.add("type-use-wrong", "damage",
                   f"{name} version {version} occurs in {category!r} of {tenant!r}, or does not, and the catalog says otherwise",
                   _RESTORE)  # fmt: skip


def _versions(log: SqlConnection, seen: _Seen, buckets: int, bucket: int, report: _Report) -> None:
    streams = log.frame(
        """
        SELECT coalesce(s.tenant, h.tenant) AS tenant, coalesce(s.stream, h.stream) AS stream, s.events, s.whole,
               h.version, s.first, h.first = s.first AND h.last = s.last AND h.version = s.events AS agrees
        FROM (
            SELECT _tenant AS tenant, _stream AS stream, count(*) AS events, min(_position) AS first, max(_position) AS last,
                   list(_version ORDER BY _position) = range(1, count(*) + 1) AS whole
            FROM events.log WHERE hash(_stream) % $buckets = $bucket GROUP BY ALL
        ) s FULL JOIN (SELECT * FROM heads WHERE hash(stream) % $buckets = $bucket) h USING (tenant, stream)
        WHERE NOT coalesce(whole, false) OR NOT coalesce(agrees, false)
        ORDER BY first, tenant, stream
        """,
        {"buckets": buckets, "bucket": bucket},
        {"heads": seen.heads.to_arrow()},
    )
    for row in streams.iter_rows(named=True):
        if row["events"] is not None and not row["whole"]:
            report.add("versions-broken", "damage", f"the versions of {row['stream']!r} are not 1…{row['events']:,}",
                       "restore a backup; lab.read(el.stream(…)) shows what is there", position=row["first"])  # fmt: skip
        elif not row["agrees"]:
            at = "no events" if row["events"] is None else f"{row['events']:,} events"
            knows = "nothing" if row["version"] is None else f"version {row['version']:,}"
            report.add("stream-head-wrong", "damage", f"{row['stream']!r} has {at}, and the catalog knows {knows}",
                       "restore a backup of the catalog", position=row["first"])  # fmt: skip


def _ids(log: SqlConnection, buckets: int, bucket: int, report: _Report) -> None:
    place = {"buckets": buckets, "bucket": bucket}
    twice = log.frame(
        "SELECT _event_id::VARCHAR AS id, count(*) AS n, min(_position) AS first FROM events.log "
        "WHERE hash(_event_id) % $buckets = $bucket GROUP BY _tenant, _event_id HAVING count(*) > 1 ORDER BY first",
        place,
        {},
    )
    for name, _, first in twice.iter_rows():
        report.add("id-twice", "damage", f"the event id {name} occurs more than once", "export the log and ingest it anew",
                   position=first)  # fmt: skip
    early = log.frame(
        "SELECT count(*) AS n, min(e._position) AS first FROM events.log e JOIN events.log c "
        "ON c._tenant = e._tenant AND c._event_id = e._causation_id WHERE c._position >= e._position "
        "AND hash(e._causation_id) % $buckets = $bucket AND hash(c._event_id) % $buckets = $bucket",
        place,
        {},
    )
    count, first = early.row(0)
    if count:
        report.add("cause-later", "warning", "an event names as its cause one that comes after it", "look at it with lab.read",
                   count=count, position=first)  # fmt: skip
