"""Fingerprints are equal exactly when the values are."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

import eventlab as el
from eventlab.determinism.fingerprints import digest, state_values, table_fingerprint
from eventlab.model.models import model_of
from eventlab.replay.tables import table_of


@el.event
class Touched:
    """Something was touched."""

    what: str


@el.aggregate
class Shelf:
    name: str = ""
    count: int = 0
    weight: el.AnyFloat = 0.0
    price: Decimal = Decimal(0)
    raw: bytes = b""
    at: dt.datetime | None = None
    tags: frozenset[str] = frozenset()

    def evolve(self, event: Touched) -> Shelf:
        return self


SHELF = model_of(Shelf)

shelves = st.builds(
    Shelf,
    name=st.text(max_size=3),
    count=st.integers(-2, 2),
    weight=st.sampled_from([0.0, -0.0, 1.0, float("nan"), float("inf")]),
    price=st.sampled_from([Decimal(0), Decimal("0.00"), Decimal(1), Decimal("1.0"), Decimal(-1)]),
    raw=st.binary(max_size=2),
    at=st.sampled_from(
        [None, dt.datetime(2026, 1, 1, tzinfo=dt.UTC), dt.datetime(2026, 1, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=1)))]
    ),
    tags=st.frozensets(st.sampled_from("abc")),
)


def same(one: Shelf, other: Shelf) -> bool:
    """Equality as a person means it: NaN is itself, 0.0 is not -0.0, a decimal's zeros do not count, UTC is UTC."""
    return (
        (one.name, one.count, repr(one.weight), one.price, one.raw, one.at, one.tags)
        == (other.name, other.count, repr(other.weight), other.price, other.raw, other.at, other.tags)
    )  # fmt: skip


@given(shelves, shelves)
def test_two_states_have_one_digest_exactly_when_they_are_equal(one: Shelf, other: Shelf) -> None:
    assert (digest(state_values(SHELF, one)) == digest(state_values(SHELF, other))) == same(one, other)


@given(st.lists(shelves, min_size=1, max_size=6, unique_by=id), st.randoms())
def test_a_tables_fingerprint_ignores_the_order_of_rows_and_sees_duplicates(states: list[Shelf], chance: object) -> None:
    entries = {f"shelf-{i}": [state, 1, i + 1] for i, state in enumerate(states)}
    table = table_of(SHELF, entries, "default")
    order = list(range(len(table)))
    chance.shuffle(order)  # type: ignore[attr-defined]
    print_ = table_fingerprint(SHELF, table, "default")
    assert table_fingerprint(SHELF, table.take(order), "default") == print_
    assert table_fingerprint(SHELF, pa.concat_tables([table, table.slice(0, 1)]), "default") != print_
    assert table_fingerprint(SHELF, table.slice(1), "default") != print_


def test_values_of_different_types_never_share_a_digest() -> None:
    values = [1, 1.0, "1", b"1", True, None, [1], {"1": 1}, -0.0, 0.0, float("nan"), float("inf"), 0, False, "", b"", [], {}]
    assert len({digest([value]) for value in values}) == len(values)


def test_a_fingerprint_is_the_same_in_every_version_of_the_library() -> None:
    """Stored fingerprints are compared with new ones: a change of the encoding must be a decision."""
    state = Shelf("a", 1, 1.5, Decimal("2.50"), b"x", dt.datetime(2026, 1, 1, tzinfo=dt.UTC), frozenset("ba"))
    assert digest(state_values(SHELF, state)).hex() == "132589364caf132d7067faabf3041a80"
