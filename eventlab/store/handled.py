"""What is kept of commands: where the events of those went that were handled under an id, and why others were rejected.

The first is written with the events, in one transaction, so a command that is given twice has one effect. The second is for
people and metrics: the last of them are kept, and nothing depends on them.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol

from eventlab.errors import Damaged, HandledBefore
from eventlab.store.base import Row, checksum
from eventlab.store.catalog import SEE_VERIFY, Catalog, Names

#: So many rejections are kept.
REJECTIONS: Final = 10_000


@dataclass(frozen=True)
class Done:
    """A command that was handled under an id: what it was, and the run of positions of its events.

    As it is given to an append, `first` counts from 0 among the events of that append. `version` is that of the stream then.
    Of one that led to no event, `first` is the position up to which it was decided.
    """

    id: str
    name: str
    stream: str
    digest: bytes
    at: int
    first: int = 0
    count: int = 0
    version: int = 0


@dataclass(frozen=True)
class Rejection:
    """A command that a model said no to: when (microseconds since 1970), what it was, who asked, and the reason."""

    at: int
    id: str | None
    name: str
    stream: str
    said: str
    reason: str
    actor: str | None


class Commands(Protocol):
    """What a store keeps of commands."""

    def find(self, tenant: str, id: str) -> Done | None:
        """What was handled under an id."""
        ...

    def all(self, tenant: str) -> list[Done]:
        """What was handled under ids, in the order of its events."""
        ...

    def put(self, tenant: str, done: Done) -> None:
        """A command that led to no event was handled; `HandledBefore` where the id is taken."""
        ...

    def reject(self, tenant: str, rejection: Rejection) -> None:
        """A command was rejected."""
        ...

    def rejections(self, tenant: str, limit: int) -> list[Rejection]:
        """The last rejections, the newest first."""
        ...


def placed(done: Done, rows: Sequence[Row]) -> Done:
    """A command with the positions that its events were given by an append."""
    if not rows:
        return done
    if not done.count:
        return replace(done, first=rows[0].position + done.first - 1)
    mine = rows[done.first : done.first + done.count]
    return replace(done, first=mine[0].position, version=mine[-1].version)


def refuse_handled(found: Sequence[str]) -> None:
    """`HandledBefore`, where some of the commands of an append were."""
    if found:
        raise HandledBefore(f"the command {found[0]!r} was handled before", hint="its result is kept", ids=tuple(found))


class MemoryCommands:
    """Commands of a lab in memory."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._done: dict[tuple[str, str], Done] = {}
        self._rejections: list[tuple[str, Rejection]] = []

    def find(self, tenant: str, id: str) -> Done | None:
        """See `Commands`."""
        return self._done.get((tenant, id))

    def all(self, tenant: str) -> list[Done]:
        """See `Commands`."""
        with self._lock:
            return sorted((done for (of, _), done in self._done.items() if of == tenant), key=lambda done: (done.first, done.id))

    def put(self, tenant: str, done: Done) -> None:
        """See `Commands`."""
        with self._lock:
            self.check(tenant, [done])
            self._done[tenant, done.id] = done

    def reject(self, tenant: str, rejection: Rejection) -> None:
        """See `Commands`."""
        with self._lock:
            self._rejections = [*self._rejections[1 - REJECTIONS :], (tenant, rejection)]

    def rejections(self, tenant: str, limit: int) -> list[Rejection]:
        """See `Commands`."""
        return [of for place, of in reversed(self._rejections) if place == tenant][:limit]

    def check(self, tenant: str, commands: Sequence[Done]) -> None:
        """Before an append: none of them was handled."""
        refuse_handled([of.id for of in commands if (tenant, of.id) in self._done])

    def keep(self, tenant: str, commands: Sequence[Done], rows: Sequence[Row]) -> None:
        """With an append."""
        self._done.update({(tenant, of.id): placed(of, rows) for of in commands})


_COLUMNS: Final = "id, name, stream, digest, at, first, count, version"


class DiskCommands:
    """Commands in the catalog of a store."""

    def __init__(self, catalog: Catalog, tenants: Names) -> None:
        self._catalog, self._tenants = catalog, tenants

    def find(self, tenant: str, id: str) -> Done | None:
        """See `Commands`. `Damaged` where the row is not what was written: nobody should handle the command again."""
        with self._catalog.read() as connection:
            number = self._tenants.get(connection, tenant)
            query = f"SELECT {_COLUMNS}, checksum FROM handled WHERE tenant = ? AND id = ?"
            row = connection.execute(query, (number, id)).fetchone()
        if row is None:
            return None
        if checksum(number, *row[:-1]) != row[-1]:
            raise Damaged(f"what the catalog says of the command {id!r} is not what was written", hint=SEE_VERIFY)
        return Done(*row[:-1])

    def all(self, tenant: str) -> list[Done]:
        """See `Commands`."""
        with self._catalog.read() as connection:
            query = f"SELECT {_COLUMNS} FROM handled WHERE tenant = ? ORDER BY first, id"
            return [Done(*row) for row in connection.execute(query, (self._tenants.get(connection, tenant),))]

    def put(self, tenant: str, done: Done) -> None:
        """See `Commands`."""
        with self._catalog.write() as connection:
            number = self._tenants.ensure(connection, tenant)
            self.check(connection, number, [done])
            self.keep(connection, number, [done], ())

    def reject(self, tenant: str, rejection: Rejection) -> None:
        """See `Commands`."""
        of = rejection
        with self._catalog.write() as connection:
            last = connection.execute(
                "INSERT INTO rejection(tenant, at, command, name, stream, said, reason, actor) VALUES(?, ?, ?, ?, ?, ?, ?, ?)",
                (self._tenants.ensure(connection, tenant), of.at, of.id, of.name, of.stream, of.said, of.reason, of.actor),
            ).lastrowid
            connection.execute("DELETE FROM rejection WHERE id <= ?", ((last or 0) - REJECTIONS,))

    def rejections(self, tenant: str, limit: int) -> list[Rejection]:
        """See `Commands`."""
        query = "SELECT at, command, name, stream, said, reason, actor FROM rejection WHERE tenant = ? ORDER BY id DESC LIMIT ?"
        with self._catalog.read() as connection:
            rows = connection.execute(query, (self._tenants.get(connection, tenant), limit)).fetchall()
        return [Rejection(*row) for row in rows]

    def check(self, connection: sqlite3.Connection, tenant: int, commands: Sequence[Done]) -> None:
        """In the transaction of an append: none of them was handled."""
        look = "SELECT 1 FROM handled WHERE tenant = ? AND id = ?"
        refuse_handled([of.id for of in commands if connection.execute(look, (tenant, of.id)).fetchone() is not None])

    def keep(self, connection: sqlite3.Connection, tenant: int, commands: Sequence[Done], rows: Sequence[Row]) -> None:
        """In the transaction of an append."""
        for given in commands:
            of = placed(given, rows)
            row = (tenant, of.id, of.name, of.stream, of.digest, of.at, of.first, of.count, of.version)
            connection.execute(
                f"INSERT INTO handled(tenant, {_COLUMNS}, checksum) VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", (*row, checksum(*row))
            )
