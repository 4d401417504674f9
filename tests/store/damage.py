"""A store's catalog as somebody changes it who should not: for tests of what notices."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from eventlab.errors import EventlabError
from eventlab.store.base import pack, record_digest, record_of, rows_of_record, unpack


@contextlib.contextmanager
def catalog_of(folder: Path) -> Iterator[sqlite3.Connection]:
    """The catalog of a store, each statement a transaction of its own.

    SQL has `set_in(record, field, value)`, a record whose last event has another value in a field, and `digest_of(record)`.
    """
    with contextlib.closing(sqlite3.connect(folder / "catalog.sqlite", isolation_level=None)) as catalog:
        catalog.create_function("set_in", 3, set_in)
        catalog.create_function("digest_of", 1, record_digest)
        yield catalog


def set_in(record: bytes, field: str, value: Any) -> bytes:
    """A record whose last event has another value in one field; as a payload, the bytes of one."""
    if field == "payload":
        return with_payload(record, value)
    *rows, last = rows_of_record(record)
    return record_of([*rows, last._replace(**{field: value})])


def with_payload(record: bytes, payload: bytes) -> bytes:
    """A record with other bytes where the payload of its last event is, whether they say anything or not."""
    size = len(pack(rows_of_record(record)[-1].payload))
    return record[:-size] + payload


def says_something(payload: bytes) -> bool:
    """Whether bytes can be read as a payload, of whatever type."""
    try:
        return isinstance(unpack(payload), list)
    except EventlabError:
        return False
