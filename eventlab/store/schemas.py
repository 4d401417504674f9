"""Schemas in a store: what may be registered, so that one stored name always means one type."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from eventlab.errors import SchemaConflict
from eventlab.model.names import check_distinct, snake
from eventlab.model.schema import Schema

Known = Mapping[tuple[str, int], Schema]


def unknown(schemas: Iterable[Schema], known: Known) -> list[Schema]:
    """The schemas a store does not have yet; one that differs from what it has is refused."""
    new: dict[tuple[str, int], Schema] = {}
    for schema in schemas:
        stored = known.get(schema.key) or new.get(schema.key)
        if stored is None:
            new[schema.key] = schema
        elif stored is not schema and stored.fingerprint != schema.fingerprint:
            raise SchemaConflict(
                f"{schema.name} version {schema.version} differs from what is stored under that name: "
                f"{stored.difference(schema)}",
                hint=f"a change of fields is @el.event(version={schema.version + 1}); another type needs another name=",
                type=schema.name,
                version=schema.version,
            )
    if new:
        names = {name for name, _ in known} | {name for name, _ in new}
        check_distinct(sorted(names), "the store")
        check_distinct(sorted({snake(name) for name in names}), "the store")
        views = {f"{snake(name)}_v{version}": name for name, version in {*known, *new}}
        for name in sorted(names):
            other = views.setdefault(snake(name), name)
            if other != name:
                raise SchemaConflict(f"{other!r} and {name!r} would both be types.{snake(name)} in SQL", hint="rename one")
    return list(new.values())
