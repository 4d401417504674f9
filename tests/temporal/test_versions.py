"""The state after every event: the same by every engine, in every layout and at every moment, and of one stream as of all."""

from __future__ import annotations

import datetime as dt
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from replay import oracle
from replay.lift import gallery, hostile
from replay.oracle import BayTraffic, Crate, CrateFilled, CratePriced, Log

import eventlab as el
from eventlab.errors import EventlabError, InvalidName, NotLiftable, Unsupported
from eventlab.model.models import model_of
from eventlab.replay.lift import fold_intervals, run
from eventlab.store.base import ALL
from eventlab.temporal import spans
from eventlab.temporal.versions import intervals_of, versions
from eventlab.testing.plugin import Clock

ENVELOPE = ["_version", "_position", "_recorded_at", "_type"]


@el.aggregate
class Hopper:
    """It lifts: every engine folds it."""

    amount: int = 0
    full: bool = False
    label: str | None = None

    def evolve(self, event: CrateFilled | CratePriced) -> Self:
        match event:
            case CrateFilled(amount=amount):
                return replace(self, amount=self.amount + amount, full=self.amount + amount > 1_000)
            case CratePriced(label=label):
                return replace(self, label=label)
        return self


@contextmanager
def written(layout: str, log: Log) -> Iterator[el.Lab]:
    if layout == "memory":
        with oracle.written(layout, None, log) as lab:
            yield lab
    else:
        with tempfile.TemporaryDirectory() as folder, oracle.written(layout, Path(folder), log) as lab:
            yield lab


def expected(model: type[Any], log: Log) -> list[tuple[Any, ...]]:
    """After each event the row of the key that it touched, with the event's time and type; by key and position."""
    found = []
    for position in range(1, len(log.facts) + 1):
        at, kind = oracle.occurred(position, log.ends), type(log.facts[position - 1][1]).__name__
        rows = oracle.table(model, log.facts[:position], log.ends)
        found += [(*row, at, kind) for row in rows if row[-1] == position]
    width = 2 if model is BayTraffic else 1
    return sorted(found, key=lambda row: ([(part is None, part) for part in row[:width]], row[-3]))


@pytest.mark.parametrize("model", oracle.MODELS, ids=lambda model: model.__name__)
@settings(max_examples=15)
@given(log=oracle.logs(), engine=st.sampled_from(["auto", "rows", "loop"]), until=st.integers(0, 30))
def test_every_version_is_the_state_after_its_event(model: type[Any], log: Log, engine: Any, until: int) -> None:
    with written("memory", log) as lab:
        frame = lab.versions(model, engine=engine)
        assert frame.columns == [*lab.table(model).columns, "_recorded_at", "_type"]
        rows = expected(model, log)
        assert frame.rows() == rows
        known = [row for row in rows if row[-3] <= until]
        assert lab.at(position=until).versions(model, engine=engine).rows() == known


@settings(max_examples=6)
@given(log=oracle.logs(min_commits=1), layout=st.sampled_from(["hot", "sealed", "mixed"]))
def test_a_store_on_disk_gives_the_same_versions_whatever_was_sealed_and_compacted(log: Log, layout: str) -> None:
    with written(layout, log) as lab:
        rows = expected(Crate, log)
        assert lab.versions(Crate).rows() == rows
        lab.seal()
        lab.compact(all=True)
        assert lab.versions(Crate).rows() == rows


@settings(max_examples=25)
@given(log=oracle.logs(), until=st.integers(0, 30))
def test_the_versions_of_one_aggregate_are_those_of_all_that_have_its_id(log: Log, until: int) -> None:
    with written("memory", log) as lab:
        for reader in (lab, lab.at(position=until)):
            every = reader.versions(Crate)
            for id in ("1", "2", "1-b", "ä/1", "nobody"):
                one = reader.versions(Crate, id)
                assert one.rows() == every.filter(pl.col("_id") == id).rows()
                assert one.schema == every.schema
                if len(one):
                    assert one.drop("_recorded_at", "_type").rows()[-1] == reader.table(Crate).filter(pl.col("_id") == id).row(0)


def test_every_engine_gives_the_same_versions_and_lifted_refuses_what_does_not_lift() -> None:
    facts = [("hopper-1", CrateFilled(600)), ("hopper-2", CratePriced("x", el.money(1))), ("hopper-1", CrateFilled(600))]
    with written("sealed", Log(tuple((fact,) for fact in facts))) as lab:
        rows = lab.versions(Hopper, engine="rows").rows()
        assert [row[:5] for row in rows] == [("1", 600, False, None, 1), ("1", 1200, True, None, 2), ("2", 0, False, "x", 1)]
        for engine in ("auto", "loop", "lifted"):
            assert lab.versions(Hopper, engine=engine).rows() == rows  # type: ignore[arg-type]
            assert lab.versions(Hopper, "1", engine=engine).rows() == rows[:2]  # type: ignore[arg-type]
        with pytest.raises(NotLiftable):
            lab.versions(Crate, engine="lifted")
        with pytest.raises(Unsupported, match="there is no engine='fast'"):
            lab.versions(Hopper, engine="fast")  # type: ignore[arg-type]


def test_the_versions_of_one_aggregate_need_an_aggregate_an_id_and_a_tenant() -> None:
    with el.scratch() as lab:
        with pytest.raises(Unsupported, match="BayTraffic is a projection") as caught:
            lab.versions(BayTraffic, "A")
        assert "filter" in caught.value.hint
        with pytest.raises(InvalidName):
            lab.versions(Crate, "")
        assert lab.versions(Crate).columns[-4:] == lab.versions(Crate, "1").columns[-4:] == ENVELOPE
        for tenant in ("acme", "bert"):
            with lab.context(tenant=tenant):
                lab.append("hopper-1", [CrateFilled(1), CrateFilled(2)])
        everyone = el.Lab(lab.store, el.ALL, clock=lab._clock, chance=lab._chance, path=None)
        assert everyone.versions(Hopper).select("_tenant", "_id", "amount", "_version").rows() == [
            ("acme", "1", 1, 1), ("acme", "1", 3, 2), ("bert", "1", 1, 1), ("bert", "1", 3, 2)
        ]  # fmt: skip
        with pytest.raises(Unsupported, match="asks for one tenant"):
            everyone.versions(Hopper, "1")
        with everyone.context(tenant="bert"):
            assert everyone.versions(Hopper, "1")["_position"].to_list() == [3, 4]


# -- intervals, which the query gives without the versions in between


@pytest.mark.parametrize("layout", ["memory", "hot", "sealed", "compacted"])
@settings(max_examples=25, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_intervals_are_those_of_every_version_of_the_row_fold(
    layout: str, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    model = data.draw(st.sampled_from(gallery.MODELS), label="model")
    facts = data.draw(hostile.logs(model, (gallery.LineAdded, gallery.PointsEarned)))
    minutes = data.draw(st.lists(st.integers(0, 1), min_size=1, max_size=4), label="minutes")
    of = model_of(model)
    names = [name for name, _ in of.fields]
    fields = data.draw(st.lists(st.sampled_from(names), min_size=1, unique=True), label="fields")
    folder = None if layout == "memory" else Path(tmp_path_factory.mktemp(layout))
    with hostile.written(facts, layout, folder, minutes) as lab, pytest.MonkeyPatch.context() as patched:
        patched.setattr(run, "_SMALL", 0)
        cut = lab.store.cut()
        for tenant in ("default", ALL):
            try:
                told = versions(of, cut, tenant, cut.head, engine="rows", fields=fields)
            except EventlabError as why:
                with pytest.raises(type(why)):
                    intervals_of(of, cut, tenant, cut.head, fields)
            else:
                meant = spans.intervals(of, told, tenant, fields)
                assert intervals_of(of, cut, tenant, cut.head, fields).equals(meant)


def test_the_query_gives_the_intervals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "_SMALL", 0)
    with el.scratch(clock=Clock(dt.datetime(2026, 1, 1, tzinfo=dt.UTC))) as lab:
        for amount in (1_000, 5, -5, 0):  # what was recorded at one time is one change
            lab.append("hopper-1", [CrateFilled(amount)])
        lab.append("hopper-2", [CrateFilled(1), CrateFilled(1)])
        cut = lab.store.cut()
        found = fold_intervals(model_of(Hopper), cut, "default", cut.head, ["full", "amount"])
        assert found is not None
        table, others = found
        assert table.select(["_id", "amount", "full", "_version"]).to_pylist() == [
            {"_id": "1", "amount": 1_000, "full": False, "_version": 3}, {"_id": "2", "amount": 2, "full": False, "_version": 2},
        ]  # fmt: skip
        assert not others
