"""The one loop that keeps read models current and consumers told, in as many processes as there are.

Each piece of work has a lease: one process does it, and another takes over when that one is gone. A failure of one piece
is tried again later and later, and stops none of the others. Nothing happens while the log does not grow.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Protocol

from eventlab.errors import Busy, EventlabError
from eventlab.projections.consumers import Consumer, Member
from eventlab.projections.read_models import Rebuilt
from eventlab.store.base import Store
from eventlab.store.work import new_owner

#: A lease of a process that hangs is over after so many seconds; that of one that died can be taken at once.
LEASE_SECONDS: Final = 10.0
#: Seconds after which a piece of work that failed is tried again; each time twice as long, and no longer than `MOST`.
BACK_OFF: Final = 0.5
MOST: Final = 60.0
#: Between two looks at the log when nothing comes.
IDLE: Final = 1.0


@dataclass
class Signals:
    """What a piece of work has done in this process, as others may read it."""

    kind: str
    events: int = 0
    seconds: float = 0.0
    rebuild_seconds: float | None = None
    error: str = ""
    failures: int = 0


class Task(Protocol):
    """One piece of work."""

    name: str
    kind: str

    def step(self, head: int) -> int:
        """Do what is to be done up to `head`; how many events that was."""
        ...

    @property
    def position(self) -> int: ...
    def leave(self) -> None: ...


class ModelTask:
    """A read model that is kept at the head; the base of other code stays as it is."""

    kind = "read model"

    def __init__(self, name: str, lease: str, move: Callable[[], Rebuilt], position: Callable[[], int | None]) -> None:
        self.name, self.lease = name, lease
        self._move, self._position = move, position
        self._at: int | None = position()
        self._rests = 0.0
        self.rebuild_seconds: float | None = None

    @property
    def position(self) -> int:
        """Its checkpoint."""
        return self._position() or 0

    def step(self, head: int) -> int:
        """Catch up, if there is something to catch up with."""
        if self._at is not None and self._at >= head:
            return 0
        new = self._at is None and self._position() is None
        done = self._move()
        self._at = done.position
        if new:
            self.rebuild_seconds = done.seconds
        return done.events

    def leave(self) -> None:
        """Nothing is held but the lease."""


class ConsumerTask:
    """One member of a consumer's group."""

    kind = "consumer"

    def __init__(self, consumer: Consumer, member: Callable[[], Member]) -> None:
        self.name = consumer.name
        self._make = member
        self._member: Member | None = None

    @property
    def member(self) -> Member:
        """The member, from the first time on that it is needed."""
        if self._member is None:
            self._member = self._make()
        return self._member

    @property
    def position(self) -> int:
        """How far all its parts have come."""
        return self.member.position

    def step(self, head: int) -> int:
        """Handle what there is for this member."""
        before = self.member.handled
        while self.member.step():
            pass
        return self.member.handled - before

    def leave(self) -> None:
        """Give its parts back."""
        if self._member is not None:
            self._member.leave()


@dataclass
class _Held:
    task: Any
    signals: Signals
    lease: str
    held: bool = False
    again: float = 0.0


@dataclass(frozen=True)
class Working:
    """A piece of work in this process: whether its lease is held here, events done, what failed last."""

    name: str
    kind: str
    held: bool
    events: int
    error: str


@dataclass
class Runner:
    """The loop over some pieces of work: `run_until_idle`, or `start` and `stop` for one in the background."""

    store: Store
    tasks: Sequence[Any]
    tenant: str
    lease_seconds: float = LEASE_SECONDS
    owner: str = field(default_factory=new_owner)

    def __post_init__(self) -> None:
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._leased = 0.0
        self._lock = threading.RLock()
        self._work = [
            _Held(task, Signals(task.kind), getattr(task, "lease", f"{self.tenant}/run/{task.name}/{self.owner}"))
            for task in self.tasks
        ]

    def __repr__(self) -> str:
        names = ", ".join(task.name for task in self.tasks) or "nothing"
        return f"Runner({names}; {'running' if self.running else 'stopped'})"

    def __enter__(self) -> Runner:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def running(self) -> bool:
        """Whether it runs in the background."""
        return self._thread is not None and self._thread.is_alive()

    @property
    def errors(self) -> dict[str, str]:
        """What failed last, by the name of the work; nothing of what went well since."""
        return {of.task.name: of.signals.error for of in self._work if of.signals.error}

    @property
    def work(self) -> list[Working]:
        """Each piece of work, as it is here."""
        return [Working(of.task.name, of.task.kind, of.held, of.signals.events, of.signals.error) for of in self._work]

    # -- running

    def start(self) -> Runner:
        """Run in a thread of its own until `stop`."""
        with self._lock:
            if not self.running:
                self._stop.clear()
                self._thread = threading.Thread(target=self.run, name="eventlab-run", daemon=True)
                self._thread.start()
        return self

    def stop(self, seconds: float | None = 30.0) -> None:
        """Finish what is being done, write how far it came, give the leases back."""
        self._stop.set()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(seconds)

    def run(self) -> None:
        """Run here until `stop` is called from another thread."""
        done = -1
        try:
            while not self._stop.is_set():
                head = self.store.wait(done, min(IDLE, self.lease_seconds / 3))
                if self._renew():
                    done = -1
                if head > done:
                    if self._round(head):
                        done = head
                    else:
                        # Something failed, and is tried again in its time.
                        self._stop.wait(0.05)
        finally:
            self._leave()

    def run_until_idle(self, seconds: float | None = None) -> None:
        """Run until everything is at the head of the log; what fails raises here."""
        until = None if seconds is None else time.monotonic() + seconds
        try:
            self._renew(now=True)
            while True:
                head = self.store.wait(0, 0)
                self._round(head, raising=True)
                behind = [of for of in self._work if of.task.position < head]
                if not behind and self.store.wait(0, 0) == head:
                    return
                if until is not None and time.monotonic() > until:
                    raise Busy(
                        f"{', '.join(of.task.name for of in behind)} did not reach position {head:,} in {seconds:g} s",
                        hint="another process holds the lease: lab.status() shows which",
                    )
                if behind:
                    time.sleep(0.01)
                    self._renew(now=not all(of.held for of in self._work))
        finally:
            self._leave()

    def _round(self, head: int, *, raising: bool = False) -> bool:
        """Let each piece of work that is held do its step; whether none failed, or waits after a failure."""
        whole = True
        for of in self._work:
            if self._stop.is_set():
                return False
            if not of.held:
                continue  # another process does it
            if of.again > time.monotonic() and not raising:
                whole = False
                continue
            started = time.perf_counter()
            try:
                of.signals.events += of.task.step(head)
                of.signals.error, of.signals.failures = "", 0
            except Exception as why:
                if raising:
                    raise
                whole = False
                of.signals.failures += 1
                of.signals.error = _said(why)
                of.again = time.monotonic() + min(BACK_OFF * 2 ** (of.signals.failures - 1), MOST)
            of.signals.seconds += time.perf_counter() - started
            of.signals.rebuild_seconds = getattr(of.task, "rebuild_seconds", None)
            self._renew()
        return whole

    # -- leases

    def _renew(self, *, now: bool = False) -> bool:
        """Renew the leases when it is time; whether there is more work now than before."""
        if not now and time.monotonic() - self._leased < self.lease_seconds / 3:
            return False
        said = {of.lease: json.dumps(asdict(of.signals)) for of in self._work}
        held = self.store.work.take([of.lease for of in self._work], self.owner, self.lease_seconds, said)
        more = False
        for of in self._work:
            more |= of.lease in held and not of.held
            of.held = of.lease in held
            if of.held and of.task.kind == "consumer":
                before = of.task.member.held
                of.task.member.balance(now=now)
                more |= not set(of.task.member.held) <= set(before)
        self._leased = time.monotonic()
        return more

    def _leave(self) -> None:
        for of in self._work:
            if of.held:
                of.task.leave()
        self.store.work.leave([of.lease for of in self._work], self.owner)
        for of in self._work:
            of.held = False
        self._leased = 0.0


def _said(why: BaseException) -> str:
    text = why.message if isinstance(why, EventlabError) else str(why)
    return f"{type(why).__name__}: {text}"[:500]
