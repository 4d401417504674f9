"""Stored queries: what a process without the code makes of a base and the events since is the row fold's, or no answer."""

from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from replay.lift import gallery
from replay.lift.hostile import answer, logs, shown, written

import eventlab as el
from eventlab.model.models import Model, model_of
from eventlab.replay.lift import plan_of
from eventlab.replay.lift.stored import NoAnswer, answered, stored_query
from eventlab.replay.tables import key_names
from eventlab.store.base import Cut
from eventlab.store.read_models import ReadModelBase, base_in_memory


def lifts_whole(cls: type[Any]) -> bool:
    plan = plan_of(model_of(cls))
    return plan.refusal is None and not plan.not_lifted


OTHERS = (gallery.LineAdded, gallery.PointsEarned)
LIFTED = tuple(cls for cls in gallery.MODELS if lifts_whole(cls))


def base_at(of: Model, cut: Cut) -> ReadModelBase | None:
    """A base at the head of a cut; None where the fold raises."""
    table = answer(of, cut, "default", cut.head, "rows")
    if isinstance(table, tuple):
        return None
    return base_in_memory(of.name, "default", of.fingerprint, cut.head, table, key_names(of, "default"))


def asked(of: Model, facts: list[tuple[str, Any]], at: int, layout: str, folder: Path | None) -> str:
    """What became of the question: it was answered, and as the row fold does, or why not."""
    with written(facts[:at], layout, folder) as lab:
        before = lab.store.cut()
        base, text = base_at(of, before), stored_query(plan_of(of, before), before, "default")
        if base is None or text is None:
            return "no base" if base is None else "no query"
        for number, (stream, event) in enumerate(facts[at:]):
            lab.append(stream, [event])
            if number == 2 and folder is not None:
                lab.seal()
        cut = lab.store.cut()
        meant = answer(of, cut, "default", cut.head, "rows")
        try:
            found = answered(text, cut, "default", cut.head, base)
        except NoAnswer as why:
            return str(why)
        assert not isinstance(meant, tuple), f"it was answered, and the fold raises {meant}"
        assert shown(found) == shown(meant)
        return "answered"


@pytest.mark.parametrize("cls", LIFTED, ids=lambda cls: cls.__name__)
@given(data=st.data())
@settings(max_examples=10, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_it_is_the_row_fold_or_no_answer(cls: type[Any], data: st.DataObject) -> None:
    of = model_of(cls)
    facts = data.draw(logs(cls, OTHERS, max_size=20))
    at, layout = data.draw(st.integers(0, len(facts))), data.draw(st.sampled_from(["memory", "hot", "mixed", "compacted"]))
    with tempfile.TemporaryDirectory() as folder:
        asked(of, facts, at, layout, None if layout == "memory" else Path(folder) / "log")


# -- what is answered, and what is not


@el.event
class MeterRead:
    """A meter was read."""

    value: int
    note: str | None = None


@el.event
class MeterReset:
    """It began anew."""

    at: int


@el.aggregate
class Meter:
    """A sum that is set back, the greatest value, and one that decides by another."""

    total: int = 0
    most: int = 0
    notes: frozenset[str] = frozenset()
    high: int = 0

    def evolve(self, event: MeterRead | MeterReset) -> Self:
        match event:
            case MeterRead(value=value, note=note):
                return replace(
                    self, total=self.total + value, most=max(self.most, value), notes=self.notes | {note or "none"},
                    high=self.high + (1 if value > self.most else 0),
                )
            case MeterReset(at=at):
                return replace(self, total=at)
        return self


METER = model_of(Meter)
FACTS: list[tuple[str, Any]] = [
    ("meter-1", MeterRead(3)), ("meter-2", MeterRead(5, "x")), ("meter-1", MeterReset(1)), ("meter-1", MeterRead(4)),
    ("meter-2", MeterRead(2)), ("meter-3", MeterRead(9)), ("meter-1", MeterRead(70_000, "y")),
]  # fmt: skip


@pytest.mark.parametrize("layout", ["memory", "hot", "mixed", "compacted"])
def test_whatever_came_after_the_base_is_folded(layout: str, tmp_path: Path) -> None:
    for at in range(len(FACTS) + 1):
        folder = None if layout == "memory" else tmp_path / f"log-{at}"
        assert asked(METER, FACTS, at, layout, folder) == "answered"


@pytest.fixture
def metered() -> Any:
    """A lab, a base at its fifth event, and the query that was stored with it."""
    with el.scratch() as lab:
        for stream, event in FACTS[:5]:
            lab.append(stream, [event])
        cut = lab.store.cut()
        base, text = base_at(METER, cut), stored_query(plan_of(METER, cut), cut, "default")
        assert base is not None
        assert text is not None
        yield lab, base, text


def refused(metered: Any, **changed: Any) -> str:
    lab, base, text = metered
    said = json.dumps({**json.loads(text), **changed})
    cut = lab.store.cut()
    with pytest.raises(NoAnswer) as why:
        answered(said, cut, "default", cut.head, base)
    return str(why.value)


def test_a_type_that_the_code_does_not_take_changes_nothing(metered: Any) -> None:
    lab, base, text = metered
    lab.append("meter-1", [MeterRead(1)])
    lab.append("meter-2", [MeterPainted("red")])
    cut = lab.store.cut()
    assert shown(answered(text, cut, "default", cut.head, base)) == shown(answer(METER, cut, "default", cut.head, "rows"))


@el.event
class MeterPainted:
    """No model takes it."""

    colour: str


def test_a_version_that_is_not_known_has_no_answer(metered: Any) -> None:
    types = [of for of in json.loads(metered[2])["types"] if of[0] != "MeterReset"]
    assert "does not know MeterReset in version 1" in refused(metered, types=types)


def test_a_value_beyond_what_there_was_room_for_has_no_answer(metered: Any) -> None:
    metered[0].append("meter-1", [MeterRead(2_000_000_000_000)])
    assert "1 stored values are not among those" in refused(metered)


def test_a_longer_log_than_there_was_room_for_has_no_answer(metered: Any) -> None:
    assert "answers for 4 events" in refused(metered, most=4)


def test_another_engine_or_format_has_no_answer(metered: Any) -> None:
    assert "duckdb 0.1" in refused(metered, engine="duckdb 0.1")
    assert "format 99" in refused(metered, format=99)
    assert "is not read here" in refused(metered, fields=None)


def test_stored_text_reads_the_log_and_nothing_else(metered: Any, tmp_path: Path) -> None:
    secret, target = tmp_path / "secret.csv", tmp_path / "written.csv"
    secret.write_text("a\n1\n")
    for sql in (
        f"COPY (SELECT 1) TO '{target}'", f"SELECT * FROM read_csv('{secret}')", f"SELECT * FROM '{secret}'",
        "SELECT 1; SELECT 2", "SET threads = 1", "INSTALL httpfs", "CREATE TABLE x AS SELECT 1",
    ):  # fmt: skip
        metered[0].append("meter-1", [MeterRead(1)])
        assert "found what it does not answer for" in refused(metered, sql=sql)
        assert "found what it does not answer for" in refused(metered, broken=sql)
    assert not target.exists()


def test_a_key_that_stopped_has_no_answer(metered: Any) -> None:
    lab, base, text = metered
    stopped = replace(base, parked=("one",))
    cut = lab.store.cut()
    with pytest.raises(NoAnswer, match="1 of its keys stopped"):
        answered(text, cut, "default", cut.head, stopped)
