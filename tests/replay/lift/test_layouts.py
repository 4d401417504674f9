"""Where the events lie changes nothing: memory, hot, sealed, mixed; every tenant; up to any position; on from a base."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from replay import oracle
from replay.lift import gallery
from replay.lift.hostile import agree, answer, logs, shown, written

import eventlab as el
from eventlab.model.models import model_of
from eventlab.replay.lift import fold_table, plan_of
from eventlab.store.base import ALL

SOME = (gallery.Account, gallery.WatchedAccount, gallery.Purchase, gallery.Cart, gallery.Ticket, gallery.Parcel,
        gallery.TieredLoyalty, gallery.SkuSales, gallery.AgentWork, gallery.Everything)  # fmt: skip
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
        meant = answer(of, cut, "default", cut.head, "rows", after=middle, base=base)
        for engine in ("loop", "auto"):
            found = answer(of, cut, "default", cut.head, engine, after=middle, base=base)
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
        assert "GROUP BY stream" in told.sql
        assert "sum(CASE WHEN type = 'Deposited'" in told.sql
        assert "_bad" not in told.sql, "the statistics prove that no guard can hold"


def test_files_sorted_by_stream_are_not_sorted_again(tmp_path: Path) -> None:
    facts = [(f"watched-{i % 7}", gallery.Deposited(el.money(i - 20))) for i in range(50)]
    with written(facts, "compacted", tmp_path) as lab:
        cut, of = lab.store.cut(), model_of(gallery.WatchedAccount)
        agree(of, cut, "default", cut.head, ("lifted",))
        assert "ORDER BY stream, position" not in plan_of(of).last_sql
        agree(of, cut, "default", 31, ("lifted",))
        lab.append("watched-1", [gallery.Withdrawn(el.money(5))])
        cut = lab.store.cut()
        agree(of, cut, "default", cut.head, ("lifted",))
        assert "ORDER BY stream, position" in plan_of(of).last_sql
