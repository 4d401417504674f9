"""Every version by scans of columns: sums, last and first values, greatest and least, in stages, equal to the row fold's."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from replay.lift.hostile import agree, logs, written

import eventlab as el
from eventlab.model.models import model_of
from eventlab.replay.lift import fold_versions, run
from eventlab.replay.lift.running import NotScanned, Program


@el.event
class GaugeSampled:
    """A gauge was read."""

    level: int
    price: el.Money
    note: str | None


@el.event
class GaugeZeroed:
    """It was set back."""

    to: el.Money
    at: dt.datetime | None


@el.event
class GaugeNamed:
    """It was given a name."""

    name: str


GaugeEvent = GaugeSampled | GaugeZeroed | GaugeNamed


@el.aggregate(name="pressure_gauge")
class Gauge:
    """A leaf of every kind that runs; three strata."""

    kind: str = "gauge"
    name: str = "unnamed"
    first_note: str | None = None
    note: str | None = "none yet"
    reset_at: dt.datetime | None = None
    spent: el.Money = el.money(7)
    since: el.Money = el.money(0)
    highest: el.Money = el.money(1)
    lowest: int | None = None
    above: int = 0
    loud: bool = False
    dear_when: str = ""

    def evolve(self, event: GaugeEvent) -> Self:
        match event:
            case GaugeSampled(level=level, price=price, note=note):
                since = self.since + price
                return replace(
                    self,
                    note=note,
                    first_note=note if self.first_note is None else self.first_note,
                    spent=self.spent + price,
                    since=since,
                    highest=max(self.highest, since),
                    lowest=level if self.lowest is None else min(self.lowest, level),
                    above=self.above + 1 if self.loud else self.above,
                    dear_when=self.name if since > 10 else self.dear_when,
                )
            case GaugeZeroed(to=to, at=at):
                return replace(self, since=to, reset_at=at, loud=self.since > 3)
            case GaugeNamed(name=name):
                return replace(self, name=name)
        return self


@el.aggregate(name="pressure_gauge")
class StrictGauge:
    """It raises where a level is nothing, and where a name comes too late."""

    total: int = 0
    named: int = 0

    def evolve(self, event: GaugeEvent) -> Self:
        match event:
            case GaugeSampled(level=level):
                return replace(self, total=self.total + 100 // level)
            case GaugeNamed():
                if self.total > 1_000:
                    raise ValueError("too late")
                return replace(self, named=self.named + 1)
        return self


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch) -> list[Program]:
    """The programs that were written, however small the log."""
    monkeypatch.setattr(run, "_SMALL", 0)
    found: list[Program] = []
    whole = run.Running.program

    def noted(*given: Any, **more: Any) -> Program:
        found.append(whole(*given, **more))
        return found[-1]

    monkeypatch.setattr(run.Running, "program", noted)
    return found


@pytest.mark.parametrize("model", [Gauge, StrictGauge], ids=lambda cls: cls.__name__)
@pytest.mark.parametrize("layout", ["memory", "hot", "sealed", "mixed", "compacted", "eras"])
@settings(max_examples=12, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_scans_give_what_the_row_fold_gives(
    model: type[Any], layout: str, data: st.DataObject, programs: list[Program], tmp_path_factory: pytest.TempPathFactory
) -> None:
    facts = data.draw(logs(model))
    folder = None if layout == "memory" else tmp_path_factory.mktemp("log") / "store"
    with written(facts, layout, folder) as lab:
        cut = lab.store.cut()
        until = data.draw(st.integers(0, cut.head))
        agree(model_of(model), cut, "default", until, ("loop", "auto", "lifted?"), fold=fold_versions)


def test_a_leaf_is_computed_when_what_it_reads_is_there(programs: list[Program], tmp_path: Path) -> None:
    facts: list[tuple[str, Any]] = [
        ("pressure_gauge-b", GaugeSampled(5, el.money(4), None)),
        ("pressure_gauge-a", GaugeSampled(3, el.money("2.50"), "a")),
        ("pressure_gauge-b", GaugeZeroed(el.money(-1), None)),
        ("pressure_gauge-b", GaugeSampled(2, el.money(12), "b")),
        ("pressure_gauge-a", GaugeNamed("A")),
        ("pressure_gauge-a", GaugeSampled(9, el.money(9), "c")),
    ]
    with written(facts, "compacted", tmp_path / "store") as lab:
        agree(model_of(Gauge), lab.store.cut(), "default", lab.head, ("lifted",), fold=fold_versions)
        assert len(programs[-1].stages) == 2
        # One field alone needs one stage, and nothing of the others.
        of_one = fold_versions(model_of(Gauge), lab.store.cut(), "default", lab.head, engine="lifted", fields=["spent"])
        assert (len(programs[-1].scans), len(programs[-1].stages)) == (1, 0)
        assert of_one.column("spent").to_pylist() == [el.money(v) for v in ("9.50", "9.50", "18.50", "11", "11", "23")]


def test_windows_stay_where_a_scan_would_not_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*given: Any, **more: Any) -> Any:
        raise NotScanned

    facts = [("pressure_gauge-b", GaugeSampled(5, el.money(4), None)), ("pressure_gauge-a", GaugeSampled(3, el.money(2), "a"))]
    with written(facts, "sealed", tmp_path / "store") as lab:
        cut, model = lab.store.cut(), model_of(Gauge)
        scanned = fold_versions(model, cut, "default", cut.head, engine="lifted")
        monkeypatch.setattr(run.Running, "program", none)
        assert fold_versions(model, cut, "default", cut.head, engine="lifted").equals(scanned)


@el.aggregate(name="pressure_gauge")
class LiteralGauge:
    """Text that looks like what the stages are written with."""

    first: str = "pre1"
    total: int = 0
    said: str = "post0, pre99"
    odd: str = ""

    def evolve(self, event: GaugeEvent) -> Self:
        match event:
            case GaugeSampled(level=level):
                said = 'it\'s "pre7" here' if self.total > 2 else "pre99 and type = 'GaugeNamed'"
                return replace(self, total=self.total + level, said=said)
            case GaugeNamed(name=name):
                return replace(self, first="pre3", odd=self.said if name == "pre2" else "value0")
        return self


def test_what_text_says_is_no_part_of_the_program(programs: list[Program], tmp_path: Path) -> None:
    facts: list[tuple[str, Any]] = [
        ("pressure_gauge-a", GaugeSampled(3, el.money(1), None)),
        ("pressure_gauge-a", GaugeNamed("pre2")),
        ("pressure_gauge-a", GaugeSampled(3, el.money(1), None)),
        ("pressure_gauge-b", GaugeNamed("x")),
        ("pressure_gauge-a", GaugeNamed("pre2")),
    ]
    with written(facts, "compacted", tmp_path / "store") as lab:
        found = agree(model_of(LiteralGauge), lab.store.cut(), "default", lab.head, ("lifted",), fold=fold_versions)
        assert found.column("odd").to_pylist() == ["", "pre99 and type = 'GaugeNamed'", "pre99 and type = 'GaugeNamed'",
                                                   'it\'s "pre7" here', "value0"]  # fmt: skip
        assert programs, "it is a program, and not windows"
