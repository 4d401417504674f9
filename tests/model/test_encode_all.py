"""Many payloads at once are stored as each by itself is, or refused for the first that does not fit."""

from __future__ import annotations

import datetime as dt
import enum
import uuid
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import eventlab as el
from eventlab.errors import InvalidValue
from eventlab.model.events import event_type


class Shade(enum.Enum):
    DARK = "dark"
    LIGHT = "light"


class Word(str):
    """Text of a class of its own."""

    __slots__ = ()


@el.event(name="encoded.Painted")
class Painted:
    """A wall was painted."""

    wall: str
    coats: int
    dry: bool
    cost: el.Money
    shade: Shade
    at: dt.datetime
    by: uuid.UUID
    thick: float
    note: str | None = None


NOON = dt.datetime(2026, 1, 1, 12, tzinfo=dt.UTC)
TEXTS = st.sampled_from(["", "a", "größe", "\ud800", Word("w"), 7, None])
WHOLE = st.sampled_from([0, -1, 2**63 - 1, -(2**63), 2**63, True, 1.0, None])
VALUES = st.builds(
    Painted, TEXTS, WHOLE, st.sampled_from([True, False, 1, None]),
    st.sampled_from([Decimal("1.50"), Decimal("1.555"), Decimal("NaN"), 3, None]), st.sampled_from([Shade.DARK, "dark", None]),
    st.sampled_from([NOON, NOON.replace(tzinfo=None), None]),
    st.sampled_from([uuid.UUID(int=5), "5"]), st.sampled_from([0.5, 1, float("inf")]), st.sampled_from([None, "n", 4]),
)  # fmt: skip
GOOD = st.builds(
    Painted, st.sampled_from(["", "a", "größe", Word("w")]), st.sampled_from([0, -1, 2**63 - 1, -(2**63)]), st.booleans(),
    st.sampled_from([Decimal("1.50"), Decimal(2), 3]), st.sampled_from(list(Shade)), st.just(NOON),
    st.just(uuid.UUID(int=5)), st.sampled_from([0.5, 1]), st.sampled_from([None, "n"]),
)  # fmt: skip


def one_by_one(events: list[Any]) -> Any:
    try:
        return [event_type(Painted).encode(event) for event in events]
    except InvalidValue as why:
        return why.message


@given(st.lists(st.one_of(GOOD, GOOD, GOOD, VALUES), max_size=6))
def test_together_they_are_what_each_is_by_itself(events: list[Any]) -> None:
    meant = one_by_one(events)
    try:
        found: Any = event_type(Painted).encode_all(events)
    except InvalidValue as why:
        found = why.message
    assert found == meant
    if isinstance(meant, list):
        assert [list(map(type, row)) for row in found] == [list(map(type, row)) for row in meant]


@given(st.lists(GOOD, min_size=1, max_size=5))
def test_what_is_appended_together_is_read_as_it_was_given(events: list[Any]) -> None:
    with el.scratch() as lab:
        lab.append("wall-1", events)
        assert [event.data for event in lab.read()] == [event_type(Painted).normal(event) for event in events]


def test_nothing_of_several_is_stored_where_one_does_not_fit() -> None:
    good = Painted("a", 1, True, el.money(1), Shade.DARK, NOON, uuid.UUID(int=1), 1.0)
    with el.scratch() as lab:
        with pytest.raises(InvalidValue, match=r"encoded\.Painted\.coats is 9223372036854775808"):
            lab.append("wall-1", [good, Painted(**{**vars(good), "coats": 2**63}), good])
        assert lab.head == 0
