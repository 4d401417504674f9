"""What a lab keeps going: codes accepted, keys parked, consumers told, the loop; in one process and in several."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import polars as pl
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import eventlab as el
from eventlab.errors import EvolveFailed, InvalidValue, Late, ModelError, ReadOnly, UnknownType
from eventlab.projections.consumers import CONSUMERS
from eventlab.projections.read_models import StoppedWarning
from eventlab.projections.without_code import CheckpointWarning, table_without_code
from eventlab.store.read_models import ReadModelBase

ROOT = Path(__file__).resolve().parents[2]


@el.event
class Knocked:
    """Somebody knocked at a door."""

    times: int


class Doorman:
    """What `ring` was told, and what it does not take. An object: its content is not part of a fingerprint."""

    def __init__(self) -> None:
        self.heard: list[int] = []
        self.refuses: set[int] = set()


doorman = Doorman()


@el.consumer(el.events(Knocked), parts=4, attempts=2)
def ring(event: Any) -> None:
    if event.position in doorman.refuses:
        raise ValueError("not now")
    doorman.heard.append(event.position)


def door(weight: int) -> type[Any]:
    @el.aggregate(name="door")
    class Door:
        knocks: int = 0

        def evolve(self, event: Knocked) -> Self:
            return replace(self, knocks=self.knocks + weight * event.times)

    return Door


class Limit:
    """From how many knocks on `evolve` raises."""

    at = 10


@el.projection(name="busy")
class Busy:
    knocks: int = 0

    @staticmethod
    def key(event: Knocked, meta: el.Meta) -> str:
        return meta.stream[:6]

    def evolve(self, event: Knocked) -> Self:
        if event.times >= 10:
            raise ValueError("too loud")
        return replace(self, knocks=self.knocks + event.times)


@pytest.fixture(autouse=True)
def fresh() -> None:
    doorman.__init__()  # type: ignore[misc]


@pytest.fixture(params=["memory", "disk"])
def lab(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[el.Lab]:
    with el.scratch() if request.param == "memory" else el.open(tmp_path / "log", maintain=False) as lab:
        for i in range(12):
            lab.append(f"door-{i % 3}", [Knocked(i % 4)])
        yield lab


# -- which code a name stands for


def test_other_code_lies_beside_until_it_is_accepted_and_the_old_can_be_brought_back(lab: el.Lab) -> None:
    one = door(1)
    first = lab.rebuild(one)
    assert first.state == "accepted"
    two = door(2)
    assert lab.rebuild(two).state == "candidate"
    assert lab.table(two)["knocks"].sum() == 36, "its own code reads what it made"
    assert lab.diff(two).rows() == [("0", "knocks", "6", "12"), ("1", "knocks", "6", "12"), ("2", "knocks", "6", "12")]
    accepted = lab.accept(two)
    assert accepted.state == "accepted"
    assert dict(lab.status().select("fingerprint", "state").iter_rows())[accepted.fingerprint] == "accepted"
    old = next(base for base in lab.store.read_models.of("default") if base.state == "previous")
    lab.accept("door", old.fingerprint[:8])
    assert lab.store.read_models.accepted("default")["door"].fingerprint == old.fingerprint
    with pytest.raises(UnknownType, match="begin with the fingerprint"):
        lab.accept("door", "zzz")


# -- keys that stop


def test_a_projection_goes_on_without_the_key_that_stopped(lab: el.Lab) -> None:
    lab.append("door-1", [Knocked(11)])
    lab.append("door-1", [Knocked(1)])
    lab.append("door-2", [Knocked(2)])
    with pytest.raises(EvolveFailed, match="too loud"):
        lab.table(Busy)
    assert lab.rebuild(Busy).parked == 1
    with pytest.warns(StoppedWarning, match="too loud"):
        found = lab.table(Busy)
    assert found.select("_id", "knocks").rows() == [("door-0", 6), ("door-1", 6), ("door-2", 8)]
    assert lab.parked().select("key", "position", "waiting").rows() == [("door-1", 13, 1)]
    lab.append("door-1", [Knocked(1)])
    lab.append("door-0", [Knocked(1)])
    lab.catch_up(Busy)
    assert lab.parked("busy")["waiting"].to_list() == [2]
    with pytest.warns(StoppedWarning):
        assert lab.table(Busy)["knocks"].to_list() == [7, 6, 8]
    with pytest.raises(EvolveFailed):
        lab.table(Busy, engine="rows")


# -- projections written by hand


loud = el.sql_projection(
    "loud", "select _id as door, max(times) as most from types.knocked group by all", key="door"
)


@el.frame_projection(key="_stream", events=el.events(Knocked))
def last_knock(events: pl.LazyFrame) -> pl.LazyFrame:
    return events.sort("_position").group_by("_stream").agg(pl.col("_position").last().alias("at"))


def test_projections_written_by_hand_have_the_life_of_any_other(lab: el.Lab) -> None:
    meant = [("0", 3), ("1", 3), ("2", 3)]
    assert lab.table(loud).rows() == meant
    assert lab.sql("select * from state.loud order by door").rows() == meant
    assert lab.at(position=2).table(loud).rows() == [("0", 0), ("1", 1)]
    assert lab.rebuild(loud).rows == 3
    assert lab.catch_up(loud).events == 0
    lab.append("door-3", [Knocked(7)])
    assert lab.table(loud).rows() == [*meant, ("3", 7)], "reading is current"
    assert lab.catch_up(loud).rows == 4
    assert lab.table(last_knock).rows() == [("door-0", 10), ("door-1", 11), ("door-2", 12), ("door-3", 13)]
    assert set(lab.status()["name"]) == {"loud"}


def test_a_projection_written_by_hand_needs_a_key_that_tells_its_rows_apart(lab: el.Lab) -> None:
    wrong = el.sql_projection("wrong", "select times as t from types.knocked", key="t")
    with pytest.raises(ModelError, match="have the same t"):
        lab.table(wrong)
    none = el.sql_projection("none", "select times as t from types.knocked", key="other")
    with pytest.raises(ModelError, match="no column 'other'"):
        lab.table(none)
    circle = el.sql_projection("circle", "select * from state.circle", key="t")
    with pytest.raises(ModelError, match="asks for itself"):
        lab.table(circle)


# -- following


def test_a_subscription_catches_up_and_goes_on_live(lab: el.Lab) -> None:
    following = lab.subscribe(el.events(Knocked), after=10, timeout=0.3)
    heard: list[int] = []

    def listen() -> None:
        heard.extend(event.position for event in following)

    thread = threading.Thread(target=listen)
    thread.start()
    for i in range(20):
        lab.append(f"door-{i}", [Knocked(1)])
    thread.join(30)
    assert heard == list(range(11, 33))
    assert following.position == 32
    assert [e.position for e in lab.subscribe(el.stream("door-0"), live=False)] == [1, 4, 7, 10, 13]


def test_a_subscription_ends_when_it_is_stopped(lab: el.Lab) -> None:
    following = lab.subscribe()
    heard = []
    for event in following:
        heard.append(event.position)
        if len(heard) == 3:
            following.stop()
    assert heard == [1, 2, 3]


# -- consumers


def test_a_consumer_hears_each_event_once_and_goes_on_where_it_was(lab: el.Lab) -> None:
    lab.run_until_idle(ring)
    assert sorted(doorman.heard) == list(range(1, 13))
    lab.append("door-9", [Knocked(1)])
    lab.run_until_idle(ring)
    lab.run_until_idle(ring)
    assert sorted(doorman.heard) == list(range(1, 14))


def test_a_stream_whose_event_is_not_taken_is_parked_and_can_be_tried_again(lab: el.Lab) -> None:
    doorman.refuses = {5}
    lab.run_until_idle(ring)
    assert sorted(doorman.heard) == [p for p in range(1, 13) if p not in (5, 8, 11)], "those of door-1 wait in their order"
    assert lab.parked(ring).select("key", "position", "error", "waiting").rows() == [("door-1", 5, "ValueError: not now", 2)]
    assert lab.retry(ring) == 0
    doorman.refuses = set()
    lab.append("door-1", [Knocked(1)])
    lab.run_until_idle(ring)
    assert lab.parked(ring)["waiting"].to_list() == [3]
    doorman.heard.clear()
    assert lab.retry(ring) == 1
    assert doorman.heard == [5, 8, 11, 13]
    assert len(lab.parked()) == 0


def test_a_consumer_can_be_sent_back_or_forward(lab: el.Lab) -> None:
    doorman.heard, doorman.refuses = [], set()
    n = lab.append("door-1", [Knocked(1)] * 5).position
    lab.run_until_idle(ring)
    lab.rewind(ring, n - 2)
    lab.run_until_idle(ring)
    assert doorman.heard == [*range(1, n + 1), n - 1, n]
    lab.append("door-1", [Knocked(1)] * 2)
    lab.rewind(ring, lab.head)
    lab.run_until_idle(ring)
    assert doorman.heard[n:] == [n - 1, n]
    for position in (-1, n + 3, True, "now"):
        with pytest.raises(InvalidValue, match=f"0 to {n + 2}"):
            lab.rewind(ring, position)  # type: ignore[arg-type]
    with pytest.raises(InvalidValue, match=r"lab\.rebuild|takes a consumer"):
        lab.rewind(Busy, 0)  # type: ignore[arg-type]
    member = lab._member(ring, "another", 10.0)
    member.balance(now=True)
    with pytest.raises(el.EventlabError, match="4 of the 4 parts of ring are held"):
        lab.rewind(ring)
    member.leave()
    lab.rewind(ring)
    assert lab.status().filter(pl.col("name") == "ring")["lag"].item() == lab.head


def test_two_members_share_the_streams_and_one_takes_over(tmp_path: Path) -> None:
    told: list[tuple[str, int, str]] = []
    with el.open(tmp_path / "log", maintain=False) as lab:
        for i in range(40):
            lab.append(f"door-{i % 20}", [Knocked(1)])
        members = [lab._member(ring, owner, 30.0) for owner in ("elsewhere/1", "elsewhere/2")]
        for _ in range(2):
            for member in members:
                member.balance(now=True)
        shares = [set(member.held) for member in members]
        assert [len(share) for share in shares] == [2, 2]
        assert shares[0] | shares[1] == {0, 1, 2, 3}
        for member in members:
            member.step()
        assert sorted(doorman.heard) == list(range(1, 41))
        members[0].leave()
        members[1].balance(now=True)
        assert members[1].held == [0, 1, 2, 3]
        lab.append("door-1", [Knocked(1)])
        members[1].step()
        assert sorted(doorman.heard) == list(range(1, 42))
        assert not told


# -- the loop


def test_the_loop_keeps_read_models_current_in_the_background(lab: el.Lab) -> None:
    of = door(1)
    runner = lab.run(of, ring, loud, background=True)
    try:
        for i in range(30):
            done = lab.append(f"door-{i % 5}", [Knocked(1)])
            lab.wait(done.positions[-1], of, ring, loud, timeout=20)
        assert sorted(doorman.heard) == list(range(1, 43))
        status = lab.status()
        assert set(status["name"]) == {"door", "loud", "ring"}
        assert status["lag"].to_list() == [0, 0, 0]
        assert status["lag_seconds"].to_list() == [0.0, 0.0, 0.0]
        assert runner.errors == {}
    finally:
        runner.stop()
    assert not runner.running
    stored = lab.store.read_models.accepted("default")["door"].table()
    assert stored.column("knocks").to_pylist() == lab.table(of)["knocks"].to_list()


def test_waiting_has_an_end_that_says_who_is_behind(lab: el.Lab) -> None:
    of = door(1)
    lab.rebuild(of)
    done = lab.append("door-1", [Knocked(1)])
    with pytest.raises(Late, match="door at 12") as caught:
        lab.wait(done.positions[-1], timeout=0.05)
    assert "lab.status()" in caught.value.hint
    lab.run_until_idle(of)
    lab.wait(done.positions[-1])


def test_a_piece_of_work_that_fails_is_said_to_and_stops_no_other(lab: el.Lab) -> None:
    broken = el.sql_projection("broken", "select 1 / 0 as t, * from nowhere", key="t")
    of = door(1)
    with lab.run(broken, of, background=True) as runner:
        lab.append("door-1", [Knocked(1)])
        lab.wait(13, of, timeout=20)
        until = time.monotonic() + 20
        while not runner.errors and time.monotonic() < until:
            time.sleep(0.01)
        assert "nowhere" in runner.errors["broken"]


def test_a_lab_that_only_reads_keeps_nothing(tmp_path: Path) -> None:
    with el.open(tmp_path / "log") as lab:
        lab.append("door-1", [Knocked(1)])
    with el.open(tmp_path / "log", read_only=True) as lab:
        of = door(1)
        for call in (lambda: lab.run(ring), lambda: lab.run_until_idle(ring), lambda: lab.accept(of), lambda: lab.retry(ring)):
            with pytest.raises(ReadOnly):
                call()


def test_consumers_are_known_by_one_name() -> None:
    assert CONSUMERS["ring"] is ring
    for wrong in ({"begin": "later"}, {"parts": 0}, {"attempts": 0}):
        with pytest.raises(ModelError):
            el.consumer(**wrong)  # type: ignore[arg-type]


# -- any interleaving


class _Life(RuleBasedStateMachine):
    """Append, rebuild, catch up, accept, compact and collect in any order: the table is that of the row fold."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.lab = el.open(Path(self.folder.name) / "log", maintain=False)
        self.codes = [door(1), door(2)]
        self.count = 0

    @initialize()
    def begin(self) -> None:
        self.codes = [door(1)]

    def teardown(self) -> None:
        self.lab.close()
        self.folder.cleanup()

    @rule(streams=st.lists(st.integers(0, 40), min_size=1, max_size=12))
    def append(self, streams: list[int]) -> None:
        for number in streams:
            self.count += 1
            self.lab.append(f"door-{number}", [Knocked(self.count)])

    @rule()
    def rebuild(self) -> None:
        self.lab.rebuild(self.codes[-1])

    @rule()
    def catch_up(self) -> None:
        self.lab.catch_up(self.codes[-1])

    @rule()
    def accept(self) -> None:
        self.lab.accept(self.codes[-1])

    @rule(weight=st.integers(1, 3))
    def change(self, weight: int) -> None:
        self.codes.append(door(weight))

    @rule()
    def reopen(self) -> None:
        path = self.lab.path
        assert path is not None
        self.lab.close()
        self.lab = el.open(path, maintain=False)

    @rule()
    def keep(self) -> None:
        self.lab.seal()
        self.lab.compact(all=True)
        self.lab.store.collect(grace=0)  # type: ignore[attr-defined]

    @precondition(lambda self: self.count)
    @invariant()
    def equals(self) -> None:
        of = self.codes[-1]
        meant = self.lab.table(of, engine="rows")
        assert self.lab.table(of).equals(meant)
        for base in self.lab.store.read_models.of("default", "door"):
            moment = self.lab.at(position=base.position)
            table = pl.DataFrame(pl.from_arrow(base.table()))
            if base.fingerprint == moment._model(of).fingerprint:
                assert table.equals(moment.table(of, engine="rows"))
                assert self.without_code(base).equals(meant)
            assert table["_version"].sum() == base.position

    def without_code(self, base: ReadModelBase) -> pl.DataFrame:
        """What a process that does not have the code makes of a base and the events since; a warning would be an error."""
        cut = self.lab.store.cut()
        with warnings.catch_warnings():
            warnings.simplefilter("error", CheckpointWarning)
            return pl.DataFrame(pl.from_arrow(table_without_code(base, self.lab.store, cut, "default", cut.head)))

    @invariant()
    def no_other_files(self) -> None:
        folder = Path(self.folder.name) / "log" / "read_models"
        named = {part.path for base in self.lab.store.read_models.of("default") for part in base.parts}
        assert {f"read_models/{path.name}" for path in folder.iterdir()} == named if folder.exists() else not named


TestLife = _Life.TestCase
TestLife.settings = settings(max_examples=12, stateful_step_count=25, deadline=None)


# -- several processes, killed

_WORKER = """
import sys
sys.path.insert(0, {tests!r})
from projections.test_keeping import *
import eventlab as el

lab = el.open({path!r}, maintain=False)
of = door(1)

@el.consumer(el.events(Knocked), name="log_book", parts=8)
def log_book(event):
    with open({book!r}, "a") as file:
        file.write(f"{{event.position}}\\n")

print("ready", flush=True)
lab.run(of, log_book, lease_seconds=2.0)
"""


def worker(path: Path, book: Path) -> subprocess.Popen[str]:
    script = _WORKER.format(tests=str(ROOT / "tests"), path=str(path), book=str(book))
    started = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE, text=True, cwd=ROOT,
        env={**os.environ, "EVENTLAB_PROGRESS": "off"},
    )  # fmt: skip
    assert started.stdout is not None
    assert started.stdout.readline().strip() == "ready"
    return started


def eventually(true: Callable[[], bool], seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until
        time.sleep(0.02)


def test_of_two_runners_one_is_killed_and_the_other_takes_over(tmp_path: Path) -> None:
    path, book = tmp_path / "log", tmp_path / "book"
    kills = 3
    with el.open(path, maintain=False) as lab:
        lab.append("door-0", [Knocked(1)])
        workers = [worker(path, book) for _ in range(2)]
        try:
            for i in range(1, 120):
                lab.append(f"door-{i % 17}", [Knocked(1)])
                if i % 40 == 0:
                    victim = workers.pop(0)
                    victim.send_signal(signal.SIGKILL)
                    victim.wait()
                    workers.append(worker(path, book))
            eventually(lambda: lab.status()["lag"].to_list() == [0, 0] if len(lab.status()) == 2 else False)
        finally:
            for of in workers:
                of.send_signal(signal.SIGINT)
                of.wait(30)
        heard = Counter(int(line) for line in book.read_text().split())
        assert set(heard) == set(range(1, 121)), "no event was missed"
        again = sum(count - 1 for count in heard.values())
        assert again <= kills * 8 * 2, f"{again} were told twice by {kills} kills"
        base = next(base for base in lab.store.read_models.of("default") if base.name == "door")
        assert pl.DataFrame(pl.from_arrow(base.table())).equals(lab.table(door(1), engine="rows"))


def test_each_position_reaches_a_subscription_once_while_four_processes_write(tmp_path: Path) -> None:
    path = tmp_path / "log"
    script = f"""
        import sys
        sys.path.insert(0, {str(ROOT / "tests")!r})
        from projections.test_keeping import Knocked
        import eventlab as el
        lab = el.open({str(path)!r}, maintain=False)
        for i in range(60):
            lab.append(f"door-{{i % 5}}", [Knocked(i)] * (1 + i % 3))
    """
    with el.open(path, maintain=False) as lab:
        lab.append("door-0", [Knocked(0)])
        writers = [subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)], cwd=ROOT) for _ in range(4)]
        following = lab.subscribe(el.events(Knocked))
        heard: list[int] = []
        thread = threading.Thread(target=lambda: heard.extend(event.position for event in following))
        thread.start()
        for writer in writers:
            assert writer.wait(120) == 0
        eventually(lambda: following.position >= lab.head)
        following.stop()
        thread.join(10)
        assert heard == list(range(1, lab.head + 1))
        assert lab.head == 1 + 4 * 120


# -- rebuilds that are interrupted


@pytest.mark.parametrize("lifts", [True, False])
def test_a_rebuild_that_was_interrupted_is_taken_up_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lifts: bool
) -> None:
    from projections.campaign import Jug, Poured, Pourers

    from eventlab.projections import read_models, unfinished
    from eventlab.projections.unfinished import Unfinished
    from eventlab.replay.lift import run, scan
    from eventlab.store import compact

    monkeypatch.setattr(read_models, "LONG", 100)
    monkeypatch.setattr(read_models, "STRIDE", 50)
    monkeypatch.setattr(unfinished, "PATIENCE", 0)
    monkeypatch.setattr(run, "_SMALL", 0)
    monkeypatch.setattr(scan, "PART_ROWS", 32)
    monkeypatch.setattr(compact, "BUCKET_ROWS", 64)
    monkeypatch.setattr(compact, "BUCKET_STREAMS", 4)
    seen: list[Unfinished] = []
    done = [0]

    def kept(self: Unfinished, *given: Any) -> None:
        (put if lifts else keep)(self, *given)
        done[0] += 1
        if done[0] == 3:
            raise KeyboardInterrupt

    begin, put, keep = Unfinished.begin, Unfinished.put, Unfinished.keep
    monkeypatch.setattr(Unfinished, "begin", lambda self, head: (seen.append(self), begin(self, head))[1])
    monkeypatch.setattr(Unfinished, "put" if lifts else "keep", kept)
    model = Jug if lifts else Pourers
    with el.open(tmp_path / "log", maintain=False) as lab:
        for i in range(400):
            lab.append(f"jug-{i % 37}", [Poured(i)])
        lab.seal()
        lab.compact(all=True)
        with pytest.raises(KeyboardInterrupt):
            lab.rebuild(model)
        lab.append("jug-1", [Poured(1)])
        again = lab.rebuild(model)
        assert (again.position, seen[-1].found >= 1, done[0] > 3) == (401, True, True)
        assert lab.table(model).equals(lab.table(model, engine="rows"))
        (base,) = lab.store.read_models.of("default")
        assert pl.DataFrame(pl.from_arrow(base.table())).equals(lab.table(model, engine="rows"))
        left = {path.name for path in (tmp_path / "log" / "read_models").iterdir()}
        assert left == {Path(part.path).name for part in base.parts}


@pytest.mark.parametrize("lifts", [True, False])
def test_what_a_rebuild_kept_for_another_position_is_not_taken_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lifts: bool
) -> None:
    from projections.campaign import Jug, Poured, Pourers, short

    from eventlab.model.models import model_of
    from eventlab.projections import read_models, unfinished
    from eventlab.projections.unfinished import Unfinished
    from eventlab.replay.lift import run, scan
    from eventlab.replay.parking import Parking
    from eventlab.store import compact

    for module, names in [
        (read_models, ("LONG", "STRIDE")), (unfinished, ("PATIENCE",)), (run, ("_SMALL",)), (scan, ("PART_ROWS",)),
        (compact, ("BUCKET_ROWS", "BUCKET_STREAMS")),
    ]:  # fmt: skip
        for name in names:
            monkeypatch.setattr(module, name, getattr(module, name))
    short()
    model = Jug if lifts else Pourers
    of = model_of(model)
    with el.open(tmp_path / "log", maintain=False) as lab:
        for i in range(400):
            lab.append(f"jug-{i % 37}", [Poured(i)])
        lab.seal()
        lab.compact(all=True)
        bench = lab.store.read_models.bench(of.name, "default", of.fingerprint)
        slow, quick, stopped = (Unfinished(bench) for _ in range(3))
        assert (slow.begin(lab.head), quick.begin(lab.head)) == (400, 400)
        quick.end()
        lab.append("jug-1", [Poured(999)])
        assert stopped.begin(lab.head) == 401
        # The slow one goes on, in the folder that another has begun anew for a later position.
        cut = lab.store.cut()
        read_models._whole(of, cut, "default", 400, Parking(of, "default"), slow)
        assert any(bench.glob("*.arrow"))
        lab.append("jug-2", [Poured(1_000)])
        assert lab.rebuild(model).position == 402
        (base,) = lab.store.read_models.of("default")
        assert pl.DataFrame(pl.from_arrow(base.table())).equals(lab.table(model, engine="rows"))


def test_forty_subscriptions_miss_and_repeat_nothing_while_four_processes_write() -> None:
    program = Path(__file__).parent / "followers.py"
    done = subprocess.run(
        [sys.executable, program, "--runs", "40", "--seed", "3"], capture_output=True, text=True, timeout=110, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "40 runs" in done.stdout
    assert "0 problems" in done.stdout


@pytest.mark.campaign
def test_three_thousand_subscriptions_miss_and_repeat_nothing_while_four_processes_write() -> None:
    program = Path(__file__).parent / "followers.py"
    done = subprocess.run(
        [sys.executable, program, "--runs", "3000", "--seed", "5"], capture_output=True, text=True, timeout=1500, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_read_models_are_whole_after_thirty_kills() -> None:
    program = Path(__file__).parent / "campaign.py"
    done = subprocess.run(
        [sys.executable, program, "--kills", "30", "--seed", "3"], capture_output=True, text=True, timeout=110, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "30 kills; 0 problems" in done.stdout


@pytest.mark.campaign
def test_read_models_are_whole_after_five_hundred_kills() -> None:
    program = Path(__file__).parent / "campaign.py"
    done = subprocess.run(
        [sys.executable, program, "--kills", "500", "--seed", "5"], capture_output=True, text=True, timeout=1500, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
