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


#: The types that the stored query of a base knows, by store and base: as long as there are no others it is not looked at again.
_KNOWN: Final[dict[tuple[str, ...], frozenset[tuple[str, int]]]] = {}
_LOCK: Final = threading.Lock()


def keep_query(model: Model, store: Store, tenant: Tenant, base: ReadModelBase, cut: Cut, *, anew: bool = False) -> None:
    """Keep the model's query with a base, if it lifts whole; `anew` for the values that the log has by now."""
    place = (store.store_id, base.tenant, base.name, base.fingerprint)
    known = frozenset(known_types(model.category, cut, tenant))
    with _LOCK:
        if not anew and _KNOWN.get(place) == known:
            return
    if anew or not _knows(store.read_models.query(base), known):
        text = None
        # A type with two classes here, say: the fold says so where it matters, and there is no query. The base is written by
        # now; whoever moved it did not ask for one, and nothing that is wrong with it may be an error of theirs.
        with contextlib.suppress(Exception):
            text = stored_query(plan_of(model, cut), cut, tenant)
        store.read_models.keep_query(base, text)
    with _LOCK:
        if len(_KNOWN) > 1_000:
            _KNOWN.clear()
        _KNOWN[place] = known


def _knows(text: str | None, known: frozenset[tuple[str, int]]) -> bool:
    """Whether a stored query is of this engine, and there are no types that it does not know."""
    if text is None:
        return False
    try:
        said = json.loads(text)
        return (said["format"], said["engine"]) == (FORMAT, engine()) and known <= {(of, at) for of, at, _ in said["types"]}
    except (KeyError, TypeError, ValueError):
        return False


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
