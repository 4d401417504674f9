"""Reading a read model where its code is not: by the lifted query that was kept with its base, or the base as it stands.

Whoever has the code and moves a base keeps the query with it, where the model lifts whole. A name stands for the accepted
code, and so what is read is what that code would give; where that is not sure, it is the base, and a warning says as of when.
"""

from __future__ import annotations

import contextlib
import json
import threading
import warnings
from typing import Final

import pyarrow as pa

from eventlab.model.models import Model
from eventlab.replay.lift import plan_of
from eventlab.replay.lift.stored import FORMAT, NoAnswer, answered, engine, known_types, stored_query
from eventlab.store.base import Cut, Store, Tenant
from eventlab.store.read_models import ReadModelBase


class CheckpointWarning(UserWarning):
    """A read model whose code is not here is read as of its checkpoint: what came after it is not in its rows."""


#: The types that the stored query of a base knows, and for how long a log it was written, by store and base.
_KNOWN: Final[dict[tuple[str, ...], tuple[frozenset[tuple[str, int]], int]]] = {}
#: A query is written again, for the values that there are by then, when the log is so many times as long.
GROWTH: Final = 2
_LOCK: Final = threading.Lock()


def keep_query(model: Model, store: Store, tenant: Tenant, base: ReadModelBase, cut: Cut, *, anew: bool = False) -> None:
    """Keep the model's query with a base, if it lifts whole: `anew`, or where it does not know what the log has by now."""
    place = (store.store_id, base.tenant, base.name, base.fingerprint)
    known = frozenset(known_types(model.category, cut, tenant))
    with _LOCK:
        types, head = _KNOWN.get(place, (None, 0))
    if not anew and types == known and cut.head <= GROWTH * head:
        return
    head = 0 if anew else _written_at(store.read_models.query(base), known)
    if cut.head > GROWTH * head or not head:
        text = None
        # A type with two classes here, say: the fold says so where it matters, and there is no query. The base is written by
        # now; whoever moved it did not ask for one, and nothing that is wrong with it may be an error of theirs.
        with contextlib.suppress(Exception):
            text = stored_query(plan_of(model, cut), cut, tenant)
        store.read_models.keep_query(base, text)
        head = cut.head
    with _LOCK:
        if len(_KNOWN) > 1_000:
            _KNOWN.clear()
        _KNOWN[place] = known, head


def _written_at(text: str | None, known: frozenset[tuple[str, int]]) -> int:
    """The length of the log for which a stored query was written; 0 where it is for another engine, or there are other types."""
    try:
        said = json.loads(text or "{}")
        knows = known <= {(of, at) for of, at, _ in said["types"]}
        return int(said["head"]) if knows and (said["format"], said["engine"]) == (FORMAT, engine()) else 0
    except (KeyError, TypeError, ValueError):
        return 0


def table_without_code(base: ReadModelBase, store: Store, cut: Cut, tenant: Tenant, until: int) -> pa.Table:
    """The rows of a base at a position by its stored query; where that has no answer those of its checkpoint, and a warning."""
    if base.position == until:
        return base.table()
    text = store.read_models.query(base)
    try:
        if text is None:
            raise NoAnswer("no query is stored with it")
        return answered(text, cut, tenant, until, base)
    except NoAnswer as why:
        warnings.warn(
            f"state.{base.name} is as of position {base.position:,} of {until:,}: its code is not here, and {why} "
            "(import its model, or let a process that has it catch it up: eventlab run, eventlab rebuild)",
            CheckpointWarning, stacklevel=2,
        )  # fmt: skip
    return base.table()
