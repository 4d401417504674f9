"""A store's catalog as somebody changes it who should not: for tests of what notices."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from eventlab.errors import EventlabError
from eventlab.store.base import Row, pack, record_digest, record_of, row_of_record, unpack


@contextlib.contextmanager
def catalog_of(folder: Path) -> Iterator[sqlite3.Connection]:
    """The catalog of a store, each statement a transaction of its own.

    SQL has `set_in(record, field, value)`, a record with another value in one field, and `digest_of(record)`.
    """
    with contextlib.closing(sqlite3.connect(folder / "catalog.sqlite", isolation_level=None)) as catalog:
        catalog.create_function("set_in", 3, set_in)
        catalog.create_function("digest_of", 1, record_digest)
        yield catalog


def set_in(record: bytes, field: str, value: Any) -> bytes:
    """A record with another value in one field; as a payload, the bytes of one."""
    if field == "payload":
        return with_payload(record, value)
    return record_of(row_of_record(record)._replace(**{field: value}))


def with_payload(record: bytes, payload: bytes) -> bytes:
    """A record with other bytes where its payload is, whether they say anything or not."""
    head = pack(row_of_record(record)[: Row._fields.index("payload")])
    # The first byte says how many values follow.
    return bytes([head[0] + 1]) + head[1:] + payload


def says_something(payload: bytes) -> bool:
    """Whether bytes can be read as a payload, of whatever type."""
    try:
        return isinstance(unpack(payload), list)
    except EventlabError:
        return False
