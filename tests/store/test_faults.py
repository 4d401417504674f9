"""Disks that fail: every call at every moment, with what a disk may answer. Nothing is lost, and the store goes on."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import resource
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import pyarrow as pa
import pytest

from eventlab.errors import DiskFull, EventlabError, StoreError
from eventlab.store.disk import DiskStore, open_store
from eventlab.store.files import LocalDisk
from eventlab.store.verify import verify
from eventlab.testing.contract import append, chunk, draft, rows

ROOT = Path(__file__).resolve().parents[2]


def now() -> int:
    return time.time_ns() // 1000


class FaultyDisk(LocalDisk):
    """Raises an error of the operating system at the n-th of its writing calls, and at all that follow while it is broken."""

    def __init__(self) -> None:
        self.left = 2**62
        self.code = errno.EIO
        self.calls = 0

    def break_at(self, call: int, code: int) -> None:
        self.left, self.code, self.calls = call, code, 0

    def mend(self) -> None:
        self.left = 2**62

    def _call(self) -> None:
        self.calls += 1
        self.left -= 1
        if self.left < 0:
            raise OSError(self.code, os.strerror(self.code))

    def create(self, path: Path) -> IO[bytes]:
        self._call()
        return super().create(path)

    def sync(self, file: IO[bytes]) -> None:
        self._call()
        super().sync(file)

    def rename(self, old: Path, new: Path) -> None:
        self._call()
        super().rename(old, new)

    def sync_folder(self, path: Path) -> None:
        self._call()
        super().sync_folder(path)

    def make_folder(self, path: Path) -> bool:
        self._call()
        return super().make_folder(path)

    def unlink(self, path: Path) -> None:
        self._call()
        super().unlink(path)


class HalfWriter(io.RawIOBase):
    """A file that takes only a part of what it is given, as a disk may, and says so."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb", buffering=0)

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        part = bytes(data)[: max(1, len(bytes(data)) // 3)]  # type: ignore[call-overload]
        self._file.write(part)
        return len(part)

    def fileno(self) -> int:
        return self._file.fileno()

    def close(self) -> None:
        self._file.close()
        super().close()


class HalfDisk(LocalDisk):
    def create(self, path: Path) -> IO[bytes]:
        return io.BufferedWriter(HalfWriter(path))  # type: ignore[arg-type, return-value]


@contextlib.contextmanager
def opened(path: Path, disk: LocalDisk) -> Iterator[DiskStore]:
    store = open_store(path, now=now, disk=disk)
    try:
        yield store
    finally:
        store.close()


def prepare(store: DiskStore) -> None:
    for i in range(4):
        append(store, draft(f"order-{i % 3}", i), draft("order-1", i))
        if i % 2:
            store.seal()
    append(store, draft("order-1", 1))


OPERATIONS: dict[str, Callable[[DiskStore], object]] = {
    "seal": lambda store: store.seal(),
    "compact": lambda store: store.compact(all=True),
    "collect": lambda store: (store.compact(all=True), store.collect(grace=0)),
    "ingest": lambda store: store.ingest(chunk([draft(f"item-{i}", i) for i in range(20)]), tenant="a"),
    "read model": lambda store: store.read_models.save("order", "a", "f", 1, pa.table({"n": [1]})),
}


def refused(call: Callable[[], object], kind: type[StoreError]) -> bool:
    """Whether a call fails; if it does, then with this kind of error and a hint."""
    try:
        call()
    except EventlabError as error:
        return bool(error.hint) and isinstance(error, kind)
    return False


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC, errno.EMFILE], ids=lambda code: errno.errorcode[code])
@pytest.mark.parametrize("operation", sorted(OPERATIONS))
def test_a_disk_that_fails_at_any_call_loses_nothing_and_the_store_goes_on(tmp_path: Path, operation: str, code: int) -> None:
    disk, call = FaultyDisk(), 0
    while True:
        with opened(tmp_path / f"log-{call}", disk) as store:
            prepare(store)
            before = rows(store.cut())
            disk.break_at(call, code)
            failed = refused(lambda store=store: OPERATIONS[operation](store), DiskFull if code == errno.ENOSPC else StoreError)
            assert failed or disk.left >= 0, "a failure is not passed over in silence"
            disk.mend()
            assert rows(store.cut())[: len(before)] == before
            append(store, draft("order-9", 9))
            OPERATIONS[operation](store)
            after = rows(store.cut())
            assert after[: len(before)] == before
        with opened(tmp_path / f"log-{call}", LocalDisk()) as store:
            assert rows(store.cut()) == after
            assert [f for f in verify(store, full=True).findings if f.severity != "note"] == []
        if not failed:
            break
        call += 1 if code == errno.EIO else 4
    assert call > 2, "the operation makes calls that can fail"


def test_a_disk_that_writes_a_part_of_what_it_is_given_is_given_the_rest(tmp_path: Path) -> None:
    with opened(tmp_path / "log", HalfDisk()) as store:
        prepare(store)
        before = rows(store.cut())
        store.seal()
        store.compact(all=True)
        assert rows(store.cut()) == before
        assert verify(store, full=True).findings == ()


def test_too_many_open_files_are_said_to_be_so_and_do_no_harm(tmp_path: Path) -> None:
    script = """
        import resource, sys, time
        from pathlib import Path
        from eventlab.errors import EventlabError
        from eventlab.store.disk import open_store
        from eventlab.testing.contract import append, draft, rows
        store = open_store(Path(sys.argv[1]), now=lambda: time.time_ns() // 1000)
        append(store, draft("order-1", 1))
        store.seal()  # everything that is imported late is imported now
        append(store, draft("order-1", 2))
        taken, (_, hard) = [], resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
        try:
            while True:
                taken.append(open("/dev/null"))
        except OSError:
            pass
        try:
            store.seal()
        except EventlabError as why:
            print(type(why).__name__, "open files" in str(why))
        for file in taken:
            file.close()
        append(store, draft("order-1", 3))
        store.seal()
        print(len(rows(store.cut())))
    """
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[1] >= 64
    command = [sys.executable, "-c", textwrap.dedent(script), str(tmp_path / "log")]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment, check=False)
    assert done.stderr == ""
    assert done.stdout.splitlines() == ["StoreError True", "3"]


def test_a_clock_that_goes_back_between_processes_does_not_show(tmp_path: Path) -> None:
    path = tmp_path / "log"
    for clock in (100, 40, 70):
        store = open_store(path, now=lambda at=clock: at)
        append(store, draft("order-1", clock))
        store.close()
    with opened(path, LocalDisk()) as store:
        assert [row.recorded_at for row in rows(store.cut())] == [100, 100, 100]
