"""Read models: a base at a checkpoint and the fold since; rebuilt beside and swapped, never read by other code."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from replay import oracle
from replay.oracle import MODELS, Log

import eventlab as el
from eventlab.errors import Damaged, EvolveFailed, QueryRefused, ReadOnly
from eventlab.model.models import model_of
from eventlab.projections.read_models import base_of


@el.event
class CoinDropped:
    """A coin fell into the box."""

    value: int


@el.event
class BoxShaken:
    """Nothing changed."""


class Probe:
    """What `evolve` was called with, and a gate that it waits at. An object: its content is not part of a fingerprint."""

    def __init__(self) -> None:
        self.calls: list[int] = []
        self.gate, self.fails = 0, False
        self.reached, self.open = threading.Event(), threading.Event()

    def __call__(self, value: int) -> None:
        self.calls.append(value)
        if value == self.gate:
            self.reached.set()
            assert self.open.wait(30)
            if self.fails:
                raise ValueError("jammed")


probe = Probe()


@el.aggregate
class CoinBox:
    total: int = 0

    def evolve(self, event: CoinDropped) -> Self:
        probe(event.value)
        return replace(self, total=self.total + event.value)


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    probe.__init__()  # type: ignore[misc]
    yield
    probe.open.set()


@pytest.fixture(params=["memory", "disk"])
def lab(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[el.Lab]:
    """Four coins in two boxes."""
    lab = el.scratch() if request.param == "memory" else el.open(tmp_path / "log")
    with lab:
        lab.append("coin_box-1", [CoinDropped(1), CoinDropped(2)])
        lab.append("coin_box-2", [CoinDropped(3), BoxShaken(), CoinDropped(4)])
        yield lab


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[el.Lab]:
    with el.open(tmp_path / "log") as lab:
        lab.append("coin_box-1", [CoinDropped(1), CoinDropped(2)])
        yield lab


def another(lab: el.Lab) -> el.Lab:
    """A lab on the same store that has folded nothing yet."""
    return el.Lab(lab.store, "default", clock=lab._clock, chance=lab._chance, path=lab.path)


def files(lab: el.Lab) -> list[Path]:
    assert lab.path is not None
    return sorted((lab.path / "read_models").iterdir())


def rows(lab: el.Lab) -> list[tuple[Any, ...]]:
    return lab.table(CoinBox).rows()


# -- equal to the fold, at any checkpoint


@pytest.mark.parametrize("layout", ["memory", "hot", "mixed"])
def test_base_and_tail_are_the_whole_fold_wherever_the_checkpoint_is(layout: str) -> None:
    @settings(max_examples=12 if layout == "memory" else 5)
    @given(log=oracle.logs(), plan=st.lists(st.sampled_from(["rebuild", "catch_up", "table", "nothing"]), min_size=7, max_size=7))
    def check(log: Log, plan: list[str]) -> None:
        with tempfile.TemporaryDirectory() as folder, oracle.written(layout, Path(folder) / "log", Log(())) as lab:
            checkpoint = dict.fromkeys(MODELS, 0)
            for i, commit in enumerate(log.commits):
                oracle.append(lab, commit)
                if layout == "mixed" and i == 2:
                    lab.seal()
                facts, end = log.facts[: log.ends[i]], log.ends[i]
                for model in MODELS:
                    if plan[i] in ("rebuild", "catch_up"):
                        begin = 0 if plan[i] == "rebuild" else checkpoint[model]
                        done = getattr(lab, plan[i])(model)
                        assert done.events == seen(model, facts[begin:])
                        assert (done.rows, done.position) == (len(oracle.folded(model, facts, log.ends)), end)
                        checkpoint[model] = end
                    if plan[i] != "nothing":
                        assert another(lab).table(model).rows() == oracle.table(model, facts, log.ends)
            for model in MODELS:
                assert another(lab).table(model).rows() == oracle.table(model, log.facts, log.ends)

    check()


def seen(model: type[Any], facts: list[oracle.Fact]) -> int:
    """How many of these facts a fold of the model has to look at."""
    of = model_of(model)
    if of.category is not None:
        return sum(stream.partition("-")[0] == of.category for stream, _ in facts)
    listed = None if of.handled is None else tuple(kind.cls for kind in of.handled)
    return sum(listed is None or isinstance(event, listed) for _, event in facts)


# -- cost


def test_a_catch_up_folds_the_new_events_and_no_others(lab: el.Lab) -> None:
    assert lab.rebuild(CoinBox).events == 5
    assert probe.calls == [1, 2, 3, 4]
    probe.calls.clear()
    lab.append("coin_box-2", [CoinDropped(10), BoxShaken()])
    lab.append("coin_box-3", [CoinDropped(20)])
    done = lab.catch_up(CoinBox)
    assert probe.calls == [10, 20]
    assert (done.model, done.events, done.rows, done.position) == ("coin_box", 3, 3, 8)
    assert rows(another(lab)) == [("1", 3, 2, 2), ("2", 17, 5, 7), ("3", 20, 1, 8)]


def test_a_catch_up_with_nothing_new_folds_nothing_and_keeps_the_base(lab: el.Lab) -> None:
    before = lab.rebuild(CoinBox)
    base = base_of(model_of(CoinBox), lab.store, "default")
    assert base is not None
    probe.calls.clear()
    done = lab.catch_up(CoinBox)
    assert (done.events, done.rows, done.position, done.size) == (0, 2, 5, before.size)
    assert probe.calls == []
    if lab.path is not None:
        assert len(files(lab)) == 1


def test_a_catch_up_without_a_base_is_a_rebuild(lab: el.Lab) -> None:
    assert lab.catch_up(CoinBox).events == 5
    assert probe.calls == [1, 2, 3, 4]


def test_reading_folds_what_the_base_does_not_have(lab: el.Lab) -> None:
    lab.rebuild(CoinBox)
    probe.calls.clear()
    assert rows(another(lab)) == [("1", 3, 2, 2), ("2", 7, 3, 5)]
    assert probe.calls == []
    lab.append("coin_box-1", [CoinDropped(5)])
    reader = another(lab)
    assert rows(reader) == [("1", 8, 3, 6), ("2", 7, 3, 5)]
    assert rows(reader) == rows(reader)
    assert probe.calls == [5], "folded once; asked again, the table is at hand"
    assert len(reader.table(CoinBox, engine="rows")) == 2
    assert probe.calls == [5, 1, 2, 3, 4, 5], "engine='rows' folds everything"


def test_moments_one_after_another_fold_each_event_once(lab: el.Lab) -> None:
    for position in range(lab.head + 1):
        lab.at(position=position).table(CoinBox)
    assert probe.calls == [1, 2, 3, 4]


def test_an_empty_log_has_an_empty_base() -> None:
    lab = el.scratch()
    done = lab.rebuild(CoinBox)
    assert (done.events, done.rows, done.position) == (0, 0, 0)
    assert len(another(lab).table(CoinBox)) == 0
    lab.append("coin_box-1", [CoinDropped(1)])
    assert lab.catch_up(CoinBox).events == 1


# -- beside, and swapped


def test_the_old_base_is_read_while_the_new_one_is_built(lab: el.Lab) -> None:
    lab.rebuild(CoinBox)
    lab.append("coin_box-1", [CoinDropped(100)])
    probe.gate = 3
    building = threading.Thread(target=lambda: another(lab).rebuild(CoinBox))
    building.start()
    try:
        assert probe.reached.wait(30)
        base = base_of(model_of(CoinBox), lab.store, "default")
        assert base is not None
        assert base.position == 5
        # The tail since the base holds no coin of the gate: readers go on, and see even what came after the base.
        assert rows(another(lab)) == [("1", 103, 3, 6), ("2", 7, 3, 5)]
        assert another(lab).sql("select sum(total) as t from state.coin_box")["t"].to_list() == [110]
        lab.append("coin_box-1", [CoinDropped(1000)])
        assert rows(another(lab))[0] == ("1", 1103, 4, 7)
    finally:
        probe.open.set()
        building.join(30)
    base = base_of(model_of(CoinBox), lab.store, "default")
    assert base is not None
    assert (base.position, base.rows) == (6, 2)
    assert rows(another(lab)) == [("1", 1103, 4, 7), ("2", 7, 3, 5)]


def test_readers_in_threads_see_a_whole_table_through_many_swaps(disk: el.Lab) -> None:
    stop = threading.Event()
    failures: list[str] = []

    def read() -> None:
        try:
            while not stop.is_set():
                frame = another(disk).table(CoinBox)
                # Every commit drops the same coin into both boxes.
                if len(set(frame["total"])) > 1:
                    failures.append(str(frame.rows()))
        except Exception as why:
            failures.append(repr(why))

    disk.append("coin_box-2", [CoinDropped(3)])
    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for i in range(25):
        disk.append({"coin_box-1": [CoinDropped(1)], "coin_box-2": [CoinDropped(1)]})
        (disk.rebuild if i % 3 else disk.catch_up)(CoinBox)
    stop.set()
    for reader in readers:
        reader.join(30)
    assert failures == []
    assert rows(disk) == [("1", 28, 27, 52), ("2", 28, 26, 53)]


def test_a_swap_leaves_one_file_and_whoever_holds_the_old_base_can_still_read_it(disk: el.Lab) -> None:
    disk.rebuild(CoinBox)
    (old,) = files(disk)
    held = base_of(model_of(CoinBox), disk.store, "default")
    disk.append("coin_box-1", [CoinDropped(5)])
    disk.rebuild(CoinBox)
    (new,) = files(disk)
    assert old != new
    assert held is not None
    assert held.table().column("total").to_pylist() == [3]


def test_a_key_whose_event_cannot_be_folded_stops_and_the_rest_goes_on(lab: el.Lab) -> None:
    lab.rebuild(CoinBox)
    lab.append("coin_box-1", [CoinDropped(66), CoinDropped(5)])
    lab.append("coin_box-2", [CoinDropped(10)])
    probe.gate, probe.fails = 66, True
    probe.open.set()
    for move in (lab.catch_up, lab.rebuild):
        done = move(CoinBox)
        assert (done.position, done.rows, done.parked) == (8, 2, 1)
        base = base_of(model_of(CoinBox), lab.store, "default")
        assert base is not None
        assert base.table().to_pylist() == [
            {"_id": "1", "total": 3, "_version": 2, "_position": 2},
            {"_id": "2", "total": 17, "_version": 4, "_position": 8},
        ]
    assert lab.parked().rows() == [
        ("coin_box", "1", 6, "coin_box-1", 3, "CoinDropped", "ValueError: jammed", 1, base.fingerprint, "accepted")
    ]
    lab.append("coin_box-1", [CoinDropped(1)])
    lab.catch_up(CoinBox)
    assert lab.parked()["waiting"].to_list() == [2]
    assert lab.at(position=5).table(CoinBox).rows() == [("1", 3, 2, 2), ("2", 7, 3, 5)]
    for read in (lab.table, another(lab).table, lambda of: lab.sql("from state.coin_box")):
        with pytest.raises(EvolveFailed, match="jammed") as caught:
            read(CoinBox)
        assert caught.value.position == 6
    probe.fails = False
    assert lab.retry(CoinBox).parked == 0
    assert rows(another(lab)) == [("1", 75, 5, 9), ("2", 17, 4, 8)]
    assert len(lab.parked()) == 0


# -- other code


@pytest.fixture
def till(lab: el.Lab) -> el.Lab:
    lab.append("till-1", [CoinDropped(1), CoinDropped(2)])
    lab.append("till-2", [CoinDropped(7)])
    return lab


def summing(times: int, first: int = 0, worth: Callable[[int], int] = abs) -> type[Any]:
    @el.aggregate(name="till")
    class Till:
        total: int = first

        def evolve(self, event: CoinDropped) -> Self:
            return replace(self, total=self.total + times * worth(event.value))

    return Till


def counting() -> type[Any]:
    @el.aggregate(name="till")
    class Till:
        total: int = 0
        count: int = 0

        def evolve(self, event: CoinDropped) -> Self:
            return replace(self, total=self.total + event.value, count=self.count + 1)

    return Till


def test_a_base_made_by_other_code_is_never_read(till: el.Lab) -> None:
    first = summing(2)
    till.rebuild(first)
    assert till.table(first)["total"].to_list() == [6, 14]
    second = summing(3)
    assert till.table(second)["total"].to_list() == [9, 21]
    assert till.at(position=6).table(second)["total"].to_list() == [3]
    till.append("till-1", [CoinDropped(1)])
    done = till.catch_up(second)
    assert done.events == 4, "nothing of the old base could be used"
    assert another(till).table(second)["total"].to_list() == [12, 21]


@pytest.mark.parametrize(
    ("change", "totals"),
    [
        (lambda: summing(1, first=10), [13, 17]),
        (lambda: summing(1, worth=lambda value: value * 2), [6, 14]),
        (counting, [3, 7]),
    ],
    ids=["default", "helper", "field"],
)
def test_a_changed_default_helper_or_field_is_other_code(
    till: el.Lab, change: Callable[[], type[Any]], totals: list[int]
) -> None:
    till.rebuild(summing(1))
    changed = change()
    assert till.table(changed)["total"].to_list() == totals
    assert till.catch_up(changed).events == 3
    assert till.table(changed).equals(till.table(changed, engine="rows"))


# -- disposable


def test_without_its_file_a_read_model_is_made_again(disk: el.Lab) -> None:
    disk.rebuild(CoinBox)
    files(disk)[0].unlink()
    assert rows(another(disk)) == [("1", 3, 2, 2)]
    assert disk.catch_up(CoinBox).events == 2
    assert len(files(disk)) == 1
    probe.calls.clear()
    assert rows(another(disk)) == [("1", 3, 2, 2)]
    assert probe.calls == []


def test_without_the_whole_folder_read_models_are_made_again(disk: el.Lab) -> None:
    disk.rebuild(CoinBox)
    assert disk.path is not None
    shutil.rmtree(disk.path / "read_models")
    assert rows(another(disk)) == [("1", 3, 2, 2)]
    assert disk.rebuild(CoinBox).events == 2
    assert len(files(disk)) == 1


def test_a_damaged_base_is_said_to_be_damaged_and_a_rebuild_replaces_it(disk: el.Lab) -> None:
    disk.rebuild(CoinBox)
    (path,) = files(disk)
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(bytes(raw))
    assert disk.path is not None
    folder = disk.path
    disk.close()
    with el.open(folder) as again:
        with pytest.raises(Damaged, match="is not what was written") as caught:
            rows(another(again))
        assert "rebuild" in caught.value.hint
        again.rebuild(CoinBox)
        assert rows(another(again)) == [("1", 3, 2, 2)]


def test_a_lab_that_only_reads_does_not_move_a_base(disk: el.Lab) -> None:
    assert disk.path is not None
    path = disk.path
    disk.close()
    with el.open(path, read_only=True) as reader:
        for move in (reader.rebuild, reader.catch_up):
            with pytest.raises(ReadOnly):
                move(CoinBox)
        assert rows(reader) == [("1", 3, 2, 2)]
    assert not (path / "read_models").exists()


# -- tenants, moments, readers without the code


def test_every_tenant_has_its_own_base(lab: el.Lab) -> None:
    with lab.context(tenant="acme"):
        lab.append("coin_box-1", [CoinDropped(70)])
        lab.rebuild(CoinBox)
    lab.rebuild(CoinBox)
    everyone = el.Lab(lab.store, el.ALL, clock=lab._clock, chance=lab._chance, path=lab.path)
    everyone.rebuild(CoinBox)
    probe.calls.clear()
    with lab.context(tenant="acme"):
        assert rows(another(lab)) == [("1", 70, 1, 6)]
    assert rows(another(lab)) == [("1", 3, 2, 2), ("2", 7, 3, 5)]
    assert rows(everyone) == [("acme", "1", 70, 1, 6), ("default", "1", 3, 2, 2), ("default", "2", 7, 3, 5)]
    assert probe.calls == []
    with lab.context(tenant="nobody"):
        assert rows(another(lab)) == []


def test_a_moment_before_the_checkpoint_knows_nothing_of_the_base(lab: el.Lab) -> None:
    early = lab.at(position=3)
    lab.rebuild(CoinBox)
    for moment in (early, lab.at(position=3), another(lab).at(position=3)):
        assert moment.table(CoinBox).rows() == [("1", 3, 2, 2), ("2", 3, 1, 3)]
        assert moment.sql("select sum(total) as t from state.coin_box")["t"].to_list() == [6]


def test_a_process_without_the_code_reads_the_base_as_it_was_built(disk: el.Lab) -> None:
    disk.rebuild(CoinBox)
    disk.append("coin_box-1", [CoinDropped(5)])
    code = """
import json, sys
import eventlab as el
from eventlab.errors import QueryRefused
with el.open(sys.argv[1]) as lab:
    rows = lab.sql("select * from state.coin_box").rows()
    try:
        lab.at(position=1).sql("select * from state.coin_box")
        early = "answered"
    except QueryRefused as why:
        early = str(why)
    json.dump([rows, early], sys.stdout)
"""
    command = [sys.executable, "-c", code, str(disk.path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    base, early = json.loads(done.stdout)
    assert base == [["1", 3, 2, 2]]
    assert "coin_box" in early
    with pytest.raises(QueryRefused):
        disk.sql("select * from state.no_such_model")
