"""eventlab beside what a person would write by hand and beside the `eventsourcing` library, on the same events and disk.

    python tests/benchmarks/run.py [--events 1000000] [--json] [--folder DIR]

Everything compared is measured in this one process, in turns (ours, theirs, ours, theirs, …), and only ratios are to be
believed: above 1 we are so many times as good, below 1 so many times worse. Of computations the best turn counts, of
waiting for the disk the median. The answers of both sides are compared, too: a row whose answers differ is an error.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import shutil
import sys
import time
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Final

from by_hand import BY_STATUS, BY_TYPE, ByHand, RawSqlite, flat, segments, write_by_hand
from generate import BEGIN, ItemAdded, Log, Order, orders
from library import PEER, Peer, PeerOrder, state
from rich.console import Console
from turns import DISK, LONG, SHORT, Row, Turns, each, machine, rate, shown, workplace

import eventlab as el

#: What the `eventsourcing` library is given: its speed an event does not depend on how many there are.
PEER_EVENTS: Final = 20_000
SEAL_EVENTS: Final = 50_000
APPENDS_A_TURN: Final = 50
LOADS_A_TURN: Final = 30

SQL: Final = "DuckDB by hand"


# -- the comparisons -------------------------------------------------------------------------------------------------------


def ingest(folder: Path, log: Log) -> tuple[Row, Row]:
    """(1) Events that lie in memory as frames become a log; by hand they become one Parquet file."""
    turns, sources, frames = Turns(), log.sources(), flat(log)
    for turn in range(LONG):
        store = folder / f"ingest-{turn}"
        with el.open(store) as lab:
            turns.take("ours", lambda: lab.ingest(sources, source="orders", recorded_at="occurred_at"))
            equal = turns.answers["ours"].events == len(lab.read()) == len(log)
            lab.compact(all=True)  # a large ingest has done it already
            files = [Path(name) for name in segments(lab)]
        turns.take("theirs", lambda: write_by_hand(folder / "by-hand.parquet", frames))
        if turn < LONG - 1:
            shutil.rmtree(store)
    size = sum(path.stat().st_size for path in (*files, store / "catalog.sqlite"))
    store.rename(folder / "orders")
    ours, theirs, n = size / len(log), turns.answers["theirs"] / len(log), len(log)
    return (
        rate("ingest from Polars in memory", "sort, PyArrow write, fsync", n, turns.best("ours"), turns.best("theirs"), equal),
        Row("size on disk, with the catalog", ours, theirs, "that one Parquet file", theirs / ours, "bytes/event", n, equal),
    )


def count_by_type(lab: el.Lab, files: list[str], hand: ByHand) -> Row:
    """(2) The commonest question, over the same files."""
    turns = Turns()
    for _ in range(SHORT):
        turns.take("ours", lambda: lab.sql("SELECT _type AS type, count(*) AS events FROM events.log GROUP BY 1 ORDER BY 1"))
        turns.take("theirs", lambda: hand.query(BY_TYPE, files))
    equal = turns.answers["ours"].equals(turns.answers["theirs"])
    return each("count by type, lab.sql", SQL, lab.head, turns.best("ours"), turns.best("theirs"), equal)


def folds(lab: el.Lab, files: list[str], hand: ByHand) -> tuple[Row, Row, Row]:
    """(3) Every order folded, and (5) every order as it was half way; by hand as one GROUP BY over the same files."""
    turns, n = Turns(), lab.head
    # Event k was recorded k - 1 seconds after the first.
    middle = BEGIN + dt.timedelta(seconds=n // 2 - 1)
    for _ in range(LONG):
        turns.take("by hand", lambda: hand.fold(files, n))
        turns.take("lifted", lambda: lab.table(Order, engine="lifted"))
        turns.take("rows", lambda: lab.table(Order, engine="rows"))
        turns.take("half by hand", lambda: hand.fold(files, n // 2))
        turns.take("half", lambda: lab.at(middle).table(Order, engine="rows"))
    lifted = turns.answers["lifted"].equals(turns.answers["by hand"])
    equal = turns.answers["rows"].equals(turns.answers["by hand"])
    half = turns.answers["half"].equals(turns.answers["half by hand"])
    fold = "fold of every order, engine="
    return (
        rate(f"{fold}'lifted'", SQL, n, turns.best("lifted"), turns.best("by hand"), lifted),
        rate(f"{fold}'rows'", SQL, n, turns.best("rows"), turns.best("by hand"), equal),
        each("at(T) in the middle, engine='rows'", "our fold of the whole log", n, turns.best("half"), turns.best("rows"), half),
    )


def state_sql(lab: el.Lab, folder: Path, hand: ByHand) -> tuple[Row, Row]:
    """(7) SQL over a model's table, again and again, and the first time after an append; by hand over the table as a file."""
    lab.rebuild(Order)
    lab.table(Order).write_parquet(folder / "state.parquet")
    ours, theirs = BY_STATUS.format("state.order"), BY_STATUS.format("read_parquet(?)")
    turns, rows = Turns(), len(lab.table(Order))
    lab.sql(ours)
    for _ in range(SHORT):
        turns.take("again", lambda: lab.sql(ours))
        turns.take("by hand", lambda: hand.query(theirs, str(folder / "state.parquet")))
    equal = turns.answers["again"].equals(turns.answers["by hand"])
    for number in range(SHORT):
        lab.append("order-00000001", [ItemAdded("sku-1", number, el.money("0.50"))])
        turns.take("fresh", lambda: lab.sql(ours))
        lab.table(Order).write_parquet(folder / "state.parquet")
        turns.take("by hand fresh", lambda: hand.query(theirs, str(folder / "state.parquet")))
        equal = equal and turns.answers["fresh"].equals(turns.answers["by hand fresh"])
    what = "a Parquet file of the rows"
    return (
        each("SQL over state.order", what, rows, turns.best("again"), turns.best("by hand"), equal),
        each("the same, first time after an append", what, rows, turns.best("fresh"), turns.best("by hand fresh"), equal),
    )


def catch_up(lab: el.Lab, more: Log) -> Row:
    """(4) One hundredth new events, appended live: the read model moved on, and made anew."""
    turns, size = Turns(), len(more) // LONG
    lab.rebuild(Order)
    for turn in range(LONG):
        first = more.first + turn * size
        lab.append(more.slice(first, first + size).by_stream())
        turns.take("catch up", lambda: lab.catch_up(Order))
        caught = lab.table(Order)
        turns.take("rebuild", lambda: lab.rebuild(Order))
    equal = caught.equals(lab.table(Order, engine="rows"))
    what = f"catch_up of {size:,} new events"
    return each(what, "our rebuild", lab.head, turns.best("catch up"), turns.best("rebuild"), equal)


def seal(folder: Path, log: Log) -> Row:
    """(6) The hot tail becomes a segment; by hand the same events become a Parquet file."""
    turns, frames, equal = Turns(), flat(log), True
    with el.open(folder / "seal") as lab:
        for _ in range(LONG):
            lab.append(log.by_stream())
            before = lab.read(after=lab.head - len(log)).frame()
            sealed = turns.take("ours", lab.seal)
            turns.take("theirs", lambda: write_by_hand(folder / "sealed-by-hand.parquet", frames))
            equal = equal and sealed == len(log) and before.equals(lab.read(after=lab.head - len(log)).frame())
    what = "sort, PyArrow write, fsync"
    return rate("seal the hot tail", what, len(log), turns.best("ours"), turns.best("theirs"), equal)


def beside_the_library(folder: Path, log: Log, big: el.Lab) -> list[Row]:
    """(3) Rebuild, load and append beside the `eventsourcing` library, which has the same events in a SQLite file."""
    peer = Peer(folder / "peer.sqlite", log)
    ids = [order for order, _ in islice(log.objects, 0, None, len(log) // LOADS_A_TURN)]
    with el.open(folder / "sealed") as lab:
        lab.ingest(log.sources(), source="orders", recorded_at="occurred_at")
        rows = [*rebuild(lab, peer, big), loads("load one order of ten events, its snapshot kept", lab, peer, ids)]
    rows.append(loads_of_many(big, peer, ids))
    with el.open(folder / "hot") as lab:
        lab.append(log.by_stream())
        rows.append(loads("load one order of ten events, hot", lab, peer, ids))
        rows += appends(lab, peer, RawSqlite(folder / "raw.sqlite"))
    peer.app.close()
    return rows


def rebuild(lab: el.Lab, peer: Peer, big: el.Lab) -> tuple[Row, Row]:
    """By the row fold over the same events; and by the query over the large log, an event of which costs the library as much."""
    turns, n = Turns(), big.head
    for _ in range(SHORT):
        turns.take("ours", lambda: lab.table(Order, engine="rows"))
        turns.take("lifted", lambda: big.table(Order, engine="lifted"))
        turns.take("theirs", peer.rebuild)
    right = peer.states(turns.answers["theirs"])
    rows, lifted = turns.answers["ours"], lab.table(Order, engine="lifted")
    equal = [found.select("_id", "status", "total", "lines").rows() == right for found in (rows, lifted)]
    theirs, fold = turns.best("theirs"), "fold of every order, engine="
    return (
        rate(f"{fold}'rows'", PEER, lab.head, turns.best("ours"), theirs, equal[0]),
        rate(f"{fold}'lifted'", f"{PEER}, among {lab.head:,}", n, turns.best("lifted"), theirs * n / lab.head, equal[1]),
    )


def loads(what: str, lab: el.Lab, peer: Peer, ids: list[str]) -> Row:
    turns = Turns()
    for _ in range(SHORT):
        turns.take("ours", lambda: [state(lab.load(Order, order)) for order in ids])
        turns.take("theirs", lambda: [state(peer.get(order)) for order in ids])
    equal = turns.answers["ours"] == turns.answers["theirs"]
    return each(what, f"{PEER}, repository.get", lab.head, turns.best("ours"), turns.best("theirs"), equal, times=len(ids))


def loads_of_many(lab: el.Lab, peer: Peer, ids: list[str]) -> Row:
    """Orders of the large log, beside the library with its small one; here the table says what is right."""
    table = lab.table(Order)
    some = table.gather_every(max(1, len(table) // len(ids)))[: len(ids)]
    turns = Turns()
    for _ in range(LONG):
        turns.take("ours", lambda: [state(lab.load(Order, order)) for order in some["_id"]])
        turns.take("theirs", lambda: [state(peer.get(order)) for order in ids])
    equal = turns.answers["ours"] == some.select("status", "total", "lines").rows()
    against = f"{PEER}, among {peer.count():,}"
    ours, theirs = turns.best("ours") / len(some), turns.best("theirs") / len(ids)
    return each(f"the same, among {lab.head:,}", against, lab.head, ours, theirs, equal)


def appends(lab: el.Lab, peer: Peer, raw: RawSqlite) -> list[Row]:
    """One event, on the disk when the call returns, to one stream after another."""
    names = list(peer.orders)[-APPENDS_A_TURN:]
    added = ItemAdded("sku-1", 2, el.money("9.50"))
    mine = [peer.get(name) for name in names]
    before, theirs_before = lab.head, peer.count()

    def save(order: PeerOrder) -> None:
        order.trigger_event(PeerOrder.ItemAdded, **vars(added))
        peer.app.save(order)

    turns = Turns()
    for turn in range(DISK):
        turns.take("ours", lambda: [lab.append(f"order-{name}", [added]) for name in names])
        turns.take("peer", lambda: [save(order) for order in mine])
        turns.take("raw", lambda version=turn: [raw.insert(f"order-{name}", version, added) for name in names])
    count = DISK * len(names)
    equal = lab.head - before == peer.count() - theirs_before == raw.count() == count
    equal = equal and [state(lab.load(Order, name)) for name in names] == [state(peer.get(name)) for name in names]
    return [
        each("append one event", against, count, turns.median("ours"), turns.median(theirs), equal, times=len(names))
        for theirs, against in (("raw", "INSERT into raw SQLite, WAL, FULL"), ("peer", f"{PEER}, save"))
    ]


# -- the whole -------------------------------------------------------------------------------------------------------------


def measure(events: int, folder: Path) -> list[Row]:
    """Every row of the table, for a log of about so many events."""
    whole = orders(events + events // 100 * LONG)
    log, more = whole.slice(0, events), whole.slice(events, len(whole))
    hand = ByHand()
    rows = [*ingest(folder, log)]
    with el.open(folder / "orders") as lab:
        files = segments(lab)
        rows += [count_by_type(lab, files, hand), *folds(lab, files, hand)]
        rows += beside_the_library(folder, orders(min(events, PEER_EVENTS)), lab)
        rows += [catch_up(lab, more), *state_sql(lab, folder, hand)]
    rows.append(seal(folder, orders(min(events, SEAL_EVENTS))))
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--events", type=int, default=1_000_000, help="how long the log is (default: 1,000,000)")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    parser.add_argument("--folder", help="where to write; the disk that is measured (default: the system's temporary folder)")
    asked = parser.parse_args()
    if asked.events < 1_000:
        parser.error("--events: at least 1000")
    os.environ["EVENTLAB_PROGRESS"] = "off"
    started = time.perf_counter()
    with workplace(asked.folder) as folder:
        about = machine(folder)
        rows = measure(asked.events, folder)
    seconds = time.perf_counter() - started
    if asked.json:
        print(json.dumps({"machine": about, "seconds": seconds, "rows": [asdict(row) for row in rows]}))
    else:
        Console(width=None if sys.stdout.isatty() else 150).print(shown(rows, about, seconds))
    return 0 if all(row.equal for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
