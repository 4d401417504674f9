"""What a command costs beyond its durable append: `lab.handle` beside the append of the same events, raw SQLite and a library.

    python tests/benchmarks/handling.py [--turns 40] [--long 100000] [--folder DIR] [--json]

In turns, in this one process, on one disk; only the ratios are to be believed. Answers are compared, too.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Self

from appenders import APPENDERS, LIBRARY, OURS, RAW, Appender, absent, lines
from by_hand import RawSqlite
from generate import ItemAdded
from rich.console import Console
from turns import Row, Turns, each, machine, shown, workplace

import eventlab as el


@el.command
class AddItems:
    """Put so many products in the order."""

    count: int


@el.aggregate(name="basket")
class Basket:
    """An order that only grows."""

    lines: int = 0
    total: el.Money = el.money(0)

    def decide(self, command: AddItems) -> Iterator[ItemAdded]:
        yield from lines(command.count)

    def evolve(self, event: ItemAdded) -> Self:
        return replace(self, lines=self.lines + 1, total=self.total + event.quantity * event.unit_price)


def beside_an_append(folder: Path, turns_: int) -> list[Row]:
    """Commands that lead to 1, 10 and 100 events, each to a new stream."""
    rows: list[Row] = []
    for size in (1, 10, 100):
        others: dict[str, Appender] = {}
        for name in (OURS, RAW, LIBRARY):
            if not absent(name):
                place = folder / f"{size}-{len(others)}"
                place.mkdir()
                others[name] = APPENDERS[name](place)
        with el.open(folder / f"handled-{size}", maintain=False) as lab:
            turns, added, command = Turns(), lines(size), AddItems(size)
            for i in range(turns_):
                turns.take("handle", partial(lab.handle, Basket, f"{i}", command))
                for name in ("known", "again"):
                    turns.take(name, partial(lab.handle, Basket, f"k{i}", command, command_id=f"c{i}"))
                for name, other in others.items():
                    turns.take(name, partial(other.append, f"order-{i:08d}", added))
            right = lab.table(Basket)["lines"].to_list() == [size] * (2 * turns_)
            what = f"handle a command of {size} event{'s'[: size != 1]}"
            plain, known, again = (turns.median(name) for name in ("handle", "known", "again"))
            for name in others:
                beside = "lab.append" if name == OURS else name
                rows.append(each(what, beside, turns_, plain, turns.median(name), right))
            rows.append(each("the same with a command id", "without one", turns_, known, plain, right))
            rows.append(each("the same id again", "the first time", turns_, again, known, right))
        for other in others.values():
            other.close()
    return rows


def in_long_streams(folder: Path, turns_: int, long: int) -> list[Row]:
    """One more event in streams of 10, 1,000 and many, with snapshots and without: ours, a bare INSERT, and the library's."""
    rows: list[Row] = []
    for size in (10, 1_000, long):
        turns = Turns()
        labs: dict[str, el.Lab] = {}
        for name, policy in (("with", el.SnapshotPolicy()), ("without", None)):
            lab = labs[name] = el.open(folder / f"{name}-{size}", maintain=False, snapshots=policy)
            for begin in range(0, size, 50_000):
                lab.append("basket-1", lines(min(50_000, size - begin)))
            lab.handle(Basket, "1", AddItems(1))
        peers = {} if absent(LIBRARY) else _peers(folder, size)
        raw = RawSqlite(folder / f"raw-{size}.sqlite")
        count = turns_ if size <= 1_000 else max(turns_ // 8, 2)
        for i in range(count):
            for name, lab in labs.items():
                turns.take(name, partial(lab.handle, Basket, "1", AddItems(1)))
            for name, peer in peers.items():
                turns.take(f"{LIBRARY} {name}", partial(peer.handle, "1", lines(1)[0]))
            turns.take(RAW, partial(raw.insert, "basket-1", size + i + 1, *lines(1)))
        states = {name: lab.load(Basket, "1") for name, lab in labs.items()}
        right = states["with"] == states["without"] and states["with"].lines == size + count + 1
        right &= all(peer.get("1").lines == size + count for peer in peers.values())
        with_, without = turns.median("with"), turns.median("without")
        rows.append(each(f"handle in a stream of {size:,}", "without snapshots", size, with_, without, right))
        rows.append(each(f"handle in a stream of {size:,}", RAW, size, with_, turns.median(RAW), right))
        for name in peers:
            mine, theirs = turns.median(name), turns.median(f"{LIBRARY} {name}")
            rows.append(each(f"the same {name} snapshots", f"{LIBRARY.split(',')[0]} {name} them", size, mine, theirs, right))
        for lab in labs.values():
            lab.close()
        for peer in peers.values():
            peer.app.close()
        raw.connection.close()
    return rows


def _peers(folder: Path, size: int) -> dict[str, Any]:
    """The library's stores with a long order, one with a snapshot of it."""
    from library import Peer

    found = {}
    for name in ("with", "without"):
        found[name] = Peer(folder / f"library-{name}-{size}.sqlite", snapshots=name == "with")
        found[name].grown("1", lines(size))
    return found


def one_by_one(lab: el.Lab, ids: list[str]) -> None:
    """A command for each of some orders."""
    for id in ids:
        lab.handle(Basket, id, AddItems(1))


def many(folder: Path, turns_: int) -> Row:
    """A hundred commands at once, and one by one."""
    turns = Turns()
    with el.open(folder / "many", maintain=False) as lab:
        for i in range(max(turns_ // 8, 2)):
            turns.take("many", partial(lab.handle_many, [(Basket, f"m{i}-{n}", AddItems(1)) for n in range(100)]))
            turns.take("one", partial(one_by_one, lab, [f"o{i}-{n}" for n in range(100)]))
        right = set(lab.table(Basket)["lines"].to_list()) == {1}
    return each("a hundred commands, handle_many", "one by one", 100, turns.median("many"), turns.median("one"), right, times=100)


def measure(folder: Path, turns_: int, long: int) -> list[Row]:
    """The rows of the table."""
    return [*beside_an_append(folder, turns_), *in_long_streams(folder, turns_, long), many(folder, turns_)]


def main() -> int:
    """From the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=40)
    parser.add_argument("--long", type=int, default=100_000)
    parser.add_argument("--folder")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    started = time.perf_counter()
    with workplace(given.folder) as folder:
        rows, about = measure(folder, given.turns, given.long), machine(folder)
    if given.json:
        told: dict[str, Any] = {"rows": [dataclasses.asdict(row) for row in rows], "machine": about}
        print(json.dumps(told))
    else:
        Console(width=150).print(shown(rows, about, time.perf_counter() - started))
    return 0 if all(row.equal for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
