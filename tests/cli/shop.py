"""A small model for the command line's tests, importable by name."""

from __future__ import annotations

from dataclasses import replace
from typing import Self

import eventlab as el


@el.event
class ItemAdded:
    """A customer put a product in the order."""

    sku: str
    quantity: int
    unit_price: el.Money


@el.event
class OrderPlaced:
    """The customer committed to buy."""

    customer: el.Tag[str]


@el.aggregate
class Order:
    status: str = "draft"
    total: el.Money = el.money(0)

    def evolve(self, event: ItemAdded | OrderPlaced) -> Self:
        match event:
            case ItemAdded(quantity=n, unit_price=p):
                return replace(self, total=self.total + n * p)
            case OrderPlaced():
                return replace(self, status="placed")
        return self
