"""What `show` answers: plain values, whose `str` is what a person reads.

`problems` name what could not be read, and what is not as it was written; without any, all of it is sound.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from eventlab.store.words import aligned, exact, pairs, plain, short, size_text, some, span

#: What a digest says of bytes.
RIGHT: Final = "as it was written"
WRONG: Final = "not as it was written"


@dataclass(frozen=True)
class ShownField:
    """One stored field of a payload: its path, its physical column, its type in Python's words, and its value."""

    name: str
    column: str
    type: str
    value: Any


@dataclass(frozen=True)
class ShownEvent:
    """One event: its envelope, its payload by field, where it lies, and whether it is what was written.

    `file`, `row_group` and `row` are None for a hot event.
    """

    position: int
    where: str
    file: str | None
    row_group: int | None
    row: int | None
    digest: str
    envelope: dict[str, Any]
    payload: tuple[ShownField, ...]
    problems: tuple[str, ...]

    def __str__(self) -> str:
        title = f"event {self.position:,}"
        if self.envelope:
            title += f": {self.envelope['type']}, version {self.envelope['version']} of {self.envelope['stream']}"
        in_title = ("position", "stream", "version", "type")
        lines = [("where", self.where), *([("file", self.file)] if self.file else []), ("digest", self.digest)]
        lines += [(name.replace("_", " "), plain(value)) for name, value in self.envelope.items() if name not in in_title]
        rows = [(field.name, field.type, exact(field.value)) for field in self.payload]
        return _text(title, self.problems, pairs(lines), aligned(("field", "type", "value"), rows, set()))


@dataclass(frozen=True)
class StreamPart:
    """Some consecutive events of a stream and where they lie."""

    versions: tuple[int, int]
    positions: tuple[int, int]
    events: int
    where: str
    file: str | None
    row_groups: tuple[int, ...]
    digest: str


@dataclass(frozen=True)
class ShownSnapshot:
    """The kept state of a stream for one model; `behind` is how many events came since."""

    model: str
    version: int
    position: int
    behind: int
    bytes: int
    fingerprint: str


@dataclass(frozen=True)
class ShownStream:
    """One stream of one tenant: its head, where its events lie, and its snapshots."""

    stream: str
    tenant: str
    version: int
    first: int
    last: int
    parts: tuple[StreamPart, ...]
    snapshots: tuple[ShownSnapshot, ...]
    problems: tuple[str, ...]

    def __str__(self) -> str:
        title = f"{self.stream} of tenant {self.tenant}: version {self.version:,}, positions {self.first:,} to {self.last:,}"
        parts = [
            (span(part.versions), f"{part.events:,}", span(part.positions), part.digest, part.where, part.file or "")
            for part in self.parts
        ]
        kept = [
            (s.model, f"{s.version:,}", f"{s.position:,}", f"{s.behind:,}", size_text(s.bytes), s.fingerprint[:12])
            for s in self.snapshots
        ]
        return _text(
            title,
            self.problems,
            aligned(("versions", "events", "positions", "digest", "where", "file"), parts, {1}),
            aligned(("snapshot of", "version", "position", "events since", "size", "code"), kept, {1, 2, 3, 4}),
        )


@dataclass(frozen=True)
class ShownColumn:
    """One physical column of a segment, over all row groups; `low` and `high` are None where the footer does not say."""

    name: str
    type: str
    bytes: int
    encodings: tuple[str, ...]
    nulls: int
    low: Any
    high: Any


@dataclass(frozen=True)
class ShownGroup:
    """One row group of a segment: its rows, and the spans of positions and stream names in it."""

    number: int
    rows: int
    bytes: int
    positions: tuple[Any, Any]
    streams: tuple[Any, Any]


@dataclass(frozen=True)
class ShownSegment:
    """One segment: what the catalog says of it, and what its footer says. `number` is its id in the catalog."""

    number: int
    file: str
    state: str
    tenant: str
    category: str
    level: int
    first: int
    last: int
    bucket: int
    buckets: int
    place: str
    rows: int
    bytes: int
    digest: str
    columns: tuple[ShownColumn, ...]
    groups: tuple[ShownGroup, ...]
    problems: tuple[str, ...]

    def __str__(self) -> str:
        each = f" ({self.bytes / self.rows:.1f} bytes an event)" if self.rows else ""
        lines = [
            ("file", self.file),
            ("state", self.state),
            ("holds", f"category {self.category} of tenant {self.tenant}"),
            ("place", self.place),
            ("size", f"{self.rows:,} events, {size_text(self.bytes)}{each}"),
            ("row groups", f"{len(self.groups):,}"),
            ("digest", self.digest),
        ]
        total = max(1, sum(column.bytes for column in self.columns))
        columns = [
            (c.name, c.type, size_text(c.bytes), f"{c.bytes / total:.1%}", ", ".join(c.encodings), f"{c.nulls:,}", short(c.low),
             short(c.high))
            for c in sorted(self.columns, key=lambda column: -column.bytes)
        ]  # fmt: skip
        groups = [
            (str(g.number), f"{g.rows:,}", size_text(g.bytes), span(g.positions), " to ".join(map(short, g.streams)))
            for g in self.groups
        ]
        return _text(
            f"segment {self.number}",
            self.problems,
            pairs(lines),
            aligned(("column", "type", "size", "share", "encodings", "nulls", "least", "greatest"), columns, {2, 3, 5}),
            some(aligned(("row group", "events", "size", "positions", "streams"), groups, {0, 1, 2})),
        )


@dataclass(frozen=True)
class TableCount:
    """One table of the catalog; `rows` is None where they cannot be counted."""

    name: str
    rows: int | None
    about: str


@dataclass(frozen=True)
class SegmentLine:
    """One row of the segment table, with its place and its state in words."""

    number: int
    state: str
    tenant: str
    category: str
    place: str
    rows: int
    bytes: int
    about: str


@dataclass(frozen=True)
class ShownCatalog:
    """The catalog: its tables, the log's own row, the names that numbers stand for, read models, leases and segments."""

    path: str
    bytes: int
    tables: tuple[TableCount, ...]
    log: dict[str, Any]
    tenants: dict[int, str]
    categories: dict[int, str]
    read_models: tuple[str, ...]
    leases: tuple[str, ...]
    segments: tuple[SegmentLine, ...]
    problems: tuple[str, ...]

    def __str__(self) -> str:
        tables = [(table.name, "?" if table.rows is None else f"{table.rows:,}", table.about) for table in self.tables]
        named = [(f"tenant {number}", name) for number, name in sorted(self.tenants.items())]
        named += [(f"category {number}", name) for number, name in sorted(self.categories.items())]
        live = [
            (str(s.number), s.category, s.tenant, s.place, f"{s.rows:,}", size_text(s.bytes))
            for s in self.segments
            if s.state == "live"
        ]
        other = [(str(s.number), s.category, s.tenant, s.place, s.about) for s in self.segments if s.state != "live"]
        return _text(
            f"{self.path}: {size_text(self.bytes)}",
            self.problems,
            aligned(("table", "rows", "holds"), tables, {1}),
            _titled("the log", pairs([(name.replace("_", " "), plain(value)) for name, value in self.log.items()])),
            _titled("names", pairs(named)),
            some(aligned(("live segment", "category", "tenant", "place", "events", "size"), live, {0, 4, 5})),
            some(aligned(("other segment", "category", "tenant", "place", "state"), other, {0})),
            _titled("read models", [f"  {line}" for line in self.read_models]),
            _titled("leases of readers", [f"  {line}" for line in self.leases]),
        )


@dataclass(frozen=True)
class ShownTable:
    """Rows of one table of the catalog, with names for numbers, moments for times, and blobs decoded where they have a form."""

    table: str
    rows: tuple[dict[str, Any], ...]
    total: int
    problems: tuple[str, ...]

    def __str__(self) -> str:
        blocks = []
        for number, row in enumerate(self.rows, 1):
            blocks += ["", f"{self.table}, row {number:,}", *pairs([(name, plain(value)) for name, value in row.items()])]
        return _text(f"table {self.table}: {len(self.rows):,} of {self.total:,} rows", self.problems, blocks)


def _titled(title: str, lines: list[str]) -> list[str]:
    return some(["", title, *lines]) if lines else []


def _text(title: str, problems: Sequence[str], *blocks: Sequence[str]) -> str:
    lines = [title, *(line for block in blocks for line in block)]
    if problems:
        lines += ["", "cannot be read, or not trusted:", *(f"  {problem}" for problem in problems)]
    return "\n".join(lines)
