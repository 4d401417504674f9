"""The lab as one object: opening, tenants, appending, threads, and processes that know none of a store's types."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from replay import oracle
from replay.oracle import Log

import eventlab as el
from eventlab.errors import Conflict, InvalidName, InvalidValue, NoStore, NotHandled, ReadOnly, StoreError, Unsupported


@el.event
class MoneyPaidIn:
    """Money was paid into an account."""

    amount: int


@el.event
class MoneyTakenOut:
    """Money was taken out of an account."""

    amount: int


@el.command
class TakeOut:
    amount: int


@el.command
class PayIn:
    amount: int


@el.aggregate
class Purse:
    balance: int = 0
    seen: int = 0

    def decide(self, command: TakeOut) -> Iterator[MoneyTakenOut]:
        if command.amount > self.balance:
            raise el.Rejected(f"only {self.balance} left")
        if command.amount:
            yield MoneyTakenOut(command.amount)

    def evolve(self, event: MoneyPaidIn | MoneyTakenOut) -> Self:
        change = event.amount if isinstance(event, MoneyPaidIn) else -event.amount
        return replace(self, balance=self.balance + change, seen=self.seen + 1)


@pytest.fixture(params=["memory", "disk"])
def lab(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[el.Lab]:
    with el.scratch() if request.param == "memory" else el.open(tmp_path / "log") as lab:
        yield lab


# -- opening and closing


def test_a_folder_is_a_store_from_its_first_use(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "log"
    with pytest.raises(NoStore):
        el.open(path, create=False)
    assert not path.exists()
    with el.open(path) as lab:
        assert repr(lab) == f"Lab({str(path)!r}, 0 events)"
        lab.append("purse-1", [MoneyPaidIn(5)])
    with el.open(str(path), create=False) as lab:
        assert (lab.head, lab.path, lab.load(Purse, "1").balance) == (1, path, 5)


def test_two_labs_of_one_folder_are_one_store_until_both_are_closed(tmp_path: Path) -> None:
    first, second = el.open(tmp_path / "log"), el.open(tmp_path / "log")
    assert first.store is second.store
    first.append("purse-1", [MoneyPaidIn(5)])
    assert second.load(Purse, "1").balance == 5
    first.close()
    second.append("purse-1", [MoneyPaidIn(5)])
    assert second.sql("select balance from state.purse").rows() == [(10,)]
    second.close()


def test_closing_a_lab_twice_closes_it_once(tmp_path: Path) -> None:
    first, second = el.open(tmp_path / "log"), el.open(tmp_path / "log")
    first.close()
    first.close()
    with first:
        pass
    second.append("purse-1", [MoneyPaidIn(5)])
    third = el.open(tmp_path / "log")
    assert third.store is second.store
    second.close()
    # The one that is open now is not the one that these were of.
    second.close()
    third.close()
    with el.open(tmp_path / "log") as fourth:
        third.close()
        with el.open(tmp_path / "log") as fifth:
            assert fifth.store is fourth.store


def test_a_closed_lab_lets_go_of_every_file_and_says_that_it_is_closed(tmp_path: Path) -> None:
    lab = el.open(tmp_path / "log")
    lab.append("purse-1", [MoneyPaidIn(1)])
    lab.seal()
    moment = lab.at(position=1)
    assert [reader.sql("SELECT count(*) FROM events.log").item() for reader in (lab, moment)] == [1, 1]
    lab.close()
    assert repr(lab) == f"Lab({str(tmp_path / 'log')!r}, closed)"
    for reader in (lab, moment):
        with pytest.raises(StoreError, match="closed"):
            reader.sql("SELECT count(*) FROM events.log")
    with el.open(tmp_path / "log") as again, again.store.inspect() as catalog:  # type: ignore[attr-defined]
        assert catalog.execute("SELECT count(*) FROM reader").fetchone() == (0,)


def test_a_lab_is_closed_when_its_block_fails(tmp_path: Path) -> None:
    with contextlib.suppress(ZeroDivisionError), el.open(tmp_path / "log") as lab:
        lab.append("purse-1", [MoneyPaidIn(5)])
        lab.append("purse-1", [MoneyPaidIn(1 // 0)])
    with el.open(tmp_path / "log") as again:
        assert again.store is not lab.store
        assert again.head == 1


def test_a_lab_that_only_reads_reads(tmp_path: Path) -> None:
    with el.open(tmp_path / "log") as lab:
        lab.append("purse-1", [MoneyPaidIn(5)])
        assert not lab.read_only
    with el.open(tmp_path / "log", read_only=True) as lab:
        assert lab.read_only
        assert lab.table(Purse)["balance"].to_list() == [5]
        assert lab.sql("select count(*) from events.log").item() == 1
        rows = el.rows(MoneyPaidIn, pl.DataFrame({"amount": [1], "id": ["1"]}), stream="purse-{id}")
        calls: list[Callable[[], Any]] = [
            lambda: lab.append("purse-1", [MoneyPaidIn(5)]),
            lambda: lab.ingest(rows, source="x"),
            lambda: lab.rebuild(Purse),
            lambda: lab.catch_up(Purse),
            lambda: lab.seal(),
        ]
        for call in calls:
            with pytest.raises(ReadOnly):
                call()
        assert lab.head == 1


def test_a_scratch_lab_with_a_clock_and_a_seed_repeats_itself() -> None:
    def made(seed: int | None) -> list[Any]:
        lab = el.scratch(clock=lambda: dt.datetime(2026, 1, 1, tzinfo=dt.UTC), seed=seed)
        lab.append("purse-1", [MoneyPaidIn(5), MoneyPaidIn(6)])
        return [(e.event_id, e.recorded_at, e.correlation_id) for e in lab.read()]

    assert made(7) == made(7)
    assert made(7) != made(8)
    assert made(None) != made(None)


def test_a_clock_without_a_zone_is_refused() -> None:
    lab = el.scratch(clock=lambda: dt.datetime(2026, 1, 1))  # noqa: DTZ001
    with pytest.raises(InvalidValue, match=r"the clock .* has no time zone"):
        lab.append("purse-1", [MoneyPaidIn(5)])
    assert lab.head == 0


# -- tenants


def test_a_store_with_tenants_asks_which(tmp_path: Path) -> None:
    with el.open(tmp_path / "log", tenant="acme") as acme:
        acme.append("purse-1", [MoneyPaidIn(5)])
        assert repr(acme).endswith(", 1 events, tenant='acme')")
    with pytest.raises(Unsupported, match=r"holds 1 tenants \(acme\)") as caught:
        el.open(tmp_path / "log")
    assert caught.value.tenants == ["acme"]
    assert "tenant='acme'" in caught.value.hint
    assert "el.ALL" in caught.value.hint
    with el.open(tmp_path / "log", tenant="acme") as acme, el.open(tmp_path / "log", tenant="beta") as beta:
        assert acme.store is beta.store
        beta.append("purse-1", [MoneyPaidIn(7)])
        assert (acme.load(Purse, "1").balance, beta.load(Purse, "1").balance) == (5, 7)
    with el.open(tmp_path / "log", tenant=el.ALL) as everyone:
        assert everyone.table(Purse)["balance"].to_list() == [5, 7]
        assert len(everyone.read()) == 2
    # The one who was refused left nothing open.
    with el.open(tmp_path / "log", tenant="beta") as beta:
        assert beta.store.users == 1


def test_a_store_of_the_default_tenant_alone_asks_nothing(tmp_path: Path) -> None:
    with el.open(tmp_path / "log") as lab:
        lab.append("purse-1", [MoneyPaidIn(5)])
        assert lab.basis.tenant == "default"
    with el.open(tmp_path / "log") as lab, el.open(tmp_path / "log", tenant="default") as named:
        assert lab.load(Purse, "1") == named.load(Purse, "1") == Purse(5, 1)


@pytest.mark.parametrize("tenant", ["", "a\nb", "x" * 600])
def test_a_tenant_has_a_name(tmp_path: Path, tenant: str) -> None:
    with pytest.raises(InvalidName):
        el.open(tmp_path / "log", tenant=tenant)
    with pytest.raises(InvalidName):
        el.scratch().context(tenant=tenant).__enter__()
    with pytest.raises(InvalidName):
        el.scratch(tenant=tenant).append("purse-1", [MoneyPaidIn(5)])


@pytest.mark.parametrize("tenant", ["a/b", "..", "größe 😀", "'; drop table event; --", "ALL", "default "])
def test_a_tenant_is_data_and_no_part_of_a_file_name(tmp_path: Path, tenant: str) -> None:
    with el.open(tmp_path / "log", tenant=tenant) as lab:
        lab.append("purse-1", [MoneyPaidIn(5)])
        lab.seal()
        lab.rebuild(Purse)
        assert lab.sql("select _tenant, balance from state.purse join events.log using (_id)").rows() == [(tenant, 5)]
        inside = [path.relative_to(tmp_path / "log") for path in (tmp_path / "log").rglob("*")]
        assert all(str(path).isascii() and ".." not in str(path) for path in inside)


def test_a_context_says_for_whom_one_reads_and_writes(lab: el.Lab) -> None:
    with lab.context(tenant="acme", actor="ada"):
        lab.append("purse-1", [MoneyPaidIn(1)])
        with el.context(tenant="beta"):
            lab.append("purse-1", [MoneyPaidIn(2)])
            assert lab.load(Purse, "1").balance == 2
            assert lab.read().list()[0].actor == "ada"
        assert lab.load(Purse, "1").balance == 1
        assert lab.handle(Purse, "1", TakeOut(1)).state == Purse(0, 2)
    assert lab.load(Purse, "1") == Purse()
    assert len(lab.read()) == 0
    assert [(name, lab_read(lab, name)) for name in ("acme", "beta")] == [("acme", [1, 3]), ("beta", [2])]


def lab_read(lab: el.Lab, tenant: str) -> list[int]:
    with lab.context(tenant=tenant):
        return [event.position for event in lab.read()]


def test_a_context_belongs_to_its_thread(lab: el.Lab) -> None:
    found: list[int] = []
    with lab.context(tenant="acme"):
        lab.append("purse-1", [MoneyPaidIn(1)])
        other = threading.Thread(target=lambda: found.append(lab.load(Purse, "1").balance))
        other.start()
        other.join()
    assert found == [0]


@pytest.mark.parametrize("layout", ["memory", "hot", "mixed"])
def test_no_tenant_sees_anything_of_another(layout: str) -> None:
    @settings(max_examples=8 if layout == "memory" else 4)
    @given(log=oracle.logs(), whose=st.lists(st.sampled_from(["a", "b"]), min_size=7, max_size=7))
    def check(log: Log, whose: list[str]) -> None:
        with tempfile.TemporaryDirectory() as folder, oracle.written(layout, Path(folder) / "log", Log(())) as lab:
            places: dict[str, list[int]] = {"a": [], "b": []}
            facts: dict[str, list[oracle.Fact]] = {"a": [], "b": []}
            for i, commit in enumerate(log.commits):
                tenant = whose[i]
                with lab.context(tenant=tenant):
                    oracle.append(lab, commit)
                    if i == 3:
                        lab.rebuild(oracle.Crate)
                if layout == "mixed" and i == 2:
                    lab.seal()
                places[tenant] += range(log.ends[i] - len(commit) + 1, log.ends[i] + 1)
                facts[tenant] += commit
            for tenant in ("a", "b"):
                rows = oracle.table(oracle.Crate, facts[tenant])
                expected = [(*row[:-1], places[tenant][row[-1] - 1]) for row in rows]
                with lab.context(tenant=tenant):
                    assert lab.table(oracle.Crate).rows() == expected
                    assert lab.sql("select * from state.crate").rows() == expected
                    assert [(e.position, e.tenant, e.data) for e in lab.read()] == [
                        (place, tenant, event) for place, (_, event) in zip(places[tenant], facts[tenant], strict=True)
                    ]
                    assert lab.sql("select _position from events.log order by 1")["_position"].to_list() == places[tenant]
                    for id, (state, version, _) in oracle.folded(oracle.Crate, facts[tenant]).items():
                        assert (lab.loaded(oracle.Crate, id).state, lab.loaded(oracle.Crate, id).version) == (state, version)
            assert len(lab.read()) == 0

    check()


# -- appending


def test_append_gives_positions_versions_and_ids(lab: el.Lab) -> None:
    done = lab.append("purse-1", [MoneyPaidIn(1), MoneyPaidIn(2)])
    assert (done.positions, done.versions, done.position, done.repeated) == ((1, 2), (1, 2), 2, False)
    assert [e.event_id for e in lab.read()] == list(done.ids)
    both = lab.append({"purse-1": [MoneyPaidIn(3)], "purse-2": [MoneyPaidIn(4)]}, expected={"purse-1": 2, "purse-2": 0})
    assert (both.positions, both.versions) == ((3, 4), (3, 1))
    assert lab.append("purse-1", []).positions == ()
    assert lab.append("purse-1", (MoneyPaidIn(n) for n in (5, 6))).versions == (4, 5)  # type: ignore[arg-type]


def test_an_append_with_a_key_can_be_repeated(lab: el.Lab) -> None:
    first = lab.append("purse-1", [MoneyPaidIn(1)], key="payment 7")
    lab.append("purse-1", [MoneyPaidIn(2)])
    again = lab.append("purse-1", [MoneyPaidIn(1)], key="payment 7")
    assert again.repeated
    assert (again.positions, again.ids, again.versions) == (first.positions, first.ids, first.versions)
    assert lab.load(Purse, "1") == Purse(3, 2)


def test_a_conflict_brings_the_events_that_came_between(lab: el.Lab) -> None:
    lab.append("purse-1", [MoneyPaidIn(1), MoneyPaidIn(2), MoneyTakenOut(1)])
    with pytest.raises(Conflict) as caught:
        lab.append("purse-1", [MoneyPaidIn(9)], expected=1)
    assert (caught.value.stream, caught.value.expected, caught.value.actual) == ("purse-1", 1, 3)
    assert [event.data for event in caught.value.events] == [MoneyPaidIn(2), MoneyTakenOut(1)]
    with pytest.raises(Conflict):
        lab.append({"purse-2": [MoneyPaidIn(1)], "purse-1": [MoneyPaidIn(1)]}, expected={"purse-1": 0})
    assert lab.head == 3


@pytest.mark.parametrize(
    ("arguments", "named", "says"),
    [
        (("purse-1",), {}, "takes a list of events"),
        (("purse-1", None), {}, "takes a list of events"),
        (("purse-1", "text"), {}, "takes a list of events"),
        (("purse-1", MoneyPaidIn(1)), {}, "takes a list of events"),
        (({"purse-1": [MoneyPaidIn(1)]}, [MoneyPaidIn(1)]), {}, "or one mapping"),
        (("purse-1", [MoneyPaidIn(1)]), {"expected": -1}, "expected version of 'purse-1' is -1"),
        (("purse-1", [MoneyPaidIn(1)]), {"expected": True}, "expected version"),
        (("purse-1", [MoneyPaidIn(1)]), {"expected": 1.0}, "expected version"),
        (({"purse-1": [MoneyPaidIn(1)]},), {"expected": 1}, "several streams take expected="),
        (("purse-1", [MoneyPaidIn(1)]), {"occurred_at": "yesterday"}, "is not a time"),
        (("purse-1", [MoneyPaidIn(1)]), {"occurred_at": "2026-01-01T10:00"}, "has no time zone"),
        (("purse-1", [MoneyPaidIn("1")]), {}, "MoneyPaidIn.amount is '1'"),  # type: ignore[arg-type]
    ],
)
def test_a_call_that_is_wrong_is_refused_and_stores_nothing(lab: el.Lab, arguments: Any, named: Any, says: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        lab.append(*arguments, **named)
    assert says in caught.value.message
    assert lab.head == 0


def test_handle_gives_the_events_and_the_state_after_them(lab: el.Lab) -> None:
    lab.append("purse-1", [MoneyPaidIn(10)])
    done = lab.handle(Purse, "1", TakeOut(4))
    assert (done.events, done.positions, done.state, done.version) == ((MoneyTakenOut(4),), (2,), Purse(6, 2), 2)
    assert lab.load(Purse, "1") == done.state
    nothing = lab.handle(Purse, "1", TakeOut(0))
    assert (nothing.events, nothing.positions, nothing.state, nothing.version) == ((), (), Purse(6, 2), 2)
    with pytest.raises(el.Rejected, match="only 6 left"):
        lab.handle(Purse, "1", TakeOut(7))
    with pytest.raises(NotHandled, match="Purse does not handle PayIn"):
        lab.handle(Purse, "1", PayIn(7))
    with pytest.raises(Unsupported, match="is a projection"):
        lab.handle(oracle.LabelValue, "1", TakeOut(7))
    assert lab.head == 2


def test_a_lost_race_is_decided_again(lab: el.Lab) -> None:
    races = {"left": 0}

    @el.aggregate
    class Racing:
        balance: int = 0

        def decide(self, command: TakeOut) -> Iterator[MoneyTakenOut]:
            if races["left"]:
                races["left"] -= 1
                lab.append("racing-1", [MoneyPaidIn(1)])
            yield MoneyTakenOut(self.balance)

        def evolve(self, event: MoneyPaidIn | MoneyTakenOut) -> Self:
            return replace(self, balance=self.balance + (event.amount if isinstance(event, MoneyPaidIn) else -event.amount))

    races["left"] = 2
    done = lab.handle(Racing, "1", TakeOut(0))
    assert (done.events, done.version, done.state) == ((MoneyTakenOut(2),), 3, Racing(0))
    races["left"] = 3
    with pytest.raises(Conflict):
        lab.handle(Racing, "1", TakeOut(0))
    races["left"] = 1
    with pytest.raises(Conflict):
        lab.handle(Racing, "1", TakeOut(0), attempts=1)


# -- threads


def test_one_lab_serves_four_threads_at_once(lab: el.Lab) -> None:
    rounds = 25
    failures: list[str] = []
    start = threading.Barrier(4)

    def watched(work: Callable[[], None]) -> Callable[[], None]:
        def run() -> None:
            try:
                start.wait(30)
                work()
            except BaseException as why:
                failures.append(repr(why))

        return run

    def pay() -> None:
        for _ in range(rounds):
            # Both purses get the same: any reader who sees one without the other has seen half a commit.
            lab.append({"purse-1": [MoneyPaidIn(1)], "purse-2": [MoneyPaidIn(1)]})

    def query() -> None:
        for _ in range(rounds):
            found = lab.sql("select count(*) as n, max(_position) as p from events.log").rows()[0]
            assert found[0] == (found[1] or 0)
            assert found[0] % 2 == 0, "a query sees whole commits"
            balances = lab.sql("select balance from state.purse where _id in ('1', '2')")["balance"].to_list()
            assert len(set(balances)) <= 1

    def read() -> None:
        for i in range(rounds):
            table = lab.table(Purse)
            assert len(set(table["balance"].to_list())) <= 1
            moment = lab.at(position=lab.head)
            assert [event.position for event in moment.read()] == list(range(1, moment.position + 1))
            (lab.rebuild if i % 5 else lab.catch_up)(Purse)
            if i % 7 == 3:
                lab.seal()

    threads = [threading.Thread(target=watched(work)) for work in (pay, pay, query, read)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert failures == []
    assert lab.table(Purse).rows() == lab.table(Purse, engine="rows").rows()
    assert lab.load(Purse, "1") == lab.load(Purse, "2") == Purse(2 * rounds, 2 * rounds)
    assert [event.position for event in lab.read()] == list(range(1, 4 * rounds + 1))


def test_a_query_that_runs_while_the_log_goes_on_keeps_its_connection(lab: el.Lab) -> None:
    lab.append("purse-1", [MoneyPaidIn(1)])
    failures: list[str] = []
    stop = threading.Event()

    def query() -> None:
        try:
            while not stop.is_set():
                slow = lab.sql("select count(*), sum(range) from events.log, range(20000)").rows()[0]
                assert slow[0] % 20_000 == 0
        except BaseException as why:
            failures.append(repr(why))

    threads = [threading.Thread(target=query) for _ in range(2)]
    for thread in threads:
        thread.start()
    for _ in range(10):
        lab.append("purse-1", [MoneyPaidIn(1)])
        assert lab.sql("select count(*) from events.log").item() == lab.head
    stop.set()
    for thread in threads:
        thread.join(60)
    assert failures == []


def test_commands_from_four_threads_lose_no_money(lab: el.Lab) -> None:
    lab.append("purse-1", [MoneyPaidIn(20)])
    taken: list[int] = []

    def take() -> None:
        for _ in range(10):
            try:
                taken.append(len(lab.handle(Purse, "1", TakeOut(1), attempts=100).events))
            except el.Rejected:
                taken.append(0)

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert (len(taken), sum(taken)) == (40, 20)
    assert lab.load(Purse, "1") == Purse(0, 21)


# -- processes that know nothing


STRANGER = """
import json, sys
import eventlab as el

with el.open(sys.argv[1], create=False) as lab:
    found = {
        "repr": repr(lab).split(", ", 1)[1],
        "events": [[e.position, e.stream, e.type, e.version, e.data] for e in lab.read()],
        "picked": [e.position for e in lab.read(el.events("MoneyPaidIn") & el.stream("purse-1"))],
        "columns": lab.read(el.events("MoneyPaidIn")).frame().columns[-1],
        "views": lab.sql("select schema, name from (show all tables) where schema in ('events', 'types') order by all").rows(),
        "sum": lab.sql("select sum(amount) from types.money_paid_in where amount > ?", 1).item(),
        "then": lab.at(position=1).sql("select sum(amount) from types.money_paid_in").item(),
        "category": lab.sql("select _id, amount from events.purse order by _position").rows(),
    }
    json.dump(found, sys.stdout)
"""


@pytest.mark.parametrize("read_only", [False, True])
def test_a_process_that_defines_none_of_the_types_opens_browses_and_queries(tmp_path: Path, read_only: bool) -> None:
    with el.open(tmp_path / "log") as lab:
        lab.append("purse-1", [MoneyPaidIn(1)])
        lab.seal()
        lab.append({"purse-1": [MoneyTakenOut(1)], "purse-2": [MoneyPaidIn(5)]})
    script = STRANGER.replace("create=False", "create=False, read_only=True") if read_only else STRANGER
    command = [sys.executable, "-c", script, str(tmp_path / "log")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "repr": "3 events)",
        "events": [
            [1, "purse-1", "MoneyPaidIn", 1, {"amount": 1}],
            [2, "purse-1", "MoneyTakenOut", 2, {"amount": 1}],
            [3, "purse-2", "MoneyPaidIn", 1, {"amount": 5}],
        ],
        "picked": [1],
        "columns": "amount",
        "views": [
            ["events", "log"],
            ["events", "purse"],
            ["types", "money_paid_in"],
            ["types", "money_paid_in_v1"],
            ["types", "money_taken_out"],
            ["types", "money_taken_out_v1"],
        ],
        "sum": 5,
        "then": 1,
        "category": [["1", 1], ["1", 1], ["2", 5]],
    }
