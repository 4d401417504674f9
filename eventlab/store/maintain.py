"""Maintenance: seal, compact and collect by themselves while a store is in use, in a thread and never in the way.

One process at a time maintains a store (`maintain.lock`); the others leave it to that one. The thread works in slices and
lets go of the interpreter and of the write lock between them. What goes wrong is tried again, and whoever writes is warned
once: a store without maintenance is slower, never wrong.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
import time
import warnings
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from eventlab.errors import EventlabError
from eventlab.store.compact import ERA_POSITIONS
from eventlab.store.disk import DiskStore
from eventlab.store.gc import GRACE_SECONDS


@dataclass(frozen=True)
class Policy:
    """When what is done: seal at so many hot events, compact into eras of so many positions, look again after seconds."""

    seal_at: int = 50_000
    era_positions: int = ERA_POSITIONS
    collect_every: float = GRACE_SECONDS
    look_every: float = 1.0


POLICY: Final = Policy()
#: An ingest of so many events is compacted when it ends.
LARGE_INGEST: Final = 1_000_000


class Stopped(Exception):
    """The thread is told to end in the middle of its work."""


class Maintenance:
    """The thread that maintains one store of this process; it starts with the first write, and ends with `stop`."""

    def __init__(self, store: DiskStore, policy: Policy = POLICY) -> None:
        # The thread must not keep alive a store that everyone else has forgotten.
        self._store = weakref.ref(store)
        self._policy = policy
        self._wake = threading.Event()
        self._stop = False
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._collected = time.monotonic()
        self.error: Exception | None = None
        self._warned = False
        self.rounds = 0
        self._users = 0

    def join(self) -> None:
        """One more lab uses it."""
        with self._lock:
            self._users += 1

    def leave(self) -> None:
        """A lab that used it is closed; the last one ends the thread."""
        with self._lock:
            self._users -= 1
            last = self._users == 0
        if last:
            with _OF_LOCK:
                store = self._store()
                if store is not None:
                    _OF.pop(store, None)
            self.stop()

    def written(self) -> None:
        """Events were appended: start the thread, or say what it has met with."""
        if (error := self.error) is not None and not self._warned:
            self._warned = True
            text = f"the store is written to but not kept in shape, which makes reading slower: {error} (it is tried again)"
            warnings.warn(text, RuntimeWarning, stacklevel=3)
        if self._thread is None:
            with self._lock:
                if self._thread is None and not self._stop:
                    self._thread = threading.Thread(target=self._run, name="eventlab-maintenance", daemon=True)
                    self._thread.start()

    def stop(self) -> None:
        """End the thread, in the middle of what it does if need be: unfinished files are deleted."""
        self._stop = True
        self._wake.set()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _run(self) -> None:
        while not self._stop:
            self._wake.wait(self._policy.look_every)
            self._wake.clear()
            store = self._store()
            if store is None or self._stop:
                return
            try:
                self._look(store)
                self.error, self._warned = None, False
            except Stopped:
                return
            except (EventlabError, OSError) as why:
                # A full disk, a store that is closed.
                self.error = why
            del store

    def _look(self, store: DiskStore) -> None:
        head, sealed = store.heads()
        due = head - sealed >= self._policy.seal_at
        collect = time.monotonic() - self._collected > self._policy.collect_every
        if not (due or collect):
            return
        with alone(store) as mine:
            if not mine:
                return
            if due:
                store.seal(self._pause)
                store.compact(positions=self._policy.era_positions, pause=self._pause)
            if collect:
                store.collect()
                self._collected = time.monotonic()
            self.rounds += 1

    def _pause(self) -> None:
        if self._stop:
            raise Stopped
        # Long enough for a writer that waits for the interpreter to take it.
        time.sleep(0.002)


_OF: weakref.WeakKeyDictionary[DiskStore, Maintenance] = weakref.WeakKeyDictionary()
_OF_LOCK = threading.Lock()


def maintenance_of(store: DiskStore, policy: Policy = POLICY) -> Maintenance:
    """The one maintenance of a store in this process, for one more lab; the first decides on the policy."""
    with _OF_LOCK:
        found = _OF.get(store)
        if found is None:
            found = _OF[store] = Maintenance(store, policy)
        found.join()
        return found


@contextlib.contextmanager
def alone(store: DiskStore) -> Iterator[bool]:
    """Whether this process is the one that maintains the store now; it is for as long as the context lasts."""
    descriptor = os.open(store.root / "maintain.lock", os.O_CREAT | os.O_RDWR, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
            return
        yield True
    finally:
        os.close(descriptor)
