"""A process that does not have a model's code reads its table all the same: current where that is sure, else with a warning."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import pytest

import eventlab as el
from eventlab.store.verify import verify


@el.event
class BulbLit:
    """A bulb was lit."""

    hours: int


@el.event
class BulbBroken:
    """A bulb went out for ever."""


@el.event
class BulbDusted:
    """No model takes it."""


@el.aggregate(name="bulb")
class Bulb:
    hours: int = 0
    longest: int = 0
    broken: bool = False

    def evolve(self, event: BulbLit | BulbBroken) -> Self:
        match event:
            case BulbLit(hours=hours):
                return replace(self, hours=self.hours + hours, longest=max(self.longest, hours))
            case BulbBroken():
                return replace(self, broken=True)
        return self


@el.projection(name="lit_for")
class LitFor:
    """How many lamps were lit for so many hours."""

    lamps: int = 0

    @staticmethod
    def key(event: BulbLit) -> str:
        return f"{event.hours} h"

    def evolve(self, event: BulbLit) -> Self:
        return replace(self, lamps=self.lamps + 1)


CODE = """
import json, sys, warnings
import eventlab as el
with warnings.catch_warnings(record=True) as said, el.open(sys.argv[1], maintain=False) as lab:
    warnings.simplefilter("always")
    at = lab if len(sys.argv) < 4 else lab.at(position=int(sys.argv[3]))
    rows = at.sql(f"select * from state.{sys.argv[2]} order by 1").rows()
    json.dump([rows, [str(of.message) for of in said]], sys.stdout)
"""


def elsewhere(lab: el.Lab, name: str, *at: int) -> tuple[list[tuple[Any, ...]], list[str]]:
    """The rows and the warnings in a process that has only eventlab."""
    command = [sys.executable, "-c", CODE, str(lab.path), name, *map(str, at)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    rows, said = json.loads(done.stdout)
    return [tuple(row) for row in rows], said


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[el.Lab]:
    with el.open(tmp_path / "log", maintain=False) as lab:
        lab.append("bulb-1", [BulbLit(3), BulbLit(4)])
        lab.append("bulb-2", [BulbLit(3)])
        yield lab


@pytest.mark.parametrize("compacted", [False, True])
def test_the_table_is_current_without_the_code(lab: el.Lab, compacted: bool) -> None:
    lab.rebuild(Bulb)
    lab.rebuild(LitFor)
    if compacted:
        lab.compact(all=True)
    for events in ([BulbLit(9)], [BulbBroken()], [BulbLit(1), BulbLit(4)]):
        lab.append("bulb-2", events)
    lab.append("bulb-3", [BulbLit(2)])
    assert elsewhere(lab, "bulb") == (lab.table(Bulb).rows(), [])
    assert elsewhere(lab, "lit_for") == (lab.table(LitFor).rows(), [])
    assert elsewhere(lab, "bulb", 5) == (lab.at(position=5).table(Bulb).rows(), [])
    base = lab.store.read_models.accepted("default")["bulb"]
    assert (base.position, lab.head) == (3, 8), "nobody moved the base"


def test_where_the_query_has_no_answer_the_base_is_read_and_a_warning_says_so(lab: el.Lab) -> None:
    lab.rebuild(Bulb)
    before = lab.table(Bulb).rows()
    lab.append("bulb-1", [BulbLit(5_000_000_000_000)])
    rows, (said,) = elsewhere(lab, "bulb")
    assert rows == before
    assert "state.bulb is as of position 3 of 4: its code is not here" in said
    lab.rebuild(Bulb)
    lab.append("bulb-1", [BulbLit(6_000_000_000_000)])
    assert elsewhere(lab, "bulb") == (lab.table(Bulb).rows(), []), "the rebuild made room"


def test_a_catch_up_makes_room_when_the_log_has_doubled_or_has_other_types(lab: el.Lab) -> None:
    lab.rebuild(Bulb)

    def head() -> int:
        return int(json.loads(lab.store.read_models.query(lab.store.read_models.accepted("default")["bulb"]) or "{}")["head"])

    lab.append("bulb-1", [BulbLit(1), BulbLit(1)])
    lab.catch_up(Bulb)
    assert (head(), lab.head) == (3, 5)
    lab.append("bulb-1", [BulbLit(5_000_000_000_000), BulbLit(1)])
    lab.catch_up(Bulb)
    assert (head(), lab.head) == (7, 7)
    lab.append("bulb-1", [BulbBroken()])
    lab.catch_up(Bulb)
    assert (head(), lab.head) == (7, 8), "its code takes it, so it was known"
    lab.append("bulb-1", [BulbDusted()])
    lab.catch_up(Bulb)
    assert (head(), lab.head) == (9, 9)
    lab.append("bulb-1", [BulbLit(6_000_000_000_000)])
    assert elsewhere(lab, "bulb") == (lab.table(Bulb).rows(), [])


def test_a_query_that_was_changed_is_none(lab: el.Lab) -> None:
    lab.rebuild(Bulb)
    lab.append("bulb-1", [BulbLit(1)])
    with lab.store._catalog.write() as catalog:  # type: ignore[attr-defined]
        catalog.execute("UPDATE read_model_query SET query = replace(query, 'max(', 'min(')")
    rows, (said,) = elsewhere(lab, "bulb")
    assert rows == [("1", 7, 4, False, 2, 2), ("2", 3, 3, False, 1, 3)]
    assert "no query is stored with it" in said
    assert [of.code for of in verify(lab.store).findings] == ["read-model-query-changed"]  # type: ignore[arg-type]


def test_the_query_goes_with_its_base(lab: el.Lab) -> None:
    lab.rebuild(Bulb)
    base = lab.store.read_models.accepted("default")["bulb"]
    assert lab.store.read_models.query(base) is not None
    lab.store.read_models.drop("bulb", "default", base.fingerprint)
    assert lab.store.read_models.query(base) is None
