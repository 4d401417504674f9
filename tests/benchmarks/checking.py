"""What a check costs beside one row fold of the same events, in turns, in fresh processes and in this one.

    python tests/benchmarks/checking.py [--events 300000] [--turns 3]
    python tests/benchmarks/checking.py --large 10000000

A floor: "quick" takes at most twice the time of one row fold. "standard" folds five times and tries every other way, on both
cores; the most memory that any of its processes held is shown beside. `--large` runs one standard check of a fold that lifts.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

import eventlab as el
from eventlab.model.models import model_of
from eventlab.replay.lift import fold_table

sys.path.insert(0, str(Path(__file__).parent))
from generate import orders
from lift import Order, SkuSales


def measured(events: int, turns: int, folder: Path) -> list[tuple[str, str, float, float]]:
    """For each model: level, seconds of the check, and its ratio to one row fold; the best of so many turns each."""
    rows = []
    with el.open(folder / "log", maintain=False) as lab:
        lab.ingest(orders(events).sources(), source="orders")
        for model in (Order, SkuSales):
            best: dict[str, float] = {}
            for _ in range(turns):
                for what in ("fold", "quick", "standard"):
                    started = time.perf_counter()
                    if what == "fold":
                        fold_table(model_of(model), lab.store.cut(), "default", lab.head, engine="rows")
                    else:
                        (report,) = lab.check(model, level=what, sample=1)  # type: ignore[arg-type]
                        assert report.ok, report
                    best[what] = min(best.get(what, 1e9), time.perf_counter() - started)
            rows += [(model.__name__, what, seconds, seconds / best["fold"]) for what, seconds in best.items()]
    return rows


def large(events: int, folder: Path) -> bool:
    """One standard check of so many events: its time, the cores it kept busy, its memory; whether it found nothing."""
    with el.open(folder / "log", maintain=False) as lab:
        lab.ingest(orders(events).sources(), source="orders")
        started, before = time.perf_counter(), _worked()
        (report,) = lab.check(Order, level="standard")
        seconds = time.perf_counter() - started
    print(report)
    print(*report.details, sep="\n")
    print(f"{seconds:,.0f} s; {(_worked() - before) / seconds:.2f} cores busy")
    return report.ok


def _worked() -> float:
    """Seconds of processors, of this process and those that it started and saw end."""
    both = [resource.getrusage(of) for of in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(of.ru_utime + of.ru_stime for of in both)


def main() -> int:
    """From the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=300_000)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--large", type=int, default=0, help="one standard check of so many events, and nothing else")
    given = parser.parse_args()
    if given.large:
        with tempfile.TemporaryDirectory() as folder:
            good = large(given.large, Path(folder))
        _print_memory()
        return 0 if good else 1
    with tempfile.TemporaryDirectory() as folder:
        rows = measured(given.events, given.turns, Path(folder))
    table = Table(title=f"checks of {given.events:,} events")
    for heading in ("model", "what", "s", "× one row fold", "floor"):
        table.add_column(heading, justify="left" if heading in ("model", "what") else "right")
    for model, what, seconds, ratio in rows:
        table.add_row(model, what, f"{seconds:.2f}", f"{ratio:.2f}", "2" if what == "quick" else "")
    Console().print(table)
    _print_memory()
    return 0


def _print_memory() -> None:
    own, most = (resource.getrusage(of).ru_maxrss / 2**20 for of in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    print(f"the most memory that a process of a check held: {most:.2f} GiB; this one: {own:.2f} GiB")


if __name__ == "__main__":
    raise SystemExit(main())
