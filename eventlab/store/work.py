"""Who works on what: leases that end by themselves, and how far each consumer has read.

A lease says which process does a piece of work now. It lasts for seconds and is renewed; one whose process has died, on this
machine, can be taken at once. It keeps two from doing the same work, and is no more than that: what makes an effect happen
once is that it moves together with a checkpoint, and that a checkpoint moves only for whoever holds the lease.
"""

from __future__ import annotations

import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol

from eventlab.store.base import checksum, pack, unpack
from eventlab.store.catalog import Catalog
from eventlab.store.read_models import Parked

_HOST: Final = socket.gethostname()


@dataclass(frozen=True)
class Lease:
    """A piece of work, the process that does it, until when it is its own, and what that process says of it."""

    name: str
    owner: str
    until: float
    said: str = ""

    @property
    def held(self) -> bool:
        """Whether it is still good: not over, and its process not known to be dead."""
        return self.until > time.time() and not _dead(self.owner)


@dataclass(frozen=True)
class Checkpoint:
    """How far a consumer has read, for one of its parts of the streams, and what it could not do."""

    part: int
    parts: int
    position: int
    parked: tuple[Parked, ...] = ()


class Work(Protocol):
    """Leases and checkpoints of a store."""

    def take(self, names: Collection[str], owner: str, seconds: float, said: Mapping[str, str] | None = None) -> set[str]:
        """Take or renew leases, those that are free or one's own; the names that are held now."""
        ...

    def leave(self, names: Collection[str], owner: str) -> None:
        """Give leases back."""
        ...

    def leases(self, prefix: str = "") -> list[Lease]:
        """The leases whose names begin so, also those that are over."""
        ...

    def checkpoints(self, tenant: str, name: str, parts: int = 0, position: int = 0) -> list[Checkpoint]:
        """How far a consumer has read; with `parts`, of a new one that begins after `position`."""
        ...

    def consumers(self, tenant: str) -> list[str]:
        """The names under which checkpoints are kept."""
        ...

    def advance(self, tenant: str, name: str, moved: Sequence[Checkpoint], leases: Mapping[int, str], owner: str) -> set[int]:
        """Move checkpoints forward, of those parts whose lease is the owner's; which they were."""
        ...

    def forget(self, tenant: str, name: str) -> None:
        """Forget how far a consumer has read."""
        ...


def new_owner() -> str:
    """A name for one worker of this process, that tells others where it lives."""
    return f"{_HOST}/{os.getpid()}/{_started(os.getpid())}/{secrets.token_hex(4)}"


def _started(pid: int) -> str:
    """When a process started, in ticks since boot: a number that the next process of the same id does not have."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[19].decode()
    except (OSError, IndexError):
        return ""


def _dead(owner: str) -> bool:
    host, pid, started, *_ = [*owner.split("/"), "", "", ""]
    if host != _HOST or not pid.isdigit():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return bool(started) and _started(int(pid)) not in ("", started)


class MemoryWork:
    """Leases and checkpoints of a lab in memory."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._leases: dict[str, Lease] = {}
        self._checkpoints: dict[tuple[str, str], list[Checkpoint]] = {}

    def take(self, names: Collection[str], owner: str, seconds: float, said: Mapping[str, str] | None = None) -> set[str]:
        """See `Work`."""
        with self._lock:
            held = {n for n in names if n not in self._leases or self._leases[n].owner == owner or not self._leases[n].held}
            for name in held:
                self._leases[name] = Lease(name, owner, time.time() + seconds, (said or {}).get(name, ""))
            return held

    def leave(self, names: Collection[str], owner: str) -> None:
        """See `Work`."""
        with self._lock:
            for name in names:
                if name in self._leases and self._leases[name].owner == owner:
                    del self._leases[name]

    def leases(self, prefix: str = "") -> list[Lease]:
        """See `Work`."""
        with self._lock:
            return [lease for name, lease in sorted(self._leases.items()) if name.startswith(prefix)]

    def checkpoints(self, tenant: str, name: str, parts: int = 0, position: int = 0) -> list[Checkpoint]:
        """See `Work`."""
        with self._lock:
            if parts and (tenant, name) not in self._checkpoints:
                self._checkpoints[tenant, name] = [Checkpoint(part, parts, position) for part in range(parts)]
            return list(self._checkpoints.get((tenant, name), ()))

    def consumers(self, tenant: str) -> list[str]:
        """See `Work`."""
        with self._lock:
            return sorted(name for of, name in self._checkpoints if of == tenant)

    def advance(self, tenant: str, name: str, moved: Sequence[Checkpoint], leases: Mapping[int, str], owner: str) -> set[int]:
        """See `Work`."""
        with self._lock:
            known = self._checkpoints.get((tenant, name), [])
            mine = {m.part for m in moved if (of := self._leases.get(leases[m.part])) is not None and of.owner == owner}
            for to in moved:
                if to.part in mine and to.part < len(known):
                    known[to.part] = replace(to, position=max(to.position, known[to.part].position))
            return mine

    def forget(self, tenant: str, name: str) -> None:
        """See `Work`."""
        with self._lock:
            self._checkpoints.pop((tenant, name), None)


class DiskWork:
    """Leases and checkpoints in the catalog of a store."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    def take(self, names: Collection[str], owner: str, seconds: float, said: Mapping[str, str] | None = None) -> set[str]:
        """See `Work`."""
        with self._catalog.write() as connection:
            now = time.time()
            rows = connection.execute("SELECT name, owner, until FROM lease").fetchall()
            found = {name: Lease(name, of, until / 1e6) for name, of, until in rows}
            held = {n for n in names if n not in found or found[n].owner == owner or not found[n].held}
            connection.executemany(
                "INSERT OR REPLACE INTO lease VALUES(?, ?, ?, ?)",
                [(name, owner, int((now + seconds) * 1e6), (said or {}).get(name, "")) for name in sorted(held)],
            )
            return held

    def leave(self, names: Collection[str], owner: str) -> None:
        """See `Work`."""
        with self._catalog.write() as connection:
            connection.executemany("DELETE FROM lease WHERE name = ? AND owner = ?", [(name, owner) for name in names])

    def leases(self, prefix: str = "") -> list[Lease]:
        """See `Work`."""
        with self._catalog.look() as connection:
            rows = connection.execute("SELECT name, owner, until, said FROM lease ORDER BY name").fetchall()
        return [Lease(name, owner, until / 1e6, said) for name, owner, until, said in rows if name.startswith(prefix)]

    def checkpoints(self, tenant: str, name: str, parts: int = 0, position: int = 0) -> list[Checkpoint]:
        """See `Work`."""
        query = "SELECT part, parts, position, parked, checksum FROM checkpoint WHERE tenant = ? AND name = ? ORDER BY part"
        with self._catalog.look() as connection:
            rows = connection.execute(query, (tenant, name)).fetchall()
        if not rows and parts:
            with self._catalog.write() as connection:
                for part in range(parts):
                    row = (tenant, name, part, parts, position, pack([]))
                    connection.execute("INSERT OR IGNORE INTO checkpoint VALUES(?, ?, ?, ?, ?, ?, ?)", (*row, checksum(*row)))
                rows = connection.execute(query, (tenant, name)).fetchall()
        return [Checkpoint(row[0], row[1], row[2], _parked(row[3])) for row in rows]

    def consumers(self, tenant: str) -> list[str]:
        """See `Work`."""
        with self._catalog.look() as connection:
            rows = connection.execute("SELECT DISTINCT name FROM checkpoint WHERE tenant = ? ORDER BY name", (tenant,))
            return [name for (name,) in rows]

    def advance(self, tenant: str, name: str, moved: Sequence[Checkpoint], leases: Mapping[int, str], owner: str) -> set[int]:
        """See `Work`."""
        with self._catalog.write() as connection:
            own = {lease for (lease,) in connection.execute("SELECT name FROM lease WHERE owner = ?", (owner,))}
            mine = {to.part for to in moved if leases[to.part] in own}
            for to in moved:
                if to.part in mine:
                    row = (tenant, name, to.part, to.parts, to.position, pack([_values(parked) for parked in to.parked]))
                    connection.execute(
                        "UPDATE checkpoint SET position = ?, parked = ?, checksum = ? "
                        "WHERE tenant = ? AND name = ? AND part = ? AND position <= ?",
                        (to.position, row[5], checksum(*row), tenant, name, to.part, to.position),
                    )
            return mine

    def forget(self, tenant: str, name: str) -> None:
        """See `Work`."""
        with self._catalog.write() as connection:
            connection.execute("DELETE FROM checkpoint WHERE tenant = ? AND name = ?", (tenant, name))


def _values(of: Parked) -> list[object]:
    return [of.key, of.position, of.stream, of.version, of.type, of.error, of.waiting]


def _parked(blob: bytes) -> tuple[Parked, ...]:
    return tuple(Parked(None if key is None else tuple(key), *rest) for key, *rest in unpack(blob))


class Bell:
    """Rings when the log has grown; whoever waits looks for itself as well, for others may write from another process."""

    #: Seconds between two looks at a log that another process may write to.
    LOOK_EVERY: Final = 0.03

    def __init__(self) -> None:
        self._condition = threading.Condition()

    def ring(self) -> None:
        """Wake everyone who waits."""
        with self._condition:
            self._condition.notify_all()

    def wait(self, head: Callable[[], int], after: int, seconds: float, *, alone: bool = False) -> int:
        """The head, as soon as it is after a position or the time is over; `alone` where nobody else can write."""
        until = time.monotonic() + seconds
        while True:
            with self._condition:
                found = head()
                left = until - time.monotonic()
                if found > after or left <= 0:
                    return found
                self._condition.wait(left if alone else min(left, self.LOOK_EVERY))
