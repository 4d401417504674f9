"""What the catalog stands on: SQLite's WAL, its transactions, and the locks of the operating system."""

from __future__ import annotations

import fcntl
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

Connect = Callable[[], sqlite3.Connection]


@pytest.fixture
def connect(tmp_path: Path) -> Iterator[Connect]:
    """Opens connections to one database, each as the catalog does."""
    opened = []

    def open_one() -> sqlite3.Connection:
        connection = sqlite3.connect(tmp_path / "catalog.sqlite", isolation_level=None, timeout=0)
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "wal_autocheckpoint=0"):
            connection.execute(f"PRAGMA {pragma}").fetchall()
        opened.append(connection)
        return connection

    first = open_one()
    first.execute("CREATE TABLE event(position INTEGER PRIMARY KEY AUTOINCREMENT, id BLOB UNIQUE)")
    yield open_one
    for connection in opened:
        connection.close()


def count(connection: sqlite3.Connection) -> int:
    return int(connection.execute("SELECT count(*) FROM event").fetchone()[0])


def add(connection: sqlite3.Connection, *ids: bytes) -> None:
    connection.executemany("INSERT INTO event(id) VALUES(?)", [(one,) for one in ids])


def test_a_reader_keeps_its_moment_while_others_commit(connect: Connect) -> None:
    writer, reader = connect(), connect()
    reader.execute("BEGIN")
    assert count(reader) == 0
    add(writer, b"a")
    assert count(reader) == 0
    reader.execute("COMMIT")
    assert count(reader) == 1


def test_a_transaction_that_read_first_cannot_begin_to_write_after_someone_else_did(connect: Connect) -> None:
    ours, theirs = connect(), connect()
    ours.execute("BEGIN")
    count(ours)
    add(theirs, b"a")
    with pytest.raises(sqlite3.OperationalError) as refused:
        add(ours, b"b")
    assert refused.value.sqlite_errorname == "SQLITE_BUSY_SNAPSHOT"


def test_a_second_immediate_transaction_is_refused_when_it_begins(connect: Connect) -> None:
    ours, theirs = connect(), connect()
    ours.execute("BEGIN IMMEDIATE")
    with pytest.raises(sqlite3.OperationalError) as refused:
        theirs.execute("BEGIN IMMEDIATE")
    assert refused.value.sqlite_errorname == "SQLITE_BUSY"


def test_a_failed_insert_leaves_the_transaction_open_with_the_rows_before_it(connect: Connect) -> None:
    connection = connect()
    connection.execute("BEGIN IMMEDIATE")
    with pytest.raises(sqlite3.IntegrityError) as refused:
        add(connection, b"a", b"b", b"a")
    assert refused.value.sqlite_errorname == "SQLITE_CONSTRAINT_UNIQUE"
    assert (connection.in_transaction, count(connection)) == (True, 2)
    connection.execute("ROLLBACK")
    assert count(connection) == 0


def test_a_rolled_back_insert_leaves_no_gap_in_the_numbers(connect: Connect) -> None:
    connection = connect()
    connection.execute("BEGIN IMMEDIATE")
    add(connection, b"a", b"b")
    connection.execute("ROLLBACK")
    add(connection, b"c")
    assert connection.execute("SELECT position FROM event").fetchall() == [(1,)]


def test_without_autocheckpoint_the_log_grows_until_it_is_truncated(connect: Connect, tmp_path: Path) -> None:
    connection = connect()
    log = tmp_path / "catalog.sqlite-wal"
    for number in range(40):
        add(connection, bytes([number]) * 30_000)
    assert log.stat().st_size > 1_100_000
    assert connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0
    assert log.stat().st_size == 0


def test_a_reader_keeps_the_log_from_being_truncated(connect: Connect) -> None:
    writer, reader = connect(), connect()
    add(writer, b"a")
    reader.execute("BEGIN")
    count(reader)
    add(writer, b"b")
    busy, *_ = writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    assert busy == 1


def test_the_last_connection_to_close_takes_the_log_away(connect: Connect, tmp_path: Path) -> None:
    writer = connect()
    add(writer, b"a")
    assert (tmp_path / "catalog.sqlite-wal").exists()
    other = sqlite3.connect(tmp_path / "catalog.sqlite")
    other.close()
    assert (tmp_path / "catalog.sqlite-wal").exists()


def test_a_backup_of_a_live_database_has_what_was_committed(connect: Connect, tmp_path: Path) -> None:
    writer = connect()
    add(writer, b"a", b"b")
    target = sqlite3.connect(tmp_path / "backup.sqlite")
    writer.backup(target)
    assert count(target) == 2
    target.close()


def test_data_version_changes_when_another_connection_commits_and_not_with_our_own(connect: Connect) -> None:
    ours, theirs = connect(), connect()

    def version() -> int:
        return int(ours.execute("PRAGMA data_version").fetchone()[0])

    before = version()
    add(ours, b"a")
    assert version() == before
    add(theirs, b"b")
    assert version() != before


def test_synchronous_full_is_a_setting_of_the_connection_and_wal_one_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "x.sqlite"
    with sqlite3.connect(file) as first:
        first.execute("PRAGMA journal_mode=WAL").fetchall()
        first.execute("PRAGMA synchronous=OFF")
    second = sqlite3.connect(file)
    assert second.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert second.execute("PRAGMA synchronous").fetchone() == (2,)
    first.close()
    second.close()


def test_a_number_over_64_bits_and_half_a_character_are_refused() -> None:
    connection = sqlite3.connect(":memory:")
    with pytest.raises(OverflowError):
        connection.execute("SELECT ?", (2**63,))
    with pytest.raises(UnicodeEncodeError):
        connection.execute("SELECT ?", ("\ud800",))
    connection.close()


def test_a_text_with_a_zero_in_it_comes_back_whole_but_sqlite_counts_to_the_zero() -> None:
    connection = sqlite3.connect(":memory:")
    assert connection.execute("SELECT ?, length(?)", ("a\0b", "a\0b")).fetchone() == ("a\0b", 1)
    connection.close()


def test_the_library_of_python_may_be_used_from_any_thread() -> None:
    assert sqlite3.threadsafety == 3


# -- locks


def held(file: int) -> bool:
    """Whether someone else has the flock."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    fcntl.flock(file, fcntl.LOCK_UN)
    return False


def test_a_flock_belongs_to_the_open_file_and_not_to_the_process(tmp_path: Path) -> None:
    first, second = (os.open(tmp_path / "lock", os.O_CREAT | os.O_RDWR) for _ in range(2))
    fcntl.flock(first, fcntl.LOCK_EX)
    assert held(second)
    copy = os.dup(first)
    os.close(first)
    assert held(second), "a copy of the descriptor keeps the lock"
    os.close(copy)
    assert not held(second)
    os.close(second)


def test_a_posix_lock_is_lost_when_the_process_closes_any_descriptor_of_the_file(tmp_path: Path) -> None:
    take = "import fcntl, os, sys; fcntl.lockf(os.open(sys.argv[1], os.O_RDWR), fcntl.LOCK_EX | fcntl.LOCK_NB)"

    def another_process_gets_it() -> bool:
        done = subprocess.run([sys.executable, "-S", "-c", take, tmp_path / "lock"], capture_output=True, check=False)
        return done.returncode == 0

    locked = os.open(tmp_path / "lock", os.O_CREAT | os.O_RDWR)
    fcntl.lockf(locked, fcntl.LOCK_EX)
    assert not another_process_gets_it()
    os.close(os.open(tmp_path / "lock", os.O_RDONLY))
    assert another_process_gets_it()
    os.close(locked)
