"""Parking: a key whose event its model cannot take stops at its last good state, and the rest goes on.

For read models that are kept; a fold that somebody asks for raises.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import replace
from typing import Any

import pyarrow as pa

from eventlab.errors import EvolveFailed
from eventlab.model.models import Model
from eventlab.replay.rows import Entry, Key, Lookup, RowFold
from eventlab.replay.tables import stored_state, table_of
from eventlab.store.base import ALL, Batch, Tenant
from eventlab.store.read_models import Parked


class Parking:
    """The keys of a read model that have stopped, and the events that had no key."""

    def __init__(self, model: Model, tenant: Tenant, parked: Iterable[Parked] = ()) -> None:
        self.model, self.tenant = model, tenant
        #: By key, as the fold has it.
        self.keys: dict[Key, Parked] = {}
        self.keyless: list[Parked] = []
        for of in parked:
            if of.key is None:
                self.keyless.append(of)
            else:
                self.keys[self._key(of.key)] = of

    @property
    def parked(self) -> tuple[Parked, ...]:
        """Everything that is parked, in the order of positions."""
        return tuple(sorted([*self.keys.values(), *self.keyless], key=lambda of: of.position))

    def copy(self) -> Parking:
        """One like this, to be added to or thrown away."""
        return Parking(self.model, self.tenant, self.parked)

    def take(self, other: Parking) -> None:
        """What another one has found."""
        self.keys, self.keyless = other.keys, other.keyless

    def park(self, key: Key | None, envelope: Any, at: int, why: Exception) -> None:
        """One more that stops here."""
        stored = None if key is None else self._stored(key)
        place = (envelope.position[at], envelope.stream[at], envelope.version[at], envelope.type[at])
        found = Parked(stored, *place, _said(why))
        if key is None:
            self.keyless.append(found)
        else:
            self.keys[key] = found

    def waits(self, key: Key) -> None:
        """An event of a key that has stopped is passed over."""
        of = self.keys[key]
        self.keys[key] = replace(of, waiting=of.waiting + 1)

    def _stored(self, key: Key) -> tuple[Any, ...]:
        first: tuple[Any, ...] = ()
        if self.tenant is ALL:
            of, key = key
            first = (of,)
        if self.model.category is not None:
            return (*first, key[len(self.model.category) + 1 :])
        if self.model.key_names == ("_id",):
            return (*first, key)
        return (*first, *(kind.encode(part, name) for (name, kind), part in zip(self.model.key_fields, key, strict=True)))

    def _key(self, stored: tuple[Any, ...]) -> Key:
        first, rest = (stored[:1], stored[1:]) if self.tenant is ALL else ((), stored)
        if self.model.category is not None:
            key: Key = f"{self.model.category}-{rest[0]}"
        elif self.model.key_names == ("_id",):
            key = rest[0]
        else:
            key = tuple(kind.decode(part) for (_, kind), part in zip(self.model.key_fields, rest, strict=True))
        return (first[0], key) if first else key


def key_text(of: Parked) -> str:
    """The key of something parked, as a person reads it."""
    return "" if of.key is None else ", ".join(map(str, of.key))


class _ParkingFold(RowFold):
    """The row fold, of all keys or of some, that goes on after an event that was not taken."""

    def __init__(
        self, model: Model, tenant: Tenant, lookup: Lookup | None, parking: Parking, only: Collection[Key] | None, *,
        strict: bool, of_source: Lookup | None,
    ) -> None:  # fmt: skip
        super().__init__(model, tenant, lookup, self._fits if strict else None, of_source)
        self.parking, self.only = parking, only

    def _fits(self, key: Key, event: Any, state: Any, position: int) -> None:
        stored_state(self.model, key, state)

    def _keys(self, batch: Batch, events: list[Any]) -> list[Key]:
        keys = super()._keys(batch, events)
        return keys if self.only is None else [key if key in self.only else None for key in keys]

    def _no_key(self, envelope: Any, at: int, why: Exception) -> Key:
        self.parking.park(None, envelope, at, why)
        return None

    def _run(self, rows: Iterator[tuple[Key, Any, int | None, int, int]], envelope: Any) -> None:
        last: list[Any] = [None, 0]
        before: list[Any] = []

        def passed() -> Iterator[tuple[Key, Any, int | None, int, int]]:
            for row in rows:
                key = row[0]
                if key is None:
                    continue
                if key in self.parking.keys:
                    self.parking.waits(key)
                    continue
                last[0], last[1] = key, row[4]
                before[:] = self.entries.get(key) or [self.model.initial, 0, 0]
                yield row

        going = passed()
        while True:
            try:
                super()._run(going, envelope)
                return
            except EvolveFailed as why:
                key, at = last
                self.parking.park(key, envelope, at, why.__cause__ if isinstance(why.__cause__, Exception) else why)
                self.entries[key] = list(before)


def parked_table(
    model: Model,
    batches: Callable[[], Iterable[Batch]],
    tenant: Tenant,
    lookup: Lookup | None,
    parking: Parking,
    only: Collection[Key] | None = None,
    of_source: Lookup | None = None,
) -> pa.Table:
    """The rows that the row fold gives, of all keys or of some; those that stop have the state before their event."""
    for strict in (False, True):
        trial = parking.copy()
        folding = _ParkingFold(model, tenant, lookup, trial, only, strict=strict, of_source=of_source)
        for batch in batches():
            folding.feed(batch)
        # A key that stopped at its first event has no state.
        entries: dict[Key, Entry] = {key: entry for key, entry in folding.entries.items() if entry[1]}
        try:
            table = table_of(model, entries, tenant)
        except EvolveFailed:
            # A state that is not what its fields say: look at each, to find the event.
            if strict:
                raise
            continue
        parking.take(trial)
        return table
    raise AssertionError


def failure(model: Model, of: Parked) -> EvolveFailed:
    """The error that something parked stands for."""
    return EvolveFailed(
        f"{model.cls.__name__} stopped at {of.type} at position {of.position} ({of.stream!r}, version {of.version}): {of.error}",
        hint=f"the state before it: lab.at(position={of.position - 1}).load(…)" if model.category else "lab.parked() lists it",
        position=of.position,
        stream=of.stream,
        type=of.type,
    )


def _said(why: Exception) -> str:
    text = getattr(why, "message", None) or str(why)
    return f"{type(why).__name__}: {text}"[:500]
