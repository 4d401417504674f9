"""Words: sizes, moments, values and small tables as a person reads them, for `info` and `show`."""

from __future__ import annotations

import json
import sqlite3
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from decimal import Decimal
from typing import Any, Final

import pyarrow as pa

from eventlab.errors import EventlabError
from eventlab.model.types import from_us, record_parts
from eventlab.store.base import unpack

#: Values longer than these are cut where a person reads them, and tables of more lines too.
LONG_TEXT: Final = 400
SHORT_TEXT: Final = 36
MANY_LINES: Final = 40

#: What damaged bytes lead to, wherever they are read.
UNREADABLE: Final = (
    EventlabError, pa.ArrowException, sqlite3.Error, OSError, ArithmeticError, AttributeError, LookupError, TypeError,
    ValueError,
)  # fmt: skip

IDS: Final = ("event_id", "correlation_id", "causation_id")
_TAGS: Final = {
    "b": "bool", "i64": "int", "f64": "float", "s": "str", "bin": "bytes", "uuid": "UUID", "dec": "Decimal", "json": "JSON",
    "ts": "datetime", "d": "date", "t": "time", "td": "timedelta", "p": "is there", "?": "not known",
}  # fmt: skip


def said(why: BaseException) -> str:
    """What an error says, in one line."""
    if isinstance(why, FileNotFoundError):
        return "it is missing"
    text = why.message if isinstance(why, EventlabError) else str(why)
    return text.strip().partition("\n")[0] or type(why).__name__


# -- values ----------------------------------------------------------------------------------------------------------------


def size_text(count: int) -> str:
    """Bytes as a person reads them, in powers of 1,000.

    >>> size_text(950), size_text(31_250_000)
    ('950 B', '31.2 MB')
    """
    for unit, step in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= step:
            return f"{count / step:.1f} {unit}"
    return f"{count} B"


def many(count: int, what: str) -> str:
    """So many of something.

    >>> many(1, "event"), many(1_200, "event")
    ('1 event', '1,200 events')
    """
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def second_text(second: int) -> str:
    """A second since 1970 as a moment."""
    try:
        return from_us(second * 1_000_000).strftime("%Y-%m-%d %H:%M:%SZ")
    except (ArithmeticError, TypeError, ValueError):
        return f"second {second!r}"


def type_text(tag: str) -> str:
    """The type that a column's tag stands for, as Python says it.

    >>> type_text("d18_2"), type_text("m_l_ts")
    ('Decimal(18, 2)', 'dict[str, list[datetime]]')
    """
    if tag in _TAGS:
        return _TAGS[tag]
    if tag.startswith("l_"):
        return f"list[{type_text(tag[2:])}]"
    if tag.startswith("m_"):
        return f"dict[str, {type_text(tag[2:])}]"
    if tag.startswith("r("):
        return f"({', '.join(f'{name}: {type_text(of)}' for name, of in record_parts(tag))})"
    digits, _, places = tag[1:].partition("_")
    return f"Decimal({digits}, {places})" if tag[:1] == "d" and places else tag


def readable(column: str, value: Any, names: Mapping[str, Mapping[int, str]] | None = None) -> Any:
    """A value of the catalog or the envelope as a person knows it; as it is where it has no such form.

    `names` are the names that numbers stand for, by column.
    """
    if value is None:
        return None
    if names is not None and column in names and isinstance(value, int):
        return names[column].get(value, f"number {value}, which has no name")
    with suppress(*UNREADABLE):
        if column in ("recorded_at", "occurred_at", "min_recorded", "max_recorded"):
            return from_us(value)
        if column in ("lease", "until"):
            return from_us(value * 1_000_000) if value else None
        if column in IDS:
            return uuid.UUID(bytes=value)
        if column == "state" and isinstance(value, bytes):
            return unpack(value)
        if column in ("json", "columns", "tags"):
            return json.loads(value)
    return value


def plain(value: Any) -> str:
    """A value that has a line or a cell to itself: text stands for itself, and nothing is a dash."""
    if value is None:
        return "–"
    if isinstance(value, (list, tuple)) and all(isinstance(part, (str, int)) for part in value):
        return ", ".join(map(plain, value)) or "–"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    if isinstance(value, (uuid.UUID, Decimal)) or (isinstance(value, str) and value.isprintable()):
        return _cut(str(value), LONG_TEXT)
    return _cut(value.hex(), LONG_TEXT) if isinstance(value, bytes) else exact(value)


def exact(value: Any) -> str:
    """A value as Python writes it, so that its type is seen; moments in their usual form."""
    if hasattr(value, "isoformat"):
        return str(value.isoformat()).replace("+00:00", "Z")
    return _cut(repr(value), LONG_TEXT)


def short(value: Any) -> str:
    """A value in a narrow cell; empty where there is none."""
    return "" if value is None else _cut(plain(value), SHORT_TEXT)


def span(ends: tuple[Any, Any]) -> str:
    """From where to where, in whole numbers."""
    low, high = (f"{end:,}" if isinstance(end, int) else "?" for end in ends)
    return low if low == high else f"{low} to {high}"


def _cut(text: str, length: int) -> str:
    if len(text) <= length:
        return text
    return f"{text[:length]}… ({len(text):,} characters)" if length > SHORT_TEXT else f"{text[: length - 1]}…"


# -- lines -----------------------------------------------------------------------------------------------------------------


def aligned(columns: tuple[str, ...], rows: Sequence[tuple[str, ...]], right: set[int]) -> list[str]:
    """A small table as lines of text, an empty line before it; nothing where there are no rows."""
    if not rows:
        return []
    widths = [max(len(row[i]) for row in [columns, *rows]) for i in range(len(columns))]

    def line(row: tuple[str, ...]) -> str:
        cells = [row[i].rjust(size) if i in right else row[i].ljust(size) for i, size in enumerate(widths)]
        return "  ".join(cells).rstrip()

    return ["", line(columns), *map(line, rows)]


def pairs(lines: Sequence[tuple[str, str]]) -> list[str]:
    """Names and what they stand for, one a line."""
    width = max((len(name) for name, _ in lines), default=0)
    return [f"  {name.ljust(width)}  {value}" for name, value in lines]


def some(lines: list[str]) -> list[str]:
    """So many lines as can be read, and how many more there are."""
    if len(lines) <= MANY_LINES:
        return lines
    return [*lines[:MANY_LINES], f"… and {len(lines) - MANY_LINES:,} more (--json gives all)"]


def mermaid_text(text: str) -> str:
    """Text of a node that Mermaid reads as text, whatever it is.

    >>> mermaid_text('a "quoted" <b>')
    'a #34;quoted#34; #60;b#62;'
    """
    return "".join(c if c.isalnum() or c in " _-." else f"#{ord(c)};" for c in text)[:400]
