"""The same orders with the `eventsourcing` library, on a SQLite file."""

from __future__ import annotations

import uuid
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

from eventsourcing.application import Application
from eventsourcing.domain import Aggregate
from generate import Log

PEER: Final = "eventsourcing"


class PeerOrder(Aggregate):
    """The same order, with event classes that apply themselves: its fastest style, an eighth or more above its decorators."""

    class OrderOpened(Aggregate.Created):
        customer: str

    class ItemAdded(Aggregate.Event):
        sku: str
        quantity: int
        unit_price: Decimal

        def apply(self, aggregate: Any) -> None:
            aggregate.total += self.quantity * self.unit_price
            aggregate.lines += 1

    class OrderPlaced(Aggregate.Event):
        channel: str

        def apply(self, aggregate: Any) -> None:
            aggregate.status = "placed"

    class OrderShipped(Aggregate.Event):
        carrier: str

        def apply(self, aggregate: Any) -> None:
            aggregate.status = "shipped"

    class OrderCancelled(Aggregate.Event):
        reason: str

        def apply(self, aggregate: Any) -> None:
            aggregate.status = "cancelled"

    def __init__(self, customer: str) -> None:
        self.status, self.total, self.lines = "draft", Decimal("0.00"), 0

    @classmethod
    def open(cls, customer: str) -> PeerOrder:
        return cls._create(cls.OrderOpened, customer=customer)


class Peer:
    """An application of that library over a SQLite file, with the events of a log in it."""

    def __init__(self, path: Path, log: Log | None = None, *, snapshots: bool = False) -> None:
        more = {"IS_SNAPSHOTTING_ENABLED": "yes"} if snapshots else {}
        self.app: Application[uuid.UUID] = Application(
            env={"PERSISTENCE_MODULE": "eventsourcing.sqlite", "SQLITE_DBNAME": str(path), **more}
        )
        self.orders: dict[str, PeerOrder] = {}
        pending: list[Any] = []
        for order, happened in log.objects if log is not None else ():
            kind, values = type(happened).__name__, vars(happened)
            if kind == "OrderOpened":
                self.orders[order] = PeerOrder.open(**values)
            else:
                self.orders[order].trigger_event(getattr(PeerOrder, kind), **values)
            pending += self.orders[order].collect_events()
        self.app.events.put(pending)

    def rebuild(self) -> dict[uuid.UUID, PeerOrder]:
        """Every order from the stored events, in their order: its fastest way, with its own recorder, mapper and mutate."""
        found: dict[uuid.UUID, Any] = {}
        start: int | None = 1
        while start is not None:
            notifications = self.app.recorder.select_notifications(start, 5_000)
            for notification in notifications:
                happened: Any = self.app.mapper.to_domain_event(notification)
                found[notification.originator_id] = happened.mutate(found.get(notification.originator_id))
            start = notifications[-1].id + 1 if notifications else None
        return found

    def states(self, rebuilt: dict[uuid.UUID, PeerOrder]) -> list[tuple[str, str, Decimal, int]]:
        return sorted((name, *state(rebuilt[order.id])) for name, order in self.orders.items())

    def get(self, order: str) -> PeerOrder:
        return self.app.repository.get(self.orders[order].id)

    def grown(self, name: str, added: list[Any]) -> None:
        """An order with so many lines, and a snapshot of it where there are any."""
        order = self.orders[name] = PeerOrder.open("c1")
        for begin in range(0, max(len(added), 1), 10_000):
            for one in added[begin : begin + 10_000]:
                order.trigger_event(PeerOrder.ItemAdded, **vars(one))
            self.app.save(order)
        if self.app.snapshots is not None:
            self.app.take_snapshot(order.id)

    def handle(self, name: str, one: Any) -> None:
        """One more line: load, decide and save."""
        order = self.get(name)
        order.trigger_event(PeerOrder.ItemAdded, **vars(one))
        self.app.save(order)

    def count(self) -> int:
        return int(self.app.recorder.max_notification_id() or 0)


def state(order: Any) -> tuple[str, Decimal, int]:
    return order.status, order.total, order.lines
