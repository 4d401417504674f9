"""Verify: looks for damage and for broken promises in a store, and changes nothing.

A quick look reads the catalog, the digests of all files and of every hot event, and the numbers that must add up. A full
one also reads every event: positions without a gap, versions 1…n in each stream, ids that occur once, a clock of record
that never goes back, causes that come before their effects, payloads that decode.

A segment whose digest is wrong is not read further: its bytes say nothing that can be trusted. The runs it belongs to are
left out of the rest, and the report says so.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
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
from eventlab.store.base import ALL, Row, row_digest, unpack
from eventlab.store.columns import ENVELOPE_NAMES
from eventlab.store.cut import DiskCut, HotStream, Layout
from eventlab.store.disk import DiskStore
from eventlab.store.files import file_digest
from eventlab.store.gc import Hold
from eventlab.store.query import SqlConnection
from eventlab.store.seal import ID_WINDOW
from eventlab.store.segment import Segment, bucket_of

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
    id_floor: int
    heads: pl.DataFrame
    hot: int


def verify(store: DiskStore, *, full: bool = False) -> Verified:
    """Look for damage; `full` reads every event. The store may be in use: what is checked is the log as it was at the start."""
    started = time.perf_counter()
    report = _Report()
    seen = _catalog(store, report)
    segments = store.segments()
    damaged = _segments(segments, report)
    _orphans(store, report)
    _read_models(store, report)
    left_out = []
    try:
        cut = store.cut()
        layout = cut.layout
    except EventlabError as why:
        report.add("event-unreadable", "damage", why.message, why.hint)
        left_out.append("positions and single events, for the hot tail cannot be read")
    else:
        _runs(layout, seen, report)
        if full:
            left_out += _whole_log(cut, seen, damaged, report)
    return Verified(
        path=str(store.root),
        full=full,
        events=seen.head,
        segments=len(segments),
        bytes=sum(segment.bytes for segment in segments),
        findings=report.listed(),
        left_out=tuple(left_out),
        seconds=time.perf_counter() - started,
    )


# -- the catalog and its hot events ----------------------------------------------------------------------------------------


def _catalog(store: DiskStore, report: _Report) -> _Seen:
    with store.inspect() as catalog:
        for (text,) in catalog.execute("PRAGMA quick_check(5)").fetchall():
            if text != "ok":
                report.add("catalog-damaged", "damage", f"SQLite says of the catalog: {text}", "restore a backup of the store")
        head, sealed, recorded_at, id_floor = catalog.execute("SELECT head, sealed, recorded_at, id_floor FROM log").fetchone()
        for name, version, fingerprint, text in catalog.execute("SELECT name, version, fingerprint, json FROM schema"):
            if Schema.from_json(text).fingerprint != fingerprint:
                report.add(
                    "schema-changed",
                    "damage",
                    f"the schema of {name} version {version} is not the one that was registered",
                    "restore a backup of the catalog",
                )
        tenants = dict(catalog.execute("SELECT id, name FROM tenant").fetchall())
        hot = 0
        rows = catalog.execute(
            "SELECT position, tenant, stream, version, type, schema_version, event_id, recorded_at, occurred_at, correlation_id, "
            "causation_id, actor, tags, commit_position, payload, digest FROM event WHERE position > ? ORDER BY position",
            (sealed,),
        )
        for *columns, digest in rows:
            hot += 1
            _hot_event(columns, digest, tenants, report)
        unknown = catalog.execute(
            "SELECT count(*), min(position) FROM event e WHERE position > ? AND NOT EXISTS "
            "(SELECT 1 FROM event_key k WHERE k.tenant = e.tenant AND k.event_id = e.event_id AND k.position = e.position)",
            (max(sealed, id_floor, head - ID_WINDOW),),
        ).fetchone()
        if unknown[0]:
            report.add(
                "id-forgotten",
                "damage",
                "the id of a hot event is not in the window of known ids: a repeat of its append would store it twice",
                "restore a backup of the catalog",
                count=unknown[0],
                position=unknown[1],
            )
        dead = catalog.execute("SELECT path, lease FROM segment WHERE state = 'pending'").fetchall()
        for path, lease in dead:
            if lease < time.time():
                report.add(
                    "pending-dead",
                    "note",
                    f"{path} was begun and never finished: a process was killed while it sealed or ingested",
                    "harmless; its rows are not part of the log",
                )
        # Stored as bytes in columns of text, or the reverse, a damaged row may hold anything: Polars would guess.
        listed = catalog.execute("SELECT tenant, stream, version, first_position, last_position FROM stream_head").fetchall()
    heads = pl.DataFrame(
        {
            "tenant": [tenants.get(row[0], "") for row in listed],
            "stream": [str(row[1]) for row in listed],
            "version": [row[2] for row in listed],
            "first": [row[3] for row in listed],
            "last": [row[4] for row in listed],
        },
        schema={"tenant": pl.String, "stream": pl.String, "version": pl.Int64, "first": pl.Int64, "last": pl.Int64},
    )
    return _Seen(head, sealed, recorded_at, id_floor, heads, hot)


def _hot_event(columns: Sequence[Any], digest: bytes, tenants: dict[int, str], report: _Report) -> None:
    position, tenant, *middle, tags, commit, payload = columns
    try:
        values: list[Any] = [
            position, tenants.get(tenant, ""), *middle, tuple(json.loads(tags)) if tags else (), commit, tuple(unpack(payload)),
        ]  # fmt: skip
        same = row_digest(Row(*values)) == digest
    except (EventlabError, ValueError, TypeError):
        same = False
    if not same:
        report.add(
            "hot-event-damaged",
            "damage",
            f"hot event {position:,} ({middle[0]!r}) is not what was written",
            "restore a backup of the catalog",
            position=position,
        )


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
    file = pq.ParquetFile(segment.path)
    numbers = file.read(columns=["position", "stream", "version", "recorded_at"], use_threads=False).combine_chunks()
    positions = np.sort(numbers.column("position").to_numpy())
    times = pc.min_max(numbers.column("recorded_at").combine_chunks().view(pa.int64()))
    inside = len(positions) == segment.rows and positions[0] >= segment.first and positions[-1] <= segment.last
    once = bool(np.all(np.diff(positions) > 0))
    timed = (times["min"].as_py(), times["max"].as_py()) == (segment.min_recorded, segment.max_recorded)
    columns = tuple(name for name in file.schema_arrow.names if ":" in name)
    in_order = (
        _by_stream(segment, numbers) if segment.by_stream else bool(np.all(positions == numbers.column("position").to_numpy()))
    )
    if not (inside and once and timed and in_order and columns == segment.columns):
        return "segment-disagrees", f"segment {segment.path.name} does not hold what the catalog says of it"
    return None


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
        named = {path for (path,) in catalog.execute("SELECT path FROM segment")}
    writing = {str(Path(path).with_name(f".{Path(path).name}.tmp")) for path in named}
    for name in sorted(present - named - writing):
        report.add("file-unknown", "note", f"{name} is no part of the log", "harmless; left over from a crash, or put there")


def _read_models(store: DiskStore, report: _Report) -> None:
    with store.inspect() as catalog:
        rows = catalog.execute("SELECT name, path, digest FROM read_model ORDER BY name").fetchall()
    for name, path, digest in rows:
        try:
            whole = file_digest(store.root / path) == digest
        except FileNotFoundError:
            # Swapped since, or deleted: either way it is made again when it is asked for.
            continue
        if not whole:
            report.add("read-model-changed", "warning", f"the base of state.{name} is not what was written",
                       f"delete {path}, or eventlab rebuild: it is made again from the log")  # fmt: skip


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


def _whole_log(cut: DiskCut, seen: _Seen, damaged: set[tuple[int, int]], report: _Report) -> list[str]:
    """Read everything that can be read; what could not be looked at."""
    whole = tuple(s for s in cut.layout.segments if (s.first, s.last) not in damaged)
    healthy = replace(cut, store=_Fixed(replace(cut.layout, segments=whole)))
    if not _events(healthy, seen, damaged, report):
        return ["versions, ids and causes, for there are events that cannot be read"]
    if damaged:
        return [f"the {len(damaged)} runs with damaged segments; versions, ids and causes, which are counted over the whole log"]
    _counted(healthy, seen, report)
    return []


def _events(cut: DiskCut, seen: _Seen, damaged: set[tuple[int, int]], report: _Report) -> bool:
    """Read the log once in order; whether all of it could be read."""
    after, recorded = 0, None
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
                said = why.message if isinstance(why, EventlabError) else f"{type(why).__name__}: {why}"
                report.add("payload-undecodable", "damage", f"{one.envelope.type[0]} does not decode: {said}",
                           "restore a backup", position=one.envelope.position[0])  # fmt: skip
                return


def _counted(cut: DiskCut, seen: _Seen, report: _Report) -> None:
    """What is true of the whole log and not of one event: versions, ids, causes. DuckDB counts, a bucket at a time."""
    log = SqlConnection(cut, seen.head, ALL, lambda name, of, until: None)
    try:
        buckets = 1 + seen.head // BUCKET_EVENTS
        for bucket in range(buckets):
            _versions(log, seen, buckets, bucket, report)
            _ids(log, buckets, bucket, report)
    finally:
        log.close()


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
