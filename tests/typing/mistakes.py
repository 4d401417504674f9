"""Mistakes that a type checker finds before anything runs: every line that ends in `# wrong` must be reported, no other.

`# wrong: mypy` is what mypy alone knows. Nothing here is ever called.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from typing import Self

import eventlab as el


@el.event
class Lent:
    """A reader took a book home."""

    title: str
    days: int
    fee: el.Money
    reader: el.Tag[str]
    note: str | None = None


@el.event(name="Returned", version=2)
class Returned:
    """The book came back."""

    late: int


@el.command
class Lend:
    title: str
    days: int


@el.event(name=3)  # wrong
class Renamed:
    """Its stored name is no text."""

    title: str


@el.event(schema=2)  # wrong
class Renumbered:
    """There is no such argument."""

    title: str


@el.aggregate
class Book:
    out: bool = False
    fees: el.Money = el.money(0)

    def decide(self, command: Lend) -> Iterator[Lent]:
        yield Lent(command.title, command.days, el.money(1), "r1")
        yield Returned(0)  # wrong
        command.days = 3  # wrong

    def evolve(self, event: Lent | Returned) -> Self:
        match event:
            case Lent(fee=fee):
                self.fees += fee  # wrong
                return replace(self, fees=self.fees + event.fee)
            case Returned(late=0):
                return None  # wrong
            case Returned():
                return replace(self, fees=event.fee)  # wrong


def events() -> None:
    lent = Lent("Emma", 14, el.money("0.50"), "r1")
    Lent("Emma", 14, el.money("0.50"), "r1", None)
    Lent("Emma", "14", el.money("0.50"), "r1")  # wrong
    Lent("Emma", 14, "0.50", "r1")  # wrong
    Lent("Emma", 14, Decimal(1), 7)  # wrong
    Lent("Emma", 14, Decimal(1))  # wrong
    Lent("Emma", 14, Decimal(1), "r1", None, 1)  # wrong
    Lent(title="Emma", days=14, fee=Decimal(1), reader="r1", page=3)  # wrong
    lent.days = 15  # wrong
    print(lent.pages)  # wrong
    Returned(late=True).late = 1  # wrong
    replace(lent, days="15")  # wrong: mypy
    print(lent.days + "1")  # wrong


def commands() -> None:
    Lend("Emma", "14")  # wrong
    Lend("Emma", 14).title = "Persuasion"  # wrong


def state(lab: el.Lab) -> None:
    Book(out="yes")  # wrong
    Book().out = True  # wrong
    lab.load(Book, 7)  # wrong
    print(lab.load(Book, "7").pages)  # wrong
    print(lab.handle(Book, "7", Lend("Emma", 14)).state.pages)  # wrong
    print(lab.handle(Book, "7", Lend("Emma", 14), retries=3))  # wrong
    lab.append("book-1", Lent("Emma", 14, Decimal(1), "r1"))  # wrong
    lab.append("book-1", [Returned(0)], expected="3")  # wrong
    print(el.events(Lent) & "reader:r1")  # wrong
    lab.read("reader:r1")  # wrong
    el.tag(reader=1.5)  # wrong
    el.money(9.5)  # wrong
    with lab.context(actor=7):  # wrong
        pass
