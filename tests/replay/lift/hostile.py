"""Logs for the folds of the gallery: events with hostile values, in several layouts, and the comparison of the engines."""

from __future__ import annotations

import contextlib
import datetime as dt
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

import eventlab as el
from eventlab.errors import EventlabError
from eventlab.model.events import EventType, event_type
from eventlab.model.models import Model, model_of
from eventlab.model.types import MOMENT_MAX, MOMENT_MIN, Closed, FieldType, Record
from eventlab.replay.lift import fold_table
from eventlab.replay.lift.types import item_of
from eventlab.store.base import Cut
from eventlab.testing.strategies import values

START = dt.datetime(2026, 3, 28, 20, tzinfo=dt.UTC)  # the clocks of Berlin change in the night after
_SMALL: dict[str, st.SearchStrategy[Any]] = {
    "i64": st.integers(-6, 12) | st.integers(-2000, 2000),
    "s": st.sampled_from(["", "a", "b", " a ", "B", "ß", "größe", "DE", "FR", "😀", "a-b"]),
    "d18_2": st.integers(-500, 500) | st.sampled_from([5, 15, 25, -5, 10**9, 123_456]),
    "ts": st.integers(1_770_000_000_000_000, 1_770_000_100_000_000) | st.integers(0, 10**15),
    "d": st.integers(20_000, 20_010),
    "f64": st.sampled_from([0.0, -0.0, 0.1, 0.2, 0.3, 1e16, -1.0, 2.5]),
}


def values_of(kind: FieldType, wild: bool) -> st.SearchStrategy[Any]:
    """Python values of a field."""
    found = _of(kind, wild)
    return st.none() | found if kind.nullable else found


def _of(kind: FieldType, wild: bool) -> st.SearchStrategy[Any]:
    if isinstance(kind, Closed):
        return st.sampled_from(list(kind.members.values()))
    if isinstance(kind, Record):
        return st.builds(kind.cls, *(values_of(of, wild) for _, of in kind.fields))
    item = item_of(kind)
    if item is not None:
        if kind.tag.startswith("m_"):
            return st.dictionaries(st.sampled_from(["", "a", "ß"]), values_of(item, wild), max_size=3)
        listed = st.lists(values_of(item, wild), max_size=3)
        return listed.map(frozenset) if "set[" in kind.declared else listed.map(tuple)
    stored = _SMALL.get(kind.tag, values(kind.tag))
    if wild:
        stored = stored | values(kind.tag)
        if kind.tag == "ts":
            stored = stored.filter(lambda us: MOMENT_MIN <= us <= MOMENT_MAX)
    if kind.tag == "f64" and kind.declared.startswith("float"):
        stored = stored.filter(lambda x: x == x and abs(x) != float("inf"))
    return stored.map(kind.decode)


def events_of(cls: type[Any], wild: bool) -> st.SearchStrategy[Any]:
    """Events of a class."""
    kinds = dict(event_type(cls).fields)
    return st.builds(cls, *(values_of(kinds[f.name], wild) for f in fields(cls)))


def logs(model: type[Any], among: Sequence[type[Any]] = (), max_size: int = 14) -> st.SearchStrategy[list[tuple[str, Any]]]:
    """Facts for one model: events that it handles and others, in streams of its category and of others."""
    of = model_of(model)
    seen = [*(of.handled or ()), *((of.source.handled or ()) if of.source is not None else ())]
    handled = list(dict.fromkeys(kind.cls for kind in seen)) or list(among)
    others = list(among)[:2]
    category = of.read_category or "thing"
    streams = st.sampled_from([f"{category}-1", f"{category}-2", f"{category}-ä-3", f"{category}-1", "other-1"])

    def of_wildness(wild: bool) -> st.SearchStrategy[list[tuple[str, Any]]]:
        event = st.one_of(*(events_of(cls, wild) for cls in handled), *(events_of(cls, wild) for cls in others))
        return st.lists(st.tuples(streams, event), max_size=max_size)

    return st.sampled_from([False, False, True]).flatmap(of_wildness)


@contextlib.contextmanager
def written(
    facts: Sequence[tuple[str, Any]], layout: str, folder: Path | None, minutes: Sequence[int] = (47,)
) -> Iterator[el.Lab]:
    """A lab with these facts: in memory, hot on disk, sealed, half and half, compacted, or in two eras.

    So many minutes pass before each of them, over and over.
    """
    ticks = itertools.accumulate((dt.timedelta(minutes=n) for n in itertools.cycle(minutes)), initial=START)
    lab = el.scratch(clock=lambda: next(ticks), seed=1) if folder is None else el.open(folder, clock=lambda: next(ticks))
    with lab:
        for i, (stream, event) in enumerate(facts):
            with el.context(actor=[None, "ann", "bob"][i % 3]):
                lab.append(stream, [event])
            if layout in ("mixed", "eras") and i == len(facts) // 2:
                lab.seal()
                if layout == "eras":
                    lab.store.compact(all=True, positions=1)
        if layout in ("sealed", "compacted", "eras"):
            lab.seal()
        if layout in ("compacted", "eras"):
            lab.store.compact(all=True, positions=1)  # an era is not taken up by the next one
        yield lab


def answer(model: Model, cut: Cut, tenant: Any, until: int, engine: str, fold: Any = fold_table, **more: Any) -> Any:
    """The table, or the error in words."""
    try:
        return fold(model, cut, tenant, until, engine=engine, **more)
    except EventlabError as why:
        return type(why).__name__, why.message, why.facts.get("position")


def agree(
    model: Model, cut: Cut, tenant: Any, until: int, engines: Sequence[str] = ("loop", "auto", "lifted?"), fold: Any = fold_table
) -> Any:
    """Every engine gives what the row fold gives: equal values, types and descriptions, or the same error.

    `lifted?` may also say that it does not lift over this log.
    """
    meant = answer(model, cut, tenant, until, "rows", fold)
    for engine in engines:
        found = answer(model, cut, tenant, until, engine.rstrip("?"), fold)
        if engine.endswith("?") and isinstance(found, tuple) and found[0] == "NotLiftable":
            continue
        if isinstance(meant, tuple) or isinstance(found, tuple):
            assert found == meant, f"{engine}: {found} is not {meant}"
            continue
        assert found.schema.equals(meant.schema, check_metadata=True), f"{engine}: {found.schema} is not {meant.schema}"
        assert shown(found) == shown(meant), f"{engine}: {shown(found)} is not {shown(meant)}"
    return meant


def shown(table: Any) -> list[dict[str, Any]]:
    """Rows as Python values; NaN is written as text, to be equal to itself."""
    return [{k: "NaN" if isinstance(v, float) and v != v else v for k, v in row.items()} for row in table.to_pylist()]


def kinds_of(model: Model) -> list[EventType]:
    """The event types of a model."""
    return list(model.handled or ())
