"""What is in a store: events by type, levels, streams, tenants, sizes, read models, and what would make it quicker.

An event is *hot* first, a row of the catalog. Sealed, it lies at *level 0*, in files in the order of positions. Compacted,
it lies in an *era*, in files sorted by stream, where the events of one stream are together. What the next step would gain
is a number from the data: how many files are opened to load a stream, on the average, now and after `eventlab compact`.
"""

from __future__ import annotations

import datetime as dt
import sqlite3
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from eventlab.model.types import from_us
from eventlab.store.base import ALL, unpack
from eventlab.store.compact import due
from eventlab.store.disk import DiskStore
from eventlab.store.query import SqlConnection
from eventlab.store.segment import ROW_GROUP, Segment
from eventlab.store.words import aligned, said, size_text

#: A null costs too: above so many payload columns in one category, writing and reading slow down for all its events.
WIDE_CATEGORY: Final = 64
#: A hot tail of so many events is worth sealing: sealed events are read from typed columns.
LONG_TAIL: Final = 50_000
#: Segments smaller than this on average cost more in footers than in rows.
SMALL_SEGMENT_ROWS: Final = ROW_GROUP // 8
MANY_SEGMENTS: Final = 32
#: A load that opens so many files on the average is worth a compaction, if that halves them.
MANY_FILES: Final = 3.0
#: Heads of streams are fetched so many at a time.
HEADS_AT_ONCE: Final = 50_000


@dataclass(frozen=True)
class TypeInfo:
    """One version of an event type: how many events, when they occurred, their fields and meaning."""

    name: str
    version: int
    events: int
    first: dt.datetime | None
    last: dt.datetime | None
    fields: tuple[str, ...]
    meaning: str


@dataclass(frozen=True)
class LevelInfo:
    """How much of the log lies at one level: hot, level 0, or eras; bytes of hot events are those of their payloads."""

    level: str
    events: int
    share: float
    segments: int
    bytes: int
    about: str


@dataclass(frozen=True)
class CategoryInfo:
    """One category of one tenant: its streams and sealed events; bytes are those of its segments.

    `files_per_stream` says how many of them a load of one stream opens on the average, and `files_if_compacted` how many it
    would open if all that is sealed were compacted.
    """

    tenant: str
    category: str
    streams: int
    sealed: int
    segments: int
    bytes: int
    columns: int
    hot: int
    hot_bytes: int
    level_0: int
    level_0_bytes: int
    eras: int
    eras_bytes: int
    files_per_stream: float
    files_if_compacted: float


@dataclass(frozen=True)
class ReadModelInfo:
    """The base of a read model, and by how many events it is behind the head."""

    name: str
    tenant: str
    rows: int
    position: int
    behind: int
    bytes: int


@dataclass(frozen=True)
class Info:
    """A store at a glance; sizes in bytes."""

    path: str
    store_id: str
    format: int
    events: int
    sealed: int
    hot: int
    recorded_from: dt.datetime | None
    recorded_to: dt.datetime | None
    types: tuple[TypeInfo, ...]
    categories: tuple[CategoryInfo, ...]
    read_models: tuple[ReadModelInfo, ...]
    sources: dict[str, int]
    catalog_bytes: int
    segment_bytes: int
    read_model_bytes: int
    advice: tuple[str, ...]
    levels: tuple[LevelInfo, ...]
    unsorted_share: float
    maintenance_error: str

    def __str__(self) -> str:
        tail = f"({self.sealed:,} sealed, {self.hot:,} hot)"
        lines = [f"{self.path}: {self.events:,} events {tail}, format {self.format}, store {self.store_id}"]
        if self.recorded_from is not None and self.recorded_to is not None:
            lines.append(f"recorded from {_text(self.recorded_from)} to {_text(self.recorded_to)}")
        each = f" ({self.segment_bytes / self.sealed:.1f} bytes an event)" if self.sealed else ""
        lines.append(
            f"{size_text(self.segment_bytes)} in segments{each}, {size_text(self.catalog_bytes)} in the catalog, "
            f"{size_text(self.read_model_bytes)} in read models"
        )
        lines += aligned(
            ("event type", "version", "events", "occurred from", "until", "fields"),
            [(t.name, str(t.version), f"{t.events:,}", _text(t.first), _text(t.last), ", ".join(t.fields)) for t in self.types],
            right={1, 2},
        )
        lines += aligned(
            ("level", "events", "share", "segments", "size", "bytes an event", "what it is"),
            [
                (of.level, f"{of.events:,}", f"{of.share:.1%}", f"{of.segments:,}", size_text(of.bytes),
                 f"{of.bytes / of.events:.1f}" if of.events else "", of.about)
                for of in self.levels
            ],
            right={1, 2, 3, 4, 5},
        )  # fmt: skip
        lines += aligned(
            ("category", "tenant", "streams", "hot", "level 0", "size", "eras", "size", "segments", "payload columns",
             "files a stream", "if compacted"),
            [
                (c.category, c.tenant, f"{c.streams:,}", f"{c.hot:,}", f"{c.level_0:,}", size_text(c.level_0_bytes),
                 f"{c.eras:,}", size_text(c.eras_bytes), f"{c.segments:,}", f"{c.columns:,}", f"{c.files_per_stream:.1f}",
                 f"{c.files_if_compacted:.1f}")
                for c in self.categories
            ],
            right=set(range(2, 12)),
        )  # fmt: skip
        lines += aligned(
            ("read model", "rows", "checkpoint", "events behind", "size"),
            [
                (f"state.{m.name}", f"{m.rows:,}", f"{m.position:,}", f"{m.behind:,}", size_text(m.bytes))
                for m in self.read_models
            ],
            right={1, 2, 3, 4},
        )
        lines += aligned(
            ("ingested source", "events"), [(name, f"{count:,}") for name, count in self.sources.items()], right={1}
        )
        if self.maintenance_error:
            lines += ["", f"maintenance failed last time, and is tried again: {self.maintenance_error}"]
        if self.advice:
            lines += ["", *(f"· {text}" for text in self.advice)]
        return "\n".join(lines)


def info(store: DiskStore, *, maintenance_error: Exception | None = None) -> Info:
    """Look at a store: one read transaction on the catalog, and one count over the log.

    `maintenance_error` is what went wrong last in the maintenance of this process, if anything did.
    """
    cut, segments = store.cut(), store.segments()
    with store.inspect() as catalog:
        form, head, sealed = catalog.execute("SELECT format, head, sealed FROM log").fetchone()
        hot = int(catalog.execute("SELECT coalesce(sum(count), 0) FROM event WHERE position > ?", (sealed,)).fetchone()[0])
        categories = _categories(catalog, sealed, segments)
        read_models = tuple(
            ReadModelInfo(name, tenant or "all", rows, position, head - position, sum(size for _, _, _, size, _ in unpack(parts)))
            for name, tenant, rows, position, parts in catalog.execute(
                "SELECT name, tenant, rows, position, parts FROM read_model WHERE state = 'accepted' ORDER BY name, tenant"
            )
        )
        sources = dict(catalog.execute("SELECT source, sum(rows) FROM import_chunk GROUP BY source ORDER BY source").fetchall())
    log = SqlConnection(cut, cut.head, ALL, lambda name, of, until: None)
    try:
        counted = log.frame(
            "SELECT _type, _schema_version, count(*), min(_occurred_at), max(_occurred_at), min(_recorded_at), "
            "max(_recorded_at) FROM events.log GROUP BY ALL ORDER BY ALL",
            None,
            {},
        )
    finally:
        log.close()
    types = tuple(
        TypeInfo(name, version, count, first, last, _fields(cut.schemas[name, version].columns), cut.schemas[name, version].doc)
        for name, version, count, first, last, _, _ in counted.iter_rows()
    )
    levels = _levels(categories, segments)
    return Info(
        path=str(store.root),
        store_id=store.store_id,
        format=form,
        events=cut.head,
        sealed=cut.head - hot,
        hot=hot,
        recorded_from=min((row[5] for row in counted.iter_rows()), default=None),
        recorded_to=max((row[6] for row in counted.iter_rows()), default=None),
        types=types,
        categories=categories,
        read_models=read_models,
        sources=sources,
        catalog_bytes=sum(_bytes(store.root / name) for name in ("catalog.sqlite", "catalog.sqlite-wal")),
        segment_bytes=sum(segment.bytes for segment in segments),
        read_model_bytes=sum(m.bytes for m in read_models),
        advice=tuple(_advice(hot, categories, read_models)),
        levels=levels,
        unsorted_share=levels[0].share + levels[1].share,
        maintenance_error="" if maintenance_error is None else said(maintenance_error),
    )


def _levels(categories: Sequence[CategoryInfo], segments: Sequence[Segment]) -> tuple[LevelInfo, ...]:
    hot, ordered, eras = (sum(getattr(of, name) for of in categories) for name in ("hot", "level_0", "eras"))
    whole = max(1, hot + ordered + eras)
    files = [sum(not s.by_stream for s in segments), sum(s.by_stream for s in segments)]
    size = [sum(s.bytes for s in segments if s.by_stream == sorted_) for sorted_ in (False, True)]
    closed = len({(s.first, s.last) for s in segments if s.by_stream})
    many = "no era yet" if not closed else "one era" if closed == 1 else f"{closed:,} eras"
    return (
        LevelInfo("hot", hot, hot / whole, 0, sum(of.hot_bytes for of in categories), "rows of the catalog, as appended"),
        LevelInfo("level 0", ordered, ordered / whole, files[0], size[0], "in the order of positions, sealed or ingested"),
        LevelInfo("eras", eras, eras / whole, files[1], size[1], f"sorted by stream, in buckets: {many}"),
    )


def _categories(catalog: sqlite3.Connection, sealed: int, segments: Sequence[Segment]) -> tuple[CategoryInfo, ...]:
    columns: dict[tuple[str, str], int] = {
        (tenant, category): count
        for tenant, category, count in catalog.execute(
            "SELECT tenant.name, category.name, count(DISTINCT column.value) FROM type_use "
            "JOIN tenant ON tenant.id = type_use.tenant JOIN category ON category.id = type_use.category "
            "JOIN schema ON schema.name = type_use.type AND schema.version = type_use.version, "
            "json_each(schema.json, '$.columns') AS column GROUP BY 1, 2"
        )
    }
    hot: dict[tuple[str, str], tuple[int, int]] = {
        (tenant, category): (count, size)
        for tenant, category, count, size in catalog.execute(
            "SELECT tenant.name, substr(stream, 1, instr(stream, '-') - 1), sum(count), sum(length(record)) FROM event "
            "JOIN tenant ON tenant.id = event.tenant WHERE position > ? GROUP BY 1, 2",
            (sealed,),
        )
    }
    # Where each segment's events would lie if all that is due were compacted.
    era_of = {segment.id: (era.first, era.last) for era in due(segments, all=True) for segment in era.segments}
    files: dict[tuple[str, str], list[Segment]] = {}
    for segment in segments:
        files.setdefault((segment.tenant, segment.category), []).append(segment)
    names = catalog.execute("SELECT tenant.id, tenant.name, category.name FROM tenant, category ORDER BY 2, 3").fetchall()
    found = []
    for number, tenant, category in names:
        first, last = _heads(catalog, number, category)
        if not len(first):
            continue
        mine = files.get((tenant, category), [])
        now = {(s.first, s.last) for s in mine}
        then = {era_of.get(s.id, (s.first, s.last)) for s in mine}
        by_level = [[s for s in mine if s.by_stream == sorted_] for sorted_ in (False, True)]
        rows, sizes = ([sum(getattr(s, name) for s in level) for level in by_level] for name in ("rows", "bytes"))
        found.append(
            CategoryInfo(
                tenant, category, len(first), sum(rows), len(mine), sum(sizes), columns.get((tenant, category), 0),
                *hot.get((tenant, category), (0, 0)), rows[0], sizes[0], rows[1], sizes[1], _files(first, last, now),
                _files(first, last, then),
            )
        )  # fmt: skip
    return tuple(found)


def _heads(catalog: sqlite3.Connection, tenant: int, category: str) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """The first positions of a category's streams, and the last ones, each sorted."""
    # By the index: '.' comes right after '-'.
    cursor = catalog.execute(
        "SELECT first_position, last_position FROM stream_head WHERE tenant = ? AND stream > ? AND stream < ?",
        (tenant, f"{category}-", f"{category}."),
    )
    parts = [np.empty((0, 2), np.int64)]
    while rows := cursor.fetchmany(HEADS_AT_ONCE):
        parts.append(np.array(rows, np.int64))
    both = np.concatenate(parts)
    return np.sort(both[:, 0]), np.sort(both[:, 1])


def _files(first: np.ndarray[Any, Any], last: np.ndarray[Any, Any], runs: Collection[tuple[int, int]]) -> float:
    """How many runs a stream's positions span on the average: one file of each is opened to load it."""
    met = sum(int(np.searchsorted(first, high, "right") - np.searchsorted(last, low, "left")) for low, high in runs)
    return met / len(first)


def _advice(hot: int, categories: tuple[CategoryInfo, ...], read_models: tuple[ReadModelInfo, ...]) -> list[str]:
    found = []
    if hot > LONG_TAIL:
        found.append(
            f"{hot:,} events are hot: eventlab seal writes them as typed columns{_expected(categories)}, "
            "which fold and query faster"
        )
    for of in categories:
        if of.columns > WIDE_CATEGORY:
            found.append(
                f"category {of.category} has {of.columns} payload columns: each event pays for the nulls of the others; "
                "split it into categories that live by themselves"
            )
        if of.files_per_stream >= MANY_FILES and of.files_if_compacted <= of.files_per_stream / 2:
            found.append(
                f"category {of.category}: {of.level_0 / of.sealed:.0%} of its sealed events are not sorted by stream, and a load "
                f"of one opens {of.files_per_stream:.1f} files; after eventlab compact --all it opens {of.files_if_compacted:.1f}"
            )
        elif of.segments > MANY_SEGMENTS and of.sealed / of.segments < SMALL_SEGMENT_ROWS:
            found.append(
                f"category {of.category} has {of.segments:,} segments of {of.sealed // of.segments:,} events: seal less often"
            )
    behind = [m for m in read_models if m.behind]
    if behind:
        names = ", ".join(sorted({m.name for m in behind}))
        found.append(
            f"{names}: up to {max(m.behind for m in behind):,} events behind; reading folds them each time in a new process, "
            "eventlab rebuild --catch-up keeps them"
        )
    return found


def _expected(categories: Sequence[CategoryInfo]) -> str:
    """What hot events would take as segments, by what the sealed ones of their categories take."""
    known = [of for of in categories if of.hot and of.sealed]
    size = sum(of.hot * of.bytes / of.sealed for of in known)
    return f", in about {size_text(int(size))}" if known and all(of.sealed for of in categories if of.hot) else ""


def _fields(columns: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(column.partition(":")[0].partition(".")[0] for column in columns))


def _bytes(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _text(when: dt.datetime | int | None) -> str:
    if when is None:
        return ""
    return (from_us(when) if isinstance(when, int) else when).strftime("%Y-%m-%d %H:%M:%SZ")
