"""Names that the fold compiler uses itself are no matter: a modeller may call a field whatever Python allows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple, Self

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from replay.lift.hostile import agree, logs, written

import eventlab as el
from eventlab.model.models import model_of
from eventlab.replay.lift import fold_versions


@el.event
class OddlyNamed:
    """Fields with names that columns of the log, or steps of a query, have."""

    stream: str
    position: int
    version: int
    type: str
    tenant: int
    k0: int
    e: int
    found: str = ""
    select: int = 0


@el.aggregate
class Plain:
    """Fields as the event has them, and as a query calls its steps."""

    stream: str = ""
    position: int = 0
    version: int = 0
    type: str = ""
    category: str = ""
    tenant: int = 0
    k0: int = 0
    own0: int = 0
    rank0: int = 1_000
    item: int = 0
    g: int = 0
    e: int = 0
    found: str = ""
    select: int = 0
    meta: int = 0
    kept: frozenset[str] = frozenset()

    def evolve(self, event: OddlyNamed, meta: el.Meta) -> Self:
        return replace(
            self, stream=event.stream, position=event.position, version=meta.version, type=event.type, category=meta.stream,
            tenant=max(self.tenant, event.tenant), k0=self.k0 + event.k0, own0=self.own0 + 1,
            rank0=min(self.rank0, event.position), item=self.item + event.e, g=event.e,
            e=event.e, found=event.found, select=event.select, meta=meta.position,
            kept=self.kept | {event.stream},
        )  # fmt: skip


@el.aggregate
class Running:
    """Fields that are read after they were written: the query runs windows in steps."""

    stream: int = 0
    position: str = ""
    pre0: int = 0
    post0: int = 0
    sum0: int = 0
    held: dict[str, int] = el.field(default_factory=dict)

    def evolve(self, event: OddlyNamed) -> Self:
        return replace(
            self, stream=self.stream + event.k0, position=event.stream, pre0=max(self.pre0, self.stream), post0=event.e,
            sum0=self.sum0 + self.post0, held={**self.held, event.type: event.position},
        )  # fmt: skip


class Key(NamedTuple):
    """Columns with such names too."""

    stream: str
    version: int


@el.projection
class Keyed:
    """Key and fields named as the query's own keys."""

    k0: int = 0
    k1: int = 0
    position: int = 0

    @staticmethod
    def key(event: OddlyNamed) -> Key:
        return Key(event.stream, event.tenant)

    def evolve(self, event: OddlyNamed) -> Self:
        return replace(self, k0=event.k0, k1=self.k1 + event.k0, position=max(self.position, event.position))


@pytest.mark.parametrize("model", [Plain, Running, Keyed])
@given(data=st.data())
@settings(max_examples=25)
def test_fields_may_be_named_as_what_the_compiler_names(model: type[Any], data: st.DataObject) -> None:
    facts, of = data.draw(logs(model)), model_of(model)
    with written(facts, "memory", None) as lab:
        cut = lab.store.cut()
        agree(of, cut, "default", cut.head)
        agree(of, cut, el.ALL, cut.head)
        agree(of, cut, "default", cut.head, fold=fold_versions)


@pytest.mark.parametrize("model", [Plain, Running, Keyed])
def test_they_are_a_query_all_the_same(model: type[Any], tmp_path: Any) -> None:
    facts = [
        (f"{model_of(model).category or 'thing'}-{i % 3}", OddlyNamed("abc"[i % 3], 9 - i, i, "xyz"[i % 2], i % 2, i, -i))
        for i in range(12)
    ]
    of = model_of(model)
    for layout in ("mixed", "compacted"):
        with written(facts, layout, tmp_path / layout) as lab:
            cut = lab.store.cut()
            agree(of, cut, "default", cut.head, engines=("loop", "lifted"))
            agree(of, cut, "default", cut.head, engines=("loop", "lifted?"), fold=fold_versions)
