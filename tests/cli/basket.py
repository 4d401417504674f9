"""A model that does not lift, for the command line's tests, importable by name."""

from __future__ import annotations

from dataclasses import replace
from typing import Self

import eventlab as el


@el.event
class BasketFilled:
    """A customer put pieces of one product in the basket."""

    sku: str
    quantity: int


@el.aggregate
class Basket:
    """It is folded row by row: a loop that changes what it holds is no expression."""

    skus: tuple[str, ...] = ()

    def evolve(self, event: BasketFilled) -> Self:
        skus = list(self.skus)
        for _ in range(event.quantity):
            skus += [event.sku]
        return replace(self, skus=tuple(skus))
