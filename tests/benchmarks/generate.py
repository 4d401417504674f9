"""The orders log of the benchmark: N events of N/10 orders, ten each, interleaved in time; the same on every run.

An order is opened, gets seven lines, is placed, and is shipped or (one in eight) cancelled. Orders overlap: one is under way
while some two thousand others are opened, so that a batch of new events goes to old streams and to new ones.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Final, Self

import numpy as np
import polars as pl

import eventlab as el

SEED: Final = 20_130_208
#: The first event; each later one is a second younger than the one before it.
BEGIN: Final = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
EVENTS_AN_ORDER: Final = 10
LINES: Final = 7


@el.event
class OrderOpened:
    """A customer began an order."""

    customer: el.Tag[str]


@el.event
class ItemAdded:
    """A customer put a product in the order."""

    sku: str
    quantity: int
    unit_price: el.Money


@el.event
class OrderPlaced:
    """The customer committed to buy."""

    channel: str


@el.event
class OrderShipped:
    """The parcel left."""

    carrier: str


@el.event
class OrderCancelled:
    """The customer or the shop backed out."""

    reason: str


@el.aggregate
class Order:
    """What was ordered, for how much, and how far it got."""

    status: str = "draft"
    total: el.Money = el.money(0)
    lines: int = 0

    def evolve(self, event: OrderOpened | ItemAdded | OrderPlaced | OrderShipped | OrderCancelled) -> Self:
        match event:
            case ItemAdded(quantity=n, unit_price=p):
                return replace(self, total=self.total + n * p, lines=self.lines + 1)
            case OrderPlaced():
                return replace(self, status="placed")
            case OrderShipped():
                return replace(self, status="shipped")
            case OrderCancelled():
                return replace(self, status="cancelled")
        return self


EVENT_TYPES: Final[tuple[type[Any], ...]] = (OrderOpened, ItemAdded, OrderPlaced, OrderShipped, OrderCancelled)


@dataclass(frozen=True)
class Log:
    """Events `first` ≤ `seq` < `last` of a generated log: one frame an event type, each in order of time."""

    frames: Mapping[type[Any], pl.DataFrame]
    first: int
    last: int

    def __len__(self) -> int:
        return self.last - self.first

    def slice(self, first: int, last: int) -> Log:
        """A run of its events."""
        picked = pl.col("seq").is_between(first, last, closed="left")
        return Log({kind: frame.filter(picked) for kind, frame in self.frames.items()}, first, last)

    def sources(self) -> list[el.Rows]:
        """What `lab.ingest` takes."""
        return [el.rows(kind, frame, stream="order-{order}", occurred_at="at") for kind, frame in self.frames.items()]

    @cached_property
    def objects(self) -> list[tuple[str, Any]]:
        """The id of the order and the event, in order of time."""
        found: list[tuple[int, str, Any]] = []
        for kind, frame in self.frames.items():
            payload = frame.drop("seq", "order", "at")
            events = [kind(**row) for row in payload.iter_rows(named=True)]
            found += zip(frame["seq"].to_list(), frame["order"].to_list(), events, strict=True)
        return [(order, event) for _, order, event in sorted(found, key=lambda item: item[0])]

    def by_stream(self) -> dict[str, list[Any]]:
        """What `lab.append` takes: the events of each stream."""
        found: dict[str, list[Any]] = {}
        for order, event in self.objects:
            found.setdefault(f"order-{order}", []).append(event)
        return found


def orders(events: int) -> Log:
    """A log of so many events, rounded up to whole orders."""
    chance = np.random.Generator(np.random.PCG64(SEED))
    streams = -(-events // EVENTS_AN_ORDER)
    count = streams * EVENTS_AN_ORDER
    # An order opens when its number comes up; its later events follow while others open.
    overlap = max(1.0, min(2_000.0, streams / 10)) / EVENTS_AN_ORDER
    steps = chance.exponential(overlap, (streams, EVENTS_AN_ORDER))
    steps[:, 0] = np.arange(streams)
    places = np.argsort(np.cumsum(steps, axis=1).ravel(), kind="stable")
    seq = np.empty(count, np.int64)
    seq[places] = np.arange(count)
    number = np.repeat(np.arange(streams), EVENTS_AN_ORDER)
    step = np.tile(np.arange(EVENTS_AN_ORDER), streams)
    cancelled = np.repeat(chance.random(streams) < 0.125, EVENTS_AN_ORDER)
    whole = pl.DataFrame({"seq": seq, "number": number, "step": step, "cancelled": cancelled}).select(
        "seq",
        pl.format("{}", pl.col("number").cast(pl.String).str.zfill(8)).alias("order"),
        (pl.lit(BEGIN) + pl.duration(seconds=pl.col("seq"))).cast(pl.Datetime("us", "UTC")).alias("at"),
        "step",
        "cancelled",
        "number",
    )
    last = pl.col("step") == EVENTS_AN_ORDER - 1
    picked = {
        OrderOpened: pl.col("step") == 0,
        ItemAdded: pl.col("step").is_between(1, LINES),
        OrderPlaced: pl.col("step") == LINES + 1,
        OrderShipped: last & ~pl.col("cancelled"),
        OrderCancelled: last & pl.col("cancelled"),
    }

    def texts(prefix: str, kinds: int, size: int) -> pl.Series:
        return pl.Series([f"{prefix}{i}" for i in range(kinds)]).gather(chance.integers(0, kinds, size))

    frames = {}
    for kind, condition in picked.items():
        frame = whole.filter(condition).sort("seq")
        size = len(frame)
        if kind is OrderOpened:
            payload = [texts("c", max(1, streams // 4), size).alias("customer")]
        elif kind is ItemAdded:
            cents = pl.Series(chance.integers(50, 20_000, size))
            payload = [
                texts("sku-", 5_000, size).alias("sku"),
                pl.Series("quantity", chance.integers(1, 6, size)),
                (cents.cast(pl.Decimal(18, 2)) / 100).cast(pl.Decimal(18, 2)).alias("unit_price"),
            ]
        else:
            field = {OrderPlaced: "channel", OrderShipped: "carrier", OrderCancelled: "reason"}[kind]
            payload = [texts(f"{field}-", 4, size).alias(field)]
        frames[kind] = frame.select("seq", "order", "at").with_columns(payload)
    return Log(frames, 0, count)
