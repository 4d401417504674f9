"""Backup and restore: a copy of a store that is whole, made while it is in use, and verified.

A backup is a store of its own: a folder that can be opened, queried and verified. SQLite copies the catalog, in one
moment of the log; a reader's lease keeps the segments of that moment until they are copied. Read models, snapshots and
caches are left out: they are made again from the log.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from eventlab.errors import Damaged, NoStore
from eventlab.store.disk import DiskStore, open_store
from eventlab.store.files import LOCAL_DISK, disk_errors, file_digest, make_folders, write_durably
from eventlab.store.verify import verify


@dataclass(frozen=True)
class BackedUp:
    """What a backup or a restore copied."""

    path: str
    events: int
    segments: int
    bytes: int


def backup(store: DiskStore, to: Path, *, now: Callable[[], int]) -> BackedUp:
    """Copy a store to a folder that is not there yet, as of one commit; writers go on meanwhile."""
    target = _new_folder(to)
    temporary = target.with_name(f".{target.name}.partial")
    shutil.rmtree(temporary, ignore_errors=True)
    held = store.cut().hold()
    try:
        with disk_errors(temporary):
            make_folders(temporary)
            _copy_catalog(store, temporary / "catalog.sqlite")
            _copy_segments(store.root, temporary)
            LOCAL_DISK.rename(temporary, target)
            # As for a file: without it a crash can lose the name of a backup that was said to be done.
            LOCAL_DISK.sync_folder(target.parent)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    finally:
        held.release()
    return _checked(target, now)


def restore(source: Path, to: Path, *, now: Callable[[], int]) -> BackedUp:
    """Make a store from a backup, in a folder that is not there yet; the backup is verified first, and stays as it is."""
    _new_folder(to)
    taken = open_store(source, now=now, create=False)
    try:
        report = verify(taken)
        if not report.ok:
            raise Damaged(
                f"the backup in {source} is damaged: {report.findings[0].message}", hint="eventlab verify names all of it"
            )
        return backup(taken, to, now=now)
    finally:
        taken.close()


def _new_folder(path: Path) -> Path:
    target = path.expanduser().resolve()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise NoStore(f"{target} is there already, and a backup never writes over anything", hint="name a new folder")
    if target.exists():
        target.rmdir()
    return target


def _copy_catalog(store: DiskStore, to: Path) -> None:
    """The catalog as of one transaction, by SQLite itself: a file copy of a live database would be torn."""
    with contextlib.closing(sqlite3.connect(to, isolation_level=None)) as copy:
        store.copy_catalog(copy)
        copy.execute("DELETE FROM segment WHERE state != 'live'")
        for table in ("read_model", "read_model_query", "inline_row", "snapshot", "reader", "lease"):
            copy.execute(f"DELETE FROM {table}")
        copy.execute("PRAGMA journal_mode=DELETE")
    with to.open("rb") as file:
        os.fsync(file.fileno())


def _copy_segments(root: Path, target: Path) -> None:
    with contextlib.closing(sqlite3.connect(target / "catalog.sqlite")) as catalog:
        rows = catalog.execute("SELECT path, digest FROM segment WHERE state = 'live' ORDER BY path").fetchall()
    for name, digest in rows:
        write_durably(target / name, _copier(root / name))
        if file_digest(target / name) != digest:
            raise Damaged(f"segment {root / name} is not what was written, so it was not backed up", hint="eventlab verify")


def _copier(source: Path) -> Callable[[IO[bytes]], object]:
    def copy(file: IO[bytes]) -> None:
        with source.open("rb") as given:
            shutil.copyfileobj(given, file, 1 << 20)

    return copy


def _checked(target: Path, now: Callable[[], int]) -> BackedUp:
    copy = open_store(target, now=now, create=False)
    try:
        report = verify(copy)
        if not report.ok:
            raise Damaged(f"the copy in {target} is damaged: {report.findings[0].message}", hint="eventlab verify the original")
        return BackedUp(str(target), report.events, report.segments, report.bytes + (target / "catalog.sqlite").stat().st_size)
    finally:
        copy.close()
