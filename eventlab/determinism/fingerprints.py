"""Fingerprints of states and tables: equal exactly when the values are, on every machine and in every process.

A state is encoded as deterministic CBOR (RFC 8949, section 4.2) of its stored form, so that 1, 1.0, Decimal(1), -0.0 and
b"1" stay apart while Decimal("0") and Decimal("0.00") are one. A table's fingerprint does not depend on the order of its
rows and sees duplicates: the 128-bit digests of the rows are added up, with their number. `FORM` counts the changes of all
this: fingerprints of two forms are not compared.
"""

from __future__ import annotations

import hashlib
from typing import Any, Final

import cbor2
import pyarrow as pa

from eventlab.model.models import Model
from eventlab.replay.tables import columns_of
from eventlab.store.base import Tenant
from eventlab.store.columns import codec

FORM: Final = 1
_MODULUS: Final = 1 << 128


def state_values(model: Model, state: Any) -> list[Any]:
    """The stored form of each field of a state; raises `InvalidValue` where a value does not fit its type."""
    return [kind.encode(getattr(state, name), f"{model.cls.__name__}.{name}") for name, kind in model.fields]


def digest(values: Any) -> bytes:
    """Sixteen bytes of stored values."""
    return hashlib.blake2b(cbor2.dumps(values, canonical=True), digest_size=16, person=b"eventlab state").digest()


def table_fingerprint(model: Model, table: pa.Table, tenant: Tenant) -> str:
    """A model's table as `rows-hexdigest`, whatever the order of its rows."""
    columns = [codec(kind.tag).to_stored(table.column(name).combine_chunks()) for name, kind in columns_of(model, tenant)]
    total = 0
    for row in zip(*columns, strict=True):
        total += int.from_bytes(digest(list(row)), "big")
    return f"{len(table)}-{total % _MODULUS:032x}"


class Chain:
    """A running digest of every state a fold went through, so that two folds can be told apart even where they meet again.

    `checkpoints` holds (position, digest) after every `every` events: two folds part between the last checkpoint in which
    they agree and the next. The states between two checkpoints are encoded together, which takes half the time. With a
    `stride` only one state in so many is looked at.
    """

    def __init__(self, model: Model, every: int, stride: int = 1) -> None:
        self.model = model
        self.every = every
        self._stride = stride
        self._events = 0
        self.checkpoints: list[tuple[int, str]] = []
        self._at = 0
        self._states: list[Any] = []
        self._hash = hashlib.blake2b(digest_size=16, person=b"eventlab chain")

    def add(self, key: Any, event: Any, state: Any, position: int) -> None:
        """Take in the state after an event."""
        self._at = position
        self._events += 1
        if self._events % self._stride:
            return
        self._states.append(state)
        if len(self._states) == self.every:
            self._take()

    def _take(self) -> None:
        states, self._states = self._states, []
        for name, kind in self.model.fields:
            path = f"{self.model.cls.__name__}.{name}"
            column = [kind.encode(getattr(state, name), path) for state in states]
            self._hash.update(cbor2.dumps(column, canonical=True))
        self.checkpoints.append((self._at, self._hash.hexdigest()))

    def close(self) -> None:
        """Add the last checkpoint."""
        if self._states:
            self._take()
