"""Accounts, and money that goes from one to another: both events or neither, also when processes race.

The four kinds of test: the aggregate by itself, a store on disk with processes that race, a scenario from command to answer, and
replay.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import random
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given as drawn
from hypothesis import settings
from hypothesis import strategies as st
from processes import ended, started

import eventlab as el
from eventlab.domains.banking import (
    Account,
    AccountClosed,
    AccountOpened,
    CloseAccount,
    Deposit,
    MoneyDeposited,
    MoneyWithdrawn,
    OpenAccount,
    Overdrawn,
    Turnover,
    Withdraw,
    transfer,
)
from eventlab.errors import Rejected
from eventlab.testing import given

OPENED = AccountOpened("ann", el.money(10))
FIFTY = MoneyDeposited(el.money(50))


# -- the aggregate, and the decision on two of them ------------------------------------------------------------------------


def test_an_account_is_opened_used_and_closed() -> None:
    given(Account).when(OpenAccount("ann", el.money(10))).then(OPENED).state(is_open=True, owner="ann")
    given(Account, OPENED).when(Deposit(el.money(50))).then(FIFTY).state(balance=Decimal(50))
    given(Account, OPENED, FIFTY).when(Withdraw(el.money(60))).then(MoneyWithdrawn(el.money(60))).state(balance=Decimal(-10))
    given(Account, OPENED).when(CloseAccount()).then(AccountClosed()).state(is_open=False)


def test_what_an_account_refuses() -> None:
    given(Account).when(Deposit(el.money(1))).rejected("there is no such account")
    given(Account, OPENED).when(OpenAccount("bob")).rejected("belongs to ann")
    given(Account, OPENED, FIFTY).when(Withdraw(el.money(61))).rejected(r"60\.00 can be withdrawn, and not 61\.00")
    given(Account, OPENED).when(Deposit(el.money(0))).rejected("no amount")
    given(Account, OPENED, FIFTY).when(CloseAccount()).rejected(r"50\.00 are left")
    given(Account, OPENED, AccountClosed()).when(Deposit(el.money(1))).rejected("closed")


def test_a_transfer_is_two_events_or_none() -> None:
    past = {"account-1": [OPENED, FIFTY], "account-2": [AccountOpened("bob", el.money(0))]}
    given(past).when(lambda lab: transfer(lab, "1", "2", el.money(20))).then(
        {"account-1": [MoneyWithdrawn(el.money(20), "to 2")], "account-2": [MoneyDeposited(el.money(20), "from 1")]}
    )
    given(past).when(lambda lab: transfer(lab, "1", "2", el.money(61))).rejected("can be withdrawn").then_nothing()
    given(past).when(lambda lab: transfer(lab, "1", "3", el.money(1))).rejected("no such account").then_nothing()
    given(past).when(lambda lab: transfer(lab, "1", "1", el.money(1))).rejected("cannot pay itself")


@pytest.mark.parametrize("amount", ["0", "-5"])
def test_a_transfer_of_nothing_is_refused(amount: str) -> None:
    with el.scratch() as lab, pytest.raises(Rejected):
        lab.append({"account-1": [OPENED], "account-2": [OPENED]})
        transfer(lab, "1", "2", Decimal(amount))


def test_turnover_by_day() -> None:
    past = {"account-1": [OPENED, FIFTY, MoneyWithdrawn(el.money(5))], "account-2": [MoneyDeposited(el.money(5))]}
    given(Turnover, past).expect([{"day": dt.date(2026, 1, 1), "came_in": 55, "went_out": 5}])


# -- integration: a store on disk, and processes that transfer at once -----------------------------------------------------


def transfers(path: str, seed: str) -> None:
    """Twenty transfers at random, in a process of its own."""
    chance = random.Random(int(seed))
    with el.open(path, maintain=False) as lab:
        for _ in range(20):
            source, target = chance.sample("1234", 2)
            with contextlib.suppress(Rejected):
                transfer(lab, source, target, el.money(chance.randint(1, 60)), attempts=1_000)


def test_no_money_is_made_or_lost_when_processes_transfer_at_once(tmp_path: Path) -> None:
    path = tmp_path / "bank"
    with el.open(path) as lab:
        for number in "1234":
            lab.append(f"account-{number}", [AccountOpened(number, el.money(0)), MoneyDeposited(el.money(100))])
    assert ended([started(transfers, path, seed) for seed in range(4)]) == [0] * 4
    with el.open(path) as lab:
        table = lab.table(Account)
        assert table["balance"].sum() == Decimal(400)
        assert table["balance"].min() >= 0
        moved = lab.sql("select sum(amount) from types.money_withdrawn").item()
        assert moved == lab.sql("select sum(amount) from types.money_deposited where note <> ''").item()
        assert lab.versions(Account).filter(pl.col("balance") < 0).is_empty()


# -- a scenario: from opening an account to who owes the bank --------------------------------------------------------------


def test_from_the_first_deposit_to_who_owes_the_bank() -> None:
    with el.scratch() as lab:
        for number, owner in (("1", "ann"), ("2", "bob"), ("3", "ann")):
            lab.handle(Account, number, OpenAccount(owner, el.money(30)))
        lab.handle(Account, "1", Withdraw(el.money(5)))
        lab.handle(Account, "3", Deposit(el.money(10)))
        done = transfer(lab, "3", "2", el.money(30))
        assert lab.ask(Overdrawn(), at_least=done).rows() == [("3", "ann", Decimal(-20)), ("1", "ann", Decimal(-5))]
        assert lab.ask(Overdrawn("bob")).is_empty()
        with pytest.raises(Rejected, match=r"25\.00 can be withdrawn, and not 26\.00"):
            lab.handle(Account, "1", Withdraw(el.money(26)))
        paid = lab.handle(Account, "1", Deposit(el.money(5)))
        assert lab.ask(Overdrawn("ann"), at_least=paid)["_id"].to_list() == ["3"]
        assert lab.at(position=4).ask(Overdrawn())["_id"].to_list() == ["1"]
        assert lab.rejections()["reason"].to_list() == ["25.00 can be withdrawn, and not 26.00"]


# -- replay: every way to fold gives the same, for any history -------------------------------------------------------------


AMOUNTS = st.integers(0, 60).map(el.money)
STEPS = st.one_of(
    st.builds(OpenAccount, st.sampled_from(["ann", "bob"]), AMOUNTS),
    st.builds(Deposit, AMOUNTS),
    st.builds(Withdraw, AMOUNTS),
    st.just(CloseAccount()),
    AMOUNTS,
)


@drawn(st.lists(st.tuples(st.sampled_from(["12", "21", "13"]), STEPS), max_size=20))
@settings(max_examples=40, deadline=None)
def test_whatever_is_moved_every_way_to_fold_gives_the_same(steps: list[tuple[str, Any]]) -> None:
    with el.scratch() as lab:
        for (source, target), step in steps:
            with contextlib.suppress(Rejected):
                if isinstance(step, Decimal):
                    transfer(lab, source, target, step)
                else:
                    lab.handle(Account, source, step)
        rows = lab.table(Account, engine="rows")
        assert lab.table(Account).equals(rows)
        assert lab.versions(Account).group_by("_id", maintain_order=True).last().select(rows.columns).equals(rows)
        assert lab.table(Turnover).equals(lab.table(Turnover, engine="rows"))
        for row in rows.rows(named=True):
            assert lab.load(Account, row["_id"]).balance == row["balance"] >= -row["limit"]
        came, went = (lab.table(Turnover)[name].sum() for name in ("came_in", "went_out"))
        assert rows["balance"].sum() == came - went
