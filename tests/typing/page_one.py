"""An order, as the first page of the documentation has it: what both type checkers accept as it stands.

Run with the folder of a store: it places an order, reads it back in every way, and prints what it read.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple, Self, assert_type

import eventlab as el


@el.event
class ItemAdded:
    """A customer put a product in the order."""

    sku: str
    quantity: int
    unit_price: el.Money


@el.event(name="OrderPlaced", version=1)
class OrderPlaced:
    """The customer committed to buy."""

    customer: el.Tag[str]


@el.command
class AddItem:
    sku: str
    quantity: int
    unit_price: el.Money


@el.command
class PlaceOrder:
    customer: str


OrderEvent = ItemAdded | OrderPlaced


@el.aggregate
class Order:
    status: str = "draft"
    total: el.Money = el.money(0)

    def decide(self, command: AddItem | PlaceOrder) -> Iterator[OrderEvent]:
        match command:
            case AddItem(sku=sku, quantity=n, unit_price=p):
                if self.status != "draft":
                    raise el.Rejected(f"the order is already {self.status}")
                yield ItemAdded(sku, n, p)
            case PlaceOrder(customer=c):
                yield OrderPlaced(c)

    def evolve(self, event: OrderEvent) -> Self:
        match event:
            case ItemAdded(quantity=n, unit_price=p):
                return replace(self, total=self.total + n * p)
            case OrderPlaced():
                return replace(self, status="placed")
        return self


class Day(NamedTuple):
    year: int
    sku: str


@el.projection(name="sku_by_year")
class SkuYear:
    """What was sold of each product in each year."""

    quantity: int = 0
    revenue: el.Money = el.money(0)

    @staticmethod
    def key(event: ItemAdded, meta: el.Meta) -> Day | None:
        return Day(meta.occurred_at.year, event.sku)

    def evolve(self, event: ItemAdded, meta: el.Meta) -> Self:
        return replace(self, quantity=self.quantity + event.quantity, revenue=self.revenue + event.quantity * event.unit_price)


def shop(folder: str) -> None:
    with el.open(folder) as lab:
        with lab.context(actor="ada"):
            done = lab.handle(Order, "7", AddItem("hat", 2, el.money("9.50")))
        assert_type(done.state, Order)
        print(done.state)
        before = lab.at(position=done.positions[-1])
        lab.handle(Order, "7", PlaceOrder("c9"))
        order = lab.load(Order, "7")
        assert_type(order, Order)
        print(order)
        print(lab.table(Order).select("_id", "status", "total").rows())
        print(before.table(Order).select("_id", "status", "total").rows())
        print(lab.sql("select status, sum(total) from state.order group by 1").rows())
        print(lab.table(SkuYear).select("sku", "quantity", "revenue").rows())
        for recorded in lab.read(el.events(OrderPlaced) & el.tag(customer="c9")):
            print(recorded.position, recorded.stream, recorded.version, recorded.data)


if __name__ == "__main__":
    shop(sys.argv[1])
