"""The store beside raw SQLite, plain Parquet files, `eventsourcing` and UmaDB, on the same events and disk.

    python tests/benchmarks/store.py [--events 1M] [--large 50M] [--only NAME,…] [--json] [--folder DIR]

Everything is measured in turns (ours, theirs, ours, theirs, …) and the best turn of each counts; only ratios are to be
believed: above 1 we are so many times as good, below 1 so many times worse. The answers of both sides are compared, too: a
row whose answers differ is an error. A floor that is missed is shown and is none: the machine may have had other work.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import random
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import polars as pl
from appenders import APPENDERS, LIBRARY, OURS, RAW, SERVED, absent, lines
from by_hand import by_stream_ids, plain_table, random_ids, segments, write_files
from generate import Log, Order, orders
from layouts import LARGE_EFFORT, LARGE_EVENTS, LAYOUTS, SMALL, SMALL_EVENTS, Effort, Layouts, opened
from rich.console import Console
from turns import Row, Turns, each, machine, rate, shown, workplace
from workers import ingest_in_a_process, place, writers, writing

import eventlab as el
from eventlab.store.base import Chunk, ChunkState
from eventlab.store.disk import DiskStore

#: So many events are made and ingested at a time for the large log.
BLOCK_EVENTS: Final = 5_000_000
BY_HAND: Final = "PyArrow write, fsync"
SQL: Final = "plain Parquet files"

COUNT: Final = "SELECT {type} AS type, count(*) AS events FROM {log} GROUP BY 1 ORDER BY 1"
FOLD: Final = (
    "SELECT {stream} AS stream, sum({quantity} * {price}) AS total, count(*) FILTER ({type} = 'ItemAdded') AS lines "
    "FROM {log} GROUP BY 1"
)
OURS_NAMES: Final = {
    "type": "_type", "stream": "_stream", "quantity": "quantity", "price": "unit_price", "log": 'events."order"',
}  # fmt: skip
PLAIN_NAMES: Final = {
    "type": "type", "stream": "stream", "quantity": "quantity", "price": "unit_price", "log": "read_parquet(?)",
}  # fmt: skip
SEGMENT_NAMES: Final = PLAIN_NAMES | {"quantity": '"quantity:i64"', "price": '"unit_price:d18_2"'}
STATES: Final = """
SELECT substr(stream, 7) AS id,
       coalesce(arg_max(CASE type WHEN 'OrderPlaced' THEN 'placed' WHEN 'OrderShipped' THEN 'shipped'
                                  WHEN 'OrderCancelled' THEN 'cancelled' END, seq), 'draft') AS status,
       coalesce(sum(quantity * unit_price), 0)::DECIMAL(18, 2) AS total,
       count(*) FILTER (type = 'ItemAdded') AS lines
FROM read_parquet(?) WHERE list_contains(?, substr(stream, 7)) GROUP BY 1
"""



def floored(row: Row, floor: str, met: bool) -> Row:
    """A row with the least that is asked of us."""
    return dataclasses.replace(row, floor=floor, met=met)


def ratio_floor(row: Row, least: float) -> Row:
    return floored(row, f"ratio ≥ {least:.2g}", row.ratio >= least)


# -- append ----------------------------------------------------------------------------------------------------------------


def append(made: Layouts) -> Iterator[Row]:
    """One, ten and a hundred events an append, to one stream after another, on the disk when the call returns."""
    names = [name for name in APPENDERS if not absent(name)]
    with ExitStack() as stack:
        stores = {}
        for name in names:
            folder = made.folder / f"append-{len(stores)}"
            folder.mkdir()
            stores[name] = APPENDERS[name](folder)
            stack.callback(stores[name].close)
        streams = [f"order-{number:08d}" for number in range(max(times for _, times in made.effort.appends))]
        given = 0
        for stream in streams:
            given += 1
            for store in stores.values():
                store.append(stream, lines(1))
        taken = []
        for size, times in made.effort.appends:
            turns, added = Turns(), lines(size)
            for _ in range(made.effort.short):
                given += times * size
                for name, store in stores.items():
                    turns.take(name, lambda store=store, to=streams[:times], some=added: [store.append(one, some) for one in to])
            taken.append((size, times, turns))
        answers = {name: store.answer() for name, store in stores.items()}
    for size, times, turns in taken:
        what = f"append {size} event{'s' * (size > 1)}"
        for name in names[1:]:
            equal = answers[name] == answers[OURS] and answers[OURS][0] == given
            row = each(what, name, times * made.effort.short, turns.best(OURS), turns.best(name), equal, times=times)
            yield ratio_floor(row, 1 / 1.5 if name == RAW else 1.0)


def share(made: Layouts) -> Iterator[Row]:
    """Two and four processes that append one event after another to the same store: all of them together, and the shares."""
    with writers(4) as processes:
        for several in (2, 4):
            rates: dict[str, list[float]] = {OURS: [], RAW: []}
            shares: dict[str, list[float]] = {OURS: [], RAW: []}
            equal, written = True, 0
            for turn in range(max(2, made.effort.long) if made.effort is not SMALL else 1):
                for name in (OURS, RAW):
                    folder = made.folder / f"share-{several}-{turn}-{len(name)}"
                    folder.mkdir()
                    APPENDERS[name](folder).close()
                    started = time.perf_counter()
                    with writing(processes[:several], name, folder) as taken:
                        started = time.perf_counter()
                        time.sleep(made.effort.writing)
                    took = time.perf_counter() - started
                    counts = [len(times) for times in taken]
                    store = APPENDERS[name](folder)
                    equal = equal and store.answer()[0] == sum(counts) + several
                    store.close()
                    rates[name].append(sum(counts) / took)
                    shares[name].append(min(counts) / max(1, *counts))
                    written += sum(counts) if name == OURS else 0
            ours, theirs = max(rates[OURS]), max(rates[RAW])
            yield Row(f"{several} processes append at once", ours, theirs, RAW, ours / theirs, "events/s", written, equal)
            # By hand it is unfair now and then, so the worst turn says how much.
            ours, theirs = min(shares[OURS]), min(shares[RAW])
            better = ours / max(theirs, 1e-3)
            row = Row("the same: smallest share / largest", ours, theirs, RAW, better, "share", written, equal)
            yield floored(row, "share ≥ 0.8", ours >= 0.8)


# -- ingest and size ---------------------------------------------------------------------------------------------------------


def ingest(made: Layouts) -> Iterator[Row]:
    """From Arrow in memory, in a process of its own; nothing is sorted by stream yet."""
    found = []
    for _ in range(made.effort.long):
        found.append(ingest_in_a_process(made.tables, made.folder / "ingest", made.events))
        shutil.rmtree(made.folder / "ingest")
    n, against = len(made.log), f"sort, {BY_HAND}"
    equal = all(one.rows == n for one in found)
    row = rate("ingest, by time of all cores", against, n, min(f.cpu for f in found), min(f.by_hand_cpu for f in found), equal)
    yield floored(row, "≥ 900,000", row.ours >= 900_000)
    yield rate("ingest, by the clock", against, n, min(f.wall for f in found), min(f.by_hand_wall for f in found), equal)
    peak, size = max(f.peak - f.before for f in found) / 1e6, found[0].tables / 1e6
    row = Row("memory that an ingest adds, at its peak", peak, size, "the tables themselves", size / peak, "MB", n, equal)
    yield floored(row, "≤ 1,000", peak <= 1_000)
    whole, before = max(f.peak for f in found) / 1e6, max(f.before for f in found) / 1e6
    yield Row("the whole process, at its peak", whole, before, "before the ingest", before / whole, "MB", n, equal)


class WithIds:
    """A disk store whose ingests have a correlation id for each order and a causation id for each event."""

    def __init__(self, store: DiskStore) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def ingest(self, chunk: Chunk, *, tenant: str, now: int | None = None) -> ChunkState:
        tables = {}
        for category, table in chunk.tables.items():
            made = {"correlation_id": by_stream_ids(table.column("stream")), "causation_id": random_ids(len(table))}
            for name, ids in made.items():
                table = table.set_column(table.column_names.index(name), name, ids)
            tables[category] = table
        return self._store.ingest(dataclasses.replace(chunk, tables=tables), tenant=tenant, now=now)


def size(made: Layouts) -> Iterator[Row]:
    """All live files and the catalog, by event."""

    def of(folder: Path) -> tuple[float, int]:
        with opened(folder) as lab:
            files, n = [Path(name) for name in segments(lab)], len(lab.read())
        return sum(path.stat().st_size for path in (*files, folder / "store" / "catalog.sqlite")) / n, n

    theirs = sum(Path(name).stat().st_size for name in made.files) / len(made.log)
    for layout in ("plain", "compacted"):
        ours, n = of(getattr(made, layout))
        row = Row(f"bytes an event, {layout}", ours, theirs, SQL, theirs / ours, "bytes", n, n == len(made.log))
        yield floored(row, "≤ 32", ours <= 32)
    some = made.log if made.events <= 1_000_000 else orders(1_000_000)
    by_hand = write_files(plain_table(some, ids=3), made.folder / "files-3")
    theirs = sum(Path(name).stat().st_size for name in by_hand) / len(some)
    with opened(made.folder / "ids") as lab:
        assert isinstance(lab.store, DiskStore)
        place(WithIds(lab.store), dict(some.frames), "orders")
    for layout in ("plain", "compacted"):
        if layout == "compacted":
            with opened(made.folder / "ids") as lab:
                lab.compact(all=True)
        ours, n = of(made.folder / "ids")
        equal = n == len(some) and _ids(opened(made.folder / "ids")) == (_count_orders(some), n)
        row = Row(f"the same with three ids set, {layout}", ours, theirs, SQL, theirs / ours, "bytes", n, equal)
        yield floored(row, "≤ 60", ours <= 60)


def _ids(lab: el.Lab) -> tuple[int, int]:
    with lab:
        sql = "SELECT count(DISTINCT _correlation_id), count(DISTINCT _causation_id) FROM events.log"
        found: tuple[int, int] = lab.sql(sql).row(0)
        return found


def _count_orders(log: Log) -> int:
    return pl.concat([frame["order"] for frame in log.frames.values()]).n_unique()


# -- load --------------------------------------------------------------------------------------------------------------------


def load(made: Layouts) -> Iterator[Row]:
    """One order of ten events: hot, from its snapshot, and for the first time from files of each layout."""
    from library import Peer, state

    # Loading leaves snapshots behind, and one layout is made from a copy of another: all are made before.
    for layout in LAYOUTS:
        getattr(made, layout)
    peer = Peer(made.folder / "library.sqlite", made.few)
    theirs = list(peer.orders)
    theirs = theirs[:: max(1, len(theirs) // made.effort.loads)][: made.effort.loads]
    against = f"{LIBRARY.split(',')[0]}, repository.get"

    def measured(what: str, lab: el.Lab, groups: Sequence[Sequence[str]]) -> Row:
        turns, answers = Turns(), {}
        for ids in groups:
            found = turns.take("ours", lambda ids=ids: [state(lab.load(Order, name)) for name in ids])
            answers.update(zip(ids, found, strict=True))
            turns.take("theirs", lambda: [state(peer.get(name)) for name in theirs])
        known = made.hand.query(STATES, made.files if lab.head == len(made.log) else few_files, list(answers))
        equal = answers == {name: (status, total, lines) for name, status, total, lines in known.rows()}
        # The library's turn has as many loads as a group of ours.
        one, other = turns.best("ours") / len(groups[0]), turns.best("theirs") / len(theirs)
        return each(f"load ten events, {what}", against, lab.head, one, other, equal)

    few_files = write_files(plain_table(made.few), made.folder / "few")
    with made.open("hot") as lab:
        row = measured("hot", lab, [theirs] * made.effort.short)
        yield floored(ratio_floor(row, 1.0), "≤ 0.15; ratio ≥ 1", row.ours <= 0.15 and row.ratio >= 1)
    for layout in LAYOUTS:
        with made.open(layout) as lab:
            names = [f"{number:08d}" for number in range(len(made.log) // 10)]
            random.Random(7).shuffle(names)
            # Files are opened, and their digests looked at, before it counts.
            warm, names = names[: 2 * made.effort.loads], names[2 * made.effort.loads :]
            for name in warm:
                lab.load(Order, name)
            size = made.effort.loads
            groups = [names[low : low + size] for low in range(0, size * made.effort.long, size)]
            row = measured(f"{layout}, from the files", lab, groups)
            yield floored(row, "≤ 4", row.ours <= 4) if layout == "compacted" else row
            if layout == "compacted":
                row = measured("from its snapshot", lab, [warm[:size]] * made.effort.short)
                yield floored(row, "≤ 0.15; ratio ≥ 1", row.ours <= 0.15 and row.ratio >= 1)
    peer.app.close()


# -- SQL ---------------------------------------------------------------------------------------------------------------------


def sql(made: Layouts) -> Iterator[Row]:
    """The same SQL over our views and over plain files."""
    for what, text in (("count by type", COUNT), ("sum by stream", FOLD)):
        ours = text.format(**OURS_NAMES)
        theirs = text.format(**PLAIN_NAMES)
        turns = Turns()
        with ExitStack() as stack:
            labs = {layout: stack.enter_context(made.open(layout)) for layout in LAYOUTS}
            for lab in labs.values():
                lab.sql(ours)
            for _ in range(made.effort.short if text is COUNT else made.effort.long + 2):
                turns.take(SQL, lambda sql=theirs: made.hand.query(sql, made.files))
                for layout, lab in labs.items():
                    turns.take(layout, lambda lab=lab, sql=ours: lab.sql(sql))
        right = sorted_frame(turns.answers[SQL])
        for layout in LAYOUTS:
            equal = sorted_frame(turns.answers[layout]).equals(right)
            yield ratio_floor(each(f"{what}, {layout}", SQL, len(made.log), turns.best(layout), turns.best(SQL), equal), 0.95)


def sorted_frame(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.sort(frame.columns[0])


def buckets(made: Layouts) -> Iterator[Row]:
    """Sum by stream over the compacted files, a bucket at a time."""
    with made.open("compacted") as lab:
        yield _by_bucket(made, lab, made.files, made.effort.long + 2)


def _by_bucket(made: Layouts, lab: el.Lab, files: list[str], times: int) -> Row:
    """A query for each bucket of streams, beside one over plain files."""
    sources = [file for group in lab.store.cut().sources("default") for file in group.files]
    least = min(file.buckets for file in sources)
    paths = [[file.path for file in sources if file.bucket % least == bucket] for bucket in range(least)]
    ours, theirs, turns = FOLD.format(**SEGMENT_NAMES), FOLD.format(**PLAIN_NAMES), Turns()
    for _ in range(times):
        turns.take("ours", lambda: pl.concat([made.hand.query(ours, some) for some in paths]))
        turns.take("theirs", lambda: made.hand.query(theirs, files))
    equal = sorted_frame(turns.answers["ours"]).equals(sorted_frame(turns.answers["theirs"]))
    what = f"sum by stream, {least} buckets one by one" if least > 1 else "sum by stream, one bucket"
    return rate(what, SQL, lab.head, turns.best("ours"), turns.best("theirs"), equal)


def large(made: Layouts, events: int) -> Iterator[Row]:
    """The same over a log that is too long to be made at once: blocks of orders that do not overlap."""
    files: list[str] = []
    with opened(made.folder / "large") as lab:
        for first in range(0, events, BLOCK_EVENTS):
            log = _moved(orders(min(BLOCK_EVENTS, events - first)), first)
            place(lab.store, dict(log.frames), f"block {first}")
            files += write_files(plain_table(log), made.folder / "large-files", first)
            del log
        lab.compact(all=True)
        row = _by_bucket(made, lab, files, max(2, made.effort.long))
    yield ratio_floor(row, 1.6)


def _moved(log: Log, first: int) -> Log:
    """The same orders under other numbers, later."""
    number = (pl.col("order").cast(pl.Int64) + first // 10).cast(pl.String).str.zfill(8)
    changes = [pl.col("seq") + first, number.alias("order"), pl.col("at") + pl.duration(seconds=first)]
    return Log({kind: frame.with_columns(changes) for kind, frame in log.frames.items()}, log.first + first, log.last + first)


# -- seal and compact --------------------------------------------------------------------------------------------------------


def seal(made: Layouts) -> Iterator[Row]:
    """The hot tail becomes a segment; by hand the same events become a file."""
    turns, n, equal, right = Turns(), len(made.due), True, None
    for _ in range(made.effort.long + 2):
        with opened(made.copy(made.unsealed, "sealed")) as lab:
            right = right if right is not None else types(lab)
            equal = equal and turns.take("ours", lab.seal) == n and types(lab).equals(right)
        turns.take("theirs", lambda: write_files(plain_table(made.due), made.folder / "sealed-by-hand"))
    row = rate("seal", f"sort, {BY_HAND}", n, turns.best("ours"), turns.best("theirs"), equal)
    yield floored(row, "≥ 150,000", row.ours >= 150_000)


def compact(made: Layouts) -> Iterator[Row]:
    """Runs in order of position become eras sorted by stream; by hand the plain files are sorted."""

    def by_hand() -> None:
        table = pl.read_parquet(made.files).sort("stream", "seq").to_arrow()
        write_files(table, made.folder / "sorted-by-hand")

    turns, n, equal, right = Turns(), len(made.log), True, None
    for _ in range(made.effort.long):
        with opened(made.copy(made.plain, "compacting")) as lab:
            right = right if right is not None else types(lab)
            done = turns.take("ours", lambda lab=lab: lab.compact(all=True))
            equal = equal and done.events == n and types(lab).equals(right)
        turns.take("theirs", by_hand)
    row = rate("compact", f"Polars sort, {BY_HAND}", n, turns.best("ours"), turns.best("theirs"), equal)
    yield floored(row, "≥ 300,000", row.ours >= 300_000)


def types(lab: el.Lab) -> pl.DataFrame:
    return lab.sql(COUNT.format(**OURS_NAMES))


def beside(made: Layouts) -> Iterator[Row]:
    """A process that appends one event after another: alone, while its store is sealed, and while it is compacted."""
    slowest: dict[str, list[float]] = {}
    rates: dict[tuple[str, bool], list[float]] = {}
    works = {"seal": (made.unsealed, el.Lab.seal, 150_000), "compact": (made.plain, _compact, 300_000)}
    equal, appended = True, 0

    def timed(what: str, lab: el.Lab, written: bool) -> None:
        started = time.perf_counter()
        events = works[what][1](lab)
        rates.setdefault((what, written), []).append(events / (time.perf_counter() - started))

    with writers(1) as processes:
        for _ in range(made.effort.long):
            for what in ("alone", *works):
                folder = made.copy(works.get(what, (made.unsealed,))[0], "beside")
                with opened(folder) as lab:
                    before = lab.head
                    with writing(processes, OURS, folder) as taken:
                        if what in works:
                            timed(what, lab, True)
                        else:
                            time.sleep(made.effort.writing)
                    equal = equal and lab.head == before + len(taken[0]) + 1
                slowest.setdefault(what, []).append(percentile(taken[0], 0.99))
                appended += len(taken[0])
                if what in works:
                    with opened(made.copy(works[what][0], "beside")) as lab:
                        timed(what, lab, False)
    alone = min(slowest["alone"])
    sizes = {"seal": len(made.due), "compact": len(made.log)}
    for what, (_, _, least) in works.items():
        row = each(f"p99 of a writer beside {what}", "the writer alone", appended, min(slowest[what]), alone, equal)
        yield ratio_floor(row, 0.5)
        best, quiet = max(rates[what, True]), max(rates[what, False])
        row = Row(f"{what} beside that writer", best, quiet, f"{what} alone", best / quiet, "events/s", sizes[what], equal)
        yield floored(row, f"≥ {least:,}", best >= least)


def _compact(lab: el.Lab) -> int:
    return lab.compact(all=True).events


def percentile(values: Sequence[float], part: float) -> float:
    """The value that so large a part of them does not exceed."""
    return sorted(values)[min(len(values) - 1, int(part * len(values)))] if values else float("nan")


# -- the whole ---------------------------------------------------------------------------------------------------------------

PARTS: Final[dict[str, Callable[[Layouts], Iterator[Row]]]] = {
    "append": append, "share": share, "ingest": ingest, "size": size, "load": load, "sql": sql, "buckets": buckets,
    "seal": seal, "compact": compact, "beside": beside,
}  # fmt: skip


def measure(made: Layouts, names: Iterable[str], large_events: int, told: Callable[[str], None]) -> list[Row]:
    """The rows of the parts that are asked for."""
    rows: list[Row] = []
    for name in names:
        if name == "load" and find_spec("eventsourcing") is None:
            told("load: left out, for eventsourcing is not installed")
            continue
        for peer in (LIBRARY, SERVED) if name == "append" else ():
            if absent(peer):
                told(f"append beside {peer.split(',')[0]}: left out, for it is not installed")
        rows += PARTS[name](made)
    if large_events:
        rows += large(made, large_events)
    return rows


def number_of(said: str) -> int:
    """`1000000`, `250k` or `10M`."""
    found = re.fullmatch(r"([\d_,]+)([kM]?)", said)
    if found is None:
        raise argparse.ArgumentTypeError(f"{said!r} is no number of events: 1000000, 250k or 10M")
    return int(re.sub("[_,]", "", found[1])) * {"": 1, "k": 1_000, "M": 1_000_000}[found[2]]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--events", type=number_of, default=1_000_000, help="how long the log is (default: 1M)")
    more = "also fold so many by bucket (50M)"
    parser.add_argument("--large", type=number_of, nargs="?", const=50_000_000, default=0, help=more)
    parser.add_argument("--only", default=",".join(PARTS), help=f"some of {', '.join(PARTS)}")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    parser.add_argument("--folder", help="where to write; the disk that is measured (default: the system's temporary folder)")
    asked = parser.parse_args()
    names = [name for name in asked.only.split(",") if name]
    unknown = [name for name in names if name not in PARTS]
    if unknown:
        parser.error(f"--only: {', '.join(unknown)} is none of {', '.join(PARTS)}")
    if asked.events < 1_000:
        parser.error("--events: at least 1000")
    os.environ["EVENTLAB_PROGRESS"] = "off"
    effort = SMALL if asked.events < SMALL_EVENTS else LARGE_EFFORT if asked.events > LARGE_EVENTS else Effort()
    left_out: list[str] = []
    started = time.perf_counter()
    with workplace(asked.folder) as folder:
        about = machine(folder)
        rows = measure(Layouts(folder, asked.events, effort), names, asked.large, left_out.append)
    seconds = time.perf_counter() - started
    if asked.json:
        told = {"machine": about, "seconds": seconds, "left out": left_out, "rows": [asdict(row) for row in rows]}
        print(json.dumps(told))
    else:
        console = Console(width=None if sys.stdout.isatty() else 150)
        console.print(shown(rows, about, seconds))
        for line in left_out:
            console.print(line)
    return 0 if all(row.equal for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
