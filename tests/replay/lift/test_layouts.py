"""Where the events lie changes nothing: memory, hot, sealed, mixed; every tenant; up to any position; on from a base."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from replay import oracle
from replay.lift import gallery
from replay.lift.hostile import agree, answer, logs, shown, written

import eventlab as el
from eventlab.errors import EventlabError, NotLiftable
from eventlab.model.models import model_of
from eventlab.replay.lift import fold_table, fold_versions, plan_of
from eventlab.store.base import ALL
from eventlab.store.read_models import base_in_memory

SOME = (gallery.Account, gallery.WatchedAccount, gallery.Purchase, gallery.Cart, gallery.Ticket, gallery.Parcel,
        gallery.TieredLoyalty, gallery.SkuSales, gallery.AgentWork, gallery.Everything)  # fmt: skip
BY_STREAM = tuple(model for model in gallery.MODELS if model_of(model).category is not None)
OTHERS = (gallery.LineAdded, gallery.PointsEarned)


@pytest.mark.parametrize("layout", ["hot", "sealed", "mixed", "compacted", "eras"])
@settings(max_examples=4, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_files_and_the_hot_tail_give_the_same_table(
    layout: str, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    model = data.draw(st.sampled_from(SOME), label="model")
    facts = data.draw(logs(model, OTHERS))
    with written(facts, layout, Path(tmp_path_factory.mktemp(layout))) as lab:
        cut = lab.store.cut()
        agree(model_of(model), cut, "default", cut.head)
        agree(model_of(model), cut, ALL, data.draw(st.integers(0, cut.head), label="until"))


def test_a_list_of_sealed_events_is_folded_in_the_query(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from eventlab.replay.lift import run

    monkeypatch.setattr(run, "_SMALL", 0)

    @el.event(name="layouts.Labelled")
    class Labelled:
        """It was given labels."""

        labels: list[str]

    @el.aggregate(name="labels")
    class LabelsGiven:
        count: int = 0

        def evolve(self, event: Labelled) -> LabelsGiven:
            return LabelsGiven(self.count + len(event.labels))

    with el.open(tmp_path / "log", maintain=False) as lab:
        lab.append("labels-1", [Labelled(["a", "b"]), Labelled([])])
        lab.seal()
        assert lab.table(LabelsGiven, engine="lifted")["count"].to_list() == [2]


@pytest.mark.parametrize("model", SOME, ids=lambda cls: cls.__name__)
@settings(max_examples=8, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_fold_goes_on_from_a_base(model: type[Any], data: st.DataObject) -> None:
    facts = data.draw(logs(model, OTHERS))
    of = model_of(model)
    with written(facts, "memory", None) as lab:
        cut = lab.store.cut()
        middle = data.draw(st.integers(0, cut.head), label="middle")
        base = answer(of, cut, "default", middle, "rows")
        if isinstance(base, tuple):
            return
        rows_of = base_in_memory(of.name, "default", "", middle, base, of.key_names).rows_of
        meant = answer(of, cut, "default", cut.head, "rows", after=middle, base=rows_of)
        for engine in ("loop", "auto"):
            found = answer(of, cut, "default", cut.head, engine, after=middle, base=rows_of)
            if isinstance(meant, tuple):
                assert found == meant
            else:
                assert found.schema.equals(meant.schema, check_metadata=True)
                assert shown(found) == shown(meant)


def test_tenants_are_apart_and_together() -> None:
    lab = el.scratch(seed=1)
    for tenant in ("acme", "zeta", "acme"):
        with el.context(tenant=tenant):
            for stream in ("account-1", "watched-1"):
                lab.append(stream, [gallery.Deposited(el.money(3)), gallery.Withdrawn(el.money("1.50"), "rent")])
    cut = lab.store.cut()
    for model in (gallery.Account, gallery.WatchedAccount):
        assert len(agree(model_of(model), cut, "acme", cut.head, ("loop", "lifted"))) == 1
        assert agree(model_of(model), cut, ALL, cut.head, ("loop", "lifted")).column("_tenant").to_pylist() == ["acme", "zeta"]


@settings(max_examples=10)
@given(log=oracle.logs())
def test_the_models_of_the_oracle_agree(log: oracle.Log) -> None:
    with oracle.written("memory", None, log) as lab:
        cut = lab.store.cut()
        for model in oracle.MODELS:
            agree(model_of(model), cut, "default", cut.head)


def test_an_empty_log_gives_an_empty_table() -> None:
    lab = el.scratch()
    for model in gallery.MODELS:
        of = model_of(model)
        assert len(agree(of, lab.store.cut(), "default", 0)) == 0


def test_the_query_can_be_read_and_is_plain(tmp_path: Path) -> None:
    facts = [(f"account-{i % 7}", gallery.Deposited(el.money(i))) for i in range(50)]
    with written(facts, "sealed", tmp_path) as lab:
        cut, of = lab.store.cut(), model_of(gallery.Account)
        fold_table(of, cut, "default", cut.head, engine="lifted")
        told = plan_of(of).explain()
        assert told.engine == "lifted"
        assert "GROUP BY _stream" in told.sql
        assert "sum(CASE WHEN type = 'Deposited'" in told.sql
        assert "_bad" not in told.sql, "the statistics prove that no guard can hold"


def test_files_sorted_by_stream_are_not_sorted_again(tmp_path: Path) -> None:
    facts = [(f"watched-{i % 7}", gallery.Deposited(el.money(i - 20))) for i in range(50)]
    with written(facts, "compacted", tmp_path) as lab:
        cut, of = lab.store.cut(), model_of(gallery.WatchedAccount)
        agree(of, cut, "default", cut.head, ("lifted",))
        assert "ORDER BY _stream, position" not in plan_of(of).last_sql
        agree(of, cut, "default", 31, ("lifted",))
        lab.append("watched-1", [gallery.Withdrawn(el.money(5))])
        cut = lab.store.cut()
        agree(of, cut, "default", cut.head, ("lifted",))
        assert "ORDER BY _stream, position" in plan_of(of).last_sql


@pytest.fixture
def buckets(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Eras of so many buckets, however few rows they have, each bucket a part."""
    monkeypatch.setattr("eventlab.replay.lift.scan.PART_ROWS", 1)

    def many(count: int) -> None:
        monkeypatch.setattr("eventlab.store.compact.buckets_for", lambda rows, streams: count)

    return many


def laid_out(lab: el.Lab, facts: Sequence[tuple[str, Any]], eras: Sequence[tuple[int, int]], many: Callable[[int], None]) -> None:
    """Append facts; at each (place, buckets) what is there so far becomes an era; what is left stays a sealed run and a tail."""
    ends = dict(eras)
    last = max(ends, default=0)
    for i, (stream, event) in enumerate(facts):
        lab.append(stream, [event])
        if (count := ends.get(i + 1)) is not None:
            many(count)
            lab.seal()
            lab.store.compact(all=True, positions=1)  # an era is not taken up by the next one
        elif i == last + 1:
            lab.seal()


@settings(max_examples=25, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_buckets_of_several_eras_a_run_and_the_tail_are_one_log(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory, buckets: Callable[[int], None]
) -> None:
    model = data.draw(st.sampled_from(BY_STREAM), label="model")
    facts = data.draw(logs(model, OTHERS, max_size=24), label="facts")
    places = sorted(data.draw(st.sets(st.integers(1, max(1, len(facts))), max_size=3), label="eras"))
    eras = [(place, data.draw(st.sampled_from([1, 2, 4, 8]), label="buckets")) for place in places]
    of = model_of(model)
    with el.open(Path(tmp_path_factory.mktemp("parts"))) as lab:
        with contextlib.suppress(EventlabError):
            laid_out(lab, facts, eras, buckets)
        cut = lab.store.cut()
        agree(of, cut, "default", cut.head)
        agree(of, cut, ALL, data.draw(st.integers(0, cut.head), label="until"))
        agree(of, cut, "default", cut.head, ("lifted?",), fold=fold_versions)


@pytest.mark.parametrize("model", [gallery.Account, gallery.WatchedAccount], ids=lambda cls: cls.__name__)
def test_a_fold_by_stream_runs_a_bucket_at_a_time(model: type[Any], tmp_path: Path, buckets: Callable[[int], None]) -> None:
    of = model_of(model)
    facts = [(f"{of.category}-{i * 7 % 31}", gallery.Deposited(el.money(i - 60))) for i in range(200)]
    for tail, eras in ((200, [(200, 4)]), (160, [(160, 4)]), (200, [(80, 8), (200, 4)]), (150, [(80, 2), (150, 8)])):
        with el.open(tmp_path / str((tail, *eras))) as lab:
            laid_out(lab, facts, eras, buckets)
            cut = lab.store.cut()
            agree(of, cut, "default", cut.head, ("lifted",))
            assert f"one of {min(count for _, count in eras)} parts" in plan_of(of).last_sql
            agree(of, cut, "default", 120, ("lifted",))
            agree(of, cut, "default", cut.head, ("lifted",), fold=fold_versions)


def test_what_lies_in_position_order_is_spilled_to_files_beyond_a_size(
    tmp_path: Path, buckets: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eventlab.replay.lift.parts.REST_BYTES", 1)
    facts = [(f"watched-{i * 7 % 31}", gallery.Deposited(el.money(i - 60))) for i in range(200)]
    with el.open(tmp_path) as lab:
        laid_out(lab, facts, [(120, 4)], buckets)
        agree(model_of(gallery.WatchedAccount), lab.store.cut(), "default", 200, ("lifted",))


def test_a_log_that_is_mostly_in_position_order_is_not_split(tmp_path: Path, buckets: Callable[[int], None]) -> None:
    facts = [(f"account-{i * 7 % 31}", gallery.Deposited(el.money(i))) for i in range(200)]
    with el.open(tmp_path) as lab:
        laid_out(lab, facts, [(60, 4)], buckets)
        of = model_of(gallery.Account)
        agree(of, lab.store.cut(), "default", 200, ("lifted",))
        assert "parts, by the bucket" not in plan_of(of).last_sql


def test_the_tenants_of_a_part_are_apart(tmp_path: Path, buckets: Callable[[int], None]) -> None:
    of = model_of(gallery.WatchedAccount)
    with el.open(tmp_path, tenant="acme") as lab:
        for i in range(120):
            with el.context(tenant=("acme", "zeta")[i % 2]):
                lab.append(f"watched-{i % 9}", [gallery.Deposited(el.money(i))])
            if i == 80:
                buckets(4)
                lab.seal()
                lab.compact(all=True)
        cut = lab.store.cut()
        assert len(agree(of, cut, ALL, cut.head, ("lifted",))) == 18
        assert len(agree(of, cut, "zeta", cut.head, ("lifted",))) == 9
        agree(of, cut, ALL, 75, ("lifted",))
        agree(of, cut, ALL, cut.head, ("lifted",), fold=fold_versions)


@pytest.mark.parametrize("fold", [fold_table, fold_versions], ids=lambda fold: fold.__name__)
def test_rows_in_another_order_than_the_windows_take_for_granted_are_not_believed(
    fold: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from eventlab.replay.lift import run

    def sorted_by_nobody(*given: Any, **named: Any) -> Any:
        return replace(scan_of(*given, **named), by_stream=True)

    of, scan_of = model_of(gallery.WatchedAccount), run.scan_of
    with el.open(tmp_path / "log", maintain=False) as lab:
        for stream in ("watched-1", "watched-2", "watched-1"):
            lab.append(stream, [gallery.Deposited(el.money(30)), gallery.Withdrawn(el.money("1.50"), "rent")])
        lab.seal()
        cut = lab.store.cut()
        right = fold(of, cut, "default", cut.head, engine="rows")
        assert fold(of, cut, "default", cut.head, engine="lifted").equals(right)
        monkeypatch.setattr(run, "scan_of", sorted_by_nobody)
        monkeypatch.setattr(run, "_SMALL", 0)
        with pytest.raises(NotLiftable, match="did not come in the order of their positions"):
            fold(of, cut, "default", cut.head, engine="lifted")
        assert fold(of, cut, "default", cut.head).equals(right)


VERSIONS = st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("xyz"), st.integers(1, 4)), max_size=7)


@given(VERSIONS)
def test_versions_are_counted_where_each_run_of_a_key_has_them_from_one_on(rows: list[tuple[str, str, int]]) -> None:
    from eventlab.replay.lift.run import counted

    table = pa.table({name: [row[at] for row in rows] for at, name in enumerate(("_tenant", "_stream", "_version"))})
    groups = [[row[2] for row in group] for _, group in itertools.groupby(rows, key=lambda row: row[:2])]
    assert counted(table, ("_tenant", "_stream")) == all(found == list(range(1, len(found) + 1)) for found in groups)
