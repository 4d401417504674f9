"""Read models beside what a person would write by hand, on the same events and disk.

    python tests/benchmarks/read_models.py [--events 10000000] [--new 10000] [--folder DIR]

Everything is measured in this one process, in turns; only the ratios are to be believed. Answers are compared, too.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.compute as pc
from generate import ItemAdded, Order, orders

import eventlab as el
from eventlab.model.models import model_of
from eventlab.projections import read_models
from eventlab.replay.lift import fold_table

TURNS = 5


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds, and the answer."""
    started = time.perf_counter()
    answer = work()
    return time.perf_counter() - started, answer


def merged_by_hand(base: pl.DataFrame, new: pl.DataFrame) -> pl.DataFrame:
    """What a person would write to bring a frame of orders up to date with new items: one group, one join."""
    sums = new.group_by("_id").agg((pl.col("quantity") * pl.col("unit_price")).sum().alias("more"), pl.len().alias("n"))
    joined = base.join(sums, on="_id", how="full", coalesce=True)
    return joined.with_columns(
        (pl.col("total").fill_null(0) + pl.col("more").fill_null(0)).alias("total"),
        (pl.col("_version").fill_null(0) + pl.col("n").fill_null(0)).alias("_version"),
    ).drop("more", "n")


def apart(lab: el.Lab, base: Any, cut: Any) -> None:
    """The bare base as one table, and by itself the fold of what came since."""
    lab.store.read_models.accepted("default")["order"].whole()
    fold_table(model_of(Order), cut, "default", cut.head, after=base.position, base=base.rows_of)


def measure(events: int, new: int, folder: Path) -> list[dict[str, Any]]:
    """The rows of the table."""
    rows: list[dict[str, Any]] = []
    log = orders(events)
    of = model_of(Order)

    def row(what: str, against: str, ours: float, theirs: float, floor: str, *, less: bool = True) -> None:
        ratio = ours / theirs if less else theirs / ours
        rows.append(
            {"what": what, "against": against, "ours": ours, "theirs": theirs, "ratio": ratio, "floor": floor, "equal": True}
        )

    with el.open(folder / "log", maintain=False) as lab:
        lab.ingest(log.sources(), source="orders", recorded_at="occurred_at")
        lab.compact(all=True)
        del log
        cut = lab.store.cut()
        # Rebuild to files, beside the bare fold.
        whole, bare = [], []
        for _ in range(3):
            whole.append(timed(lambda: lab.rebuild(Order))[0])
            bare.append(timed(lambda: fold_table(of, cut, "default", cut.head))[0])
        row("rebuild to durable files", "the bare fold", min(whole), min(bare), "≥ 0.85", less=False)
        ids = lab.table(Order)["_id"].to_list()
        # Catch-up beside a merge by hand in memory, of the same events.
        ours, hand = [], []
        for turn in range(TURNS):
            some = [ids[(i * 7919 + turn) % len(ids)] for i in range(new)]
            for begin in range(0, new, 1000):
                names = dict.fromkeys(some[begin : begin + 1000])
                lab.append({f"order-{name}": [ItemAdded("hat", 1, el.money("2.50"))] for name in names})
            base = next(b for b in lab.store.read_models.of("default", "order") if b.state == "accepted")
            frame = pl.DataFrame(pl.from_arrow(base.table()))
            fresh = lab.read(el.events(ItemAdded), after=base.position).frame()
            seconds, by_hand = timed(partial(merged_by_hand, frame, fresh))
            hand.append(seconds)
            seconds, done = timed(lambda: lab.catch_up(Order))
            ours.append(seconds)
            table = lab.store.read_models.accepted("default")["order"].table()
            assert pc.sum(table["total"]).as_py() == by_hand["total"].sum()
            assert done.events == len(fresh)
        row(f"catch up with {new:,} events", "a merge by hand in memory", min(ours), min(hand), "≤ 3", less=True)
        row(f"catch up with {new:,} events", "the rebuild", min(ours), min(whole), "≤ 0.02", less=True)
        # Reading with a tail.
        tails, parts = [], []
        for turn in range(TURNS):
            names = ids[turn * new : turn * new + new]
            lab.append({f"order-{name}": [ItemAdded("hat", 1, el.money("2.50"))] for name in names})
            base = lab.store.read_models.accepted("default")["order"]
            cut = lab.store.cut()
            read, both = partial(read_models.current, of, cut, "default", cut.head, base), partial(apart, lab, base, cut)
            # Whoever comes first decodes the hot tail for both, so they take turns.
            if turn % 2:
                parts.append(timed(both)[0])
            tails.append(timed(read)[0])
            if not turn % 2:
                parts.append(timed(both)[0])
            lab.catch_up(Order)
        row(f"read with {new:,} events in the tail", "the base, and the fold of these", min(tails), min(parts), "≤ 1.5")
    # Live.
    with el.open(folder / "live", maintain=False) as lab:
        lab.append("order-1", [ItemAdded("hat", 1, el.money("2.50"))])
        runner = lab.run(Order, background=True)
        lab.wait(1, Order)
        waits = []
        for _ in range(100):
            done = lab.append("order-1", [ItemAdded("hat", 1, el.money("2.50"))])
            waits.append(timed(partial(lab.wait, done.positions[-1], Order))[0])
        row("event to read model, live, median", "50 ms", statistics.median(waits), 0.05, "≤ 1")
        time.sleep(0.5)
        threads, cpu, started = threading.active_count(), time.process_time(), time.monotonic()
        time.sleep(5)
        used = (time.process_time() - cpu) / (time.monotonic() - started)
        row("idle runner, of one core", "1 %", used, 0.01, "≤ 1")
        runner.stop()
        assert threads > 1
    return rows


def main() -> int:
    """From the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--new", type=int, default=10_000)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(dir=given.folder))
    try:
        rows = measure(given.events, given.new, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if given.json:
        print(json.dumps({"rows": rows}))
        return 0
    for of in rows:
        times = f"{of['ours'] * 1000:10.2f} ms {of['theirs'] * 1000:10.2f} ms"
        print(f"{of['what']:40} {of['against']:34} {times} {of['ratio']:8.3f}  {of['floor']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
