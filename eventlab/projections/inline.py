"""Inline read models: moved by each append of this process, in its transaction; small ones, for those who need them at once.

What any other process appends meanwhile is folded by the next append here, or by a catch-up when it is too much.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import pyarrow as pa

from eventlab.errors import EvolveFailed
from eventlab.model.models import Model
from eventlab.model.schema import Schema
from eventlab.projections.read_models import tenant_key
from eventlab.replay.lift import fold_table
from eventlab.replay.parking import Parking
from eventlab.store.base import Row, Tenant
from eventlab.store.memory import MemoryCut
from eventlab.store.read_models import Parked

#: So many rows are left in the catalog before they are written as a file.
FLUSH_ROWS: Final = 1_000


class InlineModel:
    """A model as an append moves it: the events since its base, folded onto the rows they touch."""

    def __init__(self, model: Model, tenant: Tenant) -> None:
        self.model = model
        self._tenant = tenant
        #: Rows that were left in the catalog since they were last written as a file.
        self.left = 0

    @property
    def name(self) -> str:
        """The model's name."""
        return self.model.name

    @property
    def tenant(self) -> str:
        """The tenant as read models know it."""
        return tenant_key(self._tenant)

    @property
    def fingerprint(self) -> str:
        """The fingerprint of its code."""
        return self.model.fingerprint

    def rows(
        self, find: Callable[[pa.Table], pa.Table], events: Sequence[Row], schemas: Mapping[tuple[str, int], Schema],
        parked: Sequence[Parked],
    ) -> tuple[pa.Table, tuple[Parked, ...]]:  # fmt: skip
        """See `store.read_models.Inline`. `EvolveFailed` where an event cannot be taken; a key that stopped before stays so."""
        model, after = self.model, events[0].position - 1
        cut = MemoryCut(tuple(events), schemas, after)
        parking = Parking(model, self._tenant, parked) if parked else None
        try:
            table = fold_table(model, cut, self._tenant, cut.head, after=after, base=find, parking=parking)
        except EvolveFailed as why:
            raise _refused(model, why.message, why.facts) from why
        if parking is None:
            self.left += len(table)
            return table, tuple(parked)
        new = [of for of in parking.parked if of.position > after]
        if new:
            raise _refused(model, f"{new[0].type} for {new[0].stream!r}: {new[0].error}", {"type": new[0].type})
        self.left += len(table)
        return table, parking.parked


def _refused(model: Model, why: str, facts: Mapping[str, object]) -> EvolveFailed:
    return EvolveFailed(
        f"the inline read model {model.cls.__name__} cannot take what is appended: {why}",
        hint="nothing was stored; mend its evolve and call lab.inline again", **facts,
    )  # fmt: skip
