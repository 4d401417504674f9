"""Orders of a small shop: what a customer may do with one, and what the shop wants to know of all of them.

Read top to bottom: events, commands, the aggregate with its rules, two read models, a question, and the mistake of the first
version. `tests/domains/test_ordering.py` shows the four kinds of test: aggregate, integration, scenario, replay.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Annotated, Any, Literal, Self

import polars as pl
from annotated_types import Ge

import eventlab as el

# -- events: what can happen to an order -----------------------------------------------------------------------------------


@el.event(version=2)
class ProductAdded:
    """The customer put a product in the order."""

    sku: str
    quantity: int
    unit_price: el.Money
    currency: str


@el.upcast(ProductAdded, from_version=1)
def with_currency(old: Any) -> Mapping[str, Any]:
    """In the first year everything was in euros, and nobody wrote it down."""
    return {**old, "currency": "EUR"}


@el.event
class ProductDropped:
    """The customer took a product out again."""

    sku: str


@el.event
class OrderSubmitted:
    """The customer committed to buy."""

    customer: el.Tag[str]


@el.event
class OrderPaid:
    """The money arrived."""

    amount: el.Money


@el.event
class OrderDispatched:
    """The parcel left the house."""

    carrier: str


@el.event
class OrderWithdrawn:
    """The customer changed their mind before the parcel left."""

    reason: str


OrderEvent = ProductAdded | ProductDropped | OrderSubmitted | OrderPaid | OrderDispatched | OrderWithdrawn

# -- commands: what one may ask of it --------------------------------------------------------------------------------------


@el.command
class AddProduct:
    """Put a product in the order."""

    sku: str
    quantity: Annotated[int, Ge(1)]
    unit_price: el.Money
    currency: str = "EUR"


@el.command
class DropProduct:
    """Take a product out again."""

    sku: str


@el.command
class SubmitOrder:
    """Commit to buy what is in it."""

    customer: str


@el.command
class PayOrder:
    """Pay what is due."""

    amount: el.Money


@el.command
class DispatchOrder:
    """Send the parcel."""

    carrier: str


@el.command
class WithdrawOrder:
    """Call it off, before the parcel has left."""

    reason: str


OrderCommand = AddProduct | DropProduct | SubmitOrder | PayOrder | DispatchOrder | WithdrawOrder

# -- the aggregate: one order, and its rules -------------------------------------------------------------------------------


@el.aggregate
class Order:
    """One order: stream `order-<number>`."""

    status: Literal["draft", "submitted", "paid", "dispatched", "withdrawn"] = "draft"
    customer: str | None = None
    #: What is in it, by product.
    lines: dict[str, int] = el.field(default_factory=dict)
    amounts: dict[str, el.Money] = el.field(default_factory=dict)
    total: el.Money = el.money(0)
    currency: str | None = None

    def decide(self, command: OrderCommand) -> Iterator[OrderEvent]:
        match command:
            case AddProduct(sku=sku, quantity=quantity, unit_price=price, currency=currency):
                self._only("draft", "take another product")
                if sku in self.lines:
                    raise el.Rejected(f"{sku} is in the order already: drop it first")
                if self.currency not in (None, currency):
                    raise el.Rejected(f"the order is in {self.currency}, and {sku} costs {currency}")
                yield ProductAdded(sku, quantity, price, currency)
            case DropProduct(sku=sku):
                self._only("draft", "lose a product")
                if sku not in self.lines:
                    raise el.Rejected(f"there is no {sku} in the order")
                yield ProductDropped(sku)
            case SubmitOrder(customer=customer):
                self._only("draft", "be submitted")
                if not self.lines:
                    raise el.Rejected("an empty order cannot be submitted")
                yield OrderSubmitted(customer)
            case PayOrder(amount=amount):
                self._only("submitted", "be paid")
                if amount != self.total:
                    raise el.Rejected(f"{amount} is not the {self.total} that is due")
                yield OrderPaid(amount)
            case DispatchOrder(carrier=carrier):
                self._only("paid", "be dispatched")
                yield OrderDispatched(carrier)
            case WithdrawOrder(reason=reason):
                if self.status in ("dispatched", "withdrawn"):
                    raise el.Rejected(f"the order is {self.status}, and cannot be withdrawn")
                yield OrderWithdrawn(reason)

    def evolve(self, event: OrderEvent) -> Self:
        match event:
            case ProductAdded(sku=sku, quantity=quantity, unit_price=price, currency=currency):
                amount = quantity * price
                return replace(
                    self,
                    lines=self.lines | {sku: quantity},
                    amounts=self.amounts | {sku: amount},
                    total=self.total + amount,
                    currency=currency,
                )
            case ProductDropped(sku=sku):
                return replace(
                    self,
                    lines={name: n for name, n in self.lines.items() if name != sku},
                    amounts={name: amount for name, amount in self.amounts.items() if name != sku},
                    total=self.total - self.amounts[sku],
                )
            case OrderSubmitted(customer=customer):
                return replace(self, status="submitted", customer=customer)
            case OrderPaid():
                return replace(self, status="paid")
            case OrderDispatched():
                return replace(self, status="dispatched")
            case OrderWithdrawn():
                return replace(self, status="withdrawn")
        return self

    def _only(self, status: str, what: str) -> None:
        if self.status != status:
            raise el.Rejected(f"the order is {self.status}, and cannot {what}")


# -- read models: what the shop wants to know ------------------------------------------------------------------------------


@el.projection
class ProductDemand:
    """How many pieces of each product were put in orders, and how often it was taken out again."""

    pieces: int = 0
    dropped: int = 0

    @staticmethod
    def key(event: ProductAdded | ProductDropped) -> str:
        return event.sku

    def evolve(self, event: ProductAdded | ProductDropped) -> Self:
        match event:
            case ProductAdded(quantity=quantity):
                return replace(self, pieces=self.pieces + quantity)
            case ProductDropped():
                return replace(self, dropped=self.dropped + 1)
        return self


takings = el.sql_projection(
    "takings",
    "select cast(_recorded_at as date) as day, sum(amount) as amount, count(*) as orders from types.order_paid group by day",
    key="day",
)

# -- a question ------------------------------------------------------------------------------------------------------------


@el.query
class OpenOrders:
    """The orders of a customer that are submitted or paid and have not left the house, dearest first."""

    customer: str

    def answer(self, lab: el.Lab) -> pl.DataFrame:
        open_ = pl.col("status").is_in(["submitted", "paid"]) & (pl.col("customer") == self.customer)
        return lab.table(Order).filter(open_).select("_id", "status", "total").sort("total", "_id", descending=[True, False])
