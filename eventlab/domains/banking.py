"""Accounts of a bank: one aggregate with its rules, and a transfer, which is a decision on two of them.

A command is handled by one aggregate in one transaction. Money that goes from one account to another crosses that line on
purpose: `transfer` reads both accounts, and stores both events or none, unless either account changed in between.
`tests/domains/test_banking.py` shows the four kinds of test.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from typing import NamedTuple, Self

import polars as pl

import eventlab as el
from eventlab.commands import Decision
from eventlab.store.base import Appended

# -- events ----------------------------------------------------------------------------------------------------------------


@el.event
class AccountOpened:
    """Somebody opened an account."""

    owner: el.Tag[str]
    limit: el.Money


@el.event
class MoneyDeposited:
    """Money came in."""

    amount: el.Money
    note: str = ""


@el.event
class MoneyWithdrawn:
    """Money went out."""

    amount: el.Money
    note: str = ""


@el.event
class AccountClosed:
    """The account was closed; nothing was left in it."""


AccountEvent = AccountOpened | MoneyDeposited | MoneyWithdrawn | AccountClosed

# -- commands --------------------------------------------------------------------------------------------------------------


@el.command
class OpenAccount:
    """Open an account for somebody."""

    owner: str
    limit: el.Money = el.money(0)


@el.command
class Deposit:
    """Put money in."""

    amount: el.Money


@el.command
class Withdraw:
    """Take money out."""

    amount: el.Money


@el.command
class CloseAccount:
    """Close the account, once nothing is left in it."""


# -- the aggregate ---------------------------------------------------------------------------------------------------------


@el.aggregate
class Account:
    """One account: stream `account-<number>`. `limit` is how far it may be overdrawn."""

    owner: str | None = None
    is_open: bool = False
    balance: el.Money = el.money(0)
    limit: el.Money = el.money(0)

    def decide(self, command: OpenAccount | Deposit | Withdraw | CloseAccount) -> Iterator[AccountEvent]:
        match command:
            case OpenAccount(owner=owner, limit=limit):
                if self.owner is not None:
                    raise el.Rejected(f"the account belongs to {self.owner}")
                yield AccountOpened(owner, limit)
            case Deposit(amount=amount):
                yield self.deposited(amount)
            case Withdraw(amount=amount):
                yield self.withdrawn(amount)
            case CloseAccount():
                self._usable(el.money(1))
                if self.balance:
                    raise el.Rejected(f"{self.balance} are left in the account")
                yield AccountClosed()

    def evolve(self, event: AccountEvent) -> Self:
        match event:
            case AccountOpened(owner=owner, limit=limit):
                return replace(self, owner=owner, limit=limit, is_open=True)
            case MoneyDeposited(amount=amount):
                return replace(self, balance=self.balance + amount)
            case MoneyWithdrawn(amount=amount):
                return replace(self, balance=self.balance - amount)
            case AccountClosed():
                return replace(self, is_open=False)
        return self

    # The rules of money going in and out, for a command and for a transfer alike.

    def deposited(self, amount: Decimal, note: str = "") -> MoneyDeposited:
        """The event of a deposit; `Rejected` where there can be none."""
        self._usable(amount)
        return MoneyDeposited(amount, note)

    def withdrawn(self, amount: Decimal, note: str = "") -> MoneyWithdrawn:
        """The event of a withdrawal; `Rejected` where there can be none."""
        self._usable(amount)
        if self.balance + self.limit < amount:
            raise el.Rejected(f"{self.balance + self.limit} can be withdrawn, and not {amount}")
        return MoneyWithdrawn(amount, note)

    def _usable(self, amount: Decimal) -> None:
        if not self.is_open:
            raise el.Rejected("the account is closed" if self.owner else "there is no such account")
        if amount <= 0:
            raise el.Rejected(f"{amount} is no amount to be moved")


# -- a decision on two accounts --------------------------------------------------------------------------------------------


def transfer(lab: el.Lab, source: str, target: str, amount: Decimal, *, attempts: int = 10) -> Appended:
    """Move money between two accounts: both events or neither; decided again when either account changed in between."""
    if source == target:
        raise el.Rejected("an account cannot pay itself")

    def move(seen: Decision) -> None:
        payer, payee = Account(), Account()
        for event in seen:
            if event.id == source:
                payer = payer.evolve(event.data)
            else:
                payee = payee.evolve(event.data)
        seen.append(f"account-{source}", payer.withdrawn(amount, f"to {target}"))
        seen.append(f"account-{target}", payee.deposited(amount, f"from {source}"))

    return lab.decide(el.stream(f"account-{source}", f"account-{target}"), move, attempts=attempts)


# -- a read model ----------------------------------------------------------------------------------------------------------


class Day(NamedTuple):
    """The key of a row: a day, in UTC."""

    day: dt.date


@el.projection
class Turnover:
    """What came in and what went out on each day, of all accounts; a transfer is both."""

    came_in: el.Money = el.money(0)
    went_out: el.Money = el.money(0)

    @staticmethod
    def key(event: MoneyDeposited | MoneyWithdrawn, meta: el.Meta) -> Day:
        return Day(meta.recorded_at.date())

    def evolve(self, event: MoneyDeposited | MoneyWithdrawn) -> Self:
        match event:
            case MoneyDeposited(amount=amount):
                return replace(self, came_in=self.came_in + amount)
            case MoneyWithdrawn(amount=amount):
                return replace(self, went_out=self.went_out + amount)
        return self

# -- a question ------------------------------------------------------------------------------------------------------------


@el.query
class Overdrawn:
    """The open accounts that owe the bank, the deepest first; with an owner, only theirs."""

    owner: str | None = None

    def answer(self, lab: el.Lab) -> pl.DataFrame:
        owing = pl.col("is_open") & (pl.col("balance") < 0)
        asked = owing if self.owner is None else owing & (pl.col("owner") == self.owner)
        return lab.table(Account).filter(asked).select("_id", "owner", "balance").sort("balance", "_id")
