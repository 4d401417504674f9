"""Folds by every engine beside the best DuckDB SQL written by hand, on the same files, in one process.

    python tests/benchmarks/lift.py [--events 1000000] [--rows 200000] [--folder DIR] [--threads 1]
    python tests/benchmarks/lift.py --events 50000000 --compact

Every engine's table is compared with the row fold's (over `--rows` events where the log is larger) before its time is shown.
The row fold is timed over a log of `--rows` events of its own: to fold the first events of a compacted log, all of it is sorted.
Only the ratios are to be believed. `by hand` reads the same segments; `plain` is one Parquet file in order of position. The
loop keeps a list a key: over more than five million events it is timed over the log that the row fold has. `MB` is the peak of
resident memory of a process that opens the store and does nothing but the lifted fold.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import duckdb
import pyarrow as pa
from generate import ItemAdded, Order, OrderCancelled, OrderOpened, OrderPlaced, OrderShipped, orders
from rich.console import Console
from rich.table import Table

import eventlab as el
from eventlab.model.models import model_of
from eventlab.replay.lift import fold_table, fold_versions

OrderEvent = OrderOpened | ItemAdded | OrderPlaced | OrderShipped | OrderCancelled


@el.aggregate(name="order")
class ResetOrder:
    """A total that a cancellation sets back: a segmented sum."""

    status: str = "draft"
    customer: str | None = None
    total: el.Money = el.money(0)

    def evolve(self, event: OrderEvent) -> Self:
        match event:
            case OrderOpened(customer=c):
                return replace(self, customer=c)
            case ItemAdded(quantity=n, unit_price=p):
                return replace(self, total=self.total + n * p)
            case OrderPlaced():
                return replace(self, status="placed")
            case OrderCancelled():
                return replace(self, status="cancelled", total=el.money(0))
        return self


@el.aggregate(name="order")
class PeakOrder:
    """The peak of the total, and a count that depends on the status: two strata."""

    status: str = "draft"
    total: el.Money = el.money(0)
    peak: el.Money = el.money(0)
    late_lines: int = 0

    def evolve(self, event: OrderEvent) -> Self:
        match event:
            case ItemAdded(quantity=n, unit_price=p):
                total = self.total + n * p
                late = self.late_lines + 1 if self.status != "draft" else self.late_lines
                return replace(self, total=total, peak=max(self.peak, total), late_lines=late)
            case OrderPlaced():
                return replace(self, status="placed")
            case OrderCancelled():
                return replace(self, status="cancelled", total=el.money(0))
        return self


@el.projection
class SkuSales:
    """A key of its own."""

    lines: int = 0
    pieces: int = 0
    revenue: el.Money = el.money(0)

    @staticmethod
    def key(event: ItemAdded) -> str:
        return event.sku

    def evolve(self, event: ItemAdded) -> Self:
        return replace(
            self,
            lines=self.lines + 1,
            pieces=self.pieces + event.quantity,
            revenue=self.revenue + event.quantity * event.unit_price,
        )


_STATUS = """coalesce(arg_max(CASE type WHEN 'OrderPlaced' THEN 'placed' WHEN 'OrderShipped' THEN 'shipped'
  WHEN 'OrderCancelled' THEN 'cancelled' END, position), 'draft') AS status"""
_TOTAL = (
    """coalesce(sum(CASE WHEN type = 'ItemAdded' THEN "quantity:i64" * "unit_price:d18_2" END), 0)::DECIMAL(18, 2) AS total"""
)
BY_HAND = {
    Order: f"""SELECT substr(stream, 7) AS _id, {_STATUS}, {_TOTAL}, count(*) FILTER (WHERE type = 'ItemAdded') AS lines,
      max(version) AS _version, max(position) AS _position FROM {{rows}} GROUP BY stream ORDER BY 1""",
    ResetOrder: f"""WITH r AS (SELECT *, coalesce(max(position) FILTER (WHERE type = 'OrderCancelled')
        OVER (PARTITION BY stream), 0) AS reset FROM {{rows}})
      SELECT substr(stream, 7) AS _id, coalesce(arg_max(CASE type WHEN 'OrderPlaced' THEN 'placed'
        WHEN 'OrderCancelled' THEN 'cancelled' END, position), 'draft') AS status,
      arg_max(CASE WHEN type = 'OrderOpened' THEN "customer:s" END, position) AS customer,
      {_TOTAL.replace("'ItemAdded' THEN", "'ItemAdded' AND position > reset THEN")},
      max(version) AS _version, max(position) AS _position FROM r GROUP BY stream ORDER BY 1""",
    PeakOrder: """WITH s AS (SELECT *, CASE WHEN type = 'ItemAdded' THEN "quantity:i64" * "unit_price:d18_2" ELSE 0 END AS x,
        count(*) FILTER (WHERE type = 'OrderCancelled') OVER w AS season,
        coalesce(last_value(CASE type WHEN 'OrderPlaced' THEN 'placed' WHEN 'OrderCancelled' THEN 'cancelled' END IGNORE NULLS)
          OVER w, 'draft') AS status
        FROM {rows} WINDOW w AS (PARTITION BY stream ORDER BY version ROWS UNBOUNDED PRECEDING)),
      t AS (SELECT *, sum(x) OVER (PARTITION BY stream, season ORDER BY version ROWS UNBOUNDED PRECEDING) AS total FROM s)
      SELECT substr(stream, 7) AS _id, arg_max(status, version) AS status, arg_max(total, version)::DECIMAL(18, 2) AS total,
        greatest(max(total), 0)::DECIMAL(18, 2) AS peak,
        count(*) FILTER (WHERE type = 'ItemAdded' AND status <> 'draft') AS late_lines,
        max(version) AS _version, max(position) AS _position
      FROM t GROUP BY stream ORDER BY 1""",
    SkuSales: """SELECT "sku:s" AS _id, count(*) AS lines, sum("quantity:i64")::BIGINT AS pieces,
      sum("quantity:i64" * "unit_price:d18_2")::DECIMAL(18, 2) AS revenue, count(*) AS _version, max(position) AS _position
      FROM {rows} WHERE type = 'ItemAdded' GROUP BY 1 ORDER BY 1""",
}


#: The state after every event, by running windows over each stream.
EVERY_BY_HAND = {
    Order: """SELECT substr(stream, 7) AS _id,
        coalesce(last_value(CASE type WHEN 'OrderPlaced' THEN 'placed' WHEN 'OrderShipped' THEN 'shipped'
          WHEN 'OrderCancelled' THEN 'cancelled' END IGNORE NULLS) OVER w, 'draft') AS status,
        coalesce(sum(CASE WHEN type = 'ItemAdded' THEN "quantity:i64" * "unit_price:d18_2" END) OVER w, 0)::DECIMAL(18, 2)
          AS total,
        count(*) FILTER (WHERE type = 'ItemAdded') OVER w AS lines, version AS _version, position AS _position
      FROM {rows} WINDOW w AS (PARTITION BY stream ORDER BY version ROWS UNBOUNDED PRECEDING) ORDER BY 1, version""",
    PeakOrder: """WITH s AS (SELECT *, CASE WHEN type = 'ItemAdded' THEN "quantity:i64" * "unit_price:d18_2" ELSE 0 END AS x,
        count(*) FILTER (WHERE type = 'OrderCancelled') OVER w AS season,
        coalesce(last_value(CASE type WHEN 'OrderPlaced' THEN 'placed' WHEN 'OrderCancelled' THEN 'cancelled' END IGNORE NULLS)
          OVER w, 'draft') AS status
        FROM {rows} WINDOW w AS (PARTITION BY stream ORDER BY version ROWS UNBOUNDED PRECEDING)),
      t AS (SELECT *, sum(x) OVER (PARTITION BY stream, season ORDER BY version ROWS UNBOUNDED PRECEDING) AS total FROM s)
      SELECT substr(stream, 7) AS _id, status, total::DECIMAL(18, 2) AS total,
        greatest(max(total) OVER w, 0)::DECIMAL(18, 2) AS peak,
        count(*) FILTER (WHERE type = 'ItemAdded' AND status <> 'draft') OVER w AS late_lines,
        version AS _version, position AS _position
      FROM t WINDOW w AS (PARTITION BY stream ORDER BY version ROWS UNBOUNDED PRECEDING) ORDER BY 1, version""",
}


@dataclass(frozen=True)
class Measured:
    """Events a second of one engine, and what it gave."""

    rate: float
    table: Any


def timed(work: Callable[[], Any], events: int, turns: int) -> Measured:
    """The best of several turns."""
    best, found = float("inf"), None
    for _ in range(turns):
        started = time.perf_counter()
        found = work()
        best = min(best, time.perf_counter() - started)
    return Measured(events / best, found)


def sql(text: str, threads: int) -> pa.Table:
    """A query on a fresh connection."""
    with duckdb.connect(config={"threads": str(threads)}) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute("SET enable_progress_bar = false")
        return connection.sql(text).to_arrow_table()


def main() -> None:
    """Print the table of ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--rows", type=int, default=100_000, help="how many events the row fold is given")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2, help="of the SQL written by hand")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--compact", action="store_true", help="segments sorted by stream instead of position")
    parser.add_argument("--fold", help="fold this model of the store in --folder, and print the peak of memory in MB")
    given = parser.parse_args()
    if given.fold:
        with el.open(given.folder, read_only=True) as lab:
            lab.table(MODELS[given.fold], engine="lifted")
        # What the system says of a process begins with what it was started from: this begins when it does.
        found = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
        print(int(found.split()[1]) // 1024)
        return
    folder = given.folder or Path(tempfile.mkdtemp(prefix="eventlab-lift-"))
    store = folder / f"orders-{given.events}{'-compact' if given.compact else ''}"
    console = Console(width=None if sys.stdout.isatty() else 140)
    with el.open(store) as lab, el.open(folder / f"orders-{given.rows}-rows") as few:
        if not lab.head:
            lab.ingest(orders(given.events).sources(), source="orders")
            if given.compact:
                lab.compact(all=True)
        cut = lab.store.cut()
        files = [path for group in cut.sources("default") for path in group.paths]
        scan = f"read_parquet([{', '.join(repr(f) for f in files)}])"
        plain = folder / f"plain-{given.events}.parquet"
        if not plain.exists():
            sql(f"COPY (SELECT * FROM {scan} ORDER BY position) TO '{plain}' (FORMAT parquet, COMPRESSION zstd)", given.threads)
        if not few.head:
            few.ingest(orders(given.rows).sources(), source="orders")
        short = few.store.cut()
        table = Table(title=f"{cut.head:,} events, M events/s (× the row fold)")
        for heading in ("fold", "rows", "loop", "lifted", "auto", "by hand", "by hand, plain", "lifted / by hand",
                        "lifted / plain", "MB"):  # fmt: skip
            table.add_column(heading, justify="left" if heading == "fold" else "right")
        for cls in MODELS.values():
            table.add_row(*compared(cls, cut, short, scan, str(plain), given), resident(store, cls))
        console.print(table)
        if cut.head > 10_000_000:
            return  # a row for each event would not fit in memory, and neither would that of the SQL by hand
        table = Table(title="the state after every event, M events/s (× the row fold)")
        for heading in ("fold", "rows", "loop", "lifted", "by hand", "lifted / by hand"):
            table.add_column(heading, justify="left" if heading == "fold" else "right")
        for cls in (Order, PeakOrder):
            table.add_row(*every(cls, cut, short, scan, given))
        console.print(table)


MODELS: dict[str, type[Any]] = {cls.__name__: cls for cls in (Order, ResetOrder, PeakOrder, SkuSales)}


def resident(store: Path, cls: type[Any]) -> str:
    """The peak of resident memory of one lifted fold, in MB."""
    command = [sys.executable, __file__, "--folder", str(store), "--fold", cls.__name__]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def every(cls: type[Any], cut: Any, short: Any, scan: str, given: argparse.Namespace) -> list[str]:
    """One line of the table of every version."""
    model = model_of(cls)
    right = fold_versions(model, short, "default", short.head, engine="rows")
    meant = timed(lambda: fold_versions(model, short, "default", short.head, engine="rows"), short.head, given.turns)
    shown = [cls.__name__, f"{meant.rate / 1e6:.2f}"]
    for engine in ("loop", "lifted"):
        found = fold_versions(model, short, "default", short.head, engine=engine)
        assert found.equals(right), f"{cls.__name__}: {engine} is not the row fold"
    # The loop keeps a state an event: what it takes is measured where the row fold is.
    looped = timed(lambda: fold_versions(model, short, "default", short.head, engine="loop"), short.head, given.turns)
    shown.append(f"{looped.rate / 1e6:.2f} ({looped.rate / meant.rate:.0f}×)")
    hand = EVERY_BY_HAND[cls].format(rows=scan)
    whole = fold_versions(model, cut, "default", cut.head, engine="lifted")
    by_hand = sql(hand, given.threads).cast(whole.schema)
    assert by_hand.equals(whole), f"{cls.__name__}: the SQL written by hand is not the fold"
    del by_hand, whole
    turns: dict[str, float] = {}
    for _ in range(given.turns):
        for name, work in {
            "lifted": lambda: fold_versions(model, cut, "default", cut.head, engine="lifted"),
            "by hand": lambda: sql(hand, given.threads),
        }.items():
            turns[name] = max(turns.get(name, 0), timed(work, cut.head, 1).rate)
    lifted, own = turns["lifted"], turns["by hand"]
    return [*shown, f"{lifted / 1e6:.2f} ({lifted / meant.rate:.0f}×)", f"{own / 1e6:.2f}", f"{lifted / own:.2f}"]


def compared(cls: type[Any], cut: Any, short: Any, scan: str, plain: str, given: argparse.Namespace) -> list[str]:
    """One line of the table."""
    model = model_of(cls) if not hasattr(cls, "__eventlab_model__") else cls.__eventlab_model__
    few = min(given.rows, cut.head)
    right = fold_table(model, cut, "default", few, engine="rows")
    meant = timed(lambda: fold_table(model, short, "default", short.head, engine="rows"), short.head, given.turns)
    shown = [cls.__name__, f"{meant.rate / 1e6:.2f}"]
    rates = {}
    for engine in ("loop", "lifted", "auto"):
        assert fold_table(model, cut, "default", few, engine=engine).equals(right), (
            f"{cls.__name__}: {engine} is not the row fold"
        )
        of = short if engine == "loop" and cut.head > 5_000_000 else cut
        found = timed(lambda engine=engine, of=of: fold_table(model, of, "default", of.head, engine=engine), of.head, given.turns)
        rates[engine] = found.rate
        shown.append(f"{found.rate / 1e6:.2f} ({found.rate / meant.rate:.0f}×)")
    hand = BY_HAND.get(cls)
    if hand is None:
        return [*shown, "", "", "", ""]
    whole = fold_table(model, cut, "default", cut.head, engine="lifted")
    by_hand = sql(hand.format(rows=scan), given.threads).cast(whole.schema)
    assert by_hand.equals(whole), f"{cls.__name__}: the SQL written by hand is not the fold"
    own = timed(lambda: sql(hand.format(rows=scan), given.threads), cut.head, given.turns)
    flat = timed(lambda: sql(hand.format(rows=f"'{plain}'"), given.threads), cut.head, given.turns)
    ratios = [f"{rates['lifted'] / of.rate:.2f}" for of in (own, flat)]
    return [*shown, f"{own.rate / 1e6:.2f}", f"{flat.rate / 1e6:.2f}", *ratios]


if __name__ == "__main__":
    main()
