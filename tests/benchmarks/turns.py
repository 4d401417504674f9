"""How the benchmarks measure and show: contestants that take turns, ratios, and a table of them."""

from __future__ import annotations

import gc
import os
import shutil
import sqlite3
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, TypeVar

import duckdb
import polars as pl
from rich.table import Table

from eventlab.store.files import file_system

A = TypeVar("A")

#: What eventlab is compared with where it is installed.
PEERS: Final = ("eventsourcing", "umadb")

#: Turns of a computation, of work that takes milliseconds, and of things that wait for the disk.
LONG, SHORT, DISK = 3, 7, 7


@dataclass(frozen=True)
class Row:
    """One comparison. `ratio` is above 1 where ours is better; `equal` says that both sides gave the same answer.

    `floor` is the least that is asked of us, in words, and `met` whether it was reached here.
    """

    what: str
    ours: float
    theirs: float
    against: str
    ratio: float
    unit: str
    n: int
    equal: bool
    floor: str = ""
    met: bool = True


class Turns:
    """Times of several contestants that take turns, and what each of them answered last."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = defaultdict(list)
        self.answers: dict[str, Any] = {}
        # What is there already is not walked again by the collector in the middle of somebody's turn.
        gc.collect()
        gc.freeze()

    def take(self, name: str, work: Callable[[], A]) -> A:
        """One turn."""
        started = time.perf_counter()
        answer = work()
        self.seconds[name].append(time.perf_counter() - started)
        self.answers[name] = answer
        return answer

    def best(self, name: str) -> float:
        return min(self.seconds[name])

    def median(self, name: str) -> float:
        return statistics.median(self.seconds[name])


def rate(what: str, against: str, n: int, ours: float, theirs: float, equal: bool) -> Row:
    """Both sides did `n` events in so many seconds."""
    return Row(what, n / ours, n / theirs, against, theirs / ours, "events/s", n, equal)


def each(what: str, against: str, n: int, ours: float, theirs: float, equal: bool, *, times: int = 1) -> Row:
    """Both sides did something `times` times in so many seconds, over `n` events."""
    return Row(what, 1000 * ours / times, 1000 * theirs / times, against, theirs / ours, "ms", n, equal)


def machine(folder: Path) -> dict[str, Any]:
    """Where the figures come from."""
    return {
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "file system": file_system(folder) or "unknown",
        "python": sys.version.split()[0],
        "duckdb": duckdb.__version__,
        "polars": pl.__version__,
        "pyarrow": version("pyarrow"),
        "sqlite": sqlite3.sqlite_version,
        **{name: version(name) for name in PEERS if find_spec(name) is not None},
    }


def shown(rows: list[Row], about: dict[str, Any], seconds: float) -> Table:
    """The comparisons as a table; green where we are ahead, red where we are behind."""
    table = Table(
        title="eventlab, measured in turns; a ratio above 1 is in its favour",
        caption=f"{', '.join(f'{value} {name}' if name == 'cores' else f'{name} {value}' for name, value in about.items())}; "
        f"{seconds:.0f} s",
    )
    floors = any(row.floor for row in rows)
    for heading in ("what", "ours", "theirs", "beside", "ratio", "unit", "events or rows", *(["floor"] if floors else [])):
        words = heading in ("what", "beside", "unit", "floor")
        table.add_column(heading, justify="left" if words else "right", overflow="fold")
    for row in rows:
        colour = "green" if row.ratio >= 1 else "red"
        ratio = f"[{colour}]{number(row.ratio)}[/{colour}]" if row.equal else "[bold red]ANSWERS DIFFER[/bold red]"
        cells = [row.what, number(row.ours), number(row.theirs), row.against, ratio, row.unit, f"{row.n:,}"]
        table.add_row(*cells, *([row.floor if row.met else f"[red]{row.floor}: missed[/red]"] if floors else []))
    return table


def number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


@contextmanager
def workplace(named: str | None) -> Iterator[Path]:
    """A new folder on the disk that is measured, removed at the end."""
    folder = Path(tempfile.mkdtemp(prefix="eventlab-benchmark-", dir=named))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
