"""The flights and the example domains fold the same under every variant, and by every other way to fold."""

from __future__ import annotations

import contextlib
import random
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import eventlab as el
from eventlab.domains import banking, flights, nycflights13, ordering, registration


def checked(lab: el.Lab, *models: type[Any]) -> None:
    for report in lab.check(*models, level="standard"):
        assert report.ok, report
        assert report.events > 0
        assert len(report.ways) >= 6
        assert report.touches == ()


def test_the_flights(tmp_path: Path) -> None:
    with el.open(tmp_path / "log") as lab:
        few = [replace(rows, data=rows.data.head(600)) for rows in flights.sources(nycflights13.load())]
        lab.ingest(few, source="flights", recorded_at="occurred_at")
        lab.compact(all=True)
        checked(lab, flights.Flight, flights.Aircraft, flights.CarrierDay, flights.AirportBoard)


def test_the_example_domains(tmp_path: Path) -> None:
    chance, money = random.Random(5), lambda: Decimal(chance.randrange(1, 3_000)) / 100
    with el.open(tmp_path / "log") as lab:
        for number in range(60):
            order = f"{number % 20}"
            with contextlib.suppress(el.Rejected):
                added = ordering.AddProduct(f"sku-{chance.randrange(5)}", chance.randrange(1, 4), money())
                lab.handle(ordering.Order, order, added)
                if chance.random() < 0.4:
                    lab.handle(ordering.Order, order, ordering.SubmitOrder(f"customer-{number % 7}"))
                    lab.handle(ordering.Order, order, ordering.PayOrder(money()))
        for name in "abc":
            lab.handle(banking.Account, name, banking.OpenAccount(f"owner-{name}"))
            lab.handle(banking.Account, name, banking.Deposit(Decimal("1000.00")))
        for _ in range(30):
            banking.transfer(lab, *chance.sample("abc", 2), money())
        registration.offer(lab, "chess", 3)
        for student in range(3):
            registration.book(lab, "chess", f"student-{student}")
        lab.seal()
        checked(
            lab, ordering.Order, ordering.ProductDemand, banking.Account, banking.Turnover,
        )  # fmt: skip
