"""Following the log: what a filter picks after a position, and then what is appended, each event once and in order."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Final, Generic, Protocol, TypeVar

from eventlab.store.base import Store

#: Seconds after which whoever waits looks whether it was stopped.
LOOK_UP: Final = 0.25
#: So many positions are read at a time, so that `position` moves on where nothing is picked.
STEP: Final = 1_000_000


class Placed(Protocol):
    """Something with a place in the log."""

    @property
    def position(self) -> int: ...


E = TypeVar("E", bound=Placed)


class Subscription(Generic[E]):
    """Events as they come: iterate over it. `position` is how far it has read, to begin `after` it the next time.

    The log grows by whole commits, in the order of positions, and a reader sees all of one or nothing: so catching up and
    going on live are the same look at what is after `position`, and there is no seam where an event could be missed.
    """

    def __init__(
        self,
        store: Store,
        read: Callable[[int, int], Iterable[E]],
        after: int,
        *,
        live: bool = True,
        timeout: float | None = None,
    ) -> None:
        self._store, self._read = store, read
        self.position = after
        self.live, self.timeout = live, timeout
        self._stopped = threading.Event()

    def __repr__(self) -> str:
        return f"Subscription(position={self.position:,}{'' if self.live else ', live=False'})"

    def __iter__(self) -> Iterator[E]:
        heard = time.monotonic()
        while not self._stopped.is_set():
            head = self._store.wait(self.position, 0)
            if head > self.position:
                end = min(head, self.position + STEP)
                for event in self._read(self.position, end):
                    if self._stopped.is_set():
                        return
                    # Before it is given: whoever stops in the middle has it already.
                    self.position = event.position
                    yield event
                    heard = time.monotonic()
                self.position = end
                continue
            if not self.live:
                return
            left = LOOK_UP if self.timeout is None else min(LOOK_UP, heard + self.timeout - time.monotonic())
            if left <= 0:
                return
            self._store.wait(self.position, left)

    def stop(self) -> None:
        """End the iteration, from another thread or from within."""
        self._stopped.set()
