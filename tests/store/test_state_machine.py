"""Whatever is done to a store on disk, it reads like the specification: the same rows, versions, refusals and cuts."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from eventlab.errors import EventlabError
from eventlab.model.filters import Clause, Filter
from eventlab.model.schema import Schema
from eventlab.store import tail
from eventlab.store.base import ALL, Appended, Condition, Cut, Draft
from eventlab.store.disk import open_store
from eventlab.store.memory import MemoryStore
from eventlab.store.verify import verify
from eventlab.testing.contract import append, chunk, rows, stream_rows
from eventlab.testing.strategies import drafts

TENANTS = ("a", "b")
STREAMS = ("order-1", "order-2", "item-1", "item-1-1")
SCHEMAS = (
    Schema("Counted", 1, ("n:i64",)),
    Schema("Counted", 2, ("n:i64", "by:s")),
    Schema("Priced", 1, ("n:d18_2", "addr:p", "addr.city:s", "addr.lines:l_s")),
    Schema("Opened", 1, ()),
    Schema("Noted", 1, ("seen:m_r(at=ts,ok=b)", "x:f64", "raw:json")),
    # Refused beside those above: another shape under a known name, and a name that differs by case alone.
    Schema("Counted", 1, ("n:s",)),
    Schema("opened", 1, ()),
)
FILTERS = [
    Filter((Clause(types=frozenset({"Counted"})),)),
    Filter((Clause(tags=frozenset({"vip"})), Clause(streams=frozenset({"item-1"})))),
    Filter((Clause(categories=frozenset({"order"}), tags=frozenset({"customer:c'1", "vip"})),)),
]

tenants = st.sampled_from(TENANTS)


def in_a_row(given: list[Draft]) -> list[Draft]:
    """Of one stream, with ids that follow on one another: the store keeps them as runs."""
    first = int.from_bytes(given[0].event_id, "big")
    return [
        one._replace(stream=given[0].stream, event_id=((first + at) % 2**128).to_bytes(16, "big"))
        for at, one in enumerate(given)
    ]


events = st.lists(drafts(STREAMS, SCHEMAS), min_size=1, max_size=4) | st.lists(
    drafts(STREAMS, SCHEMAS), min_size=2, max_size=8
).map(in_a_row)


def outcome(call: Callable[[], Any]) -> Any:
    """What a call gives, or what it is refused with: the kind, the words and the numbers."""
    try:
        return call()
    except EventlabError as why:
        return type(why), str(why), {name: fact for name, fact in why.facts.items() if name != "path"}


def fresh(drafts: Sequence[Draft], ids: st.DataObject) -> list[Draft]:
    return [d._replace(event_id=ids.draw(st.binary(min_size=16, max_size=16))) for d in drafts]


class DiskIsMemory(RuleBasedStateMachine):
    """Every step is done to both stores; they must answer alike."""

    made = Bundle("made")
    pinned = Bundle("pinned")

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        # So that a few events are several runs.
        self.short = mock.patch.object(tail, "RUN_EVENTS", 3)
        self.short.start()
        self.memory = MemoryStore(lambda: self.clock)
        self.disk = open_store(self.folder / "log", now=lambda: self.clock)
        self.clock = 1_000
        self.chunks: dict[tuple[str, str], int] = {}
        self.used: set[bytes] = set()

    def teardown(self) -> None:
        self.disk.close()
        self.short.stop()
        shutil.rmtree(self.folder)

    def both(self, call: Callable[[Any], Any]) -> Any:
        specified, got = outcome(lambda: call(self.memory)), outcome(lambda: call(self.disk))
        assert got == specified
        return specified

    def distinct(self, given: Sequence[Draft]) -> list[Draft]:
        """Ids are fresh in every append of their own making, as `uuid7` makes them."""
        found = []
        for one in given:
            while one.event_id in self.used:
                one = one._replace(event_id=(int.from_bytes(one.event_id, "big") + 1).to_bytes(17, "big")[1:])
            self.used.add(one.event_id)
            found.append(one)
        return found

    @rule(seconds=st.integers(-5, 20))
    def time_passes(self, seconds: int) -> None:
        self.clock += seconds * 10

    @rule(target=made, given=events, tenant=tenants, repeats=st.booleans())
    def append_anywhere(self, given: list[Draft], tenant: str, repeats: bool) -> Any:
        given = self.distinct(given)
        done = self.both(lambda store: append(store, *given, tenant=tenant, repeats=repeats))
        return (given, tenant, {}) if isinstance(done, Appended) and repeats else multiple()

    @rule(target=made, given=events, tenant=tenants, off=st.sampled_from([0, 0, 0, -1, 1]), other=st.sampled_from(STREAMS))
    def append_expecting(self, given: list[Draft], tenant: str, off: int, other: str) -> Any:
        given = self.distinct(given)
        expected = {d.stream: self.memory.version(tenant, d.stream) for d in given}
        expected[other] = max(0, self.memory.version(tenant, other) + off)
        done = self.both(lambda store: append(store, *given, tenant=tenant, expected=expected, repeats=True))
        return (given, tenant, expected) if isinstance(done, Appended) else multiple()

    @rule(given=events, tenant=tenants, back=st.integers(0, 6), picks=st.sampled_from(FILTERS))
    def append_unless(self, given: list[Draft], tenant: str, back: int, picks: Filter) -> None:
        given = self.distinct(given)
        condition = Condition(picks, max(0, self.memory.cut().head - back))
        self.both(lambda store: append(store, *given, tenant=tenant, condition=condition))

    @rule(earlier=made)
    def repeat(self, earlier: tuple[list[Draft], str, dict[str, int]]) -> None:
        given, tenant, expected = earlier
        done = self.both(lambda store: append(store, *given, tenant=tenant, expected=expected, repeats=True))
        assert done.repeated

    @rule(earlier=made, given=events, tenant=tenants, keep=st.integers(0, 3), reverse=st.booleans(), edit=st.booleans())
    def repeat_almost(
        self,
        earlier: tuple[list[Draft], str, dict[str, int]],
        given: list[Draft],
        tenant: str,
        keep: int,
        reverse: bool,
        edit: bool,
    ) -> None:
        mine, _, expected = earlier
        mine = mine[:keep]
        if edit and mine:
            mine = [*mine[:-1], mine[-1]._replace(stream="order-2")]
        whole = [*mine[:: -1 if reverse else 1], *self.distinct(given)]
        self.both(lambda store: append(store, *whole, tenant=tenant, expected=expected, repeats=True))

    @rule(
        target=made,
        given=events,
        tenant=tenants,
        source=st.sampled_from(["one", "two"]),
        imported=st.booleans(),
        early=st.booleans(),
    )
    def ingest(self, given: list[Draft], tenant: str, source: str, imported: bool, early: bool) -> Any:
        given = self.distinct([d._replace(occurred_at=d.occurred_at or 0) for d in given])
        number = self.chunks.get((tenant, source), 0)
        expected = {d.stream: self.memory.version(tenant, d.stream) for d in given}
        begin = max(self.clock, self.memory.last_recorded()) - early
        times = [begin + i for i in range(len(given))] if imported else None
        whole = chunk(given, source, number, times)
        done = self.both(lambda store: store.ingest(whole, tenant=tenant))
        if isinstance(done, tuple):
            return multiple()
        self.chunks[tenant, source] = number + 1
        assert self.both(lambda store: store.ingest(whole, tenant=tenant)) == done
        return given, tenant, expected

    @rule()
    def seal(self) -> None:
        self.disk.seal()

    @rule()
    def it_is_sound(self) -> None:
        found = verify(self.disk, full=True).findings
        assert [one for one in found if one.severity == "damage"] == []

    @rule(everything=st.booleans(), positions=st.sampled_from([3, 12, 10_000_000]))
    def compact(self, everything: bool, positions: int) -> None:
        self.disk.compact(all=everything, positions=positions)

    @rule()
    def collect(self) -> None:
        self.disk.collect(grace=0)

    @rule()
    def close_and_open(self) -> None:
        self.disk.close()
        self.disk = open_store(self.folder / "log", now=lambda: self.clock)

    @rule(target=pinned)
    def pin(self) -> Any:
        return self.memory.cut(), self.disk.cut(), self.disk

    @rule(pair=pinned)
    def read_a_cut_again(self, pair: tuple[Cut, Cut, Any]) -> None:
        memory, disk, store = pair
        if store is self.disk:
            self.same(memory, disk)

    @rule(pair=consumes(pinned), after=st.integers(0, 40), until=st.none() | st.integers(0, 40), version=st.integers(0, 5))
    def read_a_part(self, pair: tuple[Cut, Cut, Any], after: int, until: int | None, version: int) -> None:
        memory, disk, store = pair
        if store is not self.disk:
            return
        for filter in FILTERS:
            assert rows(disk, filter, after=after, until=until) == rows(memory, filter, after=after, until=until)
        for tenant in TENANTS:
            for stream in STREAMS:
                part = {"tenant": tenant, "after_version": version, "until": until}
                assert stream_rows(disk, stream, **part) == stream_rows(memory, stream, **part)

    @invariant()
    def they_read_alike(self) -> None:
        self.same(self.memory.cut(), self.disk.cut())
        assert self.disk.last_recorded() == self.memory.last_recorded()

    def same(self, memory: Cut, disk: Cut) -> None:
        everything = rows(memory)
        assert rows(disk) == everything
        assert disk.head == memory.head == len(everything)
        assert {k: s.columns for k, s in disk.schemas.items()} == {k: s.columns for k, s in memory.schemas.items()}
        assert dict(disk.types_of) == dict(memory.types_of)
        for tenant in TENANTS:
            for stream in STREAMS:
                mine = [r for r in everything if (r.tenant, r.stream) == (tenant, stream)]
                assert stream_rows(disk, stream, tenant=tenant) == mine
        for moment in {r.recorded_at + d for r in everything for d in (-1, 0)}:
            assert disk.position_at(moment) == memory.position_at(moment)
        assert sum(len(g.table) for g in memory.sources(ALL) if g.table is not None) == len(everything)


DiskIsMemory.TestCase.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
TestDiskIsMemory = DiskIsMemory.TestCase
