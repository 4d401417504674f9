"""Consumers: functions that are told of events, in any number of processes, each event by one of them.

The streams of a consumer are split into parts, by the same function of the name that the store sorts by. Each part has a
checkpoint and a lease: the members of the group share the parts evenly, take over those of a member that died, and keep the
order of each stream. A checkpoint moves after the function was called, and only for whoever holds the lease: so an event is
handled at least once, and again only where a process died in between. A function that has to do it once asks for the event's
id, which is the same each time.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, Final

from eventlab.errors import Busy, ModelError
from eventlab.model.filters import EVERYTHING, Filter
from eventlab.model.meta import context
from eventlab.model.names import check_plain
from eventlab.store.base import Store
from eventlab.store.read_models import Parked
from eventlab.store.work import Checkpoint

#: In so many parts the streams of a consumer are split, when it says nothing else: no more members have something to do.
PARTS: Final = 16
#: A function that raises is called so often, and then the stream of the event is parked.
ATTEMPTS: Final = 3
#: Seconds before the second call; each time four times as long.
BACK_OFF: Final = 0.05
#: Checkpoints are written after so many events, or after so many seconds.
WRITE_EVENTS: Final = 500
WRITE_SECONDS: Final = 0.5
#: So many positions are looked at in one step.
STEP: Final = 50_000

Handler = Callable[[Any], object]


@dataclass(frozen=True)
class Consumer:
    """A function that is told of each event a filter picks: `@el.consumer(el.events(OrderPlaced))`."""

    name: str
    function: Handler
    filter: Filter = EVERYTHING
    parts: int = PARTS
    attempts: int = ATTEMPTS
    #: Where it begins when it is new: at the beginning of the log, or with what is appended from then on.
    begin: str = "beginning"

    def __call__(self, event: Any) -> object:
        return self.function(event)

    @property
    def reference(self) -> str:
        """Where another process finds it."""
        return f"{self.function.__module__}:{self.function.__qualname__}"


#: The consumers of this process by name; one defined again takes the place of the one before.
CONSUMERS: Final[dict[str, Consumer]] = {}


def consumer(
    filter: Filter = EVERYTHING, *, name: str | None = None, parts: int = PARTS, attempts: int = ATTEMPTS,
    begin: str = "beginning",
) -> Callable[[Handler], Consumer]:  # fmt: skip
    """Declare a function that `lab.run` and `eventlab run` tell of each event that a filter picks, from the beginning on.

    `name` is what its checkpoints are kept under, the function's own when it is left out. Events of one stream come in
    order; `parts` is how many processes can share the work. With `begin="now"` a new one hears only of what comes.

    >>> import eventlab as el
    >>> @el.event
    ... class BellRung:
    ...     "Somebody is at the door."
    >>> heard = []
    >>> @el.consumer(el.events(BellRung))
    ... def open_the_door(event):
    ...     heard.append(event.position)
    >>> lab = el.scratch()
    >>> done = lab.append("door-1", [BellRung()])
    >>> lab.run_until_idle(open_the_door)
    >>> heard
    [1]
    """
    if begin not in ("beginning", "now"):
        raise ModelError(f"begin={begin!r}", hint="'beginning' or 'now'")
    if parts < 1 or attempts < 1:
        raise ModelError(f"parts={parts}, attempts={attempts}: at least one of each")

    def wrap(function: Handler) -> Consumer:
        made = Consumer(check_plain(name or function.__name__, "consumer"), function, filter, parts, attempts, begin)
        other = CONSUMERS.get(made.name)
        if other is not None and other.reference != made.reference:
            raise ModelError(
                f"there are two consumers called {made.name!r}: {other.reference} and {made.reference}", hint="give one name=…"
            )
        CONSUMERS[made.name] = made
        return made

    return wrap


class Member:
    """One process's share of the work of a consumer. `step` does what is to be done now; `leave` gives the parts back."""

    def __init__(
        self,
        consumer: Consumer,
        store: Store,
        tenant: str,
        read: Callable[[Filter, int, int], Iterable[Any]],
        owner: str,
        lease_seconds: float,
    ) -> None:
        self.consumer, self.store, self.tenant, self.owner, self.lease_seconds = consumer, store, tenant, owner, lease_seconds
        self._read = read
        self._place = f"{tenant}/consumer/{consumer.name}"
        self._presence = f"{tenant}/member/{consumer.name}/{owner}"
        begin = 0 if consumer.begin == "beginning" else store.cut().head
        found = store.work.checkpoints(tenant, consumer.name, consumer.parts, begin)
        #: A consumer keeps the number of parts that it was begun with.
        self.parts = found[0].parts
        self._mine: dict[int, Checkpoint] = {}
        self._seen: dict[int, int] = {}
        #: The checkpoints as they are stored.
        self._stored: dict[int, Checkpoint] = {}
        self._balanced = 0.0
        self.handled = 0
        self.error = ""

    @property
    def position(self) -> int:
        """How far all parts have come."""
        found = self.store.work.checkpoints(self.tenant, self.consumer.name)
        return min((of.position for of in found), default=0)

    @property
    def held(self) -> list[int]:
        """The parts that are this member's own now."""
        return sorted(self._mine)

    def balance(self, *, now: bool = False) -> None:
        """Renew the leases, take parts that are free, and give back what is more than a fair share."""
        if not now and time.monotonic() - self._balanced < self.lease_seconds / 3:
            return
        work = self.store.work
        self._renew()
        members = sum(lease.held for lease in work.leases(f"{self.tenant}/member/{self.consumer.name}/"))
        fair = -(-self.parts // max(members, 1))
        if len(self._mine) > fair:
            extra = sorted(self._mine)[fair:]
            self._write()
            work.leave([self._lease(part) for part in extra], self.owner)
            for part in extra:
                del self._mine[part]
        elif len(self._mine) < fair:
            taken = {lease.name for lease in work.leases(f"{self._place}/") if lease.held}
            free = [part for part in range(self.parts) if self._lease(part) not in taken]
            wanted = [self._lease(part) for part in free[: fair - len(self._mine)]]
            got = work.take(wanted, self.owner, self.lease_seconds) if wanted else set()
            # Looked up after the lease was taken: from here on nobody else moves them.
            for at in work.checkpoints(self.tenant, self.consumer.name) if got else ():
                if self._lease(at.part) in got:
                    self._mine[at.part] = self._stored[at.part] = at
                    self._seen[at.part] = at.position

    def _renew(self) -> None:
        names = [self._presence, *(self._lease(part) for part in self._mine)]
        kept = self.store.work.take(names, self.owner, self.lease_seconds)
        self._mine = {part: at for part, at in self._mine.items() if self._lease(part) in kept}
        self._balanced = time.monotonic()

    def step(self) -> int:
        """Handle the next events of the parts that are held; how many positions it came forward."""
        self.balance()
        head = self.store.wait(0, 0)
        if not self._mine:
            return 0
        begin = min(self._seen[part] for part in self._mine)
        if begin >= head:
            return 0
        end = min(head, begin + STEP)
        self.error = ""
        written, count = time.monotonic(), 0
        for event in self._read(self.consumer.filter, begin, end):
            part = zlib.crc32(event.stream.encode()) % self.parts
            if part not in self._mine or event.position <= self._seen[part]:
                continue
            self._hand(event, part)
            self._seen[part] = event.position
            count += 1
            if count >= WRITE_EVENTS or time.monotonic() - written > WRITE_SECONDS:
                self._write()
                # No new parts here: what came before in them would be passed over.
                if time.monotonic() - self._balanced > self.lease_seconds / 3:
                    self._renew()
                written, count = time.monotonic(), 0
        for part in self._mine:
            self._seen[part] = max(self._seen[part], end)
        self._write()
        return end - begin

    def leave(self) -> None:
        """Write how far it came, and give everything back."""
        self._write()
        self.store.work.leave([self._presence, *(self._lease(part) for part in self._mine)], self.owner)
        self._mine = {}

    def retry(self) -> int:
        """Call the function again for what is parked, of the parts that are held; how many streams go on.

        `Busy` where another member holds them.
        """
        self.balance(now=True)
        known = self.store.work.checkpoints(self.tenant, self.consumer.name)
        elsewhere = [at.part for at in known if at.parked and at.part not in self._mine]
        if elsewhere:
            raise Busy(
                f"{len(elsewhere)} parts of {self.consumer.name} with parked events are held by another process",
                hint="stop it first, or call retry there",
            )
        mended = 0
        for part, at in list(self._mine.items()):
            for of in at.parked:
                mended += self._again(part, of)
        self._write()
        return mended

    def _again(self, part: int, of: Parked) -> bool:
        """Call the function for the events of one parked stream, in their order; whether all were taken."""
        at, waited = self._mine[part], 0
        for event in self._read(self.consumer.filter, of.position - 1, self._seen[part]):
            if event.stream != of.stream:
                continue
            try:
                self._tell(event)
            except Exception as why:
                rest = [p for p in at.parked if p.stream != of.stream]
                left = replace(_parked(event, why), waiting=max(of.waiting - waited, 0))
                self._mine[part] = replace(at, parked=(*rest, left))
                return False
            waited += 1
        self._mine[part] = replace(at, parked=tuple(p for p in at.parked if p.stream != of.stream))
        return True

    def _tell(self, event: Any) -> None:
        """Call the function: what it writes belongs to the conversation of the event, which is its cause."""
        of = event.correlation_id or event.event_id
        with context(actor=event.actor, tenant=event.tenant, correlation_id=of, causation_id=event.event_id):
            self.consumer.function(event)
        self.handled += 1

    def _hand(self, event: Any, part: int) -> None:
        at = self._mine[part]
        stopped = next((of for of in at.parked if of.stream == event.stream), None)
        if stopped is not None:
            waits = replace(stopped, waiting=stopped.waiting + 1)
            self._mine[part] = replace(at, parked=tuple(waits if of is stopped else of for of in at.parked))
            return
        for attempt in range(1, self.consumer.attempts + 1):
            try:
                self._tell(event)
                return
            except Exception as why:
                if attempt == self.consumer.attempts:
                    self.error = f"{type(why).__name__}: {why}"
                    self._mine[part] = replace(at, parked=(*at.parked, _parked(event, why)))
                    return
            time.sleep(BACK_OFF * 4 ** (attempt - 1))

    def _write(self) -> None:
        moved = [replace(at, position=self._seen[part]) for part, at in self._mine.items()]
        moved = [at for at in moved if at != self._stored.get(at.part)]
        if not moved:
            return
        leases = {at.part: self._lease(at.part) for at in moved}
        kept = self.store.work.advance(self.tenant, self.consumer.name, moved, leases, self.owner)
        for at in moved:
            if at.part in kept:
                self._mine[at.part] = self._stored[at.part] = at
            else:
                del self._mine[at.part]

    def _lease(self, part: int) -> str:
        return f"{self._place}/{part:04d}"


def _parked(event: Any, why: Exception) -> Parked:
    said = f"{type(why).__name__}: {why}"[:500]
    return Parked((event.stream,), event.position, event.stream, event.version, event.type, said)
