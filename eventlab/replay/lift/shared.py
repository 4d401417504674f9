"""Several models from one look at the log: those that a loop or the row fold folds are fed the same batches.

What this saves is the reading: of three folds by the loop over compacted files a quarter. Queries share nothing: the rows of a
part as one table for all of them take as long to make as a query over the files, and a query over that table is not much
quicker (`python tests/benchmarks/sharing.py`).
"""

from __future__ import annotations

import contextlib
import functools
import operator
from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa

from eventlab.model.models import Model
from eventlab.replay.lift import run
from eventlab.replay.lift.loop import Loop
from eventlab.replay.lift.plan import Plan
from eventlab.replay.lift.sources import Abandoned
from eventlab.replay.parking import Parking
from eventlab.replay.rows import RowFold, events_of, looked_at
from eventlab.replay.tables import table_of
from eventlab.store.base import Batch, Cut, Tenant, collector_off, picked


def fold_shared(
    models: Sequence[Model], cut: Cut, tenant: Tenant, until: int, parkings: Sequence[Parking]
) -> list[pa.Table | None]:
    """The tables of several models from one look at the log: those that do not lift are fed the same batches, one after another.

    None for a model that is to be folded by itself: one that lifts, for its query reads only its columns and is done before
    rows could be handed on; and one whose code raised, for the whole of it is looked at again then.
    """
    until = min(until, cut.head)
    fed = {number: of for number, model in enumerate(models) if (of := _shares(model, cut, tenant, until)) is not None}
    found: list[pa.Table | None] = [None] * len(models)
    if len(fed) < 2:
        return found
    filter = functools.reduce(operator.or_, (events_of(of.model) for of in fed.values()))
    envelope = list(dict.fromkeys(name for of in fed.values() for name in of.envelope))
    every = any(of.types is None for of in fed.values())
    types = None if every else sorted({name for of in fed.values() for name in of.types or ()})
    with collector_off():
        for whole in cut.batches(filter, tenant=tenant, until=until, envelope=envelope, types=types):
            for batch in whole.split(run._CHUNK):
                for number, of in list(fed.items()):
                    try:
                        of.feed(batch)
                    except Exception:
                        # Folded by itself it says what was wrong, or parks it.
                        del fed[number]
    for number, of in fed.items():
        with contextlib.suppress(Abandoned):
            found[number] = of.table(run._Whole(of.model, cut, tenant, until, 0, None, parkings[number], None))
    return found


def _shares(model: Model, cut: Cut, tenant: Tenant, until: int) -> _Fed | None:
    """A fold that can be fed what others are fed too; None for one that is quicker, or kept to itself."""
    if model.source is not None:
        return None  # its source is folded beside it
    plan = run._plan(model, cut)
    loop = None if plan is None or not run._decimals_are_usual() else plan.loop
    lifts = plan is not None and plan.refusal is None and (not plan.not_lifted or plan.halves is not None)
    if lifts and (until >= run._SMALL or loop is None):
        return None
    return _FedRows(model, tenant) if plan is None or loop is None else _FedLoop(plan, loop, tenant)



class _Fed:
    """A fold from the first event on that is given batches which others are given too."""

    model: Model
    envelope: Sequence[str]
    #: The types whose payload it reads; None for all.
    types: Sequence[str] | None

    def feed(self, batch: Batch) -> None:
        """Fold what it has to see of a batch."""
        raise NotImplementedError

    def table(self, whole: run._Whole) -> pa.Table:
        """The table of what it was fed."""
        raise NotImplementedError

    def own(self, batch: Batch) -> Batch | None:
        """The events that the model has to see; the same batch where those are all, for then others have its columns decoded."""
        tables, filter = batch.tables, events_of(self.model)
        mine = tuple(picked(of, of.column("stream")[0].as_py().partition("-")[0], filter) for of in tables)
        if all(len(a) == len(b) for a, b in zip(mine, tables, strict=True)):
            return batch
        some = tuple(of for of in mine if len(of))
        return Batch(some, batch.schemas) if some else None


class _FedRows(_Fed):
    """The row fold."""

    def __init__(self, model: Model, tenant: Tenant) -> None:
        self.model, self._tenant = model, tenant
        self.envelope, self.types = looked_at(model)
        self._folding = RowFold(model, tenant)

    def feed(self, batch: Batch) -> None:
        """See `_Fed`."""
        if (mine := self.own(batch)) is not None:
            self._folding.feed(mine)

    def table(self, whole: run._Whole) -> pa.Table:
        """See `_Fed`."""
        return table_of(self.model, self._folding.entries, self._tenant)


class _FedLoop(_Fed):
    """The generated loop."""

    def __init__(self, plan: Plan, loop: Loop, tenant: Tenant) -> None:
        self.model, self._plan, self._loop, self._tenant = plan.model, plan, loop, tenant
        self.envelope, self.types = run.looked_at(plan, loop)
        self._states: dict[Any, list[Any]] = {}
        self._bad: set[Any] = set()
        begin = [*loop.initial, 0, 0]
        self._initial: Callable[[Any], list[Any]] = lambda key: [*begin, key]

    def feed(self, batch: Batch) -> None:
        """See `_Fed`."""
        if (mine := self.own(batch)) is not None:
            run.run_batch(self._plan, self._loop, mine, self._states, self._bad, self._initial, self._tenant)

    def table(self, whole: run._Whole) -> pa.Table:
        """See `_Fed`."""
        return run._of_loop(self._plan, whole, self._states, self._bad)
