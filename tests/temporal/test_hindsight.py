"""Folds that say how they take what was recorded late: sorted by occurrence, or corrections from what they correct."""

from __future__ import annotations

import datetime as dt
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Self

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import eventlab as el
from eventlab.errors import ModelError
from eventlab.model.models import model_of
from eventlab.replay.lift import run

NOON = dt.datetime(2026, 5, 1, 12, tzinfo=dt.UTC)


@el.event(name="hindsight.CashCounted")
class CashCounted:
    """What is in a till was counted."""

    euros: int


@el.event(name="hindsight.CountCorrected")
class CountCorrected:
    """A count was wrong by so much."""

    euros: int


def evolved(state: Any, event: CashCounted | CountCorrected) -> Any:
    match event:
        case CashCounted(euros=euros):
            return replace(state, sum=state.sum + euros, last=euros, times=state.times + 1)
        case CountCorrected(euros=euros):
            return replace(state, sum=state.sum + euros, corrected=state.corrected + 1)


@el.aggregate(name="hindsight_till")
class TillAsRecorded:
    sum: int = 0
    last: int | None = None
    times: int = 0
    corrected: int = 0

    def evolve(self, event: CashCounted | CountCorrected) -> Self:
        return evolved(self, event)  # type: ignore[no-any-return]


@el.projection(name="hindsight_sorted", late="sorted")
class TillSorted:
    sum: int = 0
    last: int | None = None
    times: int = 0
    corrected: int = 0

    @staticmethod
    def key(event: CashCounted | CountCorrected, meta: el.Meta) -> str:
        return meta.id

    def evolve(self, event: CashCounted | CountCorrected) -> Self:
        return evolved(self, event)  # type: ignore[no-any-return]


@el.projection(name="hindsight_corrected", corrections=[CountCorrected])
class TillCorrected:
    sum: int = 0
    last: int | None = None
    times: int = 0
    corrected: int = 0

    @staticmethod
    def key(event: CashCounted | CountCorrected, meta: el.Meta) -> str:
        return meta.id

    def evolve(self, event: CashCounted | CountCorrected) -> Self:
        return evolved(self, event)  # type: ignore[no-any-return]


@el.projection(name="hindsight_both", late="sorted", corrections=CountCorrected)
class TillOfBoth:
    sum: int = 0
    last: int | None = None
    times: int = 0
    corrected: int = 0

    @staticmethod
    def key(event: CashCounted | CountCorrected, meta: el.Meta) -> str:
        return meta.id

    def evolve(self, event: CashCounted | CountCorrected) -> Self:
        return evolved(self, event)  # type: ignore[no-any-return]


#: A count or a correction of one of the events before it (or of none), of a till, so many minutes from noon.
FACTS = st.lists(st.tuples(st.sampled_from("ab"), st.integers(1, 9), st.integers(-4, 4), st.none() | st.integers(0, 12)),
                 min_size=1, max_size=12)  # fmt: skip
LAYOUTS = ["memory", "hot", "sealed", "compacted"]


@contextmanager
def written(facts: list[tuple[str, int, int, int | None]], layout: str) -> Iterator[tuple[el.Lab, list[tuple[int, Any]]]]:
    """A lab with these facts, and of each when it counts from: its occurrence, and that with corrections, in minutes."""
    with tempfile.TemporaryDirectory() as folder:
        lab = el.scratch(seed=1) if layout == "memory" else el.open(folder, maintain=False)
        with lab:
            since: list[tuple[int, Any]] = []
            ids: list[Any] = []
            for till, euros, minutes, of in facts:
                cause = None if of is None or not ids else of % len(ids)
                event = CashCounted(euros) if of is None else CountCorrected(euros)
                with el.context(causation_id=None if cause is None else ids[cause]):
                    lab.append(f"hindsight_till-{till}", [event], occurred_at=NOON + dt.timedelta(minutes=minutes))
                ids.append(lab.read().list()[-1].event_id)
                since.append((minutes, minutes if cause is None or of is None else since[cause][1]))
            if layout in ("sealed", "compacted"):
                lab.seal()
            if layout == "compacted":
                lab.compact(all=True)
            yield lab, since


def expected(
    facts: list[Any], counted: list[int], until: int, *, sort: bool
) -> tuple[list[tuple[Any, ...]], dict[str, list[int]]]:
    """The rows by brute force, and by till the positions in the order in which they are folded."""
    chosen = [i for i in range(len(facts)) if counted[i] <= until]
    if sort:
        chosen.sort(key=lambda i: (counted[i], i))
    states: dict[str, Any] = {}
    places: dict[str, list[int]] = {}
    for i in chosen:
        till, euros, _, of = facts[i]
        states[till] = evolved(states.get(till, TillAsRecorded()), CashCounted(euros) if of is None else CountCorrected(euros))
        places.setdefault(till, []).append(i + 1)
    return [(till, s.sum, s.last, s.times, s.corrected) for till, s in sorted(states.items())], places


@pytest.mark.parametrize("layout", LAYOUTS)
@given(FACTS, st.integers(-5, 5))
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_each_fold_sees_the_events_as_it_says(layout: str, facts: list[tuple[str, int, int, int | None]], until: int) -> None:
    with written(facts, layout) as (lab, since), pytest.MonkeyPatch.context() as patched:
        patched.setattr(run, "_SMALL", 0)
        moment = lab.at(occurred=NOON + dt.timedelta(minutes=until))
        for model, counted, sort in (
            (TillAsRecorded, [of for of, _ in since], False), (TillSorted, [of for of, _ in since], True),
            (TillCorrected, [of for _, of in since], False), (TillOfBoth, [of for _, of in since], True),
        ):  # fmt: skip
            rows, places = expected(facts, counted, until, sort=sort)
            names = ["_id", "sum", "last", "times", "corrected"]
            for engine in ("auto", "rows", "loop", "lifted"):
                table = moment.table(model, engine=engine)
                assert table.select(names).rows() == rows
                assert table["_position"].to_list() == [places[row[0]][-1] for row in rows]
            shown = moment.sql(f"select * from state.{model_of(model).name} order by 1")
            assert shown.select(names).rows() == rows
            assert shown["_position"].to_list() == [places[row[0]][-1] for row in rows]
            versions = moment.versions(model)
            found = {till: versions.filter(pl.col("_id") == till)["_position"].to_list() for till in places}
            assert found == places
            for till in places:
                history = moment.history(model, till, "sum")
                assert set(history["position"]) <= set(places[till])
                assert history["value"].to_list()[-1] == next(row[1] for row in rows if row[0] == till)
                row = next(row for row in rows if row[0] == till)
                assert moment.debug(model, till).run().state == replace(model(), **dict(zip(names[1:], row[1:], strict=True)))
        assert len(moment.read()) == sum(of <= until for of, _ in since), "reading is by occurrence, whatever folds say"
        # What was known is the log's order, whatever a fold says of occurrences.
        assert lab.table(TillSorted).drop("_version").equals(lab.table(TillCorrected).drop("_version"))


def test_an_aggregate_that_is_sorted_is_as_if_each_event_had_been_recorded_when_it_occurred() -> None:
    @el.aggregate(name="hindsight_order", late="sorted")
    class HindsightOrder:
        last: int | None = None

        def evolve(self, event: CashCounted) -> Self:
            return replace(self, last=event.euros)

    with el.scratch() as lab:
        lab.append("hindsight_order-1", [CashCounted(2)], occurred_at=NOON + dt.timedelta(minutes=2))
        lab.append("hindsight_order-1", [CashCounted(1)], occurred_at=NOON + dt.timedelta(minutes=1))
        assert lab.load(HindsightOrder, "1").last == 1
        moment = lab.at(occurred=NOON + dt.timedelta(minutes=9))
        loaded = moment.loaded(HindsightOrder, "1")
        assert (loaded.state.last, loaded.version, loaded.position) == (2, 2, 1)
        found = moment.intervals(HindsightOrder)
        assert found.select("last", "_from", "_to", "_position").rows() == [
            (1, NOON + dt.timedelta(minutes=1), NOON + dt.timedelta(minutes=2), 2), (2, NOON + dt.timedelta(minutes=2), None, 1),
        ]  # fmt: skip
        assert moment.audit(HindsightOrder, "1")["position"].to_list() == [2, 1]
        assert moment.sql("select * from state.hindsight_order_intervals()")["_position"].to_list() == [2, 1]
        assert lab.at(occurred=NOON).load(HindsightOrder, "1").last is None
        assert lab.at(basis=moment.basis).load(HindsightOrder, "1").last == 2


def test_what_is_declared_is_checked() -> None:
    with pytest.raises(ModelError, match="late='yes'"):

        @el.aggregate(late="yes")  # type: ignore[arg-type]
        class Undecided:
            n: int = 0

            def evolve(self, event: CashCounted) -> Self:
                return self

    with pytest.raises(ModelError, match="int is not an event"):

        @el.aggregate(corrections=[int])
        class Uncorrected:
            n: int = 0

            def evolve(self, event: CashCounted) -> Self:
                return self
