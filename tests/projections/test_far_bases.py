"""Where much happened since a base, the query folds everything anew: sooner, and with the same rows."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Self

import pytest

import eventlab as el
from eventlab.model.models import model_of
from eventlab.projections import read_models
from eventlab.replay.lift import fold_table


@el.event
class PennyDropped:
    """Somebody put money in."""

    cents: int


@el.event
class JarBroken:
    """It is counted from nothing again."""


@el.aggregate
class Jar:
    """A jar of coins."""

    cents: int = 0
    broken: int = 0

    def evolve(self, event: PennyDropped | JarBroken) -> Self:
        match event:
            case PennyDropped(cents=cents):
                return replace(self, cents=self.cents + cents)
            case JarBroken():
                return replace(self, cents=0, broken=self.broken + 1)
        return self


@pytest.mark.parametrize("compacted", [False, True])
def test_the_rows_are_the_same_whichever_way_is_quicker(
    compacted: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read_models, "MANY", 10)
    folded: list[int] = []
    monkeypatch.setattr(read_models, "fold_table", lambda *a, **k: folded.append(k.get("after", 0)) or fold_table(*a, **k))
    chance = random.Random(5)
    with el.open(tmp_path / "jars", maintain=False) as lab:

        def more(count: int) -> None:
            for _ in range(count):
                event = JarBroken() if chance.random() < 0.1 else PennyDropped(chance.randrange(100))
                lab.append(f"jar-{chance.randrange(9)}", [event])

        def wanted() -> object:
            return fold_table(model_of(Jar), lab.store.cut(), "default", lab.head, engine="rows")

        more(100)
        if compacted:
            lab.seal()
            lab.compact(all=True)
        assert lab.table(Jar).to_arrow().num_rows == wanted().num_rows  # type: ignore[attr-defined]
        assert folded[-1] == 0
        more(9)
        lab.table(Jar)
        assert folded[-1] == 100, "few events: on from the base"
        more(90)
        found = lab.table(Jar)
        assert folded[-1] == 0, "many: the query over everything"
        assert found.rows() == [tuple(row.values()) for row in wanted().to_pylist()]  # type: ignore[attr-defined]
