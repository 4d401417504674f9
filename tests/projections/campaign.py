"""Kill loops over read models: processes that rebuild, catch up, accept, compact and tell a consumer, killed at random.

    python tests/projections/campaign.py --kills 500 --seed 1

While a writer appends, keepers work on the same read models and are killed, each after a random time. After every few kills
a judge opens the store in a process of its own: each base is the row fold of the log at its checkpoint, the consumer was
told of every event before its checkpoint, nothing half done is left after a collection, and everything comes to the head.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import polars as pl

import eventlab as el
from eventlab.model.models import model_of
from eventlab.projections import read_models, unfinished
from eventlab.replay.lift import run, scan
from eventlab.store import compact

KILLS_A_GENERATION = 10


@el.event
class Poured:
    """Somebody poured from a jug."""

    amount: int


@el.aggregate
class Jug:
    """Lifts to a query, a bucket at a time."""

    poured: int = 0
    most: int = 0

    def evolve(self, event: Poured) -> Self:
        return replace(self, poured=self.poured + event.amount, most=max(self.most, event.amount))


@el.projection
class Pourers:
    """Does not lift: it goes through the log in its order."""

    text: str = ""

    @staticmethod
    def key(event: Poured, meta: el.Meta) -> str:
        return meta.stream[-1:]

    def evolve(self, event: Poured) -> Self:
        return replace(self, text=f"{hash_of(self.text)}{event.amount}"[-12:])


def hash_of(text: str) -> int:
    """A number that depends on all that came before."""
    return sum((i + 1) * ord(c) for i, c in enumerate(text)) % 9_973


MODELS = (Jug, Pourers)


def short() -> None:
    """Small numbers for what is large as a rule: every way is taken within a few hundred events."""
    read_models.LONG, read_models.STRIDE, unfinished.PATIENCE = 40, 60, 0  # type: ignore[misc]
    run._SMALL, scan.PART_ROWS = 0, 32  # type: ignore[misc]
    compact.BUCKET_ROWS, compact.BUCKET_STREAMS = 64, 8  # type: ignore[misc]


def forked(work: Callable[[], None]) -> int:
    """Do something in a process of its own."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        work()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def write(path: Path, seed: int) -> None:
    """Append until somebody says stop; every other writer moves a read model with its appends."""
    chance, going = random.Random(seed), [True]
    signal.signal(signal.SIGTERM, lambda *_: going.clear())
    with el.open(path, maintain=False) as lab:
        if seed % 2:
            lab.inline(MODELS[seed // 2 % len(MODELS)])
        while going:
            names = [f"jug-{chance.randrange(60)}" for _ in range(chance.randint(1, 8))]
            lab.append({name: [Poured(chance.randrange(100)) for _ in range(chance.randint(1, 3))] for name in names})
            time.sleep(0.003)


def book_of(book: Path) -> Any:
    """A consumer that writes down what it was told, before it says that it was."""

    def told(event: Any) -> None:
        with book.open("a") as file:
            file.write(f"{event.position}\n")

    return el.consumer(el.events(Poured), name="book", parts=4)(told)


def keep(path: Path, book: Path, seed: int) -> None:
    """Do what keeps read models, in any order, until killed."""
    short()
    chance = random.Random(seed)
    told = book_of(book)
    with el.open(path, maintain=False) as lab:
        while True:
            model = chance.choice(MODELS)
            chance.choice([
                lambda model=model: lab.rebuild(model),
                lambda model=model: lab.catch_up(model),
                lambda model=model: lab.catch_up(model),
                lambda: lab.catch_up(*MODELS),
                lambda: lab.rebuild(*MODELS),
                lambda model=model: lab.accept(model),
                lambda: lab._member(told, "keeper", 0.5).step(),
                lambda: (lab.seal(), lab.compact(all=True), lab.store.collect(grace=0.5)),  # type: ignore[attr-defined]
            ])()  # fmt: skip


def judge(path: Path, book: Path) -> None:
    """Hold what is left to what was promised."""
    short()
    told = book_of(book)
    with el.open(path, maintain=False) as lab:
        for model in MODELS:
            of = model_of(model)
            for base in lab.store.read_models.of("default", of.name):
                meant = lab.at(position=base.position).table(model, engine="rows")
                found = pl.DataFrame(pl.from_arrow(base.table()))
                assert found.equals(meant), f"{of.name} at {base.position} is not the fold"
        checkpoints = lab.store.work.checkpoints("default", "book")
        heard = [int(line) for line in book.read_text().split()] if book.exists() else []
        least = min((of.position for of in checkpoints), default=0)
        assert set(range(1, least + 1)) <= set(heard), "the consumer was not told of an event before its checkpoint"
        time.sleep(0.6)
        member = lab._member(told, "judge", 0.5)
        member.balance(now=True)
        while member.step():
            pass
        member.leave()
        for model in MODELS:
            done = lab.catch_up(model)
            assert done.position == lab.head
            assert lab.table(model).equals(lab.table(model, engine="rows"))
        lab.store.collect(grace=0)  # type: ignore[attr-defined]
        named = {Path(part.path).name for base in lab.store.read_models.of("default") for part in base.parts if part.path}
        left = {of.name for of in (path / "read_models").iterdir()}
        assert left == named, f"left over: {sorted(left - named)}; missing: {sorted(named - left)}"
    heard = [int(line) for line in book.read_text().split()]
    assert set(heard) == set(range(1, max(heard) + 1)), "events were missed"


def waited(pid: int) -> int:
    """How a process ended."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def campaign(kills: int, seed: int, folder: Path) -> tuple[int, int]:
    """So many kills; how many there were, and how many generations found something wrong."""
    chance, done, wrong, generation = random.Random(seed), 0, 0, 0
    path, book = folder / "log", folder / "book"
    while done < kills:
        generation += 1
        if generation % 12 == 0:
            shutil.rmtree(path)
            book.unlink()
        writer = forked(lambda: write(path, chance.randrange(2**32)))
        for _ in range(KILLS_A_GENERATION // 2):
            seeds = [chance.randrange(2**32) for _ in range(2)]
            keepers = [forked(lambda of=of: keep(path, book, of)) for of in seeds]  # type: ignore[misc]
            for keeper in keepers:
                time.sleep(chance.uniform(0.05, 0.5))
                os.kill(keeper, signal.SIGKILL)
                if waited(keeper) != -signal.SIGKILL:
                    wrong += 1
                    print(f"generation {generation}, seeds {seeds}: a keeper ended by itself", flush=True)
                done += 1
        os.kill(writer, signal.SIGTERM)
        wrong += waited(writer) != 0
        if waited(forked(lambda: judge(path, book))) != 0:
            wrong += 1
            print(f"generation {generation}: the judge found something wrong", flush=True)
    return done, wrong


def main() -> int:
    """From the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    os.environ["EVENTLAB_PROGRESS"] = "off"
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        # A writer and a judge need the folder of the store to be there when the first keeper comes.
        made = forked(lambda: el.open(Path(folder) / "log", maintain=False).close())
        assert waited(made) == 0
        kills, wrong = campaign(given.kills, given.seed, Path(folder))
    print(f"{kills:,} kills; {wrong} problems; {time.monotonic() - started:.0f} s")
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
