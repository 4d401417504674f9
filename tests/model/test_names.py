"""How streams, types and fields are spelled, and what a name's grammar says."""

from __future__ import annotations

import itertools
import re
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import eventlab as el
from eventlab.errors import InvalidName
from eventlab.model.names import (
    MAX_NAME_BYTES,
    check_category,
    check_distinct,
    check_plain,
    command_findings,
    event_findings,
    past_tense,
    query_findings,
    snake,
    split_stream,
)

CATEGORIES = st.from_regex(r"[a-z][a-z0-9_]{0,12}", fullmatch=True)
PLAIN = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=30)
WORDS = st.lists(st.from_regex(r"[A-Z][a-z]{1,6}", fullmatch=True), min_size=1, max_size=4)


# -- streams -----------------------------------------------------------------------------------------------------------


@given(CATEGORIES, PLAIN)
def test_a_stream_is_a_category_and_everything_after_the_first_dash(category: str, id: str):
    assert split_stream(f"{category}-{id}") == (category, id)


@given(st.text(max_size=20))
def test_a_stream_is_split_or_refused_and_never_guessed(text: str):
    category, dash, id = text.partition("-")
    fits = re.fullmatch(r"[a-z][a-z0-9_]*", category) and dash and id and not re.search(r"[\x00-\x1f\x7f]", text)
    if fits:
        assert split_stream(text) == (category, id)
    else:
        with pytest.raises(InvalidName):
            split_stream(text)


@pytest.mark.parametrize(
    "wrong",
    ["", "order", "order-", "-7", "Order-7", "7-order", "_o-7", "or der-7", "größe-7", "order-\n", "o-\ud83d", 7, None, b"o-1"],
)
def test_what_is_no_stream_is_refused_before_anything_is_stored(wrong: Any):
    @el.event
    class LampLit:
        """Someone lit a lamp."""

    with el.scratch() as lab:
        with pytest.raises(InvalidName):
            lab.append({wrong: [LampLit()]})
        assert lab.head == 0
        if isinstance(wrong, str):
            with pytest.raises(InvalidName):
                el.stream(wrong)


def test_an_id_may_hold_anything_that_is_text():
    hostile = ["2013-02-08-UA-1545-EWR", "../../secrets", "'; drop table event; --", "a/b\\c", "%s {0} $1", "größe 😀", " ", "-"]

    @el.event
    class LampLit:
        """Someone lit a lamp."""

    with el.scratch() as lab:
        for id in hostile:
            lab.append(f"lamp-{id}", [LampLit()])
        assert [(r.category, r.id) for r in lab.read()] == [("lamp", id) for id in hostile]
        for id in hostile:
            assert [r.id for r in lab.read(el.stream(f"lamp-{id}"))] == [id]


def test_a_name_has_at_most_512_bytes_of_utf_8():
    assert check_plain("é" * (MAX_NAME_BYTES // 2), "actor")
    for wrong in ("é" * (MAX_NAME_BYTES // 2) + "e", "", "tab\t", "\x7f", "\ud83d", None, 7, b"x"):
        with pytest.raises(InvalidName, match="cannot name a actor"):
            check_plain(wrong, "actor")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["Order", "7up", "_order", "order day", "größe", "", "order-day", None])
def test_a_category_is_in_snake_case(name: Any):
    with pytest.raises(InvalidName, match="cannot name a category"):
        check_category(name)


# -- spelling ----------------------------------------------------------------------------------------------------------


@given(WORDS)
def test_words_in_camel_case_become_the_same_words_in_snake_case(words: list[str]):
    assume(all(len(word) > 1 for word in words))
    name = snake("".join(words))
    assert name == "_".join(word.lower() for word in words)
    assert check_category(name) == snake(name) == name


@given(st.from_regex(r"[A-Za-z][A-Za-z0-9_.]{0,20}", fullmatch=True))
def test_every_plain_class_name_gives_a_category_that_stays_as_it_is(name: str):
    assert check_category(snake(name)) == snake(snake(name))


@given(st.lists(st.sampled_from(["isbn", "ISBN", "Isbn", "title", "Title", "größe", "GRÖSSE", "ß", "ss"]), max_size=5))
def test_two_different_names_that_case_alone_tells_apart_are_refused(names: list[str]):
    clash = any(one != other and one.casefold() == other.casefold() for one, other in itertools.combinations(names, 2))
    if clash:
        with pytest.raises(InvalidName, match="which SQL cannot tell apart"):
            check_distinct(names, "the store")
    else:
        check_distinct(names, "the store")


# -- grammar -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    "OrderPlaced ItemAddedToOrder FlightDeparted MoneyWithdrawn InvoiceSent PaymentMade SeatTaken KeyFound BookLent "
    "HTTPRequestSeen v2.Paid StudentsSubscribed OrderShippedAgain PriceSet DoorShut ContractWritten".split(),
)
def test_a_fact_in_the_past_is_taken_for_one(name: str):
    assert past_tense(name)
    assert event_findings(name, "It happened.") == []
    assert [f.code for f in command_findings(name, "Do it.")] == ["N2"]


@pytest.mark.parametrize("name", "PlaceOrder AddItem Speed FeedAnimals OrderEvent Withdraw Red Need Bed SendInvoice".split())
def test_what_is_no_fact_in_the_past_is_a_finding(name: str):
    assert not past_tense(name)
    (finding,) = event_findings(name, "It happens.")
    assert (finding.code, finding.subject) == ("N1", name)
    assert finding.hint


@pytest.mark.parametrize("name", ["PlaceOrder", "AddItem", "Withdraw", "SendInvoice", "FeedAnimals"])
def test_an_order_in_the_imperative_is_taken_for_one(name: str):
    assert command_findings(name, "Do it.") == []


def test_a_command_in_the_progressive_is_a_finding_and_what_has_no_description_too():
    assert [f.code for f in command_findings("PlacingOrder", "Place it.")] == ["N2"]
    assert [f.code for f in command_findings("PlaceOrder", "")] == ["N3"]
    assert [f.code for f in command_findings("PlacingOrder", "")] == ["N2", "N3"]
    assert [f.code for f in query_findings("OrdersOf", "")] == ["N3"]
    assert query_findings("OrdersOf", "What somebody ordered.") == []
    assert [f.code for f in event_findings("OrderPlaced", "")] == ["N3"]
    assert [f.code for f in event_findings("Order", "")] == ["N1", "N3"]
