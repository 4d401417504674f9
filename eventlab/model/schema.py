"""Schemas: what the store remembers of an event type, with or without its class.

A `Schema` is plain data. It is written to the catalog with the first event of its type, so that a process that defines
none of a store's types can still browse and query it, and so that a class that no longer fits its events is noticed.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import cached_property

from eventlab.model.types import Leaf


@dataclass(frozen=True)
class Schema:
    """One version of one event type: its stored columns in order, its meaning, and where it was defined.

    `defaults` are the fields that may be left out; None where the store was written before that was kept.
    """

    name: str
    version: int
    columns: tuple[str, ...]
    declared: tuple[str, ...] = ()
    doc: str = ""
    origin: str = ""
    defaults: tuple[str, ...] | None = None

    def __hash__(self) -> int:
        # It is looked up for every event; those of one key are almost always the same one.
        return hash((self.name, self.version))

    @property
    def key(self) -> tuple[str, int]:
        return self.name, self.version

    @cached_property
    def leaves(self) -> tuple[Leaf, ...]:
        return tuple(Leaf.parse(column) for column in self.columns)

    @cached_property
    def fields(self) -> tuple[str, ...]:
        """The names of its fields; one that is nested has several columns."""
        return tuple(dict.fromkeys(leaf.path.partition(".")[0] for leaf in self.leaves))

    @cached_property
    def nullable(self) -> frozenset[str]:
        """The fields that may be None, as far as it is declared."""
        declared = [(name, told.split(" | ")) for name, _, told in (text.partition(": ") for text in self.declared)]
        return frozenset(name for name, told in declared if "None" in told)

    @cached_property
    def fingerprint(self) -> str:
        """Changes when a stored column does, and not with descriptions."""
        text = json.dumps([self.name, self.version, sorted(self.columns)])
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    def to_json(self) -> str:
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Schema:
        raw = json.loads(text)
        defaults = raw.get("defaults")
        return cls(
            raw["name"], raw["version"], tuple(raw["columns"]), tuple(raw["declared"]), raw["doc"], raw["origin"],
            None if defaults is None else tuple(defaults),
        )  # fmt: skip

    def difference(self, other: Schema) -> str:
        """The columns in which two schemas of one name part, in words."""
        gone = [c for c in self.columns if c not in other.columns]
        new = [c for c in other.columns if c not in self.columns]
        parts = [f"stored but not in the class: {', '.join(gone)}"] if gone else []
        parts += [f"in the class but not stored: {', '.join(new)}"] if new else []
        return "; ".join(parts)
