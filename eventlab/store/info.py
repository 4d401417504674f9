"""What is in a store: events by type, streams, tenants, sizes, read models, and what would make it smaller or quicker."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from eventlab.model.types import from_us
from eventlab.store.base import ALL
from eventlab.store.disk import DiskStore
from eventlab.store.query import SqlConnection
from eventlab.store.segment import ROW_GROUP

#: A null costs too: above so many payload columns in one category, writing and reading slow down for all its events.
WIDE_CATEGORY: Final = 64
#: A hot tail of so many events is worth sealing: sealed events are read from typed columns.
LONG_TAIL: Final = 50_000
#: Segments smaller than this on average cost more in footers than in rows.
SMALL_SEGMENT_ROWS: Final = ROW_GROUP // 8
MANY_SEGMENTS: Final = 32


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
class CategoryInfo:
    """One category of one tenant: its streams and sealed events; bytes are those of its segments."""

    tenant: str
    category: str
    streams: int
    sealed: int
    segments: int
    bytes: int
    columns: int


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

    def __str__(self) -> str:
        tail = f"({self.sealed:,} sealed, {self.hot:,} hot)"
        lines = [f"{self.path}: {self.events:,} events {tail}, format {self.format}, store {self.store_id}"]
        if self.recorded_from is not None and self.recorded_to is not None:
            lines.append(f"recorded from {_text(self.recorded_from)} to {_text(self.recorded_to)}")
        each = f" ({self.segment_bytes / self.sealed:.1f} bytes an event)" if self.sealed else ""
        lines.append(
            f"{_size(self.segment_bytes)} in segments{each}, {_size(self.catalog_bytes)} in the catalog, "
            f"{_size(self.read_model_bytes)} in read models"
        )
        lines += _aligned(
            ("event type", "version", "events", "occurred from", "until", "fields"),
            [(t.name, str(t.version), f"{t.events:,}", _text(t.first), _text(t.last), ", ".join(t.fields)) for t in self.types],
            right={1, 2},
        )
        lines += _aligned(
            ("category", "tenant", "streams", "sealed events", "segments", "size", "payload columns"),
            [
                (c.category, c.tenant, f"{c.streams:,}", f"{c.sealed:,}", f"{c.segments:,}", _size(c.bytes), f"{c.columns:,}")
                for c in self.categories
            ],
            right={2, 3, 4, 5, 6},
        )
        lines += _aligned(
            ("read model", "rows", "checkpoint", "events behind", "size"),
            [(f"state.{m.name}", f"{m.rows:,}", f"{m.position:,}", f"{m.behind:,}", _size(m.bytes)) for m in self.read_models],
            right={1, 2, 3, 4},
        )
        lines += _aligned(
            ("ingested source", "events"), [(name, f"{count:,}") for name, count in self.sources.items()], right={1}
        )
        if self.advice:
            lines += ["", *(f"· {text}" for text in self.advice)]
        return "\n".join(lines)


def info(store: DiskStore) -> Info:
    """Look at a store: one read transaction on the catalog, and one count over the log."""
    cut = store.cut()
    with store.inspect() as catalog:
        form, head, sealed = catalog.execute("SELECT format, head, sealed FROM log").fetchone()
        hot = int(catalog.execute("SELECT count(*) FROM event WHERE position > ?", (sealed,)).fetchone()[0])
        categories = _categories(catalog)
        read_models = tuple(
            ReadModelInfo(name, tenant or "all", rows, position, head - position, size)
            for name, tenant, rows, position, size in catalog.execute(
                "SELECT name, tenant, rows, position, bytes FROM read_model ORDER BY name, tenant"
            )
        )
        sources = dict(catalog.execute("SELECT source, sum(rows) FROM import_chunk GROUP BY source ORDER BY source").fetchall())
        live = catalog.execute("SELECT count(*), coalesce(sum(bytes), 0) FROM segment WHERE state = 'live'").fetchone()
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
        segment_bytes=int(live[1]),
        read_model_bytes=sum(m.bytes for m in read_models),
        advice=tuple(_advice(hot, categories, read_models)),
    )


def _categories(catalog: Any) -> tuple[CategoryInfo, ...]:
    streams: dict[tuple[str, str], int] = {
        (tenant, category): count
        for tenant, category, count in catalog.execute(
            "SELECT tenant.name, substr(stream, 1, instr(stream, '-') - 1) AS category, count(*) "
            "FROM stream_head JOIN tenant ON tenant.id = stream_head.tenant GROUP BY 1, 2"
        )
    }
    sealed: dict[tuple[str, str], tuple[int, int, int]] = {
        (tenant, category): (rows, files, size)
        for tenant, category, rows, files, size in catalog.execute(
            "SELECT tenant.name, category.name, sum(rows), count(*), sum(bytes) FROM segment "
            "JOIN tenant ON tenant.id = segment.tenant JOIN category ON category.id = segment.category "
            "WHERE state = 'live' GROUP BY 1, 2"
        )
    }
    columns: dict[tuple[str, str], int] = {
        (tenant, category): count
        for tenant, category, count in catalog.execute(
            "SELECT tenant.name, category.name, count(DISTINCT column.value) FROM type_use "
            "JOIN tenant ON tenant.id = type_use.tenant JOIN category ON category.id = type_use.category "
            "JOIN schema ON schema.name = type_use.type AND schema.version = type_use.version, "
            "json_each(schema.json, '$.columns') AS column GROUP BY 1, 2"
        )
    }
    return tuple(
        CategoryInfo(tenant, category, count, *sealed.get((tenant, category), (0, 0, 0)), columns.get((tenant, category), 0))
        for (tenant, category), count in sorted(streams.items())
    )


def _advice(hot: int, categories: tuple[CategoryInfo, ...], read_models: tuple[ReadModelInfo, ...]) -> list[str]:
    found = []
    if hot > LONG_TAIL:
        found.append(f"{hot:,} events are hot: lab.seal() writes them as typed columns, which fold and query faster")
    for of in categories:
        if of.columns > WIDE_CATEGORY:
            found.append(
                f"category {of.category} has {of.columns} payload columns: each event pays for the nulls of the others; "
                "split it into categories that live by themselves"
            )
        if of.segments > MANY_SEGMENTS and of.sealed / of.segments < SMALL_SEGMENT_ROWS:
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


def _fields(columns: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(column.partition(":")[0].partition(".")[0] for column in columns))


def _bytes(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _size(count: int) -> str:
    """Bytes as a person reads them, in powers of 1,000."""
    for unit, step in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= step:
            return f"{count / step:.1f} {unit}"
    return f"{count} B"


def _text(when: dt.datetime | int | None) -> str:
    if when is None:
        return ""
    return (from_us(when) if isinstance(when, int) else when).strftime("%Y-%m-%d %H:%M:%SZ")


def _aligned(columns: tuple[str, ...], rows: list[tuple[str, ...]], right: set[int]) -> list[str]:
    """A small table as lines of text, an empty line before it; nothing where there are no rows."""
    if not rows:
        return []
    widths = [max(len(row[i]) for row in [columns, *rows]) for i in range(len(columns))]

    def line(row: tuple[str, ...]) -> str:
        cells = [row[i].rjust(size) if i in right else row[i].ljust(size) for i, size in enumerate(widths)]
        return "  ".join(cells).rstrip()

    return ["", line(columns), *map(line, rows)]
