"""Discovery beside the best single SQL statement written by hand, on the same files: process map, variants, conformance.

    python tests/benchmarks/discovery.py [--events 1000000] [--turns 3]

`lab.discover` gives all of it at once; by hand each is a statement of its own, and it is compared with the three together. The
answers are compared before any time is shown. A ratio above 1 is in our favour; the floor is 1.3 times theirs.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import polars as pl
from generate import orders
from lift import sql
from rich.console import Console
from turns import Row, Turns, machine, shown

import eventlab as el

_NEXT = """SELECT stream, version, type, lead(type) OVER w AS nxt,
  epoch_us(lead(occurred_at) OVER w) - epoch_us(occurred_at) AS dt FROM {rows}"""
MAP = f"""SELECT type AS step, nxt AS "then", count(*) AS n, count(DISTINCT stream) AS streams, min(dt), median(dt), avg(dt)
  FROM ({_NEXT} WINDOW w AS (PARTITION BY stream ORDER BY version)) WHERE nxt IS NOT NULL
  GROUP BY ALL ORDER BY n DESC, step, "then" """
VARIANTS = """SELECT way, count(*) AS n FROM (SELECT string_agg(type, ' → ' ORDER BY version) AS way FROM {rows} GROUP BY stream)
  GROUP BY way ORDER BY n DESC, way"""
TYPES = """SELECT type, count(*) AS n, count(DISTINCT stream), min(position), max(position), min(occurred_at), max(occurred_at),
  count("customer:s"), count("sku:s"), count("quantity:i64"), count("unit_price:d18_2"), count("channel:s"), count("carrier:s")
  FROM {rows} GROUP BY type ORDER BY type"""


def measured(events: int, turns: int, folder: Path) -> list[Row]:
    """The comparisons."""
    with el.open(folder / "log", maintain=False) as lab:
        lab.ingest(orders(events).sources(), source="orders", recorded_at="occurred_at")
        lab.compact(all=True)
        files = [path for group in lab.store.cut().sources("default") for path in group.paths]
        scan = f"read_parquet([{', '.join(map(repr, files))}])"
        process = el.Process.of(lab.discover())
        pairs = ", ".join(f"('{move.step}', '{move.then}')" for move in process.moves if move.step and move.then)
        held = f"""WITH d(a, b) AS (VALUES {pairs}), f AS (SELECT type AS a, nxt AS b, count(*) AS n FROM
          ({_NEXT.format(rows=scan)} WINDOW w AS (PARTITION BY stream ORDER BY version)) WHERE nxt IS NOT NULL GROUP BY ALL)
          SELECT a, b, n FROM f FULL JOIN d USING (a, b) WHERE d.a IS NULL OR f.a IS NULL"""

        def by_hand(text: str) -> pl.DataFrame:
            return pl.DataFrame(pl.from_arrow(sql(text.format(rows=scan), 2)))

        rows: list[Row] = []

        def compared(what: str, ours: object, theirs: object, same: object) -> None:
            times = Turns()
            for _ in range(turns):
                times.take("ours", ours)  # type: ignore[arg-type]
                times.take("theirs", theirs)  # type: ignore[arg-type]
            mine, other = times.best("ours"), times.best("theirs")
            equal = same(times.answers["ours"], times.answers["theirs"])  # type: ignore[operator]
            met = other / mine >= 1 / 1.3
            rows.append(
                Row(what, 1000 * mine, 1000 * other, "DuckDB by hand", other / mine, "ms", events, equal, "1.3× at most", met)
            )

        compared(
            "map, variants and types: discover", lab.discover, lambda: [by_hand(text) for text in (MAP, VARIANTS, TYPES)],
            lambda a, b: all(
                mine.to_list() == theirs["n"].to_list()
                for mine, theirs in zip((a.map["count"], a.variants["streams"], a.types["events"]), b, strict=True)
            ),
        )  # fmt: skip
        compared(
            "deviations from a process: conform", lambda: lab.conform(process), lambda: by_hand(held),
            lambda a, b: len(a.deviations) == len(b) == 0,
        )  # fmt: skip
    return rows


def main() -> int:
    """From the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--turns", type=int, default=3)
    given = parser.parse_args()
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        rows = measured(given.events, given.turns, Path(folder))
        Console(width=140).print(shown(rows, machine(Path(folder)), time.perf_counter() - started))
    return 0 if all(row.equal for row in rows) else 1


if __name__ == "__main__":
    raise SystemExit(main())
