"""Questions about the past beside the best SQL written by hand, on the same files: as-of, intervals, differences, one history.

    python tests/benchmarks/temporal.py [--events 1000000] [--turns 3] [--folder DIR]

Every answer is compared with that of the other side before its time is shown. The log has ten events an order, interleaved, and
is compacted. Only the ratios are to be believed; a ratio above 1 is in our favour.
"""

from __future__ import annotations

import argparse
import itertools
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
from generate import orders
from lift import BY_HAND, Order, sql
from rich.console import Console
from turns import Row, Turns, machine, shown

import eventlab as el

#: What changes the status of an order, and to what.
_STATUS = """CASE type WHEN 'OrderPlaced' THEN 'placed' WHEN 'OrderShipped' THEN 'shipped'
  WHEN 'OrderCancelled' THEN 'cancelled' END"""
#: The first event begins the first interval; after it only events that change the status begin one.
INTERVALS = f"""WITH s AS (
    SELECT substr(stream, 7) AS _id, version, position, recorded_at,
      coalesce({_STATUS}, CASE version WHEN 1 THEN 'draft' END) AS status
    FROM {{rows}}),
  kept AS (SELECT * FROM s WHERE status IS NOT NULL
    QUALIFY status IS DISTINCT FROM lag(status) OVER (PARTITION BY _id ORDER BY version))
  SELECT _id, status, recorded_at AS _from, lead(recorded_at) OVER (PARTITION BY _id ORDER BY version) AS _to,
    version AS _version, position AS _position
  FROM kept ORDER BY _id, position"""
#: With running sums; an event that changes nothing begins no interval.
ALL_FIELDS = f"""WITH s AS (
    SELECT substr(stream, 7) AS _id, version, position, recorded_at,
      coalesce(last_value({_STATUS} IGNORE NULLS) OVER w, 'draft') AS status,
      sum(CASE WHEN type = 'ItemAdded' THEN "quantity:i64" * "unit_price:d18_2" ELSE 0 END) OVER w AS total,
      count(*) FILTER (WHERE type = 'ItemAdded') OVER w AS lines
    FROM {{rows}} WINDOW w AS (PARTITION BY stream ORDER BY version ROWS UNBOUNDED PRECEDING)),
  kept AS (SELECT * FROM s QUALIFY (status, total, lines) IS DISTINCT FROM lag((status, total, lines)) OVER
    (PARTITION BY _id ORDER BY version))
  SELECT _id, status, total, lines, recorded_at AS _from, lead(recorded_at) OVER (PARTITION BY _id ORDER BY version) AS _to,
    version AS _version, position AS _position
  FROM kept ORDER BY _id, position"""
_TOTAL = '"quantity:i64" * "unit_price:d18_2"'
#: Both states of each order in one pass, and the events in between by the field that they change.
DIFF = f"""WITH f AS (
    SELECT substr(stream, 7) AS _id, min(position) AS born,
      coalesce(arg_max({_STATUS}, position) FILTER (WHERE position <= {{at}}), 'draft') AS status_a,
      coalesce(arg_max({_STATUS}, position), 'draft') AS status_b,
      coalesce(sum({_TOTAL}) FILTER (WHERE type = 'ItemAdded' AND position <= {{at}}), 0)::DECIMAL(18, 2) AS total_a,
      coalesce(sum({_TOTAL}) FILTER (WHERE type = 'ItemAdded'), 0)::DECIMAL(18, 2) AS total_b,
      count(*) FILTER (WHERE type = 'ItemAdded' AND position <= {{at}}) AS lines_a,
      count(*) FILTER (WHERE type = 'ItemAdded') AS lines_b,
      list(position ORDER BY position) FILTER (WHERE position > {{at}} AND ({_STATUS}) IS NOT NULL) AS at_status,
      list(position ORDER BY position) FILTER (WHERE position > {{at}} AND type = 'ItemAdded') AS at_items
    FROM {{rows}} GROUP BY stream)
  SELECT _id, '_row' AS field, NULL AS before, 'there' AS after, [born] AS events FROM f WHERE born > {{at}}
  UNION ALL SELECT _id, 'status', status_a, status_b, at_status FROM f WHERE born <= {{at}} AND status_a <> status_b
  UNION ALL SELECT _id, 'total', total_a::VARCHAR, total_b::VARCHAR, at_items FROM f WHERE born <= {{at}} AND total_a <> total_b
  UNION ALL SELECT _id, 'lines', lines_a::VARCHAR, lines_b::VARCHAR, at_items FROM f WHERE born <= {{at}} AND lines_a <> lines_b
  ORDER BY _id, field"""


def measured(events: int, turns: int, folder: Path) -> list[Row]:
    """The comparisons."""
    rows: list[Row] = []
    with el.open(folder / "log", maintain=False) as lab, el.open(folder / "half", maintain=False) as half:
        log, middle = orders(events), events // 2
        lab.ingest(log.sources(), source="orders", recorded_at="occurred_at")
        half.ingest(log.slice(0, middle).sources(), source="orders", recorded_at="occurred_at")
        for of in (lab, half):
            of.seal()
            of.compact(all=True)
        files = [path for group in lab.store.cut().sources("default") for path in group.paths]
        scan = f"read_parquet([{', '.join(map(repr, files))}])"

        def by_hand(text: str) -> pl.DataFrame:
            return pl.DataFrame(pl.from_arrow(sql(text, 2)))

        def compared(
            what: str, against: str, ours: Callable[[], Any], theirs: Callable[[], Any], floor: str, least: float,
            same: Callable[[Any, Any], bool] = lambda a, b: a.equals(b),
        ) -> None:
            times = Turns()
            for _ in range(turns):
                times.take("ours", ours)
                times.take("theirs", theirs)
            mine, other = times.best("ours"), times.best("theirs")
            equal = same(times.answers["ours"], times.answers["theirs"])
            met = other / mine >= least
            rows.append(Row(what, 1000 * mine, 1000 * other, against, other / mine, "ms", events, equal, floor, met))

        until = scan.removesuffix(")") + f") WHERE position <= {middle}"
        compared(
            "every order as of the middle", "the fold of a log that ends there",
            lambda: lab.at(position=middle).table(Order, engine="lifted"),
            lambda: half.table(Order, engine="lifted"), "at most its cost", 0.9,
        )  # fmt: skip
        compared(
            "every order as of the middle", "DuckDB by hand", lambda: lab.at(position=middle).table(Order, engine="lifted"),
            lambda: by_hand(BY_HAND[Order].format(rows=until)), "1.1× at most", 1 / 1.1, same=_same,
        )  # fmt: skip
        compared(
            "intervals of the status of every order", "DuckDB by hand", lambda: lab.intervals(Order, fields=["status"]),
            lambda: by_hand(INTERVALS.format(rows=scan)), "1.3× at most", 1 / 1.3, same=_same,
        )  # fmt: skip
        late = events * 99 // 100
        compared(
            "intervals of all fields of every order", "DuckDB by hand", lambda: lab.intervals(Order),
            lambda: by_hand(ALL_FIELDS.format(rows=scan)), "1.3× at most", 1 / 1.3, same=_same,
        )  # fmt: skip
        compared(
            "what the last hundredth changed, and by which events", "DuckDB by hand", lambda: lab.diff(Order, late, events),
            lambda: by_hand(DIFF.format(rows=scan, at=late)), "1.3× at most", 1 / 1.3, same=_same,
        )  # fmt: skip
        some = lab.table(Order)["_id"][events // 40]
        compared(
            "the history of one order's status", "10 ms", lambda: lab.history(Order, some, "status"), lambda: time.sleep(0.01),
            "below 10 ms", 1, same=lambda a, b: len(a) > 1,
        )  # fmt: skip
        lab.rebuild(Order)
        more = orders(events + events // 100).slice(events, events + events // 100)
        lab.ingest(more.sources(), source="more", recorded_at="occurred_at")
        # What a moment was asked once it knows: each turn asks another.
        asked = itertools.count(events + len(more) // 2)
        compared(
            "every order near a checkpoint", "the fold of everything", lambda: lab.at(position=next(asked)).table(Order),
            lambda: lab.table(Order, engine="lifted"), "a tenth of it", 10, same=lambda a, b: len(a) <= len(b),
        )  # fmt: skip
    return rows


def _same(ours: pl.DataFrame, theirs: pl.DataFrame) -> bool:
    """Equal in values; what differs in type alone is cast."""
    return ours.equals(theirs.select(ours.columns).cast(dict(ours.schema)), null_equal=True)  # type: ignore[arg-type]


def main() -> int:
    """From the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--folder", type=Path)
    given = parser.parse_args()
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        rows = measured(given.events, given.turns, Path(folder))
        Console().print(shown(rows, machine(Path(folder)), time.perf_counter() - started))
    print(f"most memory held: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB")
    return 0 if all(row.equal for row in rows) else 1


if __name__ == "__main__":
    raise SystemExit(main())
