"""Projections written by hand, as SQL or as a function of Polars frames: computed whole, with the life of any other.

A fold says what one event changes, so it can go on from where it was; a query says what the whole is, and is asked again.
"""

from __future__ import annotations

import hashlib
import inspect
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

import pyarrow as pa

from eventlab.errors import ModelError, Outrun
from eventlab.model.filters import EVERYTHING, Filter
from eventlab.model.names import check_plain
from eventlab.model.source import code_fingerprint
from eventlab.projections.read_models import Rebuilt
from eventlab.store.base import Cut, Store

if TYPE_CHECKING:
    import polars as pl


class Sources(Protocol):
    """What a projection written by hand is given to read: the log as of one moment."""

    def query(self, text: str) -> pa.Table:
        """The answer to a query."""
        ...

    def events(self, filter: Filter) -> pl.LazyFrame:
        """Events as a frame."""
        ...


@dataclass(frozen=True)
class Handmade:
    """A projection that is a query or a function of frames; `lab.table`, `rebuild`, `accept` and `state.<name>` take it."""

    name: str
    kind: Literal["sql", "frame"]
    key: tuple[str, ...]
    made_by: Any
    filter: Filter
    fingerprint: str
    reference: str

    def __repr__(self) -> str:
        return f"{self.kind}_projection({self.name!r}, key={list(self.key)})"

    def table(self, sources: Sources) -> pa.Table:
        """Its rows, sorted by key; `ModelError` where a key is missing or occurs twice."""
        asked = sources.query(self.made_by) if self.kind == "sql" else self.made_by(sources.events(self.filter))
        found = asked if isinstance(asked, pa.Table) else _collected(asked, self)
        missing = [name for name in self.key if name not in found.column_names]
        if missing:
            raise ModelError(
                f"the projection {self.name!r} has no column {missing[0]!r}, which is its key",
                hint=f"its columns are {', '.join(found.column_names)}",
            )
        keys = found.select(list(self.key))
        if len(keys.group_by(list(self.key)).aggregate([])) != len(keys):
            raise ModelError(
                f"rows of the projection {self.name!r} have the same {', '.join(self.key)}", hint="key=[…] names its rows"
            )
        return found.sort_by([(name, "ascending") for name in self.key]).combine_chunks()


def renew(
    of: Handmade, store: Store, tenant: str, table: Callable[[Cut, int], pa.Table], *, only_new: bool
) -> Rebuilt:
    """Compute it as of the head, and swap that in; with `only_new`, not where nothing was appended since."""
    started = time.perf_counter()
    while True:
        cut = store.cut()
        base = next((b for b in store.read_models.of(tenant, of.name) if b.fingerprint == of.fingerprint), None)
        before = 0 if base is None else base.position
        if base is None or not only_new or before < cut.head:
            try:
                base = store.read_models.save(of.name, tenant, of.fingerprint, cut.head, table(cut, cut.head), keys=of.key)
            except Outrun:
                continue
        seconds = time.perf_counter() - started
        events = cut.head - (before if only_new else 0)
        return Rebuilt(of.name, events, base.rows, base.position, seconds, base.size, base.state)


#: The projections written by hand of this process, by name.
HANDMADE: Final[dict[str, Handmade]] = {}


def sql_projection(name: str, text: str, *, key: str | Sequence[str]) -> Handmade:
    """A projection that is a query over `events`, `types` and `state`; `key` names the columns that tell its rows apart.

    >>> import eventlab as el
    >>> @el.event
    ... class Sold:
    ...     "Something was sold."
    ...     item: str
    ...     amount: int
    >>> lab = el.scratch()
    >>> done = lab.append("till-1", [Sold("hat", 3), Sold("hat", 4), Sold("tie", 1)])
    >>> items = el.sql_projection("items", "select item, sum(amount)::bigint as total from types.sold group by item", key="item")
    >>> lab.table(items).rows()
    [('hat', 7), ('tie', 1)]
    """
    print_ = hashlib.blake2b(repr((text, _keys(key))).encode(), digest_size=16).hexdigest()
    caller = sys._getframe(1).f_globals.get("__name__", "?")
    return _known(Handmade(_named(name), "sql", _keys(key), text, EVERYTHING, print_, f"{caller}:{name}"))


def frame_projection(
    *, key: str | Sequence[str], name: str | None = None, events: Filter = EVERYTHING
) -> Callable[[Callable[[pl.LazyFrame], Any]], Handmade]:
    """A projection that is a function: it takes the events as a Polars LazyFrame, and gives a LazyFrame or DataFrame.

    >>> import eventlab as el, polars as pl
    >>> @el.event
    ... class Sold:
    ...     "Something was sold."
    ...     item: str
    ...     amount: int
    >>> @el.frame_projection(key="item", events=el.events(Sold))
    ... def best(events):
    ...     return events.group_by("item").agg(pl.col("amount").max())
    >>> lab = el.scratch()
    >>> done = lab.append("till-1", [Sold("hat", 3), Sold("hat", 4), Sold("tie", 1)])
    >>> lab.sql("select * from state.best order by item").rows()
    [('hat', 4), ('tie', 1)]
    """

    def wrap(function: Callable[[pl.LazyFrame], Any]) -> Handmade:
        of = _named(name or function.__name__)
        # What a function reaches is told as that of a class's methods, so it is given one.
        owner = type(of, (), {"__module__": function.__module__})
        print_, _ = code_fingerprint({"frame": function}, f"frame;{of};{_keys(key)};{events}", owner)  # type: ignore[dict-item]
        where = f"{function.__module__}:{function.__qualname__}"
        return _known(Handmade(of, "frame", _keys(key), function, events, print_, where))

    return wrap


def _named(name: str) -> str:
    check_plain(name, "projection")
    if not name.isidentifier():
        raise ModelError(f"{name!r} cannot be the name of a view in SQL", hint="letters, digits and underscores")
    return name


def _keys(key: str | Sequence[str]) -> tuple[str, ...]:
    names = (key,) if isinstance(key, str) else tuple(key)
    if not names:
        raise ModelError("a projection has a key: the columns that tell its rows apart", hint='key="day"')
    return names


def _known(made: Handmade) -> Handmade:
    other = HANDMADE.get(made.name)
    if other is not None and other.reference != made.reference:
        raise ModelError(f"there are two projections called {made.name!r}: {other.reference} and {made.reference}")
    HANDMADE[made.name] = made
    return made


def _collected(found: Any, of: Handmade) -> pa.Table:
    import polars as pl

    if isinstance(found, pl.LazyFrame):
        found = found.collect()
    if not isinstance(found, pl.DataFrame):
        raise ModelError(
            f"the projection {of.name!r} gave a {type(found).__name__} ({inspect.getsourcefile(of.made_by)})",
            hint="it gives a Polars LazyFrame or DataFrame",
        )
    return found.to_arrow(compat_level=pl.CompatLevel.oldest())
