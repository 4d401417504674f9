"""Upgrade: a store of an older format becomes one of today's, in one transaction a step.

A newer eventlab opens no older store by surprise: `eventlab upgrade` is asked for by name. Every step is a transaction of
its own that also writes the new format number, so a killed upgrade leaves a store of one format or the next, and goes on.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from eventlab.errors import Damaged, NoStore
from eventlab.store.base import Row, checksum, content_digest, pack, record_digest, unpack
from eventlab.store.catalog import APPLICATION_ID, FORMAT, identity, newer_format, unread_commits

_SNAPSHOT: Final = """CREATE TABLE snapshot(tenant INTEGER NOT NULL, stream TEXT NOT NULL, model TEXT NOT NULL,
  fingerprint TEXT NOT NULL, version INTEGER NOT NULL, position INTEGER NOT NULL, state BLOB NOT NULL,
  checksum BLOB NOT NULL DEFAULT x'', PRIMARY KEY(tenant, stream, model)) STRICT, WITHOUT ROWID"""
#: Tables whose rows carry a checksum of these columns from format 2 on; that of the log is `catalog.identity`.
_CHECKED: Final = {
    "log": "",
    "schema": "name, version, fingerprint, json",
    "import_chunk": "tenant, source, chunk, rows, first, last, digest",
    "read_model": "tenant, name, fingerprint, position, path, rows, bytes, digest",
}
#: From format 3 on a hot event is its record; its id is its own, and joins the others in `event_key` when it is trimmed.
_EVENT: Final = """CREATE TABLE event(position INTEGER PRIMARY KEY, tenant INTEGER NOT NULL, stream TEXT NOT NULL,
  version INTEGER NOT NULL, event_id BLOB NOT NULL, content BLOB NOT NULL, record BLOB NOT NULL, digest BLOB NOT NULL,
  UNIQUE(tenant, stream, version), UNIQUE(tenant, event_id)) STRICT"""
_MOVE_EVENTS: Final = """INSERT INTO event SELECT position, tenant, stream, version, event_id,
  content(stream, type, schema_version, payload),
  record(position, coalesce(tenant.name, ''), stream, version, type, schema_version, event_id, recorded_at, occurred_at,
    correlation_id, causation_id, actor, tags, commit_position, payload),
  digest FROM event_2 LEFT JOIN tenant ON tenant.id = tenant ORDER BY position"""
#: From format 4 on there is a row for each code that made a read model, with all its files.
_READ_MODEL: Final = """CREATE TABLE read_model(tenant TEXT NOT NULL, name TEXT NOT NULL, fingerprint TEXT NOT NULL,
  state TEXT NOT NULL, position INTEGER NOT NULL, rows INTEGER NOT NULL, keys TEXT NOT NULL, parts BLOB NOT NULL,
  parked BLOB NOT NULL, checksum BLOB NOT NULL, PRIMARY KEY(tenant, name, fingerprint)) STRICT, WITHOUT ROWID"""
_MOVE_READ_MODELS: Final = """INSERT INTO read_model SELECT tenant, name, fingerprint, 'accepted', position, rows, '[]',
  packed(path, position, rows, bytes, digest), packed(), x'' FROM read_model_3"""
_READ_MODEL_QUERY: Final = """CREATE TABLE read_model_query(tenant TEXT NOT NULL, name TEXT NOT NULL, fingerprint TEXT NOT NULL,
  query TEXT NOT NULL, checksum BLOB NOT NULL, PRIMARY KEY(tenant, name, fingerprint)) STRICT, WITHOUT ROWID"""
_INLINE_ROW: Final = """CREATE TABLE inline_row(tenant TEXT NOT NULL, name TEXT NOT NULL, fingerprint TEXT NOT NULL,
  key BLOB NOT NULL, row BLOB NOT NULL, checksum BLOB NOT NULL, PRIMARY KEY(tenant, name, fingerprint, key))
  STRICT, WITHOUT ROWID"""
_LEASE: Final = """CREATE TABLE lease(name TEXT PRIMARY KEY, owner TEXT NOT NULL, until INTEGER NOT NULL, said TEXT NOT NULL)
  STRICT, WITHOUT ROWID"""
_CHECKPOINT: Final = """CREATE TABLE checkpoint(tenant TEXT NOT NULL, name TEXT NOT NULL, part INTEGER NOT NULL,
  parts INTEGER NOT NULL, position INTEGER NOT NULL, parked BLOB NOT NULL, checksum BLOB NOT NULL,
  PRIMARY KEY(tenant, name, part)) STRICT, WITHOUT ROWID"""
_HANDLED: Final = """CREATE TABLE handled(tenant INTEGER NOT NULL, id TEXT NOT NULL, name TEXT NOT NULL, stream TEXT NOT NULL,
  digest BLOB NOT NULL, at INTEGER NOT NULL, first INTEGER NOT NULL, count INTEGER NOT NULL, version INTEGER NOT NULL,
  checksum BLOB NOT NULL, PRIMARY KEY(tenant, id)) STRICT, WITHOUT ROWID"""
_REJECTION: Final = """CREATE TABLE rejection(id INTEGER PRIMARY KEY, tenant INTEGER NOT NULL, at INTEGER NOT NULL, command TEXT,
  name TEXT NOT NULL, stream TEXT NOT NULL, said TEXT NOT NULL, reason TEXT NOT NULL, actor TEXT) STRICT"""
#: From format 5 on hot events that were appended together are one row, and so are their ids in the window of known ids;
#: lifted queries are stored beside read models.
_RUN: Final = """CREATE TABLE event(position INTEGER PRIMARY KEY, tenant INTEGER NOT NULL, stream TEXT NOT NULL,
  version INTEGER NOT NULL, count INTEGER NOT NULL, event_id BLOB NOT NULL, record BLOB NOT NULL, digest BLOB NOT NULL,
  UNIQUE(tenant, stream, version), UNIQUE(tenant, event_id)) STRICT"""
_MOVE_RUNS: Final = """INSERT INTO event SELECT position, tenant, stream, version, 1, event_id, run(record),
  run_digest(record, digest) FROM event_4 ORDER BY position"""
_EVENT_KEY: Final = """CREATE TABLE event_key(tenant INTEGER NOT NULL, event_id BLOB NOT NULL, count INTEGER NOT NULL,
  position INTEGER NOT NULL, version INTEGER NOT NULL, digest BLOB NOT NULL, PRIMARY KEY(tenant, event_id))
  STRICT, WITHOUT ROWID"""
#: The statements that lead from each format to the next.
STEPS: Final[dict[int, tuple[str, ...]]] = {
    1: (
        "ALTER TABLE log ADD COLUMN types INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE segment ADD COLUMN bucket INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE segment ADD COLUMN buckets INTEGER NOT NULL DEFAULT 1",
        "ALTER TABLE segment ADD COLUMN gone INTEGER NOT NULL DEFAULT 0",
        "CREATE INDEX event_key_position ON event_key(position)",
        "CREATE TABLE reader(token TEXT PRIMARY KEY, generation INTEGER NOT NULL, until INTEGER NOT NULL) STRICT, WITHOUT ROWID",
        _SNAPSHOT,
        *(f"ALTER TABLE {table} ADD COLUMN checksum BLOB NOT NULL DEFAULT x''" for table in _CHECKED),
        *(f"UPDATE {table} SET checksum = checksum({columns})" for table, columns in _CHECKED.items() if columns),
    ),
    2: (
        "ALTER TABLE event RENAME TO event_2",
        _EVENT,
        _MOVE_EVENTS,
        "DELETE FROM event_key WHERE position IN (SELECT position FROM event)",
        "DROP TABLE event_2",
    ),
    3: (
        "ALTER TABLE read_model RENAME TO read_model_3",
        "DELETE FROM read_model_3 WHERE checksum != checksum(tenant, name, fingerprint, position, path, rows, bytes, digest)",
        _READ_MODEL,
        _MOVE_READ_MODELS,
        "UPDATE read_model SET checksum = checksum(tenant, name, fingerprint, state, position, rows, keys, parts, parked)",
        "DROP TABLE read_model_3",
        _INLINE_ROW,
        _LEASE,
        _CHECKPOINT,
        _HANDLED,
        _REJECTION,
    ),
    4: (
        "ALTER TABLE event RENAME TO event_4",
        _RUN,
        _MOVE_RUNS,
        "DROP TABLE event_4",
        "ALTER TABLE event_key RENAME TO event_key_4",
        "DROP INDEX event_key_position",
        _EVENT_KEY,
        "INSERT INTO event_key SELECT tenant, event_id, 1, position, version, x'' FROM event_key_4",
        "DROP TABLE event_key_4",
        "CREATE INDEX event_key_position ON event_key(position)",
        _READ_MODEL_QUERY,
    ),
}


@dataclass(frozen=True)
class Upgraded:
    """From which format to which; the same where there was nothing to do."""

    path: str
    before: int
    after: int


def upgrade(root: Path) -> Upgraded:
    """Bring a store to today's format, under its write lock; events and files stay as they are."""
    root = root.expanduser().resolve()
    path = root / "catalog.sqlite"
    if not path.exists():
        raise NoStore(f"there is no store in {root}", hint="name the folder of a store", path=str(root))
    lock = os.open(root / "write.lock", os.O_CREAT | os.O_RDWR, 0o644)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        unread_commits(root)
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as catalog:
            if catalog.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
                raise NoStore(f"{path} is not the catalog of a store", hint="name the folder of a store", path=str(root))
            catalog.execute("PRAGMA synchronous=FULL")
            catalog.create_function("checksum", -1, checksum, deterministic=True)
            catalog.create_function("packed", -1, _packed, deterministic=True)
            catalog.create_function("run", 1, _run, deterministic=True)
            catalog.create_function("run_digest", 2, _run_digest, deterministic=True)
            catalog.create_function("content", 4, _content, deterministic=True)
            catalog.create_function("record", -1, _record, deterministic=True)
            before = found = int(catalog.execute("SELECT format FROM log").fetchone()[0])
            if found > FORMAT:
                raise newer_format(root, found)
            while found < FORMAT:
                catalog.execute("BEGIN IMMEDIATE")
                for statement in STEPS[found]:
                    catalog.execute(statement)
                found += 1
                catalog.execute("UPDATE log SET format = ?, checksum = ?", (found, identity(catalog)))
                catalog.execute("COMMIT")
            return Upgraded(str(root), before, found)
    finally:
        os.close(lock)


def _record(*columns: Any) -> bytes:
    """The record of a hot event from its columns in format 2; that of one that was damaged does not have its digest."""
    *others, tags, commit, payload = columns
    try:
        said = tuple(json.loads(tags)) if tags else (), commit, tuple(unpack(payload))
    except (Damaged, RecursionError, TypeError, ValueError):
        said = (str(tags),), commit, (payload,)
    return pack(Row._make((*others, *said)))


def _run(record: bytes) -> bytes:
    """The record of a run of one event: a list of one, before what the event alone had."""
    return b"\x91" + record


def _run_digest(record: bytes, digest: bytes) -> bytes:
    """The digest of that; of an event that was damaged the one that it had, which it does not have now either."""
    return record_digest(_run(record)) if record_digest(record) == digest else digest


def _packed(*file: Any) -> bytes:
    """The parts of a read model that is one file, or nothing."""
    return pack([list(file)] if file else [])


def _content(stream: str, name: str, version: int, payload: bytes) -> bytes:
    return content_digest(stream, (name, version), payload)
