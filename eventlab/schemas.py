"""Stored schemas and the classes of today, held against each other before anything is deployed: check, dry run, differences."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import polars as pl

from eventlab.errors import EventlabError, UnknownType
from eventlab.model.changes import Change, changes, json_schema, stored_schema
from eventlab.model.events import EVENTS, EventType, event_class
from eventlab.model.filters import Clause, Filter
from eventlab.model.schema import Schema
from eventlab.model.upcasting import payloads
from eventlab.store.base import Cut, Tenant
from eventlab.store.columns import stored_column

Kind = Literal["error", "warning", "note"]
#: So many examples of what fails are shown of each version.
EXAMPLES: Final = 3
_DRY: Final[dict[str, Any]] = {
    "type": pl.String, "version": pl.Int64, "rows": pl.Int64, "failed": pl.Int64, "new_nulls": pl.Int64, "position": pl.Int64,
    "example": pl.String,
}  # fmt: skip


@dataclass(frozen=True)
class SchemaFinding:
    """Something that the stored schemas and the classes of today do not agree on; `hint` says what to write."""

    kind: Kind
    type: str
    version: int
    said: str
    hint: str = ""

    def __str__(self) -> str:
        return f"{self.kind}: {self.type} version {self.version}: {self.said}{f' ({self.hint})' if self.hint else ''}"


def check_schemas(stored: Iterable[Schema], kinds: Iterable[EventType] | None = None) -> list[SchemaFinding]:
    """What of the stored versions the classes of today cannot read, or would read otherwise than one may think.

    Looked at by their schemas alone; what an upcaster does with each event is seen by `dry_run`.
    """
    known: dict[str, list[EventType]] = {}
    for kind in EVENTS.all() if kinds is None else kinds:
        known.setdefault(kind.name, []).append(kind)
    versions: dict[str, list[Schema]] = {}
    for schema in stored:
        versions.setdefault(schema.name, []).append(schema)
    found: list[SchemaFinding] = []
    for name, schemas in sorted(versions.items()):
        here = known.get(name, [])
        if len(here) != 1:
            last, classes = max(schema.version for schema in schemas), f"{len(here)} classes are stored under that name"
            found.append(
                SchemaFinding("error", name, last, classes, "give one of them name=…")
                if here
                else SchemaFinding("note", name, last, "no class here has that name", "its events are read as plain values")
            )
            continue
        found += _of_type(here[0], sorted(schemas, key=lambda schema: schema.version))
    return found


def _of_type(kind: EventType, schemas: Sequence[Schema]) -> Iterator[SchemaFinding]:
    cls = kind.cls.__name__
    stored = {schema.version: schema for schema in schemas}
    newest = schemas[-1].version
    if newest > kind.version:
        yield SchemaFinding("error", kind.name, newest, f"is stored, and {cls} is version {kind.version} here",
                            "this code is older than the store: deploy the newer one")  # fmt: skip
    for schema in schemas:
        if schema.version == kind.version:
            if schema.fingerprint != kind.schema.fingerprint:
                yield SchemaFinding("error", kind.name, schema.version, f"differs from {cls}: {schema.difference(kind.schema)}",
                                    f"a change of fields is @el.event(version={schema.version + 1})")  # fmt: skip
            continue
        if schema.version > kind.version:
            continue
        steps = [v for v in range(schema.version, kind.version) if v in kind.upcasters]
        if not steps:
            yield from _weak(kind, schema)
        elif steps[0] > schema.version and (between := stored.get(steps[0])) is not None:
            names = {leaf.path.split(".")[0] for leaf in schema.leaves}
            missing = sorted({leaf.path.split(".")[0] for leaf in between.leaves} - names)
            if missing:
                yield SchemaFinding(
                    "warning", kind.name, schema.version,
                    f"has no {', '.join(missing)}, which the step from version {steps[0]} may look for",
                    f"@el.upcast({cls}, from_version={schema.version})",
                )  # fmt: skip
    for version in sorted(kind.upcasters):
        if version not in stored:
            yield SchemaFinding("note", kind.name, version, "is upcast, and no event of it is stored here")


def _weak(kind: EventType, schema: Schema) -> Iterator[SchemaFinding]:
    """A version that is read by its fields and their defaults."""
    try:
        kind.decode(schema, [[] for _ in schema.columns] or [[]])
    except EventlabError as why:
        yield SchemaFinding("error", kind.name, schema.version, why.message, why.hint)
        return
    names = dict.fromkeys(leaf.path.split(".")[0] for leaf in schema.leaves)
    gone = [name for name in names if name not in {field for field, _ in kind.fields}]
    new = [name for name, _ in kind.fields if name not in names]
    tags = {name: [leaf.tag for leaf in schema.leaves if leaf.path.split(".")[0] == name] for name in gone}
    for name in gone:
        same = [to for to in new if [leaf.tag for leaf in kind.leaves if leaf.path.split(".")[0] == to] == tags[name]]
        if same:
            step = f"@el.upcast({kind.cls.__name__}, from_version={schema.version}) says so"
            yield SchemaFinding("warning", kind.name, schema.version,
                                f"{name} is gone, and {' and '.join(same)} of the same form came with a default: a rename?",
                                step)  # fmt: skip
        else:
            yield SchemaFinding("note", kind.name, schema.version, f"{name} is stored, and no field of {kind.cls.__name__} today")


def differences(name: str, stored: Mapping[tuple[str, int], Schema], old: int | None, new: int | None) -> list[Change]:
    """What is different between two versions of a type; without `new` the class of today, without `old` the one before it."""
    versions = sorted(version for of, version in stored if of == name)
    kind = event_class(name) if EVENTS.named(name) else None
    if not versions and kind is None:
        known = ", ".join(sorted({of for of, _ in stored})) or "none"
        raise UnknownType(f"no event type is called {name!r}", hint=f"there are: {known}")
    to: dict[str, Any]
    if new is None and kind is not None:
        to, last = json_schema(kind), kind.version
    else:
        last = new if new is not None else versions[-1]
        to = stored_schema(_version(stored, name, last))
    first = old if old is not None else max((v for v in versions if v < last), default=last)
    return changes(stored_schema(_version(stored, name, first)), to)


def _version(stored: Mapping[tuple[str, int], Schema], name: str, version: int) -> Schema:
    if (name, version) not in stored:
        known = ", ".join(str(v) for of, v in sorted(stored) if of == name) or "none"
        raise UnknownType(f"version {version} of {name} is not in the store", hint=f"there are: {known}")
    return stored[name, version]


def dry_run(cut: Cut, tenant: Tenant, advance: Any = None, only: Sequence[str] = ()) -> pl.DataFrame:
    """Every stored event brought to the class of today, and thrown away: what fails, and what is null now that was not.

    A row for each type and version that has a class here: rows, how many failed, how many values are newly null; and a row
    for each of a few examples of what failed, with its position.
    """
    rows: list[tuple[Any, ...]] = []
    for name, version in sorted(set().union(*cut.types_of.values()) if cut.types_of else ()):
        kind = event_class(name) if EVENTS.named(name) else None
        if kind is None or (only and name not in only):
            continue
        schema = cut.schemas[name, version]
        count = failed = nulls = 0
        examples: list[tuple[int, str]] = []
        picked = Filter((Clause(types=frozenset((name,))),))
        for batch in cut.batches(picked, tenant=tenant, envelope=("position", "type", "schema_version"), types=(name,)):
            for table in batch.tables:
                at = [i for i, of in enumerate(table.column("schema_version").to_pylist()) if of == version]
                part = table.take(at)
                if not len(part):
                    continue
                columns = [stored_column(part, column) for column in schema.columns]
                positions = part.column("position").to_pylist()
                made = _upcast(kind, schema, columns, positions, examples)
                count += len(part)
                failed += sum(one is None for one in made)
                nulls += _new_nulls(schema, columns, made)
            if advance is not None:
                advance(len(batch))
        rows.append((name, version, count, failed, nulls, None, None))
        rows += [(name, version, None, None, None, position, said) for position, said in examples[:EXAMPLES]]
    return pl.DataFrame(rows, schema=_DRY, orient="row")


def _upcast(
    kind: EventType, schema: Schema, columns: Sequence[list[Any]], positions: Sequence[int], examples: list[tuple[int, str]]
) -> list[Any]:
    """The events of a part; None where one fails."""
    with contextlib.suppress(Exception):
        return kind.decode(schema, list(columns) or [[None] * len(positions)])
    found: list[Any] = []
    for i, position in enumerate(positions):
        try:
            found += kind.decode(schema, [[column[i]] for column in columns] or [[None]])
        except Exception as why:
            found.append(None)
            if len(examples) < EXAMPLES:
                examples.append((position, why.message if isinstance(why, EventlabError) else f"{type(why).__name__}: {why}"))
    return found


def _new_nulls(schema: Schema, columns: Sequence[list[Any]], made: Sequence[Any]) -> int:
    """Values that are None now and were something, of fields that kept their name."""
    count = 0
    before = payloads(schema, columns, len(made))
    for old, event in zip(before, made, strict=True):
        if event is not None:
            count += sum(value is not None and getattr(event, name, value) is None for name, value in old.items())
    return count
