"""The same events in stores of different layouts and in plain files, each made when it is first asked for."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

from by_hand import ByHand, plain_table, write_files
from generate import Log, orders
from workers import place, write_tables

import eventlab as el

#: What the `eventsourcing` library and the hot tail are given: a load does not depend on how many there are.
FEW_EVENTS: Final = 20_000
HOT_EVENTS: Final = 10_000
SEAL_EVENTS: Final = 100_000
LAYOUTS: Final = ("plain", "mixed", "compacted")


@dataclass(frozen=True)
class Effort:
    """How often and how long things are measured: turns of long and of short work, appends a turn, seconds of writing."""

    long: int = 3
    short: int = 7
    appends: tuple[tuple[int, int], ...] = ((1, 50), (10, 30), (100, 10))
    writing: float = 1.5
    loads: int = 20


SMALL: Final = Effort(1, 2, ((1, 3), (10, 2), (100, 1)), 0.1, 4)
SMALL_EVENTS: Final = 10_000
LARGE_EFFORT: Final = Effort(long=2)
LARGE_EVENTS: Final = 3_000_000


class Layouts:
    """The same events in different layouts and in plain files, each made when it is first asked for."""

    def __init__(self, folder: Path, events: int, effort: Effort) -> None:
        self.folder, self.events, self.effort = folder, events, effort
        self.hand = ByHand()

    @cached_property
    def log(self) -> Log:
        return orders(self.events)

    @cached_property
    def files(self) -> list[str]:
        """By hand: Parquet files in order of time."""
        return write_files(plain_table(self.log), self.folder / "files")

    @cached_property
    def tables(self) -> Path:
        """The events as Arrow files, for another process."""
        write_tables(self.log, self.folder / "tables")
        return self.folder / "tables"

    @cached_property
    def plain(self) -> Path:
        """Runs in order of position."""
        return self._made("plain", lambda lab: place(lab.store, dict(self.log.frames), "orders"))

    @cached_property
    def compacted(self) -> Path:
        """Eras sorted by stream."""
        to = self.copy(self.plain, "compacted")
        return self._made(to.name, lambda lab: lab.compact(all=True))

    @cached_property
    def mixed(self) -> Path:
        """Half compacted, the rest in order of position, the last events hot."""

        def make(lab: el.Lab) -> None:
            n, hot = len(self.log), min(HOT_EVENTS, len(self.log) // 10)
            place(lab.store, dict(self.log.slice(0, n // 2).frames), "first half")
            lab.compact(all=True)
            place(lab.store, dict(self.log.slice(n // 2, n - hot).frames), "second half")
            lab.append(self.log.slice(n - hot, n).by_stream())

        return self._made("mixed", make)

    @cached_property
    def few(self) -> Log:
        return orders(min(self.events, FEW_EVENTS))

    @cached_property
    def hot(self) -> Path:
        """Nothing sealed."""
        return self._made("hot", lambda lab: lab.append(self.few.by_stream()))

    @cached_property
    def unsealed(self) -> Path:
        """Many hot events that are due to be sealed."""

        def make(lab: el.Lab) -> None:
            for stream, events in self.due.by_stream().items():
                lab.append(stream, events)

        return self._made("unsealed", make)

    @cached_property
    def due(self) -> Log:
        return orders(min(self.events, SEAL_EVENTS))

    def _made(self, name: str, make: Callable[[el.Lab], object]) -> Path:
        with el.open(self.folder / name / "store", maintain=False) as lab:
            make(lab)
        return self.folder / name

    def copy(self, made: Path, name: str) -> Path:
        """A closed store once more, to be changed."""
        to = self.folder / name
        shutil.rmtree(to, ignore_errors=True)
        shutil.copytree(made, to)
        return to

    def open(self, name: str) -> el.Lab:
        made: Path = getattr(self, name)
        return opened(made)


def opened(folder: Path) -> el.Lab:
    return el.open(folder / "store", maintain=False)
