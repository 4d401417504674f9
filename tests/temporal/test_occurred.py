"""The other clock: what had occurred by a moment, against a plain fold of those events."""

from __future__ import annotations

import datetime as dt
import tempfile
from dataclasses import replace
from typing import Any, Self

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import eventlab as el
from eventlab.errors import InvalidValue
from eventlab.replay.lift import run

NOON = dt.datetime(2026, 5, 1, 12, tzinfo=dt.UTC)


@el.event(name="occurred.Weighed")
class GrainWeighed:
    """Grain was weighed."""

    kilos: int


@el.aggregate(name="occurred_silo")
class Silo:
    kilos: int = 0
    last: int | None = None

    def evolve(self, event: GrainWeighed) -> Self:
        return replace(self, kilos=self.kilos + event.kilos, last=event.kilos)


EVENTS = st.lists(st.tuples(st.sampled_from("ab"), st.integers(1, 9), st.integers(-5, 5)), min_size=1, max_size=12)


@given(EVENTS, st.sampled_from(["hot", "sealed", "mixed", "compacted"]), st.integers(-6, 6))
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_it_is_the_fold_of_what_had_occurred_in_the_order_of_the_log(
    events: list[tuple[str, int, int]], layout: str, minutes: int
) -> None:
    small, run._SMALL = run._SMALL, 0  # type: ignore[misc]
    try:
        with tempfile.TemporaryDirectory() as folder, el.open(folder, maintain=False) as lab:
            for at, (silo, kilos, when) in enumerate(events):
                lab.append(f"occurred_silo-{silo}", [GrainWeighed(kilos)], occurred_at=NOON + dt.timedelta(minutes=when))
                if layout == "mixed" and at == len(events) // 2:
                    lab.seal()
            if layout in ("sealed", "compacted"):
                lab.seal()
            if layout == "compacted":
                lab.compact(all=True)
            lab.rebuild(Silo)
            moment = lab.at(occurred=NOON + dt.timedelta(minutes=minutes))
            expected: dict[str, list[int]] = {}
            for silo, kilos, when in events:
                if when <= minutes:
                    row = expected.setdefault(silo, [0, 0])
                    row[:] = row[0] + kilos, kilos
            wanted = [(silo, *row) for silo, row in sorted(expected.items())]
            for engine in ("auto", "rows", "loop", "lifted"):
                assert moment.table(Silo, engine=engine).select("_id", "kilos", "last").rows() == wanted
            for silo in "ab":
                kilos, last = expected.get(silo, [0, None])
                assert moment.load(Silo, silo) == Silo(kilos, last)
            assert len(moment.read()) == sum(when <= minutes for _, _, when in events)
            total = moment.sql("select coalesce(sum(kilos), 0) from types.occurred_weighed").item()
            assert total == sum(kilos for _, kilos, when in events if when <= minutes)
            assert moment.sql("select _id, kilos from state.occurred_silo order by 1").rows() == [row[:2] for row in wanted]
            assert (moment.basis.clock, moment.basis.position) == ("occurred", lab.head)
    finally:
        run._SMALL = small  # type: ignore[misc]


def test_a_correction_that_was_recorded_late_counts_from_when_it_occurred() -> None:
    with el.scratch() as lab:
        lab.append("occurred_silo-a", [GrainWeighed(90)], occurred_at=NOON)
        lab.append("occurred_silo-a", [GrainWeighed(-81)], occurred_at=NOON + dt.timedelta(minutes=1))
        lab.append("occurred_silo-a", [GrainWeighed(1)], occurred_at=NOON + dt.timedelta(hours=1))
        assert lab.at(position=1).load(Silo, "a").kilos == 90
        time = lab.read().list()[0].recorded_at
        assert lab.at(recorded=time).position == lab.at(time).position
        with pytest.raises(InvalidValue, match="which are the same"):
            lab.at(time, recorded=time)
        moment = lab.at(occurred="2026-05-01T12:30Z")
        assert moment.load(Silo, "a").kilos == 9
        assert "occurred 2026-05-01T12:30:00Z" in repr(moment)
        assert lab.at(occurred="2026-05-01T08:30", tz="America/New_York").load(Silo, "a").kilos == 9


def test_a_moment_is_named_in_one_way(tmp_path: Any) -> None:
    with el.scratch() as lab:
        for given_ in ({}, {"position": 1, "occurred": NOON}, {"time": NOON, "occurred": NOON}):
            with pytest.raises(InvalidValue, match="takes one of a time"):
                lab.at(**given_)
        assert lab.at(occurred=NOON).table(Silo).equals(pl.DataFrame(lab.table(Silo)))
