"""Whether several read models should share the reading of the log, by engine; on the same events, in one process.

    python tests/benchmarks/sharing.py [--events 1000000] [--folder DIR]

Queries: each over the files, against the rows of one part made once as an Arrow table, and each over that table. Folds that do
not lift: one model after another, against all at once. Only the ratios are to be believed.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from generate import ItemAdded, Order, OrderPlaced, orders

import eventlab as el
from eventlab.model.models import model_of
from eventlab.replay.lift import plan_of
from eventlab.replay.lift.lifted import Lifting, connect
from eventlab.replay.lift.scan import scan_of

TURNS = 5


@el.projection
class UnitsOfSku:
    """Lifts."""

    sold: int = 0

    @staticmethod
    def key(event: ItemAdded) -> str:
        return event.sku

    def evolve(self, event: ItemAdded) -> Self:
        return replace(self, sold=self.sold + event.quantity)


@el.projection
class SkuMix:
    """Does not lift: its value depends on all that came before."""

    mix: int = 0

    @staticmethod
    def key(event: ItemAdded) -> str:
        return event.sku

    def evolve(self, event: ItemAdded) -> Self:
        return replace(self, mix=(self.mix * 7 + event.quantity) % 1009)


@el.projection
class OrderMix:
    """Does not lift, a row a stream."""

    mix: int = 0

    @staticmethod
    def key(event: ItemAdded, meta: el.Meta) -> str:
        return meta.stream

    def evolve(self, event: ItemAdded) -> Self:
        return replace(self, mix=(self.mix * 31 + event.quantity) % 1009)


@el.projection
class PlacedMix:
    """Does not lift, of two types."""

    mix: int = 0

    @staticmethod
    def key(event: ItemAdded | OrderPlaced, meta: el.Meta) -> str:
        return meta.stream[-3:]

    def evolve(self, event: ItemAdded | OrderPlaced) -> Self:
        return replace(self, mix=(self.mix * 7 + 1) % 1009)


def least(work: Callable[[], Any], turns: int = TURNS) -> float:
    """Seconds, the least of some turns."""
    found = []
    for _ in range(turns):
        started = time.perf_counter()
        work()
        found.append(time.perf_counter() - started)
    return min(found)


def queries(lab: el.Lab) -> None:
    """What a table of a part costs, and what it saves."""
    cut, connection = lab.store.cut(), connect()
    for cls in (Order, UnitsOfSku):
        of = model_of(cls)
        plan = plan_of(of, cut)
        scan = scan_of(of, plan.kinds, plan.analysis.events, cut, "default", cut.head, connection)
        scan = scan.of_part(scan.parts[0]) if scan.parts else scan

        def text(of_scan: Any, plan: Any = plan) -> str:
            return Lifting(plan.model, plan.analysis, plan.fields, of_scan, "default", part=True).query().sql

        direct, shared = text(scan), text(replace(scan, sql="SELECT * FROM part_rows"))
        files = least(lambda direct=direct: connection.sql(direct).to_arrow_table())  # type: ignore[misc]
        made = least(lambda scan=scan: connection.sql(scan.sql).to_arrow_table())  # type: ignore[misc]
        rows = connection.sql(scan.sql).to_arrow_table()
        connection.register("part_rows", rows)
        over = least(lambda shared=shared: connection.sql(shared).to_arrow_table())  # type: ignore[misc]
        print(
            f"{cls.__name__:12} over the files {files * 1000:6.0f} ms; {len(rows):,} rows as a table ({rows.nbytes >> 20} MB) "
            f"{made / files:5.2f} of that, a query over the table {over / files:5.2f}"
        )


def folds(lab: el.Lab) -> None:
    """One after another, and together, in turns."""
    models = (SkuMix, OrderMix, PlacedMix)
    alone, together = [], []
    for _ in range(TURNS):
        alone.append(least(lambda: [lab.rebuild(model) for model in models], 1))
        together.append(least(lambda: lab.rebuild(*models), 1))
    ratio = min(together) / min(alone)
    print(f"three folds that do not lift: {min(alone):.2f} s one by one, {min(together):.2f} s together, ratio {ratio:.2f}")


def main() -> int:
    """From the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path)
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(dir=given.folder))
    try:
        with el.open(folder / "log", maintain=False) as lab:
            lab.ingest(orders(given.events).sources(), source="orders", recorded_at="occurred_at")
            lab.compact(all=True)
            queries(lab)
            folds(lab)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
