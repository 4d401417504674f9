"""The catalog: a SQLite database in WAL mode that holds the truth of a store.

Head, hot tail, stream heads, and which segments are live. Every write is one transaction under `write.lock`; its COMMIT
is the only commit point. stdlib `sqlite3` only: two SQLite libraries in one process drop each other's locks.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from eventlab.errors import Busy, Damaged, EventlabError, NewerFormat, NoStore, OlderFormat, Poisoned, ReadOnly, StoreError
from eventlab.model.types import MOMENT_MIN
from eventlab.store.base import checksum
from eventlab.store.files import disk_full
from eventlab.store.wal import Unread, in_use, unread

#: 1: position-ordered runs. 2: eras of sorted buckets, leases of readers, snapshots; ids are trimmed by position.
#: 3: a hot event is its record, as it is digested; its id moves to the window of known ids when it is trimmed.
#: 4: a read model is one row for each code that made it, with all its files; leases and checkpoints of those who follow.
#: 5: hot events of one stream that were appended together are one row, and so are their ids in the window of known ids;
#:    read models have lifted queries beside them.
FORMAT: Final = 5
APPLICATION_ID: Final = 0x65766C62  # "evlb"
CHECKPOINT_EVERY: Final = 64
CHECKPOINT_BYTES: Final = 4 << 20
BUSY_SECONDS: Final = 30
#: The way out of a damaged catalog.
SEE_VERIFY: Final = "eventlab verify says what else is damaged; restore a backup"

_DDL: Final = """
CREATE TABLE log(id INTEGER PRIMARY KEY CHECK(id = 1), format INTEGER NOT NULL, store_id TEXT NOT NULL, head INTEGER NOT NULL,
  sealed INTEGER NOT NULL, id_floor INTEGER NOT NULL, recorded_at INTEGER NOT NULL, generation INTEGER NOT NULL,
  types INTEGER NOT NULL DEFAULT 0, checksum BLOB NOT NULL DEFAULT x'') STRICT;
CREATE TABLE tenant(id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE) STRICT;
CREATE TABLE category(id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE) STRICT;
CREATE TABLE schema(name TEXT NOT NULL, version INTEGER NOT NULL, fingerprint TEXT NOT NULL, json TEXT NOT NULL,
  checksum BLOB NOT NULL DEFAULT x'', PRIMARY KEY(name, version)) STRICT, WITHOUT ROWID;
CREATE TABLE type_use(tenant INTEGER NOT NULL, category INTEGER NOT NULL, type TEXT NOT NULL, version INTEGER NOT NULL,
  PRIMARY KEY(tenant, category, type, version)) STRICT, WITHOUT ROWID;
CREATE TABLE event(position INTEGER PRIMARY KEY, tenant INTEGER NOT NULL, stream TEXT NOT NULL, version INTEGER NOT NULL,
  count INTEGER NOT NULL, event_id BLOB NOT NULL, record BLOB NOT NULL, digest BLOB NOT NULL,
  UNIQUE(tenant, stream, version), UNIQUE(tenant, event_id)) STRICT;
CREATE TABLE event_key(tenant INTEGER NOT NULL, event_id BLOB NOT NULL, count INTEGER NOT NULL, position INTEGER NOT NULL,
  version INTEGER NOT NULL, digest BLOB NOT NULL, PRIMARY KEY(tenant, event_id)) STRICT, WITHOUT ROWID;
CREATE INDEX event_key_position ON event_key(position);
CREATE TABLE stream_head(tenant INTEGER NOT NULL, stream TEXT NOT NULL, version INTEGER NOT NULL,
  first_position INTEGER NOT NULL, last_position INTEGER NOT NULL, PRIMARY KEY(tenant, stream)) STRICT, WITHOUT ROWID;
CREATE TABLE segment(id INTEGER PRIMARY KEY, path TEXT NOT NULL UNIQUE, tenant INTEGER NOT NULL, category INTEGER NOT NULL,
  level INTEGER NOT NULL, run_first INTEGER NOT NULL, run_last INTEGER NOT NULL, rows INTEGER NOT NULL, bytes INTEGER NOT NULL,
  digest TEXT NOT NULL, columns TEXT NOT NULL, min_recorded INTEGER NOT NULL, max_recorded INTEGER NOT NULL,
  state TEXT NOT NULL CHECK(state IN ('pending', 'live', 'retired')), lease INTEGER NOT NULL,
  bucket INTEGER NOT NULL DEFAULT 0, buckets INTEGER NOT NULL DEFAULT 1, gone INTEGER NOT NULL DEFAULT 0) STRICT;
CREATE INDEX segment_live ON segment(state, run_first);
CREATE TABLE import_chunk(tenant INTEGER NOT NULL, source TEXT NOT NULL, chunk INTEGER NOT NULL, rows INTEGER NOT NULL,
  first INTEGER NOT NULL, last INTEGER NOT NULL, digest BLOB NOT NULL, checksum BLOB NOT NULL DEFAULT x'',
  PRIMARY KEY(tenant, source, chunk)) STRICT, WITHOUT ROWID;
CREATE TABLE read_model(tenant TEXT NOT NULL, name TEXT NOT NULL, fingerprint TEXT NOT NULL, state TEXT NOT NULL,
  position INTEGER NOT NULL, rows INTEGER NOT NULL, keys TEXT NOT NULL, parts BLOB NOT NULL, parked BLOB NOT NULL,
  checksum BLOB NOT NULL, PRIMARY KEY(tenant, name, fingerprint)) STRICT, WITHOUT ROWID;
CREATE TABLE read_model_query(tenant TEXT NOT NULL, name TEXT NOT NULL, fingerprint TEXT NOT NULL, query TEXT NOT NULL,
  checksum BLOB NOT NULL, PRIMARY KEY(tenant, name, fingerprint)) STRICT, WITHOUT ROWID;
CREATE TABLE inline_row(tenant TEXT NOT NULL, name TEXT NOT NULL, fingerprint TEXT NOT NULL, key BLOB NOT NULL,
  row BLOB NOT NULL, checksum BLOB NOT NULL, PRIMARY KEY(tenant, name, fingerprint, key)) STRICT, WITHOUT ROWID;
CREATE TABLE lease(name TEXT PRIMARY KEY, owner TEXT NOT NULL, until INTEGER NOT NULL, said TEXT NOT NULL)
  STRICT, WITHOUT ROWID;
CREATE TABLE checkpoint(tenant TEXT NOT NULL, name TEXT NOT NULL, part INTEGER NOT NULL, parts INTEGER NOT NULL,
  position INTEGER NOT NULL, parked BLOB NOT NULL, checksum BLOB NOT NULL, PRIMARY KEY(tenant, name, part))
  STRICT, WITHOUT ROWID;
CREATE TABLE handled(tenant INTEGER NOT NULL, id TEXT NOT NULL, name TEXT NOT NULL, stream TEXT NOT NULL, digest BLOB NOT NULL,
  at INTEGER NOT NULL, first INTEGER NOT NULL, count INTEGER NOT NULL, version INTEGER NOT NULL, checksum BLOB NOT NULL,
  PRIMARY KEY(tenant, id)) STRICT, WITHOUT ROWID;
CREATE TABLE rejection(id INTEGER PRIMARY KEY, tenant INTEGER NOT NULL, at INTEGER NOT NULL, command TEXT, name TEXT NOT NULL,
  stream TEXT NOT NULL, said TEXT NOT NULL, reason TEXT NOT NULL, actor TEXT) STRICT;
CREATE TABLE reader(token TEXT PRIMARY KEY, generation INTEGER NOT NULL, until INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE snapshot(tenant INTEGER NOT NULL, stream TEXT NOT NULL, model TEXT NOT NULL, fingerprint TEXT NOT NULL,
  version INTEGER NOT NULL, position INTEGER NOT NULL, state BLOB NOT NULL, checksum BLOB NOT NULL DEFAULT x'',
  PRIMARY KEY(tenant, stream, model)) STRICT, WITHOUT ROWID;
"""


class Catalog:
    """The catalog of one store folder in this process: a connection that writes, one that reads, and the write lock."""

    def __init__(self, root: Path, *, read_only: bool, create: bool) -> None:
        self.root = root
        self.path = root / "catalog.sqlite"
        self.read_only = read_only
        self._pid = os.getpid()
        self._poison: str | None = None
        self._commits = 0
        self._thread_lock = threading.RLock()
        self._read_lock = threading.RLock()
        self._lock_file = -1
        self._settled: tuple[int, int] | None = None
        #: What the write-ahead log held behind the place where SQLite stopped reading it, for `verify`.
        self.unread = unread_commits(root)
        if not read_only:
            self._refuse_foreign(create)
            self._lock_file = os.open(root / "write.lock", os.O_CREAT | os.O_RDWR, 0o644)
        try:
            with self._flock():
                self.write_connection = self._connect()
                self._prepare(create)
                self._read_connection = self.write_connection if read_only else self._connect()
        except BaseException:
            self.close()
            raise

    # -- opening

    def _refuse_foreign(self, create: bool) -> None:
        """Look whose database this is before anything in its folder is touched."""
        if not self.path.exists() or not self.path.stat().st_size:
            return
        with contextlib.closing(self._connect_read_only("mode=ro")) as connection:
            try:
                self._check(connection, create)
            except sqlite3.OperationalError:
                # It cannot be looked at without writing, as after a crash; it is checked again when it is open.
                return
            except (sqlite3.DatabaseError, UnicodeDecodeError) as why:
                raise self._damaged(str(why)) from why

    def _connect_read_only(self, mode: str) -> sqlite3.Connection:
        uri = f"{self.path.absolute().as_uri()}?{mode}"
        return sqlite3.connect(uri, uri=True, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)

    def _connect(self) -> sqlite3.Connection:
        if self.read_only:
            self._settled = self._unchanging()
            connection = self._connect_read_only("mode=ro" if self._settled is None else "immutable=1")
        else:
            connection = sqlite3.connect(self.path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
            # The file is SQLite's from its first page on; FULL makes a COMMIT wait for the disk.
            for pragma in (
                "journal_mode=WAL", "synchronous=FULL", "wal_autocheckpoint=0", "cache_size=-65536", "cell_size_check=ON"
            ):  # fmt: skip
                self._pragma(connection, pragma)
        return connection

    def _pragma(self, connection: sqlite3.Connection, pragma: str) -> None:
        try:
            with self._sqlite_errors(writing=False):
                connection.execute(f"PRAGMA {pragma}").fetchall()
        except BaseException:
            connection.close()
            raise

    def _unchanging(self) -> tuple[int, int] | None:
        """Time and size of a database that may be read without locks, or None.

        It is one in a folder that cannot be written, without a WAL: nobody has it open now. `read` looks again each time.
        """
        wal = Path(f"{self.path}-wal")
        if os.access(self.root, os.W_OK) or (wal.exists() and wal.stat().st_size):
            return None
        found = self.path.stat()
        return found.st_mtime_ns, found.st_size

    def _check(self, connection: sqlite3.Connection, create: bool) -> bool:
        """Whether this database is a catalog; `NoStore` for another program's, `NewerFormat` for one from the future."""
        try:
            # One statement sees one moment: in between two, another process may make the store.
            look = "SELECT application_id, (SELECT count(*) FROM sqlite_master) FROM pragma_application_id"
            application, tables = connection.execute(look).fetchone()
        except sqlite3.OperationalError:
            raise
        except sqlite3.DatabaseError as why:
            if _application_id(connection) == APPLICATION_ID:
                raise
            raise NoStore(
                f"{self.path} is not the catalog of a store: {why}",
                hint="name another folder, or restore a backup",
                path=str(self.root),
            ) from None
        if application != APPLICATION_ID:
            if tables:
                raise NoStore(f"{self.path} is a database of another program", hint="name another folder", path=str(self.root))
            if not create:
                raise NoStore(f"{self.path} is empty: there is no store", hint="el.open(path) makes one", path=str(self.root))
            return False
        row = connection.execute("SELECT format FROM log").fetchone()
        found = row[0] if row is not None else None
        if not isinstance(found, int):
            raise Damaged(f"the catalog of {self.root} does not say what format it has", hint="restore a backup")
        if found > FORMAT:
            raise newer_format(self.root, found)
        if found < FORMAT:
            raise OlderFormat(
                f"the store in {self.root} has format {found}, and this eventlab reads format {FORMAT}",
                hint=f"eventlab upgrade --store {self.root} brings it up to date, in place; back it up before",
                format=found,
                path=str(self.root),
            )
        return True

    def _prepare(self, create: bool) -> None:
        """Make the tables of a new catalog."""
        with self._sqlite_errors(writing=False):
            if self._check(self.write_connection, create):
                return
            write = self.write_connection.execute
            write("BEGIN IMMEDIATE")
            for statement in _DDL.split(";\n"):
                if statement.strip():
                    write(statement)
            store_id = uuid.uuid4().hex
            write("INSERT INTO log VALUES(1, ?, ?, 0, 0, 0, ?, 0, 0, x'')", (FORMAT, store_id, MOMENT_MIN))
            write("UPDATE log SET checksum = ?", (identity(self.write_connection),))
            write(f"PRAGMA application_id={APPLICATION_ID}")
            write("COMMIT")

    # -- transactions

    @contextlib.contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """One write transaction: `flock`, BEGIN IMMEDIATE, the body, COMMIT. An exception rolls everything back."""
        with self._thread_lock:
            self._refuse_writing()
            # flock in front of SQLite's own waiting, which is unfair between processes.
            if self._lock_file >= 0:
                fcntl.flock(self._lock_file, fcntl.LOCK_EX)
            try:
                connection = self.write_connection
                try:
                    connection.execute("BEGIN IMMEDIATE")
                    yield connection
                    connection.execute("COMMIT")
                    self._maybe_checkpoint()
                except BaseException as why:
                    # Not by a context manager of its own: an append is short.
                    said = self._said(why, writing=True)
                    if connection.in_transaction:
                        with contextlib.suppress(sqlite3.Error):
                            connection.execute("ROLLBACK")
                    if said is not None:
                        raise said from why
                    raise
            finally:
                if self._lock_file >= 0:
                    fcntl.flock(self._lock_file, fcntl.LOCK_UN)

    @contextlib.contextmanager
    def look(self) -> Iterator[sqlite3.Connection]:
        """For one statement, which is of one moment without a transaction around it."""
        self._refuse_unusable()
        with self._read_lock:
            if self._settled is not None and self._settled != self._unchanging():
                self._reconnect()
            # Not by a context manager of its own: a load looks three times.
            try:
                yield self._read_connection
            except BaseException as why:
                if (said := self._said(why, writing=False)) is not None:
                    raise said from why
                raise

    @contextlib.contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """One short read transaction: everything in it is of one moment."""
        with self.look() as connection:
            connection.execute("BEGIN")
            try:
                yield connection
            finally:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")

    def copy(self, to: sqlite3.Connection) -> None:
        """Copy the database into an empty one, as of one commit, on a connection of its own."""
        with self._sqlite_errors(writing=False), contextlib.closing(self._connect_read_only("mode=ro")) as own:
            own.backup(to)

    def _maybe_checkpoint(self) -> None:
        """Move the WAL into the database from time to time, under the lock, so that no writer waits for it by surprise.

        What was committed is safe in the WAL, so a checkpoint that fails is no failure of the commit before it.
        """
        self._commits += 1
        if self._commits % CHECKPOINT_EVERY == 0 and os.stat(f"{self.path}-wal").st_size > CHECKPOINT_BYTES:
            try:
                self.write_connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
            except sqlite3.Error as why:
                if "I/O" in str(why):
                    self._poison = str(why)

    def _reconnect(self) -> None:
        """Someone who can write changed a database that was read as one that does not change."""
        self._read_connection.close()
        self.write_connection = self._read_connection = self._connect()

    @contextlib.contextmanager
    def write_unhurried(self) -> Iterator[sqlite3.Connection]:
        """A write transaction whose COMMIT does not wait for the disk: for what can be made anew from what does.

        It is what SQLite says of `synchronous=NORMAL` in WAL mode: after a power cut it may be gone, whole, and the database is
        sound. The next commit that waits makes the whole of the log last, with this in it.
        """
        with self._thread_lock:
            self._refuse_writing()
            self.write_connection.execute("PRAGMA synchronous=NORMAL")
            try:
                with self.write() as connection:
                    yield connection
            finally:
                self.write_connection.execute("PRAGMA synchronous=FULL")

    @contextlib.contextmanager
    def _flock(self) -> Iterator[None]:
        if self._lock_file < 0:
            yield
            return
        # flock in front of SQLite's own waiting, which is unfair between processes.
        fcntl.flock(self._lock_file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._lock_file, fcntl.LOCK_UN)

    @contextlib.contextmanager
    def _sqlite_errors(self, *, writing: bool) -> Iterator[None]:
        try:
            yield
        except BaseException as why:
            if (said := self._said(why, writing=writing)) is not None:
                raise said from why
            raise

    def _said(self, why: BaseException, *, writing: bool) -> EventlabError | None:
        """What an exception from SQLite, or from what was read of it, says of the store; None for any other."""
        if isinstance(why, (EventlabError, sqlite3.ProgrammingError, sqlite3.InterfaceError)):
            return None
        if isinstance(why, UnicodeDecodeError):
            return self._damaged(str(why))
        if isinstance(why, (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)):
            # What does not fit may be the catalog's fault, or that of whoever looks at it.
            return None if (found := self._malformed()) is None else self._damaged(found)
        if not isinstance(why, sqlite3.DatabaseError):
            return None
        text = str(why)
        if "is full" in text:
            return disk_full(self.root)
        if "locked" in text or "busy" in text:
            return Busy(f"the catalog of {self.root} was locked for {BUSY_SECONDS} s", hint="try again")
        if "I/O" in text and writing:
            self._poison = text
            return self._poisoned()
        if "I/O" in text or "unable to open" in text:
            return StoreError(
                f"the catalog of {self.root} cannot be read: {text}", hint="see to the disk, and to the limit of open files"
            )
        if "readonly" in text and not os.access(self.path, os.W_OK):
            return ReadOnly(f"{self.path} cannot be written", hint="open the store with read_only=True")
        # All else says that the catalog holds what was never written to it: a torn page, another type, a row twice.
        return self._damaged(text)

    def _damaged(self, why: str) -> Damaged:
        return Damaged(f"the catalog of {self.root} is damaged: {why}", hint=SEE_VERIFY, path=str(self.root))

    def _malformed(self) -> str | None:
        """What SQLite finds wrong with the catalog, if anything."""
        connection = self.__dict__.get("write_connection")
        if connection is None:  # it is being opened: nothing has been read from it yet
            return None
        try:
            found = str(connection.execute("PRAGMA quick_check(1)").fetchone()[0])
        except (sqlite3.DatabaseError, UnicodeDecodeError) as why:
            return str(why)
        return None if found == "ok" else found

    def _refuse_writing(self) -> None:
        self._refuse_unusable()
        if self._poison is not None:
            raise self._poisoned()
        if self.read_only:
            raise ReadOnly(
                f"the store in {self.root} is open for reading only", hint="open it without read_only, on a writable disk"
            )

    def _poisoned(self) -> Poisoned:
        return Poisoned(
            f"a write to {self.root} failed half way ({self._poison}); whether it is on the disk is not known",
            hint="open the store again: what was acknowledged is safe",
        )

    def _refuse_unusable(self) -> None:
        if os.getpid() != self._pid:
            raise forked(self.root)
        if "write_connection" not in self.__dict__:
            raise StoreError(f"the store in {self.root} was closed", hint="open it again")

    # -- closing

    def close(self) -> None:
        """Close the connections under the lock; the last one out leaves no WAL behind."""
        if os.getpid() != self._pid:
            return
        with self._flock():
            for name in ("_read_connection", "write_connection"):
                connection = self.__dict__.pop(name, None)
                if connection is not None:
                    with contextlib.suppress(sqlite3.Error):
                        connection.close()
        if self._lock_file >= 0:
            os.close(self._lock_file)
            self._lock_file = -1


#: The id of a store and the definitions of its tables, as they belong together.
IDENTITY: Final = """SELECT store_id, (SELECT group_concat(name || ' ' || sql, '; ') FROM
  (SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY name)) FROM log"""


def _application_id(connection: sqlite3.Connection) -> int | None:
    """Whose database it says it is, which its first page tells also where its tables cannot be read."""
    try:
        return int(connection.execute("PRAGMA application_id").fetchone()[0])
    except sqlite3.DatabaseError:
        return None


def identity(connection: sqlite3.Connection) -> bytes:
    """The checksum of what never changes in a catalog."""
    return checksum(*connection.execute(IDENTITY).fetchone())


def unread_commits(root: Path) -> Unread | None:
    """Commits in the write-ahead log that SQLite will not read when it opens the catalog of a store; `Damaged` if it should.

    It would go on without them, and whoever closes the store would delete them.
    """
    log = root / "catalog.sqlite-wal"
    if in_use(log):
        return None
    found = unread(log)
    # Looked at twice: somebody may have opened it in between, and be writing.
    if found is None or not found.proven or in_use(log) or unread(log) != found:
        return found if found is not None and not found.proven else None
    mend = ""
    if found.word is not None:
        at, word = found.word
        mend = f"; or put the bytes {word.hex(' ')} back at offset {at} of {log.name}, in a copy of the folder"
    raise Damaged(
        f"{log} changed since it was written: {found.commits} commits from frame {found.frame} on would not be read",
        hint=f"leave the folder as it is, for its next user would lose them; restore a backup{mend}",
        path=str(log),
        commits=found.commits,
    )


def newer_format(root: Path, found: int) -> NewerFormat:
    """The error for a store that a newer eventlab wrote."""
    return NewerFormat(
        f"the store in {root} has format {found}, and this eventlab reads format {FORMAT}",
        hint="install a newer eventlab: pip install --upgrade eventlab",
        format=found,
    )


def forked(root: Path) -> StoreError:
    """The error for a store that came into this process through a fork.

    It cannot be opened again here either: SQLite counts locks per process, and this one inherited counts without the locks.
    """
    return StoreError(
        f"the store in {root} was open when this process was forked from another",
        hint="start workers with multiprocessing's 'spawn', or fork before the store is opened",
        path=str(root),
    )


class Names:
    """The numbers that stand for tenants and categories in the catalog and in file names."""

    def __init__(self, table: str) -> None:
        self._table = table
        self._ids: dict[str, int] = {}
        self._names: dict[int, str] = {}

    def load(self, connection: sqlite3.Connection) -> None:
        """Read what other processes added."""
        rows: list[tuple[int, str]] = connection.execute(f"SELECT id, name FROM {self._table}").fetchall()
        self._ids = {name: number for number, name in rows}
        self._names = dict(rows)

    def get(self, connection: sqlite3.Connection, name: str) -> int | None:
        """The number of a name, or None when the store has not seen it."""
        if name not in self._ids:
            self.load(connection)
        return self._ids.get(name)

    def ensure(self, connection: sqlite3.Connection, name: str) -> int:
        """The number of a name, given to it in this write transaction if it has none."""
        row: Any = connection.execute(f"SELECT id FROM {self._table} WHERE name = ?", (name,)).fetchone()
        if row is not None:
            return int(row[0])
        return int(connection.execute(f"INSERT INTO {self._table}(name) VALUES(?) RETURNING id", (name,)).fetchone()[0])

    def name(self, connection: sqlite3.Connection, number: int) -> str:
        """The name of a number."""
        if number not in self._names:
            self.load(connection)
        if number not in self._names:
            raise Damaged(f"the catalog knows no {self._table} with the number {number}", hint=SEE_VERIFY)
        return self._names[number]
