"""Orders: the four kinds of test. The aggregate by itself, a lab on disk, a scenario from command to answer, and replay."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given as drawn
from hypothesis import settings
from hypothesis import strategies as st

import eventlab as el
from eventlab.domains.ordering import (
    AddProduct,
    DispatchOrder,
    DropProduct,
    OpenOrders,
    Order,
    OrderDispatched,
    OrderPaid,
    OrderSubmitted,
    OrderWithdrawn,
    PayOrder,
    ProductAdded,
    ProductDemand,
    ProductDropped,
    SubmitOrder,
    WithdrawOrder,
    takings,
)
from eventlab.errors import InvalidValue
from eventlab.testing import given, given_stored

HAT = ProductAdded("hat", 2, el.money("9.50"), "EUR")
SUBMITTED = OrderSubmitted("c9")
PAID = OrderPaid(el.money(19))


# -- the aggregate ---------------------------------------------------------------------------------------------------------


def test_a_draft_takes_products() -> None:
    given(Order).when(AddProduct("hat", 2, el.money("9.50"))).then(HAT).state(
        status="draft", lines={"hat": 2}, total=Decimal("19.00"), currency="EUR"
    )
    given(Order, HAT).when(AddProduct("tie", 1, el.money(5))).then(ProductAdded("tie", 1, el.money(5), "EUR"))
    given(Order, HAT).when(DropProduct("hat")).then(ProductDropped("hat")).state(lines={}, total=Decimal(0))


@pytest.mark.parametrize(
    ("past", "command", "reason"),
    [
        ([HAT], AddProduct("hat", 1, el.money(1)), "in the order already"),
        ([HAT], AddProduct("tie", 1, el.money(1), "CHF"), "is in EUR, and tie costs CHF"),
        ([], DropProduct("hat"), "no hat in the order"),
        ([], SubmitOrder("c9"), "empty order"),
        ([HAT], PayOrder(el.money(19)), "is draft, and cannot be paid"),
        ([HAT, SUBMITTED], PayOrder(el.money(20)), r"20\.00 is not the 19\.00 that is due"),
        ([HAT, SUBMITTED], AddProduct("tie", 1, el.money(1)), "is submitted, and cannot take another product"),
        ([HAT, SUBMITTED], DispatchOrder("post"), "cannot be dispatched"),
        ([HAT, SUBMITTED, PAID, OrderDispatched("post")], WithdrawOrder("late"), "is dispatched, and cannot be withdrawn"),
        ([OrderWithdrawn("no")], WithdrawOrder("late"), "is withdrawn"),
    ],
)
def test_what_an_order_refuses(past: list[Any], command: Any, reason: str) -> None:
    given(Order, past).when(command).rejected(reason).then_nothing()


def test_a_line_has_at_least_one_piece() -> None:
    with pytest.raises(InvalidValue, match=r"AddProduct\.quantity is 0 .* at least 1"):
        given(Order).when(AddProduct("hat", 0, el.money(1)))


def test_an_order_is_submitted_paid_and_dispatched() -> None:
    given(Order, HAT).when(SubmitOrder("c9")).then(SUBMITTED).state(status="submitted", customer="c9")
    given(Order, HAT, SUBMITTED).when(PayOrder(el.money(19))).then(PAID)
    given(Order, HAT, SUBMITTED, PAID).when(DispatchOrder("post")).then(OrderDispatched("post")).state(status="dispatched")
    given(Order, HAT, SUBMITTED).when(WithdrawOrder("too slow")).then(OrderWithdrawn("too slow"))


def test_read_models() -> None:
    past = {"order-1": [HAT, ProductDropped("hat"), HAT], "order-2": [ProductAdded("hat", 1, el.money(9), "EUR"), PAID]}
    given(ProductDemand, past).expect([{"_id": "hat", "pieces": 5, "dropped": 1}])
    given(takings, past).expect([{"day": dt.date(2026, 1, 1), "amount": Decimal("19.00"), "orders": 1}])


def test_the_first_version_had_no_currency() -> None:
    given_stored(ProductAdded, version=1, sku="hat", quantity=2, unit_price=el.money("9.50")).then(HAT)
    given_stored(ProductAdded, version=1, sku="hat", unit_price=el.money("9.50")).fails("no 'quantity'")


# -- integration: a store on disk, and readers of it -----------------------------------------------------------------------


def test_orders_are_kept_and_found(tmp_path: Path) -> None:
    with el.open(tmp_path / "shop") as lab:
        lab.handle(Order, "1", AddProduct("hat", 2, el.money("9.50")), command_id="web-1")
        lab.handle(Order, "1", AddProduct("hat", 2, el.money("9.50")), command_id="web-1")
        lab.seal()
    with el.open(tmp_path / "shop") as lab:
        assert lab.load(Order, "1").total == Decimal("19.00")
        assert lab.table(Order)["status"].to_list() == ["draft"]


# -- a scenario: from the first command to the answer ----------------------------------------------------------------------


def test_from_the_first_product_to_what_is_open() -> None:
    with el.scratch() as lab:
        for number, price in (("1", 5), ("2", 7), ("3", 6)):
            lab.handle(Order, number, AddProduct("hat", 1, el.money(price)))
            done = lab.handle(Order, number, SubmitOrder("c9"))
        lab.handle(Order, "3", WithdrawOrder("no"))
        done = lab.handle(Order, "1", PayOrder(el.money(5)))
        found = lab.ask(OpenOrders("c9"), at_least=done)
        assert found.rows() == [("2", "submitted", Decimal("7.00")), ("1", "paid", Decimal("5.00"))]
        assert lab.ask(OpenOrders("c8")).is_empty()
        assert lab.at(position=6).ask(OpenOrders("c9")).height == 3
        assert lab.rejections().is_empty()


# -- replay: every way to fold gives the same, for any history -------------------------------------------------------------

COMMANDS = st.one_of(
    st.builds(AddProduct, st.sampled_from(["hat", "tie"]), st.integers(1, 3), st.integers(0, 99).map(el.money)),
    st.builds(DropProduct, st.sampled_from(["hat", "tie"])),
    st.just(SubmitOrder("c9")),
    st.integers(0, 300).map(lambda n: PayOrder(el.money(n))),
    st.just(DispatchOrder("post")),
    st.just(WithdrawOrder("no")),
)


@drawn(st.lists(st.tuples(st.sampled_from("12"), COMMANDS), max_size=20))
@settings(max_examples=50, deadline=None)
def test_whatever_is_ordered_every_way_to_fold_gives_the_same(commands: list[tuple[str, Any]]) -> None:
    with el.scratch() as lab:
        lab.handle_many([(Order, number, command) for number, command in commands])
        rows = lab.table(Order, engine="rows")
        assert lab.table(Order).equals(rows)
        assert lab.versions(Order).group_by("_id", maintain_order=True).last().select(rows.columns).equals(rows)
        for row in rows.rows(named=True):
            state = lab.load(Order, row["_id"])
            assert (state.status, state.total) == (row["status"], row["total"])
            assert sum(state.amounts.values(), Decimal(0)) == state.total
