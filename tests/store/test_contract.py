"""Every store passes the contract, in every state that a log can be in."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from eventlab.store.base import Store
from eventlab.store.disk import DiskStore, open_store
from eventlab.store.memory import MemoryStore
from eventlab.testing.contract import StoreContract


def now() -> int:
    return time.time_ns() // 1000


class Kept:
    """A disk store that something is done to after each write: what is read must not show it."""

    def __init__(self, path: Path, after_write: Callable[[Kept], None]) -> None:
        self.path, self._after_write, self.writes = path, after_write, 0
        self.inner = self._open()

    def _open(self) -> DiskStore:
        return open_store(self.path, now=now)

    def reopen(self) -> None:
        self.inner.close()
        self.inner = self._open()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def append(self, *drafts: Any, **given: Any) -> Any:
        done = self.inner.append(*drafts, **given)
        self._written()
        return done

    def ingest(self, *chunk: Any, **given: Any) -> Any:
        done = self.inner.ingest(*chunk, **given)
        self._written()
        return done

    def _written(self) -> None:
        self.writes += 1
        self._after_write(self)


def leave_it(_: Kept) -> None:
    """Hot, with holes where an ingest lies between."""


def seal(store: Kept) -> None:
    store.inner.seal()


def seal_every_second_write(store: Kept) -> None:
    """A sealed prefix and a hot tail."""
    if store.writes % 2:
        store.inner.seal()


def read(store: Kept) -> None:
    """The hot tail in memory grows a piece a write."""
    assert store.inner.cut().layout


def compact(store: Kept) -> None:
    """One era of buckets sorted by stream, made anew each time; what it was made of is deleted at once."""
    store.inner.seal()
    store.inner.compact(all=True)
    store.inner.collect(grace=0)


def compact_into_short_eras(store: Kept) -> None:
    """Many eras of a few positions each, a sealed run, and hot events."""
    if store.writes % 2:
        store.inner.seal()
    if store.writes % 4 == 1:
        store.inner.compact(all=True, positions=5)
        store.inner.collect(grace=0)


def compact_sealed_runs_half_way(store: Kept) -> None:
    """Eras close by themselves once the next is half full: the newest runs stay in position order."""
    store.inner.seal()
    store.inner.compact(positions=4)


def close_and_open(store: Kept) -> None:
    store.reopen()


STATES = [
    leave_it, seal, seal_every_second_write, read, compact, compact_into_short_eras, compact_sealed_runs_half_way,
]  # fmt: skip


class TestMemoryStore(StoreContract):
    @pytest.fixture
    def store(self) -> Store:
        return MemoryStore(now)


class TestDiskStore(StoreContract):
    @pytest.fixture(params=STATES, ids=lambda state: state.__name__)
    def store(self, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
        store = Kept(tmp_path / "log", request.param)
        yield store
        store.inner.close()


class TestDiskStoreThatIsClosedAndOpenedAfterEachWrite(StoreContract):
    @pytest.fixture
    def store(self, tmp_path: Path) -> Iterator[Any]:
        store = Kept(tmp_path / "log", close_and_open)
        yield store
        store.inner.close()

    # A store that is closed takes its cuts, and the threads that use it, with it.
    test_a_cut_never_changes = None  # type: ignore[assignment]
    test_nothing_is_lost_when_several_threads_append = None  # type: ignore[assignment]
    test_of_writers_with_one_expected_version_one_wins = None  # type: ignore[assignment]
    test_of_writers_with_one_condition_one_wins = None  # type: ignore[assignment]
