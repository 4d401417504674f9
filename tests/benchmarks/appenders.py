"""Stores that events are appended to: ours, a SQLite table, and where they are installed `eventsourcing` and UmaDB.

Each takes some `ItemAdded` of one stream at a time and has them on the disk when it returns; `answer` is what it was given.
"""

from __future__ import annotations

import json
from collections import defaultdict
from decimal import Decimal
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, Protocol

from by_hand import RawSqlite
from generate import ItemAdded

import eventlab as el

#: How many events there are, and what they are worth together.
Answer = tuple[int, Decimal]


class Appender(Protocol):
    """One store in a folder of its own, open."""

    def append(self, stream: str, added: list[ItemAdded]) -> None: ...
    def answer(self) -> Answer: ...
    def close(self) -> None: ...


class Ours:
    """A lab without its maintenance thread."""

    def __init__(self, folder: Path) -> None:
        self._lab = el.open(folder / "store", maintain=False)

    def append(self, stream: str, added: list[ItemAdded]) -> None:
        self._lab.append(stream, added)

    def answer(self) -> Answer:
        found: Answer = self._lab.sql('SELECT count(*), sum(quantity * unit_price) FROM events."order"').row(0)
        return found

    def close(self) -> None:
        self._lab.close()


class Raw:
    """One table in a SQLite file."""

    def __init__(self, folder: Path) -> None:
        self._table = RawSqlite(folder / "raw.sqlite")
        self._next: dict[str, int] = defaultdict(lambda: 1)

    def append(self, stream: str, added: list[ItemAdded]) -> None:
        self._table.insert(stream, self._next[stream], *added)
        self._next[stream] += len(added)

    def answer(self) -> Answer:
        found = [json.loads(said) for (said,) in self._table.connection.execute("SELECT payload FROM event")]
        return worth([(quantity, Decimal(price)) for _, quantity, price in found])

    def close(self) -> None:
        self._table.connection.close()


class Saved:
    """Aggregates of the `eventsourcing` library, which are kept in memory and saved after each call."""

    def __init__(self, folder: Path) -> None:
        from library import Peer, PeerOrder

        self._peer, self._kind = Peer(folder / "library.sqlite"), PeerOrder
        self._orders: dict[str, Any] = {}

    def append(self, stream: str, added: list[ItemAdded]) -> None:
        order = self._orders.get(stream)
        if order is None:
            order = self._orders[stream] = self._kind.open("c1")
        for one in added:
            order.trigger_event(self._kind.ItemAdded, **vars(one))
        self._peer.app.save(order)

    def answer(self) -> Answer:
        found = self._peer.rebuild().values()
        return sum(order.lines for order in found), sum((order.total for order in found), Decimal(0))

    def close(self) -> None:
        self._peer.app.close()


class Served:
    """UmaDB and one client of it."""

    def __init__(self, folder: Path) -> None:
        from server import Server

        self._server = Server(folder / "served")

    def append(self, stream: str, added: list[ItemAdded]) -> None:
        self._server.append(stream, [(one.sku, one.quantity, one.unit_price) for one in added], "ItemAdded")

    def answer(self) -> Answer:
        return worth([(quantity, Decimal(price)) for _, quantity, price in self._server.payloads()])

    def close(self) -> None:
        self._server.close()


def worth(found: list[tuple[int, Decimal]]) -> Answer:
    return len(found), sum((quantity * price for quantity, price in found), Decimal(0))


def line(number: int) -> ItemAdded:
    """A line of an order, unlike the one before it."""
    return ItemAdded(f"sku-{number % 5_000}", 1 + number % 5, el.money(f"{1 + number % 200}.50"))


def lines(size: int) -> list[ItemAdded]:
    return [line(number) for number in range(size)]


#: By the name that a row has, with the distribution that it needs.
OURS: Final = "eventlab"
RAW: Final = "SQLite, WAL, FULL"
LIBRARY: Final = "eventsourcing, save"
SERVED: Final = "UmaDB, append"
APPENDERS: Final[dict[str, type[Any]]] = {OURS: Ours, RAW: Raw, LIBRARY: Saved, SERVED: Served}
_NEEDS: Final = {LIBRARY: "eventsourcing", SERVED: "umadb"}


def absent(name: str) -> bool:
    """Whether what an appender needs is not installed."""
    return name in _NEEDS and find_spec(_NEEDS[name]) is None
