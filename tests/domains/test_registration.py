"""Rules across streams: an address is used once, a course has so many seats; processes that race do not break them.

The four kinds of test: each decision by itself, a store on disk with processes that race, a scenario from the first decision
to the answer, and replay.
"""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

import pytest
from hypothesis import given as drawn
from hypothesis import settings
from hypothesis import strategies as st
from processes import ended, started

import eventlab as el
from eventlab.domains.registration import (
    CourseOffered,
    CourseRoll,
    EmailChanged,
    FreeCourses,
    MemberRegistered,
    SeatReleased,
    SeatReserved,
    book,
    change_email,
    offer,
    register,
    release,
)
from eventlab.errors import Conflict, Rejected
from eventlab.testing import given

# -- the decisions ---------------------------------------------------------------------------------------------------------


def test_an_address_is_used_once() -> None:
    ann = {"member-1": [MemberRegistered("ann@example.org", "Ann")]}
    given(ann).when(lambda lab: register(lab, "2", "bob@example.org", "Bob")).then(
        {"member-2": [MemberRegistered("bob@example.org", "Bob")]}
    )
    given(ann).when(lambda lab: register(lab, "2", " Ann@Example.org", "Bob")).rejected("is used by somebody else")
    given(ann).when(lambda lab: change_email(lab, "2", "x@example.org")).rejected("there is no member 2")
    given(ann).when(lambda lab: change_email(lab, "1", "x@example.org")).then(EmailChanged("ann@example.org", "x@example.org"))


def test_an_address_that_was_given_up_is_free_again() -> None:
    with el.scratch() as lab:
        register(lab, "1", "ann@example.org", "Ann")
        change_email(lab, "1", "ann@work.example")
        register(lab, "2", "ann@example.org", "Another Ann")
        with pytest.raises(Rejected):
            change_email(lab, "1", "ann@example.org")
        with pytest.raises(Rejected):
            register(lab, "3", "ann@work.example", "Third")


def test_a_course_has_so_many_seats_and_a_student_so_many_courses() -> None:
    course = {"course-c1": [CourseOffered("c1", 1)]}
    given(course).when(lambda lab: book(lab, "c1", "s1")).then(SeatReserved("c1", "s1"))
    full = {"course-c1": [CourseOffered("c1", 1), SeatReserved("c1", "s1")]}
    given(full).when(lambda lab: book(lab, "c1", "s2")).rejected("is full")
    given(full).when(lambda lab: book(lab, "c1", "s1")).rejected("has a seat")
    given(full).when(lambda lab: release(lab, "c1", "s1")).then(SeatReleased("c1", "s1"))
    given(full).when(lambda lab: release(lab, "c1", "s2")).rejected("has no seat")
    given(full).when(lambda lab: book(lab, "c2", "s2")).rejected("there is no course")
    busy = {f"course-c{i}": [CourseOffered(f"c{i}", 9), *([SeatReserved(f"c{i}", "s1")] if i else [])] for i in range(6)}
    given(busy).when(lambda lab: book(lab, "c0", "s1")).rejected("takes 5 courses")


def test_the_roll_of_a_course() -> None:
    past = {"course-c1": [CourseOffered("c1", 2), SeatReserved("c1", "s1"), SeatReserved("c1", "s2"), SeatReleased("c1", "s1")]}
    given(CourseRoll, past).expect([{"_id": "c1", "seats": 2, "students": {"s2"}}])


def test_a_course_is_offered_once() -> None:
    with el.scratch() as lab:
        offer(lab, "c1", 30)
        with pytest.raises(Conflict):
            offer(lab, "c1", 31)


STEPS = st.lists(st.tuples(st.sampled_from(["book", "release"]), st.sampled_from("ab"), st.sampled_from("xyz")), max_size=30)


@drawn(STEPS)
@settings(max_examples=40, deadline=None)
def test_no_history_breaks_the_rules(steps: list[tuple[str, str, str]]) -> None:
    taken: set[tuple[str, str]] = set()
    with el.scratch() as lab:
        offer(lab, "a", 2)
        offer(lab, "b", 1)
        for verb, course, student in steps:
            free = 2 if course == "a" else 1
            mine = (course, student) in taken
            right = mine if verb == "release" else not mine and sum(of == course for of, _ in taken) < free
            try:
                (book if verb == "book" else release)(lab, course, student)
            except Rejected:
                assert not right
            else:
                assert right
                (taken.add if verb == "book" else taken.discard)((course, student))


# -- integration: a store on disk, and processes that race -----------------------------------------------------------------


def take_a_seat(path: str, student: str) -> None:
    """In a process of its own: exit code 0 with a seat, 1 without."""
    with el.open(path, maintain=False) as lab:
        try:
            book(lab, "c1", student, attempts=1_000)
        except Rejected:
            sys.exit(1)


def test_of_processes_that_race_for_the_last_seats_as_many_win_as_there_are_seats(tmp_path: Path) -> None:
    path = tmp_path / "school"
    with el.open(path) as lab:
        offer(lab, "c1", 3)
    assert sorted(ended([started(take_a_seat, path, f"s{n}") for n in range(6)])) == [0, 0, 0, 1, 1, 1]
    with el.open(path) as lab:
        assert len(lab.read(el.events(SeatReserved))) == 3


# -- a scenario: from the first decision to the answer ---------------------------------------------------------------------


def test_from_the_first_member_to_the_courses_with_a_seat_left() -> None:
    with el.scratch() as lab:
        register(lab, "s1", "ann@example.org", "Ann")
        for course, seats in (("c1", 1), ("c2", 3), ("c3", 2)):
            offer(lab, course, seats)
        book(lab, "c1", "s1")
        full = book(lab, "c2", "s1")
        assert lab.ask(FreeCourses("s1"), at_least=full).rows() == [("c3", 2)]
        assert lab.ask(FreeCourses("s2")).rows() == [("c2", 2), ("c3", 2)]
        with pytest.raises(Rejected, match="the course c1 is full"):
            book(lab, "c1", "s2")
        free = release(lab, "c1", "s1")
        assert lab.ask(FreeCourses("s2"), at_least=free)["_id"].to_list() == ["c2", "c3", "c1"]
        assert lab.at(position=full.positions[-1]).ask(FreeCourses("s2"))["_id"].to_list() == ["c2", "c3"]


# -- replay: every way to fold gives the same, for any history -------------------------------------------------------------


@drawn(STEPS)
@settings(max_examples=25, deadline=None)
def test_whatever_is_booked_every_way_to_fold_gives_the_same(steps: list[tuple[str, str, str]]) -> None:
    with el.scratch() as lab:
        offer(lab, "a", 2)
        offer(lab, "b", 1)
        for verb, course, student in steps:
            with contextlib.suppress(Rejected):
                (book if verb == "book" else release)(lab, course, student)
        rows = lab.table(CourseRoll, engine="rows")
        assert lab.table(CourseRoll).equals(rows)
        assert lab.versions(CourseRoll).group_by("_id", maintain_order=True).last().select(rows.columns).equals(rows)
        for row in rows.rows(named=True):
            assert len(row["students"]) <= row["seats"]
