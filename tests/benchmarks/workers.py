"""Processes of their own that the store is measured from: writers that append until they are told to stop, and an ingest."""

from __future__ import annotations

import contextlib
import multiprocessing
import resource
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

import polars as pl
import pyarrow as pa
import pyarrow.ipc
from appenders import APPENDERS, line
from by_hand import plain_table, write_files
from generate import EVENT_TYPES, Log

import eventlab as el
from eventlab.integration.ingest import ingest, rows
from eventlab.model.meta import current_context
from eventlab.store.base import Store
from eventlab.temporal.reader import Bar

# A store's connections and locks belong to one process: nothing is forked here.
_CONTEXT: Final = multiprocessing.get_context("spawn")


class Writer:
    """A process that appends one event after another while it is told to."""

    def __init__(self) -> None:
        self._pipe, theirs = _CONTEXT.Pipe()
        self._process = _CONTEXT.Process(target=_write, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()

    def prepare(self, name: str, folder: Path, stream: str) -> None:
        """Open a store and append one event to it."""
        self._pipe.send((name, folder, stream))

    def await_ready(self) -> None:
        self._pipe.recv()

    def start(self) -> None:
        self._pipe.send("start")

    def stop(self) -> None:
        self._pipe.send("stop")

    def seconds(self) -> list[float]:
        """How long each append took, between `start` and `stop`."""
        found: list[float] = self._pipe.recv()
        return found

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._pipe.send(None)
        self._process.join(20)
        self._process.kill()


def _write(pipe: Connection) -> None:
    while (task := pipe.recv()) is not None:
        name, folder, stream = task
        store = APPENDERS[name](folder)
        store.append(stream, [line(0)])
        pipe.send("ready")
        pipe.recv()
        taken: list[float] = []
        number = 0
        while not pipe.poll():
            number += 1
            added = [line(number)]
            started = time.perf_counter()
            store.append(stream, added)
            taken.append(time.perf_counter() - started)
        pipe.recv()
        store.close()
        pipe.send(taken)


@contextlib.contextmanager
def writing(writers: Sequence[Writer], name: str, folder: Path) -> Iterator[list[list[float]]]:
    """Some writers append to one store, each to its own stream, while the context lasts; their times are there at its end."""
    for number, writer in enumerate(writers):
        writer.prepare(name, folder, f"order-writer{number}")
    for writer in writers:
        writer.await_ready()
    taken: list[list[float]] = []
    for writer in writers:
        writer.start()
    yield taken
    for writer in writers:
        writer.stop()
    taken += [writer.seconds() for writer in writers]


@contextlib.contextmanager
def writers(count: int) -> Iterator[list[Writer]]:
    """Processes that write."""
    found = [Writer() for _ in range(count)]
    try:
        yield found
    finally:
        for writer in found:
            writer.close()


# -- ingest ----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ingesting:
    """Seconds by the wall and of all cores together, ours and by hand; bytes held before and at the peak, and by the tables."""

    wall: float
    cpu: float
    by_hand_wall: float
    by_hand_cpu: float
    before: int
    peak: int
    tables: int
    rows: int


def write_tables(log: Log, folder: Path) -> None:
    """The events of a log as Arrow files, for another process to have in memory."""
    folder.mkdir()
    for kind, frame in log.frames.items():
        table = frame.to_arrow()
        with pa.OSFile(str(folder / kind.__name__), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)


def ingest_in_a_process(tables: Path, folder: Path, events: int) -> Ingesting:
    """One ingest in a new process, into a store in a folder; and by hand, into files in another."""
    with ProcessPoolExecutor(1, mp_context=_CONTEXT) as pool:
        return pool.submit(_ingest, tables, folder, events).result()


def _ingest(tables: Path, folder: Path, events: int) -> Ingesting:
    held = {}
    for kind in EVENT_TYPES:
        with pa.OSFile(str(tables / kind.__name__)) as source, pa.ipc.open_file(source) as reader:
            held[kind] = reader.read_all()
    with el.open(folder / "warm", maintain=False) as lab:
        place(lab.store, {kind: table.slice(0, 100) for kind, table in held.items()}, "warm")
    before = _forget_peak()
    with el.open(folder / "store", maintain=False) as lab:
        wall, cpu = _timed(lambda: place(lab.store, held, "orders"))
        count = lab.head
    peak = _peak()
    log = Log({kind: pl.DataFrame(table) for kind, table in held.items()}, 0, events)
    by_hand_wall, by_hand_cpu = _timed(lambda: write_files(plain_table(log), folder / "by-hand"))
    size = sum(table.nbytes for table in held.values())
    return Ingesting(wall, cpu, by_hand_wall, by_hand_cpu, before, peak, size, count)


def place(store: Store, tables: dict[type[Any], Any], source: str) -> int:
    """Ingest without sorting by stream at the end, whatever the size."""
    sources = [rows(kind, table, stream="order-{order}", occurred_at="at") for kind, table in tables.items()]
    return ingest(
        store, sources, source=source, tenant="default", recorded_at="occurred_at", context=current_context(), bar=Bar()
    ).events


def _timed(work: Callable[[], Any]) -> tuple[float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


_STATUS: Final = Path("/proc/self/status")


def _forget_peak() -> int:
    """Begin to look for the peak of this process's memory anew; what it holds now."""
    # What the kernel keeps as the peak of a process goes back to before it was this program.
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return _held("VmRSS:")


def _peak() -> int:
    return _held("VmHWM:")


def _held(name: str) -> int:
    try:
        found = next(text for text in _STATUS.read_text().splitlines() if text.startswith(name))
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return int(found.split()[1]) * 1024
